"""What the training command refuses in one line: options, data, and directories that it cannot go on in."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from dgu import data
from dgu.core.checkpoint import TrainingCheckpoints
from dgu.core.errors import InputError
from dgu.training import resumable
from experiments import train as trainer
from tests.experiments.train_runs import (
    ROOT,
    SMALL,
    Killed,
    content,
    killed_at,
    refusal,
    small_config,
)


def write_images(path: Path, **more):
    """A file of 20 images of 8 x 8 pixels and 2 classes."""
    images = np.random.default_rng(0).integers(0, 255, (20, *more.get("shape", (8, 8)), 1), np.uint8)
    data.write_npz(path, images, np.arange(20, dtype=np.int32) % 2)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("--data nothing", "--data = 'nothing': must be one of"),
        ("--split val", "--split = 'val': must be one of ['test']"),
        ("--size 0", "--size = 0: must be 1 or more"),
        ("--size 9", "--size = 9: must be"),
        ("--max-size -3", "--max-size = -3: must be 1 or more"),
        ("--tick-kimg 0", "--tick-kimg = 0.0: must be positive"),
        ("--data oblong.npz --split train --size None", "--data = 'oblong.npz': must be square images, not 8 x 6"),
        ("--data square.npz --split train --size None --network.channel-mult 1 1 1 1 1", "img_resolution = 8: must be"),
        ("--network.model-channels 0", "--network.model-channels = 0: must be 1 or more"),
        ("--network.num-blocks 0", "--network.num-blocks = 0: must be 1 or more"),
        ("--network.dropout 1", "--network.dropout = 1.0: must be in [0, 1)"),
        ("--network.sigma-data 0", "--network.sigma-data = 0.0: must be positive"),
        ("--network.compute-dtype float16", "--network.compute-dtype = 'float16': must be one of float32, bfloat16"),
        ("--training.batch-size 0", "--training.batch-size = 0: must be at least 1"),
        ("--training.batch-size 13", "--training.batch-size = 13: must be a multiple of the 2 devices"),
        ("--training.micro-batch 5", "--training.micro-batch = 5: must be a divisor of batch_size 16"),
        ("--training.duration-kimg -1", "--training.duration-kimg = -1.0: must be positive"),
        ("--training.learning-rate nan", "--training.learning-rate = nan: must be positive"),
        ("--training.augment-probability 2", "--training.augment-probability = 2.0: must be in [0, 1]"),
        ("--training.loss ddpm", "--training.loss = 'ddpm': must be one of edm, vp, ve"),
        ("--network.architecture unet", "--network.architecture = 'unet': must be one of adm, ddpmpp, ncsnpp"),
        ("--network.preconditioning vp --network.sigma-data 0.6", "--network.sigma-data = 0.6: must be left at 0.5"),
        ("--init-from nothing", "--init-from = 'nothing': must be one of fashion-mnist-14"),
        ("--init-from fashion-mnist-14", "--init-from = 'fashion-mnist-14': must be a network of this architecture"),
        ("--out square.npz", "--out = 'square.npz': must be a directory"),
        ("--out .", "--out = '.': must be new, empty, or a run's own directory"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, capsys, options, line):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "square.npz")
    write_images(tmp_path / "oblong.npz", shape=(8, 6))
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    monkeypatch.setattr(resumable, "initial_state", None)  # no work before the refusal
    with pytest.raises(SystemExit) as exit_:
        trainer.main([*SMALL, *options.split()])
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and error.startswith(f"train: {line}") and error.count("\n") == 1
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_data_replaced_between_a_kill_and_its_resume_are_noticed(tmp_path, monkeypatch, capsys):
    """By the command, and by the function that other studies call, which has only its checkpoints to go by."""
    path, out = tmp_path / "set.npz", tmp_path / "run"
    # Of the shapes of the bundled images, so that nothing is compiled anew.
    images, labels = (
        np.random.default_rng(0).integers(0, 255, (64, 14, 14, 1), np.uint8),
        np.arange(64, dtype=np.int32) % 10,
    )
    data.write_npz(path, images, labels)
    good = path.read_bytes()
    command = [*SMALL, "--data", str(path), "--split", "train", "--out", str(out)]
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, resumable, "save_network", 1)
        trainer.main(command)
    data.write_npz(path, 255 - images, labels)
    before = content(out)
    assert refusal(capsys, command).startswith(
        f"train: --data = {str(path)!r}: must be what the run in {str(out)!r} was"
    )
    config = replace(small_config(), data=str(path), split="train")
    with pytest.raises(InputError, match=r"of another training \(data\.sha256 is"):
        trainer.train(config, out)
    assert content(out) == before
    path.write_bytes(good)
    trainer.main(command)
    assert json.loads((out / "metrics.json").read_text())["data_sha256"] == data.load(path).sha256


def test_a_directory_removed_while_training_is_one_line_and_is_not_made_anew(tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    for owner, name in ((resumable, "_append"), (TrainingCheckpoints, "save")):
        original = getattr(owner, name)

        def removed(*args, original=original):
            shutil.rmtree(out)
            return original(*args)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, removed)
            assert str(out) in refusal(capsys, [*SMALL, "--out", str(out)])
        assert not out.exists()


def test_a_log_that_lacks_ticks_is_one_line(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, resumable, "save_network", 1)
        trainer.main([*SMALL, "--out", str(tmp_path)])
    log = tmp_path / "stats.jsonl"
    good = log.read_bytes()
    for damaged in (
        b"",
        good.splitlines(keepends=True)[1],
        good.replace(b"{", b"("),
        good.decode().encode("utf-16"),
        b"3\n",
    ):
        log.write_bytes(damaged)
        line = refusal(capsys, [*SMALL, "--out", str(tmp_path)])
        assert str(log) in line and "to train from the start" in line
    log.write_bytes(good)
    trainer.main([*SMALL, "--out", str(tmp_path)])


def test_a_log_of_other_values_or_a_pipe_is_one_line(tmp_path):
    log = tmp_path / "stats.jsonl"
    good = {"step": 8, "images_seen": 128, "loss": 0.5, "nonfinite": 0}
    log.write_text(json.dumps(good) + "\n")
    assert resumable.read_log(log) == [good]
    for wrong in (
        {"loss": float("nan")},
        {"loss": "a"},
        {"step": "8"},
        {"step": True},
        {"images_seen": 1.5},
        {"nonfinite": None},
    ):
        log.write_text(json.dumps(good) + "\n" + json.dumps(good | wrong) + "\n")
        with pytest.raises(InputError, match=rf"stats\.jsonl: line 2: {next(iter(wrong))} is .*train from the start"):
            resumable.read_log(log)
    log.unlink()
    os.mkfifo(log)
    with pytest.raises(InputError, match=r"stats\.jsonl: is a named pipe"):
        resumable.read_log(log)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="needs a small disk of its own")
def test_a_full_disk_while_training_is_one_line_and_the_run_goes_on_when_there_is_room(tmp_path):
    """Ever larger disks, so that it is full at ever later moments; at last the bytes of a run that had room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment |= {"JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir, "JAX_PLATFORMS": "cpu"}

    def train(out):
        command = [sys.executable, "-m", "experiments.train", *SMALL, "--out", str(out)]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)

    assert train(tmp_path / "whole").returncode == 0
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(disk)], check=True)
    try:
        full = 0
        for size in (4, 16, 48, 96, 128, 160, 192, 224, 256, 320, 400, 20_000):
            subprocess.run(["mount", "-o", f"remount,size={size}k", str(disk)], check=True)
            done = train(disk / "run")
            if done.returncode == 0:
                break
            full += 1
            *progress, line = done.stderr.splitlines()
            assert done.returncode == 2 and line.startswith("train: ") and "No space left" in line, done.stderr
            assert all(other.startswith("training: ") for other in progress), done.stderr
        assert full >= 3 and content(disk / "run") == content(tmp_path / "whole")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
