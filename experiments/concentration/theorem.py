"""Theorem 1, simulated: does the gap between X and Gaussian G close as d grows, and stay open if an assumption
fails?"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from dgu import plots
from dgu.analysis.universality.theorem_design import LAWS, TheoremDesign
from dgu.analysis.universality.theorem_one import gap_trend, universality_gap
from dgu.core.errors import require
from dgu.core.keys import stream
from experiments import study
from experiments.concentration.subject import PAPER, Plan, Subject, points
from experiments.study import Claim, Cost, Figure, Findings, Run, Table, all_of, at_most, different, equivalent, option

#: What the designs are called in figures.
NAMES = {"bounded": "bounded spectrum", "power": "spectrum k^-2", "radius": "bounded spectrum, random radius"}
#: Slope, on logarithmic axes, at which the gap must fall: half that of errors that concentrate.
_SLOPE = -0.25

FIGURES = (
    Figure(
        "theorem_one",
        "Test error of the min-norm classifier of two classes trained on noise that is not Gaussian (X) minus that "
        "trained on Gaussian noise (G), against the dimension; errors are exact given each classifier. Left the mean "
        "size of the difference, right its mean with sign; bars: 95 % intervals.",
    ),
)


@dataclass(frozen=True)
class Config(study.Options, prefix="theorem"):
    """Min-norm classifiers of two classes on noise that is not Gaussian, and on Gaussian noise of the same
    covariance."""

    dimensions: tuple[int, ...] = option((64, 128, 256, 512, 1024, 2048), ge=8)
    """Dimensions d, two or more, increasing."""
    replicates: int = option(256, ge=4)
    """Pairs of training sets if d is at most 128; above, in proportion to 128 / d."""
    fewest: int = option(12, ge=4)
    """Smallest number of pairs of training sets."""
    law: str = "exponential"
    """Distribution of the noise: exponential (minus 1), rademacher (+-1) or uniform."""
    ratio: float = option(0.5, gt=0.0, lt=1.0)
    """Training examples n over d."""
    separation: float = option(2.0, gt=0.0)
    """Mahalanobis distance of each class mean from the border between the classes."""
    margin: float = option(1.0, gt=0.0)
    """Differences of error below this count as none, in percentage points."""

    def check(self) -> None:
        sound = len(self.dimensions) >= 2 and all(a < b for a, b in pairwise(self.dimensions))
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


def claims(config: Config) -> tuple[Claim, ...]:
    """What is tested."""
    largest = f"d = {config.dimensions[-1]:,}"
    return (
        _closes(
            config,
            "bounded",
            "The conclusion of Theorem 1 holds where its assumptions do, for non-Gaussian data X whose covariance "
            "eigenvalues lie between two constants",
        ),
        _closes(
            config,
            "power",
            "The conclusion of Theorem 1 holds also where its assumptions fail, for non-Gaussian data X whose k-th "
            "covariance eigenvalue is proportional to k^-2",
        ),
        Claim(
            "theorem-radius",
            "Where an assumption of Theorem 1 fails, its conclusion may fail: for data X that are Gaussian vectors of "
            "random length, the test error of min-norm classifiers on X differs by more than "
            f"{points(config.margin)} from that on Gaussian data G of the same class means and covariances, at "
            f"{largest}, the largest dimension (value: error on X minus error on G).",
            different(config.margin),
            source="Theorem 1",
            unit="points",
        ),
    )


def _closes(config: Config, name: str, design: str) -> Claim:
    """The gap falls at least half as fast as errors concentrate, and at the largest d no difference remains."""
    largest = f"d = {config.dimensions[-1]:,}"
    return Claim(
        f"theorem-{name}",
        f"{design}: as the dimension d grows, the test error of min-norm classifiers on X approaches that on Gaussian "
        "data G of the same class means and covariances. (Two parts: the mean of |error on X - error on G| falls with "
        f"d with a slope of at most {_SLOPE:g} on logarithmic axes; the mean of error on X - error on G at {largest} "
        f"is smaller than {points(config.margin)}.)",
        all_of(
            Claim(
                f"theorem-{name}-slope",
                "The mean of |error on X - error on G| falls with the dimension at least half as fast as errors "
                f"concentrate: its slope on logarithmic axes is at most {_SLOPE:g}.",
                at_most(_SLOPE),
                source="Theorem 1",
            ),
            Claim(
                f"theorem-{name}-difference",
                f"The mean of error on X - error on G at {largest} is smaller than {points(config.margin)}.",
                equivalent(config.margin),
                source="Theorem 1",
                unit="points",
            ),
        ),
        source="Theorem 1",
    )


def measure(config: Config, subject: Subject, run: Run) -> dict[str, list[np.ndarray]]:
    """Differences of test error (percentage points) by design, an array for each dimension; no images are used."""
    gaps: dict[str, list[np.ndarray]] = {}
    for name, design in config.designs().items():
        key, gaps[name] = stream(run.key, name), []
        for d in config.dimensions:
            found = run.stage(f"{name}-{d}", universality_gap, key, d, config.count(d), design)
            gaps[name].append(100 * (found["x"].astype(float) - found["gaussian"]))
    return gaps


def report(config: Config, subject: Subject, gaps: Mapping[str, list[np.ndarray]]) -> Findings:
    """How the gap falls with the dimension, by design."""
    dimensions = np.asarray(config.dimensions)
    trends = {name: gap_trend(dimensions.astype(float), each, largest=100.0) for name, each in gaps.items()}
    differences = {
        name: (np.asarray(trend.difference.value), np.asarray(trend.difference.standard_error))
        for name, trend in trends.items()
    }
    figure = plots.universality_trend(
        dimensions,
        {NAMES[name]: (trend.size, trend.size_error) for name, trend in trends.items()},
        {NAMES[name]: difference for name, difference in differences.items()},
        margin=config.margin,
    )
    slopes = {name: trend.slope for name, trend in trends.items()}
    last = {name: trend.difference[-1] for name, trend in trends.items()}
    shown = {name: f"d^{slope.text('.2f')}" for name, slope in slopes.items()}
    rows = [
        (NAMES[name], d, config.count(d), *(float(part[at]) for part in (trend.size, *differences[name])))
        for name, trend in trends.items()
        for at, d in enumerate(config.dimensions)
    ]
    header = ("design", "d", "replicates", "mean size", "mean", "standard error")
    noise = f"{config.law} noise and n / d = {config.ratio:g}"
    return Findings(
        f"With {noise}, |err X - err G| goes as {shown['bounded']} for a bounded spectrum and as {shown['power']} for "
        f"k^-2; at d = {dimensions[-1]:,} the mean differences are {last['bounded'].value:+.2f} and "
        f"{last['power'].value:+.2f} percentage points. With examples of random length the difference is "
        f"{last['radius'].value:+.2f} points there.",
        claims={
            f"theorem-{name}": {f"theorem-{name}-slope": slopes[name], f"theorem-{name}-difference": last[name]}
            for name in ("bounded", "power")
        }
        | {"theorem-radius": last["radius"]},
        figures={"theorem_one": (figure, f"Here with {noise}.")},
        tables=[Table("Theorem 1: differences of test error (points)", header, rows)],
        metrics={
            "dimensions": dimensions,
            "slope": {name: slope.stacked() for name, slope in slopes.items()},
            "mean_difference": {name: mean for name, (mean, _) in differences.items()},
            "standard_error": {name: error for name, (_, error) in differences.items()},
        },
    )


def costs(config: Config, plan: Plan) -> list[Cost]:
    """A QR factorisation of both training sets of each pair: ``2 n^2 (d - n / 3)`` operations."""
    flop, memory = 0.0, 0.0
    for d in config.dimensions:
        n = config.ratio * d
        flop += 3 * config.count(d) * 2 * 2 * n**2 * (d - n / 3)
        memory = max(memory, 4 * 2 * 4 * n * d)
    return [Cost("theorem 1", 0, flop, memory, 0)]


PART = study.Part(
    name="theorem",
    title="Theorem 1, simulated",
    question="Does the gap between X and Gaussian G close as d grows, and stay open if an assumption fails?",
    paper=PAPER,
    presets=PRESETS,
    claims=claims,
    figures=FIGURES,
    measure=measure,
    report=report,
    costs=costs,
)
