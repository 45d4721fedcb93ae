import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from dgu.analysis import argmax_error, asymptotic_error, best_ridge, classifier_error
from dgu.core.errors import InputError


def rotation(d, rng):
    return np.linalg.qr(rng.normal(size=(d, d)))[0]


def mixture(d, k, seed=0):
    """Classes with a mean in common, their own means, and covariances that do not commute."""
    rng = np.random.default_rng(seed)
    means = (1.5 * rng.normal(size=(k, d)) + 1) / np.sqrt(d)
    bases = [rotation(d, rng) for _ in range(k)]
    return means, np.stack([(q * np.exp(rng.uniform(-1.5, 1, d)) * (1 + c / 2)) @ q.T for c, q in enumerate(bases)])


def simulated(means, covariances, n, ridges, repetitions, seed=1, weights=None):
    """Errors (repetitions, ridges) of least squares on fresh samples, each exact given its weights."""
    k, d = means.shape
    weights = np.full(k, 1 / k) if weights is None else weights
    counts = np.round(weights * n).astype(int)
    roots = np.linalg.cholesky(covariances)
    targets = np.repeat(np.eye(k), counts, axis=0)
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(repetitions):
        x = np.concatenate([m + rng.normal(size=(c, d)) @ r.T for m, c, r in zip(means, counts, roots)])
        row = []
        for ridge in ridges:
            gram = x.T @ x / n + ridge * np.eye(d) if n > d or ridge else None
            w = (
                np.linalg.solve(gram, x.T @ targets / n)
                if gram is not None
                else x.T @ np.linalg.solve(x @ x.T, targets)
            )
            row.append(classifier_error(w, means, covariances, weights).error)
        out.append(row)
    return np.asarray(out)


def check_against_simulation(d, k, ratio, repetitions):
    means, covariances = mixture(d, k)
    n, ridges = round(ratio * d), (0.0, 0.3)
    found = simulated(means, covariances, n, ridges, repetitions)
    predicted = np.asarray([asymptotic_error(means, covariances, n, ridge=ridge).error for ridge in ridges])
    standard_errors = found.std(axis=0, ddof=1) / np.sqrt(repetitions)
    z = (found.mean(axis=0) - predicted) / standard_errors
    assert (standard_errors < 0.003).all() and (np.abs(z) < 3).all(), (found.mean(axis=0), predicted, z)


@pytest.mark.parametrize(
    ("k", "ratio"),
    [
        (2, 0.5),
        (4, 0.8),
        (4, 2.0),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in ((2, 0.8), (2, 2.0), (4, 0.5))),
    ],
)
def test_agrees_with_simulation(k, ratio):
    check_against_simulation(400, k, ratio, repetitions=30)


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [0.5, 0.8, 2.0])
@pytest.mark.parametrize("k", [2, 4])
def test_agrees_with_simulation_at_1600(k, ratio):
    check_against_simulation(1600, k, ratio, repetitions=12)


def test_unequal_weights_and_covariances_of_low_rank():
    means, covariances = mixture(120, 3)
    weights = np.asarray([0.2, 0.3, 0.5])
    n = 240
    found = simulated(means, covariances, n, (0.0,), 150, weights=weights)[:, 0]
    predicted = asymptotic_error(means, covariances, n, weights=weights).error
    assert abs(found.mean() - predicted) < 3 * found.std() / np.sqrt(150)
    # In 40 more dimensions that no class reaches nothing changes, on either side of the threshold.
    wider = np.pad(means, ((0, 0), (0, 40))), np.pad(covariances, ((0, 0), (0, 40), (0, 40)))
    turn = rotation(160, np.random.default_rng(5))
    wider = wider[0] @ turn.T, turn @ wider[1] @ turn.T
    for size in (60, 240):
        flat = asymptotic_error(*wider, size, weights=weights)
        assert flat.error == pytest.approx(asymptotic_error(means, covariances, size, weights=weights).error, abs=1e-6)


@pytest.mark.parametrize("gamma", [0.25, 0.8, 1.25, 4.0])
def test_two_isotropic_classes_have_a_closed_form(gamma):
    """Means +-m, covariance I. Below 1 it is Raudys' formula for Fisher's discriminant with an estimated covariance."""
    d, r = 240, 2.0
    means = np.zeros((2, d))
    means[:, 3] = [np.sqrt(r), -np.sqrt(r)]
    covariances = np.stack([np.eye(d)] * 2)
    margin = r * (np.sqrt((1 - gamma) / (gamma + r)) if gamma < 1 else np.sqrt((gamma - 1) / (gamma * (gamma + r))))
    # tr(Sigma Qbar) counts the one direction of the means among the d others.
    tolerance = 5 / d
    want = stats.norm.cdf(-margin)
    found = asymptotic_error(means, covariances, d / gamma)
    np.testing.assert_allclose(found.class_errors, [want, want], rtol=tolerance)
    far = asymptotic_error(means, covariances, d / gamma, ridge=1e-9)
    assert far.error == pytest.approx(found.error, rel=1e-6)


def test_large_ridge_compares_with_class_means():
    """``W -> X^T Y / (lambda n)``: mean and covariance of the scores follow from sample means."""
    means, covariances = mixture(60, 3)
    n, ridge, pi = 90, 1e9, 1 / 3
    found = asymptotic_error(means, covariances, n, ridge=ridge)
    np.testing.assert_allclose(found.score_means * ridge, pi * means @ means.T, rtol=1e-6)
    for i in range(3):
        noise = np.diag([pi * np.trace(covariances[i] @ one) / n for one in covariances])
        want = noise + pi**2 * means @ covariances[i] @ means.T
        np.testing.assert_allclose(found.score_covariances[i] * ridge**2, want, rtol=1e-5, atol=1e-9)


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 1000),
    ratio=st.sampled_from([0.3, 0.9, 1.2, 5.0]),
    ridge=st.sampled_from([0.0, 1e-6, 0.1, 10.0]),
)
def test_independent_of_rotation_units_and_order(seed, ratio, ridge):
    means, covariances = mixture(30, 3, seed)
    rng = np.random.default_rng(seed)
    n, q, order = ratio * 30, rotation(30, rng), rng.permutation(3)
    base = asymptotic_error(means, covariances, n, ridge=ridge)
    turned = asymptotic_error(means @ q.T, q @ covariances @ q.T, n, ridge=ridge)
    np.testing.assert_allclose(turned.score_covariances, base.score_covariances, rtol=1e-6, atol=1e-9)
    assert turned.error == pytest.approx(base.error, abs=1e-8)
    scaled = asymptotic_error(7 * means, 49 * covariances, n, ridge=49 * ridge)
    assert scaled.error == pytest.approx(base.error, abs=1e-8)
    shuffled = asymptotic_error(means[order], covariances[order], n, ridge=ridge)
    np.testing.assert_allclose(shuffled.score_means, base.score_means[np.ix_(order, order)], rtol=1e-7)
    np.testing.assert_allclose(shuffled.class_errors, base.class_errors[order], atol=2e-3)


@pytest.mark.parametrize("n", [20, 60])
def test_vanishing_ridge_is_the_min_norm_limit(n):
    means, covariances = mixture(40, 3)
    limit = asymptotic_error(means, covariances, n)
    for ridge, tolerance in ((1e-6, 1e-4), (1e-12, 1e-8)):
        near = asymptotic_error(means, covariances, n, ridge=ridge)
        np.testing.assert_allclose(near.score_covariances, limit.score_covariances, rtol=tolerance, atol=tolerance)


def test_best_ridge_is_best():
    means, covariances = mixture(60, 3)
    best = best_ridge(means, covariances, 50)
    others = [asymptotic_error(means, covariances, 50, ridge=r).error for r in np.geomspace(1e-4, 1e3, 25)]
    assert best.ridge > 0 and best.error <= min(others) + 2e-4
    assert best.error < asymptotic_error(means, covariances, 50).error - 0.01


# --- probabilities ----------------------------------------------------------------------------------------------------


def test_argmax_probabilities():
    """Three classes by quadrature, five independent equal ones by one integral, many by symmetry."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(3, 3, 3))
    means, covariances = rng.normal(size=(3, 3)), root @ root.swapaxes(1, 2)
    found = argmax_error(means, covariances)
    for i in range(3):
        differences = np.delete(np.eye(3)[i] - np.eye(3), i, axis=0)
        cdf = stats.multivariate_normal(np.zeros(2), differences @ covariances[i] @ differences.T)
        assert found.class_errors[i] == pytest.approx(1 - cdf.cdf(differences @ means[i]), abs=2e-5)
    five = argmax_error(1.3 * np.eye(5), np.stack([np.eye(5)] * 5))
    right = integrate.quad(lambda s: stats.norm.pdf(s - 1.3) * stats.norm.cdf(s) ** 4, -8, 10)[0]
    assert abs(five.error - (1 - right)) < max(3 * five.standard_error, 1e-5) and five.standard_error < 1e-4
    twenty = argmax_error(np.zeros((20, 20)), np.stack([np.eye(20)] * 20))
    assert abs(twenty.error - 0.95) < 3 * twenty.standard_error + 1e-4 and twenty.standard_error < 1e-3
    # Scores that depend on each other linearly, as with classes of few directions.
    thin = argmax_error(means, np.stack([np.outer(v, v) for v in rng.normal(size=(3, 3))]))
    assert np.isfinite(thin.class_errors).all()


def test_integration_is_addressed():
    means, covariances = np.eye(4), np.stack([np.eye(4) + 0.3] * 4)
    keys = [None, jax.random.key(0), jax.random.key(1)]
    default, same, other = (argmax_error(means, covariances, key=key, points=64).error for key in keys)
    assert default == same != other and default == pytest.approx(other, abs=1e-3)


def test_error_of_a_given_classifier_equals_counting():
    means, covariances = mixture(12, 4)
    weights = np.asarray([0.1, 0.2, 0.3, 0.4])
    rng = np.random.default_rng(0)
    w = means.T + 0.1 * rng.normal(size=(12, 4))
    found = classifier_error(w, means, covariances, weights)
    for label in range(4):
        x = means[label] + rng.normal(size=(40_000, 12)) @ np.linalg.cholesky(covariances[label]).T
        wrong = (np.argmax(x @ w, axis=1) != label).mean()
        assert abs(found.class_errors[label] - wrong) < 4 * np.sqrt(wrong * (1 - wrong) / 40_000)
    assert found.error == pytest.approx(weights @ found.class_errors)


# --- input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 0}, "n = 0: must be at least 1"),
        ({"n": 12}, r"n = 12: must be other than the rank of the mixture \(12\)"),
        ({"ridge": -1.0}, "ridge = -1.0: must be 0 or more"),
        ({"covariances": np.zeros((3, 11, 11))}, r"covariances.shape = \(3, 11, 11\): must be \(3, 12, 12\)"),
        ({"covariances": np.stack([-np.eye(12)] * 3)}, r"covariances\[0\] = not positive semi-definite"),
        ({"covariances": np.stack([np.eye(12) + np.eye(12, k=1)] * 3)}, r"covariances\[0\] = 'asymmetric by 1'"),
        ({"weights": np.asarray([0.5, 0.4, 0.3])}, "weights = .*: must be 3 positive numbers that sum to 1"),
        ({"means": np.full((3, 12), np.nan)}, "moments = 'non-finite'"),
        ({"points": 100}, "points = 100: must be a power of 2"),
    ],
)
def test_bad_input(change, message):
    means, covariances = mixture(12, 3)
    given = {"means": means, "covariances": covariances, "n": 20} | change
    with pytest.raises(InputError, match=message):
        asymptotic_error(given.pop("means"), given.pop("covariances"), given.pop("n"), **given)


def test_classes_interpolated_one_by_one_are_refused():
    """50 examples of a class of 100 dimensions and 50 of one of 10: at ridge 0 the two have different scales."""
    covariances = np.zeros((2, 110, 110))
    covariances[0, :100, :100], covariances[1, 100:, 100:] = np.eye(100), np.eye(10)
    means = np.zeros((2, 110))
    means[:, [0, 105]] = [[1, 0], [0, 1]]
    with pytest.raises(InputError, match=r"ridge = 0\.0: must be positive: some classes are interpolated"):
        asymptotic_error(means, covariances, 100)
    assert 0 < asymptotic_error(means, covariances, 100, ridge=1e-3).error < 0.5
