"""Spectra: covariance eigenvalues per class, Gram eigenvalues of a balanced mixture, and their comparison.

All eigenvalues come in descending order. They are squared singular values, found either by a singular value
decomposition of the rows (``method="svd"``: the error of an eigenvalue is ``eps sqrt(eigenvalue * largest)``, so
float32 will do) or as eigenvalues of the smaller of the two Gram matrices (``method="eigh"``: several times faster, but
the error is ``eps * largest``, so pair it with ``dtype="float64"``: of uncentred images the largest is some 1e7 times a
typical one).
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from math import sqrt
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from dgu.core import linalg
from dgu.core.arrays import as_doubles, as_floats, as_jax_floats, check_squares
from dgu.core.errors import require


def squared_singular_values(
    rows: Num[ArrayLike, "n d"], *, centre: bool = False, method: str = "svd"
) -> Float[Array, " r"]:
    """The ``min(n, d)`` largest eigenvalues of ``rows^T rows``, descending; pure, in the dtype of ``rows``.

    Args:
        rows: ``(n, d)``.
        centre: take the mean row off first; one eigenvalue is then zero up to rounding when n <= d.
        method: ``"svd"`` or ``"eigh"``, see the module.

    Raises:
        InputError: rows (not traced ones) whose squares or spread leave the precision of JAX.
    """
    check_squares(rows=rows)
    return _squared_singular_values(as_jax_floats("rows", rows), centre, method)


@partial(jax.jit, static_argnames=("centre", "method"))
def _squared_singular_values(rows: Array, centre: bool, method: str) -> Array:
    if centre:
        rows = rows - jnp.mean(rows, axis=0, keepdims=True)
        rows = rows - jnp.mean(rows, axis=0, keepdims=True)
    if method == "svd":
        return linalg.svdvals(rows) ** 2
    short = rows if rows.shape[0] <= rows.shape[1] else rows.T
    gram = jnp.matmul(short, short.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.maximum(linalg.eigvalsh(gram)[::-1], 0)


def covariance_spectrum(
    images: Num[ArrayLike, " n *event"], *, ddof: int = 1, method: str = "svd", dtype: str | None = None
) -> Float[np.ndarray, " r"]:
    """Eigenvalues of the images' covariance, descending: the ``min(n - 1, d)`` that centring leaves room for.

    With ``ddof=1`` they are the largest eigenvalues of ``numpy.cov``; the remaining ``d - (n - 1)`` are exactly zero.

    Args:
        images: ``(n, *event)``, n above ``ddof`` and at least 2.
        ddof: divisor ``n - ddof``.
        method: ``"svd"`` or ``"eigh"``, see the module.
        dtype: ``"float32"`` or ``"float64"`` to compute in, the images' own unless given. Double precision is switched
            on for this call alone.

    Raises:
        InputError: too few images, non-finite values, or another method or dtype.
    """
    n = np.shape(images)[0]
    require(n > max(ddof, 1), "images.shape", np.shape(images), f"(n, ...) with n above {max(ddof, 1)}")
    values = _squared(images, True, method, dtype)
    return values[: min(n - 1, values.size)] / (n - ddof)


def class_spectra(
    images: Num[ArrayLike, " n *event"],
    labels: Sequence[Any] | ArrayLike,
    *,
    ddof: int = 1,
    method: str = "svd",
    dtype: str | None = None,
) -> dict[int, Float[np.ndarray, "..."]]:
    """``covariance_spectrum`` of each class by label (Fig. 6 of arXiv 2501.07741).

    Raises:
        InputError: labels and images differ in number, or as in ``covariance_spectrum``.
    """
    labels = _checked_labels(labels, np.shape(images)[0])
    pick = as_jax_floats("images", images) if isinstance(images, Array) else as_floats("images", images)
    return {
        int(label): covariance_spectrum(pick[np.flatnonzero(labels == label)], ddof=ddof, method=method, dtype=dtype)
        for label in np.unique(labels)
    }


def gram_spectrum(
    images: Num[ArrayLike, " n *event"],
    labels: Sequence[Any] | ArrayLike,
    per_class: int,
    *,
    method: str = "svd",
    dtype: str | None = None,
) -> Float[np.ndarray, " r"]:
    """Eigenvalues of ``X X^T`` of the balanced mixture, descending: the ``min(N, d)`` that can differ from zero.

    X holds the first ``per_class`` images of each class as *uncentred* rows, N = classes * per_class (Fig. 8 of arXiv
    2501.07741, which takes 2,048 a class for 4 classes and 512 for 10 and 20, pixels in [0, 1]).

    Args:
        images: ``(n, *event)``.
        labels: one integer per image.
        per_class: images of each class.
        method: ``"svd"`` or ``"eigh"``, see the module.
        dtype: as in ``covariance_spectrum``.

    Raises:
        InputError: a class has fewer than ``per_class`` images, labels and images differ in number, non-finite values,
            or another method or dtype.
    """
    labels = _checked_labels(labels, np.shape(images)[0])
    require(per_class >= 1, "per_class", per_class, "at least 1")
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        require(members.size >= per_class, "per_class", per_class, f"at most {members.size}, the size of class {label}")
        chosen.append(members[:per_class])
    pick = as_jax_floats("images", images) if isinstance(images, Array) else as_floats("images", images)
    return _squared(pick[np.concatenate(chosen)], False, method, dtype)


def _checked_labels(labels: Any, size: int) -> np.ndarray:
    labels = np.asarray(labels)
    require(labels.shape == (size,), "labels.shape", labels.shape, f"({size},), one label per image")
    require(labels.dtype.kind in "iu", "labels.dtype", str(labels.dtype), "an integer type")
    require(size >= 1, "images", size, "at least one image")
    return labels


def _squared(images: Any, centre: bool, method: str, dtype: str | None) -> np.ndarray:
    images = as_jax_floats("images", images) if isinstance(images, Array) else as_floats("images", images)
    require(method in ("svd", "eigh"), "method", method, "'svd' or 'eigh'")
    require(dtype in (None, "float32", "float64"), "dtype", dtype, "'float32', 'float64' or None")
    with jax.enable_x64(True) if dtype == "float64" else nullcontext():
        rows = as_jax_floats("images", images).reshape(images.shape[0], -1)
        rows = rows if dtype is None else rows.astype(dtype)
        check_squares(images=rows)
        values = np.asarray(squared_singular_values(rows, centre=centre, method=method))
    require(bool(np.isfinite(values).all()), "images", "non-finite", "finite")
    return values


def marchenko_pastur_edges(n: int, d: int, variance: float | int = 1.0) -> tuple[float, float]:
    """The support ``variance (1 -+ sqrt(d / n))^2`` of the non-zero covariance eigenvalues of white data, n, d large.

    Source: Marchenko and Pastur (1967). For n < d there are d - n further eigenvalues, which are 0.

    Raises:
        InputError: a size or the variance is not positive.
    """
    require(n >= 1 and d >= 1, "(n, d)", (n, d), "positive sizes")
    require(variance > 0, "variance", variance, "positive")
    ratio = sqrt(d / n)
    return variance * (1 - ratio) ** 2, variance * (1 + ratio) ** 2


def marchenko_pastur_density(
    x: Num[ArrayLike, "..."], n: int, d: int, variance: float | int = 1.0
) -> Float[np.ndarray, "..."]:
    """Density of the *non-zero* covariance eigenvalues of n rows of d independent numbers of one variance, n, d large.

    ``sqrt((high - x)(x - low)) / (2 pi variance min(d / n, 1) x)`` on the support, 0 outside; it integrates to 1. Rows
    with an estimated mean count as n - 1.

    Raises:
        InputError: as ``marchenko_pastur_edges``.
    """
    low, high = marchenko_pastur_edges(n, d, variance)
    x = as_doubles("x", x)
    inside = (x > low) & (x < high)
    at = np.where(inside, x, (low + high) / 2)
    return np.where(inside, np.sqrt((high - at) * (at - low)) / (2 * np.pi * variance * min(d / n, 1.0) * at), 0.0)


def white_eigenvalues(sets: int, n: int, d: int, seed: int = 0) -> Float[np.ndarray, "sets r"]:
    """Covariance eigenvalues (``ddof=1``) of white Gaussian sets of n rows of d numbers, descending, in float64: the
    ``r = min(n - 1, d)`` largest of each, which the Marchenko-Pastur law describes with n - 1 in place of n.

    Raises:
        InputError: sizes below 1, or fewer than 2 rows.
    """
    require(sets >= 1 and n >= 2 and d >= 1, "(sets, n, d)", (sets, n, d), "1 set of 2 rows of 1 number, or more")
    rows = np.random.default_rng(seed).normal(size=(sets, n, d))
    centred = rows - rows.mean(axis=1, keepdims=True)
    turned = centred.transpose(0, 2, 1)
    gram = turned @ centred if n > d else centred @ turned
    return np.linalg.eigvalsh(gram)[:, ::-1][:, : min(n - 1, d)] / (n - 1)


def gram_covariance_difference(rows: Num[ArrayLike, "n d"]) -> float:
    """The largest relative difference between n - 1 times covariance eigenvalues and those of the centred Gram matrix.

    Both in float64, where it is 0 but for rounding. Eigenvalues below 1e-6 of the largest, zero but for rounding where
    a column is constant, are left out.

    Raises:
        InputError: as ``covariance_spectrum``.
    """
    rows = as_doubles("rows", rows)
    spectrum = covariance_spectrum(rows, dtype="float64")
    centred = rows - rows.mean(axis=0)
    gram = np.linalg.eigvalsh(centred @ centred.T)[::-1][: len(spectrum)]
    kept = spectrum > 1e-6 * spectrum[0]
    return float(np.abs(spectrum[kept] * (len(rows) - 1) / gram[kept] - 1).max())


def marchenko_pastur_quantiles(
    q: Num[ArrayLike, "..."], n: int, d: int, variance: float | int = 1.0
) -> Float[np.ndarray, "..."]:
    """Quantiles of ``marchenko_pastur_density``: eigenvalue k of r from above lies near ``q = 1 - (k - 1/2) / r``.

    By the trapezoidal rule in the angle t of ``x = middle - half cos t``, in which the integrand is smooth; to about
    1e-6.

    Raises:
        InputError: as ``marchenko_pastur_edges``, or q outside [0, 1].
    """
    q = as_doubles("q", q)
    require(bool(((q >= 0) & (q <= 1)).all()), "q", q.tolist(), "in [0, 1]")
    low, high = marchenko_pastur_edges(n, d, variance)
    angle = np.linspace(0, np.pi, 20_001)
    x = (low + high) / 2 - (high - low) / 2 * np.cos(angle)
    speed = marchenko_pastur_density(x, n, d, variance) * np.sin(angle)
    mass = np.concatenate([[0.0], np.cumsum(speed[1:] + speed[:-1])])
    return np.interp(q, mass / mass[-1], x)


@dataclass(frozen=True)
class PowerLaw:
    """``eigenvalue = prefactor * rank ** -exponent``, with the root-mean-square residual of its logarithm."""

    exponent: float
    prefactor: float
    residual: float


def power_law(spectrum: Num[ArrayLike, " r"], first: int = 1, last: int | None = None) -> PowerLaw:
    """Least-squares line through ``log eigenvalue`` against ``log rank``, ranks ``first`` to ``last``, both included.

    Ranks count from 1 and every rank weighs the same, so that the fit is dominated by the large ranks of the range.

    Args:
        spectrum: eigenvalues in descending order.
        first: first rank of the fit.
        last: last rank of the fit; the smallest positive eigenvalue's unless given.

    Raises:
        InputError: the range is outside the spectrum, has fewer than 2 ranks, or an eigenvalue in it is not positive.
    """
    values = as_doubles("spectrum", spectrum)
    last = int(np.count_nonzero(values > 0)) if last is None else last
    require(1 <= first < last <= values.size, "(first, last)", (first, last), f"two ranks from 1 to {values.size}")
    chosen = values[first - 1 : last]
    require(bool((chosen > 0).all()), "spectrum[first - 1 : last]", float(chosen.min()), "positive")
    log_rank = np.log(np.arange(first, last + 1))
    slope, intercept = np.polyfit(log_rank, np.log(chosen), 1)
    residual = np.log(chosen) - (intercept + slope * log_rank)
    return PowerLaw(float(-slope), float(np.exp(intercept)), float(np.sqrt(np.mean(residual**2))))


@dataclass(frozen=True)
class SpectrumRatio:
    """Eigenvalue ratios of two spectra, rank by rank.

    Fields: ``ratios`` at each of ``quantiles`` of the rank (0 the largest eigenvalue, 1 the smallest), ``median`` of
    all ratios, ``log_distance`` the root mean square of their logarithms, ``ranks`` how many ranks were compared.
    """

    quantiles: tuple[float, ...]
    ratios: tuple[float, ...]
    median: float
    log_distance: float
    ranks: int


def spectrum_ratio(
    spectrum: Num[ArrayLike, " r"],
    reference: Num[ArrayLike, "..."],
    quantiles: Sequence[float | int] = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0),
    floor: float | int = 1e-12,
) -> SpectrumRatio:
    """How far ``spectrum`` is from ``reference``, rank by rank: ``spectrum[k] / reference[k]``.

    Against its own truth a mixture fitted to fewer images than pixels shows ratios that fall from 1 at the large
    eigenvalues to some 0.75 at the smallest, so compare with the same ratios of the null, never with 1 alone.

    Args:
        spectrum: eigenvalues in descending order.
        reference: as many eigenvalues, in descending order.
        quantiles: rank quantiles in [0, 1] to report; the nearest rank is taken.
        floor: from the first rank where either eigenvalue is at most ``floor`` times its largest on, all count as
            numerically zero and are left out.

    Raises:
        InputError: spectra of different lengths, none above the floor, or quantiles outside [0, 1].
    """
    top, bottom = as_doubles("spectrum", spectrum), as_doubles("reference", reference)
    require(bottom.shape == top.shape, "reference.shape", bottom.shape, f"the spectrum's, {top.shape}")
    require(all(0 <= q <= 1 for q in quantiles), "quantiles", tuple(quantiles), "in [0, 1]")
    positive = (top > floor * top.max(initial=0)) & (bottom > floor * bottom.max(initial=0))
    ranks = top.size if positive.all() else int(np.argmin(positive))
    require(ranks >= 1, "spectrum", top[:4].tolist(), "with positive eigenvalues in both spectra")
    ratios = top[:ranks] / bottom[:ranks]
    nearest = np.rint(np.asarray(quantiles) * (ranks - 1)).astype(int)
    return SpectrumRatio(
        quantiles=tuple(float(q) for q in quantiles),
        ratios=tuple(ratios[nearest].tolist()),
        median=float(np.median(ratios)),
        log_distance=float(np.sqrt(np.mean(np.log(ratios) ** 2))),
        ranks=ranks,
    )
