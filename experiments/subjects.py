"""What studies look at: networks by the name of a checkpoint and what sampling one costs, and images under the name of
an option, by class or as real ones.
"""

import hashlib
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import jax
import numpy as np

from dgu import data, samplers
from dgu.core.errors import InputError, require
from dgu.core.typing import Key
from dgu.data.named import NAMED_SETS
from dgu.data.splits import check_no_duplicates
from dgu.models import (
    NCSNPP,
    ADMConfig,
    DiffusersDenoiser,
    DiffusersNetwork,
    EDMNetwork,
    SongUNetConfig,
    load_checkpoint,
    untrained,
)
from dgu.models.pretrained import Pretrained, network_file
from experiments.sampling import GuidanceOptions
from experiments.study.costs import Cost, Probe
from experiments.study.flop import network_flop
from experiments.study.inputs import note_choice, reading
from experiments.study.memory import Program, evaluation, evaluation_bytes, training_bytes

if TYPE_CHECKING:
    from dgu.training import TrainingConfig

T = TypeVar("T")
#: Networks without their parameters, as checkpoints describe them.
Described: TypeAlias = EDMNetwork | DiffusersNetwork

#: A network for trying things out: it compiles in a moment, and what it makes means nothing.
UNTRAINED = "untrained"
#: The guide that is the network itself without a class.
NO_CLASS = "no-class"
#: NVIDIA's networks that the papers look at.
IMAGENET_64 = "edm-imagenet-64x64-cond-adm.pkl"
FFHQ_64 = "edm-ffhq-64x64-uncond-ve.pkl"
CIFAR_10 = "edm-cifar10-32x32-uncond-vp.pkl"
#: They are not in the package, but their costs are known: a dry run needs no file.
PUBLISHED = {
    IMAGENET_64: EDMNetwork(ADMConfig(64, 3, 3, label_dim=1000), compute_dtype="bfloat16"),
    FFHQ_64: EDMNetwork(SongUNetConfig(64, 3, 3, **{**NCSNPP, "channel_mult": (1, 2, 2, 2)})),
    CIFAR_10: EDMNetwork(SongUNetConfig(32, 3, 3, channel_mult=(2, 2, 2), augment_dim=9)),
}
#: The real images that ``--real auto`` thinks of.
BUNDLED_IMAGES = "fashion-mnist-mini"


def load(
    name: str,
    untrained_size: int | None = None,
    guidance: GuidanceOptions | None = None,
    *,
    option: str = "checkpoint",
) -> Pretrained:
    """``dgu.models.load_checkpoint``, its complaints under the ``option`` that brought them; or the untrained network
    by its name; guided where ``guidance`` names a guide.

    The untrained network takes images of any size, 8 x 8 unless one is given.
    """
    if guidance is None or guidance.guide is None:
        return _load(option, name, untrained_size)
    # First the guide, so that one that is not there is refused before a large network is read.
    other = None if guidance.guide == NO_CLASS else _load("guide", guidance.guide, untrained_size)
    return _guided(_load(option, name, untrained_size), other, guidance)


def _load(option: str, name: str, untrained_size: int | None) -> Pretrained:
    if name == UNTRAINED:
        return _untrained(untrained_size or 8)
    try:
        with reading(option, name, network_file(name)):
            return _studied(load_checkpoint(name))
    except InputError as error:
        text = str(error).removeprefix(f"checkpoint = {name!r}: ")
        raise InputError(text if text.startswith(f"{option} = ") else f"{option} = {name!r}: {text}") from error


@dataclass(frozen=True)
class GuidedNetwork:
    """Two networks without their parameters, both of which are evaluated at each noise level.

    What is not of both is that of the network which is guided.
    """

    main: Described
    guide: Described

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("main", "guide"):
            raise AttributeError(name)
        return getattr(self.main, name)

    @property
    def abstract_params(self) -> Any:
        """Shapes and dtypes of the parameters of both."""
        return {"main": self.main.abstract_params, "guide": self.guide.abstract_params}

    def apply(self, params: Any, x: Any, sigma: Any, label: Any = None) -> Any:
        """The sum of both, which costs what the guided network does."""
        of_guide = label if self.guide.unet.label_dim else None
        strong = self.main.apply(params["main"], x, sigma, label)
        return strong + self.guide.apply(params["guide"], x, sigma, of_guide)

    def denoiser(self, params: Any) -> samplers.Guided:
        """Both with their parameters, of some weight: what is timed depends on none."""
        return samplers.Guided(self.main.denoiser(params["main"]), self.guide.denoiser(params["guide"]), 2.0)


@dataclass(frozen=True)
class GuidedPretrained(Pretrained):
    """A network with another that guides it: what studies look at is the guided denoiser.

    Attributes:
        main, guide: the networks; the guide is the main one itself where it guides without a class.
        options: how.
    """

    denoiser: Any
    main: Pretrained
    guide: Pretrained
    options: GuidanceOptions

    @property
    def network(self) -> Any:
        """Both descriptions."""
        return GuidedNetwork(self.main.network, self.guide.network)

    @property
    def sha256(self) -> str:
        """Hex digest of both networks' and of how one guides the other."""
        how = (self.options.guide == NO_CLASS, self.options.guidance, self.options.guidance_interval)
        return hashlib.sha256(f"{self.main.sha256} {self.guide.sha256} {how}".encode()).hexdigest()


def _guided(main: Pretrained, other: Pretrained | None, options: GuidanceOptions) -> GuidedPretrained:
    """``main`` guided by another network, or None for itself without a class."""
    name, unet = str(options.guide), main.network.unet
    shown = f"guide = {name!r}"
    weak: Any
    if other is None:
        if not unet.label_dim:
            raise InputError(f"{shown}: must be another network, as that of --checkpoint has no classes")
        if main.denoiser.needs_class:
            lacks = "that of --checkpoint knows no image without a class"
            raise InputError(f"{shown}: must be another network (autoguidance), as {lacks}")
        guide, weak = main, samplers.WithoutClass(main.denoiser)
    else:
        guide, weak = other, other.denoiser
        shapes, classes = (guide.network.shape, main.network.shape), guide.network.unet.label_dim
        require(shapes[0] == shapes[1], f"{shown}: shape", shapes[0], f"that of --checkpoint, {shapes[1]}")
        known = (0, unet.label_dim)
        require(classes in known, f"{shown}: classes", classes, f"{unet.label_dim} as of --checkpoint, or 0")
    interval = options.guidance_interval or (0.0, math.inf)
    denoiser = samplers.Guided(main.denoiser, weak, options.guidance, interval)
    return GuidedPretrained(denoiser, main.metadata, main, guide, options)


def random_like(denoiser: Any, key: Key) -> Any:
    """The network with random parameters in place of trained ones, at the same class; of a guided one, both."""
    if isinstance(denoiser, samplers.WithoutClass):
        return samplers.WithoutClass(random_like(denoiser.denoiser, key))
    if isinstance(denoiser, samplers.Guided):
        return replace(denoiser, main=random_like(denoiser.main, key), guide=random_like(denoiser.guide, key))
    return untrained(denoiser, key)


def _studied(found: Pretrained) -> Pretrained:
    """The network itself, if studies can look at it: a posterior mean of images of known size, with classes or none."""
    denoiser = found.denoiser
    if isinstance(denoiser, DiffusersDenoiser):
        lacks = "a consistency model gives the end of a path through its input and no posterior mean of it"
        require(denoiser.is_posterior_mean, "is_posterior_mean", False, f"True for a study: {lacks}")
        labels = "its labels are numbers or vectors, and studies go through numbered classes"
        require(denoiser.label_dim is not None, "class_embed_type", "no classes", f"null for a study: {labels}")
        _ = found.network.shape  # Refused where the configuration leaves it open.
    return found


def _untrained(size: int) -> Pretrained:
    """A tiny ADM of three classes of square images with random weights, those that start at zero too."""
    unet = ADMConfig(size, 1, 1, 3, model_channels=8, channel_mult=(1,), num_blocks=1, attn_resolutions=())
    network = EDMNetwork(unet)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: 0.2 * rng.standard_normal(leaf.shape, np.float32), network.abstract_params)
    return Pretrained(network.denoiser(params), {"class_names": ["a", "b", "c"]})


def planned(
    name: str,
    untrained_size: int | None = None,
    guidance: GuidanceOptions | None = None,
    *,
    option: str = "checkpoint",
) -> Described:
    """The network of a dry run: that of the checkpoint, or one of ``PUBLISHED`` where its file is not at hand."""
    if name in PUBLISHED and not Path(name).exists():
        guided = guidance is not None and guidance.guide is not None
        require(not guided, "checkpoint", name, "at hand, for its guide to be compared with it")
        return PUBLISHED[name]
    return load(name, untrained_size, guidance, option=option).network


def evaluation_cost(network: Described, stage: str, evaluations: int, batch_size: int) -> Cost:
    """The cost of evaluations of a network, ``batch_size`` images at a time."""
    probe = Probe(partial(evaluation, network), batch_size, evaluations)
    flop, memory = network_flop(network), evaluation_bytes(network, batch_size)
    return Cost(stage, evaluations, evaluations * flop, memory, probe=probe)


def training_cost(network: EDMNetwork, stage: str, optimisation: "TrainingConfig", runs: int, devices: int) -> Cost:
    """The cost of ``runs`` trainings of a network, each of which spreads a batch over ``devices``; without what they
    leave on disk.

    A gradient costs about two evaluations more than the evaluation of its loss.
    """
    batch = optimisation.micro_batch or optimisation.batch_size
    at_once, accumulates = max(1, batch // devices), batch < optimisation.batch_size
    seen = runs * optimisation.total_steps * optimisation.batch_size
    averages = max(1, len(optimisation.power_ema_stds))
    memory = training_bytes(network, at_once, averages=averages, accumulates=accumulates)
    probe = Probe(partial(_update, network, optimisation, 1 + accumulates), at_once * (1 + accumulates), seen)
    return Cost(stage, seen, 3 * seen * network_flop(network), memory, probe=probe)


def _update(network: EDMNetwork, optimisation: "TrainingConfig", batches: int, examples: int) -> Program:
    """The training's program of one update, from so many micro-batches."""
    from dgu.training.loop import update_program

    return update_program(network, max(1, examples // batches), optimisation)


def sampling_cost(network: Described, images: int, evaluations: int, batch_size: int) -> Cost:
    """The cost of ``images`` samples of ``evaluations`` each, which are stored."""
    cost = evaluation_cost(network, "sampling", images * evaluations, batch_size)
    # Timed by samples of two Heun steps, three evaluations each.
    probe = Probe(partial(_two_steps, network), batch_size, images * evaluations / 3)
    return replace(cost, disk=images * prod(network.shape) * 4, probe=probe)


def _two_steps(network: Described, batch: int) -> Program:
    """The sampler's program for a batch of two Heun steps."""
    from dgu.core.keys import seeded, threefry
    from dgu.samplers import Churn, heun
    from dgu.samplers.sample import sample_chunk

    numbers = np.arange(batch, dtype=np.int32)
    labels = np.zeros(batch, np.int32) if network.unet.label_dim else None
    levels, churn = np.array([80.0, 1.0, 0.0], np.float32), jax.tree.map(np.float32, Churn())
    program = partial(
        sample_chunk, shape=network.shape, dtype=np.dtype(np.float32), base="gaussian", observe=None, stochastic=False,
        solver=heun,
    )  # fmt: skip
    return program, [network.denoiser(network.abstract_params), threefry(seeded(0)), numbers, labels, levels, churn]


def load_images(option: str, value: str, split: str, size: int | None = None, **more: Any) -> data.ImageSet:
    """``dgu.data.load``, its complaints under the name of the option that brought them; what the file held is noted."""
    try:
        with reading(option, value, image_file(value)):
            return data.load(value, split, size, **more)
    except InputError as error:
        reason = str(error).removeprefix(f"name_or_path = {str(Path(os.path.expanduser(value)))!r}: ")
        raise InputError(f"{option} = {value!r}: {reason}") from error


def image_file(value: str) -> Path | None:
    """The file or folder that ``dgu.data.load`` reads; None for a set known by name, whose content is known, too."""
    return None if value in NAMED_SETS else Path(os.path.expanduser(value))


def auto_images(option: str, read: Callable[[str], T]) -> tuple[str, T]:
    """What an option comes to that is ``"auto"``: ``read("fashion-mnist")``, or where that is not on this machine,
    ``read(BUNDLED_IMAGES)``; its name first. The choice is noted.
    """
    try:
        source, found = "fashion-mnist", read("fashion-mnist")
    except InputError as error:
        if "was not found" not in str(error):
            raise
        source, found = BUNDLED_IMAGES, read(BUNDLED_IMAGES)
    note_choice(option, "auto", source)
    return source, found


def check_shape(option: str, value: str | None, images: np.ndarray, shape: tuple[int, ...]) -> None:
    """``InputError`` unless images (n, H, W, C) have the shape (H, W, C) of the network's."""
    wanted = f"{tuple(shape)}, the network's (see --size)"
    require(images.shape[1:] == tuple(shape), f"{option} = {value!r}: images of shape", images.shape[1:], wanted)


@dataclass(frozen=True)
class ClassImages:
    """Equally many images of some classes, n each: which they are, known before any is sampled.

    Attributes:
        labels: the K classes studied, as numbers among ``names``.
        names: names of all classes.
        shape: shape of one image, (H, W, C).
        rows: (K, n) the images' rows among all that a file holds, or that are sampled class by class.
        row_count: number of all those.
    """

    labels: tuple[int, ...]
    names: tuple[str, ...]
    shape: tuple[int, ...]
    rows: np.ndarray
    row_count: int

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes studied."""
        return tuple(self.names[label] for label in self.labels)


def given_images(
    samples: str, classes: Sequence[int] | None, *, most: int, fewest: int, why: str = "", least_classes: int = 1
) -> tuple[ClassImages, np.ndarray]:
    """The images that the option ``samples`` names, the first of each class, (K, n, H, W, C).

    Args:
        samples: a file or folder.
        classes: those to study; None takes all.
        most: n at most; it is less where a class has fewer.
        fewest: n at least.
        why: who needs so many.
        least_classes: K at least, 1 or 2.
    """
    found = load_images("samples", samples, "train")
    names = tuple(found.class_names)
    require(len(names) >= least_classes, "samples", samples, "images with labels of two or more classes")
    labels = class_list(classes, len(names), least_classes)
    places = [np.flatnonzero(found.labels == label) for label in labels]
    for label, of_class in zip(labels, places):
        shown = f"samples = {samples!r}: images of class {names[label]}"
        require(len(of_class) >= fewest, shown, len(of_class), f"at least {fewest} in each class {why}".rstrip())
    count = min(most, *map(len, places))
    rows = np.stack([of_class[:count] for of_class in places])
    return ClassImages(labels, names, tuple(found.images.shape[1:]), rows, len(found.labels)), found.images[rows]


def network_images(
    network: Described, names: Sequence[str], classes: Sequence[int] | None, count: int, least_classes: int = 1
) -> ClassImages:
    """The images that are sampled from a network, ``count`` of each class; ``names`` are those of its classes, if
    known.

    A network without classes is its own only class.
    """
    available = max(1, network.unet.label_dim)
    labels = class_list(classes, available, least_classes)
    rows = np.arange(len(labels) * count).reshape(len(labels), count)
    known = tuple(names) or tuple(f"class {k}" for k in range(available))
    return ClassImages(labels, known, network.shape, rows, rows.size)


def class_list(classes: Sequence[int] | None, available: int, least: int = 1) -> tuple[int, ...]:
    """The classes asked for, or all that there are; ``least`` or more, 1 or 2."""
    labels = tuple(range(available)) if classes is None else tuple(classes)
    inside = len(labels) >= least and len(set(labels)) == len(labels) and all(0 <= k < available for k in labels)
    wanted = {1: "one or more", 2: "two or more"}[least]
    require(inside, "classes", labels, f"{wanted} different classes from 0..{available - 1}")
    return labels


def real_images(images: ClassImages, real: str | None, split: str, size: int | None) -> np.ndarray | None:
    """Equally many real images of each class studied, (K, n, H, W, C), or None.

    Args:
        images: the classes, and the shape that the real images must have.
        real: a data set; "auto" takes the bundled images where the classes have their names, else none; None none.
        split: of the data set.
        size: side to which they are reduced; None keeps it.
    """
    if real is None:
        return None
    found = load_images("real", BUNDLED_IMAGES if real == "auto" else real, split, size)
    if real == "auto" and tuple(found.class_names) != images.names:
        return None
    fits = found.images.shape[1:] == images.shape and len(found.class_names) == len(images.names)
    wanted = (
        f"{len(images.names)} classes of images of shape {images.shape} like the samples (see --size), "
        "or None for no real images"
    )
    shown = f"real = {real!r}: {len(found.class_names)} classes of images of shape"
    require(fits, shown, found.images.shape[1:], wanted)
    count = min(int((found.labels == label).sum()) for label in images.labels)
    require(count >= 8, f"real = {real!r}: images in the smallest class", count, "at least 8")
    picked = np.stack([found.images[found.labels == label][:count] for label in images.labels])
    check_no_duplicates(picked.reshape(-1, *picked.shape[2:]), "real")
    return picked
