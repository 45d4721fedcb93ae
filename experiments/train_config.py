"""The options of ``python -m experiments.train``: the network and its training, with published recipes as presets."""

from dataclasses import dataclass, field
from typing import Any, Literal

from dgu.core.errors import require
from dgu.models import (
    NCSNPP,
    ADMConfig,
    EDM2Config,
    EDMNetwork,
    EDMPreconditioning,
    SongUNetConfig,
    VEPreconditioning,
    VPPreconditioning,
)
from dgu.models.architecture import Architecture
from dgu.models.preconditioning import Preconditioning
from dgu.training import AUGMENT_DIM, TrainingConfig
from experiments.study.options import Options, option


@dataclass(frozen=True)
class NetworkConfig(Options):
    """The network; its resolution, channels and number of classes are those of the data."""

    architecture: Literal["adm", "ddpmpp", "ncsnpp", "edm2"] = "adm"
    """adm: the U-Net of ADM (DhariwalUNet); ddpmpp, ncsnpp: SongUNet with the options of DDPM++ or NCSN++; edm2: the
    magnitude-preserving U-Net of EDM2."""
    preconditioning: Literal["edm", "vp", "ve"] = "edm"
    """Preconditioning: EDM's own, variance preserving or variance exploding; the loss has an option of its own."""
    model_channels: int = option(16, ge=1)
    """Channels at the finest level, before its multiplier."""
    channel_mult: tuple[int, ...] = option((1, 2), ge=1)
    """Channel multiplier of each level; each level halves the resolution."""
    num_blocks: int = option(2, ge=1)
    """Residual blocks per level."""
    attn_resolutions: tuple[int, ...] = option((7,), ge=1)
    """Resolutions with attention. An ADM has channels // 64 heads (none below 64 channels), a SongUNet one."""
    channels_per_head: int = option(64, ge=1)
    """Channels of a head of EDM2's attention, which has as many heads as fit; other networks are not asked."""
    dropout: float = option(0.0, ge=0.0, lt=1.0)
    """Dropout rate inside the residual blocks."""
    label_dropout: float = option(0.0, ge=0.0, lt=1.0)
    """Probability with which a training image's label is dropped."""
    conditional: bool = True
    """Train a class-conditional network."""
    sigma_data: float = option(0.5, gt=0.0)
    """Standard deviation of the data that EDM's preconditioning assumes."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """float32, or bfloat16 for the activations (parameters stay float32)."""
    remat: bool = False
    """Compute each block again for its gradient (rematerialisation): less memory, a third more arithmetic."""

    def check(self) -> None:
        require(bool(self.channel_mult), "channel_mult", self.channel_mult, "one or more, each 1 or more")
        usable = self.preconditioning == "edm" or self.sigma_data == 0.5
        require(usable, "sigma_data", self.sigma_data, f"left at 0.5: preconditioning {self.preconditioning} has none")
        if self.architecture == "edm2":
            require(self.label_dropout == 0, "label_dropout", self.label_dropout, "0: EDM2's networks drop no labels")
            require(
                self.preconditioning == "edm", "preconditioning", self.preconditioning, "edm with architecture edm2"
            )
        else:
            require(self.channels_per_head == 64, "channels_per_head", self.channels_per_head, "left out: not edm2")


@dataclass(frozen=True)
class Config(Options):
    """A training run. The defaults are those of the bundled network."""

    data: str = "fashion-mnist"
    """Name or path of the training images: a data set known by name, an npz file, a folder of images, or an EDM zip."""
    split: str = "train"
    """Split of the data set to train on."""
    size: int | None = option(14, ge=1)
    """Reduce the images to this size by area means; None keeps them."""
    max_size: int | None = option(None, ge=1)
    """Train on a random subset of this many images, the one that EDM's code would choose; None takes all."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            duration_kimg=1050.0, batch_size=128, learning_rate=2e-3, rampup_kimg=20.0, ema_halflife_kimg=50.0
        )
    )
    tick_kimg: float = option(10.0, gt=0.0)
    """Thousands of images between two lines of the log."""
    checkpoint_kimg: float = option(50.0, gt=0.0)
    """Thousands of images between two checkpoints."""
    init_from: str | None = None
    """Network (as for --checkpoint of other commands) to start from, with no ramp of the average; None: at random."""
    tensorboard: bool = option(False, added_later=True)
    """Write the lines of the log as scalars for TensorBoard, too, as they come, into the folder tensorboard of the run
    (pip install 'dgu[tensorboard]')."""


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
            micro_batch=256,
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


def _edm2(channels: int, learning_rate: float, dropout: float, mebi_images: int) -> Config:
    """A published run of EDM2 on ImageNet at 64 x 64 pixels (arXiv 2312.02696, Table 6)."""
    return Config(
        data="imagenet-64x64.zip",
        size=None,
        network=NetworkConfig(
            architecture="edm2",
            model_channels=channels,
            channel_mult=(1, 2, 3, 4),
            num_blocks=3,
            attn_resolutions=(16, 8),
            dropout=dropout,
            compute_dtype="bfloat16",
        ),
        training=TrainingConfig(
            duration_kimg=mebi_images * 2**20 / 1000,
            batch_size=2048,
            micro_batch=256,
            learning_rate=learning_rate,
            decay_kimg=35_000 * 2048 / 1000,
            adam_b2=0.99,
            power_ema_stds=(0.05, 0.1),
            loss="edm2",
            p_mean=-0.8,
            p_std=1.6,
        ),
        tick_kimg=128,
        checkpoint_kimg=8_192,
    )


#: EDM2's sizes for ImageNet at 64 x 64: channels, learning rate, dropout, training images in units of 2^20.
_EDM2_SIZES = {
    "xs": (128, 0.012, 0.0, 1024),
    "s": (192, 0.010, 0.0, 1024),
    "m": (256, 0.009, 0.1, 2048),
    "l": (320, 0.008, 0.1, 1024),
    "xl": (384, 0.007, 0.1, 640),
}
PRESETS |= {f"imagenet64-edm2-{name}": _edm2(*size) for name, size in _EDM2_SIZES.items()}
#: As many parameters as the default's network, and as many images.
PRESETS["default-edm2"] = Config(
    network=NetworkConfig(architecture="edm2", channels_per_head=16),
    training=TrainingConfig(
        duration_kimg=1050.0,
        batch_size=128,
        learning_rate=1e-2,
        rampup_kimg=20.0,
        decay_kimg=100.0,
        adam_b2=0.99,
        power_ema_stds=(0.1, 0.2),
        loss="edm2",
        p_mean=-1.2,
        p_std=1.2,
    ),
)


def build_network(config: NetworkConfig, side: int, channels: int, classes: int, *, augment: bool) -> EDMNetwork:
    """The network of ``config`` for square images of ``side`` pixels, ``channels`` and ``classes``.

    With ``augment`` it takes the labels of augmented images.
    """
    size: dict[str, Any] = {
        "img_resolution": side,
        "in_channels": channels,
        "out_channels": channels,
        "label_dim": classes if config.conditional else 0,
        "model_channels": config.model_channels,
        "channel_mult": config.channel_mult,
        "num_blocks": config.num_blocks,
        "attn_resolutions": config.attn_resolutions,
        "dropout": config.dropout,
    }
    if config.architecture == "edm2":
        require(not augment, "augment_probability", "above 0", "0: EDM2's networks take no labels of augmented images")
        unet: Architecture = EDM2Config(**size, channels_per_head=config.channels_per_head)
    else:
        size |= {"augment_dim": AUGMENT_DIM if augment else 0, "label_dropout": config.label_dropout}
        kind = ADMConfig if config.architecture == "adm" else SongUNetConfig
        unet = kind(**size, **(NCSNPP if config.architecture == "ncsnpp" else {}))
    choices: dict[str, Preconditioning] = {
        "edm": EDMPreconditioning(sigma_data=config.sigma_data),
        "vp": VPPreconditioning(),
        "ve": VEPreconditioning(),
    }
    return EDMNetwork(unet, choices[config.preconditioning], compute_dtype=config.compute_dtype, remat=config.remat)
