"""Which intrinsic dimension does a network see? The numerical rank of its Jacobian along sampling trajectories."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dgu import analysis, plots
from dgu.analysis.subspaces.energy_share import Rule, share_wanted
from dgu.analysis.subspaces.numerical_rank import JacobianRanks
from dgu.core.keys import seeded, stream
from dgu.core.noisy import noisy_input
from dgu.core.typing import Key
from dgu.models import MoLRG, load_checkpoint
from dgu.samplers import karras_sigmas
from experiments import study
from experiments.molrg.networks_arms import LARGEST, planted
from experiments.molrg.networks_config import COMPONENTS, SHAPE
from experiments.molrg.subject import PAPER, Plan, Subject
from experiments.study import Claim, Cost, Figure, Measured, Noted, NotTested, Options, all_of, at_least, option, within
from experiments.study.progress import Progress
from experiments.subjects import evaluation_cost

#: The mixture of the paper's figure: two orthogonal subspaces of this dimension in 48 dimensions.
RANK = 6
BOTH, AMBIENT = COMPONENTS * RANK, int(np.prod(SHAPE))
#: Room around a rank of the closed form, and the number of draws from which on Wilson's interval is narrower than that
#: even if they all agree.
ROOM = 0.1
LEAST_DRAWS = 458
#: Least rise of the rank of a network towards either end; least share of points whose interval holds the rank, and the
#: number of points from which on Wilson's interval can show it.
RISE, HELD, LEAST_POINTS = 1.0, 0.8, 16
#: Noise levels that the paper's figure fixes for the closed form, and the range of its mean rank at each.
FIXED = {
    0.3: (float(RANK), RANK + ROOM),
    1.1: (RANK + 3.0, BOTH - 1.0),
    3.3: (BOTH - ROOM, float(BOTH)),
}
#: Images for each intrinsic dimension from which on networks generalise, as the paper states: synthetic and real data.
_NEEDED = (50, 630)

FIGURES = (
    Figure(
        "numerical_rank",
        "Numerical rank of the network's Jacobian over the size of an image, along sampling trajectories; bands: the "
        "range over trajectories (Fig 7 and Table 2 of the paper). Right: the exact posterior mean of a mixture, and a "
        "U-Net trained on such data where this run has one.",
        "fig-7 table-2",
    ),
)

_CLOSED_FORM_PARTS = [
    Claim(
        f"dimension-closed-form-{level:g}",
        "The mean numerical rank of the Jacobian of the exact posterior mean of a mixture on two orthogonal subspaces "
        f"of dimension {RANK} is from {low:g} to {high:g} at sigma = {level:g}.",
        within(low, high),
        "Fig 7",
    )
    for level, (low, high) in FIXED.items()
]
_WHERE = "for each, this is the level at which the median rank of all other trajectories is least"
_U_CURVE_PARTS = [
    Claim(
        f"dimension-u-curve-{end}",
        f"The numerical rank of the network's Jacobian is larger by {RISE:g} or more at the {end}est noise level than "
        f"at the level where it is least (value: the difference, mean over trajectories; {_WHERE}).",
        at_least(RISE),
        "Fig 7",
    )
    for end in ("high", "low")
]
CLAIMS = (
    Claim(
        "dimension-closed-form",
        "The Jacobian of the exact posterior mean of a mixture on two orthogonal subspaces of dimension "
        f"{RANK} has the numerical rank of one at low noise and of both, {BOTH}, at high noise. (Three parts: the mean "
        f"rank is {'; '.join(f'{low:g} to {high:g} at sigma = {level:g}' for level, (low, high) in FIXED.items())}.)",
        all_of(*_CLOSED_FORM_PARTS),
        "Fig 7",
        changed="on 22 November 2026 runs left it undecided, once by 0.001. Since then the mean is over 1,000 draws a "
        "level in place of 100, and its interval is one of the bootstrap's percentiles, and by Wilson's limit where "
        "all ranks agree, in place of t, which reaches beyond the least and the largest rank that there are. For less "
        "than an hour that day the ranges were wider by 0.1 at 6 and at 12; they are those first declared.",
    ),
    Claim(
        "dimension-u-curve",
        "Along sampling trajectories, the numerical rank of the network's Jacobian rises towards both ends of the "
        f"noise levels, a U-shaped curve: it is larger by {RISE:g} or more at the highest and at the lowest level (one "
        f"part each) than at the level where it is least (value: the difference, mean over trajectories; {_WHERE}).",
        all_of(*_U_CURVE_PARTS),
        "Fig 7",
        one_network=True,
        changed="until 30 November 2026 the level of the least rank was that of the mean over all trajectories, below "
        "which the rank cannot lie at either end on average.",
    ),
    Claim(
        "dimension-products",
        "A control: where the numerical rank is estimated from leading singular values and an estimate of the energy "
        f"of the others, its 95 % interval contains the rank of the whole Jacobian at {HELD:g} or more of the points, "
        "states of trajectories at the noise levels of the least ranks (value: the share of points).",
        at_least(HELD),
        unit="of points",
        one_network=True,
        changed="until 30 November 2026 the share was held to 0.3, of three points.",
    ),
)


@dataclass(frozen=True)
class Config(Options, prefix="dimension"):
    """Numerical rank (51) of the Jacobian over noise levels."""

    trajectories: int = option(12, ge=3)
    """Sampling trajectories (the paper: 15); each of one class where the network has classes, in turn."""
    steps: int = option(18, ge=4)
    """Heun steps of a trajectory; the rank is taken at the first state of each step."""
    eta: float = 0.99
    """Share of the energy, squared or not, that the leading singular values must exceed."""
    rule: Rule = "code"
    """"code" compares the share of the energy with eta squared, as the released code does; "text" with eta."""
    dense: int = option(1024, ge=1)
    """Largest number of pixels times channels at which the whole Jacobian is computed; above it, leading singular
    values and the energy of the rest."""
    count: int = option(48, ge=1)
    """Leading singular values from products with the Jacobian."""
    probes: int = option(32, ge=2)
    """Random vectors for the energy of the rest."""
    compared: int = option(12, ge=2, le="trajectories")
    """Trajectories on which products are compared with the whole Jacobian, where that is computed."""
    compared_levels: int = option(4, ge=1, le="steps")
    """Noise levels at which they are compared on each of these, those of the least mean ranks."""
    draws: int = option(1000, ge=4)
    """Noisy points at each level for the closed form (100 would leave the mean uncertain by half a rank)."""
    trained_draws: int = option(100, ge=4)
    """The same for the network that the part "networks" of this run has trained on such data."""
    batch_size: int = option(4, ge=1)
    """Points at a time."""

    def check(self) -> None:
        """The share of the energy is one."""
        share_wanted(self.eta, self.rule)


PRESETS = {
    "smoke": Config(
        trajectories=3, steps=4, count=6, probes=4, compared=2, compared_levels=1, draws=8, trained_draws=8
    ),
    "default": Config(),
    "paper": Config(trajectories=15, count=128, probes=64, batch_size=2),
}


@dataclass(frozen=True)
class Found:
    """What the part measures: stages, and the rank of the subspaces that ``trained`` was trained on (both None without
    it)."""

    closed_form: dict[str, np.ndarray]
    network: dict[str, np.ndarray]
    products: dict[str, np.ndarray]
    trained: dict[str, np.ndarray] | None = None
    trained_rank: int | None = None


def check(config: Config, subject: Subject) -> None:
    """The network and its data can be loaded."""
    subject.check()


def measure(config: Config, subject: Subject, run: study.Run) -> Found:
    """The network's ranks, those of the closed form, and those of the U-Net that the part ``networks`` of this run
    trained on the most data, where it has."""
    mixtures, levels = stream(seeded(run.seed), "networks"), _levels(config, subject)
    ideal = run.stage("closed-form", closed_form, config, mixtures, levels, run.key)
    network = run.stage("network", along_paths, config, subject, run.key)
    both = run.stage("products", compared, config, subject, network)
    path = Path(run.directory.path) / LARGEST
    if not path.exists():
        return Found(ideal, network, both)
    loaded = load_checkpoint(path)
    rank = int(loaded.metadata["rank"])

    def trained() -> dict[str, np.ndarray]:
        mixture, draws = planted(mixtures, rank), config.trained_draws
        return at_points(config, mixture, loaded.denoiser, levels, run.key, draws=draws)

    return Found(ideal, network, both, run.stage("trained", trained), rank)


def _levels(config: Config, subject: Subject) -> np.ndarray:
    """The noise levels of a trajectory before 0."""
    return karras_sigmas(config.steps, *subject.sigma_range)[:-1]


def closed_form(config: Config, mixtures: Key, levels: np.ndarray, key: Key) -> dict[str, np.ndarray]:
    """Ranks of the closed form over the grid's levels, and at those that the paper's figure fixes."""
    mixture = planted(mixtures, RANK)
    every = np.concatenate([levels, np.array(list(FIXED))])
    found = at_points(config, mixture, mixture.denoiser, every, key, draws=config.draws)["ranks"]
    return {"ranks": found[: len(levels)], "fixed": found[len(levels) :]}


def at_points(
    config: Config, mixture: MoLRG, denoiser: Any, levels: np.ndarray, key: Key, *, draws: int
) -> dict[str, np.ndarray]:
    """Ranks of a denoiser at noisy draws of a mixture, ``(levels, draws)``: a block's Jacobians in one program."""
    clean = mixture.sample(stream(key, "clean"), np.arange(draws))
    noisy = jax.jit(jax.vmap(noisy_input, in_axes=(None, 0, 0, None, None)))
    ranks = []
    for place, level in enumerate(levels):
        points = noisy(stream(key, "noise"), clean, np.arange(draws), np.float32(level), place)
        found = _ranks(config, denoiser, np.asarray(points), level, key, method="dense", batch_size=min(draws, 100))
        ranks.append(found.rank)
    return {"ranks": np.stack(ranks)}


def along_paths(config: Config, subject: Subject, key: Key) -> dict[str, np.ndarray]:
    """Ranks of the network's Jacobian at the states of its trajectories, ``(levels, trajectories)``, and the states."""
    grid, numbers = karras_sigmas(config.steps, *subject.sigma_range), range(config.trajectories)
    paths = analysis.trace_trajectories(
        subject.denoiser, stream(key, "paths"), numbers, grid, shape=subject.shape, labels=subject.label_of(numbers),
        batch_size=config.trajectories,
    )  # fmt: skip
    method = "dense" if int(np.prod(subject.shape)) <= config.dense else "products"
    found = []
    with Progress("Jacobians of the network", total=config.trajectories, unit="trajectories") as bar:
        for number, states in enumerate(paths.x_hat):
            own = jax.random.fold_in(key, number)
            found.append(_ranks(config, _denoiser(subject, number), states, grid[:-1], own, method=method))
            bar.update()
    named = {"ranks": "rank", "low": "low", "high": "high"}
    ranks = {name: np.stack([getattr(one, field) for one in found], axis=1) for name, field in named.items()}
    return ranks | {"states": paths.x_hat}


def _denoiser(subject: Subject, number: int) -> Any:
    """The denoiser of a trajectory, with its class where the network has classes."""
    return subject.of_class(number % len(subject.class_names))


def _ranks(
    config: Config, denoiser: Any, states: np.ndarray, levels: Any, key: Key, *, method: str, batch_size: int = 0
) -> JacobianRanks:
    return analysis.jacobian_ranks(
        denoiser, states, np.asarray(levels, states.dtype), eta=config.eta, rule=config.rule, method=method,
        count=min(config.count, states[0].size), probes=config.probes, key=key,
        batch_size=batch_size or config.batch_size,
    )  # fmt: skip


def compared(config: Config, subject: Subject, found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Ranks by products and of the whole Jacobian, at states of trajectories at the levels of the least mean ranks.

    Where the network's Jacobian is too large, those of the closed form at draws of its mixture.
    """
    key, parts = seeded(1), []
    if int(np.prod(subject.shape)) > config.dense:
        mixture = planted(key, RANK)
        points = np.asarray(mixture.sample(key, np.arange(config.compared * config.compared_levels)))
        rough, whole = (
            _ranks(config, mixture.denoiser, points, 1.0, key, method=by, batch_size=8) for by in ("products", "dense")
        )
        parts.append((whole.rank, rough))
    else:
        lowest = np.sort(np.argsort(found["ranks"].mean(axis=1), kind="stable")[: config.compared_levels])
        levels = _levels(config, subject)[lowest]
        with Progress("ranks by products", total=config.compared, unit="trajectories") as bar:
            for number in range(config.compared):
                denoiser, states = _denoiser(subject, number), found["states"][number, lowest]
                own = jax.random.fold_in(key, number)
                rough = _ranks(config, denoiser, states, levels, own, method="products")
                parts.append((found["ranks"][lowest, number], rough))
                bar.update()
    return {
        "exact": np.concatenate([exact for exact, _ in parts]),
        "products": np.concatenate([rough.rank for _, rough in parts]),
        "low": np.concatenate([rough.low for _, rough in parts]),
        "high": np.concatenate([rough.high for _, rough in parts]),
    }


def closed_form_ranks(fixed: np.ndarray) -> Measured:
    """Mean ranks at the fixed levels, ``fixed`` (levels, draws); not tested with few draws."""
    draws = fixed.shape[1]
    if draws < LEAST_DRAWS:
        return NotTested(
            f"{draws} draws a level leave a mean uncertain by more than {ROOM:g}: {LEAST_DRAWS} or more are needed"
        )
    return {
        f"dimension-closed-form-{level:g}": analysis.bounded_mean(ranks, (0, BOTH))
        for level, ranks in zip(FIXED, fixed)
    }


def _u_curve(ranks: np.ndarray, levels: np.ndarray, uncertain: float) -> Measured:
    """How much the rank rises from its least value towards both ends of the noise levels, (levels, trajectories) in."""
    lowest = analysis.least_of_others(ranks.T)
    least = ranks[lowest, np.arange(ranks.shape[1])]
    where = ", ".join(f"{level:.3g}" for level in levels[np.unique(lowest)])
    return {
        # Where the level of least rank is the end itself, the difference is 0 without spread, which decides nothing.
        f"dimension-u-curve-{name}": Noted(
            analysis.t_interval(ranks[end] - least),
            f"At sigma = {levels[end]:.3g} against {where}; ranks are known to within {uncertain:.0f}.",
        )
        for name, end in (("high", 0), ("low", -1))
    }


def contained(both: dict[str, np.ndarray]) -> Measured:
    """Whether the interval that products give holds the exact rank."""
    held, off = (both["low"] <= both["exact"]) & (both["exact"] <= both["high"]), both["products"] - both["exact"]
    if len(held) < LEAST_POINTS:
        few = f"{len(held)} points are too few to show that a share is {HELD:g} or more"
        return NotTested(f"{few}: {LEAST_POINTS} or more are needed")
    wide = float(np.mean(both["high"] - both["low"]))
    note = (
        f"{len(held)} points with ranks from {both['exact'].min()} to {both['exact'].max()}; estimates are off by up "
        f"to {np.abs(off).max()}, their intervals {wide:.1f} wide on average."
    )
    return Noted(analysis.proportion(held), note)


def report(config: Config, subject: Subject, found: Found) -> study.Findings:
    """The ranks over noise levels, and the least one as the intrinsic dimension."""
    levels, ideal, width = _levels(config, subject), found.closed_form["ranks"], subject.images[0].size
    ranks, uncertain = found.network["ranks"], found.network["high"] - found.network["low"]
    mean, least, most = plots.mean_and_range(ranks, axis=-1)
    lowest = int(mean.argmin())
    dimension = analysis.t_interval(ranks[lowest], bounds=(0, width))
    synthetic, real = _NEEDED
    answer = (
        f"On {subject.name} the numerical rank is {mean[0]:.1f} at sigma = {levels[0]:.3g}, {mean[-1]:.0f} at sigma = "
        f"{levels[-1]:.2g}, and lowest, {mean[lowest]:.1f} [{dimension.low:.1f}, {dimension.high:.1f}] of {width}, at "
        f"sigma = {levels[lowest]:.3g}. By the paper's rules a network needs {synthetic * mean[lowest]:,.0f} "
        f"({synthetic} for each dimension, synthetic data) to {real * mean[lowest]:,.0f} ({real}, real images) "
        "training images to generalise."
    )
    head = ("sigma", f"rank of {width}", "least", "most", "uncertainty", f"closed form (of {AMBIENT})")
    columns = levels, mean, least.astype(int), most.astype(int), uncertain.mean(axis=1), ideal.mean(axis=1)
    least_rank = (subject.name, dimension.value, dimension.low, dimension.high, width, float(levels[lowest]))
    curves = {"closed form": ideal}
    if found.trained is not None:
        curves[f"U-Net, subspaces of dimension {found.trained_rank}"] = found.trained["ranks"]
    ours = plots.LevelPanel(
        subject.name, f"numerical rank / {width}", levels, {"network": plots.mean_and_range(ranks / width, axis=-1)}
    )
    exact = plots.LevelPanel(
        f"two subspaces of dimension {RANK} in {AMBIENT}",
        f"numerical rank / {AMBIENT}",
        levels,
        {name: plots.mean_and_range(values / AMBIENT, axis=-1) for name, values in curves.items()},
        marks={f"{RANK} / {AMBIENT} and {BOTH} / {AMBIENT}": RANK / AMBIENT, "": BOTH / AMBIENT},
    )
    note = (
        f"{config.rule}'s rule, eta = {config.eta:g}; {config.trajectories} trajectories of {config.steps} Heun steps."
    )
    return study.Findings(
        answer,
        claims={
            "dimension-closed-form": closed_form_ranks(found.closed_form["fixed"]),
            "dimension-u-curve": _u_curve(ranks, levels, uncertain.max()),
            "dimension-products": contained(found.products),
        },
        figures={"numerical_rank": (plots.level_curves([ours, exact], columns=2), note)},
        tables=[
            study.Table("Numerical rank over noise levels", head, list(zip(*(column.tolist() for column in columns)))),
            study.Table(
                "Intrinsic dimension: the least rank (Table 2)",
                ("data", "dimension", "low", "high", "of", "at sigma"),
                [least_rank],
            ),
        ],
        metrics={"sigmas": levels, "rank": mean, "dimension": mean[lowest], "closed_form": ideal.mean(axis=1)},
    )


def costs(config: Config, plan: Plan) -> list[Cost]:
    """Trajectories, and at each of their states the products that its Jacobian takes."""
    size, states = int(np.prod(plan.network.shape)), config.trajectories * config.steps
    products = size if size <= config.dense else config.count * 12 + config.probes
    evaluations = config.trajectories * (2 * config.steps - 1) + states * (products + 1)
    if size <= config.dense:
        evaluations += config.compared * config.compared_levels * (config.count * 12 + config.probes)
    together = config.batch_size * (size if size <= config.dense else config.count)
    cost = evaluation_cost(plan.network, "dimension", evaluations, together)
    return [
        replace(cost, memory=cost.memory + config.batch_size * 8 * size * min(size, config.dense), disk=states * 24)
    ]


PART = study.Part(
    "dimension", "Intrinsic dimension",
    "Which intrinsic dimension does a network see? The numerical rank of its Jacobian along trajectories.",
    PAPER, CLAIMS, FIGURES, measure, report, PRESETS, costs, check,
)  # fmt: skip
