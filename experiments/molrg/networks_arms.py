"""Scores of networks trained on a mixture (dense networks and U-Nets), and of the two distributions that bracket
them."""

from pathlib import Path

import numpy as np

from dgu.core.keys import stream
from dgu.core.typing import Key
from dgu.models import EDMNetwork, EmpiricalDenoiser, save_network
from dgu.samplers import karras_sigmas, sample
from experiments.molrg.networks_config import Config, UNetConfig
from experiments.molrg.training import (
    COMPONENTS,
    SHAPE,
    draws,
    off_subspaces,
    planted,
    sampled,
    score,
    small_unet,
    train_mlps,
    train_unet,
    training_for,
)
from experiments.study import Run
from experiments.study.progress import Progress

#: File of the U-Net with the largest rank and training set, for the part ``dimension``.
LARGEST = "networks/largest.npz"


def bracket(config: Config, key: Key) -> dict[str, np.ndarray]:
    """The score of the true distribution for every rank and ratio, and that of the multi-delta denoiser."""
    true = []
    for rank in config.ranks:
        mixture = planted(stream(key, "bracket"), rank)
        fresh, other = (
            draws(mixture, stream(key, "bracket", rank), name, config.fresh) for name in ("fresh", "samples")
        )
        for ratio in config.ratios:
            own = stream(key, "bracket", rank, round(8 * ratio))
            training = draws(mixture, own, "training", round(ratio * COMPONENTS * rank))
            padded = np.resize(training, (config.most, *SHAPE))
            true.append(score(other, padded, fresh, config.level)["gl"])
    rank, ratio = config.ranks[0], config.ratios[len(config.ratios) // 2]
    mixture = planted(stream(key, "bracket"), rank)
    training = draws(mixture, stream(key, "delta"), "training", round(ratio * COMPONENTS * rank))
    # Sampled like any denoiser: it ends on the training data.
    copies = sample(
        EmpiricalDenoiser(training),
        stream(key, "delta"),
        np.arange(config.samples),
        karras_sigmas(config.sampler_steps),
        shape=SHAPE,
        batch_size=min(500, config.samples),
    )
    fresh = draws(mixture, stream(key, "delta"), "fresh", config.fresh)
    return {"true_law": np.asarray(true), "copies": np.asarray(score(copies, training, fresh, config.level)["gl"])}


def dense_curve(config: Config, rank: int, key: Key) -> dict[str, np.ndarray]:
    """Dense networks for all ratios and seeds, trained together."""
    with Progress(f"dense networks, ID {2 * rank}", total=config.optimisation.steps, unit="updates of each") as bar:
        return train_mlps(
            key,
            rank,
            config.ratios,
            config.seeds,
            config.most,
            width=config.width,
            depth=config.depth,
            optimisation=config.optimisation,
            samples=config.samples,
            fresh=config.fresh,
            steps=config.sampler_steps,
            level=config.level,
            progress=lambda done, _: bar.update(done - bar.done),
        )


def mixture_unet(config: UNetConfig) -> EDMNetwork:
    """The U-Net for images of the mixture."""
    return small_unet(SHAPE, config.channels, config.channel_mult, config.blocks)


def unet_curve(config: Config, rank: int, run: Run) -> dict[str, np.ndarray]:
    """A U-Net for each ratio, one after the other, a stage each."""
    ratios = config.unet.ratios
    found = [run.stage(f"unet-{rank}-{ratio:g}", trained_unet, config, rank, ratio, run) for ratio in ratios]
    return {name: np.array([float(each[name]) for each in found]) for name in found[0]}


def trained_unet(config: Config, rank: int, ratio: float, run: Run) -> dict[str, float]:
    """One U-Net's score, threshold, share off the subspaces and loss; the largest one is saved."""
    unet, mixture = config.unet, planted(run.key, rank)
    network = mixture_unet(unet)
    optimisation = training_for(unet.steps, unet.batch_size, unet.learning_rate)
    most = round(unet.ratios[-1] * COMPONENTS * rank)
    own = stream(run.key, "unet", rank, round(8 * ratio))
    training = draws(mixture, own, "training", round(ratio * COMPONENTS * rank))
    with Progress(f"U-Net, ID {2 * rank}, N {len(training)}", total=unet.steps, unit="updates") as bar:
        params, loss = train_unet(network, training, optimisation, bar.update)
    if ratio == unet.ratios[-1] and rank == unet.ranks[-1]:
        path = Path(run.directory.path) / LARGEST
        path.parent.mkdir(parents=True, exist_ok=True)
        save_network(path, network, params, {"rank": rank, "training_examples": len(training)})
    images = sampled(network.denoiser(params), own, config.samples, config.sampler_steps, min(250, config.samples))
    padded = np.resize(training, (most, *SHAPE))  # One shape, the same neighbours.
    found = score(images, padded, draws(mixture, own, "fresh", config.fresh), config.level)
    return found | {"off": off_subspaces(images, mixture), "loss": loss}
