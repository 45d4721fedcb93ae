"""How arms are compared: accuracies of the replicates, their differences with intervals, and the verdicts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dgu.analysis.stats.estimates import Estimate
from dgu.analysis.stats.resampling import Equivalence, corrected_t_interval, equivalence
from dgu.data.splits import SplitSizes
from experiments.study import Claim, Measured
from experiments.study.claims import judge
from experiments.study.judged import JudgedClaim
from experiments.universality.options import Options
from experiments.universality.subject import PAPER


def own_results(results: Mapping[str, np.ndarray], task: str, what: str = "accuracy") -> np.ndarray:
    """Accuracy or loss of every arm on its own test images, averaged over subsets: (replicates, arms, sizes)."""
    found = results[f"{task}.{what}"]
    return np.einsum("raasz->raz", found) / found.shape[3]


def gap(results: Mapping[str, np.ndarray], task: str, first: int = 0, second: int = 1) -> np.ndarray:
    """Difference of accuracy between two arms, each on its own test images, at the largest size: (replicates,)."""
    own = own_results(results, task)
    return own[:, first, -1] - own[:, second, -1]


def compare_gaps(options: Options, gaps: np.ndarray, fresh: bool = False) -> Equivalence:
    """Paired equivalence of two arms from the difference of accuracy of each replicate, in percentage points.

    Replicates that split one pool get the corrected resampled t; ``fresh`` ones share nothing.
    """
    train, test = (None, None) if fresh else shared_sizes(options.splits)
    return equivalence(
        100 * np.asarray(gaps, float),
        options.margin,
        n_train=train,
        n_test=test,
        max_standard_error=options.max_standard_error,
        bounds=(-100, 100),
    )


def difference(options: Options, gaps: np.ndarray, fresh: bool = False) -> Estimate:
    """The mean difference of accuracy in percentage points, as ``compare_gaps`` finds it."""
    return compare_gaps(options, gaps, fresh).interval


def shared_sizes(sizes: SplitSizes) -> tuple[int, int]:
    """Images of each class that a replicate is trained on, and those that it is tested on, in splits of one pool."""
    return sizes.fit + sizes.train + sizes.validation, sizes.test


def intervals(values: np.ndarray, sizes: SplitSizes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and 95 % interval over the leading axis, for splits of a shared pool; NaN where a result is missing."""
    moved = np.moveaxis(np.asarray(values, float), 0, -1)
    measured = np.isfinite(moved).all(axis=-1)
    found = corrected_t_interval(np.where(measured[..., None], moved, 0.0), *shared_sizes(sizes))
    mean, low, high = (np.where(measured, np.asarray(part), np.nan) for part in (found.value, found.low, found.high))
    return mean, low, high


def judged(claims: Sequence[Claim], measured: Mapping[str, Measured]) -> dict[str, JudgedClaim]:
    """The claims with their verdicts, by id, for figures and metrics that show them."""
    return {claim.id: judge(claim, measured[claim.id], PAPER) for claim in claims}


def as_metrics(claims: Mapping[str, JudgedClaim]) -> dict[str, Any]:
    """Values, intervals and verdicts of claims by id, for ``metrics.json``."""
    return {
        name: {"value": claim.value, "interval": claim.interval, "verdict": claim.verdict}
        for name, claim in claims.items()
    }
