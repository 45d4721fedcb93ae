"""How much of a diffusion model is the Gaussian with its data's mean and covariance? ``python -m experiments.hidden_gaussian``

Of any denoiser (``--checkpoint``): how linear it is over noise levels; its best linear maps, found exactly and by Adam, beside those of
the Gaussian; its distances to the Gaussian, linear and multi-delta denoisers on the same noisy images; and the singular vectors
of its Jacobian beside the principal components; the same of autoencoders that it trains at one noise level each. Of networks that it
trains itself: how they change from memorising to generalising over data-set size, width and training time, and whether two that were
trained on disjoint data make the same images of the same noise. Source: Li, Dai and Qu, arXiv 2410.24060.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from dgu.core import parallel
from dgu.core.errors import require
from experiments import hidden_gaussian_parts as study
from experiments.hidden_gaussian_parts.subject import FFHQ_64, Plan, Subject
from experiments.study import parts
from experiments.study.checkpoints import UNTRAINED
from experiments.study.command_line import run_experiment
from experiments.study.costs import Cost
from experiments.study.ends import begin
from experiments.study.options import check_options
from experiments.study.report import Report, Table
from experiments.study.run_directory import RunDirectory

#: Parts, in the order of the report.
PartName = Literal["linearity", "distillation", "distances", "jacobians", "autoencoders", "sweeps", "strong"]
EVERY: tuple[PartName, ...] = get_args(PartName)
PARTS = parts.modules(study, EVERY)
#: Parts that measure the network of ``--checkpoint``; the others run without one.
NEED_NETWORK: tuple[PartName, ...] = ("linearity", "distillation", "distances", "jacobians", "autoencoders")
#: Parts that train networks of their own.
TRAINED: tuple[PartName, ...] = ("autoencoders", "sweeps", "strong")


@dataclass(frozen=True)
class Config:
    """The study of hidden Gaussian structure."""

    checkpoint: str = "fashion-mnist-14"
    """Network to study: the bundled fashion-mnist-14, a network.npz, the directory of a training run, or one of NVIDIA's
    snapshots (.pkl); "untrained" is a tiny one for trying things out."""
    data: str = "auto"
    """Images that the network was trained on, for the Gaussian and the multi-delta denoiser; auto is Fashion-MNIST, or, where
    that is not on this machine, the bundled images, half of them."""
    train_split: str = "train"
    """Split of these."""
    heldout_data: str | None = None
    """Images that the network has not seen, if not of the same set."""
    heldout_split: str = "test"
    """Split of these; where set and split are those of the training images, each gives every other image."""
    size: int | None = 14
    """Reduce the images to this size by area means; None keeps them."""
    label: int = 0
    """The class that a class-conditional network is studied at."""
    train_images: int | None = None
    """Use so many of the training images, the first; None uses all."""
    inputs: Literal["held-out", "training"] = "held-out"
    """Which images the denoisers are compared and distilled on. On its own data an exact posterior mean has the Gaussian's maps
    whatever the data: held-out images tell more."""
    levels: int = 10
    """Noise levels of maps, distances and Jacobians: the authors' grid from 80 to 0.002, within the network's range."""
    steps: int = 18
    """Heun steps of the sampler, beside those to the levels studied."""
    batch_size: int = 10
    """Samples at a time."""
    parts: tuple[PartName, ...] = EVERY
    """Parts of the study to run."""
    linearity: study.linearity.Config = field(default_factory=study.linearity.Config)
    distillation: study.distillation.Config = field(default_factory=study.distillation.Config)
    distances: study.distances.Config = field(default_factory=study.distances.Config)
    jacobians: study.jacobians.Config = field(default_factory=study.jacobians.Config)
    autoencoders: study.autoencoders.Config = field(default_factory=study.autoencoders.Config)
    networks: study.networks.Config = field(default_factory=study.networks.Config)
    sweeps: study.sweeps.Config = field(default_factory=study.sweeps.Config)
    strong: study.strong.Config = field(default_factory=study.strong.Config)
    seed: int = 0
    """Seed of every draw."""

    def __post_init__(self) -> None:
        check_options(self, size=1, label=0, train_images=1, levels=2, steps=2, batch_size=1, seed=0)
        require(self.inputs in ("held-out", "training"), "inputs", self.inputs, "held-out or training")
        parts.check_each_once(self.parts)


def _preset(name: str, **options: Any) -> Config:
    return Config(**parts.presets(PARTS, name), networks=study.networks.PRESETS[name], **options)


PRESETS = {
    # Of the parts that train networks each takes as long as all the others to compile; they are had by name.
    "smoke": _preset("smoke", checkpoint=UNTRAINED, size=7, levels=3, steps=3, batch_size=4, train_images=40,
                     parts=tuple(name for name in EVERY if name not in TRAINED)),
    "default": _preset("default"),
    "paper": _preset("paper", checkpoint=FFHQ_64, data="ffhq-64x64.zip", heldout_data="celeba-hq-64x64.zip", heldout_split="train", size=None),
}  # fmt: skip
# The sweeps on the paper's other sets of images.
for _name, _sizes, _little, _widths, _strong in (
    ("cifar10", (782, 1563, 3125, 6250, 12500, 25000, 50000), 782, (4, 8, 16, 32), ((782, 25000), 4)),
    ("afhqv2", (123, 494, 1975, 7901), 123, (4, 8, 16, 32, 64), ((123, 3950), 8)),
    ("churches", (68, 137, 1094, 4375, 8750, 35000), 1094, (4, 8, 16, 32, 64), ((1094, 31000), 8)),
):
    PRESETS[f"paper-{_name}"] = replace(
        PRESETS["paper"],
        parts=("sweeps", "strong"),
        networks=study.networks.PRESETS[f"paper-{_name}"],
        sweeps=replace(PRESETS["paper"].sweeps, sizes=_sizes, little=_little, widths=_widths, linear_images=3_000),
        strong=replace(PRESETS["paper"].strong, sizes=_strong[0], narrow=_strong[1]),
    )


def run(config: Config, directory: RunDirectory) -> Report:
    """The parts asked for, one after the other; every stage is stored, so a run that was killed goes on."""
    subject = Subject(config)
    asked = parts.chosen(PARTS, config)
    parts.check(asked, config, subject)
    sections = parts.run(asked, config, subject, directory)
    metrics = parts.metrics(sections)
    answers, tables = [section.answer for section in sections.values()], []
    if set(asked) & set(NEED_NETWORK):
        metrics |= {"inputs": subject.inputs, "images": {"train": len(subject.train), "inputs": len(subject.images)}}
        answers.insert(0, f"Of {config.checkpoint}, with {subject.about}.")
        made = ("training, for the Gaussian and multi-delta denoisers", len(subject.train))
        tables = [Table("Images", ("what", "images"), [made, (subject.inputs, len(subject.images))])]
    directory.write_json("metrics.json", metrics)
    return parts.report("Hidden Gaussian structure", answers, sections, tables)


def dry_run(config: Config) -> list[Cost]:
    """What a run would cost: real shapes through ``jax.eval_shape``, FLOP of the network's convolutions and products."""
    return parts.costs(parts.chosen(PARTS, config), config, Plan(config))


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; ``argv`` is that of the process by default."""
    run_experiment(
        PRESETS,
        run,
        name="hidden_gaussian",
        description="How much of a diffusion model is the Gaussian with its data's mean and covariance?",
        dry_run=dry_run,
        argv=argv,
    )


if __name__ == "__main__":
    begin("hidden_gaussian", parallel.start)
    main()
