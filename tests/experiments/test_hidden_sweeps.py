"""Sweeps and strong generalisation from the command line: whole runs, killed runs, costs and refusals."""

import json
import re
from collections import deque
from dataclasses import replace
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from dgu.core import parallel
from dgu.training import loop, snapshots
from experiments.hidden_gaussian import STUDY, networks, strong, sweeps, trainer
from experiments.study.run_directory import RunDirectory
from tests.experiments.hidden_networks import tiny, write_sources
from tests.experiments.universality_study import contents

TINY = (
    "--preset smoke --parts sweeps strong --networks.pad 0 --networks.size None "
    "--networks.training.duration-kimg 0.064 --networks.training.batch-size 8 --networks.held-out 6 --networks.pairs 3 "
    "--networks.samples 3 --networks.levels 2 --networks.linearity-levels 2 --networks.steps 2 "
    "--sweeps.sizes 4 20 --sweeps.linear-images 10 --strong.sizes 4 20"
).split()
#: Updates of one training, 8 images each.
STEPS = 8


def study(*argv):
    STUDY.main([str(argument) for argument in argv])


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return write_sources(tmp_path_factory.mktemp("sources"))


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

    def counting(*given, **options):
        for found in train_steps(*given, **{**options, "together": 1}):
            if len(steps) == kill_at:
                raise KeyboardInterrupt
            steps.append(found[1]["step"])
            yield found

    return counting


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
    assert sorted(steps) == sorted(6 * list(range(1, STEPS + 1))) and len(list((out / "networks").iterdir())) == 6
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


@pytest.mark.slow
def test_a_killed_training_goes_on_behind_its_last_state_and_arms_share_a_program(sources, tmp_path, monkeypatch):
    traces, loss, taken = [], loop.sampled_loss, snapshots.train_steps
    one = parallel.data_mesh(jax.devices()[:1])
    monkeypatch.setattr(snapshots, "updates_together", lambda *_: 1)
    loop._program.cache_clear()
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
            deque(trainer.train(lab, directories[name], arm, one), maxlen=0)

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
        ("--sweeps.widths = (8,): must be other than --networks.model-channels = 8", ["--sweeps.widths", 8]),
        ("--strong.narrow = 8: must be below", ["--strong.narrow", 8]),
        ("--networks.checkpoints = (1.5,): must be above 0 and below 1", ["--networks.checkpoints", 1.5]),
        ("--networks.size = 4: must be one of [6, 3, 2, 1]", ["--networks.size", 4]),
        ("img_resolution = 6: must be a positive multiple of 4 for 3 levels",
         ["--networks.channel-mult", 1, 1, 1]),
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
        if len(line) == 6 and line[1].replace(",", "").isdigit()
    }


def test_a_run_costs_what_it_says(sources, capsys):
    found = costs(capsys, *TINY, *sources)
    assert found["sweeps: training"] == 6 * STEPS * 8
    # Six arms at two checkpoints: distances and pairs at two levels, losses at three, samples of two Euler steps.
    assert found["sweeps: measuring"] == 6 * 2 * (2 * (6 + 3 * 3) + 3 * 6 + 3 * 2)
    # Best linear maps of two seeds on few and on many images, and of one network in full, of six draws of ten images;
    # two epochs of Adam for one network; all at two levels.
    assert found["sweeps: linear maps"] == 2 * (5 * 10 * 6 + 10 * 2)


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
