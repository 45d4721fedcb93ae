from functools import partial

import jax
import numpy as np
import pytest

from dgu.analysis import Runs, Schedule, evaluate, fit_classifiers, fit_two_layer, quadratic_features
from dgu.core.errors import InputError
from dgu.training.classifiers.orders import epoch_order
from tests.training.classifiers.sgd_reference import loss_and_slope

N, D, H, K = 60, 7, 5, 3
HELD = np.arange(40, N)


def problem():
    rng = np.random.default_rng(8)
    y = rng.integers(0, K, N)
    x = rng.normal(size=(N, D)) + np.eye(D)[y]
    rows = np.full((2, 30), -1)
    rows[0], rows[1, :17] = rng.permutation(40)[:30], rng.permutation(40)[:17]
    return x, y, Runs(rows, np.array([6, 9]), np.array([0.4, 0.2]))


def numpy_network(x, c, params, orders, rates, batch, momentum):
    p = {name: np.array(value, np.float64) for name, value in params.items()}
    velocity = {name: np.zeros_like(value) for name, value in p.items()}
    for order, rate in zip(orders, rates):
        for start in range(0, len(order), batch):
            at = order[start : start + batch]
            before = x[at] @ p["hidden"].T + p["hidden_bias"]
            after = np.maximum(before, 0)
            slope = loss_and_slope("softmax_mse", after @ p["readout"].T + p["readout_bias"], c[at])[1]
            back = (slope @ p["readout"]) * (before > 0)
            grads = {
                "hidden": back.T @ x[at], "hidden_bias": back.sum(0),
                "readout": slope.T @ after, "readout_bias": slope.sum(0),
            }  # fmt: skip
            for name in p:
                velocity[name] = momentum * velocity[name] + grads[name]
                p[name] = p[name] - rate * velocity[name]
    return p


def test_five_epochs_equal_numpy_and_start_like_torch(x64):
    x, y, runs = problem()
    train = partial(
        fit_two_layer, x, y, loss="softmax_mse", validation=HELD, width=H, batch_size=8, epochs=5, momentum=0.5
    )  # fmt: skip
    tiny = Runs(runs.rows, runs.seed, np.full(2, 1e-13))
    start = train(tiny, schedule=Schedule("cosine_restarts", 2)).final.params
    fit = train(runs, schedule=Schedule("cosine_restarts", 2))
    for run in range(2):
        rows = runs.rows[run][runs.rows[run] >= 0]
        orders = [np.asarray(epoch_order(runs.seed[run], e, np.ones(len(rows), bool))) for e in range(5)]
        rates = runs.learning_rate[run] * (1 + np.cos(np.pi * (np.arange(5) % 2) / 2)) / 2
        one = {name: value[run] for name, value in start.items()}
        want = numpy_network(x[rows], y[rows], one, orders, rates, 8, 0.5)
        for name in want:
            np.testing.assert_allclose(fit.final.params[name][run], want[name], rtol=0, atol=1e-6, err_msg=name)
    for name, fan_in in (("hidden", D), ("hidden_bias", D), ("readout", H), ("readout_bias", H)):
        values = np.asarray(start[name])
        assert 0.7 * fan_in**-0.5 < np.abs(values).max() < fan_in**-0.5
        assert np.abs(values[0] - values[1]).max() > 0.05
    accuracy, loss = evaluate(fit.model, x, y, np.tile(HELD, (2, 1)), loss="softmax_mse")
    at = np.argmax(np.asarray(fit.epochs)[None] == np.asarray(fit.chosen_epoch)[:, None], axis=1)
    np.testing.assert_allclose(loss, np.asarray(fit.validation_loss)[[0, 1], at], atol=1e-12)
    np.testing.assert_allclose(accuracy, np.asarray(fit.validation_accuracy)[[0, 1], at], atol=1e-12)


def test_equal_moments_are_told_apart_by_the_network_and_by_quadratic_features_only():
    """XOR of signs: both classes have mean 0 and covariance I, a linear classifier can only guess."""
    rng = np.random.default_rng(1)
    n, held, test = 1024, 512, 4096
    y = rng.integers(0, 2, n + held + test)
    x = rng.choice([-1.0, 1.0], size=(len(y), 4))
    x[:, 1] = x[:, 0] * (2 * y - 1)
    x = (x + 0.3 * rng.normal(size=x.shape)).astype(np.float32)
    runs = Runs(np.arange(n)[None], np.array([0]), np.array([0.5]))
    options = dict(loss="cross_entropy", schedule="constant", epochs=20, validation=np.arange(n, n + held))
    at = np.arange(n + held, len(y))[None]
    flat = np.asarray(quadratic_features(x))
    # Columns of zeros change no linear classifier; with them one program serves for both.
    wide = np.pad(x, ((0, 0), (0, flat.shape[1] - x.shape[1])))
    linear, quadratic = (fit_classifiers(f, y, runs, **options) for f in (wide, flat))
    network = fit_two_layer(x, y, runs, width=16, **options)
    scores = [
        float(evaluate(fit.model, f, y, at, loss="cross_entropy")[0][0])
        for fit, f in ((linear, wide), (quadratic, flat), (network, x))
    ]
    assert abs(scores[0] - 0.5) < 0.05 and scores[1] > 0.98 and scores[2] > 0.98


def test_bad_input():
    x, y, runs = problem()
    options = dict(loss="cross_entropy", schedule="constant", epochs=1, validation=HELD)
    with pytest.raises(InputError, match="width = 0: must be at least 1"):
        fit_two_layer(x, y, runs, width=0, **options)
    with pytest.raises(InputError, match=r"runs\.initial = 'given'"):
        fit_two_layer(
            x, y, jax.tree.map(np.asarray, Runs(*[runs.rows, runs.seed, runs.learning_rate], None, x)), **options
        )
