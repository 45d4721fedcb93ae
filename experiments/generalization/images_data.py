"""Images of the nearest and of the farthest pair of clusters, split into training and held-out images."""

from collections.abc import Mapping
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from dgu.analysis import PCAFeatures, cluster_pairs, extract_features, kmeans, linear_level_loss
from dgu.core.errors import require
from dgu.core.keys import stream
from dgu.core.typing import Key
from dgu.data.scaling import PixelScale
from dgu.data.splits import class_splits, digests
from dgu.samplers import dequantize
from experiments.generalization.images_options import Config
from experiments.study import Run
from experiments.study.progress import Progress
from experiments.subjects import load_images


@dataclass(frozen=True)
class Pool:
    """All images, and the scale that standardises their pixels.

    Attributes:
        images: (n, H, W, C) float32 in [-1, 1], at 8-bit levels, without copies.
        scale: mean and deviation of each pixel.
    """

    images: np.ndarray
    scale: PixelScale

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return self.images.shape[1:]


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
        "inertia": np.asarray(found.inertia),
        "converged": np.asarray(found.converged),
        "reseeded": np.asarray(found.reseeded),
    }


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


def linear_losses(config: Config, pool: Pool, clusters: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """``loss`` (pairs, levels) of the best linear denoiser for each pair of clusters."""
    return {"loss": np.stack([linear_loss(config, pool, clusters, pair) for pair in range(2)])}


def linear_loss(config: Config, pool: Pool, clusters: Mapping[str, np.ndarray], pair: int) -> np.ndarray:
    """The loss of the best linear denoiser for a pair: two clusters of equal weight, all their images, dequantised."""
    parts = [pool.scale.apply(pool.images[clusters["labels"] == cluster]) for cluster in clusters["pairs"][pair]]
    flat = [part.reshape(len(part), -1).astype(np.float64) for part in parts]
    apart = flat[0].mean(axis=0) - flat[1].mean(axis=0)
    within = sum(np.cov(part.T, ddof=0) for part in flat) / 2
    cell = np.square(2 / 255 / pool.scale.std.astype(np.float64).ravel()) / 12
    return linear_level_loss(within + np.outer(apart, apart) / 4 + np.diag(cell), config.level_grid)
