"""Denoisers that the sampler tests share: a labelled mixture of Gaussians, and its plain NumPy twin."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Mixture:
    """Exact posterior mean of sum_k softmax(logits)_k N(means_k, variances_k I), means ``(K, d)``."""

    logits: Any
    means: Any
    variances: Any

    def given(self, label):
        """An integer raises the component's weight; a vector is added to the logits."""
        label = jnp.asarray(label)
        raised = 4.0 * jax.nn.one_hot(label, self.logits.shape[0]) if label.ndim == 0 else label
        return replace(self, logits=self.logits + raised.astype(self.logits.dtype))

    def __call__(self, x, sigma):
        centred = x.ravel()[None] - self.means
        total = self.variances + sigma**2
        size = x.size
        log_weights = self.logits - 0.5 * size * jnp.log(total) - 0.5 * jnp.square(centred).sum(1) / total
        means = self.means + (self.variances / total)[:, None] * centred
        return jnp.einsum("k,kd->d", jax.nn.softmax(log_weights), means, precision="highest").reshape(x.shape)


def numpy_mixture(mixture, x, sigma):
    """The same posterior mean as a loop over components, in NumPy."""
    log_weights, means = [], []
    for logit, mean, variance in zip(*(np.asarray(leaf) for leaf in jax.tree.leaves(mixture))):
        total = variance + sigma**2
        log_weights.append(logit - x.size / 2 * np.log(total) - ((x.ravel() - mean) ** 2).sum() / (2 * total))
        means.append(mean + variance / total * (x.ravel() - mean))
    weights = np.exp(np.array(log_weights) - max(log_weights))
    return (sum(w * m for w, m in zip(weights, means)) / weights.sum()).reshape(x.shape)


def make_mixture(size, dtype, components=3, seed=0):
    rng = np.random.default_rng(seed)
    leaves = (
        rng.standard_normal(components),
        2 * rng.standard_normal((components, size)),
        rng.uniform(0.05, 0.5, components),
    )
    return Mixture(*(jnp.asarray(leaf, dtype) for leaf in leaves))


@pytest.fixture(scope="session")
def mixtures():
    """``make(size, dtype)`` and the NumPy twin."""
    return make_mixture, numpy_mixture
