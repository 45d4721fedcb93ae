"""kill -9 of whole studies at random moments: the run that follows ends with the bytes of one that was left alone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
#: Kills of each study, one run after another in the same directory.
KILLS = 3


def content(folder: Path) -> dict[str, bytes]:
    """All files but those that show times."""
    files = {str(file.relative_to(folder)): file for file in folder.rglob("*") if file.is_file()}
    return {name: file.read_bytes() for name, file in files.items() if name not in ("timings.json", "report.html")}


def stored(folder: Path) -> int:
    """Whole files in a directory, which may not be there yet."""
    return sum(not name.endswith(".tmp") for _, _, names in os.walk(folder) for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("study", ["universality", "concentration", "hidden_gaussian", "audit"])
def test_kill_9_at_random_moments_leaves_the_same_bytes(tmp_path, study):
    environment = {
        **{name: value for name, value in os.environ.items() if name != "XLA_FLAGS"},
        # Programs compiled once serve all the processes, so that kills come while something is computed or stored.
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_COMPILATION_CACHE_MAX_SIZE": str(jax.config.jax_compilation_cache_max_size),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PLATFORMS": "cpu",
    }
    log = tmp_path / "output.txt"

    def start(out):
        command = [sys.executable, "-m", f"experiments.{study}", "--preset", "smoke", "--out", str(out)]
        with log.open("ab") as stream:
            return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=stream, stderr=stream)

    assert start(tmp_path / "whole").wait(timeout=1200) == 0, log.read_text()
    seed = int(np.random.SeedSequence().entropy % 2**32)
    rng = np.random.default_rng(seed)
    wanted = sorted(rng.integers(1, stored(tmp_path / "whole"), KILLS).tolist())
    killed = []
    for files in wanted:
        process = start(tmp_path / "cut")
        # By what is stored, not by the clock: the machine may be slow.
        while process.poll() is None and stored(tmp_path / "cut") < files:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        killed.append(process.wait())
    assert start(tmp_path / "cut").wait(timeout=1200) == 0, log.read_text()
    moments = f"seed {seed}: killed with {wanted} files stored; exit codes {killed}"
    print(moments)  # so that a failure can be looked into
    whole, cut = content(tmp_path / "whole"), content(tmp_path / "cut")
    assert whole.keys() == cut.keys(), moments
    assert [name for name in whole if whole[name] != cut[name]] == [], moments
