"""What the parts of an audit share: estimates as arrays and as text, and the rows that moments are taken of."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dgu import analysis
from dgu.analysis.stats.estimates import Estimate, normal_estimate
from dgu.core.keys import seeded, stream
from dgu.core.typing import Key
from experiments.audit.subject import Subject
from experiments.study import Table

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


def packed(estimate: Estimate) -> np.ndarray:
    """(4, ...) value, standard error, low, high of an estimate: what a stage stores."""
    parts = (estimate.value, estimate.standard_error, estimate.low, estimate.high)
    return np.stack([np.asarray(part, np.float64) for part in parts])


def unpacked(stored: np.ndarray) -> Estimate:
    """The estimate that ``packed`` stored."""
    value, error, low, high = (float(part) if np.ndim(part) == 0 else np.asarray(part) for part in stored)
    return Estimate(value, low, high, standard_error=error)


def text(estimate: Estimate, digits: int = 3, scale: float = 1.0) -> str:
    """``value [low, high]``; an interval without width is none: every replicate agreed, which is no certainty."""
    if float(estimate.high) - float(estimate.low) <= 1e-12 * abs(float(estimate.value)):
        return f"{scale * float(estimate.value):.{digits}g} (all alike: no interval)"
    value, low, high = (f"{scale * float(x):.{digits}g}" for x in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"


def plain(estimate: Estimate) -> dict[str, Any]:
    """For ``metrics.json``."""
    return {"value": estimate.value, "se": estimate.standard_error, "low": estimate.low, "high": estimate.high}


def triples(estimate: Estimate) -> np.ndarray:
    """(..., 3): value, low, high."""
    return np.stack([np.asarray(part, float) for part in (estimate.value, estimate.low, estimate.high)], axis=-1)


def each_of(estimate: Estimate) -> list[Estimate]:
    """An estimate of several values as one estimate a value."""
    return [Estimate(*row) for row in triples(estimate).tolist()]


def two_columns(title: str, rows: Mapping[str, Sequence[Estimate]]) -> Table:
    """A table of estimates for samples and for held-out images."""
    return Table(title, ("", *COLUMNS), [(name, *(text(each) for each in row)) for name, row in rows.items()])


def ratio(a: Estimate, b: Estimate) -> Estimate:
    """``a / b`` of independent positive estimates, with the interval of its logarithm (relative errors)."""
    if np.ndim(a.value) == 0 and a.value <= 0:
        return Estimate(0.0, 0.0, float(a.high / b.value), standard_error=0.0)
    value = a.value / b.value
    relative = np.hypot(_error(a) / a.value, _error(b) / b.value)
    log = normal_estimate(np.zeros(np.shape(value)), relative)
    return Estimate(value, value * np.exp(log.low), value * np.exp(log.high), standard_error=value * relative)


def difference(a: Estimate, b: Estimate, scale: float) -> Estimate:
    """``(a - b) / scale`` of independent estimates."""
    return normal_estimate(float(a.value - b.value) / scale, float(np.hypot(_error(a), _error(b))) / scale)


def _error(estimate: Estimate) -> float | np.ndarray:
    assert estimate.standard_error is not None
    return estimate.standard_error


def coordinates(subject: Subject) -> tuple[dict[str, np.ndarray], str]:
    """Rows of samples, reference (without what was set aside) and held-out images, and what the columns are."""
    rest = subject.reference.rows(subject.rest)
    found = {"samples": subject.samples, "reference": rest, "held": subject.held}
    if rest.flat.shape[1] <= MOST_COLUMNS:
        return {name: images.flat for name, images in found.items()}, "pixels"
    count = min(COMPONENTS, len(rest) - 1)
    basis = analysis.PCAFeatures.fit(rest.pixels[: 8 * count], count)
    rows = {name: analysis.extract_features(images.pixels, basis) for name, images in found.items()}
    return rows, f"{count} principal components of the reference"
