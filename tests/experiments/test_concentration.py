"""The study of concentration from the command line: all parts on tiny settings, on given images, resumed, refused."""

import json
import re

import numpy as np
import pytest

from experiments import concentration
from experiments.concentration import PARTS
from tests.experiments.statements import check_statements
from tests.experiments.universality_study import CLASSES, contents, images, save_images

ALL_CLAIMS = [claim for part in PARTS.values() for claim in part.CLAIM_IDS]
#: Dimensions of the coupling, and rows of the test's controls: not among the options.
CONSTANTS = (40, 256, 2000)
ALL_FIGURES = [file for part in PARTS.values() for file in part.FIGURE_FILES]


def check_run(out, parts):
    """Each part's claims, figures and metrics are there, in its order."""
    claims = json.loads((out / "claims.json").read_text())
    assert [claim["id"] for claim in claims] == [claim for name in parts for claim in PARTS[name].CLAIM_IDS]
    assert set(json.loads((out / "metrics.json").read_text())) == set(parts)
    files = [file for name in parts for file in PARTS[name].FIGURE_FILES]
    for file in files:
        assert (out / file).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    page = (out / "report.html").read_text()
    assert page.count("<img") == len(files) and set(re.findall('(?:src|href)="(.{5})', page)) == {"data:"}
    assert "Traceback" not in page and "nan" not in re.sub("<[^>]*>", " ", page).lower().split()
    return claims


def test_no_two_parts_promise_the_same():
    assert len(set(ALL_CLAIMS)) == len(ALL_CLAIMS) and len(set(ALL_FIGURES)) == len(ALL_FIGURES)
    assert set(concentration.PRESETS) == {"smoke", "default", "paper"}
    for name, part in PARTS.items():
        assert set(part.PRESETS) == {"smoke", "default", "paper"}
        assert getattr(concentration.PRESETS["default"], name) == part.PRESETS["default"] == part.Config()


def test_smoke_preset_and_its_second_invocation(tmp_path, capsys, monkeypatch):
    concentration.main(["--preset", "smoke", "--out", str(tmp_path / "run")])
    check_run(tmp_path / "run", [name for name in PARTS if name in concentration.PRESETS["smoke"].parts])
    check_statements(tmp_path / "run", concentration.PRESETS["default"], constants=CONSTANTS)
    before = contents(tmp_path / "run")
    monkeypatch.setattr(concentration, "gather", None)  # a finished run must not run again
    concentration.main(["--preset", "smoke", "--out", str(tmp_path / "run")])
    assert "already finished" in capsys.readouterr().out and contents(tmp_path / "run") == before


@pytest.mark.slow  # the command itself is a step of .ci/run
def test_the_parts_that_smoke_leaves_out(tmp_path):
    rest = [name for name in PARTS if name not in concentration.PRESETS["smoke"].parts]
    concentration.main(["--preset", "smoke", "--parts", *rest, "--out", str(tmp_path / "run")])
    check_run(tmp_path / "run", rest)
    check_statements(tmp_path / "run", concentration.PRESETS["default"], constants=CONSTANTS)


def test_given_images_leave_out_what_needs_a_network(tmp_path):
    samples = save_images(tmp_path / "samples.npz", *images(64), class_names=np.asarray(CLASSES))
    given = ["--samples", samples, "--real", "None", "--parts", "norms", "spectra", "fit_size"]
    concentration.main(["--preset", "smoke", *given, "--out", str(tmp_path / "run")])
    check_run(tmp_path / "run", ["spectra", "fit_size"])
    assert "they require a network or other images): norms." in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.slow
def test_what_the_papers_run_would_cost(capsys):
    concentration.main(["--preset", "paper", "--dry-run"])
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert rows["sampling"][1] == f"{20 * 10240 * 511:,}"


BAD = [
    ("--per-class 2", "--per-class = 2: must be 8 or more"),
    ("--per-class 40", "--per-class = 40: must be 64 or more for spectra"),
    ("--parts norms norms", "--parts = ('norms', 'norms'): must be one or more, each once"),
    ("--parts nothing", "--parts = 'nothing': must be a list"),
    ("--classes 3 3", "--classes = (3, 3): must be one or more different classes from 0..2"),
    ("--checkpoint nowhere.pkl", "--checkpoint = 'nowhere.pkl': must be one of"),
    (
        "--samples CONSTANT --classes None --real None",
        "--samples = 'CONSTANT': must be images that differ from each other",
    ),
    (
        "--samples FEW --classes None --real None",
        "--samples = 'FEW': images of the smallest class = 4: must be at least 8",
    ),
]


@pytest.mark.parametrize(("options", "line"), BAD, ids=[options for options, _ in BAD])
def test_bad_input_is_one_line(tmp_path, capsys, options, line):
    pixels, labels = images(64)
    constant = save_images(tmp_path / "constant.npz", 0 * pixels, labels, class_names=np.asarray(CLASSES))
    few = save_images(tmp_path / "few.npz", *images(4), class_names=np.asarray(CLASSES))
    fill = lambda text: text.replace("CONSTANT", constant).replace("FEW", few)  # noqa: E731
    with pytest.raises(SystemExit) as exit_:
        concentration.main(["--preset", "smoke", *fill(options).split(), "--out", str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and error.count("\n") == 1, error
    assert error.startswith(f"concentration: {fill(line)}"), error
    assert not (tmp_path / "out").exists()
