"""Sets of images: read, and refused in one line where they cannot be compared, before anything is computed."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dgu.core.errors import InputError, require
from dgu.data import SampleStore
from dgu.data.splits import digests
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
#: Quantiles of all pixels whose distance is a set's contrast, and the largest ratio of the contrasts of two sets.
_CONTRAST, _CONTRAST_RATIO = (0.001, 0.999), 2.5


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
        return _read_store(option, value), ()
    found = load_images(option, value, split, size, value_range=None if value_range is None else tuple(value_range))
    several = len(found.class_names) > 1
    return Images(found.images, found.labels if several else None), found.class_names if several else ()


def _read_store(option: str, value: str) -> Images:
    """Equally many samples of each class of a store."""
    with reading(option, value, value):
        store = SampleStore.existing(value)
        shards = store.shards()
        require(len(shards) > 0, f"{option} = {value!r}: samples", 0, "1 or more")
        count = min(sum(1 for _ in _indices(ranges)) for ranges in shards.values())
        require(count > 0, f"{option} = {value!r}: samples number 0 on of every class", count, "1 or more")
        pixels = np.concatenate([store.read(label, count) for label in sorted(shards)])
    labels = np.repeat(np.asarray(sorted(shards), np.int32), count)
    return Images(clipped(pixels), labels if len(shards) > 1 else None)


def _indices(ranges: list[tuple[int, int]]) -> Iterator[int]:
    """The sample numbers from 0 on without a gap."""
    at = 0
    for start, stop in ranges:
        if start > at:
            return
        yield from range(at, stop)
        at = stop


def clipped(pixels: np.ndarray) -> np.ndarray:
    """Samples cut at black and white, as any image file does."""
    return np.clip(pixels, -1.0, 1.0).astype(np.float32)


def check_set(option: str, images: Images, kind: str) -> None:
    """Enough images, all finite, hardly any of a single colour, and not all the same."""
    least, statistic = NEEDS[kind]
    require(len(images) >= least, f"{option}: number of images", len(images), f"{least} or more: {statistic}")
    finite = np.isfinite(images.flat).all(axis=1)
    require(bool(finite.all()), f"{option}: image {int(np.argmin(finite))}", "NaN or infinite", "finite")
    flat = np.ptp(images.flat, axis=1) == 0
    shown = f"{option}: images of a single colour"
    require(
        int(flat.sum()) <= len(flat) / 1000, shown, int(flat.sum()), f"0 (the first is number {int(np.argmax(flat))})"
    )
    same = bool((images.flat == images.flat[:1]).all())
    require(not same, f"{option}: images", "all the same", "different")


def check_features(option: str, features: np.ndarray, count: int) -> np.ndarray:
    """Features as rows: one for each image, finite, and not all the same."""
    rows = features.reshape(len(features), -1)
    require(len(rows) == count, f"{option}: number of rows", len(rows), f"{count}, one for each image")
    finite = np.isfinite(rows).all(axis=1)
    bad = int(np.argmin(finite))
    require(bool(finite.all()), f"{option}: features of image {bad}", "NaN or infinite", "finite")
    require(bool((np.ptp(rows, axis=0) > 0).any()), f"{option}: features", "the same for all images", "different")
    return rows.astype(np.float32)


def check_pair(first: tuple[str, Images], second: tuple[str, Images]) -> None:
    """Two sets can be compared: their images have the same shape, and about the same contrast."""
    (name, a), (other, b) = first, second
    shape = b.pixels.shape[1:]
    require(
        a.pixels.shape[1:] == shape,
        f"{name}: shape of an image",
        a.pixels.shape[1:],
        f"{shape}, as in {other} (--size reduces real images)",
    )
    spans = [np.quantile(x.pixels[:2000], _CONTRAST) for x in (a, b)]
    contrast = [float(high - low) for low, high in spans]
    fits = max(contrast) <= _CONTRAST_RATIO * min(contrast)
    shown = [f"{low:.3g} to {high:.3g}" for low, high in spans]
    require(
        fits,
        f"{name}: range of the pixels (black -1, white 1)",
        shown[0],
        f"about that of {other}, {shown[1]} (--samples-range, --reference-range say what black and white are)",
    )


def check_apart(first: tuple[str, Images], second: tuple[str, Images]) -> None:
    """Refuse a set that is (part of) another by mistake; a model that repeats training images is let through.

    Both consist of exact copies. Those of a mistake come in the order of the other set, or are many without any twice;
    draws at random from m images repeat one among some sqrt(2 m).
    """
    (name, a), (other, b) = first, second
    hashes = digests(b.pixels)
    order = np.argsort(hashes, kind="stable")
    place = np.minimum(np.searchsorted(hashes[order], mine := digests(a.pixels)), len(hashes) - 1)
    same = hashes[order][place] == mine
    rows, copies = order[place][same], int(same.sum())
    if copies < max(8, len(a) / 2):
        return
    in_order = bool((np.diff(rows) >= 0).all())
    never_twice = len(np.unique(rows)) == copies and copies**2 / (2 * len(b)) > 7
    if in_order or never_twice:
        how = "in its order" if in_order else "none of them twice"
        raise InputError(f"{name}: {copies} of {len(a)} images are those of {other}, {how}: must be another set")


def set_aside(reference: Images, seed: int) -> np.ndarray:
    """Rows of the reference that stand in for held-out images, sorted."""
    count = min(MOST_ASIDE, int(len(reference) * ASIDE))
    least, statistic = NEEDS["holdout"]
    shown = "reference: images to set aside without --holdout"
    require(count >= least, shown, count, f"{least} or more, a sixth of the reference: {statistic}")
    return np.sort(np.random.default_rng([seed, 17]).permutation(len(reference))[:count])
