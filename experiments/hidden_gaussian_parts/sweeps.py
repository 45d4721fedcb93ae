"""From memorising to generalising: networks over data-set size, width and training time (Figs 1, 5 to 8, 11 to 13, 15 to 23, 25).

The default trains small DDPM++ networks on 8 x 8 images, 16 pixels' blocks of Fashion-MNIST: at that size 180,000 parameters
learn 16 images by heart in a minute of one core, while a thousand times as many images cannot be learned so; three seeds of
each, on different images, for the verdicts are over seeds. What a checkpoint of a memorising network would show, the
multi-delta denoiser of the same images shows exactly; it is drawn beside the networks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from dgu import analysis, plots
from dgu.denoisers import map_batch
from dgu.errors import require
from dgu.keys import initial_noise
from dgu.models import EmpiricalDenoiser
from dgu.training import distill_exactly
from experiments.harness.claims import Claim
from experiments.harness.report import FigureEntry, Section, Table
from experiments.harness.rundir import RunDirectory
from experiments.hidden_gaussian_parts import networks
from experiments.hidden_gaussian_parts.networks import Arm, Images, Measured, Trainer
from experiments.hidden_gaussian_parts.subject import PAPER

CLAIM_IDS = (
    "sweeps-linearity-rises",
    "sweeps-distance-falls",
    "sweeps-wide-memorises",
    "sweeps-narrow-stays",
    "sweeps-generalisation-rises",
    "sweeps-linear-nearer",
    "sweeps-linear-memorising",
)
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


@dataclass(frozen=True)
class Config:
    """The sweeps."""

    sizes: tuple[int, ...] = (16, 64, 256, 1024, 4096, 16384)
    """Data-set sizes of the wide network, seven at most."""
    little: int = 16
    """Images of the sweep over widths, and of that over training time."""
    widths: tuple[int, ...] = (4,)
    """Widths (channels) beside the wide network's, six at most; the smallest is the narrow network."""
    families: tuple[str, ...] = ("ncsnpp-edm", "adm-edm", "ddpmpp-vp")
    """Other kinds of network, trained on the largest set once: ddpmpp, ncsnpp or adm, and edm, vp or ve."""
    linear_images: int = 300
    """Held-out images that networks are distilled on; distances are then taken on others."""
    linear_draws: int = 6
    """Noisy versions of each of these."""

    def __post_init__(self) -> None:
        for name, most in (("sizes", 7), ("widths", 6), ("families", 6)):
            values = getattr(self, name)
            fine = len(values) <= most and len(set(values)) == len(values)
            require(fine, f"sweeps.{name}", values, f"at most {most}, each once")
        require(
            len(self.sizes) >= 2 and min(self.sizes) >= 2, "sweeps.sizes", self.sizes, "two or more, each 2 or more"
        )
        require(len(self.widths) >= 1, "sweeps.widths", self.widths, "one or more")
        require(self.little >= 2, "sweeps.little", self.little, "2 or more")
        known = {f"{a}-{p}" for a in ("ddpmpp", "ncsnpp", "adm") for p in ("edm", "vp", "ve")}
        for family in self.families:
            require(family in known, "sweeps.families", family, f"one of {', '.join(sorted(known))}")
        for name in ("linear_images", "linear_draws"):
            require(getattr(self, name) >= 1, f"sweeps.{name}", getattr(self, name), "1 or more")


def check(config: Config, common: networks.Config, images: Images) -> None:
    """Before any work: whether there are images for every arm, and every network can be built."""
    sizes = networks.usable_sizes("sweeps.sizes", config.sizes, images, len(images.train))
    networks.usable_sizes("sweeps.little", (config.little,), images, len(images.train))
    need = config.linear_images + common.held_out
    there = len(images.held) - common.held_out
    require(need <= len(images.held), "sweeps.linear_images", config.linear_images, f"at most {there}: of {len(images.held)} held-out images {common.held_out} are for the distances")  # fmt: skip
    require(
        len(sizes) >= 2, "sweeps.sizes", config.sizes, f"two or more up to {len(images.train)}, the images there are"
    )
    wide = common.network.model_channels
    require(min(config.widths) < wide and wide not in config.widths, "sweeps.widths", config.widths, f"other than networks.network.model_channels = {wide}, one below it")  # fmt: skip
    require(common.family not in config.families, "sweeps.families", config.families, f"other kinds than the networks' own, {common.family}")  # fmt: skip


def arms(config: Config, trainer: Trainer) -> dict[str, list[Arm]]:
    """All arms by sweep, those in two sweeps once in each: ``size`` and ``width`` seed by seed, ``families`` once."""
    seeds = range(trainer.config.seeds)
    sizes = _sizes(config, trainer.images)
    widths = (*sorted(config.widths), trainer.config.network.model_channels)
    return {
        "size": [trainer.arm(size, seed) for size in sizes for seed in seeds],
        "width": [trainer.arm(config.little, seed, width) for width in widths for seed in seeds],
        "families": [trainer.arm(sizes[-1], 0, family=family) for family in config.families],
    }


def _sizes(config: Config, images: Images) -> tuple[int, ...]:
    return networks.usable_sizes("sweeps.sizes", config.sizes, images, len(images.train))


def run(config: Config, common: networks.Config, directory: RunDirectory, seed: int) -> Section:
    """Train what is not trained yet, measure, and draw."""
    images = networks.gather(common)
    check(config, common, images)
    trainer = Trainer(common, images, directory, seed)
    plan = arms(config, trainer)
    found = trainer.measured([arm for part in plan.values() for arm in part], "sweeps")
    sizes = _sizes(config, images)
    sweep = Sweep(
        trainer,
        sizes,
        {size: [found[trainer.arm(size, s)] for s in range(common.seeds)] for size in sizes},
        {width: [found[trainer.arm(config.little, s, width)] for s in range(common.seeds)] for width in (*sorted(config.widths), trainer.arm(2, 0).width)},
        {arm.family: found[arm] for arm in (trainer.arm(sizes[-1], 0), *plan["families"])},
        {size: _reference(trainer, size) for size in sizes},
        _fresh(trainer, {*sizes, config.little}),
        config.little,
    )  # fmt: skip
    linear = {name: [_linear(config, trainer, trainer.arm(size, s)) for s in range(common.seeds)]
              for name, size in (("memorising", config.little), ("generalising", sizes[-1]))}  # fmt: skip
    claims = _claims(sweep, linear)
    figures = _figures(sweep, linear)
    lasts = {size: [one[-1] for one in sweep.sizes_found[size]] for size in sizes}
    rows = [
        (size, *(float(np.mean(values)) for values in (
            [one.least_cosine for one in lasts[size]], [one.nmse.mean(axis=1).max() for one in lasts[size]],
            [one.middle() for one in lasts[size]], [one.middle("whole") for one in lasts[size]],
            [one.score.value for one in lasts[size]], sweep.fresh[size])))
        for size in sizes
    ]  # fmt: skip
    times = [
        (width, measured[0][place].seen, float(np.mean([one[place].middle() for one in measured])),
         float(np.mean([one[place].least_cosine for one in measured])), float(np.mean([one[place].score.value for one in measured])),
         float(np.mean([one[place].loss.mean() for one in measured])))
        for width, measured in sweep.widths_found.items() for place in range(len(common.marks))
    ]  # fmt: skip
    return Section(
        "From memorising to generalising",
        _answer(sweep, images, common),
        claims,
        [FigureEntry(file, caption) for file, caption in zip(FIGURE_FILES, figures)],
        [
            Table("Networks over the data-set size, at the end of training (means over seeds)",
                  ("images", "least cosine", "largest NMSE", "distance to own Gaussian", "to that of all", "GL score", "GL score of held-out images"), rows),
            Table(f"Networks on {config.little} images, over training (means over seeds)",
                  ("channels", "images seen", "distance to own Gaussian", "least cosine", "GL score", "held-out loss"), times),
        ],
        {
            "sizes": {str(row[0]): dict(zip(("least_cosine", "largest_nmse", "own", "whole", "score", "fresh"), row[1:])) for row in rows},
            "time": [dict(zip(("width", "seen", "own", "least_cosine", "score", "loss"), row)) for row in times],
            "linear": {name: [one["linear_gaussian"].mean() for one in each] for name, each in linear.items()},
        },
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Sweep:
    """All that was measured: ``sizes_found[size][seed][checkpoint]``, ``widths_found[width][seed][checkpoint]``."""

    trainer: Trainer
    sizes: tuple[int, ...]
    sizes_found: dict[int, list[list[Measured]]]
    widths_found: dict[int, list[list[Measured]]]
    families_found: dict[str, list[Measured]]
    references: dict[int, dict[str, Measured]]
    fresh: dict[int, np.ndarray]
    little: int

    @property
    def wide(self) -> int:
        """Channels of the wide network."""
        return list(self.widths_found)[-1]

    @property
    def narrow(self) -> int:
        """Channels of the narrow network."""
        return next(iter(self.widths_found))

    def rank(self, values: Sequence[Sequence[float]]) -> analysis.Interval:
        """Spearman's correlation of ``values[seed][size]`` with the size in each seed: mean and 95 % interval over seeds."""
        return analysis.t_interval([_spearman(self.sizes, row) for row in values])

    def by_seed(self, quantity: Any) -> list[list[float]]:
        """``quantity`` of the last checkpoints, ``[seed][size]``."""
        seeds = self.trainer.config.seeds
        return [[quantity(self.sizes_found[size][seed][-1], size) for size in self.sizes] for seed in range(seeds)]

    def relative_score(self, of: Measured, size: int) -> float:
        """The GL score over that of held-out images against training sets of the size."""
        return of.score.value / float(np.mean(self.fresh[size]))


def _spearman(sizes: Sequence[int], values: Sequence[float]) -> float:
    """Spearman's rank correlation; 0 where all values are equal."""
    return 0.0 if len(set(values)) == 1 else float(stats.spearmanr(sizes, values).statistic)


def _reference(trainer: Trainer, size: int) -> dict[str, Measured]:
    """What the multi-delta and the Gaussian denoiser of a training set (that of the first seed) show in a network's place."""
    arm = trainer.arm(size, 0)
    models = {"multi-delta": EmpiricalDenoiser(trainer.subset(arm)), "Gaussian": trainer.gaussian(arm)}
    return {
        name: Measured(0, trainer.sigmas(arm)[:-1], **trainer.directory.stage(f"sweeps/{name}-{size}", lambda model=model: trainer.measure(model, arm)))
        for name, model in models.items()
    }  # fmt: skip


def _fresh(trainer: Trainer, sizes: set[int]) -> dict[int, np.ndarray]:
    """The generalisation score of held-out images against the training set of each seed: the yardstick of a size."""
    held = trainer.images.held[: trainer.config.held_out].reshape(trainer.config.held_out, -1)

    def score(size: int, seed: int) -> float:
        rows = trainer.subset(trainer.arm(size, seed)).reshape(size, -1)
        return analysis.relative_distance(held, analysis.k_nearest(held, rows)[0][:, 0]).value

    stored = trainer.directory.stage(
        "sweeps/fresh", lambda: {f"n{size}": np.array([score(size, s) for s in range(trainer.config.seeds)]) for size in sorted(sizes)}
    )  # fmt: skip
    return {size: stored[f"n{size}"] for size in sizes}


def _linear(config: Config, trainer: Trainer, arm: Arm) -> dict[str, np.ndarray]:
    """Distances among the network of an arm, its best linear map on held-out images, and its Gaussian, on other such images."""
    images, sigmas, count = trainer.images.held, trainer.sigmas(arm)[:-1], trainer.config.held_out

    def compute() -> dict[str, np.ndarray]:
        denoiser = trainer.load(arm)
        maps = distill_exactly(
            denoiser,
            images[count : count + config.linear_images],
            sigmas,
            trainer.key("distillation"),
            draws=config.linear_draws,
        ).denoiser
        models = {"network": denoiser, "linear": maps, "Gaussian": trainer.gaussian(arm)}
        apart = analysis.score_distances(models, images[:count], sigmas, trainer.key("distances"), inputs="held-out")
        scaled = apart.differences / np.sqrt(apart.dimension)
        return {
            "linear_gaussian": scaled[:, 1, 2],
            "network_gaussian": scaled[:, 0, 2],
            "network_linear": scaled[:, 0, 1],
        }

    return trainer.directory.stage(f"sweeps/linear/{arm.name}", compute)


def _claims(sweep: Sweep, linear: dict[str, list[dict[str, np.ndarray]]]) -> list[Claim]:
    seeds, sizes = sweep.trainer.config.seeds, sweep.sizes

    def held(kind: str, found: analysis.Interval, bound: float, **about: Any) -> Claim:
        interval = (float(found.low), float(found.high))
        return getattr(Claim, kind)(
            value=float(found.estimate), interval=interval, threshold=bound, **({"paper": PAPER, "unit": ""} | about)
        )

    def course(width: int) -> np.ndarray:
        return np.array([[one.middle() for one in measured] for measured in sweep.widths_found[width]])

    over = f"{seeds} seeds; {len(sizes)} sizes from {sizes[0]} to {sizes[-1]}"
    wide, narrow = course(sweep.wide), course(sweep.narrow)
    scores = [sweep.relative_score(measured[-1], sweep.little) for measured in sweep.widths_found[sweep.wide]]
    plain = np.mean([measured[-1].score.value for measured in sweep.widths_found[sweep.wide]])
    fresh = float(np.mean(sweep.fresh[sweep.little]))
    memorises = [
        held("at_most", analysis.t_interval(wide.min(axis=1) / wide[:, -1]), 0.8, id="min-over-final", figure="Fig 8",
             statement="The least distance to the Gaussian denoiser in training is less than 0.8 of the last one."),
        held("at_most", analysis.t_interval(wide.min(axis=1) / wide[:, 0]), 0.8, id="min-over-first", figure="Fig 8",
             statement="It is less than 0.8 of the first one measured, too."),
        held("at_most", analysis.t_interval(scores), 0.3, id="gl-final", figure="Fig 8",
             statement="At the end the generalisation score is less than 0.3 of that of held-out images.",
             note=f"the score itself is {plain:.3f}; held-out images score {fresh:.3f}"),
    ]  # fmt: skip
    middle = _middle(sweep)
    by_kind = {name: [float(one["linear_gaussian"][middle].mean()) for one in each] for name, each in linear.items()}
    nearer = [
        float((one["linear_gaussian"] - one["network_gaussian"])[middle].mean()) for one in linear["generalising"]
    ]
    return [
        held("at_least", sweep.rank(sweep.by_seed(lambda one, size: one.least_cosine)), 0.8, id=CLAIM_IDS[0], figure="Fig 1",
             statement="The minimum linearity over noise levels rises with the data-set size (Spearman's correlation).", note=over),
        held("at_most", sweep.rank(sweep.by_seed(lambda one, size: one.middle())), -0.8, id=CLAIM_IDS[1], figure="Fig 6",
             statement="On held-out inputs the distance to the Gaussian denoiser of the training images falls with the data-set size (Spearman's correlation; mean over intermediate noise levels).", note=over),
        Claim.all_of(memorises, id=CLAIM_IDS[2], paper=PAPER, figure="Fig 8",
                     statement=f"On {sweep.little} images the wide network ({sweep.wide} channels) comes near to the Gaussian denoiser and leaves it again while its samples become training images."),
        held("at_most", analysis.t_interval(narrow[:, -1] / narrow.min(axis=1)), 1.1, id=CLAIM_IDS[3], figure="Fig 7",
             statement=f"The narrow network ({sweep.narrow} channels) on the same images does not leave it: the last distance is at most 1.1 of the least.", note=f"{seeds} seeds"),
        held("at_least", sweep.rank(sweep.by_seed(sweep.relative_score)), 0.8, id=CLAIM_IDS[4], figure="Fig 13",
             statement="The generalisation score, over that of held-out images, rises with the data-set size (Spearman's correlation).", note=over),
        held("at_most", analysis.t_interval(nearer), 0.0, id=CLAIM_IDS[5], figure="Fig 5", unit="(RMSE, pixel units)",
             statement=f"On {sizes[-1]} images the network's best linear map is nearer to the Gaussian denoiser than the network is: the difference of these distances.", note=f"{seeds} seeds"),
        held("at_least", analysis.t_interval(np.subtract(by_kind["memorising"], by_kind["generalising"])), 0.0, id=CLAIM_IDS[6], figure="Fig 5", unit="(RMSE, pixel units)",
             statement=f"The best linear map is farther from the Gaussian denoiser where the network memorises ({sweep.little} images) than where it generalises ({sizes[-1]}).", note=f"{seeds} seeds"),
    ]  # fmt: skip


def _middle(sweep: Sweep) -> np.ndarray:
    sigmas = sweep.trainer.sigmas(sweep.trainer.arm(2, 0))[:-1]
    inside = (sigmas >= networks.MIDDLE[0]) & (sigmas <= networks.MIDDLE[1])
    return inside if inside.any() else np.ones(len(sigmas), bool)


def _answer(sweep: Sweep, images: Images, common: networks.Config) -> str:
    first, last = sweep.sizes[0], sweep.sizes[-1]

    def mean(size: int, quantity: Any) -> float:
        return float(np.mean([quantity(one[-1]) for one in sweep.sizes_found[size]]))

    return (
        f"Of {images.about}: networks of {sweep.wide} channels that saw {common.training.duration_kimg * 1000:,.0f} images; from {first} to {last} training images the "
        f"least linearity goes from {mean(first, lambda m: m.least_cosine):.3f} to {mean(last, lambda m: m.least_cosine):.3f}, the distance to the Gaussian "
        f"denoiser from {mean(first, lambda m: m.middle()):.3f} to {mean(last, lambda m: m.middle()):.3f}, and the generalisation score from "
        f"{mean(first, lambda m: m.score.value):.3f} (held-out images: {float(np.mean(sweep.fresh[first])):.3f}) to {mean(last, lambda m: m.score.value):.3f} "
        f"({float(np.mean(sweep.fresh[last])):.3f}). "
    )


def _band(values: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and range over the first axis, seeds."""
    array = np.asarray(values, np.float64)
    return array.mean(axis=0), array.min(axis=0), array.max(axis=0)


def _figures(sweep: Sweep, linear: dict[str, list[dict[str, np.ndarray]]]) -> list[str]:
    """Draw all; the captions in the order of ``FIGURE_FILES``."""
    save, trainer = sweep.trainer.directory.save_figure, sweep.trainer
    sigmas = trainer.sigmas(trainer.arm(2, 0))[:-1]
    lasts = {f"{size:,} images": [one[-1] for one in found] for size, found in sweep.sizes_found.items()}
    captions = []

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
        plots.sweep_curves(_time_panels(sweep), columns=2),
        f"Training on {sweep.little} images: distance to the Gaussian denoiser on held-out images, least linearity, generalisation score and held-out loss against the images seen; bands: the range over seeds (Figs 8 and 21).",
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
        f"Kinds of networks and preconditioning on {sweep.sizes[-1]:,} images, one training each: distance to the Gaussian denoiser and linearity over noise levels (Fig 11).",
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
        _linear_figure(sigmas, linear),
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
    return captions  # fmt: skip


def _size_panels(sweep: Sweep) -> list[plots.SweepPanel]:
    x = np.array(sweep.sizes, np.float64)

    def curves(quantity: Any, *references: str) -> dict[str, tuple[np.ndarray, ...]]:
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
    def curves(quantity: Any) -> dict[str, tuple[np.ndarray, ...]]:
        return {
            f"{width} channels": (np.array([one.seen for one in found[0]], np.float64), *_band([[quantity(one) for one in each] for each in found]))
            for width, found in sweep.widths_found.items()
        }  # fmt: skip

    label = "images seen in training"
    fresh = {"held-out images": float(np.mean(sweep.fresh[sweep.little]))}
    return [
        plots.SweepPanel("distance to the Gaussian", label, "RMSE (pixel units)", curves(lambda one: one.middle())),
        plots.SweepPanel("linearity", label, "least |cosine|", curves(lambda one: one.least_cosine)),
        plots.SweepPanel("generalisation", label, "GL score (14)", curves(lambda one: one.score.value), marks=fresh),
        plots.SweepPanel("held-out images", label, "denoising loss (mean square)", curves(lambda one: float(one.loss.mean()))),
    ]  # fmt: skip


def _family_panels(kinds: dict[str, list[Measured]]) -> list[plots.SweepPanel]:
    def curves(name: str) -> dict[str, tuple[np.ndarray, ...]]:
        found = {}
        for kind, measured in kinds.items():
            interval = analysis.t_interval(getattr(measured[-1], name))
            found[kind] = (measured[-1].sigmas, interval.estimate, interval.low, interval.high)
        return found  # type: ignore[return-value]

    return [
        plots.SweepPanel(
            "Gaussian of the training images", "noise level $\\sigma$", "RMSE (pixel units)", curves("own")
        ),
        plots.SweepPanel("linearity", "noise level $\\sigma$", "|cosine|", curves("cosine")),
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
    drawn = sweep.trainer.directory.stage(
        "sweeps/little", lambda: {"samples": sweep.trainer.draw(sweep.trainer.gaussian(arm), arm)}
    )
    nearest = sweep.trainer.subset(arm)[sweep.widths_found[sweep.wide][0][-1].nearest]
    return [("Gaussian", drawn["samples"]), ("nearest image", nearest)]


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
