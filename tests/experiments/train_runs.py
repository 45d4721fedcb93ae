"""What the tests of the training command share: a small training, what it leaves behind, kills and refusals."""

import re
from dataclasses import replace
from pathlib import Path

import jax
import pytest

from dgu.core.checkpoint import TrainingCheckpoints
from dgu.models import load_checkpoint
from dgu.training import TrainingConfig, initial_state
from experiments import train as trainer

ROOT = Path(__file__).parents[2]
SMALL = ["--preset", "smoke", "--network.model-channels", "4", "--network.channel-mult", "1"]


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
    stored = model.metadata["training"]
    config = TrainingConfig(**stored | {"power_ema_stds": tuple(stored["power_ema_stds"])})
    with TrainingCheckpoints(folder / "checkpoints") as checkpoints:
        return jax.device_get(checkpoints.load(initial_state(model.network, config)))


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


def refusal(capsys, command):
    """The line with which a command ends, its code being 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        trainer.main(command)
    *progress, line = capsys.readouterr().err.splitlines()
    assert exit_.value.code == 2 and line.startswith("train: "), line
    assert all(other.startswith("training: ") for other in progress), progress
    return line
