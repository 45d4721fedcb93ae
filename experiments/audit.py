"""What is the matter with these generated images? One report about two image sets, generated and training.
``python -m experiments.audit --samples A --reference B``

Memorisation, first and second moments, spectra, tails, universality, Frechet distance and KID, class balance, precision, recall,
density and coverage, and, given the network, membership inference: each number with an interval, and beside it the same number
for real images that the model never saw (``--holdout``, or a part of the reference): what a perfect model would show.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from dgu.analysis.universality.arms import Recipe
from dgu.core import parallel
from dgu.core.errors import require
from experiments.study.command_line import run_experiment
from experiments.study.costs import Cost
from experiments.study.ends import begin
from experiments.study.options import check_options
from experiments.study.pool import SamplerConfig
from experiments.study.report import Report, Table
from experiments.study.run_directory import RunDirectory

if TYPE_CHECKING:
    from experiments.audit_parts.images import Sets

#: Of the audit itself; each part names its own claims and figures, and leaves them out, with its reason, where it cannot be made.
FIGURE_FILES = ("figures/samples.png",)


@dataclass(frozen=True)
class JudgeConfig:
    """The classifier that sees which class an image is of."""

    images: int = 20_000
    """Reference images that it is trained on, at most."""
    epochs: int = 6
    """Passes over them."""

    def __post_init__(self) -> None:
        check_options(self, "judge", images=200, epochs=1)


@dataclass(frozen=True)
class UniversalityConfig:
    """Linear classifiers on samples and on a Gaussian mixture with their class moments."""

    replicates: int = 20
    """New splits of the samples; 0 leaves the section out."""
    most_per_class: int = 1000
    """Images of each class and set that are used, at most."""
    margin: float = 2.5
    """Differences of accuracy below this count as none, in percentage points."""
    recipe: Recipe = field(default_factory=lambda: Recipe(epochs=40, learning_rates=(0.1, 0.3, 1.0)))

    def __post_init__(self) -> None:
        check_options(self, "universality", replicates=0, most_per_class=12, margin="(0, inf)")
        require(self.replicates != 1, "universality.replicates", self.replicates, "0, or 2 or more")


@dataclass(frozen=True)
class MembershipConfig:
    """The attack by the denoising loss."""

    count: int = 2000
    """Training images and held-out images, so many of each at most."""
    sigmas: tuple[float, ...] = (0.1, 0.3, 1.0)
    """Noise levels at which the loss is taken."""
    draws: int = 2
    """Draws of the noise for each image and level."""

    def __post_init__(self) -> None:
        check_options(self, "membership", count=2, sigmas="(0, inf)", draws=1)
        require(bool(self.sigmas), "membership.sigmas", self.sigmas, "one or more positive levels")


@dataclass(frozen=True)
class Config:
    """An audit of generated images."""

    samples: str | None = None
    """Generated images: npz, folder of images, EDM zip or sample store; None samples the network of --checkpoint."""
    samples_split: str = "train"
    """Split of them, where the file has splits ("train" is everything where it has none)."""
    reference: str = "fashion-mnist"
    """The images that the model was trained on: such a file, or a name (fashion-mnist, mnist, cifar10, fashion-mnist-mini)."""
    reference_split: str = "train"
    """Split of the reference."""
    holdout: str | None = "auto"
    """Images of the reference's source that the model was not trained on; auto takes the reference's split "test" where it has
    one, else as None, which sets a sixth of the reference aside."""
    holdout_split: str = "test"
    """Split of the held-out images."""
    size: int | None = None
    """Reduce the real images to this size by area means; None keeps them, or takes the network's where it is sampled."""
    samples_range: tuple[float, float] | None = None
    """What black and white are in a file of floating-point samples; None reads it off the values."""
    reference_range: tuple[float, float] | None = None
    """The same of the real images."""
    checkpoint: str | None = None
    """The network: fashion-mnist-14 (bundled), a network.npz, the directory of a training run, or one of NVIDIA's snapshots
    (.pkl). Sampled where no samples are given (fashion-mnist-14 then by default), and attacked."""
    features: str | None = None
    """Features of the samples, npy or npz, a row an image, for Frechet distance, KID, precision, recall, density, coverage."""
    reference_features: str | None = None
    """The same of the reference."""
    holdout_features: str | None = None
    """The same of the held-out images, where they are given by --holdout."""
    pca: int = 64
    """Principal components of the reference's pixels that are the features where no file gives them."""
    most_features: int = 5000
    """Images of each set that features are compared on, at most."""
    per_class: int = 800
    """Images of each class that are sampled (of all together, where the network has no classes)."""
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    copy_fraction: float = 0.25
    """A sample nearer to a reference image than this fraction of that image's distance to its own nearest neighbour is a
    near-duplicate."""
    copy_rms: float = 0.02
    """So is one that differs by at most this root mean square of pixels in [-1, 1]."""
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    universality: UniversalityConfig = field(default_factory=UniversalityConfig)
    membership: MembershipConfig = field(default_factory=MembershipConfig)
    seed: int = 0
    """Seed of sampling, splits and resampling."""

    def __post_init__(self) -> None:
        check_options(
            self, size=1, pca=1, most_features=50, per_class=1, copy_fraction="[0, 1)", copy_rms="[0, inf)", seed=0
        )
        for name in ("samples_range", "reference_range"):
            ends = getattr(self, name)
            rising = ends is None or (len(ends) == 2 and ends[0] < ends[1])
            require(rising, name, ends, "rising, or None")
        both = (self.features is None) == (self.reference_features is None)
        require(both, "reference_features", self.reference_features, "given with --features, and only then")
        fits = self.holdout_features is None or self.features is not None
        require(fits, "holdout_features", self.holdout_features, "given with --features only")
        require(
            self.samples is not None or self.features is None, "features", self.features, "left out without --samples"
        )


PRESETS = {
    "smoke": Config(
        reference="fashion-mnist-mini",
        reference_split="test",
        holdout=None,
        per_class=24,
        sampler=SamplerConfig(num_steps=4, churn=0.625, batch_size=24),
        judge=JudgeConfig(images=600, epochs=1),
        universality=UniversalityConfig(
            replicates=2, most_per_class=24, recipe=Recipe(epochs=4, learning_rates=(1.0,), eval_interval=2)
        ),
        membership=MembershipConfig(count=64, draws=1),
    ),
    "default": Config(),
    "paper": Config(
        per_class=1000,
        most_features=10_000,
        judge=JudgeConfig(images=60_000, epochs=12),
        universality=UniversalityConfig(replicates=20),
        membership=MembershipConfig(count=10_000, draws=8),
    ),
}


def run(config: Config, directory: RunDirectory) -> Report:
    """The audit, section by section; every stage is stored, so a run that was killed goes on."""
    from dgu import plots
    from experiments.audit_parts import balance, features, membership, memorisation, moments, tails, universality
    from experiments.audit_parts.gather import gather
    from experiments.study.report import FigureEntry, Section, check_promises

    sets = gather(config, directory)
    no_replicates = "" if config.universality.replicates else "no replicates were asked for (--universality.replicates)"
    plan: list[tuple[str, str, Any]] = [
        ("Memorisation", "", memorisation),
        ("Moments and spectra", "", moments),
        ("Tails", "", tails),
        ("Fidelity and coverage", "", features),
        ("Class balance", balance.obstacle(sets), balance),
        ("Universality", no_replicates or universality.obstacle(sets), universality),
        ("Membership inference", membership.obstacle(sets), membership),
    ]
    directory.save_figure(FIGURE_FILES[0], _grid(sets, plots))
    shown = FigureEntry(FIGURE_FILES[0], "The first samples, and real images beside them.")
    sections, skipped, metrics = [], [], {}
    for title, obstacle, part in plan:
        if obstacle:
            skipped.append((title, obstacle))
            continue
        print(f"{title} ...", flush=True)
        section: Section = part.section(config, sets, directory)
        check_promises(f"the section {title}", section, part.CLAIM_IDS, part.FIGURE_FILES)
        sections.append(section)
        metrics[title] = section.metrics
    directory.write_json("metrics.json", {**metrics, "images": _sizes(sets), "left_out": dict(skipped)})
    lines = ["What we found:", *(f"{section.title}. {section.answer}" for section in sections)]
    lines += [f"{title}: left out, as {reason}." for title, reason in skipped]
    return Report(
        "Audit of generated images",
        "\n".join(lines),
        [claim for section in sections for claim in section.claims],
        [shown, *(figure for section in sections for figure in section.figures)],
        [
            Table("Images", ("set", "images"), list(_sizes(sets).items())),
            *(table for section in sections for table in section.tables),
        ],
    )


def _sizes(sets: "Sets") -> dict[str, str]:
    shape = " x ".join(map(str, sets.samples.pixels.shape[1:]))
    own = "set aside from the reference" if sets.aside is not None else "given by themselves"
    return {
        "samples": f"{len(sets.samples):,}",
        "reference": f"{len(sets.reference):,}",
        "held out": f"{len(sets.held):,} ({own})",
        "shape": shape,
        "classes": str(len(sets.class_names)) if sets.class_names else "none",
    }


def _grid(sets: "Sets", plots: Any) -> Any:
    """Samples and reference images, a row a class where both have classes."""
    import numpy as np

    labels = (sets.samples.labels, sets.reference.labels)
    if sets.class_names and all(each is not None for each in labels):
        kept = [k for k in range(len(sets.class_names)) if all((each == k).any() for each in labels)][:20]
        members = [[np.flatnonzero(each == k) for each in labels] for k in kept]
        names = [sets.class_names[k] for k in kept]
    else:
        rows = 6
        members = [[np.arange(len(of))[row::rows] for of in (sets.samples, sets.reference)] for row in range(rows)]
        names = [""] * rows
    sides = (sets.samples.pixels, sets.reference.pixels)
    grid = np.stack([np.concatenate([side[np.resize(of, 8)] for side, of in zip(sides, both)]) for both in members])
    return plots.image_grid(grid if grid.shape[-1] in (1, 3) else grid[..., :1], names, ["samples", "reference"])


def dry_run(config: Config) -> list[Cost]:
    """What an audit would cost: the images are read and checked, nothing is computed."""
    from experiments.audit_parts import membership, universality
    from experiments.audit_parts.gather import gather
    from experiments.study.checkpoints import sampling_cost

    sets = gather(config, None)
    n, m, held = len(sets.samples), len(sets.reference), len(sets.held)
    d = sets.reference.flat.shape[1]
    held_bytes = 4 * d * (n + m + held)
    costs = []
    if config.samples is None:
        costs.append(sampling_cost(sets.network.network, n, config.sampler.evaluations, config.sampler.batch_size))
    width = sets.samples.features.shape[1] if sets.samples.features is not None else min(config.pca, d)
    rows = min(config.most_features, n, held, m)
    columns = min(d, 2048)
    costs += [
        Cost("memorisation", 0, 2.0 * d * m * (2 * n + 2 * held), held_bytes + 2**28),
        Cost(
            "moments and spectra",
            0,
            2.0 * columns**2 * (n + 2 * m + held) + 400.0 * columns**3,
            held_bytes + 160 * columns**2,
        ),
        Cost("tails", 0, 2.0 * 99 * min(n, 4000) * d**2, held_bytes),
        Cost("features", 0, 2.0 * width * rows**2 * 14 + 44.0 * rows * width**2, held_bytes),
    ]
    if not universality.obstacle(sets) and config.universality.replicates:
        per_class = min(config.universality.most_per_class, n // len(sets.class_names))
        recipe = config.universality.recipe
        visits = 0.35 * per_class * len(sets.class_names) * recipe.epochs * len(recipe.learning_rates) * 4
        flop = config.universality.replicates * visits * 4 * d * len(sets.class_names)
        costs.append(Cost("universality", 0, flop, held_bytes + 16 * 4 * d * per_class * len(sets.class_names)))
    if not membership.obstacle(sets):
        count = min(config.membership.count, m, held)
        evaluations = len(config.membership.sigmas) * config.membership.draws
        cost = sampling_cost(sets.network.network, 2 * count, evaluations, config.sampler.batch_size)
        costs.append(replace(cost, stage="membership", disk=0))
    return costs


def main(argv: Sequence[str] | None = None) -> Any:
    """The command line."""
    return run_experiment(
        PRESETS,
        run,
        name="audit",
        description="One report about generated images and the images that their model was trained on.",
        dry_run=dry_run,
        argv=argv,
    )


if __name__ == "__main__":
    begin("audit", parallel.start)
    main()
