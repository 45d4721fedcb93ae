"""What the sweeps found, checkpoint by checkpoint, beside closed forms measured in place of a network."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from dgu import analysis
from dgu.analysis.stats.estimates import Estimate
from dgu.core.denoisers import map_batch
from dgu.distributions.bases import initial_noise
from dgu.models import EmpiricalDenoiser
from dgu.training import distill_exactly
from experiments.hidden_gaussian.networks import Arm
from experiments.hidden_gaussian.subject import GAUSSIAN, POINTS
from experiments.hidden_gaussian.trainer import Measured, Trainer
from experiments.study import Run

#: The noise level whose denoised images are shown, as in the paper.
DENOISED_AT = 4.0
#: Images that are shown at most.
_MOST_SHOWN = 12


@dataclass(frozen=True, eq=False)
class Denoised:
    """Held-out images with noise of level ``sigma``, denoised: by name ``held_out`` (clean), and ``network`` and
    ``gaussian`` of the smallest and the largest training set, such as ``network_few``."""

    sigma: float
    images: dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Sweep:
    """All that was measured.

    Attributes:
        trainer: trainer of the arms.
        sizes_found: checkpoints of the wide network, ``[size][seed][checkpoint]``, sizes rising.
        widths_found: those of the networks on little data, ``[width][seed][checkpoint]``, widths rising.
        families_found: those of each kind of network on the largest set, ``[kind][checkpoint]``.
        references: the multi-delta and the Gaussian denoiser of each size, see ``reference``.
        fresh: generalisation scores of held-out images, ``[size]`` for each seed.
        little: images of the sweep over widths and time.
        linear: ``linear_distances`` of the last networks of each seed, "memorising" and "generalising".
        denoised: held-out images, see ``denoised``.
    """

    trainer: Trainer
    sizes_found: dict[int, list[list[Measured]]]
    widths_found: dict[int, list[list[Measured]]]
    families_found: dict[str, list[Measured]]
    references: dict[int, dict[str, Measured]]
    fresh: dict[int, np.ndarray]
    little: int
    linear: dict[str, list[dict[str, np.ndarray]]]
    denoised: Denoised

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

    @property
    def sigmas(self) -> np.ndarray:
        """Noise levels of the wide network's measures."""
        return self.trainer.sigmas(self.trainer.arm(2, 0))[:-1]

    def rank(self, values: Sequence[Sequence[float]]) -> Estimate:
        """Spearman's correlation of ``values[seed][size]`` with the size: mean and 95 % interval over seeds."""
        return analysis.t_interval([spearman(self.sizes, row) for row in values], bounds=(-1, 1))

    def by_seed(self, quantity: Callable[[Measured, int], float]) -> list[list[float]]:
        """``quantity`` of the last checkpoints, ``[seed][size]``."""
        seeds = self.trainer.config.seeds
        return [[quantity(self.sizes_found[size][seed][-1], size) for size in self.sizes] for seed in range(seeds)]

    def relative_score(self, of: Measured, size: int) -> float:
        """The generalisation score relative to that of held-out images against training sets of this size."""
        return float(of.score.value / np.mean(self.fresh[size]))


def spearman(sizes: Sequence[int], values: Sequence[float]) -> float:
    """Spearman's rank correlation; 0 where all values are equal."""
    return 0.0 if len(set(values)) == 1 else float(stats.spearmanr(sizes, values).statistic)


def reference(trainer: Trainer, run: Run, size: int, largest: int) -> dict[str, Measured]:
    """The multi-delta and the Gaussian denoiser of the first seed's training set, measured in place of a network."""
    arm = trainer.arm(size, 0)
    points = trainer.subset(arm)
    # Points that are all repeated as often leave the multi-delta denoiser as it is, and all sizes share a program.
    points = np.tile(points, (largest // size, 1, 1, 1)) if largest % size == 0 else points
    stored = {
        POINTS: run.stage(f"{POINTS}-{size}", lambda: trainer.measure(EmpiricalDenoiser(points), arm)),
        GAUSSIAN: run.stage(f"{GAUSSIAN}-{size}", lambda: trainer.measure(trainer.gaussian(arm), arm)),
    }
    return {name: Measured(0, trainer.sigmas(arm)[:-1], **arrays) for name, arrays in stored.items()}


def fresh_scores(trainer: Trainer, run: Run, sizes: set[int]) -> dict[int, np.ndarray]:
    """Generalisation scores of held-out images against the training set of each seed, the reference for each size."""
    held = trainer.images.held[: trainer.config.held_out].reshape(trainer.config.held_out, -1)

    def score(size: int, seed: int) -> float:
        rows = trainer.subset(trainer.arm(size, seed)).reshape(size, -1)
        return float(analysis.relative_distance(held, analysis.k_nearest(held, rows)[0][:, 0]).value)

    def compute() -> dict[str, np.ndarray]:
        seeds = range(trainer.config.seeds)
        return {f"n{size}": np.array([score(size, seed) for seed in seeds]) for size in sorted(sizes)}

    stored = run.stage("fresh", compute)
    return {size: stored[f"n{size}"] for size in sizes}


def linear_distances(trainer: Trainer, run: Run, arm: Arm, count: int, draws: int) -> dict[str, np.ndarray]:
    """Distances among the network of an arm, its best linear map and its Gaussian, on held-out images.

    The map is made of ``count`` other held-out images, ``draws`` noisy versions of each. Arrays ``(L, held out)``.
    """
    images, sigmas, used = trainer.images.held, trainer.sigmas(arm)[:-1], trainer.config.held_out

    def compute() -> dict[str, np.ndarray]:
        denoiser, key = trainer.load(arm), trainer.key("distillation")
        maps = distill_exactly(denoiser, images[used : used + count], sigmas, key, draws=draws).denoiser
        models = {"network": denoiser, "linear": maps, "Gaussian": trainer.gaussian(arm)}
        apart = analysis.score_distances(models, images[:used], sigmas, trainer.key("distances"), inputs="held-out")
        scaled = apart.differences / np.sqrt(apart.dimension)
        return {
            "linear_gaussian": scaled[:, 1, 2],
            "network_gaussian": scaled[:, 0, 2],
            "network_linear": scaled[:, 0, 1],
        }

    return run.stage(f"linear/{arm.name}", compute)


def denoised(trainer: Trainer, run: Run, sizes: tuple[int, int]) -> Denoised:
    """Noisy held-out images denoised by a network and the Gaussian of the smallest and the largest training set."""
    few, many = (trainer.arm(size, 0) for size in sizes)
    grid = trainer.sigmas(few)[:-1]
    sigma = float(grid[np.argmin(np.abs(grid - DENOISED_AT))])
    clean = trainer.images.held[: min(_MOST_SHOWN, trainer.config.held_out)]

    def compute() -> dict[str, np.ndarray]:
        noise = [initial_noise(trainer.key("denoised"), index, clean.shape[1:]) for index in range(len(clean))]
        noisy = (clean + sigma * np.stack([np.asarray(one) for one in noise])).astype(np.float32)
        models = {
            "network_few": trainer.load(few),
            "gaussian_few": trainer.gaussian(few),
            "network_many": trainer.load(many),
            "gaussian_many": trainer.gaussian(many),
        }
        levels = np.full(len(clean), sigma, np.float32)
        return {name: np.asarray(map_batch(model, noisy, levels)) for name, model in models.items()}

    return Denoised(sigma, {"held_out": clean, **run.stage("denoised", compute)})
