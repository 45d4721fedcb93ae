"""Distances of the network to the Gaussian, linear and multi-delta denoisers, and their samples (Figs 2, 3 and 27)."""

from dataclasses import dataclass

import numpy as np

from dgu import analysis, plots
from dgu.core.denoisers import as_pytree
from dgu.core.errors import require
from dgu.core.keys import seeded, stream
from dgu.core.typing import Denoiser, Key
from dgu.distributions.bases import initial_noise
from dgu.samplers import karras_sigmas
from experiments import study
from experiments.decoding import pictures
from experiments.hidden_gaussian import by_level, distillation, few_steps, linear_maps
from experiments.hidden_gaussian.few_steps import sampled
from experiments.hidden_gaussian.linear_maps import Arrays
from experiments.hidden_gaussian.subject import GAUSSIAN, NETWORK, PAPER, POINTS, Plan, Subject
from experiments.study import Claim, Figure, Findings, Measured, Noted, NotTested, Run, at_least, at_most, option

#: The network's best linear maps, found exactly and by Adam.
LINEAR, ADAM = "linear", "linear (Adam)"
#: The denoisers that are sampled, too; only distances are taken of the maps found by Adam.
NAMES = (NETWORK, GAUSSIAN, LINEAR, POINTS)
#: Pairs of denoisers whose distances are shown.
_PAIRS = (
    (NETWORK, GAUSSIAN),
    (NETWORK, LINEAR),
    (NETWORK, ADAM),
    (NETWORK, POINTS),
    (GAUSSIAN, LINEAR),
)
#: Noise levels between these are intermediate; those beyond them are high and low.
MIDDLE = (0.1, 20.0)
#: Distance up to which two denoisers nearly agree.
NEAR = 0.05
_UNIT = "(RMSE, pixel units)"
#: Most steps of a path that are shown.
_COLUMNS = 10

FIGURES = (
    Figure(
        "distances",
        "Distances between denoisers on the same noisy images, in two norms; bands: 95 % intervals over images (Figs "
        "2 and 27).",
        "fig-2 fig-27",
    ),
    Figure(
        "trajectories",
        "Denoised images along the sampling paths of these denoisers from one initial noise, a column for each step "
        "with its noise level; last row: the Gaussian's on its exact path, by its closed form (Figs 2 and 3).",
        "fig-2",
    ),
    Figure(
        "samples",
        "Samples of the network and of the Gaussian, linear and multi-delta denoisers from the same initial noise "
        "(Fig 3).",
        "fig-3",
    ),
)


@dataclass(frozen=True)
class Config(study.Options, prefix="distances"):
    """Distances between denoisers."""

    images: int = option(400, ge=2)
    """Images whose noisy versions are denoised, the last ones: not those of the distillation, if there are enough."""
    samples: int = option(10, ge=1)
    """Samples of each denoiser from the same initial noise, for the figures."""
    steps: int = option(10, ge=2)
    """Steps of the sampler of these samples, whose noise levels are the authors' grid from 80 to 0.002."""
    method: few_steps.Method = "euler"
    """Method of these steps: the paper's, Euler's, or Heun's (second order)."""
    batch_size: int = option(64, ge=1)
    """Images computed at once."""

    def check(self) -> None:
        """Only these methods exist."""
        require(self.method in ("euler", "heun"), "distances.method", self.method, "euler or heun")


PRESETS = {
    "smoke": Config(images=24, samples=4, steps=3, batch_size=24),
    "default": Config(),
    "paper": Config(images=1000),
}

CLAIMS = (
    Claim(
        "distances-gaussian-closer",
        f"At intermediate noise (sigma from {MIDDLE[0]:g} to {MIDDLE[1]:g}) the network is nearer to the Gaussian "
        "denoiser than to the multi-delta denoiser (value: distance to the multi-delta denoiser minus distance to the "
        "Gaussian denoiser, mean over noise levels).",
        at_least(0.0),
        source="Fig 2",
        unit=_UNIT,
        one_network=True,
    ),
    Claim(
        "distances-regimes",
        f"At high noise (sigma of {MIDDLE[1]:g} or more) and at low noise ({MIDDLE[0]:g} or less) the network and its "
        f"best linear map (least squares) nearly agree: the distance of their outputs is at most {NEAR:g} at each of "
        "these levels (value: the largest).",
        at_most(NEAR),
        source="Fig 2",
        unit=_UNIT,
        one_network=True,
    ),
    Claim(
        "distances-linear-gaussian",
        "At every noise level the network's best linear map (least squares) nearly equals the Gaussian denoiser: the "
        f"distance of their outputs is at most {NEAR:g} (value: the largest over noise levels).",
        at_most(NEAR),
        source="Fig 2",
        unit=_UNIT,
        one_network=True,
    ),
)


@dataclass(frozen=True)
class Apart:
    """What was measured: distances between all denoisers, and the images that they make, by name, with those on the
    way to the first of them at the steps of the sampler."""

    distances: analysis.ScoreDistances
    shown: dict[str, np.ndarray]


def measure(config: Config, subject: Subject, run: Run) -> Apart:
    """All denoisers on the same noisy images; the linear ones have the maps of the part ``distillation``."""
    maps = linear_maps.maps(subject.config.distillation, subject, run)
    stored = run.stage("differences", _differences, config, subject, maps, run.key)
    size = int(np.prod(subject.shape))
    found = analysis.ScoreDistances((*NAMES, ADAM), subject.sigmas, subject.inputs, size, **stored)
    return Apart(found, run.stage("samples", _samples, config, subject, maps, run.seed))


def report(config: Config, subject: Subject, found: Apart) -> Findings:
    """Distances in two norms, samples, and the images on the way to them."""
    sigmas, distances = subject.sigmas, found.distances
    images = len(subject.some("distances.images", config.images, last=True))
    used = len(subject.some("distillation.images", subject.config.distillation.images))
    seen = max(0, used + images - len(subject.images))
    estimates = {
        "rmse": {f"{a} - {b}": distances.rmse(a, b) for a, b in _PAIRS},
        "nmse": {f"{a} - {b}": distances.nmse(a, b) for a, b in _PAIRS},
    }
    metrics = {norm: {pair: np.asarray(one.value) for pair, one in each.items()} for norm, each in estimates.items()}
    columns = {f"{norm.upper()} {pair}": value for norm, each in metrics.items() for pair, value in each.items()}
    steps = _grid(config, subject)[:-1]
    seldom = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), _COLUMNS)).round().astype(int))
    paths = np.stack([found.shown[f"{name}-path"][seldom] for name in (*NAMES, "exact")])
    samples = np.stack([found.shown[name] for name in NAMES])
    paths, samples = (pictures(each, subject.decoder) for each in (paths, samples))
    peak = {pair: float(value.max()) for pair, value in metrics["rmse"].items()}
    panels = [
        plots.LevelPanel(
            "RMSE (10)", "RMSE (pixel units)", sigmas, estimates["rmse"], log=True, marks={f"{NEAR:g}": NEAR}
        ),
        plots.LevelPanel("NMSE (53)", "NMSE (by the first one)", sigmas, estimates["nmse"], log=True),
    ]
    return Findings(
        f"On {images} {subject.inputs} images the network's distance to the Gaussian denoiser is at most "
        f"{peak['network - Gaussian']:.3f} (RMSE), to the multi-delta denoiser {peak['network - multi-delta']:.3f}.",
        claims=tested(distances),
        figures={
            "distances": (
                plots.level_curves(panels, columns=2),
                f"The images are {subject.inputs} images; {seen} of the {images} are among the {used} that the maps "
                "were distilled on.",
            ),
            "trajectories": (
                plots.image_grid(paths, [*NAMES, "exact flow"], [f"{sigma:.2g}" for sigma in steps[seldom]]),
                f"Paths of {len(steps)} steps of {config.method.title()}'s method.",
            ),
            "samples": plots.image_grid(samples, NAMES, ["from the same noise"]),
        },
        tables=[by_level.table(f"Distances ({subject.inputs} images)", {"sigma": sigmas} | columns)],
        metrics=metrics,
    )


def tested(found: analysis.ScoreDistances) -> dict[str, Measured]:
    """What was measured for each claim."""
    sigmas, (low, high) = found.sigmas, MIDDLE
    none = f"of the noise levels {by_level.listed(sigmas)} none is"
    middle, outer = (sigmas >= low) & (sigmas <= high), (sigmas >= high) | (sigmas <= low)
    tests: dict[str, Measured] = {
        "distances-gaussian-closer": NotTested(f"{none} intermediate"),
        "distances-regimes": NotTested(f"{none} high or low"),
        "distances-linear-gaussian": by_level.largest(found.rmse(GAUSSIAN, LINEAR), sigmas, "Largest at {}."),
    }
    if middle.any():
        further = found.each_image(NETWORK, POINTS) - found.each_image(NETWORK, GAUSSIAN)
        closer = analysis.t_interval(further[middle].mean(axis=0))
        tests["distances-gaussian-closer"] = Noted(closer, f"On {found.inputs} images.")
    if outer.any():
        to_linear = found.rmse(NETWORK, LINEAR)
        tests["distances-regimes"] = by_level.largest(to_linear, sigmas, "Largest at {}.", among=outer)
    return tests


def _model(subject: Subject, maps: dict[str, Arrays], name: str) -> Denoiser:
    if name in (LINEAR, ADAM):
        return linear_maps.linear_denoiser(maps["exact" if name == LINEAR else "adam"], subject)
    return subject.model(name)


def _differences(config: Config, subject: Subject, maps: dict[str, Arrays], key: Key) -> dict[str, np.ndarray]:
    models = {name: _model(subject, maps, name) for name in (*NAMES, ADAM)}
    images = subject.some("distances.images", config.images, last=True)
    return analysis.score_distances(
        models, images, subject.sigmas, key, inputs=subject.inputs, batch_size=config.batch_size
    ).measured


def _samples(config: Config, subject: Subject, maps: dict[str, Arrays], seed: int) -> dict[str, np.ndarray]:
    """Samples of each denoiser, and the denoised images along the path of the first one."""
    shown: dict[str, np.ndarray] = {}
    key, grid = stream(seeded(seed), "samples"), _grid(config, subject)
    for name in NAMES:
        samples, paths = sampled(
            as_pytree(_model(subject, maps, name)),
            key,
            config.samples,
            grid,
            config.method,
            shape=subject.shape,
            batch_size=min(subject.batch_size, config.samples),
        )
        shown |= {name: samples, f"{name}-path": paths[0]}
    noise = grid[0] * initial_noise(key, 0, subject.shape)
    exact = analysis.gaussian_flow(subject.gaussian, noise, grid[0], grid[:-1])[1]
    return shown | {"exact-path": np.asarray(exact)}


def _grid(config: Config, subject: Subject) -> np.ndarray:
    """The sampler's noise levels, falling to 0."""
    return karras_sigmas(config.steps, subject.sigmas[-1], subject.sigmas[0])


def check(config: Config, subject: Subject) -> None:
    """Refuse what cannot be used before any work."""
    subject.some("distances.images", config.images)
    distillation.check(subject.config.distillation, subject)


def costs(config: Config, plan: Plan) -> list[study.Cost]:
    """Evaluations of the network, without those for the linear maps."""
    samples = config.samples * few_steps.evaluations(config.method, config.steps)
    return [
        plan.cost("distances", config.images * plan.config.levels, config.batch_size),
        plan.cost("samples", samples, plan.config.batch_size),
    ]


PART = study.Part(
    name="distances",
    title="Distances between denoisers",
    question="How far is the network from the Gaussian, linear and multi-delta denoisers over noise levels?",
    paper=PAPER,
    presets=PRESETS,
    claims=CLAIMS,
    figures=FIGURES,
    measure=measure,
    report=report,
    costs=costs,
    check=check,
)
