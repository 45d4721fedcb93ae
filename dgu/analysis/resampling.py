"""The statistics of a study made of replicates: intervals of a mean difference, a paired test of equivalence, a jackknife.

Replicates that split one pool again and again share most of their data, so the usual t interval is far too short. For
splits with ``n_test`` test and ``n_train`` training examples two replicates' results correlate by about
``n_test / (n_test + n_train)``, which makes the mean of J of them have variance
``(1 / J + n_test / n_train) S^2``, S^2 the sample variance (Nadeau and Bengio, Machine Learning 52, 2003, eq. 9).
Replicates on truly fresh samples keep ``S^2 / J``.

Equivalence turns the burden of proof round: two one-sided t tests (Schuirmann, J. Pharmacokinet. Biopharm. 15, 1987)
reject "the difference is at least the margin". Two arms do not "match" because a test found no difference.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Num
from scipy import stats

from dgu.errors import require

Verdict = Literal["supported", "not supported", "undecided"]

#: Default bound on the standard error, in margins: 0.8 points for a margin of 2.5.
STANDARD_ERROR_PER_MARGIN = 0.32


@dataclass(frozen=True)
class Interval:
    """A mean with its two-sided t interval: fields are floats, or arrays where ``values`` had leading axes."""

    estimate: float | np.ndarray
    standard_error: float | np.ndarray
    low: float | np.ndarray
    high: float | np.ndarray
    degrees_of_freedom: int
    confidence: float


def resampled_standard_error(
    values: Sequence[float | int] | Num[ArrayLike, "*batch J"], test_per_train: float | int = 0.0
) -> Float[np.ndarray, "*batch"]:
    """``sqrt((1 / J + n_test / n_train) S^2)`` of the mean over the last axis, S^2 with J - 1 degrees of freedom.

    Args:
        values: one result per replicate along the last axis, J at least 2.
        test_per_train: ``n_test / n_train`` of each replicate's split of the shared pool; 0 for fresh replicates.

    Raises:
        InputError: fewer than 2 replicates, non-finite values, or a negative ratio.
    """
    values = np.asarray(values, np.float64)
    replicates = values.shape[-1]
    require(replicates >= 2, "replicates", replicates, "at least 2")
    require(bool(np.isfinite(values).all()), "values", "non-finite", "finite")
    require(0 <= test_per_train < float("inf"), "test_per_train", test_per_train, "n_test / n_train, 0 or more")
    return np.asarray(np.sqrt(1 / replicates + test_per_train) * values.std(axis=-1, ddof=1))


def t_interval(values: Sequence[float | int] | Num[ArrayLike, "*batch J"], confidence: float = 0.95) -> Interval:
    """``mean +- t_{J-1} S / sqrt(J)`` over the last axis, for replicates that share nothing (fresh samples each).

    Raises:
        InputError: fewer than 2 replicates, non-finite values, or ``confidence`` outside (0, 1).
    """
    return _interval(values, 0.0, confidence)


def corrected_t_interval(
    values: Sequence[float | int] | Num[ArrayLike, "*batch J"], n_train: int, n_test: int, confidence: float = 0.95
) -> Interval:
    """``mean +- t_{J-1} sqrt((1 / J + n_test / n_train) S^2)`` over the last axis, for new splits of one shared pool.

    It covers the variation over pools, which J cannot reduce: the width tends to ``2 t S sqrt(n_test / n_train)``.
    Source: Nadeau and Bengio (2003), the corrected resampled t.

    Args:
        values: one result per replicate along the last axis.
        n_train: examples that a replicate's result is trained on.
        n_test: examples that it is tested on, disjoint from the training ones.
        confidence: two-sided.

    Raises:
        InputError: sizes below 1, fewer than 2 replicates, non-finite values, or ``confidence`` outside (0, 1).
    """
    return _interval(values, _ratio(n_train, n_test), confidence)


def jackknife_interval(
    whole: float | Num[ArrayLike, "*batch"],
    without: Sequence[float | int] | Num[ArrayLike, "*batch J"],
    confidence: float = 0.95,
) -> Interval:
    """``whole +- t_{J-1} se`` of a statistic by the delete-a-group jackknife: ``se^2 = (J - 1) / J sum (theta_j - mean)^2``.

    Args:
        whole: the statistic of all examples.
        without: the statistic without each of J groups of equal size, along the last axis.
        confidence: two-sided.

    Raises:
        InputError: fewer than 2 groups, non-finite values, shapes that do not fit, or ``confidence`` outside (0, 1).

    Efron and Tibshirani, An Introduction to the Bootstrap, chapter 11.
    """
    require(0 < confidence < 1, "confidence", confidence, "strictly between 0 and 1")
    centre, values = np.asarray(whole, np.float64), np.asarray(without, np.float64)
    require(values.shape[:-1] == centre.shape, "without.shape", values.shape, f"({centre.shape}, J)")
    groups = values.shape[-1]
    # The standard error of independent values, times J - 1: these share all groups but two.
    error = (groups - 1) * resampled_standard_error(values)
    half = stats.t.ppf((1 + confidence) / 2, groups - 1) * error
    mean, error, low, high = (float(x) if np.ndim(x) == 0 else x for x in (centre, error, centre - half, centre + half))
    return Interval(mean, error, low, high, groups - 1, float(confidence))


def _ratio(n_train: int, n_test: int) -> float:
    require(n_train >= 1 and n_test >= 1, "(n_train, n_test)", (n_train, n_test), "positive sizes")
    return n_test / n_train


def _interval(values: Sequence[float | int] | ArrayLike, test_per_train: float, confidence: float) -> Interval:
    require(0 < confidence < 1, "confidence", confidence, "strictly between 0 and 1")
    values = np.asarray(values, np.float64)
    spread = resampled_standard_error(values, test_per_train)
    centre = values.mean(axis=-1)
    freedom = values.shape[-1] - 1
    half = stats.t.ppf((1 + confidence) / 2, freedom) * spread
    mean, error, low, high = (
        float(x) if np.ndim(x) == 0 else x for x in (centre, spread, centre - half, centre + half)
    )
    return Interval(mean, error, low, high, freedom, float(confidence))


@dataclass(frozen=True)
class Equivalence:
    """What a paired comparison of two arms found. All figures are in the unit of the differences.

    Fields:
        interval: of the mean difference, at the confidence asked for; the verdict's.
        tost_interval: at ``2 confidence - 1`` (90 % for 95 %): it lies inside the margin exactly where
            ``p_equivalence`` is below ``1 - confidence``. Reported beside; the verdict asks for more.
        margin: the largest difference that counts as none.
        max_standard_error: beyond it the verdict is undecided.
        p_equivalence: of the two one-sided tests against ``|difference| >= margin``, the larger of the two.
        p_difference: two-sided, against ``difference = 0``.
        p_beyond: against ``|difference| <= margin``, the smaller of the two one-sided tests, doubled.
        equivalent: the interval lies inside ``(-margin, margin)``.
        different: the interval leaves 0 out. Equivalent and different can both hold: a difference too small to matter.
        beyond: the interval lies wholly outside ``[-margin, margin]``.
        verdict: on "the arms are equivalent", see ``equivalence``.
        difference_verdict: on "the arms differ by more than the margin" (what a negative control must show).
    """

    interval: Interval
    tost_interval: Interval
    margin: float
    max_standard_error: float
    p_equivalence: float
    p_difference: float
    p_beyond: float
    equivalent: bool
    different: bool
    beyond: bool
    verdict: Verdict
    difference_verdict: Verdict

    @property
    def estimate(self) -> float:
        """The mean difference."""
        return float(self.interval.estimate)

    @property
    def standard_error(self) -> float:
        """Of the mean difference, corrected where replicates share a pool."""
        return float(self.interval.standard_error)


def equivalence(
    differences: Sequence[float | int] | Num[ArrayLike, "..."],
    margin: float | int,
    *,
    n_train: int | None = None,
    n_test: int | None = None,
    confidence: float = 0.95,
    max_standard_error: float | int | None = None,
) -> Equivalence:
    """Are two arms equivalent within ``margin``? From the paired difference of each replicate.

    The verdict follows the ``confidence`` interval of the mean difference:

    - *supported*: the interval lies inside ``(-margin, margin)``;
    - *not supported*: it lies wholly outside ``[-margin, margin]``, above or below;
    - *undecided*: it straddles a margin, or its standard error exceeds ``max_standard_error``.

    An interval that leaves out 0 but stays within the margin is *supported*: such a difference is real and too small to
    matter (``different`` tells). One that leaves out 0 and straddles the margin is *undecided*: it agrees with both.
    The 95 % interval is the two one-sided tests at 2.5 % each, stricter than the customary 5 %. The bound on the
    standard error is there so that no verdict rests on a lucky estimate of a noisy study.

    Args:
        differences: arm A minus arm B, one per replicate, J at least 2.
        margin: positive, in the unit of the differences (0.025 for 2.5 points of accuracy).
        n_train: with ``n_test``, for replicates that split one shared pool: corrected resampled t.
        n_test: give both or neither; neither for replicates on fresh samples.
        confidence: above 0.5, so that the interval of the two one-sided tests exists.
        max_standard_error: ``0.32 * margin`` unless given (0.8 points for a margin of 2.5); ``inf`` for no bound.

    Raises:
        InputError: fewer than 2 differences or not in one axis, non-finite ones, a margin or bound that is not
            positive, one of ``n_train``, ``n_test`` without the other, or ``confidence`` outside (0.5, 1).
    """
    require(np.ndim(differences) == 1, "differences.shape", np.shape(differences), "(J,), one per replicate")
    require(0 < margin < float("inf"), "margin", margin, "positive")
    require(0.5 < confidence < 1, "confidence", confidence, "strictly between 0.5 and 1")
    bound = float(STANDARD_ERROR_PER_MARGIN * margin if max_standard_error is None else max_standard_error)
    require(bound > 0, "max_standard_error", bound, "positive")
    require((n_train is None) == (n_test is None), "(n_train, n_test)", (n_train, n_test), "both given or neither")
    ratio = 0.0 if n_train is None or n_test is None else _ratio(n_train, n_test)

    interval = _interval(differences, ratio, confidence)
    low, high = float(interval.low), float(interval.high)
    equivalent = -margin < low and high < margin
    beyond = low > margin or high < -margin
    decided = float(interval.standard_error) <= bound
    return Equivalence(
        interval=interval,
        tost_interval=_interval(differences, ratio, 2 * confidence - 1),
        margin=float(margin),
        max_standard_error=bound,
        p_equivalence=max(_p_above(interval, -margin), _p_below(interval, margin)),
        p_difference=2 * min(_p_above(interval, 0.0), _p_below(interval, 0.0)),
        p_beyond=min(1.0, 2 * min(_p_above(interval, margin), _p_below(interval, -margin))),
        equivalent=equivalent,
        different=low > 0 or high < 0,
        beyond=beyond,
        verdict=_verdict(decided, equivalent, beyond),
        difference_verdict=_verdict(decided, beyond, equivalent),
    )


def _p_above(interval: Interval, value: float | int) -> float:
    """One-sided p for ``mean > value``. Without spread it is 0 or 1, and a half at the value itself."""
    gap, error = float(interval.estimate) - value, float(interval.standard_error)
    if error == 0:
        return 0.5 if gap == 0 else float(gap < 0)
    return float(stats.t.sf(gap / error, interval.degrees_of_freedom))


def _p_below(interval: Interval, value: float | int) -> float:
    """One-sided p for ``mean < value``."""
    gap, error = float(interval.estimate) - value, float(interval.standard_error)
    if error == 0:
        return 0.5 if gap == 0 else float(gap > 0)
    return float(stats.t.cdf(gap / error, interval.degrees_of_freedom))


def _verdict(decided: bool, holds: bool, fails: bool) -> Verdict:
    if not decided or holds == fails:
        return "undecided"
    return "supported" if holds else "not supported"
