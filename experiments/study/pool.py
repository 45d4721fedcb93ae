"""The images that a study is about: samples of a network in the store of a run, images given in a file, and real
ones.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dgu.core import parallel
from dgu.core.errors import InputError, require
from experiments import sample as sampling
from experiments.study.inputs import reading
from experiments.study.options import MAY_BE_INFINITE, check_options
from experiments.study.run_directory import RunDirectory

#: The real images that ``--real auto`` thinks of.
BUNDLED_IMAGES = "fashion-mnist-mini"
#: Options that this sampler shares with ``experiments.sample``.
_SHARED = ("num_steps", "sigma_min", "sigma_max", "rho", "churn", "s_min", "s_max", "s_noise")


@dataclass(frozen=True)
class SamplerConfig:
    """The stochastic Heun sampler."""

    num_steps: int = 18
    """Noise levels before 0; the network is evaluated 2 num_steps - 1 times an image."""
    sigma_min: float | None = None
    """Smallest noise level, one that the network takes; None is 0.002, raised to the network's smallest."""
    sigma_max: float | None = None
    """Largest noise level, one that the network takes; None is 80, lowered to the network's largest."""
    rho: float = 7.0
    """Curvature of the noise grid."""
    churn: float = 2.8125
    """S_churn: noise added per step; 2.8125 at 18 steps is the paper's gamma of 0.15625 (S_churn 40 at 256 steps)."""
    s_min: float = 0.05
    """Noise is added above this level."""
    s_max: float = field(default=50.0, metadata=MAY_BE_INFINITE)
    """Noise is added below this level."""
    s_noise: float = 1.003
    """Standard deviation of the noise added, relative to what the step removes."""
    batch_size: int = 200
    """Images per device and chunk."""

    def __post_init__(self) -> None:
        check_options(self, "sampler", batch_size=1)
        self._as_sampling()  # Checks what it shares.
        low, high = self.sigma_min or 0.002, self.sigma_max or 80.0
        require(low < high, "sampler.sigma_min", low, f"below sampler.sigma_max = {high:g}")

    @property
    def evaluations(self) -> int:
        """Evaluations of the network an image."""
        return 2 * self.num_steps - 1

    def built(self, denoiser: Any) -> tuple[np.ndarray, Callable[..., Any], Any]:
        """Noise levels, solver and churn for ``dgu.samplers.sample``; see ``experiments.sample.build_sampler``."""
        return sampling.build_sampler(self._as_sampling(), denoiser)

    def _as_sampling(self) -> sampling.SamplerConfig:
        return sampling.SamplerConfig(**{name: getattr(self, name) for name in _SHARED})


def sample_pool(
    directory: RunDirectory, pretrained: Any, labels: Sequence[int], count: int, config: SamplerConfig, seed: int
) -> np.ndarray:
    """``count`` samples of each class (K, count, H, W, C) from the store ``samples/``, made where they are missing.

    A network without classes is its own only class: ``labels`` is then ``(0,)``.
    """
    import jax

    from dgu import samplers
    from dgu.core import keys
    from dgu.data import SampleStore
    from experiments.study.progress import Progress

    sigmas, solver, churn = config.built(pretrained.denoiser)
    shape, conditional = pretrained.network.shape, pretrained.network.unet.label_dim > 0
    fingerprint = {
        "sampler": {name: getattr(config, name) for name in config.__dataclass_fields__},
        "seed": seed,
        "network": pretrained.sha256,
    }
    store = SampleStore.open(directory.path / "samples", fingerprint, shape, shard_size=config.batch_size)
    with Progress("sampling", total=count * len(labels), unit="images") as bar:
        for label in labels:
            # A class never shares its noise with another: each has a stream of its own.
            key = keys.stream(keys.seeded(seed), "diffusion", int(label))

            def make(of: np.ndarray, indices: np.ndarray, key: Any = key) -> np.ndarray:
                return samplers.sample(
                    pretrained.denoiser,
                    key,
                    indices,
                    sigmas,
                    shape=shape,
                    labels=of if conditional else None,
                    churn=churn,
                    solver=solver,
                    batch_size=config.batch_size,
                )

            before = bar.done

            def report(done: int, total: int, before: int = before) -> None:
                bar.update(before + done - bar.done)

            together = config.batch_size * jax.local_device_count()
            process = jax.process_index(), jax.process_count()
            store.fill(make, [label], count, batch_size=together, process=process, progress=report)
            report(count, count)
    parallel.barrier("sampled")
    return np.stack([store.read(label, count) for label in labels])


def load_images(option: str, value: str, split: str, size: int | None = None, **more: Any) -> Any:
    """``dgu.data.load``, its complaints under the name of the option that brought them; what the file held is noted."""
    from dgu import data

    try:
        with reading(option, value, image_file(value)):
            return data.load(value, split, size, **more)
    except InputError as error:
        raise InputError(f"{option} = {value!r}: {error}") from error


def image_file(value: str) -> Path | None:
    """The file or folder that ``dgu.data.load`` reads; None for a set known by name, whose content is known, too."""
    from dgu.data.named import NAMED_SETS

    return None if value in NAMED_SETS else Path(os.path.expanduser(value))


def class_list(classes: Sequence[int] | None, available: int, at_least: int = 1) -> tuple[int, ...]:
    """The classes asked for, or all that there are."""
    labels = tuple(range(available)) if classes is None else tuple(classes)
    inside = len(labels) >= at_least and len(set(labels)) == len(labels) and all(0 <= k < available for k in labels)
    wanted = {1: "one or more", 2: "two or more"}[at_least]
    require(inside, "classes", labels, f"{wanted} different classes from 0..{available - 1}")
    return labels


def of_classes(option: str, value: str, images: Any, labels: Sequence[int], count: int, why: str) -> np.ndarray:
    """The first ``count`` images of each class of an ``ImageSet``, (K, count, H, W, C); ``why`` says who needs so
    many.
    """
    for label in labels:
        found = int((images.labels == label).sum())
        shown = f"{option} = {value!r}: images of class {images.class_names[label]}"
        require(found >= count, shown, found, f"at least {count} in each class {why}")
    return np.stack([images.images[images.labels == label][:count] for label in labels])


def real_classes(config: Any, labels: Sequence[int], names: Sequence[str], shape: tuple[int, ...]) -> np.ndarray | None:
    """Equally many real images of each class, (K, n, H, W, C), or None.

    ``config`` has the options ``real`` (a data set, "auto" or None), ``real_split`` and ``size``; ``names`` are those
    of all classes, of which ``labels`` are studied. "auto" takes the bundled images where the classes have their names,
    else none.
    """
    from dgu.data.splits import check_no_duplicates

    if config.real is None:
        return None
    real = load_images("real", BUNDLED_IMAGES if config.real == "auto" else config.real, config.real_split, config.size)
    if config.real == "auto" and tuple(real.class_names) != tuple(names):
        return None
    fits = real.images.shape[1:] == tuple(shape) and len(real.class_names) == len(names)
    wanted = (
        f"{len(names)} classes of images of shape {tuple(shape)} like the samples (see --size), "
        "or None for no real images"
    )
    shown = f"real = {config.real!r}: {len(real.class_names)} classes of images of shape"
    require(fits, shown, real.images.shape[1:], wanted)
    count = min(int((real.labels == label).sum()) for label in labels)
    require(count >= 8, f"real = {config.real!r}: images in the smallest class", count, "at least 8")
    picked = np.stack([real.images[real.labels == label][:count] for label in labels])
    check_no_duplicates(picked.reshape(-1, *picked.shape[2:]), "real")
    return picked
