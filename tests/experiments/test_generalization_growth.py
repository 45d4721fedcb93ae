"""Monte Carlo errors of random features, and exponents of the distance of the modes."""

import jax
import jax.numpy as jnp
import numpy as np

from dgu.models import RandomFeatures
from experiments.generalization import growth, monte_carlo, statistics
from experiments.generalization.subject import SDE, Options, Subject


def test_monte_carlo_errors_are_the_variance_of_a_feature_over_their_number():
    """Against the variance of single features, from many of them, at the same noisy examples."""
    near = Subject(Options(), None).near
    found = monte_carlo.errors(near, 3, 6.0, jax.random.key(1))["error"]
    assert found.shape == (len(monte_carlo.FEATURES), 3)
    scaled = found * np.array(monte_carlo.FEATURES)[:, None]
    assert scaled.max() / scaled.min() < 2.5
    features = RandomFeatures.draw(jax.random.key(2), 4000, reach=6.0)
    rng = np.random.default_rng(0)
    times = jnp.asarray(rng.uniform(near.t, 1.0, 300), jnp.float32)
    rows = 3.0 * rng.choice([-1, 1], 300) + rng.normal(size=300) + np.asarray(SDE.std(times)) * rng.normal(size=300)
    each = np.asarray(jax.vmap(features)(jnp.asarray(rows, jnp.float32)[:, None], times)) * np.sqrt(4000)
    each = -np.sign(np.asarray(features.inner)[:, 0]) * each
    np.testing.assert_allclose(scaled.mean(), np.var(each, axis=1).mean(), rtol=0.2)


def test_exponents_of_the_distance_leave_diverged_seeds_out():
    """Seeds with KL c mu^p have the exponents p; one that diverged at one distance does not count."""
    mus, powers = (1.0, 2.0, 5.0, 15.0), np.array([1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 9.0])
    level = 0.001 * np.asarray(mus)[:, None] ** powers
    level[:, -1] = [0.1, 0.2, statistics.WORST, 0.3]
    np.testing.assert_allclose(growth.exponents(mus, level), powers[:6])
    rows = growth.exponents_table(mus, {"sgd": level, "adam": level[:, -1:]}).rows
    assert rows[0][1:] == (2.25, 1.0, 3.5, 6) and rows[1][1:] == ("", "", "", 0)
    assert rows[2][1] == 2.0 and rows[2][4] == "exact"
