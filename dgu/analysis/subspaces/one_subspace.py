"""The denoising loss of one subspace by drawn noise, and its minimum by gradient descent: two ways round
``exact_loss``, which Theorem 1 of Wang et al. (arXiv 2409.02426) rests on."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from dgu.analysis.subspaces.distances import orthonormalised
from dgu.core.arrays import as_jax_floats
from dgu.core.errors import require, require_whole
from dgu.core.keys import threefry
from dgu.models import HardmaxNetwork
from dgu.training.subspaces.sgd import TimeGrid, exact_loss


def drawn_loss(
    basis: Num[ArrayLike, "n r"] | Num[ArrayLike, "K n r"], rows: Num[ArrayLike, "m n"], grid: TimeGrid, keys: Any
) -> Float[np.ndarray, " k"]:
    """The denoising loss of ``zeta_t U U^T x_t`` with drawn noise, ``exact_loss`` on average; in float64.

    Of several bases, that of the hard-max network (15, 16), which projects onto the subspace that the clean example
    chooses.

    A value for each of the ``keys`` ``(k,)``: the mean over rows and times of ``|zeta U U^T (s x0 + gamma eps) -
    x0|^2``, with one standard normal ``eps`` for each row and time.

    Args:
        basis: ``(n, r)``, or ``(K, n, r)``.
        rows: clean examples ``(m, n)``.
        grid: scales and noise levels of the times.
        keys: a vector of keys.
    """
    basis, rows, keys = as_jax_floats("basis", basis), as_jax_floats("rows", rows), threefry(keys, "keys", shape=None)
    scale, noise = (jnp.asarray(part, rows.dtype) for part in grid)
    bases = basis if basis.ndim == 3 else basis[None]
    return np.asarray(_drawn_losses(HardmaxNetwork(bases), rows, scale, noise, keys), np.float64)


@jax.jit
def _drawn_losses(network: HardmaxNetwork, rows: Array, scale: Array, noise: Array, keys: Array) -> Array:
    over_rows = jax.vmap(network, in_axes=(0, 0, None, None))

    def one(key: Array) -> Array:
        eps = jax.random.normal(key, (len(scale), *rows.shape), rows.dtype)
        noisy = scale[:, None, None] * rows[None] + noise[:, None, None] * eps
        out = jax.vmap(over_rows, in_axes=(0, None, 0, 0))(noisy, rows, noise, scale)
        return jnp.mean(jnp.sum(jnp.square(out - rows[None]), axis=2))

    return jax.lax.map(one, keys)


def descend_exact_loss(
    starts: Num[ArrayLike, "k n r"], rows: Num[ArrayLike, "m n"], grid: TimeGrid, *, rate: float | int, steps: int
) -> Float[Array, "k n r"]:
    """Gradient descent on ``exact_loss`` over orthonormal columns, from each of the ``starts``.

    After every step of length ``rate`` the columns are replaced by the nearest orthonormal ones. Theorem 1: the end is
    the subspace of ``principal_basis`` wherever the start is.

    Raises:
        InputError: ``rate`` not positive and finite, or ``steps`` below 1.
    """
    require(0 < rate < np.inf, "rate", rate, "positive and finite")
    require_whole("steps", steps, 1)

    @jax.jit
    def descended(starts: Array, rows: Array) -> Array:
        slope = jax.vmap(jax.grad(exact_loss), in_axes=(0, None, None))

        def step(_: Array, bases: Array) -> Array:
            return orthonormalised(bases - rate * slope(bases, rows, grid))

        return jax.lax.fori_loop(0, steps, step, starts)

    return descended(as_jax_floats("starts", starts), as_jax_floats("rows", rows))
