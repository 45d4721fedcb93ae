"""The order of learning: principal components of a network over its training, beside the linear theory; and when
random features generalise and memorise."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dgu import analysis, plots
from dgu.core.errors import require
from dgu.core.noisy import noisy_batch
from experiments.explain import timescales
from experiments.explain.forms import denoised
from experiments.explain.subject import Plan, Subject
from experiments.study import (
    Claim,
    Cost,
    Figure,
    Findings,
    Measured,
    NotTested,
    Options,
    Part,
    Run,
    Table,
    at_least,
    option,
)
from experiments.study.progress import Progress
from experiments.subjects import evaluation_cost

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

#: Least rank correlation of measured and predicted times; least change of a gain that has a time.
ORDER, CHANGE = 0.5, 0.2
#: Fewest components with a time; groups of images of the jackknife.
_FEWEST, _GROUPS = 8, 10

FIGURES = (
    Figure(
        "learning_order",
        "The second network over its training. Left: gains of some principal components at one noise level, the slope "
        "of the component of denoised on that of clean held-out images; right: the images seen when half of the change "
        "of a gain is done, against the variance of the component plus that of the noise, and the linear theory's "
        "times, which are inversely proportional to it, scaled to the same median.",
    ),
    *timescales.FIGURES,
)
CLAIMS = (
    Claim(
        "learning-order",
        "A network learns the principal components of its images in the order that the linear theory predicts, those "
        "of large variance first (value: Spearman's correlation over components of the images seen when half of the "
        "change of a gain is done and of the inverse of the component's variance plus that of the noise).",
        at_least(ORDER),
        note="Of gradient flow on a linear denoiser at one noise level (arXiv 2503.03206); the network is trained by "
        "Adam at all levels.",
        one_network=True,
    ),
    *timescales.CLAIMS,
)


@dataclass(frozen=True)
class Config(Options, prefix="learning"):
    """Gains of principal components over the training of the second network, and times of random features."""

    components: int = option(40, ge=8)
    """Leading principal components of the training images."""
    sigma: float = option(0.5, gt=0.0)
    """Noise level at which their gains are measured."""
    held_out: int = option(200, ge=20)
    """Held-out images that are noised and denoised."""
    dimension: int = option(12, ge=1, le=1024)
    """Dimension of the points that random features learn."""
    features: int = option(384, ge=2, le=8192)
    """Random features, whose Gram matrices are held and decomposed."""
    points: tuple[int, ...] = option((12, 24, 48, 96), ge=2)
    """Numbers of training points, rising."""
    draws: int = option(6, ge=2)
    """Draws of features and points."""

    def check(self) -> None:
        """Numbers of points rise."""
        rising = len(self.points) >= 2 and list(self.points) == sorted(set(self.points))
        require(rising, self.name("points"), self.points, "two or more, rising")


PRESETS = {
    "smoke": Config(components=8, held_out=20, dimension=4, features=64, points=(8, 16), draws=2),
    "default": Config(),
    "paper": Config(components=100, held_out=2000, dimension=48, features=1536, points=(48, 96, 192, 384)),
}


def check(config: Config, subject: Subject) -> None:
    """There are as many components and images."""
    subject.check()
    most = int(np.prod(subject.shape))
    require(config.components <= most, config.name("components"), config.components, f"at most {most}, the pixels")
    subject.inputs(config.name("held_out"), config.held_out)
    subject.in_turn(config.name("held_out"), config.held_out)


@dataclass(frozen=True)
class Found:
    """What the part measures.

    Attributes:
        seen: images seen at each checkpoint, in thousands.
        products: by checkpoint, image and component, the component of the denoised image times that of the clean one;
            ``squares`` the square of the latter, (images, components).
        variances: of the components.
        times: of random features.
    """

    seen: np.ndarray
    products: np.ndarray
    squares: np.ndarray
    variances: np.ndarray
    times: timescales.Times

    def gains(self, kept: np.ndarray) -> np.ndarray:
        """Gains over some of the images, (checkpoints, components)."""
        found = self.products[:, kept].sum(axis=1) / self.squares[kept].sum(axis=0)
        return np.asarray(found)


def measure(config: Config, subject: Subject, run: Run) -> Found:
    """Gains at every checkpoint, a stage in all."""
    images, groups = subject.inputs(config.name("held_out"), config.held_out), subject.groups(config.held_out)
    law, second = subject.gaussian, subject.config.second
    basis = np.asarray(law.basis, np.float64)[:, : config.components]
    centre = np.asarray(law.mean, np.float64)
    clean = (images - centre).reshape(len(images), -1) @ basis
    noisy = np.asarray(noisy_batch(run.key, images, np.float32(config.sigma)))[None]

    def products() -> dict[str, np.ndarray]:
        found, trained = [], subject.trained(run.directory)
        with Progress("checkpoints", total=len(trained), unit="checkpoints") as bar:
            for _, network in trained:
                out = np.empty_like(images)
                for group in groups:
                    of_group = subject.of(network, group)
                    out[group.held] = denoised(of_group, noisy[:, group.held], np.array([config.sigma]))[0]
                found.append(((out - centre).reshape(len(images), -1) @ basis) * clean)
                bar.update(1)
        return {"products": np.stack(found)}

    seen = np.array(second.updates) * second.training.batch_size / 1000
    variances = np.asarray(law.variances, np.float64)[: config.components]
    products_of = run.stage("gains", products)["products"]
    times = run.stage(
        "timescales", timescales.measure, config.dimension, config.features, config.points, config.draws, run.key,
        allow_nonfinite=True,
    )  # fmt: skip
    return Found(seen, products_of, clean**2, variances, timescales.Times(np.array(config.points), **times))


def half_times(seen: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Images seen when half of the change of each gain is first done, NaN where it hardly changes."""
    change = gains[-1] - gains[0]
    done = (gains - gains[0]) / np.where(np.abs(change) >= CHANGE, change, np.nan)
    found = np.full(gains.shape[1], np.nan)
    for place, curve in enumerate(done.T):
        if np.isfinite(curve).all():
            at = int(np.argmax(curve >= 0.5))
            share = (0.5 - curve[at - 1]) / (curve[at] - curve[at - 1])
            found[place] = np.exp((1 - share) * np.log(seen[at - 1]) + share * np.log(seen[at]))
    return found


def order(config: Config, found: Found) -> Measured:
    """Spearman's correlation of measured and predicted times, with the jackknife over groups of images."""
    count = found.squares.shape[0]
    groups = np.arange(count) * _GROUPS // count
    whole = half_times(found.seen, found.gains(np.ones(count, bool)))
    timed = np.isfinite(whole)
    parts = [half_times(found.seen, found.gains(groups != group)) for group in range(_GROUPS)]
    timed &= np.isfinite(parts).all(axis=0)
    if timed.sum() < _FEWEST:
        return NotTested(f"the gains of {timed.sum()} components change by {CHANGE:g} or more: {_FEWEST} are needed")
    predicted = 1 / (found.variances + config.sigma**2)
    value, *others = (float(analysis.rank_correlation(predicted[timed], one[timed])) for one in (whole, *parts))
    return analysis.jackknife_interval(value, others, bounds=(-1, 1))


def report(config: Config, subject: Subject, found: Found) -> Findings:
    """Gains over training, and times against variances."""
    everything = np.ones(found.squares.shape[0], bool)
    gains = found.gains(everything)
    times = half_times(found.seen, gains)
    timed = np.flatnonzero(np.isfinite(times))
    answer = (
        f"The second network has done half of the change of the gains of {len(timed)} of {config.components} principal "
        f"components after {times[timed].min():.3g} to {times[timed].max():.3g} thousand images, at noise level "
        f"{config.sigma:g}."
        if len(timed)
        else f"The gains of none of {config.components} principal components change by {CHANGE:g} or more."
    )
    rows = [
        (int(place) + 1, float(found.variances[place]), float(gains[-1][place]), float(times[place])) for place in timed
    ]
    return Findings(
        answer,
        claims={"learning-order": order(config, found), **timescales.claims_of(found.times)},
        figures={
            "learning_order": _drawn(config, found, gains, times),
            "learning_timescales": timescales.drawn(found.times),
        },
        tables=[
            Table("Components, in thousands of images", ("component", "variance", "gain", "half done after"), rows)
        ],
        metrics={"half_times": [row[3] for row in rows]},
    )


def _drawn(config: Config, found: Found, gains: np.ndarray, times: np.ndarray) -> "Drawing":
    chosen = np.unique(np.round(np.geomspace(1, config.components, 5)).astype(int)) - 1
    curves = {f"component {place + 1}": (found.seen, own, own, own) for place, own in zip(chosen, gains.T[chosen])}
    left = plots.SweepPanel(f"noise level {config.sigma:g}", "thousand images seen", "gain", curves)
    timed = np.isfinite(times)
    total = found.variances + config.sigma**2
    panels = [left]
    if timed.any():
        theory = np.median(times[timed] * total[timed]) / total[timed]
        right = {"measured": (total[timed], *[times[timed]] * 3), "linear theory": (total[timed], *[theory] * 3)}
        panels.append(
            plots.SweepPanel("half of the change", "variance and noise", "thousand images seen", right, log=True)
        )
    return plots.sweep_curves(panels, columns=2)


def costs(config: Config, plan: Plan) -> list[Cost]:
    """Evaluations of the second network, as if it were the one studied, and the random features."""
    count = len(plan.config.second.updates) * config.held_out
    features = timescales.cost(config.dimension, config.features, config.points, config.draws)
    return [evaluation_cost(plan.network, "learning", count, 1), features]


PART = Part(
    "learning", "The order of learning",
    "Are principal components learned in the order of the linear theory, and when do random features memorise?",
    "own", CLAIMS, FIGURES, measure, report, PRESETS, costs, check,
)  # fmt: skip
