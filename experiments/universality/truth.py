"""The Gaussian mixture fitted to all images: the truth of the positive control, of which the picture shows samples."""

import jax
import jax.numpy as jnp
import numpy as np

from dgu.core.keys import seeded, stream
from dgu.core.typing import Key
from dgu.distributions.class_gaussians import GaussianRoot, class_key, draw_gaussian, fit_gaussian

_fit = jax.jit(jax.vmap(fit_gaussian))
_draw = jax.jit(jax.vmap(draw_gaussian, in_axes=(0, 0, None)))


def truth_key(seed: int, number: int) -> Key:
    """The random key of replicate ``number`` of the positive control."""
    return stream(stream(seeded(seed), "control-positive"), number)


def fit_truth(rows: np.ndarray) -> GaussianRoot:
    """A Gaussian for each class of ``rows`` (K, P, d)."""
    return _fit(jnp.asarray(rows))


def draw_truth(truth: GaussianRoot, key: Key, count: int) -> np.ndarray:
    """``count`` samples of each class, (K, count, d)."""
    keys = jnp.stack([class_key(key, label) for label in range(len(truth.mean))])
    return np.asarray(_draw(truth, keys, jnp.arange(count)))
