"""Noise grids and the amount of noise added along them ("churn")."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Float64

from dgu.core.arrays import as_doubles
from dgu.core.denoisers import check_range
from dgu.core.errors import InputError, require, require_whole

#: Largest relative increase of the noise level in one step (Algorithm 2 of EDM).
MAX_GAMMA = math.sqrt(2) - 1
#: Most levels of a grid: more is taken for a mistake.
_MOST_STEPS = 10**6


def karras_sigmas(
    num_steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> Float64[np.ndarray, " levels"]:
    """The noise levels ``sigma_i = (max^(1/rho) + i / (N - 1) (min^(1/rho) - max^(1/rho)))^rho``, i < N, then 0.

    Args:
        num_steps: N, at least 2; a sampler on this grid evaluates the denoiser ``2 N - 1`` times.
        sigma_min: last noise level before 0.
        sigma_max: first noise level, above ``sigma_min``.
        rho: bends the grid towards small noise; 1 spaces it evenly.

    Returns:
        ``(num_steps + 1,)`` strictly falling, the last entry 0; NumPy float64 whatever JAX's default.

    Raises:
        InputError: fewer than two steps, levels out of order, a value that is not positive and finite, or a grid whose
            levels are equal or not finite after rounding.

    Karras et al. 2022 (EDM), equation 5.
    """
    require_whole("num_steps", num_steps, 2, _MOST_STEPS)
    require(0 < sigma_max < math.inf, "sigma_max", sigma_max, "positive and finite")
    require(0 < sigma_min < sigma_max, "sigma_min", sigma_min, f"positive and below sigma_max = {sigma_max!r}")
    require(0 < rho < math.inf, "rho", rho, "positive and finite")
    ramp = np.linspace(0.0, 1.0, int(num_steps))
    with np.errstate(all="ignore"):
        high, low = np.float64(sigma_max) ** (1 / rho), np.float64(sigma_min) ** (1 / rho)
        levels = np.append(((1 - ramp) * high + ramp * low) ** rho, 0.0)
    if not (np.isfinite(levels).all() and (np.diff(levels) < 0).all()):
        raise InputError(
            f"rho = {rho!r}: must be one with which {num_steps} levels from sigma_max = {sigma_max!r} to "
            f"sigma_min = {sigma_min!r} fall strictly in float64"
        )
    return levels


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Churn:
    """How much noise the stochastic sampler adds: S_churn, S_tmin, S_tmax and S_noise of EDM, four scalars.

    ``rate = 0`` (the default) is the deterministic sampler. ``s_noise`` inflates the noise added. The paper's setting
    for ImageNet-64 is ``Churn(40, 0.05, 50, 1.003)`` with 256 steps. A pytree: its values may be traced or mapped.
    """

    rate: Any = 0.0
    s_min: Any = 0.0
    s_max: Any = math.inf
    s_noise: Any = 1.0

    def gamma(self, sigma: Float[ArrayLike, "*grid"], num_steps: int) -> Float[Array, "*grid"]:
        """Relative rise of ``sigma``: ``min(rate / num_steps, sqrt(2) - 1)`` from ``s_min`` to ``s_max``, else 0."""
        sigma = jnp.asarray(sigma)
        rate, s_min, s_max = (jnp.asarray(v, sigma.dtype) for v in (self.rate, self.s_min, self.s_max))
        inside = (s_min <= sigma) & (sigma <= s_max)
        return jnp.where(inside, jnp.minimum(rate / num_steps, MAX_GAMMA), jnp.zeros_like(sigma))


def is_concrete(tree: Any) -> bool:
    """Whether no leaf of ``tree`` is being traced, so that its values may be looked at."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def check_churn(churn: Churn) -> None:
    """Raise ``InputError`` for values out of range; a traced value is taken as it is."""
    for name in ("rate", "s_min", "s_max", "s_noise"):
        value = getattr(churn, name)
        if is_concrete(value):
            require(np.ndim(value) == 0 and bool(value >= 0), f"churn.{name}", value, "a scalar, 0 or more")
    if is_concrete((churn.s_min, churn.s_max)):
        require(bool(churn.s_min <= churn.s_max), "churn.s_min", churn.s_min, f"at most churn.s_max = {churn.s_max!r}")


def check_sigmas(sigmas: Any, denoiser: Any = None) -> None:
    """Raise ``InputError`` unless ``sigmas`` falls strictly and ends in 0; traced values are not looked at.

    With a ``denoiser`` that has a range (see ``check_range``), the levels above 0 must lie in it, too.
    """
    if np.ndim(sigmas) != 1 or np.shape(sigmas)[0] < 2:
        raise InputError(f"sigmas of shape {np.shape(sigmas)}: must be (num_steps + 1,) with at least one step")
    if is_concrete(sigmas):
        values = as_doubles("sigmas", sigmas)
        falling = np.isfinite(values).all() and (np.diff(values) < 0).all()
        shown = np.array2string(values, threshold=8, edgeitems=3, max_line_width=10**6)
        if not (falling and values[-1] == 0):
            raise InputError(f"sigmas = {shown}: must be finite, strictly falling, and end in 0")
        check_range(denoiser, "sigmas", values[:-1])
