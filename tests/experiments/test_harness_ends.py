"""Ends of runs: whatever stops a command is one line that says what to do, and nothing that was stored or measured is
lost.
"""

import dataclasses
import errno
import io
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
import tyro

from dgu.core import files
from dgu.core.errors import InputError, require
from experiments import metrics
from experiments.study import run_directory
from experiments.study.command_line import run_experiment
from experiments.study.ends import in_one_line
from experiments.study.progress import Progress
from experiments.study.report import Report
from tests.experiments.commands import exit_code

ROOT = Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 18
    """Steps of the walk."""
    class_: Annotated[int | None, tyro.conf.arg(name="class")] = None
    """Class of the walker."""
    samples: str | None = None
    """Images to use."""


PRESETS = {"smoke": Config(1), "default": Config()}


def study(config, directory):
    require(config.samples is None, "samples", config.samples, "left out")
    directory.stage("walk", lambda: {"steps": config.steps})
    directory.write_json("metrics.json", {"steps": config.steps})
    return Report("A walk", "It walks.", [])


def invoke(run, *argv):
    return run_experiment(PRESETS, run, name="walk", argv=list(map(str, argv)))


def ended(capsys, run, *argv):
    """Exit code and lines on standard error of a command that does not succeed."""
    with pytest.raises(SystemExit) as exit_:
        invoke(run, *argv)
    return exit_.value.code, capsys.readouterr().err.splitlines()


FAKE = textwrap.dedent(
    '''
    import dataclasses, time
    from experiments.study.command_line import run_experiment
    from experiments.study.costs import Cost

    @dataclasses.dataclass(frozen=True)
    class Config:
        steps: int = 18
        """Steps of the walk."""

    def run(config, directory):
        directory.stage("first", lambda: {"steps": config.steps})
        print("ready", flush=True)
        time.sleep(60)

    run_experiment({"smoke": Config(), "default": Config()}, run, name="walk", dry_run=lambda config: [Cost("walk", 1)])
    '''
)


@pytest.fixture
def start(tmp_path):
    (tmp_path / "walk.py").write_text(FAKE)
    started = []

    def begin(*arguments, **more):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
        more = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **more}
        command = [sys.executable, "walk.py", *arguments]
        # As from a terminal: a test run in the background of a shell ignores Ctrl-C, and so would what it starts.
        before = signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            started.append(subprocess.Popen(command, cwd=tmp_path, env=environment, **more))
        finally:
            signal.signal(signal.SIGINT, before)
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()
        for pipe in filter(None, (process.stdout, process.stderr)):
            pipe.close()


@pytest.mark.parametrize(
    ("number", "word", "code"), [(signal.SIGINT, "interrupted", 130), (signal.SIGTERM, "terminated", 143)]
)
def test_a_signal_is_one_line_that_says_how_to_go_on(start, tmp_path, number, word, code):
    process = start("--out", "out")
    while process.stdout.readline().strip() != "ready":
        assert process.poll() is None
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (code, f"walk: {word}; the same command again goes on from what is stored\n")
    assert (tmp_path / "out/config.json").exists() and (tmp_path / "out/stages/first.npz").exists()


def test_nobody_reads_and_full_disks(start):
    process = start("--help")
    process.stdout.close()  # As of `| head` that has seen enough.
    assert process.wait(timeout=60) in (0, 141) and process.stderr.read() == ""
    with open("/dev/full", "w") as full:
        process = start("--dry-run", stdout=full)
        assert process.wait(timeout=60) == 1
        assert process.stderr.read() == "walk: No space left on device; free space and run the same command again\n"
        process = start("--steps", "x", stderr=full)
        assert process.wait(timeout=60) in (2, 120)


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_closed_stream_stops_no_run(tmp_path, capsys, monkeypatch, name):
    """After ``>&-`` Python has None in its place."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, name, None)
        assert invoke(study, "--out", tmp_path / "out") == ()
        with pytest.raises(SystemExit) as exit_:
            invoke(study, "--steps", "x")
        assert exit_.value.code == 2
    shown = capsys.readouterr()
    assert (tmp_path / "out/report.html").exists()
    assert shown.out == "" if name == "stdout" else "in" in shown.out and "must be" not in shown.out


def test_a_finished_run_is_read_where_nothing_can_be_written(tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    invoke(study, "--out", out)
    (out / ".left.1.tmp").write_text("of a killed process")
    printed = capsys.readouterr().out.splitlines()[-1]

    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "access", lambda path, mode: mode & os.W_OK == 0)
    monkeypatch.setattr(run_directory, "write_atomic", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    assert invoke(study, "--out", out) == ()
    assert capsys.readouterr().out.splitlines()[-1] == printed
    monkeypatch.undo()
    (out / "report.html").unlink()
    monkeypatch.setattr(os, "access", lambda path, mode: mode & os.W_OK == 0)
    code, lines = ended(capsys, study, "--out", out)
    assert code == 2 and len(lines) == 1 and "must be a directory that can be written to" in lines[0]


def test_a_terminal_that_lacks_the_letters_and_names_with_escape_sequences(tmp_path, monkeypatch):
    out = tmp_path / "n\u00e4me \x1b[31m \udcff"
    for _ in range(2):  # A first run, then a finished one.
        screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        monkeypatch.setattr(sys, "stdout", screen)
        invoke(study, "--out", out)
        screen.flush()
        shown = screen.buffer.getvalue().decode("ascii")
        assert "n\\xe4me \\x1b[31m \\udcff/report.html" in shown and "\x1b" not in shown
        assert screen.errors == "strict"


def test_a_changed_option_is_named_as_typed_and_a_refused_run_leaves_nothing(tmp_path, capsys):
    code, lines = ended(capsys, study, "--out", tmp_path / "out", "--samples", "a.npz")
    assert code == 2 and lines == ["walk: --samples = 'a.npz': must be left out"]
    assert not (tmp_path / "out").exists()
    for bad in (("--steps", "1e9"), ("--steps", str(10**20)), ("--samples", "")):
        code, lines = ended(capsys, study, "--out", tmp_path / "out", *bad)
        assert code == 2 and len(lines) == 1 and bad[0] in lines[0] and not (tmp_path / "out").exists()
    invoke(study, "--out", tmp_path / "out", "--class", 3)
    code, lines = ended(capsys, study, "--out", tmp_path / "out", "--class", 4)
    assert code == 2 and lines[0].startswith("walk: --class = 4: must be 3 as stored")


def test_a_directory_that_is_removed_while_it_runs(tmp_path, capsys):
    def run(config, directory):
        directory.stage("first", lambda: {"a": 1})
        shutil.rmtree(directory.path)
        directory.stage("second", lambda: {"b": 2})

    code, lines = ended(capsys, run, "--out", tmp_path / "out")
    assert code == 2 and len(lines) == 1 and "was removed while the run went on" in lines[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.ENOSPC, "No space left on device); free space and run the same command again"),
        (errno.EDQUOT, "Disk quota exceeded); free space and run the same command again"),
        (errno.EROFS, "Read-only file system); must be on a disk that is not read-only"),
        (errno.EACCES, "Permission denied); must be in a folder that you may write to"),
        (errno.ENOENT, "No such file or directory); must be in a folder that exists"),
    ],
)
def test_what_the_system_says_of_a_write_is_said(tmp_path, capsys, number, text):
    def fail(file):
        file.write(b"half")
        raise OSError(number, os.strerror(number))

    with pytest.raises(InputError) as refused:
        files.write_atomic(tmp_path / "file", fail)
    assert text in str(refused.value) and not os.listdir(tmp_path)

    def run(config, directory):
        directory.stage("first", lambda: {"a": 1})
        raise OSError(number, os.strerror(number), "stats.jsonl")

    code, lines = ended(capsys, run, "--out", tmp_path / "out")
    assert code == 1 and lines == [
        f"walk: stats.jsonl: {text.replace(')', '', 1)}" + lines[0][len(f"walk: stats.jsonl: {text}") - 1 :]
    ]
    assert (tmp_path / "out/stages/first.npz").exists()


def test_a_file_below_a_file_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Not a directory"):
        files.write_atomic(tmp_path / "file" / "below", lambda file: None)


@pytest.mark.parametrize(
    "error",
    [MemoryError("Unable to allocate 3 TiB"), RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 3 TiB")],
)
def test_too_little_memory_is_one_line_and_other_errors_are_not_hidden(capsys, error):
    with pytest.raises(SystemExit) as exit_, in_one_line("walk"):
        raise error
    assert exit_.value.code == 1
    assert "not enough memory" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="a fault"), in_one_line("walk"):
        raise RuntimeError("a fault")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_checkpoint_that_cannot_be_written_is_one_line(capsys):
    with pytest.raises(SystemExit) as exit_, in_one_line("walk"):
        raise ValueError(
            'RESOURCE_EXHAUSTED: Failed writing: "/run/state/d/cff": Failed to write 6 bytes to file 8: No space left on device '
            "[os_error_code='28']"
        )
    assert exit_.value.code == 1
    line = "walk: /run/state/d/cff: No space left on device; free space and run the same command again\n"
    assert capsys.readouterr().err == line


def test_progress_that_cannot_be_shown_does_not_stop_the_work():
    class Full(io.StringIO):
        tty = False

        def isatty(self):
            return self.tty

        def write(self, text):
            raise OSError(errno.ENOSPC, "No space left on device")

    for tty in (False, True):
        stream = Full()
        stream.tty = tty
        with Progress("work", total=3, stream=stream, every=0.0) as bar:
            for _ in range(3):
                bar.update()
        assert bar.done == 3


def test_metrics_shows_what_it_measured_where_it_cannot_be_written(tmp_path, capsys, monkeypatch):
    rows = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", rows)

    def full(path, write):
        raise InputError(f"{path}: cannot be written (Read-only file system)")

    monkeypatch.setattr(metrics, "write_atomic", full)
    argv = ["--features", str(tmp_path / "a.npy"), "--reference", str(tmp_path / "b.npy"), "--out"]
    assert exit_code(metrics.main, [*argv, str(tmp_path / "out.json")]) == 2
    found = capsys.readouterr()
    assert "frechet_distance: " in found.out and found.err.count("\n") == 1 and "Read-only" in found.err
    assert exit_code(metrics.main, [*argv, str(tmp_path / "none" / "out.json")]) == 2
    found = capsys.readouterr()
    assert found.out == "" and "a file in a folder that exists" in found.err  # Said before any work.
    assert exit_code(metrics.main, ["--reference", "b.npy"]) == 2
    assert capsys.readouterr().err == "metrics: --features: needs a value, a path\n"
