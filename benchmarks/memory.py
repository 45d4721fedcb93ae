"""The memory that ``--dry-run`` and ``--probe`` predict beside what was measured, stage by stage, on one CPU device.

    python -m benchmarks.memory [--quick] [--only STAGE ...] [--json PATH]

Each stage runs in a process of its own, twice: compiling is over when its peak is taken. *trace* is what the table of
``--dry-run`` says, from the order of operations alone, of the device and the host together, which share the memory
here; *compiled* is what the program of the probe holds by the compiler's account; *probe* what ``--probe`` says, which
runs that program on made-up numbers; *measured* the largest resident memory of the process during the second run of the
stage itself, less what it was before. The predictions are those of the studies' own ``costs``.
"""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import tyro

from benchmarks import provenance
from benchmarks.page_tables import MEMORY_COLUMNS

#: Freed memory goes back to the system at once, or a second run would find it in the process already.
_ENVIRONMENT = {"JAX_NUM_CPU_DEVICES": "1", "MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "0"}


@dataclasses.dataclass(frozen=True)
class Config:
    """What to measure."""

    only: tuple[str, ...] = ()
    """Stages; all by default."""
    stage: str | None = None
    """Measure one stage in this process and print its figures, as the processes do that the program starts."""
    quick: bool = False
    """An eighth of each batch: does it work, no more."""
    json: str | None = None
    """File to write the figures to."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """A prediction, and what it is of.

    Attributes:
        trace: bytes that the dry run says.
        program: the function of the probe, and its arguments or their shapes; None where there is no probe.
        run: the stage itself.
    """

    trace: float
    program: tuple[Callable[..., Any], Any] | None
    run: Callable[[], object]


def _unet(size: int = 16, **options: Any) -> Any:
    from dgu.models import ADMConfig, EDMNetwork

    shape: dict[str, Any] = {"model_channels": 32, "channel_mult": (1,), "num_blocks": 1, "attn_resolutions": ()}
    return EDMNetwork(ADMConfig(size, 3, 3, 0, **shape), **options)


def _transformer() -> Any:
    from dgu.models import DiTConfig, EDMNetwork, EDMPreconditioning

    return EDMNetwork(DiTConfig(16, 3, 3, patch=2, width=64, depth=4, heads=4), EDMPreconditioning())


def _params(network: Any) -> Any:
    import jax
    import jax.numpy as jnp

    return jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.01, leaf.dtype), network.abstract_params)


def _stage(cost: Any, run: Callable[[], object]) -> Stage:
    program = None if cost.probe is None else cost.probe.make(cost.probe.batch)
    return Stage(cost.memory + cost.host, program, run)


def sampling(network: Any, batch: int) -> Stage:
    """Two Heun steps of a batch of samples."""
    from dgu.core.keys import seeded
    from dgu.samplers import karras_sigmas, sample
    from experiments.subjects import sampling_cost

    def run() -> None:
        own = {"shape": network.shape, "batch_size": batch}
        sample(network.denoiser(_params(network)), seeded(0), np.arange(batch), karras_sigmas(2), **own)

    cost = sampling_cost(network, batch, 3, batch)
    return _stage(cost, run)


def training(network: Any, batch: int, micro: int | None = None) -> Stage:
    """Two updates of a network."""
    from dgu.training import TrainingConfig, initial_state, train_steps
    from experiments.subjects import training_cost

    config = TrainingConfig(duration_kimg=2 * batch / 1000, batch_size=batch, micro_batch=micro)
    images = np.zeros((batch, *network.shape), np.float32)

    def run() -> None:
        for state, _ in train_steps(network, initial_state(network, config), images, None, config):
            state["step"].block_until_ready()

    cost = training_cost(network, "training", config, runs=1, devices=1)
    return _stage(cost, run)


def levels(network: Any, count: int, batch: int) -> Stage:
    """Two updates of autoencoders at ``count`` noise levels, which a device trains together."""
    from dgu.training import LevelTraining, initial_levels, level_update, train_levels
    from experiments.study.memory import held_bytes

    config, sigmas = LevelTraining(2, batch, 1e-3, 0), np.geomspace(10.0, 0.1, count)
    images = np.zeros((batch, *network.shape), np.float32)

    def run() -> None:
        train_levels(network, initial_levels(network, count, config), images, sigmas, config)

    update, shapes = level_update(network, count, batch, config)
    return Stage(held_bytes(update, *shapes), (update, shapes), run)


def singular_vectors(network: Any, batch: int, vectors: int) -> Stage:
    """Two rounds of the iteration for singular vectors at a batch of images."""
    from dgu.analysis import singular_triplets
    from dgu.core.keys import seeded
    from experiments.hidden_gaussian.jacobians import Config as Options
    from experiments.hidden_gaussian.jacobians import costs
    from experiments.subjects import evaluation_cost

    options = Options(trajectories=batch, vectors=vectors, batch_size=batch, max_rounds=2)

    def run() -> None:
        own: dict[str, Any] = {"tolerance": 0.0, "max_rounds": 2, "batch_size": batch}
        images = np.zeros((batch, *network.shape), np.float32)
        singular_triplets(network.denoiser(_params(network)), images, 1.0, vectors, seeded(0), **own)

    cost = partial(evaluation_cost, network)
    plan = SimpleNamespace(config=SimpleNamespace(levels=1, batch_size=batch), network=network, steps=2, cost=cost)
    return _stage(costs(options, plan)[1], run)  # type: ignore[arg-type]


def distillation(side: int, *, exactly: bool) -> Stage:
    """The best linear map of a network at one level: exactly, and without each of two groups, or by Adam."""
    from dgu.core.keys import seeded
    from dgu.models import DiTConfig, EDMNetwork, EDMPreconditioning
    from dgu.training import distill_by_adam, distill_exactly
    from experiments.hidden_gaussian.distillation import costs
    from experiments.hidden_gaussian.linear_maps import Config as Options
    from experiments.subjects import evaluation_cost

    network = EDMNetwork(DiTConfig(side, 1, 1, patch=side // 4, width=16, depth=1, heads=1), EDMPreconditioning())
    options = Options(images=64, draws=2 * side**2 // 64, groups=2, adam_epochs=1, adam_batch=64, batch_size=32)

    def run() -> None:
        images = np.random.default_rng(0).normal(size=(64, side, side, 1)).astype(np.float32)
        given: Any = network.denoiser(_params(network)), images, [1.0], seeded(0)
        if exactly:
            watched = lambda _, weight: {"trace": weight.trace()}  # noqa: E731
            distill_exactly(*given, draws=options.draws, groups=2, observe=watched, batch_size=32)
        else:
            distill_by_adam(*given, epochs=1, batch_size=64)

    cost = partial(evaluation_cost, network)
    plan = SimpleNamespace(config=SimpleNamespace(levels=1), size=side**2, cost=cost)
    found = costs(options, plan)[0 if exactly else 1]  # type: ignore[arg-type]
    # The network's evaluations, of which the probe is, are the least of it.
    return dataclasses.replace(_stage(found, run), program=None)


def replicates(training: int) -> Stage:
    """A replicate of the study of universality: Gaussian mixtures of ten classes, and classifiers trained on so many
    images of each.
    """
    from experiments.universality import subject
    from experiments.universality.options import Options
    from experiments.universality.replicates import Examples, replicate

    recipe = dataclasses.replace(Options().recipe, epochs=2, learning_rates=(0.1,))
    options = Options(recipe=recipe, real=None, subsets=1, training_sizes=(training,), two_layer_size=training)
    rows = np.random.default_rng(0).normal(size=(10, options.splits.total, 196)).astype(np.float32)
    cost = max(subject.plan(options)[1][1:], key=lambda cost: cost.memory + cost.host)
    return _stage(cost, lambda: replicate(options, Examples(rows, rows, None), [(0, 1)], 0))


def stages(scale: int) -> dict[str, Callable[[], Stage]]:
    """The stages; ``scale`` divides their batches."""
    from dgu.models import LinearNetwork

    return {
        "sampling, U-Net": lambda: sampling(_unet(), 512 // scale),
        "sampling, transformer": lambda: sampling(_transformer(), 512 // scale),
        "training, U-Net": lambda: training(_unet(), 64 // scale),
        "training, U-Net in micro-batches": lambda: training(_unet(), 128 // scale, 64 // scale),
        "training, transformer": lambda: training(_transformer(), 128 // scale),
        "autoencoders, transformers": lambda: levels(_transformer(), 3, 64 // scale),
        "autoencoders, linear maps": lambda: levels(LinearNetwork((32 // scale, 32, 3)), 3, 64),
        "singular vectors, U-Net": lambda: singular_vectors(_unet(), 32 // scale, 8),
        "distillation, exactly": lambda: distillation(32 if scale == 1 else 16, exactly=True),
        "distillation by Adam": lambda: distillation(48 if scale == 1 else 16, exactly=False),
        "replicates": lambda: replicates(256 // scale),
    }


def measured(stage: Stage) -> dict[str, float]:
    """The figures of a stage, bytes; -1 where it has no probe."""
    import jax

    from experiments.study.probe import call_with_numbers, compiled_bytes
    from experiments.study.resident import resident_growth

    found: dict[str, float] = {"trace": stage.trace, "compiled": -1, "probe": -1}
    if stage.program is not None:
        function, shapes = stage.program
        program = function if hasattr(function, "lower") else jax.jit(function)
        compiled = program.lower(*shapes).compile()
        call_with_numbers(compiled, shapes)
        probed = resident_growth(lambda: call_with_numbers(compiled, shapes))
        found |= {"compiled": compiled_bytes(compiled), "probe": _known(probed)}
        del compiled
    stage.run()
    return found | {"measured": _known(resident_growth(stage.run))}


def _known(held: int | None) -> float:
    assert held is not None, "the system does not say how much memory is resident"
    return float(held)


def main(config: Config) -> int:
    """Every stage in a process of its own; a table."""
    known = stages(8 if config.quick else 1)
    if config.stage is not None:
        print(json.dumps(measured(known[config.stage]())))
        return 0
    found = {}
    print(f"{'stage':34}", *(f"{column:>10}" for column in MEMORY_COLUMNS), "  trace and probe to measured", sep="")
    for name in config.only or known:
        words = [sys.executable, "-m", "benchmarks.memory", "--stage", name, *["--quick"] * config.quick]
        out = subprocess.run(words, env={**os.environ, **_ENVIRONMENT}, stdout=subprocess.PIPE, check=True).stdout
        found[name] = json.loads(out.splitlines()[-1])
        own = found[name]
        told = f"{own['probe'] / own['measured']:.2f}" if own["probe"] >= 0 else "-"
        sizes = "".join(
            f"{own[column] / 1e6:7.0f} MB" if own[column] >= 0 else f"{'-':>10}" for column in MEMORY_COLUMNS
        )
        print(f"{name:34}{sizes}   {own['trace'] / own['measured']:.2f} {told}", flush=True)
    if config.json is not None:
        provenance.write(config.json, {"stages": found})
    return 0


if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(Config, description=__doc__)))
