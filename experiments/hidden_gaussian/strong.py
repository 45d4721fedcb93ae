"""Strong generalisation: networks trained on disjoint data make images of the same noise (Figs 9 and 26).

The pairs are the seeds of the sweeps' networks, whose images are disjoint, so that both parts share their trainings.
Sample number i has the same initial noise in every network and Gaussian; the null is the distance of samples from
different noise.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from dgu import analysis, plots
from dgu.analysis import Estimate, SameNoise
from dgu.core.errors import require
from experiments import study
from experiments.hidden_gaussian import networks
from experiments.hidden_gaussian.arms import Arm, Design, training_costs
from experiments.hidden_gaussian.images import Images
from experiments.hidden_gaussian.subject import PAPER, Plan, Subject
from experiments.hidden_gaussian.trainer import Measured, train_and_measure
from experiments.study import Claim, Figure, Findings, Noted, NotTested, Run, at_least, at_most, option

#: Columns of a strip of samples.
_SHOWN = 12
#: Training images at which Gaussians of subsets should nearly be that of all (the sheet's check).
_ENOUGH = 1000
#: Relative distances that divide alike from different images, and up to which Gaussians make nearly the same.
_HALF, _FIFTH = 0.5, 0.2
#: The name of networks that are stopped at a time that was chosen beforehand, as the paper's.
_CHOSEN = "stopped at a chosen time"
#: What changed of all claims.
_SAMPLES = "Until 1 December 2026 samples were made by 10 Heun steps; since then by the paper's 10 Euler steps."

FIGURES = (
    Figure(
        "strong_similarity",
        "Distance of samples from the same initial noise relative to that of samples from different noise, for "
        "networks (and Gaussians) of disjoint training sets; bars: 95 % intervals over samples, means over pairs of "
        "networks (Figs 9 and 26).",
        "fig-9 fig-26",
    ),
    Figure(
        "strong_samples",
        "Samples of two networks, and of the Gaussians of their images, from the same initial noise (Figs 9 and 26).",
        "fig-9 fig-26",
    ),
)


@dataclass(frozen=True)
class Config(study.Options, prefix="strong"):
    """Strong generalisation: do networks trained on disjoint data make the same images?"""

    sizes: tuple[int, ...] = option((32, 1024, 8192), ge=2)
    """Images in each of the disjoint sets: the network memorises the smallest, but not the largest."""
    narrow: int = option(4, ge=1)
    """Channels of the network of small capacity, one of the two remedies on the smallest sets."""
    wide: int | None = option(None, ge=1)
    """Channels of the other networks on the smallest sets; None takes those of --networks."""
    stop_kimg: float = option(10.0, gt=0.0)
    """Thousands of images seen at which training on the smallest sets is stopped early in the figures, as at the
    paper's epoch; of the checkpoints the nearest one."""

    def check(self) -> None:
        """At least two sizes are compared."""
        fine = 2 <= len(set(self.sizes)) == len(self.sizes)
        require(fine, "strong.sizes", self.sizes, "two or more different ones, each 2 or more")


PRESETS = {
    "smoke": Config(sizes=(4, 16)),
    "default": Config(),
    "paper": Config(sizes=(1094, 35000), narrow=8, stop_kimg=920.0),
    "paper-cifar10": Config(sizes=(782, 25000), wide=128, stop_kimg=720.0),
    "paper-afhqv2": Config(sizes=(123, 3950), narrow=8, stop_kimg=920.0),
    "paper-churches": Config(sizes=(1094, 31000), narrow=8, stop_kimg=920.0),
}


def claims(config: Config) -> tuple[Claim, ...]:
    """What is tested."""
    relative = (
        "the distance of two networks' samples from the same initial noise, relative to that of samples from different "
        "noise,"
    )
    nearer = f"makes networks that were trained on disjoint sets more alike: {relative} falls (value:"
    declared = (
        (
            "generalising-same",
            f"Networks trained on disjoint sets of the largest size make nearly the same images: {relative} is at most "
            f"{_HALF:g}.",
            at_most(_HALF),
        ),
        (
            "memorising-apart",
            f"Networks trained on disjoint sets of the smallest size make different images: {relative} is at least "
            f"{_HALF:g}.",
            at_least(_HALF),
        ),
        (
            "size",
            f"Networks that were trained on disjoint sets are more alike if the sets are large: {relative} is less for "
            "the largest size than for the smallest (value: largest minus smallest size).",
            at_most(0.0),
        ),
        (
            "early-stopping",
            f"On training sets of the smallest size, early stopping at the least held-out loss {nearer} stopped early "
            "minus trained to the end).",
            at_most(0.0),
        ),
        (
            "small-capacity",
            f"On training sets of the smallest size, small capacity ({config.narrow} channels) {nearer} narrow minus "
            "wide networks).",
            at_most(0.0),
        ),
        (
            "gaussians",
            f"The Gaussian denoiser of some training images (of the sizes studied, the one nearest to {_ENOUGH}) makes "
            "nearly the same images as that of all: the distance of their samples from the same initial noise is at "
            f"most {_FIFTH:g} of that from different noise.",
            at_most(_FIFTH),
        ),
    )
    return tuple(
        Claim(f"strong-{name}", statement, test, source="Fig 9", one_network=name != "gaussians", changed=_SAMPLES)
        for name, statement, test in declared
    )


@dataclass(frozen=True)
class Found:
    """What was measured.

    Attributes:
        samples: samples of each kind of model, seed by seed, by the name of the kind.
        whole: samples of the Gaussian of all images.
        stops: images seen up to early stopping, of each seed.
        chosen: images seen up to the chosen checkpoint.
        sizes: sizes of the training sets, rising.
    """

    samples: dict[str, list[np.ndarray]]
    whole: np.ndarray
    stops: list[int]
    chosen: int
    sizes: tuple[int, ...]


def check(config: Config, subject: Subject) -> None:
    """Before any work: are there disjoint sets of every size, and can the networks be built?"""
    common = subject.config.networks
    wide, name = common.network.model_channels, "networks.network.model_channels"
    if config.wide is not None:
        wide, name = config.wide, "strong.wide"
    require(config.narrow < wide, "strong.narrow", config.narrow, f"below {name} = {wide}")
    design = Design(common, networks.gather(common), subject.config.seed)
    for arm in arms(config, design):
        design.network(arm)


def _sizes(config: Config, common: networks.Config, images: Images) -> tuple[int, ...]:
    most = len(images.train) // common.seeds
    sizes = networks.usable_sizes("strong.sizes", config.sizes, images, most, f" for {common.seeds} disjoint sets")
    allowed = f"two or more up to {most}, the images available for each of {common.seeds} disjoint sets"
    require(len(sizes) >= 2, "strong.sizes", config.sizes, allowed)
    return sizes


def arms(config: Config, design: Design) -> list[Arm]:
    """Networks of every size, and narrow ones of the smallest, for each seed."""
    sizes, seeds = _sizes(config, design.config, design.images), range(design.config.seeds)
    widths = [(sizes[0], config.wide), *((size, None) for size in sizes[1:]), (sizes[0], config.narrow)]
    return [design.arm(size, seed, width) for size, width in widths for seed in seeds]


def measure(config: Config, subject: Subject, run: Run) -> Found:
    """Train what is not trained yet, and sample the networks and the Gaussians."""
    common = subject.config.networks
    design = Design(common, networks.gather(common), run.seed)
    sizes, seeds = _sizes(config, common, design.images), range(common.seeds)
    found = train_and_measure(design, run.directory, arms(config, design), "strong generalisation")
    gaussians = {size: run.stage(f"gaussian-{size}", _gaussians, design, size) for size in sizes}
    whole = run.stage("whole", lambda: {"samples": design.draw(design.whole, design.arm(sizes[0], 0))[0]})["samples"]
    small = [found[design.arm(sizes[0], seed, config.wide)] for seed in seeds]
    early = [stopped(course) for course in small]
    chosen = [min(course, key=lambda one: abs(np.log(one.seen / (1000 * config.stop_kimg)))) for course in small]
    samples = {
        _named(sizes[0]): [course[-1].samples for course in small],
        **{_named(size): [found[design.arm(size, seed)][-1].samples for seed in seeds] for size in sizes[1:]},
        "early stopping": [one.samples for one in early],
        _CHOSEN: [one.samples for one in chosen],
        "small capacity": [found[design.arm(sizes[0], seed, config.narrow)][-1].samples for seed in seeds],
        **{f"Gaussian, {_named(size)}": [gaussians[size][f"s{seed}"] for seed in seeds] for size in sizes},
    }
    return Found(samples, whole, [one.seen for one in early], chosen[0].seen, sizes)


def report(config: Config, subject: Subject, found: Found) -> Findings:
    """Distances of samples from the same noise, relative to those from different noise."""
    common, sizes = subject.config.networks, found.sizes
    apart = {
        name: analysis.mean_over_pairs([analysis.same_noise_distances(a, b) for a, b in combinations(each, 2)])
        for name, each in found.samples.items()
    }
    nearest = found.samples[f"Gaussian, {_named(_nearest(sizes))}"]
    to_whole = analysis.mean_over_pairs([analysis.same_noise_distances(one, found.whole) for one in nearest])
    ratios = {name: one.ratio for name, one in apart.items()}
    rows = [
        (name, float(one.paired.mean()), float(one.null.mean()), ratio.value, ratio.low, ratio.high)
        for (name, one), ratio in zip(apart.items(), ratios.values())
    ]
    stops = ", ".join(f"{stop:,}" for stop in found.stops)
    columns = ("models", "RMSE, same noise", "RMSE, different noise", "ratio", "low", "high")
    return Findings(
        f"From the same initial noise, networks trained on disjoint sets of {sizes[-1]} images make images whose "
        f"distance is {ratios[_named(sizes[-1])].value:.2f} of that from different noise; on {sizes[0]} images it is "
        f"{ratios[_named(sizes[0])].value:.2f}, stopped early {ratios['early stopping'].value:.2f}, with "
        f"{config.narrow} channels {ratios['small capacity'].value:.2f}.",
        claims=tested(common, sizes, apart, to_whole, config.wide or common.network.model_channels),
        figures={
            "strong_similarity": (_similarity(ratios, sizes), f"Here: {_over(common)}."),
            "strong_samples": (
                _strips(found.samples, sizes),
                f"Stopped early: at the least held-out loss, after {stops} images seen; at a chosen time: after "
                f"{found.chosen:,}.",
            ),
        },
        tables=[study.Table("Samples from the same noise, disjoint training sets", columns, rows)],
        metrics={
            "ratio": {name: ratio.value for name, ratio in ratios.items()},
            "stopped": found.stops,
            "gaussian_to_whole": float(to_whole.ratio.value),
        },
    )


def tested(
    common: networks.Config, sizes: tuple[int, ...], apart: dict[str, SameNoise], to_whole: SameNoise, channels: int
) -> dict[str, study.Measured]:
    """What was measured for each claim, from distances between two networks, and from a Gaussian to that of all; wide
    networks on the smallest sets have so many ``channels``."""
    fewest, most = _named(sizes[0]), _named(sizes[-1])
    small, large, over = apart[fewest], apart[most], _over(common)
    wide = f"{channels} channels of the wide networks"

    def less(one: SameNoise, note: str) -> Noted:
        """The difference to the smallest sets, sample by sample."""
        return Noted(analysis.t_interval(one.ratios - small.ratios), f"{over}; {note}.")

    once = NotTested("networks were kept at the end of training alone")
    return {
        "strong-generalising-same": Noted(large.ratio, f"{over}; {most} each."),
        "strong-memorising-apart": Noted(small.ratio, f"{over}; {fewest} each."),
        "strong-size": less(large, f"from {fewest} to {most}"),
        "strong-early-stopping": less(apart["early stopping"], fewest) if len(common.marks) > 1 else once,
        "strong-small-capacity": less(apart["small capacity"], f"{fewest}; {wide}"),
        "strong-gaussians": Noted(
            to_whole.ratio, f"{common.samples} samples, {common.seeds} sets of {_nearest(sizes):,} images."
        ),
    }


def _over(common: networks.Config) -> str:
    return f"{common.samples} samples, {common.seeds * (common.seeds - 1) // 2} pairs of networks"


def stopped(course: list[Measured]) -> Measured:
    """Early stopping: the checkpoint of the least held-out loss, which needs no look at the samples."""
    return min(course, key=lambda one: float(one.loss.mean()))


def _nearest(sizes: tuple[int, ...]) -> int:
    """The size nearest to ``_ENOUGH``, on a logarithmic scale."""
    return min(sizes, key=lambda size: abs(np.log(size / _ENOUGH)))


def _named(size: int) -> str:
    return f"{size:,} images"


def _gaussians(design: Design, size: int) -> dict[str, np.ndarray]:
    """Samples of the Gaussian of each seed's images, ``s0``, ``s1`` ..."""
    every = [design.arm(size, seed) for seed in range(design.config.seeds)]
    return {f"s{arm.seed}": design.draw(design.gaussian(arm), arm)[0] for arm in every}


def _similarity(ratios: dict[str, Estimate], sizes: tuple[int, ...]) -> Any:
    rows = [*(_named(size) for size in sizes), "early stopping", _CHOSEN, "small capacity"]
    return plots.interval_dots(
        [row if row.endswith("images") else f"{row}, {_named(sizes[0])}" for row in rows],
        {
            "networks": [ratios[row] for row in rows],
            "Gaussians": [ratios.get(f"Gaussian, {row}") for row in rows],
        },
        quantity="distance from the same noise / from different noise",
        marks={"different noise": 1.0},
    )


def _strips(samples: dict[str, list[np.ndarray]], sizes: tuple[int, ...]) -> Any:
    """Samples of the first two models of each kind."""
    small, large = _named(sizes[0]), _named(sizes[-1])
    remedies = ("early stopping", _CHOSEN, "small capacity")
    shown = [large, f"Gaussian, {large}", small, *remedies, f"Gaussian, {small}"]
    rows = [(f"{name} ({part})", samples[name][place][:_SHOWN]) for name in shown for place, part in enumerate("AB")]
    title = "the same noise in each column; A and B: disjoint training sets"
    return plots.image_grid(np.stack([row for _, row in rows]), [name for name, _ in rows], [title])


def costs(config: Config, plan: Plan) -> list[study.Cost]:
    """Training and measuring every arm by itself; with the sweeps it shares most of them."""
    common = plan.config.networks
    design = Design(common, networks.planned(common), plan.config.seed)
    return training_costs("strong", design, arms(config, design))


PART = study.Part(
    name="strong",
    title="Strong generalisation",
    question="Do networks that were trained on disjoint data make the same images of the same noise?",
    paper=PAPER,
    presets=PRESETS,
    claims=claims,
    figures=FIGURES,
    measure=measure,
    report=report,
    costs=costs,
    check=check,
)
