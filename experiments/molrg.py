"""Do diffusion models learn a mixture of low-rank Gaussians? ``python -m experiments.molrg``

Phase transitions of subspace recovery from few examples; a trained network's images beside those of the mixture fitted to its
data; how many examples make networks generalise, against the intrinsic dimension; that dimension from the numerical rank of
the network's Jacobian; and edits of images along its singular vectors. Each part is a module of
``experiments.molrg_parts`` with options under its own name; ``--parts`` chooses among them. Source: Wang et al., arXiv 2409.02426.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from dgu.core import parallel
from experiments import molrg_parts as study
from experiments.molrg_parts.subject import CIFAR_10, gather, planned
from experiments.study import parts
from experiments.study.command_line import run_experiment
from experiments.study.costs import Cost
from experiments.study.ends import begin
from experiments.study.options import check_options
from experiments.study.report import Report
from experiments.study.run_directory import RunDirectory

#: Parts, in the order of the report; ``dimension`` looks at what ``networks`` has trained.
PartName = Literal["phase", "images", "networks", "dimension", "directions"]
EVERY: tuple[PartName, ...] = get_args(PartName)
PARTS = parts.modules(study, EVERY)
#: Parts that look at the network of ``--checkpoint``.
NEED_NETWORK = ("images", "dimension", "directions")


@dataclass(frozen=True)
class Config:
    """The study of mixtures of low-rank Gaussians."""

    checkpoint: str = "fashion-mnist-14"
    """Network to study: the bundled fashion-mnist-14, a network.npz, the directory of a training run, or one of NVIDIA's
    snapshots (.pkl)."""
    data: str = "auto"
    """Images that the network was trained on; auto is Fashion-MNIST, or, where that is not on this machine, the bundled images."""
    split: str = "train"
    """Split of these."""
    size: int | None = 14
    """Reduce the images to this size by area means; None keeps them."""
    parts: tuple[PartName, ...] = EVERY
    """Parts of the study to run."""
    phase: study.phase.Config = field(default_factory=study.phase.Config)
    images: study.images.Config = field(default_factory=study.images.Config)
    networks: study.networks.Config = field(default_factory=study.networks.Config)
    dimension: study.dimension.Config = field(default_factory=study.dimension.Config)
    directions: study.directions.Config = field(default_factory=study.directions.Config)
    seed: int = 0
    """Seed of everything drawn."""

    def __post_init__(self) -> None:
        check_options(self, size=1, seed=0)
        parts.check_each_once(self.parts)


def _with_parts(preset: str, **options: Any) -> Config:
    return Config(**options, **parts.presets(PARTS, preset))


PRESETS = {
    "smoke": _with_parts("smoke", data="fashion-mnist-mini", split="test"),
    "default": Config(),
    "paper": _with_parts("paper", checkpoint=CIFAR_10, data="cifar10", size=None),
}


def run(config: Config, directory: RunDirectory) -> Report:
    """The parts asked for, one after the other; every stage is stored, so a run that was killed goes on."""
    asked = parts.chosen(PARTS, config)
    subject = None
    if set(asked) & set(NEED_NETWORK):
        subject = gather(config.checkpoint, config.data, config.split, config.size)
    parts.check(asked, config, subject)
    sections = parts.run(asked, config, subject, directory)
    directory.write_json("metrics.json", parts.metrics(sections))
    return parts.report("Mixtures of low-rank Gaussians", [section.answer for section in sections.values()], sections)


def dry_run(config: Config) -> list[Cost]:
    """What a run would cost."""
    asked = parts.chosen(PARTS, config)
    network = planned(config.checkpoint) if set(asked) & set(NEED_NETWORK) else None
    return parts.costs(asked, config, network)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; ``argv`` is that of the process by default."""
    run_experiment(
        PRESETS,
        run,
        name="molrg",
        description="Do diffusion models learn a mixture of low-rank Gaussians: when are its subspaces found, when do networks "
        "generalise, and what do the directions of their Jacobians change?",
        dry_run=dry_run,
        argv=argv,
    )


if __name__ == "__main__":
    begin("molrg", parallel.start)
    main()
