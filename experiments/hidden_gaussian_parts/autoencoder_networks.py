"""The denoising autoencoders of the study: which they are, and their training at each noise level, stored stage by stage."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dgu.models import (
    NCSNPP,
    DAEPreconditioning,
    DiTConfig,
    EDMNetwork,
    LevelDenoisers,
    LinearNetwork,
    Network,
    NetworkDenoiser,
    SkipNetwork,
    SongUNetConfig,
)
from dgu.training import LevelTraining, initial_levels, train_levels, trains_together
from experiments.study.options import renamed
from experiments.study.progress import Progress
from experiments.study.run_directory import RunDirectory

#: Names in figures and tables.
SHOWN = {"ncsn": "DAE-NCSN", "skip": "DAE-Skip", "dit": "DAE-DiT", "linear": "DAE-linear"}


def build(config: Any, shape: tuple[int, ...]) -> dict[str, Network]:
    """The networks of a ``Config`` for images of ``shape``, the linear one last; ``InputError`` where one does not fit."""
    size, _, channels = shape
    found: dict[str, Network] = {}
    for name in config.networks:
        if name == "ncsn":
            with renamed(
                "autoencoders", model_channels="ncsn_channels", channel_mult="ncsn_mult", num_blocks="ncsn_blocks"
            ):
                unet = SongUNetConfig(
                    size, channels, channels, model_channels=config.ncsn_channels, channel_mult=config.ncsn_mult,
                    num_blocks=config.ncsn_blocks, attn_resolutions=(), dropout=0.0, **NCSNPP,
                )  # fmt: skip
            found[name] = EDMNetwork(unet, DAEPreconditioning())
        elif name == "skip":
            with renamed("autoencoders", channels="skip_channels"):
                found[name] = SkipNetwork(size, channels, config.skip_channels)
        else:
            with renamed("autoencoders", patch="dit_patch", width="dit_width", depth="dit_depth", heads="dit_heads"):
                dit = DiTConfig(
                    size, channels, channels, patch=config.dit_patch, width=config.dit_width, depth=config.dit_depth, heads=config.dit_heads
                )  # fmt: skip
            # The patches are embedded with nothing in front that would take out the scale of the noise.
            found[name] = EDMNetwork(dit, DAEPreconditioning(input_std=0.5))
    return found | {"linear": LinearNetwork(tuple(shape))}


def optimisation(config: Any, name: str, seed: int) -> LevelTraining:
    """The training of one kind of network."""
    steps = {"linear": config.linear_steps, "ncsn": config.ncsn_steps}.get(name, config.steps)
    return LevelTraining(steps, config.batch_size, config.learning_rate, seed)


def trained(
    config: Any, name: str, network: Network, images: np.ndarray, sigmas: np.ndarray, directory: RunDirectory, seed: int
) -> tuple[LevelDenoisers, np.ndarray]:
    """A network for each level as one denoiser, and the losses of all steps ``(levels, steps)``.

    Networks without convolutions are trained for all levels at once, the others level by level; every ``save_every`` steps
    of either are a stage, from which a run that was killed goes on.
    """
    training = optimisation(config, name, seed)
    every = np.arange(len(sigmas))
    groups = [every] if trains_together(network) else [*every[:, None]]
    alike = initial_levels(network, 1, training)
    structure: Any = jax.tree.structure(alike)
    params, losses = [], []
    for group in groups:
        state: Any = jax.tree.map(partial(jnp.repeat, repeats=len(group), axis=0), alike)
        for part, start in enumerate(range(0, training.steps, config.save_every)):
            until = min(start + config.save_every, training.steps)

            def compute(state: Any = state, until: int = until, group: np.ndarray = group) -> dict[str, Any]:
                done = int(np.asarray(state["step"])[0])
                what = f"{SHOWN[name]}, " + (
                    f"sigma = {sigmas[group[0]]:.3g}" if len(group) == 1 else f"{len(group)} levels"
                )
                with Progress(what, total=(until - done) * len(group), unit="steps") as bar:
                    state, seen = train_levels(
                        network, state, images, sigmas[group], training, places=group, until=until,
                        progress=lambda done, total: bar.update(done - bar.done),
                    )  # fmt: skip
                leaves = {f"leaf{number}": leaf for number, leaf in enumerate(jax.tree.leaves(state))}
                return leaves | {"losses": seen}

            stage = f"autoencoders/{name}-{'all' if len(groups) == 1 else group[0]}-{part}"
            stored = directory.stage(stage, compute)
            state = jax.tree.unflatten(structure, [stored[f"leaf{number}"] for number in range(structure.num_leaves)])
            losses.append((group, start, stored["losses"]))
        params.append(state["params"])
    together = jax.tree.map(lambda *leaves: np.concatenate(leaves), *params)
    curve = np.empty((len(sigmas), training.steps))
    for group, start, seen in losses:
        curve[group, start : start + seen.shape[1]] = seen
    one = network.denoiser(together) if isinstance(network, EDMNetwork) else NetworkDenoiser(together, network)
    return LevelDenoisers(sigmas, one), curve
