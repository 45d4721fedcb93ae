"""One look for every figure: colours that colour-blind readers tell apart, markers and line styles for grey print."""

import contextlib
import dataclasses
import functools
import io
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dgu.core.errors import printable, shortened

Given = ParamSpec("Given")
Made = TypeVar("Made")

#: The palette of Okabe and Ito (2008).
OKABE_ITO = {
    "black": "#000000",
    "orange": "#E69F00",
    "sky blue": "#56B4E9",
    "green": "#009E73",
    "yellow": "#F0E442",
    "blue": "#0072B2",
    "vermilion": "#D55E00",
    "purple": "#CC79A7",
}


@dataclass(frozen=True)
class ArmStyle:
    """Colour, marker and line style of one arm."""

    color: str
    marker: str
    linestyle: str | tuple[float, tuple[float, ...]]


_ARMS = {
    "null-corrected gap": ArmStyle(OKABE_ITO["blue"], "o", "-"),
    "diffusion": ArmStyle(OKABE_ITO["vermilion"], "o", "-"),
    "mixture": ArmStyle(OKABE_ITO["blue"], "s", "--"),
    "null": ArmStyle(OKABE_ITO["purple"], "^", ":"),
    "low rank": ArmStyle(OKABE_ITO["orange"], "v", (0.0, (6.0, 1.5, 1.0, 1.5, 1.0, 1.5))),
    "real": ArmStyle(OKABE_ITO["black"], "D", "-."),
    "samples": ArmStyle(OKABE_ITO["vermilion"], "o", "-"),
    "reference": ArmStyle(OKABE_ITO["black"], "D", "-."),
    "together": ArmStyle(OKABE_ITO["black"], "D", "-"),
    "held out": ArmStyle(OKABE_ITO["blue"], "s", "--"),
}
_OTHERS = (
    ArmStyle(OKABE_ITO["sky blue"], "X", "-"),
    ArmStyle(OKABE_ITO["orange"], "P", "--"),
    ArmStyle(OKABE_ITO["green"], "p", "-."),
    ArmStyle(OKABE_ITO["purple"], "<", ":"),
    ArmStyle(OKABE_ITO["blue"], "s", "-"),
)

#: Looks of names that mean nothing elsewhere, in turn: seven that also grey print tells apart.
LOOKS = tuple(
    ArmStyle(OKABE_ITO[color], marker, line)
    for color, marker, line in (
        ("blue", "o", "-"),
        ("vermilion", "s", "--"),
        ("green", "^", "-."),
        ("purple", "v", ":"),
        ("orange", "D", "-"),
        ("sky blue", "P", "--"),
        ("black", "X", "-."),
    )
)

#: Colour and marker of a verdict; the marker carries it in grey print.
VERDICTS = {
    "supported": (OKABE_ITO["green"], "o"),
    "not supported": (OKABE_ITO["vermilion"], "X"),
    "undecided": ("#7f7f7f", "D"),
}

_RC: dict[str, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "figure.dpi": 130,
    "savefig.dpi": "figure",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e5e8",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "svg.hashsalt": "dgu",
}


def arm_style(arm: str, number: int = 0) -> ArmStyle:
    """The style of an arm: fixed for those with a meaning everywhere (diffusion, real, ...), for others by ``number``,
    their place.
    """
    return _ARMS.get(arm, _OTHERS[number % len(_OTHERS)])


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Draw what is inside in the common style. The reader's own settings are neither used nor changed."""
    settings: dict[Any, Any] = {**matplotlib.rcParamsDefault, "backend": matplotlib.rcParams["backend"], **_RC}
    with matplotlib.rc_context(settings):
        yield


#: Formulas in the text that the studies hand to figures; every other dollar sign there is one.
_FORMULAS = re.compile(r"(\$\\sigma\$|\$\\alpha\^2\$|\$\\mu\^2\$|\$p_\{t_ε\}\$)")
#: Longest text that is drawn in full: longer names would need a figure of metres.
_LONGEST = 300


def drawing(plot: Callable[Given, Made]) -> Callable[Given, Made]:
    """Decorator of every function that draws: text in its arguments, such as names of classes or files, is shown as it
    is.
    """

    @functools.wraps(plot)
    def drawn(*args: Given.args, **kwargs: Given.kwargs) -> Made:
        return plot(*map(_plain, args), **{name: _plain(value) for name, value in kwargs.items()})

    return drawn


def plain_text(text: str) -> str:
    """Text from outside as matplotlib draws it literally: dollar signs escaped, which would begin a formula, control
    characters too; without its middle where it is very long; a leading ``_`` set apart, which would take it out of
    legends."""
    lines = [line if line.isprintable() else printable(line) for line in shortened(text, _LONGEST).split("\n")]
    parts = _FORMULAS.split("\n".join(lines))
    shown = "".join(part if number % 2 else part.replace("$", "\\$") for number, part in enumerate(parts))
    return f" {shown}" if shown.startswith("_") else shown


def _plain(value: Any) -> Any:
    """``value`` with ``plain_text`` for every text inside."""
    if isinstance(value, str):
        return plain_text(value)
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    if isinstance(value, Mapping):
        return {_plain(name): _plain(entry) for name, entry in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
        return dataclasses.replace(value, **{name: _plain(entry) for name, entry in fields.items()})
    return value


class ShownFigure(Figure):
    """A figure that a notebook shows where it is the last expression of a cell, whether or not pyplot is loaded."""

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.savefig(stream, format="png", bbox_inches="tight")
        return stream.getvalue()


def new_figure(width: float, height: float) -> Figure:
    """A figure of ``width`` by ``height`` inches that lays itself out. No pyplot: nothing global is left behind."""
    return ShownFigure(figsize=(width, height), layout="constrained")


@dataclass(frozen=True)
class Cell:
    """A panel of a grid: whether it stands in the first column, and whether none stands below it."""

    axes: Axes
    left: bool
    bottom: bool


def panel_grid(
    count: int, columns: int, width: float, height: float, *, beside: float = 0.0, least: float = 4.6, **shared: Any
) -> tuple[Figure, list[Cell]]:
    """A figure of ``count`` panels of ``width`` by ``height`` inches, row by row, at least ``least`` inches wide.

    ``beside`` is the room, in inches, of what stands beside them all, such as a colour bar.
    The lowest panel of a column has the labels of its ticks also where axes are ``shared`` (``sharex``, ``sharey``).
    """
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure = new_figure(max(least, width * columns + beside), height * rows + 0.7)
    cells = []
    for number, axes in enumerate(figure.subplots(rows, columns, squeeze=False, **shared).flat):
        if number >= count:
            axes.set_axis_off()
            continue
        cells.append(Cell(axes, number % columns == 0, number + columns >= count))
        if cells[-1].bottom:
            axes.tick_params(labelbottom=True)
    return figure, cells


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """The vertical axis of a figure with a row for each name, from the top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")


def legend_below(figure: Figure, axes: Sequence[Axes]) -> None:
    """One legend for all ``axes``, outside the data: each label once."""
    entries: dict[str, Artist] = {}
    for one in axes:
        for handle, label in zip(*one.get_legend_handles_labels()):
            entries.setdefault(label, handle)
    # Inches of each entry, about: a handle of three letters with its gaps, and the text.
    widths = [0.85 + 0.075 * len(label) for label in entries]
    room = figure.get_figwidth()
    columns = len(entries) if sum(widths) <= room else max(1, int(room / max(widths)))
    figure.legend(entries.values(), entries, loc="outside lower center", ncols=columns, handlelength=3)
