"""From memorising to generalising: networks over training-set size, width and training time.

Figs 1, 5 to 8, 11 to 13, 15 to 23 and 25 of the paper.

By default small DDPM++ networks are trained on 8 x 8 images (Fashion-MNIST, padded to 32 pixels and reduced by means):
18 networks that see 80,000 images each, 1.4 million in all, which takes two cores a quarter of an hour. 180,000
parameters learn 32 images by heart in that time (more images take longer: of 64 they have learned half as much); 8,192
images they cannot. Verdicts are over three seeds, on different images. The multi-delta denoiser of the same images
shows exactly what a network that memorises perfectly would; it is drawn beside the networks.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dgu.core.errors import require
from experiments.hidden_gaussian import networks
from experiments.hidden_gaussian.images import Images
from experiments.hidden_gaussian.networks import Arm, Design
from experiments.hidden_gaussian.subject import PAPER, Plan, Subject
from experiments.hidden_gaussian.sweep_claims import declared, tested
from experiments.hidden_gaussian.sweep_figures import FIGURES, draw
from experiments.hidden_gaussian.sweep_results import Sweep, denoised, fresh_scores, linear_distances, reference
from experiments.hidden_gaussian.trainer import Measured, Trainer
from experiments.study import Claim, Cost, Findings, Options, Part, Run, Table, option

#: The paper's kinds of networks beside its own.
_KINDS = ("ddpmpp-edm", "adm-edm", "ncsnpp-ve")


@dataclass(frozen=True)
class Config(Options, prefix="sweeps"):
    """The sweeps over training-set size, width, training time and kinds of networks."""

    sizes: tuple[int, ...] = option((32, 128, 1024, 8192), ge=2)
    """Training-set sizes of the wide network, seven at most."""
    little: int = option(32, ge=2)
    """Training images of the sweep over widths, and of that over training time."""
    widths: tuple[int, ...] = option((4,), ge=1)
    """Widths (channels) in addition to the wide network's, six at most; the smallest is the narrow network."""
    families: tuple[str, ...] = ("ncsnpp-edm", "adm-edm", "ddpmpp-vp")
    """Other kinds of networks, trained on the largest set once: ddpmpp, ncsnpp or adm, and edm, vp or ve."""
    linear_images: int = option(300, ge=1)
    """Held-out images on which networks are distilled; distances are then taken on others."""
    linear_draws: int = option(6, ge=1)
    """Noisy versions of each of these images."""

    def check(self) -> None:
        """No list is too short, too long or names anything twice."""
        for name, most in (("sizes", 7), ("widths", 6), ("families", 6)):
            values = getattr(self, name)
            fine = len(values) <= most and len(set(values)) == len(values)
            require(fine, f"sweeps.{name}", values, f"at most {most}, each once")
        require(len(self.sizes) >= 2, "sweeps.sizes", self.sizes, "two or more, each 2 or more")
        require(len(self.widths) >= 1, "sweeps.widths", self.widths, "one or more")
        known = {f"{a}-{p}" for a in ("ddpmpp", "ncsnpp", "adm") for p in ("edm", "vp", "ve")}
        for family in self.families:
            require(family in known, "sweeps.families", family, f"one of {', '.join(sorted(known))}")


def _on(sizes: tuple[int, ...], little: int, widths: tuple[int, ...]) -> Config:
    """The paper's sweeps on another of its sets of images."""
    return Config(sizes=sizes, little=little, widths=widths, families=_KINDS, linear_images=3_000, linear_draws=3)


PRESETS = {
    "smoke": Config(sizes=(4, 16), little=4, widths=(4,), families=(), linear_images=16, linear_draws=6),
    "default": Config(),
    "paper": Config(
        sizes=(68, 137, 1094, 4375, 8750, 35000, 70000),
        little=1094,
        widths=(4, 8, 16, 32, 64),
        families=_KINDS,
        linear_images=10_000,
        linear_draws=3,
    ),
    "paper-cifar10": _on((782, 1563, 3125, 6250, 12500, 25000, 50000), 782, (4, 8, 16, 32)),
    "paper-afhqv2": _on((123, 494, 1975, 7901), 123, (4, 8, 16, 32, 64)),
    "paper-churches": _on((68, 137, 1094, 4375, 8750, 35000), 1094, (4, 8, 16, 32, 64)),
}


def claims(config: Config) -> tuple[Claim, ...]:
    """What is tested."""
    return declared(config.little, min(config.widths))


def check(config: Config, subject: Subject) -> None:
    """Before any work: are there images for every arm, and can every network be built?"""
    common = subject.config.networks
    images = networks.gather(common)
    most, wide = len(images.train), common.network.model_channels
    enough = len(_sizes(config, images)) >= 2
    require(enough, "sweeps.sizes", config.sizes, f"two or more up to {most}, the number of images")
    networks.usable_sizes("sweeps.little", (config.little,), images, most)
    left = len(images.held) - common.held_out
    allowed = f"at most {left}: of {len(images.held)} held-out images {common.held_out} are for the distances"
    require(config.linear_images <= left, "sweeps.linear_images", config.linear_images, allowed)
    allowed = f"other than networks.network.model_channels = {wide}, one below it"
    require(min(config.widths) < wide and wide not in config.widths, "sweeps.widths", config.widths, allowed)
    allowed = f"other kinds than the networks' own, {common.family}"
    require(common.family not in config.families, "sweeps.families", config.families, allowed)
    design = Design(common, images)
    for arm in _every(config, design):
        design.network(arm)


def _sizes(config: Config, images: Images) -> tuple[int, ...]:
    return networks.usable_sizes("sweeps.sizes", config.sizes, images, len(images.train))


def arms(config: Config, design: Design) -> dict[str, list[Arm]]:
    """All arms by sweep; an arm of two sweeps is in both: ``size`` and ``width`` seed by seed, ``families`` once."""
    seeds, sizes = range(design.config.seeds), _sizes(config, design.images)
    widths = sorted({*config.widths, design.config.network.model_channels})
    return {
        "size": [design.arm(size, seed) for size in sizes for seed in seeds],
        "width": [design.arm(config.little, seed, width) for width in widths for seed in seeds],
        "families": [design.arm(sizes[-1], 0, family=family) for family in config.families],
    }


def _every(config: Config, design: Design) -> list[Arm]:
    return list(dict.fromkeys(arm for part in arms(config, design).values() for arm in part))


def measure(config: Config, subject: Subject, run: Run) -> Sweep:
    """Train what is not trained yet, and measure it beside the closed forms."""
    common = subject.config.networks
    trainer = Trainer(common, networks.gather(common), run.directory, run.seed)
    plan, sizes, seeds = arms(config, trainer), _sizes(config, trainer.images), range(common.seeds)
    found = trainer.measured(_every(config, trainer), "sweeps")
    by_width: dict[int, list[list[Measured]]] = {}
    for arm in plan["width"]:
        by_width.setdefault(arm.width, []).append(found[arm])
    every = sorted({*sizes, config.little})
    references = {size: reference(trainer, run, size, sizes[-1]) for size in every}
    fresh = fresh_scores(trainer, run, set(every))

    def linear(size: int) -> list[dict[str, np.ndarray]]:
        count, draws = config.linear_images, config.linear_draws
        return [linear_distances(trainer, run, trainer.arm(size, seed), count, draws) for seed in seeds]

    return Sweep(
        trainer=trainer,
        sizes_found={size: [found[arm] for arm in plan["size"] if arm.size == size] for size in sizes},
        widths_found=by_width,
        families_found={arm.family: found[arm] for arm in (trainer.arm(sizes[-1], 0), *plan["families"])},
        references=references,
        fresh=fresh,
        little=config.little,
        linear={"memorising": linear(config.little), "generalising": linear(sizes[-1])},
        denoised=denoised(trainer, run, (sizes[0], sizes[-1])),
    )


def report(config: Config, subject: Subject, sweep: Sweep) -> Findings:
    """The networks over size, width and training time."""
    over_sizes, over_time = _over_sizes(sweep), _over_time(sweep)
    by_size = ("least_cosine", "largest_nmse", "own", "whole", "score", "fresh")
    by_time = ("width", "seen", "peak", "own", "least_cosine", "score", "loss")
    return Findings(
        _answer(sweep),
        claims=tested(sweep),
        figures=draw(sweep),
        tables=[over_sizes, over_time],
        metrics={
            "sizes": {str(row[0]): dict(zip(by_size, row[1:])) for row in over_sizes.rows},
            "time": [dict(zip(by_time, row)) for row in over_time.rows],
            "linear": {
                name: [float(one["linear_gaussian"].mean()) for one in found] for name, found in sweep.linear.items()
            },
        },
    )


def _means(found: list[Measured], *quantities: Callable[[Measured], float]) -> tuple[float, ...]:
    return tuple(float(np.mean([quantity(one) for one in found])) for quantity in quantities)


def _over_sizes(sweep: Sweep) -> Table:
    rows = []
    for size, found in sweep.sizes_found.items():
        measured = _means(
            [one[-1] for one in found],
            lambda one: one.least_cosine,
            lambda one: one.nmse.mean(axis=1).max(),
            lambda one: one.middle(),
            lambda one: one.middle("whole"),
            lambda one: float(one.score.value),
        )
        rows.append((size, *measured, float(np.mean(sweep.fresh[size]))))
    head = (
        "images",
        "least cosine",
        "largest NMSE",
        "distance to own Gaussian",
        "to that of all",
        "GL score",
        "GL score of held-out images",
    )
    return Table("Networks over the size of the training set, at the end of training (means over seeds)", head, rows)


def _over_time(sweep: Sweep) -> Table:
    rows = []
    for width, found in sweep.widths_found.items():
        for place, first in enumerate(found[0]):
            measured = _means(
                [one[place] for one in found],
                lambda one: one.peak,
                lambda one: one.middle(),
                lambda one: one.least_cosine,
                lambda one: float(one.score.value),
                lambda one: one.loss.mean(),
            )
            rows.append((width, first.seen, *measured))
    head = (
        "channels",
        "images seen",
        "peak distance to own Gaussian",
        "mean",
        "least cosine",
        "GL score",
        "held-out loss",
    )
    return Table(f"Networks on {sweep.little} images, over training (means over seeds)", head, rows)


def _answer(sweep: Sweep) -> str:
    images, common = sweep.trainer.images, sweep.trainer.config
    first, last = sweep.sizes[0], sweep.sizes[-1]

    def change(quantity: Callable[[Measured], float]) -> tuple[float, float]:
        """The mean over seeds on the smallest and on the largest set."""
        few, many = (_means([one[-1] for one in sweep.sizes_found[size]], quantity)[0] for size in (first, last))
        return few, many

    cosine, distance = change(lambda one: one.least_cosine), change(lambda one: one.middle())
    score, fresh = (
        change(lambda one: float(one.score.value)),
        [float(np.mean(sweep.fresh[size])) for size in (first, last)],
    )
    return (
        f"Networks of {sweep.wide} channels saw {common.training.duration_kimg * 1000:,.0f} images each (of "
        f"{images.about}). From {first} to {last} training images the least linearity goes from {cosine[0]:.3f} to "
        f"{cosine[1]:.3f}, the distance to the Gaussian denoiser from {distance[0]:.3f} to {distance[1]:.3f}, and the "
        f"generalisation score from {score[0]:.3f} (held-out images: {fresh[0]:.3f}) to {score[1]:.3f} "
        f"({fresh[1]:.3f})."
    )


def costs(config: Config, plan: Plan) -> list[Cost]:
    """Training and measuring every arm."""
    design = Design(plan.config.networks, networks.planned(plan.config.networks))
    return networks.costs("sweeps", design, _every(config, design))


PART = Part(
    name="sweeps",
    title="From memorising to generalising",
    question="How do networks change from memorising to generalising over training-set size, width and training time?",
    paper=PAPER,
    presets=PRESETS,
    claims=claims,
    figures=FIGURES,
    measure=measure,
    report=report,
    costs=costs,
    check=check,
)
