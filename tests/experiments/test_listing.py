"""The index of the papers is up to date, lists everything once, and agrees with what the studies declare."""

import dataclasses
import tomllib

import pytest

from dgu.core.errors import InputError
from experiments.study import Figure
from experiments.study.listing import HOME, Entry, claims, figures, index, main, named, papers, read_paper, studies

PAPERS, STUDIES = {paper.name: paper for paper in papers()}, studies()
#: Figures and tables of each paper.
SHOWN = {
    "concentration": [f"fig-{number}" for number in range(1, 11)],
    "molrg": [*(f"fig-{number}" for number in range(1, 9)), "table-1", "table-2"],
    "generalization": [f"fig-{number}" for number in range(1, 12)],
    "hidden_gaussian": [f"fig-{number}" for number in range(1, 31)],
}
DRAWN = [figure for study in STUDIES.values() for figure in figures(study)]
CLAIMED = [claim for study in STUDIES.values() for claim in claims(study)]
ENTRY = {"id": "fig-1", "shows": "A curve.", "status": "differs", "ours": "A table.", "why": "Tables are short."}


def test_the_index_is_up_to_date():
    stored = (HOME.parent / "docs/figures.toml").read_text()
    assert stored == index(list(PAPERS.values()), STUDIES), "run python -m experiments.study.listing"


@pytest.mark.parametrize("paper", sorted(SHOWN))
def test_every_figure_and_table_of_a_paper_is_listed(paper):
    assert [item for item in PAPERS[paper].items if item.startswith(("fig-", "table-"))] == SHOWN[paper]


def test_only_known_papers_are_listed():
    assert PAPERS.keys() == SHOWN.keys()


@pytest.mark.parametrize("made", [*DRAWN, *CLAIMED], ids=lambda made: made.name)
def test_what_a_declaration_stands_for_is_listed(made):
    if made.paper != "own":
        assert set(made.items) <= PAPERS[made.paper].items.keys()


@pytest.mark.parametrize("paper", sorted(SHOWN))
def test_a_figure_is_made_unless_it_is_absent(paper):
    if not set(PAPERS[paper].studies) <= STUDIES.keys():
        pytest.skip("not all of its studies declare their figures")
    made = {item for figure in DRAWN if figure.paper == paper for item in figure.items}
    absent = {item for item, panels in PAPERS[paper].items.items() if all(one.status == "absent" for one in panels)}
    assert made & absent == set() and set(SHOWN[paper]) <= made | absent


def test_the_index_is_toml_that_says_what_the_papers_say():
    read = tomllib.loads((HOME.parent / "docs/figures.toml").read_text())
    assert read.keys() == {"item", "own"}
    found = {(item["paper"], item["id"]): item["panel"] for item in read["item"]}
    for paper in PAPERS.values():
        for id, panels in paper.items.items():
            assert [Entry(id, **panel) for panel in found[paper.name, id]] == panels
    entries = [*read["item"], *read["own"]]
    listed = [name for entry in entries for kind in ("files", "claims") for name in entry.get(kind, [])]
    assert set(listed) == {made.name for made in (*DRAWN, *CLAIMED)}


@pytest.mark.parametrize(
    ("source", "ids"),
    [
        ("Fig 9, Empirical Observation 1", "fig-9 observation-1"),
        ("Figs 2, 3 and 6", "fig-2 fig-3 fig-6"),
        ("Theorem 1, assumption", "theorem-1"),
        ("Section 4, features", "section-4"),
        ("App. A.2", "appendix-a.2"),
        ("section 4.1", "section-4.1"),
        ("Lemmas 4 and 5", "lemma-4 lemma-5"),
        ("(46)", "equation-46"),
        ("control", ""),
        ("Theorem 2, heavy-tailed base", "theorem-2"),
    ],
)
def test_claims_name_items_in_words(source, ids):
    assert named(source) == tuple(ids.split())


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            {"status": "similar"},
            "fig-1: status = 'similar': must be one of same, same at reduced size, differs, absent",
        ),
        ({"shows": ""}, "fig-1: shows = ''"),
        ({"why": ""}, "fig-1: why = ''"),
        ({"ours": ""}, "fig-1: ours = ''"),
        ({"status": "same"}, "fig-1: why = 'Tables are short.'"),
    ],
)
def test_an_entry_says_how_ours_differs(change, complaint):
    with pytest.raises(InputError) as refused:
        Entry(**ENTRY | change)
    assert str(refused.value).startswith(complaint)


@pytest.mark.parametrize("text", ["", '[[entry]]\nid = "fig-1"', 'name = "x"\n[[entry]]\nwho = 1'])
def test_a_file_without_its_fields_is_refused(tmp_path, text):
    (tmp_path / "paper.toml").write_text(text)
    with pytest.raises(InputError):
        read_paper(tmp_path / "paper.toml")


def test_a_panel_is_listed_once(tmp_path):
    entry = '[[entry]]\nid = "fig-1"\nshows = "A curve."\nstatus = "same"\n'
    head = 'name = "x"\ntitle = "X"\narxiv = "0000.00000"\nstudies = ["x"]\n'
    (tmp_path / "paper.toml").write_text(head + entry)
    assert read_paper(tmp_path / "paper.toml").entries == (Entry("fig-1", "A curve.", "same"),)
    (tmp_path / "paper.toml").write_text(head + entry + entry)
    with pytest.raises(InputError, match="fig-1: must be listed once"):
        read_paper(tmp_path / "paper.toml")


def test_a_figure_that_stands_for_an_unknown_item_is_refused():
    study = next(iter(STUDIES.values()))
    part = dataclasses.replace(study.parts[0], figures=(Figure("strange", "A curve.", "fig-99"),))
    with pytest.raises(InputError, match=r"figures/strange\.png: source = 'fig-99'"):
        index(list(PAPERS.values()), {study.name: dataclasses.replace(study, parts=(part,))})


def test_the_command_writes_the_index(tmp_path, capsys):
    main(["--out", str(tmp_path / "figures.toml")])
    assert (tmp_path / "figures.toml").read_text() == (HOME.parent / "docs/figures.toml").read_text()
    assert capsys.readouterr().out.strip().endswith("figures.toml")
