"""The site's pages of the papers say what ``paper.toml``, the declarations and the pages of results say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.study import paper_pages
from experiments.study.judged import JudgedClaim
from experiments.study.listing import Entry, Paper, papers
from experiments.study.pages import keep_figures, page

DOCS = Path(__file__).parents[2] / "docs"
SMALL = JudgedClaim(
    id="error-falls", statement="The error | falls.", value=0.123, interval=(0.1, 0.2), kind="at most", bounds=(0.5,),
    paper="own", figure="Fig 1", unit="points",
)  # fmt: skip


def test_claims_are_read_back_from_a_page_of_results():
    large = replace(SMALL, id="error-large", kind="at least", bounds=(4.0,), check=True)
    found = paper_pages.stored(page("toy", "default", [SMALL, large], {"error": "what | is left."}))
    assert list(found.rows) == ["error-falls", "error-large"] and found.measured.startswith("1 claim: 1 supported")
    assert found.rows["error-falls"][1:] == ("0.123 [0.1, 0.2] points", "at most 0.5", "-", "supported")
    assert found.rows["error-falls"][0] == "`error-falls` The error \\| falls. (own, Fig 1)"
    assert found.rows["error-large"][4] == "not supported"


@pytest.fixture(scope="module")
def pages():
    return paper_pages.pages(DOCS)


@pytest.mark.parametrize("paper", papers(), ids=lambda paper: paper.name)
def test_the_page_of_a_paper_has_every_panel_and_every_claim_as_it_is_stored(pages, paper):
    text = pages[f"papers/{paper.name}.md"]
    for entry in paper.entries:
        assert entry.shows in text and entry.ours in text and entry.why in text, entry.id
        assert f"## {paper_pages.title(entry.id)} {{ #{entry.id} }}" in text
    stored = [paper_pages.stored((DOCS / f"results/{name}.md").read_text()) for name in paper.studies]
    of_paper = [row for each in stored for row in each.rows.values() if f"({paper.name}, " in row[0]]
    shown = [f"| {row[0]} | {row[1]} | {row[2]} | {row[4]} |" in text for row in of_paper]
    assert sum(shown) > 0.7 * len(of_paper) > 0, "the others name no item that the paper lists"
    index = pages["papers/index.md"]
    assert f"({paper.name}.md)" in index and f"https://arxiv.org/abs/{paper.arxiv}" in index


def test_a_claim_that_no_run_has_measured_says_so_and_items_without_figures_are_whole():
    (molrg,) = (paper for paper in papers() if paper.name == "molrg")
    made = paper_pages.studies()
    text = "\n".join(paper_pages.page(molrg, made, {}, set()))
    assert "not measured yet" in text and "| supported |" not in text and "![" not in text
    drawn = next(one.name for one in paper_pages.figures(made["molrg"]) if one.items)
    with_picture = "\n".join(paper_pages.page(molrg, made, {}, {drawn}))
    assert f"![{drawn}](../results/molrg/{Path(drawn).stem}.webp)" in with_picture
    only = Paper("none", "None", "0000.00000", (), (Entry("appendix-a.2", "A drawing.", "absent", why="It is one."),))
    text = "\n".join(paper_pages.page(only, {}, {}, set()))
    assert "## Appendix A.2 { #appendix-a.2 }" in text and "Absent: [Appendix A.2](#appendix-a.2)." in text
    assert "| absent | 1 |" in text and "| same | 0 |" in text and "**Ours:** There is none here." in text


def test_figures_of_a_run_are_kept_small_in_place_of_older_ones(tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "old.webp").touch()
    shades = np.tile(np.linspace(0, 255, 2400).astype(np.uint8), (600, 1))
    Image.fromarray(shades).save(tmp_path / "figures" / "ramp.png")
    keep_figures(tmp_path / "figures", tmp_path / "kept")
    assert [file.name for file in (tmp_path / "kept").iterdir()] == ["ramp.webp"]
    with Image.open(tmp_path / "kept" / "ramp.webp") as kept:
        assert kept.size == (1200, 300)
        assert np.abs(np.asarray(kept.convert("L"), float)[150] - np.linspace(0, 255, 1200)).max() < 12
    keep_figures(tmp_path / "none", tmp_path / "other")
    assert not (tmp_path / "other").exists()
