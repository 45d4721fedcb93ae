"""Every kind of model goes through every function: a table of functions and models, all cells of which give the numbers
of the closed form that the models compute.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import dgu
from dgu import analysis, samplers
from dgu.core.denoisers import as_pytree
from dgu.core.errors import InputError
from dgu.models import DiscreteSchedule, FlowSchedule
from dgu.testing import check_denoiser

KEY = jax.random.key(7)
SHAPE = (2, 2, 1)
#: The Gaussian of variance SCALE^2, whose posterior mean all the models compute.
SCALE = 0.7
SIGMAS = samplers.karras_sigmas(3, 0.1, 10.0)
IMAGES = np.asarray(SCALE * np.random.default_rng(0).normal(size=(6, *SHAPE)), np.float32)
DISCRETE = DiscreteSchedule.linear(1000)


def shrink(scale, x, sigma):
    return scale**2 / (scale**2 + jnp.asarray(sigma, x.dtype) ** 2) * x


# --- the kinds of model -----------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Plain:
    """A callable that JAX knows nothing of, with an array in it."""

    scale: Any

    def __call__(self, x, sigma):
        return shrink(self.scale, x, sigma)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Registered:
    scale: Any

    def __call__(self, x, sigma):
        return shrink(self.scale, x, sigma)


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x, sigma):
        return shrink(self.param("scale", lambda key: jnp.asarray(SCALE)), x, sigma)


class NNX(nnx.Module):
    def __init__(self):
        self.scale = nnx.Param(jnp.asarray(SCALE))
        self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(0))

    def __call__(self, x, sigma):
        return shrink(self.scale[...], self.dropout(x), sigma)


@jax.tree_util.register_pytree_node_class
class WithActivation:
    """As an Equinox module: a pytree whose leaves are arrays, an activation function, a flag and a number."""

    def __init__(self, scale, activation, flag, factor):
        self.parts = (scale, activation, flag, factor)

    def tree_flatten(self):
        return self.parts, None

    @classmethod
    def tree_unflatten(cls, _, parts):
        return cls(*parts)

    def __call__(self, x, sigma):
        scale, activation, flag, factor = self.parts
        return activation(shrink(scale, factor * x, sigma)) if flag else jnp.zeros_like(x)


def epsilon(scale, z, t):
    """The noise that a perfect network sees in ``z = a (x0 + sigma eps)`` at time t of the discrete schedule."""
    abar = jnp.exp(jnp.interp(t, jnp.arange(1000.0), jnp.asarray(np.log(DISCRETE.alphas_cumprod))))
    return jnp.sqrt(1 - abar) * z / (abar * scale**2 + 1 - abar)


def velocity_v(scale, z, t):
    abar = jnp.exp(jnp.interp(t, jnp.arange(1000.0), jnp.asarray(np.log(DISCRETE.alphas_cumprod))))
    eps = epsilon(scale, z, t)
    return (eps - jnp.sqrt(1 - abar) * z) / jnp.sqrt(abar)  # v = a eps - s x0 with z = a x0 + s eps


def velocity(scale, z, t):
    """``eps - x0`` of the straight path."""
    return (t - (1 - t) * scale**2) * z / ((1 - t) ** 2 * scale**2 + t**2)


MODELS = {
    "closure": lambda: lambda x, sigma: shrink(SCALE, x, sigma),
    "functools.partial": lambda: functools.partial(shrink, jnp.asarray(SCALE)),
    "Partial": lambda: jax.tree_util.Partial(shrink, jnp.asarray(SCALE)),
    "plain object": lambda: Plain(jnp.asarray(SCALE)),
    "dataclass": lambda: Registered(jnp.asarray(SCALE)),
    "linen": lambda: dgu.denoiser(Linen(), Linen().init(KEY, jnp.zeros(SHAPE), 1.0)),
    "nnx": lambda: dgu.denoiser(NNX()),
    "activation leaf": lambda: WithActivation(jnp.asarray(SCALE), lambda x: x, True, 1.0),
    "batched": lambda: dgu.denoiser(
        lambda x, sigma: jnp.einsum("bhwc,b->bhwc", x, SCALE**2 / (SCALE**2 + sigma**2)), batched=True
    ),
    "epsilon, discrete": lambda: dgu.denoiser(epsilon, jnp.asarray(SCALE), predicts="epsilon", schedule=DISCRETE),
    "v, discrete": lambda: dgu.denoiser(velocity_v, jnp.asarray(SCALE), predicts="v", schedule=DISCRETE),
    "flow": lambda: dgu.denoiser(velocity, jnp.asarray(SCALE), predicts="velocity"),
    "channels first": lambda: dgu.denoiser(
        lambda z, sigma: shrink(SCALE, z, sigma) if z.shape == (1, 2, 2) else 1 / 0, channels_first=True
    ),
}

FUNCTIONS = {
    "sample": lambda d: samplers.sample(d, KEY, range(3), SIGMAS, shape=SHAPE, batch_size=3),
    "sample_from": lambda d: samplers.sample_from(d, KEY, 10 * IMAGES, SIGMAS, batch_size=6),
    "heun": lambda d: samplers.heun(d, 10 * jnp.asarray(IMAGES[0]), SIGMAS),
    "ablation": lambda d: samplers.Ablation()(d, 10 * jnp.asarray(IMAGES[0]), SIGMAS),
    "dpm-solver": lambda d: samplers.sample(
        d, KEY, range(3), SIGMAS, shape=SHAPE, batch_size=3, solver=samplers.DPMSolver()
    ),
    "invert": lambda d: samplers.invert(d, jnp.asarray(IMAGES[0]), SIGMAS),
    "log_likelihood": lambda d: samplers.log_likelihood(
        d, jnp.asarray(IMAGES[0]), sigma_min=0.1, sigma_max=50.0, rtol=1e-3, atol=1e-3
    )[0],
    "trace_trajectories": lambda d: samplers.trace_trajectories(d, KEY, range(2), SIGMAS, shape=SHAPE).samples,
    "singular_triplets": lambda d: analysis.singular_triplets(d, IMAGES[:2], np.array([0.5, 2.0]), 2, KEY).values,
    "linearity": lambda d: analysis.linearity(d, IMAGES, np.array([0.5, 2.0]), KEY).scores,
    "level_losses": lambda d: analysis.level_losses(d, IMAGES, KEY, sigmas=np.array([0.5, 2.0])),
    "denoising_loss": lambda d: analysis.denoising_loss(d, IMAGES, KEY, sigmas=(0.5, 2.0)),
    "score_distances": lambda d: analysis.score_distances(
        {"a": d, "b": Registered(jnp.asarray(0.9))}, IMAGES, np.array([0.5, 2.0]), KEY
    ),
    "local_dimension": lambda d: analysis.local_dimension(d, IMAGES[:2], KEY, sigmas=np.array([0.5, 2.0])),
}


def numbers(result):
    if dataclasses.is_dataclass(result):
        result = [getattr(result, field.name) for field in dataclasses.fields(result)]
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(result) if not isinstance(leaf, str)]


@functools.cache
def expected(function):
    return numbers(FUNCTIONS[function](Registered(jnp.asarray(SCALE, jnp.float32))))


@pytest.mark.parametrize("model", MODELS)
def test_every_function_takes_every_kind_of_model_and_finds_the_same_numbers(model):
    denoiser = MODELS[model]()
    for name, function in FUNCTIONS.items():
        for found, wanted in zip(numbers(function(denoiser)), expected(name), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=5e-3, atol=2e-3, err_msg=name)
