"""The exact linear distillation against Adam's, at equal score error, on the same teacher and images.

    python -m benchmarks.distillation [--quick] [--json PATH]

The teacher is the multi-delta denoiser of ``--points`` images, which no linear map fits, or with ``--points 0`` a
Gaussian's denoiser, which one fits exactly. Images of a planted law of d = 784 with a power-law spectrum, as many as
the authors take. Adam trains all ten noise levels together, as the authors do (their learning rates, epochs, batches of
256, fresh noise). Its score error is ``sqrt(E |W y + b - D(y)|^2 / d)`` on noisy images that neither has seen, at each
level, after the last epoch. The exact distillation, on antithetic noises, then takes at each level ever more examples
(doubling; first images, then noises of each) until its score error is no larger than Adam's there; the times of the
levels are added up. As Adam may have been as good before its end, the share of its time up to the first of ten
snapshots that is no worse than the last is compared, too. Last, all levels are distilled exactly with one pair of
noises of every image. Compilation is left out of all: a first call of each comes before.
"""

import dataclasses
from collections.abc import Iterator

import jax
import numpy as np
import tyro

from benchmarks import provenance
from benchmarks.timing import seconds, use_cores
from dgu.analysis import score_distances, weight_nmse
from dgu.core.keys import seeded
from dgu.models import EmpiricalDenoiser, GaussianDenoiser, LinearDenoiser
from dgu.samplers import karras_sigmas
from dgu.training import distill_by_adam, distill_exactly


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
    """Pairs of noises of each image that the exact distillation may use."""
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
    """Numbers of images, and of pairs of noises of each: all images with one pair, then ever more pairs."""
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
    sigmas, key = karras_sigmas(10)[:-1], seeded(0)
    images, held = planted(config.images, config.size, 1), planted(config.held, config.size, 2)
    points = planted(config.points or 1024, config.size, 0)
    teacher = EmpiricalDenoiser(points) if config.points else GaussianDenoiser.fit(points)

    def errors(maps: LinearDenoiser) -> np.ndarray:
        models = {"teacher": teacher, "maps": maps}
        found = score_distances(models, held, maps.sigmas, seeded(1), inputs="held-out", batch_size=128)
        return np.sqrt((found.differences[:, 0, 1] ** 2).mean(axis=1) / config.size)

    def exactly(levels: slice, count: int, draws: int) -> LinearDenoiser:
        """At each level on other noises."""
        own = jax.random.fold_in(key, levels.start or 0)
        return distill_exactly(teacher, images[:count], sigmas[levels], own, draws=draws, antithetic=True).denoiser

    def timed(levels: slice, count: int, draws: int) -> dict:
        times = [seconds(lambda: exactly(levels, count, draws)) for _ in range(config.rounds)]
        wall, busy = (float(part) for part in np.median(times, axis=0))
        return {"images": count, "draws": draws, "seconds": wall, "processor_seconds": busy}

    distill_by_adam(teacher, images, sigmas, key, epochs=1)
    every, result = max(config.epochs // 10, 1), {}

    def by_adam() -> None:
        result["adam"] = distill_by_adam(
            teacher, images, sigmas, key, epochs=config.epochs, snapshot_every=every, observe=lambda _, maps: maps
        )

    adam_time, adam_busy = seconds(by_adam)
    adam = result["adam"].denoiser
    snapshots = dict(result["adam"].observed)
    del snapshots[0]
    course = np.stack([errors(maps) for maps in snapshots.values()])
    wanted = course[-1]
    reached = np.array(list(snapshots))[np.argmax(course <= wanted, axis=0)]
    halfway = min(snapshots, key=lambda epoch: abs(epoch - config.epochs / 2))
    exact: list[dict | None] = []
    for number in range(len(sigmas)):
        level = slice(number, number + 1)
        exact.append(None)
        for count, draws in examples(config):
            error = float(errors(exactly(level, count, draws))[0])
            if error <= wanted[number]:
                exact[-1] = timed(level, count, draws) | {"error": error}
                break
    everything = slice(None)
    maps = exactly(everything, config.images, 1)
    return {
        "config": dataclasses.asdict(config),
        "adam_seconds": adam_time,
        "adam_processor_seconds": adam_busy,
        "adam_error": wanted.tolist(),
        "adam_epochs": reached.tolist(),
        "adam_seconds_to_error": adam_time * float(reached.mean()) / config.epochs,
        "adam_moved": weight_nmse(snapshots[halfway], adam).tolist(),
        "exact": exact,
        "all": timed(everything, config.images, 1)
        | {"error": errors(maps).tolist(), "adam_to_exact": weight_nmse(adam, maps).tolist()},
    }


def main(config: Config) -> dict:
    """Measure, print a table, write the file."""
    if config.quick:
        config = dataclasses.replace(config, size=64, images=1024, epochs=2, held=512, most_draws=2, rounds=1)
    use_cores(config.threads)
    result = measure(config)
    adam, busy, exact, whole = (result[name] for name in ("adam_seconds", "adam_processor_seconds", "exact", "all"))
    print(f"d = {config.size}, ten noise levels, {config.threads} threads")
    print(f"Adam: {config.epochs} epochs of {config.images} images, all levels together: {adam:.1f} s")
    if None in exact:
        print(
            f"exactly, score error no larger at each level: not reached at {exact.count(None)} of {len(exact)} levels"
        )
    else:
        taken, used = (sum(one[name] for one in exact) for name in ("seconds", "processor_seconds"))
        print(
            f"exactly, until the score error is no larger at each level: {taken:.2f} s, {adam / taken:.0f} times "
            "faster "
            f"(by processor time {busy / used:.0f}; where Adam is charged only until it was no worse than at its end, "
            f"{result['adam_seconds_to_error'] / taken:.0f})"
        )
    larger = sum(error > wanted for error, wanted in zip(whole["error"], result["adam_error"]))
    print(
        f"exactly, every image with a pair of noises at each level: {whole['seconds']:.2f} s, "
        f"{adam / whole['seconds']:.0f} times "
        f"faster (by processor time {busy / whole['processor_seconds']:.0f}), score error larger than Adam's at "
        f"{larger} levels"
    )
    print("sigma, Adam's score error and first epoch no worse; exactly: error, images, pairs of each, seconds;")
    print("NMSE of weights between Adam's and those of all images, and of Adam's at half its epochs:")
    columns = result["adam_error"], result["adam_epochs"], exact, whole["adam_to_exact"], result["adam_moved"]
    for sigma, wanted, epoch, one, apart, moved in zip(karras_sigmas(10), *columns):
        found = (
            f"{one['error']:.5f}  {one['images']:5d} {one['draws']:2d}  {one['seconds']:.2f}" if one else "not reached"
        )
        print(f"  {sigma:<8.4g} {wanted:.5f}  {epoch:3d}   {found}   {apart:.2g}  {moved:.2g}")
    if config.json:
        provenance.write(config.json, result)
    return result


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
