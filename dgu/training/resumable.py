"""A training in a directory, which a kill at any moment does not spoil: checkpoints, a log, and the averaged network.

The directory holds ``checkpoints/`` (Orbax), ``stats.jsonl`` (one line a tick) and ``network.npz``, the averaged (EMA)
network. The line of a tick is on disk before the checkpoint that follows it, and the network after it, so that a
training that was killed goes on from its last checkpoint and ends with the same bits. With ``power_ema_stds`` there is
also ``averages/``, with the networks of each width at each checkpoint (see ``dgu.training.averages``).
"""

import json
import math
import os
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dgu.core import parallel
from dgu.core.arrays import is_number
from dgu.core.checkpoint import TrainingCheckpoints
from dgu.core.errors import InputError, require
from dgu.core.files import write_atomic
from dgu.core.reading import MAX_JSON, guarded, read_bytes
from dgu.core.typing import PyTree
from dgu.models.edm import EDMNetwork
from dgu.models.pretrained import save_network
from dgu.training.averages import AVERAGES, average_file
from dgu.training.config import TrainingConfig
from dgu.training.loop import check_batch, check_data, initial_state, mean_loss, train_steps, updates_together


def train_in_directory(
    out: str | os.PathLike[str],
    network: EDMNetwork,
    images: np.ndarray,
    labels: np.ndarray | None,
    config: TrainingConfig,
    *,
    about: Mapping[str, Any],
    tick_kimg: float = 10.0,
    checkpoint_kimg: float = 50.0,
    start: Mapping[str, Any] | None = None,
) -> Generator[tuple[int, int], None, None]:
    """Train ``network``, or go on training it, in the directory ``out``, over all devices.

    Args:
        out: the directory; made where there is none.
        network: the network.
        images: (n, H, W, C) in [-1, 1], of the network's shape.
        labels: (n,) class indices, or None.
        config: the optimisation.
        about: what is trained, of JSON's types: compared with what a checkpoint in ``out`` was computed from, and
            stored as the metadata of ``network.npz``, with the number of ``images_seen``.
        tick_kimg: thousands of images between two lines of the log, rounded to whole updates.
        checkpoint_kimg: thousands of images between two checkpoints, rounded to whole ticks.
        start: layers that begin with these weights rather than at random.

    Yields:
        ``(images seen, images in all)``: where the training goes on, and after each call of some updates.

    Raises:
        InputError: images and labels do not fit the network, an interval is not positive, or the directory holds
            another training or is damaged; nothing has been written then. Or a file cannot be written.
        FloatingPointError: the loss is not finite.
    """
    for name, kimg in (("tick_kimg", tick_kimg), ("checkpoint_kimg", checkpoint_kimg)):
        require(is_number(kimg) and 0 < kimg < math.inf, name, kimg, "positive and finite")
    mesh = parallel.data_mesh()
    check_data(network, images, labels)
    check_batch(config, mesh, images.shape[1:])
    out, start = Path(out), start or {}
    batch, total = config.batch_size, config.total_steps
    tick = max(1, round(tick_kimg * 1000 / batch))
    # A whole number of ticks, so that an interruption cuts no tick of the log in two.
    save_every = tick * max(1, round(checkpoint_kimg / tick_kimg))
    out.mkdir(parents=True, exist_ok=True)
    path, log, lead = out / "network.npz", out / "stats.jsonl", parallel.is_lead()

    with TrainingCheckpoints(out / "checkpoints", about=about) as checkpoints:
        state = initial_state(network, config)
        state = {**state, "params": state["params"] | start, "ema": state["ema"] | jax.tree.map(jnp.copy, start)}
        if "more_ema" in state:
            state["more_ema"] = [average | jax.tree.map(jnp.copy, start) for average in state["more_ema"]]
        state = parallel.put(state, parallel.replicated(mesh))
        if checkpoints.latest_step() is not None:
            state = checkpoints.load(state)
        done = int(state["step"])

        def publish(state: PyTree, step: int) -> None:
            """The averaged networks of a checkpoint."""
            known = {**about, "images_seen": step * batch}
            save_network(path, network, state["ema"], known)
            for std, average in zip(config.power_ema_stds, [state["ema"], *state.get("more_ema", [])]):
                (out / AVERAGES).mkdir(exist_ok=True)
                save_network(average_file(out, step * batch, std), network, average, {**known, "power_ema_std": std})

        if done and lead:
            # The kill may have come between a checkpoint and its network.
            publish(state, done)
        kept = [json.dumps(line) + "\n" for line in read_log(log) if line["step"] <= done]
        allowed = f"{-(-done // tick)} (remove {out / 'checkpoints'} to train from the start)"
        require(len(kept) == -(-done // tick), f"{log}: lines up to step {done}", len(kept), allowed)
        if lead:
            write_atomic(log, lambda file: file.write("".join(kept).encode()))
        yield done * batch, total * batch
        calls: list[dict[str, Any]] = []
        together, stops = updates_together(config, network.shape), range(tick, total, tick)
        for latest, info in train_steps(network, state, images, labels, config, mesh, together=together, stops=stops):
            step, last = info["step"], info["step"] == total
            calls.append(info)
            if step % tick == 0 or last:
                loss, calls = mean_loss(calls), []
                if not np.isfinite(loss):
                    raise FloatingPointError(f"the training loss is {loss} in the tick that ends at step {step}")
                seen, overflows = step * batch, int(latest["nonfinite"])
                line = {"step": step, "images_seen": seen, "loss": loss, "nonfinite": overflows}
                if lead:
                    _append(log, json.dumps(line) + "\n")
            if step % save_every == 0 or last:
                checkpoints.save(step, latest)
                if lead:
                    publish(latest, step)
            yield step * batch, total * batch
    parallel.barrier("trained")


def read_log(path: Path) -> list[dict[str, Any]]:
    """The ticks in ``stats.jsonl``: complete lines only, for a kill may have cut off the last one; none where there is
    no file.

    Each has ``step``, ``images_seen``, the mean ``loss`` since the tick before, and ``nonfinite``, the number of
    entries of gradients so far that were not finite.

    Raises:
        InputError: the file cannot be read, or a line is not one of a log.
    """
    allowed, remedy = "the log of a training", "remove it and checkpoints/ to train from the start"
    with guarded(path, allowed, advice=remedy):
        if not os.path.lexists(path):
            return []
        text = read_bytes(path, MAX_JSON, allowed).decode("utf-8")
        lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        ticks = [{name: line[name] for name in ("step", "images_seen", "loss", "nonfinite")} for line in lines]
        for number, tick in enumerate(ticks, 1):
            for name, value in tick.items():
                kind, wanted = (float, "a finite number") if name == "loss" else (int, "a whole number")
                # The exact type: True is an int, too. JSON's reader makes nothing else of a number.
                if type(value) is not kind or not math.isfinite(value):
                    raise InputError(f"{path}: line {number}: {name} is {value!r}; must be {wanted} ({remedy})")
        return ticks


def _append(path: Path, line: str) -> None:
    """Add a line, which is on disk when this returns."""
    try:
        with path.open("a") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); must stay and have room on its disk"
        ) from error
