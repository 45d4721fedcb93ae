"""Doubling and halving of images (H, W, C) in the U-Nets, alone and before or after a convolution.

A filter is given by its taps ``f``; in two dimensions it is ``F = outer(f, f) / sum(f)^2``, applied to each channel.
With ``p = (len(f) - 1) // 2``, halving correlates with ``F`` at stride 2 and zero padding ``p``, and doubling is the
transposed operation with ``4 F``. Taps ``(1, 1)`` are the mean of 2 x 2 pixels and the nearest neighbour.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from dgu.models.convolution import Conv, convolve

Taps = tuple[float, ...]


def _is_box(taps: Taps) -> bool:
    return len(taps) == 2 and taps[0] == taps[1]


def upsample(x: Float[Array, "h w c"], taps: Taps = (1.0, 1.0)) -> Float[Array, "2*h 2*w c"]:
    """Doubling by the transposed filter with ``taps`` (an even number of them)."""
    if _is_box(taps):
        return jnp.repeat(jnp.repeat(x, 2, axis=0), 2, axis=1)
    return _transposed(x, taps, (len(taps) - 1) // 2)


def _transposed(x: Float[Array, "h w c"], taps: Taps, padding: int) -> Float[Array, "h2 w2 c"]:
    """The transposed filter at stride 2 which leaves out ``padding`` pixels on each side."""
    for axis in (0, 1):
        x = _transposed_along(x, taps, padding, axis)
    return x


def _transposed_along(x: Float[Array, "h w c"], taps: Taps, padding: int, axis: int) -> Float[Array, "h2 w2 c"]:
    # out[2 i + k - padding] += gain[k] x[i]: the two phases of the output are filters of x by every other tap.
    gain = 2 * np.asarray(taps) / np.sum(taps)
    size, length = len(taps), x.shape[axis]
    total = 2 * (length - 1) + size - 2 * padding
    reach = size // 2 + 1
    pads = [(0, 0)] * 3
    pads[axis] = (reach, reach)
    wide = jnp.pad(x, pads)
    phases = []
    for phase in (0, 1):
        count = (total - phase + 1) // 2
        terms = []
        for k in range(size):
            shift, odd = divmod(phase + padding - k, 2)
            if not odd:
                terms.append(
                    float(gain[k]) * jax.lax.slice_in_dim(wide, reach + shift, reach + shift + count, axis=axis)
                )
        phases.append(sum(terms[1:], terms[0]))
    shape = list(x.shape)
    shape[axis] = total
    return jnp.stack(phases, axis=axis + 1).reshape(shape)


def downsample(x: Float[Array, "h w c"], taps: Taps = (1.0, 1.0)) -> Float[Array, "h//2 w//2 c"]:
    """Halving by the filter with ``taps`` and zero padding."""
    if _is_box(taps):
        # Sums of slices, not a reduction: XLA fuses them with what comes before.
        rows = x[::2] + x[1::2]
        return (rows[:, ::2] + rows[:, 1::2]) / 4
    return _filtered(x, taps, (len(taps) - 1) // 2)


def _filtered(x: Float[Array, "h w c"], taps: Taps, padding: int) -> Float[Array, "h2 w2 c"]:
    """The filter at stride 2."""
    x = jnp.pad(x, ((padding, padding), (padding, padding), (0, 0)))
    weights = np.asarray(taps) / np.sum(taps)
    for axis in (0, 1):
        count = (x.shape[axis] - len(taps)) // 2 + 1
        parts = [jax.lax.slice_in_dim(x, k, k + 2 * count - 1, 2, axis) for k in range(len(taps))]
        first, *rest = (float(w) * part for w, part in zip(weights, parts))
        x = sum(rest, first)
    return x


def resampled_conv(
    layer: Conv, x: Float[Array, "h w c"], resample: str | None, taps: Taps = (1.0, 1.0), *, fused: bool = False
) -> Float[Array, "h2 w2 o"]:
    """A convolution together with a doubling (``"up"``) or halving (``"down"``) of its input.

    The usual order is resampling, convolution with zero padding, bias. ``fused`` moves the paddings into whichever
    comes
    first: down is the convolution (padding ``k // 2 + p``), the filter without padding, bias; up is the transposed
    filter (padding ``max(p - k // 2, 0)``), the convolution (``max(k // 2 - p, 0)``), bias. The results differ near the
    border.
    """
    if resample is None:
        return layer(x)
    if fused:
        half, p = layer.kernel.shape[0] // 2, (len(taps) - 1) // 2
        if resample == "down":
            y = _filtered(_correlate(layer, x, half + p), taps, 0)
        else:
            y = _correlate(layer, _transposed(x, taps, max(p - half, 0)), max(half - p, 0))
        return y + layer.bias[...].astype(y.dtype)[None, None]  # type: ignore[index]
    if resample == "down":
        return layer(downsample(x, taps))
    if _is_box(taps) and layer.kernel.shape[:2] == (1, 1):
        # One pixel's colours are mixed the same before or after it is copied.
        wide = jnp.promote_types(x.dtype, layer.kernel.dtype)
        dtype = wide if layer.dtype is None else layer.dtype
        mixed = pointwise_before_doubling(x.astype(dtype), layer.kernel[...].astype(dtype))
        return upsample(mixed + layer.bias[...].astype(dtype)[None, None])  # type: ignore[index]
    if _is_box(taps) and layer.kernel.shape[:2] == (3, 3):
        return upsampled_conv(layer, x)
    return layer(upsample(x, taps))


def _correlate(layer: Conv, x: Float[Array, "h w c"], padding: int) -> Float[Array, "h2 w2 o"]:
    """The layer's convolution with another padding and no bias."""
    wide = jnp.promote_types(x.dtype, layer.kernel.dtype)
    dtype = wide if layer.dtype is None else layer.dtype
    return convolve(x.astype(dtype), layer.kernel[...].astype(dtype), ((padding, padding), (padding, padding)))


def upsampled_conv(layer: Conv, x: Float[Array, "h w c"]) -> Float[Array, "2*h 2*w o"]:
    """``layer(upsample(x))`` for a 3 x 3 layer, by four 2 x 2 convolutions of ``x``: 4/9 of the multiplications.

    After doubling, two of the three rows under the kernel are copies of one row of ``x``, so that their weights add up:
    the last two for the even rows of the output, the first two for the odd ones. Columns likewise.
    """
    wide = jnp.promote_types(x.dtype, layer.kernel.dtype)
    dtype = wide if layer.dtype is None else layer.dtype
    out = conv_of_doubled(x.astype(dtype), layer.kernel[...].astype(wide))
    return out + layer.bias[...].astype(dtype)[None, None]  # type: ignore[index]


@jax.jit  # For its name in a trace, as below.
def pointwise_before_doubling(x: Float[Array, "h w c"], kernel: Float[Array, "1 1 c o"]) -> Float[Array, "h w o"]:
    """The 1 x 1 convolution of ``x``, at a quarter of the multiplications that it takes after doubling."""
    return convolve(x, kernel, ((0, 0), (0, 0)))


@jax.jit  # For its name in a trace: counts of FLOP by the published order of operations recognise it.
def conv_of_doubled(x: Float[Array, "h w c"], kernel: Float[Array, "3 3 c o"]) -> Float[Array, "2*h 2*w o"]:
    """The 3 x 3 convolution of the doubled ``x``, without doubling; see ``upsampled_conv``."""

    def folded(kernel: Array, axis: int) -> tuple[Array, Array]:
        first, middle, last = jnp.split(kernel, 3, axis)
        return jnp.concatenate([first, middle + last], axis), jnp.concatenate([first + middle, last], axis)

    def phase(kernel: Array, row: int, column: int) -> Array:
        padding = ((1 - row, row), (1 - column, column))
        return convolve(x, kernel.astype(x.dtype), padding)

    rows = [
        jnp.stack([phase(k, row, column) for column, k in enumerate(folded(by_row, 1))], axis=2)
        for row, by_row in enumerate(folded(kernel, 0))
    ]
    h, w, _ = x.shape
    return jnp.stack(rows, axis=1).reshape(2 * h, 2 * w, -1)
