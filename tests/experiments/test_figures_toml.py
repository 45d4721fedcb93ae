"""``docs/figures.toml`` lists every figure of the papers, and agrees with what the experiments declare."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LISTING = tomllib.loads((ROOT / "docs/figures.toml").read_text())
PAPERS = {
    "concentration": [f"fig-{number}" for number in range(1, 11)],
    "molrg": [f"fig-{number}" for number in range(1, 9)] + ["table-1", "table-2"],
    "generalization": [f"fig-{number}" for number in range(1, 12)],
    "hidden_gaussian": [f"fig-{number}" for number in range(1, 31)],
}
MADE = [entry for entry in [*LISTING["figure"], *LISTING["own"]] if "experiment" in entry]


def declared(file):
    """``CLAIM_IDS`` and ``FIGURE_FILES`` of an experiment: literal tuples of text, read without importing it.

    Those of ``experiments/NAME.py``, and of the study's parts in ``experiments/NAME_parts/`` where there are any.
    """
    found = {}
    for module in [file, *sorted(file.with_name(f"{file.stem}_parts").glob("*.py"))]:
        for statement in ast.parse(module.read_text()).body:
            targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
            for target in targets:
                if isinstance(target, ast.Name) and target.id in ("CLAIM_IDS", "FIGURE_FILES"):
                    try:
                        found[target.id] = (*found.get(target.id, ()), *ast.literal_eval(statement.value))
                    except ValueError:
                        assert module == file, f"{module.name}: {target.id} must be literal"
    return found


def test_every_figure_and_table_is_listed_once():
    for paper, ids in PAPERS.items():
        assert [entry["id"] for entry in LISTING["figure"] if entry["paper"] == paper] == ids
    assert {entry["paper"] for entry in LISTING["figure"]} == set(PAPERS)
    assert set(LISTING) == {"figure", "own"}


@pytest.mark.parametrize("entry", LISTING["figure"], ids=lambda entry: f"{entry['paper']}-{entry['id']}")
def test_each_figure_is_made_or_has_its_reason(entry):
    assert entry["shows"]
    made = {"experiment", "files", "claims"}
    if "absent" in entry:
        assert set(entry) <= {"paper", "id", "shows", "absent", "note"} and len(entry["absent"]) > 10
    else:
        assert made <= set(entry) <= {"paper", "id", "shows", "note"} | made and entry["files"]


@pytest.mark.parametrize("experiment", sorted({entry["experiment"] for entry in MADE}))
def test_listing_and_experiment_agree(experiment):
    entries = [entry for entry in MADE if entry["experiment"] == experiment]
    module = declared(ROOT / "experiments" / f"{experiment}.py")
    claims = [claim for entry in entries for claim in entry["claims"]]
    files = {file for entry in entries for file in entry["files"]}
    assert sorted(claims) == sorted(module.get("CLAIM_IDS", ())), (
        "claim ids: each once in figures.toml, each in the experiment"
    )
    assert files == set(module["FIGURE_FILES"]) and len(module["FIGURE_FILES"]) == len(files)


def test_every_experiment_that_makes_figures_is_listed():
    modules = {file.stem for file in (ROOT / "experiments").glob("*.py") if declared(file)}
    assert modules == {entry["experiment"] for entry in MADE}
