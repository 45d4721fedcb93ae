"""The log of a training as scalars for TensorBoard."""

import importlib.util
import json
import sys

import pytest

from experiments import scalars
from experiments import train as trainer
from tests.experiments.train_runs import SMALL, Killed


def lines(folder):
    """Every (name, step, value) in the event files of a folder, read by the library's own protocol buffers."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for file in sorted(folder.iterdir()):
        held = file.read_bytes()
        while held:  # A record: its length, 8 bytes; a checksum, 4; itself; a checksum, 4.
            end = 12 + int.from_bytes(held[:8], "little")
            event, held = Event.FromString(held[12:end]), held[end + 4 :]
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
    return found


def log_lines(out):
    return [json.loads(line) for line in (out / "stats.jsonl").read_text().splitlines()]


def test_without_the_library_one_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(SystemExit) as end:
        trainer.main([*SMALL, "--tensorboard", "--out", str(tmp_path / "run")])
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1
    assert "--tensorboard = True: needs tensorboardX; bring it with: pip install 'dgu[tensorboard]'" in error
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert scalars.writer(False) is None  # Nobody else needs it.


class Board:
    """Stands for the library's writer: what it was given."""

    def __init__(self, folder):
        self.folder, self.held, self.closed = folder, [], False
        folder.mkdir()

    def add_scalar(self, name, value, step):
        self.held.append((name, step, value))

    def flush(self):
        pass

    def close(self):
        self.closed = True


def test_lines_are_written_once_each_as_they_come(tmp_path):
    boards, log = [], tmp_path / "stats.jsonl"
    (tmp_path / scalars.FOLDER).mkdir()
    (tmp_path / scalars.FOLDER / "of-a-killed-training").touch()

    def make(folder):
        boards.append(Board(folder))
        return boards[-1]

    def tick(step):
        with log.open("a") as file:
            file.write(json.dumps({"step": step, "images_seen": 16 * step, "loss": 1 / step, "nonfinite": 0}) + "\n")

    tick(1)
    with pytest.raises(Killed), scalars.following(tmp_path, make) as follow:
        assert boards == []
        for step in (2, 3):
            follow()
            follow()
            tick(step)
        follow()
        raise Killed
    (board,) = boards
    assert board.closed and not list(board.folder.iterdir())
    losses = [(step, value) for name, step, value in board.held if name == "training/loss"]
    assert losses == [(1, 1.0), (2, 0.5), (3, 1 / 3)] and len(board.held) == 9


@pytest.mark.skipif(importlib.util.find_spec("tensorboardX") is None, reason="needs the extra tensorboard")
@pytest.mark.filterwarnings("default")  # Of the library, and of protobuf, which it imports.
def test_the_files_hold_the_log(tmp_path):
    out = tmp_path / "run"
    trainer.main([*SMALL, "--tensorboard", "--out", str(out)])
    logged = log_lines(out)
    wanted = [("training/loss", line["step"], pytest.approx(line["loss"], rel=1e-6)) for line in logged]
    assert [one for one in lines(out / scalars.FOLDER) if one[0] == "training/loss"] == wanted and len(wanted) == 4
