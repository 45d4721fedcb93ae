"""What the sweeps found, checkpoint by checkpoint, beside what closed forms show in a network's place."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy import stats

from dgu import analysis
from dgu.models import EmpiricalDenoiser
from dgu.training import distill_exactly
from experiments.hidden_gaussian_parts.networks import Arm
from experiments.hidden_gaussian_parts.trainer import Measured, Trainer


@dataclass(frozen=True, eq=False)
class Sweep:
    """All that was measured.

    Attributes:
        trainer: of the arms.
        sizes_found: of the wide network, ``[size][seed][checkpoint]``, sizes rising.
        widths_found: of the networks on little data, ``[width][seed][checkpoint]``, widths rising.
        families_found: of each kind of network on the largest set, ``[kind][checkpoint]``.
        references: the multi-delta and the Gaussian denoiser of each size, see ``reference``.
        fresh: generalisation scores of held-out images, ``[size]`` for each seed.
        little: images of the sweep over widths and time.
        linear: ``linear_distances`` of the last networks of each seed, "memorising" and "generalising".
    """

    trainer: Trainer
    sizes_found: dict[int, list[list[Measured]]]
    widths_found: dict[int, list[list[Measured]]]
    families_found: dict[str, list[Measured]]
    references: dict[int, dict[str, Measured]]
    fresh: dict[int, np.ndarray]
    little: int
    linear: dict[str, list[dict[str, np.ndarray]]]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Data-set sizes, rising."""
        return tuple(self.sizes_found)

    @property
    def wide(self) -> int:
        """Channels of the wide network."""
        return self.trainer.config.network.model_channels

    @property
    def narrow(self) -> int:
        """Channels of the narrow network."""
        return next(iter(self.widths_found))

    def rank(self, values: Sequence[Sequence[float]]) -> analysis.Interval:
        """Spearman's correlation of ``values[seed][size]`` with the size in each seed: mean, and 95 % interval over seeds
        within -1 to 1."""
        return analysis.t_interval([spearman(self.sizes, row) for row in values], bounds=(-1, 1))

    def by_seed(self, quantity: Any) -> list[list[float]]:
        """``quantity`` of the last checkpoints, ``[seed][size]``."""
        seeds = self.trainer.config.seeds
        return [[quantity(self.sizes_found[size][seed][-1], size) for size in self.sizes] for seed in range(seeds)]

    def relative_score(self, of: Measured, size: int) -> float:
        """The GL score over that of held-out images against training sets of the size."""
        return float(of.score.value / np.mean(self.fresh[size]))


def spearman(sizes: Sequence[int], values: Sequence[float]) -> float:
    """Spearman's rank correlation; 0 where all values are equal."""
    return 0.0 if len(set(values)) == 1 else float(stats.spearmanr(sizes, values).statistic)


def reference(trainer: Trainer, size: int, largest: int) -> dict[str, Measured]:
    """What the multi-delta and the Gaussian denoiser of a training set (that of the first seed) show in a network's place."""
    arm = trainer.arm(size, 0)
    points = trainer.subset(arm)
    # Points that are all repeated as often leave the multi-delta denoiser as it is, and all sizes share a program.
    points = np.tile(points, (largest // size, 1, 1, 1)) if largest % size == 0 else points
    models: dict[str, Any] = {"multi-delta": EmpiricalDenoiser(points), "Gaussian": trainer.gaussian(arm)}
    found = {}
    for name, model in models.items():
        stored = trainer.directory.stage(f"sweeps/{name}-{size}", partial(trainer.measure, model, arm))
        found[name] = Measured(0, trainer.sigmas(arm)[:-1], **stored)
    return found


def fresh_scores(trainer: Trainer, sizes: set[int]) -> dict[int, np.ndarray]:
    """The generalisation score of held-out images against the training set of each seed: the yardstick of a size."""
    held = trainer.images.held[: trainer.config.held_out].reshape(trainer.config.held_out, -1)

    def score(size: int, seed: int) -> float:
        rows = trainer.subset(trainer.arm(size, seed)).reshape(size, -1)
        return float(analysis.relative_distance(held, analysis.k_nearest(held, rows)[0][:, 0]).value)

    stored = trainer.directory.stage(
        "sweeps/fresh", lambda: {f"n{size}": np.array([score(size, s) for s in range(trainer.config.seeds)]) for size in sorted(sizes)}
    )  # fmt: skip
    return {size: stored[f"n{size}"] for size in sizes}


def linear_distances(trainer: Trainer, arm: Arm, count: int, draws: int) -> dict[str, np.ndarray]:
    """Distances among the network of an arm, its best linear map on held-out images, and its Gaussian, on other such images.

    The map is made of ``count`` images, ``draws`` noisy versions of each; ``(L, held out)`` distances by name.
    """
    images, sigmas, used = trainer.images.held, trainer.sigmas(arm)[:-1], trainer.config.held_out

    def compute() -> dict[str, np.ndarray]:
        denoiser = trainer.load(arm)
        maps = distill_exactly(
            denoiser,
            images[used : used + count],
            sigmas,
            trainer.key("distillation"),
            draws=draws,
        ).denoiser
        models = {"network": denoiser, "linear": maps, "Gaussian": trainer.gaussian(arm)}
        apart = analysis.score_distances(models, images[:used], sigmas, trainer.key("distances"), inputs="held-out")
        scaled = apart.differences / np.sqrt(apart.dimension)
        return {
            "linear_gaussian": scaled[:, 1, 2],
            "network_gaussian": scaled[:, 0, 2],
            "network_linear": scaled[:, 0, 1],
        }

    return trainer.directory.stage(f"sweeps/linear/{arm.name}", compute)
