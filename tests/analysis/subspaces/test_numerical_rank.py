"""Numerical ranks against closed forms: given spectra, linear denoisers, and the mixture of two subspaces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.analysis import jacobian_ranks, numerical_rank
from dgu.core.errors import InputError
from dgu.models import GaussianDenoiser, MoLRG

KEY = jax.random.key(0)


def test_both_conventions_on_a_spectrum_by_hand():
    values = np.sqrt([0.5, 0.3, 0.185, 0.01, 0.005])  # energies of sum 1; their sums .5, .8, .985, .995, 1
    assert numerical_rank(values, eta=0.99) == 3  # .985 > .9801
    assert numerical_rank(values, eta=0.99, rule="text") == 4  # .985 < .99 < .995
    assert numerical_rank(np.ones(10), eta=0.999) == 10
    assert numerical_rank(np.zeros(4)) == 0
    # Leading values alone: a sixth value would be needed where the energy is larger.
    assert numerical_rank(values, energy=1.2) == 6 and numerical_rank(values, energy=1.01) == 4
    batch = numerical_rank(np.stack([values, np.eye(5)[0]]))
    np.testing.assert_array_equal(batch, [3, 1])


def gaussian(variances, size=20):
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(size, len(variances))))[0]
    return GaussianDenoiser(np.zeros(size, np.float32), basis.astype(np.float32), np.asarray(variances, np.float32))


@pytest.mark.parametrize("sigma", [0.1, 1.0, 10.0])
def test_dense_and_products_agree_with_the_gaussian(sigma):
    variances = np.array([4.0, 2, 1, 0.5, 0.1, 0.1, 0.02, 0.01])
    denoiser = gaussian(variances)
    gains = variances / (variances + sigma**2)
    wanted = numerical_rank(gains)
    x = np.asarray(jax.random.normal(KEY, (3, 20)), np.float32)
    dense = jacobian_ranks(denoiser, x, np.float32(sigma))
    np.testing.assert_allclose(dense.values[:, :8], np.tile(gains, (3, 1)), atol=2e-6)
    assert (dense.rank == wanted).all() and (dense.low == dense.high).all() and not dense.is_bound.any()
    rough = jacobian_ranks(denoiser, x, np.float32(sigma), method="products", count=8, probes=8, key=KEY)
    assert (rough.rank == wanted).all() and (rough.low == wanted).all() and (rough.high == wanted).all()
    np.testing.assert_allclose(rough.energy, np.square(gains).sum(), rtol=1e-4)
    assert not rough.is_bound.any()  # All eight are found, and they hold the share.


def test_the_energy_of_the_rest_bounds_the_rank():
    """Of 60 equal values and 4 large ones only 6 are looked for: what they leave is estimated, and its error is
    right.
    """
    variances = np.concatenate([np.full(4, 100.0), np.full(60, 1.0)])
    denoiser, sigma = gaussian(variances, 80), 5.0
    gains = variances / (variances + sigma**2)
    exact = np.square(gains).sum()
    x = np.asarray(jax.random.normal(KEY, (12, 80)), np.float32)
    found = jacobian_ranks(denoiser, x, np.float32(sigma), method="products", count=6, probes=16, key=KEY)
    scores = (found.energy - exact) / found.energy_error
    assert abs(scores.mean()) < 4 / np.sqrt(12) and 0.4 < scores.std() < 2.5
    wanted = numerical_rank(gains)
    assert (found.low <= wanted).mean() > 0.8 and (found.high >= wanted).mean() > 0.8
    # Three values do not hold the share: nothing bounds the rank from above but d.
    few = jacobian_ranks(denoiser, x[:2], np.float32(sigma), method="products", count=3, probes=16, key=KEY)
    assert (few.rank > 3).all() and (few.high == 80).all() and (few.low >= 4).all() and few.is_bound.all()


def test_two_subspaces_have_six_or_twelve_dimensions():
    """Check 6 of the paper's sheet: 6 where the component is settled, 12 where it is open."""
    law = MoLRG.random(KEY, (48,), (6, 6))
    clean = np.asarray(law.sample(KEY, np.arange(40)))
    noise = np.asarray(jax.random.normal(jax.random.key(1), clean.shape))
    mean = {}
    for sigma in (0.1, 0.3, 1.1, 3.3, 10.0):
        found = jacobian_ranks(law.denoiser, clean + np.float32(sigma) * noise, np.float32(sigma), batch_size=40)
        mean[sigma] = found.rank.mean()
        if sigma <= 0.3:
            assert (found.rank == 6).all()
    assert mean[3.3] == 12 and mean[10.0] == 12
    assert 9 <= mean[1.1] <= 11


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"eta": 1.0}, "eta = 1.0: must be strictly between 0 and 1"),
        ({"rule": "paper"}, "rule = 'paper': must be one of code, text"),
        ({"method": "sparse"}, "method = 'sparse'"),
        ({"method": "products"}, "key = None: must be given"),
        ({"method": "products", "key": KEY, "probes": 1}, "probes = 1"),
        ({"method": "products", "key": KEY, "count": 21}, "count = 21: must be from 1 to d = 20"),
        ({"batch_size": 0}, "batch_size = 0"),
    ],
)
def test_bad_options_are_refused(options, said):
    with pytest.raises(InputError, match=said):
        jacobian_ranks(gaussian([1.0, 0.5]), np.zeros((2, 20), np.float32), np.float32(1.0), **options)


def test_bad_values_are_refused():
    for values, said in (
        (np.array([1.0, 2.0]), "rising"),
        (np.array([1.0, -0.5]), "0 or more"),
        (np.array([np.nan]), "finite"),
    ):
        with pytest.raises(InputError, match=said):
            numerical_rank(values)
    with pytest.raises(InputError, match="non-finite Jacobian"):
        jacobian_ranks(lambda x, sigma: jnp.sqrt(x - 10), np.zeros((1, 20), np.float32), np.float32(1.0))


@pytest.mark.parametrize("scale", [1.0, 1e200, 1e-200])
def test_the_rank_has_no_scale(scale):
    assert numerical_rank(np.full(3, scale)) == 3
    assert numerical_rank(np.array([scale, 1e-3 * scale])) == 1
    assert numerical_rank(np.full((2, 3), scale) * [[1], [0]]).tolist() == [3, 0]
