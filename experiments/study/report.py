"""``report.html``: one self-contained page that opens from disk: the answer, the claims, figures, tables and config."""

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from experiments.study.configuration import options
from experiments.study.judged import JudgedClaim, counted
from experiments.study.least_time import in_words
from experiments.study.multiplicity import EXPLAINED, by_chance
from experiments.study.provenance import ENVIRONMENT, environment
from experiments.study.run_directory import DPI, RunDirectory


@dataclass(frozen=True)
class FigureEntry:
    """A figure of the report: ``file`` inside the run directory (PNG), and what it shows, for the caption."""

    file: str
    caption: str


@dataclass(frozen=True)
class Table:
    """A table of the report: a title, column heads and rows of cells (shown by ``str``; floats with four digits)."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Report:
    """What a study, or a part of one, has found: a title, the answer (a paragraph a line) and its evidence.

    Attributes:
        title: the heading.
        answer: plain sentences with the numbers measured.
        claims, figures, tables: in the order in which they are shown.
        metrics: the numbers of ``metrics.json``, of a part under its name.
        terms: what the words of the claims mean, by term.
        question: what was asked.
        citations: what a text that uses the results should cite: dgu, then the papers that the study follows.
        sources: the papers by the short names that the claims call them by.
        about: the data and the network of the run, in plain sentences (a paragraph a line).
        shown: pictures of the data and of what the network makes, or None.
    """

    title: str
    answer: str
    claims: Sequence[JudgedClaim]
    figures: Sequence[FigureEntry] = ()
    tables: Sequence[Table] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    terms: Mapping[str, str] = field(default_factory=dict)
    question: str = ""
    citations: Sequence[str] = ()
    sources: Mapping[str, str] = field(default_factory=dict)
    about: str = ""
    shown: FigureEntry | None = None


def check_declared(who: str, what: str, declared: Sequence[str], given: Iterable[str]) -> None:
    """``RuntimeError`` where the claims or figures ``given`` by a study, or a part of one, are not those declared."""
    if sorted(declared) != sorted(given):
        different = sorted(set(declared) ^ set(given))
        raise RuntimeError(f"{who}: its {what} differ from those declared: {different}")


_CSS = """
:root { color-scheme: light dark; --fg: #1c1e21; --bg: #fff; --soft: #5b6168; --line: #d5d9de; --panel: #f5f6f8;
  --good: #00674b; --bad: #b33c00; --open: #6b5900; }
@media (prefers-color-scheme: dark) { :root { --fg: #e6e7e9; --bg: #17191c; --soft: #a5abb3; --line: #3a3f46;
  --panel: #202327; --good: #3ecf9f; --bad: #ff9a5c; --open: #e8d35a; } img { filter: brightness(.9); } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--fg); background: var(--bg); max-width: 62rem;
  margin: 2rem auto; padding: 0 1rem; overflow-wrap: break-word; }
h1 { line-height: 1.2; margin-bottom: .3rem; } h2 { margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
.question { font-size: 1.15rem; color: var(--soft); margin-top: 0; }
.answer { font-size: 1.1rem; background: var(--panel); border-left: 4px solid var(--line); padding: .1rem 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid var(--line); }
td { font-variant-numeric: tabular-nums; } th { color: var(--soft); font-weight: 600; }
caption { text-align: left; font-weight: 600; padding: .4rem 0; } summary { font-weight: 600; cursor: pointer; }
details { margin: .5rem 0; } .note summary { font-weight: inherit; }
.note:not([open]) > summary::after { content: " …"; }
.supported { color: var(--good); } .not-supported { color: var(--bad); } .undecided { color: var(--open); }
.not-applicable { color: var(--soft); }
.verdict { font-weight: 700; white-space: nowrap; } .note, figcaption, footer { color: var(--soft); font-size: .9rem; }
dl { margin: .5rem 0 1.2rem; } dt { font-weight: 600; } dd { margin-left: 1.2rem; }
code { font-size: .85em; } figure { margin: 1.5rem 0; }
pre { background: var(--panel); padding: .6rem 1rem; overflow-x: auto; font-size: .88rem; white-space: pre-wrap; }
img { max-width: 100%; height: auto; box-sizing: border-box; background: #fff; border: 1px solid var(--line); }
.claims td:first-child { width: 52%; } .claims .note { font-size: .95em; }
@media (max-width: 40rem) { figure img { max-width: 44rem; } .claims td:first-child { width: auto; }
  body { margin: 1rem auto; } .claims thead { display: none; }
  .claims tr, .claims td { display: block; border: 0; padding: .1rem 0; }
  .claims tr { border-bottom: 1px solid var(--line); padding: .6rem 0; }
  .claims td[data-label]::before { content: attr(data-label) ": "; color: var(--soft); } }
@media print { :root { color-scheme: light; --fg: #000; --bg: #fff; --soft: #444; --line: #bbb; --panel: #f5f6f8;
  --good: #00674b; --bad: #b33c00; --open: #6b5900; } body { font-size: 10pt; margin: 0; max-width: none; }
  img { filter: none; } figure, tr, .answer { break-inside: avoid; } h2, h3, caption { break-after: avoid; }
  .wide { overflow: visible; } .verdict { white-space: normal; }
  .claims { table-layout: fixed; font-size: 8pt; } .claims th { width: 13%; } .claims th:first-child { width: 37%; }
  .claims th:nth-child(5) { width: 9%; } .claims th:nth-child(3) { width: 15%; }
  .note:not([open]) > summary::after { content: none; }
  details::details-content { content-visibility: visible; display: block; } }
"""

#: Said below the claims of every report, for as long as there are reports: two rules of verdict are younger than the
#: studies.
_RULES = (
    "Claims, estimators and thresholds were declared before they were first measured. Two rules that apply to all of "
    "them came later, after the studies had been run: an interval without width gives no verdict unless the value is "
    "exact (such a claim is undecided and marked “all alike”), and a claim that the configuration of the run cannot "
    "test is not applicable. Before, the first kind was supported or not supported by its value alone, and some of the "
    "second kind were not supported."
)

#: What the mark of a claim about one network means.
ONE_NETWORK = (
    "¹ The interval is over images or noises of one network, or of one set of networks, each trained once: it does not "
    "say how far others, trained again, would be from these."
)
#: What follows the papers that sources name.
_NUMBERS = "Figures, tables, theorems and equations have the numbers that they have there."
#: What controls are.
CONTROLS = (
    "Controls are claims about data or denoisers for which the answer is known beforehand: they show that the "
    "measurement finds an effect that is there, and none where there is none."
)
#: What checks of the program are.
CHECKS = (
    "Checks of the program are statements that can be false only if the program is wrong, such as a formula against "
    "another form of itself, or if there are too few images for what it approximates, as in runs of the preset smoke. "
    "They are not counted among the claims."
)

#: Columns of the table of claims, after the claim itself.
_COLUMNS = ("verdict", "measured [95 % interval]", "threshold", "p", "source")
#: Pixels of a screen that an inch of a figure takes where there is room.
_SCREEN = 130
_MARKS = {"supported": "✓", "not supported": "✗", "undecided": "?", "not applicable": "–"}


def write_report(
    directory: RunDirectory, report: Report, config: Mapping[str, Any], command: str = "", notice: str = ""
) -> None:
    """Write ``report.html``. ``FileNotFoundError`` if a figure it names is not in the directory.

    Args:
        directory: the run's directory; the figures are read from it, the times of the stages too.
        report: what the study returned.
        config: the configuration as ``config_to_json`` gives it.
        command: what makes the run again.
        notice: what is to be known before anything else is read.
    """
    timings = directory.timings()
    times = [*timings.items(), ("total", sum(timings.values()))]
    given = [
        (name, " ".join(map(str, value)) if isinstance(value, list) else str(value))
        for name, value in options(config).items()
    ]
    parts = [
        f"<h1>{html.escape(report.title)}</h1>",
        *([f'<p class="question">{html.escape(report.question)}</p>'] if report.question else []),
        *([f"<p><strong>{html.escape(notice)}</strong></p>"] if notice else []),
        f'<div class="answer">{"".join(f"<p>{html.escape(line)}</p>" for line in report.answer.splitlines())}</div>',
        *([_source(report.citations[1:])] if report.citations[1:] else []),
        *_about(directory, report),
        *(["<h2>Claims</h2>", _terms(report.terms), _claims(report.claims, report.sources)] if report.claims else []),
        *(["<h2>Figures</h2>"] if report.figures else []),
        *(_figure(directory, figure) for figure in report.figures),
        *(["<h2>Tables</h2>"] if report.tables else []),
        *map(_table, report.tables),
        "<h2>How it was made</h2>",
        *([f"<pre>{html.escape(command)}</pre>"] if command else []),
        f"<p>Its stages took {in_words(sum(timings.values()))} to compute.</p>" if timings else "",
        *(_table(table) for table in _machines(directory)),
        _folded(_table(Table("Time of each stage", ("stage", "time"), [(s, f"{time:.1f} s") for s, time in times]))),
        _folded(_table(Table("Configuration", ("option", "value"), given))),
        *(
            ["<h2>How to cite</h2>", *(f"<p>{html.escape(line)}</p>" for line in report.citations)]
            if report.citations
            else []
        ),
    ]
    body = "\n".join(parts)
    directory.write_text(
        "report.html",
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(report.title)}</title>\n<style>{_CSS}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n",
    )


def _machines(directory: RunDirectory) -> list[Table]:
    """Where the run was finished, and where this page was made if that is elsewhere or not known."""
    here, stored = environment(), directory.read_json(ENVIRONMENT)
    if not isinstance(stored, dict):
        return [Table("Where this page was made", ("", ""), here)]
    tables = [Table("Where the run was finished", ("", ""), [(name, stored[name]) for name in stored])]
    if {name: str(value) for name, value in stored.items()} != dict(here):
        tables.append(Table("Where this page was made", ("", ""), here))
    return tables


def _about(directory: RunDirectory, report: Report) -> list[str]:
    """The data and the network of the run, or nothing."""
    if not report.about:
        return []
    pictures = [_figure(directory, report.shown)] if report.shown else []
    words = (f"<p>{html.escape(line)}</p>" for line in report.about.splitlines())
    return ["<h2>Data and network</h2>", *words, *pictures]


def _terms(terms: Mapping[str, str]) -> str:
    """The words of the claims and their meanings, or nothing."""
    rows = (f"<dt>{html.escape(term)}</dt><dd>{html.escape(meaning)}</dd>" for term, meaning in terms.items())
    words = f"<details open><summary>What the words mean</summary><dl>{''.join(rows)}</dl></details>"
    return words if terms else ""


def _source(papers: Sequence[str]) -> str:
    """The papers that the study follows."""
    said = f"The study follows: {' '.join(papers)} What is claimed beyond that has the source “own”."
    return f'<p class="note">{html.escape(said)}</p>'


def _claims(claims: Sequence[JudgedClaim], sources: Mapping[str, str]) -> str:
    """Verdicts counted; the claims that count, controls after the others; what is to be said of them all; and the
    checks of the program.
    """
    checks = [claim for claim in claims if claim.check]
    controls = [claim for claim in claims if claim.is_control and not claim.check]
    others = [claim for claim in claims if not (claim.is_control or claim.check)]
    noted = [by_chance(claims)]
    noted += [EXPLAINED] if noted[0] else []
    noted += [ONE_NETWORK] if any(claim.one_network for claim in claims) else []
    papers = " ".join(f"“{name}” is {paper}" for name, paper in sources.items())
    noted += [f"Sources: {papers} {_NUMBERS}"] if papers else []
    notes = "".join(f'<p class="note">{html.escape(text)}</p>' for text in (*noted, _RULES) if text)
    apart = f"<h3>Checks of the program</h3>{_claim_table(checks)}" if checks else ""
    words = f'<p class="note">{html.escape(CHECKS)}</p>' if checks else ""
    known = f"<h3>Controls</h3>{_claim_table(controls)}" * bool(controls)
    about = f'<p class="note">{html.escape(CONTROLS)}</p>' * bool(controls)
    count = f"<p>{html.escape(counted(claims))}.</p>"
    return f"{count}{_claim_table(others)}\n{known}{about}\n{notes}\n{apart}{words}"


def _claim_table(claims: Sequence[JudgedClaim]) -> str:
    # One part alone says what its claim says.
    shown = [(claim, *(claim.parts if len(claim.parts) > 1 else ())) for claim in claims]
    rows = [_claim_row(one, "↳ " * (one is not group[0])) for group in shown for one in group]
    return _tabulated("", ("claim", *_COLUMNS), rows, "claims")


def _claim_row(claim: JudgedClaim, prefix: str) -> str:
    remarks = " ".join(filter(None, ("A check of the program." * bool(prefix and claim.check), claim.remarks)))
    note = _remark(html.escape(remarks)) if remarks else ""
    word = claim.verdict
    measured = claim.measured + " ¹" * claim.one_network
    cells = zip(_COLUMNS[1:], (measured, claim.threshold, claim.significance, claim.origin))
    return (
        f"<tr><td>{prefix}<code>{html.escape(claim.id)}</code><br>{html.escape(claim.statement)}{note}</td>"
        f'<td class="verdict {word.replace(" ", "-")}">{_MARKS[word]} {word}</td>'
        + "".join(f'<td data-label="{name}">{html.escape(cell)}</td>' for name, cell in cells)
        + "</tr>"
    )


def _remark(text: str) -> str:
    """What is to be said beside a claim: its first words, and the rest when they are clicked, and in print."""
    if len(text) < 160:
        return f'<br><span class="note">{text}</span>'
    start = text[:80].rpartition(" ")[0]
    return f'<details class="note"><summary>{start}</summary>{text[len(start) :]}</details>'


def _folded(table: str) -> str:
    """A table that is shown when its name is clicked, and in print."""
    title = table.partition("<caption>")[2].partition("</caption>")[0]
    return f"<details><summary>{title}</summary>{table.replace(f'<caption>{title}</caption>', '', 1)}</details>"


def _figure(directory: RunDirectory, figure: FigureEntry) -> str:
    image = (directory.path / figure.file).read_bytes()
    data = base64.b64encode(image).decode()
    width = round(int.from_bytes(image[16:20], "big") * _SCREEN / DPI)  # Where a PNG has its own, in pixels.
    caption = html.escape(figure.caption)
    vector = " (and .pdf)" * (directory.path / figure.file).with_suffix(".pdf").exists()
    return (
        f'<figure><div class="wide"><img src="data:image/png;base64,{data}" width="{width}" alt="{caption}"></div>'
        f"<figcaption>{caption} <code>{html.escape(figure.file)}</code>{vector}</figcaption></figure>"
    )


def _table(table: Table) -> str:
    rows = ["".join(f"<td>{html.escape(_cell(cell))}</td>" for cell in row) for row in table.rows]
    caption = f"<caption>{html.escape(table.title)}</caption>"
    return _tabulated(caption, table.header, [f"<tr>{row}</tr>" for row in rows])


def _tabulated(caption: str, header: Sequence[str], rows: Iterable[str], kind: str = "") -> str:
    """A table that scrolls where the window is too narrow, from its rows in HTML."""
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in header)
    body = "\n".join(rows)
    head = f"<thead><tr>{head}</tr></thead>" if any(header) else ""
    open_ = f'<table class="{kind}">' if kind else "<table>"
    return f'<div class="wide">{open_}{caption}{head}\n<tbody>\n{body}\n</tbody></table></div>'


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
