"""The gate of arrays: whole numbers that no floating-point number holds are refused, all others keep their values."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import monitoring

from dgu.analysis import expected_coverage, k_nearest
from dgu.analysis.concentration import panel_steps
from dgu.analysis.divergence import optimal_stopping
from dgu.core.arrays import all_finite, as_floats, as_jax_floats, to_device
from dgu.core.errors import InputError
from dgu.data import subset


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_integers_that_float64_rounds_are_refused(dtype):
    largest = np.asarray([[0, 2**53]], dtype)
    assert as_floats("x", largest).astype(dtype).tolist() == largest.tolist()
    with pytest.raises(InputError, match=r"^largest absolute value of x = .*: must be at most 2\^53"):
        as_floats("x", largest * 2)
    near = np.asarray([[2**60], [2**60 + 1]], dtype)  # Equal in float64.
    with pytest.raises(InputError, match=r"at most 2\^53"):
        k_nearest(near, near, 1)
    with pytest.raises(InputError, match=r"at most 2\^53"):
        as_floats("x", np.asarray([2**53 + 1], dtype))


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_integers_that_lose_their_spread_are_refused_whoever_holds_them(kind):
    with pytest.raises(InputError, match="must have their mean subtracted first"):
        as_jax_floats("x", kind(np.asarray([[10**9], [10**9 + 1]], np.int32)))
    np.testing.assert_array_equal(as_jax_floats("x", kind(np.asarray([[1], [3]], np.int32))), [[1], [3]])


@pytest.mark.parametrize("kind", [np.int8, np.int16, jnp.int8])
def test_single_numbers_of_narrow_types_do_not_wrap(kind):
    # The functions themselves: the types of their arguments are checked in tests alone.
    for function, numbers in (
        (expected_coverage, (100, 120, 5)),
        (panel_steps, (100, 9)),
        (optimal_stopping, (100, 120)),
        (subset, (100, 50, 3)),
    ):
        narrow = inspect.unwrap(function)(*map(kind, numbers))
        np.testing.assert_array_equal(narrow, function(*numbers))


def test_arrays_go_to_the_device_as_copies_and_without_a_program():
    """Memory on a boundary of 64 bytes is what JAX would take as it is."""
    compiled = []

    def heard(event, _, **about):
        compiled.extend(about["fun_name"] for _ in range("backend_compile" in event))

    def aligned(shape):
        memory = np.zeros(4 * int(np.prod(shape)) + 64, np.uint8)
        start = -memory.ctypes.data % 64
        return memory[start : start + 4 * int(np.prod(shape))].view(np.float32).reshape(shape)

    monitoring.register_event_duration_secs_listener(heard)
    try:
        for put in (to_device, lambda array: as_jax_floats("x", array)):
            given = aligned((3, 37, 2))
            found = put(given)
            given[...] = 1
            assert isinstance(found, jax.Array) and not np.asarray(found).any()
    finally:
        monitoring.unregister_event_duration_listener(heard)
    assert compiled == []


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_found(wrong):
    rows = np.full((5, 7), 3e38, np.float32)  # Their sum overflows.
    assert all_finite(rows)
    rows[3, 2] = wrong
    assert not all_finite(rows)
