"""Networks that predict something else than the clean example: exact on a Gaussian, and DDIM as Euler's method."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.core.errors import InputError
from dgu.models import (
    AdaptedDenoiser,
    ConsistencyPreconditioning,
    DiscreteSchedule,
    FlowSchedule,
    GaussianDenoiser,
    Prediction,
    ProcessSchedule,
    SigmaSchedule,
)
from dgu.models.time_schedules import as_schedule
from dgu.samplers import VESDE, VPSDE, SubVPSDE

SCHEDULES = {
    "sigma": SigmaSchedule(),
    "linear": DiscreteSchedule.linear(),
    "cosine": DiscreteSchedule.cosine(),
    "nearest": DiscreteSchedule.linear(time="nearest"),
    "flow": FlowSchedule(),
    "flow, data at 1": FlowSchedule(data_at=1, time_factor=1000.0),
    "vp": ProcessSchedule(VPSDE()),
    "sub-vp": ProcessSchedule(SubVPSDE()),
    "ve": ProcessSchedule(VESDE()),
}
PREDICTIONS = ("x0", "epsilon", "v", "velocity", "score")


@pytest.fixture(scope="module", autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def gaussian():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(6, 6)) * np.array([2.0, 1.0, 0.5, 0.2, 0.05, 0.0])
    return GaussianDenoiser.from_moments(rng.normal(size=(6,)), root @ root.T)


def exact_network(kind, schedule, sigma):
    """What a perfect network returns of the state ``z``, from the density of z itself, independent of the adapters.

    The law of ``z = a (x0 + sigma eps)`` given a and s = a sigma is N(a mean, a^2 C + s^2 I), so that x0 and eps given z
    are linear in z.
    """
    law = gaussian()
    mean, basis, variances = (np.asarray(leaf, np.float64) for leaf in (law.mean, law.basis, law.variances))
    covariance = basis * variances @ basis.T

    def network(z, time):
        a = float(schedule.place(jnp.asarray(sigma)).scale)
        s = a * sigma
        inverse = np.linalg.inv(a**2 * covariance + s**2 * np.eye(6))
        residual = np.asarray(z) - a * mean
        x0 = mean + a * covariance @ inverse @ residual
        eps = s * inverse @ residual
        towards_data = isinstance(schedule, FlowSchedule) and schedule.data_at == 1
        return jnp.asarray({
            "x0": x0,
            "epsilon": eps,
            "v": a * eps - s * x0,
            "velocity": x0 - eps if towards_data else eps - x0,
            "score": -inverse @ residual,
        }[kind])  # fmt: skip

    return network


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("kind", PREDICTIONS)
def test_every_prediction_is_exact_on_a_gaussian_to_twelve_digits(kind, name):
    schedule, law = SCHEDULES[name], gaussian()
    x = jnp.asarray(np.random.default_rng(1).normal(size=6))
    for sigma in (0.1, 0.7, 3.0, min(20.0, schedule.sigma_max)):
        adapted = AdaptedDenoiser(exact_network(kind, schedule, sigma), preconditioning=Prediction(kind, schedule))
        expected = np.asarray(law(x * (1 + sigma), sigma))
        found = np.asarray(adapted(x * (1 + sigma), sigma))
        assert np.abs(found - expected).max() < 1e-12 * max(1.0, np.abs(expected).max() * (1 + sigma))


def test_times_are_those_of_the_definitions():
    """Against the tables computed here, the formula of the flow's tau, and the processes' own kernels."""
    betas = np.linspace(1e-4, 0.02, 1000)
    abar = np.cumprod(1 - betas)
    sigmas = np.sqrt((1 - abar) / abar)
    found = DiscreteSchedule.linear().place(jnp.asarray(sigmas))
    np.testing.assert_allclose(found.time, np.arange(1000), atol=1e-9)
    np.testing.assert_allclose(found.scale, np.sqrt(abar), rtol=1e-13)
    middle = np.sqrt(sigmas[10] * sigmas[11])  # half way in ln sigma
    assert float(DiscreteSchedule.linear().place(jnp.asarray(middle)).time) == pytest.approx(10.5, abs=1e-9)
    nearest = DiscreteSchedule.linear(time="nearest")
    levels = jnp.asarray([middle * 0.999, middle * 1.001, 1e-3, 1e4])
    np.testing.assert_array_equal(nearest.place(levels).time, [10, 11, 0, 999])
    named = DiscreteSchedule.linear(times=tuple((np.arange(1000) + 1) / 1000))
    assert float(named.place(jnp.asarray(sigmas[37])).time) == pytest.approx(0.038, abs=1e-12)

    tau = np.array([0.2, 0.9])
    np.testing.assert_allclose(FlowSchedule(time_factor=1000.0).place(jnp.asarray(tau / (1 - tau))).time, 1000 * tau)
    np.testing.assert_allclose(FlowSchedule(data_at=1).place(jnp.asarray(tau / (1 - tau))).time, 1 - tau)
    for sde in (VPSDE(), SubVPSDE(), VESDE()):
        times = jnp.asarray([0.05, 0.5, 0.9])
        place = as_schedule(sde).place(sde.std(times) / sde.scale(times))
        np.testing.assert_allclose(place.time, times, rtol=1e-10)
        np.testing.assert_allclose(place.scale, sde.scale(times), rtol=1e-10)


def test_a_terminal_ratio_of_zero_has_no_level_of_its_own():
    abar = np.cumprod(1 - np.linspace(1e-4, 0.02, 100))
    root = np.sqrt(abar)
    shifted = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    for last in (0.0, 0.5):  # 0, or a number that does not fall
        schedule = DiscreteSchedule((*shifted[:-1].tolist(), last))
        assert len(schedule.sigmas) == 99
        assert schedule.sigma_max == pytest.approx(np.sqrt((1 - shifted[-2]) / shifted[-2]), rel=1e-12)


def test_ddim_without_noise_on_the_discrete_grid_is_eulers_method_in_sigma():
    """DDIM (eta = 0) written here in NumPy, in the state z, against Euler's steps of the adapter in x = z / a."""
    abar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    rng = np.random.default_rng(2)
    weight, time_weight = rng.normal(size=(5, 5)) / 3, rng.normal(size=5) / 1000

    def eps_of(z, t):  # any network: not exact, not linear
        return np.tanh(weight @ z + time_weight * t)

    times = np.arange(0, 1000, 100)[::-1]
    z = rng.normal(size=5)
    start = z / np.sqrt(abar[times[0]])
    states = []
    for i, t in enumerate(times):
        after = abar[times[i + 1]] if i + 1 < len(times) else 1.0
        eps = eps_of(z, t)
        x0 = (z - np.sqrt(1 - abar[t]) * eps) / np.sqrt(abar[t])
        z = np.sqrt(after) * x0 + np.sqrt(1 - after) * eps
        states.append(z / np.sqrt(after))

    network = jax.tree_util.Partial(
        lambda w, v, z, t: jnp.tanh(w @ z + v * t), jnp.asarray(weight), jnp.asarray(time_weight)
    )
    adapted = AdaptedDenoiser(network, preconditioning=Prediction("epsilon", DiscreteSchedule(tuple(abar.tolist()))))
    sigmas = [float(np.sqrt((1 - abar[t]) / abar[t])) for t in times] + [0.0]
    x = jnp.asarray(start)
    for sigma, after, expected in zip(sigmas, sigmas[1:], states):
        x = x + (after - sigma) * (x - adapted(x, sigma)) / sigma
        np.testing.assert_allclose(x, expected, rtol=1e-11, atol=1e-11)


def test_a_consistency_function_is_the_identity_at_the_lowest_level_and_says_what_it_is():
    adapted = AdaptedDenoiser(lambda z, t: 7 * z + t, preconditioning=ConsistencyPreconditioning())
    x = jnp.asarray([0.3, -2.0])
    np.testing.assert_allclose(adapted(x, 0.002), x, rtol=1e-14)
    sigma, sd = 3.0, 0.5
    skip, out = sd**2 / ((sigma - 0.002) ** 2 + sd**2), (sigma - 0.002) * sd / np.sqrt(sigma**2 + sd**2)
    inner = 7 * np.asarray(x) / np.sqrt(sigma**2 + sd**2) + 250 * np.log(sigma)
    np.testing.assert_allclose(adapted(x, sigma), skip * np.asarray(x) + out * inner, rtol=1e-13)
    assert not adapted.is_posterior_mean
    assert AdaptedDenoiser(lambda z, t: z).is_posterior_mean


def test_classes_are_handed_on_and_checked():
    def network(z, t, label):
        return z * 0 + label if label.ndim == 0 else z * 0 + label.sum()

    needs = AdaptedDenoiser(network, label_dim=4)
    free = AdaptedDenoiser(network, label_dim=4, no_class=4)
    x = jnp.zeros(3)
    np.testing.assert_array_equal(needs.given(2)(x, 1.0), 2.0)
    np.testing.assert_array_equal(needs.given(np.array([0.25, 0, 0, 0.5]))(x, 1.0), 0.75)
    np.testing.assert_array_equal(free(x, 1.0), 4.0)
    np.testing.assert_array_equal(free.given(2).given(None)(x, 1.0), 4.0)
    assert needs.needs_class and not free.needs_class
    for call, line in (
        (lambda: needs(x, 1.0), "label: is missing; this network has 4 classes"),
        (lambda: needs.given(None), "label = None: must be a class"),
        (lambda: needs.given(4), r"label = 4: must be a class index in 0..3"),
        (lambda: AdaptedDenoiser(lambda z, t: z).given(0), "label = 0: must be left out: the network is unconditional"),
        (lambda: AdaptedDenoiser(lambda z, t: z[0])(x, 1.0), r"called with ONE example, of shape \(3,\)"),
    ):
        with pytest.raises(InputError, match=line):
            call()


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: DiscreteSchedule((0.9,)), r"alphas_cumprod.shape = \(1,\)"),
        (lambda: DiscreteSchedule((0.5, 0.6, 0.7)), "alphas_cumprod: must fall strictly"),
        (lambda: DiscreteSchedule((1.0, 0.6, 0.5)), "alphas_cumprod: must fall strictly"),
        (lambda: DiscreteSchedule((1e-4, 1e-3, 0.02)), r"DiscreteSchedule.from_betas\(betas\) makes a schedule"),
        (lambda: DiscreteSchedule.linear(10, time="floor"), "time = 'floor'"),
        (lambda: DiscreteSchedule.linear(10, times=(1.0, 2.0)), "times = "),
        (lambda: FlowSchedule(data_at=2), "data_at = 2: must be 0 or 1"),
        (lambda: FlowSchedule(tau_min=0.9, tau_max=0.5), "tau_max = 0.5"),
        (lambda: ProcessSchedule(VPSDE(), t_min=2.0), "t_min = 2.0"),
        (lambda: Prediction("noise", SigmaSchedule()), "predicts = 'noise': must be one of x0, epsilon, v, velocity, score"),
        (lambda: SigmaSchedule(3.0, 2.0), "sigma_max = 2.0"),
        (lambda: as_schedule("cosine"), "schedule = str: must be SigmaSchedule, DiscreteSchedule"),
    ],
)  # fmt: skip
def test_what_is_no_schedule_is_refused_in_one_line(make, line):
    with pytest.raises(InputError, match=line):
        make()


def test_levels_outside_the_schedule_are_refused():
    adapted = AdaptedDenoiser(lambda z, t: z, preconditioning=Prediction("epsilon", DiscreteSchedule.linear()))
    for sigma in (0.002, 200.0):
        with pytest.raises(InputError, match=rf"sigma = {sigma:g}: must be from 0.0100005 to 157.407"):
            adapted(jnp.zeros(2), sigma)


def test_a_denoiser_prints_what_it_is_and_not_its_schedule():
    shown = repr(AdaptedDenoiser(lambda z, t: z, preconditioning=Prediction("epsilon", SCHEDULES["linear"])))
    assert shown == "AdaptedDenoiser(epsilon, sigma from 0.0100005 to 157.407, 0 classes, shape None)"
