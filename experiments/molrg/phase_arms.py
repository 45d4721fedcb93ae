"""What the phase transitions measure: which subspaces PCA, K-subspaces and SGD find in every cell of rank and size, how
large the errors are, and checks of what this rests on."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dgu import analysis
from dgu.analysis.subspaces.distances import Recovery
from dgu.core.errors import require
from dgu.core.keys import stream
from dgu.core.parallel import run_jobs
from dgu.core.typing import Key
from dgu.models import MoLRG, random_basis
from dgu.samplers import karras_sigmas, sample
from dgu.training.subspaces.problems import Problems
from experiments.study import Options, Run, option
from experiments.study.progress import Progress

#: Random initial columns by their name: the standard deviation of their entries, None for columns of length about 1.
SHORT, LONG = "random unit columns", "random normal entries"
RANDOM_STARTS = {SHORT: None, LONG: 1.0}
#: Weights of the two components of the mixture that is sampled.
WEIGHTS = (0.3, 0.7)

#: What each trial of SGD tells: success after its bases are made orthonormal, and as they are; and whether it diverged.
_BY_SGD = ("success", "raw", "diverged")
#: The results of one arm: ``success`` (trials, ranks, sizes) and what its method adds.
Arm = dict[str, np.ndarray]


@dataclass(frozen=True)
class Config(Options, prefix="phase"):
    """Recovery of the subspaces from N points on each, for every rank and size: PCA, K-subspaces and SGD on the
    denoising loss."""

    dimension: int = option(48, ge=6)
    """Dimension n of the space."""
    ranks: tuple[int, ...] = option((2, 3, 4, 5, 6, 7, 8), ge=2)
    """Ranks d: three or more consecutive numbers, each 2 or more."""
    sizes: tuple[int, ...] = option((2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), ge=1)
    """Points N on each subspace: consecutive numbers, from the smallest rank or below to 3 or more above the
    largest."""
    trials: int = option(20, ge=1)
    """Trials in each cell of rank and size, for PCA and K-subspaces."""
    bound_trials: int = option(200, ge=10)
    """Trials in each cell for the bounds on the error."""
    noise: float = option(0.01, gt=0.0)
    """Standard deviation of the noise on each coordinate, in the arms with noise."""
    threshold: float = option(0.1, gt=0.0, lt=1.0)
    """Smallest cosine between two points that the spectral start of K-subspaces joins, in the arms with noise."""
    clean_threshold: float = option(0.001, gt=0.0, lt=1.0)
    """The same without noise, where points of different subspaces are orthogonal up to rounding."""
    sgd_trials: int = option(12, ge=1)
    """Trials in each cell for SGD: with no success in the 72 trials of six cells, the share of successes is below
    .05."""
    steps: int = option(5000, ge=1)
    """Steps of SGD."""
    batch: int = option(128, ge=1)
    """Examples in each step."""
    rate: float = option(0.1, gt=0.0)
    """Learning rate, for the mean loss of a batch."""
    times: int = option(64, ge=1)
    """Times of the variance-preserving process in (0, 1]."""
    start: float = option(0.2, gt=0.0)
    """Standard deviation of each entry of the difference between SGD's initial columns and the true ones, for two or
    more subspaces."""
    samples: int = option(1000, ge=50)
    """Samples of a mixture, drawn by the sampler with its exact posterior mean."""

    def check(self) -> None:
        """Ranks and sizes cover the transition, and three subspaces fit into the space."""
        for name in ("ranks", "sizes"):
            values = getattr(self, name)
            consecutive = bool(values) and all(b - a == 1 for a, b in pairwise(values))
            require(consecutive, self.name(name), values, "consecutive")
        require(len(self.ranks) >= 3, "phase.ranks", self.ranks, "three or more, each 2 or more")
        low, high = self.ranks[0], self.ranks[-1] + 3
        reach = self.sizes[0] <= low and self.sizes[-1] >= high
        require(reach, "phase.sizes", self.sizes, f"from at most {low} to at least {high}")
        most = 3 * self.ranks[-1]
        require(most <= self.dimension, "phase.dimension", self.dimension, f"at least {most}, for three subspaces")


PRESETS = {
    "smoke": Config(
        dimension=24, ranks=(2, 3, 4), sizes=(2, 3, 4, 5, 6, 7), trials=2, bound_trials=10, sgd_trials=1, steps=50,
        samples=50,
    ),
    "default": Config(),
    "paper": Config(trials=100, bound_trials=1000, sgd_trials=20, samples=5000),
}  # fmt: skip


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

    def panels(self, noise: float) -> dict[int, dict[str, Arm]]:
        """The arms by the number of subspaces and by name, in the order of figures and tables."""
        clean, noisy = "no noise", f"noise {noise:g}"
        one = {f"PCA, {clean}": self.pca[0.0], f"PCA, {noisy}": self.pca[noise], f"SGD, {clean}": self.sgd[1]}
        two, three = (
            {
                f"K-subspaces, {clean}": self.k_subspaces[k, 0.0],
                f"K-subspaces, {noisy}": self.k_subspaces[k, noise],
                f"SGD near the truth, {clean}": self.sgd[k],
            }
            for k in (2, 3)
        )
        return {1: one, 2: two | {f"SGD from {name}, {clean}": arm for name, arm in self.random.items()}, 3: three}

    @property
    def diverged(self) -> tuple[int, int]:
        """Trials in which SGD diverged, and all trials of SGD."""
        trained = (*self.sgd.values(), *self.random.values())
        return sum(int(arm["diverged"].sum()) for arm in trained), sum(arm["success"].size for arm in trained)


def _problems(config: Config, key: Key, components: int, trial: int, *, noise: float, dimension: int) -> Problems:
    """One trial of every cell: arms of any number of trials share the programs of one."""
    cells = analysis.grid_cells(config.ranks, config.sizes, [trial])
    own = stream(key, "problems", components)
    return analysis.low_rank_problems(own, *cells, dimension=dimension, components=components, noise=noise)


def _shaped(config: Config, arrays: Sequence[Any]) -> np.ndarray:
    """(trials, ranks, sizes, ...)."""
    array = np.concatenate([np.asarray(part) for part in arrays])
    return array.reshape(-1, len(config.ranks), len(config.sizes), *array.shape[1:])


def _recovered(
    config: Config, key: Key, components: int, trial: int, *, noise: float, dimension: int
) -> tuple[Problems, Recovery, Any]:
    """The problems of a trial, what PCA (for one subspace) or K-subspaces finds, and how often the latter seeded a
    subspace again."""
    threshold = config.threshold if noise else config.clean_threshold
    problems = _problems(config, key, components, trial, noise=noise, dimension=dimension)
    if components == 1:
        return problems, analysis.recover_by_pca(problems), 0
    return problems, *analysis.recover_by_k_subspaces(stream(key, "k-means", trial), problems, threshold)


def closed_form(config: Config, key: Key, components: int, noise: float, dimension: int) -> Arm:
    """PCA for one subspace, K-subspaces for more."""

    def one(_: None, trial: int) -> Arm:
        _given, found, again = _recovered(config, key, components, trial, noise=noise, dimension=dimension)
        return {"success": np.asarray(found.success), "reseeded": np.sum(again)}

    found = list(run_jobs(one, config.trials, what="trial"))
    success = _shaped(config, [trial["success"] for trial in found])
    return {"success": success, "reseeded": np.asarray(sum(int(trial["reseeded"]) for trial in found))}


def bound_errors(config: Config, key: Key, components: int) -> Arm:
    """Distances of projectors and what multiplies the constant of the bounds, (trials, ranks, sizes, K)."""
    own = stream(key, "bounds")

    def one(_: None, trial: int) -> Arm:
        problems, found, _again = _recovered(
            config, own, components, trial, noise=config.noise, dimension=config.dimension
        )
        return {"distance": np.asarray(found.frobenius), "unit": np.asarray(analysis.gap_to_bound(problems))}

    found = list(run_jobs(one, config.bound_trials, what="trial"))
    return {name: _shaped(config, [trial[name] for trial in found]) for name in ("distance", "unit")}


def _starts(config: Config, key: Key, problems: Problems, trial: int, kind: str) -> Any:
    """Initial columns near the true ones, or random ones of some scale, from one draw whatever the scale."""
    components = problems.truth.shape[1]
    if kind == "near":
        return analysis.truth_starts(stream(key, "start", components, trial), problems.truth, config.start)
    return analysis.random_starts(stream(key, "random start", components, trial), problems.truth, RANDOM_STARTS[kind])


def by_sgd(config: Config, key: Key, components: int, kind: str) -> Arm:
    """SGD without noise on the points, a trial on each device."""

    def one(_: None, trial: int) -> Arm:
        problems = _problems(config, key, components, trial, noise=0.0, dimension=config.dimension)
        found, bare, astray = analysis.recover_by_sgd(
            stream(key, "sgd", components, trial)[None],
            problems,
            _starts(config, key, problems, trial, kind),
            grid=analysis.vp_grid(config.times),
            steps=config.steps,
            batch_size=config.batch,
            learning_rate=config.rate,
        )
        return {name: np.asarray(part) for name, part in zip(_BY_SGD, (found.success, bare.success, astray))}

    with Progress(f"SGD, K = {components}", config.sgd_trials, "trials") as bar:
        found = list(run_jobs(one, config.sgd_trials, what="trial", progress=lambda *_: bar.update()))
    return {name: _shaped(config, [trial[name] for trial in found]) for name in _BY_SGD}


def checks(config: Config, key: Key) -> dict[str, np.ndarray]:
    """Closed forms against each other, and samples of a mixture from its exact posterior mean."""
    tweedie, loss = _tweedie(stream(key, "tweedie")), _loss(config, stream(key, "loss"))
    return tweedie | loss | _samples(config, stream(key, "samples"))


def _tweedie(key: Key) -> dict[str, np.ndarray]:
    """Largest defect of ``s E[x0 | x] = x + gamma^2 grad log p(x)`` in float64, the gradient by differentiation."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        ranks, weights = (3, 1, 5), np.asarray([0.5, 0.2, 0.3])
        spreads = [rng.uniform(0.1, 2.0, rank) for rank in ranks]
        means = 0.5 * rng.standard_normal((3, 12))
        law = MoLRG.random(key, (12,), ranks, weights=weights, means=means, variances=spreads)

        def defect(law: MoLRG, x: jax.Array, noise: jax.Array, scale: jax.Array) -> jax.Array:
            slope = jax.grad(law.log_density)(x, noise, scale)
            return jnp.max(jnp.abs(scale * law.posterior_mean(x, noise, scale) - x - jnp.square(noise) * slope))

        x = jnp.asarray(rng.standard_normal((20, 12)))
        levels = jnp.asarray([0.3, 0.6, 0.98])
        scales = jnp.asarray([1.0, 0.8, float(np.sqrt(1 - 0.98**2))])
        over_levels = jax.vmap(jax.vmap(defect, in_axes=(None, 0, None, None)), in_axes=(None, None, 0, 0))
        return {"tweedie": np.asarray(jax.jit(over_levels)(law, x, levels, scales).max())}


def _loss(config: Config, key: Key) -> dict[str, np.ndarray]:
    """The network's loss by drawing noise, less the exact one; and how far from PCA the exact loss is smallest."""
    rank, draws, grid = config.ranks[-1], 4000, analysis.vp_grid(config.times)
    keys = jax.random.split(key, 4)
    cell = analysis.grid_cells([rank], [config.sizes[-1]], [0])
    problem = analysis.low_rank_problems(keys[0], *cell, dimension=config.dimension, components=1, noise=0.1)
    rows, basis = problem.rows[0], random_basis(keys[1], config.dimension, rank)
    values = analysis.drawn_loss(basis, rows, grid, jax.random.split(keys[2], draws // 20))
    exact = float(analysis.exact_loss(basis, rows, grid))
    starts = jax.vmap(lambda own: random_basis(own, config.dimension, rank))(jax.random.split(keys[3], 5))
    ends = analysis.descend_exact_loss(starts, rows, grid, rate=config.rate, steps=3000)
    best = analysis.principal_basis(rows, rank, rank)
    return {
        "loss_difference": np.asarray(values.mean() / exact - 1),
        "loss_error": np.asarray(values.std(ddof=1) / np.sqrt(len(values)) / exact),
        "minimum_distance": np.asarray(analysis.projector_distances(ends, best[None])[0]).ravel(),
    }


def _samples(config: Config, key: Key) -> dict[str, np.ndarray]:
    """Heun's method on the exact posterior mean: the distance of each sample to its nearest subspace, and which that
    is."""
    ranks, weights, shape = (config.ranks[-1], config.ranks[0]), np.asarray(WEIGHTS), (config.dimension,)
    law = MoLRG.random(stream(key, "law"), shape, ranks, weights=weights)
    numbers, batch_size = np.arange(config.samples), min(250, config.samples)
    found = sample(law.denoiser, key, numbers, karras_sigmas(18), shape=shape, batch_size=batch_size)
    off = analysis.subspace_distances(found, law.bases)
    return {"off": off.min(axis=1), "component": off.argmin(axis=1), "weights": weights}
