"""Tails against closed forms; the calibration of the test; the coupling that does not concentrate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from dgu.analysis.concentration.coupling import COUPLINGS, LARGEST_DEVIATION, coupled_deviation, coupled_distances
from dgu.analysis.concentration.lipschitz import lipschitz_family, lipschitz_values
from dgu.analysis.concentration.tail_summary import aside_tail_test, tail_summary
from dgu.analysis.concentration.tail_test import tail_test, tail_test_p_values
from dgu.analysis.concentration.tails import (
    GAUSSIAN_PSI2,
    concentration_scale,
    hill_index,
    left_over_mass,
    one_sized,
    sub_gaussian_norm,
    tail_bound,
    tail_curves,
    tail_estimates,
)
from dgu.core.errors import InputError
from dgu.distributions.bases import student_from_gaussian

KEY = jax.random.key(0)


def gaussian(n, d, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def student(n, d, nu, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, d)) / np.sqrt(rng.chisquare(nu, (n, 1)) / nu)).astype(np.float32)


# --- the test -------------------------------------------------------------------------------------------------------


def small_family(d):
    anchors = np.full((2, d), 0.5, np.float32) * np.array([[1], [-1]], np.float32)
    return lipschitz_family(jax.random.key(7), d, projections=3, coordinates=2, anchors=anchors, width=8)


SYNTHETIC = {"sets": 300, "n": 100, "draws": 39}


def test_the_size_is_five_percent():
    """300 sets as one program: fractions within three of their standard errors."""
    found = tail_test_p_values(
        KEY, scales=np.arange(1, 9, dtype=np.float32) ** -0.5, family=small_family(8), **SYNTHETIC
    )
    assert found.shape == (300,)
    np.testing.assert_allclose(found * 40, np.rint(found * 40), atol=1e-9)
    for level in (0.05, 0.2, 0.5):
        assert abs(np.mean(found <= level) - level) < 3 * np.sqrt(level * (1 - level) / 300)


@pytest.mark.slow
def test_five_percent_of_gaussian_sets_are_rejected():
    """1,000 sets as one program: 3 to 7 % at a nominal 5 % (the deviation of such a fraction is 0.7 %)."""
    scales = np.arange(1, 9, dtype=np.float32) ** -0.5
    found = tail_test_p_values(KEY, 1000, 120, scales, small_family(8), draws=99)
    assert found.shape == (1000,) and 0.03 <= np.mean(found <= 0.05) <= 0.07
    # All of the distribution of p is uniform, on its grid of hundredths.
    np.testing.assert_allclose(found * 100, np.rint(found * 100), atol=1e-9)
    assert abs(np.mean(found <= 0.5) - 0.5) < 0.05 and abs(np.mean(found <= 0.2) - 0.2) < 0.04


def test_power_against_student_t_with_three_degrees_of_freedom():
    options = {"scales": np.ones(8, np.float32), "family": small_family(8), "degrees_of_freedom": 3}
    found = tail_test_p_values(KEY, **options, **SYNTHETIC)
    assert np.mean(found <= 0.05) > 0.95


def test_the_test_on_rows_finds_the_function_with_the_heavy_tail():
    rows = gaussian(500, 8)
    rows[:, 3] = student(500, 1, 3, seed=1)[:, 0]
    family = lipschitz_family(KEY, 8, projections=0, coordinates=8, width=0)
    found = tail_test(rows.reshape(500, 2, 4), family, KEY, draws=99)
    place = family.names.index(f"coordinate {np.flatnonzero(np.asarray(family.coordinates) == 3)[0]}")
    assert found.p_value == 0.01 and found.rejects() and not found.rejects(0.005)
    assert found.function_p[place] == found.p_value and found.draws == 99
    others = [number for number, name in enumerate(found.names) if "coordinate" in name and number != place]
    assert (found.function_p[others] > 0.05).all()
    np.testing.assert_allclose(
        found.kurtosis[2:], stats.kurtosis(rows, axis=0)[np.asarray(family.coordinates)], rtol=1e-3, atol=1e-3
    )
    assert abs(found.null_kurtosis[place]) < 0.1
    assert not tail_test(gaussian(500, 8), family, KEY, draws=99).rejects()


def test_light_tails_are_not_rejected():
    rows = np.random.default_rng(0).uniform(-1, 1, (400, 8)).astype(np.float32)
    family = lipschitz_family(KEY, 8, projections=3, coordinates=2, maximum=False, width=0)
    assert tail_test(rows, family, KEY, draws=99).p_value > 0.2


def test_fewer_rows_than_dimensions():
    family = small_family(40)
    assert not tail_test(gaussian(30, 40), family, KEY, draws=19).rejects()
    assert tail_test(student(30, 40, 1, seed=2), family, KEY, draws=19).rejects()


# --- estimates ------------------------------------------------------------------------------------------------------


def test_scale_of_gaussian_data_within_ten_percent():
    """White data too, where the largest sample eigenvalue is too large by (1 + sqrt(d / n))^2 = 1.4."""
    for scales in (np.ones(60), 3 * np.arange(1, 61) ** -0.5):
        rows = gaussian(2000, 60) * scales.astype(np.float32) + 5
        found = concentration_scale(rows)
        assert found.value == pytest.approx(scales.max(), rel=0.1)
        assert found.low < found.value < found.high and found.high - found.low < 0.2 * found.value
    largest = np.linalg.eigvalsh(np.cov(gaussian(2000, 60).T))[-1]
    assert np.sqrt(largest) > 1.1


def test_scale_interval_covers():
    """Over 100 sets with a clear leading direction, 95 % intervals hold the truth in 88 to 100."""
    scales = np.array([2.0, 1.0, 0.5, 0.5], np.float32)
    found = [concentration_scale(gaussian(200, 4, seed) * scales) for seed in range(100)]
    assert 88 <= sum(one.low <= 2 <= one.high for one in found) <= 100


def test_sub_gaussian_norm_solves_its_equation(x64):
    norm = jax.jit(sub_gaussian_norm)
    values = jnp.asarray(np.random.default_rng(1).normal(size=(50, 3)) * np.array([1e-8, 1.0, 1e8]))
    found = np.asarray(norm(values))
    centred = np.asarray(values) - np.asarray(values).mean(axis=0)
    np.testing.assert_allclose(np.exp((centred / found) ** 2).mean(axis=0), 2, rtol=1e-5)
    # A fair coin of +-1: exp(1 / K^2) = 2.
    coin = jnp.asarray(np.repeat([[1.0] * 3, [-1.0] * 3], 50, axis=0))
    np.testing.assert_allclose(norm(coin), 1 / np.sqrt(np.log(2)), rtol=1e-6)
    # A row of weight 3 is three rows.
    weights = jnp.asarray(np.repeat([3.0, 1.0], 25))
    tripled = jnp.concatenate([jnp.repeat(values[:25], 3, axis=0), values[25:]])
    np.testing.assert_allclose(norm(values, weights), norm(tripled), rtol=1e-6)


def test_estimates_of_gaussian_and_student_columns():
    """Scales of 1e-4 and 1e4 beside each other: nothing under- or overflows in single precision."""
    n = 4000
    columns = np.concatenate([gaussian(n, 2), student(n, 1, 3, seed=3)], axis=1) * np.float32([1e-4, 1e4, 1])
    found = tail_estimates(columns, KEY, 100)
    np.testing.assert_allclose(found.std.value, columns.std(axis=0, ddof=1), rtol=1e-4)
    np.testing.assert_allclose(found.kurtosis.value, stats.kurtosis(columns, axis=0), rtol=1e-2, atol=2e-3)
    np.testing.assert_allclose(found.psi2.value[:2], GAUSSIAN_PSI2 * np.array([1e-4, 1e4]), rtol=0.1)
    # Independent of the code: bootstrap deviations against normal theory, sd of the deviation and of the kurtosis.
    np.testing.assert_allclose(found.std.standard_error[:2] / found.std.value[:2], 1 / np.sqrt(2 * n), rtol=0.3)
    np.testing.assert_allclose(found.kurtosis.standard_error[:2], np.sqrt(24 / n), rtol=0.4)
    for part in (found.std, found.psi2, found.kurtosis, found.hill):
        assert (part.low < part.high).all()
    assert found.kurtosis.low[2] > 1 and found.psi2.value[2] > 2.2 * found.std.value[2]
    assert found.hill.low[2] < 3 < found.hill.high[2] and (found.hill.low[:2] > 3.5).all()


def test_hill_of_an_exact_pareto_sample():
    """Symmetric, with quantiles for values: the mean of the k largest logs is 1 / a up to the grid."""
    survival = (np.arange(2000) + 0.5) / 2000
    y = survival ** (-1 / 2.5)
    found = hill_index(np.concatenate([y, -y])[:, None], count=400)
    assert found[0] == pytest.approx(2.5, rel=0.03)


def test_hill_with_ties_at_the_threshold():
    """Normal values clipped at -1 and 1: a sixth of them crowd at a bound, more than the twenty largest deviations."""
    rng = np.random.default_rng(3)
    clipped = np.clip(rng.normal(size=(400, 1)), -1.0, 1.0)
    deviations = np.sort(np.abs(clipped[:, 0] - clipped.mean()))[::-1]
    tied = int((deviations >= deviations[0] - 1e-12).sum())
    assert tied > 40
    # Fewer deviations than are tied: as many as these, against the largest below.
    assert hill_index(clipped)[0] == pytest.approx(1 / np.log(deviations[0] / deviations[tied]), rel=1e-12)
    assert hill_index(clipped, count=tied)[0] == hill_index(clipped)[0]
    # More: Hill's own formula, by hand.
    k = tied + 30
    expected = 1 / np.mean(np.log(deviations[:k] / deviations[k]))
    assert hill_index(clipped, count=k)[0] == pytest.approx(expected, rel=1e-12)
    # Two values, four times as often the one: deviations 4 and 1 about the mean, the index 1 / log 4 whatever the
    # rounding.
    two = np.repeat([[5.0], [0.0]], [12, 48], axis=0)
    for scale in (1.0, 0.1, 1e-3):
        for dtype in (np.float64, np.float32):
            assert hill_index((scale * two).astype(dtype))[0] == pytest.approx(1 / np.log(4), rel=1e-5)
    both = hill_index(np.concatenate([np.resize(clipped, (60, 1)), two], axis=1))
    assert both[1] == pytest.approx(1 / np.log(4), rel=1e-12) and both[0] < 1e6
    estimates = tail_estimates(np.float32(np.tile(two, 2)), KEY, 20).hill
    np.testing.assert_allclose(estimates.standard_error, 1 / np.log(4) / np.sqrt(12), rtol=1e-5)


@pytest.mark.parametrize("low, high", [(-1.0, 1.0), (0.1, 0.3), (0.0, 1.0)])
def test_hill_refuses_what_has_one_size(low, high):
    coin = np.repeat([[low], [high]], 30, axis=0)
    for dtype in (np.float64, np.float32):
        values = np.concatenate([gaussian(60, 1), coin], axis=1).astype(dtype)
        np.testing.assert_array_equal(one_sized(values), [False, True])
        for index in (hill_index, lambda v: tail_estimates(v, KEY, 20)):
            with pytest.raises(InputError, match=r"of one size about the mean in column \[1\].*of different sizes"):
                index(values)
    lonely = np.zeros((60, 1))
    lonely[:4, 0] = -1, 1, -2, 2
    with pytest.raises(InputError, match=r"count = '7, with a deviation of 0 in column \[0\]': must be smaller"):
        hill_index(lonely)
    assert hill_index(lonely, count=3)[0] == pytest.approx(3 / (2 * np.log(2)), rel=1e-12)


def test_curves_and_bound():
    values = gaussian(5000, 2) * np.array([1, 0.5], np.float32) + 3
    curves = tail_curves(values, 1.0, levels=[0.0, 1.0, 2.0, 5.0])
    exact = 2 * stats.norm.sf(curves.t[None] / np.array([[1.0], [0.5]]))
    # Pointwise limits at 8 points, of which two are 1 and two rare.
    assert ((curves.low <= exact) & (exact <= curves.high)).mean() >= 7 / 8
    assert (curves.low <= curves.survival).all() and (curves.survival <= curves.high).all()
    np.testing.assert_allclose(curves.bound, 2 * np.exp(-np.array([0, 1, 4, 25]) / 2))
    np.testing.assert_allclose(curves.high[0, 3], 1 - 0.025 ** (1 / 5000))
    assert (exact[0] <= tail_bound(curves.t, 1.0)).all()
    assert tail_curves(values, 2.0).t[-1] == 12


def test_left_over_mass():
    """None on Gaussian functions of any kind, 5 % where 5 % of the rows lie far out, some on Student-t of variance
    1.
    """
    n, family = 3000, lipschitz_family(KEY, 16, projections=4, coordinates=2)
    rows = gaussian(n, 16)
    clean = left_over_mass(lipschitz_values(family, rows), 1.0)
    assert (clean.value < 5e-4).all() and (clean.low == 0).all() and (clean.high < 0.006).all()
    assert (clean.high > 2 / n).all()
    place = np.arange(n)[:, None]
    far = np.where(place % 20 == 0, np.where(place % 40 == 0, 30.0, -30.0), 0.0).astype(np.float32)
    mixed = left_over_mass(rows[:, :1] + far, 1.0)
    assert mixed.low[0] < 0.05 < mixed.high[0] and mixed.value[0] == pytest.approx(0.05, abs=0.002)
    assert 0.03 < mixed.low[0] and mixed.high[0] < 0.07
    heavy = left_over_mass(lipschitz_values(family, student(n, 16, 3) / np.sqrt(3).astype(np.float32)), 1.0)
    assert heavy.low[0] > 0.005, "the norm of a multivariate t deviates by its own length"


def test_left_over_mass_without_any_exceedance():
    """No value beyond s: the upper end is the exact limit of an empty cell, at the level corrected for 24 levels and 2
    columns.
    """
    coins = np.where(np.random.default_rng(0).random((100, 2)) < 0.5, -0.5, 0.5)
    found = left_over_mass(coins, 1.0)
    assert (found.value == 0).all() and (found.low == 0).all()
    np.testing.assert_allclose(found.high, 1 - (0.05 / 48 / 2) ** (1 / 100))


def test_left_over_mass_interval_covers():
    """Truth from scipy, 3 columns of t(3), 60 sets: all columns inside at once in at least 54."""
    t = np.linspace(1, 40, 20_000)
    truth = np.max(2 * stats.t.sf(t, 3) - tail_bound(t, 1.0))
    found = [left_over_mass(np.random.default_rng(s).standard_t(3, (400, 3)), 1.0) for s in range(60)]
    assert sum(bool(((one.low <= truth) & (truth <= one.high)).all()) for one in found) >= 54
    assert np.mean([one.value.mean() for one in found]) == pytest.approx(truth, rel=0.3)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: tail_curves(np.zeros((19, 1)), 1.0), "values = '19 of each function': must be 20 or more"),
        (lambda: tail_curves(gaussian(30, 2), 0.0), "scale = 0.0"),
        (lambda: tail_estimates(np.full((30, 1), np.nan), KEY), "values = 'non-finite'"),
        (lambda: tail_estimates(gaussian(30, 2) * np.float32([1, 0]), KEY), r"values = 'constant in column \[1\]'"),
        (lambda: tail_estimates(gaussian(30, 1), KEY, 5), "resamples = 5"),
        (lambda: left_over_mass(gaussian(30, 1), 1.0, confidence=1.0), "confidence = 1.0"),
        (lambda: left_over_mass(gaussian(30, 1), 1.0, levels=1), "levels = 1"),
        (lambda: hill_index(gaussian(30, 1), 30), "count = 30"),
        (lambda: concentration_scale(np.ones((30, 2))), "rows = 'constant'"),
        (lambda: concentration_scale(gaussian(30, 2), folds=31), "folds = 31"),
        (lambda: tail_test(gaussian(30, 7), small_family(8), KEY), r"rows.shape = \(30, 7\)"),
        (lambda: tail_test(gaussian(12, 8), small_family(8), KEY), "rows = 12: must be 20 or more"),
        (lambda: tail_test(gaussian(30, 8), small_family(8), KEY, draws=18), "draws = 18"),
        (lambda: tail_test(np.ones((30, 8), np.float32), small_family(8), KEY, draws=19), "function 'max' = 'constant'"),
        (lambda: tail_test_p_values(KEY, 0, 30, np.ones(8, np.float32), small_family(8)), "sets"),
        (lambda: tail_test_p_values(KEY, 1, 30, np.zeros(8, np.float32), small_family(8)), "scales = "),
        (lambda: coupled_distances(KEY, 1, (2,), "none"), "coupling = 'none'"),
        (lambda: coupled_deviation(0), "dimension = 0"),
    ],
)  # fmt: skip
def test_bad_input(call, text):
    with pytest.raises(InputError, match=text):
        call()


# --- couplings ------------------------------------------------------------------------------------------------------


DIMENSIONS = (16, 256, 1024)


@pytest.fixture(scope="module")
def coupled():
    return {name: dict(zip(DIMENSIONS, coupled_distances(KEY, 400, DIMENSIONS, name))) for name in COUPLINGS}


@pytest.mark.parametrize(("d", "rounded"), list(zip(DIMENSIONS, (2.9, 11.3, 22.6))))
def test_coin_coupling_spreads_like_the_root_of_the_dimension(coupled, d, rounded):
    assert coupled_deviation(4096) == pytest.approx(45.3, abs=0.06)
    exact = coupled_deviation(d)
    assert exact == pytest.approx(rounded, abs=0.06) and exact == pytest.approx(np.sqrt(d / 2), rel=0.03)
    assert exact > LARGEST_DEVIATION
    values = coupled["coin"][d]
    assert np.std(values, ddof=1) == pytest.approx(exact, rel=0.03)
    assert abs(np.mean(values == 0) - 0.5) < 0.1
    assert coupled_deviation(d, "independent") == pytest.approx(1 / np.sqrt(2), abs=0.02)
    assert np.std(coupled["independent"][d], ddof=1) == pytest.approx(coupled_deviation(d, "independent"), rel=0.15)


@pytest.mark.parametrize("scale", [0, float("nan"), -1.0])
def test_the_bound_has_a_positive_scale(scale):
    with pytest.raises(InputError, match=r"^scale = .*: must be positive and finite"):
        tail_bound(1.0, scale)


# --- tails of a data set in one go


def test_the_summary_of_a_gaussian_and_of_its_heavy_tailed_twin():
    scales = np.arange(1, 9, dtype=np.float32) ** -0.5
    rows, aside = gaussian(1500, 8) * scales, gaussian(60, 8, seed=1) * scales
    heavy = student_from_gaussian(rows, np.zeros(8), KEY)
    found, other = (tail_summary(x, aside, KEY, projections=2, coordinates=2, resamples=30) for x in (rows, heavy))
    names = found["names"].tolist()
    leading = ["leading 0", "leading 1", "projection 2", "projection 3"]
    assert names[:6] == ["norm", "max", *leading] and names[-2:] == ["distance to anchors", "network"]
    assert found["survival"].shape == (len(names), len(found["t"])) and int(found["n"]) == 1500
    for part in ("psi2", "kurtosis", "hill", "delta"):
        value, low, high = found[part]
        assert value.shape == (len(names),) and (low <= high).all()
    # The scale is the root of the largest eigenvalue, 1; the leading direction has about that deviation.
    assert found["scale"][1] < 1 < found["scale"][2]
    direct = stats.kurtosis(rows @ np.linalg.svd(aside - aside.mean(0))[2][0])
    assert found["kurtosis"][0, names.index("leading 0")] == pytest.approx(direct, abs=1e-3)
    assert found["delta"][1].max() == 0 and other["delta"][1].max() > 0
    assert other["kurtosis"][0].max() > 3 > found["kurtosis"][0].max()
    # Correcting for more data sets widens the interval of the left-over mass.
    wider = tail_summary(rows, aside, KEY, projections=2, coordinates=2, resamples=30, comparisons=20)
    assert (wider["delta"][2] > found["delta"][2]).all()


def test_a_coordinate_of_one_size_and_constant_ones_are_left_out():
    rows = gaussian(1500, 8)
    rows[:, 3] = 9.0  # The largest coordinate is this one in every row.
    rows[:, 4] = 0.0
    found = tail_summary(rows, rows[:60], KEY, projections=2, coordinates=8, resamples=30)
    kept = [name for name in found["names"] if name.startswith("coordinate")]
    assert "max" not in found["names"] and len(kept) == 6


def test_the_test_with_rows_aside_rejects_heavy_tails_alone():
    rows, aside = gaussian(600, 8), gaussian(40, 8, seed=1)
    plain = aside_tail_test(rows, aside, KEY, projections=2, draws=39)
    heavy = aside_tail_test(student(600, 8, 3.0), aside, KEY, projections=2, draws=39)
    assert plain.names == ("norm", "leading 0", "leading 1", "projection 2", "projection 3", "distance to anchors")
    assert heavy.p_value == 1 / 40 < 0.1 < plain.p_value
    with pytest.raises(InputError, match="shapes of rows and aside"):
        aside_tail_test(rows, aside[:, :4], KEY)
