"""Samples of many denoisers of one structure at once, the counterpart of ``dgu.training.train_together``."""

from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from dgu.core.arrays import as_floats
from dgu.core.errors import require, require_whole
from dgu.core.keys import threefry
from dgu.core.typing import PyTree
from dgu.distributions.bases import initial_noise
from dgu.samplers.heun import heun
from dgu.samplers.schedules import check_sigmas


def sample_together(
    denoisers: PyTree, keys: Any, count: int, sigmas: Num[ArrayLike, " levels"], *, shape: tuple[int, ...]
) -> Float[np.ndarray, "R count *event"]:
    """Samples number 0 to ``count - 1`` of each of R denoisers by Heun's method, in one compiled program.

    Denoiser r samples from its own key, as ``dgu.samplers.sample`` would, but for rounding. All samples are in memory
    at once: for small networks and examples.

    Args:
        denoisers: a pytree with a leading axis R on every leaf, such as ``train_together`` returns.
        keys: a key for each denoiser, ``(R,)``.
        count: samples of each.
        sigmas: noise levels falling to 0.
        shape: of one example.

    Raises:
        InputError: keys that are not one for each denoiser, ``count`` below 1, or levels that do not fall to 0.
        FloatingPointError: a sample that is not finite.
    """
    check_sigmas(sigmas)
    require_whole("count", count, 1)
    numbers = {int(np.shape(leaf)[0]) for leaf in jax.tree.leaves(denoisers)}
    require(len(numbers) == 1, "denoisers", f"leading axes of {sorted(numbers)}", "leaves of one leading axis")
    keys = threefry(keys, "keys", shape=(numbers.pop(),))
    grid = as_floats("sigmas", sigmas).astype(np.float32)
    samples = np.asarray(_sampled(denoisers, keys, np.arange(count), grid, shape=tuple(shape)))
    if not np.isfinite(samples).all():
        raise FloatingPointError("a sample is not finite")
    return samples


@partial(jax.jit, static_argnames="shape")
def _sampled(denoisers: Any, keys: Array, indices: Array, grid: Array, *, shape: tuple[int, ...]) -> Array:
    def one(denoiser: Any, key: Array, index: Array) -> Array:
        return heun(denoiser, grid[0] * initial_noise(key, index, shape), grid)

    return jax.vmap(lambda denoiser, key: jax.vmap(lambda index: one(denoiser, key, index))(indices))(denoisers, keys)
