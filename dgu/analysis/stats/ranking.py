"""What ranks alone tell: how well a score separates two groups (the area under the ROC curve, the true positive rate at
a false positive rate), whether one quantity rises with another, and where a median lies.

The intervals of a median and of a trend assume no distribution. They hold for a handful of replicates, where neither a
bootstrap nor a t interval does: redraws of few values, and few rank correlations that all agree, show too little
spread.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import scipy
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from dgu.analysis.stats.estimates import Estimate, normal_estimate, proportion, wilson
from dgu.core.arrays import as_doubles, as_floats, is_number
from dgu.core.errors import require

#: Points of a trend up to which all orders are counted: time and memory double with every further one.
_COUNTED = 12


def auc(positives: Num[np.ndarray, " m"], negatives: Num[np.ndarray, " n"]) -> Estimate:
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


def hits_at(positives: Num[np.ndarray, " m"], negatives: Num[np.ndarray, " n"], false_alarms: float = 0.01) -> Estimate:
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


def rank_trend(
    x: Sequence[float | int] | Num[ArrayLike, " n"], rows: Num[ArrayLike, "r n"], confidence: float = 0.95
) -> Estimate:
    """Does a quantity rise with x? The mean over r independent rows of Spearman's correlation of a row with x, in [-1,
    1], with an interval from its exact distribution over all orders of the values.

    Where x has no effect, every order of the n values of a row is equally likely, and the mean takes each of its
    possible values with a known probability. The interval is the mean -+ c, cut to [-1, 1], with c halfway between the
    least value that it then reaches or exceeds with a probability of at most ``(1 - confidence) / 2``, and the value
    before. It lies above 0 exactly where Page's one-sided test of trend rejects "no effect" at that level, and below 0
    where the test of the opposite trend does: the test of the sign is exact for any distribution and any number of
    rows. Away from 0 the interval is conservative, as correlations scatter less the stronger they are, unless rows have
    trends of opposite signs. Where even the largest mean, 1, is more likely than that (one row of four values), the
    interval is [-1, 1]. Beyond 12 points the distribution over all orders is taken to be normal, with its exact
    variance.

    Equal values of a row share the mean of their ranks, and the correlation is the covariance of the ranks over that of
    untied ones (Kendall's type a): a row of equal values counts as 0. Orders are then those of the tied ranks.

    Args:
        x: n different values, n at least 3.
        rows: one row for each replicate, such as a seed; rows are independent of each other.
        confidence: two-sided.

    Raises:
        InputError: values that are not finite, equal ones in x, shapes that do not fit, fewer than 3 points, or
            ``confidence`` outside (0, 1).

    Page, Journal of the American Statistical Association 58, 1963. Kendall, Rank Correlation Methods, chapter 3.
    """
    x, rows = as_doubles("x", x), as_doubles("rows", rows)
    fits = x.ndim == 1 and rows.ndim == 2 and rows.shape[1:] == x.shape and len(rows) > 0
    require(fits, "shapes of x and rows", (x.shape, rows.shape), "(n,) and (r, n), r 1 or more")
    require(len(x) >= 3, "length of x", len(x), "3 or more")
    for name, values in (("x", x), ("rows", rows)):
        require(bool(np.isfinite(values).all()), name, "not finite", "finite")
    require(len(np.unique(x)) == len(x), "x", x.tolist(), "different values")
    require(is_number(confidence) and 0 < confidence < 1, "confidence", confidence, "strictly between 0 and 1")
    # Twice the ranks less their mean: whole numbers, so that sums of products are exact.
    a, b = (np.rint(2 * scipy.stats.rankdata(values, axis=-1) - len(x) - 1).astype(int) for values in (x, rows))
    most, total, left_out = len(b) * int(a @ a), int((b @ a).sum()), (1 - confidence) / 2
    if len(x) <= _COUNTED:
        critical, method = _critical_sum(b, left_out), "exact over all orders"
    else:
        spread = np.sqrt(int(a @ a) * np.square(b).sum() / (len(x) - 1))
        critical, method = float(scipy.stats.norm.isf(left_out) * spread), "normal over all orders"
    low, high = max(-1.0, (total - critical) / most), min(1.0, (total + critical) / most)
    return Estimate(total / most, low, high, float(confidence), method, len(b))


def _critical_sum(b: np.ndarray, left_out: float) -> float:
    """Halfway between the least sum over rows of products that random orders reach or exceed with a probability of at
    most ``left_out``, and the sum before it; infinite where there is none.
    """
    chances = np.ones(1)
    for row in np.sort(b, axis=1):
        chances = np.convolve(chances, _products_over_orders(tuple(row.tolist())))
    possible = np.flatnonzero(chances)
    exceeded = np.cumsum(chances[possible][::-1])[::-1]
    enough = np.flatnonzero(exceeded <= left_out * (1 + 1e-9))
    # The middle of the table stands for a sum of 0.
    return float(possible[enough[0] - 1 : enough[0] + 1].mean() - len(chances) // 2) if len(enough) else np.inf


@lru_cache(maxsize=64)
def _products_over_orders(b: tuple[int, ...]) -> Float[np.ndarray, " s"]:
    """How likely each value of ``sum_k a_k b_order(k)`` is, a being ``1 - n, 3 - n .. n - 1`` and every order of b
    equally likely: entries 0 to 2 s stand for -s to s.

    Places of b are given to a_1, a_2, ... in turn; the sets of places that are taken are the states.
    """
    count = len(b)
    a = range(1 - count, count, 2)
    reach = int(np.sort(np.abs(a)) @ np.sort(np.abs(b)))
    chances = np.zeros((2**count, 2 * reach + 1))
    chances[0, reach] = 1.0
    for taken in range(2**count - 1):
        given = taken.bit_count()
        for place in range(count):
            if not taken >> place & 1:
                chances[taken | 1 << place] += np.roll(chances[taken], a[given] * b[place]) / (count - given)
    return chances[-1]


def median_interval(
    values: Sequence[float | int] | Num[ArrayLike, " n"],
    confidence: float = 0.95,
    *,
    bounds: tuple[float | int, float | int] = (-np.inf, np.inf),
) -> Estimate:
    """The median of n independent values, with the interval between two order statistics that covers the median of
    their distribution with at least the probability ``confidence``, whatever that distribution is.

    It reaches from the k-th least value to the k-th largest, with the largest k for which its probability,
    ``1 - 2 P(Binomial(n, 1/2) < k)``, is at least ``confidence``; the estimate's ``level`` is this probability (exact
    for continuous distributions, at least that for others). At 95 % that is the whole range of 6 to 8 values (.969 for
    6), the second least to the second largest of 9 to 11 (.979 for 10), and the sixth of 20 (.959). Even the range of 5
    values, .9375, is too short: of too few values the interval is ``bounds``, and says nothing.

    Args:
        values: (n,), n at least 1.
        confidence: two-sided.
        bounds: the range of what is estimated.

    Raises:
        InputError: no values, values that are not finite, ``confidence`` outside (0, 1), or bounds that do not rise.

    David and Nagaraja, Order Statistics, section 7.1.
    """
    values = as_doubles("values", values)
    require(values.ndim == 1 and values.size > 0, "values.shape", values.shape, "(n,), n 1 or more")
    require(bool(np.isfinite(values).all()), "values", "not finite", "finite")
    require(is_number(confidence) and 0 < confidence < 1, "confidence", confidence, "strictly between 0 and 1")
    require(bounds[0] < bounds[1], "bounds", bounds, "(low, high) with low < high")
    # How many values lie below the median is binomial; rounding must not cost an order statistic.
    count, middle, ordered = len(values), float(np.median(values)), np.sort(values)
    left_out = 2 * scipy.stats.binom.cdf(np.arange(count // 2), count, 0.5)
    k = int(np.sum(left_out <= (1 - confidence) * (1 + 1e-9)))
    if k == 0:
        return Estimate(middle, float(bounds[0]), float(bounds[1]), float(confidence), "no order statistics", count)
    low, high = np.clip((ordered[k - 1], ordered[-k]), *bounds)
    return Estimate(middle, float(low), float(high), float(1 - left_out[k - 1]), "order statistics", count)


def _checked(positives: np.ndarray, negatives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    positives, negatives = as_floats("positives", positives), as_floats("negatives", negatives)
    for name, scores in (("positives", positives), ("negatives", negatives)):
        require(scores.ndim == 1, f"{name}.shape", scores.shape, "(n,)")
        require(len(scores) >= 2, f"number of {name}", len(scores), "2 or more")
        require(bool(np.isfinite(scores).all()), name, "not finite", "finite")
    return positives, negatives
