"""Linearity scores of maps known to be linear, affine and neither, and of the memorising denoiser."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.analysis import additivity, homogeneity, linearity, mixing_weights
from dgu.core.errors import InputError
from dgu.core.noisy import noisy_input
from dgu.models import EmpiricalDenoiser, GaussianDenoiser, LinearDenoiser
from tests.scale_mixtures import GRID, D, scale_mixture

KEY = jax.random.key(5)
ALPHAS = np.linspace(0.99, 0.5, 5)


def affine(bias, dtype=np.float32):
    rng = np.random.default_rng(0)
    return LinearDenoiser(np.ones(1), rng.standard_normal((1, D, D)).astype(dtype), np.full((1, D), bias, dtype))


def test_a_linear_map_is_linear_in_every_sense():
    held = scale_mixture(20, 1)
    for scores in (
        linearity(affine(0.0), held, GRID, KEY, pairs=10, weights=mixing_weights(ALPHAS[[0, 3]])),
        homogeneity(affine(0.0), held, GRID, KEY, pairs=10),
        additivity(affine(0.0), held, GRID, KEY, pairs=10),
    ):
        for form in ("paper", "code"):
            np.testing.assert_allclose(scores.cosine(form).value, 1, atol=1e-6)
            np.testing.assert_allclose(scores.nmse(form).value, 0, atol=3e-6)


def test_scores_of_an_affine_map_are_its_biases_share(x64):
    """``D(a x + b z) - a D(x) - b D(z) = (1 - a - b) bias``, in whichever form of the score."""
    held, sigmas = scale_mixture(12, 1, np.float64), GRID[[2, 6]]
    model = affine(0.7, np.float64)
    found = linearity(model, held, sigmas, KEY, pairs=6, weights=mixing_weights([0.8, 0.5]), batch_size=4)
    added = additivity(model, held, sigmas, KEY, pairs=6)
    scaled = homogeneity(model, held, sigmas, KEY, pairs=6, factors=(0.5, -2.0), batch_size=4)
    noisy = jax.jit(jax.vmap(noisy_input, in_axes=(None, 0, 0, None, None)))
    inputs = [np.asarray(noisy(KEY, held, np.arange(12), sigma, level)) for level, sigma in enumerate(sigmas)]
    weight, bias = np.asarray(model.weights)[0], np.asarray(model.biases)[0]
    for scores, coefficients in (
        (found, mixing_weights([0.8, 0.5])),
        (added, np.ones((1, 2))),
        (scaled, np.array([[0.5, 0.0], [-2.0, 0.0]])),
    ):
        np.testing.assert_allclose(scores.coefficients, coefficients)
        paper, code, cosine = np.zeros((3, len(sigmas), len(coefficients), 6))
        for level in range(len(sigmas)):
            for mix, (a, b) in enumerate(coefficients):
                for pair in range(6):
                    x, z = inputs[level][2 * pair : 2 * pair + 2]
                    given = weight @ (a * x + b * z) + bias
                    target = a * (weight @ x + bias) + b * (weight @ z + bias)
                    off = np.linalg.norm((1 - a - b) * bias)
                    paper[level, mix, pair] = off / np.linalg.norm(given)
                    code[level, mix, pair] = off / np.linalg.norm(target)
                    cosine[level, mix, pair] = given @ target / np.linalg.norm(given) / np.linalg.norm(target)
        np.testing.assert_allclose(scores.nmse().value, paper.mean(-1), rtol=1e-9)
        np.testing.assert_allclose(scores.nmse("code").value, code.mean(-1), rtol=1e-9)
        np.testing.assert_allclose(scores.cosine("code").value, cosine.mean(-1), rtol=1e-9)
        np.testing.assert_allclose(scores.cosine().value, np.abs(cosine).mean(-1), rtol=1e-9)
        half = 2.5705818366147395 * cosine.std(-1, ddof=1) / np.sqrt(6)  # t of 5 degrees of freedom
        np.testing.assert_allclose(scores.cosine("code").high, cosine.mean(-1) + half, rtol=1e-9)
    # The cosine keeps its sign in the code's form alone.
    turned = homogeneity(lambda x, sigma: jnp.abs(x), held, sigmas, KEY, pairs=6, factors=(-1.0,))
    np.testing.assert_allclose([turned.cosine("code").value, turned.cosine().value], [[[-1]] * 2, [[1]] * 2])


@pytest.mark.slow
def test_the_memorising_denoiser_is_not_linear_at_middle_and_low_noise_and_least_so_at_equal_weights():
    train, held = scale_mixture(1000, 0), scale_mixture(1200, 1)
    train = train - train.mean(0)  # a bias would be a defect of its own
    mixes = mixing_weights(ALPHAS)
    sigmas = GRID[[0, 5, 6, 7, 9]]
    points = linearity(EmpiricalDenoiser(train), held, sigmas, KEY, pairs=600, weights=mixes).cosine().value
    gaussian = linearity(GaussianDenoiser.fit(train), held, sigmas, KEY, weights=mixes).cosine().value
    assert points[0, -1] > 0.99 and (points[sigmas <= 0.12, -1] < 0.9).all(), points[:, -1]
    np.testing.assert_allclose(gaussian, 1, atol=1e-5)
    # By symmetry the curve over alpha is flat at equal weights: least there, up to its error of about 0.005.
    assert (points[1:, -1] <= points[1:].min(axis=1) + 0.01).all() and (np.diff(points[1:4, :3], axis=1) < 0).all()


def test_bad_input_is_named():
    held, model = scale_mixture(20, 1), affine(0.0)
    with pytest.raises(InputError, match=r"weights\[1\] = \(0\.5, 0\.5\): must have alpha\^2 \+ beta\^2 = 1, not 0\.5"):
        linearity(model, held, GRID, KEY, pairs=4, weights=np.array([[1.0, 0.0], [0.5, 0.5]]))
    with pytest.raises(InputError, match="images = '20 images': must be at least 22"):
        linearity(model, held, GRID, KEY, pairs=11)
    with pytest.raises(InputError, match="pairs = 1"):
        linearity(model, held, GRID, KEY, pairs=1)
    with pytest.raises(InputError, match="squares = "):
        mixing_weights([1.5])
    with pytest.raises(InputError, match="form = 'other'"):
        linearity(model, held, GRID, KEY, pairs=10).cosine("other")
    with pytest.raises(InputError, match=r"it returned shape \(1, 64\)"):
        linearity(lambda x, sigma: x[None], held, GRID, KEY, pairs=10)
    broken = lambda x, sigma: jnp.where(sigma < 10, jnp.nan, x)  # noqa: E731
    with pytest.raises(InputError, match=f"non-finite output at sigma = {GRID[3]:.6g}, example 0"):
        linearity(broken, held, GRID, KEY, pairs=10)
    with pytest.raises(InputError, match="output 0 at sigma = 80, pair 0"):
        linearity(LinearDenoiser(np.ones(1), np.zeros((1, D, D)), np.zeros((1, D))), held, GRID, KEY, pairs=10)
