"""The assumptions of Theorem 1 against closed forms for Gaussian data, and on data that break each of them."""

import jax
import numpy as np
import pytest

from dgu.analysis.universality.assumptions import theorem_assumptions
from dgu.core.errors import InputError

KEY = jax.random.key(3)
D, N = 24, 4000


def evaluate(rows, **options):
    found = theorem_assumptions(rows.astype(np.float32), KEY, **options)
    return {one.name: one for one in found}


def white(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, D))


def test_white_gaussian_data_keep_them_all():
    """Means within 5 % or 3 bootstrap errors of the closed forms; the order is that of the module."""
    found = evaluate(7 * white(N).reshape(N, 4, 6))
    assert list(found)[:3] == ["mean", "moment 2, random", "moment 2, leading"] and list(found)[-1].startswith(
        "smallest"
    )
    assert len(found) == 1 + 6 + 4 + 3 + 1
    for name, one in found.items():
        e = one.estimate
        assert e.low <= e.value <= e.high
        if name == "mean":
            # Without its bias ||mean||^2 is 0 but for a deviation of sqrt(2 / d) / n, of half of the rows.
            assert one.white == 0 and one.ratio is None and e.value < np.sqrt(3 * np.sqrt(2 / D) / (N / 2))
        elif name.startswith("smallest"):
            # The edge of the limit, from which 12 rows of 24 numbers are still far (0.043 in simulations).
            assert one.white < e.value < one.white + 0.06
        else:
            # The largest of several directions lies a little above.
            assert abs(e.value - one.white) < 4 * e.standard_error + 0.05 * one.white, name
            assert one.ratio.value == pytest.approx(e.value / one.white)
    assert found["moment 6, random"].white == found["shape 6, leading"].white == 15
    # Errors of the bootstrap against theory: E z^4 of n values, half of the rows, has deviation sqrt(96 / n).
    assert found["shape 4, random"].estimate.standard_error < 1.5 * np.sqrt(96 / (N / 2))
    assert found["moment 4, random"].estimate.standard_error == pytest.approx(np.sqrt(96 / (N / 2)), rel=0.35)


def test_a_power_law_breaks_moments_along_the_leading_direction_alone():
    variances = np.arange(1, D + 1) ** -2.0
    rows = white(N, 1) * np.sqrt(variances)
    found = evaluate(rows)
    share = variances / variances.sum()
    for q, gaussian in ((2, 1), (4, 3), (6, 15)):
        expected = gaussian * (D * share[0]) ** (q / 2)
        assert found[f"moment {q}, leading"].estimate.value == pytest.approx(expected, rel=0.3)
        if q > 2:
            assert found[f"shape {q}, leading"].estimate.value == pytest.approx(gaussian, rel=0.3)
    assert found["quadratic identity"].estimate.value == pytest.approx(2 * (share**2).sum(), rel=0.2)
    assert found["quadratic leading eigenvector"].estimate.value == pytest.approx(2 * share[0] ** 2, rel=0.2)
    name, last = list(found.items())[-1]
    assert name == "smallest singular value, 12 rows" and last.ratio.high < 0.3
    # NumPy, block by block, on rows in another order: within five standard errors.
    blocks = rows[: 333 * 12].reshape(-1, 12, D) / np.sqrt(variances.sum())
    expected = np.mean([np.linalg.eigvalsh(b @ b.T)[0] for b in blocks])
    assert abs(last.estimate.value - expected) < 5 * last.estimate.standard_error


def test_means_and_common_radii_show():
    rng = np.random.default_rng(2)
    direction = np.ones(D) / np.sqrt(D)
    found = evaluate(white(N, 3) + 10 * direction)
    assert found["mean"].estimate.value == pytest.approx(10 / np.sqrt(D), rel=0.02)
    # x^T x then varies by 2 tr / d^2 + 4 mu^T Sigma mu / d^2.
    expected = 2 / D + 4 * 100 / D**2
    assert found["quadratic identity"].estimate.value == pytest.approx(expected, rel=0.15)
    radius = np.where(rng.random((N, 1)) < 0.5, 0.5, 1.5) ** 0.5
    found = evaluate(white(N, 4) * radius)
    # Var of the squared radius, 1/4, does not vanish with d: E r^4 (1 + 2 / d) - 1 with E r^4 = 1.25.
    assert found["quadratic identity"].estimate.low > 0.2
    assert found["quadratic identity"].estimate.value == pytest.approx(1.25 * (1 + 2 / D) - 1, rel=0.1)
    # In every direction the fourth moment is that of the mixture, 3 * 1.25.
    assert found["shape 4, random"].estimate.value == pytest.approx(3.75, rel=0.12)


@pytest.mark.slow
def test_intervals_cover():
    """95 % intervals of a statistic without a choice of direction, over 60 sets: at least 50 hold the truth."""
    variances = np.arange(1, D + 1) ** -1.0
    share = variances / variances.sum()
    truth = 2 * (share**2).sum()
    hits = 0
    for seed in range(60):
        rows = (white(300, seed) * np.sqrt(variances)).astype(np.float32)
        found = {one.name: one.estimate for one in theorem_assumptions(rows, jax.random.key(seed), resamples=60)}
        hits += found["quadratic identity"].low <= truth <= found["quadratic identity"].high
    assert hits >= 50


@pytest.mark.parametrize(
    ("rows", "options", "text"),
    [
        (white(39), {}, r"rows.shape = \(39, 24\): must be 40 rows of 4 numbers, or more"),
        (np.full((50, D), np.nan), {}, "rows = 'non-finite'"),
        (np.ones((50, D)), {}, "rows = 'constant'"),
        (white(50), {"leading": 25}, "leading = 25: must be from 1 to 24"),
        (white(50), {"directions": 0}, "directions = 0"),
        (white(50), {"aspect": 1.0}, r"aspect = 1\.0"),
        (white(50), {"resamples": 3}, "resamples = 3"),
    ],
)
def test_bad_input(rows, options, text):
    with pytest.raises(InputError, match=text):
        theorem_assumptions(rows.astype(np.float32), KEY, **options)
