"""Theory: the closed-form gradient flow of the random-feature model over n, Lemmas 4 and 5, and the bounds of Theorems 1 and 2."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from dgu import plots
from dgu.analysis import optimal_stopping, theorem_one_bound
from dgu.analysis.divergence.kl import KLMeasure, grid_kl, score_log_density
from dgu.core.keys import seeded, stream
from dgu.models import RandomFeatures, RandomFeatureScore, two_modes
from dgu.samplers import ScoreOfDensity
from dgu.training import empirical_loss, flow_curves, gauss_hermite, gradient_flow, population_loss
from experiments.generalization_parts import common
from experiments.generalization_parts.config import Config
from experiments.study.costs import Cost
from experiments.study.judged import JudgedClaim
from experiments.study.report import FigureEntry, Section, Table
from experiments.study.run_directory import RunDirectory

TITLE = "Random features and the bounds"
CLAIM_IDS = ("flow-argmin", "flow-u-shape", "flow-lemmas", "flow-rate", "bound-time", "bound-value")
FIGURE_FILES = ("figures/flow.png", "figures/flow_rates.png")
MU, REACH, NODES, LEVELS = 3.0, 6.0, 12, 12
TAUS = np.logspace(1, 8.5, 46)
#: So many examples are few.
FEW = 30


def run(config: Config, directory: RunDirectory) -> Section:
    """Flows of every size and seed on the same features a seed."""
    found = directory.stage("flow", partial(_flows, config))
    sizes, n = config.flow_sizes, np.asarray(config.flow_sizes, float)
    population, kl = found["population"], found["kl"]  # (sizes, seeds, taus)
    best = TAUS[np.argmin(population, axis=2)]
    order = [common.bootstrap(common.median, np.log10(best[at + 1] / best[at])) for at in range(len(sizes) - 1)]
    rise = population[..., -1] / population.min(axis=2) - 1
    few = [at for at, size in enumerate(sizes) if size <= FEW] or [0]
    slope = [float(np.polyfit(np.log(n), np.log(best[:, seed]), 1)[0]) for seed in range(best.shape[1])]
    value, interval = common.bootstrap(partial(np.mean, axis=0), np.asarray(slope))
    least = kl.min(axis=2)
    fall = [float(np.polyfit(np.log(n), np.log(least[:, seed]), 1)[0]) for seed in range(best.shape[1])]
    fall_value, fall_interval = common.bootstrap(partial(np.mean, axis=0), np.asarray(fall))
    ns = np.logspace(3, 9, 13)
    times = np.array([optimal_stopping(float(k), float(k)) for k in ns])
    heights = theorem_one_bound(times, ns, ns).total
    time_slope, value_slope = (float(np.polyfit(np.log(ns), np.log(y), 1)[0]) for y in (times, heights))
    lemma = float(found["lemmas"].max())
    # Exact: the bound is a closed form, and the lemmas hold of every flow or do not.
    claims = [
        JudgedClaim.all_of(
            [JudgedClaim.at_least(id=f"flow-argmin-{a}-{b}", paper=common.PAPER, figure="Theorem 1", statement=f"n = {a} to {b}.", value=v, interval=i, threshold=0.0, unit="decades") for (v, i), a, b in zip(order, sizes, sizes[1:])],
            id="flow-argmin", paper=common.PAPER, figure="Theorem 1", statement="The training time at which the population loss is least does not fall with the number of examples: median over seeds of the paired change."),
        JudgedClaim.all_of(
            [common.median_claim(rise[at], kind="at_least", id=f"flow-rise-{sizes[at]}", figure="Theorem 1", statement=f"n = {sizes[at]}.", threshold=0.01) for at in few],
            id="flow-u-shape", paper=common.PAPER, figure="Theorem 1", statement=f"With {FEW} examples or fewer the population loss along the flow is U-shaped: at the end of the times shown it is above its least by 1 % or more.").unless("" if sizes[0] <= FEW else f"there are {sizes[0]:,} examples or more"),
        JudgedClaim.at_most(unit="", id="flow-lemmas", paper=common.PAPER, figure="Lemmas 4 and 5", statement="|theta(tau)| <= sqrt(tau L(0)) and L(tau) - L* <= |theta*|^2 / (2 tau) along every flow (the larger of the two ratios).", value=lemma, interval=(lemma, lemma), exact=True, threshold=1.0),
        JudgedClaim.within(unit="", id="flow-rate", paper=common.PAPER, figure="equation 16", statement="The best stopping time of the flow grows with n as the bound's does, to the power .4 (exponent within .1).", value=value, interval=interval, low=0.3, high=0.5, note=f"m = {config.flow_features} is fixed, where the bound takes m ~ n; times end at {TAUS[-1]:.1g}; the least KL falls as n^{fall_value:.2f} [{fall_interval[0]:.2f}, {fall_interval[1]:.2f}]"),
        JudgedClaim.within(unit="", id="bound-time", paper=common.PAPER, figure="equation 16", statement="With m = n the bound of Theorem 1 is least at a time that grows as n^.4.", value=time_slope, interval=(time_slope, time_slope), exact=True, low=0.38, high=0.42),
        JudgedClaim.within(unit="", id="bound-value", paper=common.PAPER, figure="equation 16", statement="With m = n the bound of Theorem 1 falls as n^-.4 at that time.", value=value_slope, interval=(value_slope, value_slope), exact=True, low=-0.42, high=-0.38),
    ]  # fmt: skip
    panels = [plots.SeedCurves(f"loss, n = {size}", TAUS, population[at]) for at, size in enumerate(sizes)]
    panels += [plots.SeedCurves(f"KL, n = {size}", TAUS, kl[at]) for at, size in enumerate(sizes)]
    directory.save_figure(
        FIGURE_FILES[0],
        plots.seed_curves(
            panels, xlabel="training time τ", ylabel="population loss, or KL in nats", columns=len(sizes), log_x=True,
            title=f"Gradient flow of {config.flow_features} random features, closed form",
        ),
    )  # fmt: skip
    middle = len(sizes) // 2
    bound_times = np.array([optimal_stopping(float(k), float(k)) for k in n])
    bound_values = theorem_one_bound(bound_times, n, n).total
    references = [
        {"Theorem 1, height free": y / y[middle] * float(np.median(points[middle]))}
        for y, points in ((bound_times, best), (bound_values, least))
    ]
    directory.save_figure(
        FIGURE_FILES[1],
        plots.against_size(
            [
                plots.SizePanel("", "examples n", "best stopping time τ", n, {"flow": best}, references[0]),
                plots.SizePanel("", "examples n", "least KL over τ, nats", n, {"flow": least}, references[1]),
            ],
        ),
    )
    rows = [
        (size, float(np.median(best[at])), float(np.median(rise[at])), float(np.median(least[at])), float(np.median(found["gap"][at, :, -1])))
        for at, size in enumerate(sizes)
    ]  # fmt: skip
    answer = f"The best stopping time of the flow goes from {rows[0][1]:.2g} with {sizes[0]} examples to {rows[-1][1]:.2g} with {sizes[-1]}: as n^{value:.2f} [{interval[0]:.2f}, {interval[1]:.2f}], the bound's as n^{time_slope:.2f}."
    return Section(
        TITLE,
        answer,
        claims,
        [
            FigureEntry(FIGURE_FILES[0], "Population loss and KL along the gradient flow on the empirical loss."),
            FigureEntry(FIGURE_FILES[1], "Best stopping time and least KL against the number of examples, beside the exponents of Theorem 1."),
        ],
        [Table("Gradient flow, medians over seeds", ("examples", "best time", "rise of the loss at the end", "least KL", "distance to the population flow at the end"), rows)],
        {"best_time": [row[1] for row in rows], "least_kl": [row[3] for row in rows], "sizes": list(sizes)},
    )  # fmt: skip


def _flows(config: Config) -> dict[str, np.ndarray]:
    """Losses, KL and norms along the flow, (sizes, seeds, taus); lemmas (sizes, seeds, 2).

    In double precision: late times move along eigenvectors whose eigenvalues single precision does not hold.
    """
    with jax.enable_x64(True):
        return _in_double(config)


def _in_double(config: Config) -> dict[str, np.ndarray]:
    target, grid = two_modes(MU), common.grid_for(MU, config.points)
    aux = KLMeasure().aux(common.SDE, target, config.t_eps, grid)
    # The middles of equal parts of [t_eps, 1], t_eps being where the KL is taken.
    parts = np.linspace(config.t_eps, 1, LEVELS + 1)
    times = jnp.asarray((parts[1:] + parts[:-1]) / 2).at[0].set(config.t_eps)
    nodes, weights = gauss_hermite(NODES)
    spread = np.sqrt(1 + np.asarray(common.SDE.std(times)) ** 2)
    wide_nodes, wide_weights = gauss_hermite(60)
    points = np.concatenate([sign * MU + spread[:, None, None] * wide_nodes for sign in (-1, 1)], axis=1)
    point_weights = np.broadcast_to(np.tile(wide_weights, 2) / 2, points.shape[:2])
    exact = ScoreOfDensity(target, common.SDE)
    given = [jnp.asarray(value) for value in (nodes, weights, points, point_weights)]
    root = stream(seeded(config.seed), "flow")

    @jax.jit
    def empirical(features: RandomFeatures, data: jax.Array, times: jax.Array, nodes: jax.Array, weights: jax.Array):  # type: ignore[no-untyped-def]
        return empirical_loss(features, common.SDE, data, times, nodes, weights)

    @jax.jit
    def whole(features: RandomFeatures, exact: ScoreOfDensity, times: jax.Array, points: jax.Array, weights: jax.Array):  # type: ignore[no-untyped-def]
        return population_loss(features, common.SDE, exact, times, points, weights)

    @jax.jit
    def divergences(features: RandomFeatures, path: jax.Array, aux: dict[str, jax.Array]) -> jax.Array:
        def one(theta: jax.Array) -> jax.Array:
            score = RandomFeatureScore(features, theta)
            return grid_kl(aux["log_p"], score_log_density(score, aux["t_eps"], aux["fine"], grid.refine), aux["step"])

        return jax.lax.map(one, path)

    names = ("population", "empirical", "norm", "gap", "kl", "lemmas")
    out: dict[str, list[list[np.ndarray]]] = {name: [[] for _ in config.flow_sizes] for name in names}
    for seed in range(config.flow_seeds):
        own = stream(root, seed)
        features = RandomFeatures.draw(stream(own, "features"), config.flow_features, reach=REACH)
        features = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), features)
        exact_loss = whole(features, exact, times, *given[2:])
        rows = common.draw(target, stream(own, "data"), max(config.flow_sizes))
        for at, n in enumerate(config.flow_sizes):
            loss = empirical(features, rows[:n].astype(float), times, *given[:2])
            curves, path = flow_curves(loss, exact_loss, TAUS)
            kl = np.asarray(divergences(features, jnp.asarray(path), aux))
            best = gradient_flow(loss, [1e14])
            least = float(np.asarray(loss(jnp.asarray(best[0]))))
            lemma5 = curves.norm / np.sqrt(TAUS * float(loss.constant))
            # The losses are differences of sums: less than 1e-9 of these is not told from 0.
            excess = np.maximum(curves.empirical - least - 1e-9 * float(loss.constant), 0)
            lemma4 = excess * 2 * TAUS / np.sum(best**2)
            values = (curves.population, curves.empirical, curves.norm, curves.gap, kl, np.array([lemma4.max(), lemma5.max()]))  # fmt: skip
            for name, value in zip(names, values):
                out[name][at].append(value)
    return {name: np.array(rows) for name, rows in out.items()}


def costs(config: Config) -> list[Cost]:
    """Features of all points, and their products."""
    points = sum(config.flow_sizes) * LEVELS * NODES * config.flow_seeds
    return [Cost("gradient flow", points, 2.0 * points * config.flow_features**2, 64e6, 2e6)]
