"""Grids of images of the sweeps: samples, the way to them, neighbours, denoised images and singular vectors."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dgu import plots
from experiments.hidden_gaussian import singular_vectors
from experiments.hidden_gaussian.subject import GAUSSIAN, NETWORK, POINTS
from experiments.hidden_gaussian.sweep_maps import VECTORS_AT
from experiments.hidden_gaussian.sweep_pictures import DENOISED_AT, HIGH, of_size, of_time, of_width
from experiments.hidden_gaussian.sweep_results import Sweep
from experiments.hidden_gaussian.trainer import Measured
from experiments.study import Figure

#: Columns of a strip of samples.
_SHOWN = 12
#: The best linear map of the network on the largest set.
_LINEAR = "linear"
#: Rows of a grid: their labels and images.
Rows = list[tuple[str, np.ndarray]]

FIGURES = (
    Figure(
        "sweep_size_samples",
        "Samples from the same initial noise of networks trained on more and more images, each above its nearest "
        "training image, and of the Gaussian of the largest set (Figs 6 and 19).",
        "fig-6 fig-19",
    ),
    Figure(
        "sweep_width_samples",
        "Samples from the same initial noise of networks of different widths on a small training set, of the Gaussian "
        "of their images, and the training images nearest to the samples of the widest network (Figs 7 and 20).",
        "fig-7 fig-20",
    ),
    Figure(
        "sweep_time_samples",
        "Samples of the widest network on a small training set from the same initial noise as it learns, of the "
        "Gaussian of its images, and the training images nearest to its last samples (Figs 8 and 21).",
        "fig-8 fig-21",
    ),
    Figure(
        "sweep_neighbours",
        "Samples of networks on a small, a middle and a large training set, each above its nearest training image "
        "(Fig 12).",
        "fig-12",
    ),
    Figure(
        "sweep_family_samples",
        "Samples of kinds of networks and preconditioning from the same initial noise, and of the Gaussian of their "
        "images (Fig 23).",
        "fig-23",
    ),
    Figure(
        "sweep_model_samples",
        "Samples from the same initial noise of the network on the largest training set, of the multi-delta denoiser "
        "of its images, of its best linear map, and of the Gaussian of its images (Fig 25).",
        "fig-25",
    ),
    Figure(
        "sweep_trajectories",
        "Denoised images on the way from one initial noise to a sample, a column for each step of the sampler with its "
        "noise level: kinds of networks on the largest training set, the multi-delta denoiser of its images, the best "
        "linear map of the first network, and the Gaussian (Figs 11 and 25).",
        "fig-11 fig-25",
    ),
    Figure(
        "sweep_regimes",
        f"Noisy held-out images (sigma near {DENOISED_AT:g}) and pure noise of the same level, denoised by networks on "
        "a small, a middle and a large training set and by the Gaussians of their images (Fig 5).",
        "fig-5",
    ),
    Figure(
        "sweep_high",
        f"Held-out images with noise of high level (sigma near {HIGH:g}), denoised by the multi-delta denoiser, the "
        "Gaussian and the network by size of the training set (first rows), and, on a small training set, by networks "
        "of different widths and by the widest one as it learns, beside the Gaussian (Fig 17).",
        "fig-17",
    ),
    Figure(
        "sweep_denoised",
        f"Held-out images, noise and noisy images (sigma near {DENOISED_AT:g}; both stretched to their range), and "
        "what networks of different widths on a small training set, the widest one as it learns, and the Gaussian make "
        "of the noisy images (Fig 18).",
        "fig-18",
    ),
    Figure(
        "sweep_linear_vectors",
        f"Leading left singular vectors of the best linear map (sigma near {VECTORS_AT:g}) of the network on the "
        "largest training set, and of the Gaussian's map, which are principal components; each stretched to its own "
        "range (Fig 14).",
        "fig-14",
    ),
)


def draw(sweep: Sweep, lasts: Mapping[str, list[Measured]], ends: Mapping[str, list[Measured]]) -> dict[str, Any]:
    """The grids by name, some with a further sentence for the caption; of networks at the end of training by size of
    the training set, ``lasts``, and by width, ``ends``."""
    kinds = {kind: found[-1] for kind, found in sweep.families_found.items()}
    network = next(iter(kinds.values()))
    references, largest = sweep.references[sweep.sizes[-1]], sweep.sizes[-1]
    course = {f"{wide[0].seen:,} seen": wide for wide in zip(*sweep.widths_found[sweep.widest])}
    models = {POINTS: references[POINTS], GAUSSIAN: references[GAUSSIAN]}
    many = f"The largest set has {largest:,} images."
    return {
        "sweep_size_samples": _strip(
            sweep,
            [row for size in sweep.sizes for row in _with_nearest(sweep, size)]
            + [(f"Gaussian, {largest:,}", references[GAUSSIAN].samples)],
        ),
        "sweep_width_samples": _strip(sweep, _firsts(ends) + _own(sweep)),
        "sweep_time_samples": _strip(sweep, _firsts(course) + _own(sweep)),
        "sweep_neighbours": _strip(sweep, [row for size in sweep.pictured for row in _with_nearest(sweep, size)]),
        "sweep_family_samples": (
            _strip(
                sweep,
                [*((kind, last.samples) for kind, last in kinds.items()), (GAUSSIAN, references[GAUSSIAN].samples)],
            ),
            many,
        ),
        "sweep_model_samples": (
            _strip(
                sweep,
                [
                    (NETWORK, network.samples),
                    (POINTS, references[POINTS].samples),
                    (_LINEAR, sweep.model["samples"]),
                    (GAUSSIAN, references[GAUSSIAN].samples),
                ],
            ),
            many,
        ),
        "sweep_trajectories": (
            _paths(
                sweep,
                [(kind, last.path) for kind, last in kinds.items()]
                + [(POINTS, models[POINTS].path), (_LINEAR, sweep.model["path"]), (GAUSSIAN, models[GAUSSIAN].path)],
            ),
            _other_levels(sweep, many),
        ),
        "sweep_regimes": _regimes(sweep),
        "sweep_high": _high(sweep),
        "sweep_denoised": _denoised(sweep),
        "sweep_linear_vectors": (
            singular_vectors.paired([sweep.model["left"], sweep.model["components"]], ("linear map", GAUSSIAN)),
            many,
        ),
    }


def _strip(sweep: Sweep, rows: Rows) -> Any:
    return _grid(rows, ["the same noise in each column"], min(_SHOWN, sweep.design.config.samples))


def _grid(rows: Rows, titles: Sequence[str], count: int) -> Any:
    return plots.image_grid(np.stack([images[:count] for _, images in rows]), [name for name, _ in rows], titles)


def _firsts(found: Mapping[str, Sequence[Measured]]) -> Rows:
    """Rows of a strip: the samples of the first seed's networks."""
    return [(name, each[0].samples) for name, each in found.items()]


def _with_nearest(sweep: Sweep, size: int) -> Rows:
    """Samples of the first seed's network of a size, and the training images nearest to them."""
    last = sweep.sizes_found[size][0][-1]
    images = sweep.design.subset(sweep.design.arm(size, 0))
    return [(f"{size:,} images", last.samples), ("nearest image", images[last.nearest])]


def _own(sweep: Sweep) -> Rows:
    """Rows under a strip of networks on little data: samples of the Gaussian, and images nearest to those of the widest
    network."""
    images = sweep.design.subset(sweep.design.arm(sweep.little, 0))
    nearest = images[sweep.widths_found[sweep.widest][0][-1].nearest]
    return [(GAUSSIAN, sweep.references[sweep.little][GAUSSIAN].samples), ("nearest image", nearest)]


def _paths(sweep: Sweep, rows: Rows) -> Any:
    """At most ten steps of the paths to the first sample."""
    levels = sweep.design.sigmas(sweep.design.arm(2, 0), sweep.design.config.steps)[:-1]
    shown = np.unique(np.linspace(0, len(levels) - 1, min(len(levels), 10)).round().astype(int))
    titles = [f"{level:.2g}" for level in levels[shown]]
    return _grid([(name, path[shown]) for name, path in rows], titles, len(shown))


def _other_levels(sweep: Sweep, caption: str) -> str:
    """The caption, with the kinds of networks whose noise levels are others."""
    own = sweep.design.sigmas(sweep.design.arm(2, 0), sweep.design.config.steps)
    others = {
        kind: levels
        for kind in sweep.families_found
        if not np.allclose(levels := sweep.design.sigmas(sweep.design.arm(2, 0, family=kind), len(own) - 1), own)
    }
    return " ".join(
        [caption, *(f"The levels of {kind} end at {levels[-2]:.2g} instead." for kind, levels in others.items())]
    )


def _regimes(sweep: Sweep) -> Any:
    found, blocks = sweep.denoised, ("noisy", "pure")

    def row(name: str, of: Mapping[str, np.ndarray], keys: Sequence[str]) -> tuple[str, np.ndarray]:
        return name, np.concatenate([of[key] for key in keys])

    blank = {"clean": found.inputs["clean"], "nothing": np.ones_like(found.inputs["clean"])}
    inputs = {kind: plots.stretched(found.inputs[kind]) for kind in blocks}
    rows = [row("clean image", blank, ("clean", "nothing")), row("input (stretched)", inputs, blocks)]
    for size in sweep.pictured:
        for model in (NETWORK, GAUSSIAN):
            keys = [f"{kind}_{of_size(model, size)}" for kind in blocks]
            rows.append(row(f"{model}, {size:,} images", found.outputs, keys))
    titles = [f"noisy images, $\\sigma$ = {found.sigma:.3g}", f"pure noise, $\\sigma$ = {found.sigma:.3g}"]
    return _grid(rows, titles, 2 * len(found.inputs["clean"]))


def _on_little(sweep: Sweep, kind: str) -> Rows:
    """Inputs of a kind, denoised on little data by width, over training, and by the Gaussian."""
    found, courses = sweep.denoised.outputs, sweep.widths_found
    kept = courses[sweep.widest][0]
    rows = [(f"{width} channels", found[f"{kind}_{of_width(width)}"]) for width in courses]
    rows += [(f"{one.seen:,} seen", found[f"{kind}_{of_time(place)}"]) for place, one in enumerate(kept)]
    return [*rows, (f"{GAUSSIAN}, {sweep.little:,} images", found[f"{kind}_{of_size(GAUSSIAN, sweep.little)}"])]


def _high(sweep: Sweep) -> Any:
    found, rows = sweep.denoised, []
    for size in sweep.pictured:
        for model in (POINTS, GAUSSIAN, NETWORK):
            rows.append((f"{model}, {size:,} images", found.outputs[f"high_{of_size(model, size)}"]))
    titles = [f"denoised at $\\sigma$ = {found.high:.3g}"]
    return _grid(rows + _on_little(sweep, "high"), titles, len(found.inputs["clean"]))


def _denoised(sweep: Sweep) -> Any:
    found = sweep.denoised
    rows = [
        ("clean image", found.inputs["clean"]),
        ("noise", plots.stretched(found.inputs["noise"])),
        ("noisy image", plots.stretched(found.inputs["noisy"])),
    ]
    titles = [f"denoised at $\\sigma$ = {found.sigma:.3g}"]
    return _grid(rows + _on_little(sweep, "noisy"), titles, len(found.inputs["clean"]))
