"""Representations: universality and spectra on features of a network and of random convolutions, as well as on pixels.

What is measured are differences of accuracies, and ratios of eigenvalues, between arms that are all made from one pool
of samples: the mixture is fitted to all of them, and classifiers are trained on some and tested on those that they were
neither trained nor validated on. Replicates split this pool anew; other samples would give other differences. That
variation between pools comes from ridge least squares on pools that are drawn anew from the features. The small network
is given: what another one would see is not in the intervals.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from dgu import plots
from dgu.analysis.stats.estimates import Estimate
from dgu.analysis.universality.designs import COMPARED, corrected_gap
from dgu.analysis.universality.recipe import Recipe
from dgu.analysis.universality.resampled import MOST_DIMENSIONS
from experiments import study
from experiments.concentration.representations_design import Config, compare, features, part_sizes, resampled
from experiments.concentration.subject import PAPER, Plan, Subject, points, require_images, single_class
from experiments.pools import CORRECTED_POINTS, POINTS, VARIANCE_CHANGED, interval, on_resampled_pools
from experiments.study import Claim, Cost, Figure, Findings, Run, Table, all_of, different, equivalent, within
from experiments.study.claims import judge
from experiments.study.progress import progress

#: The representations, and what they are called.
NAMES = {"pixels": "pixels", "cnn": "features of a small network", "random-conv": "random convolutional features"}
#: Fewest images of each class.
MIN_IMAGES = 24
#: Ranks at which spectra are compared, as fractions; ratios within the bounds count as equal.
QUANTILES, BOUNDS = (0.25, 0.5), (0.8, 1.25)
#: The differences of accuracy that are shown; claims are about the last one.
CORRECTED = "null-corrected gap"
_GAPS = ("samples minus mixture", "mixture minus null", CORRECTED)
#: What is compared there.
_RATIO = (
    "with r the ratio of an eigenvalue of the mixture to that of the samples, and r0 the ratio of the null's to the "
    "mixture's, where the null is a mixture fitted again to draws of the mixture"
)
#: What changed, in the words of the notes of claims.
_CHANGED = (
    "{}the mixture was fitted to 40 % of the samples, others "
    "than the classifiers', and the interval was the corrected resampled t, about 2.2 times too wide."
)
_UNCORRECTED = (
    "the gap was not corrected for the finite fit; no verdict was given where the standard error exceeded .8; "
)
_SPECTRA_CHANGED = (
    f"{_CHANGED.format('')} Then it was fitted to all samples, those compared among them, so that the spectra were in "
    "part equal by construction; since 1 December 2026 it is fitted to the 80 % that are not compared. "
    f"{VARIANCE_CHANGED}"
)

FIGURES = (
    Figure(
        "representations",
        "Differences of test accuracy of classifiers of all classes between samples and mixture, between mixture and "
        "null (the effect of the finite fit alone), and the first less the second (the null-corrected gap), with 95 % "
        "intervals that account for the variation between pools of samples; the band is the margin.",
    ),
    Figure(
        "representation_spectra",
        "Gram spectra of the balanced mixture of classes in each representation (a fifth of the samples, uncentred; "
        "their mean square is 1), beside as many draws of the mixture fitted to the other samples, and of the null; "
        "below the ratios r, r0 and r / r0; medians over splits with the range of 95 %.",
    ),
)


PRESETS = {
    "smoke": Config(
        replicates=2,
        resampled_pools=2,
        draws=1,
        epochs=1,
        width=2,
        recipe=Recipe(epochs=2, learning_rates=(1.0,), eval_interval=1),
    ),
    "default": Config(),
    "paper": Config(replicates=10, epochs=30, width=64, recipe=Recipe(epochs=100)),
}


def claims(config: Config) -> tuple[Claim, ...]:
    """What is tested."""
    *others, last = NAMES.values()
    sources = {name: "Fig 5" if name == "pixels" else "Section 4, features" for name in NAMES}
    smaller = (
        "On {}, linear classifiers that tell all classes apart reach the same accuracy, within "
        f"{points(config.margin)}, when trained and tested on samples as when trained and tested on draws from the "
        "Gaussian mixture with their class means and covariances, beyond what the finite fit of the mixture explains "
        "(value: the null-corrected gap, accuracy on samples minus accuracy on mixture, less accuracy on mixture minus "
        "accuracy on a mixture fitted again to its draws)."
    )
    not_zero = (
        "On {}, for linear classifiers that tell all classes apart, samples and the Gaussian mixture with their class "
        "means and covariances differ in accuracy, beyond what the finite fit of the mixture explains (value: the "
        "null-corrected gap, which is not zero)."
    )
    changed, same = f"{_CHANGED.format(_UNCORRECTED)} {VARIANCE_CHANGED}", equivalent(config.margin)
    claim_of = partial(Claim, unit="points", one_network=True)
    gap_of = partial(claim_of, test=different(), changed=VARIANCE_CHANGED)
    inside, ranks = f"r / r0 lies in [{BOUNDS[0]:g}, {BOUNDS[1]:g}] at the rank", [f"{one:.0%}" for one in QUANTILES]
    parts = [
        Claim(
            _spectrum_claim(name, quantile),
            f"On {words}, {inside} {quantile:.0%} down the Gram spectrum, {_RATIO}.",
            within(*BOUNDS),
            source="Fig 8",
            changed=_SPECTRA_CHANGED,
        )
        for name, words in NAMES.items()
        for quantile in QUANTILES
    ]
    return (
        *(
            claim
            for name, words in NAMES.items()
            for claim in (
                claim_of(f"representations-{name}", smaller.format(words), same, sources[name], changed=changed),
                gap_of(f"representations-{name}-gap", not_zero.format(words), source=sources[name]),
            )
        ),
        Claim(
            "representations-spectra",
            f"On {', '.join(others)} and {last}, a Gaussian mixture fitted to other samples has the Gram spectrum of "
            f"the samples, up to the effect of the finite fit: {_RATIO}, {inside}s {' and '.join(ranks)} down the "
            "spectrum (a part for each representation and rank; value: r / r0).",
            all_of(*parts),
            source="Fig 8",
            one_network=True,
            changed=_SPECTRA_CHANGED,
        ),
    )


def _spectrum_claim(name: str, quantile: float) -> str:
    return f"representations-spectra-{name}-{round(100 * quantile)}%"


def check(config: Config, subject: Subject) -> None:
    """Refuses subjects with too few images of a class."""
    require_images(subject, MIN_IMAGES, "representations")


def measure(config: Config, subject: Subject, run: Run) -> dict[str, Any]:
    """The samples in each representation, and accuracies and spectra of the three arms there, of the replicates and of
    pools drawn anew.

    The network is trained on the real images, or if there are none, on a third of the samples, which are then left out
    of the comparison.
    """
    found = run.stage("features", features, config, subject, run.key)
    shown = progress(NAMES, "classifiers", unit="representations")
    return {
        "features": {name: found[name].shape for name in NAMES},
        "cnn_accuracy": float(found["cnn_accuracy"]),
        "compared": {name: run.stage(name, compare, config, run.key, found[name], run.seed) for name in shown},
        "resampled": {
            name: on_resampled_pools(
                config, run, partial(resampled, config, run.key, found[name], run.seed), f"{name}-resampled"
            )
            for name in NAMES
        },
    }


def report(config: Config, subject: Subject, found: Mapping[str, Any]) -> Findings:
    """Differences of accuracy and ratios of spectra in each representation."""
    compared, again = found["compared"], found["resampled"]
    gaps = {name: _gaps(compared[name]["accuracy"], again[name]["accuracy"]) for name in NAMES}
    verdicts = {claim.id: claim for claim in claims(config)}
    judged = {name: judge(verdicts[f"representations-{name}"], gaps[name][CORRECTED], PAPER) for name in NAMES}
    equal = [words for name, words in NAMES.items() if judged[name].verdict == "supported"]
    differences = ", ".join(f"{gaps[name][CORRECTED].value:+.1f} points on {words}" for name, words in NAMES.items())
    trained = "real images" if subject.real is not None else "samples that are left out here"
    rows = [
        (
            words,
            found["features"][name][-1],
            *(f"{value:.1f}" for value in 100 * compared[name]["accuracy"].mean(axis=0)),
            *(one.text("+.2f") for one in gaps[name].values()),
        )
        for name, words in NAMES.items()
    ]
    header = ("representation", "d", "samples", "mixture", "null", *_GAPS)
    return Findings(
        f"Corrected for the finite fit, samples and Gaussian mixture differ in the accuracy of linear classifiers by "
        f"{differences} (margin {config.margin:g}; equivalent on {', '.join(equal) if equal else 'none of them'}). The "
        f"network was trained on {trained} and classifies {found['cnn_accuracy']:.0%} of the samples as their own "
        "class.",
        claims={
            f"representations-{name}{suffix}": each[CORRECTED] for name, each in gaps.items() for suffix in ("", "-gap")
        }
        | {"representations-spectra": _spectrum_ratios(compared, again)},
        figures={
            "representations": _forest(config, gaps),
            "representation_spectra": plots.spectra(
                [
                    plots.SpectrumPanel(words, {arm: compared[name][f"spectrum.{arm}"] for arm in COMPARED})
                    for name, words in NAMES.items()
                ],
                quantity="eigenvalue (relative)",
                ratios=(("mixture", "diffusion"), ("null", "mixture")),
                corrected=BOUNDS,
                labels={"diffusion": "samples", "mixture": "Gaussian mixture", "null": "null"},
                columns=3,
            ),
        },
        tables=[Table("Accuracy (%) on each arm's own test images, and its differences (points)", header, rows)],
        metrics={
            "gaps": {name: {what: gap.value for what, gap in each.items()} for name, each in gaps.items()},
            "dimension": {name: found["features"][name][-1] for name in NAMES},
            "cnn_accuracy": found["cnn_accuracy"],
        },
    )


def _gaps(accuracy: np.ndarray, again: np.ndarray) -> dict[str, Estimate]:
    """The three differences of ``_GAPS`` in percentage points, from accuracies (..., arms) of the replicates and of the
    pools drawn anew.
    """

    def difference(first: int) -> Callable[[np.ndarray], np.ndarray]:
        return lambda values: values[..., first] - values[..., first + 1]

    accuracy, again = (100 * values.astype(np.float64) for values in (accuracy, again))
    found = [interval(difference(first), accuracy, again, POINTS) for first in range(2)]
    found.append(interval(lambda values: corrected_gap(*np.moveaxis(values, -1, 0)), accuracy, again, CORRECTED_POINTS))
    return dict(zip(_GAPS, found))


def _spectrum_ratios(
    compared: Mapping[str, Mapping[str, np.ndarray]], again: Mapping[str, Mapping[str, np.ndarray]]
) -> dict[str, Estimate]:
    """Eigenvalues of the mixture over the samples', divided by the null's over the mixture's."""

    def log_ratio(quantile: float) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
        def read(found: Mapping[str, np.ndarray]) -> np.ndarray:
            ratio = -corrected_gap(*(np.log(np.maximum(found[f"spectrum.{arm}"], 1e-12)) for arm in COMPARED))
            return ratio[..., round(quantile * (ratio.shape[-1] - 1))]

        return read

    return {
        _spectrum_claim(name, quantile): interval(log_ratio(quantile), compared[name], again[name]).map(np.exp)
        for name in NAMES
        for quantile in QUANTILES
    }


def _forest(config: Config, gaps: Mapping[str, Mapping[str, Estimate]]) -> Any:
    found = {f"{name}: {what}": gap for name, each in gaps.items() for what, gap in each.items()}
    shown = [judge(Claim(name, "", equivalent(config.margin)), gap, PAPER) for name, gap in found.items()]
    return plots.forest(
        list(found),
        np.array([gap.value for gap in found.values()]),
        np.array([[gap.low, gap.high] for gap in found.values()]),
        config.margin,
        verdicts=[claim.verdict for claim in shown],
        quantity="difference of test accuracy (percentage points)",
    )


def costs(config: Config, plan: Plan) -> list[Cost]:
    """Classifiers and mixtures of all representations."""
    if plan.classes < 2:
        return []
    flop, count = 0.0, plan.per_class
    dimensions, arms = (plan.dimension, 8 * config.width, 128), 1 + 2 * config.draws
    again = config.resampled_pools * config.resampled_splits
    for d in dimensions:
        visits = plan.classes * part_sizes(count)["train"] * config.recipe.epochs
        fits = arms * len(config.recipe.learning_rates) * visits * 4.0 * d * plan.classes
        few = min(d, MOST_DIMENSIONS)
        flop += config.replicates * (fits + 4.0 * plan.classes * count * d * min(count, d))
        flop += again * arms * (4.0 * plan.classes * count * few * min(count, few) + few**3)
    held = 4.0 * plan.classes * count * max(dimensions)
    return [Cost("representations", flop=flop, memory=4 * held, disk=held * sum(dimensions) / max(dimensions))]


PART = study.Part(
    name="representations",
    title="Representations",
    question="Do samples and their Gaussian mixture agree on features, too, in accuracy of classifiers and in spectra?",
    paper=PAPER,
    presets=PRESETS,
    claims=claims,
    figures=FIGURES,
    measure=measure,
    report=report,
    costs=costs,
    check=check,
    skips=single_class,
)
