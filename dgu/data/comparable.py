"""Sets of images that are to be compared: whether a set can be measured at all, and whether two are of one kind.

Each check raises ``InputError`` in one line that begins with the name under which the set was given.
"""

import numpy as np
from jaxtyping import Num

from dgu.core.arrays import as_floats
from dgu.core.errors import InputError, require
from dgu.data.splits import digests

#: The contrast of a set is the distance of these quantiles of the pixels of its first images; and how many images.
_CONTRAST, _CONTRAST_IMAGES = (0.001, 0.999), 2000
#: Largest ratio of the contrasts of two sets that can be compared.
_CONTRAST_RATIO = 2.5
#: Largest share of images of a single colour.
_MOST_FLAT = 1 / 1000
#: Copies that count as a mistake: at least this many, and at least this share of the set.
_FEWEST_COPIES, _SHARE_OF_COPIES = 8, 1 / 2
#: Random draws with replacement repeat none of these many expected repetitions with a probability of exp(-7).
_EXPECTED_REPETITIONS = 7


def check_images(name: str, images: Num[np.ndarray, " n *event"]) -> None:
    """A set of images can be measured: all are finite, hardly any has a single colour, and they differ.

    Raises:
        InputError: there are no images, a value is NaN or infinite (its image is named), more than one image in a
            thousand has a single colour, or all images are equal.
    """
    _check_filled(name, images)
    rows = as_floats(name, images).reshape(len(images), -1)
    finite = np.isfinite(rows).all(axis=1)
    require(bool(finite.all()), f"{name}: image {int(np.argmin(finite))}", "NaN or infinite", "finite")
    flat = np.ptp(rows, axis=1) == 0
    allowed = f"0 (the first is number {int(np.argmax(flat))})"
    require(flat.mean() <= _MOST_FLAT, f"{name}: images of a single colour", int(flat.sum()), allowed)
    require(not (rows == rows[:1]).all(), f"{name}: images", "all the same", "different")


def check_comparable(
    first: tuple[str, Num[np.ndarray, " n *event"]],
    second: tuple[str, Num[np.ndarray, " m *other"]],
    *,
    shape_advice: str = "",
    range_advice: str = "",
) -> None:
    """Two sets of images, each with its name, have the same shape and about the same contrast.

    The contrast is the range of the pixels between their quantiles 0.001 and 0.999; that of one set is at most 2.5
    times that of the other. So a set in [0, 1], or in bytes, is not compared with one in [-1, 1] by mistake.

    Args:
        first: name and images of the set that is refused where the two differ.
        second: name and images of the other one.
        shape_advice: what the error about another shape adds, in parentheses.
        range_advice: what the error about another contrast adds, in parentheses.

    Raises:
        InputError: the images have another shape, or the sets another contrast.
    """
    for given in (first, second):
        _check_filled(*given)
    (name, a), (other, b) = ((name, as_floats(name, images)) for name, images in (first, second))
    shape = b.shape[1:]
    allowed = f"{shape}, as in {other}{f' ({shape_advice})' if shape_advice else ''}"
    require(a.shape[1:] == shape, f"{name}: shape of an image", a.shape[1:], allowed)
    ends = [np.quantile(images[:_CONTRAST_IMAGES], _CONTRAST) for images in (a, b)]
    contrasts = [float(high - low) for low, high in ends]
    found, wanted = (f"{low:.3g} to {high:.3g}" for low, high in ends)
    allowed = f"about that of {other}, {wanted}{f' ({range_advice})' if range_advice else ''}"
    alike = max(contrasts) <= _CONTRAST_RATIO * min(contrasts)
    require(alike, f"{name}: range of the pixels (black -1, white 1)", found, allowed)


def check_apart(
    first: tuple[str, Num[np.ndarray, " n *event"]], second: tuple[str, Num[np.ndarray, " m *other"]]
) -> None:
    """One set of images is not (a part of) another by mistake; a model that repeats training images is let through.

    Both consist of exact copies. Those of a mistake come in the order of the other set, or are many without any twice;
    draws at random from m images repeat one among some sqrt(2 m). Both sets, each given with its name, are of one
    dtype.

    Raises:
        InputError: eight or more images, and at least half of the first set, are copies of images of the second one,
            in its order or, where seven repetitions or more are expected of random draws, without any repetition.
    """
    for given in (first, second):
        _check_filled(*given)
    (name, a), (other, b) = ((name, as_floats(name, images)) for name, images in (first, second))
    require(a.dtype == b.dtype, f"{name}: dtype", a.dtype, f"{b.dtype}, as in {other}")
    hashes, own = digests(b), digests(a)
    order = np.argsort(hashes, kind="stable")
    place = np.minimum(np.searchsorted(hashes[order], own), len(hashes) - 1)
    same = hashes[order][place] == own
    rows, copies = order[place][same], int(same.sum())
    if copies < max(_FEWEST_COPIES, len(a) * _SHARE_OF_COPIES):
        return
    in_order = bool((np.diff(rows) >= 0).all())
    never_twice = len(np.unique(rows)) == copies and copies**2 / (2 * len(b)) > _EXPECTED_REPETITIONS
    if in_order or never_twice:
        how = "in its order" if in_order else "none of them twice"
        raise InputError(f"{name}: {copies} of {len(a)} images are those of {other}, {how}: must be another set")


def _check_filled(name: str, images: np.ndarray) -> None:
    """``InputError`` unless there is an image, and images have pixels."""
    require(np.ndim(images) >= 2, f"{name}: shape", np.shape(images), "(n, ...), n images")
    require(len(images) > 0, f"{name}: number of images", len(images), "1 or more")
    require(np.size(images) > 0, f"{name}: shape", np.shape(images), "images that have pixels")
