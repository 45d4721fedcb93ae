"""Compact targets: two boxes in d = 1, 2, 4, 8, the kind that Theorem 1 is about, and what dimension does to the KL."""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from dgu import plots
from dgu.analysis import flow_kl
from dgu.core.errors import PriorMismatchWarning
from dgu.core.keys import seeded, stream
from dgu.models import BoxMixture, ShallowNet
from dgu.samplers import ScoreOfDensity
from dgu.training import Recipe, Runs, train_dynamics
from experiments.generalization_parts import common
from experiments.generalization_parts.config import Config
from experiments.study.costs import Cost
from experiments.study.judged import JudgedClaim
from experiments.study.report import FigureEntry, Section, Table
from experiments.study.run_directory import RunDirectory

TITLE = "Compact targets"
CLAIM_IDS = ("boxes-dimension",)
FIGURE_FILES = ("figures/boxes.png",)


def target(dimension: int) -> BoxMixture:
    """Half on ``[-3, -1] x [-1, 1]^(d-1)``, half on its mirror image."""
    lows, highs = -np.ones((2, dimension)), np.ones((2, dimension))
    lows[:, 0], highs[:, 0] = (-3, 1), (-1, 3)
    return BoxMixture.of([0.5, 0.5], lows, highs)


def run(config: Config, directory: RunDirectory) -> Section:
    """A few seeds for each dimension."""
    kl, error, base = [], [], []
    for d in config.box_dimensions:
        found = directory.stage(f"boxes/{d}", partial(_train, config, d))
        kl.append(found["kl"])
        error.append(found["error"])
        base.append(float(found["prior"]))
    values, ds = np.array(kl), np.asarray(config.box_dimensions, float)
    factor = ds * np.log(ds + 1)

    def growth(rows: np.ndarray) -> np.ndarray:
        """Slope of the log of the median KL over seeds (axis 0) against the log of d log(d + 1)."""
        x = np.log(factor) - np.mean(np.log(factor))
        return np.log(common.median(rows)) @ x / np.sum(x**2)

    slope, interval = common.bootstrap(growth, np.maximum(values.T, 1e-4))
    short = common.untrained(config.box_epochs)
    claims = [
        JudgedClaim.at_most(unit="", id="boxes-dimension", paper=common.PAPER, figure="Theorem 1", statement="The KL of compact targets grows with the dimension no faster than the d log(d + 1) of the bound: exponent against it.", value=slope, interval=interval, threshold=1.0, note="slope of the log of the median over seeds").unless(short)
    ]  # fmt: skip
    line = {"d log(d + 1), height free": factor / factor[0] * float(np.median(values[0]))}
    directory.save_figure(
        FIGURE_FILES[0],
        plots.against_size(
            [plots.SizePanel("", "dimension d", "KL($p_{t_ε}$ || model), nats", ds, {"Adam": np.maximum(values, 1e-4)}, line)],
            title=f"Two boxes, {max(config.sizes)} examples, {config.box_width} units",
        ),
    )  # fmt: skip
    rows = [
        (d, float(np.median(values[at])), float(np.min(values[at])), float(np.max(values[at])), float(np.mean(error[at])), base[at])
        for at, d in enumerate(config.box_dimensions)
    ]  # fmt: skip
    answer = f"The KL for two boxes goes from {rows[0][1]:.2g} nats in {int(ds[0])} dimension{'s' if ds[0] > 1 else ''} to {rows[-1][1]:.2g} in {int(ds[-1])}: as (d log(d + 1))^{slope:.2f}."
    if short:
        answer = f"What the dimension of two boxes does to the KL was not tested: {short}."
    return Section(
        TITLE,
        answer,
        claims,
        [FigureEntry(FIGURE_FILES[0], "KL by the likelihood of fresh examples against the dimension; the line is the bound's growth.")],
        [Table("Two boxes, over seeds", ("d", "median KL", "least", "largest", "standard error of one", "of which the prior's part"), rows)],
        {"median_kl": [row[1] for row in rows], "dimensions": list(config.box_dimensions)},
    )  # fmt: skip


def _train(config: Config, d: int) -> dict[str, np.ndarray]:
    """Networks of all seeds, and their KL by probability-flow likelihood against the noisy target at ``t_eps``."""
    seeds, boxes = config.box_seeds, target(d)
    root = stream(seeded(config.seed), "boxes", d)
    data = np.stack(
        [np.asarray(common.draw(boxes, stream(root, "data", seed), max(config.sizes))) for seed in range(seeds)]
    )
    keys = jnp.stack([stream(root, "train", seed) for seed in range(seeds)])
    units = np.full(seeds, config.box_width, np.int32)
    net = ShallowNet(config.box_width, d, divisor=config.divisor)
    recipe = Recipe(net, common.SDE, epochs=config.box_epochs, every=config.box_epochs, optimizer="adam")
    runs = Runs(data, keys, np.full(seeds, config.adam_rate, np.float32), units)
    found = train_dynamics(runs, recipe, _nothing, chunk_size=config.chunk_size)
    if found.diverged.any():
        raise FloatingPointError(f"two boxes, d = {d}: a network trained with Adam diverged")
    exact = ScoreOfDensity(boxes, common.SDE)
    clean = common.draw(boxes, stream(root, "fresh"), config.box_examples)
    fresh = common.SDE.perturb(clean, config.t_eps, jax.random.normal(stream(root, "noise"), clean.shape))
    log_p = common.log_density(exact, fresh, config.t_eps)
    options = {"t_eps": config.t_eps, "rtol": 1e-3, "atol": 1e-3}
    with warnings.catch_warnings():
        # The prior's part is in the table, beside each KL.
        warnings.simplefilter("ignore", PriorMismatchWarning)
        estimates = [flow_kl(found.score(seed, recipe), common.SDE, fresh, log_p, **options) for seed in range(seeds)]
    return {
        "kl": np.array([one.value for one in estimates]),
        "error": np.array([one.standard_error for one in estimates]),
        "prior": np.asarray(_prior_part(exact, clean, stream(root, "prior"))),
    }


def _prior_part(exact: ScoreOfDensity, clean: jax.Array, key: jax.Array) -> float:
    """KL(p_T || prior): what the likelihood's KL of the exact score itself would be, for its flow carries p_eps to p_T."""
    end, std = common.SDE.t_max, common.SDE.std(common.SDE.t_max)
    far = common.SDE.perturb(clean, end, jax.random.normal(key, clean.shape))
    log_prior = np.sum(-0.5 * np.square(far / std) - np.log(std * np.sqrt(2 * np.pi)), axis=1)
    return float(np.mean(common.log_density(exact, far, end) - log_prior))


def _nothing(score: object, aux: object) -> jax.Array:
    return jnp.zeros(())


def costs(config: Config) -> list[Cost]:
    """Training; likelihoods take about 100 evaluations with as many products as dimensions."""
    steps = config.box_seeds * max(config.sizes) * config.box_epochs
    flop = sum(steps * 6 * config.box_width * 2 * (d + 4) for d in config.box_dimensions)
    return [Cost("compact targets", steps * len(config.box_dimensions), flop, 64e6, 1e5)]
