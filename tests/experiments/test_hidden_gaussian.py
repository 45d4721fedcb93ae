"""The study of hidden Gaussian structure from the command line: end to end, resumed, refused, and what it would cost."""

import json
import re
from dataclasses import fields

import numpy as np
import pytest

from experiments import hidden_gaussian
from experiments.hidden_gaussian import PARTS, PRESETS
from tests.experiments.universality_study import CLASSES, contents, images, save_images, save_tiny_network

TINY = (
    "--preset smoke --size None --label 2 --linearity.pairs 4 --linearity.levels 2 --distillation.images 10 "
    "--distillation.draws 6 --distillation.batch-size 8 --distances.images 8 --distances.samples 2 "
    "--jacobians.max-rounds 2 --levels 2"
).split()


CLAIM_IDS = [claim for part in PARTS.values() for claim in part.CLAIM_IDS]
FIGURE_FILES = [file for part in PARTS.values() for file in part.FIGURE_FILES]


def study(*argv):
    hidden_gaussian.main([str(argument) for argument in argv])


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A tiny network of four classes of 6 x 6 images, and images of these classes."""
    folder = tmp_path_factory.mktemp("sources")
    pixels, labels = images(60)
    train = save_images(folder / "train.npz", pixels, labels, class_names=np.asarray(CLASSES))
    held = save_images(folder / "held.npz", *images(20, seed=1), class_names=np.asarray(CLASSES))
    network = save_tiny_network(folder / "network.npz")
    return ["--checkpoint", network, "--data", train, "--heldout-data", held, "--heldout-split", "train"]


def test_end_to_end_and_resumed(sources, tmp_path, capsys):
    out = tmp_path / "out"
    study(*TINY, *sources, "--out", out)
    claims = [claim["id"] for claim in json.loads((out / "claims.json").read_text())]
    assert claims == CLAIM_IDS
    for file in FIGURE_FILES:
        assert (out / file).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    page = (out / "report.html").read_text()
    assert all(claim in page for claim in CLAIM_IDS) and page.count("<img") == len(FIGURE_FILES)
    assert set(re.findall('(?:src|href)="(.{5})', page)) == {"data:"}, "the report must not need another file"
    assert "held-out images of class south" in page
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["inputs"] == "held-out" and len(metrics["distillation"]["nmse"]) == 2
    # Killed with some of its stages stored, it ends with the same numbers: here with all but one.
    before = contents(out)
    for name in ("claims.json", "report.html", "metrics.json", "stages/distances.npz"):
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
        ("--train-images = 61: must be from 2 to 60", ["--train-images", 61]),
        ("--label = 4: must be a class of the network, 0 to 3", ["--label", 4]),
        ("--linearity.squares = (0.9,): must be in [0, 1], with 0.5 among them", ["--linearity.squares", 0.9]),
        ("--parts = ('linearity', 'linearity'): must be one or more, each once", ["--parts", "linearity", "linearity"]),
        ("--jacobians.directions = 4: must be from 1 to jacobians.vectors = 3", ["--jacobians.directions", 4]),
        ("images of the network's classes, north, east, south, west", ["--data", "fashion-mnist-mini", "--train-split", "test"]),
    ):  # fmt: skip
        out = tmp_path / "refused"
        with pytest.raises(SystemExit) as error:
            study(*TINY, *sources, *options, "--out", out)
        line = capsys.readouterr().err
        assert error.value.code == 2 and said in line and line.count("\n") == 1, line
        assert not out.exists()


def test_presets_cost_what_they_say(capsys):
    study("--preset", "paper", "--dry-run")
    out = capsys.readouterr().out
    rows = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert {"linearity", "distillation", "distances", "jacobians", "total"} <= set(rows)
    evaluations = {name: int(re.split(r"\s{2,}", line)[1].replace(",", "")) for name, line in rows.items() if name in
                   ("linearity", "distillation", "distances")}  # fmt: skip
    # 30,000 images at ten levels: once for the exact maps, a hundred times for Adam's.
    assert evaluations["distillation"] == 10 * 30_000 * 101
    assert evaluations["linearity"] == 100 * 40 * (2 + 5 + 2 + 1)
    assert evaluations["distances"] == 10 * 1000
    assert {field.name for field in fields(PRESETS["paper"])} == {field.name for field in fields(PRESETS["smoke"])}
