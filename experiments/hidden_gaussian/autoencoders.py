"""Autoencoders trained at one noise level each: are they as near to the Gaussian as the network? (Figs 24 and 29)

A Skip-Net, a DiT, an NCSN++ and a linear map, each predicting the image itself, are trained for every noise level
separately, by plain denoising score matching on the training images.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dgu import analysis, models, plots, training
from dgu.core.errors import require
from dgu.core.keys import seeded, stream
from dgu.core.typing import Denoiser, Key
from dgu.distributions.bases import initial_noise
from dgu.models import EDMNetwork
from experiments.hidden_gaussian import by_level, singular_vectors
from experiments.hidden_gaussian.autoencoder_claims import CLAIMS, middle_levels, tested
from experiments.hidden_gaussian.autoencoder_networks import PRESETS, SHOWN, Config, build, optimisation, trained
from experiments.hidden_gaussian.subject import GAUSSIAN, NETWORK, PAPER, POINTS, Plan, Subject
from experiments.study import Cost, Figure, Findings, Part, Run, Table
from experiments.study.costs import Probe
from experiments.study.flop import matmul_flop
from experiments.study.memory import held_bytes, tree_bytes
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
    Figure(
        "autoencoder_trajectories",
        "Sampling from one noise by Euler's steps along the noise levels: what each denoiser makes of its own state at "
        "each level, the last of which is its sample. The autoencoders of one architecture take turns, each at its "
        "level (Fig 24).",
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
        "Correlation of the left singular vectors of the autoencoders' Jacobians, at the states that they pass through "
        "while sampling, with the principal components; mean over samples (Fig 29).",
        "fig-29",
    ),
    Figure(
        "autoencoder_vectors",
        "Left singular vectors of the autoencoders' Jacobians along the path of one sample, each stretched to its own "
        "range (Fig 29).",
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
        triplets: singular triplets of their Jacobians at noisy images, ``(levels, points, vectors, ...)``.
        along: of the autoencoders, left singular vectors at the states that they sample through, of the same shape.
        paths: what each of all denoisers makes of these states of the first sample, ``(levels, H, W, C)``.
        basis: the principal components, ``(pixels, components)``.
        images: denoised images, ``(clean, noisy and denoisers, levels and images, H, W, C)``.
    """

    curves: dict[str, np.ndarray]
    distances: analysis.ScoreDistances
    straight: dict[str, analysis.LinearityScores]
    triplets: dict[str, dict[str, np.ndarray]]
    along: dict[str, np.ndarray]
    paths: dict[str, np.ndarray]
    basis: np.ndarray
    images: np.ndarray


def measure(config: Config, subject: Subject, run: Run) -> Compared:
    """Training at every level, then all denoisers on the same noisy images."""
    sigmas, images = _levels(config, subject), subject.some("autoencoders.images", config.images)
    models: dict[str, Denoiser] = {}
    curves = {}
    for kind, network in build(config, subject.shape).items():
        models[SHOWN[kind]], curves[SHOWN[kind]] = trained(config, kind, network, subject.train, sigmas, run=run)
    adaptive = models | {NETWORK: subject.denoiser}
    every = models | {name: subject.model(name) for name in _OTHERS}
    distances = run.stage("distances", _distances, every, images, sigmas, subject.inputs, run.key)
    scores = {
        name: run.stage(f"linearity-{number}", _linearity, model, images, sigmas, run.key)
        for number, (name, model) in enumerate(adaptive.items())
    }
    points = subject.some("autoencoders.points", config.points)
    triplets = {
        name: run.stage(
            f"triplets-{number}",
            _triplets,
            config,
            f", {name}",
            analysis.level_triplets,
            model,
            points,
            sigmas,
            run.key,
        )
        for number, (name, model) in enumerate(adaptive.items())
    }
    # As many samples as noisy images: both share the programs of the products.
    starts = _starts(config, subject, sigmas, run.key)
    paths = run.stage("paths", _paths, every, starts, sigmas)
    along = {
        name: run.stage(
            f"path-triplets-{number}",
            _triplets,
            config,
            f" along paths, {name}",
            analysis.state_triplets,
            model,
            paths[f"states{number}"],
            sigmas,
            stream(run.key, "along"),
        )
        for number, (name, model) in enumerate(models.items())
    }
    return Compared(
        curves,
        analysis.ScoreDistances(tuple(every), sigmas, subject.inputs, images[0].size, **distances),
        {name: analysis.LinearityScores(sigmas, analysis.mixing_weights(), **each) for name, each in scores.items()},
        triplets,
        {name: each["left"] for name, each in along.items()},
        {name: paths[f"outputs{number}"][:, 0] for number, name in enumerate(every)},
        run.stage("components", subject.components, config.components)["basis"],
        run.stage("images", _shown, every, images[:2], sigmas, run.key)["images"],
    )


def report(config: Config, subject: Subject, found: Compared) -> Findings:
    """The autoencoders beside the network and the closed forms."""
    distances = found.distances
    sigmas, count = distances.sigmas, len(subject.some("autoencoders.images", config.images))
    correlation = {
        name: analysis.vector_correlation(singular_vectors.as_columns(each["left"]), found.basis)
        for name, each in found.triplets.items()
    }
    leading = {name: singular_vectors.leading(each) for name, each in correlation.items()}
    values = {
        "rmse": {name: distances.rmse(name, GAUSSIAN).value for name in distances.names if name != GAUSSIAN},
        "rmse_to_network": {name: distances.rmse(name, NETWORK).value for name in (*found.curves, GAUSSIAN)},
        "nmse": {name: distances.nmse(GAUSSIAN, name).value for name in found.curves},
        "linearity": {name: one.cosine()[:, 0].value for name, one in found.straight.items()},
        "correlation": {name: each.mean(axis=(1, 2)) for name, each in leading.items()},
    }
    levels = by_level.titles(sigmas)
    titles = [f"{name}\n{level}" for name in found.along for level in levels]
    middle, _ = middle_levels(sigmas)
    peaks = ", ".join(f"{np.asarray(each)[middle].mean():.3f} ({name})" for name, each in values["rmse"].items())
    left = list(found.along.values())
    on_paths = [analysis.vector_correlation(singular_vectors.as_columns(each), found.basis) for each in left]
    return Findings(
        "Trained at one noise level each, the autoencoders are this far from the Gaussian denoiser at intermediate "
        f"noise (RMSE on {count} {subject.inputs} images): {peaks}.",
        claims=tested(config.shown, distances, found.straight, leading),
        figures={
            "autoencoders": (_curves(distances, found.straight), f"The images are {subject.inputs} images."),
            "autoencoder_trajectories": plots.image_grid(
                np.stack(list(found.paths.values())), list(found.paths), levels
            ),
            "autoencoder_images": plots.image_grid(found.images, ["clean", "noisy", *distances.names], levels),
            "autoencoder_jacobians": _jacobian_curves(sigmas, leading, found.triplets),
            "autoencoder_correlation": singular_vectors.matrices(on_paths, titles, "component", columns=len(sigmas)),
            "autoencoder_vectors": singular_vectors.as_images(left, titles, config.vectors),
        },
        tables=[_table(found.curves, sigmas, values)],
        metrics={"sigmas": sigmas} | values,
    )


def _levels(config: Config, subject: Subject) -> np.ndarray:
    if config.sigmas is None:
        return subject.sigmas
    low, high = subject.sigmas[-1], subject.sigmas[0]
    inside = low <= config.sigmas[-1] and config.sigmas[0] <= high
    allowed = f"from {low:.6g} to {high:.6g}, the network's noise levels"
    require(inside, "autoencoders.sigmas", config.sigmas, allowed)
    return np.asarray(config.sigmas, np.float64)


def _distances(
    models: Mapping[str, Denoiser], images: np.ndarray, sigmas: np.ndarray, inputs: str, key: Key
) -> dict[str, np.ndarray]:
    return analysis.score_distances(models, images, sigmas, stream(key, "distances"), inputs=inputs).measured


def _linearity(model: Denoiser, images: np.ndarray, sigmas: np.ndarray, key: Key) -> dict[str, np.ndarray]:
    pairs = len(images) // 2
    return analysis.linearity(model, images, sigmas, stream(key, "linearity"), pairs=pairs).measured


def _triplets(
    config: Config, name: str, find: Callable[..., Any], model: Denoiser, at: np.ndarray, sigmas: np.ndarray, key: Key
) -> dict[str, np.ndarray]:
    """Triplets of each level, ``(levels, points, ...)``, by ``level_triplets`` at noisy versions of the images ``at``,
    the same ones for every denoiser, or by ``state_triplets`` at the states ``at``.
    """
    with Progress(f"singular vectors{name}", total=len(sigmas), unit="levels") as bar:
        found = find(
            model,
            at,
            sigmas,
            config.vectors,
            key,
            tolerance=config.tolerance,
            max_rounds=config.max_rounds,
            progress=lambda *_: bar.update(),
        )
    return {"values": found.values, "left": found.left, "residuals": found.residuals}


def _starts(config: Config, subject: Subject, sigmas: np.ndarray, key: Key) -> np.ndarray:
    """The states that samples start from."""
    own = stream(key, "paths")
    noise = [initial_noise(own, number, subject.shape) for number in range(config.points)]
    return np.stack(noise) * np.float32(sigmas[0])


def _paths(models: Mapping[str, Denoiser], starts: np.ndarray, sigmas: np.ndarray) -> dict[str, np.ndarray]:
    """States and outputs of every denoiser, by its number."""
    found = enumerate(analysis.level_paths(models, starts, sigmas).values())
    return {f"{name}{number}": each for number, both in found for name, each in zip(("states", "outputs"), both)}


def _shown(models: Mapping[str, Denoiser], clean: np.ndarray, sigmas: np.ndarray, key: Key) -> dict[str, np.ndarray]:
    """A few images, noisy versions of them, and what every denoiser makes of these."""
    noisy, outputs = analysis.level_outputs(models, clean, sigmas, stream(key, "shown"))
    columns = [np.stack([clean, x, *made]) for x, *made in zip(noisy, *outputs.values())]
    return {"images": np.concatenate(columns, axis=1)}


def _curves(found: analysis.ScoreDistances, straight: Mapping[str, analysis.LinearityScores]) -> Any:
    sigmas, others = found.sigmas, [name for name in found.names if name != GAUSSIAN]
    rmse = {name: found.rmse(name, GAUSSIAN) for name in others}
    nmse = {name: found.nmse(GAUSSIAN, name) for name in others}
    to_network = {name: found.rmse(name, NETWORK) for name in found.names if name != NETWORK}
    cosine = {name: one.cosine()[:, 0] for name, one in straight.items()}
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
    vectors = {name: each.mean(axis=2) for name, each in leading.items()}
    largest = {name: each["values"][:, :, 0] for name, each in triplets.items()}
    return plots.level_curves(
        [
            singular_vectors.vector_panel("first three vectors", sigmas, vectors, marks={"0.95": 0.95}),
            singular_vectors.value_panel("largest singular value", sigmas, largest),
        ],
        columns=2,
    )


def _table(curves: Mapping[str, np.ndarray], sigmas: np.ndarray, values: Mapping[str, Mapping[str, Any]]) -> Table:
    """A row for each autoencoder and level; the ratio of the last losses says whether training has come to rest."""
    shown = {
        "RMSE to Gaussian": "rmse",
        "NMSE to Gaussian": "nmse",
        "RMSE to the network": "rmse_to_network",
        "cosine of linearity": "linearity",
        "|cosine|, first 3 vectors": "correlation",
    }
    rows = []
    for name, curve in curves.items():
        tenth = max(1, curve.shape[1] // 10)
        for level, sigma in enumerate(sigmas):
            last, before = curve[level, -tenth:].mean(), curve[level, -2 * tenth :][:tenth].mean()
            measured = [float(values[measure][name][level]) for measure in shown.values()]
            rows.append((name, float(sigma), curve.shape[1], float(last), float(last / before), *measured))
    head = ("autoencoder", "sigma", "steps", "loss, last tenth", "over that of the tenth before", *shown)
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
    found, count = [], plan.train_count
    image, level = jax.ShapeDtypeStruct(plan.network.shape, jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)
    for name, network in build(config, plan.network.shape).items():
        # An EDMNetwork knows its shapes without a trace of thousands of draws.
        params = network.abstract_params if isinstance(network, EDMNetwork) else jax.eval_shape(network.init, seeded(0))
        forward = matmul_flop(network.apply, params, image, level)
        weights = tree_bytes(params)
        recipe = optimisation(config, name, 0)
        seen, stages = recipe.steps * config.batch_size * levels, 3.0 * weights * levels
        # Networks of matrix products train a device's share of the levels together.
        together = math.ceil(levels / jax.device_count()) if training.trains_together(network, recipe) else 1
        update, shapes = training.level_update(network, together, count, recipe)
        memory, batch = held_bytes(update, *shapes), config.batch_size * together
        probe = Probe(partial(_update, network, count, recipe, together), batch, seen)
        # The host keeps the states that a piece of the training began from, of all levels.
        cost = Cost(f"training {SHOWN[name]}", seen, 3 * forward * seen, memory, stages, probe=probe, host=stages)
        found.append(cost)
    rounds = config.points * config.max_rounds * 2 * (config.vectors + 1)
    measured = plan.cost("autoencoders", levels * (4 * config.images + 2 * rounds), 64)
    return [*found, measured]


def _update(
    network: models.Network, count: int, recipe: "training.LevelTraining", together: int, examples: int
) -> tuple[Any, list[Any]]:
    """The update of a smaller batch: ``examples`` of all levels that train together."""
    batch = max(2, examples // together)
    return training.level_update(network, together, count, replace(recipe, batch_size=batch))


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
