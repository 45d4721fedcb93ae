"""The exact linear distillation against Adam's, at equal score error, on the same teacher and images.

    python -m benchmarks.distillation [--quick] [--json PATH]

The teacher is a Gaussian's denoiser, or with ``--points`` the multi-delta denoiser of so many images, which no map fits: there
both need many noisy examples, and the advantage is smaller. Images of a planted law of d = 784 with a power-law
spectrum. Adam trains all ten noise levels together, as the authors do (their learning rates, batches of 256, fresh noise). Its score
error is ``sqrt(E |W y + b - D(y)|^2 / d)`` on noisy images that neither has seen, at each level, after ``epochs`` epochs. The
exact distillation then takes, of ever more images (doubling), the first number at which its score error is no larger at any level, and its
time for that number is set against Adam's time for its epochs. Compilation is left out of both: a first call of each comes before.
"""

import dataclasses
import json

import jax
import numpy as np
import tyro

from benchmarks.timing import seconds, use_cores
from dgu.analysis import score_distances
from dgu.models import EmpiricalDenoiser, GaussianDenoiser
from dgu.samplers import karras_sigmas
from dgu.training import distill_by_adam, distill_exactly


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the measurement."""

    size: int = 784
    """d of an example."""
    images: int = 8192
    """Images that Adam sees in an epoch, and the most that the exact distillation may use."""
    epochs: int = 60
    """Epochs of Adam; the authors' 100 over 30,000 images are six times as many steps."""
    points: int = 0
    """Points of the multi-delta teacher; with 0 the teacher is a Gaussian's."""
    rounds: int = 3
    """Times that the exact distillation is measured; its median counts. Adam is measured once."""
    threads: int = 2
    """Cores the process may use."""
    quick: bool = False
    """d = 64, few images: does it work, no more."""
    json: str | None = None
    """File to write the figures to."""


def planted(count: int, size: int, seed: int) -> np.ndarray:
    """Examples with the spectrum ``10 / rank^2`` in a fixed basis."""
    basis = np.linalg.qr(np.random.default_rng(99).normal(size=(size, size)))[0]
    scale = np.sqrt(10.0) / np.arange(1, size + 1)
    return ((np.random.default_rng(seed).normal(size=(count, size)) * scale) @ basis.T).astype(np.float32)


def measure(config: Config) -> dict:
    """All figures, in seconds."""
    sigmas, key = karras_sigmas(10)[:-1], jax.random.key(0)
    images, held = planted(config.images, config.size, 1), planted(512, config.size, 2)
    points = planted(config.points or 1024, config.size, 0)
    teacher = EmpiricalDenoiser(points) if config.points else GaussianDenoiser.fit(points)

    def errors(maps) -> np.ndarray:
        models = {"teacher": teacher, "maps": maps}
        found = score_distances(models, held, sigmas, jax.random.key(1), inputs="held-out", batch_size=128)
        return np.sqrt((found.differences[:, 0, 1] ** 2).mean(axis=1) / config.size)

    distill_by_adam(teacher, images, sigmas, key, epochs=1)
    result: dict = {}
    adam_time, adam_busy = seconds(
        lambda: result.update(adam=distill_by_adam(teacher, images, sigmas, key, epochs=config.epochs).denoiser)
    )
    wanted = errors(result["adam"])
    count, times = 256, []
    while True:
        distill_exactly(teacher, images[:count], sigmas, key)
        found = distill_exactly(teacher, images[:count], sigmas, key).denoiser
        reached = errors(found)
        if (reached <= wanted).all() or count >= config.images:
            break
        count = min(2 * count, config.images)
    for _ in range(config.rounds):
        times.append(seconds(lambda: distill_exactly(teacher, images[:count], sigmas, key)))
    exact_time, exact_busy = (float(part) for part in np.median(times, axis=0))
    return {
        "config": dataclasses.asdict(config),
        "adam_seconds": adam_time,
        "exact_seconds": exact_time,
        "exact_images": count,
        "speed_up": adam_time / exact_time,
        "adam_processor_seconds": adam_busy,
        "exact_processor_seconds": exact_busy,
        "processor_speed_up": adam_busy / exact_busy,
        "adam_error": wanted.tolist(),
        "exact_error": reached.tolist(),
        "reached": bool((reached <= wanted).all()),
    }


def main(config: Config) -> dict:
    """Measure, print a table, write the file."""
    if config.quick:
        config = dataclasses.replace(config, size=64, images=1024, epochs=2, rounds=1)
    use_cores(config.threads)
    result = measure(config)
    print(f"d = {config.size}, ten noise levels together, {config.threads} threads")
    print(f"Adam: {config.epochs} epochs of {config.images} images, {result['adam_seconds']:.1f} s")
    print(
        f"exactly: {result['exact_images']} images, {result['exact_seconds']:.2f} s, {result['speed_up']:.0f} times faster"
        f" (by processor time {result['processor_speed_up']:.0f})"
    )
    print(
        "score error at each level, Adam and exactly (a smaller one was "
        + ("" if result["reached"] else "NOT ")
        + "reached):"
    )
    for sigma, adam, exact in zip(karras_sigmas(10), result["adam_error"], result["exact_error"]):
        print(f"  sigma = {sigma:<8.4g} {adam:.5f}  {exact:.5f}")
    if config.json:
        with open(config.json, "w") as file:
            json.dump(result, file, indent=1)
    return result


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
