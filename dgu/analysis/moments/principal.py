"""Eigenvectors of the images' covariance, as images."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Num

from dgu.core import linalg
from dgu.core.arrays import as_floats, as_jax_floats, check_squares
from dgu.core.brief import short_repr
from dgu.core.errors import require


@short_repr
@dataclass(frozen=True)
class PrincipalImages:
    """Mean, leading eigenvectors, and the fractions of the variance that they explain.

    Attributes:
        mean: (*event).
        vectors: (k, *event), orthonormal, the largest eigenvalue first; the entry of largest modulus is positive.
        variances: (k,) their eigenvalues of the covariance, ``ddof=1``.
        explained: (k,) fractions of the total variance.
    """

    mean: np.ndarray
    vectors: np.ndarray
    variances: np.ndarray
    explained: np.ndarray


def principal_images(images: Num[ArrayLike, " n *event"], count: int = 12) -> PrincipalImages:
    """The ``count`` leading eigenvectors of the covariance ("eigenfaces"), by singular values of the centred rows.

    The d x d covariance is never formed.

    Raises:
        InputError: ``count`` not from 1 to min(n - 1, d), non-finite or constant images.
    """
    shape = np.shape(images)
    rows = as_floats("images", images).reshape(shape[0], -1)
    most = min(shape[0] - 1, rows.shape[1])
    require(1 <= count <= most, "count", count, f"from 1 to min(n - 1, d) = {most}")
    require(bool(np.isfinite(rows).all()), "images", "non-finite", "finite")
    check_squares(images=rows)
    found = _principal(as_jax_floats("images", rows), count)
    mean, vectors, variances, total = (np.asarray(part) for part in found)
    require(bool(total > 0), "images", "constant", "images that differ")
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=1)[:, None], axis=1)
    vectors = vectors * np.sign(largest)
    return PrincipalImages(mean.reshape(shape[1:]), vectors.reshape(count, *shape[1:]), variances, variances / total)


@partial(jax.jit, static_argnames="count")
def _principal(rows: Array, count: int) -> tuple[Array, Array, Array, Array]:
    mean = jnp.mean(rows, axis=0, keepdims=True)
    centred = rows - mean
    _, singular, right = linalg.svd(centred)
    variances = singular**2 / (rows.shape[0] - 1)
    return mean[0], right[:count], variances[:count], jnp.sum(variances)
