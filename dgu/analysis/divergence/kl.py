"""How far is the modelled distribution from the target? ``KL(p_0 || model)`` in nats, three ways.

``grid_kl`` integrates a score on the line at one small time and normalises (Li et al., arXiv 2311.01797, equation 11):
it looks at no other time. ``flow_kl`` takes the density that the probability-flow ODE gives fresh examples of the
target: it looks at all times, from the prior on. ``knn_kl`` looks at samples alone. For an exact score all three agree,
up to the noise that ``p_{t_eps}`` has over ``p_0`` and the prior's distance from ``p_T``; for a trained network they
are different models, and their difference tells how inconsistent the network is between times.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from dgu.analysis.stats.estimates import Estimate, normal_estimate
from dgu.core.arrays import as_doubles, as_jax_floats, as_number, check_squares, checked_rows
from dgu.core.brief import short_repr
from dgu.core.denoisers import as_pytree
from dgu.core.errors import require, require_whole
from dgu.core.keys import threefry
from dgu.core.typing import Key, Scalar
from dgu.distributions.draws import log_densities
from dgu.models.mixtures import EmpiricalDenoiser
from dgu.samplers.likelihood import log_likelihood
from dgu.samplers.prior import prior_mismatch, warn_of_mismatch
from dgu.samplers.sde import LinearSDE, Score, ScoreOfDensity, as_denoiser

#: Mass of the target that a grid may leave out.
MAX_OUTSIDE = 1e-3


@jax.tree_util.register_static
@dataclass(frozen=True)
class Grid:
    """Points on the line for the KL, and a finer grid under it for the integral of the score.

    The paper's has 51 points from -10 to 10 (151 from -30 to 30 for modes at +-15).

    Attributes:
        left, right: the ends.
        points: number of points of the coarse grid, both ends included.
        refine: steps of the fine grid in one of the coarse.
    """

    left: float | int = -10.0
    right: float | int = 10.0
    points: int = 51
    refine: int = 8

    def __post_init__(self) -> None:
        for name in ("left", "right", "points", "refine"):
            object.__setattr__(self, name, as_number(getattr(self, name)))
        require(self.left < self.right, "grid (left, right)", (self.left, self.right), "rising")
        require_whole("grid points", self.points, 3)
        require_whole("refine", self.refine)

    @property
    def step(self) -> float:
        """Distance between points of the coarse grid."""
        return (self.right - self.left) / (self.points - 1)

    @property
    def coarse(self) -> Float[np.ndarray, "points"]:
        """Points over which the KL is summed."""
        return np.linspace(self.left, self.right, self.points)

    @property
    def fine(self) -> Float[np.ndarray, "fine"]:
        """Points at which the score is evaluated."""
        return np.linspace(self.left, self.right, (self.points - 1) * self.refine + 1)


def mass_outside(grid: Grid, target: Any) -> float:
    """The part of a target's mass that the trapezoidal rule on the fine grid misses: outside its ends, or between too
    few points.
    """
    return abs(1 - _masses(grid, target)[0])


def _masses(grid: Grid, target: Any) -> tuple[float, float]:
    """A target's mass by the trapezoids of the fine grid, and by those of the coarse one, over which the KL is
    summed.
    """
    fine = jnp.asarray(grid.fine, jnp.result_type(float))
    density = np.exp(np.asarray(_log_densities(target, fine), np.float64))
    return float(np.trapezoid(density, grid.fine)), float(np.trapezoid(density[:: grid.refine], grid.coarse))


def target_log_density(target: Any, grid: Grid) -> Float[np.ndarray, " points"]:
    """Log density of a target on the line, with ``log_density(x, sigma)``, at the coarse points of ``grid``.

    Raises:
        InputError: a grid that leaves more than 1e-3 of the target's mass outside, or whose coarse sum is off by as
            much.
    """
    found, coarse = _masses(grid, target)
    given, limit = (grid.left, grid.right, grid.points), f"at most {MAX_OUTSIDE:g} may be"
    outside, off = abs(1 - found), abs(coarse - found)
    allowed = f"wide and fine enough for the target: {outside:.3g} of its mass is outside, {limit}"
    require(outside <= MAX_OUTSIDE, "grid", given, allowed)
    require(
        off <= MAX_OUTSIDE, "grid", given, f"of points enough for the target: their sum is off by {off:.3g}, {limit}"
    )
    points = jnp.asarray(grid.coarse, jnp.result_type(float))
    return np.asarray(_log_densities(target, points))


@jax.jit
def _log_densities(target: Any, points: Array) -> Array:
    return jax.vmap(lambda x: target.log_density(x, 0.0))(points[:, None])


def score_log_density(score: Score, t: Scalar, fine: Num[ArrayLike, " f"], refine: int = 1) -> Float[Array, " points"]:
    """``log q`` at every ``refine``-th of the points ``fine``, q the distribution with density proportional to ``exp
    int score(x, t) dx``.

    The integral is by trapezoids. Normalised so that ``sum q = 1`` over the points kept.
    """
    fine = as_jax_floats("fine", fine)
    slopes = jax.vmap(lambda x: score(x, t))(fine[:, None])[:, 0]
    steps = (slopes[1:] + slopes[:-1]) * (fine[1:] - fine[:-1]) / 2
    integral = jnp.concatenate([jnp.zeros(1, steps.dtype), jnp.cumsum(steps)])[::refine]
    return jax.nn.log_softmax(integral)


def grid_kl(log_p: Num[ArrayLike, " points"], log_q: Num[ArrayLike, " points"], step: Scalar) -> Float[Array, ""]:
    """``sum_i p_i log(p_i / q_i)`` with ``p_i`` the target's density times ``step``, q normalised over the grid.

    Args:
        log_p: log density of the target at the points; -inf adds nothing.
        log_q: as ``score_log_density`` gives it.
        step: distance between points of the grid.

    Raises:
        InputError: densities at different numbers of points, or a step (not a traced one) that is not positive.
    """
    require(np.shape(log_p) == np.shape(log_q), "log_p.shape", np.shape(log_p), f"that of log_q, {np.shape(log_q)}")
    require(
        isinstance(step, jax.core.Tracer) or 0 < float(np.asarray(step)) < np.inf, "step", step, "positive and finite"
    )
    log_q = as_jax_floats("log_q", log_q)
    log_p = as_jax_floats("log_p", log_p).astype(log_q.dtype) + jnp.log(jnp.asarray(step, log_q.dtype))
    present = log_p > -jnp.inf
    safe = jnp.where(present, log_p, jnp.zeros_like(log_p))
    return jnp.sum(jnp.where(present, jnp.exp(safe) * (safe - log_q), jnp.zeros_like(log_q)))


def score_kl(score: Score, sde: LinearSDE, target: Any, *, t_eps: float = 0.065, grid: Grid | None = None) -> float:
    """``KL(p_0 || q)`` with q from the score at ``t_eps``, on the line: the paper's protocol.

    Args:
        score: ``score(x, t)`` for x of shape (1,).
        sde: the process.
        target: p_0, with ``log_density(x, sigma)``.
        t_eps: the time; 0.065 is the paper's, with standard deviation 0.284 under ``VESDE(25)``.
        grid: 51 points from -10 to 10 by default.

    Raises:
        InputError: ``t_eps`` outside (0, T); a grid that does not cover the target.
    """
    grid = grid or Grid()
    sde.check_time("t_eps", t_eps)
    log_p = target_log_density(target, grid)
    log_q = _score_log_density(
        as_pytree(score, "score"), t_eps, jnp.asarray(grid.fine, jnp.result_type(float)), grid.refine
    )
    return float(grid_kl(log_p, log_q, grid.step))


_score_log_density = jax.jit(score_log_density, static_argnames="refine")


@short_repr
@jax.tree_util.register_static
@dataclass(frozen=True)
class KLMeasure:
    """``measure(score, aux)`` for ``dgu.training.train_dynamics``: the KL on the grid and ``log q``, of each run's own
    target.

    Runs share the number of points; ends, time and target are each run's own, in ``aux`` (see ``KLMeasure.aux``).

    Attributes:
        refine: steps of the fine grid in one of the coarse.
    """

    refine: int = 8

    def aux(self, sde: LinearSDE, target: Any, t_eps: float, grid: Grid) -> dict[str, np.ndarray]:
        """The auxiliary arrays that the measurement of one run needs: stack them over runs.

        Raises:
            InputError: ``t_eps`` outside (0, T); a grid that does not cover the target or is refined otherwise.
        """
        sde.check_time("t_eps", t_eps)
        require(grid.refine == self.refine, "grid.refine", grid.refine, f"{self.refine}, as of the measure")
        log_p = target_log_density(target, grid)
        found = {"log_p": log_p, "t_eps": t_eps, "fine": grid.fine, "step": grid.step}
        return {name: np.asarray(value, np.float32) for name, value in found.items()}

    def __call__(self, score: Score, aux: dict[str, Any]) -> dict[str, Array]:
        """``kl``, and ``log_q`` at the coarse points."""
        log_q = score_log_density(score, aux["t_eps"], jnp.asarray(aux["fine"]), self.refine)
        return {"kl": grid_kl(aux["log_p"], log_q, aux["step"]), "log_q": log_q}


def flow_kl(
    score: Score,
    sde: LinearSDE,
    examples: Num[ArrayLike, "n d"],
    log_p: Num[ArrayLike, " n"],
    *,
    t_eps: float = 0.065,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> Estimate:
    """``mean log p - log q`` over fresh examples of p, q the density under the probability-flow ODE, with its interval.

    q is taken at ``t_eps``, in the coordinates ``x / r``, from the prior ``N(0, sigma(T)^2 I)`` at T. For an exact
    score the result is the divergence of the prior from ``p_T``, which no training can reduce: where it exceeds .01
    nats on the distribution of the examples (``dgu.samplers.prior_mismatch`` of their ``EmpiricalDenoiser``), a
    ``dgu.errors.PriorMismatchWarning`` gives its size. Under the default ``VESDE``, whose prior has the standard
    deviation 9.85, it is .0025 nats for two modes of unit variance at +-3, .63 at +-15 and 3.95 at +-30, about
    ``(r - log(1 + r)) / 2`` for each entry of centred data, r its variance over that of the prior. A process with a
    wider prior (``VESDE(100)``: 33) has a smaller one, for scores that are of this process.

    Args:
        score: ``score(x, t)``.
        sde: the process.
        examples: independent draws of p that the score was not trained on.
        log_p: their log densities under p.
        t_eps: the time whose distribution q is.
        rtol, atol: tolerances of the ODE solver.

    Raises:
        InputError: ``t_eps`` outside (0, T), fewer than 2 examples, log densities that do not fit or are not finite.
        FloatingPointError: an example whose density could not be found.
    """
    sde.check_time("t_eps", t_eps)
    x, truth = as_jax_floats("examples", examples), as_doubles("log_p", log_p)
    require(x.ndim == 2 and len(x) >= 2, "examples.shape", x.shape, "(n, d), n at least 2")
    require(truth.shape == (len(x),), "log_p.shape", truth.shape, f"({len(x)},), one for each example")
    require(bool(np.isfinite(truth).all()), "log_p", "non-finite", "finite")
    low, high = float(sde.sigma(t_eps)), float(sde.sigma(sde.t_max))
    nats = np.asarray(_flow_log_density(as_pytree(as_denoiser(score, sde)), x, low, high, rtol, atol), np.float64)
    if not np.isfinite(nats).all():
        raise FloatingPointError(f"the log density of example {int(np.argmin(np.isfinite(nats)))} could not be found")
    warn_of_mismatch(prior_mismatch(EmpiricalDenoiser(x), x.shape[1:], high), high, "flow_kl")
    return _mean(truth - nats)


@jax.jit
def _flow_log_density(denoiser: Any, x: Array, low: Any, high: Any, rtol: Any, atol: Any) -> Array:
    options = {"sigma_min": low, "sigma_max": high, "rtol": rtol, "atol": atol}
    return jax.vmap(lambda one: log_likelihood(denoiser, one, **options)[0])(x)


def prior_kl(target: Any, sde: LinearSDE, examples: Num[ArrayLike, "n d"], key: Key) -> float:
    """``KL(p_T || N(0, std(T)^2 I))`` in nats, from examples of a target whose noisy density is known.

    It is the mean of ``log p_T - log N`` over the examples noised to T: what ``flow_kl`` finds for the exact score, as
    the flow carries ``p_eps`` to ``p_T``, and what no training makes smaller.

    Args:
        target: p_0, with ``log_density(x, sigma)``.
        sde: the process.
        examples: independent draws of p_0.
        key: of the noise.

    Raises:
        InputError: no examples, or examples that are not finite.
    """
    key = threefry(key)
    (rows,) = checked_rows(examples=examples)
    x = jnp.asarray(rows)
    end, std = sde.t_max, sde.std(sde.t_max)
    far = sde.perturb(x, end, jax.random.normal(key, x.shape))
    log_prior = np.sum(-0.5 * np.square(far / std) - np.log(std * np.sqrt(2 * np.pi)), axis=1)
    return float(np.mean(log_densities(ScoreOfDensity(target, sde), far, end) - log_prior))


def knn_kl(p: Num[ArrayLike, "n d"], q: Num[ArrayLike, "m e"], *, k: int = 5, blocks: int = 10) -> Estimate:
    """``KL(p || q)`` from samples: ``d / n sum_i log(nu_k(i) / rho_k(i)) + log(m / (n - 1))``.

    ``rho_k(i)`` is the distance of the i-th sample of p to its k-th neighbour among the others of p, ``nu_k(i)`` to its
    k-th among those of q (Wang, Kulkarni and Verdu, IEEE Trans. Inf. Theory 55, 2009, equation 14). Biased towards 0
    where the two are far apart, by a few per cent of the divergence at best. The standard error is that of the mean
    over ``blocks`` disjoint parts of both samples, each estimated by itself; the value is that of all samples.

    Raises:
        InputError: widths that differ, ``k`` not from 1 to the rows of a block minus 1, fewer than 2 blocks, repeated
            rows.
    """
    p, q = as_doubles("p", p), as_doubles("q", q)
    require(p.ndim == 2 and q.ndim == 2 and p.shape[1] == q.shape[1], "widths", (p.shape, q.shape), "(n, d) and (m, d)")
    require(bool(np.isfinite(p).all() and np.isfinite(q).all()), "samples", "non-finite", "finite")
    check_squares(np.float64, p=p, q=q)
    require_whole("blocks", blocks, 2)
    smallest = min(len(p), len(q)) // blocks
    require(k == int(k) and 1 <= k < smallest, "k", k, f"from 1 to {smallest - 1}, the rows of a block minus 1")
    value = _knn(p, q, k)
    parts = [_knn(p[number::blocks], q[number::blocks], k) for number in range(blocks)]
    error = float(np.std(parts, ddof=1) / np.sqrt(blocks))
    return normal_estimate(value, error)


def _knn(p: np.ndarray, q: np.ndarray, k: int) -> float:
    rho = scipy.spatial.cKDTree(p).query(p, k + 1)[0][:, -1]
    nu = scipy.spatial.cKDTree(q).query(p, [k])[0][:, 0]
    require(bool((rho > 0).all() and (nu > 0).all()), "samples", f"more than {k} equal rows", "draws of densities")
    return float(p.shape[1] * np.mean(np.log(nu / rho)) + np.log(len(q) / (len(p) - 1)))


def _mean(values: np.ndarray) -> Estimate:
    value, error = float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
    return normal_estimate(value, error)


@short_repr
@dataclass(frozen=True)
class Modes:
    """The two modes of a density on a grid, one each side of 0, as arrays of the leading shape of ``log_q``.

    Attributes:
        weight: mass right of 0 (half of the mass at 0).
        left, right: positions of the largest density on each side; the paper finds that these are learned and the
            weight is not.
    """

    weight: np.ndarray
    left: np.ndarray
    right: np.ndarray


def mode_summary(log_q: Num[ArrayLike, "*runs points"], grid: Grid) -> Modes:
    """Mass and positions of the two modes. Positions are refined by the parabola through the logarithms of three
    points.
    """
    log_q, x = as_doubles("log_q", log_q), grid.coarse
    side = np.where(x > 0, 1.0, np.where(x < 0, 0.0, 0.5))
    weight = np.asarray(np.exp(log_q) @ side)

    def peak(inside: np.ndarray) -> np.ndarray:
        at = np.clip(np.argmax(np.where(inside, log_q, -np.inf), axis=-1), 1, len(x) - 2)[..., None]
        low, middle, high = (np.take_along_axis(log_q, at + shift, axis=-1)[..., 0] for shift in (-1, 0, 1))
        bend = low - 2 * middle + high
        shift = np.where(bend < 0, (low - high) / np.where(bend < 0, 2 * bend, 1.0), 0.0)
        return np.asarray(x[at[..., 0]] + grid.step * np.clip(shift, -1, 1))

    return Modes(weight, peak(x < 0), peak(x > 0))
