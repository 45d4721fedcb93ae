"""The arguments of a command: presets, nested options, and one line about whatever is wrong with them."""

import contextlib
import dataclasses
import difflib
import io
import re
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro

from dgu.core.errors import MAX_VALUE, InputError, shortened
from experiments.study.options import as_typed, check_sound

ConfigT = TypeVar("ConfigT")
#: Help of the switches that a study may offer.
_SWITCHES = {
    "dry_run": "Print what the run would cost, and stop.",
    "report_only": "Make figures, claims and report of a finished run again from what it stored, without measuring.",
}


def parse(
    presets: Mapping[str, ConfigT],
    argv: Sequence[str],
    *,
    name: str,
    default: str,
    description: str,
    offered: Sequence[str] = (),
) -> Any:
    """The options: an object with ``config``, ``preset``, ``out`` and, where ``offered``, ``dry_run`` and
    ``report_only``.

    The preset is found first and gives the defaults that the other options override.

    Raises:
        InputError: any option is unknown, lacks its value or has one that cannot be used.
    """
    preset = _preset(argv, presets, default)
    config = presets[preset]
    out_help = f"Directory of the run, made or continued. (default: runs/{name}-{preset})"
    entries: list[tuple[str, Any, Any]] = [
        ("preset", Annotated[Literal[tuple(presets)], tyro.conf.arg(help="Defaults of all other options.")], preset),
        ("out", Annotated[Path | None, tyro.conf.arg(help=out_help, help_behavior_hint="")], None),
    ]
    entries += [(switch, Annotated[bool, tyro.conf.arg(help=_SWITCHES[switch])], False) for switch in offered]
    entries.append(("config", Annotated[type(config), tyro.conf.arg(name="")], config))
    options = dataclasses.make_dataclass(
        "Options", [(field, kind, dataclasses.field(default=value)) for field, kind, value in entries], frozen=True
    )
    options.__doc__ = description or f"The experiment {name}."
    known = _option_types(options())

    parsed = _parsed(options, argv, name, known)
    check_sound(parsed.config)
    return parsed


def parse_alone(kind: type[ConfigT], argv: Sequence[str] | None, *, name: str) -> ConfigT:
    """The options of a command without presets: ``kind``, a dataclass of plain fields.

    Raises:
        InputError: as ``parse`` does, or one that has no default is not given.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    hints, typed = get_type_hints(kind), {option for option, _ in _groups(argv)}
    known = {as_typed(field.name): hints[field.name] for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if not typed & {"--help", "-h"} and "-h" not in argv:
        for field in dataclasses.fields(kind):  # type: ignore[arg-type]
            option = as_typed(field.name)
            if field.default is dataclasses.MISSING and option not in typed:
                raise InputError(f"{option}: needs a value, {_allowed(known[option], option)}")
    every = dataclasses.fields(kind)  # type: ignore[arg-type]
    needed = [as_typed(field.name) for field in every if field.default is dataclasses.MISSING]
    config = _parsed(kind, argv, name, known, needed)
    check_sound(config)
    return config


def _parsed(kind: Any, argv: Sequence[str], name: str, known: Mapping[str, Any], needed: Sequence[str] = ()) -> Any:
    """The arguments as an instance of the dataclass ``kind``, whose options are ``known``; those ``needed`` have no
    default.
    """
    for option, values in _groups(argv):
        if "" in values:  # A path of no characters would be the current folder.
            raise InputError(f"{shortened(option, MAX_VALUE)} = '': must not be empty; leave the option out")

    def attempt(arguments: Sequence[str]) -> tuple[Any, list[str]]:
        # An option is tried alone, too: what must be given beside it is then 1, which is text, a path and a number.
        typed = {option for option, _ in _groups(arguments)}
        others = [part for option in needed if option not in typed for part in (option, "1")]
        return tyro.cli(
            kind,
            prog=f"python -m experiments.{name}",
            args=[*arguments, *others],
            return_unknown_args=True,
            config=(tyro.conf.AvoidSubcommands,),
        )

    messages = io.StringIO()
    try:
        with contextlib.redirect_stderr(messages):
            parsed, unknown = attempt(argv)
    except InputError as error:
        raise InputError(_blamed(str(error), argv, attempt)) from None
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
                raise InputError(f"--preset = {_shown([chosen])}: must be one of {', '.join(presets)}")
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
        name = prefix + field.name
        if dataclasses.is_dataclass(value):
            found |= _option_types(value, "" if name == "config" else f"{name}.")
        else:
            found[as_typed(name)] = hints[field.name]
    return found


def _field(line: str) -> re.Match[str] | None:
    """The field that an error's line begins with, as in ``splits.fit = 0: ...``."""
    return re.match(r"[a-z]\w*(\.\w+)*(?= = )", line)


def under_its_option(line: str, argv: Sequence[str], config: Any) -> str:
    """An error's line with its field called as it is typed (``--splits.fit = 0: ...``)."""
    found = _field(line)
    if found is None:
        return line
    option = as_typed(found.group())
    known = [option] if option in _option_types(config) else []
    typed = [name for name, _ in _groups(argv) if name.endswith(f".{option[2:]}")]
    return next(iter([*known, *typed]), found.group()) + line[found.end() :]


def _blamed(line: str, argv: Sequence[str], attempt: Callable[..., Any]) -> str:
    """The complaint of a configuration, with its field called as it was typed; of several that may be meant the one
    that is refused alone."""
    found = _field(line)
    if found is None:
        return line
    name = as_typed(found.group())[2:]
    groups = [
        (option, values) for option, values in _groups(argv) if re.fullmatch(rf"--(.*\.)?{re.escape(name)}", option)
    ]
    refused = [option for option, values in groups if len(groups) == 1 or _refused(attempt, option, values)]
    whole = [option for option, _ in groups if option == f"--{name}"]
    return next(iter([*refused, *whole, *(option for option, _ in groups)]), found.group()) + line[found.end() :]


def _refused(attempt: Callable[..., Any], option: str, values: Sequence[str]) -> bool:
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            attempt([option, *values] if option else values)
    except (SystemExit, InputError):
        return True
    return False


def _why(exit_: BaseException, argv: Sequence[str], attempt: Callable[..., Any], known: Mapping[str, Any]) -> str:
    """Why the arguments were refused: the configuration's own complaint, or the first option that is refused alone."""
    cause: BaseException | None = exit_
    while cause is not None:
        if isinstance(cause, InputError):
            return _blamed(str(cause), argv, attempt)
        cause = cause.__context__
    for option, values in _groups(argv):
        if _refused(attempt, option, values):
            negated = option.replace("--no-", "--", 1).replace(".no-", ".", 1)
            allowed = _allowed(known.get(option, known.get(negated)), option)
            return (
                f"{option} = {_shown(values)}: must be {allowed}" if values else f"{option}: needs a value, {allowed}"
            )
    return ""


def _shown(values: Sequence[str]) -> str:
    """What was typed, quoted; without its middle where it is long."""
    return shortened(repr(" ".join(values)), MAX_VALUE)


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


def refuse_renamed(argv: Sequence[str], renamed: Mapping[str, str]) -> None:
    """``InputError`` where an option is typed by a name that it no longer has; ``renamed`` has the new name by the old
    one.
    """
    for option, _ in _groups(argv):
        if option in renamed:
            raise InputError(f"{option}: is called {renamed[option]} now")


def _unknown(unknown: Sequence[str], argv: Sequence[str], known: Mapping[str, Any]) -> str:
    """What to say of arguments that no option takes."""
    stray = unknown[0]
    groups = _groups(argv)
    if not stray.startswith("--"):
        option = next((name for name, values in groups if stray in values), "")
        if option in known or option.replace("--no-", "--", 1) in known:
            allowed = _allowed(known.get(option, bool), option)
            return f"{option} = {_shown([stray])}: must be {allowed}; nothing more follows it"
        return f"argument {_shown([stray])}: must follow an option such as --preset; --help lists them"
    option, equals, value = stray.partition("=")
    values = [value] if equals else next((values for name, values in groups if name == option.replace("_", "-")), [])
    near = difflib.get_close_matches(option.replace("_", "-"), known, n=3, cutoff=0.6)
    allowed = f"an option, such as {' or '.join(near)}" if near else "an option: " + " ".join(known)
    return (
        shortened(option, MAX_VALUE)
        + (f" = {_shown(values)}" if values else "")
        + f": must be {allowed}; --help explains them all"
    )
