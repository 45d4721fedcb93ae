"""A part of a study: options, claims and figures declared first; then ``measure``, slow and stored; then ``report``,
pure.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from experiments.study.claims import Claim, Measured, judge
from experiments.study.costs import Cost
from experiments.study.figures import Figure
from experiments.study.options import Options
from experiments.study.report import FigureEntry, Report, Table, check_declared
from experiments.study.run_directory import RunDirectory

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

    from dgu.core.typing import Key

ConfigT = TypeVar("ConfigT", bound=Options)


@dataclass(frozen=True)
class Findings:
    """What a part reports.

    Attributes:
        answer: one to three plain sentences with the numbers measured.
        claims: what was measured for each declared claim, by its id.
        figures: each declared figure, by its name, or the figure with a further sentence for its caption.
        tables: tables of the report.
        metrics: the numbers of ``metrics.json``, under the name of the part.
    """

    answer: str
    claims: Mapping[str, Measured] = field(default_factory=dict)
    figures: Mapping[str, "Drawing | tuple[Drawing, str]"] = field(default_factory=dict)
    tables: Sequence[Table] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """Where a part computes: its stored stages, and its own stream of random keys.

    Attributes:
        directory: the run directory.
        seed: the seed of the study.
        part: name of the part.
    """

    directory: RunDirectory
    seed: int
    part: str

    @property
    def key(self) -> "Key":
        """The part's own random key."""
        from dgu.core.keys import seeded, stream  # Which take JAX along: not for the help of the command line.

        return stream(seeded(self.seed), self.part)

    def stage(
        self, name: str, compute: Callable[..., Mapping[str, Any]], *args: Any, allow_nonfinite: bool = False
    ) -> dict[str, np.ndarray]:
        """``compute(*args)``, arrays by name, stored as the stage ``PART/name``; read back where it is stored
        already.
        """
        return self.directory.stage(f"{self.part}/{name}", lambda: compute(*args), allow_nonfinite=allow_nonfinite)


@dataclass(frozen=True)
class Part(Generic[ConfigT]):
    """One section of a study's report, and what it takes to make it.

    Attributes:
        name: name of the part, of its options (``--NAME.option``) and of its stages.
        title: heading of its section, which also begins the captions of its figures.
        question: what it asks, in one line, which is printed when it starts.
        paper: short name of the paper that its claims come from, or ``"own"``.
        claims: its claims, or a function that makes them from its options: nothing measured enters.
        figures: its figures.
        measure: ``measure(options, subject, run)``: everything slow, as stages of ``run``.
        report: ``report(options, subject, measured)``: pure and quick; made again at will from what ``measure``
            returns.
        presets: its options in each preset of the study; a part without any is handed the options that all parts share.
        costs: ``costs(options, plan)``, for a dry run.
        check: ``check(options, subject)`` refuses, before any work, what the part cannot use.
        skips: ``skips(options, subject)``: why the part does not apply to a subject, or ``""``.
    """

    name: str
    title: str
    question: str
    paper: str
    claims: Sequence[Claim] | Callable[[ConfigT], Sequence[Claim]]
    figures: Sequence[Figure]
    measure: Callable[[ConfigT, Any, Run], Any]
    report: Callable[[ConfigT, Any, Any], Findings]
    presets: Mapping[str, ConfigT] = field(default_factory=dict)
    costs: Callable[[ConfigT, Any], list[Cost]] = lambda config, plan: []
    check: Callable[[ConfigT, Any], None] = lambda config, subject: None
    skips: Callable[[ConfigT, Any], str] = lambda config, subject: ""

    def declared(self, config: ConfigT) -> tuple[Claim, ...]:
        """The claims that these options declare."""
        return tuple(self.claims(config) if callable(self.claims) else self.claims)

    def section(self, config: ConfigT, subject: Any, directory: RunDirectory, seed: int) -> Report:
        """Measure, report, write the figures and judge the claims. ``RuntimeError`` where findings are not those
        declared.
        """
        found = self.report(config, subject, self.measure(config, subject, Run(directory, seed, self.name)))
        claims = self.declared(config)
        check_declared(f"the part {self.name}", "claims", [claim.id for claim in claims], found.claims)
        check_declared(f"the part {self.name}", "figures", [figure.name for figure in self.figures], found.figures)
        entries = []
        for figure in self.figures:
            drawn = found.figures[figure.name]
            drawing, note = drawn if isinstance(drawn, tuple) else (drawn, "")
            directory.save_figure(figure.file, drawing)
            entries.append(FigureEntry(figure.file, f"{figure.caption} {note}".strip()))
        judged = [judge(claim, found.claims[claim.id], self.paper) for claim in claims]
        return Report(self.title, found.answer, judged, entries, found.tables, found.metrics)
