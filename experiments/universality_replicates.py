"""The replicates and controls of the universality study: splits, arms, classifiers, spectra; from images to arrays."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dgu.analysis.moments.spectra import squared_singular_values
from dgu.analysis.universality.arms import PARTS, Task, assemble, gaussian_arms, train_and_test
from dgu.analysis.universality.features import quadratic_features
from dgu.core.keys import seeded, stream
from dgu.data.splits import check_disjoint, class_splits, digests
from dgu.distributions.class_gaussians import class_key, draw_gaussian, fit_gaussian

#: Images of each class and source in the picture of samples.
SHOWN = 4


@dataclass(frozen=True)
class Images:
    """The images that a run studies: (K, P, H, W, C) in [-1, 1], and the real ones or None.

    ``features`` (K, P, d) of the samples, and those of the real ones, are None where pixels are studied.
    """

    samples: np.ndarray
    real: np.ndarray | None
    class_names: tuple[str, ...]
    features: np.ndarray | None = None
    real_features: np.ndarray | None = None

    @property
    def dimension(self) -> int:
        """Numbers in one example that the study looks at, d."""
        return int(np.prod(self.samples.shape[2:])) if self.features is None else self.features.shape[-1]

    def rows(self, config: Any) -> np.ndarray:
        """What is studied of the samples, (K, P, d): pixels in ``pixel_range``, or features."""
        return _flatten(self.samples, config) if self.features is None else self.features

    def real_rows(self, config: Any) -> np.ndarray:
        """The same of the real images."""
        assert self.real is not None
        return _flatten(self.real, config) if self.real_features is None else self.real_features


def sizes_per_class(config: Any, k: int, d: int) -> tuple[int, ...]:
    """Training images per class at each of the ratios n / d that the pool reaches; all of the pool if it reaches none."""
    wanted = [max(1, round(ratio * d / k)) for ratio in config.training_ratios]
    reached = sorted({n for n in wanted if n <= config.splits.train})
    return tuple(reached) or (config.splits.train,)


def two_layer_size(config: Any, d: int) -> int:
    """Training images per class of the two-layer networks: at their ratio, or the most that linear classifiers get."""
    k = config.subset_sizes[0]
    return min(max(1, round(config.two_layer_ratio * d / k)), sizes_per_class(config, k, d)[-1])


def tasks(config: Any, k_all: int, d: int, number: int) -> dict[str, Any]:
    """The classification problems of replicate ``number``: its own random subsets and pairs."""
    rng = np.random.default_rng([config.seed, number, 7])

    def subsets(k: int, count: int) -> np.ndarray:
        return np.sort(np.stack([rng.choice(k_all, k, replace=False) for _ in range(count)]), axis=1)

    everything = np.arange(k_all)[None]
    problems = {}
    for k in config.subset_sizes:
        problems[f"{k}-classes"] = Task(
            f"{k}-classes", subsets(k, config.subsets), sizes_per_class(config, k, d), "softmax_mse"
        )
    problems["all-classes"] = Task("all-classes", everything, sizes_per_class(config, k_all, d), "softmax_mse")
    problems["pairs"] = Task("pairs", subsets(2, config.pairs), sizes_per_class(config, 2, d), "sigmoid_mse")
    problems["cross-entropy"] = replace(problems["all-classes"], name="cross-entropy", loss="cross_entropy")
    few = problems[f"{config.subset_sizes[0]}-classes"]
    one_size = (two_layer_size(config, d),)
    problems["two-layer"] = replace(few, name="two-layer", classes=few.classes[:1], per_class=one_size, two_layer=True)
    return problems


def pool_order(config: Any, images: Images) -> tuple[str, ...]:
    """The arms of a run in the order of its result arrays."""
    optional = {"low rank": bool(config.low_rank_fit), "real": images.real is not None}
    return ("diffusion", "mixture", "null", *(arm for arm, present in optional.items() if present))


def replicate(config: Any, images: Images, number: int) -> dict[str, np.ndarray]:
    """One split of the pool: mixture and null fitted, every problem solved on every arm, spectra of the arms."""

    k = len(images.class_names)
    flat = images.rows(config)
    pixels = images.samples.reshape(*flat.shape[:2], -1)
    sizes = config.splits.parts()
    rows = [class_splits(flat.shape[1], sizes, config.seed, number, label) for label in range(k)]
    split = {part: np.stack([flat[label, rows[label][part]] for label in range(k)]) for part in sizes}
    # By their pixels: features of different images may coincide.
    held = {part: [pixels[label, rows[label][part]] for label in range(k)] for part in sizes}
    check_disjoint({part: digests(np.concatenate(blocks)) for part, blocks in held.items()})
    key = stream(seeded(config.seed), "replicate", number)
    arms = {"diffusion": {part: split[part] for part in PARTS}}
    gaussian = _gaussian_sizes(config)
    drawn = gaussian_arms(split["fit"], key, sum(gaussian.values()), low_rank=config.low_rank_fit)
    arms |= {arm: _cut(np.asarray(samples), gaussian) for arm, samples in drawn.items()}
    if images.real is not None:
        arms["real"] = _real_parts(images.real_rows(config), config, number)
    # Results are addressed by the place of an arm: diffusion, mixture, null, and what else there is.
    if pool_order(config, images) != tuple(arms):
        raise RuntimeError(f"arms {tuple(arms)} are out of order")
    pool = assemble(arms)
    out = _spectra(arms)

    def solve(task: Any) -> dict[str, np.ndarray]:
        part = pool.only(("diffusion", "mixture", "null")) if task.two_layer else pool
        return train_and_test(part, task, config.recipe, config.seed + number)

    # One after the other: two programs over several devices, launched from two threads, can wait for each other for ever.
    for name, task in tasks(config, k, flat.shape[-1], number).items():
        out |= {f"{name}.{what}": values for what, values in solve(task).items()}
    return out


def _flatten(images: np.ndarray, config: Any) -> np.ndarray:
    """(K, n, H, W, C) in [-1, 1] as (K, n, d) in ``pixel_range``."""
    low, high = config.pixel_range
    flat = images.reshape(*images.shape[:2], -1)
    return flat if (low, high) == (-1.0, 1.0) else (flat + 1) * np.float32((high - low) / 2) + np.float32(low)


def _gaussian_sizes(config: Any) -> dict[str, int]:
    """Images per class in each part of a Gaussian arm, which may have more test images than the pool affords."""
    sizes = config.splits.parts()
    return {
        "train": sizes["train"],
        "validation": sizes["validation"],
        "test": sizes["test"] * config.gaussian_test_factor,
    }


def _cut(images: np.ndarray, sizes: dict[str, int]) -> dict[str, np.ndarray]:

    ends = np.cumsum([sizes[part] for part in PARTS])
    return {part: images[:, end - sizes[part] : end] for part, end in zip(PARTS, ends)}


def _real_parts(flat: np.ndarray, config: Any, number: int) -> dict[str, np.ndarray]:
    """Real images split in the proportions of the pool (they need no part for a fit), never larger than its parts."""

    n = flat.shape[1]
    test, validation = max(2, n // 4), max(2, n // 8)
    sizes = {"train": min(n - test - validation, config.splits.train), "validation": validation, "test": test}
    rows = [class_splits(n, sizes, config.seed + 1, number, label) for label in range(len(flat))]
    return {part: np.stack([flat[label, rows[label][part]] for label in range(len(flat))]) for part in sizes}


def _spectra(arms: dict[str, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Covariance spectra of each class and the Gram spectrum of the balanced mixture, for the arms of equal size."""

    per_class = jax.jit(jax.vmap(partial(squared_singular_values, centre=True)))
    out = {}
    for arm in ("diffusion", "mixture", "null"):
        # Spectra of samples depend on their number: take as many of each arm.
        parts = {part: arms[arm][part][:, : arms["diffusion"][part].shape[1]] for part in PARTS}
        every = np.concatenate(list(parts.values()), axis=1)
        rank = min(every.shape[1] - 1, every.shape[2])
        out[f"covariance.{arm}"] = np.asarray(per_class(every))[:, :rank] / (every.shape[1] - 1)
        balanced = parts["test"].reshape(-1, every.shape[-1])
        out[f"gram.{arm}"] = np.asarray(squared_singular_values(balanced))
    return out


def positive_control(config: Any, images: Images) -> dict[str, np.ndarray]:
    """The whole comparison on data that is exactly Gaussian: fresh samples of the mixture fitted to the whole pool, and a
    mixture fitted to them. ``shown`` are a few of those samples of each class, to look at.
    """
    flat = jnp.asarray(images.rows(config))
    k, d, few = flat.shape[0], flat.shape[-1], config.subset_sizes[0]
    sizes = _gaussian_sizes(config)
    count = sum(sizes.values())
    truth = jax.jit(jax.vmap(fit_gaussian))(flat)
    draw = jax.jit(jax.vmap(draw_gaussian, in_axes=(0, 0, None)))
    key = stream(seeded(config.seed), "control-positive")
    gaps, shown = [], None
    for number in range(config.replicates):
        here = stream(key, number)
        drawn = np.asarray(
            draw(truth, jnp.stack([class_key(here, c) for c in range(k)]), jnp.arange(config.splits.fit + count))
        )
        shown = drawn[:, :SHOWN] if shown is None else shown
        arms = {"truth": _cut(drawn[:, config.splits.fit :], sizes)}
        # The low-rank arm is not used here; asked for, the program is the one that the replicates have compiled.
        fitted = gaussian_arms(
            drawn[:, : config.splits.fit], stream(here, "mixture"), count, low_rank=config.low_rank_fit
        )
        arms["mixture"] = _cut(np.asarray(fitted["mixture"]), sizes)
        subsets = tasks(config, k, d, number)[f"{few}-classes"].classes
        task = Task("control", subsets, sizes_per_class(config, few, d)[-1:], "softmax_mse")
        accuracy = train_and_test(assemble(arms), task, config.recipe, config.seed + number)["accuracy"]
        gaps.append(accuracy[0, 0].mean() - accuracy[1, 1].mean())
    return {"gaps": np.asarray(gaps), "shown": np.asarray(shown)}


def negative_control(config: Any, d: int = 12, per_class: int = 400) -> dict[str, np.ndarray]:
    """Data far from Gaussian with the mixture's means and covariances, told apart by classifiers on quadratic features.

    Both classes have mean 0 and covariance I: one lies on the sphere of radius sqrt(d), the other has a radius of sqrt(d / 2)
    or sqrt(3 d / 2) by a fair coin. A Gaussian mixture with these moments carries no label at all.
    """

    key = stream(seeded(config.seed), "control-negative")
    sizes = {"fit": per_class, "train": per_class, "validation": per_class // 4, "test": per_class // 2}
    total = sum(sizes.values())
    recipe = replace(config.recipe, learning_rates=(0.003, 0.03))
    gaps = []
    for number in range(config.replicates):
        here = stream(key, number)
        normal = np.asarray(jax.random.normal(stream(here, "direction"), (2, total, d)))
        on_sphere = np.sqrt(d) * normal / np.linalg.norm(normal, axis=-1, keepdims=True)
        coin = np.asarray(jax.random.bernoulli(stream(here, "radius"), 0.5, (total, 1)))
        drawn = on_sphere * np.stack([np.ones((total, 1)), np.where(coin, 0.5, 1.5) ** 0.5]).astype(np.float32)
        arms = {"truth": _cut(drawn[:, per_class:], sizes)}
        fitted = gaussian_arms(drawn[:, :per_class], stream(here, "mixture"), total - per_class)
        arms["mixture"] = _cut(np.asarray(fitted["mixture"]), sizes)
        pool = assemble(arms)
        pool = replace(pool, x=np.asarray(quadratic_features(pool.x)))
        task = Task("control", np.arange(2)[None], (per_class,), "softmax_mse")
        accuracy = train_and_test(pool, task, recipe, config.seed + number)["accuracy"]
        gaps.append(accuracy[0, 0].mean() - accuracy[1, 1].mean())
    return {"gaps": np.asarray(gaps)}
