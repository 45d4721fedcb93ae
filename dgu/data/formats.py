"""Array files: IDX (the MNIST family) and npz. Reading never runs code from a file: no pickle."""

import gzip
import math
import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from dgu.errors import InputError

#: No set decoded in memory may be larger than this.
MAX_BYTES = 2**36
#: A label above this is taken for a mistake, not for a class.
MAX_CLASSES = 100_000


class Decoded(NamedTuple):
    """Images as stored: NHWC, uint8 or float; ``labels`` int32 from 0; ``class_names`` None where the file has none."""

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...] | None = None


def decoded(images: np.ndarray, labels: np.ndarray | None, class_names: Iterable[str] | None, source: str) -> Decoded:
    """Images (n, h, w), (n, h, w, c) or (n, c, h, w) with their labels, checked and brought to NHWC and int32.

    Without labels all images belong to one class, ``"unlabelled"``.
    """
    images = to_nhwc(images, source)
    if len(images) == 0 or 0 in images.shape:
        raise InputError(f"{source}: holds no pixels, images of shape {images.shape}; must hold at least one image")
    if labels is None:
        return Decoded(images, np.zeros(len(images), np.int32), ("unlabelled",))
    names = None if class_names is None else tuple(str(name) for name in class_names)
    return Decoded(images, to_labels(labels, len(images), None if names is None else len(names), source), names)


def to_nhwc(images: np.ndarray, source: str) -> np.ndarray:
    """The channel axis is the one of size 1 or 3; gray images may come without it."""
    if images.ndim == 3:
        return np.ascontiguousarray(images[..., None])
    if images.ndim != 4:
        raise InputError(f"{source}: images of shape {images.shape}; must be (n, h, w), (n, h, w, c) or (n, c, h, w)")
    first, last = images.shape[1] in (1, 3), images.shape[3] in (1, 3)
    if first == last:
        problem = "the channel axis is ambiguous" if first else "no axis of 1 or 3 channels"
        raise InputError(f"{source}: images of shape {images.shape}: {problem}; must be (n, h, w, c) or (n, c, h, w), c 1 or 3")
    return np.ascontiguousarray(images if last else images.transpose(0, 2, 3, 1))


def to_labels(labels: np.ndarray, count: int, num_classes: int | None, source: str) -> np.ndarray:
    """Integer labels of shape (n,) or (n, 1), 0 to ``num_classes - 1``, as int32 (n,)."""
    if labels.shape not in ((count,), (count, 1)):
        raise InputError(f"{source}: labels of shape {labels.shape}; must be ({count},), one per image")
    labels = labels.reshape(count)
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"{source}: labels of dtype {labels.dtype}; must be integers")
    limit = MAX_CLASSES if num_classes is None else num_classes
    wrong = np.flatnonzero((labels < 0) | (labels >= limit))
    if wrong.size:
        raise InputError(f"{source}: label of image {wrong[0]} = {labels[wrong[0]]}: must be 0 to {limit - 1}")
    return labels.astype(np.int32)


# --- IDX -------------------------------------------------------------------------------------------------------------

IDX_PREFIX = {"train": "train", "test": "t10k"}


def find_idx(folder: Path, split: str) -> tuple[Path, Path] | None:
    """The images and labels files of a split in ``folder``, under any of the names in use, or None."""
    pair = []
    for kind in ("images", "labels"):
        stem = f"{IDX_PREFIX.get(split, split)}-{kind}"
        digit = 3 if kind == "images" else 1
        names = [f"{stem}{mark}idx{digit}-ubyte{end}" for mark in "-." for end in ("", ".gz")]
        pair.append(next((folder / name for name in names if (folder / name).is_file()), None))
    images, labels = pair
    return None if images is None or labels is None else (images, labels)


def labels_beside(images: Path) -> Path:
    """The labels file that belongs to an IDX images file, by name."""
    stem = re.sub(r"images([-.])idx3", r"labels\1idx1", re.sub(r"\.gz$", "", images.name))
    found = next((path for path in (images.with_name(stem), images.with_name(stem + ".gz")) if path.is_file()), None)
    if found is None or found.name == images.name:
        raise InputError(f"{images}: no labels file beside it; must come with {stem}[.gz]")
    return found


def read_idx_pair(images: Path, labels: Path) -> Decoded:
    """IDX images (n, h, w) and their labels (n,), both unsigned bytes, raw or gzipped."""
    return decoded(read_idx(images, 3), read_idx(labels, 1), None, str(images))


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """One IDX file of unsigned bytes with ``ndim`` axes, gzipped or not.

    Raises:
        InputError: another magic number, or a file that is truncated, too long or unreadable.
    """
    try:
        with open(path, "rb") as probe:
            zipped = probe.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if zipped else open(path, "rb") as file:
            return parse_idx(file, ndim, str(path))
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)}); must be a whole IDX file, raw or gzipped") from error


def parse_idx(file: BinaryIO, ndim: int, source: str) -> np.ndarray:
    """``read_idx`` from an open binary file. Reads no more than the header promises, and one byte to see it end."""
    magic = file.read(4)
    if magic != bytes((0, 0, 8, ndim)):
        raise InputError(f"{source}: begins with {magic.hex()}; must be 0000080{ndim} (IDX, unsigned bytes, {ndim} axes)")
    header = file.read(4 * ndim)
    shape = tuple(int.from_bytes(header[4 * axis : 4 * axis + 4], "big") for axis in range(ndim))
    size = math.prod(shape)
    if len(header) < 4 * ndim or size > MAX_BYTES:
        raise InputError(f"{source}: header says shape {shape}; must be complete and at most {MAX_BYTES} bytes")
    body = file.read(size)
    if len(body) < size or file.read(1):
        found = f"{len(body)}" if len(body) < size else f"more than {size}"
        raise InputError(f"{source}: holds {found} bytes of data; must be {size} for shape {shape}")
    return np.frombuffer(body, np.uint8).reshape(shape)


def one_line(error: BaseException) -> str:
    """The message of a foreign error on one line."""
    return " ".join(str(error).split()) or type(error).__name__
