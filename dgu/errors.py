"""The one error that bad input ends in."""

from typing import Any

import numpy as np


class InputError(ValueError):
    """Input that cannot be used: one line naming the argument, the value given and what is allowed.

    The command lines of ``experiments`` print it without a traceback and exit with code 2.
    """


class CheckpointError(InputError):
    """A network snapshot that cannot be read: one line naming the file and what is wrong with it."""


def require(condition: bool | np.bool, name: str, value: Any, allowed: str) -> None:
    """Raise ``InputError("name = value: must be allowed")`` unless ``condition`` holds."""
    if not condition:
        raise InputError(f"{name} = {value!r}: must be {allowed}")
