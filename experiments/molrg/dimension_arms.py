"""What the intrinsic dimension rests on: ranks of Jacobians of networks, of a closed form, and by products."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from dgu import analysis
from dgu.analysis.subspaces.energy_share import Rule, share_wanted
from dgu.analysis.subspaces.numerical_rank import JacobianRanks
from dgu.core.keys import seeded, stream
from dgu.core.noisy import noisy_input
from dgu.core.typing import Key
from dgu.models import MoLRG
from dgu.samplers import karras_sigmas
from experiments.molrg.networks_arms import planted
from experiments.molrg.networks_config import COMPONENTS, SHAPE
from experiments.molrg.path_ranks import along_paths
from experiments.molrg.subject import Subject
from experiments.study import Options, option
from experiments.study.progress import Progress

#: The mixture of the paper's figure: two orthogonal subspaces of this dimension in 48 dimensions.
RANK = 6
BOTH, AMBIENT = COMPONENTS * RANK, int(np.prod(SHAPE))
#: Room around a rank of the closed form.
ROOM = 0.1
#: Noise levels that the paper's figure fixes for the closed form, and the range of its mean rank at each.
FIXED = {
    0.3: (float(RANK), RANK + ROOM),
    1.1: (RANK + 3.0, BOTH - 1.0),
    3.3: (BOTH - ROOM, float(BOTH)),
}


@dataclass(frozen=True)
class Config(Options, prefix="dimension"):
    """Numerical rank of the Jacobian (equation 51 of the paper) over noise levels."""

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
    "paper": Config(trajectories=15, dense=3072, count=128, probes=64, batch_size=2),
}


def levels_of(config: Config, subject: Subject) -> np.ndarray:
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


def ranks_of(config: Config, subject: Subject, key: Key) -> dict[str, np.ndarray]:
    """Ranks of a network's Jacobian at the states of its trajectories, as ``along_paths`` gives them."""
    grid = karras_sigmas(config.steps, *subject.sigma_range)
    method = "dense" if int(np.prod(subject.shape)) <= config.dense else "products"

    def at(number: int, states: np.ndarray, levels: np.ndarray, own: Key) -> JacobianRanks:
        return _ranks(config, _denoiser(subject, number), states, levels, own, method=method)

    labels = subject.label_of(range(config.trajectories))
    return along_paths(subject.denoiser, key, grid, subject.shape, config.trajectories, at, labels)


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
        levels = levels_of(config, subject)[lowest]
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
