"""The parts of the concentration study about Theorem 1, its use for predictions, and the fit of the mixture."""

import dataclasses

import jax
import numpy as np
import pytest

from dgu.analysis import fit_size_accuracy
from dgu.analysis.stats.pools import smoothed_bootstrap
from dgu.analysis.universality.least_squares_splits import predicted_and_split_errors
from dgu.analysis.universality.resampled import BANDWIDTH
from dgu.core.errors import InputError
from dgu.core.keys import seed_of, seeded
from experiments.concentration import fit_size, prediction, theorem
from experiments.concentration.subject import Plan, images_only
from experiments.study import RunDirectory
from experiments.study.claims import judge

PARTS = {module.PART.name: module.PART for module in (theorem, prediction, fit_size)}


def subject(classes=3, count=60, side=4):
    """Exactly Gaussian images, whose classes differ in mean."""
    rng = np.random.default_rng(0)
    means = 0.2 * rng.normal(size=(classes, 1, side, side, 1))
    images = (means + 0.3 * rng.normal(size=(classes, count, side, side, 1))).astype(np.float32)
    names = tuple(f"class {k}" for k in range(classes))
    return images_only(images, labels=tuple(range(classes)), class_names=names)


CONFIGS = {
    "theorem": dataclasses.replace(theorem.PRESETS["smoke"], dimensions=(8, 16), replicates=8),
    "prediction": dataclasses.replace(
        prediction.PRESETS["smoke"], ratios=(0.5, 3.0), simulations=30, replicates=3, tolerance=4.0
    ),
    "fit_size": dataclasses.replace(fit_size.PRESETS["smoke"], sizes=(3, 30)),
}


@pytest.mark.parametrize("name", list(PARTS))
def test_a_part_makes_what_it_declares_and_resumes(name, tmp_path):
    part, config = PARTS[name], CONFIGS[name]
    directory = RunDirectory.open(tmp_path, config)
    section = part.section(config, subject(), directory, 0)
    assert [claim.id for claim in section.claims] == [claim.id for claim in part.declared(config)]
    assert [figure.file for figure in section.figures] == [figure.file for figure in part.figures]
    for figure in section.figures:
        assert (tmp_path / figure.file).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert section.answer and section.tables[0].rows
    assert all(len(row) == len(section.tables[0].header) for row in section.tables[0].rows)
    directory.write_json("metrics.json", section.metrics)
    # Every stage is stored: a second run computes nothing and says the same.
    times, metrics = directory.timings(), directory.read_json("metrics.json")
    again = part.section(config, subject(), directory, 0)
    directory.write_json("metrics.json", again.metrics)
    assert directory.timings() == times and again.answer == section.answer
    assert directory.read_json("metrics.json") == metrics
    plan = Plan(None, (4, 4, 1), 3, 60, 18, 10)
    assert all(cost.flop > 0 for cost in part.costs(config, plan)) and len(part.costs(config, plan)) == 1


def verdicts(**means):
    """Those of the part on Theorem 1 on made-up gaps: by design the means at each dimension, with a spread of 0.5."""
    config, rng = theorem.PRESETS["default"], np.random.default_rng(0)
    given = {"bounded": 0.0, "power": 0.0, "radius": -5.0, theorem.NULL: 0.0} | means
    gaps = {
        name: [
            np.broadcast_to(mean, len(config.dimensions))[at] + 0.5 * rng.normal(size=config.count(d))
            for at, d in enumerate(config.dimensions)
        ]
        for name, mean in given.items()
    }
    found = theorem.report(config, subject(), gaps).claims
    return {claim.id: judge(claim, found[claim.id], "own").verdict for claim in theorem.claims(config)}


def test_claims_about_theorem_one_follow_the_signed_means():
    """A mean gap that falls, one that stays, none at all, and identical distributions that are not."""
    falls = -4 * 64 / np.asarray(theorem.PRESETS["default"].dimensions, float)
    assert set(verdicts(bounded=falls, power=-falls).values()) == {"supported"}
    stays = verdicts(bounded=3.0, power=0.0, radius=0.0, identical=[0, 0, 0, 1.0, 0, 0])
    assert stays == {
        "theorem-bounded-mean": "not supported",
        "theorem-bounded-falls": "undecided",
        "theorem-power-mean": "supported",
        "theorem-power-falls": "undecided",
        "theorem-radius": "not supported",
        "theorem-null": "not supported",
    }


def test_prediction_agrees_with_its_simulation(tmp_path):
    config = CONFIGS["prediction"]
    section = prediction.PART.section(config, subject(), RunDirectory.open(tmp_path, config), 0)
    differences = np.asarray(section.metrics["simulated"]) - np.asarray(section.metrics["theory"])
    assert np.abs(differences).max() < 4 and np.asarray(section.metrics["theory"]).min() > 5


def test_pools_drawn_anew_are_measured_like_the_samples():
    config, looked_at = CONFIGS["prediction"], subject()
    found = prediction.resampled(config, looked_at, 4, jax.random.key(1), 2)
    drawn = smoothed_bootstrap(looked_at.rows, np.random.default_rng(seed_of(seeded(4), "resampled", 2)), BANDWIDTH)
    parts = config.parts(60)
    expected = predicted_and_split_errors(
        drawn,
        config.sizes(16, 3, parts["train"]),
        fit=parts["fit"],
        test=parts["test"],
        between=2,
        replicates=2,
        seed=4,
    )
    np.testing.assert_allclose(found["samples.errors"], np.moveaxis(expected["errors"], -1, 0))
    np.testing.assert_allclose(found["samples.theory"], np.stack(2 * [expected["theory"]]))
    # The null is drawn anew, too: its variation is one between pools.
    other = prediction.resampled(config, looked_at, 4, jax.random.key(2), 2)
    np.testing.assert_array_equal(other["samples.errors"], found["samples.errors"])
    assert (other["null.theory"] != found["null.theory"]).all()

    config = CONFIGS["fit_size"]
    found, sweep = fit_size.resampled(config, looked_at, 4, 2), config.sweep(60)
    for pool in ("images", "null"):
        one = fit_size_accuracy(drawn, sweep, None, seed=4, replicate=1, null=pool == "null")
        np.testing.assert_array_equal(found[pool][1], one)
        assert found[pool].shape == (2, 4) and not np.array_equal(found[pool][0], one)


def test_intervals_of_the_fit_hold_the_variation_between_pools():
    """Splits that nearly agree, of pools that differ: in the images alone, by 4 points with every mixture."""
    config, looked_at = CONFIGS["fit_size"], subject()
    rng = np.random.default_rng(0)
    arms = np.array([0.7, 0.9, 0.75, 0.8])
    between = 0.04 * rng.normal(size=(24, 1, 1)) * np.array([1.0, 0.0, 0.0, 0.0])

    def noisy(values):
        return values + 1e-4 * rng.normal(size=values.shape)

    found = {
        "replicates": {pool: noisy(np.tile(arms, (5, 1))) for pool in ("images", "null")},
        "resampled": {"images": noisy(arms + np.repeat(between, 2, axis=1)), "null": noisy(np.tile(arms, (24, 2, 1)))},
    }
    claims = fit_size.report(config, looked_at, found).claims
    shrinks, beyond, published = (claims[f"fit-size-{name}"] for name in ("shrinks", "null", "published"))
    shrinks, beyond = shrinks.measured, beyond.measured
    assert (shrinks.value, beyond.value, published.value) == pytest.approx((15, 0, -10), abs=0.1)
    deviation = 100 * between[:, 0, 0].std(ddof=1)
    for estimate in (beyond, published):
        assert estimate.standard_error == pytest.approx(deviation, rel=0.01)
    # Both differences move alike, as long as they keep their sign.
    assert shrinks.standard_error < deviation


def test_one_class_or_large_images_are_skipped():
    one_class = "it requires two or more classes"
    assert prediction.PART.skips(CONFIGS["prediction"], subject(1)) == one_class
    assert fit_size.PART.skips(CONFIGS["fit_size"], subject(1)) == one_class
    assert not prediction.PART.skips(CONFIGS["prediction"], subject())
    small = dataclasses.replace(CONFIGS["prediction"], max_dimension=15)
    assert prediction.PART.skips(small, subject()) == "it requires images of at most 15 pixels"
    assert not prediction.PART.costs(small, Plan(None, (4, 4, 1), 3, 60, 18, 10))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: theorem.Config(dimensions=(8,)), r"theorem.dimensions = \(8,\): must be two or more"),
        (
            lambda: theorem.Config(law="radius"),
            "theorem.law = 'radius': must be one of exponential, rademacher, uniform",
        ),
        (lambda: prediction.Config(ratios=(1.0,)), r"prediction.ratios = \(1.0,\): must be one or more"),
        (lambda: prediction.Config(ratios=(0.9,)), r"prediction.ratios = \(0.9,\): must be with one at least"),
        (
            lambda: prediction.Config(fit_share=0.9),
            r"\(prediction.fit_share, prediction.test_share\) = .*: must be positive",
        ),
        (lambda: fit_size.Config(sizes=(5,)), r"fit_size.sizes = \(5,\): must be two or more"),
        (lambda: fit_size.Config().sweep(500), r"per_class = 500: must be at least 560 for fit_size"),
    ],
)
def test_bad_options(make, message):
    with pytest.raises(InputError, match=message):
        make()
