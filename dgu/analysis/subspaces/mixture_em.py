"""Mixtures of low-rank Gaussians fitted to unlabelled data: EM for probabilistic PCA with one noise for all components.

The noise off the subspaces is common, as in the data model of MoLRG, so that no component can collapse onto a few
points: the likelihood is bounded wherever the pooled rest is not 0. Tipping and Bishop, "Mixtures of probabilistic
    principal component analysers", Neural Computation 1999, have a noise variance for each component.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Integer, Num

from dgu.analysis.subspaces.clustering import k_subspaces, normalised
from dgu.analysis.subspaces.kmeans import lloyd
from dgu.core import linalg
from dgu.core.arrays import as_floats, as_jax_floats, check_squares
from dgu.core.brief import short_repr
from dgu.core.errors import require
from dgu.core.keys import threefry
from dgu.core.typing import Key
from dgu.models.mixtures import MoLRGDenoiser
from dgu.models.molrg import MoLRG

_HIGHEST = jax.lax.Precision.HIGHEST


class EMRun(NamedTuple):
    """The result of one run of EM; a pytree.

    Attributes:
        mixture: the last parameters, as a denoiser of rows.
        likelihood: ``(iterations + 1,)`` mean log density in nats per example, before each update and after the last;
            the last value repeated once it has stopped.
        reseeded: ``(iterations,)`` number of components that each update re-seeded because they had lost their
            examples.
        steps: updates made.
        converged: whether the likelihood stopped rising before the updates ran out.
    """

    mixture: MoLRGDenoiser
    likelihood: Array
    reseeded: Array
    steps: Array
    converged: Array


@short_repr
@dataclass(frozen=True)
class MixtureFit:
    """A fitted mixture, and the course of the fit.

    Attributes:
        law: the mixture, with the noise off its subspaces.
        responsibilities: ``(n, K)`` posterior probability of each component for each example.
        likelihood: mean log density of the best run, in nats per example: initially and after each update; with a
            criterion, since the ranks last changed. It decreases only where an emptied component was re-seeded.
        reseeded: components re-seeded by each update, one shorter than ``likelihood``.
        bic: ``p log n - 2 n likelihood``, p the number of free parameters; smaller is better.
        restarts: (restarts,) final likelihood of every run.
        converged: whether the best run converged.
    """

    law: MoLRG
    responsibilities: np.ndarray
    likelihood: np.ndarray
    reseeded: np.ndarray
    bic: float
    restarts: np.ndarray
    converged: bool

    @property
    def labels(self) -> np.ndarray:
        """The likeliest component of each example, ``(n,)``."""
        return self.responsibilities.argmax(axis=1)


def fit_mixture(
    images: Num[ArrayLike, " n *event"],
    components: int,
    rank: int,
    key: Key,
    *,
    criterion: str | None = None,
    restarts: int = 8,
    iterations: int = 200,
    tolerance: float = 1e-6,
    noise_floor: float = 1e-3,
) -> MixtureFit:
    """Fit ``sum_k pi_k N(m_k, U_k diag(lam_k) U_k^T + noise_std^2 (I - U_k U_k^T))`` by EM; the best of several starts.

    Runs with even numbers start from k-means (k-means++ seeds), those with odd ones from K-subspaces of the centred
    examples (k-means++ seeds, too), for components that differ in direction rather than in mean. Each is made of whole
    updates until the likelihood rises by no more than ``tolerance`` of its size.

    Args:
        images: ``(n, *event)``.
        components: K.
        rank: of every component; with ``criterion="bic"`` the largest.
        key: key of the initialisations.
        criterion: None, or ``"bic"``: direction i of component k with variance lam is kept where its gain in log
            likelihood, ``N_k / 2 (u - log u - 1)`` with ``u = lam / noise_std^2``, is above ``(d - i + 1) / 2 log
            N_k``, half the logarithm of the count for each number that describes it (i = 1, 2, ...; at least one is
            kept). EM goes on with the ranks left until they stay.
        restarts: runs.
        iterations: most updates of a run.
        tolerance: see above; not below the rounding of the dtype.
        noise_floor: smallest ``noise_std``, as a part of the root mean square deviation of the data; it is met where
            the data lie on their subspaces.

    Raises:
        InputError: more components than examples, a rank that is not below the dimension or is above n - 1, data that
            are constant or not finite, an unknown criterion, other arguments out of range.
    """
    key = threefry(key)
    data = as_floats("images", images)
    require(data.ndim >= 2, "images.shape", data.shape, "(n, *event)")
    require(bool(np.isfinite(data).all()), "images", "values that are not finite", "finite")
    check_squares(images=data)
    rows = as_jax_floats("images", data.reshape(len(data), -1))
    n, d = rows.shape
    require(1 <= components <= n, "components", components, f"from 1 to the number of examples {n}")
    require(
        1 <= rank <= min(d - 1, n - 1), "rank", rank, f"from 1 to {min(d - 1, n - 1)}: {d} dimensions, {n} examples"
    )
    require(criterion in (None, "bic"), "criterion", criterion, "None or 'bic'")
    for name, value in (("restarts", restarts), ("iterations", iterations)):
        require(value >= 1, name, value, "1 or more")
    require(0 < noise_floor < 1, "noise_floor", noise_floor, "between 0 and 1")
    require(tolerance >= 0, "tolerance", tolerance, "0 or more")
    spread = float(np.sqrt(np.square(data.reshape(n, -1) - data.reshape(n, -1).mean(0)).mean()))
    require(spread > 0, "images", "constant", "examples that differ")
    limits = {"tolerance": tolerance, "noise_floor": noise_floor * spread}
    full = jnp.full(components, rank)
    shape = {"rank": rank, "iterations": iterations}
    keys = jax.random.split(key, restarts)
    starts = _starts(keys, rows, components, rank)
    runs = _runs(rows, starts, full, **limits, **shape)
    best = int(np.argmax(np.asarray(runs.likelihood)[:, -1]))
    run = jax.tree.map(lambda leaf: leaf[best], runs)
    traces, seeds = [_trace(run)], [np.asarray(run.reseeded)[: int(run.steps)]]
    ranks = np.full(components, rank)
    while criterion == "bic":
        kept = np.minimum(ranks, _kept(run.mixture, n, d))
        if (kept == ranks).all():
            break
        ranks = kept
        member = _responsibilities(run.mixture, rows)
        run = _single(rows, member, ranks, **limits, **shape)
        traces.append(_trace(run))
        seeds.append(np.asarray(run.reseeded)[: int(run.steps)])
    mixture, event = run.mixture, data.shape[1:]
    law = MoLRG(
        mixture.weights,
        mixture.means.reshape(components, *event),
        mixture.bases.reshape(components, *event, rank),
        mixture.variances,
        mixture.noise_std,
    )
    parameters = components - 1 + components * d + 1 + sum(d * r - r * (r - 1) // 2 for r in ranks.tolist())
    return MixtureFit(
        law=law,
        responsibilities=np.asarray(_responsibilities(mixture, rows)),
        likelihood=traces[-1],
        reseeded=seeds[-1],
        bic=float(parameters * np.log(n) - 2 * n * traces[-1][-1]),
        restarts=np.asarray(runs.likelihood)[:, -1],
        converged=bool(run.converged),
    )


def em_mixture(
    rows: Num[ArrayLike, "n d"],
    member: Num[ArrayLike, "n K"],
    ranks: Integer[Array, " K"],
    *,
    rank: int,
    iterations: int = 200,
    tolerance: Num[ArrayLike, ""] | float = 1e-6,
    noise_floor: Num[ArrayLike, ""] | float = 0.0,
) -> EMRun:
    """EM from the responsibilities ``member``; pure: ``jax.vmap`` it over problems of one shape.

    An update is exact, for the common noise too: with eigenvalues s of each component's covariance and a common
    variance v, ``lam = max(s, v)`` in the leading ``ranks[k]`` directions, and v solves ``sum_k pi_k sum_i (v - s_ki) =
    0`` over all other directions and over those leading ones that have ``s < v``. So the likelihood never falls, except
    where a component was left with less than one example: it is re-seeded on the examples nearest to the one that the
    mixture explains worst.

    Args:
        ranks: rank of each component, 1 to ``rank``, the number of columns held.
        noise_floor: smallest ``noise_std``.
    """
    rows, member = as_jax_floats("rows", rows), as_jax_floats("member", member)
    rounding = 10 * float(jnp.finfo(rows.dtype).eps)
    limit = jnp.maximum(jnp.asarray(tolerance, rows.dtype), rounding)
    floor = jnp.square(jnp.asarray(noise_floor, rows.dtype))

    def update(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        _, member, density, trace, seeds, step, _ = carry
        member, moved = _reseeded(rows, member, density)
        after = _maximised(rows, member, ranks, rank, floor)
        member, density = _expectation(after, rows)
        value = jnp.mean(density)
        rise = value - trace[step]
        done = (rise <= limit * (1 + jnp.abs(value))) & (moved == 0)
        # What is not reached keeps the last value.
        trace = jnp.where(jnp.arange(iterations + 1) > step, value, trace)
        return after, member, density, trace, seeds.at[step].set(moved), step + 1, done

    first = _maximised(rows, member, ranks, rank, floor)
    member, density = _expectation(first, rows)
    trace, seeds = jnp.full(iterations + 1, jnp.mean(density)), jnp.zeros(iterations, jnp.int32)
    carry = first, member, density, trace, seeds, jnp.zeros((), jnp.int32), jnp.asarray(False)
    carry = jax.lax.while_loop(lambda c: ~c[6] & (c[5] < iterations), update, carry)
    mixture, _, _, trace, seeds, steps, done = carry
    return EMRun(mixture, trace, seeds, steps, done)


def _expectation(mixture: MoLRGDenoiser, rows: Array) -> tuple[Array, Array]:
    """Responsibilities (n, K) and log densities (n,), by blocks of examples."""

    def one(x: Array) -> tuple[Array, Array]:
        return mixture.responsibilities(x, 0.0), mixture.log_density(x, 0.0)

    return jax.lax.map(one, rows, batch_size=min(1024, rows.shape[0]))


_responsibilities = jax.jit(lambda mixture, rows: _expectation(mixture, rows)[0])


def _maximised(rows: Array, member: Array, ranks: Array, rank: int, floor: Array) -> MoLRGDenoiser:
    """The parameters that fit best, given the responsibilities."""
    n, d = rows.shape
    counts = jnp.sum(member, axis=0)
    means = jnp.matmul(member.T, rows, precision=_HIGHEST) / jnp.maximum(counts, 1e-6)[:, None]

    def spectrum(given: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        share, mean, count = given
        centred = (rows - mean[None]) * jnp.sqrt(share)[:, None]
        turned = jax.lax.optimization_barrier(centred.T)  # XLA on CPUs is slow where it multiplies by a transpose.
        values, vectors = linalg.eigh(jnp.matmul(turned, centred, precision=_HIGHEST) / jnp.maximum(count, 1e-6))
        return jnp.maximum(values[::-1], 0), vectors[:, ::-1][:, :rank]

    values, bases = jax.lax.map(spectrum, (member.T, means, counts))
    own = jnp.arange(d)[None] < ranks[:, None]
    noise = jnp.maximum(_common_variance(values, own, counts / n), floor)
    kept = own[:, :rank]
    variances = jnp.where(kept, jnp.maximum(values[:, :rank], noise), 0)
    return MoLRGDenoiser(counts / n, means, bases, variances, jnp.sqrt(noise))


def _common_variance(values: Array, own: Array, weights: Array) -> Array:
    """The root v of ``sum_k w_k sum_i (v - s_ki)`` over directions that are not their component's own or have s < v.

    Newton's method from the right on a convex, piecewise linear function: it ends in the root after finitely many
    steps.
    """
    counted = jnp.broadcast_to(weights[:, None], values.shape)

    def step(_: Array, v: Array) -> Array:
        active = jnp.where(own & (values >= v), 0, counted)
        return jnp.sum(active * values) / jnp.sum(active)

    return jax.lax.fori_loop(0, 30, step, jnp.zeros((), values.dtype))


def _reseeded(rows: Array, member: Array, density: Array) -> tuple[Array, Array]:
    """Responsibilities in which the first component that lost its examples has some again, and whether there was
    one.
    """
    n, components = member.shape
    empty = jnp.sum(member, axis=0) < 1
    worst = rows[jnp.argmin(density)]
    order = jnp.argsort(jnp.sum(jnp.square(rows - worst[None]), axis=1))
    near = jnp.zeros(n, bool).at[order[: max(1, n // (2 * components))]].set(True)
    given = jnp.where(near[:, None], jax.nn.one_hot(jnp.argmax(empty), components, dtype=rows.dtype)[None], member)
    return jnp.where(jnp.any(empty), given, member), jnp.any(empty).astype(jnp.int32)


def starting_labels(
    key: Key, rows: Float[Array, "n d"], components: int, rank: int, of_means: bool
) -> Int[Array, " n"]:
    """Initial clusters for EM; pure.

    By k-means where ``of_means``; else by K-subspaces of the centred examples, which begins with each example going to
    the one of K examples, chosen as by k-means++ for lines through the mean, that it makes the smallest angle with.
    """
    key = threefry(key)
    everyone = jnp.ones(rows.shape[0], bool)
    if of_means:
        return lloyd(rows, components, key, restarts=1).labels
    units = normalised(rows - jnp.mean(rows, axis=0, keepdims=True))
    seeds = line_seeds(key, units, components)
    first = jnp.argmax(jnp.abs(jnp.matmul(units, seeds.T, precision=_HIGHEST)), axis=1)
    return k_subspaces(units, first, everyone, rank, clusters=components, width=rank).labels


def line_seeds(key: Key, units: Float[Array, "n d"], count: int) -> Float[Array, "count d"]:
    """Unit rows chosen one after the other with odds ``1 - max_j <z, z_j>^2``, the squared sine to those chosen;
    pure.
    """
    key = threefry(key)

    def choose(nearest: Array, step_key: Array) -> tuple[Array, Array]:
        odds = jnp.where(jnp.sum(nearest) > 0, nearest, jnp.ones_like(nearest))
        seed = units[jax.random.categorical(step_key, jnp.log(odds))]
        cosines = jnp.sum(units * seed[None], axis=1)
        return jnp.minimum(nearest, jnp.maximum(1 - jnp.square(cosines), 0)), seed

    return jax.lax.scan(choose, jnp.ones(units.shape[0], units.dtype), jax.random.split(key, count))[1]


@partial(jax.jit, static_argnames=("components", "rank"))
def _starts(keys: Array, rows: Array, components: int, rank: int) -> Array:
    """Responsibilities (restarts, n, K) of 0 and 1."""

    def one(given: tuple[Array, Array]) -> Array:
        number, key = given
        labels = jax.lax.cond(
            number % 2 == 0,
            lambda: starting_labels(key, rows, components, rank, True),
            lambda: starting_labels(key, rows, components, rank, False),
        )
        return jax.nn.one_hot(labels, components, dtype=rows.dtype)

    return jax.lax.map(one, (jnp.arange(keys.shape[0]), keys))


_SHAPE = ("rank", "iterations")


@partial(jax.jit, static_argnames=_SHAPE)
def _single(rows: Array, member: Array, ranks: Array, *, rank: int, iterations: int, **limits: Array) -> EMRun:
    return em_mixture(rows, member, ranks, rank=rank, iterations=iterations, **limits)


@partial(jax.jit, static_argnames=_SHAPE)
def _runs(rows: Array, starts: Array, ranks: Array, *, rank: int, iterations: int, **limits: Array) -> EMRun:
    return jax.lax.map(
        lambda member: em_mixture(rows, member, ranks, rank=rank, iterations=iterations, **limits), starts
    )


def _trace(run: EMRun) -> np.ndarray:
    return np.asarray(run.likelihood)[: int(run.steps) + 1]


def _kept(mixture: MoLRGDenoiser, n: int, d: int) -> np.ndarray:
    """The rank of each component by the criterion of ``fit_mixture``."""
    variances, std = np.asarray(mixture.variances, np.float64), float(mixture.noise_std)
    counts = np.maximum(np.asarray(mixture.weights, np.float64) * n, 2)[:, None]
    ratio = np.maximum(variances / std**2, 1)
    gain = counts / 2 * (ratio - np.log(ratio) - 1)
    cost = (d - np.arange(variances.shape[1])[None]) / 2 * np.log(counts)
    worth = (gain > cost) & (variances > 0)
    # Variances fall: the directions worth their numbers come first.
    return np.maximum(worth.sum(axis=1), 1)
