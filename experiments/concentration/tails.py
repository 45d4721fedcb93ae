"""Tails of Lipschitz functions (Definition 1, Theorem 2), a calibrated test of them, and the coupling of Theorem 3."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dgu import analysis, plots
from dgu.analysis.concentration.tail_summary import ANCHORS, aside_tail_test, tail_summary
from dgu.analysis.concentration.tails import GAUSSIAN_PSI2
from dgu.analysis.stats.estimates import Estimate, normal_estimate
from dgu.core.keys import stream
from dgu.core.typing import Key
from experiments import study
from experiments.concentration import coupling, tail_controls
from experiments.concentration.subject import PAPER, Plan, Subject, require_images
from experiments.concentration.tail_controls import DEGREES, DIMENSION, POWER_ROWS, ROWS
from experiments.study import Claim, Cost, Figure, Findings, Measured, Noted, at_least, at_most, each, option, within
from experiments.study.progress import progress

#: Fewest images of each class.
MIN_IMAGES = 20 + ANCHORS
#: Level of the test, for all classes together.
_LEVEL = 0.05

FIGURES = (
    Figure(
        "tails",
        "Two-sided tails of 1-Lipschitz functions against the bound of Definition 1 with s² = ‖Σ‖, for samples, for "
        "Gaussian data with the moments of the first class, and for multivariate Student-t data with 3 degrees of "
        "freedom.",
    ),
    Figure(
        "tail_kurtosis",
        "Excess kurtosis of norm, projections and distance to a set, above that of Gaussian data with the class's "
        "moments. Filled: significantly heavier at 5 %, corrected for the number of functions and classes.",
    ),
    Figure(
        "tail_test",
        "The test on synthetic data: p values if the null hypothesis holds, and the share of Student-t data sets "
        "rejected.",
    ),
    coupling.FIGURE,
)


@dataclass(frozen=True)
class Config(study.Options, prefix="tails"):
    """Tails of Lipschitz functions of the images, and controls of the methods that judge them."""

    projections: int = option(8, ge=1)
    """Directions among the functions, the leading eigenvectors among them."""
    coordinates: int = option(4, ge=0)
    """Pixels among the functions, chosen among those that vary."""
    resamples: int = option(200, ge=20)
    """Bootstrap resamples."""
    left_over: float = option(0.05, gt=0.0, lt=1.0)
    """Left-over mass delta up to which tails count as concentrated."""
    control_rows: int = option(4000, ge=200)
    """Rows of the Gaussian control and of the Student-t control."""
    control_sets: int = option(3000, ge=100)
    """Gaussian data sets that the size of the test is estimated from."""
    power_sets: int = option(100, ge=20)
    """Student-t data sets of 2,000 rows, for each number of degrees of freedom, that the power of the test is estimated
    from."""
    pairs: int = option(1000, ge=50)
    """Pairs drawn from each coupling."""


PRESETS = {
    "smoke": Config(
        projections=2, coordinates=1, resamples=20, control_rows=200, control_sets=100, power_sets=20, pairs=50
    ),
    "default": Config(),
    "paper": Config(
        projections=32,
        coordinates=16,
        resamples=1000,
        control_rows=20_000,
        control_sets=20_000,
        power_sets=1000,
        pairs=10_000,
    ),
}


def _shared_level(p: Estimate) -> float:
    """The level at which a p value is tested that is one of ``n``."""
    assert p.n is not None
    return _LEVEL / p.n


def claims(config: Config) -> tuple[Claim, ...]:
    """What is tested."""
    return (
        Claim(
            "tails-bound",
            "The samples of every class concentrate: every 1-Lipschitz function f tested (norm, projections, pixels "
            "and others) obeys P(|f - E f| > t) <= 2 exp(-t^2 / (2 s^2)) + delta for all t, with s^2 the largest "
            f"eigenvalue of the class's covariance and a left-over mass delta of at most {config.left_over:g} (value: "
            "the largest delta over functions and classes).",
            at_most(config.left_over),
            source="Definition 1, Theorem 2",
            one_network=True,
        ),
        Claim(
            "tails-as-gaussian",
            "In no class (one part each) does a test find heavier tails in the samples' norms, projections or "
            "distances to images set aside than Gaussian data of the class's mean and covariance have (value: the "
            "test's p value; the level of 5 % is shared equally among the classes).",
            each(at_least(_shared_level)),
            one_network=True,
        ),
        Claim(
            "tails-test-size",
            f"A control: at a nominal level of 5 %, the test for tails heavier than Gaussian rejects 3 to 7 % of data "
            f"sets that are Gaussian, of {ROWS} rows each (value: the share rejected).",
            within(0.03, 0.07),
            source="control",
            unit="of sets",
            paper="own",
        ),
        Claim(
            "tails-test-power",
            "A control: the test for tails heavier than Gaussian, at a level of 5 %, rejects at least 95 % of data "
            f"sets that are multivariate Student-t with {DEGREES[0]:g} degrees of freedom, of {POWER_ROWS:,} rows each "
            "(value: the share rejected).",
            at_least(0.95),
            source="control",
            unit="of sets",
            paper="own",
        ),
        Claim(
            "tails-scale",
            "A control: from as many rows of Gaussian data with the first class's covariance as there are samples of "
            "a class, the scale s, the square root of the covariance's largest eigenvalue, is estimated within 10 % "
            "(value: estimate over truth, mean over data sets; the interval holds 95 % of single data sets).",
            within(0.9, 1.1),
            source="control",
            unit="of the true scale",
            paper="own",
        ),
        Claim(
            "tails-student-control",
            "A control: Student-t data with 3 degrees of freedom and the first class's mean and covariance break the "
            "bound P(|f - E f| > t) <= 2 exp(-t^2 / (2 s^2)), with s^2 the largest eigenvalue of the covariance, for "
            "some 1-Lipschitz function f tested (value: the largest excess over the bound, a probability, for one "
            "such function).",
            at_least(1e-6),
            source="control",
            paper="own",
        ),
        *coupling.CLAIMS,
    )


def check(config: Config, subject: Subject) -> None:
    """Refuses subjects with too few images of a class."""
    require_images(subject, MIN_IMAGES, "tails")


def measure(config: Config, subject: Subject, run: study.Run) -> dict[str, Any]:
    """Tails of every class's samples and of data with known tails, how often the test rejects, and the coupling."""
    functions = config.projections, config.coordinates
    classes = progress(list(enumerate(subject.labels)), "tails", unit="classes")
    return {
        "classes": [run.stage(f"class-{label}", class_tails, config, subject, run.key, k) for k, label in classes],
        "controls": run.stage("controls", tail_controls.known_tails, subject, run.key, config.control_rows, *functions),
        "test": run.stage("test", tail_controls.rejections, run.key, config.control_sets, config.power_sets),
        "coupling": run.stage("coupling", coupling.deviations, run.key, config.pairs),
    }


def report(config: Config, subject: Subject, found: Mapping[str, Any]) -> Findings:
    """Tails against the bound, what the test finds, and the controls."""
    classes, test = found["classes"], found["test"]
    deltas = np.stack([one["delta"].max(axis=1) for one in classes])
    heavier = sum(float(one["p"]) < _LEVEL / len(classes) for one in classes)
    size = analysis.proportion(test["size_p"] <= 0.05)
    most = max(len(_functions(one)) for one in classes)
    return Findings(
        f"All tails of {most} Lipschitz functions lie below 2 exp(-t^2 / 2 s^2) with s^2 the "
        f"largest variance in any direction, but for a probability of {deltas[:, 0].max():.2g} (at most "
        f"{deltas[:, 2].max():.2g}). The calibrated test finds norm or projections heavier-tailed than those of a "
        f"Gaussian with the same moments in {heavier} of {len(classes)} classes; it rejects {size.value:.1%} of "
        f"Gaussian data sets and {test['rates'][0, 0]:.0%} of Student-t data sets. Two concentrated vectors coupled "
        f"by a coin do not concentrate: the deviation grows to {found['coupling']['coin'][-1, 0]:.0f} at d = "
        f"{coupling.DIMENSIONS[-1]:,}.",
        claims=_measured(config, subject, found, deltas, size),
        figures=_figures(subject, found),
        tables=[_table(subject.class_names, classes)],
        metrics={
            "scale": [one["scale"] for one in classes],
            "left_over": deltas,
            "test_p": [one["p"] for one in classes],
            "test_size": np.mean(test["size_p"] <= 0.05),
            "coupling": found["coupling"],
        },
    )


def class_tails(config: Config, subject: Subject, key: Key, number: int) -> dict[str, np.ndarray]:
    """Tails of the samples of class number ``number``, and the test of them.

    An eighth of the samples is set aside, for the leading eigenvectors and the anchors; no tail is measured on them.
    """
    own, flat, classes = stream(key, "class", number), subject.rows[number], len(subject.labels)
    count = max(ANCHORS, len(flat) // 8)
    aside, rows = flat[:count], flat[count:]
    sizes = {"projections": config.projections, "coordinates": config.coordinates, "resamples": config.resamples}
    summary = tail_summary(rows, aside, own, **sizes, comparisons=classes)
    test = aside_tail_test(rows, aside, own, projections=config.projections, draws=_null_draws(classes))
    return summary | {
        "p": np.array(test.p_value),
        "function_p": test.function_p,
        "test_kurtosis": test.kurtosis,
        "null_kurtosis": test.null_kurtosis,
        "test_names": np.array(test.names),
    }


def _null_draws(classes: int) -> int:
    """Null sets of a test that resolve a level of 5 % divided by the number of classes twice."""
    return max(199, 40 * classes - 1)


def _measured(
    config: Config, subject: Subject, found: Mapping[str, Any], deltas: np.ndarray, size: Estimate
) -> dict[str, Measured]:
    classes, ratio = found["classes"], found["controls"]["scale_ratios"]
    student = tail_controls.of_control(found["controls"], "student")
    power, low, high = found["test"]["rates"][0].tolist()
    worst, broken = int(deltas[:, 0].argmax()), int(student["delta"][1].argmax())
    farthest = float(deltas[worst, 0]), float(deltas[:, 1].max()), float(deltas[:, 2].max())
    value, least, most = student["delta"][:, broken].tolist()
    return {
        "tails-bound": Noted(
            Estimate(*farthest, method="Clopper-Pearson"),
            f"The largest delta of {max(len(_functions(one)) for one in classes)} functions and {len(classes)} "
            f"classes, from {int(classes[0]['n'])} images of each class; the interval's upper limit holds for all "
            "functions, classes and t together.",
        ),
        # A p value is compared with its level: it is no estimate.
        "tails-as-gaussian": {
            name: Estimate(p, p, p, method="p value, one of n", n=len(classes), exact=True)
            for name, p in zip(subject.class_names, (float(one["p"]) for one in classes))
        },
        "tails-test-size": size,
        "tails-test-power": Estimate(power, low, high, method="Wilson"),
        "tails-scale": normal_estimate(float(ratio.mean()), float(ratio.std(ddof=1))),
        "tails-student-control": Noted(
            Estimate(value, least, most, method="Clopper-Pearson"),
            f"The function is “{student['names'][broken]!s}”, on {config.control_rows} rows.",
        ),
        **coupling.measured(found["coupling"]),
    }


def _figures(subject: Subject, found: Mapping[str, Any]) -> dict[str, Any]:
    classes, controls, test = found["classes"], found["controls"], found["test"]
    shown = {f"samples: {name}": one for name, one in zip(subject.class_names[:2], classes)} | {
        "control: Gaussian": tail_controls.of_control(controls, "gaussian"),
        "control: Student-t, 3 d.o.f.": tail_controls.of_control(controls, "student"),
    }
    kurtosis = plots.kurtosis_rows(
        subject.class_names,
        [str(name) for name in classes[0]["test_names"]],
        np.stack([one["test_kurtosis"] for one in classes]),
        np.stack([one["null_kurtosis"] for one in classes]),
        np.stack([one["function_p"] < _LEVEL / len(classes) for one in classes]),
    )
    data = f"n = {POWER_ROWS:,}, d = {DIMENSION}"
    return {
        "tails": plots.tail_panels(_panels(shown)),
        "tail_kurtosis": kurtosis,
        "tail_test": plots.calibration(test["size_p"], (*DEGREES, np.inf), test["rates"], data=data),
        "coupling": coupling.drawn(found["coupling"]),
    }


def _panels(shown: Mapping[str, Mapping[str, np.ndarray]]) -> "list[plots.TailPanel]":
    return [
        plots.TailPanel(title, one["t"] / one["scale"][0], one["survival"], _functions(one), int(one["n"]))
        for title, one in shown.items()
    ]


def _functions(one: Mapping[str, np.ndarray]) -> list[str]:
    """Names of the functions of a class: those that are constant on its samples are left out."""
    return [str(name) for name in one["names"]]


def _table(names: Sequence[str], classes: Sequence[Mapping[str, np.ndarray]]) -> study.Table:
    rows = [
        (
            name,
            Estimate(*one["scale"]).text(".3g"),
            *(f"{one['psi2'][0, at] / GAUSSIAN_PSI2:.3g}" for at in places),
            *(Estimate(*one["kurtosis"][:, at]).text(".2f") for at in places),
            *(f"{one['hill'][0, at]:.1f}" for at in places),
            float(one["delta"][2].max()),
            float(one["p"]),
        )
        for name, one in zip(names, classes)
        for places in [[_functions(one).index(function) for function in ("norm", "leading 0")]]
    ]
    quantities = ("psi_2 scale", "kurtosis", "Hill index")
    heads = [head for of in quantities for head in (f"{of} of the norm", "of the leading direction")]
    return study.Table("Tails of each class", ("class", "s", *heads, "left-over mass, at most", "p of the test"), rows)


def costs(config: Config, plan: Plan) -> list[Cost]:
    """Null sets of the test, by far the largest share."""
    d, functions = plan.dimension, config.projections + 2
    draws = _null_draws(plan.classes)
    flop = plan.classes * draws * plan.per_class * (2.0 * min(plan.per_class, d) * d + 2 * d * functions)
    together = max(400_000, plan.per_class * d)
    return [Cost("tails", flop=flop, memory=4.0 * (together + 2 * plan.per_class * d), disk=plan.classes * 50_000)]


PART = study.Part(
    name="tails",
    title="Tails",
    question="Do Lipschitz functions of the samples have sub-Gaussian tails, no heavier than those of a Gaussian?",
    paper=PAPER,
    presets=PRESETS,
    claims=claims,
    figures=FIGURES,
    measure=measure,
    report=report,
    costs=costs,
    check=check,
)
