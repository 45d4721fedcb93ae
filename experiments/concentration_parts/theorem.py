"""Theorem 1, simulated: does the gap between X and Gaussian G close as d grows, and stay open where an assumption fails?"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from dgu import plots
from dgu.analysis.stats.resampling import sample_deviation
from dgu.analysis.universality.theorem_one import LAWS, GapTrend, TheoremDesign, gap_trend, universality_gap
from dgu.core.errors import require
from dgu.core.keys import seeded, stream
from experiments.concentration_parts.subject import PAPER, Plan, Subject
from experiments.study.costs import Cost
from experiments.study.judged import JudgedClaim
from experiments.study.options import check_options
from experiments.study.report import FigureEntry, Section, Table
from experiments.study.run_directory import RunDirectory

TITLE = "Theorem 1, simulated"
CLAIM_IDS = ("theorem-bounded", "theorem-power", "theorem-radius")
FIGURE_FILES = ("figures/theorem_one.png",)
#: What the designs are called in figures.
NAMES = {"bounded": "bounded spectrum", "power": "spectrum k^-2", "radius": "bounded spectrum, random radius"}


@dataclass(frozen=True)
class Config:
    """Min-norm classifiers of two classes on noise that is not Gaussian, against Gaussian noise of the same covariance."""

    dimensions: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048)
    """Dimensions d, increasing, two or more, each at least 8."""
    replicates: int = 256
    """Pairs of training sets where d is at most 128, 4 or more; above, in proportion to 128 / d."""
    fewest: int = 12
    """Pairs of training sets at the least, 4 or more."""
    law: str = "exponential"
    """Law of the noise: exponential (less 1), rademacher (+-1) or uniform."""
    ratio: float = 0.5
    """Training examples n over d, above 0 and below 1."""
    separation: float = 2.0
    """Mahalanobis distance of each class mean from the border between the classes."""
    margin: float = 1.0
    """Differences of error below this count as none, in percentage points."""

    def __post_init__(self) -> None:
        check_options(
            self, "theorem", dimensions=8, replicates=4, fewest=4, ratio="(0, 1)", separation="(0, inf)", margin="(0, inf)"
        )  # fmt: skip
        rising = all(a < b for a, b in zip(self.dimensions, self.dimensions[1:]))
        sound = len(self.dimensions) >= 2 and rising and self.dimensions[0] >= 8
        require(sound, "theorem.dimensions", self.dimensions, "two or more, increasing, each at least 8")
        laws = [law for law in LAWS if law != "radius"]
        require(self.law in laws, "theorem.law", self.law, f"one of {', '.join(laws)}")

    def count(self, d: int) -> int:
        """Pairs of training sets in dimension d."""
        return min(self.replicates, max(self.fewest, self.replicates * 128 // d))

    def designs(self) -> dict[str, TheoremDesign]:
        """The three problems by name."""
        bounded = TheoremDesign(self.law, "bounded", ratio=self.ratio, separation=self.separation)
        return {
            "bounded": bounded,
            "power": replace(bounded, spectrum="power"),
            "radius": replace(bounded, law="radius"),
        }


PRESETS = {
    "smoke": Config(dimensions=(16, 32), replicates=16, fewest=4),
    "default": Config(),
    "paper": Config(dimensions=(64, 128, 256, 512, 1024, 2048, 4096), replicates=1024, fewest=64),
}


def run(config: Config, subject: Subject, directory: RunDirectory, seed: int) -> Section:
    """The three designs in every dimension; the subject's images take no part."""
    key = stream(seeded(seed), "theorem")
    gaps: dict[str, list[np.ndarray]] = {}
    for name, design in config.designs().items():
        gaps[name] = []
        for d in config.dimensions:
            compute = partial(universality_gap, stream(key, name), d, config.count(d), design)
            found = directory.stage(f"theorem/{name}-{d}", compute)
            gaps[name].append(100 * (found["x"].astype(float) - found["gaussian"]))
    dimensions = np.asarray(config.dimensions, float)
    trends = {name: gap_trend(dimensions, each) for name, each in gaps.items()}
    mean = {name: np.asarray([gap.mean() for gap in each]) for name, each in gaps.items()}
    # Of no width where all replicates agree, up to rounding of the errors: such claims are undecided.
    error = {
        name: np.asarray([float(sample_deviation(gap, 100.0)) / np.sqrt(len(gap)) for gap in each])
        for name, each in gaps.items()
    }
    figure = plots.universality_trend(
        np.asarray(config.dimensions),
        {NAMES[name]: (trend.size, trend.size_error) for name, trend in trends.items()},
        {NAMES[name]: (mean[name], error[name]) for name in gaps},
        margin=config.margin,
    )
    directory.save_figure(FIGURE_FILES[0], figure)

    last = {name: (float(mean[name][-1]), float(error[name][-1])) for name in gaps}
    largest = f"d = {config.dimensions[-1]:,}"
    claims = [
        _falls("bounded", trends["bounded"], last["bounded"], config, largest),
        _falls("power", trends["power"], last["power"], config, largest),
        JudgedClaim.different(
            id="theorem-radius",
            paper=PAPER,
            figure="Theorem 1",
            statement=f"Examples of random length, which break an assumption, keep err X and err G apart at {largest} (same means and covariances).",
            estimate=last["radius"][0],
            interval=_interval(*last["radius"]),
            margin=config.margin,
            unit="points",
        ),
    ]
    slopes = {
        name: f"d^{each.slope:.2f} [{each.slope_interval[0]:.2f}, {each.slope_interval[1]:.2f}]"
        for name, each in trends.items()
    }
    answer = (
        f"With {config.law} noise and n / d = {config.ratio:g}, |err X - err G| goes as {slopes['bounded']} for a bounded spectrum and as "
        f"{slopes['power']} for k^-2; at {largest} the mean differences are {last['bounded'][0]:+.2f} and {last['power'][0]:+.2f} "
        f"percentage points. With examples of random length the difference is {last['radius'][0]:+.2f} points there."
    )
    rows = [
        (
            NAMES[name],
            size,
            config.count(size),
            *(float(part[at]) for part in (trends[name].size, mean[name], error[name])),
        )
        for name in gaps
        for at, size in enumerate(config.dimensions)
    ]
    return Section(
        TITLE,
        answer,
        claims,
        [
            FigureEntry(
                FIGURE_FILES[0],
                f"Test error of the min-norm classifier trained on noise that is not Gaussian (X) less that on Gaussian noise (G), {config.law} noise, two "
                f"classes, n / d = {config.ratio:g}; errors are exact given each classifier. Left its size, right its mean with sign; bars: 95 % intervals.",
            )
        ],
        [Table("Theorem 1: differences of test error (points)", ("design", "d", "replicates", "mean size", "mean", "standard error"), rows)],
        {
            "dimensions": list(config.dimensions),
            "slope": {name: [trend.slope, *trend.slope_interval] for name, trend in trends.items()},
            "mean_difference": {name: values.tolist() for name, values in mean.items()},
            "standard_error": {name: values.tolist() for name, values in error.items()},
        },
    )  # fmt: skip


def _interval(mean: float, error: float) -> tuple[float, float]:
    """95 % interval of a difference in percentage points."""
    return max(-100.0, mean - 1.96 * error), min(100.0, mean + 1.96 * error)


def _falls(name: str, trend: GapTrend, last: tuple[float, float], config: Config, largest: str) -> JudgedClaim:
    """The size falls at least half as fast as errors concentrate, and at the largest d no difference is left."""
    about: dict[str, Any] = {"paper": PAPER, "figure": "Theorem 1"}
    noise = "as its assumptions ask for" if name == "bounded" else "though its assumptions fail"
    parts = [
        JudgedClaim.at_most(
            id=f"theorem-{name}-slope",
            statement="|err X - err G| falls with the dimension (slope on logarithmic axes).",
            value=trend.slope,
            interval=trend.slope_interval,
            threshold=-0.25,
            unit="",
            **about,
        ),
        JudgedClaim.equivalent(
            id=f"theorem-{name}-difference",
            statement=f"The mean of err X - err G at {largest} is less than the margin.",
            estimate=last[0],
            interval=_interval(*last),
            margin=config.margin,
            unit="points",
            **about,
        ),
    ]
    return JudgedClaim.all_of(
        parts,
        id=f"theorem-{name}",
        statement=f"Theorem 1 holds for a {NAMES[name]}, {noise}: min-norm classifiers on X come to err as often as on G.",
        **about,
    )


def costs(config: Config, subject: Plan) -> list[Cost]:
    """A QR factorisation of both training sets of each pair: ``2 n^2 (d - n / 3)`` operations."""
    flop, memory = 0.0, 0.0
    for d in config.dimensions:
        n = config.ratio * d
        flop += 3 * config.count(d) * 2 * 2 * n**2 * (d - n / 3)
        memory = max(memory, 4 * 2 * 4 * n * d)
    return [Cost("theorem 1", 0, flop, memory, 0)]
