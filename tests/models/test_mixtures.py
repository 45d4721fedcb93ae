"""The two mixtures against dense covariances, log-sum-exp over every point, and what every posterior mean satisfies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp, softmax
from scipy.stats import multivariate_normal

from dgu.core.errors import InputError
from dgu.models import EmpiricalDenoiser, GaussianDenoiser, MoLRGDenoiser
from dgu.testing import check_posterior_mean

EVENT = (3, 2, 2)
D = 12
SIGMAS = [0.002, 0.05, 1.0, 80.0]
#: Evaluation as one program for all levels: run op by op, each operation compiles on its own.
CALL = jax.jit(lambda denoiser, x, sigma: denoiser(x, sigma))
#: As CALL, with the log density.
BOTH = jax.jit(lambda denoiser, x, sigma: (denoiser(x, sigma), denoiser.log_density(x, sigma)))


def planted(noise_std=0.0, seed=0, spread=1.0):
    """Three components of rank 3, 3 and 2 (one padded column), with unequal weights and variances."""
    rng = np.random.default_rng(seed)
    bases = np.stack([np.linalg.qr(rng.standard_normal((D, 3)))[0] for _ in range(3)])
    variances = np.array([[2.0, 0.5, 0.1], [0.3, 0.2, 0.1], [1.5, 0.4, 0.0]])
    means = spread * rng.standard_normal((3, *EVENT))
    return MoLRGDenoiser(np.array([0.5, 0.3, 0.2]), means, bases.reshape(3, *EVENT, 3), variances, noise_std)


def covariances(mixture):
    """Dense covariances: a column of variance 0 counts as absent, the rest has the variance of the noise."""
    out = []
    for basis, variances in zip(np.asarray(mixture.bases).reshape(3, D, 3), np.asarray(mixture.variances)):
        kept = basis[:, variances > 0]
        inside = (kept * variances[variances > 0]) @ kept.T
        out.append(inside + mixture.noise_std**2 * (np.eye(D) - kept @ kept.T))
    return out


def dense(mixture, x, sigma):
    """Posterior mean and log density by linear algebra on whole covariances."""
    scores, means = [], []
    for weight, mean, covariance in zip(mixture.weights, mixture.means, covariances(mixture)):
        noisy = covariance + sigma**2 * np.eye(D)
        centred = (x - mean).ravel()
        scores.append(np.log(weight) + multivariate_normal(np.zeros(D), noisy).logpdf(centred))
        means.append(mean.ravel() + covariance @ np.linalg.solve(noisy, centred))
    return (softmax(scores) @ np.array(means)).reshape(EVENT), logsumexp(scores), softmax(scores)


@pytest.mark.parametrize("noise_std", [0.0, 0.2])
def test_mixture_equals_dense_linear_algebra(x64, strict_dtypes, noise_std):
    mixture = planted(noise_std)
    rng = np.random.default_rng(1)
    call = jax.jit(lambda m, x, s: (m(x, s), m.log_density(x, s), m.responsibilities(x, s)))
    # The dense twin loses digits to the conditioning of its covariances at the smallest noise, ours does not.
    for sigma, digits in zip(SIGMAS, (1e-6, 1e-9, 1e-11, 1e-11)):
        for component in range(3):
            x = mixture.means[component] + np.hypot(0.3, sigma) * rng.standard_normal(EVENT)
            mean, density, shares = call(mixture, jnp.asarray(x), sigma)
            expected = dense(mixture, x, sigma)
            np.testing.assert_allclose(mean, expected[0], rtol=0, atol=digits * np.abs(x).max())
            np.testing.assert_allclose(density, expected[1], rtol=max(digits, 1e-10))
            np.testing.assert_allclose(shares, expected[2], rtol=0, atol=1e-6)


def test_one_component_is_the_gaussian(x64):
    rng = np.random.default_rng(2)
    basis = np.linalg.qr(rng.standard_normal((D, 4)))[0]
    variances, mean = np.array([3.0, 1.0, 0.1, 1e-4]), rng.standard_normal(EVENT)
    gaussian = GaussianDenoiser(mean, basis, variances)
    single = MoLRGDenoiser(np.ones(1), mean[None], basis.reshape(1, *EVENT, 4), variances[None])
    x = jnp.asarray(rng.standard_normal(EVENT))
    for sigma in (0.0, *SIGMAS):
        np.testing.assert_allclose(CALL(single, x, sigma), CALL(gaussian, x, sigma), atol=1e-13)
    # With noise off the subspace: the Gaussian of full rank.
    full = GaussianDenoiser.from_moments(
        mean, covariance=(basis * variances) @ basis.T + 0.04 * (np.eye(D) - basis @ basis.T)
    )
    noisy = MoLRGDenoiser(np.ones(1), mean[None], basis.reshape(1, *EVENT, 4), variances[None], 0.2)
    for sigma in SIGMAS:
        np.testing.assert_allclose(CALL(noisy, x, sigma), CALL(full, x, sigma), atol=1e-12)


def test_a_mixture_given_a_class_is_that_component(x64):
    mixture, x = planted(0.2), np.random.default_rng(1).standard_normal(EVENT)
    given = jax.jit(lambda mixture, label, x: mixture.given(label)(x, 0.7))
    for label in range(3):
        covariance = covariances(mixture)[label]
        noisy, centred = covariance + 0.49 * np.eye(D), (x - mixture.means[label]).ravel()
        expected = mixture.means[label].ravel() + covariance @ np.linalg.solve(noisy, centred)
        found = given(mixture, label, jnp.asarray(x))
        np.testing.assert_allclose(found, expected.reshape(EVENT), rtol=1e-12, atol=1e-13)


def test_the_determinants_decide_between_variances(x64):
    # Two centred components that differ in variance alone: near the middle the narrow one is the likelier.
    basis = np.eye(4)[:, :2].reshape(1, 4, 2).repeat(2, 0)
    mixture = MoLRGDenoiser(np.full(2, 0.5), np.zeros((2, 4)), basis, np.array([[1.0, 1.0], [9.0, 9.0]]))
    shares = np.asarray(mixture.responsibilities(jnp.zeros(4), 0.01))
    np.testing.assert_allclose(shares[0] / shares[1], 9.0001 / 1.0001, rtol=1e-12)
    # Ranks that differ: on the common plane a line is likelier than the plane by sqrt((1 + s^2) / s^2).
    line = MoLRGDenoiser(np.full(2, 0.5), np.zeros((2, 4)), basis, np.array([[1.0, 0.0], [1.0, 1.0]]))
    shares = np.asarray(line.responsibilities(jnp.asarray([0.7, 0, 0, 0]), 0.01))
    np.testing.assert_allclose(shares[0] / shares[1], np.sqrt(1.0001 / 0.0001), rtol=1e-10)


def test_padding_of_any_content_changes_nothing(x64):
    mixture = planted(0.3)
    other = np.array(mixture.bases)
    other[2, ..., 2] = 7.0
    padded = MoLRGDenoiser(mixture.weights, mixture.means, other, mixture.variances, 0.3)
    x = jnp.asarray(mixture.means[2] + 0.1)
    np.testing.assert_array_equal(CALL(padded, x, 0.2), CALL(mixture, x, 0.2))
    zero = MoLRGDenoiser(np.array([0.5, 0.5, 0.0]), mixture.means, mixture.bases, mixture.variances)
    assert zero.responsibilities(x, 0.2)[2] == 0
    gradient = jax.jit(jax.grad(lambda m: m(x, 0.2).sum()))(jax.tree.map(jnp.asarray, zero))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_float32_at_the_smallest_noise_and_at_none():
    mixture = planted(spread=0.3)
    single = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), mixture)
    rng = np.random.default_rng(3)
    for component in range(3):
        kept = np.asarray(mixture.bases)[component].reshape(D, 3)[:, :2]
        clean = mixture.means[component] + (kept @ np.array([0.9, -0.4])).reshape(EVENT)
        x = clean + 0.002 * rng.standard_normal(EVENT)
        found, on_support = (
            np.asarray(CALL(single, np.float32(at), sigma)) for at, sigma in ((x, 0.002), (clean, 0.0))
        )
        assert np.abs(found - dense(mixture, x, 0.002)[0]).max() < 3e-6
        assert np.abs(on_support - clean).max() < 2e-6


@pytest.mark.parametrize("sigma", [0.0, *SIGMAS])
@pytest.mark.parametrize("block_size", [4, 7, 50])
def test_empirical_equals_the_sum_over_points(x64, strict_dtypes, sigma, block_size):
    rng = np.random.default_rng(4)
    data = rng.standard_normal((14, *EVENT))
    denoiser = EmpiricalDenoiser(data, block_size)
    x = data[5] + np.hypot(0.4, sigma) * rng.standard_normal(EVENT)
    exponents = -np.square(x - data).reshape(14, -1).sum(1) / (2 * max(sigma, 1e-9) ** 2)
    expected = np.tensordot(softmax(exponents), data, 1)
    out, density = BOTH(denoiser, jnp.asarray(x), sigma)
    np.testing.assert_allclose(out, expected, atol=1e-11)
    if sigma > 0:
        normalised = logsumexp(exponents) - np.log(14) - D / 2 * np.log(2 * np.pi * sigma**2)
        np.testing.assert_allclose(density, normalised, rtol=1e-11)


def test_two_points_are_a_hyperbolic_tangent(x64):
    a = 0.7
    pair = EmpiricalDenoiser(jnp.asarray([[a], [-a]]))
    x = jnp.linspace(-3, 3, 13)
    batch = jax.jit(jax.vmap(pair, in_axes=(0, None)))
    for sigma in (0.1, 0.5, 2.0):
        out = batch(x[:, None], sigma)[:, 0]
        np.testing.assert_allclose(out, a * np.tanh(a * x / sigma**2), atol=1e-14)
    slope = jax.jit(jax.jacfwd(lambda value: pair(value, 0.35)))(jnp.zeros(1))
    np.testing.assert_allclose(slope, [[a**2 / 0.35**2]], rtol=1e-12)


def test_near_duplicates_are_told_apart_in_float32():
    rng = np.random.default_rng(5)
    first = rng.uniform(-1, 1, (8, 8, 3)).astype(np.float32)
    second = first + np.float32(0.02)
    data = np.concatenate([rng.uniform(-1, 1, (300, 8, 8, 3)).astype(np.float32), first[None], second[None]])
    denoiser = EmpiricalDenoiser(jnp.asarray(data))
    x = second + 0.002 * rng.standard_normal(second.shape).astype(np.float32)
    np.testing.assert_array_equal(CALL(denoiser, jnp.asarray(x), 0.002), second)


def test_far_from_all_points_at_small_noise_it_is_the_nearest():
    """Exponents of 1e10: their rounding is larger than what ``exp`` takes, unless distances are subtracted first."""
    rng = np.random.default_rng(8)
    data = rng.uniform(-1, 1, (40, 196)).astype(np.float32)
    # Four at a time, with the level an argument: the program in which XLA fused the two.
    x = (40 * rng.standard_normal((4, 196))).astype(np.float32)
    program = jax.jit(jax.vmap(lambda m, x, sigma: m(x, sigma), in_axes=(None, 0, None)))
    found = program(EmpiricalDenoiser(data), x, jnp.float32(0.002))
    squares = ((x[:, None].astype(np.float64) - data) ** 2).sum(-1)
    order = np.sort(squares, axis=1)
    clear = order[:, 1] - order[:, 0] > 1e-6 * order[:, 0]
    assert np.isfinite(found).all() and clear.sum() > 2
    np.testing.assert_allclose(np.asarray(found)[clear], data[squares.argmin(axis=1)][clear], atol=1e-6)


def test_jacobians_are_covariances_and_both_obey_tweedie(x64):
    """sigma^2 J is the posterior covariance: symmetric, without negative eigenvalues; D = x + sigma^2 grad log p."""
    rng = np.random.default_rng(6)
    x = rng.standard_normal(EVENT)

    @jax.jit
    def measured(denoiser, x, sigma):
        score = jax.grad(denoiser.log_density)(x, sigma)
        return jax.jacfwd(denoiser)(x, sigma), denoiser(x, sigma) - x - sigma**2 * score

    for denoiser in (planted(0.1), EmpiricalDenoiser(rng.standard_normal((30, *EVENT)), 8)):
        for sigma in (0.3, 1.0, 8.0):
            jacobian, tweedie = measured(jax.tree.map(jnp.asarray, denoiser), jnp.asarray(x), sigma)
            jacobian = np.asarray(jacobian).reshape(D, D)
            largest = np.abs(jacobian).max()
            assert largest > 1e-3
            np.testing.assert_allclose(jacobian, jacobian.T, rtol=0, atol=1e-10 * largest)
            assert np.linalg.eigvalsh(jacobian)[0] > -1e-10 * largest
            np.testing.assert_allclose(tweedie, 0, atol=1e-10)


@pytest.mark.slow
def test_both_are_posterior_means(x64):
    mixture = jax.tree.map(jnp.asarray, planted(0.1))
    report = check_posterior_mean(
        mixture,
        EVENT,
        jax.random.key(0),
        dtype=jnp.float64,
        log_density=mixture.log_density,
        mean=np.tensordot(mixture.weights, mixture.means, 1),
        sample_prior=mixture.draw,
    )
    assert report.asymmetry < 1e-10 and report.tweedie < 1e-10
    points = EmpiricalDenoiser(jnp.asarray(np.random.default_rng(6).standard_normal((30, *EVENT))), 8)
    report = check_posterior_mean(
        points,
        EVENT,
        jax.random.key(1),
        dtype=jnp.float64,
        log_density=points.log_density,
        mean=points.data.mean(0),
        support=points.data,
        sample_prior=lambda key: points.data[jax.random.randint(key, (), 0, 30)],
    )
    # Far below the spacing of points the Jacobian vanishes, and its asymmetry is rounding over the check's floor.
    assert report.asymmetry < 1e-8 and report.tweedie < 1e-10


def test_draws_follow_the_mixture(x64):
    mixture = planted(0.2)
    n = 20_000
    draws = np.asarray(jax.jit(jax.vmap(mixture.draw))(jax.random.split(jax.random.key(2), n))).reshape(n, D)
    means = np.asarray(mixture.means).reshape(3, D)
    mean = mixture.weights @ means
    second = sum(w * (c + np.outer(m, m)) for w, c, m in zip(mixture.weights, covariances(mixture), means))
    covariance = second - np.outer(mean, mean)
    assert np.abs((draws.mean(0) - mean) / np.sqrt(np.diag(covariance) / n)).max() < 4
    found = np.cov(draws, rowvar=False)
    scale = np.sqrt((np.outer(np.diag(covariance), np.diag(covariance)) + covariance**2) / n)
    assert np.abs((found - covariance) / scale).max() < 4.5


def test_memory_is_that_of_a_block():
    data = jax.ShapeDtypeStruct((20_000, 512), jnp.float32)
    compiled = (
        jax.jit(lambda data, x: jax.vmap(lambda one: EmpiricalDenoiser(data)(one, 1.0))(x))
        .lower(data, jax.ShapeDtypeStruct((4, 512), jnp.float32))
        .compile()
    )
    # A block of 256 points takes 0.5 MB; the data 41 MB, a table of differences 164 MB.
    assert compiled.memory_analysis().temp_size_in_bytes < 4e6


def test_bad_input_is_named():
    mixture = planted()
    with pytest.raises(InputError, match=r"x.shape = \(12,\)"):
        mixture(jnp.zeros(D), 1.0)
    with pytest.raises(InputError, match=r"weights.shape = \(2,\): must be \(3,\)"):
        MoLRGDenoiser(np.ones(2), mixture.means, mixture.bases, mixture.variances)(jnp.zeros(EVENT), 1.0)
    with pytest.raises(InputError, match=r"variances.shape = \(3,\)"):
        MoLRGDenoiser(np.ones(3), mixture.means, mixture.bases, np.ones(3))(jnp.zeros(EVENT), 1.0)
    with pytest.raises(InputError, match=r"data.shape = \(0, 2\)"):
        EmpiricalDenoiser(jnp.zeros((0, 2)))(jnp.zeros(2), 1.0)
    with pytest.raises(InputError, match=r"x.shape = \(3,\)"):
        EmpiricalDenoiser(jnp.zeros((5, 2)))(jnp.zeros(3), 1.0)
    with pytest.raises(InputError, match="block_size = 0"):
        EmpiricalDenoiser(jnp.zeros((5, 2)), 0)(jnp.zeros(2), 1.0)


def test_a_mixture_of_gaussians_of_low_rank():
    rng = np.random.default_rng(0)
    gaussians = [
        GaussianDenoiser.fit(m + rng.normal(size=(40, *EVENT)) * np.geomspace(2, 0.2, D).reshape(EVENT)) for m in (0, 1)
    ]
    found = MoLRGDenoiser.from_gaussians(gaussians, 3)
    assert found.bases.shape == (2, *EVENT, 3) and found.weights.tolist() == [0.5, 0.5]
    left = np.mean([np.asarray(one.variances)[3:].sum() for one in gaussians])
    assert float(found.noise_std) ** 2 == pytest.approx(left / (D - 3), rel=1e-5)
    for number, one in enumerate(gaussians):
        np.testing.assert_array_equal(found.means[number], one.mean)
        np.testing.assert_array_equal(found.variances[number], one.variances[:3])
    # Far from the other's mean, at a rank that leaves nothing out, it is the Gaussian itself.
    whole, x = MoLRGDenoiser.from_gaussians(gaussians[:1], 99), jnp.asarray(rng.normal(size=EVENT), jnp.float32)
    np.testing.assert_allclose(CALL(whole, x, 0.7), CALL(gaussians[0], x, 0.7), atol=1e-5)
    with pytest.raises(InputError, match="rank = 0"):
        MoLRGDenoiser.from_gaussians(gaussians, 0)
    with pytest.raises(InputError, match="shapes of the means"):
        MoLRGDenoiser.from_gaussians([gaussians[0], GaussianDenoiser.fit(rng.normal(size=(9, 4)))], 2)
