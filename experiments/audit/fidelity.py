"""How far are samples from the reference on features, and how much of each set does the other cover?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dgu import analysis, plots
from dgu.analysis.stats.estimates import Estimate, independent_difference, independent_ratio
from dgu.core.keys import stream
from experiments.audit.common import OWN, components, key_of, plain, text, two_columns
from experiments.audit.subject import Subject
from experiments.study import Claim, Cost, Figure, Findings, NotTested, Options, Part, at_least, at_most, option
from experiments.study.claims import judge

FIGURES = (
    Figure("fidelity", "Precision, recall, density and coverage; a perfect model shows what the held-out images show."),
)
MEASURES = ("precision", "recall", "density", "coverage")
#: Sets that are compared with the reference.
SIDES = ("samples", "held")
#: Neighbours of precision and recall, and of density and coverage: their authors' choices.
NEAREST, NEAREST_BALLS = 3, 5
#: Images of one block of the kernel distance.
_BLOCK = 500
#: How much farther samples may be than held-out images, and how much of these images' measures they must reach.
FARTHER, AS_MUCH = 0.05, 0.9

FRECHET = Claim(
    "audit-frechet",
    "The Frechet distance of the samples to the reference images exceeds that of equally many held-out images by at "
    f"most {FARTHER:g} of the total variance of the reference's features (value: samples minus held-out images, over "
    "that variance).",
    at_most(FARTHER),
    one_network=True,
)
PRECISION = Claim(
    "audit-precision",
    f"Samples lie among the reference images at least {AS_MUCH:g} times as often as held-out images do (value: the "
    f"ratio of precisions, the shares of images nearer to some reference image than its neighbour number {NEAREST}).",
    at_least(AS_MUCH),
    one_network=True,
)
COVERAGE = Claim(
    "audit-coverage",
    f"Samples reach at least {AS_MUCH:g} times as much of the reference as equally many held-out images do (value: the "
    "ratio of coverages, the shares of reference images to which some image is nearer than their neighbour number "
    f"{NEAREST_BALLS} is).",
    at_least(AS_MUCH),
    one_network=True,
)


@dataclass(frozen=True)
class Config(Options, prefix="fidelity"):
    """Frechet distance, KID, precision, recall, density and coverage."""

    pca: int = option(64, ge=1)
    """Principal components of the reference's pixels that serve as features if --features gives none."""
    most_images: int = option(5000, ge=50)
    """Images of each set that are compared, at most."""


PRESETS = {"smoke": Config(), "default": Config(), "paper": Config(most_images=10_000)}


def report(config: Config, subject: Subject, found: dict[str, np.ndarray]) -> Findings:
    """Frechet distance, KID, precision, recall, density and coverage, for samples and for held-out images."""
    what, size = str(found["features"]), int(found["size"])
    values = {
        name: {side: Estimate.unpacked(found[f"{side}.{name}"]) for side in SIDES}
        for name in ("frechet", "kid", *MEASURES)
    }
    shown = {name: {side: text(one) for side, one in both.items()} for name, both in values.items()}
    frechet, precision, coverage = (values[name] for name in ("frechet", "precision", "coverage"))
    reached = _relative(coverage)
    enough = judge(COVERAGE, reached, OWN).verdict == "supported"
    verdict = "nearly as much as" if enough else "less than, or not shown to be as much as,"
    figure = plots.interval_dots(
        MEASURES,
        {
            column: np.stack([values[name][side].stacked() for name in MEASURES])
            for column, side in (("samples", "samples"), ("held out", "held"))
        },
        quantity=f"share (density: ratio), {size:,} images of each set",
    )
    titles = {"frechet": "Frechet distance", "kid": "KID"}
    rows = {titles.get(name, name): (both["samples"], both["held"]) for name, both in values.items()}
    return Findings(
        f"On {what}, the Frechet distance to the reference is {shown['frechet']['samples']} (held-out images: "
        f"{shown['frechet']['held']}) and KID {shown['kid']['samples']} (held-out: {shown['kid']['held']}). "
        f"{shown['precision']['samples']} of the samples lie among the reference images (held-out: "
        f"{shown['precision']['held']}), and samples reach {shown['coverage']['samples']} of the reference: "
        f"{verdict} held-out images do ({shown['coverage']['held']}).",
        claims={
            FRECHET.id: independent_difference(frechet["samples"], frechet["held"], float(found["variance"])),
            PRECISION.id: _relative(precision),
            COVERAGE.id: reached,
        },
        figures={"fidelity": figure},
        tables=[two_columns(f"On {what}; {size:,} images of each set", rows)],
        metrics={
            "features": what,
            "images": size,
            "expected_coverage": analysis.expected_coverage(size, size, min(NEAREST_BALLS, size - 1)),
            **{name: plain(both) for name, both in values.items()},
        },
    )


def _relative(both: Mapping[str, Estimate]) -> Estimate | NotTested:
    """The samples' share over that of held-out images."""
    if both["held"].value <= 0:
        return NotTested("no held-out image does: there is nothing to compare the samples with")
    return independent_ratio(both["samples"], both["held"])


def rows_of(config: Config, subject: Subject) -> tuple[dict[str, np.ndarray], str]:
    """Feature rows of each set, and what they are: the files', or principal components of the reference's pixels."""
    sets = subject.compared
    given = {name: images.features for name, images in sets.items() if images.features is not None}
    if len(given) == len(sets):
        return given, "the features given"
    count = min(config.pca, subject.reference.flat.shape[1], len(subject.rest) - 1)
    # From part of a large reference: its leading components need no more.
    rows = components(subject, count, max(20_000, 4 * count))
    return rows, f"the first {count} principal components of the reference's pixels"


def measures(config: Config, subject: Subject, seed: int) -> dict[str, np.ndarray]:
    """Every measure of equally many images of each set."""
    rows, what = rows_of(config, subject)
    key = key_of(seed, "features")
    size = min(config.most_images, *map(len, rows.values()))
    rng = np.random.default_rng([seed, 23])
    chosen = {name: each[np.sort(rng.permutation(len(each))[:size])] for name, each in rows.items()}
    real = chosen["reference"]
    variance = float(np.var(real.astype(np.float64), axis=0, ddof=1).sum())
    found: dict[str, Any] = {"features": what, "size": size, "variance": variance}
    for side in SIDES:
        frechet = analysis.frechet_interval(chosen[side], real, stream(key, "frechet"))
        block = min(_BLOCK, size // 2)
        kid = analysis.kernel_distance(chosen[side], real, stream(key, "kid"), block_size=block)
        pair = analysis.precision_recall(chosen[side], real, k=min(NEAREST, size - 1))
        balls = analysis.density_coverage(chosen[side], real, k=min(NEAREST_BALLS, size - 1))
        every = zip(("frechet", "kid", *MEASURES), (frechet, kid, *pair, *balls))
        found |= {f"{side}.{name}": each.packed() for name, each in every}
    return found


def costs(config: Config, subject: Subject) -> list[Cost]:
    """Distances between the rows of the sets, and covariances of the features."""
    features, d = subject.samples.features, subject.reference.flat.shape[1]
    width = min(config.pca, d) if features is None else features.shape[1]
    rows = min(config.most_images, len(subject.samples), len(subject.held), len(subject.reference))
    return [Cost("fidelity", 0, 2.0 * width * rows**2 * 14 + 44.0 * rows * width**2, subject.memory)]


PART = Part(
    name="fidelity",
    title="Fidelity and coverage",
    question="How far are samples from the reference on features, and how much of each set does the other cover?",
    paper=OWN,
    presets=PRESETS,
    claims=(FRECHET, PRECISION, COVERAGE),
    figures=FIGURES,
    measure=lambda config, subject, run: run.stage("measures", measures, config, subject, run.seed),
    report=report,
    costs=costs,
)
