"""Train a diffusion model by the recipe of EDM or EDM2: ``python -m experiments.train``.

A run that was killed goes on from its last checkpoint and ends with the same parameters. Its directory holds
``config.json``, ``checkpoints/`` (Orbax), ``stats.jsonl`` (one line a tick), ``network.npz``, which is the averaged
(EMA) network so far and can be given to every ``--checkpoint`` option, with ``--tensorboard`` the folder
``tensorboard/``, and in the end ``metrics.json``, ``figures/`` and ``report.html``.
"""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dgu import data, plots, training
from dgu.core import keys, parallel
from dgu.core.errors import InputError, require
from dgu.models import load_checkpoint
from dgu.models.pretrained import network_file, shared_layers
from dgu.samplers import karras_sigmas, sample
from experiments import scalars
from experiments.study.command_line import run_experiment
from experiments.study.costs import Cost
from experiments.study.ends import begin
from experiments.study.guide import Guide
from experiments.study.inputs import reading
from experiments.study.memory import tree_bytes
from experiments.study.messages import say
from experiments.study.options import renamed
from experiments.study.progress import Progress
from experiments.study.report import FigureEntry, Report, Table
from experiments.study.run_directory import RunDirectory
from experiments.subjects import evaluation_cost, image_file, training_cost
from experiments.train_config import PRESETS, Config, build_network

FIGURE_FILES = ("figures/loss.png", "figures/samples.png")
GUIDE = Guide(
    first=(
        "--data",
        "--size",
        "--init-from",
        "--training.duration-kimg",
        "--training.batch-size",
        "--network.conditional",
    ),
    examples={
        "--preset smoke": "Shows in about a minute that everything runs.",
        "--data fashion-mnist --size 14 --out runs/my-network": "The recipe of the bundled network.",
        "--preset default-edm2 --out runs/my-edm2": "A network of EDM2.",
    },
)
#: (side, channels, classes) of the sets known by name, and of files that ``--dry-run`` knows without having them; it
#: takes any other file for ImageNet at 64 x 64.
_SHAPES = {
    "fashion-mnist": (28, 1, 10),
    "fashion-mnist-mini": (28, 1, 10),
    "mnist": (28, 1, 10),
    "cifar10": (32, 3, 10),
}
_FILES = {"ffhq-64x64.zip": (64, 3, 1), "afhqv2-64x64.zip": (64, 3, 1)}
_IMAGENET = (64, 3, 1000)
#: The grid of the report: rows (the first classes), columns, Heun steps.
_GRID = (10, 6, 18)


def load_images(config: Config) -> data.ImageSet:
    """The training images; ``InputError`` in this command's words."""
    with renamed("", name_or_path="data"), reading("data", config.data, image_file(config.data)):
        images = data.load(config.data, config.split, config.size, max_size=config.max_size)
    _, height, width, _ = images.images.shape
    require(height == width, "data", config.data, f"square images, not {height} x {width}")
    return images


def train(config: Config, out: Path) -> Path:
    """Train (or go on training) in the directory ``out``, and show how far it is; returns the path of the averaged
    network.

    Raises:
        InputError: data or ``init_from`` that are not there or do not fit, options that exclude each other, a library
            for ``tensorboard`` that is missing, or a checkpoint of another network in ``out``; nothing has been written
            then.
        FloatingPointError: the loss is not finite.
    """
    write = scalars.writer(config.tensorboard)
    images, optimisation = load_images(config), config.training
    _, side, _, channels = images.images.shape
    augment = optimisation.augment_probability > 0
    network = build_network(config.network, side, channels, len(images.class_names), augment=augment)
    source = {"name": images.name, "split": images.split, "size": config.size, "max_size": config.max_size}
    about = {
        "class_names": list(images.class_names),
        "data": {**source, "sha256": images.sha256, "images": len(images)},
    }
    start = None
    if (name := config.init_from) is not None:
        with renamed("", checkpoint="init_from"), reading("init_from", name, network_file(name)):
            origin = load_checkpoint(name)
        start = shared_layers(origin, network, f"init_from = {name!r}")
        optimisation = replace(optimisation, ema_rampup_ratio=None)
        about["init_from"] = {"name": name, "sha256": origin.sha256}
    steps = training.train_in_directory(
        out,
        network,
        images.images,
        images.labels,
        optimisation,
        about={**about, "training": asdict(optimisation)},
        tick_kimg=config.tick_kimg,
        checkpoint_kimg=config.checkpoint_kimg,
        start=start,
    )
    with contextlib.closing(steps), scalars.following(Path(out), write) as follow:
        done, total = next(steps)
        # Only what is left counts, or the time that remains would be guessed too low.
        with Progress("training", total - done, "images") as bar:
            for seen, _ in steps:
                bar.update(seen - done - bar.done)
                follow()
    return Path(out) / "network.npz"


def run(config: Config, directory: RunDirectory) -> Report:
    """Train in ``directory``, sample the averaged network, and report."""
    from dgu.training.resumable import read_log

    def ticks() -> dict[str, Any]:
        path = train(config, directory.path)
        lines = read_log(path.with_name("stats.jsonl"))
        columns = {name: np.asarray([line[name] for line in lines]) for name in ("images_seen", "loss", "nonfinite")}
        return {**columns, "network": load_checkpoint(path).sha256}

    history = directory.stage("training", ticks)
    model = load_checkpoint(directory.path)
    trained = str(history["network"])
    if model.sha256 != trained:
        raise InputError(
            f"{directory.path / 'network.npz'}: holds another network ({model.sha256[:12]}...) than the run's own, "
            f"{trained[:12]}...; put it back, or give --out another directory"
        )
    names = model.class_names[: _GRID[0]] if config.network.conditional else ("samples",)
    drawn = directory.stage("samples", lambda: {"images": sample_grid(model, len(names), config.training.seed)})
    directory.save_figure(FIGURE_FILES[0], plots.loss_curve(history["images_seen"], history["loss"]))
    directory.save_figure(FIGURE_FILES[1], plots.image_grid(drawn["images"], names, ["averaged network"]))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(model.denoiser.params))
    trained_on = model.metadata["data"]
    metrics = {
        "final_loss": float(history["loss"][-1]),
        "images_seen": int(history["images_seen"][-1]),
        "steps": config.training.total_steps,
        "parameters": parameters,
        "nonfinite_gradients": int(history["nonfinite"][-1]),
        "network_sha256": model.sha256,
        "data_sha256": trained_on["sha256"],
        "data_images": trained_on["images"],
    }
    directory.write_json("metrics.json", metrics)
    answer = (
        f"A network of {parameters:,} parameters has seen {metrics['images_seen']:,} images, drawn from the"
        f" {trained_on['images']:,} of {config.data} ({config.split}). Its loss, a mean over the last"
        f" {config.tick_kimg:g} thousand images, is {metrics['final_loss']:.4f}. The average of its parameters is in"
        " network.npz: pass this directory to the option --checkpoint of another command."
    )
    captions = (
        f"Mean {config.training.loss.upper()} loss of each tick against the training images seen.",
        f"Samples of the averaged network, {_GRID[2]} deterministic Heun steps; a row a class, the same noise in each.",
    )
    return Report(
        "A class-conditional diffusion model" if config.network.conditional else "A diffusion model",
        answer,
        claims=(),
        figures=[FigureEntry(file, caption) for file, caption in zip(FIGURE_FILES, captions)],
        tables=[Table("Result", ("", ""), [(name.replace("_", " "), value) for name, value in metrics.items()])],
    )


def sample_grid(model: Any, rows: int, seed: int) -> np.ndarray:
    """Samples (rows, columns, H, W, C) of the first classes; images of a column start from the same noise."""
    _, columns, steps = _GRID
    key = keys.stream(keys.seeded(seed), "report")
    images = [
        sample(
            model.denoiser,
            key,
            np.arange(columns),
            karras_sigmas(steps, max(0.002, model.denoiser.sigma_min), min(80.0, model.denoiser.sigma_max)),
            shape=model.network.shape,
            labels=np.full(columns, row, np.int32) if model.network.unet.label_dim else None,
            batch_size=columns,
            devices=jax.local_devices()[:1],
        )
        for row in range(rows)
    ]
    return np.stack(images)


def dry_run(config: Config) -> list[Cost]:
    """What a run would cost, from the real shapes: FLOP of the traced network, memory of its gradient on a device."""
    if config.data in _SHAPES:
        side, channels, classes = _SHAPES[config.data]
    elif Path(config.data).exists():
        images = load_images(config)
        _, side, _, channels = images.images.shape
        classes = len(images.class_names)
    else:
        side, channels, classes = _FILES.get(Path(config.data).name, _IMAGENET)
        say(f"{config.data} is not here: taken for {channels} x {side} x {side} images of {classes} classes")
    augment = config.training.augment_probability > 0
    network = build_network(config.network, config.size or side, channels, classes, augment=augment)
    weights = tree_bytes(network.abstract_params)
    drawn = (min(_GRID[0], classes) if config.network.conditional else 1) * _GRID[1]
    evaluations = drawn * (2 * _GRID[2] - 1)
    training = training_cost(network, "training", config.training, runs=1, devices=jax.device_count())
    samples = evaluation_cost(network, "samples", evaluations, _GRID[1])
    return [
        replace(training, disk=9 * weights),
        replace(samples, disk=drawn * math.prod(network.shape) * 4),
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; ``argv`` is that of the process by default."""
    run_experiment(
        PRESETS,
        run,
        name="train",
        description="Train a diffusion model by the recipe of EDM or EDM2; a killed run goes on where it stopped.",
        dry_run=dry_run,
        claim_ids=(),
        figure_files=FIGURE_FILES,
        guide=GUIDE,
        argv=argv,
    )


def command(argv: Sequence[str] | None = None) -> None:
    """What ``python -m experiments.train`` does: join the other processes, if any, and run the command line."""
    begin("train", lambda: parallel.start(every_core=False))
    main(argv)


if __name__ == "__main__":
    command()
