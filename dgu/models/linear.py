"""One affine map per noise level: what linear distillation makes of a denoiser."""

from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Num

from dgu.core.arrays import as_doubles, as_floats, as_native, at_least_single, require_numbers
from dgu.core.brief import short_repr
from dgu.core.errors import require
from dgu.core.typing import Event, Scalar
from dgu.models.closed_form import GaussianDenoiser

_HIGHEST = jax.lax.Precision.HIGHEST


@short_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class LinearDenoiser:
    """``denoiser(x, sigma_l) = W_l x + b_l`` at each of its levels, interpolated between them.

    Between two neighbouring levels the two outputs are mixed linearly in ``log sigma``,

        (1 - t) (W_l x + b_l) + t (W_m x + b_m),   t = log(sigma / sigma_l) / log(sigma_m / sigma_l)

    and outside the levels the nearest level's map is used. At a level the map is exactly that level's. The levels may
    come in any order. Under ``jax.vmap`` over ``sigma`` each example gathers its own two matrices; keep ``sigma``
    unmapped where the matrices are large.

    Attributes:
        sigmas: ``(L,)``, positive and different.
        weights: W on flattened examples, ``(L, d, d)``.
        biases: ``(L, *event)``, or flattened ``(L, d)``.
    """

    sigmas: Any
    weights: Any
    biases: Any

    @at_least_single
    def __call__(self, x: Event, sigma: Scalar) -> Event:
        """The interpolated map of one example, in the dtype of ``x``.

        Raises:
            InputError: shapes that do not fit each other or ``x``.
        """
        require_numbers(sigmas=self.sigmas, weights=self.weights, biases=self.biases)
        count, size = np.shape(self.sigmas)[0] if np.ndim(self.sigmas) == 1 else 0, x.size
        require(count >= 1, "sigmas.shape", np.shape(self.sigmas), "(L,), L at least 1")
        event = np.shape(self.biases)[1:]
        require(event in (x.shape, (size,)), "x.shape", x.shape, f"that of a bias, {event}")
        require(np.shape(self.biases)[0] == count, "biases.shape", np.shape(self.biases), f"({count}, *event)")
        require(
            prod(np.shape(self.weights)) == count * size**2 and np.shape(self.weights)[0] == count,
            "weights.shape",
            np.shape(self.weights),
            f"{(count, size, size)}",
        )
        levels = jnp.log(jnp.asarray(self.sigmas, x.dtype))
        order = jnp.argsort(levels)
        levels = levels[order]
        weights = as_native("weights", self.weights).reshape(count, size, size)
        biases = as_native("biases", self.biases).reshape(count, size)

        def at(place: Array) -> Array:
            level = order[place]
            matrix, bias = weights[level].astype(x.dtype), biases[level].astype(x.dtype)
            return jnp.dot(matrix, x.ravel(), precision=_HIGHEST) + bias

        if count == 1:
            return at(jnp.zeros((), jnp.int32)).reshape(x.shape)
        wanted = jnp.clip(jnp.log(jnp.asarray(sigma, x.dtype)), levels[0], levels[-1])
        upper = jnp.clip(jnp.searchsorted(levels, wanted), 1, count - 1)
        low, high = levels[upper - 1], levels[upper]
        share = (wanted - low) / (high - low)
        return ((1 - share) * at(upper - 1) + share * at(upper)).reshape(x.shape)

    @classmethod
    def of_gaussian(cls, gaussian: GaussianDenoiser, sigmas: Num[np.ndarray, " levels"]) -> "LinearDenoiser":
        """The maps that a Gaussian's posterior mean is: ``W = U diag(lam / (lam + sigma^2)) U^T``, ``b = (I - W)
        mean``.

        Computed on the host in float64, returned in the dtype of the Gaussian's mean. Li et al. (arXiv 2410.24060),
        (6).

        Raises:
            InputError: a level that is not positive.
        """
        levels = as_doubles("sigmas", sigmas)
        require(bool((levels > 0).all()), "sigmas", levels.tolist(), "positive")
        basis, variances = (np.asarray(leaf, np.float64) for leaf in (gaussian.basis, gaussian.variances))
        mean = np.asarray(gaussian.mean, np.float64)
        weights = np.stack([(basis * (variances / (variances + level**2))) @ basis.T for level in levels])
        biases = (mean.ravel() - weights @ mean.ravel()).reshape(len(levels), *mean.shape)
        dtype = as_floats("mean", gaussian.mean).dtype
        return cls(levels, weights.astype(dtype), biases.astype(dtype))
