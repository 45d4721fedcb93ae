"""The largest eigenvalues of many symmetric matrices known only by their products with vectors.

The products are a Python loop over calls of one compiled function: a gradient of convolutions inside ``lax.scan`` or
``while_loop`` is many times slower on CPU, which rules out libraries that run the whole iteration in one program.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy
from jax.typing import ArrayLike
from jaxtyping import Num

from dgu.core.arrays import as_doubles
from dgu.core.brief import short_repr
from dgu.core.errors import require, require_whole


@short_repr
@dataclass(frozen=True, eq=False)
class TopEigenvalues:
    """Largest eigenvalues of b matrices.

    Attributes:
        values: ``(b,)``; a Ritz value, so never above the largest eigenvalue (but for rounding).
        residuals: ``|M v - value v|``, ``(b,)``: some eigenvalue lies within it of ``value``.
        vectors: the unit vectors v, ``(b, d)``.
        products: products taken with each matrix.
    """

    values: np.ndarray
    residuals: np.ndarray
    vectors: np.ndarray
    products: int


def top_eigenvalues(
    product: Callable[[np.ndarray], ArrayLike],
    start: Num[np.ndarray, "b d"],
    *,
    tolerance: float = 1e-3,
    max_products: int = 40,
) -> TopEigenvalues:
    """Lanczos iteration with full reorthogonalisation, in float64 on the host but for the products.

    It stops when every residual is at most ``tolerance`` times its value, at an invariant subspace (in d products at
    the latest), or after ``max_products``. The value's error is far below the residual: about its square over the gap
    to the next eigenvalue. From a vector without any component along the top eigenvector it would find the next one:
    start from random vectors.

    Args:
        product: ``(b, d) -> (b, d)``, row i multiplied by the symmetric positive semi-definite matrix i.
        start: a starting vector for each matrix, not 0; of any length.
        tolerance: largest residual over value, 0 or more.
        max_products: at least 1.

    Raises:
        InputError: a tolerance or number of products out of range, or a starting vector of length 0.
        FloatingPointError: a product that is not finite.

    Golub and Van Loan, Matrix Computations, chapter 10.
    """
    require(0 <= tolerance < 1, "tolerance", tolerance, "from 0 to below 1")
    require_whole("max_products", max_products)
    start = as_doubles("start", start)
    length = np.linalg.norm(start, axis=1)
    require(bool((length > 0).all()), "start", "a vector of length 0", "vectors that are not 0")
    size = start.shape[1]
    basis = np.empty((len(start), 0, size))
    vector = start / length[:, None]
    diagonal, off = np.empty((len(start), 0)), np.empty((len(start), 0))
    scale = np.zeros(len(start))
    for count in range(1, min(max_products, size) + 1):
        basis = np.concatenate([basis, vector[:, None]], axis=1)
        image = np.asarray(product(vector), np.float64)
        if not np.isfinite(image).all():
            raise FloatingPointError(
                f"a product with a matrix is not finite (row {np.argwhere(~np.isfinite(image))[0][0]})"
            )
        scale = np.maximum(scale, np.linalg.norm(image, axis=1))
        diagonal = np.column_stack([diagonal, np.einsum("bd,bd->b", vector, image)])
        for _ in range(2):  # twice, for the digits lost by the first pass
            image = image - np.einsum("bkd,bk->bd", basis, np.einsum("bkd,bd->bk", basis, image))
        beta = np.linalg.norm(image, axis=1)
        # Rounding is all that is left of an invariant subspace: a zero vector, which changes no Ritz value above 0.
        beta = np.where(beta > 1e-14 * scale, beta, 0.0)
        last = count == min(max_products, size) or not beta.any()
        # Later looks are rarer: each decomposes b tridiagonal matrices.
        if last or 2 < count <= 12 or count % 4 == 0:
            top = [
                scipy.linalg.eigh_tridiagonal(*bands, select="i", select_range=(count - 1, count - 1))
                for bands in zip(diagonal, off)
            ]
            values = np.array([max(value[0], 0.0) for value, _ in top])
            rotation = np.array([vector[:, 0] for _, vector in top])
            residuals = beta * np.abs(rotation[:, -1])
            if last or (residuals <= tolerance * values).all():
                break
        off = np.column_stack([off, beta])
        vector = image / np.where(beta > 0, beta, np.inf)[:, None]
    return TopEigenvalues(values, residuals, np.einsum("bkd,bk->bd", basis, rotation), count)
