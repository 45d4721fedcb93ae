"""PyTorch modules in JAX beside their twins written in JAX; skipped where PyTorch is absent."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dgu
from dgu.core.errors import InputError
from dgu.models import torch_network
from dgu.samplers import heun, karras_sigmas

torch = pytest.importorskip("torch")
#: PyTorch warns of itself when it is first asked for a derivative.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
ROOT = Path(__file__).parents[2]
SHAPE, KEY = (4, 4, 2), jax.random.key(0)


class Small(torch.nn.Module):
    """Attention over pixels, one hidden layer with time and label, and dropout, which evaluation switches off."""

    def __init__(self):
        super().__init__()
        self.qkv, self.hidden, self.out = torch.nn.Linear(2, 6), torch.nn.Linear(2, 5), torch.nn.Linear(5, 2)
        self.classes, self.dropout = torch.nn.Embedding(3, 5), torch.nn.Dropout(0.5)
        self.calls = []

    def forward(self, x, t, label=None):
        self.calls.append(len(x))
        batch, channels, height, width = x.shape
        flat = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(flat).chunk(3, -1)
        mixed = flat + torch.nn.functional.scaled_dot_product_attention(q, k, v)
        inside = self.hidden(mixed) + torch.log(t)[:, None, None]
        inside = inside if label is None else inside + self.classes(label)[:, None]
        out = self.out(self.dropout(torch.tanh(inside)))
        return out.transpose(1, 2).reshape(batch, channels, height, width)


def twin(weights, x, t, label=None):
    flat = x.reshape(-1, 2)

    def linear(name, values):
        return values @ weights[f"{name}.weight"].T + weights[f"{name}.bias"][None]

    q, k, v = jnp.split(linear("qkv", flat), 3, -1)
    mixed = flat + jax.nn.softmax(q @ k.T / np.sqrt(2), axis=-1) @ v
    inside = linear("hidden", mixed) + jnp.log(t)
    inside = inside if label is None else inside + weights["classes.weight"][label][None]
    return linear("out", jnp.tanh(inside)).reshape(x.shape)


@pytest.fixture(scope="module")
def pair():
    torch.manual_seed(0)
    module = Small()
    weights = {name: jnp.asarray(value.detach().numpy()) for name, value in module.named_parameters()}
    return module, torch_network(module), weights


def close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_values_and_first_derivatives_are_those_of_the_twin(pair):
    _, network, weights = pair
    x, t = jax.random.normal(KEY, (3, *SHAPE)), jnp.asarray([0.5, 1.0, 2.0])
    labels, v = jnp.asarray([0, 2, 1]), jax.random.normal(jax.random.key(1), (3, *SHAPE))

    def measures(call):
        def one(x, t, label, v):
            value, along = jax.jvp(lambda x, t: call(x, t, label), (x, t), (v, jnp.ones_like(t)))
            pulled = jax.vjp(lambda x, t: call(x, t, label), x, t)[1](v)
            forwards, backwards = (jac(lambda x: call(x, t, label))(x) for jac in (jax.jacfwd, jax.jacrev))
            return value, along, pulled, forwards, backwards

        return jax.jit(jax.vmap(one))(x, t, labels, v)

    jax.tree.map(close, measures(network), measures(lambda *each: twin(weights, *each)))


def test_outside_of_jit_and_in_double_precision(pair, x64):
    _, network, weights = pair
    x = jax.random.normal(KEY, SHAPE, jnp.float64)
    found = network(x, 0.5)
    assert found.dtype == jnp.float64
    close(found, twin(weights, x, 0.5))
    close(jax.grad(lambda x: network(x, 0.5).sum())(x), jax.grad(lambda x: twin(weights, x, 0.5).sum())(x))


def test_a_batch_and_a_jacobian_are_one_call_each(pair):
    module, network, _ = pair
    x = jax.random.normal(KEY, (5, *SHAPE))
    mapped = jax.jit(jax.vmap(lambda x: network(x, 1.0)))
    jacobian = jax.jit(jax.jacfwd(lambda x: network(x, 1.0)))
    for run, given, count in ((mapped, x, 5), (jacobian, x[0], 32)):
        run(given).block_until_ready()
        module.calls.clear()
        run(given).block_until_ready()
        assert module.calls == [count]


def test_the_gradient_of_a_scan(pair):
    _, network, weights = pair
    x = jax.random.normal(KEY, SHAPE)

    def loss(call):
        def step(x, t):
            return x - 0.1 * call(x, t), None

        return jax.jit(jax.grad(lambda x: jnp.square(jax.lax.scan(step, x, jnp.linspace(1.0, 2.0, 5))[0]).sum()))

    close(loss(network)(x), loss(lambda x, t: twin(weights, x, t))(x))


def test_parameters_may_change_between_calls(pair):
    module, network, _ = pair
    call, x = jax.jit(lambda x: network(x, 1.0)), jax.random.normal(KEY, SHAPE)
    before = call(x)
    with torch.no_grad():
        module.out.bias += 1
    close(call(x), before + 1)
    with torch.no_grad():
        module.out.bias -= 1


def test_a_module_through_the_door_is_sampled_and_has_a_likelihood(pair):
    module, _, weights = pair
    bridged = dgu.denoiser(module, predicts="epsilon")
    native = dgu.denoiser(lambda x, t: twin(weights, x, t), predicts="epsilon")
    sigmas, x = karras_sigmas(4, 0.05, 5.0), 5 * jax.random.normal(KEY, SHAPE)
    found, expected = (heun(each, x, jnp.asarray(sigmas, jnp.float32)) for each in (bridged, native))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    traces = [jnp.trace(jax.jacfwd(each)(x, jnp.asarray(1.0)).reshape(32, 32)) for each in (bridged, native)]
    np.testing.assert_allclose(*traces, rtol=1e-5)
    with pytest.raises(InputError, match="left out for a PyTorch module"):
        dgu.denoiser(module, batched=True)


class Tuple(torch.nn.Module):
    def forward(self, x, t):
        return x, t


class Failing(torch.nn.Module):
    def forward(self, x, t):
        return x @ torch.ones(7, 7)


@pytest.mark.parametrize(
    ("module", "line"),
    [(Tuple, "returns a tuple for a batch of one; must return one tensor"), (Failing, "module: must take tensors of")],
)
def test_modules_that_are_no_networks_are_refused_in_one_line(module, line):
    with pytest.raises(InputError, match=line) as caught:
        jax.jit(torch_network(module()))(jnp.ones(SHAPE), 1.0)
    assert "\n" not in str(caught.value)


def test_what_is_no_module_and_second_derivatives_are_refused(pair):
    with pytest.raises(InputError, match=r"module = 'function': must be a torch\.nn\.Module"):
        torch_network(lambda x, t: x)
    with pytest.raises(InputError, match="no second derivatives"):
        jax.jvp(jax.grad(lambda x: pair[1](x, 1.0).sum()), (jnp.ones(SHAPE),), (jnp.ones(SHAPE),))


MANY = """
import jax, jax.numpy as jnp, numpy as np, torch
jax.config.update("jax_num_cpu_devices", 8)
from jax.sharding import NamedSharding, PartitionSpec
from dgu.models import torch_network

class Wide(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(4, 4, 3, padding=1)
    def forward(self, x, t):
        return self.conv(x)

network = torch_network(Wide())
mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
x = jax.random.normal(jax.random.key(0), (16, 32, 32, 4))
alone = jax.jit(jax.vmap(lambda x: network(x, 1.0)))(x)
spread = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))

def chain(x):
    return jax.lax.scan(lambda x, _: (jax.vmap(lambda x: network(x, 1.0))(x), None), x, None, length=25)[0]

each = jax.jit(jax.shard_map(chain, mesh=mesh, in_specs=PartitionSpec("data"), out_specs=PartitionSpec("data"), check_vma=False))
whole = jax.jit(jax.vmap(lambda x: network(x, 1.0)))
expected = np.asarray(chain(x))
np.testing.assert_allclose(each(spread), expected, rtol=1e-5, atol=1e-6)
for _ in range(8):
    np.testing.assert_allclose(whole(spread), alone, rtol=1e-5, atol=1e-6)
print("done", 25 * 8 + 8)
"""


def test_two_hundred_calls_on_eight_devices_do_not_wait_for_each_other():
    """A chain of 25 calls on each of eight devices at once, and eight calls of an array that lies on all of them."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", MANY], env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    assert not done.returncode and done.stdout.split() == ["done", "208"], done.stderr[-2000:]
