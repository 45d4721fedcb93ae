"""Singular triplets against whole Jacobians, their memory, and what the leading ones of mixtures are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.analysis import perturbed_images, singular_triplets, subspace_overlap, vector_correlation
from dgu.analysis.linearity.jacobians import _push, _step, transposed_products
from dgu.core.errors import InputError
from dgu.models import ADMConfig, EDMNetwork, EmpiricalDenoiser, GaussianDenoiser, MoLRGDenoiser
from dgu.samplers import heun, karras_sigmas
from tests.scale_mixtures import D, scale_mixture

EVENT, SIZE = (10, 10, 1), 100
KEY = jax.random.key(11)


def mixture(dtype=np.float64):
    """Three low-rank Gaussians in 100 dimensions that share no subspace."""
    rng = np.random.default_rng(0)
    bases = np.stack([np.linalg.qr(rng.standard_normal((SIZE, 12)))[0].reshape(*EVENT, 12) for _ in range(3)])
    variances = np.geomspace(20.0, 0.5, 12) * np.array([[1.0], [0.7], [0.5]])
    model = MoLRGDenoiser(np.ones(3) / 3, 0.3 * rng.standard_normal((3, *EVENT)), bases, variances, 0.05)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), model)


@jax.jit
def jacobian_of(denoiser, x, sigma):
    return jax.jacfwd(lambda y: denoiser(y, sigma))(x)


def dense(denoiser, x, sigma):
    return np.asarray(jacobian_of(denoiser, x, sigma)).reshape(x.size, x.size)


@jax.jit
def sampled(denoiser, states, grid):
    return jax.vmap(lambda x: heun(denoiser, x, grid))(states)


def compare(found, row, jacobian, atol):
    """Values, and vectors where they are apart from their neighbours, against NumPy's decomposition."""
    left, values, right = np.linalg.svd(jacobian)
    count = len(found.values[row])
    np.testing.assert_allclose(found.values[row], values[:count], atol=atol * values[0])
    gaps = np.minimum(np.abs(np.diff(values))[:count], np.r_[np.inf, np.abs(np.diff(values))[: count - 1]])
    apart = gaps > 1e-3 * values[0]
    for ours, theirs in ((found.left, left.T), (found.right, right)):
        flat = ours[row].reshape(count, -1)
        np.testing.assert_allclose(flat @ flat.T, np.eye(count), atol=10 * atol)
        np.testing.assert_allclose(np.abs((flat * theirs[:count]).sum(1))[apart], 1, atol=10 * atol)
    np.testing.assert_allclose(
        (found.left[row] * found.values[row][:, None, None, None]).reshape(count, -1),
        (jacobian @ found.right[row].reshape(count, -1).T).T,
        atol=20 * atol * values[0],
    )
    assert apart.sum() >= count // 2


def test_triplets_are_those_of_the_whole_jacobian(x64):
    model, sigmas = mixture(), np.array([3.0, 0.6, 0.6])
    keys = jax.random.split(jax.random.key(2), 3)
    clean = np.asarray(jax.jit(jax.vmap(model.draw))(keys))
    x = clean + sigmas[:, None, None, None] * np.random.default_rng(2).standard_normal((3, *EVENT))
    found = singular_triplets(model, x, sigmas, 6, KEY, tolerance=1e-9, batch_size=2)
    assert (found.residuals <= 1e-9 * found.values[:, :1]).all()
    # The last one in a batch that is filled up.
    for row, sigma in enumerate(sigmas):
        compare(found, row, dense(model, x[row], sigma), 1e-6)


@pytest.mark.slow  # compiling the network thrice; a map that is not symmetric is below
def test_a_network_and_a_map_that_is_not_symmetric(x64):
    unet = ADMConfig(8, 1, 1, 0, model_channels=8, channel_mult=(1,), num_blocks=1, attn_resolutions=())
    network = EDMNetwork(unet)
    rng = np.random.default_rng(3)
    params = jax.tree.map(lambda leaf: 0.3 * rng.standard_normal(leaf.shape), network.abstract_params)
    model = network.denoiser(params)
    x = rng.standard_normal((2, 8, 8, 1))
    sigmas = np.array([1.0, 4.0])
    found = singular_triplets(model, x, sigmas, 3, KEY, tolerance=1e-8, max_rounds=60)
    assert (found.residuals <= 1e-8 * found.values[:, :1]).all()
    matrix = dense(model, jnp.asarray(x[1]), 4.0)
    assert np.linalg.norm(matrix - matrix.T) > 0.1 * np.linalg.norm(matrix)
    compare(found, 1, matrix, 1e-6)


def test_equal_values_and_a_rank_below_the_number_asked_for(x64):
    rng = np.random.default_rng(4)
    left, right = (np.linalg.qr(rng.standard_normal((30, 4)))[0] for _ in range(2))
    matrix = (left * np.array([2.0, 2.0, 2.0, 0.5])) @ right.T
    model = jax.tree_util.Partial(lambda m, x, sigma: m @ x, jnp.asarray(matrix))
    found = singular_triplets(model, np.zeros((1, 30)), 1.0, 6, KEY, tolerance=1e-10)
    np.testing.assert_allclose(found.values[0], [2, 2, 2, 0.5, 0, 0], atol=1e-10)
    np.testing.assert_allclose(subspace_overlap(found.left[0, :3].T, left[:, :3]), 1, atol=1e-10)
    np.testing.assert_allclose(subspace_overlap(found.right[0, :4].T, right), 1, atol=1e-10)


def test_memory_is_linear_in_the_size_times_the_number():
    size, count = 8192, 4
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((size, 3)))[0].astype(np.float32)
    model = jax.tree.map(jnp.asarray, MoLRGDenoiser(np.ones(1), np.zeros((1, size)), basis[None], np.ones((1, 3)), 0.1))
    arguments = model, jnp.ones((1, size)), jnp.ones(1), jnp.ones((1, count, size))
    for program in (_push, transposed_products):
        memory = program.lower(*arguments).compile().memory_analysis()
        assert memory.temp_size_in_bytes <= 24 * size * count * 4 < size * size * 4 / 50


@pytest.mark.slow
def test_leading_vectors_are_principal_components_at_high_noise_and_not_in_between(x64):
    """Li et al., Appendix H, with the memorising denoiser as teacher."""
    train = scale_mixture(400, 0, np.float64)
    model, gaussian = EmpiricalDenoiser(train), GaussianDenoiser.fit(train)
    basis = np.asarray(gaussian.basis)[:, :3]
    correlations = []
    for sigma in (80.0, 1.0):
        noise = np.random.default_rng(5).standard_normal((6, D))
        found = singular_triplets(model, scale_mixture(6, 1, np.float64) + sigma * noise, sigma, 3, KEY, tolerance=1e-8)
        matched = vector_correlation(np.swapaxes(found.left, 1, 2), basis)
        correlations.append(np.einsum("bii->bi", matched).mean(axis=0))
    high, low = correlations
    assert (high >= 0.95).all() and (low < high - 0.2).all(), correlations
    # And of the Gaussian denoiser they are the components, whatever the level.
    exact = singular_triplets(gaussian, scale_mixture(1, 1, np.float64), 0.3, 3, KEY, tolerance=1e-10)
    np.testing.assert_allclose(vector_correlation(exact.left[0].T, basis), np.eye(3), atol=1e-7)


def test_perturbed_images_are_samples_from_the_moved_states(x64):
    model, grid = mixture(), karras_sigmas(6, sigma_max=2.0)
    rng = np.random.default_rng(6)
    x = jnp.asarray(rng.standard_normal(EVENT))
    directions = np.linalg.qr(rng.standard_normal((SIZE, 2)))[0].T.reshape(2, *EVENT)
    images = perturbed_images(model, x, directions, [0.0, -5.0, 2.0], grid)
    assert images.shape == (2, 3, *EVENT)
    moved = jnp.stack([x, x - 5 * 2.0 * directions[1], x + 2 * 2.0 * directions[0]])
    np.testing.assert_allclose(images[[0, 1, 0], [0, 1, 2]], sampled(model, moved, grid), atol=1e-10)
    # A shorter grid needs no other program.
    before = _step._cache_size()
    shorter = perturbed_images(model, x, directions, [0.0, -5.0, 2.0], grid[3:])
    np.testing.assert_allclose(shorter[0, 0], sampled(model, moved[:1], grid[3:])[0], atol=1e-10)
    assert _step._cache_size() == before


def test_bad_input_is_named():
    model, x = mixture(np.float32), np.zeros((2, *EVENT), np.float32)
    for said, options in (
        ("count = 0", {"count": 0}),
        ("count = 101", {"count": 101}),
        ("tolerance = 1.0", {"count": 2, "tolerance": 1.0}),
        ("max_rounds = 0", {"count": 2, "max_rounds": 0}),
        ("batch_size = 0", {"count": 2, "batch_size": 0}),
    ):
        with pytest.raises(InputError, match=said):
            singular_triplets(model, x, 1.0, key=KEY, **options)
    with pytest.raises(InputError, match=r"it returned shape \(10, 10\)"):
        singular_triplets(lambda x, sigma: x[..., 0], x, 1.0, 2, KEY)
    with pytest.raises(InputError, match="non-finite product with its Jacobian at sigma = 1, example 0"):
        singular_triplets(lambda x, sigma: jnp.sqrt(x), x, 1.0, 2, KEY)
    with pytest.raises(InputError, match=r"directions\.shape"):
        perturbed_images(model, jnp.zeros(EVENT), np.zeros((2, 3)), [1.0], karras_sigmas(4))
    with pytest.raises(InputError, match="sigmas = "):
        perturbed_images(model, jnp.zeros(EVENT), np.zeros((2, *EVENT)), [1.0], np.ones(3))
