"""EDM2's power-function averages of parameters, and their reconstruction after the training (arXiv 2312.02696,
section 3 and appendix C).

An average with exponent ``g`` at the time ``t`` weighs the parameters of the time ``s <= t`` by ``(g + 1) s^g / t^(g +
1)``. Its width is given by the relative standard deviation ``std`` of that profile, ``std = sqrt((g + 1) / ((g + 2)^2
(g + 3)))``: the share of the training that it reaches back. Snapshots of a few widths, taken along the training, span
profiles of any other width.
"""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from dgu.core.arrays import as_doubles
from dgu.core.errors import require
from dgu.training.config import WIDEST_AVERAGE


def power_ema_std(exponent: Num[ArrayLike, "*s"]) -> Float[np.ndarray, "*s"]:
    """The relative standard deviation of the profile with this exponent, ``sqrt((g + 1) / ((g + 2)^2 (g + 3)))``.

    Raises:
        InputError: an exponent below 0, whose profile would weigh the first parameters most; one that is not finite, or
            no number.
    """
    g = as_doubles("exponent", exponent)
    require(bool((np.isfinite(g) & (g >= 0)).all()), "exponent", exponent, "0 or more and finite")
    return np.asarray(np.sqrt((g + 1) / ((g + 2) ** 2 * (g + 3))))


def power_ema_exponent(std: Num[ArrayLike, "*s"]) -> Float[np.ndarray, "*s"]:
    """The exponent of the profile with this relative standard deviation: the inverse of ``power_ema_std``.

    It is the largest root of ``g^3 + 7 g^2 + (16 - std^-2) g + 12 - std^-2``.

    Raises:
        InputError: a deviation that is not positive, or above 12^(-1/2) = 0.2887, that of the exponent 0.
    """
    widths = as_doubles("std", std)
    # A deviation that was computed from the exponent 0 may be one rounding above.
    allowed = bool(((widths > 0) & (widths <= WIDEST_AVERAGE * (1 + 1e-12))).all())
    require(allowed, "std", std, f"above 0, at most {WIDEST_AVERAGE:.4f}")
    roots = [max(np.roots([1, 7, 16 - w**-2, 12 - w**-2]).real) for w in widths.ravel()]
    return np.asarray(np.maximum(roots, 0.0)).reshape(widths.shape)


def power_ema_share(updates_before: Float[Array, ""], std: float) -> Float[Array, ""]:
    """``1 - beta``, the share of the newest parameters: ``beta = (1 - 1 / (n + 1))^(g + 1)`` after ``n`` updates before
    this one, and 1 (a copy) at the first.
    """
    exponent = float(power_ema_exponent(std))
    # The share is small late in a training, where 1 minus a power of nearly 1 would lose its digits.
    return jnp.where(
        updates_before > 0, -jnp.expm1((exponent + 1) * jnp.log1p(-1 / (jnp.maximum(updates_before, 1) + 1))), 1.0
    )


def power_ema_coefficients(
    times: Num[ArrayLike, " S"], stds: Num[ArrayLike, " S"], time: ArrayLike, std: ArrayLike
) -> Float[np.ndarray, " S"]:
    """How much each snapshot contributes to the average of the width ``std`` at ``time``; they sum to 1.

    The combination of the snapshots' profiles that is nearest to the wanted profile, by least squares. Snapshots after
    ``time`` contribute nothing.

    Args:
        times: images seen when each snapshot was taken (or any other unit), positive.
        stds: the relative standard deviation of each.
        time: when the wanted average ends.
        std: its relative standard deviation.

    Raises:
        InputError: numbers of another shape or out of range, two snapshots of one time and width, or none up to
            ``time``.
    """
    moment, ends, widths = as_doubles("time", time), as_doubles("times", times), as_doubles("stds", stds)
    require(moment.ndim == 0, "time.shape", moment.shape, "(), one number")
    end = float(moment)
    require(
        ends.ndim == 1 and ends.shape == widths.shape, "stds", widths.shape, f"one for each of the times {ends.shape}"
    )
    require(bool((np.isfinite(ends) & (ends > 0)).all()), "times", times, "positive and finite")
    require(math.isfinite(end) and bool((ends <= end).any()), "time", time, "that of the first snapshot or later")
    pairs = np.stack([ends, widths], axis=1)
    require(len(np.unique(pairs, axis=0)) == len(pairs), "stds", stds, "different for snapshots of one time")
    exponents, wanted = power_ema_exponent(widths), power_ema_exponent(std)
    used = ends <= end
    ends, exponents = ends[used], exponents[used]
    gram = _inner_product(ends[:, None], exponents[:, None], ends[None], exponents[None])
    solved = np.linalg.solve(gram, _inner_product(ends, exponents, np.float64(end), wanted))
    coefficients = np.zeros(len(used))
    coefficients[used] = solved / solved.sum()
    return coefficients


def power_ema_reconstruct(
    snapshots: Num[ArrayLike, "S n"],
    times: Num[ArrayLike, " S"],
    stds: Num[ArrayLike, " S"],
    time: ArrayLike,
    std: ArrayLike,
) -> Float[np.ndarray, " n"]:
    """The average of the width ``std`` at ``time`` from snapshots of other widths and times, in float64.

    Args:
        snapshots: the averaged parameters of each snapshot, (S, n).
        times: when each was taken; those after ``time`` are left out.
        stds: the relative standard deviation of each.
        time: when the wanted average ends.
        std: its relative standard deviation.

    Raises:
        InputError: as ``power_ema_coefficients``; or another number of snapshots.
    """
    values = as_doubles("snapshots", snapshots)
    coefficients = power_ema_coefficients(times, stds, time, std)
    fits = values.ndim == 2 and len(values) == len(coefficients)
    require(fits, "snapshots", values.shape, f"({len(coefficients)}, n), one row for each time")
    used = coefficients != 0
    return np.asarray(coefficients[used] @ values[used])


def _inner_product(ta: Any, a: Any, tb: Any, b: Any) -> np.ndarray:
    """The integral of the product of two profiles, of the exponents ``a`` and ``b`` and the ends ``ta`` and ``tb``."""
    ratio = ta / tb
    power = np.where(ta < tb, b, -a)
    return np.asarray((a + 1) * (b + 1) * ratio**power / ((a + b + 1) * np.maximum(ta, tb)))
