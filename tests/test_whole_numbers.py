"""Counts and sizes that are no whole numbers are refused in one line, whatever else they are."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from dgu.analysis import choose_rows, k_nearest
from dgu.core.errors import InputError, require_whole
from dgu.core.prng import seeded
from dgu.models import GaussianDenoiser
from dgu.samplers import karras_sigmas, log_likelihood, sample

KEY, ROWS = jax.random.key(0), np.eye(4)
GAUSSIAN = GaussianDenoiser(np.zeros(2), np.eye(2), np.ones(2))
GRID = karras_sigmas(2)


@pytest.fixture(autouse=True)
def unchecked():
    """Without the type checks that only tests have: the refusals are what users meet."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def passes(value, least=1):
    """Whether a count is let through."""
    try:
        require_whole("count", value, least)
    except InputError:
        return False
    return True


def test_whole_numbers_pass():
    assert [value for value in (1, 2.0, np.int8(3), jnp.int32(4), np.float32(5)) if not passes(value)] == []
    assert passes(0, 0) and not passes(0) and not passes(1.5)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, np.bool(1), "3", None, float("nan"), float("inf"), [1], 1j, 11])
def test_others_do_not(value):
    with pytest.raises(InputError, match=r"^count = .*: must be a whole number from 1 to 10$"):
        require_whole("count", value, most=10)


REFUSED = {
    "k": lambda: k_nearest(ROWS, ROWS, k=1.5),
    "block_size": lambda: k_nearest(ROWS, ROWS, block_size=2.5),
    "count": lambda: choose_rows(ROWS, 2.5, KEY),
    "probes": lambda: log_likelihood(GAUSSIAN, jnp.ones(2), key=KEY, probes=float("nan")),
    "block_size ": lambda: log_likelihood(GAUSSIAN, jnp.ones(2), block_size=float("nan")),
    "num_steps": lambda: karras_sigmas(10**20),
    "batch_size": lambda: sample(GAUSSIAN, KEY, [0], GRID, shape=(2,), batch_size="3"),
    "shape": lambda: sample(GAUSSIAN, KEY, [0], GRID, shape=2),
    "a size of shape": lambda: sample(GAUSSIAN, KEY, [0], GRID, shape=(2.7,)),
    "seed": lambda: seeded(jnp.float32(2.7)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_every_door_refuses_them(name):
    with pytest.raises(InputError, match=f"^{name.strip()} = "):
        REFUSED[name]()


def test_whole_floats_count():
    assert k_nearest(ROWS, ROWS, k=1.0, block_size=2.0)[0].shape == (4, 1)
    assert choose_rows(ROWS, 2.0, KEY).shape == (2, 4)


@pytest.mark.parametrize("level", [1e-50, 1e39])
def test_levels_that_the_state_cannot_hold_are_refused(level):
    sigmas = np.array([level, 0.0]) if level > 1 else np.array([1.0, level, 0.0])
    with pytest.raises(InputError, match=r"^sigmas = \[.*: must be levels that float32 holds"):
        sample(GAUSSIAN, KEY, [0], sigmas, shape=(2,))
