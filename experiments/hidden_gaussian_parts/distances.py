"""Distances of the network to the Gaussian, linear and multi-delta denoisers, and their samples (Figs 2, 3 and 27)."""

from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from dgu import analysis, plots
from dgu.core.denoisers import as_pytree, map_batch
from dgu.core.keys import seeded, stream
from experiments.hidden_gaussian_parts import distillation
from experiments.hidden_gaussian_parts.subject import PAPER, Plan, Subject, bounded, triple
from experiments.study.costs import Cost
from experiments.study.judged import JudgedClaim
from experiments.study.options import check_options
from experiments.study.report import FigureEntry, Section, Table
from experiments.study.run_directory import RunDirectory

CLAIM_IDS = ("distances-gaussian-closer", "distances-regimes", "distances-linear-gaussian")
FIGURE_FILES = ("figures/distances.png", "figures/trajectories.png", "figures/samples.png")
NAMES = ("network", "Gaussian", "linear", "multi-delta")
#: Noise levels between these are intermediate; those beyond them are high and low.
MIDDLE = (0.1, 20.0)
#: Beside these, the maps found by Adam.
ADAM = "linear (Adam)"


@dataclass(frozen=True)
class Config:
    """Distances between denoisers."""

    images: int = 400
    """Images whose noisy versions are denoised, the last: not those of the distillation, where there are enough."""
    samples: int = 10
    """Samples of each denoiser from the same noise, for the figure."""
    batch_size: int = 64
    """Images at a time."""

    def __post_init__(self) -> None:
        check_options(self, "distances", images=2, samples=1, batch_size=1)


def run(config: Config, subject: Subject, directory: RunDirectory, seed: int) -> Section:
    """All denoisers on the same noisy images; the linear ones have the maps of the part ``distillation``."""
    maps = distillation.distilled(subject.config.distillation, subject, directory, seed)
    linear, adam = (distillation.linear_denoiser(maps[name], subject) for name in ("exact", "adam"))
    images = subject.some("distances.images", config.images, last=True)
    used = len(subject.some("distillation.images", subject.config.distillation.images))
    seen = max(0, used + len(images) - len(subject.images))
    key = stream(seeded(seed), "distances")
    sampled = dict(zip(NAMES, (subject.denoiser, subject.gaussian, linear, subject.points)))
    models = sampled | {ADAM: adam}

    def compute() -> dict[str, np.ndarray]:
        found = analysis.score_distances(
            models, images, subject.sigmas, key, inputs=subject.inputs, batch_size=config.batch_size
        )
        return {"differences": found.differences, "norms": found.norms}

    stored = directory.stage("distances", compute)
    size = int(np.prod(subject.shape))
    found = analysis.ScoreDistances(tuple(models), subject.sigmas, subject.inputs, size, **stored)
    shown = directory.stage("samples", lambda: _samples(config, subject, sampled, seed))
    pairs = [("network", "Gaussian"), ("network", "linear"), ("network", ADAM), ("network", "multi-delta"), ("Gaussian", "linear")]  # fmt: skip
    rmse = {f"{a} - {b}": found.rmse(a, b) for a, b in pairs}
    nmse = {f"{a} - {b}": found.nmse(a, b) for a, b in pairs}
    panels = [
        plots.LevelPanel("RMSE (10)", "RMSE (pixel units)", subject.sigmas,
                         {name: triple(one) for name, one in rmse.items()}, log=True, marks={"0.05": 0.05}),
        plots.LevelPanel("NMSE (53)", "NMSE (by the first one)", subject.sigmas,
                         {name: triple(one) for name, one in nmse.items()}, log=True),
    ]  # fmt: skip
    directory.save_figure(FIGURE_FILES[0], plots.level_curves(panels, columns=2))
    levels = [f"{sigma:.2g}" for sigma in subject.sigmas]
    paths = np.stack([shown[f"{name}-path"] for name in (*NAMES, "exact")])
    directory.save_figure(FIGURE_FILES[1], plots.image_grid(paths, [*NAMES, "exact flow"], levels))
    grid = plots.image_grid(np.stack([shown[name] for name in NAMES]), NAMES, ["from the same noise"])
    directory.save_figure(FIGURE_FILES[2], grid)
    claims = _claims(subject, found, rmse)
    sigmas = subject.sigmas
    rows = [
        (float(sigma), *(float(one.estimate[k]) for one in (*rmse.values(), *nmse.values())))  # type: ignore[index]
        for k, sigma in enumerate(sigmas)
    ]
    peak = {name: float(np.max(one.estimate)) for name, one in rmse.items()}
    answer = (
        f"On {len(images)} {subject.inputs} images the network's distance to the Gaussian denoiser is at most "
        f"{peak['network - Gaussian']:.3f} (RMSE), to the multi-delta denoiser {peak['network - multi-delta']:.3f}."
    )
    return Section(
        "Distances between denoisers",
        answer,
        claims,
        [
            FigureEntry(FIGURE_FILES[0], f"Distances between denoisers on noisy {subject.inputs} images, in two norms; bands: 95 % intervals over images (Figs 2 and 27). {seen} of the {len(images)} images are among the {used} that the maps were distilled on."),
            FigureEntry(FIGURE_FILES[1], "Denoised images along the sampling paths of these denoisers from one noise, a column a noise level; last row: the Gaussian's by its closed form (Figs 2 and 3)."),
            FigureEntry(FIGURE_FILES[2], "Samples of the network, of the Gaussian, linear and multi-delta denoisers from the same noise (Fig 3)."),
        ],
        [Table(f"Distances ({subject.inputs} images)", ("sigma", *(f"RMSE {n}" for n in rmse), *(f"NMSE {n}" for n in nmse)), rows)],
        {"rmse": {name: one.estimate for name, one in rmse.items()}, "nmse": {name: one.estimate for name, one in nmse.items()}},
    )  # fmt: skip


def _claims(subject: Subject, found: analysis.ScoreDistances, rmse: dict) -> list[JudgedClaim]:
    sigmas, size = subject.sigmas, np.sqrt(found.dimension)
    low, high = MIDDLE
    middle, outer = (sigmas >= low) & (sigmas <= high), np.flatnonzero((sigmas >= high) | (sigmas <= low))
    levels = ", ".join(f"{sigma:.3g}" for sigma in sigmas)
    absent = {"middle": "" if middle.any() else f"of the noise levels {levels} none is intermediate",
              "outer": "" if len(outer) else f"of the noise levels {levels} none is high or low"}  # fmt: skip
    middle = middle if middle.any() else np.ones(len(sigmas), bool)
    gaussian, points = (found.differences[:, 0, found.names.index(name)] / size for name in ("Gaussian", "multi-delta"))
    closer = analysis.t_interval((points - gaussian)[middle].mean(axis=0))
    outer = outer if len(outer) else np.arange(len(sigmas))
    worst = int(outer[np.argmax(rmse["network - linear"].estimate[outer])])
    apart = int(np.argmax(rmse["Gaussian - linear"].estimate))
    where = f"largest at sigma = {sigmas[apart]:.3g}"
    return [
        JudgedClaim.at_least(id="distances-gaussian-closer", paper=PAPER, figure="Fig 2", unit="(RMSE, pixel units)",
                       statement=f"At intermediate noise ({low:g} to {high:g}) the network is nearer to the Gaussian denoiser than to the multi-delta one: the difference of their distances, mean over levels.",
                       value=float(closer.estimate), interval=(float(closer.low), float(closer.high)), threshold=0.0,
                       note=f"on {subject.inputs} images").unless(absent["middle"]),
        bounded("at_most", rmse["network - linear"], worst, 0.05, id="distances-regimes", figure="Fig 2", unit="(RMSE, pixel units)",
                statement=f"At high ({high:g} and more) and low noise ({low:g} and less) the network and its best linear map nearly agree (the largest distance is shown).",
                note=f"largest at sigma = {sigmas[worst]:.3g}").unless(absent["outer"]),
        bounded("at_most", rmse["Gaussian - linear"], apart, 0.05, id="distances-linear-gaussian", figure="Fig 2", unit="(RMSE, pixel units)",
                statement="The network's best linear map nearly is the Gaussian denoiser at every noise level (the largest distance is shown).",
                note=where),
    ]  # fmt: skip


def _samples(config: Config, subject: Subject, models: dict[str, Any], seed: int) -> dict[str, np.ndarray]:
    """Samples of each denoiser, and the denoised images along the path of the first one."""
    shown: dict[str, np.ndarray] = {}
    for name, model in models.items():
        path = subject.trajectories(model, config.samples, seed)
        states = subject.states(path, subject.sigmas)[:, 0]
        levels = subject.sigmas.astype(states.dtype)
        shown |= {name: path.samples, f"{name}-path": np.asarray(map_batch(as_pytree(model), states, levels))}
    # All start from the same noise: the first state of any of them.
    start = jnp.asarray(states[0])
    exact = analysis.gaussian_flow(subject.gaussian, start, subject.sigmas[0], subject.sigmas)[1]
    return shown | {"exact-path": np.asarray(exact)}


def check(config: Config, subject: Subject) -> None:
    """Refuses what cannot be used before any work."""
    subject.some("distances.images", config.images)
    distillation.check(subject.config.distillation, subject)


def costs(config: Config, plan: Plan) -> list[Cost]:
    """What the part would cost, the linear maps apart."""
    samples = config.samples * (2 * plan.steps - 1) + plan.config.levels
    return [
        plan.cost("distances", config.images * plan.config.levels, config.batch_size),
        plan.cost("samples", samples, plan.config.batch_size),
    ]


PRESETS = {
    "smoke": replace(Config(), images=24, samples=4, batch_size=24),
    "default": Config(),
    "paper": Config(images=1000),
}
