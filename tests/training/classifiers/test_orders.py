"""The order of the data in each epoch, and the learning rate of each."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dgu.analysis import Schedule
from dgu.training.classifiers.orders import epoch_order


def test_orders_are_uniform_and_addressed():
    trials, n = 2000, 4
    draw = jax.jit(jax.vmap(lambda s, e: epoch_order(s, e, jnp.ones(n, bool)), in_axes=(0, 0)))
    for seeds, epochs in ((np.arange(trials), np.zeros(trials, int)), (np.zeros(trials, int), np.arange(trials))):
        seen = np.asarray(draw(seeds, epochs))
        _, counts = np.unique(seen @ np.array([64, 16, 4, 1]), return_counts=True)
        # one seed's epochs share a first order, and all but a few of 2**14 values of the bits are distinct
        assert len(counts) == 24 and np.sum((counts - trials / 24) ** 2 / (trials / 24)) < 52  # chi2(23), p = 5e-4
    assert not np.array_equal(epoch_order(0, 0, np.ones(50, bool)), epoch_order(0, 1, np.ones(50, bool)))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), epoch=st.integers(0, 1000), count=st.integers(1, 20))
def test_orders_do_not_depend_on_padding(seed, epoch, count):
    short, long = np.arange(20) < count, np.arange(50) < count
    order = np.asarray(epoch_order(seed, epoch, short))
    assert sorted(order[:count]) == list(range(count)) and (order[count:] == -1).all()
    np.testing.assert_array_equal(np.asarray(epoch_order(seed, epoch, long))[:20], order)


def test_cosine_stays_down_after_its_period():
    rates = [float(Schedule("cosine", period=4, eta_min=0.1).rate(jnp.float32(1.0), t, 9)) for t in range(9)]
    np.testing.assert_allclose(rates[:4], 0.1 + 0.45 * (1 + np.cos(np.pi * np.arange(4) / 4)), rtol=1e-6)
    np.testing.assert_allclose(rates[4:], 0.1, rtol=1e-6)
