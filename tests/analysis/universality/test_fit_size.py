import dataclasses

import numpy as np
import pytest

from dgu.analysis import FitSweep, fit_gaps, fit_size_accuracy
from dgu.analysis.universality.recipe import Recipe
from dgu.core.errors import InputError
from dgu.data.splits import class_splits

K, D = 2, 24
SWEEP = FitSweep(n_fit=(6, 60), train=30, validation=10, test=60, test_factor=8)
RECIPE = Recipe(epochs=8, learning_rates=(0.3,), eval_interval=4)


def pool(count=200, seed=0):
    """Two classes that are close; exactly Gaussian."""
    rng = np.random.default_rng(seed)
    means = np.stack([np.zeros(D), np.full(D, 0.25)])[:, None]
    return (rng.normal(size=(K, count, D)) * np.linspace(1.5, 0.5, D) + means).astype(np.float32)


def accuracies(images, replicates=6, **options):
    runs = [fit_size_accuracy(images, SWEEP, RECIPE, seed=0, replicate=r, **options) for r in range(replicates)]
    return np.stack(runs)


def test_gap_of_exactly_gaussian_images_is_that_of_the_fit_alone():
    images = pool()
    own, null = accuracies(images), accuracies(images, null=True)
    assert SWEEP.arms == ("images", "n_fit 6", "n_fit 60", "everything") and own.shape == (6, 4)
    gaps = fit_gaps(own).mean(axis=0)
    # Six images a class: the mixture lives on two 5-dimensional flats, which any classifier tells apart.
    assert gaps[0] < -10 and gaps[0] < gaps[1] - 5 and gaps[0] < gaps[2] - 5
    difference = fit_gaps(own).mean(axis=0) - fit_gaps(null).mean(axis=0)
    assert np.abs(difference).max() < 6, difference
    # Fresh samples of the truth in each replicate, not the images again.
    assert len(np.unique(null[:, 0])) > 2 and not np.array_equal(own, null)


def test_only_the_published_protocol_sees_the_test_images():
    """With the test images of class 1 far away, mixtures fitted to other images stay as they are, bit for bit."""
    images = pool()
    parts = {"fit": 60, "train": 30, "validation": 10, "test": 60}
    moved = images.copy()
    moved[1, class_splits(200, parts, 0, 0, 1)["test"]] -= 4
    before, after = accuracies(images, 1)[0], accuracies(moved, 1)[0]
    np.testing.assert_array_equal(before[1:3], after[1:3])
    assert after[0] < before[0] - 0.1 and after[3] != before[3]
    np.testing.assert_array_equal(before, accuracies(images, 1)[0])
    np.testing.assert_allclose(fit_gaps(before[None]), 100 * (before[0] - before[None, 1:]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_fit": (10, 5)}, r"n_fit = \(10, 5\): must be increasing, from 2 on"),
        ({"n_fit": ()}, r"n_fit = \(\): must be increasing"),
        ({"train": 1}, "train = 1: must be at least 2"),
        ({"test_factor": 0}, "test_factor = 0: must be at least 1"),
    ],
)
def test_bad_sweep(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(SWEEP, **change)


def test_bad_pool():
    with pytest.raises(InputError, match="images per class = 100: must be at least 160"):
        fit_size_accuracy(pool(100), SWEEP, RECIPE, seed=0, replicate=0)
    with pytest.raises(InputError, match="number of classes = 1: must be at least 2"):
        fit_size_accuracy(pool()[:1], SWEEP, RECIPE, seed=0, replicate=0)
