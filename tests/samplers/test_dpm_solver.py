"""DPM-Solver++(2M) against the exact ODE, the paper's own form in NumPy, and Heun's sampler at equal cost."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.core.errors import InputError
from dgu.distributions.bases import initial_noise
from dgu.models import GaussianDenoiser
from dgu.samplers import Churn, DPMSolver, heun, karras_sigmas, sample

MODES = 48


@pytest.fixture
def gaussian(x64):
    """A Gaussian of known modes, and the exact end of the path from 80 to a noise level."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((MODES, MODES)))[0]
    variances, mean = np.geomspace(4.0, 1e-4, MODES), rng.standard_normal(MODES)
    x_init = 80.0 * rng.standard_normal(MODES)

    def exact(sigma):
        return mean + basis @ (np.sqrt((variances + sigma**2) / (variances + 80.0**2)) * (basis.T @ (x_init - mean)))

    return GaussianDenoiser(*(jnp.asarray(a) for a in (mean, basis, variances))), x_init, exact


def run(sampler, denoiser, x_init, sigmas, **options):
    return jax.jit(lambda denoiser, x, s: sampler(denoiser, x, s, **options))(denoiser, x_init, sigmas)


@pytest.mark.parametrize(
    "sampler",
    [DPMSolver(), DPMSolver(order=1), pytest.param(DPMSolver(lower_order_final=True), marks=pytest.mark.slow)],
)
def test_error_against_the_ode_falls_at_its_order(gaussian, sampler):
    denoiser, x_init, exact = gaussian
    counts, errors = (100, 400), []
    for num_steps in counts:
        _, path = run(sampler, denoiser, x_init, karras_sigmas(num_steps), observe=lambda state: state.x)
        errors.append(np.linalg.norm(path[-1] - exact(0.002)))
    order = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert abs(order - sampler.order) < 0.15, (order, errors)


@pytest.mark.parametrize("evaluations", [9, 35])
def test_beats_heun_at_equal_evaluations(gaussian, evaluations):
    """Of the exact path's end: 0.17 against 1.0 with 9 evaluations, 0.011 against 0.045 with 35."""
    denoiser, x_init, exact = gaussian
    errors = {}
    for sampler, num_steps in ((DPMSolver(), evaluations), (heun, (evaluations + 1) // 2)):
        x0 = run(sampler, denoiser, x_init, karras_sigmas(num_steps))
        errors[sampler] = np.linalg.norm(x0 - exact(0.0)) / np.linalg.norm(exact(0.0) - denoiser.mean)
    assert errors[DPMSolver()] < errors[heun] / 3, errors


def papers_form(denoise, x, sigmas, lower_order_final):
    """In lambda, with alpha = 1: ``x' = (sigma' / sigma) x - (e^{-h} - 1) D`` and the ratio r of the paper."""
    lam = [-math.log(s) for s in sigmas[:-1]]
    before = None
    for i in range(len(sigmas) - 2):
        h, now = lam[i + 1] - lam[i], denoise(x, sigmas[i])
        target = now
        if i > 0 and not (lower_order_final and i == len(sigmas) - 3):
            r = (lam[i] - lam[i - 1]) / h
            target = (1 + 1 / (2 * r)) * now - 1 / (2 * r) * before
        x = sigmas[i + 1] / sigmas[i] * x - math.expm1(-h) * target
        before = now
    return denoise(x, sigmas[-2])


@pytest.mark.parametrize("lower_order_final", [False, True])
def test_equals_the_papers_form_in_numpy(x64, strict_dtypes, mixtures, lower_order_final):
    make, in_numpy = mixtures
    mixture, sigmas = make(12, jnp.float64), karras_sigmas(7)
    x_init = sigmas[0] * np.random.default_rng(2).standard_normal((3, 4))
    expected = papers_form(lambda x, s: in_numpy(mixture, x, s), x_init, sigmas, lower_order_final)
    sampler = DPMSolver(lower_order_final=lower_order_final)
    concrete = jax.jit(lambda m, x: sampler(m, x, sigmas))(mixture, x_init)
    for actual in (concrete, run(sampler, mixture, x_init, sigmas)):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12 * np.abs(x_init).max())


def test_states_and_short_grids(x64, mixtures):
    mixture, sigmas = mixtures[0](6, jnp.float64), karras_sigmas(5)
    x0, states = run(DPMSolver(), mixture, sigmas[0] * jnp.ones(6), sigmas, observe=lambda state: state)
    np.testing.assert_array_equal(states.step, np.arange(5))
    np.testing.assert_array_equal(states.x_next[:-1], states.x[1:])
    np.testing.assert_array_equal(x0, states.x_next[-1])
    np.testing.assert_array_equal(states.sigma, states.sigma_hat)
    for x, sigma, denoised in zip(states.x, states.sigma, states.denoised):
        np.testing.assert_allclose(denoised, mixture(x, sigma), rtol=1e-12, atol=1e-14)
    for grid in (np.array([0.7, 0.0]), np.array([0.7, 0.1, 0.0])):
        steps = papers_form(lambda x, s: np.asarray(mixture(x, s)), np.ones(6), grid, False)
        np.testing.assert_allclose(run(DPMSolver(), mixture, jnp.ones(6), grid), steps, rtol=1e-12)


def test_sample_runs_it_and_refuses_churn(mixtures):
    mixture, key, sigmas = mixtures[0](6, jnp.float32), jax.random.key(0), karras_sigmas(8)
    options = {"shape": (6,), "batch_size": 4, "solver": DPMSolver()}
    whole = sample(mixture, key, range(11), sigmas, **options)
    one_device = sample(mixture, key, [9, 2], sigmas, devices=jax.devices()[:1], **options)
    np.testing.assert_array_equal(one_device, whole[[9, 2]])
    alone = run(DPMSolver(), mixture, jnp.float32(80) * initial_noise(key, 9, (6,)), jnp.float32(sigmas))
    np.testing.assert_allclose(whole[9], alone, rtol=0, atol=1e-5)
    with pytest.raises(InputError, match=r"churn.rate = 2.0: must be 0: DPMSolver adds no noise"):
        sample(mixture, key, [0], sigmas, churn=Churn(2.0), **options)


def test_gradients_equal_finite_differences(x64, mixtures):
    mixture, sigmas, rng = mixtures[0](4, jnp.float64), karras_sigmas(6, 0.02, 5.0), np.random.default_rng(5)
    x = jnp.asarray(5 * rng.standard_normal((2, 4)))

    @jax.jit
    def loss(denoiser, x, sigmas):
        return jax.vmap(lambda x: DPMSolver()(denoiser, x, sigmas).sum())(x).sum()

    point = (mixture, x, jnp.asarray(sigmas))
    gradients = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*point)
    direction = jax.tree.map(lambda a: jnp.asarray(rng.standard_normal(a.shape)) * (a != 0), point)

    def moved(h):
        return loss(*jax.tree.map(lambda a, d: a + h * d, point, direction))

    h = 1e-4
    central = (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h)
    slope = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradients, direction)))
    np.testing.assert_allclose(slope, central, rtol=1e-6)


def test_lowers_for_every_platform(mixtures):
    program = jax.jit(lambda m, x, s: jax.vmap(lambda x: DPMSolver()(m, x, s))(x))
    arguments = (mixtures[0](6, jnp.float32), jnp.ones((2, 6)), jnp.asarray(karras_sigmas(5), jnp.float32))
    exported = jax.export.export(program, platforms=["cpu", "cuda", "tpu"])(*arguments)
    assert exported.platforms == ("cpu", "cuda", "tpu")


def test_bad_input_is_named(mixtures):
    with pytest.raises(InputError, match="order = 3: must be 1 or 2"):
        DPMSolver(order=3)
    with pytest.raises(InputError, match="sigmas = "):
        DPMSolver()(mixtures[0](6, jnp.float32), jnp.ones(6), karras_sigmas(4)[:-1])
