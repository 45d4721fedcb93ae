"""Regions of any form: soft queries, patches and the windows of the data's Wiener filter, against brute force."""

import jax
import numpy as np
import pytest
from scipy.special import softmax

from dgu.core.errors import InputError
from dgu.models import EmpiricalDenoiser, GaussianDenoiser, LocalDenoiser, PatchDenoiser, QueryDenoiser, WienerDenoiser
from tests.models.test_local import CALL

RNG = np.random.default_rng(3)
DATA = RNG.standard_normal((20, 4, 5, 2))
NOISY = DATA[0] + 0.7 * RNG.standard_normal((4, 5, 2))


def posterior(query, sigma, x=NOISY):
    """The posterior mean of the whole image given what a query sees."""
    squares = (((x - DATA) ** 2).sum(-1) * query).sum((1, 2))
    return np.tensordot(softmax(-squares / (2 * sigma**2)), DATA, 1)


@pytest.mark.parametrize("block", [7, 256])
def test_soft_queries_equal_brute_force(x64, strict_dtypes, block):
    queries = RNG.uniform(size=(4, 5, 4, 5))
    for sigma in (0.1, 1.0):
        expected = np.array([[posterior(queries[i, j], sigma)[i, j] for j in range(5)] for i in range(4)])
        found = CALL(QueryDenoiser(DATA, queries, block_size=block), NOISY, sigma)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_ones_are_the_empirical_denoiser_and_squares_the_local_one(x64):
    found = CALL(QueryDenoiser(DATA, np.ones((4, 5, 4, 5))), NOISY, 0.8)
    np.testing.assert_allclose(found, CALL(EmpiricalDenoiser(DATA), NOISY, 0.8), rtol=0, atol=1e-12)
    rows, columns = (abs(np.arange(n)[:, None] - np.arange(n)) <= 1 for n in (4, 5))
    near = 1.0 * (rows[:, None, :, None] & columns[None, :, None, :])
    found = CALL(QueryDenoiser(DATA, near), NOISY, 0.8)
    np.testing.assert_allclose(found, CALL(LocalDenoiser(DATA, 3), NOISY, 0.8), rtol=0, atol=1e-12)


def test_square_patches_are_averaged_where_they_overlap(x64, strict_dtypes):
    for side in (1, 2, 4):
        total, count = np.zeros((4, 5, 2)), np.zeros((4, 5, 1))
        for i in range(5 - side):
            for j in range(6 - side):
                patch = np.zeros((4, 5))
                patch[i : i + side, j : j + side] = 1
                total += patch[..., None] * posterior(patch, 0.8)
                count += patch[..., None]
        found = CALL(PatchDenoiser.square(DATA, side), NOISY, 0.8)
        np.testing.assert_allclose(found, total / count, rtol=0, atol=1e-12)


def test_flexible_patches_hold_their_share(x64):
    sensitivity = RNG.uniform(size=(4, 5, 4, 5))
    rows = sensitivity.reshape(20, 20)
    patches = np.asarray(PatchDenoiser.flexible(DATA, sensitivity, 0.6).patches).reshape(20, 20)
    for row, patch in zip(rows, patches):
        largest = np.sort(row)[::-1]
        fewest = 1 + int(np.argmax(np.cumsum(largest) >= 0.6 * row.sum()))
        own = patch.sum() - fewest  # Its own pixel is in it, if it were not among the largest.
        assert own in (0, 1) and (row * patch).sum() >= 0.6 * row.sum()
    assert (np.diag(patches) == 1).all()
    whole = PatchDenoiser.flexible(DATA, sensitivity, 1)
    np.testing.assert_allclose(CALL(whole, NOISY, 0.8), CALL(EmpiricalDenoiser(DATA), NOISY, 0.8), rtol=0, atol=1e-12)


def test_the_windows_of_the_wiener_filter(x64, strict_dtypes):
    at = np.stack(np.meshgrid(np.arange(4), np.arange(5), indexing="ij"), -1).reshape(-1, 2)
    covariance = np.kron(0.5 ** np.abs(at[:, None] - at).sum(-1), np.eye(2))
    gaussian = GaussianDenoiser.from_moments(np.zeros((4, 5, 2)), covariance)
    denoiser = WienerDenoiser(DATA, gaussian, 0.2)
    sizes = []
    for sigma in (0.05, 0.8, 20.0):
        wiener = covariance @ np.linalg.inv(covariance + sigma**2 * np.eye(40))
        rows = np.abs(wiener[::2, ::2])  # The channels do not mix.
        expected = (rows >= 0.2 * rows.max(1, keepdims=True)).reshape(4, 5, 4, 5)
        found = np.asarray(jax.jit(lambda d, x, s: d.windows(x, s))(denoiser, NOISY, sigma))
        np.testing.assert_array_equal(found, expected)
        sizes.append(found.sum())
        same = CALL(QueryDenoiser(DATA, 1.0 * expected), NOISY, sigma)
        np.testing.assert_allclose(CALL(denoiser, NOISY, sigma), same, rtol=0, atol=1e-13)
    # The more noise, the more must be averaged; almost none, and each pixel knows itself.
    assert sizes[0] == 20 < sizes[1] < sizes[2]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: QueryDenoiser(DATA, np.ones((4, 5)))(NOISY, 1.0), "queries.shape"),
        (lambda: QueryDenoiser(DATA, -np.ones((4, 5, 4, 5)))(NOISY, 1.0), "smallest entry of the queries = -1.0"),
        (lambda: QueryDenoiser(DATA, np.ones((4, 5, 4, 5)))(NOISY[1:], 1.0), "x.shape"),
        (lambda: PatchDenoiser.square(DATA, 5), "side = 5: must be a whole number from 1 to 4"),
        (lambda: PatchDenoiser.flexible(DATA, np.ones((4, 5, 4, 5)), 0.0), "share = 0.0"),
        (lambda: PatchDenoiser.flexible(DATA, np.ones((4, 5)), 0.5), "sensitivity.shape"),
        (lambda: WienerDenoiser(DATA, GaussianDenoiser.fit(DATA[:, 1:]))(NOISY, 1.0), "gaussian.mean.shape"),
    ],
)
def test_bad_input_is_refused_in_one_line(make, message):
    with pytest.raises(InputError, match=f"^{message}") as error:
        make()
    assert "\n" not in str(error.value)
