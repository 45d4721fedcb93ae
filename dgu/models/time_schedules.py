"""Schedules of the times and scales that networks were trained with: which state and which time a network is given.

A network of a diffusion process is given the state ``z = a (x0 + sigma eps)`` at a time t. Here the noise level comes
first, as everywhere in the library: a schedule says which time and which scale ``a`` belong to ``sigma``, and which
levels it knows. Schedules are frozen, equal by value and static under ``jax.jit``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from dgu.core.arrays import as_doubles
from dgu.core.errors import InputError, require


class Place(NamedTuple):
    """Where a noise level lies in a process: the network's ``time`` and the factor ``scale`` of the state."""

    time: Array
    scale: Array


@runtime_checkable
class TimeSchedule(Protocol):
    """``schedule.place(sigma)`` for levels from ``sigma_min`` to ``sigma_max``."""

    @property
    def sigma_min(self) -> float:
        """The lowest noise level."""

    @property
    def sigma_max(self) -> float:
        """The highest noise level, perhaps infinite."""

    def place(self, sigma: Float[Array, "*b"]) -> Place:
        """The network's time at ``sigma``, and the factor by which the state ``x0 + sigma eps`` is multiplied."""


@jax.tree_util.register_static
@dataclass(frozen=True)
class SigmaSchedule:
    """The state as it is, and the noise level itself as time: EDM's convention, and that of score networks over sigma.

    Attributes:
        sigma_min, sigma_max: the levels that the network was trained on.
    """

    sigma_min: float = 0.0
    sigma_max: float = math.inf

    def __post_init__(self) -> None:
        require(0 <= self.sigma_min < math.inf, "sigma_min", self.sigma_min, "at least 0 and finite")
        require(self.sigma_min < self.sigma_max, "sigma_max", self.sigma_max, f"above sigma_min {self.sigma_min}")

    def place(self, sigma: Float[Array, "*b"]) -> Place:
        """Time ``sigma``, scale 1."""
        return Place(sigma, jnp.ones_like(sigma))


@jax.tree_util.register_static
@dataclass(frozen=True)
class DiscreteSchedule:
    """The T discrete times of DDPM, ``z = sqrt(abar_t) x0 + sqrt(1 - abar_t) eps``, whatever betas made them.

    ``sigma_t = sqrt((1 - abar_t) / abar_t)``, in float64. Between entries the time is linear in ``ln sigma``
    (``time="interpolate"``: the rule of k-diffusion and of diffusers' Euler sampler, for networks that embed fractional
    times), or it is that of the entry nearest in ``ln sigma`` (``"nearest"``, the earlier one on ties: for networks
    with a table of times). The scale is ``1 / sqrt(1 + sigma^2)`` of the level asked for in both.

    Attributes:
        alphas_cumprod: abar_0, abar_1, ..., falling from below 1, two or more. A last entry of 0 (zero terminal
            signal-to-noise ratio), or one that was replaced by a small number which is above its predecessor's place,
            has no finite noise level of its own and is left out.
        time: ``"interpolate"`` or ``"nearest"``.
        times: what the network calls the entries, rising; 0, 1, ... by default.
    """

    alphas_cumprod: tuple[float, ...]
    time: str = "interpolate"
    times: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        abar = as_doubles("alphas_cumprod", self.alphas_cumprod)
        require(abar.ndim == 1 and len(abar) >= 2, "alphas_cumprod.shape", abar.shape, "(T,), 2 entries or more")
        if abar[-1] == 0 or abar[-1] >= abar[-2]:
            abar = abar[:-1]
        falling = bool(((abar > 0) & (abar < 1)).all() and (np.diff(abar) < 0).all())
        if not (falling and len(abar) >= 2):
            raise InputError(
                "alphas_cumprod: must fall strictly from below 1 to above 0 (the last entry may be 0); of betas "
                "DiscreteSchedule.from_betas(betas) makes a schedule"
            )
        require(self.time in ("interpolate", "nearest"), "time", self.time, "'interpolate' or 'nearest'")
        object.__setattr__(self, "alphas_cumprod", tuple(abar.tolist()))
        if self.times is not None:
            times = as_doubles("times", self.times)[: len(abar)]
            rising = times.shape == abar.shape and bool((np.diff(times) > 0).all())
            require(rising, "times", f"{np.shape(self.times)} numbers", f"{len(abar)} rising numbers, one for an entry")
            object.__setattr__(self, "times", tuple(times.tolist()))

    @classmethod
    def from_betas(cls, betas: Sequence[float] | np.ndarray, **options: Any) -> "DiscreteSchedule":
        """The schedule of ``abar_t = prod_{s <= t} (1 - beta_s)``, multiplied in float64."""
        return cls(tuple(np.cumprod(1 - as_doubles("betas", betas)).tolist()), **options)

    @classmethod
    def linear(
        cls, num_times: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02, **options: Any
    ) -> "DiscreteSchedule":
        """DDPM's betas, evenly spaced from ``beta_start`` to ``beta_end`` (Ho et al. 2020)."""
        return cls.from_betas(np.linspace(beta_start, beta_end, num_times), **options)

    @classmethod
    def cosine(cls, num_times: int = 1000, max_beta: float = 0.999, **options: Any) -> "DiscreteSchedule":
        """Betas ``min(1 - f((i + 1) / T) / f(i / T), max_beta)`` with ``f(u) = cos^2((u + 0.008) / 1.008 * pi / 2)``
        (Nichol and Dhariwal 2021).
        """
        grid = np.cos((np.arange(num_times + 1) / num_times + 0.008) / 1.008 * np.pi / 2) ** 2
        return cls.from_betas(np.minimum(1 - grid[1:] / grid[:-1], max_beta), **options)

    @cached_property
    def sigmas(self) -> np.ndarray:
        """The noise levels of the entries, rising, in float64."""
        abar = np.asarray(self.alphas_cumprod)
        return np.sqrt((1 - abar) / abar)

    @property
    def sigma_min(self) -> float:
        """The level of the first entry."""
        return float(self.sigmas[0])

    @property
    def sigma_max(self) -> float:
        """The level of the last entry that has a finite one."""
        return float(self.sigmas[-1])

    def place(self, sigma: Float[Array, "*b"]) -> Place:
        """The time of ``sigma``, kept within the first and the last entry's, and ``1 / sqrt(1 + sigma^2)``."""
        levels, log = jnp.asarray(np.log(self.sigmas), sigma.dtype), jnp.log(sigma)
        at = jnp.interp(log, levels, jnp.arange(len(levels), dtype=sigma.dtype))
        if self.time == "nearest":
            at = jnp.ceil(jax.lax.stop_gradient(at) - 0.5)
        if self.times is not None:
            at = jnp.interp(at, jnp.arange(len(levels), dtype=sigma.dtype), jnp.asarray(self.times, sigma.dtype))
        return Place(at, _preserving(sigma))


@jax.tree_util.register_static
@dataclass(frozen=True)
class FlowSchedule:
    """The straight path of flow matching: ``z = (1 - tau) x0 + tau eps`` with ``sigma = tau / (1 - tau)``.

    Attributes:
        data_at: the network's time of clean data, 0 or 1. With 0 (diffusers, SiT) the time is ``tau`` and the velocity
            ``dz/dt = eps - x0``; with 1 (Lipman et al. 2023) the time is ``1 - tau`` and the velocity ``x0 - eps``.
        time_factor: the network is called with this many times the time; 1000 in diffusers.
        tau_min, tau_max: the times trained on, as ``tau``.
    """

    data_at: int = 0
    time_factor: float = 1.0
    tau_min: float = 0.0
    tau_max: float = 1.0

    def __post_init__(self) -> None:
        require(self.data_at in (0, 1), "data_at", self.data_at, "0 or 1")
        require(0 < self.time_factor < math.inf, "time_factor", self.time_factor, "positive and finite")
        require(0 <= self.tau_min < 1, "tau_min", self.tau_min, "from 0 to below 1")
        require(
            self.tau_min < self.tau_max <= 1, "tau_max", self.tau_max, f"above tau_min {self.tau_min} and at most 1"
        )

    @property
    def sigma_min(self) -> float:
        """``tau_min / (1 - tau_min)``."""
        return self.tau_min / (1 - self.tau_min)

    @property
    def sigma_max(self) -> float:
        """``tau_max / (1 - tau_max)``."""
        return math.inf if self.tau_max == 1 else self.tau_max / (1 - self.tau_max)

    def place(self, sigma: Float[Array, "*b"]) -> Place:
        """Time ``sigma / (1 + sigma)``, or ``1 / (1 + sigma)`` where data lie at 1; scale ``1 / (1 + sigma)``."""
        scale = 1 / (1 + sigma)
        return Place(self.time_factor * (scale if self.data_at == 1 else sigma * scale), scale)


@jax.tree_util.register_static
@dataclass(frozen=True)
class ProcessSchedule:
    """The continuous time of a linear diffusion process, such as ``dgu.samplers.VPSDE()``, ``SubVPSDE`` or ``VESDE``.

    Attributes:
        process: with ``time(sigma)``, ``scale(t)``, ``sigma(t)`` and ``t_max``; frozen, compared by value.
        t_min: the earliest time trained on, positive.
        time_factor: the network is called with this many times the time; 999 in the score-SDE code.
    """

    process: Any
    t_min: float = 1e-5
    time_factor: float = 1.0

    def __post_init__(self) -> None:
        require(0 < self.t_min < self.process.t_max, "t_min", self.t_min, f"between 0 and T = {self.process.t_max:g}")
        require(0 < self.time_factor < math.inf, "time_factor", self.time_factor, "positive and finite")

    @cached_property
    def _range(self) -> tuple[float, float]:
        with jax.ensure_compile_time_eval():
            return float(self.process.sigma(self.t_min)), float(self.process.sigma(self.process.t_max))

    @property
    def sigma_min(self) -> float:
        """The level at ``t_min``."""
        return self._range[0]

    @property
    def sigma_max(self) -> float:
        """The level at the end."""
        return self._range[1]

    def place(self, sigma: Float[Array, "*b"]) -> Place:
        """The time at which the process has the level ``sigma``, and its scale then."""
        time = self.process.time(sigma)
        return Place(self.time_factor * time, self.process.scale(time))


def as_schedule(schedule: Any) -> TimeSchedule:
    """What a user calls a schedule as one: a ``TimeSchedule``, a linear diffusion process, or ``alphas_cumprod``.

    Raises:
        InputError: it is none of them.
    """
    if isinstance(schedule, TimeSchedule):
        return schedule
    if all(hasattr(schedule, name) for name in ("time", "scale", "sigma", "t_max")):
        return ProcessSchedule(schedule)
    if isinstance(schedule, list | tuple | np.ndarray | jax.Array):
        return DiscreteSchedule(tuple(as_doubles("schedule", schedule).ravel().tolist()))
    raise InputError(
        f"schedule = {type(schedule).__name__}: must be SigmaSchedule, DiscreteSchedule, FlowSchedule, "
        "ProcessSchedule, a linear SDE such as dgu.samplers.VPSDE(), or the alphas_cumprod of discrete times"
    )


def _preserving(sigma: Array) -> Array:
    """``1 / sqrt(1 + sigma^2)``, in the form that neither overflows nor loses digits where ``sigma`` is large."""
    return 1 / jnp.sqrt(1 + jnp.square(sigma))
