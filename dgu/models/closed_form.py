"""Denoisers known in closed form: exact posterior means, the oracles of the library."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax.typing import ArrayLike
from jaxtyping import Num

from dgu.core import doubles
from dgu.core.arrays import as_doubles, as_floats, at_least_single, check_squares, rounding
from dgu.core.brief import short_repr
from dgu.core.errors import InputError, require, require_whole
from dgu.core.typing import Event, Scalar


@short_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class GaussianDenoiser:
    """The posterior mean of ``x0 ~ N(mean, U diag(lam) U^T)`` given ``x = x0 + sigma eps``, by eigenvalue shrinkage.

        denoiser(x, sigma) = mean + U diag(lam / (lam + sigma^2)) U^T (x - mean)

    This filter form keeps all digits at small ``sigma``, where forms with an inverse covariance lose them. Directions
    outside the span of ``U`` have variance 0, so a low-rank Gaussian never needs a d x d matrix. At ``sigma = 0`` it is
    the projection onto the support.

    Attributes:
        mean: ``(*event)``.
        basis: U, ``(d, r)`` with orthonormal columns, d the flattened size of an event.
        variances: lam, ``(r,)``, 0 or more.
    """

    mean: Any
    basis: Any
    variances: Any

    @at_least_single
    def __call__(self, x: Event, sigma: Scalar) -> Event:
        """The posterior mean of one example, in the dtype of ``x``.

        Raises:
            InputError: ``x`` is of another shape than the mean.
        """
        require(x.shape == np.shape(self.mean), "x.shape", x.shape, f"that of the mean, {np.shape(self.mean)}")
        mean, basis, variances = (jnp.asarray(leaf, x.dtype) for leaf in (self.mean, self.basis, self.variances))
        total = variances + jnp.square(jnp.asarray(sigma, x.dtype))
        gain = variances / jnp.where(total > 0, total, jnp.ones_like(total))
        modes = jnp.dot((x - mean).ravel(), basis, precision=jax.lax.Precision.HIGHEST)
        return mean + jnp.dot(basis, gain * modes, precision=jax.lax.Precision.HIGHEST).reshape(x.shape)

    @classmethod
    def fit(cls, images: Num[ArrayLike, " n *event"], ddof: int = 0) -> "GaussianDenoiser":
        """The Gaussian with the mean of ``images`` and their covariance ``Xc^T Xc / (n - ddof)``.

        Computed on the host in float64 and returned in the dtype of ``images``. With ``n < d`` the basis comes from the
        singular vectors of the centred rows (rank at most ``n - 1``), otherwise from the d x d covariance.

        Raises:
            InputError: fewer than ``max(2, ddof + 1)`` examples, or values that are not finite.
        """
        data = as_floats("images", images)
        require(data.ndim >= 2, "images.shape", data.shape, "(n, *event)")
        require(len(data) >= max(2, ddof + 1), "images", f"{len(data)} examples", f"at least {max(2, ddof + 1)}")
        require(ddof >= 0, "ddof", ddof, "0 or more")
        rows = data.reshape(len(data), -1).astype(np.float64)
        require(bool(np.isfinite(rows).all()), "images", "an array with values that are not finite", "finite")
        check_squares(images=data)
        n, d = rows.shape
        mean = rows.mean(0)
        centred = rows - mean
        if n >= d:
            return cls._of(mean, centred.T @ centred / (n - ddof), data.shape[1:], data.dtype)
        _, singular, right = scipy.linalg.svd(centred, full_matrices=False, overwrite_a=True)
        rank = max(1, int((singular > singular[0] * d * np.finfo(np.float64).eps).sum()))
        return cls._cast(mean, right[:rank].T, singular[:rank] ** 2 / (n - ddof), data.shape[1:], data.dtype)

    @classmethod
    def from_moments(cls, mean: Num[ArrayLike, "*event"], covariance: Num[ArrayLike, "..."]) -> "GaussianDenoiser":
        """The Gaussian of a given ``mean`` ``(*event)`` and ``covariance`` ``(d, d)`` or ``(*event, *event)``.

        Decomposed on the host in float64 and returned in the dtype of ``covariance``, float32 or wider.

        Raises:
            InputError: a covariance of another shape, not finite, not symmetric, or not positive semi-definite, each to
                the rounding of its own dtype (10 d eps of the largest entry or eigenvalue).
        """
        event, given = np.shape(mean), as_floats("covariance", covariance)
        d = math.prod(event)
        if given.shape not in ((d, d), (*event, *event)):
            raise InputError(f"covariance.shape = {given.shape}: must be {(d, d)} or {(*event, *event)}")
        matrix, centre = given.reshape(d, d).astype(np.float64), as_doubles("mean", mean).ravel()
        require(bool(np.isfinite(matrix).all()), "covariance", "a matrix with values that are not finite", "finite")
        require(bool(np.isfinite(centre).all()), "mean", "an array with values that are not finite", "finite")
        tolerance = 10 * d * rounding(covariance)
        skew = float(np.abs(matrix - matrix.T).max())
        symmetric = skew <= tolerance * float(np.abs(matrix).max())
        require(symmetric, "covariance", f"off by {skew:.3g} from its transpose", "symmetric")
        return cls._of(centre, (matrix + matrix.T) / 2, event, given.dtype, tolerance)

    def padded(self, rank: int) -> "GaussianDenoiser":
        """The same Gaussian with a basis of at least ``rank`` columns, those added with variance 0.

        Gaussians of different ranks then have leaves of one shape, and share their compiled programs.
        """
        require_whole("rank", rank, 0)
        more = max(0, rank - np.shape(self.basis)[1])
        basis, variances = np.asarray(self.basis), np.asarray(self.variances)
        return GaussianDenoiser(np.asarray(self.mean), np.pad(basis, ((0, 0), (0, more))), np.pad(variances, (0, more)))

    @classmethod
    def _of(
        cls, mean: np.ndarray, covariance: np.ndarray, event: tuple[Any, ...], dtype: Any, tolerance: float = math.inf
    ) -> "GaussianDenoiser":
        variances, basis = doubles.eigh(covariance)
        lowest, highest = float(variances[0]), float(np.abs(variances).max())
        definite = highest == 0 or lowest >= -tolerance * highest
        require(definite, "covariance", f"smallest eigenvalue {lowest:.6g}", "positive semi-definite")
        return cls._cast(mean, basis[:, ::-1], np.maximum(variances[::-1], 0), event, dtype)

    @classmethod
    def _cast(
        cls, mean: np.ndarray, basis: np.ndarray, variances: np.ndarray, event: tuple[Any, ...], dtype: Any
    ) -> Any:
        dtype = jax.dtypes.canonicalize_dtype(dtype)
        return cls(jnp.asarray(mean.reshape(event), dtype), jnp.asarray(basis, dtype), jnp.asarray(variances, dtype))
