"""Figures of the sweeps."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dgu import analysis, plots
from dgu.plots.bands import ends
from experiments.hidden_gaussian.subject import GAUSSIAN, POINTS
from experiments.hidden_gaussian.sweep_results import DENOISED_AT, Sweep
from experiments.hidden_gaussian.trainer import Measured, summaries
from experiments.study import Figure

#: Columns of a strip of samples.
_SHOWN = 12
_RMSE = "RMSE (pixel units)"
_OWN = "Gaussian of the training images"
#: A curve with its band: abscissae, values, and both ends.
Band = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]

FIGURES = (
    Figure(
        "sweep_linearity",
        "Linearity of networks trained on more and more images, at the end of training; bands: the range over seeds "
        "(Figs 1 and 13).",
        "fig-1 fig-13",
    ),
    Figure(
        "sweep_distances",
        "Distance of these networks to the Gaussian denoisers of their training images and of all images, on "
        "held-out images; below, low and high noise enlarged (Figs 6, 16, 17 and 19).",
        "fig-6 fig-16 fig-17 fig-19",
    ),
    Figure(
        "sweep_size",
        "The same against the size of the training set: least linearity, distance at intermediate noise, and "
        "generalisation score (14), beside the multi-delta and Gaussian denoisers of the same images (first seed), "
        "and held-out images (Figs 6, 13 and 19).",
        "fig-6 fig-13",
    ),
    Figure(
        "sweep_size_samples",
        "Samples from the same initial noise of networks trained on more and more images, and of the Gaussian of the "
        "largest set (Figs 6, 19 and 25).",
        "fig-6 fig-19 fig-25",
    ),
    Figure(
        "sweep_width",
        "Networks of different widths on a small training set, at the end of training; bands: the range over seeds "
        "(Figs 7 and 20).",
        "fig-7 fig-20",
    ),
    Figure(
        "sweep_width_samples",
        "Samples of these networks from the same initial noise, of the Gaussian of their images, and the training "
        "images nearest to the samples of the widest network (Figs 7 and 20).",
        "fig-7 fig-20",
    ),
    Figure(
        "sweep_time",
        "Training on a small set: distance to the Gaussian denoiser on held-out images (intermediate noise), least "
        "linearity, generalisation score and held-out loss against the number of images seen; bands: the range over "
        "seeds (Figs 8 and 21).",
        "fig-8 fig-21",
    ),
    Figure(
        "sweep_time_levels",
        "The wide network on a small training set as it learns, over noise levels (Figs 8 and 21).",
        "fig-8 fig-21",
    ),
    Figure(
        "sweep_time_samples",
        "Samples of the wide network from the same initial noise as it learns (Figs 8 and 21).",
        "fig-8 fig-21",
    ),
    Figure(
        "sweep_neighbours",
        "Samples of the network on the smallest and on the largest set, each beside its nearest training image (Fig "
        "12).",
        "fig-12",
    ),
    Figure(
        "sweep_families",
        "Kinds of networks and preconditioning on the largest training set, one training each: distance to the "
        "Gaussian denoiser and linearity over noise levels; bands: 95 % intervals over held-out images (Fig 11).",
        "fig-11",
    ),
    Figure(
        "sweep_family_samples",
        "Samples of these kinds of networks from the same initial noise, and of the Gaussian of their images (Fig 23).",
        "fig-23",
    ),
    Figure(
        "sweep_linear",
        "Distances among the network, its best linear map on held-out images and the Gaussian, for networks that "
        "memorise and that generalise; bands: the range over seeds (Fig 5).",
        "fig-5",
    ),
    Figure("sweep_moved", "Distance of the denoised image to its noisy input over noise levels (Fig 15).", "fig-15"),
    Figure(
        "sweep_denoised",
        f"Held-out images with noise of about sigma = {DENOISED_AT:g}, denoised by the networks and their Gaussians "
        "(Fig 18).",
        "fig-18",
    ),
)


def draw(sweep: Sweep) -> dict[str, Any]:
    """All figures by name, with a further sentence for the caption of some."""
    lasts = {f"{size:,} images": [one[-1] for one in found] for size, found in sweep.sizes_found.items()}
    ends = {f"{width} channels": [one[-1] for one in found] for width, found in sweep.widths_found.items()}
    kinds = {kind: found[-1] for kind, found in sweep.families_found.items()}
    wide = sweep.widths_found[sweep.wide]
    kept = sorted({round(place) for place in np.linspace(0, len(wide[0]) - 1, min(7, len(wide[0])))})
    course = {f"{wide[0][place].seen:,} seen": [one[place] for one in wide] for place in kept}
    largest = sweep.sizes[-1]
    gaussian = sweep.references[largest][GAUSSIAN].samples
    little, many = f"The training set has {sweep.little:,} images.", f"The largest set has {largest:,} images."
    linearity = [_level("cosine", "|cosine|", lasts, "cosine"), _level("NMSE", "NMSE (by the mix)", lasts, "nmse")]
    return {
        "sweep_linearity": plots.level_curves(linearity, columns=2),
        "sweep_distances": plots.level_curves(_distance_panels(lasts), columns=2),
        "sweep_size": plots.sweep_curves(_size_panels(sweep)),
        "sweep_size_samples": _strip(sweep, _firsts(lasts) + [(f"Gaussian, {largest:,}", gaussian)]),
        "sweep_width": (_own_and_linearity(ends), little),
        "sweep_width_samples": _strip(sweep, _firsts(ends) + _own(sweep)),
        "sweep_time": (plots.sweep_curves(_time_panels(sweep)), little),
        "sweep_time_levels": (_own_and_linearity(course), little),
        "sweep_time_samples": _strip(sweep, _firsts(course) + _own(sweep)),
        "sweep_neighbours": _neighbours(sweep),
        "sweep_families": (plots.sweep_curves(_family_panels(kinds), columns=2), many),
        "sweep_family_samples": _strip(
            sweep, [*((kind, last.samples) for kind, last in kinds.items()), (GAUSSIAN, gaussian)]
        ),
        "sweep_linear": _linear_figure(sweep),
        "sweep_moved": _moved(sweep),
        "sweep_denoised": _denoised(sweep),
    }


def _level(
    title: str, quantity: str, found: Mapping[str, Sequence[Measured]], name: str, kept: slice = slice(None)
) -> "plots.LevelPanel":
    """A measure ``name`` over noise levels: of each entry the mean and the range over seeds."""
    curves = {
        who: plots.mean_and_range([getattr(one, name)[kept].mean(axis=1) for one in each])
        for who, each in found.items()
    }
    sigmas = next(iter(found.values()))[0].sigmas
    return plots.LevelPanel(title, quantity, sigmas[kept], curves)


def _distance_panels(lasts: Mapping[str, list[Measured]]) -> "list[plots.LevelPanel]":
    """Enlarged: levels at which the rank of the Gaussian shows, and at which all networks should agree."""
    low, high = slice(-4, None), slice(0, 4)
    return [
        _level(_OWN, _RMSE, lasts, "own"),
        _level("Gaussian of all images", _RMSE, lasts, "whole"),
        _level("training images' Gaussian, low noise", _RMSE, lasts, "own", low),
        _level("training images' Gaussian, high noise", _RMSE, lasts, "own", high),
    ]


def _own_and_linearity(found: Mapping[str, list[Measured]]) -> Any:
    return plots.level_curves(
        [_level(_OWN, _RMSE, found, "own"), _level("linearity", "|cosine|", found, "cosine")], columns=2
    )


def _size_panels(sweep: Sweep) -> "list[plots.SweepPanel]":
    x = np.array(sweep.sizes, np.float64)
    fresh = np.stack([sweep.fresh[size] for size in sweep.sizes], axis=1)
    held_out = {"held-out images": (x, *plots.mean_and_range(fresh))}

    def panel(
        title: str, quantity: str, name: str, references: Sequence[str], more: Mapping[str, Band]
    ) -> "plots.SweepPanel":
        curves = {"network": (x, *plots.mean_and_range(sweep.over_sizes(name)))}
        for which in references:
            one = np.array([sweep.references[size][which].summary[name] for size in sweep.sizes])
            curves[which] = (x, one, one, one)
        return plots.SweepPanel(title, "training images", quantity, {**curves, **more})

    return [
        panel("least linearity", "least |cosine|", "least_cosine", (POINTS, GAUSSIAN), {}),
        panel(_OWN, _RMSE, "own", (POINTS,), {}),
        panel("generalisation", "GL score (14)", "score", (POINTS, GAUSSIAN), held_out),
    ]


def _time_panels(sweep: Sweep) -> "list[plots.SweepPanel]":
    def panel(title: str, quantity: str, name: str, **options: Any) -> "plots.SweepPanel":
        curves = {}
        for width, courses in sweep.widths_found.items():
            seen = np.array([one.seen for one in courses[0]], np.float64)
            curves[f"{width} channels"] = (seen, *plots.mean_and_range(summaries(courses, name)))
        return plots.SweepPanel(title, "images seen in training", quantity, curves, **options)

    return [
        panel("Gaussian, peak over $\\sigma$", _RMSE, "peak"),
        panel("Gaussian, mean over $\\sigma$", _RMSE, "own"),
        panel("linearity", "least |cosine|", "least_cosine"),
        panel("generalisation", "GL score (14)", "score", marks={"held-out images": sweep.fresh_mean(sweep.little)}),
        panel("held-out images", "denoising loss (mean square)", "loss"),
    ]


def _family_panels(kinds: Mapping[str, Measured]) -> "list[plots.SweepPanel]":
    def panel(title: str, quantity: str, name: str, log: bool) -> "plots.SweepPanel":
        curves = {}
        for kind, last in kinds.items():
            curves[kind] = (last.sigmas, *ends(analysis.t_interval(getattr(last, name))))
        return plots.SweepPanel(title, "noise level $\\sigma$", quantity, curves, log=log, falling=True)

    return [panel(_OWN, _RMSE, "own", True), panel("linearity", "|cosine|", "cosine", False)]


def _linear_figure(sweep: Sweep) -> Any:
    names = {
        "linear_gaussian": "linear - Gaussian",
        "network_gaussian": "network - Gaussian",
        "network_linear": "network - linear",
    }
    panels = []
    for kind, found in sweep.linear.items():
        curves = {
            shown: plots.mean_and_range([one[name].mean(axis=1) for one in found]) for name, shown in names.items()
        }
        panels.append(plots.LevelPanel(kind, _RMSE, sweep.sigmas, curves))
    return plots.level_curves(panels, columns=2)


def _moved(sweep: Sweep) -> Any:
    few, many = sweep.sizes[0], sweep.sizes[-1]
    movers = {f"network, {size:,}": [one[-1] for one in sweep.sizes_found[size]] for size in (few, many)}
    movers |= {f"Gaussian, {size:,}": [sweep.references[size][GAUSSIAN]] for size in (few, many)}
    movers |= {f"multi-delta, {few:,}": [sweep.references[few][POINTS]]}
    panel = replace(_level("denoised against its input", _RMSE, movers, "moved"), log=True)
    return plots.level_curves([panel])


def _strip(sweep: Sweep, rows: list[tuple[str, np.ndarray]]) -> Any:
    count = min(_SHOWN, sweep.design.config.samples)
    return plots.image_grid(
        np.stack([images[:count] for _, images in rows]), [name for name, _ in rows], ["the same noise in each column"]
    )


def _firsts(found: Mapping[str, list[Measured]]) -> list[tuple[str, np.ndarray]]:
    """Rows of a strip: the samples of the first seed's networks."""
    return [(name, each[0].samples) for name, each in found.items()]


def _own(sweep: Sweep) -> list[tuple[str, np.ndarray]]:
    """Rows under a strip of networks on little data: the Gaussian's samples, and the wide network's nearest images."""
    images = sweep.design.subset(sweep.design.arm(sweep.little, 0))
    nearest = images[sweep.widths_found[sweep.wide][0][-1].nearest]
    return [(GAUSSIAN, sweep.references[sweep.little][GAUSSIAN].samples), ("nearest image", nearest)]


def _neighbours(sweep: Sweep) -> Any:
    rows = []
    for size in (sweep.sizes[0], sweep.sizes[-1]):
        last = sweep.sizes_found[size][0][-1]
        images = sweep.design.subset(sweep.design.arm(size, 0))
        rows += [(f"{size:,} images", last.samples), ("nearest", images[last.nearest])]
    return _strip(sweep, rows)


def _denoised(sweep: Sweep) -> Any:
    found = sweep.denoised
    rows = {"held out": found.images["held_out"]}
    for name, size in (("few", sweep.sizes[0]), ("many", sweep.sizes[-1])):
        rows |= {f"network, {size:,}": found.images[f"network_{name}"]}
        rows |= {f"Gaussian, {size:,}": found.images[f"gaussian_{name}"]}
    titles = [f"denoised at $\\sigma$ = {found.sigma:.3g}"]
    return plots.image_grid(np.stack(list(rows.values())), list(rows), titles)
