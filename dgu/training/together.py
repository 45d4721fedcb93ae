"""Many dense denoisers trained at once, each on its own data: one compiled program for a whole grid of runs.

``jax.vmap`` over the networks turns their products into batched ones, which use the cores as well as large products do.
(On CPU that does not hold for convolutions: networks of them are trained side by side, see ``dgu.training.in_turn``.)
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Integer, Num

from dgu.core.arrays import as_floats
from dgu.core.chunks import check_chunk
from dgu.core.errors import InputError, require
from dgu.core.keys import threefry
from dgu.core.typing import Key, PyTree
from dgu.training.config import TogetherConfig
from dgu.training.losses import edm_sigma


def train_together(
    denoisers: PyTree,
    data: Num[ArrayLike, "R most *event"],
    counts: Integer[ArrayLike, " R"],
    keys: Any,
    config: TogetherConfig = TogetherConfig(),
    progress: Callable[[int, int], object] | None = None,
) -> tuple[PyTree, Float[np.ndarray, " R"]]:
    """Train R denoisers of one structure, number r on the first ``counts[r]`` rows of ``data[r]``.

    Each minimises the mean over examples, noise levels and noise of ``w(sigma) |D(y + sigma eps; sigma) - y|^2 / d``
    with EDM's ``w = (sigma^2 + sd^2) / (sigma sd)^2``. Network r draws from its own key by the number of the step: its
    result does not depend on the other networks, except for rounding.

    Args:
        denoisers: a pytree with a leading axis R on every leaf, such as ``jax.vmap`` of ``MLPDenoiser.init``; it has
            ``sigma_data``.
        data: training examples, padded to one number of rows.
        counts: how many of the rows are data rather than padding, 1 or more.
        keys: a key for each network, ``(R,)``.
        config: the optimisation.
        progress: called as ``progress(steps done, steps)``.

    Returns:
        The trained denoisers, and each one's loss averaged over the last chunk.

    Raises:
        InputError: shapes that do not fit, counts out of range, or data that are not finite.
        FloatingPointError: a loss that is not finite.

    Karras et al. 2022 (the loss).
    """
    rows, sizes = as_floats("data", data), np.asarray(counts)
    number = len(rows)
    check_chunk("config.batch_size", config.batch_size, rows.shape[2:])
    leaves = jax.tree.leaves(denoisers)
    fits = rows.ndim >= 3 and all(leaf.shape[:1] == (number,) for leaf in leaves)
    require(fits, "data.shape", rows.shape, "(R, most, *event), R that of the denoisers")
    require(sizes.shape == (number,), "counts.shape", sizes.shape, f"({number},), one for each network")
    keys = threefry(keys, "keys", shape=(number,))
    inside = bool((sizes >= 1).all() and (sizes <= rows.shape[1]).all())
    require(inside, "counts", sizes.tolist(), f"from 1 to the {rows.shape[1]} rows there are")
    require(bool(np.isfinite(rows).all()), "data", "non-finite", "finite")
    if not hasattr(denoisers, "sigma_data"):
        raise InputError(f"denoisers = {type(denoisers).__name__}: must have sigma_data, such as an MLPDenoiser")
    start, chunk = _programs(config)
    state = start(denoisers)
    given = jnp.asarray(rows, jnp.float32), jnp.asarray(sizes, jnp.int32), keys
    for first in range(0, config.steps, config.chunk):
        # Every chunk runs the same program; beyond the last step the step size is 0.
        state, losses = chunk(state, *given, jnp.int32(first))
        if progress is not None:
            jax.block_until_ready(losses)
            progress(min(first + config.chunk, config.steps), config.steps)
    final = np.asarray(losses, np.float64)
    if not np.isfinite(final).all():
        raise FloatingPointError(f"the training loss of network {int(np.argmin(np.isfinite(final)))} is not finite")
    return state[0], final


@lru_cache(maxsize=8)
def _programs(config: TogetherConfig) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The optimiser's start, and the compiled chunk of steps."""
    optimizer = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps))

    def loss(denoiser: Any, data: Array, count: Array, key: Key) -> Array:
        pick, level, noise = jax.random.split(key, 3)
        rows = jax.random.randint(pick, (config.batch_size,), 0, count)
        clean = data[rows]
        sigmas = edm_sigma(jax.random.normal(level, (config.batch_size,)), config.p_mean, config.p_std)
        eps = jax.random.normal(noise, clean.shape)
        sd = denoiser.sigma_data

        def one(y: Array, sigma: Array, eps: Array) -> Array:
            weight = (jnp.square(sigma) + sd**2) / jnp.square(sigma * sd)
            return weight * jnp.mean(jnp.square(denoiser(y + sigma * eps, sigma) - y))

        return jnp.mean(jax.vmap(one)(clean, sigmas, eps))

    @jax.jit
    def start(denoisers: PyTree) -> PyTree:
        return denoisers, jax.vmap(optimizer.init)(denoisers)

    @jax.jit
    def chunk(state: PyTree, data: Array, counts: Array, keys: Array, first: Array) -> tuple[PyTree, Array]:
        def step(carry: PyTree, number: Array) -> tuple[PyTree, tuple[Array, Array]]:
            def one(denoiser: Any, moments: Any, data: Array, count: Array, key: Key) -> tuple[Any, ...]:
                value, gradient = jax.value_and_grad(loss)(denoiser, data, count, jax.random.fold_in(key, number))
                change, moved = optimizer.update(gradient, moments, denoiser)
                return (optax.apply_updates(denoiser, change), moved), value

            denoisers, moments = carry
            after, values = jax.vmap(one)(denoisers, moments, data, counts, keys)
            return after, (values, number < config.steps)

        state, (values, counted) = jax.lax.scan(step, state, first + jnp.arange(config.chunk, dtype=jnp.int32))
        shares = counted.astype(values.dtype) / jnp.maximum(1, jnp.sum(counted)).astype(values.dtype)
        return state, jnp.sum(values * shares[:, None], axis=0)

    return start, chunk
