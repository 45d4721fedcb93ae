"""What the sweeps found, checkpoint by checkpoint, beside closed forms measured in place of a network."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from dgu import analysis
from dgu.models import EmpiricalDenoiser
from experiments.hidden_gaussian.arms import Design
from experiments.hidden_gaussian.subject import GAUSSIAN, POINTS
from experiments.hidden_gaussian.sweep_pictures import Denoised
from experiments.hidden_gaussian.trainer import Measured, measure, summaries
from experiments.study import Run


@dataclass(frozen=True, eq=False)
class Sweep:
    """All that was measured.

    Attributes:
        design: what the arms share.
        sizes_found: checkpoints of the wide network, ``[size][seed][checkpoint]``, sizes rising.
        widths_found: those of the networks on little data, ``[width][seed][checkpoint]``, widths rising.
        families_found: those of each kind of network on the largest set, ``[kind][checkpoint]``.
        references: the multi-delta and the Gaussian denoiser of each size, see ``reference``.
        fresh: generalisation scores of held-out images, ``[size]`` for each seed.
        little: images of the sweep over widths and time.
        pictured: sizes whose networks are shown in pictures.
        linear: ``linear_distances`` of the last networks, ``[size]`` for each seed or the first alone.
        model: ``linear_model`` of the wide network on the largest set.
        adam: ``adam_course`` of kinds of networks on the largest set, those with the wide network's preconditioning.
        denoised: noisy images and what denoisers make of them.
    """

    design: Design
    sizes_found: dict[int, list[list[Measured]]]
    widths_found: dict[int, list[list[Measured]]]
    families_found: dict[str, list[Measured]]
    references: dict[int, dict[str, Measured]]
    fresh: dict[int, np.ndarray]
    little: int
    pictured: list[int]
    linear: dict[int, list[dict[str, np.ndarray]]]
    model: dict[str, np.ndarray]
    adam: dict[str, dict[str, np.ndarray]]
    denoised: Denoised

    @property
    def sizes(self) -> tuple[int, ...]:
        """Data-set sizes, rising."""
        return tuple(self.sizes_found)

    @property
    def wide(self) -> int:
        """Channels of the wide network."""
        return self.design.config.network.model_channels

    @property
    def widest(self) -> int:
        """Channels of the widest network on little data: the wide network's, if none has more."""
        return max(self.widths_found)

    @property
    def narrow(self) -> int:
        """Channels of the narrow network."""
        return next(iter(self.widths_found))

    @property
    def sigmas(self) -> np.ndarray:
        """Noise levels of the wide network's measures."""
        return self.design.sigmas(self.design.arm(2, 0))[:-1]

    def over_sizes(self, quantity: str) -> np.ndarray:
        """A quantity of ``Measured.summary`` at the end of training, ``(seeds, sizes)``."""
        return np.stack([summaries(found, quantity)[:, -1] for found in self.sizes_found.values()], axis=1)

    def fresh_mean(self, size: int) -> float:
        """The generalisation score of held-out images against training sets of this size, mean over seeds."""
        return float(np.mean(self.fresh[size]))


def reference(design: Design, run: Run, size: int, largest: int) -> dict[str, Measured]:
    """The multi-delta and the Gaussian denoiser of the first seed's training set, measured in place of a network."""
    arm = design.arm(size, 0)
    points = design.subset(arm)
    # Points that are all repeated as often leave the multi-delta denoiser as it is, and all sizes share a program.
    points = np.tile(points, (largest // size, 1, 1, 1)) if largest % size == 0 else points
    stored = {
        POINTS: run.stage(f"{POINTS}-{size}", lambda: measure(design, EmpiricalDenoiser(points), arm)),
        GAUSSIAN: run.stage(f"{GAUSSIAN}-{size}", lambda: measure(design, design.gaussian(arm), arm)),
    }
    return {name: Measured(0, **design.levels(arm), **arrays) for name, arrays in stored.items()}


def fresh_scores(design: Design, sizes: Collection[int]) -> dict[str, np.ndarray]:
    """Generalisation scores of held-out images against the training set of each seed, the reference for each size;
    ``"n32"`` for a size of 32."""
    count = design.config.held_out
    held = design.images.held[:count].reshape(count, -1)

    def score(size: int, seed: int) -> float:
        rows = design.subset(design.arm(size, seed)).reshape(size, -1)
        return float(analysis.relative_distance(held, analysis.k_nearest(held, rows)[0][:, 0]).value)

    return {f"n{size}": np.array([score(size, seed) for seed in range(design.config.seeds)]) for size in sorted(sizes)}
