"""The design of a universality comparison: how one pool of images becomes arms, and what is read off their accuracies.

A Gaussian mixture is fitted to *all* images of the pool. Classifiers of the diffusion arm are trained on some of the
images and tested on all that they were neither trained nor validated on; those of the mixture are trained and tested on
its draws. No image needs to be kept for the fit: the accuracy of the diffusion arm does not involve the fit, and that
of the mixture nothing else. Only where classifiers of one arm are tested on another (the cross matrix) must the mixture
be fitted to images that the diffusion arm does not use; such *disjoint* arms are made beside.

The finite fit alone makes the mixture's classes easier to tell apart than those of the images' own distribution.
The *null*, a mixture fitted to as many draws of the mixture, shows by how much: the gap between arms is corrected by
it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from dgu.analysis.universality.arms import (
    Pool,
    Task,
    assemble,
    cut_parts,
    gaussian_arms,
    train_and_test,
)
from dgu.analysis.universality.recipe import Recipe
from dgu.core.errors import require
from dgu.core.keys import stream, threefry
from dgu.core.typing import Key

#: The arms that are compared, in the order of results: draws of the Gaussian ones are numbered from 1.
COMPARED = ("diffusion", "mixture", "null")

Parts = dict[str, np.ndarray]


def numbered(draws: int) -> tuple[str, ...]:
    """Names of the compared arms with every draw: diffusion, mixture 1, null 1, mixture 2, null 2, ..."""
    return ("diffusion", *(f"{arm} {number}" for number in range(1, draws + 1) for arm in COMPARED[1:]))


def split_arms(
    rows: Num[np.ndarray, "classes pool d"],
    split: Mapping[str, Num[np.ndarray, "classes part"]],
    key: Key,
    sizes: Mapping[str, int],
    *,
    draws: int = 1,
    low_rank: int = 0,
    disjoint: bool = True,
) -> dict[str, Parts]:
    """The arms of one split of a pool, by name and part (train, validation, test), each (K, n, d).

    Args:
        rows: the pool: images or features of K classes.
        split: places in the pool of the parts fit, train, validation and test of each class, which share no image.
        key: of the draws.
        sizes: images per class in the parts of a Gaussian arm.
        draws: how often mixture and null are drawn, the null fitted anew each time.
        low_rank: also an arm "low rank", of a mixture fitted to so many images of the part fit; 0 leaves it out.
        disjoint: also the arms "disjoint mixture" and "disjoint null", fitted to the part fit.

    Returns:
        "diffusion", whose test images are those of the parts test and fit, in this order; "mixture 1", "null 1" and so
        on, fitted to the whole pool; then those asked for.

    Raises:
        InputError: no draw, or as ``gaussian_arms`` and ``cut_parts``.
    """
    require(draws >= 1, "draws", draws, "1 or more")
    key, count = threefry(key), sum(sizes.values())

    def part(name: str) -> np.ndarray:
        return np.take_along_axis(rows, split[name][:, :, None], axis=1)

    unseen = np.concatenate([part("test"), part("fit")], axis=1)
    arms = {"diffusion": {"train": part("train"), "validation": part("validation"), "test": unseen}}
    for number in range(1, draws + 1):
        drawn = gaussian_arms(rows, stream(key, "pool", number), count)
        arms |= {f"{arm} {number}": cut_parts(drawn[arm], sizes) for arm in COMPARED[1:]}
    if low_rank or disjoint:
        drawn = gaussian_arms(part("fit"), stream(key, "disjoint"), count, low_rank=low_rank)
        if disjoint:
            arms |= {f"disjoint {arm}": cut_parts(drawn[arm], sizes) for arm in COMPARED[1:]}
        if low_rank:
            arms["low rank"] = cut_parts(drawn["low rank"], sizes)
    return arms


def averaged(values: Mapping[str, Any]) -> dict[str, Any]:
    """Results by arm, the numbered draws of an arm averaged under its name, in the order of the arms."""
    groups: dict[str, list[Any]] = {}
    for arm, value in values.items():
        name, _, number = arm.rpartition(" ")
        groups.setdefault(name if number.isdigit() else arm, []).append(value)
    return {arm: sum(found[1:], start=found[0]) / len(found) for arm, found in groups.items()}


def corrected_gap(diffusion: Any, mixture: Any, null: Any) -> Any:
    """``(diffusion - mixture) - (mixture - null)``: by how much the arms differ beyond what the finite fit explains."""
    return (diffusion - mixture) - (mixture - null)


def pool_gap(
    rows: Num[np.ndarray, "classes pool d"],
    split: Mapping[str, Num[np.ndarray, "classes part"]],
    key: Key,
    sizes: Mapping[str, int],
    task: Task,
    recipe: Recipe,
    *,
    seed: int,
    features: Callable[[ArrayLike], ArrayLike] | None = None,
) -> Float[np.ndarray, "3"]:
    """Accuracy of diffusion, mixture and null on a pool of known truth, each on its own test images: for controls.

    Args:
        rows, split, key, sizes: as of ``split_arms``.
        task, recipe, seed: as of ``train_and_test``; accuracies are means over the subsets and sizes of ``task``.
        features: of all examples (N, d) that the classifiers see; by default the examples themselves.
    """
    key = threefry(key)
    arms = split_arms(rows, split, key, sizes, disjoint=False)
    pool = assemble(arms)
    if features is not None:
        pool = Pool(np.asarray(features(pool.x)), pool.y, pool.rows)
    accuracy = train_and_test(pool, task, recipe, seed, cross=False)["accuracy"]
    return accuracy.mean(axis=(1, 2))


def disjoint_arms(
    rows: Num[np.ndarray, "classes pool d"], key: Key, count: int
) -> dict[str, Num[np.ndarray, "classes count d"]]:
    """The first ``count`` rows of each class, under "diffusion", beside as many draws of the mixture fitted to the
    others, and of its null: what the fitted images have in common with those compared is their distribution alone.

    Raises:
        InputError: a count below 1, or that leaves fewer than two rows of a class.
    """
    key = threefry(key)
    most = rows.shape[1] - 2
    require(1 <= count <= most, "count", count, f"from 1 to {most}, so that two of {rows.shape[1]} images are left")
    drawn = gaussian_arms(rows[:, count:], key, count)
    return {"diffusion": rows[:, :count]} | {arm: np.asarray(drawn[arm]) for arm in COMPARED[1:]}


def held_apart(pool: Pool, count: int) -> Pool:
    """The pool with only the first ``count`` test images of a class in the arm "diffusion": those of the part test,
    which no disjoint arm is fitted to.
    """
    rows = {arm: dict(parts) for arm, parts in pool.rows.items()}
    rows["diffusion"]["test"] = rows["diffusion"]["test"][:, :count]
    return Pool(pool.x, pool.y, rows)
