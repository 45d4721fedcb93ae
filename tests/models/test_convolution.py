"""The convolution against sums written out in NumPy, and all of its transformations against XLA's convolution."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from dgu.core.errors import InputError
from dgu.core.parallel import data_mesh
from dgu.models.convolution import Conv, convolve, same_padding

EVEN, ODD = ((1, 1), (1, 1)), ((1, 0), (0, 2))


def written_out(x, kernel, padding):
    """Sums over taps and channels, pixel by pixel, of images (N, H, W, C)."""
    x = np.pad(x, ((0, 0), *padding, (0, 0)))
    rows, columns = (side - taps + 1 for side, taps in zip(x.shape[1:3], kernel.shape[:2]))
    out = np.empty((len(x), rows, columns, kernel.shape[-1]))
    for i in range(rows):
        for j in range(columns):
            window = x[:, i : i + kernel.shape[0], j : j + kernel.shape[1]]
            out[:, i, j] = np.tensordot(window, kernel, axes=([1, 2, 3], [0, 1, 2]))
    return out


def by_xla(x, kernel, padding):
    """One image's convolution as JAX has it."""
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x[None], kernel, (1, 1), padding, dimension_numbers=layout)[0]


@settings(max_examples=10, deadline=None)
@given(
    count=st.integers(1, 3),
    size=st.tuples(st.integers(3, 6), st.integers(3, 6)),
    taps=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
)
def test_values_and_both_gradients_are_sums_over_taps(count, size, taps, channels, pads):
    rng = np.random.default_rng(0)
    padding = (pads[:2], pads[2:])
    with jax.enable_x64(True):
        x, kernel = rng.normal(size=(count, *size, channels[0])), rng.normal(size=(*taps, *channels))
        expected = written_out(x, kernel, padding)
        out, back = jax.vjp(partial(convolve, padding=padding), jnp.asarray(x), jnp.asarray(kernel))
        np.testing.assert_allclose(out, expected, atol=1e-12)
        # The transposes by their definition: <y, A x> = <A^T y, x>, for every x and every kernel of a basis.
        y = rng.normal(size=expected.shape)
        for found, argument in zip(back(jnp.asarray(y)), (0, 1)):
            given = [x, kernel]
            slopes = np.empty(given[argument].size)
            for number in range(len(slopes)):
                unit = np.zeros(len(slopes))
                unit[number] = 1
                given[argument] = unit.reshape(np.shape(found))
                slopes[number] = np.sum(y * written_out(*given, padding))
            np.testing.assert_allclose(np.ravel(found), slopes, atol=1e-11)


def loss(conv, kernel, x):
    """A scalar in which images and kernel do not enter linearly."""
    return jnp.sum(jnp.tanh(jax.vmap(conv, (0, None))(jnp.tanh(x), kernel)))


def looped(conv, kernel, x):
    """The same convolution three times in a scan, nothing kept for the gradient."""
    wide = jnp.concatenate([kernel] * 2, -1)[..., :3]
    step = jax.checkpoint(lambda z: jnp.tanh(conv(jnp.pad(z, ((0, 2), (0, 2), (0, 0))), wide)[:7, :6]))
    return jnp.sum(jax.lax.scan(lambda z, _: (step(z), None), x[0], length=3)[0])


TRANSFORMED = {
    "vmap over images": lambda c, k, x: jax.vmap(c, (0, None))(x, k),
    "vmap over kernels": lambda c, k, x: jax.vmap(c, (None, 0))(x[0], jnp.stack([k, 2 * k, k**2])),
    "vmap over both": lambda c, k, x: jax.vmap(jax.vmap(c, (0, None)))(jnp.stack([x, x**2]), jnp.stack([k, k**2])),
    "other axes": lambda c, k, x: jax.vmap(c, (3, 3), 1)(jnp.stack([x[0], x[1]], 3), jnp.stack([k, k**2], 3)),
    "gradient": lambda c, k, x: jax.grad(partial(loss, c), (0, 1))(k, x),
    "gradients for each example": lambda c, k, x: jax.vmap(jax.grad(lambda k, x: loss(c, k, x[None])), (None, 0))(k, x),
    "gradients for each kernel": lambda c, k, x: jax.vmap(jax.grad(partial(loss, c), (0, 1)), (0, None))(
        jnp.stack([k, k**2]), x
    ),
    "gradients for each of both": lambda c, k, x: jax.vmap(jax.grad(partial(loss, c), (0, 1)))(
        jnp.stack([k, k**2]), jnp.stack([x, x**2])
    ),
    "forward over reverse": lambda c, k, x: jax.jvp(jax.grad(partial(loss, c), (0, 1)), (k, x), (k**2, x**2)),
    "reverse over reverse": lambda c, k, x: jax.grad(
        lambda k, x: sum(jnp.sum(g**3) for g in jax.grad(partial(loss, c), (0, 1))(k, x)), (0, 1)
    )(k, x),
    "third derivative": lambda c, k, x: jax.jacfwd(jax.hessian(lambda s: loss(c, k * s, x * s)))(1.3),
    "Jacobian forwards": lambda c, k, x: jax.jacfwd(c, (0, 1))(x[0], k),
    "Jacobian backwards": lambda c, k, x: jax.jacrev(c, (0, 1))(x[0], k),
    "linearize": lambda c, k, x: jax.linearize(c, x[0], k)[1](x[1], k**2),
    "scan and remat": lambda c, k, x: jax.grad(partial(looped, c))(k, x),
}


@pytest.mark.parametrize(
    "name, padding", [(name, EVEN) for name in TRANSFORMED] + [("gradient", ODD), ("forward over reverse", ODD)]
)
def test_transformations_are_those_of_xlas_convolution(x64, name, padding):
    rng = np.random.default_rng(1)
    x, kernel = jnp.asarray(rng.normal(size=(3, 7, 6, 3))), jnp.asarray(rng.normal(size=(3, 3, 3, 5)))
    if name == "other axes":
        kernel = kernel[..., :3]
    run = jax.jit(partial(TRANSFORMED[name]), static_argnums=0)
    found = run(partial(convolve, padding=padding), kernel, x)
    expected = run(partial(by_xla, padding=padding), kernel, x)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
        assert ours.shape == theirs.shape and float(jnp.abs(theirs).max()) > 0
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-11)


def test_dtypes_and_more_axes_in_front():
    x = jax.random.normal(jax.random.key(0), (2, 3, 6, 6, 4))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 4, 9))
    wide = convolve(x, kernel, EVEN)
    np.testing.assert_array_equal(wide[1, 2], convolve(x[1, 2], kernel, EVEN))
    half = convolve(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16), EVEN)
    assert half.dtype == jnp.bfloat16
    # Two roundings to eight digits of each of 36 products, and one of their sum.
    np.testing.assert_allclose(half.astype(jnp.float32), wide, atol=0.02 * float(jnp.abs(wide).max()))


def test_networks_side_by_side_have_the_bits_of_each_alone():
    """Several kernels are a loop on CPUs, so that training many networks as one program changes none of them."""
    x = jax.random.normal(jax.random.key(0), (3, 8, 10, 10, 16))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 16, 16)) * 0.1
    of_one = jax.grad(partial(loss, partial(convolve, padding=EVEN)))
    together = jax.jit(jax.vmap(of_one))(kernel, x)
    alone = jnp.stack([jax.jit(of_one)(kernel[place], x[place]) for place in range(3)])
    assert float(jnp.abs(alone).max()) > 0
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_programs_for_other_machines(platform):
    """Exported programs hold no operation of ours; on accelerators gradients are in the layout that XLA knows."""
    slope = jax.grad(partial(loss, partial(convolve, padding=EVEN)))

    def text(function, *given):
        return jax.export.export(jax.jit(function), platforms=[platform])(*given).mlir_module()

    one = text(slope, jnp.ones((3, 3, 3, 5)), jnp.ones((3, 7, 6, 3)))
    several = text(jax.vmap(slope), jnp.ones((2, 3, 3, 3, 5)), jnp.ones((2, 3, 7, 6, 3)))
    for program in (one, several):
        assert "stablehlo.convolution" in program and "stablehlo.custom_call" not in program
    # JAX's gradient by the kernel takes the images' channels for examples by name, ours moves them.
    assert ("[f, 0, 1, b]x" in one) == (platform != "cpu")
    assert ("stablehlo.while" in several) == (platform == "cpu")


@pytest.mark.parametrize("checked", [True, False])
def test_gradients_in_and_around_a_shard_map(x64, checked):
    rng = np.random.default_rng(2)
    x, kernel = jnp.asarray(rng.normal(size=(4, 5, 5, 2))), jnp.asarray(rng.normal(size=(3, 3, 2, 8)))
    mesh, spec = data_mesh(jax.devices()[:2]), jax.P("data")
    spread = partial(jax.shard_map, mesh=mesh, in_specs=(jax.P(), spec), check_vma=checked)
    slopes = []
    for conv in (by_xla, convolve):
        one = partial(loss, partial(conv, padding=EVEN))
        # Of what is checked, JAX sums the gradient by the kernel over the devices; else each has its own.
        inside = spread(jax.grad(one), out_specs=jax.P() if checked else spec)
        around = jax.grad(
            lambda k, one=one: spread(lambda k, x: jax.lax.psum(one(k, x), "data"), out_specs=jax.P())(k, x)
        )
        slopes.append((inside(kernel, x), around(kernel)))
    for ours, theirs in zip(slopes[1], slopes[0]):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(slopes[1][1], jax.grad(one)(kernel, x), rtol=1e-11, atol=1e-11)


def test_no_images_and_no_pixels():
    kernel = jnp.ones((3, 3, 2, 8))
    none = jnp.ones((0, 5, 5, 2))
    assert jax.vmap(lambda x: convolve(x, kernel, EVEN))(none).shape == (0, 5, 5, 8)
    slope = jax.grad(lambda k: jax.vmap(lambda x: convolve(x, k, EVEN))(none).sum())(kernel)
    np.testing.assert_array_equal(slope, jnp.zeros_like(kernel))
    assert convolve(jnp.ones((5, 6, 2)), jnp.ones((9, 9, 2, 8)), EVEN).shape == (0, 0, 8)


def test_what_the_layer_cannot_do_is_refused():
    for options in ({"strides": 2}, {"padding": "VALID"}, {"mask": jnp.ones((3, 3, 4, 8))}):
        with pytest.raises(InputError, match="options"):
            Conv(4, 8, (3, 3), rngs=nnx.Rngs(0), **options)
    with pytest.raises(InputError, match="kernel_size = \\(2, 3\\): must be odd numbers"):
        Conv(4, 8, (2, 3), rngs=nnx.Rngs(0))


@pytest.mark.parametrize("out", [3, 8])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_the_layer_is_flaxes_layer(out, size):
    ours = Conv(4, out, (size, size), rngs=nnx.Rngs(0))
    theirs = nnx.Conv(4, out, (size, size), padding=size // 2, rngs=nnx.Rngs(0))
    ours.bias[...] = theirs.bias[...] = jax.random.normal(jax.random.key(2), (out,))
    x = jax.random.normal(jax.random.key(1), (2, 7, 5, 4))
    assert same_padding(ours.kernel[...]) == ((size // 2,) * 2,) * 2
    np.testing.assert_allclose(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ours(x[0]), theirs(x)[0], rtol=1e-5, atol=1e-5)
    bare = Conv(4, out, (size, size), use_bias=False, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(bare(x) + ours.bias[...][None, None, None], ours(x), rtol=1e-6, atol=1e-6)
