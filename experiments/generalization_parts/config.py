"""Options of the study of generalisation in training time."""

import itertools
from dataclasses import dataclass, field

from dgu.core.errors import require
from experiments.generalization_parts.images_config import ImagesConfig
from experiments.study.options import check_options

#: The parts, in their order; the last is left out unless asked for.
EVERY = ("stopping", "shift", "capacity", "flow", "boxes", "three_ways", "images")


@dataclass(frozen=True)
class Config:
    """The study of generalisation in training time."""

    parts: tuple[str, ...] = EVERY[:-1]
    """Parts to make: stopping, shift, capacity, flow, boxes, three_ways; and images, which takes minutes more (--dry-run says how
    many)."""

    epochs: int = 2000
    """Epochs of the basic study at the largest of sizes; smaller sets are trained for as many steps."""
    evaluations: int = 20
    """Measurements of the KL over training, beside the one at the start; a divisor of epochs."""
    seeds: int = 20
    """Seeds of the basic study, 4 or more."""
    sizes: tuple[int, ...] = (100, 300, 1000)
    """Training examples of the basic study, rising."""
    width: int = 16
    """Hidden units."""
    divisor: float = 16.0
    """Divisor of the network's output."""
    sgd_rate: float = 0.5
    """Learning rate of SGD."""
    adam_rate: float = 1e-3
    """Learning rate of Adam."""
    batch_size: int = 32
    """Examples a step."""
    chunk_size: int = 10
    """Runs in one compiled program."""
    t_eps: float = 0.065
    """Time at which the KL integrates the score, strictly between 0 and 1."""
    points: int = 51
    """Points of the grid of the KL, for modes at +-3."""
    shift_points: int = 151
    """The same for other targets."""
    modes: tuple[float, ...] = (1.0, 2.0, 3.0, 5.0, 8.0, 11.0, 15.0)
    """Places mu of the modes at +-mu, rising; the distance is twice that. 3 and the last are compared."""
    shift_seeds: int = 10
    """Seeds of each distance, 4 or more."""
    widths: tuple[int, ...] = (2, 4, 8, 16, 32, 64, 128, 256)
    """Hidden units of the capacity study, rising."""
    capacity_seeds: int = 6
    """Seeds of each width, 2 or more."""
    capacity_epochs: int = 1000
    """Epochs of the capacity study; runs that never reach KL 0.1 are censored there."""
    remark_epochs: int = 1000
    """Epochs of the studies of scaled inputs and of mode widths."""
    remark_seeds: int = 10
    """Seeds of each of these, 2 or more."""
    mode_widths: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    """Standard deviations of the modes at the largest distance, rising."""
    input_scales: tuple[float, ...] = (1.0, 0.2)
    """Factors that inputs are scaled by at the largest distance; the first and the last are compared."""
    box_dimensions: tuple[int, ...] = (1, 2, 4, 8)
    """Dimensions of the compact targets."""
    box_seeds: int = 5
    """Seeds of each dimension, 2 or more."""
    box_epochs: int = 300
    """Epochs of the compact targets (Adam)."""
    box_width: int = 64
    """Hidden units for the compact targets."""
    box_examples: int = 200
    """Fresh examples of each compact target whose likelihood is computed, 20 or more."""
    flow_sizes: tuple[int, ...] = (10, 30, 100, 1000)
    """Training examples of the random-feature flow, rising."""
    flow_features: int = 256
    """Random features."""
    flow_seeds: int = 10
    """Seeds of each size, 2 or more."""
    divergence_examples: int = 1000
    """Fresh examples, and samples, of the three estimates of the KL; 100 or more."""
    divergence_networks: int = 3
    """Trained networks that the three estimates are compared on, 2 or more; at most seeds."""
    images: ImagesConfig = field(default_factory=ImagesConfig)
    seed: int = 0
    """Seed of everything."""

    def __post_init__(self) -> None:
        check_options(
            self, epochs=1, evaluations=1, seeds=4, sizes=1, width=1, divisor="(0, inf)", sgd_rate="(0, inf)", adam_rate="(0, inf)",
            batch_size=1, chunk_size=1, points=3, shift_points=3, modes="(0, inf)", shift_seeds=4, widths=1,
            capacity_seeds=2, capacity_epochs=1, remark_epochs=1, remark_seeds=2, mode_widths="(0, inf)", input_scales="(0, inf)",
            box_dimensions=1, box_seeds=2, box_epochs=1, box_width=1, box_examples=20, flow_sizes=1, flow_features=1, flow_seeds=2,
            divergence_examples=100, divergence_networks=2, seed=0,
        )  # fmt: skip
        known = len(self.parts) > 0 and set(self.parts) <= set(EVERY)
        require(known, "parts", self.parts, f"one or more of {', '.join(EVERY)}")
        for name in ("epochs", "capacity_epochs", "remark_epochs"):
            value = getattr(self, name)
            require(value % self.evaluations == 0, name, value, f"a multiple of evaluations = {self.evaluations}")  # fmt: skip
        for name in ("sizes", "modes", "widths", "mode_widths", "box_dimensions", "flow_sizes"):
            values = getattr(self, name)
            rising = len(values) >= 1 and all(a < b for a, b in itertools.pairwise(values))
            require(rising, name, values, "positive and rising")
        require(len(self.modes) >= 2 and 3.0 in self.modes[:-1], "modes", self.modes, "3 and a larger one among them")
        for name in ("widths", "mode_widths", "box_dimensions", "flow_sizes"):
            require(len(getattr(self, name)) >= 2, name, getattr(self, name), "two or more")
        scales = self.input_scales
        require(0 < self.t_eps < 1, "t_eps", self.t_eps, "strictly between 0 and T = 1")
        require(len(scales) >= 2, "input_scales", scales, "two or more positive numbers")
        few = self.divergence_networks <= self.seeds
        require(few, "divergence_networks", self.divergence_networks, f"at most seeds = {self.seeds}")

    def rate(self, optimizer: str) -> float:
        """Learning rate of an optimiser."""
        return self.sgd_rate if optimizer == "sgd" else self.adam_rate
