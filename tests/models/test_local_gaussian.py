"""Local Gaussians and mixtures of them against regressions on windows, the global ones, and shifts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import multivariate_normal

from dgu.core.errors import InputError
from dgu.models import GaussianDenoiser, LocalGaussianDenoiser, LocalMixtureDenoiser, MoLRGDenoiser
from tests.models.test_local import CALL, sources, windows

SCORES = jax.jit(lambda denoiser, x, sigma: denoiser.window_scores(x, sigma))
RNG = np.random.default_rng(2)
MIX = RNG.standard_normal((72, 72)) / 6
DATA = (RNG.standard_normal((150, 72)) @ MIX + RNG.standard_normal(72)).reshape(150, 6, 6, 2)
NOISY = DATA[0] + 0.7 * RNG.standard_normal((6, 6, 2))
LABELS = np.arange(150) % 3


def pooled(p, window, equivariant, boundary, data):
    """All windows that are sources of position p, one a row."""
    seen = [windows(image, window, boundary) for image in data]
    shape = data.shape[1:3]
    return np.array([of[q].ravel() for q in sources(p, shape, window, equivariant, boundary) for of in seen])


def brute(x, window, sigma, equivariant, boundary, data):
    """The regression of each pixel on its noisy window."""
    out, c = np.zeros_like(x), x.shape[-1]
    middle = slice(window**2 // 2 * c, window**2 // 2 * c + c)
    for p, seen in windows(x, window, boundary).items():
        rows = pooled(p, window, equivariant, boundary, data)
        covariance = np.cov(rows.T, ddof=0)
        inverse = np.linalg.inv(covariance + sigma**2 * np.eye(len(covariance)))
        out[p] = rows.mean(0)[middle] + covariance[middle] @ inverse @ (seen.ravel() - rows.mean(0))
    return out


@pytest.mark.parametrize("equivariant", [False, True])
@pytest.mark.parametrize("boundary", ["zero", "circular", "bordered"])
def test_it_is_the_regression_on_noisy_windows(x64, strict_dtypes, boundary, equivariant):
    data = DATA[:40]
    denoiser = LocalGaussianDenoiser.fit(data, 3, equivariant=equivariant, boundary=boundary)
    for sigma in (0.3, 2.0):
        expected = brute(NOISY, 3, sigma, equivariant, boundary, data)
        np.testing.assert_allclose(CALL(denoiser, NOISY, sigma), expected, rtol=0, atol=1e-11)
        np.testing.assert_allclose(SCORES(denoiser, NOISY, sigma)[0], expected, rtol=0, atol=1e-11)


def test_the_whole_image_as_window_is_the_gaussian(x64):
    whole = LocalGaussianDenoiser.fit(DATA, 11)
    around = LocalGaussianDenoiser.fit(DATA, 6, boundary="circular")
    gaussian = GaussianDenoiser.fit(DATA)
    for sigma in (0.0, 0.002, 0.7, 80.0):
        expected = CALL(gaussian, NOISY, sigma)
        for denoiser in (whole, around):
            np.testing.assert_allclose(CALL(denoiser, NOISY, sigma), expected, rtol=0, atol=1e-12)


def test_moments_give_what_images_give_and_shifts_commute(x64):
    mean, covariance = DATA.mean(0), np.cov(DATA.reshape(150, -1).T, ddof=0)
    options = {"equivariant": True, "boundary": "circular"}
    denoiser = LocalGaussianDenoiser.fit(DATA, 5, **options)
    found = CALL(denoiser, NOISY, 0.5)
    again = LocalGaussianDenoiser.from_moments(mean, covariance.reshape(6, 6, 2, 6, 6, 2), 5, **options)
    np.testing.assert_allclose(CALL(again, NOISY, 0.5), found, rtol=0, atol=1e-12)
    shifted = CALL(denoiser, np.roll(NOISY, (2, 5), (0, 1)), 0.5)
    np.testing.assert_allclose(shifted, np.roll(found, (2, 5), (0, 1)), rtol=0, atol=1e-13)
    # On a circle the window of the whole image diagonalises in Fourier space: the filter that Wiener meant.
    whole = LocalGaussianDenoiser.fit(DATA[..., :1], 6, **options)
    level = DATA[..., 0].mean()
    power = (np.abs(np.fft.fft2(DATA[..., 0] - level)) ** 2).mean(0) / 36
    centred = np.fft.fft2(NOISY[..., 0] - level)
    expected = level + np.fft.ifft2(power / (power + 0.25) * centred).real
    np.testing.assert_allclose(CALL(whole, NOISY[..., :1], 0.5)[..., 0], expected, rtol=0, atol=1e-12)


def test_few_images_leave_a_low_rank(x64):
    few = LocalGaussianDenoiser.fit(DATA[:5], 5)
    assert few.variances.shape == (36, 4)
    np.testing.assert_allclose(CALL(few, NOISY, 0.5), brute(NOISY, 5, 0.5, False, "zero", DATA[:5]), rtol=0, atol=1e-11)


def test_a_mixture_weighs_the_classes_by_each_window(x64, strict_dtypes):
    data, labels = DATA[:, :4, :4, :1], LABELS
    x, sigma = NOISY[:4, :4, :1], 0.6
    found = CALL(LocalMixtureDenoiser.fit(data, labels, 3), x, sigma)
    for p, seen in windows(x, 3, "zero").items():
        scores, means = [], []
        for label in range(3):
            rows = pooled(p, 3, False, "zero", data[labels == label])
            covariance = np.cov(rows.T, ddof=0)
            noisy, centred = covariance + sigma**2 * np.eye(9), seen.ravel() - rows.mean(0)
            scores.append(multivariate_normal(np.zeros(9), noisy).logpdf(centred) + np.log(1 / 3))
            means.append(rows.mean(0)[4] + covariance[4] @ np.linalg.solve(noisy, centred))
        np.testing.assert_allclose(found[p][0], softmax(scores) @ means, rtol=0, atol=1e-12)


def test_a_mixture_that_sees_the_whole_image_and_one_of_one_class(x64):
    data, x = DATA[:, :3, :3, :1], NOISY[:3, :3, :1]
    mixture = LocalMixtureDenoiser.fit(data, LABELS, 5)
    globally = MoLRGDenoiser.from_gaussians([GaussianDenoiser.fit(data[LABELS == label]) for label in range(3)], 9)
    one = LocalMixtureDenoiser.fit(data, np.zeros(150, int), 3, equivariant=True, boundary="bordered")
    gaussian = LocalGaussianDenoiser.fit(data, 3, equivariant=True, boundary="bordered")
    for sigma in (0.05, 0.6, 5.0):
        np.testing.assert_allclose(CALL(mixture, x, sigma), CALL(globally, x, sigma), rtol=0, atol=1e-12)
        np.testing.assert_allclose(CALL(one, x, sigma), CALL(gaussian, x, sigma), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LocalGaussianDenoiser.fit(DATA[:1], 3), "images = '1 examples': must be at least 2"),
        (lambda: LocalGaussianDenoiser.fit(DATA, 4), "window = 4: must be odd"),
        (lambda: LocalGaussianDenoiser.fit(DATA[0], 3), "images.shape"),
        (lambda: LocalGaussianDenoiser.fit(np.where(DATA > 2, np.nan, DATA), 3), "images = .*finite"),
        (lambda: LocalGaussianDenoiser.from_moments(DATA[0], np.eye(3), 3), "covariance.shape"),
        (lambda: LocalGaussianDenoiser.fit(DATA, 3)(jnp.asarray(NOISY[1:]), 1.0), "x.shape"),
        (lambda: LocalMixtureDenoiser.fit(DATA, LABELS[1:], 3), "labels = "),
        (lambda: LocalMixtureDenoiser.fit(DATA, np.arange(150) // 149, 3), "labels = .*at least 2 images of each"),
    ],
)
def test_bad_input_is_refused_in_one_line(make, message):
    with pytest.raises(InputError, match=f"^{message}") as error:
        make()
    assert "\n" not in str(error.value)
