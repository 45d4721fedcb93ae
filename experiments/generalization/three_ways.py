"""The KL estimated three ways: from the score on a grid, from likelihoods, from samples; exact and trained scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure as Drawing

from dgu import plots
from dgu.analysis import flow_kl, knn_kl, score_kl
from dgu.analysis.stats.estimates import Estimate, exactly, normal_estimate
from dgu.core.errors import require
from dgu.core.keys import stream
from dgu.models import ShallowNet
from dgu.models.shallow import ShallowScore
from dgu.samplers import ScoreOfDensity, probability_flow
from experiments.generalization.statistics import unless, untrained
from experiments.generalization.subject import PAPER, Options, Subject
from experiments.generalization.trainings import SDE, draw, log_density
from experiments.study import (
    Claim,
    Cost,
    Figure,
    Findings,
    Measured,
    NotTested,
    Part,
    Run,
    Table,
    all_of,
    equivalent,
    option,
    within,
)
from experiments.study import Options as BaseOptions
from experiments.study.claims import judge

#: Tolerance of the probability flow.
TOLERANCE = 1e-4
#: What the exact estimates may differ by, beside three standard errors: noise at t_eps and the prior's distance, in
#: nats.
OFFSET = 0.01
#: Standard error of a difference, in nats, above which agreement says nothing.
COARSE = 0.06
#: What each estimate is made from.
_SOURCES = {
    "grid": "the score on a grid",
    "likelihood": "the likelihoods of fresh examples",
    "samples": "the nearest neighbours of samples",
}
#: The time at which the paper takes the KL, and the floor of its protocol there, in nats.
FLOOR_TIME, FLOOR = 0.065, (0.0012, 0.0016)


@dataclass(frozen=True)
class Pair:
    """Two of the three estimates, ``first`` and ``second``, with their columns; ``name`` is that in ids of claims."""

    name: str
    first: str
    second: str
    columns: tuple[int, int]


PAIRS = (
    Pair("flow-grid", "likelihood", "grid", (1, 0)),
    Pair("samples-grid", "samples", "grid", (2, 0)),
    Pair("samples-flow", "samples", "likelihood", (2, 1)),
)
#: The pair of estimates of one distribution, that of the probability flow.
FLOW = PAIRS[2]

FIGURES = (
    Figure(
        "kl_three_ways",
        "Differences between the three estimates of the KL, with 95 % intervals, for the exact score and for trained "
        "networks; the table has the estimates themselves.",
    ),
)


@dataclass(frozen=True)
class Config(BaseOptions, prefix="three_ways"):
    """The KL estimated three ways."""

    examples: int = option(1000, ge=100)
    """Fresh examples, and samples, of the estimates."""
    networks: int = option(3, ge=2)
    """Networks trained with Adam on the largest training set that the estimates are compared on; at most seeds."""


PRESETS = {
    "smoke": Config(examples=100, networks=2),
    "default": Config(),
    "paper": Config(examples=10_000, networks=20),
}


def claims(config: Config) -> tuple[Claim, ...]:
    """What is tested."""
    return (
        Claim(
            "kl-ways-exact",
            f"On the exact score, the three estimates of the KL agree: they differ by less than {OFFSET:g} nats beside "
            f"three standard errors, which are {COARSE:g} nats or less.",
            all_of(*_on_exact()),
            source="equation 11",
            paper="own",
            unit="nats",
        ),
        Claim(
            "kl-same-law",
            "On trained networks, the two estimates of the distribution of the probability flow, from likelihoods and "
            f"from samples, agree: they differ by less than {OFFSET:g} nats beside three standard errors.",
            all_of(*_on_networks(config, (FLOW,))),
            source="equation 11",
            paper="own",
            unit="nats",
        ),
        Claim(
            "kl-ways-trained",
            "On trained networks, all three estimates of the KL agree, so that integrating the score at one time "
            f"tells what the model samples: they differ by less than {OFFSET:g} nats beside three standard errors.",
            all_of(*_on_networks(config, PAIRS)),
            source="equation 11",
            paper="own",
            unit="nats",
        ),
        Claim(
            "kl-floor",
            "On the exact score, the paper's protocol has the floor that the noise at t_eps gives: "
            f"{sum(FLOOR) / 2:g} nats for t_eps = {FLOOR_TIME:g}.",
            within(*FLOOR),
            source="section 4.1",
            paper="own",
            unit="nats",
        ),
    )


def _on_exact() -> list[Claim]:
    return [agreement(0, pair) for pair in PAIRS]


def _on_networks(config: Config, pairs: Sequence[Pair]) -> list[Claim]:
    return [agreement(number, pair) for number in range(1, config.networks + 1) for pair in pairs]


def agreement(number: int, pair: Pair) -> Claim:
    """Two estimates agree on the exact score (``number`` 0) or on a trained network (1 and up).

    The difference is within ``OFFSET`` beside 3 standard errors: its 95 % interval lies inside OFFSET and 5 of them.
    """
    model = f"trained network {number}" if number else "the exact score"
    return Claim(
        f"kl-{number}-{pair.name}",
        f"On {model}, the estimate of the KL from {_SOURCES[pair.first]} is that from {_SOURCES[pair.second]}, within "
        f"{OFFSET:g} nats beside three standard errors.",
        equivalent(_margin, max_standard_error=COARSE),
        source="equation 11",
        paper="own",
        unit="nats",
    )


def _margin(difference: Estimate) -> float:
    assert difference.standard_error is not None
    return OFFSET + 5 * float(difference.standard_error)


def measure(config: Config, subject: Subject, run: Run) -> dict[str, np.ndarray]:
    """``values`` and ``errors``, (1 + networks, 3): for the exact score, and networks trained with Adam."""
    networks = subject.networks("adam", subject.options.examples)
    return run.stage("estimates", estimates, config, subject, networks)


def estimates(config: Config, subject: Subject, networks: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The three estimates for the exact score and the first networks that did not diverge."""
    arm, n = subject.near, config.examples
    root = subject.key("three ways")
    fresh = draw(arm.target, stream(root, "fresh"), n)
    log_p = log_density(arm.target, fresh, 0.0)
    good = np.flatnonzero(networks["first_nonfinite"] < 0)[: config.networks]
    scores: list[Any] = [
        ScoreOfDensity(arm.target, SDE),
        *(_score(subject.options, networks, int(seed)) for seed in good),
    ]
    carry = jax.jit(
        jax.vmap(
            lambda score, x: probability_flow(score, SDE, x, SDE.t_max, arm.t, rtol=TOLERANCE, atol=TOLERANCE),
            in_axes=(None, 0),
        )
    )
    values, errors = [], []
    for number, score in enumerate(scores):
        start = SDE.std(SDE.t_max) * jax.random.normal(stream(root, "start", number), (n, 1))
        flow = flow_kl(score, SDE, fresh, log_p, t_eps=arm.t, rtol=TOLERANCE, atol=TOLERANCE)
        neighbours = knn_kl(fresh, carry(score, start))
        values.append([score_kl(score, SDE, arm.target, t_eps=arm.t, grid=arm.grid), flow.value, neighbours.value])
        errors.append([0.0, flow.standard_error, neighbours.standard_error])
    return {"values": np.array(values, float), "errors": np.array(errors, float)}


def _score(options: Options, networks: Mapping[str, np.ndarray], seed: int) -> ShallowScore:
    """The network of one seed (see ``Subject.train``)."""

    def leaves(kind: str) -> dict[str, jax.Array]:
        return {
            name.removeprefix(kind): jnp.asarray(value[seed])
            for name, value in networks.items()
            if name.startswith(kind)
        }

    return ShallowScore(leaves("params."), leaves("frozen."), ShallowNet(options.width, divisor=options.divisor), SDE)


def report(config: Config, subject: Subject, found: Mapping[str, np.ndarray]) -> Findings:
    """Differences between the estimates."""
    values, errors = found["values"], found["errors"]  # (1 + networks, 3)
    options, names = subject.options, ["exact score", *(f"network, seed {k}" for k in range(len(values) - 1))]
    short = untrained(options.epochs)
    floor_time = "" if options.t_eps == FLOOR_TIME else f"the KL was measured at t_eps = {options.t_eps:g}"
    models = range(len(values))
    differences = {agreement(k, pair): difference(values[k], errors[k], pair) for k in models for pair in PAIRS}

    def chosen(parts: Sequence[Claim]) -> dict[str, Measured]:
        return {part.id: differences.get(part, NotTested("too many networks diverged")) for part in parts}

    gap = values[:, 1] - values[:, 0]
    if short:
        answer = (
            f"On the exact score the likelihood's KL differs from the grid's by {gap[0]:+.3f} nats; "
            f"on trained networks it was not tested: {short}."
        )
    else:
        answer = (
            f"On trained networks the likelihood's KL exceeds the grid's by {gap[1:].min():+.3f} to "
            f"{gap[1:].max():+.3f} nats: the grid looks at one time alone."
        )
    estimates_of = [[normal_estimate(*each) for each in zip(values[k], errors[k])] for k in models]
    rows = [
        (name, *(f"{each.value:.4f} ± {each.high - each.value:.4f}" for each in own))
        for name, own in zip(names, estimates_of)
    ]
    header = ("model", "score on a grid", "likelihood of fresh examples", "samples, nearest neighbours")
    labels = [f"{name}: {pair.first} - {pair.second}" for name in names for pair in PAIRS]
    return Findings(
        answer,
        claims={
            "kl-ways-exact": chosen(_on_exact()),
            "kl-same-law": unless(short, chosen(_on_networks(config, (FLOW,)))),
            "kl-ways-trained": unless(short, chosen(_on_networks(config, PAIRS))),
            # Exact: a quadrature of the exact score.
            "kl-floor": unless(floor_time, exactly(float(values[0, 0]))),
        },
        figures={"kl_three_ways": _forest(labels, differences)},
        tables=[Table("The KL three ways, nats", header, rows)],
        metrics={"values": values.tolist(), "standard_errors": errors.tolist()},
    )


def difference(values: np.ndarray, errors: np.ndarray, pair: Pair) -> Estimate:
    """Of two of a model's three estimates, (3,), whose standard errors are ``errors``."""
    a, b = pair.columns
    return normal_estimate(float(values[a] - values[b]), float(np.hypot(errors[a], errors[b])))


def _forest(labels: Sequence[str], differences: Mapping[Claim, Estimate]) -> Drawing:
    return plots.forest(
        labels,
        np.array([each.value for each in differences.values()]),
        np.array([(each.low, each.high) for each in differences.values()]),
        OFFSET,
        verdicts=[judge(claim, each, PAPER).verdict for claim, each in differences.items()],
        quantity="difference of two estimates of KL(target || model), nats",
    )


def check(config: Config, subject: Subject) -> None:
    """There are networks enough."""
    seeds = subject.options.seeds
    require(config.networks <= seeds, "three_ways.networks", config.networks, f"at most seeds = {seeds}")


def costs(config: Config, plan: Options) -> list[Cost]:
    """About 200 evaluations an example each way."""
    evaluations = (1 + config.networks) * config.examples * 600
    return [Cost("KL three ways", evaluations, evaluations * 2 * plan.width * 8, 64e6, 1e4)]


PART = Part(
    name="three_ways",
    title="The KL three ways",
    question="Do three estimates of the KL agree, on the exact score and on trained networks?",
    paper=PAPER,
    presets=PRESETS,
    claims=claims,
    figures=FIGURES,
    measure=measure,
    report=report,
    costs=costs,
    check=check,
)
