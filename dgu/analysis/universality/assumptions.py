"""The assumptions of Theorem 1 (Ghane et al., arXiv 2501.07741), each as a number with an interval.

The theorem's scaling is ``E||x - mu||^2 = O(1)``: everything is measured on ``x / sqrt(tr Sigma)``. "Bounded" and
"tends to 0" are statements about a sequence of dimensions; at one d the number itself can be held against that of white
Gaussian data of the same size, for which the theorem's assumptions hold. The quantities:

- ``mean``: ``||mu||``, which should be O(1);
- ``moment q, random`` and ``moment q, leading``: ``d^(q/2) E|<x - mu, v>|^q`` for unit v, uniform or an eigenvector of
  the covariance, which should be bounded by K for q up to 6; white Gaussian data have (q - 1)!!. The largest over
  directions is reported;
- ``shape q, ...``: the same with v's own variance taken out, ``E|<x - mu, v>|^q / Var^(q/2)``: (q - 1)!! for Gaussian
  data of any covariance;
- ``quadratic C``: ``Var(x^T C x)`` for symmetric C of operator norm 1, which should vanish: C = I, a random projection
  onto d / 2 dimensions, and the projection onto the leading eigenvector. White Gaussian data with mean 0 have ``2
  tr(C^2) / d^2``;
- ``smallest singular value``: ``s_min(X X^T)`` of m < d rows, which should be Omega(1). White Gaussian data: ``(1 -
  sqrt(m / d))^2``.

Eigenvectors come from half of the rows, everything else from the other half, so that a direction is never chosen by the
values it is measured on. Intervals are percentiles of a bootstrap over the second half; for the singular value, Student
t over disjoint blocks of m rows.
"""

from dataclasses import dataclass, replace
from functools import partial
from math import prod, sqrt

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Num

from dgu.analysis.stats.estimates import Estimate
from dgu.analysis.stats.resampling import t_interval
from dgu.core import linalg
from dgu.core.arrays import as_examples
from dgu.core.errors import require
from dgu.core.keys import stream, threefry
from dgu.core.typing import Key

_HIGHEST = jax.lax.Precision.HIGHEST
ORDERS = (2, 4, 6)
#: Fewest rows: half of them are for eigenvectors.
MIN_ROWS = 40


@dataclass(frozen=True)
class Assumption:
    """One assumption on the data.

    Attributes:
        name: its name, as the module lists it.
        wanted: what the theorem assumes about it.
        estimate: the quantity, with its 95 % interval.
        white: its value for white Gaussian data of mean 0 and the same n and d.
    """

    name: str
    wanted: str
    estimate: Estimate
    white: float

    @property
    def ratio(self) -> Estimate | None:
        """The estimate over the value for white Gaussian data; None where that value is 0."""
        e = self.estimate
        if self.white == 0:
            return None
        parts = {name: getattr(e, name) / self.white for name in ("value", "low", "high", "standard_error")}
        return replace(e, **parts)


def theorem_assumptions(
    rows: Num[ArrayLike, " n *event"],
    key: Key,
    *,
    directions: int = 16,
    leading: int = 4,
    aspect: float = 0.5,
    resamples: int = 200,
) -> tuple[Assumption, ...]:
    """Evaluate the assumptions on independent rows of one class.

    Args:
        rows: (n, ...), flattened to d numbers.
        key: key of directions, the projection, the halves and the bootstrap.
        directions: random directions.
        leading: leading eigenvectors.
        aspect: m / d for the smallest singular value; m is lowered where the half has fewer than two blocks of rows.
        resamples: of the bootstrap.

    Returns:
        In the order of the module: mean, moments, shapes, quadratic forms, smallest singular value.

    Raises:
        InputError: fewer than 40 rows or 4 numbers, constant or non-finite rows, options out of range.
    """
    key = threefry(key)
    flat = as_examples("rows", rows).reshape(np.shape(rows)[0], -1)
    n, d = flat.shape
    require(n >= MIN_ROWS and d >= 4, "rows.shape", (n, d), f"{MIN_ROWS} rows of 4 numbers, or more")
    require(bool(np.isfinite(flat).all()), "rows", "non-finite", "finite")
    require(bool((np.ptp(flat, axis=0) > 0).any()), "rows", "constant", "rows that differ")
    require(directions >= 1, "directions", directions, "1 or more")
    require(1 <= leading <= min(n // 2 - 1, d), "leading", leading, f"from 1 to {min(n // 2 - 1, d)}")
    require(0 < aspect < 1, "aspect", aspect, "between 0 and 1")
    require(resamples >= 20, "resamples", resamples, "20 or more")
    order = np.asarray(jax.random.permutation(stream(key, "halves"), n))
    first, second = jnp.asarray(flat[order[: n // 2]]), jnp.asarray(flat[order[n // 2 :]])
    unit = jax.random.normal(stream(key, "directions"), (d, directions + d // 2), flat.dtype)
    plain = unit[:, :directions] / jnp.linalg.norm(unit[:, :directions], axis=0, keepdims=True)
    half = linalg.qr(unit[:, directions:])[0]
    eigen, trace = _leading(first, leading)
    eigen = eigen[:, ::-1]  # The leading one last, as the quadratic form takes it.
    count = resamples + 1
    found = np.asarray(
        _statistics(second, stream(key, "bootstrap"), jnp.concatenate([plain, eigen], axis=1), half, count), np.float64
    )
    point, draws = found[0], found[1:]
    groups = (("random", slice(0, directions)), ("leading", slice(directions, directions + leading)))
    per = directions + leading
    moments, shapes = (
        part.reshape(count, len(ORDERS), per) for part in np.split(found[:, 1 : 1 + 2 * len(ORDERS) * per], 2, axis=1)
    )
    out = [Assumption("mean", "O(1)", _bootstrapped(point[0], draws[:, 0]), 0.0)]
    for kind, values in (("moment", moments), ("shape", shapes)):
        for place, q in enumerate(ORDERS):
            if kind == "shape" and q == 2:
                continue
            for name, members in groups:
                # The direction with the largest moment, chosen once: a maximum of each resample would lie above it.
                worst = int(values[0, place, members].argmax())
                series = values[:, place, members][:, worst]
                wanted = "bounded" if kind == "moment" else "bounded, Gaussian (q - 1)!!"
                out.append(
                    Assumption(
                        f"{kind} {q}, {name}", wanted, _bootstrapped(series[0], series[1:]), float(prod(range(1, q, 2)))
                    )
                )
    whites = (2 / d, 2 * half.shape[1] / d**2, 2 / d**2)
    for place, (name, white) in enumerate(zip(("identity", "random half", "leading eigenvector"), whites)):
        series = found[:, -3 + place]
        out.append(Assumption(f"quadratic {name}", "tends to 0", _bootstrapped(series[0], series[1:]), white))
    out.append(_smallest_singular_value(np.asarray(second), float(trace), aspect))
    return tuple(out)


def _smallest_singular_value(rows: np.ndarray, trace: float, aspect: float) -> Assumption:
    n, d = rows.shape
    m = max(2, min(round(aspect * d), n // 2))
    blocks = rows[: n // m * m].reshape(-1, m, d) / sqrt(trace)
    interval = t_interval(
        np.square(np.linalg.svd(blocks.astype(np.float64), compute_uv=False)[:, -1]), bounds=(0, np.inf)
    )
    return Assumption(f"smallest singular value, {m} rows", "Omega(1)", interval, (1 - sqrt(m / d)) ** 2)


def _bootstrapped(value: float, draws: np.ndarray) -> Estimate:
    low, high = np.quantile(draws, [0.025, 0.975])
    error = float(draws.std(ddof=1))
    return Estimate(
        float(value), float(low), float(high), method="bootstrap percentiles", n=len(draws), standard_error=error
    )


@partial(jax.jit, static_argnums=1)
def _leading(rows: Array, count: int) -> tuple[Array, Array]:
    """Leading eigenvectors (d, count) and the trace of the covariance."""
    centred = rows - jnp.mean(rows, axis=0, keepdims=True)
    _, singular, right = linalg.svd(centred)
    return right[:count].T, jnp.sum(singular**2) / (rows.shape[0] - 1)


@partial(jax.jit, static_argnums=4)
def _statistics(rows: Array, key: Key, directions: Array, half: Array, count: int) -> Array:
    """The data's statistics, then those of ``count - 1`` resamples: mean, moments, shapes, quadratic forms, in a row
    each.
    """
    n, d = rows.shape
    directions = directions.astype(rows.dtype)
    centre = jnp.mean(rows, axis=0)
    centred = rows - centre[None, :]
    scores = jnp.matmul(centred, directions, precision=_HIGHEST)
    squares = jnp.sum(centred**2, axis=1)
    # x^T C x for C the identity, the projection onto half of the dimensions, and onto the leading eigenvector.
    inside = jnp.matmul(rows, half.astype(rows.dtype), precision=_HIGHEST)
    lead = jnp.matmul(rows, directions[:, -1:], precision=_HIGHEST)
    forms = jnp.stack([jnp.sum(part**2, axis=1) for part in (rows, inside, lead)], axis=1)

    def one(weights: Array, surplus: Array) -> Array:
        def mean(values: Array) -> Array:
            return jnp.matmul(weights, values, precision=_HIGHEST) / n

        # Resampling moves the mean: the scores and the trace are taken about the moved one.
        shift = mean(centred)
        trace = (mean(squares[:, None])[0] - jnp.sum(shift**2)) * n / (n - 1)
        own = scores - mean(scores)[None, :]
        moments = jnp.stack([mean(jnp.abs(own) ** q) for q in ORDERS])
        powers = jnp.asarray([q / 2 for q in ORDERS], rows.dtype)[:, None]
        scaled = moments * (d / trace) ** powers
        shapes = moments / moments[:1] ** powers
        # The squared length of an estimated mean is too large by trace / n on average, of a resample's by twice that.
        length = jnp.maximum(jnp.sum((centre + shift) ** 2) / trace - surplus, 0)
        spread = mean((forms - mean(forms)[None, :]) ** 2) / trace**2
        return jnp.concatenate([jnp.sqrt(length)[None], scaled.ravel(), shapes.ravel(), spread])

    def resampled(number: Array) -> Array:
        chosen = jax.random.randint(jax.random.fold_in(key, number), (n,), 0, n)
        drawn = jnp.zeros(n, rows.dtype).at[chosen].add(jnp.ones((), rows.dtype))
        first = number == 0
        return one(jnp.where(first, jnp.ones(n, rows.dtype), drawn), jnp.where(first, 1.0, 2.0).astype(rows.dtype) / n)

    return jax.lax.map(resampled, jnp.arange(count))
