"""The arguments of a command: presets and nested options, read by tyro, and one line about whatever is wrong with
them.
"""

import contextlib
import dataclasses
import difflib
import io
import re
import shutil
import sys
import textwrap
import types
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro

from dgu.core.errors import MAX_VALUE, InputError, require, shortened
from experiments.study.guide import SHORT, WHOLE, Guide, ending
from experiments.study.help import restored, shown, unwrapped
from experiments.study.options import as_typed, check_sound

ConfigT = TypeVar("ConfigT")
#: Help of the switches that a study may offer.
_SWITCHES = {
    "recompile": "Compile every program anew. Otherwise compiled programs are kept in the user's cache (~/.cache/dgu, "
    "at most 1 GB), where the next run finds them; JAX_COMPILATION_CACHE_DIR names another folder.",
    "dry_run": "Print what the run would cost, and stop.",
    "probe": "Print what the run would cost, run one batch of each stage to tell how many hours that is on this "
    "machine, and stop.",
    "quiet": "Print nothing but the path of the report.",
    "report_only": "Make figures, claims and report of a finished run again from what it stored, without measuring.",
}
_LOG = "File to whose end every line is written as it comes, with date and time: what is done, how far it is, its end."
#: What names a field in an error: ``splits.fit``, ``low_rank_fit`` or ``seeds = 3``, neither in quotes nor in a path.
_NAMES = re.compile(r"(?<![\w./'\"-])([a-z]\w*([._]\w+)+|[a-z]\w*(?= = ))(?![\w/'\"-]|\.\w)")


def parse(
    presets: Mapping[str, ConfigT],
    argv: Sequence[str],
    *,
    name: str,
    description: str,
    offered: Sequence[str] = (),
    guide: Guide | None = None,
) -> Any:
    """The options of a study: an object with ``config``, ``preset``, ``out``, ``log`` and the switches ``offered``, of
    ``recompile``, ``quiet``, ``dry_run``, ``probe`` and ``report_only``. ``guide`` says what ``--help`` shows.

    The preset is found first and gives the defaults that the other options override.

    Raises:
        InputError: any option is unknown, lacks its value or has one that cannot be used.
    """
    preset = _preset(argv, presets)
    config, guide = presets[preset], guide or Guide()
    explained = _explained(argv, guide)
    out_help = f"Directory of the run, made or continued. (default: runs/{name}-{preset})"
    entries: list[tuple[str, Any, Any]] = [
        ("preset", Annotated[Literal[tuple(presets)], tyro.conf.arg(help="Defaults of all other options.")], preset),
        ("out", Annotated[Path | None, tyro.conf.arg(help=out_help, help_behavior_hint="")], None),
    ]
    switches = {switch: as_typed(switch) for switch in offered}
    entries += [
        (switch, Annotated[bool, tyro.conf.arg(help=_SWITCHES[switch])], False)
        for switch, option in switches.items()
        if explained(option)
    ]
    if explained("--log"):
        entries.append(("log", Annotated[Path | None, tyro.conf.arg(help=_LOG)], None))
    kind = shown(type(config), config, explained=explained)
    entries.append(("config", Annotated[kind, tyro.conf.arg(name="", help=kind.__doc__)], kind()))
    options = dataclasses.make_dataclass(
        "Options", [(field, kind, dataclasses.field(default=value)) for field, kind, value in entries], frozen=True
    )
    types_ = option_types(dataclasses.replace(options(), config=config))
    about = description or f"The experiment {name}."
    ends = partial(ending, guide, called(name), ("--preset", "--out", *switches.values(), "--log"), config)
    parsed = _Command(options, name, types_, about, lambda read: _with_config(read, config), ends).parsed(argv)
    check_sound(parsed.config)
    return parsed


def _with_config(read: Any, default: Any) -> Any:
    """What tyro has read of the options of a study, its ``config`` an instance of the type of ``default``."""
    return dataclasses.replace(read, config=restored(read.config, type(default), default))


def parse_alone(kind: type[ConfigT], argv: Sequence[str] | None, *, name: str, guide: Guide | None = None) -> ConfigT:
    """The options of a command without presets: ``kind``, a dataclass of plain fields. ``guide`` says what ``--help``
    shows.

    Raises:
        InputError: as ``parse`` does, or one that has no default is not given.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    hints, fields = get_type_hints(kind), dataclasses.fields(kind)  # type: ignore[arg-type]
    types_ = {as_typed(field.name): hints[field.name] for field in fields}
    needed = tuple(as_typed(field.name) for field in fields if field.default is dataclasses.MISSING)
    typed = {option for option, _ in _groups(argv)}
    missing = [option for option in needed if option not in typed]
    guide = guide or Guide()
    if missing and not _asks_help(argv):
        raise InputError(_wrong(missing[0], (), types_[missing[0]]))
    read_as = shown(kind, explained=_explained(argv, guide))
    ends = partial(ending, guide, called(name), (), kind)
    command = _Command(read_as, name, types_, kind.__doc__ or "", lambda read: restored(read, kind), ends, needed)
    config = command.parsed(argv)
    check_sound(config)
    return config


def _asks_help(argv: Sequence[str]) -> bool:
    return not {*SHORT, WHOLE}.isdisjoint(argv)


def _explained(argv: Sequence[str], guide: Guide) -> Callable[[str], bool]:
    """Which options tyro is told of: those that the help explains where it is asked for, else all."""
    return guide.explains if _asks_help(argv) and WHOLE not in argv else lambda option: True


def called(name: str) -> str:
    """How the program ``name`` was called: by the command ``dgu``, or as a module."""
    return f"dgu {name}" if Path(sys.argv[0]).stem == "dgu" else f"python -m experiments.{name}"


@dataclasses.dataclass(frozen=True)
class _Command:
    """A command and its options.

    Attributes:
        kind: the dataclass of its options that tyro reads.
        name: its name, as in ``python -m experiments.NAME``.
        types: the type of each option, by the name that is typed.
        about: what it does, for ``--help``.
        made: its options, made of an instance of ``kind``.
        ending: what follows the options in the help; its argument says whether that explains all.
        needed: the options without a default.
    """

    kind: Any
    name: str
    types: Mapping[str, Any]
    about: str
    made: Callable[[Any], Any]
    ending: Callable[[bool], str]
    needed: tuple[str, ...] = ()

    def parsed(self, argv: Sequence[str]) -> Any:
        """The options that the arguments give; ``InputError`` about the first that cannot be used."""
        if _asks_help(argv):
            self._help(WHOLE in argv)
        for option, values in _groups(argv):
            if "" in values:  # A path of no characters would be the current folder.
                raise InputError(f"{shortened(option, MAX_VALUE)} = '': must not be empty; leave the option out")
        messages = io.StringIO()
        try:
            with contextlib.redirect_stderr(messages):
                parsed, unknown = self._read(argv)
        except (InputError, SystemExit) as error:
            if isinstance(error, SystemExit) and not error.code:
                raise
            raise InputError(self._reason(error, argv) or messages.getvalue()) from None
        if unknown:
            raise InputError(_unknown(unknown[0], argv, self.types))
        return parsed

    def _help(self, whole: bool) -> None:
        """Print the help, and end."""
        try:
            self._read(["--help"])
        finally:
            print(self.ending(whole))

    def _read(self, argv: Sequence[str]) -> tuple[Any, list[str]]:
        """The options that tyro reads from the arguments, and those arguments that no option takes."""
        # An option is tried alone, too: what must be given beside it is then 1, which is text, a path and a number.
        typed = {option for option, _ in _groups(argv)}
        others = [part for option in self.needed if option not in typed for part in (option, "1")]
        read, unknown = tyro.cli(
            self.kind,
            prog=called(self.name),
            # tyro wraps all other texts itself, and of this one joins the lines that are not indented.
            description=textwrap.fill(
                unwrapped(self.about), shutil.get_terminal_size().columns, subsequent_indent="  "
            ),
            args=[*argv, *others],
            return_unknown_args=True,
            config=(tyro.conf.AvoidSubcommands,),
        )
        return self.made(read), unknown

    def _refused(self, option: str, values: Sequence[str], *, as_written: bool = False) -> bool:
        """Whether an option is refused even alone; ``as_written`` leaves out what the configuration itself refuses."""
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                self._read([option, *values] if option else values)
        except (SystemExit, InputError) as error:
            return not (as_written and _own_error(error))
        return False

    def _reason(self, error: BaseException, argv: Sequence[str]) -> str:
        """Why the arguments were refused: the configuration's own error, or the first option that is refused alone."""
        if cause := _own_error(error):
            return under_its_option(str(cause), argv, self.types, self._refused)
        for option, values in _groups(argv):
            if self._refused(option, values, as_written=True):
                negated = option.replace("--no-", "--", 1).replace(".no-", ".", 1)
                return _wrong(option, values, self.types.get(option, self.types.get(negated)))
        return ""


def _own_error(error: BaseException | None) -> InputError | None:
    """The configuration's own error among an error and those that it was raised in place of."""
    while error is not None and not isinstance(error, InputError):
        error = error.__context__
    return error


def _preset(argv: Sequence[str], presets: Mapping[str, Any]) -> str:
    chosen = "default"
    for option, values in _groups(argv):
        if option == "--preset":
            chosen = values[0] if values else ""
            require(chosen in presets, "--preset", chosen, f"one of {', '.join(presets)}")
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


def option_types(instance: Any, prefix: str = "") -> dict[str, Any]:
    """The type of each option (``--nested.name``) of a dataclass instance."""
    hints = get_type_hints(type(instance))
    found: dict[str, Any] = {}
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        name = prefix + field.name
        if dataclasses.is_dataclass(value):
            found |= option_types(value, "" if name == "config" else f"{name}.")
        else:
            found[as_typed(name)] = hints[field.name]
    return found


def under_its_option(
    line: str,
    argv: Sequence[str],
    known: Mapping[str, Any],
    refused: Callable[[str, Sequence[str]], bool] = lambda option, values: False,
) -> str:
    """An error's line with its field called as its option is typed: ``"splits.fit = 0: ..."`` becomes
    ``"--splits.fit = 0: ..."``; other options that it names likewise.

    Of several options that may be meant it is the first that was typed and is ``refused`` alone, else the one of
    exactly this name among those ``known``, else the first that was typed.
    """
    found = re.match(r"[a-z]\w*(\.\w+)*(?= = )", line)
    if found is None:
        return line
    exact = as_typed(found.group())
    typed = [(option, values) for option, values in _groups(argv) if f".{option[2:]}".endswith(f".{exact[2:]}")]
    alone = [option for option, values in typed if refused(option, values)]
    named = [*alone, *([exact] if exact in known else []), *(option for option, _ in typed), found.group()]
    return named[0] + _NAMES.sub(
        lambda name: as_typed(name.group()) if as_typed(name.group()) in known else name.group(), line[found.end() :]
    )


def _shown(values: Sequence[str]) -> str:
    """What was typed, quoted; without its middle where it is long."""
    return shortened(repr(" ".join(values)), MAX_VALUE)


def _wrong(option: str, values: Sequence[str], kind: Any) -> str:
    """The line about an option whose values, if it has any, are not those of its type ``kind``."""
    allowed = _allowed(kind, option)
    return f"{option} = {_shown(values)}: must be {allowed}" if values else f"{option}: needs a value, {allowed}"


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
    one, of an option or of a group of them.
    """
    for option, _ in _groups(argv):
        for old, new in renamed.items():
            if option == old or option.startswith(f"{old}."):
                raise InputError(f"{shortened(option, MAX_VALUE)}: is called {new}{option.removeprefix(old)} now")


def _unknown(stray: str, argv: Sequence[str], known: Mapping[str, Any]) -> str:
    """What to say of an argument that no option takes."""
    groups = _groups(argv)
    if not known:
        return f"argument {_shown([stray])}: must be left out: there are no options but --help"
    if not stray.startswith("--"):
        option = next((name for name, values in groups if stray in values), "")
        if option in known or option.replace("--no-", "--", 1) in known:
            allowed = _allowed(known.get(option, bool), option)
            return f"{option} = {_shown([stray])}: must be {allowed}; nothing more follows it"
        return f"argument {_shown([stray])}: must follow an option such as {next(iter(known))}; --help-all lists them"
    option, equals, value = stray.partition("=")
    values = [value] if equals else next((values for name, values in groups if name == option.replace("_", "-")), [])
    near = difflib.get_close_matches(option.replace("_", "-"), known, n=3, cutoff=0.6)
    allowed = f"an option, such as {' or '.join(near)}" if near else "an option: " + " ".join(known)
    given = f" = {_shown(values)}" if values else ""
    return f"{shortened(option, MAX_VALUE)}{given}: must be {allowed}; --help-all explains them all"
