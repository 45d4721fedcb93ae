"""Noise grids and churn against recorded schedules of the reference implementation."""

import math
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dgu.core.errors import InputError
from dgu.samplers import Churn, karras_sigmas

RECORDED = np.load(pathlib.Path(__file__).parents[1] / "fixtures" / "schedules.npz")


@pytest.mark.parametrize("num_steps", [10, 18, 40, 256])
def test_grid_equals_the_recorded_one(num_steps):
    grid = karras_sigmas(num_steps)
    assert grid.dtype == np.float64
    np.testing.assert_allclose(grid, RECORDED[f"edm:N{num_steps}"], rtol=1e-12, atol=0)


@pytest.mark.parametrize("num_steps", [10, 18, 40, 256])
@pytest.mark.parametrize("rate", [40, 80])
def test_churn_equals_the_recorded_one(x64, strict_dtypes, num_steps, rate):
    recorded = f"edm:N{num_steps}:churn{rate}"
    sigmas = jnp.asarray(RECORDED[f"edm:N{num_steps}"][:-1])
    gamma = Churn(rate, 0.05, 50).gamma(sigmas, num_steps)
    np.testing.assert_allclose(gamma, RECORDED[f"{recorded}:gamma"], rtol=1e-12, atol=0)
    np.testing.assert_allclose(sigmas * (1 + gamma), RECORDED[f"{recorded}:t_hat"], rtol=1e-12, atol=0)


@given(
    num_steps=st.integers(2, 300),
    sigma_min=st.floats(1e-4, 1.0),
    ratio=st.floats(1.5, 1e5),
    rho=st.floats(0.5, 20.0),
)
@settings(max_examples=15, deadline=None)
def test_grid_falls_between_its_ends_evenly_in_the_bent_scale(num_steps, sigma_min, ratio, rho):
    grid = karras_sigmas(num_steps, sigma_min, sigma_min * ratio, rho)
    assert grid.shape == (num_steps + 1,) and grid[-1] == 0
    assert (np.diff(grid) < 0).all()
    np.testing.assert_allclose(grid[[0, -2]], [sigma_min * ratio, sigma_min], rtol=1e-10)
    bent = grid[:-1] ** (1 / rho)
    np.testing.assert_allclose(np.diff(bent), (bent[-1] - bent[0]) / (num_steps - 1), rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"num_steps": 1}, "num_steps = 1"),
        ({"num_steps": 0}, "num_steps = 0"),
        ({"num_steps": -3}, "num_steps = -3"),
        ({"num_steps": 10, "sigma_min": 80.0}, "sigma_min = 80.0"),
        ({"num_steps": 10, "sigma_min": 3.0, "sigma_max": 2.0}, "sigma_min = 3.0"),
        ({"num_steps": 10, "sigma_min": 0.0}, "sigma_min = 0.0"),
        ({"num_steps": 10, "sigma_max": -1.0}, "sigma_max = -1.0"),
        ({"num_steps": 10, "sigma_max": math.inf}, "sigma_max = inf"),
        ({"num_steps": 10, "sigma_max": math.nan}, "sigma_max = nan"),
        ({"num_steps": 10, "rho": 0.0}, "rho = 0.0"),
    ],
)
def test_bad_grids_are_refused(arguments, name):
    with pytest.raises(InputError, match=f"^{name}: must be "):
        karras_sigmas(**arguments)


@pytest.mark.parametrize("rho", [1e-37, 1e-300, 5e-324, 1e30, 1e300])
def test_a_bend_that_no_grid_of_doubles_has_is_named(rho):
    with pytest.raises(
        InputError, match=rf"rho = {rho!r}: must be one with which 18 levels from sigma_max = 80.0".replace("+", r"\+")
    ):
        karras_sigmas(18, rho=rho)


def test_levels_closer_than_doubles_are_named():
    with pytest.raises(InputError, match=r"rho = 7.0: must be .* 50 levels from sigma_max = 1.0 to sigma_min = 0.99"):
        karras_sigmas(50, sigma_min=1 - 2e-16, sigma_max=1.0)
