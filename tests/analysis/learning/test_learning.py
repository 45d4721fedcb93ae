"""Gradient flow of linear modes against the ODEs themselves, and two timescales of random features."""

import jax
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from dgu.analysis import flow_gains, flow_variances, learning_times, two_timescales
from dgu.core.errors import InputError
from dgu.models import RandomFeatures
from dgu.samplers import VESDE
from dgu.training import QuadraticLoss, empirical_loss

LAM = np.array([4.0, 1.0, 0.05, 0.0])
KEY = jax.random.key(0)


def test_gains_follow_the_flow():
    sigmas, times = np.array([0.1, 2.0]), np.array([0.0, 0.3, 2.0])
    found = flow_gains(LAM, sigmas, times, start=0.2)
    for row, sigma in enumerate(sigmas):
        flow = solve_ivp(
            lambda _, g, s=sigma: -2 * ((LAM + s**2) * g - LAM),
            (0, 2),
            np.full(4, 0.2),
            t_eval=times,
            rtol=1e-10,
            atol=1e-12,
        )
        np.testing.assert_allclose(found[:, row], flow.y.T, atol=1e-8)
    final = flow_gains(LAM, sigmas, np.array([np.inf]))[0]
    np.testing.assert_allclose(final, LAM / (LAM + sigmas[:, None] ** 2), rtol=1e-15)


def test_generated_variances_are_those_of_the_ode():
    low, high, times = 0.01, 20.0, np.array([0.0, 0.02, 0.5, 30.0])
    found = flow_variances(LAM, times, start=0.1, sigma_min=low, sigma_max=high)
    for row, tau in enumerate(times):

        def slope(s, y, tau=tau):
            return (1 - flow_gains(LAM, np.array([s]), np.array([tau]), start=0.1)[0, 0]) * y / s

        path = solve_ivp(slope, (high, low), np.full(4, high), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(np.sqrt(found[row]), path.y[:, -1], rtol=1e-6)
    learned = flow_variances(LAM, np.array([np.inf]), sigma_min=low, sigma_max=high)[0]
    np.testing.assert_allclose(learned, high**2 * (LAM + low**2) / (LAM + high**2), rtol=1e-14)
    # Before it has learned anything the denoiser says 0, and all noise is taken away.
    np.testing.assert_allclose(flow_variances(LAM, np.zeros(1), sigma_min=low, sigma_max=high)[0], low**2, rtol=1e-9)


def test_modes_are_learned_in_the_order_of_their_variances():
    lam = np.array([16.0, 4.0, 1.0, 0.25])
    found = learning_times(lam)
    for each, tau in zip(lam, found):
        made = flow_variances(np.array([each]), np.array([tau, np.inf]))[:, 0]
        assert made[0] / made[1] == pytest.approx(0.5, rel=1e-6)
    assert np.polyfit(np.log(lam), np.log(found), 1)[0] == pytest.approx(-1, abs=0.15)
    assert learning_times(np.array([1e-7]))[0] == 0  # No larger than the last level: there from the beginning.


def test_two_timescales_of_two_eigenvalues(x64):
    """A loss whose modes are known: one is the distribution's, the other, slow one fits the training points' noise.

    ``theta_k(tau) = b_k / w_k (1 - e^{-2 w_k tau})``, and the population's minimum has no second mode.
    """
    fast, slow = 1.0, 1e-3
    empirical = QuadraticLoss(np.diag([fast, slow]), np.array([[fast], [slow]]), fast + slow)
    population = QuadraticLoss(np.eye(2), np.array([[1.0], [0.0]]), np.float64(1.0))
    taus = np.geomspace(1e-3, 1e5, 2000)
    found = two_timescales(empirical, population, taus)
    # 1 - (1 - theta)^2 is at 0.9 where e^{-2 w tau} = sqrt(0.1), but for the slow mode, which has just begun.
    assert found.generalisation == pytest.approx(-np.log(0.1) / 4 / fast, rel=0.01)
    # The population loss rises as the square of the slow mode.
    assert found.memorisation == pytest.approx(-np.log(1 - np.sqrt(0.1)) / 2 / slow, rel=0.01)
    assert two_timescales(empirical, population, taus[taus < 100]).memorisation == np.inf


def test_random_features_memorise_later_with_more_points(x64):
    """tau_gen stays, tau_mem grows with n: d = 6, p = 256, one noise level, no training."""
    d, width, level = 6, 256, np.array([0.3])
    rng = np.random.default_rng(0)
    features, sde, taus = RandomFeatures.draw(KEY, width, dimension=d), VESDE(), np.geomspace(1, 1e9, 120)
    noise, ones = rng.normal(size=(24, d)), np.full(24, 1 / 24)
    truth = empirical_loss(features, sde, rng.normal(size=(1500, d)), level, rng.normal(size=(8, d)), np.full(8, 1 / 8))
    found = [
        two_timescales(empirical_loss(features, sde, rng.normal(size=(n, d)), level, noise, ones), truth, taus)
        for n in (12, 48, 192)
    ]
    generalisation, memorisation = (
        [getattr(each, name) for each in found] for name in ("generalisation", "memorisation")
    )
    assert max(generalisation) < 2.5 * min(generalisation)
    assert memorisation[0] * 1.5 < memorisation[1] and memorisation[1] * 1.5 < memorisation[2]
    assert all(late > 1.5 * early for early, late in zip(generalisation, memorisation))


LOSS = QuadraticLoss(np.eye(2), np.ones((2, 1)), 2.0)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: flow_gains(-LAM, LAM, LAM), "variances"),
        (lambda: flow_gains(LAM, -LAM, LAM), "sigmas"),
        (lambda: flow_gains(LAM, LAM, -LAM), "times"),
        (lambda: flow_gains(LAM, LAM, LAM, start=np.nan), "start"),
        (lambda: flow_variances(LAM, LAM, sigma_min=3, sigma_max=2), "sigma_min"),
        (lambda: learning_times(LAM), "variances"),
        (lambda: learning_times(LAM[:2], share=1.0), "share"),
        (lambda: two_timescales(LOSS, LOSS, np.array([1.0, 1.0])), "taus"),
    ],
)
def test_bad_input_is_one_line(call, name):
    with pytest.raises(InputError, match=rf"^{name} = ") as error:
        call()
    assert "\n" not in str(error.value)
