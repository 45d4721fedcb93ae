"""Singular vectors of denoisers' Jacobians beside principal components: what two parts report of them alike."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dgu import analysis, plots
from experiments.decoding import pictures
from experiments.study import Noted

#: Leading vectors that are compared one by one, and the |cosine| from which on a vector is a component.
LEADING, ALIKE = 3, 0.95


def as_columns(left: np.ndarray) -> np.ndarray:
    """Left singular vectors, ``(levels, points, vectors, *event)``, as columns, ``(levels, points, pixels, k)``."""
    return np.swapaxes(left.reshape(*left.shape[:3], -1), 2, 3)


def leading(correlation: np.ndarray) -> np.ndarray:
    """Of correlations ``(levels, points, vectors, components)`` those of the first three vectors with the components
    of their rank, ``(levels, points, 3)``."""
    return np.einsum("ltii->lti", correlation[:, :, :LEADING, :LEADING])


def weakest(correlation: np.ndarray, note: str) -> Noted:
    """The least correlation of the leading vectors, ``(points, 3)``, mean over points; ``note`` names the vector in
    place of ``{}``."""
    found = analysis.t_interval(correlation.T, bounds=(0, 1))
    vector = int(np.argmin(np.asarray(found.value)))
    return Noted(found[vector], note.format(f"vector {vector + 1}"))


def fall(first: np.ndarray, second: np.ndarray) -> analysis.Estimate:
    """How far the correlation of the leading vectors falls from one noise level to another, ``(points, 3)`` each."""
    return analysis.t_interval(first.mean(axis=1) - second.mean(axis=1), bounds=(-1, 1))


def matrices(correlations: Sequence[np.ndarray], titles: Sequence[str], columns_are: str, **layout: Any) -> Any:
    """Correlations of singular vectors with components, ``(levels, points, vectors, components)``, mean over points."""
    means = np.concatenate([each.mean(axis=1) for each in correlations])
    return plots.correlation_matrices(means, titles, rows_are="left singular vector", columns_are=columns_are, **layout)


def as_images(left: Sequence[np.ndarray], titles: Sequence[str], vectors: int) -> Any:
    """Singular vectors at the first of the points, each stretched to its own range: its sign means nothing."""
    first = np.concatenate([each[:, 0] for each in left])
    scaled = first / np.maximum(np.abs(first).max(axis=(2, 3, 4), keepdims=True), 1e-12)
    return plots.image_grid(pictures(scaled), titles, [f"singular vectors 1 to {vectors}"])


def paired(rows: Sequence[np.ndarray], names: Sequence[str]) -> Any:
    """Singular vectors of two maps as images, ``(k, H, W, C)`` each, stretched to their own ranges.

    Signs of singular vectors mean nothing: those of the second map are turned to those of the first.
    """
    first, second = (each / np.maximum(np.abs(each).max(axis=(1, 2, 3), keepdims=True), 1e-12) for each in rows)
    turned = np.where((first * second).sum(axis=(1, 2, 3), keepdims=True) < 0, -second, second)
    return plots.image_grid(pictures(np.stack([first, turned])), names, [f"singular vectors 1 to {len(first)}"])


def vector_panel(
    title: str, sigmas: np.ndarray, curves: Mapping[str, np.ndarray], **options: Any
) -> "plots.LevelPanel":
    """Correlations ``(levels, points)`` with the component of their rank: mean and range over points."""
    bands = {name: plots.mean_and_range(each, axis=1) for name, each in curves.items()}
    return plots.LevelPanel(title, "|cosine| with the component of its rank", sigmas, bands, **options)


def value_panel(title: str, sigmas: np.ndarray, curves: Mapping[str, np.ndarray]) -> "plots.LevelPanel":
    """Singular values ``(levels, points)``: mean and range over points."""
    bands = {name: plots.mean_and_range(each, axis=1) for name, each in curves.items()}
    return plots.LevelPanel(title, "singular value of the Jacobian", sigmas, bands, log=True)
