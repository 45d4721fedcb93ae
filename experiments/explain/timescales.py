"""Two times of a random-feature network, without training it: when it generalises, and when it memorises."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import jax
import numpy as np
from jaxtyping import Float

from dgu import analysis, plots, training
from dgu.analysis.stats.resampling import geometric_mean
from dgu.core.keys import seed_of, stream
from dgu.core.typing import Key
from dgu.models import RandomFeatures
from dgu.samplers import VESDE
from experiments.study import Claim, Figure, Measured, NotTested, within
from experiments.study.progress import Progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

#: Ranges of the powers of the number of training points with which the two times grow.
GENERALISES, MEMORISES = (-0.25, 0.25), (0.75, 1.25)
#: Training times; points and noises of the population loss; noises of the empirical one.
_TAUS = np.geomspace(1.0, 1e9, 160)
_POPULATION, _FEW_NOISES, _NOISES = 2000, 16, 128
#: The noise level.
_SIGMA = 0.3

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
CLAIMS = (
    Claim(
        "learning-generalises",
        "The training time after which a random-feature network generalises does not depend on the number of its "
        f"training points ({_SET}).",
        within(*GENERALISES),
        note="Predicted in arXiv 2505.17638.",
    ),
    Claim(
        "learning-memorises",
        "The training time after which a random-feature network memorises grows in proportion to the number of its "
        f"training points ({_SET}).",
        within(*MEMORISES),
        note="Predicted in arXiv 2505.17638. The network memorises where its population loss has risen again by 10 % "
        "of its fall: a threshold of ours.",
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
        for draw in range(draws):
            own = stream(key, "timescales", draw)
            rng = np.random.default_rng(seed_of(own, "points"))
            of = partial(_loss, RandomFeatures.draw(own, width, dimension=dimension), rng)
            population = of(_POPULATION, _FEW_NOISES)
            for place, size in enumerate(sizes):
                times = analysis.two_timescales(of(size, _NOISES), population, _TAUS)
                found[:, draw, place] = times.generalisation, times.memorisation
                if draw == 0:
                    losses.append(times.population / float(population.constant))
            bar.update(1)
    return {"generalisation": found[0], "memorisation": found[1], "losses": np.stack(losses)}


def _loss(features: RandomFeatures, rng: np.random.Generator, points: int, noises: int) -> "training.QuadraticLoss":
    """The loss on standard Gaussian points, the same noises at each."""
    dimension = np.shape(features.inner)[1]
    rows, noise = rng.normal(size=(points, dimension)), rng.normal(size=(noises, dimension))
    return training.empirical_loss(features, VESDE(), rows, np.array([_SIGMA]), noise, np.full(noises, 1 / noises))


def powers(sizes: np.ndarray, times: Float[np.ndarray, "draws sizes"]) -> Float[np.ndarray, " draws"]:
    """The slope of ``log times`` against ``log sizes`` of each draw, by least squares."""
    return np.asarray(np.polyfit(np.log(sizes), np.log(times).T, 1)[0])


def claims_of(found: Times) -> dict[str, Measured]:
    """What was measured for each claim."""
    named = {"learning-generalises": found.generalisation, "learning-memorises": found.memorisation}
    return {
        name: analysis.t_interval(powers(found.sizes, times))
        if np.isfinite(times).all()
        else NotTested("some of the networks do not memorise within the training times")
        for name, times in named.items()
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
