"""Early stopping (Figs 3, 4, 8 and 9) and sample size: is a minimum of the KL followed by a rise, with SGD and Adam?"""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from dgu import plots
from dgu.analysis import ModeScores, mode_scores, proportion
from experiments import study
from experiments.generalization import statistics
from experiments.generalization.statistics import (
    MEDIAN_CHANGED,
    RATIO_CHANGED,
    RISE,
    RISE_MEASURED,
    Rise,
    finite,
    median_over_seeds,
    unless,
    untrained,
    window,
)
from experiments.generalization.subject import MU, NAMES, OPTIMIZERS, PAPER, SDE, Options, Subject
from experiments.study import Claim, Cost, Figure, Findings, Measured, Noted, Table, all_of, at_least, at_most, within

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

#: The paper's training set, and the epochs that its figures with SGD and about the middle with Adam show.
EXAMPLES, SGD_EPOCHS, ADAM_EPOCHS = 1000, (400, 800), (800, 1200)
#: The KL in these figures: at the start (of the paper's runs 1.05 to 1.35; the range is that of a replication over ten
#: seeds, before this study was written), in the middle of training with SGD, the least of most seeds, and with Adam.
START, MIDDLE, LEAST, ADAM = (0.5, 1.4), 0.3, 0.12, 0.2
#: Share of the seeds that most seeds are.
MOST = 0.8
#: Relative error up to which a line fitted to a learned score agrees with that of the exact score.
OFF = 0.15

Results = Mapping[tuple[str, int], Mapping[str, np.ndarray]]

_fig_3 = partial(Claim, source="Fig 3", unit="nats")
CLAIMS = (
    _fig_3(
        "sgd-learns",
        f"With SGD on the largest training set, the KL from data to model falls in training, for modes at +-{MU:g}. "
        f"(Three parts: before training, the median over seeds is {START[0]:g} to {START[1]:g} nats; at epochs "
        f"{SGD_EPOCHS[0]} to {SGD_EPOCHS[1]}, the median over seeds and time is at most {MIDDLE:g} nats; the share of "
        f"seeds that reach {LEAST:g} nats at some time is at least {MOST:g}.)",
        all_of(
            _fig_3(
                "sgd-start",
                f"For modes at +-{MU:g}, the KL from data to model before training is {START[0]:g} to {START[1]:g} "
                "nats (median over seeds).",
                within(*START),
                changed=MEDIAN_CHANGED,
            ),
            _fig_3(
                "sgd-middle",
                f"For modes at +-{MU:g}, the KL from data to model at epochs {SGD_EPOCHS[0]} to {SGD_EPOCHS[1]} of SGD "
                f"is at most {MIDDLE:g} nats (median over time, then over seeds).",
                at_most(MIDDLE),
                changed=MEDIAN_CHANGED,
            ),
            _fig_3(
                "sgd-least",
                f"For modes at +-{MU:g}, the share of seeds in which SGD reaches a KL from data to model of {LEAST:g} "
                f"nats at some time is at least {MOST:g}.",
                at_least(MOST),
                unit="of seeds",
            ),
        ),
    ),
    Claim(
        "adam-learns",
        f"With Adam on the largest training set, the KL from data to model at epochs {ADAM_EPOCHS[0]} to "
        f"{ADAM_EPOCHS[1]} is at most {ADAM:g} nats, for modes at +-{MU:g} (median over time, then over seeds).",
        at_most(ADAM),
        source="Fig 8",
        unit="nats",
        changed=MEDIAN_CHANGED,
    ),
    *(
        Claim(
            f"early-stopping-{optimizer}",
            f"Training with {NAMES[optimizer]} for too long does harm: at every number of training examples (one part "
            f"each), the KL from data to model rises by {RISE:g} nats or more from its minimum to the end of training. "
            f"{RISE_MEASURED}",
            study.each(at_least(RISE)),
            source=figures,
            unit="nats",
        )
        for optimizer, figures in zip(OPTIMIZERS, ("Figs 3 and 4", "Figs 8 and 9"))
    ),
    Claim(
        "sample-size",
        "More training examples generalise better: after equally many steps of Adam, the KL from data to model is at "
        "least as large with the smallest training set as with the largest (value: the ratio, smallest over largest, "
        "median over seeds).",
        at_least(1.0),
        source="Theorem 1",
        changed=RATIO_CHANGED,
    ),
    *(
        Claim(
            f"score-{name}",
            "Near each of the two modes of the target, the score that networks have learned with Adam on the largest "
            f"training set is {alike}, within {100 * OFF:.0f} % (value: {value}).",
            within(1 - OFF, 1 + OFF),
            source="App. A.2",
            changed=MEDIAN_CHANGED,
        )
        for name, alike, value in (
            (
                "slopes",
                "as steep as the exact score: straight lines fitted to both there have the same slope",
                "learned slope over exact slope, mean of both modes, median over seeds; above 1, the learned score is "
                "too steep, as that of modes that are too narrow",
            ),
            (
                "intercepts",
                "0 where the exact score is: straight lines fitted to both there cross 0 equally far from the middle "
                "between the modes",
                "learned distance over exact distance, mean of both modes, median over seeds; below 1, the learned "
                "modes are too near to each other",
            ),
        )
    ),
)
FIGURES = (
    *(
        Figure(
            f"kl_{name}",
            f"KL between target and model over training with {NAMES[name]}, one thin line for each seed; every "
            f"training-set size takes as many steps (Fig {number} of the paper).",
            f"fig-{number}",
        )
        for name, number in zip(OPTIMIZERS, (3, 8))
    ),
    *(
        Figure(
            f"densities_near_{name}",
            f"Densities learned with {NAMES[name]} on the largest training set, modes near each other: one row for "
            f"each seed; each panel gives the mass of the right mode (Fig {number} of the paper).",
            f"fig-{number}",
        )
        for name, number in zip(OPTIMIZERS, (4, 9))
    ),
    Figure(
        "scores",
        "Scores learned by the networks of all seeds at the time at which the KL is measured, over the exact score "
        "(App. A.2).",
    ),
)


def measure(options: Options, subject: Subject, run: study.Run) -> dict[tuple[str, int], dict[str, np.ndarray]]:
    """The networks of every optimiser and training-set size."""
    return {(optimizer, n): subject.networks(optimizer, n) for optimizer in OPTIMIZERS for n in options.sizes}


def report(options: Options, subject: Subject, results: Results) -> Findings:
    """Rises after the minimum, what is learned, the effect of more examples, and the learned scores."""
    grid, sizes, largest = subject.grid, options.sizes, options.examples
    untested = statistics.untested_rise(options.epochs, options.evaluations)
    rises = {
        name: statistics.rise(found["epochs"], found["kl"], found["first_nonfinite"]) for name, found in results.items()
    }
    noise = float(SDE.std(options.t_eps))
    scores = {name: mode_scores(found["log_q"][:, -1], grid, MU, noise) for name, found in results.items()}
    claims: dict[str, Measured] = {
        **learning(options, results["sgd", largest], results["adam", largest]),
        **{
            f"early-stopping-{name}": {str(n): early_claim(name, n, rises[name, n], untested) for n in sizes}
            for name in OPTIMIZERS
        },
        "sample-size": sample_size(options, results),
        **score_claims(options, scores["adam", largest]),
    }

    def signed(found: Rise) -> str:
        return f"{found.estimate.value:+.2f} [{found.estimate.low:+.2f}, {found.estimate.high:+.2f}]"

    parts = [
        f"{NAMES[name]}: " + ", ".join(f"n = {n} {'not tested' if untested else signed(rises[name, n])}" for n in sizes)
        for name in OPTIMIZERS
    ]
    trained = f"The networks were trained on {largest:,} examples for {options.epochs:,} epochs."
    last = scores["adam", largest]
    rows = [_curve_row(optimizer, n, found) for (optimizer, n), found in results.items()]
    return Findings(
        "Rise of the KL from its minimum to the end of training, in nats, free of selection: " + "; ".join(parts) + ".",
        claims,
        {
            **{f"kl_{name}": _curves(options, results, rises, name) for name in OPTIMIZERS},
            **{
                f"densities_near_{name}": (_densities(subject, results[name, largest], name), trained)
                for name in OPTIMIZERS
            },
            "scores": plots.score_panels(
                last.x,
                np.array([[scores[name, n].learned for n in sizes] for name in OPTIMIZERS]),
                last.exact,
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
                [(*name, _median(own.slopes), _median(own.zeros)) for name, own in scores.items()],
            ),
        ],
        metrics={
            "median_kl_end": {f"{row[0]}-{row[1]}": row[4] for row in rows},
            "rise": {f"{o}-{n}": None if untested else found.estimate.value for (o, n), found in rises.items()},
            "diverged": {f"{row[0]}-{row[1]}": row[6] for row in rows},
        },
    )


def early_claim(optimizer: str, n: int, found: Rise, untested: str) -> Measured:
    """The rise at one training-set size, for the claim about every one."""
    statement = (
        f"With {NAMES[optimizer]} on {n:,} training examples, the KL from data to model rises by {RISE:g} nats or more "
        "from its minimum to the end of training."
    )
    return Noted(unless(untested, found.estimate), found.note, statement)


def learning(options: Options, sgd: Mapping[str, np.ndarray], adam: Mapping[str, np.ndarray]) -> dict[str, Measured]:
    """What the paper's figures of the KL show, on the largest training set."""
    largest = options.examples
    few = f"the networks were trained on {largest:,} examples, fewer than {EXAMPLES:,}" if largest < EXAMPLES else ""
    short = untrained(options.epochs) or few
    kl = finite(sgd["kl"])
    middle = np.median(kl[:, window(sgd["epochs"], *SGD_EPOCHS)], axis=1)
    late = np.median(finite(adam["kl"])[:, window(adam["epochs"], *ADAM_EPOCHS)], axis=1)
    noted = partial(Noted, note=f"{len(kl)} seeds, {largest:,} training examples")
    parts: dict[str, Measured] = {
        "sgd-start": noted(median_over_seeds(kl[:, 0])),
        "sgd-middle": noted(median_over_seeds(middle)),
        "sgd-least": noted(proportion(kl.min(axis=1) <= LEAST)),
    }
    return {
        "sgd-learns": unless(short or statistics.unmeasured(sgd["epochs"], *SGD_EPOCHS), parts),
        "adam-learns": unless(
            short or statistics.unmeasured(adam["epochs"], *ADAM_EPOCHS), noted(median_over_seeds(late))
        ),
    }


def sample_size(options: Options, results: Results) -> Measured:
    """The KL at the end of training with Adam, the smallest training set over the largest."""
    least, most = options.sizes[0], options.sizes[-1]
    alone = "" if least < most else f"the only training-set size is {most:,}"
    ends = [np.median(finite(results["adam", n]["kl"])[:, -3:], axis=1) for n in (least, most)]
    note = f"The KL with {least:,} training examples over that with {most:,}."
    return unless(untrained(options.epochs) or alone, Noted(median_over_seeds(ends[0] / ends[1]), note))


def score_claims(options: Options, scores: ModeScores) -> dict[str, Measured]:
    """Slope and zero of the score about the modes, learned with Adam on the largest training set."""
    note = f"After {options.epochs:,} epochs on {options.examples:,} training examples."
    return {
        f"score-{name}": unless(untrained(options.epochs), Noted(median_over_seeds(values[np.isfinite(values)]), note))
        for name, values in (("slopes", scores.slopes), ("intercepts", scores.zeros))
    }


def _median(values: np.ndarray) -> float:
    """Over the seeds that did not diverge."""
    return float(np.median(values[np.isfinite(values)]))


def _curve_row(optimizer: str, n: int, found: Mapping[str, np.ndarray]) -> tuple[Any, ...]:
    kl = finite(found["kl"])
    times = (0, len(found["epochs"]) // 2, -1)
    lost = int((found["first_nonfinite"] >= 0).sum())
    return optimizer, n, *(float(np.median(kl[:, at])) for at in times), float(np.median(kl.min(axis=1))), lost


def _curves(options: Options, results: Results, rises: Mapping[tuple[str, int], Rise], optimizer: str) -> "Drawing":
    """The KL over training at every training-set size, with the minimum of the smoothed median."""
    panels = []
    for n in options.sizes:
        found, epoch = results[optimizer, n], rises[optimizer, n].epoch
        marks = {} if epoch is None else {"minimum of the smoothed median": float(epoch)}
        panels.append(plots.SeedCurves(f"{n} examples", found["epochs"].astype(float), found["kl"], marks))
    title = f"{NAMES[optimizer]}, modes at ±{MU:g}, {options.seeds} seeds"
    return plots.seed_curves(panels, xlabel="epochs", ylabel="KL(target || model), nats", title=title)


def _densities(subject: Subject, found: Mapping[str, np.ndarray], optimizer: str) -> "Drawing":
    title = f"Modes at ±{MU:g}, {NAMES[optimizer]}"
    return plots.mode_densities(found["epochs"], found["log_q"], subject.grid, MU, title=title)


def costs(options: Options, plan: Options) -> list[Cost]:
    """Training."""
    steps = sum(plan.epochs_for(n) * n for n in plan.sizes) * plan.seeds * len(OPTIMIZERS)
    return [Cost("early stopping", steps, steps * 6 * plan.width * 8, 64e6, 4e6)]


PART = study.Part(
    name="stopping",
    title="Early stopping",
    question="Does the KL fall to a minimum during training and rise after it, and do more examples help?",
    paper=PAPER,
    claims=CLAIMS,
    figures=FIGURES,
    measure=measure,
    report=report,
    costs=costs,
)
