"""Networks trained on real images: the images, the scores, and the ranks of the Jacobian along trajectories."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dgu import analysis
from dgu.analysis.quality.descriptors import SSCD
from dgu.core.errors import InputError, require
from dgu.core.keys import stream
from dgu.data.pixels import area_mean
from dgu.samplers import karras_sigmas, sample
from experiments.molrg.networks_arms import score
from experiments.molrg.path_ranks import along_paths
from experiments.molrg.real_config import AUTO, Config, parse
from experiments.sampling import noise_range
from experiments.study import Run
from experiments.study.inputs import note_choice, once_a_run
from experiments.study.progress import Progress
from experiments.subjects import load_images

_AUTO = "auto"


@dataclass(frozen=True)
class RealImages:
    """A data set: its name, training images and held-out ones, (n, H, W, C), and the features by which they are
    compared (None: pixels)."""

    name: str
    training: np.ndarray
    held_out: np.ndarray
    features: Any


@once_a_run
def real_sets(config: Config) -> list[RealImages]:
    """Every data set that the options name; of ``auto`` those that are on this machine, none at worst."""
    found = []
    for name in config.sets:
        if name != _AUTO:
            found.append(_real_images(config, name))
            continue
        there = []
        for candidate in AUTO:
            try:
                there.append(_real_images(config, candidate))
            except InputError as error:
                if "was not found" not in str(error):
                    raise
        note_choice("real.sets", _AUTO, " ".join(each.name for each in there) or "nothing")
        found += there
    names = [each.name for each in found]
    require(len(set(names)) == len(names), "real.sets", config.sets, "data sets that differ")
    return found


def _real_images(config: Config, name: str) -> RealImages:
    """One of ``sets``; whatever cannot be used is refused."""
    source, classes = parse(name)
    try:
        found = load_images("real.sets", source, "train", classes=classes)
    except InputError as error:
        if "split = 'train'" not in str(error):
            raise
        found = load_images("real.sets", source, "test", classes=classes)
    most, available = config.counts[-1] + config.held_out, len(found.images)
    wanted = f"{most:,}: the largest of real.counts and real.held_out"
    require(available >= most, f"real.sets = {name!r}: images", available, wanted)
    # Files may be sorted by class. The smaller training sets are parts of the larger ones.
    order = np.random.default_rng(0).permutation(available)
    images = reduced(found.images[order], config.size)
    require(images.shape[1] == images.shape[2], "real.sets", name, "square images")
    config.network(images.shape[1:])  # Refuses sides that the levels do not divide.
    training, held = images[: config.counts[-1]], images[-config.held_out :]
    features: Any = None
    if config.descriptor == "pca":
        features = analysis.PCAFeatures.fit(held, config.components)
    if config.descriptor == "sscd":
        allowed = "identity or pca for images that are not in colour"
        require(training.shape[3] == 3, "real.descriptor", "sscd", allowed)
        features = SSCD(str(config.sscd))
    shown = name if classes is None else f"{Path(source).name}: {', '.join(found.class_names)}"
    return RealImages(Path(shown).name if classes is None else shown, training, held, features)


def reduced(images: np.ndarray, side: int | None) -> np.ndarray:
    """Images (n, H, W, C) at ``side`` by means over areas, in a border of their lowest value where it does not divide
    theirs; None keeps them."""
    if side is None or images.shape[1:3] == (side, side):
        return images
    missing = [-length % side for length in images.shape[1:3]]
    border = [(0, 0), *((short // 2, short - short // 2) for short in missing), (0, 0)]
    return area_mean(np.pad(images, border, constant_values=images.min()), side)


def trained_on(config: Config, real: RealImages, run: Run, place: int) -> dict[str, np.ndarray]:
    """Networks for every number of images, trained side by side.

    Returns:
        ``gl``, ``threshold`` and ``loss``, ``(counts,)``; and of the last network the ranks of the Jacobian along its
        trajectories, ``ranks`` and ``is_bound``, ``(levels, trajectories)``, at the levels ``sigmas``.
    """
    from dgu.training import train_side_by_side

    network, counts = config.network(real.training.shape[1:]), config.counts
    folder = run.directory.path / "checkpoints" / f"{run.part}-{place}"
    with Progress(f"networks, {real.name}", total=config.steps, unit="updates of each") as bar:
        trained, losses = train_side_by_side(
            network, [real.training[:count] for count in counts], config.optimisation, min(10, config.steps), folder,
            bar.update,
        )  # fmt: skip
    denoisers = [network.denoiser(own) for own in trained]
    grid, key = karras_sigmas(config.sampler_steps, *noise_range(denoisers[0])), stream(run.key, real.name)
    scores: dict[str, list[float]] = {"gl": [], "threshold": []}
    with Progress(f"samples, {real.name}", total=len(counts), unit="networks") as bar:
        for count, denoiser in zip(counts, denoisers):
            made = sample(
                denoiser, stream(key, "samples", count), np.arange(config.samples), grid, shape=network.shape,
                batch_size=min(250, config.samples),
            )  # fmt: skip
            own = score(
                made, real.training[:count], real.held_out, config.level, most=counts[-1], features=real.features
            )
            for name in scores:
                scores[name].append(own[name])
            bar.update()
    size, last = int(np.prod(network.shape)), denoisers[-1]

    def ranks_of(number: int, states: np.ndarray, levels: np.ndarray, own: Any) -> Any:
        return analysis.jacobian_ranks(
            last, states, np.asarray(levels, states.dtype), method="dense" if size <= config.dense else "products",
            key=own, batch_size=config.rank_batch,
        )  # fmt: skip

    ranks = along_paths(last, key, grid, network.shape, config.trajectories, ranks_of)
    return {
        **{name: np.asarray(values) for name, values in scores.items()},
        "loss": losses[:, -1],
        "ranks": ranks["ranks"],
        "is_bound": ranks["is_bound"],
        "sigmas": grid[:-1],
    }
