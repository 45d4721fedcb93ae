"""The training command: the same bits after any interruption, one-line refusals, what a run leaves behind."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import chex
import jax
import numpy as np
import pytest

from dgu import data
from dgu.core.checkpoint import TrainingCheckpoints
from dgu.core.errors import InputError
from dgu.models import load_checkpoint, save_network
from dgu.training import initial_state, resumable
from experiments import train as trainer
from experiments.study.flop import matmul_flop

ROOT = Path(__file__).parents[2]
SMALL = ["--preset", "smoke", "--network.model-channels", "4", "--network.channel-mult", "1"]
pytestmark = pytest.mark.usefixtures("hasty_compiler")


def content(folder: Path) -> dict[str, bytes]:
    """What must not depend on interruptions: all but the times, Orbax's own records, and the report that shows
    times.
    """
    left_out = re.compile(r"checkpoints/|timings.json|report.html")
    files = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    return {name: held for name, held in files.items() if not left_out.match(name)}


def final_state_of(folder: Path):
    """Every array of the last checkpoint: parameters, average, moments, counts."""
    model = load_checkpoint(folder)
    config = trainer.TrainingConfig(**model.metadata["training"])
    with TrainingCheckpoints(folder / "checkpoints") as checkpoints:
        return jax.device_get(checkpoints.load(initial_state(model.network, config)))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The directory of a finished run."""
    out = tmp_path_factory.mktemp("train") / "run"
    trainer.main([*SMALL, "--out", str(out)])
    return out


def test_what_a_run_leaves_behind(finished):
    assert content(finished).keys() == {
        *("config.json", "metrics.json", "claims.json", "stats.jsonl", "network.npz"),
        *("stages/training.npz", "stages/samples.npz", "figures/loss.png", "figures/samples.png"),
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
    ticks = trainer.read_log(finished / "stats.jsonl")
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


class Killed(BaseException):
    """Stands for a kill: nothing in the code catches it."""


def killed_at(monkeypatch, owner, name, call, first=lambda *args: None):
    """Let the function ``name`` raise at call number ``call``, after ``first`` was given its arguments."""
    original, calls = getattr(owner, name), []

    def replacement(*args):
        calls.append(args)
        if len(calls) == call:
            first(*args)
            raise Killed
        return original(*args)

    monkeypatch.setattr(owner, name, replacement)


def half_a_line(path, line):
    with path.open("a") as file:
        file.write(line[: len(line) // 2])


def small_config() -> trainer.Config:
    """The configuration that SMALL stands for."""
    smoke = trainer.PRESETS["smoke"]
    return replace(smoke, network=replace(smoke.network, model_channels=4, channel_mult=(1,)))


#: Where a run is killed, and the images seen where the run that follows goes on. A tick is two steps of 16 images, a
#: checkpoint two ticks.
PLACES = {
    "in the first tick": ((np, "mean", 1), 0),
    "in a line of the log": ((resumable, "_append", 3, half_a_line), 64),
    "between log and checkpoint": ((TrainingCheckpoints, "save", 1), 0),
    "between checkpoint and network": ((resumable, "save_network", 1), 64),
    "between the last checkpoint and its network": ((resumable, "save_network", 2), 128),
}


@pytest.mark.parametrize("place", PLACES)
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


@pytest.mark.parametrize("kills", [1, pytest.param(3, marks=pytest.mark.slow)])
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
        while process.poll() is None and len(trainer.read_log(stats)) < ticks:
            time.sleep(0.002)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert start(tmp_path / "cut").wait(timeout=300) == 0, (tmp_path / "output.txt").read_text()
    whole, cut = content(tmp_path / "whole"), content(tmp_path / "cut")
    assert whole.keys() == cut.keys(), moments
    assert [name for name in whole if whole[name] != cut[name]] == [], moments
    chex.assert_trees_all_equal(final_state_of(tmp_path / "cut"), final_state_of(tmp_path / "whole"))


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


def refusal(capsys, command):
    """The line with which a command ends, its code being 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        trainer.main(command)
    *progress, line = capsys.readouterr().err.splitlines()
    assert exit_.value.code == 2 and line.startswith("train: "), line
    assert all(other.startswith("training: ") for other in progress), progress
    return line


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
    assert trainer.read_log(log) == [good]
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
            trainer.read_log(log)
    log.unlink()
    os.mkfifo(log)
    with pytest.raises(InputError, match=r"stats\.jsonl: is a named pipe"):
        trainer.read_log(log)


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


def test_a_checkpoint_of_another_network_is_refused_untouched(finished):
    before = {file: file.read_bytes() for file in finished.rglob("*") if file.is_file()}
    config = small_config()
    for other in (replace(config.network, model_channels=8), replace(config.network, num_blocks=2)):
        with pytest.raises(InputError, match="not of this network") as error:
            trainer.train(replace(config, network=other), finished)
        assert "\n" not in str(error.value)
    assert {file: file.read_bytes() for file in finished.rglob("*") if file.is_file()} == before


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, monkeypatch):
    def diverging(network, state, *_):
        for step in range(1, 9):
            yield state, {"step": step, "loss": jax.numpy.float32(np.nan if step == 3 else 1.0)}

    monkeypatch.setattr(resumable, "train_steps", diverging)
    with pytest.raises(FloatingPointError, match="the training loss is nan in the tick that ends at step 4"):
        trainer.train(small_config(), tmp_path)
    assert [tick["step"] for tick in trainer.read_log(tmp_path / "stats.jsonl")] == [2]


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
    counts = [tick["nonfinite"] for tick in trainer.read_log(tmp_path / "stats.jsonl")]
    assert 0 < counts[0] < counts[1]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(load_checkpoint(path).denoiser.params))


@pytest.mark.parametrize(
    ("preset", "conditional", "parameters", "gflop"),
    [
        ("paper", True, 295_899_267, 219.33),
        ("cifar10-ddpmpp", False, 55_733_891, 42.38),
        ("cifar10-ddpmpp", True, 55_735_299, 42.38),
        ("cifar10-ncsnpp", False, 56_397_827, 42.79),
        ("cifar10-ncsnpp", True, 56_400_643, 42.79),
        ("ffhq-ddpmpp", False, 61_805_571, 83.73),
        ("afhqv2-ncsnpp", False, 62_761_091, 84.86),
    ],
)
def test_presets_are_the_published_networks(preset, conditional, parameters, gflop):
    config = trainer.PRESETS[preset]
    known = {**trainer._SHAPES, **trainer._FILES}
    augment = config.training.augment_probability > 0
    network = trainer.build_network(
        replace(config.network, conditional=conditional), *known.get(config.data, trainer._IMAGENET), augment=augment
    )
    assert network.parameter_count == parameters
    float32 = lambda *shape: jax.ShapeDtypeStruct(shape, jax.numpy.float32)  # noqa: E731
    counted = matmul_flop(network.apply, network.abstract_params, float32(*network.shape), float32())
    assert abs(counted / (gflop * 1e9) - 1) < 0.005


def test_published_presets_have_the_published_recipe():
    """Duration, batch, learning rate, half-life of the average, dropout, augmentation, 16-bit floats and loss
    scaling.
    """
    expected = {
        "paper": (2.5e6, 4096, 1e-4, 5e4, 0.10, 0, "bfloat16", 100),
        "cifar10-ddpmpp": (2e5, 512, 1e-3, 500, 0.13, 0.12, "float32", 1),
        "cifar10-ncsnpp": (2e5, 512, 1e-3, 500, 0.13, 0.12, "float32", 1),
        "ffhq-ddpmpp": (2e5, 256, 2e-4, 500, 0.05, 0.15, "float32", 1),
        "ffhq-ncsnpp": (2e5, 256, 2e-4, 500, 0.05, 0.15, "float32", 1),
        "afhqv2-ddpmpp": (2e5, 256, 2e-4, 500, 0.25, 0.15, "float32", 1),
        "afhqv2-ncsnpp": (2e5, 256, 2e-4, 500, 0.25, 0.15, "float32", 1),
    }
    assert trainer.PRESETS.keys() == {"smoke", "default"} | expected.keys()
    for name, values in expected.items():
        t, n = trainer.PRESETS[name].training, trainer.PRESETS[name].network
        assert values == (
            *(t.duration_kimg, t.batch_size, t.learning_rate, t.ema_halflife_kimg, n.dropout, t.augment_probability),
            *(n.compute_dtype, t.loss_scaling),
        )  # fmt: skip


@pytest.mark.slow
def test_the_papers_sizes_are_costed_without_the_data(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    costs = []
    original = trainer.dry_run
    monkeypatch.setattr(trainer, "dry_run", lambda config: costs.extend(original(config)) or costs)
    trainer.main(["--preset", "paper", "--dry-run"])
    out, first = capsys.readouterr().out, costs[0].memory
    assert "taken for 3 x 64 x 64 images of 1000 classes" in out and "2,500,001,792" in out
    per_image = costs[1].flop / costs[1].network_evaluations
    assert abs(per_image / 219.33e9 - 1) < 0.005
    assert costs[1].memory == 4 * 295_899_267
    assert not list(tmp_path.iterdir())
    costs.clear()
    trainer.main(["--preset", "paper", "--network.remat", "--dry-run"])
    assert costs[0].memory < 0.2 * first
