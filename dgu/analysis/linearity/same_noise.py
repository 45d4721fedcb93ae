"""Do two models make the same image from the same noise? Distances of samples from the same noise, and of others.

Samples number i of the two must start from the same noise (``x_init`` addressed by the number alone). A small distance
means little by itself, since all images of one kind look alike: the null is the distance of samples from *different*
noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num

from dgu.analysis.stats.estimates import Estimate
from dgu.analysis.stats.resampling import t_interval
from dgu.core.arrays import as_doubles
from dgu.core.brief import short_repr
from dgu.core.errors import require
from dgu.core.exact_distances import differences, squared_bounds


@short_repr
@dataclass(frozen=True, eq=False)
class SameNoise:
    """Root-mean-square distances (in the unit of the pixels) of n samples of one model to those of another.

    Attributes:
        paired: distance to the sample from the same noise, ``(n,)``.
        null: mean distance to the samples from other noise, ``(n,)``.
    """

    paired: np.ndarray
    null: np.ndarray

    @property
    def ratios(self) -> Float[np.ndarray, " n"]:
        """``paired_i / mean(null)``: 0 for the same images, 1 on average for images that do not depend on the shared
        noise.
        """
        return self.paired / self.null.mean()

    @property
    def ratio(self) -> Estimate:
        """Mean ratio with its 95 % interval over samples of these two models; it does not cover further trainings."""
        return t_interval(self.ratios, bounds=(0, np.inf))


def same_noise_distances(first: Num[np.ndarray, " n *event"], second: Num[np.ndarray, " n *event"]) -> SameNoise:
    """Distances ``|a_i - b_i| / sqrt(d)``, and ``mean_{j != i} |a_i - b_j| / sqrt(d)`` as their null.

    Args:
        first, second: samples of two models, number i from the same noise in both; two or more, float64 inside.

    Raises:
        InputError: fewer than two samples, values that are not finite, or samples that are all one image.

    Li, Dai and Qu, arXiv 2410.24060, Fig 9 (pictures only); the null is ours.
    """
    require(len(first) >= 2, "number of samples", len(first), "2 or more")
    a, b = (as_doubles(name, part).reshape(len(part), -1) for name, part in (("first", first), ("second", second)))
    require(bool(np.isfinite(a).all() and np.isfinite(b).all()), "samples", "non-finite", "finite")
    lower, upper = squared_bounds(a, b, b.mean(axis=0))
    distances = np.sqrt(np.maximum((lower + upper) / 2, 0))
    # Products cancel where images agree: where that costs digits, and for the distances that matter most, differences.
    for row, near in enumerate(upper - lower > 1e-9 * upper):
        distances[row, near] = differences(b, np.flatnonzero(near), a[row : row + 1])[:, 0]
    distances /= np.sqrt(a.shape[1])
    paired = np.sqrt(np.mean((a - b) ** 2, axis=1))
    null = (distances.sum(axis=1) - np.diag(distances)) / (len(a) - 1)
    require(bool(null.mean() > 0), "samples", "all the same image", "different images")
    return SameNoise(paired, null)


def mean_over_pairs(found: Sequence[SameNoise]) -> SameNoise:
    """The distances of several pairs of models from the same noise, averaged for each sample.

    Raises:
        InputError: no pair.
    """
    require(len(found) > 0, "number of pairs", 0, "1 or more")
    return SameNoise(np.mean([one.paired for one in found], axis=0), np.mean([one.null for one in found], axis=0))
