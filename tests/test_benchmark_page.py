"""The page of the benchmarks: made of the files of figures, with their origin; parts that fail are named."""

import json
import sys

import pytest
import tyro

from benchmarks import page, provenance
from benchmarks.page_tables import TABLES, digits, table, with_quartiles

SPREAD = {"median": 2.0, "quartile_low": 1.5, "quartile_high": 2.5, "minimum": 1.0}
NEIGHBOURS = {
    "config": {"queries": 1000, "reference": 2000, "width": 3},
    "flop": 4e9,
    "seconds": {"dgu": SPREAD, "numpy": {**SPREAD, "median": 4.0}},
    "relative_throughput": {"dgu to numpy": SPREAD},
    "relative_throughput_by_processor_time": {"dgu to numpy": SPREAD},
    "peak_bytes": {"dgu": 1.5e9, "numpy": 2.25e9},
}


@pytest.fixture
def folder(tmp_path):
    """A folder of figures of one part."""
    provenance.write(str(tmp_path / "neighbours.json"), NEIGHBOURS)
    return tmp_path


def test_numbers_and_tables_have_one_form():
    assert [digits(value) for value in (1234.5, 100.2, 12.34, 1.5, 0.01234, 0.000012, 0.0)] == [
        "1,234", "100", "12.3", "1.50", "0.0123", "1.2e-05", "0"
    ]  # fmt: skip
    assert with_quartiles(SPREAD) == "2.00 (1.50 to 2.50)" and with_quartiles(None) == "-"
    assert table(["a", "b"], [["1", "2"]]) == ["| a | b |", "| --- | --- |", "| 1 | 2 |"]


def test_figures_say_where_they_come_from(monkeypatch, folder):
    origin = json.loads((folder / "neighbours.json").read_text())["origin"]
    assert origin["cores"] >= 1 and origin["processor"] and "jax" in origin["versions"] and len(origin["day"]) == 10
    words = ["--quick", "--json", "a b.json", "--rounds", "3", "--json=c.json", "--figure", "d.svg"]
    name = sys.modules["__main__"].__spec__
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", type("S", (), {"name": "benchmarks.neighbours"})())
    assert provenance.command(words) == "python -m benchmarks.neighbours --quick --rounds 3"
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", name)


def test_the_page_is_made_of_stored_figures(folder, capsys):
    out = folder / "page.md"
    assert page.main(page.Config(stored=True, folder=str(folder), out=str(out))) == 0
    text = out.read_text()
    assert "| dgu | 2.00 (1.50 to 2.50) | 2.00 | 1.50 GB |" in text
    assert "| numpy | 4.00 (1.50 to 2.50) | 1.00 | 2.25 GB |" in text
    assert "## Nearest neighbours of 4,000 queries" in text and "## A sampler" not in text
    missing = text.split("Not measured: ")[1].split(" (")[0].split(", ")
    assert sorted(["neighbours", *missing]) == sorted(part.name for part in page.PARTS)
    origin = json.loads((folder / "neighbours.json").read_text())["origin"]
    assert origin["day"] in text and f"jax {origin['versions']['jax']}" in text
    assert "1 parts" in capsys.readouterr().out


def test_a_compiler_that_failed_has_a_row_with_the_reason():
    ratios = {"dgu to torch": SPREAD}
    common = {"seconds": {"dgu": SPREAD, "torch": SPREAD}, "images_per_second": {"dgu": 8.0, "torch": 8.0},
              "relative_throughput": ratios, "relative_throughput_by_processor_time": ratios,
              "first_call_with_compilation": {"other": 3.2}, "failed": {"torch.compile": "No g++"}}  # fmt: skip
    config = {"network": "small-adm", "batch": 2, "steps": 3, "dtype": "float32", "threads": 1, "repeats": 5}
    lines = TABLES["sampling"](
        {**common, "config": config, "evaluations": 5, "largest_difference_from": {"torch": 1e-6}}
    )
    assert "| torch.compile | - | failed: `No g++` |" in lines and "| torch | 8.00 | 2.00 (1.50 to 2.50) |" in lines
    assert "other: first call, with compilation, 3 s." in lines
    result = {**common, "network": "small-adm", "pass": "forward", "dtype": "float32", "batch": 2, "largest_difference": {},
              "flop_per_second": {"dgu": 3e9, "torch": 2e9}, "share_of_ceiling": {"dgu": 0.5, "torch": 0.25}}  # fmt: skip
    rows = TABLES["networks"]({"results": [result]})[-3:]
    work = "small-adm, forward, float32, 2 images"
    assert rows[0] == f"| {work} | dgu | 8.00 | 2.00 (1.50 to 2.50) | 3.00 | 50 % | - | - |"
    assert rows[1].endswith("| 2.00 | 25 % | 2.00 (1.50 to 2.50) | 2.00 |")
    assert rows[2] == f"| {work} | torch.compile | - | failed: `No g++` | - | - | - | - |"


def test_machines_that_are_the_same_have_one_row():
    one = {"origin": {"processor": "P", "cores": 2, "system": "S", "versions": {"jax": "1"}}}
    other = {"origin": {**one["origin"], "processor": "Q"}}
    assert page.machines({"a": one, "b": other, "c": one})[2:] == [
        "| a, c | P | 2 | S | jax 1 |",
        "| b | Q | 2 | S | jax 1 |",
    ]


def test_a_part_that_fails_is_named_and_the_others_go_on(monkeypatch, folder, capsys):
    parts = (page.Part("broken", "no_such_program", "Broken"), *page.PARTS)
    monkeypatch.setattr(page, "PARTS", parts)
    out = folder / "page.md"
    assert page.main(page.Config(only=("broken",), folder=str(folder), out=str(out))) == 1
    text = out.read_text()
    assert "`python -m benchmarks.no_such_program` failed: `No module named benchmarks.no_such_program`" in text
    assert "## Nearest neighbours of 4,000 queries" in text
    assert "failed: broken" in capsys.readouterr().out


def test_parts_and_folders_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(SystemExit, match="only: nothing: must be of sampling, "):
        page.main(page.Config(only=("nothing",), folder=str(tmp_path)))
    with pytest.raises(SystemExit, match="no figures of any part"):
        page.main(page.Config(stored=True, folder=str(tmp_path)))


@pytest.mark.parametrize("part", page.PARTS, ids=lambda part: part.name)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_part_has_a_table_and_options_that_its_program_knows(part):
    assert part.module in page.TABLES and [one.name for one in page.PARTS].count(part.name) == 1
    module = pytest.importorskip(f"benchmarks.{part.module}", exc_type=ImportError)
    tyro.cli(module.Config, args=[*part.options, "--json", "x.json"])
