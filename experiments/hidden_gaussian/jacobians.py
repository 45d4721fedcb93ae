"""The network's Jacobian along sampling paths: its singular vectors beside principal components (Figs 28 and 30)."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from dgu import analysis, plots
from dgu.core.errors import require
from dgu.core.typing import Key
from experiments import study
from experiments.decoding import pictures
from experiments.hidden_gaussian import by_level, singular_vectors
from experiments.hidden_gaussian.subject import PAPER, Plan, Subject
from experiments.study import Claim, Figure, Findings, Noted, Run, at_least, option
from experiments.study.costs import Probe
from experiments.study.memory import held_bytes, jacobians
from experiments.study.progress import Progress

FIGURES = (
    Figure(
        "jacobian_correlation",
        "Correlation of the left singular vectors of the network's Jacobian, along sampling paths, with the "
        "principal components (Fig 28).",
        "fig-28",
    ),
    Figure(
        "jacobian_overlap",
        "Correlation of the first three left singular vectors with the first three principal components, overlap of "
        "the spans of all of them, and singular values. Bands: the range over trajectories.",
        "fig-28",
    ),
    Figure(
        "jacobian_vectors",
        "The left singular vectors of one trajectory as images, each stretched to its own range (Fig 28).",
        "fig-28",
    ),
    Figure(
        "jacobian_perturbations",
        "Images that follow when a state is moved along its singular vectors, by the length given in units of the "
        "noise level (Fig 30).",
        "fig-30",
    ),
)


@dataclass(frozen=True)
class Config(study.Options, prefix="jacobians"):
    """Singular vectors of the denoiser's Jacobian."""

    trajectories: int = option(5, ge=2)
    """Samples at whose states the Jacobian is taken."""
    vectors: int = option(10, ge=3)
    """Leading singular vectors."""
    components: int = option(20, ge=3)
    """Principal components that they are compared with, fewer if the training images span fewer."""
    tolerance: float = option(1e-3, gt=0.0, lt=1.0)
    """Largest residual of a singular triplet, relative to the largest singular value."""
    max_rounds: int = option(12, ge=1)
    """Rounds of the iteration at most."""
    perturbed: tuple[float, ...] = option((22.79, 1.979, 0.002), gt=0.0)
    """Noise levels at which states are perturbed (the paper's three)."""
    lengths: tuple[float, ...] = option((2.0, 5.0, 10.0), gt=0.0)
    """Lengths of the perturbations, in units of the noise level."""
    directions: int = option(2, ge=1)
    """Singular vectors along which states are perturbed."""
    batch_size: int = option(8, ge=1)
    """States computed at once."""

    def check(self) -> None:
        """There are levels, lengths and vectors for the perturbations."""
        require(len(self.perturbed) > 0, "jacobians.perturbed", self.perturbed, "one or more positive levels")
        require(len(self.lengths) > 0, "jacobians.lengths", self.lengths, "one or more, positive")
        fits = 1 <= self.directions <= self.vectors
        require(fits, "jacobians.directions", self.directions, f"from 1 to jacobians.vectors = {self.vectors}")


PRESETS = {
    "smoke": Config(
        trajectories=2, vectors=3, components=6, max_rounds=2, perturbed=(2.0,), lengths=(5.0,), directions=1
    ),
    "default": Config(),
    "paper": Config(trajectories=16, vectors=20, components=100, batch_size=4),
}

CLAIMS = (
    Claim(
        "jacobian-high-noise",
        "At the highest noise level the three leading left singular vectors of the network's Jacobian are the first "
        "three principal components of the training images: each vector's |cosine| with the component of its rank is "
        f"at least {singular_vectors.ALIKE:g} (value: the least of the three, mean over sampling trajectories).",
        at_least(singular_vectors.ALIKE),
        source="Fig 28",
        unit="|cosine|",
        one_network=True,
    ),
    Claim(
        "jacobian-adaptive",
        "At the noise level nearest to 1 the three leading left singular vectors of the network's Jacobian are adapted "
        "to the image: their |cosine| with the principal components of their rank is lower than at the highest noise "
        "level (value: the fall, mean over vectors and sampling trajectories).",
        at_least(0.0),
        source="Fig 28",
        unit="|cosine|",
        one_network=True,
    ),
)


@dataclass(frozen=True)
class Vectors:
    """What was measured.

    Attributes:
        triplets: singular triplets with the states, at the levels of the study and then at those of the perturbations.
        perturbed: images that follow from perturbed states, ``(levels, directions, lengths, *event)``.
        basis: the principal components, ``(pixels, components)``.
    """

    triplets: dict[str, np.ndarray]
    perturbed: np.ndarray
    basis: np.ndarray


def measure(config: Config, subject: Subject, run: Run) -> Vectors:
    """Triplets at the states of a few trajectories, at all levels; and what perturbing the states along them does."""
    triplets = run.stage("triplets", _triplets, config, subject, run.seed, run.key)
    moved = run.stage("perturbed", _perturbed, config, subject, triplets)
    return Vectors(triplets, moved["images"], run.stage("components", subject.components, config.components)["basis"])


def report(config: Config, subject: Subject, found: Vectors) -> Findings:
    """Correlation of the singular vectors with the principal components, over noise levels."""
    sigmas, basis = subject.sigmas, found.basis
    stored = {name: each[: len(sigmas)] for name, each in found.triplets.items()}
    left, values = singular_vectors.as_columns(stored["left"]), stored["values"]
    correlation = analysis.vector_correlation(left, basis)
    leading = singular_vectors.leading(correlation)
    first = min(config.vectors, basis.shape[1])
    overlap = analysis.subspace_overlap(left[..., :first], basis[:, :first])
    # The highest level, and of the others the nearest to 1.
    high, low = 0, 1 + int(np.argmin(np.abs(np.log(sigmas[1:]))))
    columns = {
        "sigma": sigmas,
        "|cosine|, first 3": leading.mean(axis=(1, 2)),
        f"overlap, first {first}": overlap.mean(axis=1),
        "largest value": values[:, :, 0].mean(axis=1),
        f"value {config.vectors}": values[:, :, -1].mean(axis=1),
        "largest residual": (stored["residuals"] / values[:, :, :1]).max(axis=(1, 2)),
    }
    panels = [
        singular_vectors.vector_panel(
            "single vectors", sigmas, {f"vector {k + 1}": leading[:, :, k] for k in range(singular_vectors.LEADING)}
        ),
        plots.LevelPanel(
            "spans", f"overlap of the first {first}", sigmas, {"span": plots.mean_and_range(overlap, axis=1)}
        ),
        singular_vectors.value_panel(
            "singular values", sigmas, {"largest": values[:, :, 0], "smallest computed": values[:, :, -1]}
        ),
    ]
    titles = by_level.titles(sigmas)
    at_high, fall = f"sigma = {sigmas[high]:.3g}", singular_vectors.fall(leading[high], leading[low])
    return Findings(
        "The first three singular vectors of the Jacobian match the principal components with |cosine| "
        f"{leading[high].mean():.2f} at {at_high} and {leading[low].mean():.2f} at sigma = {sigmas[low]:.2g}.",
        claims={
            "jacobian-high-noise": singular_vectors.weakest(
                leading[high], f"This is {{}}, at {at_high}, on {config.trajectories} trajectories."
            ),
            "jacobian-adaptive": Noted(fall, f"From {at_high} to {sigmas[low]:.3g}."),
        },
        figures={
            "jacobian_correlation": singular_vectors.matrices([correlation], titles, "principal component"),
            "jacobian_overlap": plots.level_curves(panels),
            "jacobian_vectors": singular_vectors.as_images([stored["left"]], titles, config.vectors),
            "jacobian_perturbations": _moved(config, subject.perturbed, pictures(found.perturbed, subject.decoder)),
        },
        tables=[by_level.table("Singular vectors of the Jacobian", columns)],
        metrics={
            "correlation": columns["|cosine|, first 3"],
            "overlap": overlap.mean(axis=1),
            "largest_value": columns["largest value"],
        },
    )


def _triplets(config: Config, subject: Subject, seed: int, key: Key) -> dict[str, np.ndarray]:
    """Triplets at the states of the first samples, and these states, ``(levels, trajectories, ...)``.

    The levels are those of the study, then those of the perturbations: one batch of states, compiled once.
    """
    levels = np.concatenate([subject.sigmas, subject.perturbed])
    states = subject.states(subject.trajectories(subject.denoiser, config.trajectories, seed), levels)
    points = states.reshape(-1, *subject.shape)
    with Progress("singular vectors", total=len(points), unit="states") as bar:
        found = analysis.singular_triplets(
            subject.denoiser,
            points,
            np.repeat(levels, config.trajectories),
            config.vectors,
            key,
            tolerance=config.tolerance,
            max_rounds=config.max_rounds,
            batch_size=config.batch_size,
            progress=lambda done, total: bar.update(done - bar.done),
        )
    parts = {"values": found.values, "left": found.left, "residuals": found.residuals}
    return {name: part.reshape(*states.shape[:2], *part.shape[1:]) for name, part in parts.items()} | {"states": states}


def _perturbed(config: Config, subject: Subject, measured: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Images after perturbations of the first sample's states, ``(levels, directions, lengths, *event)``."""
    count, images = len(subject.perturbed), []
    for sigma, left, states in zip(subject.perturbed, measured["left"][-count:], measured["states"][-count:]):
        grid = subject.grid[subject.grid <= sigma]
        moves = left[0, : config.directions]
        ends = analysis.perturbed_images(subject.denoiser, jnp.asarray(states[0]), moves, _signed(config), grid)
        images.append(np.asarray(ends))
    return {"images": np.stack(images)}


def _signed(config: Config) -> np.ndarray:
    """Lengths of the perturbations in both directions, and 0."""
    return np.array(sorted([-length for length in config.lengths] + [0.0] + list(config.lengths)))


def _moved(config: Config, levels: np.ndarray, images: np.ndarray) -> Any:
    names = [f"$\\sigma$ = {sigma:.3g}, vector {k + 1}" for sigma in levels for k in range(config.directions)]
    lengths = [f"{value:+g}" if value else "0" for value in _signed(config)]
    return plots.image_grid(images.reshape(-1, *images.shape[2:]), names, lengths)


def costs(config: Config, plan: Plan) -> list[study.Cost]:
    """Evaluations of the network; one of its linearisation counts as one."""
    evaluations_a_sample = 2 * plan.steps - 1
    # Of each round at a state: both linearisations, and their products with every vector.
    at_a_state = 2 * (config.vectors + 1)
    rounds = config.trajectories * (plan.config.levels + len(config.perturbed)) * config.max_rounds
    ends = len(config.perturbed) * config.directions * (2 * len(config.lengths) + 1) * evaluations_a_sample
    found = plan.cost("jacobians", rounds * at_a_state + ends, config.batch_size * config.vectors)
    make = partial(jacobians, plan.network, config.vectors)
    function, shapes = make(config.batch_size)
    probe = Probe(make, config.batch_size, found.network_evaluations / (config.vectors + 1))
    return [
        plan.cost("trajectories", config.trajectories * evaluations_a_sample, plan.config.batch_size),
        replace(found, memory=held_bytes(function, *shapes), probe=probe),
    ]


PART = study.Part(
    name="jacobians",
    title="Adaptive bases",
    question="Are the singular vectors of the network's Jacobian principal components, or adapted to the image?",
    paper=PAPER,
    presets=PRESETS,
    claims=CLAIMS,
    figures=FIGURES,
    measure=measure,
    report=report,
    costs=costs,
)
