"""Figures of linear maps and of quantities over noise levels hold what they were given."""

import numpy as np
import pytest

from dgu import plots
from dgu.analysis import t_interval
from dgu.core.errors import InputError
from tests.plots.test_plots import band, finish, lines

SIGMAS = np.geomspace(80, 0.002, 5)


def test_level_curves_hold_means_bands_and_falling_levels():
    rng = np.random.default_rng(0)
    curves = {name: tuple(rng.random(5) + shift for shift in (1.0, 0.5, 1.9)) for name in ("network", "Gaussian")}
    one = plots.LevelPanel("all", "RMSE", SIGMAS, curves, log=True, marks={"paper's bound": 0.05})
    two = plots.LevelPanel("one", "cosine", SIGMAS, {"Gaussian": curves["Gaussian"]})
    figure = plots.level_curves([one, two], title="Distances")
    finish(figure)
    left, right = figure.axes
    assert left.get_yscale() == "log" and right.get_yscale() == "linear" and left.get_xscale() == "log"
    assert left.get_xlim()[0] > 80 and left.get_xlim()[1] < 0.002
    assert (left.get_ylabel(), right.get_title()) == ("RMSE", "one")
    for name, place in (("network", 0), ("Gaussian", 1)):
        np.testing.assert_array_equal(lines(left)[name].get_ydata(), curves[name][0])
        np.testing.assert_array_equal(lines(left)[name].get_xdata(), SIGMAS)
        _, low, high = band(left.collections[place])
        np.testing.assert_allclose(low, np.minimum(*curves[name][1:])[::-1])
        np.testing.assert_allclose(high, np.maximum(*curves[name][1:])[::-1])
    # One look for one name.
    assert lines(left)["Gaussian"].get_color() == lines(right)["Gaussian"].get_color()
    np.testing.assert_array_equal(lines(left)["paper's bound"].get_ydata(), 0.05)
    with pytest.raises(InputError, match="shape of 'a'"):
        plots.level_curves([plots.LevelPanel("", "", SIGMAS, {"a": (np.ones(4),) * 3})])
    with pytest.raises(InputError, match="number of panels = 0"):
        plots.level_curves([])


def test_lower_bounds_are_marked_where_they_are():
    values, where = np.arange(1.0, 6), np.array([False, True, True, False, False])
    panel = plots.LevelPanel("", "", SIGMAS, {"a": values, "b": values + 1}, bounds={"a": where, "b": where & False})
    axes = plots.level_curves([panel]).axes[0]
    mark = lines(axes)["a: lower bound"]
    np.testing.assert_array_equal(mark.get_xdata(), SIGMAS[where])
    np.testing.assert_array_equal(mark.get_ydata(), values[where])
    assert mark.get_marker() == "^" and "b: lower bound" not in lines(axes)


def test_curves_are_estimates_or_values_too():
    rng = np.random.default_rng(3)
    found, plain = t_interval(rng.random((5, 4))), rng.random(5)
    figure = plots.level_curves([plots.LevelPanel("", "", SIGMAS, {"measured": found, "plain": plain})])
    axes = figure.axes[0]
    np.testing.assert_array_equal(lines(axes)["measured"].get_ydata(), found.value)
    np.testing.assert_array_equal(lines(axes)["plain"].get_ydata(), plain)
    for place, ends in ((0, (found.low, found.high)), (1, (plain, plain))):
        _, low, high = band(axes.collections[place])
        np.testing.assert_allclose((low[::-1], high[::-1]), ends)


def test_mean_and_range_are_over_one_axis():
    values = np.array([[1.0, 5.0], [2.0, 4.0], [6.0, 0.0]])
    for found, expected in zip(plots.mean_and_range(values), ([3, 3], [1, 0], [6, 5])):
        np.testing.assert_array_equal(found, expected)
    for found, expected in zip(plots.mean_and_range(values, axis=1), ([3, 3, 3], [1, 2, 0], [5, 4, 6])):
        np.testing.assert_array_equal(found, expected)
    with pytest.raises(InputError, match=r"values\.shape"):
        plots.mean_and_range(np.zeros((0, 3)))


def test_map_spectra_hold_values_and_alignment():
    rng = np.random.default_rng(1)
    panels = [
        plots.MapPanel(f"level {k}", {"distilled": rng.random(6), "Gaussian": rng.random(6)}, rng.random(6))
        for k in range(3)
    ]
    figure = plots.map_spectra_figure(panels, columns=2)
    finish(figure)
    shown = [axes for axes in figure.axes if axes.get_title().startswith("level")]
    assert len(shown) == 3
    for axes, panel in zip(shown, panels):
        for name, values in panel.values.items():
            np.testing.assert_array_equal(lines(axes)[name].get_ydata(), values)
    below = [axes for axes in figure.axes if axes.get_xlabel() == "rank"]
    for axes, panel in zip(below, panels):
        np.testing.assert_array_equal(axes.lines[0].get_ydata(), panel.alignment)


def test_correlation_matrices_share_their_colours():
    matrices = np.random.default_rng(2).random((3, 4, 6))
    figure = plots.correlation_matrices(
        matrices, ["a", "b", "c"], rows_are="vectors", columns_are="components", columns=2
    )
    finish(figure)
    images = [axes.images[0] for axes in figure.axes if axes.images]
    assert len(images) >= 3
    for image, matrix in zip(images, matrices):
        np.testing.assert_array_equal(image.get_array(), matrix)
        assert image.get_clim() == (0, 1)
    with pytest.raises(InputError, match="number of titles = 1"):
        plots.correlation_matrices(matrices, ["a"], rows_are="", columns_are="")


def test_the_course_of_a_distillation_holds_every_level():
    rng = np.random.default_rng(3)
    epochs, nmse, losses = np.array([0, 2, 4]), rng.random((3, 5)) + 0.1, rng.random((5, 4)) + 0.1
    panels = [
        plots.EpochPanel("", "NMSE", epochs, nmse.T),
        plots.EpochPanel("loss", "loss", np.arange(1, 5), losses, log=False, time="steps", log_time=True),
    ]
    figure = plots.distillation_epochs(panels, SIGMAS)
    finish(figure)
    left, right = figure.axes
    assert (left.get_xscale(), left.get_yscale(), left.get_xlabel()) == ("linear", "log", "epochs")
    assert (right.get_xscale(), right.get_yscale(), right.get_xlabel()) == ("log", "linear", "steps")
    for level, sigma in enumerate(SIGMAS):
        one, other = (lines(axes)[f"$\\sigma$ = {sigma:.3g}"] for axes in figure.axes)
        np.testing.assert_array_equal(one.get_xdata(), epochs)
        np.testing.assert_array_equal(one.get_ydata(), nmse[:, level])
        np.testing.assert_array_equal(other.get_ydata(), losses[level])
        assert one.get_color().tolist() == other.get_color().tolist()
    with pytest.raises(InputError, match="number of panels = 0"):
        plots.distillation_epochs([], SIGMAS)
    with pytest.raises(InputError, match="shape of 'a'"):
        plots.distillation_epochs([plots.EpochPanel("a", "", epochs, nmse)], SIGMAS)
