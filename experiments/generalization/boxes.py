"""Compact targets, the kind that Theorem 1 is about: two boxes, and how the KL grows with their dimension."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from dgu import plots
from dgu.analysis import flow_kl
from dgu.core.errors import PriorMismatchWarning
from dgu.core.keys import stream
from dgu.core.typing import Key
from dgu.models import BoxMixture, ShallowNet
from dgu.samplers import ScoreOfDensity
from dgu.training import Recipe, Runs, train_dynamics
from experiments.generalization.statistics import bootstrap, median, unless, untrained
from experiments.generalization.subject import PAPER, Options, Subject, check_rising
from experiments.generalization.trainings import SDE, draw, log_density
from experiments.study import Claim, Cost, Figure, Findings, Noted, Part, Run, Table, at_most, option
from experiments.study import Options as BaseOptions

#: Smaller estimates of the KL, in nats, are shown as this: their logarithm is taken.
LEAST = 1e-4

FIGURES = (
    Figure(
        "boxes",
        "KL from the likelihood of fresh examples of two boxes, against their dimension, one point for each seed; the "
        "line is the growth of the bound.",
    ),
)


@dataclass(frozen=True)
class Config(BaseOptions, prefix="boxes"):
    """Two boxes in several dimensions, learned with Adam."""

    dimensions: tuple[int, ...] = option((1, 2, 4, 8), ge=1)
    """Dimensions of the boxes, rising."""
    seeds: int = option(5, ge=2)
    """Seeds of each dimension."""
    epochs: int = option(300, ge=1)
    """Epochs of training."""
    width: int = option(64, ge=1)
    """Hidden units."""
    examples: int = option(200, ge=20)
    """Fresh examples in each dimension whose likelihood is computed."""

    def check(self) -> None:
        check_rising(self.name("dimensions"), self.dimensions, fewest=2)


PRESETS = {
    "smoke": Config(dimensions=(1, 2), seeds=2, epochs=4, width=16, examples=100),
    "default": Config(),
    "paper": Config(seeds=20, epochs=2000, examples=2000),
}

CLAIMS = (
    Claim(
        "boxes-dimension",
        "The KL for two boxes grows with their dimension d no faster than the bound's d log(d + 1) (the exponent of "
        "the median KL as a power of it).",
        at_most(1.0),
        source="Theorem 1",
    ),
)


def target(dimension: int) -> BoxMixture:
    """Half on ``[-3, -1] x [-1, 1]^(d-1)``, half on its mirror image."""
    lows, highs = -np.ones((2, dimension)), np.ones((2, dimension))
    lows[:, 0], highs[:, 0] = (-3, 1), (-1, 3)
    return BoxMixture.of([0.5, 0.5], lows, highs)


def measure(config: Config, subject: Subject, run: Run) -> list[dict[str, np.ndarray]]:
    """A few seeds in each dimension."""
    return [run.stage(str(d), _train, config, subject.options, stream(run.key, d), d) for d in config.dimensions]


def _train(config: Config, options: Options, key: Key, d: int) -> dict[str, np.ndarray]:
    """Networks of all seeds, and their KL by probability-flow likelihood against the noisy target at ``t_eps``."""
    boxes, seeds, t_eps = target(d), range(config.seeds), options.t_eps
    data = np.stack([np.asarray(draw(boxes, stream(key, "data", seed), options.examples)) for seed in seeds])
    keys = jnp.stack([stream(key, "train", seed) for seed in seeds])
    units = np.full(config.seeds, config.width, np.int32)
    net = ShallowNet(config.width, d, divisor=options.divisor)
    recipe = Recipe(net, SDE, epochs=config.epochs, every=config.epochs, optimizer="adam")
    runs = Runs(data, keys, np.full(config.seeds, options.adam_rate, np.float32), units)
    found = train_dynamics(runs, recipe, _nothing, chunk_size=options.chunk_size)
    if found.diverged.any():
        raise FloatingPointError(f"two boxes, d = {d}: a network trained with Adam diverged")
    exact = ScoreOfDensity(boxes, SDE)
    clean = draw(boxes, stream(key, "fresh"), config.examples)
    fresh = SDE.perturb(clean, t_eps, jax.random.normal(stream(key, "noise"), clean.shape))
    log_p = log_density(exact, fresh, t_eps)
    with warnings.catch_warnings():
        # The prior's part is in the table, beside each KL.
        warnings.simplefilter("ignore", PriorMismatchWarning)
        estimates = [
            flow_kl(found.score(seed, recipe), SDE, fresh, log_p, t_eps=t_eps, rtol=1e-3, atol=1e-3) for seed in seeds
        ]
    return {
        "kl": np.array([one.value for one in estimates]),
        "error": np.array([one.standard_error for one in estimates]),
        "prior": np.asarray(_prior_part(exact, clean, stream(key, "prior"))),
    }


def _prior_part(exact: ScoreOfDensity, clean: jax.Array, key: Key) -> float:
    """KL(p_T || prior): the likelihood's KL of the exact score itself, whose flow carries p_eps to p_T."""
    end, std = SDE.t_max, SDE.std(SDE.t_max)
    far = SDE.perturb(clean, end, jax.random.normal(key, clean.shape))
    log_prior = np.sum(-0.5 * np.square(far / std) - np.log(std * np.sqrt(2 * np.pi)), axis=1)
    return float(np.mean(log_density(exact, far, end) - log_prior))


def _nothing(score: object, aux: object) -> jax.Array:
    return jnp.zeros(())


def report(config: Config, subject: Subject, found: Sequence[dict[str, np.ndarray]]) -> Findings:
    """The KL against the dimension, and its growth relative to the bound's."""
    values = np.array([one["kl"] for one in found])
    ds = np.asarray(config.dimensions, float)
    factor = ds * np.log(ds + 1)

    def growth(rows: np.ndarray) -> np.ndarray:
        """Slope of the log of the median KL over seeds (axis 0) against the log of d log(d + 1)."""
        x = np.log(factor) - np.mean(np.log(factor))
        return np.log(median(rows)) @ x / np.sum(x**2)

    slope = bootstrap(growth, np.maximum(values.T, LEAST))
    short = untrained(config.epochs)
    line = {"d log(d + 1), height free": factor / factor[0] * float(np.median(values[0]))}
    panel = plots.SizePanel(
        "", "dimension d", "KL($p_{t_ε}$ || model), nats", ds, {"Adam": np.maximum(values, LEAST)}, line
    )
    rows = [
        (
            d,
            float(np.median(one["kl"])),
            float(np.min(one["kl"])),
            float(np.max(one["kl"])),
            float(np.mean(one["error"])),
            float(one["prior"]),
        )
        for d, one in zip(config.dimensions, found)
    ]
    answer = (
        f"The KL for two boxes goes from {rows[0][1]:.2g} nats in {int(ds[0])} dimension{'s' if ds[0] > 1 else ''} to "
        f"{rows[-1][1]:.2g} in {int(ds[-1])}: as (d log(d + 1))^{slope.value:.2f}."
    )
    if short:
        answer = f"What the dimension of two boxes does to the KL was not tested: {short}."
    header = ("d", "median KL", "least", "largest", "standard error of one", "of which the prior's part")
    title = f"Two boxes, {subject.options.examples} examples, {config.width} units"
    return Findings(
        answer,
        {"boxes-dimension": unless(short, Noted(slope, "slope of the log of the median over seeds"))},
        {"boxes": plots.against_size([panel], title=title)},
        tables=[Table("Two boxes, over seeds", header, rows)],
        metrics={"median_kl": [row[1] for row in rows], "dimensions": list(config.dimensions)},
    )


def costs(config: Config, plan: Options) -> list[Cost]:
    """Training; likelihoods take about 100 evaluations with as many products as dimensions."""
    steps = config.seeds * plan.examples * config.epochs
    flop = sum(steps * 6 * config.width * 2 * (d + 4) for d in config.dimensions)
    return [Cost("compact targets", steps * len(config.dimensions), flop, 64e6, 1e5)]


PART = Part(
    name="boxes",
    title="Compact targets",
    question="Does the KL of compact targets grow with their dimension no faster than the bound of Theorem 1?",
    paper=PAPER,
    presets=PRESETS,
    claims=CLAIMS,
    figures=FIGURES,
    measure=measure,
    report=report,
    costs=costs,
)
