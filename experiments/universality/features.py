"""Features that the universality study takes in place of pixels (``--features``): checked first, computed once."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np

from dgu import analysis
from dgu.analysis.quality.frechet import read_features
from dgu.analysis.quality.representations import RandomConvolutions, checked_features, random_convolutions, represent
from dgu.core.errors import InputError, require
from dgu.core.keys import seeded, stream
from experiments.study.inputs import reading
from experiments.subjects import ClassImages, load_images
from experiments.universality.options import Options

PIXELS, CNN, RANDOM = "pixels", "cnn", "random-conv"
#: Fewest real images of each class of which half are taken to train a network.
MIN_REAL = 16


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


def prepare(options: Options, plan: ClassImages, real: np.ndarray | None) -> tuple[Source, np.ndarray | None]:
    """Check all that features need before a network is sampled; gives their source, and the real images that are left.

    Args:
        options: of the study.
        plan: classes, shape and order of the images.
        real: (K, n, H, W, C) or None.
    """
    kind, shape = options.features, plan.shape
    if kind == PIXELS:
        return Source(kind), real
    if kind in (RANDOM, CNN):
        require(min(shape[:2]) >= 4, "features", kind, f"pixels: images of {shape[0]} x {shape[1]} are too small")
        return (Source(kind), real) if kind == RANDOM else _training_images(options, plan, real)
    none = real is None or options.real == "auto"
    require(none, "real", options.real, f"None with features = {kind!r}: it has none of them")
    return Source(kind, rows=read(kind, plan.row_count)[plan.rows.ravel()]), None


def _training_images(options: Options, plan: ClassImages, real: np.ndarray | None) -> tuple[Source, np.ndarray | None]:
    """The images that the network of ``--features cnn`` is trained on, and the real images that are left."""
    kind, cnn = options.features, options.cnn
    if cnn.images is None:
        need = f"with {MIN_REAL} real images of each class or more to train on (see --real and --cnn.images)"
        require(real is not None and real.shape[1] >= MIN_REAL, "features", kind, need)
        assert real is not None
        half = real.shape[1] // 2
        labels = np.repeat(np.arange(len(plan.labels), dtype=np.int32), half)
        return Source(kind, train=real[:, :half].reshape(-1, *plan.shape), labels=labels), real[:, half:]
    given = load_images("cnn.images", cnn.images, cnn.split, options.size)
    fits = given.images.shape[1:] == plan.shape and len(given.class_names) == len(plan.names)
    shown = f"cnn.images = {cnn.images!r}: {len(given.class_names)} classes of images of shape"
    wanted = f"{len(plan.names)} classes of images of shape {plan.shape} (see --size)"
    require(fits, shown, given.images.shape[1:], wanted)
    place = {label: number for number, label in enumerate(plan.labels)}
    of = np.asarray([place.get(int(label), -1) for label in given.labels], np.int32)
    require(set(of.tolist()) >= set(place.values()), "cnn.images", cnn.images, "images of every class studied")
    return Source(kind, train=np.asarray(given.images[of >= 0]), labels=of[of >= 0]), real


def read(file: str, count: int) -> np.ndarray:
    """Features in a file, one row for each of ``count`` images."""
    wanted = f"{PIXELS}, {CNN}, {RANDOM} or an npy file"
    try:
        with reading("features", file, file):
            values = read_features(file)
    except InputError as error:
        raise InputError(f"features = {file!r}: must be {wanted} ({error})") from error
    return checked_features(values, count, f"features = {file!r}")


def dimension(options: Options, shape: tuple[int, ...]) -> int:
    """Numbers that represent one example, for images of ``shape``."""
    if options.features == PIXELS:
        return int(np.prod(shape))
    if options.features == CNN:
        return 8 * options.cnn.width
    if options.features == RANDOM:
        return 128
    return int(np.prod(read_features(options.features).shape[1:]))


def computed(options: Options, source: Source, samples: np.ndarray, real: np.ndarray | None) -> dict[str, np.ndarray]:
    """Features of the samples (K, P, d) and, if there are any, of the ``real`` images.

    All are divided by one number, the root mean square of the samples' features, so that learning rates fit any kind.
    """
    if source.rows is not None:
        rows = {"samples": source.rows.reshape(*samples.shape[:2], -1)}
    else:
        of, arms = _network(options, source, samples.shape[2:]), {"samples": samples, "real": real}
        shown = f"features = {source.kind!r}"
        rows = {arm: represent(images, of, shown) for arm, images in arms.items() if images is not None}
    scale = np.sqrt(np.mean(np.square(rows["samples"], dtype=np.float64)))
    require(bool(scale > 0), "features", options.features, "features that are not all zero")
    return {arm: (values / scale).astype(np.float32) for arm, values in rows.items()}


def _network(options: Options, source: Source, shape: tuple[int, ...]) -> Callable[..., jax.Array]:
    """The function that represents images: random convolutions, or the layer of a network trained here."""
    key = stream(seeded(options.seed), "features", source.kind)
    if source.kind == RANDOM:
        height, width, channels = shape
        return partial(jax.jit(RandomConvolutions.__call__), random_convolutions(key, (height, width, channels)))
    assert source.train is not None and source.labels is not None
    size, cnn = min(128, len(source.train)), options.cnn
    return analysis.train_convnet(
        source.train, source.labels, key, epochs=cnn.epochs, batch_size=size, width=cnn.width
    ).features
