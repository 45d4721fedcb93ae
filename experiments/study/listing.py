"""The index of the papers: each figure, table and theorem, and what of it is made.

``python -m experiments.study.listing`` writes it to ``docs/figures.toml``.

A ``paper.toml`` beside a study lists, panel by panel, what its paper shows, what this repository shows, and how the two
differ. Which files and claims stand for an item comes from the declarations of the studies: a ``Figure`` names items by
their ids, a ``Claim`` by the words of its ``source``.
"""

import importlib
import json
import pkgutil
import re
import textwrap
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import experiments
from dgu.core.errors import InputError
from dgu.core.files import write_atomic
from experiments.study.command_line import run_command
from experiments.study.study import Study

#: What may be said of a panel: ours is the paper's; it has fewer images or smaller networks, unless a preset asks for
#: the paper's; it shows something else, or less; there is none.
STATUSES = ("same", "same at reduced size", "differs", "absent")
#: The folder of the studies.
HOME = Path(experiments.__file__).parent
#: Columns of the index.
_WIDTH = 120
#: Items as claims name them: "Figs 2, 3 and 6", "Theorem 1, assumption", "App. A.2"; equations also as "(46)".
_NUMBER = r"(?:[A-Z]\.)?\d[\d.]*"
_NAMED = re.compile(
    r"\b((?i:fig|table|theorem|lemma|remark|observation|algorithm|definition|equation|section|app))s?\.? "
    rf"({_NUMBER}(?:(?:, | and ){_NUMBER})*)"
)


@dataclass(frozen=True)
class Entry:
    """One panel of a paper, or a whole figure, table, theorem or protocol.

    Attributes:
        id: the item, such as ``"fig-4"`` or ``"theorem-1"``; entries of one item follow each other.
        shows: what the paper shows: axes, arms, data, sizes.
        status: one of ``STATUSES``.
        panel: the panel, if the item has several entries.
        ours: what this repository shows; empty if it is absent or the same.
        why: how ours differs and why, or why it is absent; empty if it is the same.
    """

    id: str
    shows: str
    status: str
    panel: str = ""
    ours: str = ""
    why: str = ""

    def __post_init__(self) -> None:
        about = f"{self.id} {self.panel}".strip()
        if self.status not in STATUSES:
            raise InputError(f"{about}: status = {self.status!r}: must be one of {', '.join(STATUSES)}")
        if not self.shows:
            raise InputError(f"{about}: shows = '': must say what the paper shows")
        if bool(self.why) == (self.status == "same"):
            raise InputError(f"{about}: why = {self.why!r}: must be given, unless ours is the same")
        if not self.ours and self.status in ("same at reduced size", "differs"):
            raise InputError(f"{about}: ours = '': must say what ours shows")


@dataclass(frozen=True)
class Paper:
    """A paper, as its ``paper.toml`` lists it.

    Attributes:
        name: what parts and claims call it.
        title, arxiv: what it is about, and its number there.
        studies: the studies that reproduce it.
        entries: everything that it shows.
        cite: its authors, year and title.
    """

    name: str
    title: str
    arxiv: str
    studies: tuple[str, ...]
    entries: tuple[Entry, ...]
    cite: str = ""

    @property
    def items(self) -> dict[str, list[Entry]]:
        """The entries by item, in the paper's order."""
        found: dict[str, list[Entry]] = {}
        for entry in self.entries:
            found.setdefault(entry.id, []).append(entry)
        return found


@dataclass(frozen=True)
class Made:
    """A figure or a claim that a part of a study declares.

    Attributes:
        study, part: who declares it.
        name: ``STUDY/FILE`` of a figure, ``STUDY/ID`` of a claim.
        paper: the paper that it stands for.
        items: ids of the items that it stands for; none if it is our own.
    """

    study: str
    part: str
    name: str
    paper: str
    items: tuple[str, ...]


def read_paper(file: Path) -> Paper:
    """The ``paper.toml`` in ``file``.

    Raises:
        InputError: an entry lacks what it must say, or one panel is listed twice.
    """
    data = tomllib.loads(file.read_text())
    try:
        entries = tuple(Entry(**entry) for entry in data.pop("entry"))
        paper = Paper(**data | {"studies": tuple(data["studies"])}, entries=entries)
    except (TypeError, KeyError) as error:
        raise InputError(f"{file}: {error}: must have the fields of Paper, and entries those of Entry") from error
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    panels = [(entry.id, entry.panel) for entry in entries]
    twice = sorted({f"{id} {panel}".strip() for id, panel in panels if panels.count((id, panel)) > 1})
    if twice:
        raise InputError(f"{file}: {', '.join(twice)}: must be listed once")
    return paper


def papers(home: Path = HOME) -> list[Paper]:
    """Every paper that a study reproduces, by name."""
    return sorted((read_paper(file) for file in home.glob("*/paper.toml")), key=lambda paper: paper.name)


def studies() -> dict[str, Study]:
    """Every study, by the name of its package."""
    names = sorted(found.name for found in pkgutil.iter_modules([str(HOME)]) if found.ispkg)
    modules = {name: importlib.import_module(f"experiments.{name}") for name in names}
    return {name: module.STUDY for name, module in modules.items() if isinstance(getattr(module, "STUDY", None), Study)}


def named(source: str) -> tuple[str, ...]:
    """Ids of the items that the source of a claim names: ``"Figs 3 and 6"`` is ``("fig-3", "fig-6")``."""
    found = []
    for kind, numbers in _NAMED.findall(re.sub(r"\((\d+)\)", r"equation \1", source)):
        name = "appendix" if kind.lower() == "app" else kind.lower()
        found += [f"{name}-{number.rstrip('.').lower()}" for number in re.split(", | and ", numbers)]
    return tuple(found)


def figures(study: Study) -> list[Made]:
    """The figures that a study declares."""
    return [
        Made(study.name, part.name, f"{study.name}/{figure.file}", part.paper, tuple(figure.source.split()))
        for part in study.parts
        for figure in part.figures
    ]


def claims(study: Study) -> list[Made]:
    """The claims that a study declares with its default options."""
    default = study.presets["default"]
    return [
        Made(study.name, part.name, f"{study.name}/{claim.id}", claim.origin(part.paper), named(claim.source))
        for part in study.parts
        for claim in part.declared(part.presets.get("default", default))
    ]


def index(found: Sequence[Paper], made: Mapping[str, Study]) -> str:
    """``docs/figures.toml``.

    Args:
        found: the papers.
        made: the studies, whose figures and claims stand for items of the papers.

    Raises:
        InputError: a figure stands for an item that its paper does not list.
    """
    drawn = [one for study in made.values() for one in figures(study)]
    tested = [one for study in made.values() for one in claims(study)]
    known = {paper.name: paper.items for paper in found}
    for one in drawn:
        strangers = [item for item in one.items if item not in known.get(one.paper, {})]
        if strangers:
            raise InputError(f"{one.name}: source = {' '.join(strangers)!r}: must be an id of the paper {one.paper}")
    lines = [
        "# Every figure, table and theorem of the papers, and what of it this repository makes.",
        "# Made by `python -m experiments.study.listing` from experiments/*/paper.toml and the studies' declarations.",
        "# Do not edit it here.",
        "#",
        "# Each [[item]] has the files that stand for it (STUDY/FILE, in the run directory of the study) and",
        "# the claims (STUDY/ID). Its panels say what the paper shows, what ours shows, and their status:",
        *textwrap.wrap(f"# {'; '.join(STATUSES)}.", _WIDTH),
        "# Each [[own]] lists what a part of a study makes that stands for no item of a paper.",
    ]
    for paper in found:
        lines += _paper(paper, drawn, tested)
    lines += _own(made, known, drawn, tested)
    return "\n".join(lines) + "\n"


def _paper(paper: Paper, drawn: Sequence[Made], tested: Sequence[Made]) -> Iterator[str]:
    yield from ("", f"# {paper.title} (arXiv {paper.arxiv}); studies: {', '.join(paper.studies)}")
    for item, panels in paper.items.items():
        yield from ("", "[[item]]", *_value("paper", paper.name), *_value("id", item))
        yield from _value("files", _standing(drawn, paper.name, item))
        yield from _value("claims", _standing(tested, paper.name, item))
        for entry in panels:
            yield "[[item.panel]]"
            for name in ("panel", "shows", "ours", "status", "why"):
                yield from _value(name, getattr(entry, name))


def _standing(made: Iterable[Made], paper: str, item: str) -> list[str]:
    return [one.name for one in made if one.paper == paper and item in one.items]


def _own(
    made: Mapping[str, Study], known: Mapping[str, Any], drawn: Sequence[Made], tested: Sequence[Made]
) -> Iterator[str]:
    """What each part makes that stands for no item."""

    def rest(of: Sequence[Made], who: tuple[str, str]) -> list[str]:
        mine = (one for one in of if (one.study, one.part) == who)
        return [one.name for one in mine if not set(one.items) & set(known.get(one.paper, ()))]

    yield from ("", "# Beyond the papers")
    for study in made.values():
        for part in study.parts:
            files, ids = (rest(of, (study.name, part.name)) for of in (drawn, tested))
            if files or ids:
                yield from ("", "[[own]]", *_value("study", study.name), *_value("part", part.name))
                yield from (*_value("asks", part.question), *_value("files", files), *_value("claims", ids))


def _value(name: str, value: str | Sequence[str]) -> list[str]:
    """A line of TOML, or several for what is long; none for what is empty."""
    if not value:
        return []
    line = f"{name} = {json.dumps(value, ensure_ascii=False)}"
    if len(line) <= _WIDTH:
        return [line]
    if isinstance(value, str):  # A backslash at the end of a line joins it with the next.
        text = json.dumps(value, ensure_ascii=False)[1:-1]
        *first, last = textwrap.wrap(text, _WIDTH - 5, break_on_hyphens=False, break_long_words=False)
        return [f'{name} = """\\', *(f"  {part} \\" for part in first), f'  {last}"""']
    return [f"{name} = [", *(f"  {json.dumps(each, ensure_ascii=False)}," for each in value), "]"]


@dataclass(frozen=True)
class Config:
    """The index of the papers' figures, tables and theorems."""

    out: Path = HOME.parent / "docs/figures.toml"
    """File that is written."""


def write(config: Config) -> None:
    """Write the index, and print where it is."""
    text = index(papers(), studies())
    write_atomic(config.out, lambda stream: stream.write(text.encode()))
    print(config.out)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; ``argv`` is that of the process by default."""
    run_command(Config, write, name="study.listing", argv=argv)


if __name__ == "__main__":
    main()
