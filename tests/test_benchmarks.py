"""The benchmarks run, and what they compare with us does the work it claims to do."""

import dataclasses
import importlib.util
import json
import math
import os
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import networks, sampling, subjects
from benchmarks.page_tables import TABLES
from dgu.models import ADMConfig, EDMNetwork
from tests.training.classifiers.sgd_reference import train_linear

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
        figures = json.loads(path.read_text())
        # The page can be made of any program's figures; its table has a row for each program that was timed.
        page = "\n".join(TABLES[module.__name__.split(".")[1]](figures))
        assert all(f"| {name} |" in page for name in figures.get("seconds", {}))
        return figures, capsys.readouterr().out

    return run


@needs_torch
def test_sampling_runs_and_the_peer_gives_the_same_samples(run_quickly):
    figures, printed = run_quickly(sampling, compile=False)
    # The program refuses to time peers that differ; a difference of exactly zero would mean it compared nothing.
    assert 0 < figures["largest_difference_from"]["torch"] < 1e-3
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


@needs_torch
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_the_compiled_peer_gives_what_the_eager_one_gives_or_says_why_not():
    """Forward, and the gradient of a training step; a compiler that fails leaves its reason and nothing to time."""
    import torch

    from benchmarks.network_peers import differences, torch_peers

    network = EDMNetwork(
        ADMConfig(4, 1, 1, label_dim=2, model_channels=4, channel_mult=(1,), num_blocks=1, dropout=0.0)
    )
    params = subjects.random_params(network)
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((2, 4, 4, 1), np.float32), np.ones(2, np.float32), np.arange(2)
    ours = np.asarray(jax.vmap(lambda x, s, k: network.denoiser(params).given(k)(x, s))(*inputs))
    for passed, expected in (("forward", ours), ("training", None)):
        peers = torch_peers(network, params, inputs, passed, threads=1, compile_too=True)
        assert peers.works.keys() == {"torch", "torch.compile"} and peers.first["torch.compile"] > 0
        apart = differences(peers, expected, dropout=False)
        assert "torch.compile" in apart and all(0 < worst < 1e-5 for worst in apart.values())
    assert differences(peers, None, dropout=True) == {}

    def broken(function, **options):
        return lambda *given: (_ for _ in ()).throw(RuntimeError("no compiler\n  is here"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", broken)
        peers = torch_peers(network, params, inputs, "forward", threads=1, compile_too=True)
    assert peers.works.keys() == {"torch"} == peers.outputs.keys()
    assert peers.failed == {"torch.compile": "RuntimeError: no compiler is here"}


@needs_torch
@pytest.mark.parametrize("name", ["ncsnpp", "imagenet64"])
def test_networks_run_and_the_peer_computes_the_same(run_quickly, name):
    figures, printed = run_quickly(networks, networks=(name,), dtypes=("float32",), compile=False)
    forward, training = figures["results"]
    # The program refuses to time peers that differ; a difference of exactly zero would mean it compared nothing.
    assert 0 < forward["largest_difference"]["torch"] < 1e-5
    assert training["flop_per_image"] == 3 * forward["flop_per_image"] > 0
    for result in (forward, training):
        assert result["batch"] == 2 and result["seconds"].keys() == {"dgu", "chain", "torch"}
        for program, at in result["seconds"].items():
            np.testing.assert_allclose(result["images_per_second"][program], 2 / at["median"])
            share = result["flop_per_image"] * 2 / at["median"] / result["ceiling_flop_per_second"]
            np.testing.assert_allclose(result["share_of_ceiling"][program], share)
        walls = {program: [wall for wall, _ in times] for program, times in result["times"].items()}
        ratio = result["relative_throughput"]["dgu to chain"]["median"]
        np.testing.assert_allclose(ratio, np.median(np.divide(walls["chain"], walls["dgu"])))
    assert f"{name}, training, float32, 2 images" in printed


@needs_torch
def test_the_peers_training_step_is_that_of_the_formulas(x64):
    """One step from a fixed draw: Adam's first step is the sign of the gradient, and the loss is ours."""
    import torch

    from benchmarks.peer import Peer, make_training_step
    from dgu.models.weights import params_to_arrays
    from dgu.training import edm_loss

    network, params = subjects.load("ddpmpp", quick=True)
    network = dataclasses.replace(network, unet=dataclasses.replace(network.unet, dropout=0.0))
    peer = Peer(network, params_to_arrays(params), "cpu", torch.float32)
    before = peer.tensors["dec.8x8_aux_conv.weight"].clone()
    images = np.random.default_rng(0).standard_normal((2, *network.shape), np.float32)
    rows = np.eye(10, dtype=np.float32)[:2]
    step = make_training_step(peer, 1e-3)
    torch.manual_seed(0)
    given = torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, 1)))
    loss = step(given, torch.from_numpy(rows))
    torch.manual_seed(0)
    normal, noise = torch.randn(2).numpy(), np.moveaxis(torch.randn_like(given).numpy(), 1, -1)

    def objective(params):
        losses = jax.vmap(lambda *at: edm_loss(network, params, *at))(images, normal, noise, rows)
        return losses.sum() / 2, losses.mean()

    gradient, expected = jax.jit(jax.grad(objective, has_aux=True))(params)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    moved = (peer.tensors["dec.8x8_aux_conv.weight"] - before).detach().numpy().transpose(2, 3, 1, 0)
    np.testing.assert_allclose(moved, -1e-3 * np.sign(gradient["dec"]["8x8_aux_conv"]["kernel"]), rtol=1e-2)


@pytest.mark.slow
def test_the_largest_micro_batch_follows_the_memory():
    """By the compiler's account alone: more memory, more images, and never more than fit."""
    network = EDMNetwork(ADMConfig(4, 1, 1, model_channels=4, channel_mult=(1,), num_blocks=1))
    found = [networks.largest_micro_batch(network, limit, run=run) for limit, run in ((6e5, True), (2e6, False))]
    for limit, result in zip((6e5, 2e6), found):
        assert result["bytes"] <= limit < result["bytes"] + 16 * 1.2 * result["bytes_per_image"]
        assert result["micro_batch"] % 8 == 0
    assert found[1]["micro_batch"] > 2 * found[0]["micro_batch"] > 0


def test_neighbours_run_and_find_the_same(run_quickly, monkeypatch):
    from benchmarks import neighbours

    monkeypatch.setattr(neighbours, "peak_bytes", lambda name, config: 10**9)
    figures, printed = run_quickly(neighbours)
    assert figures["largest_relative_difference"] < 1e-4 and figures["same_rows"] > 0.99
    assert figures["peak_bytes"] == {"dgu": 10**9, "numpy": 10**9} and "1.00 GB" in printed
    walls = {name: [wall for wall, _ in of] for name, of in figures["times"].items()}
    ratio = figures["relative_throughput"]["dgu to numpy"]["median"]
    np.testing.assert_allclose(ratio, np.median(np.divide(walls["numpy"], walls["dgu"])))
    assert f"faster by {ratio:.2f}" in printed


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


@pytest.mark.slow
def test_distillation_is_compared_at_equal_error(run_quickly):
    from benchmarks import distillation

    figures, printed = run_quickly(distillation)
    exact = figures["exact"]
    assert len(exact) == 10 and all(
        one["error"] <= adam for one, adam in zip(exact, figures["adam_error"], strict=True)
    )
    times = figures["adam_seconds"] / sum(one["seconds"] for one in exact)
    assert f"no larger at each level: {sum(one['seconds'] for one in exact):.2f} s, {times:.0f} times faster" in printed
    whole = figures["all"]
    assert (whole["images"], whole["draws"]) == (1024, 1) and 1 <= min(figures["adam_epochs"]) <= 2
    assert f"{figures['adam_seconds'] / whole['seconds']:.0f} times faster" in printed.replace("\n", " ")


needs_samplers = pytest.mark.skipif(
    None in map(importlib.util.find_spec, ("torch", "diffusers", "azula")),
    reason="PyTorch, diffusers or azula is missing",
)


@needs_samplers
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_samplers_of_other_libraries_give_the_same_samples(run_quickly):
    from benchmarks import samplers

    figures, printed = run_quickly(samplers)
    (result,) = figures["results"]
    assert result["evaluations"] == 5 and result["batch"] == 2
    # The program refuses to time others; a difference of exactly zero would mean it compared nothing.
    assert len(result["largest_difference_from_dgu"]) == 6
    assert all(0 < worst < 1e-3 for worst in result["largest_difference_from_dgu"].values())
    walls = {name: np.array([wall for wall, _ in of]) for name, of in result["times"].items()}
    beyond = walls["azula, Heun"] - walls["network, PyTorch"]
    np.testing.assert_allclose(result["overhead"]["azula, Heun"]["seconds"]["median"], np.median(beyond))
    share = walls["dgu, Euler"] / walls["network, JAX"] - 1
    np.testing.assert_allclose(result["overhead"]["dgu, Euler"]["share"]["median"], np.median(share))
    assert "diffusers, Euler" in printed


@needs_samplers
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_samplers_of_other_libraries_evaluate_the_network_equally_often():
    import torch

    from benchmarks.library_samplers import library_samplers
    from dgu.samplers import karras_sigmas

    class Counting:
        sigma_data, calls = 0.5, 0

        def denoise(self, x, sigma, labels):
            self.calls += 1
            return 0.5 * x

        def network(self, x, noise, labels):
            self.calls += 1
            return 0.5 * x

    peer = Counting()
    for run in library_samplers(peer, karras_sigmas(6), karras_sigmas(11)).values():
        peer.calls = 0
        run(torch.ones(1, 1, 2, 2), torch.zeros(1, 1))
        assert peer.calls == 11


@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed")
def test_scikit_reaches_the_same_optimum(run_quickly):
    from benchmarks import scikit

    figures, printed = run_quickly(scikit)
    tall, wide = figures["results"]
    for result in (tall, wide):
        assert 0 < result["largest_difference_of_least_squares"] < 1e-3
        assert all(0.25 < share <= 1 for share in result["accuracy"].values()) and len(result["accuracy"]) == 5
        walls = [wall for wall, _ in result["times"]["SGDClassifier"]]
        np.testing.assert_allclose(result["seconds_per_run"]["SGDClassifier"]["median"], np.median(walls) / 2)
    # Overlapping classes have an optimum, which SGD does not go below.
    losses = tall["cross_entropy"]
    assert losses["LogisticRegression"] <= losses["dgu, SGD"] < 1.1 * losses["LogisticRegression"]
    assert "tall: 4 classes, 512 rows of 32 features" in printed


@needs_torch
def test_dynamics_runs(run_quickly):
    from benchmarks import dynamics

    figures, printed = run_quickly(dynamics)
    unit = figures["seconds_per_run_epoch"]
    walls = {name: np.median([wall for wall, _ in values]) for name, values in figures["times"].items()}
    np.testing.assert_allclose(unit["dgu"], walls["dgu"] / 16)
    np.testing.assert_allclose(unit["torch"], walls["torch"] / 2)
    np.testing.assert_allclose(figures["ratio"], unit["torch"] / unit["dgu"])
    assert 0 < figures["median_kl_at_the_end"] < 3 and "torch, one run" in printed


def test_local_runs_and_all_programs_give_the_same_image(run_quickly):
    from benchmarks import local

    figures, printed = run_quickly(local)
    plain = [name for name in figures["seconds"] if name != "dgu"]
    assert plain[:2] == ["numpy, products", "numpy, differences"]
    # Two ways of summing round differently: none at all would mean that a program was compared with itself.
    assert 0 < figures["largest_difference"]["dgu"] < 1e-3
    for name in plain:
        ours, theirs = ([wall for wall, _ in figures["times"][of]] for of in ("dgu", name))
        ratio = figures["relative_throughput"][f"dgu to {name}"]["median"]
        np.testing.assert_allclose(ratio, np.median(np.divide(theirs, ours)))
        assert f"{ratio:.2f}" in printed
    few, many = figures["temporary_bytes"].values()
    assert many < 1.1 * few


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not say how much is resident")
@pytest.mark.parametrize(
    "stage",
    [
        "sampling, transformer", "training, U-Net", "training, transformer", "singular vectors, U-Net",
        "distillation, exactly", "distillation by Adam",
    ],
)  # fmt: skip
def test_the_memory_of_a_stage_is_told_within_a_quarter(stage, tmp_path):
    """By the probe, or where a stage has no program of its own by the dry run."""
    from benchmarks import memory

    memory.main(memory.Config(only=(stage,), json=str(tmp_path / "figures.json")))
    found = json.loads((tmp_path / "figures.json").read_text())["stages"][stage]
    told = found["probe"] if found["probe"] >= 0 else found["trace"]
    assert told == pytest.approx(found["measured"], rel=0.25)
