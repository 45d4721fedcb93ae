"""What the sections of an audit share: estimates as arrays and as text, and the rows that moments are taken of."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dgu.analysis.stats.estimates import Estimate
from dgu.analysis.stats.resampling import Interval
from experiments.audit_parts.images import Sets
from experiments.study.judged import JudgedClaim
from experiments.study.report import Table

#: More pixels than this are projected on so many principal components of the reference where d x d matrices are needed.
MOST_COLUMNS, COMPONENTS = 2048, 512
#: The two columns of most tables: generated images, and the yardstick.
COLUMNS = ("samples", "held out")


def packed(found: Estimate | Interval) -> np.ndarray:
    """(4, ...) value, standard error, low, high: what a stage stores."""
    value = found.estimate if isinstance(found, Interval) else found.value
    return np.stack([np.asarray(x, np.float64) for x in (value, found.standard_error, found.low, found.high)])


def unpacked(stored: np.ndarray) -> Estimate:
    """The estimate that ``packed`` stored."""
    return Estimate(*(float(x) if np.ndim(x) == 0 else np.asarray(x) for x in stored))


def text(estimate: Estimate, digits: int = 3, scale: float = 1.0) -> str:
    """``value [low, high]``; an interval without width is none: what was drawn or split anew all agreed, which is no certainty."""
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


def ends(estimate: Estimate) -> dict[str, Any]:
    """The value and interval of a ``Claim``."""
    return {"value": float(estimate.value), "interval": (float(estimate.low), float(estimate.high))}


def own(kind: str, estimate: Estimate, id: str, statement: str, **about: Any) -> JudgedClaim:
    """A claim of the audit itself: ``kind`` is "at_most", "at_least" or "within", the bound goes by that constructor's name."""
    about = {"paper": "own", "figure": "", "unit": ""} | about
    return getattr(JudgedClaim, kind)(id=id, statement=statement, **ends(estimate), **about)


def two_columns(title: str, rows: Mapping[str, Sequence[Estimate]], *more: str) -> Table:
    """A table of estimates for samples and for held-out images (and ``more`` columns)."""
    return Table(title, ("", *COLUMNS, *more), [(name, *(text(each) for each in row)) for name, row in rows.items()])


def ratio(a: Estimate, b: Estimate) -> Estimate:
    """``a / b`` of independent positive estimates; the interval is that of the log ratio, from relative standard errors."""
    value = float(a.value / b.value)
    error = float(np.hypot(a.standard_error / max(a.value, 1e-300), b.standard_error / b.value))
    if value <= 0:
        return Estimate(0.0, 0.0, 0.0, float(a.high / b.value))
    half = 1.959963984540054 * error
    return Estimate(value, value * error, value * float(np.exp(-half)), value * float(np.exp(half)))


def coordinates(sets: Sets) -> tuple[dict[str, np.ndarray], str]:
    """Rows of samples, reference (without what was set aside) and held-out images, and what the columns are."""
    from dgu.analysis import PCAFeatures, extract_features

    rest = sets.reference.rows(sets.rest)
    found = {"samples": sets.samples, "reference": rest, "held": sets.held}
    if rest.flat.shape[1] <= MOST_COLUMNS:
        return {name: images.flat for name, images in found.items()}, "pixels"
    count = min(COMPONENTS, len(rest) - 1)
    basis = PCAFeatures.fit(rest.pixels[: 8 * count], count)
    rows = {name: extract_features(images.pixels, basis) for name, images in found.items()}
    return rows, f"{count} principal components of the reference"
