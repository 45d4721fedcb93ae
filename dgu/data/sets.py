"""``load``: every image set comes through here, as NHWC float32 with integer labels."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dgu.core.errors import InputError, require, require_whole
from dgu.core.file_kinds import mismatch
from dgu.core.published import origin
from dgu.core.reading import guarded, regular_file
from dgu.data.arrays import decoded_arrays
from dgu.data.export import montage
from dgu.data.folders import read_edm, read_image_folder
from dgu.data.formats import IDX_SPLITS, Decoded, find_idx, is_latent, labels_beside, read_idx_pair, read_npy, read_npz
from dgu.data.named import NAMED_SETS, PICKLES, digest, read_named
from dgu.data.pixels import Range, area_mean, checked_range, rescale, subset, value_range_of

_ALLOWED = f"one of {sorted(NAMED_SETS)}, or a file or folder that exists"


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images in memory.

    Attributes:
        images: float32 (n, h, w, c), values in ``pixel_range``; of latents and of vectors (n, d) as they are.
        labels: int32 (n,), 0 to ``len(class_names) - 1``.
        class_names: one name per label.
        name: the name or path given to ``load``.
        split: the split given to ``load``.
        sha256: hex digest of the whole split as decoded, before any selection, scaling or resizing: the bytes of the
            images (NHWC, as stored) followed by the labels as little-endian int32.
        pixel_range: what black and white are in ``images``; of latents and vectors their smallest and largest value.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    name: str
    split: str
    sha256: str
    pixel_range: tuple[float, float] = (-1.0, 1.0)

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        """What it holds, in one line."""
        size, (low, high) = " x ".join(map(str, self.images.shape[1:])), self.pixel_range
        what = f"{len(self):,} of {size}, {len(self.class_names)} classes, values {low:g} to {high:g}"
        return f"ImageSet({self.name!r}, {self.split!r}: {what})"

    def _repr_png_(self) -> bytes | None:
        """The first images, as notebooks show a set; None for latents and vectors."""
        if self.images.ndim != 4 or self.images.shape[-1] not in (1, 3):
            return None
        low, high = self.pixel_range
        return montage((self.images[:30] - low) / (high - low))

    @classmethod
    def from_arrays(
        cls,
        images: Any,
        labels: Any = None,
        *,
        class_names: Sequence[str] | None = None,
        pixel_range: Range = (-1.0, 1.0),
        value_range: Range | None = None,
        channels_first: bool | None = None,
        name: str = "images",
    ) -> "ImageSet":
        """A set from what is in memory, without a file.

        Args:
            images: an array of NumPy, JAX or PyTorch: images (n, h, w), (n, h, w, c) or (n, c, h, w) of 1 or 3
                channels; latents of 4 channels, in floats; vectors (n, d). Or a data set: of Hugging Face's
                ``datasets`` (columns of type Image and ClassLabel, or with the usual names), of torchvision, or any
                with a length whose items are images or (image, label).
            labels: (n,) integers from 0; none for one class, "unlabelled".
            class_names: one a label.
            pixel_range, value_range: as of ``load``. Values of latents and of vectors are kept.
            channels_first: where the channels are; None tells it by the sizes of the axes.
            name: how errors call the images.

        Raises:
            InputError: what ``load`` would refuse of a file, or no images among the columns.
        """
        found = decoded_arrays(images, labels, class_names, channels_first, name)
        stored_range, sha256 = _stored_range(found.images, value_range, name), digest(found.images, found.labels)
        pixels, pixel_range = _scaled(found.images, stored_range, checked_range("pixel_range", pixel_range))
        return cls(pixels, found.labels, _names(found), name, "train", sha256, pixel_range)


def load(
    name_or_path: str | os.PathLike[str],
    split: str = "train",
    size: int | None = None,
    *,
    pixel_range: Range = (-1.0, 1.0),
    max_size: int | None = None,
    seed: int = 0,
    classes: Sequence[int | str] | None = None,
    value_range: Range | None = None,
    max_bytes: int | None = None,
) -> ImageSet:
    """One split of an image set: NHWC float32 in ``pixel_range`` with int32 labels.

    Args:
        name_or_path: ``"fashion-mnist-mini"`` (in the package: 200 images a class of Fashion-MNIST's test file, split
            ``"test"`` only), ``"fashion-mnist"``, ``"mnist"``, ``"cifar10"`` (full sets, looked for in the folder
            ``$DGU_DATA`` and in the system's folder, never downloaded), or a path: an npz file, an npy file
            of images without labels, a folder of IDX files
            (raw or .gz) or one IDX images file with its labels beside it, a folder of images by class, EDM's zip or
            folder with ``dataset.json``. ``read_npz``, ``read_image_folder`` and ``read_edm`` say what they take.
            A ``Path`` object is never taken for a name. Images without labels are one class, ``"unlabelled"``.
        split: ``"train"``, ``"test"``, or ``"val"`` where a file has it; ``"train"`` is everything where there are no
            splits.
        size: side of the images returned, by exact means over whole blocks (28 -> 14 by 2x2 means); None keeps theirs.
        pixel_range: what black and white become; ``(-1, 1)``: ``x / 127.5 - 1`` of bytes.
        max_size: keep at most so many images, chosen by EDM's rule (``dgu.data.subset``), after ``classes``.
        seed: seed of that rule.
        classes: keep these classes only, by name or number. Labels are renumbered in the order given.
        value_range: what black and white are in float files, where it cannot be told from the values: [0, 1] when
            all lie in it; [-1, 1] when all lie in [-1.2, 1.2] and some below -0.5; [0, 255] when all lie in it and some
            above 64. Stated, 10 % of overshoot are let through.
        max_bytes: how much memory all images of the file may take as float32, 4 bytes a value (8 where the file has 8),
            before any of them are chosen or made smaller; None: the number of GiB in the environment variable
            ``DGU_MAX_GIB``, 2 by default. Found out before they are read; while they are read the stored bytes come on
            top.

    Raises:
        InputError: unknown name, class, split or file type, a set that is not on this machine (with the commands that
            bring it), content that is not the known set's, sizes below 1, and everything the readers and
            ``value_range_of`` refuse. One line each.
    """
    named = isinstance(name_or_path, str | os.PathLike) and name_or_path != ""
    require(named, "name_or_path", name_or_path, _ALLOWED)
    name = os.fspath(name_or_path)
    if max_size is not None:
        require_whole("max_size", max_size)
        max_size = int(max_size)
    if size is not None:
        require_whole("size", size)
        size = int(size)
    pixel_range = checked_range("pixel_range", pixel_range)
    if isinstance(name_or_path, str) and name in NAMED_SETS:
        found, sha256 = read_named(name, split), NAMED_SETS[name].digests[split]
    else:
        found = read_path(name, split, max_bytes)
        sha256 = digest(found.images, found.labels)
    images, labels = found.images, found.labels
    names = _names(found)
    # The range of floats is judged on the whole file; bytes are averaged before they are scaled, where sums are exact.
    stored_range = _stored_range(images, value_range, name)
    if classes is not None:
        kept, labels, names = _of_classes(labels, names, classes)
        images = images[kept]
    if max_size is not None:
        kept = subset(len(images), max_size, seed)
        images, labels = images[kept], labels[kept]
    if size is not None:
        images = area_mean(images, size)
    pixels, pixel_range = _scaled(images, stored_range, pixel_range)
    return ImageSet(pixels, labels, names, name, split, sha256, pixel_range)


def _names(found: Decoded) -> tuple[str, ...]:
    return found.class_names or tuple(str(label) for label in range(int(found.labels.max()) + 1))


def _stored_range(images: np.ndarray, value_range: Range | None, name: str) -> tuple[float, float] | None:
    """What black and white are in images as stored; None of latents and vectors, which have neither."""
    if images.ndim == 2 or is_latent(images):
        require(value_range is None, "value_range", value_range, "left out: latents and vectors are kept as they are")
        require(bool(np.isfinite(images).all()), name, "an array with values that are not finite", "finite")
        return None
    require(images.dtype != np.uint8 or value_range is None, "value_range", value_range, f"None: {name} holds bytes")
    return (0.0, 255.0) if images.dtype == np.uint8 else value_range_of(images, value_range, name)


def _scaled(
    images: np.ndarray, stored_range: tuple[float, float] | None, pixel_range: tuple[float, float]
) -> tuple[np.ndarray, tuple[float, float]]:
    """Images in float32 and what black and white are in them."""
    if stored_range is None:
        return images.astype(np.float32), (float(images.min()), float(images.max()))
    return rescale(images, stored_range, pixel_range), pixel_range


def read_path(name: str | Path, split: str, max_bytes: int | None = None) -> Decoded:
    """The arrays of a file or folder, its format told by its name and content."""
    with guarded(name, _ALLOWED):
        path = Path(os.path.expanduser(name))
        if not path.exists():
            known = origin(path.name)
            wanted = f"a file that is here; it is {known}" if known else _ALLOWED
            raise InputError(f"name_or_path = {str(path)!r}: must be {wanted}")
        return _read_folder(path, split, max_bytes) if path.is_dir() else _read_file(path, split, max_bytes)


def _read_folder(path: Path, split: str, max_bytes: int | None) -> Decoded:
    if os.path.lexists(path / "dataset.json"):
        require(split == "train", "split", split, f"'train' (all of it) for {path}, which has no splits")
        return read_edm(path, max_bytes)
    for folder in (path, path / "raw"):
        pairs = {name: find_idx(folder, name) for name in IDX_SPLITS}
        present = [name for name, pair in pairs.items() if pair is not None]
        if present:
            pair = pairs.get(split)
            if pair is None:
                raise InputError(f"split = {split!r}: must be one of {present} for {path}")
            return read_idx_pair(*pair, max_bytes)
    if (path / "data_batch_1").is_file() or (path / "train").is_file():
        raise InputError(f"{path}: {PICKLES}")
    return read_image_folder(path, split, max_bytes)


def _read_file(path: Path, split: str, max_bytes: int | None) -> Decoded:
    regular_file(path)
    if path.suffix == ".npz":
        return read_npz(path, split, max_bytes)
    if path.suffix == ".npy":
        require(split == "train", "split", split, f"'train' (all of it) for {path}, which has no splits")
        return read_npy(path, max_bytes)
    if path.suffix == ".zip":
        require(split == "train", "split", split, f"'train' (all of it) for {path}, which has no splits")
        return read_edm(path, max_bytes)
    if path.name.removesuffix(".gz").endswith("-ubyte"):
        held = "test" if path.name.startswith(IDX_SPLITS["test"]) else "train"
        require(split == held, "split", split, f"{held!r} for {path}")
        return read_idx_pair(path, labels_beside(path), max_bytes)
    if "cifar" in path.name.lower() and ("python" in path.name or path.suffix in (".pkl", ".pickle")):
        raise InputError(f"{path}: {PICKLES}")
    allowed = ".npz, .npy, .zip (EDM), *-images-idx3-ubyte[.gz], or a folder"
    found = mismatch(path, ())
    raise InputError(f"{path}: unknown file type (it {found}); must be {allowed}")


def _of_classes(
    labels: np.ndarray, names: tuple[str, ...], classes: Sequence[int | str]
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Rows of ``classes``, their labels renumbered in the order given, and the classes' names."""
    numbers = [_class_number(which, names) for which in classes]
    require(len(set(numbers)) == len(numbers) > 0, "classes", classes, "different classes, at least one")
    table = np.full(len(names), -1, np.int32)
    table[numbers] = np.arange(len(numbers))
    kept = np.flatnonzero(table[labels] >= 0)
    require(kept.size > 0, "classes", classes, "classes with at least one image")
    return kept, table[labels[kept]], tuple(names[number] for number in numbers)


def _class_number(which: int | str, names: tuple[str, ...]) -> int:
    if isinstance(which, str) and which in names:
        return names.index(which)
    if isinstance(which, int | np.integer) and 0 <= which < len(names):
        return int(which)
    raise InputError(f"classes: no class {which!r}; must be 0 to {len(names) - 1} or one of {list(names)[:20]}")
