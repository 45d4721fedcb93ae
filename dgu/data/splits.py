"""Disjoint random splits of a pool of labelled images, class by class, and the check that they are disjoint."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Num

from dgu.core.errors import InputError, require


@dataclass(frozen=True)
class SplitSizes:
    """Images per class in each part of a split."""

    fit: int = 400
    """Further images that accuracy is measured on; only the mixtures of the cross matrix, which must share no image
    with what is tested there, are fitted to them alone.
    """
    train: int = 490
    """Images that classifiers are trained on."""
    validation: int = 60
    """Images that choose the learning rate and the stopping epoch."""
    test: int = 250
    """Images that accuracy is measured on."""

    def __post_init__(self) -> None:
        for name in ("fit", "train", "validation", "test"):
            require(2 <= getattr(self, name) < 2**31, f"splits.{name}", getattr(self, name), "at least 2, below 2**31")

    @property
    def total(self) -> int:
        """Images per class in all parts together."""
        return self.fit + self.train + self.validation + self.test

    def parts(self) -> dict[str, int]:
        """Size of each part by name, in the order in which they are cut."""
        return {"fit": self.fit, "train": self.train, "validation": self.validation, "test": self.test}


def class_splits(count: int, sizes: Mapping[str, int], seed: int, replicate: int, label: int) -> dict[str, np.ndarray]:
    """A random split of the numbers ``0 .. count - 1`` (images of one class) into parts of the given sizes.

    It depends on ``(seed, replicate, label)`` only. A new replicate is a new split of the same pool.

    Raises:
        InputError: the parts together are larger than ``count``.
    """
    wanted = sum(sizes.values())
    if wanted > count:
        raise InputError(f"splits = {dict(sizes)}: {wanted} images a class, but class {label} has only {count}")
    order = np.random.default_rng([seed, replicate, label]).permutation(count)
    ends = np.cumsum(list(sizes.values()))
    return {name: order[end - size : end] for (name, size), end in zip(sizes.items(), ends)}


def split_classes(
    images: Num[np.ndarray, "classes count *event"], sizes: Mapping[str, int], seed: int, replicate: int
) -> dict[str, Num[np.ndarray, "classes _ *event"]]:
    """The images of every class split at random into parts of the given sizes, as ``class_splits`` does: ``part`` is
    (K, sizes[part], ...).

    Raises:
        InputError: the parts together are larger than a class.
    """
    rows = [class_splits(images.shape[1], sizes, seed, replicate, label) for label in range(len(images))]
    return {part: np.stack([images[label, places[part]] for label, places in enumerate(rows)]) for part in sizes}


def digests(images: Float[np.ndarray, " n *event"]) -> Int[np.ndarray, " n"]:
    """A 64-bit content hash (BLAKE2b) of each image."""
    rows = np.ascontiguousarray(images).reshape(len(images), -1)
    whole = b"".join(hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rows)
    return np.frombuffer(whole, np.int64)


def check_no_duplicates(images: Float[np.ndarray, " n *event"], name: str) -> None:
    """Raise ``InputError`` if two images of a pool are equal: they could fall on both sides of a split."""
    hashes = digests(images)
    unique = len(np.unique(hashes))
    if unique < len(hashes):
        raise InputError(
            f"{name}: {len(hashes) - unique} of {len(hashes)} images are exact copies: must all be different"
        )


def check_disjoint(parts: Mapping[str, Int[np.ndarray, "..."]]) -> None:
    """Raise ``RuntimeError`` if two parts share a content hash (see ``digests``), or one holds a hash twice."""
    everything = np.concatenate([np.ravel(part) for part in parts.values()])
    if len(np.unique(everything)) != len(everything):
        raise RuntimeError(f"the parts {', '.join(parts)} of a split share images")
