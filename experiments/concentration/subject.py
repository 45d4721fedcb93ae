"""What the study of concentration looks at: a network with its samples, or given images; and the options that say which."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from dgu.errors import require
from dgu.models import EDMNetwork
from dgu.samplers import Churn, heun
from experiments.study import Cost, RunDirectory, option
from experiments.study import Options as BaseOptions
from experiments.study.checkpoints import load, planned, sampling_cost
from experiments.study.pool import SamplerConfig, class_list, load_images, of_classes, real_classes, sample_pool

PAPER = "concentration"
#: Fewest samples of a class, whatever the parts.
_FEWEST = 8


@dataclass(frozen=True)
class Options(BaseOptions):
    """The study of concentration of measure."""

    checkpoint: str = "fashion-mnist-14"
    """Network to study: the bundled fashion-mnist-14, a network.npz, the directory of a training run, or one of NVIDIA's
    snapshots (.pkl); "untrained" is a tiny network with random weights, for trying things out."""
    samples: str | None = None
    """Images to study instead of a network: an npz file, an image folder or an EDM zip file, with or without labels. Parts that
    need a network are skipped."""
    real: str | None = "auto"
    """Real images of the same classes. "auto" takes the bundled images if their classes have the same names, and none otherwise."""
    real_split: str = "test"
    """Split of the real images."""
    size: int | None = option(14, ge=1)
    """Side to which the real images are reduced by averaging over areas; None keeps their size."""
    classes: tuple[int, ...] | None = option(None, ge=0)
    """Classes to study; None takes all."""
    per_class: int = option(800, ge=_FEWEST)
    """Samples of each class."""
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    seed: int = option(0, ge=0)
    """Seed of every random draw."""


@dataclass(frozen=True)
class Subject:
    """The model and the images that the study is about.

    Attributes:
        denoiser: a pytree ``denoiser(x, sigma)``, with ``given(label)`` if ``conditional``; None if only images were given.
        conditional: whether the denoiser is class-conditional.
        shape: shape of one image, (H, W, C).
        labels: the classes studied, in the numbering of the denoiser; at least one.
        class_names: their names.
        per_class: images of each class, and what bounds that number: the option, or the smallest class.
        bounded_by: see ``per_class``.
        noise_levels, churn, solver, batch_size: how ``images`` were sampled; ``noise_levels`` is None without a denoiser.
        real: real images of the same classes that the model was not trained on, (K, m, H, W, C), or None.
        draw: returns the images; see ``images``.
    """

    denoiser: Any
    conditional: bool
    shape: tuple[int, ...]
    labels: tuple[int, ...]
    class_names: tuple[str, ...]
    per_class: int
    bounded_by: str
    noise_levels: np.ndarray | None
    churn: Churn
    solver: Callable[..., Any]
    batch_size: int
    real: np.ndarray | None
    draw: Callable[[], np.ndarray]

    @cached_property
    def images(self) -> np.ndarray:
        """The samples, (K, n, H, W, C) float32 in [-1, 1], as many of each class; sampled when first asked for."""
        return self.draw()

    @property
    def sigmas(self) -> np.ndarray:
        """The noise levels of the sampler, falling to 0; only for a subject with a network."""
        assert self.noise_levels is not None
        return self.noise_levels

    def of_class(self, number: int) -> Any:
        """The denoiser of class number ``number`` among ``labels``."""
        return self.denoiser.given(self.labels[number]) if self.conditional else self.denoiser


@dataclass(frozen=True)
class Plan:
    """What a dry run knows of a subject: sizes, and the network without its parameters (None for images alone)."""

    network: EDMNetwork | None
    shape: tuple[int, ...]
    classes: int
    per_class: int
    num_steps: int
    batch_size: int


def gather(config: Options, directory: RunDirectory) -> Subject:
    """The network and how it is sampled, or the given images; and the real images beside them."""
    return _given(config) if config.samples is not None else _network(config, directory)


def no_network(config: BaseOptions, subject: Subject) -> str:
    """Why a part that looks inside the sampler skips a subject, or ``""``."""
    return "" if subject.denoiser is not None else "it requires a network"


def _given(config: Options) -> Subject:
    assert config.samples is not None
    found = load_images("samples", config.samples, "train")
    labels = class_list(config.classes, len(found.class_names))
    fewest = min(int((found.labels == label).sum()) for label in labels)
    count, shown = min(config.per_class, fewest), f"samples = {config.samples!r}: images of the smallest class"
    require(count >= _FEWEST, shown, count, f"at least {_FEWEST}")
    images = of_classes("samples", config.samples, found, labels, count, "")
    for number, of_class in enumerate(
        images
    ):  # Constant images have no covariance: nothing here means anything for them.
        varied = bool((of_class != of_class[:1]).any())
        require(varied, "samples", config.samples, f"images that differ from each other, in class number {number} too")
    shape, names = images.shape[2:], tuple(found.class_names)
    return Subject(
        denoiser=None,
        conditional=False,
        shape=tuple(shape),
        labels=labels,
        class_names=tuple(names[label] for label in labels),
        per_class=count,
        bounded_by=shown,
        noise_levels=None,
        churn=Churn(),
        solver=heun,
        batch_size=config.sampler.batch_size,
        real=real_classes(config, labels, names, shape),
        draw=lambda: images,
    )


def _network(config: Options, directory: RunDirectory) -> Subject:
    pretrained = load(config.checkpoint)
    shape, label_dim = pretrained.network.shape, pretrained.network.unet.label_dim
    available = max(1, label_dim)
    labels = class_list(config.classes, available)
    names = tuple(pretrained.class_names) or tuple(f"class {k}" for k in range(available))
    sigmas, solver, churn = config.sampler.built(pretrained.denoiser)
    return Subject(
        denoiser=pretrained.denoiser,
        conditional=label_dim > 0,
        shape=tuple(shape),
        labels=labels,
        class_names=tuple(names[label] for label in labels),
        per_class=config.per_class,
        bounded_by="per_class",
        noise_levels=sigmas,
        churn=churn,
        solver=solver,
        batch_size=config.sampler.batch_size,
        real=real_classes(config, labels, names, shape),
        draw=lambda: sample_pool(directory, pretrained, labels, config.per_class, config.sampler, config.seed),
    )


def plan(config: Options) -> tuple[Plan, list[Cost]]:
    """Sizes for a dry run, and what sampling costs."""
    sampler = config.sampler
    if config.samples is not None:
        given = load_images("samples", config.samples, "train")
        classes = len(class_list(config.classes, len(given.class_names)))
        return Plan(None, given.images.shape[1:], classes, config.per_class, 0, sampler.batch_size), []
    network = planned(config.checkpoint)
    classes = len(class_list(config.classes, max(1, network.unet.label_dim)))
    drawn = sampling_cost(network, classes * config.per_class, sampler.evaluations, sampler.batch_size)
    return Plan(network, network.shape, classes, config.per_class, sampler.num_steps, sampler.batch_size), [drawn]
