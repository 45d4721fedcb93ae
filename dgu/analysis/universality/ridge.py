"""Ridge least squares on every arm at every size: the closed-form twin of ``train_and_test``, many times as fast.

It serves to see how much the results of a design vary from pool to pool, which takes dozens of repetitions.
"""

from collections.abc import Sequence

import numpy as np
import scipy
from jaxtyping import Float, Int, Num

from dgu.analysis.universality.arms import Pool, Task, train_and_test
from dgu.analysis.universality.recipe import Recipe
from dgu.core.errors import require

#: Ridge in units of the mean square of a feature. SGD at rate r for t steps learns the directions of variance above
#: about 1 / (r t); with the default recipe that is of this order. One value for all pools, chosen before any was seen.
RIDGE = 0.01
#: The products of an arm's training rows with each other, and their sums, by class, after each size.
Products = list[tuple[np.ndarray, np.ndarray]]


def ridge_and_test(
    pool: Pool,
    task: Task,
    *,
    cross: bool = True,
    ridge: float = RIDGE,
    products: dict[tuple[str, tuple[int, ...]], Products] | None = None,
) -> Float[np.ndarray, "arms *tested subsets sizes"]:
    """Accuracy of one-vs-all ridge least squares trained on every arm and tested on every arm.

    ``W = argmin sum_i |y_i - x_i W|^2 / n + ridge m |W|^2`` for one-hot y, without bias, where m is the mean square of
    a feature of the n training rows; an example's class is the largest of ``x W``. All sizes and subsets of an arm
    share the products of its rows.

    Args:
        pool: images of all arms.
        task: the problem; its loss and its kind of network count for nothing.
        cross: test on every arm; otherwise on the arm's own test images alone.
        ridge: positive.
        products: where the products of training rows, K d^2 numbers for each arm and size, are kept for further calls
            with the same images and sizes; give an empty dict to the first call.

    Returns:
        (train arm, test arm, subset, size), without the second axis where ``cross`` is False; NaN where an arm has too
        few images for the size.

    Raises:
        InputError: a ridge that is not positive and finite.
    """
    require(0 < ridge < np.inf, "ridge", ridge, "positive and finite")
    arms, classes, sizes = pool.arms, task.classes, task.per_class
    out = np.full((len(arms), len(arms), len(classes), len(sizes)), np.nan)
    held = [_images(pool.x, pool.rows[arm]["test"]) for arm in arms]
    for number, arm in enumerate(arms):
        train = _images(pool.x, pool.rows[arm]["train"])
        reached = tuple(size for size in sizes if size <= train.shape[1])
        made = None if products is None else products.get((arm, reached))
        if made is None:
            made = _products(train, reached)
        if products is not None:
            products[arm, reached] = made
        for place, (gram, total) in enumerate(made):
            weights = [_weights(gram[subset], total[subset], ridge) for subset in classes]
            for tested in range(len(arms)) if cross else (number,):
                for subset, chosen in enumerate(classes):
                    right = [
                        np.mean(np.argmax(held[tested][label] @ weights[subset], axis=1) == own)
                        for own, label in enumerate(chosen)
                    ]
                    out[number, tested, subset, place] = np.mean(right)
    return out if cross else np.einsum("aasz->asz", out)


def classifier_accuracy(
    pool: Pool, task: Task, recipe: Recipe | None, seed: int, *, cross: bool = True
) -> Float[np.ndarray, "arms *tested subsets sizes"]:
    """The accuracy that ``train_and_test`` reaches with a recipe, or, where there is none, ``ridge_and_test``."""
    if recipe is None:
        return ridge_and_test(pool, task, cross=cross)
    return train_and_test(pool, task, recipe, seed, cross=cross)["accuracy"]


def _images(x: Num[np.ndarray, "N d"], rows: Int[np.ndarray, "classes n"]) -> Num[np.ndarray, "classes n d"]:
    """Rows of x, as a view where they follow each other."""
    first = int(rows[0, 0])
    if np.array_equal(rows.reshape(-1), np.arange(first, first + rows.size)):
        return x[first : first + rows.size].reshape(*rows.shape, -1)
    return x[rows]


def _products(train: Num[np.ndarray, "classes n d"], sizes: Sequence[int]) -> Products:
    """``X_k^T X_k`` (K, d, d) and the sums of rows (K, d) of the first rows of each class, for each size."""
    d = train.shape[-1]
    gram, total, last, out = np.zeros((len(train), d, d), train.dtype), np.zeros((len(train), d), train.dtype), 0, []
    for size in sizes:
        rows = train[:, last:size]
        gram, total, last = gram + rows.swapaxes(1, 2) @ rows, total + rows.sum(axis=1), size
        out.append((gram, total))
    return out


def _weights(gram: Num[np.ndarray, "k d d"], total: Num[np.ndarray, "k d"], ridge: float) -> Num[np.ndarray, "d k"]:
    """The weights of one subset of classes, from its ``_products``."""
    d, system = gram.shape[-1], gram.sum(axis=0)
    system[np.diag_indices(d)] += ridge * np.trace(system) / d
    return scipy.linalg.solve(system, total.T, assume_a="pos", check_finite=False)
