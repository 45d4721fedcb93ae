"""``--probe``: one batch of each stage, compiled and run on this machine, and what that makes for the whole run."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from experiments.study.costs import Cost, Probe, scaled
from experiments.study.least_time import in_words
from experiments.study.resident import resident_growth

#: Seconds that a batch may take at the machine's rate before fewer examples are timed in its place.
LONGEST = 30.0


def probe(costs: Sequence[Cost], rate: float, devices: int, say: Callable[[str], object] = print) -> float:
    """Time one batch of each stage on one device; tell each stage's memory and time, and the sum.

    A batch that the device cannot hold, or that would take longer than ``LONGEST``, is timed with fewer examples, and
    a stage without a batch to run is told by its FLOP: both are said.

    Args:
        costs: the stages.
        rate: FLOP per second of a device in large matrix products.
        devices: devices among which a run spreads its examples.
        say: called with each line, when it is known.

    Returns:
        The time of the whole run in seconds.
    """
    say(f"probe: one batch of each stage on one device, for a run on {devices} device{'s' * (devices > 1)}")
    total = 0.0
    for cost in costs:
        seconds, how = (
            (cost.flop / (rate * devices), "at least, by its FLOP: it has no batch to run")
            if cost.probe is None
            else _measured(cost, cost.probe, rate, devices)
        )
        total += seconds
        say(f"  {cost.stage}: {in_words(seconds)} ({how})")
    say(f"time: about {total / 3600:,.2g} hours ({in_words(total)}) on this machine")
    return total


def _measured(cost: Cost, probe: Probe, rate: float, devices: int) -> tuple[float, str]:
    """Seconds of a stage, and how they were found."""
    free, notes = free_bytes(), []
    quick = int(LONGEST * rate * probe.examples / max(cost.flop, 1.0))
    count = max(1, min(probe.batch, quick))
    if cost.memory > free:
        notes.append(f"a batch of {probe.batch:,} does not fit: {scaled(cost.memory, 'B')}, {scaled(free, 'B')} free")
        count = max(1, min(count, int(probe.batch * free / cost.memory / 2)))
    function, shapes = probe.make(count)
    program = function if hasattr(function, "lower") else jax.jit(function)
    compiled = program.lower(*shapes).compile()
    held = compiled_bytes(compiled)
    if held > free:
        seconds = cost.flop / (rate * devices)
        return seconds, f"at least, by its FLOP: {count:,} at once do not fit, {scaled(held, 'B')}"
    taken = [call_with_numbers(compiled, shapes)]
    resident = _held(compiled, lambda: taken.append(call_with_numbers(compiled, shapes)))
    notes.append(f"{count:,} of {probe.batch:,} at once: {min(taken):.3g} s, {resident}")
    return min(taken) * probe.examples / count / devices, "; ".join(notes)


def _held(compiled: Any, call: Callable[[], object]) -> str:
    """The memory of a call, in words: as measured on a CPU, whose kernels take scratch memory that the program does not
    know of; of an accelerator, whose scratch memory is part of the program, by the program alone.
    """
    if jax.default_backend() == "cpu" and (resident := resident_growth(call)) is not None:
        return f"{scaled(resident, 'B')} measured"
    call()
    return f"{scaled(compiled_bytes(compiled), 'B')} by the compiled program"


def compiled_bytes(compiled: Any) -> int:
    """Bytes that a compiled program holds: arguments, results, which may lie in their place, and what lies between."""
    found = compiled.memory_analysis()
    own = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    return int(own + found.temp_size_in_bytes)


def free_bytes() -> int:
    """Bytes that this process may still take on the first device: of an accelerator's own memory, or of the host's."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    lines = Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").exists() else []
    known = next((line.split()[1] for line in lines if line.startswith("MemAvailable")), None)
    return 1024 * int(known) if known else 2**63 - 1


def call_with_numbers(compiled: Callable[..., Any], shapes: Sequence[Any]) -> float:
    """The seconds of a call; the arguments are made before it, as some programs take theirs over."""
    arguments = jax.block_until_ready(jax.tree.map(_filled, list(shapes)))
    before = time.perf_counter()
    jax.block_until_ready(compiled(*arguments))
    return time.perf_counter() - before


def _filled(leaf: Any) -> Any:
    """Numbers for a shape (an array is taken as it is): small ones, which are finite in every network."""
    if not isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf
    return jnp.full(leaf.shape, 0.01 if jnp.issubdtype(leaf.dtype, jnp.floating) else 0, leaf.dtype)
