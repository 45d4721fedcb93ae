"""EDM's non-leaking augmentation (Karras et al. 2022, appendix F.2): random geometry whose parameters are given to the
network.

A network that knows what was done to an image learns the distribution of images to which nothing was done; when
sampling, no labels are given, which asks for images to which nothing was done.
"""

from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.ndimage import map_coordinates
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from dgu.core.arrays import as_jax_floats
from dgu.core.keys import threefry
from dgu.core.typing import Key, Scalar

#: Length of the label vector; a network that takes it has ``augment_dim=9``.
AUGMENT_DIM = 9
#: Low-pass filter of the sym6 wavelet (orthonormal: squares of the taps sum to 1, shifts by two are orthogonal).
SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633,
    0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252,
    -0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip
_EDGE = len(SYM6) // 4  # pixels by which the resampled picture is larger, on every side, than what is cropped from it


class Geometry(NamedTuple):
    """The augmentation of one image, which all zeros leave as it is. Scalars, or arrays of one shape.

    Attributes:
        flip_x, flip_y: 1 mirrors left and right, up and down.
        scale: the image grows by ``2^(0.2 scale)``.
        rotation: angle in radians.
        stretch: growth by ``2^(0.2 stretch)`` along ``axis``, shrinking as much across it.
        axis: direction of the stretch in radians.
        shift_x, shift_y: translation in eighths of the width and height.
    """

    flip_x: Array
    flip_y: Array
    scale: Array
    rotation: Array
    stretch: Array
    axis: Array
    shift_x: Array
    shift_y: Array

    @property
    def labels(self) -> Float[Array, "*b 9"]:
        """The labels that the network is given: flips, scale, (cos - 1, sin) of the rotation, the stretch as a vector,
        the shift.
        """
        turn = (jnp.cos(self.rotation) - 1, jnp.sin(self.rotation))
        vector = (self.stretch * jnp.cos(self.axis), self.stretch * jnp.sin(self.axis))
        told = (self.flip_x, self.flip_y, self.scale, *turn, *vector, self.shift_x, self.shift_y)
        return jnp.stack(told, axis=-1)


def draw_geometry(key: Key, probability: Scalar) -> Geometry:
    """Random parameters for one image.

    The mirror image left to right is taken with probability 1/2 whenever ``probability`` is positive. Every other
    operation happens with ``probability``: a vertical flip then by a fair coin, scale, stretch and shifts standard
    normal, the rotation uniform in +-pi, the axis of the stretch uniform in +-pi or, half of the time, 0.

    Args:
        key: key of this image.
        probability: from 0 (nothing is done) to 1.
    """
    key = threefry(key)
    gates, coins, normals, angles = jax.random.split(key, 4)
    p = jnp.asarray(probability, jnp.result_type(float))
    on = jax.random.uniform(gates, (5,), p.dtype) < p
    flip_x, flip_y, sideways = jax.random.bernoulli(coins, 0.5, (3,)).astype(p.dtype)
    scale, stretch, shift_x, shift_y = jax.random.normal(normals, (4,), p.dtype)
    rotation, axis = jax.random.uniform(angles, (2,), p.dtype, -np.pi, np.pi)

    def gated(gate: Array, value: Array) -> Array:
        return jnp.where(gate, value, jnp.zeros((), p.dtype))

    return Geometry(
        flip_x=gated(p > 0, flip_x),
        flip_y=gated(on[0], flip_y),
        scale=gated(on[1], scale),
        rotation=gated(on[2], rotation),
        stretch=gated(on[3], stretch),
        axis=gated(on[3], sideways * axis),
        shift_x=gated(on[4], shift_x),
        shift_y=gated(on[4], shift_y),
    )


def transform(image: Num[ArrayLike, "h w c"], geometry: Geometry) -> Float[Array, "h w c"]:
    """The image after ``geometry``: flips exactly, the rest as one affine map between band-limited resamplings.

    The picture is mirrored over its borders, doubled in size with the sym6 low-pass, read bilinearly at the transformed
    places (0 outside), halved with the same filter, and cropped. Where nothing but flips is asked for, no pixel changes
    value.

    Args:
        image: (H, W, C).
        geometry: scalars, as from ``draw_geometry``.
    """
    image = as_jax_floats("image", image)
    height, width, _ = image.shape
    image = jnp.where(geometry.flip_x == 1, image[:, ::-1], image)
    image = jnp.where(geometry.flip_y == 1, image[::-1], image)
    tall, wide = (_doubling(side) for side in (height, width))
    double = partial(jnp.einsum, "ai,bj,ijc->abc", precision=jax.lax.Precision.HIGHEST)
    doubled = double(tall.astype(image.dtype), wide.astype(image.dtype), image)

    rows, columns = (2 * (side + 2 * _EDGE) for side in (height, width))
    y, x = jnp.meshgrid(_centred(rows), _centred(columns), indexing="ij")
    # The doubled picture lies half a pixel beside the doubled coordinates; both sides of the map are told so.
    source = _inverse_map(geometry, height, width)
    places = jnp.stack([(x + 0.5) / 2, (y + 0.5) / 2, jnp.ones_like(x)]).astype(image.dtype)
    x, y = (
        2 * jnp.einsum("ij,jab->iab", source.astype(image.dtype), places, precision=jax.lax.Precision.HIGHEST)[:2] - 0.5
    )
    origin_y, origin_x = ((side - 1) / 2 for side in doubled.shape[:2])
    read = partial(map_coordinates, coordinates=[y + origin_y, x + origin_x], order=1, mode="constant", cval=0.0)
    moved = jax.vmap(read, in_axes=-1, out_axes=-1)(doubled)
    warped = double(_halving(height).astype(image.dtype), _halving(width).astype(image.dtype), moved)
    still = sum(jnp.abs(value) for value in geometry[2:]) == 0
    return jnp.where(still, image, warped)


def augment(image: Num[ArrayLike, "h w c"], key: Key, probability: Scalar) -> tuple[Float[Array, "h w c"], Array]:
    """One image augmented with ``probability`` (see ``draw_geometry``), and its label vector of ``AUGMENT_DIM``
    entries.
    """
    key = threefry(key)
    image, geometry = as_jax_floats("image", image), draw_geometry(key, probability)
    return transform(image, geometry), geometry.labels.astype(image.dtype)


def _centred(count: int) -> np.ndarray:
    return np.arange(count) - (count - 1) / 2


def _inverse_map(g: Geometry, height: int, width: int) -> Float[Array, "3 3"]:
    """Where each place of the result comes from, in pixels from the centre: homogeneous (x, y, 1) to (x, y, 1)."""

    def scaling(x: ArrayLike, y: ArrayLike) -> Array:
        return jnp.diag(jnp.stack([jnp.asarray(x), jnp.asarray(y), jnp.ones_like(g.scale)]))

    def turning(angle: Array) -> Array:
        c, s, zero, one = jnp.cos(angle), jnp.sin(angle), jnp.zeros_like(angle), jnp.ones_like(angle)
        return jnp.stack([jnp.stack([c, -s, zero]), jnp.stack([s, c, zero]), jnp.stack([zero, zero, one])])

    grow, stretch = 2 ** (0.2 * g.scale), 2 ** (0.2 * g.stretch)
    shift = jnp.eye(3, dtype=g.scale.dtype).at[:2, 2].set(-jnp.stack([g.shift_x * width, g.shift_y * height]) / 8)
    factors = (
        scaling(1 / grow, 1 / grow),
        turning(g.rotation),
        turning(-g.axis),
        scaling(1 / stretch, stretch),
        turning(g.axis),
        shift,
    )
    product = factors[0]
    for factor in factors[1:]:
        product = jnp.matmul(product, factor, precision=jax.lax.Precision.HIGHEST)
    return product


@lru_cache(maxsize=32)
def _doubling(side: int) -> np.ndarray:
    """(2 (3 side - 2), side): mirroring over both borders by all of the picture, then doubling with the filter."""
    mirrored = np.pad(np.eye(side), ((side - 1, side - 1), (0, 0)), mode="reflect")
    stuffed = np.zeros((2 * len(mirrored) - 1, side))
    stuffed[::2] = mirrored
    return np.stack([np.convolve(column, SYM6)[5:-5] for column in stuffed.T], axis=1)


@lru_cache(maxsize=32)
def _halving(side: int) -> np.ndarray:
    """(side, 2 (side + 2 edge)): every second correlation with the filter, without the edges."""
    padded = 2 * (side + 2 * _EDGE) + 10
    rows = np.zeros((side + 2 * _EDGE, padded))
    for row in range(len(rows)):
        rows[row, 2 * row : 2 * row + len(SYM6)] = SYM6
    return rows[_EDGE:-_EDGE, 5:-5]
