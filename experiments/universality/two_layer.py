"""Two-layer networks: do they see more of the images than means and covariances?"""

from typing import TYPE_CHECKING

import numpy as np

from dgu import plots
from experiments.study import Claim, Figure, Findings, Measured, Part, Run, different
from experiments.universality.comparison import as_metrics, compare_gaps, difference, gap, judged, own_results
from experiments.universality.options import Options
from experiments.universality.problems import sizes_per_class, two_layer_size
from experiments.universality.subject import PAPER, Subject

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

FIGURES = (
    Figure(
        "two_layer",
        "Differences of accuracy of two-layer networks, and of linear classifiers on the same classes and sizes, "
        "between diffusion samples and mixture and between mixture and null, with 95 % intervals.",
    ),
)


def claims(options: Options) -> tuple[Claim, ...]:
    """What is tested."""
    return (
        Claim(
            "two-layer-breaks",
            f"Two-layer networks that tell {options.subset_sizes[0]} classes apart use more of the images than class "
            "means and covariances: trained and tested on diffusion samples, they reach an accuracy that differs by "
            f"more than {options.margin:g} percentage points from that of networks trained and tested on draws from "
            "the Gaussian mixture fitted to other such samples (value: accuracy on samples minus accuracy on mixture).",
            different(options.margin),
            unit="points",
            one_network=True,
        ),
    )


def measure(options: Options, subject: Subject, run: Run) -> dict[str, np.ndarray]:
    """The accuracies of the replicates."""
    return subject.replicates


def estimates(options: Options, results: dict[str, np.ndarray]) -> dict[str, Measured]:
    """What was measured for the claim."""
    return {"two-layer-breaks": difference(options, gap(results, "two-layer"))}


def report(options: Options, subject: Subject, found: dict[str, np.ndarray]) -> Findings:
    """The differences of two-layer networks beside those of linear classifiers."""
    measured = estimates(options, found)
    decided = judged(claims(options), measured)
    claim = decided["two-layer-breaks"]
    assert claim.value is not None and claim.interval is not None  # Every replicate has accuracies.
    low, high = claim.interval
    return Findings(
        f"The accuracy of two-layer networks on diffusion samples less that on the mixture is {claim.value:+.2f} "
        f"points (95 % interval {low:+.2f} to {high:+.2f}).",
        claims=measured,
        figures={"two_layer": _forest(options, subject.dimension, found)},
        metrics={
            "gaps": 100 * gap(found, "two-layer"),
            "null_gaps": 100 * gap(found, "two-layer", 1, 2),
            "claims": as_metrics(decided),
        },
    )


def _forest(options: Options, d: int, results: dict[str, np.ndarray]) -> "Drawing":
    k = options.subset_sizes[0]
    place = sizes_per_class(options, k, d).index(two_layer_size(options, d))
    own = {
        "two-layer": own_results(results, "two-layer")[..., 0],
        # The linear classifiers of the same classes and size: the first subset is the two-layer networks' own.
        "linear": np.einsum("raa->ra", results[f"{k}-classes.accuracy"][:, :, :, 0, place]),
    }
    found = {
        f"{name}: {label}": compare_gaps(options, values[:, first] - values[:, second])
        for name, values in own.items()
        for label, (first, second) in {"diffusion minus mixture": (0, 1), "mixture minus null": (1, 2)}.items()
    }
    return plots.forest(
        list(found),
        np.asarray([f.estimate for f in found.values()]),
        np.asarray([(f.interval.low, f.interval.high) for f in found.values()]),
        options.margin,
        verdicts=[f.verdict for f in found.values()],
        quantity="difference of test accuracy (percentage points)",
    )


PART = Part(
    "two_layer", "Two-layer networks", "Do two-layer networks see more of the images than means and covariances?",
    PAPER, claims, FIGURES, measure, report,
)  # fmt: skip
