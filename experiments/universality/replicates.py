"""A replicate of the universality study: one split of the images, its arms, classification problems and spectra."""

from dataclasses import dataclass
from functools import partial

import jax
import numpy as np

from dgu.analysis.moments.spectra import squared_singular_values
from dgu.analysis.universality.arms import PARTS, assemble, cut_parts, gaussian_arms, train_and_test
from dgu.core.keys import seeded, stream
from dgu.data.splits import check_disjoint, class_splits, digests
from experiments.universality.options import Options
from experiments.universality.problems import tasks

#: The arms of equal size, whose spectra are compared and which two-layer networks are trained on.
ARMS = ("diffusion", "mixture", "null")


@dataclass(frozen=True)
class Examples:
    """The images as classifiers see them.

    Attributes:
        rows: (K, P, d) pixels in ``pixel_range``, or features, of the samples.
        pixels: (K, P, H W C) pixels of the same samples, which tell images apart where features may coincide.
        real: (K, n, d) the same as ``rows`` of the real images, or None.
    """

    rows: np.ndarray
    pixels: np.ndarray
    real: np.ndarray | None


def arm_names(options: Options, real: bool) -> tuple[str, ...]:
    """The arms of a run in the order of its result arrays; ``real`` says whether there are real images."""
    optional = {"low rank": bool(options.low_rank_fit), "real": real}
    return (*ARMS, *(arm for arm, present in optional.items() if present))


def replicate(options: Options, examples: Examples, number: int) -> dict[str, np.ndarray]:
    """One split of the pool: mixture and null fitted, every problem solved on every arm, spectra of the arms."""
    k, count, d = examples.rows.shape
    sizes = options.splits.parts()
    rows = [class_splits(count, sizes, options.seed, number, label) for label in range(k)]
    split = {part: np.stack([examples.rows[label, rows[label][part]] for label in range(k)]) for part in sizes}
    held = {part: [examples.pixels[label, rows[label][part]] for label in range(k)] for part in sizes}
    check_disjoint({part: digests(np.concatenate(blocks)) for part, blocks in held.items()})
    key = stream(seeded(options.seed), "replicate", number)
    arms = {"diffusion": {part: split[part] for part in PARTS}}
    gaussian = gaussian_sizes(options)
    drawn = gaussian_arms(split["fit"], key, sum(gaussian.values()), low_rank=options.low_rank_fit)
    arms |= {arm: cut_parts(samples, gaussian) for arm, samples in drawn.items()}
    if examples.real is not None:
        arms["real"] = _real_parts(examples.real, options, number)
    # Results are addressed by the place of an arm.
    if arm_names(options, examples.real is not None) != tuple(arms):
        raise RuntimeError(f"arms {tuple(arms)} are out of order")
    pool = assemble(arms)
    out = _spectra(arms)
    # One after the other: two programs over several devices, launched from two threads, can wait for each other.
    for name, task in tasks(options, k, d, number).items():
        taken = pool.only(ARMS) if task.two_layer else pool
        solved = train_and_test(taken, task, options.recipe, options.seed + number)
        out |= {f"{name}.{what}": values for what, values in solved.items()}
    return out


def flat(images: np.ndarray, pixel_range: tuple[float, float]) -> np.ndarray:
    """(K, n, H, W, C) in [-1, 1] as (K, n, d) in ``pixel_range``."""
    low, high = pixel_range
    rows = images.reshape(*images.shape[:2], -1)
    return rows if (low, high) == (-1.0, 1.0) else (rows + 1) * np.float32((high - low) / 2) + np.float32(low)


def gaussian_sizes(options: Options) -> dict[str, int]:
    """Images per class in each part of a Gaussian arm, which may have more test images than the pool affords."""
    sizes = options.splits.parts()
    return {part: sizes[part] * (options.gaussian_test_factor if part == "test" else 1) for part in PARTS}


def _real_parts(rows: np.ndarray, options: Options, number: int) -> dict[str, np.ndarray]:
    """Real images split in the proportions of the pool (they need no part for a fit), never larger than its parts."""
    n = rows.shape[1]
    test, validation = max(2, n // 4), max(2, n // 8)
    sizes = {"train": min(n - test - validation, options.splits.train), "validation": validation, "test": test}
    places = [class_splits(n, sizes, options.seed + 1, number, label) for label in range(len(rows))]
    return {part: np.stack([rows[label, places[label][part]] for label in range(len(rows))]) for part in sizes}


def _spectra(arms: dict[str, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Covariance spectra of each class and the Gram spectrum of the balanced mixture, for the arms of equal size."""
    per_class = jax.jit(jax.vmap(partial(squared_singular_values, centre=True)))
    out = {}
    for arm in ARMS:
        # Spectra of samples depend on their number: take as many of each arm.
        parts = {part: arms[arm][part][:, : arms["diffusion"][part].shape[1]] for part in PARTS}
        every = np.concatenate(list(parts.values()), axis=1)
        rank = min(every.shape[1] - 1, every.shape[2])
        out[f"covariance.{arm}"] = np.asarray(per_class(every))[:, :rank] / (every.shape[1] - 1)
        balanced = parts["test"].reshape(-1, every.shape[-1])
        out[f"gram.{arm}"] = np.asarray(squared_singular_values(balanced))
    return out
