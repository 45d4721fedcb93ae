"""Verdicts of the universality study flip with planted results; its tables and curves equal hand computations."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from scipy import stats

from dgu.analysis.stats.estimates import Estimate
from dgu.data.splits import SplitSizes
from dgu.distributions import equal_moments
from experiments.study.claims import judge
from experiments.universality import STUDY, accuracy, comparison, controls, spectra, tables, two_layer
from experiments.universality.comparison import Results
from experiments.universality.options import Options
from tests.experiments.universality_study import CLAIM_IDS

CONFIG = Options(
    subset_sizes=(4, 3),
    subsets=3,
    pairs=5,
    splits=SplitSizes(400, 490, 60, 250),
    training_sizes=(16, 64, 490),
    two_layer_size=64,
    gram_panels=("2x3", "allx250"),
    margin=2.5,
    replicates=20,
)
R, CLASSES, SIZES = CONFIG.replicates, 10, 3
POOLS, SPLITS = 24, 2
LINEAR = ("4-classes", "3-classes", "all-classes", "pairs", "all-classes-ce")
#: Without a trend over replicates, mean 0, standard deviation 1 (R - 1 degrees of freedom).
NOISE = stats.norm.ppf((np.random.default_rng(0).permutation(R) + 0.5) / R)
NOISE = NOISE / NOISE.std(ddof=1)
#: The same over pools, alike in all splits of a pool.
BETWEEN = stats.norm.ppf((np.random.default_rng(1).permutation(POOLS) + 0.5) / POOLS)
BETWEEN = np.repeat((BETWEEN / BETWEEN.std(ddof=1))[:, None], SPLITS, axis=1)


def planted_accuracy(gap, null_gap, noise):
    """(..., arm, size): diffusion leads the mixture by ``gap`` points at the largest size and the mixture the null by
    ``null_gap``, with ``noise`` on diffusion. All other entries say the contrary."""
    values = np.full((*noise.shape, 5, SIZES), 0.9)
    values[..., 0, :] = 0.7
    for arm, points in enumerate((gap + noise, 0 * noise, 0 * noise - null_gap, 0 * noise - 30, 0 * noise - 40)):
        values[..., arm, -1] = 0.7 + points / 100
    return values


def planted_spectra(tilt, null_tilt, noise):
    """Power laws: mixture over diffusion is ``exp(-tilt)`` at the last rank, null over mixture ``exp(-null_tilt)``."""
    rank = np.linspace(0, 1, 21)
    log = -3 * rank + noise[..., None]
    logs = {"diffusion": log, "mixture": -3 * rank - tilt * rank + 0 * log}
    logs["null"] = logs["mixture"] - null_tilt * rank
    return {arm: np.exp(values) for arm, values in logs.items()}


def world(pattern, deviation, points, covariance, gram):
    """Results of a design whose noise over its leading axes is ``pattern``; ``deviation`` names its size in a plan."""

    def planted(plan):
        return plan.get("gap", 0.0), plan.get("null_gap", 0.0), plan.get(deviation, 0.3) * pattern

    found = {f"{task}.accuracy": planted_accuracy(*planted(points.get(task, {}))) for task in LINEAR}
    found["two-layer.accuracy"] = planted_accuracy(*planted(points.get("two-layer", {"gap": 8.0})))[..., :3, -1:]
    found["beside-two-layer.accuracy"] = planted_accuracy(
        *planted({"spread": 0.2, "between": 0.2} | points.get("beside", {}))
    )[..., :3, -1:]
    for name, plan, classes in (("covariance", covariance, True), ("gram-allx250", gram, False)):
        noise = plan.get(deviation, 0.05) * pattern
        for arm, values in planted_spectra(plan.get("tilt", 0.0), plan.get("null_tilt", 0.0), noise).items():
            found[f"{name}.{arm}"] = np.repeat(values[..., None, :], CLASSES, axis=-2) if classes else values
    return found


def verdicts(points=None, covariance=None, gram=None, positive=(0.0, 0.5), negative=(8.0, 0.5)):
    plans = (points or {}, covariance or {}, gram or {})
    results = Results(world(NOISE, "spread", *plans), world(BETWEEN, "between", *plans))
    gaps = {"positive": positive, "negative": negative}
    measured = {
        **accuracy.estimates(CONFIG, results),
        **spectra.estimates(CONFIG, results),
        **two_layer.estimates(CONFIG, results),
        **controls.estimates(CONFIG, {name: (mean + spread * NOISE) / 100 for name, (mean, spread) in gaps.items()}),
    }
    declared = [(claim, part.paper) for part in STUDY.parts for claim in part.declared(CONFIG)]
    return {claim.id: judge(claim, measured[claim.id], paper) for claim, paper in declared}


def test_every_promised_claim_is_made_and_no_gap_is_found_on_a_gaussian_world_with_breaking_networks():
    claims = verdicts()
    assert tuple(claims) == CLAIM_IDS
    for name, claim in claims.items():
        assert claim.verdict == ("undecided" if name.startswith("gap-") else "supported"), name


def linear(task, **plan):
    return {"points": {task: plan}}


#: Claim -> verdict -> worlds in which it must be that.
WORLDS = {
    "universality-subsets": {
        "supported": [linear("3-classes", gap=1.5), linear("3-classes", gap=5.0, null_gap=5.0)],
        "not supported": [
            linear("3-classes", gap=5.0),
            linear("3-classes", gap=-5.0),
            linear("3-classes", null_gap=5.0),
        ],
        # Straddling the margin, by the spread of splits or by that of pools.
        "undecided": [
            linear("3-classes", gap=2.5),
            linear("3-classes", gap=1.5, spread=4.0),
            linear("3-classes", gap=1.5, between=2.0),
        ],
    },
    "gap-subsets": {
        "supported": [{"points": {"4-classes": {"gap": -2.0}, "3-classes": {"gap": 2.0}}}],
        "undecided": [linear("4-classes", gap=2.0), {}],
    },
    "universality-all-classes": {
        "supported": [linear("all-classes", gap=1.5), linear("all-classes", gap=5.0, null_gap=5.0)],
        "not supported": [
            linear("all-classes", gap=5.0),
            linear("all-classes", gap=-5.0),
            linear("all-classes", null_gap=5.0),
        ],
        # Straddling the margin, by the spread of splits or by that of pools.
        "undecided": [
            linear("all-classes", gap=2.5),
            linear("all-classes", gap=1.5, spread=4.0),
            linear("all-classes", gap=1.5, between=2.0),
        ],
    },
    "gap-all-classes": {
        "supported": [
            linear("all-classes", gap=1.5),
            linear("all-classes", gap=-9.0),
            linear("all-classes", null_gap=1.5),
        ],
        "undecided": [
            linear("all-classes"),
            linear("all-classes", gap=1.5, null_gap=1.5),
            linear("all-classes", gap=1.0, between=2.0),
        ],
    },
    "universality-pairs": {
        "supported": [linear("pairs", gap=1.5), linear("pairs", gap=5.0, null_gap=5.0)],
        "not supported": [linear("pairs", gap=5.0), linear("pairs", gap=-5.0), linear("pairs", null_gap=5.0)],
        # Straddling the margin, by the spread of splits or by that of pools.
        "undecided": [
            linear("pairs", gap=2.5),
            linear("pairs", gap=1.5, spread=4.0),
            linear("pairs", gap=1.5, between=2.0),
        ],
    },
    "gap-pairs": {
        "supported": [linear("pairs", gap=1.5), linear("pairs", gap=-9.0), linear("pairs", null_gap=1.5)],
        "undecided": [
            linear("pairs"),
            linear("pairs", gap=1.5, null_gap=1.5),
            linear("pairs", gap=1.0, between=2.0),
        ],
    },
    "universality-cross-entropy": {
        "supported": [linear("all-classes-ce", gap=1.5), linear("all-classes-ce", gap=5.0, null_gap=5.0)],
        "not supported": [
            linear("all-classes-ce", gap=5.0),
            linear("all-classes-ce", gap=-5.0),
            linear("all-classes-ce", null_gap=5.0),
        ],
        # Straddling the margin, by the spread of splits or by that of pools.
        "undecided": [
            linear("all-classes-ce", gap=2.5),
            linear("all-classes-ce", gap=1.5, spread=4.0),
            linear("all-classes-ce", gap=1.5, between=2.0),
        ],
    },
    "gap-cross-entropy": {
        "supported": [
            linear("all-classes-ce", gap=1.5),
            linear("all-classes-ce", gap=-9.0),
            linear("all-classes-ce", null_gap=1.5),
        ],
        "undecided": [
            linear("all-classes-ce"),
            linear("all-classes-ce", gap=1.5, null_gap=1.5),
            linear("all-classes-ce", gap=1.0, between=2.0),
        ],
    },
    "spectrum-covariance": {
        "supported": [{"covariance": {"tilt": 0.8, "null_tilt": 0.8}}, {"gram": {"tilt": 0.8}}],
        "not supported": [{"covariance": {"tilt": 0.8}}, {"covariance": {"tilt": -0.8}}],
        "undecided": [
            {"covariance": {"tilt": 0.25}},
            {"covariance": {"spread": 0.7}},
            {"covariance": {"between": 0.2}},
        ],
    },
    "spectrum-gram": {
        "supported": [{"gram": {"tilt": 0.8, "null_tilt": 0.8}}, {"covariance": {"tilt": 0.8}}],
        "not supported": [{"gram": {"tilt": 0.8}}, {"gram": {"null_tilt": 0.8}}],
        "undecided": [{"gram": {"tilt": 0.25}}, {"gram": {"spread": 0.7}}, {"gram": {"between": 0.2}}],
    },
    "two-layer-breaks": {
        "supported": [linear("two-layer", gap=-8.0)],
        "not supported": [linear("two-layer", gap=0.5)],
        "undecided": [linear("two-layer", gap=2.6), linear("two-layer", gap=0.5, spread=6.0)],
    },
    "two-layer-exceeds-linear": {
        "supported": [{"points": {"two-layer": {"gap": -8.0}, "beside": {"gap": 2.0}}}],
        # The same gap, whose noise is the same in both: the pairing takes it off.
        "undecided": [{"points": {"two-layer": {"gap": -8.0}, "beside": {"gap": -8.0, "spread": 0.31}}}],
    },
    "control-positive": {
        "supported": [{"positive": (1.0, 1.0)}],
        "not supported": [{"positive": (6.0, 1.0)}],
        "undecided": [{"positive": (2.4, 1.0)}, {"positive": (0.0, 6.0)}],
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
        for planted in worlds:
            found = verdicts(**planted)
            assert found[claim].verdict == verdict, (planted, found[claim].measured)
    # A test of difference from zero cannot show that there is none.
    of_zero = claim.startswith("gap-") or claim == "two-layer-exceeds-linear"
    expected = {"supported", "undecided"} | (set() if of_zero else {"not supported"})
    assert set(WORLDS[claim]) == expected


def test_a_world_that_breaks_one_claim_leaves_the_others_alone():
    plain = verdicts()
    for task, own in (("pairs", "pairs"), ("all-classes", "all-classes"), ("all-classes-ce", "cross-entropy")):
        broken = verdicts(**linear(task, gap=9.0))
        changed = {name for name in plain if plain[name].verdict != broken[name].verdict}
        assert changed == {f"universality-{own}", f"gap-{own}"}


def test_the_variance_between_pools_widens_the_interval_and_fresh_samples_have_none():
    claim = verdicts(**linear("pairs", gap=1.0, spread=1.0, between=0.5))["universality-pairs"]
    inside = 1.0 / R
    # The mean of what is above 0 of a normal variable: V is known up to its error, 2 V^2 / (POOLS - 1) where the splits
    # of a pool agree.
    error = 0.25 * np.sqrt(2 / (POOLS - 1))
    outside = 0.25 * stats.norm.cdf(0.25 / error) + error * stats.norm.pdf(0.25 / error)
    freedom = (inside + outside) ** 2 / (inside**2 / (R - 1) + outside**2 / (POOLS - 1))
    half = stats.t.ppf(0.975, freedom) * np.sqrt(inside + outside)
    np.testing.assert_allclose([claim.value, *claim.interval], [1, 1 - half, 1 + half], atol=1e-9)
    control = verdicts(positive=(1.0, 1.0))["control-positive"]
    half = stats.t.ppf(0.975, R - 1) / np.sqrt(R)
    np.testing.assert_allclose(control.interval, [1 - half, 1 + half], atol=1e-12)


def test_splits_that_agree_decide_nothing():
    """A spread of 0, and one of rounding: -10.94 in every split is no interval."""
    for gap in (-10.94, 0.0, 0.1):
        claims = verdicts(points={task: {"gap": gap, "spread": 0.0} for task in (*LINEAR, "two-layer")})
        for name in ("universality-subsets", "gap-all-classes", "universality-pairs", "two-layer-breaks"):
            assert claims[name].verdict == "undecided" and claims[name].value == pytest.approx(gap, abs=1e-9)
    wide = verdicts(points={"all-classes": {"gap": -90.0, "spread": 300.0}})["universality-all-classes"]
    assert wide.interval[0] == -200


# --- tables and curves ---------------------------------------------------------------------------------------------


def random_results(seed=0, replicates=6, arms=5, sizes=3):
    rng = np.random.default_rng(seed)
    own = {"pairs.accuracy": rng.uniform(size=(replicates, arms, sizes))}
    own["pairs.loss"] = rng.uniform(1, 2, size=(replicates, arms, sizes))
    again = {"pairs.accuracy": rng.uniform(size=(4, 2, arms, sizes))}
    for values in (*own.values(), *again.values()):
        values[..., 4, 2:] = np.nan  # the last arm has too few images for the largest size
    return Results(own, again)


def test_readings_equal_hand_computations():
    results = random_results(1)
    values = results.replicates["pairs.accuracy"]
    raw = 100 * (values[:, 0] - values[:, 1])
    null = 100 * (values[:, 1] - values[:, 2])
    np.testing.assert_allclose(comparison.gap("pairs")(results.replicates), raw, rtol=1e-12)
    np.testing.assert_allclose(comparison.gap("pairs", 1, 2)(results.replicates), null, rtol=1e-12)
    corrected = comparison.null_corrected("pairs")(results.replicates)
    np.testing.assert_allclose(corrected, raw - null, rtol=1e-10)
    np.testing.assert_allclose(
        comparison.at_last(comparison.null_corrected("pairs"))(results.resampled),
        100 * (values_of(results)[..., 0, -1] - 2 * values_of(results)[..., 1, -1] + values_of(results)[..., 2, -1]),
        rtol=1e-10,
    )
    found = results.interval(comparison.null_corrected("pairs"))
    np.testing.assert_allclose(found.value, corrected.mean(axis=0), rtol=1e-12)
    assert comparison.smallest_margin(found[0]) == max(-found[0].low, found[0].high)


def values_of(results):
    return results.resampled["pairs.accuracy"]


def test_what_an_arm_has_too_few_images_for_is_missing_and_the_rest_is_not():
    results = random_results()
    found = results.interval(comparison.accuracies("pairs"))
    missing = np.zeros((5, 3), bool)
    missing[4, 2] = True
    for part in (found.value, found.low, found.high, found.standard_error):
        np.testing.assert_array_equal(np.isnan(part), missing)
    alone = results.interval_of_this_pool(comparison.accuracies("pairs", "loss"))
    values = results.replicates["pairs.loss"][:, 1, 1]
    half = stats.t.ppf(0.975, 5) * values.std(ddof=1) / np.sqrt(6)
    np.testing.assert_allclose([alone.low[1, 1], alone.high[1, 1]], [values.mean() - half, values.mean() + half])
    assert found.low[0, 0] < 100 * alone_low(results) and np.isnan(alone.value[4, 2])


def alone_low(results):
    return float(results.interval_of_this_pool(comparison.accuracies("pairs")).low[0, 0]) / 100


def test_lists_are_plain_json_with_none_for_what_was_not_measured():
    found = Estimate(np.asarray([[1.0, np.nan]]), np.asarray([[0.5, np.nan]]), np.asarray([[2.0, np.nan]]))
    assert tables.as_lists(found) == {"mean": [[1.0, None]], "low": [[0.5, None]], "high": [[2.0, None]]}


def test_rates_are_counted_where_there_are_any():
    rates = np.asarray([[0.03, 0.1, np.nan], [0.1, 0.1, np.nan]], np.float32)
    assert tables.rate_counts(rates) == {"0.03": 1, "0.1": 3}


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
    monkeypatch.setattr(controls, "pool_gap", lambda *_, **__: np.asarray([0.75, 0.5, 0.75]))
    options = replace(STUDY.presets["smoke"], replicates=3)
    rows = np.random.default_rng(0).standard_normal((4, 30, 6)).astype(np.float32)
    assert controls.positive_control(options, (), rows)["gaps"].tolist() == [0.5] * 3
    assert controls.negative_control(options, d=6, per_class=8)["gaps"].tolist() == [0.5] * 3
    assert [number for _, number in shown] == [0, 1, 2] * 2 and len({description for description, _ in shown}) == 2
