"""Density and coverage: how much of the generated set lies among the real images, and how many of those it reaches.

They stand beside precision and recall (``dgu.analysis.precision_recall``): one outlier among the real images makes a
large ball that precision counts as manifold, which density, a mean over balls, hardly sees.
"""

import numpy as np
import scipy
from jax.typing import ArrayLike
from jaxtyping import Num

from dgu.analysis.quality.balls import ball_counts
from dgu.analysis.quality.neighbours import nearest_rows
from dgu.analysis.stats.estimates import Estimate, proportion
from dgu.core.arrays import as_number, checked_rows
from dgu.core.errors import require


def density_coverage(
    generated: Num[ArrayLike, "n d"], real: Num[ArrayLike, "m e"], *, k: int = 5, block_size: int = 1024
) -> tuple[Estimate, Estimate]:
    """Density and coverage with respect to the balls of the k-th nearest neighbours of the real rows.

    With ``B_i`` the ball about real row i that reaches its k-th nearest other real row,

        density  = sum_j #{i: generated_j in B_i} / (k n)     1 in expectation for equal distributions, may exceed 1
        coverage = #{i: some generated_j in B_i} / m          see ``expected_coverage``

    Rows at the edge of a ball are in it; distances are compared in float64 (``ball_counts``).

    The interval of density is t over the generated rows, that of coverage Wilson's over the real ones, each given the
    other set. Compare numbers of equal sizes only.

    Args:
        generated, real: features.
        k: neighbours; the authors use 5.
        block_size: rows a block.

    Raises:
        InputError: fewer than two generated rows, ``k`` not between 1 and the number of real rows minus 1, or features
            of different width.

    Naeem, Oh, Uh, Choi and Yoo, Reliable fidelity and diversity metrics for generative models, ICML 2020.
    """
    generated, real = checked_rows(generated=generated, real=real)
    require(len(generated) >= 2, "number of generated rows", len(generated), "2 or more")
    require(1 <= k < len(real), "k", k, "1 or more, below the number of real rows")
    radii = nearest_rows(real, real, k, own=True, block_size=block_size)[0][:, -1]
    counts = ball_counts(generated, real, radii, block_size=block_size) / k
    value, error = float(counts.mean()), float(counts.std(ddof=1) / np.sqrt(len(counts)))
    half = scipy.stats.t.ppf(0.975, len(counts) - 1) * error
    reached = nearest_rows(real, generated, block_size=block_size)[0][:, 0] <= radii
    ends, n = (max(0.0, value - half), value + half), len(counts)
    density = Estimate(value, *ends, method="t", n=n, standard_error=error, freedom=n - 1)
    return density, proportion(reached)


def expected_coverage(generated: int, real: int, k: int = 5) -> float:
    """Coverage in expectation where both sets have one continuous distribution: ``1 - prod_{i=0}^{k-1} (m - 1 - i) / (n
    + m - 1 - i)``.

    The nearest generated row is beyond the k-th real neighbour exactly if the k nearest of the n + m - 1 other rows
    are all real.

    Args:
        generated: n.
        real: m.
        k: neighbours.

    Raises:
        InputError: sizes below 1, or ``k`` not below ``real``.
    """
    generated, real, k = map(as_number, (generated, real, k))
    require(generated >= 1 and real >= 2, "(generated, real)", (generated, real), "1 or more, and 2 or more")
    require(1 <= k < real, "k", k, "1 or more, below the number of real rows")
    places = np.arange(k)
    return float(1 - np.prod((real - 1 - places) / (generated + real - 1 - places)))
