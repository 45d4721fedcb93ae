"""From memorising to generalising: networks over training-set size, width and training time.

Figs 1, 5 to 8, 11 to 23 and 25 of the paper.

By default small DDPM++ networks are trained on 8 x 8 images (Fashion-MNIST, padded to 32 pixels and reduced by means):
18 networks that see 80,000 images each, 1.4 million in all, trained side by side, one to a device. 180,000
parameters learn 32 images by heart in that time (more images take longer: of 64 they have learned half as much); 8,192
images they cannot. Verdicts are over three seeds, on different images. The multi-delta denoiser of the same images
shows exactly what a network that memorises perfectly would; it is drawn beside the networks.
"""

from dataclasses import dataclass, replace

from dgu.core.errors import require
from experiments.hidden_gaussian import networks
from experiments.hidden_gaussian.arms import Arm, Design, training_costs
from experiments.hidden_gaussian.images import Images
from experiments.hidden_gaussian.subject import PAPER, Plan, Subject
from experiments.hidden_gaussian.sweep_claims import declared, tested
from experiments.hidden_gaussian.sweep_figures import FIGURES, draw
from experiments.hidden_gaussian.sweep_maps import adam_course, linear_distances, linear_model
from experiments.hidden_gaussian.sweep_pictures import denoised
from experiments.hidden_gaussian.sweep_results import Sweep, fresh_scores, reference
from experiments.hidden_gaussian.trainer import Measured, summaries, train_and_measure
from experiments.study import Claim, Cost, Findings, Options, Part, Run, Table, option
from experiments.study.flop import network_flop

#: The paper's kinds of networks beside its own.
_KINDS = ("ddpmpp-edm", "adm-edm", "ncsnpp-ve")
#: Quantities over the size of the training set and over training, with the heads of their columns.
_OVER_SIZES = {
    "least_cosine": "least cosine",
    "largest_nmse": "largest NMSE",
    "own": "distance to own Gaussian",
    "whole": "to that of all",
    "score": "GL score",
}
_OVER_TIME = {
    "peak": "peak distance to own Gaussian",
    "own": "mean",
    "least_cosine": "least cosine",
    "score": "GL score",
    "loss": "held-out loss",
}


@dataclass(frozen=True)
class Config(Options, prefix="sweeps"):
    """The sweeps over training-set size, width, training time and kinds of networks."""

    sizes: tuple[int, ...] = option((32, 128, 1024, 8192), ge=2)
    """Training-set sizes of the wide network, seven at most."""
    little: int = option(32, ge=2)
    """Training images of the sweep over widths, and of that over training time."""
    widths: tuple[int, ...] = option((4,), ge=1)
    """Widths (channels) in addition to the wide network's, six at most; the smallest is the narrow network, and on
    little data the largest is the wide one."""
    between: tuple[int, ...] = option((1024,), ge=2)
    """Of the sizes those whose networks are shown in pictures and beside linear maps, in addition to the smallest and
    the largest."""
    families: tuple[str, ...] = ("ncsnpp-edm", "adm-edm", "ncsnpp-ve")
    """Other kinds of networks, trained on the largest set once: ddpmpp, ncsnpp or adm, and edm, vp or ve."""
    linear_images: int = option(300, ge=1)
    """Held-out images on which networks are distilled; distances are then taken on others."""
    linear_draws: int = option(6, ge=1)
    """Noisy versions of each of these images."""
    adam_epochs: int = option(25, ge=1)
    """Passes of Adam over these images, to distil each kind of network."""
    adam_batch: int = option(32, ge=1)
    """Images in a step of Adam."""

    def check(self) -> None:
        """No list is too short, too long or names anything twice."""
        for name, most in (("sizes", 7), ("widths", 6), ("between", 5), ("families", 3)):
            values = getattr(self, name)
            fine = len(values) <= most and len(set(values)) == len(values)
            require(fine, f"sweeps.{name}", values, f"at most {most}, each once")
        require(len(self.sizes) >= 2, "sweeps.sizes", self.sizes, "two or more, each 2 or more")
        require(len(self.widths) >= 1, "sweeps.widths", self.widths, "one or more")
        known = {f"{a}-{p}" for a in ("ddpmpp", "ncsnpp", "adm") for p in ("edm", "vp", "ve")}
        for family in self.families:
            require(family in known, "sweeps.families", family, f"one of {', '.join(sorted(known))}")


def _on(sizes: tuple[int, ...], little: int, widths: tuple[int, ...], between: tuple[int, ...]) -> Config:
    """The paper's sweeps on one of its sets of images."""
    return Config(
        sizes=sizes,
        little=little,
        widths=widths,
        between=between,
        families=_KINDS,
        linear_images=3_000,
        linear_draws=3,
        adam_epochs=100,
        adam_batch=256,
    )


PRESETS = {
    "smoke": Config(
        sizes=(4, 16), little=4, widths=(4,), between=(), families=(), linear_images=16, linear_draws=6, adam_epochs=2
    ),
    "default": Config(),
    "paper": replace(
        _on((68, 137, 1094, 4375, 8750, 35000, 70000), 1094, (4, 8, 16, 32, 64), (1094, 4375, 35000)),
        linear_images=29_500,
        linear_draws=1,
    ),
    "paper-cifar10": _on((782, 1563, 3125, 6250, 12500, 25000, 50000), 782, (4, 8, 16, 32, 128), (1563, 12500, 25000)),
    "paper-afhqv2": _on((123, 494, 1975, 7901), 123, (4, 8, 16, 32, 64), (1975,)),
    "paper-churches": _on((68, 137, 1094, 4375, 8750, 35000), 1094, (4, 8, 16, 32, 64), (1094, 4375)),
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
    design = Design(common, images, subject.config.seed)
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
    design = Design(common, networks.gather(common), run.seed)
    plan, sizes = arms(config, design), _sizes(config, design.images)
    found = train_and_measure(design, run.directory, _every(config, design), "sweeps")
    by_width: dict[int, list[list[Measured]]] = {}
    for arm in plan["width"]:
        by_width.setdefault(arm.width, []).append(found[arm])
    every = sorted({*sizes, config.little})
    references = {size: reference(design, run, size, sizes[-1]) for size in every}
    fresh = run.stage("fresh", fresh_scores, design, every)
    count, draws = config.linear_images, config.linear_draws
    linear = {
        size: [linear_distances(design, run, design.arm(size, seed), count, draws) for seed in used]
        for size, used in _mapped(config, sizes, common.seeds).items()
    }
    kinds = [design.arm(sizes[-1], 0), *plan["families"]]
    return Sweep(
        design=design,
        sizes_found={size: [found[arm] for arm in plan["size"] if arm.size == size] for size in sizes},
        widths_found=by_width,
        families_found={arm.family: found[arm] for arm in kinds},
        references=references,
        fresh={size: fresh[f"n{size}"] for size in every},
        little=config.little,
        pictured=_pictured(config, sizes),
        linear=linear,
        model=linear_model(design, run, kinds[0], count, draws),
        adam={
            arm.family: adam_course(design, run, arm, count, config.adam_epochs, config.adam_batch)
            for arm in kinds
            if _distilled(arm, common)
        },
        denoised=denoised(design, run, _pictured(config, sizes), [arm for arm in plan["width"] if arm.seed == 0]),
    )


def _pictured(config: Config, sizes: tuple[int, ...]) -> list[int]:
    """The sizes whose networks are shown in pictures, rising."""
    return sorted({sizes[0], *(size for size in config.between if size in sizes), sizes[-1]})


def _mapped(config: Config, sizes: tuple[int, ...], seeds: int) -> dict[int, range]:
    """The sizes whose networks have their best linear maps found, with the seeds: all where claims are tested, else the
    first."""
    tested = (config.little, sizes[-1])
    return {size: range(seeds if size in tested else 1) for size in sorted({*_pictured(config, sizes), *tested})}


def _distilled(arm: Arm, common: networks.Config) -> bool:
    """Whether the arm has the preconditioning of the wide network, and so its noise levels."""
    return arm.family.split("-")[1] == common.network.preconditioning


def report(config: Config, subject: Subject, sweep: Sweep) -> Findings:
    """The networks over size, width and training time."""
    over_sizes = {
        size: {name: float(sweep.over_sizes(name)[:, place].mean()) for name in _OVER_SIZES}
        | {"fresh": sweep.fresh_mean(size)}
        for place, size in enumerate(sweep.sizes)
    }
    over_time: list[dict[str, float]] = [
        {"width": width, "seen": checkpoint.seen}
        | {name: float(summaries(courses, name)[:, place].mean()) for name in _OVER_TIME}
        for width, courses in sweep.widths_found.items()
        for place, checkpoint in enumerate(courses[0])
    ]
    return Findings(
        _answer(sweep, over_sizes[sweep.sizes[0]], over_sizes[sweep.sizes[-1]]),
        claims=tested(sweep),
        figures=draw(sweep),
        tables=[
            Table(
                "Networks over the size of the training set, at the end of training (means over seeds)",
                ("images", *_OVER_SIZES.values(), "GL score of held-out images"),
                [(size, *row.values()) for size, row in over_sizes.items()],
            ),
            Table(
                f"Networks on {sweep.little} images, over training (means over seeds)",
                ("channels", "images seen", *_OVER_TIME.values()),
                [tuple(row.values()) for row in over_time],
            ),
        ],
        metrics={
            "sizes": {str(size): row for size, row in over_sizes.items()},
            "time": over_time,
            "linear": {
                str(size): [float(one["linear_gaussian"].mean()) for one in found]
                for size, found in sweep.linear.items()
            },
        },
    )


def _answer(sweep: Sweep, few: dict[str, float], many: dict[str, float]) -> str:
    """The findings in a sentence, from means over seeds on the smallest and on the largest training set."""
    common = sweep.design.config
    return (
        f"Networks of {sweep.wide} channels saw {common.training.duration_kimg * 1000:,.0f} images each (of "
        f"{sweep.design.images.about}). From {sweep.sizes[0]} to {sweep.sizes[-1]} training images the least "
        f"linearity goes from {few['least_cosine']:.3f} to {many['least_cosine']:.3f}, the distance to the Gaussian "
        f"denoiser from {few['own']:.3f} to {many['own']:.3f}, and the generalisation score from {few['score']:.3f} "
        f"(held-out images: {few['fresh']:.3f}) to {many['score']:.3f} ({many['fresh']:.3f})."
    )


def costs(config: Config, plan: Plan) -> list[Cost]:
    """Training and measuring every arm."""
    common = plan.config.networks
    design = Design(common, networks.planned(common), plan.config.seed)
    found, sizes = training_costs("sweeps", design, _every(config, design)), _sizes(config, design.images)
    maps = 1 + sum(len(seeds) for seeds in _mapped(config, sizes, common.seeds).values())
    kinds = [arm for arm in (design.arm(sizes[-1], 0), *arms(config, design)["families"]) if _distilled(arm, common)]
    looked = common.levels * config.linear_images * (maps * config.linear_draws + len(kinds) * config.adam_epochs)
    flop = looked * max(network_flop(design.network(arm)) for arm in kinds)
    return [*found, replace(found[1], stage="sweeps: linear maps", network_evaluations=looked, flop=flop)]


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
