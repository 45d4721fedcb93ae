"""The command line that all commands share: options (see ``arguments``), one-line errors, and runs that resume."""

import contextlib
import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dgu.core.errors import InputError, printable
from experiments.study.arguments import option_types, parse, parse_alone, refuse_renamed, under_its_option
from experiments.study.compilation import compilation
from experiments.study.configuration import config_to_json
from experiments.study.costs import Cost, cost_table
from experiments.study.ends import in_one_line
from experiments.study.guide import Guide
from experiments.study.judged import JudgedClaim, claims_table, read_claims, write_claims
from experiments.study.least_time import least_time, matmul_rate
from experiments.study.messages import note, say, speaking
from experiments.study.metrics_table import as_table
from experiments.study.multiplicity import by_chance
from experiments.study.processes import is_lead
from experiments.study.provenance import ENVIRONMENT, command_of, environment
from experiments.study.report import Report, check_declared, write_report
from experiments.study.run_directory import RunDirectory

ConfigT = TypeVar("ConfigT")


#: What is said first of a run of the smallest preset.
SMOKE = "A run of the preset smoke: it shows that the program works. Its numbers mean nothing."


def run_experiment(
    presets: Mapping[str, ConfigT],
    run: Callable[[ConfigT, RunDirectory], Report],
    *,
    name: str,
    dry_run: Callable[[ConfigT], Sequence[Cost]] | None = None,
    description: str = "",
    claim_ids: Sequence[str] | None = None,
    figure_files: Sequence[str] | None = None,
    report_only: bool = False,
    renamed: Mapping[str, str] | None = None,
    guide: Guide | None = None,
    argv: Sequence[str] | None = None,
) -> tuple[JudgedClaim, ...]:
    """Parse the command line, run the experiment in its directory, and print its claims and the report's path.

    A finished run is read, not repeated; an unfinished one continues. Failing claims are results: the exit code is 0.
    Whatever stops it ends the process with one line on standard error (see ``in_one_line``): bad input with exit code 2
    and nothing stored touched, else with everything stored kept.

    Args:
        presets: frozen dataclass instances by name; each field's docstring is its help text. Without ``--preset`` it
            is the one called ``"default"``.
        run: the study; stores its stages and figures in the directory and returns its report.
        name: the experiment's name, as in ``python -m experiments.NAME``.
        dry_run: what a configuration would cost; gives the command line ``--dry-run`` and ``--probe``, and is
            printed before a run of the preset ``paper`` starts.
        description: what the study asks, for ``--help``.
        claim_ids, figure_files: the claims and figures of its report, if they are known beforehand; ``RuntimeError``
            where the report holds others.
        report_only: whether the command line has ``--report-only``, which makes figures, claims and report of a
            finished run again from its stored stages, without measuring.
        renamed: options that have another name now; the old one is refused with the new one.
        guide: what ``--help`` shows.
        argv: the arguments, by default those of the process.

    Returns:
        The claims (none after ``--dry-run``).
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    with in_one_line(name, explain=lambda line: under_its_option(line, argv, option_types(presets["default"]))):
        refuse_renamed(argv, renamed or {})
        offered = ["recompile", "quiet"] + ["dry_run", "probe"] * (dry_run is not None) + ["report_only"] * report_only
        options = parse(presets, argv, name=name, description=description, offered=offered, guide=guide)
        if dry_run is not None and (options.dry_run or options.probe):
            print(f"{name}, preset {options.preset}: what it would cost (nothing was run)")
            _print_costs(dry_run(options.config), probed=options.probe)
            return ()
        order = Order(
            options.config,
            options.out or Path("runs") / f"{name}-{options.preset}",
            preset=options.preset,
            command=command_of(name, options.preset, options.config, presets),
            report_only=report_only and options.report_only,
            recompile=options.recompile,
            quiet=options.quiet,
            log=options.log,
        )
        return carry_out(order, run, name=name, dry_run=dry_run, claim_ids=claim_ids, figure_files=figure_files)


@dataclass(frozen=True)
class Order:
    """What a command line asks of an experiment.

    Attributes:
        config: its options.
        out: directory of the run.
        preset: the preset whose options ``config`` has, or overrides.
        command: the command that asks for it, which the report shows.
        report_only: figures, claims and report of a finished run are made again; nothing is measured.
        recompile: compiled programs are neither taken from the user's cache nor kept there.
        quiet: nothing is printed but the path of the report.
        log: file that all lines are written to, too.
    """

    config: Any
    out: Path
    preset: str = "default"
    command: str = ""
    report_only: bool = False
    recompile: bool = False
    quiet: bool = False
    log: Path | None = None


def carry_out(
    order: Order,
    run: Callable[[Any, RunDirectory], Report],
    *,
    name: str,
    dry_run: Callable[[Any], Sequence[Cost]] | None = None,
    claim_ids: Sequence[str] | None = None,
    figure_files: Sequence[str] | None = None,
) -> tuple[JudgedClaim, ...]:
    """Run an experiment in its directory as ordered, print its claims and the report's path, and return the claims.

    The arguments are those of ``run_experiment``.

    Raises:
        InputError: the directory cannot hold the run, or ``run`` refuses its options.
    """
    out = order.out
    existed = os.path.exists(out)
    if order.report_only and not (out / "report.html").exists():
        raise InputError(
            f"--out = {str(out)!r}: must be the directory of a finished run (--report-only measures nothing)"
        )
    alone = contextlib.redirect_stdout(sys.stdout if is_lead() else io.StringIO())
    held = RunDirectory.hold(out, order.config, only_reports=order.report_only)
    with held as directory, alone, contextlib.ExitStack() as spoken:
        with _given_back(directory, existed):
            spoken.enter_context(speaking(quiet=order.quiet, log=order.log))
        shown = printable(str(directory.path))
        # Claims are written last: where a finished run has them, everything else is there.
        claims = read_claims(directory) if directory.finished and not order.report_only else None
        if claims is not None:
            say(f"{name}, preset {order.preset}: already finished in {shown}")
        else:
            say(f"{name}, preset {order.preset}, in {shown}")
            if dry_run is not None and order.preset == "paper" and is_lead():
                say("what it costs from start to end:")
                _print_costs(dry_run(order.config))
            with _given_back(directory, existed):
                with compilation(quick=order.preset == "smoke", kept=not order.recompile) as compiled:
                    report = run(order.config, directory)
                if compiled.programs:
                    say(str(compiled))
            claims = tuple(report.claims)
            if claim_ids is not None:
                check_declared("the study", "claims", claim_ids, [claim.id for claim in claims])
            if figure_files is not None:
                check_declared("the study", "figures", figure_files, [figure.file for figure in report.figures])
            if is_lead():
                _write(directory, report, order)
        if is_lead():
            if claims:
                if order.preset == "smoke":
                    say(SMOKE)
                say(claims_table(claims, width=max(60, min(shutil.get_terminal_size().columns, 120))))
                if chance := by_chance(claims):
                    say(chance)
            line = f"report: {printable(str((directory.path / 'report.html').resolve()))}"
            note(line)
            print(line)
    return claims


def run_command(
    options: type[ConfigT],
    run: Callable[[ConfigT], object],
    *,
    name: str,
    guide: Guide | None = None,
    argv: Sequence[str] | None = None,
) -> None:
    """Parse the command line of a command without presets and without a run directory, and run it.

    Whatever stops it ends the process as in ``run_experiment``; the same command again starts over.

    Args:
        options: the dataclass of its options.
        run: what it does.
        name: its name, as in ``python -m experiments.NAME``.
        guide: what ``--help`` shows.
        argv: the arguments, by default those of the process.
    """
    with in_one_line(name, again="the same command again starts over"):
        run(parse_alone(options, argv, name=name, guide=guide))


def _print_costs(costs: Sequence[Cost], probed: bool = False) -> None:
    """The table of costs, and the least time that they take here, or what a batch of each stage says of it."""
    import jax

    say(cost_table(costs))
    if probed:
        from experiments.study.probe import probe

        probe(costs, matmul_rate(), jax.device_count(), say)
    else:
        say(least_time(costs, matmul_rate(), jax.device_count()))


@contextlib.contextmanager
def _given_back(directory: RunDirectory, existed: bool) -> Iterator[None]:
    """Where options are refused inside, the directory is as before, so that the same command, mended, may use it."""
    try:
        yield
    except InputError:
        with contextlib.suppress(OSError):  # It may be gone.
            directory.discard(remove=not existed)
        raise


def _write(directory: RunDirectory, report: Report, order: Order) -> None:
    """Write the metrics as a table, where the run was finished, the report, and the claims last."""
    metrics = directory.read_json("metrics.json")
    if metrics is None:
        raise RuntimeError("the study must write metrics.json")
    directory.write_text("metrics.csv", as_table(metrics))
    if not (order.report_only or (directory.path / ENVIRONMENT).exists()):
        directory.write_json(ENVIRONMENT, dict(environment()))
    notice = SMOKE if order.preset == "smoke" and report.claims else ""
    write_report(directory, report, config_to_json(order.config), order.command, notice)
    write_claims(directory, report.claims)
