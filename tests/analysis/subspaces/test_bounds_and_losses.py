"""The fit of a bound on errors of projectors, and the loss of one subspace: averaged over draws, and descended."""

import jax
import numpy as np
import pytest

from dgu.analysis import (
    descend_exact_loss,
    drawn_loss,
    exact_loss,
    fit_bound,
    principal_basis,
    projector_distances,
    vp_grid,
)
from dgu.core.errors import InputError
from dgu.models import random_basis

RANKS, SIZES = range(2, 9), range(2, 16)


def planted_errors(growth=1.0, below=0.97, trials=400):
    """Units and distances of projectors that obey the bound with the constant 2 as often as the theorem allows: the
    ratio passes it with half the probability ``2^-(N - d + 1)``; ranks above 5 are ``growth`` times as far off."""
    rng, ranks, sizes = np.random.default_rng(0), np.asarray(RANKS)[:, None], np.asarray(SIZES)[None]
    shape, enough = (trials, len(ranks), sizes.size, 1), (sizes >= ranks)[None, :, :, None]
    unit = rng.uniform(0.5, 2, shape)
    allowed = 2.0 ** -np.maximum(sizes - ranks + 1, 1)[None, :, :, None]
    ratio = np.where(rng.uniform(size=shape) < allowed / 2, 5.0, rng.uniform(0.5, 2.0, shape))
    ratio = ratio * np.where(ranks > 5, growth, 1.0)[None, :, :, None]
    exact = np.sqrt(2.0 * np.maximum(ranks - sizes, 1))[None, :, :, None]
    return np.where(enough, ratio * unit, below * exact * (1 + 1e-6 * rng.normal(size=shape))), unit


def test_a_bound_is_fitted_on_small_ranks_and_tested_on_large_ones():
    found = fit_bound(RANKS, SIZES, *planted_errors())
    assert 1.5 < found.constant <= 5 and found.ratio.value == pytest.approx(0.97, rel=1e-5)
    assert found.broken.high - found.allowed < 0
    # By hand: what half of a cell's trials keep, the largest of the small ranks' cells, and the mean allowance.
    distance, unit = planted_errors()
    ratios = (distance / unit)[..., 0]
    kept = [
        np.sort(ratios[:, d - 2, n - 2])[int(np.ceil((1 - 2.0 ** -(n - d + 1)) * 399))]
        for d in (2, 3, 4, 5)
        for n in range(d, 16)
    ]
    assert found.constant == pytest.approx(max(kept), rel=1e-12)
    large = [(d, n) for d in (6, 7, 8) for n in range(d, 16)]
    assert found.allowed == pytest.approx(np.mean([2.0 ** -(n - d + 1) for d, n in large]), rel=1e-12)
    broken = np.mean([ratios[:, d - 2, n - 2] > found.constant for d, n in large])
    assert found.broken.value == pytest.approx(broken, rel=1e-12)
    assert fit_bound(RANKS, SIZES, *planted_errors(growth=4.0)).broken.low > found.allowed
    with pytest.raises(InputError, match="sizes"):
        fit_bound(RANKS, range(9, 23), *planted_errors())
    with pytest.raises(InputError, match="distance"):
        fit_bound(RANKS, SIZES, *planted_errors(trials=1))


@pytest.mark.slow
def test_drawn_losses_average_to_the_exact_one_which_descends_to_pca(x64):
    keys = jax.random.split(jax.random.key(0), 4)
    rows, basis, grid = jax.random.normal(keys[0], (5, 6)), random_basis(keys[1], 6, 2), vp_grid(7)
    values = drawn_loss(basis, rows, grid, jax.random.split(keys[2], 2000))
    error = values.std(ddof=1) / len(values) ** 0.5
    assert abs(values.mean() - float(exact_loss(basis, rows, grid))) < 4 * error < 0.1
    found = descend_exact_loss(random_basis(keys[3], 6, 2)[None], rows, grid, rate=0.1, steps=2000)
    distance, _ = projector_distances(found, principal_basis(rows, 2, 2)[None])
    assert float(distance[0, 0]) < 1e-6
    with pytest.raises(InputError, match="rate = 0"):
        descend_exact_loss(basis[None], rows, grid, rate=0, steps=1)
