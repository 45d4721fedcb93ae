"""The Heun sampler against closed forms, an independent NumPy loop, finite differences, and itself step by step."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.core import keys
from dgu.core.errors import InputError
from dgu.models import GaussianDenoiser
from dgu.samplers import Churn, heun, heun_step, karras_sigmas

PAPER = Churn(40.0, 0.05, 50.0, 1.003)
MODES = 48


@pytest.fixture
def gaussian(x64):
    """A Gaussian of known modes: mean (48,), an orthonormal basis, variances over six decades."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((MODES, MODES)))[0]
    variances = np.geomspace(4.0, 1e-6, MODES)
    return GaussianDenoiser(*(jnp.asarray(a) for a in (rng.standard_normal(MODES), basis, variances)))


def run(denoiser, x_init, sigmas, **options):
    return jax.jit(lambda denoiser, x, s: heun(denoiser, x, s, **options))(denoiser, x_init, sigmas)


def step_gain(variances, sigma_hat, sigma_next):
    """Gain of a mode of a Gaussian over one step after the noise is added; Euler's where ``sigma_next`` is 0."""
    slope = sigma_hat / (variances + sigma_hat**2)
    euler = 1 + (sigma_next - sigma_hat) * slope
    if sigma_next == 0:
        return euler
    slope_next = sigma_next / (variances + sigma_next**2)
    return 1 + (sigma_next - sigma_hat) / 2 * (slope + slope_next * euler)


@pytest.mark.parametrize("num_steps", [18, 256])
def test_deterministic_sampler_is_the_product_of_its_gains(gaussian, num_steps):
    sigmas = karras_sigmas(num_steps)
    x_init = sigmas[0] * np.random.default_rng(1).standard_normal(MODES)
    gains = math.prod(step_gain(np.asarray(gaussian.variances), a, b) for a, b in itertools.pairwise(sigmas))
    basis, mean = np.asarray(gaussian.basis), np.asarray(gaussian.mean)
    expected = mean + basis @ (gains * (basis.T @ (x_init - mean)))
    error = np.abs(run(gaussian, x_init, sigmas) - expected).max()
    assert error < 1e-12 * np.abs(x_init).max()
    assert error < 1e-11 * np.abs(expected).max()


def test_error_against_the_ode_falls_with_order_two(gaussian):
    """At sigma_min, before the Euler step to zero; the exact path of a mode is proportional to sqrt(lam + sigma^2)."""
    counts, errors = np.array([160, 320, 640]), []
    x_init = 80.0 * np.random.default_rng(1).standard_normal(MODES)
    basis, mean, variances = (np.asarray(a) for a in (gaussian.basis, gaussian.mean, gaussian.variances))
    exact = np.sqrt((variances + 0.002**2) / (variances + 80.0**2)) * (basis.T @ (x_init - mean))
    for num_steps in counts:
        _, path = run(gaussian, x_init, karras_sigmas(int(num_steps)), observe=lambda state: state.x)
        errors.append(np.linalg.norm(basis.T @ (np.asarray(path[-1]) - mean) - exact))
    order = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert abs(order - 2) < 0.1, (order, errors)


def reference(denoise, x, sigmas, rate, s_min, s_max, s_noise, eps):
    """Algorithm 2 of EDM written out in NumPy."""
    num_steps = len(sigmas) - 1
    for i in range(num_steps):
        t, t_next = sigmas[i], sigmas[i + 1]
        gamma = min(rate / num_steps, math.sqrt(2) - 1) if s_min <= t <= s_max else 0.0
        t_hat = t + gamma * t
        x_hat = x + math.sqrt(t_hat**2 - t**2) * s_noise * eps[i]
        d = (x_hat - denoise(x_hat, t_hat)) / t_hat
        x = x_hat + (t_next - t_hat) * d
        if t_next != 0:
            d_next = (x - denoise(x, t_next)) / t_next
            x = x_hat + (t_next - t_hat) * (0.5 * d + 0.5 * d_next)
    return x


@pytest.mark.parametrize("churn", [Churn(), Churn(3.0, 0.05, 50.0, 1.003), Churn(40.0)])
def test_equals_algorithm_2_written_in_numpy(x64, strict_dtypes, mixtures, churn):
    make, in_numpy = mixtures
    mixture, sigmas = make(12, jnp.float64), karras_sigmas(14)
    rng = np.random.default_rng(2)
    x_init, eps = sigmas[0] * rng.standard_normal((3, 4)), rng.standard_normal((14, 3, 4))
    amounts = (churn.rate, churn.s_min, churn.s_max, churn.s_noise)
    expected = reference(lambda x, s: in_numpy(mixture, x, s), x_init, sigmas, *amounts, eps)
    actual = run(mixture, x_init, sigmas, churn=churn, eps=eps)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-11 * np.abs(expected).max())


def test_key_draws_are_the_recorded_ones(mixtures):
    mixture, sigmas, key = mixtures[0](6, jnp.float32), karras_sigmas(7), jax.random.key(3)
    x_init = sigmas[0] * jnp.ones(6)
    eps = jnp.stack([keys.draw_step(key, step, (6,)) for step in range(7)])
    replayed = run(mixture, x_init, sigmas, churn=PAPER, eps=eps)
    drawn = jax.jit(lambda m, x, s, k: heun(m, x, s, key=k, churn=PAPER))(mixture, x_init, sigmas, key)
    np.testing.assert_array_equal(drawn, replayed)
    assert np.abs(replayed - run(mixture, x_init, sigmas)).max() > 1e-3


def test_observers_equal_a_loop_of_steps(x64, mixtures):
    mixture, sigmas, num_steps = mixtures[0](6, jnp.float64), karras_sigmas(9), 9
    rng = np.random.default_rng(4)
    x_init, eps = jnp.asarray(sigmas[0] * rng.standard_normal(6)), jnp.asarray(rng.standard_normal((num_steps, 6)))
    x0, states = run(mixture, x_init, sigmas, churn=PAPER, eps=eps, observe=lambda state: state)
    x = x_init
    for i in range(num_steps):
        sigma, sigma_next = sigmas[i], sigmas[i + 1]
        gamma = min(40 / num_steps, math.sqrt(2) - 1) if 0.05 <= sigma <= 50 else 0.0
        sigma_hat = sigma * (1 + gamma)
        x_hat = x + np.sqrt(sigma_hat**2 - sigma**2) * 1.003 * eps[i]
        options = {"eps": eps[i], "gamma": gamma, "s_noise": 1.003, "second_order": i < num_steps - 1}
        x_next = heun_step(mixture, x, sigma, sigma_next, **options)
        expected = (i, sigma, sigma_hat, sigma_next, x, x_hat, mixture(x_hat, sigma_hat), x_next)
        for name, stacked, value in zip(states._fields, states, expected):
            np.testing.assert_allclose(stacked[i], value, rtol=1e-11, atol=1e-11, err_msg=f"{name} at step {i}")
        x = x_next
    np.testing.assert_array_equal(x0, states.x_next[-1])


def test_an_observer_may_return_any_tree_and_a_grid_may_have_one_step(x64, gaussian):
    sigmas = np.array([0.5, 0.0])
    x0, seen = run(gaussian, jnp.ones(MODES), sigmas, observe=lambda s: {"norm": jnp.linalg.norm(s.x), "one": 1.0})
    np.testing.assert_allclose(x0, gaussian(jnp.ones(MODES), 0.5), atol=1e-14)
    np.testing.assert_allclose(seen["norm"], [math.sqrt(MODES)])
    np.testing.assert_array_equal(seen["one"], [1.0])


def test_the_state_keeps_its_dtype(x64, mixtures):
    mixture = mixtures[0](6, jnp.float32)
    assert run(mixture, jnp.ones(6, jnp.float32), karras_sigmas(3)).dtype == jnp.float32
    assert run(mixture, np.ones(6), karras_sigmas(3)).dtype == jnp.float64


# Gradients -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def problem():
    """A loss of a batch of samples as a function of everything that can be differentiated, and one point."""
    with jax.enable_x64(True):
        from conftest import make_mixture  # the test directory's own

        num_steps, batch, size = 6, 3, 4
        rng = np.random.default_rng(5)
        sigmas = karras_sigmas(num_steps, 0.02, 5.0)
        point = {
            "denoiser": make_mixture(size, jnp.float64),
            "x_init": jnp.asarray(sigmas[0] * rng.standard_normal((batch, size))),
            "sigmas": jnp.asarray(np.tile(sigmas, (batch, 1))),
            "labels": jnp.asarray(rng.standard_normal((batch, 3))),
        }
        eps, weights = (jnp.asarray(rng.standard_normal(s)) for s in ((num_steps, size), (size,)))

        def loss(denoiser, x_init, sigmas, labels, rate):
            churn = Churn(rate, 0.05, 2.0, 1.003)
            return jnp.vdot(weights, heun(denoiser.given(labels), x_init, sigmas, churn=churn, eps=eps))

        axes = (None, 0, 0, 0, None)
        gradients = jax.jit(jax.vmap(jax.grad(loss, argnums=(0, 1, 2, 3, 4)), in_axes=axes))
        return point, jax.jit(jax.vmap(loss, in_axes=axes)), gradients


@pytest.mark.parametrize("rate", [0.0, 1.5])
@pytest.mark.parametrize("name", ["denoiser", "x_init", "sigmas", "labels"])
def test_gradients_equal_finite_differences(x64, problem, name, rate):
    """With churn, steps inside and outside its range: the gradient is finite where no noise is added too."""
    point, loss, gradients = problem
    gradient = gradients(*point.values(), rate)[list(point).index(name)]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    rng = np.random.default_rng(6)
    leaves, tree = jax.tree.flatten(point[name])
    for number, leaf in enumerate(leaves):
        direction = jnp.asarray(rng.standard_normal(leaf.shape))
        slope = np.asarray(jax.tree.leaves(gradient)[number] * (direction if name != "denoiser" else direction[None]))

        def moved(h, number=number, direction=direction):
            shifted = list(leaves)
            shifted[number] = leaves[number] + h * direction
            return loss(*(point | {name: jax.tree.unflatten(tree, shifted)}).values(), rate)

        h = 1e-4
        central = (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h)  # fourth order
        expected = slope.reshape(len(slope), -1).sum(1)
        np.testing.assert_allclose(central, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


def test_gradient_by_the_churn_rate_is_finite_at_steps_without_churn(x64, problem):
    point, loss, gradients = problem
    gradient = gradients(*point.values(), 1.5)[-1]
    central = (loss(*point.values(), 1.5 + 1e-5) - loss(*point.values(), 1.5 - 1e-5)) / 2e-5
    np.testing.assert_allclose(gradient, central, rtol=1e-6)
    assert np.isfinite(gradients(*point.values(), 0.0)[-1]).all()


# Lowering, traces, bad input -----------------------------------------------------------------------------------------


def test_lowers_for_every_platform(mixtures):
    mixture, sigmas = mixtures[0](6, jnp.float32), jnp.asarray(karras_sigmas(5), jnp.float32)
    program = jax.jit(lambda m, x, s, k, c: jax.vmap(lambda x: heun(m, x, s, key=k, churn=c))(x))
    arguments = (
        mixture,
        jnp.ones((2, 6)),
        sigmas,
        jax.random.key(0),
        Churn(*map(jnp.float32, (40.0, 0.05, 50.0, 1.0))),
    )
    exported = jax.export.export(program, platforms=["cpu", "cuda", "tpu"])(*arguments)
    assert exported.platforms == ("cpu", "cuda", "tpu")
    np.testing.assert_array_equal(exported.call(*arguments), program(*arguments))


def test_bad_input_is_named(mixtures):
    mixture, sigmas, x = mixtures[0](6, jnp.float32), karras_sigmas(5), jnp.ones(6)
    key = jax.random.key(0)
    for said, arguments, options in [
        ("churn.rate = 40.0: .* constant 0", (x, sigmas), {"churn": PAPER}),
        ("key and eps", (x, sigmas), {"key": key, "eps": jnp.ones((5, 6))}),
        (r"eps.shape = \(4, 6\)", (x, sigmas), {"eps": jnp.ones((4, 6))}),
        ("sigmas = .* end in 0", (x, sigmas[:-1]), {}),
        ("sigmas = .* falling", (x, np.append(sigmas[:-1][::-1], 0.0)), {}),
        ("sigmas of shape", (x, sigmas[-1:]), {}),
        ("sigmas of shape", (x, np.stack([sigmas, sigmas])), {}),
        ("churn.rate = -1.0", (x, sigmas), {"key": key, "churn": Churn(-1.0)}),
        ("churn.s_min = 3.0", (x, sigmas), {"key": key, "churn": Churn(1.0, 3.0, 2.0)}),
    ]:
        with pytest.raises(InputError, match=said):
            heun(mixture, *arguments, **options)
    with pytest.raises(InputError, match=r"churn.rate = .* constant 0"):
        jax.jit(lambda rate: heun(mixture, x, sigmas, churn=Churn(rate)))(40.0)
    with pytest.raises(InputError, match=r"gamma = 0.1"):
        heun_step(mixture, x, 1.0, 0.5, gamma=0.1)
    with pytest.raises(InputError, match=r"sigma_next = 0.0"):
        heun_step(mixture, x, 1.0, 0.0)
    with pytest.raises(InputError, match=r"eps.shape = \(6,\)"):
        heun_step(mixture, x.reshape(2, 3), 1.0, 0.5, eps=x)
    with pytest.raises(InputError, match=r"it returned shape \(1, 6\)"):
        heun(lambda x, sigma: x[None], x, sigmas)
