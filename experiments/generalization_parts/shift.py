"""Modes shift (Figs 5, 9 and 10), mode widths (Remark 6) and inputs scaled down (Remark 7)."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from dgu import plots
from dgu.analysis import Grid, mixture_bound, mode_summary, optimal_stopping, smoothed, target_log_density
from dgu.core.errors import InputError
from dgu.models import two_modes
from experiments.generalization_parts import common
from experiments.generalization_parts.config import Config
from experiments.generalization_parts.stopping import RISE, WINDOW, density_figure, tested_rise, untested_rise
from experiments.study.costs import Cost
from experiments.study.judged import JudgedClaim
from experiments.study.report import FigureEntry, Section, Table
from experiments.study.run_directory import RunDirectory

TITLE = "Modes shift"
CLAIM_IDS = (
    "modes-shift-ratio",
    "modes-shift-trend",
    "modes-shift-adam",
    "modes-shift-one-mode",
    "modes-shift-positions",
    "modes-shift-weights",
    "modes-shift-early",
    "mode-width",
    "inputs-scaled",
)
FIGURE_FILES = (
    "figures/modes_shift.png",
    "figures/modes_shift_curves.png",
    "figures/densities_far_sgd.png",
    "figures/densities_far_adam.png",
    "figures/remarks.png",
)


def run(config: Config, directory: RunDirectory) -> Section:
    """Distances 2 to 30 with SGD and Adam; at the largest, widths of the modes and scales of the inputs."""
    results = {
        optimizer: directory.stage(f"shift/{optimizer}", partial(_distances, config, optimizer), allow_nonfinite=True)
        for optimizer in common.OPTIMIZERS
    }
    remarks = {
        optimizer: directory.stage(f"shift/remarks-{optimizer}", partial(_remarks, config, optimizer), allow_nonfinite=True)
        for optimizer in common.OPTIMIZERS
    }  # fmt: skip
    mus, seeds = config.modes, config.shift_seeds
    near, far, epochs = mus.index(3.0), len(mus) - 1, results["sgd"]["epochs"]
    kl = {name: found["kl"].reshape(len(mus), seeds, -1) for name, found in results.items()}
    log_q = {name: found["log_q"].reshape(len(mus), seeds, len(epochs), -1) for name, found in results.items()}
    middle = common.window(epochs, 0.4 * config.epochs, 0.6 * config.epochs)
    level = {name: np.median(common.finite(one)[:, :, middle], axis=2) for name, one in kl.items()}
    short = common.untrained(config.epochs)
    half_way = short or common.unmeasured(epochs, 0.4 * config.epochs, 0.6 * config.epochs)
    claims = []
    for optimizer, name, threshold in (("sgd", "modes-shift-ratio", 5.0), ("adam", "modes-shift-adam", 1.0)):
        value, interval = common.bootstrap(common.ratio_of_medians, level[optimizer][far], level[optimizer][near])
        claims.append(
            JudgedClaim.at_least(unit="", id=name, paper=common.PAPER, figure="Fig 5" if optimizer == "sgd" else "Fig 10", statement=f"Far modes are learned worse: median KL half way through training with {common.NAMES[optimizer]}, modes at +-{mus[far]:g} over +-3.", value=value, interval=interval, threshold=threshold, note=common.diverged_note(results[optimizer]["first_nonfinite"])).unless(half_way)
        )  # fmt: skip
    value, interval = common.bootstrap(partial(common.trend, mus), level["sgd"].T)
    claims.insert(
        1,
        JudgedClaim.at_least(unit="", id="modes-shift-trend", paper=common.PAPER, figure="Theorem 2", statement="The KL with SGD grows with the distance of the modes: rank correlation of the median over seeds.", value=value, interval=interval, threshold=0.9).unless(half_way or common.few_ranked(mus, "distances")),
    )  # fmt: skip
    grid = common.grid_for(mus[far], config.shift_points)
    late = epochs >= config.epochs / 2
    claims += [claim.unless(short) for claim in _modes(log_q["sgd"][far][:, late], grid, mus[far])]
    first = results["sgd"]["first_nonfinite"].reshape(len(mus), seeds)[far]
    rise, rise_interval, note = tested_rise({"kl": kl["sgd"][far], "epochs": epochs, "first_nonfinite": first})
    claims.append(
        JudgedClaim.at_least(id="modes-shift-early", paper=common.PAPER, figure="Fig 5", statement=f"With modes at +-{mus[far]:g} and SGD the KL is least early and rises after: the end lies above the time that the other half of the seeds chose.", value=rise, interval=rise_interval, threshold=RISE, unit="nats", note=note).unless(untested_rise(config))
    )  # fmt: skip
    widths, scales, panels = _remark_figures(config, remarks)
    claims += [widths, scales]

    bound = mixture_bound(
        np.full(len(mus), 2.0), 1000, 1000, np.asarray(mus), degree=2
    ).approximation  # the floor mu^2 / m of Theorem 2
    reference = {
        "$\\mu^2$ (Theorem 2's floor, height free)": bound / bound[near] * float(np.median(level["sgd"][near]))
    }
    distance = 2 * np.asarray(mus)
    panel = plots.SizePanel("", "distance of the modes", "KL half way through training, nats", distance, {"SGD": common.shown(level["sgd"]), "Adam": common.shown(level["adam"])}, reference, ceiling=common.WORST, lost="diverged")  # fmt: skip
    directory.save_figure(FIGURE_FILES[0], plots.against_size([panel], title=f"{seeds} seeds"))
    curves = [
        plots.SeedCurves(f"{common.NAMES[name]}, ±{mus[at]:g}", epochs.astype(float), kl[name][at])
        for name in common.OPTIMIZERS
        for at in sorted({0, near, len(mus) // 2 + 1 if len(mus) > 4 else near, far})
    ]
    directory.save_figure(
        FIGURE_FILES[1],
        plots.seed_curves(curves, xlabel="epochs", ylabel="KL(target || model), nats", columns=len(curves) // 2),
    )
    for name, file in zip(common.OPTIMIZERS, FIGURE_FILES[2:4]):
        found = {"epochs": epochs, "kl": kl[name][far], "log_q": log_q[name][far]}
        directory.save_figure(file, density_figure(found, grid, mus[far], name))
    directory.save_figure(FIGURE_FILES[4], plots.against_size(panels, title=f"Modes at ±{mus[far]:g}"))
    n = max(config.sizes)
    table = [
        (f"{mu:g}", *(float(np.median(level[name][at])) for name in common.OPTIMIZERS),
         _least_at(kl["sgd"][at], epochs), optimal_stopping(n, n, factor=mu**6) / optimal_stopping(n, n, factor=3.0**6),
         *(int((found["first_nonfinite"].reshape(len(mus), seeds)[at] >= 0).sum()) for found in results.values()))
        for at, mu in enumerate(mus)
    ]  # fmt: skip
    answer = (
        f"Median KL half way through training with SGD: {float(np.median(level['sgd'][near])):.2g} nats for modes at ±3, "
        f"{float(np.median(level['sgd'][far])):.2g} at ±{mus[far]:g}; with Adam {float(np.median(level['adam'][near])):.2g} and "
        f"{float(np.median(level['adam'][far])):.2g}."
    )
    if half_way:
        answer = f"What the distance of the modes does to the KL was not tested: {half_way}."
    return Section(
        TITLE,
        answer,
        claims,
        [
            FigureEntry(FIGURE_FILES[0], "KL against the distance of the modes, a point a seed."),
            FigureEntry(FIGURE_FILES[1], "KL over training at a few distances."),
            FigureEntry(FIGURE_FILES[2], "Densities at the end of training with SGD, modes far apart (Fig 5 of the paper, where the places are right and the weights are not)."),
            FigureEntry(FIGURE_FILES[3], "The same with Adam (Fig 10)."),
            FigureEntry(FIGURE_FILES[4], "Far modes: inputs scaled down (Remark 7), and wider modes (Remark 6). The KL's noise is scaled with the data."),
        ],
        [Table("KL half way through training, medians over seeds", ("mu", "SGD", "Adam", "SGD, epoch of the least smoothed median", "best time by Theorem 2, over that at 3", "SGD, diverged", "Adam, diverged"), table)],
        {"median_kl": {name: [float(np.median(row)) for row in rows] for name, rows in level.items()}, "modes": list(mus)},
    )  # fmt: skip


def _modes(log_q: np.ndarray, grid: Grid, mu: float) -> list[JudgedClaim]:
    """Mass and places of the modes over the second half of training, over the seeds that did not diverge."""
    log_q = log_q[np.isfinite(log_q).all(axis=(1, 2))]
    found = mode_summary(log_q, grid)
    heaviest = np.maximum(found.weight, 1 - found.weight)
    share = np.mean(heaviest > 0.9, axis=1)
    # The lighter side may have no mode at all: the place of the heavier is what is learned there.
    place = np.where(found.weight > 0.5, found.right, -found.left)
    error = np.median(np.abs(place / mu - 1), axis=1)
    off = np.median(heaviest - 0.5, axis=1)
    one, interval = common.bootstrap(partial(np.mean, axis=0), share)
    return [
        JudgedClaim.at_least(id="modes-shift-one-mode", paper=common.PAPER, figure="Fig 5", statement=f"With modes at +-{mu:g} and SGD, at least half of the measurements of the second half of training put more than 90 % of the mass on one mode.", value=one, interval=interval, threshold=0.5, unit="of measurements", note=f"{len(share)} seeds"),
        common.median_claim(error, kind="at_most", id="modes-shift-positions", figure="Fig 5", statement="The place of the heavier mode is learned: off by at most 10 % of mu.", threshold=0.1),
        common.median_claim(off, kind="at_least", id="modes-shift-weights", figure="Fig 5", statement="The weights are not learned: the heavier mode's is off by at least .25.", threshold=0.25),
    ]  # fmt: skip


def _least_at(kl: np.ndarray, epochs: np.ndarray) -> int:
    """The epoch at which the median over seeds of the smoothed KL is least."""
    return int(epochs[np.argmin(common.median(smoothed(common.finite(kl), WINDOW)))])


def check_grids(config: Config) -> None:
    """Raise ``InputError`` where a grid that the study will measure a KL on does not cover its target."""
    near = [(two_modes(3.0), common.grid_for(3.0, config.points))]
    far = [*_targets(config), *((target, grid) for target, grid, _ in _arms(config))]
    for option, pairs in (("points", near), ("shift_points", far)):
        for target, grid in pairs:
            try:
                target_log_density(target, grid)
            except InputError as error:
                raise InputError(f"{option} = {getattr(config, option)}: {error}") from error


def _targets(config: Config) -> list[tuple[Any, Grid]]:
    return [(two_modes(mu), common.grid_for(mu, config.shift_points)) for mu in config.modes]


def _arms(config: Config) -> list[tuple[Any, Grid, float]]:
    """Wider modes at the largest distance, then the same mixture scaled down. Noise at the KL's time scales with them."""
    mu = config.modes[-1]
    arms = []
    for place, std in [(mu, std) for std in config.mode_widths] + [(mu * s, s) for s in config.input_scales]:
        # The grid reaches as far beyond wide modes as the paper's does beyond narrow ones.
        half = place + 15 * max(std, place / mu)
        grid = Grid(-half, half, config.shift_points)
        arms.append((two_modes(place, std=std), grid, common.scaled_time(std, config.t_eps)))
    return arms


def _distances(config: Config, optimizer: str) -> dict[str, np.ndarray]:
    targets, grids = zip(*_targets(config))
    return _trained(
        config, optimizer, "shift", targets, grids, [config.t_eps] * len(targets), config.shift_seeds, config.epochs
    )


def _remarks(config: Config, optimizer: str) -> dict[str, np.ndarray]:
    targets, grids, times = zip(*_arms(config))
    return _trained(config, optimizer, "remarks", targets, grids, times, config.remark_seeds, config.remark_epochs)


def _trained(
    config: Config, optimizer: str, name: str, targets: Sequence[Any], grids: Sequence[Grid], times: Sequence[float],
    seeds: int, epochs: int,
) -> dict[str, np.ndarray]:  # fmt: skip
    runs = common.make_runs(
        config, name, targets, grids, times, seeds=seeds, n=max(config.sizes), units=[config.width], rate=config.rate(optimizer),
    )  # fmt: skip
    every = epochs // config.evaluations
    title = f"{name}, {common.NAMES[optimizer]}"
    return common.train(config, runs, name=title, optimizer=optimizer, epochs=epochs, every=every, width=config.width)


def _remark_figures(
    config: Config, remarks: dict[str, dict[str, np.ndarray]]
) -> tuple[JudgedClaim, JudgedClaim, list[plots.SizePanel]]:
    wide, scaled = len(config.mode_widths), len(config.input_scales)
    short = common.untrained(config.remark_epochs)
    level = {}
    for name, found in remarks.items():
        late = found["epochs"] >= config.remark_epochs / 2
        kl = np.median(common.finite(found["kl"])[:, late], axis=1)
        level[name] = kl.reshape(wide + scaled, config.remark_seeds)
    value, interval = common.bootstrap(partial(common.trend, config.mode_widths), level["sgd"][:wide].T)
    widths = JudgedClaim.at_most(unit="", id="mode-width", paper=common.PAPER, figure="Remark 6", statement="Wider modes at the same distance are learned better with SGD: rank correlation of KL and width.", value=value, interval=interval, threshold=0.0).unless(short or common.few_ranked(config.mode_widths, "widths"))  # fmt: skip
    value, interval = common.bootstrap(common.ratio_of_medians, level["sgd"][wide + scaled - 1], level["sgd"][wide])
    small, large = config.input_scales[-1], config.input_scales[0]
    scales = JudgedClaim.at_most(unit="", id="inputs-scaled", paper=common.PAPER, figure="Remark 7", statement=f"Scaling the inputs down makes far modes easier with SGD: KL at factor {small:g} over {large:g}.", value=value, interval=interval, threshold=1.0, note="noise at the KL's time scaled with the data").unless(short)  # fmt: skip
    names = common.NAMES
    panels = [
        plots.SizePanel("Remark 6", "standard deviation of the modes", "KL, nats", np.asarray(config.mode_widths), {names[k]: common.shown(v[:wide]) for k, v in level.items()}, ceiling=common.WORST, lost="diverged"),
        plots.SizePanel("Remark 7", "factor of the inputs", "KL, nats", np.asarray(config.input_scales), {names[k]: common.shown(v[wide:]) for k, v in level.items()}, ceiling=common.WORST, lost="diverged"),
    ]  # fmt: skip
    return widths, scales, panels


def costs(config: Config) -> list[Cost]:
    """Training."""
    n = max(config.sizes)
    shift = 2 * len(config.modes) * config.shift_seeds * n * config.epochs
    arms = len(config.mode_widths) + len(config.input_scales)
    remarks = 2 * arms * config.remark_seeds * n * config.remark_epochs
    return [
        Cost("modes shift", shift, shift * 6 * config.width * 8, 64e6, 20e6),
        Cost("remarks 6 and 7", remarks, remarks * 6 * config.width * 8, 64e6, 10e6),
    ]
