"""What ranks alone tell: how well a score separates two groups (the area under the ROC curve, the true positive rate at
a false positive rate), and whether one quantity rises with another.
"""

from collections.abc import Sequence

import numpy as np
import scipy
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from dgu.analysis.stats.estimates import Estimate, normal_estimate, proportion, wilson
from dgu.core.arrays import as_doubles, as_floats, is_number
from dgu.core.errors import require


def auc(positives: Num[np.ndarray, "m"], negatives: Num[np.ndarray, "n"]) -> Estimate:
    """``P(positive > negative) + P(equal) / 2`` over all pairs, with DeLong's 95 % interval.

    With ``a_i`` the fraction of negatives below positive i (ties half) and ``b_j`` that of positives above negative j,
    the variance is ``var(a) / m + var(b) / n``. Where it is 0, as for groups that do not overlap, the interval is
    Wilson's for a proportion of ``min(m, n)`` cases: a few scores never prove a perfect separation.

    Args:
        positives: scores of the group that should score high.
        negatives: scores of the other group.

    Raises:
        InputError: fewer than two scores in a group, or scores that are not finite.

    DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988; by ranks as in Sun and Xu, IEEE Signal Process. Lett. 21,
    2014.
    """
    positives, negatives = _checked(positives, negatives)
    m, n = len(positives), len(negatives)
    ranks = scipy.stats.rankdata(np.concatenate([positives, negatives]))
    above = (ranks[:m] - scipy.stats.rankdata(positives)) / n
    below = 1 - (ranks[m:] - scipy.stats.rankdata(negatives)) / m
    value = float(above.mean())
    error = float(np.sqrt(above.var(ddof=1) / m + below.var(ddof=1) / n))
    if error == 0:
        low, high = (float(end) for end in wilson(value, min(m, n)))
    else:
        return normal_estimate(value, error, n=m + n, bounds=(0.0, 1.0))
    return Estimate(value, low, high, method="Wilson", n=min(m, n), standard_error=error)


def hits_at(positives: Num[np.ndarray, "m"], negatives: Num[np.ndarray, "n"], false_alarms: float = 0.01) -> Estimate:
    """The true positive rate at the false positive rate ``false_alarms``: the share of positives above the ``1 -
    false_alarms`` quantile of the negatives. Its interval is Wilson's, given that quantile.

    Raises:
        InputError: as ``auc``; ``false_alarms`` not in (0, 1), or too few negatives to estimate that quantile.

    Carlini et al., Membership inference attacks from first principles, S&P 2022, on why to look at low false positive
    rates.
    """
    positives, negatives = _checked(positives, negatives)
    inside = is_number(false_alarms) and 0 < false_alarms < 1
    require(inside, "false_alarms", false_alarms, "strictly between 0 and 1")
    need = np.ceil(1 / false_alarms)
    require(len(negatives) >= need, "number of negatives", len(negatives), f"{need:g} or more for that quantile")
    return proportion(positives > np.quantile(negatives, 1 - false_alarms, method="higher"))


def rank_correlation(
    x: Sequence[float | int] | Num[ArrayLike, "*#batch n"], y: Sequence[float | int] | Num[ArrayLike, "*#batch n"]
) -> Float[np.ndarray, "..."]:
    """Spearman's correlation over the last axis: Pearson's of the ranks, equal values at the mean of their ranks.

    It is 0 where all values of ``x`` or of ``y`` are equal: then nothing rises with anything.

    Raises:
        InputError: values that are not finite, last axes that are empty or of different lengths, or other axes that do
            not broadcast.

    Spearman, The American Journal of Psychology 15, 1904.
    """
    pair = as_doubles("x", x), as_doubles("y", y)
    lengths = tuple(np.shape(values)[-1:] for values in pair)
    require(lengths[0] == lengths[1] and lengths[0] > (0,), "length of x and y", lengths, "the same, 1 or more")
    shapes = tuple(values.shape for values in pair)
    fit = all(m == n or 1 in (m, n) for m, n in zip(*(shape[::-1] for shape in shapes)))
    require(fit, "shapes of x and y", shapes, "such that they broadcast")
    for name, values in zip("xy", pair):
        require(bool(np.isfinite(values).all()), name, "not finite", "finite")
    a, b = (scipy.stats.rankdata(values, axis=-1) - (lengths[0][0] + 1) / 2 for values in pair)
    norms = np.sqrt(np.sum(a**2, axis=-1) * np.sum(b**2, axis=-1))
    return np.where(norms > 0, np.sum(a * b, axis=-1) / np.where(norms > 0, norms, 1.0), 0.0)


def _checked(positives: np.ndarray, negatives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    positives, negatives = as_floats("positives", positives), as_floats("negatives", negatives)
    for name, scores in (("positives", positives), ("negatives", negatives)):
        require(scores.ndim == 1, f"{name}.shape", scores.shape, "(n,)")
        require(len(scores) >= 2, f"number of {name}", len(scores), "2 or more")
        require(bool(np.isfinite(scores).all()), name, "not finite", "finite")
    return positives, negatives
