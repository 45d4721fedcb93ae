"""The training command: what a run leaves behind, and the same bits after any interruption."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import chex
import jax
import numpy as np
import pytest

from dgu.core.checkpoint import TrainingCheckpoints
from dgu.core.errors import InputError
from dgu.models import load_checkpoint, save_network
from dgu.training import resumable
from experiments import train as trainer
from tests.experiments.train_runs import (
    ROOT,
    SMALL,
    Killed,
    content,
    final_state_of,
    half_a_line,
    killed_at,
    refusal,
    small_config,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The directory of a finished run."""
    out = tmp_path_factory.mktemp("train") / "run"
    trainer.main([*SMALL, "--out", str(out)])
    return out


def test_what_a_run_leaves_behind(finished):
    assert content(finished).keys() == {
        *(
            "config.json",
            "environment.json",
            "metrics.json",
            "metrics.csv",
            "claims.json",
            "stats.jsonl",
            "network.npz",
        ),
        *("stages/training.npz", "stages/samples.npz"),
        *(f"figures/{name}.{kind}" for name in ("loss", "samples") for kind in ("png", "pdf")),
    }
    metrics = json.loads((finished / "metrics.json").read_text())
    model = load_checkpoint(finished)
    state = final_state_of(finished)
    chex.assert_trees_all_equal(jax.device_get(model.denoiser.params), state["ema"])
    assert metrics["images_seen"] == model.metadata["images_seen"] == 128
    assert metrics["steps"] == int(state["step"]) == 8
    assert metrics["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(state["params"]))
    assert metrics["network_sha256"] == model.sha256
    assert len(model.class_names) == 10 and model.network.shape == (14, 14, 1)
    ticks = resumable.read_log(finished / "stats.jsonl")
    assert [tick["step"] for tick in ticks] == [2, 4, 6, 8]
    assert ticks[-1]["loss"] == metrics["final_loss"] > 0
    page = (finished / "report.html").read_text()
    assert (
        "<h2>Claims</h2>" not in page and page.count("data:image/png") == 2 and f"{metrics['final_loss']:.4f}" in page
    )


def test_a_finished_run_is_read_and_another_configuration_refused(finished, monkeypatch, capsys):
    monkeypatch.setattr(trainer, "train", None)
    before = content(finished)
    trainer.main([*SMALL, "--out", str(finished)])
    assert "already finished" in capsys.readouterr().out
    for option, line in {
        ("--training.seed", "1"): "--training.seed = 1: must be 0 as stored",
        ("--network.num-blocks", "2"): "--network.num-blocks = 2: must be 1 as stored",
        ("--training.duration-kimg", "1"): "--training.duration-kimg = 1.0: must be 0.128 as stored",
    }.items():
        with pytest.raises(SystemExit) as exit_:
            trainer.main([*SMALL, *option, "--out", str(finished)])
        error = capsys.readouterr().err
        assert exit_.value.code == 2 and error.startswith(f"train: {line}") and error.count("\n") == 1
    assert content(finished) == before


#: Where a run is killed, and the images seen where the run that follows goes on. A tick is two steps of 16 images, a
#: checkpoint two ticks.
PLACES = {
    "in the first tick": ((np, "mean", 1), 0),
    "in a line of the log": ((resumable, "_append", 3, half_a_line), 64),
    "between log and checkpoint": ((TrainingCheckpoints, "save", 1), 0),
    "between checkpoint and network": ((resumable, "save_network", 1), 64),
    "between the last checkpoint and its network": ((resumable, "save_network", 2), 128),
}


#: Of every run of the tests: where one file is cut, and where the checkpoint is ahead of the network.
ALWAYS = ("in a line of the log", "between checkpoint and network")


@pytest.mark.parametrize(
    "place", [pytest.param(place, marks=() if place in ALWAYS else pytest.mark.slow) for place in PLACES]
)
def test_an_interruption_anywhere_leaves_the_same_bits(finished, tmp_path, monkeypatch, place):
    tmp_path = tmp_path / "new" / "run"
    config = small_config()
    with monkeypatch.context() as patch:
        killed_at(patch, *PLACES[place][0])
        with pytest.raises(Killed):
            trainer.train(config, tmp_path)
    left, progress = [], trainer.Progress
    monkeypatch.setattr(
        trainer, "Progress", lambda name, total, unit: left.append(total) or progress(name, total, unit)
    )
    trainer.train(config, tmp_path)
    for name in ("network.npz", "stats.jsonl"):
        assert (tmp_path / name).read_bytes() == (finished / name).read_bytes(), name
    chex.assert_trees_all_equal(final_state_of(tmp_path), final_state_of(finished))
    # What a checkpoint holds is not done again.
    assert left == [128 - PLACES[place][1]]


@pytest.mark.slow  # Interruptions at every place of the code are among the others, in one process.
@pytest.mark.parametrize("kills", [1, 3])
def test_kill_9_at_random_moments_leaves_the_same_bits(tmp_path, kills):
    """Kills of the real process, each at a random moment once training goes on, then the same command once more."""
    options = [*SMALL, "--training.duration-kimg", "0.32", "--tick-kimg", "0.016", "--checkpoint-kimg", "0.064"]
    environment = {
        **{name: value for name, value in os.environ.items() if name != "XLA_FLAGS"},
        # Programs compiled once serve all the processes, so that they spend their time in training.
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_COMPILATION_CACHE_MAX_SIZE": str(jax.config.jax_compilation_cache_max_size),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_PLATFORMS": "cpu",
    }

    def start(out):
        command = [sys.executable, "-m", "experiments.train", *options, "--out", str(out)]
        with (tmp_path / "output.txt").open("ab") as log:
            return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)

    assert start(tmp_path / "whole").wait(timeout=300) == 0, (tmp_path / "output.txt").read_text()
    stats = tmp_path / "cut" / "stats.jsonl"
    rng = np.random.default_rng()
    wanted = sorted(rng.integers(1, 19, kills).tolist())
    delays = rng.uniform(0, 0.05, kills).tolist()
    moments = f"ticks {wanted}, delays {delays}"  # so that a failure can be looked into
    for ticks, delay in zip(wanted, delays):
        process = start(tmp_path / "cut")
        # By the run's own log, not by the clock: the machine may be slow.
        while process.poll() is None and len(resumable.read_log(stats)) < ticks:
            time.sleep(0.002)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert start(tmp_path / "cut").wait(timeout=300) == 0, (tmp_path / "output.txt").read_text()
    whole, cut = content(tmp_path / "whole"), content(tmp_path / "cut")
    assert whole.keys() == cut.keys(), moments
    assert [name for name in whole if whole[name] != cut[name]] == [], moments
    chex.assert_trees_all_equal(final_state_of(tmp_path / "cut"), final_state_of(tmp_path / "whole"))


def test_a_network_that_is_not_the_runs_own_is_noticed(finished, tmp_path, capsys):
    """Replaced between the training and what is measured of it."""
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    for name in ("report.html", "claims.json", "stages/samples.npz"):
        (out / name).unlink()
    model = load_checkpoint(out)
    other = jax.tree.map(lambda leaf: 1.5 * leaf, model.denoiser.params)
    save_network(out / "network.npz", model.network, other, model.metadata)
    line = refusal(capsys, [*SMALL, "--out", str(out)])
    assert f"{out / 'network.npz'}: holds another network" in line and "give --out another directory" in line


def test_a_checkpoint_of_another_network_is_refused_untouched(finished):
    before = {file: file.read_bytes() for file in finished.rglob("*") if file.is_file()}
    config = small_config()
    for other in (replace(config.network, model_channels=8), replace(config.network, num_blocks=2)):
        with pytest.raises(InputError, match="not of this network") as error:
            trainer.train(replace(config, network=other), finished)
        assert "\n" not in str(error.value)
    assert {file: file.read_bytes() for file in finished.rglob("*") if file.is_file()} == before


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, monkeypatch):
    def diverging(network, state, *_, **__):
        for step in range(1, 9):
            yield state, {"step": step, "updates": 1, "loss": jax.numpy.float32(np.nan if step == 3 else 1.0)}

    monkeypatch.setattr(resumable, "train_steps", diverging)
    with pytest.raises(FloatingPointError, match="the training loss is nan in the tick that ends at step 4"):
        trainer.train(small_config(), tmp_path)
    assert [tick["step"] for tick in resumable.read_log(tmp_path / "stats.jsonl")] == [2]


def test_training_starts_from_a_checkpoint(finished, tmp_path):
    """With layers for labels of augmentation, which the checkpoint lacks, at their fresh start; without a ramp of the
    average.
    """
    before = load_checkpoint(finished)
    config = small_config()
    # The first update has a learning rate of 0: parameters are those of the start.
    tuned = replace(config.training, duration_kimg=0.016, augment_probability=0.2)
    path = trainer.train(replace(config, training=tuned, init_from=str(finished)), tmp_path)
    after = load_checkpoint(path)
    assert after.metadata["init_from"]["sha256"] == before.sha256
    assert after.metadata["training"]["ema_rampup_ratio"] is None
    params = dict(after.denoiser.params)
    assert not np.any(params.pop("map_augment")["kernel"])  # as an ADM starts it
    chex.assert_trees_all_close(params, before.denoiser.params, rtol=1e-6)


def test_overflowing_gradients_are_counted_in_the_log_and_do_not_spoil_the_network(tmp_path):
    config = small_config()
    scaled = replace(config.training, duration_kimg=0.064, loss_scaling=3e38)
    path = trainer.train(replace(config, training=scaled), tmp_path)
    counts = [tick["nonfinite"] for tick in resumable.read_log(tmp_path / "stats.jsonl")]
    assert 0 < counts[0] < counts[1]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(load_checkpoint(path).denoiser.params))
