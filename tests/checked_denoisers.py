"""Closed forms that must pass the checks of denoisers, and the names of the defects of those that must not."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.testing import DenoiserCheckError, check_posterior_mean

KEY = jax.random.key(3)
SIZE = 5
MEAN = np.linspace(-0.6, 0.8, SIZE)
ROTATION = np.linalg.qr(np.random.default_rng(0).normal(size=(SIZE, SIZE)))[0]
EIGENVALUES = np.array([2.0, 0.7, 0.3, 0.05, 0.0])  # one direction without variance


@jax.tree_util.register_dataclass
@dataclass
class Gaussian:
    """Exact posterior mean of N(mean, basis diag(eigenvalues) basis^T), with a factor that should be 1."""

    mean: jax.Array
    basis: jax.Array
    eigenvalues: jax.Array
    factor: float = 1.0

    def __call__(self, x, sigma):
        sigma = jnp.asarray(sigma, x.dtype)
        gain = self.eigenvalues / (self.eigenvalues + sigma**2)
        coordinates = jnp.matmul(x - self.mean, self.basis, precision="highest")
        return self.factor * (self.mean + jnp.matmul(self.basis, gain * coordinates, precision="highest"))

    def log_density(self, x, sigma):
        coordinates = jnp.matmul(x - self.mean, self.basis, precision="highest")
        return -jnp.sum(coordinates**2 / (self.eigenvalues + sigma**2)) / 2

    def draw(self, key):
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return self.mean + jnp.matmul(self.basis, jnp.sqrt(self.eigenvalues) * noise, precision="highest")


@jax.tree_util.register_dataclass
@dataclass
class Mixture:
    """Exact posterior mean of two isotropic Gaussians of variances 0.04 and 0.25 with weights 0.3 and 0.7."""

    means: jax.Array
    variances: jax.Array
    log_weights: jax.Array

    def _log_terms(self, x, sigma):
        total = self.variances + sigma**2
        squares = jnp.sum((x[None] - self.means) ** 2, axis=1)
        return self.log_weights - squares / (2 * total) - SIZE / 2 * jnp.log(total)

    def log_density(self, x, sigma):
        return jax.nn.logsumexp(self._log_terms(x, sigma))

    def __call__(self, x, sigma):
        sigma = jnp.asarray(sigma, x.dtype)
        weights = jax.nn.softmax(self._log_terms(x, sigma))
        gain = (self.variances / (self.variances + sigma**2))[:, None]
        return jnp.sum(weights[:, None] * (self.means + gain * (x[None] - self.means)), axis=0)

    def draw(self, key):
        component = jax.random.categorical(key, self.log_weights)
        noise = jax.random.normal(jax.random.fold_in(key, 1), self.means.shape[1:], self.means.dtype)
        return self.means[component] + jnp.sqrt(self.variances[component]) * noise


def gaussian(dtype=jnp.float32, factor=1.0):
    return Gaussian(jnp.asarray(MEAN, dtype), jnp.asarray(ROTATION, dtype), jnp.asarray(EIGENVALUES, dtype), factor)


def mixture(dtype=jnp.float32):
    means = jnp.asarray(np.stack([np.full(SIZE, -0.7), np.full(SIZE, 0.5)]), dtype)
    return Mixture(means, jnp.asarray([0.04, 0.25], dtype), jnp.log(jnp.asarray([0.3, 0.7], dtype)))


def defects(check, *args, **options):
    """The names of the defects of a denoiser that must fail."""
    with pytest.raises(DenoiserCheckError) as caught:
        check(*args, **options)
    for line in caught.value.report.defects:
        assert line in str(caught.value)
    return {line.split(":")[0] for line in caught.value.report.defects}


def full_check(truth, dtype, **options):
    given = {"log_density": truth.log_density, "sample_prior": truth.draw, "dtype": dtype}
    return check_posterior_mean(options.pop("denoiser", truth), (SIZE,), KEY, **{**given, **options})
