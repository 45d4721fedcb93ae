"""The network's best linear map at each noise level, found exactly and by Adam, which several parts compare."""

from dataclasses import dataclass, replace

import numpy as np

from dgu import analysis, training
from dgu.core.errors import require
from dgu.core.keys import seeded, stream
from dgu.core.typing import Key
from dgu.models import LinearDenoiser
from experiments.hidden_gaussian.subject import Subject
from experiments.study import Options, Run, option
from experiments.study.progress import Progress

#: Arrays by name, as a stage stores them.
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Config(Options, prefix="distillation"):
    """The best linear map at each noise level."""

    images: int = option(400, ge=2)
    """Images that the network is distilled on, exactly and by Adam."""
    draws: int = option(16, ge=1)
    """Noisy versions of each image, for the exact distillation."""
    groups: int = option(8, ge=2)
    """Groups of the images (and, for the identity, of the draws) that are left out in turn, for the intervals."""
    adam_epochs: int = option(25, ge=1)
    """Passes of Adam over the images, each with new noise."""
    adam_batch: int = option(32, ge=1)
    """Images in a step of Adam; the authors' is 256."""
    adam_rate: float | None = option(None, gt=0.0)
    """One learning rate for all levels; None takes the authors' table."""
    vectors: int = option(100, ge=1)
    """Singular vectors that are compared, fewer if images have fewer pixels."""
    identity_points: int = option(200, ge=2)
    """Points of the multi-delta denoiser that is distilled on its own data."""
    identity_draws: int = option(304, ge=1)
    """Noisy versions of each of these points."""
    batch_size: int = option(256, ge=1)
    """Images computed at once."""

    def check(self) -> None:
        """Every group has an image and a draw."""
        fewest = min(self.images, self.identity_draws)
        require(self.groups <= fewest, "distillation.groups", self.groups, f"at most {fewest}, the images or draws")


def maps(config: Config, subject: Subject, run: Run) -> dict[str, Arrays]:
    """The maps found exactly (``"exact"``) and by Adam (``"adam"``), with their measures.

    They are stored with the part ``distillation``, whichever part asks for them.
    """
    own = replace(run, part="distillation")
    adam = own.stage("adam", _adam, config, subject, stream(seeded(run.seed), "adam"))
    return {"exact": own.stage("exact", _exact, config, subject, adam, own.key), "adam": adam}


def linear_denoiser(stored: Arrays, subject: Subject) -> LinearDenoiser:
    """The denoiser of stored maps."""
    return LinearDenoiser(subject.sigmas, stored["weights"], stored["biases"])


def most_vectors(config: Config, subject: Subject) -> int:
    """Singular vectors to look at: those asked for, or as many as an image has pixels."""
    return min(config.vectors, int(np.prod(subject.shape)))


def compared(count: int) -> int:
    """How many of ``count`` singular vectors span the space that is compared.

    Vectors whose values are nearly 0 point anywhere (the paper's footnote 4), so only the leading ones are compared.
    """
    return max(3, count // 10)


def _measured(config: Config, subject: Subject, found: LinearDenoiser) -> Arrays:
    """Distance to the Gaussian's maps, asymmetry, and overlap of leading singular vectors with the components."""
    kept = compared(min(most_vectors(config, subject), subject.gaussian.basis.shape[1]))
    spectra = analysis.map_spectra(found, kept)
    reference = LinearDenoiser.of_gaussian(subject.gaussian, found.sigmas)
    overlap = analysis.subspace_overlap(spectra.left, subject.components(kept)["basis"])
    return {"nmse": analysis.weight_nmse(found, reference), "asymmetry": spectra.asymmetry, "overlap": overlap}


def _exact(config: Config, subject: Subject, adam: Arrays, key: Key) -> Arrays:
    images = subject.some("distillation.images", config.images)
    trained = linear_denoiser(adam, subject)
    _ = subject.gaussian  # Fitted here, before the levels, which are done at the same time, ask for it.

    def measures(found: LinearDenoiser, theirs: LinearDenoiser) -> Arrays:
        return _measured(config, subject, found) | {"to_adam": analysis.weight_nmse(theirs, found)}

    def without(level: int, weight: np.ndarray) -> Arrays:
        at = subject.sigmas[level : level + 1]
        theirs = LinearDenoiser(at, trained.weights[level : level + 1], trained.biases[level : level + 1])
        return measures(LinearDenoiser(at, weight[None], np.zeros((1, len(weight)))), theirs)

    with Progress("exact distillation", total=len(subject.sigmas), unit="levels") as bar:
        found = training.distill_exactly(
            subject.denoiser,
            images,
            subject.sigmas,
            key,
            draws=config.draws,
            groups=min(config.groups, len(images)),
            observe=without,
            batch_size=config.batch_size,
            progress=lambda *_: bar.update(),
        )
    whole = measures(found.denoiser, trained)
    # (levels, groups) each: for the intervals.
    left_out = {
        f"{name}_without": np.array([[float(one[name][0]) for one in level] for level in found.observed])
        for name in whole
    }
    maps = {"weights": found.denoiser.weights, "biases": found.denoiser.biases, "ridges": found.ridges}
    return {**maps, **whole, **left_out}


def _adam(config: Config, subject: Subject, key: Key) -> Arrays:
    images = subject.some("distillation.images", config.images)
    reference = LinearDenoiser.of_gaussian(subject.gaussian, subject.sigmas)
    rates = None if config.adam_rate is None else np.full(len(subject.sigmas), config.adam_rate)
    half = max(1, config.adam_epochs // 2)
    halfway: list[LinearDenoiser] = []

    def observe(epoch: int, now: LinearDenoiser) -> tuple[np.ndarray, np.ndarray]:
        if epoch <= half:
            halfway[:] = [now]
        return analysis.weight_nmse(now, reference), analysis.asymmetry(now)

    with Progress("distillation by Adam", total=config.adam_epochs, unit="epochs") as bar:
        found = training.distill_by_adam(
            subject.denoiser,
            images,
            subject.sigmas,
            key,
            epochs=config.adam_epochs,
            batch_size=config.adam_batch,
            learning_rates=rates,
            snapshot_every=max(1, config.adam_epochs // 20),
            observe=observe,
            progress=lambda *_: bar.update(),
        )
    epochs, observed = zip(*found.observed)
    course, asymmetry = zip(*observed)
    return {
        "weights": found.denoiser.weights,
        "biases": found.denoiser.biases,
        "epochs": np.array(epochs),
        "course": np.stack(course),
        "asymmetry_course": np.stack(asymmetry),
        "losses": found.losses,
        "moved": analysis.weight_nmse(halfway[0], found.denoiser),
        **_measured(config, subject, found.denoiser),
    }
