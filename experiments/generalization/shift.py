"""Modes shift (Figs 5, 9 and 10): does the KL grow with the distance of the modes? With Remarks 6 and 7."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Drawing

from dgu import plots
from dgu.analysis import Grid, mixture_bound, mode_summary, optimal_stopping, smoothed
from dgu.models import two_modes
from experiments.generalization import remarks
from experiments.generalization.densities import density_figure
from experiments.generalization.rise import RISE, WINDOW, rise, untested_rise
from experiments.generalization.shift_options import PRESETS, Config
from experiments.generalization.statistics import (
    WORST,
    bootstrap,
    diverged_note,
    few_ranked,
    finite,
    mean,
    median,
    ratio_of_medians,
    shown,
    trend,
    unless,
    unmeasured,
    untrained,
    window,
)
from experiments.generalization.subject import (
    MU,
    OPTIMIZERS,
    PAPER,
    Optimizer,
    Options,
    Subject,
    check_grid,
    check_multiple,
)
from experiments.generalization.trainings import NAMES, Arm, grid_for, make_runs
from experiments.study import Claim, Cost, Figure, Findings, Measured, Noted, Part, Run, Table, at_least, at_most

FIGURES = (
    Figure(
        "modes_shift",
        "KL half way through training against the distance of the modes, one point for each seed; the line has the "
        "growth of Theorem 2's floor.",
        "fig-5",
    ),
    Figure(
        "modes_shift_curves", "KL between target and model over training, at selected distances of the modes.", "fig-5"
    ),
    Figure(
        "densities_far_sgd",
        "Densities learned with SGD, modes far apart (Fig 5 of the paper, where the places are right and the weights "
        "are not).",
        "fig-5",
    ),
    Figure("densities_far_adam", "Densities learned with Adam, modes far apart (Fig 10 of the paper).", "fig-10"),
    Figure(
        "remarks",
        "Far modes: KL against the width of the modes (Remark 6 of the paper), and against the factor by which the "
        "inputs are scaled (Remark 7). The noise at the time of the KL is scaled with the data.",
    ),
)


def claims(config: Config) -> tuple[Claim, ...]:
    """What is tested."""
    far = f"{config.modes[-1]:g}"
    ratio = f"(ratio of the median KL half way through training, modes at +-{far} to modes at +-{MU:g})"
    return (
        Claim(
            "modes-shift-ratio",
            f"Far modes are learned worse than near ones with SGD {ratio}.",
            at_least(5.0),
            source="Fig 5",
        ),
        Claim(
            "modes-shift-trend",
            "The KL with SGD grows with the distance of the modes (rank correlation of the distance with the median KL "
            "half way through training).",
            at_least(0.9),
            source="Theorem 2",
        ),
        Claim(
            "modes-shift-adam",
            f"Far modes are learned worse than near ones with Adam {ratio}.",
            at_least(1.0),
            source="Fig 10",
        ),
        Claim(
            "modes-shift-one-mode",
            f"With modes at +-{far} and SGD, at least half of the measurements in the second half of training put more "
            "than 90 % of the mass on one mode.",
            at_least(0.5),
            source="Fig 5",
            unit="of measurements",
        ),
        Claim(
            "modes-shift-positions",
            f"With modes at +-{far} and SGD, the place of the heavier mode is learned: its relative error is at most "
            "10 %.",
            at_most(0.1),
            source="Fig 5",
        ),
        Claim(
            "modes-shift-weights",
            f"With modes at +-{far} and SGD, the weights are not learned: that of the heavier mode is off by 0.25 or "
            "more.",
            at_least(0.25),
            source="Fig 5",
        ),
        Claim(
            "modes-shift-early",
            f"With modes at +-{far} and SGD, the KL has a minimum early in training and rises by {RISE:g} nats or more "
            "after it (from the time that the other half of the seeds chose to the end).",
            at_least(RISE),
            source="Fig 5",
            unit="nats",
        ),
        *remarks.claims(config),
    )


@dataclass(frozen=True)
class Trained:
    """Trainings by optimiser (see ``Subject.train``): at every distance, and those of Remarks 6 and 7."""

    distances: Mapping[str, Mapping[str, np.ndarray]]
    remarks: Mapping[str, Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Trainings:
    """Networks of several targets ``arms``, each with ``seeds`` and ``epochs``; ``name`` is that of the random key."""

    name: str
    arms: Sequence[Arm]
    seeds: int
    epochs: int


def measure(config: Config, subject: Subject, run: Run) -> Trained:
    """Every distance with SGD and Adam; at the largest, widths of the modes and scales of the inputs."""
    options = subject.options
    every = Trainings("shift", _distances(config, options.t_eps), config.seeds, options.epochs)
    others = Trainings("remarks", remarks.arms(config, options.t_eps), config.remark_seeds, config.remark_epochs)
    return Trained(
        {name: run.stage(name, _train, subject, name, every, allow_nonfinite=True) for name in OPTIMIZERS},
        {
            name: run.stage(f"remarks-{name}", _train, subject, name, others, allow_nonfinite=True)
            for name in OPTIMIZERS
        },
    )


def _distances(config: Config, t_eps: float) -> list[Arm]:
    return [Arm(two_modes(mu), grid_for(mu, config.points), t_eps) for mu in config.modes]


def _train(subject: Subject, optimizer: Optimizer, trainings: Trainings) -> dict[str, np.ndarray]:
    options = subject.options
    runs = make_runs(
        subject.key(trainings.name),
        trainings.arms,
        seeds=trainings.seeds,
        n=options.examples,
        units=[options.width],
        rate=options.rate(optimizer),
    )
    title = f"{trainings.name}, {NAMES[optimizer]}"
    return subject.train(title, runs, optimizer, epochs=trainings.epochs, width=options.width)


@dataclass(frozen=True)
class Curves:
    """The trainings at every distance, with axes for distances and seeds, by optimiser where that is a mapping.

    Attributes:
        epochs: (E,) of the measurements.
        kl: (distances, seeds, E).
        log_q: (distances, seeds, E, points).
        first: (distances, seeds) step at which a run diverged, -1 for none.
        level: (distances, seeds) median of the KL about half way through training.
    """

    epochs: np.ndarray
    kl: dict[str, np.ndarray]
    log_q: dict[str, np.ndarray]
    first: dict[str, np.ndarray]
    level: dict[str, np.ndarray]


def _curves(config: Config, epochs: int, found: Mapping[str, Mapping[str, np.ndarray]]) -> Curves:
    measured, shape = found["sgd"]["epochs"], (len(config.modes), config.seeds)
    middle = window(measured, 0.4 * epochs, 0.6 * epochs)
    kl = {name: one["kl"].reshape(*shape, -1) for name, one in found.items()}
    return Curves(
        measured,
        kl,
        {name: one["log_q"].reshape(*shape, len(measured), -1) for name, one in found.items()},
        {name: one["first_nonfinite"].reshape(shape) for name, one in found.items()},
        {name: np.median(finite(one)[:, :, middle], axis=2) for name, one in kl.items()},
    )


def report(config: Config, subject: Subject, trained: Trained) -> Findings:
    """KL against the distance, mass and places of far modes, their early minimum, and the remarks."""
    options, mus = subject.options, config.modes
    curves, far, near = _curves(config, options.epochs, trained.distances), len(mus) - 1, mus.index(MU)
    epochs, level = curves.epochs, curves.level
    half_way = untrained(options.epochs) or unmeasured(epochs, 0.4 * options.epochs, 0.6 * options.epochs)
    grid = grid_for(mus[far], config.points)
    claims = _distance_claims(config, curves, half_way)
    late = epochs >= options.epochs / 2
    for name, measured in far_modes(curves.log_q["sgd"][far][:, late], grid, mus[far]).items():
        claims[name] = unless(untrained(options.epochs), measured)
    risen, note = rise({"kl": curves.kl["sgd"][far], "epochs": epochs, "first_nonfinite": curves.first["sgd"][far]})
    claims["modes-shift-early"] = unless(untested_rise(options.epochs, options.evaluations), Noted(risen, note))
    measured_remarks, remark_figure = remarks.report(config, trained.remarks)

    medians = {name: [float(np.median(row)) for row in rows] for name, rows in level.items()}
    sgd, adam = medians["sgd"], medians["adam"]
    answer = (
        f"Median KL half way through training with SGD: {sgd[near]:.2g} nats for modes at ±{MU:g}, "
        f"{sgd[far]:.2g} at ±{mus[far]:g}; with Adam {adam[near]:.2g} and {adam[far]:.2g}."
    )
    if half_way:
        answer = f"What the distance of the modes does to the KL was not tested: {half_way}."
    densities = {
        f"densities_far_{name}": density_figure(
            {"epochs": epochs, "kl": curves.kl[name][far], "log_q": curves.log_q[name][far]},
            grid,
            mus[far],
            NAMES[name],
        )
        for name in OPTIMIZERS
    }
    return Findings(
        answer,
        claims | measured_remarks,
        {
            "modes_shift": _against_distance(config, curves),
            "modes_shift_curves": _over_training(config, curves),
            **densities,
            "remarks": remark_figure,
        },
        tables=[_table(config, options.examples, curves, medians)],
        metrics={"median_kl": medians, "modes": list(mus)},
    )


def _distance_claims(config: Config, curves: Curves, half_way: str) -> dict[str, Measured]:
    mus, level = config.modes, curves.level
    far, near = len(mus) - 1, mus.index(MU)
    found: dict[str, Measured] = {}
    for optimizer, claim in (("sgd", "modes-shift-ratio"), ("adam", "modes-shift-adam")):
        ratio = bootstrap(ratio_of_medians, level[optimizer][far], level[optimizer][near])
        found[claim] = unless(half_way, Noted(ratio, diverged_note(curves.first[optimizer])))
    grows = bootstrap(partial(trend, mus), level["sgd"].T)
    found["modes-shift-trend"] = unless(half_way or few_ranked(mus, "distances"), grows)
    return found


def far_modes(log_q: np.ndarray, grid: Grid, mu: float) -> dict[str, Measured]:
    """Mass and places of the modes over the second half of training, over the seeds that did not diverge."""
    log_q = log_q[np.isfinite(log_q).all(axis=(1, 2))]
    found = mode_summary(log_q, grid)
    heaviest = np.maximum(found.weight, 1 - found.weight)
    share = np.mean(heaviest > 0.9, axis=1)
    # The lighter side may have no mode at all: the place of the heavier is what is learned there.
    place = np.where(found.weight > 0.5, found.right, -found.left)
    return {
        "modes-shift-one-mode": Noted(bootstrap(mean, share), f"{len(share)} seeds"),
        "modes-shift-positions": bootstrap(median, np.median(np.abs(place / mu - 1), axis=1)),
        "modes-shift-weights": bootstrap(median, np.median(heaviest - 0.5, axis=1)),
    }


def _against_distance(config: Config, curves: Curves) -> Drawing:
    mus, level = np.asarray(config.modes), curves.level
    near = config.modes.index(MU)
    # The floor mu^2 / m of Theorem 2.
    bound = mixture_bound(np.full(len(mus), 2.0), 1000, 1000, mus, degree=2).approximation
    reference = bound / bound[near] * float(np.median(level["sgd"][near]))
    panel = plots.SizePanel(
        "",
        "distance of the modes",
        "KL half way through training, nats",
        2 * mus,
        {NAMES[name]: shown(level[name]) for name in OPTIMIZERS},
        {"$\\mu^2$ (Theorem 2's floor, height free)": reference},
        ceiling=WORST,
        lost="diverged",
    )
    return plots.against_size([panel], title=f"{config.seeds} seeds")


def _over_training(config: Config, curves: Curves) -> Drawing:
    mus, far, near = config.modes, len(config.modes) - 1, config.modes.index(MU)
    chosen = sorted({0, near, len(mus) // 2 + 1 if len(mus) > 4 else near, far})
    epochs = curves.epochs.astype(float)
    panels = [
        plots.SeedCurves(f"{NAMES[name]}, ±{mus[at]:g}", epochs, curves.kl[name][at])
        for name in OPTIMIZERS
        for at in chosen
    ]
    return plots.seed_curves(panels, xlabel="epochs", ylabel="KL(target || model), nats", columns=len(chosen))


def _table(config: Config, n: int, curves: Curves, medians: Mapping[str, Sequence[float]]) -> Table:
    rows: list[tuple[Any, ...]] = []
    near = optimal_stopping(n, n, factor=MU**6)
    for at, mu in enumerate(config.modes):
        least = int(curves.epochs[np.argmin(median(smoothed(finite(curves.kl["sgd"][at]), WINDOW)))])
        diverged = [int((curves.first[name][at] >= 0).sum()) for name in OPTIMIZERS]
        best = optimal_stopping(n, n, factor=mu**6) / near
        rows.append((f"{mu:g}", *(medians[name][at] for name in OPTIMIZERS), least, best, *diverged))
    header = (
        "mu",
        "SGD",
        "Adam",
        "SGD, epoch of the least smoothed median",
        "best time by Theorem 2, over that at 3",
        "SGD, diverged",
        "Adam, diverged",
    )
    return Table("KL half way through training, medians over seeds", header, rows)


def check(config: Config, subject: Subject) -> None:
    """Measurements are equally far apart, and every grid covers its target."""
    options = subject.options
    check_multiple("shift.remark_epochs", config.remark_epochs, options.evaluations)
    for arm in (*_distances(config, options.t_eps), *remarks.arms(config, options.t_eps)):
        check_grid("shift.points", config.points, arm)


def costs(config: Config, plan: Options) -> list[Cost]:
    """Training."""
    shift = 2 * len(config.modes) * config.seeds * plan.examples * plan.epochs
    arms = len(config.mode_widths) + len(config.input_scales)
    others = 2 * arms * config.remark_seeds * plan.examples * config.remark_epochs
    return [
        Cost("modes shift", shift, shift * 6 * plan.width * 8, 64e6, 20e6),
        Cost("remarks 6 and 7", others, others * 6 * plan.width * 8, 64e6, 10e6),
    ]


PART = Part(
    name="shift",
    title="Modes shift",
    question="Are modes that are farther apart learned worse, and do wider modes or scaled inputs help?",
    paper=PAPER,
    presets=PRESETS,
    claims=claims,
    figures=FIGURES,
    measure=measure,
    report=report,
    costs=costs,
    check=check,
)
