"""Figures of scores hold what they were given."""

import numpy as np
import pytest

from dgu import plots
from dgu.core.errors import InputError
from tests.plots.test_plots import finish, lines


def test_score_curves_hold_points_means_and_fits():
    sizes, rng = np.array([8.0, 16, 64]), np.random.default_rng(0)
    scores = {"ID 6": rng.random((3, 2)), "ID 12": rng.random((3, 2))}
    over_n = plots.ScorePanel("networks", "N", {name: (sizes, values) for name, values in scores.items()})
    fine = np.geomspace(8, 64, 5)
    one = plots.ScorePanel("fit", "N / ID", {"ID 12": (sizes, scores["ID 12"])}, {"sigmoid": (fine, fine / 64)})
    figure = plots.score_curves([over_n, one], level=0.9)
    finish(figure)
    left, right = figure.axes
    assert left.get_xscale() == "log" and (left.get_xlabel(), right.get_xlabel()) == ("N", "N / ID")
    for name, values in scores.items():
        np.testing.assert_array_equal(lines(left)[name].get_xdata(), sizes)
        np.testing.assert_allclose(lines(left)[name].get_ydata(), values.mean(axis=1))
    single = [line for line in left.lines if line.get_linestyle() == "None"]
    np.testing.assert_array_equal([line.get_ydata() for line in single], [values.ravel() for values in scores.values()])
    np.testing.assert_array_equal(lines(right)["sigmoid"].get_ydata(), fine / 64)
    np.testing.assert_array_equal(lines(right)["0.9"].get_ydata(), 0.9)
    assert lines(left)["ID 12"].get_color() == lines(right)["ID 12"].get_color()
    with pytest.raises(InputError, match="shape of 'a'"):
        plots.score_curves([plots.ScorePanel("", "", {"a": (sizes, np.ones((2, 2)))})])
    with pytest.raises(InputError, match="number of panels = 0"):
        plots.score_curves([])
