"""Least squares on splits of the images, and what the moments of other images predict of it."""

import numpy as np
import pytest

from dgu.analysis import class_moments, least_squares_classifier, predicted_curve
from dgu.analysis.universality.least_squares_splits import predicted_and_split_errors, split_errors
from dgu.core.errors import InputError
from dgu.data.splits import class_splits


def images(k=3, count=60, d=10, seed=0):
    rng = np.random.default_rng(seed)
    return (0.6 * rng.normal(size=(k, 1, d)) + rng.normal(size=(k, count, d))).astype(np.float32)


def test_errors_are_those_of_single_classifiers():
    given, ridges = images(), (0.3, 0.0)
    found = split_errors(given, 7, 20, ridges=ridges, replicates=2, seed=5)
    assert found.shape == (2, 2)
    split = [class_splits(60, {"train": 40, "test": 20}, 5, 2, label) for label in range(3)]
    train = np.concatenate([given[label, rows["train"][:7]] for label, rows in enumerate(split)])
    for place, ridge in enumerate(ridges):
        weights = least_squares_classifier(train, np.repeat(np.arange(3), 7), 3, ridge=ridge)
        wrong = [np.argmax(given[label, rows["test"]] @ weights, axis=1) != label for label, rows in enumerate(split)]
        assert found[1, place] == pytest.approx(np.mean(wrong))


def test_theory_comes_from_other_images_than_errors():
    given, sizes = images(), np.array([4, 10])
    found = predicted_and_split_errors(given, sizes, fit=24, test=12, between=3, replicates=2, seed=5)
    fitted = np.stack([given[label, class_splits(60, {"fit": 24}, 5, 0, label)["fit"]] for label in range(3)])
    means, covariances = class_moments(fitted)
    np.testing.assert_array_equal(found["means"], means)
    np.testing.assert_array_equal(found["n"][found["at"]], 3 * sizes)
    assert len(found["n"]) == 3 and found["errors"].shape == (2, 2, 2)
    curve = predicted_curve(means, covariances, np.arange(3)[None], 3 * sizes)
    np.testing.assert_allclose(found["theory"], np.stack([curve.ridge, curve.min_norm], axis=1), rtol=1e-12)
    # The other images, whatever their order among themselves.
    rest = np.stack(
        [given[label, class_splits(60, {"fit": 24, "rest": 36}, 5, 0, label)["rest"]] for label in range(3)]
    )
    ridge = float(curve.best[1])
    expected = split_errors(rest, 10, 12, ridges=(ridge, 0.0), replicates=2, seed=5)
    np.testing.assert_allclose(found["errors"][1], expected.T)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"per_class": 41}, "per_class = 41: must be from 1 to 40"),
        ({"test": 60}, "test = 60"),
        ({"replicates": 0}, "replicates"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, line):
    given = {"per_class": 5, "test": 20, "replicates": 1} | change
    with pytest.raises(InputError, match=f"^{line}"):
        split_errors(images(), given["per_class"], given["test"], ridges=(0.1,), replicates=given["replicates"], seed=0)
