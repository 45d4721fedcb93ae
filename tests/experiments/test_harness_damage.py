"""Directories that are damaged, removed, full or in the way: one line from the command, and nothing lost."""

import errno
import json
import os
from pathlib import Path

import pytest

from dgu.core.errors import InputError
from experiments.study.command_line import run_experiment
from experiments.study.inputs import reading
from experiments.study.judged import JudgedClaim
from experiments.study.report import Report
from tests.experiments.fake_runs import Config, contents


def study(config, directory):
    with reading("samples", config.samples, config.samples):
        Path(config.samples).read_bytes()
    total = directory.stage("draw", lambda: {"total": config.seed})["total"]
    directory.stage("more", lambda: {"total": config.seed})
    directory.write_json("metrics.json", {"total": total})
    claim = JudgedClaim(
        id="big",
        paper="own",
        figure="",
        statement="Large.",
        value=1.0,
        interval=(1.0, 1.0),
        kind="at least",
        bounds=(0,),
        unit="",
        exact=True,
    )
    return Report("Study", "Done.", [claim])


def invoke(*argv, run=study):
    return run_experiment({"smoke": Config(), "default": Config()}, run, name="fake", argv=list(argv))


@pytest.fixture
def command(tmp_path):
    """A finished run in ``out``, and its command."""
    (tmp_path / "samples.npz").write_bytes(b"first")
    command = ["--out", str(tmp_path / "out"), "--samples", str(tmp_path / "samples.npz")]
    invoke(*command)
    return command


def line_of(capsys, command, **more):
    """The line with which a command ends, its code being 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        invoke(*command, **more)
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and error.startswith("fake: ") and error.count("\n") == 1, error
    return error


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"NaN", "{}".encode("utf-16"), b'{"draw": NaN, "more": "x"}'])
def test_damaged_timings_stop_no_run(tmp_path, command, content):
    for name in ("report.html", "stages/more.npz"):
        (tmp_path / "out" / name).unlink()
    (tmp_path / "out/timings.json").write_bytes(content)
    invoke(*command)
    assert list(json.loads((tmp_path / "out/timings.json").read_text())) == ["more"]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'[{"id": "big"}]', "[]".encode("utf-16"), b"[" * 100_000])
def test_damaged_claims_are_one_line_and_made_again(tmp_path, capsys, command, content):
    claims = tmp_path / "out/claims.json"
    good = claims.read_bytes()
    claims.write_bytes(content)
    line = line_of(capsys, command)
    assert str(claims) in line and "remove it" in line
    claims.unlink()
    invoke(*command)
    assert claims.read_bytes() == good


@pytest.mark.parametrize("content", [b"", b"{", b"[]", '{"seed": 0}'.encode("utf-16"), b'{"a":' * 100_000])
def test_a_damaged_configuration_is_one_line(tmp_path, capsys, command, content):
    (tmp_path / "out/config.json").write_bytes(content)
    before = contents(tmp_path)
    line = line_of(capsys, command)
    assert "config.json" in line and f"--out = {str(tmp_path / 'out')!r}" in line
    assert contents(tmp_path) == before


def test_a_finished_run_is_not_read_back_for_another_file_of_the_same_name(tmp_path, capsys, command):
    (tmp_path / "samples.npz").write_bytes(b"second")
    assert line_of(capsys, command).startswith(f"fake: --samples = {str(tmp_path / 'samples.npz')!r}: must be what")
    (tmp_path / "samples.npz").unlink()
    assert invoke(*command)[0].id == "big"  # The results are there, whatever became of the file.


def test_a_directory_removed_while_its_run_goes_on_is_one_line_and_is_not_made_anew(tmp_path, capsys):
    import shutil

    (tmp_path / "samples.npz").write_bytes(b"first")

    def run(config, directory):
        directory.stage("draw", lambda: {"x": 1})
        shutil.rmtree(directory.path)
        directory.stage("more", lambda: {"x": 1})

    line = line_of(capsys, ["--out", str(tmp_path / "out"), "--samples", str(tmp_path / "samples.npz")], run=run)
    assert "was removed while the run went on" in line
    assert list(contents(tmp_path)) == ["samples.npz"] and not (tmp_path / "out").exists()


def test_a_full_disk_is_one_line_and_what_is_stored_stays(tmp_path, capsys, monkeypatch):
    (tmp_path / "samples.npz").write_bytes(b"first")
    command = ["--out", str(tmp_path / "out"), "--samples", str(tmp_path / "samples.npz")]

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert "No space left on device" in line_of(capsys, command)
    assert not (tmp_path / "out").exists()

    def run(config, directory):
        directory.stage("draw", lambda: {"total": config.seed})
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            directory.stage("more", lambda: {"total": config.seed})

    assert "more.npz" in line_of(capsys, command, run=run)
    assert sorted(contents(tmp_path / "out")) == ["config.json", "stages/draw.npz", "timings.json"]
    invoke(*command)


def test_an_early_refusal_forgets_the_configuration_and_empty_folders(tmp_path, capsys):
    def run(config, directory):
        (directory.path / "samples").mkdir()
        (directory.path / "samples/store.json").write_text("{}")
        (directory.path / "training/checkpoints").mkdir(parents=True)
        (directory.path / "training/stats.jsonl").write_text("")
        raise InputError("seed = 0: must be something else")

    assert "--seed = 0" in line_of(capsys, ["--out", str(tmp_path / "out")], run=run)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"[]", b"{}", b'""', b"0"])
def test_claims_that_lack_what_the_report_has_are_not_a_finished_run(tmp_path, capsys, command, content):
    claims = tmp_path / "out/claims.json"
    claims.write_bytes(content)
    line = line_of(capsys, command)
    assert str(claims) in line and "remove it" in line
    claims.unlink()
    assert invoke(*command)[0].id == "big"


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b'{"x": {"file": 3, "content": 4}}',
        b'{"x": {"file": ["a"], "content": null}}',
        b'{"x": {"file": "a"}}',
    ],
)
def test_a_damaged_record_of_inputs_is_not_to_be_removed(tmp_path, capsys, command, content):
    (tmp_path / "out/inputs.json").write_bytes(content)
    line = line_of(capsys, command)
    assert "inputs.json" in line and "give --out another directory" in line and "remove" not in line


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("dangling", "dangling is a link to nothing"),
        ("loop", "loop is a link in a circle"),
        ("file", "file is a file"),
        ("file/x/y", "file is a file"),
        ("loop/x", "loop is a link in a circle"),
        ("a" * 5000, "File name too long"),
        ("abcdefgh/" * 600, "File name too long"),
    ],
)
def test_directories_that_cannot_be_made_are_one_line_that_says_why(tmp_path, capsys, monkeypatch, kind, reason):
    monkeypatch.chdir(tmp_path)
    Path("dangling").symlink_to("nowhere")
    Path("loop").symlink_to("loop")
    Path("file").write_text("mine")
    line = line_of(capsys, ["--out", kind])
    assert line.startswith("fake: --out = ") and f"({reason})" in line and len(line) < 700
    assert sorted(os.listdir()) == ["dangling", "file", "loop"] and Path("file").read_text() == "mine"


@pytest.mark.parametrize("name", ["stages", "figures", "images", "samples", "checkpoints"])
def test_a_file_in_the_place_of_a_runs_folder_is_one_line_before_any_work(tmp_path, capsys, command, name):
    import shutil

    out = tmp_path / "out"
    (out / "report.html").unlink()
    shutil.rmtree(out / name, ignore_errors=True)
    (out / name).write_text("mine")
    line = line_of(capsys, command, run=lambda config, directory: pytest.fail("work was done"))
    assert f"{out / name} is a file" in line and "must be a folder" in line
