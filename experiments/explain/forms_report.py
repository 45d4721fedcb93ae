"""Figures, table and answer of the part ``forms``."""

from typing import TYPE_CHECKING, Any

import numpy as np

from dgu import analysis, plots
from experiments.explain import scores
from experiments.explain.family import (
    FAMILIES,
    GAUSSIAN,
    LOCAL_GAUSSIAN,
    LOCAL_MIXTURE,
    LOCAL_POINTS,
    MIXTURE,
    PATCHES,
    POINTS,
    SHIFTED_GAUSSIAN,
    SHIFTED_POINTS,
    WIENER,
    Form,
)
from experiments.explain.forms import (
    CLAIMS,
    FIGURES,
    NETWORK,
    PRESETS,
    RANDOM,
    SECOND,
    SKIP,
    STATIONARY,
    Config,
    Found,
    check,
    claims_of,
    costs,
    measure,
)
from experiments.explain.subject import Subject
from experiments.study import Findings, Part, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

    from dgu.analysis.stats.estimates import Estimate

#: Curves of each column of the figure over levels: names in the legend by family.
_COLUMNS = {
    "whole image": {"Gaussian": GAUSSIAN, "mixture": MIXTURE, "training points": POINTS},
    "a window at its own place": {
        "Gaussian": LOCAL_GAUSSIAN, "mixture": LOCAL_MIXTURE, "training points": LOCAL_POINTS,
    },
    "a window at all places; others": {
        "Gaussian": SHIFTED_GAUSSIAN, "training points": SHIFTED_POINTS, "Wiener windows": WIENER, "patches": PATCHES,
    },
}  # fmt: skip
#: What stands beside the nearest form in the table.
_BESIDE = (GAUSSIAN, STATIONARY, SECOND, RANDOM)
#: What is missed below this is drawn as this; r^2 of white pixels: three nines.
_FLOOR, _NINES = 1e-3, 3


def report(config: Config, subject: Subject, found: Found) -> Findings:
    """Each form's share missed and r^2 over levels, the best at each, and where in the image."""
    best, judged = found.nearest(), scores.by_level(found.judged())
    beside = {name: scores.by_level(found.missed(name)) for name in _BESIDE}
    if found.elsewhere is not None:
        beside["nearest form on shuffled pixels"] = scores.by_level(found.elsewhere)
    rows = [
        (f"{sigma:.3g}", form.name, _text(judged[level]), _text(_median(found, form.name, level)))
        + tuple(_text(one[level]) for one in beside.values())
        for level, (sigma, form) in enumerate(zip(found.sigmas, best))
    ]
    header = ("sigma", "nearest closed form", "missed", "r^2 (median)", *(f"missed by {name}" for name in beside))
    every = [
        (f"{sigma:.3g}", form.name, *_ends(missed), *_ends(_median(found, form.name, level)))
        for form in found.forms
        for level, (sigma, missed) in enumerate(zip(found.sigmas, scores.by_level(found.missed(form.name))))
    ]
    tables = [
        Table("The nearest closed form at each noise level", header, rows),
        Table("Every closed form", ("sigma", "form", "missed", "low", "high", "r^2", "low", "high"), every),
    ]
    return Findings(
        _answer(subject, found, best),
        claims=claims_of(config, found),
        figures={
            "explain_levels": (_over_levels(found), f"{config.held_out} held-out images."),
            "explain_windows": _over_windows(found),
            "explain_pixels": _pixels(found),
        },
        tables=tables,
        metrics={
            "sigmas": found.sigmas,
            "nearest": [form.name for form in best],
            "missed": {name: found.missed(name).mean(axis=1) for name in found.outputs if name != NETWORK},
        },
    )


def _answer(subject: Subject, found: Found, best: list[Form]) -> str:
    inside = scores.bands(found.sigmas)
    parts = []
    for band, own in inside.items():
        names = [best[level].name for level in np.flatnonzero(own)]
        common = max(dict.fromkeys(names), key=names.count)
        missed = scores.over_band(found.judged(), own)
        parts.append(f"{_text(missed)} at {band} noise (most often nearest: {common})")
    return (
        f"Of what {subject.config.checkpoint} adds to its skip on held-out images ({subject.about}; closed forms of "
        f"{subject.count:,} training images {'of each class' if subject.conditional else 'in all'}), the nearest "
        f"closed forms miss {', '.join(parts)}."
    )


def _median(found: Found, name: str, level: int) -> "Estimate":
    """The median r^2 of a form at a level."""
    own = scores.r_squared(found.outputs[name][level], found.outputs[NETWORK][level])
    return analysis.median_interval(own, bounds=(-np.inf, 1.0))


def _text(estimate: "Estimate") -> str:
    return estimate.text(".3g")


def _ends(estimate: "Estimate") -> tuple[float, float, float]:
    return float(estimate.value), float(estimate.low), float(estimate.high)


def _over_levels(found: Found) -> "Drawing":
    missed, unexplained, nothing = [], [], np.ones(len(found.sigmas))
    for title, families in _COLUMNS.items():
        curves: dict[str, Any] = {name: _drawn(found.judged(own)) for name, own in families.items()}
        curves |= {SECOND: _drawn(found.missed(SECOND)), SKIP: (nothing, nothing, nothing)}
        missed.append(plots.LevelPanel(title, "share missed (NMSE)", found.sigmas, curves, log=True))
        outputs = {name: found.at_best(own) for name, own in families.items()}
        outputs |= {name: found.outputs[name] for name in (SECOND, SKIP)}
        r2 = {name: scores.r_squared(own, found.outputs[NETWORK]) for name, own in outputs.items()}
        medians = {name: _median_missed(own) for name, own in r2.items()}
        unexplained.append(plots.LevelPanel(title, "1 - r² of images (median)", found.sigmas, medians, log=True))
    return plots.level_curves([*missed, *unexplained], columns=3)


def _drawn(values: np.ndarray) -> "Estimate":
    """The mean over images, on a logarithmic axis."""
    return scores.by_level(values).map(lambda part: np.maximum(part, _FLOOR))


def _median_missed(r2: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The median of ``1 - r^2`` at each level, from the floor to 1."""
    rows = [_ends(analysis.median_interval(np.clip(1 - own, _FLOOR, 1.0), bounds=(_FLOOR, 1.0))) for own in r2]
    value, low, high = np.array(rows).T
    return value, low, high


def _over_windows(found: Found) -> "Drawing":
    panels = []
    for title, own, whole in (
        ("training points", LOCAL_POINTS, POINTS),
        ("Gaussian", LOCAL_GAUSSIAN, GAUSSIAN),
        ("equivariant training points", SHIFTED_POINTS, None),
    ):
        curves = {f"window {form.window}": _drawn(found.missed(form.name)) for form in found.members(own)}
        if whole is not None:
            curves["whole image"] = _drawn(found.missed(whole))
        panels.append(plots.LevelPanel(title, "share missed (NMSE)", found.sigmas, curves, log=True))
    return plots.level_curves(panels, columns=3)


def _pixels(found: Found) -> "Drawing":
    rows = {name: found.at_best(name) for name in FAMILIES} | {SECOND: found.outputs[SECOND]}
    maps = np.stack([scores.pixel_map(outputs, found.outputs[NETWORK]) for outputs in rows.values()])
    nines = -np.log10(np.clip(1 - maps, 10.0**-_NINES, 1.0))
    labels = [f"{sigma:.2g}" for sigma in found.sigmas]
    return plots.image_grid(nines[..., None], list(rows), labels, pixel_range=(0.0, float(_NINES)))


PART = Part(
    "forms", "Closed forms beside the network",
    "Which closed form is the network, at which noise level, through which window, and at which pixels?",
    "own", CLAIMS, FIGURES, measure, report, PRESETS, costs, check,
)  # fmt: skip
