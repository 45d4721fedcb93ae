"""``load``: every image set comes through here, as NHWC float32 with integer labels."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dgu.data.folders import read_edm, read_image_folder
from dgu.data.formats import IDX_SPLITS, Decoded, find_idx, labels_beside, read_idx_pair, read_npz
from dgu.data.named import NAMED_SETS, PICKLES, digest, read_named
from dgu.data.pixels import area_mean, checked_range, in_range, rescale, subset
from dgu.errors import InputError, require


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images in memory.

    Attributes:
        images: float32 (n, h, w, c), values in ``pixel_range``.
        labels: int32 (n,), 0 to ``len(class_names) - 1``.
        class_names: one name per label.
        name: the name or path given to ``load``.
        split: the split given to ``load``.
        sha256: hex digest of the whole split as decoded, before any selection, scaling or resizing: the bytes of the
            images (NHWC, as stored) followed by the labels as little-endian int32.
        pixel_range: what black and white are in ``images``.
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


def load(
    name_or_path: str | os.PathLike,
    split: str = "train",
    size: int | None = None,
    *,
    pixel_range: tuple[float, float] = (-1.0, 1.0),
    max_size: int | None = None,
    seed: int = 0,
    classes: Sequence[int | str] | None = None,
    value_range: tuple[float, float] | None = None,
) -> ImageSet:
    """One split of an image set: NHWC float32 in ``pixel_range`` with int32 labels.

    Args:
        name_or_path: ``"fashion-mnist-mini"`` (in the package: 200 images a class of Fashion-MNIST's test file, split
            ``"test"`` only), ``"fashion-mnist"``, ``"mnist"``, ``"cifar10"`` (full sets, looked for in the folder
            ``$DGU_DATA`` and in the system's folder, never downloaded), or a path: an npz file, a folder of IDX files
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
        value_range: what black and white are in float files, where it cannot be told from the values (``in_range``).

    Raises:
        InputError: unknown name, class, split or file type, a set that is not on this machine (with the commands that
            bring it), content that is not the known set's, sizes below 1, and everything the readers and ``in_range``
            refuse. One line each.
    """
    name = os.fspath(name_or_path)
    require(max_size is None or max_size >= 1, "max_size", max_size, "1 or more, or None for all")
    require(size is None or size >= 1, "size", size, "1 or more, or None for the size of the file")
    if isinstance(name_or_path, str) and name in NAMED_SETS:
        found, sha256 = read_named(name, split), NAMED_SETS[name].digests[split]
    else:
        found = read_path(Path(name).expanduser(), split)
        sha256 = digest(found.images, found.labels)
    names = found.class_names or tuple(str(label) for label in range(int(found.labels.max()) + 1))
    images, labels = found.images, found.labels
    if classes is not None:
        images, labels, names = _of_classes(found, names, classes)
    if max_size is not None:
        kept = subset(len(images), max_size, seed)
        images, labels = images[kept], labels[kept]
    # Bytes are averaged before they are scaled, where sums are exact; floats only after their range has been checked.
    if size is not None and images.dtype == np.uint8:
        require(value_range is None, "value_range", value_range, f"None for {name}, whose pixels are bytes (0 to 255)")
        images = rescale(area_mean(images, size), (0.0, 255.0), checked_range("pixel_range", pixel_range))
    else:
        images = in_range(images, pixel_range, value_range, name)
        images = images if size is None else area_mean(images, size)
    return ImageSet(images, labels, names, name, split, sha256, (float(pixel_range[0]), float(pixel_range[1])))


def read_path(path: Path, split: str) -> Decoded:
    """The arrays of a file or folder, its format told by its name and content."""
    if path.is_dir():
        if (path / "dataset.json").is_file():
            require(split == "train", "split", split, f"'train' (all of it) for {path}, which has no splits")
            return read_edm(path)
        for folder in (path, path / "raw"):
            pairs = {name: find_idx(folder, name) for name in IDX_SPLITS}
            present = [name for name, pair in pairs.items() if pair is not None]
            if present:
                pair = pairs.get(split)
                if pair is None:
                    raise InputError(f"split = {split!r}: must be one of {present} for {path}")
                return read_idx_pair(*pair)
        if (path / "data_batch_1").is_file() or (path / "train").is_file():
            raise InputError(f"{path}: {PICKLES}")
        return read_image_folder(path, split)
    if not path.is_file():
        raise InputError(
            f"name_or_path = {str(path)!r}: must be one of {sorted(NAMED_SETS)}, or a file or folder that exists"
        )
    if path.suffix == ".npz":
        return read_npz(path, split)
    if path.suffix == ".zip":
        require(split == "train", "split", split, f"'train' (all of it) for {path}, which has no splits")
        return read_edm(path)
    if path.name.removesuffix(".gz").endswith("-ubyte"):
        held = "test" if path.name.startswith(IDX_SPLITS["test"]) else "train"
        require(split == held, "split", split, f"{held!r} for {path}")
        return read_idx_pair(path, labels_beside(path))
    if "python" in path.name or path.suffix in (".pkl", ".pickle"):
        raise InputError(f"{path}: {PICKLES}")
    raise InputError(f"{path}: unknown file type; must be .npz, .zip (EDM), *-images-idx3-ubyte[.gz], or a folder")


def _of_classes(
    found: Decoded, names: tuple[str, ...], classes: Sequence[int | str]
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """The images of ``classes``, their labels renumbered in the order given, and the classes' names."""
    numbers = [_class_number(which, names) for which in classes]
    require(len(set(numbers)) == len(numbers) > 0, "classes", classes, "different classes, at least one")
    table = np.full(len(names), -1, np.int32)
    table[numbers] = np.arange(len(numbers))
    labels = table[found.labels]
    kept = labels >= 0
    require(bool(kept.any()), "classes", classes, "classes with at least one image")
    return found.images[kept], labels[kept], tuple(names[number] for number in numbers)


def _class_number(which: int | str, names: tuple[str, ...]) -> int:
    if isinstance(which, str) and which in names:
        return names.index(which)
    if not isinstance(which, str) and 0 <= which < len(names):
        return int(which)
    raise InputError(f"classes: no class {which!r}; must be 0 to {len(names) - 1} or one of {list(names)[:20]}")
