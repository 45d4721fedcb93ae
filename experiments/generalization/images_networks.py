"""Networks trained on pairs of clusters, and what they do: losses, likelihoods and samples."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dgu.analysis import level_losses
from dgu.core.errors import require
from dgu.core.keys import stream
from dgu.core.typing import PyTree
from dgu.data.scaling import PixelScale
from dgu.models import EDMNetwork, save_network
from dgu.models.weights import params_from_arrays, params_to_arrays
from dgu.samplers import bits_per_dim, karras_sigmas, log_likelihood, sample
from dgu.training import train_side_by_side
from experiments.generalization.images_data import Split
from experiments.generalization.images_options import Config
from experiments.generalization.trainings import SDE
from experiments.study import Run
from experiments.study.processes import is_lead
from experiments.study.progress import Progress

#: The pairs of clusters, by name.
PAIRS = ("nearest", "farthest")
#: The earliest time that is sampled and integrated to, as in Song's tutorial: training seldom sees earlier ones.
T_MIN = 1e-3


def train(
    config: Config, run: Run, sets: Sequence[Split], *, seed: int, progress: Callable[[int], object]
) -> dict[str, np.ndarray]:
    """One network for each pair, also written to ``networks/``: their parameters and ``losses`` (pairs, bins)."""
    images = [one.train for one in sets]
    network = config.network(images[0].shape[1:])
    folder = run.directory.path / "checkpoints" / f"images-{seed}"
    optimisation = config.optimisation(run.seed + seed)
    params, losses = train_side_by_side(network, images, optimisation, config.bins, folder, progress)
    found: dict[str, np.ndarray] = {"losses": losses * images[0][0].size}
    for name, own in zip(PAIRS, params):
        if is_lead():
            file = run.directory.path / "networks" / f"{name}-{seed}.npz"
            save_network(file, network, own, {"pair": name, "seed": seed})
        found |= {f"{name}.{leaf}": array for leaf, array in params_to_arrays(own).items()}
    return found


def stored_params(network: EDMNetwork, arrays: Mapping[str, np.ndarray], name: str) -> PyTree:
    """The parameters of a pair's network among those that ``train`` returned."""
    own = {leaf.removeprefix(f"{name}."): array for leaf, array in arrays.items() if leaf.startswith(f"{name}.")}
    return params_from_arrays(network, own)


def judge(
    config: Config, run: Run, trained: Mapping[str, np.ndarray], sets: Sequence[Split], *, seed: int, scale: PixelScale
) -> dict[str, np.ndarray]:
    """Losses at each level, bits per dimension and samples: ``[i, j]`` is network i on the images of pair j."""
    shape = sets[0].first.shape[1:]
    network, levels, key = config.network(shape), config.level_grid, stream(run.key, "judge", seed)
    denoisers = [network.denoiser(stored_params(network, trained, name)) for name in PAIRS]
    with Progress(f"judging networks of seed {seed}", 4 * len(PAIRS), "evaluations") as bar:
        # On all devices at once; they are collected last.
        densities = _log_densities(config, key, denoisers, sets)
        held, errors = [], []
        for denoiser in denoisers:
            for j, images in enumerate(sets):
                # The same noise for both networks.
                noise = stream(key, "noise", j)
                each = level_losses(denoiser, images.held_out, noise, sigmas=levels, draws=config.draws)
                held.append(each.mean(axis=0))
                errors.append(each.mean(axis=1).std(ddof=1) / np.sqrt(len(each)))
                bar.update()
        own = [
            level_losses(denoiser, images.first, stream(key, "train", j), sigmas=levels, draws=config.draws).mean(
                axis=0
            )
            for j, (denoiser, images) in enumerate(zip(denoisers, sets))
        ]
        sigmas = karras_sigmas(config.steps, *_limits())
        indices = np.arange(config.samples)
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


def _limits() -> tuple[float, float]:
    """The smallest and the largest noise level."""
    return float(SDE.std(T_MIN)), float(SDE.std(SDE.t_max))


def _log_densities(
    config: Config, key: Any, denoisers: Sequence[Any], sets: Sequence[Split]
) -> list[tuple[jax.Array, jax.Array]]:
    """Of selected held-out images of every pair under every network, the pairs of a network next to each other."""
    devices = jax.local_devices()
    chosen = np.linspace(0, 2 * config.held_out - 1, config.likelihoods).round().astype(int)
    found = []
    for i, denoiser in enumerate(denoisers):
        for j, images in enumerate(sets):
            probe_keys = jax.vmap(partial(jax.random.fold_in, stream(key, "probes", j)))(jnp.arange(len(chosen)))
            given = (
                denoiser,
                images.held_out[chosen],
                probe_keys,
                _limits(),
                config.tolerance,
                np.zeros(config.probes),
            )
            found.append(_nats(*jax.device_put(given, devices[(2 * i + j) % len(devices)])))
    return found


@jax.jit
def _nats(denoiser: Any, images: Any, noise_keys: Any, limits: Any, tolerance: Any, probes: Any) -> Any:
    """Log densities of images and their standard errors over probes."""
    low, high = limits

    def one(image: Any, key: Any) -> Any:
        return log_likelihood(
            denoiser,
            image,
            sigma_min=low,
            sigma_max=high,
            key=key,
            probes=probes.shape[0],
            rtol=tolerance,
            atol=tolerance,
        )

    return jax.vmap(one)(images, noise_keys)


def pixel_bits(nats: Any, scale: PixelScale) -> Any:
    """Bits per dimension of 8-bit pixels, from log densities of standardised pixels in nats."""
    return bits_per_dim(nats - scale.log_volume, scale.mean.shape)


def _share_of_first(images: Split, drawn: np.ndarray, n: int) -> float:
    """Share of the samples that are nearer to the mean of the first cluster's n training images."""
    middles = [images.first[:n].mean(axis=0), images.first[n:].mean(axis=0)]
    squared = [np.square(drawn - middle).sum(axis=(1, 2, 3)) for middle in middles]
    return float(np.mean(squared[0] < squared[1]))
