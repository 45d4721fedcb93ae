"""The loss, its gradients and the training arithmetic against the reference; resuming; devices."""

from dataclasses import replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dgu import parallel
from dgu.checkpoint import TrainingCheckpoints
from dgu.errors import InputError
from dgu.models import ADMConfig, EDMNetwork, edm_from_arrays
from dgu.models.edm import params_to_arrays
from dgu.training import TrainingConfig, edm_loss, edm_sigma, image_order, initial_state, train_steps, update
from tests import parity

ADM = parity.load("adm_edm.npz")
NETWORK = EDMNetwork(ADMConfig(8, 1, 1, label_dim=2, model_channels=8, channel_mult=(1,), num_blocks=1, dropout=0.1))
CONFIG = TrainingConfig(duration_kimg=0.048, batch_size=8, learning_rate=1e-3, rampup_kimg=0.016, ema_halflife_kimg=0.02)


def summary(value: np.ndarray) -> np.ndarray:
    """What the fixture keeps of a tensor: norm, sum, sum of magnitudes, first 16 entries in the reference's layout."""
    flat = np.ravel(value)
    first = np.zeros(16)
    first[: min(16, flat.size)] = flat[:16]
    return np.concatenate([[np.linalg.norm(flat), flat.sum(), np.abs(flat).sum()], first])


def check_summaries(tree, prefix: str, bound: float) -> int:
    arrays = params_to_arrays(tree)
    names = [key for key in ADM if key.startswith(prefix)]
    for key in names:
        expected = ADM[key]
        got = summary(arrays[key.removeprefix(prefix)])
        # The key third of an attention bias has no gradient: judge it against the whole tensor.
        assert np.abs(got - expected).max() <= bound * max(np.abs(expected).max(), 1e-300), key
    return len(names)


@jax.jit
def losses(denoiser, images, rnd, noise, labels):
    def one(image, normal, eps, label):
        return edm_loss(denoiser.network, denoiser.params, image, normal, eps, label)

    return jax.vmap(one)(images, rnd, noise, labels)


def draws(prefix, at=...):
    images, noise = (jnp.asarray(parity.nhwc(ADM[f"{prefix}:{k}"]))[at].astype(jnp.float64) for k in ("images", "noise"))
    rnd = jnp.asarray(ADM[f"{prefix}:rnd"], jnp.float64).reshape(ADM[f"{prefix}:rnd"].shape[:-3])[at]
    return images, rnd, noise, jnp.asarray(ADM[f"{prefix}:class_labels"], jnp.float64)


@pytest.fixture
def denoiser(x64):
    denoiser = edm_from_arrays(parity.config(ADM), parity.params(ADM))
    return replace(denoiser, params=parity.double(denoiser.params))


def test_loss_and_gradients_match_the_reference(denoiser):
    images, rnd, noise, labels = draws("loss")
    np.testing.assert_allclose(edm_sigma(rnd), ADM["loss:sigma"].ravel(), rtol=1e-12)
    got = losses(denoiser, images, rnd, noise, labels)
    assert parity.relative(parity.nchw(got), ADM["loss:loss64"]) < 1e-8
    gradient = jax.jit(jax.grad(lambda d, *a: losses(d, *a).sum() / len(images), allow_int=True))
    tree = gradient(denoiser, images, rnd, noise, labels).params
    assert check_summaries(tree, "loss:grad64:", 1e-8) > 19


def test_training_steps_match_the_reference(denoiser):
    config = TrainingConfig(
        duration_kimg=0.016, batch_size=4, learning_rate=1e-3, rampup_kimg=0.016, ema_halflife_kimg=0.032, ema_rampup_ratio=0.5
    )
    state = {
        "params": denoiser.params,
        "ema": jax.tree.map(jnp.copy, denoiser.params),
        "optimizer": optax.scale_by_adam().init(denoiser.params),
        "step": jnp.zeros((), jnp.int32),
        "nonfinite": jnp.zeros((), jnp.int32),
    }

    @jax.jit
    def step(state, images, rnd, noise, labels):
        def objective(params):
            out = losses(replace(denoiser, params=params), images, rnd, noise, labels)
            return out.sum() / config.batch_size, out.mean()

        gradients, mean = jax.grad(objective, has_aux=True)(state["params"])
        return update(state, gradients, config), mean

    labels = jnp.asarray(ADM["train:class_labels"], jnp.float64)
    for i in range(4):
        images, rnd, noise, _ = draws("train", i)
        state, mean = step(state, images, rnd, noise, labels[i] if labels.ndim == 3 else labels)
        np.testing.assert_allclose(mean, ADM["train:history"][i, 0], rtol=1e-8)
    assert check_summaries(state["params"], "train:param64:", 1e-8) > 100
    assert check_summaries(state["ema"], "train:ema64:", 1e-8) > 100
    assert int(state["nonfinite"]) == 0


def test_nonfinite_gradients_are_replaced_and_counted():
    params = {"w": jnp.zeros(4)}
    state = {
        "params": params, "ema": params, "optimizer": optax.scale_by_adam().init(params),
        "step": jnp.asarray(5, jnp.int32), "nonfinite": jnp.asarray(2, jnp.int32),
    }  # fmt: skip
    bad = update(state, {"w": jnp.asarray([jnp.nan, jnp.inf, -jnp.inf, 1.0])}, CONFIG)
    good = update(state, {"w": jnp.asarray([0.0, 1e5, -1e5, 1.0])}, CONFIG)
    assert int(bad["nonfinite"]) == 5 and int(good["nonfinite"]) == 2
    np.testing.assert_array_equal(bad["params"]["w"], good["params"]["w"])
    assert np.isfinite(bad["ema"]["w"]).all()


def test_image_order_visits_each_row_once_an_epoch_however_it_is_cut():
    whole = image_order(3, 10, 0, 40)
    for epoch in range(4):
        assert sorted(whole[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert not np.array_equal(whole[:10], whole[10:20])
    np.testing.assert_array_equal(np.concatenate([image_order(3, 10, 0, 7), image_order(3, 10, 7, 33)]), whole)


def run(config=CONFIG, network=NETWORK, state=None, stop=None, devices=1):
    rng = np.random.default_rng(0)
    labels = np.arange(20) % 2
    images = (0.3 * rng.normal(size=(20, 8, 8, 1)) + labels[:, None, None, None] - 0.5).astype(np.float32)
    mesh = parallel.data_mesh(jax.devices()[:devices])
    state = initial_state(network, config) if state is None else state
    out = []
    for state, info in train_steps(network, state, images, labels, config, mesh):
        out.append(float(info["loss"]))
        if info["step"] == stop:
            break
    return jax.device_get(state), out


def test_resuming_from_a_checkpoint_gives_the_same_bits(tmp_path):
    whole, losses = run()
    assert len(losses) == 6 and int(whole["step"]) == 6
    part, first = run(stop=2)
    with TrainingCheckpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.latest_step() is None
        checkpoints.save(2, jax.device_put(part))
    with TrainingCheckpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.latest_step() == 2
        restored = checkpoints.load(initial_state(NETWORK, CONFIG))
    chex.assert_trees_all_equal(jax.device_get(restored), part)
    rest, second = run(state=restored)
    assert first + second == losses
    chex.assert_trees_all_equal(rest, whole)
    with TrainingCheckpoints(tmp_path / "c") as checkpoints, pytest.raises(InputError, match="not of this network"):
        wider = replace(NETWORK, unet=replace(NETWORK.unet, model_channels=16))
        checkpoints.load(initial_state(wider, CONFIG))


def test_micro_batches_and_devices_do_not_change_the_run():
    whole, losses = run()
    for config, devices in ((replace(CONFIG, micro_batch=4), 1), (CONFIG, 8)):
        other, other_losses = run(config, devices=devices)
        np.testing.assert_allclose(other_losses, losses, rtol=1e-5)
        # Adam divides by the root of the second moment: judge parameters against the learning rate.
        chex.assert_trees_all_close(other["params"], whole["params"], atol=2e-4 * CONFIG.learning_rate * 50)


def test_training_learns_the_classes():
    config = replace(CONFIG, duration_kimg=2.4, learning_rate=5e-3)
    state, losses = run(config)
    assert np.mean(losses[-50:]) < 0.6 * np.mean(losses[:20])
    x = jnp.zeros((8, 8, 1))
    denoiser = NETWORK.denoiser(state["ema"])
    means = [float(denoiser.given(label)(x, 20.0).mean()) for label in (0, 1)]
    # At large sigma the posterior mean is the class mean: -0.5 and 0.5.
    assert means[0] < -0.25 and means[1] > 0.25


def test_bad_training_input_is_refused():
    images = np.zeros((4, 8, 8, 1), np.float32)
    labels = np.zeros(4, np.int32)
    state = initial_state(NETWORK, CONFIG)

    def attempt(images=images, labels=labels, config=CONFIG, devices=1):
        next(train_steps(NETWORK, state, images, labels, config, parallel.data_mesh(jax.devices()[:devices])))

    for message, arguments in {
        "img_resolution": {"images": images[:, :4, :4]},
        "label_dim": {"labels": labels + 2},
        "one per image": {"labels": labels[:2]},
        "multiple of the 3 devices": {"devices": 3},
    }.items():
        with pytest.raises(InputError, match=message):
            attempt(**arguments)
    for name, value in (("batch_size", 0), ("micro_batch", 3), ("learning_rate", -1.0), ("duration_kimg", 0.0)):
        with pytest.raises(InputError, match=name):
            replace(CONFIG, **{name: value})
