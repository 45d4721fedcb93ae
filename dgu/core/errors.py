"""The exception raised for all invalid input, and helpers that show foreign values and messages on one line."""

import math
import re
from typing import Any

import numpy as np

#: Longest text of one value, and of one whole message, that is shown in full (characters).
MAX_VALUE, MAX_MESSAGE = 200, 2_000


class InputError(ValueError):
    """Input that cannot be used: one line naming the argument, the value given and what is allowed.

    The message is made fit for a terminal: line breaks become spaces, control characters (such as escape sequences in
    the name of a file) their escaped form, and what is longer than ``MAX_MESSAGE`` characters loses its middle.

    The command lines of ``experiments`` print it without a traceback and exit with code 2.
    """

    def __init__(self, message: str = ""):
        super().__init__(shortened(printable(str(message)), MAX_MESSAGE))


class CheckpointError(InputError):
    """A network snapshot that cannot be read: one line naming the file and what is wrong with it."""


class PriorMismatchWarning(UserWarning):
    """The Gaussian prior at the largest noise level is some way from the noised data: the message says how many
    nats.
    """


def require(condition: bool | np.bool, name: str, value: Any, allowed: str) -> None:
    """Raise ``InputError("name = value: must be allowed")`` unless ``condition`` holds."""
    if not condition:
        raise InputError(f"{name} = {shortened(repr(value), MAX_VALUE)}: must be {allowed}")


def require_whole(name: str, value: Any, least: int = 1, most: int | None = None) -> None:
    """Raise ``InputError`` unless ``value`` is a whole number (2 and 2.0, no truth value) from ``least`` to
    ``most``.
    """
    try:
        number = np.asarray(value)[()]  # Of a JAX array, too, and not as a step of a program that is being traced.
        real = np.ndim(number) == 0 and not isinstance(number, bool | np.bool | complex | np.complexfloating)
        whole = real and bool(number == math.floor(number))
    except (TypeError, ValueError, OverflowError):  # Text, None, NaN, infinity, a traced number.
        whole = False
    inside = whole and least <= value and (most is None or value <= most)
    allowed = f", {least} or more" if most is None else f" from {least} to {most}"
    require(inside, name, value, f"a whole number{allowed}")


def printable(text: str) -> str:
    """``text`` on one line: runs of white space as one space, other control and unpaired surrogate characters
    escaped.
    """
    text = " ".join(text.split())
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", _escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return found.group().encode("unicode_escape", "surrogatepass").decode("ascii")


def shortened(text: str, limit: int) -> str:
    """``text``, without its middle where it has more than ``limit`` characters."""
    if len(text) <= limit:
        return text
    mark = f" ... ({len(text):,} characters) ... "
    head = max(1, 2 * (limit - len(mark)) // 3)
    tail = max(1, limit - len(mark) - head)
    return text[:head] + mark + text[-tail:]


def one_line(error: BaseException) -> str:
    """The message of a foreign exception on one line, or the name of its type where it has none.

    Objects that it shows by their address in memory, as Pillow does with open files, are left out: they tell nothing.
    """
    text = re.sub(r"\s*<[^<>]* at 0x[0-9a-fA-F]+>", "", str(error))
    return shortened(printable(text), MAX_VALUE) or type(error).__name__
