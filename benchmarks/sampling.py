"""The sampler against the compiler's own limit and against plain PyTorch, on the same work, alternating in one process.

    python -m benchmarks.sampling [--network imagenet64 --dtype bfloat16] [--quick] [--json PATH]

The work: 16 images of a small ADM (16 x 16 x 3, 32 channels, multipliers 1 and 2, one block a level, attention at 8 x
8, 10 classes; the network of ``tests/fixtures/adm_edm.npz``) by 18 steps of the deterministic Heun sampler, which are
35 evaluations of the network, in float32 on two threads.

- ``dgu``: ``dgu.samplers.sample``, as users call it: draws, checks, transfers and all.
- ``chain``: a bare JAX program with the convolutions and matrix products of the network and next to nothing else
  (``benchmarks/chain.py``): how fast the compiler's kernels allow the network to be. 35 evaluations in the same
  ``lax.scan``.
- ``torch``: the same network and sampler in plain eager PyTorch, written from the formulas. It gives the same samples,
  which is checked before anything is timed (on CPUs in float32; elsewhere the difference is reported).
- ``torch.compile``: the same with its network compiled (``benchmarks/compiled.py``), checked likewise. Compilation is
  reported apart; where it fails, the table says why. PyTorch keeps what it compiled between processes.

``dgu`` and ``chain`` run in two layouts: all images on one CPU device of JAX, and split over as many devices as
threads. XLA's own convolution kernels use one thread each, so that one device leaves the second core nearly idle. On a
GPU there is one layout, and PyTorch, which is then on the GPU too, computes in float16 where ``dgu`` computes in
bfloat16.

``--network imagenet64`` is the published ADM for ImageNet-64 (295.9 million parameters) with random weights, ``ddpmpp``
and ``ncsnpp`` are the published networks for CIFAR-10.

Each of ``repeats`` rounds times every program in turn; ratios are taken within a round, and the median over the rounds
is reported with the quartiles. Processor time is reported too: where other work shares the machine, ratios of it hold
better than ratios of wall time.
"""

import dataclasses
import functools
import importlib.util
import os
import statistics
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax import Array

from benchmarks import chain, provenance, subjects
from benchmarks.timing import Work, alternate, relative_throughput, spread, use_cores
from dgu.core.keys import seeded
from dgu.distributions.bases import initial_noise
from dgu.models import EDMNetwork
from dgu.models.weights import params_to_arrays
from dgu.samplers import karras_sigmas, sample


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the measurement."""

    network: subjects.Name = "small-adm"
    """The small ADM of the tests, DDPM++ and NCSN++ for CIFAR-10, or the ADM for ImageNet-64."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the network's activations."""
    batch: int = 16
    """Images sampled together."""
    steps: int = 18
    """Heun steps."""
    repeats: int = 15
    """Rounds, in each of which every program is timed once."""
    threads: int = 2
    """On CPUs: cores the process may use; threads of PyTorch, CPU devices of JAX in the second layout."""
    peer: bool = True
    """Time the PyTorch peer too."""
    compile: bool = True
    """With the peer: time it compiled, too."""
    quick: bool = False
    """Two images, two steps, two rounds, one thread: does it work, no more."""
    json: str | None = None
    """File to write the figures to."""


def make_chain(
    network: EDMNetwork, sigmas: np.ndarray, devices: list, dtype: str
) -> Callable[[np.ndarray, np.ndarray], list]:
    """``run(x, labels)``: two evaluations a step in a scan, and one after it, as the Heun sampler has them.

    The batch is split over ``devices``, each of which runs the same single-device program.
    """
    levels = jnp.asarray(sigmas / sigmas[0], dtype)
    weights = chain.chain_weights(network, dtype)
    resident = [jax.device_put((weights, levels), device) for device in devices]

    @jax.jit
    def program(weights: dict, sigmas: Array, start: Array, labels: Array) -> Array:
        def evaluate(x: Array, sigma: Array) -> Array:
            return start + 0.1 * chain.evaluation(network.unet, weights, x, sigma, labels)

        def step(x: Array, at: tuple[Array, Array]) -> tuple[Array, None]:
            return evaluate(evaluate(x, at[0]), at[1]), None

        x, _ = jax.lax.scan(step, start, (sigmas[:-2], sigmas[1:-1]))
        return evaluate(x, sigmas[-2])

    def run(x: np.ndarray, labels: np.ndarray) -> list:
        parts = zip(np.split(x, len(devices)), np.split(labels, len(devices)))
        return jax.device_get([program(*at, *jax.device_put(tuple(jnp.asarray(one, dtype) for one in part), device))
                               for at, part, device in zip(resident, parts, devices)])  # fmt: skip

    return run


Sampler = Callable[[np.ndarray, np.ndarray], np.ndarray]


def torch_samplers(
    config: Config, network: EDMNetwork, weights: dict[str, np.ndarray], sigmas: np.ndarray
) -> dict[str, Sampler]:
    """The peers: ``run(x, one_hot_labels)`` from noise that has the first level, images last-channel in and out."""
    import torch

    from benchmarks.compiled import compiled
    from benchmarks.peer import Peer, make_sampler

    torch.set_num_threads(config.threads)
    gpu = jax.default_backend() == "gpu" and torch.cuda.is_available()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    dtype = {"float32": torch.float32, "bfloat16": torch.float16 if gpu else torch.bfloat16}[config.dtype]
    device = "cuda" if gpu else "cpu"
    peers = {"torch": Peer(network, weights, device, dtype)}
    if config.compile:
        peers["torch.compile"] = compiled(peers["torch"])

    def runs(peer: Peer) -> Sampler:
        sampler = make_sampler(peer, sigmas)

        def run(x: np.ndarray, labels: np.ndarray) -> np.ndarray:
            start = torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1))).to(device)
            return np.moveaxis(sampler(start, torch.from_numpy(labels).to(device)).cpu().numpy(), 1, -1)

        return run

    return {name: runs(peer) for name, peer in peers.items()}


def measure(config: Config) -> dict:
    """All figures; times in seconds."""
    network, params = subjects.load(config.network, quick=config.quick)
    network = dataclasses.replace(network, compute_dtype=config.dtype)
    denoiser = network.denoiser(jax.tree.map(jnp.asarray, params))
    sigmas = karras_sigmas(config.steps)
    indices = np.arange(config.batch)
    labels = indices % network.unet.label_dim
    key = seeded(0)
    noise = np.stack([initial_noise(key, i, network.shape) for i in indices])
    one_hot = np.eye(network.unet.label_dim, dtype=np.float32)[labels]
    on_cpu = jax.default_backend() == "cpu"

    def ours(devices: list) -> np.ndarray:
        return sample(
            denoiser, key, indices, sigmas, shape=network.shape, labels=labels,
            batch_size=config.batch // len(devices), devices=devices,
        )  # fmt: skip

    works: dict[str, Work] = {}
    counts = sorted({1, config.threads}) if on_cpu else [1]
    layouts = {f"{k} x {config.batch // k}": jax.local_devices()[:k] for k in counts}
    for layout, devices in layouts.items():
        works[f"dgu {layout}"] = functools.partial(ours, devices)
        bare = make_chain(network, sigmas, devices, config.dtype)
        works[f"chain {layout}"] = functools.partial(bare, noise, one_hot)
        if not all(np.isfinite(np.asarray(part, np.float32)).all() for part in bare(noise, one_hot)):
            raise SystemExit("the chain's numbers left the range of the floats")

    pairs = {f"dgu {layout} to chain {layout}": (f"dgu {layout}", f"chain {layout}") for layout in layouts}
    differences, first, failed = {}, {}, {}
    if config.peer:
        from benchmarks.compiled import first_call

        start, samples = noise * np.float32(sigmas[0]), [ours(at) for at in layouts.values()]
        for name, peer in torch_samplers(config, network, params_to_arrays(params), sigmas).items():
            if name == "torch.compile":
                taken, reason = first_call(lambda peer=peer: peer(start, one_hot))
                if taken is None:
                    failed[name] = reason
                    continue
                first[name] = taken
            works[name] = lambda peer=peer: peer(start, one_hot)
            pairs |= {f"dgu {layout} to {name}": (f"dgu {layout}", name) for layout in layouts}
            expected = peer(start, one_hot)
            worst = max(float(np.abs(found - expected).max() / np.abs(expected).max()) for found in samples)
            differences[name] = worst
            if on_cpu and config.dtype == "float32" and not worst < 1e-3:
                raise SystemExit(f"dgu and {name} differ by {worst:.1e} of the largest magnitude: not the same work")

    times = alternate(works, config.repeats)
    wall = {name: [at[0] for at in values] for name, values in times.items()}
    return {
        "config": dataclasses.asdict(config),
        "evaluations": 2 * config.steps - 1,
        "largest_difference_from": differences,
        "first_call_with_compilation": first,
        "failed": failed,
        "seconds": {name: spread(values) for name, values in wall.items()},
        "processor_seconds": {name: spread([at[1] for at in values]) for name, values in times.items()},
        "images_per_second": {name: config.batch / statistics.median(values) for name, values in wall.items()},
        "relative_throughput": relative_throughput(times, pairs),
        "relative_throughput_by_processor_time": relative_throughput(times, pairs, clock=1),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "times": times,
    }


def main(config: Config) -> None:
    """Measure, print a table, write the file."""
    if config.quick:
        config = dataclasses.replace(config, batch=2, steps=2, repeats=2, threads=1)
    if min(config.batch, config.threads, config.repeats) < 1 or config.steps < 2 or config.batch % config.threads:
        raise SystemExit("batch, threads and repeats must be 1 or more, steps 2 or more, threads a divisor of batch")
    if config.peer and importlib.util.find_spec("torch") is None:
        print("PyTorch is not installed: timed without it")
        config = dataclasses.replace(config, peer=False)
    use_cores(config.threads)
    result = measure(config)
    print(
        f"{config.network}: {config.batch} images, {config.steps} Heun steps ({result['evaluations']} evaluations), "
        f"{config.dtype}, "
        f"{config.threads} threads, {config.repeats} rounds"
    )
    for name, worst in result["largest_difference_from"].items():
        print(f"largest difference from the samples of {name}: {worst:.1e} of the largest")
    for name, taken in result["first_call_with_compilation"].items():
        print(f"{name}: first call, with compilation, {taken:.1f} s")
    for name, reason in result["failed"].items():
        print(f"{name} failed: {reason}")
    print(f"{'':14}{'images / s':>12}{'median s':>12}{'quartiles':>18}{'minimum':>10}{'processor s':>14}")
    for name, at in result["seconds"].items():
        quartiles = f"{at['quartile_low']:.3f} .. {at['quartile_high']:.3f}"
        print(
            f"{name:14}{result['images_per_second'][name]:12.2f}{at['median']:12.3f}{quartiles:>18}{at['minimum']:10.3f}"
            f"{result['processor_seconds'][name]['median']:14.3f}"
        )
    print("throughput of          relative to      median (quartiles); by processor time")
    for name, at in result["relative_throughput"].items():
        busy = result["relative_throughput_by_processor_time"][name]
        mine, theirs = name.split(" to ")
        print(
            f"{mine:23}{theirs:17}{at['median']:.3f} ({at['quartile_low']:.3f} .. {at['quartile_high']:.3f}); "
            f"{busy['median']:.3f}"
        )
    if config.json:
        provenance.write(config.json, result)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
