"""What the parts of the study are given: a denoiser, images, and the reference denoisers of the training images."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dgu import analysis
from dgu.core.errors import require
from dgu.core.keys import seeded, stream
from dgu.core.typing import Denoiser
from dgu.models import EmpiricalDenoiser, GaussianDenoiser, Pretrained, SkipDenoiser
from dgu.samplers import karras_sigmas
from experiments.decoding import Decoder, DecoderOptions, decoder_of
from experiments.descriptions import in_pictures, network_in_words
from experiments.hidden_gaussian.images import Images, Sources
from experiments.hidden_gaussian.networks import KNOWN
from experiments.hidden_gaussian.networks import Config as NetworksConfig
from experiments.sampling import GuidanceOptions, noise_range
from experiments.study import Cost, Findings, Materials, RunDirectory, Table, option
from experiments.subjects import (
    UNTRAINED,
    Described,
    check_shape,
    evaluation_cost,
    load,
    load_images,
    planned,
    random_like,
)

if TYPE_CHECKING:  # These modules import this one.
    from experiments.hidden_gaussian import jacobians, linear_maps

PAPER = "hidden_gaussian"
#: The network in the package, which was trained on none of the bundled images.
_BUNDLED_NETWORK = "fashion-mnist-14"
#: Names of the network and of the reference denoisers in figures and tables.
NETWORK, GAUSSIAN, POINTS = "network", "Gaussian", "multi-delta"
#: Names of the controls that have learned nothing: the network with random parameters, and its skip alone.
RANDOM, SKIP = "untrained", "bare-skip"
#: Parts that train networks of their own, and need neither a checkpoint nor its images.
TRAIN_THEIR_OWN = ("sweeps", "strong")


@dataclass(frozen=True)
class Options(GuidanceOptions, DecoderOptions):
    """The study of hidden Gaussian structure."""

    checkpoint: str = "fashion-mnist-14"
    """Network to study: the bundled fashion-mnist-14, a network file of dgu (.npz, .safetensors), the directory of a
    training run, one of NVIDIA's snapshots (.pkl), a folder of diffusers, or a network of these as PyTorch saved it
    (.pt); "untrained" is a tiny network with random weights, for trying things out."""
    data: str = "auto"
    """Images that the network was trained on, for the Gaussian and the multi-delta denoiser. "auto" takes Fashion-MNIST
    or, where it is not on this machine, half of the bundled images."""
    train_split: str = "train"
    """Split of the training images."""
    heldout_data: str | None = None
    """Images that the network was not trained on; None takes another split of the same data."""
    heldout_split: str = "test"
    """Split of the held-out images; if data and split are those of the training images, each gets every other image."""
    size: int | None = option(14, ge=1)
    """Side to which images are reduced by averaging over areas; None keeps their size."""
    label: int = option(0, ge=0)
    """Class at which a class-conditional network is studied."""
    train_images: int | None = option(None, ge=1)
    """Number of training images to use, the first ones; None uses all."""
    inputs: Literal["held-out", "training"] = "held-out"
    """Images on which denoisers are compared and distilled. On its own training data the exact posterior mean has the
    Gaussian's best linear maps, whatever the data are; held-out images tell more."""
    levels: int = option(10, ge=2)
    """Noise levels of maps, distances and Jacobians: the authors' grid from 80 to 0.002, within the network's range."""
    steps: int = option(18, ge=2)
    """Heun steps of the paths along which Jacobians are taken, in addition to those at the levels studied."""
    batch_size: int = option(10, ge=1)
    """Samples computed at once."""
    networks: NetworksConfig = field(default_factory=NetworksConfig)
    seed: int = option(0, ge=0)
    """Seed of every random draw."""

    def check(self) -> None:
        """Only the two kinds of inputs exist."""
        require(self.inputs in ("held-out", "training"), "inputs", self.inputs, "held-out or training")


class AllOptions(Options):
    """The options of the whole study: the shared ones, the parts to run, and those of parts that others need, too."""

    parts: tuple[str, ...]
    distillation: "linear_maps.Config"
    jacobians: "jacobians.Config"


@dataclass(frozen=True)
class Subject:
    """The network that ``--checkpoint`` names, images of its training distribution, and images to measure on.

    Nothing is loaded before a part asks for it, so that parts that train networks of their own run without a
    checkpoint.

    Attributes:
        config: the options of the whole study.
    """

    config: AllOptions

    @cached_property
    def pretrained(self) -> Pretrained:
        """The network with what is known of it."""
        return load(self.config.checkpoint, self.config.size, self.config)

    @cached_property
    def _label(self) -> int | None:
        return _label(self.config, self.pretrained.network.unet.label_dim)

    @cached_property
    def denoiser(self) -> Denoiser:
        """A pytree ``denoiser(x, sigma)``; of a class-conditional network, that of one class."""
        denoiser: Any = self.pretrained.denoiser
        return denoiser if self._label is None else denoiser.given(self._label)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image, (H, W, C)."""
        return tuple(self.pretrained.network.shape)

    @cached_property
    def decoder(self) -> Decoder | None:
        """Makes pictures of images that are latents; None where they are no latents."""
        return decoder_of(self.config, self.shape)

    @cached_property
    def _images(self) -> Images:
        config = self.config
        # The classes of the untrained network are no classes of any images.
        names = () if config.checkpoint == UNTRAINED else tuple(self.pretrained.class_names)
        found = _load(config, self._label, names)
        check_shape("data", config.data, found.train, self.shape)
        check_shape("heldout_data", config.heldout_data, found.held, self.shape)
        if config.train_images is None:
            return found
        enough, most = 2 <= config.train_images <= len(found.train), len(found.train)
        require(enough, "train_images", config.train_images, f"from 2 to {most}, the number of training images")
        return Images(found.train[: config.train_images], found.held, found.bundled, found.about)

    @property
    def train(self) -> np.ndarray:
        """Training images, of which the Gaussian and the multi-delta denoiser are made, (n, H, W, C)."""
        return self._images.train

    @property
    def held(self) -> np.ndarray:
        """Held-out images, (m, H, W, C)."""
        return self._images.held

    @property
    def images(self) -> np.ndarray:
        """Images to measure on, (m, H, W, C)."""
        return self.held if self.inputs == "held-out" else self.train

    @property
    def inputs(self) -> str:
        """What ``images`` are to the denoisers: ``"held-out"`` or ``"training"``."""
        return self.config.inputs

    @property
    def about(self) -> str:
        """A description of the images in words."""
        found = self._images
        if not found.bundled:
            return found.about
        unseen = ", none of which the network was trained on" if self.config.checkpoint == _BUNDLED_NETWORK else ""
        return f"{found.about}{unseen}; one half stands for the training images, and counts are limited to their number"

    @property
    def batch_size(self) -> int:
        """Samples computed at once."""
        return self.config.batch_size

    @cached_property
    def sigmas(self) -> np.ndarray:
        """The noise levels studied, falling, ten by default."""
        return karras_sigmas(self.config.levels, *noise_range(self.pretrained.denoiser))[:-1]

    @property
    def perturbed(self) -> np.ndarray:
        """Noise levels at which states are perturbed."""
        return np.clip(self.config.jacobians.perturbed, self.sigmas[-1], self.sigmas[0])

    @cached_property
    def grid(self) -> np.ndarray:
        """Noise levels of the sampler, falling to 0, with those of ``sigmas`` and of ``perturbed`` among them."""
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

    @cached_property
    def random(self) -> Denoiser:
        """The network with random parameters in place of the trained ones, at the same class."""
        denoiser: Any = self.denoiser
        return random_like(denoiser, stream(seeded(self.config.seed), "untrained"))

    @cached_property
    def skip(self) -> SkipDenoiser:
        """The skip of the network's preconditioning alone, ``c_skip x``."""
        return SkipDenoiser(self.pretrained.network.preconditioning)

    def model(self, name: str) -> Denoiser:
        """The network, a reference denoiser or a control, by its name in figures."""
        attributes = {NETWORK: "denoiser", GAUSSIAN: "gaussian", POINTS: "points", RANDOM: "random", SKIP: "skip"}
        found: Denoiser = getattr(self, attributes[name])
        return found

    def components(self, most: int) -> dict[str, np.ndarray]:
        """At most ``most`` leading principal components of ``train``: ``basis`` (pixels, k), ``variances`` (k,)."""
        basis, variances = np.asarray(self.gaussian.basis), np.asarray(self.gaussian.variances)
        return {"basis": basis[:, :most].astype(np.float64), "variances": variances[:most].astype(np.float64)}

    def some(self, option: str, count: int, each: int = 1, last: bool = False) -> np.ndarray:
        """The first (or last) ``count * each`` images.

        Raises:
            InputError: there are fewer, under the name of the option; of the bundled images all are returned.
        """
        available = len(self.images)
        count = min(count, available // each) if self._images.bundled else count
        allowed = f"at most {available // each}: there are {available} {self.inputs} images"
        require(count * each <= available, option, count, allowed)
        return self.images[available - count * each :] if last else self.images[: count * each]

    def trajectories(self, denoiser: Denoiser, count: int, seed: int) -> analysis.Trajectories:
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
    """What a dry run knows: the options of the whole study and, if a part asks for it, the sizes of the network."""

    config: AllOptions

    @cached_property
    def network(self) -> Described:
        """The network of the checkpoint; the paper's, whose sizes are known, needs no file."""
        network = planned(self.config.checkpoint, self.config.size, self.config)
        _label(self.config, network.unet.label_dim)
        return network

    @property
    def size(self) -> int:
        """Number of values in an image."""
        return int(np.prod(self.network.shape))

    @property
    def train_count(self) -> int:
        """Number of training images, as far as it is known without them; as many as Fashion-MNIST has else."""
        known, *_ = KNOWN.get(self.config.data, KNOWN["fashion-mnist"])
        return self.config.train_images or known

    @property
    def steps(self) -> int:
        """Heun steps of a sample, at most."""
        return self.config.steps + self.config.levels + len(self.config.jacobians.perturbed)

    def cost(self, stage: str, evaluations: int, batch: int) -> Cost:
        """The cost of evaluations of the network, ``batch`` images at a time."""
        return evaluation_cost(self.network, stage, evaluations, batch)


def gather(config: AllOptions, directory: RunDirectory) -> Subject:
    """The subject of the study, loaded if a part looks at it."""
    subject = Subject(config)
    if _looked_at(config):
        _ = subject.train, subject.decoder
    return subject


def plan(config: AllOptions) -> tuple[Plan, list[Cost]]:
    """What a dry run knows; the subject itself costs nothing."""
    return Plan(config), []


def describe(config: AllOptions, subject: Subject, directory: RunDirectory) -> Materials:
    """The network and its images, if a part looks at them; and what other parts train."""
    theirs = [part for part in TRAIN_THEIR_OWN if part in config.parts]
    own = f"The options --networks describe what {' and '.join(theirs)} train." if theirs else ""
    if not _looked_at(config):
        return Materials(own)
    rows = {
        "training images": subject.train,
        "held-out images": subject.held,
        "samples": directory.stored("distances/samples").get(NETWORK, np.empty(0)),
    }
    said = network_in_words(config.checkpoint, subject.pretrained, config.guided_by)
    images = f"Images: {subject.about}; {len(subject.train):,} for training, {len(subject.held):,} held out."
    return Materials(" ".join(filter(None, (said, images, own))), in_pictures(rows, subject.decoder))


def introduce(config: AllOptions, subject: Subject) -> Findings:
    """The numbers of images, if a part looks at them."""
    if not _looked_at(config):
        return Findings("")
    train, measured = len(subject.train), len(subject.images)
    rows = [("training, for the Gaussian and multi-delta denoisers", train), (subject.inputs, measured)]
    return Findings(
        "",
        tables=[Table("Images", ("what", "images"), rows)],
        metrics={"inputs": subject.inputs, "images": {"train": train, "inputs": measured}},
    )


def _looked_at(config: AllOptions) -> bool:
    """Whether a part looks at the network of the checkpoint and its images."""
    return bool(set(config.parts) - set(TRAIN_THEIR_OWN))


def _label(config: Options, classes: int) -> int | None:
    """The class at which a class-conditional network is studied; None for a network without classes."""
    if not classes:
        return None
    require(0 <= config.label < classes, "label", config.label, f"a class of the network, 0 to {classes - 1}")
    return config.label


def _load(config: Options, label: int | None, names: tuple[str, ...]) -> Images:
    """Training and held-out images, those of class ``label`` of a network whose classes have these ``names``."""

    def read(option: str, source: str, split: str) -> np.ndarray:
        found = load_images(option, source, split, config.size)
        if label is None:
            return found.images
        fits = not names or names == tuple(found.class_names)
        require(fits, option, source, f"images of the network's classes, {', '.join(names)}")
        return found.images[found.labels == label]

    sources = Sources(config.data, config.train_split, config.heldout_data, config.heldout_split)
    return sources.load(read, "" if label is None else f" of class {names[label] if names else label}")
