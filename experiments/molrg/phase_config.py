"""Options of the phase transitions of subspace recovery."""

from dataclasses import dataclass
from itertools import pairwise

from dgu.core.errors import require
from experiments.study import Options, option


@dataclass(frozen=True)
class Config(Options, prefix="phase"):
    """Recovery of the subspaces from N points on each, for every rank and size: PCA, K-subspaces and SGD on the
    denoising loss."""

    dimension: int = option(48, ge=6)
    """Dimension n of the space."""
    ranks: tuple[int, ...] = option((2, 3, 4, 5, 6, 7, 8), ge=2)
    """Ranks d: three or more consecutive numbers, each 2 or more."""
    sizes: tuple[int, ...] = option((2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), ge=1)
    """Points N on each subspace: consecutive numbers, from the smallest rank or below to 3 or more above the
    largest."""
    trials: int = option(20, ge=1)
    """Trials in each cell of rank and size, for PCA and K-subspaces."""
    bound_trials: int = option(200, ge=10)
    """Trials in each cell for the bounds on the error."""
    noise: float = option(0.01, gt=0.0)
    """Standard deviation of the noise on each coordinate, in the arms with noise."""
    threshold: float = option(0.1, gt=0.0, lt=1.0)
    """Smallest cosine between two points that the spectral start of K-subspaces joins, in the arms with noise."""
    clean_threshold: float = option(0.001, gt=0.0, lt=1.0)
    """The same without noise, where points of different subspaces are orthogonal up to rounding."""
    sgd_trials: int = option(12, ge=1)
    """Trials in each cell for SGD: with no success in the 72 trials of six cells, the share of successes is below
    .05."""
    steps: int = option(5000, ge=1)
    """Steps of SGD."""
    batch: int = option(128, ge=1)
    """Examples in each step."""
    rate: float = option(0.1, gt=0.0)
    """Learning rate, for the mean loss of a batch."""
    times: int = option(64, ge=1)
    """Times of the variance-preserving process in (0, 1]."""
    start: float = option(0.2, gt=0.0)
    """Standard deviation of each entry of the difference between SGD's initial columns and the true ones, for two or
    more subspaces."""
    samples: int = option(1000, ge=50)
    """Samples of a mixture, drawn by the sampler with its exact posterior mean."""

    def check(self) -> None:
        """Ranks and sizes cover the transition, and three subspaces fit into the space."""
        for name in ("ranks", "sizes"):
            values = getattr(self, name)
            consecutive = bool(values) and all(b == a + 1 for a, b in pairwise(values))
            require(consecutive, self.name(name), values, "consecutive")
        require(len(self.ranks) >= 3, "phase.ranks", self.ranks, "three or more, each 2 or more")
        low, high = self.ranks[0], self.ranks[-1] + 3
        reach = self.sizes[0] <= low and self.sizes[-1] >= high
        require(reach, "phase.sizes", self.sizes, f"from at most {low} to at least {high}")
        most = 3 * self.ranks[-1]
        require(most <= self.dimension, "phase.dimension", self.dimension, f"at least {most}, for three subspaces")


PRESETS = {
    "smoke": Config(
        dimension=24,
        ranks=(2, 3, 4),
        sizes=(2, 3, 4, 5, 6, 7),
        trials=2,
        bound_trials=10,
        sgd_trials=1,
        steps=50,
        samples=50,
    ),
    "default": Config(),
    "paper": Config(trials=100, bound_trials=1000, sgd_trials=20, samples=5000),
}
