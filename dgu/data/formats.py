"""Array files: IDX (the MNIST family) and npz. Reading never runs code from a file: no pickle."""

import gzip
import math
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer, Shaped, UInt8

from dgu.core.arrays import is_floating
from dgu.core.errors import InputError, require
from dgu.core.files import write_arrays, write_atomic
from dgu.core.reading import (
    RAISE_LIMIT,
    SINGLE,
    Readable,
    array_names,
    byte_limit,
    expect,
    guarded,
    opened_npz,
    read_array,
    read_member,
    read_up_to,
)

#: A label of this or more is taken for a mistake, not for a class.
MAX_CLASSES = 100_000
#: Bytes that labels may take beyond one for each image, so that a line about their number can be written.
_ROOM = 2**20
#: Bytes that the names of all classes may take in an npz file.
MAX_NAMES = 2**24


class Decoded(NamedTuple):
    """Images as stored: NHWC, uint8 or float; ``labels`` int32 from 0; ``class_names`` None where the file has none."""

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...] | None = None


def decoded(
    images: np.ndarray, labels: np.ndarray | None, class_names: Iterable[str] | None, source: str | Path
) -> Decoded:
    """Images (n, h, w), (n, h, w, c) or (n, c, h, w) with their labels, checked and brought to NHWC and int32.

    Without labels all images belong to one class, ``"unlabelled"``.

    Raises:
        InputError: no images, no or two possible channel axes, a dtype that holds no pixels, labels that are not one
            integer per image within range.
    """
    images = _to_bytes(_to_nhwc(images, source), source)
    if 0 in images.shape:
        raise InputError(
            f"{source}: images of shape {images.shape}; must hold at least one image of at least one pixel"
        )
    if labels is None:
        return Decoded(images, np.zeros(len(images), np.int32), ("unlabelled",))
    names = None if class_names is None else tuple(str(name) for name in class_names)
    return Decoded(images, _to_labels(labels, len(images), None if names is None else len(names), source), names)


def _to_nhwc(images: np.ndarray, source: str | Path) -> np.ndarray:
    """The channel axis is the one of size 1 or 3; gray images may come without it."""
    if images.ndim == 3:
        return np.ascontiguousarray(images[..., None])
    if images.ndim != 4:
        raise InputError(f"{source}: images of shape {images.shape}; must be (n, h, w), (n, h, w, c) or (n, c, h, w)")
    first, last = images.shape[1] in (1, 3), images.shape[3] in (1, 3)
    if not (first or last) and is_floating(images.dtype):
        # Latents of autoencoders have 4 channels; bytes of 4 channels are pictures with transparency.
        first, last = images.shape[1] == 4, images.shape[3] == 4
    if first == last:
        problem = "two axes may be the channels" if first else "no axis of 1 or 3 channels"
        raise InputError(f"{source}: images of shape {images.shape}: {problem}; must be (n, h, w, c) or (n, c, h, w)")
    return np.ascontiguousarray(images if last else images.transpose(0, 2, 3, 1))


def is_latent(images: np.ndarray) -> bool:
    """Whether images (n, h, w, c) are latents, whose values have no black and white."""
    return images.ndim == 4 and images.shape[3] == 4


def _to_bytes(images: np.ndarray, source: str | Path) -> np.ndarray:
    """Integers as uint8; floats as they are."""
    if images.dtype == np.uint8 or np.issubdtype(images.dtype, np.floating):
        return images
    if not np.issubdtype(images.dtype, np.integer):
        raise InputError(f"{source}: images of dtype {images.dtype}; must be integers 0 to 255 or floats")
    if images.size and not (images.min() >= 0 and images.max() <= 255):
        raise InputError(f"{source}: integer pixels {images.min()} to {images.max()}; must be 0 to 255")
    return images.astype(np.uint8)


def _to_labels(labels: np.ndarray, count: int, num_classes: int | None, source: str | Path) -> np.ndarray:
    """Integer labels of shape (n,) or (n, 1), 0 to ``num_classes - 1``, as int32 (n,)."""
    if labels.shape not in ((count,), (count, 1)):
        raise InputError(f"{source}: labels of shape {labels.shape}; must be ({count},), one for each image")
    labels = labels.reshape(count)
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"{source}: labels of dtype {labels.dtype}; must be integers")
    limit = MAX_CLASSES if num_classes is None else num_classes
    wrong = np.flatnonzero((labels < 0) | (labels >= limit))
    if wrong.size:
        raise InputError(f"{source}: label {labels[wrong[0]]} of image {wrong[0]}; must be 0 to {limit - 1}")
    return labels.astype(np.int32)


# --- IDX -------------------------------------------------------------------------------------------------------------

IDX_SPLITS = {"train": "train", "test": "t10k"}


def find_idx(folder: Path, split: str) -> tuple[Path, Path] | None:
    """The images and labels files of a split in ``folder``, under any of the names in use, or None."""

    def find(kind: str, ndim: int) -> Path | None:
        stem = f"{IDX_SPLITS.get(split, split)}-{kind}"
        names = [f"{stem}{mark}idx{ndim}-ubyte{end}" for mark in "-." for end in ("", ".gz")]
        return next((folder / name for name in names if os.path.lexists(folder / name)), None)

    images, labels = find("images", 3), find("labels", 1)
    return None if images is None or labels is None else (images, labels)


def labels_beside(images: Path) -> Path:
    """The labels file that belongs to an IDX images file, by its name."""
    stem = re.sub(r"images([-.])idx3", r"labels\1idx1", images.name.removesuffix(".gz"))
    paths = [images.with_name(stem + end) for end in ("", ".gz")]
    found = next((path for path in paths if path != images and os.path.lexists(path)), None)
    if found is None:
        raise InputError(
            f"{images}: no labels file beside it; must be NAME-images-idx3-ubyte[.gz], with its labels file"
        )
    return found


def read_idx_pair(images: Path, labels: Path, max_bytes: int | None = None) -> Decoded:
    """IDX images (n, h, w) and their labels (n,), both unsigned bytes, raw or gzipped."""
    pixels = read_idx(images, 3, max_bytes)
    return decoded(pixels, read_idx(labels, 1, len(pixels) + _ROOM), None, images)


def read_idx(path: Path, ndim: int, max_bytes: int | None = None) -> UInt8[np.ndarray, "..."]:
    """One IDX file of unsigned bytes with ``ndim`` axes, gzipped or not, of at most ``max_bytes`` (``byte_limit``).

    Of images (more than one axis) each pixel counts as the 4 bytes that it takes in float32.

    Raises:
        InputError: another magic number, or a file that is truncated, too long, too large or unreadable.
    """
    allowed = "a whole IDX file, raw or gzipped"
    with guarded(path, allowed):
        expect(path, ("idx", "gzip"), allowed)
        with open(path, "rb") as probe:
            zipped = probe.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if zipped else open(path, "rb") as file:
            return parse_idx(file, ndim, path, max_bytes)


def parse_idx(file: Readable, ndim: int, source: str | Path, max_bytes: int | None = None) -> UInt8[np.ndarray, "..."]:
    """``read_idx`` from an open binary file. Reads no more than the header promises, and one byte to see it end."""
    limit = byte_limit(max_bytes)
    magic = file.read(4)
    if magic != bytes((0, 0, 8, ndim)):
        raise InputError(
            f"{source}: begins with bytes {magic.hex()!r}; must be '0000080{ndim}' (IDX, {ndim} axes of bytes)"
        )
    header = file.read(4 * ndim)
    shape = tuple(int.from_bytes(header[4 * axis : 4 * axis + 4], "big") for axis in range(ndim))
    size = math.prod(shape)
    taken, what = (SINGLE * size, f"bytes as float32 ({RAISE_LIMIT})") if ndim > 1 else (size, "bytes")
    if len(header) < 4 * ndim or taken > limit:
        raise InputError(
            f"{source}: header says shape {shape}, {taken:,} bytes; must be complete and at most {limit:,} {what}"
        )
    body = read_up_to(file, size)
    if len(body) < size or file.read(1):
        found = f"{len(body)}" if len(body) < size else f"more than {size}"
        raise InputError(f"{source}: holds {found} bytes of data; must be {size} for shape {shape}")
    return np.frombuffer(body, np.uint8).reshape(shape)


# --- npz -------------------------------------------------------------------------------------------------------------

#: Key names in use, (images, labels): with the split in the name, and without.
_SPLIT_KEYS = (("x_{}", "y_{}"), ("{}_images", "{}_labels"))
_PLAIN_KEYS = (("images", "labels"), ("samples", "labels"), ("arr_0", "arr_1"), ("data", "labels"))
_SPLITS = ("train", "val", "test")


def read_npz(path: Path, split: str = "train", max_bytes: int | None = None) -> Decoded:
    """An npz file under any of the usual key names, whole or one split of it.

    ``x_train, y_train, x_test, ...`` (Keras), ``train_images, train_labels, val_images, ...`` (MedMNIST) have splits;
    ``images, labels``, ``samples[, labels]``, ``arr_0[, arr_1]`` (ADM) and ``data, labels`` (the downsampled ImageNet
    files: rows of planar c h w, labels from 1) have none: ``split`` must be ``"train"``, which is then all of it.
    ``class_names`` (array of str) is read where present. NCHW or NHWC is told by the axis of size 1 or 3. Other arrays
    in the file are not read.

    Raises:
        InputError: unreadable or truncated, no such split, no or two sets of known keys, pickled arrays, images that
            take more than ``max_bytes`` as float32 (``byte_limit``), and all that ``decoded`` refuses.
    """
    limit = byte_limit(max_bytes)
    with opened_npz(path, "a whole npz file") as archive:
        keys = set(array_names(archive))
        images_key, labels_key = _npz_keys(keys, split, path)
        images = read_member(archive, images_key, path, limit, RAISE_LIMIT, SINGLE)
        most = 8 * len(np.atleast_1d(images)) + _ROOM  # An integer for each image.
        labels = read_member(archive, labels_key, path, most) if labels_key in keys else None
        names = read_member(archive, "class_names", path, MAX_NAMES) if "class_names" in keys else None
    if labels is None:
        others = {pair[1].format(name) for pair in _SPLIT_KEYS for name in _SPLITS}
        near = sorted(key for key in keys - others if "label" in key.lower() or key.lower() in ("y", "targets"))
        if near:
            raise InputError(
                f"{path}: has {near[0]!r} beside {images_key!r}, and labels are read from {labels_key!r}; must be "
                "called "
                "that, or be left out"
            )
    if names is not None and (names.ndim != 1 or names.dtype.kind != "U"):
        raise InputError(f"{path}: class_names of dtype {names.dtype}, shape {names.shape}; must be a list of strings")
    if images_key == "data" and images.ndim == 2:
        images = _planar_rows(images, path)
        if labels is not None:
            if labels.size and labels.min() < 1:
                raise InputError(
                    f"{path}: label {labels.min()} beside 'data'; must be 1 or more in files of this layout"
                )
            labels = labels.astype(np.int64) - 1
    return decoded(images, labels, names, path)


def read_npy(path: Path, max_bytes: int | None = None) -> Decoded:
    """An npy file of images without labels, in any of the layouts that ``decoded`` takes.

    Raises:
        InputError: as of ``read_npz``.
    """
    limit = byte_limit(max_bytes)
    with guarded(path, "a whole npy file"):
        expect(path, ("npy",), "a whole npy file")
        with open(path, "rb") as file:
            images = read_array(file, os.path.getsize(path), str(path), limit, RAISE_LIMIT, SINGLE)
    return decoded(images, None, None, path)


def _npz_keys(keys: set[str], split: str, path: Path) -> tuple[str, str]:
    splits = [name for name in _SPLITS for images, _ in _SPLIT_KEYS if images.format(name) in keys]
    plain = [pair for pair in _PLAIN_KEYS if pair[0] in keys]
    if splits and not plain:
        for images, labels in _SPLIT_KEYS:
            if split in splits and images.format(split) in keys:
                return images.format(split), labels.format(split)
        raise InputError(f"split = {split!r}: must be one of {splits} for {path}")
    if len(plain) != 1 or splits:
        known = ", ".join(
            "/".join(pair) for pair in (*_PLAIN_KEYS, ("x_train", "y_train"), ("train_images", "train_labels"))
        )
        raise InputError(f"{path}: keys {sorted(keys)[:12]}; must be exactly one of the known sets: {known}")
    require(split == "train", "split", split, f"'train' (all of it) for {path}, which has no splits")
    return plain[0]


def _planar_rows(rows: np.ndarray, path: Path) -> np.ndarray:
    """(n, 3 s s) planar rows as (n, s, s, 3)."""
    side = math.isqrt(rows.shape[1] // 3)
    if 3 * side * side != rows.shape[1]:
        raise InputError(f"{path}: data of shape {rows.shape}; must be (n, 3 * side * side)")
    return rows.reshape(-1, 3, side, side).transpose(0, 2, 3, 1)


def write_npz(
    path: Path | str,
    images: Shaped[np.ndarray, "n h w c"],
    labels: Integer[np.ndarray, " n"] | None = None,
    class_names: Iterable[str] | None = None,
) -> None:
    """Write ``images``, ``labels`` and ``class_names`` as a compressed npz that ``load`` reads.

    The file appears whole or not at all.

    Args:
        path: the file to write or replace.
        images: NHWC, c 1 or 3, uint8 or float in [-1, 1], [0, 1] or [0, 255]; kept as they are.
        labels: from 0; none for one unlabelled class.
        class_names: one for each label.

    Raises:
        InputError: what ``load`` would refuse, or a path that cannot be written.
    """
    checked = decoded(np.asarray(images), labels, class_names, path)
    arrays = {"images": checked.images}
    if labels is not None:
        arrays["labels"] = checked.labels
        if checked.class_names is not None:
            arrays["class_names"] = np.asarray(checked.class_names, np.str_)
    write_atomic(Path(path), lambda file: write_arrays(file, arrays, compress=True))
