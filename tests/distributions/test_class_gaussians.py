"""The Gaussian mixture: its law against closed forms, its addresses, its cost."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.core.errors import InputError
from dgu.core.keys import stream
from dgu.distributions import class_gaussians as mixture
from dgu.distributions.class_gaussians import (
    GaussianMixtureSampler,
    class_key,
    draw_gaussian,
    draw_gaussians,
    fit_gaussian,
    fit_gaussians,
)

EVENT = (3, 4, 2)
D = 24
FEW, MANY = 9, 60  # fewer and more images than pixels
DRAWS = 4096


def images(n, seed=0, constant_pixel=True):
    """Correlated, non-Gaussian images with a power-law spectrum, a mean, and a pixel that never changes."""
    rng = np.random.default_rng(seed)
    mix = np.linalg.qr(rng.normal(size=(D, D)))[0] * np.arange(1, D + 1) ** -0.7
    rows = rng.exponential(size=(n, D)) @ mix.T + rng.normal(size=D)
    if constant_pixel:
        rows[:, 5] = -1.0
    return rows.reshape(n, *EVENT).astype(np.float32)


def moments_of(data):
    rows = data.reshape(len(data), -1).astype(np.float64)
    return rows.mean(0), np.cov(rows.T)


@pytest.fixture(scope="module")
def sampler():
    """Three classes under odd labels: few images, many images, and few again (the very same images as the first)."""
    few, many = images(FEW), images(MANY, seed=1)
    data = np.concatenate([few, many, few])
    labels = np.repeat([-4, 0, 1000], [FEW, MANY, FEW])
    # Interleaved, each class in its own order, which is the order of its root's rows.
    order = np.argsort(np.concatenate([np.arange(FEW), np.arange(MANY), np.arange(FEW)]), kind="stable")
    return GaussianMixtureSampler.fit(data[order], labels[order])


@pytest.fixture(scope="module")
def draws(sampler):
    key = jax.random.key(11)
    return {label: np.asarray(sampler.sample(key, label, range(DRAWS))) for label in sampler.classes}


@pytest.mark.parametrize("n", [FEW, MANY, D - 1, D])
def test_root_is_a_root_of_numpy_cov(x64, strict_dtypes, n):
    data = images(n).astype(np.float64)
    mean, covariance = moments_of(data)
    gaussian = fit_gaussian(jnp.asarray(data.reshape(n, D)))
    assert gaussian.root.shape == ((n, D) if n < D else (D, D))
    np.testing.assert_allclose(gaussian.mean, mean, atol=1e-13)
    np.testing.assert_allclose(gaussian.root.T @ gaussian.root, covariance, atol=1e-12)


@pytest.mark.parametrize(("n", "d"), [(60, 24), (300, 196)])
def test_directions_without_variance_stay_without(n, d):
    """In float32, a constant pixel and the difference of two equal pixels: no root of an eigenvalue of rounding
    size.
    """
    rng = np.random.default_rng(n)
    rows = (rng.normal(size=(n, d)) @ np.linalg.qr(rng.normal(size=(d, d)))[0] / np.arange(1, d + 1)).astype(np.float32)
    rows[:, 5], rows[:, 7] = -1.0, rows[:, 8]
    covariance = np.cov(rows.T.astype(np.float64))
    values, vectors = np.linalg.eigh(covariance)
    right = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    root = np.asarray(fit_gaussian(jnp.asarray(rows)).root, np.float64)
    scale = np.sqrt(values[-1])
    assert np.abs(root - right).max() < 3e-6 * scale
    assert np.abs(root[:, 5]).max() < 1e-6 * scale and np.abs(root[:, 7] - root[:, 8]).max() < 1e-6 * scale


@pytest.mark.parametrize(("label", "n", "seed"), [(-4, FEW, 0), (0, MANY, 1)])
def test_samples_have_the_fitted_moments(draws, label, n, seed):
    """z-scores of every mean and covariance entry against their exact sampling error."""
    mean, covariance = moments_of(images(n, seed))
    sampled = draws[label].reshape(DRAWS, D).astype(np.float64)
    free = np.arange(D) != 5
    np.testing.assert_allclose(sampled[:, 5], -1.0, atol=1e-5)
    variance = np.diag(covariance)
    z_mean = ((sampled.mean(0) - mean) / np.sqrt(variance / DRAWS + 1e-30))[free]
    # Known-mean second moment: entry (i, j) has variance (S_ii S_jj + S_ij^2) / m for a Gaussian.
    second = (sampled - mean).T @ (sampled - mean) / DRAWS
    spread = np.sqrt((np.outer(variance, variance) + covariance**2) / DRAWS + 1e-30)
    z_second = ((second - covariance) / spread)[np.ix_(free, free)]
    assert np.abs(z_mean).max() < 4.5 and np.abs(z_second).max() < 4.5
    assert 0.5 < np.sqrt(np.mean(z_mean**2)) < 1.6 and 0.7 < np.sqrt(np.mean(z_second**2)) < 1.3


def test_samples_are_gaussian_where_the_images_are_not(draws):
    """Excess kurtosis of every projection is 0 +- 4.5 sqrt(24 / m); that of the exponential images is not."""
    for label, data in [(-4, images(FEW)), (0, images(MANY, seed=1))]:
        _, vectors = np.linalg.eigh(moments_of(data)[1])
        top = (draws[label].reshape(DRAWS, D) @ vectors)[:, -8:]
        standard = (top - top.mean(0)) / top.std(0)
        assert np.abs(np.mean(standard**4, axis=0) - 3).max() < 4.5 * np.sqrt(24 / DRAWS)


def test_samples_stay_in_the_affine_hull_of_few_images(draws):
    centred = images(FEW).reshape(FEW, D) - images(FEW).reshape(FEW, D).mean(0)
    null = np.linalg.svd(centred)[2][FEW - 1 :]
    outside = (draws[-4].reshape(DRAWS, D) - images(FEW).reshape(FEW, D).mean(0)) @ null.T
    assert np.abs(outside).max() < 1e-5


def test_classes_calls_and_arms_are_independent(sampler, draws):
    """Classes -4 and 1000 hold the same images, so shared noise would make sample i of both equal."""
    np.testing.assert_array_equal(sampler.gaussian(-4).root, sampler.gaussian(1000).root)
    free = np.arange(D) != 5
    here = draws[-4].reshape(DRAWS, D)[:, free]
    key = jax.random.key(11)
    others = [
        draws[1000],
        sampler.sample(stream(key, "null"), -4, range(DRAWS)),
        sampler.sample(key, -4, range(DRAWS, 2 * DRAWS)),
    ]
    for other in others:
        other = np.asarray(other).reshape(DRAWS, D)[:, free]
        correlation = np.corrcoef(here.T, other.T)[: D - 1, D - 1 :]
        assert np.abs(np.diag(correlation)).max() < 4 / np.sqrt(DRAWS)
    # Neighbouring samples of one class, too.
    lagged = np.corrcoef(here[:-1].T, here[1:].T)[: D - 1, D - 1 :]
    assert np.abs(np.diag(lagged)).max() < 4 / np.sqrt(DRAWS)


def test_no_duplicates(sampler, draws):
    more = np.asarray(sampler.sample(jax.random.key(11), -4, range(DRAWS, DRAWS + 512)))
    everything = np.concatenate([*draws.values(), more]).reshape(-1, D)
    assert len(np.unique(everything, axis=0)) == len(everything)


@pytest.mark.parametrize("label", [-4, 0])
def test_a_sample_depends_on_its_address_alone(sampler, draws, label):
    key = jax.random.key(11)
    indices = np.random.default_rng(2).permutation(700)[:90]
    subset = sampler.sample(key, label, indices)
    assert subset.shape == (90, *EVENT) and subset.dtype == jnp.float32
    np.testing.assert_array_equal(subset, draws[label][indices])
    np.testing.assert_array_equal(sampler.sample(key, np.int64(label), [255, 256, 255]), draws[label][[255, 256, 255]])
    scale = np.abs(draws[label]).max()
    for batch_size in (1, 64):
        other = sampler.sample(key, label, indices[:20], batch_size=batch_size)
        np.testing.assert_allclose(other, draws[label][indices[:20]], rtol=0, atol=1e-6 * scale)
    assert sampler.sample(key, label, []).shape == (0, *EVENT)


@pytest.mark.parametrize(("label", "n", "seed"), [(-4, FEW, 0), (0, MANY, 1)])
def test_a_class_is_fitted_as_if_alone(sampler, draws, label, n, seed):
    alone = GaussianMixtureSampler.fit(images(n, seed), np.full(n, label))
    np.testing.assert_array_equal(alone.gaussian(label).mean, sampler.gaussian(label).mean)
    np.testing.assert_array_equal(alone.sample(jax.random.key(11), label, range(8)), draws[label][:8])


def test_one_compilation_whatever_is_asked_for():
    data, labels = images(40, seed=3), np.repeat([0, 1, 2, 3], 10)
    before = mixture._draw_chunk._cache_size()
    first = GaussianMixtureSampler.fit(data, labels)
    fits = mixture._fit._cache_size()
    for number, label in enumerate([0, 1, 2, 3]):
        first.sample(jax.random.key(number), label, range(number, 50 * number + 7), batch_size=32)
    GaussianMixtureSampler.fit(data[::-1], labels)
    # A program for the device on which each class lies, whatever is asked for.
    assert before < mixture._draw_chunk._cache_size() <= before + 1 + jax.local_device_count()
    assert mixture._fit._cache_size() == fits


@pytest.mark.parametrize(("labels", "n"), [((-4, 1000), FEW), ((0,), MANY)])
def test_replicates_and_classes_in_one_call(sampler, labels, n):
    """Null refits: fit to n samples, 64 replicates of each class at once; a sample covariance is unbiased, so the mean
    trace is the truth's, and the traces' spread is sqrt(2 |S|^2 / (n - 1))."""
    key = jax.random.key(5)
    truth = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[sampler.gaussian(label) for label in labels])
    keys = jnp.stack([jnp.stack([class_key(stream(key, "null", r), c) for r in range(64)]) for c in labels])

    @jax.jit
    def null(truth, keys):
        over_replicates = jax.vmap(draw_gaussian, in_axes=(None, 0, None))
        rows = jax.vmap(over_replicates, in_axes=(0, 0, None))(truth, keys, jnp.arange(n))
        return rows, jax.vmap(jax.vmap(fit_gaussian))(rows)

    rows, refit = null(truth, keys)
    one = sampler.sample(stream(key, "null", 7), labels[-1], range(n))
    np.testing.assert_allclose(rows[-1, 7].reshape(n, *EVENT), one, atol=1e-5)
    again = GaussianMixtureSampler.fit(np.asarray(one), np.zeros(n, int)).gaussian(0).root
    here = refit.root[-1, 7]
    np.testing.assert_allclose(here.T @ here, again.T @ again, atol=1e-5 * float(jnp.max(again.T @ again)))
    for root, replicates in zip(np.asarray(truth.root, np.float64), np.asarray(refit.root, np.float64)):
        traces = np.sum(replicates**2, axis=(1, 2))
        expected_spread = np.sqrt(2 * np.sum((root.T @ root) ** 2) / (n - 1))
        assert abs(traces.mean() - np.sum(root**2)) < 4 * expected_spread / 8
        assert 0.65 < traces.std(ddof=1) / expected_spread < 1.35
    if n == FEW:
        assert np.linalg.matrix_rank(np.asarray(refit.root[0, 0]), tol=1e-4) == FEW - 1


def test_all_classes_at_once_are_those_of_each_alone():
    rows = np.random.default_rng(7).normal(size=(3, 9, 4)).astype(np.float32)
    key = jax.random.key(2)
    found = draw_gaussians(fit_gaussians(rows), key, 5)
    for label in range(3):
        expected = draw_gaussian(fit_gaussian(jnp.asarray(rows[label])), class_key(key, label), np.arange(5))
        np.testing.assert_allclose(found[label], expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match="count = 0"):
        draw_gaussians(fit_gaussians(rows), key, 0)


def test_integer_images_and_any_event_shape():
    pixels = np.random.default_rng(0).integers(0, 256, size=(30, 4)).astype(np.uint8)
    fitted = GaussianMixtureSampler.fit(pixels, np.zeros(30, np.int32))
    root = np.asarray(fitted.gaussian(0).root)
    np.testing.assert_allclose(root.T @ root, np.cov(pixels.T), rtol=1e-3, atol=1.0)
    assert fitted.sample(jax.random.key(0), 0, np.arange(3)).shape == (3, 4)


def test_bad_input_is_named(sampler):
    key = jax.random.key(0)
    with pytest.raises(InputError, match=r"label = 3: must be one of the fitted classes \[-4, 0, 1000\]"):
        sampler.sample(key, 3, [0])
    with pytest.raises(InputError, match=r"indices = \(-1, 4\): must be from 0"):
        sampler.sample(key, 0, [4, -1])
    with pytest.raises(InputError, match="indices"):
        sampler.sample(key, 0, [[1, 2]])
    with pytest.raises(InputError, match="batch_size = 0"):
        sampler.sample(key, 0, [1], batch_size=0)
    with pytest.raises(InputError, match="images of class 7 = 1: must be at least 2"):
        GaussianMixtureSampler.fit(images(4), np.array([0, 0, 0, 7]))
    with pytest.raises(InputError, match=r"labels\.shape = \(3,\): must be \(4,\), one label per image"):
        GaussianMixtureSampler.fit(images(4), [0, 0, 0])
    with pytest.raises(InputError, match=r"labels\.dtype = 'float64'"):
        GaussianMixtureSampler.fit(images(4), np.array([0.0, 0.5, 1.0, 1.0]))
    with pytest.raises(InputError, match=r"images\.shape"):
        GaussianMixtureSampler.fit(images(4)[:0], np.zeros(0, int))
    bad = images(6)
    bad[3, 0, 0, 0] = np.nan
    with pytest.raises(InputError, match="images of class 1 = 'non-finite': must be finite"):
        GaussianMixtureSampler.fit(bad, np.array([0, 0, 0, 1, 1, 1]))


@pytest.mark.parametrize("n", [FEW, MANY])
def test_lowers_for_accelerators(n):
    rows = jax.ShapeDtypeStruct((n, D), jnp.float32)
    gaussian = jax.eval_shape(fit_gaussian, rows)
    key = jax.eval_shape(lambda: jax.random.key(0))
    indices = jax.ShapeDtypeStruct((8,), jnp.uint32)
    for function, arguments in [(mixture._fit, (rows,)), (mixture._draw_chunk, (gaussian, key, indices))]:
        exported = jax.export.export(function, platforms=["cuda", "tpu"])(*arguments)
        assert set(exported.platforms) == {"cuda", "tpu"}


SCALE_CHECK = """
import resource, time
import numpy as np
import jax
from dgu.analysis import GaussianMixtureSampler

n, d, m = 10240, 12288, 1024
rng = np.random.default_rng(0)
data = np.empty((n, d), np.float32)
for start in range(0, n, 1024):
    data[start : start + 1024] = 0.5 + 0.3 * rng.standard_normal((1024, d), dtype=np.float32)
start = time.perf_counter()
sampler = GaussianMixtureSampler.fit(data.reshape(n, 64, 64, 3), np.zeros(n, np.int32))
out = np.asarray(sampler.sample(jax.random.key(0), 0, range(m)))
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print("seconds", seconds, "peak", peak, "variance", out.var(axis=0).mean(), "mean", out.mean())
assert out.shape == (m, 64, 64, 3)
assert abs(out.var(axis=0).mean() / 0.09 - 1) < 0.01 and abs(out.mean() - 0.5) < 1e-3
assert seconds < 60 and peak < 3e9
"""


@pytest.mark.slow
def test_time_and_memory_at_full_size():
    """1,024 samples of a class from 10,240 images of 12,288 pixels: under 60 s and 3 GB, data included."""
    done = subprocess.run([sys.executable, "-c", SCALE_CHECK], capture_output=True, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
