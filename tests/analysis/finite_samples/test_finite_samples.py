"""Theory of fitted Gaussian denoisers against fits to drawn images, in float64."""

import numpy as np
import pytest

from dgu.analysis import effective_noise, fitted_gains, fitted_loss, fitted_sampling, gaussian_fit_kl
from dgu.core.errors import InputError

ONE = np.ones(1)


def spectrum(d):
    return np.arange(1, d + 1) ** -1.0


def fitted_covariances(lam, images, draws, seed=0):
    """Means and covariances, divided by N, of sets of images with the diagonal covariance ``lam``."""
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        rows = rng.normal(size=(images, len(lam))) * np.sqrt(lam)
        yield rows.mean(0), np.cov(rows.T, ddof=0)


def test_the_effective_noise_solves_its_equation():
    lam, noise = spectrum(50), np.geomspace(1e-8, 1e4, 25)
    for rows in (3, 20, 50, 51, 300, 1e9):
        kappa = effective_noise(lam, noise, rows)
        solved = noise + kappa / rows * (lam / (lam + kappa[:, None])).sum(axis=1)
        # Where rows are few kappa stands far above the noise, and the equation loses the noise's digits.
        np.testing.assert_allclose(kappa, solved, rtol=1e-12)
        assert (kappa > noise).all() and (np.diff(kappa) > 0).all()
    np.testing.assert_allclose(effective_noise(lam, noise, 1e12), noise, rtol=1e-8)


def test_one_variance_has_the_root_of_marchenko_and_pastur():
    """All variances 1: ``kappa^2 + kappa (1 - s^2 - d/n) - s^2 = 0``."""
    noise, ratio = np.array([0.01, 0.5, 3.0]), 0.7
    half = (1 - noise - ratio) / 2
    exact = -half + np.sqrt(half**2 + noise)
    np.testing.assert_allclose(effective_noise(np.ones(70), noise, 100), exact, rtol=1e-13)


@pytest.fixture(scope="module")
def drawn():
    """Gains of fits to 301 images in 200 dimensions at three levels, ``(draws, levels, d)``, and of the first fits the
    matrices W, ``(12, levels, d, d)``, and means."""
    lam, sigmas = spectrum(200), np.sqrt([0.003, 0.03, 0.3])
    gains, maps, means = [], [], []
    for mean, covariance in fitted_covariances(lam, 301, 120):
        values, vectors = np.linalg.eigh(covariance)
        filters = np.maximum(values, 0) / (np.maximum(values, 0) + sigmas[:, None] ** 2)
        gains.append(filters @ (vectors**2).T)
        if len(maps) < 12:
            maps.append((vectors * filters[:, None, :]) @ vectors.T)
            means.append(mean)
    return lam, sigmas, np.stack(gains), np.stack(maps), np.stack(means)


def test_gains_of_fits_are_predicted_within_3_thousandths(drawn):
    lam, sigmas, gains, *_ = drawn
    found = gains.mean(0)
    predicted = fitted_gains(lam, sigmas, 301)
    error = np.sqrt(np.mean((found - predicted.mean) ** 2, axis=1))
    naive = np.sqrt(np.mean((found - lam / (lam + sigmas[:, None] ** 2)) ** 2, axis=1))
    assert (error < 0.003).all() and naive[0] > 0.05 and naive[1] > 0.015


def test_the_spread_over_sets_of_images_is_predicted(drawn):
    lam, sigmas, gains, maps, _ = drawn
    predicted = fitted_gains(lam, sigmas, 301)
    ratio = gains.var(axis=0, ddof=1) / predicted.spread**2
    # 119 degrees of freedom a mode, 200 modes that are nearly independent: a standard error of 1 %.
    np.testing.assert_allclose(ratio.mean(axis=1), 1, atol=0.06)
    # Entries off the diagonal, whose mean is 0.
    expected = predicted.leak[:, :, None] * predicted.leak[:, None]
    off = ~np.eye(200, dtype=bool)
    np.testing.assert_allclose(((maps / expected) ** 2)[:, :, off].mean(axis=(0, 2)), 1, atol=0.02)


def test_the_test_loss_is_predicted(drawn):
    lam, sigmas, _, maps, means = drawn
    rest = np.eye(200) - maps
    signal = np.einsum("alij,j,alij->al", rest, lam, rest)
    of_mean = np.square(np.einsum("alij,aj->ali", rest, means)).sum(-1)
    exact = signal + of_mean + sigmas**2 * np.square(maps).sum((2, 3))
    np.testing.assert_allclose(exact.mean(0), fitted_loss(lam, sigmas, 301), rtol=0.01)
    best = (lam * sigmas[:, None] ** 2 / (lam + sigmas[:, None] ** 2)).sum(axis=1)
    assert (fitted_loss(lam, sigmas, 301) > 1.03 * best).all()
    np.testing.assert_allclose(fitted_loss(lam, sigmas, 10**8), best, rtol=1e-5)


@pytest.mark.parametrize("images", [20, 60, 500])
@pytest.mark.parametrize("ddof", [0, 1])
def test_images_from_the_same_noise_are_as_far_apart_as_predicted(images, ddof):
    lam, top = spectrum(60), 30.0
    scale = images / (images - ddof)
    maps, means = [], []
    for mean, covariance in fitted_covariances(lam, images, 40, seed=images):
        values, vectors = np.linalg.eigh(scale * covariance)
        values = np.maximum(values, 0)
        maps.append((vectors * top * np.sqrt(values / (values + top**2))) @ vectors.T)
        means.append(mean - maps[-1] @ mean / top)
    first, second = (np.stack(maps)[side::2] for side in (0, 1))
    apart = np.square(np.stack(means)[::2] - np.stack(means)[1::2]).sum(1)
    predicted = fitted_sampling(lam, images, sigma_max=top, ddof=ddof)
    np.testing.assert_allclose(predicted.mean, np.mean(np.diagonal(maps, axis1=1, axis2=2), axis=0), atol=0.05)
    distance = np.square(first - second).sum((1, 2)) + apart
    null = np.square(first).sum((1, 2)) + np.square(second).sum((1, 2)) + apart
    assert predicted.ratio == pytest.approx(np.sqrt(distance.mean() / null.mean()), rel=0.02)


def test_fits_to_all_data_make_the_images_of_the_true_covariance():
    lam = spectrum(30)
    found = fitted_sampling(lam, 10**7, sigma_max=10.0)
    np.testing.assert_allclose(found.mean, 10 * np.sqrt(lam / (lam + 100)), rtol=1e-5)
    # As N grows the squared distance falls as 1 / N.
    more = fitted_sampling(lam, 4 * 10**7, sigma_max=10.0)
    assert found.ratio / more.ratio == pytest.approx(2, rel=1e-3)


def test_divergence_of_a_fit_is_a_quarter_of_the_ratio():
    """Numbers of an independent computation at d = 200, and the limit d / (4 N) for each dimension."""
    per_dimension = [gaussian_fit_kl(200, ratio * 200) / 200 * ratio for ratio in (4, 16, 64)]
    np.testing.assert_allclose(per_dimension, [0.278, 0.258, 0.255], atol=0.002)
    assert per_dimension[-1] == pytest.approx(0.25, rel=0.025)


@pytest.mark.parametrize("ddof", [0, 1])
def test_divergence_of_fits_that_were_drawn(ddof):
    d, images = 3, 9
    rng, lam = np.random.default_rng(0), np.array([1.0, 4.0, 0.2])
    rows = rng.normal(size=(40_000, images, d)) * np.sqrt(lam)
    centred = rows - rows.mean(1, keepdims=True)
    covariances = np.einsum("sni,snj->sij", centred, centred) / (images - ddof)
    terms = (np.diagonal(covariances, axis1=1, axis2=2) / lam).sum(1) + (rows.mean(1) ** 2 / lam).sum(1) - d
    kl = (terms - np.linalg.slogdet(covariances)[1] + np.log(lam).sum()) / 2
    assert gaussian_fit_kl(d, images, ddof) == pytest.approx(kl.mean(), abs=5 * kl.std() / 200)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: effective_noise(-ONE, ONE, 3), "variances"),
        (lambda: effective_noise(ONE[:0], ONE, 3), "variances.shape"),
        (lambda: effective_noise(ONE, 0 * ONE, 3), "squared_noise"),
        (lambda: effective_noise(ONE, ONE, 0), "rows"),
        (lambda: fitted_gains(ONE, 0 * ONE, 3), "sigmas"),
        (lambda: fitted_gains(ONE, ONE, 1), "images"),
        (lambda: fitted_loss(ONE, ONE, 5, ddof=2), "ddof"),
        (lambda: fitted_sampling(ONE, 5, sigma_max=0), "sigma_max"),
        (lambda: gaussian_fit_kl(5, 5), "images"),
    ],
)
def test_bad_input_is_one_line(call, name):
    with pytest.raises(InputError, match=rf"^{name} = ") as error:
        call()
    assert "\n" not in str(error.value)
