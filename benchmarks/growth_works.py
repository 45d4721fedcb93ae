"""The calls whose cost ``benchmarks/growth.py`` measures, as functions of what grows in them."""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.subjects import random_params
from benchmarks.timing import Work
from dgu.analysis import Runs, covariance_spectrum, fit_classifiers, k_nearest, moments
from dgu.core import parallel
from dgu.core.keys import seeded
from dgu.models import ADMConfig, EDMNetwork, EmpiricalDenoiser, GaussianDenoiser
from dgu.samplers import karras_sigmas, sample
from dgu.training import TrainingConfig, initial_state, train_steps


@dataclasses.dataclass(frozen=True)
class Function:
    """A public function: its call is ``work(**sizes)()``, of ``base`` sizes but for the one that grows in a curve.

    ``takes_all_devices``: that the call cannot be told which devices to use.
    """

    name: str
    work: Callable[..., Work]
    base: Mapping[str, int]
    curves: Mapping[str, tuple[int, ...]]
    takes_all_devices: bool = False


def rows_of(count: int, width: int, seed: int = 0) -> np.ndarray:
    """Normal numbers with a spectrum that falls."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, width), np.float32) / np.sqrt(1 + np.arange(width, dtype=np.float32))


def network_of(resolution: int, channels: int) -> EDMNetwork:
    """A small ADM of one level without attention, for colour images."""
    config = ADMConfig(
        resolution, 3, 3, model_channels=channels, channel_mult=(1,), num_blocks=1, attn_resolutions=(), dropout=0.0
    )
    return EDMNetwork(config)


def sampling(images: int, resolution: int, channels: int, devices: int) -> Work:
    """``sample``: three Heun steps in chunks of four images."""
    network = network_of(resolution, channels)
    denoiser = network.denoiser(jax.tree.map(jnp.asarray, random_params(network)))
    sigmas, key, places = karras_sigmas(3), seeded(0), jax.local_devices()[:devices]
    return lambda: sample(
        denoiser, key, np.arange(images), sigmas, shape=network.shape, batch_size=4, devices=places
    )  # fmt: skip


def training(images: int, resolution: int, channels: int, devices: int) -> Work:
    """A step of ``train_steps`` on a batch."""
    network = network_of(resolution, channels)
    config = TrainingConfig(batch_size=images, rampup_kimg=0.0)
    pictures = np.random.default_rng(0).uniform(-1, 1, (images, *network.shape)).astype(np.float32)
    mesh = parallel.data_mesh(jax.local_devices()[:devices])
    steps = train_steps(network, initial_state(network, config), pictures, None, config, mesh)
    return lambda: jax.block_until_ready(next(steps))


def classifiers(classifiers: int, classes: int, d: int, n: int, devices: int) -> Work:
    """``fit_classifiers``: ten epochs of cross-entropy, the method left to it; over all devices."""
    assert devices == len(jax.local_devices())
    x = rows_of(2 * n, d)
    y = np.arange(2 * n) % classes
    rows = np.stack([np.random.default_rng(run).permutation(n) for run in range(classifiers)]).astype(np.int32)
    runs = Runs(rows, np.arange(classifiers), np.full(classifiers, 0.1, np.float32))
    return lambda: jax.block_until_ready(
        fit_classifiers(
            x, y, runs, loss="cross_entropy", schedule="constant", epochs=10, validation=np.arange(n, n + n // 4),
            eval_interval=5,
        )
    )  # fmt: skip


def moment_state(n: int, d: int) -> Work:
    """``moments`` with the covariance."""
    rows = rows_of(n, d)
    return lambda: moments(rows).covariance().block_until_ready()


def spectrum(n: int, d: int) -> Work:
    """``covariance_spectrum`` by singular values."""
    rows = rows_of(n, d)
    return lambda: covariance_spectrum(rows)


def neighbours(queries: int, n: int, d: int) -> Work:
    """``k_nearest``, k = 1."""
    asked, reference = rows_of(queries, d, 1), rows_of(n, d)
    return lambda: k_nearest(asked, reference)


def gaussian(n: int, d: int) -> Work:
    """``GaussianDenoiser.fit``."""
    rows = rows_of(n, d)
    return lambda: GaussianDenoiser.fit(rows)


def empirical(N: int, d: int, images: int) -> Work:
    """``EmpiricalDenoiser``, a batch of noisy examples, compiled."""
    denoiser, noisy = EmpiricalDenoiser(jnp.asarray(rows_of(N, d))), jnp.asarray(rows_of(images, d, 1))
    denoise = jax.jit(lambda model, x: jax.vmap(lambda one: model(one, 0.5))(x))
    return lambda: denoise(denoiser, noisy).block_until_ready()


DEVICES = (1, 2, 4, 8)
FUNCTIONS = (
    Function(
        "sample",
        sampling,
        {"images": 32, "resolution": 8, "channels": 16, "devices": 2},
        {"images": (8, 16, 32, 64), "resolution": (8, 16, 32), "channels": (16, 32, 64), "devices": DEVICES},
    ),
    Function(
        "train_steps",
        training,
        {"images": 32, "resolution": 8, "channels": 16, "devices": 2},
        {"images": (8, 32, 128), "resolution": (8, 16, 32), "channels": (16, 32, 64), "devices": DEVICES},
    ),
    Function(
        "fit_classifiers",
        classifiers,
        {"classifiers": 16, "classes": 4, "d": 784, "n": 512, "devices": 2},
        {
            "classifiers": (4, 16, 64, 256),
            "classes": (2, 4, 8, 16, 32),
            "d": (256, 1024, 4096, 16384),
            "n": (128, 512, 2048),
            "devices": DEVICES,
        },
        takes_all_devices=True,
    ),
    Function(
        "moments",
        moment_state,
        {"n": 4096, "d": 512},
        {"n": (1024, 4096, 16384, 65536), "d": (128, 256, 512, 1024, 2048)},
    ),
    Function(
        "covariance_spectrum",
        spectrum,
        {"n": 1024, "d": 512},
        {"n": (128, 256, 512, 1024, 2048), "d": (64, 128, 256, 512, 1024)},
    ),
    Function(
        "k_nearest",
        neighbours,
        {"queries": 1024, "n": 8192, "d": 256},
        {"queries": (1024, 4096, 16384), "n": (4096, 16384, 65536), "d": (64, 256, 1024, 4096)},
    ),
    Function(
        "GaussianDenoiser.fit",
        gaussian,
        {"n": 4096, "d": 256},
        {"n": (1024, 4096, 16384, 65536), "d": (64, 128, 256, 512, 1024)},
    ),
    Function(
        "EmpiricalDenoiser",
        empirical,
        {"N": 4096, "d": 256, "images": 16},
        {"N": (1024, 4096, 16384, 65536), "d": (64, 256, 1024, 4096), "images": (4, 16, 64)},
    ),
)
