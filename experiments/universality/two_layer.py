"""Two-layer networks: do they see more of the images than means and covariances?"""

from typing import TYPE_CHECKING

import numpy as np

from dgu import plots
from dgu.analysis.stats.estimates import Estimate
from experiments.pools import CORRECTED_POINTS, POINTS, VARIANCE_CHANGED
from experiments.study import Claim, Figure, Findings, Measured, Part, Run, different, equivalent
from experiments.universality.comparison import (
    Reading,
    Results,
    as_metrics,
    at_last,
    gap,
    judged,
    null_corrected,
)
from experiments.universality.options import Options
from experiments.universality.subject import PAPER, Subject

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

#: Problems of two-layer networks, and of linear classifiers on the same classes and images.
_NETWORKS = {"two-layer": "two-layer", "linear": "beside-two-layer"}

FIGURES = (
    Figure(
        "two_layer",
        "Differences of accuracy of two-layer networks, and of linear classifiers on the same classes, images and "
        "sizes, between diffusion samples and mixture, between mixture and null, and the first less the second (the "
        "null-corrected gap), with 95 % intervals. Green: the whole interval lies within the margin of equivalence, "
        "grey: it does not.",
    ),
)


def claims(options: Options) -> tuple[Claim, ...]:
    """What is tested."""
    k = options.subset_sizes[0]
    return (
        Claim(
            "two-layer-breaks",
            f"Two-layer networks that tell {k} classes apart use more of the images than class means and covariances: "
            "trained and tested on diffusion samples, they reach an accuracy that differs by more than "
            f"{options.margin:g} percentage points from that of networks trained and tested on draws from the Gaussian "
            "mixture with their class means and covariances, beyond what the finite fit of the mixture explains "
            "(value: the null-corrected gap).",
            different(options.margin),
            unit="points",
            changed="the gap was not corrected for the finite fit of the mixture, and its interval was the corrected "
            f"resampled t. {VARIANCE_CHANGED}",
            one_network=True,
        ),
        Claim(
            "two-layer-exceeds-linear",
            f"The null-corrected gap of two-layer networks that tell {k} classes apart is another than that of linear "
            "classifiers on the same classes and images (value: the former less the latter, paired by split).",
            different(),
            unit="points",
            changed=VARIANCE_CHANGED,
            one_network=True,
        ),
    )


def measure(options: Options, subject: Subject, run: Run) -> Results:
    """The accuracies of the replicates, and those on pools drawn anew, where random features stand for networks."""
    return Results(subject.replicates, subject.resampled, options.pools)


def estimates(options: Options, results: Results) -> dict[str, Measured]:
    """What was measured for the claims."""
    two, one = (at_last(null_corrected(task)) for task in _NETWORKS.values())
    return {
        "two-layer-breaks": results.interval(two, CORRECTED_POINTS),
        "two-layer-exceeds-linear": results.interval(lambda found: two(found) - one(found)),
    }


def report(options: Options, subject: Subject, found: Results) -> Findings:
    """The differences of two-layer networks beside those of linear classifiers."""
    measured = estimates(options, found)
    decided = judged(claims(options), measured)
    texts = []
    for claim in decided.values():
        assert claim.value is not None and claim.interval is not None  # Every replicate has accuracies.
        texts.append(f"{claim.value:+.2f} points (95 % interval {claim.interval[0]:+.2f} to {claim.interval[1]:+.2f})")
    return Findings(
        f"The accuracy of two-layer networks on diffusion samples less that on the mixture, corrected for the finite "
        f"fit, is {texts[0]}; less that of linear classifiers it is {texts[1]}.",
        claims=measured,
        figures={"two_layer": _forest(options, found)},
        metrics={
            "gaps": at_last(gap("two-layer"))(found.replicates),
            "null_gaps": at_last(gap("two-layer", 1, 2))(found.replicates),
            "claims": as_metrics(decided),
        },
    )


def _forest(options: Options, results: Results) -> "Drawing":
    readings: dict[str, tuple[Reading, tuple[float, float]]] = {}
    for name, task in _NETWORKS.items():
        readings |= {
            f"{name}: diffusion minus mixture": (gap(task), POINTS),
            f"{name}: mixture minus null": (gap(task, 1, 2), POINTS),
            f"{name}: null-corrected gap": (null_corrected(task), CORRECTED_POINTS),
        }
    found: dict[str, Estimate] = {
        name: results.interval(at_last(read), bounds) for name, (read, bounds) in readings.items()
    }
    shown = judged([Claim(name, "", equivalent(options.margin)) for name in found], found)
    return plots.forest(
        list(found),
        np.asarray([claim.value for claim in shown.values()]),
        np.asarray([claim.interval for claim in shown.values()]),
        options.margin,
        verdicts=[claim.verdict for claim in shown.values()],
        quantity="difference of test accuracy (percentage points)",
    )


PART = Part(
    "two_layer", "Two-layer networks", "Do two-layer networks see more of the images than means and covariances?",
    PAPER, claims, FIGURES, measure, report,
)  # fmt: skip
