"""U-Nets trained on real images: their scores for several numbers of these, and the intrinsic dimension."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from dgu import analysis
from dgu.analysis.quality.descriptors import SSCD
from dgu.core.errors import InputError, require
from dgu.core.keys import stream
from dgu.models import EDMNetwork
from dgu.samplers import karras_sigmas
from experiments.molrg_parts.networks_config import Config, UNetConfig
from experiments.molrg_parts.training import sampled, score, small_unet, train_unet, training_for
from experiments.study.pool import load_images
from experiments.study.progress import Progress
from experiments.study.run_directory import RunDirectory

_CHANNEL_MULT = (1, 2)


def real_unet(config: UNetConfig, shape: tuple[int, int, int]) -> EDMNetwork:
    """The U-Net for real images of ``shape`` (H, W, C), square."""
    return small_unet(shape, config.real_channels, _CHANNEL_MULT, 1)


def real_images(config: Config) -> tuple[np.ndarray, np.ndarray, Callable | None] | None:
    """Training images, held-out ones and the descriptor, or None; whatever can be refused is refused here."""
    unet = config.unet
    if unet.real is None:
        return None
    try:
        found = load_images("networks.unet.real", unet.real, "train", unet.real_size)
    except InputError as error:
        if "split = 'train'" not in str(error):
            raise
        found = load_images("networks.unet.real", unet.real, "test", unet.real_size)
    most, there = unet.real_counts[-1] + unet.real_heldout, len(found.images)
    wanted = f"{most}: the largest of real_counts and real_heldout"
    require(there >= most, f"networks.unet.real = {unet.real!r}: images", there, wanted)
    order = np.random.default_rng(0).permutation(there)
    training, held = found.images[order[: unet.real_counts[-1]]], found.images[order[-unet.real_heldout :]]
    side = training.shape[1]
    fits = side == training.shape[2] and side % len(_CHANNEL_MULT) == 0
    require(fits, "networks.unet.real_size", side, "square images of even size")
    features: Callable | None = None
    if unet.descriptor == "pca":
        features = analysis.PCAFeatures.fit(held, unet.components)
    if unet.descriptor == "sscd":
        allowed = "identity or pca for images that are not in colour"
        require(training.shape[3] == 3, "networks.unet.descriptor", "sscd", allowed)
        features = SSCD(str(unet.sscd))
    return training, held, features


def real_curve(config: Config, real: tuple, directory: RunDirectory, key: Any) -> dict[str, Any]:
    """A U-Net for each number of real images; the intrinsic dimension is the least numerical rank of the last one's Jacobian."""
    unet, (training, held, features) = config.unet, real
    network = real_unet(unet, training.shape[1:])
    optimisation = training_for(unet.real_steps, unet.batch_size, unet.learning_rate)

    def one(count: int) -> dict[str, Any]:
        own = stream(key, "real", count)
        with Progress(f"U-Net, {count} images", total=unet.real_steps, unit="updates") as bar:
            params, loss = train_unet(network, training[:count], optimisation, bar.update)
        denoiser = network.denoiser(params)
        images = sampled(denoiser, own, config.samples, config.sampler_steps, min(100, config.samples))
        padded = np.resize(training[:count], training.shape)
        found = score(images, padded, held, config.level, features) | {"loss": loss}
        if count == unet.real_counts[-1]:
            found["dimension"] = _dimension(denoiser, held, own)
        return found

    found = [directory.stage(f"networks/real-{count}", partial(one, count)) for count in unet.real_counts]
    dimension = float(found[-1]["dimension"])
    gl = np.array([float(each["gl"]) for each in found])
    rows = [
        (count, count / dimension, *(each[name] for name in ("gl", "threshold", "loss")))
        for count, each in zip(unet.real_counts, found)
    ]
    return {"gl": gl, "dimension": dimension, "rows": rows}


def _dimension(denoiser: Any, held: np.ndarray, key: Any) -> float:
    """Least mean numerical rank over noise levels, at noisy held-out images."""
    clean = held[:4]
    levels = karras_sigmas(10)[:-2]
    ranks = []
    for place, level in enumerate(levels):
        noise = np.asarray(jax.random.normal(stream(key, "noise", place), clean.shape), np.float32)
        points = clean + np.float32(level) * noise
        method = "dense" if clean[0].size <= 1024 else "products"
        found = analysis.jacobian_ranks(denoiser, points, np.float32(level), method=method, key=key, batch_size=4)
        ranks.append(float(found.rank.mean()))
    return min(ranks)
