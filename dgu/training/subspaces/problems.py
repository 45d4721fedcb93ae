"""Many small problems of subspace recovery, of several ranks and sizes, padded to one array."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Integer, Num

from dgu.core.arrays import as_jax_floats
from dgu.core.errors import require
from dgu.core.keys import threefry
from dgu.core.typing import Key, Scalar
from dgu.models.molrg import basis_of


class Problems(NamedTuple):
    """P problems: find K subspaces of one rank from N points on each. A pytree; its leaves share the leading axis.

    Attributes:
        rows: ``(P, K m, n)``, component by component, m the largest N; 0 where a problem has fewer.
        present: ``(P, K m)``, which rows are data rather than padding.
        truth: ``(P, K, n, r)`` true bases, mutually orthogonal, r the largest rank; columns of 0 beyond the rank.
        noise: ``(P, K)`` the sum of squared norms of the noise on a component's points.
        ranks, sizes: ``(P,)`` rank d, and points N on each subspace.
    """

    rows: Array
    present: Array
    truth: Array
    noise: Array
    ranks: Array
    sizes: Array


def low_rank_problems(
    key: Key,
    ranks: Integer[ArrayLike, " P"],
    sizes: Integer[ArrayLike, " P"],
    trials: Integer[ArrayLike, " P"],
    *,
    dimension: int,
    components: int,
    noise: float = 0.0,
    width: int | None = None,
    length: int | None = None,
) -> Problems:
    """The noisy mixture (9), equally many points on each of K orthogonal subspaces: ``x_i = U_k a_i + e_i``.

    ``a_i ~ N(0, I_d)``, ``e_i ~ N(0, noise^2 I_n)``; a problem depends on ``(key, rank, size, trial)`` alone, given
    ``width``, ``length`` and the other options. One compiled program for all problems of one padded shape.

    Args:
        ranks: d of each problem, 1 or more.
        sizes: N of each, points on each subspace, 1 or more.
        trials: number of each among those of its rank and size.
        dimension: n of the space.
        components: K.
        noise: standard deviation of each coordinate of e.
        width, length: columns and points to pad to; by default the largest rank and size.

    Raises:
        InputError: K subspaces of the largest rank that do not fit in the dimension, sizes or ranks below 1, ``noise``
            negative or not finite.
    """
    key = threefry(key)
    d, size, trial = (np.asarray(given) for given in (ranks, sizes, trials))
    wide, long = int(d.max()) if width is None else width, int(size.max()) if length is None else length
    require(components >= 1, "components", components, "1 or more")
    require(
        1 <= d.min() and d.max() <= wide < 2**15, "ranks", [int(d.min()), int(d.max())], f"from 1 to width = {wide}"
    )
    require(
        1 <= size.min() and size.max() <= long < 2**16, "sizes", [int(size.min()), int(size.max())], f"from 1 to {long}"
    )
    require(components * wide <= dimension, "width", wide, f"such that {components} of it fit in dimension {dimension}")
    require(0 <= noise < np.inf, "noise", noise, "0 or more and finite")
    return _problems(dimension, components, wide, long, key, d, size, trial, np.asarray(noise, float))


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _problems(
    dimension: int,
    components: int,
    width: int,
    length: int,
    key: Key,
    d: Array,
    size: Array,
    trial: Array,
    noise: Array,
) -> Problems:
    def one(rank: Array, count: Array, number: Array) -> Problems:
        own = jax.random.fold_in(jax.random.fold_in(key, number), rank * 2**16 + count)
        # One draw for everything: each call of the generator costs a second of compilation.
        shapes = ((dimension, components * width), (components, length, width), (components, length, dimension))
        ends = np.cumsum([math.prod(shape) for shape in shapes])
        draws = jnp.split(jax.random.normal(own, (int(ends[-1]),), noise.dtype), ends[:-1])
        directions, inside, off = (part.reshape(shape) for part, shape in zip(draws, shapes))
        columns = (jnp.arange(width) < rank).astype(noise.dtype)
        whole = basis_of(directions).reshape(dimension, components, width)
        truth = jnp.moveaxis(whole, 1, 0) * columns[None, None]
        here = jnp.arange(length) < count
        off = noise * off * here[None, :, None]
        clean = jnp.einsum("kmr,knr->kmn", inside, truth, precision=jax.lax.Precision.HIGHEST)
        rows = clean * here[None, :, None] + off
        return Problems(
            rows=rows.reshape(components * length, dimension),
            present=jnp.tile(here, components),
            truth=truth,
            noise=jnp.sum(jnp.square(off), axis=(1, 2)),
            ranks=rank,
            sizes=count,
        )

    return jax.vmap(one)(d, size, trial)


def truth_starts(key: Key, truth: Num[ArrayLike, "P K n r"], scale: Scalar = 0.2) -> Float[Array, "P K n r"]:
    """The initial bases (45) near the truth: ``U_k + scale Delta_k``, Delta of independent standard normal numbers.

    Columns beyond the rank stay 0. The problem in row p has the draw number p of ``key``.
    """
    key = threefry(key)
    truth = as_jax_floats("truth", truth)
    return _near(key, truth, scale)


def random_starts(key: Key, truth: Num[ArrayLike, "P K n r"], scale: Scalar | None = None) -> Float[Array, "P K n r"]:
    """Initial bases that depend on the truth only by its rank: normal numbers with standard deviation ``scale``.

    By default that is ``n^-1/2``, which gives columns of length about 1, as the truth's. From standard normal entries,
    columns longer by ``sqrt(n)``, SGD diverges at learning rates that suit the others.
    """
    key = threefry(key)
    truth = as_jax_floats("truth", truth)
    return _scaled(key, truth, truth.shape[2] ** -0.5 if scale is None else scale)


@jax.jit
def _near(key: Key, truth: Array, scale: Scalar) -> Array:
    return truth + scale * _draws(key, truth)


@jax.jit
def _scaled(key: Key, truth: Array, scale: Scalar) -> Array:
    return jnp.asarray(scale, truth.dtype) * _draws(key, truth)


@jax.jit
def _draws(key: Key, truth: Array) -> Array:
    """Standard normal numbers of the shape of ``truth``, 0 in its columns of 0; row p has the draw number p of
    ``key``.
    """
    there = jnp.any(truth != 0, axis=2, keepdims=True).astype(truth.dtype)
    draws = jax.vmap(lambda p: jax.random.normal(jax.random.fold_in(key, p), truth.shape[1:], truth.dtype))
    return draws(jnp.arange(truth.shape[0])) * there
