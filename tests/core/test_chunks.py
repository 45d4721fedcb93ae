"""Chunks too large to be allocated are refused in one line, in every function that has a row for each of its batch
size.
"""

import jax
import numpy as np
import pytest

from dgu import training
from dgu.analysis.quality.distances import extract_features
from dgu.core import chunks
from dgu.core.errors import InputError
from dgu.core.parallel import data_mesh
from dgu.samplers import karras_sigmas, sample
from dgu.samplers.from_noise import sample_from
from dgu.samplers.trajectories import batches
from dgu.training.loop import TrainingConfig, check_batch

HUGE = 2**31 - 1
IMAGES = np.ones((6, 8, 8, 1), np.float32)


IDENTITY = jax.tree_util.Partial(lambda x, sigma: x)


CALLS = {
    "sample": lambda: sample(IDENTITY, jax.random.key(0), [0], karras_sigmas(2), shape=(8, 8, 1), batch_size=HUGE),
    "sample_from": lambda: sample_from(IDENTITY, jax.random.key(0), IMAGES, karras_sigmas(2), batch_size=HUGE),
    "batches": lambda: batches(np.arange(3), HUGE, (8, 8, 1)),
    "features": lambda: extract_features(IMAGES, lambda rows: rows, block_size=HUGE),
    "training": lambda: check_batch(TrainingConfig(batch_size=2**31 - 8), data_mesh(), (8, 8, 1)),
    "together": lambda: training.train_together(
        {},
        np.ones((2, 3, 64)),
        np.array([3, 3]),
        jax.random.split(jax.random.key(0), 2),
        training.TogetherConfig(batch_size=HUGE),
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_chunk_beyond_reason_is_refused_before_it_is_allocated(name):
    with pytest.raises(
        InputError, match=r"(batch|block)_size = 21474836\d\d: must be at most 32537631: rows of shape .*64|8, 8"
    ):
        CALLS[name]()


def test_the_largest_chunk_has_so_many_bytes():
    most = chunks.MOST_BYTES // (8 + 4 * 64)
    chunks.check_chunk("batch_size", most, (64,))
    with pytest.raises(InputError, match=f"batch_size = {most + 1}: must be at most {most}: rows of shape"):
        chunks.check_chunk("batch_size", most + 1, (64,))
    for wrong in (0, -1, 2.5, float("inf"), float("nan")):
        with pytest.raises(InputError, match="a whole number, 1 or more"):
            chunks.check_chunk("batch_size", wrong)
