"""Statistics of ranks: the area under the ROC curve and the true positive rate at a false positive rate, which say how
well a score tells two groups apart, and the rank correlation, which says whether one quantity rises with another.
"""

from collections.abc import Sequence

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float64, Num
from scipy import stats

from dgu.analysis.stats.estimates import Estimate, normal_estimate, proportion, wilson
from dgu.core.arrays import as_doubles, as_floats
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
    ranks = stats.rankdata(np.concatenate([positives, negatives]))
    above = (ranks[:m] - stats.rankdata(positives)) / n
    below = 1 - (ranks[m:] - stats.rankdata(negatives)) / m
    value = float(above.mean())
    error = float(np.sqrt(above.var(ddof=1) / m + below.var(ddof=1) / n))
    if error == 0:
        low, high = (float(end) for end in wilson(value, min(m, n)))
    else:
        return normal_estimate(value, error, n=m + n, bounds=(0.0, 1.0))
    return Estimate(value, low, high, method="Wilson", n=min(m, n), standard_error=error)


def hits_at(positives: Num[np.ndarray, "m"], negatives: Num[np.ndarray, "n"], false_alarms: float = 0.01) -> Estimate:
    """The share of positives above the ``1 - false_alarms`` quantile of the negatives, with Wilson's interval given it.

    Raises:
        InputError: as ``auc``; ``false_alarms`` not in (0, 1), or too few negatives to find that quantile among.

    Carlini et al., Membership inference attacks from first principles, S&P 2022, on why to look at low false positive
    rates.
    """
    positives, negatives = _checked(positives, negatives)
    require(0 < false_alarms < 1, "false_alarms", false_alarms, "strictly between 0 and 1")
    need = int(np.ceil(1 / false_alarms))
    require(len(negatives) >= need, "number of negatives", len(negatives), f"{need} or more for that quantile")
    return proportion(positives > np.quantile(negatives, 1 - false_alarms, method="higher"))


def rank_correlation(
    x: Sequence[float | int] | Num[ArrayLike, "n"], values: Sequence[float | int] | Num[ArrayLike, "*batch n"]
) -> Float64[np.ndarray, "*batch"]:
    """Spearman's rank correlation of ``x`` with each row of ``values``: 1 if it rises throughout, -1 if it falls.

    It is Pearson's correlation of the ranks, of which equal values share their mean; 0 where all values of a row, or of
    ``x``, are equal, which is neither a rise nor a fall.

    Args:
        x: what varies, such as sizes of training sets; two or more.
        values: a row of measurements at ``x``, or several.

    Raises:
        InputError: fewer than two places, rows of another length than ``x``, or values that are not finite.

    Spearman, Am. J. Psychol. 15, 1904.
    """
    places, rows = as_doubles("x", x), as_doubles("values", values)
    require(places.ndim == 1 and len(places) >= 2, "x.shape", places.shape, "(n,), n two or more")
    require(rows.shape[-1:] == places.shape, "values.shape", rows.shape, f"(..., {len(places)}), a value for each of x")
    require(bool(np.isfinite(places).all()), "x", "not finite", "finite")
    require(bool(np.isfinite(rows).all()), "values", "not finite", "finite")

    def one(row: np.ndarray) -> float:
        constant = bool((row == row[0]).all() or (places == places[0]).all())
        return 0.0 if constant else float(stats.spearmanr(places, row).statistic)

    return np.asarray(np.apply_along_axis(one, -1, rows))


def _checked(positives: np.ndarray, negatives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    positives, negatives = as_floats("positives", positives), as_floats("negatives", negatives)
    for name, scores in (("positives", positives), ("negatives", negatives)):
        require(len(scores) >= 2, f"number of {name}", len(scores), "2 or more")
        require(bool(np.isfinite(scores).all()), name, "not finite", "finite")
    return positives, negatives
