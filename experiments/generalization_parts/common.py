"""What the parts share: the process, runs of many targets and seeds, statistics over seeds."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from dgu.analysis import Grid, KLMeasure
from dgu.core.keys import seeded, stream
from dgu.models import ShallowNet
from dgu.samplers import VESDE
from dgu.training import Recipe, Runs, train_dynamics
from experiments.generalization_parts.config import Config
from experiments.study.judged import JudgedClaim
from experiments.study.progress import Progress

PAPER = "generalization"
#: Optimisers, by the names that options use.
NAMES = {"sgd": "SGD", "adam": "Adam"}
OPTIMIZERS = tuple(NAMES)
SDE = VESDE()
MEASURE = KLMeasure()
#: Where a diverged run counts when a median or a ratio must be finite, in nats.
WORST = 100.0
#: Fewer passes over the data than these are no training: what is said of trained networks is then not applicable.
LEAST_EPOCHS = 100
#: Points of which a rank correlation says something.
LEAST_RANKED = 4
#: What is known of a statistic when every seed has diverged: nothing.
UNKNOWN = (0.0, (-WORST, WORST))


def grid_for(mu: float, points: int, scale: float = 1.0) -> Grid:
    """The paper's grids, -10 to 10 for modes at +-3 and -30 to 30 at +-15, and those between; shrunk with the data."""
    half = (5 + 5 * mu / 3) * scale
    return Grid(-half, half, points)


def scaled_time(scale: float, t_eps: float) -> float:
    """The time whose noise is ``scale`` times that at ``t_eps``: data shrunk by it are as noisy, the KL's floor is the same."""
    return float(SDE.time(scale * SDE.std(t_eps)))


@functools.partial(jax.jit, static_argnames="n")
def draw(target: Any, key: jax.Array, n: int) -> jax.Array:
    """(n, d) examples; row i depends on ``(key, i)`` alone: a smaller set is the beginning of a larger one."""
    return jax.vmap(lambda i: target.draw(jax.random.fold_in(key, i)))(jnp.arange(n))


@jax.jit
def log_density(target: Any, x: jax.Array, t: Any) -> jax.Array:
    """Log density of each row of ``x``, by the target's own method, at noise level or time ``t``."""
    return jax.vmap(lambda row: target.log_density(row, t))(x)


def make_runs(
    config: Config,
    name: str,
    targets: Sequence[Any],
    grids: Sequence[Grid],
    times: Sequence[float],
    *,
    seeds: int,
    n: int,
    units: Sequence[int],
    rate: float,
) -> Runs:
    """Targets x units x seeds, in this order; the data of a target and seed are the same whatever the units and the optimiser."""
    data, keys, counts, aux = [], [], [], []
    for place, (target, grid, t) in enumerate(zip(targets, grids, times)):
        told = MEASURE.aux(SDE, target, t, grid)
        draws = []
        for seed in range(seeds):
            own = stream(seeded(config.seed), name, "data", place, seed)
            draws.append(np.asarray(draw(target, own, n)))
        for width in units:
            for seed in range(seeds):
                data.append(draws[seed])
                keys.append(stream(seeded(config.seed), name, "train", place, seed))
                counts.append(width)
                aux.append(told)
    stacked = {key: np.stack([one[key] for one in aux]) for key in aux[0]}
    rates = np.full(len(data), rate, np.float32)
    return Runs(np.stack(data), jnp.stack(keys), rates, np.asarray(counts, np.int32), stacked)


def train(
    config: Config, runs: Runs, *, name: str, optimizer: Any, epochs: int, every: int, width: int
) -> dict[str, np.ndarray]:
    """KL and ``log q`` over training of every run, and the step of each divergence, as arrays to store."""
    net = ShallowNet(width=width, divisor=config.divisor)
    recipe = Recipe(net, SDE, epochs=epochs, every=every, batch_size=config.batch_size, optimizer=optimizer)
    with Progress(name, total=len(runs.data), unit="runs") as bar:
        found = train_dynamics(
            runs, recipe, MEASURE, chunk_size=config.chunk_size, progress=lambda done, _: bar.update(done - bar.done)
        )
    return {
        "epochs": found.epochs,
        "kl": found.measured["kl"],
        "log_q": found.measured["log_q"].astype(np.float32),
        "first_nonfinite": found.first_nonfinite,
        "losses": found.losses,
        **{f"params.{name}": value for name, value in found.params.items()},
        **{f"frozen.{name}": value for name, value in found.frozen.items()},
    }


def finite(kl: np.ndarray) -> np.ndarray:
    """The KL with that of diverged runs at ``WORST``."""
    return np.where(np.isfinite(kl), np.minimum(kl, WORST), WORST)


def shown(level: np.ndarray) -> np.ndarray:
    """For figures: levels of diverged runs at infinity."""
    return np.where(level >= WORST, np.inf, level)


def window(epochs: np.ndarray, low: float, high: float) -> np.ndarray:
    """Which measurements lie from ``low`` to ``high`` epochs; the last one where none does."""
    inside = (epochs >= low) & (epochs <= high)
    return inside if inside.any() else epochs == epochs[-1]


def untrained(epochs: int) -> str:
    """Why nothing can be said of networks trained for so many epochs; empty where it can."""
    return f"{epochs} epochs train no network: {LEAST_EPOCHS} or more are needed" if epochs < LEAST_EPOCHS else ""


def unmeasured(epochs: np.ndarray, low: float, high: float) -> str:
    """Why nothing can be said of the time from ``low`` to ``high`` epochs; empty where all of it was trained, and measured."""
    if epochs[-1] < high:
        return f"training ended after {epochs[-1]:g} of {high:g} epochs"
    inside = ((epochs >= low) & (epochs <= high)).any()
    return "" if inside else f"nothing was measured from epoch {low:g} to {high:g}"


def few_ranked(points: Sequence[Any], what: str) -> str:
    """Why a rank correlation over these points says nothing; empty where it does."""
    few = len(points) < LEAST_RANKED
    return f"a rank correlation over {len(points)} {what} says little: {LEAST_RANKED} or more are needed" if few else ""


def bootstrap(
    statistic: Callable[..., Any], *samples: np.ndarray, draws: int = 2000
) -> tuple[float, tuple[float, float]]:
    """A statistic of samples over seeds and its percentile 95 % interval, each sample redrawn by itself.

    ``statistic`` takes samples with seeds on axis 0 and reduces that axis; all draws are given to it at once, as axis 1.
    ``UNKNOWN`` where a sample is empty.
    """
    if not all(len(sample) for sample in samples):
        return UNKNOWN
    rng = np.random.default_rng(0)
    value = float(statistic(*samples))
    found = statistic(*(sample[rng.integers(0, len(sample), (len(sample), draws))] for sample in samples))
    low, high = np.quantile(found, [0.025, 0.975])
    return value, (min(float(low), value), max(float(high), value))


def median(values: np.ndarray) -> Any:
    """Over seeds, on axis 0."""
    return np.median(values, axis=0)


def ratio_of_medians(above: np.ndarray, below: np.ndarray) -> Any:
    """Of two samples over seeds, on axis 0."""
    return median(above) / median(below)


def trend(x: Sequence[float], rows: np.ndarray) -> Any:
    """Spearman's correlation of x with the median over seeds (axis 0) of rows (R, ..., X); 0 where all medians are equal."""
    a, b = (stats.rankdata(values, axis=-1) - (len(x) + 1) / 2 for values in (np.asarray(x), median(rows)))
    norms = np.sqrt(np.sum(a**2) * np.sum(b**2, axis=-1))
    return np.where(norms > 0, np.sum(a * b, axis=-1) / np.where(norms > 0, norms, 1.0), 0.0)


def median_claim(values: np.ndarray, *, kind: str, **about: Any) -> JudgedClaim:
    """A claim about the median over seeds, of a ``kind`` that ``Claim`` has a constructor for."""
    value, interval = bootstrap(median, values)
    return getattr(JudgedClaim, kind)(value=value, interval=interval, paper=PAPER, **{"unit": "", **about})


def diverged_note(first: np.ndarray) -> str:
    """How many runs diverged, and when."""
    lost = first[first >= 0]
    if not len(lost):
        return ""
    return f"{len(lost)} of {first.size} runs diverged, at steps {', '.join(map(str, sorted(lost.tolist())[:8]))}"
