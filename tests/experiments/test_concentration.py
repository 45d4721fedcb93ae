"""The study of concentration from the command line: all parts on tiny settings, on given images, resumed, refused."""

import json
import re

import numpy as np
import pytest

from experiments.concentration import STUDY
from experiments.study import Study
from tests.experiments.statements import check_statements
from tests.experiments.universality_study import CLASSES, contents, images, save_images

PARTS = {part.name: part for part in STUDY.parts}
#: Dimensions of the coupling, and rows of the test's controls: not among the options.
CONSTANTS = (40, 256, 2000)


def claim_ids(name, preset="smoke"):
    """Ids of the claims that a part declares."""
    return [claim.id for claim in PARTS[name].declared(getattr(STUDY.presets[preset], name))]


def figure_files(name):
    """Files of the figures that a part declares."""
    return [figure.file for figure in PARTS[name].figures]


def check_run(out, parts):
    """Each part's claims, figures and metrics are there, in its order."""
    claims = json.loads((out / "claims.json").read_text())
    assert [claim["id"] for claim in claims] == [claim for name in parts for claim in claim_ids(name)]
    assert set(json.loads((out / "metrics.json").read_text())) == set(parts)
    files = [file for name in parts for file in figure_files(name)]
    for file in files:
        assert (out / file).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    page = (out / "report.html").read_text()
    assert page.count("<img") == len(files) + 1 and set(re.findall('(?:src|href)="(.{5})', page)) == {"data:"}
    assert "Traceback" not in page and "nan" not in re.sub("<[^>]*>", " ", page).lower().split()
    return claims


def test_no_two_parts_declare_the_same():
    claims = [claim for name in PARTS for claim in claim_ids(name, "default")]
    figures = [file for name in PARTS for file in figure_files(name)]
    assert len(set(claims)) == len(claims) and len(set(figures)) == len(figures)
    assert set(STUDY.presets) == {"smoke", "default", "paper"}
    for name, part in PARTS.items():
        assert set(part.presets) == {"smoke", "default", "paper"}
        assert getattr(STUDY.presets["default"], name) == part.presets["default"]
        assert [claim_ids(name, preset) for preset in STUDY.presets] == [claim_ids(name)] * 3


@pytest.mark.slow  # `.ci/run` runs the preset itself.
def test_smoke_preset_and_its_second_invocation(tmp_path, capsys, monkeypatch):
    STUDY.main(["--preset", "smoke", "--out", str(tmp_path / "run")])
    check_run(tmp_path / "run", [name for name in PARTS if name in STUDY.presets["smoke"].parts])
    check_statements(tmp_path / "run", STUDY.presets["default"], constants=CONSTANTS)
    before = contents(tmp_path / "run")
    # Reports are made again from what is stored, without measuring anything.
    STUDY.main(["--preset", "smoke", "--report-only", "--out", str(tmp_path / "run")])
    assert contents(tmp_path / "run") == before
    monkeypatch.setattr(Study, "run", None)  # a finished run must not run again
    STUDY.main(["--preset", "smoke", "--out", str(tmp_path / "run")])
    assert "already finished" in capsys.readouterr().out and contents(tmp_path / "run") == before


@pytest.mark.slow  # the command itself is a step of .ci/run
def test_the_parts_that_smoke_leaves_out(tmp_path):
    rest = [name for name in PARTS if name not in STUDY.presets["smoke"].parts]
    STUDY.main(["--preset", "smoke", "--parts", *rest, "--out", str(tmp_path / "run")])
    check_run(tmp_path / "run", rest)
    check_statements(tmp_path / "run", STUDY.presets["default"], constants=CONSTANTS)


def test_given_images_leave_out_what_needs_a_network(tmp_path):
    samples = save_images(tmp_path / "samples.npz", *images(64), class_names=np.asarray(CLASSES))
    given = ["--samples", samples, "--real", "None", "--parts", "norms", "spectra", "fit_size"]
    STUDY.main(["--preset", "smoke", *given, "--out", str(tmp_path / "run")])
    check_run(tmp_path / "run", ["spectra", "fit_size"])
    assert "Skipped norms: it requires a network." in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.slow
def test_what_the_papers_run_would_cost(capsys):
    STUDY.main(["--preset", "paper", "--dry-run"])
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
        "--samples = 'FEW': images of class north = 4: must be at least 8 in each class",
    ),
]


@pytest.mark.parametrize(("options", "line"), BAD, ids=[options for options, _ in BAD])
def test_bad_input_is_one_line(tmp_path, capsys, options, line):
    pixels, labels = images(64)
    constant = save_images(tmp_path / "constant.npz", 0 * pixels, labels, class_names=np.asarray(CLASSES))
    few = save_images(tmp_path / "few.npz", *images(4), class_names=np.asarray(CLASSES))
    fill = lambda text: text.replace("CONSTANT", constant).replace("FEW", few)  # noqa: E731
    with pytest.raises(SystemExit) as exit_:
        STUDY.main(["--preset", "smoke", *fill(options).split(), "--out", str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and error.count("\n") == 1, error
    assert error.startswith(f"concentration: {fill(line)}"), error
    assert not (tmp_path / "out").exists()
