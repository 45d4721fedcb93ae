"""Early stopping (Figs 3, 4, 8 and 9) and sample size: is there a minimum of the KL followed by a rise? Over seeds, SGD and Adam."""

from functools import partial
from typing import Any

import numpy as np

from dgu import plots
from dgu.analysis import Grid, early_stopping, mode_summary, proportion
from dgu.models import two_modes
from experiments.generalization_parts import common
from experiments.generalization_parts.config import Config
from experiments.study.costs import Cost
from experiments.study.judged import JudgedClaim
from experiments.study.report import FigureEntry, Section, Table
from experiments.study.run_directory import RunDirectory

TITLE = "Early stopping"
CLAIM_IDS = (
    "sgd-learns",
    "adam-learns",
    "early-stopping-sgd",
    "early-stopping-adam",
    "sample-size",
    "score-slopes",
    "score-intercepts",
)
FIGURE_FILES = (
    "figures/kl_sgd.png",
    "figures/kl_adam.png",
    "figures/densities_near_sgd.png",
    "figures/densities_near_adam.png",
    "figures/scores.png",
)
MU = 3.0
#: A rise of the KL below this, in nats, counts as none.
RISE = 0.02
#: Measurements of the running mean, and fewest of a curve that a minimum can be told in.
WINDOW, LEAST_MEASURED = 5, 10
#: What the figures of the sheet's replication are about: training examples, and epochs with SGD and about the middle with Adam.
EXAMPLES, SGD_EPOCHS, ADAM_EPOCHS = 1000, (400, 800), (800, 1200)
#: The KL in these: at the start, in the middle of training with SGD, the least of most seeds, with Adam.
START, MIDDLE, LEAST, ADAM = (0.5, 1.4), 0.3, 0.12, 0.2
#: Distance from a mode within which lines are fitted to the score, and how far they may be off.
NEAR, OFF = 1.5, 0.15


def epochs_of(config: Config, n: int) -> tuple[int, int]:
    """Epochs and epochs between measurements for n examples: as many steps as the largest set takes in ``config.epochs``."""
    largest = max(config.sizes)
    steps = -(-largest // config.batch_size) * config.epochs // config.evaluations
    every = max(1, round(steps / -(-n // config.batch_size)))
    return every * config.evaluations, every


def run(config: Config, directory: RunDirectory) -> Section:
    """The basic study: modes at +-3, sizes and optimisers."""
    grid = common.grid_for(MU, config.points)
    results: dict[tuple[str, int], dict[str, np.ndarray]] = {}
    for optimizer in common.OPTIMIZERS:
        for n in config.sizes:
            compute = partial(_train, config, grid, optimizer, n)
            results[optimizer, n] = directory.stage(f"stopping/{optimizer}-{n}", compute, allow_nonfinite=True)
    largest = max(config.sizes)
    tests, claims = {}, []
    for optimizer in common.OPTIMIZERS:
        tests[optimizer] = [_test(config, results[optimizer, n], optimizer, n) for n in config.sizes]
    claims += _learning(config, results["sgd", largest], results["adam", largest])
    for optimizer, figure in zip(common.OPTIMIZERS, ("Figs 3 and 4", "Figs 8 and 9")):
        claims.append(
            JudgedClaim.all_of(
                tests[optimizer],
                id=f"early-stopping-{optimizer}",
                paper=common.PAPER,
                figure=figure,
                statement=f"With {common.NAMES[optimizer]}, the KL has a minimum in training time "
                "and rises after it, at every number of examples: the end lies above the time that the other half of the "
                "seeds chose.",
            )
        )
    claims.append(_sample_size(config, results))
    slope, intercept, rows, lines = _scores(config, results)
    claims += [slope, intercept]

    for optimizer, file in zip(common.OPTIMIZERS, FIGURE_FILES[:2]):
        panels = []
        for n in config.sizes:
            found = results[optimizer, n]
            good = np.isfinite(found["kl"]).all(axis=1)
            marks = {}
            if good.sum() >= 4:
                marks["minimum of the smoothed median"] = float(
                    found["epochs"][early_stopping(found["kl"][good], window=WINDOW).minimum]
                )
            panels.append(plots.SeedCurves(f"{n} examples", found["epochs"].astype(float), found["kl"], marks))
        directory.save_figure(
            file,
            plots.seed_curves(panels, xlabel="epochs", ylabel="KL(target || model), nats", title=f"{common.NAMES[optimizer]}, modes at ±{MU:g}, {config.seeds} seeds"),
        )  # fmt: skip
    for optimizer, file in zip(common.OPTIMIZERS, FIGURE_FILES[2:4]):
        directory.save_figure(file, density_figure(results[optimizer, largest], grid, MU, optimizer))
    x, exact, learned = lines
    directory.save_figure(
        FIGURE_FILES[4],
        plots.score_panels(x, learned, exact, ["SGD", "Adam"], [f"{n} examples" for n in config.sizes], title="Learned and exact score at the end"),
    )  # fmt: skip

    parts = [
        f"{common.NAMES[name]}: "
        + ", ".join(f"n = {n} {_shown(part)}" for n, part in zip(config.sizes, found))
        for name, found in tests.items()
    ]  # fmt: skip
    answer = "Rise of the KL from the minimum to the end, in nats, free of selection: " + "; ".join(parts) + "."
    table = [
        (optimizer, n, *(float(np.median(common.finite(found["kl"])[:, at])) for at in (0, len(found["epochs"]) // 2, -1)),
         float(np.median(common.finite(found["kl"]).min(axis=1))), int((found["first_nonfinite"] >= 0).sum()))
        for (optimizer, n), found in results.items()
    ]  # fmt: skip
    return Section(
        TITLE,
        answer,
        claims,
        [
            FigureEntry(FIGURE_FILES[0], "KL over training with SGD, a thin line a seed; as many steps for every number of examples (Fig 3)."),
            FigureEntry(FIGURE_FILES[1], "The same with Adam (Fig 8)."),
            FigureEntry(FIGURE_FILES[2], f"Densities after {config.epochs:,} epochs of SGD, modes near: a row a seed; each panel says the mass of the right mode (Fig 4)."),
            FigureEntry(FIGURE_FILES[3], "The same with Adam (Fig 9)."),
            FigureEntry(FIGURE_FILES[4], "Scores learned, at the time that the KL is taken at, over the exact one (App. A.2)."),
        ],
        [
            Table("KL over training, medians over seeds", ("optimiser", "examples", "at the start", "half way", "at the end", "each seed's least", "diverged"), table),
            Table("Learned score near the modes, medians over seeds (exact: slope and zero of the noisy mixture)", ("optimiser", "examples", "slope / exact", "place of zero / mu"), rows),
        ],
        {"median_kl_end": {f"{o}-{n}": row[4] for (o, n), row in zip(results, table)},
         "rise": {f"{o}-{n}": part.value for o in tests for n, part in zip(config.sizes, tests[o])},
         "diverged": {f"{o}-{n}": row[6] for (o, n), row in zip(results, table)}},
    )  # fmt: skip


def _train(config: Config, grid: Grid, optimizer: str, n: int) -> dict[str, np.ndarray]:
    runs = common.make_runs(
        config, "stopping", [two_modes(MU)], [grid], [config.t_eps], seeds=config.seeds, n=n, units=[config.width],
        rate=config.rate(optimizer),
    )  # fmt: skip
    epochs, every = epochs_of(config, n)
    name = f"{n} examples, {common.NAMES[optimizer]}"
    return common.train(config, runs, name=name, optimizer=optimizer, epochs=epochs, every=every, width=config.width)


def _shown(part: JudgedClaim) -> str:
    if part.value is None or part.interval is None:
        return "not tested"
    return f"{part.value:+.2f} [{part.interval[0]:+.2f}, {part.interval[1]:+.2f}]"


def untested_rise(config: Config) -> str:
    """Why the curves of this run show no minimum and rise after it, whatever they are; empty where they can."""
    measured = config.evaluations + 1
    few = f"{measured} measurements of a curve show no minimum: {LEAST_MEASURED} or more are needed"
    return common.untrained(config.epochs) or (few if measured < LEAST_MEASURED else "")


def _test(config: Config, found: dict[str, np.ndarray], optimizer: str, n: int) -> JudgedClaim:
    """The rise after the minimum at one size."""
    value, interval, note = tested_rise(found)
    return JudgedClaim.at_least(
        id=f"early-stopping-{optimizer}-{n}",
        paper=common.PAPER,
        figure="Figs 3 and 8",
        statement=f"{n} examples.",
        value=value,
        interval=interval,
        threshold=RISE,
        unit="nats",
        note=note,
    ).unless(untested_rise(config))


def tested_rise(found: dict[str, np.ndarray]) -> tuple[float, tuple[float, float], str]:
    """The rise of the KL after its minimum over the seeds that did not diverge, its interval, and a note."""
    good = np.isfinite(found["kl"]).all(axis=1)
    lost = common.diverged_note(found["first_nonfinite"])
    if good.sum() < 4:
        return *common.UNKNOWN, lost
    tested = early_stopping(found["kl"][good], window=WINDOW)
    at = int(found["epochs"][tested.minimum])
    note = f"median least at epoch {at} of {int(found['epochs'][-1])}; with the seeds that chose it the rise would be {tested.apparent:.3f}"
    interval = (float(tested.rise.low), float(tested.rise.high))
    return float(tested.rise.estimate), interval, "; ".join(filter(None, (note, lost)))


def _learning(config: Config, sgd: dict[str, np.ndarray], adam: dict[str, np.ndarray]) -> list[JudgedClaim]:
    """The figures of the sheet's replication."""
    largest = max(config.sizes)
    few = f"it was trained on {largest:,} examples, fewer than {EXAMPLES:,}" if largest < EXAMPLES else ""
    kl, epochs = common.finite(sgd["kl"]), sgd["epochs"]
    middle = np.median(kl[:, common.window(epochs, *SGD_EPOCHS)], axis=1)
    reached = proportion(kl.min(axis=1) <= LEAST)
    about = {"paper": common.PAPER, "figure": "Fig 3", "note": f"{len(kl)} seeds"}
    start = common.bootstrap(common.median, kl[:, 0])
    parts = [
        JudgedClaim.within(id="sgd-start", statement=f"The median KL at the start is from {START[0]:g} to {START[1]:g}.", value=start[0], interval=start[1], low=START[0], high=START[1], unit="nats", **about),
        common.median_claim(middle, kind="at_most", id="sgd-middle", figure="Fig 3", statement=f"The median KL at epochs {SGD_EPOCHS[0]} to {SGD_EPOCHS[1]} is at most {MIDDLE:g}.", threshold=MIDDLE, unit="nats"),
        JudgedClaim.at_least(id="sgd-least", statement=f"At least four seeds in five reach a KL of {LEAST:g}.", value=float(reached.value), interval=(float(reached.low), float(reached.high)), threshold=0.8, unit="of seeds", **about),
    ]  # fmt: skip
    late = np.median(common.finite(adam["kl"])[:, common.window(adam["epochs"], *ADAM_EPOCHS)], axis=1)
    trained = common.untrained(config.epochs) or few
    return [
        JudgedClaim.all_of(parts, id="sgd-learns", paper=common.PAPER, figure="Fig 3", statement=f"SGD brings the KL for modes at +-{MU:g} from about 1 to below {MIDDLE:g} within {SGD_EPOCHS[1]} epochs of {largest:,} examples.").unless(trained or common.unmeasured(epochs, *SGD_EPOCHS)),
        common.median_claim(late, kind="at_most", id="adam-learns", figure="Fig 8", statement=f"With Adam the median KL at epochs {ADAM_EPOCHS[0]} to {ADAM_EPOCHS[1]} of {largest:,} examples is at most {ADAM:g}.", threshold=ADAM, unit="nats").unless(trained or common.unmeasured(adam["epochs"], *ADAM_EPOCHS)),
    ]  # fmt: skip


def _sample_size(config: Config, results: dict[tuple[str, int], dict[str, np.ndarray]]) -> JudgedClaim:
    """Adam at the end: fewest against most examples."""
    least, most = config.sizes[0], config.sizes[-1]
    ends = [np.median(common.finite(results["adam", n]["kl"])[:, -3:], axis=1) for n in (least, most)]
    value, interval = common.bootstrap(common.ratio_of_medians, *ends)
    return JudgedClaim.at_least(
        unit="",
        id="sample-size",
        paper=common.PAPER,
        figure="Theorem 1",
        statement=f"More examples generalise better: the KL at the end of training with Adam, {least} over {most} examples.",
        value=value,
        interval=interval,
        threshold=1.0,
        note="ratio of medians over seeds, after equally many steps",
    ).unless(
        common.untrained(config.epochs) or ("" if least < most else f"there is one number of examples alone, {most}")
    )


def _scores(config: Config, results: dict) -> tuple[JudgedClaim, JudgedClaim, list[tuple], tuple]:
    """Slope and zero of the learned score about each mode: from ``log q`` by central differences, least squares near it."""
    grid = common.grid_for(MU, config.points)
    x = (grid.coarse[1:] + grid.coarse[:-1]) / 2
    variance = 1 + float(common.SDE.std(config.t_eps)) ** 2
    exact = (-x + MU * np.tanh(MU * x / variance)) / variance
    near = np.abs(np.abs(x) - MU) <= NEAR
    ratios: dict[tuple[str, int], np.ndarray] = {}
    zeros: dict[tuple[str, int], np.ndarray] = {}
    learned: list[list[np.ndarray]] = []
    rows = []
    for optimizer in common.OPTIMIZERS:
        learned.append([])
        for n in config.sizes:
            score = np.diff(results[optimizer, n]["log_q"][:, -1], axis=-1) / grid.step
            learned[-1].append(score)
            fits = np.array([[_line(x[near & side], one[near & side]) for side in (x < 0, x > 0)] for one in score])
            truth = np.array([_line(x[near & side], exact[near & side]) for side in (x < 0, x > 0)])
            ratios[optimizer, n] = np.mean(fits[..., 0] / truth[:, 0], axis=1)
            zeros[optimizer, n] = np.mean(fits[..., 1] / truth[:, 1], axis=1)
            good = np.isfinite(ratios[optimizer, n])
            rows.append(
                (
                    optimizer,
                    n,
                    float(np.median(ratios[optimizer, n][good])),
                    float(np.median(zeros[optimizer, n][good])),
                )
            )
    about: dict[str, Any] = {"paper": common.PAPER, "figure": "App. A.2", "low": 1 - OFF, "high": 1 + OFF}
    claims = []
    for name, values, what in (("slopes", ratios, "slope"), ("intercepts", zeros, "place of the zero")):
        best = values["adam", max(config.sizes)]
        value, interval = common.bootstrap(common.median, best[np.isfinite(best)])
        claims.append(
            JudgedClaim.within(unit="", id=f"score-{name}", statement=f"About the modes the {what} of the score learned with Adam is that of the exact score, within {100 * OFF:.0f} %, after {config.epochs:,} epochs of {max(config.sizes):,} examples.", value=value, interval=interval, note="ratio, mean of both modes, median over seeds", **about).unless(common.untrained(config.epochs))
        )  # fmt: skip
    return claims[0], claims[1], rows, (x, exact, np.array(learned))


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope of the least-squares line, and where it crosses 0."""
    if not np.isfinite(y).all():
        return np.nan, np.nan
    slope, height = np.polyfit(x, y, 1)
    return float(slope), float(-height / slope)


def density_figure(found: dict[str, np.ndarray], grid: Grid, mu: float, optimizer: str, rows: int = 3) -> Any:
    """Learned densities of the first seeds at a tenth of the training, half of it, and the end."""
    last = len(found["epochs"]) - 1
    columns = sorted({max(1, round(last * part)) for part in (0.05, 0.25, 0.5, 0.95)})
    rows = min(rows, len(found["kl"]))
    log_q = found["log_q"][:rows][:, columns]
    modes = mode_summary(np.where(np.isfinite(log_q), log_q, 0.0), grid)
    x = grid.coarse
    target = (np.exp(-((x - mu) ** 2) / 2) + np.exp(-((x + mu) ** 2) / 2)) / np.sqrt(8 * np.pi)

    def text(r: int, c: int) -> str:
        if not np.isfinite(log_q[r, c]).all():
            return "diverged"
        # A side that rises up to 0 has no mode of its own.
        places = (modes.left[r, c], modes.right[r, c])
        left, right = (f"{place:.1f}" if abs(place) > 1.5 * grid.step else "none" for place in places)
        return f"right {modes.weight[r, c]:.0%}, modes {left}, {right}"

    texts = [[text(r, c) for c in range(len(columns))] for r in range(rows)]
    return plots.density_multiples(
        x,
        np.exp(log_q) / grid.step,
        target,
        [f"seed {r}" for r in range(rows)],
        [f"epoch {int(found['epochs'][c])}" for c in columns],
        texts,
        title=f"Modes at ±{mu:g}, {common.NAMES[optimizer]}",
    )


def costs(config: Config) -> list[Cost]:
    """Training."""
    steps = sum(epochs_of(config, n)[0] * n for n in config.sizes) * config.seeds * 2
    return [Cost("early stopping", steps, steps * 6 * config.width * 8, 64e6, 4e6)]
