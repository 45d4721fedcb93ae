"""Samples from given initial noise: one compiled program for any distribution of the noise, with churn and without."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Num

from dgu.core import keys
from dgu.core.arrays import as_examples, as_floats, as_plain
from dgu.core.chunks import check_chunk
from dgu.core.denoisers import as_pytree
from dgu.core.errors import require
from dgu.core.labels import checked_labels
from dgu.core.parallel import own_devices
from dgu.core.typing import Denoiser, Key, PyTree
from dgu.samplers.heun import heun
from dgu.samplers.schedules import Churn, check_churn, check_sigmas


@functools.partial(jax.jit, static_argnames="dtype")
def _run(
    denoiser: Denoiser,
    starts: Float[ArrayLike, " b *event"],
    key: Key,
    indices: Int[ArrayLike, " b"],
    label: PyTree,
    sigmas: Float[ArrayLike, " levels"],
    churn: Churn,
    dtype: str,
) -> PyTree:
    conditioned = denoiser if label is None else denoiser.given(label)  # type: ignore[attr-defined]

    def one(start: ArrayLike, index: ArrayLike) -> PyTree:
        return heun(conditioned, jnp.asarray(start, dtype), sigmas, key=keys.example_key(key, index), churn=churn)

    return jax.vmap(one)(jnp.asarray(starts), jnp.asarray(indices))


def sample_from(
    denoiser: Denoiser,
    key: Key,
    starts: Num[np.ndarray, " n *event"],
    sigmas: Num[np.ndarray, " levels"],
    *,
    label: ArrayLike | None = None,
    churn: Churn = Churn(),  # noqa: B008 - frozen
    batch_size: int = 64,
    devices: Sequence[jax.Device] | None = None,
) -> Float[np.ndarray, " n *event"]:
    """The Heun sampler from n given starts, which ``dgu.samplers.sample`` would draw by itself.

    Start i is followed with the noise of sample i, ``dgu.keys.step_noise(key, i, step, shape)``. ``sample`` compiles
    for each distribution of the initial noise and for churn or none; here both are data, and one program serves. Over
    all local devices, chunks of ``batch_size`` in turn.

    Args:
        denoiser: as of ``sample``.
        key: of the noise of the steps.
        starts: states at ``sigmas[0]``, already scaled by it; their dtype is that of the computation.
        sigmas: noise levels falling to 0.
        label: the class of all, for a denoiser with ``given(label)``: an integer, or a vector as ``sample`` takes it.
        churn: how much noise is added.
        batch_size: examples on a device at a time.
        devices: all local ones by default.

    Raises:
        InputError: a grid, churn value, class or batch size out of range, or no starts.
        FloatingPointError: a sample that is not finite, naming its number.
    """
    key = keys.threefry(key)
    starts = as_examples("starts", starts)
    check_sigmas(sigmas)
    check_churn(churn)
    require(len(starts) >= 1, "starts", f"{len(starts)} states", "1 or more")
    check_chunk("batch_size", batch_size, starts.shape[1:], starts.dtype)
    dtype = str(starts.dtype)
    amount = jax.tree.map(lambda value: np.asarray(value, starts.dtype), churn)
    grid = as_floats("sigmas", sigmas).astype(starts.dtype)
    places = list(own_devices() if devices is None else devices)
    classes = None if label is None else checked_labels(denoiser, as_plain("label", label)[None], 1)
    wanted = None if classes is None else classes[0]
    resident = [jax.device_put((as_pytree(denoiser), key, wanted, grid, amount), place) for place in places]
    results = []
    for number, first in enumerate(range(0, len(starts), batch_size)):
        # The last chunk is filled up by its own last start.
        rows = np.minimum(np.arange(first, first + batch_size), len(starts) - 1)
        model, stream, of_class, levels, added = resident[number % len(places)]
        chunk = jax.device_put((starts[rows], rows.astype(np.int32)), places[number % len(places)])
        results.append(_run(model, chunk[0], stream, chunk[1], of_class, levels, added, dtype=dtype))
    samples = np.concatenate([np.asarray(result) for result in results])[: len(starts)]
    finite = np.isfinite(samples).reshape(len(samples), -1).all(axis=1)
    if not finite.all():
        raise FloatingPointError(f"sample {int(np.argmin(finite))} is not finite")
    return samples
