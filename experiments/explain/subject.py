"""What the study explains: a network, images that it was trained on and held-out ones, class by class where it is
conditional; its controls; and a second network that is trained here."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from dgu.core.errors import require
from dgu.core.keys import seed_of, seeded, stream
from dgu.data import ImageSet
from dgu.models import EDMNetwork, GaussianDenoiser, Pretrained, SkipDenoiser
from dgu.training import TrainingConfig
from experiments import study
from experiments.descriptions import in_pictures, network_in_words
from experiments.sampling import noise_range
from experiments.study import Cost, Materials, RunDirectory, option
from experiments.study.inputs import once_a_run
from experiments.study.materials import SHOWN, in_turn
from experiments.study.progress import Progress
from experiments.subjects import (
    BUNDLED_IMAGES,
    Described,
    auto_images,
    check_shape,
    load,
    load_images,
    planned,
    random_like,
    training_cost,
)
from experiments.train_config import NetworkConfig, build_network

if TYPE_CHECKING:
    from dgu.core.typing import Denoiser

#: Stage of the second network, which several parts look at.
_SECOND = "second-network"


@dataclass(frozen=True)
class SecondConfig(study.Options, prefix="second"):
    """The second network, which is trained in the run: convolutions without attention by default."""

    network: NetworkConfig = field(
        default_factory=lambda: NetworkConfig("ddpmpp", model_channels=16, num_blocks=1, attn_resolutions=())
    )
    """Its architecture; it knows the classes if the network of --checkpoint does, whatever conditional says."""
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            duration_kimg=24.0, batch_size=64, learning_rate=3e-3, rampup_kimg=1.0, ema_halflife_kimg=50.0,
            p_mean=-0.8, p_std=1.4,
        )
    )  # fmt: skip
    """Its optimisation; its seed is made of this one and the study's."""
    marks: int = option(12, ge=2)
    """Checkpoints that the part learning looks at, the numbers of their updates in equal ratios."""

    @property
    def updates(self) -> tuple[int, ...]:
        """The updates after which parameters are kept, rising, the last one the end of the training."""
        total = self.training.total_steps
        return tuple(sorted({max(1, round(total ** (k / (self.marks - 1)))) for k in range(self.marks)} | {total}))


@dataclass(frozen=True)
class Options(study.Options):
    """Which closed form is a network, level by level and pixel by pixel?"""

    checkpoint: str = "fashion-mnist-14"
    """Network to explain: the bundled fashion-mnist-14, a network file of dgu (.npz, .safetensors), the directory of a
    training run, one of NVIDIA's snapshots (.pkl), or a folder of diffusers."""
    data: str = "auto"
    """Images that the network was trained on. "auto" takes Fashion-MNIST or, where it is not on this machine, half of
    the bundled images."""
    split: str = "train"
    """Split of the training images."""
    heldout_data: str | None = None
    """Images that the network was not trained on; None takes another split of the same data."""
    heldout_split: str = "test"
    """Split of the held-out images; if data and split are those of the training images, each gets every other image."""
    size: int | None = option(14, ge=1)
    """Side to which images are reduced by averaging over areas; None keeps their size."""
    images: int = option(2000, ge=8)
    """Training images of each class (of all together where the network has no classes) that closed forms are made of,
    the first ones; of the bundled images at most as many as there are."""
    second: SecondConfig = field(default_factory=SecondConfig)
    seed: int = option(0, ge=0)
    """Seed of every random draw."""


@dataclass(frozen=True, eq=False)
class Group:
    """Images that a denoiser without a class is compared on: those of one class, or all of an unconditional network.

    Attributes:
        label: the class that the network is given; None for an unconditional network.
        train: training images, (n, H, W, C); ``classes`` their classes, (n,).
        held: numbers of this group's images among those that are measured on.
    """

    label: int | None
    train: np.ndarray
    classes: np.ndarray
    held: np.ndarray


@dataclass(frozen=True)
class Subject:
    """A network with its images; nothing is loaded before it is asked for.

    Attributes:
        config: the options of the whole study.
    """

    config: Options

    @cached_property
    def pretrained(self) -> Pretrained:
        """The network with what is known of it."""
        return load(self.config.checkpoint, self.config.size)

    @property
    def conditional(self) -> bool:
        """Whether the network is given the class of every image."""
        return self.pretrained.network.unet.label_dim > 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one image, (H, W, C)."""
        return self.pretrained.network.shape

    @cached_property
    def sets(self) -> tuple[ImageSet, ImageSet]:
        """Training and held-out images, of the network's shape and classes."""
        sets = _sets(self.config)
        for name, found in zip(("data", "heldout_data"), sets):
            check_shape(name, getattr(self.config, name), found.images, self.shape)
        names, own = tuple(sets[0].class_names), self.pretrained.class_names
        classes = self.pretrained.network.unet.label_dim
        same = not classes or (len(names) == classes and (not own or names == own))
        shown = f"data = {self.config.data!r}: classes"
        require(same, shown, names, f"the network's {classes}: {', '.join(own) or 'unnamed'}")
        return sets

    @property
    def about(self) -> str:
        """The images in words."""
        train, held = self.sets
        return f"{len(train):,} training and {len(held):,} held-out images of {train.name}"

    @property
    def most(self) -> int:
        """Images of the smallest group: the largest number that each can be given."""
        return min(len(rows) for rows in self._rows(self.sets[0]))

    @property
    def count(self) -> int:
        """Training images of each group; of the bundled images as many as there are."""
        bundled = self.config.data in ("auto", BUNDLED_IMAGES) and self.sets[0].name != "fashion-mnist"
        return min(self.config.images, self.most) if bundled else self.config.images

    def _rows(self, found: ImageSet) -> list[np.ndarray]:
        """Places of the images of each group."""
        if not self.conditional:
            return [np.arange(len(found))]
        return [np.flatnonzero(found.labels == label) for label in range(len(found.class_names))]

    def groups(self, count: int) -> list[Group]:
        """The groups, ``count`` images measured on in all, spread over them one by one."""
        train, _ = self.sets
        rows = self._rows(train)
        return [
            Group(
                place if self.conditional else None,
                train.images[own[: self.count]],
                train.labels[own[: self.count]],
                np.arange(place, count, len(rows)),
            )
            for place, own in enumerate(rows)
        ]

    def in_turn(self, option_name: str, count: int) -> None:
        """``InputError`` unless ``count`` is a multiple of the number of groups, two or more of each."""
        groups = len(self._rows(self.sets[0]))
        sound = count >= 2 * groups and count % groups == 0
        require(sound, option_name, count, f"a multiple of {groups}, the classes, and at least {2 * groups}")

    def inputs(self, option_name: str, count: int) -> np.ndarray:
        """``count`` held-out images, of all groups in turn; number i is of group i modulo their number.

        Raises:
            InputError: there are fewer, under the name of the option.
        """
        _, held = self.sets
        rows = self._rows(held)
        each = -(-count // len(rows))
        most = len(rows) * min(len(own) for own in rows)
        require(
            count <= most, option_name, count, f"at most {most}: there are {most // len(rows)} of the smallest class"
        )
        return held.images[np.stack([own[:each] for own in rows], axis=1).ravel()[:count]]

    def of(self, denoiser: Any, group: Group) -> "Denoiser":
        """A network at the class of a group."""
        return denoiser if group.label is None else denoiser.given(group.label)

    @cached_property
    def random(self) -> Any:
        """The network with random parameters in place of the trained ones."""
        return random_like(self.pretrained.denoiser, stream(seeded(self.config.seed), "untrained"))

    @cached_property
    def skip(self) -> SkipDenoiser:
        """The skip of the network's preconditioning alone, ``c_skip x``."""
        return SkipDenoiser(self.pretrained.network.preconditioning)

    @cached_property
    def gaussian(self) -> GaussianDenoiser:
        """The Gaussian of all training images, as the law that the theory of finite samples is told."""
        return GaussianDenoiser.fit(self.sets[0].images)

    def levels(self, count: int, low: float, high: float) -> np.ndarray:
        """Noise levels in equal ratios within those that the network takes, falling."""
        low, high = noise_range(self.pretrained.denoiser, low, high)
        return np.geomspace(high, low, count)

    @cached_property
    def second(self) -> EDMNetwork:
        """The architecture of the second network."""
        return second_network(self.config, self.pretrained.network)

    def check(self) -> None:
        """Load everything; ``InputError`` where the network and the images do not suit each other or are too few."""
        images = self.count
        allowed = f"at most {self.most}: there are {self.most} training images of the smallest class"
        require(images <= self.most, "images", images, allowed)

    def trained(self, directory: RunDirectory) -> list[tuple[int, Any]]:
        """The second network at its checkpoints: updates and denoiser, the last one the end. Trained once a run."""
        network, second = self.second, self.config.second
        stored = directory.stage(_SECOND, lambda: _trained(network, second, self.config.seed, self.sets[0]))
        leaves, tree = jax.tree.flatten(network.abstract_params)

        def kept(place: int) -> Any:
            params = jax.tree.unflatten(tree, [stored[f"{place}-{leaf}"] for leaf in range(len(leaves))])
            return network.denoiser(params)

        return [(mark, kept(place)) for place, mark in enumerate(second.updates)]


def second_network(config: Options, studied: Described) -> EDMNetwork:
    """The second network, for images of the shape and the classes of the network studied."""
    side, _, channels = studied.shape
    classes = studied.unet.label_dim
    own = replace(config.second.network, conditional=classes > 0)
    return build_network(own, side, channels, classes, augment=False)


def _trained(network: EDMNetwork, second: SecondConfig, seed: int, images: ImageSet) -> dict[str, np.ndarray]:
    """Averaged parameters at the checkpoints, a leaf an entry."""
    from dgu.training import initial_state, train_steps
    from dgu.training.loop import updates_together

    own = replace(second.training, seed=seed_of(seeded(seed), "second", second.training.seed))
    found: dict[str, np.ndarray] = {}
    state, together = initial_state(network, own), updates_together(own, network.shape)
    labels = images.labels if network.unet.label_dim else None
    with Progress("second network", total=own.total_steps, unit="updates") as bar:
        for latest, info in train_steps(
            network, state, images.images, labels, own, together=together, stops=second.updates
        ):
            bar.update(info["updates"])
            if info["step"] in second.updates:
                place = second.updates.index(info["step"])
                for leaf, values in enumerate(jax.tree.leaves(jax.device_get(latest["ema"]))):
                    found[f"{place}-{leaf}"] = values
    return found


@once_a_run
def _sets(config: Options) -> tuple[ImageSet, ImageSet]:
    """Training and held-out images, read once a run."""
    if config.data == "auto":
        splits = {"fashion-mnist": ("train", "test"), BUNDLED_IMAGES: ("test",)}
        source, found = auto_images(
            "data", lambda source: [load_images("data", source, split, config.size) for split in splits[source]]
        )
        return (found[0], found[1]) if source != BUNDLED_IMAGES else _halves(found[0])
    train = load_images("data", config.data, config.split, config.size)
    other = config.heldout_data or config.data
    if (other, config.heldout_split) == (config.data, config.split):
        return _halves(train)
    return train, load_images("heldout_data", other, config.heldout_split, config.size)


def _halves(found: ImageSet) -> tuple[ImageSet, ImageSet]:
    """Every other image of each class."""
    number = np.zeros(len(found), int)
    for label in range(len(found.class_names)):
        own = np.flatnonzero(found.labels == label)
        number[own] = np.arange(len(own))
    return tuple(
        replace(found, images=found.images[number % 2 == half], labels=found.labels[number % 2 == half])
        for half in (0, 1)
    )  # type: ignore[return-value]


@dataclass(frozen=True)
class Plan:
    """What a dry run knows: the options and the sizes of the network."""

    config: Options

    @cached_property
    def network(self) -> Described:
        """The network of the checkpoint."""
        return planned(self.config.checkpoint, self.config.size)


def gather(config: Options, directory: RunDirectory) -> Subject:
    """The subject, of which nothing is loaded yet."""
    return Subject(config)


def describe(config: Options, subject: Subject, directory: RunDirectory) -> Materials:
    """The network, its images, and the second network."""
    train, held = subject.sets
    second = subject.second
    each = "of each class" if subject.conditional else "of all together"
    said = (
        f"{network_in_words(config.checkpoint, subject.pretrained)} Images: {subject.about} ({train.split}); closed "
        f"forms are made of the first {subject.count:,} training images {each}. The second network, trained in the run "
        f"on the same training images, has {second.parameter_count:,} parameters."
    )
    rows = {
        "training images": in_turn(np.stack([group.train[:SHOWN] for group in subject.groups(0)])),
        "held-out images": held.images,
        "samples": directory.stored("samples/network").get("images", np.empty(0)),
    }
    return Materials(said, in_pictures(rows))


def plan(config: Options) -> tuple[Plan, list[Cost]]:
    """The network for a dry run, and what the training of the second one costs."""
    found = Plan(config)
    network = second_network(config, found.network)
    return found, [training_cost(network, "second network", config.second.training, 1, jax.device_count())]
