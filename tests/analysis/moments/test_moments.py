"""Streaming moments against numpy.cov, for every chunking and merge order."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dgu.analysis.moments.streaming import MomentState, moments
from dgu.core.errors import InputError
from dgu.core.parallel import batch_sharding, data_mesh

SHAPE = (2, 3, 1)
SIZE = 6


def images(n=48, offset=3.0, dtype=np.float64):
    """Correlated images with means far from zero against their spread."""
    rng = np.random.default_rng(7)
    mix = rng.normal(size=(SIZE, SIZE))
    rows = offset * rng.normal(size=SIZE) + rng.normal(size=(n, SIZE)) @ mix
    return rows.reshape(n, *SHAPE).astype(dtype)


def assert_equals_numpy(state, data, tolerance=1e-10, ddof=1):
    rows = np.asarray(data, np.float64).reshape(len(data), -1)
    assert int(state.count) == len(data)
    np.testing.assert_allclose(np.asarray(state.mean).ravel(), rows.mean(0), rtol=0, atol=tolerance)
    np.testing.assert_allclose(state.covariance(ddof), np.cov(rows.T, ddof=ddof), rtol=0, atol=tolerance)


@pytest.mark.parametrize("ddof", [0, 1])
def test_whole_set_equals_numpy(x64, strict_dtypes, ddof):
    state = moments(images())
    assert state.mean.shape == SHAPE and state.covariance().dtype == jnp.float64
    assert_equals_numpy(state, images(), 1e-12, ddof)


def test_events_of_any_shape(x64):
    data = images()
    flat = moments(data.reshape(48, SIZE))
    assert_equals_numpy(flat, data)
    scalar = moments(data.reshape(48, SIZE)[:, 0])
    assert scalar.mean.shape == ()
    np.testing.assert_allclose(scalar.covariance()[0, 0], data.reshape(48, SIZE)[:, 0].var(ddof=1), rtol=1e-12)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**20))
def test_any_chunking_and_merge_order(seed):
    """Chunks of 1, 4 and 16 in a random order, folded into a random number of states, merged in random order."""
    rng = np.random.default_rng(seed)
    with jax.enable_x64(True):
        data = images()
        sizes = rng.permutation([1] * 8 + [4] * 6 + [16])
        chunks = np.split(data, np.cumsum(sizes)[:-1])
        states = [MomentState.zeros(SHAPE) for _ in range(rng.integers(1, 6))]
        for chunk in chunks:
            slot = rng.integers(len(states))
            states[slot] = states[slot].update(chunk)
        while len(states) > 1:
            a, b = (states.pop(rng.integers(len(states))) for _ in range(2))
            states.append(a.merge(b))
        assert_equals_numpy(states[0], data)


def test_no_cancellation_with_a_large_mean(x64):
    """Means of 1e8 against a spread of 1: the raw-squares formula would keep no digit of the covariance."""
    rng = np.random.default_rng(0)
    data = 1e8 + rng.normal(size=(48, SIZE))
    state = functools.reduce(MomentState.update, np.split(data, 12), MomentState.zeros((SIZE,)))
    np.testing.assert_allclose(state.covariance(), np.cov(data.T), rtol=0, atol=1e-7)


def test_float32_and_uint8():
    data = images(4096, offset=100.0, dtype=np.float32)
    state = functools.reduce(MomentState.update, np.split(data, 16), MomentState.zeros(SHAPE))
    reference = np.cov(data.reshape(4096, -1).T.astype(np.float64))
    assert state.scatter.dtype == jnp.float32
    np.testing.assert_allclose(state.covariance(), reference, rtol=0, atol=3e-5 * np.abs(reference).max())
    pixels = np.random.default_rng(1).integers(0, 256, size=(64, SIZE)).astype(np.uint8)
    np.testing.assert_allclose(moments(pixels).covariance(), np.cov(pixels.T), rtol=1e-4)


def test_empty_states_and_batches_change_nothing(x64):
    data = images()
    empty, full = MomentState.zeros(SHAPE), moments(data)
    assert_equals_numpy(empty.merge(full), data)
    assert_equals_numpy(full.merge(empty), data)
    assert_equals_numpy(full.update(data[:0]), data)
    both = empty.merge(empty)
    assert int(both.count) == 0 and not np.any(both.scatter) and not np.any(both.mean)


def test_states_of_several_devices_merge_to_the_whole(x64):
    """Eight states of shards on several devices, then a tree of merges 8 -> 4 -> 2 -> 1, all in one sharded program."""

    @jax.jit
    def tree(shards):
        states = jax.vmap(lambda x: MomentState.zeros(SHAPE).update(x))(shards)
        while states.count.shape[0] > 1:
            left, right = (jax.tree.map(lambda leaf, s=s: leaf[s::2], states) for s in (0, 1))
            states = jax.vmap(MomentState.merge)(left, right)
        return jax.tree.map(lambda leaf: leaf[0], states)

    data = images(64)
    shards = jax.device_put(data.reshape(8, 8, *SHAPE), batch_sharding(data_mesh()))
    assert len(shards.sharding.device_set) == jax.device_count() > 1
    assert_equals_numpy(tree(shards), data)

    per_device = [moments(shard.data.reshape(-1, *SHAPE)) for shard in shards.addressable_shards]
    assert {next(iter(s.mean.devices())) for s in per_device} == set(jax.devices())
    home = [jax.device_put(s, jax.devices()[0]) for s in reversed(per_device)]
    assert_equals_numpy(functools.reduce(MomentState.merge, home), data)


def test_one_trace_for_a_stream_of_equal_chunks():
    traces = []

    @jax.jit
    def step(state, batch):
        traces.append(1)
        return state.update(batch)

    state = MomentState.zeros(SHAPE)
    for chunk in np.split(images(dtype=np.float32), 12):
        state = step(state, chunk)
    assert len(traces) == 1 and int(state.count) == 48


def test_bad_input_is_named():
    with pytest.raises(InputError, match=r"batch\.shape = \(4, 6\): must be \(n, 2, 3, 1\)"):
        MomentState.zeros(SHAPE).update(np.zeros((4, 6), np.float32))
    with pytest.raises(InputError, match=r"images\.shape"):
        moments(np.zeros((0, 3), np.float32))
    with pytest.raises(InputError, match="dtype = 'int32'"):
        MomentState.zeros(SHAPE, jnp.int32)
    with pytest.raises(InputError, match="shape"):
        MomentState.zeros((3, 0))
    with pytest.raises(InputError, match="count = 1: must be above ddof = 1"):
        moments(np.zeros((1, 3), np.float32)).covariance()
    with pytest.raises(InputError, match=r"other\.mean\.shape"):
        MomentState.zeros(SHAPE).merge(MomentState.zeros((6,)))


def test_lowers_for_accelerators():
    state = jax.eval_shape(lambda: MomentState.zeros(SHAPE))
    batch = jax.ShapeDtypeStruct((4, *SHAPE), jnp.float32)
    for function, arguments in [(MomentState.update, (state, batch)), (MomentState.merge, (state, state))]:
        exported = jax.export.export(jax.jit(function), platforms=["cuda", "tpu"])(*arguments)
        assert set(exported.platforms) == {"cuda", "tpu"}
