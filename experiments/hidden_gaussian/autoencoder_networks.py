"""The denoising autoencoders of the study: their options, and their training at each noise level, in stages."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from dgu import models, training
from dgu.core.errors import require
from experiments.study import Options, Run, option
from experiments.study.options import renamed
from experiments.study.progress import Progress

#: Names in figures and tables.
SHOWN = {"ncsn": "DAE-NCSN", "skip": "DAE-Skip", "dit": "DAE-DiT", "linear": "DAE-linear"}


@dataclass(frozen=True)
class Config(Options, prefix="autoencoders"):
    """Denoising autoencoders."""

    networks: tuple[Literal["ncsn", "skip", "dit"], ...] = ("ncsn", "skip", "dit")
    """Networks to train, in addition to the linear one."""
    sigmas: tuple[float, ...] | None = option((21.1, 1.5, 0.117), gt=0.0)
    """Noise levels, a network for each; None takes those of the study."""
    steps: int = option(500, ge=1)
    """Updates of the Skip-Net and of the DiT at each level; Adam's learning rate falls to 0 over them."""
    ncsn_steps: int = option(250, ge=1)
    """Updates of the NCSN++ at each level: one costs several of the others'."""
    linear_steps: int = option(3000, ge=1)
    """Updates of the linear map at each level."""
    batch_size: int = option(128, ge=2)
    """Images in an update."""
    micro_batch: int | None = option(None, ge=1)
    """Images per gradient evaluation of the DiT and the NCSN++, to save memory; None is the whole batch. The Skip-Net's
    batch normalisation takes the whole batch."""
    remat: bool = False
    """Compute each block of the DiT and the NCSN++ again for its gradient: less memory, a third more arithmetic."""
    learning_rate: float = option(1e-3, gt=0.0)
    """Adam's learning rate at the start."""
    save_every: int = option(5000, ge=1)
    """Updates between stages of a training, from which a killed run goes on."""
    ncsn_channels: int = option(8, ge=1)
    """Channels of the NCSN++."""
    ncsn_mult: tuple[int, ...] = option((1, 2), ge=1)
    """Multiples of the channels of the NCSN++ at each resolution."""
    ncsn_blocks: int = option(1, ge=1)
    """Residual blocks of the NCSN++ at each resolution."""
    skip_channels: tuple[int, ...] = option((16, 32), ge=1, le=65536)
    """Channels of the Skip-Net at each resolution."""
    dit_patch: int = option(2, ge=1, le=65536)
    """Height and width of the DiT's patches."""
    dit_width: int = option(32, ge=1, le=65536)
    """Width of the DiT's tokens."""
    dit_depth: int = option(2, ge=1, le=256)
    """Blocks of the DiT."""
    dit_heads: int = option(4, ge=1, le=65536)
    """Attention heads of the DiT."""
    images: int = option(200, ge=4)
    """Images whose noisy versions are denoised."""
    points: int = option(4, ge=2)
    """Noisy images at which Jacobians are taken, at each level."""
    vectors: int = option(5, ge=3)
    """Leading singular vectors."""
    components: int = option(10, ge=3)
    """Principal components that they are compared with."""
    tolerance: float = option(1e-3, gt=0.0, lt=1.0)
    """Largest residual of a singular triplet, relative to the largest singular value."""
    max_rounds: int = option(30, ge=1)
    """Rounds of the iteration at most."""

    def check(self) -> None:
        """No list is empty, and noise levels fall."""
        for name in ("ncsn_mult", "skip_channels"):
            value = getattr(self, name)
            require(bool(value), f"autoencoders.{name}", value, "one or more, each 1 or more")
        once = bool(self.networks) and len(set(self.networks)) == len(self.networks)
        require(once, "autoencoders.networks", self.networks, "one or more, each once")
        divides = self.micro_batch is None or self.batch_size % self.micro_batch == 0
        allowed = f"a divisor of batch_size {self.batch_size}, or None"
        require(divides, "autoencoders.micro_batch", self.micro_batch, allowed)
        levels = self.sigmas
        falling = levels is None or (len(levels) >= 2 and all(a > b > 0 for a, b in pairwise(levels)))
        require(falling, "autoencoders.sigmas", levels, "two or more, falling and positive, or None")

    @property
    def shown(self) -> list[str]:
        """The networks' names in figures and tables, without the linear one."""
        return [SHOWN[name] for name in self.networks]


PRESETS = {
    "smoke": Config(
        networks=("skip",),
        sigmas=(20.0, 1.5),
        steps=4,
        linear_steps=4,
        batch_size=8,
        save_every=2,
        skip_channels=(8,),
        images=8,
        points=2,
        vectors=3,
        components=6,
        max_rounds=2,
    ),
    "default": Config(),
    "paper": Config(
        sigmas=None,
        steps=50_000,
        ncsn_steps=50_000,
        linear_steps=50_000,
        batch_size=256,
        micro_batch=64,
        remat=True,
        ncsn_channels=128,
        ncsn_mult=(1, 2, 2, 2),
        ncsn_blocks=4,
        skip_channels=(64, 128, 256, 512),
        dit_patch=4,
        dit_width=384,
        dit_depth=12,
        dit_heads=6,
        images=1000,
        points=16,
        vectors=20,
        components=100,
    ),
}


def build(config: Config, shape: tuple[int, ...]) -> dict[str, models.Network]:
    """The networks for images of ``shape``, the linear one last; ``InputError`` if one does not fit."""
    chosen = {name: _network(config, name, shape) for name in config.networks}
    return chosen | {"linear": models.LinearNetwork(tuple(shape))}


def _network(config: Config, name: str, shape: tuple[int, ...]) -> models.Network:
    size, _, channels = shape
    if name == "ncsn":
        with renamed(
            "autoencoders", model_channels="ncsn_channels", channel_mult="ncsn_mult", num_blocks="ncsn_blocks"
        ):
            unet = models.SongUNetConfig(
                size,
                channels,
                channels,
                model_channels=config.ncsn_channels,
                channel_mult=config.ncsn_mult,
                num_blocks=config.ncsn_blocks,
                attn_resolutions=(),
                dropout=0.0,
                **models.NCSNPP,
            )
        return models.EDMNetwork(unet, models.DAEPreconditioning())
    if name == "skip":
        with renamed("autoencoders", channels="skip_channels"):
            return models.SkipNetwork(size, channels, config.skip_channels)
    with renamed("autoencoders", patch="dit_patch", width="dit_width", depth="dit_depth", heads="dit_heads"):
        dit = models.DiTConfig(
            size,
            channels,
            channels,
            patch=config.dit_patch,
            width=config.dit_width,
            depth=config.dit_depth,
            heads=config.dit_heads,
        )
    # The patches are embedded with nothing in front that would remove the scale of the noise.
    return models.EDMNetwork(dit, models.DAEPreconditioning(input_std=0.5))


def optimisation(config: Config, name: str, seed: int) -> "training.LevelTraining":
    """The training of one kind of network."""
    steps = {"linear": config.linear_steps, "ncsn": config.ncsn_steps}.get(name, config.steps)
    large = name in ("ncsn", "dit")
    return training.LevelTraining(
        steps,
        config.batch_size,
        config.learning_rate,
        seed,
        micro_batch=config.micro_batch if large else None,
        remat=config.remat and large,
    )


def trained(
    config: Config, name: str, network: models.Network, images: np.ndarray, sigmas: np.ndarray, *, run: Run
) -> tuple[models.LevelDenoisers, np.ndarray]:
    """A network for each level as one denoiser, and the losses of all steps ``(levels, steps)``.

    Levels are spread over all devices and hosts. Every ``save_every`` steps are a stage, from which a run that was
    killed goes on.
    """
    recipe = optimisation(config, name, run.seed)
    with Progress(SHOWN[name], total=recipe.steps * len(sigmas), unit="steps") as bar:
        return training.train_stored_levels(
            network,
            images,
            sigmas,
            recipe,
            every=config.save_every,
            stored=lambda piece, compute: run.stage(f"{name}-{piece}", compute),
            progress=lambda done, total: bar.update(done - bar.done),
        )
