"""Decompositions and products of large matrices in float64: by LAPACK on the host, or by an accelerator.

At 12,288 pixels an eigendecomposition takes minutes of all cores of a host, and seconds of an accelerator that has
float64. The accelerator is the device on which JAX would compute: within a job of ``dgu.parallel.run_jobs`` the job's.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Float64

from dgu.core import linalg

#: Matrices of fewer rows are decomposed on the host, which is done before an accelerator has them.
_FEW = 1024


def eigh(matrix: Float64[np.ndarray, "n n"]) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, "n n"]]:
    """Eigenvalues, ascending, and eigenvectors, in columns, of a symmetric matrix. NumPy float64 in and out."""
    if not _on_accelerator(len(matrix)):
        values, vectors = scipy.linalg.eigh(matrix)
        return values, vectors
    values, vectors = _in_doubles(linalg.eigh, matrix)
    return values, vectors


def product(a: Float64[np.ndarray, "m k"], b: Float64[np.ndarray, "k n"]) -> Float64[np.ndarray, "m n"]:
    """``A B``. NumPy float64 in and out."""
    if not _on_accelerator(min(*a.shape, b.shape[1])):
        return a @ b
    found: np.ndarray = _in_doubles(partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST), a, b)
    return found


def _in_doubles(function: Any, *matrices: np.ndarray) -> Any:
    with jax.enable_x64(True):
        return jax.device_get(function(*map(jnp.asarray, matrices)))


def _on_accelerator(size: int) -> bool:
    """Whether JAX computes on a GPU (a TPU has no float64) and the matrices are large enough for it."""
    chosen: Any = jax.config.jax_default_device  # type: ignore[attr-defined]
    platform = getattr(chosen, "platform", chosen) or jax.default_backend()
    return size >= _FEW and platform in ("gpu", "cuda", "rocm")
