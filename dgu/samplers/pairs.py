"""Pairs of trajectories with the same noise in every step: how far apart two draws of initial noise are carried."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Float, Num

from dgu.core import keys
from dgu.core.brief import short_repr
from dgu.core.denoisers import as_pytree
from dgu.core.errors import require
from dgu.core.typing import Denoiser, Key
from dgu.samplers.gaussian_path import churn_levels
from dgu.samplers.schedules import Churn
from dgu.samplers.trajectories import advance, batches, draw_starts, step_at


@short_repr
@dataclass(frozen=True, eq=False)
class PairDistances:
    """Distances of pairs of trajectories with the same noise in every step, ``(n, steps + 1)``, the starts' first."""

    distances: np.ndarray

    @property
    def ratios(self) -> Float[np.ndarray, "n steps"]:
        """``|R_i x - R_i y| / |x - y|`` of each pair and step: a lower bound on the step's Lipschitz constant."""
        return self.distances[:, 1:] / self.distances[:, :-1]

    @property
    def end_to_end(self) -> Float[np.ndarray, " n"]:
        """``|x_N - y_N| / |x_0 - y_0|``."""
        return self.distances[:, -1] / self.distances[:, 0]


def pair_distances(
    denoiser: Denoiser,
    key: Key,
    indices: Sequence[int],
    sigmas: Num[np.ndarray, " levels"],
    *,
    shape: Sequence[int],
    labels: Sequence[int] | ArrayLike | None = None,
    churn: Churn = Churn(),  # noqa: B008 - frozen
    nearness: float | int = 1.0,
    batch_size: int = 64,
    dtype: DTypeLike = jnp.float32,
) -> PairDistances:
    """Distances along pairs of trajectories that differ in their starts alone.

    The first of pair i is sample i of ``sample``. The second starts from ``sqrt(1 - s^2) z + s z'``, s the
    ``nearness``, z the first's unit noise and z' independent: a standard normal too, so that both follow the sampler's
    own law.

    Args:
        denoiser, key, indices, sigmas, shape, labels, churn, batch_size, dtype: as of ``dgu.samplers.sample``.
        nearness: s, above 0 and at most 1: 1 for independent starts, small for the local expansion along a random line.

    Raises:
        InputError: a nearness, grid or churn value out of range.
    """
    key = keys.threefry(key)
    require(0 < nearness <= 1, "nearness", nearness, "above 0 and at most 1")
    sigma_hat, added = churn_levels(np.asarray(sigmas), churn)
    levels, num_steps = np.asarray(sigmas, np.float64), len(sigmas) - 1
    wanted, given = np.asarray(indices, np.int32), None if labels is None else np.asarray(labels)
    denoiser = as_pytree(denoiser)
    distances = np.empty((len(wanted), num_steps + 1))
    for rows, count in batches(np.arange(len(wanted)), batch_size, tuple(shape)):
        numbers, own = wanted[rows], None if given is None else given[rows]
        sources = (key, keys.stream(key, "partner"))
        first, other = (
            draw_starts(source, numbers, np.asarray(levels[0], dtype), shape=tuple(shape), base="gaussian")
            for source in sources
        )
        second = math.sqrt(1 - nearness**2) * first + float(nearness) * other
        distances[rows[:count], 0] = _apart(first, second)[:count]
        for step in range(num_steps):
            at = step_at(step, sigma_hat, levels, added, dtype)
            first, second = (advance(denoiser, x, key, numbers, own, at)[1] for x in (first, second))
            distances[rows[:count], step + 1] = _apart(first, second)[:count]
    return PairDistances(distances)


def _apart(first: Array, second: Array) -> Float[np.ndarray, " b"]:
    return np.linalg.norm((np.asarray(second) - np.asarray(first)).reshape(len(first), -1), axis=1)
