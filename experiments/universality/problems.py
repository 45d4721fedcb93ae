"""The classification problems of a replicate: their classes, training sizes and losses."""

from dataclasses import replace

import numpy as np

from dgu.analysis.universality.arms import Task
from experiments.universality.options import Options


def sizes_per_class(options: Options, k: int, d: int) -> tuple[int, ...]:
    """Training images per class at each ratio n / d for which there are enough; if there is none, all of them."""
    ratios, available = options.training_ratios, options.splits.train
    sizes = [max(1, round(ratio * d / k)) for ratio in ratios]
    reached = sorted({n for n in sizes if n <= available})
    return tuple(reached) or (available,)


def two_layer_size(options: Options, d: int) -> int:
    """Training images per class of the two-layer networks: at their ratio, or the most that linear classifiers get."""
    k = options.subset_sizes[0]
    return min(max(1, round(options.two_layer_ratio * d / k)), sizes_per_class(options, k, d)[-1])


def curve_tasks(options: Options) -> tuple[str, ...]:
    """The problems whose classifiers are trained on squared loss."""
    return (*(f"{k}-classes" for k in options.subset_sizes), "all-classes", "pairs")


def class_counts(options: Options, k_all: int) -> dict[str, int]:
    """Classes to tell apart in each problem of linear classifiers."""
    subsets = {f"{k}-classes": k for k in options.subset_sizes}
    return subsets | {"all-classes": k_all, "pairs": 2, "cross-entropy": k_all}


def tasks(options: Options, k_all: int, d: int, number: int) -> dict[str, Task]:
    """The classification problems of replicate ``number``: its own random subsets and pairs."""
    rng = np.random.default_rng([options.seed, number, 7])

    def random_classes(k: int, count: int) -> np.ndarray:
        return np.sort(np.stack([rng.choice(k_all, k, replace=False) for _ in range(count)]), axis=1)

    def task(name: str, classes: np.ndarray, loss: str = "softmax_mse") -> Task:
        return Task(name, classes, sizes_per_class(options, classes.shape[1], d), loss)

    few = {f"{k}-classes": task(f"{k}-classes", random_classes(k, options.subsets)) for k in options.subset_sizes}
    every = task("all-classes", np.arange(k_all)[None])
    pairs = task("pairs", random_classes(2, options.pairs), "sigmoid_mse")
    first = few[f"{options.subset_sizes[0]}-classes"]
    size = (two_layer_size(options, d),)
    return few | {
        "all-classes": every,
        "pairs": pairs,
        "cross-entropy": replace(every, name="cross-entropy", loss="cross_entropy"),
        "two-layer": replace(first, name="two-layer", classes=first.classes[:1], per_class=size, two_layer=True),
    }
