"""What is compared: the sizes of the sets, and some images of each."""

import numpy as np

from dgu import plots
from experiments.audit.common import OWN
from experiments.audit.subject import Options, Subject
from experiments.decoding import pictures
from experiments.study import Figure, Findings, Part, Table

FIGURES = (
    Figure("samples", "The first samples, and reference images beside them; one row a class if both have labels."),
)
#: Classes shown at most, images of each set in a row, and rows without classes.
_CLASSES, _COLUMNS, _ROWS = 20, 8, 6


def report(config: Options, subject: Subject, measured: None) -> Findings:
    """Sizes of the sets, and the first images."""
    sizes = _sizes(subject)
    return Findings(
        f"Compared are {sizes['samples']} samples with {sizes['reference']} reference images and {sizes['held out']} "
        f"held-out images of shape {sizes['shape']}.",
        figures={"samples": plots.image_grid(*_grid(subject), ["samples", "reference"])},
        tables=[Table("Sets", ("set", "images"), list(sizes.items()))],
        metrics=sizes,
    )


def _sizes(subject: Subject) -> dict[str, str]:
    own = "set aside from the reference" if subject.aside is not None else "given by themselves"
    return {
        "samples": f"{len(subject.samples):,}",
        "reference": f"{len(subject.reference):,}",
        "held out": f"{len(subject.held):,} ({own})",
        "shape": " x ".join(map(str, subject.samples.pixels.shape[1:])),
        "classes": str(len(subject.class_names)) if subject.class_names else "none",
    }


def _grid(subject: Subject) -> tuple[np.ndarray, list[str]]:
    """Samples and reference images, one row a class where both have labels, and the names of the rows."""
    sides = (subject.samples, subject.reference)
    labels = [side.labels for side in sides if side.labels is not None]
    if subject.class_names and len(labels) == len(sides):
        kept = [k for k in range(len(subject.class_names)) if all((each == k).any() for each in labels)][:_CLASSES]
        members = [[np.flatnonzero(each == k) for each in labels] for k in kept]
        names = [subject.class_names[k] for k in kept]
    else:
        members = [[np.arange(len(side))[row::_ROWS] for side in sides] for row in range(_ROWS)]
        names = [""] * _ROWS
    rows = [np.concatenate([side.pixels[np.resize(of, _COLUMNS)] for side, of in zip(sides, both)]) for both in members]
    return pictures(np.stack(rows), subject.decoder), names


PART = Part(
    name="images",
    title="Images",
    question="What is compared?",
    paper=OWN,
    claims=(),
    figures=FIGURES,
    measure=lambda config, subject, run: None,  # The sets are given.
    report=report,
)
