"""Memory of traced functions against counts by hand and against compiled programs; times of one batch."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu import training
from dgu.models import DiTConfig, EDMNetwork, EDMPreconditioning, LinearNetwork
from dgu.training import LevelTraining, TrainingConfig
from dgu.training.loop import update_program
from experiments.study.costs import Cost, Probe
from experiments.study.memory import evaluation, evaluation_bytes, gradient_bytes, held_bytes, tree_bytes
from experiments.study.probe import compiled_bytes, probe
from experiments.study.resident import resident_growth
from experiments.subjects import training_cost

#: Bytes of a matrix of the tests.
MATRIX = 4 * 64**2


def matrix(*lengths):
    return jax.ShapeDtypeStruct(lengths or (64, 64), jnp.float32)


def network(width=8, **options):
    return EDMNetwork(DiTConfig(8, 1, 1, 3, patch=2, width=width, depth=2, heads=2), EDMPreconditioning(), **options)


def test_values_are_held_from_where_they_are_made_to_their_last_use():
    assert held_bytes(lambda a: a @ a, matrix()) == 2 * MATRIX
    # A chain of products holds two of them at a time beside its input, however long it is.
    assert held_bytes(lambda a: a @ a @ a @ a @ a, matrix()) == 3 * MATRIX

    def kept_for_the_end(a):
        b = a @ a
        return b @ b @ b @ b + b @ a

    # b, a product on the way, and the next one.
    assert held_bytes(kept_for_the_end, matrix()) == 4 * MATRIX


def test_elementwise_chains_hold_only_their_ends():
    def chain(a):
        return jnp.sum(jnp.exp(jnp.sin(a) + 1) * 2)

    assert held_bytes(chain, matrix()) == MATRIX + 4
    assert held_bytes(lambda a: jnp.exp(jnp.sin(a)) + 1, matrix()) == 2 * MATRIX
    # What starts a chain is held until the chain is read, and a result takes the place of what ends with it.
    assert held_bytes(lambda a: jax.nn.relu(a @ a) @ a, matrix()) == 3 * MATRIX


def test_loops_hold_what_one_pass_does_and_calls_are_looked_into():
    def looped(a):
        return jax.lax.scan(lambda b, _: (b @ a @ a, None), a, length=50)[0]

    # The input, the result, and inside a pass a product and the next.
    assert held_bytes(looped, matrix()) == 4 * MATRIX
    cube = jax.jit(lambda a: a @ a @ a)
    # The input, its cube, and of that the square and the cube.
    assert held_bytes(lambda a: cube(cube(a)), matrix()) == 4 * MATRIX
    branch = lambda a: jax.lax.cond(a[0, 0] > 0, lambda b: b @ b, lambda b: b @ b @ b @ b, a)  # noqa: E731
    assert held_bytes(branch, matrix()) >= 3 * MATRIX


def test_a_gradient_keeps_the_inputs_of_its_products():
    depth = 6

    def loss(a, x):
        for _ in range(depth):
            x = jnp.sin(x @ a)
        return jnp.sum(x)

    kept = held_bytes(jax.grad(loss), matrix(), matrix(4096, 64)) / (4 * 4096 * 64)
    # Of each layer the input of the product and of the sine; a few more while the last is worked on.
    assert depth <= kept <= 2 * depth + 4


def test_evaluations_hold_what_the_compiled_program_does():
    function, shapes = evaluation(network(32), 16)
    held = compiled_bytes(jax.jit(function).lower(*shapes).compile())
    assert evaluation_bytes(network(32), 16) == pytest.approx(held, rel=0.25)


def test_trainings_hold_copies_of_the_parameters_and_a_batch():
    config, weights = TrainingConfig(duration_kimg=64.0, batch_size=64), tree_bytes(network().abstract_params)
    whole = training_cost(network(), "training", config, runs=3, devices=1)
    assert (whole.network_evaluations, whole.probe.batch, whole.probe.examples) == (192_000, 64, 192_000)
    assert whole.memory == gradient_bytes(network(), 64) + 3 * weights
    spread = training_cost(network(), "training", config, runs=1, devices=8)
    assert spread.memory == gradient_bytes(network(), 8) + 3 * weights and spread.probe.batch == 8
    several = TrainingConfig(duration_kimg=64.0, batch_size=64, power_ema_stds=(0.05, 0.1))
    averaged = training_cost(network(), "training", several, runs=1, devices=8)
    assert averaged.memory == gradient_bytes(network(), 8) + 4 * weights
    micro = TrainingConfig(duration_kimg=64.0, batch_size=64, micro_batch=16)
    cut = training_cost(network(), "training", micro, runs=1, devices=2)
    assert cut.memory == gradient_bytes(network(), 8) + 4 * weights and cut.probe.batch == 16


@pytest.mark.parametrize("more", [{}, {"micro_batch": 4, "power_ema_stds": (0.05, 0.1)}])
def test_the_program_of_an_update_is_that_of_the_training(more):
    config = TrainingConfig(duration_kimg=8.0, batch_size=8, **more)
    program, given = update_program(network(), 8 // (1 + bool(more)), config)
    state = training.initial_state(network(), config)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), given[0]
    )
    examples = [jnp.zeros(leaf.shape, leaf.dtype) for leaf in given[1:4]]
    assert examples[0].size == 8 * 8 * 8
    after, loss = program(state, *examples, *given[4:])
    assert int(after["step"]) == 1 and np.isfinite(loss)
    assert any((np.asarray(moment) != 0).any() for moment in jax.tree.leaves(after["optimizer"].mu))


def test_updates_of_levels_hold_their_images_and_states():
    linear, recipe = LinearNetwork((8, 8, 1)), LevelTraining(5, 4, 1e-3, 0)
    update, shapes = training.level_update(linear, 3, 100, recipe)
    state, images = shapes[0], shapes[1]
    assert images.shape == (100, 8, 8, 1)
    held = held_bytes(update, *shapes)
    assert tree_bytes(state) + tree_bytes(images) < held < 3 * tree_bytes(state) + tree_bytes(images)
    given = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    given[4] += 1.0
    after, losses = update(*given)
    assert losses.shape == (3,) and jax.tree.map(jnp.shape, after) == jax.tree.map(lambda leaf: leaf.shape, state)


def test_a_probe_times_a_batch_and_says_how(monkeypatch):
    lines, asked = [], []

    def make(count):
        asked.append(count)
        return lambda a: a @ a[0], [matrix(count, 64, 64)]

    costs = [
        Cost("quick", flop=1e6, memory=10, probe=Probe(make, 8, 800)),
        Cost("long", flop=1e15, memory=10, probe=Probe(make, 1000, 1000)),
        Cost("wide", flop=1e6, memory=1e18, probe=Probe(make, 8, 800)),
        Cost("unknown", flop=4e9),
    ]
    total = probe(costs, rate=1e9, devices=2, say=lines.append)
    # At the rate of 1 GFLOP/s a thousand examples of 1 TFLOP each take far too long: one is timed.
    assert asked == [8, 1, 1]
    assert "8 of 8 at once" in lines[1] and "1 of 1,000 at once" in lines[2]
    assert lines[1].endswith("B measured)" if Path("/proc/self/clear_refs").exists() else "by the compiled program)")
    assert "a batch of 8 does not fit: 1 EB" in lines[3]
    assert lines[4] == "  unknown: 2 seconds (at least, by its FLOP: it has no batch to run)"
    assert total >= 2.0 and "hours" in lines[5]
    monkeypatch.setattr("experiments.study.probe.free_bytes", lambda: 100)
    probe(costs[:1], rate=1e9, devices=1, say=lines.append)
    assert "8 at once do not fit" in lines[-2]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not say how much is resident")
def test_the_memory_of_a_call_is_what_it_needs_beyond_what_was_there():
    held = np.ones(2**23)  # 64 MiB that are there before.
    needed = resident_growth(lambda: held + 1)
    assert 0.95 * held.nbytes < needed < 1.2 * held.nbytes
    # Twice: what the first call freed does not hide the second.
    assert 0.95 * held.nbytes < resident_growth(lambda: held + 1) < 1.2 * held.nbytes
    assert resident_growth(lambda: None) < 2**22
