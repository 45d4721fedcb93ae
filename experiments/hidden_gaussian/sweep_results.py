"""What the sweeps found, checkpoint by checkpoint, beside closed forms measured in place of a network."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from dgu import analysis, training
from dgu.core.denoisers import map_batch
from dgu.core.typing import Denoiser
from dgu.distributions.bases import initial_noise
from dgu.models import EmpiricalDenoiser
from experiments.hidden_gaussian.arms import Arm, Design
from experiments.hidden_gaussian.subject import GAUSSIAN, POINTS
from experiments.hidden_gaussian.trainer import Measured, load, measure, summaries
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
        design: what the arms share.
        sizes_found: checkpoints of the wide network, ``[size][seed][checkpoint]``, sizes rising.
        widths_found: those of the networks on little data, ``[width][seed][checkpoint]``, widths rising.
        families_found: those of each kind of network on the largest set, ``[kind][checkpoint]``.
        references: the multi-delta and the Gaussian denoiser of each size, see ``reference``.
        fresh: generalisation scores of held-out images, ``[size]`` for each seed.
        little: images of the sweep over widths and time.
        linear: ``linear_distances`` of the last networks of each seed, "memorising" and "generalising".
        denoised: held-out images, see ``denoised``.
    """

    design: Design
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
        return self.design.config.network.model_channels

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
    return {name: Measured(0, design.sigmas(arm)[:-1], **arrays) for name, arrays in stored.items()}


def fresh_scores(design: Design, sizes: Collection[int]) -> dict[str, np.ndarray]:
    """Generalisation scores of held-out images against the training set of each seed, the reference for each size;
    ``"n32"`` for a size of 32."""
    count = design.config.held_out
    held = design.images.held[:count].reshape(count, -1)

    def score(size: int, seed: int) -> float:
        rows = design.subset(design.arm(size, seed)).reshape(size, -1)
        return float(analysis.relative_distance(held, analysis.k_nearest(held, rows)[0][:, 0]).value)

    return {f"n{size}": np.array([score(size, seed) for seed in range(design.config.seeds)]) for size in sorted(sizes)}


def linear_distances(design: Design, run: Run, arm: Arm, count: int, draws: int) -> dict[str, np.ndarray]:
    """Distances among the network of an arm, its best linear map and its Gaussian, on held-out images.

    The map is made of ``count`` other held-out images, ``draws`` noisy versions of each. Arrays ``(L, held out)``.
    """
    images, sigmas, used = design.images.held, design.sigmas(arm)[:-1], design.config.held_out

    def compute() -> dict[str, np.ndarray]:
        denoiser, key = load(design, run.directory, arm), design.key("distillation")
        maps = training.distill_exactly(denoiser, images[used : used + count], sigmas, key, draws=draws).denoiser
        models: dict[str, Denoiser] = {"network": denoiser, "linear": maps, "gaussian": design.gaussian(arm)}
        apart = analysis.score_distances(models, images[:used], sigmas, design.key("distances"), inputs="held-out")
        pairs = (("linear", "gaussian"), ("network", "gaussian"), ("network", "linear"))
        return {f"{a}_{b}": apart.each_image(a, b) for a, b in pairs}

    return run.stage(f"linear/{arm.name}", compute)


def denoised(design: Design, run: Run, sizes: tuple[int, int]) -> Denoised:
    """Noisy held-out images denoised by a network and the Gaussian of the smallest and the largest training set."""
    arms = dict(zip(("few", "many"), (design.arm(size, 0) for size in sizes)))
    grid = design.sigmas(arms["few"])[:-1]
    sigma = float(grid[np.argmin(np.abs(grid - DENOISED_AT))])
    clean = design.images.held[: min(_MOST_SHOWN, design.config.held_out)]

    def compute() -> dict[str, np.ndarray]:
        noise = [initial_noise(design.key("denoised"), index, clean.shape[1:]) for index in range(len(clean))]
        noisy = (clean + sigma * np.stack([np.asarray(one) for one in noise])).astype(np.float32)
        models: dict[str, Denoiser] = {
            f"network_{name}": load(design, run.directory, arm) for name, arm in arms.items()
        }
        models |= {f"gaussian_{name}": design.gaussian(arm) for name, arm in arms.items()}
        levels = np.full(len(clean), sigma, np.float32)
        return {name: np.asarray(map_batch(model, noisy, levels)) for name, model in models.items()}

    return Denoised(sigma, {"held_out": clean, **run.stage("denoised", compute)})
