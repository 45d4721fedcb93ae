"""Compact targets, the kind that Theorem 1 is about: two boxes, and how the KL grows with their dimension."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from dgu import plots, training
from dgu.analysis import flow_kl, prior_kl
from dgu.core.errors import PriorMismatchWarning
from dgu.core.keys import stream
from dgu.core.typing import Key
from dgu.distributions import draw_examples, log_densities, two_boxes
from dgu.models import ShallowNet
from dgu.samplers import ScoreOfDensity
from experiments import study
from experiments.generalization.statistics import median_over_seeds, unless, untrained
from experiments.generalization.subject import PAPER, SDE, Options, Subject, check_rising
from experiments.study import Claim, Cost, Figure, Findings, Part, Run, Table, at_most, option

#: Smaller estimates of the KL, in nats, are shown as this: their logarithm is taken.
LEAST = 1e-4


@dataclass(frozen=True)
class Config(study.Options, prefix="boxes"):
    """Two boxes in several dimensions, learned with Adam."""

    dimensions: tuple[int, ...] = option((1, 2, 4, 8), ge=1)
    """Dimensions of the boxes, rising."""
    seeds: int = option(6, ge=2)
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
GROWTH = (
    "For data uniform on two boxes in d dimensions, the KL from data to model after training with Adam, found from the "
    "likelihoods of fresh examples, grows no faster with d than the bound of Theorem 1, which is proportional to d log("
    "d + 1) (value: the exponent p in a fit of the KL by [d log(d + 1)]^p, median over seeds)."
)
CHANGED = (
    "the value was the exponent of the median KL over 5 seeds, with an interval of "
    "bootstrap percentiles, which are too narrow for so few; it is now the median of the exponents of 6 seeds, with an "
    "interval between order statistics."
)
CLAIMS = (Claim("boxes-dimension", GROWTH, at_most(1.0), source="Theorem 1", changed=CHANGED),)
FIGURES = (
    Figure(
        "boxes",
        "KL from the likelihood of fresh examples of two boxes, against their dimension, one point for each seed; the "
        "line is the growth of the bound.",
    ),
)


def measure(config: Config, subject: Subject, run: Run) -> list[dict[str, np.ndarray]]:
    """A few seeds in each dimension."""
    return [run.stage(str(d), _train, config, subject.options, stream(run.key, d), d) for d in config.dimensions]


def _train(config: Config, options: Options, key: Key, d: int) -> dict[str, np.ndarray]:
    """Networks of all seeds, and their KL by probability-flow likelihood against the noisy target at ``t_eps``."""
    boxes, seeds, t_eps = two_boxes(d), range(config.seeds), options.t_eps
    runs = training.Runs(
        np.stack([np.asarray(draw_examples(boxes, stream(key, "data", seed), options.examples)) for seed in seeds]),
        jnp.stack([stream(key, "train", seed) for seed in seeds]),
        rates=np.full(config.seeds, options.adam_rate, np.float32),
        units=np.full(config.seeds, config.width, np.int32),
    )
    net = ShallowNet(config.width, d, divisor=options.divisor)
    recipe = training.Recipe(net, SDE, epochs=config.epochs, every=config.epochs, optimizer="adam")
    found = training.train_dynamics(runs, recipe, _nothing, chunk_size=options.chunk_size)
    if found.diverged.any():
        raise FloatingPointError(f"two boxes, d = {d}: a network trained with Adam diverged")
    clean = draw_examples(boxes, stream(key, "fresh"), config.examples)
    fresh = SDE.perturb(clean, t_eps, jax.random.normal(stream(key, "noise"), clean.shape))
    log_p = log_densities(ScoreOfDensity(boxes, SDE), fresh, t_eps)
    with warnings.catch_warnings():
        # The prior's part is in the table, beside each KL.
        warnings.simplefilter("ignore", PriorMismatchWarning)
        estimates = [
            flow_kl(found.score(seed, recipe), SDE, fresh, log_p, t_eps=t_eps, rtol=1e-3, atol=1e-3) for seed in seeds
        ]
    return {
        "kl": np.array([one.value for one in estimates]),
        "error": np.array([one.standard_error for one in estimates]),
        "prior": np.asarray(prior_kl(boxes, SDE, clean, stream(key, "prior"))),
    }


def _nothing(score: object, aux: object) -> jax.Array:
    """Measured during training: the likelihoods at its end are what counts."""
    return jnp.zeros(())


def report(config: Config, subject: Subject, found: Sequence[dict[str, np.ndarray]]) -> Findings:
    """The KL against the dimension, and its growth relative to the bound's."""
    values = np.array([one["kl"] for one in found])
    ds = np.asarray(config.dimensions, float)
    factor = ds * np.log(ds + 1)

    shown = np.maximum(values, LEAST)
    # Of each seed: slope of the logarithm of the KL against that of d log(d + 1).
    x = np.log(factor) - np.mean(np.log(factor))
    growth = np.log(shown).T @ x / np.sum(x**2)
    short = untrained(config.epochs)
    line = {"d log(d + 1), height free": factor / factor[0] * float(np.median(values[0]))}
    panel = plots.SizePanel("", "dimension d", "KL($p_{t_ε}$ || model), nats", ds, {"Adam": shown}, line)
    rows = [
        (
            d,
            *(float(of(one["kl"])) for of in (np.median, np.min, np.max)),
            float(np.mean(one["error"])),
            float(one["prior"]),
        )
        for d, one in zip(config.dimensions, found)
    ]
    answer = (
        f"The KL for two boxes goes from {rows[0][1]:.2g} nats in {int(ds[0])} dimension{'s' if ds[0] > 1 else ''} to "
        f"{rows[-1][1]:.2g} in {int(ds[-1])}: as (d log(d + 1))^{np.median(growth):.2f}."
    )
    if short:
        answer = f"What the dimension of two boxes does to the KL was not tested: {short}."
    header = ("d", "median KL", "least", "largest", "standard error of one", "of which the prior's part")
    title = f"Two boxes, {subject.options.examples} examples, {config.width} units"
    return Findings(
        answer,
        {"boxes-dimension": unless(short, median_over_seeds(growth))},
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
    claims=CLAIMS,
    figures=FIGURES,
    measure=measure,
    report=report,
    presets=PRESETS,
    costs=costs,
)
