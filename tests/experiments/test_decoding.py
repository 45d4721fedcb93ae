"""What studies show of images that are latents: decoded where there is a decoder, else their first channel."""

from types import SimpleNamespace

import numpy as np
import pytest

from dgu import plots
from dgu.core.errors import InputError
from dgu.models import decoded, load_autoencoder_kl
from experiments import audit, concentration, hidden_gaussian, molrg, sample, universality
from experiments.audit import images as audit_images
from experiments.audit.sets import Images, clipped
from experiments.decoding import Decoder, DecoderOptions, decoder_of, pictures
from experiments.molrg import images as molrg_images
from experiments.universality import samples as universality_samples
from tests.models import diffusers_folders

#: Two classes of four latents of 4 x 4 pixels.
LATENTS = np.random.default_rng(0).normal(size=(2, 4, 4, 4, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    return str(diffusers_folders.unpacked(tmp_path_factory.mktemp("recorded")) / "vae")


@pytest.fixture(scope="module")
def decoder(vae):
    return decoder_of(DecoderOptions(decoder=vae, latents="edm2"), (4, 4, 4))


@pytest.fixture(scope="module")
def expected(vae):
    """The images of LATENTS."""
    return decoded(load_autoencoder_kl(vae), LATENTS.reshape(8, 4, 4, 4), "edm2")


def test_latents_are_decoded_or_shown_by_their_first_channel(decoder, expected):
    assert isinstance(decoder, Decoder) and decoder.shape == expected.shape[1:] and decoder.shape[-1] == 3
    np.testing.assert_allclose(pictures(LATENTS, decoder).reshape(expected.shape), expected, atol=1e-5)
    np.testing.assert_array_equal(pictures(LATENTS), LATENTS[..., :1])
    for channels in (1, 3):
        np.testing.assert_array_equal(pictures(LATENTS[..., :channels]), LATENTS[..., :channels])
    assert decoder_of(DecoderOptions(), (4, 4, 4)) is None


def test_the_cost_of_decoding_is_that_of_its_products(decoder):
    one, many = decoder.cost(1, (4, 4, 4)), decoder.cost(10, (4, 4, 4))
    # The last convolution alone: 3 x 3 taps of each of its output's numbers.
    assert one.flop > 2 * 9 * np.prod(decoder.shape) and many.flop == pytest.approx(10 * one.flop)
    assert many.memory == one.memory > 4 * np.prod(decoder.shape)


def drawn(monkeypatch):
    """The images that are drawn from now on."""
    found = []
    monkeypatch.setattr(plots, "image_grid", lambda images, *labels, **options: found.append(images) or "drawing")
    return found


def test_studies_draw_decoded_images(monkeypatch, decoder, expected):
    found = drawn(monkeypatch)
    subject = SimpleNamespace(decoder=decoder, class_names=("a", "b"))
    universality_samples.report(None, subject, {"diffusion": LATENTS, "mixture": LATENTS})
    np.testing.assert_allclose(found[-1][:, 4:].reshape(expected.shape), expected, atol=1e-5)

    flat, labels = LATENTS.reshape(8, 4, 4, 4), np.repeat([0, 1], 4)
    sides = SimpleNamespace(samples=Images(flat, labels), reference=Images(flat, labels), **vars(subject))
    grid, names = audit_images._grid(sides)
    assert names == ["a", "b"]
    np.testing.assert_allclose(grid[:, :4].reshape(expected.shape), expected, atol=1e-5)

    one = SimpleNamespace(
        name="data", subject=subject, images={molrg_images.NETWORK: LATENTS[0], molrg_images.MIXTURE: LATENTS[1]}
    )
    molrg_images._pictures(SimpleNamespace(shown=4), [one])
    np.testing.assert_allclose(found[-1].reshape(expected.shape), expected, atol=1e-5)


def test_samples_are_cut_at_black_and_white_and_latents_are_not():
    np.testing.assert_array_equal(clipped(LATENTS[0]), LATENTS[0])
    np.testing.assert_array_equal(clipped(3 * LATENTS[0, ..., :3]), np.clip(3 * LATENTS[0, ..., :3], -1, 1))


@pytest.mark.parametrize("study", [audit, hidden_gaussian, molrg, universality, sample])
def test_studies_with_pictures_of_images_have_the_options(study, vae):
    config = study.STUDY.config if hasattr(study, "STUDY") else study.Config
    assert config(decoder=vae, latents="edm2").latents == "edm2"
    with pytest.raises(InputError, match="latents = 'edm2': must be left out without a decoder"):
        config(latents="edm2")
    assert not hasattr(concentration.STUDY.config(), "decoder")  # Its pictures are of eigenvectors.


@pytest.mark.parametrize(
    ("options", "shape", "line"),
    [
        ({}, (4, 4, 3), "decoder = .*: must be an autoencoder with 3 channels of latents, as the network makes them"),
        ({"decoder": "nowhere"}, (4, 4, 4), "decoder = 'nowhere': nowhere"),
    ],
)
def test_a_decoder_that_does_not_fit_is_refused_in_one_line(vae, options, shape, line):
    with pytest.raises(InputError, match=line) as caught:
        decoder_of(DecoderOptions(**{"decoder": vae, **options}), shape)
    assert "\n" not in str(caught.value)
