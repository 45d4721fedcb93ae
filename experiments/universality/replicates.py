"""A replicate of the universality study: one split of a pool, its arms, classification problems and spectra.

What SGD measures on the images' own pool, ridge least squares measures on pools that are drawn anew from the images:
the same design, so that the same differences of arms can be read off both.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np

from dgu.analysis.moments.spectra import squared_singular_values
from dgu.analysis.universality.arms import PARTS, Pool, Task, assemble, train_and_test
from dgu.analysis.universality.designs import COMPARED, Parts, averaged, disjoint_arms, held_apart, numbered, split_arms
from dgu.analysis.universality.resampled import on_new_pool
from dgu.analysis.universality.ridge import ridge_and_test
from dgu.core.keys import seed_of, seeded, stream
from dgu.core.typing import Key
from dgu.data.splits import check_disjoint, class_splits, digests
from experiments.universality.options import Options
from experiments.universality.problems import gram_classes, tasks

_covariance_values = jax.jit(jax.vmap(partial(squared_singular_values, centre=True)))

#: What solves a problem on the arms of a pool: results by name, by (train arm, subset, size), with the test arm second
#: where the classifiers of every arm are tested on every arm.
Solve = Callable[[Pool, Task, int, bool], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Examples:
    """The images as classifiers see them.

    Attributes:
        rows: (K, G P, d) pixels in ``pixel_range``, or features, of the samples: G pools, one after the other.
        pixels: (K, G P, H W C) pixels of the same samples, which tell images apart where features may coincide.
        real: (K, n, d) the same as ``rows`` of the real images, or None.
    """

    rows: np.ndarray
    pixels: np.ndarray
    real: np.ndarray | None

    def pool(self, number: int, size: int) -> "Examples":
        """The examples of one pool."""
        taken = slice(number * size, (number + 1) * size)
        return Examples(self.rows[:, taken], self.pixels[:, taken], self.real)


def curve_arms(options: Options, real: bool) -> tuple[str, ...]:
    """Arms whose accuracy is drawn against the training size, in the order of results; ``real`` says whether there are
    real images.
    """
    optional = {"low rank": bool(options.low_rank_fit), "real": real}
    return (*COMPARED, *(arm for arm, present in optional.items() if present))


def cross_arms(options: Options, real: bool) -> tuple[str, ...]:
    """Arms of the cross matrix, no two of which share images."""
    return ("diffusion", "disjoint mixture", "disjoint null", *curve_arms(options, real)[len(COMPARED) :])


def crossed_size(options: Options, fewest: int) -> int:
    """The largest training size that every arm of the cross matrix reaches, of which the one with the fewest images has
    ``fewest`` of each class; all of them where none is reached.
    """
    return max((size for size in options.sizes if size <= fewest), default=fewest)


def replicate(
    options: Options, examples: Examples, sets: Sequence[Sequence[int]], number: int
) -> dict[str, np.ndarray]:
    """One split of its pool: mixtures and nulls fitted, every problem solved by SGD, spectra of the arms.

    Returns:
        For each problem ``NAME.accuracy`` and ``NAME.loss`` (arm, size), means over subsets and draws; ``NAME.rate``
        (arm and draw, subset, size); ``cross.accuracy`` (train arm, test arm); and the spectra, see ``_spectra``.
    """
    size = options.splits.total
    pool = examples.pool(number % options.pools, size)
    split = split_of(options, len(pool.rows), number)
    held = [np.take_along_axis(pool.pixels, places[:, :, None], axis=1) for places in split.values()]
    check_disjoint({part: digests(np.concatenate(blocks)) for part, blocks in zip(split, held)})

    def sgd(pool: Pool, task: Task, number: int, cross: bool) -> dict[str, np.ndarray]:
        return train_and_test(pool, task, options.recipe, seed_of(seeded(options.seed), "sgd", number), cross=cross)

    return measured(options, pool.rows, pool.real, split, sets, number, sgd)


def resampled(
    options: Options, examples: Examples, sets: Sequence[Sequence[int]], number: int
) -> dict[str, np.ndarray]:
    """Pool number ``number`` of those drawn anew from the images, with ridge least squares in place of SGD.

    Returns:
        As ``replicate``, without losses and rates; every array has a leading axis of splits.
    """
    base = examples.pool(number % options.pools, options.splits.total)
    sources = [base.rows] if base.real is None else [base.rows, base.real]
    width = options.recipe.width

    def ridge(products: dict[Any, Any], pool: Pool, task: Task, number: int, cross: bool) -> dict[str, np.ndarray]:
        if task.two_layer:
            draw = np.random.default_rng(seed_of(seeded(options.seed), "random features", number))
            first = draw.standard_normal((pool.x.shape[1], width), np.float32) / np.sqrt(pool.x.shape[1])
            pool, products = Pool(np.maximum(pool.x @ first.astype(np.float32), 0), pool.y, pool.rows), {}
        return {"accuracy": ridge_and_test(pool, task, cross=cross, products=products)}

    def design(drawn: Sequence[np.ndarray], split: int) -> dict[str, np.ndarray]:
        rows, real = drawn[0], drawn[1] if base.real is not None else None
        # The problems of a design have the same training images.
        solve = partial(ridge, {})
        return measured(options, rows, real, split_of(options, len(rows), split), sets, split, solve)

    def spectra(drawn: Sequence[np.ndarray], split: int) -> dict[str, np.ndarray]:
        rows, key = drawn[0], stream(seeded(options.seed), "replicate", split)
        places = split_of(options, len(rows), split)
        arms = split_arms(rows, places, key, gaussian_sizes(options), disjoint=False)
        return _spectra(options, rows, places, arms, sets, stream(key, "gram"))

    rng = np.random.default_rng(seed_of(seeded(options.seed), "resampled", number))
    return on_new_pool(sources, rng, options.resampled_splits, design, whole=spectra)


def measured(
    options: Options,
    rows: np.ndarray,
    real: np.ndarray | None,
    split: Mapping[str, np.ndarray],
    sets: Sequence[Sequence[int]],
    number: int,
    solve: Solve,
) -> dict[str, np.ndarray]:
    """The design on one split of one pool, (K, P, d), its problems solved by ``solve``."""
    key = stream(seeded(options.seed), "replicate", number)
    sizes = gaussian_sizes(options)
    arms = split_arms(rows, split, key, sizes, draws=options.draws, low_rank=options.low_rank_fit)
    if real is not None:
        arms["real"] = _real_parts(real, options, number)
    out = _spectra(options, rows, split, arms, sets, stream(key, "gram"))
    every, named = numbered(options.draws), curve_arms(options, real is not None)
    crossed = cross_arms(options, real is not None)
    pool = assemble(arms)
    # One after the other: two programs over several devices, launched from two threads, can wait for each other.
    for name, task in tasks(options, sets, len(rows), number).items():
        if name == "cross":
            taken = held_apart(pool.only(crossed), options.splits.test)
            size = crossed_size(options, min(parts["train"].shape[1] for parts in taken.rows.values()))
            out["cross.accuracy"] = solve(taken, replace(task, per_class=(size,)), number, True)["accuracy"][:, :, 0, 0]
            continue
        beside = name.endswith("two-layer")
        taken = pool.only(every if beside else (*every, *named[len(COMPARED) :]))
        for what, values in solve(taken, task, number, False).items():
            if what in ("accuracy", "loss"):
                by_arm = averaged(dict(zip(taken.arms, values.mean(axis=1))))
                values = np.stack([by_arm[arm] for arm in (COMPARED if beside else named)])
            out[f"{name}.{what}"] = values
    return out


def split_of(options: Options, k: int, number: int) -> dict[str, np.ndarray]:
    """The places in its pool of each part of replicate ``number``, (K, part)."""
    sizes, count = options.splits.parts(), options.splits.total
    by_class = [class_splits(count, sizes, options.seed, number, label) for label in range(k)]
    return {part: np.stack([places[part] for places in by_class]) for part in sizes}


def flat(images: np.ndarray, pixel_range: tuple[float, float]) -> np.ndarray:
    """(K, n, H, W, C) in [-1, 1] as (K, n, d) in ``pixel_range``."""
    low, high = pixel_range
    rows = images.reshape(*images.shape[:2], -1)
    return rows if (low, high) == (-1.0, 1.0) else (rows + 1) * np.float32((high - low) / 2) + np.float32(low)


def gaussian_sizes(options: Options) -> dict[str, int]:
    """Images per class in each part of a Gaussian arm, which may have more test images than the pool affords; as many
    as the pool has in all, so that spectra are of as many.
    """
    sizes = options.splits.parts()
    found = {part: sizes[part] * (options.gaussian_test_factor if part == "test" else 1) for part in PARTS}
    found["test"] += max(0, options.splits.total - sum(found.values()))
    return found


def real_sizes(options: Options, n: int) -> dict[str, int]:
    """Real images of each class, of which there are n, in each part: a quarter to test on, an eighth for validation,
    and the others, but no more than the pool has, to train on.
    """
    test, validation = max(2, n // 4), max(2, n // 8)
    return {"train": min(n - test - validation, options.splits.train), "validation": validation, "test": test}


def _real_parts(rows: np.ndarray, options: Options, number: int) -> Parts:
    n = rows.shape[1]
    sizes = real_sizes(options, n)
    seed = seed_of(seeded(options.seed), "real")
    places = [class_splits(n, sizes, seed, number, label) for label in range(len(rows))]
    return {part: np.stack([rows[label, places[label][part]] for label in range(len(rows))]) for part in sizes}


def _whole(arms: Mapping[str, Parts], arm: str) -> np.ndarray:
    return np.concatenate(list(arms[arm].values()), axis=1)


def _spectra(
    options: Options,
    rows: np.ndarray,
    split: Mapping[str, np.ndarray],
    arms: Mapping[str, Parts],
    sets: Sequence[Sequence[int]],
    key: Key,
) -> dict[str, np.ndarray]:
    """``covariance.ARM`` (class, rank): covariance spectra of each class, of all images of the pool and as many draws;
    ``gram-PANEL.ARM`` (rank): of the Gram matrices of equally many images of some classes, and of draws of mixtures
    that are fitted to the others of the pool.
    """
    order = np.concatenate(list(split.values()), axis=1)
    every = np.take_along_axis(rows, order[:, :, None], axis=1)
    found = {"diffusion": every}
    found |= {arm: _whole(arms, f"{arm} 1")[:, : rows.shape[1]] for arm in COMPARED[1:]}
    out = {}
    for arm, images in found.items():
        rank = min(images.shape[1] - 1, images.shape[2])
        out[f"covariance.{arm}"] = np.asarray(_covariance_values(images))[:, :rank] / (images.shape[1] - 1)
    for panel, (classes, count) in gram_classes(options, sets, len(rows)).items():
        for arm, images in disjoint_arms(every[classes], stream(key, panel), count).items():
            out[f"gram-{panel}.{arm}"] = np.asarray(squared_singular_values(images.reshape(-1, images.shape[2])))
    return out
