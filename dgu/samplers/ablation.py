"""The generalised sampler of EDM: earlier work's noise levels, schedules, scalings and steps, one example at a time.

``Ablation()`` with its defaults is ``heun``; other values give the samplers of VP, VE and iDDPM models, the midpoint
and Ralston rules, and everything between. Levels and schedules are NumPy float64 numbers wherever the inputs are
concrete.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Float64

from dgu.core.denoisers import denoise
from dgu.core.errors import require, require_whole
from dgu.core.keys import threefry
from dgu.core.typing import Denoiser, Event, Key, PyTree
from dgu.samplers.heun import (
    StepState,
    as_state,
    check_noise,
    draw_step_noise,
    scan_steps,
)
from dgu.samplers.schedules import Churn, check_sigmas, is_concrete, karras_sigmas

Number = float | int

_CHOICES = {
    "solver": ("heun", "euler"),
    "discretization": ("vp", "ve", "iddpm", "edm"),
    "schedule": ("vp", "ve", "linear"),
    "scaling": ("vp", "none"),
}
#: The VP process of Song et al. 2021: beta_d and beta_min.
_VP_BETAS = (19.9, 0.1)


class _Grid(NamedTuple):
    """What the steps need, each ``(num_steps,)``: noise levels, scalings, ``sigma'/sigma``, step lengths in time, the
    noise to add, and (of no use in the last step) the level, scaling and ``sigma'/sigma`` of the second evaluation."""

    sigma: Any
    sigma_hat: Any
    sigma_next: Any
    scale_hat: Any
    scale_next: Any
    rate_hat: Any
    length: Any
    added: Any
    sigma_mid: Any
    scale_mid: Any
    rate_mid: Any


@dataclass(frozen=True)
class Ablation:
    """A sampler of the family of EDM's ablations, hashable: ``sampler(denoiser, x_init, sampler.sigmas(num_steps))``.

    It integrates, in time t with noise level ``sigma(t)`` and scaling ``s(t)``,

        dx/dt = (sigma'/sigma + s'/s) x - (sigma' s / sigma) denoiser(x / s; sigma)

    by ``x' = x + alpha h d; x_next = x + h ((1 - 1/(2 alpha)) d + d' / (2 alpha))`` with ``d`` the slope at ``(x, t)``
    and ``d'`` that at ``(x', t + alpha h)``; the last step, to noise 0, is Euler's. Before each step noise is added as
    in ``heun``. EDM, Algorithms 1 to 3 and Table 1.

    Attributes:
        solver: ``"heun"`` (second order) or ``"euler"``.
        discretization: the noise levels that ``sigmas`` gives: of the papers on VP, VE, iDDPM or EDM.
        schedule: ``sigma(t)``: ``"vp"`` is ``sqrt(exp(beta_d t^2 / 2 + beta_min t) - 1)`` with the betas fitted to the
            range of noise levels, ``"ve"`` is ``sqrt(t)``, ``"linear"`` is ``t``.
        scaling: ``s``: ``"vp"`` is ``1 / sqrt(1 + sigma^2)``, ``"none"`` is 1.
        epsilon_s: smallest time of the VP process, in (0, 1).
        C_1, C_2, M: of iDDPM's noise levels: bound on a ratio, offset, and number of levels.
        alpha: place of the second evaluation: 1 is Heun's rule, 1/2 the midpoint rule, 2/3 Ralston's.
        rho: bend of EDM's noise levels.
        sigma_min, sigma_max: range of noise levels; by default that of the discretisation: VP 0.0105 and 152, VE 0.02
            and 100, iDDPM 0.002 and 81, EDM 0.002 and 80.
        network_range: noise levels that the network takes; the range is clamped to it.
        round_sigma: the network's own rounding of noise levels, a function of arrays that JAX can trace, compared by
            identity; None for a network that takes any.

    Raises:
        InputError: a value that is not allowed.
    """

    solver: str = "heun"
    discretization: str = "edm"
    schedule: str = "linear"
    scaling: str = "none"
    epsilon_s: Number = 1e-3
    C_1: Number = 0.001
    C_2: Number = 0.008
    M: int = 1000
    alpha: Number = 1.0
    rho: Number = 7.0
    sigma_min: Number | None = None
    sigma_max: Number | None = None
    network_range: tuple[Number, Number] = (0.0, math.inf)
    round_sigma: Callable[[ArrayLike], ArrayLike] | None = None

    stochastic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            require(value in choices, name, value, "one of " + ", ".join(map(repr, choices)))
        require(0 < self.epsilon_s < 1, "epsilon_s", self.epsilon_s, "between 0 and 1")
        require(0 < self.C_1 < 1, "C_1", self.C_1, "between 0 and 1")
        require(0 <= self.C_2 < math.inf, "C_2", self.C_2, "0 or more, finite")
        require_whole("M", self.M, 2)
        require(0 < self.alpha < math.inf, "alpha", self.alpha, "positive and finite")
        low, high = self.range
        allowed_range = f"positive and below sigma_max = {high!r} (both within network_range = {self.network_range!r})"
        require(0 < low < high < math.inf, "sigma_min", low, allowed_range)

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest noise level: those given or the discretisation's own, clamped to the network's."""
        default = {
            "vp": tuple(float(_vp_sigma(t, _VP_BETAS, np)) for t in (self.epsilon_s, 1.0)),
            "ve": (0.02, 100.0),
            "iddpm": (0.002, 81.0),
            "edm": (0.002, 80.0),
        }[self.discretization]
        low, high = (own if given is None else given for own, given in zip(default, (self.sigma_min, self.sigma_max)))
        return float(max(low, self.network_range[0])), float(min(high, self.network_range[1]))

    @property
    def betas(self) -> tuple[float, float]:
        """``beta_d`` and ``beta_min`` of the VP schedule that reaches the range's ends at times ``epsilon_s`` and 1."""
        low, high = (math.log1p(sigma**2) for sigma in self.range)
        beta_d = 2 * (low / self.epsilon_s - high) / (self.epsilon_s - 1)
        return beta_d, high - beta_d / 2

    def sigmas(self, num_steps: int) -> Float64[np.ndarray, " levels"]:
        """The discretisation's noise levels, rounded as the network wants: ``(num_steps + 1,)`` falling, the last 0.

        Raises:
            InputError: fewer than 2 steps, or levels that fall together (more steps than the network or iDDPM has).
        """
        require_whole("num_steps", num_steps, 2)
        low, high = self.range
        ramp = np.arange(int(num_steps)) / (int(num_steps) - 1)
        if self.discretization == "vp":
            levels = _vp_sigma(1 + ramp * (self.epsilon_s - 1), self.betas, np)
        elif self.discretization == "ve":
            levels = high * (low / high) ** ramp
        elif self.discretization == "edm":
            levels = karras_sigmas(int(num_steps), low, high, float(self.rho))[:-1]
        else:
            table = _iddpm_levels(self.M, self.C_1, self.C_2)
            table = table[(low <= table) & (table <= high)]
            levels = table[np.round((len(table) - 1) * ramp).astype(int)]
        if self.round_sigma is not None:
            with jax.ensure_compile_time_eval():
                levels = np.asarray(self.round_sigma(levels), np.float64)
        grid = np.append(levels, 0.0)
        distinct = bool((np.diff(grid) < 0).all())
        require(distinct, "num_steps", num_steps, f"few enough for distinct noise levels ({self.discretization})")
        return grid

    def scale(self, sigma: ArrayLike) -> Any:
        """``s`` at a noise level: the reference's state is ``s`` times the state here, which is always x0 + noise."""
        return _scale(sigma, self.scaling, np if is_concrete(sigma) else jnp)

    def __call__(
        self,
        denoiser: Denoiser,
        x_init: Float[ArrayLike, "*event"],
        sigmas: Float[ArrayLike, "..."],
        *,
        key: Key | None = None,
        churn: Churn = Churn(),  # noqa: B008 - frozen
        eps: Float[ArrayLike, "..."] | None = None,
        observe: Callable[[StepState], PyTree] | None = None,
    ) -> PyTree:
        """One example from noise to clean; arguments, result and errors are those of ``heun``.

        States, ``x_init`` and those observed too, are free of the scaling: ``x_init = sigmas[0] * noise``. ``sigmas``
        is ``self.sigmas(num_steps)``, or any other grid. The second evaluation of a step does not appear in
        ``StepState``.

        Raises:
            InputError: as ``heun``; ``alpha`` above 1 so large that a step would evaluate at a negative time.
        """
        key = None if key is None else threefry(key)
        check_sigmas(sigmas)
        x_init = as_state("x_init", x_init)
        num_steps = np.shape(sigmas)[0] - 1
        eps = check_noise(x_init, num_steps, key, churn, eps)
        grid = jax.tree.map(lambda a: jnp.asarray(a, x_init.dtype), self._grid(sigmas, churn, x_init.dtype))
        alpha = self.alpha

        def advance(x: Event, at: tuple[Any, ...], last: bool) -> tuple[Event, StepState]:
            step, g, noise = at
            if key is not None:
                noise = draw_step_noise(key, step, x)
            x_hat = x if noise is None else x + g.added * noise
            denoised = denoise(denoiser, x_hat, g.sigma_hat)
            scaled = g.scale_hat * x_hat
            slope = g.rate_hat * g.scale_hat * (g.scale_hat * scaled - denoised)
            ahead = scaled + g.length * slope
            if self.solver == "heun" and not last:
                x_mid = (scaled + alpha * g.length * slope) / g.scale_mid
                at_mid = denoise(denoiser, x_mid, g.sigma_mid)
                slope_mid = g.rate_mid * g.scale_mid * (g.scale_mid**2 * x_mid - at_mid)
                ahead = scaled + g.length * ((1 - 0.5 / alpha) * slope + 0.5 / alpha * slope_mid)
            state = StepState(step, g.sigma, g.sigma_hat, g.sigma_next, x, x_hat, denoised, ahead / g.scale_next)
            return state.x_next, state

        return scan_steps(advance, x_init, (jnp.arange(num_steps, dtype=jnp.int32), grid, eps), observe)

    def _grid(self, sigmas: Any, churn: Churn, dtype: Any) -> _Grid:
        concrete = is_concrete((sigmas, churn))
        xp: Any = np if concrete else jnp
        if concrete:
            dtype = np.float64
        sigmas = xp.asarray(sigmas, dtype)
        sigma, sigma_next = sigmas[:-1], sigmas[1:]
        with jax.ensure_compile_time_eval():  # Numbers stay numbers under an outer trace.
            sigma_hat = sigma * (1 + xp.asarray(churn.gamma(sigma, len(sigma)), dtype))
            if self.round_sigma is not None:
                sigma_hat = xp.asarray(self.round_sigma(sigma_hat), dtype)
        raised = (sigma_hat - sigma) * (sigma_hat + sigma)
        positive = raised > 0  # The inner where keeps the gradient finite at 0.
        root = xp.sqrt(xp.where(positive, raised, xp.ones_like(raised)))
        added = xp.where(positive, root, xp.zeros_like(root)) * xp.asarray(churn.s_noise, dtype)

        zero = xp.zeros_like(sigma[:1])
        time_hat = self._time(sigma_hat, xp)
        length = xp.concatenate([self._time(sigma_next[:-1], xp), zero]) - time_hat
        sigma_mid = sigma_next[:-1]
        if self.alpha != 1:
            time_mid = (time_hat + self.alpha * length)[:-1]
            if concrete:
                require(bool((time_mid > 0).all()), "alpha", self.alpha, "small enough for every time to be positive")
            sigma_mid = self._sigma(time_mid, xp)
        rest = (sigma_mid, self._scale(sigma_mid, xp), self._rate(sigma_mid, xp))
        return _Grid(
            sigma,
            sigma_hat,
            sigma_next,
            self._scale(sigma_hat, xp),
            self._scale(sigma_next, xp),
            self._rate(sigma_hat, xp),
            length,
            added,
            *(xp.concatenate([a, zero]) for a in rest),
        )

    def _scale(self, sigma: Any, xp: Any) -> Any:
        return _scale(sigma, self.scaling, xp)

    def _sigma(self, time: Any, xp: Any) -> Any:
        """``sigma(t)``."""
        if self.schedule == "vp":
            return _vp_sigma(time, self.betas, xp)
        return xp.sqrt(time) if self.schedule == "ve" else time

    def _time(self, sigma: Any, xp: Any) -> Any:
        """The inverse of ``sigma(t)``."""
        if self.schedule == "vp":
            beta_d, beta_min = self.betas
            log = xp.log1p(sigma**2)
            root = xp.sqrt(beta_min**2 + 2 * beta_d * log)
            # Of the two forms of the root the one without cancellation.
            return 2 * log / (root + beta_min) if beta_min > 0 else (root - beta_min) / beta_d
        return sigma**2 if self.schedule == "ve" else sigma

    def _rate(self, sigma: Any, xp: Any) -> Any:
        """``sigma'(t) / sigma(t)`` as a function of the noise level."""
        if self.schedule == "vp":
            beta_d, beta_min = self.betas
            return xp.sqrt(beta_min**2 + 2 * beta_d * xp.log1p(sigma**2)) / 2 * (1 + 1 / sigma**2)
        return 0.5 / sigma**2 if self.schedule == "ve" else 1 / sigma


def _scale(sigma: Any, scaling: str, xp: Any) -> Any:
    sigma = xp.asarray(sigma)
    return 1 / xp.sqrt(1 + sigma**2) if scaling == "vp" else xp.ones_like(sigma)


def _vp_sigma(time: Any, betas: tuple[float, float], xp: Any) -> Any:
    beta_d, beta_min = betas
    return xp.sqrt(xp.expm1(beta_d * time**2 / 2 + beta_min * time))


def _iddpm_levels(M: int, C_1: Number, C_2: Number) -> Float64[np.ndarray, " levels"]:
    """iDDPM's noise levels u_0 > ... > u_M = 0: ``u_{j-1}^2 = (u_j^2 + 1) / max(ab(j-1) / ab(j), C_1) - 1`` with
    ``ab(j) = sin^2(pi / 2 j / M / (1 + C_2))``, rounded to float32 after each operation, as the published levels
    are."""
    single = np.float32
    phase = single(np.pi / 2) * np.arange(M + 1, dtype=single) / single(M) / single(C_2 + 1)
    squares = np.sin(phase) ** 2
    ratios = np.maximum(squares[:-1] / squares[1:], single(C_1)).astype(np.float64)
    levels = np.zeros(M + 1)
    for j in range(M, 0, -1):
        levels[j - 1] = np.sqrt((levels[j] ** 2 + 1) / ratios[j - 1] - 1)
    return levels
