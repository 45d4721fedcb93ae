"""A bare JAX program of a U-Net's convolutions and matrix products: how fast the compiler's kernels allow the network
to be.

The same shapes in the same order, each fed by the one before. Left out: normalisation, activations, softmax, biases,
residual sums, preconditioning. Kept, as something must connect the products: the concatenations, pixel repetition and
striding where shapes change, a sum where two products meet, and the residual sum of attention.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dgu.models import EDMNetwork, SongUNetConfig
from dgu.models.unet import UNetConfig

#: What keeps numbers of order one, with no normalisation and no softmax.
_GAINS = {"qkv": 0.3, "proj": 0.01, "affine": 0.1, "skip": 0.7, "conv1": 0.7}


def chain_weights(network: EDMNetwork, dtype: str = "float32") -> dict:
    """Random kernels of the network's shapes, under the network's names; nothing for biases and norms."""
    rng = np.random.default_rng(0)

    def kernels(tree: dict) -> dict:
        out: dict[str, Any] = {}
        for name, leaf in tree.items():
            if not isinstance(leaf, dict):
                continue
            if "kernel" in leaf:
                shape = leaf["kernel"].shape
                values = rng.standard_normal(shape, np.float32)
                out[name] = np.asarray(jnp.asarray(values * _GAINS.get(name, 1.0) * np.prod(shape[:-1]) ** -0.5, dtype))
            else:
                out[name] = kernels(leaf)
        return out

    return kernels(network.abstract_params)


def _conv(kernel: Array, x: Array) -> Array:
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _attention(block: dict, x: Array, heads: int) -> Array:
    n, h, w, _ = x.shape
    q, k, v = jnp.split(_conv(block["qkv"], x).reshape(n, h * w, heads, -1), 3, axis=-1)
    logits = jnp.einsum("nqhd,nkhd->nhqk", q, k)
    out = jnp.einsum("nhqk,nkhd->nqhd", logits, v).reshape(x.shape)
    return x + _conv(block["proj"], out)


def evaluation(config: UNetConfig, weights: dict, x: Array, level: Array, labels: Array) -> Array:
    """One evaluation's products for a batch (N, H, W, C), all at one noise level."""
    song = isinstance(config, SongUNetConfig)
    width = config.model_channels * (config.channel_mult_noise if isinstance(config, SongUNetConfig) else 1)
    e = jnp.full((len(x), width), level, x.dtype)
    told = labels @ weights["map_label"] if config.label_dim else 0
    e = (e + told if song else e) @ weights["map_layer0"] @ weights["map_layer1"]
    e = e if song else e + told

    def run(block: dict, spec: Any, x: Array) -> Array:
        if spec.resample == "down":
            x = x[:, ::2, ::2]
        elif spec.resample == "up":
            x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
        p = e @ block["affine"]
        p = p if song else sum(jnp.split(p, 2, axis=-1))
        h = _conv(block["conv1"], _conv(block["conv0"], x) + p[:, None, None])
        x = h + _conv(block["skip"], x) if "skip" in block else h
        return _attention(block, x, spec.heads) if spec.heads else x

    skips, aux = [], x
    for name, spec in config.encoder:
        x = _conv(weights["enc"][name], x) if isinstance(spec, int) else run(weights["enc"][name], spec, x)
        residual = weights["enc"].get(f"{name.split('_')[0]}_aux_residual")
        if name.endswith("_down") and residual is not None:
            x = aux = x + _conv(residual, aux)[:, ::2, ::2]
        skips.append(x)
    for name, spec, takes_skip in config.decoder:
        if takes_skip:
            x = jnp.concatenate([x, skips.pop()], axis=-1)
        x = run(weights["dec"][name], spec, x)
    if song:
        return _conv(weights["dec"][f"{config.img_resolution}x{config.img_resolution}_aux_conv"], x)
    return _conv(weights["out_conv"], x)
