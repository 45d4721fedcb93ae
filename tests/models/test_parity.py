"""Complete recordings of the reference, where they are at hand: outputs, trajectories, losses and gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu import samplers
from dgu.models import edm_from_arrays
from dgu.models.weights import params_to_arrays
from dgu.training import edm_loss
from tests import parity

FILES = ["adm_edm_multihead.npz", "ddpmpp_edm.npz", "ncsnpp_edm.npz"]


@pytest.fixture(params=FILES)
def recorded(request):
    return parity.complete(request.param)


def images(recorded, name, dtype=jnp.float64):
    return jnp.asarray(parity.nhwc(recorded[name]), dtype)


@jax.jit
def both(denoiser, x, sigma, labels):
    def one(x, sigma, label):
        c = denoiser.network.preconditioning.coefficients(sigma)
        raw = denoiser.network.raw(denoiser.params, c.inp * x, c.noise, label)
        return denoiser.given(label)(x, sigma), raw, denoiser(x, sigma)

    return jax.vmap(one)(x, sigma, labels)


@pytest.mark.parametrize(("dtype", "bound"), [(jnp.float64, 1e-9), (jnp.float32, 1e-4)])
def test_outputs(recorded, x64, dtype, bound):
    denoiser = edm_from_arrays(parity.config(recorded), parity.params(recorded))
    assert denoiser.network.parameter_count == parity.config(recorded)["num_params"]
    inputs = (images(recorded, "x", dtype), *(jnp.asarray(recorded[k], dtype) for k in ("sigma", "class_labels")))
    for got, name in zip(both(denoiser, *inputs), ("D64", "F64", "D64_nolabel")):
        assert parity.relative(parity.nchw(got), recorded[name]) < bound


@pytest.mark.parametrize("tag", ["heun8", "churn18"])
def test_trajectories(recorded, x64, tag):
    if f"{tag}:x64" not in recorded:
        pytest.skip("no trajectories in this recording")
    denoiser = edm_from_arrays(parity.config(recorded), parity.params(recorded))
    sigmas = recorded[f"{tag}:t_steps"]
    churned = tag == "churn18"
    churn = samplers.Churn(40, 0.05, 50, 1.003) if churned else samplers.Churn()
    eps = jnp.asarray(np.swapaxes(parity.nhwc(recorded[f"{tag}:noise"]), 0, 1), jnp.float64) if churned else None

    @jax.jit
    def run(denoiser, x, labels, eps):
        def one(x, label, eps):
            return samplers.heun(denoiser.given(label), x, sigmas, churn=churn, eps=eps, observe=lambda s: s.x_next)

        return jax.vmap(one)(x, labels, eps)

    labels = jnp.asarray(recorded["sampler:class_labels"], jnp.float64)
    _, states = run(denoiser, images(recorded, f"{tag}:latents") * sigmas[0], labels, eps)
    for i, expected in enumerate(recorded[f"{tag}:x64"][1:]):
        assert parity.relative(parity.nchw(states[:, i]), expected) < 1e-8


def test_losses_and_gradients(recorded, x64):
    denoiser = edm_from_arrays(parity.config(recorded), parity.params(recorded))
    rnd = jnp.asarray(recorded["loss:rnd"][:, 0, 0, 0], jnp.float64)
    labels = jnp.asarray(recorded["loss:class_labels"], jnp.float64)

    @partial(jax.jit, static_argnames="network")
    def gradients(params, network, y, rnd, noise, labels):
        def objective(params):
            losses = jax.vmap(partial(edm_loss, network, params))(y, rnd, noise, labels)
            return losses.sum() / len(y), losses

        return jax.grad(objective, has_aux=True)(params)

    tree, losses = gradients(
        parity.double(denoiser.params), denoiser.network, images(recorded, "loss:images"), rnd,
        images(recorded, "loss:noise"), labels,
    )  # fmt: skip
    assert parity.relative(parity.nchw(losses), recorded["loss:loss64"]) < 1e-8
    arrays = params_to_arrays(tree)
    names = [key for key in recorded if key.startswith("loss:grad64:")]
    assert len(names) > 100
    for key in names:
        flat = np.ravel(arrays[key.removeprefix("loss:grad64:")])
        first = np.zeros(16)
        first[: min(16, flat.size)] = flat[:16]
        got = np.concatenate([[np.linalg.norm(flat), flat.sum(), np.abs(flat).sum()], first])
        # The key third of an attention bias has no gradient: judge it against the whole tensor.
        assert np.abs(got - recorded[key]).max() <= 1e-8 * max(np.abs(recorded[key]).max(), 1e-300), key
