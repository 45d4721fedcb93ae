"""What a store refuses in one line: another configuration, samples that do not fit, shards that are damaged."""

import numpy as np
import pytest

from dgu.data import SampleStore
from dgu.data.store import MANIFEST
from tests.data.stores import CONFIG, SHAPE, content, expected, make


@pytest.mark.parametrize(
    ("change", "fragments"),
    [
        ({"seed": 4}, ("config.seed = 4", "must be 3")),
        ({"grid": {"steps": 19, "sigma_max": 80.0}}, ("config.grid.steps = 19", "must be 18")),
        ({"model": "other"}, ("config.model = 'other'", "'toy'")),
        ({"classes": [0, 1, 2]}, ("config.classes = [0, 1, 2]", "[0, 1]")),
        ({"extra": 1}, ("config.extra = 1", "None")),
        ({"seed": True}, ("config.seed = True", "3")),
        ({"seed": 3.0}, ("config.seed = 3.0", "must be 3")),
    ],
)
def test_changed_config_is_refused_and_nothing_touched(tmp_path, change, fragments, refused):
    SampleStore.open(tmp_path, CONFIG, SHAPE).fill(make, [0], 3)
    before, stamp = content(tmp_path), tmp_path.stat().st_mtime_ns
    with refused(tmp_path, *fragments):
        SampleStore.open(tmp_path, {**CONFIG, **change}, SHAPE)
    with refused(tmp_path, "shape"):
        SampleStore.open(tmp_path, CONFIG, (2, 3, 3))
    assert content(tmp_path) == before and tmp_path.stat().st_mtime_ns == stamp


def test_config_order_and_tuples_do_not_matter(tmp_path):
    SampleStore.open(tmp_path, CONFIG, SHAPE).fill(make, [0], 3)
    again = SampleStore.open(tmp_path, {**dict(reversed(CONFIG.items())), "classes": [0, 1]}, SHAPE)
    assert not again.missing(0, 3)


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, np.float32(1)])
def test_config_must_be_json(tmp_path, value, refused):
    with refused("config", "JSON"):
        SampleStore.open(tmp_path / "s", {"seed": value}, SHAPE)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        ({"shard_size": 0}, ("shard_size", "0")),
        ({"shape": (2, 0)}, ("shape", "(2, 0)")),
        ({"shape": (-1,)}, ("shape",)),
    ],
)
def test_bad_sizes(tmp_path, arguments, fragments, refused):
    with refused(*fragments, "1 or more"):
        SampleStore.open(**{"path": tmp_path / "s", "config": CONFIG, "shape": SHAPE, **arguments})
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_samples_are_named(tmp_path, bad, refused):
    store = SampleStore.open(tmp_path, CONFIG, SHAPE, shard_size=4)

    def spoiled(labels, indices):
        images = make(labels, indices)
        images[(labels == 1) & (indices >= 6), 0, 1, 0] = bad
        return images

    with refused("sample 6 of class 1", "finite"):
        store.fill(spoiled, [0, 1], 8, batch_size=99)
    assert store.missing(0, 8) == [] and store.missing(1, 8) == [(4, 8)]


def test_bad_writes(tmp_path, refused):
    store = SampleStore.open(tmp_path, CONFIG, SHAPE, shard_size=4)
    store.write(0, 4, expected(0, [4, 5, 6, 7]))
    before = content(tmp_path)
    with refused("start = 2", "samples 4 to 5 of class 0", "already"):
        store.write(0, 2, expected(0, [2, 3, 4, 5]))
    with refused("(3, 2, 1)", "(2, 3, 1)"):
        store.write(0, 0, np.zeros((2, 3, 2, 1), np.float32))
    with refused("number of samples", "0"):
        store.write(0, 0, np.zeros((0, *SHAPE), np.float32))
    with refused("label", "-1"):
        store.write(-1, 0, expected(0, [0]))
    with refused("start", "-4"):
        store.write(0, -4, expected(0, [0]))
    with refused("number of samples made", "3", "4"):
        store.fill(lambda labels, indices: make(labels, indices)[1:], [0], 4)
    with refused("batch_size", "0"):
        store.fill(make, [0], 4, batch_size=0)
    with refused("labels", "[0, 0]"):
        store.fill(make, [0, 0], 4)
    with refused("count", "-1"):
        store.fill(make, [0], -1)
    assert content(tmp_path) == before


def test_absent_samples_are_named(tmp_path, refused):
    store = SampleStore.open(tmp_path, CONFIG, SHAPE, shard_size=4)
    store.write(0, 4, expected(0, [4, 5, 6, 7]))
    for which, index in ((1, 0), (np.asarray([5, 8]), 8), (np.asarray([5, -1]), -1)):
        with refused(f"sample {index} of class 0", tmp_path):
            store.read(0, which)
    with refused("sample 0 of class 3"):
        store.read(3, 2)
    with refused("which", "-2"):
        store.read(0, -2)


def test_damaged_shards_are_named(tmp_path, refused):
    store = SampleStore.open(tmp_path, CONFIG, SHAPE, shard_size=4)
    store.fill(make, [0], 8)
    path = tmp_path / "class-0000_00000004-00000008.npy"
    good = path.read_bytes()
    path.write_bytes(good[:-3])
    for use in (lambda: store.read(0, 2), lambda: store.missing(0, 9), lambda: store.fill(make, [0], 9)):
        with refused(path.name, f"{len(good) - 3} bytes", str(len(good))):
            use()
    with refused(path.name):
        SampleStore.open(tmp_path, CONFIG, SHAPE)
    path.write_bytes(b"\0" * len(good))
    with refused(path.name, "cannot be read"):
        store.read(0, 8)
    path.write_bytes(good.replace(b"'<f4'", b"'<i4'"))
    with refused(path.name, "int32", "float32"):
        store.read(0, 8)
    path.write_bytes(good)
    (tmp_path / "class-0000_00000006-00000010.npy").write_bytes(good)
    with refused("class-0000_00000006-00000010.npy", "overlaps"):
        store.read(0, 2)


def test_no_flipped_bit_of_a_shard_goes_unnoticed(tmp_path, refused):
    store = SampleStore.open(tmp_path, CONFIG, SHAPE, shard_size=4)
    store.fill(make, [0], 4)
    path = tmp_path / "class-0000_00000000-00000004.npy"
    good = path.read_bytes()
    for place in range(len(good)):
        damaged = bytearray(good)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        with refused(path.name):
            store.read(0, 4)
    for damaged in (
        good[:140] + bytes(20) + good[160:],
        good[:-40] + bytes(40),
    ):  # zeroed data, with and without the checksum
        path.write_bytes(damaged)
        with refused(path.name, "checksum differs", "delete it to make it again"):
            store.read(0, 1)
    path.unlink()
    assert store.fill(make, [0], 4) == 4 and path.read_bytes() == good
    np.testing.assert_array_equal(store.read(0, 4), expected(0, np.arange(4)))


def test_shards_of_early_versions_are_read_unless_they_hold_nan(tmp_path, refused):
    """They are the plain npy file, without a checksum."""
    store = SampleStore.open(tmp_path, CONFIG, SHAPE, shard_size=4)
    path = tmp_path / "class-0000_00000000-00000004.npy"
    images = expected(0, np.arange(4))
    np.save(path, images)
    np.testing.assert_array_equal(store.read(0, 4), images)
    for bad in (np.nan, np.inf):
        images[2, 1, 1, 0] = bad
        np.save(path, images)
        with refused(path.name, "image 2", "NaN or infinite"):
            store.read(0, np.asarray([0]))


def test_folder_must_be_a_store_or_empty(tmp_path, refused):
    (tmp_path / "notes.txt").write_text("mine")
    with refused(tmp_path, MANIFEST, "empty"):
        SampleStore.open(tmp_path, CONFIG, SHAPE)
    with refused("notes.txt", "folder"):
        SampleStore.open(tmp_path / "notes.txt", CONFIG, SHAPE)
    with refused("notes.txt", "cannot be made"):
        SampleStore.open(tmp_path / "notes.txt" / "deep", CONFIG, SHAPE)
    assert content(tmp_path) == {"notes.txt": b"mine"}


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_damaged_manifest(tmp_path, text, refused):
    (tmp_path / MANIFEST).write_text(text)
    with refused(tmp_path):
        SampleStore.open(tmp_path, CONFIG, SHAPE)
