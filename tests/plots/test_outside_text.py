"""Text from outside (names of classes, files, arms) is drawn as it is, whatever it holds; the package's own formulas
stay formulas.
"""

import io

import numpy as np
import pytest
from matplotlib.text import Text

from dgu import plots
from dgu.plots.style import plain_text

HOSTILE = ("$\\bad{$", "a$b$c", "\\$x$", "_hidden", "bell\x07 \x1b[31mred", "half \udcff")


def drawn(figure):
    """What is drawn, rendered: the literal texts, and those that are formulas."""
    figure.savefig(io.BytesIO(), format="png")
    found = [text._preprocess_math(text.get_text()) for text in figure.findobj(Text)]
    return {text for text, formula in found if not formula}, {text for text, formula in found if formula}


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("4 classes, 95 %\nd = 3", "4 classes, 95 %\nd = 3"),
        ("$\\bad{$", "\\$\\bad{\\$"),
        ("$\\sigma$ = 1, 5 $", "$\\sigma$ = 1, 5 \\$"),
        ("_hidden", " _hidden"),
        ("\x1b[31mred", "\\x1b[31mred"),
    ],
)
def test_only_what_is_not_literal_changes(given, shown):
    assert plain_text(given) == shown


@pytest.mark.filterwarnings("ignore:Glyph")
def test_names_are_literal_in_rows_columns_titles_and_legends():
    rng = np.random.default_rng(0)
    count = len(HOSTILE)
    grid = plots.image_grid(rng.uniform(-1, 1, (count, count, 6, 6, 1)), HOSTILE, HOSTILE, title=HOSTILE[0])
    n = np.array([20, 98, 196])
    mean = 80 + np.arange(count)[:, None] + np.log(n)
    curves = plots.learning_curves(
        [plots.CurvePanel(HOSTILE[0], n, mean, mean - 1, mean + 1, HOSTILE, 196)], quantity="q"
    )
    values = rng.uniform(size=(count, count))
    matrix = plots.cross_matrix(values, values, HOSTILE, HOSTILE)
    wanted = {"$\\bad{$", "a$b$c", "\\$x$", " _hidden", "bell\\x07 \\x1b[31mred", "half \\udcff"}
    for figure in (grid, curves, matrix):
        literal, _ = drawn(figure)
        assert wanted <= literal


def test_own_formulas_and_long_names():
    images = np.zeros((2, 2, 6, 6, 1))
    literal, formulas = drawn(plots.image_grid(images, ["$\\sigma$ = 2", "x" * 100_000], ["a", "b"]))
    assert "$\\sigma$ = 2" in formulas and any("(100,000 characters)" in text for text in literal)
