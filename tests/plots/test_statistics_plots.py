"""Figures of tails, power laws, white spectra and assumptions hold the data they were given."""

import numpy as np
import pytest
from scipy import stats

from dgu import plots
from dgu.core.errors import InputError
from tests.plots.test_plots import finish, lines

NAMES = ("norm", "projection 0", "projection 1")
RNG = np.random.default_rng(0)


def tail_panel(title="bag"):
    t = np.linspace(0, 4, 9)
    return plots.TailPanel(title, t, np.stack([2 * stats.norm.sf(t / s) for s in (1, 0.5, 0.25)]), NAMES, 100)


def test_tails_against_their_bound():
    panel = tail_panel()
    panel.survival[2, 6:] = 0
    figure = plots.tail_panels([panel, tail_panel("coat")], title="tails")
    finish(figure)
    left = figure.axes[0]
    drawn = lines(left)
    assert list(drawn) == ["norm", "projection", "bound, 2 exp(-t²/2s²)", "Gaussian of scale s"]
    for line, curve in zip(left.lines, panel.survival):
        np.testing.assert_array_equal(line.get_xdata(), panel.t)
        np.testing.assert_array_equal(line.get_ydata(), np.where(curve > 0, curve, np.nan))
    bound, gaussian = list(drawn.values())[2:]
    np.testing.assert_allclose(bound.get_ydata(), 2 * np.exp(-(bound.get_xdata() ** 2) / 2))
    np.testing.assert_allclose(gaussian.get_ydata(), 2 * stats.norm.sf(gaussian.get_xdata()))
    assert left.get_yscale() == "log" and left.get_title() == "bag" and left.get_xlabel() == "t / s"
    with pytest.raises(InputError, match="number of panels"):
        plots.tail_panels([])
    with pytest.raises(InputError, match=r"survival.shape \(bag\)"):
        plots.tail_panels([plots.TailPanel("bag", panel.t, panel.survival[:2], NAMES, 100)])


def test_kurtosis_shows_which_are_heavier():
    excess, null = RNG.normal(size=(2, 3)), RNG.normal(size=(2, 3))
    rejected = np.array([[True, False, False], [False, True, False]])
    figure = plots.kurtosis_rows(("bag", "coat"), NAMES, excess, null, rejected)
    finish(figure)
    points = figure.axes[0].lines[1:]
    assert len(points) == 6
    for line, value, row, filled in zip(points, (excess - null).ravel(), (0, 0, 0, 1, 1, 1), rejected.ravel()):
        assert line.get_xdata() == [value] and line.get_ydata() == [row]
        assert (line.get_markerfacecolor() != "white") == filled and line.get_label().endswith("heavier") == filled
    with pytest.raises(InputError, match=r"excess\.shape"):
        plots.kurtosis_rows(("bag", "coat"), NAMES, excess[:1], null[:1], rejected)


def test_calibration_and_couplings():
    p = np.array([0.025, 0.5, 0.75, 1.0])
    rates = np.array([[1, 0.9, 1], [0.05, 0.03, 0.07]])
    figure = plots.calibration(p, (3, np.inf), rates, data="n = 9")
    finish(figure)
    left, right = figure.axes
    np.testing.assert_array_equal(lines(left)["4 Gaussian sets"].get_ydata(), [0.25, 0.5, 0.75, 1])
    assert left.get_title() == "size: 25.0% rejected at 5%" and right.get_title() == "power, n = 9"
    assert [text.get_text() for text in right.get_xticklabels()] == ["3", "Gaussian"]
    np.testing.assert_array_equal(right.lines[0].get_ydata(), rates[:, 0])
    dimensions = (16, 256)
    measured = {"coin": np.array([[2.9, 2.8, 3.0], [11.3, 11, 11.6]]), "independent": np.full((2, 3), 0.7)}
    figure = plots.coupling_deviations(dimensions, measured, {name: v[:, 0] for name, v in measured.items()}, 2.0)
    finish(figure)
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), [2.9, 11.3])
    with pytest.raises(InputError, match=r"rates\.shape"):
        plots.calibration(p, (3,), rates)


def test_power_laws_over_their_ranks():
    spectrum = 5.0 * np.arange(1, 41) ** -1.2
    figure = plots.power_laws(
        [plots.PowerLawPanel("bag", {"diffusion": spectrum}, {"diffusion": (5.0, 1.2, 3, 20)}, "exponent 1.2")],
        labels={"diffusion": "samples"},
    )
    finish(figure)
    drawn = lines(figure.axes[0])
    np.testing.assert_array_equal(drawn["samples"].get_ydata(), spectrum)
    law = drawn["power laws, over the ranks fitted"]
    np.testing.assert_allclose(law.get_xdata(), [3, 20])
    np.testing.assert_allclose(law.get_ydata(), spectrum[[2, 19]])
    assert figure.axes[0].texts[0].get_text() == "exponent 1.2"


def test_white_spectra_and_assumptions():
    x = np.linspace(0.2, 2, 5)
    figure = plots.white_spectra([plots.WhitePanel("white", RNG.uniform(0.2, 2, 100), x, np.ones(5))])
    finish(figure)
    np.testing.assert_array_equal(lines(figure.axes[0])["Marchenko-Pastur"].get_xdata(), x)
    ratios = np.array([[[1.0, 0.5, 2.0], [0.0, 0.0, 0.1]], [[100.0, 50, 300], [0.02, 0.01, 0.03]]])
    figure = plots.assumption_ratios(("moment", "singular value"), ratios, factor=3, classes=("bag", "coat"))
    finish(figure)
    points = lines(figure.axes[0])
    assert [points[name].get_xdata()[0] for name in ("bag", "coat")] == [0.005, 0.02]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["moment", "singular value"]
    with pytest.raises(InputError, match=r"ratios\.shape"):
        plots.assumption_ratios(("moment",), ratios, factor=3)
