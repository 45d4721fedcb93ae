"""Real images: how they are made smaller, sigmoids over N and N / ID, ranks, gains by rank, and what claims say of them."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import expit

from dgu.analysis import fit_classes
from dgu.core.errors import InputError
from dgu.models.preconditioning import VPPreconditioning
from experiments.molrg import dimension, images, real
from experiments.molrg.path_ranks import least_rank
from experiments.molrg.real_arms import RealImages, real_sets, reduced
from experiments.molrg.real_config import AUTO, PRESETS, parse
from experiments.molrg.score_fits import Fits, panels
from experiments.study.claims import judge
from tests.experiments.universality_study import save_images

DIMENSIONS, COUNTS = np.array([4.0, 8.0, 16.0]), 2.0 ** np.arange(3, 12)


def scores_over(power, slope=1.5, constant=20.0):
    """Scores of curves whose midpoints are ``constant ID^power``, (curves, sizes, 1)."""
    gap = np.log2(COUNTS)[None] - np.log2(constant) - power * np.log2(DIMENSIONS)[:, None]
    return expit(slope * gap)[:, :, None]


def found(scores):
    """What the part measures: ranks that are least, ID, at the second level."""
    everything = []
    for size, own in zip(DIMENSIONS, scores[..., 0]):
        ranks = np.array([size + 3, size, size + 9])[:, None] + np.array([-1, 0, 1])[None]
        arrays = {
            "gl": own, "threshold": own, "loss": own, "ranks": ranks.astype(int), "is_bound": np.zeros((3, 3), bool),
            "sigmas": np.array([10.0, 1.0, 0.1]),
        }  # fmt: skip
        everything.append((RealImages(f"set {size:g}", np.zeros((2, 8, 8, 1)), np.zeros((2, 8, 8, 1)), None), arrays))
    return everything


def test_a_border_of_the_lowest_value_makes_sides_divisible():
    rows = np.arange(2 * 7 * 7, dtype=np.float32).reshape(2, 7, 7, 1) - 3
    small = reduced(rows, 4)
    whole = np.full((2, 8, 8, 1), -3, np.float32)
    whole[:, :7, :7] = rows
    np.testing.assert_allclose(small[1, 3, 1, 0], whole[1, 6:8, 2:4, 0].mean(), rtol=1e-6)
    assert small.shape == (2, 4, 4, 1) and reduced(rows, None) is rows and reduced(rows, 7) is rows
    padded = reduced(np.ones((1, 28, 28, 1), np.float32) - 2 * (np.arange(28) < 1)[:, None, None], 8)
    assert padded[0, 0, 0, 0] == -1 + 2 * 2 / 16  # Of the first block's sixteen, two are off border and top row.


def test_the_exponent_is_that_of_the_midpoints_and_both_sigmoids_are_drawn():
    counts = np.tile(COUNTS, (3, 1))
    for power in (0.0, 0.5, 1.0):
        fits = Fits.of(DIMENSIONS, counts, scores_over(power), 0.95)
        assert fits.exponent.value == pytest.approx(power, abs=1e-3)
    assert 2**fits.crossing.value == pytest.approx(20 * 2 ** (np.log(19) / 1.5), rel=1e-3)
    over_n, over_ratio = panels("", ["a", "b", "c"], DIMENSIONS, counts, scores_over(1.0), fits)
    assert (over_n.xlabel, over_ratio.xlabel) == ("N", "N / ID")
    np.testing.assert_allclose(over_ratio.points["c"][0], COUNTS / 16)
    x, y = over_ratio.fits["sigmoid"]
    np.testing.assert_allclose(y, expit(1.5 * (np.log2(x) - np.log2(20))), atol=1e-3)
    assert fits.over_n.rmse > 10 * fits.pooled.rmse
    one = Fits.of(DIMENSIONS[:1], counts[:1], scores_over(1.0)[:1], 0.95)
    assert one.exponent is None and one.crossing is not None


def test_claims_and_report_say_what_the_curves_do():
    config = dataclasses.replace(PRESETS["default"], counts=tuple(COUNTS.astype(int).tolist()))

    def verdicts(scores):
        findings = real.report(config, None, found(scores))
        claims = {claim.id: claim for claim in real.claims(config)}
        return findings, [judge(claims[name], findings.claims[name], "molrg").verdict for name in claims]

    noise = 0.01 * np.random.default_rng(0).standard_normal((3, 9, 1))
    findings, told = verdicts(np.clip(scores_over(1.0, constant=100.0) + noise, 0, 1))
    assert told == ["supported", "supported"]
    assert findings.metrics["dimension"] == {"set 4": 4.0, "set 8": 8.0, "set 16": 16.0}
    assert 360 < 2 ** findings.metrics["crossing_log2"][0] < 440
    assert [row[1] for row in findings.tables[1].rows] == [4.0, 8.0, 16.0]
    _, told = verdicts(np.clip(scores_over(0.0, constant=100.0) + noise, 0, 1))
    assert told[0] == "not supported"
    assert verdicts(np.full((3, 9, 1), 0.2))[1] == ["not applicable"] * 2


def test_the_least_mean_rank_is_the_dimension():
    lowest, dimension = least_rank(np.array([[9, 9, 9], [4, 5, 6], [5, 5, 6]]), 20)
    assert (lowest, dimension.value) == (1, 5.0) and dimension.low < 4.5 < 5.5 < dimension.high


def test_every_network_of_dimension_is_reported_and_lower_bounds_say_so():
    config, rng = dimension.PRESETS["smoke"], np.random.default_rng(0)
    first, second = (
        SimpleNamespace(sigma_range=(low, 80.0), images=np.zeros((1, 8, 8, 1)), names=["a", "b"])
        for low in (0.002, 0.01)
    )
    first.every = [first, second]

    def ranks(least, bounded):
        drawn = np.array([9, least, least + 4, 30])[:, None] + np.array([0, 1, 2])[None]
        is_bound = np.zeros((4, 3), bool)
        is_bound[1, 0] = bounded
        return {"ranks": drawn, "low": drawn, "high": drawn + 1, "is_bound": is_bound}

    closed = {"ranks": rng.integers(6, 13, (4, 8)), "fixed": rng.integers(6, 13, (3, 8))}
    both = {name: np.arange(20) for name in ("exact", "products", "low", "high")}
    found = dimension.Found(closed, [ranks(4, False), ranks(6, True)], both)
    findings = dimension.report(config, first, found)
    assert [(row[0], row[1], row[-1]) for row in findings.tables[2].rows] == [("a", 5.0, "no"), ("b", 7.0, "yes")]
    assert findings.metrics["dimension"] == {"a": 5.0, "b": 7.0} and "On b" in findings.answer
    assert findings.answer.count("at least") == 2  # The second network's rank, and the images that follow from it.
    of_a, of_b, exact = findings.figures["numerical_rank"][0].axes[:3]
    assert {line.get_label() for line in of_b.get_lines()} == {"b", "b: lower bound"}
    assert {line.get_label() for line in of_a.get_lines()} == {"a"} and "closed form" in exact.get_lines()[
        0
    ].get_label()


def test_sets_are_named_as_they_must_be_and_auto_takes_what_there_is(tmp_path, monkeypatch):
    assert parse("a.npz") == ("a.npz", None) and parse("mnist=1,7") == ("mnist", (1, 7))
    assert [parse(name)[0] for name in AUTO] == ["fashion-mnist"] * 3 + ["mnist", "cifar10"]
    with pytest.raises(InputError, match=r"real\.sets"):
        parse("=1")
    rng, labels = np.random.default_rng(0), np.repeat([0, 1, 2], 60)
    pixels = (rng.random((180, 8, 8, 1)) + labels[:, None, None, None]).astype(np.float32) / 3
    path = save_images(tmp_path / "three.npz", pixels, labels.astype(np.int32), class_names=np.array(["a", "b", "c"]))
    config = dataclasses.replace(PRESETS["smoke"], sets=(path, f"{path}=2,0"))
    whole, part = real_sets(config)
    assert (whole.name, part.name) == ("three.npz", "three.npz: c, a")
    assert len(part.training) == 16 and len(part.held_out) == 40 and part.training.shape[1:] == (4, 4, 1)
    monkeypatch.setattr("experiments.molrg.real_arms.AUTO", ("mnist",))
    monkeypatch.delenv("DGU_DATA", raising=False)
    nothing = dataclasses.replace(config, sets=("auto",))
    assert real_sets(nothing) == [] and "is on this machine" in real.skips(nothing, None)


def test_the_papers_network_is_ddpmpp_with_vp():
    config = PRESETS["paper"]
    network = config.network((32, 32, 3))
    assert isinstance(network.preconditioning, VPPreconditioning) and config.optimisation.loss == "vp"
    without_augmentation = 55_733_891 - 9 * 128  # The published network is told of augmentations.
    assert network.parameter_count == without_augmentation and config.optimisation.total_steps == config.steps


def test_a_smaller_rank_is_the_larger_one_cut():
    """What the gain by rank rests on."""
    rng = np.random.default_rng(1)
    rows, labels = rng.standard_normal((60, 3, 3, 1)), np.arange(60) % 2
    whole, small = (fit_classes(rows, labels, rank) for rank in (5, 2))
    np.testing.assert_allclose(whole.variances[:, :2], small.variances, rtol=1e-5)
    inside = np.einsum("kabcr,kabcs->krs", np.asarray(whole.bases)[..., :2], np.asarray(small.bases))
    np.testing.assert_allclose(np.abs(inside), np.tile(np.eye(2), (2, 1, 1)), atol=1e-4)


def test_the_gain_is_relative_to_the_gaussian():
    zeros = np.zeros((4, 2, 2, 1))
    away = {images.NETWORK: zeros, images.GAUSSIAN: zeros + 1.0}  # Distances of 2.
    one = images.Compared("x", None, away, {}, {images.MIXTURE: {3: np.full(4, 1.5), 9: np.full(4, 2.5)}})
    gains = images._gains(one, alone=True)[images.MIXTURE]
    assert (float(gains[3].value), float(gains[9].value)) == (25.0, -25.0)
    assert list(images._gains(one, alone=False)) == [f"x: {images.MIXTURE}"]
