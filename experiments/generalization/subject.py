"""What the study looks at: networks trained on draws from two modes on the line; and the options its parts share."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dgu.analysis import Grid, target_log_density
from dgu.core.errors import InputError, require
from dgu.core.keys import seeded, stream
from dgu.core.typing import Key
from dgu.models import ShallowNet, two_modes
from dgu.training import Recipe, Runs, train_dynamics
from experiments.generalization.trainings import MEASURE, NAMES, SDE, Arm, grid_for, make_runs
from experiments.study import Cost, RunDirectory, option
from experiments.study import Options as BaseOptions
from experiments.study.progress import Progress

PAPER = "generalization"
#: The modes of the basic networks' target are at +-MU.
MU = 3.0
Optimizer = Literal["sgd", "adam"]
OPTIMIZERS: tuple[Optimizer, ...] = ("sgd", "adam")


@dataclass(frozen=True)
class Options(BaseOptions):
    """The study of generalisation in training time."""

    epochs: int = option(2000, ge=1)
    """Epochs on the largest training set; smaller sets are trained for as many steps. A multiple of evaluations."""
    evaluations: int = option(20, ge=1)
    """Measurements of the KL over training, beside the one at the start."""
    seeds: int = option(20, ge=4)
    """Seeds of the networks whose target has its modes at +-3."""
    sizes: tuple[int, ...] = option((100, 300, 1000), ge=1)
    """Training-set sizes, rising; where one size is used, it is the largest."""
    width: int = option(16, ge=1)
    """Hidden units."""
    divisor: float = option(16.0, gt=0.0)
    """Divisor of the network's output."""
    sgd_rate: float = option(0.5, gt=0.0)
    """Learning rate of SGD."""
    adam_rate: float = option(1e-3, gt=0.0)
    """Learning rate of Adam."""
    batch_size: int = option(32, ge=1)
    """Examples in each training step."""
    chunk_size: int = option(10, ge=1)
    """Networks trained together in one compiled program."""
    t_eps: float = option(0.065, gt=0.0, lt=1.0)
    """Time at which the KL integrates the score; the process ends at 1."""
    points: int = option(51, ge=3)
    """Grid points of the KL, for modes at +-3."""
    seed: int = option(0, ge=0)
    """Seed of every random draw."""

    def check(self) -> None:
        check_multiple(self.name("epochs"), self.epochs, self.evaluations)
        check_rising(self.name("sizes"), self.sizes)

    @property
    def examples(self) -> int:
        """The largest training-set size."""
        return max(self.sizes)

    def rate(self, optimizer: Optimizer) -> float:
        """Learning rate of an optimiser."""
        return self.sgd_rate if optimizer == "sgd" else self.adam_rate

    def epochs_for(self, n: int) -> int:
        """Epochs on n examples: as many steps as on the largest set, rounded to a multiple of ``evaluations``."""
        steps = -(-self.examples // self.batch_size) * self.epochs // self.evaluations
        every = max(1, round(steps / -(-n // self.batch_size)))
        return every * self.evaluations


@dataclass(frozen=True)
class Subject:
    """Targets, and the networks trained on them.

    Attributes:
        options: the options that the parts share.
        directory: the run directory, where networks are stored.
    """

    options: Options
    directory: RunDirectory

    @property
    def near(self) -> Arm:
        """Modes at +-3."""
        return Arm(two_modes(MU), self.grid, self.options.t_eps)

    @property
    def grid(self) -> Grid:
        """The grid of the KL for modes at +-3."""
        return grid_for(MU, self.options.points)

    def key(self, *names: str) -> Key:
        """The random key of a named stream of the study."""
        return stream(seeded(self.options.seed), *names)

    def networks(self, optimizer: Optimizer, n: int) -> dict[str, np.ndarray]:
        """The networks of all seeds for modes at +-3 (see ``train``), trained on n examples when first asked for."""
        stage = f"networks/{optimizer}-{n}"
        return self.directory.stage(stage, lambda: self._near(optimizer, n), allow_nonfinite=True)

    def _near(self, optimizer: Optimizer, n: int) -> dict[str, np.ndarray]:
        options, rate = self.options, self.options.rate(optimizer)
        runs = make_runs(self.key("stopping"), [self.near], seeds=options.seeds, n=n, units=[options.width], rate=rate)
        epochs = options.epochs_for(n)
        return self.train(f"{n} examples, {NAMES[optimizer]}", runs, optimizer, epochs=epochs, width=options.width)

    def train(self, title: str, runs: Runs, optimizer: Optimizer, *, epochs: int, width: int) -> dict[str, np.ndarray]:
        """Train networks and measure their KL ``evaluations`` times.

        Args:
            title: name of the trainings in the progress bar.
            runs: the trainings.
            optimizer: their optimiser.
            epochs: their length, a multiple of ``evaluations``.
            width: hidden units of the largest network.

        Returns:
            ``epochs`` of the measurements, ``kl`` and ``log_q`` of every run at each of them, the step
            ``first_nonfinite`` at which a run diverged (-1 for none), ``losses``, and the parameters at the end: arrays
            to store.
        """
        options = self.options
        net = ShallowNet(width=width, divisor=options.divisor)
        every = epochs // options.evaluations
        recipe = Recipe(net, SDE, epochs=epochs, every=every, batch_size=options.batch_size, optimizer=optimizer)
        with Progress(title, total=len(runs.data), unit="runs") as bar:
            found = train_dynamics(
                runs,
                recipe,
                MEASURE,
                chunk_size=options.chunk_size,
                progress=lambda done, _: bar.update(done - bar.done),
            )
        return {
            "epochs": found.epochs,
            "kl": found.measured["kl"],
            "log_q": found.measured["log_q"].astype(np.float32),
            "first_nonfinite": found.first_nonfinite,
            "losses": found.losses,
            **{f"params.{name}": value for name, value in found.params.items()},
            **{f"frozen.{name}": value for name, value in found.frozen.items()},
        }


def gather(config: Options, directory: RunDirectory) -> Subject:
    """The subject; ``InputError`` where the grid for modes at +-3 does not cover them."""
    subject = Subject(config, directory)
    check_grid("points", config.points, subject.near)
    return subject


def plan(config: Options) -> tuple[Options, list[Cost]]:
    """A dry run needs the shared options alone; each part counts what it trains."""
    return config, []


def check_multiple(name: str, epochs: int, evaluations: int) -> None:
    """``InputError`` unless the measurements are equally far apart."""
    require(epochs % evaluations == 0, name, epochs, f"a multiple of evaluations = {evaluations}")


def check_rising(name: str, values: Sequence[float], fewest: int = 1) -> None:
    """``InputError`` unless there are ``fewest`` values, each larger than the one before."""
    rising = len(values) >= 1 and all(a < b for a, b in itertools.pairwise(values))
    require(rising, name, values, "positive and rising")
    require(len(values) >= fewest, name, values, f"{fewest} or more")


def check_grid(name: str, points: int, arm: Arm) -> None:
    """``InputError`` that names the option where a target is not covered by its grid."""
    try:
        target_log_density(arm.target, arm.grid)
    except InputError as error:
        raise InputError(f"{name} = {points}: {error}") from error
