"""A notebook shows a figure of dgu without pyplot."""

import io
import subprocess
import sys

import numpy as np
from PIL import Image

from dgu import plots


def test_the_last_expression_of_a_cell_is_shown_as_a_picture():
    images = np.stack([np.full((8, 8, 1), -1.0), np.full((8, 8, 1), 1.0)])[None].astype(np.float32)
    figure = plots.image_grid(images, ("",), ("black", "white"))
    shown = np.asarray(Image.open(io.BytesIO(figure._repr_png_())).convert("L"), float)
    half = shown.shape[1] // 2
    black = [(part < 10).mean() for part in (shown[:, :half], shown[:, half:])]
    assert black[0] > 0.2 > 0.05 > black[1], black


def test_no_pyplot_is_loaded_for_it():
    code = "import sys; from dgu.plots.style import new_figure; new_figure(1, 1)._repr_png_(); sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
