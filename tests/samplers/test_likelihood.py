"""Log densities against closed forms, an independent integration by SciPy, and the conventions of bits per
dimension.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.special import logsumexp

from dgu.core.errors import InputError
from dgu.models import GaussianDenoiser
from dgu.samplers import bits_per_dim, dequantize, log_likelihood, log_likelihoods

LOW, HIGH = 0.002, 80.0


def gaussian(d, seed, dtype, largest=1.0, smallest=1e-4):
    """A Gaussian denoiser, one noisy draw from it, and its log density under the prior N(0, sigma_max^2 I) at
    sigma_max.

    Not the Gaussian's own density at sigma_min: that has the prior N(mean, covariance + sigma_max^2 I). The path of a
    mode is sqrt(lam + sigma^2), so the end of the path and the logarithm of the volume's change are exact.
    """
    rng = np.random.default_rng(seed)
    basis, mean = np.linalg.qr(rng.standard_normal((d, d)))[0], 0.3 * rng.standard_normal(d)
    variances = np.geomspace(largest, smallest, d)
    modes = np.sqrt(variances + LOW**2) * rng.standard_normal(d)
    stretch = np.sqrt((variances + HIGH**2) / (variances + LOW**2))
    end = mean + basis @ (stretch * modes)
    nats = -0.5 * end @ end / HIGH**2 - 0.5 * d * math.log(2 * math.pi * HIGH**2) + np.log(stretch).sum()
    denoiser = GaussianDenoiser(*(jnp.asarray(a, dtype) for a in (mean, basis, variances)))
    return denoiser, jnp.asarray(mean + basis @ modes, dtype), nats


@pytest.mark.parametrize(("d", "smallest"), [(16, 1e-4), (192, 1e-2), (192, 1e-6)])
def test_exact_trace_is_within_a_milli_nat_of_the_analytic_value(x64, d, smallest):
    denoiser, x, expected = gaussian(d, 0, jnp.float64, smallest=smallest)
    nats, error = log_likelihood(denoiser, x)
    assert nats.dtype == jnp.float64 and float(error) == 0.0
    assert abs(float(nats) - expected) < 2e-4
    # The tolerance is what limits it.
    rough, fine = (abs(float(log_likelihood(denoiser, x, rtol=t, atol=t)[0]) - expected) for t in (1e-2, 1e-9))
    assert fine < 1e-7 and rough > 100 * fine


@pytest.mark.parametrize("d", [pytest.param(16, marks=pytest.mark.slow), 192])
def test_float32_is_within_a_milli_nat_too(strict_dtypes, d):
    denoiser, x, expected = gaussian(d, 1, jnp.float32)
    nats, _ = log_likelihood(denoiser, x)
    assert nats.dtype == jnp.float32 and abs(float(nats) - expected) < 1e-3


def test_probes_estimate_the_trace_with_the_error_that_they_report(x64):
    """Of 40 examples that are the same, each with probes of its own: within 3 standard errors each but for chance, and
    z scores of unit size; beside another one, and as each alone.
    """
    denoiser, x, expected = gaussian(16, 2, jnp.float64)
    key, examples = jax.random.key(0), jnp.stack([x] * 40 + [2 * x])
    many = [np.asarray(a) for a in log_likelihoods(denoiser, examples, key, probes=16)]
    for i in (3, 40):
        alone = log_likelihood(denoiser, examples[i], key=jax.random.fold_in(key, i), probes=16)
        np.testing.assert_allclose((many[0][i], many[1][i]), alone, rtol=1e-8)
    nats, errors = (a[:40] for a in many)
    assert len(np.unique(nats)) == 40 and abs(many[0][40] - expected) > 10
    scores = (nats - expected) / errors
    assert (errors > 0.1).all() and (np.abs(scores) < 3).sum() >= 38 and np.abs(scores).max() < 5
    assert 0.75 < np.sqrt(np.mean(scores**2)) < 1.35
    assert abs(nats.mean() - expected) < 4 * nats.std() / math.sqrt(40)
    with pytest.raises(InputError, match="probes = 1: must be a whole number, 2 or more"):
        log_likelihoods(denoiser, examples, key, probes=1)


def test_blocks_do_not_matter(x64):
    denoiser, x, _ = gaussian(16, 3, jnp.float64)
    whole = log_likelihood(denoiser, x)[0]
    np.testing.assert_allclose(log_likelihood(denoiser, x, block_size=5)[0], whole, rtol=1e-12)
    probed = [log_likelihood(denoiser, x, key=jax.random.key(0), probes=16, block_size=b) for b in (7, 64)]
    np.testing.assert_allclose(*probed, rtol=1e-12)


def test_a_mixture_agrees_with_scipy_and_with_its_density(x64, mixtures):
    """SciPy integrates in sigma, with the divergence by central differences of a NumPy loop. The mixture's own density
    is met where the prior, which has the data's mean and spread nowhere, is wide enough for that not to matter."""
    make, in_numpy = mixtures
    mixture, d = make(4, jnp.float64), 4
    logits, means, variances = (np.asarray(leaf) for leaf in jax.tree.leaves(mixture))
    rng = np.random.default_rng(3)
    points = np.stack([means[0] + 0.1, means[1:].mean(0), rng.standard_normal(d)])
    batch = jax.jit(jax.vmap(lambda m, x, high: log_likelihood(m, x, sigma_max=high), in_axes=(None, 0, None)))
    nats = np.asarray(batch(mixture, jnp.asarray(points), HIGH)[0])

    def slopes(sigma, state):
        x, h = state[:d], 1e-4 * max(1.0, sigma)
        trace = sum(
            (in_numpy(mixture, x + h * e, sigma)[j] - in_numpy(mixture, x - h * e, sigma)[j]) / (2 * h)
            for j, e in enumerate(np.eye(d))
        )
        return np.append(x - in_numpy(mixture, x, sigma), d - trace) / sigma

    end = solve_ivp(slopes, (LOW, HIGH), np.append(points[1], 0.0), method="RK45", rtol=1e-6, atol=1e-6).y[:, -1]
    expected = -0.5 * end[:d] @ end[:d] / HIGH**2 - 0.5 * d * math.log(2 * math.pi * HIGH**2) + end[d]
    assert abs(nats[1] - expected) < 2e-4

    wide = np.asarray(batch(mixture, jnp.asarray(points), 100 * HIGH)[0])
    for x, value in zip(points, wide):
        total = variances + LOW**2
        weights = logits - logsumexp(logits)
        log_density = weights - 0.5 * d * np.log(2 * math.pi * total) - 0.5 * ((x - means) ** 2).sum(1) / total
        assert abs(value - logsumexp(log_density)) < 1e-3


def test_each_example_takes_its_own_steps(x64):
    """A batch of easy and hard examples gives each what it gets alone, though the tolerance is rough."""
    denoiser, x, _ = gaussian(16, 4, jnp.float64)
    batch = jnp.stack([x, 30 * x, 0 * x, -x])
    options = {"rtol": 1e-2, "atol": 1e-2}
    together = jax.jit(jax.vmap(lambda d, x: log_likelihood(d, x, **options), in_axes=(None, 0)))(denoiser, batch)[0]
    alone = [log_likelihood(denoiser, one, **options)[0] for one in batch]
    np.testing.assert_allclose(together, alone, rtol=1e-9)


def test_gradients_are_the_score(x64):
    """By the example it is the score of the density; by the denoiser it equals finite differences."""
    denoiser, x, _ = gaussian(16, 5, jnp.float64, smallest=1e-2)
    score, slope = jax.jit(jax.grad(lambda x, d: log_likelihood(d, x, rtol=1e-7, atol=1e-7)[0], argnums=(0, 1)))(
        x, denoiser
    )
    basis, mean, variances = (np.asarray(a) for a in (denoiser.basis, denoiser.mean, denoiser.variances))
    stretch = (variances + HIGH**2) / (variances + LOW**2) / HIGH**2
    modes = basis.T @ (np.asarray(x) - mean)
    # The prior is centred at 0, not at the mean.
    expected = -basis @ (stretch * modes + np.sqrt(stretch) / HIGH * (basis.T @ mean))
    np.testing.assert_allclose(score, expected, atol=1e-5 * np.abs(expected).max())
    low = GaussianDenoiser(denoiser.mean, denoiser.basis, denoiser.variances * (1 - 1e-4))
    high = GaussianDenoiser(denoiser.mean, denoiser.basis, denoiser.variances * (1 + 1e-4))
    ends = [log_likelihood(d, x, rtol=1e-9, atol=1e-9)[0] for d in (low, high)]
    np.testing.assert_allclose(jnp.vdot(slope.variances, denoiser.variances), (ends[1] - ends[0]) / 2e-4, rtol=1e-4)


def test_what_is_not_finite_is_nan_not_a_number_to_average():
    def broken(x, sigma):
        return jnp.where(sigma > 1.0, jnp.nan, 0.5 * x)

    nats, error = log_likelihood(broken, jnp.ones(3))
    assert np.isnan(nats) and np.isnan(error)


def test_lowers_for_every_platform():
    denoiser, x, _ = gaussian(8, 6, jnp.float32)
    for options in ({}, {"probes": 2}):
        program = jax.jit(lambda d, x, k, o=options: log_likelihood(d, x, key=k if o else None, **o))
        exported = jax.export.export(program, platforms=["cpu", "cuda", "tpu"])(denoiser, x, jax.random.key(0))
        assert exported.platforms == ("cpu", "cuda", "tpu")


# Bits per dimension
# ----------------------------------------------------------------------------------------------------


def test_bits_of_a_uniform_density_over_the_levels_are_eight():
    """256 cells of equal width: the uniform density on all of them codes a pixel in exactly 8 bits."""
    shape = (5, 5, 3)
    nats = -math.prod(shape) * math.log(256 * 2 / 255)
    assert abs(bits_per_dim(nats, shape) - 8) < 1e-12
    np.testing.assert_allclose(bits_per_dim(np.array([nats, 0.0]), shape), [8, math.log2(127.5)])
    assert abs(bits_per_dim(-3 * math.log(2 * 2), (3,), levels=2) - 1) < 1e-12


def test_dequantised_bits_bound_those_of_the_levels():
    """A Gaussian pixel: the mean over shifts of -log2(density x width) is above -log2 P(level) and, for a smooth
    density, close to it."""
    scale, width = 0.3, 2 / 255
    pixels = np.arange(256, dtype=np.uint8)[96:160]
    shifted = np.stack([np.asarray(dequantize(pixels, jax.random.key(i)), np.float64) for i in range(400)])
    bits = bits_per_dim(-0.5 * (shifted / scale) ** 2 - 0.5 * math.log(2 * math.pi * scale**2), (1,)).mean(0)
    edges = (np.arange(257) - 0.5) * width - 1
    cumulative = np.array([0.5 * (1 + math.erf(e / scale / math.sqrt(2))) for e in edges])
    levels = -np.log2(np.diff(cumulative))[96:160]
    assert np.abs(bits - levels).max() < 5e-3
    assert (bits - levels).mean() > -5e-4


def test_dequantisation_is_uniform_in_the_cell_of_its_level():
    images = np.tile(np.array([0, 7, 255], np.uint8), (4000, 1))
    key = jax.random.key(0)
    places = (np.asarray(dequantize(images, key), np.float64) + 1) * 127.5 - images
    assert -0.5 <= places.min() < -0.499 and 0.499 < places.max() <= 0.5 + 1e-4
    for column in places.T:
        assert abs(column.mean()) < 4 / math.sqrt(12 * 4000) and abs(column.var() * 12 - 1) < 0.1
    floats = images.astype(np.float32) / 127.5 - 1
    np.testing.assert_allclose(dequantize(floats, key), dequantize(images, key), atol=1e-6)
    binary = np.asarray(dequantize(np.array([0, 1]), key, levels=2))
    assert -2 <= binary[0] < 0 <= binary[1] < 2


def test_bad_input_is_named():
    x, key = jnp.ones(4), jax.random.key(0)
    denoiser = jax.tree_util.Partial(lambda x, sigma: 0.5 * x)
    for said, call in [
        ("probes = None: must be given together with key", lambda: log_likelihood(denoiser, x, key=key)),
        ("probes = 4: must be given together with key", lambda: log_likelihood(denoiser, x, probes=4)),
        ("probes = 1: must be a whole number, 2", lambda: log_likelihood(denoiser, x, key=key, probes=1)),
        ("sigma_min = 0.0: must be positive", lambda: log_likelihood(denoiser, x, sigma_min=0.0)),
        ("sigma_min = 3.0.*sigma_max = 2", lambda: log_likelihood(denoiser, x, sigma_min=3.0, sigma_max=2)),
        ("rtol = -1.0", lambda: log_likelihood(denoiser, x, rtol=-1.0)),
        ("block_size = 0", lambda: log_likelihood(denoiser, x, block_size=0)),
        ("images = .*from -1 to 1", lambda: dequantize(np.array([0.0, 2.0]), key)),
        ("images = .*from 0 to 1", lambda: dequantize(np.array([0, 2]), key, levels=2)),
        ("levels = 1", lambda: dequantize(np.array([0]), key, levels=1)),
        ("levels = 1", lambda: bits_per_dim(0.0, (3,), levels=1)),
        ("shape = ", lambda: bits_per_dim(0.0, (3, 0))),
    ]:
        with pytest.raises(InputError, match=said):
            call()


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    x = jnp.array([0.5, -0.25], dtype)  # Exact in both.
    denoiser = GaussianDenoiser.from_moments(np.zeros(2, np.float32), np.diag([1.0, 0.5]).astype(np.float32))
    loose = {"rtol": 1e-2, "atol": 1e-2}
    found, error = log_likelihood(denoiser, x, **loose)
    assert found.dtype == error.dtype == jnp.float32
    np.testing.assert_array_equal(found, log_likelihood(denoiser, x.astype(jnp.float32), **loose)[0])
