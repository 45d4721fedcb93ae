"""Tails of one data set: survival curves, left-over mass and tail indices of a family of 1-Lipschitz functions.

Rows are set aside for what may not come from the data that tails are measured on: leading eigenvectors, which are
among the directions, and anchors, to which a distance is measured.
"""

from dataclasses import replace

import jax
import numpy as np
from jaxtyping import Num

from dgu.analysis.concentration.lipschitz import LipschitzFamily, lipschitz_family, lipschitz_values
from dgu.analysis.concentration.tail_test import TailTest, tail_test
from dgu.analysis.concentration.tails import (
    concentration_scale,
    left_over_mass,
    one_sized,
    tail_curves,
    tail_estimates,
)
from dgu.analysis.moments.principal import principal_images
from dgu.core.arrays import as_floats
from dgu.core.errors import require
from dgu.core.keys import stream, threefry
from dgu.core.typing import Key

#: Rows set aside to which the distance is measured, the first ones.
ANCHORS = 8
#: Leading eigenvectors among the directions.
LEADING = 2


def tail_summary(
    rows: Num[np.ndarray, "n d"],
    aside: Num[np.ndarray, "m e"],
    key: Key,
    *,
    projections: int = 8,
    coordinates: int = 4,
    resamples: int = 200,
    comparisons: int = 1,
) -> dict[str, np.ndarray]:
    """Scale, survival curves, left-over mass and tail estimates of a family of 1-Lipschitz functions of the rows.

    Coordinates are drawn from those whose deviation is above a tenth of the largest. Functions whose deviations are
    all of one size, such as the largest pixel where some pixel is always white, are left out.

    Args:
        rows: (n, d), on which tails are measured, n at least 20.
        aside: other rows, at least 3; they give the leading eigenvectors and the anchors of the distance.
        key: of the functions and of the resamples.
        projections: random directions beside the leading eigenvectors.
        coordinates: coordinates, at most.
        resamples: of the bootstrap of the estimates.
        comparisons: data sets looked at, for whose number the left-over mass is corrected.

    Returns:
        ``names`` of the functions, ``n``, ``scale`` (value, low, high), deviations ``t`` (levels,), ``survival``
        (functions, levels), and ``psi2``, ``kurtosis``, ``hill`` and ``delta`` (the left-over mass), each value, low
        and high of each function, (3, functions).

    Raises:
        InputError: rows of different lengths, too few of them, constant or not finite.
    """
    key = threefry(key)
    rows, aside = _checked(rows, aside)
    require(comparisons >= 1, "comparisons", comparisons, "1 or more")
    spread = rows.std(axis=0)
    varying = np.flatnonzero(spread > 0.1 * spread.max())
    order = np.argsort(np.asarray(jax.random.uniform(stream(key, "coordinates"), spread.shape)))
    chosen = order[np.isin(order, varying)][:coordinates]
    family = lipschitz_family(
        stream(key, "family"),
        rows.shape[1],
        projections=projections,
        coordinates=tuple(int(place) for place in chosen),
        anchors=aside[:ANCHORS],
        directions=principal_images(aside, LEADING).vectors,
    )
    values = lipschitz_values(family, rows)
    kept = np.flatnonzero(~one_sized(values))
    names, values = _names(family), values[:, kept]
    scale = concentration_scale(rows)
    s = float(scale.value)
    curves = tail_curves(values, s)
    delta = left_over_mass(values, s, confidence=1 - 0.05 / comparisons)
    estimates = tail_estimates(values, stream(key, "bootstrap"), resamples)
    parts = {"psi2": estimates.psi2, "kurtosis": estimates.kurtosis, "hill": estimates.hill, "delta": delta}
    return {
        "names": np.array([names[place] for place in kept]),
        "n": np.array(len(rows)),
        "scale": scale.stacked(),
        "t": curves.t,
        "survival": curves.survival,
        **{name: estimate.stacked(axis=0) for name, estimate in parts.items()},
    }


def aside_tail_test(
    rows: Num[np.ndarray, "n d"], aside: Num[np.ndarray, "m e"], key: Key, *, projections: int = 8, draws: int = 199
) -> TailTest:
    """``tail_test`` of the rows by their norm, projections and distance to anchors: functions that no bound on pixels
    holds back.

    Args:
        rows: (n, d), n at least 20.
        aside: other rows, at least 3, for leading eigenvectors and anchors.
        key: of the functions and of the null sets.
        projections: random directions beside the leading eigenvectors.
        draws: null sets.

    Raises:
        InputError: rows of different lengths, or as ``tail_test``.
    """
    key = threefry(key)
    rows, aside = _checked(rows, aside)
    family = lipschitz_family(
        stream(key, "tested"),
        rows.shape[1],
        projections=projections,
        coordinates=0,
        anchors=aside[:ANCHORS],
        directions=principal_images(aside, LEADING).vectors,
        maximum=False,
        width=0,
    )
    return replace(tail_test(rows, family, stream(key, "null"), draws=draws), names=tuple(_names(family)))


def _checked(rows: np.ndarray, aside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows, aside = as_floats("rows", rows), as_floats("aside", aside)
    fits = rows.ndim == aside.ndim == 2 and rows.shape[1] == aside.shape[1]
    require(fits, "shapes of rows and aside", (rows.shape, aside.shape), "(n, d) and (m, d)")
    return rows, aside


def _names(family: LipschitzFamily) -> list[str]:
    """Names of the functions; the first directions are leading eigenvectors."""
    leading = {f"projection {number}": f"leading {number}" for number in range(LEADING)}
    return [leading.get(name, name) for name in family.names]
