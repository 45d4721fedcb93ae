"""Spectra of class covariances and Gram matrices, diffusion samples against mixture (Figs 6 and 8 of the paper)."""

import numpy as np

from dgu import plots
from dgu.analysis.stats.estimates import Estimate
from dgu.analysis.stats.resampling import corrected_t_interval
from experiments.study import Claim, Figure, Findings, Measured, Part, Run, all_of, within
from experiments.universality.comparison import as_metrics, judged, shared_sizes
from experiments.universality.options import Options
from experiments.universality.replicates import ARMS
from experiments.universality.subject import PAPER, Subject

#: Ranks at which spectra are compared, as fractions of the number of eigenvalues.
QUANTILES = (0.25, 0.5, 0.9)
#: Ratios of eigenvalues, corrected by the null's, that count as equal.
BOUNDS = (0.8, 1.25)
#: Ratios of arms that are drawn below the spectra.
_RATIOS = (("mixture", "diffusion"), ("null", "mixture"))

FIGURES = (
    Figure(
        "covariance_spectra",
        "Covariance spectra of each class. The lower panels show ratios of eigenvalues; that of null and mixture is "
        "the effect of the finite fit alone.",
        "fig-6",
    ),
    Figure(
        "gram_spectra",
        "Spectrum of the Gram matrix X X^T of the uncentred test images, equally many of each class.",
        "fig-8",
    ),
)


def _claim(kind: str, spectra: str, source: str) -> Claim:
    *first, last = (f"{quantile:.0%}" for quantile in QUANTILES)
    inside = f"lies in [{BOUNDS[0]:g}, {BOUNDS[1]:g}] at the rank"
    ratio = (
        "with r the ratio of an eigenvalue of the mixture to that of the samples, and r0 the ratio of the null's to "
        "the mixture's, where the null is a mixture fitted again to draws of the mixture"
    )
    same = (
        f"For {spectra}, the fitted Gaussian mixture has the spectrum of the diffusion samples, up to the effect of "
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
    return Claim(f"spectrum-{kind}", same, all_of(*parts), source, one_network=True)


def _part(kind: str, quantile: float) -> str:
    return f"spectrum-{kind}-{round(100 * quantile)}%"


CLAIMS = (
    _claim("covariance", "the covariances of the classes (geometric mean over classes)", "Fig 6"),
    _claim("gram", "the Gram matrix of equally many images of each class", "Fig 8"),
)


def measure(options: Options, subject: Subject, run: Run) -> dict[str, np.ndarray]:
    """The spectra of the replicates."""
    return subject.replicates


def estimates(options: Options, results: dict[str, np.ndarray]) -> dict[str, Measured]:
    """What was measured for each claim."""
    return {f"spectrum-{kind}": compared(options, results, kind) for kind in ("covariance", "gram")}


def compared(options: Options, results: dict[str, np.ndarray], kind: str) -> dict[str, Estimate]:
    """Eigenvalues of mixture over diffusion samples, divided by those of null over mixture, at each rank compared."""
    log = {arm: np.log(np.maximum(results[f"{kind}.{arm}"], 1e-12)) for arm in ARMS}
    corrected = (log["mixture"] - log["diffusion"]) - (log["null"] - log["mixture"])
    corrected = corrected.mean(axis=1) if kind == "covariance" else corrected
    # A mixture fitted to fewer images than pixels has no more eigenvalues in a class than images to fit it.
    count = corrected.shape[-1]
    ranks = min(count, options.splits.fit - 1) if kind == "covariance" else count
    found = {}
    for quantile in QUANTILES:
        values = corrected[:, round(quantile * (ranks - 1))]
        logarithm = corrected_t_interval(values, *shared_sizes(options.splits))
        found[_part(kind, quantile)] = logarithm.map(lambda end: float(np.exp(end)))
    return found


def report(options: Options, subject: Subject, found: dict[str, np.ndarray]) -> Findings:
    """Both kinds of spectra."""
    measured = estimates(options, found)
    decided = judged(CLAIMS, measured)
    values = {name: ", ".join(f"{part.value:.2f}" for part in claim.parts) for name, claim in decided.items()}
    at = ", ".join(f"{quantile:.0%}" for quantile in QUANTILES)
    classes = [
        plots.SpectrumPanel(name, {arm: found[f"covariance.{arm}"][:, label] for arm in ARMS})
        for label, name in enumerate(subject.class_names)
    ]
    balanced = plots.SpectrumPanel("balanced mixture of all classes", {arm: found[f"gram.{arm}"] for arm in ARMS})
    quantity = f"eigenvalue (squared {subject.unit} units)"
    return Findings(
        "Eigenvalues of the mixture over those of the diffusion samples, divided by those of the null over those of "
        f"the mixture, at {at} of the ranks: {values['spectrum-covariance']} for the class covariances, "
        f"{values['spectrum-gram']} for the Gram matrix.",
        claims=measured,
        figures={
            "covariance_spectra": plots.spectra(classes, ratios=_RATIOS, quantity=quantity),
            "gram_spectra": (
                plots.spectra([balanced], ratios=_RATIOS, quantity=quantity),
                f"Here: {options.splits.test} images of each class.",
            ),
        },
        metrics={"claims": as_metrics(decided)},
    )


PART = Part(
    "spectra", "Spectra",
    "Do class covariances and Gram matrices of diffusion samples and of the mixture have the same spectra?",
    PAPER, CLAIMS, FIGURES, measure, report,
)  # fmt: skip
