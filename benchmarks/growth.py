"""How time and memory grow: with images, resolution, channels, classes, classifiers, d, n, N and devices.

    python -m benchmarks.growth [--quick] [--json PATH] [--figure PATH]

The functions are those of ``benchmarks/growth_works.py``: ``sample`` and ``train_steps`` of a small network,
``fit_classifiers``, ``moments``, ``covariance_spectrum``, ``k_nearest``, ``GaussianDenoiser.fit`` and
``EmpiricalDenoiser``. One size grows at a time; the others stay where the table says.

- *Time* is that of a call whose program is compiled: the median of ``rounds`` rounds, in each of which all sizes of a
  curve take turns.
- *Memory* is the peak of the resident memory (Linux) during one such call, less what the process held just before it:
  what the call needs beyond its inputs, on the host and, on CPUs, on JAX's devices.
- *Exponents* are slopes of logarithms, fitted to all sizes by least squares; their range is that of the slopes between
  neighbouring sizes. Memory below ``LEAST`` bytes is that of bookkeeping and has none.

Every function is measured in a process of its own, on ``threads`` cores and as many CPU devices of JAX. The curves over
devices have eight devices on the same cores: they show what more devices than cores cost. ``--figure`` draws all curves
against how much larger a size is than the smallest one.
"""

import dataclasses
import json
import os
import subprocess
import sys
from typing import Any

import jax
import tyro

from benchmarks import provenance
from benchmarks.growth_fit import shown, slopes
from benchmarks.growth_works import FUNCTIONS, Function
from benchmarks.timing import alternate, spread, use_cores
from experiments.study.resident import resident_growth

#: Bytes of memory from which an exponent is fitted.
LEAST = 2**20


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured."""

    functions: tuple[str, ...] = tuple(function.name for function in FUNCTIONS)
    """Functions to measure."""
    rounds: int = 3
    """Times that each size of a curve is measured, in turn."""
    threads: int = 2
    """Cores the processes may use, and CPU devices of JAX where devices do not grow."""
    quick: bool = False
    """The two smallest sizes of each curve, one round: does it work, no more."""
    json: str | None = None
    """File to write the figures to."""
    figure: str | None = None
    """File to draw the curves in; its ending says the format."""


def measure_curve(function: Function, parameter: str, sizes: list[int], rounds: int) -> dict[str, Any]:
    """Times and memory of the sizes of one curve, in seconds and bytes."""
    works = {str(size): function.work(**{**function.base, parameter: size}) for size in sizes}
    for work in works.values():
        work()
    memory = [resident_growth(work) for work in works.values()]
    times = alternate(works, rounds)
    return {
        "sizes": sizes,
        "seconds": [spread([wall for wall, _ in times[str(size)]]) for size in sizes],
        "bytes": memory,
        "times": list(times.values()),
    }


def joined(function: Function, parameter: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    """A whole curve of its parts, with its exponents."""
    whole: dict[str, Any] = {key: [entry for part in parts for entry in part[key]] for key in parts[0]}
    medians = [at["median"] for at in whole["seconds"]]
    memory = [None if value is None or value < LEAST else value for value in whole["bytes"]]
    return {
        "function": function.name,
        "parameter": parameter,
        "others": {name: size for name, size in function.base.items() if name not in (parameter, "devices")},
        **whole,
        "time_exponent": slopes(whole["sizes"], medians),
        "memory_exponent": slopes(whole["sizes"], memory),
    }


def in_a_process(function: Function, wanted: dict[str, list[int]], devices: int, config: Config) -> dict[str, Any]:
    """``measure_curve`` of the ``wanted`` sizes of each parameter, in a process with that many devices of JAX."""
    asked = {"function": function.name, "wanted": wanted, "devices": devices}
    asked |= {"rounds": config.rounds, "threads": config.threads}
    command = [sys.executable, "-m", "benchmarks.growth", "--alone", json.dumps(asked)]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"{function.name}: {run.stderr.strip()[-2000:]}")
    return json.loads(run.stdout.splitlines()[-1])


def alone(asked: dict[str, Any]) -> None:
    """What a process of its own does: its curves as a line of JSON."""
    use_cores(asked["threads"])
    jax.config.update("jax_num_cpu_devices", asked["devices"])
    function = next(one for one in FUNCTIONS if one.name == asked["function"])
    found = {
        parameter: measure_curve(function, parameter, sizes, asked["rounds"])
        for parameter, sizes in asked["wanted"].items()
    }
    print(json.dumps(found))


def measure(function: Function, config: Config) -> list[dict[str, Any]]:
    """The curves of a function. Of that over devices, each point is a process if the function takes all there are."""
    wanted = {name: list(sizes[: 2 if config.quick else None]) for name, sizes in function.curves.items()}
    devices = wanted.pop("devices", [])
    parts = {name: [part] for name, part in in_a_process(function, wanted, config.threads, config).items()}
    if devices:
        chosen = [(size, [size]) for size in devices] if function.takes_all_devices else [(max(devices), devices)]
        parts["devices"] = [
            in_a_process(function, {"devices": sizes}, count, config)["devices"] for count, sizes in chosen
        ]
    return [joined(function, parameter, of) for parameter, of in parts.items()]


def print_curve(curve: dict[str, Any]) -> None:
    """A line of the table."""
    seconds, memory = [at["median"] for at in curve["seconds"]], curve["bytes"]
    held = "-" if None in memory else f"{memory[0] / 1e6:.1f} to {memory[-1] / 1e6:.1f}"
    print(
        f"{curve['function']:22}{curve['parameter']:13}{curve['sizes'][0]:>6} to {curve['sizes'][-1]:<7}"
        f"{seconds[0]:9.4f} to {seconds[-1]:<9.4f}{shown(curve['time_exponent']):24}{held:20}"
        f"{shown(curve['memory_exponent'])}",
        flush=True,
    )


def main(config: Config) -> None:
    """Measure, print a table, write the files."""
    unknown = set(config.functions) - {function.name for function in FUNCTIONS}
    if unknown:
        raise SystemExit(f"functions: {', '.join(sorted(unknown))}: must be of {', '.join(f.name for f in FUNCTIONS)}")
    if min(config.rounds, config.threads) < 1:
        raise SystemExit("rounds and threads must be 1 or more")
    if config.quick:
        config = dataclasses.replace(config, rounds=1)
    print(f"{'function':22}{'grows':13}{'from':>6} to {'to':7}{'seconds':>9}{'':13}{'exponent':24}{'MB':20}exponent")
    curves = []
    for function in FUNCTIONS:
        if function.name in config.functions:
            for curve in measure(function, config):
                curves.append(curve)
                print_curve(curve)
    if config.json:
        provenance.write(config.json, {"config": dataclasses.asdict(config), "curves": curves})
    if config.figure:
        from benchmarks.growth_figure import draw

        draw(curves).savefig(config.figure)


if __name__ == "__main__":
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if sys.argv[1:2] == ["--alone"]:
        alone(json.loads(sys.argv[2]))
    else:
        main(tyro.cli(Config, description=__doc__))
