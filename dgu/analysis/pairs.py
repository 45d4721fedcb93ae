"""Pairs of trajectories with the same noise in every step: how far apart the sampler carries two starts."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Float, Int

from dgu import keys
from dgu.analysis.contraction import batches
from dgu.denoisers import as_pytree
from dgu.errors import require
from dgu.samplers.heun import heun_step
from dgu.samplers.schedules import Churn, check_churn, check_sigmas
from dgu.typing import Denoiser, Key, PyTree, Scalar


@dataclass(frozen=True, eq=False)
class PairDistances:
    """Distances of pairs of trajectories with the same noise in every step, ``(n, steps + 1)``, the starts' first."""

    distances: np.ndarray

    @property
    def ratios(self) -> Float[np.ndarray, "n steps"]:
        """``|R_i x - R_i y| / |x - y|`` of each pair and step: a lower bound on the step's Lipschitz constant."""
        return self.distances[:, 1:] / self.distances[:, :-1]

    @property
    def end_to_end(self) -> Float[np.ndarray, "n"]:
        """``|x_N - y_N| / |x_0 - y_0|``."""
        return self.distances[:, -1] / self.distances[:, 0]


def pair_distances(
    denoiser: Denoiser,
    key: Key,
    indices: Sequence[int],
    sigmas: Float[np.ndarray, "levels"],
    *,
    shape: Sequence[int],
    labels: Sequence[int] | ArrayLike | None = None,
    churn: Churn = Churn(),  # noqa: B008 - frozen
    nearness: float | int = 1.0,
    batch_size: int = 64,
    dtype: DTypeLike = jnp.float32,
) -> PairDistances:
    """Distances along pairs of trajectories that differ in their starts alone.

    The first of pair i is sample i of ``sample``. The second starts from ``sqrt(1 - s^2) z + s z'``, s the ``nearness``,
    z the first's unit noise and z' independent: a standard normal too, so that both follow the sampler's own law.

    Args:
        denoiser, key, indices, sigmas, shape, labels, churn, batch_size, dtype: as of ``dgu.samplers.sample``.
        nearness: s, above 0 and at most 1: 1 for independent starts, small for the local expansion along a random line.

    Raises:
        InputError: a nearness, grid or churn value out of range.
    """
    require(0 < nearness <= 1, "nearness", nearness, "above 0 and at most 1")
    check_sigmas(sigmas)
    check_churn(churn)
    levels = np.asarray(sigmas, dtype)
    num_steps = len(levels) - 1
    gammas = np.asarray(churn.gamma(levels[:-1], num_steps))
    wanted, given = np.asarray(indices, np.int32), None if labels is None else np.asarray(labels)
    denoiser = as_pytree(denoiser)
    distances = np.empty((len(wanted), num_steps + 1))
    for rows, count in batches(np.arange(len(wanted)), batch_size):
        numbers, own = jnp.asarray(wanted[rows]), None if given is None else jnp.asarray(given[rows])
        partner = keys.stream(key, "partner")
        pair = _start_pair(key, partner, numbers, levels[0], jnp.asarray(nearness, dtype), shape=tuple(shape))
        seen = [pair[1]]
        for step in range(num_steps):
            at = (np.int32(step), levels[step], levels[step + 1], gammas[step], np.asarray(churn.s_noise, dtype))
            pair = _step_pair(denoiser, pair[0], key, numbers, own, at, second_order=step < num_steps - 1)
            seen.append(pair[1])
        distances[rows[:count]] = np.stack([np.asarray(one) for one in seen], axis=1)[:count]
    return PairDistances(distances)


def _apart(pair: Float[Array, "b two *event"]) -> Float[Array, "b"]:
    return jnp.linalg.norm((pair[:, 1] - pair[:, 0]).reshape(len(pair), -1), axis=1)


@functools.partial(jax.jit, static_argnames="shape")
def _start_pair(
    key: Key,
    partner: Key,
    indices: Int[Array, "b"],
    sigma: Scalar,
    nearness: Float[Array, ""],
    *,
    shape: tuple[int, ...],
) -> tuple[Array, Array]:
    def one(index: Int[Array, ""]) -> Array:
        first, second = (keys.initial_noise(source, index, shape, nearness.dtype) for source in (key, partner))
        return jnp.asarray(sigma) * jnp.stack([first, jnp.sqrt(1 - nearness**2) * first + nearness * second])

    pair = jax.vmap(one)(indices)
    return pair, _apart(pair)


@functools.partial(jax.jit, static_argnames="second_order")
def _step_pair(
    denoiser: Any,
    pair: Float[Array, "b two *event"],
    key: Key,
    indices: Int[Array, "b"],
    labels: PyTree,
    at: tuple,
    *,
    second_order: bool,
) -> tuple[Array, Array]:
    step, sigma, sigma_next, gamma, s_noise = at

    def one(states: Float[Array, "two *event"], index: Int[Array, ""], label: PyTree) -> Array:
        conditioned = denoiser if label is None else denoiser.given(label)
        eps = keys.step_noise(key, index, step, states.shape[1:], states.dtype)
        options = {"eps": eps, "gamma": gamma, "s_noise": s_noise, "second_order": second_order}
        return jax.vmap(lambda x: heun_step(conditioned, x, sigma, sigma_next, **options))(states)

    moved = jax.vmap(one)(pair, indices, labels)
    return moved, _apart(moved)
