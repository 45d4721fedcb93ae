"""The command line that all experiments share: presets, nested options, one-line errors, and runs that resume."""

import contextlib
import dataclasses
import difflib
import io
import re
import shutil
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro

from dgu.errors import InputError
from experiments.harness.claims import Claim, claims_table, read_claims, write_claims
from experiments.harness.costs import Cost, cost_table
from experiments.harness.processes import is_lead
from experiments.harness.report import Report, check_promises, write_report
from experiments.harness.rundir import RunDirectory, config_to_json

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
    argv: Sequence[str] | None = None,
) -> tuple[Claim, ...]:
    """Parse the command line, run the experiment in its directory, and print its claims and the report's path.

    A finished run is read, not repeated; an unfinished one continues. Failing claims are results: the exit code is 0.
    Bad input ends the process with one line on standard error and exit code 2, with nothing stored touched; numbers of a
    network or a training that are not finite (``FloatingPointError``) with one line and code 1, with everything stored kept.

    Args:
        presets: frozen dataclass instances by name; each field's docstring is its help text.
        run: the study; stores its stages and figures in the directory and returns its report.
        name: the experiment's name, as in ``python -m experiments.NAME``.
        dry_run: what a configuration would cost; gives the command line ``--dry-run``, and is printed before a run of the
            preset ``paper`` starts.
        default: the preset used without ``--preset``.
        description: what the study asks, for ``--help``.
        claim_ids, figure_files: what the study promises; ``RuntimeError`` if its report holds others.
        argv: the arguments, by default those of the process.

    Returns:
        The claims (none after ``--dry-run``).
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        options = parse(
            presets, argv, name=name, default=default, description=description, offer_dry_run=dry_run is not None
        )
        if dry_run is not None and options.dry_run:
            print(f"{name}, preset {options.preset}: what it would cost (nothing was run)")
            print(cost_table(dry_run(options.config)))
            return ()
        out = options.out or Path("runs") / f"{name}-{options.preset}"
        existed = out.exists()
        quiet = contextlib.redirect_stdout(sys.stdout if is_lead() else io.StringIO())
        with RunDirectory.hold(out, options.config) as directory, quiet:
            claims = _finished(directory)
            if claims is None:
                print(f"{name}, preset {options.preset}, in {directory.path}", flush=True)
                if dry_run is not None and options.preset == "paper" and is_lead():
                    print(f"what it costs from start to end:\n{cost_table(dry_run(options.config))}", flush=True)
                try:
                    with _compilation(quick=options.preset == "smoke"):
                        claims = _run(run, options.config, directory, claim_ids, figure_files)
                except InputError:
                    directory.discard(remove=not existed)  # So that the same command, mended, is not refused.
                    raise
            else:
                print(f"{name}, preset {options.preset}: already finished in {directory.path}")
        if not is_lead():
            return claims
        if claims:
            print(claims_table(claims, width=max(60, min(shutil.get_terminal_size().columns, 120))))
        print(f"report: {(directory.path / 'report.html').resolve()}")
        return claims
    except InputError as error:
        line = _under_its_option(" ".join(str(error).split()), argv, presets[default])
        if is_lead():
            print(f"{name}: {line}", file=sys.stderr)
        raise SystemExit(2) from None
    except FloatingPointError as error:  # Of a network or a training; what is stored so far stays.
        if is_lead():
            print(f"{name}: {error}", file=sys.stderr)
        raise SystemExit(1) from None


@contextlib.contextmanager
def _compilation(*, quick: bool) -> Iterator[None]:
    """With ``quick``, XLA optimises little: the smoke presets compute for a second and would compile for half a minute."""
    import jax

    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", quick or before)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


def _finished(directory: RunDirectory) -> tuple[Claim, ...] | None:
    """The stored claims. They are written last, so that where they are, everything else is."""
    return read_claims(directory) if (directory.path / "report.html").exists() else None


def _run(
    run: Callable[[ConfigT, RunDirectory], Report],
    config: ConfigT,
    directory: RunDirectory,
    claim_ids: Sequence[str] | None,
    figure_files: Sequence[str] | None,
) -> tuple[Claim, ...]:
    report = run(config, directory)
    check_promises("the study", report, claim_ids, figure_files)
    if not is_lead():
        return tuple(report.claims)
    if not (directory.path / "metrics.json").exists():
        raise RuntimeError("the study must write metrics.json")
    write_report(directory, report, config_to_json(config))
    write_claims(directory, report.claims)
    return tuple(report.claims)


def parse(
    presets: Mapping[str, ConfigT],
    argv: Sequence[str],
    *,
    name: str,
    default: str,
    description: str,
    offer_dry_run: bool,
) -> Any:
    """The options: an object with ``config``, ``preset``, ``out`` and (where offered) ``dry_run``.

    The preset is found first and gives the defaults that the other options override.

    Raises:
        InputError: any option is unknown, lacks its value or has one that cannot be used.
    """
    preset = _preset(argv, presets, default)
    config = presets[preset]
    out_help = f"Directory of the run, made or continued. (default: runs/{name}-{preset})"
    entries: list[tuple[str, Any, Any]] = [
        ("preset", Annotated[Literal[tuple(presets)], tyro.conf.arg(help="Defaults of all other options.")], preset),  # type: ignore[misc]
        ("out", Annotated[Path | None, tyro.conf.arg(help=out_help, help_behavior_hint="")], None),
    ]
    if offer_dry_run:
        entries.append(("dry_run", Annotated[bool, tyro.conf.arg(help="Print what it would cost and stop.")], False))
    entries.append(("config", Annotated[type(config), tyro.conf.arg(name="")], config))
    options = dataclasses.make_dataclass(
        "Options", [(field, kind, dataclasses.field(default=value)) for field, kind, value in entries], frozen=True
    )
    options.__doc__ = description or f"The experiment {name}."
    known = _option_types(options())

    def attempt(arguments: Sequence[str]) -> tuple[Any, list[str]]:
        return tyro.cli(
            options,
            prog=f"python -m experiments.{name}",
            args=list(arguments),
            return_unknown_args=True,
            config=(tyro.conf.AvoidSubcommands,),
        )

    messages = io.StringIO()
    try:
        with contextlib.redirect_stderr(messages):
            parsed, unknown = attempt(argv)
    except SystemExit as exit_:
        if not exit_.code:
            raise
        raise InputError(_why(exit_, argv, attempt, known) or messages.getvalue()) from None
    if unknown:
        raise InputError(_unknown(unknown, argv, known))
    return parsed


def _preset(argv: Sequence[str], presets: Mapping[str, Any], default: str) -> str:
    chosen = default
    for option, values in _groups(argv):
        if option == "--preset":
            chosen = values[0] if values else ""
            if chosen not in presets:
                raise InputError(f"--preset = {chosen!r}: must be one of {', '.join(presets)}")
    return chosen


def _groups(argv: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The arguments as (option, its values); values before the first option come under the name ``""``."""
    groups: list[tuple[str, list[str]]] = []
    for argument in argv:
        if argument.startswith("--"):
            option, equals, value = argument.partition("=")
            groups.append((option.replace("_", "-"), [value] if equals else []))
        elif groups:
            groups[-1][1].append(argument)
        else:
            groups.append(("", [argument]))
    return groups


def _option_types(instance: Any, prefix: str = "") -> dict[str, Any]:
    """The type of each option (``--nested.name``) of a dataclass instance."""
    hints = get_type_hints(type(instance))
    found: dict[str, Any] = {}
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        name = (prefix + field.name.rstrip("_")).replace("_", "-")
        if dataclasses.is_dataclass(value):
            found |= _option_types(value, "" if name == "config" else f"{name}.")
        else:
            found[f"--{name}"] = hints[field.name]
    return found


def _under_its_option(line: str, argv: Sequence[str], config: Any) -> str:
    """An error's line with its field (``splits.fit = 0: ...``) called as it is typed (``--splits.fit = 0: ...``)."""
    found = re.match(r"[a-z]\w*(\.\w+)*(?= = )", line)
    if found is None:
        return line
    field = found.group().replace("_", "-")
    known = [option for option in _option_types(config) if option == f"--{field}"]
    typed = [option for option, _ in _groups(argv) if option.endswith(f".{field}")]
    return next(iter([*known, *typed]), found.group()) + line[found.end() :]


def _why(exit_: BaseException, argv: Sequence[str], attempt: Callable, known: Mapping[str, Any]) -> str:
    """Why the arguments were refused: the configuration's own complaint, or the first option that is refused alone."""
    cause: BaseException | None = exit_
    while cause is not None:
        if isinstance(cause, InputError):
            return str(cause)
        cause = cause.__context__
    for option, values in _groups(argv):
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                attempt([option, *values] if option else values)
        except (SystemExit, InputError):
            shown = " ".join(values)
            negated = option.replace("--no-", "--", 1).replace(".no-", ".", 1)
            allowed = _allowed(known.get(option, known.get(negated)), option)
            return f"{option} = {shown!r}: must be {allowed}" if values else f"{option}: needs a value, {allowed}"
    return ""


def _allowed(kind: Any, option: str) -> str:
    """A type in words."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _allowed(inner[0], option)
    if origin is Literal:
        return "one of " + ", ".join(map(str, inner))
    if origin in (Union, types.UnionType):
        return " or ".join(_allowed(entry, option) for entry in inner)
    if origin in (tuple, list):
        if origin is list or inner[-1] is Ellipsis:
            return f"a list, separated by spaces, each {_allowed(inner[0], option)}"
        return f"{len(inner)} values: " + ", ".join(_allowed(entry, option) for entry in inner)
    words = {int: "a whole number", float: "a number", str: "text", Path: "a path", type(None): "None"}
    if kind is bool:
        return f"given as {option} or --no-{option.removeprefix('--')}, without a value"
    return words.get(kind, getattr(kind, "__name__", str(kind)))


def _unknown(unknown: Sequence[str], argv: Sequence[str], known: Mapping[str, Any]) -> str:
    """What to say of arguments that no option takes."""
    stray = unknown[0]
    groups = _groups(argv)
    if not stray.startswith("--"):
        option = next((name for name, values in groups if stray in values), "")
        if option in known or option.replace("--no-", "--", 1) in known:
            return f"{option} = {stray!r}: must be {_allowed(known.get(option, bool), option)}; nothing more follows it"
        return f"argument {stray!r}: must follow an option such as --preset; --help lists them"
    option, equals, value = stray.partition("=")
    values = [value] if equals else next((values for name, values in groups if name == option.replace("_", "-")), [])
    near = difflib.get_close_matches(option.replace("_", "-"), known, n=3, cutoff=0.6)
    allowed = f"an option, such as {' or '.join(near)}" if near else "an option: " + " ".join(known)
    return (
        f"{option}" + (f" = {' '.join(values)!r}" if values else "") + f": must be {allowed}; --help explains them all"
    )
