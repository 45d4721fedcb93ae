"""FLOP of traced functions against counts by hand."""

import jax
import jax.numpy as jnp
from flax import nnx

from dgu.models import DiTConfig, EDMNetwork, EDMPreconditioning
from dgu.models.convolution import Conv, convolve
from dgu.models.resampling import upsample, upsampled_conv
from experiments.study.flop import matmul_flop, network_flop


def shape(*lengths):
    return jax.ShapeDtypeStruct(lengths, jnp.float32)


def test_products_and_convolutions():
    assert matmul_flop(lambda a, b: jax.nn.relu(a @ b) + 1, shape(3, 5), shape(5, 7)) == 2 * 3 * 5 * 7
    assert (
        matmul_flop(lambda a, b: jnp.einsum("nij,njk->nik", a, b), shape(4, 3, 5), shape(4, 5, 7)) == 4 * 2 * 3 * 5 * 7
    )

    def grouped(groups):
        return lambda x, w: jax.lax.conv_general_dilated(
            x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
        )

    assert matmul_flop(grouped(1), shape(2, 8, 8, 6), shape(3, 3, 6, 10)) == 2 * (2 * 8 * 8 * 10) * (9 * 6)
    assert matmul_flop(grouped(6), shape(2, 8, 8, 6), shape(3, 3, 1, 6)) == 2 * (2 * 8 * 8 * 6) * 9


def test_gradients_of_convolutions_count_each_product_once():
    def total(x, kernel):
        return jnp.sum(convolve(x, kernel, ((1, 1), (1, 1))) ** 2)

    forward = 2 * (2 * 8 * 8 * 10) * (9 * 6)
    given = shape(2, 8, 8, 6), shape(3, 3, 6, 10)
    assert matmul_flop(total, *given) == forward
    # The image's gradient sums over 10 channels for each of 6, the kernel's over 2 * 64 pixels for each of 540 entries.
    assert matmul_flop(jax.grad(total, (0, 1)), *given) == 3 * forward
    assert matmul_flop(jax.vmap(total), shape(5, 2, 8, 8, 6), shape(5, 3, 3, 6, 10)) == 5 * forward


def test_loops_branches_and_nested_functions():
    product = 2 * 4**3

    def looped(a):
        step = jax.jit(lambda b, _: (jnp.where(b > 0, b @ a, b), None))
        return jax.lax.scan(step, a, length=5)[0]

    assert matmul_flop(looped, shape(4, 4)) == 5 * product
    branch = lambda a: jax.lax.cond(a[0, 0] > 0, lambda b: b @ b, lambda b: b @ b @ b, a)  # noqa: E731
    assert matmul_flop(branch, shape(4, 4)) == 2 * product
    assert matmul_flop(jax.checkpoint(jax.jit(lambda a: a @ a)), shape(4, 4)) == product
    assert matmul_flop(jax.vmap(lambda a: a @ a), shape(9, 4, 4)) == 9 * product


def test_shortcuts_count_as_what_was_published():
    kernel = Conv(6, 10, (3, 3), rngs=nnx.Rngs(0))
    doubled = 2 * (16 * 16 * 10) * (9 * 6)
    assert matmul_flop(lambda x: upsampled_conv(kernel, x), shape(8, 8, 6)) == doubled
    assert matmul_flop(lambda x: kernel(upsample(x)[None])[0], shape(8, 8, 6)) == doubled


def test_a_network_costs_what_its_trace_does():
    network = EDMNetwork(DiTConfig(4, 1, 1, 3, patch=2, width=8, depth=1, heads=2), EDMPreconditioning())
    params, image, level = network.abstract_params, shape(4, 4, 1), shape()
    label = jax.ShapeDtypeStruct((), jnp.int32)
    assert network_flop(network) == matmul_flop(network.apply, params, image, level, label)
