"""Denoising autoencoders: a network for each noise level, trained by plain denoising score matching.

    loss(params) = mean over batch and entries of (D(y + sigma eps; sigma) - y)^2

at ONE sigma each, D with no part of the input in its output (Li et al., arXiv 2410.24060, (3) and Fig 24). Networks of
matrix products are trained for all levels together, as one program mapped over parameters and levels; convolutional
networks one after another through one compiled step, with the level as an argument: on CPUs, convolutions mapped over
parameters become grouped ones, and their gradients inside a scan run ten times slower.

Which image comes when, and its noise, are addressed by the number of the training image and of the level: a run that
was stopped and started again, or that trains a level alone, sees the same draws.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps", self.steps, "1 or more")
        require(self.batch_size >= 2, "batch_size", self.batch_size, "2 or more")
        require(0 < self.learning_rate < math.inf, "learning_rate", self.learning_rate, "positive and finite")
        require(0 <= self.seed < 2**31, "seed", self.seed, "from 0 to 2**31 - 1")


def dsm_loss(
    network: Network,
    params: PyTree,
    images: Num[ArrayLike, "b *event"],
    noisy: Num[ArrayLike, "b *event"],
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


def trains_together(network: Network) -> bool:
    """Whether a network is made of matrix products alone, so that levels are trained together by ``vmap``."""
    return isinstance(network, LinearNetwork) or (
        isinstance(network, EDMNetwork) and isinstance(network.unet, DiTConfig)
    )


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
    known = isinstance(network, EDMNetwork)
    params = network.abstract_params if known else jax.eval_shape(network.init, keys.seeded(0))
    optimizer = jax.eval_shape(_ADAM.init, params)
    state = {"params": params, "optimizer": optimizer, "step": shape((), jnp.int32)}
    state = jax.tree.map(lambda leaf: shape((levels, *leaf.shape), leaf.dtype), state)
    images, batch = shape((count, *network.shape), jnp.float32), shape((config.batch_size,), jnp.int32)
    own = [shape((levels,), jnp.float32), shape((levels,), jnp.int32)]
    return partial(_step, network=network, config=config), [state, images, batch, batch, *own]


def train_levels(
    network: Network,
    state: PyTree,
    images: Num[ArrayLike, "n *event"],
    sigmas: Num[ArrayLike, "levels"],
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
    batch = (jnp.asarray(rows), jnp.asarray(levels, rows.dtype), jnp.asarray(numbers, jnp.int32))
    # A copy: what is donated must not be the caller's.
    state = jax.tree.map(jnp.array, state)
    groups = _groups(network, len(levels))
    parts, losses, done, total = [], [], 0, (last - first) * len(levels)
    for group in groups:
        one = {"network": network, "config": config}
        given = [part[group] for part in batch[1:]]
        part, seen = jax.tree.map(lambda leaf, group=group: leaf[group], state), []
        for step in range(first, last):
            start = step * config.batch_size
            chosen = image_order(config.seed, len(rows), start, config.batch_size).astype(np.int32)
            images_seen = (np.arange(start, start + config.batch_size) % 2**31).astype(np.int32)
            part, loss = _step(part, batch[0], chosen, images_seen, *given, **one)
            seen.append(loss)
            done += len(group)
            if step % 16 == 15 or step + 1 == last:
                _require_finite(np.asarray(loss), levels[group], step)
                if progress is not None:
                    progress(done, total)
        parts.append(part)
        losses.append(np.stack([np.asarray(loss) for loss in seen], axis=1) if seen else np.zeros((len(group), 0)))
    found = np.concatenate(losses)
    for step in range(found.shape[1]):
        _require_finite(found[:, step], levels, first + step)
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts), found.astype(np.float64)


def train_stored_levels(
    network: Network,
    images: Num[ArrayLike, "n *event"],
    sigmas: Num[ArrayLike, "levels"],
    config: LevelTraining,
    *,
    every: int,
    stored: Callable[[str, Callable[[], dict[str, Any]]], Mapping[str, Any]],
    progress: Callable[[int, int], object] | None = None,
) -> tuple[LevelDenoisers, Float[np.ndarray, "levels steps"]]:
    """Train a network for each noise level from the start to the end, in pieces that are stored.

    Levels that do not train together (see ``trains_together``) are trained one after another. A run that was killed
    goes on behind the last piece that ``stored`` returns without computing it.

    Args:
        network: its architecture.
        images: clean images, two or more.
        sigmas: noise levels, positive.
        config: the optimisation.
        every: updates in a piece.
        stored: ``stored(name, compute)`` returns the arrays of ``compute()`` by name, or those of an earlier call of
            this name; names are ``"all-0"``, ``"all-1"`` ... or, of levels trained alone, ``"0-0"`` ... ``"1-0"`` ...
        progress: called as ``progress(steps done, steps)``, summed over the levels; those of stored pieces count.

    Returns:
        The denoiser of all levels, and the loss of every step, ``(L, steps)``.

    Raises:
        InputError: ``every`` is no whole number from 1, and as ``train_levels``.
    """
    require_whole("every", every)
    levels = as_doubles("sigmas", sigmas)
    groups = _groups(network, len(levels))
    alike = initial_levels(network, 1, config)
    structure: Any = jax.tree.structure(alike)

    done, total = 0, config.steps * len(levels)

    def report(steps: int) -> None:
        if progress is not None:
            progress(steps, total)

    def piece(state: PyTree, group: np.ndarray, until: int) -> dict[str, Any]:
        state, seen = train_levels(
            network,
            state,
            images,
            levels[group],
            config,
            places=group,
            until=until,
            progress=lambda steps, _: report(done + steps),
        )
        return {f"leaf{number}": leaf for number, leaf in enumerate(jax.tree.leaves(state))} | {"losses": seen}

    params, curves = [], []
    for group in groups:
        state: Any = jax.tree.map(partial(jnp.repeat, repeats=len(group), axis=0), alike)
        losses = []
        for number, start in enumerate(range(0, config.steps, every)):
            until = min(start + every, config.steps)
            name = f"{'all' if len(groups) == 1 else group[0]}-{number}"
            found = stored(name, partial(piece, state, group, until))
            state = jax.tree.unflatten(structure, [found[f"leaf{leaf}"] for leaf in range(structure.num_leaves)])
            losses.append(found["losses"])
            done += (until - start) * len(group)
            report(done)
        params.append(state["params"])
        curves.append(np.concatenate(losses, axis=1))
    trained = jax.tree.map(lambda *leaves: np.concatenate(leaves), *params)
    one = network.denoiser(trained) if isinstance(network, EDMNetwork) else NetworkDenoiser(trained, network)
    return LevelDenoisers(levels, one), np.concatenate(curves)


@partial(jax.jit, static_argnames=("network", "config"), donate_argnums=0)
def _step(
    state: PyTree,
    images: Float[Array, "n *event"],
    rows: Int[Array, "b"],
    numbers: Int[Array, "b"],
    sigmas: Float[Array, "levels"],
    places: Int[Array, "levels"],
    *,
    network: Network,
    config: LevelTraining,
) -> tuple[PyTree, Float[Array, "levels"]]:
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
    images: Float[Array, "b *event"],
    numbers: Int[Array, "b"],
    sigma: Scalar,
    place: Int[Array, ""],
    key: Key,
) -> tuple[PyTree, Float[Array, ""]]:
    noisy = jax.vmap(lambda image, number: noisy_input(key, image, number, sigma, place))(images, numbers)
    (loss, seen), slope = jax.value_and_grad(lambda p: dsm_loss(network, p, images, noisy, sigma), has_aux=True)(
        state["params"]
    )
    direction, optimizer = _ADAM.update(slope, state["optimizer"])
    rate = optax.cosine_decay_schedule(config.learning_rate, config.steps)(state["step"])

    def moved(path: tuple[Any, ...], old: Array, new: Array, move: Array) -> Array:
        """The next value: a running average as the network has moved it, a parameter as Adam has."""
        return new if path[-1].key in ("mean", "var") else old - (rate * move).astype(old.dtype)

    params = jax.tree_util.tree_map_with_path(moved, state["params"], seen, direction)
    return {"params": params, "optimizer": optimizer, "step": state["step"] + 1}, loss


def _groups(network: Network, levels: int) -> list[np.ndarray]:
    """Numbers of the levels that train together: all of them, or each alone."""
    every = np.arange(levels)
    return [every] if trains_together(network) else list(every[:, None])


def _require_finite(losses: np.ndarray, sigmas: np.ndarray, step: int) -> None:
    bad = np.flatnonzero(~np.isfinite(losses))
    if bad.size:
        raise InputError(f"non-finite loss at sigma = {sigmas[bad[0]]:.6g}, step {step}: must be finite")
