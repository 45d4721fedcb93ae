"""Learning-rate schedules, stepped once per epoch as PyTorch's schedulers are."""

import dataclasses
import math

import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Integer

from dgu.core.errors import require

SCHEDULES = ("constant", "cosine", "cosine_restarts")


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How the learning rate of a run goes with the epoch t = 0, 1, ...

    With base rate ``eta`` and ``T = period``:

    - ``"constant"``: ``eta``;
    - ``"cosine"``: ``eta_min + (eta - eta_min) (1 + cos(pi min(t, T) / T)) / 2``; stays at ``eta_min`` after ``T``,
      where PyTorch's CosineAnnealingLR would rise again; ``period=None`` is the whole training;
    - ``"cosine_restarts"``: the same with ``t mod T`` for ``min(t, T)``: PyTorch's CosineAnnealingWarmRestarts with
      ``T_mult = 1`` (Loshchilov & Hutter 2017, eq. 5).

    Attributes:
        name: one of the three.
        period: epochs, at least 1; ``"cosine_restarts"`` needs it.
        eta_min: the floor, 0 or more.

    Raises:
        InputError: a value outside of these.
    """

    name: str = "constant"
    period: int | None = None
    eta_min: float = 0.0

    def __post_init__(self) -> None:
        require(self.name in SCHEDULES, "schedule", self.name, f"one of {', '.join(SCHEDULES)}")
        period = self.period
        require(period is None or 1 <= period < 2**31, "schedule.period", period, "at least 1, below 2**31")
        require(
            self.name != "cosine_restarts" or self.period is not None, "schedule.period", None, "given for restarts"
        )
        require(self.name != "constant" or (self.period is None and self.eta_min == 0.0), "schedule", self,
                "without period and eta_min when it is constant")  # fmt: skip
        require(0.0 <= self.eta_min < math.inf, "schedule.eta_min", self.eta_min, "0 or more, and finite")

    def rate(self, base: Float[Array, "*runs"], epoch: Integer[ArrayLike, ""], epochs: int) -> Float[Array, "*runs"]:
        """Learning rate in ``epoch`` (0 for the first) of ``epochs``, for base rates of any shape."""
        if self.name == "constant":
            return base
        period = epochs if self.period is None else self.period
        if self.name == "cosine_restarts":
            epoch = jnp.asarray(epoch) % period
        cosine = optax.cosine_decay_schedule(1.0, period)
        return self.eta_min + (base - self.eta_min) * cosine(jnp.asarray(epoch, base.dtype))


def as_schedule(schedule: str | Schedule) -> Schedule:
    """A ``Schedule``, from itself or its name."""
    return schedule if isinstance(schedule, Schedule) else Schedule(schedule)
