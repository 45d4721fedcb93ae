"""The arms of the phase transitions: which subspaces PCA, K-subspaces and SGD find, in every cell of rank and size."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dgu.analysis import vp_grid
from dgu.analysis.subspaces.distances import Recovery
from dgu.analysis.subspaces.phase import (
    gap_to_bound,
    grid_cells,
    recover_by_k_subspaces,
    recover_by_pca,
    recover_by_sgd,
)
from dgu.core.keys import stream
from dgu.core.typing import Key
from dgu.training.subspaces.problems import Problems, low_rank_problems, random_starts, truth_starts
from experiments.molrg.phase_config import Config
from experiments.study import Run
from experiments.study.progress import Progress

#: Random initial columns by their name: the standard deviation of their entries, None for columns of length about 1.
SHORT, LONG = "random unit columns", "random normal entries"
RANDOM_STARTS = {SHORT: None, LONG: 1.0}

#: The results of one arm: ``success`` (trials, ranks, sizes) and what its method adds.
Arm = dict[str, np.ndarray]


@dataclass(frozen=True)
class Arms:
    """Every arm. Make it with ``measure``.

    Attributes:
        pca: PCA, by the noise.
        wide: PCA without noise in twice the dimension.
        k_subspaces: K-subspaces, by the number of subspaces and the noise.
        sgd: SGD without noise, by the number of subspaces; for two or more it begins near the true ones.
        random: SGD for two subspaces from random initial columns, by the name of these.
    """

    pca: dict[float, Arm]
    wide: Arm
    k_subspaces: dict[tuple[int, float], Arm]
    sgd: dict[int, Arm]
    random: dict[str, Arm]

    @classmethod
    def measure(cls, config: Config, run: Run) -> "Arms":
        """Each arm a stage."""

        def closed(components: int, noise: float, dimension: int) -> Arm:
            method = "pca" if components == 1 else f"k-subspaces-{components}"
            name = f"{method}-{dimension}-{'noisy' if noise else 'clean'}"
            return run.stage(name, closed_form, config, run.key, components, noise, dimension)

        def trained(components: int, kind: str) -> Arm:
            return run.stage(f"sgd-{components}-{kind.replace(' ', '-')}", by_sgd, config, run.key, components, kind)

        noises, usual = (0.0, config.noise), config.dimension
        return cls(
            pca={noise: closed(1, noise, usual) for noise in noises},
            wide=closed(1, 0.0, 2 * usual),
            k_subspaces={(k, noise): closed(k, noise, usual) for k in (2, 3) for noise in noises},
            sgd={k: trained(k, "near" if k > 1 else SHORT) for k in (1, 2, 3)},
            random={name: trained(2, name) for name in RANDOM_STARTS},
        )

    def panels(self, config: Config) -> dict[int, dict[str, Arm]]:
        """The arms by the number of subspaces and by name, in the order of figures and tables."""
        clean, noisy = "no noise", f"noise {config.noise:g}"
        near = {k: {f"SGD near the truth, {clean}": self.sgd[k]} for k in (2, 3)}
        clusters = {
            k: {
                f"K-subspaces, {clean}": self.k_subspaces[k, 0.0],
                f"K-subspaces, {noisy}": self.k_subspaces[k, config.noise],
            }
            for k in (2, 3)
        }
        random = {f"SGD from {name}, {clean}": arm for name, arm in self.random.items()}
        return {
            1: {
                f"PCA, {clean}": self.pca[0.0],
                f"PCA, {noisy}": self.pca[config.noise],
                f"SGD, {clean}": self.sgd[1],
            },
            2: clusters[2] | near[2] | random,
            3: clusters[3] | near[3],
        }

    @property
    def diverged(self) -> tuple[int, int]:
        """Trials in which SGD diverged, and all trials of SGD."""
        trained = (*self.sgd.values(), *self.random.values())
        return sum(int(arm["diverged"].sum()) for arm in trained), sum(arm["success"].size for arm in trained)


def _problems(config: Config, key: Key, components: int, noise: float, dimension: int, trial: int) -> Problems:
    """One trial of every cell: arms of any number of trials share the programs of one."""
    cells = grid_cells(config.ranks, config.sizes, [trial])
    own = stream(key, "problems", components)
    return low_rank_problems(own, *cells, dimension=dimension, components=components, noise=noise)


def _shaped(config: Config, arrays: Sequence[Any]) -> np.ndarray:
    """(trials, ranks, sizes, ...)."""
    array = np.concatenate([np.asarray(part) for part in arrays])
    return array.reshape(-1, len(config.ranks), len(config.sizes), *array.shape[1:])


def closed_form(config: Config, key: Key, components: int, noise: float, dimension: int) -> Arm:
    """PCA for one subspace, K-subspaces for more."""
    success, reseeded = [], 0
    for trial in range(config.trials):
        problems = _problems(config, key, components, noise, dimension, trial)
        found, again = _recover(key, problems, config.threshold if noise else config.clean_threshold, trial)
        success.append(np.asarray(found.success))
        reseeded += int(np.sum(again))
    return {"success": _shaped(config, success), "reseeded": np.asarray(reseeded)}


def _recover(key: Key, problems: Problems, threshold: float, trial: int) -> tuple[Recovery, Any]:
    if problems.truth.shape[1] == 1:
        return recover_by_pca(problems), 0
    return recover_by_k_subspaces(stream(key, "k-means", trial), problems, threshold)


def _starts(config: Config, key: Key, problems: Problems, trial: int, kind: str) -> Any:
    """Initial columns near the true ones, or random ones of some scale, from one draw whatever the scale."""
    components = problems.truth.shape[1]
    if kind == "near":
        return truth_starts(stream(key, "start", components, trial), problems.truth, config.start)
    return random_starts(stream(key, "random start", components, trial), problems.truth, RANDOM_STARTS[kind])


def by_sgd(config: Config, key: Key, components: int, kind: str) -> Arm:
    """SGD without noise on the points, as many trials at a time as there are devices."""
    at_once = jax.local_device_count()
    straight, raw, diverged = [], [], []
    grid = vp_grid(config.times)
    with Progress(f"SGD, K = {components}", config.sgd_trials, "trials") as bar:
        for first in range(0, config.sgd_trials, at_once):
            # The last chunk is filled with trials that are thrown away: every chunk has one shape.
            chunk = range(first, first + at_once)
            each = [_problems(config, key, components, 0.0, config.dimension, trial) for trial in chunk]
            starts = [_starts(config, key, of, trial, kind) for trial, of in zip(chunk, each)]
            found, bare, astray = recover_by_sgd(
                jnp.stack([stream(key, "sgd", components, trial) for trial in chunk]),
                jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *each),
                jnp.concatenate(starts),
                grid=grid,
                steps=config.steps,
                batch_size=config.batch,
                learning_rate=config.rate,
            )
            straight.append(np.asarray(found.success))
            raw.append(np.asarray(bare.success))
            diverged.append(np.asarray(astray))
            bar.update(min(at_once, config.sgd_trials - first))
    arrays = {"success": straight, "raw": raw, "diverged": diverged}
    return {name: _shaped(config, parts)[: config.sgd_trials] for name, parts in arrays.items()}


def bound_errors(config: Config, key: Key, components: int) -> Arm:
    """Distances of projectors and what multiplies the constant of the bounds, (trials, ranks, sizes, K)."""
    key, distance, unit = stream(key, "bounds"), [], []
    for trial in range(config.bound_trials):
        problems = _problems(config, key, components, config.noise, config.dimension, trial)
        distance.append(np.asarray(_recover(key, problems, config.threshold, trial)[0].frobenius))
        unit.append(np.asarray(gap_to_bound(problems)))
    return {"distance": _shaped(config, distance), "unit": _shaped(config, unit)}
