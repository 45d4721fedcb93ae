"""Theory: the gradient flow of random features in closed form, Lemmas 4 to 6, and the bounds of Theorems 1 and 2."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from dgu import plots, training
from dgu.analysis import least_of_others, median_interval, optimal_stopping, theorem_one_bound
from dgu.analysis.stats.estimates import exactly
from dgu.core.keys import stream
from dgu.core.typing import Key
from dgu.distributions import draw_examples
from dgu.models import RandomFeatures, RandomFeatureScore
from dgu.samplers import ScoreOfDensity
from experiments import study
from experiments.generalization import monte_carlo
from experiments.generalization.statistics import MEDIAN_CHANGED, median_over_seeds, unless
from experiments.generalization.subject import MEASURE, MU, PAPER, SDE, Arm, Options, Subject, check_rising
from experiments.study import Claim, Cost, Figure, Findings, Noted, Run, all_of, at_least, at_most, option, within

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

#: Reach of the random features; nodes of the quadrature of the noise, and times, of the losses.
REACH, NODES, LEVELS = 6.0, 12, 12
TAUS = np.logspace(1, 8.5, 46)
#: Training sets of up to this many examples are small.
FEW = 30
#: Rise of the population loss after its minimum, relative to it, that makes a curve U-shaped.
RISE = 0.01
#: Exponent by which equation 16 of the paper says that the best time grows and the bound falls.
EXPONENT = 0.4
#: What changed of the claims on the rise of the loss.
_CROSS_FITTED = (
    "until 30 November 2026 each seed's loss at the end was compared with its own least loss along the flow, above "
    "which it lies by construction."
)


@dataclass(frozen=True)
class Config(study.Options, prefix="flow"):
    """Gradient flow of the random-feature model, in closed form."""

    sizes: tuple[int, ...] = option((10, 30, 100, 1000), ge=1)
    """Training-set sizes, rising."""
    features: int = option(256, ge=1)
    """Random features."""
    seeds: int = option(10, ge=2)
    """Seeds of each size."""

    def check(self) -> None:
        check_rising(self.name("sizes"), self.sizes, fewest=2)


PRESETS = {
    "smoke": Config(sizes=(10, 30), features=16, seeds=2),
    "default": Config(),
    "paper": Config(sizes=(10, 30, 100, 300, 1000, 3000), features=1024, seeds=50),
}


def claims(config: Config) -> tuple[Claim, ...]:
    """What is tested."""
    rises = [
        Claim(
            f"flow-rise-{n}",
            f"With {n} training examples, the population loss at the end of the gradient flow exceeds that at the best "
            f"time to stop by {100 * RISE:g} % or more (value: the relative excess, median over seeds; the best time "
            "for a seed is where the median loss of all other seeds is least).",
            at_least(RISE),
            source="Theorem 1",
            changed=f"{MEDIAN_CHANGED} {_CROSS_FITTED}",
        )
        for n in _few(config.sizes)
    ]
    return (
        Claim(
            "flow-argmin",
            "With more training examples, the population loss along the gradient flow is least at a time that is no "
            "earlier (one part for each step from one number of examples to the next; value: the change of the time on "
            "a logarithmic scale, in powers of ten, paired by seed, median over seeds).",
            study.each(at_least(0.0)),
            source="Theorem 1",
            unit="decades",
            changed=MEDIAN_CHANGED,
        ),
        Claim(
            "flow-u-shape",
            f"With {FEW} training examples or fewer (one part for each number), training for too long does harm: at "
            "the end of the gradient flow, the population loss exceeds that at the best time to stop by "
            f"{100 * RISE:g} % or more (value: the relative excess, median over seeds; the best time for a seed is "
            "where the median loss of all other seeds is least).",
            all_of(*rises),
            source="Theorem 1",
            changed=f"{MEDIAN_CHANGED} {_CROSS_FITTED}",
        ),
        Claim(
            "flow-lemmas",
            "Lemmas 4 and 5 hold along every gradient flow: |theta(tau)| <= sqrt(tau L(0)) and L(tau) - L* <= "
            "|theta*|^2 / (2 tau), with theta the parameters and L their training loss at time tau, theta* their limit "
            "and L* its loss (value: the largest ratio of a left-hand side to its right-hand side).",
            at_most(1.0),
            source="Lemmas 4 and 5",
            check=True,
        ),
        Claim(
            "flow-rate",
            "The time at which the population loss along the gradient flow is least grows with the number n of "
            f"training examples as the time at which the bound of Theorem 1 is least does, as n^{EXPONENT:g}: the "
            f"fitted exponent is within 0.1 of {EXPONENT:g} (value: the exponent, median over seeds).",
            within(0.3, 0.5),
            source="equation 16",
            changed="the value was the mean over seeds, with an interval of bootstrap "
            "percentiles, which are too narrow for so few seeds; it is now the median, with an interval between order "
            "statistics, which holds for exponents of any distribution.",
        ),
        Claim(
            "monte-carlo-error",
            "The mean squared error with which m random features estimate the model with infinitely many falls as 1 / "
            "m: the fitted exponent of m is within 0.1 of -1 (value: the exponent, median over seeds).",
            within(-1.1, -0.9),
            source="Lemma 6",
            check=True,
        ),
        Claim(
            "bound-time",
            "With as many random features as training examples n, the bound of Theorem 1 is least at a training time "
            f"that grows as n^{EXPONENT:g}: the fitted exponent is within 0.02 of {EXPONENT:g} (value: the exponent).",
            within(0.38, 0.42),
            source="equation 16",
            check=True,
        ),
        Claim(
            "bound-value",
            "With as many random features as training examples n, the least value of the bound of Theorem 1 over "
            f"training times falls as n^-{EXPONENT:g}: the fitted exponent is within 0.02 of -{EXPONENT:g} (value: the "
            "exponent).",
            within(-0.42, -0.38),
            source="equation 16",
            check=True,
        ),
    )


FIGURES = (
    Figure(
        "flow",
        "Population loss and KL along the gradient flow on the empirical loss, one thin line for each seed, by "
        "training-set size.",
    ),
    Figure(
        "flow_rates",
        "Best stopping time and least KL of the gradient flow against the number of training examples, and the error "
        "of a Monte Carlo estimate of the model against its number of random features, one point for each seed; the "
        "lines have the exponents of Theorem 1 and of Lemma 6.",
    ),
)


def _few(sizes: Sequence[int]) -> list[int]:
    """The small training-set sizes, or the smallest where none is small."""
    return [n for n in sizes if n <= FEW] or [sizes[0]]


def measure(config: Config, subject: Subject, run: Run) -> dict[str, np.ndarray]:
    """Flows of every size and seed, of which those of a seed have the same random features; Monte Carlo errors."""
    own = stream(run.key, "monte-carlo")
    error = run.stage("monte-carlo", monte_carlo.errors, subject.near, config.seeds, REACH, own)["error"]
    return {**run.stage("curves", flows, config, subject.near, run.key), "error": error}


def flows(config: Config, arm: Arm, key: Key) -> dict[str, np.ndarray]:
    """Losses, KL and norms along the flow, (sizes, seeds, taus); lemmas (sizes, seeds, 2).

    In double precision: late times move along eigenvectors whose eigenvalues single precision does not hold.
    """
    empirical_loss, population_loss = jax.jit(training.empirical_loss), jax.jit(training.population_loss)
    with jax.enable_x64(True):
        # The middles of equal parts of [t_eps, 1], t_eps being where the KL is taken.
        parts = np.linspace(arm.t, 1, LEVELS + 1)
        times = jnp.asarray((parts[1:] + parts[:-1]) / 2).at[0].set(arm.t)
        noise = [jnp.asarray(part) for part in training.gauss_hermite(NODES)]
        points = [jnp.asarray(part) for part in training.two_mode_quadrature(MU, np.asarray(SDE.std(times)))]
        exact, aux = ScoreOfDensity(arm.target, SDE), MEASURE.aux(SDE, arm.target, arm.t, arm.grid)
        found = []
        for seed in range(config.seeds):
            own = stream(key, seed)
            features = RandomFeatures.draw(stream(own, "features"), config.features, reach=REACH)
            features = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), features)
            population = population_loss(features, SDE, exact, times, *points)
            rows = draw_examples(arm.target, stream(own, "data"), max(config.sizes))
            for n in config.sizes:
                loss = empirical_loss(features, SDE, rows[:n].astype(float), times, *noise)
                curves, path = training.flow_curves(loss, population, TAUS)
                kl = np.asarray(_path_kl(features, jnp.asarray(path), aux))
                found.append(vars(curves) | {"kl": kl, "lemmas": training.lemma_ratios(loss, curves, TAUS)})
    shape = config.seeds, len(config.sizes)
    return {
        name: np.array([one[name] for one in found]).reshape(*shape, -1).swapaxes(0, 1)
        for name in ("population", "empirical", "norm", "gap", "kl", "lemmas")
    }


@jax.jit
def _path_kl(features: RandomFeatures, path: jax.Array, aux: dict[str, jax.Array]) -> jax.Array:
    """The KL at every point of a path of theta."""
    return jax.lax.map(lambda theta: MEASURE(RandomFeatureScore(features, theta), aux)["kl"], path)


def report(config: Config, subject: Subject, found: Mapping[str, np.ndarray]) -> Findings:
    """Best times and least values along the flow, and those of the bound."""
    sizes = config.sizes
    population, kl = found["population"], found["kl"]  # (sizes, seeds, taus)
    best, least = TAUS[np.argmin(population, axis=2)], kl.min(axis=2)
    rise = np.stack([_excess(curves) for curves in population])
    rates, falls = _exponents(sizes, best), _exponents(sizes, least)
    rate, fall = median_interval(rates), median_interval(falls)
    slopes = _exponents(monte_carlo.FEATURES, found["error"])
    ns = np.logspace(3, 9, 13)
    times, heights = _bound(ns)
    time_slope = _slope(ns, times)
    changes = {
        f"{a}-{b}": Noted(
            median_over_seeds(np.log10(best[at + 1] / best[at])),
            statement=f"From {a} to {b} training examples, the time at which the population loss along the gradient "
            "flow is least does not fall (value: its change in powers of ten, paired by seed, median over seeds).",
        )
        for at, (a, b) in enumerate(pairwise(sizes))
    }
    note = (
        f"The flow has {config.features} random features at every n, where the bound takes as many as n; it is "
        f"followed up to the time {TAUS[-1]:.1g}; the least KL along the flow falls as n^{fall.value:.2f} "
        f"[{fall.low:.2f}, {fall.high:.2f}]."
    )
    columns = {
        "best time": best,
        "rise of the loss at the end": rise,
        "least KL": least,
        "distance to the population flow at the end": found["gap"][..., -1],
    }
    rows = [(n, *(float(np.median(values[at])) for values in columns.values())) for at, n in enumerate(sizes)]
    return Findings(
        f"The best stopping time of the flow goes from {rows[0][1]:.2g} with {sizes[0]} examples to {rows[-1][1]:.2g} "
        f"with {sizes[-1]}: as n^{rate.value:.2f} [{rate.low:.2f}, {rate.high:.2f}], the bound's as "
        f"n^{time_slope:.2f}.",
        claims={
            "flow-argmin": changes,
            "flow-u-shape": unless(
                f"every training set has {sizes[0]:,} examples or more" * (sizes[0] > FEW),
                {f"flow-rise-{n}": median_over_seeds(rise[sizes.index(n)]) for n in _few(sizes)},
            ),
            # Exact: the bound is a closed form, and the lemmas hold of every flow or do not.
            "flow-lemmas": exactly(float(found["lemmas"].max())),
            "flow-rate": Noted(median_over_seeds(rates), note),
            "monte-carlo-error": median_over_seeds(slopes),
            "bound-time": exactly(time_slope),
            "bound-value": exactly(_slope(ns, heights)),
        },
        figures={"flow": _curves(config, population, kl), "flow_rates": _rates(sizes, best, least, found["error"])},
        tables=[study.Table("Gradient flow, medians over seeds", ("examples", *columns), rows)],
        metrics={"best_time": [row[1] for row in rows], "least_kl": [row[3] for row in rows], "sizes": list(sizes)},
    )


def _excess(curves: np.ndarray) -> np.ndarray:
    """How far each seed's curve (seeds, taus) ends above its value where the median of the others is least, relative to
    that.
    """
    return curves[:, -1] / curves[np.arange(len(curves)), least_of_others(curves)] - 1


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    """Exponent of y as a power of x, by least squares."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def _exponents(sizes: Sequence[int], values: np.ndarray) -> np.ndarray:
    """Of each seed: exponent of ``values`` (sizes, seeds) as a power of the size."""
    n = np.asarray(sizes, float)
    return np.asarray([_slope(n, own) for own in values.T])


def _bound(n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The time at which the bound of Theorem 1 is least, and its value there, with as many features as examples."""
    times = np.array([optimal_stopping(float(k), float(k)) for k in n])
    return times, theorem_one_bound(times, n, n).total


def _curves(config: Config, population: np.ndarray, kl: np.ndarray) -> "Drawing":
    panels = [
        plots.SeedCurves(f"{name}, n = {n}", TAUS, curves[at])
        for name, curves in (("loss", population), ("KL", kl))
        for at, n in enumerate(config.sizes)
    ]
    return plots.seed_curves(
        panels,
        xlabel="training time τ",
        ylabel="population loss, or KL in nats",
        columns=len(config.sizes),
        log_x=True,
        title=f"Gradient flow of {config.features} random features, closed form",
    )


def _rates(sizes: Sequence[int], best: np.ndarray, least: np.ndarray, error: np.ndarray) -> "Drawing":
    n, middle = np.asarray(sizes, float), len(sizes) // 2
    panels = []
    for label, points, line in zip(("best stopping time τ", "least KL over τ, nats"), (best, least), _bound(n)):
        reference = {"Theorem 1, height free": line / line[middle] * float(np.median(points[middle]))}
        panels.append(plots.SizePanel("", "examples n", label, n, {"flow": points}, reference))
    m = np.asarray(monte_carlo.FEATURES, float)
    by_features = {"1 / m, height free": float(np.median(error[0])) * m[0] / m}
    panels.append(plots.SizePanel("", "random features m", "Monte Carlo error", m, {"estimates": error}, by_features))
    return plots.against_size(panels)


def costs(config: Config, plan: Options) -> list[Cost]:
    """Features of all points, and their products."""
    points = sum(config.sizes) * LEVELS * NODES * config.seeds
    return [Cost("gradient flow", points, 2.0 * points * config.features**2, 64e6, 2e6)]


PART = study.Part(
    name="flow",
    title="Random features and the bounds",
    question="When is the gradient flow of random features best, and the bound of Theorem 1?",
    paper=PAPER,
    claims=claims,
    figures=FIGURES,
    measure=measure,
    report=report,
    presets=PRESETS,
    costs=costs,
)
