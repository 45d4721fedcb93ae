"""What ``benchmarks/coverage.py`` simulates: every interval method of the studies, at the sizes of their default presets.

A simulator takes a random generator and a number of repeats, and gives the ``Draws`` of an interval whose truth is
known. A method that is built elsewhere joins by one ``Case`` more in ``CASES``.
"""

import dataclasses
from collections.abc import Callable, Iterable

import jax
import numpy as np
import scipy

from dgu import analysis
from dgu.analysis.concentration.tails import hill_index
from dgu.analysis.moments.power_laws import planted_exponents
from dgu.analysis.stats.estimates import Estimate, standard_deviation
from dgu.analysis.stats.pools import pool_variance, pooled_interval
from dgu.analysis.stats.resampling import geometric_mean
from experiments.explain.identities import share


@dataclasses.dataclass(frozen=True)
class Draws:
    """Intervals of repeated samples: values and ends, ``(repeats,)``, and the truth, a number or one for each."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    truth: float | np.ndarray

    @classmethod
    def of(cls, estimates: Iterable[Estimate], truth: float | np.ndarray | None = None) -> "Draws":
        """Of single estimates, or of one of several values; the truth is the mean of the values unless given."""
        stacked = np.stack([[one.value, one.low, one.high] for one in estimates], axis=-1)
        return cls(*stacked, stacked[0].mean() if truth is None else truth)


Simulator = Callable[[np.random.Generator, int], Draws]


@dataclasses.dataclass(frozen=True)
class Case:
    """An interval method on one kind of data.

    Attributes:
        method: the method, as ``docs/statistics.md`` calls it.
        data: what is drawn.
        used: which parts of the studies use it at about this size.
        simulate: the simulator.
        cost: how many times fewer repeats it gets, because one takes that much longer.
    """

    method: str
    data: str
    used: str
    simulate: Simulator
    cost: int = 1


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal values; their mean and median are 0."""
    return rng.normal(size=shape)


def skewed(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Lognormal values, logarithms standard normal: mean exp(1/2), median 1."""
    return rng.lognormal(size=shape)


def t_of(n: int, draw: Callable[..., np.ndarray], mean: float) -> Simulator:
    """The t interval of the mean of n values."""
    return lambda rng, repeats: Draws.of(analysis.t_interval(draw(rng, (repeats, n))), mean)


def median_of(n: int) -> Simulator:
    """The interval of the median of n lognormal values between order statistics."""
    return lambda rng, repeats: Draws.of(map(analysis.median_interval, skewed(rng, (repeats, n))), 1.0)


def pooled_of(ratio: float) -> Simulator:
    """The mean of 12 splits of one pool; V, ``ratio`` times S^2 / 12, comes from 2 splits of 24 other pools."""

    def simulate(rng: np.random.Generator, repeats: int) -> Draws:
        own, again = rng.normal(size=(repeats, 1)), rng.normal(size=(repeats, 24, 1))
        deviation = np.sqrt(ratio / 12)
        values = deviation * own + rng.normal(size=(repeats, 12))
        between = pool_variance(deviation * again + rng.normal(size=(repeats, 24, 2)))
        return Draws.of(pooled_interval(values, between), 0.0)

    return simulate


def geometric_of(n: int) -> Simulator:
    """The geometric mean of n lognormal values."""
    return lambda rng, repeats: Draws.of(map(geometric_mean, skewed(rng, (repeats, n))), 1.0)


def shares_of(n: int, share: float, exact: bool = False) -> Simulator:
    """A share of n cases: Wilson's interval, or the exact one."""
    return lambda rng, repeats: Draws.of(
        (analysis.proportion(hits, exact=exact) for hits in rng.random((repeats, n)) < share), share
    )


def share_difference(rng: np.random.Generator, repeats: int) -> Draws:
    """Two shares, .05 and .02, of 400 cases each."""
    pairs = zip(rng.random((repeats, 400)) < 0.05, rng.random((repeats, 400)) < 0.02)
    return Draws.of((analysis.share_difference(*map(analysis.proportion, pair)) for pair in pairs), 0.03)


def bounded(rng: np.random.Generator, repeats: int) -> Draws:
    """Ranks of 1,000 Jacobians in 0 .. 12, of which 2 % are one larger than the others."""
    ranks = 6.0 + (rng.random((repeats, 1000)) < 0.02)
    return Draws.of((analysis.bounded_mean(each, (0, 12)) for each in ranks), 6.02)


def trend_of(rows: int, points: int, slope: float) -> Simulator:
    """The mean rank correlation of rows of noise on a line; the truth from 200,000 rows of their own."""

    def draw(rng: np.random.Generator, count: int) -> np.ndarray:
        return rng.normal(size=(count, points)) + slope * np.arange(points)

    def simulate(rng: np.random.Generator, repeats: int) -> Draws:
        x = np.arange(points)
        truth = float(analysis.rank_correlation(x, draw(rng, 200_000)).mean()) if slope else 0.0
        return Draws.of((analysis.rank_trend(x, draw(rng, rows)) for _ in range(repeats)), truth)

    return simulate


def jackknife_of(groups: int) -> Simulator:
    """The logarithm of a ratio of two variances of 400 values each, by leaving out groups of them."""

    def simulate(rng: np.random.Generator, repeats: int) -> Draws:
        sums = np.square(rng.normal(size=(2, repeats, groups, 400 // groups))).sum(axis=-1)
        whole = np.log(sums[0].sum(axis=-1) / sums[1].sum(axis=-1))
        without = np.log((sums.sum(axis=-1, keepdims=True) - sums)[0] / (sums.sum(axis=-1, keepdims=True) - sums)[1])
        return Draws.of(analysis.jackknife_interval(whole, without), 0.0)

    return simulate


def frechet(rng: np.random.Generator, repeats: int) -> Draws:
    """Frechet distances of two sets of 400 rows in four dimensions, against their own mean: the bias is left out."""
    sets = rng.normal(size=(repeats, 2, 400, 4)) + np.array([0.0, 0.5])[:, None, None]
    return Draws.of(analysis.frechet_interval(a, b, jax.random.key(at)) for at, (a, b) in enumerate(sets))


def auc_of(positives: int, negatives: int, shift: float) -> Simulator:
    """Areas under the curve of normal scores that are a shift apart."""
    truth = float(scipy.stats.norm.cdf(shift / np.sqrt(2)))

    def simulate(rng: np.random.Generator, repeats: int) -> Draws:
        scores = zip(normal(rng, (repeats, positives)) + shift, normal(rng, (repeats, negatives)))
        return Draws.of((analysis.auc(*pair) for pair in scores), truth)

    return simulate


def deviation_of(n: int, draw: Callable[..., np.ndarray]) -> Simulator:
    """Standard deviations of n values whose own is 1."""
    return lambda rng, repeats: Draws.of(standard_deviation(draw(rng, (repeats, n))), 1.0)


def exponential(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Exponential values: standard deviation 1."""
    return rng.exponential(size=shape)


def ratio(rng: np.random.Generator, repeats: int) -> Draws:
    """The ratio of the means of 400 exponential values each."""
    a, b = (analysis.t_interval(exponential(rng, (repeats, 400)) * mean) for mean in (0.5, 1.0))
    return Draws.of(analysis.independent_ratio(a, b), 0.5)


def dependent_ratio(rng: np.random.Generator, repeats: int) -> Draws:
    """The ratio of the means of 40 exponential values and of others that go along with them."""
    errors = exponential(rng, (repeats, 40))
    values = 0.3 * errors + 0.3 * normal(rng, (repeats, 40))
    return Draws.of(analysis.t_interval(share(values, errors, 1.0)), 0.3)


def difference(rng: np.random.Generator, repeats: int) -> Draws:
    """The difference of the means of two sets of ten blocks."""
    a, b = (analysis.t_interval(normal(rng, (repeats, 10))) for _ in range(2))
    return Draws.of((analysis.independent_difference(*pair) for pair in zip(a, b)), 0.0)


def mean_by_normal(rng: np.random.Generator, repeats: int) -> Draws:
    """The mean of 200 lognormal values with the normal interval of its standard error."""
    values = skewed(rng, (repeats, 200))
    error = values.std(axis=1, ddof=1) / np.sqrt(200)
    return Draws.of(analysis.normal_estimate(values.mean(axis=1), error), float(np.exp(0.5)))


def hill(rng: np.random.Generator, repeats: int) -> Draws:
    """Hill's index of 800 values of Student's t with 3 degrees of freedom about their mean, against its own mean."""
    index = hill_index(rng.standard_t(3, size=(800, repeats)))
    return Draws.of(analysis.normal_estimate(index, index / np.sqrt(int(np.sqrt(800)))))


def tail_part(name: str, truth: float | None) -> Simulator:
    """One of the estimates of ``tail_estimates`` on 800 normal values, all functions of one call being repeats."""

    def simulate(rng: np.random.Generator, repeats: int) -> Draws:
        found = analysis.tail_estimates(normal(rng, (800, repeats)), jax.random.key(0))
        return Draws.of(getattr(found, name), truth)

    return simulate


def variances(rng: np.random.Generator, repeats: int) -> Draws:
    """Ratios of total variances of two sets of 300 normal rows in eight dimensions, all repeats being classes."""
    rows, labels = rng.normal(size=(2, 300 * repeats, 8)), np.repeat(np.arange(repeats), 300)
    return Draws.of(analysis.variance_ratio(rows[0], labels, rows[1], labels, jax.random.key(0)), 1.0)


def nearest(rng: np.random.Generator, repeats: int) -> Draws:
    """Ratios of median distances to 400 rows, of 400 further ones each, against their own mean."""
    sets = rng.normal(size=(repeats, 3, 400, 4))
    keys = jax.random.split(jax.random.key(0), repeats)
    return Draws.of(analysis.nearest_neighbours(*three, key).median_ratio for three, key in zip(sets, keys))


def power_law(rng: np.random.Generator, repeats: int) -> Draws:
    """Fitted exponents of 800 Gaussian rows whose eigenvalues fall as k^-1.5."""
    key = jax.random.key(int(rng.integers(2**31)))
    found = planted_exponents(key, 800, 64, 1.5, sets=repeats)
    return Draws(*found.T, 1.5)


def sigmoid_of(quantity: str) -> Simulator:
    """Crossing of .95, or exponent of four curves, of sigmoids fitted to scores at six sizes and two seeds each."""
    shift, x = np.log2([6.0, 8, 12, 16]), np.arange(1.0, 7.0)
    curve, ratio = np.repeat(np.arange(4), 12), np.tile(np.repeat(x, 2), 4)

    def simulate(rng: np.random.Generator, repeats: int) -> Draws:
        exact = scipy.special.expit(1.5 * (ratio - 3.5))
        scores = np.clip(exact + 0.2 * np.sqrt(exact * (1 - exact)) * rng.normal(size=(repeats, len(exact))), 0, 1)
        if quantity == "crossing":
            fits = (analysis.fit_sigmoids(ratio, y, resamples=200).crossing() for y in scores)
            return Draws.of(fits, 3.5 + scipy.special.logit(0.95) / 1.5)
        own = ratio + shift[curve]
        return Draws.of((analysis.fit_sigmoids(own, y, curve, resamples=200).exponent(shift) for y in scores), 1.0)

    return simulate


def exponent(rng: np.random.Generator, repeats: int) -> Draws:
    """The exponent of ``gap_trend``: means of 256 normal differences that fall as d^-1/2, at four d."""
    d = np.array([64.0, 128.0, 256.0, 512.0])
    gaps = (0.01 + 0.02 * normal(rng, (repeats, 4, 256))) * np.sqrt(64 / d)[None, :, None]
    return Draws.of((analysis.gap_trend(d, list(each)).exponent for each in gaps), -0.5)


def rise(rng: np.random.Generator, repeats: int) -> Draws:
    """The cross-fitted rise of 20 curves of 21 measurements that do not rise: noise about one level each."""
    curves = normal(rng, (repeats, 20, 21)) + 2 * normal(rng, (repeats, 20, 1))
    return Draws.of((analysis.early_stopping(each).rise for each in curves), 0.0)


def bootstrap_of(method: str, statistic: Callable[..., np.ndarray], n: int, truth: float) -> Simulator:
    """scipy's bootstrap of a few lognormal values, 2,000 redraws."""

    def simulate(rng: np.random.Generator, repeats: int) -> Draws:
        values = skewed(rng, (repeats, n))
        found = scipy.stats.bootstrap((values,), statistic, axis=1, method=method, n_resamples=2000, batch=100, rng=rng)
        return Draws(statistic(values, axis=1), *found.confidence_interval, truth)

    return simulate


def t_of_trends(rng: np.random.Generator, repeats: int) -> Draws:
    """The t interval of three rank correlations over four points."""
    rows = rng.normal(size=(repeats, 3, 4)) + 2 * np.arange(4)
    found = analysis.rank_correlation(np.arange(4), rows)
    truth = analysis.rank_correlation(np.arange(4), rng.normal(size=(200_000, 4)) + 2 * np.arange(4)).mean()
    return Draws.of(analysis.t_interval(found, bounds=(-1, 1)), float(truth))


_T = "t"
_FEW = "bootstrap percentiles of few values"
#: What the studies used at first.
_NONE = "no study: for comparison"
_POOLS = "t with the variance between pools"
_MEDIAN = "order statistics of a median"
_TREND = "exact test of a trend in ranks"
CASES = (
    Case(_T, "3 normal values", "hidden_gaussian: seeds of the sweeps; generalization: images", t_of(3, normal, 0.0)),
    Case(_T, "3 lognormal values", "the same, were they skewed", t_of(3, skewed, float(np.exp(0.5)))),
    Case(_T, "5 normal values", "hidden_gaussian: trajectories of Jacobians", t_of(5, normal, 0.0)),
    Case(_T, "5 lognormal values", "the same, were they skewed", t_of(5, skewed, float(np.exp(0.5)))),
    Case(_T, "12 normal values", "molrg: trajectories of the dimension", t_of(12, normal, 0.0)),
    Case(_T, "12 lognormal values", "the same, were they skewed", t_of(12, skewed, float(np.exp(0.5)))),
    Case(_T, "100 lognormal values", "hidden_gaussian: pairs of images", t_of(100, skewed, float(np.exp(0.5)))),
    Case(_POOLS, "12 splits, V none", "universality, audit, concentration: splits of a pool", pooled_of(0.0)),
    Case(_POOLS, "12 splits, V half of S^2 / 12", "the same", pooled_of(0.5)),
    Case(_POOLS, "12 splits, V twice S^2 / 12", "the same", pooled_of(2.0)),
    Case(_POOLS, "12 splits, V 8 times S^2 / 12", "the same", pooled_of(8.0)),
    Case("geometric mean", "20 lognormal values", "concentration: contraction; molrg: directions", geometric_of(20)),
    Case("rise by cross-fitting, t", "20 flat curves", "generalization: early stopping", rise),
    Case(_MEDIAN, "6 lognormal values", "generalization: capacity, boxes", median_of(6)),
    Case(_MEDIAN, "10 lognormal values", "generalization: flow, modes shift", median_of(10)),
    Case(_MEDIAN, "20 lognormal values", "generalization: early stopping", median_of(20)),
    Case(_TREND, "3 rows of 4, no trend", "hidden_gaussian: sizes of the sweeps", trend_of(3, 4, 0.0)),
    Case(_TREND, "3 rows of 4, mean correlation .78", "the same", trend_of(3, 4, 1.0)),
    Case(_TREND, "3 rows of 4, mean correlation .95", "the same", trend_of(3, 4, 2.0)),
    Case(_TREND, "10 rows of 7, no trend", "generalization: distances of modes", trend_of(10, 7, 0.0), 2),
    Case(_TREND, "10 rows of 7, mean correlation .83", "the same", trend_of(10, 7, 0.7), 2),
    Case(_TREND, "6 rows of 8, no trend", "generalization: widths of networks", trend_of(6, 8, 0.0), 2),
    Case("Wilson", "20 cases, share .9", "generalization: seeds that learn; molrg: trials", shares_of(20, 0.9)),
    Case("Wilson", "300 cases, share .95", "concentration: planted exponents", shares_of(300, 0.95)),
    Case("Clopper-Pearson", "240 cases, share .99", "molrg: trials of the phase", shares_of(240, 0.99, True), 4),
    Case("Newcombe", "shares .05 and .02 of 400 each", "concentration: initial noise; audit: copies", share_difference),
    Case("percentiles of a bounded mean", "1,000 ranks, 2 % larger by 1", "molrg: closed form", bounded, 32),
    Case("jackknife", "log ratio of variances, 8 groups", "hidden_gaussian: distillation", jackknife_of(8)),
    Case("jackknife", "log ratio of variances, 10 groups", "audit: spectra", jackknife_of(10)),
    Case("jackknife of a distance", "400 rows in 4 dimensions, 10 blocks", "audit: Frechet distance", frechet, 32),
    Case("DeLong", "200 and 200 scores, AUC .76", "audit: membership, copies", auc_of(200, 200, 1.0), 4),
    Case("DeLong", "40 and 60 scores, AUC .96", "the same, of few images", auc_of(40, 60, 2.5), 4),
    Case("standard deviation", "1,000 normal values", "concentration: coupling", deviation_of(1000, normal), 4),
    Case("standard deviation", "1,000 exponential values", "the same", deviation_of(1000, exponential), 4),
    Case("ratio of independent estimates", "means of 400 exponential values", "audit", ratio),
    Case("t of a ratio of dependent means", "40 images, exponential errors", "explain: identities", dependent_ratio),
    Case("difference of independent estimates", "means of 10 blocks", "audit: Frechet distance", difference),
    Case("normal", "mean of 200 lognormal values", "generalization: KL three ways; molrg: losses", mean_by_normal, 4),
    Case("Hill's index, normal", "800 values of t with 3 degrees", "concentration: tails", hill, 8),
    Case("bootstrap percentiles", "standard deviation of 800 normal values", "concentration: tails", tail_part("std", 1.0), 16),
    Case("bootstrap percentiles", "kurtosis of 800 normal values", "concentration: tails", tail_part("kurtosis", 0.0), 16),
    Case("bootstrap percentiles", "ratio of variances of 300 rows each", "audit: variance of classes", variances, 32),
    Case("bootstrap percentiles", "ratio of median distances, 400 rows", "audit: nearest images", nearest, 32),
    Case("likelihood ratio of a power law", "means of 256 differences, four d", "concentration: theorem", exponent, 4),
    Case("power-law fit", "800 rows, eigenvalues k^-1.5", "concentration: spectra", power_law, 128),
    Case("sigmoids, wild bootstrap", "crossing of 48 scores", "molrg: networks", sigmoid_of("crossing"), 16),
    Case("sigmoids, wild bootstrap", "exponent of 4 curves of 12 scores", "molrg: networks", sigmoid_of("exponent"), 16),
    Case(_T, "3 rank correlations of 4 points, mean .95", _NONE, t_of_trends),
    Case(_FEW, "median of 5 lognormal values", _NONE, bootstrap_of("percentile", np.median, 5, 1.0), 4),
    Case(_FEW, "mean of 6 lognormal values", _NONE, bootstrap_of("percentile", np.mean, 6, float(np.exp(0.5))), 4),
    Case(_FEW, "mean of 10 lognormal values", _NONE, bootstrap_of("percentile", np.mean, 10, float(np.exp(0.5))), 4),
    Case("BCa bootstrap", "mean of 6 lognormal values", _NONE, bootstrap_of("BCa", np.mean, 6, float(np.exp(0.5))), 4),
    Case("BCa bootstrap", "mean of 10 lognormal values", _NONE, bootstrap_of("BCa", np.mean, 10, float(np.exp(0.5))), 4),
)  # fmt: skip
