"""Two networks trained side by side, one a device, from checkpoint to checkpoint."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dgu.core import parallel
from dgu.core.checkpoint import TrainingCheckpoints
from dgu.models import EDMNetwork
from dgu.training import TrainingConfig, initial_state, train_steps

#: Checkpoints of a training.
_CHECKPOINTS = 4


def train_side_by_side(
    network: EDMNetwork,
    sets: Sequence[np.ndarray],
    optimisation: TrainingConfig,
    bins: int,
    checkpoints: Path,
    progress: Callable[[int], object] = lambda steps: None,
) -> tuple[list[Any], np.ndarray]:
    """Networks of one architecture, seed and optimisation, one for each set of images: averaged parameters, and losses.

    They take turns step by step, each on a device of its own where there are so many. Draws are the same for all. A run that
    was killed goes on where its last checkpoint was, to the same parameters.

    Args:
        network: their architecture.
        sets: images (n, H, W, C) of each.
        optimisation: of all.
        bins: parts of the training, equally long, whose mean loss is kept.
        checkpoints: their folder.
        progress: called with the number of steps done since the last call.

    Returns:
        Parameters, and losses (sets, bins), means over pixels.

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
