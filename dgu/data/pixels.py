"""What is done to decoded images: the range of their values, their size, and which of them are kept."""

import math

import numpy as np
from jaxtyping import Float, Int, Shaped

from dgu.core.arrays import as_number, require_numbers
from dgu.core.errors import InputError, require

#: What black and white are.
Range = tuple[float | int, float | int]
#: Values that are converted at a time, so that no second array of them all is made.
_BLOCK = 2**20
#: Values may pass their range by this fraction of its width: resizing and samplers overshoot a little.
OVERSHOOT = 0.1


def value_range_of(
    images: Float[np.ndarray, "n h w c"], stated: Range | None = None, name: str = "images"
) -> tuple[float, float]:
    """What black and white are in an array of floats.

    Args:
        images: the stored values.
        stated: ``(black, white)`` where the user says so. By default it is read off the values:
            [0, 1] when all lie in it; [-1, 1] when all lie in [-1.2, 1.2] and some below -0.5 (samples overshoot a
            little); [0, 255] when all lie in it and some above 64. Anything else is refused as ambiguous.
        name: how an error calls the images.

    Raises:
        InputError: NaN or infinite values, values outside ``stated`` by more than 10 % of its width, an ambiguous
            range, ``stated`` empty or not finite.
    """
    smallest, largest = float(images.min()), float(images.max())
    if not (math.isfinite(smallest) and math.isfinite(largest)):
        finite = np.isfinite(images).reshape(len(images), -1).all(axis=1)
        raise InputError(f"{name}: image {int(np.argmin(finite))} holds NaN or infinite values; all must be finite")
    shown = f"values of {name} = {smallest:.6g} to {largest:.6g}"
    if stated is not None:
        black, white = checked_range("value_range", stated)
        slack = OVERSHOOT * (white - black)
        if smallest < black - slack or largest > white + slack:
            raise InputError(f"{shown}: must lie in value_range = ({black:g}, {white:g})")
        return black, white
    if 0 <= smallest and largest <= 1:
        return 0.0, 1.0
    if -1 - 2 * OVERSHOOT <= smallest < -0.5 and largest <= 1 + 2 * OVERSHOOT:
        return -1.0, 1.0
    if 0 <= smallest and 64 < largest <= 255:
        return 0.0, 255.0
    raise InputError(f"{shown}: must be clearly [0, 1], [-1, 1] or [0, 255], or be stated by value_range=(low, high)")


def rescale(images: Shaped[np.ndarray, "n h w c"], old: Range, new: Range) -> Float[np.ndarray, "n h w c"]:
    """The affine map that takes the ends of ``old`` to the ends of ``new``, in float32.

    ``(x - old_low) / (old_width / new_width) + new_low``; for bytes and [-1, 1] that is ``x / 127.5 - 1``.
    """
    scaled = np.empty(images.shape, np.float32)
    step = max(1, _BLOCK // max(1, images[:1].size))
    for start in range(0, len(images), step):
        block = scaled[start : start + step]
        block[...] = images[start : start + step]
        if old[0]:
            block -= np.float32(old[0])
        block /= np.float32((old[1] - old[0]) / (new[1] - new[0]))
        if new[0]:
            block += np.float32(new[0])
    return scaled


def checked_range(name: str, value: Range) -> tuple[float, float]:
    """``value`` as two floats, low and high; an ``InputError`` naming ``name`` where it is no range."""
    ok = all(math.isfinite(end) for end in value) and value[0] < value[1]
    require(ok, name, value, "two finite numbers (low, high) with low < high")
    return float(value[0]), float(value[1])


def area_mean(images: Shaped[np.ndarray, "n h w c"], size: int) -> Shaped[np.ndarray, "n size size c"]:
    """Square images at ``size`` by exact means over ``k x k`` blocks, ``k = h / size``; float32 unless ``k = 1``.

    Raises:
        InputError: the images are not square, or ``size`` does not divide their side; the line lists what does.
    """
    require_numbers(images=images)
    count, height, width, channels = images.shape
    require(height == width, "size", size, f"None for images that are not square ({height}x{width})")
    allowed = [side for side in range(height, 0, -1) if height % side == 0]
    require(size in allowed, "size", size, f"one of {allowed} for {height}x{height} images (means over whole blocks)")
    if size == height:
        return images
    block = height // size
    # Sums of uint8 are exact in float32 for blocks up to 256 wide.
    return images.reshape(count, size, block, size, block, channels).mean(axis=(2, 4), dtype=np.float32)


def subset(count: int, max_size: int, seed: int = 0) -> Int[np.ndarray, " k"]:
    """EDM's subset rule: shuffle ``arange(count)`` by ``RandomState(seed)``, take the first ``max_size``, sort them.

    ``max_size >= count`` keeps everything. Source: ``Dataset.__init__`` of the EDM and StyleGAN3 training code; kept
    exactly, legacy generator included, so that small training sets are the ones other studies use.

    Raises:
        InputError: ``max_size`` below 1.
    """
    count, max_size, seed = map(as_number, (count, max_size, seed))
    require(max_size >= 1, "max_size", max_size, "1 or more")
    order = np.arange(count, dtype=np.int64)
    if max_size < count:
        np.random.RandomState(seed % 2**31).shuffle(order)
        order = np.sort(order[:max_size])
    return order
