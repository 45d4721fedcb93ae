"""Limit on the rows computed at a time: a chunk takes memory for all of its rows, padding included."""

import math
from typing import Any

import numpy as np
from jax.typing import DTypeLike

from dgu.core.errors import require, require_whole

#: Most bytes of one chunk of states; what a network computes of them comes on top.
MOST_BYTES = 2**33
#: Bytes of a row's number.
_NUMBER = 8


def check_chunk(name: str, size: Any, shape: tuple[int, ...] = (), dtype: DTypeLike = np.float32) -> None:
    """Refuse a chunk of ``size`` rows of shape ``shape`` before memory is taken for it.

    Raises:
        InputError: ``size``, called ``name``, is no whole number of 1 or more, or the chunk has more than
            ``MOST_BYTES``.
    """
    require_whole(name, size)
    row = math.prod(shape) * np.dtype(dtype).itemsize + _NUMBER
    taken = f"rows of shape {tuple(shape)} and dtype {np.dtype(dtype)}, so many, take {int(size) * row:,} bytes"
    require(
        size * row <= MOST_BYTES, name, size, f"at most {MOST_BYTES // row}: {taken}, and a chunk has {MOST_BYTES:,}"
    )
