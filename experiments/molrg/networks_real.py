"""U-Nets trained on real images: their scores for several numbers of these, and the intrinsic dimension."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from dgu import analysis
from dgu.analysis.quality.descriptors import SSCD
from dgu.core.errors import InputError, require
from dgu.core.keys import stream
from dgu.core.typing import Key
from dgu.models import EDMNetwork
from dgu.samplers import karras_sigmas
from experiments.molrg.networks_config import Config, UNetConfig
from experiments.molrg.training import Features, sampled, score, small_unet, train_unet, training_for
from experiments.study import Run
from experiments.study.progress import Progress
from experiments.subjects import load_images

_CHANNEL_MULT = (1, 2)


@dataclass(frozen=True)
class RealImages:
    """Training images and held-out ones, (n, H, W, C), and the features by which they are compared (None: pixels)."""

    training: np.ndarray
    held_out: np.ndarray
    features: Features | None


@dataclass(frozen=True)
class RealCurve:
    """Scores of U-Nets by the number of training images, and the intrinsic dimension that the last one sees."""

    counts: tuple[int, ...]
    gl: np.ndarray
    threshold: np.ndarray
    loss: np.ndarray
    dimension: float


def real_unet(config: UNetConfig, shape: tuple[int, int, int]) -> EDMNetwork:
    """The U-Net for real images of ``shape`` (H, W, C), square."""
    return small_unet(shape, config.real_channels, _CHANNEL_MULT, 1)


def real_images(config: Config) -> RealImages | None:
    """The real images, or None; whatever cannot be used is refused here."""
    unet = config.unet
    if unet.real is None:
        return None
    try:
        found = load_images("networks.unet.real", unet.real, "train", unet.real_size)
    except InputError as error:
        if "split = 'train'" not in str(error):
            raise
        found = load_images("networks.unet.real", unet.real, "test", unet.real_size)
    most, available = unet.real_counts[-1] + unet.real_heldout, len(found.images)
    wanted = f"{most}: the largest of real_counts and real_heldout"
    require(available >= most, f"networks.unet.real = {unet.real!r}: images", available, wanted)
    order = np.random.default_rng(0).permutation(available)
    training, held = found.images[order[: unet.real_counts[-1]]], found.images[order[-unet.real_heldout :]]
    side = training.shape[1]
    fits = side == training.shape[2] and side % len(_CHANNEL_MULT) == 0
    require(fits, "networks.unet.real_size", side, "square images of even size")
    features: Features | None = None
    if unet.descriptor == "pca":
        features = analysis.PCAFeatures.fit(held, unet.components)
    if unet.descriptor == "sscd":
        allowed = "identity or pca for images that are not in colour"
        require(training.shape[3] == 3, "networks.unet.descriptor", "sscd", allowed)
        features = SSCD(str(unet.sscd))
    return RealImages(training, held, features)


def real_curve(config: Config, real: RealImages, run: Run) -> RealCurve:
    """A U-Net for each number of real images, a stage each."""
    counts = config.unet.real_counts
    found = [run.stage(f"real-{count}", trained_on_real, config, real, count, run.key) for count in counts]
    scores = {name: np.array([float(each[name]) for each in found]) for name in ("gl", "threshold", "loss")}
    return RealCurve(counts, **scores, dimension=float(found[-1]["dimension"]))


def trained_on_real(config: Config, real: RealImages, count: int, key: Key) -> dict[str, float]:
    """One U-Net's score, threshold and loss; of the last one the least numerical rank of its Jacobian, too."""
    unet, training = config.unet, real.training[:count]
    network = real_unet(unet, real.training.shape[1:])
    optimisation = training_for(unet.real_steps, unet.batch_size, unet.learning_rate)
    own = stream(key, "real", count)
    with Progress(f"U-Net, {count} images", total=unet.real_steps, unit="updates") as bar:
        params, loss = train_unet(network, training, optimisation, bar.update)
    denoiser = network.denoiser(params)
    images = sampled(denoiser, own, config.samples, config.sampler_steps, min(100, config.samples))
    padded = np.resize(training, real.training.shape)  # One shape, the same neighbours.
    found = score(images, padded, real.held_out, config.level, real.features) | {"loss": loss}
    if count == unet.real_counts[-1]:
        found["dimension"] = _dimension(denoiser, real.held_out, own)
    return found


def _dimension(denoiser: Any, held_out: np.ndarray, key: Key) -> float:
    """Least mean numerical rank over noise levels, at noisy held-out images."""
    clean = held_out[:4]
    levels = karras_sigmas(10)[:-2]
    ranks = []
    for place, level in enumerate(levels):
        noise = np.asarray(jax.random.normal(stream(key, "noise", place), clean.shape), np.float32)
        points = clean + np.float32(level) * noise
        method = "dense" if clean[0].size <= 1024 else "products"
        found = analysis.jacobian_ranks(denoiser, points, np.float32(level), method=method, key=key, batch_size=4)
        ranks.append(float(found.rank.mean()))
    return min(ranks)
