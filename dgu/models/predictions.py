"""What networks predict, as preconditionings: ``D(x; sigma) = skip x + out F(inp x; time)`` for each of them."""

import math
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from dgu.core.errors import require
from dgu.models.preconditioning import Coefficients
from dgu.models.time_schedules import FlowSchedule, TimeSchedule

#: What a network may predict of the state ``z = a (x0 + sigma eps)``; see ``Prediction``.
PREDICTED = ("x0", "epsilon", "v", "velocity", "score")


@jax.tree_util.register_static
@dataclass(frozen=True)
class Prediction:
    """The preconditioning of a network that is given the state ``z = a x`` of a schedule and predicts one of:

    | ``kind`` | the network's output F | ``D(x; sigma)`` |
    |---|---|---|
    | ``x0`` | the clean example | ``F`` |
    | ``epsilon`` | the noise of unit variance (Ho et al. 2020) | ``x - sigma F`` |
    | ``v`` | ``a eps - a sigma x0`` (Salimans and Ho 2022) | ``(x - sigma F / a) / (1 + sigma^2)`` |
    | ``velocity`` | ``eps - x0``, or ``x0 - eps`` where a flow's data lie at time 1 | ``(x - sigma F) / (1 + sigma)`` |
    | ``score`` | ``grad log p(z)`` of the state | ``x + sigma^2 a F`` |

    With ``a = 1 / sqrt(1 + sigma^2)``, v-prediction is ``a^2 x - sigma a F``; with ``sigma = tau / (1 - tau)`` the
    velocity gives ``(1 - tau) x - tau F``. Each is exact: it gives the posterior mean where the network is the exact
    one.
    """

    kind: str
    schedule: TimeSchedule
    learns_variance: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require(self.kind in PREDICTED, "predicts", self.kind, f"one of {', '.join(PREDICTED)}")

    @property
    def sigma_min(self) -> float:
        """The lowest noise level of the schedule."""
        return self.schedule.sigma_min

    @property
    def sigma_max(self) -> float:
        """The highest noise level of the schedule."""
        return self.schedule.sigma_max

    def coefficients(self, sigma: Float[Array, "*b"], table: Float[Array, " m"] | None = None) -> Coefficients:
        """The four coefficients at ``sigma``; no table is needed."""
        time, scale = self.schedule.place(sigma)
        one = jnp.ones_like(sigma)
        if self.kind == "x0":
            return Coefficients(jnp.zeros_like(sigma), one, scale, time)
        if self.kind == "epsilon":
            return Coefficients(one, -sigma, scale, time)
        if self.kind == "score":
            return Coefficients(one, jnp.square(sigma) * scale, scale, time)
        if self.kind == "v":
            total = 1 + jnp.square(sigma)
            return Coefficients(1 / total, -sigma / (scale * total), scale, time)
        towards_noise = -1 if isinstance(self.schedule, FlowSchedule) and self.schedule.data_at == 1 else 1
        return Coefficients(1 / (1 + sigma), -towards_noise * sigma / (1 + sigma), scale, time)


@jax.tree_util.register_static
@dataclass(frozen=True)
class ConsistencyPreconditioning:
    """That of consistency models (Song et al. 2023), whose function is the identity at ``sigma_min``.

    ``skip = sd^2 / ((s - smin)^2 + sd^2)``, ``out = sd (s - smin) / sqrt(s^2 + sd^2)``, ``inp = 1 / sqrt(s^2 + sd^2)``,
    ``time = 250 ln(s)`` with ``sd = sigma_data``. What comes out is the end of the probability flow's path through x,
    and not a posterior mean: its Jacobian is not symmetric, and Tweedie's formula does not make a score of it.
    """

    sigma_data: float = 0.5
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    time_factor: float = 250.0
    learns_variance: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require(0 < self.sigma_data < math.inf, "sigma_data", self.sigma_data, "positive and finite")
        require(0 < self.sigma_min < math.inf, "sigma_min", self.sigma_min, "positive and finite")
        require(self.sigma_min < self.sigma_max, "sigma_max", self.sigma_max, f"above sigma_min {self.sigma_min}")

    def coefficients(self, sigma: Float[Array, "*b"], table: Float[Array, " m"] | None = None) -> Coefficients:
        """The four coefficients at ``sigma``; no table is needed."""
        total, above = jnp.square(sigma) + self.sigma_data**2, sigma - self.sigma_min
        return Coefficients(
            skip=self.sigma_data**2 / (jnp.square(above) + self.sigma_data**2),
            out=self.sigma_data * above / jnp.sqrt(total),
            inp=1 / jnp.sqrt(total),
            noise=self.time_factor * jnp.log(sigma),
        )
