"""The files that a store of samples consists of: arrays in NumPy's format with a checksum behind them.

Readers of ``.npy`` files stop at the end of the array, so that any of them can read a shard.
"""

import math
import re
import zlib
from functools import cache, lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import Float

from dgu.core.errors import InputError
from dgu.core.files import write_atomic
from dgu.core.reading import guarded, regular_file

_NAME = re.compile(r"class-(\d{4,})_(\d{8,})-(\d{8,})\.npy")
#: After the array a shard has these eight bytes and the CRC-32 of all before them, little-endian.
_MARK, _TRAILER = b"dgucrc32", 12


def shard_name(label: int, start: int, stop: int) -> str:
    """The file name of the shard with the samples ``start <= index < stop`` of a class."""
    return f"class-{label:04d}_{start:08d}-{stop:08d}.npy"


def parse_shard_name(name: str) -> tuple[int, int, int] | None:
    """Class, start and stop of the shard with this file name; None for the name of another file."""
    match = _NAME.fullmatch(name)
    return None if match is None else (int(match[1]), int(match[2]), int(match[3]))


def check_shard_size(path: Path, shape: tuple[int, ...]) -> None:
    """Refuse a shard of samples of this shape whose file is too short or too long.

    Raises:
        InputError: its file has another size.
    """
    size, wanted = path.stat().st_size, _array_size(shape) + _TRAILER
    if size not in (wanted, wanted - _TRAILER):  # Without a checksum as early versions wrote it.
        raise InputError(f"{path}: shard of {size} bytes; must be {wanted} (delete it to make it again)")


def write_shard(path: Path, images: Float[np.ndarray, " n *event"]) -> None:
    """Write float32 samples with their checksum, whole or not at all."""
    whole = BytesIO()
    np.save(whole, images, allow_pickle=False)
    whole.write(_MARK + zlib.crc32(whole.getbuffer()).to_bytes(4, "little"))
    write_atomic(path, lambda file: file.write(whole.getbuffer()))


def open_shard(path: Path, shape: tuple[int, ...]) -> Float[np.ndarray, " n *event"]:
    """The samples of a shard, mapped from disk; all of it is checked when a process opens it for the first time.

    Raises:
        InputError: the shard cannot be read, holds an array of another shape or dtype, is damaged, or holds NaN or
            infinite values.
    """
    with guarded(path, "a whole shard", advice="delete it to make it again"):
        images = np.load(regular_file(path), mmap_mode="r", allow_pickle=False)
    if images.shape != shape or images.dtype != np.float32:
        raise InputError(
            f"{path}: holds {images.dtype} {images.shape}; must be float32 {shape} (delete it to make it again)"
        )
    state = path.stat()
    _check_content(path, shape, (state.st_ino, state.st_size, state.st_mtime_ns))
    return images


@cache
def _array_size(shape: tuple[int, ...]) -> int:
    """Bytes of a float32 ``.npy`` file of this shape, without a checksum."""
    header = BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return len(header.getvalue()) + 4 * math.prod(shape)


@lru_cache(maxsize=65_536)
def _check_content(path: Path, shape: tuple[int, ...], state: tuple[int, ...]) -> None:
    """Raise an ``InputError`` unless a shard is whole and finite; once for each ``state`` of the file."""
    data = path.read_bytes()
    size = _array_size(shape)
    if len(data) > size and data[size:] != _MARK + zlib.crc32(memoryview(data)[:size]).to_bytes(4, "little"):
        raise InputError(
            f"{path}: is damaged (its checksum differs); must be as it was written (delete it to make it again)"
        )
    images = np.frombuffer(data, "<f4", math.prod(shape), size - 4 * math.prod(shape)).reshape(shape[0], -1)
    finite = np.isfinite(images).all(axis=1)
    if not finite.all():
        raise InputError(
            f"{path}: image {int(np.argmin(finite))} holds NaN or infinite values; all must be finite (delete it to "
            "make it again)"
        )
