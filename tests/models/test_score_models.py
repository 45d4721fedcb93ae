"""Boxes, the shallow network and random features against slow independent computations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from dgu.core.errors import InputError
from dgu.models import BoxMixture, RandomFeatures, RandomFeatureScore, ShallowNet, ShallowScore, gaussian_mixture
from dgu.samplers import VESDE

#: Evaluation as one program: run op by op, each operation compiles on its own.
BOTH = jax.jit(lambda density, x, sigma: (density(x, sigma), density.log_density(x, sigma)))
BOXES = BoxMixture.of([0.25, 0.75], [[-4.0, -1.0], [2.0, 0.0]], [[-2.0, 1.0], [3.0, 0.5]])


def test_noisy_density_and_posterior_mean_of_boxes_by_quadrature(x64):
    """Numerators and denominators of Bayes' rule by adaptive quadrature, one axis at a time."""
    sigma, x = 0.7, np.array([1.2, -0.3])
    masses, means = [], []
    for weight, low, high in zip(*(a.astype(float) for a in (BOXES.weights, BOXES.lows, BOXES.highs))):
        zeroth, first = [], []
        for j in range(2):
            for power, found in ((0, zeroth), (1, first)):
                value = integrate.quad(lambda u, p=power, j=j: u**p * stats.norm.pdf(x[j], u, sigma), low[j], high[j])
                found.append(value[0] / (high[j] - low[j]))
        masses.append(weight * np.prod(zeroth))
        means.append([first[0] / zeroth[0], first[1] / zeroth[1]])
    found, density = BOTH(BOXES, jnp.asarray(x), sigma)
    np.testing.assert_allclose(density, np.log(np.sum(masses)), rtol=1e-10)
    expected = np.array(masses) @ np.array(means) / np.sum(masses)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_boxes_far_away_at_no_noise_and_drawn():
    far = jnp.array([30.0, 40.0])
    np.testing.assert_allclose(BOTH(BOXES, far, 0.5)[0], [3.0, 0.5], atol=0.05)  # the nearest corner
    inside, outside = jnp.array([-3.0, 0.9]), jnp.array([0.0, 0.0])
    np.testing.assert_allclose(BOTH(BOXES, inside, 0.0)[1], np.log(0.25 / 4), rtol=1e-6)
    assert BOTH(BOXES, outside, 0.0)[1] == -jnp.inf
    draws = np.asarray(jax.jit(jax.vmap(BOXES.draw))(jax.random.split(jax.random.key(0), 4000)))
    left = draws[:, 0] < 0
    assert abs(left.mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 4000)
    assert draws[left].min(0) == pytest.approx([-4, -1], abs=0.02) and draws[~left].max(0) == pytest.approx(
        [3, 0.5], abs=0.02
    )
    np.testing.assert_allclose(draws[~left].var(0), [1 / 12, 0.25 / 12], rtol=0.1)


def test_gaussian_mixture_at_no_noise():
    mixture = gaussian_mixture([0.4, 0.6], np.array([[0.0], [2.0]]), np.array([1.0, 0.09]))
    x = np.array([-1.0, 1.8])
    expected = np.log(0.4 * stats.norm.pdf(x) + 0.6 * stats.norm.pdf(x, 2, 0.3))
    np.testing.assert_allclose(
        jax.vmap(lambda x: mixture.log_density(x, 0.0))(jnp.asarray(x)[:, None]), expected, rtol=1e-5
    )


def test_shallow_network_is_the_papers(x64):
    """The forward pass by NumPy, from the parameters as PyTorch would hold them."""
    net, sde = ShallowNet(width=5, dimension=2, divisor=4.0), VESDE()
    params, frozen = net.init(jax.random.key(0))
    score = ShallowScore(params, frozen, net, sde)
    x, t = np.array([0.5, -2.0]), 0.3
    p = {name: np.asarray(value, np.float64) for name, value in params.items()}
    phase = 2 * np.pi * np.asarray(frozen["frequencies"], np.float64) * t
    e = np.concatenate([np.sin(phase), np.cos(phase)])
    h = x @ p["x_kernel"] + p["x_bias"] + e @ p["t_kernel"] + p["t_bias"]
    out = (p["out_kernel"] @ (h / (1 + np.exp(-h))) + p["out_bias"]) / 4 / float(sde.std(t))
    np.testing.assert_allclose(jax.jit(lambda score, x: score(x, t))(score, x), out, rtol=1e-6)


def test_initial_layers_have_pytorchs_bounds():
    net = ShallowNet(width=400)
    params, frozen = net.init(jax.random.key(1), 400)
    for name, bound in (("x_kernel", 1), ("x_bias", 1), ("t_kernel", 0.5), ("t_bias", 0.5), ("out_kernel", 0.05)):
        values = np.asarray(params[name])
        assert 0.97 * bound < np.abs(values).max() <= bound, name
        np.testing.assert_allclose(values.std(), bound / np.sqrt(3), rtol=0.12)
    assert frozen["mask"].sum() == 400


def test_a_narrow_network_is_a_wide_one_with_units_off():
    """Same draws, output, and gradient; switched-off units get no gradient."""
    wide, narrow = ShallowNet(width=8), ShallowNet(width=3)
    key, x, e = jax.random.key(2), jnp.array([0.7]), jnp.arange(4.0)
    (p8, f8), (p3, f3) = wide.init(key, 3), narrow.init(key)
    f8, f3 = f8 | {"frequencies": f3["frequencies"]}, f3
    np.testing.assert_allclose(wide.apply(p8, f8, x, e), narrow.apply(p3, f3, x, e), rtol=1e-6)
    gradient = jax.jit(jax.grad(lambda p: wide.apply(p, f8, x, e)[0]))(p8)
    small = jax.jit(jax.grad(lambda p: narrow.apply(p, f3, x, e)[0]))(p3)
    for name in gradient:
        wide_part = np.asarray(gradient[name])
        if name != "out_bias":
            assert not wide_part[..., 3:].any()
            wide_part = wide_part[..., :3]
        np.testing.assert_allclose(wide_part, small[name], rtol=1e-5)


def test_random_features_by_hand(x64):
    features = RandomFeatures.draw(jax.random.key(0), 7, dimension=2, frequencies=1, reach=3.0)
    w, u = np.asarray(features.inner, np.float64), np.asarray(features.outer, np.float64)
    np.testing.assert_allclose(np.abs(w).sum(1) + np.abs(u).sum(1), 1, rtol=1e-6)
    x, t = np.array([0.2, -1.5]), 0.3
    e = 3.0 * np.array([1, np.sin(2 * np.pi * t), np.cos(2 * np.pi * t)])
    phi = np.maximum(w @ x + u @ e, 0) / np.sqrt(7)
    np.testing.assert_allclose(features(jnp.asarray(x), t), phi, rtol=1e-6)
    theta = np.random.default_rng(0).normal(size=(2, 7))
    score = RandomFeatureScore(features, jnp.asarray(theta))
    np.testing.assert_allclose(score(jnp.asarray(x), t), theta @ phi, rtol=1e-6)
    # (1 / m) A relu with A = sqrt(m) theta, and the norm of the kernel's space.
    np.testing.assert_allclose(score.norm, np.linalg.norm(np.sqrt(7) * theta) / np.sqrt(7), rtol=1e-6)
    wider = RandomFeatures.draw(jax.random.key(0), 9, dimension=2, frequencies=1)
    np.testing.assert_array_equal(wider.inner[:7], features.inner)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: BoxMixture.of([0.5, 0.4], np.zeros((2, 1)), np.ones((2, 1))), "weights = .* must be positive with sum 1"),
        (lambda: BoxMixture.of([1.0], np.ones((1, 1)), np.ones((1, 1))), "shortest side = 0.0: must be positive"),
        (lambda: ShallowNet(width=0), "width = 0: must be 1 or more"),
        (lambda: ShallowNet(divisor=-1.0), "divisor = -1.0: must be positive"),
        (lambda: RandomFeatures.draw(jax.random.key(0), 0), "width = 0: must be"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(make, words):
    with pytest.raises(InputError, match=words) as error:
        make()
    assert "\n" not in str(error.value)
