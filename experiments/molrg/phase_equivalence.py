"""Theorem 3: is training the hard-max denoiser of several subspaces the same as clustering by subspaces?"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from dgu import analysis
from dgu.analysis.subspaces.distances import adjusted_rand_index
from dgu.core.keys import stream
from dgu.core.typing import Key
from dgu.models import random_basis
from experiments.molrg.phase_arms import Config
from experiments.study import Claim, Measured, Noted, Table, all_of, at_least, equivalent

#: Numbers of subspaces, and the standard deviation of the noise on each coordinate.
COUNTS, NOISE = (2, 3), 0.1
#: Bases at which the drawn loss is compared with its closed form, and draws of noise for each.
_BASES, _DRAWS = 4, 100
#: Largest relative difference of losses and of objectives; least share of problems with equal assignments.
_LOSS, _OBJECTIVE, _AGREE = 0.01, 0.01, 0.8
_SOURCE = "Theorem 3"


def claim() -> Claim:
    """The equivalence: of the two functions, of their optima, and of the assignments that belong to these."""
    setting = (
        f"of 2 and of 3 orthogonal subspaces, with noise of standard deviation {NOISE:g} on each coordinate of points "
        "on them"
    )
    function = (
        f"The denoising loss of the hard-max network {setting}, averaged over drawn noise, is a constant less a "
        "positive multiple of the objective of subspace clustering (17), the mean squared length of the points' "
        "projections onto the subspace nearest to each, whatever the orthonormal bases (value: the relative difference "
        "of the drawn loss from this form, mean over problems and random bases)."
    )
    optimum = (
        f"The clustering objective (17) {setting}, is the same for the bases that minimise the denoising loss, found "
        "by SGD from columns near the true ones, and for those of the K-subspaces method from there, which maximises "
        "the objective (value: the relative difference, mean over problems)."
    )
    assignment = (
        f"Points {setting}, are assigned to the same subspaces by the bases that minimise the denoising loss as by "
        f"those of the K-subspaces method, in at least {_AGREE:g} of problems (value: the share of problems in which "
        "every point is)."
    )
    parts = all_of(
        Claim("phase-equivalence-function", function, equivalent(_LOSS), _SOURCE),
        Claim("phase-equivalence-optimum", optimum, equivalent(_OBJECTIVE), _SOURCE),
        Claim("phase-equivalence-assignment", assignment, at_least(_AGREE), _SOURCE),
    )
    whole = (
        f"Minimising the denoising loss {setting}, is subspace clustering. (Three parts: for random bases the loss is "
        f"a constant less a multiple of the clustering objective (17), within {100 * _LOSS:g} %; the minimum found by "
        "SGD from near the truth and the clustering of the K-subspaces method have the same objective, within "
        f"{100 * _OBJECTIVE:g} %; they assign every point alike in a share of {_AGREE:g} or more of the problems.)"
    )
    return Claim("phase-equivalence", whole, parts, _SOURCE)


def equivalence(config: Config, key: Key, count: int) -> dict[str, np.ndarray]:
    """Both methods on the same problems, ``(trials,)``; the drawn loss beside its form, ``(trials, bases)``.

    Returns:
        ``difference`` of the drawn loss from its form, relative; ``objective`` of K-subspaces and of SGD, ``agreement``
        of their assignments.
    """
    key, trials = stream(key, "equivalence", count), range(config.sgd_trials)
    rank, size = config.ranks[len(config.ranks) // 2], config.sizes[-1]
    cells = analysis.grid_cells([rank], [size], trials)
    problems = analysis.low_rank_problems(
        stream(key, "problems"), *cells, dimension=config.dimension, components=count, noise=NOISE
    )
    grid, alone = analysis.vp_grid(config.times), jax.tree.map(lambda leaf: leaf[:, None], problems)
    starts = analysis.truth_starts(stream(key, "start"), problems.truth, config.start)[:, None]
    trained = analysis.train_subspaces(
        jax.random.split(stream(key, "sgd"), len(trials)), alone, starts,
        grid=grid, steps=config.steps, batch_size=config.batch, learning_rate=config.rate,
    )[:, 0]  # fmt: skip
    method = partial(analysis.k_subspaces, clusters=count, width=rank, iterations=50, unit=False)
    objective = jax.jit(jax.vmap(analysis.clustering_objective))
    _, first = objective(analysis.orthonormalised(starts[:, 0]), problems.rows)
    clustered = jax.jit(jax.vmap(method))(problems.rows, first, problems.present, problems.ranks).bases
    ends = [objective(bases, problems.rows) for bases in (clustered, analysis.orthonormalised(trained))]
    one, other = (np.asarray(labels) for _, labels in ends)
    difference = []
    for trial in trials:
        keys = jax.random.split(stream(key, "bases", trial), _BASES)
        random = [_random_bases(own, config.dimension, count, rank) for own in keys]
        difference.append([_difference(bases, problems.rows[trial], grid, own) for bases, own in zip(random, keys)])
    return {
        "difference": np.asarray(difference),
        "objective": np.stack([np.asarray(values) for values, _ in ends], axis=1),
        "agreement": np.asarray([adjusted_rand_index(a, b) for a, b in zip(one, other)]),
    }


def _random_bases(key: Key, dimension: int, count: int, rank: int) -> jax.Array:
    """Bases with mutually orthonormal columns, ``(K, n, d)``."""
    whole = random_basis(key, dimension, count * rank)
    return jnp.moveaxis(whole.reshape(dimension, count, rank), 1, 0)


def _difference(bases: jax.Array, rows: jax.Array, grid: "analysis.TimeGrid", key: Key) -> float:
    """The drawn loss over ``|x|^2 - mean_t (2 zeta s - zeta^2 s^2) objective + mean_t zeta^2 gamma^2 d``, less 1."""
    scale, noise = (np.asarray(part, np.float64) for part in grid)
    zeta = scale / (scale**2 + noise**2)
    multiple, constant = np.mean(2 * zeta * scale - (zeta * scale) ** 2), np.mean((zeta * noise) ** 2)
    size = float(jnp.mean(jnp.sum(jnp.square(rows), axis=1)))
    objective = float(analysis.clustering_objective(bases, rows)[0])
    drawn = analysis.drawn_loss(bases, rows, grid, jax.random.split(key, _DRAWS)).mean()
    return float(drawn / (size - multiple * objective + constant * bases.shape[2]) - 1)


def measured(found: dict[int, dict[str, np.ndarray]]) -> dict[str, Measured]:
    """What was measured for ``claim``, over all problems."""
    objective = np.concatenate([each["objective"] for each in found.values()])
    agreement = np.concatenate([each["agreement"] for each in found.values()])
    difference = np.concatenate([each["difference"].mean(axis=1) for each in found.values()])
    note = f"The adjusted Rand index of the clusterings is {agreement.mean():.3f}, mean over {len(agreement)} problems."
    return {
        "phase-equivalence-function": analysis.t_interval(difference),
        "phase-equivalence-optimum": analysis.t_interval(objective[:, 1] / objective[:, 0] - 1),
        "phase-equivalence-assignment": Noted(analysis.proportion(agreement == 1, exact=True), note),
    }


def table(found: dict[int, dict[str, np.ndarray]]) -> Table:
    """Objectives and agreement by the number of subspaces, means over problems."""
    rows = [
        (count, *each["objective"].mean(axis=0).tolist(), float(each["agreement"].mean()))
        for count, each in found.items()
    ]
    head = ("subspaces", "objective, K-subspaces", "objective, least loss", "adjusted Rand index")
    return Table("Subspace clustering and the least denoising loss (Theorem 3)", head, rows)
