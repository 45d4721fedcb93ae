"""The networks that ``hidden_gaussian`` trains: their images, their initial noise, and closed forms in their place."""

from dataclasses import replace
from itertools import pairwise

import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from dgu.distributions.bases import initial_noise
from dgu.models import EmpiricalDenoiser, GaussianDenoiser
from experiments.hidden_gaussian import networks, sweep_maps, sweep_pictures
from experiments.hidden_gaussian.trainer import Measured, identity, measure
from experiments.study import Run, RunDirectory
from experiments.study.inputs import Inputs, recording
from tests.experiments.hidden_networks import tiny, write_sources


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return write_sources(tmp_path_factory.mktemp("sources"))


def test_all_arms_start_from_the_same_noise(sources):
    lab = tiny(sources)
    # A denoiser that leaves its input alone has slope 0: its samples are their own starts.
    starts = [
        lab.draw(Partial(identity), arm)[0]
        for arm in (lab.arm(4, 0), lab.arm(20, 1, 4), lab.arm(4, 0, family="adm-edm"))
    ]
    wanted = np.stack([80 * np.asarray(initial_noise(lab.key("samples"), index, (6, 6, 1))) for index in range(5)])
    for found in starts:
        np.testing.assert_array_equal(found, starts[0])
    np.testing.assert_allclose(starts[0], wanted, rtol=1e-5)


def test_samples_are_of_ten_euler_steps_and_the_last_denoised_state(sources):
    """A Gaussian's steps, one by one in float64: x + (s' - s) (x - D(x)) / s."""
    lab = tiny(sources, steps=10)
    arm = lab.arm(20, 0)
    found, paths = lab.draw(lab.gaussian(arm), arm)
    points = lab.subset(arm).reshape(20, -1).astype(np.float64)
    mean, covariance = points.mean(axis=0), np.cov(points.T, bias=True)
    levels = lab.sigmas(arm, 10)
    assert levels[1] == pytest.approx(42.415189318512674) and levels[-2] == pytest.approx(0.002)
    x = levels[0] * np.asarray(initial_noise(lab.key("samples"), 3, (6, 6, 1)), np.float64).ravel()
    for step, (sigma, after) in enumerate(pairwise(levels)):
        clean = mean + covariance @ np.linalg.solve(covariance + sigma**2 * np.eye(36), x - mean)
        np.testing.assert_allclose(paths[3, step].ravel(), clean, atol=2e-4)
        x = x + (after - sigma) * (x - clean) / sigma
    np.testing.assert_allclose(found[3].ravel(), x, atol=2e-4)
    np.testing.assert_allclose(found, paths[:, -1], atol=1e-6)
    # Heun's method makes others of the same noise.
    second, _ = tiny(sources, steps=10, method="heun").draw(lab.gaussian(arm), arm)
    assert 1e-3 < np.abs(second - found).mean() < 0.3


def test_pictures_and_linear_maps_of_known_denoisers(sources, tmp_path, monkeypatch):
    """In the place of each network stands the Gaussian of its images."""
    lab = tiny(sources)
    for module in (sweep_pictures, sweep_maps):
        monkeypatch.setattr(module, "load", lambda design, directory, arm, step=None: design.gaussian(arm))
    run = Run(RunDirectory.open(tmp_path / "run", lab.config), 0, "sweeps")
    found = sweep_pictures.denoised(lab, run, [4, 24], [lab.arm(4, 0, 4), lab.arm(4, 0)])
    assert found.sigma == lab.sigmas(lab.arm(4, 0))[1] and found.high == lab.sigmas(lab.arm(4, 0))[0]
    gaussian, inputs = GaussianDenoiser.fit(lab.subset(lab.arm(24, 0))), found.inputs
    np.testing.assert_allclose(inputs["noisy"] - inputs["clean"], found.sigma * inputs["noise"], atol=1e-5)
    for kind, sigma in (("noisy", found.sigma), ("pure", found.sigma), ("high", found.high)):
        for name in (sweep_pictures.of_size("network", 24), sweep_pictures.of_size("Gaussian", 24)):
            np.testing.assert_allclose(
                found.outputs[f"{kind}_{name}"][2], gaussian(inputs[kind][2], sigma), atol=1e-4 * sigma
            )
    assert {f"high_{name}" for name in ("width-4", "width-8", "time-0", "time-1")} <= found.outputs.keys()
    # The best linear map of a Gaussian is the Gaussian; at low noise eight images tell little of it.
    arm = lab.arm(24, 0)
    apart = sweep_maps.linear_distances(lab, run, arm, 8, 60)
    assert apart["network_gaussian"].max() < 1e-5 and apart["linear_gaussian"][:2].max() < 0.05
    model = sweep_maps.linear_model(lab, run, arm, 8, 60)
    np.testing.assert_allclose(model["path"][0], lab.draw(lab.gaussian(arm), arm)[1][0, 0], atol=0.05)
    turned = np.abs((model["left"] * model["components"]).sum(axis=(1, 2, 3)))
    assert turned[0] > 0.99
    course = sweep_maps.adam_course(lab, run, arm, 8, 4, 4)
    np.testing.assert_allclose(course["nmse"][0], 1)
    # At the highest level the Gaussian's map is smaller than a step.
    assert course["epochs"].tolist() == [0, 1, 2, 3, 4] and (course["nmse"][-1, 1:] < 1).all()


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
    arm = lab.arm(8, 0)

    def measured(denoiser):
        return Measured(0, **lab.levels(arm), **measure(lab, denoiser, arm))

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
    clean = lab.images.held[:12].reshape(12, -1)
    size, left = np.linalg.norm(clean, axis=1), np.linalg.norm(clean - rest, axis=1)
    np.testing.assert_allclose(own.moved[-1], np.linalg.norm(rest, axis=1) / size, rtol=0.05)
    np.testing.assert_allclose(own.along[-1], (clean * (clean - rest)).sum(axis=1) / (size * left), atol=0.01)


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
