"""Classes out of range, of another kind, masked or missing are refused at every door that takes them."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from dgu.analysis import denoising_loss, sample_from, trace_trajectories
from dgu.core.errors import InputError
from dgu.core.labels import checked_labels
from dgu.models import DiTConfig, EDMNetwork
from dgu.samplers import karras_sigmas, sample

KEY, GRID = jax.random.key(0), karras_sigmas(2)
NETWORK = EDMNetwork(DiTConfig(4, 1, 1, label_dim=10, patch=2, width=8, depth=1, heads=2))
SHAPE = NETWORK.shape
RANGE = r"0\.\.9"


@pytest.fixture(scope="module")
def denoiser():
    return NETWORK.denoiser(NETWORK.init(KEY))


@pytest.fixture
def unchecked():
    """Without the type checks that only tests have: the refusals are what users meet."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


DOORS = {
    "sample": lambda denoiser, label: sample(denoiser, KEY, [0], GRID, shape=SHAPE, labels=label),
    "sample_from": lambda denoiser, label: sample_from(
        denoiser, KEY, np.ones((1, *SHAPE), np.float32), GRID, label=label[0]
    ),
    "trace_trajectories": lambda denoiser, label: trace_trajectories(
        denoiser, KEY, [0], GRID, shape=SHAPE, labels=label
    ),
    "denoising_loss": lambda denoiser, label: denoising_loss(
        denoiser, np.ones((1, *SHAPE), np.float32), KEY, labels=label
    ),
}


@pytest.mark.parametrize("door", DOORS)
def test_no_door_takes_a_class_that_is_not_there(door, denoiser):
    outside = (
        [10],
        [-1],
        [999],
        [2**32 + 3],
        [2**63 - 1],
        np.array([2**64 - 1], np.uint64),
        np.array([2**32 + 3], np.uint64),
    )
    for wrong in outside:
        with pytest.raises(InputError, match=rf"^labels = \[-?\d+\]: must be class indices in {RANGE}$"):
            DOORS[door](denoiser, wrong)
    with pytest.raises(InputError, match=r"^labels = 'vectors of zeros among them'.* no image without"):
        DOORS[door](denoiser, np.zeros((1, 10), np.float32))
    with pytest.raises(InputError, match=r"^labels = 'vectors of zeros among them'"):
        checked_labels(denoiser, np.full((1, 10), 1e-46), 1)
    with pytest.raises(InputError, match=r"^labels = .*must be finite"):
        DOORS[door](denoiser, np.full((1, 10), np.nan, np.float32))
    with pytest.raises(InputError, match=r"^labels.shape = \(1, 9\)"):
        DOORS[door](denoiser, np.ones((1, 9), np.float32))


def test_masks_are_not_lost(denoiser):
    with pytest.raises(InputError, match=r"^labels: is a masked array"):
        sample(denoiser, KEY, [0], GRID, shape=SHAPE, labels=np.ma.array([3], mask=[True]))
    with pytest.raises(InputError, match=r"^indices: is a masked array"):
        sample(denoiser, KEY, np.ma.array([0], mask=[True]), GRID, shape=SHAPE, labels=[3])
    with pytest.raises(InputError, match=r"^label: is a masked array"):
        denoiser.given(np.ma.array([0.0] * 10, mask=True))


@pytest.mark.parametrize(
    "wrong",
    [10, -1, 2**40, 2**70, np.uint64(2**32 + 3), np.int64(2**32 + 3), True, 3.0, 3 + 0j, "a", [3], np.array([3, 4]), np.eye(10), np.eye(10)[3] > 0,
     np.full(10, np.nan)],
)  # fmt: skip
def test_given_says_which_classes_there_are(wrong, denoiser, unchecked):
    with pytest.raises(
        InputError, match=rf"^label = .*: must be a class index in {RANGE}, or a vector of 10 entries"
    ) as error:
        denoiser.given(wrong)
    assert "\n" not in str(error.value)


def test_every_spelling_of_a_class_is_the_same_class(denoiser, unchecked):
    for spelled in (3, np.uint64(3), np.int8(3), jnp.uint8(3)):
        label = denoiser.given(spelled).label
        assert label == 3 and label.dtype == jnp.int32 and label.shape == ()
    for spelled in (np.eye(10)[3], np.eye(10, dtype=int)[3], np.eye(10)[3].astype(">f4"), jnp.eye(10)[3]):
        np.testing.assert_array_equal(denoiser.given(spelled).label, np.eye(10)[3])
    for zeros in (np.zeros(10), np.full(10, 1e-46), jnp.zeros(10)):
        with pytest.raises(InputError, match=r"^label = 'a vector of zeros': .* no image without one"):
            denoiser.given(zeros)
    assert not denoiser.given(None).given(np.zeros(10)).label.any()  # The zero vector was asked for.
    kept = jax.vmap(lambda label: denoiser.given(label).label)(jnp.arange(4))
    np.testing.assert_array_equal(kept, np.arange(4))
    np.testing.assert_array_equal(checked_labels(denoiser, np.array([9, 0], np.uint64), 2), [9, 0])
