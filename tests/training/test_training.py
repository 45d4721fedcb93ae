"""The loss, its gradients and the training arithmetic against the reference; resuming; devices."""

from dataclasses import replace
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dgu.core import parallel
from dgu.core.checkpoint import TrainingCheckpoints
from dgu.core.errors import InputError
from dgu.models import ADMConfig, EDMNetwork, SongUNetConfig, edm_from_arrays
from dgu.models.weights import params_to_arrays
from dgu.training import (
    TrainingConfig,
    edm_loss,
    edm_sigma,
    image_order,
    initial_state,
    loop,
    train_in_directory,
    train_steps,
    update,
)
from tests import parity

ADM = parity.load("adm_edm.npz")
SMALL = {"model_channels": 8, "channel_mult": (1,), "num_blocks": 1, "attn_resolutions": ()}
NETWORK = EDMNetwork(ADMConfig(8, 1, 1, label_dim=2, dropout=0.1, **SMALL))
#: Tests change its length and seed rather than its numbers, which are constants of the compiled program.
CONFIG = TrainingConfig(duration_kimg=0.048, batch_size=8, learning_rate=1e-2, rampup_kimg=0.016, ema_halflife_kimg=0.1)


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


@partial(jax.jit, static_argnames="network")
def gradients(params, network, images, rnd, noise, labels):
    """The gradient of the loss, summed over pixels and averaged over the batch, and the loss elementwise."""

    def objective(params):
        losses = jax.vmap(partial(edm_loss, network, params))(images, rnd, noise, labels)
        return losses.sum() / len(images), losses

    return jax.grad(objective, has_aux=True)(params)


def draws(prefix):
    images, noise = (jnp.asarray(parity.nhwc(ADM[f"{prefix}:{k}"]), jnp.float64) for k in ("images", "noise"))
    rnd = jnp.asarray(ADM[f"{prefix}:rnd"][..., 0, 0, 0], jnp.float64)
    return images, rnd, noise, jnp.asarray(ADM[f"{prefix}:class_labels"], jnp.float64)


@pytest.fixture
def denoiser(x64):
    denoiser = edm_from_arrays(parity.config(ADM), parity.params(ADM))
    return replace(denoiser, params=parity.double(denoiser.params))


def test_loss_and_gradients_match_the_reference(denoiser):
    images, rnd, noise, labels = draws("loss")
    np.testing.assert_allclose(edm_sigma(rnd), ADM["loss:sigma"].ravel(), rtol=1e-12)
    tree, got = gradients(denoiser.params, denoiser.network, images, rnd, noise, labels)
    assert parity.relative(parity.nchw(got), ADM["loss:loss64"]) < 1e-8
    assert check_summaries(tree, "loss:grad64:", 1e-8) > 19


def test_training_steps_match_the_reference(denoiser):
    config = TrainingConfig(
        duration_kimg=0.016,
        batch_size=4,
        learning_rate=1e-3,
        rampup_kimg=0.016,
        ema_halflife_kimg=0.032,
        ema_rampup_ratio=0.5,
    )
    state = {
        "params": denoiser.params,
        "ema": jax.tree.map(jnp.copy, denoiser.params),
        "optimizer": optax.scale_by_adam().init(denoiser.params),
        "step": jnp.zeros((), jnp.int32),
        "nonfinite": jnp.zeros((), jnp.int32),
    }

    step = jax.jit(partial(update, config=config))
    for i in range(4):
        images, rnd, noise, labels = (array[i] for array in draws("train"))
        tree, got = gradients(state["params"], denoiser.network, images, rnd, noise, labels)
        np.testing.assert_allclose(got.mean(), ADM["train:history"][i, 0], rtol=1e-8)
        state = step(state, tree)
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


MICRO = replace(CONFIG, micro_batch=4)


@pytest.fixture(scope="module")
def runs():
    """CONFIG on one device, and MICRO on two: final states, losses, and how often the gradient was traced."""
    calls, original, found = [], loop._gradients, []
    loop._program.cache_clear()  # Nothing traced before serves.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_gradients", lambda *args: calls.append(1) or original(*args))
        for config, devices in ((CONFIG, 1), (MICRO, 2)):
            calls.clear()
            found.append((*run(config, devices=devices), len(calls)))
    return found


@pytest.fixture(scope="module")
def whole(runs):
    return runs[0][:2]


@pytest.fixture(scope="module")
def micro(runs):
    return runs[1][:2]


def run(config=CONFIG, network=NETWORK, state=None, stop=None, devices=1):
    rng = np.random.default_rng(0)
    labels = np.arange(20) % 2
    images = (0.3 * rng.normal(size=(20, *network.shape)) + labels[:, None, None, None] - 0.5).astype(np.float32)
    mesh = parallel.data_mesh(jax.devices()[:devices])
    state = initial_state(network, config) if state is None else state
    out = []
    for latest, info in train_steps(network, state, images, labels, config, mesh):
        final = latest
        out.append(float(info["loss"]))
        if info["step"] == stop:
            break
    return jax.device_get(final), out


def test_resuming_from_a_checkpoint_gives_the_same_bits(tmp_path, whole):
    whole, losses = whole
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


@pytest.mark.parametrize("other", ["both", pytest.param("devices alone", marks=pytest.mark.slow)])
def test_micro_batches_and_devices_do_not_change_the_run(whole, micro, other):
    whole, losses = whole
    other, other_losses = micro if other == "both" else run(devices=2)
    np.testing.assert_allclose(other_losses, losses, rtol=1e-5)
    # Adam divides by the root of the second moment: judge parameters against the learning rate.
    chex.assert_trees_all_close(other["params"], whole["params"], atol=2e-4 * CONFIG.learning_rate * 50)


#: A DDPM++ that is told how its images are augmented, trained with weights and levels of the variance-exploding
#: process.
DDPMPP = EDMNetwork(SongUNetConfig(8, 1, 1, 2, 9, dropout=0.1, **SMALL))
AUGMENTED = replace(CONFIG, augment_probability=0.3, loss="ve", duration_kimg=0.024, seed=3)


@pytest.mark.slow
def test_augmented_training_is_the_same_however_it_is_cut(tmp_path):
    whole, losses = run(AUGMENTED, DDPMPP)
    assert len(losses) == 3 and np.isfinite(losses).all()
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(whole["optimizer"].nu["map_augment"]))
    part, first = run(AUGMENTED, DDPMPP, stop=1)
    rest, second = run(AUGMENTED, DDPMPP, state=jax.device_put(part))
    assert first + second == losses
    chex.assert_trees_all_equal(rest, whole)
    for config, devices in ((AUGMENTED, 2), (replace(AUGMENTED, micro_batch=4), 1)):
        other, other_losses = run(config, DDPMPP, devices=devices, stop=1)
        np.testing.assert_allclose(other_losses, first, rtol=1e-6)
        # After one update Adam's first moment is a tenth of the gradient, and its parameters are the old ones (the
        # ramp).
        moments, expected = other["optimizer"].mu, part["optimizer"].mu
        largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
        chex.assert_trees_all_close(moments, expected, rtol=0, atol=1e-6 * largest)
        chex.assert_trees_all_close(other["params"], part["params"], rtol=0, atol=1e-6)
    plain, _ = run(replace(AUGMENTED, augment_probability=0.0), DDPMPP, stop=1)
    assert all(np.abs(leaf).max() == 0 for leaf in jax.tree.leaves(plain["optimizer"].mu["map_augment"]))


class Line(EDMNetwork):
    """A network of one line, which compiles at once."""

    def apply(self, params, x, sigma, labels=None, augment_labels=None, *, key=None):
        return params["slope"] * x + params["shift"][labels] * sigma


def test_the_loss_is_scaled_for_the_gradient_alone():
    params = {"slope": jnp.float32(0.3), "shift": jnp.asarray([0.1, -0.2])}
    images = np.random.default_rng(0).normal(size=(8, 8, 8, 1)).astype(np.float32)
    given = params, jnp.asarray(images)[None], jnp.arange(8)[None] % 2, jnp.arange(8)[None], jax.random.key(0)
    gradients = jax.jit(loop._gradients, static_argnums=(5, 6))
    loss, plain = gradients(*given, Line(NETWORK.unet), CONFIG)
    same, scaled = gradients(*given, Line(NETWORK.unet), replace(CONFIG, loss_scaling=128.0))
    np.testing.assert_allclose(same, loss, rtol=1e-6)
    chex.assert_trees_all_close(scaled, jax.tree.map(lambda leaf: 128 * leaf, plain), rtol=1e-5)
    assert all(np.abs(leaf).min() > 1e-3 for leaf in jax.tree.leaves(plain))


def test_training_learns_the_classes():
    state, losses = run(replace(CONFIG, duration_kimg=0.8))
    assert np.mean(losses[-25:]) < 0.8 * np.mean(losses[:16])
    denoise = jax.jit(lambda denoiser, x: denoiser(x, 20.0))
    denoiser, x = NETWORK.denoiser(state["ema"]), jnp.zeros(NETWORK.shape)
    means = [float(denoise(denoiser.given(label), x).mean()) for label in (0, 1)]
    # At large sigma the posterior mean is the class mean: -0.5 and 0.5.
    np.testing.assert_allclose(means, [-0.5, 0.5], atol=0.1)


def test_one_trace_serves_a_run(runs):
    for _, losses, traces in runs:
        assert len(losses) == 6 and traces == 1


def abstract(tree):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


@pytest.mark.parametrize("micro", [8, 4])
def test_training_lowers_for_accelerators(micro):
    program = loop._compiled(NETWORK, replace(CONFIG, micro_batch=micro), parallel.data_mesh(jax.devices()[:1]))
    state = jax.eval_shape(lambda: initial_state(NETWORK, CONFIG))
    shape = (3, 8 // micro, micro)
    batches = np.zeros((*shape, *NETWORK.shape), np.float32), np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    exported = jax.export.export(program, platforms=["cuda", "tpu"])(state, *abstract((*batches, np.int32(3))), key)
    assert exported.platforms == ("cuda", "tpu")


def test_updates_made_in_one_call_are_those_made_one_by_one(runs):
    """Also where the calls are cut short by stops, and where the last one has fewer updates left."""
    (whole, losses, _), *_ = runs
    rng = np.random.default_rng(0)
    labels = np.arange(20) % 2
    images = (0.3 * rng.normal(size=(20, *NETWORK.shape)) + labels[:, None, None, None] - 0.5).astype(np.float32)
    mesh, calls = parallel.data_mesh(jax.devices()[:1]), []
    for state, info in train_steps(
        NETWORK, initial_state(NETWORK, CONFIG), images, labels, CONFIG, mesh, together=4, stops=(1, 3)
    ):
        final = state
        calls.append((info["step"], info["updates"]))
        np.testing.assert_allclose(info["loss"], np.mean(losses[info["step"] - info["updates"] : info["step"]]), 1e-6)
    assert calls == [(1, 1), (3, 2), (6, 3)]
    chex.assert_trees_all_equal(jax.device_get(final), whole)


def test_bad_training_input_is_refused():
    images = np.zeros((4, *NETWORK.shape), np.float32)
    labels = np.zeros(4, np.int32)
    state = initial_state(NETWORK, CONFIG)

    def attempt(images=images, labels=labels, config=CONFIG, devices=1):
        next(train_steps(NETWORK, state, images, labels, config, parallel.data_mesh(jax.devices()[:devices])))

    for message, arguments in {
        "img_resolution": {"images": images[:, :2, :2]},
        "label_dim": {"labels": labels + 2},
        "one per image": {"labels": labels[:2]},
        "batch_size = 7: must be a multiple of the 2 devices": {"devices": 2, "config": replace(CONFIG, batch_size=7)},
        "micro_batch = 1: must be a multiple of the 2": {"devices": 2, "config": replace(CONFIG, micro_batch=1)},
        "augment_dim = 0: must be 9": {"config": replace(CONFIG, augment_probability=0.1)},
    }.items():
        with pytest.raises(InputError, match=message):
            attempt(**arguments)
    for name, value in (
        *(("batch_size", 0), ("micro_batch", 3), ("learning_rate", -1.0), ("duration_kimg", 0.0), ("seed", -1)),
        *(("duration_kimg", np.inf), ("p_std", np.nan), ("ema_rampup_ratio", 0.0), ("rampup_kimg", -1.0)),
        *(("augment_probability", 1.1), ("augment_probability", np.nan)),
    ):
        with pytest.raises(InputError, match=f"^{name} = ") as error:
            replace(CONFIG, **{name: value})
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("interval", ["tick_kimg", "checkpoint_kimg"])
@pytest.mark.parametrize("kimg", [0.0, -1.0, np.nan, np.inf])
def test_an_interval_that_is_none_is_refused_before_anything_is_written(tmp_path, interval, kimg):
    images, labels = np.zeros((4, *NETWORK.shape), np.float32), np.zeros(4, np.int32)
    with pytest.raises(InputError, match=f"^{interval} = .*: must be positive and finite$"):
        next(train_in_directory(tmp_path / "new", NETWORK, images, labels, CONFIG, about={}, **{interval: kimg}))
    assert not (tmp_path / "new").exists()
