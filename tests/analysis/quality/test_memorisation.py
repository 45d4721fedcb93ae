"""Planted copies are found, exactly those; fresh images are not; scores and intervals against counts and simulation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.analysis.quality.memorisation import (
    copying_test,
    near_duplicates,
    novelty,
    relative_distance,
    sample_novelty,
    spacing,
)
from dgu.analysis.quality.neighbours import k_nearest
from dgu.analysis.stats.ranking import auc, hits_at
from dgu.core.errors import InputError
from dgu.samplers import karras_sigmas, sample

D = 24
SCALES = (0.3 * np.arange(1, D + 1) ** -0.4).astype(np.float32)


def draw(seed, n):
    """A Gaussian of some 15 effective dimensions: rows as pixels in about [-1, 1]."""
    return (np.random.default_rng(seed).normal(size=(n, D)) * SCALES).astype(np.float32)


TRAIN, FRESH = draw(0, 1500), draw(1, 900)


def look(samples):
    """Distances, near-duplicates and the test of samples against ``TRAIN``, beside ``FRESH``."""
    found = {}
    for name, rows in (("samples", samples), ("fresh", FRESH)):
        distance, nearest = (each[:, 0] for each in k_nearest(rows, TRAIN))
        found[name] = distance, near_duplicates(distance, spacing(nearest, TRAIN), D)
    (distance, copies), (fresh_distance, fresh_copies) = found["samples"], found["fresh"]
    return distance, copies, copying_test(distance, fresh_distance, copies.found, fresh_copies.found), fresh_distance


def test_fresh_images_are_not_flagged():
    distance, copies, test, fresh_distance = look(draw(2, 1200))
    assert not copies.found.any()
    assert test.verdict == "not memorised"
    assert test.closer.low < 0.5 < test.closer.high and test.excess.high < 0.005
    assert abs(novelty(distance, fresh_distance).share.value - 0.95) < 0.03


def closest(points, x, sigma):
    """A denoiser that returns training points."""
    return points[jnp.argmin(jnp.sum(jnp.square(points - x[None]), axis=1))]


def test_a_denoiser_that_returns_training_points_is_flagged():
    """Sampled with the library's sampler: each step goes to the training point nearest to the noisy image."""

    samples = sample(
        jax.tree_util.Partial(closest, jnp.asarray(TRAIN)),
        jax.random.key(0),
        np.arange(400),
        karras_sigmas(6, 0.002, 5.0),
        shape=(D,),
        devices=jax.local_devices()[:1],
    )
    distance, copies, test, fresh_distance = look(np.asarray(samples))
    assert test.verdict == "memorised" and test.closer.value > 0.99 and test.excess.low > 0.95
    assert copies.share.value > 0.99
    assert novelty(distance, fresh_distance).share.high < 0.05
    assert relative_distance(np.asarray(samples), distance).high < 0.01
    assert relative_distance(FRESH, fresh_distance).value > 0.3


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.02])
def test_one_per_cent_of_near_duplicates_are_listed_and_nothing_else(noise):
    samples = draw(3, 1200)
    planted = np.sort(np.random.default_rng(4).choice(1200, 12, replace=False))
    rows = np.random.default_rng(5).choice(len(TRAIN), 12, replace=False)
    samples[planted] = TRAIN[rows] + noise * np.random.default_rng(6).normal(size=(12, D)).astype(np.float32)
    _, copies, test, _ = look(samples)
    np.testing.assert_array_equal(np.flatnonzero(copies.found), planted)
    np.testing.assert_array_equal(k_nearest(samples[planted], TRAIN)[1][:, 0], rows)
    assert test.excess.value == 0.01 and test.verdict in ("memorised", "undecided")


def test_spacing_is_the_distance_to_another_row():
    reference = draw(7, 90)
    reference[[5, 60]] = reference[33]
    pairs = np.linalg.norm(reference[:, None].astype(np.float64) - reference[None], axis=2)
    np.fill_diagonal(pairs, np.inf)
    rows = np.array([0, 5, 33, 60, 89, 0])
    np.testing.assert_allclose(spacing(rows, reference), pairs.min(axis=1)[rows], rtol=1e-6)
    # A copy of a row that has copies is near by the absolute bound alone.
    near = near_duplicates(np.array([0.01, 0.2]), np.zeros(2), 25, rms=0.02)
    np.testing.assert_array_equal(near.found, [True, False])
    np.testing.assert_allclose(near.threshold, 0.1)


def test_fresh_images_near_a_row_are_as_rare_as_promised():
    """In D = 3 dimensions the balls of a quarter of the spacing hold 4^-3 of the mass (here flat, without borders)."""
    rng = np.random.default_rng(8)
    train, fresh = rng.random((4000, 3)).astype(np.float32), (0.1 + 0.8 * rng.random((40000, 3))).astype(np.float32)
    distance, nearest = (each[:, 0] for each in k_nearest(fresh, train))
    share = near_duplicates(distance, spacing(nearest, train), 3, rms=0.0).share
    # Balls differ in size and few lie in each, so the spread is a few times the binomial one.
    assert abs(share.value - 4**-3) < 0.0015


def test_relative_distance_is_the_mean_with_its_t_interval():
    samples, distance = np.array([[3.0, 4.0], [6.0, 8.0]]), np.array([1.0, 4.0])
    score = relative_distance(samples, distance)
    np.testing.assert_allclose([score.value, score.standard_error], [0.3, 0.1])
    np.testing.assert_allclose(score.high - score.value, 12.706204736 * 0.1, rtol=1e-6)


def test_novelty_covers_the_truth_and_half_of_perfect_models_miss_the_published_bound():
    """Distances of one law: the expected score is 0.95, and the interval must allow for the estimated threshold."""
    rng = np.random.default_rng(9)
    scores = [novelty(rng.gamma(9.0, size=300), rng.gamma(9.0, size=200)).share for _ in range(600)]
    covered = np.mean([score.low <= 0.95 <= score.high for score in scores])
    assert 0.92 < covered <= 0.995
    assert 0.35 < np.mean([score.value >= 0.95 for score in scores]) < 0.65
    np.testing.assert_allclose(np.std([score.value for score in scores]), scores[0].standard_error, rtol=0.35)


def test_novelty_of_samples_is_that_of_their_distances():
    """Against all pairs: of the examples themselves, and of features that only keep the first four numbers."""
    samples, training, fresh = draw(3, 60), TRAIN[:200], FRESH[:80]
    for features, width in ((None, D), (lambda rows: rows.reshape(len(rows), -1)[:, :4], 4)):
        nearest = [
            np.linalg.norm(rows[:, None, :width].astype(float) - training[None, :, :width], axis=2).min(axis=1)
            for rows in (samples, fresh)
        ]
        shaped = (rows.reshape(-1, 2, D // 2) for rows in (samples, training, fresh))
        found, expected = sample_novelty(*shaped, 0.1, features), novelty(*nearest, 0.1)
        assert found.share == expected.share and found.threshold == pytest.approx(expected.threshold, rel=1e-6)


def test_auc_equals_counting_all_pairs():
    rng = np.random.default_rng(10)
    positives, negatives = rng.integers(0, 9, 40).astype(float), rng.integers(-3, 6, 55).astype(float)
    above = (positives[:, None] > negatives) + 0.5 * (positives[:, None] == negatives)
    found = auc(positives, negatives)
    np.testing.assert_allclose(found.value, above.mean(), rtol=1e-13)
    variance = above.mean(axis=1).var(ddof=1) / 40 + above.mean(axis=0).var(ddof=1) / 55
    np.testing.assert_allclose(found.standard_error, np.sqrt(variance), rtol=1e-12)
    # DeLong's standard error is that of redrawing both groups.
    draws = [above[np.ix_(rng.integers(0, 40, 40), rng.integers(0, 55, 55))].mean() for _ in range(4000)]
    np.testing.assert_allclose(found.standard_error, np.std(draws), rtol=0.06)
    swapped = auc(negatives, positives)
    np.testing.assert_allclose([swapped.value, swapped.low], [1 - found.value, 1 - found.high], rtol=1e-12)


def test_auc_of_groups_apart_still_has_an_interval():
    found = auc(np.arange(30.0) + 100, np.arange(20.0))
    assert found.value == found.high == 1 and found.standard_error == 0
    np.testing.assert_allclose(found.low, 1 / (1 + 1.959963984540054**2 / 20))
    assert auc(np.zeros(9), np.zeros(9)).value == 0.5


def test_hits_at_few_false_alarms():
    rng = np.random.default_rng(11)
    negatives = rng.normal(size=20_000)
    found = hits_at(rng.normal(size=30_000) + 2, negatives)
    # P(Z + 2 > 2.3263): the standard error is that of both groups, density 0.378 at the threshold.
    assert abs(found.value - 0.37208) < 4 * np.hypot(0.0028, 0.378 * np.sqrt(0.01 * 0.99 / 20_000) / 0.02665)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: novelty(np.ones(9), np.ones(9)), "number of fresh distances = 9: must be 40 or more"),
        (lambda: hits_at(np.ones(9), np.ones(99)), "number of negatives = 99"),
        (lambda: auc(np.ones(1), np.ones(9)), "number of positives = 1"),
        (lambda: auc(np.array([1.0, np.nan]), np.ones(9)), "positives = "),
        (lambda: spacing(np.array([0]), TRAIN[:1]), "number of reference rows = 1"),
        (lambda: relative_distance(np.zeros((3, 2)), np.ones(3)), "norm of a sample = 0"),
        (lambda: near_duplicates(np.ones(3), np.ones(3), 4, fraction=1.5), "fraction = 1.5"),
    ],
)
def test_bad_input_is_one_line(call, text):
    with pytest.raises(InputError) as error:
        call()
    assert text in str(error.value) and "\n" not in str(error.value)
