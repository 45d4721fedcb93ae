"""Train a class-conditional ADM with the EDM recipe: ``python -m experiments.train``.

A run that was killed goes on where its last checkpoint was and ends with the same parameters. The directory holds
``config.json``, ``checkpoints/`` (Orbax), ``stats.jsonl`` (one line a tick), ``figures/`` and, as it grows, ``network.npz``: the averaged
(EMA) network, which every ``--checkpoint`` option takes.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dgu import data, parallel
from dgu.checkpoint import TrainingCheckpoints
from dgu.errors import InputError, require
from dgu.models import ADMConfig, EDMNetwork, save_network
from dgu.training import TrainingConfig, initial_state, train_steps


@dataclass(frozen=True)
class NetworkConfig:
    """The network; its resolution, channels and number of classes are those of the data."""

    model_channels: int = 16
    """Channels at the finest level."""
    channel_mult: tuple[int, ...] = (1, 2)
    """Channel multiplier of each level; each level halves the resolution."""
    num_blocks: int = 2
    """Residual blocks per level."""
    attn_resolutions: tuple[int, ...] = (7,)
    """Resolutions with attention (channels // 64 heads: none below 64 channels)."""
    dropout: float = 0.0
    """Dropout rate inside the residual blocks."""
    label_dropout: float = 0.0
    """Share of the training images whose label is dropped."""
    conditional: bool = True
    """Give the network the class."""
    sigma_data: float = 0.5
    """Standard deviation of the data that the preconditioning assumes."""
    compute_dtype: str = "float32"
    """float32, or bfloat16 for the activations (parameters stay float32)."""


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
            duration_kimg=1000, batch_size=128, learning_rate=2e-3, rampup_kimg=20, ema_halflife_kimg=50
        )
    )
    tick_kimg: float = 10.0
    """Thousands of images between two lines of the log."""
    checkpoint_kimg: float = 50.0
    """Thousands of images between two checkpoints."""

    def __post_init__(self) -> None:
        for name in ("tick_kimg", "checkpoint_kimg"):
            require(getattr(self, name) > 0, name, getattr(self, name), "positive")


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
            model_channels=192, channel_mult=(1, 2, 3, 4), num_blocks=3, attn_resolutions=(32, 16, 8), dropout=0.1,
            compute_dtype="bfloat16",
        ),
        training=TrainingConfig(
            duration_kimg=2_500_000, batch_size=4096, learning_rate=1e-4, ema_halflife_kimg=50_000, loss_scaling=100
        ),
        tick_kimg=50,
        checkpoint_kimg=2_500,
    ),
}


def build_network(config: NetworkConfig, images: data.ImageSet) -> EDMNetwork:
    """The network of ``config`` for these images."""
    _, height, width, channels = images.images.shape
    require(height == width, "data", (height, width), "square images")
    unet = ADMConfig(
        img_resolution=height,
        in_channels=channels,
        out_channels=channels,
        label_dim=len(images.class_names) if config.conditional else 0,
        model_channels=config.model_channels,
        channel_mult=config.channel_mult,
        num_blocks=config.num_blocks,
        attn_resolutions=config.attn_resolutions,
        dropout=config.dropout,
        label_dropout=config.label_dropout,
    )
    return EDMNetwork(unet, sigma_data=config.sigma_data, compute_dtype=config.compute_dtype)


def train(config: Config, out: Path, progress: Any = None) -> Path:
    """Train (or go on training) in the directory ``out``; returns the path of the averaged network."""
    images = data.load(config.data, config.split, config.size, max_size=config.max_size)
    network = build_network(config.network, images)
    optimisation = config.training
    mesh = parallel.data_mesh()
    tick = max(1, round(config.tick_kimg * 1000 / optimisation.batch_size))
    # A whole number of ticks, so that no tick of the log is cut in two by an interruption.
    save_every = tick * max(1, round(config.checkpoint_kimg / config.tick_kimg))
    metadata = {
        "class_names": list(images.class_names),
        "data": {"name": images.name, "split": images.split, "size": config.size, "sha256": images.sha256, "images": len(images.images)},
        "training": asdict(optimisation),
    }
    path = out / "network.npz"
    log = out / "stats.jsonl"
    with TrainingCheckpoints(out / "checkpoints") as checkpoints:
        state = initial_state(network, optimisation)
        if checkpoints.latest_step() is not None:
            state = checkpoints.load(state)
        done = int(state["step"])
        if done:
            save_network(path, network, state["ema"], {**metadata, "images_seen": done * optimisation.batch_size})
        kept = [line for line in _lines(log) if json.loads(line)["step"] <= done]
        log.write_text("".join(kept))
        losses = []
        steps = train_steps(network, state, images.images, images.labels, optimisation, mesh)
        for state, info in steps:
            losses.append(info["loss"])
            step, last = info["step"], info["step"] == optimisation.total_steps
            if step % tick == 0 or last:
                loss = float(np.mean(jax.device_get(jnp.stack(losses))))
                losses = []
                if not np.isfinite(loss):
                    raise FloatingPointError(f"training loss is {loss} in the tick that ends at step {step}")
                kimg = step * optimisation.batch_size / 1000
                with log.open("a") as file:
                    line = {"step": step, "kimg": kimg, "loss": loss, "nonfinite": int(state["nonfinite"])}
                    file.write(json.dumps(line) + "\n")
                if progress is not None:
                    progress(step, optimisation.total_steps, f"loss {loss:.4f}")
            if step % save_every == 0 or last:
                checkpoints.save(step, state)
                seen = step * optimisation.batch_size
                save_network(path, network, state["ema"], {**metadata, "images_seen": seen})
    return path


def _lines(path: Path) -> list[str]:
    """Complete lines of a log that may have been cut off by a crash."""
    return [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")] if path.exists() else []


if __name__ == "__main__":
    import sys, time

    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    t0 = time.time()
    cfg = Config()
    if len(sys.argv) > 2:
        cfg = replace(cfg, training=replace(cfg.training, duration_kimg=float(sys.argv[2])))
    print(train(cfg, out, lambda i, n, s: print(i, n, s, round(time.time() - t0), flush=True)))
