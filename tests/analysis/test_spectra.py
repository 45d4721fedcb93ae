"""Spectra against NumPy, random-matrix theory and planted laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.analysis.mixture import GaussianMixtureSampler
from dgu.analysis.spectra import (
    PowerLaw,
    class_spectra,
    covariance_spectrum,
    gram_spectrum,
    marchenko_pastur_edges,
    power_law,
    spectrum_ratio,
    squared_singular_values,
)
from dgu.errors import InputError

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
    exporter = jax.export.export(squared_singular_values, platforms=["cuda", "tpu"])
    assert set(exporter(rows, centre=True, method=method).platforms) == {"cuda", "tpu"}


def test_composes_with_vmap():
    stack = np.random.default_rng(0).normal(size=(3, 10, D)).astype(np.float32)
    together = jax.vmap(lambda rows: squared_singular_values(rows, centre=True))(stack)
    for rows, values in zip(stack, together):
        np.testing.assert_allclose(values[:9] / 9, covariance_spectrum(rows), rtol=1e-5)
