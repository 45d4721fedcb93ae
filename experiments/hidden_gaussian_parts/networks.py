"""Which networks the sweeps and the study of strong generalisation train, on which images, and what that costs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dgu.core import parallel
from dgu.core.errors import InputError, require
from dgu.data.pixels import area_mean
from dgu.models import EDMNetwork
from dgu.samplers import karras_sigmas
from dgu.training import TrainingConfig
from dgu.training.loop import check_batch
from experiments.study.costs import Cost
from experiments.study.flop import matmul_flop
from experiments.study.inputs import note_choice, once_a_run
from experiments.study.options import check_options
from experiments.study.pool import BUNDLED_IMAGES, load_images
from experiments.train import NetworkConfig, build_network


@dataclass(frozen=True)
class Config:
    """The networks of the sweeps and of strong generalisation, and how they are measured."""

    data: str = "auto"
    """Images to train on; auto is Fashion-MNIST, or, where that is not on this machine, the bundled images, half of them."""
    split: str = "train"
    """Split of these."""
    heldout_data: str | None = None
    """Images that no network has seen, if not of the same set."""
    heldout_split: str = "test"
    """Split of these; where set and split are those of the training images, each gives every other image."""
    pad: int = 2
    """Black pixels added on each side first (Fashion-MNIST's 28 pixels make 32, which blocks divide)."""
    size: int | None = 8
    """Reduce the padded images to this size by area means; None keeps them."""
    network: NetworkConfig = field(
        default_factory=lambda: NetworkConfig(
            "ddpmpp", model_channels=16, num_blocks=1, attn_resolutions=(), conditional=False
        )
    )
    """The wide network."""
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
    """Its optimisation; each arm has a seed of its own, made of this one, the study's and its number. The default's noise levels
    are spread wider than EDM's, for a short training must reach the high ones, too, where denoisers are compared."""
    checkpoints: tuple[float, ...] = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2)
    """Where networks are kept and measured on the way, as shares of the training; its end is one, too."""
    checkpoint_minutes: float = 2.0
    """Minutes between two states from which a killed training goes on."""
    seeds: int = 3
    """Trainings of each kind, on different images where there are enough: image sets of different seeds are disjoint as long
    as a size is at most this part of all."""
    held_out: int = 96
    """Held-out images on which denoisers are compared."""
    pairs: int = 48
    """Pairs of these for the linearity scores."""
    samples: int = 50
    """Samples of each checkpoint, all from the same noise."""
    steps: int = 10
    """Heun steps of these."""
    levels: int = 10
    """Noise levels from 80 to 0.002, within the network's range."""
    batch_size: int = 100
    """Images at a time when measuring."""

    def __post_init__(self) -> None:
        check_options(
            self, "networks", pad="[0, 1024]", size=1, checkpoints="(0, 1)", checkpoint_minutes=0, seeds=2, held_out=2, pairs=2, samples=2, steps=2,
            levels=2, batch_size=1,
        )  # fmt: skip
        require(
            not self.network.conditional, "networks.network.conditional", True, "False: the networks have no classes"
        )

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
        return self.levels * (self.held_out + 3 * self.pairs) + 3 * self.held_out + self.samples * (2 * self.steps - 1)


@dataclass(frozen=True)
class Arm:
    """One training: how many images, how wide a network, which seed (and with it which images), which kind of network."""

    size: int
    width: int
    seed: int
    family: str

    @property
    def name(self) -> str:
        """Its name in the run directory."""
        return f"{self.family}-w{self.width}-n{self.size}-s{self.seed}"


@dataclass(frozen=True, eq=False)
class Images:
    """What the networks are trained and measured on.

    Attributes:
        train: all images to train on, (n, H, W, C).
        held: images that none is trained on.
        bundled: they are the few bundled ones, for want of others: sizes above what there is are left out.
        about: what they are, in words.
    """

    train: np.ndarray
    held: np.ndarray
    bundled: bool
    about: str


@once_a_run
def gather(config: Config) -> Images:
    """The images of a ``Config``, read once a run; whatever can be refused is refused here."""

    def read(option: str, source: str, split: str) -> np.ndarray:
        found = load_images(option, source, split).images
        pad = config.pad
        found = np.pad(found, ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=-1.0) if pad else found
        try:
            return found if config.size is None else area_mean(found, config.size)
        except InputError as error:
            raise InputError(f"networks.{error}") from error

    def halves(option: str, source: str, split: str) -> tuple[np.ndarray, np.ndarray]:
        found = read(option, source, split)
        return found[::2], found[1::2]

    bundled = False
    if config.data != "auto":
        source = config.heldout_data or config.data
        if (source, config.heldout_split) == (config.data, config.split):
            train, held = halves("networks.data", config.data, config.split)
            about = f"halves of {config.data}"
        else:
            train, held = (
                read("networks.data", config.data, config.split),
                read("networks.heldout_data", source, config.heldout_split),
            )
            about = f"{config.data} ({config.split}), held out {source} ({config.heldout_split})"
    else:
        try:
            train, held = (read("networks.data", "fashion-mnist", split) for split in ("train", "test"))
            about = "Fashion-MNIST: training file, and test file held out"
            note_choice("networks.data", "auto", "fashion-mnist")
        except InputError as error:
            if "was not found" not in str(error):
                raise
            note_choice("networks.data", "auto", BUNDLED_IMAGES)
            train, held = halves("networks.data", BUNDLED_IMAGES, "test")
            bundled, about = True, "halves of the bundled images"
    fits = held.shape[1:] == train.shape[1:]
    require(
        fits,
        "networks.heldout_data: images of shape",
        held.shape[1:],
        f"{train.shape[1:]}, that of the training images",
    )
    square = train.shape[1] == train.shape[2]
    require(square, "networks.data: images of shape", train.shape[1:], "square")
    for name, count in (("held_out", config.held_out), ("pairs", 2 * config.pairs)):
        there = len(held) // (2 if name == "pairs" else 1)
        require(
            count <= len(held),
            f"networks.{name}",
            getattr(config, name),
            f"at most {there}: there are {len(held)} held-out images",
        )
    check_batch(config.training, parallel.data_mesh(), train.shape[1:])
    return Images(train, held, bundled, f"{about}, {train.shape[1]} x {train.shape[2]} pixels")


def usable_sizes(option: str, sizes: Sequence[int], images: Images, most: int, why: str = "") -> tuple[int, ...]:
    """Sizes of training sets that there are images for, rising; of the bundled images those above are left out."""
    kept = tuple(sorted(size for size in sizes if size <= most)) if images.bundled else tuple(sorted(sizes))
    require(
        len(kept) > 0 and kept[-1] <= most,
        option,
        max(sizes),
        f"at most {most}: there are {len(images.train)} images{why}",
    )
    return kept


@dataclass(frozen=True, eq=False)
class Design:
    """Which networks there are to train: the options, and the images."""

    config: Config
    images: Images

    def arm(self, size: int, seed: int, width: int | None = None, family: str | None = None) -> Arm:
        """An arm of the configured network, or with another width or family."""
        return Arm(size, width or self.config.network.model_channels, seed, family or self.config.family)

    def network(self, arm: Arm) -> EDMNetwork:
        """The network of an arm; ``InputError`` where there is none of these channels and resolutions."""
        architecture, preconditioning = arm.family.split("-")
        chosen: Any = {"architecture": architecture, "preconditioning": preconditioning, "model_channels": arm.width}
        side, channels = self.images.train.shape[2:]
        augment = self.config.training.augment_probability > 0
        return build_network(replace(self.config.network, **chosen), side, channels, 0, augment=augment)

    def sigmas(self, arm: Arm, count: int | None = None) -> np.ndarray:
        """Noise levels and the last 0, from 80 to 0.002 as far as the network goes."""
        known = self.network(arm).preconditioning
        return karras_sigmas(count or self.config.levels, max(0.002, known.sigma_min), min(80.0, known.sigma_max))


#: Images, side and channels of the paper's sets, for a dry run where their files are not at hand.
_KNOWN = {
    "fashion-mnist": (60_000, 28, 1), "cifar10": (50_000, 32, 3), "ffhq-64x64.zip": (70_000, 64, 3),
    "afhqv2-64x64.zip": (15_803, 64, 3), "lsun-churches-64x64.zip": (126_227, 64, 3),
}  # fmt: skip


def planned(config: Config) -> Images:
    """The images of a dry run: those of the ``Config``, or blank ones in the sizes of the paper's sets."""
    try:
        return gather(config)
    except InputError:
        if config.data not in _KNOWN:
            raise
    count, side, channels = _KNOWN[config.data]
    alone = config.heldout_data is None and config.heldout_split == config.split
    size = config.size or side + 2 * config.pad
    blank = np.broadcast_to(np.float32(0), (count // 2 if alone else count, size, size, channels))
    return Images(blank, blank, False, f"{config.data}, which is not here")


def costs(stage: str, design: Design, arms: Sequence[Arm]) -> list[Cost]:
    """What training and measuring the arms costs, from the shapes of their networks; as if none were trained yet."""
    config = design.config
    trained, measured = Cost(f"{stage}: training"), Cost(f"{stage}: measuring")
    seen, looked = config.training.total_steps * config.training.batch_size, len(config.marks) * config.evaluations
    widest = max(arm.width for arm in arms)
    for key in dict.fromkeys((arm.family, arm.width) for arm in arms):
        count = sum((arm.family, arm.width) == key for arm in arms)
        weights, flop = _evaluation(design.network(Arm(0, key[1], 0, key[0])))
        trained = _plus(trained, count, seen, 3 * flop, weights * len(config.marks))
        measured = _plus(measured, count, looked, flop, 0)
        if key[1] == widest:  # The others take less.
            kept = _kept(design.network(Arm(0, key[1], 0, key[0])))
            at_once = config.training.micro_batch or config.training.batch_size
            # Parameters, average, two moments and gradient.
            trained = replace(trained, memory=max(trained.memory, 5 * weights + at_once * kept))
            measured = replace(measured, memory=max(measured.memory, weights + config.batch_size * kept / 2))
    return [trained, measured]


@lru_cache(maxsize=32)
def _evaluation(network: EDMNetwork) -> tuple[int, float]:
    """Bytes of the parameters, and FLOP of an evaluation; a gradient costs about two more evaluations."""
    image, level = jax.ShapeDtypeStruct(network.shape, jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)
    params = network.abstract_params
    return _bytes(params), matmul_flop(network.apply, params, image, level)


@lru_cache(maxsize=8)
def _kept(network: EDMNetwork) -> int:
    """Bytes that a gradient keeps of an evaluation."""
    image, level = jax.ShapeDtypeStruct(network.shape, jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)
    params = network.abstract_params
    kept = jax.eval_shape(
        lambda params, *rest: jax.vjp(lambda p: network.apply(p, *rest), params)[1], params, image, level
    )
    return max(0, _bytes(kept) - _bytes(params))


def _plus(cost: Cost, count: int, evaluations: float, flop: float, disk: float) -> Cost:
    """A cost with that of so many arms added, which run in turn."""
    return replace(
        cost,
        network_evaluations=cost.network_evaluations + count * evaluations,
        flop=cost.flop + count * evaluations * flop,
        disk=cost.disk + count * disk,
    )


def _bytes(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _song(
    width: int, batch: int, rate: float, kimg: float, checkpoints: Sequence[float], **options: Any
) -> dict[str, Any]:
    """The options of a network that EDM's authors trained, with the paper's checkpoints (thousands of images)."""
    known = ("dropout", "channel_mult")
    network = NetworkConfig(
        "ncsnpp", model_channels=width, num_blocks=4, attn_resolutions=(16,), conditional=False, **{name: options.pop(name) for name in known}
    )  # fmt: skip
    training = TrainingConfig(
        duration_kimg=kimg, batch_size=batch, learning_rate=rate, augment_probability=options.pop("augment")
    )
    shares = tuple(seen / kimg for seen in checkpoints)
    common = {
        "pad": 0,
        "size": None,
        "seeds": 2,
        "held_out": 500,
        "pairs": 100,
        "samples": 100,
        "checkpoint_minutes": 30.0,
    }
    return common | {"network": network, "training": training, "checkpoints": shares} | options


_FFHQ = _song(
    128,
    256,
    2e-4,
    70_246.0,
    (205.0, 512.0, 920.0, 2_508.0, 10_035.0, 35_126.0),
    dropout=0.05,
    channel_mult=(1, 2, 2, 2),
    augment=0.15,
)
PRESETS = {
    "smoke": Config(
        network=NetworkConfig("ddpmpp", model_channels=8, channel_mult=(1,), num_blocks=1, attn_resolutions=(), conditional=False),
        training=TrainingConfig(duration_kimg=0.128, batch_size=8, learning_rate=2e-3, rampup_kimg=0.01, ema_halflife_kimg=50.0),
        checkpoints=(0.5,), seeds=2, held_out=8, pairs=4, samples=4, steps=3, levels=3,
    ),
    "default": Config(),
    "paper": Config(data="ffhq-64x64.zip", heldout_data="celeba-hq-64x64.zip", heldout_split="train", **_FFHQ),
    "paper-cifar10": Config(data="cifar10", **_song(
        64, 512, 1e-3, 50_000.0, (720.0, 5_000.0, 20_000.0), dropout=0.13, channel_mult=(2, 2, 2), augment=0.12)),
    "paper-afhqv2": Config(data="afhqv2-64x64.zip", heldout_split="train", **_FFHQ),
    "paper-churches": Config(data="lsun-churches-64x64.zip", heldout_split="train", **_FFHQ),
}  # fmt: skip
