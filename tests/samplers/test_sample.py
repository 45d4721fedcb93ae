"""Many samples: the exact law for a Gaussian, and bits that depend on (key, index) alone."""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dgu.core import keys
from dgu.core.errors import InputError
from dgu.distributions.bases import initial_noise
from dgu.models import GaussianDenoiser
from dgu.samplers import Churn, heun, karras_sigmas, sample, sample_chunk
from dgu.samplers.sample import _pack

PAPER = Churn(40.0, 0.05, 50.0, 1.003)
SHAPE = (5, 7, 1)
GRID = karras_sigmas(6)
ONE = jax.devices()[:1]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Network:
    """A small residual convolutional network with one attention layer and a class embedding, as a denoiser."""

    first: Any
    second: Any
    attention: Any
    embedding: Any
    label: Any

    @classmethod
    def create(cls, width=6, classes=4):
        rng = np.random.default_rng(0)
        sizes = ((3, 3, 1, width), (3, 3, width, 1), (width, 3 * width), (classes, width))
        return cls(*(jnp.asarray(0.4 * rng.standard_normal(size), jnp.float32) for size in sizes), jnp.int32(0))

    def given(self, label):
        return Network(self.first, self.second, self.attention, self.embedding, label)

    def __call__(self, x, sigma):
        def convolve(h, kernel):
            return jax.lax.conv_general_dilated(
                h[None], kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )[0]

        h = convolve(x / jnp.sqrt(0.25 + sigma**2), self.first) + self.embedding[self.label][None, None]
        h = jax.nn.silu((h - h.mean()) / jnp.sqrt(h.var() + 1e-5))
        q, k, v = jnp.split((h.reshape(-1, h.shape[-1]) @ self.attention), 3, axis=1)
        h = h + (jax.nn.softmax(q @ k.T) @ v).reshape(h.shape)
        return 0.25 / (0.25 + sigma**2) * x + 0.5 * sigma / jnp.sqrt(0.25 + sigma**2) * convolve(h, self.second)


@pytest.fixture(scope="module")
def denoisers():
    from conftest import make_mixture  # the test directory's own

    images = np.random.default_rng(1).standard_normal((60, *SHAPE)).astype(np.float32)
    return {
        "matmul": GaussianDenoiser.fit(images),
        "mixture": make_mixture(math.prod(SHAPE), jnp.float32, components=4),
        "network": Network.create(),
    }


def draw(denoiser, indices, labels=None, **options):
    options = {"shape": SHAPE, "churn": PAPER, "batch_size": 5} | options
    return sample(denoiser, jax.random.key(0), indices, GRID, labels=labels, **options)


# Addressing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["matmul", pytest.param("mixture", marks=pytest.mark.slow), "network"])
def test_bits_depend_on_the_index_alone(denoisers, name):
    """Several devices, one device, subsets in other orders, the rest after an interruption."""
    denoiser, indices = denoisers[name], np.arange(43)
    labels = None if name == "matmul" else indices % 4
    whole = draw(denoiser, indices, labels, devices=jax.devices())
    assert whole.shape == (43, *SHAPE) and whole.dtype == np.float32 and len(np.unique(whole[:, 0, 0, 0])) == 43

    np.testing.assert_array_equal(draw(denoiser, indices, labels, devices=ONE), whole)
    for subset in ([17], [41, 3, 8, 42, 0, 13, 12, 11, 33], [7, 7, 2], indices[23:], indices[::-1], indices[::5]):
        subset = np.asarray(subset)
        part = draw(denoiser, subset, None if labels is None else labels[subset], devices=ONE)
        np.testing.assert_array_equal(part, whole[subset])

    if name != "matmul":
        other_size = draw(denoiser, indices, labels, batch_size=16, devices=ONE)
        np.testing.assert_allclose(other_size, whole, rtol=0, atol=1e-5 * np.abs(whole).max())


@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=40).map(np.array),
    st.integers(1, 9),
)
@settings(max_examples=15, deadline=None)
def test_every_request_sits_once_in_the_row_of_its_index(indices, batch_size):
    slots = np.stack(_pack(indices, batch_size))
    assert sorted(slots[slots >= 0]) == list(range(len(indices)))
    for row, column in enumerate(slots.T):
        assert all(indices[slot] % batch_size == row for slot in column[column >= 0])
    assert (slots >= 0).any(1).all()
    if (np.diff(indices) == 1).all():
        assert len(slots) == -(-len(indices) // batch_size)


def test_samples_are_replayed_from_the_public_draws(denoisers):
    mixture, key = denoisers["mixture"], jax.random.key(0)
    whole = draw(mixture, [4, 30], [1, 2], devices=ONE)
    program = jax.jit(lambda m, x, s, e: heun(m, x, s, churn=PAPER, eps=e))
    for row, (index, label) in enumerate([(4, 1), (30, 2)]):
        eps = jnp.stack([keys.step_noise(key, index, step, SHAPE) for step in range(6)])
        x_init = jnp.float32(GRID[0]) * initial_noise(key, index, SHAPE)
        replayed = program(mixture.given(label), x_init, GRID, eps)
        np.testing.assert_allclose(whole[row], replayed, rtol=0, atol=2e-6 * np.abs(whole).max())


def test_labels_act_per_sample_and_as_integers_or_vectors(denoisers):
    mixture = denoisers["mixture"]
    indices, labels = [3, 9, 1, 12, 5], np.array([0, 1, 2, 3, 0])
    by_class = draw(mixture, indices, labels, devices=ONE)
    vectors = 4.0 * np.eye(4, dtype=np.float32)[labels]
    by_vector = draw(mixture, indices, vectors, devices=ONE)
    np.testing.assert_allclose(by_vector, by_class, rtol=0, atol=1e-6 * np.abs(by_class).max())
    np.testing.assert_array_equal(draw(mixture, indices, vectors.astype(np.float64), devices=ONE), by_vector)
    for dtype in (np.uint8, np.int64):
        np.testing.assert_array_equal(draw(mixture, indices, labels.astype(dtype), devices=ONE), by_class)
    for index, label, expected in zip(indices, labels, by_class):
        np.testing.assert_array_equal(draw(mixture, [index], [label], devices=ONE)[0], expected)
    swapped = draw(mixture, indices, [0, 1, 2, 3, 1], devices=ONE)
    np.testing.assert_array_equal(swapped[:4], by_class[:4])
    assert np.abs(swapped[4] - by_class[4]).max() > 1e-3


TRACES: list[tuple] = []


def counted(key, shape):
    """A base that is called once for each trace."""
    TRACES.append(shape)
    return jax.random.normal(key, shape)


def test_one_trace_serves_every_call_of_the_same_shapes(denoisers):
    mixture, TRACES[:] = denoisers["mixture"], []
    for denoiser, key, n, grid, churn, devices in [
        (mixture, 0, 12, GRID, PAPER, jax.devices()[:2]),
        (jax.tree.map(lambda leaf: 2 * leaf, mixture), 1, 31, karras_sigmas(6, 0.01, 60.0), Churn(20.0), ONE),
        (mixture.given(2), 5, 1, GRID, Churn(1, 0, 2, 1), ONE),
    ]:
        options = {"shape": SHAPE, "churn": churn, "batch_size": 5, "base": counted, "devices": devices}
        sample(denoiser, jax.random.key(key), range(n), grid, **options)
    assert len(TRACES) == 1
    sample(mixture, jax.random.key(0), range(3), karras_sigmas(7), shape=SHAPE, batch_size=5, base=counted, devices=ONE)
    assert len(TRACES) == 2


def observed_norms(state):
    return {"norm": jnp.linalg.norm(state.x), "step": state.step}


def test_observations_progress_and_base(denoisers):
    calls = []
    options = {"churn": Churn(), "observe": observed_norms, "base": counted, "devices": ONE}
    x0, seen = draw(denoisers["matmul"], [9, 1, 14, 3, 20, 33, 2], progress=lambda *c: calls.append(c), **options)
    plain = draw(denoisers["matmul"], [9, 1, 14, 3, 20, 33, 2], churn=Churn(), devices=ONE)
    np.testing.assert_allclose(x0, plain, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(seen["step"], np.tile(np.arange(6), (7, 1)))
    first = [np.linalg.norm(np.float32(80) * initial_noise(jax.random.key(0), i, SHAPE)) for i in (9, 1, 14)]
    np.testing.assert_allclose(seen["norm"][:3, 0], first, rtol=1e-5)
    assert calls[-1] == (7, 7) and [c[0] for c in calls] == sorted({c[0] for c in calls})


# The law -------------------------------------------------------------------------------------------------------------


def test_stochastic_sampler_has_the_exact_variance_in_every_mode(x64):
    """The paper's churn on 3 Gaussians of 160 modes: each mode's variance obeys an exact recursion of gains."""
    modes, blocks, n, num_steps = 160, 3, 256, 256
    sigmas = karras_sigmas(num_steps)
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((modes, modes)))[0]
    mean = np.random.default_rng(1).standard_normal(modes)
    scores, lean = [], []
    for block in range(blocks):
        variances = np.geomspace(20.0, 1e-5, modes * blocks)[block::blocks]
        denoiser = GaussianDenoiser(*(jnp.asarray(a) for a in (mean, basis, variances)))
        key = keys.stream(jax.random.key(0), "variance", block)
        options = {"shape": (modes,), "churn": PAPER, "batch_size": n, "dtype": jnp.float64, "devices": ONE}
        drawn = (sample(denoiser, key, range(n), sigmas, **options) - mean) @ basis

        expected, centre = np.full(modes, sigmas[0] ** 2), -basis.T @ mean
        for s, s_next in itertools.pairwise(sigmas):
            gamma = min(40 / num_steps, math.sqrt(2) - 1) if 0.05 <= s <= 50 else 0.0
            hat = s * (1 + gamma)
            slope = hat / (variances + hat**2)
            gain = 1 + (s_next - hat) * slope
            if s_next > 0:
                gain = 1 + (s_next - hat) / 2 * (slope + s_next / (variances + s_next**2) * gain)
            expected = gain**2 * (expected + (hat**2 - s**2) * 1.003**2)
            centre = gain * centre
        squares = np.square(drawn - centre).mean(0)
        scores.append((squares / expected - 1) / math.sqrt(2 / n))
        lean.append((drawn.mean(0) - centre) / np.sqrt(expected / n))
        # What the paper's inflation of the noise does: a little too much variance in every mode that matters.
        inflated = (expected / variances)[variances > 1e-2]
        assert 1.0 < inflated.min() < inflated.max() < 1.03
    scores, lean = np.concatenate(scores), np.concatenate(lean)
    assert scores.size == 480
    for z in (scores, lean):
        # Three standard errors of 480 modes, and four of their mean: variances that are all off by 1.7 % are noticed.
        assert 0.9 < np.sqrt(np.mean(z**2)) < 1.1
        assert abs(z.mean()) < 4 / math.sqrt(480)
        assert np.abs(z).max() < 5


# Lowering, failures, bad input ---------------------------------------------------------------------------------------


def test_the_chunk_lowers_for_every_platform(denoisers):
    arguments = (
        denoisers["network"],
        jax.random.key(0),
        jnp.arange(4),
        jnp.zeros(4, jnp.int32),
        jnp.asarray(GRID, jnp.float32),
        PAPER,
    )
    options = {"shape": SHAPE, "dtype": np.dtype(np.float32), "base": "gaussian", "observe": None, "stochastic": True}
    exported = jax.export.export(sample_chunk, platforms=["cpu", "cuda", "tpu"])(*arguments, **options)
    assert exported.platforms == ("cpu", "cuda", "tpu")


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Breaking:
    """Gives NaN below a noise level to examples of label 3."""

    limit: Any
    label: Any

    def given(self, label):
        return Breaking(self.limit, label)

    def __call__(self, x, sigma):
        return jnp.where((sigma < self.limit) & (self.label == 3), jnp.nan, 0.5 * x)


def test_a_sample_that_is_not_finite_is_named():
    denoiser, indices = Breaking(jnp.float32(3.0), jnp.int32(0)), [12, 31, 22, 40]
    assert np.isfinite(draw(denoiser, indices, [0, 1, 2, 1], churn=Churn(), devices=ONE)).all()
    step = int(np.argmax(GRID[1:] < 3.0))
    with pytest.raises(FloatingPointError, match=rf"^sample 22 is not finite after step {step} of 6 \(sigma "):
        draw(denoiser, indices, [0, 1, 3, 1], churn=Churn(), devices=ONE)


def test_bad_input_is_named(denoisers):
    mixture, gaussian = denoisers["mixture"], denoisers["matmul"]
    for said, denoiser, indices, labels, options in [
        ("indices = -1", mixture, [0, -1], None, {}),
        ("indices = 2147483648", mixture, [2**31], None, {}),
        (r"indices of shape \(0,\)", mixture, [], None, {}),
        ("indices of shape .* float64", mixture, np.array([0.5]), None, {}),
        (r"labels of shape \(2,\)", mixture, [0, 1, 2], [0, 1], {}),
        (r"labels of shape \(3,\), dtype float64", mixture, [0, 1, 2], [0.0, 1.0, 2.0], {}),
        ("labels = 'given': .* no given", gaussian, [0], [0], {}),
        ("batch_size = 0", mixture, [0], None, {"batch_size": 0}),
        ("shape = ", mixture, [0], None, {"shape": (3, 0)}),
        ("base = 'levy'", mixture, [0], None, {"base": "levy"}),
        ("dtype = 'int32'", mixture, [0], None, {"dtype": jnp.int32}),
        ("dtype = 'float64'", mixture, [0], None, {"dtype": np.float64}),
        ("churn.rate = -4", mixture, [0], None, {"churn": Churn(-4)}),
        ("devices", mixture, [0], None, {"devices": []}),
    ]:
        with pytest.raises(InputError, match=said):
            draw(denoiser, indices, labels, **options)
    for grid in (GRID[:-1], GRID[::-1], np.zeros(1), np.array([1.0, np.nan, 0.0])):
        with pytest.raises(InputError, match=r"^sigmas"):
            sample(mixture, jax.random.key(0), [0], grid, shape=SHAPE)
