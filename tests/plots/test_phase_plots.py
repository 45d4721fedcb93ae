"""Figures of phase transitions hold the data they were given."""

import numpy as np
import pytest

from dgu import plots
from dgu.core.errors import InputError
from tests.plots.test_plots import band, finish, lines


def test_phase_maps_show_each_share_and_the_line_of_the_theory():
    ranks, sizes = (2, 3, 4), (2, 3, 4, 5)
    share = np.linspace(0, 1, 12).reshape(3, 4)
    figure = plots.phase_maps({"one": share, "two": 1 - share, "three": share}, ranks, sizes)
    finish(figure)
    first, second = figure.axes[:2]
    np.testing.assert_array_equal(first.images[0].get_array(), share)
    np.testing.assert_array_equal(second.images[0].get_array(), 1 - share)
    assert first.images[0].get_clim() == (0, 1) and first.images[0].origin == "lower"
    assert first.images[0].get_extent() == [1.5, 5.5, 1.5, 4.5]
    line = lines(first)["theory: success to the right, N ≥ d"]
    # Between N = d - 1 and N = d, over the row of each rank.
    np.testing.assert_array_equal(line.get_xdata(), [1.5, 1.5, 2.5, 2.5, 3.5, 3.5])
    np.testing.assert_array_equal(line.get_ydata(), [1.5, 2.5, 2.5, 3.5, 3.5, 4.5])
    with pytest.raises(InputError, match=r"panels\['one'\].shape = \(4, 3\): must be \(3, 4\)"):
        plots.phase_maps({"one": share.T}, ranks, sizes)


def test_errors_have_their_bands_and_bounds():
    sizes = (2, 3, 4)
    curve = np.array([1.0, 0.1, 0.01])
    figure = plots.subspace_errors({"PCA": {3: (curve, curve / 2, 2 * curve)}}, {"PCA": {3: 3 * curve}}, sizes)
    finish(figure)
    axes = figure.axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), curve)
    # The bound changes sides at N = d: two lines, not joined.
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), [3.0, np.nan, np.nan])
    np.testing.assert_array_equal(axes.lines[2].get_ydata(), [np.nan, *(3 * curve[1:])])
    _, low, high = band(axes.collections[0])
    np.testing.assert_array_equal(low, curve / 2)
    np.testing.assert_array_equal(high, 2 * curve)
    assert axes.get_yscale() == "log" and axes.get_title() == "PCA"
