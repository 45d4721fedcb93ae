"""What parts report level by level: tables, titles of panels, and the noise level at which a measure is extreme."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dgu.analysis.stats.estimates import Estimate
from experiments.study import Noted, Table


def table(title: str, columns: Mapping[str, np.ndarray]) -> Table:
    """A table with a row for each noise level, of its columns by their heads."""
    return Table(title, tuple(columns), [tuple(map(float, row)) for row in zip(*columns.values())])


def titles(sigmas: np.ndarray) -> list[str]:
    """A title for the panel of each noise level."""
    return [f"$\\sigma$ = {sigma:.3g}" for sigma in sigmas]


def listed(sigmas: np.ndarray) -> str:
    """The noise levels in a sentence."""
    return ", ".join(f"{sigma:.3g}" for sigma in sigmas)


def largest(found: Estimate, sigmas: np.ndarray, note: str, among: Any = slice(None)) -> Noted:
    """The largest of the values at some of the noise levels; ``note`` names the level in place of ``{}``."""
    return _at(found, sigmas, note, among, np.argmax)


def least(found: Estimate, sigmas: np.ndarray, note: str, among: Any = slice(None)) -> Noted:
    """The least of the values at some of the noise levels; ``note`` names the level in place of ``{}``."""
    return _at(found, sigmas, note, among, np.argmin)


def _at(found: Estimate, sigmas: np.ndarray, note: str, among: Any, choose: Any) -> Noted:
    places = np.arange(len(sigmas))[among]
    place = int(places[choose(np.asarray(found.value)[places])])
    return Noted(found[place], note.format(f"sigma = {sigmas[place]:.3g}"))
