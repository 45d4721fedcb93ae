"""How arms are compared: accuracies of the replicates, their differences with intervals, and the verdicts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dgu.analysis.stats.estimates import Estimate
from dgu.analysis.stats.pools import PoolVariance, no_pool_variance, pool_variance, pooled_interval
from dgu.analysis.universality.designs import corrected_gap
from experiments.study import Claim, Measured
from experiments.study.claims import judge
from experiments.study.judged import JudgedClaim
from experiments.universality.subject import PAPER

#: What is read off the results of one design, with leading axes of replicates, or of pools and splits.
Reading = Callable[[Mapping[str, np.ndarray]], np.ndarray]
_ANY = (-np.inf, np.inf)


@dataclass(frozen=True)
class Results:
    """What was measured on the images' own pools and on pools drawn anew from them.

    Attributes:
        replicates: by name, (J, ...): classifiers trained by SGD.
        resampled: by name, (P, splits, ...): ridge least squares on each of P pools; it has no losses and rates.
        pools: pools that the replicates were dealt out to in turn.
    """

    replicates: Mapping[str, np.ndarray]
    resampled: Mapping[str, np.ndarray]
    pools: int = 1

    def interval(self, read: Reading, bounds: tuple[float, float] = _ANY) -> Estimate:
        """The mean over replicates of what ``read`` finds, with the variance between pools in its interval; NaN where
        an arm has too few images.
        """
        values, again = np.moveaxis(read(self.replicates), 0, -1), np.moveaxis(read(self.resampled), (0, 1), (-2, -1))
        known = np.asarray(np.isfinite(values).all(axis=-1) & np.isfinite(again).all(axis=(-2, -1)))
        return self._interval(values, self._between(np.where(known[..., None, None], again, 0.0)), known, bounds)

    def _between(self, again: np.ndarray) -> PoolVariance:
        """The variance between pools drawn anew from one pool, (..., P, splits), averaged over the pools that they were
        drawn from in turn.
        """
        found = [pool_variance(again[..., number :: self.pools, :]) for number in range(self.pools)]
        value, variance = (np.mean([getattr(one, name) for one in found], axis=0) for name in ("value", "variance"))
        return PoolVariance(value, variance / self.pools, sum(one.freedom for one in found))

    def interval_of_this_pool(self, read: Reading) -> Estimate:
        """The mean over replicates with the interval for the images' own pools: the variance between pools is not in
        it.
        """
        values = np.moveaxis(read(self.replicates), 0, -1)
        known = np.asarray(np.isfinite(values).all(axis=-1))
        return self._interval(values, no_pool_variance(values.shape[:-1]), known, _ANY)

    def _interval(
        self, values: np.ndarray, between: PoolVariance, known: np.ndarray, bounds: tuple[float, float]
    ) -> Estimate:
        pool_of = np.arange(values.shape[-1]) % self.pools
        found = pooled_interval(np.where(known[..., None], values, 0.0), between, pool_of=pool_of, bounds=bounds)
        if known.all():
            return found
        parts = (np.where(known, part, np.nan) for part in (found.value, found.low, found.high, found.standard_error))
        mean, low, high, error = parts
        return Estimate(mean, low, high, found.level, found.method, found.n, error)


def accuracies(task: str, what: str = "accuracy") -> Reading:
    """Accuracy in percent (or loss) of every arm, by size."""
    factor = 100 if what == "accuracy" else 1
    return lambda found: factor * np.asarray(found[f"{task}.{what}"], float)


def gap(task: str, first: int = 0, second: int = 1) -> Reading:
    """Accuracy of an arm less that of another, in percentage points, by size; arms are diffusion, mixture and null."""

    def read(found: Mapping[str, np.ndarray]) -> np.ndarray:
        own = accuracies(task)(found)
        return own[..., first, :] - own[..., second, :]

    return read


def null_corrected(task: str) -> Reading:
    """(diffusion - mixture) - (mixture - null) in percentage points, by size."""
    return lambda found: corrected_gap(*np.moveaxis(accuracies(task)(found)[..., :3, :], -2, 0))


def at_last(read: Reading) -> Reading:
    """What ``read`` finds at the largest size."""
    return lambda found: read(found)[..., -1]


def smallest_margin(difference: Estimate) -> float:
    """The smallest margin within which the difference is shown to be: the larger end of the interval."""
    return max(abs(float(difference.low)), abs(float(difference.high)))


def judged(claims: Sequence[Claim], measured: Mapping[str, Measured]) -> dict[str, JudgedClaim]:
    """The claims with their verdicts, by id, for figures and metrics that show them."""
    return {claim.id: judge(claim, measured[claim.id], PAPER) for claim in claims}


def as_metrics(claims: Mapping[str, JudgedClaim]) -> dict[str, Any]:
    """Values, intervals and verdicts of claims by id, for ``metrics.json``."""
    return {
        name: {"value": claim.value, "interval": claim.interval, "verdict": claim.verdict}
        for name, claim in claims.items()
    }
