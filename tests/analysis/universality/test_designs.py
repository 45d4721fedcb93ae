"""The design of a comparison: which images an arm sees, and what is read off; its ridge twin against normal equations."""

import jax
import numpy as np
import pytest

from dgu.analysis.universality.arms import PARTS, Pool, Recipe, Task, assemble, cut_parts, gaussian_arms, train_and_test
from dgu.analysis.universality.designs import (
    COMPARED,
    averaged,
    corrected_gap,
    disjoint_arms,
    held_apart,
    numbered,
    pool_gap,
    split_arms,
)
from dgu.analysis.universality.ridge import ridge_and_test
from dgu.core.errors import InputError
from dgu.core.keys import stream
from dgu.data.splits import class_splits

K, POOL, D = 3, 40, 6
SIZES = {"fit": 14, "train": 12, "validation": 4, "test": 10}
GAUSSIAN = {"train": 12, "validation": 4, "test": 20}
KEY = jax.random.key(3)


def pool_rows(seed=0):
    rng = np.random.default_rng(seed)
    return (rng.exponential(size=(K, POOL, D)) + 2 * rng.normal(size=(K, 1, D))).astype(np.float32)


def a_split(number=0):
    by_class = [class_splits(POOL, SIZES, 1, number, label) for label in range(K)]
    return {part: np.stack([places[part] for places in by_class]) for part in SIZES}


def test_arms_hold_the_images_of_their_parts():
    rows, split = pool_rows(), a_split()
    arms = split_arms(rows, split, KEY, GAUSSIAN, draws=2, low_rank=5)
    assert tuple(arms) == (*numbered(2), "disjoint mixture", "disjoint null", "low rank")
    for label in range(K):
        seen = arms["diffusion"]
        for part in ("train", "validation"):
            np.testing.assert_array_equal(seen[part][label], rows[label][split[part][label]])
        unseen = np.concatenate([split["test"][label], split["fit"][label]])
        np.testing.assert_array_equal(seen["test"][label], rows[label][unseen])
        everything = np.concatenate([seen[part][label] for part in PARTS])
        assert len(np.unique(everything, axis=0)) == POOL, "no image is in two parts"
    for arm in ("mixture 1", "null 2", "disjoint mixture", "low rank"):
        assert [arms[arm][part].shape for part in PARTS] == [(K, GAUSSIAN[part], D) for part in PARTS]


def test_mixtures_are_fitted_to_the_whole_pool_and_disjoint_ones_to_the_part_fit():
    rows, split = pool_rows(), a_split()
    arms = split_arms(rows, split, KEY, GAUSSIAN, draws=2, low_rank=5)
    for number in (1, 2):
        drawn = gaussian_arms(rows, stream(KEY, "pool", number), 36)
        for arm in ("mixture", "null"):
            for part, images in cut_parts(drawn[arm], GAUSSIAN).items():
                np.testing.assert_array_equal(arms[f"{arm} {number}"][part], images)
    fit = np.take_along_axis(rows, split["fit"][:, :, None], axis=1)
    drawn = gaussian_arms(fit, stream(KEY, "disjoint"), 36, low_rank=5)
    for arm, name in (("mixture", "disjoint mixture"), ("null", "disjoint null"), ("low rank", "low rank")):
        np.testing.assert_array_equal(arms[name]["test"], cut_parts(drawn[arm], GAUSSIAN)["test"])
    # What is outside of the part fit changes no disjoint arm.
    other = rows.copy()
    np.put_along_axis(other, split["train"][:, :, None], 0.0, axis=1)
    again = split_arms(other, split, KEY, GAUSSIAN, draws=1, low_rank=5)
    np.testing.assert_array_equal(again["disjoint null"]["train"], arms["disjoint null"]["train"])
    assert np.abs(again["mixture 1"]["train"] - arms["mixture 1"]["train"]).max() > 0.01


def test_arms_that_are_not_asked_for_are_left_out():
    arms = split_arms(pool_rows(), a_split(), KEY, GAUSSIAN, disjoint=False)
    assert tuple(arms) == ("diffusion", "mixture 1", "null 1")
    with pytest.raises(InputError, match="draws = 0: must be 1 or more"):
        split_arms(pool_rows(), a_split(), KEY, GAUSSIAN, draws=0)


def test_the_cross_matrix_tests_on_images_that_no_disjoint_arm_is_fitted_to():
    rows, split = pool_rows(), a_split()
    pool = held_apart(assemble(split_arms(rows, split, KEY, GAUSSIAN)), SIZES["test"])
    for label in range(K):
        tested = pool.x[pool.rows["diffusion"]["test"][label]]
        np.testing.assert_array_equal(tested, rows[label][split["test"][label]])


def test_draws_are_averaged_and_gaps_corrected():
    found = averaged({"diffusion": 5.0, "mixture 1": 1.0, "null 1": 3.0, "mixture 2": 2.0, "null 2": 5.0, "real": 9.0})
    assert found == {"diffusion": 5.0, "mixture": 1.5, "null": 4.0, "real": 9.0}
    assert corrected_gap(5.0, 1.5, 4.0) == (5.0 - 1.5) - (1.5 - 4.0)
    assert averaged({"cross 4 classes": 1.0}) == {"cross 4 classes": 1.0}


def test_pool_gap_is_the_accuracy_of_the_three_arms():
    rows, split = pool_rows(), a_split()
    task = Task("t", np.asarray([[0, 1], [1, 2]]), (4, 12), "softmax_mse")
    recipe = Recipe(epochs=4, learning_rates=(0.1,), eval_interval=2, batch_size=8)
    found = pool_gap(rows, split, KEY, GAUSSIAN, task, recipe, seed=2)
    pool = assemble(split_arms(rows, split, KEY, GAUSSIAN, disjoint=False))
    crossed = train_and_test(pool, task, recipe, 2)["accuracy"]
    expected = [crossed[arm, arm].mean() for arm in range(3)]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    blind = pool_gap(rows, split, KEY, GAUSSIAN, task, recipe, seed=2, features=lambda x: 0 * x)
    assert len(set(blind.tolist())) == 1


def test_disjoint_arms_are_fitted_to_the_rows_that_are_not_compared():
    rows = np.random.default_rng(3).normal(size=(2, 40, 3)) + np.arange(2)[:, None, None]
    found = disjoint_arms(rows, KEY, 30)
    np.testing.assert_array_equal(found["diffusion"], rows[:, :30])
    fitted = gaussian_arms(rows[:, 30:], KEY, 30)
    for arm in ("mixture", "null"):
        np.testing.assert_array_equal(found[arm], fitted[arm])
    # Whatever the rows compared are, the mixture's draws are the same.
    rows[:, :30] = 99.0
    np.testing.assert_array_equal(disjoint_arms(rows, KEY, 30)["mixture"], found["mixture"])
    # The ratio of null and mixture is that of mixture and samples, on average, where these are Gaussian.
    logs = []
    for number in range(300):
        drawn = disjoint_arms(
            np.random.default_rng(number).normal(size=(1, 60, 5)), jax.random.fold_in(KEY, number), 30
        )
        logs.append([np.linalg.slogdet(np.cov(drawn[arm][0].T))[1] for arm in COMPARED])
    corrected = corrected_gap(*np.asarray(logs).T)
    assert abs(corrected.mean()) < 4 * corrected.std() / 300**0.5
    assert np.abs(np.diff(np.mean(logs, axis=0))).min() > 0.1, "the finite fit alone makes a difference"
    with pytest.raises(InputError, match="count = 39: must be from 1 to 38, so that two of 40 images are left"):
        disjoint_arms(rows, KEY, 39)


# --- ridge ---------------------------------------------------------------------------------------------------------


def test_ridge_is_the_solution_of_the_normal_equations():
    arms = {
        "large": {part: pool_rows(1)[:, :n] for part, n in (("train", 12), ("validation", 2), ("test", 40))},
        "small": {part: pool_rows(2)[:, :n] for part, n in (("train", 5), ("validation", 2), ("test", 30))},
    }
    pool = assemble(arms)
    task = Task("t", np.asarray([[0, 1, 2], [2, 0, 1]]), (3, 12), "softmax_mse")
    found = ridge_and_test(pool, task, ridge=0.2)
    assert found.shape == (2, 2, 2, 2)
    assert np.isnan(found[1, :, :, 1]).all() and np.isfinite(found[:, :, :, 0]).all()
    for arm, name in enumerate(arms):
        for subset, classes in enumerate(task.classes):
            for place, n in enumerate(task.per_class):
                if n > arms[name]["train"].shape[1]:
                    continue
                x = arms[name]["train"][classes, :n].reshape(-1, D).astype(np.float64)
                y = np.eye(3)[np.repeat(np.arange(3), n)]
                penalty = 0.2 * len(x) * np.mean(x**2)
                weights = np.linalg.lstsq(
                    np.concatenate([x, np.sqrt(penalty) * np.eye(D)]), np.concatenate([y, np.zeros((D, 3))])
                )[0]
                for tested, other in enumerate(arms):
                    images = arms[other]["test"][classes].astype(np.float64)
                    right = np.argmax(images @ weights, axis=-1) == np.arange(3)[:, None]
                    assert found[arm, tested, subset, place] == pytest.approx(right.mean(), abs=1e-12)
    own = ridge_and_test(pool, task, cross=False, ridge=0.2)
    np.testing.assert_array_equal(own, np.stack([found[0, 0], found[1, 1]]))


def test_problems_of_one_pool_share_its_products():
    """With other classes, sizes and arms, too; rows that do not follow each other are taken as they are."""
    arms = {name: {part: pool_rows(seed)[:, :9] for part in PARTS} for seed, name in enumerate(("one", "two"))}
    pool, products = assemble(arms), {}
    rows = {arm: parts | {"test": parts["test"][:, :7]} for arm, parts in pool.rows.items()}
    apart = Pool(pool.x, pool.y, rows)
    for given, classes, sizes in ((pool, [[0, 1]], (4, 9)), (apart, [[2, 0], [1, 2]], (4, 9)), (pool, [[0, 1]], (9,))):
        task = Task("t", np.asarray(classes), sizes, "softmax_mse")
        for cross in (True, False):
            shared = ridge_and_test(given, task, cross=cross, products=products)
            np.testing.assert_array_equal(shared, ridge_and_test(given, task, cross=cross))
    assert set(products) == {(arm, sizes) for arm in arms for sizes in ((4, 9), (9,))}
    images = arms["two"]["test"][[2, 0], :7].astype(np.float64)
    train = arms["two"]["train"][[2, 0], :4].reshape(-1, D).astype(np.float64)
    system = train.T @ train + 0.01 * np.mean(train**2) * len(train) * np.eye(D)
    weights = np.linalg.solve(system, train.T @ np.eye(2)[np.repeat([0, 1], 4)])
    right = np.argmax(images @ weights, axis=-1) == np.arange(2)[:, None]
    task = Task("t", np.asarray([[2, 0]]), (4,), "softmax_mse")
    assert ridge_and_test(apart, task)[1, 1, 0, 0] == pytest.approx(right.mean(), abs=1e-12)


def test_a_ridge_that_is_none_is_refused():
    pool = assemble({"one": {part: pool_rows()[:, :4] for part in PARTS}})
    with pytest.raises(InputError, match=r"ridge = 0\.0: must be positive"):
        ridge_and_test(pool, Task("t", np.arange(3)[None], (2,), "softmax_mse"), ridge=0.0)
