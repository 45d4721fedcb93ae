"""Spectra of class covariances and Gram matrices, diffusion samples against mixture (Figs 6 and 8 of the paper)."""

from collections.abc import Mapping

import numpy as np

from dgu import plots
from dgu.analysis.stats.estimates import Estimate
from dgu.analysis.universality.designs import COMPARED, corrected_gap
from experiments.pools import VARIANCE_CHANGED
from experiments.study import Claim, Figure, Findings, Measured, Part, Run, all_of, within
from experiments.universality.comparison import Reading, Results, as_metrics, judged
from experiments.universality.options import Options
from experiments.universality.problems import gram_classes
from experiments.universality.subject import PAPER, Subject

#: Ranks at which spectra are compared, as fractions of the number of eigenvalues.
QUANTILES = (0.25, 0.5, 0.9)
#: Ratios of eigenvalues, corrected by the null's, that count as equal.
BOUNDS = (0.8, 1.25)
#: Ratios of arms that are drawn below the spectra.
_RATIOS = (("mixture", "diffusion"), ("null", "mixture"))

#: Logarithms beyond which a ratio is no number.
_MOST = 700.0

#: The power of the eigenvalues that the paper draws.
_POWER = 0.1
FIGURES = (
    Figure(
        "covariance_spectra",
        "Covariance spectra of each class, of all its images and as many draws of mixture and null: eigenvalues to the "
        "power 0.1, which shows large and small ones alike, as the paper does. The lower panels "
        "show the ratios of eigenvalues r, of mixture and samples, r0, of null and mixture, which is the effect of the "
        "finite fit alone, and r / r0.",
        "fig-6",
    ),
    Figure(
        "gram_spectra",
        "Spectra of the Gram matrices X X^T of uncentred images, equally many of each class; the mixture is fitted to "
        "the other images of the pool. Below are the ratios of eigenvalues r, of mixture and samples, r0, of null and "
        "mixture, which is the effect of the finite fit alone, and r / r0, with dotted lines at the ends of the range "
        "that the claim asks for; it is about three ranks, the last panel and r / r0.",
        "fig-8",
    ),
)


def _claim(kind: str, spectra: str, mixture: str, source: str, changed: str, check: bool = False) -> Claim:
    *first, last = (f"{quantile:.0%}" for quantile in QUANTILES)
    inside = f"lies in [{BOUNDS[0]:g}, {BOUNDS[1]:g}] at the rank"
    ratio = (
        "with r the ratio of an eigenvalue of the mixture to that of the samples, and r0 the ratio of the null's to "
        "the mixture's, where the null is a mixture fitted again to draws of the mixture"
    )
    same = (
        f"For {spectra}, {mixture} has the spectrum of the diffusion samples, up to the effect of "
        f"the finite fit: {ratio}, r / r0 {inside}s {', '.join(first)} and {last} down the spectrum, one part each "
        "(value: r / r0)."
    )
    parts = [
        Claim(
            _part(kind, quantile),
            f"For {spectra}, the ratio r / r0 {inside} {quantile:.0%} down the spectrum, {ratio}.",
            within(*BOUNDS),
            source,
        )
        for quantile in QUANTILES
    ]
    return Claim(f"spectrum-{kind}", same, all_of(*parts), source, one_network=True, changed=changed, check=check)


def _part(kind: str, quantile: float) -> str:
    return f"spectrum-{kind}-{round(100 * quantile)}%"


_CHANGED = "the mixture was fitted to a part of the images, and the interval was the corrected resampled t."
_FITTED_TO_THE_SAME = (
    "Until 1 December 2026 it was fitted to all images of the pool, so that what was compared was in part equal by "
    "construction; it is fitted to the others than those compared since."
)
_NOW_A_CHECK = (
    "It was a claim, and became a check of the program after it had been measured: the mixture now has the covariance "
    "of the images compared."
)

CLAIMS = (
    # The mixture has the covariance of these very images: only a wrong program could fail.
    _claim(
        "covariance",
        "the covariances of the classes (geometric mean over classes)",
        "the fitted Gaussian mixture",
        "Fig 6",
        f"{_CHANGED} {_NOW_A_CHECK} {VARIANCE_CHANGED}",
        check=True,
    ),
    _claim(
        "gram",
        "the Gram matrix of equally many images of each class",
        "a Gaussian mixture fitted to other diffusion samples",
        "Fig 8",
        f"{_CHANGED} {_FITTED_TO_THE_SAME} {VARIANCE_CHANGED}",
    ),
)


def measure(options: Options, subject: Subject, run: Run) -> Results:
    """The spectra of the replicates, and of the pools drawn anew."""
    return Results(subject.replicates, subject.resampled, options.pools)


def estimates(options: Options, results: Results) -> dict[str, Measured]:
    """What was measured for each claim."""
    # That of Gram matrices is about the last panel.
    last = [name for name in results.replicates if name.startswith("gram-") and name.endswith(f".{COMPARED[0]}")][-1]
    spectra = {"covariance": "covariance", "gram": last.removesuffix(f".{COMPARED[0]}")}
    return {f"spectrum-{kind}": compared(results, kind, name) for kind, name in spectra.items()}


def compared(results: Results, kind: str, name: str) -> dict[str, Estimate]:
    """Eigenvalues of mixture over diffusion samples, divided by those of null over mixture, at each rank compared."""
    found = {}
    for quantile in QUANTILES:
        logarithm = results.interval(_log_ratio(kind, name, quantile))
        found[_part(kind, quantile)] = logarithm.map(lambda end: float(np.exp(np.clip(end, -_MOST, _MOST))))
    return found


def _log_ratio(kind: str, name: str, quantile: float) -> Reading:
    """Logarithm of the ratio at a rank; for covariances the mean over classes."""

    def read(found: Mapping[str, np.ndarray]) -> np.ndarray:
        log = {arm: np.log(np.maximum(np.asarray(found[f"{name}.{arm}"], float), 1e-12)) for arm in COMPARED}
        # Of the mixture less that of the samples, less the same of null and mixture.
        ratio = -corrected_gap(*log.values())
        at = ratio[..., round(quantile * (ratio.shape[-1] - 1))]
        return at.mean(axis=-1) if kind == "covariance" else at

    return read


def report(options: Options, subject: Subject, found: Results) -> Findings:
    """Both kinds of spectra."""
    measured = estimates(options, found)
    decided = judged(CLAIMS, measured)
    values = {name: ", ".join(f"{part.value:.2f}" for part in claim.parts) for name, claim in decided.items()}
    at = ", ".join(f"{quantile:.0%}" for quantile in QUANTILES)
    shown, names = found.replicates, subject.class_names
    classes = [
        plots.SpectrumPanel(name, {arm: shown[f"covariance.{arm}"][:, label] for arm in COMPARED})
        for label, name in enumerate(names)
    ]
    balanced = [
        plots.SpectrumPanel(
            f"{len(chosen)} classes, {count} images of each", {arm: shown[f"gram-{panel}.{arm}"] for arm in COMPARED}
        )
        for panel, (chosen, count) in gram_classes(options, subject.class_sets, len(names)).items()
    ]
    quantity = f"eigenvalue (squared {subject.unit} units)"
    return Findings(
        "Eigenvalues of the mixture over those of the diffusion samples, divided by those of the null over those of "
        f"the mixture, at {at} of the ranks: {values['spectrum-covariance']} for the class covariances, "
        f"{values['spectrum-gram']} for the Gram matrix of the last panel.",
        claims=measured,
        figures={
            "covariance_spectra": plots.spectra(
                classes, ratios=_RATIOS, corrected=BOUNDS, power=_POWER, quantity="eigenvalue"
            ),
            "gram_spectra": plots.spectra(balanced, ratios=_RATIOS, corrected=BOUNDS, quantity=quantity),
        },
        metrics={"claims": as_metrics(decided)},
    )


PART = Part(
    "spectra", "Spectra",
    "Do class covariances and Gram matrices of diffusion samples and of the mixture have the same spectra?",
    PAPER, CLAIMS, FIGURES, measure, report,
)  # fmt: skip
