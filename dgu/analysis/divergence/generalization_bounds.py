"""The bounds of Theorems 1 and 2 of Li et al., arXiv 2311.01797, as functions of training time, and when to stop by
them.

    Theorem 1    KL <~ tau^4 / (m n) + tau^3 / m^2 + 1 / tau + 1 / m + rest
    Theorem 2    KL <~ P(mu) (tau^4 / (m n) + tau^3 / m^2) + 1 / tau + mu^2 / m + rest

with n examples, m random features and training time ``tau >= 1``; P is a polynomial, of degree 6 at most by the paper's
equations 38 and 39. What the theorems hide (dimension, logarithms, norms, T) is a constant here, 1: exponents and
orderings may be compared with measurements, heights may not. ``rest`` stands for the losses that the model cannot
reduce and for ``KL(p_T || prior)``.
"""

from dataclasses import dataclass

import numpy as np
import scipy
from jax.typing import ArrayLike
from jaxtyping import Num

from dgu.core.arrays import as_doubles, as_number
from dgu.core.brief import short_repr
from dgu.core.errors import require

Real = Num[ArrayLike, "*s"] | int


@short_repr
@dataclass(frozen=True)
class Bound:
    """The terms of a bound.

    Attributes:
        estimation: the term that grows with training time, ``P (tau^4 / (m n) + tau^3 / m^2)``.
        optimisation: the term that falls with training time, ``1 / tau``.
        approximation: ``1 / m`` or ``mu^2 / m``, plus ``rest``.
    """

    estimation: np.ndarray
    optimisation: np.ndarray
    approximation: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """The sum of the three terms."""
        return np.asarray(self.estimation + self.optimisation + self.approximation)


def theorem_one_bound(tau: Real, n: Real, m: Real, *, rest: float | int = 0.0) -> Bound:
    """Theorem 1's bound with unit constants, for a target of compact support; arguments broadcast.

    Raises:
        InputError: ``tau`` below 1, ``n`` or ``m`` below 1, ``rest`` negative.
    """
    return _bound(tau, n, m, 1.0, 1.0, rest)


def mixture_bound(tau: Real, n: Real, m: Real, mu: Real, *, degree: float | int = 6, rest: float | int = 0.0) -> Bound:
    """Theorem 2's bound with unit constants for ``q_1 N(-mu, 1) + q_2 N(mu, 1)``, with ``P(mu) = mu^degree``.

    Raises:
        InputError: as ``theorem_one_bound``; ``mu`` not positive, ``degree`` negative.
    """
    mu = as_doubles("mu", mu)
    require(bool(np.all(mu > 0)), "mu", mu.tolist(), "positive")
    require(degree >= 0, "degree", degree, "0 or more")
    return _bound(tau, n, m, mu**degree, mu**2, rest)


def _bound(tau: Real, n: Real, m: Real, factor: Real, spread: Real, rest: float | int) -> Bound:
    tau, n, m = as_doubles("tau", tau), as_doubles("n", n), as_doubles("m", m)
    for name, value in (("tau", tau), ("n", n), ("m", m)):
        require(bool(np.all(value >= 1)), name, value.tolist(), "1 or more")
    require(rest >= 0, "rest", rest, "0 or more")
    estimation, optimisation, approximation = np.broadcast_arrays(
        factor * (tau**4 / (m * n) + tau**3 / m**2), 1 / tau, spread / m + rest
    )
    return Bound(estimation, optimisation, approximation)


def optimal_stopping(n: float | int, m: float | int, *, factor: float | int = 1.0) -> float:
    """The time ``tau >= 1`` at which ``factor (tau^4 / (m n) + tau^3 / m^2) + 1 / tau`` is least.

    With ``m = n`` it is ``(4 n^-2 factor)^(-1/5)`` to leading order, the paper's ``n^(2/5)`` (equation 16), and the
    bound there falls as ``n^(-2/5)``.

    Raises:
        InputError: ``n``, ``m`` below 1, ``factor`` not positive.
    """
    n, m, factor = map(as_number, (n, m, factor))
    require(n >= 1 and m >= 1, "(n, m)", (n, m), "1 or more each")
    require(factor > 0, "factor", factor, "positive")

    def slope(log_tau: float) -> float:
        """tau^2 times the derivative: rising in tau."""
        tau = float(np.exp(log_tau))
        return factor * (4 * tau**5 / (m * n) + 3 * tau**4 / m**2) - 1

    if slope(0.0) >= 0:
        return 1.0
    # The first term alone has its root at (m n / (4 factor))^(1/5), where the whole slope is 0 or more.
    return float(np.exp(scipy.optimize.brentq(slope, 0.0, np.log(m * n / (4 * factor)) / 5 + 1e-9, xtol=1e-12)))
