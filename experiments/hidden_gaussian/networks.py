"""The networks that the sweeps and the part on strong generalisation train, and on which images."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from dgu.core.errors import InputError, require
from dgu.data.pixels import area_mean
from dgu.training import TrainingConfig
from experiments.hidden_gaussian import few_steps
from experiments.hidden_gaussian.images import Images, Sources
from experiments.study import Options, option
from experiments.study.inputs import once_a_run
from experiments.subjects import load_images
from experiments.train_config import NetworkConfig


@dataclass(frozen=True)
class Config(Options, prefix="networks"):
    """The networks of the sweeps and of strong generalisation, and how they are measured."""

    data: str = "auto"
    """Images to train on. "auto" takes Fashion-MNIST or, if it is not on this machine, half of the bundled images."""
    split: str = "train"
    """Split of the training images."""
    heldout_data: str | None = None
    """Images that no network is trained on; None takes another split of the same data."""
    heldout_split: str = "test"
    """Split of the held-out images; if data and split are those of the training images, each gets every other image."""
    pad: int = option(2, ge=0, le=1024)
    """Black pixels added on each side first (28 pixels of Fashion-MNIST become 32, which blocks divide)."""
    size: int | None = option(8, ge=1)
    """Side to which the padded images are reduced by averaging over areas; None keeps their size."""
    network: NetworkConfig = field(
        default_factory=lambda: NetworkConfig(
            "ddpmpp", model_channels=16, num_blocks=1, attn_resolutions=(), conditional=False
        )
    )
    """Those from --networks.architecture to --networks.remat describe the wide network."""
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            duration_kimg=80.0,
            batch_size=32,
            learning_rate=3e-3,
            rampup_kimg=1.0,
            ema_halflife_kimg=50.0,
            ema_rampup_ratio=0.1,
            p_mean=-0.8,
            p_std=1.4,
        )
    )
    """Optimisation of every network; each training has a seed of its own, made of this one, the study's and its number.
    By default the noise levels are spread wider than EDM's, as a short training must also reach the high ones, where
    denoisers are compared."""
    checkpoints: tuple[float, ...] = option((1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2), gt=0.0, lt=1.0)
    """Shares of the training after which networks are kept and measured, in addition to its end."""
    checkpoint_minutes: float = option(2.0, ge=0.0)
    """Minutes between two states from which a killed training goes on."""
    seeds: int = option(3, ge=2)
    """Trainings of each kind, on different images: the training sets of different seeds are disjoint if none holds more
    than one part in so many of all images."""
    held_out: int = option(96, ge=2)
    """Held-out images on which denoisers are compared."""
    pairs: int = option(48, ge=2)
    """Pairs of these images for the linearity scores."""
    samples: int = option(50, ge=2)
    """Samples of each checkpoint, all from the same initial noise."""
    steps: int = option(10, ge=2)
    """Steps of these samples."""
    method: few_steps.Method = "euler"
    """Method of these steps: the paper's, Euler's, or Heun's (second order)."""
    levels: int = option(10, ge=2)
    """Noise levels of the distances, from 80 to 0.002, within the network's range."""
    linearity_levels: int = option(10, ge=2)
    """Noise levels of the linearity scores; the paper's figures have 40."""
    batch_size: int = option(100, ge=1)
    """Images computed at once when measuring."""

    def check(self) -> None:
        """The networks are not class-conditional, and there is such a method."""
        require(self.method in ("euler", "heun"), "networks.method", self.method, "euler or heun")
        classes = self.network.conditional
        require(not classes, "networks.network.conditional", True, "False: the networks have no classes")

    @property
    def sources(self) -> Sources:
        """The options that name the images."""
        return Sources(self.data, self.split, self.heldout_data, self.heldout_split, "networks.")

    @property
    def family(self) -> str:
        """Architecture and preconditioning, such as ``"ddpmpp-edm"``."""
        return f"{self.network.architecture}-{self.network.preconditioning}"

    @property
    def marks(self) -> tuple[int, ...]:
        """The updates after which networks are kept, rising; the last ends the training."""
        total = self.training.total_steps
        return tuple(sorted({max(1, round(share * total)) for share in self.checkpoints} | {total}))

    @property
    def evaluations(self) -> int:
        """Evaluations of a network at a checkpoint."""
        scores = self.levels * self.held_out + self.linearity_levels * 3 * self.pairs + 3 * self.held_out
        return scores + self.samples * few_steps.evaluations(self.method, self.steps)


@once_a_run
def gather(config: Config) -> Images:
    """The images of a ``Config``, read once a run; whatever can be refused is refused here."""

    from dgu.training import own_meshes
    from dgu.training.loop import check_batch

    def read(option: str, source: str, split: str) -> np.ndarray:
        found, pad = load_images(option, source, split).images, config.pad
        found = np.pad(found, ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=-1.0) if pad else found
        try:
            return found if config.size is None else area_mean(found, config.size)
        except InputError as error:
            raise InputError(f"networks.{error}") from error

    images = config.sources.load(read)
    _, height, width, _ = shape = images.train.shape
    fits, shown = images.held.shape[1:] == shape[1:], "networks.heldout_data: images of shape"
    require(fits, shown, images.held.shape[1:], f"{shape[1:]}, that of the training images")
    require(height == width, "networks.data: images of shape", shape[1:], "square")
    available = len(images.held)
    for name, each in (("held_out", 1), ("pairs", 2)):
        count = getattr(config, name)
        allowed = f"at most {available // each}: there are {available} held-out images"
        require(each * count <= available, f"networks.{name}", count, allowed)
    check_batch(config.training, own_meshes()[0], shape[1:])
    return replace(images, about=f"{images.about}, {height} x {width} pixels")


def usable_sizes(option: str, sizes: Sequence[int], images: Images, most: int, why: str = "") -> tuple[int, ...]:
    """Sizes of training sets, rising.

    Raises:
        InputError: one is above ``most``, under the name of the option; sizes above the bundled images are left out.
    """
    kept = tuple(sorted(size for size in sizes if size <= most or not images.bundled))
    allowed = f"at most {most}: there are {len(images.train)} images{why}"
    require(len(kept) > 0 and kept[-1] <= most, option, max(sizes), allowed)
    return kept


#: Images, side and channels of the paper's sets, for a dry run without their files.
KNOWN = {
    "fashion-mnist": (60_000, 28, 1),
    "cifar10": (50_000, 32, 3),
    "ffhq-64x64.zip": (70_000, 64, 3),
    "afhqv2-64x64.zip": (15_803, 64, 3),
    "lsun-churches-64x64.zip": (126_227, 64, 3),
}


def planned(config: Config) -> Images:
    """The images of a dry run: those of the ``Config``, or blank ones in the sizes of the paper's sets."""
    try:
        return gather(config)
    except InputError:
        if config.data not in KNOWN:
            raise
    count, side, channels = KNOWN[config.data]
    size = config.size or side + 2 * config.pad
    blank = np.broadcast_to(np.float32(0), (count // 2 if config.sources.halved else count, size, size, channels))
    return Images(blank, blank, False, f"{config.data}, which is not on this machine")


def _ncsnpp(width: int, dropout: float, channel_mult: tuple[int, ...]) -> NetworkConfig:
    """A network as EDM's authors trained it, without classes."""
    return NetworkConfig(
        "ncsnpp",
        model_channels=width,
        channel_mult=channel_mult,
        num_blocks=4,
        attn_resolutions=(16,),
        dropout=dropout,
        conditional=False,
    )


def _as_in_paper(
    network: NetworkConfig,
    training: TrainingConfig,
    kept: Sequence[float],
    *,
    data: str,
    heldout_data: str | None = None,
    heldout_split: str = "test",
) -> Config:
    """The paper's study of a network that is kept after these numbers of images (in thousands)."""
    return Config(
        data=data,
        heldout_data=heldout_data,
        heldout_split=heldout_split,
        pad=0,
        size=None,
        network=network,
        training=training,
        checkpoints=tuple(seen / training.duration_kimg for seen in kept),
        checkpoint_minutes=30.0,
        seeds=2,
        held_out=500,
        pairs=100,
        samples=100,
        linearity_levels=40,
    )


_FFHQ = partial(
    _as_in_paper,
    _ncsnpp(128, 0.05, (1, 2, 2, 2)),
    TrainingConfig(
        duration_kimg=70_246.0, batch_size=256, micro_batch=64, learning_rate=2e-4, augment_probability=0.15
    ),
    (205.0, 512.0, 920.0, 2_508.0, 10_035.0, 35_126.0),
)
PRESETS = {
    "smoke": Config(
        network=NetworkConfig(
            "ddpmpp", model_channels=8, channel_mult=(1,), num_blocks=1, attn_resolutions=(), conditional=False
        ),
        training=TrainingConfig(
            duration_kimg=0.128, batch_size=8, learning_rate=2e-3, rampup_kimg=0.01, ema_halflife_kimg=50.0
        ),
        checkpoints=(0.5,),
        seeds=2,
        held_out=8,
        pairs=4,
        samples=4,
        steps=3,
        levels=3,
        linearity_levels=3,
    ),
    "default": Config(),
    "paper": _FFHQ(data="ffhq-64x64.zip", heldout_data="celeba-hq-64x64.zip", heldout_split="train"),
    "paper-cifar10": _as_in_paper(
        _ncsnpp(64, 0.13, (2, 2, 2)),
        TrainingConfig(duration_kimg=50_000.0, batch_size=512, learning_rate=1e-3, augment_probability=0.12),
        (144.0, 360.0, 720.0, 5_000.0, 20_000.0),
        data="cifar10",
    ),
    "paper-afhqv2": _FFHQ(data="afhqv2-64x64.zip", heldout_split="train"),
    "paper-churches": _FFHQ(data="lsun-churches-64x64.zip", heldout_split="train"),
}
