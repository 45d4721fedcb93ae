"""The DiT against a slow NumPy computation; its start at the identity; patches; what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dgu.core.errors import InputError
from dgu.models import DAEPreconditioning, DiTConfig, EDMNetwork, EDMPreconditioning
from dgu.models.dit import DiT, from_patches, to_patches
from dgu.models.weights import network_config
from tests import parity

CONFIG = DiTConfig(6, 2, 2, label_dim=3, patch=2, width=8, depth=2, heads=2, mlp_ratio=3)
NETWORK = EDMNetwork(CONFIG, EDMPreconditioning())
DENOISE = jax.jit(lambda denoiser, x, sigma: denoiser(x, sigma))


def random_params(network, seed=0):
    """Every parameter random, those that start at zero too."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape) * 0.4, network.abstract_params)


def dense(p, x):
    return x @ p["kernel"] + p["bias"]


def silu(x):
    return x / (1 + np.exp(-x))


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def norm(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)


def slow_position(row, column, width):
    """[sin, cos] of the row's phases, then of the column's."""
    w = [10000 ** (-i / (width / 4)) for i in range(width // 4)]
    return np.concatenate([f(np.array(w) * at) for at in (row, column) for f in (np.sin, np.cos)])


def slow_dit(p, x, c, label):
    """``F(x; c, label)`` by the formulas of Peebles and Xie, token by token and head by head."""
    cfg, side = CONFIG, CONFIG.img_resolution // CONFIG.patch
    w = 10000.0 ** (-np.arange(cfg.width // 2) / (cfg.width / 2))
    e = np.concatenate([np.cos(c * w), np.sin(c * w)])
    e = dense(p["map1"], silu(dense(p["map0"], e))) + dense(p["map_label"], label)
    tokens = []
    for i in range(side):
        for j in range(side):
            piece = x[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].ravel()
            tokens.append(dense(p["embed"], piece) + slow_position(i, j, cfg.width))
    h = np.stack(tokens)
    for block in (p["blocks"]["block0"], p["blocks"]["block1"]):
        t1, s1, g1, t2, s2, g2 = np.split(dense(block["modulation"], silu(e)), 6)
        q, k, v = np.split(dense(block["qkv"], norm(h) * (1 + s1) + t1), 3, axis=1)
        mixed = np.zeros_like(h)
        for head in range(cfg.heads):
            part = slice(4 * head, 4 * head + 4)
            for token in range(len(h)):
                logits = k[:, part] @ q[token, part] / 2.0
                weights = np.exp(logits - logits.max())
                mixed[token, part] = weights @ v[:, part] / weights.sum()
        h = h + g1 * dense(block["proj"], mixed)
        h = h + g2 * dense(block["mlp1"], gelu(dense(block["mlp0"], norm(h) * (1 + s2) + t2)))
    shift, scale = np.split(dense(p["modulation"], silu(e)), 2)
    flat = dense(p["out"], norm(h) * (1 + scale) + shift)
    out = np.zeros_like(x)
    for number, piece in enumerate(flat):
        i, j = divmod(number, side)
        out[2 * i : 2 * i + 2, 2 * j : 2 * j + 2] = piece.reshape(2, 2, 2)
    return out


def test_dit_equals_a_slow_computation_with_edm_preconditioning_and_without(x64):
    params, rng = random_params(NETWORK), np.random.default_rng(1)
    x, sigma, sd = rng.normal(size=(6, 6, 2)), 0.7, 0.5
    total = sigma**2 + sd**2
    inner = slow_dit(params, x / np.sqrt(total), np.log(sigma) / 4, np.eye(3)[1])
    expected = sd**2 / total * x + sigma * sd / np.sqrt(total) * inner
    got = DENOISE(NETWORK.denoiser(params).given(1), jnp.asarray(x), jnp.float64(sigma))
    assert parity.relative(got, expected) < 1e-12 and np.abs(inner).max() > 0.1
    # As an autoencoder of one level: F itself, of the input as it is or scaled.
    for std, scale in ((None, 1.0), (sd, total**-0.5)):
        plain = EDMNetwork(CONFIG, DAEPreconditioning(input_std=std))
        expected = slow_dit(params, x * scale, sigma, np.zeros(3))
        got = DENOISE(plain.denoiser(params).given(None), jnp.asarray(x), jnp.float64(sigma))
        assert parity.relative(got, expected) < 1e-12


def test_blocks_start_as_the_identity_and_the_network_at_zero():
    params = NETWORK.init(jax.random.key(0))
    x, e = jax.random.normal(jax.random.key(1), (9, 8)), jax.random.normal(jax.random.key(2), (8,))
    graph = nnx.split(nnx.eval_shape(lambda: DiT(CONFIG, None, nnx.Rngs(0))))[0]

    @jax.jit
    def after_each_block(params, x, e):
        blocks = [nnx.merge(graph, params).blocks[f"block{i}"] for i in range(2)]
        return [block(x, e) for block in blocks], [block._attention(x) for block in blocks]

    for after, held_back in zip(*after_each_block(params, x, e)):
        np.testing.assert_array_equal(after, x)
        # Only the gates hold it back.
        assert float(jnp.abs(held_back).max()) > 1e-3
    image = jax.random.normal(jax.random.key(3), (6, 6, 2))
    raw = jax.jit(NETWORK.raw)(params, image, jnp.float32(0.3))
    np.testing.assert_array_equal(raw, jnp.zeros_like(image))
    again = NETWORK.init(jax.random.key(0))
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(again)))


def test_one_example_equals_the_batch_and_gradients_with_remat_equal_those_without():
    params = jax.tree.map(jnp.float32, random_params(NETWORK))
    x = jax.random.normal(jax.random.key(4), (3, 6, 6, 2))
    sigmas = jnp.array([0.1, 1.0, 20.0])
    one, plain = jax.jit(NETWORK.apply), EDMNetwork(CONFIG, DAEPreconditioning())
    thrifty = EDMNetwork(CONFIG, EDMPreconditioning(), remat=True)

    @jax.jit
    def several(params, x, sigmas):
        together = jax.vmap(NETWORK.apply, (None, 0, 0))(params, x, sigmas)
        told = jax.vmap(plain.apply, (None, None, 0))(params, x[0], sigmas)
        slope = [jax.grad(lambda p, n=n: jnp.sum(n.apply(p, x[0], 1.0) ** 2))(params) for n in (NETWORK, thrifty)]
        return together, told, slope

    together, told, (slope, again) = several(params, x, sigmas)
    alone = jnp.stack([one(params, x[i], sigmas[i]) for i in range(3)])
    np.testing.assert_allclose(together, alone, atol=1e-5 * float(jnp.abs(alone).max()))
    # The noise level is told: other levels, other answers, where no coefficient depends on it.
    assert float(jnp.abs(told[0] - told[1]).max()) > 0.05 and float(jnp.abs(told[1] - told[2]).max()) > 0.05
    for a, b in zip(jax.tree.leaves(slope), jax.tree.leaves(again)):
        np.testing.assert_allclose(a, b, atol=1e-4 * (1 + float(jnp.abs(a).max())))


def test_patches_are_cut_row_by_row_and_put_together_again():
    x = np.random.default_rng(0).normal(size=(6, 6, 3)).astype(np.float32)
    tokens = to_patches(jnp.asarray(x), 3)
    for number in range(4):
        i, j = divmod(number, 2)
        np.testing.assert_array_equal(tokens[number], x[3 * i : 3 * i + 3, 3 * j : 3 * j + 3].ravel())
    np.testing.assert_array_equal(from_patches(tokens, 3, 3), x)


@pytest.mark.parametrize(
    ("said", "options"),
    [
        ("patch = 4: must be a divisor of img_resolution = 6", {"patch": 4}),
        ("width = 6: must be a multiple of 4", {"width": 6}),
        ("heads = 3: must be a divisor of width = 64", {"heads": 3}),
        ("depth = 0: must be 1 or more", {"depth": 0}),
        ("label_dropout = 1.0: must be in", {"label_dropout": 1.0}),
    ],
)
def test_what_does_not_fit_is_refused(said, options):
    with pytest.raises(InputError, match=said.replace("[", r"\[")):
        DiTConfig(6, 1, 1, **options)


def test_files_hold_no_transformers():
    with pytest.raises(InputError, match="unet = DiTConfig: must be a U-Net's"):
        network_config(NETWORK)
