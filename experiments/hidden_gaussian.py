"""How much of a diffusion model is the Gaussian with its data's mean and covariance? ``python -m experiments.hidden_gaussian``

Of any denoiser (``--checkpoint``): how linear it is over noise levels; its best linear maps, found exactly and by Adam, beside those of
the Gaussian; its distances to the Gaussian, linear and multi-delta denoisers on the same noisy images; and the singular vectors
of its Jacobian beside the principal components. Source: Li, Dai and Qu, arXiv 2410.24060.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dgu import parallel
from dgu.errors import require
from experiments.harness.cli import run_experiment
from experiments.harness.costs import Cost
from experiments.harness.report import Report, Table
from experiments.harness.rundir import RunDirectory
from experiments.hidden_gaussian_parts import distances as distances_part
from experiments.hidden_gaussian_parts import distillation as distillation_part
from experiments.hidden_gaussian_parts import jacobians as jacobians_part
from experiments.hidden_gaussian_parts import linearity as linearity_part
from experiments.hidden_gaussian_parts.subject import FFHQ_64, gather, planned

PARTS = (linearity_part, distillation_part, distances_part, jacobians_part)
CLAIM_IDS = (
    *linearity_part.CLAIM_IDS,
    *distillation_part.CLAIM_IDS,
    *distances_part.CLAIM_IDS,
    *jacobians_part.CLAIM_IDS,
)
FIGURE_FILES = (
    *linearity_part.FIGURE_FILES,
    *distillation_part.FIGURE_FILES,
    *distances_part.FIGURE_FILES,
    *jacobians_part.FIGURE_FILES,
)


@dataclass(frozen=True)
class Config:
    """The study of hidden Gaussian structure."""

    checkpoint: str = "fashion-mnist-14"
    """Network to study: the bundled fashion-mnist-14, a network.npz, the directory of a training run, or one of NVIDIA's
    snapshots (.pkl)."""
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
    linearity: linearity_part.Config = field(default_factory=linearity_part.Config)
    distillation: distillation_part.Config = field(default_factory=distillation_part.Config)
    distances: distances_part.Config = field(default_factory=distances_part.Config)
    jacobians: jacobians_part.Config = field(default_factory=jacobians_part.Config)
    seed: int = 0
    """Seed of every draw."""

    def __post_init__(self) -> None:
        require(self.levels >= 2, "levels", self.levels, "2 or more")
        require(self.steps >= 2, "steps", self.steps, "2 or more")
        require(self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
        require(self.size is None or self.size >= 1, "size", self.size, "1 or more, or None")
        require(self.label >= 0, "label", self.label, "0 or more")
        require(self.inputs in ("held-out", "training"), "inputs", self.inputs, "held-out or training")
        require(0 <= self.seed < 2**31, "seed", self.seed, "from 0 to 2**31 - 1")


def _preset(name: str, **options: Any) -> Config:
    return Config(**{part.__name__.rpartition(".")[2]: part.PRESETS[name] for part in PARTS}, **options)


PRESETS = {
    "smoke": _preset("smoke", levels=3, steps=3, batch_size=4, train_images=40),
    "default": _preset("default"),
    "paper": _preset("paper", checkpoint=FFHQ_64, data="ffhq-64x64.zip", heldout_data="celeba-hq-64x64.zip", heldout_split="train", size=None),
}  # fmt: skip


def run(config: Config, directory: RunDirectory) -> Report:
    """The study, from network and images to claims; every stage is stored, so a run that was killed goes on."""
    subject = gather(config)
    # Refused before any work, not by a later part.
    subject.some("linearity.pairs", config.linearity.pairs, each=2)
    subject.some("distillation.images", config.distillation.images)
    subject.some("distillation.adam_images", config.distillation.adam_images)
    subject.some("distances.images", config.distances.images)
    sections = [
        linearity_part.run(config.linearity, subject, directory, config.seed),
        distillation_part.run(config.distillation, subject, directory, config.seed),
    ]
    linear, _ = distillation_part.distilled(config.distillation, subject, directory, config.seed)
    sections += [
        distances_part.run(config.distances, subject, linear, directory, config.seed),
        jacobians_part.run(config.jacobians, subject, directory, config.seed),
    ]
    metrics = {section.title: section.metrics for section in sections}
    directory.write_json("metrics.json", metrics | {"inputs": subject.inputs, "images": subject.about})
    sizes = Table(
        "Images",
        ("what", "images"),
        [
            ("training, for the Gaussian and multi-delta denoisers", len(subject.train)),
            (subject.inputs, len(subject.images)),
        ],
    )
    return Report(
        "Hidden Gaussian structure",
        f"{subject.about}. " + "".join(section.answer for section in sections),
        [claim for section in sections for claim in section.claims],
        [figure for section in sections for figure in section.figures],
        [sizes, *(table for section in sections for table in section.tables)],
    )


def dry_run(config: Config) -> list[Cost]:
    """What a run would cost: real shapes through ``jax.eval_shape``, FLOP of the network's convolutions and products."""
    from dataclasses import replace

    from experiments.harness.checkpoints import sampling_cost

    network = planned(config)
    size = network.shape[0] * network.shape[1] * network.shape[2]
    levels, matrix = config.levels, 8 * size**2
    steps = config.steps + levels + len(config.jacobians.perturbed)
    samples = max(config.distances.samples, config.jacobians.trajectories)
    counts = {
        "linearity": (linearity_part.evaluations(config.linearity), 64),
        "distillation": (distillation_part.evaluations(config.distillation, levels), config.distillation.batch_size),
        "distances": (distances_part.evaluations(config.distances, levels), config.distances.batch_size),
        "sampling": (2 * samples * (2 * steps - 1), config.batch_size),
        "jacobians": (jacobians_part.evaluations(config.jacobians, levels, steps), config.jacobians.batch_size * config.jacobians.vectors),
    }  # fmt: skip
    costs = {}
    for name, (count, batch) in counts.items():
        costs[name] = replace(sampling_cost(network, count, 1, batch), stage=name, disk=0)
    rows = config.distillation.images * config.distillation.draws
    own = config.distillation.identity_points * config.distillation.identity_draws
    seen = config.distillation.adam_images * config.distillation.adam_epochs
    products = levels * size**2 * 4.0 * (rows + own + seen) + levels * 25.0 * size**3
    found = costs["distillation"]
    # Exactly: a few d x d matrices; by Adam: the maps of all levels with two moments and a gradient, in float32.
    memory = found.memory + max(5 * matrix, 2 * levels * matrix)
    costs["distillation"] = replace(found, flop=found.flop + products, memory=memory, disk=levels * matrix / 2)
    return list(costs.values())


def main(argv: Sequence[str] | None = None) -> Any:
    """The command line."""
    return run_experiment(
        PRESETS,
        run,
        name="hidden_gaussian",
        description="How much of a diffusion model is the Gaussian with its data's mean and covariance?",
        dry_run=dry_run,
        claim_ids=CLAIM_IDS,
        figure_files=FIGURE_FILES,
        argv=argv,
    )


if __name__ == "__main__":
    parallel.start()
    main()
