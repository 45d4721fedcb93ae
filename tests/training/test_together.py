"""Dense denoisers trained at once are what they would be alone, and learn the posterior mean."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dgu.core.errors import InputError
from dgu.models import GaussianDenoiser, MLPDenoiser
from dgu.samplers import karras_sigmas, sample, sample_together
from dgu.training import TogetherConfig, train_together

SHAPE = (2, 3)
KEYS = jax.random.split(jax.random.key(0), 3)
DATA = np.asarray(jax.random.normal(jax.random.key(1), (3, 10, *SHAPE)))
COUNTS = np.array([4, 10, 7])
CONFIG = TogetherConfig(steps=9, batch_size=8, learning_rate=5e-3, chunk=4)


@jax.jit
def start(keys):
    return jax.vmap(lambda key: MLPDenoiser.init(key, SHAPE, width=8, depth=2))(keys)


def number(networks, at):
    """One of many networks."""
    return jax.tree.map(lambda leaf: leaf[at], networks)


CALL = jax.jit(lambda denoiser, x, sigma: denoiser(x, sigma))


@pytest.fixture(scope="module")
def trained():
    return train_together(start(KEYS), DATA, COUNTS, KEYS, CONFIG)


def test_the_network_is_the_formula():
    """NumPy, layer by layer."""
    denoiser = MLPDenoiser.init(KEYS[0], SHAPE, width=5, depth=2, sigma_data=0.7)
    rng = np.random.default_rng(0)
    p = {name: rng.normal(size=leaf.shape) for name, leaf in denoiser.parameters.items()}
    denoiser = MLPDenoiser({name: leaf.astype(np.float32) for name, leaf in p.items()}, 0.7)
    x, sigma = rng.normal(size=SHAPE).astype(np.float32), 1.3
    total = sigma**2 + 0.7**2
    phase = np.arange(1, 9) * np.log(sigma) / 4
    level = np.concatenate([np.cos(phase), np.sin(phase)])
    h = x.ravel() / np.sqrt(total) @ p["in"]
    for layer in range(2):
        inner = (h @ p["hidden"][layer] + p["hidden_bias"][layer]) * (1 + level @ p["level"][layer])
        h = h + inner / (1 + np.exp(-inner))
    raw = h @ p["out"] / np.sqrt(2) + p["out_bias"]
    wanted = 0.49 / total * x + sigma * 0.7 / np.sqrt(total) * raw.reshape(SHAPE)
    np.testing.assert_allclose(CALL(denoiser, jnp.asarray(x), sigma), wanted, rtol=2e-4, atol=1e-4)
    assert denoiser.parameter_count == sum(leaf.size for leaf in p.values())
    with pytest.raises(InputError, match="an event of 6 numbers"):
        denoiser(jnp.zeros(5), 1.0)


def test_the_output_starts_as_the_skip(x64):
    x = jnp.asarray(DATA[0, 0], jnp.float64)
    out = CALL(number(start(KEYS), 0), x, 2.0)
    assert out.dtype == jnp.float64
    np.testing.assert_allclose(out, 0.25 / 4.25 * x)


def test_company_and_chunks_do_not_matter(trained):
    """Number 2 alone, its padding filled with nonsense, in one chunk: the same network."""
    data = DATA[2:].copy()
    data[0, 7:] = 1e3
    alone, _ = train_together(
        start(KEYS[2:]), data, COUNTS[2:], KEYS[2:], TogetherConfig(steps=9, batch_size=8, learning_rate=5e-3, chunk=20)
    )
    for one, many in zip(jax.tree.leaves(alone), jax.tree.leaves(trained[0])):
        np.testing.assert_allclose(one[0], many[2], rtol=2e-3, atol=2e-5)


def test_steps_are_those_of_a_plain_loop(trained):
    """The loss written out again, Adam and the cosine by optax, one network, no vmap over networks, no scan."""
    denoiser = number(start(KEYS), 1)
    optimizer = optax.adam(optax.cosine_decay_schedule(5e-3, 9))
    moments = jax.jit(optimizer.init)(denoiser)

    @jax.jit
    def step(denoiser, moments, at):
        pick, level, noise = jax.random.split(jax.random.fold_in(KEYS[1], at), 3)
        y = jnp.asarray(DATA[1])[jax.random.randint(pick, (8,), 0, 10)]
        sigma = jnp.exp(-1.2 + 1.2 * jax.random.normal(level, (8,)))
        eps = jax.random.normal(noise, y.shape)

        def loss(denoiser):
            out = jax.vmap(denoiser)(y + sigma[:, None, None] * eps, sigma)
            weight = (sigma**2 + 0.25) / (0.5 * sigma) ** 2
            return jnp.mean(weight[:, None, None] * (out - y) ** 2)

        change, moments = optimizer.update(jax.grad(loss)(denoiser), moments)
        return optax.apply_updates(denoiser, change), moments

    for at in range(9):
        denoiser, moments = step(denoiser, moments, at)
    for one, many in zip(jax.tree.leaves(denoiser), jax.tree.leaves(trained[0])):
        np.testing.assert_allclose(one, many[1], rtol=2e-3, atol=2e-5)


def test_it_learns_the_posterior_mean():
    """Of a Gaussian with unequal variances, from 4,000 draws: nearer to the exact denoiser than the start by a factor
    of five.
    """
    scales = np.array([[2.0, 1.0, 0.5], [0.2, 0.1, 0.05]])
    data = (scales * np.random.default_rng(0).normal(size=(4000, *SHAPE))).astype(np.float32)
    exact = GaussianDenoiser.fit(data)
    config = TogetherConfig(steps=400, batch_size=128, learning_rate=5e-3, chunk=200)
    said = []
    networks = jax.jit(jax.vmap(lambda key: MLPDenoiser.init(key, SHAPE, width=32, depth=2)))(KEYS[:1])
    found, losses = train_together(
        networks, data[None], np.array([4000]), KEYS[:1], config, lambda done, total: said.append((done, total))
    )
    assert said == [(200, 400), (400, 400)] and losses.shape == (1,)
    x = jnp.asarray(data[:200]) + jax.random.normal(KEYS[0], (200, *SHAPE))

    @jax.jit
    def miss(denoiser):
        error = jax.vmap(lambda x: denoiser(x, 1.0) - exact(x, 1.0))(x)
        return jnp.sqrt(jnp.mean(error**2))

    assert miss(number(found, 0)) < miss(number(networks, 0)) / 5


def test_samples_of_many_are_those_of_each_alone(trained):
    sigmas = karras_sigmas(4)
    found = sample_together(trained[0], KEYS, 5, sigmas, shape=SHAPE)
    assert found.shape == (3, 5, *SHAPE)
    for at, key in enumerate(KEYS):
        alone = sample(number(trained[0], at), key, range(5), sigmas, shape=SHAPE)
        np.testing.assert_allclose(found[at], alone, rtol=2e-3, atol=2e-4)
    for said, keys, count, levels in (
        ("keys", KEYS[:2], 5, sigmas), ("count = 0", KEYS, 0, sigmas), ("sigmas", KEYS, 5, sigmas[::-1]),
    ):  # fmt: skip
        with pytest.raises(InputError, match=said):
            sample_together(trained[0], keys, count, levels, shape=SHAPE)


def test_bad_input_is_refused():
    networks = start(KEYS)
    for said, call in (
        ("counts = ", lambda: train_together(networks, DATA, np.array([4, 11, 7]), KEYS, CONFIG)),
        ("data.shape", lambda: train_together(networks, DATA[:2], COUNTS[:2], KEYS[:2], CONFIG)),
        ("data = 'non-finite'", lambda: train_together(networks, DATA * np.nan, COUNTS, KEYS, CONFIG)),
        ("must have sigma_data", lambda: train_together(networks.parameters, DATA, COUNTS, KEYS, CONFIG)),
        ("steps = 0", lambda: TogetherConfig(steps=0)),
        ("learning_rate = -1.0", lambda: TogetherConfig(learning_rate=-1.0)),
        ("sigma_data = 0", lambda: MLPDenoiser.init(KEYS[0], SHAPE, sigma_data=0.0)),
        (r"\(width, depth\)", lambda: MLPDenoiser.init(KEYS[0], SHAPE, width=0)),
    ):
        with pytest.raises(InputError, match=said):
            call()
