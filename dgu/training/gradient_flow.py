"""Gradient flow of the random-feature score model, in closed form.

With the inner layer frozen the loss (5) of arXiv 2311.01797 is quadratic in the natural parameter theta, (d, m):

    L(theta) = tr(theta B theta^T) - 2 tr(theta b) + c,    B = E[w phi phi^T],  b = E[w phi y^T],  c = E[w |y|^2]

with features phi(x, t), targets y and weights w = lambda(t). Along ``d theta / d tau = -grad L = -2 (theta B - b^T)``,
with ``B = Q diag(omega) Q^T`` (the paper's Lemma 3 solved),

    theta(tau) = theta(0) Q e^(-2 omega tau) Q^T + b^T Q diag((1 - e^(-2 omega tau)) / omega) Q^T

where the last factor is ``2 tau`` at ``omega = 0``. The empirical loss takes its expectation over the training
examples, the population loss over the target; both exactly over times and noise, up to their quadrature.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from dgu.core.arrays import as_doubles, as_jax_floats, as_number
from dgu.core.brief import short_repr
from dgu.core.errors import require, require_whole
from dgu.models.random_features import RandomFeatures
from dgu.samplers.sde import LinearSDE, Score
from dgu.training.dynamics import Weighting, loss_weight

_HIGHEST = jax.lax.Precision.HIGHEST


@short_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class QuadraticLoss:
    """``L(theta) = tr(theta B theta^T) - 2 tr(theta b) + c``.

    Attributes:
        gram: B, (m, m).
        cross: b, (m, d).
        constant: c.
    """

    gram: Any
    cross: Any
    constant: Any

    def __call__(self, theta: Num[ArrayLike, "d m"]) -> Float[Array, ""]:
        """The loss, 0 or more up to rounding."""
        theta = as_jax_floats("theta", theta)
        quadratic = jnp.vdot(theta, jnp.matmul(theta, self.gram, precision=_HIGHEST), precision=_HIGHEST)
        return quadratic - 2 * jnp.vdot(theta, self.cross.T, precision=_HIGHEST) + self.constant


def quadratic_loss(
    features: RandomFeatures,
    x: Num[ArrayLike, "k d"],
    t: Num[ArrayLike, " k"],
    target: Num[ArrayLike, "k d"],
    weight: Num[ArrayLike, " k"],
    *,
    block_size: int = 4096,
) -> QuadraticLoss:
    """The loss ``sum_i w_i |theta phi(x_i, t_i) - y_i|^2`` of weighted points, summed in blocks.

    Args:
        features: the frozen layer.
        x, t, target, weight: points, times, regression targets, and weights with lambda(t) in them.
        block_size: points at a time.

    Raises:
        InputError: a block size below 1.
    """
    require_whole("block_size", block_size)
    x, t = as_jax_floats("x", x), as_jax_floats("t", t)
    target, weight = as_jax_floats("target", target), as_jax_floats("weight", weight)
    return _sums(features, x, t, target, weight, block_size=min(int(block_size), x.shape[0]))


def _sums(
    features: RandomFeatures, x: Array, t: Array, target: Array, weight: Array, *, block_size: int
) -> QuadraticLoss:
    count, m, d = x.shape[0], features.inner.shape[0], x.shape[1]
    blocks = -(-count // block_size)
    extra = blocks * block_size - count

    def cut(leaf: Array) -> Array:
        padded = jnp.pad(leaf, [(0, extra)] + [(0, 0)] * (leaf.ndim - 1))
        return padded.reshape(blocks, block_size, *leaf.shape[1:])

    def add(sums: tuple[Any, ...], block: tuple[Any, ...]) -> tuple[tuple[Any, ...], None]:
        x, t, y, w = block
        phi = jax.vmap(features)(x, t)
        weighted = phi * w[:, None]
        gram = jnp.matmul(weighted.T, phi, precision=_HIGHEST)
        cross = jnp.matmul(weighted.T, y, precision=_HIGHEST)
        return (sums[0] + gram, sums[1] + cross, sums[2] + jnp.sum(w * jnp.sum(y**2, axis=1))), None

    zero = (jnp.zeros((m, m), x.dtype), jnp.zeros((m, d), x.dtype), jnp.zeros((), x.dtype))
    sums, _ = jax.lax.scan(add, zero, tuple(cut(leaf) for leaf in (x, t, target, weight)))
    return QuadraticLoss(*sums)


def empirical_loss(
    features: RandomFeatures,
    sde: LinearSDE,
    data: Num[ArrayLike, "n d"],
    times: Num[ArrayLike, " k"],
    noise: Num[ArrayLike, "q d"],
    noise_weights: Num[ArrayLike, " q"],
    *,
    weighting: Weighting = "variance",
) -> QuadraticLoss:
    """Loss (5) over training examples: the mean over examples and times, the expectation over noise by quadrature.

    The target is ``-eps / std(t)``. ``noise`` with ``noise_weights`` stands for the standard normal: Gauss-Hermite
    nodes in one dimension (``gauss_hermite``), draws of equal weight in several.

    Raises:
        InputError: times outside (0, T].
    """
    data, times = as_jax_floats("data", data), as_jax_floats("times", times)
    noise, noise_weights = as_jax_floats("noise", noise), as_jax_floats("noise_weights", noise_weights)
    _check_times(sde, times)
    n, k, q = data.shape[0], times.shape[0], noise.shape[0]
    std, scale = sde.std(times), sde.scale(times)
    x = scale[:, None, None, None] * data[None, :, None] + std[:, None, None, None] * noise[None, None]
    target = jnp.broadcast_to(-noise[None, None] / std[:, None, None, None], x.shape)
    weight = (loss_weight(sde, weighting, times) * std**2 / k)[:, None, None] * noise_weights[None, None] / n
    t = jnp.broadcast_to(times[:, None, None], (k, n, q))
    d = data.shape[1]
    return quadratic_loss(
        features,
        x.reshape(-1, d),
        t.ravel(),
        target.reshape(-1, d),
        jnp.broadcast_to(weight, (k, n, q)).ravel(),
    )


def population_loss(
    features: RandomFeatures,
    sde: LinearSDE,
    score: Score,
    times: Num[ArrayLike, " k"],
    points: Num[ArrayLike, "k p d"],
    point_weights: Num[ArrayLike, "k p"],
    *,
    weighting: Weighting = "variance",
) -> QuadraticLoss:
    """Loss (7), against the exact score of ``p_t``: it differs from loss (5) of the population only by a constant.

    Args:
        features: the frozen layer.
        sde: the process.
        score: ``grad log p_t``.
        times: (k,).
        points: a quadrature of ``p_t`` for each time.
        point_weights: its weights, with sum 1 at each time.
        weighting: lambda(t).

    Raises:
        InputError: times outside (0, T].
    """
    times, points = as_jax_floats("times", times), as_jax_floats("points", points)
    point_weights = as_jax_floats("point_weights", point_weights)
    _check_times(sde, times)
    k, p, d = points.shape
    target = jax.vmap(jax.vmap(score, in_axes=(0, None)))(points, times)
    weight = (loss_weight(sde, weighting, times) * sde.std(times) ** 2 / k)[:, None] * point_weights
    t = jnp.broadcast_to(times[:, None], (k, p))
    return quadratic_loss(features, points.reshape(-1, d), t.ravel(), target.reshape(-1, d), weight.ravel())


def _check_times(sde: LinearSDE, times: Array) -> None:
    if not isinstance(times, jax.core.Tracer):
        low, high = float(jnp.min(times)), float(jnp.max(times))
        require(low > 0 and high <= sde.t_max, "times", (low, high), f"above 0 and at most T = {sde.t_max:g}")


def gauss_hermite(nodes: int) -> tuple[Float[np.ndarray, "q d"], Float[np.ndarray, " q"]]:
    """Nodes (q, 1) and weights of the standard normal distribution on the line: exact for polynomials of degree ``2 q -
    1``.

    Raises:
        InputError: fewer than 1 node.
    """
    require_whole("nodes", nodes)
    places, weights = np.polynomial.hermite_e.hermegauss(int(nodes))
    return places[:, None], weights / weights.sum()


def two_mode_quadrature(
    mu: float | int, sigmas: Sequence[float] | Num[ArrayLike, " k"], nodes: int = 60
) -> tuple[Float[np.ndarray, "k p 1"], Float[np.ndarray, "k p"]]:
    """Points and weights of ``(N(-mu, 1) + N(mu, 1)) / 2`` with each noise level added, ``nodes`` to a mode.

    Raises:
        InputError: noise levels that are not a list, negative or not finite, or fewer than 1 node.
    """
    mu, levels = as_number(mu), as_doubles("sigmas", sigmas)
    require(levels.ndim == 1, "sigmas.shape", levels.shape, "(k,)")
    require(bool((levels >= 0).all() and np.isfinite(levels).all()), "sigmas", levels.tolist(), "0 or more and finite")
    places, weights = gauss_hermite(nodes)
    spread = np.sqrt(1 + levels**2)[:, None, None]
    points = np.concatenate([sign * mu + spread * places for sign in (-1, 1)], axis=1)
    return points, np.broadcast_to(np.tile(weights, 2) / 2, points.shape[:2])


def gradient_flow(
    loss: QuadraticLoss,
    taus: Sequence[float] | Num[ArrayLike, " k"],
    theta_init: Num[ArrayLike, "d m"] | None = None,
) -> Float[np.ndarray, "k d m"]:
    """theta(tau) of the flow on ``loss`` from ``theta_init`` (0 by default) at each of ``taus``, 0 or more.

    Solved on the host in float64, whatever the dtype of ``loss``: training times reach the inverse of the smallest
    eigenvalues. Eigenvalues that rounding has made negative count as 0.

    Raises:
        InputError: negative or non-finite times, initial parameters of another shape.
    """
    taus = as_doubles("taus", taus)
    require(bool((taus >= 0).all() and np.isfinite(taus).all()), "taus", float(taus.min()), "0 or more and finite")
    gram, cross = np.asarray(loss.gram, np.float64), np.asarray(loss.cross, np.float64)
    m, d = cross.shape
    start = np.zeros((d, m)) if theta_init is None else as_doubles("theta_init", theta_init)
    require(start.shape == (d, m), "theta_init.shape", start.shape, f"{(d, m)}")
    values, vectors = np.linalg.eigh(gram)
    values = np.maximum(values, 0.0)
    decay = np.exp(-2 * taus[:, None] * values[None])
    safe = np.where(values > 0, values, 1.0)
    # expm1 keeps the digits of slow modes; a mode of eigenvalue 0 grows by 2 tau.
    growth = np.where(values > 0, -np.expm1(-2 * taus[:, None] * values[None]) / safe, 2 * taus[:, None])
    modes = (start @ vectors)[None] * decay[:, None] + (cross.T @ vectors)[None] * growth[:, None]
    return modes @ vectors.T


@short_repr
@dataclass(frozen=True)
class FlowCurves:
    """Losses and norms along training time, (k,) each.

    Attributes:
        empirical, population: losses of the flow on the empirical loss.
        norm: |theta|, the kernel norm of the score.
        gap: |theta_n(tau) - theta(tau)|, the distance to the flow on the population loss.
    """

    empirical: np.ndarray
    population: np.ndarray
    norm: np.ndarray
    gap: np.ndarray


def flow_curves(
    empirical: QuadraticLoss, population: QuadraticLoss, taus: Sequence[float] | Num[ArrayLike, " k"]
) -> tuple[FlowCurves, Float[np.ndarray, "k d m"]]:
    """Losses, norm and gap of the flow on the empirical loss from 0, and the path itself."""
    path = gradient_flow(empirical, taus)
    other = gradient_flow(population, taus)
    losses = [_losses(loss, path) for loss in (empirical, population)]
    norms = [np.linalg.norm(each.reshape(len(each), -1), axis=1) for each in (path, path - other)]
    return FlowCurves(*losses, *norms), path


def lemma_ratios(
    loss: QuadraticLoss, curves: FlowCurves, taus: Sequence[float] | Num[ArrayLike, " k"]
) -> Float[np.ndarray, "2"]:
    """The largest ratios, over times, of both sides of the paper's Lemmas 4 and 5: at most 1 where these hold.

        L(tau) - L* <= |theta*|^2 / (2 tau),      |theta(tau)| <= sqrt(tau L(0))

    along the flow on ``loss`` from 0, theta* and L* its end. The losses are differences of sums: an excess of less than
    1e-9 of ``L(0)`` is not told from 0.

    Args:
        loss: the empirical loss.
        curves: of the flow on it (``flow_curves``).
        taus: their times, positive.

    Raises:
        InputError: times that do not fit the curves or are not positive.
    """
    taus = as_doubles("taus", taus)
    require(taus.shape == curves.norm.shape, "taus.shape", taus.shape, f"{curves.norm.shape}, as of the curves")
    require(bool((taus > 0).all()), "taus", float(taus.min()), "positive")
    best = gradient_flow(loss, [1e14])
    least = float(np.asarray(loss(jnp.asarray(best[0]))))
    excess = np.maximum(curves.empirical - least - 1e-9 * float(loss.constant), 0)
    lemma4 = excess * 2 * taus / np.sum(best**2)
    lemma5 = curves.norm / np.sqrt(taus * float(loss.constant))
    return np.array([lemma4.max(), lemma5.max()])


def _losses(loss: QuadraticLoss, path: np.ndarray) -> np.ndarray:
    gram, cross, constant = (np.asarray(leaf, np.float64) for leaf in (loss.gram, loss.cross, loss.constant))
    return np.einsum("kdm,mn,kdn->k", path, gram, path) - 2 * np.einsum("kdm,md->k", path, cross) + constant
