"""The problems of the universality study: classes, sizes, losses, panels; and the variance of several pools."""

from dataclasses import replace

import numpy as np
import pytest

from dgu.data.splits import SplitSizes
from experiments.universality import accuracy, tables
from experiments.universality.comparison import Results
from experiments.universality.options import Options
from experiments.universality.problems import by_cross_entropy, gram_classes, panels, tasks
from tests.experiments.test_universality_claims import CLASSES, CONFIG

SETS = ((0, 1), (2, 5, 7))


def test_each_replicate_has_its_own_subsets_and_pairs():
    first, again, second = (tasks(CONFIG, SETS, CLASSES, number) for number in (0, 0, 1))
    several = ("4-classes", "3-classes", "set-2-5-7", "all-classes")
    expected = {f"{name}{suffix}" for name in several for suffix in ("", "-ce")} | {"set-0-1", "pairs"}
    assert set(first) == expected | {"cross", "two-layer", "beside-two-layer"}
    for name, task in first.items():
        np.testing.assert_array_equal(task.classes, again[name].classes)
        assert all(len(set(row)) == len(row) and min(row) >= 0 and max(row) < CLASSES for row in task.classes.tolist())
    assert first["pairs"].classes.shape == (5, 2) and first["3-classes"].classes.shape == (3, 3)
    assert not np.array_equal(first["4-classes"].classes, second["4-classes"].classes)
    assert first["all-classes"].classes.tolist() == [list(range(10))]
    assert first["set-2-5-7"].classes.tolist() == [[2, 5, 7]]
    # The two-layer networks stand beside linear classifiers of the same classes and images.
    for name in ("two-layer", "beside-two-layer", "cross"):
        np.testing.assert_array_equal(first[name].classes[0], first["4-classes"].classes[0])
    assert first["two-layer"].per_class == first["beside-two-layer"].per_class == (64,)
    assert first["cross"].per_class == (490,) and first["pairs"].per_class == (16, 64, 490)
    for name, task in first.items():
        loss = "sigmoid_mse" if name in ("pairs", "set-0-1") else "softmax_mse"
        assert task.loss == ("cross_entropy" if name.endswith("-ce") else loss)


def test_panels_are_the_problems_of_linear_classifiers():
    shown = panels(CONFIG, SETS, [f"c{k}" for k in range(10)])
    assert [panel.name for panel in shown] == [
        "set-0-1", "set-2-5-7", "set-2-5-7-ce", "4-classes", "4-classes-ce", "3-classes", "3-classes-ce",
        "all-classes", "all-classes-ce", "pairs",
    ]  # fmt: skip
    assert [panel.title for panel in shown[:2]] == ["c0 and c1", "c2, c5 and c7, squared error"]
    found = tasks(CONFIG, SETS, CLASSES, 0)
    assert all((found[panel.name].loss, found[panel.name].classes.shape[1]) == (panel.loss, panel.k) for panel in shown)
    assert by_cross_entropy(CONFIG) == "all-classes-ce"
    assert by_cross_entropy(replace(CONFIG, losses=("softmax_mse",))) is None


def test_sizes_are_those_below_the_training_images_where_none_are_given():
    assert Options().sizes == (16, 32, 64, 128, 256, 490) and Options().size_of_networks == 128
    few = Options(splits=SplitSizes(20, 12, 4, 8), low_rank_fit=0)
    assert few.sizes == (12,) and few.size_of_networks == 12
    exact = Options(splits=SplitSizes(20, 64, 4, 8), low_rank_fit=0, two_layer_size=32)
    assert exact.sizes == (16, 32, 64) and exact.size_of_networks == 32
    assert list(gram_classes(few, (), 3)) == ["3x12", "allx8"]


def test_gram_matrices_take_the_classes_of_a_set_or_the_first_ones():
    options = replace(CONFIG, gram_panels=("3x7", "4x5", "allx2"))
    found = gram_classes(options, SETS, 10)
    assert found == {"3x7": ([2, 5, 7], 7), "4x5": ([0, 1, 2, 3], 5), "allx2": (list(range(10)), 2)}


def test_a_claim_of_cross_entropy_is_made_where_it_is_among_the_losses():
    few = replace(CONFIG, losses=("softmax_mse",))
    ids = {claim.id for claim in accuracy.claims(CONFIG)} - {claim.id for claim in accuracy.claims(few)}
    assert ids == {"universality-cross-entropy", "gap-cross-entropy"}


def test_two_classes_in_all_have_both_losses_and_every_problem_of_a_claim():
    options = replace(CONFIG, subset_sizes=(2,))
    found = tasks(options, ((0, 1),), 2, 0)
    assert set(tables.headline(options).values()) <= set(found)
    assert found["all-classes-ce"].loss == "cross_entropy" and found["set-0-1"].loss == "sigmoid_mse"
    assert [panel.name for panel in panels(options, ((0, 1),), ["a", "b"])] == [
        "set-0-1", "2-classes", "2-classes-ce", "all-classes", "all-classes-ce", "pairs"
    ]  # fmt: skip


def test_statements_name_the_loss_and_no_problem_is_claimed_twice():
    only = replace(CONFIG, losses=("cross_entropy",))
    statements = {claim.id: claim.statement for claim in accuracy.claims(only)}
    assert "universality-cross-entropy" not in statements
    assert "trained on cross entropy" in statements["universality-all-classes"]
    assert by_cross_entropy(only) is None


def test_variance_between_pools_is_that_within_each_base_pool():
    """Pools drawn anew from two base pools that differ: that difference is not in V, and V counts for both."""
    rng = np.random.default_rng(3)
    odd = (np.arange(400) % 2)[:, None, None]
    again = rng.normal(size=(400, 1, 1)) + 50.0 * odd + 0.1 * rng.normal(size=(400, 2, 1))
    values = 0.3 * rng.normal(size=(40, 1)) + 50.0 * odd[:40, 0]
    found = Results({"x": values}, {"x": again}, pools=2).interval(lambda one: one["x"][..., 0])
    expected = np.sqrt((values[::2].var(ddof=1) + values[1::2].var(ddof=1)) / 2 / 40 + 1.0 / 2)
    assert found.standard_error == pytest.approx(expected, rel=0.06)
