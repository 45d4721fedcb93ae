"""Runs that differ in learning rate alone are trained as a family: found in any order, and as each would be alone."""

import dataclasses

import jax
import numpy as np
import pytest

from dgu.analysis import Runs, fit_classifiers
from dgu.core.parallel import data_mesh
from dgu.training.classifiers import sgd
from dgu.training.classifiers.sgd import families, train_runs
from dgu.training.classifiers.two_layer import fit_two_layer
from tests.training.classifiers.test_classifiers import HELD, OPTIONS, K, problem, reference


def repeated(runs, rates, order):
    """Every run at each of the rates, in an order of its own."""
    number = len(runs.seed)
    every = Runs(
        rows=np.repeat(runs.rows, len(rates), axis=0),
        seed=np.repeat(runs.seed, len(rates)),
        learning_rate=np.tile(rates, number),
        classes=np.tile(np.arange(K), (number * len(rates), 1)),
    )
    return Runs(**{field.name: getattr(every, field.name)[order] for field in dataclasses.fields(Runs)[:4]})


def test_families_are_the_runs_that_share_all_but_the_rate():
    _, _, runs = problem()
    order = np.random.default_rng(0).permutation(6)
    given = repeated(runs, np.array([0.1, 0.4]), order)
    found = families(given, np.tile(HELD, (6, 1)))
    assert found.shape == (3, 2) and sorted(found.reshape(-1)) == list(range(6))
    for first, second in found:
        assert given.seed[first] == given.seed[second] and {order[first] // 2} == {order[second] // 2}
    # Of other validation rows, or of another number of rates: each run is on its own.
    held = np.tile(HELD, (6, 1))
    held[0, 0] = 61
    assert families(given, held).tolist() == [[run] for run in range(6)]
    fewer = Runs(*(getattr(given, field.name)[:5] for field in dataclasses.fields(Runs)[:4]))
    assert families(fewer, held[1:]).tolist() == [[run] for run in range(5)]


@pytest.mark.parametrize("method", ["weight", "gram"])
def test_a_member_is_trained_as_alone(x64, method):
    x, y, runs = problem()
    rates, order = np.array([0.1, 0.4]), np.random.default_rng(0).permutation(6)
    given = repeated(runs, rates, order)
    fit = fit_classifiers(x, y, given, loss="softmax_mse", schedule="constant", method=method, momentum=0.6, **OPTIONS)
    np.testing.assert_array_equal(fit.learning_rate, given.learning_rate)
    for place, run in enumerate(order):
        own = dataclasses.replace(runs, learning_rate=np.full(3, rates[run % 2]))
        path = reference(x, y, own, run // 2, loss="softmax_mse", momentum=0.6)
        np.testing.assert_allclose(fit.final.weights[place], path[-1][0], rtol=0, atol=1e-9)
    # Rows of arrays that are spread over devices can be taken by a collective only, in which devices wait.
    assert len(fit.weights.sharding.device_set) == 1


def test_networks_are_families_too(x64):
    x, y, runs = problem()
    given = repeated(runs, np.array([0.1, 0.4]), np.arange(6))
    options = dict(loss="softmax_mse", schedule="constant", momentum=0.6, width=5) | OPTIONS
    together = fit_two_layer(x, y, given, **options)
    for place in range(6):
        # With a rate of its own beside it, so that it is no family.
        pair = Runs(*(getattr(given, field.name)[[place, 5 - place]] for field in dataclasses.fields(Runs)[:4]))
        alone = fit_two_layer(x, y, pair, **options)
        for name, leaf in alone.final.params.items():
            np.testing.assert_allclose(together.final.params[name][place], leaf[0], rtol=0, atol=1e-9)
        np.testing.assert_allclose(together.validation_loss[place], alone.validation_loss[0], rtol=1e-9)


def test_few_families_and_small_chunks_are_trained_run_by_run(x64, monkeypatch):
    """A family counts for its runs: it must neither take more memory than allowed nor leave devices idle."""
    x, y, runs = problem()
    given, seen = repeated(runs, np.array([0.1, 0.4]), np.arange(6)), []
    family = Runs(*(getattr(given, field.name)[:2] for field in dataclasses.fields(Runs)[:4]))
    monkeypatch.setattr(sgd, "train_runs", lambda *a, **k: seen.append(a[4].learning_rate.shape) or train_runs(*a, **k))
    for trained, chunk, devices in ((given, 1, 1), (given, 4, 1), (family, 4, 1), (family, 4, 2)):
        monkeypatch.setattr(sgd, "data_mesh", lambda _, devices=devices: data_mesh(jax.devices()[:devices]))
        fit_classifiers(x, y, trained, loss="softmax_mse", schedule="constant", chunk=chunk, method="weight", **OPTIONS)
    assert seen == [(6, 1), (4, 2), (1, 2), (2, 1)]
