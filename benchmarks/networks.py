"""One evaluation and one training step of each network, against the compiler's own limit, the device's, and plain
PyTorch.

    python -m benchmarks.networks [--networks small-adm ddpmpp] [--dtypes float32 bfloat16] [--quick] [--json PATH]

- ``dgu``: forward, ``jax.jit(jax.vmap(denoiser))`` on images that are on the device; training, a step of
  ``dgu.training.train_steps``: the batch put together and moved, draws, loss, gradient, Adam, the average of the
  parameters.
- ``chain``: a bare JAX program with the network's convolutions and matrix products and next to nothing else
  (``benchmarks/chain.py``); for training its gradient, and no update.
- ``torch``: the same network in eager PyTorch (``benchmarks/peer.py``), on the GPU where both see one. Forward, its
  output is compared with ours before anything is timed. In place of bfloat16 it computes in float16 on a GPU, as the
  reference does.
- ``torch.compile``: the same compiled (``benchmarks/compiled.py``), forward and backward; Adam and the average stay
  eager. Its output is compared with ours, too, and in training, where no dropout draws, its gradient with the eager
  one. Compilation is reported apart; where it fails, the table says why.

Programs take turns in each round; ratios are taken within a round, and their median over the rounds is reported, by
wall time and by processor time. FLOP are those of convolutions and matrix products as published, three times a forward
pass for a training step; the ceiling is the fastest of products of large matrices in the same dtype, one in each round.

On CPUs the batch is split over ``threads`` devices of JAX, for XLA's convolutions use one thread each. ``--largest``
finds, on a GPU, the largest micro-batch of a training step that fits with and without rematerialisation.
"""

import dataclasses
import functools
import importlib.util
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks import chain, provenance, subjects
from benchmarks.timing import Work, alternate, matmul_ceiling, relative_throughput, spread, use_cores
from dgu.core import parallel
from dgu.core.keys import seeded
from dgu.core.typing import PyTree
from dgu.models import EDMNetwork
from dgu.training import TrainingConfig, initial_state, loop, train_steps
from experiments.study.flop import matmul_flop

Dtype = Literal["float32", "bfloat16"]
Pass = Literal["forward", "training"]
#: Images at once where the option says nothing, on a CPU and on a GPU: in an evaluation, and in a training step.
BATCHES: dict[Pass, dict[str, tuple[int, int]]] = {
    "forward": {"small-adm": (16, 1024), "ddpmpp": (4, 256), "ncsnpp": (4, 256), "imagenet64": (2, 64)},
    "training": {"small-adm": (64, 1024), "ddpmpp": (4, 128), "ncsnpp": (4, 128), "imagenet64": (2, 64)},
}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured."""

    networks: tuple[subjects.Name, ...] = ("small-adm", "ddpmpp")
    """Networks: the small ADM of the tests, DDPM++ and NCSN++ for CIFAR-10, the ADM for ImageNet-64."""
    passes: tuple[Pass, ...] = ("forward", "training")
    """An evaluation, a training step."""
    dtypes: tuple[Dtype, ...] = ("float32",)
    """Of the activations."""
    batch: int | None = None
    """Images at once; None chooses by network and device."""
    rounds: int = 9
    """Rounds, in each of which every program is timed once."""
    threads: int = 2
    """On CPUs: cores the process may use, CPU devices of JAX, threads of PyTorch."""
    peer: bool = True
    """Time PyTorch too, where it is installed."""
    compile: bool = True
    """With the peer: time it compiled, too."""
    remat: bool = False
    """Rematerialise in dgu's training step."""
    largest: bool = False
    """Instead: the largest micro-batch of a training step in memory, with and without rematerialisation (GPU)."""
    quick: bool = False
    """Tiny networks, two images, two rounds, one thread: does it work, no more."""
    json: str | None = None
    """File to write the figures to."""


def split(array: Any, devices: list) -> list:
    """An array's equal parts, each on its device."""
    return [jax.device_put(part, device) for part, device in zip(np.split(np.asarray(array), len(devices)), devices)]


def forward_works(network: EDMNetwork, params: PyTree, inputs: tuple, devices: list, dtype: str) -> dict[str, Work]:
    """dgu and chain: each device runs the same single-device program on its part of the batch."""
    x, sigma, labels = inputs
    parts = list(zip(split(x, devices), split(sigma, devices), split(labels, devices)))
    denoisers = [jax.device_put(network.denoiser(params), device) for device in devices]
    ours = jax.jit(lambda denoiser, *part: jax.vmap(lambda x, s, k: denoiser.given(k)(x, s))(*part))
    rows = np.eye(max(1, network.unet.label_dim), dtype=np.float32)[labels]
    kernels = [jax.device_put(chain.chain_weights(network, dtype), device) for device in devices]
    typed = list(zip(split(jnp.asarray(x, dtype), devices), split(jnp.asarray(rows, dtype), devices)))
    bare = jax.jit(functools.partial(chain.evaluation, network.unet))
    return {
        "dgu": lambda: jax.block_until_ready([ours(d, *part) for d, part in zip(denoisers, parts)]),
        "chain": lambda: jax.block_until_ready([bare(k, part[0], 0.5, part[1]) for k, part in zip(kernels, typed)]),
    }


def training_works(network: EDMNetwork, params: PyTree, inputs: tuple, devices: list, dtype: str) -> dict[str, Work]:
    """dgu and chain: one program over a mesh of the devices."""
    x, _, labels = inputs
    mesh = parallel.data_mesh(devices)
    config = TrainingConfig(batch_size=len(x), learning_rate=1e-4, rampup_kimg=0.0)
    fresh = initial_state(network, config)
    state = {**fresh, "params": params, "ema": jax.tree.map(jnp.copy, params)}
    steps = train_steps(network, state, x, labels, config, mesh)
    batch, everywhere = parallel.batch_sharding(mesh), parallel.replicated(mesh)
    rows = np.eye(max(1, network.unet.label_dim), dtype=np.float32)[labels]
    kernels = jax.device_put(chain.chain_weights(network, dtype), everywhere)
    typed = jax.device_put((jnp.asarray(x, dtype), jnp.asarray(rows, dtype)), batch)

    def objective(kernels: dict, x: jax.Array, labels: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(chain.evaluation(network.unet, kernels, x, 0.5, labels).astype(jnp.float32)))

    gradient = jax.jit(jax.grad(objective), in_shardings=(everywhere, batch, batch), out_shardings=everywhere)
    return {
        "dgu": lambda: jax.block_until_ready(next(steps)),
        "chain": lambda: jax.block_until_ready(gradient(kernels, *typed)),
    }


def measure_one(config: Config, name: subjects.Name, passed: Pass, dtype: Dtype) -> dict:
    """Figures of one network, pass and dtype; times in seconds."""
    network, params = subjects.load(name, quick=config.quick)
    network = dataclasses.replace(network, compute_dtype=dtype, remat=config.remat and passed == "training")
    on_gpu = jax.default_backend() != "cpu"
    batch = 2 if config.quick else config.batch or BATCHES[passed][name][on_gpu]
    devices = jax.local_devices()[: 1 if on_gpu else config.threads]
    rng = np.random.default_rng(1)
    x = rng.standard_normal((batch, *network.shape), np.float32)
    sigma = np.exp(rng.standard_normal(batch, np.float32))
    inputs = (x, sigma, np.arange(batch, dtype=np.int32) % network.unet.label_dim)
    works = (forward_works if passed == "forward" else training_works)(network, params, inputs, devices, dtype)
    differences, first, failed = {}, {}, {}
    if config.peer:
        from benchmarks.network_peers import differences as compare
        from benchmarks.network_peers import torch_peers

        peers = torch_peers(network, params, inputs, passed, threads=config.threads, compile_too=config.compile)
        works, first, failed = works | peers.works, peers.first, peers.failed
        ours = np.concatenate(jax.device_get(works["dgu"]())) if passed == "forward" else None
        differences = compare(peers, ours, dropout=network.unet.dropout > 0)
        allowed = 1e-3 if dtype == "float32" and not on_gpu else 0.1
        for program, worst in differences.items():
            if not worst < allowed:
                raise SystemExit(f"{name}: {program} differs by {worst:.1e} of the largest: not the same work")
    side = 256 if config.quick else 8192 if on_gpu else 1024
    works["ceiling"], ceiling_flop = matmul_ceiling(dtype, side)
    times = alternate(works, config.rounds)
    single = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (network.shape, ())]
    label = jax.ShapeDtypeStruct((), jnp.int32)
    flop = matmul_flop(network.apply, network.abstract_params, *single, label) * (3 if passed == "training" else 1)
    wall = {program: spread([at[0] for at in values]) for program, values in times.items()}
    ceiling = ceiling_flop / wall.pop("ceiling")["minimum"]
    pairs = {f"dgu to {other}": ("dgu", other) for other in wall if other != "dgu"}
    achieved = {program: batch * flop / at["median"] for program, at in wall.items()}
    return {
        "network": name,
        "pass": passed,
        "dtype": dtype,
        "batch": batch,
        "devices": [device.device_kind for device in devices],
        "flop_per_image": flop,
        "ceiling_flop_per_second": ceiling,
        "seconds": wall,
        "images_per_second": {program: batch / at["median"] for program, at in wall.items()},
        "flop_per_second": achieved,
        "share_of_ceiling": {program: value / ceiling for program, value in achieved.items()},
        "relative_throughput": relative_throughput(times, pairs),
        "relative_throughput_by_processor_time": relative_throughput(times, pairs, clock=1),
        "largest_difference": differences,
        "first_call_with_compilation": first,
        "failed": failed,
        "times": times,
    }


def largest_micro_batch(network: EDMNetwork, limit: float, *, step: int = 8, run: bool = True) -> dict[str, float]:
    """The largest micro-batch, a multiple of ``step``, with which an update fits in ``limit`` bytes.

    The compiler's own account of memory at two sizes gives a first guess; with ``run`` what it accepts is run too.
    """
    mesh, key = parallel.data_mesh(jax.local_devices()[:1]), seeded(0)

    def compiled(batch: int) -> tuple[Any, tuple[Any, ...], float]:
        """The loop's own program for one update of two micro-batches, its arguments, and its bytes."""
        config = TrainingConfig(batch_size=2 * batch, micro_batch=batch, rampup_kimg=0.0)
        images = np.zeros((1, 2, batch, *network.shape), np.float32)
        labels = numbers = np.zeros((1, 2, batch), np.int32)
        state = jax.eval_shape(lambda: initial_state(network, config))
        given = state, images, labels, numbers, np.int32(1), key
        program = loop._compiled(network, config, mesh).lower(*given).compile()
        memory = program.memory_analysis()
        held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
        return program, given, held + memory.temp_size_in_bytes

    def runs(program: Any, given: tuple[Any, ...]) -> bool:
        state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), given[0])
        try:
            jax.block_until_ready(program(state, *given[1:]))
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return False
        return True

    low, high = (compiled(batch)[2] for batch in (step, 2 * step))
    batch = max(step, int((limit - low) / max(high - low, 1)) * step + step)
    while batch >= step:
        program, given, bytes_needed = compiled(batch)
        if bytes_needed <= limit and (not run or runs(program, given)):
            return {"micro_batch": batch, "bytes": bytes_needed, "bytes_per_image": (high - low) / step}
        over = max(0.0, bytes_needed - limit) / max(high - low, 1)
        batch -= step * max(1, int(over), batch // (16 * step))
    return {"micro_batch": 0, "bytes": low, "bytes_per_image": (high - low) / step}


def measure_largest(config: Config) -> list[dict]:
    """``largest_micro_batch`` of each network and dtype, with and without rematerialisation, in 95 % of the device's
    memory.
    """
    limit = 0.95 * (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", 0)
    if not limit:
        raise SystemExit("--largest: this device does not say how much memory it has")
    found = []
    for name in config.networks:
        network, _ = subjects.load(name, quick=config.quick)
        for dtype in config.dtypes:
            for remat in (False, True):
                subject = dataclasses.replace(network, compute_dtype=dtype, remat=remat)
                result = largest_micro_batch(subject, limit)
                found.append({"network": name, "dtype": dtype, "remat": remat, "limit": limit, **result})
                print(
                    f"{name} {dtype} {'with' if remat else 'without'} rematerialisation: {result['micro_batch']} "
                    "images, "
                    f"{result['bytes'] / 2**30:.1f} GiB, {result['bytes_per_image'] / 2**20:.1f} MiB an image",
                    flush=True,
                )
    return found


def print_result(result: dict) -> None:
    """A table of one network, pass and dtype."""
    print(
        f"{result['network']}, {result['pass']}, {result['dtype']}, {result['batch']} images on "
        f"{len(result['devices'])} x "
        f"{result['devices'][0]}; {result['flop_per_image'] / 1e9:.4g} GFLOP an image; ceiling "
        f"{result['ceiling_flop_per_second'] / 1e9:.4g} GFLOP/s"
    )
    against = "dgu" if result["pass"] == "forward" else "the eager gradient"
    for name, worst in result["largest_difference"].items():
        print(f"largest difference of {name} from {against}: {worst:.1e} of the largest")
    for name, taken in result["first_call_with_compilation"].items():
        print(f"{name}: first call, with compilation, {taken:.1f} s")
    for name, reason in result["failed"].items():
        print(f"{name} failed: {reason}")
    for name, at in result["seconds"].items():
        print(
            f"  {name:14}{result['images_per_second'][name]:12.2f} images / s{at['median']:10.4f} s "
            f"({at['quartile_low']:.4f} .. "
            f"{at['quartile_high']:.4f}){result['flop_per_second'][name] / 1e9:12.1f} GFLOP/s, "
            f"{100 * result['share_of_ceiling'][name]:.1f} % of the ceiling"
        )
    for name, at in result["relative_throughput"].items():
        busy = result["relative_throughput_by_processor_time"][name]["median"]
        print(
            f"  {name:22} {at['median']:.3f} ({at['quartile_low']:.3f} .. {at['quartile_high']:.3f}); by processor "
            f"time {busy:.3f}",
            flush=True,
        )


def main(config: Config) -> None:
    """Measure, print tables, write the file."""
    if config.quick:
        config = dataclasses.replace(config, rounds=2, threads=1)
    sizes = [config.threads, config.rounds, 1 if config.batch is None else config.batch]
    if min(sizes) < 1 or (config.batch or config.threads) % config.threads:
        raise SystemExit("batch, threads and rounds must be 1 or more, threads a divisor of batch")
    if config.peer and importlib.util.find_spec("torch") is None:
        print("PyTorch is not installed: timed without it")
        config = dataclasses.replace(config, peer=False)
    use_cores(config.threads)
    results: list[dict] = []
    if config.largest:
        results = measure_largest(config)
    else:
        for name in config.networks:
            for passed in config.passes:
                for dtype in config.dtypes:
                    results.append(measure_one(config, name, passed, dtype))
                    print_result(results[-1])
    if config.json:
        provenance.write(config.json, {"config": dataclasses.asdict(config), "results": results})


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
