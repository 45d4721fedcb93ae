"""Figures of norms, contraction and starts: what is drawn is what was given."""

import numpy as np
import pytest

from dgu import plots
from dgu.analysis import Grid, falling_share
from dgu.core.errors import InputError
from dgu.samplers import karras_sigmas

GRID = karras_sigmas(5)
RNG = np.random.default_rng(0)


def lines(axes):
    return {line.get_label(): np.asarray(line.get_ydata()) for line in axes.get_lines()}


def test_panel_of_norms_has_a_histogram_and_a_picture_of_each():
    norms = {name: RNG.uniform(1, 2, (30, 3)) for name in ("x", "denoised", "slope")}
    pictures = {name: RNG.uniform(-1, 1, (3, 4, 4, 1)) for name in norms}
    expected = {name: np.full(3, 1.5) for name in norms}
    figure = plots.norm_panel(GRID, (0, 2, 4), norms, pictures, expected)
    schedule, *rest = figure.axes
    np.testing.assert_array_equal(schedule.get_lines()[0].get_ydata(), GRID[:-1])
    shown, histograms = rest[::2], rest[1::2]
    assert len(shown) == len(histograms) == 9
    assert sum(patch.get_height() for patch in histograms[4].patches) == 30
    assert histograms[4].get_lines()[0].get_xdata()[0] == 1.5
    stretched = np.asarray(shown[5].get_images()[0].get_array())
    picture = pictures["denoised"][2, ..., 0]
    np.testing.assert_allclose(stretched, (picture - picture.min()) / np.ptp(picture))
    with pytest.raises(InputError, match=r"norms\['x'\].shape = \(30, 3\): must be \(n, 2\)"):
        plots.norm_panel(GRID, (0, 2), norms, pictures)


def test_changes_of_norms_by_class():
    changes = [-RNG.uniform(0.5, 2, (9, 5)), RNG.normal(size=(9, 5))]
    _, shares = falling_share(np.concatenate(changes))
    expected = [np.full(5, -1.0), np.full(5, -0.5)]
    figure = plots.norm_changes(GRID[:-1], changes, ("Coat", "Bag"), shares, expected)
    drawn = lines(figure.axes[1])
    np.testing.assert_allclose(drawn["median"], np.median(changes[1], axis=0))
    np.testing.assert_array_equal(drawn["exact, Gaussian"], expected[1])
    assert [axes.get_title() for axes in figure.axes[:3]] == ["Coat", "Bag", "norms that fall, all classes (%)"]
    with pytest.raises(InputError, match="number of names = 1"):
        plots.norm_changes(GRID[:-1], changes, ("Coat",), shares)


def test_gains_and_scales():
    gains = RNG.uniform(0.5, 1.5, (7, 5))
    panel = plots.GainPanel("churn off", GRID[:-1], gains, np.full(5, 0.9), {"near": gains / 2})
    drawn = lines(plots.step_gains([panel, panel]).axes[1])
    np.testing.assert_allclose(drawn["top singular value: median, range"], np.median(gains, axis=0))
    np.testing.assert_allclose(drawn["near"], np.median(gains / 2, axis=0))
    scales = plots.ScalePanel("churn on", GRID, {"recursion": np.geomspace(80, 3, 6)}, {"measured": 2.0})
    drawn = lines(plots.scale_recursions([scales]).axes[0])
    assert drawn["recursion"][-1] == pytest.approx(3) and drawn["measured"].tolist() == [2.0]
    with pytest.raises(InputError, match="length of 'recursion' = 5"):
        plots.scale_recursions([plots.ScalePanel("", GRID, {"recursion": np.ones(5)}, {})])
    with pytest.raises(InputError, match="number of panels = 0"):
        plots.step_gains([])


def test_counter_example_marks_what_expands():
    gains, changes = np.full((4, 5), 0.5), np.full((4, 5), -1.0)
    gains[2, 3] = 3.0
    figure = plots.counter_example(GRID[:-1], gains, changes, np.ones(5), 0.5)
    left, right = figure.axes
    assert lines(left)["step expands here"].tolist() == [3.0] and lines(right)["step expands here"].tolist() == [1.0]
    assert right.get_title() == "1 of 1 expanding steps shorten the state"


def test_tails_of_starts_are_survival_functions():
    values = np.array([1.0, 2.0, 4.0, 8.0, 2.0])
    panel = plots.StartPanel("trained", {"Gaussian": values, "Student-t": 2 * values}, {"Gaussian": values})
    figure = plots.start_tails([[panel, panel]])
    (line, *_) = figure.axes[0].get_lines()
    np.testing.assert_allclose(line.get_xdata(), np.array([1, 2, 2, 4, 8]) / 2)
    np.testing.assert_allclose(line.get_ydata(), [1, 0.8, 0.6, 0.4, 0.2])
    with pytest.raises(InputError, match=r"panels in a row = \[1, 2\]"):
        plots.start_tails([[panel, panel], [panel]])


def test_densities_of_two_modes_tell_their_weights_and_places():
    """Four fifths of the mass right of 0; a diverged run says so; early, a quarter, half way and near the end."""
    grid, epochs = Grid(-12, 12, 121), np.arange(11) * 10
    density = 0.2 * np.exp(-((grid.coarse + 3) ** 2) / 2) + 0.8 * np.exp(-((grid.coarse - 3) ** 2) / 2)
    log_q = np.tile(np.log(density / density.sum()), (3, 11, 1))
    log_q[1, 4:] = np.nan
    figure = plots.mode_densities(epochs, log_q, grid, 3.0, seeds=2, title="two modes")
    assert [axes.get_title() for axes in figure.axes[:4]] == ["epoch 10", "epoch 20", "epoch 50", "epoch 100"]
    assert len(figure.axes) == 8 and figure.axes[4].get_ylabel() == "seed 1"
    texts = [axes.texts[0].get_text() for axes in figure.axes]
    assert texts == ["right 80%, modes -3.0, 3.0"] * 6 + ["diverged"] * 2
    drawn = lines(figure.axes[0])["learned"]
    np.testing.assert_allclose(drawn, density / density.sum() / grid.step)
    with pytest.raises(InputError, match=r"log_q.shape = .*: must be \(R, 11, 51\)"):
        plots.mode_densities(epochs, log_q, Grid(-12, 12, 51), 3.0)
