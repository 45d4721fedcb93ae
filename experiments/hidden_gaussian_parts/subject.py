"""What the parts of the study of hidden Gaussian structure are given: a denoiser, images, and the reference denoisers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dgu import analysis
from dgu.errors import InputError, require
from dgu.keys import stream
from dgu.models import NCSNPP, EDMNetwork, EmpiricalDenoiser, GaussianDenoiser, SongUNetConfig
from dgu.samplers import karras_sigmas
from experiments.harness import checkpoints
from experiments.harness.claims import Claim
from experiments.harness.pool import BUNDLED_IMAGES, load_images

PAPER = "hidden_gaussian"
#: The network of the paper's main figures: not in the package, but its costs are known.
FFHQ_64 = "edm-ffhq-64x64-uncond-ve.pkl"


@dataclass(frozen=True)
class Subject:
    """A denoiser, the images that its data are known by, and images to measure on.

    Attributes:
        denoiser: a pytree ``denoiser(x, sigma)``; of a class-conditional network, that of one class.
        shape: of one image, (H, W, C).
        train: images that the Gaussian and the multi-delta denoiser are made of, (n, H, W, C).
        images: what is measured on, (m, H, W, C).
        inputs: what these are to the denoisers: ``"held-out"`` or ``"training"``.
        sigmas: the ten levels (or as many as asked for), falling.
        grid: levels of the sampler, falling to 0, those of ``sigmas`` and of ``perturbed`` among them.
        perturbed: levels at which states are perturbed.
        batch_size: samples at a time.
        gaussian, points: the Gaussian and the multi-delta denoiser of ``train``.
        bundled: the images are the few bundled ones, for want of others: counts are cut to what there are.
        about: what the images are, in words.
    """

    denoiser: Any
    shape: tuple[int, ...]
    train: np.ndarray
    images: np.ndarray
    inputs: str
    sigmas: np.ndarray
    grid: np.ndarray
    perturbed: np.ndarray
    batch_size: int
    gaussian: GaussianDenoiser
    points: EmpiricalDenoiser
    bundled: bool
    about: str

    def some(self, option: str, count: int, each: int = 1) -> np.ndarray:
        """The first ``count * each`` images; ``InputError`` under the option's name where there are fewer (of the bundled
        images: all there are)."""
        there = len(self.images)
        count = min(count, there // each) if self.bundled else count
        require(
            count * each <= there, option, count, f"at most {there // each}: there are {there} {self.inputs} images"
        )
        return self.images[: count * each]

    def trajectories(self, denoiser: Any, count: int, seed: int) -> analysis.Trajectories:
        """The first ``count`` samples of a denoiser with their states: the same noise for every denoiser and part."""
        key = stream(jax.random.key(seed), "samples")
        return analysis.trace_trajectories(
            denoiser, key, range(count), self.grid, shape=self.shape, batch_size=self.batch_size
        )

    def states(self, path: analysis.Trajectories, levels: np.ndarray) -> np.ndarray:
        """States at some levels of the grid, ``(levels, samples, H, W, C)``."""
        places = [int(np.flatnonzero(self.grid == level)[0]) for level in levels]
        return np.moveaxis(path.x_hat[:, places], 1, 0)


def gather(config: Any) -> Subject:
    """The network and images of a ``Config``; whatever can be refused is refused here."""
    pretrained = checkpoints.load(config.checkpoint)
    network, classes = pretrained.network, pretrained.network.unet.label_dim
    label, names = _label(config, classes), pretrained.class_names
    denoiser = pretrained.denoiser if label is None else pretrained.denoiser.given(label)
    train, held, bundled, about = _images(config, label, names)
    wanted = f"{network.shape}, the network's (see --size)"
    require(train.shape[1:] == network.shape, f"data = {config.data!r}: images of shape", train.shape[1:], wanted)
    if config.train_images is not None:
        enough = 2 <= config.train_images <= len(train)
        require(enough, "train_images", config.train_images, f"from 2 to {len(train)}, the training images there are")
        train = train[: config.train_images]
    low, high = max(0.002, denoiser.sigma_min), min(80.0, denoiser.sigma_max)
    sigmas = karras_sigmas(config.levels, low, high)[:-1]
    perturbed = np.clip(config.jacobians.perturbed, sigmas[-1], sigmas[0])
    steps = karras_sigmas(config.steps, sigmas[-1], sigmas[0])[:-1]
    grid = np.append(np.unique(np.concatenate([steps, sigmas, perturbed]))[::-1], 0.0)
    images = held if config.inputs == "held-out" else train
    gaussian, points = GaussianDenoiser.fit(train), EmpiricalDenoiser(train)
    return Subject(
        denoiser, network.shape, train, images, config.inputs, sigmas, grid, perturbed, config.batch_size, gaussian, points, bundled, about
    )  # fmt: skip


def planned(config: Any) -> EDMNetwork:
    """The network of a dry run."""
    if config.checkpoint == FFHQ_64 and not Path(FFHQ_64).exists():
        return EDMNetwork(SongUNetConfig(64, 3, 3, **{**NCSNPP, "channel_mult": (1, 2, 2, 2)}))
    network = checkpoints.load(config.checkpoint).network
    _label(config, network.unet.label_dim)
    return network


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
        return train, held, False, f"Fashion-MNIST{kind}: training file, and test file held out"
    except InputError as error:
        if "was not found" not in str(error):
            raise
    bundled = chosen("data", BUNDLED_IMAGES, "test")
    return (
        *_halves(bundled, "data", "auto"),
        True,
        (
            f"the bundled images{kind}, none of which the network was trained on: one half stands for the training images"
        ),
    )


def _halves(images: np.ndarray, option: str, value: str) -> tuple[np.ndarray, np.ndarray]:
    require(len(images) >= 8, f"{option} = {value!r}: images", len(images), "at least 8, for two halves")
    return images[::2], images[1::2]


def bounded(kind: str, found: Any, place: Any, bound: float, **about: Any) -> Claim:
    """A claim ("at_least" or "at_most") on one entry of an ``Interval`` of arrays."""
    value, low, high = (float(np.asarray(part)[place]) for part in (found.estimate, found.low, found.high))
    return getattr(Claim, kind)(value=value, interval=(low, high), threshold=bound, paper=PAPER, **about)


def triple(found: Any, place: Any = slice(None)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Estimate, low and high of an ``Interval``, for a figure."""
    return tuple(np.asarray(part)[place] for part in (found.estimate, found.low, found.high))  # type: ignore[return-value]
