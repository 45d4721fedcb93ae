"""Linear distillation of the network: exactly and by Adam, against the Gaussian's maps (Figs 4, 14 and 22)."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dgu import analysis, plots
from dgu.core.errors import require
from dgu.core.keys import seeded, stream
from dgu.models import EmpiricalDenoiser, GaussianDenoiser, LinearDenoiser
from dgu.training import distill_by_adam, distill_exactly
from experiments.hidden_gaussian_parts.subject import Plan, Subject, bounded, triple
from experiments.study.costs import Cost
from experiments.study.judged import JudgedClaim
from experiments.study.options import check_options
from experiments.study.progress import Progress
from experiments.study.report import FigureEntry, Section, Table
from experiments.study.run_directory import RunDirectory

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


#: The share of the levels that the paper's "most" stands for.
_MOST = 0.7
#: Noisy images for each pixel, from which on a distilled map is known to a hundredth of its squared length.
_ROWS = 100
#: Lowest noise at which singular vectors and symmetry are looked at.
_FROM = 0.1


@dataclass(frozen=True)
class Config:
    """The best linear map at each noise level."""

    images: int = 400
    """Images that the network is distilled on, exactly and by Adam."""
    draws: int = 16
    """Noisy versions of each, for the exact distillation."""
    groups: int = 8
    """Groups of the images (and, for the identity, of the draws) that are left out in turn, for the intervals."""
    adam_epochs: int = 25
    """Passes of Adam over the images, with fresh noise each."""
    adam_batch: int = 32
    """Images in a step of Adam; the authors' is 256."""
    adam_rate: float | None = None
    """One learning rate for all levels; None takes the authors' table."""
    vectors: int = 100
    """Singular vectors that are compared, fewer where images have fewer pixels."""
    identity_points: int = 200
    """Points of the multi-delta denoiser that is distilled on its own data."""
    identity_draws: int = 304
    """Noisy versions of each of these."""
    batch_size: int = 256
    """Images at a time."""

    def __post_init__(self) -> None:
        check_options(
            self, "distillation", images=2, draws=1, groups=2, adam_epochs=1, adam_batch=1, adam_rate="(0, inf)", vectors=1,
            identity_points=2, identity_draws=1, batch_size=1,
        )  # fmt: skip
        fewest = min(self.images, self.identity_draws)
        require(self.groups <= fewest, "distillation.groups", self.groups, f"at most {fewest}, the images or draws")


def distilled(config: Config, subject: Subject, directory: RunDirectory, seed: int) -> dict[str, dict[str, np.ndarray]]:
    """What is stored of the maps found exactly (``"exact"``) and by Adam (``"adam"``), with which other parts compare, too."""
    adam = directory.stage("distillation/adam", lambda: _adam(config, subject, seed))
    exact = directory.stage("distillation/exact", lambda: _exact(config, subject, adam, seed))
    return {"exact": exact, "adam": adam}


def linear_denoiser(stored: dict[str, np.ndarray], subject: Subject) -> LinearDenoiser:
    """The denoiser of stored maps."""
    return LinearDenoiser(subject.sigmas, stored["weights"], stored["biases"])


def run(config: Config, subject: Subject, directory: RunDirectory, seed: int) -> Section:
    """Both distillations against the Gaussian, and the identity on a denoiser's own data."""
    sigmas = subject.sigmas
    stored = distilled(config, subject, directory, seed)
    exact, adam = stored["exact"], stored["adam"]
    maps = linear_denoiser(exact, subject)
    own = directory.stage("distillation/identity", lambda: _identity(config, subject, seed))
    checks = directory.stage("distillation/orthogonality", lambda: _orthogonality(config, subject, stored, seed))
    count, kept = _compared(config, subject)
    spectra = analysis.map_spectra(maps, count)
    basis = np.asarray(subject.gaussian.basis, np.float64)[:, :count]
    directory.save_figure(FIGURE_FILES[0], _curves(sigmas, exact, adam, own, kept))
    shown = np.unique(np.linspace(0, len(sigmas) - 1, min(len(sigmas), 8)).round().astype(int))
    theirs = np.asarray(subject.gaussian.variances, np.float64)[:count]
    panels = [
        plots.MapPanel(f"$\\sigma$ = {sigmas[k]:.3g}",
                       {"distilled": spectra.values[k], "Gaussian": theirs / (theirs + sigmas[k] ** 2)}, spectra.alignment[k])
        for k in shown
    ]  # fmt: skip
    directory.save_figure(FIGURE_FILES[1], plots.map_spectra_figure(panels))
    correlation = analysis.vector_correlation(spectra.left, basis)
    titles = [f"$\\sigma$ = {sigma:.3g}" for sigma in sigmas]
    directory.save_figure(
        FIGURE_FILES[2],
        plots.correlation_matrices(correlation, titles, rows_are="distilled map", columns_are="principal component"),
    )
    directory.save_figure(
        FIGURE_FILES[3], plots.distillation_epochs(adam["epochs"], adam["course"], adam["losses"], sigmas)
    )
    columns = {
        "sigma": sigmas, "NMSE to Gaussian": exact["nmse"], "Adam's": adam["nmse"], "Adam to exact": exact["to_adam"],
        "Adam moved": adam["moved"], "asymmetry": exact["asymmetry"], "Adam's asymmetry": adam["asymmetry"],
        f"overlap, first {kept}": exact["overlap"], "Adam's overlap": adam["overlap"], "ridge": exact["ridges"],
        "orthogonality (51)": checks["exact"], "that of Adam's": checks["adam"], "that of the Gaussian": checks["gaussian"],
        "identity": own["nmse"],
    }  # fmt: skip
    close, used = int((exact["nmse"] < 0.2).sum()), len(subject.some("distillation.images", config.images))
    answer = (
        f"The best linear map of the network on {used} {subject.inputs} images is within 0.2 (NMSE of weights) of the "
        f"Gaussian's at {close} of {len(sigmas)} noise levels."
    )
    return Section(
        "Linear distillation",
        answer,
        _claims(sigmas, exact, adam, own, kept, _few_draws(config, subject)),
        [
            FigureEntry(FIGURE_FILES[0], "Distance of the distilled weights to the Gaussian's, exactly and after training by Adam; the multi-delta denoiser distilled on its own data; asymmetry; overlap of the leading singular vectors with the principal components (Figs 4 and 22). Bands: 95 % intervals by leaving out groups of images."),
            FigureEntry(FIGURE_FILES[1], "Singular values of the distilled maps and of the Gaussian's; below, whether left and right singular vectors agree, as those of a symmetric map do (Fig 14)."),
            FigureEntry(FIGURE_FILES[2], "Correlation of the distilled maps' left singular vectors with the principal components of the training images (Figs 4 and 14)."),
            FigureEntry(FIGURE_FILES[3], "Training by Adam: distance of the weights to the Gaussian's, and the loss, at each noise level (Figs 4 and 22)."),
        ],
        [Table(f"Distilled maps ({subject.inputs} images)", tuple(columns), [tuple(map(float, row)) for row in zip(*columns.values())])],
        {name.replace(" ", "-"): values for name, values in columns.items()},
    )  # fmt: skip


def _compared(config: Config, subject: Subject) -> tuple[int, int]:
    """How many singular vectors are looked at, and how many of these span what is compared.

    Vectors of values that are next to nothing point anywhere (the paper's footnote 4): only those that count are compared.
    """
    count = min(config.vectors, int(np.prod(subject.shape)), subject.gaussian.basis.shape[1])
    return count, max(3, count // 10)


def _measured(config: Config, subject: Subject, maps: LinearDenoiser) -> dict[str, np.ndarray]:
    """Distance to the Gaussian's maps, asymmetry, and overlap of the leading left singular vectors with the components."""
    kept = _compared(config, subject)[1]
    spectra = analysis.map_spectra(maps, kept)
    basis = np.asarray(subject.gaussian.basis, np.float64)[:, :kept]
    reference = LinearDenoiser.of_gaussian(subject.gaussian, maps.sigmas)
    overlap = analysis.subspace_overlap(spectra.left, basis)
    return {"nmse": analysis.weight_nmse(maps, reference), "asymmetry": spectra.asymmetry, "overlap": overlap}


def _exact(config: Config, subject: Subject, adam: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    images = subject.some("distillation.images", config.images)
    trained = linear_denoiser(adam, subject)

    def measure(maps: LinearDenoiser, theirs: LinearDenoiser) -> dict[str, np.ndarray]:
        return _measured(config, subject, maps) | {"to_adam": analysis.weight_nmse(theirs, maps)}

    def without(level: int, weight: np.ndarray) -> dict[str, np.ndarray]:
        at = subject.sigmas[level : level + 1]
        theirs = LinearDenoiser(at, trained.weights[level : level + 1], trained.biases[level : level + 1])
        return measure(LinearDenoiser(at, weight[None], np.zeros((1, len(weight)))), theirs)

    with Progress("exact distillation", total=len(subject.sigmas), unit="levels") as bar:
        found = distill_exactly(
            subject.denoiser, images, subject.sigmas, stream(seeded(seed), "distillation"), draws=config.draws,
            groups=min(config.groups, len(images)), observe=without, batch_size=config.batch_size, progress=lambda *_: bar.update(),
        )  # fmt: skip
    maps = found.denoiser
    whole = measure(maps, trained)
    # (levels, groups) each: for the intervals.
    left_out = {
        f"{name}_without": np.array([[float(one[name][0]) for one in level] for level in found.observed])
        for name in whole
    }
    return {"weights": maps.weights, "biases": maps.biases, "ridges": found.ridges, **whole, **left_out}


def _adam(config: Config, subject: Subject, seed: int) -> dict[str, np.ndarray]:
    images = subject.some("distillation.images", config.images)
    reference = LinearDenoiser.of_gaussian(subject.gaussian, subject.sigmas)
    rates = None if config.adam_rate is None else np.full(len(subject.sigmas), config.adam_rate)
    half = max(1, config.adam_epochs // 2)
    halfway: list[LinearDenoiser] = []

    def observe(epoch: int, maps: LinearDenoiser) -> np.ndarray:
        if epoch <= half:
            halfway[:] = [maps]
        return analysis.weight_nmse(maps, reference)

    with Progress("distillation by Adam", total=config.adam_epochs, unit="epochs") as bar:
        found = distill_by_adam(
            subject.denoiser, images, subject.sigmas, stream(seeded(seed), "adam"), epochs=config.adam_epochs,
            batch_size=config.adam_batch, learning_rates=rates, snapshot_every=max(1, config.adam_epochs // 20),
            observe=observe, progress=lambda *_: bar.update(),
        )  # fmt: skip
    epochs, course = zip(*found.observed)
    maps = found.denoiser
    return {
        "weights": maps.weights, "biases": maps.biases, "epochs": np.array(epochs), "course": np.stack(course),
        "losses": found.losses, "moved": analysis.weight_nmse(halfway[0], maps), **_measured(config, subject, maps),
    }  # fmt: skip


def _identity(config: Config, subject: Subject, seed: int) -> dict[str, np.ndarray]:
    """The multi-delta denoiser of a few points distilled on these very points: the Gaussian's maps, whatever they are."""
    points = subject.train[: config.identity_points]
    wanted = LinearDenoiser.of_gaussian(GaussianDenoiser.fit(points), subject.sigmas)

    def without(level: int, weight: np.ndarray) -> float:
        off = weight - np.asarray(wanted.weights[level], np.float64)
        return float((off**2).sum() / np.square(wanted.weights[level], dtype=np.float64).sum())

    found = distill_exactly(
        EmpiricalDenoiser(points), points, subject.sigmas, stream(seeded(seed), "identity"),
        draws=config.identity_draws, groups=config.groups, groups_of="draws", observe=without,
    )  # fmt: skip
    return {"nmse": analysis.weight_nmse(found.denoiser, wanted), "nmse_without": np.array(found.observed)}


def _orthogonality(config: Config, subject: Subject, stored: dict, seed: int) -> dict[str, np.ndarray]:
    images = subject.some("distillation.images", config.images)
    key = stream(seeded(seed), "orthogonality")
    models = {name: linear_denoiser(maps, subject) for name, maps in stored.items()} | {"gaussian": subject.gaussian}
    return {name: analysis.orthogonality_residual(model, images, subject.sigmas, key) for name, model in models.items()}


def _interval(found: dict[str, np.ndarray], name: str) -> analysis.Interval:
    """The interval of a measure at every level, by leaving out groups; none of these measures is negative."""
    bounds = (0.0, 1.0 if name == "overlap" else np.inf)
    return analysis.jackknife_interval(found[name], found[f"{name}_without"], bounds=bounds)


def _curves(sigmas: Any, exact: dict, adam: dict, own: dict, kept: int) -> Any:
    def plain(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return values, values, values

    def panel(title: str, quantity: str, name: str, **options: Any) -> plots.LevelPanel:
        curves = {"exactly": triple(_interval(exact, name)), f"Adam, {adam['epochs'][-1]} epochs": plain(adam[name])}
        if name == "nmse":
            curves["identity: own data"] = triple(_interval(own, name))
        return plots.LevelPanel(title, quantity, sigmas, curves, **options)

    weights = panel("weights against the Gaussian's", "NMSE of weights", "nmse", log=True, marks={"0.2": 0.2})
    return plots.level_curves(
        [
            weights,
            panel("symmetry", "|W - W'| / 2 |W|", "asymmetry"),
            panel("singular vectors", f"overlap with the first {kept} components", "overlap"),
        ]
    )


def _few_draws(config: Config, subject: Subject) -> str:
    """Why the map that the multi-delta denoiser is distilled to is a noisy one; empty where it is not."""
    rows = min(config.identity_points, len(subject.train)) * config.identity_draws
    size = subject.train[0].size
    few = f"a map of {size} pixels from {rows:,} noisy images is uncertain: {_ROWS} or more a pixel are needed"
    return few if rows < _ROWS * size else ""


def _claims(sigmas: Any, exact: dict, adam: dict, own: dict, kept: int, few: str) -> list[JudgedClaim]:
    inner = np.flatnonzero((sigmas >= _FROM) & (sigmas <= 80.0))
    absent = (
        ""
        if len(inner)
        else f"of the noise levels {', '.join(f'{sigma:.3g}' for sigma in sigmas)} none is from {_FROM:g} up"
    )
    inner = inner if len(inner) else np.arange(len(sigmas))
    weakest, skewed = (inner[np.argmin(exact["overlap"][inner])], inner[np.argmax(exact["asymmetry"][inner])])
    # The distance that most levels stay within: an order statistic over levels, with each group left out.
    most = int(np.ceil(_MOST * len(sigmas))) - 1
    within = analysis.jackknife_interval(
        np.sort(exact["nmse"])[most], np.sort(exact["nmse_without"], axis=0)[most], bounds=(0, np.inf)
    )
    # Converged, by the run itself: since half its epochs the weights moved by less than a hundredth of their squared length,
    # which of a steady approach leaves far less.
    settled = np.flatnonzero(adam["moved"] < 1e-2)
    agree = _interval(exact, "to_adam")
    furthest = settled[np.argmax(exact["to_adam"][settled])] if len(settled) else int(np.argmin(exact["to_adam"]))
    note = f"converged at {len(settled)} of {len(sigmas)} noise levels"
    restless = "" if len(settled) else f"in {adam['epochs'][-1]} epochs Adam has converged at no noise level"
    worst = int(np.argmax(own["nmse"]))
    return [
        bounded("at_most", within, (), 0.2, id="distillation-gaussian-weights", figure="Fig 4", unit="NMSE",
                statement=f"The network's best linear map is close to the Gaussian's at most noise levels (the distance that {most + 1} of {len(sigmas)} stay within is shown)."),
        bounded("at_least", _interval(exact, "overlap"), weakest, 0.8, id="distillation-singular-vectors", figure="Fig 4", unit="",
                statement=f"The span of the map's first {kept} singular vectors is that of as many principal components, from sigma = {_FROM:g} up (the least overlap is shown).",
                note=f"at sigma = {sigmas[weakest]:.3g}").unless(absent),
        bounded("at_most", _interval(exact, "asymmetry"), skewed, 0.1, id="distillation-symmetric", figure="Fig 14", unit="",
                statement=f"The network's best linear map is symmetric, from sigma = {_FROM:g} up (the largest asymmetry is shown).",
                note=f"at sigma = {sigmas[skewed]:.3g}").unless(absent),
        bounded("at_most", agree, furthest, 0.01, id="distillation-adam", figure="", unit="NMSE", paper="own",
                statement="Adam's maps are the exact ones where Adam has converged (the largest distance is shown).",
                note=f"at sigma = {sigmas[furthest]:.3g}; {note}").unless(restless),
        bounded("at_most", _interval(own, "nmse"), worst, 0.01, id="distillation-identity", figure="", unit="NMSE", paper="own",
                statement="Distilled on its own data, the multi-delta denoiser gives the Gaussian's maps at every noise level, whatever the data: a tautology of such inputs.",
                note=f"at sigma = {sigmas[worst]:.3g}").unless(few),
    ]  # fmt: skip


def check(config: Config, subject: Subject) -> None:
    """Refuses what cannot be used before any work."""
    subject.some("distillation.images", config.images)


def costs(config: Config, plan: Plan) -> list[Cost]:
    """What the part would cost, products of matrices included."""
    levels, size = plan.config.levels, plan.size
    rows = config.images * (config.draws + config.adam_epochs)
    found = plan.cost("distillation", levels * rows, max(config.batch_size, config.adam_batch))
    products = 4.0 * size**2 * (rows + config.identity_points * config.identity_draws)
    solutions = 25.0 * size**3 * 2 * (config.groups + 1)
    # Exactly: two matrices a group and a few more; by Adam: the maps of all levels with two moments and a gradient, in float32.
    matrix = 8 * size**2
    memory = found.memory + max(2 * config.groups + 6, 2 * levels) * matrix
    return [replace(found, flop=found.flop + levels * (products + solutions), memory=memory, disk=levels * matrix)]


PRESETS = {
    "smoke": replace(
        Config(), images=32, draws=10, groups=3, adam_epochs=2, adam_batch=8, identity_points=20, identity_draws=21, batch_size=32
    ),
    "default": Config(),
    "paper": Config(
        images=30_000, draws=1, groups=4, adam_epochs=100, adam_batch=256, identity_points=2000, identity_draws=12_000, batch_size=64
    ),
}  # fmt: skip
