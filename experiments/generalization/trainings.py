"""Many small score networks trained at once, and the KL of each from its target through training."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dgu.analysis import Grid, KLMeasure
from dgu.core.keys import stream
from dgu.core.typing import Key
from dgu.samplers import VESDE
from dgu.training import Runs

#: Names of the optimisers in text, by their names in stages and metrics.
NAMES = {"sgd": "SGD", "adam": "Adam"}
SDE = VESDE()
MEASURE = KLMeasure()


@dataclass(frozen=True)
class Arm:
    """One target distribution, and how the KL of networks from it is measured.

    Attributes:
        target: has ``draw(key)`` and ``log_density(x, sigma)``.
        grid: points of the line at which the KL is summed.
        t: time at which the score is integrated.
    """

    target: Any
    grid: Grid
    t: float


def grid_for(mu: float, points: int) -> Grid:
    """The paper's grids, -10 to 10 for modes at +-3 and -30 to 30 at +-15, and those between."""
    half = 5 + 5 * mu / 3
    return Grid(-half, half, points)


def scaled_time(scale: float, t_eps: float) -> float:
    """The time whose noise is ``scale`` times that at ``t_eps``.

    Data shrunk by ``scale`` are then as noisy in proportion, and the floor of the KL is the same.
    """
    return float(SDE.time(scale * SDE.std(t_eps)))


@functools.partial(jax.jit, static_argnames="n")
def draw(target: Any, key: jax.Array, n: int) -> jax.Array:
    """(n, d) examples; row i depends on ``(key, i)`` alone, so that a smaller set is the beginning of a larger one."""
    return jax.vmap(lambda i: target.draw(jax.random.fold_in(key, i)))(jnp.arange(n))


@jax.jit
def log_density(target: Any, x: jax.Array, t: Any) -> jax.Array:
    """Log density of each row of ``x``, by the target's own method, at noise level or time ``t``."""
    return jax.vmap(lambda row: target.log_density(row, t))(x)


def make_runs(key: Key, arms: Sequence[Arm], *, seeds: int, n: int, units: Sequence[int], rate: float) -> Runs:
    """Arms x units x seeds, in this order; units and optimiser do not change the data of an arm and seed.

    Args:
        key: random key of the study that the runs belong to.
        arms: the targets.
        seeds: number of seeds.
        n: training examples of each run.
        units: numbers of hidden units.
        rate: learning rate of every run.
    """
    data, keys, counts, aux = [], [], [], []
    for place, arm in enumerate(arms):
        measured = MEASURE.aux(SDE, arm.target, arm.t, arm.grid)
        draws = [np.asarray(draw(arm.target, stream(key, "data", place, seed), n)) for seed in range(seeds)]
        for width in units:
            for seed in range(seeds):
                data.append(draws[seed])
                keys.append(stream(key, "train", place, seed))
                counts.append(width)
                aux.append(measured)
    stacked = {name: np.stack([one[name] for one in aux]) for name in aux[0]}
    rates = np.full(len(data), rate, np.float32)
    return Runs(np.stack(data), jnp.stack(keys), rates, np.asarray(counts, np.int32), stacked)
