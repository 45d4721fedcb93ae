"""Curves over what a sweep varies."""

import numpy as np
import pytest

from dgu.core.errors import InputError
from dgu.plots import SweepPanel, sweep_curves


def panel(x=(16, 64, 1024), **changed):
    x = np.array(x, float)
    curves = {"wide": (x, 2 * x, 1.9 * x, 2.1 * x), "narrow": (x[:2], x[:2], x[:2], x[:2])}
    return SweepPanel("distance", "training images", "RMSE", **{"curves": curves, "marks": {"fresh": 0.3}} | changed)


def test_what_is_drawn():
    figure = sweep_curves([panel(), panel(log=True)], columns=2)
    first, second = figure.axes
    assert first.get_xscale() == "log" and first.get_yscale() == "linear" and second.get_yscale() == "log"
    assert (first.get_xlabel(), first.get_ylabel(), first.get_title()) == ("training images", "RMSE", "distance")
    np.testing.assert_allclose(first.lines[0].get_xydata(), [[16, 32], [64, 128], [1024, 2048]])
    assert [text.get_text() for text in first.get_xticklabels()] == ["16", "64", "1,024"]
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"wide", "narrow", "fresh"}
    assert not first.xaxis_inverted() and sweep_curves([panel(falling=True)]).axes[0].xaxis_inverted()
    assert first.lines[0].get_color() == second.lines[0].get_color() != first.lines[1].get_color()


def test_bad_input():
    x = np.ones(2)
    for said, given in (
        ("number of panels", []),
        ("four equal ones", [panel(curves={"wide": (x, x, x, x[:1])})]),
        ("positive", [panel(x=(0, 1, 2))]),
        ("at most 7", [panel(curves={str(k): (x, x, x, x) for k in range(8)})]),
    ):
        with pytest.raises(InputError, match=said):
            sweep_curves(given)
