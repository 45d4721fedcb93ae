"""What the study looks at: networks trained on draws from two modes on the line; and the options its parts share."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dgu import training
from dgu.analysis import Grid, KLMeasure, target_log_density
from dgu.core.errors import InputError, require
from dgu.core.keys import seeded, stream
from dgu.core.typing import Key
from dgu.models import ShallowNet, two_modes
from dgu.samplers import VESDE
from experiments import study
from experiments.descriptions import in_pictures
from experiments.study import Cost, Materials, RunDirectory, option
from experiments.study.progress import Progress

PAPER = "generalization"
#: The modes of the basic networks' target are at +-MU.
MU = 3.0
SDE = VESDE()
MEASURE = KLMeasure()
Optimizer = Literal["sgd", "adam"]
OPTIMIZERS: tuple[Optimizer, ...] = ("sgd", "adam")
#: Names of the optimisers in text, by their names in stages and metrics.
NAMES = {"sgd": "SGD", "adam": "Adam"}


@dataclass(frozen=True)
class Arm:
    """One target distribution, and how the KL of networks from it is measured.

    Attributes:
        target: has ``draw(key)`` and ``log_density(x, sigma)``.
        grid: points of the line at which the KL is summed.
        t: time at which the score is integrated.
    """

    target: Any
    grid: Grid
    t: float


def grid_for(mu: float, points: int) -> Grid:
    """The paper's grids, -10 to 10 for modes at +-3 and -30 to 30 at +-15, and those between."""
    half = 5 + 5 * mu / 3
    return Grid(-half, half, points)


@dataclass(frozen=True)
class Options(study.Options):
    """The study of generalisation in training time."""

    epochs: int = option(2000, ge=1)
    """Epochs on the largest training set; smaller sets are trained for as many steps. A multiple of
    --evaluations."""
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
        title, epochs = f"{n} examples, {NAMES[optimizer]}", self.options.epochs_for(n)
        key, seeds = self.key("stopping"), self.options.seeds
        return self.train(title, key, [self.near], optimizer, seeds=seeds, epochs=epochs, n=n)

    def train(
        self,
        title: str,
        key: Key,
        arms: Sequence[Arm],
        optimizer: Optimizer,
        *,
        seeds: int,
        epochs: int,
        n: int | None = None,
        units: Sequence[int] = (),
    ) -> dict[str, np.ndarray]:
        """Train networks on draws of several targets and measure their KL ``evaluations`` times: arms x units x seeds.

        Args:
            title: name of the trainings in the progress bar.
            key: of all draws.
            arms: the targets.
            optimizer: the optimiser.
            seeds: networks of each target and number of hidden units.
            epochs: passes over the data, a multiple of ``evaluations``.
            n: training examples, ``options.examples`` by default.
            units: numbers of hidden units, ``options.width`` by default.

        Returns:
            ``epochs`` of the measurements, ``kl`` and ``log_q`` of every run at each of them, the step
            ``first_nonfinite`` at which a run diverged (-1 for none), ``losses``, and the parameters at the end: arrays
            to store.
        """
        options, units = self.options, units or (self.options.width,)
        runs = training.seeded_runs(
            key,
            [arm.target for arm in arms],
            [MEASURE.aux(SDE, arm.target, arm.t, arm.grid) for arm in arms],
            seeds=seeds,
            n=n or options.examples,
            units=units,
            rate=options.rate(optimizer),
        )
        net = ShallowNet(width=max(*units, options.width), divisor=options.divisor)
        every = epochs // options.evaluations
        recipe = training.Recipe(
            net, SDE, epochs=epochs, every=every, batch_size=options.batch_size, optimizer=optimizer
        )
        with Progress(title, total=len(runs.data), unit="runs") as bar:
            found = training.train_dynamics(
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


def describe(config: Any, subject: Subject, directory: RunDirectory) -> Materials:
    """Targets and networks; and the images of the part that looks at images, with what its first networks make."""
    said = (
        "Data are draws of known densities, most of them on the line: the equal mixture of the Gaussians "
        f"N(-{MU:g}, 1) and N({MU:g}, 1), or with modes farther apart. Each network has one hidden layer of "
        f"{config.width} units, unless a claim is about its width; {config.seeds} networks each are trained in "
        f"the run, on {' or '.join(f'{size:,}' for size in config.sizes)} draws unless a claim says otherwise."
    )
    made = directory.stored("images/evaluated-0").get("pictures", ())
    if len(made):
        said += f" The part images trains networks on pairs of clusters of the images of {config.images.data}."
    pairs = ("nearest", "farthest")
    return Materials(said, in_pictures({f"samples, {pair} pair": images for pair, images in zip(pairs, made)}))


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
