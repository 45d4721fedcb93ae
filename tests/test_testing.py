"""The contract of a denoiser: each planted defect is caught and named."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.core.errors import InputError
from dgu.testing import DenoiserCheckError, check_denoiser
from tests.checked_denoisers import KEY, defects


def test_plain_function_passes_and_is_checked():
    report = check_denoiser(lambda x, sigma: x / (1 + sigma**2), (3,), KEY)
    assert report.shape == (3,) and report.eager_jit < 1e-6 and report.batch_coupling == 0.0


def coupled_rule():
    """A custom_vmap that takes the mean of its batch off, as a batch norm in training mode does."""

    @jax.custom_batching.custom_vmap
    def centred(x):
        return x

    @centred.def_vmap
    def _(axis_size, in_batched, x):
        return x - 0.01 * x.mean(axis=0, keepdims=True), True

    return lambda x, sigma: centred(x) / (1 + sigma**2)


def coupled_to_neighbour(step):
    """Each example takes a little of the one before it (step 1) or after it (-1); one end takes nothing."""

    @jax.custom_batching.custom_vmap
    def mixed(x):
        return x

    @mixed.def_vmap
    def _(axis_size, in_batched, x):
        edge = 0 if step == 1 else -1
        return x + 0.01 * jnp.roll(x, step, axis=0).at[edge].set(0), True

    return lambda x, sigma: mixed(x) / (1 + sigma**2)


def coupled_callback(x, sigma):
    def host(x):
        return np.asarray(x - 0.01 * x.mean(axis=0, keepdims=True) if x.ndim > 1 else x, np.float32)

    out = jax.pure_callback(host, jax.ShapeDtypeStruct(x.shape, x.dtype), x, vmap_method="expand_dims")
    return out / (1 + sigma**2)


def coupled_if_axis(x, sigma):
    """Couples only where the batch axis is bound: alone it is the identity."""
    try:
        return (x - 0.01 * jax.lax.pmean(x, "batch")) / (1 + sigma**2)
    except NameError:
        return x / (1 + sigma**2)


COUPLED = {
    "rule": coupled_rule(),
    "before": coupled_to_neighbour(1),
    "after": coupled_to_neighbour(-1),
    "callback": coupled_callback,
    "axis": coupled_if_axis,
}


@pytest.mark.parametrize("denoiser", COUPLED.values(), ids=COUPLED.keys())
def test_batch_coupled_is_caught(denoiser):
    assert {"vmap_loop", "batch_coupling"} <= defects(check_denoiser, denoiser, (3,), KEY)


def test_collective_over_the_batch_is_caught():
    assert defects(check_denoiser, lambda x, s: x - jax.lax.pmean(x, "examples"), (3,), KEY) == {"batch_coupling"}


def noise_of_constant_key(x, sigma):
    return x / (1 + sigma**2) + 0.1 * jax.random.normal(jax.random.key(0), x.shape, x.dtype)


@jax.tree_util.register_dataclass
@dataclass
class KeepsKey:
    key: jax.Array

    def __call__(self, x, sigma):
        return x / (1 + sigma**2) + 0.1 * jax.random.bernoulli(self.key, 0.5, x.shape)


@pytest.mark.parametrize("denoiser", [noise_of_constant_key, KeepsKey(jax.random.key(1))], ids=["constant", "kept"])
def test_key_reusing_is_caught(denoiser):
    assert defects(check_denoiser, denoiser, (3,), KEY) == {"random_draws"}


def test_advancing_key_is_caught():
    state = [jax.random.key(0)]

    def advancing(x, sigma):
        with jax.ensure_compile_time_eval():
            state[0], now = jax.random.split(state[0])
            noise = jax.random.normal(now, x.shape, x.dtype)
        return x / (1 + sigma**2) + 1e-6 * noise

    assert "repeat" in defects(check_denoiser, advancing, (3,), KEY)


def test_sampler_that_reuses_its_key_is_caught():
    def one_key_for_all(denoiser, key, indices):
        x = 80 * jax.random.normal(key, (3,))
        return np.stack([denoiser(x, 1.0) for _ in indices])

    denoiser = lambda x, sigma: x / (1 + sigma**2)  # noqa: E731
    assert defects(check_denoiser, denoiser, (3,), KEY, sampler=one_key_for_all) == {"equal_samples"}


def test_sampler_that_consumes_its_key_by_position_is_caught():
    def by_position(denoiser, key, indices):
        return jax.vmap(denoiser, (0, None))(80 * jax.random.normal(key, (len(indices), 3)), 1.0)

    denoiser = lambda x, sigma: x / (1 + sigma**2)  # noqa: E731
    assert defects(check_denoiser, denoiser, (3,), KEY, sampler=by_position) == {"sample_coupling"}


@jax.tree_util.register_pytree_node_class
class Recompiles:
    """A static field that counts the calls."""

    def __init__(self):
        self.count = 0

    def __call__(self, x, sigma):
        return x / (1 + sigma**2)

    def tree_flatten(self):
        self.count += 1
        return (), self.count

    @classmethod
    def tree_unflatten(cls, static, leaves):
        self = object.__new__(cls)
        self.count = static
        return self


def test_recompiling_is_caught():
    assert defects(check_denoiser, Recompiles(), (3,), KEY) == {"traces"}


@jax.tree_util.register_dataclass
@dataclass
class Labelled:
    offset: jax.Array
    label: jax.Array | int = 0
    normalised: bool = field(default=True, metadata={"static": True})

    def given(self, label):
        return Labelled(self.offset, jnp.asarray(label, jnp.int32) if self.normalised else label, self.normalised)

    def __call__(self, x, sigma):
        return (x + self.offset[self.label]) / (1 + sigma**2)


def test_labels_that_do_not_share_a_trace_are_caught():
    offsets = jnp.arange(4.0)
    assert check_denoiser(Labelled(offsets), (3,), KEY, label=2).traces == 1
    assert defects(check_denoiser, Labelled(offsets, normalised=False), (3,), KEY, label=2) == {"traces"}


def test_python_branch_on_a_value_is_caught():
    assert defects(check_denoiser, lambda x, s: x if s > 1 else x / 2, (3,), KEY) == {"eager_jit"}


def test_value_captured_when_traced_is_caught():
    calls = []

    def captured(x, sigma):
        calls.append(1)
        return x * (1 + len(calls) // 9)

    assert "eager_jit" in defects(check_denoiser, captured, (3,), KEY)


@pytest.mark.parametrize(
    ("name", "denoiser"),
    [
        ("non_finite", lambda x, s: x / jnp.maximum(s - 0.01, 0.0)),
        ("dtype", lambda x, s: (x / (1 + s**2)).astype(jnp.float16)),
        ("shape", lambda x, s: x[None] / (1 + s**2)),
        ("call", lambda x, s: (x, s)),
        ("call", lambda x: x),
    ],
)
def test_unusable_output_is_caught(name, denoiser):
    assert defects(check_denoiser, denoiser, (3,), KEY) == {name}


def test_non_finite_names_the_levels():
    with pytest.raises(DenoiserCheckError, match=r"non_finite: NaN or infinity at sigma = 0.002, 80") as caught:
        check_denoiser(lambda x, s: jnp.where((s > 0.01) & (s < 50), x, jnp.nan), (3,), KEY)
    assert caught.value.report.non_finite == (0.002, 80.0)


def test_checks_repeat_without_counting_traces_of_earlier_checks():
    for _ in range(3):
        assert check_denoiser(lambda x, s: x / (1 + s**2), (3,), KEY).traces == 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"shape": ()}, "shape = "),
        ({"sigmas": (0.0, 1.0)}, "sigmas = "),
        ({"dtype": jnp.int32}, "dtype = "),
        ({"dtype": jnp.float64}, "dtype = "),
        ({"max_traces": 0}, "max_traces = "),
        ({"label": 1}, "label = "),
    ],
)
def test_bad_arguments(options, text):
    arguments = {"shape": (3,), **options}
    with pytest.raises(InputError, match=text):
        check_denoiser(lambda x, s: x, arguments.pop("shape"), KEY, **arguments)
