"""What samplers cost beyond the network: dgu's, diffusers', azula's and a plain loop, on the same network.

    python -m benchmarks.samplers [--quick] [--json PATH]

The network is the small ADM of ``tests/fixtures/adm_edm.npz``. Deterministic samplers of two orders, at an equal number
of network evaluations: ``steps`` Heun steps evaluate it ``2 steps - 1`` times, and as many Euler steps follow.

- ``dgu``: ``dgu.samplers.sample``, Heun's steps, and ``Ablation(solver="euler")``: draws, checks and transfers and all.
- ``plain``, ``diffusers``, ``azula``: ``benchmarks/library_samplers.py``, all on one network in eager PyTorch. They are
  given the noise, which ``dgu`` draws.
- ``network, JAX`` and ``network, PyTorch``: as many evaluations of the network and nothing else, each fed by the one
  before. What a sampler takes beyond its own network's time is its overhead, of which every library has the more
  share the smaller the batch.

All give dgu's samples to 1e-3 of the largest magnitude, which is checked first. Programs take turns in each round;
overheads are differences within a round, and their medians are reported with the quartiles. dgu's batch is split over
``threads`` devices of JAX where it can be.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch
import tyro
from jax import Array

from benchmarks import provenance, subjects
from benchmarks.library_samplers import library_samplers
from benchmarks.peer import Peer
from benchmarks.timing import Times, Work, alternate, relative_throughput, spread, use_cores
from dgu.core.keys import seeded
from dgu.distributions.bases import initial_noise
from dgu.models import EDMNetwork
from dgu.models.weights import params_to_arrays
from dgu.samplers import Ablation, heun, karras_sigmas, sample


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the measurement."""

    batches: tuple[int, ...] = (1, 16)
    """Images sampled together; each number is measured by itself."""
    steps: int = 18
    """Heun steps."""
    repeats: int = 9
    """Rounds, in each of which every program is timed once."""
    threads: int = 2
    """Cores the process may use; threads of PyTorch, CPU devices of JAX."""
    quick: bool = False
    """Two images, three steps, two rounds, one thread: does it work, no more."""
    json: str | None = None
    """File to write the figures to."""


def network_alone(network: EDMNetwork, params: dict, sigmas: np.ndarray, devices: list) -> Callable:
    """``run(x, labels)``: an evaluation of dgu's network at each level but the last, in a scan, split over devices."""

    @jax.jit
    def program(params: dict, levels: Array, x: Array, labels: Array) -> Array:
        denoiser = network.denoiser(params)

        def evaluate(x: Array, sigma: Array) -> tuple[Array, None]:
            return jax.vmap(lambda one, label: denoiser.given(label)(one, sigma))(x, labels), None

        return jax.lax.scan(evaluate, x, levels)[0]

    levels = jnp.asarray(sigmas[:-1], jnp.float32)
    resident = [jax.device_put((params, levels), device) for device in devices]

    def run(x: np.ndarray, labels: np.ndarray) -> list:
        parts = zip(resident, np.split(x, len(devices)), np.split(labels, len(devices)), devices)
        return jax.device_get([program(*at, *jax.device_put((a, b), device)) for at, a, b, device in parts])

    return run


def torch_alone(peer: Peer, sigmas: np.ndarray) -> Callable:
    """The same of PyTorch's network."""

    @torch.inference_mode()
    def run(x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        for sigma in torch.tensor(sigmas[:-1], dtype=torch.float32):
            x = peer.denoise(x, sigma.expand(len(x)), labels)
        return x

    return run


def overheads(times: Times, networks: dict[str, str]) -> dict[str, dict[str, dict[str, float]]]:
    """Of each sampler: time beyond its network's in ``seconds`` and as a ``share`` of the network's, round by round."""
    found = {}
    for name, network in networks.items():
        pairs = [(whole[0], part[0]) for whole, part in zip(times[name], times[network])]
        beyond = {
            "seconds": [whole - part for whole, part in pairs],
            "share": [whole / part - 1 for whole, part in pairs],
        }
        found[name] = {of: spread(values) for of, values in beyond.items()}
    return found


def measure_batch(config: Config, batch: int) -> dict:
    """Figures of one batch size, in seconds."""
    network, params = subjects.load("small-adm")
    params = jax.tree.map(jnp.asarray, params)
    denoiser, key, indices = network.denoiser(params), seeded(0), np.arange(batch)
    devices = jax.local_devices()[: config.threads if batch % config.threads == 0 else 1]
    evaluations = 2 * config.steps - 1
    grids = {"Heun": karras_sigmas(config.steps), "Euler": karras_sigmas(evaluations)}
    labels = indices % network.unet.label_dim
    noise = np.stack([initial_noise(key, i, network.shape) for i in indices]) * np.float32(grids["Heun"][0])
    solvers = {"Heun": heun, "Euler": Ablation(solver="euler")}

    def ours(method: str) -> np.ndarray:
        return sample(
            denoiser, key, indices, grids[method], shape=network.shape, labels=labels, solver=solvers[method],
            batch_size=batch // len(devices), devices=devices,
        )  # fmt: skip

    peer = Peer(network, params_to_arrays(params), "cpu", torch.float32)
    start = torch.from_numpy(np.ascontiguousarray(np.moveaxis(noise, -1, 1)))
    rows = torch.from_numpy(np.eye(network.unet.label_dim, dtype=np.float32)[labels])
    works: dict[str, Work] = {f"dgu, {method}": functools.partial(ours, method) for method in grids}
    expected, differences = {method: ours(method) for method in grids}, {}
    for name, run in library_samplers(peer, grids["Heun"], grids["Euler"]).items():
        works[name] = functools.partial(run, start, rows)
        wanted = expected[name.split(", ")[1]]
        differences[name] = float(
            np.abs(np.moveaxis(run(start, rows).numpy(), 1, -1) - wanted).max() / np.abs(wanted).max()
        )
        if not differences[name] < 1e-3:
            raise SystemExit(f"{name}: differs by {differences[name]:.1e} of the largest magnitude: not the same work")
    alone = network_alone(network, params, grids["Euler"], devices)
    networks = {name: "network, JAX" if name.startswith("dgu") else "network, PyTorch" for name in works}
    pairs = {
        f"dgu, {method} to {name}": (f"dgu, {method}", name)
        for method in grids for name in works if name.endswith(method) and not name.startswith("dgu")
    }  # fmt: skip
    works["network, JAX"] = functools.partial(alone, noise, labels)
    works["network, PyTorch"] = functools.partial(torch_alone(peer, grids["Euler"]), start, rows)
    times = alternate(works, config.repeats)
    wall = {name: spread([at[0] for at in values]) for name, values in times.items()}
    return {
        "batch": batch,
        "devices": len(devices),
        "evaluations": evaluations,
        "largest_difference_from_dgu": differences,
        "seconds": wall,
        "images_per_second": {name: batch / at["median"] for name, at in wall.items()},
        "overhead": overheads(times, networks),
        "relative_throughput": relative_throughput(times, pairs),
        "relative_throughput_by_processor_time": relative_throughput(times, pairs, clock=1),
        "times": times,
    }


def print_batch(result: dict) -> None:
    """A table of one batch size."""
    worst = max(result["largest_difference_from_dgu"].values())
    print(
        f"{result['batch']} images, {result['evaluations']} evaluations, {result['devices']} devices of JAX; largest "
        f"difference from dgu's samples: {worst:.1e} of the largest"
    )
    print(
        f"{'':18}{'images / s':>12}{'median s':>10}{'overhead, ms':>14}{'% of the network':>18}{'quartiles':>18}"
        f"{'dgu to it':>11}"
    )
    for name, at in result["seconds"].items():
        line = f"{name:18}{result['images_per_second'][name]:12.2f}{at['median']:10.3f}"
        if name in result["overhead"]:
            beyond, share = result["overhead"][name]["seconds"], result["overhead"][name]["share"]
            quartiles = f"{100 * share['quartile_low']:.1f} .. {100 * share['quartile_high']:.1f}"
            line += f"{1e3 * beyond['median']:14.1f}{100 * share['median']:18.1f}{quartiles:>18}"
        ratio = result["relative_throughput"].get(f"dgu, {name.split(', ')[1]} to {name}")
        print(line + (f"{ratio['median']:11.2f}" if ratio else ""), flush=True)


def main(config: Config) -> None:
    """Measure, print tables, write the file."""
    if config.quick:
        config = dataclasses.replace(config, batches=(2,), steps=3, repeats=2, threads=1)
    if min(*config.batches, config.threads, config.repeats) < 1 or config.steps < 3:
        raise SystemExit("batches, threads and repeats must be 1 or more, steps 3 or more")
    use_cores(config.threads)
    torch.set_num_threads(config.threads)
    results = []
    for batch in config.batches:
        results.append(measure_batch(config, batch))
        print_batch(results[-1])
    if config.json:
        provenance.write(config.json, {"config": dataclasses.asdict(config), "results": results})


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
