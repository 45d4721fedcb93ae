"""Strong generalisation: networks trained on disjoint halves of the data, and the images that they make of the same noise (Figs 9, 26).

The pairs are the seeds of the sweeps' networks, whose images are disjoint, so that both parts share their trainings. Sample
number i starts from the same noise in every network and Gaussian; the null is the distance of samples from different noise.
"""

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from dgu import analysis, plots
from dgu.analysis import SameNoise
from dgu.core.errors import require
from experiments.hidden_gaussian_parts import networks
from experiments.hidden_gaussian_parts.networks import Arm, Design, Images
from experiments.hidden_gaussian_parts.subject import PAPER
from experiments.hidden_gaussian_parts.trainer import Measured, Trainer
from experiments.study.costs import Cost
from experiments.study.judged import JudgedClaim
from experiments.study.options import check_options
from experiments.study.report import FigureEntry, Section, Table
from experiments.study.run_directory import RunDirectory

CLAIM_IDS = (
    "strong-generalising-same",
    "strong-memorising-apart",
    "strong-size",
    "strong-early-stopping",
    "strong-small-capacity",
    "strong-gaussians",
)
FIGURE_FILES = ("figures/strong_similarity.png", "figures/strong_samples.png")
#: Columns of a strip of samples.
_SHOWN = 12
#: Training images at which Gaussians of subsets should nearly be that of all (the sheet's check).
_ENOUGH = 1000


@dataclass(frozen=True)
class Config:
    """Strong generalisation."""

    sizes: tuple[int, ...] = (32, 1024, 8192)
    """Images of each of the disjoint sets: the smallest memorised, the largest not."""
    narrow: int = 4
    """Channels of the network of small capacity, one of the two remedies on the smallest sets."""

    def __post_init__(self) -> None:
        check_options(self, "strong", sizes=2, narrow=1)
        fine = 2 <= len(set(self.sizes)) == len(self.sizes)
        require(fine, "strong.sizes", self.sizes, "two or more different ones, each 2 or more")


def check(config: Config, subject: Any) -> None:
    """Before any work: whether there are disjoint sets of every size, and the networks can be built."""
    common = subject.config.networks
    wide = common.network.model_channels
    require(config.narrow < wide, "strong.narrow", config.narrow, f"below networks.network.model_channels = {wide}")
    design = Design(common, networks.gather(common))
    for arm in arms(config, design):
        design.network(arm)


def _sizes(config: Config, common: networks.Config, images: Images) -> tuple[int, ...]:
    most = len(images.train) // common.seeds
    sizes = networks.usable_sizes("strong.sizes", config.sizes, images, most, f" for {common.seeds} disjoint sets")
    require(len(sizes) >= 2, "strong.sizes", config.sizes, f"two or more up to {most}, the images there are for {common.seeds} disjoint sets")  # fmt: skip
    return sizes


def arms(config: Config, design: Design) -> list[Arm]:
    """Networks of every size, and narrow ones of the smallest, for each seed."""
    sizes, seeds = _sizes(config, design.config, design.images), range(design.config.seeds)
    return [design.arm(size, seed) for size in sizes for seed in seeds] + [
        design.arm(sizes[0], seed, config.narrow) for seed in seeds
    ]


def run(config: Config, subject: Any, directory: RunDirectory, seed: int) -> Section:
    """Train what is not trained yet, compare samples, and draw."""
    common = subject.config.networks
    images = networks.gather(common)
    trainer = Trainer(common, images, directory, seed)
    sizes, seeds = _sizes(config, common, images), range(common.seeds)
    found = trainer.measured(arms(config, trainer), "strong generalisation")
    gaussians = {size: _gaussians(trainer, size) for size in sizes}
    whole = directory.stage("strong/whole", lambda: {"samples": trainer.draw(trainer.whole, trainer.arm(sizes[0], 0))})[
        "samples"
    ]
    early = [found[trainer.arm(sizes[0], s)] for s in seeds]
    samples = {
        **{_named(size): [found[trainer.arm(size, s)][-1].samples for s in seeds] for size in sizes},
        "early stopping": [_stopped(course).samples for course in early],
        "small capacity": [found[trainer.arm(sizes[0], s, config.narrow)][-1].samples for s in seeds],
        **{f"Gaussian, {_named(size)}": [gaussians[size][f"s{s}"] for s in seeds] for size in sizes},
    }
    apart = {
        name: analysis.mean_over_pairs([analysis.same_noise_distances(a, b) for a, b in combinations(each, 2)])
        for name, each in samples.items()
    }
    enough = min(sizes, key=lambda size: abs(np.log(size / _ENOUGH)))
    to_whole = analysis.mean_over_pairs(
        [analysis.same_noise_distances(gaussians[enough][f"s{s}"], whole) for s in seeds]
    )
    directory.save_figure(FIGURE_FILES[0], _similarity(apart, sizes))
    shown = [
        _named(sizes[-1]),
        f"Gaussian, {_named(sizes[-1])}",
        _named(sizes[0]),
        "early stopping",
        "small capacity",
        f"Gaussian, {_named(sizes[0])}",
    ]
    rows = [(f"{name} ({part})", samples[name][place][:_SHOWN]) for name in shown for place, part in enumerate("AB")]
    directory.save_figure(
        FIGURE_FILES[1], plots.image_grid(np.stack([row for _, row in rows]), [name for name, _ in rows], ["the same noise in each column; A and B: disjoint training sets"])
    )  # fmt: skip
    stops = [_stopped(course).seen for course in early]
    pairs = common.seeds * (common.seeds - 1) // 2
    table = [
        (name, float(one.paired.mean()), float(one.null.mean()), *(float(part) for part in (one.ratio.estimate, one.ratio.low, one.ratio.high)))
        for name, one in apart.items()
    ]  # fmt: skip
    large, small = apart[_named(sizes[-1])].ratio.estimate, apart[_named(sizes[0])].ratio.estimate
    return Section(
        "Strong generalisation",
        f"From the same noise, networks trained on disjoint sets of {sizes[-1]} images make images whose distance is {large:.2f} of that from different "
        f"noise; on {sizes[0]} images it is {small:.2f}, stopped early {apart['early stopping'].ratio.estimate:.2f}, with {config.narrow} channels "
        f"{apart['small capacity'].ratio.estimate:.2f}. ",
        _claims(config, common, sizes, apart, to_whole, enough, f"{common.samples} samples, {pairs} pairs of networks"),
        [
            FigureEntry(FIGURE_FILES[0], f"Distance of samples from the same noise over that of samples from different noise, networks (and Gaussians) of disjoint training sets; bars: 95 % intervals over {common.samples} samples, means over {pairs} pairs (Figs 9 and 26)."),
            FigureEntry(FIGURE_FILES[1], f"Samples of two networks, and of the Gaussians of their images, from the same noise (Figs 9 and 26). Stopped early: at the least held-out loss, after {', '.join(f'{stop:,}' for stop in stops)} images seen."),
        ],
        [Table("Samples from the same noise, disjoint training sets", ("models", "RMSE, same noise", "RMSE, different noise", "ratio", "low", "high"), table)],
        {"ratio": {name: float(one.ratio.estimate) for name, one in apart.items()}, "stopped": stops,
         "gaussian_to_whole": float(to_whole.ratio.estimate)},
    )  # fmt: skip


def _named(size: int) -> str:
    return f"{size:,} images"


def _gaussians(trainer: Trainer, size: int) -> dict[str, np.ndarray]:
    """Samples of the Gaussian of each seed's images, ``s0``, ``s1`` ..."""

    def compute() -> dict[str, np.ndarray]:
        every = [trainer.arm(size, seed) for seed in range(trainer.config.seeds)]
        return {f"s{arm.seed}": trainer.draw(trainer.gaussian(arm), arm) for arm in every}

    return trainer.directory.stage(f"strong/gaussian-{size}", compute)


def _stopped(course: list[Measured]) -> Measured:
    """Early stopping: the checkpoint of the least held-out loss, which needs no look at the samples."""
    return min(course, key=lambda one: float(one.loss.mean()))


def _claims(
    config: Config, common: networks.Config, sizes: tuple[int, ...], apart: dict[str, SameNoise], to_whole: SameNoise, enough: int, over: str
) -> list[JudgedClaim]:  # fmt: skip
    large, small = apart[_named(sizes[-1])], apart[_named(sizes[0])]

    def held(kind: str, found: analysis.Interval, bound: float, **about: Any) -> JudgedClaim:
        interval = (float(found.low), float(found.high))
        return getattr(JudgedClaim, kind)(
            value=float(found.estimate),
            interval=interval,
            threshold=bound,
            paper=PAPER,
            unit="",
            **({"note": over} | about),
        )

    def less(than: SameNoise, one: SameNoise) -> analysis.Interval:
        return analysis.t_interval(one.ratios - than.ratios)

    kept = len(common.marks)
    once = "" if kept > 1 else "networks were kept at the end of training alone"

    return [
        held("at_most", large.ratio, 0.5, id=CLAIM_IDS[0], figure="Fig 9",
             statement=f"Networks trained on disjoint sets of {sizes[-1]} images make nearly the same images from the same noise: their distance is at most half of that from different noise."),
        held("at_least", small.ratio, 0.5, id=CLAIM_IDS[1], figure="Fig 9",
             statement=f"Networks trained on disjoint sets of {sizes[0]} images make different ones: at least half."),
        held("at_most", less(small, large), 0.0, id=CLAIM_IDS[2], figure="Fig 9",
             statement=f"The relative distance falls with the data-set size: that of {sizes[-1]} images less that of {sizes[0]}."),
        held("at_most", less(small, apart["early stopping"]), 0.0, id=CLAIM_IDS[3], figure="Fig 9",
             statement=f"On {sizes[0]} images, stopping early (at the least held-out loss) brings the images nearer to each other: the difference to the end of training.").unless(once),
        held("at_most", less(small, apart["small capacity"]), 0.0, id=CLAIM_IDS[4], figure="Fig 9",
             statement=f"On {sizes[0]} images, {config.narrow} channels in place of {common.network.model_channels} bring them nearer, too: the difference to the wide networks."),
        held("at_most", to_whole.ratio, 0.2, id=CLAIM_IDS[5], figure="Fig 9",
             statement=f"The Gaussian of {enough} images makes nearly the images of the Gaussian of all: their distance over that from different noise.",
             note=f"{common.samples} samples, {common.seeds} sets"),
    ]  # fmt: skip


def _similarity(apart: dict[str, SameNoise], sizes: tuple[int, ...]) -> Any:
    rows = [*(_named(size) for size in sizes), "early stopping", "small capacity"]

    def values(names: list[str]) -> np.ndarray:
        blank = (np.nan,) * 3
        found = [apart[name].ratio if name in apart else None for name in names]
        return np.array([blank if one is None else (one.estimate, one.low, one.high) for one in found], np.float64)

    return plots.interval_dots(
        [row if row.endswith("images") else f"{row}, {_named(sizes[0])}" for row in rows],
        {"networks": values(rows), "Gaussians": values([f"Gaussian, {row}" for row in rows])},
        quantity="distance from the same noise / from different noise",
        marks={"different noise": 1.0},
    )


def costs(config: Config, plan: Any) -> list[Cost]:
    """What the part would cost by itself; with the sweeps it shares most of it."""
    design = Design(plan.config.networks, networks.planned(plan.config.networks))
    return networks.costs("strong", design, arms(config, design))


PRESETS = {
    "smoke": replace(Config(), sizes=(4, 16)),
    "default": Config(),
    "paper": Config(sizes=(1094, 35000), narrow=8),
}
