"""The benchmarks run, and what they compare with us does the work it claims to do."""

import importlib.util
import json
import math
import os

import jax
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from benchmarks import sampling
from tests.analysis.sgd_reference import train_linear

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")


@pytest.fixture
def run_quickly(monkeypatch, tmp_path, capsys):
    """Runs a benchmark's ``main`` with ``--quick`` on one thread: its figures, and what it printed."""

    def run(module, **options):
        # The cores and the devices of the test process are not the benchmark's to choose.
        monkeypatch.delattr(os, "sched_setaffinity", raising=False)
        monkeypatch.setattr(jax.config, "update", lambda name, value: None)
        path = tmp_path / "figures.json"
        module.main(module.Config(quick=True, threads=1, json=str(path), **options))
        return json.loads(path.read_text()), capsys.readouterr().out

    return run


@needs_torch
def test_sampling_runs_and_the_peer_gives_the_same_samples(run_quickly):
    figures, printed = run_quickly(sampling)
    # The program refuses to time peers that differ; a difference of exactly zero would mean it compared nothing.
    assert 0 < figures["largest_difference_from_torch"] < 1e-3
    assert figures["evaluations"] == 3
    assert set(figures["seconds"]) == {"dgu 1 x 2", "chain 1 x 2", "torch"}
    assert set(figures["relative_throughput"]) == {"dgu 1 x 2 to chain 1 x 2", "dgu 1 x 2 to torch"}
    for name, at in figures["seconds"].items():
        walls = [wall for wall, _ in figures["times"][name]]
        assert len(walls) == 2 and 0 < at["minimum"] == min(walls)
        assert at["minimum"] <= at["quartile_low"] <= at["median"] <= at["quartile_high"] <= max(walls)
        np.testing.assert_allclose(figures["images_per_second"][name], 2 / at["median"])
        assert name in printed
    ratio = figures["relative_throughput"]["dgu 1 x 2 to torch"]["median"]
    ours, theirs = ([wall for wall, _ in figures["times"][name]] for name in ("dgu 1 x 2", "torch"))
    np.testing.assert_allclose(ratio, np.median(np.divide(theirs, ours)))


def products(jaxpr):
    """Multiplications of all convolutions and matrix products of a program."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            *taps, _ = equation.invars[1].aval.shape
            total += math.prod(taps) * math.prod(equation.outvars[0].aval.shape)
        elif equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            depth = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
            total += depth * math.prod(equation.outvars[0].aval.shape)
        total += sum(products(inner) for inner in jaxprs_in_params(equation.params))
    return total


def test_the_chain_has_the_products_of_the_network():
    denoiser, _ = sampling.load_network()
    network = denoiser.network
    x, labels = np.zeros((1, *network.shape), np.float32), np.zeros((1, 10), np.float32)
    weights = sampling.chain_weights(denoiser)
    chain = jax.make_jaxpr(lambda *at: sampling._chain_evaluation(network.unet, weights, *at))(x, 1.0, labels)
    # Counted by hand, layer by layer, for the published architecture: 0.153 GFLOP an image, two for a multiplication.
    assert abs(2 * products(chain.jaxpr) / 0.153e9 - 1) < 0.005
    ours = products(jax.make_jaxpr(lambda x: denoiser.given(0)(x, 1.0))(x[0]).jaxpr)
    # Ours does fewer: the convolution behind the doubling of pixels is done in front of it, at 4/9 of the work, for
    # 5/9 of 16 * 16 * 64 * 64 * 9 less. The sums over groups add a thousandth.
    assert abs((products(chain.jaxpr) - ours) / (5 / 9 * 16 * 16 * 64 * 64 * 9) - 1) < 0.02


@needs_torch
def test_classifiers_run(run_quickly, monkeypatch):
    from benchmarks import classifiers

    for name, size in (("TRAIN", 256), ("POOL", 320), ("VALIDATION", 64)):
        monkeypatch.setattr(classifiers, name, size)
    figures, printed = run_quickly(classifiers, eval_interval=1, peer_epochs=1)
    unit = figures["seconds_per_run_epoch"]
    # At these sizes a difference of two calls, which the time of an epoch is, may well come out negative.
    assert unit["torch_resident"] > 0 and unit["torch_loader"] > 0 and math.isfinite(unit["dgu"])
    assert figures["features"] == 1024 and figures["config"]["runs"] == 2
    np.testing.assert_allclose(figures["ratio_to_resident"], unit["torch_resident"] / unit["dgu"])
    np.testing.assert_allclose(figures["ratio_to_loader"], unit["torch_loader"] / unit["dgu"])
    total = figures["dgu_fixed_seconds"] + 600 * figures["dgu_seconds_per_epoch_of_all_runs"]
    np.testing.assert_allclose(unit["dgu"], total / (2 * 600))
    assert "torch, DataLoader" in printed


@needs_torch
@pytest.mark.parametrize("loader", [False, True])
def test_the_classifiers_peer_is_plain_sgd_on_softmax_and_squared_error(monkeypatch, loader):
    import torch

    from benchmarks import classifiers

    rng = np.random.default_rng(0)
    x, y = rng.random((256, 8), np.float32), np.arange(256) % classifiers.CLASSES
    made, orders, linear, permute = [], [], torch.nn.Linear, torch.randperm

    def layer(*args, **kwargs):
        made.append(linear(*args, **kwargs))
        made.append(made[0].weight.detach().numpy().T.astype(np.float64))
        return made[0]

    def shuffled(*args, **kwargs):
        orders.append(permute(*args, **kwargs))
        return orders[-1]

    monkeypatch.setattr(torch.nn, "Linear", layer)
    monkeypatch.setattr(torch, "randperm", shuffled)
    config = classifiers.Config(peer_epochs=3, eval_interval=3)
    data = torch.from_numpy(x), torch.from_numpy(y)
    classifiers.torch_run(*data, data, config, loader=loader)
    model, start = made
    # With the loader, the loop draws an order that it does not use before the loader draws its own.
    used = [order.numpy() for order in orders][1 if loader else 0 :: 2 if loader else 1]
    rates = np.full(3, classifiers.RATE)
    path = train_linear(
        x.astype(np.float64), y, used, loss="softmax_mse", outputs=4, rates=rates, batch=classifiers.BATCH, w=start
    )
    moved = path[-1][0] - start
    np.testing.assert_allclose(model.weight.detach().numpy().T - start, moved, atol=2e-3 * np.abs(moved).max() + 3e-8)
