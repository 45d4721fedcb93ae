"""Does the model repeat its training images? Nearest neighbours, near-duplicates, and the scores of two papers."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dgu import analysis, plots
from dgu.analysis.quality.memorisation import NearDuplicates
from dgu.analysis.stats.estimates import Estimate, independent_ratio
from experiments.audit.common import OWN, plain, text
from experiments.audit.subject import Subject
from experiments.decoding import pictures
from experiments.study import (
    Claim,
    Cost,
    Figure,
    Findings,
    Noted,
    Options,
    Part,
    Run,
    Table,
    all_of,
    at_least,
    at_most,
    option,
)
from experiments.study.claims import Measured, judge

FIGURES = (
    Figure("distances", "Distance of samples and of held-out images to the nearest reference image."),
    Figure(
        "pairs",
        "The closest pairs, each sample beside its nearest reference image, ordered by distance relative to the "
        "threshold for near-duplicates.",
    ),
)
#: Pairs drawn, pairs in one row, and pairs listed in the report (all are in near_duplicates.json).
SHOWN, IN_A_ROW, LISTED = 24, 6, 40
#: Excess of near-duplicates and probability of being closer up to which, and shares of new samples and ratios of
#: distances from which on, samples are no copies.
COPIES, CLOSER, NEW = 0.005, 0.6, 0.9


@dataclass(frozen=True)
class Config(Options, prefix="memorisation"):
    """Which samples count as near-duplicates of a reference image."""

    copy_fraction: float = option(0.25, ge=0.0, lt=1.0)
    """A sample is a near-duplicate of a reference image if it is nearer to it than this fraction of that image's
    distance to its own nearest neighbour."""
    copy_rms: float = option(0.02, ge=0.0)
    """A sample is also a near-duplicate if it differs by at most this root mean square of pixels in [-1, 1]."""


PRESETS = {"smoke": Config(), "default": Config(), "paper": Config()}

CLAIM = Claim(
    "audit-not-memorised",
    "The model does not repeat its training images, the reference. (Four parts: the share of near-duplicates among "
    f"samples minus that among held-out images is at most {COPIES:g}; a sample is closer to the reference than a "
    f"held-out image is with a probability of at most {CLOSER:g}; the share of samples farther from the reference than "
    f"the closest 5 % of held-out images is at least {NEW:g}; the mean distance of samples to the reference, relative "
    f"to the samples' norms, is at least {NEW:g} times that of held-out images.)",
    all_of(
        Claim(
            "copies",
            "The share of samples that are near-duplicates of a reference image exceeds that of held-out images by "
            f"at most {COPIES:g} (value: the difference of the shares).",
            at_most(COPIES),
        ),
        Claim(
            "closeness",
            "A sample is closer to its nearest reference image than a held-out image is with a probability of at "
            f"most {CLOSER:g} (1/2 for fresh images, 1 for copies).",
            at_most(CLOSER),
        ),
        Claim(
            "gl-share",
            f"At least {NEW:g} of the samples lie farther from the reference than the closest 5 % of held-out images "
            "do.",
            at_least(NEW),
            source="equation 21",
            paper="molrg",
            note="The published threshold of 0.95 is a perfect model's expected score: half of its sets fall short.",
        ),
        Claim(
            "gl-distance",
            "The mean distance of samples to the nearest reference image, relative to the samples' norms, is at least "
            f"{NEW:g} times that of held-out images (value: the ratio).",
            at_least(NEW),
            source="equation 14",
            paper="hidden_gaussian",
            note="The published threshold of 0.6 belongs to that paper's data.",
        ),
    ),
    one_network=True,
)


@dataclass(frozen=True)
class Distances:
    """What was measured.

    Attributes:
        nearest: reference image nearest to each sample.
        distance, held_distance: of each sample, or held-out image, to the nearest reference image.
        copies, held_copies: which of them are near-duplicates.
        order: samples by distance over the threshold for near-duplicates, the closest first.
        pairs: near-duplicates in that order, as near_duplicates.json lists them.
    """

    nearest: np.ndarray
    distance: np.ndarray
    held_distance: np.ndarray
    copies: NearDuplicates
    held_copies: NearDuplicates
    order: np.ndarray
    pairs: list[dict[str, Any]]


def measure(config: Config, subject: Subject, run: Run) -> Distances:
    """Nearest reference images, and the near-duplicates among them, which are also listed in near_duplicates.json."""
    found = run.stage("distances", distances, subject)
    d = subject.reference.flat.shape[1]
    copies, held_copies = (
        analysis.near_duplicates(
            found[f"{side}distance"], found[f"{side}spacing"], d, fraction=config.copy_fraction, rms=config.copy_rms
        )
        for side in ("", "held_")
    )
    distance, nearest = found["distance"], found["nearest"]
    order = np.argsort(distance / np.maximum(copies.threshold, np.finfo(np.float32).tiny), kind="stable")
    pairs = [
        {"sample": int(i), "reference": int(nearest[i]), "rms": float(distance[i] / np.sqrt(d))}
        for i in order[copies.found[order]]
    ]
    run.directory.write_json("near_duplicates.json", pairs)
    return Distances(nearest, distance, found["held_distance"], copies, held_copies, order, pairs)


def report(config: Config, subject: Subject, found: Distances) -> Findings:
    """Near-duplicates, and the distances of samples beside those of held-out images."""
    test = analysis.copying_test(found.distance, found.held_distance, found.copies.found, found.held_copies.found)
    novelty = analysis.novelty(found.distance, found.held_distance)
    relative = {
        "samples": analysis.relative_distance(subject.samples.flat, found.distance),
        "held": analysis.relative_distance(subject.held.flat, found.held_distance),
    }
    duplicates = {"samples": found.copies.share, "held": found.held_copies.share}
    scores = f"The score itself is {text(relative['samples'])} (held-out images: {text(relative['held'])})."
    measured: Measured = {
        "copies": test.excess,
        "closeness": test.closer,
        "gl-share": novelty.share,
        "gl-distance": Noted(independent_ratio(relative["samples"], relative["held"]), scores),
    }
    verdict = judge(CLAIM, measured, OWN).verdict
    count, rms = int(found.copies.found.sum()), np.sqrt(subject.reference.flat.shape[1])
    words = {
        "supported": "No sign of memorisation",
        "not supported": "MEMORISED",
        "undecided": "Memorisation: undecided",
    }
    fresh = "held-out images" if subject.aside is None else "a reference image is to the other ones"
    aside = (
        ""
        if subject.aside is None
        else "Held-out images were set aside from the reference: each is compared with the others."
    )
    histogram = plots.histograms(
        {"samples": found.distance / rms, "held out": found.held_distance / rms},
        quantity="distance to the nearest reference image (RMS of pixels in [-1, 1])",
        marks={"near-duplicate at any spacing": config.copy_rms, "5 % of held out": novelty.threshold / rms},
    )
    drawn = f"The first {min(count, SHOWN)} are near-duplicates." if count else "None of them is a near-duplicate."
    return Findings(
        f"{words[verdict]}: {count} of {len(found.distance):,} samples are near-duplicates of a reference image "
        f"({text(duplicates['samples'], scale=100)} %; held-out images: {text(duplicates['held'], scale=100)} %). A "
        f"sample is closer to the reference than {fresh} with probability {text(test.closer)} (1/2 for fresh images, 1 "
        "for copies).",
        claims={CLAIM.id: measured},
        figures={"distances": (histogram, aside), "pairs": (_pairs(subject, found, rms), drawn)},
        tables=[_summary(found, duplicates, novelty.share, relative, rms), _listing(config, found, rms)],
        metrics={
            "near_duplicates": count,
            **plain(
                {
                    "share": duplicates["samples"],
                    "held_share": duplicates["held"],
                    "closer": test.closer,
                    "excess": test.excess,
                    "gl_share": novelty.share,
                    "gl_distance": relative["samples"],
                    "held_gl_distance": relative["held"],
                }
            ),
            "verdict": verdict,
        },
    )


def _summary(
    found: Distances, duplicates: dict[str, Estimate], share: Estimate, relative: dict[str, Estimate], rms: float
) -> Table:
    distance, held = found.distance, found.held_distance
    rows = [
        ("near-duplicates, share", text(duplicates["samples"]), text(duplicates["held"])),
        ("median distance (RMS)", float(np.median(distance) / rms), float(np.median(held) / rms)),
        ("smallest distance (RMS)", float(distance.min() / rms), float(held.min() / rms)),
        ("GL score of arXiv 2409.02426 (share of new images)", text(share), "0.95 by definition"),
        ("GL score of arXiv 2410.24060 (relative distance)", text(relative["samples"]), text(relative["held"])),
    ]
    return Table("Memorisation", ("", "samples", "held out"), rows)


def _listing(config: Config, found: Distances, rms: float) -> Table:
    """The closest near-duplicates."""
    rows = [
        (pair["sample"], pair["reference"], pair["rms"], float(found.copies.threshold[pair["sample"]] / rms))
        for pair in found.pairs[:LISTED]
    ]
    rule = f"distance below {config.copy_fraction:g} of the reference image's own spacing, or RMS below"
    closest = "the closest " if len(found.pairs) > LISTED else ""
    return Table(
        f"Near-duplicates ({rule} {config.copy_rms:g}): {closest}{len(rows)} of {len(found.pairs)}",
        ("sample", "reference image", "RMS difference", "threshold"),
        rows,
    )


def distances(subject: Subject) -> dict[str, np.ndarray]:
    """Distances to the nearest reference image, and that image's distance to its own nearest neighbour."""
    reference = subject.reference.flat
    distance, nearest = analysis.nearest(subject.samples.flat, reference)
    # Images that were set aside are among the reference: each is compared with the others.
    held_distance, held_nearest = analysis.nearest(subject.held.flat, reference, own=subject.aside)
    return {
        "distance": distance,
        "nearest": nearest,
        "spacing": analysis.spacing(nearest, reference),
        "held_distance": held_distance,
        "held_spacing": analysis.spacing(held_nearest, reference),
    }


def _pairs(subject: Subject, found: Distances, scale: float) -> Any:
    """Six pairs a row, the closest first."""
    rms = found.distance / scale
    chosen = np.resize(found.order[:SHOWN], SHOWN)  # A set of fewer samples shows them again.
    images = np.stack([subject.samples.pixels[chosen], subject.reference.pixels[found.nearest[chosen]]], axis=1)
    rows = images.reshape(SHOWN // IN_A_ROW, 2 * IN_A_ROW, *images.shape[2:])
    names = [f"RMS {rms[part].min():.3f} to {rms[part].max():.3f}" for part in chosen.reshape(-1, IN_A_ROW)]
    title = "closest pairs: sample left, nearest reference image right"
    return plots.image_grid(pictures(rows, subject.decoder), names, [""] * IN_A_ROW, title=title)


def costs(config: Config, subject: Subject) -> list[Cost]:
    """Distances of samples and held-out images to all reference images, and of their neighbours to the others."""
    m, d = subject.reference.flat.shape
    queries = len(subject.samples) + len(subject.held)
    return [Cost("memorisation", 0, 2.0 * d * m * 2 * queries, subject.memory + 2**28)]


PART = Part(
    name="memorisation",
    title="Memorisation",
    question="Does the model repeat its training images?",
    paper=OWN,
    presets=PRESETS,
    claims=(CLAIM,),
    figures=FIGURES,
    measure=measure,
    report=report,
    costs=costs,
)
