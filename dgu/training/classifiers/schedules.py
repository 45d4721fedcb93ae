"""Learning-rate schedules, stepped once per epoch as PyTorch's schedulers are."""

import dataclasses

import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Integer

from dgu.training.classifiers.choices import check_schedule


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
        check_schedule(self.name, self.period, self.eta_min)

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
