"""Training at single noise levels: against closed forms and NumPy; together as alone; resumed as in one go;
refusals.
"""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.core import keys
from dgu.core.errors import InputError
from dgu.core.noisy import noisy_input
from dgu.models import (
    DAEPreconditioning,
    DiTConfig,
    EDMNetwork,
    GaussianDenoiser,
    LevelDenoisers,
    LinearNetwork,
    NetworkDenoiser,
    SkipNetwork,
)
from dgu.training import (
    LevelTraining,
    dsm_loss,
    fixed_levels,
    image_order,
    initial_levels,
    train_levels,
    train_stored_levels,
    trains_together,
)

SIGMAS = np.array([8.0, 0.6, 0.1])
DIT = EDMNetwork(DiTConfig(4, 1, 1, patch=2, width=8, depth=1, heads=2), DAEPreconditioning(input_std=0.5))
SLOW_DIT = pytest.param(DIT, marks=pytest.mark.slow)  # Its gradients take long to compile.
SKIP = SkipNetwork(4, 1, (3,))
TINY = LevelTraining(steps=6, batch_size=8, learning_rate=1e-2)


def images(n=40, shape=(4, 4, 1), seed=0):
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(np.prod(shape),) * 2) * np.linspace(1.0, 0.1, np.prod(shape)) * 0.2
    return (0.3 + rng.normal(size=(n, np.prod(shape))) @ mixing.T).reshape(n, *shape).astype(np.float32)


@functools.cache
def start_of(network, levels):
    return jax.device_get(initial_levels(network, levels, TINY))


def test_the_linear_autoencoder_becomes_the_gaussian_posterior_mean():
    data, network = images(600, (2, 2, 2)), LinearNetwork((2, 2, 2))
    config = LevelTraining(steps=1500, batch_size=256, learning_rate=2e-2)
    state, losses = train_levels(network, initial_levels(network, 3, config), data, SIGMAS, config)
    denoiser, exact = LevelDenoisers(SIGMAS, NetworkDenoiser(state["params"], network)), GaussianDenoiser.fit(data)
    x = jax.random.normal(jax.random.key(9), (200, 2, 2, 2))
    for level, sigma in enumerate(SIGMAS):
        noisy = data[:200] + sigma * x
        wanted = jax.vmap(lambda y, sigma=sigma: exact(y, sigma))(noisy)
        got = jax.vmap(lambda y, sigma=sigma: denoiser(y, sigma))(noisy)
        # Within a twentieth of the data's spread; at the highest level the answers themselves spread by more than that.
        spread, bound = float(jnp.std(wanted)), 0.05 * float(np.sqrt(np.mean(data.var(axis=0))))
        assert float(jnp.sqrt(jnp.mean((got - wanted) ** 2))) < bound < spread, f"sigma = {sigma}"
        # The loss of the posterior mean: the posterior variance, sum lam sigma^2 / (lam + sigma^2) over d.
        lam = np.asarray(exact.variances, np.float64)
        least = float((lam * sigma**2 / (lam + sigma**2)).sum() / 8)
        np.testing.assert_allclose(losses[level, -200:].mean(), least, rtol=0.05)


def test_the_first_steps_are_those_of_adam_on_the_mean_squared_error():
    data, network, sigma = images(), LinearNetwork((4, 4, 1)), SIGMAS[1]
    scale, key = 1 / np.sqrt(sigma**2 + 0.25), keys.stream(jax.random.key(TINY.seed), "noise")

    def drawn(step):
        """Clean and noisy images of a step: the order of the training loop, noise addressed by image and level."""
        batch = data[image_order(TINY.seed, len(data), 8 * step, 8)]
        noisy = [noisy_input(key, jnp.asarray(batch[i]), 8 * step + i, sigma, 1) for i in range(8)]
        return batch.reshape(8, 16), np.stack(noisy).reshape(8, 16) * scale

    start = initial_levels(network, 1, TINY)
    state, losses = train_levels(network, start, data, SIGMAS[1:2], TINY, places=[1], until=1)
    batch, inputs = drawn(0)
    # From 0 the output is 0: the loss is the images' mean square, the gradient the product of the images with the
    # inputs.
    np.testing.assert_allclose(losses[0, 0], np.mean(batch**2), rtol=1e-6)
    # Adam's first step is the learning rate times the sign.
    weight, bias = (np.asarray(state["params"][name][0]) for name in ("weight", "bias"))
    np.testing.assert_allclose(weight, 1e-2 * np.sign(batch.T @ inputs), rtol=1e-3)
    np.testing.assert_allclose(bias, 1e-2 * np.sign(batch.sum(axis=0)), rtol=1e-3)
    batch, inputs = drawn(1)
    again, losses = train_levels(network, state, data, SIGMAS[1:2], TINY, places=[1], until=2)
    np.testing.assert_allclose(losses[0, 0], np.mean((inputs @ weight.T + bias - batch) ** 2), rtol=1e-5)
    # The second one is smaller by the cosine: of entries whose gradient keeps its sign and about its size, that much.
    moved = np.abs(np.asarray(again["params"]["bias"][0]) - bias)
    assert moved.max() <= 1.05e-2 * (1 + np.cos(np.pi / 6)) / 2
    loss, _ = dsm_loss(network, network.init(jax.random.key(0)), jnp.asarray(batch), jnp.asarray(batch), 1.0)
    np.testing.assert_allclose(loss, np.mean(batch**2), rtol=1e-6)


@pytest.mark.parametrize("network", [SLOW_DIT, SKIP], ids=["dit", "skip"])
def test_levels_together_equal_levels_alone_and_stopped_runs_equal_whole_ones(network):
    data, start = images(), start_of(network, 3)
    before = fixed_levels._step._cache_size()
    state, losses = train_levels(network, start, data, SIGMAS, TINY)
    assert fixed_levels._step._cache_size() <= before + 2, "one program for all levels, on each of two devices"
    # Alone, or in other company, for which there is a program already.
    company = 2 if network is DIT else 0
    for level in range(3):
        one = jax.tree.map(lambda leaf: leaf[: 1 + company], start)
        sigmas, places = [SIGMAS[level], 5.0, 0.03], [level, 7, 8]
        given = {"places": places[: 1 + company]}
        alone, seen = train_levels(network, one, data, np.array(sigmas[: 1 + company]), TINY, **given)
        np.testing.assert_allclose(seen[0], losses[level], rtol=1e-5)
        for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(state)):
            np.testing.assert_allclose(a[0], b[level], atol=2e-4 * (1 + float(jnp.abs(b).max())))
    half, first = train_levels(network, start, data, SIGMAS, TINY, until=2)
    again, second = train_levels(network, jax.tree.map(np.asarray, half), data, SIGMAS, TINY)
    np.testing.assert_array_equal(np.concatenate([first, second], axis=1), losses)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(state)):
        np.testing.assert_array_equal(a, b)
    # Levels see different noise, and later steps other images.
    assert len(np.unique(losses[:, 1:])) == losses[:, 1:].size


@pytest.mark.parametrize("network", [DIT, SKIP, LinearNetwork((4, 4, 1))], ids=["dit", "skip", "linear"])
def test_stored_pieces_add_up_to_the_training_in_one_go(network):
    data, sigmas, store, shown = images(), SIGMAS, {}, []  # Three levels: the programs of the test above.

    def stored(name, compute):
        if name not in store:
            store[name] = jax.tree.map(np.asarray, compute())
        return store[name]

    def train(**options):
        return train_stored_levels(network, data, sigmas, TINY, every=4, stored=stored, **options)

    denoiser, losses = train(progress=lambda *at: shown.append(at))
    state, expected = train_levels(network, start_of(network, 3), data, sigmas, TINY)
    np.testing.assert_array_equal(losses, expected)
    for ours, theirs in zip(jax.tree.leaves(denoiser.denoisers), jax.tree.leaves(state["params"])):
        np.testing.assert_array_equal(ours, theirs)
    pieces = [f"{level}-{piece}" for piece in range(2) for level in range(3)]
    pieces = pieces if network is SKIP else ["all-0", "all-1"]
    assert list(store) == pieces and shown[-1] == (18, 18)
    assert [done for done, _ in shown] == sorted(done for done, _ in shown)
    # Killed in the last piece: what is stored is not made again.
    kept = {name: store[name] for name in pieces[:-1]}
    store.pop(pieces[-1])
    again, same = train()
    assert all(store[name] is piece for name, piece in kept.items())
    np.testing.assert_array_equal(same, losses)
    x, call = jnp.asarray(data[0]), jax.jit(lambda denoiser, x: denoiser(x, sigmas[1]))
    np.testing.assert_array_equal(call(again, x), call(denoiser, x))
    with pytest.raises(InputError, match="every = 0"):
        train_stored_levels(network, data, sigmas, TINY, every=0, stored=stored)


@pytest.mark.parametrize("network", [SLOW_DIT, LinearNetwork((4, 4, 1))], ids=["dit", "linear"])
def test_micro_batches_and_rematerialisation_change_nothing_but_memory(network):
    data, start = images(), start_of(network, 2)
    whole, expected = train_levels(network, start, data, SIGMAS[:2], TINY)
    cut = replace(TINY, micro_batch=4, remat=True)
    assert trains_together(network, TINY) and not trains_together(network, cut)
    state, losses = train_levels(network, start, data, SIGMAS[:2], cut)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(whole)):
        np.testing.assert_allclose(a, b, atol=2e-4 * (1 + float(np.abs(b).max())))
    # What the gradient keeps: a part of the batch, and of an EDM network no insides of blocks.
    kept = [_bytes_kept(network, size, remat) for size, remat in ((8, False), (4, False), (4, True))]
    assert kept[1] < 0.8 * kept[0] and (kept[2] < 0.7 * kept[1] or network is not DIT), kept


def _bytes_kept(network, size, remat):
    """Bytes of what a gradient over ``size`` images keeps of its forward pass, the parameters apart."""
    network = replace(network, remat=True) if remat and network is DIT else network
    params, batch = network.init(jax.random.key(0)), jnp.zeros((size, 4, 4, 1))
    pull = jax.eval_shape(lambda p: jax.vjp(lambda p: dsm_loss(network, p, batch, batch, 1.0)[0], p)[1], params)
    own = sum(leaf.size for leaf in jax.tree.leaves(params))
    return 4 * (sum(leaf.size for leaf in jax.tree.leaves(pull)) - own)


def test_running_averages_are_those_of_the_batches_not_of_adam():
    data, start = images(), start_of(SKIP, 1)
    state, _ = train_levels(SKIP, start, data, SIGMAS[:1], TINY, until=1)
    key = keys.stream(jax.random.key(TINY.seed), "noise")
    batch = jnp.asarray(data[image_order(TINY.seed, len(data), 0, 8)])
    noisy = jnp.stack([noisy_input(key, batch[i], i, SIGMAS[0], 0) for i in range(8)])
    params = jax.tree.map(lambda leaf: leaf[0], start["params"])
    _, moved = jax.jit(SKIP.apply_batch)(params, noisy, SIGMAS[0])
    for name in ("mean", "var"):
        got = state["params"]["enc"]["level0_conv1"]["norm"][name][0]
        np.testing.assert_allclose(got, moved["enc"]["level0_conv1"]["norm"][name], rtol=1e-4, atol=1e-5)
    assert float(jnp.abs(state["params"]["out"]["bias"][0] - params["out"]["bias"]).min()) > 5e-3


def test_what_cannot_be_used_is_refused():
    network, data = LinearNetwork((4, 4, 1)), images()
    state = initial_levels(network, 3, TINY)
    for said, arguments, options in (
        ("images.shape[1:] = (2, 2, 2): must be (4, 4, 1), the network's", (images(8, (2, 2, 2)), SIGMAS), {}),
        ("sigmas = [8.0, 0.0, 0.1]: must be one or more positive", (data, SIGMAS * [1, 0, 1]), {}),
        ("places = [0]: must be one for each of 3 levels", (data, SIGMAS), {"places": [0]}),
        ("until = 7: must be from 0, where the state is, to 6", (data, SIGMAS), {"until": 7}),
        ("state['step'] = [0, 0, 0]: must be one step for all 2 levels", (data, SIGMAS[:2]), {}),
    ):
        with pytest.raises(InputError) as error:
            train_levels(network, state, *arguments, TINY, **options)
        assert said in str(error.value)
    broken = jax.tree.map(lambda leaf: leaf.at[1].set(jnp.nan) if leaf.dtype == jnp.float32 else leaf, state)
    with pytest.raises(InputError, match=r"non-finite loss at sigma = 0.6, step"):
        train_levels(network, broken, data, SIGMAS, TINY)
    with pytest.raises(InputError, match=r"config\.micro_batch = 4: must be None: batch normalisation"):
        train_levels(SKIP, start_of(SKIP, 3), data, SIGMAS, replace(TINY, micro_batch=4))
    for said, options in (
        ("micro_batch = 3: must be a divisor of batch_size 128", {"micro_batch": 3}),
        ("steps = 0", {"steps": 0}),
        ("batch_size = 1", {"batch_size": 1}),
        ("learning_rate = 0.0", {"learning_rate": 0.0}),
    ):
        with pytest.raises(InputError, match=said):
            LevelTraining(**options)
