"""Does a set of images hold its classes in the proportions of another?"""

from dataclasses import dataclass

import numpy as np
import scipy
from jaxtyping import Integer

from dgu.analysis.stats.estimates import Estimate, share_difference, wilson
from dgu.core.arrays import as_labels
from dgu.core.brief import short_repr
from dgu.core.errors import require


@short_repr
@dataclass(frozen=True)
class ClassBalance:
    """Class shares of two sets. Intervals hold for all classes together (95 %, Bonferroni).

    Attributes:
        counts, reference_counts: (K,) images of each class.
        shares, reference_shares: (K,) with Wilson's intervals (Goodman's simultaneous ones).
        differences: (K,) share less reference share, with Newcombe's intervals.
        chi2, degrees_of_freedom, p_value: statistic of the chi-square test that both have the same shares; classes
            absent in both are left out.
    """

    counts: np.ndarray
    reference_counts: np.ndarray
    shares: Estimate
    reference_shares: Estimate
    differences: Estimate
    chi2: float
    degrees_of_freedom: int
    p_value: float


def class_balance(
    labels: Integer[np.ndarray, " n"],
    reference_labels: Integer[np.ndarray, " m"],
    classes: int,
    confidence: float = 0.95,
) -> ClassBalance:
    """Class shares of ``labels`` beside those of ``reference_labels``.

    Args:
        labels: (n,) from 0 to ``classes - 1``.
        reference_labels: (m,) likewise.
        classes: K, 2 or more.
        confidence: of all intervals of a kind together.

    Raises:
        InputError: no labels, labels out of range, fewer than two classes, or all labels of one class.
    """
    require(classes >= 2, "classes", classes, "2 or more")
    counts = []
    for name, given in (("labels", labels), ("reference_labels", reference_labels)):
        marks = as_labels(name, given)
        fits = len(marks) > 0 and marks.max() < classes
        require(bool(fits), name, f"{len(marks)} labels", f"one or more, each 0 to {classes - 1}")
        counts.append(np.bincount(marks, minlength=classes))
    table = np.stack(counts)
    present = table.sum(axis=0) > 0
    require(int(present.sum()) >= 2, "labels", "all of one class", "of two or more classes")
    level = 1 - (1 - confidence) / classes
    shares, reference_shares = (_shares(row, level) for row in counts)
    test = scipy.stats.chi2_contingency(table[:, present], correction=False)
    return ClassBalance(
        counts[0],
        counts[1],
        shares,
        reference_shares,
        share_difference(shares, reference_shares),
        float(test.statistic),
        int(test.dof),
        float(test.pvalue),
    )


def _shares(counts: np.ndarray, confidence: float) -> Estimate:
    """Wilson's interval of each count's share of the total."""
    total = int(counts.sum())
    value = counts / total
    error = np.sqrt(value * (1 - value) / total)
    low, high = wilson(value, total, confidence)
    return Estimate(value, low, high, confidence, "Wilson", total, error)
