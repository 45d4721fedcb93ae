"""Nearest neighbours of many images among many, against plain NumPy, on the same work in the same process, alternating.

    python -m benchmarks.neighbours [--quick] [--json PATH]

10,000 queries in 50,000 rows of d = 3,072 float32 numbers (CIFAR-10's size); the rows are normal, so that nothing can
be pruned.

- ``dgu``: ``dgu.analysis.k_nearest``, k = 1: distances computed anew from differences, and row numbers.
- ``numpy``: ``|r|^2 - 2 q . r`` for blocks of ``block`` queries against all rows by one BLAS product, updated in place,
  then ``argmin`` over rows; the distance from differences, as ours. ``block`` is chosen well for NumPy: one product of
  all queries would need 2 GB for its result and is slower.

Both find the same rows, which is checked. Each program's peak of resident memory comes from a process of its own that
makes the
data and runs it alone: what it reports includes the data (737 MB) and the libraries. Medians over ``rounds`` rounds.
"""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import tyro

from benchmarks import provenance
from benchmarks.timing import alternate, relative_throughput, spread, use_cores


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the measurement."""

    queries: int = 10_000
    """Rows whose neighbours are wanted."""
    reference: int = 50_000
    """Rows to find them among."""
    width: int = 3_072
    """Numbers in a row."""
    block: int = 1_024
    """Queries in a block of the NumPy program."""
    rounds: int = 3
    """Times that each is measured, in turn."""
    threads: int = 2
    """Cores the process may use."""
    memory: bool = True
    """Whether to measure the peak memory of each program, in processes of their own (Linux)."""
    quick: bool = False
    """Small sizes, one round: does it work, no more."""
    json: str | None = None
    """File to write the figures to."""


def make_data(config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Standard normal rows."""
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal((n, config.width), np.float32) for n in (config.queries, config.reference))  # type: ignore[return-value]


def run_dgu(queries: np.ndarray, reference: np.ndarray, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Ours."""
    from dgu.analysis import k_nearest

    distances, rows = k_nearest(queries, reference)
    return distances[:, 0], rows[:, 0]


def run_numpy(queries: np.ndarray, reference: np.ndarray, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """The straightforward program."""
    norms = np.einsum("ij,ij->i", reference, reference)
    rows = np.empty(len(queries), np.int64)
    for start in range(0, len(queries), config.block):
        scores = queries[start : start + config.block] @ reference.T
        scores *= -2
        scores += norms
        rows[start : start + config.block] = scores.argmin(axis=1)
    return np.linalg.norm(queries - reference[rows], axis=1), rows


PROGRAMS = {"dgu": run_dgu, "numpy": run_numpy}


def peak_bytes(name: str, config: Config) -> int:
    """Peak resident memory of a process that makes the data and runs one program once."""
    options = [f"--{field}={getattr(config, field)}" for field in ("queries", "reference", "width", "block", "threads")]
    command = [sys.executable, "-m", "benchmarks.neighbours", "--alone", name, *options]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(printed.split()[-1])


def compare(config: Config) -> tuple[dict, float, float]:
    """Times of both programs on the same data, the largest relative difference of their distances, and the share of
    equal rows."""
    data = make_data(config)
    (distances, rows), (plain_distances, plain_rows) = (PROGRAMS[name](*data, config) for name in ("dgu", "numpy"))
    # In float32 two rows may be as near; the distances decide.
    worst = float(np.max(np.abs(distances - plain_distances) / plain_distances))
    if worst > 1e-4:
        raise SystemExit(f"the programs differ: by {worst:.2g} of a distance")
    times = alternate({name: lambda name=name: PROGRAMS[name](*data, config) for name in PROGRAMS}, config.rounds)
    return times, worst, float(np.mean(rows == plain_rows))


def measure(config: Config) -> dict:
    """All figures of one configuration; the data are given back before other processes' memory is measured."""
    times, worst, same = compare(config)
    pairs = {"dgu to numpy": ("dgu", "numpy")}
    return {
        "config": dataclasses.asdict(config),
        "flop": 2.0 * config.queries * config.reference * config.width,
        "largest_relative_difference": worst,
        "same_rows": same,
        "seconds": {name: spread([wall for wall, _ in of]) for name, of in times.items()},
        "relative_throughput": relative_throughput(times, pairs),
        "relative_throughput_by_processor_time": relative_throughput(times, pairs, clock=1),
        "peak_bytes": {name: peak_bytes(name, config) for name in PROGRAMS} if config.memory else {},
        "times": times,
    }


def main(config: Config) -> None:
    """Measure, print a table, write the file."""
    if config.quick:
        config = dataclasses.replace(config, queries=500, reference=2_000, width=64, rounds=1)
    use_cores(config.threads)
    result = measure(config)
    ratio, busy = (
        result[name]["dgu to numpy"] for name in ("relative_throughput", "relative_throughput_by_processor_time")
    )
    print(
        f"{config.queries:,} queries, {config.reference:,} rows, {config.width:,} numbers each, {config.threads} "
        f"threads, {config.rounds} rounds"
    )
    print(f"{'':8}{'seconds':>10}{'GFLOP/s':>10}{'peak memory':>14}")
    for name, at in result["seconds"].items():
        peak = f"{result['peak_bytes'][name] / 1e9:.2f} GB" if result["peak_bytes"] else "-"
        print(f"{name:8}{at['median']:10.2f}{result['flop'] / at['median'] / 1e9:10.0f}{peak:>14}")
    print(
        f"dgu is faster by {ratio['median']:.2f} (quartiles {ratio['quartile_low']:.2f} to "
        f"{ratio['quartile_high']:.2f}), "
        f"by processor time {busy['median']:.2f}"
    )
    if config.json:
        provenance.write(config.json, result)


def alone(name: str, config: Config) -> None:
    """One program once, for ``peak_bytes``."""
    use_cores(config.threads)
    if name == "dgu":
        jax.devices()  # Its libraries count too.
    PROGRAMS[name](*make_data(config), config)
    # Not getrusage: a child's peak begins with its parent's memory.
    status = Path("/proc/self/status").read_text()
    print(1024 * int(status.split("VmHWM:")[1].split()[0]))


if __name__ == "__main__":
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if "--alone" in sys.argv:
        place = sys.argv.index("--alone")
        chosen = sys.argv[place + 1]
        alone(chosen, tyro.cli(Config, args=[*sys.argv[1:place], *sys.argv[place + 2 :]]))
    else:
        main(tyro.cli(Config, description=__doc__))
