"""Arms: laws and independence of the Gaussian ones; classifiers trained and tested across arms, paired and
unspoiled.
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.analysis import Runs, Schedule, evaluate, fit_classifiers
from dgu.analysis.universality.arms import (
    PARTS,
    Pool,
    Recipe,
    Task,
    assemble,
    cut_parts,
    gaussian_arms,
    train_and_test,
)
from dgu.core.errors import InputError
from dgu.core.keys import stream
from dgu.distributions.class_gaussians import class_key, draw_gaussian, fit_gaussian
from dgu.training.classifiers.fit import _evaluate
from dgu.training.classifiers.sgd import train_runs

K, N, D, COUNT, FEW = 2, 40, 12, 4096, 5
KEY = jax.random.key(8)


def fit_rows():
    """Two classes of skewed, correlated rows with means of their own."""
    rng = np.random.default_rng(2)
    mixing = rng.normal(size=(K, D, D)) * np.arange(1, D + 1) ** -0.5
    return (rng.exponential(size=(K, N, D)) @ mixing + rng.normal(size=(K, 1, D))).astype(np.float32)


@pytest.fixture(scope="module")
def arms():
    return {
        name: np.asarray(drawn, np.float64)
        for name, drawn in gaussian_arms(fit_rows(), KEY, COUNT, low_rank=FEW).items()
    }


def moment_scores(drawn, rows):
    """z-scores of all first and second moments of ``drawn`` against N(mean, covariance) of ``rows``."""
    rows = np.asarray(rows, np.float64)
    values, vectors = np.linalg.eigh(np.cov(rows.T))
    white = (drawn - rows.mean(0)) @ vectors / np.sqrt(values)
    n = len(white)
    second = white.T @ white / n
    above = np.triu_indices(D, 1)
    return np.concatenate(
        [white.mean(0) * np.sqrt(n), (np.diag(second) - 1) * np.sqrt(n / 2), second[above] * np.sqrt(n)]
    )


def agree(scores):
    return 0.8 < np.sqrt(np.mean(scores**2)) < 1.2 and np.abs(scores).max() < 4.5


def test_mixture_has_the_moments_of_the_rows_it_was_fitted_to(arms):
    rows = fit_rows()
    assert list(arms) == ["mixture", "null", "low rank"] and {a.shape for a in arms.values()} == {(K, COUNT, D)}
    for label in range(K):
        assert agree(moment_scores(arms["mixture"][label], rows[label]))
        assert not agree(moment_scores(arms["mixture"][label], rows[1 - label]))


def test_null_is_fitted_to_as_many_other_samples_of_the_mixture(arms):
    for label in range(K):
        mixture = fit_gaussian(jnp.asarray(fit_rows()[label]))
        unseen = draw_gaussian(mixture, class_key(stream(KEY, "refit"), label), jnp.arange(N))
        assert agree(moment_scores(arms["null"][label], unseen))
        # Neither the mixture over again, nor fitted to samples that the mixture arm returned.
        for rows in (fit_rows()[label], arms["mixture"][label, :N]):
            assert np.sqrt(np.mean(moment_scores(arms["null"][label], rows) ** 2)) > 3
        returned = {row.tobytes() for row in arms["mixture"][label].astype(np.float32)}
        assert not returned & {row.tobytes() for row in np.asarray(unseen)}


def test_arms_and_classes_are_drawn_independently(arms):
    blocks = {(arm, label): drawn[label] for arm, drawn in arms.items() for label in range(K)}
    for one, other in itertools.combinations(blocks, 2):
        a, b = ((x - x.mean(0)) / x.std(0) for x in (blocks[one], blocks[other]))
        assert np.abs(a.T @ b).max() / np.sqrt(COUNT) < 4.8, (one, other)  # D^2 correlations, each about N(0, 1)
    again = gaussian_arms(fit_rows(), KEY, COUNT, low_rank=FEW)
    fresh = gaussian_arms(fit_rows(), jax.random.key(9), COUNT, low_rank=FEW)
    for arm, drawn in arms.items():
        np.testing.assert_array_equal(again[arm], drawn.astype(np.float32))
        a, b = (np.asarray(x)[0] - np.asarray(x)[0].mean(0) for x in (again[arm], fresh[arm]))
        assert np.abs(np.sum(a * b, 0) / np.sqrt(np.sum(a**2, 0) * np.sum(b**2, 0))).max() * np.sqrt(COUNT) < 4.5


def test_low_rank_arm_lies_in_the_affine_hull_of_its_rows(arms):
    for label in range(K):
        rows = fit_rows()[label, :FEW].astype(np.float64)
        centre = rows.mean(0)
        basis = np.linalg.svd(rows - centre)[2][: FEW - 1]
        drawn = arms["low rank"][label] - centre
        outside = drawn - drawn @ basis.T @ basis
        assert np.abs(outside).max() < 1e-5 * np.abs(drawn).max()
        # Inside of the hull it has the rows' moments.
        inside, within = drawn @ basis.T, (rows - centre) @ basis.T
        np.testing.assert_allclose(np.cov(inside.T), np.cov(within.T), atol=0.08 * np.cov(within.T).max())


@pytest.mark.parametrize("low_rank", [1, -2, N + 1])
def test_low_rank_outside_of_the_rows_is_refused(low_rank):
    with pytest.raises(InputError, match=rf"low_rank = {low_rank}: must be 0, or from 2 to {N}"):
        gaussian_arms(fit_rows(), KEY, 3, low_rank=low_rank)


# --- classifiers ---------------------------------------------------------------------------------------------------

CLASSES, PIXELS = 3, 6
PER_CLASS = {"large": {"train": 20, "validation": 6, "test": 30}, "small": {"train": 8, "validation": 4, "test": 10}}
TASK = Task("few", np.asarray([[0, 1], [1, 2]]), (4, 12), "softmax_mse")
RECIPE = Recipe(epochs=6, learning_rates=(0.05, 1.0), batch_size=8, momentum=0.5, eval_interval=2, width=5)
LARGE, SMALL = 0, 1


def parts_of(seed, sizes, spread=1.0):
    """Overlapping classes: their means lie on the axes."""
    rng = np.random.default_rng(seed)
    means = np.eye(CLASSES, PIXELS)[:, None] * spread
    return {part: (rng.normal(size=(CLASSES, n, PIXELS)) + means).astype(np.float32) for part, n in sizes.items()}


def two_arms(seed=0):
    return {arm: parts_of(seed + number, sizes) for number, (arm, sizes) in enumerate(PER_CLASS.items())}


def test_assemble_keeps_every_image_under_its_arm_part_and_class():
    arms = two_arms()
    pool = assemble(arms)
    assert pool.arms == ("large", "small") and len(pool.x) == len(pool.y) == CLASSES * (56 + 22)
    seen = []
    for arm, part in itertools.product(arms, PARTS):
        np.testing.assert_array_equal(pool.x[pool.rows[arm][part]], arms[arm][part])
        np.testing.assert_array_equal(
            pool.y[pool.rows[arm][part]], np.arange(CLASSES)[:, None] + 0 * pool.rows[arm][part]
        )
        seen += pool.rows[arm][part].ravel().tolist()
    assert sorted(seen) == list(range(len(pool.x)))
    assert pool.only(["small"]).arms == ("small",)


@pytest.fixture(scope="module")
def results():
    return train_and_test(assemble(two_arms()), TASK, RECIPE, seed=3)


def test_nan_exactly_where_an_arm_has_too_few_images(results):
    absent = np.zeros((2, 2, 2), bool)  # train arm, subset, size
    absent[SMALL, :, 1] = True
    for name in ("rate", "epoch"):
        np.testing.assert_array_equal(np.isnan(results[name]), absent)
    for name in ("accuracy", "loss"):
        assert results[name].shape == (2, 2, 2, 2)
        for tested in (LARGE, SMALL):
            np.testing.assert_array_equal(np.isnan(results[name][:, tested]), absent)


@pytest.mark.parametrize(("arm", "subset", "size"), [("large", 1, 1), ("small", 0, 0)])
def test_a_cell_equals_the_steps_taken_by_hand(results, arm, subset, size):
    """Rows, orders, the choice on validation and the test on each arm, without any of the packing."""
    arms, classes, n = two_arms(), TASK.classes[subset], TASK.per_class[size]
    cell = (list(arms).index(arm), subset, size)

    def stack(images):
        return images[classes].reshape(-1, PIXELS), np.repeat(classes, images.shape[1])

    train, validation = stack(arms[arm]["train"][:, :n]), stack(arms[arm]["validation"])
    x, y = (np.concatenate(pair) for pair in zip(train, validation))
    seed = 3 * 10_007 + subset * 101 + size
    lowest = {}
    for rate in RECIPE.learning_rates:
        runs = Runs(np.arange(2 * n)[None], np.asarray([seed]), np.asarray([rate], np.float32), classes[None])
        fit = fit_classifiers(
            x, y, runs, loss="softmax_mse", schedule=Schedule("cosine"), epochs=6, validation=np.arange(2 * n, len(y)),
            batch_size=8, momentum=0.5, init="torch", eval_interval=2, method="weight",
        )  # fmt: skip
        lowest[rate] = float(fit.validation_loss.min()), fit
    rate = min(lowest, key=lambda r: lowest[r][0])
    fit = lowest[rate][1]
    assert results["rate"][cell] == np.float32(rate) and results["epoch"][cell] == fit.chosen_epoch[0]
    for tested, parts in enumerate(arms.values()):
        images, labels = stack(parts["test"])
        accuracy, loss = evaluate(
            fit.model, images, labels, np.arange(len(labels))[None], loss="softmax_mse", classes=classes[None]
        )
        assert results["accuracy"][cell[0], tested, subset, size] == pytest.approx(float(accuracy[0]), abs=1e-6)
        assert results["loss"][cell[0], tested, subset, size] == pytest.approx(float(loss[0]), rel=2e-5)


def test_without_the_cross_each_arm_is_tested_on_its_own_images(results):
    found = train_and_test(assemble(two_arms()), TASK, RECIPE, seed=3, cross=False)
    for name in ("accuracy", "loss"):
        for arm in range(2):
            np.testing.assert_allclose(found[name][arm], results[name][arm, arm], rtol=2e-5, equal_nan=True)
    for name in ("rate", "epoch"):
        np.testing.assert_array_equal(found[name], results[name])


def test_arms_of_the_same_images_give_exactly_the_same(results):
    same = parts_of(5, PER_CLASS["large"])
    found = train_and_test(assemble({"one": same, "other": {k: v.copy() for k, v in same.items()}}), TASK, RECIPE, 7)
    for name in ("rate", "epoch"):
        np.testing.assert_array_equal(found[name][0], found[name][1])
    for name in ("accuracy", "loss"):
        for place in itertools.product((0, 1), repeat=2):
            np.testing.assert_array_equal(found[name][0, 0], found[name][place])
    assert not np.array_equal(found["loss"][0, 0, 0], found["loss"][0, 0, 1])  # subsets differ


def test_test_images_choose_nothing_and_validation_images_do(results):
    arms = two_arms()
    spoiled = {
        arm: {**parts, "test": parts_of(50, {"test": parts["test"].shape[1]}, 5.0)["test"]}
        for arm, parts in arms.items()
    }
    found = train_and_test(assemble(spoiled), TASK, RECIPE, seed=3)
    for name in ("rate", "epoch"):
        np.testing.assert_array_equal(found[name], results[name])
    assert np.nanmin(np.abs(found["loss"] - results["loss"])) > 0
    # Validation images with their classes turned round prefer the slow rate or the first look.
    turned = {arm: {**parts, "validation": parts["validation"][[1, 2, 0]]} for arm, parts in arms.items()}
    found = train_and_test(assemble(turned), TASK, RECIPE, seed=3)
    assert not np.array_equal(found["epoch"], results["epoch"], equal_nan=True)


def test_a_second_replicate_traces_nothing(results):
    """New images, subsets of classes that overlap otherwise, and another seed: the programs are there already."""
    other = dataclasses.replace(TASK, classes=np.asarray([[0, 2], [0, 1]]))
    before = train_runs._cache_size(), _evaluate._cache_size()
    found = train_and_test(assemble(two_arms(20)), other, RECIPE, seed=11)
    assert (train_runs._cache_size(), _evaluate._cache_size()) == before
    assert not np.array_equal(found["loss"], results["loss"], equal_nan=True)
    same_twice = dataclasses.replace(TASK, classes=np.asarray([[1, 2], [1, 2]]))
    train_and_test(assemble(two_arms(30)), same_twice, RECIPE, seed=400_000)  # a large seed is a seed, too
    assert (train_runs._cache_size(), _evaluate._cache_size()) == before


def test_a_two_layer_task_trains_networks():
    """Exclusive-or: no linear classifier without a bias sees it, whatever its training; a network does."""
    rng = np.random.default_rng(0)

    def crossed(n):
        signs = rng.choice([-1.0, 1.0], size=(2, n, 1))
        ends = np.concatenate([signs, np.asarray([1, -1])[:, None, None] * signs], axis=2)
        return (2 * ends + 0.3 * rng.normal(size=ends.shape)).astype(np.float32)

    pool = assemble({"one": {part: crossed(n) for part, n in (("train", 60), ("validation", 20), ("test", 100))}})
    task = Task("crossed", np.arange(2)[None], (60,), "softmax_mse", two_layer=True)
    recipe = dataclasses.replace(RECIPE, epochs=40, learning_rates=(0.5,), eval_interval=10, width=16)
    found = train_and_test(pool, task, recipe, 0)["accuracy"]
    assert found.shape == (1, 1, 1, 1) and found.item() > 0.97


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("epochs", 0),
        ("batch_size", -1),
        ("eval_interval", 0),
        ("width", 0),
        ("learning_rates", ()),
        ("learning_rates", (0.1, 0.0)),
        ("momentum", 1.0),
        ("init", "ones"),
        ("schedule", "linear"),
        ("eta_min", -1.0),
        ("period", 0),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_refused_by_name(option, value):
    with pytest.raises(InputError, match=rf"^recipe\.(schedule\.)?{option} = .*: must be "):
        Recipe(**{option: value})


def test_pool_is_a_plain_value():
    pool = assemble(two_arms())
    with pytest.raises(dataclasses.FrozenInstanceError):
        pool.x = None
    assert isinstance(pool, Pool)


def test_images_are_cut_into_parts_one_after_the_other():
    images = np.arange(2 * 9 * 3).reshape(2, 9, 3)
    parts = cut_parts(images, {"test": 2, "train": 4, "validation": 1})
    assert tuple(parts) == PARTS
    np.testing.assert_array_equal(np.concatenate(list(parts.values()), axis=1), images[:, :7])
    assert [part.shape[1] for part in parts.values()] == [4, 1, 2]
    with pytest.raises(InputError, match="images of each class = 9: must be at least 10"):
        cut_parts(images, {"train": 4, "validation": 4, "test": 2})
    found = cut_parts(images, {"train": 4, "validation": 1, "test": 3})
    assert list(found) == list(PARTS)
    np.testing.assert_array_equal(np.concatenate(list(found.values()), axis=1), images[:, :8])
    with pytest.raises(InputError, match="images of each class = 9: must be at least 10"):
        cut_parts(images, {"train": 6, "validation": 1, "test": 3})
