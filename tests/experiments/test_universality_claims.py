"""Verdicts of the universality study flip with planted results; its tables and curves equal hand computations."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from scipy import stats

from dgu.data.splits import SplitSizes
from dgu.distributions import equal_moments
from experiments.study.claims import judge
from experiments.universality import STUDY, accuracy, comparison, controls, spectra, two_layer
from experiments.universality.options import Options
from experiments.universality.problems import sizes_per_class, tasks, two_layer_size
from tests.experiments.universality_study import CLAIM_IDS

CONFIG = Options(
    subset_sizes=(4, 3),
    subsets=3,
    pairs=5,
    splits=SplitSizes(400, 490, 60, 250),
    training_ratios=(0.1, 0.3, 1.0, 3.0, 10.0),
    margin=2.5,
    max_standard_error=0.8,
    replicates=20,
)
R, ARMS, CLASSES, SIZES = CONFIG.replicates, 5, 10, 3
LINEAR = ("4-classes", "3-classes", "all-classes", "pairs", "cross-entropy")
#: Without a trend over replicates, mean 0, standard deviation 1 (R - 1 degrees of freedom).
NOISE = stats.norm.ppf((np.random.default_rng(0).permutation(R) + 0.5) / R)
NOISE = NOISE / NOISE.std(ddof=1)
#: Standard error of a mean of replicates of one pool, for a standard deviation of 1 over replicates.
CORRECTED = np.sqrt(1 / R + CONFIG.splits.test / (CONFIG.splits.total - CONFIG.splits.test))


def planted_accuracy(gap=0.0, null_gap=0.0, spread=0.5, subsets=2):
    """(R, train arm, test arm, subset, size): on their own test images diffusion leads the mixture by ``gap`` points
    at the largest size, with a spread over replicates, and the mixture leads the null. All other entries say the
    contrary."""
    values = np.full((R, ARMS, ARMS, subsets, SIZES), 0.1, np.float64)
    own = {
        0: gap + spread * NOISE,
        1: np.zeros(R),
        2: np.full(R, -null_gap),
        3: np.full(R, -30.0),
        4: np.full(R, -40.0),
    }
    for arm, points in own.items():
        values[:, arm, arm, :, :] = 0.9 - 0.2 * (arm == 0)
        values[:, arm, arm, :, -1] = (0.7 + points / 100)[:, None]
    # Subsets of a replicate average to it.
    values[:, 0, 0, 0, -1] += 0.03
    values[:, 0, 0, 1, -1] -= 0.03
    return values


def planted_spectra(tilt=0.0, null_tilt=0.0, spread=0.05):
    """Power laws: mixture over diffusion is ``exp(-tilt)`` at the last rank, null over mixture ``exp(-null_tilt)``."""
    rank = np.linspace(0, 1, 21)
    log = -3 * rank + spread * NOISE[:, None]
    logs = {"diffusion": log, "mixture": -3 * rank - tilt * rank + 0 * log}
    logs["null"] = logs["mixture"] - null_tilt * rank
    return {arm: np.exp(values) for arm, values in logs.items()}


def verdicts(points=None, covariance=None, gram=None, positive=(0.0, 0.5), negative=(8.0, 0.5)):
    planted = {task: planted_accuracy(**(points or {}).get(task, {})) for task in LINEAR}
    planted["two-layer"] = planted_accuracy(**(points or {}).get("two-layer", {"gap": 8.0}))
    results = {f"{task}.accuracy": values for task, values in planted.items()}
    for arm, values in planted_spectra(**(covariance or {})).items():
        results[f"covariance.{arm}"] = np.repeat(values[:, None], CLASSES, axis=1)
    results |= {f"gram.{arm}": values for arm, values in planted_spectra(**(gram or {})).items()}
    gaps = {"positive": positive, "negative": negative}
    measured = {
        **accuracy.estimates(CONFIG, results),
        **spectra.estimates(CONFIG, results),
        **two_layer.estimates(CONFIG, results),
        **controls.estimates(CONFIG, {name: (mean + spread * NOISE) / 100 for name, (mean, spread) in gaps.items()}),
    }
    declared = [(claim, part.paper) for part in STUDY.parts for claim in part.declared(CONFIG)]
    return {claim.id: judge(claim, measured[claim.id], paper) for claim, paper in declared}


def test_every_promised_claim_is_made_and_supported_on_a_gaussian_world_with_breaking_networks():
    claims = verdicts()
    assert tuple(claims) == CLAIM_IDS
    assert {claim.verdict for claim in claims.values()} == {"supported"}


def linear(task, **plan):
    return {"points": {task: plan}}


#: Claim -> verdict -> worlds in which it must be that.
WORLDS = {
    "universality-subsets": {
        "supported": [linear("4-classes", gap=-1.0)],
        "not supported": [linear("4-classes", gap=5.0), linear("3-classes", gap=-5.0)],
        "undecided": [linear("3-classes", gap=2.2), linear("4-classes", spread=2.0)],
    },
    "universality-all-classes": {
        "supported": [linear("all-classes", gap=1.5)],
        "not supported": [linear("all-classes", gap=5.0), linear("all-classes", gap=-5.0)],
        # Straddling the margin; and a standard error above 0.8 points although the interval would lie far outside.
        "undecided": [linear("all-classes", gap=-2.5), linear("all-classes", gap=30.0, spread=2.0)],
    },
    "universality-pairs": {
        "supported": [linear("pairs", gap=1.5)],
        "not supported": [linear("pairs", gap=5.0)],
        "undecided": [linear("pairs", gap=2.5), linear("pairs", spread=1.6)],
    },
    "universality-cross-entropy": {
        "supported": [linear("cross-entropy", gap=1.5)],
        "not supported": [linear("cross-entropy", gap=-5.0)],
        "undecided": [linear("cross-entropy", gap=2.5), linear("cross-entropy", spread=1.6)],
    },
    "universality-null-corrected": {
        # A gap as large as the null's own is what the finite fit alone does.
        "supported": [linear("all-classes", gap=5.0, null_gap=5.0)],
        "not supported": [linear("all-classes", gap=5.0), linear("all-classes", null_gap=5.0)],
        "undecided": [linear("all-classes", gap=2.5), linear("all-classes", gap=5.0, null_gap=5.0, spread=1.6)],
    },
    "spectrum-covariance": {
        "supported": [{"covariance": {"tilt": 0.8, "null_tilt": 0.8}}, {"gram": {"tilt": 0.8}}],
        "not supported": [{"covariance": {"tilt": 0.8}}, {"covariance": {"tilt": -0.8}}],
        "undecided": [{"covariance": {"tilt": 0.25}}, {"covariance": {"spread": 0.5}}],
    },
    "spectrum-gram": {
        "supported": [{"gram": {"tilt": 0.8, "null_tilt": 0.8}}, {"covariance": {"tilt": 0.8}}],
        "not supported": [{"gram": {"tilt": 0.8}}, {"gram": {"null_tilt": 0.8}}],
        "undecided": [{"gram": {"tilt": 0.25}}, {"gram": {"spread": 0.5}}],
    },
    "two-layer-breaks": {
        "supported": [linear("two-layer", gap=-8.0)],
        "not supported": [linear("two-layer", gap=0.5)],
        "undecided": [linear("two-layer", gap=3.0), linear("two-layer", gap=0.5, spread=3.0)],
    },
    "control-positive": {
        "supported": [{"positive": (1.0, 1.0)}],
        "not supported": [{"positive": (6.0, 1.0)}],
        "undecided": [{"positive": (2.4, 1.0)}, {"positive": (0.0, 4.0)}],
    },
    "control-negative": {
        "supported": [{"negative": (-8.0, 1.0)}],
        "not supported": [{"negative": (0.5, 1.0)}],
        "undecided": [{"negative": (2.6, 1.0)}, {"negative": (1.0, 6.0)}],
    },
}


@pytest.mark.parametrize("claim", CLAIM_IDS)
def test_planted_results_flip_the_verdict(claim):
    for verdict, worlds in WORLDS[claim].items():
        for world in worlds:
            found = verdicts(**world)
            assert found[claim].verdict == verdict, (world, found[claim].measured)
            # A world that breaks one claim leaves those that do not look there alone.
            planted = {"covariance": {"spectrum-covariance"}, "gram": {"spectrum-gram"}}
            touched = {"universality-all-classes", "universality-null-corrected", claim}.union(
                *(planted.get(name, set()) for name in world)
            )
            others = {other.verdict for name, other in found.items() if name not in touched}
            assert others <= {"supported"}
    assert set(WORLDS[claim]) == {"supported", "not supported", "undecided"}


def test_a_pool_that_is_shared_widens_the_interval_and_fresh_samples_do_not():
    claim = verdicts(**linear("pairs", gap=1.0, spread=1.0))["universality-pairs"]
    half = stats.t.ppf(0.975, R - 1) * CORRECTED
    np.testing.assert_allclose([claim.value, *claim.interval], [1, 1 - half, 1 + half], atol=1e-12)
    np.testing.assert_allclose(claim.standard_error, CORRECTED, rtol=1e-12)
    control = verdicts(positive=(1.0, 1.0))["control-positive"]
    half = stats.t.ppf(0.975, R - 1) / np.sqrt(R)
    np.testing.assert_allclose(control.interval, [1 - half, 1 + half], atol=1e-12)


# --- tables and curves ---------------------------------------------------------------------------------------------


def random_results(seed=0, replicates=6, arms=3, subsets=2, sizes=4):
    rng = np.random.default_rng(seed)
    shape = (replicates, arms, arms, subsets, sizes)
    results = {"pairs.accuracy": rng.uniform(size=shape), "pairs.loss": rng.uniform(1, 2, size=shape)}
    for values in results.values():
        values[:, 2, :, :, 2:] = np.nan  # the last arm has too few images for the larger sizes
    return results


def by_hand(values, replicates=6):
    """Mean over subsets, then the corrected interval over replicates, one number at a time."""
    values = [float(np.mean(row)) for row in values]
    mean = sum(values) / replicates
    variance = sum((value - mean) ** 2 for value in values) / (replicates - 1)
    parts = CONFIG.splits
    ratio = parts.test / (parts.fit + parts.train + parts.validation)
    half = stats.t.ppf(0.975, replicates - 1) * np.sqrt((1 / replicates + ratio) * variance)
    return mean, mean - half, mean + half


@pytest.mark.parametrize("what", ["accuracy", "loss"])
def test_curves_are_of_each_arm_on_its_own_test_images(what):
    results, n = random_results(), np.asarray([2, 4, 8, 16])
    arms = ("one", "two", "few")
    panel = accuracy.curve_panel(
        results, "pairs", what, arms=arms, n=n, dimension=7, sizes=CONFIG.splits, predicted=None
    )
    assert (panel.title, panel.dimension, tuple(panel.arms)) == ("pairs", 7, ("one", "two", "few"))
    factor = 100 if what == "accuracy" else 1
    for arm in range(3):
        for size in range(4):
            found = [part[arm, size] for part in (panel.mean, panel.low, panel.high)]
            if arm == 2 and size >= 2:
                assert np.isnan(found).all()
            else:
                expected = by_hand(factor * results[f"pairs.{what}"][:, arm, arm, :, size])
                np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_own_results_gap_and_common_size():
    results = random_results(1)
    own = comparison.own_results(results, "pairs")
    assert own.shape == (6, 3, 4)
    np.testing.assert_allclose(own[4, 1, 3], results["pairs.accuracy"][4, 1, 1, :, 3].mean(), rtol=1e-12)
    assert np.isnan(own[:, 2, 2:]).all() and np.isfinite(own[:, 2, :2]).all()
    np.testing.assert_allclose(comparison.gap(results, "pairs"), own[:, 0, 3] - own[:, 1, 3], rtol=1e-12)
    assert accuracy.largest_common_size(results, "pairs") == 1
    results["pairs.accuracy"][:, 2] = np.nan
    assert accuracy.largest_common_size(results, "pairs") == 0


def test_lists_are_plain_json_with_none_for_what_was_not_measured():
    found = (np.asarray([[1.0, np.nan]]), np.asarray([[0.5, np.nan]]), np.asarray([[2.0, np.nan]]))
    assert accuracy.as_lists(found) == {"mean": [[1.0, None]], "low": [[0.5, None]], "high": [[2.0, None]]}


def test_rates_are_counted_where_there_are_any():
    rates = np.asarray([[0.03, 0.1, np.nan], [0.1, 0.1, np.nan]], np.float32)
    assert accuracy.rate_counts(rates) == {"0.03": 1, "0.1": 3}


def test_splits_that_agree_decide_nothing():
    """A spread of 0, and one of rounding: -10.94 in every split is no interval."""
    for gap in (-10.94, 0.0, 0.1):
        claims = verdicts(points={task: {"gap": gap, "spread": 0.0} for task in (*LINEAR, "two-layer")})
        for name in ("universality-subsets", "universality-all-classes", "universality-pairs", "two-layer-breaks"):
            assert claims[name].verdict == "undecided" and claims[name].value == pytest.approx(gap, abs=1e-12)
    wide = verdicts(points={"all-classes": {"gap": -60.0, "spread": 60.0}})["universality-all-classes"]
    assert wide.interval[0] == -100


# --- problems ------------------------------------------------------------------------------------------------------


def test_training_sizes_are_the_ratios_that_the_pool_reaches():
    assert sizes_per_class(CONFIG, 4, 196) == (5, 15, 49, 147, 490)
    assert sizes_per_class(CONFIG, 10, 196) == (2, 6, 20, 59, 196)
    assert sizes_per_class(CONFIG, 2, 196) == (10, 29, 98, 294)  # 980 a class are not there
    assert sizes_per_class(replace(CONFIG, training_ratios=(50.0,), two_layer_ratio=50.0), 2, 196) == (490,)
    assert two_layer_size(replace(CONFIG, two_layer_ratio=3.0), 196) == 147
    unreached = replace(CONFIG, training_ratios=(1.0, 30.0), two_layer_ratio=30.0)
    assert two_layer_size(unreached, 196) == 49 == sizes_per_class(unreached, 4, 196)[-1]


def test_each_replicate_has_its_own_subsets_and_pairs():
    first, again, second = (tasks(CONFIG, CLASSES, 196, number) for number in (0, 0, 1))
    assert list(first) == [*LINEAR[:4], "cross-entropy", "two-layer"]
    for name, task in first.items():
        np.testing.assert_array_equal(task.classes, again[name].classes)
        assert all(len(set(row)) == len(row) and min(row) >= 0 and max(row) < CLASSES for row in task.classes.tolist())
    assert first["pairs"].classes.shape == (5, 2) and first["3-classes"].classes.shape == (3, 3)
    assert not np.array_equal(first["4-classes"].classes, second["4-classes"].classes)
    assert first["all-classes"].classes.tolist() == [list(range(10))]
    # The two-layer networks stand beside linear classifiers of the same classes.
    np.testing.assert_array_equal(first["two-layer"].classes[0], first["4-classes"].classes[0])
    assert {name: task.loss for name, task in first.items()} == {
        "4-classes": "softmax_mse", "3-classes": "softmax_mse", "all-classes": "softmax_mse", "pairs": "sigmoid_mse",
        "cross-entropy": "cross_entropy", "two-layer": "softmax_mse",
    }  # fmt: skip


def test_the_negative_control_tells_the_classes_apart_and_the_mixture_does_not():
    """From exact norms: (0, 0) in the first class, (1, 1) or (-1, 1) in the second; in the mixture they are alike."""
    first, second = (controls.radial_features(rows) for rows in equal_moments(jax.random.key(0), 200, 12))
    np.testing.assert_allclose(first, 0, atol=1e-5)
    np.testing.assert_allclose(np.abs(second), 1, rtol=1e-5)
    found = controls.negative_control(replace(STUDY.presets["default"], replicates=2))["gaps"]
    assert found.shape == (2,) and found.min() > 0.15


def test_both_controls_show_how_far_they_are(monkeypatch):
    shown = []

    def progress(numbers, description, unit):
        for number in numbers:
            yield number
            shown.append((description, number))

    monkeypatch.setattr(controls, "progress", progress)
    monkeypatch.setattr(controls, "truth_gap", lambda *_, **__: 0.5)
    options = replace(STUDY.presets["smoke"], replicates=3)
    rows = np.random.default_rng(0).standard_normal((4, 30, 6)).astype(np.float32)
    assert controls.positive_control(options, rows)["gaps"].tolist() == [0.5] * 3
    assert controls.negative_control(options, d=6, per_class=8)["gaps"].tolist() == [0.5] * 3
    assert [number for _, number in shown] == [0, 1, 2] * 2 and len({description for description, _ in shown}) == 2
