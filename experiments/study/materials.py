"""What a run looked at, data and network, as its report says it before the claims: in words and a strip of pictures."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from dgu import plots
from experiments.study.report import FigureEntry
from experiments.study.run_directory import RunDirectory

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

#: The file of the pictures in a run's directory.
FILE = "figures/data_and_network.png"
#: Pictures in a row, at most.
SHOWN = 10


@dataclass(frozen=True)
class Materials:
    """The data and the network of a run. Nothing is measured for it: the images are those that the run has anyway.

    Attributes:
        words: plain sentences.
        pictures: the first images of each kind by its name, (n, H, W, C) in [-1, 1], grey or coloured, all of one size;
            empty where there are none.
    """

    words: str = ""
    pictures: Mapping[str, np.ndarray] = field(default_factory=dict)

    def save(self, directory: RunDirectory) -> FigureEntry | None:
        """The pictures as a figure of the run, or None without any."""
        if not self.pictures:
            return None
        directory.save_figure(FILE, strip(self.pictures))
        return FigureEntry(FILE, "Some images of each kind.")


def strip(pictures: Mapping[str, np.ndarray]) -> "Drawing":
    """A row for each kind; rows with fewer images than the longest end in white."""
    columns = min(SHOWN, max(map(len, pictures.values())))
    rows = []
    for images in pictures.values():
        row = np.ones((columns, *images.shape[1:]))
        row[: len(images)] = images[:columns]
        rows.append(row)
    return plots.image_grid(np.stack(rows), list(pictures))


def in_turn(images: np.ndarray, count: int = SHOWN) -> np.ndarray:
    """The first ``count`` of images (K, n, H, W, C): the first of each class, then the second of each."""
    return np.swapaxes(images[:, :count], 0, 1).reshape(-1, *images.shape[2:])[:count]
