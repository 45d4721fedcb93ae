"""The KL estimated three ways: from the score on a grid, from likelihoods, from samples; exact and trained scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dgu import plots
from dgu.analysis import flow_kl, knn_kl, score_kl
from dgu.analysis.stats.estimates import Estimate, exactly, normal_estimate
from dgu.core.errors import require
from dgu.core.keys import stream
from dgu.distributions import draw_examples, log_densities
from dgu.models import ShallowNet, ShallowScore
from dgu.samplers import ScoreOfDensity, probability_flow
from experiments import study
from experiments.generalization.statistics import unless, untrained
from experiments.generalization.subject import PAPER, SDE, Options, Subject
from experiments.study import Claim, Cost, Figure, Findings, Measured, NotTested, Run, all_of, equivalent, option
from experiments.study.claims import judge

#: Tolerance of the probability flow.
TOLERANCE = 1e-4
#: What the exact estimates may differ by, in addition to three standard errors: noise at t_eps and the prior's
#: distance, in
#: nats.
OFFSET = 0.01
#: Standard error of a difference, in nats, above which agreement says nothing.
COARSE = 0.06
#: The three estimates, and what each is made from.
WAYS = {
    "grid": "the score on a grid",
    "likelihood": "the likelihoods of fresh examples",
    "samples": "the nearest neighbours of samples",
}
#: The pairs of estimates that are compared, by their name in ids of claims.
PAIRS = {
    "flow-grid": ("likelihood", "grid"),
    "samples-grid": ("samples", "grid"),
    "samples-flow": ("samples", "likelihood"),
}
#: The pair of estimates of one distribution, that of the probability flow.
FLOW = "samples-flow"
#: The time at which the paper takes the KL, and the floor of its protocol there, in nats.
FLOOR_TIME, FLOOR = 0.065, (0.0012, 0.0016)


@dataclass(frozen=True)
class Config(study.Options, prefix="three_ways"):
    """The KL estimated three ways."""

    examples: int = option(1000, ge=100)
    """Fresh examples, and samples, of the estimates."""
    networks: int = option(3, ge=2)
    """Networks trained with Adam on the largest training set that the estimates are compared on; at most --seeds."""


PRESETS = {
    "smoke": Config(examples=100, networks=2),
    "default": Config(),
    "paper": Config(examples=10_000, networks=20),
}
_claim = partial(Claim, source="equation 11", paper="own", unit="nats")


def claims(config: Config) -> tuple[Claim, ...]:
    """What is tested."""
    close = (
        f"they differ by less than {OFFSET:g} nats plus three standard errors, so that the 95 % interval lies inside "
        f"{OFFSET:g} nats plus five (value: the first estimate of the part's name minus the second; undecided if the "
        f"standard error exceeds {COARSE:g})"
    )
    three = (
        "three estimates of the KL from data to model agree in each pair (a part each), from likelihoods under the "
        "probability flow (flow), nearest neighbours of its samples (samples), and the score on a grid at one time "
        "(grid)"
    )
    return (
        _claim(
            "kl-ways-exact",
            f"With the exact score, {three}: {close}.",
            all_of(*_agreements([0], PAIRS)),
        ),
        _claim(
            "kl-same-law",
            "On networks trained with Adam (one part each), two estimates of the KL from the data to the distribution "
            "that the probability flow samples agree, from nearest neighbours of its samples and from the likelihoods "
            f"of fresh examples under it: {close}.",
            all_of(*_agreements(_trained(config), [FLOW])),
        ),
        _claim(
            "kl-ways-trained",
            f"On networks trained with Adam, {three}, so that the score at one time tells what the model samples: "
            f"{close}.",
            all_of(*_agreements(_trained(config), PAIRS)),
        ),
        _claim(
            "kl-floor",
            "Even a network that has learned the score perfectly has a KL from data to model above 0 by the paper's "
            "protocol, which takes the score at a small time t_eps and thereby compares the data with data to which "
            "the noise of that time is added: with the exact score in place of a learned one, the KL is "
            f"{sum(FLOOR) / 2:g} nats for t_eps = {FLOOR_TIME:g}, within {(FLOOR[1] - FLOOR[0]) / 2:g} (value: this "
            "KL, summed over a grid).",
            study.within(*FLOOR),
            source="section 4.1",
            check=True,
        ),
    )


FIGURES = (
    Figure(
        "kl_three_ways",
        "Differences between the three estimates of the KL, with 95 % intervals, for the exact score and for trained "
        "networks; the table has the estimates themselves.",
    ),
)


def _trained(config: Config) -> Sequence[int]:
    """Numbers of the trained networks, after that of the exact score, 0."""
    return range(1, config.networks + 1)


def _agreements(numbers: Sequence[int], pairs: Sequence[str] | Mapping[str, Any]) -> list[Claim]:
    return [agreement(number, pair) for number in numbers for pair in pairs]


def agreement(number: int, pair: str) -> Claim:
    """Two estimates agree on the exact score (``number`` 0) or on a trained network (1 and up).

    The difference is within ``OFFSET`` plus 3 standard errors: its 95 % interval lies inside OFFSET and 5 of them.
    """
    model, (first, second) = f"trained network {number}" if number else "the exact score", PAIRS[pair]
    return _claim(
        f"kl-{number}-{pair}",
        f"On {model}, the estimate of the KL from {WAYS[first]} is that from {WAYS[second]}, within {OFFSET:g} nats "
        "plus three standard errors (value: the first minus the second).",
        equivalent(lambda difference: OFFSET + 5 * float(difference.standard_error), max_standard_error=COARSE),
    )


def measure(config: Config, subject: Subject, run: Run) -> dict[str, np.ndarray]:
    """``values`` and ``errors``, (1 + networks, 3): for the exact score, and networks trained with Adam."""
    networks = subject.networks("adam", subject.options.examples)
    return run.stage("estimates", estimates, config, subject, networks)


def estimates(config: Config, subject: Subject, networks: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The three estimates for the exact score and the first networks that did not diverge."""
    arm, n = subject.near, config.examples
    root = subject.key("three ways")
    fresh = draw_examples(arm.target, stream(root, "fresh"), n)
    log_p = log_densities(arm.target, fresh, 0.0)
    good = np.flatnonzero(networks["first_nonfinite"] < 0)[: config.networks]
    trained = [_score(subject.options, networks, int(seed)) for seed in good]
    scores: list[Any] = [ScoreOfDensity(arm.target, SDE), *trained]
    tolerances = {"rtol": TOLERANCE, "atol": TOLERANCE}

    @jax.jit
    def carry(score: Any, x: jax.Array) -> jax.Array:
        return jax.vmap(lambda row: probability_flow(score, SDE, row, SDE.t_max, arm.t, **tolerances))(x)

    values, errors = [], []
    for number, score in enumerate(scores):
        start = SDE.std(SDE.t_max) * jax.random.normal(stream(root, "start", number), (n, 1))
        flow = flow_kl(score, SDE, fresh, log_p, t_eps=arm.t, **tolerances)
        neighbours = knn_kl(fresh, carry(score, start))
        values.append([score_kl(score, SDE, arm.target, t_eps=arm.t, grid=arm.grid), flow.value, neighbours.value])
        errors.append([0.0, flow.standard_error, neighbours.standard_error])
    return {"values": np.array(values, float), "errors": np.array(errors, float)}


def _score(options: Options, networks: Mapping[str, np.ndarray], seed: int) -> ShallowScore:
    """The network of one seed (see ``Subject.train``)."""
    params, frozen = (
        {name.removeprefix(kind): jnp.asarray(value[seed]) for name, value in networks.items() if name.startswith(kind)}
        for kind in ("params.", "frozen.")
    )
    return ShallowScore(params, frozen, ShallowNet(options.width, divisor=options.divisor), SDE)


def report(config: Config, subject: Subject, found: Mapping[str, np.ndarray]) -> Findings:
    """Differences between the estimates."""
    values, errors = found["values"], found["errors"]  # (1 + networks, 3)
    options, names = subject.options, ["exact score", *(f"network, seed {k}" for k in range(len(values) - 1))]
    short = untrained(options.epochs)
    floor_time = "" if options.t_eps == FLOOR_TIME else f"the KL was measured at t_eps = {options.t_eps:g}"
    declared = _agreements(range(len(values)), PAIRS)
    differences = [difference(*each, pair) for each in zip(values, errors) for pair in PAIRS]
    by_id = {claim.id: each for claim, each in zip(declared, differences)}

    def chosen(parts: Sequence[Claim]) -> dict[str, Measured]:
        return {part.id: by_id.get(part.id, NotTested("too many networks diverged")) for part in parts}

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
    half = normal_estimate(values, errors).high - values
    rows = [
        (name, *(f"{value:.4f} ± {width:.4f}" for value, width in zip(of_model, widths)))
        for name, of_model, widths in zip(names, values, half)
    ]
    header = ("model", "score on a grid", "likelihood of fresh examples", "samples, nearest neighbours")
    drawing = plots.forest(
        [f"{name}: {first} minus {second}" for name in names for first, second in PAIRS.values()],
        np.array([each.value for each in differences]),
        np.array([(each.low, each.high) for each in differences]),
        OFFSET,
        verdicts=[judge(claim, each, PAPER).verdict for claim, each in zip(declared, differences)],
        quantity="difference of two estimates of KL(target || model), nats",
    )
    return Findings(
        answer,
        claims={
            "kl-ways-exact": chosen(_agreements([0], PAIRS)),
            "kl-same-law": unless(short, chosen(_agreements(_trained(config), [FLOW]))),
            "kl-ways-trained": unless(short, chosen(_agreements(_trained(config), PAIRS))),
            # Exact: a quadrature of the exact score.
            "kl-floor": unless(floor_time, exactly(float(values[0, 0]))),
        },
        figures={"kl_three_ways": drawing},
        tables=[study.Table("The KL three ways, nats", header, rows)],
        metrics={"values": values.tolist(), "standard_errors": errors.tolist()},
    )


def difference(values: np.ndarray, errors: np.ndarray, pair: str) -> Estimate:
    """Of two of a model's three estimates, (3,), whose standard errors are ``errors``."""
    a, b = (list(WAYS).index(way) for way in PAIRS[pair])
    return normal_estimate(float(values[a] - values[b]), float(np.hypot(errors[a], errors[b])))


def check(config: Config, subject: Subject) -> None:
    """There are networks enough."""
    seeds = subject.options.seeds
    require(config.networks <= seeds, "three_ways.networks", config.networks, f"at most seeds = {seeds}")


def costs(config: Config, plan: Options) -> list[Cost]:
    """About 200 evaluations an example each way."""
    evaluations = (1 + config.networks) * config.examples * 600
    return [Cost("KL three ways", evaluations, evaluations * 2 * plan.width * 8, 64e6, 1e4)]


PART = study.Part(
    name="three_ways",
    title="The KL three ways",
    question="Do three estimates of the KL agree, on the exact score and on trained networks?",
    paper=PAPER,
    claims=claims,
    figures=FIGURES,
    measure=measure,
    report=report,
    presets=PRESETS,
    costs=costs,
    check=check,
)
