"""The equivariant local machine of training images beside plain programs of the same sums, in one process, alternating.

    python -m benchmarks.local [--quick] [--json PATH]

One noisy image at each core against 6,000 training images of 14 x 14 pixels, windows of 5 x 5 on a circle: 196 positions
by 1,176,000 windows of each image.

- ``dgu``: ``dgu.models.LocalDenoiser``, compiled, an image on each CPU device of JAX.
- ``numpy, products``: the windows of a batch of training images as rows, distances as ``|a|^2 - 2 a . b + |b|^2`` by one
  BLAS product, a running maximum. It is the fastest way to write it, and loses digits at small noise levels.
- ``numpy, differences``: distances from differences, position by position, which keeps the digits, as dgu does.
- ``torch, products``: the first in PyTorch, where that is installed.

All give the same image, which is checked. Medians over ``rounds`` rounds. Beside them: the memory that the compiled
program needs beyond its arguments, with this many training images and with four times as many.
"""

import dataclasses
import importlib.util
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks import provenance
from benchmarks.timing import alternate, relative_throughput, spread, use_cores
from dgu.models import LocalDenoiser


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the measurement."""

    images: int = 6_000
    """Training images."""
    side: int = 14
    """Side of the images."""
    window: int = 5
    """Side of the windows."""
    sigma: float = 0.5
    """Noise level."""
    batch: int = 64
    """Training images at a time of the plain programs."""
    rounds: int = 3
    """Times that each is measured, in turn."""
    threads: int = 2
    """Cores the process may use, CPU devices of JAX, and noisy images."""
    quick: bool = False
    """Small sizes, one round: does it work, no more."""
    json: str | None = None
    """File to write the figures to."""


def make_data(config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Noisy images, and training images: smooth random fields."""
    rng = np.random.default_rng(0)
    shape = (config.images, config.side, config.side, 1)
    fields = np.fft.rfft2(rng.standard_normal(shape, np.float32), axes=(1, 2))
    rows, columns = np.fft.fftfreq(config.side), np.fft.rfftfreq(config.side)
    fields *= 1 / (1 + 100 * (rows[:, None] ** 2 + columns**2))[None, :, :, None]
    data = np.fft.irfft2(fields, s=shape[1:3], axes=(1, 2))
    data = (data / data.std()).astype(np.float32)
    noise = rng.standard_normal((config.threads, *shape[1:]), np.float32)
    return data[: config.threads] + np.float32(config.sigma) * noise, data


def windows_as_rows(images: np.ndarray, window: int) -> np.ndarray:
    """``(n h w, k k)``, the windows of all positions of images of one channel, on a circle."""
    radius = window // 2
    around = np.pad(images[..., 0], [(0, 0), (radius, radius), (radius, radius)], mode="wrap")
    return np.lib.stride_tricks.sliding_window_view(around, (window, window), (1, 2)).reshape(-1, window**2)


def batches(data: np.ndarray, config: Config) -> Iterator[np.ndarray]:
    """Windows of the training images, batch by batch."""
    for start in range(0, len(data), config.batch):
        yield windows_as_rows(data[start : start + config.batch], config.window)


def by_numpy(
    x: np.ndarray, data: np.ndarray, config: Config, squares: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """One image, all positions, by distances ``(positions, windows)`` of whatever kind."""
    queries = windows_as_rows(x[None], config.window)
    largest, total, weighted = np.full((len(queries), 1), -np.inf, np.float32), 0.0, 0.0
    for rows in batches(data, config):
        exponents = squares(queries, rows)
        exponents *= -1 / (2 * config.sigma**2)
        new = np.maximum(largest, exponents.max(axis=1, keepdims=True))
        exponents -= new
        weights, keep = np.exp(exponents, out=exponents), np.exp(largest - new)
        total = keep * total + weights.sum(axis=1, keepdims=True)
        weighted = keep * weighted + weights @ rows[:, [config.window**2 // 2]]
        largest = new
    return (weighted / total).reshape(x.shape)


def by_products(queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Squared distances by one matrix product."""
    found = queries @ rows.T
    found *= -2
    found += (rows**2).sum(axis=1)
    found += (queries**2).sum(axis=1, keepdims=True)
    return found


def by_differences(queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Squared distances by differences, a position at a time."""
    found = np.empty((len(queries), len(rows)), np.float32)
    for row, query in zip(found, queries):
        apart = rows - query
        np.einsum("ij,ij->i", apart, apart, out=row)
    return found


def by_torch(x: np.ndarray, data: np.ndarray, config: Config) -> np.ndarray:
    """As ``by_numpy`` by products, in PyTorch."""
    import torch

    queries = torch.from_numpy(windows_as_rows(x[None], config.window).copy())
    largest = torch.full((len(queries), 1), -torch.inf)
    total, weighted = torch.zeros(1), torch.zeros(1)
    for batch in batches(data, config):
        rows = torch.from_numpy(batch)
        squares = queries.square().sum(1, keepdim=True) - 2 * queries @ rows.T + rows.square().sum(1)
        exponents = squares / (-2 * config.sigma**2)
        new = torch.maximum(largest, exponents.amax(1, keepdim=True))
        weights, keep = torch.exp(exponents - new), torch.exp(largest - new)
        total = keep * total + weights.sum(1, keepdim=True)
        weighted = keep * weighted + weights @ rows[:, [config.window**2 // 2]]
        largest = new
    return (weighted / total).numpy().reshape(x.shape)


@jax.jit
def denoised(denoiser: LocalDenoiser, x: jax.Array, sigma: float) -> jax.Array:
    """Ours."""
    return denoiser(x, sigma)


def temporary_bytes(config: Config, images: int) -> int:
    """Memory of the compiled program beyond its arguments and its result."""
    shape = (config.side, config.side, 1)
    data = jax.ShapeDtypeStruct((images, *shape), jnp.float32)
    denoiser = LocalDenoiser(data, config.window, equivariant=True, boundary="circular")
    compiled = denoised.lower(denoiser, jax.ShapeDtypeStruct(shape, jnp.float32), config.sigma).compile()
    return int(compiled.memory_analysis().temp_size_in_bytes)


def measure(config: Config) -> dict:
    """All figures of one configuration."""
    noisy, data = make_data(config)
    devices = jax.local_devices()[: config.threads]
    denoiser = LocalDenoiser(data, config.window, equivariant=True, boundary="circular")
    held = [(jax.device_put(denoiser, device), jax.device_put(x, device)) for device, x in zip(devices, noisy)]
    noisy = noisy[: len(held)]

    def ours() -> np.ndarray:
        return np.stack([np.asarray(one) for one in [denoised(*pair, config.sigma) for pair in held]])

    works: dict[str, Callable[[], np.ndarray]] = {
        "dgu": ours,
        "numpy, products": lambda: np.stack([by_numpy(x, data, config, by_products) for x in noisy]),
        "numpy, differences": lambda: np.stack([by_numpy(x, data, config, by_differences) for x in noisy]),
    }
    if importlib.util.find_spec("torch") is not None:
        works["torch, products"] = lambda: np.stack([by_torch(x, data, config) for x in noisy])
    expected = works["numpy, differences"]()
    worst = {name: float(np.abs(work() - expected).max()) for name, work in works.items()}
    if max(worst.values()) > 1e-3:
        raise SystemExit(f"the programs differ: by {worst}")
    times = alternate(dict(works), config.rounds)
    pairs = {f"dgu to {name}": ("dgu", name) for name in works if name != "dgu"}
    return {
        "config": dataclasses.asdict(config),
        "noisy_images": len(noisy),
        "window_pairs": len(noisy) * len(data) * config.side**4,
        "largest_difference": worst,
        "seconds": {name: spread([wall for wall, _ in of]) for name, of in times.items()},
        "relative_throughput": relative_throughput(times, pairs),
        "relative_throughput_by_processor_time": relative_throughput(times, pairs, clock=1),
        "temporary_bytes": {str(n): temporary_bytes(config, n) for n in (config.images, 4 * config.images)},
        "times": times,
    }


def main(config: Config) -> None:
    """Measure, print a table, write the file."""
    if config.quick:
        config = dataclasses.replace(config, images=200, side=6, window=3, rounds=1)
    use_cores(config.threads)
    result = measure(config)
    print(
        f"{config.images:,} training images of {config.side} x {config.side}, windows of {config.window} x {config.window}"
    )
    print(f"{'':20}{'seconds':>10}{'dgu is faster by':>18}{'by processor time':>19}")
    for name, at in result["seconds"].items():
        ratios = [
            "" if name == "dgu" else f"{result[key][f'dgu to {name}']['median']:.2f}"
            for key in ("relative_throughput", "relative_throughput_by_processor_time")
        ]
        print(f"{name:20}{at['median']:10.2f}{ratios[0]:>18}{ratios[1]:>19}")
    for number, size in result["temporary_bytes"].items():
        print(f"memory beyond the data with {int(number):,} training images: {size / 1e6:.2f} MB")
    if config.json:
        provenance.write(config.json, result)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
