"""JSON whose bytes depend on the values alone, so that the same results give the same file."""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def plain(value: Any, name: str) -> Any:
    """``value`` with NumPy's numbers, text and arrays, tuples and other mappings replaced by JSON's types.

    Args:
        value: numbers, text, None, arrays of these, and nested lists, tuples and mappings.
        name: its name in an error.

    Raises:
        ValueError: NaN, an infinity, or an array of something else.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(entry, f"{name}: {key}") for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry, f"{name}[{number}]") for number, entry in enumerate(value)]
    if value is None or isinstance(value, str | bool):
        return value
    if not isinstance(value, int | float):
        array = np.asarray(value)
        if array.dtype.kind not in "biufU":
            raise ValueError(f"{name}: {type(value).__name__} of {array.dtype} must be numbers, text or None")
        return plain(array.tolist(), name)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} is {value}: must be finite")
    return value


def json_bytes(value: Any) -> bytes:
    """JSON's types as UTF-8 text: sorted keys, floats in full (their ``repr``).

    What a file name may have that is no UTF-8 is escaped, as JSON does it.

    Raises:
        ValueError: NaN or an infinity.
    """
    text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode(errors="backslashreplace")
