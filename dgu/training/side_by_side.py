"""Networks trained side by side, each on its own images and device, with checkpoints to resume from."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dgu.core import parallel
from dgu.core.checkpoint import TrainingCheckpoints
from dgu.models import EDMNetwork
from dgu.training.config import TrainingConfig
from dgu.training.loop import initial_state, train_steps

#: Checkpoints written during one training.
_CHECKPOINTS = 4


def train_side_by_side(
    network: EDMNetwork,
    sets: Sequence[np.ndarray],
    optimisation: TrainingConfig,
    bins: int,
    checkpoints: Path,
    progress: Callable[[int], object] = lambda steps: None,
) -> tuple[list[Any], np.ndarray]:
    """Train one network for each set of images, all with the same architecture, seed and optimisation.

    The networks take turns step by step, each on a device of its own where there are enough devices. They share every
    random draw, so that networks with the same images are the same. A training that was killed resumes from its last
    checkpoint and ends with the same parameters.

    Args:
        network: the architecture.
        sets: training images (n, H, W, C) of each network.
        optimisation: the optimisation of every network.
        bins: number of equally long parts of the training; the mean loss of each part is returned.
        checkpoints: folder of the checkpoints.
        progress: called with the number of steps done since the last call.

    Returns:
        The averaged parameters of each network, and its training losses, (sets, bins), means over pixels.

    Raises:
        FloatingPointError: a loss is not finite.
    """
    devices = jax.local_devices()
    meshes = [parallel.data_mesh([devices[place % len(devices)]]) for place in range(len(sets))]
    total = optimisation.total_steps
    edges = [round(total * (number + 1) / bins) for number in range(bins)]
    kept_at = {edges[round(bins * (number + 1) / _CHECKPOINTS) - 1] for number in range(_CHECKPOINTS)}
    first = initial_state(network, optimisation)
    start = [parallel.put(jax.tree.map(jnp.copy, first), parallel.replicated(mesh)) for mesh in meshes]
    with TrainingCheckpoints(checkpoints, keep=1) as store:
        whole = _joined(start, np.zeros((len(sets), bins), np.float32))
        if store.latest_step() is not None:
            whole = store.load(whole)
        losses = np.array(whole["losses"])
        states = [whole[f"network{place}"] for place in range(len(sets))]
        done = int(states[0]["step"])
        progress(done)
        runs = [
            train_steps(network, state, images, None, optimisation, mesh)
            for state, images, mesh in zip(states, sets, meshes)
        ]
        pending: list[list[Any]] = [[] for _ in sets]
        for step, results in enumerate(zip(*runs), done + 1):
            for own, (_, info) in zip(pending, results):
                own.append(info["loss"])
                if len(own) > 1:
                    own[-2].block_until_ready()  # One step of each stays in flight.
            progress(1)
            if step in edges:
                number = edges.index(step)
                losses[:, number] = [np.mean(jax.device_get(own)) for own in pending]
                pending = [[] for _ in sets]
                if not np.isfinite(losses[:, number]).all():
                    raise FloatingPointError(f"the training losses are {losses[:, number]} up to step {step}")
            states = [state for state, _ in results]
            if step in kept_at:
                store.save(step, _joined(states, losses))
    return [state["ema"] for state in states], losses


def _joined(states: Sequence[Any], losses: np.ndarray) -> dict[str, Any]:
    return {"losses": jnp.asarray(losses)} | {f"network{place}": state for place, state in enumerate(states)}
