"""How the classifiers of the comparisons are trained."""

import math
from dataclasses import dataclass

from dgu.core.errors import InputError, require
from dgu.training.classifiers.choices import INITS, check_schedule


@dataclass(frozen=True)
class Recipe:
    """How the classifiers are trained; every number is chosen before the test images are looked at."""

    epochs: int = 60
    """Passes over the training images."""
    learning_rates: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0)
    """Rates tried; the one with the lowest validation loss is kept, for each arm, size and subset of classes by
    itself.
    """
    schedule: str = "cosine"
    """constant, cosine (down to the smallest rate over all epochs) or cosine_restarts (the same in every period)."""
    period: int | None = None
    """Epochs between warm restarts."""
    eta_min: float = 0.0
    """Smallest rate of the cosine schedules."""
    batch_size: int = 64
    """Images a step."""
    momentum: float = 0.9
    """Momentum of SGD."""
    bias: bool = False
    """Whether the linear classifiers have a bias."""
    init: str = "torch"
    """Initial weights: torch, uniform in +-1/sqrt(d), or zeros."""
    eval_interval: int = 5
    """Epochs between looks at the validation loss."""
    width: int = 64
    """Hidden units of the two-layer network."""

    def __post_init__(self) -> None:
        rates = self.learning_rates
        sound = len(rates) >= 1 and all(0 < rate < math.inf for rate in rates)
        require(sound, "recipe.learning_rates", rates, "one or more positive numbers")
        for name in ("epochs", "batch_size", "eval_interval", "width"):
            require(1 <= getattr(self, name) < 2**31, f"recipe.{name}", getattr(self, name), "at least 1, below 2**31")
        require(0 <= self.momentum < 1, "recipe.momentum", self.momentum, "from 0 to below 1")
        require(self.init in INITS, "recipe.init", self.init, f"one of {', '.join(INITS)}")
        try:
            check_schedule(self.schedule, self.period, self.eta_min)
        except InputError as error:
            raise InputError(f"recipe.{str(error).removeprefix('schedule.')}") from error
