"""Training of arms in a run directory, and what is measured of each during its training.

Networks are trained side by side, each on a device of its own; those that differ in their images and seed alone share
their compiled program. Every checkpoint is a network file that ``--checkpoint`` takes.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from dgu import analysis, training
from dgu.core import parallel
from dgu.core.typing import Denoiser
from dgu.models import load_checkpoint, save_network
from experiments.hidden_gaussian.arms import Arm, Design
from experiments.study import RunDirectory
from experiments.study.progress import Progress

#: The paper's intermediate noise levels, over which distances are averaged.
MIDDLE = (0.116, 20.0)


def intermediate(sigmas: np.ndarray) -> np.ndarray:
    """Which levels are intermediate; all if none is."""
    inside = (sigmas >= MIDDLE[0]) & (sigmas <= MIDDLE[1])
    return inside if inside.any() else np.ones(len(sigmas), bool)


def identity(x: Any, sigma: Any) -> Any:
    """The denoiser that returns its input."""
    return x


@dataclass(frozen=True, eq=False)
class Measured:
    """A checkpoint of an arm.

    Attributes:
        seen: images seen in training.
        sigmas: ``(L,)`` noise levels of the distances.
        straight: ``(M,)`` noise levels of the linearity scores.
        cosine, nmse: linearity scores (11) and (12) at equal weights, ``(M, pairs)``.
        own, whole: root-mean-square distance to the Gaussian of the arm's images and of all, ``(L, held out)``.
        moved: the norm of the difference of the denoised image to its noisy input, relative to the input's.
        along: cosine of the angle between the denoised image and its noisy input.
        loss: denoising loss of held-out images at three noise levels, ``(held out, 3)``.
        samples: ``(n, H, W, C)``, number i from the same initial noise in all arms.
        path: denoised states on the way to the first sample, ``(steps, H, W, C)``.
        distance, nearest: Euclidean distance of each sample to the nearest of the arm's images, and its row, ``(n,)``.
    """

    seen: int
    sigmas: np.ndarray
    straight: np.ndarray
    cosine: np.ndarray
    nmse: np.ndarray
    own: np.ndarray
    whole: np.ndarray
    moved: np.ndarray
    along: np.ndarray
    loss: np.ndarray
    samples: np.ndarray
    path: np.ndarray
    distance: np.ndarray
    nearest: np.ndarray

    @cached_property
    def summary(self) -> dict[str, float]:
        """One number for each quantity.

        ``least_cosine`` and ``largest_nmse`` are the extremes over noise levels of the mean scores; ``own`` and
        ``whole`` mean distances over the intermediate levels, ``peak`` the largest distance to the Gaussian of the
        arm's images among these; ``score`` the generalisation score (14) of the samples; ``loss`` the mean loss.
        """
        middle = intermediate(self.sigmas)
        score = analysis.relative_distance(self.samples.reshape(len(self.samples), -1), self.distance)
        return {
            "least_cosine": float(self.cosine.mean(axis=1).min()),
            "largest_nmse": float(self.nmse.mean(axis=1).max()),
            "own": float(self.own[middle].mean()),
            "whole": float(self.whole[middle].mean()),
            "peak": float(self.own[middle].mean(axis=1).max()),
            "score": float(score.value),
            "loss": float(self.loss.mean()),
        }


def summaries(courses: Sequence[Sequence[Measured]], quantity: str) -> np.ndarray:
    """One quantity of ``Measured.summary``, ``(seeds, checkpoints)``."""
    return np.array([[one.summary[quantity] for one in course] for course in courses])


def train_and_measure(
    design: Design, directory: RunDirectory, arms: Iterable[Arm], name: str
) -> dict[Arm, list[Measured]]:
    """The checkpoints of all arms; arms that are not yet trained or measured are so now, under one progress bar."""
    config, arms = design.config, list(dict.fromkeys(arms))
    marks, batch = config.marks, config.training.batch_size

    def updates_left(arm: Arm) -> int:
        return 0 if _trained(design, directory, arm) else marks[-1] - training.updates_done(_states(directory, arm))

    # Only what is left counts, or the remaining time would be estimated too low. A gradient takes three evaluations.
    work = {
        arm: sum(not _stage(directory, arm, step).exists() for step in marks) * config.evaluations
        + 3 * batch * updates_left(arm)
        for arm in arms
    }
    found: dict[Arm, list[Measured]] = {}
    title = f"{name}: {sum(left > 0 for left in work.values())} networks"
    with Progress(title, sum(work.values()), "evaluations") as bar:
        if not directory.only_reports:
            trainings = (partial(train, design, directory, arm) for arm in arms)
            for updates in training.in_turn(trainings, training.own_meshes()):
                bar.update(3 * batch * updates)
        for arm in arms:
            found[arm] = []
            for step in marks:

                def compute(arm: Arm = arm, step: int = step) -> dict[str, np.ndarray]:
                    return measure(design, load(design, directory, arm, step), arm)

                new = not _stage(directory, arm, step).exists()
                stored = directory.stage(f"networks/{arm.name}/{step}", compute)
                bar.update(config.evaluations if new else 0)
                found[arm].append(Measured(step * batch, **design.levels(arm), **stored))
    return found


def train(design: Design, directory: RunDirectory, arm: Arm, mesh: Mesh) -> Iterator[int]:
    """Train an arm up to its end, from where it was left; each mark leaves a network file. Numbers of updates."""
    if _trained(design, directory, arm):
        return
    config, network = design.config, design.network(arm)
    batch = config.training.batch_size

    def keep(step: int, params: Any) -> None:
        if parallel.is_lead():
            directory.check_there()
            # Not the loss: a training that was killed knows it from its restart on only.
            about = {"images_seen": step * batch, "images": arm.size, "seed": arm.seed}
            save_network(_file(directory, arm, step), network, params, about)

    try:
        yield from training.train_with_snapshots(
            network,
            design.subset(arm),
            design.training(arm),
            mesh,
            marks=config.marks,
            keep=keep,
            checkpoints=_states(directory, arm),
            minutes=config.checkpoint_minutes,
        )
    except FloatingPointError as error:
        raise FloatingPointError(f"arm {arm.name}: {error}") from error


def load(design: Design, directory: RunDirectory, arm: Arm, step: int | None = None) -> Denoiser:
    """The denoiser of a checkpoint, by default the last."""
    denoiser: Denoiser = load_checkpoint(_file(directory, arm, step or design.config.marks[-1])).denoiser
    return denoiser


def measure(design: Design, denoiser: Denoiser, arm: Arm) -> dict[str, np.ndarray]:
    """What is kept of a checkpoint, or of any other denoiser in its place: the arrays of ``Measured``."""
    config, levels = design.config, design.levels(arm)
    sigmas, held, batch = levels["sigmas"], design.images.held, config.batch_size
    linear = analysis.linearity(
        denoiser, held, levels["straight"], design.key("linearity"), pairs=config.pairs, batch_size=batch
    )
    models: dict[str, Denoiser] = {
        "network": denoiser,
        "own": design.gaussian(arm),
        "whole": design.whole,
        "input": jax.tree_util.Partial(identity),
    }
    held = held[: config.held_out]
    apart = analysis.score_distances(models, held, sigmas, design.key("distances"), inputs="held-out", batch_size=batch)
    (samples, paths), images = design.draw(denoiser, arm), design.subset(arm)
    distance, nearest = analysis.k_nearest(samples.reshape(len(samples), -1), images.reshape(len(images), -1))
    at = np.clip((0.1, 0.3, 1.0), sigmas[-1], sigmas[0]).tolist()
    return {
        "cosine": linear.each_cosine()[:, 0],
        "nmse": linear.each_nmse()[:, 0],
        **{name: apart.each_image("network", name) for name in ("own", "whole")},
        "moved": apart.each_nmse("input", "network"),
        "along": apart.each_cosine("input", "network"),
        "loss": analysis.denoising_loss(denoiser, held, design.key("loss"), sigmas=at, draws=1),
        "samples": samples,
        "path": paths[0],
        "distance": distance[:, 0],
        "nearest": nearest[:, 0],
    }


def _trained(design: Design, directory: RunDirectory, arm: Arm) -> bool:
    """Whether all network files of the arm are there."""
    return all(_file(directory, arm, step).exists() for step in design.config.marks)


def _states(directory: RunDirectory, arm: Arm) -> Path:
    """The folder of the states from which a killed training goes on."""
    return directory.path / "training" / arm.name


def _file(directory: RunDirectory, arm: Arm, step: int) -> Path:
    return directory.path / "networks" / arm.name / f"{step}.npz"


def _stage(directory: RunDirectory, arm: Arm, step: int) -> Path:
    return directory.path / "stages" / "networks" / arm.name / f"{step}.npz"
