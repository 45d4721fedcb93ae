"""Training and held-out images, as the options of a study name them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dgu.core.errors import require
from experiments.subjects import BUNDLED_IMAGES, auto_images

#: Fewest images that are divided into two halves.
_FEWEST = 8
#: ``read(option, source, split)``: the images of a split, with complaints under the name of the option.
Read = Callable[[str, str, str], np.ndarray]


@dataclass(frozen=True, eq=False)
class Images:
    """Two sets of images of one distribution.

    Attributes:
        train: the training set, (n, H, W, C).
        held: held-out images.
        bundled: both are halves of the bundled images, because no others were found; larger counts are reduced.
        about: a description in words.
    """

    train: np.ndarray
    held: np.ndarray
    bundled: bool
    about: str


@dataclass(frozen=True)
class Sources:
    """The options that name both sets.

    Attributes:
        data, split: the training images; the data ``"auto"`` are Fashion-MNIST or, if it is not on this machine, the
            bundled images.
        heldout_data, heldout_split: the held-out images; None takes the same data.
        prefix: what the names of these options begin with, such as ``"networks."``.
    """

    data: str
    split: str
    heldout_data: str | None
    heldout_split: str
    prefix: str = ""

    @property
    def halved(self) -> bool:
        """Whether both sets have the same source, so that each gets every other image."""
        return (self.heldout_data or self.data, self.heldout_split) == (self.data, self.split)

    def load(self, read: Read, kind: str = "") -> Images:
        """Both sets; ``kind`` says which of the images ``read`` returns, such as ``" of class 3"``."""
        option = f"{self.prefix}data"
        if self.data != "auto":
            train = read(option, self.data, self.split)
            if self.halved:
                return Images(*_halves(train, option, self.data), False, f"halves of {self.data}{kind}")
            source = self.heldout_data or self.data
            held = read(f"{self.prefix}heldout_data", source, self.heldout_split)
            about = f"{self.data} ({self.split}) and {source} ({self.heldout_split}) as held-out images{kind}"
            return Images(train, held, False, about)
        splits = {"fashion-mnist": ("train", "test"), BUNDLED_IMAGES: ("test",)}
        source, found = auto_images(option, lambda source: [read(option, source, split) for split in splits[source]])
        if source == BUNDLED_IMAGES:
            return Images(*_halves(found[0], option, "auto"), True, f"halves of the bundled images{kind}")
        train, held = found
        return Images(train, held, False, f"Fashion-MNIST{kind}: its training file, and its test file as held-out")


def _halves(images: np.ndarray, option: str, value: str) -> tuple[np.ndarray, np.ndarray]:
    require(len(images) >= _FEWEST, f"{option} = {value!r}: images", len(images), f"at least {_FEWEST}, for two halves")
    return images[::2], images[1::2]
