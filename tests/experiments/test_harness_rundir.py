"""Run directories: whole files or none, resumed stages, refused configurations, equal bytes."""

import dataclasses
import io
import json
import math
import os
import time

import numpy as np
import pytest

from dgu.core.errors import InputError
from dgu.core.prng import GENERATOR
from experiments.study import run_directory
from experiments.study.progress import Progress, progress
from experiments.study.run_directory import RunDirectory


@dataclasses.dataclass(frozen=True)
class Inner:
    num_steps: int = 18
    s_max: float = math.inf


@dataclasses.dataclass(frozen=True)
class Config:
    inner: Inner = Inner()
    sizes: tuple[int, ...] = (1, 2)
    fresh: bool = False


def contents(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def test_stage_is_computed_once_and_comes_back_bit_for_bit(tmp_path):
    directory, calls = RunDirectory.open(tmp_path / "a" / "b", Config()), []

    def compute():
        calls.append(1)
        return {"x": np.linspace(0, 1, 7, dtype=np.float32), "n": 3, "name": "coat", "flag": np.array([True])}

    first = directory.stage("draw/one", compute)
    again = RunDirectory.open(tmp_path / "a" / "b", Config()).stage("draw/one", compute)
    assert len(calls) == 1
    assert first["x"].dtype == np.float32 and int(first["n"]) == 3 and str(first["name"]) == "coat"
    assert first.keys() == again.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
    assert list(directory.timings()) == ["draw/one"]


def test_the_random_generator_is_stored_and_no_other_continued(tmp_path):
    """Runs from before it was stored used the same one, and go on."""
    RunDirectory.open(tmp_path, Config())
    file = tmp_path / "config.json"
    stored = json.loads(file.read_text())
    assert stored.pop("prng") == GENERATOR
    file.write_text(json.dumps(stored))
    RunDirectory.open(tmp_path, Config())
    file.write_text(json.dumps(stored | {"prng": "rbg"}))
    with pytest.raises(
        InputError, match=r"config.json': is of a run with the random generator 'rbg', not threefry2x32"
    ):
        RunDirectory.open(tmp_path, Config())


@pytest.mark.parametrize("moment", ["compute", "write", "rename"])
def test_a_killed_stage_leaves_nothing_and_the_next_run_equals_an_undisturbed_one(tmp_path, monkeypatch, moment):
    def study(out, kill=None):
        directory = RunDirectory.open(out, Config())
        first = directory.stage("first", lambda: {"x": np.arange(4.0)})

        def second():
            if kill == "compute":
                raise KeyboardInterrupt
            return {"y": first["x"] * 2}

        with monkeypatch.context() as patch:
            if kill == "write":
                patch.setattr(
                    run_directory.np.lib.format,
                    "write_array",
                    lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt),
                )
            if kill == "rename":
                patch.setattr(run_directory.os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            y = directory.stage("second", second)["y"]
        directory.write_json("metrics.json", {"sum": y.sum()})

    study(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        study(tmp_path / "killed", moment)
    assert not (tmp_path / "killed/stages/second.npz").exists()
    assert not (tmp_path / "killed/metrics.json").exists()
    study(tmp_path / "killed")
    whole, killed = contents(tmp_path / "whole"), contents(tmp_path / "killed")
    assert (
        whole.keys()
        == killed.keys()
        == {"config.json", "metrics.json", "timings.json"} | {f"stages/{name}.npz" for name in ("first", "second")}
    )
    assert all(whole[name] == killed[name] for name in whole if name != "timings.json")


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (Config(inner=Inner(num_steps=20)), "--inner.num-steps = 20: must be 18 as stored"),
        (Config(inner=Inner(s_max=50.0)), "--inner.s-max = 50.0: must be 'inf' as stored"),
        (Config(sizes=(1, 2, 3)), "--sizes = [1, 2, 3]: must be [1, 2] as stored"),
        (Config(fresh=True), "--fresh = True: must be False as stored"),
        (Inner(), "--num-steps = 18: is an option that "),
    ],
)
def test_another_configuration_is_refused_with_nothing_touched(tmp_path, given, line):
    directory = RunDirectory.open(tmp_path, Config())
    directory.stage("draw", lambda: {"x": 1})
    before = contents(tmp_path)
    with pytest.raises(InputError) as error:
        RunDirectory.open(tmp_path, given)
    assert str(error.value).startswith(line) and "\n" not in str(error.value)
    assert contents(tmp_path) == before
    RunDirectory.open(tmp_path, Config())


def test_directories_that_cannot_be_used_are_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.tex").write_text("mine")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/config.json").write_text("{")
    for name in ("file", "file/below", "full", "broken", "/proc/dgu"):
        before = contents(tmp_path)
        with pytest.raises(InputError, match="--out = "):
            RunDirectory.open(tmp_path / name, Config())
        assert contents(tmp_path) == before
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed/config.json.tmp").write_text("{")
    RunDirectory.open(tmp_path / "killed", Config())


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_read_only_directory_is_refused(tmp_path):
    RunDirectory.open(tmp_path / "run", Config())
    (tmp_path / "run").chmod(0o500)
    with pytest.raises(InputError, match="permission denied"):
        RunDirectory.open(tmp_path / "run", Config())


def test_a_second_process_is_kept_out(tmp_path):
    with RunDirectory.hold(tmp_path / "run", Config()) as directory:
        for other, words in (
            (Config(), "in use by another process with the same options"),
            (Config(fresh=True), "in use by another process with --fresh = False, not True"),
        ):
            before = contents(tmp_path)
            with pytest.raises(InputError, match=words) as error, RunDirectory.hold(directory.path, other):
                pass
            assert "give --out another directory" in str(error.value) and contents(tmp_path) == before
    with RunDirectory.hold(tmp_path / "run", Config()):
        pass


def test_a_run_that_stored_nothing_can_be_forgotten(tmp_path):
    directory = RunDirectory.open(tmp_path / "run", Config())
    directory.stage("draw", lambda: {"x": 1})
    directory.discard(remove=True)
    assert (tmp_path / "run/config.json").exists()
    RunDirectory.open(tmp_path / "fresh", Config()).discard(remove=True)
    assert not (tmp_path / "fresh").exists()


def test_bad_arrays_are_refused_by_name(tmp_path):
    directory = RunDirectory.open(tmp_path, Config())
    for value, words in ((np.array([1.0, np.nan]), r"x\[1\] is nan"), (np.array([object()]), "dtype object")):
        with pytest.raises(ValueError, match=words):
            directory.stage("bad", lambda value=value: {"x": value})
    assert not (tmp_path / "stages/bad.npz").exists()
    stored = directory.stage("open", lambda: {"x": np.array([1.0, np.inf])}, allow_nonfinite=True)
    np.testing.assert_array_equal(stored["x"], [1.0, np.inf])
    with pytest.raises(ValueError, match="relative file name"):
        directory.stage("../escape", dict)
    (tmp_path / "stages/cut.npz").write_bytes((tmp_path / "stages/open.npz").read_bytes()[:50])
    with pytest.raises(InputError, match="remove it to compute again"):
        directory.stage("cut", dict)


def test_json_is_sorted_exact_and_finite(tmp_path):
    directory = RunDirectory.open(tmp_path, Config())
    value = np.float64(0.1) + np.float64(0.2)
    directory.write_json("metrics.json", {"b": np.arange(2), "a": {"z": value, "y": np.float32(0.1), "é": None}})
    text = (tmp_path / "metrics.json").read_text()
    assert text.index('"a"') < text.index('"b"') and repr(float(value)) in text
    assert directory.read_json("metrics.json") == {
        "a": {"y": float(np.float32(0.1)), "z": float(value), "é": None},
        "b": [0, 1],
    }
    for bad, words in (({"a": [1.0, np.nan]}, r"a\[1\] is nan"), ({"a": math.inf}, "a is inf")):
        with pytest.raises(ValueError, match=words):
            directory.write_json("metrics.json", bad)
    for bad in ({"fit": {"wall_seconds": 1.0}}, {"where": "/data/fashion"}, {"elapsed": 3}):
        with pytest.raises(ValueError, match=r"must not be in metrics\.json"):
            directory.write_json("metrics.json", bad)
    assert (tmp_path / "metrics.json").read_text() == text


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_a_bar_on_a_terminal_and_sparse_lines_elsewhere(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    terminal, pipe = Terminal(), io.StringIO()
    with Progress("sampling", total=4, unit="images", stream=terminal) as bar:
        bar.update(4)
    assert "sampling: 100%" in terminal.getvalue() and "4/4" in terminal.getvalue()
    clock = iter(np.arange(0.0, 1000.0, 6.0))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    with Progress("sampling", total=8, unit="images", stream=pipe) as bar:
        for _ in range(8):
            bar.update()
    lines = pipe.getvalue().splitlines()
    assert 1 < len(lines) < 8 and lines[0].startswith("sampling: ") and "s left" in lines[0]
    assert lines[-1].startswith("sampling: 8/8 images")
    busy = io.StringIO()
    with Progress("slow", total=2, unit="images", stream=busy, every=0.0) as bar:
        bar.update()
        bar.update()
    assert [line.split(",")[0] for line in busy.getvalue().splitlines()] == ["slow: 1/2 images", "slow: 2/2 images"]
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    quick = Terminal()
    monkeypatch.setenv("CI", "true")
    with Progress("quick", stream=quick) as bar:
        bar.update()
    assert quick.getvalue() == ""
    assert list(progress(iter("abc"), "letters")) == ["a", "b", "c"]


def test_progress_is_a_bar_in_a_notebook(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    stream = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})()
    with Progress("sampling", total=4, unit="images", stream=stream) as bar:
        bar.update(4)
    assert not stream.isatty() and "sampling: 100%" in stream.getvalue() and "4/4" in stream.getvalue()


@pytest.mark.parametrize("page", [b"", b"\0" * 4096, b"<!DOCTYPE html>\n<html>\n<body>\n<h1>Cut"])
def test_a_report_that_is_no_whole_page_leaves_the_run_unfinished(tmp_path, page):
    directory = RunDirectory.open(tmp_path, Config())
    assert not directory.finished
    directory.write_text("report.html", "<html><body></body>\n</html>\n")
    assert directory.finished
    (tmp_path / "report.html").write_bytes(page)
    assert not directory.finished
