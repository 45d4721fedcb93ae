"""Runs do not mix: pairs of processes on one directory, and other options in the directory of a run."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from experiments.study.run_directory import RunDirectory
from tests.experiments.fake_runs import Config, contents, refused

ROOT = Path(__file__).parents[2]
PAIR = """
import dataclasses, sys, time
import numpy as np
from dgu.errors import InputError
from experiments.study.run_directory import RunDirectory

@dataclasses.dataclass(frozen=True)
class Config:
    seed: int
    steps: int = 3

seed = int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
try:
    with RunDirectory.hold(sys.argv[1], Config(seed)) as directory:
        for step in range(3):
            directory.stage(f"draw/{step}", lambda: {"seed": np.asarray(seed), "step": step})
        directory.write_json("metrics.json", {"seed": seed})
except InputError as error:
    print(error, file=sys.stderr)
    raise SystemExit(2)
assert "jax" not in sys.modules
"""


def start_pair(out):
    """Two processes with seeds 1 and 2 that begin at the same moment; their exit codes and lines."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    pair = [
        subprocess.Popen([sys.executable, "-c", PAIR, str(out), str(seed)], env=environment, text=True, **pipes)
        for seed in (1, 2)
    ]
    for process in pair:
        assert process.stdout.readline() == "ready\n"
    for process in pair:
        process.stdin.write("\n")
        process.stdin.flush()
    lines = [process.communicate(timeout=120)[1] for process in pair]
    return [process.returncode for process in pair], lines


@pytest.mark.parametrize("pairs", [4, pytest.param(300, marks=pytest.mark.slow)])
def test_pairs_of_processes_with_different_options_never_mix(tmp_path, pairs):
    """One of each pair has the directory, and all that is in it is its own; the other says in one line why it has
    not.
    """
    with ThreadPoolExecutor(2) as pool:
        ends = list(pool.map(start_pair, [tmp_path / str(number) for number in range(pairs)]))
    for number, (codes, lines) in enumerate(ends):
        assert sorted(codes) == [0, 2], (codes, lines)
        winner, out = codes.index(0) + 1, tmp_path / str(number)
        line = lines[2 - winner]
        assert line.count("\n") == 1 and "--out another directory" in line, line
        assert "in use by another process" in line or f"--seed = {3 - winner}: must be {winner} as stored" in line
        assert json.loads((out / "config.json").read_text())["seed"] == winner
        assert json.loads((out / "metrics.json").read_text()) == {"seed": winner}
        for step in range(3):
            with np.load(out / f"stages/draw/{step}.npz") as stage:
                assert int(stage["seed"]) == winner
        assert len(contents(out)) == 6


def test_a_kill_before_anything_was_stored_refuses_no_other_options(tmp_path):
    """The configuration is there, perhaps with a store and folders that are empty; a run that stored a stage still
    refuses.
    """
    RunDirectory.open(tmp_path, Config(seed=1))
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples/store.json").write_text("{}")
    (tmp_path / ".config.json.7.tmp").write_text("{")
    with RunDirectory.hold(tmp_path, Config(seed=2)) as directory:
        assert json.loads((tmp_path / "config.json").read_text())["seed"] == 2
        assert list(contents(tmp_path)) == ["config.json"]
        directory.stage("draw", lambda: {"x": 1})
    refused(tmp_path, Config(seed=3), "--seed = 3: must be 2 as stored")
    # A configuration of something else is not this study's to replace.
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"architectures": ["BERT"]}')
    refused(other, Config(), "config.json")
