"""Scores of networks trained on a mixture, and of the two distributions that bracket them."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dgu import analysis
from dgu.core.keys import stream
from dgu.core.typing import Key
from dgu.models import EDMNetwork, EmpiricalDenoiser, MLPDenoiser, MoLRG, save_network
from dgu.samplers import karras_sigmas, sample, sample_together
from dgu.training import TrainingConfig
from experiments.molrg.networks_config import COMPONENTS, SHAPE, Config, UNetConfig
from experiments.study import Run
from experiments.study.progress import Progress

#: File of the U-Net with the largest rank and training set, for the part ``dimension``.
LARGEST = "networks/largest.npz"
#: Draws of a mixture at a time.
_BLOCK = 1024


def planted(key: Key, rank: int) -> MoLRG:
    """Two orthogonal subspaces of dimension ``rank`` in 48 dimensions, standard normal on each (intrinsic dimension 2
    rank)."""
    return MoLRG.random(stream(key, "law", rank), SHAPE, (rank,) * COMPONENTS)


def draws(mixture: MoLRG, key: Key, name: str, count: int) -> np.ndarray:
    """``count`` draws of the stream ``name``, equally many of each component."""
    # Whole blocks are drawn, so that few sizes are compiled; draws are addressed, so that the first ones stay the same.
    numbers = np.arange(-(-count // _BLOCK) * _BLOCK)
    return np.asarray(mixture.sample(stream(key, name), numbers, numbers % COMPONENTS))[:count]


def score(
    samples: np.ndarray, training: np.ndarray, fresh: np.ndarray, level: float, *, most: int, features: Any = None
) -> dict[str, float]:
    """The generalisation score (21) of samples, its threshold (46) calibrated by fresh draws (or held-out images)."""
    # Repeated rows pad the training set to one size, which is compiled once; they change no nearest neighbour.
    padded = np.resize(training, (most, *training.shape[1:]))
    found = analysis.sample_novelty(samples, padded, fresh, 1 - level, features)
    return {"gl": float(found.share.value), "threshold": found.threshold}


def off_subspaces(samples: np.ndarray, mixture: MoLRG) -> float:
    """Median share of the squared length off the nearest subspace: 0 for draws of the mixture."""
    rows = samples.reshape(len(samples), -1).astype(np.float64)
    bases = np.asarray(mixture.bases, np.float64).reshape(COMPONENTS, rows.shape[1], -1)
    inside = np.square(np.einsum("nd,kdr->nkr", rows, bases)).sum(axis=2).max(axis=1)
    total = np.square(rows).sum(axis=1)
    return float(np.median(1 - inside / np.maximum(total, np.finfo(float).tiny)))


def bracket(config: Config, key: Key) -> dict[str, np.ndarray]:
    """The score of the true distribution for every rank and ratio, and that of the multi-delta denoiser."""
    true = []
    for rank in config.ranks:
        mixture, own = planted(stream(key, "bracket"), rank), stream(key, "bracket", rank)
        fresh, other = (draws(mixture, own, name, config.fresh) for name in ("fresh", "samples"))
        for ratio in config.ratios:
            count = round(ratio * COMPONENTS * rank)
            training = draws(mixture, stream(key, "bracket", rank, round(8 * ratio)), "training", count)
            true.append(score(other, training, fresh, config.level, most=config.most)["gl"])
    rank, ratio, own = config.ranks[0], config.ratios[len(config.ratios) // 2], stream(key, "delta")
    mixture = planted(stream(key, "bracket"), rank)
    training = draws(mixture, own, "training", round(ratio * COMPONENTS * rank))
    # Sampled like any denoiser: it ends on the training data.
    copies = _samples(EmpiricalDenoiser(training), own, config, SHAPE, batch_size=500)
    found = score(copies, training, draws(mixture, own, "fresh", config.fresh), config.level, most=len(training))
    return {"true_law": np.asarray(true), "copies": np.asarray(found["gl"])}


def dense_curve(config: Config, rank: int, key: Key) -> dict[str, np.ndarray]:
    """Dense networks for all ratios N / ID and seeds, trained together in one program.

    Returns: Scores ``gl`` with their ``threshold``, the share ``off`` the subspaces and the ``loss``, each ``(ratios,
    seeds)``.
    """
    from dgu.training import train_together

    keys, mixtures, training, counts = [], [], [], []
    for seed in range(config.seeds):
        for ratio in config.ratios:
            own = stream(key, "mlp", rank, seed, round(8 * ratio))
            mixtures.append(planted(stream(key, "mlp", seed), rank))
            counts.append(round(ratio * COMPONENTS * rank))
            training.append(np.resize(draws(mixtures[-1], own, "training", counts[-1]), (config.most, *SHAPE)))
            keys.append(own)
    together = jnp.stack(keys)
    begin = partial(MLPDenoiser.init, shape=SHAPE, width=config.width, depth=config.depth)
    start = jax.jit(jax.vmap(begin))(together)
    with Progress(f"dense networks, ID {2 * rank}", total=config.optimisation.steps, unit="updates of each") as bar:
        trained, losses = train_together(
            start, np.stack(training), np.asarray(counts), together, config.optimisation,
            lambda done, _: bar.update(done - bar.done),
        )  # fmt: skip
    of_samples = jax.vmap(lambda own: stream(own, "samples"))(together)
    made = sample_together(trained, of_samples, config.samples, karras_sigmas(config.sampler_steps), shape=SHAPE)
    found = [
        _on_mixture(config, images, data, mixture, own, most=config.most)
        for images, data, mixture, own in zip(made, training, mixtures, keys)
    ]
    table = {name: [one[name] for one in found] for name in found[0]} | {"loss": losses}
    return {name: np.asarray(values).reshape(config.seeds, -1).T for name, values in table.items()}


def unet_curve(config: Config, rank: int, run: Run) -> dict[str, np.ndarray]:
    """A U-Net for each ratio, one after the other, a stage each."""
    ratios = config.unet.ratios
    found = [run.stage(f"unet-{rank}-{ratio:g}", trained_unet, config, rank, ratio, run) for ratio in ratios]
    return {name: np.array([float(each[name]) for each in found]) for name in found[0]}


def trained_unet(config: Config, rank: int, ratio: float, run: Run) -> dict[str, float]:
    """One U-Net's score, threshold, share off the subspaces and loss; the largest one is saved."""
    unet, mixture, own = config.unet, planted(run.key, rank), stream(run.key, "unet", rank, round(8 * ratio))
    network, most = unet.network, round(unet.ratios[-1] * COMPONENTS * rank)
    training = draws(mixture, own, "training", round(ratio * COMPONENTS * rank))
    params, loss = _trained(f"U-Net, ID {2 * rank}, N {len(training)}", network, training, unet, unet.steps)
    if ratio == unet.ratios[-1] and rank == unet.ranks[-1]:
        path = Path(run.directory.path) / LARGEST
        path.parent.mkdir(parents=True, exist_ok=True)
        save_network(path, network, params, {"rank": rank, "training_examples": len(training)})
    images = _samples(network.denoiser(params), stream(own, "samples"), config, SHAPE, batch_size=250)
    return _on_mixture(config, images, training, mixture, own, most=most) | {"loss": loss}


def _on_mixture(
    config: Config, images: np.ndarray, training: np.ndarray, mixture: MoLRG, key: Key, *, most: int
) -> dict[str, float]:
    """Score, threshold, and share off the subspaces of the samples of a network trained on a mixture."""
    fresh = draws(mixture, key, "fresh", config.fresh)
    return score(images, training, fresh, config.level, most=most) | {"off": off_subspaces(images, mixture)}


def _trained(
    name: str, network: EDMNetwork, data: np.ndarray, config: UNetConfig, steps: int
) -> tuple[dict[str, Any], float]:
    """The averaged parameters of a U-Net and its last loss; warm-up and averaging take the same share of any length."""
    from dgu.training import train_network

    kimg = steps * config.batch_size / 1000
    optimisation = TrainingConfig(
        duration_kimg=kimg, batch_size=config.batch_size, learning_rate=config.learning_rate, rampup_kimg=0.05 * kimg,
        ema_halflife_kimg=0.04 * kimg,
    )  # fmt: skip
    with Progress(name, total=steps, unit="updates") as bar:
        return train_network(network, data, optimisation, bar.update)


def _samples(denoiser: Any, key: Key, config: Config, shape: tuple[int, ...], *, batch_size: int) -> np.ndarray:
    """Samples of an unconditional denoiser."""
    numbers, sigmas = np.arange(config.samples), karras_sigmas(config.sampler_steps)
    return sample(denoiser, key, numbers, sigmas, shape=shape, batch_size=min(batch_size, config.samples))
