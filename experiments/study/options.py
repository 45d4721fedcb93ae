"""The options of a command, checked before any work: numbers within their bounds, text that is not empty."""

import contextlib
import dataclasses
import math
import operator
import os
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin

import numpy as np

from dgu.core.errors import InputError, require

T = TypeVar("T")

#: Largest whole number of an option with bounds: JAX counts in 32 bits.
MOST = 2**31 - 1
#: Largest magnitude of other numbers, and the smallest beside 0: those of float32, in which everything is computed.
LARGEST, SMALLEST = 3.4e38, 1.2e-38
#: What a bound of each kind asks of a number.
_BOUNDS = {"ge": operator.ge, "gt": operator.gt, "le": operator.le, "lt": operator.lt}


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
    given = {"ge": ge, "gt": gt, "le": le, "lt": lt}
    bounds = {kind: bound for kind, bound in given.items() if bound is not None}
    metadata = {"bounds": bounds, "may_be_infinite": may_be_infinite, "added_later": added_later}
    return dataclasses.field(default=default, metadata=metadata)


class Options:
    """Base of every dataclass of options: checks each field when one is made, so that bad options never reach any work.

    Subclasses are frozen dataclasses whose fields are made by ``option`` or have plain defaults; the docstring below a
    field is its help text. ``class Config(Options, prefix="norms")`` names the options ``norms.NAME`` in errors. What
    concerns several fields at once is checked by a method ``check``.
    """

    _prefix: ClassVar[str] = ""

    def __init_subclass__(cls, prefix: str = "") -> None:
        super().__init_subclass__()
        cls._prefix = prefix or cls._prefix

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            # NumPy's numbers would wrap, and cannot be stored as JSON.
            object.__setattr__(self, field.name, _plain(getattr(self, field.name)))
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            bounds = field.metadata.get("bounds", {})
            others = {bound: getattr(self, bound) for bound in bounds.values() if isinstance(bound, str)}
            numbers = {kind: others.get(bound, bound) for kind, bound in bounds.items()}
            reason = "".join(f" ({self.name(other)} is {value})" for other, value in others.items())
            _check(field, self.name(field.name), getattr(self, field.name), numbers, reason)
        self.check()

    def check(self) -> None:
        """What must hold between several options; ``InputError`` where it does not. Nothing by default."""

    def name(self, field: str) -> str:
        """The name of a field in an error, such as ``"norms.trajectories"``."""
        return f"{self._prefix}.{field}" if self._prefix else field


def check_sound(config: Any, prefix: str = "") -> None:
    """``InputError`` for a number or text that no option takes, in ``config`` or a dataclass inside it."""
    for field in dataclasses.fields(config):
        name, value = f"{prefix}{field.name}", getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            check_sound(value, f"{name}.")
        else:
            _check(field, name, value, {})


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
    """Errors of what an option is handed on to, under the name of the option: ``names`` by those in the errors, each an
    option of ``part`` (of the command itself, if that is empty).
    """
    try:
        yield
    except InputError as error:
        field, equals, rest = str(error).partition(" = ")
        option = f"{part}.{names.get(field)}" if part else names.get(field)
        raise InputError(f"{option}{equals}{rest}" if field in names else str(error)) from error


def as_typed(name: str) -> str:
    """A field's name as its option is typed: ``"sampler.num_steps"`` is ``"--sampler.num-steps"``, ``"class_"`` is
    ``"--class"``.

    No dataclass is named twice: ``"training.training.seed"`` is ``"--training.seed"``, and
    ``"networks.network.dropout"`` is ``"--networks.dropout"``.
    """
    *holders, last = name.split(".")
    words = [word for outer, word in zip(["", *holders], holders) if not named_twice(outer, word)]
    return "--" + ".".join(word.rstrip("_").replace("_", "-") for word in [*words, last])


def named_twice(outer: str, inner: str) -> bool:
    """Whether the field ``inner``, a dataclass, has the name of the field ``outer`` that holds it, or its singular."""
    return inner in (outer, outer.removesuffix("s"))


def _check(field: dataclasses.Field[Any], name: str, value: Any, bounds: Mapping[str, float], reason: str = "") -> None:
    """``InputError`` unless ``value`` can be used and is within its bounds, which hold for this ``reason``.

    No number is NaN, beyond ``LARGEST`` and ``SMALLEST`` or, where it is whole, beyond 64 bits; infinite is only what
    may be; no text is empty.
    """
    require(_fits(field.type, value), name, value, _type_in_words(field.type))
    endless = field.default == math.inf or field.metadata.get("may_be_infinite", False)
    allowed = f"{_in_words(bounds, endless)}{', or None' * ('None' in str(field.type))}{reason}"
    for entry in _entries(value):
        if isinstance(entry, int):
            require(-(2**63) <= entry < 2**63, name, value, "of 64 bits at most")
        elif isinstance(entry, float):
            usable = entry == 0 or SMALLEST <= abs(float(entry)) <= LARGEST or (endless and math.isinf(entry))
            require(bool(usable), name, value, f"0 or from {SMALLEST:g} to {LARGEST:g}{', or infinite' * endless}")
        elif isinstance(entry, str):
            require(entry != "", name, value, "left out or not empty")
            require("\0" not in entry, name, value, "without null characters")
        if bounds and entry is not None:
            require(all(_BOUNDS[kind](entry, bound) for kind, bound in bounds.items()), name, value, allowed)
            require(not isinstance(entry, int) or entry <= MOST, name, value, f"at most {MOST}")


def _plain(value: Any) -> Any:
    """A NumPy number, or a tuple of them, as Python's."""
    if isinstance(value, tuple):
        return tuple(map(_plain, value)) if type(value) is tuple else value
    return value.item() if isinstance(value, np.generic) else value


def _fits(annotation: Any, value: Any) -> bool:
    """Whether a value is of the type that a field is annotated with, as far as that can be told: whole numbers are
    floats, too, and truth values are no numbers.
    """
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _fits(parts[0], value)
    if origin is Literal:
        return any(value is part or (isinstance(value, str) and value == part) for part in parts)
    if origin in (Union, UnionType):
        return any(_fits(part, value) for part in parts)
    if origin is tuple:
        kinds = [parts[0]] * len(value) if parts[1:] == (...,) and isinstance(value, tuple) else list(parts)
        return isinstance(value, tuple) and len(value) == len(kinds) and all(map(_fits, kinds, value))
    if annotation in (int, float):
        numbers = int if annotation is int else (int, float)
        return isinstance(value, numbers) and not isinstance(value, bool)
    if not isinstance(annotation, type) or annotation is Any:
        return True
    return isinstance(value, str | os.PathLike if issubclass(annotation, os.PathLike) else annotation)


def _type_in_words(annotation: Any) -> str:
    words = {int: "a whole number", float: "a number", str: "text", bool: "True or False", type(None): "None"}
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(map(repr, parts))
    if origin in (Union, UnionType):
        return " or ".join(map(_type_in_words, parts))
    if origin is tuple:
        each = list(dict.fromkeys(_type_in_words(part) for part in parts if part is not ...))
        size = "" if ... in parts else f"{len(parts)} of "
        return f"a tuple, {size}{' and '.join(each)}" if size else f"a tuple, each entry {' or '.join(each)}"
    return _type_in_words(parts[0]) if origin is Annotated else words.get(annotation, f"a {annotation.__name__}")


def _entries(value: Any) -> Iterator[Any]:
    """The value, or those of a tuple of any depth."""
    if isinstance(value, tuple | list):
        for entry in value:
            yield from _entries(entry)
    else:
        yield value


def _in_words(bounds: Mapping[str, float], endless: bool) -> str:
    """Bounds as an error states them, such as ``"in [0, 1)"`` or ``"2 or more"``."""
    low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
    upper = f"{'at most' if 'le' in bounds else 'below'} {high:g}" if high is not None else ""
    if low is None:
        return upper
    if high is None and "ge" in bounds:
        return f"{low:g} or more"
    if high is None:
        finite = "" if endless else " and finite" if low == 0 else ", and finite"
        return f"{'positive' if low == 0 else f'above {low:g}'}{finite}"
    if "gt" in bounds:
        return f"above {low:g} and {upper}"
    return f"in [{low:g}, {high:g}{']' if 'le' in bounds else ')'}"
