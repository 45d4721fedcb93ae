"""Two times of a random-feature network, without training it: when it generalises, and when it memorises."""

from dataclasses import dataclass
from functools import partial, reduce
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from dgu import analysis, plots, training
from dgu.analysis.stats.resampling import geometric_mean
from dgu.core.keys import seed_of, stream
from dgu.core.typing import Key
from dgu.models import RandomFeatures
from dgu.samplers import VESDE
from experiments.study import Claim, Cost, Figure, Measured, NotTested, within
from experiments.study.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure as Drawing

#: Ranges of the powers of the number of training points with which the two times grow.
GENERALISES, MEMORISES = (-0.25, 0.25), (0.75, 1.25)
#: Training times.
_TAUS = np.geomspace(1.0, 1e9, 160)
#: Noises of each training point, of its own; chunks of the population loss, points of each, and noises of each chunk.
#: Noises that all points share would be memorised as points are.
_NOISES = 1024
_CHUNKS, _POINTS, _FEW_NOISES = 60, 100, 16
#: The noise level.
_SIGMA = 0.3
#: Operations of the decomposition of a symmetric matrix over the cube of its side, about.
_DECOMPOSED = 9

FIGURES = (
    Figure(
        "learning_timescales",
        "Random-feature networks of standard Gaussian points under gradient flow, solved eigenvalue by eigenvalue. "
        "Left: population loss over training time, as a share of the loss at the start, for each number of training "
        "points, of the first draw. Right: the time at which it has covered 90 % of the way to its least value, and "
        "the time at which it has risen again by 10 % of its fall, against the number of training points: geometric "
        "means over draws of features and points, with 95 % intervals.",
    ),
)
_SET = "value: the power of the number of training points by which the time grows, mean over draws"
_CHANGED = (
    "in the first default run, on 1 December 2026, the expectation over noise was over 128 noises that all training "
    "points shared, and over 16 of the population, which gave powers of 0.10 [0.06, 0.15] for generalisation and of "
    "1.16 [0.98, 1.35] for memorisation; the network memorised these noises, too, so that each training point has 1024 "
    "of its own since, and the population 960. Threshold and interval are those first declared."
)
CLAIMS = (
    Claim(
        "learning-generalises",
        "The training time after which a random-feature network generalises does not depend on the number of its "
        f"training points ({_SET}).",
        within(*GENERALISES),
        note="Predicted in arXiv 2505.17638.",
        changed=_CHANGED,
    ),
    Claim(
        "learning-memorises",
        "The training time after which a random-feature network memorises grows in proportion to the number of its "
        f"training points ({_SET}).",
        within(*MEMORISES),
        note="Predicted in arXiv 2505.17638. The network memorises where its population loss has risen again by 10 % "
        "of its fall: a threshold of ours, which was chosen after one draw had shown which of several grow with the "
        "number of points.",
        changed=_CHANGED,
    ),
)


@dataclass(frozen=True)
class Times:
    """What is measured.

    Attributes:
        sizes: numbers of training points.
        generalisation, memorisation: of each draw and size, (draws, sizes); infinite where it does not within the
            times.
        losses: population loss of the first draw over its start, (sizes, times).
    """

    sizes: np.ndarray
    generalisation: np.ndarray
    memorisation: np.ndarray
    losses: np.ndarray


def measure(dimension: int, width: int, sizes: tuple[int, ...], draws: int, key: Key) -> dict[str, np.ndarray]:
    """The two times of each draw and size, in float64, as arrays by name."""
    found, losses = np.empty((2, draws, len(sizes))), []
    with Progress("timescales", total=draws, unit="draws") as bar, jax.enable_x64(True):
        compiled = jax.jit(training.empirical_loss)
        for draw in range(draws):
            own = stream(key, "timescales", draw)
            of = partial(_loss, partial(compiled, RandomFeatures.draw(own, width, dimension=dimension)))
            rng = np.random.default_rng(seed_of(own, "population"))
            population = of(rng, rng.normal(size=(_CHUNKS, _POINTS, dimension)), _FEW_NOISES)
            for place, size in enumerate(sizes):
                rng = np.random.default_rng(seed_of(own, "points", size))
                empirical = of(rng, rng.normal(size=(size, 1, dimension)), _NOISES)
                times = analysis.two_timescales(empirical, population, _TAUS)
                found[:, draw, place] = times.generalisation, times.memorisation
                if draw == 0:
                    losses.append(times.population / float(population.constant))
            bar.update(1)
    return {"generalisation": found[0], "memorisation": found[1], "losses": np.stack(losses)}


def _loss(
    loss: "Callable[..., training.QuadraticLoss]",
    rng: np.random.Generator,
    chunks: Float[np.ndarray, "chunks points d"],
    noises: int,
) -> "training.QuadraticLoss":
    """The mean of the losses of chunks of points, each chunk with noises of its own."""
    sigma, weights = np.array([_SIGMA]), np.full(noises, 1 / noises)
    each = (loss(VESDE(), rows, sigma, rng.normal(size=(noises, rows.shape[1])), weights) for rows in chunks)
    return jax.tree.map(lambda total: total / len(chunks), reduce(partial(jax.tree.map, jnp.add), each))


def cost(dimension: int, width: int, sizes: tuple[int, ...], draws: int) -> Cost:
    """Gram matrices of all noisy points, and for each number of training points two decompositions of one and two
    paths, whose losses are computed.
    """
    noisy = _CHUNKS * _POINTS * _FEW_NOISES + _NOISES * sum(sizes)
    path = dimension * len(_TAUS)
    products = 2 * width**2 * (noisy + 6 * path * len(sizes))
    return Cost(
        "learning: random features",
        flop=draws * (products + 2 * len(sizes) * _DECOMPOSED * width**3),
        memory=8 * (3 * width**2 + 2 * _POINTS * _FEW_NOISES * (width + dimension)),
        host=8 * (5 * width**2 + 6 * path * width),
        about="Gram matrices of all features are decomposed in double precision.",
    )


def powers(sizes: np.ndarray, times: Float[np.ndarray, "draws sizes"]) -> Float[np.ndarray, " draws"]:
    """The slope of ``log times`` against ``log sizes`` of each draw, by least squares."""
    return np.asarray(np.polyfit(np.log(sizes), np.log(times).T, 1)[0])


def claims_of(found: Times) -> dict[str, Measured]:
    """What was measured for each claim."""
    named = {"generalise": found.generalisation, "memorise": found.memorisation}
    return {
        f"learning-{what}s": analysis.t_interval(powers(found.sizes, times))
        if np.isfinite(times).all()
        else NotTested(f"some of the networks do not {what} within the training times")
        for what, times in named.items()
    }


def drawn(found: Times) -> "Drawing":
    """Losses over training time, and the two times against the number of points."""
    curves = {f"{size} points": (_TAUS[::5], *[loss[::5]] * 3) for size, loss in zip(found.sizes, found.losses)}
    left = plots.SweepPanel("loss of the population", "training time", "share of its start", curves, log=True)
    times = {}
    for name, values in (("generalises", found.generalisation), ("memorises", found.memorisation)):
        here = np.isfinite(values).all(axis=0)
        if here.any():
            means = [geometric_mean(of_size) for of_size in values[:, here].T]
            times[name] = (found.sizes[here], *np.array([(one.value, one.low, one.high) for one in means]).T)
    right = plots.SweepPanel("two times", "training points", "training time", times, log=True)
    return plots.sweep_curves([left, right], columns=2)
