"""Pools that are drawn anew, with a design measured on them."""

import numpy as np
import pytest

from dgu.analysis.stats.pools import smoothed_bootstrap
from dgu.analysis.universality.arms import Task, assemble, train_and_test
from dgu.analysis.universality.recipe import Recipe
from dgu.analysis.universality.resampled import BANDWIDTH, on_new_pool
from dgu.analysis.universality.ridge import classifier_accuracy, ridge_and_test


def rows(count=40, d=6, seed=0, classes=2):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(classes, 1, d)) + rng.normal(size=(classes, count, d))).astype(np.float32)


def test_the_design_is_measured_on_every_split_of_sets_that_are_drawn_one_after_the_other():
    seen = []

    def measure(sets, split):
        seen.append(sets)
        return {"mean": np.array([sets[0].mean(), sets[1].mean()]) + split}

    given = [rows(), rows(30, seed=1)]
    found = on_new_pool(given, np.random.default_rng(3), 3, measure)["mean"]
    rng = np.random.default_rng(3)
    expected = [smoothed_bootstrap(one, rng, BANDWIDTH) for one in given]
    for sets in seen:
        for one, other in zip(sets, expected, strict=True):
            np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(found, np.arange(3)[:, None] + [one.mean() for one in expected], rtol=1e-6)


def test_sets_of_many_dimensions_are_projected_onto_the_axes_of_the_first():
    """Pixels of which three vary: three coordinates hold all distances."""
    basis = np.linalg.qr(np.random.default_rng(2).normal(size=(20, 3)))[0].T.astype(np.float32)
    given = [rows(d=3) @ basis, rows(50, d=3, seed=1) @ basis]
    shapes, variances = [], []

    def measure(sets, split):
        shapes.append([one.shape for one in sets])
        variances.append([one.var(axis=1).sum() for one in sets])
        return {"split": np.array(split)}

    on_new_pool(given, np.random.default_rng(0), 1, measure, most_dimensions=3)
    assert shapes == [[(2, 40, 3), (2, 50, 3)]]
    # The bootstrap leaves the variance as it is, but for its own sampling error of about 10 %.
    np.testing.assert_allclose(variances[0], [one.var(axis=1).sum() for one in given], rtol=0.4)
    on_new_pool(given, np.random.default_rng(0), 1, measure, most_dimensions=20)
    assert shapes[1] == [(2, 40, 20), (2, 50, 20)]


def test_what_depends_on_ranks_is_measured_in_all_dimensions():
    """The spectra of 12 dimensions have 12 eigenvalues, also where classifiers see 3 axes; their sum is the variance."""
    given = [rows(400, d=12)]

    def values(sets, split):
        return np.linalg.svd(sets[0][0] - sets[0][0].mean(axis=0), compute_uv=False) ** 2 / 400

    def measure(sets, split):
        return {"seen": np.array(sets[0].shape[-1]), "spectrum": values(sets, split)}

    def whole(sets, split):
        return {"spectrum": values(sets, split)}

    found = on_new_pool(given, np.random.default_rng(0), 2, measure, most_dimensions=3, whole=whole)
    assert found["seen"].tolist() == [3, 3] and found["spectrum"].shape == (2, 12)
    expected = values(given, 0)
    np.testing.assert_allclose(found["spectrum"][0].sum(), expected.sum(), rtol=0.15)
    assert found["spectrum"][0, 9] > 0.5 * expected[9]
    few = on_new_pool(given, np.random.default_rng(0), 2, measure, most_dimensions=12, whole=whole)
    assert few["seen"].tolist() == [12, 12]


@pytest.mark.parametrize("cross", [True, False])
def test_accuracy_is_that_of_the_recipe_or_without_one_of_ridge_least_squares(cross):
    parts = {"train": slice(0, 20), "validation": slice(20, 28), "test": slice(28, 40)}
    arms = {f"arm {seed}": {part: rows(seed=seed)[:, at] for part, at in parts.items()} for seed in range(2)}
    pool, task = assemble(arms), Task("both", np.arange(2)[None], (10, 20), "softmax_mse")
    recipe = Recipe(epochs=2, learning_rates=(0.3,), eval_interval=1)
    np.testing.assert_array_equal(
        classifier_accuracy(pool, task, None, 5, cross=cross), ridge_and_test(pool, task, cross=cross)
    )
    expected = train_and_test(pool, task, recipe, 5, cross=cross)["accuracy"]
    np.testing.assert_array_equal(classifier_accuracy(pool, task, recipe, 5, cross=cross), expected)
