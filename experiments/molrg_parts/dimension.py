"""What is the intrinsic dimension that a network sees? The numerical rank of its Jacobian along sampling trajectories."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy import stats

from dgu import analysis, plots
from dgu.analysis.subspaces.numerical_rank import Rule, share_wanted
from dgu.core.errors import require
from dgu.core.keys import seeded, stream
from dgu.core.noisy import noisy_input
from dgu.models import MoLRG, load_checkpoint
from dgu.samplers import karras_sigmas
from experiments.molrg_parts.networks_arms import LARGEST
from experiments.molrg_parts.subject import PAPER, Subject
from experiments.molrg_parts.training import COMPONENTS, SHAPE, planted
from experiments.study.costs import Cost
from experiments.study.flop import matmul_flop
from experiments.study.judged import JudgedClaim
from experiments.study.options import check_options
from experiments.study.progress import Progress
from experiments.study.report import FigureEntry, Section, Table
from experiments.study.run_directory import RunDirectory

TITLE = "Intrinsic dimension"
CLAIM_IDS = (
    "dimension-closed-form",
    "dimension-u-curve",
    "dimension-products",
)
FIGURE_FILES = ("figures/numerical_rank.png",)
#: The synthetic law of the paper's figure: two orthogonal subspaces of dimension 6 in 48 numbers, and what its ideal curve shows.
_RANK = 6
_SETTLED, _MIXED, _BETWEEN = 0.3, 3.3, 1.1
#: Room around a rank of the closed form, and the draws from which on even those that all agree show it by Wilson's interval.
_ROOM = 0.1
_LEAST_DRAWS = 458
#: Images a number of intrinsic dimensions, from which on networks generalise, as the paper states: synthetic, real.
_NEEDED = (50, 630)


@dataclass(frozen=True)
class Config:
    """Numerical rank (51) of the Jacobian over noise levels."""

    trajectories: int = 12
    """Sampling trajectories (the paper: 15), 3 or more; each of one class where the network has classes, in turn."""
    steps: int = 18
    """Heun steps of a trajectory; the rank is taken at the first of each step."""
    eta: float = 0.99
    """The energy of the leading values must pass this, squared or not."""
    rule: Rule = "code"
    """"code" holds the share of the energy against eta squared, as the released code does; "text" against eta."""
    dense: int = 1024
    """Largest number of pixels times channels at which the Jacobian is formed; above, leading values and the rest's energy."""
    count: int = 48
    """Leading values by products."""
    probes: int = 32
    """Random vectors for the energy that these leave."""
    compared: int = 3
    """Trajectories on which products are held to the dense Jacobian, where that is formed; 2 or more."""
    draws: int = 1000
    """Noisy points a level for the closed form, 4 or more (the calibration took 100, which leave its mean uncertain by half a rank)."""
    trained_draws: int = 100
    """The same for the network that this run has trained on such data."""
    batch_size: int = 4
    """Points at a time."""

    def __post_init__(self) -> None:
        check_options(
            self, "dimension", trajectories=3, steps=4, dense=1, count=1, probes=2, compared=2, draws=4, trained_draws=4, batch_size=1
        )  # fmt: skip
        share_wanted(self.eta, self.rule)
        most = self.trajectories
        require(2 <= self.compared <= most, "dimension.compared", self.compared, f"from 2 to trajectories = {most}")


PRESETS = {
    "smoke": Config(trajectories=3, steps=4, count=6, probes=4, compared=2, draws=8, trained_draws=8),
    "default": Config(),
    "paper": Config(trajectories=15, count=128, probes=64, batch_size=2),
}


def run(config: Config, subject: Subject, directory: RunDirectory, seed: int) -> Section:
    """The network's ranks, those of the closed form, and those of a network trained on it where this run has one."""
    key = stream(seeded(seed), "dimension")
    size = int(np.prod(subject.shape))
    levels = karras_sigmas(config.steps, *subject.sigma_range)[:-1]
    laws = stream(seeded(seed), "networks")
    law = planted(laws, _RANK)
    ideal = directory.stage("dimension/closed-form", lambda: _calibration(config, law, levels, key))
    found = directory.stage("dimension/network", lambda: _along_paths(config, subject, key))
    both = directory.stage("dimension/products", lambda: _compare(config, subject, found, size))
    trained = _trained(directory)
    synthetic = {}
    if trained is not None:
        denoiser, rank = trained
        points = directory.stage(
            "dimension/trained",
            lambda: _at_points(config, config.trained_draws, planted(laws, rank), denoiser, levels, key),
        )
        synthetic = {f"U-Net, subspaces of dimension {rank}": points["ranks"]}

    low, high, ranks = found["low"], found["high"], found["ranks"]
    mean = ranks.mean(axis=1)
    lowest = int(mean.argmin())
    width = subject.images[0].size
    ambient, both_ranks = int(np.prod(SHAPE)), COMPONENTS * _RANK
    dimension = analysis.t_interval(ranks[lowest], bounds=(0, width))
    claims = [_closed_form(ideal), _u_curve(ranks, levels, lowest, high - low), _products(both)]
    curves = {"network": _band(ranks / width)}
    panels = [
        plots.LevelPanel(subject.name, f"numerical rank / {width}", levels, curves),
        plots.LevelPanel(
            f"two subspaces of dimension {_RANK} in {ambient}", f"numerical rank / {ambient}", levels,
            {name: _band(values / ambient) for name, values in {"closed form": ideal["ranks"], **synthetic}.items()},
            marks={f"{_RANK} / {ambient} and {both_ranks} / {ambient}": _RANK / ambient, "": both_ranks / ambient},
        ),
    ]  # fmt: skip
    directory.save_figure(FIGURE_FILES[0], plots.level_curves(panels, columns=2))
    synthetic_needed, real_needed = _NEEDED
    answer = (
        f"On {subject.name} the numerical rank is {mean[0]:.1f} at sigma = {levels[0]:.3g}, least, {mean[lowest]:.1f} [{float(dimension.low):.1f}, "
        f"{float(dimension.high):.1f}] of {width}, at sigma = {levels[lowest]:.3g}, and {mean[-1]:.0f} at sigma = {levels[-1]:.2g}. By the paper's rules "
        f"a network needs {synthetic_needed * mean[lowest]:,.0f} ({synthetic_needed} a dimension, synthetic data) to {real_needed * mean[lowest]:,.0f} ({real_needed}, real images) images to generalise."
    )
    head = ("sigma", f"rank of {width}", "least", "most", "uncertainty", f"closed form (of {ambient})")
    rows = [
        (float(level), float(mean[k]), int(ranks[k].min()), int(ranks[k].max()), float((high - low)[k].mean()), float(ideal["ranks"][k].mean()))
        for k, level in enumerate(levels)
    ]  # fmt: skip
    table = [
        (
            subject.name,
            float(dimension.estimate),
            float(dimension.low),
            float(dimension.high),
            width,
            float(levels[lowest]),
        )
    ]
    return Section(
        TITLE,
        answer,
        claims,
        [FigureEntry(FIGURE_FILES[0], f"Numerical rank over the size of an image ({config.rule}'s rule, eta = {config.eta:g}), {config.trajectories} trajectories of {config.steps} Heun steps; bands: the range over them (Fig 7). Right: the exact posterior mean, and a U-Net trained on such data where the run has one.")],
        [Table("Numerical rank over noise levels", head, rows),
         Table("Intrinsic dimension: the least rank (Table 2)", ("data", "dimension", "low", "high", "of", "at sigma"), table)],
        {"sigmas": levels, "rank": mean, "dimension": mean[lowest], "closed_form": ideal["ranks"].mean(axis=1)},
    )  # fmt: skip


def _band(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return values.mean(axis=1), values.min(axis=1), values.max(axis=1)


def _at_points(
    config: Config, draws: int, law: MoLRG, denoiser: Any, levels: np.ndarray, key: Any
) -> dict[str, np.ndarray]:
    """Ranks of a denoiser at noisy draws of a law, ``(levels, draws)``: a block's Jacobians in one program."""
    clean = law.sample(stream(key, "clean"), np.arange(draws))
    noisy = jax.jit(jax.vmap(noisy_input, in_axes=(None, 0, 0, None, None)))
    ranks = []
    for place, level in enumerate(levels):
        points = noisy(stream(key, "noise"), clean, np.arange(draws), np.float32(level), place)
        found = analysis.jacobian_ranks(
            denoiser,
            np.asarray(points),
            np.float32(level),
            eta=config.eta,
            rule=config.rule,
            batch_size=min(draws, 100),
        )
        ranks.append(found.rank)
    return {"ranks": np.stack(ranks)}


def _calibration(config: Config, law: MoLRG, levels: np.ndarray, key: Any) -> dict[str, np.ndarray]:
    """The closed form over the grid's levels, and at the three that the paper's figure fixes."""
    fixed = np.array([_SETTLED, _BETWEEN, _MIXED])
    found = _at_points(config, config.draws, law, law.denoiser, np.concatenate([levels, fixed]), key)["ranks"]
    return {"ranks": found[: len(levels)], "fixed": found[len(levels) :]}


def _along_paths(config: Config, subject: Subject, key: Any) -> dict[str, np.ndarray]:
    """Ranks of the network's Jacobian at the states of its trajectories, ``(levels, trajectories)``, and the states."""
    grid = karras_sigmas(config.steps, *subject.sigma_range)
    numbers = range(config.trajectories)
    paths = analysis.trace_trajectories(
        subject.denoiser, stream(key, "paths"), numbers, grid, shape=subject.shape,
        labels=subject.label_of(np.asarray(numbers)), batch_size=config.trajectories,
    )  # fmt: skip
    parts: dict[str, list[np.ndarray]] = {"ranks": [], "low": [], "high": []}
    with Progress("Jacobians", total=config.trajectories, unit="trajectories") as bar:
        for number in numbers:
            found = _ranks(config, subject, number, paths.x_hat[number], grid[:-1], key)
            for name, value in (("ranks", found.rank), ("low", found.low), ("high", found.high)):
                parts[name].append(value)
            bar.update()
    return {name: np.stack(each, axis=1) for name, each in parts.items()} | {"states": paths.x_hat}


def _ranks(config: Config, subject: Subject, number: int, states: np.ndarray, levels: np.ndarray, key: Any, method: str = "") -> Any:  # fmt: skip
    label = subject.label_of(np.array([number]))
    denoiser = subject.denoiser if label is None else subject.of_class(int(label[0]))
    size = states[0].size
    return analysis.jacobian_ranks(
        denoiser, states, levels.astype(states.dtype), eta=config.eta, rule=config.rule,
        method=method or ("dense" if size <= config.dense else "products"), count=min(config.count, size),
        probes=config.probes, key=jax.random.fold_in(key, number), batch_size=config.batch_size,
    )  # fmt: skip


def _compare(config: Config, subject: Subject, found: dict[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    """On some trajectories, at the level of least rank: products beside the dense Jacobian (or the closed form's, where d is large)."""
    key, lowest = seeded(1), int(found["ranks"].mean(axis=1).argmin())
    level = karras_sigmas(config.steps, *subject.sigma_range)[lowest : lowest + 1]
    if size > config.dense:
        law = planted(key, _RANK)
        points = law.sample(key, np.arange(config.compared))
        both = [
            analysis.jacobian_ranks(
                law.denoiser, points, np.float32(1.0), eta=config.eta, rule=config.rule, method=method,
                count=min(config.count, points[0].size), probes=config.probes, key=key,
            ) for method in ("dense", "products")
        ]  # fmt: skip
        pairs = [(both[0], both[1])]
    else:
        pairs = []
        for number in range(config.compared):
            state = found["states"][number, lowest][None]
            pairs.append((_ranks(config, subject, number, state, level, key, "dense"), _ranks(config, subject, number, state, level, key, "products")))  # fmt: skip
    exact, rough = (np.concatenate([pair[place].rank for pair in pairs]) for place in (0, 1))
    low, high = (np.concatenate([getattr(pair[1], end) for pair in pairs]) for end in ("low", "high"))
    return {"exact": exact, "products": rough, "low": low, "high": high}


def _closed_form(ideal: dict[str, np.ndarray]) -> JudgedClaim:
    """The rank of one subspace where the component is settled, of both where it is open, to a tenth, and the mean between."""
    parts = []
    draws = len(ideal["fixed"][0])
    one, two = float(_RANK), float(COMPONENTS * _RANK)
    bounds = ((_SETTLED, one, one + _ROOM), (_BETWEEN, one + 3, two - 1), (_MIXED, two - _ROOM, two))
    for (level, low, high), ranks in zip(bounds, ideal["fixed"]):
        interval = _mean_rank(ranks)
        parts.append(JudgedClaim.within(
            id=f"dimension-closed-form-{level:g}", paper=PAPER, figure="Fig 7", unit="",
            statement=f"Mean numerical rank of the exact posterior mean at sigma = {level:g}.",
            value=float(ranks.mean()), interval=interval, low=low, high=high))  # fmt: skip
    return JudgedClaim.all_of(
        parts, id="dimension-closed-form", paper=PAPER, figure="Fig 7",
        statement=f"The exact posterior mean of two orthogonal subspaces of dimension {_RANK} has rank {_RANK} at low noise and {COMPONENTS * _RANK} at high noise (means to a tenth), and between them in the mean.",
    ).unless("" if draws >= _LEAST_DRAWS else f"{draws} draws a level leave a mean uncertain by more than {_ROOM:g}: {_LEAST_DRAWS} or more are needed")  # fmt: skip


def _mean_rank(ranks: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean rank of the closed form, which is at most that of both subspaces together.

    By percentiles: of a mean next to the end of its range the t interval reaches past what ranks there are. Where all draws
    have one rank, the share of those with another is at most Wilson's limit for none found, and these may have any.
    """
    if np.ptp(ranks) > 0:
        found = stats.bootstrap((ranks,), np.mean, method="percentile", rng=0).confidence_interval
        return float(found.low), float(found.high)
    value, most = float(ranks[0]), COMPONENTS * _RANK
    other = float(analysis.proportion(np.zeros(len(ranks), bool)).high)
    return value - other * value, value + other * (most - value)


def _u_curve(ranks: np.ndarray, levels: np.ndarray, lowest: int, uncertain: np.ndarray) -> JudgedClaim:
    """The rank rises from its least value towards both ends of the noise levels."""
    parts = []
    for name, end in (("high", 0), ("low", -1)):
        # Where the level of least rank is the end itself, the difference is 0 without spread, which decides nothing.
        rise = analysis.t_interval(ranks[end] - ranks[lowest])
        parts.append(JudgedClaim.at_least(
            id=f"dimension-u-curve-{name}", paper=PAPER, figure="Fig 7", unit="",
            statement=f"The rank at the {name}est level exceeds that at the level of least rank by one or more.",
            value=float(rise.estimate), interval=(float(rise.low), float(rise.high)), threshold=1.0,
            note=f"sigma = {levels[end]:.3g} against {levels[lowest]:.3g}; ranks are known to within {uncertain.max():.0f}"))  # fmt: skip
    return JudgedClaim.all_of(
        parts, id="dimension-u-curve", paper=PAPER, figure="Fig 7",
        statement="Over the noise levels the numerical rank of the network's Jacobian is lowest in between (a U-shaped curve).",
    )  # fmt: skip


def _products(both: dict[str, np.ndarray]) -> JudgedClaim:
    """Whether the interval that products give holds the exact rank."""
    held = (both["low"] <= both["exact"]) & (both["exact"] <= both["high"])
    share = analysis.proportion(held)
    return JudgedClaim.at_least(
        id="dimension-products", paper="own", figure="", unit="of points",
        statement="The interval of the rank that leading values and the energy of the rest give (95 %) holds the rank of the whole Jacobian.",
        value=float(share.value), interval=(float(share.low), float(share.high)), threshold=0.3,
        note=f"{len(held)} points; exact {both['exact'].tolist()}, by products {both['products'].tolist()}, low {both['low'].tolist()}, high {both['high'].tolist()}",
    )  # fmt: skip


def _trained(directory: RunDirectory) -> tuple[Any, int] | None:
    """The U-Net that the part ``networks`` of this run trained on the most data, and the dimension of its subspaces."""
    path = Path(directory.path) / LARGEST
    if not path.exists():
        return None
    found = load_checkpoint(path)
    return found.denoiser, int(found.metadata["rank"])


def costs(config: Config, network: Any) -> list[Cost]:
    """Trajectories, and at each of their states the products that its Jacobian takes."""
    size = int(np.prod(network.shape))
    states = config.trajectories * config.steps
    products = size if size <= config.dense else config.count * 12 + config.probes
    evaluations = config.trajectories * (2 * config.steps - 1) + states * (products + 1)
    image, level = jax.ShapeDtypeStruct(network.shape, np.float32), jax.ShapeDtypeStruct((), np.float32)
    label = jax.ShapeDtypeStruct((), np.int32) if network.unet.label_dim else None
    flop = matmul_flop(network.apply, network.abstract_params, image, level, label)
    return [Cost("dimension", evaluations, evaluations * flop, config.batch_size * 8 * size * min(size, config.dense), states * 24)]  # fmt: skip
