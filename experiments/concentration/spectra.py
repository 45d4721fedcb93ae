"""Spectra (Figs 6 and 8 of the paper): power laws, the effect of a finite fit, and the assumptions of Theorem 1."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dgu import analysis, plots
from dgu.analysis.stats.estimates import Estimate, exactly
from dgu.analysis.stats.resampling import t_interval
from dgu.analysis.universality.arms import gaussian_arms
from dgu.core.keys import stream
from dgu.core.typing import Key
from experiments import study
from experiments.concentration import assumptions, spectra_controls
from experiments.concentration.spectra_controls import PLANTED, planted, white
from experiments.concentration.subject import PAPER, Plan, Subject, require_images
from experiments.decoding import pictures
from experiments.study import Claim, Cost, Figure, Findings, Noted, Table, at_most, each, equivalent, option, within
from experiments.study.claims import judge
from experiments.study.judged import NOT_SUPPORTED
from experiments.study.progress import progress

#: Fewest images of each class: half of them must leave five ranks for a line.
MIN_IMAGES = 64
#: Classes shown in figures that have a panel or a row for each.
_SHOWN = 10

FIGURES = (
    Figure(
        "power_laws",
        "Covariance spectra of each class and the power laws fitted to a range of ranks, which a rule chooses that "
        "uses n and d alone; with exponents of half of the samples (as Fig 6 of the paper). Mixture: Gaussian fitted "
        "to the other half.",
    ),
    Figure(
        "gram_null",
        "Gram spectrum of the balanced mixture of classes (as Fig 8 of the paper), uncentred, for samples, the "
        "Gaussian mixture fitted to the other half of them, and the null, a mixture fitted to as many draws of the "
        "mixture. The ratio of null to mixture shows the effect of the finite fit alone.",
    ),
    Figure(
        "eigenvectors",
        "Mean and leading eigenvectors of each class's samples; white and black are the ends of each image's own "
        "range.",
    ),
    spectra_controls.FIGURE,
    assumptions.FIGURE,
)


@dataclass(frozen=True)
class Config(study.Options, prefix="spectra"):
    """Covariance and Gram spectra of the samples, and the assumptions of Theorem 1 on them."""

    draws: int = option(24, ge=10)
    """Simulated spectra in each round of a power-law fit."""
    planted: int = option(300, ge=20)
    """Data sets with a planted power law that the coverage of the interval is estimated from."""
    white_sets: int = option(20, ge=2)
    """White data sets whose extreme eigenvalues are compared with the Marchenko-Pastur edges."""
    straight: float = option(0.3, gt=0.0)
    """Difference of the exponent between the halves of the range of ranks up to which a spectrum counts as a power
    law."""
    exponent_margin: float = option(0.1, gt=0.0)
    """Differences of exponents below this count as none."""
    factor: float = option(3.0, gt=1.0)
    """Assumptions count as satisfied within this factor of white Gaussian data; the length of the mean, up to this
    value."""
    eigenvectors: int = option(8, ge=1)
    """Eigenvectors shown of each class."""


PRESETS = {
    "smoke": Config(draws=10, planted=20, white_sets=2, eigenvectors=4),
    "default": Config(),
    "paper": Config(draws=20, white_sets=100),
}


def claims(config: Config) -> tuple[Claim, ...]:
    """What is tested."""
    n, d, exponent = PLANTED
    return (
        Claim(
            "spectra-power-law",
            "In each class (one part each) the covariance spectrum of the samples is a power law: the eigenvalues, "
            "sorted from the largest, fall as rank^-b with one exponent b, so that b fitted to the larger ones (the "
            "first half of the ranks, halved on a logarithmic axis) and b fitted to the smaller ones (the second "
            f"half) differ by less than {config.straight:g} (value: b of the smaller eigenvalues minus b of the "
            "larger; above 0, the spectrum falls faster towards its end).",
            each(equivalent(config.straight)),
            source="Fig 6",
            one_network=True,
        ),
        Claim(
            "spectra-exponent-mixture",
            "The covariance spectra of the fitted Gaussian mixture fall with the same power of the rank as those of "
            "the samples, up to the effect of the finite fit: the exponent of the mixture minus that of the samples "
            f"equals, within {config.exponent_margin:g}, that of the null (a mixture fitted again to draws of the "
            "mixture) minus that of the mixture (value: the first difference less the second, mean over classes).",
            equivalent(config.exponent_margin),
            source="Fig 6",
            one_network=True,
        ),
        Claim(
            "spectra-planted",
            "A control: for Gaussian data whose covariance spectrum is a power law, the 95 % interval of the fitted "
            f"exponent contains the true exponent, {exponent:g}, in 90 to 99 % of data sets of {n} rows of {d} numbers "
            "(value: the share of the data sets).",
            within(0.90, 0.99),
            source="control",
            unit="of sets",
            paper="own",
        ),
        spectra_controls.WHITE_EDGES,
        Claim(
            "spectra-gram-identity",
            "A control: for n samples of the first class, n - 1 times the eigenvalues of their covariance equal the "
            "non-zero eigenvalues of the Gram matrix of the centred samples (value: the largest relative difference).",
            at_most(1e-8),
            source="control",
            paper="own",
            check=True,
        ),
        *assumptions.claims(config.factor),
    )


def check(config: Config, subject: Subject) -> None:
    """Refuses subjects with too few images of a class."""
    require_images(subject, MIN_IMAGES, "spectra")


def measure(config: Config, subject: Subject, run: study.Run) -> dict[str, Any]:
    """Spectra and assumptions of each class, of samples, their Gaussian mixture and real images; and the controls."""
    classes = list(enumerate(subject.labels))
    shown = progress(classes, "spectra", unit="classes")
    return {
        "classes": [run.stage(f"class-{label}", class_spectra, config, subject, run.key, k) for k, label in shown],
        "gram": run.stage("gram", gram_spectra, subject, run.key),
        "planted": run.stage("planted", planted, run.key, config.planted, config.draws),
        "white": run.stage("white", white, subject, config.white_sets),
        "eigenvectors": [run.stage(f"eigenvectors-{label}", eigenvectors, config, subject, k) for k, label in classes],
    }


def report(config: Config, subject: Subject, found: Mapping[str, Any]) -> Findings:
    """Exponents, the effect of a finite fit, and which assumptions hold."""
    classes = found["classes"]
    exponents = np.stack([one["samples.exponent"] for one in classes])
    first, last = classes[0]["samples.range"]
    corrected, held = _corrected(classes), assumptions.measured(classes, subject.class_names)
    failing = [
        claim.id.removeprefix("assumption-").replace("-", " ")
        for claim in assumptions.claims(config.factor)
        if judge(claim, held[claim.id], PAPER).verdict == NOT_SUPPORTED
    ]
    arms = [arm for arm in ("samples", "mixture", "null", "real") if f"{arm}.exponent" in classes[0]]
    return Findings(
        f"Covariance eigenvalues of a class fall like rank^-{exponents[:, 0].min():.2f} to "
        f"rank^-{exponents[:, 0].max():.2f} over ranks {first:.0f} to {last:.0f}; the exponent of the Gaussian mixture "
        f"differs by {corrected.value:+.3f} after correction by the null. "
        + (
            f"These assumptions of Theorem 1 fail on the samples: {', '.join(failing)}."
            if failing
            else "No assumption of Theorem 1 is found to fail on the samples."
        ),
        claims=_measured(subject, found, corrected) | held,
        figures=_figures(config, subject, found),
        tables=_tables(arms, subject.class_names, found),
        metrics={
            "exponent": {arm: [one[f"{arm}.exponent"] for one in classes] for arm in arms},
            "bend": [one["samples.bend"] for one in classes],
            "range": [int(first), int(last)],
            "assumptions": {
                str(name): [one["assumptions"][place] for one in classes]
                for place, name in enumerate(classes[0]["assumption_names"])
            },
        },
    )


def class_spectra(config: Config, subject: Subject, key: Key, number: int) -> dict[str, np.ndarray]:
    """Power laws of one class in several arms, each of as many images; and the assumptions on all its samples.

    The arms are half of the samples, the Gaussian fitted to the other half, the null (fitted to as many draws of that
    Gaussian), and real images.
    """
    flat, own = subject.rows[number], stream(key, "class", number)
    half = len(flat) // 2
    drawn = gaussian_arms(flat[None, half : 2 * half], stream(own, "arms"), half)
    arms = {"samples": flat[:half]} | {name: np.asarray(drawn[name][0]) for name in ("mixture", "null")}
    if subject.real is not None and subject.real.shape[1] >= half:
        # As many real images as samples: the eigenvalues of a sample depend on its number.
        arms["real"] = subject.real[number][:half].reshape(half, -1)
    out: dict[str, np.ndarray] = {}
    for arm, rows in arms.items():
        fit = analysis.power_law_fit(rows, stream(own, "fit", arm), draws=config.draws)
        out |= {
            f"{arm}.exponent": fit.exponent.stacked(),
            f"{arm}.bend": fit.bend.stacked(),
            f"{arm}.law": np.array([fit.prefactor, fit.line]),
            f"{arm}.range": np.array([fit.first, fit.last]),
            f"{arm}.inflation": np.array(fit.inflation),
            f"{arm}.spectrum": fit.spectrum,
        }
    return out | assumptions.quantities(flat, stream(own, "assumptions"))


def gram_spectra(subject: Subject, key: Key) -> dict[str, np.ndarray]:
    """Gram spectra of samples, mixture and null, as many rows of each."""
    flat = subject.rows
    half = flat.shape[1] // 2
    arms = gaussian_arms(flat[:, half : 2 * half], stream(key, "gram"), half)
    labels = np.repeat(np.arange(len(flat)), half)
    rows = {"diffusion": flat[:, :half]} | {name: np.asarray(arms[name]) for name in ("mixture", "null")}
    return {name: analysis.gram_spectrum(x.reshape(-1, x.shape[-1]), labels, half) for name, x in rows.items()}


def eigenvectors(config: Config, subject: Subject, number: int) -> dict[str, np.ndarray]:
    """Mean and leading eigenvectors of a class's samples, and the shares of the variance that they explain."""
    found = analysis.principal_images(subject.images[number], min(config.eigenvectors, subject.dimension))
    return {"mean": found.mean, "vectors": found.vectors, "explained": found.explained}


def _corrected(classes: Sequence[Mapping[str, np.ndarray]]) -> Estimate:
    """Exponent of mixture minus samples, less null minus mixture: mean over classes.

    With one class the standard errors of its fits stand in for the spread over classes.
    """
    signs = {"mixture": 2.0, "samples": -1.0, "null": -1.0}
    values = np.array([sum(sign * one[f"{arm}.exponent"][0] for arm, sign in signs.items()) for one in classes])
    if len(values) > 1:
        return t_interval(values)
    errors = [sign * np.ptp(classes[0][f"{arm}.exponent"][1:]) / 2 for arm, sign in signs.items()]
    value, half = float(values[0]), float(np.linalg.norm(errors))
    return Estimate(value, value - half, value + half)


def _measured(subject: Subject, found: Mapping[str, Any], corrected: Estimate) -> dict[str, study.Measured]:
    """What was measured for all claims but those about the assumptions."""
    classes = found["classes"]
    bends = zip(subject.class_names, (one["samples.bend"].tolist() for one in classes))
    low, high = found["planted"]["intervals"].T
    alone = "" if len(classes) > 1 else "Of one class, whose fits give the interval."
    return {
        "spectra-power-law": {
            name: Estimate(value, low, high, method="parametric bootstrap") for name, (value, low, high) in bends
        },
        "spectra-exponent-mixture": Noted(corrected, alone),
        "spectra-planted": analysis.proportion((low <= PLANTED[2]) & (PLANTED[2] <= high)),
        "spectra-white-edges": spectra_controls.edges(found["white"]),
        # The error of a deterministic computation.
        "spectra-gram-identity": exactly(float(found["white"]["identity"])),
    }


def _figures(config: Config, subject: Subject, found: Mapping[str, Any]) -> dict[str, Any]:
    classes, names = found["classes"], subject.class_names
    first, last = classes[0]["samples.range"]
    labels = {"diffusion": "samples", "mixture": "Gaussian mixture", "null": "null: mixture of the mixture"}
    panels = [_power_law_panel(name, one) for name, one in zip(names[:_SHOWN], classes)]
    title = f"balanced mixture of {len(classes)} class{'es' if len(classes) > 1 else ''}"
    gram = plots.spectra(
        [plots.SpectrumPanel(title, found["gram"])],
        ratios=(("mixture", "diffusion"), ("null", "mixture")),
        labels=labels,
    )
    return {
        "power_laws": (plots.power_laws(panels, labels=labels), f"The ranks here are {first:.0f} to {last:.0f}."),
        "gram_null": gram,
        "eigenvectors": _eigenvector_grid(names[:_SHOWN], found["eigenvectors"][:_SHOWN]),
        "white_spectra": spectra_controls.drawn(found["white"]),
        "assumptions": assumptions.drawn(classes, names, config.factor),
    }


def _power_law_panel(name: str, one: Mapping[str, np.ndarray]) -> "plots.PowerLawPanel":
    arms = {"diffusion": "samples", "mixture": "mixture"} | ({"real": "real"} if "real.law" in one else {})
    first, last = (int(rank) for rank in one["samples.range"])
    prefactor, line = (float(value) for value in one["samples.law"])
    value, low, high = one["samples.exponent"]
    text = f"exponent {value:.2f}\n[{low:.2f}, {high:.2f}]"
    spectra = {arm: one[f"{of}.spectrum"] for arm, of in arms.items()}
    return plots.PowerLawPanel(name, spectra, {"diffusion": (prefactor, line, first, last)}, text)


def _eigenvector_grid(names: Sequence[str], found: Sequence[Mapping[str, np.ndarray]]) -> Any:
    images = plots.stretched(np.stack([np.concatenate([one["mean"][None], one["vectors"]]) for one in found]))
    columns = ["mean", *(str(number) for number in range(1, images.shape[1]))]
    return plots.image_grid(pictures(images), list(names), columns)


def _tables(arms: Sequence[str], names: Sequence[str], found: Mapping[str, Any]) -> list[Table]:
    classes, principal = found["classes"], found["eigenvectors"]
    intervals = [*(f"{arm}.exponent" for arm in arms), "samples.bend"]
    rows = [
        (name, *(Estimate(*one[of]).text(".3f") for of in intervals), float(one["samples.inflation"]))
        for name, one in zip(names, classes)
    ]
    heads = ("class", *arms, "bend of the samples'", "inflation")
    explained = [(name, *(f"{share:.1%}" for share in one["explained"][:4])) for name, one in zip(names, principal)]
    places = ("first", "second", "third", "fourth")[: len(explained[0]) - 1]
    return [
        Table("Exponents of the covariance spectra, with 95 % intervals", heads, rows),
        Table("Variance explained by the leading eigenvectors", ("class", *places), explained),
        assumptions.table(classes[0], names[0]),
    ]


def costs(config: Config, plan: Plan) -> list[Cost]:
    """Singular values of each class in each arm, and the simulated spectra of the fits."""
    d, n = plan.dimension, plan.per_class // 2
    small, large = min(n, d), max(n, d)
    fits = 4 * plan.classes  # samples, mixture, null, real
    flop = fits * (4.0 * small**2 * large + 2 * config.draws * 10 * small**3)
    return [Cost("spectra", flop=flop, memory=4.0 * 4 * n * d * plan.classes, disk=plan.classes * 4 * 4 * small)]


PART = study.Part(
    name="spectra",
    title="Spectra and the assumptions of Theorem 1",
    question="Are covariance spectra power laws, do those of the Gaussian mixture match, and does Theorem 1 apply?",
    paper=PAPER,
    presets=PRESETS,
    claims=claims,
    figures=FIGURES,
    measure=measure,
    report=report,
    costs=costs,
    check=check,
)
