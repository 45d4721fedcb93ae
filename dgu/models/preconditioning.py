"""Preconditioning: D(x; sigma) = c_skip x + c_out F(c_in x; c_noise) (Karras et al. 2022, Table 1), in five
conventions, and the plain one of denoising autoencoders."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from dgu.core.errors import require


class Coefficients(NamedTuple):
    """The four functions of sigma in ``D(x; sigma) = skip * x + out * F(inp * x; noise)``."""

    skip: Array
    out: Array
    inp: Array
    noise: Array


def edm_coefficients(sigma: Float[Array, "*b"], sigma_data: float = 0.5) -> Coefficients:
    """EDM's coefficients.

    ``c_skip = sd^2 / (s^2 + sd^2)``, ``c_out = s sd / sqrt(s^2 + sd^2)``, ``c_in = 1 / sqrt(s^2 + sd^2)``,
    ``c_noise = ln(s) / 4`` with ``sd = sigma_data``, the standard deviation of the data.
    """
    total = jnp.square(sigma) + sigma_data**2
    return Coefficients(
        skip=sigma_data**2 / total,
        out=sigma * sigma_data / jnp.sqrt(total),
        inp=1 / jnp.sqrt(total),
        noise=jnp.log(sigma) / 4,
    )


def _epsilon_coefficients(sigma: Float[Array, "*b"], noise: Float[Array, "*b"]) -> Coefficients:
    """Those of a network which predicts the noise of a variance-preserving process."""
    return Coefficients(jnp.ones_like(sigma), -sigma, 1 / jnp.sqrt(jnp.square(sigma) + 1), noise)


@dataclass(frozen=True)
class EDMPreconditioning:
    """EDM's own; see ``edm_coefficients``."""

    sigma_data: float = 0.5
    sigma_min: float = 0.0
    sigma_max: float = math.inf
    name: ClassVar[str] = "EDMPrecond"
    learns_variance: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require(0 < self.sigma_data < math.inf, "sigma_data", self.sigma_data, "positive and finite")
        _check_range(self.sigma_min, self.sigma_max)

    def coefficients(self, sigma: Float[Array, "*b"], table: Float[Array, " m"] | None = None) -> Coefficients:
        """The four coefficients at ``sigma``; ``table`` is of use to ``IDDPMPreconditioning`` alone."""
        return edm_coefficients(sigma, self.sigma_data)


@dataclass(frozen=True)
class VPPreconditioning:
    """Of a variance-preserving SDE with ``sigma(t)^2 = exp(beta_d t^2 / 2 + beta_min t) - 1``.

    ``c_skip = 1``, ``c_out = -s``, ``c_in = 1 / sqrt(s^2 + 1)``, ``c_noise = (M - 1) t(s)``. The range of sigma,
    ``sigma(epsilon_t)`` to ``sigma(1)``, is that of the reference, evaluated in float32.
    """

    beta_d: float = 19.9
    beta_min: float = 0.1
    M: int = 1000
    epsilon_t: float = 1e-5
    name: ClassVar[str] = "VPPrecond"
    learns_variance: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name in ("beta_d", "beta_min", "epsilon_t"):
            require(0 < getattr(self, name) < math.inf, name, getattr(self, name), "positive and finite")
        require(1 < self.M <= 2**24, "M", self.M, "in 2..2^24")

    @property
    def sigma_min(self) -> float:
        """The lowest noise level."""
        return self._sigma32(self.epsilon_t)

    @property
    def sigma_max(self) -> float:
        """The highest noise level."""
        return self._sigma32(1.0)

    def _sigma32(self, time: float) -> float:
        t = np.float32(time)
        exponent = np.float32(0.5 * self.beta_d) * t**2 + np.float32(self.beta_min) * t
        # Exponential rounded once from float64: NumPy's own in float32 is an ulp off here, which is 6 % of the result.
        return float(np.sqrt(np.float32(np.exp(np.float64(exponent))) - np.float32(1)))

    def coefficients(self, sigma: Float[Array, "*b"], table: Float[Array, " m"] | None = None) -> Coefficients:
        """The four coefficients at ``sigma``."""
        total = self.beta_min**2 + 2 * self.beta_d * jnp.log(1 + jnp.square(sigma))
        time = (jnp.sqrt(total) - self.beta_min) / self.beta_d
        return _epsilon_coefficients(sigma, (self.M - 1) * time)


@dataclass(frozen=True)
class VEPreconditioning:
    """Of a variance-exploding SDE: ``c_skip = 1``, ``c_out = s``, ``c_in = 1``, ``c_noise = ln(s / 2)``."""

    sigma_min: float = 0.02
    sigma_max: float = 100.0
    name: ClassVar[str] = "VEPrecond"
    learns_variance: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_range(self.sigma_min, self.sigma_max)

    def coefficients(self, sigma: Float[Array, "*b"], table: Float[Array, " m"] | None = None) -> Coefficients:
        """The four coefficients at ``sigma``."""
        one = jnp.ones_like(sigma)
        return Coefficients(one, sigma, one, jnp.log(0.5 * sigma))


@dataclass(frozen=True)
class VESDEPreconditioning:
    """Of a network that gives the score of ``dx = base^t dW``, times the kernel's standard deviation, from the time t.

    ``c_skip = 1``, ``c_out = s``, ``c_in = 1``, ``c_noise = t(s) = ln(1 + 2 ln(base) s^2) / (2 ln base)``: the noise
    level s is ``std(t)``, from ``std(epsilon_t)`` to ``std(1)`` (Song's tutorial; arXiv 2311.01797, section 4).
    """

    base: float = 25.0
    epsilon_t: float = 1e-5
    name: ClassVar[str] = "VESDEPrecond"
    learns_variance: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require(1 < self.base < math.inf, "base", self.base, "above 1 and finite")
        require(0 < self.epsilon_t < 1, "epsilon_t", self.epsilon_t, "strictly between 0 and 1")

    @property
    def sigma_min(self) -> float:
        """The lowest noise level."""
        return self._std(self.epsilon_t)

    @property
    def sigma_max(self) -> float:
        """The highest noise level."""
        return self._std(1.0)

    def _std(self, time: float) -> float:
        rate = 2 * math.log(self.base)
        return math.sqrt(math.expm1(rate * time) / rate)

    def coefficients(self, sigma: Float[Array, "*b"], table: Float[Array, " m"] | None = None) -> Coefficients:
        """The four coefficients at ``sigma``."""
        one, rate = jnp.ones_like(sigma), 2 * math.log(self.base)
        return Coefficients(one, sigma, one, jnp.log1p(rate * jnp.square(sigma)) / rate)


@dataclass(frozen=True)
class IDDPMPreconditioning:
    """Of improved DDPM, whose noise levels are a falling table ``u`` of ``M + 1`` entries, the last one 0.

    ``c_skip = 1``, ``c_out = -s``, ``c_in = 1 / sqrt(s^2 + 1)``, ``c_noise = M - 1 - j(s)`` with the nearest entry
    ``j``, the first one on ties. The network has twice the channels; the second half (a variance) is not used.
    """

    C_1: float = 0.001
    C_2: float = 0.008
    M: int = 1000
    name: ClassVar[str] = "iDDPMPrecond"
    learns_variance: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("C_1", "C_2"):
            require(0 < getattr(self, name) < 1, name, getattr(self, name), "in (0, 1)")
        require(1 < self.M <= 2**16, "M", self.M, "in 2..65536")

    @cached_property
    def table(self) -> np.ndarray:
        """``u`` in float32: ``u_M = 0``, ``u_(j-1)^2 + 1 = (u_j^2 + 1) / max(ab(j-1) / ab(j), C_1)``.

        ``ab(j) = sin(pi / 2 j / (M (1 + C_2)))^2`` cancels at the low end, so that any two libraries' tables differ
        (this one from the reference's by 1e-5 of an entry); a checkpoint brings its own.
        """
        one, half_pi = np.float32(1), np.float32(0.5 * math.pi)
        steps = np.arange(self.M + 1, dtype=np.float32)
        angle = half_pi * steps / np.float32(self.M) / np.float32(self.C_2 + 1)
        bars = np.sin(angle) ** 2
        u = np.zeros(self.M + 1, np.float32)
        for j in range(self.M, 0, -1):
            ratio = np.maximum(bars[j - 1] / bars[j], np.float32(self.C_1))
            u[j - 1] = np.sqrt((u[j] ** 2 + one) / ratio - one)
        return u

    @property
    def sigma_min(self) -> float:
        """The lowest noise level above 0."""
        return float(self.table[self.M - 1])

    @property
    def sigma_max(self) -> float:
        """The highest noise level."""
        return float(self.table[0])

    def coefficients(self, sigma: Float[Array, "*b"], table: Float[Array, " m"] | None = None) -> Coefficients:
        """The four coefficients at ``sigma`` with the levels ``table`` (by default its own)."""
        levels = jnp.asarray(self.table if table is None else table)
        return _epsilon_coefficients(sigma, (self.M - 1 - nearest(sigma, levels)).astype(sigma.dtype))


@dataclass(frozen=True)
class DAEPreconditioning:
    """Of a denoising autoencoder: the network itself predicts the image, ``D(x; sigma) = F(c_in x; sigma)``.

    ``c_skip = 0``, ``c_out = 1``, ``c_noise = sigma``, and ``c_in = 1``: the input as it is; or, with ``input_std``,
    ``c_in = 1 / sqrt(s^2 + input_std^2)``, for networks that have no normalisation in front and data of this standard
    deviation. Li et al., arXiv 2410.24060, Fig 24 (``DAEPrecond``), where each network serves one noise level.
    """

    input_std: float | None = None
    sigma_min: float = 0.0
    sigma_max: float = math.inf
    name: ClassVar[str] = "DAEPrecond"
    learns_variance: ClassVar[bool] = False

    def __post_init__(self) -> None:
        usable = self.input_std is None or 0 < self.input_std < math.inf
        require(usable, "input_std", self.input_std, "positive and finite, or None")
        _check_range(self.sigma_min, self.sigma_max)

    def coefficients(self, sigma: Float[Array, "*b"], table: Float[Array, " m"] | None = None) -> Coefficients:
        """The four coefficients at ``sigma``."""
        one = jnp.ones_like(sigma)
        inp = one if self.input_std is None else jax.lax.rsqrt(jnp.square(sigma) + self.input_std**2)
        return Coefficients(jnp.zeros_like(sigma), one, inp, sigma)


Preconditioning = (
    EDMPreconditioning
    | VPPreconditioning
    | VEPreconditioning
    | VESDEPreconditioning
    | IDDPMPreconditioning
    | DAEPreconditioning
)
#: By the names that configurations use: those of the reference, and that of the tutorial's network.
PRECONDITIONINGS: dict[str, type[Preconditioning]] = {
    kind.name: kind
    for kind in (
        EDMPreconditioning,
        VPPreconditioning,
        VEPreconditioning,
        VESDEPreconditioning,
        IDDPMPreconditioning,
    )
}


def nearest(sigma: Float[Array, "*b"], levels: Float[Array, " m"]) -> Array:
    """Index of the entry of ``levels`` closest to each ``sigma``, the first one on ties."""
    wide = jnp.promote_types(sigma.dtype, levels.dtype)
    row = jax.lax.stop_gradient(levels).astype(wide).reshape((1,) * sigma.ndim + (-1,))
    return jnp.argmin(jnp.abs(sigma.astype(wide)[..., None] - row), axis=-1)


def _check_range(low: float, high: float) -> None:
    require(0 <= low < math.inf, "sigma_min", low, "at least 0 and finite")
    require(low < high, "sigma_max", high, f"above sigma_min {low}")
