"""Clocks of an audit: a law whose level of collapse is known, a network that repeats its training images, and one that
does not."""

import dataclasses
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from dgu.models import EmpiricalDenoiser, GaussianDenoiser
from experiments import clocks as shared
from experiments.audit import STUDY, clocks
from experiments.audit.sets import Images
from experiments.audit.subject import Subject
from experiments.study.run_directory import RunDirectory

SIDE = 6
VARIANCES = np.geomspace(2.0, 0.05, SIDE**2)
CONFIG = dataclasses.replace(clocks.PRESETS["smoke"], images=2000, risks=60, returned=60, steps=8)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Ranged:
    """A closed form with the range of noise levels that a network has."""

    law: Any
    sigma_min = 0.002
    sigma_max = 80.0

    def __call__(self, x, sigma):
        return self.law(x, sigma)


def draw(count, seed):
    rows = np.random.default_rng(seed).normal(size=(count, SIDE**2)) * np.sqrt(VARIANCES)
    return rows.reshape(count, SIDE, SIDE, 1).astype(np.float32)


TRAIN, HELD, SAMPLES = draw(2000, 0), draw(100, 1), draw(100, 2)


def own_law(variances=VARIANCES):
    """The denoiser of the law that all images are drawn from, which saw none of them; or with other variances."""
    basis = np.eye(SIDE**2, dtype=np.float32)
    return GaussianDenoiser(np.zeros((SIDE, SIDE, 1), np.float32), basis, variances)


REFERENCE, HELD_OUT = Images(TRAIN, None), Images(HELD, None)


def section(tmp_path, law, train=REFERENCE, held=HELD_OUT, config=CONFIG):
    """The part on reference and held-out images of one Gaussian, with a network that is a closed form."""
    network = law and SimpleNamespace(
        denoiser=Ranged(law), network=SimpleNamespace(shape=(SIDE, SIDE, 1), unet=SimpleNamespace(label_dim=0))
    )
    subject = Subject(Images(SAMPLES, None), train, held, network=network)
    directory = RunDirectory.open(tmp_path / "run", STUDY.presets["smoke"])
    found = clocks.PART.section(config, subject, directory, 0)
    return found, {claim.id: claim for claim in found.claims}


def test_the_level_of_collapse_of_a_gaussian_is_that_of_its_law(tmp_path):
    found, claims = section(tmp_path, None)
    level = found.metrics["collapse onto reference images"]
    assert np.log1p(VARIANCES / level**2).sum() == pytest.approx(2 * np.log(2000), rel=0.02)
    assert claims["audit-collapse"].verdict == "supported"
    assert claims["audit-returns"].verdict == "not applicable" and "no network was given" in found.answer


@pytest.mark.parametrize("memorises", [True, False])
def test_a_network_that_repeats_its_training_images_brings_them_back(tmp_path, memorises):
    found, claims = section(tmp_path, EmpiricalDenoiser(TRAIN) if memorises else own_law())
    value = claims["audit-returns"].value
    if memorises:
        # Nearly all of the weight is the image's own at half the level of collapse.
        assert value > 0.95 and claims["audit-returns"].verdict == "not supported"
    else:
        assert abs(value - 0.5) < 0.15 and claims["audit-returns"].verdict != "not supported"
    assert "closer" in found.metrics


def test_the_order_of_a_file_does_not_make_its_images_return(tmp_path):
    """A law that draws all images together brings faint ones back nearer: the first of a file that is sorted so."""
    order = np.argsort(np.square(TRAIN).sum(axis=(1, 2, 3)))
    _, claims = section(tmp_path, own_law(0.05 + 0 * VARIANCES), train=Images(TRAIN[order], None))
    assert abs(claims["audit-returns"].value - 0.5) < 0.15


def test_images_of_one_labelled_class_have_no_clocks_of_classes(tmp_path):
    three = Images(TRAIN, np.full(len(TRAIN), 3)), Images(HELD, np.full(len(HELD), 3))
    found, claims = section(tmp_path, own_law(), *three)
    assert not any("speciation" in name for name in found.metrics)
    assert claims["audit-collapse"].verdict == "supported"


def test_a_covariance_of_few_images_gives_no_verdict_on_collapse(tmp_path):
    _, claims = section(tmp_path, None, config=dataclasses.replace(CONFIG, images=2 * SIDE**2 - 1))
    assert claims["audit-collapse"].verdict == "not applicable"


def test_returns_need_a_level_that_the_network_takes(tmp_path, monkeypatch):
    monkeypatch.setattr(Ranged, "sigma_max", 0.1)
    monkeypatch.setattr(clocks, "_LEVELS", (0.01, 32.0))
    found, claims = section(tmp_path, EmpiricalDenoiser(TRAIN))
    assert claims["audit-returns"].verdict == "not applicable"
    assert "takes noise levels from 0.002 to 0.1, and not" in found.answer


def test_classes_come_in_turn():
    labels = np.array([2, 2, 2, 0, 0, 1])
    assert shared.in_turn(labels, 4).tolist() == [0, 3, 5, 1]
    assert shared.in_turn(labels, 99).tolist() == [0, 3, 5, 1, 4, 2]


def test_those_at_risk_are_ranked_by_their_weight_at_the_level_of_collapse():
    weights = np.random.default_rng(0).uniform(size=(len(shared.MULTIPLES), 5))
    order = np.argsort(-weights[shared.AT_COLLAPSE])
    found = shared.riskiest(np.arange(5)[:, None], weights)[..., 0]
    assert found.tolist() == [order.tolist(), order[::-1].tolist()]
    assert shared.MULTIPLES[shared.AT_COLLAPSE] == 1


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Shown:
    """A network of constant images, one for each class."""

    label: Any = -1
    sigma_min = 0.002
    sigma_max = 80.0

    def given(self, label):
        return Shown(np.float32(label))

    def __call__(self, x, sigma):
        return 0 * x + self.label


def test_a_conditional_network_is_asked_for_the_class_that_follows():
    images, labels = np.zeros((4, 2, 2, 1), np.float32), np.array([0, 2, 1, 0])
    key = jax.random.key(0)
    for shift, expected in ((0, [0, 2, 1, 0]), (1, [1, 0, 2, 1])):
        back = shared.turns(Shown(), images, labels, np.array([1.0, 5.0]), key, steps=2, classes=3, shift=shift)
        np.testing.assert_allclose(back[:, :, 0, 0, 0], [expected, expected], atol=1e-5)
