"""The exact linear distillation against Adam's, at equal score error, on the same teacher and images.

    python -m benchmarks.distillation [--quick] [--json PATH]

The teacher is the multi-delta denoiser of ``--points`` images, which no linear map fits, or with ``--points 0`` a Gaussian's denoiser, which
one fits exactly. Images of a planted law of d = 784 with a power-law spectrum, as many as the authors take. Adam trains all ten noise
levels together, as the authors do (their learning rates, epochs, batches of 256, fresh noise). Its score
error is ``sqrt(E |W y + b - D(y)|^2 / d)`` on noisy images that neither has seen, at each level, after the last epoch. The
exact distillation then takes ever more examples (doubling; first images, then noises of each): the first number at which its score error is
at no level more than ``--tolerance`` above Adam's, and the first at which it is at no level larger. Its time for each is set
against Adam's. Compilation is left out of both: a first call of each comes before.
"""

import dataclasses
import json
from collections.abc import Iterator

import jax
import numpy as np
import tyro

from benchmarks.timing import seconds, use_cores
from dgu.analysis import score_distances, weight_nmse
from dgu.models import EmpiricalDenoiser, GaussianDenoiser
from dgu.samplers import karras_sigmas
from dgu.training import ExactDistillation, distill_by_adam, distill_exactly


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the measurement."""

    size: int = 784
    """d of an example."""
    images: int = 30_000
    """Images that Adam sees in an epoch (the authors' number)."""
    epochs: int = 100
    """Epochs of Adam (the authors' number)."""
    points: int = 64
    """Points of the multi-delta teacher; with 0 the teacher is a Gaussian's."""
    held: int = 2048
    """Images on which the score errors are measured."""
    most_draws: int = 16
    """Noises of each image that the exact distillation may use."""
    tolerance: float = 0.02
    """What counts as the same score error: Adam's and this share of it."""
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


def examples(config: Config) -> Iterator[tuple[int, int]]:
    """Numbers of images, and of noises of each: all images with one noise, then ever more noises."""
    count = min(1024, config.images)
    while count < config.images:
        yield count, 1
        count = min(2 * count, config.images)
    draws = 1
    while draws <= config.most_draws:
        yield config.images, draws
        draws *= 2


def measure(config: Config) -> dict:
    """All figures, in seconds."""
    sigmas, key = karras_sigmas(10)[:-1], jax.random.key(0)
    images, held = planted(config.images, config.size, 1), planted(config.held, config.size, 2)
    points = planted(config.points or 1024, config.size, 0)
    teacher = EmpiricalDenoiser(points) if config.points else GaussianDenoiser.fit(points)

    def errors(maps) -> np.ndarray:
        models = {"teacher": teacher, "maps": maps}
        found = score_distances(models, held, sigmas, jax.random.key(1), inputs="held-out", batch_size=128)
        return np.sqrt((found.differences[:, 0, 1] ** 2).mean(axis=1) / config.size)

    distill_by_adam(teacher, images, sigmas, key, epochs=1)
    result: dict = {}
    half = max(config.epochs // 2, 1)

    def by_adam() -> None:
        result["adam"] = distill_by_adam(
            teacher, images, sigmas, key, epochs=config.epochs, snapshot_every=half, observe=lambda _, maps: maps
        )

    adam_time, adam_busy = seconds(by_adam)
    adam = result["adam"].denoiser
    moved = weight_nmse(dict(result["adam"].observed)[half], adam)
    wanted = errors(adam)
    margins, found = {"within": 1 + config.tolerance, "no larger": 1.0}, {}
    for count, draws in examples(config):

        def exactly(count: int = count, draws: int = draws) -> ExactDistillation:
            return distill_exactly(teacher, images[:count], sigmas, key, draws=draws)

        exactly()
        maps = exactly().denoiser
        reached = errors(maps)
        new = [name for name, margin in margins.items() if name not in found and (reached <= margin * wanted).all()]
        if not new:
            continue
        times = [seconds(exactly) for _ in range(config.rounds)]
        wall, busy = (float(part) for part in np.median(times, axis=0))
        for name in new:
            found[name] = {
                "images": count,
                "draws": draws,
                "seconds": wall,
                "speed_up": adam_time / wall,
                "processor_seconds": busy,
                "processor_speed_up": adam_busy / busy,
                "error": reached.tolist(),
                "adam_to_exact": weight_nmse(adam, maps).tolist(),
            }
        if len(found) == len(margins):
            break
    return {
        "config": dataclasses.asdict(config),
        "adam_seconds": adam_time,
        "adam_processor_seconds": adam_busy,
        "adam_error": wanted.tolist(),
        "adam_moved": moved.tolist(),
        "exact": found,
    }


def main(config: Config) -> dict:
    """Measure, print a table, write the file."""
    if config.quick:
        config = dataclasses.replace(config, size=64, images=1024, epochs=2, held=512, most_draws=2, rounds=1)
    use_cores(config.threads)
    result = measure(config)
    print(f"d = {config.size}, ten noise levels together, {config.threads} threads")
    print(f"Adam: {config.epochs} epochs of {config.images} images, {result['adam_seconds']:.1f} s")
    said = {
        "within": f"at most {100 * config.tolerance:g} % above Adam's at every level",
        "no larger": "no larger at any level",
    }
    for name, words in said.items():
        exact = result["exact"].get(name)
        if exact is None:
            print(f"exactly, score error {words}: not reached")
            continue
        print(
            f"exactly, score error {words}: {exact['images']} images with {exact['draws']} noises each, {exact['seconds']:.2f} s, "
            f"{exact['speed_up']:.0f} times faster (by processor time {exact['processor_speed_up']:.0f})"
        )
    if "within" in result["exact"]:
        print(
            "sigma, score error by Adam and exactly (the first), NMSE of weights between the two, and of Adam's at half its epochs:"
        )
        first = result["exact"]["within"]
        columns = result["adam_error"], first["error"], first["adam_to_exact"], result["adam_moved"]
        for sigma, adam, exact, apart, moved in zip(karras_sigmas(10), *columns):
            print(f"  {sigma:<8.4g} {adam:.5f}  {exact:.5f}  {apart:.2g}  {moved:.2g}")
    if config.json:
        with open(config.json, "w") as file:
            json.dump(result, file, indent=1)
    return result


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
