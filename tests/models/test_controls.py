"""Networks that have learned nothing: the skip alone, and random parameters in place of the trained ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.core.denoisers import map_batch
from dgu.models import (
    ADMConfig,
    EDM2Config,
    EDMNetwork,
    EDMPreconditioning,
    IDDPMPreconditioning,
    SkipDenoiser,
    SongUNetConfig,
    VPPreconditioning,
    untrained,
)
from dgu.testing import check_denoiser

KEY = jax.random.key(8)
SIGMAS = np.array([40.0, 1.0, 0.02], np.float32)
IMAGES = np.asarray(jax.random.normal(jax.random.key(1), (3, 8, 8, 1)))
ADM = EDMNetwork(ADMConfig(8, 1, 1, 3, model_channels=8, channel_mult=(1,), num_blocks=1, attn_resolutions=()))
SONG = EDMNetwork(SongUNetConfig(8, 1, 1, model_channels=8, channel_mult=(1,), num_blocks=1, attn_resolutions=()))

EDM2 = EDMNetwork(
    EDM2Config(8, 1, 1, label_dim=3, model_channels=8, channel_mult=(1,), num_blocks=1, attn_resolutions=())
)


def test_the_skip_is_edms_and_a_new_adm_is_that_skip():
    skip = SkipDenoiser(EDMPreconditioning(sigma_data=0.4))
    for sigma in (3.0, 0.02):
        np.testing.assert_allclose(skip(IMAGES[0], sigma), 0.16 / (sigma**2 + 0.16) * IMAGES[0], rtol=1e-6)
    np.testing.assert_array_equal(SkipDenoiser(VPPreconditioning())(IMAGES[0], 2.0), IMAGES[0])
    check_denoiser(skip, (8, 8, 1), KEY)
    new = ADM.denoiser(ADM.init(KEY)).given(1)
    expected = map_batch(SkipDenoiser(ADM.preconditioning), IMAGES, SIGMAS)
    np.testing.assert_allclose(map_batch(new, IMAGES, SIGMAS), expected, rtol=1e-6)


@pytest.mark.parametrize("network", [ADM, SONG, EDM2], ids=["adm", "song", "edm2"])
def test_an_untrained_network_keeps_what_is_not_learned_and_adds_something_of_ordinary_size(network):
    """Its own output F, over ``c_out``, is neither 0 (ADM, EDM2) nor 1e-5 (SongUNet), whose other parameters are fresh."""
    trained = network.denoiser(jax.tree.map(jnp.ones_like, network.init(jax.random.key(2))))
    trained = trained if network is SONG else trained.given(2)
    fresh = untrained(trained, KEY)
    assert fresh.network is trained.network and fresh.label is trained.label
    c = network.preconditioning.coefficients(jnp.asarray(SIGMAS))
    skipped = map_batch(SkipDenoiser(network.preconditioning), IMAGES, SIGMAS)
    own = (map_batch(fresh, IMAGES, SIGMAS) - skipped) / np.asarray(c.out)[:, None, None, None]
    size = np.sqrt(np.mean(np.square(own), axis=(1, 2, 3)))
    assert ((size > 0.01) & (size < 10)).all(), size
    # All other parameters are those of a new network of this key.
    usual = dict(jax.tree_util.tree_leaves_with_path(network.init(KEY)))
    redrawn = [
        jax.tree_util.keystr(path, simple=True, separator=".")
        for path, leaf in jax.tree_util.tree_leaves_with_path(fresh.params)
        if not np.array_equal(leaf, usual[path])
    ]
    assert redrawn and all(name.endswith("gain" if network is EDM2 else "kernel") for name in redrawn), redrawn
    if network is EDM2:
        return
    assert {name.split(".")[-2] for name in redrawn} <= {"conv1", "out_conv", "aux_conv", "proj", "8x8_aux_conv"}


def test_the_noise_levels_of_improved_ddpm_are_kept():
    unet = ADMConfig(8, 1, 2, model_channels=8, channel_mult=(1,), num_blocks=1, attn_resolutions=())
    network = EDMNetwork(unet, IDDPMPreconditioning(M=10))
    params = network.init(KEY)
    levels = 1.5 * params["u"]
    np.testing.assert_array_equal(untrained(network.denoiser(params | {"u": levels}), KEY).params["u"], levels)
