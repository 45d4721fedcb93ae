"""The KL three ways: from the score on a grid, from likelihoods of fresh examples, from samples; exact scores and trained ones."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dgu import plots
from dgu.analysis import flow_kl, knn_kl, score_kl
from dgu.core.keys import seeded, stream
from dgu.models import ShallowNet, two_modes
from dgu.models.shallow import ShallowScore
from dgu.samplers import ScoreOfDensity, probability_flow
from experiments.generalization_parts import common
from experiments.generalization_parts.config import Config
from experiments.study.costs import Cost
from experiments.study.judged import JudgedClaim
from experiments.study.report import FigureEntry, Section, Table
from experiments.study.run_directory import RunDirectory

TITLE = "The KL three ways"
CLAIM_IDS = ("kl-ways-exact", "kl-same-law", "kl-ways-trained", "kl-floor")
FIGURE_FILES = ("figures/kl_three_ways.png",)
MU, TOLERANCE = 3.0, 1e-4
#: What the exact estimates may differ by, beside three standard errors: noise at t_eps and the prior's distance, in nats.
OFFSET = 0.01
#: Standard error of a difference, in nats, above which agreement says nothing.
COARSE = 0.06
#: The time that the paper takes the KL at, and the floor of its protocol there, in nats.
FLOOR_TIME, FLOOR = 0.065, (0.0012, 0.0016)


def run(config: Config, directory: RunDirectory) -> Section:
    """Exact score, and the networks that the basic study trained with Adam on the largest set."""
    stored = directory.stage(f"stopping/adam-{max(config.sizes)}", _absent, allow_nonfinite=True)
    found = directory.stage("three-ways", partial(_estimates, config, stored))
    values, errors = found["values"], found["errors"]  # (1 + networks, 3)
    names = ["exact score", *(f"network, seed {k}" for k in range(len(values) - 1))]
    pairs = ((1, 0, "flow-grid", "likelihood - grid"), (2, 0, "samples-grid", "samples - grid"), (2, 1, "samples-flow", "samples - likelihood"))  # fmt: skip
    parts = [
        _agree(values[k, a] - values[k, b], float(np.hypot(errors[k, a], errors[k, b])), f"kl-{k}-{name}", f"{names[k]}: {words}")
        for k in range(len(values))
        for a, b, name, words in pairs
    ]  # fmt: skip
    floor, short = float(values[0, 0]), common.untrained(config.epochs)
    about = {"paper": "own", "figure": "equation 11"}
    # The floor is exact: a quadrature of the exact score.
    claims = [
        JudgedClaim.all_of(parts[:3], id="kl-ways-exact", statement=f"On the exact score the three estimates of the KL agree: they differ by less than {OFFSET:g} beside three standard errors, and these are {COARSE:g} or less.", **about),
        JudgedClaim.all_of(parts[5::3], id="kl-same-law", statement="On trained networks the two estimates of one law, likelihoods and samples of the probability flow, agree by the same rule.", **about).unless(short),
        JudgedClaim.all_of(parts[3:], id="kl-ways-trained", statement="On trained networks all three agree: integrating the score at one time tells what the model samples.", **about).unless(short),
        JudgedClaim.within(id="kl-floor", paper="own", figure="section 4.1", statement=f"On the exact score the paper's protocol has the floor that noise at t_eps gives, {sum(FLOOR) / 2:g} for t_eps = {FLOOR_TIME:g}.", value=floor, interval=(floor, floor), exact=True, low=FLOOR[0], high=FLOOR[1], unit="nats").unless("" if config.t_eps == FLOOR_TIME else f"the KL was taken at t_eps = {config.t_eps:g}"),
    ]  # fmt: skip
    directory.save_figure(
        FIGURE_FILES[0],
        plots.forest(
            [part.statement for part in parts],
            np.array([part.value for part in parts]),
            np.array([part.interval for part in parts]),
            OFFSET,
            verdicts=[part.verdict for part in parts],
            quantity="difference of two estimates of KL(target || model), nats",
        ),
    )
    rows = [
        (name, *(f"{v:.4f} ± {1.96 * e:.4f}" for v, e in zip(values[k], errors[k]))) for k, name in enumerate(names)
    ]
    gap = values[1:, 1] - values[1:, 0]
    answer = f"On trained networks the likelihood's KL exceeds the grid's by {gap.min():+.3f} to {gap.max():+.3f} nats: the grid looks at one time alone."
    if short:
        gap = values[0, 1] - values[0, 0]
        answer = f"On the exact score the likelihood's KL differs from the grid's by {gap:+.3f} nats; on trained networks it was not tested: {short}."
    return Section(
        TITLE,
        answer,
        claims,
        [FigureEntry(FIGURE_FILES[0], "Differences between the three estimates of the KL, with 95 % intervals; the table has the estimates themselves.")],
        [Table("The KL three ways, nats", ("model", "score on a grid", "likelihood of fresh examples", "samples, nearest neighbours"), rows)],
        {"values": values.tolist(), "standard_errors": errors.tolist()},
    )  # fmt: skip


def _absent() -> dict[str, np.ndarray]:
    raise RuntimeError("the basic study must run before the three estimates")


def _agree(difference: float, error: float, name: str, statement: str) -> JudgedClaim:
    """The difference is within ``OFFSET`` beside 3 standard errors: its 95 % interval lies inside OFFSET and 5 of them."""
    return JudgedClaim.equivalent(id=name, paper="own", figure="equation 11", statement=statement, estimate=float(difference), interval=(float(difference - 1.96 * error), float(difference + 1.96 * error)), margin=OFFSET + 5 * error, standard_error=error, max_standard_error=COARSE, unit="nats")  # fmt: skip


def _estimates(config: Config, stored: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    target, n = two_modes(MU), config.divergence_examples
    root = stream(seeded(config.seed), "three ways")
    fresh = common.draw(target, stream(root, "fresh"), n)
    log_p = common.log_density(target, fresh, 0.0)
    sde, t_eps = common.SDE, config.t_eps
    net = ShallowNet(config.width, divisor=config.divisor)

    def network(seed: int) -> ShallowScore:
        parts = {
            kind: {
                name.split(".")[1]: jnp.asarray(value[seed]) for name, value in stored.items() if name.startswith(kind)
            }
            for kind in ("params.", "frozen.")
        }
        return ShallowScore(parts["params."], parts["frozen."], net, sde)

    good = np.flatnonzero(stored["first_nonfinite"] < 0)[: config.divergence_networks]
    scores: list[Any] = [ScoreOfDensity(target, sde), *(network(int(seed)) for seed in good)]
    grid = common.grid_for(MU, config.points)
    carry = jax.jit(
        jax.vmap(
            lambda score, x: probability_flow(score, sde, x, sde.t_max, t_eps, rtol=TOLERANCE, atol=TOLERANCE),
            in_axes=(None, 0),
        )
    )
    values, errors = [], []
    for number, score in enumerate(scores):
        start = sde.std(sde.t_max) * jax.random.normal(stream(root, "start", number), (n, 1))
        flow = flow_kl(score, sde, fresh, log_p, t_eps=t_eps, rtol=TOLERANCE, atol=TOLERANCE)
        neighbours = knn_kl(fresh, carry(score, start))
        values.append([score_kl(score, sde, target, t_eps=t_eps, grid=grid), flow.value, neighbours.value])
        errors.append([0.0, flow.standard_error, neighbours.standard_error])
    return {"values": np.array(values, float), "errors": np.array(errors, float)}


def costs(config: Config) -> list[Cost]:
    """About 200 evaluations an example each way."""
    evaluations = (1 + config.divergence_networks) * config.divergence_examples * 600
    return [Cost("KL three ways", evaluations, evaluations * 2 * config.width * 8, 64e6, 1e4)]
