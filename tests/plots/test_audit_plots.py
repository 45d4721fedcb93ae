"""The figures of an audit hold the numbers they were given, inside the canvas."""

import numpy as np
import pytest

from dgu import plots
from dgu.analysis import Estimate
from dgu.core.errors import InputError
from tests.plots.test_plots import finish, lines


def test_interval_dots_hold_values_and_intervals():
    values = {
        "samples": np.array([[0.5, 0.4, 0.7], [0.9, 0.85, 0.95]]),
        "held out": np.array([[0.6, 0.5, 0.8], [np.nan] * 3]),
    }
    figure = plots.interval_dots(["precision", "recall"], values, quantity="share", marks={"expected": 0.8})
    finish(figure)
    axes = figure.axes[0]
    drawn = lines(axes)
    np.testing.assert_array_equal(drawn["samples"].get_xdata(), [0.5, 0.9])
    np.testing.assert_array_equal(drawn["expected"].get_xdata(), [0.8, 0.8])
    bars = [line.get_xdata() for line in axes.lines if line.get_linestyle() == "-" and len(line.get_xdata()) == 2]
    assert any(np.array_equal(bar, [0.4, 0.7]) for bar in bars) and any(
        np.array_equal(bar, [0.85, 0.95]) for bar in bars
    )
    assert [text.get_text() for text in axes.get_yticklabels()] == ["precision", "recall"]
    assert axes.get_xlabel() == "share" and drawn["samples"].get_ydata()[0] < drawn["held out"].get_ydata()[0]


def test_interval_dots_take_estimates():
    one, two = Estimate(0.5, 0.4, 0.7), Estimate(0.9, 0.85, 0.95)
    axes = plots.interval_dots(["a", "b"], {"x": [one, two], "y": [None, one]}, quantity="").axes[0]
    drawn = lines(axes)
    np.testing.assert_array_equal(drawn["x"].get_xdata(), [0.5, 0.9])
    np.testing.assert_array_equal(drawn["y"].get_xdata(), [np.nan, 0.5])
    bars = [list(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2]
    assert [0.4, 0.7] in bars and [0.85, 0.95] in bars
    with pytest.raises(InputError, match="shape of x"):
        plots.interval_dots(["a", "b"], {"x": [one]}, quantity="")


def test_histograms_share_bins_and_have_unit_area():
    rng = np.random.default_rng(0)
    series = {"samples": rng.normal(size=500), "held out": rng.normal(size=300) + 2}
    figure = plots.histograms(series, quantity="distance", marks={"threshold": 0.5}, bins=20)
    finish(figure)
    axes = figure.axes[0]
    edges = np.linspace(min(map(np.min, series.values())), max(map(np.max, series.values())), 21)
    outlines = [patch.get_data() for patch in axes.patches]
    for values in series.values():
        heights, _ = np.histogram(values, edges, density=True)
        assert any(np.allclose(data.values, heights) and np.allclose(data.edges, edges) for data in outlines)
        np.testing.assert_allclose((heights * np.diff(edges)).sum(), 1)
    np.testing.assert_array_equal(lines(axes)["threshold"].get_xdata(), [0.5, 0.5])
    assert axes.get_xlabel() == "distance" and axes.get_ylabel() == "density"
    finish(plots.histograms({"copies": np.zeros(5)}, quantity="distance"))


def test_roc_counts_hits_and_false_alarms():
    members, others = np.array([3.0, 2.0, 2.0, 0.5]), np.array([2.5, 1.0, 1.0, 0.0, -1.0])
    figure = plots.roc({"loss": (members, others)})
    finish(figure)
    axes = figure.axes[0]
    curve = lines(axes)["loss"]
    for threshold, hits, alarms in zip(np.unique([*members, *others])[::-1], curve.get_ydata(), curve.get_xdata()):
        np.testing.assert_allclose([hits, alarms], [np.mean(members >= threshold), np.mean(others >= threshold)])
    assert axes.get_xscale() == axes.get_yscale() == "log" and axes.get_xlim() == (0.2, 1)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: plots.interval_dots(["a"], {"x": np.zeros((2, 3))}, quantity=""),
            "shape of x = (2, 3): must be (1, 3)",
        ),
        (lambda: plots.interval_dots([], {"x": np.zeros((0, 3))}, quantity=""), "(rows, series)"),
        (lambda: plots.histograms({"x": np.zeros(0)}, quantity=""), "values of x = 0"),
        (lambda: plots.roc({"x": (np.zeros(0), np.ones(2))}), "scores of x"),
    ],
)
def test_bad_input_is_one_line(call, text):
    with pytest.raises(InputError) as error:
        call()
    assert text in str(error.value) and "\n" not in str(error.value)
