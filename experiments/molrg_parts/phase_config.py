"""Options of the phase transitions of subspace recovery."""

from dataclasses import dataclass
from itertools import pairwise

from dgu.core.errors import require
from experiments.study.options import check_options


@dataclass(frozen=True)
class Config:
    """Recovery of the subspaces from N points on each: PCA, K-subspaces and SGD on the denoising loss, all ranks and sizes."""

    dimension: int = 48
    """Dimension n of the space."""
    ranks: tuple[int, ...] = (2, 3, 4, 5, 6, 7, 8)
    """Ranks d: three or more consecutive numbers, each 2 or more."""
    sizes: tuple[int, ...] = (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
    """Points N on each subspace: consecutive numbers, from the smallest rank or below to 3 or more above the largest."""
    trials: int = 20
    """Trials in each cell of rank and size, for PCA and K-subspaces."""
    bound_trials: int = 200
    """Trials in each cell for the bounds on the error."""
    noise: float = 0.01
    """Standard deviation of the noise on each coordinate, where there is noise."""
    threshold: float = 0.1
    """Smallest cosine between two points that the spectral start of K-subspaces joins, where there is noise."""
    clean_threshold: float = 0.001
    """The same without noise, where points of different subspaces are orthogonal to rounding."""
    sgd_trials: int = 12
    """Trials in each cell for SGD: with none found in the 72 of six cells, the share is below .05."""
    steps: int = 5000
    """Steps of SGD."""
    batch: int = 128
    """Examples in a step."""
    rate: float = 0.1
    """Learning rate, of the mean loss of a batch."""
    times: int = 64
    """Times of the variance-preserving process in (0, 1]."""
    start: float = 0.2
    """Standard deviation of each entry by which SGD's starts miss the truth, for more than one subspace."""
    samples: int = 1000
    """Samples of a mixture drawn by the sampler from its exact posterior mean."""

    def __post_init__(self) -> None:
        check_options(
            self, "phase", dimension=6, ranks=2, sizes=1, trials=1, bound_trials=10, noise="(0, inf)", threshold="(0, 1)",
            clean_threshold="(0, 1)", sgd_trials=1, steps=1, batch=1, rate="(0, inf)", times=1, start="(0, inf)", samples=50,
        )  # fmt: skip
        for name in ("ranks", "sizes"):
            values = getattr(self, name)
            require(
                bool(values) and all(b == a + 1 for a, b in pairwise(values)),
                f"phase.{name}",
                values,
                "consecutive",
            )
        require(len(self.ranks) >= 3, "phase.ranks", self.ranks, "three or more, each 2 or more")
        reach = self.sizes[0] <= self.ranks[0] and self.sizes[-1] >= self.ranks[-1] + 3
        require(
            reach,
            "phase.sizes",
            self.sizes,
            f"from at most {self.ranks[0]} to at least {self.ranks[-1] + 3}",
        )
        fits = 3 * self.ranks[-1] <= self.dimension
        require(fits, "phase.dimension", self.dimension, f"at least {3 * self.ranks[-1]}, for three subspaces")


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
