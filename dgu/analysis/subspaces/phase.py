"""Phase transitions of subspace recovery: PCA, K-subspaces and SGD on all cells of rank and size and all trials at
once.

Each function is one compiled program for a shape of problems, whatever their ranks and sizes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from dgu.analysis.stats.estimates import Estimate, normal_estimate, proportion
from dgu.analysis.subspaces.clustering import k_subspaces, spectral_labels
from dgu.analysis.subspaces.distances import Recovery, orthonormalised, principal_basis, recovery
from dgu.core.arrays import as_floats, as_jax_floats, to_device
from dgu.core.errors import require
from dgu.core.keys import threefry
from dgu.core.typing import Key
from dgu.training.subspaces.problems import Problems
from dgu.training.subspaces.sgd import TimeGrid, train_subspaces


class Cells(NamedTuple):
    """Rank, size and trial of each problem of a grid, ``(trials * ranks * sizes,)``, trial by trial, sizes running
    fastest.
    """

    ranks: np.ndarray
    sizes: np.ndarray
    trials: np.ndarray


def grid_cells(ranks: Sequence[int], sizes: Sequence[int], trials: Sequence[int]) -> Cells:
    """Every pair of a rank and a size, for each trial."""
    t, d, n = np.meshgrid(np.asarray(trials), np.asarray(ranks), np.asarray(sizes), indexing="ij")
    return Cells(d.ravel(), n.ravel(), t.ravel())


@jax.jit
def recover_by_pca(problems: Problems) -> Recovery:
    """PCA of problems with one component: as many leading principal directions as their rank (Theorem 1). Leaves of the
    result have a leading axis of problems.

    Raises:
        InputError: problems of more than one component.
    """
    components, width = problems.truth.shape[1], problems.truth.shape[3]
    require(components == 1, "problems", f"{components} components", "problems of one component")

    def one(rows: Array, rank: Array, truth: Array) -> Recovery:
        return recovery(principal_basis(rows, rank, width)[None], truth)

    return jax.vmap(one)(problems.rows, problems.ranks, problems.truth)


@jax.jit
def recover_by_k_subspaces(
    key: Key, problems: Problems, threshold: Num[ArrayLike, ""] | float
) -> tuple[Recovery, Array]:
    """K-subspaces from the spectral initialisation with ``threshold`` on unit inner products (Theorem 3).

    The problem in row p has the draw number p of ``key``.

    Returns:
        The recoveries, and how many times each problem's K-subspaces re-seeded an emptied subspace.
    """
    key = threefry(key)
    components, width = problems.truth.shape[1], problems.truth.shape[3]

    def one(given: tuple[Array, Problems]) -> tuple[Recovery, Array]:
        number, p = given
        start = spectral_labels(jax.random.fold_in(key, number), p.rows, p.present, components, threshold)
        found = k_subspaces(p.rows, start, p.present, p.ranks, clusters=components, width=width)
        return recovery(found.bases, p.truth), found.reseeded

    # One after the other: together, all would take as many updates as the slowest.
    return jax.lax.map(one, (jnp.arange(problems.ranks.shape[0]), problems))


def recover_by_bases(bases: Num[ArrayLike, "P K n r"], truth: Num[ArrayLike, "P K n r"]) -> tuple[Recovery, Recovery]:
    """The recoveries of given bases: after they are made orthonormal, and as they are."""
    return _recover_by_bases(as_jax_floats("bases", bases), as_jax_floats("truth", truth))


@jax.jit
def _recover_by_bases(bases: Array, truth: Array) -> tuple[Recovery, Recovery]:
    either = jnp.stack([orthonormalised(bases), bases])
    found = jax.vmap(jax.vmap(recovery), in_axes=(0, None))(either, truth)
    return Recovery(*(leaf[0] for leaf in found)), Recovery(*(leaf[1] for leaf in found))


def recover_by_sgd(
    keys: Key,
    problems: Problems,
    starts: Num[ArrayLike, "P K n r"],
    *,
    grid: TimeGrid | None = None,
    steps: int = 5000,
    batch_size: int = 128,
    learning_rate: float = 0.1,
) -> tuple[Recovery, Recovery, Array]:
    """Algorithm 1, the problems as ``(T,)`` equal groups in a row that share their draws; see ``train_subspaces``.

    Args:
        keys: ``(T,)``, one for each group.

    Returns:
        The recoveries with the bases made orthonormal, and with the bases as SGD left them; and the problems in which
        it diverged, ``(P,)``, which do not count as successes.
    """
    keys = threefry(keys, "keys", shape=None)
    first = as_floats("starts", starts)
    groups, total = keys.shape[0], len(first)
    require(total % groups == 0, "keys", f"{groups} groups", f"a number that divides the {total} problems")
    # Cut and joined on the host, where it takes no program for each shape.
    split = jax.tree.map(lambda leaf: np.asarray(leaf).reshape(groups, -1, *leaf.shape[1:]), (problems, first))
    trained = train_subspaces(keys, *split, grid=grid, steps=steps, batch_size=batch_size, learning_rate=learning_rate)
    bases = np.asarray(trained).reshape(first.shape)
    diverged = ~np.isfinite(bases).all(axis=(1, 2, 3))
    finite = np.where(diverged[:, None, None, None], 0, bases)
    return *recover_by_bases(finite, problems.truth), to_device(diverged)


@jax.jit
def gap_to_bound(problems: Problems) -> Float[Array, "P K"]:
    """``sqrt(sum_i |e_i|^2) / |sqrt N - sqrt(d - 1)|`` for N at least d, else over ``sqrt d - sqrt(N - 1)``: the factor
    that a constant multiplies in the bounds (13), (14), (18) and (19) on ``|U U^T - V V^T|_F``.
    """
    d, n = problems.ranks.astype(float), problems.sizes.astype(float)
    gap = jnp.where(n >= d, jnp.sqrt(n) - jnp.sqrt(d - 1), jnp.sqrt(d) - jnp.sqrt(n - 1))
    return jnp.sqrt(problems.noise) / gap[:, None]


@dataclass(frozen=True)
class BoundFit:
    """The constant of a bound on the distance of projectors, fitted on the smaller ranks, and how larger ranks obey it.

    Attributes:
        constant: the smallest with which every cell of the smaller ranks with N >= d keeps the bound in the share ``1 -
            2^-(N - d + 1)`` of its problems that Theorems 2 and 4 promise (their further term in exp(-c N) taken as 0).
        broken: share of the problems of the larger ranks with N >= d that break the bound. Clopper and Pearson's
            interval.
        allowed: share that the theorems allow to break it.
        ratio: where N < d, the distance over its exact value ``sqrt(2 (d - N))``; mean over trials.
    """

    constant: float
    broken: Estimate
    allowed: float
    ratio: Estimate


def fit_bound(
    ranks: Sequence[int],
    sizes: Sequence[int],
    distance: Num[ArrayLike, "trials ranks sizes K"],
    unit: Num[ArrayLike, "trials ranks sizes K"],
) -> BoundFit:
    """Fit the constant of the bounds (13) and (18) on the lower half of the ranks, and test it on the others.

    Args:
        ranks: d, rising, two or more.
        sizes: N, some of them at least as large as the largest rank, some smaller than a rank.
        distance: ``|U U^T - V V^T|_F`` of each component, as ``Recovery.frobenius``.
        unit: what the constant multiplies, ``gap_to_bound``.

    Raises:
        InputError: arrays of other shapes, fewer than two ranks or trials, or no cell on one side of N = d.

    Wang et al., arXiv 2409.02426, Theorems 2 and 4.
    """
    d, n = np.asarray(ranks), np.asarray(sizes)
    distance, unit = as_floats("distance", distance), as_floats("unit", unit)
    for name, given in (("distance", distance), ("unit", unit)):
        fits = given.ndim == 4 and given.shape[1:3] == (len(d), len(n)) and len(given) >= 2
        require(fits, f"{name}.shape", given.shape, f"(trials, {len(d)}, {len(n)}, K), two trials or more")
    fitting = (len(d) + 1) // 2
    short = n[None] < d[:, None]
    both = len(d) >= 2 and bool(short.any() and (~short[:fitting]).any() and (~short[fitting:]).any())
    require(both, "sizes", list(sizes), f"on both sides of the ranks {list(ranks)}")
    constant, tested, allowances = 0.0, [], []
    for row, column in zip(*np.nonzero(~short)):
        allowed = 2.0 ** -int(n[column] - d[row] + 1)
        of_cell = (distance[:, row, column] / unit[:, row, column]).ravel()
        if row < fitting:
            constant = max(constant, float(np.quantile(of_cell, 1 - allowed, method="higher")))
        else:
            tested.append(of_cell)
            allowances.append(allowed)
    broken = proportion(np.concatenate(tested) > constant, exact=True)
    # Fewer points than dimensions: against sqrt(2 (d - N)), a trial's mean over its cells.
    exact = np.sqrt(2.0 * (d[:, None] - n[None])[short])
    relative = (distance.mean(axis=3)[:, short] / exact[None]).mean(axis=1)
    error = float(relative.std(ddof=1) / np.sqrt(len(relative)))
    return BoundFit(constant, broken, float(np.mean(allowances)), normal_estimate(float(relative.mean()), error))
