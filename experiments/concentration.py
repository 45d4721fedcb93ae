"""Do a diffusion model's samples obey concentration of measure? ``python -m experiments.concentration``

Of a trained denoiser, or of images you have (``--samples``): norms along the sampler, whether its steps contract, tails under
1-Lipschitz functions, heavy-tailed starting noise, spectra, the assumptions of the universality theorem and the theorem
itself, and what it lets one predict. Each part is a module of ``experiments.concentration_parts`` with options under its own
name; ``--parts`` chooses among them. Source: Ghane et al., arXiv 2501.07741.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from dgu.core import parallel
from dgu.core.errors import require
from experiments import concentration_parts as study
from experiments.concentration_parts.subject import Plan, Subject
from experiments.study import parts
from experiments.study.checkpoints import UNTRAINED, load, planned, sampling_cost
from experiments.study.command_line import run_experiment
from experiments.study.costs import Cost
from experiments.study.ends import begin
from experiments.study.options import check_options
from experiments.study.pool import SamplerConfig, class_list, load_images, of_classes, real_classes, sample_pool
from experiments.study.report import Report
from experiments.study.run_directory import RunDirectory

#: Parts, in the order of the report.
PartName = Literal[
    "norms", "contraction", "tails", "starts", "spectra", "representations", "theorem", "prediction", "fit_size"
]
EVERY: tuple[PartName, ...] = get_args(PartName)
PARTS = parts.modules(study, EVERY)
#: Parts that look inside the sampler and so need a network.
NEED_NETWORK = ("norms", "contraction", "starts")
#: Fewest samples of a class, whatever the parts.
_FEWEST = 8


@dataclass(frozen=True)
class Config:
    """The study of concentration."""

    checkpoint: str = "fashion-mnist-14"
    """Network to study: the bundled fashion-mnist-14, a network.npz, the directory of a training run, or one of NVIDIA's
    snapshots (.pkl); "untrained" is a tiny one for trying things out."""
    samples: str | None = None
    """Images to study instead: npz, image folder or EDM zip, with or without labels. Parts that need a network are left out."""
    real: str | None = "auto"
    """Real images of the same classes; auto takes the bundled ones where the classes have their names, and else none."""
    real_split: str = "test"
    """Split of the real images."""
    size: int | None = 14
    """Reduce the real images to this size by area means; None keeps them."""
    classes: tuple[int, ...] | None = None
    """Classes to study; None takes all."""
    per_class: int = 800
    """Samples of each class."""
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    parts: tuple[PartName, ...] = EVERY
    """Parts of the study to run."""
    norms: study.norms.Config = field(default_factory=study.norms.Config)
    contraction: study.contraction.Config = field(default_factory=study.contraction.Config)
    tails: study.tails.Config = field(default_factory=study.tails.Config)
    starts: study.starts.Config = field(default_factory=study.starts.Config)
    spectra: study.spectra.Config = field(default_factory=study.spectra.Config)
    representations: study.representations.Config = field(default_factory=study.representations.Config)
    theorem: study.theorem.Config = field(default_factory=study.theorem.Config)
    prediction: study.prediction.Config = field(default_factory=study.prediction.Config)
    fit_size: study.fit_size.Config = field(default_factory=study.fit_size.Config)
    seed: int = 0
    """Seed of everything drawn."""

    def __post_init__(self) -> None:
        check_options(self, size=1, classes=0, per_class=_FEWEST, seed=0)
        parts.check_each_once(self.parts)


def _with_parts(preset: str, **options: Any) -> Config:
    return Config(**options, **parts.presets(PARTS, preset))


PRESETS = {
    "smoke": _with_parts(
        "smoke",
        checkpoint=UNTRAINED,
        per_class=64,
        # Half a minute's worth, nearly all of it compilation; the others by name.
        parts=tuple(name for name in EVERY if name not in ("contraction", "tails", "starts", "representations")),
        sampler=SamplerConfig(num_steps=4, churn=0.625, batch_size=24),
    ),
    "default": Config(),
    "paper": _with_parts(
        "paper",
        checkpoint="edm-imagenet-64x64-cond-adm.pkl",
        real=None,
        size=None,
        classes=(0, 11, 25, 217, 281, 371, 429, 497, 566, 569, 614, 671, 727, 732, 751, 871, 938, 963, 973, 980),
        per_class=10240,
        sampler=SamplerConfig(num_steps=256, churn=40.0, batch_size=128),
    ),
}


def run(config: Config, directory: RunDirectory) -> Report:
    """The parts asked for, one after the other; every stage is stored, so a run that was killed goes on."""
    subject = gather(config, directory)
    asked = parts.chosen(PARTS, config)
    sections = parts.run(asked, config, subject, directory)
    directory.write_json("metrics.json", parts.metrics(sections))
    answers = [section.answer for section in sections.values()]
    left_out = [name for name in asked if name not in sections]
    if left_out:
        answers.append(f"Skipped (they require a network or other images): {', '.join(left_out)}.")
    return parts.report("Concentration of measure", answers, sections)


def gather(config: Config, directory: RunDirectory) -> Subject:
    """The network's samples or the images given, and the real images beside them; bad input is refused before sampling."""
    from dgu.samplers import Churn, heun

    if config.samples is not None:
        given = load_images("samples", config.samples, "train")
        labels = class_list(config.classes, len(given.class_names))
        fewest = min(int((given.labels == label).sum()) for label in labels)
        count, shown = min(config.per_class, fewest), f"samples = {config.samples!r}: images of the smallest class"
        require(count >= _FEWEST, shown, count, f"at least {_FEWEST}")
        parts.check(parts.chosen(PARTS, config), config, count, shown)
        images = of_classes("samples", config.samples, given, labels, count, "")
        names, shape = tuple(given.class_names), images.shape[2:]
        denoiser, conditional = None, False
        sigmas, solver, churn = None, heun, Churn()
        _check_varied(images, config.samples)
        real = real_classes(config, labels, names, shape)
    else:
        parts.check(parts.chosen(PARTS, config), config, config.per_class, "per_class")
        pretrained = load(config.checkpoint)
        denoiser, shape = pretrained.denoiser, pretrained.network.shape
        available = max(1, pretrained.network.unet.label_dim)
        conditional = pretrained.network.unet.label_dim > 0
        labels = class_list(config.classes, available)
        names = tuple(pretrained.class_names) or tuple(f"class {k}" for k in range(available))
        sigmas, solver, churn = config.sampler.built(denoiser)
        real = real_classes(config, labels, names, shape)
        images = sample_pool(directory, pretrained, labels, config.per_class, config.sampler, config.seed)
    return Subject(
        denoiser=denoiser,
        conditional=conditional,
        shape=tuple(shape),
        labels=labels,
        class_names=tuple(names[label] for label in labels),
        sigmas=sigmas,
        churn=churn,
        solver=solver,
        batch_size=config.sampler.batch_size,
        images=images,
        real=real,
    )


def _check_varied(images: np.ndarray, value: str) -> None:
    """Constant images have no covariance, and nothing here means anything for them."""
    for number, of_class in enumerate(images):
        varied = bool((of_class != of_class[:1]).any())
        require(varied, "samples", value, f"images that differ from each other, in class number {number} too")


def dry_run(config: Config) -> list[Cost]:
    """What a run would cost."""
    asked = parts.chosen(PARTS, config)
    if config.samples is not None:
        given = load_images("samples", config.samples, "train")
        classes = len(class_list(config.classes, len(given.class_names)))
        plan = Plan(None, given.images.shape[1:], classes, config.per_class, 0, config.sampler.batch_size)
        asked = {name: part for name, part in asked.items() if name not in NEED_NETWORK}
        costs = []
    else:
        network = planned(config.checkpoint)
        classes = len(class_list(config.classes, max(1, network.unet.label_dim)))
        sampler = config.sampler
        plan = Plan(network, network.shape, classes, config.per_class, sampler.num_steps, sampler.batch_size)
        costs = [sampling_cost(network, classes * config.per_class, sampler.evaluations, sampler.batch_size)]
    return costs + parts.costs(asked, config, plan)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; ``argv`` is that of the process by default."""
    run_experiment(
        PRESETS,
        run,
        name="concentration",
        description="Do these samples obey concentration of measure, is the sampler a contraction, what do the tails look like, "
        "and how far do Gaussian predictions carry?",
        dry_run=dry_run,
        argv=argv,
    )


if __name__ == "__main__":
    begin("concentration", parallel.start)
    main()
