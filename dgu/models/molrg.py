"""Mixtures of low-rank Gaussians (MoLRG) as distributions: drawn, measured, and denoised at any scale and noise."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Integer, Num

from dgu.core import linalg
from dgu.core.arrays import as_floats, as_indices, as_labels, at_least_single, rounding, to_device
from dgu.core.errors import require
from dgu.core.keys import example_key, threefry
from dgu.core.typing import Event, Key, Scalar
from dgu.models.mixtures import MoLRGDenoiser


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class MoLRG:
    """The law ``x0 ~ sum_k pi_k N(m_k, U_k diag(lam_k) U_k^T + noise_std^2 (I - U_k U_k^T))``.

    Seen through ``x_t = scale x0 + noise eps``, eps standard normal: EDM has ``scale = 1`` and ``noise = sigma``, a
    variance-preserving process ``scale^2 + noise^2 = 1``. Everything is that of ``MoLRGDenoiser`` at ``x_t / scale``
    and ``noise / scale``, in the log domain with the determinants. The data model ``x = U_k a + e`` with ``e`` of
    standard deviation delta in all directions has ``lam + delta^2`` as variances and ``noise_std = delta``.

    Make it with ``MoLRG.of``, which checks what it is given, or ``MoLRG.random``; fit it with
    ``dgu.analysis.fit_classes`` or ``dgu.analysis.fit_mixture``. Wang et al., arXiv 2409.02426, Definition 1,
    Proposition 1 and Lemma 1.

    Attributes:
        weights: pi, ``(K,)``, 0 or more, of sum 1.
        means: ``(K, *event)``.
        bases: U, ``(K, *event, r)``, orthonormal columns within each component.
        variances: lam, ``(K, r)``; 0 marks a column that is not there (a component of smaller rank).
        noise_std: standard deviation off the subspaces, a scalar, 0 or more.
    """

    weights: Any
    means: Any
    bases: Any
    variances: Any
    noise_std: Any = 0.0

    @classmethod
    def of(
        cls,
        weights: Num[ArrayLike, " K"],
        means: Num[ArrayLike, " K *event"],
        bases: Sequence[ArrayLike] | Array | np.ndarray,
        variances: Sequence[ArrayLike] | Array | np.ndarray,
        noise_std: float = 0.0,
    ) -> "MoLRG":
        """The mixture of given parts, checked on the host; components of unequal rank are padded.

        Args:
            weights: ``(K,)``, 0 or more, of sum 1 (to the square root of their dtype's rounding, as all below).
            means: ``(K, *event)``.
            bases: for each component ``(*event, r_k)`` with orthonormal columns, r_k from 1 to the size of an event.
            variances: for each component ``(r_k,)``, 0 or more; columns of variance 0 count as not there.
            noise_std: standard deviation off the subspaces, finite, 0 or more.

        Raises:
            InputError: weights that do not sum to 1, a rank above the dimension, columns that are not orthonormal (with
                the largest entry of ``|U^T U - I|``), shapes that do not fit, values that are not finite.
        """
        pi, centres = as_floats("weights", weights), as_floats("means", means)
        require(pi.ndim == 1 and len(pi) >= 1, "weights.shape", pi.shape, "(K,), K at least 1")
        sound = bool(np.isfinite(pi).all()) and bool((pi >= 0).all())
        require(sound, "weights", pi.tolist(), "0 or more and finite")
        total = float(pi.sum(dtype=np.float64))
        require(
            abs(total - 1) <= _tolerance(weights), "weights", f"weights of sum {total:.9g}", "weights that sum to 1"
        )
        require(centres.ndim >= 2 and len(centres) == len(pi), "means.shape", centres.shape, f"({len(pi)}, *event)")
        require(bool(np.isfinite(centres).all()), "means", "values that are not finite", "finite")
        require(0 <= noise_std < np.inf, "noise_std", noise_std, "finite, 0 or more")
        parts = [as_floats("bases", basis) for basis in bases]
        spreads = [as_floats("variances", variance) for variance in variances]
        for name, given in (("bases", parts), ("variances", spreads)):
            require(len(given) == len(pi), name, f"{len(given)} components", f"{len(pi)}, as many as weights")
        event, size = centres.shape[1:], prod(centres.shape[1:])
        for number, (basis, variance, given) in enumerate(zip(parts, spreads, bases)):
            _check_component(number, basis, variance, event, size, _tolerance(given))
        rank = max(basis.shape[-1] for basis in parts)
        dtype = jax.dtypes.canonicalize_dtype(np.result_type(*parts, centres))
        padded = np.zeros((len(pi), *event, rank), dtype)
        spread = np.zeros((len(pi), rank), dtype)
        for number, (basis, variance) in enumerate(zip(parts, spreads)):
            padded[number, ..., : basis.shape[-1]] = basis
            spread[number, : len(variance)] = variance
        leaves = (to_device(np.asarray(leaf, dtype)) for leaf in (pi, centres, padded, spread, noise_std))
        return cls(*leaves)

    @classmethod
    def random(
        cls,
        key: Key,
        shape: Sequence[int],
        ranks: Sequence[int],
        *,
        overlap: int | None = 0,
        weights: Num[ArrayLike, " K"] | None = None,
        means: Num[ArrayLike, " K *event"] | None = None,
        variances: Sequence[ArrayLike] | float = 1.0,
        noise_std: float = 0.0,
    ) -> "MoLRG":
        """A mixture on random subspaces of an event of ``shape``; see ``random_subspaces`` for ``ranks`` and
        ``overlap``.

        Args:
            weights: equal ones by default.
            means: 0 by default.
            variances: one number for all, or for each component ``(r_k,)``.

        Raises:
            InputError: as ``random_subspaces`` and ``of``.
        """
        key = threefry(key)
        event = tuple(shape)
        subspaces = random_subspaces(key, prod(event), ranks, overlap)
        count = len(subspaces)
        spread = [np.full(rank, variances) for rank in ranks] if isinstance(variances, int | float) else variances
        return cls.of(
            np.full(count, 1 / count) if weights is None else weights,
            np.zeros((count, *event)) if means is None else means,
            [np.asarray(basis).reshape(*event, -1) for basis in subspaces],
            spread,
            noise_std,
        )

    @property
    def denoiser(self) -> MoLRGDenoiser:
        """The posterior mean under EDM's noise as a denoiser ``(x, sigma) -> E[x0 | x0 + sigma eps = x]``."""
        return MoLRGDenoiser(self.weights, self.means, self.bases, self.variances, self.noise_std)

    @property
    def ranks(self) -> np.ndarray:
        """The rank of each component, ``(K,)``: columns of variance above 0."""
        return (np.asarray(self.variances) > 0).sum(axis=1)

    def sample(
        self, key: Key, indices: Integer[ArrayLike, " m"], labels: Integer[ArrayLike, " l"] | None = None
    ) -> Float[Array, " m *event"]:
        """Samples number ``indices``, which depend on ``(key, index)`` alone, in the dtype of the means, float32 or
        wider.

        Args:
            labels: the component of each; by default ``self.labels(key, indices)``, drawn by the weights.

        Raises:
            InputError: indices out of range, another number of ``labels`` than of indices, or others than components.
        """
        key = threefry(key)
        numbers = as_indices("indices", indices)
        chosen = self.labels(key, numbers) if labels is None else as_labels("labels", labels)
        count = len(np.asarray(self.weights))
        require(chosen.shape == numbers.shape, "labels.shape", chosen.shape, f"one for each index, {numbers.shape}")
        strangers = np.setdiff1d(chosen, np.arange(count))
        require(len(strangers) == 0, "labels", strangers[:5].tolist(), f"components, 0 to {count - 1}")
        return _draw(self.denoiser, key, numbers, chosen)

    def labels(self, key: Key, indices: Integer[ArrayLike, " m"]) -> np.ndarray:
        """The components of ``sample(key, indices)``, ``(m,)``, 0 to K - 1."""
        key = threefry(key)
        return np.asarray(_draw_labels(self.denoiser, key, as_indices("indices", indices)))

    @at_least_single
    def log_density(self, x: Event, noise: Scalar, scale: Scalar = 1.0) -> Float[Array, ""]:
        """``log p_t(x)`` in nats, the density of ``scale x0 + noise eps`` at one example (equation 25).

        ``noise`` (gamma_t) is 0 or more, not 0 together with ``noise_std``; ``scale`` (s_t) above 0.
        """
        factor, level = _reduced(x, noise, scale)
        return self.denoiser.log_density(x / factor, level) - x.size * jnp.log(factor)

    @at_least_single
    def score(self, x: Event, noise: Scalar, scale: Scalar = 1.0) -> Event:
        """``grad log p_t(x)`` at one example (equation 26); ``noise`` above 0 unless ``noise_std`` is."""
        factor, level = _reduced(x, noise, scale)
        return self.denoiser.score(x / factor, level) / factor

    @at_least_single
    def posterior_mean(self, x: Event, noise: Scalar, scale: Scalar = 1.0) -> Event:
        """``E[x0 | scale x0 + noise eps = x]`` of one example (Lemma 1)."""
        factor, level = _reduced(x, noise, scale)
        return self.denoiser(x / factor, level)

    @at_least_single
    def jacobian(self, x: Event, noise: Scalar, scale: Scalar = 1.0) -> Float[Array, "..."]:
        """The derivative of ``posterior_mean`` by ``x``, ``(*event, *event)``: ``scale / noise^2 Cov(x0 | x_t = x)``.

        Exact, with the change of the responsibilities in it; see ``MoLRGDenoiser.jacobian``.
        """
        factor, level = _reduced(x, noise, scale)
        return self.denoiser.jacobian(x / factor, level) / factor

    @at_least_single
    def responsibilities(self, x: Event, noise: Scalar, scale: Scalar = 1.0) -> Float[Array, " K"]:
        """The posterior probability of each component given ``scale x0 + noise eps = x``."""
        factor, level = _reduced(x, noise, scale)
        return self.denoiser.responsibilities(x / factor, level)


def random_basis(key: Key, dimension: int, rank: int) -> Float[Array, "n r"]:
    """``(dimension, rank)`` orthonormal columns, uniform over all such. Pure: ``jax.vmap`` it over keys."""
    return _random_basis(threefry(key), dimension, rank)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _random_basis(key: Key, dimension: int, rank: int) -> Float[Array, "n r"]:
    return basis_of(jax.random.normal(key, (dimension, rank)))


@jax.jit
def basis_of(draws: Float[Array, "n r"]) -> Float[Array, "n r"]:
    """The orthonormal columns Q of the QR decomposition whose R has a positive diagonal; uniform where ``draws`` are
    normal.
    """
    q, r = linalg.qr(draws)
    return q * jnp.where(jnp.diagonal(r) < 0, -1.0, 1.0).astype(q.dtype)[None]


def random_subspaces(
    key: Key, dimension: int, ranks: Sequence[int], overlap: int | None = 0
) -> tuple[Float[Array, "n r"], ...]:
    """Bases ``(dimension, r_k)`` of random subspaces, one for each of ``ranks``.

    Args:
        overlap: directions common to all of them; the others are mutually orthogonal, so that with 0 the subspaces are.
            None draws each uniformly and on its own: they meet at random angles.

    Raises:
        InputError: a rank below 1 or above ``dimension``, an overlap below 0 or above the smallest rank, or more
            orthogonal directions than dimensions.
    """
    key = threefry(key)
    sizes = tuple(int(rank) for rank in ranks)
    require(len(sizes) >= 1 and min(sizes) >= 1, "ranks", sizes, "one or more, each 1 or more")
    require(max(sizes) <= dimension, "ranks", sizes, f"at most the dimension {dimension}")
    if overlap is None:
        keys = jax.random.split(key, len(sizes))
        return tuple(random_basis(part, dimension, rank) for part, rank in zip(keys, sizes))
    require(0 <= overlap <= min(sizes), "overlap", overlap, f"from 0 to the smallest rank {min(sizes)}")
    needed = overlap + sum(rank - overlap for rank in sizes)
    require(needed <= dimension, "ranks", sizes, f"such that their {needed} directions fit in dimension {dimension}")
    return _cut(random_basis(key, dimension, needed), sizes, overlap)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _cut(whole: Float[Array, "n r"], sizes: tuple[int, ...], overlap: int) -> tuple[Float[Array, "n _"], ...]:
    """The first ``overlap`` columns beside others for each of ``sizes``."""
    ends = np.cumsum([overlap] + [size - overlap for size in sizes])
    return tuple(jnp.concatenate([whole[:, :overlap], whole[:, low:high]], axis=1) for low, high in pairwise(ends))


def _reduced(x: Array, noise: Scalar, scale: Scalar) -> tuple[Array, Array]:
    """The scale, and the noise at scale 1, in the dtype of ``x``."""
    factor = jnp.asarray(scale, x.dtype)
    return factor, jnp.asarray(noise, x.dtype) / factor


def _tolerance(given: ArrayLike) -> float:
    return rounding(given) ** 0.5


def _check_component(
    number: int, basis: np.ndarray, variance: np.ndarray, event: tuple[Any, ...], size: int, tolerance: float
) -> None:
    """One component's basis and variances."""
    name = f"bases[{number}]"
    require(basis.ndim == len(event) + 1 and basis.shape[:-1] == event, f"{name}.shape", basis.shape, f"{event} + (r,)")
    rank = basis.shape[-1]
    require(variance.shape == (rank,), f"variances[{number}].shape", variance.shape, f"{(rank,)}")
    sound = bool(np.isfinite(variance).all()) and bool((variance >= 0).all())
    require(sound, f"variances[{number}]", variance.tolist(), "0 or more and finite")
    kept = basis.reshape(size, rank)[:, variance > 0].astype(np.float64)
    require(1 <= kept.shape[1] <= size, name, f"a basis of rank {kept.shape[1]}", f"of rank 1 to the dimension {size}")
    # A NaN among the entries gives a NaN here, which is no less than anything.
    defect = float(np.abs(kept.T @ kept - np.eye(kept.shape[1])).max())
    require(defect <= tolerance, name, f"columns off orthonormal by {defect:.3g}", "orthonormal columns")


@jax.jit
def _draw(denoiser: MoLRGDenoiser, key: Key, indices: Int[Array, " m"], labels: Int[Array, " m"]) -> Array:
    return jax.vmap(lambda index, label: denoiser.draw(example_key(key, index), label))(indices, labels)


@jax.jit
def _draw_labels(denoiser: MoLRGDenoiser, key: Key, indices: Int[Array, " m"]) -> Array:
    return jax.vmap(lambda index: denoiser.draw_label(example_key(key, index)))(indices)
