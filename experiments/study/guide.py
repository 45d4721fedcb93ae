"""The short help of a command: the few options that matter first, the others by group, and examples.

``--help`` explains the options that the command's ``Guide`` names, and lists the others; ``--help-all`` explains all.
"""

import dataclasses
import shutil
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from experiments.study.help import help_texts, unwrapped, value_of
from experiments.study.options import as_typed

#: Options of every study that ``--help`` explains.
COMMON = ("--preset", "--out", "--dry-run", "--report-only", "--parts", "--seed")
#: What asks for the short and for the whole help.
SHORT, WHOLE = ("-h", "--help"), "--help-all"


@dataclasses.dataclass(frozen=True)
class Guide:
    """What the help of a command shows first and last.

    Attributes:
        first: the options, as they are typed, that ``--help`` explains beside ``COMMON``; without any it explains all.
        examples: what the command does, by the arguments that make it do so.
    """

    first: tuple[str, ...] = ()
    examples: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def explains(self, option: str) -> bool:
        """Whether ``--help`` explains an option."""
        return not self.first or option in COMMON or option in self.first


def ending(guide: Guide, command: str, switches: tuple[str, ...], config: Any, whole: bool) -> str:
    """What follows the options in the help: the options that it does not explain, and examples.

    Args:
        guide: of the command.
        command: how it is called, such as ``"dgu universality"``.
        switches: its options beside those of ``config``, as they are typed.
        config: an instance of its options, or their dataclass where some have no default.
        whole: whether all options were explained.
    """
    width = min(shutil.get_terminal_size().columns, 120)
    lines: list[str] = []
    fields = list(_fields(config))
    single = [*switches, *(option for option, value, _ in fields if not dataclasses.is_dataclass(value))]
    left = [option for option in single if not guide.explains(option)]
    if left and not whole:
        lines += [f"more options, which {command} {WHOLE} explains:"]
        lines += textwrap.wrap(", ".join(left), width, break_on_hyphens=False, **_indented(2))
        groups = {
            f"{option}.* ({_count(value)})": about or unwrapped(type(value).__doc__ or "")
            for option, value, about in fields
            if dataclasses.is_dataclass(value)
        }
        column = max(map(len, groups), default=0)
        for name, about in groups.items():
            text = textwrap.shorten(about, max(20, width - column - 4), placeholder=" ...")
            lines.append(f"  {name:<{column}}  {text}".rstrip())
    if guide.examples:
        lines += [""] * bool(lines) + ["examples:"]
        for arguments, about in guide.examples.items():
            whole_line = textwrap.wrap(f"{command} {arguments}", width - 6, break_on_hyphens=False)
            lines += ["  " + " \\\n    ".join(whole_line), *textwrap.wrap(about, width, **_indented(6))]
    return "\n".join(lines)


def _indented(columns: int) -> dict[str, Any]:
    return {"initial_indent": " " * columns, "subsequent_indent": " " * columns}


def _fields(config: Any) -> Iterator[tuple[str, Any, str]]:
    """The fields of a configuration: option as it is typed, default value, and help text."""
    kind, default = (config, None) if isinstance(config, type) else (type(config), config)
    texts = help_texts(kind)
    for field in dataclasses.fields(kind):
        yield as_typed(field.name), value_of(field, default), texts.get(field.name, "")


def _count(group: Any) -> int:
    """The options in a group, and in the groups inside it."""
    values = [getattr(group, field.name) for field in dataclasses.fields(group)]
    return sum(_count(value) if dataclasses.is_dataclass(value) else 1 for value in values)
