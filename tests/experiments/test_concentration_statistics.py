"""Tails, spectra and representations of the study of concentration, on small Gaussian images: what is promised is there and is right."""

import importlib
import json

import jax
import numpy as np
import pytest

from dgu.core.errors import InputError
from dgu.samplers import Churn
from experiments.concentration_parts.subject import Plan, Subject
from experiments.study.run_directory import RunDirectory

PARTS = ("tails", "spectra", "representations")
SHAPE = (8, 8, 1)


def subject(images, real=None):
    classes = tuple(range(len(images)))
    names = tuple(f"class {k}" for k in classes)
    return Subject(None, False, SHAPE, classes, names, None, Churn(), None, 100, images, real)


def gaussian_images(classes=2, n=64, seed=0, nu=None):
    """Gaussian images of two means with variances k^-1 along random directions; or with a common Student-t radius."""
    rng = np.random.default_rng(7)
    basis = np.linalg.qr(rng.normal(size=(64, 64)))[0] * np.arange(1, 65)[:, None] ** -0.5
    means = 0.1 * rng.normal(size=(classes, 1, 64))
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(classes, n, 64)) @ basis * 0.3
    if nu is not None:
        rows /= np.sqrt(rng.chisquare(nu, (classes, n, 1)) / nu)
    return (means + rows).reshape(classes, n, *SHAPE).astype(np.float32)


def part(name):
    return importlib.import_module(f"experiments.concentration_parts.{name}")


@pytest.fixture(scope="module")
def sections(tmp_path_factory):
    """Each part's smoke preset, once, and its directory."""
    jax.config.update("jax_disable_most_optimizations", True)
    found = {}
    try:
        for name in PARTS:
            config = part(name).PRESETS["smoke"]
            directory = RunDirectory.open(tmp_path_factory.mktemp(name) / "out", config)
            found[name] = (
                part(name).run(config, subject(gaussian_images(), gaussian_images(n=40, seed=1)), directory, 0),
                directory,
            )
    finally:
        jax.config.update("jax_disable_most_optimizations", False)
    return found


@pytest.mark.parametrize("name", PARTS)
def test_what_is_promised_is_there(sections, name, monkeypatch):
    section, directory = sections[name]
    module = part(name)
    assert tuple(claim.id for claim in section.claims) == module.CLAIM_IDS
    assert tuple(figure.file for figure in section.figures) == module.FIGURE_FILES
    for file in module.FIGURE_FILES:
        assert (directory.path / file).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    for table in section.tables:
        assert all(len(row) == len(table.header) for row in table.rows) and table.rows
    directory.write_json("metrics.json", section.metrics)
    assert json.loads((directory.path / "metrics.json").read_text())
    plan = Plan(None, SHAPE, 2, 64, 18, 100)
    assert all(cost.flop > 0 and cost.memory > 0 for cost in module.costs(module.PRESETS["paper"], plan))
    # The second time everything is read.
    monkeypatch.setattr("experiments.study.run_directory.RunDirectory._write", lambda *_: None)
    again = module.run(module.PRESETS["smoke"], subject(gaussian_images(), gaussian_images(n=40, seed=1)), directory, 0)
    assert [claim.to_json() for claim in again.claims] == [claim.to_json() for claim in section.claims]


def test_gaussian_images_have_gaussian_tails(sections):
    claims = {claim.id: claim for claim in sections["tails"][0].claims}
    assert claims["tails-as-gaussian"].verdict == "supported" and len(claims["tails-as-gaussian"].parts) == 2
    assert claims["tails-bound"].value < 0.02
    assert claims["coupling-concentrates"].verdict == "not supported"
    assert claims["coupling-independent"].verdict == "supported"
    assert claims["tails-test-power"].value == 1 and 0 < claims["tails-test-size"].value < 0.15
    metrics = sections["tails"][0].metrics
    # The scale: 0.3 times the largest singular value of the basis, within its sampling deviation of 9 % from 56 rows.
    np.testing.assert_allclose(np.array(metrics["scale"])[:, 0], 0.3, rtol=0.3)


def test_heavy_tails_are_found():
    module, heavy = part("tails"), gaussian_images(1, n=160, nu=2.5)[0]
    found = module._class_tails(module.PRESETS["smoke"], jax.random.key(0), heavy, 0, 2)
    assert found["p"] == 1 / 200 and found["function_p"].min() == found["p"] and len(found["test_names"]) == 6


def test_spectra_of_gaussian_images(sections):
    section = sections["spectra"][0]
    claims = {claim.id: claim for claim in section.claims}
    assert claims["spectra-gram-identity"].verdict == "supported" and claims["spectra-gram-identity"].value < 1e-8
    assert claims["spectra-planted"].value > 0.7
    low, high = np.array(section.metrics["exponent"]["samples"])[:, 1:].T
    assert ((low < 1.0) & (1.0 < high)).any() and section.metrics["range"] == [3, 8]
    assert set(section.metrics["exponent"]) == {"samples", "mixture", "null", "real"}
    # With a leading eigenvalue of 64 / H_64 = 13 times the mean, sixth moments are 13^3 times white data's.
    assert claims["assumption-moments"].verdict == "not supported"
    assert claims["assumption-moments"].value == pytest.approx((64 / np.sum(1 / np.arange(1, 65))) ** 3, rel=0.9)


def test_representations_compare_three(sections):
    section = sections["representations"][0]
    assert section.metrics["dimension"] == {"pixels": 64, "cnn": 16, "random-conv": 128}
    assert all(-60 < gap < 60 for gaps in section.metrics["gaps"].values() for gap in gaps)


def test_representations_need_two_classes_and_do_without_real_images(tmp_path):
    module = part("representations")
    config = module.PRESETS["smoke"]
    assert module.run(config, subject(gaussian_images(1)), RunDirectory.open(tmp_path / "one", config), 0) is None
    assert module.costs(config, Plan(None, SHAPE, 1, 64, 18, 100)) == []
    directory = RunDirectory.open(tmp_path / "two", config)
    found = module._features(config, jax.random.key(0), subject(gaussian_images()))
    # A third of the samples trains the network and is left out.
    assert found["pixels"].shape == (2, 43, 64) and found["cnn"].shape == (2, 43, 16)
    np.testing.assert_allclose(
        found["pixels"] / found["pixels"][0, 0, 0],
        gaussian_images()[:, 21:].reshape(2, 43, 64) / gaussian_images()[0, 21, 0, 0, 0],
        rtol=1e-4,
    )
    assert not (directory.path / "stages").exists()


@pytest.mark.parametrize("name", PARTS)
def test_too_few_images_are_refused_before_the_work(name):
    module = part(name)
    least, config = module.MIN_IMAGES, module.PRESETS["smoke"]
    module.check(config, least)
    with pytest.raises(InputError, match=f"^per_class = {least - 1}: must be {least} or more for {name}$"):
        module.check(config, least - 1)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("tails", "projections", 0), ("tails", "coordinates", -1), ("tails", "resamples", 19), ("tails", "left_over", 0.0),
        ("tails", "control_rows", 199), ("tails", "control_sets", 99), ("tails", "power_sets", 19), ("tails", "pairs", 49),
        ("spectra", "draws", 9), ("spectra", "planted", 19), ("spectra", "white_sets", 1), ("spectra", "straight", 0.0),
        ("spectra", "exponent_margin", 0.0), ("spectra", "factor", 1.0), ("spectra", "eigenvectors", 0),
        ("representations", "replicates", 1), ("representations", "epochs", 0), ("representations", "width", 0),
        ("representations", "margin", 0.0), ("representations", "max_standard_error", 0.0),
    ],
)  # fmt: skip
def test_options_out_of_range(name, option, value):
    with pytest.raises(InputError, match=rf"{name}\.{option} = {value}: must be "):
        part(name).Config(**{option: value})
