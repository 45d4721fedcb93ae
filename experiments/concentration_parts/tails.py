"""Tails of Lipschitz functions (Definition 1, Theorem 2), a calibrated test, and the coupling of Theorem 3."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np

from dgu import analysis, plots
from dgu.analysis.concentration.coupling import COUPLINGS, LARGEST_DEVIATION
from dgu.analysis.concentration.tails import GAUSSIAN_PSI2, one_sized
from dgu.core.errors import require
from dgu.core.keys import seeded, stream
from experiments.concentration_parts.subject import PAPER, Plan, Subject
from experiments.study.costs import Cost
from experiments.study.judged import JudgedClaim
from experiments.study.options import check_options
from experiments.study.report import FigureEntry, Section, Table
from experiments.study.run_directory import RunDirectory

TITLE = "Tails"
CLAIM_IDS = (
    "tails-bound",
    "tails-as-gaussian",
    "tails-test-size",
    "tails-test-power",
    "tails-scale",
    "tails-student-control",
    "coupling-concentrates",
    "coupling-independent",
)
FIGURE_FILES = (
    "figures/tails.png",
    "figures/tail_kurtosis.png",
    "figures/tail_test.png",
    "figures/coupling.png",
)
#: Images of each class that the distance is measured to. An eighth of a class's images, these among them, are set aside: the leading
#: eigenvectors come from them, and no tail is measured on them.
ANCHORS = 8
LEADING = 2
#: Fewest images of each class.
MIN_IMAGES = 20 + ANCHORS
#: Dimensions of the coupling.
DIMENSIONS = (16, 256, 4096)


@dataclass(frozen=True)
class Config:
    """Tails of Lipschitz functions of the images, and controls of how they are judged."""

    projections: int = 8
    """Random projections among the functions, 1 or more."""
    coordinates: int = 4
    """Pixels among the functions, of those that vary; 0 or more."""
    resamples: int = 200
    """Bootstrap resamples, 20 or more."""
    left_over: float = 0.05
    """Left-over mass delta up to which tails count as concentrated."""
    control_rows: int = 4000
    """Rows of the Gaussian and of the Student-t control, 200 or more."""
    control_sets: int = 3000
    """Gaussian sets that the size of the test is counted on, 100 or more."""
    power_sets: int = 100
    """Student-t sets of 2,000 rows, of each weight of tails, that the power of the test is counted on, 20 or more."""
    pairs: int = 1000
    """Pairs drawn from each coupling, 50 or more."""

    def __post_init__(self) -> None:
        check_options(
            self, "tails", projections=1, coordinates=0, resamples=20, left_over="(0, 1)", control_rows=200, control_sets=100,
            power_sets=20, pairs=50,
        )  # fmt: skip


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
#: Student-t degrees of freedom that the power is shown at; Gaussian sets beside them are those of the size.
DEGREES = (3.0, 5.0, 10.0, 20.0)
CONTROL_DIMENSION, CONTROL_ROWS, POWER_ROWS = 8, 120, 2000


def check(config: Config, per_class: int, shown: str = "per_class") -> None:
    """``InputError`` where there are too few images of each class."""
    require(per_class >= MIN_IMAGES, shown, per_class, f"{MIN_IMAGES} or more for tails")


def run(config: Config, subject: Subject, directory: RunDirectory, seed: int) -> Section:
    """Tails of every class's samples, of a Gaussian and of a Student-t with the first class's moments, and the controls."""
    images = subject.images
    key = stream(seeded(seed), "tails")
    classes = range(len(subject.labels))
    found = []
    for k in classes:
        stage = f"tails/class-{subject.labels[k]}"
        found.append(directory.stage(stage, partial(_class_tails, config, key, images[k], k, len(classes))))
    controls = directory.stage("tails/controls", lambda: _controls(config, key, images[0]))
    test = directory.stage("tails/test", lambda: _test(config, key))
    pairs = directory.stage("tails/coupling", lambda: _coupling(config, key))

    names = subject.class_names
    functions = [str(name) for name in found[0]["names"]]
    shown = [(f"samples: {names[k]}", found[k]) for k in classes[:2]]
    shown += [("control: Gaussian", _part(controls, "gaussian")), ("control: Student-t, 3 d.o.f.", _part(controls, "student"))]  # fmt: skip
    panels = [plots.TailPanel(title, one["t"] / one["scale"][0], one["survival"], functions, int(one["n"])) for title, one in shown]  # fmt: skip
    directory.save_figure(FIGURE_FILES[0], plots.tail_panels(panels))
    tested = [str(name) for name in found[0]["test_names"]]
    level = 0.05 / len(classes)
    directory.save_figure(
        FIGURE_FILES[1],
        plots.kurtosis_rows(
            names,
            tested,
            np.stack([one["test_kurtosis"] for one in found]),
            np.stack([one["null_kurtosis"] for one in found]),
            np.stack([one["function_p"] < level for one in found]),
        ),
    )
    data = f"n = {POWER_ROWS:,}, d = {CONTROL_DIMENSION}"
    directory.save_figure(
        FIGURE_FILES[2], plots.calibration(test["size_p"], (*DEGREES, np.inf), test["rates"], data=data)
    )
    exact = {name: np.array([analysis.coupled_deviation(d, name) for d in DIMENSIONS]) for name in COUPLINGS}
    label = {"coin": "y = ±x by a coin", "independent": "y independent of x"}
    directory.save_figure(
        FIGURE_FILES[3],
        plots.coupling_deviations(
            DIMENSIONS,
            {label[name]: pairs[name] for name in COUPLINGS},
            {label[name]: exact[name] for name in COUPLINGS},
            LARGEST_DEVIATION,
        ),
    )

    claims = _claims(config, subject, found, controls, test, pairs, level)
    by_id = {claim.id: claim for claim in claims}
    heavier = sum(float(one["p"]) < level for one in found)
    limit = max(float(one["delta"][2].max()) for one in found)
    answer = (
        f"All tails of {len(functions)} Lipschitz functions lie below 2 exp(-t^2 / 2 s^2) with s^2 the largest variance in any direction, but for a "
        f"probability of {by_id['tails-bound'].value:.2g} (at most {limit:.2g}). The calibrated test finds norm or projections heavier-tailed than "
        f"those of a Gaussian with the same moments in {heavier} of {len(found)} classes; it rejects {by_id['tails-test-size'].value:.1%} of Gaussian sets "
        f"and {by_id['tails-test-power'].value:.0%} of Student-t sets. Two concentrated vectors coupled by a coin do not concentrate: the deviation "
        f"grows to {pairs['coin'][-1, 0]:.0f} at d = {DIMENSIONS[-1]:,}."
    )
    rows = []
    for k in classes:
        one = found[k]
        norm, projection = functions.index("norm"), functions.index("leading 0")
        rows.append(
            (
                names[k],
                f"{one['scale'][0]:.3g} [{one['scale'][1]:.3g}, {one['scale'][2]:.3g}]",
                *(f"{one['psi2'][0, at] / GAUSSIAN_PSI2:.3g}" for at in (norm, projection)),
                *(f"{one['kurtosis'][0, at]:.2f} [{one['kurtosis'][1, at]:.2f}, {one['kurtosis'][2, at]:.2f}]" for at in (norm, projection)),
                *(f"{one['hill'][0, at]:.1f}" for at in (norm, projection)),
                float(one["delta"][2].max()),
                float(one["p"]),
            )
        )  # fmt: skip
    header = ("class", "s", "psi_2 scale of the norm", "of the leading direction", "kurtosis of the norm", "of the leading direction", "Hill index of the norm", "of the leading direction", "left-over mass, at most", "p of the test")  # fmt: skip
    return Section(
        TITLE,
        answer,
        claims,
        [
            FigureEntry(FIGURE_FILES[0], "Two-sided tails of 1-Lipschitz functions against the bound of Definition 1 with s² = ‖Σ‖, for samples, for Gaussian data with the moments of the first class, and for multivariate Student-t with 3 degrees of freedom."),
            FigureEntry(FIGURE_FILES[1], "Excess kurtosis of norm, projections and distance to a set, above that of Gaussian data with the class's moments. Filled: heavier at 5 %, corrected for functions and classes."),
            FigureEntry(FIGURE_FILES[2], "The test on synthetic data: p values where the null hypothesis holds, and share rejected against Student-t data."),
            FigureEntry(FIGURE_FILES[3], "Theorem 3: a 1-Lipschitz function of two standard normal vectors, coupled by a coin and independent."),
        ],
        [Table("Tails of each class", header, rows)],
        {
            "scale": [one["scale"].tolist() for one in found],
            "left_over": [one["delta"].max(axis=1).tolist() for one in found],
            "test_p": [float(one["p"]) for one in found],
            "test_size": float(np.mean(test["size_p"] <= 0.05)),
            "coupling": {name: pairs[name].tolist() for name in COUPLINGS},
        },
    )  # fmt: skip


def costs(config: Config, plan: Plan) -> list[Cost]:
    """Null sets of the test, by far the most of it."""
    d, functions = int(np.prod(plan.shape)), config.projections + 2
    draws = _draws(plan.classes)
    flop = plan.classes * draws * plan.per_class * (2.0 * min(plan.per_class, d) * d + 2 * d * functions)
    together = max(400_000, plan.per_class * d)
    return [Cost("tails", flop=flop, memory=4.0 * (together + 2 * plan.per_class * d), disk=plan.classes * 50_000)]


def _draws(classes: int) -> int:
    """Null sets that resolve a level of 5 % divided by the number of classes twice."""
    return max(199, 40 * classes - 1)


def _class_tails(config: Config, key: Any, images: np.ndarray, k: int, classes: int) -> dict[str, np.ndarray]:
    flat = images.reshape(len(images), -1)
    aside = max(ANCHORS, len(flat) // 8)
    own, rows = stream(key, "class", k), flat[aside:]
    described = _describe(config, own, rows, flat[:aside], classes)
    tested = analysis.lipschitz_family(
        stream(own, "tested"),
        rows.shape[1],
        projections=config.projections,
        coordinates=0,
        anchors=flat[:ANCHORS],
        directions=_leading(flat[:aside]),
        maximum=False,
        width=0,
    )
    test = analysis.tail_test(rows, tested, stream(own, "null"), draws=_draws(classes))
    return described | {
        "p": np.array(test.p_value),
        "function_p": test.function_p,
        "test_kurtosis": test.kurtosis,
        "null_kurtosis": test.null_kurtosis,
        "test_names": np.array(_named(test.names)),
    }


def _leading(rows: np.ndarray) -> np.ndarray:
    return analysis.principal_images(rows, LEADING).vectors


def _named(names: Sequence[str]) -> list[str]:
    """The first directions are leading eigenvectors: say so."""
    leading = {f"projection {number}": f"leading {number}" for number in range(LEADING)}
    return [leading.get(name, name) for name in names]


def _describe(config: Config, key: Any, rows: np.ndarray, aside: np.ndarray, classes: int) -> dict[str, np.ndarray]:
    """Scale, curves, left-over mass (corrected for classes) and estimates of the whole family."""
    spread = rows.std(axis=0)
    varying = np.flatnonzero(spread > 0.1 * spread.max())
    order = np.argsort(np.asarray(jax.random.uniform(stream(key, "coordinates"), spread.shape)))
    chosen = order[np.isin(order, varying)][: config.coordinates]
    family = analysis.lipschitz_family(
        stream(key, "family"),
        rows.shape[1],
        projections=config.projections,
        coordinates=tuple(int(place) for place in chosen),
        anchors=aside[:ANCHORS],
        directions=_leading(aside),
    )
    values = analysis.lipschitz_values(family, rows)
    keep = ~one_sized(values)  # The largest pixel may be white in every image.
    names, values = [name for name, kept in zip(_named(family.names), keep) if kept], values[:, keep]
    scale = analysis.concentration_scale(rows)
    s = float(scale.value)
    curves = analysis.tail_curves(values, s)
    delta = analysis.left_over_mass(values, s, confidence=1 - 0.05 / classes)
    estimates = analysis.tail_estimates(values, stream(key, "bootstrap"), config.resamples)
    parts = {"psi2": estimates.psi2, "kurtosis": estimates.kurtosis, "hill": estimates.hill, "delta": delta}
    return {
        "names": np.array(names),
        "n": np.array(len(rows)),
        "scale": np.array([scale.value, scale.low, scale.high]),
        "t": curves.t,
        "survival": curves.survival,
        **{name: np.stack([one.value, one.low, one.high]) for name, one in parts.items()},
    }


def _part(stage: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    return {key.removeprefix(f"{name}."): value for key, value in stage.items() if key.startswith(f"{name}.")}


def _controls(config: Config, key: Any, images: np.ndarray) -> dict[str, np.ndarray]:
    """Gaussian data and Student-t data (3 degrees of freedom) with the moments of one class, described as the samples are; and
    the scale found in Gaussian sets of as many rows as there are samples, relative to the truth."""
    flat = images.reshape(len(images), -1)
    gaussian, draw = jax.jit(analysis.fit_gaussian)(flat), jax.jit(analysis.draw_gaussian)
    own, count = stream(key, "controls"), config.control_rows
    aside, rows = np.split(np.asarray(draw(gaussian, own, np.arange(count + len(flat)))), [len(flat)])
    mean = np.asarray(gaussian.mean)
    # Three squared normal numbers are a chi-square with 3 degrees of freedom; the variance of Student-t is 3 times the Gaussian's.
    normal = np.asarray(jax.random.normal(stream(own, "radius"), (count, 3)))
    radius = np.linalg.norm(normal, axis=1, keepdims=True)
    out: dict[str, np.ndarray] = {}
    for name, drawn in (("gaussian", rows), ("student", mean + (rows - mean) / radius)):
        found = _describe(replace(config, resamples=20), stream(own, name), drawn, aside, 1)
        out |= {f"{name}.{part}": value for part, value in found.items()}
    truth = np.linalg.norm(np.asarray(gaussian.root, np.float64), 2)
    scales = []
    for number in range(40):
        again = draw(gaussian, stream(own, "scale", number), np.arange(len(flat)))
        scales.append(float(analysis.concentration_scale(again).value))
    return out | {"scale_ratios": np.array(scales) / truth}


def _test(config: Config, key: Any) -> dict[str, np.ndarray]:
    """p values on Gaussian sets, and share rejected on Student-t sets."""
    own = stream(key, "test")
    d = CONTROL_DIMENSION
    scales = np.arange(1, d + 1, dtype=np.float32) ** -0.5
    anchors = np.full((1, d), 0.5, np.float32)
    family = analysis.lipschitz_family(
        stream(own, "family"), d, projections=4, coordinates=2, anchors=anchors, width=16
    )
    size = analysis.tail_test_p_values(stream(own, "size"), config.control_sets, CONTROL_ROWS, scales, family, draws=39)
    rates = []
    for nu in (*DEGREES, np.inf):
        p = size
        if np.isfinite(nu):
            drawn = stream(own, "power", int(nu))
            p = analysis.tail_test_p_values(
                drawn, config.power_sets, POWER_ROWS, scales, family, degrees_of_freedom=nu, draws=19
            )
        share = analysis.proportion(p <= 0.05)
        rates.append([share.value, share.low, share.high])
    return {"size_p": size, "rates": np.array(rates, float)}


def _coupling(config: Config, key: Any) -> dict[str, np.ndarray]:
    """Standard deviation of the function with its 95 % interval: (dimensions, 3)."""
    out = {}
    for name in COUPLINGS:
        rows = []
        every = analysis.coupled_distances(stream(key, "coupling", name), config.pairs, DIMENSIONS, name)
        for values in every.astype(np.float64):
            deviation = values.std(ddof=1)
            kurtosis = np.mean((values - values.mean()) ** 4) / values.var() ** 2
            error = deviation * np.sqrt(max(kurtosis - 1, 1e-6) / (4 * len(values)))
            rows.append([deviation, deviation - 1.96 * error, deviation + 1.96 * error])
        out[name] = np.array(rows)
    return out


def _claims(
    config: Config, subject: Subject, found: list[dict], controls: dict, test: dict, pairs: dict, level: float
) -> list[JudgedClaim]:
    deltas = np.stack([one["delta"].max(axis=1) for one in found])
    worst = int(deltas[:, 0].argmax())
    size = analysis.proportion(test["size_p"] <= 0.05)
    power = [float(value) for value in test["rates"][0]]
    ratio = controls["scale_ratios"]
    student = _part(controls, "student")
    broken = int(student["delta"][1].argmax())
    heavy = student["delta"][:, broken]
    deviations = {
        name: [
            JudgedClaim.at_most(
                id=f"coupling-{name}-{d}",
                paper=PAPER,
                figure="Theorem 3",
                statement=f"the same at d = {d:,}",
                value=value,
                interval=(low, high),
                threshold=LARGEST_DEVIATION,
                unit="",
            )
            for d, (value, low, high) in zip(DIMENSIONS, pairs[name])
        ]
        for name in COUPLINGS
    }
    return [
        JudgedClaim.at_most(
            id="tails-bound",
            paper=PAPER,
            figure="Definition 1, Theorem 2",
            statement=f"Every function of every class obeys P(|f - E f| > t) <= 2 exp(-t^2 / 2 s^2) + delta for all t, s^2 the norm of the covariance, with a small delta (largest of {len(found[0]['names'])} functions and {len(found)} classes).",
            value=float(deltas[worst, 0]),
            interval=(float(deltas[:, 1].max()), float(deltas[:, 2].max())),
            threshold=config.left_over,
            unit="",
            note=f"upper limits hold for all functions, classes and t together; {int(found[0]['n'])} images of each class",
        ),
        JudgedClaim.all_of(
            [
                JudgedClaim.at_least(
                    id=f"tails-as-gaussian-{name}",
                    paper="own",
                    figure="",
                    statement=f"{name}: p of the test, the level being 5 % for all classes together",
                    value=float(one["p"]),
                    interval=(float(one["p"]), float(one["p"])),
                    exact=True,  # A p value is compared with its level: it is no estimate.
                    threshold=level,
                    unit="",
                )
                for name, one in zip(subject.class_names, found)
            ],
            id="tails-as-gaussian",
            paper="own",
            figure="",
            statement="Norm, projections and distances are no heavier-tailed than those of a Gaussian with the class's mean and covariance.",
        ),
        JudgedClaim.within(
            id="tails-test-size",
            paper="own",
            figure="control",
            statement=f"At a nominal 5 % the test rejects 3 to 7 % of Gaussian sets of {CONTROL_ROWS} rows.",
            value=float(size.value),
            interval=(float(size.low), float(size.high)),
            low=0.03,
            high=0.07,
            unit="of sets",
        ),
        JudgedClaim.at_least(
            id="tails-test-power",
            paper="own",
            figure="control",
            statement=f"The test rejects multivariate Student-t data with {DEGREES[0]:g} degrees of freedom, {POWER_ROWS:,} rows.",
            value=power[0],
            interval=(power[1], power[2]),
            threshold=0.95,
            unit="of sets",
        ),
        JudgedClaim.within(
            id="tails-scale",
            paper="own",
            figure="control",
            statement="The scale s of Gaussian data with the first class's covariance is estimated within 10 %, from as many rows as there are samples (interval: 95 % of single sets).",
            value=float(ratio.mean()),
            interval=(float(ratio.mean() - 1.96 * ratio.std(ddof=1)), float(ratio.mean() + 1.96 * ratio.std(ddof=1))),
            low=0.9,
            high=1.1,
            unit="of the true scale",
        ),
        JudgedClaim.at_least(
            id="tails-student-control",
            paper="own",
            figure="control",
            statement="Student-t data with 3 degrees of freedom and the first class's moments break the bound: left-over mass remains in some function.",
            value=float(heavy[0]),
            interval=(float(heavy[1]), float(heavy[2])),
            threshold=1e-6,
            unit="left-over mass",
            note=f"in the function {student['names'][broken]!s}; {config.control_rows} rows",
        ),
        JudgedClaim.all_of(
            deviations["coin"],
            id="coupling-concentrates",
            paper=PAPER,
            figure="Theorem 3",
            statement="Any coupling of two concentrated vectors concentrates: the deviation of ||x - y|| / sqrt 2 stays below 2, what the marginals' constants allow, also for y = x or -x by a coin.",
            note="as stated in the paper; the proof takes the law of x given y for the marginal of x",
        ),
        JudgedClaim.all_of(
            deviations["independent"],
            id="coupling-independent",
            paper=PAPER,
            figure="Theorem 3",
            statement="An independent coupling of two concentrated vectors concentrates.",
        ),
    ]
