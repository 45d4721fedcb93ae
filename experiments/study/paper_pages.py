"""Pages of the documentation site on the papers, figure by figure: what a paper shows, what ours shows, what was found.

Everything on them is taken from elsewhere: the comparison from ``paper.toml``, files and claims from the studies'
declarations, values and verdicts from the pages of results (``docs/results/STUDY.md``), pictures from the folders
beside these.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from experiments.study.listing import STATUSES, Entry, Made, Paper, claims, figures, papers, studies
from experiments.study.report import ONE_NETWORK
from experiments.study.study import Study

#: The cells of a row of a table in Markdown: ``|`` in a cell stands as ``\|``.
_CELLS = re.compile(r"(?<!\\)\|")
#: What an item is called, by the start of its id where that is not the word itself.
_KINDS = {"fig": "Figure"}
_NOT_SHOWN = "There is none here."
_VERDICTS = (
    "Intervals are at 95 %. A claim is *supported* if its whole interval keeps to the threshold, *not supported* if "
    "the whole interval violates it, and *undecided* otherwise."
)


@dataclass(frozen=True)
class Stored:
    """What a page of results says.

    Attributes:
        measured: how many claims were measured, by which version, and how many came out how: the start of its first
            paragraph.
        rows: of each claim by id, the cells claim, value, threshold, p, verdict.
    """

    measured: str
    rows: Mapping[str, tuple[str, ...]]


def stored(page: str) -> Stored:
    """The claims on a page of results, as ``experiments.study.pages`` writes it."""
    rows = {}
    for line in page.splitlines():
        cells = tuple(cell.strip() for cell in _CELLS.split(line)[1:-1])
        named = re.match(r"`([\w-]+)` ", cells[0]) if len(cells) == 5 else None
        if named:
            rows[named[1]] = cells
    return Stored(page.split("\n\n")[1].partition(" Intervals are at")[0], rows)


def pages(docs: Path) -> dict[str, str]:
    """Every page by its path in the site: ``papers/index.md``, one for each paper, and ``results/index.md``.

    Args:
        docs: the folder of the documentation, with the pages of results and the pictures.
    """
    made = studies()
    found = {file.stem: stored(file.read_text()) for file in sorted((docs / "results").glob("*.md"))}
    drawn = [one for study in made.values() for one in figures(study)]
    known = {one.name for one in drawn if (docs / _picture(one.name)).exists()}
    listed = papers()
    written = {f"papers/{paper.name}.md": "\n".join(page(paper, made, found, known)) + "\n" for paper in listed}
    return {"papers/index.md": _start(listed), **written, "results/index.md": _results(found)}


def _picture(name: str) -> str:
    """Where the picture of the figure ``STUDY/FILE`` is kept, from the folder of the documentation."""
    return f"results/{name.partition('/')[0]}/{Path(name).stem}.webp"


def page(paper: Paper, made: Mapping[str, Study], found: Mapping[str, Stored], known: Set[str]) -> Iterator[str]:
    """The lines of the page of a paper.

    Args:
        paper: what it shows and what ours shows.
        made: the studies by name.
        found: what their pages of results say, by name.
        known: the figures ``STUDY/FILE`` that there is a picture of.
    """
    drawn = [one for study in made.values() for one in figures(study)]
    tested = [one for study in made.values() for one in claims(study)]
    yield from (f"# {paper.title}", "", f"[arXiv {paper.arxiv}](https://arxiv.org/abs/{paper.arxiv}). Every figure, ")
    yield "table and theorem of the paper, with what this repository shows in its place. Commands: "
    yield from ("; ".join(f"`python -m experiments.{study}`" for study in paper.studies) + ".", "")
    yield from (*_counts(paper), "")
    for study in paper.studies:
        if study in found:
            yield from (f"**Claims of [`{study}`](../results/{study}.md).** {found[study].measured}", "")
    yield from (_VERDICTS, "")
    yield from (*_differences(paper), "")
    for item, panels in paper.items.items():
        yield from (f"## {title(item)} {{ #{item} }}", "")
        for entry in panels:
            yield from (*_panel(entry), "")
        for one in drawn:
            if one.paper == paper.name and item in one.items:
                yield from (*_figure(one, made[one.study], known), "")
        rows = [one for one in tested if one.paper == paper.name and item in one.items]
        yield from (*_claims(rows, made, found), "")
    yield f"¹ {ONE_NETWORK.removeprefix('¹ ')}"


def title(item: str) -> str:
    """What an item is called: ``"fig-4"`` is ``"Figure 4"``, ``"appendix-a.2"`` is ``"Appendix A.2"``."""
    kind, _, number = item.partition("-")
    return f"{_KINDS.get(kind, kind.capitalize())} {number.upper()}"


def _counts(paper: Paper) -> Iterator[str]:
    counts = Counter(entry.status for entry in paper.entries)
    yield from ("| ours is | panels |", "|---|---|")
    yield from (f"| {status} | {counts[status]} |" for status in STATUSES)


def _differences(paper: Paper) -> Iterator[str]:
    """Links to what differs or is absent, for readers who look for that first."""
    for status in ("differs", "absent"):
        items = dict.fromkeys(entry.id for entry in paper.entries if entry.status == status)
        if items:
            yield f"{status.capitalize()}: " + ", ".join(f"[{title(item)}](#{item})" for item in items) + ".  "


def _panel(entry: Entry) -> Iterator[str]:
    yield f"**The paper{f', {entry.panel}' if entry.panel else ''}:** {entry.shows}  "
    yield f"**Ours:** {entry.ours or (_NOT_SHOWN if entry.status == 'absent' else 'The same.')}  "
    yield f"**Status:** {entry.status}. {entry.why}"


def _figure(one: Made, study: Study, known: Set[str]) -> Iterator[str]:
    file = one.name.partition("/")[2]
    caption = next(figure.caption for part in study.parts for figure in part.figures if figure.file == file)
    if one.name in known:
        yield from (f"![{one.name}](../{_picture(one.name)})", "")
    yield f"*{caption}* `python -m experiments.{one.study} --parts {one.part}` makes `{file}`."


def _claims(rows: Sequence[Made], made: Mapping[str, Study], found: Mapping[str, Stored]) -> Iterator[str]:
    """A table of claims with what was measured, or that a claim has not been measured yet."""
    if not rows:
        return
    yield from ("| claim | value | threshold | verdict |", "|---|---|---|---|")
    for one in rows:
        id = one.name.partition("/")[2]
        cells = found[one.study].rows.get(id) if one.study in found else None
        if cells is not None:
            yield f"| {cells[0]} | {cells[1]} | {cells[2]} | {cells[4]} |"
        else:
            yield f"| `{id}` {_statement(made[one.study], id)} | - | - | not measured yet |"


def _statement(study: Study, id: str) -> str:
    default = study.presets["default"]
    declared = (claim for part in study.parts for claim in part.declared(part.presets.get("default", default)))
    return next(claim.statement for claim in declared if claim.id == id).replace("|", "\\|")


def _start(listed: Sequence[Paper]) -> str:
    rows = [f"| paper | {' | '.join(STATUSES)} |", "|---|" + "---|" * len(STATUSES)]
    for paper in listed:
        counts = Counter(entry.status for entry in paper.entries)
        link = f"[{paper.title}]({paper.name}.md) ([arXiv {paper.arxiv}](https://arxiv.org/abs/{paper.arxiv}))"
        rows.append(f"| {link} | {' | '.join(str(counts[status]) for status in STATUSES)} |")
    text = (
        "Four papers, figure by figure: what each shows, what is shown here in its place, and what was measured. The "
        "table counts panels. A panel is *the same*, the same *at reduced size* (fewer images or smaller networks, "
        "unless a preset asks for the paper's), *differs* (it shows something else, or less), or is *absent*."
    )
    return "\n".join(["# The papers", "", text, "", *rows, ""])


def _results(found: Mapping[str, Stored]) -> str:
    text = (
        "Every claim of each study, with its value, interval, threshold and verdict, as the default preset measured it."
    )
    counted = (Counter(row[4] for row in each.rows.values()) for each in found.values())
    rows = [
        f"| [{name}]({name}.md) | " + "; ".join(f"{count} {verdict}" for verdict, count in counts.items()) + " |"
        for name, counts in zip(found, counted)
    ]
    return "\n".join(["# Results", "", text, "", "| study | claims |", "|---|---|", *rows, ""])
