"""Tails of 1-Lipschitz functions of one set of images: scale, survival curves, left-over mass, indices, and the
test."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from dgu import analysis
from dgu.analysis.concentration.tails import one_sized
from dgu.core.keys import stream
from dgu.core.typing import Key
from experiments.concentration.subject import Subject

#: Images of each class to which the distance is measured. An eighth of a class's images, these among them, are set
#: aside: the leading eigenvectors come from them, and no tail is measured on them.
ANCHORS = 8
#: Leading eigenvectors among the directions.
LEADING = 2


@dataclass(frozen=True)
class Sizes:
    """How many functions are looked at, and how often rows are drawn again for intervals.

    Attributes:
        projections: directions, the leading eigenvectors among them.
        coordinates: pixels.
        resamples: bootstrap resamples.
    """

    projections: int
    coordinates: int
    resamples: int


def null_draws(classes: int) -> int:
    """Null sets of a test that resolve a level of 5 % divided by the number of classes twice."""
    return max(199, 40 * classes - 1)


def class_tails(sizes: Sizes, key: Key, subject: Subject, number: int) -> dict[str, np.ndarray]:
    """Tails of the samples of class number ``number``, and the test of them."""
    own, flat, classes = stream(key, "class", number), subject.rows[number], len(subject.labels)
    aside = max(ANCHORS, len(flat) // 8)
    rows = flat[aside:]
    described = describe(sizes, own, rows, flat[:aside], classes)
    family = analysis.lipschitz_family(
        stream(own, "tested"),
        rows.shape[1],
        projections=sizes.projections,
        coordinates=0,
        anchors=flat[:ANCHORS],
        directions=_leading(flat[:aside]),
        maximum=False,
        width=0,
    )
    test = analysis.tail_test(rows, family, stream(own, "null"), draws=null_draws(classes))
    return described | {
        "p": np.array(test.p_value),
        "function_p": test.function_p,
        "test_kurtosis": test.kurtosis,
        "null_kurtosis": test.null_kurtosis,
        "test_names": np.array(_named(test.names)),
    }


def describe(sizes: Sizes, key: Key, rows: np.ndarray, aside: np.ndarray, classes: int = 1) -> dict[str, np.ndarray]:
    """Scale, curves, left-over mass and estimates of the whole family of functions.

    Args:
        sizes: how many functions and resamples.
        key: of the functions and the resamples.
        rows: (n, d), on which tails are measured.
        aside: other rows, which give the leading eigenvectors and the anchors of the distance.
        classes: number of classes that the left-over mass is corrected for.
    """
    spread = rows.std(axis=0)
    varying = np.flatnonzero(spread > 0.1 * spread.max())
    order = np.argsort(np.asarray(jax.random.uniform(stream(key, "coordinates"), spread.shape)))
    chosen = order[np.isin(order, varying)][: sizes.coordinates]
    family = analysis.lipschitz_family(
        stream(key, "family"),
        rows.shape[1],
        projections=sizes.projections,
        coordinates=tuple(int(place) for place in chosen),
        anchors=aside[:ANCHORS],
        directions=_leading(aside),
    )
    values = analysis.lipschitz_values(family, rows)
    keep = ~one_sized(values)  # The largest pixel may be white in every image.
    names, values = [name for name, kept in zip(_named(family.names), keep) if kept], values[:, keep]
    scale = analysis.concentration_scale(rows)
    s = float(scale.value)
    curves = analysis.tail_curves(values, s)
    delta = analysis.left_over_mass(values, s, confidence=1 - 0.05 / classes)
    estimates = analysis.tail_estimates(values, stream(key, "bootstrap"), sizes.resamples)
    parts = {"psi2": estimates.psi2, "kurtosis": estimates.kurtosis, "hill": estimates.hill, "delta": delta}
    return {
        "names": np.array(names),
        "n": np.array(len(rows)),
        "scale": np.array([scale.value, scale.low, scale.high]),
        "t": curves.t,
        "survival": curves.survival,
        **{name: np.stack([one.value, one.low, one.high]) for name, one in parts.items()},
    }


def _leading(rows: np.ndarray) -> np.ndarray:
    return analysis.principal_images(rows, LEADING).vectors


def _named(names: Sequence[str]) -> list[str]:
    """Names of the functions; the first directions are leading eigenvectors."""
    leading = {f"projection {number}": f"leading {number}" for number in range(LEADING)}
    return [leading.get(name, name) for name in names]
