"""Do the samples hold their classes in the proportions of held-out images, and show the classes asked for?"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dgu import analysis, plots
from experiments.audit.common import OWN, key_of, part_by_part, plain, text
from experiments.audit.subject import Subject
from experiments.study import Claim, Figure, Findings, Options, Part, Table, each, equivalent, option

FIGURES = (
    Figure(
        "class_balance",
        "Share of each class in the samples and in held-out images, as an evaluation classifier sees them.",
    ),
)
#: Shares of the classes may differ by this much.
MARGIN = 0.03
#: Fewest images that train the evaluation classifier, fewest pixels of a side, and its batch size.
_FEWEST, _SIDE, _BATCH = 200, 4, 128
CLAIM = Claim(
    "audit-class-balance",
    f"Every class (one part each) has the same share among the samples as among held-out images, within {MARGIN:g}, as "
    "read by a classifier that is trained on the reference images (value: the samples' share minus that of held-out "
    "images).",
    each(equivalent(MARGIN)),
    one_network=True,
)


@dataclass(frozen=True)
class Config(Options, prefix="balance"):
    """The evaluation classifier, which says which class an image shows."""

    images: int = option(20_000, ge=_FEWEST)
    """Reference images that it is trained on, at most."""
    epochs: int = option(6, ge=1)
    """Passes over them."""


PRESETS = {"smoke": Config(images=600, epochs=1), "default": Config(), "paper": Config(images=60_000, epochs=12)}


def unread(subject: Subject) -> str:
    """Why no classifier can be trained that reads the classes of images; empty where one can."""
    if not subject.class_names or subject.reference.labels is None:
        return "the reference has no labels of two or more classes"
    if min(subject.reference.pixels.shape[1:3]) < _SIDE or len(subject.rest) < _FEWEST:
        return f"the evaluation classifier needs {_FEWEST} reference images of {_SIDE} x {_SIDE} pixels or more"
    return ""


def reader(subject: Subject, seed: int, images: int, epochs: int) -> Any:
    """A small network that has learned from ``images`` of the reference, at most, which class an image shows."""
    labels = subject.reference.labels
    assert labels is not None
    rng = np.random.default_rng([seed, 31])
    rest = subject.rest
    rows = np.sort(rest[rng.permutation(len(rest))[:images]])
    return analysis.train_convnet(
        subject.reference.pixels[rows],
        labels[rows],
        key_of(seed, "judge"),
        epochs=epochs,
        batch_size=min(_BATCH, len(rows)),
        classes=len(subject.class_names),
    )


def report(config: Config, subject: Subject, seen: dict[str, np.ndarray]) -> Findings:
    """Shares of the classes in samples and in held-out images: the classifier's errors are the same for both."""
    names = subject.class_names
    found = analysis.class_balance(seen["samples"], seen["held"], len(names))
    difference = found.differences
    rows = difference.stacked()
    worst = int(np.argmax(np.abs(rows[:, 0])))
    points = [f"{value:+.1f} [{low:+.1f}, {high:+.1f}]" for value, low, high in (100 * rows).tolist()]
    accuracy = {
        side: analysis.proportion(seen[side] == images.labels)
        for side, images in (("samples", subject.samples), ("held", subject.held))
        if images.labels is not None
    }
    asked = ""
    if "samples" in accuracy:
        held = f" (held-out images: {text(accuracy['held'])})" if "held" in accuracy else ""
        asked = f" It reads {text(accuracy['samples'])} of the samples as the class asked for{held}."
    shares = {"samples": found.shares.stacked(), "held out": found.reference_shares.stacked()}
    statements = {
        f"class-{place}": f"Share of {name} in the samples less that in held-out images."
        for place, name in enumerate(names)
    }
    figure = plots.interval_dots(names, shares, quantity="share of the images (simultaneous 95 % intervals)")
    return Findings(
        "Class shares, as an evaluation classifier sees them, differ from those of held-out images by at most "
        f"{100 * abs(rows[worst, 0]):.1f} percentage points ({names[worst]}: {points[worst]}); chi-square "
        f"{found.chi2:.1f} with {found.degrees_of_freedom} degrees of freedom, p = {found.p_value:.2g}.{asked}",
        claims={CLAIM.id: part_by_part(difference, statements)},
        figures={"class_balance": figure},
        tables=[_table(names, (found.counts, found.reference_counts), points)],
        metrics={
            **plain({"differences": difference}),
            "chi2": found.chi2,
            "p_value": found.p_value,
            "accuracy": plain(accuracy),
        },
    )


def _table(names: tuple[str, ...], counts: tuple[np.ndarray, np.ndarray], points: list[str]) -> Table:
    shares = [[f"{count} ({100 * count / of.sum():.1f} %)" for count in of.tolist()] for of in counts]
    return Table(
        "Class balance, as the evaluation classifier sees the images",
        ("class", "samples", "held out", "difference (points)"),
        list(zip(names, *shares, points)),
    )


def classes(config: Config, subject: Subject, seed: int) -> dict[str, np.ndarray]:
    """Classes that the classifier sees in samples and held-out images."""
    classifier = reader(subject, seed, config.images, config.epochs)
    return {"samples": classifier.predict(subject.samples.pixels), "held": classifier.predict(subject.held.pixels)}


PART = Part(
    name="balance",
    title="Class balance",
    question="Do the samples hold their classes in the proportions of held-out images, and show those asked for?",
    paper=OWN,
    presets=PRESETS,
    claims=(CLAIM,),
    figures=FIGURES,
    measure=lambda config, subject, run: run.stage("classes", classes, config, subject, run.seed),
    report=report,
    skips=lambda config, subject: unread(subject),
)
