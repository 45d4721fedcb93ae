"""Checks of what the phase transitions rest on: closed forms against each other, and samples of a mixture."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dgu.analysis import exact_loss, vp_grid
from dgu.analysis.subspaces.distances import orthonormalised, principal_basis, projector_distances
from dgu.core.keys import stream
from dgu.models import HardmaxNetwork, MoLRG, random_basis
from dgu.samplers import karras_sigmas, sample
from dgu.training.subspaces.problems import low_rank_problems
from experiments.molrg_parts.phase_config import Config


def checks(config: Config, key: Any) -> dict[str, np.ndarray]:
    """Closed forms against each other, and samples of a mixture from its exact posterior mean."""
    tweedie, loss = _tweedie(stream(key, "tweedie")), _loss(config, stream(key, "loss"))
    return tweedie | loss | _samples(config, stream(key, "samples"))


def _tweedie(key: Any) -> dict[str, np.ndarray]:
    """Largest defect of ``s E[x0 | x] = x + gamma^2 grad log p(x)`` in float64, the gradient by differentiation."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        ranks = (3, 1, 5)
        spreads = [rng.uniform(0.1, 2.0, rank) for rank in ranks]
        law = MoLRG.random(
            key,
            (12,),
            ranks,
            weights=np.asarray([0.5, 0.2, 0.3]),
            means=0.5 * rng.standard_normal((3, 12)),
            variances=spreads,
        )

        def defect(law: MoLRG, x: jax.Array, noise: jax.Array, scale: jax.Array) -> jax.Array:
            slope = jax.grad(law.log_density)(x, noise, scale)
            return jnp.max(jnp.abs(scale * law.posterior_mean(x, noise, scale) - x - jnp.square(noise) * slope))

        x = jnp.asarray(rng.standard_normal((20, 12)))
        levels = jnp.asarray([0.3, 0.6, 0.98])
        scales = jnp.asarray([1.0, 0.8, float(np.sqrt(1 - 0.98**2))])
        over_levels = jax.vmap(jax.vmap(defect, in_axes=(None, 0, None, None)), in_axes=(None, None, 0, 0))
        return {"tweedie": np.asarray(jax.jit(over_levels)(law, x, levels, scales).max())}


def _loss(config: Config, key: Any) -> dict[str, np.ndarray]:
    """The network's loss by drawing noise, less the exact one; and how far from PCA the exact loss is smallest."""
    rank, size, draws = config.ranks[-1], config.sizes[-1], 4000
    keys = jax.random.split(key, 4)
    grid = vp_grid(config.times)
    problem = low_rank_problems(
        keys[0],
        np.asarray([rank]),
        np.asarray([size]),
        np.asarray([0]),
        dimension=config.dimension,
        components=1,
        noise=0.1,
    )
    rows = problem.rows[0]
    basis = random_basis(keys[1], config.dimension, rank)
    scale, noise = (jnp.asarray(part, rows.dtype) for part in grid)

    @jax.jit
    def drawn(basis: jax.Array, rows: jax.Array, keys: jax.Array) -> jax.Array:
        """One draw of every row at every time, its mean loss."""
        network = HardmaxNetwork(basis[None])

        def one(key: jax.Array) -> jax.Array:
            eps = jax.random.normal(key, (len(scale), *rows.shape))
            noisy = scale[:, None, None] * rows[None] + noise[:, None, None] * eps
            over_rows = jax.vmap(network, in_axes=(0, 0, None, None))
            out = jax.vmap(over_rows, in_axes=(0, None, 0, 0))(noisy, rows, noise, scale)
            return jnp.mean(jnp.sum(jnp.square(out - rows[None]), axis=2))

        return jax.lax.map(one, keys)

    values = np.asarray(drawn(basis, rows, jax.random.split(keys[2], draws // 20)), np.float64)
    exact = float(exact_loss(basis, rows, grid))

    @jax.jit
    def descended(starts: jax.Array, rows: jax.Array) -> jax.Array:
        slope = jax.vmap(jax.grad(exact_loss), in_axes=(0, None, None))

        def step(_: jax.Array, bases: jax.Array) -> jax.Array:
            return orthonormalised(bases - config.rate * slope(bases, rows, grid))

        return jax.lax.fori_loop(0, 3000, step, starts)

    starts = jnp.stack([random_basis(k, config.dimension, rank) for k in jax.random.split(keys[3], 5)])
    ends = descended(starts, rows)
    best = principal_basis(rows, rank, rank)
    distance = projector_distances(ends, best[None])[0]
    return {
        "loss_difference": np.asarray(values.mean() / exact - 1),
        "loss_error": np.asarray(values.std(ddof=1) / np.sqrt(len(values)) / exact),
        "minimum_distance": np.asarray(distance).ravel(),
    }


def _samples(config: Config, key: Any) -> dict[str, np.ndarray]:
    """Heun's method on the exact posterior mean: the distance of each sample to its nearest subspace, and which that is."""
    ranks, weights = (config.ranks[-1], config.ranks[0]), np.asarray([0.3, 0.7])
    law = MoLRG.random(stream(key, "law"), (config.dimension,), ranks, weights=weights)
    found = sample(
        law.denoiser,
        key,
        np.arange(config.samples),
        karras_sigmas(18),
        shape=(config.dimension,),
        batch_size=min(250, config.samples),
    ).astype(np.float64)
    off = []
    for basis, rank in zip(np.asarray(law.bases, np.float64), ranks):
        kept = basis[:, :rank]
        off.append(np.linalg.norm(found - found @ kept @ kept.T, axis=1))
    return {"off": np.min(off, axis=0), "component": np.argmin(off, axis=0), "weights": weights}
