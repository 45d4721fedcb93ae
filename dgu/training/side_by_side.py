"""Networks trained side by side, each on its own images and device."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from dgu.core import parallel
from dgu.core.checkpoint import TrainingCheckpoints
from dgu.models import EDMNetwork
from dgu.training.config import TrainingConfig
from dgu.training.loop import initial_state, mean_loss, train_steps, updates_together

T = TypeVar("T")
#: Checkpoints written during one training.
_CHECKPOINTS = 4


def own_meshes() -> list[Mesh]:
    """A mesh for each training of several: one of every device; where several processes run together, one of all
    devices.

    Small networks leave a device idle between their operations, and cores that share a batch wait for each other: with
    a device each, two trainings on two cores take little more time than one.
    """
    if jax.process_count() > 1:
        return [parallel.data_mesh()]
    return [parallel.data_mesh([device]) for device in jax.local_devices()]


def in_turn(trainings: Iterable[Callable[[Mesh], Iterator[T]]], meshes: Sequence[Mesh]) -> Iterator[T]:
    """What several iterators yield that take turns, as many at a time as there are meshes.

    Args:
        trainings: functions that make the iterator of a training on a mesh, such as ``train_with_snapshots``. Each is
            called when a mesh is free: at the start, or when the training before it on that mesh has ended.
        meshes: one for each training of those under way.
    """
    waiting = iter(trainings)
    turns = deque((mesh, training(mesh)) for mesh, training in zip(meshes, waiting))
    while turns:
        mesh, calls = turns.popleft()
        try:
            found = next(calls)
        except StopIteration:
            turns.extend((mesh, training(mesh)) for training in islice(waiting, 1))
            continue
        turns.append((mesh, calls))
        yield found


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
    own = own_meshes()
    meshes = [own[place % len(own)] for place in range(len(sets))]
    total = optimisation.total_steps
    edges = [round(total * (number + 1) / bins) for number in range(bins)]
    kept_at = {edges[round(bins * (number + 1) / _CHECKPOINTS) - 1] for number in range(_CHECKPOINTS)}
    first, together = initial_state(network, optimisation), updates_together(optimisation, network.shape)
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
            train_steps(network, state, images, None, optimisation, mesh, together=together, stops=edges)
            for state, images, mesh in zip(states, sets, meshes)
        ]
        calls: list[list[dict[str, Any]]] = [[] for _ in sets]
        for results in zip(*runs):
            for seen, (_, info) in zip(calls, results):
                seen.append(info)
            step = results[0][1]["step"]
            progress(results[0][1]["updates"])
            if step in edges:
                number = edges.index(step)
                losses[:, number] = [mean_loss(seen) for seen in calls]
                calls = [[] for _ in sets]
                if not np.isfinite(losses[:, number]).all():
                    raise FloatingPointError(f"the training losses are {losses[:, number]} up to step {step}")
            states = [state for state, _ in results]
            if step in kept_at:
                store.save(step, _joined(states, losses))
    return [state["ema"] for state in states], losses


def _joined(states: Sequence[Any], losses: np.ndarray) -> dict[str, Any]:
    return {"losses": jnp.asarray(losses)} | {f"network{place}": state for place, state in enumerate(states)}
