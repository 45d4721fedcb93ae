"""Networks trained on subsets of one set of images, and what is measured of each of them on its way.

One convolutional network after another: batched over their parameters they train many times slower on CPUs. All that differ
in their images and seed only share their compiled programs. Every checkpoint is a network file that ``--checkpoint`` takes.
"""

import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dgu import analysis, parallel
from dgu.checkpoint import TrainingCheckpoints
from dgu.data.pixels import area_mean
from dgu.errors import InputError, require
from dgu.keys import stream
from dgu.models import EDMNetwork, GaussianDenoiser, load_checkpoint, save_network
from dgu.samplers import karras_sigmas, sample
from dgu.training import TrainingConfig, initial_state, train_steps
from dgu.training.loop import check_batch
from experiments.harness.pool import BUNDLED_IMAGES, load_images
from experiments.harness.progress import Progress
from experiments.harness.rundir import RunDirectory
from experiments.train import NetworkConfig, build_network

#: Over these levels the paper's intermediate regime is averaged.
MIDDLE = (0.116, 20.0)


def identity(x: Any, sigma: Any) -> Any:
    """The denoiser that leaves its input alone."""
    return x


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
            duration_kimg=64.0, batch_size=32, learning_rate=2e-3, rampup_kimg=1.0, ema_halflife_kimg=50.0
        )
    )
    """Its optimisation; each arm has a seed of its own, made of this one, the study's and its number."""
    checkpoints: tuple[float, ...] = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2)
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
        require(
            not self.network.conditional, "networks.network.conditional", True, "False: the networks have no classes"
        )
        require(
            all(0 < share < 1 for share in self.checkpoints),
            "networks.checkpoints",
            self.checkpoints,
            "above 0 and below 1",
        )
        require(self.pad >= 0, "networks.pad", self.pad, "0 or more")
        require(self.checkpoint_minutes >= 0, "networks.checkpoint_minutes", self.checkpoint_minutes, "0 or more")
        for name in ("held_out", "pairs", "samples", "steps", "levels", "seeds"):
            require(getattr(self, name) >= 2, f"networks.{name}", getattr(self, name), "2 or more")
        require(self.batch_size >= 1, "networks.batch_size", self.batch_size, "1 or more")
        require(
            self.training.augment_probability == 0,
            "networks.training.augment_probability",
            self.training.augment_probability,
            "0",
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


def gather(config: Config) -> Images:
    """The images of a ``Config``; whatever can be refused is refused here."""

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
        except InputError as error:
            if "was not found" not in str(error):
                raise
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
    check_batch(config.training, parallel.data_mesh())
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
class Measured:
    """A checkpoint of an arm.

    Attributes:
        seen: images seen in training.
        sigmas: ``(L,)`` noise levels.
        cosine, nmse: linearity scores (11) and (12) at equal weights, ``(L, pairs)``.
        own, whole: root-mean-square distance to the Gaussian denoiser of the arm's images and of all, ``(L, held out)``.
        moved: that of the denoised image to its input.
        loss: denoising loss of held-out images at three noise levels, ``(held out, 3)``.
        samples: ``(n, H, W, C)``, number i from the same noise in all arms.
        distance, nearest: to the arm's nearest training image (Euclidean), and its row among the arm's images, ``(n,)``.
    """

    seen: int
    sigmas: np.ndarray
    cosine: np.ndarray
    nmse: np.ndarray
    own: np.ndarray
    whole: np.ndarray
    moved: np.ndarray
    loss: np.ndarray
    samples: np.ndarray
    distance: np.ndarray
    nearest: np.ndarray

    @property
    def least_cosine(self) -> float:
        """The minimum over noise levels of the mean cosine score."""
        return float(self.cosine.mean(axis=1).min())

    @property
    def score(self) -> analysis.Estimate:
        """The generalisation score (14) of the samples."""
        return analysis.relative_distance(self.samples.reshape(len(self.samples), -1), self.distance)

    def middle(self, of: str = "own") -> float:
        """Mean distance over the intermediate levels (of all levels where none is)."""
        inside = (self.sigmas >= MIDDLE[0]) & (self.sigmas <= MIDDLE[1])
        return float(getattr(self, of)[inside if inside.any() else slice(None)].mean())


@dataclass(frozen=True, eq=False)
class Trainer:
    """Trains and measures arms in a run directory; what is there is read."""

    config: Config
    images: Images
    directory: RunDirectory
    seed: int

    def arm(self, size: int, seed: int, width: int | None = None, family: str | None = None) -> Arm:
        """An arm of the configured network, or with another width or family."""
        return Arm(size, width or self.config.network.model_channels, seed, family or self.config.family)

    def network(self, arm: Arm) -> EDMNetwork:
        """The network of an arm."""
        architecture, preconditioning = arm.family.split("-")
        chosen: Any = replace(
            self.config.network, architecture=architecture, preconditioning=preconditioning, model_channels=arm.width
        )
        return build_network(chosen, self.images.train.shape[1], self.images.train.shape[3], 0, augment=False)

    def training(self, arm: Arm) -> TrainingConfig:
        """Its optimisation. Networks of another preconditioning than the configured one have the loss that goes with it."""
        base, preconditioning = self.config.training, arm.family.split("-")[1]
        seed = int(np.random.SeedSequence([base.seed, self.seed, arm.seed]).generate_state(1)[0])
        own: Any = base.loss if preconditioning == self.config.network.preconditioning else preconditioning
        return replace(base, seed=seed, loss=own)

    def subset(self, arm: Arm) -> np.ndarray:
        """Its images: nested over sizes; those of different seeds are disjoint up to a size of one part in ``seeds`` of all."""
        count = len(self.images.train)
        order = np.random.default_rng([self.seed, 1]).permutation(count)
        start = arm.seed * (count // self.config.seeds)
        return self.images.train[order[(start + np.arange(arm.size)) % count]]

    @cached_property
    def whole(self) -> GaussianDenoiser:
        """The Gaussian denoiser of all images."""
        return GaussianDenoiser.fit(self.images.train)

    def gaussian(self, arm: Arm) -> GaussianDenoiser:
        """The Gaussian denoiser of the arm's images, of the same shape for every size: further directions have variance 0."""
        found = GaussianDenoiser.fit(self.subset(arm))
        more = max(0, self.whole.basis.shape[1] - found.basis.shape[1])
        basis, variances = np.pad(found.basis, ((0, 0), (0, more))), np.pad(found.variances, (0, more))
        return GaussianDenoiser(np.asarray(found.mean), basis, variances)

    def sigmas(self, arm: Arm, count: int | None = None) -> np.ndarray:
        """Noise levels and the last 0, from 80 to 0.002 as far as the network goes."""
        known = self.network(arm).preconditioning
        return karras_sigmas(count or self.config.levels, max(0.002, known.sigma_min), min(80.0, known.sigma_max))

    def key(self, name: str) -> Any:
        """Of what all arms share: the noise of held-out images, and that samples start from."""
        return stream(jax.random.key(self.seed), "networks", name)

    def draw(self, denoiser: Any, arm: Arm) -> np.ndarray:
        """Samples from the noise that all arms share, addressed by their number alone."""
        config = self.config
        return sample(
            denoiser, self.key("samples"), np.arange(config.samples), self.sigmas(arm, config.steps),
            shape=self.images.train.shape[1:], batch_size=min(config.batch_size, config.samples),
        )  # fmt: skip

    def load(self, arm: Arm, step: int | None = None) -> Any:
        """The denoiser of a checkpoint, by default the last."""
        return load_checkpoint(self._file(arm, step or self.config.marks[-1])).denoiser

    def measured(self, arms: Iterable[Arm], name: str) -> dict[Arm, list[Measured]]:
        """The checkpoints of all arms; those not yet trained or measured are, under one progress bar."""
        config = self.config
        arms = list(dict.fromkeys(arms))
        marks, per_step = config.marks, 3 * config.training.batch_size
        work = {}
        for arm in arms:
            left = sum(not self._stage(arm, step).exists() for step in marks)
            trained = all(self._file(arm, step).exists() for step in marks)
            work[arm] = left * config.evaluations + (0 if trained else marks[-1] * per_step)
        found = {}
        with Progress(
            f"{name}: {sum(left > 0 for left in work.values())} networks", sum(work.values()), "evaluations"
        ) as bar:
            for arm in arms:
                found[arm] = []
                self._train(arm, bar)
                for step in marks:
                    new = not self._stage(arm, step).exists()
                    stored = self.directory.stage(
                        f"networks/{arm.name}/{step}", lambda arm=arm, step=step: self._measure(arm, step)
                    )
                    bar.update(config.evaluations if new else 0)
                    found[arm].append(Measured(step * config.training.batch_size, self.sigmas(arm)[:-1], **stored))
        return found

    def _file(self, arm: Arm, step: int) -> Path:
        return self.directory.path / "networks" / arm.name / f"{step}.npz"

    def _stage(self, arm: Arm, step: int) -> Path:
        return self.directory.path / "stages" / "networks" / arm.name / f"{step}.npz"

    def _train(self, arm: Arm, bar: Progress) -> None:
        """Train the arm up to its end, from where it was left."""
        config, marks = self.config, self.config.marks
        if all(self._file(arm, step).exists() for step in marks):
            return
        network, training, images = self.network(arm), self.training(arm), self.subset(arm)
        folder = self.directory.path / "training" / arm.name
        state = initial_state(network, training)
        with TrainingCheckpoints(folder, keep=1) as checkpoints:
            if checkpoints.latest_step() is not None:
                state = checkpoints.load(state)
            bar.update(3 * training.batch_size * int(state["step"]))
            saved, losses = time.monotonic(), []
            for latest, info in train_steps(network, state, images, None, training):
                step = info["step"]
                losses.append(info["loss"])
                losses[max(0, len(losses) - 2)].block_until_ready()  # One step stays in flight.
                bar.update(3 * training.batch_size)
                if step in marks:
                    loss = float(np.mean(jax.device_get(losses)))
                    if not np.isfinite(loss):
                        raise FloatingPointError(f"arm {arm.name}: the training loss is {loss} up to step {step}")
                    losses = []
                    about = {
                        "images_seen": step * training.batch_size,
                        "loss": loss,
                        "images": arm.size,
                        "seed": arm.seed,
                    }
                    if parallel.is_lead():
                        save_network(self._file(arm, step), network, latest["ema"], about)
                # After the network of this step, so that where a state is, the networks before it are.
                if step < marks[-1] and time.monotonic() - saved >= 60 * config.checkpoint_minutes:
                    checkpoints.save(step, latest)
                    saved = time.monotonic()
        if parallel.is_lead():
            shutil.rmtree(folder, ignore_errors=True)

    def _measure(self, arm: Arm, step: int) -> dict[str, np.ndarray]:
        return self.measure(self.load(arm, step), arm)

    def measure(self, denoiser: Any, arm: Arm) -> dict[str, np.ndarray]:
        """What is kept of a checkpoint, or of any other denoiser in its place: the arrays of ``Measured``."""
        config, held = self.config, self.images.held
        sigmas = self.sigmas(arm)[:-1]
        linear = analysis.linearity(
            denoiser, held, sigmas, self.key("linearity"), pairs=config.pairs, batch_size=config.batch_size
        )
        models = {
            "network": denoiser,
            "own": self.gaussian(arm),
            "whole": self.whole,
            "input": jax.tree_util.Partial(identity),
        }
        apart = analysis.score_distances(
            models,
            held[: config.held_out],
            sigmas,
            self.key("distances"),
            inputs="held-out",
            batch_size=config.batch_size,
        )
        scale = 1 / np.sqrt(apart.dimension)
        samples, images = self.draw(denoiser, arm), self.subset(arm)
        distance, nearest = analysis.k_nearest(samples.reshape(len(samples), -1), images.reshape(len(images), -1))
        levels = np.clip((0.1, 0.3, 1.0), sigmas[-1], sigmas[0])
        return {
            "cosine": np.abs(linear.products / (linear.given * linear.target))[:, 0],
            "nmse": (linear.differences / linear.given)[:, 0],
            "own": apart.differences[:, 0, 1] * scale,
            "whole": apart.differences[:, 0, 2] * scale,
            "moved": apart.differences[:, 0, 3] * scale,
            "loss": analysis.denoising_loss(denoiser, held[: config.held_out], self.key("loss"), sigmas=levels.tolist(), draws=1),
            "samples": samples,
            "distance": distance[:, 0],
            "nearest": nearest[:, 0],
        }  # fmt: skip
