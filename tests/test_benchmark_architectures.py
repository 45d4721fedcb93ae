"""The comparison of two networks: of denoisers whose measures are known, and of figures that are known, the tables."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from benchmarks import architectures, pretrained
from benchmarks.page_tables import put
from dgu import data

CONFIG = architectures.made_small(architectures.Config())


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Shrink:
    """``D(x, sigma) = x / (1 + sigma^2) + shift`` of each class, linear where ``shift`` is 0."""

    shift: float = 0.0
    label_dim: int = dataclasses.field(default=10, metadata={"static": True})

    def given(self, label):
        return self

    def __call__(self, x, sigma):
        return x / (1 + sigma**2) + self.shift


@pytest.fixture
def figures(monkeypatch, capsys):
    """Of a linear map in place of both networks, on the bundled images."""
    about = {"parameters": 1000, "images_seen": 256, "flop_an_image": 2e9, "training_processor_seconds": 90.0}
    monkeypatch.setattr(architectures, "trained", lambda *given: (Shrink(), about))
    return architectures.measured(dataclasses.replace(CONFIG, quick=True))


def test_a_linear_map_in_place_of_both_networks(figures):
    first, second = figures["networks"].values()
    assert first == second and figures["images"] == 200
    assert figures["linearity_difference"] == [[0, 0, 0]] * len(architectures.SIGMAS)
    np.testing.assert_allclose(np.asarray(first["linearity"])[:, 0], 0, atol=1e-6)
    np.testing.assert_allclose(np.asarray(first["asymmetry"])[:, 0], 0, atol=1e-6)
    tests = data.load("fashion-mnist-mini", "test", 14)
    used = np.concatenate([tests.images[tests.labels == label][: 2 * CONFIG.pairs] for label in range(10)])
    sigma = np.asarray(architectures.SIGMAS)
    scale = 1 / (1 + sigma**2)
    expected = (1 - scale) ** 2 * np.mean(used**2) + scale**2 * sigma**2
    np.testing.assert_allclose(np.asarray(first["error"])[:, 0], expected, rtol=0.03)
    # Normal noise is farther from the images than other images are.
    assert first["frechet_distance"][1] > figures["held_out"]["frechet_distance"][2]
    assert first["kid"][1] > figures["held_out"]["kid"][2]


def test_a_map_with_a_constant_is_not_linear():
    """``a D(x1) + b D(x2)`` has the constant ``sqrt(2)`` times, the combination once."""
    rows = np.zeros((10, 8, 14, 14, 1), np.float32)
    found = architectures.by_level(Shrink(0.5), rows, CONFIG)
    assert found["bent"].shape == (len(architectures.SIGMAS), 10 * CONFIG.pairs)
    # D = sigma eps / (1 + sigma^2) + 1/2 at the level 0.3: the squares of its parts, and the cosine that they make.
    noise, constant = (0.3 / 1.09) ** 2, 0.25
    cosine = (noise + 2**0.5 * constant) / ((noise + constant) * (noise + 2 * constant)) ** 0.5
    assert found["bent"][1].mean() == pytest.approx(1 - cosine, rel=0.05)


def test_the_tables_of_the_networks(figures):
    text = "\n".join(architectures.lines(figures))
    assert "| ADM | 1,000 | 256 | 2.00 | 1.5 |" in text and "| held-out images | - | - | - | - |" in text
    assert text.count("| squared error |") == text.count("| asymmetry |") == len(architectures.SIGMAS)
    read = {name: {**one, "training_processor_seconds": None} for name, one in figures["networks"].items()}
    assert "| EDM2 | 1,000 | 256 | 2.00 | - |" in "\n".join(architectures.lines({**figures, "networks": read}))
    assert json.loads(json.dumps(figures)) == figures


def test_sizes_that_the_images_do_not_allow_are_refused():
    for sizes in ({"per_class": 101}, {"per_class": 5}, {"pairs": 11}, {"pairs": 1}):
        with pytest.raises(SystemExit, match=r"per_class = .*: must be 10 to 100"):
            architectures.measured(dataclasses.replace(CONFIG, quick=True, **sizes))


@pytest.mark.parametrize("module", [architectures, pretrained], ids=["architectures", "pretrained"])
def test_the_pages_have_their_marks(module):
    text = module.PAGE.read_text()
    start, end = module.MARKS
    assert text.count(start) == text.count(end) == 1
    made = put(text, module.MARKS, ["one", "two"])
    assert f"{start}\n\none\ntwo\n\n{end}" in made and put(made, module.MARKS, ["one", "two"]) == made


def test_variances_of_a_posterior_mean_and_of_a_flow_map():
    """Of a Gaussian ``s^2`` and 1, as the page says."""
    config = pretrained.Config(images=32)
    images = 0.5 * np.random.default_rng(0).standard_normal((32, 16, 16, 1), np.float32)
    scale = np.sqrt(0.25 / (0.25 + np.square(pretrained.SIGMAS)))
    for power, expected in ((2, scale**2), (1, np.ones(4))):
        denoiser = jax.tree_util.Partial(lambda power, x, sigma: (0.25 / (0.25 + sigma**2)) ** (power / 2) * x, power)
        found = pretrained.variances(denoiser, images, config)
        np.testing.assert_allclose(found.value, expected, rtol=0.06)
        assert (found.low <= found.value).all() and (found.high - found.low < 0.2 * expected).all()
