"""Local denoisers of training images against brute force, global ones, shifts, and the windows' posterior covariances."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from dgu.core.errors import InputError
from dgu.models import EmpiricalDenoiser, LocalDenoiser, LocalGaussianDenoiser
from dgu.testing import check_posterior_mean
from dgu.testing.reports import DenoiserCheckError

CALL = jax.jit(lambda denoiser, x, sigma: denoiser(x, sigma))
RNG = np.random.default_rng(0)
DATA = RNG.standard_normal((20, 6, 6, 1))
NOISY = DATA[3] + 0.7 * RNG.standard_normal((6, 6, 1))


def windows(image, window, boundary):
    """The window of each position, one by one."""
    r = window // 2
    around = np.pad(image, [(r, r), (r, r), (0, 0)], mode="wrap" if boundary == "circular" else "constant")
    h, w, _ = image.shape
    return {(i, j): around[i : i + window, j : j + window] for i in range(h) for j in range(w)}


def sources(p, shape, window, equivariant, boundary):
    """The positions that are sources of p."""
    if not equivariant:
        return [p]
    r, everywhere = window // 2, [(i, j) for i in range(shape[0]) for j in range(shape[1])]

    def place(q):
        """Which row and column near an edge a position is in, None for the inside."""
        return [at if at < r or at >= size - r else None for at, size in zip(q, shape)]

    return [q for q in everywhere if boundary != "bordered" or place(q) == place(p)]


def weighted_sources(p, x, window, sigma, equivariant, boundary, data):
    """Weights of all sources of p, their windows and the values at their middles."""
    of_x, of_data = windows(x, window, boundary), [windows(image, window, boundary) for image in data]
    pairs = [(i, q) for i in range(len(data)) for q in sources(p, x.shape[:2], window, equivariant, boundary)]
    squares = np.array([((of_x[p] - of_data[i][q]) ** 2).sum() for i, q in pairs])
    weights = softmax(-squares / (2 * sigma**2))
    return weights, np.array([of_data[i][q] for i, q in pairs]), np.array([data[i][q] for i, q in pairs])


def brute(x, window, sigma, equivariant, boundary, data=DATA):
    out = np.zeros_like(x)
    for p in np.ndindex(*x.shape[:2]):
        weights, _, values = weighted_sources(p, x, window, sigma, equivariant, boundary, data)
        out[p] = weights @ values
    return out


@pytest.mark.parametrize("equivariant", [False, True])
@pytest.mark.parametrize("boundary", ["zero", "circular", "bordered"])
def test_it_equals_brute_force(x64, strict_dtypes, boundary, equivariant):
    # A block of 7 leaves a last block that overlaps the one before it.
    denoiser = LocalDenoiser(DATA, 3, equivariant=equivariant, boundary=boundary, block_size=7)
    for sigma in (0.05, 0.7, 5.0):
        expected = brute(NOISY, 3, sigma, equivariant, boundary)
        np.testing.assert_allclose(CALL(denoiser, NOISY, sigma), expected, rtol=0, atol=1e-12)


def test_rectangles_and_channels(x64):
    data = RNG.standard_normal((6, 5, 7, 2))
    x = data[0] + 0.5 * RNG.standard_normal((5, 7, 2))
    found = CALL(LocalDenoiser(data, 5, equivariant=True, boundary="bordered"), x, 0.8)
    np.testing.assert_allclose(found, brute(x, 5, 0.8, True, "bordered", data), rtol=0, atol=1e-12)


def test_the_whole_image_as_window_is_the_empirical_denoiser(x64):
    empirical = EmpiricalDenoiser(DATA)
    shifts = np.concatenate([np.roll(DATA, by, (1, 2)) for by in np.ndindex(6, 6)])
    for sigma in (0.002, 0.7, 80.0):
        expected = CALL(empirical, NOISY, sigma)
        # 2 x 6 - 1 reaches from every corner to the opposite one; on a circle 6 is all there is.
        for options in ({"window": 11}, {"window": 6, "boundary": "circular"}):
            np.testing.assert_allclose(CALL(LocalDenoiser(DATA, **options), NOISY, sigma), expected, rtol=0, atol=1e-12)
        everywhere = LocalDenoiser(DATA, 6, equivariant=True, boundary="circular")
        expected = CALL(EmpiricalDenoiser(shifts), NOISY, sigma)
        np.testing.assert_allclose(CALL(everywhere, NOISY, sigma), expected, rtol=0, atol=1e-12)


def test_circular_shifts_commute_and_blocks_do_not_matter(x64):
    denoiser = LocalDenoiser(DATA, 3, equivariant=True, boundary="circular", block_size=20)
    for sigma in (0.05, 0.7):
        found = CALL(denoiser, NOISY, sigma)
        shifted = CALL(denoiser, np.roll(NOISY, (2, 5), (0, 1)), sigma)
        np.testing.assert_allclose(shifted, np.roll(found, (2, 5), (0, 1)), rtol=0, atol=1e-14)
        for block in (3, 7):
            parts = CALL(LocalDenoiser(DATA, 3, equivariant=True, boundary="circular", block_size=block), NOISY, sigma)
            np.testing.assert_allclose(parts, found, rtol=0, atol=1e-13)


def test_at_noise_zero_the_nearest_window_decides(x64):
    denoiser = LocalDenoiser(DATA, 3, equivariant=True)
    np.testing.assert_array_equal(CALL(denoiser, DATA[5], 0.0), DATA[5])
    # In single precision, where distances computed twice may differ by more than what the noise makes infinite.
    far = np.float32(DATA[5] + 100)
    assert np.isfinite(CALL(denoiser, far, 1e-3)).all()


@pytest.mark.parametrize("equivariant", [False, True])
def test_its_jacobian_is_the_covariance_of_each_pixel_with_its_own_window(x64, equivariant):
    sigma = 0.9
    denoiser = LocalDenoiser(DATA, 3, equivariant=equivariant)
    jacobian = np.asarray(jax.jit(jax.jacfwd(CALL, 1))(denoiser, jnp.asarray(NOISY), sigma))[:, :, 0, :, :, 0]
    expected = np.zeros((6, 6, 8, 8))  # With a border for what the windows see beyond it.
    for i, j in np.ndindex(6, 6):
        weights, seen, values = weighted_sources((i, j), NOISY, 3, sigma, equivariant, "zero", DATA)
        apart = seen[..., 0] - np.tensordot(weights, seen[..., 0], 1)
        expected[i, j, i : i + 3, j : j + 3] = np.tensordot(weights * values[:, 0], apart, 1) / sigma**2
    np.testing.assert_allclose(jacobian, expected[:, :, 1:7, 1:7], rtol=0, atol=1e-12)
    level = jax.jit(jax.jacfwd(CALL, 2))(denoiser, NOISY, sigma)
    ends = [CALL(denoiser, NOISY, sigma + by) for by in (-1e-5, 1e-5)]
    np.testing.assert_allclose(level, (ends[1] - ends[0]) / 2e-5, rtol=0, atol=1e-8)
    backwards = np.asarray(jax.jit(jax.grad(lambda x: CALL(denoiser, x, sigma)[2, 3, 0]))(jnp.asarray(NOISY)))
    np.testing.assert_allclose(backwards[..., 0], jacobian[2, 3], rtol=0, atol=1e-12)


def test_the_check_of_posterior_means_refuses_it_for_its_asymmetry(x64):
    data = DATA[:, :4, :4]
    options = {"dtype": jnp.float64, "sigmas": (0.5,), "support": data, "mean": data.mean(axis=0)}
    with pytest.raises(DenoiserCheckError) as found:
        check_posterior_mean(LocalDenoiser(data, 3), (4, 4, 1), jax.random.key(0), **options)
    assert found.value.report.asymmetry > 0.05
    assert "not symmetric" in str(found.value)


def gaussian_gap(images, sigma=1.0, side=6, window=3):
    """Root mean square distance from the local Gaussian, of images of a Gaussian with falling correlations."""
    at = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2)
    covariance = np.exp(-((at[:, None] - at) ** 2).sum(-1) / 8) + 1e-9 * np.eye(side**2)
    root = np.linalg.cholesky(covariance)
    rng = np.random.default_rng(1)
    data = (rng.standard_normal((images, side**2)) @ root.T).reshape(images, side, side, 1)
    new = (rng.standard_normal((24, side**2)) @ root.T).reshape(24, side, side, 1)
    new += sigma * rng.standard_normal(new.shape)
    limit = LocalGaussianDenoiser.from_moments(np.zeros((side, side, 1)), covariance, window)
    batch = jax.jit(jax.vmap(lambda denoiser, x: denoiser(x, sigma), (None, 0)))
    return float(np.sqrt(np.mean((batch(LocalDenoiser(data, window), new) - batch(limit, new)) ** 2)))


def test_on_gaussian_images_it_tends_to_the_local_gaussian(x64):
    few, more = gaussian_gap(100), gaussian_gap(2000)
    # Averages of n images: the distance falls as 1 / sqrt(n), here by 4.5, up to its own spread.
    assert 0.05 < few < 0.4 and 3 < few / more < 7


@pytest.mark.slow
def test_on_gaussian_images_the_gap_falls_as_the_root_of_their_number(x64):
    gaps = [gaussian_gap(images) for images in (100, 1000, 10_000, 100_000)]
    assert all(2 < one / next_ < 5 for one, next_ in pairwise(gaps)) and gaps[-1] < 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 4}, "window = 4: must be odd and at most the smaller side of the images, 6, or"),
        ({"window": 7}, "window = 7: must be odd"),
        ({"window": 13}, r"window = 13: must be .*2 max\(h, w\) - 1 = 11"),
        ({"window": 11, "boundary": "circular"}, "window = 11: must be .*the side = 6"),
        ({"window": 0}, "window = 0: must be a whole number"),
        ({"window": 3, "boundary": "mirror"}, "boundary = 'mirror': must be one of zero, circular, bordered"),
        ({"window": 3, "block_size": 0}, "block_size = 0"),
    ],
)
def test_bad_input_is_refused_in_one_line(options, message):
    with pytest.raises(InputError, match=f"^{message}") as error:
        LocalDenoiser(DATA, **options)
    assert "\n" not in str(error.value)


def test_images_that_do_not_fit_are_refused():
    for data, x, message in (
        (DATA[:0], NOISY, "data.shape"),
        (DATA[..., 0], NOISY, "data.shape"),
        (DATA, NOISY[:5], "x.shape"),
    ):
        with pytest.raises(InputError, match=message):
            LocalDenoiser(data, 3)(x, 1.0)
