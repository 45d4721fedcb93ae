"""Intervals of parts whose replicates split one pool: stored pools drawn anew, and coverage."""

import numpy as np
import pytest

from dgu.analysis.stats.resampling import t_interval
from dgu.core.errors import InputError
from experiments.pools import POINTS, Resampling, interval, on_resampled_pools
from experiments.study import Run, RunDirectory


def test_pools_are_stored_one_by_one_and_stacked(tmp_path):
    config, calls = Resampling(resampled_pools=3, resampled_splits=2), []

    def compute(number):
        calls.append(number)
        return {"gap": np.array([number, 10.0 * number])}

    run = Run(RunDirectory.open(tmp_path, config), 0, "part")
    for _ in range(2):
        found = on_resampled_pools(config, run, compute)
        np.testing.assert_array_equal(found["gap"], [[0, 0], [1, 10], [2, 20]])
    assert calls == [0, 1, 2]
    with pytest.raises(InputError, match=r"resampled_pools = 1: must be 2 or more"):
        Resampling(resampled_pools=1)


def test_the_interval_covers_where_pools_differ():
    """400 studies of 12 replicates on one pool, the deviation between pools twice that of a replicate over sqrt(12)."""
    rng, studies, deviation = np.random.default_rng(0), 400, 2 / np.sqrt(12)
    held, naive = 0, 0
    for _ in range(studies):
        own = deviation * rng.normal() + rng.normal(size=12)
        again = deviation * rng.normal(size=(24, 1)) + rng.normal(size=(24, 2))
        found, alone = interval(lambda values: 3 * values, own, again, POINTS), t_interval(own)
        held += found.low < 0 < found.high
        naive += alone.low < 0 < alone.high
    assert abs(held / studies - 0.95) < 3.5 * np.sqrt(0.95 * 0.05 / studies) + 0.005
    assert naive / studies < 0.75


def test_results_keep_their_shape_and_range():
    rng = np.random.default_rng(1)
    own, again = {"a": 99 + rng.random((4, 3))}, {"a": 99 + rng.random((5, 2, 3))}
    found = interval(lambda one: one["a"], own, again, (0.0, 100.0))
    np.testing.assert_allclose(found.value, own["a"].mean(axis=0))
    assert found.high.max() <= 100 and found.low.shape == (3,)
