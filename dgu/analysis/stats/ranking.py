"""How well a score tells two groups apart: the area under the ROC curve, and the true positive rate at a false positive
rate.
"""

import numpy as np
from jaxtyping import Num
from scipy import stats

from dgu.analysis.stats.estimates import Estimate, normal_estimate, proportion, wilson
from dgu.core.arrays import as_floats
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
    """The true positive rate at the false positive rate ``false_alarms``: the share of positives above the ``1 -
    false_alarms`` quantile of the negatives. Its interval is Wilson's, given that quantile.

    Raises:
        InputError: as ``auc``; ``false_alarms`` not in (0, 1), or too few negatives to estimate that quantile.

    Carlini et al., Membership inference attacks from first principles, S&P 2022, on why to look at low false positive
    rates.
    """
    positives, negatives = _checked(positives, negatives)
    require(0 < false_alarms < 1, "false_alarms", false_alarms, "strictly between 0 and 1")
    need = int(np.ceil(1 / false_alarms))
    require(len(negatives) >= need, "number of negatives", len(negatives), f"{need} or more for that quantile")
    return proportion(positives > np.quantile(negatives, 1 - false_alarms, method="higher"))


def _checked(positives: np.ndarray, negatives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    positives, negatives = as_floats("positives", positives), as_floats("negatives", negatives)
    for name, scores in (("positives", positives), ("negatives", negatives)):
        require(len(scores) >= 2, f"number of {name}", len(scores), "2 or more")
        require(bool(np.isfinite(scores).all()), name, "not finite", "finite")
    return positives, negatives
