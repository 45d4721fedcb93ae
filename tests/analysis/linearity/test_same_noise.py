"""Samples from the same noise against brute force, and what the null is worth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dgu.analysis import SameNoise, mean_over_pairs, same_noise_distances
from dgu.core.errors import InputError


def test_distances_and_null_against_loops():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 3, 2, 1)), rng.normal(size=(5, 3, 2, 1))
    found = same_noise_distances(a, b)
    for i in range(5):
        distance = [np.sqrt(((a[i] - b[j]) ** 2).mean()) for j in range(5)]
        assert found.paired[i] == pytest.approx(distance[i], abs=1e-12)
        assert found.null[i] == pytest.approx(np.mean(distance[:i] + distance[i + 1 :]), abs=1e-10)
    assert found.ratio.estimate == pytest.approx(found.paired.mean() / found.null.mean())
    both = mean_over_pairs([found, same_noise_distances(b, a)])
    np.testing.assert_allclose(both.null, (found.null + same_noise_distances(b, a).null) / 2)
    np.testing.assert_allclose(both.paired, found.paired)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.1, 10), st.floats(-5, 5))
def test_ratio_needs_no_units(seed, scale, shift):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(6, 4))
    b = a + 0.3 * rng.normal(size=(6, 4))
    plain, moved = same_noise_distances(a, b), same_noise_distances(scale * a + shift, scale * b + shift)
    np.testing.assert_allclose(moved.ratios, plain.ratios, rtol=1e-8)


def test_same_models_score_0_and_unrelated_ones_1():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 200, 40)).astype(np.float32)
    # Exactly, though the squares of the products would leave rounding of single precision.
    assert same_noise_distances(1e3 + a, 1e3 + a).ratio.estimate == 0
    free = same_noise_distances(a, b).ratio
    assert free.low < 1 < free.high and free.high - free.low < 0.06


def test_the_null_of_images_far_from_0_keeps_its_digits():
    """Images that differ in the eighth digit; and copies of one image, whose null is 0, not the root of a rounding."""
    rng = np.random.default_rng(2)
    a, b = 1e6 + 1e-2 * rng.normal(size=(2, 20, 30))
    a[3] = b[7]
    table = np.sqrt(((a[:, None] - b[None]) ** 2).mean(axis=2))
    expected = (table.sum(axis=1) - np.diag(table)) / 19
    np.testing.assert_allclose(same_noise_distances(a, b).null, expected, rtol=1e-8)
    copies = np.repeat(rng.normal(size=(1, 40)), 5, axis=0)
    with pytest.raises(InputError, match="all the same image"):
        same_noise_distances(copies, copies)


def test_bad_input():
    good = np.ones((3, 4)) * np.arange(3)[:, None]
    for said, first in (
        ("number of samples = 1", good[:1]),
        ("non-finite", good * np.nan),
        ("all the same image", good * 0),
    ):
        with pytest.raises(InputError, match=said):
            same_noise_distances(first, first)
    with pytest.raises(InputError, match="number of pairs"):
        mean_over_pairs([])
    assert SameNoise(np.ones(3), np.full(3, 2.0)).ratio.estimate == 0.5
