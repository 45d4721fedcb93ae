"""Checks that the options of many studies share."""

from typing import Any

from dgu.errors import require


def at_least(config: Any, part: str = "", /, **bounds: int) -> None:
    """``InputError`` unless each of these options is its bound or more; they go by the name of the ``part`` they belong to."""
    for name, bound in bounds.items():
        value = getattr(config, name)
        require(value >= bound, f"{part}.{name}" if part else name, value, f"{bound} or more")
