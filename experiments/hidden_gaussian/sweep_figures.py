"""Figures of the sweeps."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dgu import analysis, plots
from dgu.plots.bands import ends
from experiments.hidden_gaussian import sweep_images
from experiments.hidden_gaussian.subject import GAUSSIAN, POINTS
from experiments.hidden_gaussian.sweep_results import Sweep
from experiments.hidden_gaussian.trainer import Measured, summaries
from experiments.study import Figure

#: The lowest noise levels, which are drawn enlarged.
_LOW = slice(-4, None)
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
        "held-out images; below, low and high noise enlarged (Figs 6, 16 and 19).",
        "fig-6 fig-16 fig-19",
    ),
    Figure(
        "sweep_size",
        "The same against the size of the training set: least linearity, distance at intermediate noise, and "
        "generalisation score (14), beside the multi-delta and Gaussian denoisers of the same images (first seed), "
        "and held-out images (Figs 6, 13 and 19).",
        "fig-6 fig-13",
    ),
    Figure(
        "sweep_width",
        "Networks of different widths on a small training set, at the end of training: distance to the Gaussian "
        "denoiser of their images, low noise enlarged, and linearity; bands: the range over seeds (Figs 7, 16 and 20).",
        "fig-7 fig-16 fig-20",
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
        "The widest network on a small training set as it learns, over noise levels (Figs 8 and 21).",
        "fig-8 fig-21",
    ),
    Figure(
        "sweep_families",
        "Kinds of networks and preconditioning on the largest training set, one training each: distance to the "
        "Gaussian denoiser and linearity over noise levels, beside the multi-delta and Gaussian denoisers of the same "
        "images and the best linear map of the first network; bands: 95 % intervals over held-out images (Fig 11).",
        "fig-11",
    ),
    Figure(
        "sweep_family_maps",
        "Linear distillation by Adam of kinds of networks on the largest training set: distance of the weights to "
        "those of the Gaussian of its images over the epochs of distillation, at each noise level (Fig 22).",
        "fig-22",
    ),
    Figure(
        "sweep_linear",
        "Distances among the network, its best linear map on held-out images and the Gaussian of its images, for "
        "networks on small and large training sets; bands: the range over seeds, if there are several (Fig 5).",
        "fig-5",
    ),
    Figure(
        "sweep_moved",
        "Difference of the denoised image to its noisy input over noise levels, for kinds of networks on the largest "
        "training set and the Gaussian of its images: its norm relative to the input's, and the cosine of the angle "
        "between both; below, low noise enlarged. Bands: 95 % intervals over held-out images (Fig 15).",
        "fig-15",
    ),
    *sweep_images.FIGURES,
)


def draw(sweep: Sweep) -> dict[str, Any]:
    """All figures by name, with a further sentence for the caption of some."""
    lasts = {f"{size:,} images": [one[-1] for one in found] for size, found in sweep.sizes_found.items()}
    ends = {f"{width} channels": [one[-1] for one in found] for width, found in sweep.widths_found.items()}
    wide = sweep.widths_found[sweep.widest]
    kept = sorted({round(place) for place in np.linspace(0, len(wide[0]) - 1, min(7, len(wide[0])))})
    course = {f"{wide[0][place].seen:,} seen": [one[place] for one in wide] for place in kept}
    little, many = f"The training set has {sweep.little:,} images.", f"The largest set has {sweep.sizes[-1]:,} images."
    linearity = [_level("cosine", "|cosine|", lasts, "cosine"), _level("NMSE", "NMSE (by the mix)", lasts, "nmse")]
    return {
        "sweep_linearity": plots.level_curves(linearity, columns=2),
        "sweep_distances": plots.level_curves(_distance_panels(lasts), columns=2),
        "sweep_size": plots.sweep_curves(_size_panels(sweep)),
        "sweep_width": (plots.level_curves(_width_panels(ends)), little),
        "sweep_time": (plots.sweep_curves(_time_panels(sweep)), little),
        "sweep_time_levels": (plots.level_curves(_own_and_linearity(course), columns=2), little),
        "sweep_families": (plots.sweep_curves(_family_panels(sweep), columns=2), many),
        "sweep_family_maps": (_family_maps(sweep), many),
        "sweep_linear": _linear_figure(sweep),
        "sweep_moved": (plots.sweep_curves(_moved_panels(sweep), columns=2), many),
        **sweep_images.draw(sweep, lasts, ends),
    }


def _level(
    title: str, quantity: str, found: Mapping[str, Sequence[Measured]], name: str, kept: slice = slice(None)
) -> "plots.LevelPanel":
    """A measure ``name`` over noise levels: of each entry the mean and the range over seeds."""
    curves = {
        who: plots.mean_and_range([getattr(one, name)[kept].mean(axis=1) for one in each])
        for who, each in found.items()
    }
    first = next(iter(found.values()))[0]
    sigmas = first.straight if name in ("cosine", "nmse") else first.sigmas
    return plots.LevelPanel(title, quantity, sigmas[kept], curves)


def _distance_panels(lasts: Mapping[str, list[Measured]]) -> "list[plots.LevelPanel]":
    """Enlarged: levels at which the rank of the Gaussian shows, and at which all networks should agree."""
    high = slice(0, 4)
    return [
        _level(_OWN, _RMSE, lasts, "own"),
        _level("Gaussian of all images", _RMSE, lasts, "whole"),
        _level("training images' Gaussian, low noise", _RMSE, lasts, "own", _LOW),
        _level("training images' Gaussian, high noise", _RMSE, lasts, "own", high),
    ]


def _own_and_linearity(found: Mapping[str, Sequence[Measured]]) -> "list[plots.LevelPanel]":
    return [_level(_OWN, _RMSE, found, "own"), _level("linearity", "|cosine|", found, "cosine")]


def _width_panels(ends: Mapping[str, list[Measured]]) -> "list[plots.LevelPanel]":
    own, linearity = _own_and_linearity(ends)
    return [own, _level(f"{_OWN}, low noise", _RMSE, ends, "own", _LOW), linearity]


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


def _of_kinds(
    title: str,
    quantity: str,
    found: Mapping[str, tuple[np.ndarray, np.ndarray]],
    kept: slice = slice(None),
    log: bool = False,
) -> "plots.SweepPanel":
    """A measure of kinds of networks over their own noise levels: ``(levels,)`` and ``(levels, images)`` by name."""
    curves = {kind: (sigmas[kept], *ends(analysis.t_interval(each[kept]))) for kind, (sigmas, each) in found.items()}
    return plots.SweepPanel(title, "noise level $\\sigma$", quantity, curves, log=log, falling=True)


def _kinds(sweep: Sweep) -> dict[str, Measured]:
    return {kind: found[-1] for kind, found in sweep.families_found.items()}


def _family_panels(sweep: Sweep) -> "list[plots.SweepPanel]":
    kinds, references = _kinds(sweep), sweep.references[sweep.sizes[-1]]
    own = {kind: (last.sigmas, last.own) for kind, last in (kinds | {POINTS: references[POINTS]}).items()}
    cosine = {kind: (last.straight, last.cosine) for kind, last in (kinds | references).items()}
    first = next(iter(kinds.values()))
    cosine |= {"linear": (first.straight, sweep.model["cosine"])}
    return [_of_kinds(_OWN, _RMSE, own, log=True), _of_kinds("linearity", "|cosine|", cosine)]


def _moved_panels(sweep: Sweep) -> "list[plots.SweepPanel]":
    shown = _kinds(sweep) | {GAUSSIAN: sweep.references[sweep.sizes[-1]][GAUSSIAN]}
    panels = []
    for name, quantity in (("moved", "NMSE (by the input)"), ("along", "cosine")):
        found = {kind: (last.sigmas, getattr(last, name)) for kind, last in shown.items()}
        panels += [
            _of_kinds("denoised image against its input", quantity, found),
            _of_kinds("low noise", quantity, found, _LOW),
        ]
    return panels


def _family_maps(sweep: Sweep) -> Any:
    panels = [
        plots.EpochPanel(kind, "NMSE of weights", found["epochs"], found["nmse"].T)
        for kind, found in sweep.adam.items()
    ]
    return plots.distillation_epochs(panels, sweep.sigmas)


def _linear_figure(sweep: Sweep) -> Any:
    names = {
        "linear_gaussian": "linear - Gaussian",
        "network_gaussian": "network - Gaussian",
        "network_linear": "network - linear",
    }
    panels = []
    for size, found in sweep.linear.items():
        curves = {
            shown: plots.mean_and_range([one[name].mean(axis=1) for one in found]) for name, shown in names.items()
        }
        panels.append(plots.LevelPanel(f"{size:,} images", _RMSE, sweep.sigmas, curves))
    return plots.level_curves(panels)
