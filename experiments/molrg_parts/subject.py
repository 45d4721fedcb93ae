"""What the parts of the study of mixtures of low-rank Gaussians are given: a network and the images it was trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dgu.core.errors import InputError, require
from dgu.models import EDMNetwork, SongUNetConfig
from experiments.study import checkpoints
from experiments.study.inputs import note_choice
from experiments.study.pool import BUNDLED_IMAGES, load_images

PAPER = "molrg"
#: NVIDIA's CIFAR-10 network: not in the package, but its costs are known.
CIFAR_10 = "edm-cifar10-32x32-uncond-vp.pkl"


@dataclass(frozen=True)
class Subject:
    """A network, and images of what it was trained on.

    Attributes:
        name: of the data.
        pretrained: the network with what is known of it.
        images, labels: (n, H, W, C) and (n,); labels are the network's classes, if it has any.
        class_names: of the labels.
        about: what the images are, in words.
    """

    name: str
    pretrained: Any
    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    about: str

    @property
    def denoiser(self) -> Any:
        """The network without a class."""
        return self.pretrained.denoiser

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image, (H, W, C)."""
        return self.pretrained.network.shape

    @property
    def conditional(self) -> bool:
        """Whether the network has classes, and so is never used without one."""
        return self.pretrained.network.unet.label_dim > 0

    def of_class(self, label: int) -> Any:
        """The denoiser of one class; the network itself where it has none."""
        return self.denoiser.given(label) if self.conditional else self.denoiser

    def label_of(self, indices: Sequence[int] | np.ndarray) -> np.ndarray | None:
        """The class that each sample is of: classes in turn; None for a network without classes."""
        return np.asarray(indices) % len(self.class_names) if self.conditional else None

    @property
    def sigma_range(self) -> tuple[float, float]:
        """Smallest and largest level of the sampler that the network takes."""
        return max(0.002, self.denoiser.sigma_min), min(80.0, self.denoiser.sigma_max)


def planned(name: str) -> EDMNetwork:
    """The network of a dry run: that of the checkpoint, or NVIDIA's CIFAR-10 network where its file is not at hand."""
    if name != CIFAR_10 or Path(name).exists():
        return checkpoints.load(name).network
    return EDMNetwork(SongUNetConfig(32, 3, 3, channel_mult=(2, 2, 2), augment_dim=9))


def gather(checkpoint: str, data: str, split: str, size: int | None, option: str = "data") -> Subject:
    """The network and its images; bad input is refused here, under the name of its option."""
    pretrained = checkpoints.load(checkpoint)
    found, about = _images(option, data, split, size)
    shape, classes = pretrained.network.shape, pretrained.network.unet.label_dim
    fits = found.images.shape[1:] == shape
    require(
        fits, f"{option} = {data!r}: images of shape", found.images.shape[1:], f"{shape}, the network's (see --size)"
    )
    if classes:
        names, own = tuple(found.class_names), pretrained.class_names
        same = len(names) == classes and (not own or names == tuple(own))
        require(same, f"{option} = {data!r}: classes", names, f"the network's {classes}: {', '.join(own) or 'unnamed'}")
    return Subject(Path(found.name).name, pretrained, found.images, found.labels, tuple(found.class_names), about)


def _images(option: str, data: str, split: str, size: int | None) -> tuple[Any, str]:
    if data != "auto":
        return load_images(option, data, split, size), f"{data} ({split})"
    try:
        found = load_images(option, "fashion-mnist", "train", size)
        note_choice(option, data, "fashion-mnist")
        return found, "Fashion-MNIST, training file"
    except InputError as error:
        if "was not found" not in str(error):
            raise
    note_choice(option, data, BUNDLED_IMAGES)
    found = load_images(option, BUNDLED_IMAGES, "test", size)
    return (
        found,
        f"the {len(found.images):,} bundled images of Fashion-MNIST's test file, for want of the training file",
    )
