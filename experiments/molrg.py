"""Do diffusion models learn a mixture of low-rank Gaussians? ``python -m experiments.molrg``

Phase transitions of subspace recovery from few examples; a trained network's images beside those of the mixture fitted to its
data; how many examples make networks generalise, against the intrinsic dimension; that dimension from the numerical rank of
the network's Jacobian; and edits of images along its singular vectors. Each part is a module of
``experiments.molrg_parts`` with options under its own name; ``--parts`` chooses among them. Source: Wang et al., arXiv 2409.02426.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from dgu import parallel
from dgu.errors import require
from experiments import molrg_parts as study
from experiments.harness.cli import run_experiment
from experiments.harness.costs import Cost
from experiments.harness.report import FigureEntry, Report, Section, Table, check_promises
from experiments.harness.rundir import RunDirectory
from experiments.molrg_parts.subject import CIFAR_10, gather, planned

#: In the order of the report; ``dimension`` looks at what ``networks`` has trained.
PARTS: dict[str, Any] = {
    "phase": study.phase,
    "images": study.images,
    "networks": study.networks,
    "dimension": study.dimension,
    "directions": study.directions,
}
PartName = Literal["phase", "images", "networks", "dimension", "directions"]
EVERY: tuple[PartName, ...] = get_args(PartName)
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
        once = bool(self.parts) and len(set(self.parts)) == len(self.parts)
        require(once, "parts", self.parts, "one or more, each once")
        require(self.size is None or self.size >= 1, "size", self.size, "1 or more, or None")
        require(0 <= self.seed < 2**31, "seed", self.seed, "from 0 to 2**31 - 1")


def _with_parts(preset: str, **options: Any) -> Config:
    return Config(**options, **{name: part.PRESETS[preset] for name, part in PARTS.items()})


PRESETS = {
    "smoke": _with_parts("smoke", data="fashion-mnist-mini", split="test"),
    "default": Config(),
    "paper": _with_parts("paper", checkpoint=CIFAR_10, data="cifar10", size=None),
}


def run(config: Config, directory: RunDirectory) -> Report:
    """The parts asked for, one after the other; every stage is stored, so a run that was killed goes on."""
    names = [name for name in PARTS if name in config.parts]
    subject = None
    if set(names) & set(NEED_NETWORK):
        subject = gather(config.checkpoint, config.data, config.split, config.size)
    for name in names:
        if hasattr(PARTS[name], "check"):
            PARTS[name].check(getattr(config, name), subject)
    sections: dict[str, Section] = {}
    for name in names:
        part = PARTS[name]
        print(f"{name}: {_question(name)}", flush=True)
        section = part.run(getattr(config, name), subject, directory, config.seed)
        check_promises(f"the part {name}", section, part.CLAIM_IDS, part.FIGURE_FILES)
        sections[name] = section
    directory.write_json("metrics.json", {name: section.metrics for name, section in sections.items()})
    every = list(sections.values())
    return Report(
        "Mixtures of low-rank Gaussians",
        "\n".join(section.answer for section in every),
        claims=[claim for section in every for claim in section.claims],
        figures=[FigureEntry(f.file, f"{s.title}. {f.caption}") for s in every for f in s.figures],
        tables=[Table(f"{s.title}: {t.title}", t.header, t.rows) for s in every for t in s.tables],
    )


def _question(name: str) -> str:
    return (PARTS[name].__doc__ or "").strip().splitlines()[0]


def dry_run(config: Config) -> list[Cost]:
    """What a run would cost."""
    names = [name for name in PARTS if name in config.parts]
    network = planned(config.checkpoint) if set(names) & set(NEED_NETWORK) else None
    return [cost for name in names for cost in PARTS[name].costs(getattr(config, name), network)]


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
    parallel.start()
    main()
