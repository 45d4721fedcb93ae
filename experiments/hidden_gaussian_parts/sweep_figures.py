"""Figures of the sweeps."""

from dataclasses import replace
from typing import Any

import numpy as np

from dgu import analysis, plots
from dgu.core.denoisers import map_batch
from dgu.distributions.bases import initial_noise
from experiments.hidden_gaussian_parts.sweep_results import Sweep
from experiments.hidden_gaussian_parts.trainer import Measured

FIGURE_FILES = (
    "figures/sweep_linearity.png",
    "figures/sweep_distances.png",
    "figures/sweep_size.png",
    "figures/sweep_size_samples.png",
    "figures/sweep_width.png",
    "figures/sweep_width_samples.png",
    "figures/sweep_time.png",
    "figures/sweep_time_levels.png",
    "figures/sweep_time_samples.png",
    "figures/sweep_neighbours.png",
    "figures/sweep_families.png",
    "figures/sweep_family_samples.png",
    "figures/sweep_linear.png",
    "figures/sweep_moved.png",
    "figures/sweep_denoised.png",
)
#: Columns of a strip of samples.
_SHOWN = 12
#: The noise level whose denoised images are shown, as in the paper.
_DENOISED_AT = 4.0


def draw(sweep: Sweep) -> list[tuple[str, str]]:
    """Draw and save all figures: their files with their captions."""
    save, trainer = sweep.trainer.directory.save_figure, sweep.trainer
    sigmas = trainer.sigmas(trainer.arm(2, 0))[:-1]
    lasts = {f"{size:,} images": [one[-1] for one in found] for size, found in sweep.sizes_found.items()}
    captions: list[str] = []

    def level(
        title: str, quantity: str, found: dict[str, list[Measured]], name: str, kept: Any = slice(None)
    ) -> plots.LevelPanel:
        curves = {who: _band([getattr(one, name)[kept].mean(axis=1) for one in each]) for who, each in found.items()}
        return plots.LevelPanel(title, quantity, sigmas[kept], curves)

    def made(figure: Any, caption: str) -> None:
        save(FIGURE_FILES[len(captions)], figure)
        captions.append(caption)

    rmse = "RMSE (pixel units)"
    made(
        plots.level_curves(
            [level("cosine", "|cosine|", lasts, "cosine"), level("NMSE", "NMSE (by the mix)", lasts, "nmse")], columns=2
        ),
        "Linearity of networks trained on more and more images, at the end of training; bands: the range over seeds (Figs 1 and 13).",
    )
    # Enlarged: the levels where the rank of the Gaussian shows, and where networks of every size should agree.
    low, high = slice(-4, None), slice(0, 4)
    made(
        plots.level_curves(
            [
                level("Gaussian of the training images", rmse, lasts, "own"),
                level("Gaussian of all images", rmse, lasts, "whole"),
                level("training images' Gaussian, low noise", rmse, lasts, "own", low),
                level("training images' Gaussian, high noise", rmse, lasts, "own", high),
            ],
            columns=2,
        ),
        "Distance of these networks to the Gaussian denoisers of their training images and of all images, on held-out images; below, low and high noise enlarged (Figs 6, 16, 17 and 19).",
    )
    made(
        plots.sweep_curves(_size_panels(sweep)),
        "The same against the data-set size: least linearity, distance at intermediate noise, and generalisation score (14), beside the multi-delta and Gaussian denoisers of the same images (first seed), and held-out images (Figs 6, 13 and 19).",
    )
    made(
        _strip(
            sweep,
            [(f"{size:,} images", found[0][-1].samples) for size, found in sweep.sizes_found.items()]
            + [(f"Gaussian, {sweep.sizes[-1]:,}", sweep.references[sweep.sizes[-1]]["Gaussian"].samples)],
        ),
        "Samples from the same noise of networks trained on more and more images, and of the Gaussian of the largest set (Figs 6, 19 and 25).",
    )
    ends = {f"{width} channels": [one[-1] for one in found] for width, found in sweep.widths_found.items()}
    made(
        plots.level_curves(
            [
                level("Gaussian of the training images", rmse, ends, "own"),
                level("linearity", "|cosine|", ends, "cosine"),
            ],
            columns=2,
        ),
        f"Networks of different widths on {sweep.little} images at the end of training; bands: the range over seeds (Figs 7 and 20).",
    )
    made(
        _strip(
            sweep,
            [(f"{width} channels", found[0][-1].samples) for width, found in sweep.widths_found.items()] + _own(sweep),
        ),
        "Samples of these networks from the same noise, of the Gaussian of their images, and the images nearest to the widest network's (Figs 7 and 20).",
    )
    made(
        plots.sweep_curves(_time_panels(sweep)),
        f"Training on {sweep.little} images: distance to the Gaussian denoiser on held-out images (intermediate noise), least linearity, generalisation score and held-out loss against the images seen; bands: the range over seeds (Figs 8 and 21).",
    )
    wide = sweep.widths_found[sweep.wide]
    kept = sorted({round(place) for place in np.linspace(0, len(wide[0]) - 1, min(7, len(wide[0])))})
    course = {f"{wide[0][place].seen:,} seen": [one[place] for one in wide] for place in kept}
    made(
        plots.level_curves(
            [
                level("Gaussian of the training images", rmse, course, "own"),
                level("linearity", "|cosine|", course, "cosine"),
            ],
            columns=2,
        ),
        f"The wide network on {sweep.little} images as it learns, over noise levels (Figs 8 and 21).",
    )
    made(
        _strip(sweep, [(f"{wide[0][place].seen:,} seen", wide[0][place].samples) for place in kept] + _own(sweep)),
        "Its samples from the same noise as it learns (Figs 8 and 21).",
    )
    made(
        _neighbours(sweep),
        "Samples of the network on the smallest and on the largest set, each beside its nearest training image (Fig 12).",
    )
    kinds = sweep.families_found
    made(
        plots.sweep_curves(_family_panels(kinds), columns=2),
        f"Kinds of networks and preconditioning on {sweep.sizes[-1]:,} images, one training each: distance to the Gaussian denoiser and linearity over noise levels; bands: 95 % intervals over held-out images (Fig 11).",
    )
    made(
        _strip(
            sweep,
            [(kind, found[-1].samples) for kind, found in kinds.items()]
            + [("Gaussian", sweep.references[sweep.sizes[-1]]["Gaussian"].samples)],
        ),
        "Their samples from the same noise, and those of their images' Gaussian (Fig 23).",
    )
    made(
        _linear_figure(sigmas, sweep.linear),
        "The best linear map on held-out images, the Gaussian and the network, where it memorises and where it generalises; bands: the range over seeds (Fig 5).",
    )
    few, many = sweep.sizes[0], sweep.sizes[-1]
    movers = {
        f"network, {few:,}": [one[-1] for one in sweep.sizes_found[few]],
        f"network, {many:,}": [one[-1] for one in sweep.sizes_found[many]],
        f"Gaussian, {few:,}": [sweep.references[few]["Gaussian"]],
        f"Gaussian, {many:,}": [sweep.references[many]["Gaussian"]],
        f"multi-delta, {few:,}": [sweep.references[few]["multi-delta"]],
    }
    made(
        plots.level_curves([replace(level("denoised against its input", rmse, movers, "moved"), log=True)]),
        "Distance of the denoised image to its noisy input over noise levels (Fig 15).",
    )
    made(
        _denoised(sweep),
        f"Held-out images, with noise of about {_DENOISED_AT:g}, and denoised by the networks and their Gaussians (Fig 18).",
    )
    return list(zip(FIGURE_FILES, captions))  # fmt: skip


def _band(values: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and range over the first axis, seeds."""
    array = np.asarray(values, np.float64)
    return array.mean(axis=0), array.min(axis=0), array.max(axis=0)


def _size_panels(sweep: Sweep) -> list[plots.SweepPanel]:
    x = np.array(sweep.sizes, np.float64)

    def curves(quantity: Any, *references: str) -> dict[str, Any]:
        found = {"network": (x, *_band(sweep.by_seed(lambda one, size: quantity(one))))}
        for name in references:
            one = np.array([quantity(sweep.references[size][name]) for size in sweep.sizes])
            found[name] = (x, one, one, one)
        return found

    label = "training images"
    fresh = np.stack([sweep.fresh[size] for size in sweep.sizes], axis=1)
    return [
        plots.SweepPanel("least linearity", label, "least |cosine|", curves(lambda one: one.least_cosine, "multi-delta", "Gaussian")),
        plots.SweepPanel("Gaussian of the training images", label, "RMSE (pixel units)", curves(lambda one: one.middle(), "multi-delta")),
        plots.SweepPanel("generalisation", label, "GL score (14)",
                         curves(lambda one: one.score.value, "multi-delta", "Gaussian") | {"held-out images": (x, *_band(fresh))}),
    ]  # fmt: skip


def _time_panels(sweep: Sweep) -> list[plots.SweepPanel]:
    def curves(quantity: Any) -> dict[str, Any]:
        return {
            f"{width} channels": (np.array([one.seen for one in found[0]], np.float64), *_band([[quantity(one) for one in each] for each in found]))
            for width, found in sweep.widths_found.items()
        }  # fmt: skip

    label = "images seen in training"
    fresh = {"held-out images": float(np.mean(sweep.fresh[sweep.little]))}
    return [
        plots.SweepPanel("Gaussian, peak over $\\sigma$", label, "RMSE (pixel units)", curves(lambda one: one.peak)),
        plots.SweepPanel("Gaussian, mean over $\\sigma$", label, "RMSE (pixel units)", curves(lambda one: one.middle())),
        plots.SweepPanel("linearity", label, "least |cosine|", curves(lambda one: one.least_cosine)),
        plots.SweepPanel("generalisation", label, "GL score (14)", curves(lambda one: one.score.value), marks=fresh),
        plots.SweepPanel("held-out images", label, "denoising loss (mean square)", curves(lambda one: float(one.loss.mean()))),
    ]  # fmt: skip


def _family_panels(kinds: dict[str, list[Measured]]) -> list[plots.SweepPanel]:
    def curves(name: str) -> dict[str, Any]:
        found = {}
        for kind, measured in kinds.items():
            interval = analysis.t_interval(getattr(measured[-1], name))
            found[kind] = (measured[-1].sigmas, interval.estimate, interval.low, interval.high)
        return found

    label = "noise level $\\sigma$"
    return [
        plots.SweepPanel(
            "Gaussian of the training images", label, "RMSE (pixel units)", curves("own"), log=True, falling=True
        ),
        plots.SweepPanel("linearity", label, "|cosine|", curves("cosine"), falling=True),
    ]


def _linear_figure(sigmas: np.ndarray, linear: dict[str, list[dict[str, np.ndarray]]]) -> Any:
    names = {
        "linear_gaussian": "linear - Gaussian",
        "network_gaussian": "network - Gaussian",
        "network_linear": "network - linear",
    }
    panels = [
        plots.LevelPanel(kind, "RMSE (pixel units)", sigmas,
                         {shown: _band([one[name].mean(axis=1) for one in each]) for name, shown in names.items()})
        for kind, each in linear.items()
    ]  # fmt: skip
    return plots.level_curves(panels, columns=2)


def _strip(sweep: Sweep, rows: list[tuple[str, np.ndarray]]) -> Any:
    count = min(_SHOWN, sweep.trainer.config.samples)
    return plots.image_grid(
        np.stack([images[:count] for _, images in rows]), [name for name, _ in rows], ["the same noise in each column"]
    )


def _own(sweep: Sweep) -> list[tuple[str, np.ndarray]]:
    """Rows under a strip of the sweeps on little data: the Gaussian's samples, and the wide network's nearest images."""
    arm = sweep.trainer.arm(sweep.little, 0)
    nearest = sweep.trainer.subset(arm)[sweep.widths_found[sweep.wide][0][-1].nearest]
    return [("Gaussian", sweep.references[sweep.little]["Gaussian"].samples), ("nearest image", nearest)]


def _neighbours(sweep: Sweep) -> Any:
    rows = []
    for size in (sweep.sizes[0], sweep.sizes[-1]):
        last = sweep.sizes_found[size][0][-1]
        rows += [
            (f"{size:,} images", last.samples),
            ("nearest", sweep.trainer.subset(sweep.trainer.arm(size, 0))[last.nearest]),
        ]
    return _strip(sweep, rows)


def _denoised(sweep: Sweep) -> Any:
    """Held-out images at one noise level, denoised."""
    trainer, few, many = sweep.trainer, sweep.trainer.arm(sweep.sizes[0], 0), sweep.trainer.arm(sweep.sizes[-1], 0)
    grid = trainer.sigmas(few)[:-1]
    sigma = float(grid[np.argmin(np.abs(grid - _DENOISED_AT))])
    count = min(_SHOWN, trainer.config.held_out)
    clean = trainer.images.held[:count]
    noise = np.stack(
        [np.asarray(initial_noise(trainer.key("denoised"), index, clean.shape[1:])) for index in range(count)]
    )
    noisy = (clean + sigma * noise).astype(np.float32)

    def compute() -> dict[str, np.ndarray]:
        models = {
            "network_few": trainer.load(few),
            "gaussian_few": trainer.gaussian(few),
            "network_many": trainer.load(many),
            "gaussian_many": trainer.gaussian(many),
        }
        return {
            name: np.asarray(map_batch(model, noisy, np.full(count, sigma, np.float32)))
            for name, model in models.items()
        }

    found = trainer.directory.stage("sweeps/denoised", compute)
    return plots.image_grid(
        np.stack([clean, found["network_few"], found["gaussian_few"], found["network_many"], found["gaussian_many"]]),
        ["held out", f"network, {few.size:,}", f"Gaussian, {few.size:,}", f"network, {many.size:,}", f"Gaussian, {many.size:,}"],
        [f"denoised at $\\sigma$ = {sigma:.3g}"],
    )  # fmt: skip
