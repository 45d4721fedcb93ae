"""Denoising autoencoders: a network for each noise level, trained by plain denoising score matching.

    loss(params) = mean over batch and entries of (D(y + sigma eps; sigma) - y)^2

at ONE sigma each, D with no part of the input in its output (Li et al., arXiv 2410.24060, (3) and Fig 24). The levels
are spread over all devices and hosts. Networks of matrix products are trained for all levels of a device together, as
one program mapped over parameters and levels; convolutional networks, and those whose gradient is cut into
micro-batches, one after another through one compiled step, with the level as an argument: on CPUs, convolutions mapped
over parameters become grouped ones, and their gradients inside a scan run ten times slower.

Which image comes when, and its noise, are addressed by the number of the training image and of the level: a run that
was stopped and started again, or that trains a level alone, sees the same draws.
"""

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Integer, Num

from dgu.core import keys
from dgu.core.arrays import as_doubles, as_jax_floats
from dgu.core.chunks import check_chunk
from dgu.core.errors import InputError, require, require_whole
from dgu.core.noisy import checked_images, noisy_input
from dgu.core.parallel import run_jobs, run_stored_jobs, shares
from dgu.core.typing import Key, PyTree, Scalar
from dgu.models.dit_config import DiTConfig
from dgu.models.edm import EDMNetwork
from dgu.models.levels import LevelDenoisers, LinearNetwork, Network, NetworkDenoiser
from dgu.models.skipnet import SkipNetwork
from dgu.training.loop import image_order

_ADAM = optax.scale_by_adam()


@dataclass(frozen=True)
class LevelTraining:
    """The optimisation at one noise level: Adam, its rate falling to 0 on half a cosine over the steps."""

    steps: int = 2000
    """Parameter updates."""
    batch_size: int = 128
    """Images an update."""
    learning_rate: float = 1e-3
    """Adam's step size at the start."""
    seed: int = 0
    """Seed of the first parameters, the order of the data and the noise."""
    micro_batch: int | None = None
    """Images per gradient evaluation, to save memory; None is the whole batch."""
    remat: bool = False
    """Compute each block of an ``EDMNetwork`` again for its gradient: less memory, a third more arithmetic."""

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps", self.steps, "1 or more")
        require(self.batch_size >= 2, "batch_size", self.batch_size, "2 or more")
        require(0 < self.learning_rate < math.inf, "learning_rate", self.learning_rate, "positive and finite")
        require(0 <= self.seed < 2**31, "seed", self.seed, "from 0 to 2**31 - 1")
        divides = self.micro_batch is None or (self.micro_batch >= 1 and self.batch_size % self.micro_batch == 0)
        require(divides, "micro_batch", self.micro_batch, f"a divisor of batch_size {self.batch_size}, or None")


def dsm_loss(
    network: Network,
    params: PyTree,
    images: Num[ArrayLike, " b *event"],
    noisy: Num[ArrayLike, " b *event"],
    sigma: Scalar,
) -> tuple[Float[Array, ""], PyTree]:
    """``mean (D(noisy; sigma) - images)^2`` over a batch, and the parameters, with their running averages, if any,
    updated.

    Args:
        network: the network; one with batch normalisation is taken in training mode.
        params: its parameters.
        images: clean images.
        noisy: the same images with noise of level sigma.
        sigma: the noise level.
    """
    images, noisy = as_jax_floats("images", images), as_jax_floats("noisy", noisy)
    if isinstance(network, SkipNetwork):
        out, moved = network.apply_batch(params, noisy, sigma)
    else:
        out, moved = jax.vmap(lambda x: network.apply(params, x, sigma))(noisy), params
    return jnp.mean(jnp.square(out - images)), moved


def trains_together(network: Network, config: LevelTraining) -> bool:
    """Whether a network is made of matrix products alone and its gradient not cut into micro-batches, so that levels
    are trained together by ``vmap``.
    """
    products = isinstance(network, LinearNetwork) or (
        isinstance(network, EDMNetwork) and isinstance(network.unet, DiTConfig)
    )
    return products and config.micro_batch is None


def initial_levels(network: Network, levels: int, config: LevelTraining) -> PyTree:
    """``{"params", "optimizer", "step"}`` before the first update, with a leading axis of levels, which all start
    alike.
    """
    require(levels >= 1, "levels", levels, "1 or more")
    params = network.init(keys.stream(keys.seeded(config.seed), "init"))
    state = {"params": params, "optimizer": _ADAM.init(params), "step": jnp.zeros((), jnp.int32)}
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (levels, *leaf.shape)), state)


def level_update(network: Network, levels: int, count: int, config: LevelTraining) -> tuple[Any, list[Any]]:
    """The program of one update of ``levels`` levels that a device trains together, and the shapes that it takes.

    For a look at what a training costs: nothing is computed.

    Args:
        network: the network of each level.
        levels: number of levels.
        count: number of training images, which lie on the device.
        config: the optimisation.

    Returns:
        A compiled function, and its arguments as ``jax.ShapeDtypeStruct``.
    """
    shape = jax.ShapeDtypeStruct
    # An EDMNetwork knows its shapes without a trace of thousands of draws.
    if isinstance(network, EDMNetwork):
        params = network.abstract_params
    else:
        params = jax.eval_shape(network.init, keys.seeded(0))
    optimizer = jax.eval_shape(_ADAM.init, params)
    state = {"params": params, "optimizer": optimizer, "step": shape((), jnp.int32)}
    state = jax.tree.map(lambda leaf: shape((levels, *leaf.shape), leaf.dtype), state)
    images, batch = shape((count, *network.shape), jnp.float32), shape((config.batch_size,), jnp.int32)
    own = [shape((levels,), jnp.float32), shape((levels,), jnp.int32)]
    return partial(_step, network=network, config=config), [state, images, batch, batch, *own]


def train_levels(
    network: Network,
    state: PyTree,
    images: Num[ArrayLike, " n *event"],
    sigmas: Num[ArrayLike, " levels"],
    config: LevelTraining,
    *,
    places: Sequence[int] | Integer[ArrayLike, "..."] | None = None,
    until: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> tuple[PyTree, Float[np.ndarray, "levels steps"]]:
    """Train a network for each noise level by plain denoising score matching.

    Args:
        network: its architecture.
        state: from ``initial_levels`` or a call before, with an entry a level, all at the same step.
        images: clean images, two or more.
        sigmas: noise levels, positive.
        config: the optimisation.
        places: the number of each level, by which its noise is addressed; 0, 1, ... by default. A level that is trained
            alone under its number takes the same steps as among others.
        until: the step to stop at; ``config.steps`` by default. The learning rate falls over ``config.steps`` in either
            case.
        progress: called as ``progress(steps done, steps)``, summed over the levels.

    Returns:
        The state, and the loss of every step taken, ``(L, steps)``, before its update.

    Raises:
        InputError: values out of range, images of another shape than the network's, or a loss that is not finite (it
            names level and step).
    """
    rows = checked_images(images, 2)
    require(rows.shape[1:] == network.shape, "images.shape[1:]", rows.shape[1:], f"{network.shape}, the network's")
    check_chunk("config.batch_size", config.batch_size, rows.shape[1:], rows.dtype)
    levels = as_doubles("sigmas", sigmas)
    usable = levels.ndim == 1 and levels.size > 0 and bool((np.isfinite(levels) & (levels > 0)).all())
    require(usable, "sigmas", levels.tolist(), "one or more positive and finite levels")
    numbers = np.arange(len(levels)) if places is None else np.asarray(places)
    require(numbers.shape == levels.shape, "places", numbers.tolist(), f"one for each of {len(levels)} levels")
    there = np.unique(np.asarray(state["step"]))
    fits = len(there) == 1 and np.shape(state["step"]) == levels.shape
    require(fits, "state['step']", np.asarray(state["step"]).tolist(), f"one step for all {len(levels)} levels")
    first, last = int(there[0]), config.steps if until is None else until
    require(first <= last <= config.steps, "until", last, f"from {first}, where the state is, to {config.steps}")
    whole = config.micro_batch is None or not isinstance(network, SkipNetwork)
    require(whole, "config.micro_batch", config.micro_batch, "None: batch normalisation takes the whole batch")
    groups = shares(len(levels)) if trains_together(network, config) else _alone(len(levels))
    if config.remat and isinstance(network, EDMNetwork):
        network = replace(network, remat=True)
    told, leaves = _Told(progress, (last - first) * len(levels)), jax.tree.leaves(state)

    def one(rows: Array, place: int) -> dict[str, Any]:
        group, seen = groups[place], []
        # A copy: what is donated must not be the caller's.
        part = jax.tree.map(lambda leaf: jnp.array(np.asarray(leaf)[group]), state)
        at = jnp.asarray(levels[group], rows.dtype), jnp.asarray(numbers[group], jnp.int32)
        for step in range(first, last):
            start = step * config.batch_size
            chosen = image_order(config.seed, len(rows), start, config.batch_size).astype(np.int32)
            images_seen = (np.arange(start, start + config.batch_size) % 2**31).astype(np.int32)
            part, loss = _step(part, rows, chosen, images_seen, *at, network=network, config=config)
            seen.append(loss)
            if step % 16 == 15 or step + 1 == last:
                _require_finite(np.asarray(loss), levels[group], step)
                told.by(place, (step + 1 - first) * len(group))
        losses = np.stack([np.asarray(loss) for loss in seen], axis=1) if seen else np.zeros((len(group), 0))
        for step in range(losses.shape[1]):
            _require_finite(losses[:, step], levels[group], first + step)
        return _as_arrays(part) | {"losses": losses}

    found = list(run_jobs(one, len(groups), jnp.asarray(rows), what="group of levels"))
    parts = [jnp.concatenate([part[f"leaf{number}"] for part in found]) for number in range(len(leaves))]
    losses = np.concatenate([part["losses"] for part in found]).astype(np.float64)
    return jax.tree.unflatten(jax.tree.structure(state), parts), losses


def train_stored_levels(
    network: Network,
    images: Num[ArrayLike, " n *event"],
    sigmas: Num[ArrayLike, " levels"],
    config: LevelTraining,
    *,
    every: int,
    stored: Callable[[str, Callable[[], Mapping[str, Any]]], Mapping[str, Any]],
    progress: Callable[[int, int], object] | None = None,
) -> tuple[LevelDenoisers, Float[np.ndarray, "levels steps"]]:
    """Train a network for each noise level from the start to the end, in pieces that are stored.

    Levels that do not train together (see ``trains_together``) are trained one on each device, and keep step by whole
    pieces. A run that was killed goes on behind the last piece that ``stored`` returns without computing it.

    Args:
        network: its architecture.
        images: clean images, two or more.
        sigmas: noise levels, positive.
        config: the optimisation.
        every: updates in a piece.
        stored: ``stored(name, compute)`` returns the arrays of ``compute()`` by name, or those of an earlier call of
            this name; names are ``"all-0"``, ``"all-1"`` ... or, of levels trained alone, ``"0-0"``, ``"1-0"`` ...
            ``"0-1"`` ...
        progress: called as ``progress(steps done, steps)``, summed over the levels; those of stored pieces count.

    Returns:
        The denoiser of all levels, and the loss of every step, ``(L, steps)``.

    Raises:
        InputError: ``every`` is no whole number from 1, and as ``train_levels``.
    """
    require_whole("every", every)
    levels = as_doubles("sigmas", sigmas)
    alone = not trains_together(network, config)
    groups = _alone(len(levels)) if alone else [np.arange(len(levels))]
    alike = initial_levels(network, 1, config)
    structure: Any = jax.tree.structure(alike)
    states: list[Any] = [jax.tree.map(partial(jnp.repeat, repeats=len(group), axis=0), alike) for group in groups]
    told = _Told(progress, config.steps * len(levels))
    losses: list[list[np.ndarray]] = [[] for _ in groups]

    def piece(_: None, place: int, start: int, until: int) -> dict[str, Any]:
        group = groups[place]
        state, seen = train_levels(
            network, states[place], images, levels[group], config, places=group, until=until,
            progress=lambda steps, _: told.by(place, start * len(group) + steps),
        )  # fmt: skip
        return _as_arrays(state) | {"losses": seen}

    for number, start in enumerate(range(0, config.steps, every)):
        until = min(start + every, config.steps)
        names = [f"{group[0] if alone else 'all'}-{number}" for group in groups]
        job, made = partial(piece, start=start, until=until), []
        for place, found in enumerate(
            run_stored_jobs(job, names, stored=stored, what="level" if alone else "training")
        ):
            made.append(found)
            told.by(place, until * len(groups[place]))
        for place, found in enumerate(made):
            leaves = [found[f"leaf{leaf}"] for leaf in range(structure.num_leaves)]
            states[place] = jax.tree.unflatten(structure, leaves)
            losses[place].append(found["losses"])
    trained = jax.tree.map(lambda *leaves: np.concatenate(leaves), *(state["params"] for state in states))
    one = network.denoiser(trained) if isinstance(network, EDMNetwork) else NetworkDenoiser(trained, network)
    curves = [np.concatenate(parts, axis=1) for parts in losses]
    return LevelDenoisers(levels, one), np.concatenate(curves)


class _Told:
    """Tells how many steps are done in all, of jobs that count their own."""

    def __init__(self, progress: Callable[[int, int], object] | None, total: int):
        self.progress, self.total = progress, total
        self.done: dict[int, int] = {}
        self.lock = threading.Lock()

    def by(self, place: int, steps: int) -> None:
        """The job at ``place`` has done ``steps``."""
        with self.lock:
            before = sum(self.done.values())
            self.done[place] = max(steps, self.done.get(place, 0))
            if self.progress is not None and sum(self.done.values()) > before:
                self.progress(sum(self.done.values()), self.total)


def _as_arrays(state: PyTree) -> dict[str, Any]:
    return {f"leaf{number}": leaf for number, leaf in enumerate(jax.tree.leaves(state))}


@partial(jax.jit, static_argnames=("network", "config"), donate_argnums=0)
def _step(
    state: PyTree,
    images: Float[Array, " n *event"],
    rows: Int[Array, " b"],
    numbers: Int[Array, " b"],
    sigmas: Float[Array, " levels"],
    places: Int[Array, " levels"],
    *,
    network: Network,
    config: LevelTraining,
) -> tuple[PyTree, Float[Array, " levels"]]:
    """One update of every level: mapped where there are several, which there are of networks without convolutions
    only.
    """
    key = keys.stream(keys.seeded(config.seed), "noise")
    batch = images[rows]

    def one(state: PyTree, sigma: Array, place: Array) -> tuple[PyTree, Array]:
        return _update(network, config, state, batch, numbers, sigma, place, key)

    if len(sigmas) > 1:
        return jax.vmap(one)(state, sigmas, places)
    state, loss = one(jax.tree.map(lambda leaf: leaf[0], state), sigmas[0], places[0])
    return jax.tree.map(lambda leaf: leaf[None], state), loss[None]


def _update(
    network: Network,
    config: LevelTraining,
    state: PyTree,
    images: Float[Array, " b *event"],
    numbers: Int[Array, " b"],
    sigma: Scalar,
    place: Int[Array, ""],
    key: Key,
) -> tuple[PyTree, Float[Array, ""]]:
    def gradient(images: Array, numbers: Array) -> tuple[tuple[Array, PyTree], PyTree]:
        noisy = jax.vmap(lambda image, number: noisy_input(key, image, number, sigma, place))(images, numbers)
        found = jax.value_and_grad(lambda p: dsm_loss(network, p, images, noisy, sigma), has_aux=True)(state["params"])
        return found

    if config.micro_batch is None:
        (loss, seen), slope = gradient(images, numbers)
    else:  # Without running averages, which only networks that take the whole batch have.
        parts = len(images) // config.micro_batch

        def accumulate(total: PyTree, micro: tuple[Array, Array]) -> tuple[PyTree, None]:
            (loss, _), slope = gradient(*micro)
            return jax.tree.map(lambda t, new: t + new / parts, total, (loss, slope)), None

        start = jnp.zeros((), images.dtype), jax.tree.map(jnp.zeros_like, state["params"])
        micro = jax.tree.map(lambda a: a.reshape(parts, -1, *a.shape[1:]), (images, numbers))
        (loss, slope), _ = jax.lax.scan(accumulate, start, micro)
        seen = state["params"]
    direction, optimizer = _ADAM.update(slope, state["optimizer"])
    rate = optax.cosine_decay_schedule(config.learning_rate, config.steps)(state["step"])

    def moved(path: tuple[Any, ...], old: Array, new: Array, move: Array) -> Array:
        """The next value: a running average as the network has moved it, a parameter as Adam has."""
        return new if path[-1].key in ("mean", "var") else old - (rate * move).astype(old.dtype)

    params = jax.tree_util.tree_map_with_path(moved, state["params"], seen, direction)
    return {"params": params, "optimizer": optimizer, "step": state["step"] + 1}, loss


def _alone(levels: int) -> list[np.ndarray]:
    """Groups of one level each."""
    return list(np.arange(levels)[:, None])


def _require_finite(losses: np.ndarray, sigmas: np.ndarray, step: int) -> None:
    bad = np.flatnonzero(~np.isfinite(losses))
    if bad.size:
        raise InputError(f"non-finite loss at sigma = {sigmas[bad[0]]:.6g}, step {step}: must be finite")
