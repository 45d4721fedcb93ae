"""A store that is killed while it is filled goes on to the same bytes, and of several processes one fills it."""

import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from dgu.data import SampleStore
from dgu.data.store import MANIFEST
from tests.data.stores import CONFIG, ROOT, SHAPE, Recorder, content, expected, make

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


def test_one_filler_at_a_time(tmp_path, refused):
    store = SampleStore.open(tmp_path, CONFIG, SHAPE, shard_size=4)

    def nosy(labels, indices):
        with refused(tmp_path, "another process"):
            store.fill(make, [9], 1)
        return make(labels, indices)

    assert store.fill(nosy, [0], 4) == 4
    assert store.fill(make, [9], 1) == 1
