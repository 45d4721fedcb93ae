"""Train a diffusion model with the EDM recipe: ``python -m experiments.train``.

A run that was killed goes on where its last checkpoint was and ends with the same parameters. The directory holds
``config.json``, ``checkpoints/`` (Orbax), ``stats.jsonl`` (one line a tick), ``network.npz`` as it grows: the averaged
(EMA) network, which every ``--checkpoint`` option takes, and in the end ``metrics.json``, ``figures/`` and
``report.html``.
"""

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from dgu import data
from dgu.core import keys, parallel
from dgu.core.checkpoint import TrainingCheckpoints
from dgu.core.errors import InputError, require
from dgu.core.files import write_atomic
from dgu.core.reading import MAX_JSON, guarded, read_bytes
from dgu.models import (
    NCSNPP,
    ADMConfig,
    EDMNetwork,
    EDMPreconditioning,
    Pretrained,
    SongUNetConfig,
    VEPreconditioning,
    VPPreconditioning,
    load_checkpoint,
    save_network,
)
from dgu.models.preconditioning import Preconditioning
from dgu.models.pretrained import network_file
from dgu.samplers import karras_sigmas, sample
from dgu.training import AUGMENT_DIM, TrainingConfig, initial_state, train_steps
from dgu.training.loop import check_batch, check_data
from experiments.study.command_line import run_experiment
from experiments.study.costs import Cost
from experiments.study.ends import begin
from experiments.study.flop import matmul_flop
from experiments.study.inputs import reading
from experiments.study.options import check_options
from experiments.study.progress import Progress
from experiments.study.report import FigureEntry, Report, Table
from experiments.study.run_directory import RunDirectory
from experiments.subjects import image_file

FIGURE_FILES = ("figures/loss.png", "figures/samples.png")
#: (side, channels, classes) of the sets known by name; what a file that is not here is taken for by ``--dry-run``, or
#: else ImageNet.
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


@dataclass(frozen=True)
class NetworkConfig:
    """The network; its resolution, channels and number of classes are those of the data."""

    architecture: Literal["adm", "ddpmpp", "ncsnpp"] = "adm"
    """DhariwalUNet (ADM), or SongUNet with the options of DDPM++ or NCSN++."""
    preconditioning: Literal["edm", "vp", "ve"] = "edm"
    """Preconditioning (EDM's own, variance preserving, variance exploding); training.loss is a choice apart."""
    model_channels: int = 16
    """Channels at the finest level, before its multiplier."""
    channel_mult: tuple[int, ...] = (1, 2)
    """Channel multiplier of each level; each level halves the resolution."""
    num_blocks: int = 2
    """Residual blocks per level."""
    attn_resolutions: tuple[int, ...] = (7,)
    """Resolutions with attention (in an ADM channels // 64 heads: none below 64 channels; else one)."""
    dropout: float = 0.0
    """Dropout rate inside the residual blocks."""
    label_dropout: float = 0.0
    """Share of the training images whose label is dropped."""
    conditional: bool = True
    """Give the network the class."""
    sigma_data: float = 0.5
    """Standard deviation of the data that EDM's preconditioning assumes."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """float32, or bfloat16 for the activations (parameters stay float32)."""
    remat: bool = False
    """Compute the inside of each block again for its gradient: less memory, a third more arithmetic."""

    def __post_init__(self) -> None:
        check_options(
            self,
            model_channels=1,
            channel_mult=1,
            num_blocks=1,
            attn_resolutions=1,
            dropout="[0, 1)",
            label_dropout="[0, 1)",
            sigma_data="(0, inf)",
        )
        require(bool(self.channel_mult), "channel_mult", self.channel_mult, "one or more, each 1 or more")
        usable = self.preconditioning == "edm" or self.sigma_data == 0.5
        require(usable, "sigma_data", self.sigma_data, f"left at 0.5: preconditioning {self.preconditioning} has none")


@dataclass(frozen=True)
class Config:
    """Training run. The defaults are those of the bundled network."""

    data: str = "fashion-mnist"
    """Name or path of the images (see ``dgu.data.load``)."""
    split: str = "train"
    """Which split to train on."""
    size: int | None = 14
    """Reduce the images to this size by area means; None keeps them."""
    max_size: int | None = None
    """Train on this many images, chosen by EDM's rule; None takes all."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            duration_kimg=1050.0, batch_size=128, learning_rate=2e-3, rampup_kimg=20.0, ema_halflife_kimg=50.0
        )
    )
    tick_kimg: float = 10.0
    """Thousands of images between two lines of the log."""
    checkpoint_kimg: float = 50.0
    """Thousands of images between two checkpoints."""
    init_from: str | None = None
    """Checkpoint (see --checkpoint of other commands) whose weights training starts from, with no ramp of the
    average.
    """

    def __post_init__(self) -> None:
        check_options(self, size=1, max_size=1, tick_kimg="(0, inf)", checkpoint_kimg="(0, inf)")


def _published(data: str, batch_size: int, learning_rate: float, augment: float, **network: Any) -> Config:
    """A published run with a SongUNet."""
    return Config(
        data=data,
        size=None,
        network=NetworkConfig(model_channels=128, num_blocks=4, attn_resolutions=(16,), **network),
        training=TrainingConfig(batch_size=batch_size, learning_rate=learning_rate, augment_probability=augment),
        tick_kimg=50,
        checkpoint_kimg=2_500,
    )


PRESETS = {
    "smoke": Config(
        data="fashion-mnist-mini",
        split="test",
        max_size=64,
        network=NetworkConfig(model_channels=8, num_blocks=1),
        training=TrainingConfig(duration_kimg=0.128, batch_size=16, learning_rate=2e-3, rampup_kimg=0.05),
        tick_kimg=0.032,
        checkpoint_kimg=0.064,
    ),
    "default": Config(),
    "paper": Config(
        data="imagenet-64x64.zip",
        size=None,
        network=NetworkConfig(
            model_channels=192,
            channel_mult=(1, 2, 3, 4),
            num_blocks=3,
            attn_resolutions=(32, 16, 8),
            dropout=0.1,
            compute_dtype="bfloat16",
        ),
        training=TrainingConfig(
            duration_kimg=2_500_000.0,
            batch_size=4096,
            learning_rate=1e-4,
            ema_halflife_kimg=50_000.0,
            loss_scaling=100.0,
        ),
        tick_kimg=50,
        checkpoint_kimg=2_500,
    ),
}
for _net in ("ddpmpp", "ncsnpp"):
    PRESETS[f"cifar10-{_net}"] = _published(
        "cifar10", 512, 1e-3, 0.12, architecture=_net, channel_mult=(2, 2, 2), dropout=0.13
    )
    for _name, _dropout in (("ffhq", 0.05), ("afhqv2", 0.25)):
        PRESETS[f"{_name}-{_net}"] = _published(
            f"{_name}-64x64.zip", 256, 2e-4, 0.15,
            architecture=_net, channel_mult=(1, 2, 2, 2), dropout=_dropout, conditional=False,
        )  # fmt: skip


def build_network(config: NetworkConfig, side: int, channels: int, classes: int, *, augment: bool) -> EDMNetwork:
    """The network of ``config`` for square images of ``side`` pixels, ``channels`` and ``classes``.

    With ``augment`` it takes the labels of augmented images.
    """
    kind: Callable[..., Any] = ADMConfig if config.architecture == "adm" else SongUNetConfig
    unet = kind(
        img_resolution=side,
        in_channels=channels,
        out_channels=channels,
        label_dim=classes if config.conditional else 0,
        augment_dim=AUGMENT_DIM if augment else 0,
        model_channels=config.model_channels,
        channel_mult=config.channel_mult,
        num_blocks=config.num_blocks,
        attn_resolutions=config.attn_resolutions,
        dropout=config.dropout,
        label_dropout=config.label_dropout,
        **(NCSNPP if config.architecture == "ncsnpp" else {}),
    )
    choices: dict[str, Preconditioning] = {
        "edm": EDMPreconditioning(sigma_data=config.sigma_data),
        "vp": VPPreconditioning(),
        "ve": VEPreconditioning(),
    }
    return EDMNetwork(unet, choices[config.preconditioning], compute_dtype=config.compute_dtype, remat=config.remat)


def load_images(config: Config) -> data.ImageSet:
    """The training images; ``InputError`` in this command's words."""
    try:
        with reading("data", config.data, image_file(config.data)):
            images = data.load(config.data, config.split, config.size, max_size=config.max_size)
    except InputError as error:
        raise InputError(str(error).replace("name_or_path = ", "data = ", 1)) from error
    _, height, width, _ = images.images.shape
    require(height == width, "data", config.data, f"square images, not {height} x {width}")
    return images


#: Layers that a network has only where it is told of classes or augmentation.
_OPTIONAL = ("map_label", "map_augment")


def _starting_point(name: str, network: EDMNetwork) -> tuple[Pretrained, dict[str, Any]]:
    """The checkpoint ``name``, and its layers that ``network`` has too: all, but for those in ``_OPTIONAL``."""
    try:
        with reading("init_from", name, network_file(name)):
            found = load_checkpoint(name)
    except InputError as error:
        raise InputError(str(error).replace("checkpoint = ", "init_from = ", 1)) from error
    theirs, ours = found.denoiser.params, network.abstract_params
    shared = {layer for layer in theirs.keys() & ours.keys() if layer in _OPTIONAL}
    theirs, ours = (
        {layer: leaves for layer, leaves in tree.items() if layer in shared or layer not in _OPTIONAL}
        for tree in (theirs, ours)
    )
    there, here = (
        {jax.tree_util.keystr(path, simple=True, separator="."): leaf.shape for path, leaf in leaves}
        for leaves in (jax.tree_util.tree_leaves_with_path(tree) for tree in (theirs, ours))
    )
    for leaf in sorted(there.keys() | here.keys()):
        shapes = f"{leaf} is {there.get(leaf, 'absent')} there and {here.get(leaf, 'absent')} here"
        require(there.get(leaf) == here.get(leaf), "init_from", name, f"a network of this architecture ({shapes})")
    return found, theirs


def train(config: Config, out: Path, progress: Callable[[int, int], object] | None = None) -> Path:
    """Train (or go on training) in the directory ``out``; returns the path of the averaged network.

    Args:
        config: data, network and optimisation.
        out: the run's directory; made where there is none.
        progress: called as ``progress(images seen, images in all)`` after each step; None shows a bar.

    Raises:
        InputError: data or ``init_from`` that are not there or do not fit, options that exclude each other, or a
            checkpoint of another network in ``out``; nothing has been written then.
        FloatingPointError: the loss is not finite.
    """
    images = load_images(config)
    _, side, _, channels = images.images.shape
    optimisation, mesh = config.training, parallel.data_mesh()
    augment = optimisation.augment_probability > 0
    network = build_network(config.network, side, channels, len(images.class_names), augment=augment)
    check_data(network, images.images, images.labels)
    check_batch(optimisation, mesh, images.images.shape[1:])
    start: dict[str, Any] = {}
    if config.init_from is not None:
        origin, start = _starting_point(config.init_from, network)
        optimisation = replace(optimisation, ema_rampup_ratio=None)
    batch, total = optimisation.batch_size, optimisation.total_steps
    tick = max(1, round(config.tick_kimg * 1000 / batch))
    # A whole number of ticks, so that an interruption cuts no tick of the log in two.
    save_every = tick * max(1, round(config.checkpoint_kimg / config.tick_kimg))
    source = {"name": images.name, "split": images.split, "size": config.size, "max_size": config.max_size}
    metadata = {
        "class_names": list(images.class_names),
        "data": {**source, "sha256": images.sha256, "images": len(images)},
        "training": asdict(optimisation),
    }
    if config.init_from is not None:
        metadata["init_from"] = {"name": config.init_from, "sha256": origin.sha256}
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    path, log = out / "network.npz", out / "stats.jsonl"

    with TrainingCheckpoints(out / "checkpoints", about=metadata) as checkpoints:
        state = initial_state(network, optimisation)
        state = {**state, "params": state["params"] | start, "ema": state["ema"] | jax.tree.map(jnp.copy, start)}
        state = parallel.put(state, parallel.replicated(mesh))
        if checkpoints.latest_step() is not None:
            state = checkpoints.load(state)
        done = int(state["step"])
        lead = parallel.is_lead()
        if done and lead:
            # The kill may have come between a checkpoint and its network.
            save_network(path, network, state["ema"], {**metadata, "images_seen": done * batch})
        kept = [json.dumps(line) + "\n" for line in read_log(log) if line["step"] <= done]
        # The line of a tick is on disk before the checkpoint that follows it.
        require(
            len(kept) == -(-done // tick), f"{log}: lines up to step {done}", len(kept),
            f"{-(-done // tick)} (remove {out / 'checkpoints'} to train from the start)",
        )  # fmt: skip
        if lead:
            write_atomic(log, lambda file: file.write("".join(kept).encode()))
        losses: list[jax.Array] = []
        # From here on only what is left counts, or the time that remains would be guessed too low.
        with Progress("training", (total - done) * batch, "images") as bar:
            for latest, info in train_steps(network, state, images.images, images.labels, optimisation, mesh):
                step, last = info["step"], info["step"] == total
                losses.append(info["loss"])
                if len(losses) > 1:
                    losses[-2].block_until_ready()  # One step stays in flight.
                if progress is None:
                    bar.update(batch)
                else:
                    progress(step * batch, total * batch)
                if step % tick == 0 or last:
                    loss = float(np.mean(jax.device_get(losses)))
                    losses = []
                    if not np.isfinite(loss):
                        raise FloatingPointError(f"the training loss is {loss} in the tick that ends at step {step}")
                    line = {
                        "step": step,
                        "images_seen": step * batch,
                        "loss": loss,
                        "nonfinite": int(latest["nonfinite"]),
                    }
                    if lead:
                        _append(log, json.dumps(line) + "\n")
                if step % save_every == 0 or last:
                    checkpoints.save(step, latest)
                    if lead:
                        save_network(path, network, latest["ema"], {**metadata, "images_seen": step * batch})
    parallel.barrier("trained")
    return path


def read_log(path: Path) -> list[dict[str, Any]]:
    """The ticks in ``stats.jsonl``: complete lines only, for a kill may have cut off the last one."""
    allowed, remedy = "the log of a training", "remove it and checkpoints/ to train from the start"
    with guarded(path, allowed, advice=remedy):
        if not os.path.lexists(path):
            return []
        text = read_bytes(path, MAX_JSON, allowed).decode("utf-8")
        lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        ticks = [{name: line[name] for name in ("step", "images_seen", "loss", "nonfinite")} for line in lines]
        for number, tick in enumerate(ticks, 1):
            for name, value in tick.items():
                kind, wanted = (float, "a finite number") if name == "loss" else (int, "a whole number")
                # The exact type: True is an int, too. JSON's reader makes nothing else of a number.
                if type(value) is not kind or not math.isfinite(value):
                    raise InputError(f"{path}: line {number}: {name} is {value!r}; must be {wanted} ({remedy})")
        return ticks


def _append(path: Path, line: str) -> None:
    """A line that is on disk before the checkpoint that follows it."""
    try:
        with path.open("a") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); must stay and have room on its disk"
        ) from error


def run(config: Config, directory: RunDirectory) -> Report:
    """Train in ``directory``, sample the averaged network, and report."""

    def ticks() -> dict[str, Any]:
        path = train(config, directory.path)
        lines = read_log(path.with_name("stats.jsonl"))
        columns = {name: np.asarray([line[name] for line in lines]) for name in ("images_seen", "loss", "nonfinite")}
        return {**columns, "network": load_checkpoint(path).sha256}

    history = directory.stage("training", ticks)
    model = load_checkpoint(directory.path)
    check_network(directory.path / "network.npz", model, str(history["network"]))
    names = model.class_names[: _GRID[0]] if config.network.conditional else ("samples",)
    grid = directory.stage("samples", lambda: {"images": sample_grid(model, len(names), config.training.seed)})[
        "images"
    ]

    from dgu import plots

    directory.save_figure(FIGURE_FILES[0], plots.loss_curve(history["images_seen"], history["loss"]))
    directory.save_figure(FIGURE_FILES[1], plots.image_grid(grid, names, ["averaged network"]))
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


def check_network(path: Path, model: Pretrained, sha256: str) -> None:
    """``InputError`` unless ``model``, read from ``path``, has the weights that the run trained."""
    if model.sha256 != sha256:
        raise InputError(
            f"{path}: holds another network ({model.sha256[:12]}...) than the run's own, {sha256[:12]}...;"
            " put it back, or give --out another directory"
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
    """What a run would cost, from the real shapes: FLOP of the traced network, memory of what its gradient keeps."""
    if config.data in _SHAPES:
        side, channels, classes = _SHAPES[config.data]
    elif Path(config.data).exists():
        images = load_images(config)
        _, side, _, channels = images.images.shape
        classes = len(images.class_names)
    else:
        side, channels, classes = _FILES.get(Path(config.data).name, _IMAGENET)
        print(f"{config.data} is not here: taken for {channels} x {side} x {side} images of {classes} classes")
    augment = config.training.augment_probability > 0
    network = build_network(config.network, config.size or side, channels, classes, augment=augment)
    params = network.abstract_params
    image, level = jax.ShapeDtypeStruct(network.shape, jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)
    label = jax.ShapeDtypeStruct((), jnp.int32)
    weights = _bytes(params)
    flop = matmul_flop(network.apply, params, image, level, label)
    kept = jax.eval_shape(
        lambda params, *rest: jax.vjp(lambda p: network.apply(p, *rest), params)[1], params, image, level, label
    )
    activations = max(0, _bytes(kept) - weights)
    steps, batch = config.training.total_steps, config.training.batch_size
    at_once = config.training.micro_batch or batch
    drawn = (min(_GRID[0], classes) if config.network.conditional else 1) * _GRID[1]
    evaluations = drawn * (2 * _GRID[2] - 1)
    return [
        # Parameters, average, two moments and gradient; a gradient costs about two more evaluations.
        Cost("training", steps * batch, 3 * steps * batch * flop, 5 * weights + at_once * activations, 9 * weights),
        Cost("samples", evaluations, evaluations * flop, weights, drawn * math.prod(network.shape) * 4),
    ]


def _bytes(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; ``argv`` is that of the process by default."""
    run_experiment(
        PRESETS,
        run,
        name="train",
        description="Train a diffusion model with the EDM recipe; a run that was killed goes on where it was.",
        dry_run=dry_run,
        claim_ids=(),
        figure_files=FIGURE_FILES,
        argv=argv,
    )


if __name__ == "__main__":
    begin("train", parallel.initialize)
    main()
