"""Addressed draws: each depends on (key, index, step) alone, and different addresses are independent."""

import itertools

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dgu import keys
from dgu.core.keys import streams
from dgu.errors import InputError

SHAPE = (3, 2)


def bits(key):
    return tuple(int(word) for word in jax.random.key_data(key))


def test_draws_are_normals_at_documented_addresses():
    key = jax.random.key(5)
    example = jax.random.fold_in(key, 9)
    initial = jax.random.normal(jax.random.fold_in(example, 0), SHAPE, jnp.float32)
    third = jax.random.normal(jax.random.fold_in(example, 3), SHAPE, jnp.float32)
    np.testing.assert_array_equal(keys.initial_noise(key, 9, SHAPE), initial)
    np.testing.assert_array_equal(keys.step_noise(key, 9, 2, SHAPE), third)
    assert bits(keys.example_key(key, 9)) == bits(example)


def test_draws_are_the_same_alone_in_a_batch_and_in_a_scan():
    key, indices, steps = jax.random.key(1), jnp.array([40, 0, 7, 2**31 - 1]), 4
    batch = jax.jit(jax.vmap(lambda i: keys.initial_noise(key, i, SHAPE)))(indices)
    scanned = jax.jit(
        jax.vmap(lambda i: jax.lax.scan(lambda _, s: (0, keys.step_noise(key, i, s, SHAPE)), 0, jnp.arange(steps))[1])
    )(indices)
    for row, index in enumerate(indices.tolist()):
        np.testing.assert_array_equal(batch[row], keys.initial_noise(key, index, SHAPE))
        for step in range(steps):
            np.testing.assert_array_equal(scanned[row, step], keys.step_noise(key, index, step, SHAPE))


def test_no_two_addresses_share_their_noise():
    key, size = jax.random.key(0), 4096
    draws = [keys.initial_noise(key, i, (size,)) for i in range(3)]
    draws += [keys.step_noise(key, i, s, (size,)) for i in range(3) for s in range(3)]
    draws += [keys.initial_noise(keys.stream(key, name), 0, (size,)) for name in ("a", "b", 0)]
    correlations = np.corrcoef(np.asarray(draws))
    off_diagonal = correlations[~np.eye(len(draws), dtype=bool)]
    assert np.abs(off_diagonal).max() < 5 / np.sqrt(size)


@given(st.lists(st.one_of(st.text(max_size=8), st.integers(-3, 200)), min_size=1, max_size=4))
@settings(max_examples=15, deadline=None)
def test_a_stream_is_its_path(path):
    key = jax.random.key(3)
    whole = keys.stream(key, *path)
    stepwise = key
    for name in path:
        stepwise = keys.stream(stepwise, name)
    assert bits(whole) == bits(stepwise) != bits(key)
    assert bits(whole) != bits(keys.stream(key, *path, "more"))


def test_streams_differ_by_name_type_and_order():
    key = jax.random.key(0)
    paths = [(), ("a",), ("b",), ("a", "b"), ("b", "a"), ("ab",), (3,), ("3",), (3, 3), ("a", 3), ("a", "3")]
    for one, two in itertools.combinations(paths, 2):
        assert bits(keys.stream(key, *one)) != bits(keys.stream(key, *two)), (one, two)


def test_a_numpy_integer_names_the_stream_of_the_int_it_equals():
    key = jax.random.key(0)
    for number in (np.int64(7), np.uint8(7), np.int32(7)):
        assert bits(keys.stream(key, "class", number)) == bits(keys.stream(key, "class", 7))


def test_streams_of_many_names_are_those_of_each():
    key, names = jax.random.key(5), ["a", 3, "3", np.int64(2**40)]
    for own, name in zip(streams(key, names), names, strict=True):
        assert bits(own) == bits(keys.stream(key, name))


def test_base_may_be_a_callable_and_no_other_name():
    key = jax.random.key(2)
    uniform = keys.initial_noise(key, 4, SHAPE, base=lambda k, shape: jax.random.uniform(k, shape))
    address = jax.random.fold_in(jax.random.fold_in(key, 4), 0)
    np.testing.assert_array_equal(uniform, jax.random.uniform(address, SHAPE))
    with pytest.raises(InputError, match="base = 'cauchy'"):
        keys.initial_noise(key, 4, SHAPE, base="cauchy")


def test_raw_and_typed_keys_agree():
    raw, typed = jax.random.PRNGKey(11), jax.random.key(11)
    np.testing.assert_array_equal(keys.step_noise(raw, 1, 2, SHAPE), keys.step_noise(typed, 1, 2, SHAPE))


def test_double_precision_draws(x64):
    draw = keys.initial_noise(jax.random.key(0), 1, (1000,), jnp.float64)
    assert draw.dtype == jnp.float64
    assert np.unique(np.asarray(draw) - np.asarray(draw, np.float32)).size > 500


def test_a_step_of_few_bits_is_not_the_initial_noise():
    key = jax.random.key(3)
    expected = keys.step_noise(key, 5, 255, SHAPE)
    np.testing.assert_array_equal(keys.step_noise(key, np.uint8(5), np.uint8(255), SHAPE), expected)
    traced = jax.jit(lambda index, step: keys.step_noise(key, index, step, SHAPE))
    np.testing.assert_array_equal(traced(np.uint8(5), np.uint8(255)), expected)


@pytest.mark.parametrize("number", [-1, 1.5, True, 2**32, 2**70, "3", None])
def test_numbers_of_samples_and_steps_are_whole(number, unchecked):
    key = jax.random.key(3)
    with pytest.raises(InputError, match=r"^index = .*: must be a whole number from 0"):
        keys.initial_noise(key, number, SHAPE)
    with pytest.raises(InputError, match=r"^step = .*: must be a whole number from 0"):
        keys.step_noise(key, 0, number, SHAPE)


def test_streams_have_names_of_text_or_integers(unchecked):
    for name in (1.5, None, "\ud800"):
        with pytest.raises(InputError, match="must be text or a whole number"):
            keys.stream(jax.random.key(0), name)


@pytest.fixture
def unchecked():
    """Without the type checks that only tests have: the refusals are what users meet."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def test_the_seeds_of_neighbours_share_no_number():
    """seed + number would be the same for (0, 1) and (1, 0)."""
    found = {keys.seed_of(keys.seeded(seed), "sgd", number) for seed in range(8) for number in range(12)}
    assert len(found) == 96 and all(0 <= one < 2**31 for one in found)
    # Uniform: the mean of 96 is within four standard errors of the middle.
    assert abs(np.mean(list(found)) / 2**31 - 0.5) < 4 / np.sqrt(12 * 96)
    assert keys.seed_of(keys.seeded(0), "a", 2) == keys.seed_of(keys.stream(keys.seeded(0), "a"), 2)
