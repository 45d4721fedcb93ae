"""Which intrinsic dimension does a network see? The numerical rank of its Jacobian along sampling trajectories."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure as Drawing

from dgu import analysis, plots
from dgu.analysis.subspaces.numerical_rank import Rule, share_wanted
from dgu.core.keys import seeded, stream
from dgu.core.noisy import noisy_input
from dgu.core.typing import Key
from dgu.models import MoLRG, load_checkpoint
from dgu.samplers import karras_sigmas
from experiments.molrg.dimension_claims import AMBIENT, BOTH, CLAIMS, FIXED, RANK, closed_form_ranks, contained, rises
from experiments.molrg.networks_arms import LARGEST
from experiments.molrg.subject import PAPER, Plan, Subject
from experiments.molrg.training import planted
from experiments.study import Cost, Figure, Findings, Options, Part, Run, RunDirectory, Table, option
from experiments.study.flop import matmul_flop
from experiments.study.progress import Progress

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
    compared: int = option(3, ge=2, le="trajectories")
    """Trajectories on which products are compared with the whole Jacobian, where that is computed."""
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
    "smoke": Config(trajectories=3, steps=4, count=6, probes=4, compared=2, draws=8, trained_draws=8),
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
    trained: dict[str, np.ndarray] | None
    trained_rank: int | None


def check(config: Config, subject: Subject) -> None:
    """The network and its data can be loaded."""
    subject.check()


def measure(config: Config, subject: Subject, run: Run) -> Found:
    """The network's ranks, those of the closed form, and those of a network trained on such data where this run has
    one."""
    mixtures, levels = stream(seeded(run.seed), "networks"), _levels(config, subject)
    ideal = run.stage("closed-form", closed_form, config, mixtures, levels, run.key)
    network = run.stage("network", along_paths, config, subject, run.key)
    both = run.stage("products", compared, config, subject, network)
    found = _trained(run.directory)
    if found is None:
        return Found(ideal, network, both, None, None)
    denoiser, rank = found

    def trained() -> dict[str, np.ndarray]:
        return at_points(config, config.trained_draws, planted(mixtures, rank), denoiser, levels, run.key)

    return Found(ideal, network, both, run.stage("trained", trained), rank)


def report(config: Config, subject: Subject, found: Found) -> Findings:
    """The ranks over noise levels, and the least one as the intrinsic dimension."""
    levels, ideal, width = _levels(config, subject), found.closed_form["ranks"], subject.images[0].size
    low, high, ranks = (found.network[name] for name in ("low", "high", "ranks"))
    mean = ranks.mean(axis=1)
    lowest = int(mean.argmin())
    dimension = analysis.t_interval(ranks[lowest], bounds=(0, width))
    value, least, most = (float(number) for number in (dimension.value, dimension.low, dimension.high))
    synthetic, real = _NEEDED
    answer = (
        f"On {subject.name} the numerical rank is {mean[0]:.1f} at sigma = {levels[0]:.3g}, {mean[-1]:.0f} at sigma = "
        f"{levels[-1]:.2g}, and lowest, {mean[lowest]:.1f} [{least:.1f}, {most:.1f}] of {width}, at sigma = "
        f"{levels[lowest]:.3g}. By the paper's rules a network needs {synthetic * mean[lowest]:,.0f} ({synthetic} for "
        f"each dimension, synthetic data) to {real * mean[lowest]:,.0f} ({real}, real images) training images to "
        "generalise."
    )
    head = ("sigma", f"rank of {width}", "least", "most", "uncertainty", f"closed form (of {AMBIENT})")
    rows = [
        (
            float(level),
            float(mean[k]),
            int(ranks[k].min()),
            int(ranks[k].max()),
            float((high - low)[k].mean()),
            float(ideal[k].mean()),
        )
        for k, level in enumerate(levels)
    ]
    table = [(subject.name, value, least, most, width, float(levels[lowest]))]
    note = (
        f"{config.rule}'s rule, eta = {config.eta:g}; {config.trajectories} trajectories of {config.steps} Heun steps."
    )
    return Findings(
        answer,
        claims={
            "dimension-closed-form": closed_form_ranks(found.closed_form["fixed"]),
            "dimension-u-curve": rises(ranks, levels, lowest, high - low),
            "dimension-products": contained(found.products),
        },
        figures={"numerical_rank": (_figure(subject, levels, ranks / width, found), note)},
        tables=[
            Table("Numerical rank over noise levels", head, rows),
            Table(
                "Intrinsic dimension: the least rank (Table 2)",
                ("data", "dimension", "low", "high", "of", "at sigma"),
                table,
            ),
        ],
        metrics={"sigmas": levels, "rank": mean, "dimension": mean[lowest], "closed_form": ideal.mean(axis=1)},
    )


def _levels(config: Config, subject: Subject) -> np.ndarray:
    """The noise levels of a trajectory before 0."""
    return karras_sigmas(config.steps, *subject.sigma_range)[:-1]


def _figure(subject: Subject, levels: np.ndarray, shares: np.ndarray, found: Found) -> Drawing:
    curves = {"closed form": found.closed_form["ranks"]}
    if found.trained is not None:
        curves[f"U-Net, subspaces of dimension {found.trained_rank}"] = found.trained["ranks"]
    panels = [
        plots.LevelPanel(
            subject.name, f"numerical rank / {subject.images[0].size}", levels, {"network": _band(shares)}
        ),
        plots.LevelPanel(
            f"two subspaces of dimension {RANK} in {AMBIENT}",
            f"numerical rank / {AMBIENT}",
            levels,
            {name: _band(values / AMBIENT) for name, values in curves.items()},
            marks={f"{RANK} / {AMBIENT} and {BOTH} / {AMBIENT}": RANK / AMBIENT, "": BOTH / AMBIENT},
        ),
    ]
    return plots.level_curves(panels, columns=2)


def _band(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return values.mean(axis=1), values.min(axis=1), values.max(axis=1)


def at_points(
    config: Config, draws: int, mixture: MoLRG, denoiser: Any, levels: np.ndarray, key: Key
) -> dict[str, np.ndarray]:
    """Ranks of a denoiser at noisy draws of a mixture, ``(levels, draws)``: a block's Jacobians in one program."""
    clean = mixture.sample(stream(key, "clean"), np.arange(draws))
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


def closed_form(config: Config, mixtures: Key, levels: np.ndarray, key: Key) -> dict[str, np.ndarray]:
    """Ranks of the closed form over the grid's levels, and at those that the paper's figure fixes."""
    mixture = planted(mixtures, RANK)
    every = np.concatenate([levels, np.array(list(FIXED))])
    found = at_points(config, config.draws, mixture, mixture.denoiser, every, key)["ranks"]
    return {"ranks": found[: len(levels)], "fixed": found[len(levels) :]}


def along_paths(config: Config, subject: Subject, key: Key) -> dict[str, np.ndarray]:
    """Ranks of the network's Jacobian at the states of its trajectories, ``(levels, trajectories)``, and the states."""
    grid = karras_sigmas(config.steps, *subject.sigma_range)
    numbers = range(config.trajectories)
    paths = analysis.trace_trajectories(
        subject.denoiser,
        stream(key, "paths"),
        numbers,
        grid,
        shape=subject.shape,
        labels=subject.label_of(np.asarray(numbers)),
        batch_size=config.trajectories,
    )
    method = "dense" if int(np.prod(subject.shape)) <= config.dense else "products"
    parts: dict[str, list[np.ndarray]] = {"ranks": [], "low": [], "high": []}
    with Progress("Jacobians", total=config.trajectories, unit="trajectories") as bar:
        for number in numbers:
            own = jax.random.fold_in(key, number)
            found = _ranks(config, _denoiser(subject, number), paths.x_hat[number], grid[:-1], own, method)
            for name, value in (("ranks", found.rank), ("low", found.low), ("high", found.high)):
                parts[name].append(value)
            bar.update()
    return {name: np.stack(each, axis=1) for name, each in parts.items()} | {"states": paths.x_hat}


def _denoiser(subject: Subject, number: int) -> Any:
    """The denoiser of a trajectory, with its class where the network has classes."""
    label = subject.label_of(np.array([number]))
    return subject.denoiser if label is None else subject.of_class(int(label[0]))


def _ranks(config: Config, denoiser: Any, states: np.ndarray, levels: np.ndarray, key: Key, method: str) -> Any:
    return analysis.jacobian_ranks(
        denoiser,
        states,
        levels.astype(states.dtype),
        eta=config.eta,
        rule=config.rule,
        method=method,
        count=min(config.count, states[0].size),
        probes=config.probes,
        key=key,
        batch_size=config.batch_size,
    )


def compared(config: Config, subject: Subject, found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Ranks by products and of the whole Jacobian, on some trajectories at the level of least rank.

    Where the network's Jacobian is too large, those of the closed form.
    """
    key, lowest = seeded(1), int(found["ranks"].mean(axis=1).argmin())
    pairs = []
    if int(np.prod(subject.shape)) > config.dense:
        mixture = planted(key, RANK)
        points = np.asarray(mixture.sample(key, np.arange(config.compared)))
        whole, rough = (
            analysis.jacobian_ranks(
                mixture.denoiser, points, np.float32(1.0), eta=config.eta, rule=config.rule, method=method,
                count=min(config.count, points[0].size), probes=config.probes, key=key,
            )
            for method in ("dense", "products")
        )  # fmt: skip
        pairs.append((whole, rough))
    else:
        level = _levels(config, subject)[lowest : lowest + 1]
        for number in range(config.compared):
            state, own = found["states"][number, lowest][None], jax.random.fold_in(key, number)
            denoiser = _denoiser(subject, number)
            whole, rough = (_ranks(config, denoiser, state, level, own, method) for method in ("dense", "products"))
            pairs.append((whole, rough))
    return {
        "exact": np.concatenate([whole.rank for whole, _ in pairs]),
        "products": np.concatenate([rough.rank for _, rough in pairs]),
        "low": np.concatenate([rough.low for _, rough in pairs]),
        "high": np.concatenate([rough.high for _, rough in pairs]),
    }


def _trained(directory: RunDirectory) -> tuple[Any, int] | None:
    """The U-Net that the part ``networks`` of this run trained on the most data, and the dimension of its subspaces."""
    path = Path(directory.path) / LARGEST
    if not path.exists():
        return None
    found = load_checkpoint(path)
    return found.denoiser, int(found.metadata["rank"])


def costs(config: Config, plan: Plan) -> list[Cost]:
    """Trajectories, and at each of their states the products that its Jacobian takes."""
    network = plan.network
    size = int(np.prod(network.shape))
    states = config.trajectories * config.steps
    products = size if size <= config.dense else config.count * 12 + config.probes
    evaluations = config.trajectories * (2 * config.steps - 1) + states * (products + 1)
    image, level = jax.ShapeDtypeStruct(network.shape, np.float32), jax.ShapeDtypeStruct((), np.float32)
    label = jax.ShapeDtypeStruct((), np.int32) if network.unet.label_dim else None
    flop = matmul_flop(network.apply, network.abstract_params, image, level, label)
    memory = config.batch_size * 8 * size * min(size, config.dense)
    return [Cost("dimension", evaluations, evaluations * flop, memory, states * 24)]


PART = Part(
    name="dimension",
    title="Intrinsic dimension",
    question="Which intrinsic dimension does a network see? The numerical rank of its Jacobian along trajectories.",
    paper=PAPER,
    presets=PRESETS,
    claims=CLAIMS,
    figures=FIGURES,
    measure=measure,
    report=report,
    costs=costs,
    check=check,
)
