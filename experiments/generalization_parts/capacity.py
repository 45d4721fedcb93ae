"""Capacity (Fig 11): the KL at a fixed epoch, and the epochs to KL .1, against the width of the network. Adam."""

from functools import partial

import numpy as np

from dgu import plots
from dgu.models import two_modes
from experiments.generalization_parts import common
from experiments.generalization_parts.config import Config
from experiments.study.costs import Cost
from experiments.study.judged import JudgedClaim
from experiments.study.report import FigureEntry, Section, Table
from experiments.study.run_directory import RunDirectory

TITLE = "Capacity"
CLAIM_IDS = ("capacity-narrow", "capacity-middle", "capacity-wide", "capacity-ratio", "capacity-epochs")
FIGURE_FILES = ("figures/capacity.png",)
MU, GOAL = 3.0, 0.1
#: Units of a network of middle size and its KL; units from which a network is wide, and its KL; the KL of the narrowest.
MIDDLE, BETWEEN = 8, (0.15, 0.45)
WIDE, LOW = 32, 0.16
HIGH = 0.4


def groups(widths: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Widths trained together, padded to the widest: a first group up to 32, then factors of 4 at most."""
    found: list[list[int]] = []
    for width in widths:
        if found and (width <= 32 or (width < 8 * found[-1][0] and found[-1][0] > 32)):
            found[-1].append(width)
        else:
            found.append([width])
    return [tuple(group) for group in found]


def run(config: Config, directory: RunDirectory) -> Section:
    """Networks of every width on the same data sets."""
    parts = [
        directory.stage(f"capacity/{group[-1]}", partial(_train, config, group), allow_nonfinite=True)
        for group in groups(config.widths)
    ]
    widths, seeds = config.widths, config.capacity_seeds
    epochs = parts[0]["epochs"]
    kl = np.concatenate([part["kl"] for part in parts]).reshape(len(widths), seeds, len(epochs))
    late = common.window(epochs, 0.6 * config.capacity_epochs, config.capacity_epochs)
    level = np.median(common.finite(kl)[..., late], axis=2)
    hit = common.finite(kl) <= GOAL
    reached = np.where(hit.any(axis=2), epochs[np.argmax(hit, axis=2)].astype(float), np.inf)

    reference = widths.index(64) if 64 in widths else len(widths) - 1
    ratio, interval = common.bootstrap(common.ratio_of_medians, level[0], level[reference])
    middle = widths.index(MIDDLE) if MIDDLE in widths else len(widths) // 2
    wide = [at for at, width in enumerate(widths) if width >= WIDE] or [len(widths) - 1]
    short = common.untrained(config.capacity_epochs)
    absent = {
        "middle": ""
        if MIDDLE in widths
        else f"there is no network of {MIDDLE} units among {', '.join(map(str, widths))}",
        "wide": "" if widths[-1] >= WIDE else f"the widest network has {widths[-1]} units",
    }
    censored = np.where(np.isfinite(reached), reached, 10.0 * config.capacity_epochs)
    trend, trend_interval = common.bootstrap(partial(common.trend, widths), censored.T)
    about = {"figure": "Fig 11"}
    claims = [
        common.median_claim(level[0], kind="at_least", id="capacity-narrow", statement=f"A network of {widths[0]} units stays at a KL of {HIGH:g} or more.", threshold=HIGH, unit="nats", **about).unless(short),
        common.median_claim(level[middle], kind="within", id="capacity-middle", statement=f"A network of {MIDDLE} units comes to a KL from {BETWEEN[0]:g} to {BETWEEN[1]:g}.", low=BETWEEN[0], high=BETWEEN[1], unit="nats", **about).unless(short or absent["middle"]),
        JudgedClaim.all_of(
            [common.median_claim(level[at], kind="at_most", id=f"capacity-{widths[at]}", statement=f"{widths[at]} units.", threshold=LOW, unit="nats", **about) for at in wide],
            id="capacity-wide", paper=common.PAPER, statement=f"Networks of {WIDE} units or more come to a KL of {LOW:g} or less.", **about).unless(short or absent["wide"]),
        JudgedClaim.at_least(unit="", id="capacity-ratio", paper=common.PAPER, statement=f"More units generalise better: KL of {widths[0]} over {widths[reference]} units.", value=ratio, interval=interval, threshold=3.0, **about).unless(short),
        JudgedClaim.at_most(unit="", id="capacity-epochs", paper=common.PAPER, statement=f"Wider networks reach a KL of {GOAL:g} in fewer epochs: rank correlation of the median with the width.", value=trend, interval=trend_interval, threshold=-0.8, note=f"{int((~np.isfinite(reached)).sum())} of {reached.size} runs never reached it within {config.capacity_epochs} epochs and rank last", **about).unless(short or common.few_ranked(widths, "widths")),
    ]  # fmt: skip
    size = np.asarray(widths, float)
    panels = [
        plots.SizePanel("", "hidden units", "KL, median of the last 40 % of training, nats", size, {"Adam": level}),
        plots.SizePanel("", "hidden units", f"epochs to KL {GOAL}", size, {"Adam": reached}, ceiling=1.3 * config.capacity_epochs, level=config.capacity_epochs),
    ]  # fmt: skip
    directory.save_figure(FIGURE_FILES[0], plots.against_size(panels, title=f"Capacity, {seeds} seeds"))
    rows = [
        (width, float(np.median(level[at])), float(level[at].min()), float(level[at].max()), _median_epochs(reached[at]), int((~np.isfinite(reached[at])).sum()))
        for at, width in enumerate(widths)
    ]  # fmt: skip
    answer = f"The KL goes from {rows[0][1]:.2g} nats with {widths[0]} units to {rows[-1][1]:.2g} with {widths[-1]}."
    if short:
        answer = f"What more units do to the KL was not tested: {short}."
    return Section(
        TITLE,
        answer,
        claims,
        [FigureEntry(FIGURE_FILES[0], f"KL late in training, and epochs until it is first measured at {GOAL:g} or less; crosses count the runs that never were (Fig 11).")],
        [Table("Capacity, over seeds", ("units", "median KL", "least", "largest", f"median epochs to {GOAL:g}", "never"), rows)],
        {"median_kl": [row[1] for row in rows], "widths": list(widths), "censored": [row[5] for row in rows]},
    )  # fmt: skip


def _median_epochs(reached: np.ndarray) -> str:
    middle = float(np.sort(reached)[len(reached) // 2])
    return f"{middle:.0f}" if np.isfinite(middle) else "never"


def _train(config: Config, group: tuple[int, ...]) -> dict[str, np.ndarray]:
    grid = common.grid_for(MU, config.points)
    runs = common.make_runs(
        config, "capacity", [two_modes(MU)], [grid], [config.t_eps], seeds=config.capacity_seeds, n=max(config.sizes),
        units=group, rate=config.adam_rate,
    )  # fmt: skip
    every = config.capacity_epochs // config.evaluations
    width = max(group[-1], config.width)
    name = f"up to {group[-1]} units"
    return common.train(
        config, runs, name=name, optimizer="adam", epochs=config.capacity_epochs, every=every, width=width
    )


def costs(config: Config) -> list[Cost]:
    """Training."""
    steps = config.capacity_seeds * max(config.sizes) * config.capacity_epochs
    units = sum(len(group) * max(group[-1], config.width) for group in groups(config.widths))
    memory = 3 * 4 * config.chunk_size * config.batch_size * max(config.widths)
    return [Cost("capacity", steps * len(config.widths), steps * units * 6 * 8, memory + 64e6, 4e6)]
