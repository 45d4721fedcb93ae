r"""The asymptotic test error of least-squares classifiers on Gaussian mixtures, from the moments alone.

**Setting.** n examples, a fraction pi_k of them of class k: ``x = mu_k + Sigma_k^{1/2} z``. One-hot targets Y (n, K),
no bias,

    W = argmin ||Y - X W||_F^2 / n + lambda ||W||_F^2 = Q X^T Y / n,   Q = (X^T X / n + lambda I)^{-1},

and lambda -> 0+ is the min-norm interpolator for n < d, ordinary least squares for n > d (the classifiers of Theorem 1
in Ghane et al., arXiv 2501.07741). A new example goes to ``argmax_l w_l^T x``.

**Derivation** (n, d -> infinity together, ||mu_k|| = O(1), ||Sigma_k|| = O(1)). Rows are not centred: C_k = Sigma_k +
mu_k mu_k^T.

1. *First order.* Leaving row j of class k out, ``Q x_j = Q_{-j} x_j / (1 + x_j^T Q_{-j} x_j / n)``, and the quadratic
   form concentrates on delta_k = tr(Sigma_k Qbar) / n. Summed over rows this closes (Louart and Couillet, arXiv
   1805.08295; Benaych-Georges and Couillet, arXiv 1510.03463; for one class Marchenko and Pastur, 1967):

       Q ~ Qbar = (lambda I + sum_k pi_k C_k / (1 + delta_k))^{-1}.

   With g_k = lambda (1 + delta_k) and R = lambda Qbar, nothing in it is singular at lambda = 0 and n < d any more:

       g_k = lambda + tr(Sigma_k R) / n,      R = (I + sum_k pi_k C_k / g_k)^{-1}.

   For n > d and lambda = 0, g_k vanishes as lambda does and ``y_k = 1 + delta_k`` stays:
   ``y_k = 1 + tr(Sigma_k Qbar) / n``, ``Qbar = (sum_k pi_k C_k / y_k)^{-1}``. Both are the one system

       y_k = alpha + tr(Sigma_k R) / n,       R = (beta I + sum_k pi_k C_k / y_k)^{-1}                              (1)

   with (alpha, beta) = (lambda, 1) or (1, 0), and what follows is the same in y and R for both.
2. *Means of the scores.* By the same leave-one-out, E w_l = pi_l Qbar mu_l / (1 + delta_l), so on class i

       m_il = mu_i^T R mu_l pi_l / y_l.                                                                              (2)

3. *Covariances of the scores*, ``w_l^T B w_m`` with B = Sigma_i. Put Q_s = (X^T X / n + lambda I + s B)^{-1} and
   ``f_lm(s) = y_l^T X Q_s X^T y_m / n^2``, so that ``w_l^T B w_m = -f_lm'(0)``. Rows with themselves and pairs of rows
   give, with h = 1 / (1 + delta),

       f_lm = [l = m] pi_l (1 - h_l) + pi_l h_l pi_m h_m mu_l^T Qbar mu_m,

   where Qbar and delta depend on s through the same equations. Differentiating these gives the K x K linear system

       tau_a = tr(Sigma_a R B R) / n + sum_c (pi_c / y_c^2) tr(Sigma_a R C_c R) / n  tau_c,                  (3)

   the equivalent ``QBQ ~ R B R + sum_c (pi_c tau_c / y_c^2) R C_c R`` and

       S_lm = [l = m] pi_l tau_l / y_l^2
              + (pi_l / y_l) (pi_m / y_m) (mu_l^T QBQ mu_m - (tau_l / y_l + tau_m / y_m) mu_l^T R mu_m).             (4)

   (The same result follows from the convex Gaussian min-max theorem: Thrampoulidis, Oymak and Soltanolkotabi,
   arXiv 2011.07729, for least squares with one-hot targets and isotropic classes.)
4. *Error*: given w, the scores of a Gaussian x are Gaussian, with the moments (2) and (4); see
   ``dgu.analysis.universality.argmax``.

**Solving (1).** Its right side F is positive, increasing and concave in y (a matrix harmonic mean is). Hence where the
spectral radius of F' is below 1 a Newton step lands above the solution, and from above Newton falls monotonically onto
it; where it is not, the plain step y <- F(y) rises towards it. The iteration cannot miss.
"""

from dataclasses import dataclass

import numpy as np
import scipy
from jax.typing import ArrayLike
from jaxtyping import Num

from dgu.analysis.universality.argmax import ClassificationError, argmax_error, class_weights
from dgu.core.arrays import as_doubles
from dgu.core.brief import short_repr
from dgu.core.errors import InputError, require
from dgu.core.keys import threefry
from dgu.core.typing import Key

#: Newton stops at this relative change; it is quadratic, so the solution is then good to rounding.
TOLERANCE = 1e-11
MAX_ITERATIONS = 200


@short_repr
@dataclass(frozen=True)
class Prediction(ClassificationError):
    """The asymptotic error (see ``ClassificationError``) and the moments of the scores that it follows from.

    Attributes:
        ridge: lambda.
        score_means: (K, K) mean score of output l (column) on class i (row), equation (2).
        score_covariances: (K, K, K) covariance of the scores on class i (first axis), equation (4).
        iterations: steps that the fixed point took.
    """

    ridge: float
    score_means: np.ndarray
    score_covariances: np.ndarray
    iterations: int


def asymptotic_error(
    means: Num[ArrayLike, "k d"],
    covariances: Num[ArrayLike, "_ _ _"],
    n: int | float,
    *,
    ridge: float | int = 0.0,
    weights: Num[ArrayLike, " _"] | None = None,
    key: Key | None = None,
    points: int = 512,
) -> Prediction:
    """The test error to which ridge (or min-norm) one-vs-all least squares on a Gaussian mixture tends; see the module.

    Float64 throughout; a few dozen products of d x d matrices. Low-rank covariances are allowed.

    Args:
        means: mu_k.
        covariances: Sigma_k, symmetric, positive semi-definite; they may differ and need not commute.
        n: training examples of all classes together.
        ridge: lambda of ``||Y - X W||^2 / n + lambda ||W||^2``; 0 is the limit lambda -> 0+.
        weights: class proportions pi, of training and test examples; equal by default.
        key, points: key and number of points of the integration over scores for K > 2, see ``argmax_error``.

    Raises:
        InputError: shapes that do not fit, a covariance that is not symmetric or not positive semi-definite, n below 1,
            a negative ridge; for ridge 0: n equal to the rank of the mixture, where the weights diverge, or some
            classes interpolated while others are not (classes in subspaces of their own), where the limit has two
            scales.
    """
    key = None if key is None else threefry(key)
    mu, sigma, pi = _checked(means, covariances, weights)
    require(np.isfinite(n) and n >= 1, "n", n, "at least 1")
    require(np.isfinite(ridge) and ridge >= 0, "ridge", ridge, "0 or more")
    alpha, beta = float(ridge), 1.0
    if ridge == 0:
        basis, values = _range(mu, sigma, pi)
        rank = len(values)
        require(n != rank, "n", n, f"other than the rank of the mixture ({rank}) at ridge 0: the weights diverge there")
        if n > rank:
            # Ordinary least squares does not depend on coordinates: in these the mixture's second moment is I.
            alpha, beta, basis = 1.0, 0.0, basis / np.sqrt(values)
        if n > rank or rank < mu.shape[1]:
            mu, sigma = mu @ basis, basis.T @ sigma @ basis
    y, traces, iterations = _fixed_point(mu, sigma, pi, float(n), alpha, beta)
    score_means, score_covariances = _scores(pi / y, y, traces, float(n))
    found = argmax_error(score_means, score_covariances, pi, key=key, points=points)
    return Prediction(
        found.error, found.standard_error, found.class_errors, float(ridge), score_means, score_covariances, iterations
    )


def best_ridge(
    means: Num[ArrayLike, "k d"],
    covariances: Num[ArrayLike, "_ _ _"],
    n: int | float,
    *,
    weights: Num[ArrayLike, " _"] | None = None,
    key: Key | None = None,
    points: int = 256,
) -> Prediction:
    """The ridge classifier of smallest asymptotic error, sought from 1e-5 to 1e3 times ``tr(sum pi_k Sigma_k) / d``.

    Arguments and errors as for ``asymptotic_error``. The error is flat about its minimum: the ridge found is good to
    about a factor of 1.5, its error to 1e-4.
    """
    key = None if key is None else threefry(key)
    pi = class_weights(weights, np.shape(means)[0])
    scale = float(np.einsum("k,kii->", pi, as_doubles("covariances", covariances))) / np.shape(means)[1]
    require(scale > 0, "covariances", "all zero", "positive somewhere")

    def error_at(log_ridge: float) -> float:
        return asymptotic_error(
            means, covariances, n, ridge=scale * 10.0 ** float(log_ridge), weights=pi, key=key, points=points
        ).error

    found = scipy.optimize.minimize_scalar(error_at, bounds=(-5.0, 3.0), method="bounded", options={"xatol": 0.2})
    return asymptotic_error(
        means, covariances, n, ridge=scale * 10.0 ** float(found.x), weights=pi, key=key, points=points
    )


def _checked(means: ArrayLike, covariances: ArrayLike, weights: ArrayLike | None) -> tuple[np.ndarray, ...]:
    mu, sigma = as_doubles("means", means), as_doubles("covariances", covariances)
    k, d = mu.shape
    require(k >= 2, "number of classes", k, "at least 2")
    require(sigma.shape == (k, d, d), "covariances.shape", sigma.shape, f"({k}, {d}, {d}), as means say")
    require(bool(np.isfinite(mu).all() and np.isfinite(sigma).all()), "moments", "non-finite", "finite")
    transposed = np.swapaxes(sigma, 1, 2)
    for label in range(k):
        name, top = f"covariances[{label}]", float(np.abs(sigma[label]).max())
        skew = float(np.abs(sigma[label] - transposed[label]).max())
        require(skew <= 1e-5 * top, name, f"asymmetric by {skew:.2g}", "symmetric")
        # Room for what float32 rounding does to a covariance.
        room = 1e-5 * max(float(np.trace(sigma[label])), np.finfo(float).tiny)
        try:
            scipy.linalg.cholesky(sigma[label] + room * np.eye(d), lower=True, check_finite=False)
        except scipy.linalg.LinAlgError:
            raise InputError(f"{name} = not positive semi-definite: must be a covariance") from None
    return mu, (sigma + transposed) / 2, class_weights(weights, k)


def _range(mu: np.ndarray, sigma: np.ndarray, pi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvectors (columns) and eigenvalues of the mixture's second moment, without those of eigenvalue 0."""
    second = np.einsum("k,kij->ij", pi, sigma) + (mu.T * pi) @ mu
    values, vectors = scipy.linalg.eigh(second, check_finite=False)
    kept = values > len(values) * np.finfo(float).eps * values[-1]
    require(bool(kept.any()), "moments", "all zero", "of a mixture with some spread")
    return vectors[:, kept], values[kept]


@dataclass(frozen=True)
class _Traces:
    """All that (1) to (4) need of R: first_a = tr(Sigma_a R), second_ac = tr(Sigma_a R Sigma_c R),
    overlap_lm = mu_l^T R mu_m, quadratic_alm = mu_l^T R Sigma_a R mu_m."""

    first: np.ndarray
    second: np.ndarray
    overlap: np.ndarray
    quadratic: np.ndarray

    def coupling(self, n: float) -> np.ndarray:
        """``tr(Sigma_a R C_c R) / n``."""
        return (self.second + np.einsum("acc->ac", self.quadratic)) / n


def _traces(mu: np.ndarray, sigma: np.ndarray, scales: np.ndarray, beta: float) -> _Traces:
    """Of ``R = (beta I + sum_k scales_k C_k)^{-1}``."""
    total = np.tensordot(scales, sigma, axes=1) + (mu.T * scales) @ mu
    total[np.diag_indices_from(total)] += beta
    lower = scipy.linalg.cholesky(total, lower=True, overwrite_a=True, check_finite=False)
    half, _ = scipy.linalg.lapack.dpotri(lower, lower=1)
    resolvent = np.tril(half) + np.tril(half, -1).T
    products = sigma @ resolvent
    flat, turned = (each.reshape(len(sigma), -1) for each in (products, products.swapaxes(1, 2)))
    seen = mu @ resolvent
    quadratic = np.stack([mu @ product.T @ seen.T for product in products])
    return _Traces(np.einsum("kii->k", products), flat @ turned.T, seen @ mu.T, quadratic)


def _fixed_point(
    mu: np.ndarray, sigma: np.ndarray, pi: np.ndarray, n: float, alpha: float, beta: float
) -> tuple[np.ndarray, _Traces, int]:
    """The solution y of (1) and the traces there. From above if beta > 0, where a point above is known, else from
    below.
    """
    start = alpha + np.einsum("kii->k", sigma) / n if beta else np.full(len(mu), alpha)
    require(
        bool((start > 0).all()), "covariances", "zero for a class at ridge 0", "positive somewhere, or ridge positive"
    )
    y, iteration, change = start, 0, np.inf
    while iteration < MAX_ITERATIONS and (y > 1e-13 * start.max()).all() and (y < 1e13 * start.max()).all():
        iteration += 1
        traces = _traces(mu, sigma, pi / y, beta)
        value, slope = alpha + traces.first / n, traces.coupling(n) * (pi / y**2)[None, :]
        step = value - y
        if np.abs(np.linalg.eigvals(slope)).max() < 1:
            step = np.linalg.solve(np.eye(len(y)) - slope, step)
        before, change = change, float(np.abs(step / y).max())
        # Or as near as rounding lets it come, where R is ill-conditioned.
        if change < TOLERANCE or (before < 1e-6 and change >= before / 2):
            return y, traces, iteration
        y = np.maximum(y + step, y / 1e3)  # Rounding must not carry it past zero.
    if alpha > 0 and beta > 0:
        raise InputError(f"ridge = {alpha:g}: must be larger: the fixed point was not reached in {iteration} steps")
    raise InputError(
        "ridge = 0.0: must be positive: some classes are interpolated and others are not, or n is too near the rank"
    )


def _scores(h: np.ndarray, y: np.ndarray, traces: _Traces, n: float) -> tuple[np.ndarray, np.ndarray]:
    """Equations (2), (3) and (4), with ``h = pi / y``."""
    overlap, quadratic = traces.overlap, traces.quadratic
    k = len(h)
    covariances = np.empty((k, k, k))
    for i in range(k):
        tau = np.linalg.solve(np.eye(k) - traces.coupling(n) * (h / y)[None, :], traces.second[:, i] / n)
        second = quadratic[i] + np.einsum(
            "c,clm->lm", h * tau / y, quadratic + overlap[:, :, None] * overlap[:, None, :]
        )
        inner = second - (tau / y)[:, None] * overlap - (tau / y)[None, :] * overlap
        covariances[i] = np.diag(h * tau / y) + h[:, None] * h[None, :] * inner
    return overlap * h[None, :], covariances
