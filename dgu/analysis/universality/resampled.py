"""Pools drawn anew from a pool of images, and a design measured on them: how much do its results vary between pools?

Splits of one pool cannot show it. What they leave out, the variance V between pools, comes from a smoothed bootstrap of
the images, on which the same design is measured with classifiers of closed form (``ridge_and_test``); see
``dgu.analysis.stats.pools``.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import jax
import numpy as np
from jaxtyping import Float, Num
from threadpoolctl import threadpool_limits

from dgu.analysis.moments.principal import principal_images
from dgu.analysis.stats.pools import smoothed_bootstrap

#: Bandwidth of the smoothed bootstrap, in standard deviations of each class.
BANDWIDTH = 0.5
#: Above so many dimensions, pools drawn anew are compared by their leading principal components alone.
MOST_DIMENSIONS = 512
#: About how many rows these components come from.
_ROWS_OF_AXES = 8192

#: What is measured: from the sets of a pool and the number of a split to results by name.
Measure = Callable[[Sequence[np.ndarray], int], Mapping[str, np.ndarray]]


def on_new_pool(
    sets: Sequence[Num[np.ndarray, "classes _ d"]],
    rng: np.random.Generator,
    splits: int,
    measure: Measure,
    *,
    most_dimensions: int = MOST_DIMENSIONS,
    whole: Measure | None = None,
) -> dict[str, np.ndarray]:
    """What ``measure`` finds on the splits 0, 1, ... of one pool that is drawn anew.

    Args:
        sets: the pool, and whatever else of the same d is drawn anew with it, each by ``smoothed_bootstrap``.
        rng: source of the draws.
        splits: how many.
        measure: the design, on the sets drawn and a number of a split. Splits are measured in threads of their own, in
            which one thread computes the products of matrices: they are so small that they would only wait for a
            second; where several processes work together, one after the other. It must launch no program that is spread
            over devices: two such, from two threads, could wait for each other.
        most_dimensions: sets of more are first projected onto so many principal axes of the pool.
        whole: where that happens, what is measured in all dimensions besides, on a pool of its own: its results replace
            those of ``measure`` of the same names. A rank of a spectrum is another one among fewer eigenvalues.

    Returns:
        The results by name, each with a leading axis of splits.
    """
    out: dict[str, np.ndarray] = {}
    pools = [(measure, _reduced(sets, most_dimensions))]
    if whole is not None and sets[0].shape[-1] > most_dimensions:
        pools.append((whole, list(sets)))
    for design, rows in pools:
        drawn = [smoothed_bootstrap(one, rng, BANDWIDTH) for one in rows]
        # Several processes share out the mixtures of a design: two exchanges at a time would be taken for each other.
        together = 1 if jax.process_count() > 1 else None
        with threadpool_limits(1), ThreadPoolExecutor(together) as threads:
            found = list(threads.map(partial(design, drawn), range(splits)))
        out |= {name: np.stack([one[name] for one in found]) for name in found[0]}
    return out


def _reduced(sets: Sequence[np.ndarray], most: int) -> list[Float[np.ndarray, "classes _ few"]]:
    """The sets as they are, or the coordinates along the leading principal axes of the first where there are many."""
    d = sets[0].shape[-1]
    if d <= most:
        return list(sets)
    every = sets[0].reshape(-1, d)
    some = every[:: max(1, len(every) // _ROWS_OF_AXES)]
    axes = principal_images(some, min(most, len(some) - 1)).vectors.T
    return [rows @ axes for rows in sets]
