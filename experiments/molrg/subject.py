"""What the study of mixtures of low-rank Gaussians looks at: a network and the images it was trained on; options that
say which."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dgu.core.errors import require
from dgu.data import ImageSet
from dgu.models import Pretrained
from experiments.decoding import Decoder, DecoderOptions, decoder_of
from experiments.descriptions import in_pictures, network_in_words
from experiments.sampling import GuidanceOptions, noise_range
from experiments.study import Cost, Materials, RunDirectory, option
from experiments.subjects import BUNDLED_IMAGES, Described, auto_images, check_shape, load, load_images, planned

PAPER = "molrg"
#: Parts that draw their own data or train their own networks, and look neither at that of --checkpoint nor its images.
TRAIN_THEIR_OWN = ("phase", "networks", "real")


@dataclass(frozen=True)
class Options(GuidanceOptions, DecoderOptions):
    """The study of mixtures of low-rank Gaussians."""

    checkpoint: str = "fashion-mnist-14"
    """Network to study: the bundled fashion-mnist-14, a network file of dgu (.npz, .safetensors), the directory of a
    training run, one of NVIDIA's snapshots (.pkl), a folder of diffusers, or a network of these as PyTorch saved it
    (.pt)."""
    data: str = "auto"
    """Images that the network was trained on; auto is Fashion-MNIST, or the bundled images where that is not on this
    machine."""
    split: str = "train"
    """Split of these images."""
    size: int | None = option(14, ge=1)
    """Side to which the images are reduced by averaging over areas; None keeps their size."""
    others: tuple[str, ...] = ()
    """Further networks with their training data for the parts images and dimension, each CHECKPOINT=DATA or, with the
    rank of the mixture fitted to these, CHECKPOINT=DATA=RANK, such as runs/mnist=mnist or runs/cifar=cifar10=200."""
    seed: int = option(0, ge=0)
    """Seed of every random draw."""

    def check(self) -> None:
        """The other networks are named as they must be."""
        for pair in self.others:
            _parsed(pair)


def _parsed(pair: str) -> tuple[str, str, int | None]:
    """Checkpoint, data and rank (None: not given) of one of ``others``."""
    parts = pair.split("=")
    sound = len(parts) in (2, 3) and all(parts) and (len(parts) == 2 or (parts[2].isdecimal() and int(parts[2]) >= 1))
    require(sound, "others", pair, "CHECKPOINT=DATA or CHECKPOINT=DATA=RANK")
    return parts[0], parts[1], int(parts[2]) if len(parts) == 3 else None


@dataclass(frozen=True)
class Subject:
    """A network, and images of what it was trained on; both are loaded when first used.

    Attributes:
        checkpoint, data, split, size: as in ``Options``.
        option: name of the option that gave ``data``, for complaints.
        guidance: the guide of the network, if any.
        decoding: how its images are shown, if they are latents.
        rank: of the mixture fitted to the data; None is that of the part's options.
        others: further networks, as in ``Options``.
    """

    checkpoint: str
    data: str
    split: str
    size: int | None
    option: str = "data"
    guidance: GuidanceOptions | None = None
    decoding: DecoderOptions = DecoderOptions()  # noqa: RUF009
    rank: int | None = None
    others: tuple[str, ...] = ()

    @cached_property
    def every(self) -> list["Subject"]:
        """This one, and further networks with their data."""
        found = [self]
        for pair in self.others:
            checkpoint, data, rank = _parsed(pair)
            size = planned(checkpoint, option="others").shape[0]
            found.append(Subject(checkpoint, data, "train", size, "others", rank=rank))
        return found

    @cached_property
    def names(self) -> list[str]:
        """Names of the data of ``every``, with the place where several have data of one name."""
        names = [one.name for one in self.every]
        return [name if names.count(name) == 1 else f"{name} ({place})" for place, name in enumerate(names)]

    @cached_property
    def pretrained(self) -> Pretrained:
        """The network with what is known of it."""
        option = "others" if self.option == "others" else "checkpoint"
        return load(self.checkpoint, guidance=self.guidance, option=option)

    @cached_property
    def _found(self) -> tuple[ImageSet, str]:
        """The set of images and a description of it; ``InputError`` unless they suit the network."""
        classes = self.pretrained.network.unet.label_dim
        found, about = _images(self.option, self.data, self.split, self.size)
        check_shape(self.option, self.data, found.images, self.shape)
        if classes:
            names, own = tuple(found.class_names), self.pretrained.class_names
            same = len(names) == classes and (not own or names == own)
            shown = f"{self.option} = {self.data!r}: classes"
            require(same, shown, names, f"the network's {classes}: {', '.join(own) or 'unnamed'}")
        return found, about

    def check(self) -> None:
        """Load both, and the decoder; ``InputError`` where they cannot be read or do not suit each other."""
        _ = self._found, self.decoder

    @cached_property
    def decoder(self) -> Decoder | None:
        """Makes pictures of images that are latents; None where they are no latents."""
        return decoder_of(self.decoding, self.shape)

    @property
    def name(self) -> str:
        """Name of the data."""
        return Path(self._found[0].name).name

    @property
    def about(self) -> str:
        """Which images these are, in words."""
        return self._found[1]

    @property
    def images(self) -> np.ndarray:
        """(n, H, W, C)."""
        return self._found[0].images

    @property
    def labels(self) -> np.ndarray:
        """(n,), the network's classes, if it has any."""
        return self._found[0].labels

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes of the labels."""
        return tuple(self._found[0].class_names)

    @property
    def denoiser(self) -> Any:
        """The network without a class."""
        return self.pretrained.denoiser

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one image, (H, W, C)."""
        return self.pretrained.network.shape

    @property
    def conditional(self) -> bool:
        """Whether the network is class-conditional, and so is never used without a class."""
        return self.pretrained.network.unet.label_dim > 0

    def of_class(self, label: int) -> Any:
        """The denoiser of one class; the network itself where it is unconditional."""
        return self.denoiser.given(label) if self.conditional else self.denoiser

    def label_of(self, indices: Sequence[int] | np.ndarray) -> np.ndarray | None:
        """The class of each sample: all classes in turn; None for an unconditional network."""
        return np.asarray(indices) % len(self.class_names) if self.conditional else None

    @property
    def sigma_range(self) -> tuple[float, float]:
        """Smallest and largest noise level of the sampler that the network takes."""
        return noise_range(self.denoiser)


@dataclass(frozen=True)
class Plan:
    """What a dry run knows of a subject."""

    checkpoint: str
    guidance: GuidanceOptions
    others: tuple[str, ...] = ()

    @cached_property
    def network(self) -> Described:
        """The network of the checkpoint."""
        return planned(self.checkpoint, guidance=self.guidance)

    @cached_property
    def networks(self) -> list[Described]:
        """That one and the others."""
        return [self.network, *(planned(_parsed(pair)[0], option="others") for pair in self.others)]


def gather(config: Options, directory: RunDirectory) -> Subject:
    """The network and its images, loaded by the first part that needs them: ``phase`` and ``networks`` do not."""
    return Subject(
        config.checkpoint, config.data, config.split, config.size,
        guidance=config, decoding=config, others=config.others,
    )  # fmt: skip


def describe(config: Any, subject: Subject, directory: RunDirectory) -> Materials:
    """Networks and their images, if a part looks at them; and what other parts train or draw."""
    theirs = [part for part in TRAIN_THEIR_OWN if part in config.parts]
    own = f"Data and networks of {' and '.join(theirs)} are drawn and trained in the run, as their options say."
    said: list[str] = []
    rows: dict[str, np.ndarray] = {}
    for place, one in enumerate(subject.every if set(config.parts) - set(TRAIN_THEIR_OWN) else []):
        name = subject.names[place]
        guided = config.guided_by if place == 0 else ""
        said.append(network_in_words(one.checkpoint, one.pretrained, guided))
        said.append(f"Images: {len(one.images):,}, {one.about}.")
        first = [np.flatnonzero(one.labels == label)[0] for label in np.unique(one.labels)]
        made = directory.stored(f"images/{place}/network-0").get("images", np.empty(0))
        images = one.images[first] if len(first) > 1 else one.images
        of = f" ({name})" if subject.others else ""
        rows |= in_pictures({f"images{of}": images, f"samples{of}": made}, one.decoder)
    # Networks of other sizes are not shown beside the first.
    alike = {row: images for row, images in rows.items() if images.shape[1:] == next(iter(rows.values())).shape[1:]}
    return Materials(" ".join([*said, *([own] if theirs else [])]), alike)


def plan(config: Options) -> tuple[Plan, list[Cost]]:
    """The network for a dry run; loading it costs nothing."""
    return Plan(config.checkpoint, config, config.others), []


def _images(option: str, data: str, split: str, size: int | None) -> tuple[ImageSet, str]:
    if data != "auto":
        return load_images(option, data, split, size), f"{data} ({split})"
    splits = {"fashion-mnist": "train", BUNDLED_IMAGES: "test"}
    source, found = auto_images(option, lambda source: load_images(option, source, splits[source], size))
    if source != BUNDLED_IMAGES:
        return found, "Fashion-MNIST, training file"
    count = f"{len(found.images):,} bundled images"
    return found, f"the {count} of Fashion-MNIST's test file, as the training file is missing"
