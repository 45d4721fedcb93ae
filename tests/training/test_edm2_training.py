"""EDM2's loss, its training arithmetic and the power-function averages against the reference."""

import json
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dgu.core.errors import InputError
from dgu.models import EDM2Config, EDMNetwork, edm2_from_arrays, load_checkpoint
from dgu.models.weights import params_to_arrays
from dgu.training import (
    TrainingConfig,
    averages,
    edm2_loss,
    power_ema_coefficients,
    power_ema_exponent,
    power_ema_reconstruct,
    power_ema_std,
    train_in_directory,
    update,
)
from dgu.training.averages import reconstruct_average, stored_averages
from dgu.training.loop import learning_rate_at
from tests import parity
from tests.training.test_training import summary

EDM2 = parity.load("edm2_cond.npz")
PHEMA = parity.load("edm2_phema.npz")


def check(tree, prefix, bound):
    """Every tensor of the reference under ``prefix``, each judged against its largest entry."""
    arrays = params_to_arrays(tree)
    names = [key for key in EDM2 if key.startswith(prefix)]
    assert len(names) > 50
    for key in names:
        got = summary(arrays[key.removeprefix(prefix)])
        assert np.abs(got - EDM2[key]).max() <= bound * max(np.abs(EDM2[key]).max(), 1e-300), key


def draws(prefix):
    images, noise = (jnp.asarray(parity.nhwc(EDM2[f"{prefix}:{k}"]), jnp.float64) for k in ("images", "noise"))
    rnd = jnp.asarray(np.squeeze(EDM2[f"{prefix}:rnd"]), jnp.float64)
    return images, rnd, noise, jnp.asarray(EDM2[f"{prefix}:class_labels"], jnp.float64)


@partial(jax.jit, static_argnames="network")
def gradients(params, network, images, rnd, noise, labels):
    def objective(params):
        losses = jax.vmap(partial(edm2_loss, network, params))(images, rnd, noise, labels)
        return losses.sum() / len(images), losses

    return jax.grad(objective, has_aux=True)(params)


@pytest.fixture
def denoiser(x64):
    denoiser = edm2_from_arrays(parity.config(EDM2), parity.params(EDM2))
    return replace(denoiser, params=parity.double(denoiser.params))


def test_loss_and_gradients_match_the_reference(denoiser):
    tree, got = gradients(denoiser.params, denoiser.network, *draws("loss"))
    assert parity.relative(parity.nchw(got), EDM2["loss:loss64"]) < 1e-12
    check(tree, "loss:grad64:", 1e-10)


def test_six_training_steps_match_the_reference(denoiser):
    given = json.loads(str(EDM2["train:kwargs"]))
    batch, schedule = given["batch"], given["lr"]
    config = TrainingConfig(
        duration_kimg=batch * given["steps"] / 1000,
        batch_size=batch,
        learning_rate=schedule["ref_lr"],
        rampup_kimg=schedule["rampup_Mimg"] * 1000,
        decay_kimg=schedule["ref_batches"] * batch / 1000,
        adam_b2=given["betas"][1],
        power_ema_stds=tuple(given["ema_stds"]),
        loss="edm2",
    )
    params = denoiser.params
    state = {
        "params": params, "ema": params, "more_ema": [params], "optimizer": optax.scale_by_adam().init(params),
        "step": jnp.zeros((), jnp.int32), "nonfinite": jnp.zeros((), jnp.int32),
    }  # fmt: skip
    step = jax.jit(partial(update, config=config))
    for i, (loss, rate, *_) in enumerate(EDM2["train:history"]):
        state = {**state, "params": denoiser.network.constrained(state["params"])}
        tree, got = gradients(state["params"], denoiser.network, *(array[i] for array in draws("train")))
        np.testing.assert_allclose(got.mean(), loss, rtol=1e-11)
        np.testing.assert_allclose(learning_rate_at(jnp.float64(i * batch), config), rate, rtol=1e-12)
        state = step(state, tree)
    check(state["params"], "train:param64:", 1e-10)
    check(state["ema"], "train:ema64-0.050:", 1e-10)
    check(state["more_ema"][0], "train:ema64-0.100:", 1e-10)


def test_gradients_that_are_not_finite_count_nothing():
    params = {"w": jnp.zeros(4)}
    state = {
        "params": params, "ema": params, "optimizer": optax.scale_by_adam().init(params),
        "step": jnp.asarray(5, jnp.int32), "nonfinite": jnp.asarray(0, jnp.int32),
    }  # fmt: skip
    config = TrainingConfig(1.0, 8, loss="edm2", rampup_kimg=0.0)
    bad = update(state, {"w": jnp.asarray([jnp.nan, jnp.inf, -jnp.inf, 1.0])}, config)
    good = update(state, {"w": jnp.asarray([0.0, 0.0, 0.0, 1.0])}, config)
    np.testing.assert_array_equal(bad["params"]["w"], good["params"]["w"])


def test_widths_and_exponents():
    np.testing.assert_allclose(power_ema_exponent(PHEMA["convert:stds"]), PHEMA["convert:exponents"], rtol=1e-12)
    np.testing.assert_allclose(power_ema_std(PHEMA["convert2:exponents"]), PHEMA["convert2:stds"], rtol=1e-14)
    assert float(power_ema_exponent(power_ema_std(0.0))) == pytest.approx(0, abs=1e-9)
    with pytest.raises(InputError, match=r"exponent = -0\.5: must be 0 or more"):
        power_ema_std(-0.5)


@pytest.mark.parametrize("when", ["out", "mid"])
def test_reconstruction_matches_the_reference(when):
    taken, time = (PHEMA[name] for name in ("snapshots", "times")), float(PHEMA[f"{when}:time"])
    snapshots, times = taken
    for i, std in enumerate(PHEMA["out:stds"]):
        got = power_ema_coefficients(times, PHEMA["stds"], time, float(std))
        expected = PHEMA[f"{when}:coefficients_exact"][i]
        np.testing.assert_allclose(got[: len(expected)], expected, atol=1e-12)
        assert not got[len(expected) :].any()
        values = power_ema_reconstruct(snapshots, times, PHEMA["stds"], time, float(std))
        np.testing.assert_allclose(values, PHEMA[f"{when}:reconstructed_exact"][i], atol=1e-12)


def test_a_stored_width_is_reconstructed_exactly_and_others_nearly():
    """Against averages tracked in this test, one number at a time."""
    walk = np.random.default_rng(0).normal(size=(2048, 3)).cumsum(0)
    exponents = {std: float(power_ema_exponent(std)) for std in (0.05, 0.1, 0.07)}
    averages, kept = {std: walk[0] for std in exponents}, []
    for step, value in enumerate(walk, 1):
        for std, g in exponents.items():
            beta = (1 - 1 / step) ** (g + 1)
            averages[std] = beta * averages[std] + (1 - beta) * value
        if step % 64 == 0:
            kept += [(step, std, averages[std]) for std in (0.05, 0.1)]
    times, stds, values = (np.asarray(column) for column in zip(*kept))
    exact = power_ema_reconstruct(values, times, stds, 2048, 0.1)
    near = power_ema_reconstruct(values, times, stds, 2048, 0.07)
    np.testing.assert_allclose(exact, averages[0.1], rtol=1e-12)
    assert parity.relative(near, averages[0.07]) < 1e-3


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (((1.0, 1.0), (0.1, 0.1), 1.0, 0.1), "stds"),
        (((1.0, 2.0), (0.1, 0.1), 0.5, 0.1), "time"),
        (((0.0, 2.0), (0.1, 0.1), 2.0, 0.1), "times"),
        (((1.0, 2.0), (0.1, 0.1), 2.0, 0.3), "std"),
        (((1.0, 2.0), (0.1, 0.1), (2.0, 3.0), 0.1), r"time.shape = \(2,\)"),
    ],
)
def test_snapshots_that_do_not_fit_are_refused(given, names):
    with pytest.raises(InputError, match=names):
        power_ema_coefficients(*(np.asarray(value) if isinstance(value, tuple) else value for value in given))


def test_a_network_without_an_estimate_of_its_error_has_no_such_loss():
    model = load_checkpoint("fashion-mnist-14")
    image = jnp.zeros(model.network.shape)
    with pytest.raises(InputError, match="EDM2Config"):
        jax.eval_shape(lambda: edm2_loss(model.network, model.denoiser.params, image, 0.1, image, 0))


NETWORK = EDMNetwork(EDM2Config(4, 1, 1, model_channels=4, channel_mult=(1,), num_blocks=1, logvar_channels=4))
CONFIG = TrainingConfig(0.16, 8, learning_rate=1e-2, rampup_kimg=0.0, loss="edm2", power_ema_stds=(0.1, 0.25))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training of 20 updates that was cut off after 12, and then went on."""
    out = tmp_path_factory.mktemp("training")
    images = np.random.default_rng(0).normal(size=(16, 4, 4, 1)).astype(np.float32)

    def run(stop):
        steps = train_in_directory(
            out, NETWORK, images, None, CONFIG, about={"data": "noise"}, tick_kimg=0.016, checkpoint_kimg=0.032
        )
        for seen, _ in steps:
            if seen >= stop:
                break
        steps.close()

    run(96)
    run(1000)
    return out


def test_averages_of_other_widths_come_from_those_that_were_stored(trained, tmp_path):
    stored = stored_averages(trained)
    assert [(seen, std) for seen, std, _ in stored] == [(32 * k, std) for k in range(1, 6) for std in (0.1, 0.25)]
    # The network of the run is the average of the first width, and the basis gives it back exactly.
    kept = load_checkpoint(trained).denoiser.params
    again = load_checkpoint(reconstruct_average(trained, tmp_path, 0.1)).denoiser.params
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-7), again, kept)
    # Between the two: nearer to both than they are to each other.
    middle = load_checkpoint(reconstruct_average(trained, tmp_path, 0.17)).denoiser.params
    wide = load_checkpoint(stored[-1][2]).denoiser.params
    apart = tree_distance(kept, wide)
    assert apart > 0 and max(tree_distance(middle, kept), tree_distance(middle, wide)) < apart


def tree_distance(a, b):
    return float(np.sqrt(sum(np.sum(np.square(x - y)) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))))


def test_the_command_for_averages_says_in_a_line_what_is_wrong(trained, tmp_path, capsys):
    averages.main([str(trained), str(tmp_path / "n.npz"), "--std", "0.12", "--images-seen", "96"])
    assert load_checkpoint(tmp_path / "n.npz").metadata["power_ema_std"] == 0.12
    for bad in (["--std", "0.4"], ["--std", "0.1", "--images-seen", "33"]):
        with pytest.raises(SystemExit) as end:
            averages.main([str(trained), str(tmp_path / "m.npz"), *bad])
        assert end.value.code == 2 and not (tmp_path / "m.npz").exists()
    with pytest.raises(SystemExit):
        averages.main([str(tmp_path), str(tmp_path / "m.npz"), "--std", "0.1"])
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3 and all(line.startswith("error: ") for line in errors)
