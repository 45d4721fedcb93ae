"""What the universality study looks at in place of pixels (``--features``): checked before any work, computed once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from dgu.core.errors import InputError, require
from experiments.study.inputs import reading
from experiments.study.options import check_options
from experiments.study.pool import load_images
from experiments.study.run_directory import RunDirectory

if TYPE_CHECKING:
    from experiments.universality_replicates import Images

PIXELS, CNN, RANDOM = "pixels", "cnn", "random-conv"
#: Fewest real images of each class that a network is trained on where half of them are spared for it.
MIN_REAL = 16


@dataclass(frozen=True)
class CnnConfig:
    """The small network of --features cnn; its penultimate layer has 8 width features."""

    images: str | None = None
    """Real images that it is trained on, such as fashion-mnist; None: the first half of each class of --real, which then does
    not take part in the arm "real"."""
    split: str = "train"
    """Split of these images."""
    epochs: int = 12
    """Passes over them."""
    width: int = 16
    """Channels of the first convolution."""

    def __post_init__(self) -> None:
        check_options(self, "cnn", epochs=1, width=1)


@dataclass(frozen=True)
class Source:
    """Where features come from, and what they need.

    Attributes:
        kind: pixels, cnn, random-conv or the name of a file.
        rows: (K P, d) features read from a file, in the order of the samples.
        train: (m, H, W, C) images that a network is trained on, with ``labels``.
        labels: (m,) from 0.
    """

    kind: str
    rows: np.ndarray | None = None
    train: np.ndarray | None = None
    labels: np.ndarray | None = None


def prepare(
    config: Any,
    classes: Sequence[int],
    names: Sequence[str],
    shape: tuple[int, ...],
    real: np.ndarray | None,
    chosen: np.ndarray | None = None,
    available: int | None = None,
) -> tuple[Source, np.ndarray | None]:
    """Check all that features need before a network is sampled; gives their source, and the real images that are left.

    Args:
        config: of the study.
        classes: the classes studied, of ``names``.
        names: names of all classes.
        shape: of one image.
        real: (K, n, H, W, C) or None.
        chosen: (K, P) places of the samples studied among ``available`` images of a file; None where they are sampled, class by class.
        available: images in that file.
    """
    kind = config.features
    if kind == PIXELS:
        return Source(kind), real
    if kind == RANDOM:
        require(min(shape[:2]) >= 4, "features", kind, f"pixels: images of {shape[0]} x {shape[1]} are too small")
        return Source(kind), real
    if kind != CNN:
        require(
            real is None or config.real == "auto",
            "real",
            config.real,
            f"None with features = {kind!r}: it has none of them",
        )
        count = len(classes) * config.splits.total if available is None else available
        rows = read(kind, count)
        return Source(kind, rows=rows if chosen is None else rows[chosen.ravel()]), None
    require(min(shape[:2]) >= 4, "features", kind, f"pixels: images of {shape[0]} x {shape[1]} are too small")
    if config.cnn.images is None:
        need = f"with {MIN_REAL} real images of each class or more to train on (see --real and --cnn.images)"
        require(real is not None and real.shape[1] >= MIN_REAL, "features", kind, need)
        assert real is not None
        half = real.shape[1] // 2
        train, real = real[:, :half], real[:, half:]
        labels = np.repeat(np.arange(len(classes), dtype=np.int32), half)
        return Source(kind, train=train.reshape(-1, *shape), labels=labels), real
    given = load_images("cnn.images", config.cnn.images, config.cnn.split, config.size)
    fits = given.images.shape[1:] == tuple(shape) and len(given.class_names) == len(names)
    shown = f"cnn.images = {config.cnn.images!r}: {len(given.class_names)} classes of images of shape"
    require(fits, shown, given.images.shape[1:], f"{len(names)} classes of images of shape {tuple(shape)} (see --size)")
    place = {label: number for number, label in enumerate(classes)}
    of = np.asarray([place.get(int(label), -1) for label in given.labels], np.int32)
    require(set(of.tolist()) >= set(place.values()), "cnn.images", config.cnn.images, "images of every class studied")
    return Source(kind, train=np.asarray(given.images[of >= 0]), labels=of[of >= 0]), real


def read(file: str, count: int) -> np.ndarray:
    """Features in a file, one row for each of ``count`` images."""
    from dgu.analysis.quality.frechet import read_features
    from dgu.analysis.quality.representations import checked_features

    wanted = f"{PIXELS}, {CNN}, {RANDOM} or an npy file"
    try:
        with reading("features", file, file):
            values = read_features(file)
    except InputError as error:
        raise InputError(f"features = {file!r}: must be {wanted} ({error})") from error
    return checked_features(values, count, f"features = {file!r}")


def dimension(config: Any, shape: tuple[int, ...]) -> int:
    """Numbers in one example that the study looks at, for images of ``shape``."""
    if config.features == PIXELS:
        return int(np.prod(shape))
    if config.features == CNN:
        return 8 * config.cnn.width
    if config.features == RANDOM:
        return 128
    from dgu.analysis.quality.frechet import read_features

    return int(np.prod(read_features(config.features).shape[1:]))


def represent_images(config: Any, directory: RunDirectory, images: "Images", source: Source) -> "Images":
    """The images with their features, computed once as the stage ``features``; as they are where pixels are studied.

    All features are divided by one number, the root mean square of the samples', so that learning rates fit any of them.
    """
    if source.kind == PIXELS:
        return images

    def compute() -> dict[str, np.ndarray]:
        arms = {"samples": images.samples} | ({} if images.real is None else {"real": images.real})
        if source.rows is not None:
            rows = {"samples": source.rows.reshape(*images.samples.shape[:2], -1)}
        else:
            rows = _apply(config, source, arms)
        scale = np.sqrt(np.mean(np.square(rows["samples"], dtype=np.float64)))
        require(bool(scale > 0), "features", config.features, "features that are not all zero")
        return {arm: (values / scale).astype(np.float32) for arm, values in rows.items()}

    found = directory.stage("features", compute)
    return replace(images, features=found["samples"], real_features=found.get("real"))


def _apply(config: Any, source: Source, arms: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    import jax

    from dgu.analysis.quality.representations import RandomConvolutions, random_convolutions, represent
    from dgu.core.keys import seeded, stream
    from dgu.training.classifiers.convnet import train_convnet

    key = stream(seeded(config.seed), "features", source.kind)
    if source.kind == RANDOM:
        found = random_convolutions(key, arms["samples"].shape[2:])
        features: Any = partial(jax.jit(RandomConvolutions.__call__), found)
    else:
        assert source.train is not None and source.labels is not None
        count = len(source.train)
        features = train_convnet(
            source.train,
            source.labels,
            key,
            epochs=config.cnn.epochs,
            batch_size=min(128, count),
            width=config.cnn.width,
        ).features
    return {arm: represent(values, features, f"features = {source.kind!r}") for arm, values in arms.items()}
