"""The table that ``--dry-run`` prints: what a preset would cost, without running it."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """What one stage costs.

    Attributes:
        stage: name of the stage.
        network_evaluations: evaluations of the denoiser, one image each.
        flop: floating-point operations.
        memory: bytes held at once.
        disk: bytes left on disk.
        about: what the stage consists of, in whole sentences that are printed below the table; may be empty.
    """

    stage: str
    network_evaluations: float = 0
    flop: float = 0
    memory: float = 0
    disk: float = 0
    about: str = ""


def cost_table(costs: Sequence[Cost]) -> str:
    """The costs as text, a row a stage and one for the run: sums, but the largest memory (stages run in turn)."""
    total = Cost(
        "total",
        sum(cost.network_evaluations for cost in costs),
        sum(cost.flop for cost in costs),
        max((cost.memory for cost in costs), default=0),
        sum(cost.disk for cost in costs),
    )
    rows = [("stage", "network evaluations", "FLOP", "memory", "disk")]
    for cost in [*costs, total]:
        count = f"{round(cost.network_evaluations):,}"
        rows.append((cost.stage, count, scaled(cost.flop), scaled(cost.memory, "B"), scaled(cost.disk, "B")))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [
        "  ".join([row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])])
        for row in rows
    ]
    rule = "-" * len(lines[0])
    notes = [
        textwrap.fill(f"{cost.stage}: {cost.about}", 100, subsequent_indent="    ") for cost in costs if cost.about
    ]
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1], *notes])


def scaled(number: float, unit: str = "") -> str:
    """A number with a decimal prefix: ``scaled(1.2e10, "B")`` is ``"12 GB"``."""
    prefixes = ["", "k", "M", "G", "T", "P", "E", "Z", "Y"]
    while abs(number) >= 999.5 and len(prefixes) > 1:
        number /= 1000
        prefixes.pop(0)
    return f"{number:.3g} {prefixes[0]}{unit}".rstrip()
