"""From memorising to generalising: networks over data-set size, width and training time (Figs 1, 5 to 8, 11 to 13, 15 to 23, 25).

The default trains small DDPM++ networks on 8 x 8 images (Fashion-MNIST, padded to 32 pixels and reduced by means): 18 networks
that see 80,000 images each, 1.4 million in all, which two cores train in a quarter of an hour. 180,000 parameters learn 32
images by heart in that time (more images take longer: of 64 they have learned half as much); from 8,192 images they cannot.
Three seeds, on different images, as the verdicts are over seeds. What a network shows that memorises perfectly, the
multi-delta denoiser of the same images shows exactly; it is drawn beside the networks.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dgu import analysis
from dgu.core.errors import require
from experiments.hidden_gaussian_parts import networks
from experiments.hidden_gaussian_parts.networks import Arm, Design, Images
from experiments.hidden_gaussian_parts.subject import PAPER
from experiments.hidden_gaussian_parts.sweep_figures import FIGURE_FILES as FIGURE_FILES
from experiments.hidden_gaussian_parts.sweep_figures import draw
from experiments.hidden_gaussian_parts.sweep_results import Sweep, fresh_scores, linear_distances, reference
from experiments.hidden_gaussian_parts.trainer import Trainer, intermediate
from experiments.study.costs import Cost
from experiments.study.judged import JudgedClaim
from experiments.study.options import check_options
from experiments.study.report import FigureEntry, Section, Table
from experiments.study.run_directory import RunDirectory

CLAIM_IDS = (
    "sweeps-linearity-rises",
    "sweeps-distance-falls",
    "sweeps-wide-memorises",
    "sweeps-narrow-stays",
    "sweeps-generalisation-rises",
    "sweeps-linear-nearer",
    "sweeps-linear-memorising",
)
#: Data-set sizes of which a rank correlation says something.
_RANKED = 4


@dataclass(frozen=True)
class Config:
    """The sweeps."""

    sizes: tuple[int, ...] = (32, 128, 1024, 8192)
    """Data-set sizes of the wide network, seven at most."""
    little: int = 32
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
        check_options(self, "sweeps", sizes=2, little=2, widths=1, linear_images=1, linear_draws=1)
        for name, most in (("sizes", 7), ("widths", 6), ("families", 6)):
            values = getattr(self, name)
            fine = len(values) <= most and len(set(values)) == len(values)
            require(fine, f"sweeps.{name}", values, f"at most {most}, each once")
        require(len(self.sizes) >= 2, "sweeps.sizes", self.sizes, "two or more, each 2 or more")
        require(len(self.widths) >= 1, "sweeps.widths", self.widths, "one or more")
        known = {f"{a}-{p}" for a in ("ddpmpp", "ncsnpp", "adm") for p in ("edm", "vp", "ve")}
        for family in self.families:
            require(family in known, "sweeps.families", family, f"one of {', '.join(sorted(known))}")


def check(config: Config, subject: Any) -> None:
    """Before any work: whether there are images for every arm, and every network can be built."""
    common = subject.config.networks
    images = networks.gather(common)
    sizes = _sizes(config, images)
    require(
        len(sizes) >= 2, "sweeps.sizes", config.sizes, f"two or more up to {len(images.train)}, the images there are"
    )
    networks.usable_sizes("sweeps.little", (config.little,), images, len(images.train))
    there = len(images.held) - common.held_out
    require(config.linear_images <= there, "sweeps.linear_images", config.linear_images,
            f"at most {there}: of {len(images.held)} held-out images {common.held_out} are for the distances")  # fmt: skip
    wide = common.network.model_channels
    require(min(config.widths) < wide and wide not in config.widths, "sweeps.widths", config.widths,
            f"other than networks.network.model_channels = {wide}, one below it")  # fmt: skip
    require(common.family not in config.families, "sweeps.families", config.families, f"other kinds than the networks' own, {common.family}")  # fmt: skip
    design = Design(common, images)
    for arm in _every(config, design):
        design.network(arm)


def _sizes(config: Config, images: Images) -> tuple[int, ...]:
    return networks.usable_sizes("sweeps.sizes", config.sizes, images, len(images.train))


def arms(config: Config, design: Design) -> dict[str, list[Arm]]:
    """All arms by sweep, those in two sweeps once in each: ``size`` and ``width`` seed by seed, ``families`` once."""
    seeds, sizes = range(design.config.seeds), _sizes(config, design.images)
    widths = sorted({*config.widths, design.config.network.model_channels})
    return {
        "size": [design.arm(size, seed) for size in sizes for seed in seeds],
        "width": [design.arm(config.little, seed, width) for width in widths for seed in seeds],
        "families": [design.arm(sizes[-1], 0, family=family) for family in config.families],
    }


def _every(config: Config, design: Design) -> list[Arm]:
    return list(dict.fromkeys(arm for part in arms(config, design).values() for arm in part))


def run(config: Config, subject: Any, directory: RunDirectory, seed: int) -> Section:
    """Train what is not trained yet, measure, and draw."""
    common = subject.config.networks
    images = networks.gather(common)
    trainer = Trainer(common, images, directory, seed)
    plan = arms(config, trainer)
    found = trainer.measured(_every(config, trainer), "sweeps")
    sizes = _sizes(config, images)
    by_width: dict[int, list] = {}
    for arm in plan["width"]:
        by_width.setdefault(arm.width, []).append(found[arm])
    sweep = Sweep(
        trainer,
        {size: [found[arm] for arm in plan["size"] if arm.size == size] for size in sizes},
        by_width,
        {arm.family: found[arm] for arm in (trainer.arm(sizes[-1], 0), *plan["families"])},
        {size: reference(trainer, size, sizes[-1]) for size in sorted({*sizes, config.little})},
        fresh_scores(trainer, {*sizes, config.little}),
        config.little,
        {
            name: [linear_distances(trainer, trainer.arm(size, s), config.linear_images, config.linear_draws) for s in range(common.seeds)]
            for name, size in (("memorising", config.little), ("generalising", sizes[-1]))
        },
    )  # fmt: skip
    figures = draw(sweep)
    over_sizes, over_time = _tables(sweep)
    return Section(
        "From memorising to generalising",
        _answer(sweep),
        _claims(sweep),
        [FigureEntry(file, caption) for file, caption in figures],
        [over_sizes, over_time],
        {
            "sizes": {str(row[0]): dict(zip(("least_cosine", "largest_nmse", "own", "whole", "score", "fresh"), row[1:])) for row in over_sizes.rows},
            "time": [dict(zip(("width", "seen", "peak", "own", "least_cosine", "score", "loss"), row)) for row in over_time.rows],
            "linear": {name: [float(one["linear_gaussian"].mean()) for one in each] for name, each in sweep.linear.items()},
        },
    )  # fmt: skip


def _tables(sweep: Sweep) -> tuple[Table, Table]:
    def means(found: list, *quantities: Any) -> tuple[float, ...]:
        return tuple(float(np.mean([quantity(one) for one in found])) for quantity in quantities)

    rows = [
        (size, *means([one[-1] for one in found], lambda m: m.least_cosine, lambda m: m.nmse.mean(axis=1).max(), lambda m: m.middle(),
                      lambda m: m.middle("whole"), lambda m: m.score.value), float(np.mean(sweep.fresh[size])))
        for size, found in sweep.sizes_found.items()
    ]  # fmt: skip
    times = [
        (width, found[0][place].seen, *means([one[place] for one in found], lambda m: m.peak, lambda m: m.middle(), lambda m: m.least_cosine,
                                             lambda m: m.score.value, lambda m: m.loss.mean()))
        for width, found in sweep.widths_found.items() for place in range(len(found[0]))
    ]  # fmt: skip
    return (
        Table("Networks over the data-set size, at the end of training (means over seeds)",
              ("images", "least cosine", "largest NMSE", "distance to own Gaussian", "to that of all", "GL score", "GL score of held-out images"), rows),
        Table(f"Networks on {sweep.little} images, over training (means over seeds)",
              ("channels", "images seen", "peak distance to own Gaussian", "mean", "least cosine", "GL score", "held-out loss"), times),
    )  # fmt: skip


def _claims(sweep: Sweep) -> list[JudgedClaim]:
    seeds, sizes = sweep.trainer.config.seeds, sweep.sizes

    def held(kind: str, found: analysis.Interval, bound: float, **about: Any) -> JudgedClaim:
        interval = (float(found.low), float(found.high))
        return getattr(JudgedClaim, kind)(
            value=float(found.estimate), interval=interval, threshold=bound, **({"paper": PAPER, "unit": ""} | about)
        )

    def course(width: int, quantity: Any = lambda one: one.peak) -> np.ndarray:
        return np.array([[quantity(one) for one in measured] for measured in sweep.widths_found[width]])

    few = (
        ""
        if len(sizes) >= _RANKED
        else f"a rank correlation over {len(sizes)} sizes says little: {_RANKED} or more are needed"
    )
    # It comes near and leaves again: a first, a nearest and a last network.
    kept = len(sweep.trainer.config.marks)
    once = "" if kept >= 3 else f"networks were kept {kept} times in training: 3 or more are needed"
    over = f"{seeds} seeds; {len(sizes)} sizes from {sizes[0]} to {sizes[-1]}"
    wide, narrow = course(sweep.wide), course(sweep.narrow)
    mean_wide, mean_narrow = (course(width, lambda one: one.middle()) for width in (sweep.wide, sweep.narrow))
    of_means = f"of the mean over these levels {(mean_wide.min(axis=1) / mean_wide[:, -1]).mean():.3f}"
    scores = [sweep.relative_score(measured[-1], sweep.little) for measured in sweep.widths_found[sweep.wide]]
    fresh = float(np.mean(sweep.fresh[sweep.little]))
    memorises = [
        held("at_most", analysis.t_interval(wide.min(axis=1) / wide[:, -1]), 0.8, id="min-over-final", figure="Fig 8",
             statement="The least distance to the Gaussian denoiser in training (the peak among intermediate noise levels) is less than 0.8 of the last one.", note=of_means),
        held("at_most", analysis.t_interval(wide.min(axis=1) / wide[:, 0]), 0.8, id="min-over-first", figure="Fig 8",
             statement="It is less than 0.8 of the first one measured, too."),
        held("at_most", analysis.t_interval(np.array([one[-1].score.value for one in sweep.widths_found[sweep.wide]])), 0.3, id="gl-final", figure="Fig 8",
             statement="At the end the generalisation score (14) is less than 0.3."),
        held("at_most", analysis.t_interval(scores), 0.5, id="gl-final-relative", figure="Fig 8",
             statement="The samples' generalisation score is less than half of that of held-out images.",
             note=f"held-out images score {fresh:.3f}"),
    ]  # fmt: skip
    linear = sweep.linear
    middle = intermediate(sweep.trainer.sigmas(sweep.trainer.arm(2, 0))[:-1])
    by_kind = {name: [float(one["linear_gaussian"][middle].mean()) for one in each] for name, each in linear.items()}
    nearer = [
        float((one["linear_gaussian"] - one["network_gaussian"])[middle].mean()) for one in linear["generalising"]
    ]
    return [
        held("at_least", sweep.rank(sweep.by_seed(lambda one, size: one.least_cosine)), 0.8, id=CLAIM_IDS[0], figure="Fig 1",
             statement="The minimum linearity over noise levels rises with the data-set size (Spearman's correlation).", note=over).unless(few),
        held("at_most", sweep.rank(sweep.by_seed(lambda one, size: one.middle())), -0.8, id=CLAIM_IDS[1], figure="Fig 6",
             statement="On held-out inputs the distance to the Gaussian denoiser of the training images falls with the data-set size (Spearman's correlation; mean over intermediate noise levels).", note=over).unless(few),
        JudgedClaim.all_of(memorises, id=CLAIM_IDS[2], paper=PAPER, figure="Fig 8",
                     statement=f"On {sweep.little} images the wide network ({sweep.wide} channels) comes near to the Gaussian denoiser and leaves it again while its samples become training images.").unless(once),
        held("at_most", analysis.t_interval(narrow[:, -1] / narrow.min(axis=1)), 1.1, id=CLAIM_IDS[3], figure="Fig 7",
             statement=f"The narrow network ({sweep.narrow} channels) on the same images does not leave it: the last distance (the peak among intermediate noise levels) is at most 1.1 of the least.",
             note=f"{seeds} seeds; of the mean over these levels {(mean_narrow[:, -1] / mean_narrow.min(axis=1)).mean():.3f}").unless(once),
        held("at_least", sweep.rank(sweep.by_seed(sweep.relative_score)), 0.8, id=CLAIM_IDS[4], figure="Fig 13",
             statement="The generalisation score, over that of held-out images, rises with the data-set size (Spearman's correlation).", note=over).unless(few),
        held("at_most", analysis.t_interval(nearer), 0.0, id=CLAIM_IDS[5], figure="Fig 5", unit="(RMSE, pixel units)",
             statement=f"On {sizes[-1]} images the network's best linear map is nearer to the Gaussian denoiser than the network is: the difference of these distances.", note=f"{seeds} seeds"),
        held("at_least", analysis.t_interval(np.subtract(by_kind["memorising"], by_kind["generalising"])), 0.0, id=CLAIM_IDS[6], figure="Fig 5", unit="(RMSE, pixel units)",
             statement=f"The best linear map is farther from the Gaussian denoiser where the network memorises ({sweep.little} images) than where it generalises ({sizes[-1]}).", note=f"{seeds} seeds"),
    ]  # fmt: skip


def _answer(sweep: Sweep) -> str:
    images, common = sweep.trainer.images, sweep.trainer.config
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


def costs(config: Config, plan: Any) -> list[Cost]:
    """What the part would cost: training and measuring every arm."""
    design = Design(plan.config.networks, networks.planned(plan.config.networks))
    return networks.costs("sweeps", design, _every(config, design))


PRESETS = {
    "smoke": replace(Config(), sizes=(4, 16), little=4, widths=(4,), families=(), linear_images=16, linear_draws=6),
    "default": Config(),
    "paper": Config(
        sizes=(68, 137, 1094, 4375, 8750, 35000, 70000), little=1094, widths=(4, 8, 16, 32, 64),
        families=("ddpmpp-edm", "adm-edm", "ncsnpp-ve"), linear_images=10_000, linear_draws=3,
    ),
}  # fmt: skip
