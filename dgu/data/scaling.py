"""Pixels of mean 0 and variance 1, each by itself, and what that does to a density."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num

from dgu.core.arrays import as_floats
from dgu.core.brief import short_repr
from dgu.core.errors import require


@short_repr
@dataclass(frozen=True, eq=False)
class PixelScale:
    """``z = (x - mean) / std`` for each pixel; ``std`` is 1 where a pixel never changes.

    Attributes:
        mean, std: (*event), float32.
    """

    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def fit(cls, images: Num[np.ndarray, " n *event"]) -> "PixelScale":
        """The means and standard deviations (``ddof=0``) of each pixel, accumulated in float64.

        Raises:
            InputError: no images, or values that are not finite.
        """
        require(len(images) > 0, "number of images", len(images), "1 or more")
        images = as_floats("images", images)
        mean = images.mean(axis=0, dtype=np.float64)
        std = np.sqrt(np.square(images - mean).mean(axis=0))
        require(bool(np.isfinite(mean).all() and np.isfinite(std).all()), "images", "non-finite", "finite")
        # A constant's mean is rounded, and so is its spread.
        constant = images.min(axis=0) == images.max(axis=0)
        return cls(mean.astype(np.float32), np.where(constant, 1.0, std).astype(np.float32))

    def apply(self, images: Num[np.ndarray, " n *event"]) -> Float[np.ndarray, " n *event"]:
        """``(x - mean) / std``."""
        return (as_floats("images", images) - self.mean) / self.std

    def invert(self, scaled: Num[np.ndarray, " n *event"]) -> Float[np.ndarray, " n *event"]:
        """``x = mean + std z``."""
        return self.mean + self.std * as_floats("scaled", scaled)

    @property
    def log_volume(self) -> float:
        """``sum log std``: ``log p(x) = log p(z) - log_volume``, in nats."""
        return float(np.log(self.std.astype(np.float64)).sum())
