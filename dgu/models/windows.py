"""Square windows around the pixels of an image: what fits, what lies beyond the border, who shares sources."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from dgu.core.errors import require, require_whole

BOUNDARIES = ("zero", "circular", "bordered")


def check_window(window: Any, boundary: Any, shape: Sequence[int]) -> None:
    """Raise ``InputError`` unless windows of ``window`` x ``window`` pixels fit images ``(h, w, c)``.

    A window has a pixel in its middle, and so an odd side of at most that of the image. Two sides are allowed besides:
    that of a square image itself where the boundary is circular, since the window then is the whole image from every
    pixel, and ``2 max(h, w) - 1`` elsewhere, the smallest with which every pixel sees the whole image.
    """
    require(boundary in BOUNDARIES, "boundary", boundary, f"one of {', '.join(BOUNDARIES)}")
    require_whole("window", window)
    h, w, _ = shape
    least = min(h, w)
    whole, named = 2 * max(h, w) - 1, "2 max(h, w) - 1"
    if boundary == "circular":
        whole, named = (h, "the side") if h == w else (1, "1")
    inside = window % 2 == 1 and window <= least
    allowed = f"odd and at most the smaller side of the images, {least}, or {named} = {whole}"
    require(inside or window == whole, "window", window, allowed)


def canvas_of(images: Array, window: int, boundary: str) -> Array:
    """Images ``(h, w, ...)`` on a torus on which the window of pixel ``(i, j)`` begins at row i and column j.

    With zeros beyond the border, ``window // 2`` rows and columns of them come first; those before one side of the
    image are those after the other as well, so that no more are needed.
    """
    radius = window // 2
    if boundary == "circular":
        return jnp.roll(images, (radius, radius), (0, 1))
    return jnp.pad(images, [(radius, 0), (radius, 0)] + [(0, 0)] * (images.ndim - 2))


def extended(canvas: Array, rows: int, columns: int) -> Array:
    """A torus ``(H, W, ...)`` unrolled to more rows and columns."""
    more = [(0, n - m) for n, m in zip((rows, columns), canvas.shape)]
    return jnp.pad(canvas, more + [(0, 0)] * (canvas.ndim - 2), mode="wrap")


def window_sums(values: Array, window: int) -> Array:
    """Sums over all ``window`` x ``window`` entries next to each other of ``(H, W, ...)``.

    By doubling: about ``4 log2(window)`` additions an entry, and no subtraction, which would lose digits.
    """
    for axis in (0, 1):
        size = values.shape[axis] - window + 1
        power, length, done, total = values, 1, 0, None
        while True:
            if window & length:
                term = jax.lax.slice_in_dim(power, done, done + size, axis=axis)
                total, done = term if total is None else total + term, done + length
            if 2 * length > window:
                break
            last = power.shape[axis]
            front, back = (
                jax.lax.slice_in_dim(power, *ends, axis=axis) for ends in ((0, last - length), (length, last))
            )
            power, length = front + back, 2 * length
        assert total is not None
        values = total
    return values


def windows_of(image: Float[Array, "h w c"], window: int, boundary: str) -> Float[Array, "h w k k c"]:
    """The window of every pixel of one image."""
    h, w, _ = image.shape
    canvas = canvas_of(image, window, boundary)
    rows, columns = ((np.arange(n)[:, None] + np.arange(window)) % m for n, m in zip((h, w), canvas.shape))
    return canvas[rows[:, None, :, None], columns[None, :, None, :]]


def window_pixels(h: int, w: int, window: int, boundary: str) -> np.ndarray:
    """``(h w, k k)``, the number of each pixel in the window of each, and ``h w`` for those beyond the border."""
    offsets = np.arange(window) - window // 2
    rows, columns = (np.arange(n)[:, None] + offsets for n in (h, w))
    if boundary == "circular":
        rows, columns = rows % h, columns % w
    inside = ((rows >= 0) & (rows < h))[:, None, :, None] & ((columns >= 0) & (columns < w))[None, :, None, :]
    numbers = np.where(inside, rows[:, None, :, None] * w + columns[None, :, None, :], h * w)
    return numbers.reshape(h * w, window * window)


def position_classes(size: int, window: int, boundary: str, equivariant: bool) -> np.ndarray:
    """The class of each of ``size`` positions along one axis: positions of one class share their sources.

    Without equivariance each is its own. With it all are one; with borders only those whose windows lie inside.
    """
    positions, radius = np.arange(size), window // 2
    if not equivariant:
        return positions
    if boundary != "bordered":
        return np.zeros(size, int)
    return np.where((positions < radius) | (positions >= size - radius), positions, radius)


def source_shifts(size: int, canvas: int, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The shifts by which some position of an axis finds a source of its class, and ``(shifts, size)`` which do.

    A shift by s takes position p to ``(p + s) mod canvas``, which is a source where it lies on the image.
    """
    shifts = np.arange(canvas)
    sources = (np.arange(size) + shifts[:, None]) % canvas
    allowed = (sources < size) & (np.append(classes, np.full(canvas - size, -1))[sources] == classes)
    used = allowed.any(axis=1)
    return shifts[used], allowed[used]
