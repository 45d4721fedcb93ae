"""Sweeps and strong generalisation: arms, measures, verdicts, and the two parts from the command line."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from dgu.core import parallel
from dgu.distributions.bases import initial_noise
from dgu.models import EmpiricalDenoiser, GaussianDenoiser
from dgu.training import loop, snapshots
from experiments.hidden_gaussian import STUDY, networks, strong, sweep_claims, sweep_results, sweeps, trainer
from experiments.hidden_gaussian.arms import Design
from experiments.hidden_gaussian.subject import PAPER
from experiments.hidden_gaussian.trainer import Measured, identity, measure
from experiments.study.claims import judge
from experiments.study.inputs import Inputs, recording
from experiments.study.progress import Progress
from experiments.study.run_directory import RunDirectory
from tests.experiments.universality_study import contents, images, save_images

TINY = (
    "--preset smoke --parts sweeps strong --networks.pad 0 --networks.size None "
    "--networks.training.duration-kimg 0.064 --networks.training.batch-size 8 --networks.held-out 6 --networks.pairs 3 "
    "--networks.samples 3 --networks.levels 2 --networks.steps 2 "
    "--sweeps.sizes 4 20 --sweeps.linear-images 10 --strong.sizes 4 20"
).split()
pytestmark = pytest.mark.usefixtures("hasty_compiler")
#: Updates of one training, 8 images each.
STEPS = 8


def study(*argv):
    STUDY.main([str(argument) for argument in argv])


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Images of 6 x 6 pixels: 48 to train on, 20 held out."""
    folder = tmp_path_factory.mktemp("sources")
    train, held = (save_images(folder / f"{seed}.npz", *images(count, seed=seed)) for seed, count in ((0, 12), (1, 5)))
    return ["--networks.data", train, "--networks.heldout-data", held, "--networks.heldout-split", "train"]


@pytest.fixture(scope="module")
def finished(sources, tmp_path_factory):
    """A whole run, and the updates that it made."""
    out, steps, patch = tmp_path_factory.mktemp("finished") / "out", [], pytest.MonkeyPatch()
    patch.setattr(snapshots, "train_steps", counted(snapshots.train_steps, steps))
    study(*TINY, *sources, "--out", out)
    patch.undo()
    return out, steps


def counted(train_steps, steps, kill_at=None):
    """``train_steps`` that notes the numbers of its updates and is killed where as many as ``kill_at`` were made."""

    def counting(*given):
        for found in train_steps(*given):
            if len(steps) == kill_at:
                raise KeyboardInterrupt
            steps.append(found[1]["step"])
            yield found

    return counting


def tiny(sources, **changed):
    """Tiny networks, and their images."""
    smoke = networks.PRESETS["smoke"]
    own = {
        "data": sources[1],
        "heldout_data": sources[3],
        "heldout_split": "train",
        "pad": 0,
        "size": None,
        "network": smoke.network,
        "training": smoke.training,
        "held_out": 12,
        "pairs": 6,
        "samples": 5,
        "steps": 8,
        "levels": 4,
        "seeds": 2,
    }
    config = networks.Config(**own | changed)
    return Design(config, networks.gather(config), 0)


@pytest.mark.slow
def test_end_to_end(finished):
    out, steps = finished
    claims = [claim["id"] for claim in json.loads((out / "claims.json").read_text())]
    parts = (sweeps.PART, strong.PART)
    assert claims == [claim.id for part in parts for claim in part.declared(part.presets["smoke"])]
    page = (out / "report.html").read_text()
    for figure in (figure for part in parts for figure in part.figures):
        assert (out / figure.file).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and figure.file in page
    # Of two sizes a rank correlation says nothing.
    verdicts = {claim["id"]: claim["verdict"] for claim in json.loads((out / "claims.json").read_text())}
    assert verdicts["sweeps-linearity-rises"] == verdicts["sweeps-distance-falls"] == "not applicable"
    metrics = json.loads((out / "metrics.json").read_text())
    assert set(metrics["sweeps"]["sizes"]) == {"4", "20"} and len(metrics["sweeps"]["time"]) == 2 * 2
    # Four arms of the wide network and two of the narrow one: none is trained again for the second part.
    assert steps == 6 * list(range(1, STEPS + 1)) and len(list((out / "networks").iterdir())) == 6
    assert not any((out / "training").iterdir()), "states of finished trainings are of no use"


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_result(finished, sources, tmp_path, monkeypatch):
    before, _ = finished
    out, steps, taken = tmp_path / "out", [], snapshots.train_steps
    monkeypatch.setattr(snapshots, "train_steps", counted(taken, steps, kill_at=13))
    with pytest.raises(KeyboardInterrupt):
        study(*TINY, *sources, "--out", out)
    monkeypatch.setattr(snapshots, "train_steps", taken)
    study(*TINY, *sources, "--out", out)
    whole, resumed = contents(before), contents(out)
    same = [name for name in whole if name.startswith(("stages/", "networks/", "figures/"))] + [
        "metrics.json",
        "claims.json",
    ]
    assert len(same) > 40 and all(resumed[name] == whole[name] for name in same)


def test_a_killed_training_goes_on_behind_its_last_state_and_arms_share_a_program(sources, tmp_path, monkeypatch):
    traces, loss, taken = [], loop.sampled_loss, snapshots.train_steps
    one = parallel.data_mesh(jax.devices()[:1])
    monkeypatch.setattr(parallel, "data_mesh", lambda: one)
    loop._programs.cache_clear()
    monkeypatch.setattr(
        loop,
        "sampled_loss",
        lambda network, *rest, **options: (traces.append(network), loss(network, *rest, **options))[1],
    )
    training = replace(networks.PRESETS["smoke"].training, duration_kimg=0.048)
    lab = tiny(sources, training=training, checkpoint_minutes=0.0, checkpoints=(0.5,))
    arms = [lab.arm(4, 0), lab.arm(20, 1)]
    directories = {name: RunDirectory.open(tmp_path / name, lab.config) for name in ("whole", "killed")}

    def train_all(name):
        for arm in arms:
            trainer.train(lab, directories[name], arm, Progress(name))

    def files(folder):
        return {name: found for name, found in contents(folder).items() if name.startswith("networks/")}

    train_all("whole")
    steps = []
    monkeypatch.setattr(snapshots, "train_steps", counted(taken, steps, kill_at=10))
    with pytest.raises(KeyboardInterrupt):
        train_all("killed")
    assert steps == [1, 2, 3, 4, 5, 6, 1, 2, 3, 4]
    steps.clear()
    train_all("killed")
    # Nothing of the first arm, and of the second what follows its last state that is whole.
    assert steps in ([5, 6], [4, 5, 6])
    assert files(tmp_path / "whole") == files(tmp_path / "killed") and len(files(tmp_path / "whole")) == 2 * 2
    assert len(traces) == 1, "arms that differ in images and seed alone share a program"


def test_all_arms_start_from_the_same_noise(sources):
    lab = tiny(sources)
    # A denoiser that leaves its input alone has slope 0: its samples are their own starts.
    starts = [
        lab.draw(Partial(identity), arm) for arm in (lab.arm(4, 0), lab.arm(20, 1, 4), lab.arm(4, 0, family="adm-edm"))
    ]
    wanted = np.stack([80 * np.asarray(initial_noise(lab.key("samples"), index, (6, 6, 1))) for index in range(5)])
    for found in starts:
        np.testing.assert_array_equal(found, starts[0])
    np.testing.assert_allclose(starts[0], wanted, rtol=1e-5)


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
    arm, sigmas = lab.arm(8, 0), lab.sigmas(lab.arm(8, 0))[:-1]

    def measured(denoiser):
        return Measured(0, sigmas, **measure(lab, denoiser, arm))

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
    np.testing.assert_allclose(own.moved[-1], np.sqrt((rest**2).mean(axis=1)), rtol=0.05)


def test_gaussians_of_all_sizes_have_one_shape(sources):
    lab = tiny(sources)
    x = jnp.asarray(lab.images.held[0])
    for size in (4, 20, 48):
        arm = lab.arm(size, 0)
        padded, plain = lab.gaussian(arm), GaussianDenoiser.fit(lab.subset(arm))
        assert padded.basis.shape == lab.whole.basis.shape
        np.testing.assert_allclose(padded(x, 0.3), plain(x, 0.3), atol=1e-6)


def fake(seen, own, score=0.5, cosine=0.9, loss=1.0):
    """A checkpoint with these numbers."""
    ones = np.ones((1, 2))
    samples = np.ones((3, 2, 2, 1), np.float32)
    distance = np.full(3, 2 * score) * [0.999, 1, 1.001]
    return Measured(
        seen=seen,
        sigmas=np.array([1.0]),
        cosine=cosine * ones,
        nmse=ones,
        own=own * ones,
        whole=own * ones,
        moved=ones,
        loss=loss * np.ones((2, 3)),
        samples=samples,
        distance=distance,
        nearest=np.zeros(3, int),
    )


def swept(sources, wide, narrow, last_score, by_size):
    """A sweep of three seeds in which the courses on little data and the last values over sizes are these."""
    lab = tiny(sources, seeds=3)
    shifts = (0.99, 1.0, 1.01)
    sizes = {4: [], 8: [], 16: [], 32: []}
    for shift in shifts:
        for size, (own, cosine, score) in zip(sizes, by_size):
            sizes[size].append([fake(64, own * shift, score * shift, cosine)])

    def course(values, score, shift):
        """Checkpoints with these distances, of which the last has the score."""
        scores = [0.5] * (len(values) - 1) + [score]
        return [fake(k + 1, value * shift ** (k + 1), shift * scores[k]) for k, value in enumerate(values)]

    courses = {
        width: [course(values, score, shift) for shift in shifts]
        for width, values, score in ((4, narrow, 0.5), (8, wide, last_score))
    }
    fresh = {size: np.full(3, 0.5) for size in sizes}
    apart = {
        name: [
            {"linear_gaussian": shift * near * np.ones((4, 2)), "network_gaussian": shift * 0.5 * np.ones((4, 2))}
            for shift in shifts
        ]
        for name, near in (("memorising", 0.3), ("generalising", 0.1))
    }
    return sweep_results.Sweep(lab, sizes, courses, {}, {}, fresh, 4, apart, sweep_results.Denoised(4.0, {}))


def judged(sweep):
    """The claims on a sweep, by id."""
    found = sweep_claims.tested(sweep)
    return {claim.id: judge(claim, found[claim.id], PAPER) for claim in sweep_claims.declared(4, 4)}


RISING = ((0.4, 0.8, 0.1), (0.3, 0.85, 0.3), (0.2, 0.9, 0.4), (0.1, 0.95, 0.5))


def test_verdicts_follow_the_numbers(sources):
    good = swept(sources, (1.0, 0.4, 0.7), (1.0, 0.6, 0.62), 0.05, RISING)
    found = judged(good)
    # Three seeds of one and the same rank correlation show no spread: they decide nothing.
    ranks = {"sweeps-linearity-rises", "sweeps-distance-falls", "sweeps-generalisation-rises"}
    assert {name: claim.verdict for name, claim in found.items()} == {
        name: "undecided" if name in ranks else "supported" for name in found
    }
    assert found["sweeps-linearity-rises"].value == 1 and found["sweeps-distance-falls"].value == -1
    parts = {part.id: part.value for part in found["sweeps-wide-memorises"].parts}
    assert parts["min-over-final"] == pytest.approx(0.4 / 0.7, rel=1e-3) and parts["min-over-first"] == pytest.approx(
        0.4
    )
    assert parts["gl-final"] == pytest.approx(0.05) and parts["gl-final-relative"] == pytest.approx(0.05 / 0.5)
    assert found["sweeps-narrow-stays"].value == pytest.approx(0.62 / 0.6)
    # A network that only ever comes nearer, or only ever leaves, passes through no minimum; a score that stays up is no
    # collapse.
    for course, score, fails in (
        ((1.0, 0.6, 0.5), 0.05, "min-over-final"),
        ((0.4, 0.5, 0.7), 0.05, "min-over-first"),
        ((1.0, 0.4, 0.7), 0.28, "gl-final-relative"),
        ((1.0, 0.4, 0.7), 0.45, "gl-final gl-final-relative"),
    ):
        bad = swept(sources, course, (1.0, 0.6, 0.8), score, RISING[::-1])
        found = judged(bad)
        assert {part.id for part in found["sweeps-wide-memorises"].parts if part.verdict != "supported"} == set(
            fails.split()
        )
        assert {found[name].verdict for name in ranks} == {"undecided"} and found["sweeps-linearity-rises"].value == -1
        assert found["sweeps-narrow-stays"].verdict == "not supported"
        # Without a minimum before the end, or after the start, the ratio is 1 in every seed: no spread either.
        expected = "undecided" if fails.startswith("min-over") else "not supported"
        assert found["sweeps-wide-memorises"].verdict == expected


def test_early_stopping_looks_at_held_out_loss_alone():
    course = [fake(seen, own, loss=loss) for seen, own, loss in ((1, 0.1, 3.0), (2, 0.9, 1.0), (4, 0.2, 2.0))]
    assert strong.stopped(course).seen == 2


def test_what_cannot_be_used_is_refused_before_any_work(sources, tmp_path, capsys, monkeypatch):
    for part in (sweeps, strong):
        monkeypatch.setattr(part, "train_and_measure", lambda *_: pytest.fail("work was begun"))
    for said, options in (
        ("--sweeps.sizes = 49: must be at most 48: there are 48 images", ["--sweeps.sizes", 4, 49]),
        ("--strong.sizes = 25: must be at most 24: there are 48 images for 2 disjoint sets", ["--strong.sizes", 4, 25]),
        ("--networks.held-out = 21: must be at most 20: there are 20 held-out images", ["--networks.held-out", 21]),
        ("--networks.pairs = 11: must be at most 10: there are 20 held-out images", ["--networks.pairs", 11]),
        ("--sweeps.linear-images = 15: must be at most 14", ["--sweeps.linear-images", 15]),
        ("--sweeps.little = 60: must be at most 48", ["--sweeps.little", 60]),
        ("--sweeps.families = 'unet-edm': must be one of", ["--sweeps.families", "unet-edm"]),
        ("--sweeps.widths = (8,): must be other than networks.network.model_channels = 8", ["--sweeps.widths", 8]),
        ("--strong.narrow = 8: must be below", ["--strong.narrow", 8]),
        ("--networks.checkpoints = (1.5,): must be above 0 and below 1", ["--networks.checkpoints", 1.5]),
        ("--networks.size = 4: must be one of [6, 3, 2, 1]", ["--networks.size", 4]),
        ("img_resolution = 6: must be a positive multiple of 4 for 3 levels",
         ["--networks.network.channel-mult", 1, 1, 1]),
    ):  # fmt: skip
        out = tmp_path / "refused"
        with pytest.raises(SystemExit) as error:
            study(*TINY, *sources, *options, "--out", out)
        line = capsys.readouterr().err
        assert error.value.code == 2 and line.count("\n") == 1, line
        assert said in line, line
        assert not out.exists()


def costs(capsys, *options):
    """Network evaluations by stage that a dry run prints."""
    study(*options, "--dry-run")
    lines = [re.split(r"\s{2,}", line) for line in capsys.readouterr().out.splitlines()]
    return {
        line[0]: int(line[1].replace(",", ""))
        for line in lines
        if len(line) == 5 and line[1].replace(",", "").isdigit()
    }


def test_a_run_costs_what_it_says(sources, capsys):
    found = costs(capsys, *TINY, *sources)
    assert found["sweeps: training"] == 6 * STEPS * 8
    # Six arms at two checkpoints: distances and pairs at two levels, losses at three, samples of two Heun steps.
    assert found["sweeps: measuring"] == 6 * 2 * (2 * (6 + 3 * 3) + 3 * 6 + 3 * 3)


def test_paper_presets_have_its_lists():
    paper = STUDY.presets["paper"]
    assert max(paper.sweeps.sizes) == 70_000 and paper.sweeps.widths == (4, 8, 16, 32, 64)
    epochs = np.array(paper.networks.marks) * paper.networks.training.batch_size / 1094
    np.testing.assert_allclose(epochs, [187, 468, 841, 2293, 9173, 32105, 64210], rtol=0.01)
    assert STUDY.presets["paper-cifar10"].sweeps.sizes[0] == 50_000 // 2**6 + 1


PAPERS = ["paper", "paper-cifar10", "paper-afhqv2", "paper-churches"]


@pytest.mark.parametrize("preset", PAPERS)
def test_paper_presets_ask_for_what_there_is(preset, monkeypatch):
    config = STUDY.presets[preset]
    images = networks.planned(config.networks)
    monkeypatch.setattr(networks, "gather", lambda _: images)
    for part in (sweeps.PART, strong.PART):
        part.check(getattr(config, part.name), SimpleNamespace(config=config))


@pytest.mark.slow
@pytest.mark.parametrize("preset", PAPERS)
def test_paper_presets_can_be_built(preset, capsys):
    config = STUDY.presets[preset]
    found = costs(capsys, "--preset", preset, "--parts", "sweeps", "strong")
    arms = config.networks.seeds * (len(config.sweeps.sizes) + len(config.sweeps.widths)) + len(config.sweeps.families)
    assert (
        found["sweeps: training"] == arms * config.networks.training.total_steps * config.networks.training.batch_size
    )


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
