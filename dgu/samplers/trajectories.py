"""Trajectories of the sampler, state by state: one compiled program takes every step, with churn and without.

The analyses of steps (Jacobians, pairs of trajectories) need the states themselves, which ``dgu.samplers.sample``
rightly does not keep, and the step as a function; here both are, for a few trajectories at a time.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Float, Int, Num

from dgu.core import keys
from dgu.core.arrays import as_indices
from dgu.core.brief import short_repr
from dgu.core.chunks import check_chunk
from dgu.core.denoisers import as_pytree, denoise
from dgu.core.labels import checked_labels
from dgu.core.typing import Denoiser, Event, Key, PyTree
from dgu.distributions.bases import Base, initial_noise
from dgu.samplers.gaussian_path import churn_levels
from dgu.samplers.schedules import Churn


@short_repr
@dataclass(frozen=True, eq=False)
class Trajectories:
    """States that samples of the Heun sampler pass through. Make it with ``trace_trajectories``.

    Attributes:
        x_hat: state of each step after its noise is added, ``(n, steps, *event)``.
        sigma_hat, sigma_next: levels that each step leads from and to, ``(steps,)``.
        added: standard deviation c of the noise that each step adds, ``(steps,)``.
        sigma_start: the level of the start.
        labels: one for each sample, or None.
        samples: the samples, ``(n, *event)``.
    """

    x_hat: np.ndarray
    sigma_hat: np.ndarray
    sigma_next: np.ndarray
    added: np.ndarray
    sigma_start: float
    labels: np.ndarray | None
    samples: np.ndarray

    def first(self, count: int) -> "Trajectories":
        """The first ``count`` of the trajectories."""
        labels = None if self.labels is None else self.labels[:count]
        return replace(self, x_hat=self.x_hat[:count], labels=labels, samples=self.samples[:count])


def trace_trajectories(
    denoiser: Denoiser,
    key: Key,
    indices: Sequence[int],
    sigmas: Num[np.ndarray, " levels"],
    *,
    shape: Sequence[int],
    labels: Sequence[int] | ArrayLike | None = None,
    churn: Churn = Churn(),  # noqa: B008 - frozen
    base: Base = "gaussian",
    batch_size: int = 64,
    dtype: DTypeLike = jnp.float32,
) -> Trajectories:
    """The states of samples number ``indices``: those of ``dgu.samplers.sample`` with its Heun solver, to rounding.

    All states are kept, so ask for few. One compiled program takes every step, with churn and without.

    Args:
        denoiser, key, indices, sigmas, shape, labels, churn, base, batch_size, dtype: as of ``sample``.

    Raises:
        InputError: a grid, churn value, index, label or batch size out of range.
        FloatingPointError: a state that is not finite, naming its index and the step.
    """
    key = keys.threefry(key)
    sigma_hat, added = churn_levels(np.asarray(sigmas), churn)
    levels, num_steps = np.asarray(sigmas, np.float64), len(sigmas) - 1
    wanted = as_indices("indices", indices)
    given = checked_labels(denoiser, labels, len(wanted))
    x_hat = np.empty((len(wanted), num_steps, *shape), dtype)
    samples = np.empty((len(wanted), *shape), dtype)
    denoiser = as_pytree(denoiser)
    for rows, count in batches(np.arange(len(wanted)), batch_size, tuple(shape)):
        numbers, own = wanted[rows], None if given is None else given[rows]
        x = draw_starts(key, numbers, np.asarray(levels[0], dtype), shape=tuple(shape), base=base)
        for step in range(num_steps):
            at = step_at(step, sigma_hat, levels, added, dtype)
            before, x = advance(denoiser, x, key, numbers, own, at)
            x_hat[rows[:count], step] = np.asarray(before)[:count]
            broken = ~np.isfinite(np.asarray(x)[:count]).reshape(count, -1).all(axis=1)
            if broken.any():
                raise FloatingPointError(f"sample {wanted[rows[:count]][broken][0]} is not finite after step {step}")
        samples[rows[:count]] = np.asarray(x)[:count]
    return Trajectories(x_hat, sigma_hat, levels[1:], added, float(levels[0]), given, samples)


def step_at(
    step: int, sigma_hat: np.ndarray, levels: np.ndarray, added: np.ndarray, dtype: DTypeLike
) -> tuple[np.ndarray, ...]:
    """What ``advance`` needs of a step: its number, the two levels, the noise added, and 1 for Heun's rule (0:
    Euler's).
    """
    second_order = step < len(added) - 1
    values = (np.asarray(value, dtype) for value in (sigma_hat[step], levels[step + 1], added[step], second_order))
    return np.asarray(step, np.int32), *values


def step_function(
    denoiser: Any, label: PyTree, sigma: Array, sigma_next: Array, heun: Array
) -> Callable[[Event], Event]:
    """``heun_step`` with the order as a number, so that one program serves all steps: 1, or 0 for the Euler step."""
    conditioned = denoiser if label is None else denoiser.given(label)

    def slope(x: Event, level: Array) -> Event:
        return (x - denoise(conditioned, x, level)) / level

    def move(x: Event) -> Event:
        first = slope(x, sigma)
        # To noise 0 the second slope would be divided by 0; any other level serves, as it counts for nothing.
        second = slope(x + (sigma_next - sigma) * first, jnp.where(heun > 0, sigma_next, sigma))
        return x + (sigma_next - sigma) * (first + heun * (second - first) / 2)

    return move


@functools.partial(jax.jit, static_argnames=("shape", "base"))
def draw_starts(
    key: Key, indices: Int[Array, " b"], sigma: Float[ArrayLike, ""], *, shape: tuple[int, ...], base: Base
) -> Float[Array, " b *event"]:
    """The starts of samples number ``indices``, ``sigma`` times their addressed noise."""
    key = keys.threefry(key)
    level = jnp.asarray(sigma)
    return level * jax.vmap(lambda index: initial_noise(key, index, shape, level.dtype, base))(indices)


@jax.jit
def advance(
    denoiser: Denoiser,
    x: Float[Array, " b *event"],
    key: Key,
    indices: Int[Array, " b"],
    labels: PyTree,
    at: tuple[Any, ...],
) -> tuple[Float[Array, " b *event"], Float[Array, " b *event"]]:
    """One step of the sampler from each row, with the addressed noise of ``indices``: ``(x_hat, x_next)``."""
    key = keys.threefry(key)
    step, sigma_hat, sigma_next, added, heun = at

    def one(x: Event, index: Int[Array, ""], label: PyTree) -> tuple[Event, Event]:
        x_hat = x + added * keys.step_noise(key, index, step, x.shape, x.dtype)
        return x_hat, step_function(denoiser, label, sigma_hat, sigma_next, heun)(x_hat)

    return jax.vmap(one)(x, indices, labels)


def batches(rows: np.ndarray, batch_size: int, shape: tuple[int, ...]) -> list[tuple[np.ndarray, int]]:
    """Rows in groups of one size, the last filled up by its own first row, and how many of each count."""
    check_chunk("batch_size", batch_size, shape)
    groups = [rows[at : at + batch_size] for at in range(0, len(rows), batch_size)]
    return [(np.pad(group, (0, batch_size - len(group)), mode="edge"), len(group)) for group in groups]
