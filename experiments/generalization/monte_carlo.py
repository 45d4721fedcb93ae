"""Lemma 6: the error of a Monte Carlo estimate of the random-feature model with infinitely many features."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dgu.core.keys import stream
from dgu.core.typing import Key
from dgu.distributions import draw_examples
from dgu.models import RandomFeatures
from experiments.generalization.subject import SDE, Arm

#: Numbers of random features; pairs of estimates of each, and noisy examples at which they are compared.
FEATURES, PAIRS, POINTS = (16, 64, 256, 1024), 32, 200


def errors(arm: Arm, seeds: int, reach: float, key: Key) -> dict[str, np.ndarray]:
    """``error`` (numbers of features, seeds): the mean squared error of the estimate with m features

        s_m(x, t) = (1 / m) sum_i a(w_i, u_i) relu(w_i x + u_i e(t)),      a(w, u) = -sign(w),

    of its limit, over noisy examples and times of the process. The limit is not needed: of two independent estimates
    the mean squared difference is twice the error.
    """
    found = np.empty((len(FEATURES), seeds))
    for seed in range(seeds):
        own = stream(key, seed)
        times = jax.random.uniform(stream(own, "times"), (POINTS,), minval=arm.t, maxval=1.0)
        noise = jax.random.normal(stream(own, "noise"), (POINTS,))
        rows = jnp.ravel(draw_examples(arm.target, stream(own, "data"), POINTS)) + SDE.std(times) * noise
        for place, m in enumerate(FEATURES):
            keys = jax.random.split(stream(own, "features", m), 2 * PAIRS)
            first, second = jnp.split(_estimates(keys, rows, times, m=m, reach=reach), 2)
            found[place, seed] = float(jnp.mean(jnp.square(first - second))) / 2
    return {"error": found}


@partial(jax.jit, static_argnames=("m", "reach"))
def _estimates(keys: Key, rows: Array, times: Array, *, m: int, reach: float) -> Array:
    """An estimate for each key, (keys, examples)."""

    def one(key: Key) -> Array:
        features = RandomFeatures.draw(key, m, reach=reach)
        weights = -jnp.sign(features.inner[:, 0]) / jnp.sqrt(m)
        return jax.vmap(lambda x, t: jnp.dot(weights, features(x[None], t)))(rows, times)

    return jax.lax.map(one, keys)
