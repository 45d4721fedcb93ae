"""Sets of images: read, and refused in one line where they cannot be compared, before anything is computed."""

import os
from dataclasses import dataclass

import numpy as np

from dgu.core.errors import InputError, require
from dgu.data import SampleStore
from dgu.data.comparable import check_apart, check_comparable, check_images
from dgu.data.formats import is_latent
from dgu.data.store import MANIFEST
from experiments.study.inputs import reading
from experiments.subjects import load_images

#: Fewest samples, reference and held-out images, and the statistic that needs them.
NEEDS = {
    "samples": (50, "two blocks of 25 of the kernel distance"),
    "reference": (100, "the nearest neighbours, and as many rows as the samples"),
    "holdout": (50, "the 5 % quantile of its distances, and two blocks of 25 of the kernel distance"),
}
#: Without held-out images this share of the reference is set aside, and at most this many images.
ASIDE, MOST_ASIDE = 1 / 6, 10_000


@dataclass(frozen=True)
class Images:
    """A set of images (n, h, w, c) in [-1, 1], labels or None, and features (n, d) where files gave them."""

    pixels: np.ndarray
    labels: np.ndarray | None
    features: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def flat(self) -> np.ndarray:
        """(n, h w c)."""
        return self.pixels.reshape(len(self.pixels), -1)

    def rows(self, chosen: np.ndarray) -> "Images":
        """The images of these rows."""
        labels, features = (None if part is None else part[chosen] for part in (self.labels, self.features))
        return Images(self.pixels[chosen], labels, features)


def read(
    option: str, value: str, split: str, size: int | None, value_range: tuple[float, float] | None = None
) -> tuple[Images, tuple[str, ...]]:
    """A set from a file, folder, name or sample store, and the names of its classes; labels are None if it has none."""
    if os.path.isfile(os.path.join(value, MANIFEST)):
        with reading(option, value, value):
            pixels, labels = SampleStore.existing(value).read_equally()
        return Images(clipped(pixels), labels if len(np.unique(labels)) > 1 else None), ()
    ends = None if value_range is None else tuple(value_range)
    try:
        found = load_images(option, value, split, size, value_range=ends)
    except InputError as error:
        # Presets name splits, too: the option that mends it is told.
        raise InputError(str(error).replace(": split = ", f": --{option}-split = ")) from error
    several = len(found.class_names) > 1
    return Images(found.images, found.labels if several else None), found.class_names if several else ()


def clipped(pixels: np.ndarray) -> np.ndarray:
    """Samples cut at black and white, as any image file does; latents, which have neither, as they are."""
    return (pixels if is_latent(pixels) else np.clip(pixels, -1.0, 1.0)).astype(np.float32)


def check_set(option: str, images: Images, kind: str) -> None:
    """Enough images for every statistic, all finite, hardly any of a single colour, and not all the same."""
    least, statistic = NEEDS[kind]
    require(len(images) >= least, f"{option}: number of images", len(images), f"{least} or more: {statistic}")
    check_images(option, images.pixels)


def check_against(first: tuple[str, Images], second: tuple[str, Images]) -> None:
    """Two sets, each with its name, can be compared, and the first one is not the second, or a part of it."""
    (name, images), (other, others) = first, second
    pair = (name, images.pixels), (other, others.pixels)
    check_comparable(
        *pair,
        shape_advice="--size reduces real images",
        range_advice="--samples-range, --reference-range say what black and white are",
    )
    check_apart(*pair)


def set_aside(reference: Images, seed: int) -> np.ndarray:
    """Rows of the reference that stand in for held-out images, sorted."""
    count = min(MOST_ASIDE, int(len(reference) * ASIDE))
    least, statistic = NEEDS["holdout"]
    shown = "reference: images to set aside without --holdout"
    require(count >= least, shown, count, f"{least} or more, a sixth of the reference: {statistic}")
    return np.sort(np.random.default_rng([seed, 17]).permutation(len(reference))[:count])
