"""Bounds of each precision, and the arguments that both checks take."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from dgu.core.errors import require

#: By dtype, the default bounds of differences between results, and of measures of derivatives.
ROUNDING = {"bfloat16": 5e-2, "float16": 1e-2, "float32": 1e-4, "float64": 1e-10}
DERIVATIVES = {"bfloat16": 2e-1, "float16": 5e-2, "float32": 1e-3, "float64": 1e-8}


def checked_shape(shape: Sequence[int], dtype: DTypeLike, **levels: Sequence[float]) -> tuple[int, ...]:
    """The shape of an example as whole numbers, once it, the dtype and the noise levels (by name) are checked.

    Raises:
        InputError: one of them cannot be used.
    """
    require(len(shape) >= 1 and all(size >= 1 for size in shape), "shape", tuple(shape), "one or more positive sizes")
    name = jnp.dtype(dtype).name
    require(name in ROUNDING, "dtype", name, "one of " + ", ".join(sorted(ROUNDING)))
    usable = bool(jax.dtypes.canonicalize_dtype(dtype) == dtype)
    require(usable, "dtype", name, "float32 unless jax_enable_x64 is set")
    for argument, values in levels.items():
        valid = len(values) > 0 and all(bool(np.isfinite(value)) and value > 0 for value in values)
        require(valid, argument, tuple(values), "positive and finite")
    return tuple(int(size) for size in shape)
