"""Linear diffusion processes ``dx = f(t) x dt + g(t) dW``, and the change between scores and denoisers.

The kernel of such a process is Gaussian, ``x(t) | x(0) ~ N(r(t) x(0), s(t)^2 I)`` with

    r(t) = exp(int_0^t f),      s(t)^2 = r(t)^2 v(t)^2,      v(t)^2 = int_0^t g^2 / r^2

(Li et al., arXiv 2311.01797, equations 1, 2 and 8; Song et al. 2021, section 3.4). ``v`` is what the rest of the
library calls ``sigma``: ``x(t) / r(t)`` is data plus noise of that level. A *score* is a callable pytree ``score(x,
t)`` for ONE example that stands for ``grad log p_t(x)``; a *denoiser* is ``denoiser(x, sigma)``. Either gives the other
(Tweedie's formula):

    score(x, t) = (r D(x / r; sigma(t)) - x) / s^2,      D(y; sigma) = y + sigma^2 r score(r y, t(sigma))
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from dgu.core.brief import short_repr
from dgu.core.errors import require
from dgu.core.typing import Denoiser, Event, Scalar

#: ``score(x, t) -> grad log p_t(x)`` for ONE example.
Score: TypeAlias = Callable[[Array, ArrayLike], Array]
Times: TypeAlias = Float[ArrayLike, "*t"] | int


class LinearSDE(ABC):
    """A process from its ``sigma`` and ``scale``; ``t`` may be an array in every method. Frozen, equal by value,
    static.
    """

    t_max: float

    @abstractmethod
    def drift(self, t: Times) -> Float[Array, "*t"]:
        """f(t), the rate in ``f(t) x``."""

    @abstractmethod
    def diffusion(self, t: Times) -> Float[Array, "*t"]:
        """g(t)."""

    @abstractmethod
    def scale(self, t: Times) -> Float[Array, "*t"]:
        """r(t), by which the kernel multiplies ``x(0)``."""

    @abstractmethod
    def std(self, t: Times) -> Float[Array, "*t"]:
        """s(t), the kernel's standard deviation; 0 at ``t = 0``."""

    @abstractmethod
    def time(self, sigma: Times) -> Float[Array, "*t"]:
        """The time at which ``std / scale`` is ``sigma``, 0 or more."""

    def sigma(self, t: Times) -> Float[Array, "*t"]:
        """v(t) = s(t) / r(t), the noise level of ``x(t) / r(t)``: what a denoiser is told."""
        return self.std(t) / self.scale(t)

    def perturb(self, x0: Event, t: Scalar, eps: Event) -> Event:
        """A draw ``r x0 + s eps`` of the kernel, from a standard normal draw ``eps``."""
        t = jnp.asarray(t, x0.dtype)
        return self.scale(t) * x0 + self.std(t) * eps

    def conditional_score(self, eps: Event, t: Scalar) -> Event:
        """``grad log p_{t|0}(x(t)) = -eps / s(t)`` at ``x(t) = perturb(x0, t, eps)``."""
        return -eps / self.std(jnp.asarray(t, eps.dtype))

    def check_time(self, name: str, t: Any) -> None:
        """Raise ``InputError`` unless ``0 < t < t_max``; traced times are not looked at."""
        if not isinstance(t, jax.core.Tracer):
            require(0 < t < self.t_max, name, t, f"strictly between 0 and T = {self.t_max:g}")


def _as_times(t: Times) -> Array:
    return jnp.asarray(t, None if jnp.issubdtype(jnp.result_type(t), jnp.floating) else float)


@jax.tree_util.register_static
@dataclass(frozen=True)
class VESDE(LinearSDE):
    """Variance exploding, ``dx = base^t dW``: ``std(t)^2 = (base^(2 t) - 1) / (2 ln base)``, scale 1.

    With ``base = 25`` and ``T = 1`` the process of Song's tutorial and of arXiv 2311.01797, section 4.

    Attributes:
        base: above 1.
        t_max: T, positive.
    """

    base: float = 25.0
    t_max: float = 1.0

    def __post_init__(self) -> None:
        require(1 < self.base < math.inf, "base", self.base, "above 1 and finite")
        require(0 < self.t_max < math.inf, "t_max", self.t_max, "positive and finite")

    def drift(self, t: Times) -> Float[Array, "*t"]:
        """0."""
        return jnp.zeros_like(_as_times(t))

    def diffusion(self, t: Times) -> Float[Array, "*t"]:
        """``base^t``."""
        return jnp.exp(math.log(self.base) * _as_times(t))

    def scale(self, t: Times) -> Float[Array, "*t"]:
        """1."""
        return jnp.ones_like(_as_times(t))

    def std(self, t: Times) -> Float[Array, "*t"]:
        """``sqrt((base^(2 t) - 1) / (2 ln base))``."""
        rate = 2 * math.log(self.base)
        return jnp.sqrt(jnp.expm1(rate * _as_times(t)) / rate)

    def time(self, sigma: Times) -> Float[Array, "*t"]:
        """``log(1 + 2 ln(base) sigma^2) / (2 ln base)``."""
        rate = 2 * math.log(self.base)
        return jnp.log1p(rate * jnp.square(_as_times(sigma))) / rate


@dataclass(frozen=True)
class _Preserving(LinearSDE):
    """``f = -beta / 2`` with ``beta(t) = beta_min + (beta_max - beta_min) t / T``; ``B = int_0^t beta``."""

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_max: float = 1.0

    def __post_init__(self) -> None:
        require(0 <= self.beta_min < math.inf, "beta_min", self.beta_min, "0 or more and finite")
        require(self.beta_min < self.beta_max < math.inf, "beta_max", self.beta_max, f"above {self.beta_min:g}, finite")
        require(0 < self.t_max < math.inf, "t_max", self.t_max, "positive and finite")

    @property
    def _slope(self) -> float:
        return (self.beta_max - self.beta_min) / self.t_max

    def _beta(self, t: Times) -> Array:
        return self.beta_min + self._slope * _as_times(t)

    def _integral(self, t: Times) -> Array:
        t = _as_times(t)
        return t * (self.beta_min + self._slope / 2 * t)

    def _time_of(self, integral: Array) -> Array:
        """The root of ``slope t^2 / 2 + beta_min t = integral``, in the form that keeps its digits at 0."""
        root = jnp.sqrt(self.beta_min**2 + 2 * self._slope * integral)
        return jnp.where(integral > 0, 2 * integral / jnp.where(integral > 0, self.beta_min + root, 1.0), 0.0)

    def drift(self, t: Times) -> Float[Array, "*t"]:
        """``-beta(t) / 2``."""
        return -self._beta(t) / 2

    def scale(self, t: Times) -> Float[Array, "*t"]:
        """``exp(-B(t) / 2)``."""
        return jnp.exp(-self._integral(t) / 2)


@jax.tree_util.register_static
@dataclass(frozen=True)
class VPSDE(_Preserving):
    """Variance preserving, ``dx = -beta/2 x dt + sqrt(beta) dW``: ``std^2 = 1 - e^(-B)``, scale ``e^(-B/2)``.

    Attributes:
        beta_min, beta_max: of the linear ``beta(t)``, rising.
        t_max: T, positive.
    """

    def diffusion(self, t: Times) -> Float[Array, "*t"]:
        """``sqrt(beta)``."""
        return jnp.sqrt(self._beta(t))

    def std(self, t: Times) -> Float[Array, "*t"]:
        """``sqrt(1 - e^(-B))``."""
        return jnp.sqrt(-jnp.expm1(-self._integral(t)))

    def time(self, sigma: Times) -> Float[Array, "*t"]:
        """From ``sigma^2 = e^B - 1``."""
        return self._time_of(jnp.log1p(jnp.square(_as_times(sigma))))


@jax.tree_util.register_static
@dataclass(frozen=True)
class SubVPSDE(_Preserving):
    """Sub-VP, ``dx = -beta/2 x dt + sqrt(beta (1 - e^(-2 B))) dW``: ``std = 1 - e^(-B)``, scale ``e^(-B/2)``.

    Attributes:
        beta_min, beta_max: of the linear ``beta(t)``, rising.
        t_max: T, positive.
    """

    def diffusion(self, t: Times) -> Float[Array, "*t"]:
        """``sqrt(beta (1 - e^(-2 B)))``."""
        return jnp.sqrt(self._beta(t) * -jnp.expm1(-2 * self._integral(t)))

    def std(self, t: Times) -> Float[Array, "*t"]:
        """``1 - e^(-B)``."""
        return -jnp.expm1(-self._integral(t))

    def time(self, sigma: Times) -> Float[Array, "*t"]:
        """From ``sigma = 2 sinh(B / 2)``."""
        return self._time_of(2 * jnp.arcsinh(_as_times(sigma) / 2))


@short_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class ScoreFromDenoiser:
    """``score(x, t) = (r D(x / r; sigma(t)) - x) / s(t)^2``, for ``t`` above 0.

    The difference loses digits where ``s`` is far below the spread of ``x``: about ``eps |x| / s^2`` of the dtype's
    ``eps``.

    Attributes:
        denoiser: ``denoiser(x, sigma)``, a pytree.
        sde: static.
    """

    denoiser: Any
    sde: LinearSDE = field(metadata={"static": True})

    def __call__(self, x: Event, t: Scalar) -> Event:
        """The score of one example, in the dtype of ``x``."""
        t = jnp.asarray(t, x.dtype)
        scale = self.sde.scale(t)
        return (scale * self.denoiser(x / scale, self.sde.sigma(t)) - x) / jnp.square(self.sde.std(t))


@short_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class DenoiserFromScore:
    """``D(y; sigma) = y + sigma^2 r score(r y, t)`` with ``t = time(sigma)``: a denoiser like any other.

    Attributes:
        score: ``score(x, t)``, a pytree.
        sde: static.
    """

    score: Any
    sde: LinearSDE = field(metadata={"static": True})

    def __call__(self, x: Event, sigma: Scalar) -> Event:
        """The posterior mean of one example, in the dtype of ``x``."""
        sigma = jnp.asarray(sigma, x.dtype)
        t = self.sde.time(sigma)
        scale = self.sde.scale(t)
        return x + jnp.square(sigma) * scale * self.score(scale * x, t)


@short_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class ScoreOfDensity:
    """``grad_x log p_t(x)`` of data whose noisy density is known, by differentiation: exact at every time, near 0 too.

        log p_t(x) = log p(x / r; sigma(t)) - d log r

    Attributes:
        target: with ``log_density(x, sigma)``, such as a ``MoLRGDenoiser``, ``EmpiricalDenoiser`` or ``BoxMixture``.
        sde: static.
    """

    target: Any
    sde: LinearSDE = field(metadata={"static": True})

    def log_density(self, x: Event, t: Scalar) -> Float[Array, ""]:
        """``log p_t(x)`` in nats."""
        t = jnp.asarray(t, x.dtype)
        scale = self.sde.scale(t)
        return self.target.log_density(x / scale, self.sde.sigma(t)) - x.size * jnp.log(scale)

    def __call__(self, x: Event, t: Scalar) -> Event:
        """The score of one example, in the dtype of ``x``."""
        return jax.grad(self.log_density)(x, t)


def as_denoiser(score: Score, sde: LinearSDE) -> Denoiser:
    """The denoiser that a score amounts to, without a detour where the score was made from a denoiser of ``sde``."""
    if isinstance(score, ScoreFromDenoiser) and score.sde == sde:
        return score.denoiser
    return DenoiserFromScore(score, sde)


def as_score(denoiser: Denoiser, sde: LinearSDE) -> Score:
    """The score that a denoiser amounts to under ``sde``, without a detour where it was made from a score of it."""
    if isinstance(denoiser, DenoiserFromScore) and denoiser.sde == sde:
        return denoiser.score
    return ScoreFromDenoiser(denoiser, sde)
