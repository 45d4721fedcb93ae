"""The store of samples: nothing made twice, nothing left out, nothing mixed, whatever happens to the process."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dgu.data import SampleStore
from dgu.data.store import MANIFEST

CONFIG = {"model": "toy", "seed": 3, "grid": {"steps": 18, "sigma_max": 80.0}, "classes": (0, 1)}
SHAPE = (2, 3, 1)


def make(labels, indices):
    """Sample ``index`` of class ``label``: a value that no other address has."""
    values = np.asarray(labels)[:, None] * 1000.0 + np.asarray(indices)[:, None] + np.arange(6) / 10
    return values.reshape(-1, *SHAPE).astype(np.float32)


def expected(label, indices):
    return make(np.full(len(indices), label), indices)


class Recorder:
    """``make`` that remembers every address it was asked for, and each call's length."""

    def __init__(self):
        self.addresses, self.calls = [], []

    def __call__(self, labels, indices):
        self.addresses += list(zip(labels.tolist(), indices.tolist()))
        self.calls.append(len(labels))
        return make(labels, indices)


def content(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.name != ".lock"}


# --- filling and reading ---------------------------------------------------------------------------------------------


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


# --- interruption ----------------------------------------------------------------------------------------------------

CHILD = """
import sys, time
sys.path[:0] = sys.argv[2:]
import numpy as np
from dgu.data.store import SampleStore

def make(labels, indices):
    time.sleep(0.02)
    rows = [np.random.default_rng([label, index]).standard_normal((8, 8, 1)) for label, index in zip(labels, indices)]
    return np.stack(rows).astype(np.float32)

store = SampleStore.open(sys.argv[1], {"seed": 1}, (8, 8, 1), shard_size=50)
print("open", flush=True)
made = store.fill(make, [0, 1, 2], 990, batch_size=100, progress=lambda done, total: print(done, total, flush=True))
assert "jax" not in sys.modules
print("made", made, flush=True)
"""


DYING = """
import os, signal, sys
sys.path[:0] = sys.argv[2:]
import numpy as np
from pathlib import Path
from dgu.data.store import SampleStore

os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
SampleStore(Path(sys.argv[1]), (2, 3, 1)).write(0, 4, np.ones((4, 2, 3, 1), np.float32))
"""
ROOT = str(Path(__file__).resolve().parents[2])


def child(folder):
    return subprocess.Popen([sys.executable, "-c", CHILD, str(folder), ROOT], stdout=subprocess.PIPE, text=True)


def test_killed_at_random_moments(tmp_path):
    """kill -9 three times, then to the end: the bytes of an undisturbed run, and no sample made twice."""
    whole = child(tmp_path / "whole")
    assert whole.communicate(timeout=60)[0].splitlines()[-1] == "made 2970"
    moments = random.Random(0)
    for kill in range(3):
        process = child(tmp_path / "cut")
        # Calls of make end 20 ms apart, so the sleep ends anywhere in making, writing or renaming.
        for _ in range(moments.randint(3, 5)):
            line = process.stdout.readline()
        assert int(line.split()[0]) >= 100 * (kill + 1)
        time.sleep(moments.uniform(0, 0.03))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
    # As if a kill had come in the middle of a file.
    (tmp_path / "cut" / ".class-0002_00000950-00000990.npy.1.tmp").write_bytes(b"half")
    lines = child(tmp_path / "cut").communicate(timeout=60)[0].splitlines()
    done = int(lines[1].split()[0])
    assert 300 <= done < 2970 and lines[-1] == f"made {2970 - done}"
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


def test_killed_while_a_shard_is_written(tmp_path):
    """Death before the rename, at the worst moment: nothing counts as stored, and the rubbish goes at the next fill."""
    store = SampleStore.open(tmp_path, CONFIG, SHAPE, shard_size=4)
    store.fill(make, [0], 4)
    dying = subprocess.run([sys.executable, "-c", DYING, str(tmp_path), ROOT], check=False)
    assert dying.returncode == -signal.SIGKILL
    left = [name for name in content(tmp_path) if name.endswith(".tmp")]
    assert len(left) == 1
    assert store.missing(0, 8) == [(4, 8)]
    store.fill(make, [0], 8)
    assert not [name for name in content(tmp_path) if name.endswith(".tmp")]
    np.testing.assert_array_equal(store.read(0, 8), expected(0, np.arange(8)))


def test_an_error_in_the_middle_keeps_what_is_stored(tmp_path):
    store = SampleStore.open(tmp_path, CONFIG, SHAPE, shard_size=4)
    record = Recorder()

    def failing(labels, indices):
        if indices[0] >= 4:
            raise RuntimeError("out of memory")
        return record(labels, indices)

    with pytest.raises(RuntimeError, match="out of memory"):
        store.fill(failing, [0], 12)
    store.fill(record, [0], 12)
    assert record.addresses == [(0, index) for index in range(12)]


def test_half_made_store_is_taken_up(tmp_path):
    """A process killed while it wrote the manifest leaves a temporary file only."""
    (tmp_path / f".{MANIFEST}.77.tmp").write_text("{")
    store = SampleStore.open(tmp_path, CONFIG, SHAPE)
    store.fill(make, [0], 3)
    assert sorted(content(tmp_path)) == ["class-0000_00000000-00000003.npy", MANIFEST]


# --- refusals --------------------------------------------------------------------------------------------------------


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


MAKER = """
import sys
sys.path[:0] = sys.argv[3:]
import numpy as np
from dgu.data.store import SampleStore
from dgu.core.errors import InputError
print("ready", flush=True)
sys.stdin.readline()
try:
    store = SampleStore.open(sys.argv[1], {"seed": int(sys.argv[2])}, (1,), shard_size=2)
    store.fill(lambda labels, indices: np.full((len(indices), 1), float(sys.argv[2]), np.float32), [int(sys.argv[2])], 4)
except InputError as error:
    raise SystemExit(f"refused: {error}")
"""


@pytest.mark.parametrize("pairs", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_of_two_processes_that_make_a_store_one_is_refused(tmp_path, pairs):
    for number in range(pairs):
        folder = tmp_path / str(number)
        both = [
            subprocess.Popen(
                [sys.executable, "-c", MAKER, str(folder), str(seed), ROOT],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for seed in (1, 2)
        ]  # fmt: skip
        for process in both:
            process.stdout.readline()
        for process in both:
            process.stdin.write("\n")
            process.stdin.flush()
        errors = [process.communicate(timeout=60)[1] for process in both]
        codes = [process.returncode for process in both]
        winner = codes.index(0) + 1
        assert sorted(codes) == [0, 1] and errors[2 - winner].startswith("refused: config.seed"), errors
        assert list(SampleStore.open(folder, {"seed": winner}, (1,)).shards()) == [winner]


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


def test_one_filler_at_a_time(tmp_path, refused):
    store = SampleStore.open(tmp_path, CONFIG, SHAPE, shard_size=4)

    def nosy(labels, indices):
        with refused(tmp_path, "another process"):
            store.fill(make, [9], 1)
        return make(labels, indices)

    assert store.fill(nosy, [0], 4) == 4
    assert store.fill(make, [9], 1) == 1
