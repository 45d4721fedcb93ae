"""Training of a network whose averaged parameters are kept at chosen updates; a killed training goes on."""

import shutil
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import numpy as np
from jax.sharding import Mesh

from dgu.core import parallel
from dgu.core.checkpoint import TrainingCheckpoints
from dgu.core.errors import require
from dgu.core.typing import PyTree
from dgu.models.edm import EDMNetwork
from dgu.training.config import TrainingConfig
from dgu.training.loop import initial_state, mean_loss, train_steps, updates_together


def train_with_snapshots(
    network: EDMNetwork,
    images: np.ndarray,
    config: TrainingConfig,
    mesh: Mesh | None = None,
    *,
    marks: Collection[int],
    keep: Callable[[int, PyTree], object],
    checkpoints: Path,
    minutes: float = 10.0,
) -> Iterator[int]:
    """Train a network without classes and hand on its averaged parameters after each of the updates ``marks``.

    The training goes on as the iterator is advanced, so that several can take turns (``in_turn``). One that was killed
    and started again with the same arguments goes on behind the last state in ``checkpoints``, and hands on the same
    parameters; those of a mark behind that state are handed on a second time. At the end the folder of states is
    removed.

    Args:
        network: the architecture.
        images: training images, (n, H, W, C) in [-1, 1].
        config: the optimisation.
        mesh: devices to spread each batch over; all by default.
        marks: numbers of updates, from 1 to ``config.total_steps``, which must be among them.
        keep: called as ``keep(updates, averaged parameters)``; what it is given is valid during the call alone.
        checkpoints: folder of the states.
        minutes: least time between two states.

    Yields:
        The number of updates of each call of the compiled program, which the device may still be making.

    Raises:
        InputError: marks out of range, or without the end of the training; images that do not fit the network.
        FloatingPointError: the mean loss up to a mark is not finite.
    """
    total = config.total_steps
    allowed = f"from 1 to the last update, {total}, with it among them"
    require(total in marks and min(marks) >= 1 and max(marks) == total, "marks", sorted(marks), allowed)
    state, together = initial_state(network, config), updates_together(config, network.shape)
    with TrainingCheckpoints(checkpoints, keep=1) as store:
        if store.latest_step() is not None:
            state = store.load(state)
        saved, calls = time.monotonic(), []
        for latest, info in train_steps(
            network, state, images, None, config, mesh, together=together, stops=sorted(marks)
        ):
            step = info["step"]
            calls.append(info)
            yield info["updates"]
            if step in marks:
                loss = mean_loss(calls)
                if not np.isfinite(loss):
                    raise FloatingPointError(f"the training loss is {loss} up to step {step}")
                calls = []
                keep(step, latest["ema"])
            # After the parameters of this step, so that where a state is, the parameters before it have been kept.
            if step < total and time.monotonic() - saved >= 60 * minutes:
                store.save(step, latest)
                saved = time.monotonic()
    if parallel.is_lead():
        shutil.rmtree(checkpoints, ignore_errors=True)


def updates_done(checkpoints: Path) -> int:
    """Updates up to the last state in a folder of checkpoints; 0 where there is none."""
    if not checkpoints.exists():
        return 0
    with TrainingCheckpoints(checkpoints, keep=1) as store:
        return store.latest_step() or 0
