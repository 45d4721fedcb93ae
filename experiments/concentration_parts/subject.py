"""What the parts of the concentration study are given; each returns a ``Section``."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dgu.models import EDMNetwork
from dgu.samplers import Churn

PAPER = "concentration"


@dataclass(frozen=True)
class Subject:
    """The model and the images that the study is about.

    Attributes:
        denoiser: a pytree ``denoiser(x, sigma)``, with ``given(label)`` where ``conditional``; None where only images
            were given.
        conditional: whether the denoiser has classes.
        shape: of one image, (H, W, C).
        labels: the classes studied, in the numbering of the denoiser; at least one.
        class_names: their names.
        sigmas, churn, solver, batch_size: how ``images`` were sampled; ``sigmas`` is None without a denoiser.
        images: the samples, (K, n, H, W, C) float32 in [-1, 1], equally many of each class.
        real: real images of the same classes that the model was not trained on, (K, m, H, W, C), or None.
    """

    denoiser: Any | None
    conditional: bool
    shape: tuple[int, ...]
    labels: tuple[int, ...]
    class_names: tuple[str, ...]
    sigmas: np.ndarray | None
    churn: Churn
    solver: Any
    batch_size: int
    images: np.ndarray
    real: np.ndarray | None

    def of_class(self, number: int) -> Any:
        """The denoiser of the class in place ``number`` of ``labels``."""
        assert self.denoiser is not None
        return self.denoiser.given(self.labels[number]) if self.conditional else self.denoiser


@dataclass(frozen=True)
class Plan:
    """What a dry run knows of a subject: sizes, and the network without its parameters (None for images alone)."""

    network: EDMNetwork | None
    shape: tuple[int, ...]
    classes: int
    per_class: int
    num_steps: int
    batch_size: int
