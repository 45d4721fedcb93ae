"""Stride-1 convolution as a primitive of its own, with gradients in the layout that CPUs are fast at.

    y[n, i, j, o] = sum_abc x[n, i + a - top, j + b - left, c] k[a, b, c, o]

XLA's CPU compiler has fast kernels for convolutions of images (N, H, W, C) with kernels (h, w, C, O). JAX's gradients
of ``conv_general_dilated`` have other layouts, which XLA rewrites in a program's outermost computation alone: inside a
``scan`` they take many times as long. Mapped over kernels, ``vmap`` makes grouped convolutions, which have no fast
kernel either. Here, on CPUs, the gradient by the image is a convolution with the kernel turned by half a turn, the
gradient by the kernel one of the images with channels for examples, and several kernels are a loop. On accelerators
all three are left to XLA.

Both primitives are bilinear, and the transposes of each are among the two: all of JAX's transformations hold, to any
order.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Float

from dgu.core.errors import require

#: Rows and columns of zeros around an image: ((top, bottom), (left, right)).
Padding = tuple[tuple[int, int], tuple[int, int]]
_LAYOUT = ("NHWC", "HWIO", "NHWC")

# Both take G groups, of which each has images of its own, and a kernel: x (G, N, H, W, C), k (G, a, b, C, O),
# y (G, N, H2, W2, O).
_convolve = Primitive("convolve")  # (x, k) to y
_kernel_gradient = Primitive("convolve_kernel_gradient")  # (x, y) to k


def convolve(
    x: Float[Array, "*n h w c"], kernel: Float[Array, "a b c o"], padding: Padding
) -> Float[Array, "*n h2 w2 o"]:
    """The convolution of images at stride 1 with a border of zeros (the kernel is not turned, as in all networks).

    Args:
        x: an image, or images with any number of axes in front.
        kernel: of the images' dtype.
        padding: rows and columns of zeros around an image, ``((top, bottom), (left, right))``.

    Returns:
        Images of ``h + top + bottom - a + 1`` rows and ``w + left + right - b + 1`` columns.
    """
    images = x.reshape(1, math.prod(x.shape[:-3]), *x.shape[-3:])
    out = _bind(_convolve, images, kernel[None], padding)
    return out.reshape(*x.shape[:-3], *out.shape[2:])


def _bind(primitive: Primitive, left: Array, right: Array, padding: Padding) -> Array:
    """The primitive of arrays that vary over the same axes of a ``shard_map``: gradients by one that does not vary over
    an axis are summed over it.
    """
    axes = [jax.typeof(given).mat.varying for given in (left, right)]
    every = axes[0] | axes[1]
    pair = [
        jax.lax.pcast(given, tuple(sorted(every - own)), to="varying") if every - own else given
        for given, own in zip((left, right), axes)
    ]
    out: Array = primitive.bind(*pair, padding=padding)
    return out


#: Below so many output channels, XLA's CPU convolutions cut the sum over the input among the threads.
_NARROW = 8


def convolved(x: Float[Array, "*n h w c"], kernel: Float[Array, "a b c o"]) -> Float[Array, "*n h w o"]:
    """Images of the same size under a kernel with odd sides, zeros around them.

    The bits do not depend on the number of threads: with fewer than eight output channels, such as an image's, Eigen's
    kernels sum over the input in as many parts as there are threads, and the number of threads grows with that of CPU
    devices. Channels of zeros are computed along and dropped.
    """
    channels = kernel.shape[-1]
    if channels < _NARROW:
        kernel = jnp.pad(kernel, ((0, 0), (0, 0), (0, 0), (0, _NARROW - channels)))
    return convolve(x, kernel, same_padding(kernel))[..., :channels]


class Conv(nnx.Conv):
    """``flax.nnx.Conv`` at stride 1, with an odd square kernel and zeros around the image, by ``convolved``."""

    def __init__(
        self, in_features: int, out_features: int, kernel_size: tuple[int, int], *, rngs: nnx.Rngs, **options: Any
    ):
        """As ``flax.nnx.Conv``, of whose options it takes ``dtype``, ``param_dtype``, ``use_bias``, ``kernel_init`` and
        ``bias_init``.

        Raises:
            InputError: a kernel with even sides, or another option.
        """
        taken = ("dtype", "param_dtype", "use_bias", "kernel_init", "bias_init")
        require(set(options) <= set(taken), "options", sorted(options), f"among {', '.join(taken)}")
        require(all(side % 2 for side in kernel_size), "kernel_size", kernel_size, "odd numbers")
        super().__init__(in_features, out_features, kernel_size, rngs=rngs, **options)

    def __call__(self, x: Float[Array, "*n h w c"]) -> Float[Array, "*n h w o"]:  # type: ignore[override]
        """The convolution of an image or of several."""
        dtype = jnp.promote_types(x.dtype, self.kernel.dtype) if self.dtype is None else self.dtype
        out = convolved(x.astype(dtype), self.kernel[...].astype(dtype))
        if not self.use_bias:
            return out
        bias = self.bias[...].astype(dtype)  # type: ignore[index]
        return out + bias.reshape((1,) * (out.ndim - 1) + bias.shape)


def same_padding(kernel: Array) -> Padding:
    """The border that keeps the size of an image under a kernel with odd sides."""
    (rows, columns) = (side // 2 for side in kernel.shape[:2])
    return (rows, rows), (columns, columns)


def _conv(x: Array, kernel: Array, padding: Padding) -> Array:
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=_LAYOUT)


def _conv_for_kernel(x: Array, y: Array, padding: Padding) -> Array:
    """Sums over examples and pixels, as the convolution of images (C, H, W, N) with a kernel (H2, W2, N, O)."""
    return _conv(x.transpose(3, 1, 2, 0), y.transpose(1, 2, 0, 3), padding).transpose(1, 2, 0, 3)


def _xla_for_kernel(x: Array, y: Array, padding: Padding) -> Array:
    """The same in the layout that XLA knows as a convolution's gradient on accelerators."""
    sides = (side + sum(pad) - out + 1 for side, pad, out in zip(x.shape[1:3], padding, y.shape[1:3]))
    kernel = jax.ShapeDtypeStruct((*sides, x.shape[-1], y.shape[-1]), x.dtype)
    (out,) = jax.linear_transpose(lambda kernel: _conv(x, kernel, padding), kernel)(y)
    return out


def _together(one: Callable[..., Array], left: Array, right: Array, *, padding: Padding) -> Array:
    """All groups at once, as XLA's grouped convolution."""
    only = partial(one, padding=padding)
    return only(left[0], right[0])[None] if len(left) == 1 else jax.vmap(only)(left, right)


def _in_turn(one: Callable[..., Array], left: Array, right: Array, *, padding: Padding) -> Array:
    """One group after another: each takes as long as alone."""
    if len(left) == 1:
        return _together(one, left, right, padding=padding)
    return jax.lax.map(lambda pair: one(*pair, padding=padding), (left, right))


def _image_shape(x: Any, kernel: Any, *, padding: Padding) -> ShapedArray:
    shape = (*x.shape[:2], *_sides(x, kernel.shape[1:3], padding), kernel.shape[-1])
    return x.update(shape=shape, weak_type=False)  # It varies over the axes of a shard_map that x does: see _bind.


def _kernel_shape(x: Any, y: Any, *, padding: Padding) -> ShapedArray:
    shape = (x.shape[0], *_sides(x, y.shape[2:4], padding), x.shape[-1], y.shape[-1])
    return x.update(shape=shape, weak_type=False)


def _sides(x: Any, window: tuple[int, ...], padding: Padding) -> list[int]:
    return [max(0, side + sum(pad) - taps + 1) for side, pad, taps in zip(x.shape[2:4], padding, window)]


def _image_gradient(y: Array, kernel: Array, padding: Padding) -> Array:
    """The transpose by the image: a convolution with the turned kernel."""
    turned = jnp.swapaxes(kernel[:, ::-1, ::-1], -1, -2)
    around = [(taps - 1 - before, taps - 1 - behind) for taps, (before, behind) in zip(kernel.shape[1:3], padding)]
    return _bind(_convolve, y, turned, (around[0], around[1]))


def _batched(
    primitive: Primitive,
    joined: tuple[tuple[int, int], tuple[int, int]],
    arguments: tuple[Array, Array],
    axes: tuple[int | None, int | None],
    *,
    padding: Padding,
) -> tuple[Array, int]:
    """``vmap``: of both arguments, more groups; of one of them, a longer axis ``joined[which][0]``, and of the result
    ``joined[which][1]``.
    """
    left, right = axes
    if left is not None and right is not None:
        mapped = jnp.moveaxis(arguments[0], left, 0), jnp.moveaxis(arguments[1], right, 0)
        first, second = (given.reshape(math.prod(given.shape[:2]), *given.shape[2:]) for given in mapped)
        out = _bind(primitive, first, second, padding)
        return out.reshape(*mapped[0].shape[:2], *out.shape[1:]), 0
    which = 0 if right is None else 1
    axis, result = joined[which]
    given = jnp.moveaxis(arguments[which], axes[which] or 0, axis)
    mapped_size, size = given.shape[axis : axis + 2]
    joint = given.reshape(*given.shape[:axis], mapped_size * size, *given.shape[axis + 2 :])
    pair = (joint, arguments[1]) if which == 0 else (arguments[0], joint)
    out = _bind(primitive, *pair, padding)
    return out.reshape(*out.shape[:result], mapped_size, size, *out.shape[result + 1 :]), result


def _define(
    primitive: Primitive,
    shape: Callable[..., ShapedArray],
    on_cpu: Callable[..., Array],
    elsewhere: Callable[..., Array],
    transposes: tuple[Callable[..., Array], Callable[..., Array]],
    joined: tuple[tuple[int, int], tuple[int, int]],
) -> None:
    primitive.def_abstract_eval(shape)
    primitive.def_impl(
        jax.jit(lambda *arguments, padding: primitive.bind(*arguments, padding=padding), static_argnames="padding")
    )
    ad.defbilinear(primitive, *transposes)
    batching.primitive_batchers[primitive] = partial(_batched, primitive, joined)
    lowering = mlir.lower_fun(partial(_together, elsewhere), multiple_results=False)
    mlir.register_lowering(primitive, lowering)
    mlir.register_lowering(primitive, mlir.lower_fun(partial(_in_turn, on_cpu), multiple_results=False), platform="cpu")


_define(
    _convolve,
    _image_shape,
    on_cpu=_conv,
    elsewhere=_conv,
    transposes=(
        lambda cotangent, x, kernel, *, padding: _image_gradient(cotangent, kernel, padding),
        lambda cotangent, x, kernel, *, padding: _bind(_kernel_gradient, x, cotangent, padding),
    ),
    joined=((1, 1), (4, 4)),
)
_define(
    _kernel_gradient,
    _kernel_shape,
    on_cpu=_conv_for_kernel,
    elsewhere=_xla_for_kernel,
    transposes=(
        lambda cotangent, x, y, *, padding: _image_gradient(y, cotangent, padding),
        lambda cotangent, x, y, *, padding: _bind(_convolve, x, cotangent, padding),
    ),
    joined=((4, 3), (4, 4)),
)
