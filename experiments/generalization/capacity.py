"""Capacity (Fig 11): the KL late in training, and the epochs to a KL of 0.1, against the width of the network; Adam."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from dgu import plots
from experiments.generalization.statistics import (
    bootstrap,
    few_ranked,
    finite,
    median,
    ratio_of_medians,
    trend,
    unless,
    untrained,
    window,
)
from experiments.generalization.subject import PAPER, Options, Subject, check_multiple, check_rising
from experiments.generalization.trainings import make_runs
from experiments.study import (
    Claim,
    Cost,
    Figure,
    Findings,
    Measured,
    Noted,
    Part,
    Run,
    Table,
    all_of,
    at_least,
    at_most,
    option,
    within,
)
from experiments.study import Options as BaseOptions

#: KL at which a network counts as having learned the target, in nats.
GOAL = 0.1
#: Units of a network of middle size and its KL; units from which a network is wide, and its KL; the KL of the
#: narrowest.
MIDDLE, BETWEEN = 8, (0.15, 0.45)
WIDE, LOW = 32, 0.16
HIGH = 0.4

FIGURES = (
    Figure(
        "capacity",
        f"KL late in training, and epochs until it is first measured at {GOAL:g} or less, against the number of hidden "
        "units; crosses count the runs in which it never was (Fig 11 of the paper).",
        "fig-11",
    ),
)


@dataclass(frozen=True)
class Config(BaseOptions, prefix="capacity"):
    """Networks of every width, trained with Adam."""

    widths: tuple[int, ...] = option((2, 4, 8, 16, 32, 64, 128, 256), ge=1)
    """Hidden units, rising."""
    seeds: int = option(6, ge=2)
    """Seeds of each width."""
    epochs: int = option(1000, ge=1)
    """Epochs of training, a multiple of evaluations; runs that never reach a KL of 0.1 are censored there."""

    def check(self) -> None:
        check_rising(self.name("widths"), self.widths, fewest=2)


PRESETS = {
    "smoke": Config(widths=(4, 16), seeds=4, epochs=4),
    "default": Config(),
    "paper": Config(widths=tuple(2**k for k in range(1, 12)), seeds=20, epochs=10_000),
}


def claims(config: Config) -> tuple[Claim, ...]:
    """What is tested."""
    widths, reference = config.widths, config.widths[_reference(config.widths)]
    return (
        Claim(
            "capacity-narrow",
            f"A network of {widths[0]} hidden units stays at a median KL of {HIGH:g} nats or more.",
            at_least(HIGH),
            source="Fig 11",
            unit="nats",
        ),
        Claim(
            "capacity-middle",
            f"A network of {MIDDLE} hidden units ends at a median KL between {BETWEEN[0]:g} and {BETWEEN[1]:g} nats.",
            within(*BETWEEN),
            source="Fig 11",
            unit="nats",
        ),
        Claim(
            "capacity-wide",
            f"Networks of {WIDE} hidden units or more end at a median KL of {LOW:g} nats or less.",
            all_of(
                *(
                    Claim(
                        f"capacity-{widths[at]}",
                        f"A network of {widths[at]} hidden units ends at a median KL of {LOW:g} nats or less.",
                        at_most(LOW),
                        source="Fig 11",
                        unit="nats",
                    )
                    for at in _wide(widths)
                )
            ),
            source="Fig 11",
            unit="nats",
        ),
        Claim(
            "capacity-ratio",
            f"More hidden units generalise better (ratio of the median KL with {widths[0]} units to that with "
            f"{reference} units).",
            at_least(3.0),
            source="Fig 11",
        ),
        Claim(
            "capacity-epochs",
            f"Wider networks reach a KL of {GOAL:g} nats in fewer epochs (rank correlation of the median number of "
            "epochs with the width).",
            at_most(-0.8),
            source="Fig 11",
        ),
    )


def _reference(widths: Sequence[int]) -> int:
    """The place of the width that the narrowest network is compared with."""
    return widths.index(64) if 64 in widths else len(widths) - 1


def _wide(widths: Sequence[int]) -> list[int]:
    """The places of the wide networks, or of the widest where none is wide."""
    return [at for at, width in enumerate(widths) if width >= WIDE] or [len(widths) - 1]


def groups(widths: Sequence[int]) -> list[tuple[int, ...]]:
    """Widths trained together, padded to the widest: a first group up to 32, then factors of 4 at most."""
    found: list[list[int]] = []
    for width in widths:
        if found and (width <= 32 or (width < 8 * found[-1][0] and found[-1][0] > 32)):
            found[-1].append(width)
        else:
            found.append([width])
    return [tuple(group) for group in found]


def measure(config: Config, subject: Subject, run: Run) -> list[dict[str, np.ndarray]]:
    """Networks of every width on the same training sets, group by group."""
    return [
        run.stage(str(group[-1]), _train, config, subject, run, group, allow_nonfinite=True)
        for group in groups(config.widths)
    ]


def _train(config: Config, subject: Subject, run: Run, group: Sequence[int]) -> dict[str, np.ndarray]:
    options = subject.options
    runs = make_runs(
        run.key, [subject.near], seeds=config.seeds, n=options.examples, units=group, rate=options.adam_rate
    )
    width = max(group[-1], options.width)
    return subject.train(f"up to {group[-1]} units", runs, "adam", epochs=config.epochs, width=width)


def report(config: Config, subject: Subject, trained: Sequence[dict[str, np.ndarray]]) -> Findings:
    """The KL late in training, and the epochs until it is 0.1."""
    widths, epochs = config.widths, trained[0]["epochs"]
    kl = np.concatenate([part["kl"] for part in trained]).reshape(len(widths), config.seeds, len(epochs))
    level = np.median(finite(kl)[..., window(epochs, 0.6 * config.epochs, config.epochs)], axis=2)
    hit = finite(kl) <= GOAL
    reached = np.where(hit.any(axis=2), epochs[np.argmax(hit, axis=2)].astype(float), np.inf)

    short = untrained(config.epochs)
    size = np.asarray(widths, float)
    panels = [
        plots.SizePanel("", "hidden units", "KL, median of the last 40 % of training, nats", size, {"Adam": level}),
        plots.SizePanel(
            "",
            "hidden units",
            f"epochs to KL {GOAL}",
            size,
            {"Adam": reached},
            ceiling=1.3 * config.epochs,
            level=config.epochs,
        ),
    ]
    rows = [
        (
            width,
            float(np.median(level[at])),
            float(level[at].min()),
            float(level[at].max()),
            _median_epochs(reached[at]),
            int((~np.isfinite(reached[at])).sum()),
        )
        for at, width in enumerate(widths)
    ]
    answer = f"The KL goes from {rows[0][1]:.2g} nats with {widths[0]} units to {rows[-1][1]:.2g} with {widths[-1]}."
    if short:
        answer = f"What more units do to the KL was not tested: {short}."
    header = ("units", "median KL", "least", "largest", f"median epochs to {GOAL:g}", "never")
    return Findings(
        answer,
        _measured(config, level, reached),
        {"capacity": plots.against_size(panels, title=f"Capacity, {config.seeds} seeds")},
        tables=[Table("Capacity, over seeds", header, rows)],
        metrics={
            "median_kl": [row[1] for row in rows],
            "widths": list(widths),
            "censored": [row[5] for row in rows],
        },
    )


def _measured(config: Config, level: np.ndarray, reached: np.ndarray) -> dict[str, Measured]:
    """What was measured for the claims, from the KL late in training and the epochs to 0.1, (widths, seeds)."""
    widths, short = config.widths, untrained(config.epochs)
    middle = widths.index(MIDDLE) if MIDDLE in widths else len(widths) // 2
    no_middle = f"no network has {MIDDLE} units: they have {', '.join(map(str, widths))}" * (MIDDLE not in widths)
    no_wide = f"the widest network has {widths[-1]} units" * (widths[-1] < WIDE)
    # Runs that never came there rank last.
    censored = np.where(np.isfinite(reached), reached, 10.0 * config.epochs)
    never = (
        f"{int((~np.isfinite(reached)).sum())} of {reached.size} runs never reached it within {config.epochs} epochs "
        "and rank last"
    )
    wide = {f"capacity-{widths[at]}": bootstrap(median, level[at]) for at in _wide(widths)}
    ratio = bootstrap(ratio_of_medians, level[0], level[_reference(widths)])
    falls = Noted(bootstrap(partial(trend, widths), censored.T), never)
    return {
        "capacity-narrow": unless(short, bootstrap(median, level[0])),
        "capacity-middle": unless(short or no_middle, bootstrap(median, level[middle])),
        "capacity-wide": unless(short or no_wide, wide),
        "capacity-ratio": unless(short, ratio),
        "capacity-epochs": unless(short or few_ranked(widths, "widths"), falls),
    }


def _median_epochs(reached: np.ndarray) -> str:
    middle = float(np.sort(reached)[len(reached) // 2])
    return f"{middle:.0f}" if np.isfinite(middle) else "never"


def check(config: Config, subject: Subject) -> None:
    """Measurements are equally far apart."""
    check_multiple("capacity.epochs", config.epochs, subject.options.evaluations)


def costs(config: Config, plan: Options) -> list[Cost]:
    """Training."""
    steps = config.seeds * plan.examples * config.epochs
    units = sum(len(group) * max(group[-1], plan.width) for group in groups(config.widths))
    memory = 3 * 4 * plan.chunk_size * plan.batch_size * max(config.widths)
    return [Cost("capacity", steps * len(config.widths), steps * units * 6 * 8, memory + 64e6, 4e6)]


PART = Part(
    name="capacity",
    title="Capacity",
    question="Do networks with more hidden units come closer to the target, and in fewer epochs?",
    paper=PAPER,
    presets=PRESETS,
    claims=claims,
    figures=FIGURES,
    measure=measure,
    report=report,
    costs=costs,
    check=check,
)
