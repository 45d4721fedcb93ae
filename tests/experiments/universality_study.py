"""A universality study of seconds: images, a network and options so small that only the plumbing is left."""

import os
import tempfile
from pathlib import Path

import jax
import numpy as np

from dgu.models import ADMConfig, EDMNetwork, save_network
from experiments.study.command_line import run_experiment
from experiments.universality import STUDY

ROOT = Path(__file__).parents[2]
CLAIM_IDS = tuple(claim.id for part in STUDY.parts for claim in part.declared(STUDY.presets["default"]))
FIGURE_FILES = tuple(figure.file for part in STUDY.parts for figure in part.figures)
CLASSES = ("north", "east", "south", "west")
#: 22 images a class, of 36 pixels.
TINY = (
    "--preset smoke --classes None --splits.fit 8 --splits.train 6 --splits.validation 3 --splits.test 5 "
    "--low-rank-fit 4 --replicates 2 --draws 2 --losses softmax_mse cross_entropy --class-sets 0:3 --gram-panels 2x3 allx4 "
    "--training-sizes 2 5 --subset-sizes 2 --subsets 2 --pairs 2 "
    "--recipe.epochs 2 --recipe.width 3 --recipe.eval-interval 1"
).split()


def images(count, seed=0, side=6):
    """``count`` images of each class, with a bright side each; (n, side, side, 1) in [-1, 1] and labels."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(CLASSES), dtype=np.int32), count)
    pixels = 0.4 * np.tanh(rng.normal(size=(len(labels), side, side, 1))) - 0.4
    for number, turn in enumerate(labels):
        pixels[number] += np.rot90(np.arange(side)[:, None, None] < side // 3, turn) * np.ones((1, side, 1))
    return np.clip(pixels, -1, 1).astype(np.float32), labels


def save_images(path, pixels, labels, **more):
    np.savez(path, images=pixels, labels=labels, **more)
    return str(path)


def save_tiny_network(path, label_dim=4, model_channels=8):
    """An untrained network of four classes of 6 x 6 images whose output layer is not zero."""
    unet = ADMConfig(
        6, 1, 1, label_dim, model_channels=model_channels, channel_mult=(1,), num_blocks=1, attn_resolutions=()
    )
    network = EDMNetwork(unet)
    rng = np.random.default_rng(3)
    params = jax.tree.map(lambda leaf: 0.2 * rng.normal(size=leaf.shape).astype(np.float32), network.abstract_params)
    names = {"class_names": list(CLASSES)} if label_dim else {}
    save_network(path, network, params, names)
    return str(path)


def study(*argv, run=STUDY.run):
    """The command in this process."""
    return run_experiment(
        STUDY.presets,
        run,
        name="universality",
        dry_run=STUDY.dry_run,
        report_only=True,
        argv=[str(argument) for argument in argv],
    )


def environment():
    """Of a process of its own: one device, and compiled programs shared between processes."""
    cache = os.path.join(tempfile.gettempdir(), f"dgu-test-xla-{os.getuid()}")
    settings = {
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_COMPILATION_CACHE_MAX_SIZE": str(2**31),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }
    return {**os.environ, **settings, "JAX_PLATFORMS": "cpu", "MPLBACKEND": "agg"}


def contents(folder):
    """Every file below a folder with its bytes."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}
