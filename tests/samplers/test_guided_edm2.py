"""Guided networks of EDM2 against recorded outputs and trajectories of the reference implementation."""

import json
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu import samplers
from dgu.models import edm2_from_arrays
from dgu.samplers import Guided
from tests import parity

RECORDED = parity.load("edm2_guided.npz")


@pytest.fixture(scope="module", autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@cache
def network(prefix):
    """The main network, the ``guide:`` with the same classes, or the ``free:`` one without any."""
    config = parity.config(RECORDED)
    arrays = {
        name.removeprefix(prefix): array for name, array in RECORDED.items() if name.startswith(f"{prefix}param:")
    }
    return edm2_from_arrays(config[prefix[:-1]] if prefix else config, parity.params(arrays))


def images(name):
    return jnp.asarray(parity.nhwc(RECORDED[name]), jnp.float64)


def vectors(name):
    return jnp.asarray(RECORDED[name], jnp.float64)


@partial(jax.jit, static_argnames="second_order")
def step(guided, x, labels, sigma, sigma_next, eps, gamma, s_noise, second_order):
    """A step of Heun's method, or of Euler's, for each of two images at noise levels of their own."""

    def one(x, label, sigma, eps):
        own, options = guided.given(label), {"eps": eps, "gamma": gamma, "s_noise": s_noise}
        return samplers.heun_step(own, x, sigma, sigma_next, **options, second_order=second_order)

    return jax.vmap(one)(x, labels, sigma, eps)


def denoised(guided, x, sigma, labels):
    """The guided output: where Euler's step to level 0 ends."""
    zero, one = jnp.zeros(()), jnp.ones(())
    return step(guided, x, labels, sigma, zero, jnp.zeros_like(x), zero, one, second_order=False)


def trajectory(guided, tag):
    """States after each step of a recorded run."""
    options, sigmas = json.loads(str(RECORDED[f"{tag}:kwargs"])), RECORDED[f"{tag}:t_steps"]
    np.testing.assert_allclose(samplers.karras_sigmas(options["num_steps"]), sigmas, rtol=1e-12)
    x, labels = images(f"{tag}:latents") * sigmas[0], vectors("sampler:class_labels")
    churn, noise = samplers.Churn(), jnp.zeros((options["num_steps"], *x.shape))
    if "S_churn" in options:
        churn = samplers.Churn(*(options[f"S_{name}"] for name in ("churn", "min", "max", "noise")))
        noise = images(f"{tag}:noise")
    gammas = churn.gamma(sigmas[:-1], options["num_steps"])
    for sigma, following, eps, gamma in zip(sigmas[:-1], sigmas[1:], noise, gammas, strict=True):
        after, gamma, s_noise = (jnp.asarray(each, jnp.float64) for each in (following, gamma, churn.s_noise))
        x = step(guided, x, labels, jnp.full(2, sigma), after, eps, gamma, s_noise, second_order=bool(following > 0))
        yield x


@pytest.mark.parametrize("guide", ["guide", "free"])
def test_guided_outputs_and_trajectories_are_those_of_the_reference(guide):
    expected, networks = RECORDED[f"guided:{guide}:D64"], (network(""), network(f"{guide}:"))
    x, sigma, labels = images("x"), vectors("sigma"), vectors("class_labels")
    for weight, recorded in zip(vectors("guided:weights"), expected, strict=True):
        guided = Guided(*networks, weight)
        for two in (slice(0, 2), slice(2, 4)):
            found = denoised(guided, x[two], sigma[two], labels[two])
            # At the lowest level D is nearly x, so each is looked at by itself.
            assert all(parity.relative(*pair) < 1e-12 for pair in zip(parity.nchw(found), recorded[two]))
    assert parity.relative(expected[0], expected[4]) > 1e-2  # The weight matters.

    tags = [tag for tag, name in parity.config(RECORDED)["tags"].items() if name == guide and f"{tag}:x64" in RECORDED]
    assert tags
    for tag in tags:
        weight = json.loads(str(RECORDED[f"{tag}:kwargs"]))["guidance"]
        states = list(trajectory(Guided(*networks, jnp.asarray(weight, jnp.float64)), tag))
        kept = (1, (len(states) + 1) // 2, len(states))
        for recorded, after in zip(RECORDED[f"{tag}:x64"][1:], kept, strict=True):
            assert parity.relative(parity.nchw(states[after - 1]), recorded) < 1e-8, (tag, after)
