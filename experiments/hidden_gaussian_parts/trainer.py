"""Networks trained on subsets of one set of images, one after another, and what is measured of each on its way.

One convolutional network after another: batched over their parameters they train many times slower on CPUs. All that differ
in their images and seed only share their compiled programs. Every checkpoint is a network file that ``--checkpoint`` takes.
"""

import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dgu import analysis
from dgu.core import parallel
from dgu.core.checkpoint import TrainingCheckpoints
from dgu.core.keys import seeded, stream
from dgu.models import GaussianDenoiser, load_checkpoint, save_network
from dgu.samplers import sample
from dgu.training import TrainingConfig, initial_state, train_steps
from experiments.hidden_gaussian_parts.networks import Arm, Design
from experiments.study.progress import Progress
from experiments.study.run_directory import RunDirectory

#: Over these levels the paper's intermediate regime is averaged.
MIDDLE = (0.116, 20.0)


def intermediate(sigmas: np.ndarray) -> np.ndarray:
    """Which levels are in the intermediate regime; all where none is."""
    inside = (sigmas >= MIDDLE[0]) & (sigmas <= MIDDLE[1])
    return inside if inside.any() else np.ones(len(sigmas), bool)


def identity(x: Any, sigma: Any) -> Any:
    """The denoiser that leaves its input alone."""
    return x


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
        """Mean distance over the intermediate levels."""
        return float(getattr(self, of)[intermediate(self.sigmas)].mean())

    @property
    def peak(self) -> float:
        """The largest distance to the Gaussian denoiser of the arm's images among the intermediate levels, as it is read off a
        curve over noise levels."""
        return float(self.own[intermediate(self.sigmas)].mean(axis=1).max())


@dataclass(frozen=True, eq=False)
class Trainer(Design):
    """Trains and measures arms in a run directory; what is there is read."""

    directory: RunDirectory
    seed: int

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

    def key(self, name: str) -> Any:
        """Of what all arms share: the noise of held-out images, and that samples start from."""
        return stream(seeded(self.seed), "networks", name)

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
        arms, marks, per_step = list(dict.fromkeys(arms)), config.marks, 3 * config.training.batch_size
        # Only what is left counts, or the time that remains would be guessed too low.
        work = {
            arm: sum(not self._stage(arm, step).exists() for step in marks) * config.evaluations
            + (marks[-1] - self._done(arm)) * per_step
            for arm in arms
        }
        found: dict[Arm, list[Measured]] = {}
        title = f"{name}: {sum(left > 0 for left in work.values())} networks"
        with Progress(title, sum(work.values()), "evaluations") as bar:
            for arm in arms:
                self._train(arm, bar)
                for step in marks:
                    new = not self._stage(arm, step).exists()
                    stored = self.directory.stage(f"networks/{arm.name}/{step}", partial(self._measure, arm, step))
                    bar.update(config.evaluations if new else 0)
                    one = Measured(step * config.training.batch_size, self.sigmas(arm)[:-1], **stored)
                    found.setdefault(arm, []).append(one)
        return found

    def _done(self, arm: Arm) -> int:
        """Updates of the arm that need not be made again."""
        if all(self._file(arm, step).exists() for step in self.config.marks):
            return self.config.marks[-1]
        if not self._folder(arm).exists():
            return 0
        with TrainingCheckpoints(self._folder(arm), keep=1) as checkpoints:
            return checkpoints.latest_step() or 0

    def _folder(self, arm: Arm) -> Path:
        return self.directory.path / "training" / arm.name

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
        folder = self._folder(arm)
        state = initial_state(network, training)
        with TrainingCheckpoints(folder, keep=1) as checkpoints:
            if checkpoints.latest_step() is not None:
                state = checkpoints.load(state)
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
                    # Not the loss: a training that was killed knows it from its restart on only.
                    about = {"images_seen": step * training.batch_size, "images": arm.size, "seed": arm.seed}
                    if parallel.is_lead():
                        self.directory.check_there()
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
