"""The study of low-rank mixtures from the command line: end to end, resumed, refused, and what it would cost."""

import dataclasses
import json
import re

import numpy as np
import pytest

from dgu.analysis import bounded_mean
from experiments.molrg import STUDY, dimension, networks
from experiments.molrg.score_fits import Fits
from experiments.study.claims import judge
from tests.experiments.statements import check_statements
from tests.experiments.universality_study import CLASSES, contents, images, save_images, save_tiny_network

TINY = (
    "--preset smoke --split train --size None --images.shown 2 --networks.ranks 2 3 --networks.optimisation.steps 3 "
    "--networks.optimisation.chunk 3 --networks.unet.steps 2 --networks.samples 20 --networks.fresh 40 "
    "--dimension.draws 4 --directions.sigmas 11.8"
).split()
OURS = ("images", "networks", "real", "dimension", "directions")


def study(*argv):
    STUDY.main([str(argument) for argument in argv])


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A tiny network of four classes of 6 x 6 images, and images of these classes."""
    folder = tmp_path_factory.mktemp("sources")
    pixels, labels = images(20)
    data = save_images(folder / "train.npz", pixels, labels, class_names=np.asarray(CLASSES))
    return ["--checkpoint", save_tiny_network(folder / "network.npz"), "--data", data]


def network_claims(config, dense, unet):
    """The claims about networks by their ids, of the fits to their scores."""
    laws = {"true_law": np.array([0.94, 0.96]), "copies": np.array(0)}
    found = networks.measured(config, laws, dense, unet)
    return {claim.id: judge(claim, found[claim.id], "molrg") for claim in networks.claims(config)}


def test_one_curve_cannot_show_a_collapse():
    config = networks.PRESETS["smoke"]
    nothing = Fits.of([6], np.array([[12.0, 48.0]]), np.full((1, 2, 2), 0.2), 0.95)
    claim = network_claims(config, nothing, nothing)["networks-collapse-unet"]
    assert claim.verdict == "not applicable" and "only one curve" in claim.note


def fits_of(ranks, ratios, scores):
    """The fits to the scores of networks on two subspaces of each rank."""
    return Fits.of(2 * np.array(ranks), 2 * np.outer(ranks, ratios), scores, 0.95)


def network_texts(config, scores, unet_scores):
    """The claims about curves, and the answer, of scores (ranks, ratios, runs) of dense networks and U-Nets."""
    dense = fits_of(config.ranks, config.ratios, scores)
    unet = fits_of(config.unet.ranks, config.unet.ratios, unet_scores)
    return network_claims(config, dense, unet), networks.answered(config, dense, unet, 0.9, 0.8)


def test_what_no_curve_crosses_is_no_number():
    smoke = networks.PRESETS["smoke"]
    low = np.full((len(smoke.ranks), len(smoke.ratios), 2), 0.1)
    claims, answer = network_texts(smoke, low, np.full((len(smoke.unet.ranks), len(smoke.unet.ratios), 1), 0.1))
    for name in ("networks-collapse", "networks-crossing", "networks-unet"):
        assert (claims[name].verdict, claims[name].value) == ("not applicable", None)
        assert "do not cross 1/2" in claims[name].note and "spread" not in claims[name].note
    assert "octaves" not in answer and "sigmoid" not in answer and answer.count("do not cross 1/2") == 2


def test_curves_that_cross_are_told_of_and_one_alone_is_one():
    config = dataclasses.replace(networks.PRESETS["default"], ranks=(2, 4), ratios=(4.0, 16.0, 64.0, 256.0))
    config = dataclasses.replace(config, unet=dataclasses.replace(config.unet, ranks=(3,), ratios=(4.0, 16.0, 64.0)))
    curve = np.array([0.05, 0.2, 0.8, 0.97])[None, :, None] + 0.01 * np.arange(2)
    claims, answer = network_texts(config, np.repeat(curve, 2, axis=0), curve[:, :3, :1])
    assert "all curves together" in claims["networks-crossing"].note and "one curve;" in claims["networks-unet"].note
    # Midpoints an octave apart over N: a standard deviation of 1 / sqrt(2).
    assert "curves of dense networks spread by 0.71 octaves over N and 0.00 over N / ID" in answer
    assert "curves of U-Nets" not in answer and claims["networks-collapse"].value == pytest.approx(1.0, abs=0.02)


def test_few_draws_do_not_decide_the_rank_of_the_closed_form():
    """So many draws that even if all agree the interval is a tenth wide, and the default's are more."""
    declared = dimension.CLAIMS[0]
    few, least = (np.repeat([[6], [10], [12]], n, axis=1) for n in (8, dimension.LEAST_DRAWS))
    claim = judge(declared, dimension.closed_form_ranks(few), "molrg")
    assert (claim.verdict, claim.value) == ("not applicable", None) and "8 draws" in claim.note
    least[0, :20], least[1, ::2] = 7, 9
    assert judge(declared, dimension.closed_form_ranks(least), "molrg").verdict == "supported"
    assert bounded_mean(least[2, :-1], (0, 12)).low < 11.9 <= bounded_mean(least[2], (0, 12)).low
    assert dimension.PRESETS["default"].draws >= dimension.LEAST_DRAWS


def test_ranks_by_products_are_judged_on_points_enough():
    """All, all but eight, or half of the default's 48 intervals hold the rank; fewer than sixteen say nothing."""
    declared = next(claim for claim in dimension.CLAIMS if claim.id == "dimension-products")
    default = dimension.PRESETS["default"]
    count = default.compared * default.compared_levels

    def verdict(count, missed):
        exact = np.full(count, 20)
        low = np.where(np.arange(count) < missed, 21, 19)
        both = {"exact": exact, "products": low + 1, "low": low, "high": low + 2}
        return judge(declared, dimension.contained(both), "molrg").verdict

    assert [verdict(count, missed) for missed in (0, 4, 8, count // 2)] == [
        "supported", "supported", "undecided", "not supported",
    ]  # fmt: skip
    enough = dimension.LEAST_POINTS
    assert (verdict(enough, 0), verdict(enough - 1, 0)) == ("supported", "not applicable")


@pytest.mark.slow
def test_end_to_end_and_resumed(sources, tmp_path, capsys):
    out, argv = tmp_path / "out", [*TINY, *sources, "--parts", *OURS]
    study(*argv, "--out", out)
    claims = json.loads((out / "claims.json").read_text())
    parts = [part for part in STUDY.parts if part.name in OURS]
    declared = [claim.id for part in parts for claim in part.declared(part.presets["smoke"])]
    assert [claim["id"] for claim in claims] == declared
    files = [figure.file for part in parts for figure in part.figures]
    for file in files:
        assert (out / file).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    check_statements(out, STUDY.presets["default"], constants=[48])  # numbers of a point
    page = (out / "report.html").read_text()
    assert page.count("<img") == len(files) + 1 and set(re.findall('(?:src|href)="(.{5})', page)) == {"data:"}
    assert "given the classes in turn" in page and "U-Net, subspaces of dimension" not in page
    metrics = json.loads((out / "metrics.json").read_text())
    name = next(iter(metrics["images"]))
    assert set(metrics["images"][name]) == {"MoLRG", "MoLRG, class given", "one Gaussian", "U-Net, other noise"}
    # Killed with some of its stages stored, it ends with the same numbers: here with all but three.
    before = contents(out)
    for name in (
        "claims.json",
        "report.html",
        "metrics.json",
        "stages/images/0/arm-1-0.npz",
        "stages/dimension/closed-form.npz",
        "stages/networks/mlp-2.npz",
    ):
        (out / name).unlink()
    study(*argv, "--out", out)
    after = contents(out)
    kept = [name for name in before if name not in ("timings.json", "report.html")]
    assert all(after[name] == before[name] for name in kept)
    capsys.readouterr()


def test_what_cannot_be_used_is_refused_before_any_work(sources, tmp_path, capsys):
    for said, options in (
        ("--images.rank = 20: must be at most 19: the pixels, and n - 1 of the smallest class", ["--images.rank", 20]),
        ("--others = 'a': must be CHECKPOINT=DATA", ["--others", "a"]),
        ("--others = 'a=b=0': must be CHECKPOINT=DATA", ["--others", "a=b=0"]),
        ("molrg: --others = 'nowhere.npz': must be one of", ["--others", "nowhere.npz=mnist"]),
        ("--networks.ranks = (2, 25): must be at most 24", ["--networks.ranks", 2, 25]),
        ("--networks.ratios = (8.0, 2.0): must be two or more, rising", ["--networks.ratios", 8, 2]),
        ("--networks.fresh = 39: must be 40 or more for this level", ["--networks.fresh", 39]),
        ("--images.ranks = (4, 2): must be one or more, rising", ["--images.ranks", 4, 2]),
        ("--real.sscd = None: must be an ONNX file", ["--real.descriptor", "sscd"]),
        ("must be an ONNX file of SSCD", ["--real.descriptor", "sscd", "--real.sscd", "no.onnx", "--real.sets", "COLOUR"]),
        ("identity or pca for images that are not in colour", ["--real.descriptor", "sscd", "--real.sscd", "no.onnx", "--real.sets", sources[-1]]),
        ("56: the largest of --real.counts and --real.held-out", ["--real.sets", "FEW"]),
        ("--real.sets = 'mnist=': must be SET or SET=CLASS,CLASS", ["--real.sets", "mnist="]),
        ("--real.counts = (8, 8): must be two or more, rising", ["--real.counts", 8, 8]),
        ("--directions.sigmas = (90.0,): must be above 0.002, at most 80", ["--directions.sigmas", 90]),
        ("--directions.shown = 3: must be in [1, 2]", ["--directions.shown", 3]),
        ("--dimension.eta = 1.0: must be strictly between 0 and 1", ["--dimension.eta", 1]),
        ("--dimension.rule = 'paper': must be one of code, text", ["--dimension.rule", "paper"]),
        ("images of shape = (14, 14, 1): must be (6, 6, 1)", ["--data", "fashion-mnist-mini", "--split", "test", "--size", 14]),
    ):  # fmt: skip
        out = tmp_path / "refused"
        colour = save_images(tmp_path / "colour.npz", np.zeros((56, 6, 6, 3), np.float32), np.zeros(56, np.int32))
        few = save_images(tmp_path / "few.npz", np.zeros((55, 6, 6, 1), np.float32), np.zeros(55, np.int32))
        options = [{"COLOUR": colour, "FEW": few}.get(option, option) for option in options]
        with pytest.raises(SystemExit) as error:
            study(*TINY, *sources, "--parts", "phase", *OURS, "--real.size", "None", *options, "--out", out)
        line = capsys.readouterr().err
        assert error.value.code == 2 and said in line and line.count("\n") == 1, line
        assert not out.exists()


@pytest.mark.slow
def test_presets_cost_what_they_say(capsys):
    study("--preset", "paper", "--dry-run")
    rows = {re.split(r"\s{2,}", line)[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    wanted = {"images", "dense networks", "U-Nets", "real images", "dimension", "directions", "total"}
    assert wanted <= set(rows)
    evaluations = {name: int(re.split(r"\s{2,}", rows[name])[1].replace(",", "")) for name in wanted}
    assert evaluations["images"] == 10_000 * 69
    # Ten ratios and four dimensions: 11,700 updates of 512 examples each, and 5,000 samples of 35 evaluations.
    assert evaluations["U-Nets"] == 40 * (11_700 * 512 + 5000 * 35)
    assert evaluations["dense networks"] == 400 * (20_000 * 256 + 5000 * 35)
