"""A study: parts that look at one subject; its command line, run directory and report follow from the declarations."""

import dataclasses
import functools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from dgu.core.errors import require
from experiments.study.command_line import Order, carry_out, run_experiment
from experiments.study.costs import Cost
from experiments.study.ends import begin
from experiments.study.guide import SHORT, WHOLE, Guide
from experiments.study.judged import JudgedClaim
from experiments.study.materials import Materials
from experiments.study.messages import say
from experiments.study.multiplicity import corrected
from experiments.study.options import Options
from experiments.study.part import Findings, Part
from experiments.study.provenance import citations, command_of, sources
from experiments.study.record import compared, record_of
from experiments.study.report import FigureEntry, Report, Table
from experiments.study.run_directory import RunDirectory

#: Presets of a study that names no others.
PRESETS = ("smoke", "default", "paper")


@dataclasses.dataclass(frozen=True)
class Study:
    """One question about one subject, answered in several parts; run by ``python -m experiments.NAME``.

    Attributes:
        name: name of the package, and of the command.
        title: title of the report.
        question: what the study asks, for ``--help``.
        options: the options that its parts share, a frozen dataclass of ``Options`` with a field ``seed``.
        parts: its parts, in the order of the report.
        gather: ``gather(config, directory)`` makes the subject: it loads what the options name and refuses what cannot
            be used; long computations wait until a part needs them.
        plan: ``plan(config)`` gives what ``--dry-run`` knows of the subject without making it, which is handed to the
            ``costs`` of the parts, and what making the subject costs.
        overrides: by preset, the options that differ from their defaults; those of the parts come from
            ``Part.presets``, in the preset of the same name. ``"parts"`` names the parts that run.
        introduce: ``introduce(config, subject)`` gives tables and metrics with which the report begins, and as its
            answer how the subject was looked at, which is said after what ``describe`` says.
        describe: ``describe(config, subject, directory)`` gives data and network in words and pictures, without
            measuring anything; called after the parts.
        renamed: options, or groups of them, that have another name now, for those who still type the old one:
            ``{"--epochs": "--stopping.epochs"}``.
        guide: the options that matter first, and examples, for ``--help``.
        terms: what the words and symbols of its claims mean, by term: said above the claims in the report and on the
            page of results.
    """

    name: str
    title: str
    question: str
    options: type[Options]
    parts: tuple[Part[Any], ...]
    gather: Callable[[Any, RunDirectory], Any]
    plan: Callable[[Any], tuple[Any, list[Cost]]] = lambda config: (None, [])
    overrides: Mapping[str, Mapping[str, Any]] = dataclasses.field(
        default_factory=lambda: {name: {} for name in PRESETS}
    )
    introduce: Callable[[Any, Any], Findings] = lambda config, subject: Findings("")
    describe: Callable[[Any, Any, RunDirectory], Materials] = lambda config, subject, directory: Materials()
    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    guide: Guide = dataclasses.field(default_factory=Guide)
    terms: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def config(self) -> type[Options]:
        """The dataclass of all options: those shared, ``parts``, and those of each part under its name."""
        names = tuple(part.name for part in self.parts)
        chosen = Annotated[
            tuple[Literal[names], ...],
            tyro.conf.arg(help="Parts of the study to run."),
        ]
        default = tuple(self.overrides.get("default", {}).get("parts", names))
        fields: list[Any] = [("parts", chosen, dataclasses.field(default=default))]
        for part in self.parts:
            if part.presets:
                own = part.presets["default"]
                fields.append((part.name, type(own), dataclasses.field(default=own)))

        def check(config: Any) -> None:
            self.options.check(config)
            once = bool(config.parts) and len(set(config.parts)) == len(config.parts)
            require(once, "parts", config.parts, "one or more, each once")

        made = dataclasses.make_dataclass(
            "Config", fields, bases=(self.options,), frozen=True, namespace={"check": check}
        )
        made.__doc__ = self.options.__doc__
        return made

    @functools.cached_property
    def presets(self) -> dict[str, Any]:
        """Every preset's options."""
        return {
            preset: self.config(
                **{part.name: part.presets[preset] for part in self.parts if part.presets and part.name not in own},
                **own,
            )
            for preset, own in self.overrides.items()
        }

    def chosen(self, config: Any) -> list[Part[Any]]:
        """The parts that ``config`` asks for, in the order of the report."""
        return [part for part in self.parts if part.name in config.parts]

    def options_of(self, part: Part[Any], config: Any) -> Any:
        """The options of a part: its own, or those that all parts share where it has none."""
        return getattr(config, part.name) if part.presets else config

    def run(self, config: Any, directory: RunDirectory) -> Report:
        """The report of the parts asked for, one after the other; every stage is stored, so a run that was killed goes
        on.
        """
        say(f"{self.name}: prepares its data and its networks")
        subject = self.gather(config, directory)
        asked = [(part, self.options_of(part, config)) for part in self.chosen(config)]
        for part, own in asked:
            part.check(own, subject)
        sections: dict[str, Report] = {}
        skipped = []
        for place, (part, own) in enumerate(asked, 1):
            if why := part.skips(own, subject):
                skipped.append(f"Skipped {part.name}: {why}.")
            else:
                say(f"part {place} of {len(asked)}, {part.name}: {part.question}")
                sections[part.name] = part.section(own, subject, directory, config.seed)
        first, every = self.introduce(config, subject), sections.values()
        metrics = {name: section.metrics for name, section in sections.items()} | dict(first.metrics)
        directory.write_json("metrics.json", metrics)
        materials = self.describe(config, subject, directory)
        return Report(
            self.title,
            "\n".join(filter(None, [*(section.answer for section in every), *skipped])),
            claims=corrected(compared([claim for s in every for claim in s.claims], record_of(self.name))),
            figures=[FigureEntry(f.file, f"{s.title}. {f.caption}") for s in every for f in s.figures],
            tables=[
                *first.tables,
                *(Table(f"{s.title}: {t.title}", t.header, t.rows) for s in every for t in s.tables),
            ],
            metrics=metrics,
            terms=self.terms,
            question=self.question,
            citations=tuple(citations(self.name)),
            sources=sources(claim.paper for section in every for claim in section.claims),
            about="\n".join(filter(None, [materials.words, first.answer])),
            shown=materials.save(directory),
        )

    def dry_run(self, config: Any) -> list[Cost]:
        """What a run would cost."""
        plan, costs = self.plan(config)
        return costs + [
            cost for part in self.chosen(config) for cost in part.costs(self.options_of(part, config), plan)
        ]

    def main(self, argv: Sequence[str] | None = None) -> tuple[JudgedClaim, ...]:
        """The command line; ``argv`` is that of the process by default."""
        return run_experiment(
            self.presets,
            self.run,
            name=self.name,
            description=self.question,
            dry_run=self.dry_run,
            report_only=True,
            renamed=self.renamed,
            guide=self.guide,
            argv=argv,
        )

    def report(self, config: Any, directory: str | os.PathLike[str]) -> tuple[JudgedClaim, ...]:
        """Make figures, claims and report of the finished run of ``config`` in ``directory`` again."""
        same = [preset for preset, own in self.presets.items() if own == config]
        preset = same[0] if same else "default"
        command = command_of(self.name, preset, config, self.presets)
        order = Order(config, Path(directory), preset=preset, command=command, report_only=True)
        return carry_out(order, self.run, name=self.name, dry_run=self.dry_run)

    def __call__(self, argv: Sequence[str] | None = None) -> None:
        """What ``python -m experiments.NAME`` does: join the other processes, if any, and run the command line."""
        argv = sys.argv[1:] if argv is None else argv
        if not {*SHORT, WHOLE} & set(argv):  # The help needs nothing of JAX, which takes a second to load.
            from dgu.core import parallel

            # Every device compiles its programs anew, which is most of what a run of a second takes.
            quick = "smoke" in argv or "--preset=smoke" in argv
            begin(self.name, lambda: parallel.start(every_core=not quick))
        self.main(argv)
