"""What is done to decoded images: the range of their values, their size, and which of them are kept."""

import math

import numpy as np
from jaxtyping import Float, Int, Shaped

from dgu.errors import InputError, require

#: Stored values may pass the stated range by this fraction of its width (resizing and samplers overshoot a little).
OVERSHOOT = 0.1


def in_range(
    images: Shaped[np.ndarray, "n h w c"],
    pixel_range: tuple[float, float] = (-1.0, 1.0),
    value_range: tuple[float, float] | None = None,
    name: str = "images",
) -> Float[np.ndarray, "n h w c"]:
    """Stored pixel values as float32 in ``pixel_range``.

    The map is affine, ``x / ((b - a) / (hi - lo)) + lo`` for ``a = 0``; for uint8 and [-1, 1] it is ``x / 127.5 - 1``.

    Args:
        images: uint8, another integer type with values 0 to 255, or floats.
        pixel_range: ``(lo, hi)`` that black and white become.
        value_range: ``(a, b)`` that black and white are in a float array. By default it is read off the values:
            [0, 1] when all lie in it, [-1, 1] when they lie in it (10 % of overshoot) and some are below -0.5,
            [0, 255] when they lie in it and some are above 2; anything else is refused as ambiguous.
            Integers are always 0 to 255.
        name: how an error calls the images.

    Raises:
        InputError: NaN or infinite values, values outside the range by more than 10 % of its width, an ambiguous range,
            an empty or non-finite ``pixel_range`` or ``value_range``.
    """
    low, high = _checked_range("pixel_range", pixel_range)
    if np.issubdtype(images.dtype, np.integer):
        require(value_range is None or tuple(value_range) == (0, 255), "value_range", value_range, "None for integer pixels")
        if images.dtype != np.uint8 and images.size:
            smallest, largest = int(images.min()), int(images.max())
            require(0 <= smallest and largest <= 255, f"values of {name}", (smallest, largest), "0 to 255 for integer pixels")
        black, white = 0.0, 255.0
    elif np.issubdtype(images.dtype, np.floating):
        black, white = _float_range(images, value_range, name)
    else:
        raise InputError(f"dtype of {name} = {images.dtype}: must be uint8, another integer type or a float type")
    scaled = images.astype(np.float32)
    if black:
        scaled -= np.float32(black)
    scaled /= np.float32((white - black) / (high - low))
    scaled += np.float32(low)
    return scaled


def _checked_range(name: str, value: tuple[float, float]) -> tuple[float, float]:
    ok = len(value) == 2 and all(math.isfinite(end) for end in value) and value[0] < value[1]
    require(ok, name, value, "two finite numbers (low, high) with low < high")
    return float(value[0]), float(value[1])


def _float_range(images: np.ndarray, value_range: tuple[float, float] | None, name: str) -> tuple[float, float]:
    smallest, largest = (float(images.min()), float(images.max())) if images.size else (0.0, 0.0)
    if not (math.isfinite(smallest) and math.isfinite(largest)):
        where = int(np.flatnonzero(~np.isfinite(images).reshape(len(images), -1).all(axis=1))[0])
        raise InputError(f"{name}: image {where} holds NaN or infinite values; all must be finite")
    shown = f"values of {name} = {smallest:.6g} to {largest:.6g}"
    if value_range is not None:
        black, white = _checked_range("value_range", value_range)
        slack = OVERSHOOT * (white - black)
        if smallest < black - slack or largest > white + slack:
            raise InputError(f"{shown}: must lie in value_range = ({black:g}, {white:g})")
        return black, white
    if 0 <= smallest and largest <= 1:
        return 0.0, 1.0
    if -1 - 2 * OVERSHOOT <= smallest < -0.5 and largest <= 1 + 2 * OVERSHOOT:
        return -1.0, 1.0
    if 0 <= smallest and 2 < largest <= 255:
        return 0.0, 255.0
    raise InputError(f"{shown}: must be recognisably [0, 1], [-1, 1] or [0, 255], or be stated by value_range=(low, high)")


def area_mean(images: Shaped[np.ndarray, "n h w c"], size: int) -> Shaped[np.ndarray, "n size size c"]:
    """Square images at ``size`` by exact means over ``k x k`` blocks, ``k = h / size`` an integer; float32 unless k = 1.

    Raises:
        InputError: the images are not square, or ``size`` does not divide their side; the line lists what does.
    """
    count, height, width, channels = images.shape
    require(height == width, "size", size, f"None for images that are not square ({height}x{width})")
    allowed = [side for side in range(height, 0, -1) if height % side == 0]
    require(size in allowed, "size", size, f"one of {allowed} for {height}x{height} images (means over whole blocks)")
    if size == height:
        return images
    block = height // size
    # Sums of uint8 are exact in float32 for blocks up to 256 wide.
    return images.reshape(count, size, block, size, block, channels).mean(axis=(2, 4), dtype=np.float32)


def subset(count: int, max_size: int, seed: int = 0) -> Int[np.ndarray, "k"]:
    """EDM's subset rule: shuffle ``arange(count)`` by ``RandomState(seed)``, take the first ``max_size``, sort them.

    ``max_size >= count`` keeps everything. Source: ``Dataset.__init__`` of the EDM and StyleGAN3 training code; kept
    exactly, legacy generator included, so that small training sets are the ones other studies use.

    Raises:
        InputError: ``max_size`` below 1.
    """
    require(max_size >= 1, "max_size", max_size, "1 or more")
    order = np.arange(count, dtype=np.int64)
    if max_size < count:
        np.random.RandomState(seed % 2**31).shuffle(order)  # noqa: NPY002
        order = np.sort(order[:max_size])
    return order
