"""Linear distillation of the network: exactly and by Adam, against the Gaussian's maps (Figs 4, 14 and 22)."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from dgu import analysis, plots
from dgu.errors import require
from dgu.keys import stream
from dgu.models import EmpiricalDenoiser, GaussianDenoiser, LinearDenoiser
from dgu.training import distill_by_adam, distill_exactly
from experiments.harness.claims import Claim
from experiments.harness.costs import Cost
from experiments.harness.progress import Progress
from experiments.harness.report import FigureEntry, Section, Table
from experiments.harness.rundir import RunDirectory
from experiments.hidden_gaussian_parts.subject import PAPER, Plan, Subject

CLAIM_IDS = (
    "distillation-gaussian-weights",
    "distillation-singular-vectors",
    "distillation-symmetric",
    "distillation-adam",
    "distillation-identity",
)
FIGURE_FILES = (
    "figures/weights.png",
    "figures/map_spectra.png",
    "figures/map_vectors.png",
    "figures/distillation_epochs.png",
)


@dataclass(frozen=True)
class Config:
    """The best linear map at each noise level."""

    images: int = 1000
    """Images that the network is distilled on."""
    draws: int = 8
    """Noisy versions of each, for the exact distillation."""
    adam_images: int = 512
    """Images for Adam, the first of them."""
    adam_epochs: int = 60
    """Passes of Adam over its images."""
    adam_batch: int = 256
    """Images in a step of Adam."""
    adam_rate: float | None = None
    """One learning rate for all levels; None takes the authors' table."""
    vectors: int = 100
    """Singular vectors that are compared, fewer where images have fewer pixels."""
    identity_points: int = 200
    """Points of the multi-delta denoiser that is distilled on its own data."""
    identity_draws: int = 300
    """Noisy versions of each of these."""
    batch_size: int = 256
    """Images at a time."""

    def __post_init__(self) -> None:
        for name in ("images", "adam_images", "identity_points"):
            require(getattr(self, name) >= 2, f"distillation.{name}", getattr(self, name), "2 or more")
        for name in ("draws", "adam_epochs", "adam_batch", "vectors", "identity_draws", "batch_size"):
            require(getattr(self, name) >= 1, f"distillation.{name}", getattr(self, name), "1 or more")
        rate = self.adam_rate
        require(rate is None or rate > 0, "distillation.adam_rate", rate, "positive, or None")


def distilled(
    config: Config, subject: Subject, directory: RunDirectory, seed: int
) -> tuple[LinearDenoiser, dict[str, np.ndarray]]:
    """The exact maps of the network, with which other parts compare, too; and all that is stored of them."""
    images = subject.some("distillation.images", config.images)
    key = stream(jax.random.key(seed), "distillation")

    def compute() -> dict[str, np.ndarray]:
        with Progress("exact distillation", total=len(subject.sigmas), unit="levels") as bar:
            found = distill_exactly(
                subject.denoiser, images, subject.sigmas, key, draws=config.draws, batch_size=config.batch_size,
                progress=lambda done, total: bar.update(),
            )  # fmt: skip
        maps = found.denoiser
        return {"weights": maps.weights, "biases": maps.biases, "ridges": found.ridges, "residuals": found.residuals}

    stored = directory.stage("distillation/exact", compute)
    return LinearDenoiser(subject.sigmas, stored["weights"], stored["biases"]), stored


def run(config: Config, subject: Subject, directory: RunDirectory, seed: int) -> Section:
    """Both distillations against the Gaussian, and the identity on a denoiser's own data."""
    sigmas, size = subject.sigmas, int(np.prod(subject.shape))
    maps, exact = distilled(config, subject, directory, seed)
    reference = LinearDenoiser.of_gaussian(subject.gaussian, sigmas)
    adam = directory.stage("distillation/adam", lambda: _adam(config, subject, reference, maps, seed))
    own = directory.stage("distillation/identity", lambda: _identity(config, subject, seed))
    checks = directory.stage("distillation/orthogonality", lambda: _orthogonality(config, subject, maps, seed))
    count = min(config.vectors, size, subject.gaussian.basis.shape[1])
    spectra = analysis.map_spectra(maps, count)
    basis = np.asarray(subject.gaussian.basis, np.float64)[:, :count]
    correlation = analysis.vector_correlation(spectra.left, basis)
    # Vectors of values that are next to nothing point anywhere (the paper's footnote 4): compare those that count.
    kept = max(3, count // 10)
    overlap = analysis.subspace_overlap(spectra.left[:, :, :kept], basis[:, :kept])
    nmse = analysis.weight_nmse(maps, reference)
    directory.save_figure(FIGURE_FILES[0], _curves(sigmas, nmse, adam, own["nmse"], spectra.asymmetry, overlap, kept))
    shown = np.unique(np.linspace(0, len(sigmas) - 1, min(len(sigmas), 8)).round().astype(int))
    theirs = np.asarray(subject.gaussian.variances, np.float64)[:count]
    panels = [
        plots.MapPanel(f"$\\sigma$ = {sigmas[k]:.3g}",
                       {"distilled": spectra.values[k], "Gaussian": theirs / (theirs + sigmas[k] ** 2)}, spectra.alignment[k])
        for k in shown
    ]  # fmt: skip
    directory.save_figure(FIGURE_FILES[1], plots.map_spectra_figure(panels))
    directory.save_figure(
        FIGURE_FILES[2],
        plots.correlation_matrices(
            correlation, [f"$\\sigma$ = {sigma:.3g}" for sigma in sigmas], rows_are="distilled map", columns_are="principal component"
        ),
    )  # fmt: skip
    directory.save_figure(
        FIGURE_FILES[3], plots.distillation_epochs(adam["epochs"], adam["nmse"], adam["losses"], sigmas)
    )
    claims = _claims(sigmas, nmse, adam, own["nmse"], spectra.asymmetry, overlap, kept)
    rows = [
        (float(sigma), float(nmse[k]), float(adam["nmse"][-1, k]), float(adam["to_exact"][k]), float(spectra.asymmetry[k]),
         float(overlap[k]), float(exact["ridges"][k]), float(checks["maps"][k]), float(checks["gaussian"][k]), float(own["nmse"][k]))
        for k, sigma in enumerate(sigmas)
    ]  # fmt: skip
    head = ("sigma", "NMSE to Gaussian", "Adam's", "Adam to exact", "asymmetry", f"overlap, first {kept}", "ridge",
            "orthogonality (51)", "that of the Gaussian", "identity")  # fmt: skip
    close = int((nmse < 0.2).sum())
    answer = (
        f"The best linear map of the network on {len(subject.some('distillation.images', config.images))} {subject.inputs} images is within 0.2 (NMSE of weights) of the "
        f"Gaussian's at {close} of {len(sigmas)} noise levels. "
    )
    return Section(
        "Linear distillation",
        answer,
        claims,
        [
            FigureEntry(FIGURE_FILES[0], "Distance of the distilled weights to the Gaussian's, exactly and after training by Adam; the multi-delta denoiser distilled on its own data; asymmetry; overlap of the leading singular vectors with the principal components (Figs 4 and 22)."),
            FigureEntry(FIGURE_FILES[1], "Singular values of the distilled maps and of the Gaussian's; below, whether left and right singular vectors agree, as those of a symmetric map do (Fig 14)."),
            FigureEntry(FIGURE_FILES[2], "Correlation of the distilled maps' left singular vectors with the principal components of the training images (Figs 4 and 14)."),
            FigureEntry(FIGURE_FILES[3], "Training by Adam: distance of the weights to the Gaussian's, and the loss, at each noise level (Figs 4 and 22)."),
        ],
        [Table(f"Distilled maps ({subject.inputs} images)", head, rows)],
        {"nmse": nmse, "adam_nmse": adam["nmse"][-1], "adam_to_exact": adam["to_exact"], "asymmetry": spectra.asymmetry,
         "overlap": overlap, "identity": own["nmse"], "orthogonality": checks["maps"], "ridges": exact["ridges"]},
    )  # fmt: skip


def _adam(
    config: Config, subject: Subject, reference: LinearDenoiser, exact: LinearDenoiser, seed: int
) -> dict[str, np.ndarray]:
    images = subject.some("distillation.adam_images", config.adam_images)
    rates = None if config.adam_rate is None else np.full(len(subject.sigmas), config.adam_rate)
    every = max(1, config.adam_epochs // 20)
    with Progress("distillation by Adam", total=config.adam_epochs, unit="epochs") as bar:
        found = distill_by_adam(
            subject.denoiser, images, subject.sigmas, stream(jax.random.key(seed), "adam"), epochs=config.adam_epochs,
            batch_size=config.adam_batch, learning_rates=rates, snapshot_every=every,
            observe=lambda _, maps: analysis.weight_nmse(maps, reference), progress=lambda done, total: bar.update(),
        )  # fmt: skip
    epochs, errors = zip(*found.observed)
    to_exact = analysis.weight_nmse(found.denoiser, exact)
    return {"epochs": np.array(epochs), "nmse": np.stack(errors), "losses": found.losses, "to_exact": to_exact}


def _identity(config: Config, subject: Subject, seed: int) -> dict[str, np.ndarray]:
    """The multi-delta denoiser of a few points distilled on these very points: the Gaussian's maps, whatever they are."""
    points = subject.train[: config.identity_points]
    found = distill_exactly(
        EmpiricalDenoiser(points), points, subject.sigmas, stream(jax.random.key(seed), "identity"), draws=config.identity_draws
    )  # fmt: skip
    wanted = LinearDenoiser.of_gaussian(GaussianDenoiser.fit(points), subject.sigmas)
    return {"nmse": analysis.weight_nmse(found.denoiser, wanted)}


def _orthogonality(config: Config, subject: Subject, maps: LinearDenoiser, seed: int) -> dict[str, np.ndarray]:
    images = subject.some("distillation.images", config.images)
    key = stream(jax.random.key(seed), "orthogonality")
    return {
        name: analysis.orthogonality_residual(model, images, subject.sigmas, key)
        for name, model in (("maps", maps), ("gaussian", subject.gaussian))
    }


def _curves(sigmas: Any, nmse: Any, adam: Any, own: Any, asymmetry: Any, overlap: Any, kept: int) -> Any:
    def plain(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return values, values, values

    last = adam["epochs"][-1]
    weights = {
        "exactly": plain(nmse),
        f"Adam, {last} epochs": plain(adam["nmse"][-1]),
        "identity: own data": plain(own),
    }
    return plots.level_curves(
        [
            plots.LevelPanel("weights against the Gaussian's", "NMSE of weights", sigmas, weights, log=True, marks={"0.2": 0.2}),
            plots.LevelPanel("symmetry", "|W - W'| / 2 |W|", sigmas, {"exactly": plain(asymmetry)}),
            plots.LevelPanel("singular vectors", f"overlap with the first {kept} components", sigmas, {"exactly": plain(overlap)}),
        ]
    )  # fmt: skip


def _claims(sigmas: Any, nmse: Any, adam: Any, own: Any, asymmetry: Any, overlap: Any, kept: int) -> list[Claim]:
    def single(kind: str, value: float, bound: float, **about: Any) -> Claim:
        return getattr(Claim, kind)(value=value, interval=(value, value), threshold=bound, **about)

    inner = (sigmas >= 0.1) & (sigmas <= 80.0)
    share = float((nmse < 0.2).mean())
    # Converged: over the last quarter of the epochs the distance to the Gaussian moved by less than 0.005.
    quarter = adam["nmse"][-max(2, len(adam["nmse"]) // 4) :]
    settled = np.ptp(quarter, axis=0) < 0.005
    agree = float(adam["to_exact"][settled].max()) if settled.any() else float(adam["to_exact"].min())
    return [
        single("at_least", share, 0.6, id="distillation-gaussian-weights", paper=PAPER, figure="Fig 4", unit="of the noise levels",
               statement="The network's best linear map is close to the Gaussian's (NMSE of weights below 0.2) at most noise levels."),
        single("at_least", float(overlap[inner].min()), 0.8, id="distillation-singular-vectors", paper=PAPER, figure="Fig 4", unit="",
               statement=f"The span of the map's first {kept} singular vectors is that of as many principal components, from sigma = 0.1 up (the least overlap is shown)."),
        single("at_most", float(asymmetry[inner].max()), 0.1, id="distillation-symmetric", paper=PAPER, figure="Fig 14", unit="",
               statement="The network's best linear map is symmetric, from sigma = 0.1 up (the largest asymmetry is shown)."),
        single("at_most", agree, 0.01, id="distillation-adam", paper="own", figure="", unit="NMSE",
               statement="Adam's maps are the exact ones where Adam has converged (the largest distance is shown).",
               note=f"converged at {int(settled.sum())} of {len(sigmas)} levels"),
        single("at_most", float(own.max()), 0.01, id="distillation-identity", paper="own", figure="", unit="NMSE",
               statement="Distilled on its own data, the multi-delta denoiser gives the Gaussian's maps at every noise level, whatever the data: a tautology of such inputs."),
    ]  # fmt: skip


def check(config: Config, subject: Subject) -> None:
    """Refuses what cannot be used before any work."""
    subject.some("distillation.images", config.images)
    subject.some("distillation.adam_images", config.adam_images)


def costs(config: Config, plan: Plan) -> list[Cost]:
    """What the part would cost, products of matrices included."""
    levels, size = plan.config.levels, plan.size
    evaluations = levels * (config.images * config.draws + config.adam_images * config.adam_epochs)
    found = plan.cost("distillation", evaluations, config.batch_size)
    rows = config.images * config.draws + config.adam_images * config.adam_epochs
    rows += config.identity_points * config.identity_draws
    products = levels * size**2 * 4.0 * rows + levels * 25.0 * size**3
    # Exactly: a few d x d matrices; by Adam: the maps of all levels with two moments and a gradient, in float32.
    matrix = 8 * size**2
    memory = found.memory + max(5, 2 * levels) * matrix
    return [replace(found, flop=found.flop + products, memory=memory, disk=levels * matrix / 2)]


PRESETS = {
    "smoke": replace(
        Config(), images=32, draws=10, adam_images=8, adam_epochs=2, adam_batch=8, identity_points=20, identity_draws=20, batch_size=32
    ),
    "default": Config(),
    "paper": Config(images=30_000, draws=1, adam_images=30_000, adam_epochs=100),
}  # fmt: skip
