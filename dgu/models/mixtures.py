"""Posterior means of two mixtures: low-rank Gaussians (MoLRG), and points (the empirical distribution)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Integer

from dgu.core.arrays import as_jax_floats, as_native, at_least_single, require_numbers
from dgu.core.brief import short_repr
from dgu.core.errors import require, require_whole
from dgu.core.keys import threefry
from dgu.core.typing import Event, Key, Scalar
from dgu.models.closed_form import GaussianDenoiser

_HIGHEST = jax.lax.Precision.HIGHEST


def _floored(variance: Array) -> Array:
    """A variance that may be divided by: at noise 0 a smallest one stands in, and the nearest component takes all."""
    return jnp.maximum(variance, float(jnp.finfo(variance.dtype).tiny) ** 0.5)


class _Components(NamedTuple):
    """What each of K components makes of one example of d numbers, r columns a component."""

    scores: Array  # (K,) log weights, up to a common term
    means: Array  # (K, d)
    bases: Array  # (K, d, r), columns that are not there set to 0
    coordinates: Array  # (K, r)
    rest: Array  # (K, d), what lies off the subspace
    gain: Array  # (K, r), variance over variance with noise
    total: Array  # (K, r), variance with noise
    rest_gain: Array  # (), the same two off the subspace
    rest_variance: Array  # ()

    def posterior_means(self) -> Array:
        """(K, d), the posterior mean within each component."""
        inside = jnp.einsum("kdr,kr->kd", self.bases, self.gain * self.coordinates, precision=_HIGHEST)
        return self.means + inside + self.rest_gain * self.rest


@short_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class MoLRGDenoiser:
    """The posterior mean of a mixture of low-rank Gaussians given ``x = x0 + sigma eps``.

        x0 ~ sum_k pi_k N(m_k, U_k diag(lam_k) U_k^T + noise_std^2 (I - U_k U_k^T))
        denoiser(x, sigma) = sum_k w_k (m_k + U_k (lam_k / (lam_k + sigma^2)) c_k + noise_std^2 / rho  e_k)

    with ``rho = noise_std^2 + sigma^2``, the coordinates ``c_k = U_k^T (x - m_k)``, the rest ``e_k = x - m_k - U_k
    c_k`` and ``w = softmax(l)``,

        l_k = log pi_k - 1/2 sum_i [log((lam_ki + sigma^2) / rho) + c_ki^2 / (lam_ki + sigma^2)] - |e_k|^2 / (2 rho).

    The determinants stay in: they decide between components of different rank or variance. The rest is formed as a
    vector, not as a difference of squared norms, which loses all digits at small ``sigma``. At ``sigma = 0`` the
    component nearest to ``x`` takes all the weight. A column whose variance is 0 is taken as not there: it pads a
    component of smaller rank, and its direction belongs to the rest, whatever the column holds.

    Wang et al., arXiv 2409.02426, Definition 1 and Lemma 1.

    Attributes:
        weights: pi, ``(K,)``, 0 or more; they need not sum to 1.
        means: ``(K, *event)``.
        bases: U, ``(K, *event, r)``, orthonormal columns within each component.
        variances: lam, ``(K, r)``, 0 or more.
        noise_std: standard deviation off the subspaces, a scalar, 0 or more.
    """

    weights: Any
    means: Any
    bases: Any
    variances: Any
    noise_std: Any = 0.0

    @classmethod
    def from_gaussians(cls, gaussians: Sequence[GaussianDenoiser], rank: int) -> "MoLRGDenoiser":
        """Equal shares of the Gaussians, each reduced to its ``rank`` leading directions, or fewer where one has fewer.

        What variance that leaves, averaged over the Gaussians, is spread evenly over the other ``d - rank`` directions:
        ``noise_std^2 = mean_k(sum_{i > rank} lam_ki) / (d - rank)``.

        Args:
            gaussians: of one shape of event, their variances falling, as ``GaussianDenoiser.fit`` gives them.
            rank: 1 or more.

        Raises:
            InputError: no Gaussian, events of different shapes, or a rank below 1.
        """
        require(len(gaussians) >= 1, "gaussians", f"{len(gaussians)} of them", "1 or more")
        shapes = {np.shape(one.mean) for one in gaussians}
        require(len(shapes) == 1, "shapes of the means", sorted(shapes), "equal")
        require_whole("rank", rank)
        (event,) = shapes
        rank = min(rank, *(len(one.variances) for one in gaussians))
        left = np.mean([np.asarray(one.variances)[rank:].sum() for one in gaussians])
        return cls(
            jnp.full(len(gaussians), 1 / len(gaussians)),
            jnp.stack([one.mean for one in gaussians]),
            jnp.stack([one.basis[:, :rank].reshape(*event, rank) for one in gaussians]),
            jnp.stack([one.variances[:rank] for one in gaussians]),
            jnp.asarray(np.sqrt(left / max(1, math.prod(event) - rank)), jnp.float32),
        )

    @at_least_single
    def __call__(self, x: Event, sigma: Scalar) -> Event:
        """The posterior mean of one example, in the dtype of ``x``.

        Raises:
            InputError: ``x`` is of another shape than a mean, or the attributes do not fit each other.
        """
        parts = self._components(x, sigma)
        mixed = jnp.dot(jax.nn.softmax(parts.scores), parts.posterior_means(), precision=_HIGHEST)
        return mixed.reshape(x.shape)

    def given(self, label: Integer[ArrayLike, ""] | int) -> "MoLRGDenoiser":
        """The posterior mean within component number ``label``: the mixture as a class-conditional denoiser whose
        classes are its components."""
        leaves = (self.weights, self.means, self.bases, self.variances)
        weights, means, bases, variances = (leaf[label][None] for leaf in leaves)
        return MoLRGDenoiser(weights, means, bases, variances, self.noise_std)

    @at_least_single
    def responsibilities(self, x: Event, sigma: Scalar) -> Float[Array, " K"]:
        """The posterior probability of each component, ``w`` of the class: it sums to 1."""
        return jax.nn.softmax(self._components(x, sigma).scores)

    @at_least_single
    def log_density(self, x: Event, sigma: Scalar) -> Float[Array, ""]:
        """``log p(x; sigma)`` in nats of the mixture with noise ``sigma`` added; ``sigma`` and ``noise_std`` not both
        0.
        """
        scores = self._components(x, sigma).scores
        weights, std, noise = (jnp.asarray(value, x.dtype) for value in (self.weights, self.noise_std, sigma))
        scaled = 2 * jnp.pi * (jnp.square(std) + jnp.square(noise))
        beyond = jnp.isinf(scaled)  # Then the logarithm of the noise alone is all that is left of it.
        logarithm = math.log(2 * math.pi) + 2 * jnp.log(jnp.where(beyond, noise, jnp.ones_like(noise)))
        common = x.size * jnp.where(beyond, logarithm, jnp.log(scaled)) / 2
        return jax.nn.logsumexp(scores) - jnp.log(jnp.sum(weights)) - common.astype(x.dtype)

    @at_least_single
    def score(self, x: Event, sigma: Scalar) -> Event:
        """``grad log p(x; sigma) = -sum_k w_k (U_k c_k / (lam_k + sigma^2) + e_k / rho)``, ``sigma`` above 0.

        Equal to ``(denoiser(x, sigma) - x) / sigma^2``, without that form's loss of digits at small ``sigma``.
        """
        parts = self._components(x, sigma)
        inside = jnp.einsum("kdr,kr->kd", parts.bases, parts.coordinates / parts.total, precision=_HIGHEST)
        pulls = inside + parts.rest / parts.rest_variance
        return -jnp.dot(jax.nn.softmax(parts.scores), pulls, precision=_HIGHEST).reshape(x.shape)

    @at_least_single
    def jacobian(self, x: Event, sigma: Scalar) -> Float[Array, "..."]:
        """The derivative of ``denoiser(x, sigma)`` by ``x``, ``(*event, *event)``: ``Cov(x0 | x) / sigma^2``.

            sum_k w_k (U_k diag(lam_k / (lam_k + sigma^2)) U_k^T + noise_std^2 / rho (I - U_k U_k^T))
                + sum_k w_k (d_k - dbar)(d_k - dbar)^T / sigma^2

        with ``d_k`` the posterior mean within component k and ``dbar`` the denoiser's output: symmetric, positive
        semi-definite. It takes d x d numbers; where d is large take products with it by ``jax.jvp``.
        """
        parts = self._components(x, sigma)
        shares = jax.nn.softmax(parts.scores)
        means = parts.posterior_means()
        apart = means - jnp.dot(shares, means, precision=_HIGHEST)[None]
        noise = _floored(jnp.square(jnp.asarray(sigma, x.dtype)))
        between = jnp.einsum("k,kd,ke->de", shares / noise, apart, apart, precision=_HIGHEST)
        # The part off the subspace is the identity less the columns that are there.
        gains = shares[:, None] * (parts.gain - parts.rest_gain)
        within = jnp.einsum("kdr,kr,ker->de", parts.bases, gains, parts.bases, precision=_HIGHEST)
        off = parts.rest_gain * jnp.eye(x.size, dtype=x.dtype)
        return (within + off + between).reshape(*x.shape, *x.shape)

    def draw(self, key: Key, label: Integer[ArrayLike, ""] | None = None) -> Float[Array, "*event"]:
        """One ``x0`` of the mixture, in the dtype of the means, float32 or wider: ``jax.vmap`` it over keys.

        It is of component ``draw_label(key)``, or of ``label`` where that is given.

        Raises:
            InputError: ``label`` (not a traced one) is none of the components, 0 to K - 1.
        """
        key = threefry(key)
        _, inside, outside = jax.random.split(key, 3)
        require_numbers(bases=self.bases, variances=self.variances, noise_std=self.noise_std)
        means = as_jax_floats("means", self.means)
        if label is not None and not isinstance(label, jax.core.Tracer):
            require_whole("label", label, 0, len(means) - 1)
        chosen = self.draw_label(key) if label is None else jnp.asarray(label, jnp.int32)
        mean, basis, variances = (
            jnp.asarray(leaf, means.dtype)[chosen] for leaf in (means, self.bases, self.variances)
        )
        present = (variances > 0).astype(means.dtype)
        noise = jnp.asarray(self.noise_std, means.dtype) * jax.random.normal(outside, mean.shape, means.dtype)
        off = jnp.tensordot(noise, basis, mean.ndim, precision=_HIGHEST) * present
        coordinates = jnp.sqrt(variances) * jax.random.normal(inside, variances.shape, means.dtype)
        return mean + noise + jnp.dot(basis, coordinates - off, precision=_HIGHEST)

    def draw_label(self, key: Key) -> Int[Array, ""]:
        """The component of ``draw(key)``, by the weights."""
        key = threefry(key)
        weights = as_jax_floats("weights", self.weights)
        return jax.random.categorical(jax.random.split(key, 3)[0], jnp.log(weights))

    def _components(self, x: Event, sigma: Scalar) -> _Components:
        """Log weights and the filter of each component at one example."""
        count, rank = self._check(x)
        weights, means, bases, variances, std, noise = (
            jnp.asarray(leaf, x.dtype)
            for leaf in (self.weights, self.means, self.bases, self.variances, self.noise_std, sigma)
        )
        present = variances > 0
        bases = bases.reshape(count, x.size, rank) * present[:, None, :].astype(x.dtype)
        centred = (x[None] - means).reshape(count, x.size)
        coordinates = jnp.einsum("kdr,kd->kr", bases, centred, precision=_HIGHEST)
        rest = centred - jnp.einsum("kdr,kr->kd", bases, coordinates, precision=_HIGHEST)
        # Where its square is beyond all numbers the noise hides everything, and ratios of variances must still be
        # numbers.
        noise_variance = jnp.minimum(jnp.square(noise), float(jnp.finfo(x.dtype).max) / 4)
        rest_variance = _floored(jnp.square(std) + noise_variance)
        total = jnp.where(present, variances + noise_variance, rest_variance)
        positive = weights > 0
        prior = jnp.where(positive, jnp.log(jnp.where(positive, weights, jnp.ones_like(weights))), -jnp.inf)
        scores = (
            prior
            - jnp.sum(jnp.log(total / rest_variance) + jnp.square(coordinates) / total, axis=1) / 2
            - jnp.sum(jnp.square(rest), axis=1) / (2 * rest_variance)
        )
        return _Components(
            scores=scores,
            means=means.reshape(count, x.size),
            bases=bases,
            coordinates=coordinates,
            rest=rest,
            gain=variances / total,
            total=total,
            rest_gain=jnp.square(std) / rest_variance,
            rest_variance=rest_variance,
        )

    def _check(self, x: Array) -> tuple[int, int]:
        """Number of components and columns, from shapes and dtypes; values are looked at where they are not traced."""
        require_numbers(weights=self.weights, means=self.means, bases=self.bases, variances=self.variances)
        count, rank = (np.shape(self.variances) + (0, 0))[:2]
        expected = {"weights": (count,), "means": (count, *x.shape), "bases": (count, *x.shape, rank)}
        require(
            np.ndim(self.variances) == 2 and count >= 1, "variances.shape", np.shape(self.variances), "(K, r), K >= 1"
        )
        require(np.shape(self.means)[1:] == x.shape, "x.shape", x.shape, f"that of a mean, {np.shape(self.means)[1:]}")
        for name, shape in expected.items():
            require(np.shape(getattr(self, name)) == shape, f"{name}.shape", np.shape(getattr(self, name)), f"{shape}")
        for name in ("weights", "variances"):
            value = getattr(self, name)
            if not isinstance(value, jax.core.Tracer):
                numbers = np.asarray(value)
                require(not bool((numbers < 0).any()), name, float(numbers.min(initial=0)), "0 or more")
        return count, rank


@short_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class EmpiricalDenoiser:
    """The posterior mean of the empirical distribution of ``data`` given ``x = x0 + sigma eps``: what memorises.

        denoiser(x, sigma) = sum_j softmax_j(-|x - data_j|^2 / (2 sigma^2)) data_j

    Blocks of points are summed with a running maximum, so that nothing larger than a block is held beside the data.
    Distances come from differences, not from inner products: at small ``sigma`` the latter lose all digits. At
    ``sigma = 0`` it is the nearest point (the mean of those equally near). ``EmpiricalDenoiser`` of ``{a, -a}`` is the
    two-point mixture, in one dimension ``a tanh(a x / sigma^2)``.

    Attributes:
        data: ``(N, *event)``, N at least 1.
        block_size: points at a time. Static.
    """

    data: Any
    block_size: int = field(default=256, metadata={"static": True})

    @at_least_single
    def __call__(self, x: Event, sigma: Scalar) -> Event:
        """The posterior mean of one example, in the dtype of ``x``.

        Raises:
            InputError: ``data`` is not ``(N, *x.shape)`` with N at least 1, or ``block_size`` is below 1.
        """
        _, total, weighted = self._sums(x, sigma)
        return (weighted / total).reshape(x.shape)

    @at_least_single
    def log_density(self, x: Event, sigma: Scalar) -> Float[Array, ""]:
        """``log p(x; sigma)`` in nats of the points with noise ``sigma`` above 0 added, all of one weight."""
        maximum, total, _ = self._sums(x, sigma)
        noise = jnp.asarray(sigma, x.dtype)
        common = math.log(np.shape(self.data)[0]) + x.size * jnp.log(2 * jnp.pi * jnp.square(noise)) / 2
        return maximum + jnp.log(total) - common.astype(x.dtype)

    def draw(self, key: Key) -> Float[Array, "*event"]:
        """One of the points, each as likely, in the dtype of the data, float32 or wider: ``jax.vmap`` it over keys."""
        key = threefry(key)
        rows = as_native("data", self.data)
        return as_jax_floats("data", rows[jax.random.randint(key, (), 0, len(rows))])

    def _sums(self, x: Event, sigma: Scalar) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, " d"]]:
        """The largest exponent m, ``sum_j exp(l_j - m)`` and ``sum_j exp(l_j - m) data_j``."""
        shape = np.shape(self.data)
        require(len(shape) >= 1 and shape[0] >= 1, "data.shape", shape, "(N, *event), N at least 1")
        require(x.shape == shape[1:], "x.shape", x.shape, f"that of a point of data, {shape[1:]}")
        require(self.block_size >= 1, "block_size", self.block_size, "1 or more")
        number = shape[0]
        size = min(self.block_size, number)
        rows = as_native("data", self.data).reshape(number, x.size)
        flat = x.ravel()
        precision = 1 / (2 * _floored(jnp.square(jnp.asarray(sigma, x.dtype))))

        # Larger than any distance, and yet finite: derivatives multiply it by a weight of 0.
        far = jnp.asarray(jnp.finfo(x.dtype).max, x.dtype)

        def add(carry: tuple[Any, ...], block: Array) -> tuple[tuple[Any, ...], None]:
            nearest, total, weighted = carry
            # The last block is moved back to end with the data; its rows that an earlier block had count for nothing.
            start = jnp.minimum(block * size, number - size)
            points = jax.lax.dynamic_slice_in_dim(rows, start, size).astype(x.dtype)
            squares = jnp.sum(jnp.square(flat[None] - points), axis=1)
            squares = jnp.where(start + jnp.arange(size) >= block * size, squares, far)
            # The nearest drops out of the ratio, and so out of its derivative. Distances are subtracted before they are
            # divided by the noise: of two products, fused into one operation, rounding leaves exponents above 0.
            closest = jax.lax.stop_gradient(jnp.minimum(nearest, jnp.min(squares)))
            weights = jnp.exp(-(squares - closest) * precision)
            keep = jnp.exp(-(nearest - closest) * precision)
            weighted = keep * weighted + jnp.dot(weights, points, precision=_HIGHEST)
            return (closest, keep * total + jnp.sum(weights), weighted), None

        nothing = (far, jnp.zeros((), x.dtype), jnp.zeros(x.size, x.dtype))
        (closest, total, weighted), _ = jax.lax.scan(add, nothing, jnp.arange(-(-number // size)))
        return -closest * precision, total, weighted
