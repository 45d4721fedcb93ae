"""What the parts of the study of hidden Gaussian structure are given: a denoiser, images, and the reference denoisers."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dgu import analysis
from dgu.core.errors import InputError, require
from dgu.core.keys import seeded, stream
from dgu.models import NCSNPP, EDMNetwork, EmpiricalDenoiser, GaussianDenoiser, SongUNetConfig
from dgu.samplers import karras_sigmas
from experiments.study import checkpoints
from experiments.study.costs import Cost
from experiments.study.inputs import note_choice
from experiments.study.judged import JudgedClaim
from experiments.study.pool import BUNDLED_IMAGES, load_images

PAPER = "hidden_gaussian"
#: The network of the paper's main figures: not in the package, but its costs are known.
FFHQ_64 = "edm-ffhq-64x64-uncond-ve.pkl"
#: The network in the package, which was trained on none of the bundled images.
BUNDLED_NETWORK = "fashion-mnist-14"


@dataclass(frozen=True)
class Subject:
    """The network that ``--checkpoint`` names, the images that its data are known by, and images to measure on.

    Nothing is loaded before a part asks for it: a part that trains networks of its own runs without a checkpoint.

    Attributes:
        config: the options of the whole study.
    """

    config: Any

    @cached_property
    def _pretrained(self) -> Any:
        return checkpoints.load(self.config.checkpoint, self.config.size)

    @cached_property
    def _label(self) -> int | None:
        return _label(self.config, self._pretrained.network.unet.label_dim)

    @cached_property
    def denoiser(self) -> Any:
        """A pytree ``denoiser(x, sigma)``; of a class-conditional network, that of one class."""
        denoiser = self._pretrained.denoiser
        return denoiser if self._label is None else denoiser.given(self._label)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image, (H, W, C)."""
        return tuple(self._pretrained.network.shape)

    @cached_property
    def _images(self) -> tuple[np.ndarray, np.ndarray, bool, str]:
        config = self.config
        # The classes of the untrained network are no classes of any images.
        names = () if config.checkpoint == checkpoints.UNTRAINED else self._pretrained.class_names
        train, held, bundled, about = _images(config, self._label, names)
        for option, images in (("data", train), ("heldout_data", held)):
            shown = f"{option} = {getattr(config, option)!r}: images of shape"
            require(
                images.shape[1:] == self.shape, shown, images.shape[1:], f"{self.shape}, the network's (see --size)"
            )
        if config.train_images is not None:
            enough = 2 <= config.train_images <= len(train)
            require(
                enough, "train_images", config.train_images, f"from 2 to {len(train)}, the training images there are"
            )
            train = train[: config.train_images]
        return train, held, bundled, about

    @property
    def train(self) -> np.ndarray:
        """Images that the Gaussian and the multi-delta denoiser are made of, (n, H, W, C)."""
        return self._images[0]

    @property
    def images(self) -> np.ndarray:
        """What is measured on, (m, H, W, C)."""
        return self._images[1] if self.inputs == "held-out" else self.train

    @property
    def inputs(self) -> str:
        """What ``images`` are to the denoisers: ``"held-out"`` or ``"training"``."""
        return self.config.inputs

    @property
    def bundled(self) -> bool:
        """Whether the images are the few bundled ones, for want of others: counts are cut to what there are."""
        return self._images[2]

    @property
    def about(self) -> str:
        """What the images are, in words."""
        return self._images[3]

    @property
    def batch_size(self) -> int:
        """Samples at a time."""
        return self.config.batch_size

    @cached_property
    def sigmas(self) -> np.ndarray:
        """The ten levels (or as many as asked for), falling."""
        low, high = max(0.002, self.denoiser.sigma_min), min(80.0, self.denoiser.sigma_max)
        return karras_sigmas(self.config.levels, low, high)[:-1]

    @property
    def perturbed(self) -> np.ndarray:
        """Levels at which states are perturbed."""
        return np.clip(self.config.jacobians.perturbed, self.sigmas[-1], self.sigmas[0])

    @cached_property
    def grid(self) -> np.ndarray:
        """Levels of the sampler, falling to 0, those of ``sigmas`` and of ``perturbed`` among them."""
        steps = karras_sigmas(self.config.steps, self.sigmas[-1], self.sigmas[0])[:-1]
        return np.append(np.unique(np.concatenate([steps, self.sigmas, self.perturbed]))[::-1], 0.0)

    @cached_property
    def gaussian(self) -> GaussianDenoiser:
        """The Gaussian denoiser of ``train``."""
        return GaussianDenoiser.fit(self.train)

    @cached_property
    def points(self) -> EmpiricalDenoiser:
        """The multi-delta denoiser of ``train``."""
        return EmpiricalDenoiser(self.train)

    def some(self, option: str, count: int, each: int = 1, last: bool = False) -> np.ndarray:
        """The first (or last) ``count * each`` images; ``InputError`` under the option's name where there are fewer (of the
        bundled images: all there are)."""
        there = len(self.images)
        count = min(count, there // each) if self.bundled else count
        require(
            count * each <= there, option, count, f"at most {there // each}: there are {there} {self.inputs} images"
        )
        return self.images[len(self.images) - count * each :] if last else self.images[: count * each]

    def trajectories(self, denoiser: Any, count: int, seed: int) -> analysis.Trajectories:
        """The first ``count`` samples of a denoiser with their states: the same noise for every denoiser and part."""
        key = stream(seeded(seed), "samples")
        return analysis.trace_trajectories(
            denoiser, key, range(count), self.grid, shape=self.shape, batch_size=self.batch_size
        )

    def states(self, path: analysis.Trajectories, levels: np.ndarray) -> np.ndarray:
        """States at some levels of the grid, ``(levels, samples, H, W, C)``."""
        places = [int(np.flatnonzero(self.grid == level)[0]) for level in levels]
        return np.moveaxis(path.x_hat[:, places], 1, 0)


@dataclass(frozen=True)
class Plan:
    """What a dry run knows: the options of the whole study and, where a part asks for it, the network's sizes."""

    config: Any

    @cached_property
    def network(self) -> EDMNetwork:
        """The network of the checkpoint; the paper's, whose sizes are known, needs no file."""
        name = self.config.checkpoint
        if name == FFHQ_64 and not Path(FFHQ_64).exists():
            return EDMNetwork(SongUNetConfig(64, 3, 3, **{**NCSNPP, "channel_mult": (1, 2, 2, 2)}))
        network = checkpoints.load(name, self.config.size).network
        _label(self.config, network.unet.label_dim)
        return network

    @property
    def size(self) -> int:
        """Numbers in an image."""
        return int(np.prod(self.network.shape))

    @property
    def steps(self) -> int:
        """Heun steps of a sample, at most."""
        return self.config.steps + self.config.levels + len(self.config.jacobians.perturbed)

    def cost(self, stage: str, evaluations: int, batch: int) -> Cost:
        """The cost of evaluations of the network, ``batch`` images at a time."""
        one, weights = self._evaluation
        memory = weights + batch * (one.memory - weights)
        return Cost(stage, evaluations, evaluations * one.flop, memory)

    @cached_property
    def _evaluation(self) -> tuple[Cost, int]:
        """The cost of one evaluation, and the bytes of the weights: the network is looked at once."""
        weights = sum(leaf.size for leaf in jax.tree.leaves(self.network.abstract_params)) * 4
        return checkpoints.sampling_cost(self.network, 1, 1, 1), weights


def _label(config: Any, classes: int) -> int | None:
    """The class that a class-conditional network is studied at; a network without classes has none."""
    if not classes:
        return None
    require(0 <= config.label < classes, "label", config.label, f"a class of the network, 0 to {classes - 1}")
    return config.label


def _images(config: Any, label: int | None, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray, bool, str]:
    """Training and held-out images of the class, whether they are the bundled ones, and what they are."""

    def chosen(option: str, source: str, split: str) -> np.ndarray:
        found = load_images(option, source, split, config.size)
        if label is None:
            return found.images
        fits = not names or tuple(names) == tuple(found.class_names)
        require(fits, option, source, f"images of the network's classes, {', '.join(names)}")
        return found.images[found.labels == label]

    kind = "" if label is None else f" of class {names[label] if names else label}"
    if config.data != "auto":
        train = chosen("data", config.data, config.train_split)
        if config.heldout_data is None and config.heldout_split == config.train_split:
            return *_halves(train, "data", config.data), False, f"halves of {config.data}{kind}"
        held = chosen("heldout_data", config.heldout_data or config.data, config.heldout_split)
        return train, held, False, f"{config.data} ({config.train_split}) and held-out images{kind}"
    try:
        train, held = (chosen("data", "fashion-mnist", split) for split in ("train", "test"))
        note_choice("data", config.data, "fashion-mnist")
        return train, held, False, f"Fashion-MNIST{kind}: training file, and test file held out"
    except InputError as error:
        if "was not found" not in str(error):
            raise
    note_choice("data", config.data, BUNDLED_IMAGES)
    bundled = chosen("data", BUNDLED_IMAGES, "test")
    unseen = ", none of which the network was trained on" if config.checkpoint == BUNDLED_NETWORK else ""
    return (
        *_halves(bundled, "data", "auto"),
        True,
        (
            f"the bundled images{kind}{unseen}: one half stands for the training images, and counts are cut to what there are"
        ),
    )


def _halves(images: np.ndarray, option: str, value: str) -> tuple[np.ndarray, np.ndarray]:
    require(len(images) >= 8, f"{option} = {value!r}: images", len(images), "at least 8, for two halves")
    return images[::2], images[1::2]


def bounded(kind: str, found: Any, place: Any, bound: float, **about: Any) -> JudgedClaim:
    """A claim ("at_least" or "at_most") on one entry of an ``Interval`` of arrays."""
    value, low, high = (float(np.asarray(part)[place]) for part in (found.estimate, found.low, found.high))
    return getattr(JudgedClaim, kind)(value=value, interval=(low, high), threshold=bound, **{"paper": PAPER, **about})


def triple(found: Any, place: Any = slice(None)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Estimate, low and high of an ``Interval``, for a figure."""
    return tuple(np.asarray(part)[place] for part in (found.estimate, found.low, found.high))  # type: ignore[return-value]
