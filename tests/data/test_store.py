"""The store of samples: nothing made twice, nothing left out, and everything read back as it was written."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dgu.data import SampleStore
from tests.data.stores import CONFIG, SHAPE, Recorder, content, expected, make


def test_fill_makes_each_sample_once_and_reads_back(tmp_path):
    store = SampleStore.open(tmp_path / "s", CONFIG, SHAPE, shard_size=4)
    record = Recorder()
    progress = []
    assert store.fill(record, [0, 2], 10, progress=lambda done, total: progress.append((done, total))) == 20
    assert sorted(record.addresses) == [(label, index) for label in (0, 2) for index in range(10)]
    assert record.calls == [4, 4, 2, 4, 4, 2]
    assert progress == [(0, 20), (4, 20), (8, 20), (10, 20), (14, 20), (18, 20), (20, 20)]
    assert sorted(content(store.path))[:3] == [f"class-0000_{span}.npy" for span in SPANS]
    np.testing.assert_array_equal(store.read(2, 10), expected(2, np.arange(10)))
    order = np.asarray([9, 0, 3, 4, 4, 8])
    np.testing.assert_array_equal(store.read(2, order), expected(2, order))
    assert store.read(0, 0).shape == (0, *SHAPE) and store.read(0, 1).dtype == np.float32
    assert store.fill(record, [0, 2], 10) == 0 and len(record.calls) == 6


SPANS = ["00000000-00000004", "00000004-00000008", "00000008-00000010"]


def test_shards_are_plain_npy_files(tmp_path):
    store = SampleStore.open(tmp_path, CONFIG, SHAPE, shard_size=4)
    store.fill(make, [1], 6)
    np.testing.assert_array_equal(np.load(tmp_path / "class-0001_00000004-00000006.npy"), expected(1, [4, 5]))


@pytest.mark.parametrize(("batch_size", "calls"), [(1, [4, 2, 4, 2]), (6, [6, 6]), (7, [10, 2]), (99, [12])])
def test_batches_are_whole_shards_across_classes(tmp_path, batch_size, calls):
    store = SampleStore.open(tmp_path, CONFIG, SHAPE, shard_size=4)
    record = Recorder()
    store.fill(record, [0, 1], 6, batch_size=batch_size)
    assert record.calls == calls
    for label in (0, 1):
        np.testing.assert_array_equal(store.read(label, 6), expected(label, np.arange(6)))


def test_growing_rewrites_nothing(tmp_path):
    store = SampleStore.open(tmp_path, CONFIG, SHAPE, shard_size=4)
    store.fill(make, [0], 6)
    before = content(tmp_path)
    stamps = {name: (tmp_path / name).stat().st_mtime_ns for name in before}
    record = Recorder()
    other_size = SampleStore.open(tmp_path, CONFIG, SHAPE, shard_size=5)
    assert other_size.missing(0, 13) == [(6, 10), (10, 13)]
    assert other_size.fill(record, [0, 1], 13) == 7 + 13
    assert [address for address in record.addresses if address[0] == 0] == [(0, index) for index in range(6, 13)]
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in before} == stamps
    assert before.items() <= content(tmp_path).items()
    np.testing.assert_array_equal(other_size.read(0, 13), expected(0, np.arange(13)))


@settings(max_examples=15, deadline=None)
@given(
    count=st.integers(0, 23),
    shard_size=st.integers(1, 9),
    cuts=st.lists(st.integers(0, 22), min_size=0, max_size=6, unique=True).map(sorted),
)
def test_missing_is_exactly_the_rest(tmp_path_factory, count, shard_size, cuts):
    """Whatever shards are there, ``missing`` covers each absent index once, in order, within the shard grid."""
    store = SampleStore.open(tmp_path_factory.mktemp("s"), CONFIG, SHAPE, shard_size)
    there = set()
    for start, stop in zip(cuts[::2], cuts[1::2]):
        store.write(5, start, expected(5, np.arange(start, stop)))
        there |= set(range(start, stop))
    gaps = store.missing(5, count)
    assert [index for start, stop in gaps for index in range(start, stop)] == sorted(set(range(count)) - there)
    assert all(start // shard_size == (stop - 1) // shard_size for start, stop in gaps)
    store.fill(make, [5], count)
    np.testing.assert_array_equal(store.read(5, count), expected(5, np.arange(count)))


def test_jax_arrays_are_taken(tmp_path):
    import jax.numpy as jnp

    store = SampleStore.open(tmp_path, CONFIG, SHAPE)
    store.fill(lambda labels, indices: jnp.asarray(make(labels, indices)), [0], 5)
    np.testing.assert_array_equal(store.read(0, 5), expected(0, np.arange(5)))


def test_equally_many_of_every_class_end_before_the_first_gap(tmp_path, refused):
    store = SampleStore.open(tmp_path, CONFIG, SHAPE, shard_size=4)
    with refused(tmp_path, "samples = 0"):
        store.read_equally()
    store.fill(make, [3], 11)
    for start, stop in ((0, 4), (4, 7), (8, 10)):
        store.write(1, start, expected(1, np.arange(start, stop)))
    images, labels = store.read_equally()
    assert labels.tolist() == [1] * 7 + [3] * 7 and labels.dtype == np.int32
    np.testing.assert_array_equal(images, make(labels, np.tile(np.arange(7), 2)))
    store.write(2, 4, expected(2, np.arange(4, 8)))
    with refused("samples number 0 on of every class = 0"):
        store.read_equally()
