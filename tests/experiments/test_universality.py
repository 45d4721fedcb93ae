"""The study from the command line: end to end on tiny and on bundled images, killed and resumed, and its costs."""

import json
import random
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from experiments.subjects import ClassImages
from experiments.universality import STUDY
from experiments.universality.problems import class_sets, panels
from tests.experiments.statements import check_statements, exact_claims
from tests.experiments.universality_study import (
    CLAIM_IDS,
    CLASSES,
    FIGURE_FILES,
    ROOT,
    TINY,
    contents,
    environment,
    images,
    save_images,
    save_tiny_network,
    study,
)

ARMS = ["diffusion", "mixture", "null", "low rank", "real"]


def check_run(out):
    """Everything that the study promises is there; returns the metrics."""
    metrics = json.loads((out / "metrics.json").read_text())
    claims = json.loads((out / "claims.json").read_text())
    noted = {name: claim for part in STUDY.parts for name, claim in metrics[part.name].get("claims", {}).items()}
    # Checks of the program come last.
    made = {claim["id"] for claim in claims}
    assert set(noted) == made <= set(CLAIM_IDS) and len(made) == len(claims)
    # With one loss there is none about the other.
    assert set(CLAIM_IDS) - made <= {"universality-cross-entropy", "gap-cross-entropy"}
    for claim in claims:
        stored = noted[claim["id"]]
        assert [claim["value"], claim["interval"], claim["verdict"]] == [
            stored["value"], stored["interval"], stored["verdict"]
        ]  # fmt: skip
    for file in FIGURE_FILES:
        assert (out / file).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    page = (out / "report.html").read_text()
    assert all(claim in page for claim in made) and page.count("<img") == len(FIGURE_FILES) + 1
    assert set(re.findall('(?:src|href)="(.{5})', page)) == {"data:"}, "the report must not need another file"
    return metrics


def forbidden(config, directory):
    raise AssertionError("a finished run must not run again")


@pytest.mark.slow
def test_end_to_end_on_given_images(tmp_path, capsys):
    """Images of one's own, beside few real ones, which reach no large training set."""
    samples = save_images(tmp_path / "samples.npz", *images(24), class_names=np.asarray(CLASSES))
    real = save_images(tmp_path / "real.npz", *images(8, seed=1))
    out = tmp_path / "out"
    command = [*TINY, "--samples", samples, "--real", real, "--real-split", "train", "--size", "None", "--out", out]
    claims = study(*command)
    metrics = check_run(out)
    check_statements(out, STUDY.presets["default"])
    assert exact_claims(out) == set()
    assert metrics["arms"] == ARMS and metrics["dimension"] == 36
    linear = metrics["accuracy"]
    names = ["set-0-3", "2-classes", "2-classes-ce", "all-classes", "all-classes-ce", "pairs"]
    assert linear["sizes"] == [2, 5] and sorted(linear["accuracy"]) == sorted(names)
    accuracy = np.asarray(linear["accuracy"]["all-classes"]["mean"], float)
    # 4 real images are there to train on.
    assert np.isnan(accuracy).tolist() == [[False] * 2] * 4 + [[False, True]]
    assert (accuracy[:4] > 30).all() and len(linear["gaps"]["pairs"]) == 2 == len(metrics["two_layer"]["gaps"])
    assert set(linear["smallest_margins"]) == {"2-classes", "all-classes", "pairs", "cross-entropy"}
    page = (out / "report.html").read_text()
    assert all(name in page for name in ("2 random classes", "north and west", "low rank", "n/d", "smallest margin"))
    assert not (out / "samples").exists()

    capsys.readouterr()
    before = contents(out)
    started = time.perf_counter()
    assert study(*command, run=forbidden) == claims
    assert time.perf_counter() - started < 5
    assert "already finished" in capsys.readouterr().out
    with pytest.raises(SystemExit) as exit_:
        study(*command, "--replicates", "3", run=forbidden)
    errors = capsys.readouterr().err
    assert exit_.value.code == 2 and errors.count("\n") == 1
    assert errors.startswith("universality: --replicates = 3: must be 2 as stored in ")
    assert contents(out) == before


def test_parts_share_the_replicates_and_are_reported_again_without_measuring(tmp_path, monkeypatch):
    samples = save_images(tmp_path / "samples.npz", *images(24))
    out = tmp_path / "out"
    command = [*TINY, "--samples", samples, "--real", "None", "--parts", "spectra", "two_layer", "--out", out]
    claims = study(*command)
    wanted = ["spectrum-covariance", "spectrum-gram", "two-layer-breaks", "two-layer-exceeds-linear"]
    assert [claim.id for claim in claims] == wanted
    stages = [name for name in contents(out) if name.startswith("stages/")]
    assert stages == [f"stages/{what}/00{number}.npz" for what in ("replicates", "resampled") for number in (0, 1)]
    before = results(out)
    (out / "figures/two_layer.png").unlink()
    for measure in ("replicate", "resampled"):
        monkeypatch.setattr(f"experiments.universality.subject.{measure}", forbidden)
    assert study(*command, "--report-only") == claims
    compare(results(out), before)


@pytest.mark.slow  # `.ci/run` runs the preset itself.
def test_smoke_preset_samples_the_bundled_network(tmp_path):
    study("--preset", "smoke", "--out", tmp_path)
    metrics = check_run(tmp_path)
    assert metrics["arms"] == ARMS and metrics["dimension"] == 196
    config = json.loads((tmp_path / "config.json").read_text())
    each = sum(config["splits"].values())
    shards = [np.load(file) for file in sorted((tmp_path / "samples").glob("class-*.npy"))]
    assert sum(map(len, shards)) == 4 * each and all(shard.shape[1:] == (14, 14, 1) for shard in shards)
    assert all(np.abs(shard).max() < 8 and 0.3 < shard.std() < 2 for shard in shards)


# --- kill -9 --------------------------------------------------------------------------------------------------------


def command_line(folder, out):
    network = folder / "network.npz"
    if not network.exists():
        save_tiny_network(network)
    sampler = "--sampler.num-steps 3 --sampler.batch-size 4 --real None".split()
    command = [sys.executable, "-m", "experiments.universality", *TINY, *sampler]
    return [*command, "--checkpoint", str(network), "--out", str(out)]


def run_to_the_end(folder, out):
    done = subprocess.run(
        command_line(folder, out), cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done


def run_and_kill(folder, out, ready):
    """Start the study and kill it as soon as ``ready()``; False if it ended before."""
    process = subprocess.Popen(
        command_line(folder, out), cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        while process.poll() is None:
            if ready():
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
    finally:
        process.kill()
        _, errors = process.communicate(timeout=60)
    assert process.returncode in (0, -signal.SIGKILL), errors.decode()
    return process.returncode != 0


def results(out):
    """What must be the same bit for bit: metrics, claims, samples, stored stages, figures; all but what holds times."""
    kept = contents(out)
    assert not [name for name in kept if name.endswith(".tmp")]
    times = ("timings.json", "report.html")
    return {name: data for name, data in kept.items() if name not in times and not name.endswith(".lock")}


def compare(found, expected):
    assert found.keys() == expected.keys()
    assert {name for name in found if found[name] != expected[name]} == set()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    run_to_the_end(folder, folder / "out")
    check_run(folder / "out")
    return folder, results(folder / "out")


@pytest.mark.slow
def test_killed_while_sampling_and_in_the_replicates(undisturbed, tmp_path):
    """Two kills at moments that are drawn anew each time, then the same command: the same bits."""
    folder, expected = undisturbed
    shards = sum(name.startswith("samples/class-") for name in expected)
    wanted = random.randint(1, shards - 1)
    killed = run_and_kill(folder, tmp_path, lambda: len(list(tmp_path.glob("samples/class-*.npy"))) >= wanted)
    present = contents(tmp_path)
    assert killed and any(name.startswith("samples/") for name in present) and "metrics.json" not in present
    delay, first = random.uniform(0, 0.2), []

    def one_replicate_and_a_little():
        if not first and (tmp_path / "stages/replicates/000.npz").exists():
            first.append(time.monotonic())
        return first and time.monotonic() > first[0] + delay

    assert run_and_kill(folder, tmp_path, one_replicate_and_a_little)
    assert "claims.json" not in contents(tmp_path)
    run_to_the_end(folder, tmp_path)
    compare(results(tmp_path), expected)


@pytest.mark.slow
def test_killed_at_three_random_moments(undisturbed, tmp_path):
    folder, expected = undisturbed
    for _ in range(3):
        started, moment = time.monotonic(), random.uniform(2, 12)
        run_and_kill(folder, tmp_path, lambda: time.monotonic() > started + moment)  # noqa: B023
    run_to_the_end(folder, tmp_path)
    compare(results(tmp_path), expected)


# --- costs ----------------------------------------------------------------------------------------------------------


def numbers(table):
    """The dry run's table: stage -> network evaluations, FLOP, memory of a device, of the host, disk."""
    scale = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
    rows = {}
    for line in table.splitlines()[1:]:
        cells = re.split(r"\s{2,}", line.strip())
        if len(cells) == 6 and cells[0] != "stage":
            values = [cell.removesuffix("B").split() + [""] for cell in cells[2:]]
            rows[cells[0]] = [float(cells[1].replace(",", "")), *(float(v[0]) * scale[v[1]] for v in values)]
    return rows


def test_paper_preset_costs_what_the_paper_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    started = time.process_time()
    assert study("--preset", "paper", "--dry-run") == ()
    assert time.process_time() - started < 20
    printed = capsys.readouterr().out
    rows = numbers(printed)
    words = " ".join(printed.split())
    for wanted in (
        "class: 128, 256, 512, 1,024, 2,048, 4,096; images", "Fitted to all 10,240 images of each class",
        "Gram matrices: 4 classes x 2,048, 10 classes x 512, 20 classes x 512", "20 replicates of 14 problems",
        "Learning rates: 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1.", "all 20 classes, cross entropy",
    ):  # fmt: skip
        assert wanted in words
    evaluations, flop, memory, _, disk = rows["sampling"]
    # 20 classes, 10,240 images each, 256 Heun steps without the last correction.
    assert evaluations == 20 * 10_240 * 511
    assert flop == pytest.approx(evaluations * 219.33e9, rel=5e-3)
    assert disk == pytest.approx(20 * 10_240 * 64 * 64 * 3 * 4, rel=0.01)
    assert memory > 296e6 * 4  # the parameters alone
    assert rows["classifiers"][1] > 1e15 and rows["mixtures"][1] > 1e14
    assert rows["total"][0] == evaluations and rows["total"][2] == max(row[2] for row in rows.values())
    assert not list(tmp_path.iterdir())


def test_paper_preset_holds_the_protocol():
    """Sizes, subsets, pairs, rates and Gram panels of Figs 5, 7 and 8."""
    paper = STUDY.presets["paper"]
    assert paper.training_sizes == (128, 256, 512, 1024, 2048, 4096) and paper.splits.test == 1024
    assert paper.splits.total == 10_240 and len(paper.classes) == 20 and 10 <= paper.replicates <= 20
    sets = [one.split(":") for one in paper.class_sets]
    assert [len(one) for one in sets] == [4, 10, 2, 2, 2]
    assert {int(label) for one in sets for label in one} <= set(paper.classes)
    assert paper.losses == ("softmax_mse", "cross_entropy")
    assert (min(paper.recipe.learning_rates), max(paper.recipe.learning_rates)) == (1e-4, 0.1)
    assert paper.gram_panels == ("4x2048", "10x512", "20x512") and paper.recipe.epochs == 600
    names = [str(label) for label in paper.classes]
    titles = [panel.title for panel in panels(paper, class_sets(paper, known_classes(paper)), names)]
    for wanted in ("0, 217, 497 and 566", "10 classes", "all 20 classes", "11 and 871", "217 and 566", "0 and 497"):
        assert any(wanted in title for title in titles)
    assert sum("cross entropy" in title for title in titles) == 5  # 4 and 10 of the paper, 4 and 10 at random, 20


def known_classes(options):
    names = tuple(str(label) for label in range(1000))
    return ClassImages(options.classes, names, (64, 64, 3), np.zeros((20, 0), int), 0)


def test_given_images_cost_no_network_and_training_costs_more(tmp_path, capsys):
    samples = save_images(tmp_path / "samples.npz", *images(24))
    study(*TINY, "--samples", samples, "--real", "None", "--dry-run", "--out", tmp_path / "out")
    rows = numbers(capsys.readouterr().out)
    assert list(rows) == ["mixtures", "classifiers", "resampled", "total"] and rows["total"][0] == 0 < rows["total"][1]
    study("--preset", "smoke", "--dry-run")
    plain = numbers(capsys.readouterr().out)
    study("--preset", "smoke", "--dry-run", "--train")
    trained = numbers(capsys.readouterr().out)
    assert list(plain) == ["sampling", "mixtures", "classifiers", "resampled", "total"] and "training" in trained
    assert trained["training"][0] == 128  # images seen
    assert not (tmp_path / "out").exists()
