"""The benchmark of growth: exponents, memory of a call, curves, and their figure."""

import json
import os

import jax
import numpy as np
import pytest

from benchmarks import growth
from benchmarks.growth_figure import draw
from benchmarks.growth_fit import shown, slopes
from benchmarks.growth_works import FUNCTIONS
from benchmarks.page_tables import TABLES

by_name = {function.name: function for function in FUNCTIONS}


def test_the_exponent_is_that_of_the_power_and_its_range_that_of_the_pieces():
    sizes = [1, 2, 4, 16]
    exact = slopes(sizes, [3 * size**1.5 for size in sizes])
    np.testing.assert_allclose([exact["exponent"], exact["low"], exact["high"]], 1.5)
    # Flat, then linear: by hand, with x = 0, 1, 2, 4 and y = 0, 0, 0, 2 in logarithms of base 2.
    bent = slopes(sizes, [1, 1, 1, 4])
    x, y = np.array([0, 1, 2, 4.0]), np.array([0, 0, 0, 2.0])
    expected = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
    np.testing.assert_allclose([bent["exponent"], bent["low"], bent["high"]], [expected, 0, 1], atol=1e-12)
    assert shown(bent) == f"{expected:.2f} (0.00 to 1.00)"
    assert slopes(sizes, [1, None, 2, 3]) is None and slopes([4], [1]) is None and shown(None) == "-"


def test_a_curve_of_parts_is_whole():
    function = by_name["moments"]
    parts = [growth.measure_curve(function, "d", [size], rounds=2) for size in (8, 16)]
    curve = growth.joined(function, "d", parts)
    assert curve["sizes"] == [8, 16] and curve["others"] == {"n": 4096}
    walls = [np.median([wall for wall, _ in times]) for times in curve["times"]]
    np.testing.assert_allclose([at["median"] for at in curve["seconds"]], walls)
    np.testing.assert_allclose(curve["time_exponent"]["exponent"], np.log2(walls[1] / walls[0]), rtol=1e-9)
    assert len(curve["times"][0]) == 2


@pytest.mark.parametrize("name", ["covariance_spectrum", "k_nearest", "GaussianDenoiser.fit", "EmpiricalDenoiser"])
def test_a_call_takes_the_sizes_that_grow(name):
    """The smallest sizes of every curve do run, and what they compute is finite."""
    function = by_name[name]
    small = {key: min(size, 64) for key, size in function.base.items()}
    for parameter in function.curves:
        found = jax.tree.leaves(function.work(**{**small, parameter: 32})())
        assert found and all(np.isfinite(leaf).all() for leaf in found)


def test_curves_grow_a_parameter_of_the_call_and_hold_their_base():
    for function in FUNCTIONS:
        assert function.curves.keys() <= function.base.keys()
        for sizes in function.curves.values():
            assert len(sizes) >= 3 and list(sizes) == sorted(set(sizes))


@pytest.fixture
def curves():
    """Curves of two functions, made up: exact powers."""

    def curve(function, parameter, power, memory):
        sizes = [1, 2, 4]
        seconds = [0.01 * size**power for size in sizes]
        part = {
            "sizes": sizes,
            "seconds": [{"median": s, "quartile_low": s, "quartile_high": s, "minimum": s} for s in seconds],
            "bytes": memory,
            "times": [[[s, s]] for s in seconds],
        }
        return growth.joined(by_name[function], parameter, [part])

    many = [2**21, 2**22, 2**23]
    return [curve("moments", "n", 1, many), curve("moments", "d", 2, many), curve("sample", "images", 1, [10, 10, 10])]


def test_the_figure_has_the_medians_and_exponents_of_every_curve(curves):
    figure = draw(curves)
    shown_axes = [axes for axes in figure.axes if axes.axison]
    assert len(shown_axes) == 4
    time, memory = (next(a for a in shown_axes if a.get_ylabel() == label) for label in ("time, s", "memory, MB"))
    assert time.get_title() == "moments"
    n, d = time.get_lines()
    np.testing.assert_allclose(d.get_ydata(), [0.01, 0.04, 0.16])
    np.testing.assert_array_equal(d.get_xdata(), [1, 2, 4])
    assert (n.get_label(), d.get_label()) == ("$n$ 1.00 (1.00 to 1.00)", "$d$ 2.00 (2.00 to 2.00)")
    np.testing.assert_allclose(memory.get_lines()[0].get_ydata(), np.array([2**21, 2**22, 2**23]) / 1e6)
    # Memory of bookkeeping has no exponent.
    assert [line.get_label() for axes in shown_axes for line in axes.get_lines()].count("images") == 1


def test_the_table_has_a_row_for_each_curve(curves):
    rows = TABLES["growth"]({"curves": curves})[2:]
    assert len(rows) == 3
    assert rows[1] == (
        "| `moments` | d | 1 to 4 | n 4,096 | 0.0100 to 0.160 | 2.00 (2.00 to 2.00) | 2.1 to 8.4 | 1.00 (1.00 to 1.00) |"
    )


@pytest.mark.slow
def test_the_program_measures_in_processes_of_their_own(monkeypatch, tmp_path, capsys):
    path, picture = tmp_path / "growth.json", tmp_path / "growth.png"
    growth.main(growth.Config(functions=("moments",), quick=True, threads=1, json=str(path), figure=str(picture)))
    figures = json.loads(path.read_text())
    assert [curve["sizes"] for curve in figures["curves"]] == [[1024, 4096], [128, 256]]
    assert figures["origin"]["versions"]["jax"] == jax.__version__
    assert picture.stat().st_size > 1000 and "moments" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="nothing: must be of sample"):
        growth.main(growth.Config(functions=("nothing",)))
    assert os.sched_getaffinity(0)
