"""Scores of what was trained on a mixture: dense networks, U-Nets, and the two laws that bracket them."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dgu.core.keys import stream
from dgu.models import EDMNetwork, EmpiricalDenoiser, save_network
from dgu.samplers import karras_sigmas, sample
from experiments.molrg_parts.networks_config import Config, UNetConfig
from experiments.molrg_parts.training import (
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
from experiments.study.progress import Progress
from experiments.study.run_directory import RunDirectory

#: Where a U-Net's parameters are kept for the part ``dimension``.
LARGEST = "networks/largest.npz"


def bracket(config: Config, key: Any) -> dict[str, np.ndarray]:
    """The score of the true law for every rank and ratio, and that of the multi-delta denoiser."""
    true_law = []
    for rank in config.ranks:
        law = planted(stream(key, "bracket"), rank)
        fresh, other = (draws(law, stream(key, "bracket", rank), name, config.fresh) for name in ("fresh", "samples"))
        for ratio in config.ratios:
            own = stream(key, "bracket", rank, round(8 * ratio))
            training = draws(law, own, "training", round(ratio * COMPONENTS * rank))
            padded = np.resize(training, (config.most, *SHAPE))
            true_law.append(score(other, padded, fresh, config.level)["gl"])
    rank, ratio = config.ranks[0], config.ratios[len(config.ratios) // 2]
    law = planted(stream(key, "bracket"), rank)
    training = draws(law, stream(key, "delta"), "training", round(ratio * COMPONENTS * rank))
    # Sampled like any denoiser: it ends on the training data.
    copies = sample(
        EmpiricalDenoiser(training),
        stream(key, "delta"),
        np.arange(config.samples),
        karras_sigmas(config.sampler_steps),
        shape=SHAPE,
        batch_size=min(500, config.samples),
    )
    fresh = draws(law, stream(key, "delta"), "fresh", config.fresh)
    return {"true_law": np.asarray(true_law), "copies": np.asarray(score(copies, training, fresh, config.level)["gl"])}


def dense_curve(config: Config, rank: int, key: Any) -> dict[str, np.ndarray]:
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


def unet_curve(config: Config, rank: int, directory: RunDirectory, key: Any) -> dict[str, np.ndarray]:
    """A U-Net for each ratio, one after the other, a stage each."""
    unet, law = config.unet, planted(key, rank)
    network = mixture_unet(unet)
    optimisation = training_for(unet.steps, unet.batch_size, unet.learning_rate)
    most = round(unet.ratios[-1] * COMPONENTS * rank)

    def one(ratio: float) -> dict[str, Any]:
        own = stream(key, "unet", rank, round(8 * ratio))
        training = draws(law, own, "training", round(ratio * COMPONENTS * rank))
        with Progress(f"U-Net, ID {2 * rank}, N {len(training)}", total=unet.steps, unit="updates") as bar:
            params, loss = train_unet(network, training, optimisation, bar.update)
        if ratio == unet.ratios[-1] and rank == unet.ranks[-1]:
            path = Path(directory.path) / LARGEST
            path.parent.mkdir(parents=True, exist_ok=True)
            save_network(path, network, params, {"rank": rank, "training_examples": len(training)})
        images = sampled(network.denoiser(params), own, config.samples, config.sampler_steps, min(250, config.samples))
        padded = np.resize(training, (most, *SHAPE))  # One shape, the same neighbours.
        found = score(images, padded, draws(law, own, "fresh", config.fresh), config.level)
        return found | {"off": off_subspaces(images, law), "loss": loss}

    found = [directory.stage(f"networks/unet-{rank}-{ratio:g}", partial(one, ratio)) for ratio in unet.ratios]
    return {name: np.array([float(each[name]) for each in found]) for name in found[0]}
