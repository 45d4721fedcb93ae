"""Does the interval of the universality study cover? The design in miniature, on hundreds of pools of known truth.

    python -m benchmarks.pools [--quick] [--json PATH]

Each pool is drawn anew from a known law and goes through the whole design: a Gaussian mixture fitted to all of it, two
draws of mixture and null a split, classifiers of every arm trained and tested, the null-corrected gap, and its interval
``SE^2 = S^2 / J + V`` with V from ridge least squares on resampled pools (``dgu.analysis.stats.pools``). Sizes are in
the ratios to the dimension that the study has by default. The classifiers are not those that V comes from: softmax
regression on cross entropy by gradient descent.

Three laws of four classes, or two:

- *clusters*: each class is a mixture of five Gaussian clusters: the null-corrected gap is not zero;
- *gaussian*: each class is exactly Gaussian: "not zero" must be found in 5 % of pools;
- *norms*: two classes of equal means and covariances, told apart by squared norms: "not zero" must always be found.

``coverage`` is the share of pools whose interval holds the mean gap of all pools, with its Monte-Carlo error;
``width`` is the mean half-width of the intervals over that of an honest one, 1.96 standard deviations of the gaps
between pools; ``variance between pools`` is V, from the gaps of the pools, and beside it the mean of its estimates from
pools drawn anew, with the mean gap that these have; ``not zero`` the share of intervals that exclude zero; beside, the same for S^2 / J alone and for the
corrected resampled t, which the study used before.
"""

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import scipy
import tyro

from benchmarks import provenance
from dgu.analysis.stats.estimates import Estimate
from dgu.analysis.stats.pools import pool_variance, pooled_interval, smoothed_bootstrap
from dgu.analysis.stats.resampling import t_interval
from dgu.analysis.universality.designs import corrected_gap
from dgu.analysis.universality.resampled import BANDWIDTH
from dgu.analysis.universality.ridge import RIDGE

#: Images of each class in the parts of a split, in the default study's ratios to the dimension.
FIT, TRAIN, VALIDATION, TEST = 49, 60, 7, 31
POOL, GAUSSIAN_TEST, DRAWS = FIT + TRAIN + VALIDATION + TEST, 4 * TEST, 2
DIMENSION, CLASSES, CLUSTERS = 24, 4, 5

Arms = list[tuple[np.ndarray, np.ndarray]]
Draw = Callable[[np.random.Generator], np.ndarray]
Features = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the simulation."""

    pools: int = 400
    """Pools of each law."""
    splits: int = 12
    """Splits of each pool."""
    resampled_pools: int = 24
    """Pools drawn anew from each of them."""
    resampled_splits: int = 2
    """Splits of each of those."""
    bandwidth: float = BANDWIDTH
    """Bandwidth of the smoothed bootstrap."""
    quick: bool = False
    """Twenty pools: does it work, no more."""
    json: str | None = None
    """File to write the figures to."""


@dataclasses.dataclass(frozen=True)
class Law:
    """A law of labelled examples.

    Attributes:
        draw: a pool, (K, POOL, d).
        features: what classifiers see of examples (..., d).
        zero: whether the null-corrected gap is zero.
    """

    draw: Draw
    features: Features = lambda x: x
    zero: bool = False


def laws() -> dict[str, Law]:
    """The three laws."""
    rng = np.random.default_rng(0)
    spectrum = np.arange(1, DIMENSION + 1) ** -0.75
    roots = np.stack([np.linalg.qr(rng.standard_normal((DIMENSION, DIMENSION)))[0] * spectrum for _ in range(CLASSES)])
    means = 0.35 * rng.standard_normal((CLASSES, DIMENSION)) * spectrum
    centres = np.sqrt(0.7) * rng.standard_normal((CLASSES, CLUSTERS, DIMENSION))

    def clusters(rng: np.random.Generator) -> np.ndarray:
        chosen = rng.integers(CLUSTERS, size=(CLASSES, POOL))
        latent = np.take_along_axis(centres, chosen[:, :, None], axis=1)
        latent = latent + np.sqrt(0.3) * rng.standard_normal((CLASSES, POOL, DIMENSION))
        return (means[:, None] + latent @ roots.swapaxes(1, 2)).astype(np.float32)

    def gaussian(rng: np.random.Generator) -> np.ndarray:
        latent = rng.standard_normal((CLASSES, POOL, DIMENSION))
        return (means[:, None] + latent @ roots.swapaxes(1, 2)).astype(np.float32)

    def norms(rng: np.random.Generator) -> np.ndarray:
        directions = rng.standard_normal((2, POOL, DIMENSION))
        directions *= np.sqrt(DIMENSION) / np.linalg.norm(directions, axis=-1, keepdims=True)
        coin = rng.integers(2, size=(POOL, 1))
        radii = np.stack([np.ones((POOL, 1)), np.where(coin, 0.5, 1.5) ** 0.5])
        return (directions * radii).astype(np.float32)

    def radial(x: np.ndarray) -> np.ndarray:
        u = 2 * (np.square(x).mean(axis=-1) - 1)
        return np.stack([u, u**2], axis=-1)

    return {"clusters": Law(clusters), "gaussian": Law(gaussian, zero=True), "norms": Law(norms, radial)}


def split_arms(pools: np.ndarray, noise: np.random.Generator, features: Features) -> Arms:
    """Training and test examples, (B, K, n, d) each, of one split of each of B pools: diffusion, then mixture and null
    of each draw. Pools share the split and the noise.
    """
    _count, k, _, d = pools.shape
    order = np.stack([noise.permutation(POOL) for _ in range(k)])
    seen = pools[:, np.arange(k)[:, None], order]
    arms = [(seen[:, :, :TRAIN], seen[:, :, TRAIN + VALIDATION :])]

    def draw(rows: np.ndarray, number: int) -> np.ndarray:
        mean = rows.mean(axis=2, keepdims=True)
        covariance = (rows - mean).swapaxes(2, 3) @ (rows - mean) / (POOL - 1)
        root = np.linalg.cholesky(covariance)
        z = noise.standard_normal((1, k, number, d), np.float32)
        return mean + z @ root.swapaxes(2, 3)

    for _ in range(DRAWS):
        mixture = draw(pools, TRAIN + GAUSSIAN_TEST)
        null = draw(draw(pools, POOL), TRAIN + GAUSSIAN_TEST)
        arms += [(images[:, :, :TRAIN], images[:, :, TRAIN:]) for images in (mixture, null)]
    return [(features(train), features(test)) for train, test in arms]


def ridge(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Accuracy of ridge least squares, (B,), as ``dgu.analysis.universality.ridge`` has it."""
    d = train.shape[-1]
    system = np.einsum("bknd,bkne->bde", train, train, optimize=True)
    system = system + RIDGE * np.trace(system, axis1=1, axis2=2)[:, None, None] / d * np.eye(d)
    weights = np.linalg.solve(system, train.sum(axis=2).swapaxes(1, 2))
    return _accuracy(np.einsum("bkmd,bdc->bkmc", test, weights, optimize=True))


@partial(jax.jit, static_argnames="steps")
def _descent(train: jax.Array, *, steps: int = 150, rate: float = 1.0, momentum: float = 0.9) -> jax.Array:
    def one(x: jax.Array) -> jax.Array:
        k, n, d = x.shape
        rows, labels = x.reshape(k * n, d), jnp.repeat(jnp.eye(k), n, axis=0)
        step = rate / jnp.mean(jnp.sum(rows**2, axis=1))

        def update(_: int, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            weights, speed = state
            speed = momentum * speed + rows.T @ (jax.nn.softmax(rows @ weights) - labels) / (k * n)
            return weights - step * speed, speed

        zero = jnp.zeros((d, k))
        return jax.lax.fori_loop(0, steps, update, (zero, zero))[0]

    return jax.lax.map(one, train, batch_size=64)


def softmax_regression(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Accuracy, (B,), of softmax regression by gradient descent with momentum."""
    weights = np.asarray(_descent(jnp.asarray(train, jnp.float32)))
    return _accuracy(np.einsum("bkmd,bdc->bkmc", test, weights, optimize=True))


def gaps(
    pools: np.ndarray, splits: int, seed: list[int], features: Features, solve: Callable[..., np.ndarray]
) -> np.ndarray:
    """Null-corrected gaps in points, (B, splits)."""
    out = []
    for split in range(splits):
        accuracy = [solve(*arm) for arm in split_arms(pools, np.random.default_rng([*seed, split]), features)]
        out.append(100 * corrected_gap(accuracy[0], np.mean(accuracy[1::2], axis=0), np.mean(accuracy[2::2], axis=0)))
    return np.stack(out, axis=1)


def simulate(config: Config, law: Law) -> dict[str, float]:
    """Coverage and width of the study's interval, and of two others, over pools of a law."""
    found, alone, corrected, within, between_pools, again_gaps = [], [], [], [], [], []
    for number in range(config.pools):
        rng = np.random.default_rng([7, number])
        pool = law.draw(rng)
        values = gaps(pool[None], config.splits, [1, number], law.features, softmax_regression)[0]
        again = np.stack([smoothed_bootstrap(pool, rng, config.bandwidth) for _ in range(config.resampled_pools)])
        resampled = gaps(again, config.resampled_splits, [2, number], law.features, ridge)
        between = pool_variance(resampled)
        found.append(pooled_interval(values, between))
        within.append(values.var(ddof=1) / len(values))
        between_pools.append(float(between.value))
        again_gaps.append(resampled.mean())
        alone.append(t_interval(values))
        corrected.append(_corrected_t(values))
    summary = _summary(found, law.zero)
    return (
        summary
        | {
            "variance between pools": summary["deviation between pools"] ** 2 - float(np.mean(within)),
            "the same, resampled": float(np.mean(between_pools)),
            "mean gap, resampled": float(np.mean(again_gaps)),
        }
        | {
            f"{name}, {what}": value
            for name, others in {"S^2 / J alone": alone, "corrected resampled t": corrected}.items()
            for what, value in _summary(others, law.zero).items()
            if what in ("coverage", "width", "not zero")
        }
    )


def _corrected_t(values: np.ndarray) -> Estimate:
    """The corrected resampled t interval: ``SE^2 = (1 / J + n_test / n_train) S^2`` (Nadeau and Bengio, Machine
    Learning 52, 2003, eq. 9).
    """
    error = np.sqrt((1 / len(values) + TEST / (FIT + TRAIN + VALIDATION)) * values.var(ddof=1))
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * error
    return Estimate(values.mean(), values.mean() - half, values.mean() + half)


def _summary(found: list[Estimate], zero: bool) -> dict[str, float]:
    value, low, high = np.moveaxis(np.asarray([(one.value, one.low, one.high) for one in found], float), 1, 0)
    truth = 0.0 if zero else float(value.mean())
    coverage = float(np.mean((low <= truth) & (truth <= high)))
    honest = scipy.stats.norm.ppf(0.975) * value.std(ddof=1)
    return {
        "mean gap": float(value.mean()),
        "deviation between pools": float(value.std(ddof=1)),
        "coverage": coverage,
        "error of coverage": float(np.sqrt(coverage * (1 - coverage) / len(found))),
        "width": float(np.mean((high - low) / 2) / honest),
        "not zero": float(np.mean((low > 0) | (high < 0))),
    }


def _accuracy(scores: np.ndarray) -> np.ndarray:
    """Of scores (B, K, m, K), the share of examples whose largest score is that of their class."""
    return np.mean(np.argmax(scores, axis=-1) == np.arange(scores.shape[1])[None, :, None], axis=(1, 2))


def main(config: Config) -> None:
    """Simulate all laws and print what was found."""
    if config.quick:
        config = dataclasses.replace(config, pools=20)
    figures = {}
    for name, law in laws().items():
        figures[name] = simulate(config, law)
        print(name)
        for what, value in figures[name].items():
            print(f"  {what:<40} {value:.3f}")
    if config.json:
        provenance.write(config.json, {"config": dataclasses.asdict(config), "results": figures})


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
