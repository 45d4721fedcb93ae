"""What the parts of an audit share: estimates in text, tables and metrics, the rows that moments are taken of, and
whether the network can be asked about images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dgu import analysis
from dgu.analysis.stats.estimates import Estimate
from dgu.core.keys import seeded, stream
from dgu.core.typing import Key
from experiments.audit.subject import Subject
from experiments.study import Measured, Noted, Table

#: Paper of the claims: none, the audit is our own.
OWN = "own"
#: Where d x d matrices are needed, images of more pixels than this are projected onto this many principal components of
#: the reference.
MOST_COLUMNS, COMPONENTS = 2048, 512
#: The two columns of most tables: generated images, and the images that they are measured against.
COLUMNS = ("samples", "held out")


def key_of(seed: int, *names: str | int) -> Key:
    """The random key of a computation of the audit."""
    return stream(seeded(seed), "audit", *names)


def text(estimate: Estimate, digits: int = 3, scale: float = 1.0) -> str:
    """``value [low, high]``; an interval without width is none: every replicate agreed, which is no certainty."""
    if float(estimate.high) - float(estimate.low) <= 1e-12 * abs(float(estimate.value)):
        return f"{scale * float(estimate.value):.{digits}g} (all alike: no interval)"
    value, low, high = (f"{scale * float(x):.{digits}g}" for x in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"


def plain(estimates: Mapping[str, Estimate]) -> dict[str, dict[str, Any]]:
    """Estimates by name for ``metrics.json``."""
    return {
        name: {"value": each.value, "se": each.standard_error, "low": each.low, "high": each.high}
        for name, each in estimates.items()
    }


def part_by_part(estimate: Estimate, statements: Mapping[str, str]) -> Measured:
    """What was measured for a joint claim: each entry of an estimate of several values, with a statement of its own."""
    return {name: Noted(one, statement=statement) for (name, statement), one in zip(statements.items(), estimate)}


def two_columns(title: str, rows: Mapping[str, Sequence[Estimate]]) -> Table:
    """A table of estimates for samples and for held-out images."""
    return Table(title, ("", *COLUMNS), [(name, *(text(each) for each in row)) for name, row in rows.items()])


def unasked(subject: Subject) -> str:
    """Why the network cannot be asked about images that it was trained on beside others; empty where it can."""
    if subject.network is None:
        return "no network was given (--checkpoint)"
    if subject.aside is not None:
        return "no images are given that the network was not trained on (--holdout)"
    network, labels = subject.network.network, (subject.reference.labels, subject.held.labels)
    if network.shape != subject.reference.pixels.shape[1:]:
        return f"the network makes images of shape {network.shape}"
    known = [each for each in labels if each is not None]
    conditional = network.unet.label_dim
    if conditional and len(known) < len(labels):
        return "the network is conditional, and reference or held-out images have no labels"
    if conditional and max(each.max() for each in known) >= conditional:
        return f"the network knows {conditional} classes, fewer than the images have"
    return ""


def components(subject: Subject, count: int, fitted: int) -> dict[str, np.ndarray]:
    """Rows of each set: its first ``count`` principal components, of the first ``fitted`` images of the reference."""
    sets = subject.compared
    basis = analysis.PCAFeatures.fit(sets["reference"].pixels[:fitted], count)
    return {name: analysis.extract_features(images.pixels, basis) for name, images in sets.items()}


def coordinates(subject: Subject) -> tuple[dict[str, np.ndarray], str]:
    """Rows of samples, reference (without what was set aside) and held-out images, and what the columns are."""
    if subject.reference.flat.shape[1] <= MOST_COLUMNS:
        return {name: images.flat for name, images in subject.compared.items()}, "pixels"
    count = min(COMPONENTS, len(subject.rest) - 1)
    return components(subject, count, 8 * count), f"{count} principal components of the reference"
