"""Pages of results hold the numbers of the runs that they are made from."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dgu.core.errors import InputError
from experiments.study import AllOf
from experiments.study.configuration import config_to_json
from experiments.study.judged import JudgedClaim
from experiments.study.listing import studies
from experiments.study.pages import main, page_of


def finished(path, *claims, config=None):
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({} if config is None else config_to_json(config)))
    (path / "claims.json").write_text(json.dumps([claim.to_json() for claim in claims]))
    (path / "report.html").write_text("<html></html>")
    return path


ABOUT = {"paper": "own", "figure": "", "unit": "points"}
SMALL = JudgedClaim(
    id="small",
    statement="It is | small.",
    value=0.123,
    interval=(0.1, 0.2),
    kind="at most",
    bounds=(0.5,),
    note="A note.",
    **ABOUT,
)
LARGE = JudgedClaim(
    id="large", statement="It is large.", value=2.0, interval=(1.0, 3.0), kind="at least", bounds=(4.0,), **ABOUT
)


def test_a_page_has_every_claim_with_its_numbers(tmp_path):
    run = finished(tmp_path / "runs" / "toy-default", SMALL, LARGE)
    _, text = page_of(run)
    assert "# Results of `python -m experiments.toy`" in text
    assert "2 claims: 1 supported, 1 not supported, 0 undecided, 0 not applicable" in text
    row = next(line for line in text.splitlines() if "`small`" in line)
    assert row == "| `small` It is \\| small. (own) *A note.* | 0.123 [0.1, 0.2] points | at most 0.5 | - | supported |"


def test_a_page_lists_checks_apart_and_says_what_changed_and_what_survives(tmp_path):
    sure = replace(SMALL, p_value=0.001, holm=True, one_network=True, changed="it was 0.4.")
    run = finished(tmp_path / "toy-default", replace(SMALL, id="sure-thing", check=True), sure, LARGE)
    counts, checks = page_of(run)[1].split("## Checks of the program")
    assert "`sure-thing`" in checks and "`sure-thing`" not in counts and "`small`" in counts
    row = next(line for line in counts.splitlines() if "`small`" in line)
    assert "*Changed after its first run: it was 0.4. A note.*" in row
    assert row.endswith("| 0.123 [0.1, 0.2] points ¹ | at most 0.5 | 0.001 H | supported |")
    assert "\n¹ The interval is over images or noises of one network" in counts
    assert "1 of 2 claims test a value that has a random error" in counts and "1 check of the program: 1 supp" in counts
    assert "¹" not in checks and "¹" not in page_of(finished(tmp_path / "none-default", SMALL))[1]


def test_a_page_says_what_the_terms_of_the_study_mean(tmp_path):
    known = finished(tmp_path / "runs" / "molrg-default", SMALL, config=studies()["molrg"].presets["default"])
    head, table = page_of(known)[1].split("| claim |")
    terms = studies()["molrg"].terms
    assert terms and all(f"\n- **{term}**: {meaning}\n" in head for term, meaning in terms.items())
    assert "`small`" in table
    assert "- **" not in page_of(finished(tmp_path / "toy-default", SMALL))[1]


PAGES = Path(__file__).parents[2] / "docs" / "results"


def declared(name):
    """The claims of a study with its default options, and its terms."""
    study = studies()[name]
    default = study.presets["default"]
    return study, [claim for part in study.chosen(default) for claim in part.declared(study.options_of(part, default))]


@pytest.mark.parametrize(
    "name", ["audit", "concentration", "explain", "generalization", "hidden_gaussian", "molrg", "universality"]
)
def test_every_study_declares_its_terms_and_whole_statements(name):
    study, claims = declared(name)
    assert 4 <= len(study.terms) <= 8 and all(meaning.endswith(".") for meaning in study.terms.values())
    for claim in claims:
        for one in (claim, *(claim.test.claims if isinstance(claim.test, AllOf) else ())):
            text = one.statement
            assert text.endswith((".", ".)")) and "  " not in text and "None" not in text, one.id
            assert text.count("(") == text.count(")") or "[" in text, one.id


@pytest.mark.parametrize("name", sorted(page.stem for page in PAGES.glob("*.md")))
def test_the_pages_of_results_have_the_statements_and_terms_that_the_studies_declare(name):
    page = (PAGES / f"{name}.md").read_text()
    study, claims = declared(name)
    for claim in claims:
        assert f"| `{claim.id}` {claim.statement.replace('|', chr(92) + '|')} (" in page, claim.id
    for term, meaning in study.terms.items():
        assert f"- **{term}**: {meaning}\n" in page, term


def test_a_folder_of_runs_gives_a_page_each(tmp_path, capsys):
    for name in ("toy-default", "other-smoke"):
        finished(tmp_path / "runs" / name, SMALL)
    main(["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "docs")])
    assert sorted(file.name for file in (tmp_path / "docs").iterdir()) == ["other.md", "toy.md"]
    assert "--preset smoke" in (tmp_path / "docs" / "other.md").read_text()
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize("missing", ["config.json", "report.html"])
def test_runs_that_are_not_finished_are_refused(tmp_path, capsys, missing):
    run = finished(tmp_path / "toy-default", SMALL)
    (run / missing).unlink()
    with pytest.raises(SystemExit) as end:
        main(["--runs", str(run), "--out", str(tmp_path / "docs")])
    assert end.value.code == 2 and "must be the directory of a finished run" in capsys.readouterr().err
    assert not (tmp_path / "docs").exists()


@pytest.mark.parametrize(
    ("name", "preset", "line"),
    [
        ("molrg-default", "smoke", r"must be a run of molrg --preset default, in which --\S+ is .*, not "),
        ("audit-smoke", "smoke", r"must be a run of audit --preset smoke, in which --\S+ is .*, not "),
        ("molrg-huge", "smoke", "must be named after one of the presets smoke, default, paper"),
    ],
)
def test_a_run_of_another_study_or_preset_than_its_name_says_is_refused(tmp_path, name, preset, line):
    run = finished(tmp_path / name, SMALL, config=studies()["molrg"].presets[preset])
    with pytest.raises(InputError, match=line):
        page_of(run)


def test_nothing_is_written_where_one_run_has_no_page_or_the_folder_is_a_file(tmp_path, capsys):
    finished(tmp_path / "runs" / "toy-default", SMALL)
    (finished(tmp_path / "runs" / "unfinished-default", SMALL) / "report.html").unlink()
    (tmp_path / "file").touch()
    for runs, out, line in (
        ("runs", "docs", "must be the directory of a finished run"),
        ("runs/toy-default", "file", "file': must be a folder ("),
    ):
        with pytest.raises(SystemExit) as end:
            main(["--runs", str(tmp_path / runs), "--out", str(tmp_path / out)])
        assert end.value.code == 2 and line in capsys.readouterr().err
        assert not (tmp_path / "docs").exists()
