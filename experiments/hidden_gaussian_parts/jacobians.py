"""The network's Jacobian along the sampling path: its singular vectors against principal components (Figs 28 and 30)."""

from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from dgu import analysis, plots
from dgu.core.errors import require
from dgu.core.keys import seeded, stream
from experiments.hidden_gaussian_parts.subject import PAPER, Plan, Subject
from experiments.study.costs import Cost
from experiments.study.judged import JudgedClaim
from experiments.study.options import check_options
from experiments.study.progress import Progress
from experiments.study.report import FigureEntry, Section, Table
from experiments.study.run_directory import RunDirectory

CLAIM_IDS = ("jacobian-high-noise", "jacobian-adaptive")
FIGURE_FILES = ("figures/jacobian_correlation.png", "figures/jacobian_overlap.png", "figures/jacobian_vectors.png", "figures/jacobian_perturbations.png")  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Singular vectors of the denoiser's Jacobian."""

    trajectories: int = 5
    """Samples whose states the Jacobian is taken at."""
    vectors: int = 10
    """Leading singular vectors."""
    components: int = 20
    """Principal components that they are compared with, fewer where the training images span fewer."""
    tolerance: float = 1e-3
    """Largest residual of a singular triplet, over the largest value."""
    max_rounds: int = 12
    """Rounds of the iteration at most."""
    perturbed: tuple[float, ...] = (22.79, 1.979, 0.002)
    """Noise levels at which states are perturbed (the paper's three)."""
    lengths: tuple[float, ...] = (2.0, 5.0, 10.0)
    """Lengths of the perturbations, in units of the noise level."""
    directions: int = 2
    """Singular vectors along which states are perturbed."""
    batch_size: int = 8
    """States at a time."""

    def __post_init__(self) -> None:
        check_options(
            self, "jacobians", trajectories=2, vectors=3, components=3, tolerance="(0, 1)", max_rounds=1, perturbed="(0, inf)",
            lengths="(0, inf)", directions=1, batch_size=1,
        )  # fmt: skip
        require(len(self.perturbed) > 0, "jacobians.perturbed", self.perturbed, "one or more positive levels")
        require(len(self.lengths) > 0, "jacobians.lengths", self.lengths, "one or more, positive")
        fits = 1 <= self.directions <= self.vectors
        require(fits, "jacobians.directions", self.directions, f"from 1 to jacobians.vectors = {self.vectors}")


def run(config: Config, subject: Subject, directory: RunDirectory, seed: int) -> Section:
    """Triplets at the states of a few trajectories, at all levels; and what perturbing the states along them does."""
    sigmas = subject.sigmas
    # The levels of the study, then those of the perturbations: one batch of states, one compilation.
    measured = directory.stage(
        "jacobians/triplets", lambda: _triplets(config, subject, np.concatenate([sigmas, subject.perturbed]), seed)
    )
    stored = {name: values[: len(sigmas)] for name, values in measured.items()}
    moved = directory.stage("jacobians/perturbed", lambda: _perturbed(config, subject, measured))
    components = min(config.components, subject.gaussian.basis.shape[1])
    basis = np.asarray(subject.gaussian.basis, np.float64)[:, :components]
    left = stored["left"].reshape(len(sigmas), config.trajectories, config.vectors, -1)
    correlation = analysis.vector_correlation(
        np.swapaxes(left, 2, 3), basis
    )  # (levels, trajectories, vectors, components)
    titles = [f"$\\sigma$ = {sigma:.3g}" for sigma in sigmas]
    directory.save_figure(
        FIGURE_FILES[0],
        plots.correlation_matrices(correlation.mean(axis=1), titles, rows_are="left singular vector", columns_are="principal component"),
    )  # fmt: skip
    leading = np.einsum("ltii->lti", correlation[:, :, :3, :3])
    first = min(config.vectors, components)
    overlap = analysis.subspace_overlap(np.swapaxes(left[:, :, :first], 2, 3), basis[:, :first])
    directory.save_figure(FIGURE_FILES[1], _curves(sigmas, leading, overlap, stored["values"], first))
    # Each vector is stretched to its own range: its sign means nothing.
    vectors = stored["left"][:, 0]
    scaled = vectors / np.maximum(np.abs(vectors).max(axis=(2, 3, 4), keepdims=True), 1e-12)
    directory.save_figure(
        FIGURE_FILES[2], plots.image_grid(scaled, titles, [f"singular vectors 1 to {config.vectors}"])
    )
    pictures, names, lengths = _rows(config, subject.perturbed, moved["images"])
    directory.save_figure(
        FIGURE_FILES[3], plots.image_grid(pictures, names, [f"{value:+g}" if value else "0" for value in lengths])
    )

    # The highest level, and of the others the nearest to 1.
    high, low = 0, 1 + int(np.argmin(np.abs(np.log(sigmas[1:]))))
    weakest = analysis.t_interval(leading[high].T, bounds=(0, 1))  # (vectors)
    vector = int(np.argmin(weakest.estimate))
    fall = analysis.t_interval(leading[high].mean(axis=1) - leading[low].mean(axis=1), bounds=(-1, 1))
    claims = [
        JudgedClaim.at_least(
            id="jacobian-high-noise", paper=PAPER, figure="Fig 28", unit="|cosine|",
            statement=f"At the highest noise (sigma = {sigmas[high]:.3g}) the three leading singular vectors of the network's Jacobian are the first three principal components (the weakest is shown).",
            value=float(weakest.estimate[vector]), interval=(float(weakest.low[vector]), float(weakest.high[vector])), threshold=0.95,  # type: ignore[index]
            note=f"vector {vector + 1}, sigma = {sigmas[high]:.3g}, {config.trajectories} trajectories"),
        JudgedClaim.at_least(
            id="jacobian-adaptive", paper=PAPER, figure="Fig 28", unit="|cosine|",
            statement=f"At sigma = {sigmas[low]:.3g} they are adapted to the image: their correlation is lower than at the highest noise (the fall is shown).",
            value=float(fall.estimate), interval=(float(fall.low), float(fall.high)), threshold=0.0,
            note=f"from sigma = {sigmas[high]:.3g} to {sigmas[low]:.3g}, mean of three vectors"),
    ]  # fmt: skip
    rows = [
        (float(sigma), float(leading[k].mean()), float(overlap[k].mean()), float(stored["values"][k, :, 0].mean()),
         float(stored["values"][k, :, -1].mean()), float((stored["residuals"][k] / stored["values"][k, :, :1]).max()))
        for k, sigma in enumerate(sigmas)
    ]  # fmt: skip
    head = (
        "sigma",
        "|cosine|, first 3",
        f"overlap, first {first}",
        "largest value",
        f"value {config.vectors}",
        "largest residual",
    )
    answer = (
        f"The first three singular vectors of the Jacobian match the principal components with |cosine| {leading[high].mean():.2f} at "
        f"sigma = {sigmas[high]:.3g} and {leading[low].mean():.2f} at sigma = {sigmas[low]:.2g}."
    )
    return Section(
        "Adaptive bases",
        answer,
        claims,
        [
            FigureEntry(FIGURE_FILES[0], "Correlation of the left singular vectors of the network's Jacobian, along sampling paths, with the principal components (Fig 28)."),
            FigureEntry(FIGURE_FILES[1], "The same in numbers: of the first three vectors with the first three components, and of whole spans; and the singular values. Bands: the range over trajectories."),
            FigureEntry(FIGURE_FILES[2], "The left singular vectors of one trajectory as images, each stretched to its own range (Fig 28)."),
            FigureEntry(FIGURE_FILES[3], "Images that follow when a state is moved along its singular vectors, by the length given in units of the noise level (Fig 30)."),
        ],
        [Table("Singular vectors of the Jacobian", head, rows)],
        {"correlation": leading.mean(axis=(1, 2)), "overlap": overlap.mean(axis=1), "largest_value": stored["values"][:, :, 0].mean(axis=1)},
    )  # fmt: skip


def _triplets(config: Config, subject: Subject, levels: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Triplets at the states of the first samples at ``levels``, and these states, ``(levels, trajectories, ...)``."""
    states = subject.states(subject.trajectories(subject.denoiser, config.trajectories, seed), levels)
    key = stream(seeded(seed), "jacobians")
    points = states.reshape(-1, *subject.shape)
    with Progress("singular vectors", total=len(points), unit="states") as bar:
        found = analysis.singular_triplets(
            subject.denoiser, points, np.repeat(levels, config.trajectories), config.vectors, key,
            tolerance=config.tolerance, max_rounds=config.max_rounds, batch_size=config.batch_size,
            progress=lambda done, total: bar.update(done - bar.done),
        )  # fmt: skip
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
    return np.array(sorted([-length for length in config.lengths] + [0.0] + list(config.lengths)))


def _rows(config: Config, levels: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, list[str], np.ndarray]:
    names = [f"$\\sigma$ = {sigma:.3g}, vector {k + 1}" for sigma in levels for k in range(config.directions)]
    return images.reshape(-1, *images.shape[2:]), names, _signed(config)


def _curves(sigmas: np.ndarray, leading: np.ndarray, overlap: np.ndarray, values: np.ndarray, first: int) -> Any:
    def over(measured: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return measured.mean(axis=1), measured.min(axis=1), measured.max(axis=1)

    each = {f"vector {k + 1}": over(leading[:, :, k]) for k in range(3)}
    spread = {"largest": over(values[:, :, 0]), "smallest wanted": over(values[:, :, -1])}
    return plots.level_curves(
        [
            plots.LevelPanel("single vectors", "|cosine| with the component of its rank", sigmas, each),
            plots.LevelPanel("spans", f"overlap of the first {first}", sigmas, {"span": over(overlap)}),
            plots.LevelPanel("singular values", "singular value of the Jacobian", sigmas, spread, log=True),
        ]
    )


def costs(config: Config, plan: Plan) -> list[Cost]:
    """What the part would cost; an evaluation of a linearisation counts as one of the network."""
    evaluations_a_sample = 2 * plan.steps - 1
    rounds = config.max_rounds * 2 * (config.vectors + 1)
    products = config.trajectories * (plan.config.levels + len(config.perturbed)) * rounds
    ends = len(config.perturbed) * config.directions * (2 * len(config.lengths) + 1)
    return [
        plan.cost("trajectories", config.trajectories * evaluations_a_sample, plan.config.batch_size),
        plan.cost("jacobians", products + ends * evaluations_a_sample, config.batch_size * config.vectors),
    ]


PRESETS = {
    "smoke": replace(
        Config(), trajectories=2, vectors=3, components=6, max_rounds=2, perturbed=(2.0,), lengths=(5.0,), directions=1
    ),
    "default": Config(),
    "paper": Config(trajectories=16, vectors=20, components=100, batch_size=4),
}  # fmt: skip
