"""Modes shift (Figs 5, 9, 10): does the KL grow with their distance? With Remarks 6, 7: wider modes, scaled inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from dgu import plots
from dgu.analysis import Grid, mixture_bound, mode_summary, optimal_stopping, smoothed
from dgu.core.errors import require
from dgu.models import two_modes
from experiments import study
from experiments.generalization import statistics
from experiments.generalization import subject as shared
from experiments.generalization.growth import exponents_table
from experiments.generalization.statistics import (
    MEDIAN_CHANGED,
    RATIO_CHANGED,
    RISE,
    RISE_MEASURED,
    finite,
    median_over_seeds,
    trend_changed,
    unless,
    untrained,
)
from experiments.generalization.subject import MU, NAMES, OPTIMIZERS, PAPER, SDE, Arm, Options, Subject, grid_for
from experiments.study import Claim, Cost, Figure, Findings, Measured, Noted, Run, Table, at_least, at_most, option

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

#: What far modes with SGD show: the KL over that of near ones, the mass above which a mode has nearly all, and how far
#: its place may and its weight must be off.
RATIO, HEAVY, PLACE, WEIGHT = 5.0, 0.9, 0.1, 0.25

Results = Mapping[tuple[str, str], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Config(study.Options, prefix="shift"):
    """Modes farther and farther apart; and, at the largest distance, wider modes and inputs that are scaled down."""

    points: int = option(151, ge=3)
    """Grid points of the KL."""
    modes: tuple[float, ...] = option((1.0, 2.0, 3.0, 5.0, 8.0, 11.0, 15.0), gt=0.0)
    """Places mu of the modes at +-mu, rising; their distance is twice that. 3 and the last are compared."""
    seeds: int = option(10, ge=4)
    """Seeds of each distance."""
    remark_epochs: int = option(1000, ge=1)
    """Epochs for scaled inputs and for mode widths, a multiple of --evaluations."""
    remark_seeds: int = option(10, ge=2)
    """Seeds of each scale of the inputs and of each mode width."""
    mode_widths: tuple[float, ...] = option((0.5, 1.0, 2.0, 4.0), gt=0.0)
    """Standard deviations of the modes at the largest distance, rising."""
    input_scales: tuple[float, ...] = option((1.0, 0.2), gt=0.0)
    """Factors that inputs are scaled by at the largest distance; the first and the last are compared."""

    def check(self) -> None:
        shared.check_rising(self.name("modes"), self.modes)
        shared.check_rising(self.name("mode_widths"), self.mode_widths, fewest=2)
        both = len(self.modes) >= 2 and MU in self.modes[:-1]
        require(both, self.name("modes"), self.modes, f"{MU:g} and a larger one among them")
        scales = self.input_scales
        require(len(scales) >= 2, self.name("input_scales"), scales, "two or more positive numbers")


PRESETS = {
    "smoke": Config(points=51, modes=(3.0, 15.0), seeds=4, remark_epochs=4, remark_seeds=2, mode_widths=(1.0, 2.0)),
    "default": Config(),
    "paper": Config(seeds=50, remark_seeds=50),
}


def claims(config: Config) -> tuple[Claim, ...]:
    """What is tested."""
    far, small, large = f"{config.modes[-1]:g}", config.input_scales[-1], config.input_scales[0]
    at_far, kl = f"With SGD and modes at +-{far},", "the KL from data to model"
    worse = f"far modes are learned worse than near ones: half way through training, {kl} with modes at +-{far} is at"
    over = f"that with modes at +-{MU:g} (value: the ratio, far over near, median over seeds)."
    fig_5 = partial(Claim, source="Fig 5")
    return (
        fig_5(
            "modes-shift-ratio",
            f"With SGD, {worse} least {RATIO:g} times {over}",
            at_least(RATIO),
            changed=RATIO_CHANGED,
        ),
        Claim(
            "modes-shift-trend",
            "With SGD, the KL from data to model grows with the distance between the two modes (value: Spearman's "
            "rank correlation of the distance with the KL half way through training, mean over seeds, which is at "
            "least 0).",
            at_least(0.0),
            source="Theorem 2",
            changed=trend_changed(0.9),
        ),
        Claim(
            "modes-shift-adam",
            f"With Adam, {worse} least {over}",
            at_least(1.0),
            source="Fig 10",
            changed=RATIO_CHANGED,
        ),
        fig_5(
            "modes-shift-one-mode",
            f"{at_far} networks put nearly all of the mass on one mode: in the second half of training, at least half "
            f"of the measured densities have more than {100 * HEAVY:g} % of the mass on one side of 0 (value: the "
            "share of measurements, median over seeds).",
            at_least(0.5),
            unit="of measurements",
            changed="the value was the mean over seeds, with an interval of bootstrap "
            "percentiles, which are too narrow for so few seeds; it is now the median, with an interval between order "
            "statistics.",
        ),
        fig_5(
            "modes-shift-positions",
            f"{at_far} the place of the heavier learned mode is right: its relative error is at most {100 * PLACE:g} % "
            "(value: the error as a fraction, median over the second half of training, then over seeds).",
            at_most(PLACE),
            changed=MEDIAN_CHANGED,
        ),
        fig_5(
            "modes-shift-weights",
            f"{at_far} the weights of the two modes are not learned: the learned mass of the heavier mode exceeds the "
            f"true mass, a half, by {WEIGHT:g} or more (value: the excess, median over the second half of training, "
            "then over seeds).",
            at_least(WEIGHT),
            changed=MEDIAN_CHANGED,
        ),
        fig_5(
            "modes-shift-early",
            f"{at_far} training for too long does harm: the KL from data to model rises by {RISE:g} nats or more from "
            f"its minimum to the end of training. {RISE_MEASURED}",
            at_least(RISE),
            unit="nats",
        ),
        Claim(
            "mode-width",
            "With SGD, the KL from data to model does not grow as the two modes become wider at the same distance "
            "(value: Spearman's rank correlation of the width of the modes with the KL in the second half of training, "
            "mean over seeds, which is at most 0).",
            at_most(0.0),
            source="Remark 6",
            changed=trend_changed(None),
        ),
        Claim(
            "inputs-scaled",
            f"With SGD, far modes are learned no worse if the data are scaled down: in the second half of training, "
            f"{kl} with modes at +-{far} scaled by {small:g} is at most that with modes scaled by {large:g} (value: "
            "the ratio, scaled down over not, median over seeds).",
            at_most(1.0),
            source="Remark 7",
            changed=RATIO_CHANGED,
        ),
    )


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


def distances(config: Config, t_eps: float) -> list[Arm]:
    """Narrow modes at every distance."""
    return [Arm(two_modes(mu), grid_for(mu, config.points), t_eps) for mu in config.modes]


def remarks(config: Config, t_eps: float) -> list[Arm]:
    """Wider modes at the largest distance, then the same mixture scaled down.

    The noise of the KL is scaled with the modes: they are then as noisy in proportion, and the floor of the KL is the
    same.
    """
    mu = config.modes[-1]
    found = []
    for place, std in [(mu, std) for std in config.mode_widths] + [(mu * s, s) for s in config.input_scales]:
        # The grid reaches as far beyond wide modes as the paper's does beyond narrow ones.
        half = place + 15 * max(std, place / mu)
        time = float(SDE.time(std * SDE.std(t_eps)))
        found.append(Arm(two_modes(place, std=std), Grid(-half, half, config.points), time))
    return found


def measure(config: Config, subject: Subject, run: Run) -> dict[tuple[str, str], dict[str, np.ndarray]]:
    """Every distance with SGD and Adam; at the largest, widths of the modes and scales of the inputs.

    The arrays of ``Subject.train``, those of all runs with leading axes of targets and seeds.
    """
    options = subject.options
    found: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    for group, prefix, arms, seeds, epochs in (
        ("shift", "", distances(config, options.t_eps), config.seeds, options.epochs),
        ("remarks", "remarks-", remarks(config, options.t_eps), config.remark_seeds, config.remark_epochs),
    ):
        train = partial(subject.train, seeds=seeds, epochs=epochs)
        for name in OPTIMIZERS:
            given = (f"{group}, {NAMES[name]}", subject.key(group), arms, name)
            stored = run.stage(prefix + name, train, *given, allow_nonfinite=True)
            by_run = {of: stored[of] for of in ("kl", "log_q", "first_nonfinite")}
            shaped = {of: rows.reshape(len(arms), seeds, *rows.shape[1:]) for of, rows in by_run.items()}
            found[group, name] = {"epochs": stored["epochs"], **shaped}
    return found


def report(config: Config, subject: Subject, results: Results) -> Findings:
    """KL against the distance, mass and places of far modes, their early minimum, and the remarks."""
    options, mus, far, near = subject.options, config.modes, len(config.modes) - 1, config.modes.index(MU)
    found: dict[str, Mapping[str, np.ndarray]] = {name: results["shift", name] for name in OPTIMIZERS}
    epochs = found["sgd"]["epochs"]
    about_half = 0.4 * options.epochs, 0.6 * options.epochs
    middle, late = statistics.window(epochs, *about_half), epochs >= options.epochs / 2
    level = {name: np.median(finite(one["kl"])[..., middle], axis=2) for name, one in found.items()}
    half_way = untrained(options.epochs) or statistics.unmeasured(epochs, *about_half)
    grid = grid_for(mus[far], config.points)
    risen = statistics.rise(epochs, found["sgd"]["kl"][far], found["sgd"]["first_nonfinite"][far])
    untested = statistics.untested_rise(options.epochs, options.evaluations)
    on_modes = far_modes(found["sgd"]["log_q"][far][:, late], grid, mus[far])
    remark_level: dict[str, np.ndarray] = {
        name: np.median(finite(one["kl"])[..., one["epochs"] >= config.remark_epochs / 2], axis=2)
        for name, one in ((name, results["remarks", name]) for name in OPTIMIZERS)
    }

    medians = {name: [float(np.median(row)) for row in rows] for name, rows in level.items()}
    sgd, adam = medians["sgd"], medians["adam"]
    answer = (
        f"Median KL half way through training with SGD: {sgd[near]:.2g} nats for modes at ±{MU:g}, "
        f"{sgd[far]:.2g} at ±{mus[far]:g}; with Adam {adam[near]:.2g} and {adam[far]:.2g}."
    )
    if half_way:
        answer = f"What the distance of the modes does to the KL was not tested: {half_way}."

    def densities(name: str) -> "Drawing":
        title = f"Modes at ±{mus[far]:g}, {NAMES[name]}"
        return plots.mode_densities(epochs, found[name]["log_q"][far], grid, mus[far], title=title)

    def farther(name: str) -> Measured:
        ratio = median_over_seeds(level[name][far] / level[name][near])
        return unless(half_way, Noted(ratio, statistics.diverged_note(found[name]["first_nonfinite"])))

    few = statistics.few_ranked(mus, "distances")
    return Findings(
        answer,
        {
            "modes-shift-ratio": farther("sgd"),
            "modes-shift-trend": statistics.trend(half_way or few, mus, level["sgd"].T),
            "modes-shift-adam": farther("adam"),
            **{name: unless(untrained(options.epochs), measured) for name, measured in on_modes.items()},
            "modes-shift-early": unless(untested, Noted(risen.estimate, risen.note)),
            **_remark_claims(config, remark_level["sgd"]),
        },
        {
            "modes_shift": _against_distance(config, level),
            "modes_shift_curves": _over_training(config, found),
            **{f"densities_far_{name}": densities(name) for name in OPTIMIZERS},
            "remarks": _against_remarks(config, remark_level),
        },
        tables=[_table(config, options.examples, found, medians), exponents_table(mus, level)],
        metrics={"median_kl": medians, "modes": list(mus)},
    )


def far_modes(log_q: np.ndarray, grid: Grid, mu: float) -> dict[str, Measured]:
    """Mass and places of the modes over the second half of training, over the seeds that did not diverge."""
    log_q = log_q[np.isfinite(log_q).all(axis=(1, 2))]
    found = mode_summary(log_q, grid)
    heaviest = np.maximum(found.weight, 1 - found.weight)
    share = np.mean(heaviest > HEAVY, axis=1)
    # The lighter side may have no mode at all: the place of the heavier is what is learned there.
    place = np.where(found.weight > 0.5, found.right, -found.left)
    return {
        "modes-shift-one-mode": Noted(median_over_seeds(share), f"{len(share)} seeds did not diverge."),
        "modes-shift-positions": median_over_seeds(np.median(np.abs(place / mu - 1), axis=1)),
        "modes-shift-weights": median_over_seeds(np.median(heaviest - 0.5, axis=1)),
    }


def _remark_claims(config: Config, level: np.ndarray) -> dict[str, Measured]:
    """From the KL in the second half of training with SGD, (mode widths and input scales, seeds)."""
    wide, short = len(config.mode_widths), untrained(config.remark_epochs)
    ratio = median_over_seeds(level[-1] / level[wide])
    few = statistics.few_ranked(config.mode_widths, "widths")
    return {
        "mode-width": statistics.trend(short or few, config.mode_widths, level[:wide].T),
        "inputs-scaled": unless(short, Noted(ratio, "The noise at which the KL is taken is scaled, too.")),
    }


def _size_panel(
    labels: tuple[str, str, str],
    sizes: Sequence[float] | np.ndarray,
    level: Mapping[str, np.ndarray],
    line: Mapping[str, np.ndarray],
) -> "plots.SizePanel":
    """The KL of both optimisers against a size, with crosses for diverged runs."""
    y = {NAMES[name]: statistics.shown(rows) for name, rows in level.items()}
    return plots.SizePanel(*labels, np.asarray(sizes), y, line, ceiling=statistics.WORST, lost="diverged")


def _against_distance(config: Config, level: Mapping[str, np.ndarray]) -> "Drawing":
    mus, near = np.asarray(config.modes), config.modes.index(MU)
    # The floor mu^2 / m of Theorem 2.
    bound = mixture_bound(np.full(len(mus), 2.0), 1000, 1000, mus, degree=2).approximation
    reference = bound / bound[near] * float(np.median(level["sgd"][near]))
    line = {"$\\mu^2$ (Theorem 2's floor, height free)": reference}
    labels = ("", "distance of the modes", "KL half way through training, nats")
    return plots.against_size([_size_panel(labels, 2 * mus, level, line)], title=f"{config.seeds} seeds")


def _against_remarks(config: Config, level: Mapping[str, np.ndarray]) -> "Drawing":
    wide = len(config.mode_widths)
    wider, scaled = ({name: rows[part] for name, rows in level.items()} for part in (slice(wide), slice(wide, None)))
    panels = [
        _size_panel(("Remark 6", "standard deviation of the modes", "KL, nats"), config.mode_widths, wider, {}),
        _size_panel(("Remark 7", "factor of the inputs", "KL, nats"), config.input_scales, scaled, {}),
    ]
    return plots.against_size(panels, title=f"Modes at ±{config.modes[-1]:g}")


def _over_training(config: Config, found: Mapping[str, Mapping[str, np.ndarray]]) -> "Drawing":
    mus, far, near = config.modes, len(config.modes) - 1, config.modes.index(MU)
    chosen = sorted({0, near, len(mus) // 2 + 1 if len(mus) > 4 else near, far})
    panels = [
        plots.SeedCurves(f"{NAMES[name]}, ±{mus[at]:g}", found[name]["epochs"].astype(float), found[name]["kl"][at])
        for name in OPTIMIZERS
        for at in chosen
    ]
    return plots.seed_curves(panels, xlabel="epochs", ylabel="KL(target || model), nats", columns=len(chosen))


def _table(
    config: Config, n: int, found: Mapping[str, Mapping[str, np.ndarray]], medians: Mapping[str, Sequence[float]]
) -> Table:
    rows: list[tuple[Any, ...]] = []
    near = optimal_stopping(n, n, factor=MU**6)
    for at, mu in enumerate(config.modes):
        smooth = np.median(smoothed(finite(found["sgd"]["kl"][at]), statistics.WINDOW), axis=0)
        least = int(found["sgd"]["epochs"][np.argmin(smooth)])
        diverged = [int((found[name]["first_nonfinite"][at] >= 0).sum()) for name in OPTIMIZERS]
        best = optimal_stopping(n, n, factor=mu**6) / near
        rows.append((f"{mu:g}", *(medians[name][at] for name in OPTIMIZERS), least, best, *diverged))
    early, best_time = "SGD, epoch of the least smoothed median", "best time by Theorem 2, over that at 3"
    header = ("mu", "SGD", "Adam", early, best_time, "SGD, diverged", "Adam, diverged")
    return Table("KL half way through training, medians over seeds", header, rows)


def check(config: Config, subject: Subject) -> None:
    """Measurements are equally far apart, and every grid covers its target."""
    options = subject.options
    shared.check_multiple("shift.remark_epochs", config.remark_epochs, options.evaluations)
    for arm in (*distances(config, options.t_eps), *remarks(config, options.t_eps)):
        shared.check_grid("shift.points", config.points, arm)


def costs(config: Config, plan: Options) -> list[Cost]:
    """Training."""
    shift = 2 * len(config.modes) * config.seeds * plan.examples * plan.epochs
    arms = len(config.mode_widths) + len(config.input_scales)
    others = 2 * arms * config.remark_seeds * plan.examples * config.remark_epochs
    return [
        Cost("modes shift", shift, shift * 6 * plan.width * 8, 64e6, 20e6),
        Cost("remarks 6 and 7", others, others * 6 * plan.width * 8, 64e6, 10e6),
    ]


PART = study.Part(
    name="shift",
    title="Modes shift",
    question="Are modes that are farther apart learned worse, and do wider modes or scaled inputs help?",
    paper=PAPER,
    claims=claims,
    figures=FIGURES,
    measure=measure,
    report=report,
    presets=PRESETS,
    costs=costs,
    check=check,
)
