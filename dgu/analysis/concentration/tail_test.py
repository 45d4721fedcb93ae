"""A calibrated test of tails: are some Lipschitz functions of the data heavier-tailed than Gaussian data would make
them?

**Null hypothesis**: the rows are independent draws of one Gaussian N(mu, Sigma), both unknown. **Alternative**: for
some function f of the family the distribution of f(x) has more of its variance in the tails than under N(mu, Sigma).
Lighter tails are not rejected, so that the Gaussian is the boundary of what is accepted: bounded data, or a mixture
seen as a broad plateau, pass.

**Statistic**: for each f the logarithm of ``mean((f - mean f)^4) / mean((f - mean f)^2)^2``. It does not change with
the scale of f, so that an error of the fitted Sigma matters little. **Null distribution**: the same statistics of
``draws`` sets of n rows of N(mean, covariance) of the data (parametric bootstrap). Each function's statistic is
standardised by its mean and standard deviation over the data and the null sets together, and the largest of the
family counts: ``p = (1 + #{null sets at least as large}) / (draws + 1)``. The maximum is its own correction for the
number of functions (Westfall and Young, 1993), whatever their dependence.

For functions linear in x the statistic's null does not depend on mu and Sigma at all; for norms and distances it
depends on the shape of the spectrum of Sigma, which the fit gives with an error of order d / n. Measured sizes at a
nominal 5 % are in the tests and are drawn by the study of concentration; with (draws + 1) / 20 a whole number the rank
makes 5 % exact.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from dgu.analysis.concentration.lipschitz import LipschitzFamily
from dgu.analysis.concentration.tails import MIN_VALUES
from dgu.core.arrays import as_floats, as_jax_floats, check_squares
from dgu.core.brief import short_repr
from dgu.core.errors import require
from dgu.core.keys import stream, threefry
from dgu.core.typing import Key
from dgu.distributions.class_gaussians import fit_gaussian

#: Numbers drawn together: null sets of small data are made many at a time.
_TOGETHER = 400_000


@short_repr
@dataclass(frozen=True)
class TailTest:
    """The result of ``tail_test``.

    Attributes:
        p_value: p value for the whole family.
        function_p: (functions,) p value of each function, corrected for their number; the smallest is ``p_value``.
        kurtosis: (functions,) excess kurtosis of the data.
        null_kurtosis: (functions,) mean excess kurtosis over the null sets (not 0 for norms and maxima).
        names: names of the functions.
        draws: number of null sets.
    """

    p_value: float
    function_p: np.ndarray
    kurtosis: np.ndarray
    null_kurtosis: np.ndarray
    names: tuple[str, ...]
    draws: int

    def rejects(self, level: float = 0.05) -> bool:
        """Whether tails are heavier than Gaussian at this level."""
        return self.p_value <= level


def tail_test(rows: Num[ArrayLike, " n *event"], family: LipschitzFamily, key: Key, *, draws: int = 199) -> TailTest:
    """Test the null hypothesis of the module on ``rows``.

    Args:
        rows: (n, ...) independent examples, flattened. With n below d the Gaussian lives in the hull of the data.
        family: the functions; its directions and anchors must not be taken from these rows.
        key: key of the null sets.
        draws: their number, 19 or more.

    Raises:
        InputError: fewer than 20 rows, another dimension than the family's, non-finite values, a function that is
            constant on the rows, or too few draws.
    """
    key = threefry(key)
    flat = as_floats("rows", rows).reshape(np.shape(rows)[0], -1)
    wanted = int(family.directions.shape[1])
    require(len(flat) >= MIN_VALUES, "rows", len(flat), f"{MIN_VALUES} or more")
    require(flat.shape[1] == wanted, "rows.shape", np.shape(rows), f"(n, ...) with {wanted} numbers a row")
    require(bool(np.isfinite(flat).all()), "rows", "non-finite", "finite")
    require(draws >= 19, "draws", draws, "19 or more")
    check_squares(rows=flat)
    found = _test(as_jax_floats("rows", flat), family, key, draws)
    statistics, function_ranks = (np.asarray(part) for part in found)
    for name, value in zip(family.names, statistics[0]):
        require(bool(np.isfinite(value)), f"function {name!r}", "constant", "different from row to row")
    excess = np.exp(statistics.astype(np.float64)) - 3
    function_p = function_ranks / (draws + 1)
    return TailTest(float(function_p.min()), function_p, excess[0], excess[1:].mean(axis=0), family.names, draws)


def tail_test_p_values(
    key: Key,
    sets: int,
    n: int,
    scales: Num[ArrayLike, " d"],
    family: LipschitzFamily,
    *,
    degrees_of_freedom: float | int = np.inf,
    draws: int = 99,
) -> Float[np.ndarray, " sets"]:
    """p values of the test on synthetic sets, to see its size and its power: one compiled program for all sets.

    Each set has n rows ``scales * z / sqrt(chi2_nu / nu)``, z standard normal and one chi2 for the whole row:
    multivariate Student-t with nu degrees of freedom, Gaussian for nu = inf (then the fraction of p <= 0.05 is the
    size).

    Args:
        key: key of data and null sets.
        sets: synthetic sets.
        n: rows of each.
        scales: (d,) scale of each coordinate.
        family: the functions.
        degrees_of_freedom: nu, above 0.
        draws: null sets of each set.

    Raises:
        InputError: sizes out of range or scales that are not positive.
    """
    key = threefry(key)
    scales = as_jax_floats("scales", scales)
    require(sets >= 1 and n >= MIN_VALUES, "(sets, n)", (sets, n), f"1 set of {MIN_VALUES} rows, or more")
    require(bool((scales > 0).all()), "scales", np.asarray(scales).tolist(), "positive")
    require(degrees_of_freedom > 0, "degrees_of_freedom", degrees_of_freedom, "above 0")
    require(draws >= 19, "draws", draws, "19 or more")
    nu = jnp.asarray(degrees_of_freedom, scales.dtype)
    return np.asarray(_synthetic(key, scales, nu, family, sets, n, draws)).min(axis=1) / (draws + 1)


@partial(jax.jit, static_argnames=("sets", "n", "draws"))
def _synthetic(key: Key, scales: Array, nu: Array, family: LipschitzFamily, sets: int, n: int, draws: int) -> Array:
    def one(number: Array) -> Array:
        data, null = (jax.random.fold_in(stream(key, name), number) for name in ("data", "null"))
        rows = jax.random.normal(data, (n, scales.shape[0]), scales.dtype) * scales[None, :]
        finite = jnp.isfinite(nu)
        freedom = jnp.where(finite, nu, 1)
        radius = jax.random.chisquare(jax.random.fold_in(data, 1), freedom, (n, 1), scales.dtype) / freedom
        rows = rows / jnp.where(finite, jnp.sqrt(radius), 1)
        return _test(rows, family, null, draws)[1]

    return jax.lax.map(one, jnp.arange(sets))


@partial(jax.jit, static_argnames=("draws",))
def _test(rows: Array, family: LipschitzFamily, key: Key, draws: int) -> tuple[Array, Array]:
    """Log-kurtosis (1 + draws, functions), the data's first; and the rank of each function, the smallest the
    family's.
    """
    gaussian = fit_gaussian(rows)
    together = max(1, min(draws, _TOGETHER // rows.size))

    def null(number: Array) -> Array:
        z = jax.random.normal(jax.random.fold_in(key, number), (rows.shape[0], gaussian.root.shape[0]), rows.dtype)
        drawn = gaussian.mean[None, :] + jnp.matmul(z, gaussian.root, precision=jax.lax.Precision.HIGHEST)
        return _log_kurtosis(jax.vmap(family)(drawn))

    own = _log_kurtosis(jax.vmap(family)(rows))
    every = jnp.concatenate([own[None], jax.lax.map(null, jnp.arange(draws), batch_size=together)])
    standard = (every - jnp.mean(every, axis=0)[None, :]) / jnp.std(every, axis=0)[None, :]
    largest = jnp.max(standard, axis=1)
    return every, 1 + jnp.sum(largest[1:, None] >= standard[:1], axis=0)


def _log_kurtosis(values: Array) -> Array:
    centred = values - jnp.mean(values, axis=0)[None, :]
    squares = jnp.square(centred / jnp.sqrt(jnp.mean(centred**2, axis=0))[None, :])
    return jnp.log(jnp.mean(squares**2, axis=0))
