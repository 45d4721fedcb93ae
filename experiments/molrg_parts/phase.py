"""How many points does it take to find the subspaces of a mixture of low-rank Gaussians?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from dgu import plots
from dgu.analysis import exact_loss, vp_grid
from dgu.analysis.phase import (
    gap_to_bound,
    grid_cells,
    recover_by_k_subspaces,
    recover_by_pca,
    recover_by_sgd,
)
from dgu.analysis.subspace_problems import Problems, low_rank_problems, random_starts, truth_starts
from dgu.analysis.subspaces import orthonormalised, principal_basis, projector_distances
from dgu.errors import require
from dgu.keys import stream
from dgu.models import HardmaxNetwork, MoLRG, random_basis
from dgu.samplers import karras_sigmas, sample
from experiments.harness.claims import Claim
from experiments.harness.costs import Cost
from experiments.harness.progress import Progress
from experiments.harness.report import FigureEntry, Section, Table
from experiments.harness.rundir import RunDirectory

PAPER = "molrg"
TITLE = "Phase transitions of subspace recovery"
CLAIM_IDS = (
    "phase-tweedie",
    "phase-exact-loss",
    "phase-pca",
    "phase-dimension",
    "phase-k-subspaces",
    "phase-sgd",
    "phase-random-start",
    "phase-straighten",
    "phase-bound-one",
    "phase-bound-many",
    "phase-samples",
)
FIGURE_FILES = (
    "figures/phase_one.png",
    "figures/phase_two.png",
    "figures/phase_three.png",
    "figures/subspace_errors.png",
)


@dataclass(frozen=True)
class Config:
    """Recovery of the subspaces from N points on each: PCA, K-subspaces and SGD on the denoising loss, all ranks and sizes."""

    dimension: int = 48
    """Dimension n of the space."""
    ranks: tuple[int, ...] = (2, 3, 4, 5, 6, 7, 8)
    """Ranks d: three or more consecutive numbers, each 2 or more."""
    sizes: tuple[int, ...] = (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
    """Points N on each subspace: consecutive numbers, from the smallest rank or below to 3 or more above the largest."""
    trials: int = 20
    """Trials in each cell of rank and size, for PCA and K-subspaces."""
    bound_trials: int = 200
    """Trials in each cell for the bounds on the error."""
    noise: float = 0.01
    """Standard deviation of the noise on each coordinate, where there is noise."""
    threshold: float = 0.1
    """Smallest cosine between two points that the spectral start of K-subspaces joins, where there is noise."""
    clean_threshold: float = 0.001
    """The same without noise, where points of different subspaces are orthogonal to rounding."""
    sgd_trials: int = 12
    """Trials in each cell for SGD: with none found in the 72 of six cells, the share is below .05."""
    steps: int = 5000
    """Steps of SGD."""
    batch: int = 128
    """Examples in a step."""
    rate: float = 0.1
    """Learning rate, of the mean loss of a batch."""
    times: int = 64
    """Times of the variance-preserving process in (0, 1]."""
    start: float = 0.2
    """Standard deviation of each entry by which SGD's starts miss the truth, for more than one subspace."""
    samples: int = 1000
    """Samples of a mixture drawn by the sampler from its exact posterior mean."""

    def __post_init__(self) -> None:
        for name in ("ranks", "sizes"):
            values = getattr(self, name)
            require(
                values == tuple(range(values[0], values[-1] + 1)) if values else False,
                f"phase.{name}",
                values,
                "consecutive",
            )
        require(len(self.ranks) >= 3 and self.ranks[0] >= 2, "phase.ranks", self.ranks, "three or more, each 2 or more")
        reach = self.sizes[0] <= self.ranks[0] and self.sizes[-1] >= self.ranks[-1] + 3
        require(
            reach and self.sizes[0] >= 1,
            "phase.sizes",
            self.sizes,
            f"from at most {self.ranks[0]} to at least {self.ranks[-1] + 3}",
        )
        fits = 3 * self.ranks[-1] <= self.dimension
        require(fits, "phase.dimension", self.dimension, f"at least {3 * self.ranks[-1]}, for three subspaces")
        for name in ("trials", "sgd_trials", "steps", "batch", "times"):
            require(getattr(self, name) >= 1, f"phase.{name}", getattr(self, name), "1 or more")
        require(self.bound_trials >= 10, "phase.bound_trials", self.bound_trials, "10 or more")
        require(self.samples >= 50, "phase.samples", self.samples, "50 or more")
        for name in ("noise", "rate", "start"):
            require(0 < getattr(self, name) < np.inf, f"phase.{name}", getattr(self, name), "positive and finite")
        for name in ("threshold", "clean_threshold"):
            require(0 < getattr(self, name) < 1, f"phase.{name}", getattr(self, name), "between 0 and 1")


PRESETS = {
    "smoke": Config(
        dimension=24,
        ranks=(2, 3, 4),
        sizes=(2, 3, 4, 5, 6, 7),
        trials=2,
        bound_trials=10,
        sgd_trials=1,
        steps=50,
        samples=50,
    ),
    "default": Config(),
    "paper": Config(trials=100, bound_trials=1000, sgd_trials=20, samples=5000),
}


def run(config: Config, subject: Any, directory: RunDirectory, seed: int) -> Section:
    """All arms, stored one by one; the subject takes no part."""
    key = stream(jax.random.key(seed), "phase")
    pca = {noise: _closed(config, directory, key, 1, noise) for noise in (0.0, config.noise)}
    wide = _closed(config, directory, key, 1, 0.0, 2 * config.dimension)
    many = {(k, noise): _closed(config, directory, key, k, noise) for k in (2, 3) for noise in (0.0, config.noise)}
    sgd = {k: _sgd(config, directory, key, k, near=k > 1) for k in (1, 2, 3)}
    lost = _sgd(config, directory, key, 2, near=False)
    checks = directory.stage("phase/checks", lambda: _checks(config, key))
    errors = {k: directory.stage(f"phase/errors-{k}", lambda k=k: _errors(config, key, k)) for k in (1, 2)}  # type: ignore[misc]

    noisy = f"noise {config.noise:g}"
    maps = {
        0: {"PCA, no noise": pca[0.0], f"PCA, {noisy}": pca[config.noise], "SGD, no noise": sgd[1]},
        1: {
            "K-subspaces, no noise": many[2, 0.0],
            f"K-subspaces, {noisy}": many[2, config.noise],
            "SGD near the truth, no noise": sgd[2],
            "SGD from a random start, no noise": lost,
        },
        2: {
            "K-subspaces, no noise": many[3, 0.0],
            f"K-subspaces, {noisy}": many[3, config.noise],
            "SGD near the truth, no noise": sgd[3],
        },
    }
    for place, panels in maps.items():
        shares = {name: arm["success"].mean(axis=0) for name, arm in panels.items()}
        directory.save_figure(FIGURE_FILES[place], plots.phase_maps(shares, config.ranks, config.sizes))
    bounds = {k: _Bound.fitted(config, errors[k]) for k in errors}
    directory.save_figure(FIGURE_FILES[3], _error_figure(config, errors, bounds))

    claims = [
        *_exact_claims(config, checks),
        _pca_claim(config, pca),
        _dimension_claim(config, pca[0.0], wide),
        _k_subspaces_claim(config, many),
        _sgd_claim(config, sgd),
        _random_start_claim(config, lost),
        _straighten_claim(config, sgd[1]),
        bounds[1].claim("phase-bound-one", "Theorem 2", "PCA"),
        bounds[2].claim("phase-bound-many", "Theorem 4", "K-subspaces with K = 2"),
        _samples_claim(checks),
    ]
    arms = {f"K = {place + 1}: {name}": arm for place, panels in maps.items() for name, arm in panels.items()}
    gaps = range(-2, 5)
    rows = [(name, *(_share(config, arm, gap).value for gap in gaps)) for name, arm in arms.items()]
    diverged = sum(int(arm["diverged"].sum()) for arm in (*sgd.values(), lost))
    runs = sum(arm["success"].size for arm in (*sgd.values(), lost))
    reseeded = sum(int(arm["reseeded"].sum()) for arm in many.values())
    wrong = int((pca[0.0]["success"] != _theory(config)[None]).sum())
    answer = (
        f"Without noise PCA finds a subspace of rank d from N points where N >= d and nowhere else: {wrong} exceptions in "
        f"{pca[0.0]['success'].size:,} trials. SGD on the denoising loss finds it in {100 * _share(config, sgd[1], 0).value:.0f} % of trials "
        f"at N = d and {100 * _share(config, sgd[1], 3).value:.0f} % at N = d + 3; of two subspaces, starting near them, in "
        f"{100 * _share(config, sgd[2], 0).value:.0f} % and {100 * _share(config, sgd[2], 3).value:.0f} %, from a random start in "
        f"{100 * _found(config, lost).value:.0f} % of trials with N >= d. SGD diverged in {diverged} of {runs:,} trials, which count as failures."
    )
    return Section(
        TITLE,
        answer,
        claims,
        [
            FigureEntry(FIGURE_FILES[place], f"Share of trials in which {what}, n = {config.dimension}: {config.trials} trials a cell, {config.sgd_trials} for SGD.")
            for place, what in enumerate(("the subspace is found", "two subspaces are found", "three subspaces are found"))
        ]
        + [FigureEntry(FIGURE_FILES[3], f"Frobenius distance between the estimated and the true projector, noise {config.noise:g}, {config.bound_trials} trials a cell, "
                       f"against the bounds of Theorems 2 and 4 with constants fitted on ranks up to {config.ranks[(len(config.ranks) - 1) // 2]}.")],
        [Table("Share of trials with success by N - d", ("arm", *(f"{gap:+d}" for gap in gaps)), rows)],
        {
            "success": {name: arm["success"].mean(axis=0).tolist() for name, arm in arms.items()},
            "reseeded": reseeded,
            "diverged": diverged,
            "bound_constants": {str(k): bound.constant for k, bound in bounds.items()},
        },
    )  # fmt: skip


# The arms: success (trials, ranks, sizes) of each.


def _problems(config: Config, key: Any, components: int, noise: float, dimension: int, trial: int) -> Problems:
    """One trial of every cell: arms of any number of trials share the programs of one.

    They are waited for, and so are results below: JAX would run the next program beside, and two programs that both
    decompose batches of matrices wait for each other's threads for ever, on two cores.
    """
    cells = grid_cells(config.ranks, config.sizes, [trial])
    own = stream(key, "problems", components)
    return jax.block_until_ready(
        low_rank_problems(own, *cells, dimension=dimension, components=components, noise=noise)
    )


def _shaped(config: Config, arrays: Sequence[Any]) -> np.ndarray:
    """(trials, ranks, sizes, ...)."""
    array = np.concatenate([np.asarray(part) for part in arrays])
    return array.reshape(-1, len(config.ranks), len(config.sizes), *array.shape[1:])


def _closed(
    config: Config, directory: RunDirectory, key: Any, components: int, noise: float, dimension: int | None = None
) -> dict[str, np.ndarray]:
    """PCA for one component, K-subspaces for more."""
    space = dimension or config.dimension

    def compute() -> dict[str, np.ndarray]:
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


def _sgd(config: Config, directory: RunDirectory, key: Any, components: int, near: bool) -> dict[str, np.ndarray]:
    """As many trials at a time as there are devices."""

    def compute() -> dict[str, np.ndarray]:
        at_once = jax.device_count()
        straight, raw, diverged = [], [], []
        grid = vp_grid(config.times)
        with Progress(f"SGD, K = {components}", config.sgd_trials, "trials") as bar:
            for first in range(0, config.sgd_trials, at_once):
                # The last chunk is filled with trials that are thrown away: every chunk has one shape.
                chunk = range(first, first + at_once)
                each = [_problems(config, key, components, 0.0, config.dimension, trial) for trial in chunk]
                draws = [stream(key, "start" if near else "random start", components, trial) for trial in chunk]
                starts = [
                    truth_starts(own, of.truth, config.start) if near else random_starts(own, of.truth)
                    for own, of in zip(draws, each)
                ]
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

    return directory.stage(f"phase/sgd-{components}-{'near' if near and components > 1 else 'random'}", compute)


def _errors(config: Config, key: Any, components: int) -> dict[str, np.ndarray]:
    """Distances of projectors and what multiplies the constant of the bounds, (trials, ranks, sizes, K)."""
    key, distance, unit = stream(key, "bounds"), [], []
    for trial in range(config.bound_trials):
        problems = _problems(config, key, components, config.noise, config.dimension, trial)
        distance.append(np.asarray(_recover(key, problems, config.threshold, trial)[0].frobenius))
        unit.append(np.asarray(gap_to_bound(problems)))
    return {"distance": _shaped(config, distance), "unit": _shaped(config, unit)}


def _checks(config: Config, key: Any) -> dict[str, np.ndarray]:
    """Closed forms against each other, and samples of a mixture from its exact posterior mean."""
    return (
        _tweedie(stream(key, "tweedie")) | _loss(config, stream(key, "loss")) | _samples(config, stream(key, "samples"))
    )


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


# The claims.


def _theory(config: Config) -> np.ndarray:
    """(ranks, sizes) whether N >= d."""
    return np.asarray(config.sizes)[None] >= np.asarray(config.ranks)[:, None]


@dataclass(frozen=True)
class _Fraction:
    """A share of independent trials with its exact 95 % interval (Clopper and Pearson)."""

    hits: int
    total: int

    @property
    def value(self) -> float:
        return self.hits / self.total

    @property
    def interval(self) -> tuple[float, float]:
        found = stats.binomtest(self.hits, self.total).proportion_ci(0.95, "exact")
        return float(found.low), float(found.high)


def _fraction(hits: np.ndarray) -> _Fraction:
    return _Fraction(int(hits.sum()), int(hits.size))


def _share(config: Config, arm: dict[str, np.ndarray], gap: int, lowest: int = 0) -> _Fraction:
    """Successes where N = d + gap, ranks from ``lowest``."""
    cells = [
        (row, config.sizes.index(rank + gap))
        for row, rank in enumerate(config.ranks)
        if rank + gap in config.sizes and rank >= lowest
    ]
    return _fraction(np.stack([arm["success"][:, row, column] for row, column in cells]))


def _found(config: Config, arm: dict[str, np.ndarray]) -> _Fraction:
    """Successes where N >= d."""
    return _fraction(arm["success"][:, _theory(config)])


def _held(make: Callable[..., Claim], fraction: _Fraction, threshold: float, **about: Any) -> Claim:
    return make(value=fraction.value, interval=fraction.interval, threshold=threshold, unit="", paper=PAPER, **about)


def _exact_claims(config: Config, checks: dict[str, np.ndarray]) -> list[Claim]:
    defect = float(checks["tweedie"])
    difference, error = float(checks["loss_difference"]), float(checks["loss_error"])
    farthest = float(checks["minimum_distance"].max())
    about = {"paper": PAPER, "figure": "Theorem 1", "unit": ""}
    return [
        Claim.at_most(
            id="phase-tweedie", paper=PAPER, figure="equation 4", unit="", value=defect, interval=(defect, defect), threshold=1e-10,
            statement="Posterior mean and density of a mixture of unequal ranks, means and variances satisfy Tweedie's identity in float64.",
        ),
        Claim.all_of(
            [
                Claim.equivalent(
                    id="phase-exact-loss-drawn", estimate=difference, interval=(difference - 1.96 * error, difference + 1.96 * error), margin=0.01,
                    statement="The loss with drawn noise is the exact one (relative difference).", **about,
                ),
                Claim.at_most(
                    id="phase-exact-loss-minimum", value=farthest, interval=(farthest, farthest), threshold=0.01,
                    statement="Gradient descent on the exact loss over orthonormal columns ends in PCA's subspace (distance of projectors).", **about,
                ),
            ],
            id="phase-exact-loss", paper=PAPER, figure="Theorem 1",
            statement="Training the denoiser of one subspace is PCA.",
        ),
    ]  # fmt: skip


def _pca_claim(config: Config, pca: dict[float, dict[str, np.ndarray]]) -> Claim:
    wrong = _fraction(pca[0.0]["success"] != _theory(config)[None])
    noisy = pca[config.noise]
    below = _fraction(noisy["success"][:, ~_theory(config)])
    about: dict[str, Any] = {"figure": "Fig 2"}
    parts = [
        _held(Claim.at_most, wrong, 0.005, id="phase-pca-clean", statement="Without noise PCA succeeds exactly where N >= d (share of trials that do otherwise).", **about),
        _held(Claim.at_least, _share(config, noisy, 2), 0.95, id="phase-pca-above", statement=f"With noise {config.noise:g} it succeeds at N = d + 2.", **about),
        _held(Claim.at_most, below, 0.01, id="phase-pca-below", statement=f"With noise {config.noise:g} it fails where N < d.", **about),
    ]  # fmt: skip
    return Claim.all_of(
        parts,
        id="phase-pca",
        paper=PAPER,
        **about,
        statement="PCA finds a subspace of rank d from N points if and only if N >= d.",
    )


def _dimension_claim(config: Config, usual: dict[str, np.ndarray], wide: dict[str, np.ndarray]) -> Claim:
    differs = _fraction((usual["success"] != wide["success"]).any(axis=0))
    return _held(
        Claim.at_most,
        differs,
        0.05,
        id="phase-dimension",
        figure="Fig 2",
        statement=f"PCA's transition is the same in dimension {2 * config.dimension} (share of cells of d and N in which any trial differs).",
    )


def _k_subspaces_claim(config: Config, many: dict[tuple[int, float], dict[str, np.ndarray]]) -> Claim:
    parts = []
    for k, figure in ((2, "Fig 3"), (3, "Fig 6")):
        clean, noisy = many[k, 0.0]["success"], many[k, config.noise]
        high = np.asarray(config.ranks) >= 3
        wrong = _fraction((clean != _theory(config)[None])[:, high])
        parts += [
            _held(Claim.at_most, wrong, 0.01, id=f"phase-k-subspaces-{k}-clean", figure=figure, statement=f"K = {k}, no noise, d >= 3: success exactly where N >= d (share of trials that do otherwise)."),
            _held(Claim.at_least, _share(config, noisy, 2), 0.9, id=f"phase-k-subspaces-{k}-noisy", figure=figure, statement=f"K = {k}, noise {config.noise:g}: success at N = d + 2."),
        ]  # fmt: skip
    return Claim.all_of(
        parts,
        id="phase-k-subspaces",
        paper=PAPER,
        figure="Figs 3 and 6",
        statement="K-subspaces find K subspaces of rank d from N points on each if and only if N >= d.",
    )


def _sgd_claim(config: Config, sgd: dict[int, dict[str, np.ndarray]]) -> Claim:
    parts = []
    for k, figure in ((1, "Fig 2"), (2, "Fig 3"), (3, "Fig 6")):
        parts += [
            _held(Claim.at_most, _share(config, sgd[k], -1), 0.05, id=f"phase-sgd-{k}-below", figure=figure, statement=f"K = {k}: it fails at N = d - 1."),
            _held(Claim.at_least, _share(config, sgd[k], 3), 0.8, id=f"phase-sgd-{k}-above", figure=figure, statement=f"K = {k}: it succeeds at N = d + 3."),
        ]  # fmt: skip
    return Claim.all_of(
        parts,
        id="phase-sgd",
        paper=PAPER,
        figure="Figs 2, 3 and 6",
        statement="SGD on the denoising loss, for K > 1 from a start near the truth, has the phase transition of subspace clustering.",
    )


def _random_start_claim(config: Config, lost: dict[str, np.ndarray]) -> Claim:
    enough = _theory(config)
    by_rank = [
        f"{100 * lost['success'][:, row][:, enough[row]].mean():.0f} % at d = {d}" for row, d in enumerate(config.ranks)
    ]
    return _held(
        Claim.at_most,
        _found(config, lost),
        0.2,
        id="phase-random-start",
        note="by rank: " + ", ".join(by_rank),
        figure="equation 45",
        statement="From a random start SGD does not find two subspaces, though N >= d: the transition needs the start near the truth.",
    )


def _straighten_claim(config: Config, arm: dict[str, np.ndarray]) -> Claim:
    """At the largest rank and size, each trial with and without orthonormal columns."""
    straight, raw = (arm[name][:, -1, -1].astype(float) for name in ("success", "raw"))
    gain = straight - raw
    error = float(np.sqrt(max(gain.var(), 0.25 / len(gain)) / len(gain)))
    return Claim.at_least(
        id="phase-straighten",
        paper="own",
        figure="Algorithm 1",
        statement=f"SGD's columns must be made orthonormal before the test: at d = {config.ranks[-1]}, N = {config.sizes[-1]} that raises the share of successes.",
        value=float(gain.mean()),
        interval=(float(gain.mean()) - 1.96 * error, float(gain.mean()) + 1.96 * error),
        threshold=0.2,
        unit="",
    )


def _samples_claim(checks: dict[str, np.ndarray]) -> Claim:
    about = {"paper": PAPER, "figure": "Lemma 1", "unit": ""}
    farthest = float(checks["off"].max())
    first = _fraction(checks["component"] == 0)
    weight = float(checks["weights"][0])
    error = float(np.sqrt(weight * (1 - weight) / first.total))
    parts = [
        Claim.at_most(id="phase-samples-near", value=farthest, interval=(farthest, farthest), threshold=0.01, statement="Every sample lies on a subspace (largest distance).", **about),
        Claim.equivalent(id="phase-samples-share", estimate=first.value - weight, interval=(first.value - weight,) * 2, margin=3 * error, statement="Components come as often as their weights say, to 3 standard errors.", **about),
    ]  # fmt: skip
    return Claim.all_of(
        parts,
        id="phase-samples",
        paper=PAPER,
        figure="Lemma 1",
        statement="Heun's method on the exact posterior mean samples the mixture.",
    )


@dataclass(frozen=True)
class _Bound:
    """The constant of a bound fitted on the smaller ranks, and how the larger ones keep to it.

    ``constant`` is the smallest with which every cell of the smaller ranks with N >= d keeps the bound in the share
    ``1 - 2^-(N - d + 1)`` of its trials that the theorem promises (its further term in exp(-c N) taken as 0).
    """

    constant: float
    broken: _Fraction
    promised: float
    ratio: float
    ratio_error: float

    @classmethod
    def fitted(cls, config: Config, errors: dict[str, np.ndarray]) -> "_Bound":
        """From distances and units (trials, ranks, sizes, K)."""
        ranks, sizes = np.asarray(config.ranks), np.asarray(config.sizes)
        ratio = errors["distance"] / errors["unit"]
        fitting = range((len(ranks) + 1) // 2)
        constant, broken, promised = 0.0, [], []
        for row, d in enumerate(ranks.tolist()):
            for column in np.flatnonzero(sizes >= d).tolist():
                allowed = 2.0 ** -(sizes[column] - d + 1)
                of = ratio[:, row, column].ravel()
                if row in fitting:
                    constant = max(constant, float(np.quantile(of, 1 - allowed, method="higher")))
                else:
                    broken.append((of, allowed))
                    promised.append(allowed)
        hits = [of > constant for of, _ in broken]
        # Fewer points than dimensions: against sqrt(2 (d - N)), a trial's mean over its cells.
        short = sizes[None] < ranks[:, None]
        wanted = np.sqrt(2.0 * np.maximum(ranks[:, None] - sizes[None], 0))
        relative = (errors["distance"].mean(axis=3)[:, short] / wanted[short][None]).mean(axis=1)
        return cls(
            constant,
            _fraction(np.concatenate(hits)),
            float(np.mean(promised)),
            float(relative.mean()),
            float(relative.std(ddof=1) / np.sqrt(len(relative))),
        )

    def claim(self, name: str, figure: str, method: str) -> Claim:
        """Both sides of the transition."""
        low, high = self.broken.interval
        about: dict[str, Any] = {"paper": PAPER, "figure": figure, "unit": ""}
        parts = [
            Claim.at_most(
                id=f"{name}-above",
                value=self.broken.value - self.promised,
                interval=(low - self.promised, high - self.promised),
                threshold=0.0,
                statement=f"N >= d: with the constant {self.constant:.2f} of the smaller ranks, the larger ones break the bound no more often than promised (difference of shares).",
                **about,
            ),
            Claim.within(
                id=f"{name}-below",
                value=self.ratio,
                interval=(self.ratio - 1.96 * self.ratio_error, self.ratio + 1.96 * self.ratio_error),
                low=0.9,
                high=1.02,
                statement="N < d: the distance is sqrt(2 (d - N)) (their ratio; directions left open may happen to help a little).",
                **about,
            ),
        ]
        return Claim.all_of(
            parts,
            id=name,
            paper=PAPER,
            figure=figure,
            statement=f"The error of {method} obeys the bounds on both sides of N = d.",
        )


def _error_figure(config: Config, errors: dict[int, dict[str, np.ndarray]], bounds: dict[int, _Bound]) -> Any:
    """A small, a middle and the largest rank."""
    shown = (config.ranks[0], config.ranks[len(config.ranks) // 2], config.ranks[-1])
    sizes = np.asarray(config.sizes)
    titles = {1: "PCA, one subspace", 2: "K-subspaces, two subspaces"}
    panels: dict[str, dict[int, Any]] = {title: {} for title in titles.values()}
    lines: dict[str, dict[int, Any]] = {title: {} for title in titles.values()}
    for k, title in titles.items():
        for d in shown:
            row = config.ranks.index(d)
            distance = errors[k]["distance"][:, row].mean(axis=2)
            panels[title][d] = tuple(np.quantile(distance, q, axis=0) for q in (0.5, 0.05, 0.95))
            above = bounds[k].constant * np.median(errors[k]["unit"][:, row], axis=(0, 2))
            lines[title][d] = np.where(sizes >= d, above, np.sqrt(2.0 * np.maximum(d - sizes, 0)))
    return plots.subspace_errors(panels, lines, config.sizes)


def costs(config: Config, subject: Any) -> list[Cost]:
    """SGD's products of noise and bases, twice each; the rest is seconds."""
    cells = len(config.ranks) * len(config.sizes)
    columns = cells * config.ranks[-1]
    a_step = 2 * 2 * config.batch * config.dimension * columns
    # K = 1, 2, 3, and 2 from a random start.
    flop = float(config.sgd_trials) * config.steps * a_step * (1 + 2 + 3 + 2)
    memory = 4.0 * 3 * columns * (config.dimension + 4 * config.batch) * jax.device_count()
    return [Cost("phase: SGD", 0, flop, memory, 0)]
