"""The table that ``--dry-run`` prints: what a preset would cost, without running it."""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Probe:
    """One batch of a stage, such as ``--probe`` runs on one device.

    Attributes:
        make: ``make(n)`` gives the function for n examples at once, and its arguments or their shapes.
        batch: examples that a device takes at once in a run.
        examples: examples of the whole stage, on all devices.
    """

    make: Callable[[int], tuple[Callable[..., Any], Sequence[Any]]]
    batch: int
    examples: float


@dataclass(frozen=True)
class Cost:
    """What one stage costs.

    Attributes:
        stage: name of the stage.
        network_evaluations: evaluations of the denoiser, one image each.
        flop: floating-point operations.
        memory: bytes held at once by a device, of as many as ``jax.device_count()``; of programs, from their traces.
        disk: bytes left on disk.
        about: what the stage consists of, in whole sentences that are printed below the table; may be empty.
        probe: what ``--probe`` runs of it; None has its time told by its FLOP.
        host: bytes held at once by the host, such as a set of images, where they are not copied to a device whole.
    """

    stage: str
    network_evaluations: float = 0
    flop: float = 0
    memory: float = 0
    disk: float = 0
    about: str = ""
    probe: Probe | None = field(default=None, compare=False)
    host: float = 0


#: What is said below the table.
OF_TRACES = (
    "memory: that of networks is estimated from the order of their operations, as if a compiler computed chains of "
    "elementwise ones where they are read. Programs of CPUs hold more: trainings about twice as much, transformers up "
    "to five times. --probe compiles and runs a batch of each stage, and says what it holds."
)


def cost_table(costs: Sequence[Cost]) -> str:
    """The costs as text, a row a stage and one for the run: sums, but the largest memory (stages run in turn)."""
    total = Cost(
        "total",
        sum(cost.network_evaluations for cost in costs),
        sum(cost.flop for cost in costs),
        max((cost.memory for cost in costs), default=0),
        sum(cost.disk for cost in costs),
        host=max((cost.host for cost in costs), default=0),
    )
    rows: list[tuple[str, ...]] = [("stage", "network evaluations", "FLOP", "memory a device", "of the host", "disk")]
    for cost in [*costs, total]:
        sizes = [scaled(size, "B") for size in (cost.memory, cost.host, cost.disk)]
        rows.append((cost.stage, f"{round(cost.network_evaluations):,}", scaled(cost.flop), *sizes))
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    lines = [
        "  ".join([row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])])
        for row in rows
    ]
    rule = "-" * len(lines[0])
    notes = [
        textwrap.fill(f"{cost.stage}: {cost.about}", 100, subsequent_indent="    ") for cost in costs if cost.about
    ]
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1], *notes, textwrap.fill(OF_TRACES, 100)])


def scaled(number: float, unit: str = "") -> str:
    """A number with a decimal prefix: ``scaled(1.2e10, "B")`` is ``"12 GB"``."""
    prefixes = ["", "k", "M", "G", "T", "P", "E", "Z", "Y"]
    while abs(number) >= 999.5 and len(prefixes) > 1:
        number /= 1000
        prefixes.pop(0)
    return f"{number:.3g} {prefixes[0]}{unit}".rstrip()
