"""The Heun sampler on a Gaussian, exactly: the gain of every step and mode, and the distribution of every state.

With a ``GaussianDenoiser`` of mean m and eigenvalues lam the sampler is linear in each mode. Let y be the coordinate of
``x - m`` in a mode, ``a(s) = s / (lam + s^2)`` the slope's factor and ``h = sigma_next - sigma_hat``. A step is

    y_hat = y + c eps,   c^2 = (sigma_hat^2 - sigma^2) s_noise^2
    y_next = g y_hat,    g = 1 + h a(sigma_hat)                                             (Euler, the last step)
                         g = 1 + h (a(sigma_hat) + a(sigma_next) (1 + h a(sigma_hat))) / 2  (Heun)

so that means multiply by g and variances go to ``g^2 (v + c^2)``: no approximation, whatever the number of steps.
Derived from Algorithm 2 of EDM (Karras et al. 2022). NumPy float64 on the host.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float64, Num

from dgu.core.arrays import as_doubles
from dgu.core.brief import short_repr
from dgu.core.errors import require
from dgu.core.keys import threefry
from dgu.core.typing import Key
from dgu.models.closed_form import GaussianDenoiser
from dgu.samplers.schedules import MAX_GAMMA, Churn, check_churn, check_sigmas


def churn_levels(
    sigmas: Num[np.ndarray, " levels"],
    churn: Churn = Churn(),  # noqa: B008 - frozen
) -> tuple[Float64[np.ndarray, " steps"], Float64[np.ndarray, " steps"]]:
    """``(sigma_hat, c)`` of each step: the noise level it starts from, and the standard deviation of the noise added.

    ``c = sigma sqrt(gamma (2 + gamma)) s_noise`` with ``gamma = min(rate / num_steps, sqrt(2) - 1)`` where
    ``s_min <= sigma <= s_max`` and 0 elsewhere.

    Raises:
        InputError: a grid that does not fall to 0, or a churn value out of range.
    """
    check_sigmas(sigmas)
    check_churn(churn)
    levels = as_doubles("sigmas", sigmas)
    sigma, num_steps = levels[:-1], len(levels) - 1
    inside = (float(churn.s_min) <= sigma) & (sigma <= float(churn.s_max))
    gamma = np.where(inside, min(float(churn.rate) / num_steps, MAX_GAMMA), 0.0)
    return sigma * (1 + gamma), sigma * np.sqrt(gamma * (2 + gamma)) * float(churn.s_noise)


@short_repr
@dataclass(frozen=True, eq=False)
class GaussianPath:
    """The exact distribution of a Gaussian's path through the sampler, by mode. Make it with ``gaussian_path``.

    From ``gaussian_path`` the last mode stands for all directions outside the denoiser's basis, where the variance is 0
    (``multiplicity`` of them). Coordinates are about the mean m of the data, in which the start has mean ``-m``.

    Attributes:
        variances: lam, ``(m,)``.
        multiplicity: directions of each mode, ``(m,)``.
        mean_square: squared length of the data's mean along the mode, ``(m,)``.
        sigma, sigma_hat, sigma_next, added: levels of each step and c, ``(steps,)``.
        gains: g of each step and mode, ``(steps, m)``.
        shift: factor of ``-m`` left in the mean of ``x_i - m``, ``(steps + 1, m)``; 1 at the start.
        spread: variance of each direction of ``x_i``, ``(steps + 1, m)``.
    """

    variances: np.ndarray
    multiplicity: np.ndarray
    mean_square: np.ndarray
    sigma: np.ndarray
    sigma_hat: np.ndarray
    sigma_next: np.ndarray
    added: np.ndarray
    gains: np.ndarray
    shift: np.ndarray
    spread: np.ndarray

    @property
    def step_expansion(self) -> Float64[np.ndarray, " steps"]:
        """Top singular value of each step's Jacobian: the largest ``|g|`` over modes with a direction."""
        return np.abs(self.gains[:, self.multiplicity > 0]).max(axis=1)

    @property
    def path_expansion(self) -> float:
        """Top singular value of the Jacobian of the whole map ``x_0 -> x_N``, the noise of the steps fixed."""
        return float(np.abs(self.gains.prod(axis=0))[self.multiplicity > 0].max())

    @property
    def generator_expansion(self) -> float:
        """Lipschitz constant of ``x_N`` in *all* unit noise, the start's and the steps': the largest output deviation.

        With unit base variance this is ``sqrt(||Cov x_N||_op)``, so Theorem 2's bound is attained.
        """
        return float(np.sqrt(self.spread[-1, self.multiplicity > 0].max()))

    def squared_norm(self, of: str = "x") -> tuple[Float64[np.ndarray, " steps"], Float64[np.ndarray, " steps"]]:
        """Expectation and standard deviation of a squared norm, with Gaussian starts.

        ``|y|^2`` of independent Gaussian coordinates with means p and variances v has the expectation
        ``sum p^2 + v`` and the variance ``sum 2 v^2 + 4 v p^2``.

        Args:
            of: ``"x"`` (``num_steps + 1`` states, the last ``x_N``), or at each step ``"x_hat"``, ``"denoised"`` =
                D(x_hat), or ``"slope"`` = (x_hat - D) / sigma_hat.
        """
        centre, spread = self._coordinates(of)
        mean = (centre + self.multiplicity * spread).sum(axis=1)
        variance = (2 * self.multiplicity * spread**2 + 4 * spread * centre).sum(axis=1)
        return mean, np.sqrt(variance)

    def norm(self, of: str = "x") -> Float64[np.ndarray, " steps"]:
        """The exact expectation of the norm itself, with Gaussian starts, to 1e-9 of it.

        ``E sqrt(Q) = 1 / (2 sqrt(pi)) int_0^inf (1 - E exp(-t Q)) t^(-3/2) dt`` with
        ``E exp(-t Q) = prod (1 + 2 t v)^(-1/2) exp(-t p^2 / (1 + 2 t v))``, by the trapezoidal rule in ``log t``.
        """
        log_t = np.linspace(-50.0, 50.0, 501)
        t, weight = np.exp(log_t)[:, None], np.exp(-log_t / 2) * (log_t[1] - log_t[0]) / (2 * np.sqrt(np.pi))
        norms = []
        for centre, spread in zip(*self._coordinates(of)):
            scale = max(float((centre + self.multiplicity * spread).sum()), float(np.finfo(float).tiny))
            width = 2 * t * spread / scale
            exponent = (self.multiplicity / 2 * np.log1p(width) + t * centre / scale / (1 + width)).sum(axis=1)
            norms.append(np.sqrt(scale) * float(-np.expm1(-exponent) @ weight))
        return np.array(norms)

    def _coordinates(self, of: str) -> tuple[np.ndarray, np.ndarray]:
        """Squared means (all directions of a mode together) and variance of each direction, ``(steps, m)``."""
        churned = self.spread[:-1] + self.added[:, None] ** 2
        shrinkage = self.variances / (self.variances + self.sigma_hat[:, None] ** 2)
        if of == "x":
            return self.mean_square * (1 - self.shift) ** 2, self.spread
        if of == "x_hat":
            return self.mean_square * (1 - self.shift[:-1]) ** 2, churned
        if of == "denoised":
            return self.mean_square * (1 - shrinkage * self.shift[:-1]) ** 2, shrinkage**2 * churned
        require(of == "slope", "of", of, "'x', 'x_hat', 'denoised' or 'slope'")
        factor = (1 - shrinkage) / self.sigma_hat[:, None]
        return self.mean_square * (factor * self.shift[:-1]) ** 2, factor**2 * churned

    @property
    def start_gain(self) -> Float64[np.ndarray, " m"]:
        """Factor of the start's coordinate in the output, ``prod_i g_i``: the output is this times the start plus
        noise.
        """
        return self.gains.prod(axis=0)

    @property
    def noise_variance(self) -> Float64[np.ndarray, " m"]:
        """Variance in the output of the Gaussian noise that the steps add: ``sum_i c_i^2 prod_{j >= i} g_j^2``.

        Whatever the distribution of the initial noise, coordinate by coordinate
        ``x_N - m = start_gain (x_0 - m) + N(0, noise_variance)``: without churn tails pass through unchanged in kind.
        """
        variance = np.zeros_like(self.variances)
        for gain, added in zip(self.gains, self.added):
            variance = gain**2 * (variance + added**2)
        return variance


def gaussian_path(
    denoiser: GaussianDenoiser,
    sigmas: Num[np.ndarray, " levels"],
    churn: Churn = Churn(),  # noqa: B008 - frozen
    base_variance: float | int = 1.0,
) -> GaussianPath:
    """The exact path of ``heun`` / ``sample`` with a Gaussian denoiser, from ``x_0 = sigmas[0] * noise``.

    Args:
        denoiser: mean, basis and variances of the Gaussian.
        sigmas: ``(num_steps + 1,)`` noise levels falling to 0.
        churn: as given to the sampler.
        base_variance: variance of each coordinate of the unit noise: 1 for the Gaussian base, ``StudentT().variance``
            for a heavy-tailed one (expectations of squared norms hold for any base; deviations for the Gaussian's).

    Raises:
        InputError: a grid, churn value or base variance out of range.
    """
    basis = np.asarray(denoiser.basis, np.float64)
    mean = np.asarray(denoiser.mean, np.float64).ravel()
    along = basis.T @ mean
    rest = mean - basis @ along
    outside = basis.shape[0] - basis.shape[1]
    return spectrum_path(
        np.append(np.asarray(denoiser.variances, np.float64), 0.0),
        sigmas,
        churn,
        base_variance,
        multiplicity=np.append(np.ones(basis.shape[1]), outside),
        mean_square=np.append(along**2, rest @ rest if outside else 0.0),
    )


def gaussian_outputs(
    denoiser: GaussianDenoiser, path: GaussianPath, start: Num[ArrayLike, " n *event"], key: Key
) -> Float64[np.ndarray, " n *event"]:
    """Outputs of the sampler for given starts, without running it: exact in law, and without churn exact one by one.

    ``x_N = m + start_gain (x_0 - m) + sqrt(noise_variance) z`` in every mode, z standard normal: whatever the law of
    the start, heavy tails included.

    Args:
        denoiser: the Gaussian.
        path: its ``gaussian_path``.
        start: ``x_0``, already scaled by ``sigmas[0]``.
        key: of z.
    """
    key = threefry(key)
    basis = np.asarray(denoiser.basis, np.float64)
    mean = np.asarray(denoiser.mean, np.float64).ravel()
    states = as_doubles("start", start)
    centred = states.reshape(len(states), -1) - mean
    noise = np.asarray(jax.random.normal(key, centred.shape), np.float64)
    gain, deviation = path.start_gain, np.sqrt(path.noise_variance)
    # In the basis each mode by its own gain; outside it all directions by the last one.
    modes, random = centred @ basis, noise @ basis
    moved = gain[-1] * (centred - modes @ basis.T) + deviation[-1] * (noise - random @ basis.T)
    moved += (gain[:-1] * modes + deviation[:-1] * random) @ basis.T
    return (mean + moved).reshape(states.shape)


def spectrum_path(
    variances: Num[np.ndarray, " m"],
    sigmas: Num[np.ndarray, " levels"],
    churn: Churn = Churn(),  # noqa: B008 - frozen
    base_variance: float | int = 1.0,
    *,
    multiplicity: Num[np.ndarray, " m"] | None = None,
    mean_square: Num[np.ndarray, " m"] | None = None,
) -> GaussianPath:
    """``gaussian_path`` from a spectrum alone, with no basis.

    Args:
        variances: eigenvalues of the covariance, 0 or more.
        sigmas, churn, base_variance: as of ``gaussian_path``.
        multiplicity: directions that share each eigenvalue; 1 each by default.
        mean_square: squared length of the mean along each mode; 0 by default.

    Raises:
        InputError: a grid, churn value, variance or base variance out of range.
    """
    require(0 < base_variance < np.inf, "base_variance", base_variance, "positive and finite")
    variances = as_doubles("variances", variances)
    require(bool((variances >= 0).all()), "variances", float(variances.min(initial=0)), "0 or more")
    multiplicity = np.ones(len(variances)) if multiplicity is None else as_doubles("multiplicity", multiplicity)
    mean_square = np.zeros(len(variances)) if mean_square is None else as_doubles("mean_square", mean_square)
    sigma_hat, added = churn_levels(sigmas, churn)
    levels = as_doubles("sigmas", sigmas)
    gains = linear_gains(lambda sigma: sigma / (variances + sigma**2), sigma_hat[:, None], levels[1:, None])
    shift = np.concatenate([np.ones((1, len(variances))), np.cumprod(gains, axis=0)])
    spread = [np.full(len(variances), levels[0] ** 2 * float(base_variance))]
    for gain, noise in zip(gains, added):
        spread.append(gain**2 * (spread[-1] + noise**2))
    return GaussianPath(
        variances, multiplicity, mean_square, levels[:-1], sigma_hat, levels[1:], added, gains, shift, np.array(spread)
    )


def linear_gains(
    slope: Callable[[np.ndarray], np.ndarray],
    sigma_hat: Float64[np.ndarray, "steps ..."],
    sigma_next: Float64[np.ndarray, "steps ..."],
) -> Float64[np.ndarray, "steps ..."]:
    """What each step of Heun's sampler multiplies a coordinate y by, where ``(y - D(y; sigma)) / sigma = slope(sigma)
    y``.

    ``g = 1 + h (slope(sigma_hat) + slope(sigma_next) (1 + h slope(sigma_hat))) / 2`` with ``h = sigma_next -
    sigma_hat``; the last step, to noise 0, is Euler's, ``g = 1 + h slope(sigma_hat)``.

    Args:
        slope: a function of noise levels above 0, elementwise.
        sigma_hat, sigma_next: levels that each step leads from and to, the last of ``sigma_next`` 0; with a further
            axis where ``slope`` gives one number for each mode.
    """
    step = sigma_next - sigma_hat
    first = slope(sigma_hat)
    euler = 1 + step * first
    heun = 1 + step[:-1] * (first[:-1] + slope(sigma_next[:-1]) * euler[:-1]) / 2
    return np.concatenate([heun, euler[-1:]])
