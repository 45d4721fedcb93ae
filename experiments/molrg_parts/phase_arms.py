"""The arms of the phase transitions: which subspaces PCA, K-subspaces and SGD find, in every cell of rank and size."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dgu.analysis import vp_grid
from dgu.analysis.subspaces.phase import (
    gap_to_bound,
    grid_cells,
    recover_by_k_subspaces,
    recover_by_pca,
    recover_by_sgd,
)
from dgu.core.keys import stream
from dgu.training.subspaces.problems import Problems, low_rank_problems, random_starts, truth_starts
from experiments.molrg_parts.phase_config import Config
from experiments.study.progress import Progress
from experiments.study.run_directory import RunDirectory

#: Random starts by what is said of them: the standard deviation of their entries, None for columns of length about 1.
SHORT, LONG = "random unit columns", "random normal entries"
RANDOM_STARTS = {SHORT: None, LONG: 1.0}

#: What is known of one arm: ``success`` (trials, ranks, sizes) and what the method adds.
Arm = dict[str, np.ndarray]


@dataclass(frozen=True)
class Arms:
    """Every arm. Make it with ``run``.

    Attributes:
        pca: by the noise.
        wide: PCA without noise in twice the dimension.
        k_subspaces: by the number of subspaces and the noise.
        sgd: by the number of subspaces, for more than one from a start near the truth, without noise.
        random: SGD for two subspaces from random starts, by what is said of them.
    """

    pca: dict[float, Arm]
    wide: Arm
    k_subspaces: dict[tuple[int, float], Arm]
    sgd: dict[int, Arm]
    random: dict[str, Arm]

    @classmethod
    def run(cls, config: Config, directory: RunDirectory, key: Any) -> "Arms":
        """Stored one by one."""
        noises = (0.0, config.noise)
        return cls(
            pca={noise: _closed(config, directory, key, 1, noise) for noise in noises},
            wide=_closed(config, directory, key, 1, 0.0, 2 * config.dimension),
            k_subspaces={(k, noise): _closed(config, directory, key, k, noise) for k in (2, 3) for noise in noises},
            sgd={k: _sgd(config, directory, key, k, "near" if k > 1 else SHORT) for k in (1, 2, 3)},
            random={name: _sgd(config, directory, key, 2, name) for name in RANDOM_STARTS},
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


def _problems(config: Config, key: Any, components: int, noise: float, dimension: int, trial: int) -> Problems:
    """One trial of every cell: arms of any number of trials share the programs of one."""
    cells = grid_cells(config.ranks, config.sizes, [trial])
    own = stream(key, "problems", components)
    return low_rank_problems(own, *cells, dimension=dimension, components=components, noise=noise)


def _shaped(config: Config, arrays: Sequence[Any]) -> np.ndarray:
    """(trials, ranks, sizes, ...)."""
    array = np.concatenate([np.asarray(part) for part in arrays])
    return array.reshape(-1, len(config.ranks), len(config.sizes), *array.shape[1:])


def _closed(
    config: Config, directory: RunDirectory, key: Any, components: int, noise: float, dimension: int | None = None
) -> Arm:
    """PCA for one component, K-subspaces for more."""
    space = dimension or config.dimension

    def compute() -> Arm:
        success, reseeded = [], 0
        for trial in range(config.trials):
            problems = _problems(config, key, components, noise, space, trial)
            found, again = _recover(key, problems, config.threshold if noise else config.clean_threshold, trial)
            success.append(np.asarray(found.success))
            reseeded += int(np.sum(again))
        return {"success": _shaped(config, success), "reseeded": np.asarray(reseeded)}

    name = f"phase/{'pca' if components == 1 else f'k-subspaces-{components}'}-{space}-{'noisy' if noise else 'clean'}"
    return directory.stage(name, compute)


def _recover(key: Any, problems: Problems, threshold: float, trial: int) -> tuple[Any, Any]:
    if problems.truth.shape[1] == 1:
        return recover_by_pca(problems), 0
    return recover_by_k_subspaces(stream(key, "k-means", trial), problems, threshold)


def _starts(config: Config, key: Any, problems: Problems, trial: int, kind: str) -> Any:
    """Starts near the truth, or random ones of some scale, of one draw whatever the scale."""
    components = problems.truth.shape[1]
    if kind == "near":
        return truth_starts(stream(key, "start", components, trial), problems.truth, config.start)
    return random_starts(stream(key, "random start", components, trial), problems.truth, RANDOM_STARTS[kind])


def _sgd(config: Config, directory: RunDirectory, key: Any, components: int, kind: str) -> Arm:
    """As many trials at a time as there are devices."""

    def compute() -> Arm:
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
        kept = slice(0, config.sgd_trials)
        arrays = {"success": straight, "raw": raw, "diverged": diverged}
        return {name: _shaped(config, parts)[kept] for name, parts in arrays.items()}

    return directory.stage(f"phase/sgd-{components}-{kind.replace(' ', '-')}", compute)


def bound_errors(config: Config, key: Any, components: int) -> Arm:
    """Distances of projectors and what multiplies the constant of the bounds, (trials, ranks, sizes, K)."""
    key, distance, unit = stream(key, "bounds"), [], []
    for trial in range(config.bound_trials):
        problems = _problems(config, key, components, config.noise, config.dimension, trial)
        distance.append(np.asarray(_recover(key, problems, config.threshold, trial)[0].frobenius))
        unit.append(np.asarray(gap_to_bound(problems)))
    return {"distance": _shaped(config, distance), "unit": _shaped(config, unit)}
