"""The study of hidden Gaussian structure from the command line: end to end, resumed, refused, and its costs."""

import json
import re
from dataclasses import dataclass, fields, replace
from types import SimpleNamespace

import numpy as np
import pytest

from dgu import analysis
from dgu.core.errors import InputError
from dgu.samplers import karras_sigmas
from experiments.hidden_gaussian import STUDY, contribution, descent, distances, distillation, linear_maps
from experiments.hidden_gaussian.subject import PAPER, gather
from experiments.study import Findings, Options, Part, RunDirectory, Study
from experiments.study.claims import judge
from tests.experiments.statements import check_statements
from tests.experiments.universality_study import CLASSES, contents, images, save_images, save_tiny_network

TINY = (
    "--preset smoke --size None --label 2 --linearity.pairs 4 --linearity.levels 2 --distillation.images 10 "
    "--distillation.draws 6 --distillation.batch-size 8 --distances.images 8 --distances.samples 2 "
    "--jacobians.max-rounds 2 --levels 2"
).split()


PRESETS = STUDY.presets
CLAIM_IDS = [claim.id for part in STUDY.chosen(PRESETS["smoke"]) for claim in part.declared(part.presets["smoke"])]
FIGURE_FILES = [figure.file for part in STUDY.chosen(PRESETS["smoke"]) for figure in part.figures]


def study(*argv):
    STUDY.main([str(argument) for argument in argv])


def judged(claims, found):
    """The claims with what was measured for them, by id."""
    return {claim.id: judge(claim, found[claim.id], PAPER) for claim in claims}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A tiny network of four classes of 6 x 6 images, and images of these classes."""
    folder = tmp_path_factory.mktemp("sources")
    pixels, labels = images(60)
    train = save_images(folder / "train.npz", pixels, labels, class_names=np.asarray(CLASSES))
    held = save_images(folder / "held.npz", *images(20, seed=1), class_names=np.asarray(CLASSES))
    network = save_tiny_network(folder / "network.npz")
    return ["--checkpoint", network, "--data", train, "--heldout-data", held, "--heldout-split", "train"]


@pytest.mark.slow  # `.ci/run` runs the preset itself.
def test_end_to_end_and_resumed(sources, tmp_path, capsys):
    out = tmp_path / "out"
    study(*TINY, *sources, "--out", out)
    claims = [claim["id"] for claim in json.loads((out / "claims.json").read_text())]
    assert claims == CLAIM_IDS
    for file in FIGURE_FILES:
        assert (out / file).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    page = (out / "report.html").read_text()
    assert all(claim in page for claim in CLAIM_IDS) and page.count("<img") == len(FIGURE_FILES) + 1
    assert set(re.findall('(?:src|href)="(.{5})', page)) == {"data:"}, "the report must not need another file"
    assert "held-out images of class south" in page
    check_statements(out, PRESETS["default"], constants=[80])  # The highest noise level of all presets.
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["inputs"] == "held-out" and len(metrics["distillation"]["NMSE-to-Gaussian"]) == 2
    # Killed with some of its stages stored, it ends with the same numbers: here with all but one.
    before = contents(out)
    for name in ("claims.json", "report.html", "metrics.json", "stages/linearity/Gaussian.npz"):
        (out / name).unlink()
    study(*TINY, *sources, "--out", out)
    after = contents(out)
    kept = [name for name in before if name not in ("timings.json", "report.html")]
    assert all(after[name] == before[name] for name in kept)
    capsys.readouterr()


def test_what_cannot_be_used_is_refused_before_any_work(sources, tmp_path, capsys):
    for said, options in (
        ("--distances.images = 300: must be at most 20: there are 20 held-out images", ["--distances.images", 300]),
        ("--linearity.pairs = 11: must be at most 10: there are 20 held-out images", ["--linearity.pairs", 11]),
        ("--linearity.triples = 7: must be at most 6: there are 20 held-out images", ["--linearity.triples", 7]),
        ("--train-images = 61: must be from 2 to 60", ["--train-images", 61]),
        ("--label = 4: must be a class of the network, 0 to 3", ["--label", 4]),
        ("--linearity.squares = (0.9,): must be in [0, 1], with 0.5 among them", ["--linearity.squares", 0.9]),
        ("--parts = ('linearity', 'linearity'): must be one or more, each once", ["--parts", "linearity", "linearity"]),
        ("--jacobians.directions = 4: must be from 1 to --jacobians.vectors = 3", ["--jacobians.directions", 4]),
        ("images of the network's classes, north, east, south, west",
         ["--data", "fashion-mnist-mini", "--train-split", "test"]),
    ):  # fmt: skip
        out = tmp_path / "refused"
        with pytest.raises(SystemExit) as error:
            study(*TINY, *sources, *options, "--out", out)
        line = capsys.readouterr().err
        assert error.value.code == 2 and said in line and line.count("\n") == 1, line
        assert not out.exists()


@dataclass(frozen=True)
class NoOptions(Options):
    """Nothing to choose."""


def test_parts_run_alone_and_without_a_checkpoint_where_they_need_none(tmp_path):
    """A part that asks the subject for nothing is not in the way of a checkpoint that is not there; another one is."""
    asked = []

    def part(name, measure):
        report, presets = (lambda *_: Findings("Measured.")), {"default": NoOptions()}
        return Part(name, name, "?", PAPER, (), (), measure, report, presets)

    lazy = part("sweeps", lambda config, subject, run: asked.append((config, run.seed)))
    eager = part("linearity", lambda config, subject, run: subject.denoiser)
    fakes = Study(
        "some", "Some", "?", STUDY.options, (lazy, eager), gather, STUDY.plan, {"default": {}}, STUDY.introduce
    )
    config = replace(fakes.presets["default"], checkpoint="nowhere.pkl", parts=("sweeps",), seed=3)
    report = fakes.run(config, RunDirectory.open(tmp_path / "out", config))
    assert asked == [(NoOptions(), 3)] and report.answer == "Measured." and not report.tables
    with pytest.raises(InputError, match=r"checkpoint = 'nowhere\.pkl'"):
        fakes.run(replace(config, parts=("linearity",)), RunDirectory(tmp_path))
    assert len(asked) == 1


@pytest.mark.slow
def test_presets_cost_what_they_say(capsys):
    study("--preset", "paper", "--parts", *PRESETS["smoke"].parts, "--dry-run")
    out = capsys.readouterr().out
    rows = {cells[0]: cells for line in out.splitlines() if len(cells := re.split(r"\s{2,}", line)) > 5}
    assert {"linearity", "distillation, exactly", "distances", "jacobians", "total"} <= set(rows)
    evaluations = {name: int(cells[1].replace(",", "")) for name, cells in rows.items() if name != "stage"}
    # 30,000 images at ten levels: once for the exact maps, a hundred times for Adam's.
    assert evaluations["distillation, exactly"] == 10 * 30_000
    assert evaluations["distillation by Adam"] == 10 * 30_000 * 100
    # The network and an untrained one, on pairs and on triples.
    assert evaluations["linearity"] == 2 * 40 * (100 * (2 + 5 + 2 + 1) + 100 * 4)
    assert evaluations["distances"] == 10 * 1000
    assert {field.name for field in fields(PRESETS["paper"])} == {field.name for field in fields(PRESETS["smoke"])}


def distillation_verdicts(**changed):
    """Verdicts and values of the distillation's claims, from made-up measures of ten levels and five groups."""
    sigmas = karras_sigmas(10)[:-1]
    exact = {"nmse": np.linspace(0.02, 0.38, 10), "overlap": np.linspace(0.9, 1.0, 10),
             "asymmetry": np.full(10, 0.02), "to_adam": np.linspace(0.001, 0.5, 10)}  # fmt: skip
    adam = {"moved": np.where(np.arange(10) < 1, 1e-3, 0.1), "epochs": np.array([12, 25])}
    own = {"nmse": np.full(10, 0.004)}
    for name, values in changed.items():
        found, measure = {"exact": exact, "adam": adam, "own": own}[name.split("_", 1)[0]], name.split("_", 1)[1]
        found[measure] = values
    jitter = 1e-4 * np.array([-1.0, 1.0, 0.0, -1.0, 1.0])
    for found in (exact, own):
        found |= {f"{name}_without": values[:, None] + jitter for name, values in dict(found).items()}
    of_maps = [claim for claim in distillation.CLAIMS if claim is not descent.CLAIM]
    claims = judged(of_maps, distillation.tested(sigmas, exact, adam, own, 10, ""))
    return {name.removeprefix("distillation-"): claim for name, claim in claims.items()}


def test_claims_of_the_distillation_follow_its_measures():
    found = distillation_verdicts()
    # The seventh smallest of 0.02, 0.06 ... is 0.26; levels below 0.1 do not count for vectors and symmetry.
    assert (
        found["gaussian-weights"].value == pytest.approx(0.26) and found["gaussian-weights"].verdict == "not supported"
    )
    assert found["singular-vectors"].value == pytest.approx(0.9) and found["singular-vectors"].verdict == "supported"
    assert found["adam"].value == pytest.approx(0.001) and found["adam"].verdict == "supported"
    assert "converged at 1 of 10" in found["adam"].note
    # A jackknife of five groups: t of 4 degrees times sqrt(4 / 5 * sum of squares).
    half = 2.7764451 * 1e-4 * np.sqrt(0.8 * 4)
    np.testing.assert_allclose(found["gaussian-weights"].interval, (0.26 - half, 0.26 + half), rtol=1e-6)
    changed = distillation_verdicts(
        exact_nmse=np.linspace(0.02, 0.2, 10), exact_asymmetry=np.r_[np.full(8, 0.02), 0.9, 0.9],
        exact_overlap=np.r_[0.5, np.ones(9)], adam_moved=np.r_[1e-3, 1e-3, np.ones(8)],
        own_nmse=np.r_[np.zeros(9), 0.02],
    )  # fmt: skip
    verdicts = {name: claim.verdict for name, claim in changed.items()}
    assert verdicts == {"gaussian-weights": "supported", "singular-vectors": "not supported", "symmetric": "supported",
                        "adam": "not supported", "identity": "not supported"}  # fmt: skip
    assert "7 of 10 levels stay within" in found["gaussian-weights"].note
    # Where nothing has converged there is nothing to test, however far the maps are.
    none = distillation_verdicts(adam_moved=np.ones(10), exact_to_adam=np.full(10, 0.7))["adam"]
    assert none.verdict == "not applicable" and "in 25 epochs Adam has converged at no noise level" in none.note


def test_a_map_from_few_noisy_images_decides_nothing():
    """The preset smoke has 20 x 21 for 49 pixels; the default 200 x 304 for 196."""
    for preset, size, why in (("smoke", 7, "49 pixels from 420 noisy images"), ("default", 14, "")):
        few = distillation.few_draws(PRESETS[preset].distillation, 400, size**2)
        assert (why in few) and bool(few) == bool(why)


def distance_claims(sigmas):
    """Claims on distances between denoisers at these levels, the Gaussian's the smaller."""
    rng = np.random.default_rng(0)
    names = ("network", "Gaussian", "linear", "multi-delta")
    differences = 0.01 * rng.uniform(1, 2, (len(sigmas), 4, 4, 5))
    differences[:, 0, 3] += 1.0
    found = analysis.ScoreDistances(names, np.asarray(sigmas), "held-out", 4, differences, np.ones((len(sigmas), 4, 5)))
    return judged(distances.CLAIMS, distances.tested(found))


def test_levels_that_the_run_lacks_are_not_applicable():
    every = distance_claims([80.0, 5.0, 0.05])
    assert {claim.verdict for claim in every.values()} == {"supported"}
    high, middle = distance_claims([80.0, 40.0]), distance_claims([10.0, 1.0])
    assert high["distances-gaussian-closer"].verdict == middle["distances-regimes"].verdict == "not applicable"
    assert "80, 40 none is intermediate" in high["distances-gaussian-closer"].note
    assert high["distances-regimes"].verdict == middle["distances-gaussian-closer"].verdict == "supported"


def contribution_claim(affine, memorised, remaining, sigmas=(80.0, 10.0, 1.0, 0.01)):
    """The claim on what the network adds, from the scores of the network (at each level) and of the multi-delta one."""
    levels, jitter = len(sigmas), 1 + 1e-3 * np.array([-1.0, 1.0, 0.0, -1.0, 1.0])

    def scores(correlation):
        one = np.tile(jitter, (levels, 1))
        products = np.broadcast_to(np.asarray(correlation, float), (levels,))[:, None] * one**2
        return analysis.ContributionScores(
            np.array(sigmas), products, np.ones((levels, 5)), one, np.ones((levels, 5)), remaining * one
        )

    found = {"network": scores(affine), "multi-delta": scores(memorised)}
    return judge(contribution.CLAIM, contribution.tested(found), PAPER)


def test_each_control_fails_the_claim_on_what_the_network_adds():
    parts = lambda claim: [part.verdict for part in claim.parts]  # noqa: E731
    # Outer noise levels do not count.
    linear = contribution_claim([0.2, 0.95, 0.96, 0.1], 0.8, 0.5)
    assert linear.verdict == "supported" and len(linear.parts[0].parts) == 2
    assert [part.id for part in linear.parts[0].parts] == [f"contribution-affine-sigma = {s}" for s in ("10", "1")]
    assert linear.parts[1].value == pytest.approx(0.155, abs=1e-3) and linear.parts[2].value == pytest.approx(0.5)
    # A memorising network; one that is affine but of no use, as random ones are; the skip, which leaves all.
    assert parts(contribution_claim([1, 0.95, 0.8, 1], 0.8, 0.5)) == ["not supported", "supported", "supported"]
    assert parts(contribution_claim(0.7, 0.7, 0.5))[:2] == ["not supported", "undecided"]
    assert parts(contribution_claim(0.97, 0.8, 1.2)) == ["supported", "supported", "not supported"]
    assert parts(contribution_claim(0.97, 0.8, 1.0))[2] == "undecided"
    assert contribution_claim(0.97, 0.8, 0.5, (80.0, 0.01)).verdict == "not applicable"


def test_gradient_descent_on_disjoint_parts_ends_at_their_gaussians():
    pixels, _ = images(60)
    lab = SimpleNamespace(train=pixels, shape=pixels.shape[1:], sigmas=karras_sigmas(4)[:-1])
    found = descent.measured(linear_maps.Config(groups=3), lab)
    assert found["converging"].shape == (4, 33, 3) and found["diverging"].shape == (4, 9, 3)
    # From 0 the distance is nearly 1 at first; at the end it is nothing.
    assert (found["converging"][:, 0] < 1).all() and found["converging"][:, -1].max() < 1e-6
    claim = judge(descent.CLAIM, descent.tested(lab.sigmas, found), PAPER)
    assert claim.verdict == "supported" and "of 3 parts" in claim.note
    away = {"converging": found["diverging"], "diverging": found["diverging"]}
    assert judge(descent.CLAIM, descent.tested(lab.sigmas, away), PAPER).verdict == "not supported"
