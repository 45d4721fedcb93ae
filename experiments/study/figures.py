"""Figures: what a part of a study draws, declared with its caption and the figure of the paper that it stands for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A figure of the report, written to ``figures/NAME.png``.

    Attributes:
        name: name of the file, without ending.
        caption: what it shows, in whole sentences: axes, arms, number of runs.
        source: the paper's figure or table that it stands for, by its id in ``paper.toml`` (``"fig-4"``), where the
            status is given panel by panel; several are separated by spaces; ``""`` for a figure of our own.
    """

    name: str
    caption: str
    source: str = ""

    @property
    def file(self) -> str:
        """Its file in the run directory."""
        return f"figures/{self.name}.png"
