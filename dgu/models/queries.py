"""Posterior means of training images that see each image through any regions: patches, and pixels that go together."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from dgu.core.arrays import as_floats, as_jax_floats, as_native, at_least_single
from dgu.core.brief import short_repr
from dgu.core.errors import require, require_whole
from dgu.core.typing import Event, Scalar
from dgu.models.closed_form import GaussianDenoiser

_HIGHEST = jax.lax.Precision.HIGHEST


@short_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class QueryDenoiser:
    """The posterior mean of each pixel of ``x = x0 + sigma eps``, over training images seen through its own query.

        denoiser(x, sigma)[p] = sum_i softmax_i(-sum_m q_p[m] |x[m] - data_i[m]|^2 / (2 sigma^2)) data_i[p]

    A query ``q_p`` of zeros and ones is a window of any form, one in between a soft one, and all ones the whole image
    (``EmpiricalDenoiser``). Blocks of images are summed with a running maximum for each pixel.

    The form of Lukoianov et al., arXiv 2509.09672; soft queries: Niedoba et al., arXiv 2605.24192.

    Attributes:
        data: ``(n, h, w, c)``, n at least 1.
        queries: q, ``(h, w, h, w)``, 0 or more: first the pixel that is estimated, then those that it sees.
        block_size: images at a time. Static.
    """

    data: Any
    queries: Any
    block_size: int = field(default=256, metadata={"static": True}, kw_only=True)

    @at_least_single
    def __call__(self, x: Event, sigma: Scalar) -> Event:
        """The posterior mean of one image ``(h, w, c)``, in the dtype of ``x``.

        Raises:
            InputError: ``data`` is not ``(n, *x.shape)`` with n at least 1, or queries that do not fit it.
        """
        h, w, c = _checked(self.data, x, self.block_size)
        shape = np.shape(self.queries)
        require(shape == (h, w, h, w), "queries.shape", shape, f"{(h, w, h, w)}, each pixel by the pixels it sees")
        queries = _non_negative(self.queries, x).reshape(h * w, h * w)

        def pixels(weights: Array, points: Array) -> Array:
            return jnp.einsum("bp,bpc->pc", weights, points, precision=_HIGHEST)

        return _posterior(self.data, x, sigma, queries, self.block_size, pixels, (h * w, c)).reshape(x.shape)


@short_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class PatchDenoiser:
    """The mean over patches of the posterior mean of each patch given itself, over training images at its own place.

        denoiser(x, sigma)[m] = sum_P [m in P] D_P[m] / sum_P [m in P]
        D_P = sum_i softmax_i(-|x[P] - data_i[P]|^2 / (2 sigma^2)) data_i[P]

    The patch set posterior composites of Niedoba et al., arXiv 2411.19339: ``square`` has those of all square patches,
    ``flexible`` those of patches of any form, one a pixel, from the Jacobian of a network.

    Attributes:
        data: ``(n, h, w, c)``, n at least 1.
        patches: ``(P, h, w)``, 1 in a patch and 0 outside; each pixel is in one of them or more.
        block_size: images at a time. Static.
    """

    data: Any
    patches: Any
    block_size: int = field(default=256, metadata={"static": True}, kw_only=True)

    @classmethod
    def square(cls, data: Num[ArrayLike, "..."], side: int) -> "PatchDenoiser":
        """All squares of ``side`` x ``side`` pixels that lie within the image.

        Raises:
            InputError: ``side`` is not a whole number from 1 to the smaller side of the images.
        """
        require(np.ndim(data) == 4, "data.shape", np.shape(data), "(n, h, w, c)")
        h, w = np.shape(data)[1:3]
        require_whole("side", side, 1, min(h, w))
        rows, columns = (_intervals(size, int(side)) for size in (h, w))
        patches = rows[:, None, :, None] & columns[None, :, None, :]
        return cls(data, jnp.asarray(patches.reshape(-1, h, w), jnp.float32))

    @classmethod
    def flexible(
        cls, data: Num[ArrayLike, "..."], sensitivity: Num[ArrayLike, "..."], share: float | int
    ) -> "PatchDenoiser":
        """For each pixel the fewest pixels that hold ``share`` of its row of a mean absolute Jacobian.

        Args:
            data: ``(n, h, w, c)``.
            sensitivity: ``(h, w, h, w)``, 0 or more: how much the output at a pixel depends on the input at others.
            share: in (0, 1]; 1 takes all pixels, those that nothing depends on as well.

        Raises:
            InputError: a sensitivity of another shape, negative or not finite, or a share outside its range.
        """
        require(np.ndim(data) == 4, "data.shape", np.shape(data), "(n, h, w, c)")
        h, w = np.shape(data)[1:3]
        rows = as_floats("sensitivity", sensitivity)
        require(rows.shape == (h, w, h, w), "sensitivity.shape", rows.shape, f"{(h, w, h, w)}")
        good = bool(np.isfinite(rows).all()) and bool((rows >= 0).all())
        require(good, "sensitivity", "an array with negative values or such as are not finite", "finite and 0 or more")
        require(0 < share <= 1, "share", share, "above 0 and at most 1")
        rows = rows.reshape(h * w, h * w).astype(np.float64)
        order = np.argsort(-rows, axis=1, kind="stable")
        held = np.cumsum(np.take_along_axis(rows, order, axis=1), axis=1)
        # A pixel belongs to it as long as those before it hold less than the share.
        before = np.pad(held, ((0, 0), (1, 0)))[:, :-1]
        inside = np.zeros(rows.shape, bool)
        np.put_along_axis(inside, order, (before < share * held[:, -1:]) | (share == 1), axis=1)
        inside |= np.eye(h * w, dtype=bool)  # Its own pixel always: each is then in a patch.
        return cls(data, jnp.asarray(inside.reshape(-1, h, w), jnp.float32))

    @at_least_single
    def __call__(self, x: Event, sigma: Scalar) -> Event:
        """The mean of the posterior means of one image ``(h, w, c)``, in the dtype of ``x``.

        Raises:
            InputError: ``data`` is not ``(n, *x.shape)`` with n at least 1, or patches that do not fit it.
        """
        h, w, c = _checked(self.data, x, self.block_size)
        shape = np.shape(self.patches)
        require(len(shape) == 3 and shape[1:] == (h, w), "patches.shape", shape, f"(P, {h}, {w})")
        patches = _non_negative(self.patches, x).reshape(len(self.patches), h * w)

        def whole(weights: Array, points: Array) -> Array:
            return jnp.einsum("br,bpc->rpc", weights, points, precision=_HIGHEST)

        means = _posterior(self.data, x, sigma, patches, self.block_size, whole, (len(patches), h * w, c))
        mixed = jnp.einsum("rp,rpc->pc", patches, means, precision=_HIGHEST)
        return (mixed / jnp.sum(patches, axis=0)[:, None]).reshape(x.shape)


@short_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class WienerDenoiser:
    """``QueryDenoiser`` whose windows are those of the data's own Wiener filter at each noise level.

        q_p[m] = 1 where |W_pm| >= threshold max_m |W_pm|,    W = U diag(lam / (lam + sigma^2)) U^T

    W is the Jacobian of ``gaussian``; of several channels, the root of the sum of squares over both pixels' stands.
    Lukoianov et al., arXiv 2509.09672: locality comes from the data, not from the network.

    Attributes:
        data: ``(n, h, w, c)``, n at least 1.
        gaussian: of images of the same shape, as by ``GaussianDenoiser.fit(data)``.
        threshold: in (0, 1]; .02 in the paper.
        block_size: images at a time. Static.
    """

    data: Any
    gaussian: GaussianDenoiser
    threshold: Any = 0.02
    block_size: int = field(default=256, metadata={"static": True}, kw_only=True)

    @at_least_single
    def __call__(self, x: Event, sigma: Scalar) -> Event:
        """The posterior mean of one image ``(h, w, c)``, in the dtype of ``x``.

        Raises:
            InputError: ``data`` or the Gaussian do not fit ``x``.
        """
        return QueryDenoiser(self.data, self.windows(x, sigma), block_size=self.block_size)(x, sigma)

    @at_least_single
    def windows(self, x: Event, sigma: Scalar) -> Float[Array, "h w h w"]:
        """The queries at one noise level, in the dtype of ``x``, of which the shape alone counts."""
        h, w, c = _checked(self.data, x, self.block_size)
        shape = np.shape(self.gaussian.mean)
        require(shape == x.shape, "gaussian.mean.shape", shape, f"that of the images, {x.shape}")
        basis, variances = (jnp.asarray(leaf, x.dtype) for leaf in (self.gaussian.basis, self.gaussian.variances))
        total = variances + jnp.square(jnp.asarray(sigma, x.dtype))
        gain = variances / jnp.where(total > 0, total, jnp.ones_like(total))
        filters = jnp.dot(basis * gain[None], basis.T, precision=_HIGHEST).reshape(h * w, c, h * w, c)
        strength = jnp.sum(jnp.square(filters), axis=(1, 3))
        least = jnp.square(jnp.asarray(self.threshold, x.dtype)) * jnp.max(strength, axis=1, keepdims=True)
        return jax.lax.stop_gradient((strength >= least).astype(x.dtype)).reshape(h, w, h, w)


def _posterior(
    data: Any, x: Array, sigma: Scalar, queries: Array, block_size: int, estimate: Any, shape: tuple[int, ...]
) -> Array:
    """``estimate(weights (b, R), points (b, h w, c))`` of all images by blocks, over the sum of weights of each of R
    queries."""
    number, pixels = len(data), x.shape[0] * x.shape[1]
    size = min(block_size, number)
    rows = as_native("data", data).reshape(number, pixels, x.shape[2])
    flat = x.reshape(1, pixels, x.shape[2])
    variance = jnp.square(jnp.asarray(sigma, x.dtype))
    precision = 1 / (2 * jnp.maximum(variance, float(jnp.finfo(x.dtype).tiny) ** 0.5))
    far = jnp.asarray(jnp.finfo(x.dtype).max, x.dtype)  # Larger than any distance, and yet finite for derivatives.
    over = (len(queries), *[1] * (len(shape) - 1))

    def add(carry: tuple[Array, Array, Array], block: Array) -> tuple[tuple[Array, Array, Array], None]:
        nearest, total, weighted = carry
        # The last block is moved back to end with the data; its rows that an earlier block had count for nothing.
        start = jnp.minimum(block * size, number - size)
        points = jax.lax.dynamic_slice_in_dim(rows, start, size).astype(x.dtype)
        squares = jnp.sum(jnp.square(flat - points), axis=2)
        distances = jnp.dot(squares, queries.T, precision=_HIGHEST)
        distances = jnp.where((start + jnp.arange(size) >= block * size)[:, None], distances, far)
        closest = jax.lax.stop_gradient(jnp.minimum(nearest, jnp.min(distances, axis=0)))
        weights = jnp.exp(-(distances - closest[None]) * precision)
        keep = jnp.exp(-(nearest - closest) * precision)
        weighted = keep.reshape(over) * weighted + estimate(weights, points)
        return (closest, keep * total + jnp.sum(weights, axis=0), weighted), None

    nothing = (jnp.full(len(queries), far), jnp.zeros(len(queries), x.dtype), jnp.zeros(shape, x.dtype))
    (_, total, weighted), _ = jax.lax.scan(add, nothing, jnp.arange(-(-number // size)))
    return weighted / total.reshape(over)


def _checked(data: Any, x: Array, block_size: int) -> tuple[int, int, int]:
    """The shape of an image."""
    shape = np.shape(data)
    require(len(shape) == 4 and min(shape) >= 1, "data.shape", shape, "(n, h, w, c), n at least 1")
    require(x.shape == shape[1:], "x.shape", x.shape, f"that of an image of data, {shape[1:]}")
    require_whole("block_size", block_size)
    h, w, c = x.shape
    return h, w, c


def _non_negative(queries: Any, x: Array) -> Array:
    """Queries in the dtype of ``x``, looked at where they are not traced."""
    numbers = as_jax_floats("queries", queries)
    if not isinstance(numbers, jax.core.Tracer):
        least = float(np.min(np.asarray(numbers), initial=0))
        require(least >= 0, "smallest entry of the queries", least, "0 or more")
    return numbers.astype(x.dtype)


def _intervals(size: int, side: int) -> np.ndarray:
    """``(size - side + 1, size)``, which positions are in each interval of ``side``."""
    starts, positions = np.arange(size - side + 1)[:, None], np.arange(size)
    return (positions >= starts) & (positions < starts + side)
