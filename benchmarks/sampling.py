"""The sampler against the compiler's own limit and against plain PyTorch, on the same work, alternating in one process.

    python -m benchmarks.sampling [--quick] [--json PATH]

The work: 16 images of a small ADM (16 x 16 x 3, 32 channels, multipliers 1 and 2, one block a level, attention at 8 x 8,
10 classes; the network of ``tests/fixtures/adm_edm.npz``) by 18 steps of the deterministic Heun sampler, which are 35
evaluations of the network, in float32 on two threads.

- ``dgu``: ``dgu.samplers.sample``, as users call it: draws, checks, transfers and all.
- ``chain``: a bare JAX program with the convolutions and matrix products of the network and next to nothing else: how
  fast the compiler's kernels allow the network to be. The same shapes in the same order, each fed by the one before,
  35 evaluations in the same ``lax.scan``. Left out: normalisation, activations, softmax, biases, residual sums,
  preconditioning. Kept, as something must connect the products: the concatenations, pixel repetition and striding
  where shapes change, a sum where two products meet, and the residual sum of attention, without which the numbers
  would leave float32's range.
- ``torch``: the same network and sampler in plain eager PyTorch, written from the formulas. It gives the same samples,
  which is checked before anything is timed.

``dgu`` and ``chain`` run in two layouts: all images on one CPU device of JAX, and split over as many devices as threads.
XLA's own convolution kernels use one thread each, so that one device leaves the second core nearly idle.

Each of ``repeats`` rounds times every program in turn; ratios are taken within a round, and the median over the rounds
is reported with the quartiles. Processor time is reported too: where other work shares the machine, ratios of it hold
better than ratios of wall time.
"""

import dataclasses
import functools
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax import Array

from dgu.keys import initial_noise
from dgu.models import EDMDenoiser, edm_from_arrays
from dgu.models.adm import ADMConfig
from dgu.samplers import karras_sigmas, sample

FIXTURE = Path(__file__).parent.parent / "tests" / "fixtures" / "adm_edm.npz"


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the measurement."""

    batch: int = 16
    """Images sampled together."""
    steps: int = 18
    """Heun steps."""
    repeats: int = 15
    """Rounds, in each of which every program is timed once."""
    threads: int = 2
    """Cores the process may use; threads of PyTorch, CPU devices of JAX in the second layout."""
    peer: bool = True
    """Time the PyTorch peer too."""
    quick: bool = False
    """Two images, two steps, two rounds, one thread: does it work, no more."""
    json: str | None = None
    """File to write the figures to."""


def load_network() -> tuple[EDMDenoiser, dict[str, np.ndarray]]:
    """The network as our denoiser, and its weights under the reference's names for the peer."""
    with np.load(FIXTURE) as file:
        config = json.loads(str(file["config"]))
        weights = {name.removeprefix("param:"): file[name] for name in file.files if name.startswith("param:")}
    return edm_from_arrays(config, weights), weights


# The bare chain --------------------------------------------------------------------------------------------------------


def chain_weights(denoiser: EDMDenoiser) -> dict:
    """Random kernels of the network's shapes and unit gain, under the network's names."""
    rng = np.random.default_rng(0)

    def kernel(path: tuple, leaf: Array) -> np.ndarray:
        gain = 0.01 if "qkv" in jax.tree_util.keystr(path) else 1.0
        return rng.normal(0, gain * np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape).astype(np.float32)

    flat, treedef = jax.tree_util.tree_flatten_with_path(denoiser.params)
    return jax.tree_util.tree_unflatten(treedef, [kernel(path, leaf) for path, leaf in flat])


def _conv(layer: dict, x: Array) -> Array:
    return jax.lax.conv_general_dilated(x, layer["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _chain_attention(block: dict, x: Array, heads: int) -> Array:
    n, h, w, _ = x.shape
    q, k, v = jnp.split(_conv(block["qkv"], x).reshape(n, h * w, heads, -1), 3, axis=-1)
    logits = jnp.einsum("nqhd,nkhd->nhqk", q, k)
    out = jnp.einsum("nhqk,nkhd->nqhd", logits, v).reshape(x.shape)
    return x + _conv(block["proj"], out)


def _chain_evaluation(config: ADMConfig, weights: dict, x: Array, sigma: Array, labels: Array) -> Array:
    """One evaluation's products for a batch (N, H, W, C)."""
    e = jnp.full(config.model_channels, sigma) @ weights["map_layer0"]["kernel"] @ weights["map_layer1"]["kernel"]
    e = e[None] + labels @ weights["map_label"]["kernel"]

    def run(block: dict, spec, x: Array) -> Array:
        if spec.resample == "down":
            x = x[:, ::2, ::2]
        elif spec.resample == "up":
            x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
        scale, shift = jnp.split(e @ block["affine"]["kernel"], 2, axis=-1)
        h = _conv(block["conv1"], _conv(block["conv0"], x) + (scale + shift)[:, None, None])
        x = h + _conv(block["skip"], x) if "skip" in block else h
        return _chain_attention(block, x, spec.heads) if spec.heads else x

    skips = []
    for name, spec in config.encoder:
        x = _conv(weights["enc"][name], x) if isinstance(spec, int) else run(weights["enc"][name], spec, x)
        skips.append(x)
    for name, spec, takes_skip in config.decoder:
        if takes_skip:
            x = jnp.concatenate([x, skips.pop()], axis=-1)
        x = run(weights["dec"][name], spec, x)
    return _conv(weights["out_conv"], x)


def make_chain(denoiser: EDMDenoiser, sigmas: np.ndarray, devices: list) -> Callable[[np.ndarray, np.ndarray], list]:
    """``chain(x, labels)``: two evaluations a step in a scan, and one after it, as the Heun sampler has them.

    The batch is split over ``devices``, each of which runs the same single-device program.
    """
    config = denoiser.network.unet
    levels = np.asarray(sigmas / sigmas[0], np.float32)
    resident = [jax.device_put((chain_weights(denoiser), levels), device) for device in devices]

    @jax.jit
    def program(weights: dict, sigmas: Array, start: Array, labels: Array) -> Array:
        def evaluate(x: Array, sigma: Array) -> Array:
            return start + 0.1 * _chain_evaluation(config, weights, x, sigma, labels)

        def step(x: Array, at: tuple[Array, Array]) -> tuple[Array, None]:
            return evaluate(evaluate(x, at[0]), at[1]), None

        x, _ = jax.lax.scan(step, start, (sigmas[:-2], sigmas[1:-1]))
        return evaluate(x, sigmas[-2])

    def chain(x: np.ndarray, labels: np.ndarray) -> list:
        parts = zip(np.split(x, len(devices)), np.split(labels, len(devices)))
        return jax.device_get([program(*at, *jax.device_put(part, device))
                               for at, part, device in zip(resident, parts, devices)])  # fmt: skip

    return chain


# The peer in PyTorch ---------------------------------------------------------------------------------------------------


def make_peer(config: ADMConfig, weights: dict[str, np.ndarray], sigmas: np.ndarray) -> Callable:
    """``peer(x, one_hot_labels)``, NCHW tensors in and out: the network and the sampler, eagerly."""
    import torch
    from torch.nn import functional as F

    tensors = {name.removeprefix("model."): torch.from_numpy(value).float() for name, value in weights.items()}
    sigma_data = 0.5

    def conv(name: str, x: torch.Tensor) -> torch.Tensor:
        kernel = tensors[f"{name}.weight"]
        return F.conv2d(x, kernel, tensors[f"{name}.bias"], padding=kernel.shape[-1] // 2)

    def dense(name: str, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, tensors[f"{name}.weight"], tensors.get(f"{name}.bias"))

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        groups = min(32, x.shape[1] // 4)
        return F.group_norm(x, groups, tensors[f"{name}.weight"], tensors[f"{name}.bias"], eps=1e-5)

    def resampled(x: torch.Tensor, how: str | None) -> torch.Tensor:
        if how == "up":
            return F.interpolate(x, scale_factor=2, mode="nearest")
        return F.avg_pool2d(x, 2) if how == "down" else x

    def block(name: str, spec, x: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
        h = conv(f"{name}.conv0", resampled(F.silu(norm(f"{name}.norm0", x)), spec.resample))
        scale, shift = dense(f"{name}.affine", e)[:, :, None, None].chunk(2, dim=1)
        h = conv(f"{name}.conv1", F.silu(torch.addcmul(shift, norm(f"{name}.norm1", h), scale + 1)))
        x = resampled(x, spec.resample)
        x = h + (conv(f"{name}.skip", x) if f"{name}.skip.weight" in tensors else x)
        if spec.heads:
            n, c, height, width = x.shape
            qkv = conv(f"{name}.qkv", norm(f"{name}.norm2", x)).reshape(n * spec.heads, c // spec.heads, 3, -1)
            q, k, v = qkv.unbind(2)
            weight = torch.softmax(q.transpose(1, 2) @ k / q.shape[1] ** 0.5, dim=-1)
            x = x + conv(f"{name}.proj", (v @ weight.transpose(1, 2)).reshape(n, c, height, width))
        return x

    half = config.model_channels // 2
    frequencies = 10000.0 ** (-torch.arange(half, dtype=torch.float32) / half)

    def network(x: torch.Tensor, c_noise: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        phase = c_noise * frequencies
        e = torch.cat([phase.cos(), phase.sin()])[None]
        e = F.silu(dense("map_layer1", F.silu(dense("map_layer0", e))) + dense("map_label", labels))
        skips = []
        for name, spec in config.encoder:
            x = conv(f"enc.{name}", x) if isinstance(spec, int) else block(f"enc.{name}", spec, x, e)
            skips.append(x)
        for name, spec, takes_skip in config.decoder:
            x = block(f"dec.{name}", spec, torch.cat([x, skips.pop()], dim=1) if takes_skip else x, e)
        return conv("out_conv", F.silu(norm("out_norm", x)))

    def denoise(x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        total = sigma**2 + sigma_data**2
        f = network(x / total.sqrt(), sigma.log() / 4, labels)
        return sigma_data**2 / total * x + sigma * sigma_data / total.sqrt() * f

    levels = torch.tensor(sigmas, dtype=torch.float32)

    @torch.inference_mode()
    def peer(x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        for now, after in itertools.pairwise(levels):
            slope = (x - denoise(x, now, labels)) / now
            euler = x + (after - now) * slope
            if after > 0:
                slope = (slope + (euler - denoise(euler, after, labels)) / after) / 2
                euler = x + (after - now) * slope
            x = euler
        return x

    return peer


# Measuring -------------------------------------------------------------------------------------------------------------


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Wall time and processor time of one call."""
    start, busy = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - busy


def spread(values: list[float]) -> dict[str, float]:
    """Median, quartiles and minimum."""
    low, middle, high = (float(q) for q in np.quantile(values, (0.25, 0.5, 0.75)))
    return {"median": middle, "quartile_low": low, "quartile_high": high, "minimum": min(values)}


def measure(config: Config) -> dict:
    """All figures; times in seconds."""
    denoiser, weights = load_network()
    network = denoiser.network
    sigmas = karras_sigmas(config.steps)
    indices = np.arange(config.batch)
    labels = indices % network.unet.label_dim
    key = jax.random.key(0)
    noise = np.stack([initial_noise(key, i, network.shape) for i in indices])
    one_hot = np.eye(network.unet.label_dim, dtype=np.float32)[labels]

    def ours(devices: list) -> np.ndarray:
        return sample(
            denoiser, key, indices, sigmas, shape=network.shape, labels=labels,
            batch_size=config.batch // len(devices), devices=devices,
        )  # fmt: skip

    works: dict[str, Callable[[], object]] = {}
    layouts = {f"{k} x {config.batch // k}": jax.local_devices()[:k] for k in sorted({1, config.threads})}
    for layout, devices in layouts.items():
        works[f"dgu {layout}"] = functools.partial(ours, devices)
        chain = make_chain(denoiser, sigmas, devices)
        works[f"chain {layout}"] = functools.partial(chain, noise, one_hot)
        if not np.isfinite(chain(noise, one_hot)).all():
            raise SystemExit("the chain's numbers left float32's range")

    pairs = {f"dgu {layout} to chain {layout}": (f"dgu {layout}", f"chain {layout}") for layout in layouts}
    versions, difference = {"jax": jax.__version__}, None
    if config.peer:
        import torch

        torch.set_num_threads(config.threads)
        versions["torch"] = torch.__version__
        peer, rows = make_peer(network.unet, weights, sigmas), torch.from_numpy(one_hot)
        start = torch.from_numpy(np.ascontiguousarray(np.moveaxis(noise * np.float32(sigmas[0]), -1, 1)))
        works["torch"] = lambda: peer(start, rows)
        pairs |= {f"dgu {layout} to torch": (f"dgu {layout}", "torch") for layout in layouts}
        expected = np.moveaxis(peer(start, rows).numpy(), 1, -1)
        difference = max(float(np.abs(ours(at) - expected).max() / np.abs(expected).max()) for at in layouts.values())
        if not difference < 1e-3:
            raise SystemExit(f"dgu and PyTorch differ by {difference:.1e} of the largest magnitude: not the same work")

    for work in works.values():
        work()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for _ in range(config.repeats):
        for name, work in works.items():
            times[name].append(seconds(work))
    wall = {name: [at[0] for at in values] for name, values in times.items()}
    busy = {name: [at[1] for at in values] for name, values in times.items()}

    def ratios(of: dict[str, list[float]]) -> dict[str, dict[str, float]]:
        return {
            name: spread([other / us for us, other in zip(of[mine], of[theirs])])
            for name, (mine, theirs) in pairs.items()
        }

    return {
        "config": dataclasses.asdict(config),
        "evaluations": 2 * config.steps - 1,
        "largest_difference_from_torch": difference,
        "seconds": {name: spread(values) for name, values in wall.items()},
        "processor_seconds": {name: spread(values) for name, values in busy.items()},
        "images_per_second": {name: config.batch / statistics.median(values) for name, values in wall.items()},
        "relative_throughput": ratios(wall),
        "relative_throughput_by_processor_time": ratios(busy),
        "versions": versions,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "times": times,
    }


def main(config: Config) -> None:
    """Measure, print a table, write the file."""
    if config.quick:
        config = dataclasses.replace(config, batch=2, steps=2, repeats=2, threads=1)
    if min(config.batch, config.threads, config.repeats) < 1 or config.steps < 2 or config.batch % config.threads:
        raise SystemExit("batch, threads and repeats must be 1 or more, steps 2 or more, threads a divisor of batch")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: config.threads])
    jax.config.update("jax_num_cpu_devices", config.threads)
    result = measure(config)
    print(
        f"{config.batch} images, {config.steps} Heun steps ({result['evaluations']} evaluations), float32, "
        f"{config.threads} threads, {config.repeats} rounds"
    )
    if config.peer:
        print(
            f"largest difference from PyTorch's samples: {result['largest_difference_from_torch']:.1e} of the largest"
        )
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
        with open(config.json, "w") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
