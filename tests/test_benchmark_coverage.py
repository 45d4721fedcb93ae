"""Coverage of the interval methods, in few repeats; the page of ``benchmarks/coverage.py`` has more, of all of them."""

import json

import numpy as np
import pytest

from benchmarks import coverage
from benchmarks.coverage_cases import CASES, Case, Draws

#: Cases that are simulated without JAX in a fraction of a second, by the least coverage that they promise. Means of few
#: skewed values are not among them: there the t interval covers too rarely, as the page says.
PROMISED = {
    ("t", "3 normal values"): 0.95,
    ("t", "12 normal values"): 0.95,
    ("t with the variance between pools", "12 splits, V none"): 0.95,
    ("t with the variance between pools", "12 splits, V twice S^2 / 12"): 0.93,
    ("t with the variance between pools", "12 splits, V 8 times S^2 / 12"): 0.92,
    ("geometric mean", "20 lognormal values"): 0.95,
    ("rise by cross-fitting, t", "20 flat curves"): 0.94,
    ("order statistics of a median", "6 lognormal values"): 0.969,
    ("order statistics of a median", "10 lognormal values"): 0.979,
    ("order statistics of a median", "20 lognormal values"): 0.959,
    ("exact test of a trend in ranks", "3 rows of 4, no trend"): 0.95,
    ("exact test of a trend in ranks", "3 rows of 4, mean correlation .78"): 0.95,
    ("exact test of a trend in ranks", "3 rows of 4, mean correlation .95"): 0.95,
    ("Wilson", "300 cases, share .95"): 0.94,
    ("Newcombe", "shares .05 and .02 of 400 each"): 0.94,
    ("jackknife", "log ratio of variances, 10 groups"): 0.94,
    ("DeLong", "200 and 200 scores, AUC .76"): 0.94,
    ("difference of independent estimates", "means of 10 blocks"): 0.92,
}


@pytest.mark.parametrize("name", PROMISED, ids=", ".join)
def test_intervals_cover_as_often_as_they_promise(name):
    """Within four standard errors of the share that is promised, from below; and they are no wider than they must be."""
    (case,) = [case for case in CASES if (case.method, case.data) == name]
    found = coverage.simulated(case, 400 * min(case.cost, 4))
    promised = PROMISED[name]
    assert found["coverage"] > promised - 4 * np.sqrt(promised * (1 - promised) / found["repeats"])
    assert 0.8 < found["width"] < 4


def test_what_is_counted():
    """Three of four intervals hold the truth; they are 2 wide, where an honest one is 2 z times the spread."""
    value = np.array([0.0, 1.0, -1.0, 3.0])
    found = coverage.summary(Draws(value, value - 1, value + 1, 0.0))
    assert (found["coverage"], found["repeats"]) == (0.75, 4)
    assert found["error"] == pytest.approx(np.sqrt(4 / 6 * 2 / 6 / 4))
    assert found["width"] == pytest.approx(2 / (2 * 1.959964 * value.std(ddof=1)))


def test_the_table_goes_between_its_marks(monkeypatch, tmp_path, capsys):
    """The page's other text stays, and a second run gives the same numbers."""
    always = Case(
        "always",
        "of | nothing",
        "nowhere",
        lambda rng, n: Draws(rng.normal(size=n), np.full(n, -9), np.full(n, 9), 0.0),
    )
    monkeypatch.setattr(coverage, "CASES", (always,))
    page, figures = tmp_path / "page.md", tmp_path / "figures.json"
    page.write_text("before\n" + "\nold\n".join(coverage.MARKS) + "\nafter\n")
    for _ in range(2):
        coverage.main(coverage.Config(quick=True, json=str(figures), page=str(page)))
        text = page.read_text()
        assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
        assert "| always | of | nothing | nowhere | 1.000 ± 0.002 |" in text
    (result,) = json.loads(figures.read_text())["results"]
    assert result["repeats"] == 400 and "always" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="only = never: must be words of always"):
        coverage.main(coverage.Config(only=("never",)))


def test_every_case_is_named_once_and_the_page_has_its_table():
    names = [(case.method, case.data) for case in CASES]
    assert len(set(names)) == len(names)
    page = coverage.PAGE.read_text()
    table = page[page.index(coverage.MARKS[0]) : page.index(coverage.MARKS[1])]
    assert [name for name in names if f"| {name[0]} | {name[1]} |" not in table] == []
    # Each method has its formula above the table, under the same name.
    assert [name for name in names if f"**{name[0]}**" not in page] == []
