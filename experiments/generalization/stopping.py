"""Early stopping (Figs 3, 4, 8 and 9) and sample size: is a minimum of the KL followed by a rise, with SGD and Adam?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dgu import plots
from dgu.analysis import early_stopping, proportion
from dgu.analysis.stats.estimates import Estimate
from experiments.generalization.densities import density_figure
from experiments.generalization.rise import RISE, WINDOW, rise, untested_rise
from experiments.generalization.scores import LearnedScores, learned_scores
from experiments.generalization.statistics import (
    bootstrap,
    finite,
    median,
    ratio_of_medians,
    unless,
    unmeasured,
    untrained,
    window,
)
from experiments.generalization.subject import MU, OPTIMIZERS, PAPER, Options, Subject
from experiments.generalization.trainings import NAMES
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
    each,
    within,
)
from experiments.study import Options as BaseOptions

#: The paper's training set, and the epochs that its figures with SGD and about the middle with Adam show.
EXAMPLES, SGD_EPOCHS, ADAM_EPOCHS = 1000, (400, 800), (800, 1200)
#: The KL in these figures: at the start, in the middle of training with SGD, the least of most seeds, and with Adam.
START, MIDDLE, LEAST, ADAM = (0.5, 1.4), 0.3, 0.12, 0.2
#: Relative error up to which a line fitted to a learned score agrees with that of the exact score.
OFF = 0.15

Results = Mapping[tuple[str, int], Mapping[str, np.ndarray]]

FIGURES = (
    Figure(
        "kl_sgd",
        "KL between target and model over training with SGD, one thin line for each seed; every training-set size "
        "takes as many steps (Fig 3 of the paper).",
        "fig-3",
    ),
    Figure(
        "kl_adam",
        "KL between target and model over training with Adam, one thin line for each seed; every training-set size "
        "takes as many steps (Fig 8 of the paper).",
        "fig-8",
    ),
    Figure(
        "densities_near_sgd",
        "Densities learned with SGD on the largest training set, modes near each other: one row for each seed; each "
        "panel gives the mass of the right mode (Fig 4 of the paper).",
        "fig-4",
    ),
    Figure(
        "densities_near_adam",
        "Densities learned with Adam on the largest training set, modes near each other: one row for each seed; each "
        "panel gives the mass of the right mode (Fig 9 of the paper).",
        "fig-9",
    ),
    Figure(
        "scores",
        "Scores learned by the networks of all seeds at the time at which the KL is measured, over the exact score "
        "(App. A.2).",
    ),
)


@dataclass(frozen=True)
class Config(BaseOptions, prefix="stopping"):
    """Early stopping; all of its options are shared with other parts."""


PRESETS = {"smoke": Config(), "default": Config(), "paper": Config()}

CLAIMS = (
    Claim(
        "sgd-learns",
        f"With SGD on the largest training set, the KL for modes at +-{MU:g} falls from about 1 nat to below "
        f"{MIDDLE:g} nats within {SGD_EPOCHS[1]} epochs.",
        all_of(
            Claim(
                "sgd-start",
                f"For modes at +-{MU:g}, the median KL before training lies between {START[0]:g} and {START[1]:g} "
                "nats.",
                within(*START),
                source="Fig 3",
                unit="nats",
            ),
            Claim(
                "sgd-middle",
                f"For modes at +-{MU:g}, the median KL at epochs {SGD_EPOCHS[0]} to {SGD_EPOCHS[1]} of SGD is at most "
                f"{MIDDLE:g} nats.",
                at_most(MIDDLE),
                source="Fig 3",
                unit="nats",
            ),
            Claim(
                "sgd-least",
                f"For modes at +-{MU:g}, at least four seeds in five reach a KL of {LEAST:g} nats at some time of SGD.",
                at_least(0.8),
                source="Fig 3",
                unit="of seeds",
            ),
        ),
        source="Fig 3",
        unit="nats",
    ),
    Claim(
        "adam-learns",
        f"With Adam on the largest training set, the median KL for modes at +-{MU:g} at epochs {ADAM_EPOCHS[0]} to "
        f"{ADAM_EPOCHS[1]} is at most {ADAM:g} nats.",
        at_most(ADAM),
        source="Fig 8",
        unit="nats",
    ),
    *(
        Claim(
            f"early-stopping-{optimizer}",
            f"With {NAMES[optimizer]}, the KL has a minimum during training and rises by {RISE:g} nats or more after "
            "it, at every training-set size (from the time that the other half of the seeds chose to the end).",
            each(at_least(RISE)),
            source=figures,
            unit="nats",
        )
        for optimizer, figures in zip(OPTIMIZERS, ("Figs 3 and 4", "Figs 8 and 9"))
    ),
    Claim(
        "sample-size",
        "More examples generalise better: after equally many steps of Adam, the KL on the smallest training set is at "
        "least that on the largest (ratio of medians over seeds).",
        at_least(1.0),
        source="Theorem 1",
    ),
    *(
        Claim(
            f"score-{name}",
            f"About the modes, the {what} of the score learned with Adam on the largest training set is that of the "
            f"exact score, within {100 * OFF:.0f} % (ratio, mean of both modes, median over seeds).",
            within(1 - OFF, 1 + OFF),
            source="App. A.2",
        )
        for name, what in (("slopes", "slope"), ("intercepts", "place of the zero"))
    ),
)


def measure(config: Config, subject: Subject, run: Run) -> dict[tuple[str, int], dict[str, np.ndarray]]:
    """The networks of every optimiser and training-set size."""
    return {(optimizer, n): subject.networks(optimizer, n) for optimizer in OPTIMIZERS for n in subject.options.sizes}


def report(config: Config, subject: Subject, results: Results) -> Findings:
    """Rises after the minimum, what is learned, the effect of more examples, and the learned scores."""
    options = subject.options
    grid, sizes, largest = subject.grid, options.sizes, options.examples
    untested = untested_rise(options.epochs, options.evaluations)
    rises = {name: rise(found) for name, found in results.items()}
    log_q = {name: found["log_q"][:, -1] for name, found in results.items()}
    scores = learned_scores(log_q, grid, MU, options.t_eps)
    claims: dict[str, Measured] = learning(options, results["sgd", largest], results["adam", largest])
    for optimizer in OPTIMIZERS:
        claims[f"early-stopping-{optimizer}"] = {
            str(n): early_claim(optimizer, n, *rises[optimizer, n], untested) for n in sizes
        }
    claims["sample-size"] = sample_size(options, results)
    claims |= score_claims(options, scores)

    parts = [
        f"{NAMES[optimizer]}: "
        + ", ".join(f"n = {n} {'not tested' if untested else _signed(rises[optimizer, n][0])}" for n in sizes)
        for optimizer in OPTIMIZERS
    ]
    trained = f"The networks were trained on {largest:,} examples for {options.epochs:,} epochs."
    rows = [_curve_row(optimizer, n, found) for (optimizer, n), found in results.items()]
    return Findings(
        "Rise of the KL from its minimum to the end of training, in nats, free of selection: " + "; ".join(parts) + ".",
        claims,
        {
            **{f"kl_{name}": _curves(options, results, name) for name in OPTIMIZERS},
            **{
                f"densities_near_{name}": (density_figure(results[name, largest], grid, MU, NAMES[name]), trained)
                for name in OPTIMIZERS
            },
            "scores": plots.score_panels(
                scores.x,
                np.array([[scores.learned[name, n] for n in sizes] for name in OPTIMIZERS]),
                scores.exact,
                [NAMES[name] for name in OPTIMIZERS],
                [f"{n} examples" for n in sizes],
                title="Learned and exact score at the end",
            ),
        },
        tables=[
            Table(
                "KL over training, medians over seeds",
                ("optimiser", "examples", "at the start", "half way", "at the end", "each seed's least", "diverged"),
                rows,
            ),
            Table(
                "Learned score near the modes, medians over seeds, relative to the exact score of the noisy mixture",
                ("optimiser", "examples", "slope / exact", "place of the zero / exact"),
                [(*name, *_medians(scores, name)) for name in results],
            ),
        ],
        metrics={
            "median_kl_end": {f"{row[0]}-{row[1]}": row[4] for row in rows},
            "rise": {f"{o}-{n}": None if untested else found.value for (o, n), (found, _) in rises.items()},
            "diverged": {f"{row[0]}-{row[1]}": row[6] for row in rows},
        },
    )


def early_claim(optimizer: str, n: int, found: Estimate, note: str, untested: str) -> Measured:
    """The rise at one training-set size, for the claim about every one."""
    statement = (
        f"With {NAMES[optimizer]} on {n:,} examples, the KL rises by {RISE:g} nats or more from its minimum to the end "
        "of training."
    )
    return Noted(unless(untested, found), note, statement)


def learning(options: Options, sgd: Mapping[str, np.ndarray], adam: Mapping[str, np.ndarray]) -> dict[str, Measured]:
    """What the paper's figures of the KL show, on the largest training set."""
    largest = options.examples
    few = f"the networks were trained on {largest:,} examples, fewer than {EXAMPLES:,}" if largest < EXAMPLES else ""
    short = untrained(options.epochs) or few
    kl = finite(sgd["kl"])
    middle = np.median(kl[:, window(sgd["epochs"], *SGD_EPOCHS)], axis=1)
    late = np.median(finite(adam["kl"])[:, window(adam["epochs"], *ADAM_EPOCHS)], axis=1)
    note = f"{len(kl)} seeds, {largest:,} examples"
    parts: dict[str, Measured] = {
        "sgd-start": Noted(bootstrap(median, kl[:, 0]), note),
        "sgd-middle": Noted(bootstrap(median, middle), note),
        "sgd-least": Noted(proportion(kl.min(axis=1) <= LEAST), note),
    }
    return {
        "sgd-learns": unless(short or unmeasured(sgd["epochs"], *SGD_EPOCHS), parts),
        "adam-learns": unless(short or unmeasured(adam["epochs"], *ADAM_EPOCHS), Noted(bootstrap(median, late), note)),
    }


def sample_size(options: Options, results: Results) -> Measured:
    """The KL at the end of training with Adam, the smallest training set over the largest."""
    least, most = options.sizes[0], options.sizes[-1]
    alone = "" if least < most else f"the only training-set size is {most:,}"
    ends = [np.median(finite(results["adam", n]["kl"])[:, -3:], axis=1) for n in (least, most)]
    note = f"{least:,} over {most:,} examples"
    return unless(untrained(options.epochs) or alone, Noted(bootstrap(ratio_of_medians, *ends), note))


def score_claims(options: Options, scores: LearnedScores) -> dict[str, Measured]:
    """Slope and zero of the score about the modes, learned with Adam on the largest training set."""
    note = f"after {options.epochs:,} epochs of {options.examples:,} examples"
    found = {}
    for name, values in (("slopes", scores.slopes), ("intercepts", scores.zeros)):
        own = values["adam", options.examples]
        estimate = bootstrap(median, own[np.isfinite(own)])
        found[f"score-{name}"] = unless(untrained(options.epochs), Noted(estimate, note))
    return found


def _medians(scores: LearnedScores, name: tuple[str, int]) -> tuple[float, float]:
    good = np.isfinite(scores.slopes[name])
    return float(np.median(scores.slopes[name][good])), float(np.median(scores.zeros[name][good]))


def _signed(found: Estimate) -> str:
    return f"{found.value:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def _curve_row(optimizer: str, n: int, found: Mapping[str, np.ndarray]) -> tuple[Any, ...]:
    kl = finite(found["kl"])
    times = (0, len(found["epochs"]) // 2, -1)
    lost = int((found["first_nonfinite"] >= 0).sum())
    return optimizer, n, *(float(np.median(kl[:, at])) for at in times), float(np.median(kl.min(axis=1))), lost


def _curves(options: Options, results: Results, optimizer: str) -> Any:
    """The KL over training at every training-set size, with the minimum of the smoothed median."""
    panels = []
    for n in options.sizes:
        found, marks = results[optimizer, n], {}
        good = np.isfinite(found["kl"]).all(axis=1)
        if good.sum() >= 4:
            least = early_stopping(found["kl"][good], window=WINDOW).minimum
            marks["minimum of the smoothed median"] = float(found["epochs"][least])
        panels.append(plots.SeedCurves(f"{n} examples", found["epochs"].astype(float), found["kl"], marks))
    title = f"{NAMES[optimizer]}, modes at ±{MU:g}, {options.seeds} seeds"
    return plots.seed_curves(panels, xlabel="epochs", ylabel="KL(target || model), nats", title=title)


def costs(config: Config, plan: Options) -> list[Cost]:
    """Training."""
    steps = sum(plan.epochs_for(n) * n for n in plan.sizes) * plan.seeds * len(OPTIMIZERS)
    return [Cost("early stopping", steps, steps * 6 * plan.width * 8, 64e6, 4e6)]


PART = Part(
    name="stopping",
    title="Early stopping",
    question="Does the KL fall to a minimum during training and rise after it, and do more examples help?",
    paper=PAPER,
    presets=PRESETS,
    claims=CLAIMS,
    figures=FIGURES,
    measure=measure,
    report=report,
    costs=costs,
)
