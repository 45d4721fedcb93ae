"""What the options of every study must be, checked before any work: numbers within their bounds, text that is not
empty.
"""

import contextlib
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, TypeVar

import numpy as np

from dgu.core.errors import InputError, require

T = TypeVar("T")

#: Largest count, size or seed: JAX counts in 32 bits.
MOST = 2**31 - 1
#: Largest magnitude of other numbers, and the smallest beside 0: float32 has none beyond, in which everything is
#: computed.
LARGEST, SMALLEST = 3.4e38, 1.2e-38
#: ``field(default=..., metadata=MAY_BE_INFINITE)``: an option that takes ``inf`` though its default is another number.
MAY_BE_INFINITE = {"may_be_infinite": True}


def check_options(config: Any, part: str = "", /, **bounds: int | str) -> None:
    """``InputError`` unless every option of the dataclass ``config`` can be used. The first line of each
    ``__post_init__``.

    No number is NaN, beyond ``LARGEST`` and ``SMALLEST`` or, where it is whole, beyond 64 bits; infinite is only what
    may be; no text is empty.

    Args:
        config: the dataclass; those inside it have their own check.
        part: its name in the study, for the names of options.
        bounds: by the name of the option, its smallest value (counts, which then end at ``MOST``), or an interval such
            as ``"(0, 1]"``; of a tuple, that of each entry. None, where an option takes it, has no bound.
    """
    for field in dataclasses.fields(config):
        name, value = f"{part}.{field.name}" if part else field.name, getattr(config, field.name)
        _check_sound(field, name, value)
        if field.name in bounds:
            _check_bound(bounds[field.name], name, value, ", or None" if "None" in str(field.type) else "")


def option(
    default: T,
    *,
    ge: float | str | None = None,
    gt: float | str | None = None,
    le: float | str | None = None,
    lt: float | str | None = None,
    may_be_infinite: bool = False,
    added_later: bool = False,
) -> T:
    """A field of ``Options`` with its default and its bounds: at least ``ge``, above ``gt``, at most ``le``, below
    ``lt``.

    A bound is a number, or the name of another option of the same dataclass. It holds for each entry of a tuple, and
    not for None. A whole number with a bound is at most ``MOST``. Runs that were stored before there was an option
    ``added_later`` count as run with its default, and can be read and continued.
    """
    bounds = {"ge": ge, "gt": gt, "le": le, "lt": lt}
    given = {kind: bound for kind, bound in bounds.items() if bound is not None}
    if may_be_infinite and given and not given.keys() & {"le", "lt"}:
        given["le"] = math.inf
    metadata = {"bounds": given, "added_later": added_later} | (MAY_BE_INFINITE if may_be_infinite else {})
    return dataclasses.field(default=default, metadata=metadata)


class Options:
    """Base of every dataclass of options: checks each field when one is made, so that bad options never reach any work.

    Subclasses are frozen dataclasses whose fields are made by ``option`` or have plain defaults; the docstring below a
    field is its help text. ``class Config(Options, prefix="norms")`` names the options ``norms.NAME`` in complaints.
    What concerns several fields at once is checked by a method ``check``.
    """

    _prefix: ClassVar[str] = ""

    def __init_subclass__(cls, prefix: str = "") -> None:
        super().__init_subclass__()
        cls._prefix = prefix or cls._prefix

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value, name = getattr(self, field.name), self.name(field.name)
            _check_sound(field, name, value)
            bounds = field.metadata.get("bounds", {})
            if bounds:
                otherwise = ", or None" if "None" in str(field.type) else ""
                _check_interval(self._interval(bounds), name, value, otherwise)
        self.check()

    def check(self) -> None:
        """What must hold between several options; ``InputError`` where it does not. Nothing by default."""

    def name(self, field: str) -> str:
        """The name of a field in a complaint, such as ``"norms.trajectories"``."""
        return f"{self._prefix}.{field}" if self._prefix else field

    def _interval(self, bounds: Mapping[str, float | str]) -> tuple[float, float, bool, bool]:
        numbers = {kind: getattr(self, at) if isinstance(at, str) else at for kind, at in bounds.items()}
        low = numbers.get("ge", numbers.get("gt", -math.inf))
        high = numbers.get("le", numbers.get("lt", math.inf))
        return low, high, "gt" in numbers, "le" not in numbers


def check_sound(config: Any, prefix: str = "") -> None:
    """The part of ``check_options`` that needs no bounds, of ``config`` and every dataclass inside it."""
    for field in dataclasses.fields(config):
        name, value = f"{prefix}{field.name}", getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            check_sound(value, f"{name}.")
        else:
            _check_sound(field, name, value)


def added_later(config: Any, prefix: str = "") -> dict[str, Any]:
    """The defaults of all options that runs of earlier versions did not store, by name, such as ``sampler.method``."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        name, value = f"{prefix}{field.name}", getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            found |= added_later(value, f"{name}.")
        elif field.metadata.get("added_later"):
            found[name] = field.default
    return found


@contextlib.contextmanager
def renamed(part: str, **names: str) -> Iterator[None]:
    """Complaints of what an option is handed on to, under the name of the option: ``names`` by those that the
    complaints have.
    """
    try:
        yield
    except InputError as error:
        field, equals, rest = str(error).partition(" = ")
        raise InputError(f"{part}.{names[field]}{equals}{rest}" if field in names else str(error)) from error


def as_typed(name: str) -> str:
    """A field's name as its option is typed: ``"sampler.num_steps"`` is ``"--sampler.num-steps"``, ``"class_"`` is
    ``"--class"``.
    """
    return "--" + ".".join(word.rstrip("_").replace("_", "-") for word in name.split("."))


def _check_sound(field: dataclasses.Field[Any], name: str, value: Any) -> None:
    endless = field.default == math.inf or field.metadata.get("may_be_infinite", False)
    for entry in _entries(value):
        if isinstance(entry, int | np.integer):
            require(-(2**63) <= entry < 2**63, name, value, "of 64 bits at most")
        elif isinstance(entry, float | np.floating):
            usable = entry == 0 or SMALLEST <= abs(float(entry)) <= LARGEST or (endless and math.isinf(entry))
            require(bool(usable), name, value, f"0 or from {SMALLEST:g} to {LARGEST:g}{', or infinite' * endless}")
        elif isinstance(entry, str):
            require(entry != "", name, value, "left out or not empty")
            require("\0" not in entry, name, value, "without null characters")


def _check_bound(bound: int | str, name: str, value: Any, otherwise: str) -> None:
    _check_interval(_interval(bound), name, value, otherwise)


def _check_interval(interval: tuple[float, float, bool, bool], name: str, value: Any, otherwise: str) -> None:
    low, high, open_low, open_high = interval
    for entry in _entries(value):
        if entry is None:
            continue
        above = entry > low if open_low else entry >= low
        below = entry < high if open_high else entry <= high
        require(bool(above and below), name, value, _in_words(low, high, open_low, open_high) + otherwise)
        require(not isinstance(entry, int | np.integer) or entry <= MOST, name, value, f"at most {MOST}")


def _entries(value: Any) -> Iterator[Any]:
    """The value, or those of a tuple of any depth."""
    if isinstance(value, tuple | list):
        for entry in value:
            yield from _entries(entry)
    else:
        yield value


def _interval(bound: int | str) -> tuple[float, float, bool, bool]:
    if not isinstance(bound, str):
        return bound, math.inf, False, True
    found = re.fullmatch(r"([(\[])(\S+), (\S+)([)\]])", bound)
    if found is None:
        raise ValueError(f"bound = {bound!r}: must be an interval such as '[0, 1)'")
    return float(found[2]), float(found[3]), found[1] == "(", found[4] == ")"


def _in_words(low: float, high: float, open_low: bool, open_high: bool) -> str:
    if low == -math.inf:
        return f"{'below' if open_high else 'at most'} {high:g}"
    if high == math.inf:
        return ("positive and finite" if low == 0 else f"above {low:g}, and finite") if open_low else f"{low:g} or more"
    if open_low:
        return f"above {low:g} and {'below' if open_high else 'at most'} {high:g}"
    return f"in [{low:g}, {high:g}{')' if open_high else ']'}"
