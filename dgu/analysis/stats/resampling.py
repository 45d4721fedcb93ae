"""The statistics of a study made of replicates: intervals of a mean difference, a paired test of equivalence, a
jackknife.

The intervals here are for independent replicates, on fresh samples. Replicates that split one pool again and again
share most of their data: their interval needs the variance between pools, too (``dgu.analysis.stats.pools``).

Equivalence turns the burden of proof round: two one-sided t tests (Schuirmann, J. Pharmacokinet. Biopharm. 15, 1987)
reject "the difference is at least the margin". Two arms do not "match" because a test found no difference.

Replicates that all agree, up to rounding, say nothing about how far others would lie: their standard error is 0 and
their interval has no width, which does not mean certainty. ``equivalence`` leaves them undecided.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from dgu.analysis.stats.estimates import Estimate
from dgu.core.arrays import as_doubles, as_floats, as_number, check_squares, is_floating, is_number
from dgu.core.arrays import rounding as spacing
from dgu.core.errors import require

Verdict = Literal["supported", "not supported", "undecided"]

#: Default bound on the standard error, in margins: 0.8 points for a margin of 2.5.
STANDARD_ERROR_PER_MARGIN = 0.32
#: Size of what is compared, in margins, where nothing else tells it: accuracies up to 100 for a margin of 2.5.
_SIZE_PER_MARGIN = 40
#: Range of an interval that is cut to none.
_UNBOUNDED = (-np.inf, np.inf)


def rounding(values: Sequence[float | int] | Num[ArrayLike, "..."]) -> float:
    """The largest difference, relative to the values themselves, that counts as rounding: 1e-12, of single precision
    5e-7.

    That of shorter floating-point numbers is four times their own relative spacing, too.
    """
    dtype = np.asarray(values).dtype
    return 4 * spacing(values) if is_floating(dtype) and dtype.itemsize <= 4 else 1e-12


def sample_deviation(
    values: Sequence[float | int] | Num[ArrayLike, "*batch J"], scale: float | int = 0.0
) -> Float[np.ndarray, "*batch"]:
    """The sample standard deviation over the last axis (J - 1 degrees of freedom), 0 where the values differ by
    rounding alone.

    Seven times 0.1 have a standard deviation of 1.5e-17 in floating point, which must not count as one. A range of up
    to ``rounding(values)`` times the largest absolute value is rounding.

    Args:
        values: J at least 2, finite.
        scale: size of the numbers that the values were computed from, where that is larger than the values: a
            difference of two equal accuracies is rounded as the accuracies are, by up to ``rounding(values)`` in units
            of 1.

    Raises:
        InputError: fewer than 2 values, or values that are not finite or whose squares are not.
    """
    relative, values = rounding(values), as_doubles("values", values)
    require(values.ndim >= 1 and values.shape[-1] >= 2, "values.shape", values.shape, "(..., J), J at least 2")
    require(bool(np.isfinite(values).all()), "values", "non-finite", "finite")
    check_squares(np.float64, values=values)
    largest = np.maximum(np.abs(values).max(axis=-1), scale)
    return np.where(np.ptp(values, axis=-1) <= relative * largest, 0.0, values.std(axis=-1, ddof=1))


def _standard_error(values: Sequence[float | int] | ArrayLike, scale: float = 0.0) -> np.ndarray:
    """``S / sqrt(J)`` of the mean over the last axis; exactly 0 where the values differ by rounding alone (see
    ``sample_deviation``): then nothing is known of their spread.
    """
    given, values = values, as_floats("values", values)
    require(values.ndim >= 1, "values.shape", values.shape, "(..., J), one result per replicate along the last axis")
    replicates = values.shape[-1]
    require(replicates >= 2, "replicates", replicates, "at least 2")
    require(bool(np.isfinite(values).all()), "values", "non-finite", "finite")
    check_squares(np.float64, values=values)
    return np.asarray(np.sqrt(1 / replicates) * sample_deviation(given, scale))


def t_interval(
    values: Sequence[float | int] | Num[ArrayLike, "*batch J"],
    confidence: float = 0.95,
    *,
    bounds: tuple[float | int, float | int] = _UNBOUNDED,
) -> Estimate:
    """``mean +- t_{J-1} S / sqrt(J)`` over the last axis, for independent replicates (fresh samples in each).

    Args:
        values: one result per replicate along the last axis, J at least 2.
        confidence: two-sided.
        bounds: the range of what is estimated, to which the interval is cut: ``(0, 1)`` for a share, ``(-1, 1)`` for a
            correlation, ``(-100, 100)`` for a difference of accuracies in percentage points.

    Raises:
        InputError: fewer than 2 replicates, non-finite values, ``confidence`` outside (0, 1), or bounds that do not
            rise.
    """
    return _interval(values, confidence, bounds)


def geometric_mean(values: Sequence[float | int] | Num[ArrayLike, " J"], confidence: float = 0.95) -> Estimate:
    """``exp(mean(log values))`` with the t interval of the logarithms, for positive values that differ by factors.

    Args:
        values: (J,), J at least 2, above 0.
        confidence: two-sided.

    Raises:
        InputError: fewer than 2 values, values that are not positive and finite, or ``confidence`` outside (0, 1).
    """
    values = as_doubles("values", values)
    sound = values.ndim == 1 and bool(((values > 0) & np.isfinite(values)).all())
    require(sound, "values", f"an array of shape {values.shape}", "(J,), all of them positive and finite")
    with np.errstate(over="ignore"):  # An end beyond the largest number is infinite.
        return t_interval(np.log(values), confidence).map(lambda part: float(np.exp(part)))


def jackknife_interval(
    whole: float | Num[ArrayLike, "*batch"],
    without: Sequence[float | int] | Num[ArrayLike, "*batch J"],
    confidence: float = 0.95,
    *,
    bounds: tuple[float | int, float | int] = _UNBOUNDED,
) -> Estimate:
    """``whole +- t_{J-1} se`` of a statistic by the delete-a-group jackknife: ``se^2 = (J - 1) / J sum (theta_j -
    mean)^2``.

    Args:
        whole: the statistic of all examples.
        without: the statistic without each of J groups of equal size, along the last axis.
        confidence: two-sided.
        bounds: the range of what is estimated, as of ``t_interval``.

    Raises:
        InputError: fewer than 2 groups, non-finite values, shapes that do not fit, ``confidence`` outside (0, 1), or
            bounds that do not rise.

    Efron and Tibshirani, An Introduction to the Bootstrap, chapter 11.
    """
    centre, values = as_doubles("whole", whole), as_floats("without", without)
    require(bool(np.isfinite(centre).all()), "whole", "non-finite", "finite")
    fits = values.ndim >= 1 and values.shape[:-1] == centre.shape
    wanted = f"({''.join(f'{size}, ' for size in centre.shape)}J), one value without each group"
    require(fits, "without.shape", values.shape, wanted)
    groups = values.shape[-1]
    # The standard error of independent values, times J - 1: these share all groups but two.
    error = np.asarray((groups - 1) * _standard_error(values))
    return _about(centre, error, groups - 1, confidence, bounds, "jackknife t")


def _interval(
    values: Sequence[float | int] | ArrayLike,
    confidence: float,
    bounds: tuple[float | int, float | int] = _UNBOUNDED,
    scale: float = 0.0,
) -> Estimate:
    error = _standard_error(values, scale)
    values = as_doubles("values", values)
    return _about(np.asarray(values.mean(axis=-1)), error, values.shape[-1] - 1, confidence, bounds, "t")


def _about(
    centre: np.ndarray,
    error: np.ndarray,
    freedom: int,
    confidence: float,
    bounds: tuple[float | int, float | int],
    method: str,
) -> Estimate:
    """``centre +- t_freedom error``, cut to ``bounds``."""
    require(is_number(confidence) and 0 < confidence < 1, "confidence", confidence, "strictly between 0 and 1")
    require(bounds[0] < bounds[1], "bounds", bounds, "(low, high) with low < high")
    half = scipy.stats.t.ppf((1 + confidence) / 2, freedom) * error
    ends = (np.clip(centre - half, *bounds), np.clip(centre + half, *bounds))
    mean, spread, low, high = (float(x) if np.ndim(x) == 0 else x for x in (centre, error, *ends))
    return Estimate(mean, low, high, float(confidence), method, freedom + 1, spread, freedom=freedom)


@dataclass(frozen=True)
class Equivalence:
    """The result of a paired comparison of two arms, in the unit of the differences.

    Differences without spread, equal up to rounding, reject nothing: their p values are 1, and they are neither
    equivalent nor different nor beyond.

    Fields:
        interval: of the mean difference, at the confidence asked for; the verdict's.
        tost_interval: at ``2 confidence - 1`` (90 % for 95 %): it lies inside the margin exactly where
            ``p_equivalence`` is below ``1 - confidence``. Reported beside the other one; the verdict requires more.
        margin: the largest difference that counts as none.
        max_standard_error: beyond it the verdict is undecided.
        p_equivalence: of the two one-sided tests against ``|difference| >= margin``, the larger of the two.
        p_difference: two-sided, against ``difference = 0``.
        p_beyond: against ``|difference| <= margin``, the smaller of the two one-sided tests, doubled.
        equivalent: the interval lies inside ``(-margin, margin)``.
        different: the interval excludes 0. Equivalent and different can both hold: a difference too small to matter.
        beyond: the interval lies wholly outside ``[-margin, margin]``.
        verdict: on "the arms are equivalent", see ``equivalence``.
        difference_verdict: on "the arms differ by more than the margin" (what a negative control must show).
    """

    interval: Estimate
    tost_interval: Estimate
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
        return float(self.interval.value)

    @property
    def standard_error(self) -> float:
        """Standard error of the mean difference."""
        return float(self.interval.standard_error)


def equivalence(
    differences: Sequence[float | int] | Num[ArrayLike, "..."],
    margin: float | int,
    *,
    confidence: float = 0.95,
    max_standard_error: float | int | None = None,
    bounds: tuple[float | int, float | int] = _UNBOUNDED,
) -> Equivalence:
    """Are two arms equivalent within ``margin``? From the paired difference of each replicate.

    The verdict follows the ``confidence`` interval of the mean difference:

    - *supported*: the interval lies inside ``(-margin, margin)``;
    - *not supported*: it lies wholly outside ``[-margin, margin]``, above or below;
    - *undecided*: it straddles a margin, or its standard error exceeds ``max_standard_error``, or is 0: differences
      that are all equal, up to rounding, show no spread and decide nothing.

    An interval that excludes 0 but stays within the margin is *supported*: such a difference is real and too small to
    matter (``different`` tells). One that excludes 0 and straddles the margin is *undecided*: it agrees with both. The
    95 % interval is the two one-sided tests at 2.5 % each, stricter than the customary 5 %. The bound on the standard
    error is there so that no verdict rests on a lucky estimate of a noisy study.

    Args:
        differences: arm A minus arm B, one per independent replicate, J at least 2.
        margin: positive, in the unit of the differences (0.025 for 2.5 points of accuracy).
        confidence: above 0.5, so that the interval of the two one-sided tests exists.
        max_standard_error: ``0.32 * margin`` unless given (0.8 points for a margin of 2.5); ``inf`` for no bound.
        bounds: the range of a difference, as of ``t_interval``. Its largest end is also taken for the size of what is
            compared, to which its rounding is in proportion; without finite bounds that is 1 or 40 margins, the larger
            (1 for accuracies, 100 for percentages with a margin of 2.5 points). Differences whose range is at most
            1e-12 of that size (5e-7 in single precision) are equal: state bounds where everything compared is tiny.

    Raises:
        InputError: fewer than 2 differences or not in one axis, non-finite ones, a margin or bound that is not
            positive, or ``confidence`` outside (0.5, 1).
    """
    require(np.ndim(differences) == 1, "differences.shape", np.shape(differences), "(J,), one per replicate")
    require(is_number(margin) and 0 < margin < float("inf"), "margin", margin, "positive")
    require(is_number(confidence) and 0.5 < confidence < 1, "confidence", confidence, "strictly between 0.5 and 1")
    margin = as_number(margin)
    bound = float(STANDARD_ERROR_PER_MARGIN * margin if max_standard_error is None else max_standard_error)
    require(bound > 0, "max_standard_error", bound, "positive")

    # The differences may all be rounding of 0, in proportion to the numbers that they are differences of.
    largest = max(map(abs, map(float, bounds)))
    scale = largest if np.isfinite(largest) else max(1.0, _SIZE_PER_MARGIN * float(margin))
    interval = _interval(differences, confidence, bounds, scale)
    low, high, error = float(interval.low), float(interval.high), float(interval.standard_error)
    known, freedom = error > 0, np.shape(differences)[0] - 1
    equivalent = known and -margin < low and high < margin
    beyond = known and (low > margin or high < -margin)
    decided = known and error <= bound

    def above(value: float | int) -> float:
        """One-sided p for ``mean > value``."""
        return float(scipy.stats.t.sf((float(interval.value) - value) / error, freedom)) if known else 1.0

    def below(value: float | int) -> float:
        """One-sided p for ``mean < value``."""
        return float(scipy.stats.t.cdf((float(interval.value) - value) / error, freedom)) if known else 1.0

    return Equivalence(
        interval=interval,
        tost_interval=_interval(differences, 2 * confidence - 1, bounds, scale),
        margin=float(margin),
        max_standard_error=bound,
        p_equivalence=max(above(-margin), below(margin)),
        p_difference=min(1.0, 2 * min(above(0.0), below(0.0))),
        p_beyond=min(1.0, 2 * min(above(margin), below(-margin))),
        equivalent=equivalent,
        different=known and (low > 0 or high < 0),
        beyond=beyond,
        verdict=_verdict(decided, equivalent, beyond),
        difference_verdict=_verdict(decided, beyond, equivalent),
    )


def _verdict(decided: bool, holds: bool, fails: bool) -> Verdict:
    if not decided or holds == fails:
        return "undecided"
    return "supported" if holds else "not supported"
