"""Exponents of growth: fitted, and as text."""

import numpy as np


def slopes(sizes: list[int], values: list[float | None]) -> dict[str, float] | None:
    """The exponent of growth, and its smallest and largest between neighbouring sizes; None where a value is missing.

    ``log value = exponent log size + c`` by least squares.
    """
    if len(sizes) < 2 or any(value is None or value <= 0 for value in values):
        return None
    x, y = np.log(sizes), np.log(np.asarray(values, float))
    near = np.diff(y) / np.diff(x)
    return {"exponent": float(np.polyfit(x, y, 1)[0]), "low": float(near.min()), "high": float(near.max())}


def shown(exponent: dict[str, float] | None) -> str:
    """An exponent with its range."""
    return "-" if exponent is None else f"{exponent['exponent']:.2f} ({exponent['low']:.2f} to {exponent['high']:.2f})"
