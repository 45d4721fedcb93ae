"""A measured value with its uncertainty: the one type that analyses return, and claims, tables and plots take."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy
from jax.typing import ArrayLike
from jaxtyping import Float, Num, Shaped

from dgu.core.arrays import as_doubles, as_number, check_squares, is_number, rounding
from dgu.core.brief import short_repr
from dgu.core.errors import require


@short_repr
@dataclass(frozen=True)
class Estimate:
    """A value and its two-sided interval: floats, or arrays of one shape for several values at once.

    Attributes:
        value: the point estimate.
        low, high: ends of the interval. Where all replicates agree it has no width, which does not mean certainty,
            unless ``exact``.
        level: probability with which the interval is meant to cover the true value.
        method: how the interval was made, such as ``"t over replicates"``.
        n: how many observations or replicates it rests on; None where that is not one number.
        standard_error: standard error of the value; NaN where the method has none.
        exact: the value has no sampling error: a closed form, a count, or the one result of a deterministic
            computation.
        freedom: degrees of freedom of Student's t, where the interval is one of t; None for any other.
    """

    value: float | np.ndarray
    low: float | np.ndarray
    high: float | np.ndarray
    level: float = 0.95
    method: str = ""
    n: int | None = None
    standard_error: float | np.ndarray = np.nan
    exact: bool = False
    freedom: float | int | None = None

    def __post_init__(self) -> None:
        for name in ("value", "low", "high", "standard_error"):
            # Of narrow types differences would wrap.
            object.__setattr__(self, name, _unbounded(getattr(self, name)))
        require(is_number(self.level) and 0 < self.level < 1, "level", self.level, "strictly between 0 and 1")
        unordered = np.asarray(self.low) > np.asarray(self.high)
        require(not bool(unordered.any()), "interval", (self.low, self.high), "(low, high) with low <= high")

    def __getitem__(self, place: Any) -> "Estimate":
        """One entry, or several, of an estimate whose fields are arrays."""

        def entry(part: float | np.ndarray) -> float | np.ndarray:
            chosen = np.asarray(part)[place]
            return float(chosen) if np.ndim(chosen) == 0 else chosen

        error = self.standard_error if np.ndim(self.standard_error) == 0 else entry(self.standard_error)
        return replace(self, value=entry(self.value), low=entry(self.low), high=entry(self.high), standard_error=error)

    def __iter__(self) -> Iterator["Estimate"]:
        """The entries of an estimate of several values, one after the other along the first axis."""
        return (self[place] for place in range(len(np.asarray(self.value))))

    def packed(self) -> Float[np.ndarray, "4 ..."]:
        """Value, standard error, low and high as one array, to be stored; ``unpacked`` reads it."""
        parts = (self.value, self.standard_error, self.low, self.high)
        return np.stack([np.asarray(part, np.float64) for part in parts])

    @classmethod
    def unpacked(
        cls, stored: Num[np.ndarray, "..."], *, method: str = "", freedom: float | int | None = None
    ) -> "Estimate":
        """The estimate that ``packed`` made an array of; method and degrees of freedom, which were not stored, are
        those given, and level and n the defaults.

        Raises:
            InputError: an array whose first axis is not of length 4.
        """
        require(np.shape(stored)[:1] == (4,), "stored.shape", np.shape(stored), "(4, ...), as packed gives it")
        value, error, low, high = (float(part) if np.ndim(part) == 0 else np.asarray(part) for part in stored)
        return cls(value, low, high, method=method, standard_error=error, freedom=freedom)

    def map(self, function: Callable[[Any], Any]) -> "Estimate":
        """The estimate of a rising ``function`` of the value: it is applied to the value and to both ends of the
        interval.
        """
        value, low, high = (function(part) for part in (self.value, self.low, self.high))
        return replace(self, value=value, low=low, high=high, standard_error=np.nan)

    def stacked(self, axis: int = -1) -> np.ndarray:
        """Value, low and high as one float64 array along a new ``axis``: by default a row for each value, as
        ``dgu.plots.interval_dots`` draws them.
        """
        return np.stack([np.asarray(part, np.float64) for part in (self.value, self.low, self.high)], axis=axis)

    def text(self, form: str) -> str:
        """``value [low, high]`` of a single value, each number formatted as ``form`` says, such as ``".1%"``."""
        return f"{self.value:{form}} [{self.low:{form}}, {self.high:{form}}]"


def _unbounded(part: Any) -> Any:
    """A number of NumPy or JAX as Python's, and an array of whole or short numbers as one of float64."""
    if isinstance(part, np.ndarray) and part.ndim and (part.dtype.kind in "iu" or part.dtype == np.float16):
        return part.astype(np.float64)
    return as_number(part)


def exactly(value: float) -> Estimate:
    """An ``Estimate`` of a value that is known exactly."""
    return Estimate(value, value, value, method="exact", exact=True)


def normal_estimate(
    value: float | np.ndarray,
    standard_error: float | np.ndarray,
    *,
    level: float = 0.95,
    n: int | None = None,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Estimate:
    """``value +- z standard_error`` with the normal quantile z, for a value whose sampling distribution is nearly
    normal; cut to ``bounds``.

    Args:
        value: the point estimate.
        standard_error: its standard error, 0 or more.
        level: probability of the two-sided interval.
        n: how many observations it rests on.
        bounds: range of what is estimated: ``(0, 1)`` for a share, ``(-1, 1)`` for a correlation.
    """
    half = scipy.stats.norm.ppf((1 + level) / 2) * np.asarray(standard_error)
    low, high = np.clip(value - half, *bounds), np.clip(value + half, *bounds)
    if np.ndim(value) == 0:
        low, high = float(low), float(high)
    return Estimate(value, low, high, level, "normal", n, standard_error)


def independent_ratio(a: Estimate, b: Estimate) -> Estimate:
    """``a / b`` of two independent estimates of positive quantities, with the interval of its logarithm.

    By the delta method ``log(a / b)`` has the variance ``(se_a / a)^2 + (se_b / b)^2``; the interval, of the level that
    the two share, is ``(a / b) exp(-+ z sqrt(variance))`` with the normal quantile z. Estimates may be arrays of one
    shape.

    A single ``a`` of 0 or less has no logarithm: the ratio is then 0, with an interval up to ``a.high / b``.

    Raises:
        InputError: ``b`` is not positive and finite, one of several ``a`` is 0 or less, or their levels differ.
    """
    level = _common_level(a, b)
    require(bool(np.all((np.asarray(b.value) > 0) & np.isfinite(b.value))), "b", b.value, "positive and finite")
    if np.ndim(a.value) == 0 and a.value <= 0:
        return Estimate(0.0, 0.0, max(0.0, float(a.high / b.value)), level, standard_error=0.0)
    require(bool(np.all(np.asarray(a.value) > 0)), "a", a.value, "positive, where there are several")
    value = a.value / b.value
    relative = np.hypot(_error(a) / a.value, _error(b) / b.value)
    log = normal_estimate(np.zeros(np.shape(value)), relative, level=level)
    ends = value * np.exp(log.low), value * np.exp(log.high)
    return Estimate(value, *ends, level, "normal, of the logarithm", standard_error=value * relative)


def independent_difference(a: Estimate, b: Estimate, scale: float = 1.0) -> Estimate:
    """``(a - b) / scale`` of two independent estimates of single values, with the normal interval of their level.

    Its standard error is ``sqrt(se_a^2 + se_b^2) / scale``.

    Raises:
        InputError: ``scale`` is not positive and finite, or their levels differ.
    """
    require(bool(0 < scale < np.inf), "scale", scale, "positive and finite")
    error = float(np.hypot(_error(a), _error(b)))
    return normal_estimate(float(a.value - b.value) / scale, error / scale, level=_common_level(a, b))


def share_difference(a: Estimate, b: Estimate) -> Estimate:
    """``a - b`` of two independent shares with Newcombe's interval, from Wilson's of each.

    ``d - sqrt((a - a_low)^2 + (b_high - b)^2)`` to ``d + sqrt((a_high - a)^2 + (b - b_low)^2)``. Shares may be arrays.

    Newcombe, Statistics in Medicine 17, 1998, method 10.
    """
    value = a.value - b.value
    low = value - np.hypot(a.value - a.low, b.high - b.value)
    high = value + np.hypot(a.high - a.value, b.value - b.low)
    error = np.hypot(_error(a), _error(b))
    value, low, high, error = (float(x) if np.ndim(x) == 0 else np.asarray(x) for x in (value, low, high, error))
    return Estimate(value, low, high, _common_level(a, b), "Newcombe", standard_error=error)


def _error(estimate: Estimate) -> float | np.ndarray:
    return 0.0 if estimate.exact else estimate.standard_error


def _common_level(a: Estimate, b: Estimate) -> float:
    """The level of two estimates; one that is exact has any."""
    require(a.exact or b.exact or a.level == b.level, "levels of the two estimates", (a.level, b.level), "the same")
    return b.level if a.exact else a.level


def standard_deviation(values: Num[ArrayLike, "*batch n"]) -> Estimate:
    """The standard deviation s of n independent values along the last axis (n - 1 degrees of freedom), with a normal
    interval.

    The standard error is ``s sqrt((k - 1) / (4 n))``, k the fourth central moment over the squared second one: the
    delta method on the sample variance, whose own variance is ``(k - 1) sigma^4 / n`` for large n. It is ``s / sqrt(2
    n)`` for Gaussian values.

    Args:
        values: (..., n), n at least 4: of fewer the fourth moment says nothing.

    Raises:
        InputError: fewer than 4 values, or values that are not finite.
    """
    relative, values = rounding(values), as_doubles("values", values)
    require(values.ndim >= 1 and values.shape[-1] >= 4, "values.shape", values.shape, "(..., n), n at least 4")
    require(bool(np.isfinite(values).all()), "values", "non-finite", "finite")
    check_squares(np.float64, power=4, values=values)
    count, variance = values.shape[-1], values.var(axis=-1)
    by_rounding = np.ptp(values, axis=-1) <= relative * np.abs(values).max(axis=-1)
    deviation = np.where(by_rounding, 0.0, values.std(axis=-1, ddof=1))[()]
    fourth = np.mean((values - values.mean(axis=-1, keepdims=True)) ** 4, axis=-1)
    # A fair coin has k = 1, where the delta method's error vanishes.
    excess = np.maximum(fourth / np.float_power(np.where(variance > 0, variance, 1.0), 2) - 1, 1e-6)
    return normal_estimate(deviation, deviation * np.sqrt(excess / (4 * count)), n=count, bounds=(0.0, np.inf))


def proportion(hits: Shaped[ArrayLike, "..."], *, exact: bool = False) -> Estimate:
    """A fraction of independent cases, ``(n,)`` of truth values, with its 95 % interval.

    Wilson's interval covers the true fraction in 95 % of cases on average over fractions; the ``exact`` one, of Clopper
    and Pearson, in at least 95 % whatever the fraction, and is wider.

    Raises:
        InputError: there are no cases, or the array does not hold truth values.
    """
    hits = np.asarray(hits)
    what = f"{hits.dtype} of shape {hits.shape}"
    require(
        hits.dtype == np.bool_ and hits.ndim == 1 and hits.size > 0, "hits", what, "(n,) of truth values, n 1 or more"
    )
    count, total = int(hits.sum()), len(hits)
    value = count / total
    low, high = scipy.stats.binomtest(count, total).proportion_ci(0.95, "exact") if exact else wilson(value, total)
    error, method = float(np.sqrt(value * (1 - value) / total)), "Clopper-Pearson" if exact else "Wilson"
    return Estimate(value, float(low), float(high), method=method, n=total, standard_error=error)


def bounded_mean(values: Num[ArrayLike, " n"], bounds: tuple[float | int, float | int]) -> Estimate:
    """The mean of n independent values that lie within ``bounds``, with a 95 % interval that does so too.

    The interval is that of the percentiles of the bootstrap: a t interval of a mean next to the end of its range
    reaches beyond it. It is meant for hundreds of values: of a few it is too narrow (``median_interval``). Where all
    values are one number v, the share of others is at most Wilson's limit q for none found among n, and these may be
    anything within (low, high): from ``v - q (v - low)`` to ``v + q (high - v)``.

    Raises:
        InputError: no values, values outside the bounds, or bounds that do not rise.
    """
    relative, values, (low, high) = rounding(values), as_doubles("values", values), bounds
    require(-np.inf < low < high < np.inf, "bounds", bounds, "(low, high) with low < high, both finite")
    require(values.ndim == 1 and values.size > 0, "values.shape", values.shape, "(n,), n 1 or more")
    inside = bool(((values >= low) & (values <= high)).all())
    require(inside, "values", "outside", f"within [{low:g}, {high:g}]")
    if np.ptp(values) > relative * np.abs(values).max():  # Values that differ by rounding alone are one number.
        ends = scipy.stats.bootstrap((values,), np.mean, method="percentile", rng=0).confidence_interval
        mean = values.mean()
        return Estimate(float(mean), float(ends.low), float(ends.high), method="percentile bootstrap", n=len(values))
    value, other = float(values[0]), float(wilson(0, len(values))[1])
    ends = value - other * (value - low), value + other * (high - value)
    return Estimate(value, *ends, method="Wilson", n=len(values))


def wilson(
    share: float | int | Float[np.ndarray, "..."], cases: float | int, confidence: float = 0.95
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Wilson's interval of a share of ``cases`` independent cases, within [0, 1]; the number of cases need not be
    whole.

    Raises:
        InputError: a share outside [0, 1], a number of cases that is not positive, or a confidence outside (0, 1).
    """
    share = as_doubles("share", share)
    require(bool(((share >= 0) & (share <= 1)).all()), "share", share.tolist(), "in [0, 1]")
    require(is_number(cases) and 0 < cases <= 1e100, "cases", cases, "positive, at most 1e+100")
    cases = float(cases)
    require(is_number(confidence) and 0 < confidence < 1, "confidence", confidence, "strictly between 0 and 1")
    z2 = scipy.stats.norm.ppf((1 + confidence) / 2) ** 2
    centre = (share + z2 / (2 * cases)) / (1 + z2 / cases)
    half = np.sqrt(z2 * (share * (1 - share) / cases + z2 / (4 * cases**2))) / (1 + z2 / cases)
    # Exactly 0 and 1 at the ends, where the two terms cancel but for rounding.
    low, high = np.where(share == 0, 0.0, centre - half), np.where(share == 1, 1.0, centre + half)
    return low, high
