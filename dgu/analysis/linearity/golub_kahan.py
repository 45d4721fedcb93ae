"""Leading singular triplets of matrices that are known by their products alone, with a bound on their error.

A triplet (s, u, v) of the matrix M with ``M v = s u`` and the residual ``r = |M^T u - s v|`` is exact for a matrix at
most r away from M in the spectral norm: a singular value of M lies within r of s. Near a gap the error of s is about
``r^2`` over the gap, that of the vectors r over the gap. Golub and Van Loan, Matrix Computations, chapter 10.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

#: Products of matrices, or of their transposes, with columns.
Product = Callable[[np.ndarray], np.ndarray]


class Triplets(NamedTuple):
    """``M right_i = values_i left_i`` for b matrices, float64.

    Fields: ``values`` ``(b, k)``, falling; ``left``, ``right`` unit columns ``(b, d, k)``; ``residuals`` ``|M^T left_i
    - values_i right_i|``, ``(b, k)``; ``rounds`` taken.
    """

    values: np.ndarray
    left: np.ndarray
    right: np.ndarray
    residuals: np.ndarray
    rounds: int


def leading_triplets(
    push: Product, pull: Product, start: Float64[np.ndarray, "b d k"], tolerance: float, max_rounds: int
) -> Triplets:
    """The k leading singular triplets of each of b matrices M.

    Block Golub-Kahan iteration in the form of Rayleigh and Ritz: an orthonormal basis V is kept with M V; the triplets
    of M V are the estimates, and the residuals ``M^T u_i - s_i v_i`` of all requested triplets, made orthonormal,
    extend the basis. When it holds 4 k vectors it is restarted with the 2 k best. Values are taken from M, not from
    ``M^T M``, and are accurate to rounding times the largest.

    Args:
        push: ``M V`` for columns V, ``(b, d, k) -> (b, d, k)``, in float64.
        pull: ``M^T U``.
        start: the random columns that the iteration starts from.
        tolerance: stops when every residual is at most this times the largest singular value.
        max_rounds: rounds at most, each of k products with M and with its transpose.
    """
    size, wanted = start.shape[1:]
    block = np.linalg.qr(start)[0]
    basis, images = block[:, :, :0], block[:, :, :0]
    spare = np.random.default_rng(0)
    rounds = 0
    while True:
        rounds += 1
        basis, images = np.concatenate([basis, block], axis=2), np.concatenate([images, push(block)], axis=2)
        left, values, rotation = np.linalg.svd(images, full_matrices=False)
        rotation = np.swapaxes(rotation, 1, 2)
        right = basis @ rotation[:, :, :wanted]
        gap = pull(left[:, :, :wanted]) - values[:, None, :wanted] * right
        residuals = np.linalg.norm(gap, axis=1)
        scale = values[:, :1]
        if (residuals <= tolerance * scale).all() or basis.shape[2] == size or rounds == max_rounds:
            break
        if basis.shape[2] + wanted > max(4 * wanted, 12):
            keep = min(2 * wanted, basis.shape[2])
            basis, images = basis @ rotation[:, :, :keep], left[:, :, :keep] * values[:, None, :keep]
        room = min(wanted, size - basis.shape[2])
        # The largest residuals first; what is rounding only gives way to random directions, which hurt nothing.
        order = np.argsort(-residuals, axis=1)[:, None, :room]
        block = np.take_along_axis(gap, order, axis=2)
        length = np.linalg.norm(block, axis=1, keepdims=True)
        small = length <= 1e-13 * np.maximum(scale[:, :, None], np.finfo(float).tiny)
        block = np.where(small, spare.standard_normal(block.shape), block / np.where(small, 1.0, length))
        for _ in range(3):  # again, for the digits that the passes before lose
            block = block - basis @ (np.swapaxes(basis, 1, 2) @ block)
            block = np.linalg.qr(block)[0]
    return Triplets(values[:, :wanted], left[:, :, :wanted], right, residuals, rounds)
