"""Networks with random, nowhere-zero weights for the tests, in our form and under the reference's names."""

import jax
import numpy as np

from dgu.models.weights import network_config, network_from_config, params_to_arrays

SMALL = {
    "img_resolution": 8,
    "img_channels": 3,
    "label_dim": 5,
    "augment_dim": 9,
    "model_channels": 8,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [4],
    "dropout": 0.0,
}


def random_arrays(config, seed=0):
    """Weights for ``config`` under the reference's names: unit gain, so that activations stay of order one."""
    network = network_from_config(config)
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        kind = path[-1].key
        if kind == "u":
            return network.preconditioning.table
        values = rng.normal(size=leaf.shape)
        if kind == "kernel":
            values /= np.sqrt(np.prod(leaf.shape[:-1]))
        else:
            values = values * 3 if kind == "freqs" else 0.2 * values + (kind == "scale")
        return values.astype(np.float32)

    return params_to_arrays(jax.tree_util.tree_map_with_path(draw, network.abstract_params))


def full_kwargs(config):
    """All constructor arguments, defaults filled in."""
    return network_config(network_from_config(config))["kwargs"]


def inner(arrays):
    """The U-Net's weights, without the prefix."""
    return {name.removeprefix("model."): value for name, value in arrays.items()}
