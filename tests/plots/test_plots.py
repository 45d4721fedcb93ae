"""What is drawn is what was given: lines, bands, ratios, labels and axes hold the data."""

import dataclasses
import io

import jax
import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from dgu import plots
from dgu.core.errors import InputError
from dgu.plots.style import VERDICTS

ARMS = ("diffusion", "mixture", "null", "real")


def finish(figure):
    """Render the figure; its legend and texts must lie inside the canvas, and pyplot must know nothing of it."""
    canvas, buffer = FigureCanvasAgg(figure), io.BytesIO()
    figure.savefig(buffer, format="png")
    width, height = figure.bbox.size
    renderer = canvas.get_renderer()
    texts = [text for axes in figure.axes for text in (axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts)]
    for artist in (*texts, *figure.legends):
        box = artist.get_window_extent(renderer)
        assert box.width == 0 or (box.x0 > -1 and box.y0 > -1 and box.x1 < width + 1 and box.y1 < height + 1), artist
    assert plt.get_fignums() == []
    return Image.open(buffer)


def lines(axes):
    """The drawn lines by their label."""
    return {line.get_label(): line for line in axes.lines}


def band(collection):
    """x, low and high of a filled band."""
    points = collection.get_paths()[0].vertices
    xs = np.unique(points[:, 0])
    return xs, *(np.array([end(points[points[:, 0] == x, 1]) for x in xs]) for end in (np.min, np.max))


def panel(title="4 classes", arms=ARMS, dimension=196):
    n = np.array([20, 98, 196, 1960])
    mean = 80 + np.arange(len(arms))[:, None] + np.log(n)
    return plots.CurvePanel(title, n, mean, mean - 1.5, mean + 2.0, arms, dimension)


def test_learning_curves_hold_means_bands_and_both_axes():
    one, two = panel(), panel("10 classes", ARMS[:2], None)
    figure = plots.learning_curves([one, two], quantity="test accuracy (%)", labels={"mixture": "Gaussian mixture"})
    finish(figure)
    left, right = figure.axes[:2]
    assert [axes.get_title() for axes in (left, right)] == ["4 classes", "10 classes"]
    assert left.get_ylabel() == "test accuracy (%)" and left.get_xlabel() == "training images n"
    for axes, given in ((left, one), (right, two)):
        drawn = lines(axes)
        assert list(drawn) == ["Gaussian mixture" if arm == "mixture" else arm for arm in given.arms]
        for line, collection, mean, low, high in zip(
            drawn.values(), axes.collections, given.mean, given.low, given.high
        ):
            np.testing.assert_array_equal(line.get_xdata(), given.n)
            np.testing.assert_array_equal(line.get_ydata(), mean)
            for drawn_ends, ends in zip(band(collection), (given.n, low, high)):
                np.testing.assert_allclose(drawn_ends, ends)
        assert axes.get_xscale() == "log"
    (upper,) = left.child_axes
    np.testing.assert_allclose(upper.get_xticks(), one.n / 196)
    assert [text.get_text() for text in upper.get_xticklabels()] == ["0.1", "0.5", "1", "10"]
    assert upper.get_xlabel().startswith("n / d") and right.child_axes == []
    np.testing.assert_allclose(upper.get_xlim(), np.array(left.get_xlim()) / 196)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "diffusion",
        "Gaussian mixture",
        "null",
        "real",
    ]


def test_no_axis_reaches_beyond_the_possible_range():
    near = dataclasses.replace(
        panel(), mean=np.full((4, 4), 99.0), low=np.full((4, 4), 97.0), high=np.full((4, 4), 99.9)
    )
    assert plots.learning_curves([near]).axes[0].get_ylim()[1] > 100
    figure = plots.learning_curves([near], limits=(0.0, 100.0))
    low, high = figure.axes[0].get_ylim()
    assert 96 < low < 97 and high == 100


def test_difference_curves_hold_means_bands_and_the_margin():
    arms = ("raw", "null's", "null-corrected gap")
    one = dataclasses.replace(panel("pairs", arms), mean=panel("pairs", arms).mean - 85)
    one = dataclasses.replace(one, low=one.mean - 1, high=one.mean + 2)
    figure = plots.difference_curves([one, one], margin=2.5)
    finish(figure)
    axes = figure.axes[0]
    drawn = lines(axes)
    assert list(drawn)[-3:] == list(arms)
    for arm, mean in zip(arms, one.mean):
        np.testing.assert_array_equal(drawn[arm].get_ydata(), mean)
    (margin,) = [patch for patch in axes.patches if patch.get_label() == "margin of equivalence, ±2.5"]
    assert (margin.get_y(), margin.get_height()) == (-2.5, 5.0)
    for collection, low, high in zip(axes.collections, one.low, one.high):
        np.testing.assert_allclose(band(collection)[1:], (low, high))


def test_predictions_are_drawn_as_given_and_look_like_no_arm():
    n = np.array([20.0, 60.0, 196.0, 600.0])
    values = {"best ridge": (n, 90 + np.log(n)), "no ridge": (n, np.where(n == 196, np.nan, 80.0))}
    figure = plots.learning_curves([dataclasses.replace(panel(), predictions=values)])
    finish(figure)
    drawn = lines(figure.axes[0])
    assert list(drawn) == [*ARMS, *values]
    for name, (x, y) in values.items():
        np.testing.assert_array_equal(drawn[name].get_xdata(), x)
        np.testing.assert_array_equal(drawn[name].get_ydata(), y)
    looks = [(line.get_color(), str(line._dash_pattern)) for line in drawn.values()]
    assert len(set(looks)) == len(looks) and all(drawn[name].get_marker() == "None" for name in values)
    with pytest.raises(InputError, match=r"lengths of bad \(4 classes\) = \(4, 3\): must be equal"):
        plots.learning_curves([dataclasses.replace(panel(), predictions={"bad": (n, n[:3])})])


def test_every_arm_differs_by_colour_marker_and_line():
    looks = [plots.arm_style(arm) for arm in ARMS]
    for values in zip(*((look.color, look.marker, look.linestyle) for look in looks)):
        assert len(set(values)) == len(ARMS)
    study = [
        plots.arm_style(arm, place) for place, arm in enumerate(("diffusion", "mixture", "null", "low rank", "real"))
    ]
    for values in zip(*((look.color, look.marker, look.linestyle) for look in study)):
        assert len(set(values)) == len(study)
    others = [plots.arm_style(f"other {number}", number) for number in range(3)]
    assert len({look.color for look in looks + others}) == 7
    assert len({color for color, _ in VERDICTS.values()}) == len({marker for _, marker in VERDICTS.values()}) == 3


def test_the_style_neither_uses_nor_changes_the_readers_settings():
    with matplotlib.rc_context({"font.size": 31, "lines.linewidth": 9}):
        figure = plots.loss_curve(np.arange(3), np.arange(3.0))
        assert figure.axes[0].lines[0].get_linewidth() == 1.2
        assert figure.axes[0].xaxis.label.get_size() == 10
        assert matplotlib.rcParams["font.size"] == 31


def test_image_grid_places_every_image_and_label():
    images = np.asarray(jax.random.uniform(jax.random.key(0), (2, 6, 5, 4, 1), minval=-1.2, maxval=1.2))
    figure = plots.image_grid(images, ["Coat", "Bag"], ["real", "diffusion", "mixture"], title="Samples")
    finish(figure)
    (axes,) = figure.axes
    canvas = np.asarray(axes.images[0].get_array())
    shown = np.clip((images[..., 0] + 1) / 2, 0, 1)
    windows = np.lib.stride_tricks.sliding_window_view(canvas, (5, 4))
    corners = {}
    for row in range(2):
        for column in range(6):
            (place,) = np.argwhere((windows == shown[row, column]).all(axis=(2, 3)))
            corners[row, column] = place
    assert [text.get_text() for text in axes.get_yticklabels()] == ["Coat", "Bag"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["real", "diffusion", "mixture"]
    for block, tick in enumerate(axes.get_xticks()):
        left, right = corners[0, 2 * block][1], corners[0, 2 * block + 1][1] + 3
        assert tick == (left + right) / 2
    steps = np.diff([corners[0, column][1] for column in range(6)])
    assert steps[0] == steps[2] == steps[4] < steps[1] == steps[3]
    colours = np.zeros((1, 2, 3, 3, 3))
    colours[..., 0] = 1.0
    canvas = np.asarray(plots.image_grid(colours, [""], ["red"], pixel_range=(0, 1)).axes[0].images[0].get_array())
    np.testing.assert_array_equal(canvas[:3, :3], np.broadcast_to([1.0, 0, 0], (3, 3, 3)))


def test_cross_matrix_writes_values_and_errors_in_readable_ink():
    values = np.array([[82.14, 70.0], [75.0, 90.0]])
    figure = plots.cross_matrix(values, np.array([[0.4, 0.5], [0.6, 0.7]]), ["diffusion", "real"], ["mixture", "null"])
    finish(figure)
    axes, bar = figure.axes
    np.testing.assert_array_equal(axes.images[0].get_array(), values)
    assert [text.get_text() for text in axes.texts] == ["82.1\n± 0.4", "70.0\n± 0.5", "75.0\n± 0.6", "90.0\n± 0.7"]
    assert [text.get_position() for text in axes.texts] == [(0, 0), (1, 0), (0, 1), (1, 1)]
    assert axes.texts[1].get_color() == "white" and axes.texts[3].get_color() == "black"
    assert (axes.get_xlabel(), axes.get_ylabel(), bar.get_ylabel()) == ("tested on", "trained on", "test accuracy (%)")
    assert [text.get_text() for text in axes.get_yticklabels()] == ["diffusion", "real"]


def test_spectra_are_log_log_with_bands_ratios_and_a_floor():
    rank = np.arange(1, 41.0)
    noise = np.exp(0.05 * np.asarray(jax.random.normal(jax.random.key(1), (2, 20, 40))))
    diffusion, mixture = rank**-1.5 * noise
    mixture[:, -5:] = 1e-14
    panels = [plots.SpectrumPanel(title, {"diffusion": diffusion, "mixture": mixture}) for title in ("4", "10")]
    figure = plots.spectra(panels, quantity="Gram eigenvalue", ratios=(("mixture", "diffusion"),))
    finish(figure)
    top, _, below, _ = figure.axes
    assert top.get_xscale() == top.get_yscale() == below.get_xscale() == "log" and below.get_yscale() == "linear"
    drawn = lines(top)
    np.testing.assert_allclose(drawn["diffusion"].get_ydata(), np.median(diffusion, axis=0))
    np.testing.assert_array_equal(drawn["diffusion"].get_xdata(), rank)
    assert np.isnan(drawn["mixture"].get_ydata()[-5:]).all() and np.isfinite(drawn["mixture"].get_ydata()[:-5]).all()
    _, low, high = band(top.collections[0])
    np.testing.assert_allclose(low, np.quantile(diffusion, 0.025, axis=0))
    np.testing.assert_allclose(high, np.quantile(diffusion, 0.975, axis=0))
    ratio = lines(below)["mixture / diffusion"].get_ydata()
    np.testing.assert_allclose(ratio[:-5], np.median(mixture / diffusion, axis=0)[:-5])
    assert (top.get_ylabel(), below.get_ylabel(), below.get_xlabel()) == (
        "Gram eigenvalue",
        "ratio",
        "rank of eigenvalue",
    )
    powers = plots.spectra(panels, quantity="eigenvalue", ratios=(("mixture", "diffusion"),), power=0.1)
    finish(powers)
    top = powers.axes[0]
    assert (top.get_xscale(), top.get_yscale(), top.get_ylabel()) == ("linear", "linear", "eigenvalue to the power 0.1")
    np.testing.assert_allclose(lines(top)["diffusion"].get_ydata(), np.median(diffusion**0.1, axis=0))
    null = mixture * np.exp(0.1)
    both = plots.SpectrumPanel("4", {"diffusion": diffusion, "mixture": mixture, "null": null})
    pairs = (("mixture", "diffusion"), ("null", "mixture"))
    corrected = lines(plots.spectra([both], ratios=pairs, corrected=(0.8, 1.25)).axes[1])
    wanted = np.median(mixture / diffusion, axis=0)[:-5] / np.exp(0.1)
    np.testing.assert_allclose(corrected["r / r0"].get_ydata()[:-5], wanted)
    assert {"r = mixture / diffusion", "r0 = null / mixture"} < set(corrected)
    single = plots.spectra([plots.SpectrumPanel("Coat", {"real": diffusion[0]})])
    np.testing.assert_array_equal(single.axes[0].lines[0].get_ydata(), diffusion[0])
    assert not single.axes[0].collections


def test_forest_shows_intervals_margin_and_verdicts():
    estimates, intervals = np.array([0.3, -4.2, 2.2]), np.array([[-0.4, 1.0], [-5.1, -3.3], [1.8, 2.6]])
    words = ["supported", "not supported", "undecided"]
    figure = plots.forest(["a", "b", "c"], estimates, intervals, 2.5, verdicts=words)
    finish(figure)
    (axes,) = figure.axes
    spans, points = axes.lines[1::2], axes.lines[2::2]
    for row, word in enumerate(words):
        np.testing.assert_array_equal(spans[row].get_xdata(), intervals[row])
        np.testing.assert_array_equal(points[row].get_xydata(), [[estimates[row], row]])
        assert (points[row].get_color(), points[row].get_marker()) == VERDICTS[word]
        assert spans[row].get_color() == VERDICTS[word][0]
    assert axes.patches[0].get_extents().transformed(axes.transData.inverted()).intervalx == pytest.approx([-2.5, 2.5])
    assert axes.texts[0].get_text() == "+0.30 [-0.40, +1.00]"
    assert axes.yaxis_inverted() and "percentage points" in axes.get_xlabel()
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {*words, "equivalence margin, ±2.5"}


def test_loss_curve_counts_thousands_of_images():
    seen, loss = np.array([2000, 4000, 8000]), np.array([0.5, 0.4, 0.3])
    figure = plots.loss_curve(seen, loss, held_out_seen=seen[:2], held_out_loss=loss[:2] + 0.1)
    finish(figure)
    drawn = lines(figure.axes[0])
    np.testing.assert_array_equal(drawn["training"].get_xydata(), np.stack([seen / 1000, loss], 1))
    np.testing.assert_array_equal(drawn["held out"].get_xydata(), np.stack([seen[:2] / 1000, loss[:2] + 0.1], 1))
    assert "thousands" in figure.axes[0].get_xlabel()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: plots.learning_curves([]), "number of panels = 0"),
        (
            lambda: plots.learning_curves([plots.CurvePanel("t", np.arange(3), *[np.ones((1, 2))] * 3, ("real",))]),
            "shape of mean",
        ),
        (lambda: plots.difference_curves([], margin=1.0), "number of panels = 0"),
        (lambda: plots.difference_curves([panel()], margin=0.0), "margin = 0.0: must be positive"),
        (lambda: plots.image_grid(np.zeros((1, 5, 2, 2, 1)), ["a"], ["x", "y"]), "number of column_labels = 2"),
        (lambda: plots.image_grid(np.zeros((1, 5, 2, 2, 2)), ["a"], ["x"]), "channels = 2"),
        (lambda: plots.spectra([plots.SpectrumPanel("t", {"a": np.ones(3)})], ratios=(("a", "b"),)), "ratios"),
        (lambda: plots.spectra([plots.SpectrumPanel("t", {"a": np.ones(3)})], corrected=(1, 2)), "number of ratios"),
        (lambda: plots.forest(["a"], np.zeros(1), np.zeros((1, 2)), 1.0, verdicts=["maybe"]), "verdict = 'maybe'"),
    ],
)
def test_input_that_does_not_fit_is_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()


def test_universality_trend_holds_means_and_intervals():
    d = np.array([64, 256, 1024])
    rows = {name: np.array([[m, m - 0.1, m + 0.3] for m in means]) for name, means in
            {"bounded": (-0.5, 0.1, 0.0), "radius": (-5.0, -4.0, -4.5), "null": (0.2, 0.0, 0.1)}.items()}  # fmt: skip
    panels = [{name: rows[name] for name in names} for names in (("bounded", "null"), ("radius", "null"))]
    figure = plots.universality_trend(d, panels, margin=1.0)
    finish(figure)
    assert [axes.get_xscale() for axes in figure.axes] == ["log", "log"]
    for axes, panel in zip(figure.axes, panels):
        for container, (name, expected) in zip(axes.containers, panel.items()):
            assert container.get_label() == name
            np.testing.assert_array_equal(container.lines[0].get_ydata(), expected[:, 0])
            low, high = (line.get_ydata() for line in container.lines[1])
            np.testing.assert_allclose(np.array([low, high], float), expected[:, 1:].T)
        # Beside each other, and nearer to their own dimension than to any other.
        x = np.array([container.lines[0].get_xdata() for container in axes.containers])
        assert (x[0] < d).all() and (d < x[1]).all() and np.abs(np.log2(x / d)).max() < 0.2
    looks = [figure.axes[k].containers[1].lines[0] for k in range(2)]
    assert looks[0].get_color() == looks[1].get_color() and looks[0].get_marker() == looks[1].get_marker()


def test_every_image_is_stretched_to_its_own_range():
    images = np.random.default_rng(0).normal(size=(2, 3, 4, 4, 1)) * np.array([1, 9]).reshape(2, 1, 1, 1, 1)
    found = plots.stretched(images)
    assert found.dtype == np.float32 and found.shape == images.shape
    np.testing.assert_allclose(found.min(axis=(2, 3, 4)), -1)
    np.testing.assert_allclose(found.max(axis=(2, 3, 4)), 1)
    # Rising with the values of the image itself.
    slope = np.diff(np.sort(found[1, 2].ravel())) / np.diff(np.sort(images[1, 2].ravel()))
    np.testing.assert_allclose(slope, 2 / np.ptp(images[1, 2]), rtol=1e-3)
    np.testing.assert_array_equal(plots.stretched(np.full((2, 2, 1), 7.0)), -np.ones((2, 2, 1)))
