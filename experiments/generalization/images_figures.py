"""Figures of the part on real images."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from dgu import plots
from dgu.analysis import corrected_t_interval
from dgu.analysis.stats.estimates import Estimate
from experiments.generalization.images_networks import PAIRS
from experiments.generalization.images_options import Config


@dataclass(frozen=True)
class Found:
    """What was measured of the networks of all seeds.

    Attributes:
        clusters: ``sizes``, the two ``pairs``, their ``distances``, and how k-means ended.
        every: arrays of ``images_networks.train`` and ``evaluate`` with a leading axis of seeds.
        linear: (pairs, levels) loss of the best linear denoiser.
        real: (seeds, pairs, 16, H, W, C) training images of the first seeds, 8 of each cluster.
    """

    clusters: Mapping[str, np.ndarray]
    every: Mapping[str, np.ndarray]
    linear: np.ndarray
    real: np.ndarray

    @property
    def own(self) -> np.ndarray:
        """(seeds, pairs, levels) loss on the held-out images of the network's own pair."""
        return np.stack([self.every["held_out"][:, pair, pair] for pair in range(2)], axis=1)

    @property
    def cross(self) -> np.ndarray:
        """(seeds, pairs, levels) loss of each network on the held-out images of the other pair."""
        return np.stack([self.every["held_out"][:, pair, 1 - pair] for pair in range(2)], axis=1)

    @property
    def bits(self) -> np.ndarray:
        """(seeds, networks, pairs) mean bits per dimension."""
        return self.every["bits"].mean(axis=-1)


def over_seeds(config: Config, values: np.ndarray, bounds: tuple[float, float] = (-np.inf, np.inf)) -> Estimate:
    """Mean and 95 % interval over seeds: new networks on new splits of the same images."""
    return corrected_t_interval(values, config.train, config.held_out, bounds=bounds)


def training(config: Config, found: Found) -> Figure:
    """Training losses."""
    epochs = config.epochs * (np.arange(config.bins) + 0.5) / config.bins
    panel = plots.ArmPanel("Training", "epochs", "loss, summed over pixels", epochs, _arms(found.every["losses"]))
    return plots.arm_curves([panel], title=_title(config))


def levels(config: Config, found: Found) -> Figure:
    """Held-out losses at each noise level, also relative to the best linear denoiser, and the cross evaluation."""
    level, loss, x = "noise level, standardised pixels", "loss, summed over pixels", config.level_grid
    own, bounds = found.own, {arm: found.linear[place] for place, arm in enumerate(ARMS)}
    ratio, cross = _arms(own / found.linear[None]), _arms(found.cross)
    panels = [
        plots.ArmPanel("Own held-out images", level, loss, x, _arms(own), bounds, "best linear denoiser", log_x=True),
        plots.ArmPanel("Held out over best linear", level, "ratio", x, ratio, log_x=True, level=1.0),
        plots.ArmPanel("Cross evaluation: the other pair's", level, loss, x, cross, log_x=True),
    ]
    return plots.arm_curves(panels, title=_title(config))


def bits(config: Config, found: Found) -> Figure:
    """Bits per dimension, with intervals over seeds."""
    series = {}
    for name, other in (("own held-out images", False), ("cross: the other pair's images", True)):
        estimates = [over_seeds(config, found.bits[:, k, 1 - k if other else k]) for k in range(2)]
        series[name] = np.array([(each.value, each.low, each.high) for each in estimates])
    quantity = "bits per dimension, 8-bit pixels, 95 % interval over seeds"
    return plots.interval_dots([f"network of the {arm}" for arm in ARMS], series, quantity=quantity)


def samples(found: Found) -> Figure:
    """Training images of both clusters, and samples of the networks of the first seeds."""
    grid, names = [], []
    for k, arm in enumerate(PAIRS):
        for seed, real in enumerate(found.real):
            grid.append(np.concatenate([real[k], found.every["pictures"][seed, k]]))
            names.append(f"{arm}, seed {seed}")
    pictures = np.stack(grid)
    pictures = pictures if pictures.shape[-1] in (1, 3) else pictures[..., :1]
    blocks = ["training images, one cluster", "the other", "samples"]
    return plots.image_grid(pictures.astype(np.float32), names, blocks)


#: The networks in legends.
ARMS = tuple(f"{name} pair" for name in PAIRS)


def _arms(values: np.ndarray) -> dict[str, np.ndarray]:
    """The (seeds, pairs, ...) curves of each pair."""
    return {arm: values[:, place] for place, arm in enumerate(ARMS)}


def _title(config: Config) -> str:
    return f"{config.data}, {config.seeds} seeds"
