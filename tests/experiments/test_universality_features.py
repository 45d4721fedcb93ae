"""The study on features in place of pixels: a file of the pixels themselves, a network's layer, random convolutions."""

import json

import numpy as np
import pytest

from experiments.universality import STUDY
from experiments.universality.features import dimension
from tests.experiments.universality_study import (
    CLAIM_IDS,
    CLASSES,
    FIGURE_FILES,
    TINY,
    images,
    save_images,
    save_tiny_network,
    study,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    home = tmp_path_factory.mktemp("features")
    pixels, labels = images(24)
    # In an order in which classes are mixed: rows of features belong to places in the file.
    order = np.random.default_rng(5).permutation(len(labels))
    save_images(home / "samples.npz", pixels[order], labels[order], class_names=np.asarray(CLASSES))
    save_images(home / "real.npz", *images(24, seed=1), class_names=np.asarray(CLASSES))
    save_images(home / "other.npz", *images(30, seed=2), class_names=np.asarray(CLASSES))
    np.save(home / "pixels.npy", 3 * pixels[order].reshape(len(pixels), -1))
    return home


def gathered(folder, out, *more):
    """What a run would study; no classifier is trained."""
    reached = []

    def stop(config, directory):
        reached.append(STUDY.gather(config, directory))
        # What the option says of the dimension holds for what is computed.
        assert (
            reached[0].examples.rows.shape[-1]
            == reached[0].dimension
            == dimension(config, reached[0].samples.shape[2:])
        )
        raise KeyboardInterrupt

    command = [
        *TINY,
        "--samples",
        folder / "samples.npz",
        "--size",
        "None",
        "--real-split",
        "train",
        "--out",
        out,
        *more,
    ]
    with pytest.raises(KeyboardInterrupt):
        study(*command, run=stop)
    (subject,) = reached
    return subject


def test_a_file_of_pixels_gives_pixels_in_their_place(folder, tmp_path):
    """Up to one factor: the root mean square of all is taken out."""
    plain = gathered(folder, tmp_path / "plain", "--real", "None")
    found = gathered(folder, tmp_path / "given", "--features", folder / "pixels.npy", "--real", "None")
    assert found.real is None and found.dimension == plain.dimension == 36
    pixels = plain.examples.rows
    np.testing.assert_allclose(found.examples.rows, pixels / np.sqrt(np.mean(pixels**2)), rtol=1e-5)
    np.testing.assert_array_equal(found.samples, plain.samples)
    # Computed once: the second time it is read.
    again = gathered(folder, tmp_path / "given", "--features", folder / "pixels.npy", "--real", "None")
    np.testing.assert_array_equal(again.examples.rows, found.examples.rows)


def test_features_of_sampled_images_come_class_by_class(folder, tmp_path):
    save_tiny_network(tmp_path / "network.npz")
    rows = np.arange(4 * 22 * 3, dtype=np.float32).reshape(-1, 3)
    np.save(tmp_path / "rows.npy", rows)
    sampler = "--samples None --sampler.num-steps 2 --sampler.batch-size 22 --real None".split()
    more = (*sampler, "--checkpoint", tmp_path / "network.npz", "--features", tmp_path / "rows.npy")
    found = gathered(folder, tmp_path / "out", *more)
    np.testing.assert_allclose(found.examples.rows.reshape(-1, 3), rows / np.sqrt(np.mean(rows**2)), rtol=1e-5)


def test_network_trained_on_spared_or_on_other_real_images(folder, tmp_path):
    more = ("--features", "cnn", "--cnn.epochs", "2", "--cnn.width", "2", "--real", folder / "real.npz")
    half = gathered(folder, tmp_path / "half", *more)
    rows = half.examples.rows
    assert half.dimension == 16 and rows.shape == (4, 22, 16) and half.examples.real.shape == (4, 12, 16)
    # The real images that are left are the second half of each class.
    pixels, labels = images(24, seed=1)
    np.testing.assert_allclose(half.real[2], pixels[labels == 2][12:], atol=1e-6)
    assert np.isfinite(rows).all() and rows.min() == 0
    more = (*more, "--cnn.images", folder / "other.npz", "--classes", "2", "0", "--class-sets", "None")
    other = gathered(folder, tmp_path / "other", *more)
    assert other.examples.rows.shape == (2, 22, 16) and other.examples.real.shape == (2, 24, 16)
    assert other.class_names == ("south", "north")


@pytest.mark.slow
def test_random_convolutions_through_the_whole_study(folder, tmp_path):
    command = ["--features", "random-conv", "--real", folder / "real.npz", "--real-split", "train", "--size", "None"]
    study(*TINY, "--samples", folder / "samples.npz", "--out", tmp_path, *command)
    metrics, page = json.loads((tmp_path / "metrics.json").read_text()), (tmp_path / "report.html").read_text()
    assert {claim["id"] for claim in json.loads((tmp_path / "claims.json").read_text())} == set(CLAIM_IDS)
    assert all((tmp_path / file).exists() for file in FIGURE_FILES)
    assert metrics["arms"] == ["diffusion", "mixture", "null", "low rank", "real"] and metrics["dimension"] == 128
    assert "number of pixels or features" in page and "represented by 128 random-conv features each" in page
    # The bright side of an image is still to be seen in them; chance is 25 %.
    assert metrics["accuracy"]["accuracy"]["all-classes"]["mean"][0][-1] > 40
    with np.load(tmp_path / "stages/features.npz") as stored:
        assert stored["samples"].shape == (4, 22, 128) and stored["real"].shape == (4, 24, 128)


def test_dry_run_knows_the_dimension(folder, tmp_path, capsys):
    command = [*TINY, "--samples", folder / "samples.npz", "--real", "None", "--dry-run", "--out", tmp_path / "out"]
    tables = []
    for features in ("pixels", "random-conv", folder / "pixels.npy"):
        study(*command, "--features", features)
        tables.append(capsys.readouterr().out)
    assert tables[0] == tables[2] != tables[1]
