"""The command line that all experiments share: options (see ``arguments``), one-line errors, and runs that resume."""

import contextlib
import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from dgu.core.errors import InputError, printable
from experiments.study.arguments import parse, refuse_renamed, under_its_option
from experiments.study.configuration import config_to_json
from experiments.study.costs import Cost, cost_table
from experiments.study.ends import in_one_line
from experiments.study.judged import JudgedClaim, claims_table, read_claims, write_claims
from experiments.study.processes import is_lead
from experiments.study.report import Report, check_promises, write_report
from experiments.study.run_directory import RunDirectory

ConfigT = TypeVar("ConfigT")


def run_experiment(
    presets: Mapping[str, ConfigT],
    run: Callable[[ConfigT, RunDirectory], Report],
    *,
    name: str,
    dry_run: Callable[[ConfigT], Sequence[Cost]] | None = None,
    default: str = "default",
    description: str = "",
    claim_ids: Sequence[str] | None = None,
    figure_files: Sequence[str] | None = None,
    report_only: bool = False,
    renamed: Mapping[str, str] | None = None,
    argv: Sequence[str] | None = None,
) -> tuple[JudgedClaim, ...]:
    """Parse the command line, run the experiment in its directory, and print its claims and the report's path.

    A finished run is read, not repeated; an unfinished one continues. Failing claims are results: the exit code is 0.
    Whatever stops it ends the process with one line on standard error (see ``in_one_line``): bad input with exit code 2
    and nothing stored touched, else with everything stored kept.

    Args:
        presets: frozen dataclass instances by name; each field's docstring is its help text.
        run: the study; stores its stages and figures in the directory and returns its report.
        name: the experiment's name, as in ``python -m experiments.NAME``.
        dry_run: what a configuration would cost; gives the command line ``--dry-run``, and is printed before a run of
            the preset ``paper`` starts.
        default: the preset used without ``--preset``.
        description: what the study asks, for ``--help``.
        claim_ids, figure_files: what the study promises; ``RuntimeError`` if its report holds others.
        report_only: whether the command line has ``--report-only``, which makes figures, claims and report of a
            finished run again from its stored stages.
        renamed: options that have another name now; the old one is refused with the new one.
        argv: the arguments, by default those of the process.

    Returns:
        The claims (none after ``--dry-run``).
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    with in_one_line(name, explain=lambda line: under_its_option(line, argv, presets[default])):
        refuse_renamed(argv, renamed or {})
        offered = ["dry_run"] * (dry_run is not None) + ["report_only"] * report_only
        options = parse(presets, argv, name=name, default=default, description=description, offered=offered)
        again = report_only and options.report_only
        if dry_run is not None and options.dry_run:
            print(f"{name}, preset {options.preset}: what it would cost (nothing was run)")
            print(cost_table(dry_run(options.config)))
            return ()
        out = options.out or Path("runs") / f"{name}-{options.preset}"
        existed = os.path.exists(out)
        if again and not (Path(out) / "report.html").exists():
            raise InputError(
                f"--out = {str(out)!r}: must be the directory of a finished run (--report-only measures nothing)"
            )
        quiet = contextlib.redirect_stdout(sys.stdout if is_lead() else io.StringIO())
        with RunDirectory.hold(out, options.config, only_reports=again) as directory, quiet:
            shown = printable(str(directory.path))
            claims = None if again else _finished(directory)
            if claims is None:
                print(f"{name}, preset {options.preset}, in {shown}", flush=True)
                if dry_run is not None and options.preset == "paper" and is_lead():
                    print(f"what it costs from start to end:\n{cost_table(dry_run(options.config))}", flush=True)
                try:
                    with _compilation(quick=options.preset == "smoke"):
                        claims = _run(run, options.config, directory, claim_ids, figure_files)
                except InputError:
                    with contextlib.suppress(OSError):  # It may be gone.
                        directory.discard(remove=not existed)  # So that the same command, mended, is not refused.
                    raise
            else:
                print(f"{name}, preset {options.preset}: already finished in {shown}")
        if not is_lead():
            return claims
        if claims:
            print(claims_table(claims, width=max(60, min(shutil.get_terminal_size().columns, 120))))
        print(f"report: {printable(str((directory.path / 'report.html').resolve()))}")
        return claims


@contextlib.contextmanager
def _compilation(*, quick: bool) -> Iterator[None]:
    """With ``quick``, XLA optimises little: the smoke presets compute for a second and would compile for half a
    minute.
    """
    import jax

    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", quick or before)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


def _finished(directory: RunDirectory) -> tuple[JudgedClaim, ...] | None:
    """The stored claims. They are written last, so that where they are, everything else is."""
    return read_claims(directory) if directory.finished else None


def _run(
    run: Callable[[ConfigT, RunDirectory], Report],
    config: ConfigT,
    directory: RunDirectory,
    claim_ids: Sequence[str] | None,
    figure_files: Sequence[str] | None,
) -> tuple[JudgedClaim, ...]:
    report = run(config, directory)
    check_promises("the study", report, claim_ids, figure_files)
    if not is_lead():
        return tuple(report.claims)
    if not (directory.path / "metrics.json").exists():
        raise RuntimeError("the study must write metrics.json")
    write_report(directory, report, config_to_json(config))
    write_claims(directory, report.claims)
    return tuple(report.claims)
