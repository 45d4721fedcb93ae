"""The networks of MoLRG's theory: posterior means whose means, bases and variances are learned."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from dgu.core.arrays import as_jax_floats, at_least_single
from dgu.core.brief import short_repr
from dgu.core.typing import Event, Scalar
from dgu.models.molrg import MoLRG

_HIGHEST = jax.lax.Precision.HIGHEST


@short_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class SoftmaxNetwork:
    """The posterior mean of a mixture of low-rank Gaussians with free parameters (equation 7).

        network(x, clean, noise, scale) = sum_k w_k [m_k + U_k D_k U_k^T (x - scale m_k) / scale]

    with ``D_k = scale^2 lam_k / (noise^2 + scale^2 lam_k)`` and the soft-max weights w of the mixture. Positive numbers
    are held by their logarithms. Nothing keeps the columns of U orthonormal while they are learned; once they are, it
    is the posterior mean of ``law()``. Wang et al., arXiv 2409.02426.

    Attributes:
        logits: ``(K,)``; the mixture's weights are their soft-max.
        means: ``(K, *event)``.
        bases: U, ``(K, *event, r)``.
        log_variances: logarithms of lam, ``(K, r)``.
    """

    logits: Any
    means: Any
    bases: Any
    log_variances: Any

    def law(self) -> MoLRG:
        """The mixture of these parameters, taken as they are."""
        logits, log_variances = jnp.asarray(self.logits), jnp.asarray(self.log_variances)
        return MoLRG(jax.nn.softmax(logits), self.means, self.bases, jnp.exp(log_variances))

    @at_least_single
    def __call__(self, x: Event, clean: Event, noise: Scalar, scale: Scalar = 1.0) -> Event:
        """The output for one noisy example ``x``; the ``clean`` one plays no part."""
        return self.law().posterior_mean(x, noise, scale)


@short_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class HardmaxNetwork:
    """Projections onto K learned subspaces, one chosen by the clean example (equations 15 and 16; 11 for K = 1).

        network(x, clean, noise, scale) = scale / (scale^2 + noise^2) U_k U_k^T x,   k = argmax_l |U_l^T clean|

    The choice looks at the clean example, so this is a network to train with; to sample, use the posterior mean of
    ``law()``, the same with soft-max weights of the noisy example (equation 28). Wang et al., arXiv 2409.02426.

    Attributes:
        bases: U, ``(K, *event, r)``; columns of 0 are not there.
    """

    bases: Any

    def law(self) -> MoLRG:
        """The mixture that it is the network of: equal weights, means of 0 and variances of 1 in orthonormal
        columns.
        """
        bases = jnp.asarray(self.bases)
        count, rank = bases.shape[0], bases.shape[-1]
        there = jnp.any(bases.reshape(count, -1, rank) != 0, axis=1).astype(bases.dtype)
        return MoLRG(jnp.full(count, 1 / count, bases.dtype), jnp.zeros(bases.shape[:-1], bases.dtype), bases, there)

    def chosen(self, clean: Event) -> Float[jax.Array, " K"]:
        """The weights (16) of one clean example: 1 for the subspace with its longest projection, the first on ties."""
        clean = as_jax_floats("clean", clean)
        bases = jnp.asarray(self.bases, clean.dtype).reshape(len(self.bases), clean.size, -1)
        inside = jnp.einsum("kdr,d->kr", bases, clean.ravel(), precision=_HIGHEST)
        return jax.nn.one_hot(jnp.argmax(jnp.sum(jnp.square(inside), axis=1)), len(bases), dtype=clean.dtype)

    @at_least_single
    def __call__(self, x: Event, clean: Event, noise: Scalar, scale: Scalar = 1.0) -> Event:
        """The output for one noisy example ``x`` that was made of ``clean``."""
        bases = jnp.asarray(self.bases, x.dtype).reshape(len(self.bases), x.size, -1)
        level, factor = jnp.asarray(noise, x.dtype), jnp.asarray(scale, x.dtype)
        inside = jnp.einsum("kdr,d->kr", bases, x.ravel(), precision=_HIGHEST)
        # A choice has no derivative.
        weighted = jax.lax.stop_gradient(self.chosen(clean).astype(x.dtype))[:, None] * inside
        out = jnp.einsum("kdr,kr->d", bases, weighted, precision=_HIGHEST)
        return (factor / (jnp.square(factor) + jnp.square(level)) * out).reshape(x.shape)
