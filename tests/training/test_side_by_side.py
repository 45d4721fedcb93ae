"""Networks trained side by side: a training that was killed resumes to the same parameters, and draws are shared."""

import jax
import numpy as np
import pytest

from dgu.models import EDMNetwork, TutorialUNetConfig, VESDEPreconditioning
from dgu.training import TrainingConfig, train_side_by_side

NETWORK = EDMNetwork(TutorialUNetConfig(5, 1, 1, channels=(4,), embedding=4), VESDEPreconditioning())
OPTIMISATION = TrainingConfig(
    duration_kimg=0.064, batch_size=8, learning_rate=1e-2, rampup_kimg=0.0, loss="vesde", seed=3
)
SETS = [np.random.default_rng(seed).normal(size=(12, 5, 5, 1)).astype(np.float32) for seed in range(2)]


class Killed(Exception):
    """What ends a training in the middle."""


def test_a_killed_training_goes_on_to_the_same_parameters(tmp_path):
    whole, losses = train_side_by_side(NETWORK, SETS, OPTIMISATION, 4, tmp_path / "whole")
    seen = []

    def kill(steps):
        seen.append(steps)
        if sum(seen) > 4:  # Calls end where a bin does, after two updates each.
            raise Killed

    with pytest.raises(Killed):
        train_side_by_side(NETWORK, SETS, OPTIMISATION, 4, tmp_path / "cut", kill)
    seen.clear()
    again, found = train_side_by_side(NETWORK, SETS, OPTIMISATION, 4, tmp_path / "cut", seen.append)
    assert seen[0] == 4 and sum(seen) == 8  # From the second checkpoint of four.
    jax.tree.map(np.testing.assert_array_equal, again, whole)
    np.testing.assert_array_equal(found, losses)
    assert losses.shape == (2, 4) and (losses > 0).all()
    # Networks differ by their images alone: with the same images they are the same.
    same, _ = train_side_by_side(NETWORK, [SETS[0], SETS[0]], OPTIMISATION, 4, tmp_path / "same")
    jax.tree.map(np.testing.assert_array_equal, same[0], same[1])
    jax.tree.map(np.testing.assert_array_equal, same[0], whole[0])
