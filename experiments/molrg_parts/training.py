"""Networks trained on mixtures of low-rank Gaussians and on images: their samples and generalisation scores."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dgu import analysis
from dgu.core.keys import stream
from dgu.distributions.bases import initial_noise
from dgu.models import EDMNetwork, MLPDenoiser, MoLRG, SongUNetConfig
from dgu.samplers import heun, karras_sigmas, sample
from dgu.training import TogetherConfig, TrainingConfig, initial_state, train_steps, train_together

#: The ambient space of the paper: 48 numbers as an image of 4 x 4 pixels in three colours; two components.
SHAPE, COMPONENTS = (4, 4, 3), 2
#: Draws of a law at a time.
_BLOCK = 1024


def planted(key: Any, rank: int) -> MoLRG:
    """Two orthogonal subspaces of dimension ``rank`` in 48 numbers, standard normal on each (intrinsic dimension 2 rank)."""
    return MoLRG.random(stream(key, "law", rank), SHAPE, (rank,) * COMPONENTS)


def draws(law: MoLRG, key: Any, name: str, count: int) -> np.ndarray:
    """``count`` draws of the stream ``name``, equally many of each component."""
    # Whole blocks are drawn, so that few sizes are compiled; draws are addressed, so that the first ones stay the same.
    numbers = np.arange(-(-count // _BLOCK) * _BLOCK)
    return np.asarray(law.sample(stream(key, name), numbers, numbers % COMPONENTS))[:count]


def score(
    samples: np.ndarray, training: np.ndarray, fresh: np.ndarray, level: float, features: Callable | None = None
) -> dict[str, float]:
    """The generalisation score (21) of samples, its threshold (46) calibrated by fresh draws (or held-out images)."""
    rows = [analysis.extract_features(images, features) for images in (samples, training, fresh)]
    nearest, calibration = (analysis.k_nearest(rows[place], rows[1])[0][:, 0] for place in (0, 2))
    found = analysis.novelty(nearest, calibration, 1 - level)
    return {"gl": float(found.share.value), "threshold": found.threshold}


def off_subspaces(samples: np.ndarray, law: MoLRG) -> float:
    """Median share of the squared length off the nearest subspace: 0 for draws of the law."""
    rows = samples.reshape(len(samples), -1).astype(np.float64)
    bases = np.asarray(law.bases, np.float64).reshape(COMPONENTS, rows.shape[1], -1)
    inside = np.square(np.einsum("nd,kdr->nkr", rows, bases)).sum(axis=2).max(axis=1)
    total = np.square(rows).sum(axis=1)
    return float(np.median(1 - inside / np.maximum(total, np.finfo(float).tiny)))


def train_mlps(
    key: Any,
    rank: int,
    ratios: Sequence[float],
    seeds: int,
    most: int,
    *,
    width: int,
    depth: int,
    optimisation: TogetherConfig,
    samples: int,
    fresh: int,
    steps: int,
    level: float,
    progress: Callable[[int, int], object] | None = None,
) -> dict[str, np.ndarray]:
    """Dense networks for every ratio N / ID and seed, in one program: scores ``(ratios, seeds)`` and what belongs to them."""
    keys, laws, training, counts = [], [], [], []
    for seed in range(seeds):
        for ratio in ratios:
            own = stream(key, "mlp", rank, seed, round(8 * ratio))
            laws.append(planted(stream(key, "mlp", seed), rank))
            counts.append(round(ratio * COMPONENTS * rank))
            # Repeated rows pad the data to one shape; they change no nearest neighbour.
            training.append(np.resize(draws(laws[-1], own, "training", counts[-1]), (most, *SHAPE)))
            keys.append(own)
    together = jnp.stack(keys)
    start = jax.vmap(partial(MLPDenoiser.init, shape=SHAPE, width=width, depth=depth))(together)
    trained, losses = train_together(start, np.stack(training), np.asarray(counts), together, optimisation, progress)
    made = np.asarray(
        _sample_all(trained, together, jnp.arange(samples), jnp.asarray(karras_sigmas(steps), jnp.float32))
    )
    scores = [
        score(images, data, draws(law, own, "fresh", fresh), level)
        for images, data, law, own in zip(made, training, laws, keys)
    ]
    off = [off_subspaces(images, law) for images, law in zip(made, laws)]
    table = {name: [found[name] for found in scores] for name in ("gl", "threshold")} | {"off": off, "loss": losses}
    return {name: np.asarray(values).reshape(seeds, len(ratios)).T for name, values in table.items()}


@jax.jit
def _sample_all(denoisers: Any, keys: Any, indices: Any, grid: Any) -> Any:
    """Samples of every network from its own addressed noises, ``(R, samples, *event)``."""

    def one(denoiser: Any, key: Any, index: Any) -> Any:
        return heun(denoiser, grid[0] * initial_noise(stream(key, "samples"), index, SHAPE), grid)

    return jax.vmap(lambda denoiser, key: jax.vmap(lambda index: one(denoiser, key, index))(indices))(denoisers, keys)


def small_unet(shape: tuple[int, ...], channels: int, channel_mult: tuple[int, ...], blocks: int) -> EDMNetwork:
    """A DDPM++ with EDM's preconditioning for square images of ``shape``, without attention and dropout."""
    side, _, colours = shape
    unet = SongUNetConfig(
        side,
        colours,
        colours,
        model_channels=channels,
        channel_mult=channel_mult,
        num_blocks=blocks,
        attn_resolutions=(),
        dropout=0.0,
    )
    return EDMNetwork(unet)


def training_for(steps: int, batch_size: int, learning_rate: float) -> TrainingConfig:
    """The library's training for so many updates; warm-up and averaging take the same part of it whatever its length."""
    kimg = steps * batch_size / 1000
    return TrainingConfig(
        duration_kimg=kimg,
        batch_size=batch_size,
        learning_rate=learning_rate,
        rampup_kimg=0.05 * kimg,
        ema_halflife_kimg=0.04 * kimg,
    )


def train_unet(
    network: EDMNetwork, data: np.ndarray, config: TrainingConfig, progress: Callable[[int], object] | None = None
) -> tuple[Any, float]:
    """The averaged network after the library's training loop, and its loss over the last tenth."""
    losses = []
    for state, info in train_steps(network, initial_state(network, config), data, None, config):  # noqa: B007
        losses.append(info["loss"])
        if len(losses) > 1:
            losses[-2].block_until_ready()  # One step stays in flight.
        if progress is not None:
            progress(1)
    tail = [float(loss) for loss in losses[-max(1, len(losses) // 10) :]]
    return jax.device_get(state["ema"]), float(np.mean(tail))


def sampled(denoiser: Any, key: Any, count: int, steps: int, batch_size: int) -> np.ndarray:
    """Samples of an unconditional network."""
    numbers, shape = np.arange(count), denoiser.network.shape
    return sample(denoiser, stream(key, "samples"), numbers, karras_sigmas(steps), shape=shape, batch_size=batch_size)
