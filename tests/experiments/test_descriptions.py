"""What reports say of data and networks before their claims: from files and options, with the pictures of the run."""

import dataclasses
import html
from math import prod

import numpy as np
import pytest
from PIL import Image

from dgu.data import SampleStore
from dgu.models import Pretrained, load_checkpoint
from experiments import descriptions, study
from experiments.descriptions import in_pictures, network_in_words, stored_samples
from experiments.sampling import SamplerConfig
from experiments.study.materials import FILE, Materials, in_turn, strip
from experiments.study.run_directory import DPI, RunDirectory
from experiments.subjects import UNTRAINED, load
from tests.experiments.test_study import Shared, make


@dataclasses.dataclass(frozen=True)
class Config:
    seed: int = 0


def test_a_network_is_described_by_its_file():
    import jax

    found = load_checkpoint("fashion-mnist-14")
    count = sum(prod(leaf.shape) for leaf in jax.tree.leaves(found.denoiser.params))
    said = network_in_words("fashion-mnist-14", found, " guided by itself at weight 2")
    assert said == (
        f"The network fashion-mnist-14 guided by itself at weight 2 is a U-Net of ADM with {count:,} parameters for "
        "images of 14 x 14 x 1 numbers, that is told which of 10 classes to make. By its file it was trained on the "
        "60,000 images of fashion-mnist (train), reduced to 14 x 14 pixels, and saw 1,050,112 in all, each counted as "
        "often as it came."
    )


@pytest.mark.parametrize("metadata", [{}, {"data": None}, {"data": {"name": 3, "images": 5}}, {"data": {"name": "x"}}])
def test_a_file_that_says_nothing_usable_of_its_training_is_not_believed(metadata):
    found = Pretrained(load(UNTRAINED).denoiser, metadata)
    assert network_in_words("other.npz", found).endswith("Its file does not say what it was trained on.")
    assert network_in_words(UNTRAINED, found).endswith("Its weights are random: what it makes means nothing.")


def test_images_are_described_by_the_options():
    @dataclasses.dataclass
    class Options:
        samples: str | None = None
        sampler: SamplerConfig = SamplerConfig(num_steps=9, churn=2.5)  # noqa: RUF009
        real: str = "auto"
        real_split: str = "test"

    shape = (3, 40, 8, 8, 1)
    said = descriptions.class_samples_in_words(shape, Options())
    assert said == (
        "40 samples of each of 3 classes, 8 x 8 x 1 numbers each, were drawn from it by 9 steps of EDM's sampler with "
        "churn 2.5."
    )
    given = descriptions.class_samples_in_words(shape, Options("mine.npz"))
    assert given == "Studied are the images of mine.npz: 40 of each of 3 classes, 8 x 8 x 1 numbers each."
    real = descriptions.class_images_in_words(np.zeros(shape), Options())
    assert real == "Real images beside them: 40 of each of 3 classes of fashion-mnist-mini (test), 8 x 8 pixels."
    assert descriptions.class_images_in_words(None, Options()) == ""


def test_pictures_are_of_all_classes_in_turn_and_of_samples_that_are_stored(tmp_path):
    images = np.arange(3.0)[:, None, None, None, None] + np.arange(5.0)[None, :, None, None, None] / 10
    assert np.allclose(in_turn(np.broadcast_to(images, (3, 5, 2, 2, 1)), 7)[:, 0, 0, 0], [0, 1, 2, 0.1, 1.1, 2.1, 0.2])
    directory = RunDirectory.open(tmp_path / "run", Config())
    assert len(stored_samples(directory, (4, 2))) == 0 and not (directory.path / "samples").exists()
    store = SampleStore.open(directory.path / "samples", {}, (2, 2, 1))
    for label in (2, 4):
        store.write(label, 0, np.full((5, 2, 2, 1), label) + np.arange(5.0)[:, None, None, None] / 10)
    shown = stored_samples(directory, (4, 2))[:, 0, 0, 0]
    assert np.allclose(shown, [4, 2, 4.1, 2.1, 4.2, 2.2, 4.3, 2.3, 4.4, 2.4])
    assert in_pictures({"none": np.empty(0), "latents": np.zeros((30, 2, 2, 4))})["latents"].shape == (10, 2, 2, 1)


def test_rows_of_a_strip_end_in_white():
    drawn = strip({"many": -np.ones((12, 6, 6, 1)), "few": -np.ones((2, 6, 6, 1))})
    canvas = drawn.axes[0].images[0].get_array()
    dark = [float((canvas[row] < 0).mean()) for row in (0, -1)]
    assert dark[0] == pytest.approx(5 * dark[1]) and canvas.max() == 1


def test_the_report_says_what_it_is_of_before_its_claims(tmp_path, capsys):
    def describe(config: Shared, subject: float, directory: RunDirectory) -> Materials:
        assert len(directory.stored("draws/draw")["x"]) == 4 and directory.stored("draws/none") == {}
        return Materials("The <data> and so on.", {"noise": np.zeros((3, 4, 4, 1))})

    whole = dataclasses.replace(
        make([]), describe=describe, introduce=lambda config, subject: study.Findings("How it was looked at.")
    )
    whole.main(["--preset", "smoke", "--out", str(tmp_path / "run")])
    page = (tmp_path / "run" / "report.html").read_text()
    places = [page.index(words) for words in (
        "4 draws.", "<h2>Data and network</h2>", html.escape("The <data> and so on."), "How it was looked at.", FILE,
        "<h2>Claims</h2>",
    )]  # fmt: skip
    assert places == sorted(places)
    with Image.open(tmp_path / "run" / FILE) as image:
        assert image.info["dpi"] == pytest.approx((DPI, DPI), abs=0.01)
        shown = round(image.width / DPI * 130)
    assert f'width="{shown}" alt="Some images of each kind' in page
    capsys.readouterr()
