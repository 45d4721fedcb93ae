"""The functions are 1-Lipschitz, attain it where they should, and equal NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dgu.analysis.concentration.lipschitz import lipschitz_family, lipschitz_values
from dgu.core.errors import InputError

D = 12
RNG = np.random.default_rng(0)
ANCHORS = RNG.normal(size=(3, 2, 3, 2)).astype(np.float32)
DIRECTION = 3 * np.eye(D, dtype=np.float32)[:1]
FAMILY = lipschitz_family(
    jax.random.key(1), D, projections=3, coordinates=2, anchors=ANCHORS, directions=DIRECTION, width=5
)


def test_values_equal_numpy():
    x = RNG.normal(size=(7, 2, 3, 2)).astype(np.float32)
    found = dict(zip(FAMILY.names, lipschitz_values(FAMILY, x).T))
    flat = x.reshape(7, D).astype(np.float64)
    assert list(found)[:6] == ["norm", "max", "projection 0", "projection 1", "projection 2", "projection 3"]
    expected = {
        "norm": np.linalg.norm(flat, axis=1),
        "max": flat.max(axis=1),
        "projection 0": flat[:, 0],
        "projection 2": flat @ np.asarray(FAMILY.directions[2], np.float64),
        "coordinate 1": flat[:, int(FAMILY.coordinates[1])],
        "distance to anchors": np.linalg.norm(flat[:, None] - ANCHORS.reshape(1, 3, D), axis=2).min(axis=1),
    }
    layers = [np.asarray(layer, np.float64) for layer in FAMILY.layers]
    expected["network"] = (layers[2] @ np.tanh(layers[1] @ np.tanh(layers[0] @ flat.T)))[0]
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-6, err_msg=name)
    assert len(set(np.asarray(FAMILY.coordinates).tolist())) == 2


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), spread=st.floats(-3, 2), step=st.floats(-3, 2))
def test_no_pair_is_stretched(seed, spread, step):
    """``|f(x) - f(y)| <= ||x - y||`` for points of any size, near and far, and along each coordinate."""
    rng = np.random.default_rng(seed)
    x = (10**spread * rng.normal(size=(40, D))).astype(np.float32)
    move = (10**step * rng.normal(size=(40, D))).astype(np.float32)
    move[20:] *= rng.permuted(np.eye(D, dtype=np.float32)[rng.integers(0, D, 20)], axis=1)
    y = x + move
    change = np.abs(np.float64(lipschitz_values(FAMILY, x)) - lipschitz_values(FAMILY, y))
    distance = np.linalg.norm(np.float64(x) - y, axis=1)
    rounding = 3e-6 * (np.linalg.norm(x, axis=1) + np.linalg.norm(y, axis=1) + 1)
    assert (change <= distance[:, None] * (1 + 1e-5) + rounding[:, None]).all()


def test_gradients_have_length_one_where_the_function_is_linear_or_a_distance():
    gradients = jax.jit(jax.jacfwd(FAMILY))
    for x in RNG.normal(size=(20, D)).astype(np.float32):
        lengths = np.linalg.norm(gradients(jnp.asarray(x)), axis=1)
        np.testing.assert_allclose(lengths[:-1], 1, atol=1e-5)
        assert 0 < lengths[-1] <= 1 + 1e-5
    # The bound of the network is a product of layers' norms, each of them attained.
    for layer in FAMILY.layers:
        assert np.linalg.norm(layer, 2) == pytest.approx(1, abs=1e-5)


def test_members_can_be_left_out():
    bare = lipschitz_family(jax.random.key(1), D, projections=0, coordinates=0, maximum=False, width=0)
    assert bare.names == ("norm",) and lipschitz_values(bare, np.ones((2, D), np.float32)).shape == (2, 1)
    chosen = lipschitz_family(jax.random.key(1), D, projections=0, coordinates=(4, 0), width=0)
    np.testing.assert_array_equal(lipschitz_values(chosen, np.arange(24.0).reshape(2, D))[:, 2:], [[4, 0], [16, 12]])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"dimension": 0}, "dimension = 0"),
        ({"coordinates": 13}, "coordinates = 13: must be 0 to the dimension, 12"),
        ({"coordinates": (3, 12)}, r"coordinates = \(3, 12\): must be positions from 0 to 11"),
        ({"projections": -1}, "projections = -1"),
        ({"width": -1}, "width = -1"),
        ({"anchors": np.zeros((2, 11))}, r"anchors.shape = \(2, 11\): must be rows of 12 numbers"),
        ({"anchors": np.full((2, D), np.nan)}, "anchors = 'non-finite'"),
        ({"directions": np.zeros((1, D))}, "directions = 'a row of length 0'"),
    ],
)
def test_bad_input(options, text):
    with pytest.raises(InputError, match=text):
        lipschitz_family(jax.random.key(0), **{"dimension": D, **options})


def test_bad_examples():
    with pytest.raises(InputError, match=r"examples.shape = \(3, 11\)"):
        lipschitz_values(FAMILY, np.zeros((3, 11), np.float32))
    with pytest.raises(InputError, match="examples = 'non-finite'"):
        lipschitz_values(FAMILY, np.full((3, D), np.inf, np.float32))
