"""Posterior means of training images that see each pixel through a window, at its own place or at all places."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dgu.core.arrays import as_native, at_least_single
from dgu.core.brief import short_repr
from dgu.core.errors import require, require_whole
from dgu.core.typing import Event, Scalar
from dgu.models.windows import canvas_of, check_window, extended, position_classes, source_shifts, window_sums


@short_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class LocalDenoiser:
    """The posterior mean of each pixel of ``x = x0 + sigma eps`` given the window around it, over training images.

        denoiser(x, sigma)[p] = sum_{i, s} softmax_{i, s}(-|x[W_p] - data_i[W_s]|^2 / (2 sigma^2)) data_i[s]

    ``W_p`` are the ``window`` x ``window`` pixels around p, with all their channels. The sum is over images i and over
    positions s: s = p alone (the local machine, LS) or, where ``equivariant``, all positions of the class of p (ELS):

    - boundary ``"zero"``: windows are filled up with zeros beyond the border; all positions are one class.
    - ``"circular"``: windows wrap around; all positions are one class, and the denoiser commutes with circular shifts.
    - ``"bordered"``: zeros as well, and positions whose window lies inside the image are one class. One near an edge
      shares with those at the same distance from the same edge; one near a corner is alone.

    A window that is the whole image gives ``EmpiricalDenoiser``, and with ``equivariant`` on a circle that of all
    shifts of the images (ES). Smaller windows give no posterior mean of any one law: each pixel has a posterior of its
    own, so that the Jacobian, row by row the covariance of a pixel with its window over ``sigma^2``, is not symmetric.

    Squared differences are summed over all windows at once, shift by shift of the images, block by block, with a
    running maximum for each pixel: nothing is held for each image, position and window, the result does not depend on
    the block, and small noise levels keep their digits. At ``sigma = 0`` the nearest window decides.

    Kamb and Ganguli, arXiv 2412.20292 (LS, ELS, borders); Niedoba et al., arXiv 2411.19339.

    Attributes:
        data: ``(n, h, w, c)``, n at least 1.
        window: side of the window, odd and at most the smaller side of the images; besides, ``2 max(h, w) - 1``, with
            which every pixel sees the whole image, or on a circle the side of square images. Static.
        equivariant: whether windows at other positions are sources. Static.
        boundary: ``"zero"``, ``"circular"`` or ``"bordered"``. Static.
        block_size: images at a time. Static.
    """

    data: Any
    window: int = field(metadata={"static": True})
    equivariant: bool = field(default=False, metadata={"static": True}, kw_only=True)
    boundary: str = field(default="zero", metadata={"static": True}, kw_only=True)
    block_size: int = field(default=128, metadata={"static": True}, kw_only=True)

    def __post_init__(self) -> None:
        # Trees of a denoiser's form also hold what is no array, and stacks of data have an axis more.
        if isinstance(self.data, np.ndarray | jax.Array) and np.ndim(self.data) == 4:
            self._check()

    @at_least_single
    def __call__(self, x: Event, sigma: Scalar) -> Event:
        """The posterior mean of one image ``(h, w, c)``, in the dtype of ``x``.

        Raises:
            InputError: ``data`` is not ``(n, *x.shape)`` with n at least 1, or the window does not fit the images.
        """
        number, h, w, channels = self._check()
        require(x.shape == (h, w, channels), "x.shape", x.shape, f"that of an image of data, {(h, w, channels)}")
        rows, size, radius = as_native("data", self.data), min(self.block_size, number), self.window // 2
        canvas = canvas_of(x, self.window, self.boundary)[..., None]
        (height, width), more = canvas.shape[:2], self.window - 1
        canvas = extended(canvas, h + more, w + more)
        down, right = (
            source_shifts(n, m, position_classes(n, self.window, self.boundary, self.equivariant))
            for n, m in ((h, height), (w, width))
        )
        shifts = np.stack(np.meshgrid(down[0], right[0], indexing="ij"), -1).reshape(-1, 2)
        allowed = (down[1][:, None, :, None] & right[1][None, :, None, :]).reshape(-1, h, w)
        variance = jnp.square(jnp.asarray(sigma, x.dtype))
        precision = 1 / (2 * jnp.maximum(variance, float(jnp.finfo(x.dtype).tiny) ** 0.5))
        # Larger than any distance, and yet finite: derivatives multiply it by a weight of 0.
        far = jnp.asarray(jnp.finfo(x.dtype).max, x.dtype)

        def nothing(*lanes: int) -> tuple[Array, ...]:
            """The smallest distance, the weights and the weighted pixels of no source at all."""
            empty = jnp.zeros((h, w, channels, *lanes), x.dtype)
            return jnp.full((h, w, *lanes), far), empty[:, :, 0], empty

        @jax.checkpoint
        def add(carry: tuple[Array, ...], block: Array) -> tuple[tuple[Array, ...], None]:
            # The last block is moved back to end with the data; its rows that an earlier block had count for nothing.
            start = jnp.minimum(block * size, number - size)
            points = jax.lax.dynamic_slice_in_dim(rows, start, size).astype(x.dtype)
            # Images come last, so that all that follows is elementwise; unrolled, so that a shift is a slice.
            points = canvas_of(jnp.moveaxis(points, 0, -1), self.window, self.boundary)
            points = extended(points, height - 1 + h + more, width - 1 + w + more)

            def shifted(lanes: tuple[Array, ...], at: tuple[Array, Array]) -> tuple[tuple[Array, ...], None]:
                by, there = at
                source = jax.lax.dynamic_slice(points, (by[0], by[1], 0, 0), (h + more, w + more, channels, size))
                squares = window_sums(jnp.sum(jnp.square(canvas - source), axis=2), self.window)
                values = source[radius : radius + h, radius : radius + w]
                squares = jnp.where(there[..., None], squares, far)
                counted = jnp.broadcast_to(there[..., None].astype(x.dtype), squares.shape)
                return _merged(lanes, (squares, counted, counted[:, :, None] * values), precision), None

            lanes, _ = jax.lax.scan(shifted, nothing(size), (jnp.asarray(shifts), jnp.asarray(allowed)))
            fresh = (start + jnp.arange(size) >= block * size)[None, None]
            nearest = jnp.where(fresh, lanes[0], far)
            closest = jnp.min(nearest, axis=-1)
            weights = fresh.astype(x.dtype) * jnp.exp(-(nearest - closest[..., None]) * precision)
            total = jnp.sum(weights * lanes[1], axis=-1)
            weighted = jnp.sum(weights[:, :, None] * lanes[2], axis=-1)
            return _merged(carry, (closest, total, weighted), precision), None

        (_, total, weighted), _ = jax.lax.scan(add, nothing(), jnp.arange(-(-number // size)))
        return weighted / total[..., None]

    def _check(self) -> tuple[int, int, int, int]:
        """The shape of ``data``."""
        shape = np.shape(self.data)
        require(len(shape) == 4 and min(shape) >= 1, "data.shape", shape, "(n, h, w, c), n at least 1")
        require_whole("block_size", self.block_size)
        check_window(self.window, self.boundary, shape[1:])
        return shape


def _merged(one: tuple[Array, ...], other: tuple[Array, ...], precision: Array) -> tuple[Array, ...]:
    """Sums over the sources of both: each the smallest distance, weights relative to it, and weighted pixels."""
    ours, theirs = _relative(one[0], other[0], precision)
    # The nearest drops out of the ratio, and so out of its derivative.
    closest = jax.lax.stop_gradient(jnp.minimum(one[0], other[0]))
    total = ours * one[1] + theirs * other[1]
    return closest, total, ours[:, :, None] * one[2] + theirs[:, :, None] * other[2]


@jax.custom_jvp
def _relative(one: Array, other: Array, precision: Array) -> tuple[Array, Array]:
    """``exp(-(one - m) precision)`` and ``exp(-(other - m) precision)`` with the constant ``m = min(one, other)``.

    Never above 1: distances that are computed twice, each time fused with other operations, differ by rounding, and
    what they lie below m by may be what small noise levels make infinite.
    """
    # Two exponentials of which one is 1: a choice between 1 and a single one takes XLA three times as long on CPU.
    gap = one - other
    return jnp.exp(-jnp.maximum(gap, 0) * precision), jnp.exp(jnp.minimum(gap, 0) * precision)


@_relative.defjvp
def _relative_tangents(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> Any:
    one, other, precision = primals
    weights = _relative(one, other, precision)
    least = jax.lax.stop_gradient(jnp.minimum(one, other))
    # A weight of 0 comes first: distances without a source are as large as numbers are.
    changes = (
        -weight * precision * tangent - weight * (distance - least) * tangents[2]
        for weight, distance, tangent in zip(weights, (one, other), tangents)
    )
    return weights, tuple(changes)
