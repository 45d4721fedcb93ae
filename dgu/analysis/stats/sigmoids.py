"""Sigmoids fitted to scores: where do they cross a level, and over which measure of size do several curves agree?"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from jax.typing import ArrayLike
from jaxtyping import Float, Integer, Num

from dgu.analysis.stats.estimates import Estimate
from dgu.core.arrays import as_doubles, as_labels
from dgu.core.brief import short_repr
from dgu.core.errors import require

#: Bound of the natural logarithm of the slope: a step and a straight line within any range of sizes.
_MOST = 5.0


@short_repr
@dataclass(frozen=True, eq=False)
class SigmoidFit:
    """``y = 1 / (1 + exp(-a (x - b_c)))`` with one slope a and a midpoint b for each curve c. Make it with
    ``fit_sigmoids``.

    Attributes:
        slope: a, per unit of x, positive.
        midpoints: b, ``(C,)``.
        rmse: root-mean-square residual.
        slope_draws, midpoint_draws: slopes and midpoints of the bootstrap, ``(R,)`` and ``(R, C)``.
    """

    slope: float
    midpoints: np.ndarray
    rmse: float
    slope_draws: np.ndarray
    midpoint_draws: np.ndarray

    def __call__(self, x: Num[ArrayLike, "..."], curve: int = 0) -> np.ndarray:
        """The fitted score of one curve."""
        return scipy.special.expit(self.slope * (as_doubles("x", x) - self.midpoints[curve]))

    def of(self, quantity: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Estimate:
        """``quantity(slope (...), midpoints (..., C))`` with the percentile interval of its bootstrap draws."""
        value = float(quantity(np.asarray(self.slope), self.midpoints))
        low, high = np.quantile(quantity(self.slope_draws, self.midpoint_draws), [0.025, 0.975])
        draws = len(self.slope_draws)
        return Estimate(value, float(low), float(high), method="bootstrap percentiles", n=draws)

    def crossing(self, level: float | int = 0.95, curve: int = 0) -> Estimate:
        """Where a curve reaches ``level``: ``b + log(level / (1 - level)) / a``."""
        require(0 < level < 1, "level", level, "strictly between 0 and 1")
        return self.of(lambda slope, midpoints: midpoints[..., curve] + scipy.special.logit(level) / slope)

    def spread(self, shift: Num[ArrayLike, " C"] | None = None) -> Estimate:
        """Standard deviation (``ddof=1``) of the curves' midpoints over the abscissa ``x - shift_c``; two curves or
        more.
        """
        moved = self._shift(shift)
        return self.of(lambda _, midpoints: (midpoints - moved).std(axis=-1, ddof=1))

    def exponent(self, shift: Num[ArrayLike, " C"]) -> Estimate:
        """Slope of the midpoints on ``shift``: 1 where curves agree over ``x - shift``, 0 where they agree over ``x``.

        It is above 1/2 exactly where the midpoints spread less over ``x - shift`` than over ``x``.
        """
        moved = self._shift(shift)
        centred = moved - moved.mean()
        require(bool((centred != 0).any()), "shift", moved.tolist(), "different values")
        return self.of(lambda _, midpoints: midpoints @ centred / (centred @ centred))

    def _shift(self, shift: Float[ArrayLike, " C"] | None) -> np.ndarray:
        count = len(self.midpoints)
        require(count >= 2, "number of curves", count, "2 or more")
        moved = np.zeros(count) if shift is None else as_doubles("shift", shift)
        require(moved.shape == (count,), "shift.shape", moved.shape, f"({count},), one for each curve")
        return moved


def fit_sigmoids(
    x: Num[ArrayLike, " n"],
    y: Num[ArrayLike, " m"],
    curve: Integer[ArrayLike, " k"] | None = None,
    *,
    resamples: int = 400,
    seed: int = 0,
) -> SigmoidFit:
    """Least squares (scipy) through scores of one or several curves, with a wild bootstrap of the residuals.

    Each resample turns the sign of every residual with probability 1/2, after the residuals were widened by
    ``sqrt(n / (n - p))`` for the p parameters: scores near 0 and 1 scatter less than those between, and keep doing so.
    Scores are independent given x.

    Args:
        x: abscissa, such as ``log2(N / ID)``.
        y: scores, in [0, 1]; repeated runs are further points at the same x.
        curve: number of the curve of each point, from 0; one curve by default.
        resamples: number of bootstrap resamples.
        seed: seed of the signs of the residuals.

    Raises:
        InputError: shapes that do not fit, scores outside [0, 1], a curve without two different x, fewer points than
            parameters plus one, or scores that all lie on one side of 1/2 (they do not determine the midpoint).

    arXiv 2409.02426, equation 47.
    """
    x, y = as_doubles("x", x), as_doubles("y", y)
    numbers = np.zeros(len(x), int) if curve is None else as_labels("curve", curve)
    shapes = (x.shape, y.shape, numbers.shape)
    require(len(set(shapes)) == 1 and x.ndim == 1, "shapes of (x, y, curve)", shapes, "equal, of one axis")
    require(bool(np.isfinite(x).all()), "x", "non-finite", "finite")
    require(bool(((y >= 0) & (y <= 1)).all()), "y", "outside [0, 1] or non-finite", "in [0, 1]")
    count = int(numbers.max()) + 1
    for number in range(count):
        different = len(np.unique(x[numbers == number]))
        require(different >= 2, f"different x of curve {number}", different, "2 or more")
    require(len(x) > count + 1, "number of points", len(x), f"at least {count + 2}, for {count + 1} parameters")
    require(bool(y.min() < 0.5 < y.max()), "y", (float(y.min()), float(y.max())), "on both sides of 0.5")
    require(resamples >= 2, "resamples", resamples, "2 or more")

    places = np.eye(count)[numbers]

    def fitted(parameters: np.ndarray) -> np.ndarray:
        return scipy.special.expit(np.exp(_log_slope(parameters[0])) * (x - parameters[1:][numbers]))

    def jacobian(parameters: np.ndarray) -> np.ndarray:
        log_slope = _log_slope(parameters[0])
        slope, gap = np.exp(log_slope), x - parameters[1:][numbers]
        score = scipy.special.expit(slope * gap)
        rise = (score * (1 - score) * slope)[:, None]
        bend = 1 - (log_slope / _MOST) ** 2
        return np.concatenate([rise * gap[:, None] * bend, -rise * places], axis=1)

    def solve(scores: np.ndarray, start: np.ndarray) -> np.ndarray:
        # MINPACK's: bounded methods of scipy take ten times as long on so few points.
        found = scipy.optimize.least_squares(
            lambda parameters: fitted(parameters) - scores, start, jacobian, method="lm"
        )
        return found.x

    # Of several starts the best: with steep curves least squares has flat places.
    starts = [np.array([log_slope, *[np.median(x)] * count]) for log_slope in (-0.5, 0.7)]
    best = min(
        (solve(y, start) for start in starts), key=lambda parameters: float(np.square(y - fitted(parameters)).sum())
    )
    residuals = y - fitted(best)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(resamples, len(x)))
    widened = residuals * np.sqrt(len(x) / (len(x) - count - 1))
    draws = np.stack([solve(fitted(best) + sign * widened, best) for sign in signs])
    rmse = float(np.sqrt(np.mean(np.square(residuals))))
    slopes = np.exp(_log_slope(draws[:, 0]))
    return SigmoidFit(float(np.exp(_log_slope(best[0]))), best[1:], rmse, slopes, draws[:, 1:])


def _log_slope(parameter: Any) -> Any:
    """The logarithm of the slope, bounded so that neither a step nor a straight line overflows."""
    return _MOST * np.tanh(parameter / _MOST)
