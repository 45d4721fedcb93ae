"""The memory that ``--dry-run`` and ``--probe`` predict beside what was measured, stage by stage, on one CPU device.

    python -m benchmarks.memory [--quick] [--only STAGE ...] [--json PATH]

Each stage runs in a process of its own, twice: compiling is over when its peak is taken. *trace* is what the table of
``--dry-run`` says, from the order of operations alone; *compiled* is what ``--probe`` says, from the program that the
compiler made of it; *measured* is the largest resident memory of the process during the second run, less what it was
before. Both predictions are those of ``experiments.subjects`` and ``experiments.study``, which the studies use.
"""

import ctypes
import dataclasses
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks import provenance

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
    """Predictions in bytes, and what is measured.

    Attributes:
        trace: what the dry run says.
        program: the function of the probe, and the shapes of its arguments.
        beside: bytes that the stage holds beside this program's, such as the moments of a training.
        run: the stage itself.
    """

    trace: float
    program: tuple[Callable[..., Any], Any]
    beside: float
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


def sampling(network: Any, batch: int) -> Stage:
    """Two Heun steps of a batch of samples."""
    from dgu.core.keys import seeded
    from dgu.samplers import karras_sigmas, sample
    from experiments.subjects import sampling_cost

    def run() -> None:
        own = {"shape": network.shape, "batch_size": batch}
        sample(network.denoiser(_params(network)), seeded(0), np.arange(batch), karras_sigmas(2), **own)

    cost = sampling_cost(network, batch, 3, batch)
    assert cost.probe is not None
    return Stage(cost.memory, cost.probe.make(batch), 0.0, run)


def training(network: Any, batch: int, micro: int | None = None) -> Stage:
    """Two updates of a network."""
    from dgu.training import TrainingConfig, initial_state, train_steps
    from experiments.study.memory import tree_bytes
    from experiments.subjects import training_cost

    config = TrainingConfig(duration_kimg=2 * batch / 1000, batch_size=batch, micro_batch=micro)
    images = np.zeros((batch, *network.shape), np.float32)

    def run() -> None:
        for state, _ in train_steps(network, initial_state(network, config), images, None, config):
            state["step"].block_until_ready()

    cost = training_cost(network, "training", config, runs=1, devices=1)
    assert cost.probe is not None
    copies = 3 + (micro is not None)
    return Stage(cost.memory, cost.probe.make(micro or batch), copies * tree_bytes(network.abstract_params), run)


def levels(network: Any, count: int, batch: int) -> Stage:
    """Two updates of autoencoders at ``count`` noise levels, which a device trains together."""
    from dgu.training import LevelTraining, initial_levels, level_update, train_levels
    from experiments.study.memory import held_bytes

    config, sigmas = LevelTraining(2, batch, 1e-3, 0), np.geomspace(10.0, 0.1, count)
    images = np.zeros((batch, *network.shape), np.float32)

    def run() -> None:
        train_levels(network, initial_levels(network, count, config), images, sigmas, config)

    update, shapes = level_update(network, count, batch, config)
    return Stage(held_bytes(update, *shapes), (update, shapes), 0.0, run)


def stages(scale: int) -> dict[str, Callable[[], Stage]]:
    """The stages; ``scale`` divides their batches."""
    from dgu.models import LinearNetwork

    return {
        "sampling, U-Net": lambda: sampling(_unet(), 1024 // scale),
        "sampling, transformer": lambda: sampling(_transformer(), 1024 // scale),
        "training, U-Net": lambda: training(_unet(), 256 // scale),
        "training, U-Net in micro-batches": lambda: training(_unet(), 512 // scale, 128 // scale),
        "training, transformer": lambda: training(_transformer(), 256 // scale),
        "autoencoders, transformers": lambda: levels(_transformer(), 3, 128 // scale),
        "autoencoders, linear maps": lambda: levels(LinearNetwork((32 // scale, 32, 3)), 3, 64),
    }


def measured(stage: Stage) -> dict[str, float]:
    """The figures of a stage, bytes."""
    import jax

    from experiments.study.probe import compiled_bytes

    function, shapes = stage.program
    program = function if hasattr(function, "lower") else jax.jit(function)
    compiled = compiled_bytes(program.lower(*shapes).compile()) + stage.beside
    stage.run()
    gc.collect()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # The peak begins anew.
    before = _resident("VmRSS")
    stage.run()
    return {"trace": stage.trace, "compiled": compiled, "measured": _resident("VmHWM") - before}


def _resident(name: str) -> float:
    """A line of the process's status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024.0 * int(next(line.split()[1] for line in lines if line.startswith(name)))


def main(config: Config) -> int:
    """Every stage in a process of its own; a table."""
    known = stages(8 if config.quick else 1)
    if config.stage is not None:
        print(json.dumps(measured(known[config.stage]())))
        return 0
    found = {}
    print(f"{'stage':34}{'trace':>10}{'compiled':>10}{'measured':>10}   compiled / measured")
    for name in config.only or known:
        words = [sys.executable, "-m", "benchmarks.memory", "--stage", name, *["--quick"] * config.quick]
        out = subprocess.run(words, env={**os.environ, **_ENVIRONMENT}, stdout=subprocess.PIPE, check=True).stdout
        found[name] = json.loads(out.splitlines()[-1])
        sizes = "".join(f"{found[name][column] / 1e6:7.0f} MB" for column in ("trace", "compiled", "measured"))
        print(f"{name:34}{sizes}   {found[name]['compiled'] / found[name]['measured']:.2f}", flush=True)
    if config.json is not None:
        provenance.write(config.json, {"stages": found})
    return 0


if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(Config, description=__doc__)))
