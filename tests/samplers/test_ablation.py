"""The ablation family against the reference's trajectories, an independent NumPy sampler, Heun's, and the exact ODE."""

import itertools
import json
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.core import keys
from dgu.core.errors import InputError
from dgu.distributions.bases import initial_noise
from dgu.models import GaussianDenoiser, edm_from_arrays
from dgu.samplers import Ablation, Churn, heun, karras_sigmas, sample
from tests import parity

RECORDED = parity.load("ablation_adm.npz")
TABLE = RECORDED["iddpm:u"]
CHURN = Churn(3.0, 0.05, 50.0, 1.003)
ONE = jax.devices()[:1]


def run(sampler, denoiser, x_init, sigmas, **options):
    return jax.jit(lambda denoiser, x, s: sampler(denoiser, x, s, **options))(denoiser, x_init, sigmas)


@partial(jax.jit, static_argnames="sampler")
def steps(sampler, denoiser, x_init, sigmas, churn, eps):
    """The end and the state after each step; one program of a sampler with and without churn."""
    return sampler(denoiser, x_init, sigmas, churn=churn, eps=eps, observe=lambda state: state.x_next)


nearest_level = jax.jit(jax.vmap(lambda s: jnp.asarray(TABLE)[jnp.argmin(jnp.abs(s.astype(jnp.float32) - TABLE))]))


# The reference -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network():
    arrays = parity.load("adm_edm.npz")
    return edm_from_arrays(parity.config(arrays), parity.params(arrays))


@pytest.mark.parametrize(
    "tag",
    [
        "vp_euler6",
        "iddpm_heun6",
        "edm_churn6",
        # These two the description in NumPy covers, too.
        pytest.param("ve_heun6", marks=pytest.mark.slow),
        pytest.param("edm_vp_alpha", marks=pytest.mark.slow),
    ],
)
def test_recorded_trajectories(network, x64, tag):
    options = json.loads(str(RECORDED[f"{tag}:kwargs"]))
    names = {"rate": "S_churn", "s_min": "S_min", "s_max": "S_max", "s_noise": "S_noise"}
    churn = Churn(**{name: options.pop(theirs) for name, theirs in names.items() if theirs in options})
    num_steps = options.pop("num_steps")
    assert options.pop("sampler") == "ablation_sampler"
    sampler = Ablation(**options)
    sigmas, tolerance = sampler.sigmas(num_steps), 1e-5 if tag.startswith("iddpm") else 1e-8
    labels = jnp.asarray(RECORDED["sampler:class_labels"], jnp.float64)
    x_init = sigmas[0] * jnp.asarray(parity.nhwc(RECORDED[f"{tag}:latents"]), jnp.float64)
    eps = RECORDED.get(f"{tag}:noise")
    if eps is not None:
        eps = jnp.asarray(np.swapaxes(parity.nhwc(eps), 0, 1), jnp.float64)

    def seen(state):
        return state.x_next, state.sigma_hat

    @jax.jit
    def batch(denoiser, x, labels, eps):
        one = lambda x, label, eps: sampler(denoiser.given(label), x, sigmas, churn=churn, eps=eps, observe=seen)  # noqa: E731
        return jax.vmap(one)(x, labels, eps)

    final, (states, levels) = batch(network, x_init, labels, eps)
    states = np.concatenate([x_init[:, None], states], axis=1)
    states = parity.nchw(states * np.asarray(sampler.scale(sigmas))[None, :, None, None, None])
    for at, expected in zip((1, 6), RECORDED[f"{tag}:x64"]):
        assert parity.relative(states[:, at], expected) < tolerance, at
    np.testing.assert_array_equal(parity.nchw(final), states[:, -1])
    evaluated = RECORDED[f"{tag}:net_sigma"]
    first_of_step = evaluated if sampler.solver == "euler" else evaluated[::2]
    np.testing.assert_allclose(levels[0], first_of_step, rtol=tolerance / 10)


def test_iddpm_levels_are_the_networks_table():
    """A network's own table runs in float32 throughout and drifts by 1e-4; without any rounding it would be 5e-4."""
    sampler = Ablation(discretization="iddpm", sigma_min=1e-4, sigma_max=1e6)
    np.testing.assert_allclose(sampler.sigmas(1000), TABLE, rtol=1.5e-4)
    inside = TABLE[(TABLE >= 0.002) & (TABLE <= 81)]
    chosen = [inside[round(i * (len(inside) - 1) / 17)] for i in range(18)]
    np.testing.assert_allclose(Ablation(discretization="iddpm").sigmas(18)[:-1], chosen, rtol=1.5e-4)


# The description, written out ----------------------------------------------------------------------------------------


def reference(denoise, latents, options, num_steps, churn, eps):
    """Section by section as the papers put it, time by time, in plain NumPy: unscaled samples after each step."""
    lo, hi = {"vp": (None, None), "ve": (0.02, 100), "edm": (0.002, 80)}[options["discretization"]]
    eps_s, alpha = 1e-3, options.get("alpha", 1)
    vp_of = lambda bd, bm, t: np.sqrt(np.exp(bd * t * t / 2 + bm * t) - 1)  # noqa: E731
    if lo is None:
        lo, hi = vp_of(19.9, 0.1, eps_s), vp_of(19.9, 0.1, 1.0)
    bd = 2 * (np.log(lo**2 + 1) / eps_s - np.log(hi**2 + 1)) / (eps_s - 1)
    bm = np.log(hi**2 + 1) - bd / 2
    u = np.arange(num_steps) / (num_steps - 1)
    levels = {
        "vp": lambda: vp_of(bd, bm, 1 + u * (eps_s - 1)),
        "ve": lambda: np.sqrt(hi**2 * (lo**2 / hi**2) ** u),
        "edm": lambda: (hi ** (1 / 7) + u * (lo ** (1 / 7) - hi ** (1 / 7))) ** 7,
    }[options["discretization"]]()
    sigma, slope, inverse = {
        "vp": (
            lambda t: vp_of(bd, bm, t),
            lambda t: (bm + bd * t) / 2 * (vp_of(bd, bm, t) + 1 / vp_of(bd, bm, t)),
            lambda s: (np.sqrt(bm**2 + 2 * bd * np.log(1 + s**2)) - bm) / bd,
        ),
        "ve": (np.sqrt, lambda t: 0.5 / np.sqrt(t), np.square),
        "linear": (lambda t: t, lambda t: 1.0, lambda s: s),
    }[options["schedule"]]
    if options["scaling"] == "vp":
        s, s_slope = lambda t: 1 / np.sqrt(1 + sigma(t) ** 2), lambda t: -sigma(t) * slope(t) * s(t) ** 3
    else:
        s, s_slope = lambda t: 1.0, lambda t: 0.0

    def field(x, t):
        ratio = slope(t) / sigma(t)
        return (ratio + s_slope(t) / s(t)) * x - ratio * s(t) * denoise(x / s(t), sigma(t))

    times = np.append(inverse(levels), 0.0)
    x, path = latents * sigma(times[0]) * s(times[0]), []
    for i, (t, t_next) in enumerate(itertools.pairwise(times)):
        inside = churn.s_min <= sigma(t) <= churn.s_max
        gamma = min(churn.rate / num_steps, math.sqrt(2) - 1) if inside else 0.0
        t_hat = inverse(sigma(t) + gamma * sigma(t))
        noise = np.sqrt(max(sigma(t_hat) ** 2 - sigma(t) ** 2, 0)) * s(t_hat) * churn.s_noise * eps[i]
        x_hat = s(t_hat) / s(t) * x + noise
        h, d = t_next - t_hat, field(x_hat, t_hat)
        x = x_hat + h * d
        if options["solver"] == "heun" and i < num_steps - 1:
            d_mid = field(x_hat + alpha * h * d, t_hat + alpha * h)
            x = x_hat + h * ((1 - 1 / (2 * alpha)) * d + 1 / (2 * alpha) * d_mid)
        path.append(x / s(t_next) if t_next > 0 else x)
    return levels, np.stack(path)


@pytest.mark.parametrize(
    ("solver", "discretization", "schedule", "scaling", "alpha"),
    [
        ("euler", "vp", "vp", "vp", 1.0),
        ("heun", "vp", "vp", "none", 2 / 3),
        ("heun", "ve", "ve", "none", 1.0),
        ("heun", "ve", "vp", "vp", 0.5),
        ("heun", "edm", "ve", "vp", 0.6),
        ("heun", "edm", "linear", "vp", 1.1),
        ("euler", "edm", "linear", "none", 1.0),
    ],
)
def test_equals_the_description_in_numpy(
    x64, strict_dtypes, mixtures, solver, discretization, schedule, scaling, alpha
):
    make, in_numpy = mixtures
    mixture, num_steps = make(6, jnp.float64), 7
    rng = np.random.default_rng(2)
    latents, eps = rng.standard_normal(6), rng.standard_normal((num_steps, 6))
    names = ("solver", "discretization", "schedule", "scaling", "alpha")
    options = dict(zip(names, (solver, discretization, schedule, scaling, alpha)))
    sampler = Ablation(**options)
    sigmas = sampler.sigmas(num_steps)
    for churn in (Churn(0.0, 0.05, 50.0, 1.003), CHURN):
        levels, expected = reference(lambda x, s: in_numpy(mixture, x, s), latents, options, num_steps, churn, eps)
        np.testing.assert_allclose(sigmas[:-1], levels, rtol=1e-11)
        final, path = steps(sampler, mixture, sigmas[0] * latents, sigmas, churn, eps)
        scale = np.abs(expected).max(axis=1)
        np.testing.assert_array_less(np.abs(path - expected).max(axis=1), 1e-9 * scale)
        np.testing.assert_array_equal(final, path[-1])


def test_defaults_are_heuns_sampler(x64, mixtures):
    mixture, sigmas = mixtures[0](6, jnp.float64), karras_sigmas(9)
    np.testing.assert_array_equal(Ablation().sigmas(9), sigmas)
    rng = np.random.default_rng(4)
    x_init, eps = sigmas[0] * rng.standard_normal(6), rng.standard_normal((9, 6))
    ours, theirs = (
        run(s, mixture, x_init, sigmas, churn=CHURN, eps=eps, observe=lambda state: state) for s in (Ablation(), heun)
    )
    for name, a, b in zip(theirs[1]._fields, ours[1], theirs[1]):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11, err_msg=name)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-11)


@pytest.mark.parametrize(
    ("options", "order"),
    [
        ({"solver": "euler"}, 1),
        ({"alpha": 0.7}, 2),
        ({"schedule": "vp", "scaling": "vp", "alpha": 2 / 3}, 2),
        pytest.param({"schedule": "ve"}, 2, marks=pytest.mark.slow),
        ({"solver": "euler", "schedule": "vp", "scaling": "vp"}, 1),
    ],
)
def test_error_against_the_ode_falls_at_its_order(x64, options, order):
    """A mode of a Gaussian follows sqrt(lam + sigma^2) exactly."""
    variances = np.geomspace(4.0, 0.01, 12)
    denoiser = GaussianDenoiser(jnp.zeros(12), jnp.eye(12), jnp.asarray(variances))
    x_init = 80.0 * np.random.default_rng(1).standard_normal(12)
    exact = np.sqrt((variances + 0.002**2) / (variances + 80.0**2)) * x_init
    counts, errors = (100, 400), []
    for num_steps in counts:
        sampler = Ablation(**options)
        _, path = run(sampler, denoiser, x_init, sampler.sigmas(num_steps), observe=lambda state: state.x)
        errors.append(np.linalg.norm(path[-1] - exact))
    measured = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert abs(measured - order) < 0.2, (measured, errors)


# Networks with a range and a rounding of their own
# ---------------------------------------------------------------------


def test_levels_are_clamped_and_rounded_to_the_networks(mixtures):
    sampler = Ablation(network_range=(0.02, 50.0), round_sigma=nearest_level)
    sigmas = sampler.sigmas(10)
    assert sampler.range == (0.02, 50.0) and np.isin(sigmas.astype(np.float32), TABLE).all()
    np.testing.assert_allclose(sigmas[[0, 9]], (50.0, 0.02), rtol=0.1)
    unrounded = karras_sigmas(10, 0.02, 50.0)
    assert (np.abs(sigmas[:-1, None] - TABLE).min(1) < 1e-6).all() and np.abs(
        sigmas / unrounded.clip(1e-9) - 1
    ).max() > 0
    seen = run(
        sampler,
        mixtures[0](6, jnp.float32),
        jnp.full(6, sigmas[0], jnp.float32),
        sigmas.astype(np.float32),
        churn=CHURN,
        key=jax.random.key(0),
        observe=lambda s: (s.sigma, s.sigma_hat),
    )[1]
    levels, raised = (np.asarray(a) for a in seen)
    assert np.isin(raised, TABLE).all() and (raised >= levels).all() and (raised > levels).sum() >= 3


# Many samples --------------------------------------------------------------------------------------------------------

TRACES: list[tuple] = []


def counted(key, shape):
    TRACES.append(shape)
    return jax.random.normal(key, shape)


VP = Ablation("heun", "vp", "vp", "vp", alpha=0.7)


def test_sample_runs_it_with_the_same_draws_on_any_device(mixtures):
    """Traced float32 levels in `sample` against float64 ones outside, and bits that depend on the index alone."""
    mixture, key, sigmas, TRACES[:] = mixtures[0](6, jnp.float32), jax.random.key(0), VP.sigmas(8), []
    options = {"shape": (6,), "churn": CHURN, "batch_size": 4, "base": counted}
    whole = sample(mixture, key, range(11), sigmas, solver=VP, **options)
    same = Ablation("heun", "vp", "vp", "vp", alpha=0.7)
    again = sample(mixture, key, [9, 2], 0.99 * sigmas, solver=same, devices=ONE, **options)
    assert len(TRACES) == 1 and np.abs(again - whole[[9, 2]]).max() > 1e-4
    np.testing.assert_array_equal(
        sample(mixture, key, [9, 2], sigmas, solver=same, devices=ONE, **options), whole[[9, 2]]
    )
    eps = jnp.stack([keys.step_noise(key, 9, step, (6,)) for step in range(8)])
    x_init = jnp.float32(sigmas[0]) * initial_noise(key, 9, (6,), base=counted)
    replayed = jax.jit(lambda m, x, e: VP(m, x, sigmas, churn=CHURN, eps=e))(mixture, x_init, eps)
    np.testing.assert_allclose(whole[9], replayed, rtol=0, atol=2e-5 * np.abs(whole).max())
    drawn = jax.jit(lambda m, x, k: VP(m, x, sigmas, churn=CHURN, key=k))(mixture, x_init, keys.example_key(key, 9))
    # Two programs: equal to rounding.
    np.testing.assert_allclose(drawn, replayed, rtol=0, atol=1e-6 * np.abs(whole).max())


# Composability, bad input
# ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sampler",
    [VP, pytest.param(Ablation(schedule="ve", scaling="vp"), marks=pytest.mark.slow)],
    ids=["vp", "ve"],
)
def test_gradients_by_state_levels_and_denoiser_equal_finite_differences(x64, mixtures, sampler):
    mixture, sigmas, rng = mixtures[0](4, jnp.float64), sampler.sigmas(5), np.random.default_rng(5)
    point = {
        "denoiser": mixture,
        "x": jnp.asarray(sigmas[0] * rng.standard_normal((2, 4))),
        "sigmas": jnp.asarray(np.tile(sigmas, (2, 1))),
        "rate": jnp.asarray(1.5),
    }
    eps = jnp.asarray(rng.standard_normal((5, 4)))

    def loss(denoiser, x, sigmas, rate):
        one = lambda x, s: sampler(denoiser, x, s, churn=Churn(rate, 0.05, 2.0), eps=eps).sum()  # noqa: E731
        return jax.vmap(one)(x, sigmas).sum()

    value, gradients = jax.jit(loss), jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3)))(*point.values())
    for place, name in enumerate(point):
        direction = jax.tree.map(lambda a: jnp.asarray(rng.standard_normal(a.shape)), point[name])
        # Levels move in proportion, so that the last one stays 0.
        if name == "sigmas":
            direction = direction * point["sigmas"]

        def moved(h, name=name, direction=direction):
            return value(*(point | {name: jax.tree.map(lambda a, d: a + h * d, point[name], direction)}).values())

        h = 1e-4
        central = (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h)
        slope = sum(jax.tree.leaves(jax.tree.map(lambda g, d: jnp.vdot(g, d), gradients[place], direction)))
        np.testing.assert_allclose(slope, central, rtol=1e-5, err_msg=name)


def test_lowers_for_every_platform(mixtures):
    program = jax.jit(lambda m, x, s, k, c: jax.vmap(lambda x: VP(m, x, s, key=k, churn=c))(x))
    churn = Churn(*map(jnp.float32, (40.0, 0.05, 50.0, 1.0)))
    sigmas = jnp.asarray(VP.sigmas(5), jnp.float32)
    arguments = (mixtures[0](6, jnp.float32), jnp.ones((2, 6)), sigmas, jax.random.key(0), churn)
    exported = jax.export.export(program, platforms=["cpu", "cuda", "tpu"])(*arguments)
    assert exported.platforms == ("cpu", "cuda", "tpu")


def test_bad_input_is_named(mixtures):
    mixture = mixtures[0](6, jnp.float32)
    for said, make in [
        ("solver = 'rk4': must be one of 'heun', 'euler'", lambda: Ablation(solver="rk4")),
        ("scaling = 've'", lambda: Ablation(scaling="ve")),
        ("epsilon_s = 1", lambda: Ablation(epsilon_s=1)),
        ("alpha = 0", lambda: Ablation(alpha=0)),
        ("sigma_min = 90.0.* sigma_max = 80.0", lambda: Ablation(sigma_min=90.0)),
        ("sigma_min = 0.5", lambda: Ablation(network_range=(0.5, 0.2))),
        ("num_steps = 1:", lambda: Ablation().sigmas(1)),
        ("num_steps = 1500: .*distinct", lambda: Ablation(discretization="iddpm").sigmas(1500)),
        ("alpha = 2.5: must be small enough", lambda: Ablation(alpha=2.5)(mixture, jnp.ones(6), karras_sigmas(4))),
        (r"eps.shape = \(2, 6\)", lambda: Ablation()(mixture, jnp.ones(6), karras_sigmas(4), eps=jnp.ones((2, 6)))),
        ("churn.rate = 4", lambda: Ablation()(mixture, jnp.ones(6), karras_sigmas(4), churn=Churn(4.0))),
        ("sigmas = ", lambda: Ablation()(mixture, jnp.ones(6), karras_sigmas(4)[::-1])),
    ]:
        with pytest.raises(InputError, match=said):
            make()
    draw = {"denoiser": mixture, "key": jax.random.key(0), "indices": [0], "sigmas": karras_sigmas(4), "shape": (6,)}
    with pytest.raises(InputError, match="must be hashable"):
        sample(**draw, solver=Ablation(round_sigma=type("Table", (list,), {"__call__": lambda self, s: s})()))
