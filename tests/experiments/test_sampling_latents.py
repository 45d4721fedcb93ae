"""Images of a network of latents, by an autoencoder of diffusers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from dgu.core import keys
from dgu.core.errors import InputError
from dgu.data.export import to_uint8
from dgu.models import ADMConfig, EDMNetwork, decoded, load_autoencoder_kl, load_checkpoint, save_network, unscaled
from experiments import sample
from experiments.sampling import SamplerConfig, image_maker
from tests.models import diffusers_folders

FAST = "--preset smoke --sampler.num-steps 2 --sampler.batch-size 2 --seeds 0-1".split()


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    return diffusers_folders.unpacked(tmp_path_factory.mktemp("recorded")) / "vae"


@pytest.fixture(scope="module")
def network(tmp_path_factory, vae):
    """A network of latents of 4 x 4 pixels, with as many channels as the autoencoder's."""
    channels = load_autoencoder_kl(vae).config.latent_channels
    made = EDMNetwork(
        ADMConfig(4, channels, channels, model_channels=4, channel_mult=(1,), num_blocks=1, attn_resolutions=())
    )
    path = tmp_path_factory.mktemp("net") / "network.npz"
    save_network(path, made, made.init(jax.random.key(0)), {})
    return path


def test_scales_of_latents(vae):
    autoencoder = load_autoencoder_kl(vae)
    raw = np.random.default_rng(0).normal(size=(3, 2, 2, 4)).astype(np.float32)
    factor, shift = autoencoder.config.scaling_factor, autoencoder.config.shift_factor or 0.0
    np.testing.assert_array_equal(unscaled(autoencoder, raw, "none"), raw)
    np.testing.assert_allclose(unscaled(autoencoder, factor * (raw - shift), "diffusers"), raw, rtol=1e-5, atol=1e-6)
    # Mean and deviation of the channels, which EDM2 takes to 0 and 1/2.
    mean, std = np.float32([5.81, 3.25, 0.12, -2.15]), np.float32([4.17, 4.62, 3.71, 3.28])
    np.testing.assert_allclose(unscaled(autoencoder, (raw - mean) * 0.5 / std, "edm2"), raw, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match=r"latents.shape"):
        unscaled(autoencoder, raw[..., :3], "edm2")


def test_samples_of_latents_become_images(network, vae, tmp_path):
    command = [*FAST, "--checkpoint", str(network), "--decoder", str(vae), "--latents", "edm2"]
    sample.main([*command, "--out", str(tmp_path / "out")])
    assert f"decoder = {str(vae)!r}" in json.loads((tmp_path / "out/inputs.json").read_text())
    autoencoder, model = load_autoencoder_kl(vae), load_checkpoint(network)
    make = image_maker(model, SamplerConfig(num_steps=2, batch_size=2))
    latents = make(keys.stream(keys.seeded(0), "sample"), None, np.arange(2))
    expected = to_uint8(decoded(autoencoder, latents, "edm2"))
    assert expected.shape[1:] == (4 * autoencoder.config.step, 4 * autoencoder.config.step, 3)
    # One latent by itself, without the loop over several.
    alone = autoencoder.decode(jnp.asarray(unscaled(autoencoder, latents, "edm2")[1]))
    np.testing.assert_allclose(alone, decoded(autoencoder, latents, "edm2")[1], atol=1e-4)
    for seed in range(2):
        found = np.asarray(Image.open(tmp_path / "out/images" / f"{seed:06d}.png"))
        assert np.abs(found.astype(int) - expected[seed]).max() <= 1  # Rounding of what is truncated.
    assert len(np.unique(expected)) > 10


def test_a_dry_run_counts_the_decoder(network, vae, tmp_path, capsys):
    sample.main([*FAST, "--checkpoint", str(network), "--decoder", str(vae), "--dry-run"])
    assert any(line.startswith("decoding") for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("--latents edm2", "--latents = 'edm2': must be left out without a decoder"),
        ("--decoder nowhere", "sample: --decoder = 'nowhere': nowhere"),
        ("--decoder {vae} --format store", "must be left out with --format store"),
        ("--decoder {vae} --checkpoint fashion-mnist-14", "must be an autoencoder with 1 channels of latents"),
        ("", "--format = 'png': must be store for images of 4 channels"),
    ],
)
def test_latents_that_cannot_be_shown_are_refused(network, vae, tmp_path, capsys, options, line):
    given = [] if "--checkpoint" in options else ["--checkpoint", str(network)]
    with pytest.raises(SystemExit) as ended:
        sample.main([*FAST, *given, *options.format(vae=vae).split(), "--out", str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.count("\n") == 1 and line in error, error
    assert not (tmp_path / "out/images").exists()
