"""Spectra against NumPy, random-matrix theory and planted laws."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.analysis.moments.power_laws import _simulate, planted_exponents, power_law_fit, power_law_range
from dgu.analysis.moments.principal import principal_images
from dgu.analysis.moments.spectra import (
    PowerLaw,
    class_spectra,
    covariance_spectrum,
    gram_covariance_difference,
    gram_spectrum,
    marchenko_pastur_density,
    marchenko_pastur_edges,
    marchenko_pastur_quantiles,
    power_law,
    spectrum_ratio,
    squared_singular_values,
    white_eigenvalues,
)
from dgu.core.errors import InputError
from dgu.core.keys import stream
from dgu.distributions.class_gaussians import GaussianMixtureSampler

EVENT = (4, 3, 2)
D = 24


def images(n, seed=0, exponent=1.0):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, D)) * np.arange(1, D + 1) ** (-exponent / 2)
    return (rows @ np.linalg.qr(rng.normal(size=(D, D)))[0] + 0.5).reshape(n, *EVENT)


@pytest.mark.parametrize("method", ["svd", "eigh"])
@pytest.mark.parametrize("n", [10, 24, 70])
def test_covariance_and_centred_gram_share_their_eigenvalues(x64, n, method):
    rows = images(n).reshape(n, D)
    found = covariance_spectrum(images(n), method=method)
    rank = min(n - 1, D)
    assert found.shape == (rank,) and found.dtype == np.float64 and np.all(np.diff(found) <= 0)
    np.testing.assert_allclose(found, np.linalg.eigvalsh(np.cov(rows.T))[::-1][:rank], rtol=1e-8)
    centred = rows - rows.mean(0)
    np.testing.assert_allclose(found * (n - 1), np.linalg.eigvalsh(centred @ centred.T)[::-1][:rank], rtol=1e-8)
    biased = covariance_spectrum(images(n), method=method, ddof=0)
    np.testing.assert_allclose(biased * n, found * (n - 1), rtol=1e-12)


def test_single_precision_keeps_small_eigenvalues_by_svd_only():
    """Eigenvalues down to 1e-10 of the largest, from float32 images on a mean of 0.5."""
    data = images(70, exponent=7.0).astype(np.float32)
    truth = np.linalg.eigvalsh(np.cov(data.reshape(70, D).T.astype(np.float64)))[::-1]
    assert truth[-1] < 1e-9 * truth[0]
    np.testing.assert_allclose(covariance_spectrum(data), truth, rtol=0.02)
    assert np.abs(covariance_spectrum(data, method="eigh") / truth - 1).max() > 0.5
    exact = covariance_spectrum(data, method="eigh", dtype="float64")
    assert exact.dtype == np.float64 and not jax.config.jax_enable_x64
    np.testing.assert_allclose(exact, truth, rtol=1e-5)
    assert jnp.ones(2).dtype == jnp.float32


def test_class_spectra_are_each_class_alone(x64):
    data, labels = images(60), np.random.default_rng(1).permutation(np.repeat([3, -1, 8], [12, 18, 30]))
    found = class_spectra(data, labels)
    assert list(found) == [-1, 3, 8] and [len(found[c]) for c in found] == [17, 11, 24]
    for label, spectrum in found.items():
        reference = np.linalg.eigvalsh(np.cov(data[labels == label].reshape(-1, D).T))[::-1][: len(spectrum)]
        np.testing.assert_allclose(spectrum, reference, rtol=1e-9)


@pytest.mark.parametrize("method", ["svd", "eigh"])
def test_gram_spectrum_of_the_balanced_mixture(x64, method):
    """Uncentred rows, the first 5 images of each class, in whatever order the classes come."""
    data, labels = images(60), np.random.default_rng(1).permutation(np.repeat([3, -1, 8], 20))
    rows = np.concatenate([data[labels == c][:5] for c in (8, 3, -1)]).reshape(15, D)
    found = gram_spectrum(data, labels, 5, method=method)
    np.testing.assert_allclose(found, np.linalg.eigvalsh(rows @ rows.T)[::-1], rtol=1e-9)
    assert gram_spectrum(data, labels, 20, method=method).shape == (D,)
    np.testing.assert_allclose(found.sum(), np.sum(rows**2), rtol=1e-12)


@pytest.mark.parametrize(("n", "d"), [(600, 300), (300, 600)])
def test_white_images_fill_the_marchenko_pastur_support(n, d):
    """The extreme eigenvalues sit at the edges, within fluctuations of order n^(-2/3) (Tracy and Widom)."""
    white = np.random.default_rng(3).normal(scale=2.0, size=(n, d)).astype(np.float32)
    spectrum = covariance_spectrum(white, method="eigh", dtype="float64")
    low, high = marchenko_pastur_edges(n, d, variance=4.0)
    scale = 4.0 * max(1.0, d / n)
    assert abs(spectrum[0] - high) < 0.06 * scale and abs(spectrum[-1] - low) < 0.03 * scale
    assert high == pytest.approx(4 * (1 + np.sqrt(d / n)) ** 2, rel=1e-12)
    # Its median, from the density sqrt((high - x)(x - low)) / x on the support.
    x = np.linspace(low, high, 20001)[1:-1]
    mass = np.cumsum(np.sqrt((high - x) * (x - low)) / x)
    assert np.median(spectrum) == pytest.approx(x[np.searchsorted(mass, mass[-1] / 2)], rel=0.03)


def test_planted_exponents():
    ranks = np.arange(1, 3001)
    exact = power_law(1054 * ranks**-1.51, 100, 2000)
    assert isinstance(exact, PowerLaw) and exact.residual < 1e-12
    assert exact.exponent == pytest.approx(1.51, abs=1e-12) and exact.prefactor == pytest.approx(1054, rel=1e-10)
    # Only the ranks asked for count.
    bent = np.where(ranks < 100, 1.0, 1054 * ranks**-1.51)
    assert power_law(bent, 100, 2000).exponent == pytest.approx(1.51, abs=1e-12)
    assert abs(power_law(bent, 1, 2000).exponent - 1.51) > 0.01
    padded = np.concatenate([exact.prefactor * ranks[:50] ** -0.7, np.zeros(20)])
    assert power_law(padded).exponent == pytest.approx(0.7, abs=1e-10)
    sampled = covariance_spectrum(images(3000, exponent=1.3).astype(np.float32))
    assert power_law(sampled, 1, 20).exponent == pytest.approx(1.3, abs=0.06)


def test_spectrum_ratio_by_rank():
    reference = 2.0 ** -np.arange(11)
    ratio = np.linspace(1.0, 0.5, 11)
    found = spectrum_ratio(ratio * reference, reference, quantiles=(0, 0.5, 1))
    np.testing.assert_allclose(found.ratios, [1.0, 0.75, 0.5])
    assert found.median == pytest.approx(0.75) and found.ranks == 11
    assert found.log_distance == pytest.approx(np.sqrt(np.mean(np.log(ratio) ** 2)))
    assert spectrum_ratio(reference, reference).log_distance == 0
    zeros = np.concatenate([reference, [1e-15, 0.0]])
    assert spectrum_ratio(zeros, 3 * zeros).ranks == 11
    assert spectrum_ratio(zeros, 3 * zeros).ratios[-1] == pytest.approx(1 / 3)


def test_a_finite_fit_alone_lowers_the_small_eigenvalues():
    """The null: data exactly Gaussian, mixture fitted to fewer images than pixels, Gram spectra of both."""
    rng = np.random.default_rng(5)
    d, n_fit, rows = 96, 80, 72
    scales = np.arange(1, d + 1) ** -0.5
    truth = (rng.normal(size=(n_fit + rows, d)) * scales).astype(np.float32)
    sampler = GaussianMixtureSampler.fit(truth[:n_fit], np.zeros(n_fit, int))
    mixture = sampler.sample(jax.random.key(0), 0, range(rows))
    zeros = np.zeros(rows, int)
    spectra = [gram_spectrum(x, zeros, rows, dtype="float64", method="eigh") for x in (mixture, truth[n_fit:])]
    ratio = spectrum_ratio(*spectra)
    assert 0.8 < ratio.ratios[1] < 1.2
    assert ratio.ratios[-1] < ratio.ratios[1] - 0.2


def test_bad_input_is_named():
    data, labels = images(6).astype(np.float32), np.array([0, 0, 0, 0, 1, 1])
    with pytest.raises(InputError, match="per_class = 3: must be at most 2, the size of class 1"):
        gram_spectrum(data, labels, 3)
    with pytest.raises(InputError, match="per_class = 0"):
        gram_spectrum(data, labels, 0)
    with pytest.raises(InputError, match=r"labels\.shape"):
        class_spectra(data, labels[:4])
    with pytest.raises(InputError, match=r"images\.shape"):
        covariance_spectrum(data[:1])
    with pytest.raises(InputError, match="method = 'qr'"):
        covariance_spectrum(data, method="qr")
    with pytest.raises(InputError, match="dtype = 'int8'"):
        covariance_spectrum(data, dtype="int8")
    with pytest.raises(InputError, match="images = 'non-finite'"):
        covariance_spectrum(np.where(np.arange(6).reshape(6, 1, 1, 1) == 2, np.nan, data))
    with pytest.raises(InputError, match=r"\(first, last\) = \(3, 9\)"):
        power_law(np.ones(5), 3, 9)
    with pytest.raises(InputError, match=r"reference\.shape"):
        spectrum_ratio(np.ones(5), np.ones(4))
    with pytest.raises(InputError, match="variance = 0"):
        marchenko_pastur_edges(3, 4, 0.0)


@pytest.mark.parametrize("method", ["svd", "eigh"])
def test_lowers_for_accelerators(method):
    rows = jax.ShapeDtypeStruct((10, D), jnp.float32)
    compiled = jax.jit(partial(squared_singular_values, centre=True, method=method))
    assert set(jax.export.export(compiled, platforms=["cuda", "tpu"])(rows).platforms) == {"cuda", "tpu"}


def test_composes_with_vmap():
    stack = np.random.default_rng(0).normal(size=(3, 10, D)).astype(np.float32)
    together = jax.vmap(lambda rows: squared_singular_values(rows, centre=True))(stack)
    for rows, values in zip(stack, together):
        np.testing.assert_allclose(values[:9] / 9, covariance_spectrum(rows), rtol=1e-5)


def test_eigenvalues_of_images_and_of_their_gram_matrix_to_1e_8(x64):
    """The acceptance: (n - 1) times the covariance eigenvalues are the non-zero ones of the centred Gram matrix."""
    rows = np.random.default_rng(4).normal(size=(40, 100)) * np.arange(1, 101) ** -0.8 + 0.4
    found = covariance_spectrum(rows)
    centred = rows - rows.mean(0)
    gram = np.linalg.eigvalsh(centred @ centred.T)[::-1]
    np.testing.assert_allclose(39 * found, gram[:39], rtol=1e-8)
    assert abs(gram[39]) < 1e-10 * gram[0]


@pytest.mark.parametrize(("n", "d"), [(500, 100), (100, 500), (200, 200)])
def test_marchenko_pastur_density_and_quantiles(n, d):
    low, high = marchenko_pastur_edges(n, d, 2.0)
    x = np.linspace(low, high, 400_001)
    density = marchenko_pastur_density(x, n, d, 2.0)
    density[0] = 0
    step = x[1] - x[0]
    assert density.sum() * step == pytest.approx(1, abs=2e-2 if n == d else 1e-5)
    # The mean of the non-zero eigenvalues is the variance times d / min(n, d).
    assert (density * x).sum() * step == pytest.approx(2.0 * max(1, d / n), rel=1e-4)
    assert marchenko_pastur_density(np.array([low - 1, high + 1]), n, d, 2.0).tolist() == [0, 0]
    quantiles = marchenko_pastur_quantiles(np.array([0, 0.3, 0.5, 1]), n, d, 2.0)
    assert quantiles[0] == pytest.approx(low, abs=1e-12) and quantiles[-1] == pytest.approx(high)
    if n != d:
        np.testing.assert_allclose(quantiles[1:3], x[np.searchsorted(np.cumsum(density) * step, [0.3, 0.5])], rtol=1e-4)
    # White data follow them, each eigenvalue; the mean takes one row.
    white = np.random.default_rng(5).normal(scale=2**0.5, size=(n + 1, d)).astype(np.float32)
    spectrum = covariance_spectrum(white, method="eigh", dtype="float64")
    rank = (np.arange(len(spectrum)) + 0.5) / len(spectrum)
    assert np.abs(spectrum - marchenko_pastur_quantiles(1 - rank, n, d, 2.0)).max() < 0.05 * high


def planted(n, d, exponent, seed, nu=None):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, d)) * np.arange(1, d + 1) ** (-exponent / 2)
    return (rows if nu is None else rows * np.sqrt(nu / rng.chisquare(nu, (n, d)))).astype(np.float32)


@pytest.mark.parametrize(("n", "d", "exponent"), [(160, 40, 1.2), (48, 60, 1.5)])
@pytest.mark.parametrize("sets", [50, pytest.param(200, marks=pytest.mark.slow)])
def test_planted_exponents_lie_in_their_interval_as_often_as_it_says(n, d, exponent, sets):
    keys = jax.random.split(jax.random.key(1), sets)
    fits = [power_law_fit(planted(n, d, exponent, seed), keys[seed], draws=32) for seed in range(sets)]
    covered = np.mean([fit.exponent.low <= exponent <= fit.exponent.high for fit in fits])
    # 90 to 99 % of 200 sets: three standard errors of a share of 95 % below, two and a half above.
    deviation = (0.95 * 0.05 / sets) ** 0.5
    assert -3.2 * deviation <= covered - 0.95 <= 2.6 * deviation
    straight = np.mean([fit.bend.low <= 0 <= fit.bend.high for fit in fits])
    assert straight - 0.95 >= -3.2 * deviation
    estimates = np.array([fit.exponent.value for fit in fits])
    # No bias beyond 3.5 standard errors of the mean; the line without correction has one.
    error = estimates.std(ddof=1) / sets**0.5
    assert abs(estimates.mean() - exponent) < 3.5 * error
    if d < n:
        assert abs(np.mean([fit.line for fit in fits]) - exponent) > 0.42 * estimates.std(ddof=1)


def test_power_law_fit_on_other_spectra_and_rows():
    fit = power_law_fit(planted(400, 64, 1.0, 0), jax.random.key(0), draws=32)
    assert (fit.first, fit.last) == power_law_range(400, 64) == (3, 32) and fit.spectrum.shape == (64,)
    line = power_law(fit.spectrum, 3, 32)
    assert fit.line == pytest.approx(line.exponent, rel=1e-4) and fit.prefactor == pytest.approx(
        line.prefactor, rel=1e-3
    )
    assert fit.residual == pytest.approx(line.residual, rel=1e-2) and 1 <= fit.inflation < 1.2
    np.testing.assert_allclose(fit.spectrum, covariance_spectrum(planted(400, 64, 1.0, 0)), rtol=1e-3)
    # Heavy tails in each coordinate make eigenvalues noisier; the interval grows.
    heavy = power_law_fit(planted(400, 64, 1.0, 0, nu=5), jax.random.key(0), draws=32)
    assert heavy.inflation > 1.2 and heavy.exponent.standard_error > 1.2 * fit.exponent.standard_error
    # An exponential is no power law: the second half is steeper.
    rows = np.random.default_rng(0).normal(size=(400, 64)) * 0.95 ** np.arange(64)
    assert power_law_fit(rows.astype(np.float32), jax.random.key(0), draws=32).bend.low > 0.5


def test_bartlett_and_plain_samples_have_one_law():
    """The simulated spectra of n - 1 >= d rows against NumPy's, and of fewer rows too: means within 4 standard
    errors.
    """
    for n, d in ((30, 12), (9, 12)):
        found = np.asarray(_simulate(jax.random.key(0), 0.8, n, d, 5, 2000))
        rng, scales = np.random.default_rng(1), np.arange(1, d + 1) ** -0.4
        plain = [np.linalg.eigvalsh(np.cov((rng.normal(size=(n, d)) * scales).T))[::-1][:5] for _ in range(2000)]
        error = np.std(plain, axis=0) * np.sqrt(2 / 2000)
        assert (np.abs(found.mean(0) - np.mean(plain, axis=0)) < 4 * error).all()
        np.testing.assert_allclose(found.std(0), np.std(plain, axis=0), rtol=0.12)


def test_principal_images_equal_numpy():
    data = images(30).astype(np.float32)
    found = principal_images(data, 4)
    rows = data.reshape(30, D).astype(np.float64)
    values, vectors = np.linalg.eigh(np.cov(rows.T))
    np.testing.assert_allclose(found.variances, values[::-1][:4], rtol=1e-4)
    np.testing.assert_allclose(found.explained, values[::-1][:4] / values.sum(), rtol=1e-4)
    np.testing.assert_allclose(found.mean, data.mean(axis=0), atol=1e-6)
    assert found.vectors.shape == (4, *EVENT)
    for vector, expected in zip(found.vectors.reshape(4, D), vectors.T[::-1]):
        assert vector[np.abs(vector).argmax()] > 0
        np.testing.assert_allclose(vector, expected * np.sign(expected[np.abs(expected).argmax()]), atol=2e-3)


def test_bad_input_of_fits_is_named():
    key, rows = jax.random.key(0), planted(60, 30, 1.0, 0)
    with pytest.raises(InputError, match=r"\(n, d\) = \(20, 30\): must be large enough for a range of 5 ranks"):
        power_law_fit(rows[:20], key)
    with pytest.raises(InputError, match=r"\(first, last\) = \(3, 31\): must be 5 ranks or more from 1 to 30"):
        power_law_fit(rows, key, last=31)
    with pytest.raises(InputError, match="draws = 9"):
        power_law_fit(rows, key, draws=9)
    with pytest.raises(InputError, match="rows = 'non-finite'"):
        power_law_fit(rows * np.float32(np.nan), key)
    with pytest.raises(InputError, match="eigenvalue 15 of 3 to 15"):
        power_law_fit(rows * (np.arange(30) < 9).astype(np.float32), key)
    with pytest.raises(InputError, match="count = 60"):
        principal_images(rows, 60)
    with pytest.raises(InputError, match="images = 'constant'"):
        principal_images(np.ones((4, 5), np.float32), 2)
    with pytest.raises(InputError, match=r"q = 2\.0"):
        marchenko_pastur_quantiles(np.float64(2.0), 4, 5)


def test_planted_exponents_are_those_of_single_fits():
    key = jax.random.key(2)
    found = planted_exponents(key, 160, 40, 1.0, sets=3, draws=32)
    normal = np.asarray(jax.random.normal(key, (3, 160, 40)))
    rows = (normal[1] * np.arange(1, 41) ** -0.5).astype(np.float32)
    one = power_law_fit(rows, stream(key, 1), draws=32).exponent
    assert found.shape == (3, 3) and found[1].tolist() == [one.value, one.low, one.high]
    assert (found[:, 1] < found[:, 0]).all() and np.abs(found[:, 0] - 1).max() < 0.6


@pytest.mark.parametrize(("n", "d"), [(81, 20), (21, 80)])
def test_white_eigenvalues_are_those_of_the_covariance(n, d):
    found = white_eigenvalues(3, n, d, seed=4)
    rows = np.random.default_rng(4).normal(size=(3, n, d))
    expected = np.linalg.eigvalsh(np.cov(rows[2].T))[::-1][: min(n - 1, d)]
    np.testing.assert_allclose(found[2], expected, rtol=1e-9)
    low, high = marchenko_pastur_edges(n - 1, d)
    assert found.shape == (3, 20) and 0.7 * low < found.min() and found.max() < 1.2 * high


def test_gram_and_covariance_agree_but_for_rounding():
    rows = np.random.default_rng(0).normal(size=(30, 12)) + 5
    rows[:, 3] = 1.0
    assert gram_covariance_difference(rows) < 1e-9
