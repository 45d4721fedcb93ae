"""``load``: every image set comes through here, as NHWC float32 with integer labels."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dgu.data.formats import Decoded
from dgu.data.named import NAMED_SETS, read_named
from dgu.data.pixels import area_mean, in_range, subset
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
    """One split of an image set, NHWC float32 in ``pixel_range`` with int32 labels."""
    name = os.fspath(name_or_path)
    if max_size is not None:
        require(max_size >= 1, "max_size", max_size, "1 or more")
    if size is not None:
        require(size >= 1, "size", size, "1 or more")
    if name not in NAMED_SETS:
        raise InputError(f"name_or_path = {name!r}: must be a file or folder that exists, or one of {sorted(NAMED_SETS)}")
    found, sha256 = read_named(name, split)
    names = found.class_names or tuple(str(label) for label in range(int(found.labels.max()) + 1))
    found, names = _of_classes(found, names, classes)
    if max_size is not None:
        kept = subset(len(found.images), max_size, seed)
        found = Decoded(found.images[kept], found.labels[kept])
    small = found.images if size is None else area_mean(found.images, size)
    if small.dtype == np.float32 and found.images.dtype != np.float32:
        value_range = (0.0, 255.0)
    images = in_range(small, pixel_range, value_range, name)
    return ImageSet(images, found.labels, names, name, split, sha256, (float(pixel_range[0]), float(pixel_range[1])))


def _of_classes(
    found: Decoded, names: tuple[str, ...], classes: Sequence[int | str] | None
) -> tuple[Decoded, tuple[str, ...]]:
    """The images of ``classes``, labels renumbered in the order given."""
    if classes is None:
        return found, names
    numbers = [_class_number(which, names) for which in classes]
    require(len(numbers) > 0 and len(set(numbers)) == len(numbers), "classes", classes, "different classes, at least one")
    table = np.full(len(names), -1, np.int32)
    table[numbers] = np.arange(len(numbers))
    labels = table[found.labels]
    return Decoded(found.images[labels >= 0], labels[labels >= 0]), tuple(names[number] for number in numbers)


def _class_number(which: int | str, names: tuple[str, ...]) -> int:
    if isinstance(which, str) and which in names:
        return names.index(which)
    if not isinstance(which, str) and 0 <= which < len(names):
        return int(which)
    raise InputError(f"classes: no class {which!r}; must be 0 to {len(names) - 1} or one of {list(names)[:20]}")
