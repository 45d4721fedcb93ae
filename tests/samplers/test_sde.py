"""Linear SDEs against quadrature of their defining integrals, scores against closed forms, samplers against exact
laws.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from dgu.core import keys
from dgu.core.errors import InputError
from dgu.models import GaussianDenoiser, gaussian_mixture, two_modes
from dgu.samplers import (
    VESDE,
    VPSDE,
    DenoiserFromScore,
    ScoreFromDenoiser,
    ScoreOfDensity,
    SubVPSDE,
    as_denoiser,
    as_score,
    heun,
    karras_sigmas,
    probability_flow,
    reverse_sde,
)

PROCESSES = (VESDE(), VPSDE(), SubVPSDE(), VPSDE(beta_min=0.0, beta_max=3.0, t_max=2.0))


def ids(sde):
    return f"{type(sde).__name__}-{sde.t_max:g}"


@pytest.mark.parametrize("sde", PROCESSES, ids=ids)
def test_kernel_solves_the_sdes_integrals(x64, sde):
    """r = exp(int f) and v^2 = int g^2 / r^2, by adaptive quadrature of drift and diffusion."""
    for t in (0.01, 0.3, 0.9 * sde.t_max):
        drift = integrate.quad(lambda s: float(sde.drift(s)), 0, t)[0]
        np.testing.assert_allclose(sde.scale(t), np.exp(drift), rtol=1e-10)
        variance = integrate.quad(lambda s: float((sde.diffusion(s) / sde.scale(s)) ** 2), 0, t)[0]
        np.testing.assert_allclose(sde.sigma(t) ** 2, variance, rtol=1e-9)
        np.testing.assert_allclose(sde.time(sde.sigma(t)), t, rtol=1e-9)
        np.testing.assert_allclose(sde.std(t), sde.scale(t) * sde.sigma(t), rtol=1e-12)
    assert float(sde.std(0.0)) == 0 and float(sde.time(0.0)) == 0


def test_the_papers_figures_for_std():
    np.testing.assert_allclose(VESDE().std(0.065), 0.2841, atol=5e-5)
    np.testing.assert_allclose(VESDE().std(1), 9.845, atol=5e-3)
    np.testing.assert_allclose(VESDE().std(np.array([0.065, 1])), [0.2841, 9.845], rtol=1e-3)
    # At small times the difference of powers would lose its digits: std(t) ~ sqrt(t).
    np.testing.assert_allclose(VESDE().std(jnp.float32(1e-6)), 1e-3, rtol=1e-5)


@pytest.mark.parametrize("sde", PROCESSES[:3], ids=ids)
def test_score_of_a_gaussian_and_back(x64, sde):
    """x0 ~ N(m, C): p_t = N(r m, r^2 C + s^2 I), by matrix inversion; denoiser and score give each other."""
    rng = np.random.default_rng(0)
    root, mean, x = rng.normal(size=(3, 3)), rng.normal(size=3), rng.normal(size=3)
    covariance = root @ root.T
    denoiser = GaussianDenoiser.from_moments(mean, covariance)
    score = as_score(denoiser, sde)
    back = DenoiserFromScore(score, sde)
    at = jax.jit(lambda x, t, sigma: (score(x, t), back(x, sigma), denoiser(x, sigma)))
    for t in (0.05, 0.6):
        r, s = float(sde.scale(t)), float(sde.std(t))
        expected = -np.linalg.solve(r**2 * covariance + s**2 * np.eye(3), x - r * mean)
        found, returned, direct = at(x, t, s / r)
        np.testing.assert_allclose(found, expected, rtol=1e-8)
        np.testing.assert_allclose(returned, direct, rtol=1e-8)
    assert isinstance(score, ScoreFromDenoiser) and as_denoiser(score, sde) is denoiser
    assert as_score(as_denoiser(lambda x, t: -x, sde), sde)(jnp.ones(2), 0.5)[0] == -1


def test_score_of_a_mixture_is_exact_at_every_time_in_single_precision():
    """-x + mu tanh(mu x) at v^2 = 1 + std^2, where the difference form has lost its digits at t = 1e-5."""
    sde, mu, x = VESDE(), 3.0, np.array([-4.0, -1.0, 0.05, 0.4, 2.5])
    scores = jax.jit(jax.vmap(ScoreOfDensity(two_modes(mu), sde), in_axes=(0, None)))
    for t in (1e-5, 0.065, 0.5, 1.0):
        variance = 1 + float(sde.std(t)) ** 2
        expected = (-x + mu * np.tanh(mu * x / variance)) / variance
        found = scores(jnp.asarray(x, jnp.float32)[:, None], t)[:, 0]
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)
    assert abs(ScoreFromDenoiser(two_modes(mu), sde)(jnp.array([2.5]), 1e-5)[0] - 0.5) > 1e-3


def test_score_of_a_full_covariance_mixture_under_vp(x64):
    """Against scipy's densities by central differences."""
    sde, t, rng = VPSDE(), 0.2, np.random.default_rng(1)
    roots, means = rng.normal(size=(2, 2, 2)), rng.normal(size=(2, 2))
    covariances, weights = roots @ roots.swapaxes(1, 2) + 0.1 * np.eye(2), np.array([0.3, 0.7])
    score = ScoreOfDensity(gaussian_mixture(weights, means, covariances), sde)
    r, s = float(sde.scale(t)), float(sde.std(t))

    def log_p(x):
        parts = [
            stats.multivariate_normal(r * m, r**2 * c + s**2 * np.eye(2)).pdf(x) for m, c in zip(means, covariances)
        ]
        return np.log(weights @ parts)

    x = np.array([0.3, -0.8])
    expected = [(log_p(x + 1e-5 * e) - log_p(x - 1e-5 * e)) / 2e-5 for e in np.eye(2)]
    found, density = jax.jit(lambda x: (score(x, t), score.log_density(x, t)))(x)
    np.testing.assert_allclose(found, expected, rtol=1e-7)
    np.testing.assert_allclose(density, log_p(x), rtol=1e-10)


def test_loss_gradients_of_the_two_forms_agree():
    """Equations 5 and 7: E lambda |s - grad log p_{t|0}|^2 and the same against grad log p_t, within 3 standard
    errors.
    """
    sde, mixture, n = VESDE(), two_modes(3.0), 40_000
    exact, k = ScoreOfDensity(mixture, sde), jax.random.split(jax.random.key(0), 3)
    x0 = jax.jit(jax.vmap(mixture.draw))(jax.random.split(k[0], n))
    t = jax.random.uniform(k[1], (n,), minval=0.05, maxval=1.0)
    eps = jax.random.normal(k[2], (n, 1))
    x = jax.vmap(sde.perturb)(x0, t, eps)

    def differences(theta):
        model = theta * jnp.tanh(x) - 0.3 * x
        denoising = jax.vmap(sde.conditional_score)(eps, t)
        truth = jax.vmap(exact)(x, t)
        weight = sde.std(t)[:, None] ** 2
        return (weight * ((model - denoising) ** 2 - (model - truth) ** 2))[:, 0]

    slope = np.asarray(jax.jit(jax.jacfwd(differences))(0.7))
    assert abs(slope.mean()) < 3 * slope.std() / np.sqrt(n)
    assert slope.std() / np.sqrt(n) < 0.05


def test_loss_of_the_exact_score_is_the_known_constant(x64):
    """One Gaussian: E |std s + eps|^2 at time t is v / (v + std^2), v its variance: what denoising cannot know."""
    sde, n, t = VESDE(), 20_000, 0.3
    score = ScoreOfDensity(gaussian_mixture([1.0], np.zeros((1, 1)), np.array([4.0])), sde)
    x0, eps = (jax.random.normal(jax.random.key(i), (n, 1)) for i in range(2))
    x = jax.jit(jax.vmap(lambda a, e: sde.perturb(2 * a, t, e)))(x0, eps)
    losses = np.asarray((sde.std(t) * jax.jit(jax.vmap(lambda x: score(x, t)))(x) + eps) ** 2)
    std = float(sde.std(t))
    assert abs(losses.mean() - 4 / (4 + std**2)) < 4 * losses.std() / np.sqrt(n)


@pytest.mark.parametrize("corrector_steps", [0, 1])
def test_reverse_sde_reaches_the_target(corrector_steps):
    """Mean and variance of a Gaussian within sampling error and the step's bias; the start is the exact p_T."""
    sde, n = VESDE(), 4000
    score = ScoreOfDensity(gaussian_mixture([1.0], np.array([[1.0]]), np.array([0.25])), sde)
    start = 1 + np.sqrt(0.25 + float(sde.std(1.0)) ** 2) * jax.random.normal(jax.random.key(9), (n, 1))
    times = np.linspace(1.0, 1e-3, 300)
    run = jax.jit(jax.vmap(lambda x, key: reverse_sde(score, sde, x, times, key, corrector_steps=corrector_steps)))
    found = np.asarray(run(start, jax.vmap(lambda i: keys.example_key(jax.random.key(1), i))(jnp.arange(n))))
    assert abs(found.mean() - 1) < 4 * 0.5 / np.sqrt(n) + 0.01
    assert abs(found.var() / 0.25 - 1) < 4 * np.sqrt(2 / n) + 0.05


def test_one_reverse_step_is_the_formula(x64):
    sde, key = VPSDE(), jax.random.key(3)
    x, times = jnp.array([0.4, -1.0]), np.array([0.5, 0.4, 0.3])
    score = jax.tree_util.Partial(lambda x, t: -x / (1 + t))

    def drifted(x, t, h):
        return x - h * (sde.drift(t) * x + sde.diffusion(t) ** 2 * x / (1 + t))

    middle = drifted(x, 0.5, 0.1) + sde.diffusion(0.5) * np.sqrt(0.1) * keys.draw_step(key, 0, (2,), x.dtype)
    np.testing.assert_allclose(reverse_sde(score, sde, x, times, key), drifted(middle, 0.4, 0.1), rtol=1e-6)
    middle = drifted(x, 0.5, 0.1) + sde.diffusion(0.5) * np.sqrt(0.1) * keys.draw_step(key, 0, (2,), x.dtype)
    size = 2 * (0.16 * sde.std(0.4)) ** 2
    corrected = middle - size * middle / 1.4 + np.sqrt(2 * size) * keys.draw_step(key, 1, (2,), x.dtype)
    found = reverse_sde(score, sde, x, times, key, corrector_steps=1)
    np.testing.assert_allclose(found, drifted(corrected, 0.4, 0.1), rtol=1e-6)


@pytest.mark.parametrize("sde", PROCESSES[:3], ids=ids)
def test_flow_carries_a_gaussian_by_the_ratio_of_its_deviations(x64, sde):
    """x - r m scales by sqrt(r^2 v + s^2); there and back is the identity."""
    score = ScoreOfDensity(gaussian_mixture([1.0], np.array([[0.5]]), np.array([2.0])), sde)
    deviation = {t: float(np.sqrt(sde.scale(t) ** 2 * 2 + sde.std(t) ** 2)) for t in (0.9, 0.1)}
    x = jnp.array([1.7])
    found = probability_flow(score, sde, x, 0.9, 0.1, rtol=1e-8, atol=1e-8)
    expected = 0.5 * sde.scale(0.1) + (x - 0.5 * sde.scale(0.9)) * deviation[0.1] / deviation[0.9]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(probability_flow(score, sde, found, 0.1, 0.9, rtol=1e-8, atol=1e-8), x, rtol=1e-6)


def test_a_score_samples_through_the_librarys_heun(x64):
    """A VP score is a denoiser like any other: Heun over sigma ends where the flow over time does."""
    sde = VPSDE()
    denoiser = DenoiserFromScore(ScoreOfDensity(two_modes(2.0), sde), sde)
    sigmas = karras_sigmas(200, 0.05, 20.0)
    x = jnp.array([7.0])
    t = float(sde.time(20.0))
    found = probability_flow(ScoreOfDensity(two_modes(2.0), sde), sde, x * float(sde.scale(t)), t, 1e-4)
    np.testing.assert_allclose(heun(denoiser, x, sigmas), found, atol=5e-3)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: VESDE(base=1.0), "base = 1.0: must be above 1"),
        (lambda: VPSDE(beta_min=2.0, beta_max=1.0), "beta_max = 1.0: must be above 2"),
        (lambda: SubVPSDE(t_max=0.0), "t_max = 0.0: must be positive"),
        (lambda: VESDE().check_time("t_eps", 0.0), "t_eps = 0.0: must be strictly between 0 and T = 1"),
        (lambda: VESDE().check_time("t_eps", 1.0), "t_eps = 1.0: must be strictly between 0 and T = 1"),
        (
            lambda: reverse_sde(lambda x, t: x, VESDE(), jnp.ones(1), np.array([0.1, 0.5]), jax.random.key(0)),
            "times = .*: must be falling",
        ),
        (lambda: probability_flow(lambda x, t: x, VESDE(), jnp.ones(1), 1.5, 0.1), "t_start = 1.5: must be above 0"),
        (lambda: gaussian_mixture([0.5, 0.6], np.zeros((2, 1)), np.ones(2)), "weights = .*: must be positive with sum 1"),
        (lambda: gaussian_mixture([0.5, 0.5], np.zeros((2, 1)), np.array([1.0, 0.0])), "smallest variance = 0.0: must be"),
        (lambda: two_modes(3.0, weight=1.0), "weight = 1.0: must be strictly between 0 and 1"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(make, words):
    with pytest.raises(InputError, match=words) as error:
        make()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_takes_the_steps_of_float32(dtype):
    sde = VESDE()
    score = ScoreFromDenoiser(GaussianDenoiser(np.zeros(2), np.eye(2), np.ones(2)), sde)
    start, times = jnp.array([32.0, -48.0], dtype), np.linspace(1, 1e-3, 200).astype(np.float32)
    for run in (
        lambda x: probability_flow(score, sde, x, 1.0, 1e-3),
        lambda x: reverse_sde(score, sde, x, times, jax.random.key(0)),
    ):
        found = run(start)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, run(start.astype(jnp.float32)).astype(dtype))
