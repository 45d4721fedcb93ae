"""The networks that ``hidden_gaussian`` trains: their images, their initial noise, and closed forms in their place."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from dgu.distributions.bases import initial_noise
from dgu.models import EmpiricalDenoiser, GaussianDenoiser
from experiments.hidden_gaussian import networks
from experiments.hidden_gaussian.trainer import Measured, identity, measure
from experiments.study.inputs import Inputs, recording
from tests.experiments.hidden_networks import tiny, write_sources


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return write_sources(tmp_path_factory.mktemp("sources"))


def test_all_arms_start_from_the_same_noise(sources):
    lab = tiny(sources)
    # A denoiser that leaves its input alone has slope 0: its samples are their own starts.
    starts = [
        lab.draw(Partial(identity), arm) for arm in (lab.arm(4, 0), lab.arm(20, 1, 4), lab.arm(4, 0, family="adm-edm"))
    ]
    wanted = np.stack([80 * np.asarray(initial_noise(lab.key("samples"), index, (6, 6, 1))) for index in range(5)])
    for found in starts:
        np.testing.assert_array_equal(found, starts[0])
    np.testing.assert_allclose(starts[0], wanted, rtol=1e-5)


def test_images_of_an_arm(sources):
    lab = tiny(sources)
    few, many, other = (lab.subset(lab.arm(size, seed)) for size, seed in ((4, 0), (24, 0), (24, 1)))
    np.testing.assert_array_equal(few, many[:4])
    every = np.concatenate([many, other]).reshape(48, -1)
    # Of 48 images two halves are all of them.
    np.testing.assert_array_equal(np.unique(every, axis=0), np.unique(lab.images.train.reshape(48, -1), axis=0))
    assert lab.training(lab.arm(4, 0)).seed != lab.training(lab.arm(4, 1)).seed
    assert lab.training(lab.arm(4, 0)).seed == lab.training(lab.arm(20, 0, 4)).seed
    # A baseline's preconditioning brings its loss and its range of noise.
    baseline = lab.arm(4, 0, family="ncsnpp-ve")
    assert lab.training(baseline).loss == "ve" and lab.sigmas(baseline)[-2] == pytest.approx(0.02)
    assert lab.network(baseline).unet.embedding_type == "fourier"


def test_closed_forms_in_the_place_of_networks(sources):
    lab = tiny(sources, steps=20)
    arm, sigmas = lab.arm(8, 0), lab.sigmas(lab.arm(8, 0))[:-1]

    def measured(denoiser):
        return Measured(0, sigmas, **measure(lab, denoiser, arm))

    points = measured(EmpiricalDenoiser(lab.subset(arm)))
    # What memorises makes training images; with them come the rows of the arm's images that they are.
    assert points.summary["score"] < 1e-3
    np.testing.assert_allclose(points.samples, lab.subset(arm)[points.nearest], atol=1e-2)
    own, whole = measured(lab.gaussian(arm)), measured(lab.whole)
    assert own.summary["own"] < 1e-6 and whole.summary["whole"] < 1e-6
    # All pairs of these three distances are of the same two Gaussians.
    np.testing.assert_allclose(own.whole, whole.own, atol=1e-6)
    assert own.summary["score"] > 0.1 and points.summary["own"] > 0.01
    assert points.own.shape == (4, 12)
    assert points.summary["least_cosine"] <= own.summary["least_cosine"] <= 1
    # The projection on few images' span leaves the rest of a clean image out.
    fit = GaussianDenoiser.fit(lab.subset(arm))
    centred = (lab.images.held[:12] - np.asarray(fit.mean)).reshape(12, -1)
    rest = centred - centred @ fit.basis @ fit.basis.T
    np.testing.assert_allclose(own.moved[-1], np.sqrt((rest**2).mean(axis=1)), rtol=0.05)


def test_gaussians_of_all_sizes_have_one_shape(sources):
    lab = tiny(sources)
    x = jnp.asarray(lab.images.held[0])
    for size in (4, 20, 48):
        arm = lab.arm(size, 0)
        padded, plain = lab.gaussian(arm), GaussianDenoiser.fit(lab.subset(arm))
        assert padded.basis.shape == lab.whole.basis.shape
        np.testing.assert_allclose(padded(x, 0.3), plain(x, 0.3), atol=1e-6)


def test_padding_means_and_halves(sources):
    first = networks.gather(
        networks.Config(
            data=sources[1], heldout_data=sources[3], heldout_split="train", pad=0, size=None, held_out=4, pairs=2
        )
    )
    halved = replace(
        networks.Config(), data=sources[1], split="train", heldout_split="train", pad=1, size=4, held_out=4, pairs=2
    )
    second = networks.gather(halved)
    assert (
        first.train.shape == (48, 6, 6, 1)
        and second.train.shape == (24, 4, 4, 1)
        and second.held.shape == (24, 4, 4, 1)
    )
    # The border is black, and means are over whole blocks.
    stored = np.load(sources[1])["images"]
    np.testing.assert_allclose(second.train[1, 0, 0, 0], (3 * -1 + stored[2, 0, 0, 0]) / 4, rtol=1e-5)


def test_a_second_run_in_one_process_notes_what_it_reads(sources, tmp_path):
    config = replace(
        networks.Config(), data=sources[1], split="train", heldout_split="train", pad=0, size=None, held_out=4, pairs=2
    )
    records = {}
    for name in ("one", "two"):
        inputs = Inputs(tmp_path / f"{name}.json", lambda record, name=name: records.setdefault(name, record))
        with recording(inputs):
            assert networks.gather(config) is networks.gather(config)  # Read once.
    assert records["one"] == records["two"] and sources[1] in str(records["two"])
