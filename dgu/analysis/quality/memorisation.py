"""Does a model repeat its training images? Distances to the nearest training image, beside those of images it never
saw.

Every measure takes distances that ``dgu.analysis.k_nearest`` found, so that they are found once. A distance
means nothing by itself: it depends on the data, on their number and on the size of the images. The yardstick is what
fresh images of the same source (held out, or training images against the *other* ones) show.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Integer, Num

from dgu.analysis.quality.distances import extract_features
from dgu.analysis.quality.neighbours import k_nearest, nearest
from dgu.analysis.stats.estimates import Estimate, proportion, share_difference, wilson
from dgu.analysis.stats.ranking import auc
from dgu.analysis.stats.resampling import t_interval
from dgu.core.arrays import as_floats, as_labels, check_squares, checked_rows
from dgu.core.brief import short_repr
from dgu.core.errors import require

#: A pair is a near-duplicate below this fraction of the reference row's distance to its own nearest neighbour.
FRACTION = 0.25
#: Or below this root-mean-square difference of pixels in [-1, 1]: two and a half of 255 grey levels.
RMS = 0.02


def spacing(rows: Integer[ArrayLike, " q"], reference: Num[ArrayLike, "m d"], block_size: int = 1024) -> np.ndarray:
    """Distance of the reference rows number ``rows`` to their nearest other row, ``(q,)``; 0 where a copy exists.

    Raises:
        InputError: a single reference row, or row numbers outside.
    """
    (reference,), rows = checked_rows(reference=reference), as_labels("rows", rows)
    require(len(reference) >= 2, "number of reference rows", len(reference), "2 or more")
    inside = bool((rows < len(reference)).all())
    require(inside, "rows", "outside", f"0 to {len(reference) - 1}")
    return nearest(reference[rows], reference, block_size, own=rows)[0]


@short_repr
@dataclass(frozen=True)
class NearDuplicates:
    """Which samples repeat a reference row.

    Attributes:
        found: (n,) whether each sample is a near-duplicate.
        threshold: (n,) the distance to its nearest reference row below which it is.
        share: share of near-duplicates among the samples, with Wilson's interval.
    """

    found: np.ndarray
    threshold: np.ndarray
    share: Estimate


def near_duplicates(
    distance: Num[np.ndarray, " n"],
    spacing: Num[np.ndarray, " n"],
    width: int,
    *,
    fraction: float | int = FRACTION,
    rms: float | int = RMS,
) -> NearDuplicates:
    """Samples closer to a reference row than ``max(fraction * spacing, rms * sqrt(width))``.

    ``spacing`` is the distance of that reference row to its own nearest neighbour. The ball of that radius holds ``1 /
    m`` of the source's mass in the mean over m reference rows, and the ball of a quarter of it ``4^-D / m`` in D
    intrinsic dimensions: a share ``4^-D`` of fresh images is found, 1e-6 for D = 10. ``rms`` catches copies of rows
    that have copies themselves. Real data sets hold near-duplicates of their own: compare with what held-out images
    show.

    Args:
        distance: distance of each sample to its nearest reference row.
        spacing: distance of that row to its own nearest neighbour, from the function ``spacing``.
        width: numbers in a row.
        fraction: fraction of the spacing below which a sample is a near-duplicate.
        rms: root-mean-square difference, in the unit of the rows, below which it is one at any spacing.

    Raises:
        InputError: ``fraction`` or ``rms`` out of range.
    """
    require(0 <= fraction < 1, "fraction", fraction, "0 or more, below 1")
    require(rms >= 0, "rms", rms, "0 or more")
    distance, spacing = as_floats("distance", distance), as_floats("spacing", spacing)
    threshold = np.maximum(fraction * spacing, rms * np.sqrt(width))
    found = distance <= threshold
    return NearDuplicates(found, threshold, proportion(found))


def relative_distance(samples: Num[np.ndarray, "n d"], distance: Num[np.ndarray, " n"]) -> Estimate:
    """The generalisation score ``mean_i |x_i - nearest training row| / |x_i|``, with a t interval over samples.

    Li, Dai and Qu (arXiv 2410.24060), equation 14, with pixels in [-1, 1]: they call a model generalising above 0.6.
    That threshold belongs to their data: fresh images of other sources score less (those of Fashion-MNIST 0.2).

    Raises:
        InputError: fewer than two samples, or one of norm 0.
    """
    (samples,), distance = checked_rows(samples=samples), as_floats("distance", distance)
    check_squares(samples.dtype, samples=samples)
    norms = np.linalg.norm(samples, axis=1)
    require(len(norms) >= 2, "number of samples", len(norms), "2 or more")
    require(bool((norms > 0).all()), "norm of a sample", 0, "above 0")
    return t_interval(distance / norms, bounds=(0, np.inf))


@dataclass(frozen=True)
class Novelty:
    """The share of samples at least ``threshold`` from every training row; fresh samples score ``1 - level``."""

    share: Estimate
    threshold: float
    level: float


def novelty(distance: Num[np.ndarray, " n"], fresh_distance: Num[np.ndarray, " m"], level: float = 0.05) -> Novelty:
    """The generalisation score ``mean_i 1[min_j |x_i - x_j| >= eps]``, eps the ``level`` quantile for fresh samples.

    arXiv 2409.02426, equations 21 and 46: a model generalises where the score is 0.95 or more, which is what the true
    distribution scores (and half of its finite sets miss). The standard error adds the variance ``level (1 - level) /
    m``, which the estimation of eps causes, to the binomial one; the interval is Wilson's for that many cases.

    Args:
        distance: of each sample to its nearest training row.
        fresh_distance: distance of fresh draws of the same source to the same training rows.
        level: in (0, 1), the fraction of fresh draws that count as repeated.

    Raises:
        InputError: fewer fresh distances than ``2 / level``, or ``level`` out of range.
    """
    require(0 < level < 1, "level", level, "strictly between 0 and 1")
    distance, fresh_distance = as_floats("distance", distance), as_floats("fresh_distance", fresh_distance)
    need = int(np.ceil(2 / level))
    require(len(fresh_distance) >= need, "number of fresh distances", len(fresh_distance), f"{need} or more")
    threshold = float(np.quantile(fresh_distance, level))
    value = float(np.mean(distance >= threshold))
    low, high = wilson(value, 1 / (1 / len(distance) + 1 / len(fresh_distance)))
    error = np.sqrt(value * (1 - value) / len(distance) + level * (1 - level) / len(fresh_distance))
    share = Estimate(value, float(low), float(high), method="Wilson", n=len(distance), standard_error=float(error))
    return Novelty(share, threshold, level)


def sample_novelty(
    samples: Num[ArrayLike, " n *event"],
    training: Num[ArrayLike, " m *event"],
    fresh: Num[ArrayLike, " l *event"],
    level: float = 0.05,
    features: Callable[[Array], ArrayLike] | None = None,
) -> Novelty:
    """``novelty`` of samples, from the distances of ``features`` of samples and of fresh draws to those of the training
    set.

    Args:
        samples, training, fresh: examples of one shape; fresh draws (or held-out ones) calibrate the threshold.
        level: as of ``novelty``.
        features: of a batch of examples, as ``extract_features`` takes them; by default the flattened examples.

    Raises:
        InputError: as ``extract_features``, ``k_nearest`` and ``novelty``.
    """
    rows, known, calibration = (extract_features(examples, features) for examples in (samples, training, fresh))
    distance, fresh_distance = (k_nearest(queries, known)[0][:, 0] for queries in (rows, calibration))
    return novelty(distance, fresh_distance, level)


Verdict = Literal["memorised", "not memorised", "undecided"]


@dataclass(frozen=True)
class CopyingTest:
    """The result of ``copying_test``: are generated images closer to the training images than fresh ones are?

    Attributes:
        closer: probability that a sample is closer to the training set than a fresh image is; 1/2 for fresh samples, 1
            for copies. DeLong's interval.
        excess: share of near-duplicates among samples less that among fresh images. Newcombe's interval.
        verdict: "memorised" if ``closer`` lies wholly above ``max_closer`` or ``excess`` above ``max_excess``;
            "not memorised" if both lie wholly below; else "undecided".
    """

    closer: Estimate
    excess: Estimate
    verdict: Verdict


def copying_test(
    distance: Num[np.ndarray, " n"],
    fresh_distance: Num[np.ndarray, " m"],
    copies: Bool[np.ndarray, " n"],
    fresh_copies: Bool[np.ndarray, " m"],
    *,
    max_closer: float = 0.6,
    max_excess: float = 0.005,
) -> CopyingTest:
    """The data-copying test, and the near-duplicates beyond those that fresh images show.

    The first sees a model whose samples crowd round the training images at large; the second one that repeats a few.
    Smooth or blurred samples lie close to everything and raise ``closer`` somewhat, hence its bound above 1/2.

    Args:
        distance: of each sample to its nearest training row.
        fresh_distance: distance of each fresh image to its nearest training row.
        copies, fresh_copies: which of them are near-duplicates, from ``near_duplicates``.
        max_closer: in (0.5, 1).
        max_excess: in (0, 1).

    Raises:
        InputError: bounds out of range, or fewer than two distances of each.

    Meehan, Chaudhuri and Dasgupta, A non-parametric test to detect data-copying, AISTATS 2020 (their Z_U is this
    probability, standardised).
    """
    require(0.5 < max_closer < 1, "max_closer", max_closer, "strictly between 0.5 and 1")
    require(0 < max_excess < 1, "max_excess", max_excess, "strictly between 0 and 1")
    closer = auc(fresh_distance, distance)
    excess = share_difference(proportion(copies), proportion(fresh_copies))
    ends = ((closer.low, closer.high, max_closer), (excess.low, excess.high, max_excess))
    if any(low > bound for low, _, bound in ends):
        return CopyingTest(closer, excess, "memorised")
    return CopyingTest(
        closer, excess, "not memorised" if all(high <= bound for _, high, bound in ends) else "undecided"
    )
