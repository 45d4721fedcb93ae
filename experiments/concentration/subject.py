"""The subject of the study of concentration: a network with its samples, or given images; and the shared options."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jax.typing import DTypeLike

from dgu.core.errors import require
from dgu.models import GaussianDenoiser, Pretrained
from dgu.samplers import Churn, heun
from experiments.descriptions import (
    class_images_in_words,
    class_samples_in_words,
    in_pictures,
    network_in_words,
    stored_samples,
)
from experiments.sampling import (
    PAPER_SAMPLER,
    STUDY_SAMPLER,
    GuidanceOptions,
    SamplerConfig,
    build_sampler,
    sample_pool,
)
from experiments.study import Cost, Materials, RunDirectory, option
from experiments.study import Options as BaseOptions
from experiments.study.materials import in_turn
from experiments.subjects import Described, given_images, load, network_images, planned, real_images, sampling_cost

PAPER = "concentration"
#: The sampler without churn and with churn, in parts that look at both.
ARMS = ("churn off", "churn on")
#: Fewest samples of a class, whatever the parts.
_FEWEST = 8


@dataclass(frozen=True)
class Options(GuidanceOptions):
    """The study of concentration of measure."""

    checkpoint: str = "fashion-mnist-14"
    """Network to study: the bundled fashion-mnist-14, a network file of dgu (.npz, .safetensors), the directory of a
    training run, one of NVIDIA's snapshots (.pkl), a folder of diffusers, or a network of these as PyTorch saved it
    (.pt); "untrained" is a tiny network with random weights, for trying things out."""
    samples: str | None = None
    """Images to study instead of a network: an npz file, an image folder or an EDM zip file, with or without labels.
    Parts that need a network are skipped."""
    real: str | None = "auto"
    """Real images of the same classes. "auto" takes the bundled images if their classes have the same names, and none
    otherwise."""
    real_split: str = "test"
    """Split of the real images."""
    size: int | None = option(14, ge=1)
    """Side to which the real images are reduced by averaging over areas; None keeps their size."""
    classes: tuple[int, ...] | None = option(None, ge=0)
    """Classes to study; None takes all."""
    per_class: int = option(800, ge=_FEWEST)
    """Samples of each class."""
    sampler: SamplerConfig = STUDY_SAMPLER
    seed: int = option(0, ge=0)
    """Seed of every random draw."""

    @property
    def unguided(self) -> str:
        """With these no network is loaded that could be guided."""
        return "--samples" if self.samples is not None else ""


@dataclass(frozen=True)
class Subject:
    """The model and the images that the study is about.

    Attributes:
        denoiser: a pytree ``denoiser(x, sigma)``, with ``given(label)`` if ``conditional``; None if only images were
            given.
        conditional: whether the denoiser is class-conditional.
        shape: shape of one image, (H, W, C).
        labels: the classes studied, in the numbering of the denoiser; at least one.
        class_names: their names.
        per_class: images of each class, and what bounds that number: the option, or the smallest class.
        bounded_by: see ``per_class``.
        noise_levels, churn, solver, batch_size, method: how ``images`` were sampled; ``noise_levels`` is None without
            a denoiser.
        real: real images of the same classes that the model was not trained on, (K, m, H, W, C), or None.
        draw: returns the images; see ``images``.
        network: what ``denoiser`` is of, as it was read from its file; None without one.
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
    method: str = "edm"
    network: Pretrained | None = None

    @cached_property
    def images(self) -> np.ndarray:
        """The samples, (K, n, H, W, C) float32 in [-1, 1], as many of each class; sampled when first asked for."""
        return self.draw()

    @property
    def sigmas(self) -> np.ndarray:
        """The noise levels of the sampler, falling to 0; only for a subject with a network."""
        assert self.noise_levels is not None
        return self.noise_levels

    @property
    def rows(self) -> np.ndarray:
        """The samples with their pixels in a row, (K, n, d)."""
        return self.images.reshape(*self.images.shape[:2], -1)

    @property
    def dimension(self) -> int:
        """d, the numbers in one image."""
        return math.prod(self.shape)

    @property
    def arms(self) -> dict[str, Churn]:
        """The churn of each arm: none, and that of the sampler, or if it has none, the published one for its steps."""
        paper = PAPER_SAMPLER
        rate = paper.churn / paper.num_steps * (len(self.sigmas) - 1)
        published = Churn(rate, paper.s_min, paper.s_max, paper.s_noise)
        return dict(zip(ARMS, (Churn(), self.churn if float(self.churn.rate) > 0 else published)))

    def gaussian(self, number: int, dtype: DTypeLike = np.float32) -> GaussianDenoiser:
        """The Gaussian with the moments of a class's held-out real images, or of its samples if there are none."""
        images = self.images if self.real is None else self.real
        return GaussianDenoiser.fit(images[number].astype(dtype))


@dataclass(frozen=True)
class Plan:
    """What a dry run knows of a subject: sizes, and the network without its parameters if parts look inside its sampler
    (see ``no_network``), else None.
    """

    network: Described | None
    shape: tuple[int, ...]
    classes: int
    per_class: int
    num_steps: int
    batch_size: int

    @property
    def dimension(self) -> int:
        """d, the numbers in one image."""
        return math.prod(self.shape)


def gather(config: Options, directory: RunDirectory) -> Subject:
    """The network and how it is sampled, or the given images; and the real images beside them."""
    return _given(config) if config.samples is not None else _network(config, directory)


def no_network(config: BaseOptions, subject: Subject) -> str:
    """Why a part that looks inside the sampler, step by step, skips a subject, or ``""``."""
    if subject.denoiser is None:
        return "it requires a network"
    return "" if subject.method == "edm" else f"it looks at the steps of --sampler.method edm, not {subject.method}"


def single_class(config: BaseOptions, subject: Subject) -> str:
    """Why a part that tells classes apart skips a subject, or ``""``."""
    return "" if len(subject.labels) > 1 else "it requires two or more classes"


def points(value: float) -> str:
    """A difference of shares in words: ``"1 percentage point"``, ``"2.5 percentage points"``."""
    return f"{value:g} percentage point{'' if value == 1 else 's'}"


def require_images(subject: Subject, fewest: int, part: str) -> None:
    """``InputError`` if the subject has fewer than ``fewest`` images of each class, which ``part`` needs."""
    require(subject.per_class >= fewest, subject.bounded_by, subject.per_class, f"{fewest} or more for {part}")


def _given(config: Options) -> Subject:
    assert config.samples is not None
    found, images = given_images(config.samples, config.classes, most=config.per_class, fewest=_FEWEST)
    # Images that are all the same have no covariance: nothing here means anything for them.
    for number, of_class in enumerate(images):
        varied = bool((of_class != of_class[:1]).any())
        require(varied, "samples", config.samples, f"images that differ from each other, in class number {number} too")
    return images_only(
        images,
        real_images(found, config.real, config.real_split, config.size),
        labels=found.labels,
        class_names=found.class_names,
        bounded_by=f"samples = {config.samples!r}: images of the smallest class",
        batch_size=config.sampler.batch_size,
    )


def images_only(
    images: np.ndarray,
    real: np.ndarray | None = None,
    *,
    labels: tuple[int, ...],
    class_names: tuple[str, ...],
    bounded_by: str = "per_class",
    batch_size: int = 64,
) -> Subject:
    """A subject without a network: ``images`` (K, n, H, W, C) with, or without, ``real`` images of the same classes."""
    return Subject(
        denoiser=None,
        conditional=False,
        shape=tuple(images.shape[2:]),
        labels=labels,
        class_names=class_names,
        per_class=images.shape[1],
        bounded_by=bounded_by,
        noise_levels=None,
        churn=Churn(),
        solver=heun,
        batch_size=batch_size,
        real=real,
        draw=lambda: images,
    )


def _network(config: Options, directory: RunDirectory) -> Subject:
    pretrained, sampler = load(config.checkpoint, guidance=config), config.sampler
    network, count = pretrained.network, config.per_class
    found = network_images(network, pretrained.class_names, config.classes, count)
    sigmas, solver, churn = build_sampler(sampler, pretrained.denoiser)
    return Subject(
        denoiser=pretrained.denoiser,
        conditional=network.unet.label_dim > 0,
        shape=found.shape,
        labels=found.labels,
        class_names=found.class_names,
        per_class=count,
        bounded_by="per_class",
        noise_levels=sigmas,
        churn=churn,
        solver=solver,
        batch_size=sampler.batch_size,
        real=real_images(found, config.real, config.real_split, config.size),
        draw=lambda: sample_pool(directory, pretrained, sampler, labels=found.labels, count=count, seed=config.seed),
        method=sampler.method,
        network=pretrained,
    )


def describe(config: Options, subject: Subject, directory: RunDirectory) -> Materials:
    """The network, the images studied and the real ones beside them."""
    network, real = subject.network, subject.real
    first = in_turn(subject.images) if network is None else stored_samples(directory, subject.labels)
    said = (
        "" if network is None else network_in_words(config.checkpoint, network, config.guided_by),
        class_samples_in_words((len(subject.labels), subject.per_class, *subject.shape), config),
        class_images_in_words(real, config),
    )
    rows = {"given images" if network is None else "samples": first}
    rows |= {} if real is None else {"real images": in_turn(real)}
    return Materials(" ".join(filter(None, said)), in_pictures(rows))


def plan(config: Options) -> tuple[Plan, list[Cost]]:
    """Sizes for a dry run, and what sampling costs."""
    sampler = config.sampler
    if config.samples is not None:
        found, _ = given_images(config.samples, config.classes, most=config.per_class, fewest=_FEWEST)
        network, costs = None, []
    else:
        network = planned(config.checkpoint, guidance=config)
        found = network_images(network, (), config.classes, config.per_class)
        costs = [sampling_cost(network, found.row_count, sampler.evaluations, sampler.batch_size)]
    followed = network if sampler.method == "edm" else None
    classes, per_class = found.rows.shape
    return Plan(followed, found.shape, classes, per_class, sampler.num_steps, sampler.batch_size), costs
