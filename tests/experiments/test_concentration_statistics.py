"""Tails, spectra and representations of the study of concentration, on small Gaussian images."""

import json

import jax
import numpy as np
import pytest

from dgu.core.errors import InputError
from experiments.concentration import representations, spectra, tails
from experiments.concentration.subject import Plan, images_only
from experiments.study import RunDirectory

PARTS = {module.PART.name: module for module in (tails, spectra, representations)}
SHAPE = (8, 8, 1)


def subject(images, real=None):
    classes = tuple(range(len(images)))
    return images_only(images, real, labels=classes, class_names=tuple(f"class {k}" for k in classes))


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


@pytest.fixture(scope="module")
def sections(tmp_path_factory):
    """Each part's smoke preset, once, and its directory."""
    found = {}
    for name, module in PARTS.items():
        config = module.PRESETS["smoke"]
        directory = RunDirectory.open(tmp_path_factory.mktemp(name) / "out", config)
        looked_at = subject(gaussian_images(), gaussian_images(n=40, seed=1))
        found[name] = module.PART.section(config, looked_at, directory, 0), directory
    return found


@pytest.mark.parametrize("name", PARTS)
def test_what_is_declared_is_there(sections, name, monkeypatch):
    section, directory = sections[name]
    part, config = PARTS[name].PART, PARTS[name].PRESETS["smoke"]
    assert [claim.id for claim in section.claims] == [claim.id for claim in part.declared(config)]
    assert [figure.file for figure in section.figures] == [figure.file for figure in part.figures]
    for figure in section.figures:
        assert (directory.path / figure.file).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    for table in section.tables:
        assert all(len(row) == len(table.header) for row in table.rows) and table.rows
    directory.write_json("metrics.json", section.metrics)
    assert json.loads((directory.path / "metrics.json").read_text())
    plan = Plan(None, SHAPE, 2, 64, 18, 100)
    assert all(cost.flop > 0 and cost.memory > 0 for cost in part.costs(part.presets["paper"], plan))
    # The second time everything is read.
    monkeypatch.setattr("experiments.study.run_directory.RunDirectory._write", lambda *_: None)
    again = part.section(config, subject(gaussian_images(), gaussian_images(n=40, seed=1)), directory, 0)
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
    heavy = subject(gaussian_images(n=160, nu=2.5))
    found = tails.class_tails(tails.PRESETS["smoke"], heavy, jax.random.key(0), 0)
    assert found["p"] == 1 / 200 and found["function_p"].min() == found["p"] and len(found["test_names"]) == 6


def test_a_function_that_is_constant_on_one_class_is_left_out_of_that_class_alone():
    """As the largest pixel is where every image of a class has a saturated one."""
    images = gaussian_images(n=64)
    images[1, :, 0, 0] = 4.0
    two = subject(images)
    found = [tails.class_tails(tails.PRESETS["smoke"], two, jax.random.key(0), number) for number in (0, 1)]
    names = [list(one["names"]) for one in found]
    assert "max" in names[0] and "max" not in names[1]
    panels = tails._panels(dict(zip(("first", "second"), found)))
    assert [len(panel.names) for panel in panels] == [len(panel.survival) for panel in panels]
    rows = tails._table(("first", "second"), found).rows
    for row, one, own in zip(rows, found, names):
        leading = one["psi2"][0, own.index("leading 0")]
        assert row[3] == f"{leading / tails.GAUSSIAN_PSI2:.3g}"


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
    for raw, null, corrected in (gaps.values() for gaps in section.metrics["gaps"].values()):
        assert -60 < raw < 60 and -60 < null < 60 and corrected == pytest.approx(raw - null)
    values = {claim.id: claim.value for claim in section.claims}
    for name in representations.NAMES:
        gap = section.metrics["gaps"][name][representations.CORRECTED]
        assert values[f"representations-{name}"] == values[f"representations-{name}-gap"] == gap


def test_intervals_of_representations_hold_the_variation_between_pools():
    """Accuracies that agree within a pool and differ between pools by 3 points of the corrected gap."""
    rng = np.random.default_rng(0)
    accuracy = np.array([0.7, 0.8, 0.85]) + 1e-4 * rng.normal(size=(6, 3))
    between = 0.03 * rng.normal(size=(24, 1, 1)) * np.array([1.0, 0.0, 0.0])
    again = accuracy.mean(axis=0) + between + 1e-4 * rng.normal(size=(24, 2, 3))
    raw, null, corrected = representations._gaps(accuracy, again).values()
    assert raw.value == pytest.approx(-10, abs=0.1) and null.value == pytest.approx(-5, abs=0.1)
    assert corrected.value == pytest.approx(raw.value - null.value)
    for gap in (raw, corrected):
        assert gap.standard_error == pytest.approx(100 * between[:, 0, 0].std(ddof=1), rel=0.01)
    assert null.standard_error < 0.02


def test_representations_need_two_classes_and_do_without_real_images():
    part, config = representations.PART, representations.PRESETS["smoke"]
    assert part.skips(config, subject(gaussian_images(1))) == "it requires two or more classes"
    assert not part.skips(config, subject(gaussian_images()))
    assert part.costs(config, Plan(None, SHAPE, 1, 64, 18, 100)) == []
    found = representations.features(config, subject(gaussian_images()), jax.random.key(0))
    # A third of the samples trains the network and is left out.
    assert found["pixels"].shape == (2, 43, 64) and found["cnn"].shape == (2, 43, 16)
    np.testing.assert_allclose(
        found["pixels"] / found["pixels"][0, 0, 0],
        gaussian_images()[:, 21:].reshape(2, 43, 64) / gaussian_images()[0, 21, 0, 0, 0],
        rtol=1e-4,
    )


@pytest.mark.parametrize("name", PARTS)
def test_too_few_images_are_refused_before_the_work(name):
    module = PARTS[name]
    least, config = module.MIN_IMAGES, module.PRESETS["smoke"]
    module.PART.check(config, subject(gaussian_images(n=least)))
    with pytest.raises(InputError, match=f"^per_class = {least - 1}: must be {least} or more for {name}$"):
        module.PART.check(config, subject(gaussian_images(n=least - 1)))


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        *(("tails", *bad) for bad in (("projections", 0), ("coordinates", -1), ("resamples", 19), ("left_over", 0.0))),
        *(("tails", *bad) for bad in (("control_rows", 199), ("control_sets", 99), ("power_sets", 19), ("pairs", 49))),
        *(("spectra", *bad) for bad in (("draws", 9), ("planted", 19), ("white_sets", 1), ("straight", 0.0))),
        *(("spectra", *bad) for bad in (("exponent_margin", 0.0), ("factor", 1.0), ("eigenvectors", 0))),
        *(("representations", *bad) for bad in (("replicates", 1), ("epochs", 0), ("width", 0), ("margin", 0.0))),
        *(("representations", *bad) for bad in (("resampled_pools", 1), ("resampled_splits", 1), ("draws", 0))),
    ],
)
def test_options_out_of_range(name, option, value):
    with pytest.raises(InputError, match=rf"{name}\.{option} = {value}: must be "):
        PARTS[name].Config(**{option: value})
