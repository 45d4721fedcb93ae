"""The shared command line: presets, overrides, one-line errors with code 2, and finished runs that are only read."""

import dataclasses
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Literal

import pytest

from dgu.core.errors import require
from experiments.study.command_line import run_experiment
from experiments.study.costs import Cost
from experiments.study.judged import JudgedClaim
from experiments.study.report import Report

ROOT = Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Sampler:
    num_steps: int = 18
    """Heun steps of a sample, 2 or more."""
    s_max: float = float("inf")
    """No churn above this noise level."""

    def __post_init__(self):
        require(self.num_steps >= 2, "--sampler.num-steps", self.num_steps, "2 or more")


@dataclasses.dataclass(frozen=True)
class Config:
    sampler: Sampler = Sampler()
    sizes: tuple[int, ...] = (10, 20)
    """Training sizes."""
    loss: Literal["mse", "ce"] = "mse"
    """Loss of the classifiers."""
    samples: Path | None = None
    """Images to use instead of sampling."""
    fresh: bool = False
    """New samples for each replicate."""

    def __post_init__(self):
        require(len(self.sizes) > 0, "--sizes", self.sizes, "one size or more")


PRESETS = {"smoke": Config(sizes=(1,)), "default": Config(), "paper": Config(Sampler(num_steps=256))}


class Study:
    def __init__(self):
        self.configs = []

    def __call__(self, config, directory):
        self.configs.append(config)
        require(config.samples is None or config.samples.exists(), "--samples", str(config.samples), "an existing file")
        draws = directory.stage("draw", lambda: {"total": sum(config.sizes)})
        directory.write_json("metrics.json", {"total": draws["total"]})
        value = float(draws["total"])
        claim = JudgedClaim(
            id="big",
            paper="own",
            figure="",
            statement="The sizes are large.",
            value=value,
            interval=(value, value),
            kind="at least",
            bounds=(25,),
            unit="",
            exact=True,
        )
        return Report("Sizes", "They add up.", [claim])


def invoke(study, *argv, **more):
    return run_experiment(PRESETS, study, name="fake", argv=list(argv), **more)


def test_preset_first_then_options_override_it(tmp_path, capsys):
    study = Study()
    invoke(study, "--sampler.num_steps", "40", "--preset", "smoke", f"--out={tmp_path / 'one'}", "--sampler.s-max=50")
    invoke(study, "--out", str(tmp_path / "two"), "--preset=paper", "--loss", "ce", "--fresh", "--sizes", "3", "4")
    assert study.configs == [
        Config(Sampler(40, 50.0), sizes=(1,)),
        Config(Sampler(256), sizes=(3, 4), loss="ce", fresh=True),
    ]
    assert "NOT SUPPORTED" in capsys.readouterr().out


def test_default_directory_and_what_is_printed(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (claim,) = invoke(Study())
    out = capsys.readouterr().out
    assert claim.verdict == "supported" and "big  SUPPORTED" in out
    assert out.splitlines()[-1] == f"report: {tmp_path / 'runs/fake-default/report.html'}"
    assert {file.name for file in (tmp_path / "runs/fake-default").iterdir()} == {
        *("claims.json", "config.json", "environment.json", "metrics.csv", "metrics.json", "report.html", "stages"),
        "timings.json",
    }


def test_a_finished_run_is_read_and_an_unfinished_one_resumed(tmp_path, capsys):
    study = Study()
    first = invoke(study, "--out", str(tmp_path))
    table = capsys.readouterr().out.split("\n", 1)[1]
    stamp = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    assert invoke(study, "--out", str(tmp_path)) == first
    assert len(study.configs) == 1
    assert capsys.readouterr().out.split("\n", 1)[1] == table
    assert stamp == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    (tmp_path / "claims.json").unlink()
    assert invoke(study, "--out", str(tmp_path)) == first
    assert len(study.configs) == 2
    assert (tmp_path / "stages/draw.npz").stat().st_mtime_ns == stamp[tmp_path / "stages/draw.npz"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("--preset huge", "--preset = 'huge': must be one of smoke, default, paper"),
        ("--preset", "--preset = '': must be one of smoke, default, paper"),
        ("--sampler.num-steps x", "--sampler.num-steps = 'x': must be a whole number"),
        ("--sampler.num-steps 1", "--sampler.num-steps = 1: must be 2 or more"),
        ("--sampler.num-steps", "--sampler.num-steps: needs a value, a whole number"),
        ("--sampler.s-max high", "--sampler.s-max = 'high': must be a number"),
        ("--sizes 1 two", "--sizes = '1 two': must be a list, separated by spaces, each a whole number"),
        ("--sizes", "--sizes = (): must be one size or more"),
        ("--loss l1", "--loss = 'l1': must be one of mse, ce"),
        ("--sampler.nmu-steps 3", "--sampler.nmu-steps = '3': must be an option, such as --sampler.num-steps"),
        ("--qqq=3", "--qqq = '3': must be an option: --preset --out"),
        ("--fresh yes", "--fresh = 'yes': must be given as --fresh or --no-fresh, without a value"),
        ("stray", "argument 'stray': must follow an option"),
        ("--samples none.npz", "--samples = 'none.npz': must be an existing file"),
        ("--dry-run", "--dry-run: must be an option"),
        ("--out /dev/null/x", "--out = '/dev/null/x': must be a directory that can be written to"),
    ],
)
def test_bad_input_is_one_line_that_names_it_and_code_2(tmp_path, capsys, monkeypatch, arguments, line):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        invoke(Study(), *arguments.split())
    errors = capsys.readouterr().err
    assert exit_.value.code == 2
    assert errors.startswith(f"fake: {line}") and errors.count("\n") == 1 and errors.endswith("\n")
    assert not list(tmp_path.rglob("*.json"))


def test_numbers_that_are_not_finite_are_one_line_and_what_is_stored_stays(tmp_path, capsys):
    def run(config, directory):
        directory.stage("draw", lambda: {"total": 3})
        raise FloatingPointError("sample 0 is not finite after step 0")

    with pytest.raises(SystemExit) as exit_:
        invoke(run, "--out", str(tmp_path / "run"))
    assert exit_.value.code == 1 and capsys.readouterr().err == "fake: sample 0 is not finite after step 0\n"
    assert list((tmp_path / "run" / "stages").iterdir())


def test_a_mended_command_is_not_refused_by_what_the_bad_one_left(tmp_path, capsys):
    with pytest.raises(SystemExit):
        invoke(Study(), "--out", str(tmp_path / "run"), "--samples", str(tmp_path / "none.npz"))
    assert not (tmp_path / "run").exists()
    invoke(Study(), "--out", str(tmp_path / "run"))
    with pytest.raises(SystemExit):
        invoke(Study(), "--out", str(tmp_path / "run"), "--fresh")
    assert "--fresh = True: must be False as stored" in capsys.readouterr().err


def test_dry_run_prints_the_costs_of_the_configuration_and_runs_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = Study()
    costs = lambda config: [Cost("sample", (2 * config.sampler.num_steps - 1) * 100)]  # noqa: E731
    assert invoke(study, "--preset", "paper", "--dry-run", dry_run=costs) == ()
    assert "51,100" in capsys.readouterr().out
    assert not study.configs and not list(tmp_path.iterdir())


def test_the_paper_preset_prints_its_costs_before_it_starts(tmp_path, capsys):
    costs = lambda config: [Cost("sample", (2 * config.sampler.num_steps - 1) * 100)]  # noqa: E731
    seen = []

    def study(config, directory):
        seen.append(capsys.readouterr().out)
        return Study()(config, directory)

    for preset, printed in (("paper", True), ("default", False)):
        out = str(tmp_path / preset)
        invoke(study, "--preset", preset, "--out", out, dry_run=costs)
        assert ("51,100" in seen[-1]) == printed
    invoke(study, "--preset", "paper", "--out", str(tmp_path / "paper"), dry_run=costs)  # finished: only read
    assert len(seen) == 2 and "51,100" not in capsys.readouterr().out


def test_a_study_must_keep_its_promises(tmp_path):
    with pytest.raises(RuntimeError, match=r"claims differ.*'small'"):
        invoke(Study(), "--out", str(tmp_path / "a"), claim_ids=("big", "small"))
    with pytest.raises(RuntimeError, match=r"figures differ.*x\.png"):
        invoke(Study(), "--out", str(tmp_path / "b"), figure_files=("figures/x.png",))
    invoke(Study(), "--out", str(tmp_path / "b"), claim_ids=("big",), figure_files=())


FAKE = textwrap.dedent(
    '''
    import dataclasses, sys
    from experiments.study.command_line import run_experiment

    @dataclasses.dataclass(frozen=True)
    class Config:
        steps: int = 18
        """Steps of the walk."""

    def run(config, directory):
        raise AssertionError("must not be reached")

    try:
        run_experiment({"smoke": Config(), "default": Config(36)}, run, name="walk", description="Does it walk?")
    finally:
        assert "jax" not in sys.modules, "jax was imported for nothing"
    '''
)


@pytest.mark.parametrize(
    ("arguments", "code", "out", "err"),
    [
        (["--steps", "many"], 2, "", "walk: --steps = 'many': must be a whole number\n"),
        (
            ["--setps", "3"],
            2,
            "",
            "walk: --setps = '3': must be an option, such as --steps or --preset; --help-all explains them all\n",
        ),
        (["--help"], 0, "Steps of the walk. (default: 36)", ""),
    ],
)
def test_as_a_real_process_quickly_and_without_jax(tmp_path, arguments, code, out, err):
    (tmp_path / "walk.py").write_text(FAKE)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, "walk.py", *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (code, err)
    assert out in done.stdout and {file.name for file in tmp_path.iterdir()} == {"walk.py"}
