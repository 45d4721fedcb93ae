"""Real images: the options of the part, the images of the nearest and of the farthest pair of clusters, networks that
are trained on them, and what these do.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dgu import training
from dgu.analysis import PCAFeatures, cluster_pairs, extract_features, kmeans, level_losses, linear_level_loss
from dgu.core.errors import InputError, require
from dgu.core.keys import stream
from dgu.core.typing import Key
from dgu.data.scaling import PixelScale
from dgu.data.splits import class_splits, digests
from dgu.models import EDMNetwork, TutorialUNetConfig, VESDEPreconditioning, save_network
from dgu.models.weights import params_from_arrays, params_to_arrays
from dgu.samplers import dequantize, karras_sigmas, log_likelihoods, pixel_bits, sample
from dgu.training import TrainingConfig
from experiments import study
from experiments.generalization.subject import SDE
from experiments.study import Run, option
from experiments.study.options import renamed
from experiments.study.processes import is_lead
from experiments.study.progress import Progress
from experiments.subjects import load_images

#: The pairs of clusters, by name.
PAIRS = ("nearest", "farthest")
#: The earliest time that is sampled and integrated to, as in Song's tutorial: training seldom sees earlier ones.
T_MIN = 1e-3


@dataclass(frozen=True)
class Config(study.Options, prefix="images"):
    """Networks trained on real images, on the nearest and on the farthest pair of clusters."""

    data: str = "fashion-mnist"
    """Images: a data set known by name, such as fashion-mnist or mnist, an npz file, a folder of images, or an EDM
    zip."""
    split: str = "train"
    """Split of the images."""
    size: int | None = option(14, ge=1)
    """Side to which the images are reduced by averaging over areas; None keeps their size."""
    clusters: int = option(30, ge=2)
    """Clusters of k-means on the leading principal components of the standardised pixels."""
    components: int = option(100, ge=1)
    """Number of these components."""
    restarts: int = option(4, ge=1)
    """Random initialisations of k-means, of which the best is kept."""
    smallest: int = option(500, ge=0)
    """Clusters with fewer images are left aside: rare pixels, standardised, make clusters of a handful."""
    train: int = option(240, ge=1)
    """Training images from each cluster of a pair; equally many for both pairs."""
    held_out: int = option(120, ge=4)
    """Held-out images from each cluster of a pair."""
    shifts: int = option(8, ge=1)
    """Copies of the training images, each with its own uniform dequantisation."""
    channels: tuple[int, ...] = option((32, 64, 128), ge=1)
    """Channels of the U-Net's levels, the finest first."""
    epochs: int = option(160, ge=1)
    """Passes over the training images, a multiple of --images.bins."""
    bins: int = option(20, ge=1)
    """Points of the curve of the training loss."""
    batch_size: int = option(32, ge=1)
    """Images in each training step."""
    rate: float = option(8e-4, gt=0.0)
    """Learning rate of Adam."""
    seeds: int = option(3, ge=2)
    """Networks for each pair, each with its own split of the clusters' images."""
    levels: int = option(8, ge=1)
    """Noise levels at which losses are compared, equally far apart in time."""
    draws: int = option(4, ge=1)
    """Draws of the noise for each image and level."""
    likelihoods: int = option(16, ge=4)
    """Held-out images of each pair and seed whose likelihood is computed; at most twice
    --images.held-out."""
    probes: int = option(4, ge=2)
    """Random vectors that estimate the trace in each likelihood."""
    tolerance: float = option(1e-2, gt=0.0)
    """Relative and absolute tolerance of the likelihood's integration, the latter in nats."""
    samples: int = option(200, ge=16)
    """Samples of each network."""
    steps: int = option(32, ge=2)
    """Heun steps of a sample."""

    def check(self) -> None:
        name = self.name
        require(self.epochs % self.bins == 0, name("epochs"), self.epochs, f"a multiple of images.bins = {self.bins}")
        steps = 2 * self.train * self.epochs // self.batch_size
        require(steps >= self.bins, name("bins"), self.bins, f"at most {steps}, the number of steps")
        few = self.likelihoods <= 2 * self.held_out
        require(few, name("likelihoods"), self.likelihoods, f"at most 2 images.held_out = {2 * self.held_out}")
        if self.size is not None:
            with renamed("images", channels="channels", img_resolution="size"):
                self.unet(self.size, 1)

    def unet(self, side: int, channels: int) -> TutorialUNetConfig:
        """The architecture for square images of this size."""
        return TutorialUNetConfig(side, channels, channels, channels=self.channels)

    def network(self, shape: tuple[int, ...]) -> EDMNetwork:
        """The score network for images of this shape, (H, W, C): that of Song's tutorial."""
        return EDMNetwork(self.unet(shape[0], shape[-1]), VESDEPreconditioning())

    def optimisation(self, seed: int) -> TrainingConfig:
        """The paper's: Adam at a constant rate, loss (5) with lambda = std^2; parameters are averaged as ever here."""
        seen = 2 * self.train * self.epochs
        return TrainingConfig(
            duration_kimg=seen / 1000,
            batch_size=self.batch_size,
            learning_rate=self.rate,
            rampup_kimg=0.0,
            loss="vesde",
            ema_halflife_kimg=seen / 1000,
            seed=seed,
        )

    @property
    def level_grid(self) -> np.ndarray:
        """Noise levels at the middles of equal parts of time (0, T): a mean over them is one over training's times."""
        times = (np.arange(self.levels) + 0.5) / self.levels
        return np.asarray(SDE.std(times), np.float64)

    @property
    def level_names(self) -> list[str]:
        """The noise levels in as few digits, two or more, as tell them apart."""
        for digits in range(2, 17):
            names = [f"{level:.{digits}g}" for level in self.level_grid]
            if len(set(names)) == len(names):
                break
        return names

    @property
    def late_bins(self) -> list[float]:
        """Epochs at which the parts of the training end, without its first twentieth."""
        epochs = self.epochs * (np.arange(self.bins) + 1) / self.bins
        return [float(one) for one in epochs if one > self.epochs / 20] or [float(epochs[-1])]


PRESETS = {
    "smoke": Config(
        data="fashion-mnist-mini",
        split="test",
        size=7,
        clusters=4,
        components=10,
        restarts=2,
        smallest=60,
        train=24,
        held_out=16,
        shifts=1,
        channels=(8,),
        epochs=2,
        bins=2,
        batch_size=8,
        seeds=2,
        levels=2,
        draws=1,
        likelihoods=4,
        probes=2,
        tolerance=0.1,
        samples=16,
        steps=2,
    ),
    "default": Config(),
    "paper": Config(
        data="mnist",
        size=None,
        channels=(32, 64, 128, 256),
        epochs=1000,
        seeds=10,
        levels=20,
        likelihoods=128,
        probes=16,
        tolerance=1e-3,
        samples=1000,
        steps=64,
        restarts=10,
    ),
}


@dataclass(frozen=True)
class Pool:
    """All images, and the scale that standardises their pixels.

    Attributes:
        images: (n, H, W, C) float32 in [-1, 1], at 8-bit levels, without copies.
        scale: mean and deviation of each pixel.
    """

    images: np.ndarray
    scale: PixelScale


def load(config: Config) -> Pool:
    """The images that the options name; ``InputError`` where they are unfit."""
    images = load_images("images.data", config.data, config.split, config.size).images
    _, height, width, channels = images.shape
    require(height == width, "images.data", config.data, f"square images, not {height} x {width}")
    config.unet(height, channels)
    levels = np.round((images + 1) * np.float32(127.5)) / np.float32(127.5) - 1
    _, first = np.unique(digests(levels), return_index=True)
    pool = levels[np.sort(first)]
    most = min(len(pool) - 1, pool[0].size)
    components, clusters = config.components, config.clusters
    require(components <= most, "images.components", components, f"at most {most} for these images")
    require(clusters <= len(pool), "images.clusters", clusters, f"at most {len(pool)}, the number of images")
    return Pool(pool, PixelScale.fit(pool))


def planned(config: Config) -> np.ndarray:
    """The images of a dry run: those that the options name, or blank ones where a known set is not here."""
    try:
        return load(config).images
    except InputError:
        if config.data not in ("mnist", "fashion-mnist"):
            raise
    side = config.size or 28
    return np.broadcast_to(np.float32(0), (60_000, side, side, 1))


def find_clusters(config: Config, pool: Pool, key: Key) -> dict[str, np.ndarray]:
    """Clusters of the images, and the ``pairs`` of them that are nearest and farthest."""
    scaled = pool.scale.apply(pool.images)
    with Progress("clusters", 1, "data sets") as bar:
        features = extract_features(scaled, PCAFeatures.fit(scaled, config.components))
        found = kmeans(features, config.clusters, stream(key, "clusters"), restarts=config.restarts)
        bar.update()
    pairs = cluster_pairs(found.centres, found.labels, config.train + config.held_out, smallest=config.smallest)
    return {
        "labels": found.labels.astype(np.int32),
        "sizes": found.sizes,
        "pairs": np.array([pair.clusters for pair in pairs]),
        "distances": np.array([pair.distance for pair in pairs]),
        **{name: np.asarray(getattr(found, name)) for name in ("inertia", "converged", "reseeded")},
    }


def linear_losses(config: Config, pool: Pool, clusters: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """``loss`` (pairs, levels) of the best linear denoiser for each pair: two clusters of equal weight, all their
    images, dequantised.
    """
    cell = np.square(2 / 255 / pool.scale.std.astype(np.float64).ravel()) / 12
    losses = []
    for pair in clusters["pairs"]:
        parts = [pool.scale.apply(pool.images[clusters["labels"] == cluster]) for cluster in pair]
        flat = [part.reshape(len(part), -1).astype(np.float64) for part in parts]
        apart = flat[0].mean(axis=0) - flat[1].mean(axis=0)
        within = sum(np.cov(part.T, ddof=0) for part in flat) / 2
        losses.append(linear_level_loss(within + np.outer(apart, apart) / 4 + np.diag(cell), config.level_grid))
    return {"loss": np.stack(losses)}


@dataclass(frozen=True)
class Split:
    """Images of a pair as its network sees them, standardised and dequantised: (n, H, W, C).

    Attributes:
        train: all copies of the training images.
        first: one copy of them, the first cluster's before the second's.
        held_out: the held-out images.
    """

    train: np.ndarray
    first: np.ndarray
    held_out: np.ndarray


def split_pair(
    config: Config, pool: Pool, clusters: Mapping[str, np.ndarray], *, run: Run, pair: int, seed: int
) -> Split:
    """Training and held-out images of a pair of clusters, for one seed of its network."""
    sizes = {"train": config.train, "held_out": config.held_out}
    rows: dict[str, list[np.ndarray]] = {name: [] for name in sizes}
    for cluster in clusters["pairs"][pair]:
        members = np.flatnonzero(clusters["labels"] == cluster)
        # By the cluster's number: a cluster in both pairs has the same held-out images in both.
        parts = class_splits(len(members), sizes, run.seed, seed, int(cluster))
        for name in sizes:
            rows[name].append(members[parts[name]])
    key = stream(run.key, "shifts", seed)

    def shifted(name: str, copy: int) -> np.ndarray:
        images = pool.images[np.concatenate(rows[name])]
        return pool.scale.apply(np.asarray(dequantize(jnp.asarray(images), stream(key, name, pair, copy))))

    copies = [shifted("train", copy) for copy in range(config.shifts)]
    return Split(np.concatenate(copies), copies[0], shifted("held_out", 0))


def train(
    config: Config, run: Run, sets: Sequence[Split], *, seed: int, progress: Callable[[int], object]
) -> dict[str, np.ndarray]:
    """One network for each pair, also written to ``networks/``: their parameters and ``losses`` (pairs, bins)."""
    images = [one.train for one in sets]
    network = config.network(images[0].shape[1:])
    folder = run.directory.path / "checkpoints" / f"images-{seed}"
    optimisation = config.optimisation(run.seed + seed)
    params, losses = training.train_side_by_side(network, images, optimisation, config.bins, folder, progress)
    found: dict[str, np.ndarray] = {"losses": losses * images[0][0].size}
    for name, own in zip(PAIRS, params):
        if is_lead():
            file = run.directory.path / "networks" / f"{name}-{seed}.npz"
            save_network(file, network, own, {"pair": name, "seed": seed})
        found |= {f"{name}.{leaf}": array for leaf, array in params_to_arrays(own).items()}
    return found


def _denoiser(network: EDMNetwork, trained: Mapping[str, np.ndarray], name: str) -> Any:
    """The network of a pair among those that ``train`` returned."""
    own = {leaf.removeprefix(f"{name}."): array for leaf, array in trained.items() if leaf.startswith(f"{name}.")}
    return network.denoiser(params_from_arrays(network, own))


def evaluate(
    config: Config, run: Run, trained: Mapping[str, np.ndarray], sets: Sequence[Split], *, seed: int, scale: PixelScale
) -> dict[str, np.ndarray]:
    """Losses at each level, bits per dimension and samples: ``[i, j]`` is network i on the images of pair j."""
    network, key = config.network(sets[0].first.shape[1:]), stream(run.key, "judge", seed)
    denoisers = [_denoiser(network, trained, name) for name in PAIRS]
    limits = float(SDE.std(T_MIN)), float(SDE.std(SDE.t_max))
    losses = partial(level_losses, sigmas=config.level_grid, draws=config.draws)
    with Progress(f"evaluating networks of seed {seed}", 4 * len(PAIRS), "evaluations") as bar:
        # On all devices at once; they are collected last.
        densities = _log_densities(config, key, denoisers, sets, limits)
        held, errors = [], []
        for denoiser in denoisers:
            for j, images in enumerate(sets):
                # The same noise for both networks.
                each = losses(denoiser, images.held_out, stream(key, "noise", j))
                held.append(each.mean(axis=0))
                errors.append(each.mean(axis=1).std(ddof=1) / np.sqrt(len(each)))
                bar.update()
        own = [
            losses(denoiser, images.first, stream(key, "train", j)).mean(axis=0)
            for j, (denoiser, images) in enumerate(zip(denoisers, sets))
        ]
        sigmas, indices = karras_sigmas(config.steps, *limits), np.arange(config.samples)
        drawn = [
            sample(denoiser, stream(key, "samples"), indices, sigmas, shape=network.shape, batch_size=50)
            for denoiser in denoisers
        ]
        bits, spread = [], []
        for log_density, error in densities:
            found = pixel_bits(np.asarray(log_density, np.float64), scale)
            require(bool(np.isfinite(found).all()), "images.tolerance", config.tolerance, "large enough to be reached")
            bits.append(found)
            spread.append(np.asarray(error, np.float64))
            bar.update()
    return {
        "held_out": np.stack(held).reshape(2, 2, -1),
        "held_out_error": np.array(errors).reshape(2, 2),
        "train": np.stack(own),
        "bits": np.stack(bits).reshape(2, 2, -1),
        "probe_error": np.stack(spread).reshape(2, 2, -1),
        "shares": np.array([_share_of_first(images, one, config.train) for images, one in zip(sets, drawn)]),
        "pictures": np.stack([scale.invert(one[:8]) for one in drawn]),
    }


def _log_densities(
    config: Config, key: Key, denoisers: Sequence[Any], sets: Sequence[Split], limits: tuple[float, float]
) -> list[tuple[jax.Array, jax.Array]]:
    """Of selected held-out images of every pair under every network, the pairs of a network next to each other."""
    devices = jax.local_devices()
    chosen = np.linspace(0, 2 * config.held_out - 1, config.likelihoods).round().astype(int)
    found = []
    for i, denoiser in enumerate(denoisers):
        for j, images in enumerate(sets):
            own, rows = jax.device_put((denoiser, images.held_out[chosen]), devices[(2 * i + j) % len(devices)])
            found.append(
                log_likelihoods(
                    own,
                    rows,
                    stream(key, "probes", j),
                    sigma_min=limits[0],
                    sigma_max=limits[1],
                    probes=config.probes,
                    rtol=config.tolerance,
                    atol=config.tolerance,
                )
            )
    return found


def _share_of_first(images: Split, drawn: np.ndarray, n: int) -> float:
    """Share of the samples that are nearer to the mean of the first cluster's n training images."""
    middles = [images.first[:n].mean(axis=0), images.first[n:].mean(axis=0)]
    squared = [np.square(drawn - middle).sum(axis=(1, 2, 3)) for middle in middles]
    return float(np.mean(squared[0] < squared[1]))
