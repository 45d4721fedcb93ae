"""Studies in parts: each part is a module with a section of the report, run one after the other.

A part has ``Config``, ``PRESETS``, ``CLAIM_IDS``, ``FIGURE_FILES``, ``run(config, subject, directory, seed)``, which
returns its ``Section`` (None where the subject does not allow it), ``costs(config, plan)`` and, where it can refuse,
``check(config, ...)``. The configuration of the study has ``parts``, the names of those to run, ``seed``, and the
options of each part under its name.
"""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from dgu.core.errors import require
from experiments.study.costs import Cost
from experiments.study.report import FigureEntry, Report, Section, Table, check_promises
from experiments.study.run_directory import RunDirectory

#: Modules of parts by name, in the order of the report.
Parts = Mapping[str, Any]


def modules(package: ModuleType, names: Sequence[str]) -> dict[str, Any]:
    """The modules of ``package`` that are called by these names."""
    return {name: getattr(package, name) for name in names}


def presets(parts: Parts, preset: str) -> dict[str, Any]:
    """The options of every part in this preset."""
    return {name: part.PRESETS[preset] for name, part in parts.items()}


def check_each_once(names: Sequence[str]) -> None:
    """``InputError`` unless ``--parts`` names one or more parts, each once."""
    require(bool(names) and len(set(names)) == len(names), "parts", names, "one or more, each once")


def chosen(parts: Parts, config: Any) -> dict[str, Any]:
    """The parts that ``config`` asks for, in the order of the report."""
    return {name: part for name, part in parts.items() if name in config.parts}


def check(parts: Parts, config: Any, *given: Any) -> None:
    """Every part's own ``check(config, *given)``: to refuse before any work what a later part cannot use."""
    for name, part in parts.items():
        if hasattr(part, "check"):
            part.check(getattr(config, name), *given)


def run(parts: Parts, config: Any, subject: Any, directory: RunDirectory) -> dict[str, Section]:
    """The section of each part, without those that return None. ``RuntimeError`` where one breaks its promises."""
    sections: dict[str, Section] = {}
    for name, part in parts.items():
        print(f"{name}: {_question(part)}", flush=True)
        section = part.run(getattr(config, name), subject, directory, config.seed)
        if section is not None:
            check_promises(f"the part {name}", section, part.CLAIM_IDS, part.FIGURE_FILES)
            sections[name] = section
    return sections


def _question(part: Any) -> str:
    """The first line of what its module says."""
    return (part.__doc__ or "").strip().splitlines()[0]


def metrics(sections: Mapping[str, Section]) -> dict[str, Any]:
    """The metrics of each section, under the name of its part."""
    return {name: section.metrics for name, section in sections.items()}


def report(title: str, answers: Sequence[str], sections: Mapping[str, Section], tables: Sequence[Table] = ()) -> Report:
    """The report: ``answers``, a paragraph each; ``tables``, if any, before those of the sections, which go by their
    titles.
    """
    every = list(sections.values())
    return Report(
        title,
        "\n".join(answers),
        claims=[claim for section in every for claim in section.claims],
        figures=[FigureEntry(f.file, f"{s.title}. {f.caption}") for s in every for f in s.figures],
        tables=[*tables, *(Table(f"{s.title}: {t.title}", t.header, t.rows) for s in every for t in s.tables)],
    )


def costs(parts: Parts, config: Any, plan: Any) -> list[Cost]:
    """What the parts would cost, for a dry run."""
    return [cost for name, part in parts.items() for cost in part.costs(getattr(config, name), plan)]
