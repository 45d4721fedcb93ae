"""Autoencoders trained at one noise level each: are they as near to the Gaussian as the network? (Figs 24 and 29)

A Skip-Net, a DiT, an NCSN++ and a linear map, each predicting the image itself, are trained for every noise level
separately, by plain denoising score matching on the training images.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dgu import analysis, plots
from dgu.core.denoisers import map_batch
from dgu.core.errors import require
from dgu.core.keys import seeded, stream
from dgu.core.noisy import noisy_input
from dgu.core.typing import Denoiser, Key
from dgu.models import EDMNetwork
from dgu.training import trains_together
from experiments.hidden_gaussian.autoencoder_claims import CLAIMS, middle_levels, tested
from experiments.hidden_gaussian.autoencoder_networks import PRESETS, SHOWN, Config, build, optimisation, trained
from experiments.hidden_gaussian.estimates import triple
from experiments.hidden_gaussian.subject import GAUSSIAN, NETWORK, PAPER, POINTS, Plan, Subject
from experiments.study import Cost, Figure, Findings, Part, Run, Table
from experiments.study.flop import matmul_flop
from experiments.study.progress import Progress

#: The denoisers that autoencoders are compared with.
_OTHERS = (NETWORK, POINTS, GAUSSIAN)

FIGURES = (
    Figure(
        "autoencoders",
        "Autoencoders trained at one noise level each, on noisy images: distance to the Gaussian denoiser in two "
        "norms, distance to the network, and linearity. Bands: 95 % intervals over images (Fig 24).",
        "fig-24",
    ),
    Figure("autoencoder_images", "The same noisy images denoised by the autoencoders and by the other denoisers."),
    Figure(
        "autoencoder_jacobians",
        "Correlation of the left singular vectors of the Jacobian with the principal components of their rank, mean "
        "of the first three; and the largest singular value. Bands: the range over noisy images (Fig 29).",
        "fig-29",
    ),
    Figure(
        "autoencoder_correlation",
        "Correlation of the left singular vectors of the Jacobian with the principal components, mean over noisy "
        "images (Fig 29).",
        "fig-29",
    ),
    Figure(
        "autoencoder_vectors",
        "Left singular vectors of the Jacobian at one noisy image, each stretched to its own range (Fig 29).",
        "fig-29",
    ),
)


@dataclass(frozen=True)
class Compared:
    """What was measured of all denoisers, by name.

    Attributes:
        curves: losses of the autoencoders' trainings, ``(levels, steps)``.
        distances: distances between all denoisers.
        straight: linearity scores of the autoencoders and of the network.
        triplets: singular triplets of their Jacobians, ``(levels, points, vectors, ...)``.
        basis: the principal components, ``(pixels, components)``.
        images: denoised images, ``(clean, noisy and denoisers, levels and images, H, W, C)``.
    """

    curves: dict[str, np.ndarray]
    distances: analysis.ScoreDistances
    straight: dict[str, analysis.LinearityScores]
    triplets: dict[str, dict[str, np.ndarray]]
    basis: np.ndarray
    images: np.ndarray

    @property
    def correlation(self) -> dict[str, np.ndarray]:
        """Of singular vectors with principal components, ``(levels, points, vectors, components)``."""
        return {
            name: analysis.vector_correlation(
                np.swapaxes(part["left"].reshape(*part["left"].shape[:3], -1), 2, 3), self.basis
            )
            for name, part in self.triplets.items()
        }


def measure(config: Config, subject: Subject, run: Run) -> Compared:
    """Training at every level, then all denoisers on the same noisy images."""
    sigmas, images = _levels(config, subject), subject.some("autoencoders.images", config.images)
    models: dict[str, Any] = {}
    curves = {}
    for kind, network in build(config, subject.shape).items():
        models[SHOWN[kind]], curves[SHOWN[kind]] = trained(config, kind, network, subject.train, sigmas, run=run)
    adaptive = models | {NETWORK: subject.denoiser}
    distances = run.stage("distances", _distances, models, subject, images, sigmas, run.key)
    weights = analysis.mixing_weights()
    straight, triplets = {}, {}
    for number, (name, model) in enumerate(adaptive.items()):
        scores = run.stage(f"linearity-{number}", _linearity, model, images, sigmas, run.key)
        straight[name] = analysis.LinearityScores(sigmas, weights, **scores)
    for number, (name, model) in enumerate(adaptive.items()):
        triplets[name] = run.stage(
            f"triplets-{number}", _triplets, config, subject, f"singular vectors, {name}", model, run.key
        )
    return Compared(
        curves,
        analysis.ScoreDistances((*models, *_OTHERS), sigmas, subject.inputs, images[0].size, **distances),
        straight,
        triplets,
        run.stage("components", subject.components, config.components)["basis"],
        run.stage("images", _shown, models, subject, images, sigmas, run.key)["images"],
    )


def report(config: Config, subject: Subject, found: Compared) -> Findings:
    """The autoencoders beside the network and the closed forms."""
    distances, correlation = found.distances, found.correlation
    sigmas, count = distances.sigmas, len(subject.some("autoencoders.images", config.images))
    rmse = {name: distances.rmse(name, GAUSSIAN) for name in distances.names if name != GAUSSIAN}
    leading = {name: np.einsum("ltii->lti", each[:, :, :3, :3]) for name, each in correlation.items()}
    levels = [f"$\\sigma$ = {sigma:.3g}" for sigma in sigmas]
    titles = [f"{name}\n{level}" for name in found.straight for level in levels]
    middle, _ = middle_levels(sigmas)
    peaks = ", ".join(f"{np.asarray(rmse[name].value)[middle].mean():.3f} ({name})" for name in rmse)
    return Findings(
        "Trained at one noise level each, the autoencoders are this far from the Gaussian denoiser at intermediate "
        f"noise (RMSE on {count} {subject.inputs} images): {peaks}.",
        claims=tested(config.shown, distances, found.straight, leading),
        figures={
            "autoencoders": (_curves(distances, found.straight), f"The images are {subject.inputs} images."),
            "autoencoder_images": plots.image_grid(found.images, ["clean", "noisy", *distances.names], levels),
            "autoencoder_jacobians": _jacobian_curves(sigmas, leading, found.triplets),
            "autoencoder_correlation": plots.correlation_matrices(
                np.concatenate([each.mean(axis=1) for each in correlation.values()]),
                titles,
                rows_are="left singular vector",
                columns_are="component",
                columns=len(sigmas),
            ),
            "autoencoder_vectors": _vectors(config, found.triplets, titles),
        },
        tables=[_table(found, leading)],
        metrics={
            "sigmas": sigmas,
            "rmse": {name: np.asarray(one.value) for name, one in rmse.items()},
            "rmse_to_network": {
                name: np.asarray(distances.rmse(name, NETWORK).value) for name in (*found.curves, GAUSSIAN)
            },
            "nmse": {name: np.asarray(distances.nmse(GAUSSIAN, name).value) for name in found.curves},
            "linearity": {name: np.asarray(one.cosine().value)[:, 0] for name, one in found.straight.items()},
            "correlation": {name: each.mean(axis=(1, 2)) for name, each in leading.items()},
        },
    )


def _levels(config: Config, subject: Subject) -> np.ndarray:
    if config.sigmas is None:
        return subject.sigmas
    low, high = subject.sigmas[-1], subject.sigmas[0]
    inside = low <= config.sigmas[-1] and config.sigmas[0] <= high
    allowed = f"from {low:.6g} to {high:.6g}, the network's noise levels"
    require(inside, "autoencoders.sigmas", config.sigmas, allowed)
    return np.asarray(config.sigmas, np.float64)


def _with_others(models: Mapping[str, Denoiser], subject: Subject) -> dict[str, Denoiser]:
    """The autoencoders, and the denoisers that they are compared with."""
    return {**models, **{name: subject.model(name) for name in _OTHERS}}


def _distances(
    models: Mapping[str, Denoiser], subject: Subject, images: np.ndarray, sigmas: np.ndarray, key: Key
) -> dict[str, np.ndarray]:
    every = _with_others(models, subject)
    found = analysis.score_distances(every, images, sigmas, stream(key, "distances"), inputs=subject.inputs)
    return {"differences": found.differences, "norms": found.norms}


def _linearity(model: Denoiser, images: np.ndarray, sigmas: np.ndarray, key: Key) -> dict[str, np.ndarray]:
    found = analysis.linearity(
        model, images, sigmas, stream(key, "linearity"), weights=analysis.mixing_weights(), pairs=len(images) // 2
    )
    return {part: getattr(found, part) for part in ("products", "differences", "given", "target")}


def _noisy(images: np.ndarray, sigma: float, level: int, key: Key) -> jax.Array:
    rows, numbers = jnp.asarray(images), jnp.arange(len(images), dtype=jnp.int32)
    return jax.vmap(lambda image, number: noisy_input(key, image, number, sigma, level))(rows, numbers)


def _at(model: Any, level: int) -> Any:
    """The denoiser of one level, if each level has its own: with its parameters alone, not those of all levels."""
    return model.at(level) if hasattr(model, "at") else model


def _triplets(config: Config, subject: Subject, title: str, model: Denoiser, key: Key) -> dict[str, np.ndarray]:
    """Triplets at noisy versions of the first images, ``(levels, points, ...)``: the same ones for every denoiser."""
    images, sigmas = subject.some("autoencoders.points", config.points), _levels(config, subject)
    parts = []
    with Progress(title, total=len(sigmas), unit="levels") as bar:
        for level, sigma in enumerate(sigmas):
            found = analysis.singular_triplets(
                _at(model, level),
                _noisy(images, sigma, level, stream(key, "points")),
                np.float32(sigma),
                config.vectors,
                stream(key, "vectors"),
                tolerance=config.tolerance,
                max_rounds=config.max_rounds,
            )
            parts.append((found.values, found.left, found.residuals))
            bar.update()
    return {name: np.stack(part) for name, part in zip(("values", "left", "residuals"), zip(*parts))}


def _shown(
    models: Mapping[str, Denoiser], subject: Subject, images: np.ndarray, sigmas: np.ndarray, key: Key
) -> dict[str, np.ndarray]:
    """Two images and what every denoiser makes of them."""
    every = _with_others(models, subject)
    clean, columns = images[:2], []
    for level, sigma in enumerate(sigmas):
        x = _noisy(clean, sigma, level, stream(key, "shown"))
        levels = jnp.full(len(clean), sigma, x.dtype)
        outputs = [np.asarray(map_batch(_at(model, level), x, levels)) for model in every.values()]
        columns.append(np.stack([clean, np.asarray(x), *outputs]))
    return {"images": np.concatenate(columns, axis=1)}


def _curves(found: analysis.ScoreDistances, straight: Mapping[str, analysis.LinearityScores]) -> Any:
    sigmas, others = found.sigmas, [name for name in found.names if name != GAUSSIAN]
    rmse = {name: triple(found.rmse(name, GAUSSIAN)) for name in others}
    nmse = {name: triple(found.nmse(GAUSSIAN, name)) for name in others}
    to_network = {name: triple(found.rmse(name, NETWORK)) for name in found.names if name != NETWORK}
    cosine = {name: triple(one.cosine(), (slice(None), 0)) for name, one in straight.items()}
    gaussian, pixels = "to the Gaussian denoiser", "RMSE (pixel units)"
    return plots.level_curves(
        [
            plots.LevelPanel(gaussian, pixels, sigmas, rmse, marks={"0.04": 0.04}),
            plots.LevelPanel(gaussian, "NMSE (by the Gaussian's norm)", sigmas, nmse),
            plots.LevelPanel("to the network of all levels", pixels, sigmas, to_network),
            plots.LevelPanel("linearity, equal weights", "|cosine|", sigmas, cosine),
        ],
        columns=2,
    )


def _jacobian_curves(
    sigmas: np.ndarray, leading: Mapping[str, np.ndarray], triplets: Mapping[str, dict[str, np.ndarray]]
) -> Any:
    def over(measured: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return measured.mean(axis=1), measured.min(axis=1), measured.max(axis=1)

    vectors = {name: over(part.mean(axis=2)) for name, part in leading.items()}
    largest = {name: over(part["values"][:, :, 0]) for name, part in triplets.items()}
    cosine = "|cosine| with the component of its rank"
    return plots.level_curves(
        [
            plots.LevelPanel("first three vectors", cosine, sigmas, vectors, marks={"0.95": 0.95}),
            plots.LevelPanel("largest singular value", "singular value of the Jacobian", sigmas, largest, log=True),
        ],
        columns=2,
    )


def _vectors(config: Config, triplets: Mapping[str, dict[str, np.ndarray]], titles: list[str]) -> Any:
    """Those of the first noisy image."""
    vectors = np.concatenate([part["left"][:, 0] for part in triplets.values()])
    scaled = vectors / np.maximum(np.abs(vectors).max(axis=(2, 3, 4), keepdims=True), 1e-12)
    return plots.image_grid(scaled, titles, [f"singular vectors 1 to {config.vectors}"])


def _table(found: Compared, leading: Mapping[str, np.ndarray]) -> Table:
    """A row for each autoencoder and level; the ratio of the last losses says whether training has come to rest."""
    rows = []
    distances = found.distances
    for name, curve in found.curves.items():
        tenth = max(1, curve.shape[1] // 10)
        measured = (
            np.asarray(distances.rmse(name, GAUSSIAN).value),
            np.asarray(distances.nmse(GAUSSIAN, name).value),
            np.asarray(distances.rmse(name, NETWORK).value),
            np.asarray(found.straight[name].cosine().value)[:, 0],
            leading[name].mean(axis=(1, 2)),
        )
        for k, sigma in enumerate(distances.sigmas):
            last, before = curve[k, -tenth:].mean(), curve[k, -2 * tenth :][:tenth].mean()
            losses = (float(last), float(last / before))
            rows.append((name, float(sigma), curve.shape[1], *losses, *(float(one[k]) for one in measured)))
    head = (
        "autoencoder",
        "sigma",
        "steps",
        "loss, last tenth",
        "over that of the tenth before",
        "RMSE to Gaussian",
        "NMSE to Gaussian",
        "RMSE to the network",
        "cosine of linearity",
        "|cosine|, first 3 vectors",
    )
    return Table("autoencoders, level by level", head, rows)


def check(config: Config, subject: Subject) -> None:
    """Refuse what cannot be used before any work."""
    subject.some("autoencoders.images", config.images)
    subject.some("autoencoders.points", config.points)
    _levels(config, subject)
    build(config, subject.shape)


def costs(config: Config, plan: Plan) -> list[Cost]:
    """The trainings, three times a forward pass for each image and step; and the measurements."""
    levels = plan.config.levels if config.sigmas is None else len(config.sigmas)
    found = []
    image, level = jax.ShapeDtypeStruct(plan.network.shape, jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)
    for name, network in build(config, plan.network.shape).items():
        # An EDMNetwork knows its shapes without a trace of thousands of draws.
        params = network.abstract_params if isinstance(network, EDMNetwork) else jax.eval_shape(network.init, seeded(0))
        forward = matmul_flop(network.apply, params, image, level)
        weights = 4 * sum(leaf.size for leaf in jax.tree.leaves(params))
        seen = optimisation(config, name, 0).steps * config.batch_size * levels
        # Parameters, gradients and two moments.
        memory, stages = 4.0 * weights * (levels if trains_together(network) else 1), 3.0 * weights * levels
        found.append(Cost(f"training {SHOWN[name]}", seen, 3 * forward * seen, memory, stages))
    rounds = config.points * config.max_rounds * 2 * (config.vectors + 1)
    measured = plan.cost("autoencoders", levels * (4 * config.images + rounds), 64)
    return [*found, measured]


PART = Part(
    name="autoencoders",
    title="Denoising autoencoders",
    question="Do autoencoders trained at one noise level each come as near to the Gaussian denoiser as the network?",
    paper=PAPER,
    presets=PRESETS,
    claims=CLAIMS,
    figures=FIGURES,
    measure=measure,
    report=report,
    costs=costs,
    check=check,
)
