"""Do autoencoders trained at one noise level each come as near to the Gaussian denoiser as the network? (Figs 24 and 29)

A Skip-Net, a DiT, an NCSN++ and a linear map, each predicting the image itself, are trained for every noise level apart by plain
denoising score matching on the images of the Gaussian.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from dgu import analysis, plots
from dgu.core.denoisers import map_batch
from dgu.core.errors import require
from dgu.core.keys import seeded, stream
from dgu.core.noisy import noisy_input
from dgu.models import EDMNetwork
from dgu.training import trains_together
from experiments.hidden_gaussian_parts.autoencoder_claims import (
    EDM,
    GAUSSIAN,
    POINTS,
    distance_claims,
    jacobian_claims,
    middle_levels,
)
from experiments.hidden_gaussian_parts.autoencoder_networks import SHOWN, build, optimisation, trained
from experiments.hidden_gaussian_parts.subject import Plan, Subject, triple
from experiments.study.costs import Cost
from experiments.study.flop import matmul_flop
from experiments.study.options import check_options
from experiments.study.progress import Progress
from experiments.study.report import FigureEntry, Section, Table
from experiments.study.run_directory import RunDirectory

CLAIM_IDS = (
    "autoencoders-linear",
    "autoencoders-peak",
    "autoencoders-like-network",
    "autoencoders-not-memorising",
    "autoencoders-agree",
    "autoencoders-linearity",
    "autoencoders-jacobian-high-noise",
    "autoencoders-jacobian-adaptive",
)
FIGURE_FILES = (
    "figures/autoencoders.png",
    "figures/autoencoder_images.png",
    "figures/autoencoder_jacobians.png",
    "figures/autoencoder_correlation.png",
    "figures/autoencoder_vectors.png",
)


@dataclass(frozen=True)
class Config:
    """Denoising autoencoders."""

    networks: tuple[Literal["ncsn", "skip", "dit"], ...] = ("ncsn", "skip", "dit")
    """Networks to train, beside the linear one."""
    sigmas: tuple[float, ...] | None = (21.1, 1.5, 0.117)
    """Noise levels, a network each; None takes those of the study."""
    steps: int = 500
    """Updates of the Skip-Net and of the DiT at each level; Adam's rate falls to 0 over them."""
    ncsn_steps: int = 250
    """Updates of the NCSN++ at each level: one costs several of the others'."""
    linear_steps: int = 3000
    """Updates of the linear map at each level."""
    batch_size: int = 128
    """Images an update."""
    learning_rate: float = 1e-3
    """Adam's rate at the start."""
    save_every: int = 5000
    """Updates between stages of a training, from which a killed run goes on."""
    ncsn_channels: int = 8
    """Channels of the NCSN++."""
    ncsn_mult: tuple[int, ...] = (1, 2)
    """Their multiples at each resolution."""
    ncsn_blocks: int = 1
    """Residual blocks at each resolution."""
    skip_channels: tuple[int, ...] = (16, 32)
    """Channels of the Skip-Net at each resolution."""
    dit_patch: int = 2
    """Height and width of the DiT's patches."""
    dit_width: int = 32
    """Width of its tokens."""
    dit_depth: int = 2
    """Its blocks."""
    dit_heads: int = 4
    """Its attention heads."""
    images: int = 200
    """Images whose noisy versions are denoised."""
    points: int = 4
    """Noisy images at which Jacobians are taken, at each level."""
    vectors: int = 5
    """Leading singular vectors."""
    components: int = 10
    """Principal components that they are compared with."""
    tolerance: float = 1e-3
    """Largest residual of a singular triplet, over the largest value."""
    max_rounds: int = 30
    """Rounds of the iteration at most."""

    def __post_init__(self) -> None:
        check_options(
            self, "autoencoders", sigmas="(0, inf)", steps=1, ncsn_steps=1, linear_steps=1, batch_size=2, learning_rate="(0, inf)",
            save_every=1, ncsn_channels=1, ncsn_mult=1, ncsn_blocks=1, skip_channels="[1, 65536]", dit_patch="[1, 65536]",
            dit_width="[1, 65536]", dit_depth="[1, 256]", dit_heads="[1, 65536]", images=4, points=2, vectors=3, components=3, tolerance="(0, 1)", max_rounds=1,
        )  # fmt: skip
        for name in ("ncsn_mult", "skip_channels"):
            require(
                bool(getattr(self, name)), f"autoencoders.{name}", getattr(self, name), "one or more, each 1 or more"
            )
        known = bool(self.networks) and len(set(self.networks)) == len(self.networks)
        require(known, "autoencoders.networks", self.networks, "one or more, each once")
        levels = self.sigmas
        falling = levels is None or (len(levels) >= 2 and all(a > b > 0 for a, b in pairwise(levels)))
        require(falling, "autoencoders.sigmas", levels, "two or more, falling and positive, or None")


def check(config: Config, subject: Subject) -> None:
    """Refuses what cannot be used before any work."""
    subject.some("autoencoders.images", config.images)
    subject.some("autoencoders.points", config.points)
    _levels(config, subject)
    build(config, subject.shape)


def _levels(config: Config, subject: Subject) -> np.ndarray:
    if config.sigmas is None:
        return subject.sigmas
    low, high = subject.sigmas[-1], subject.sigmas[0]
    inside = low <= config.sigmas[-1] and config.sigmas[0] <= high
    allowed = f"from {low:.6g} to {high:.6g}, the network's noise levels"
    require(inside, "autoencoders.sigmas", config.sigmas, allowed)
    return np.asarray(config.sigmas, np.float64)


def run(config: Config, subject: Subject, directory: RunDirectory, seed: int) -> Section:
    """Training at every level, then all denoisers on the same noisy images."""
    sigmas, images = _levels(config, subject), subject.some("autoencoders.images", config.images)
    networks = build(config, subject.shape)
    models: dict[str, Any] = {}
    curves = {}
    for name, network in networks.items():
        models[SHOWN[name]], curves[SHOWN[name]] = trained(
            config, name, network, subject.train, sigmas, directory, seed
        )
    compared = models | {EDM: subject.denoiser, POINTS: subject.points, GAUSSIAN: subject.gaussian}
    found = _distances(compared, subject, images, sigmas, directory, seed)
    rmse = {name: found.rmse(name, GAUSSIAN) for name in compared if name != GAUSSIAN}
    adaptive = models | {EDM: subject.denoiser}
    straight = _linearity(adaptive, images, sigmas, directory, seed)
    triplets = {}
    for number, (name, model) in enumerate(adaptive.items()):
        compute = partial(_triplets, config, subject, name, model, sigmas, seed)
        triplets[name] = directory.stage(f"autoencoders/triplets-{number}", compute)
    components = min(config.components, subject.gaussian.basis.shape[1])
    basis = np.asarray(subject.gaussian.basis, np.float64)[:, :components]
    correlation = {
        name: analysis.vector_correlation(np.swapaxes(part["left"].reshape(*part["left"].shape[:3], -1), 2, 3), basis)
        for name, part in triplets.items()
    }  # (levels, points, vectors, components) each
    leading = {name: np.einsum("ltii->lti", found[:, :, :3, :3]) for name, found in correlation.items()}

    shown = directory.stage("autoencoders/images", lambda: _shown(compared, images, sigmas, seed))
    titles = {name: [f"{name}\n$\\sigma$ = {sigma:.3g}" for sigma in sigmas] for name in adaptive}
    figures = (
        _curves(sigmas, found, rmse, straight),
        plots.image_grid(shown["images"], ["clean", "noisy", *compared], [f"$\\sigma$ = {sigma:.3g}" for sigma in sigmas]),
        _jacobian_curves(sigmas, leading, triplets),
        _correlations(correlation, titles),
        _vectors(config, triplets, titles),
    )  # fmt: skip
    for file, figure in zip(FIGURE_FILES, figures):
        directory.save_figure(file, figure)
    nets = [SHOWN[name] for name in config.networks]
    claims = [*distance_claims(nets, sigmas, found, rmse, straight), *jacobian_claims(nets, sigmas, leading)]
    middle, _ = middle_levels(sigmas)
    peaks = ", ".join(f"{rmse[name].estimate[middle].mean():.3f} ({name})" for name in (*models, EDM, POINTS))  # type: ignore[index]
    answer = (
        f"Trained at one noise level each, the autoencoders are this far from the Gaussian denoiser at intermediate noise "
        f"(RMSE on {len(images)} {subject.inputs} images): {peaks}."
    )
    return Section(
        "Denoising autoencoders",
        answer,
        claims,
        [
            FigureEntry(FIGURE_FILES[0], f"Autoencoders trained at one noise level each, on noisy {subject.inputs} images: distance to the Gaussian denoiser in two norms, to the network, and linearity. Bands: 95 % intervals over images (Fig 24)."),
            FigureEntry(FIGURE_FILES[1], "The same noisy images denoised by each."),
            FigureEntry(FIGURE_FILES[2], "Left singular vectors of the Jacobian against the principal components of their rank, mean of the first three; and the largest singular value. Bands: the range over noisy images (Fig 29)."),
            FigureEntry(FIGURE_FILES[3], "Correlation of the left singular vectors with the principal components, mean over noisy images (Fig 29)."),
            FigureEntry(FIGURE_FILES[4], "Left singular vectors at one noisy image, each stretched to its own range (Fig 29)."),
        ],
        [_table(sigmas, curves, found, rmse, straight, leading)],
        {"sigmas": sigmas, "rmse": {name: one.estimate for name, one in rmse.items()},
         "rmse_to_network": {name: found.rmse(name, EDM).estimate for name in (*models, GAUSSIAN)},
         "nmse": {name: found.nmse(GAUSSIAN, name).estimate for name in models},
         "linearity": {name: one.cosine().estimate[:, 0] for name, one in straight.items()},  # type: ignore[index]
         "correlation": {name: part.mean(axis=(1, 2)) for name, part in leading.items()}},
    )  # fmt: skip


def _distances(
    models: Mapping[str, Any], subject: Subject, images: np.ndarray, sigmas: np.ndarray, directory: RunDirectory, seed: int
) -> analysis.ScoreDistances:  # fmt: skip
    key = stream(seeded(seed), "autoencoders", "distances")

    def compute() -> dict[str, np.ndarray]:
        found = analysis.score_distances(models, images, sigmas, key, inputs=subject.inputs)
        return {"differences": found.differences, "norms": found.norms}

    stored = directory.stage("autoencoders/distances", compute)
    return analysis.ScoreDistances(tuple(models), sigmas, subject.inputs, images[0].size, **stored)


def _linearity(
    models: Mapping[str, Any], images: np.ndarray, sigmas: np.ndarray, directory: RunDirectory, seed: int
) -> dict[str, analysis.LinearityScores]:
    key, weights = stream(seeded(seed), "autoencoders", "linearity"), analysis.mixing_weights()
    scores = {}
    for number, (name, model) in enumerate(models.items()):

        def compute(model: Any = model) -> dict[str, np.ndarray]:
            found = analysis.linearity(model, images, sigmas, key, weights=weights, pairs=len(images) // 2)
            return {part: getattr(found, part) for part in ("products", "differences", "given", "target")}

        scores[name] = analysis.LinearityScores(
            sigmas, weights, **directory.stage(f"autoencoders/linearity-{number}", compute)
        )
    return scores


def _noisy(images: np.ndarray, sigma: float, level: int, key: Any) -> jax.Array:
    rows, numbers = jnp.asarray(images), jnp.arange(len(images), dtype=jnp.int32)
    return jax.vmap(lambda image, number: noisy_input(key, image, number, sigma, level))(rows, numbers)


def _at(model: Any, level: int) -> Any:
    """The denoiser of one level, of those that are one each: its parameters alone, not all levels' for each image."""
    return model.at(level) if hasattr(model, "at") else model


def _triplets(
    config: Config, subject: Subject, name: str, model: Any, sigmas: np.ndarray, seed: int
) -> dict[str, np.ndarray]:
    """Triplets at noisy versions of the first images, ``(levels, points, ...)``: the same ones for every denoiser."""
    images, key = subject.some("autoencoders.points", config.points), stream(seeded(seed), "autoencoders")
    parts = []
    with Progress(f"singular vectors, {name}", total=len(sigmas), unit="levels") as bar:
        for level, sigma in enumerate(sigmas):
            x = _noisy(images, sigma, level, stream(key, "points"))
            found = analysis.singular_triplets(
                _at(model, level), x, np.float32(sigma), config.vectors, stream(key, "vectors"), tolerance=config.tolerance,
                max_rounds=config.max_rounds,
            )  # fmt: skip
            parts.append((found.values, found.left, found.residuals))
            bar.update()
    values, left, residuals = (np.stack(part) for part in zip(*parts))
    return {"values": values, "left": left, "residuals": residuals}


def _shown(models: Mapping[str, Any], images: np.ndarray, sigmas: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Two images and what becomes of them, ``(clean, noisy and denoisers, levels and images, H, W, C)``."""
    clean, key, columns = images[:2], stream(seeded(seed), "autoencoders", "shown"), []
    for level, sigma in enumerate(sigmas):
        x = _noisy(clean, sigma, level, key)
        levels = jnp.full(len(clean), sigma, x.dtype)
        outputs = [np.asarray(map_batch(_at(model, level), x, levels)) for model in models.values()]
        columns.append(np.stack([clean, np.asarray(x), *outputs]))
    return {"images": np.concatenate(columns, axis=1)}


def _curves(sigmas: np.ndarray, found: analysis.ScoreDistances, rmse: Mapping[str, Any], straight: Mapping[str, Any]) -> Any:  # fmt: skip
    nmse = {name: triple(found.nmse(GAUSSIAN, name)) for name in rmse}
    to_network = {name: triple(found.rmse(name, EDM)) for name in (*rmse, GAUSSIAN) if name != EDM}
    cosine = {name: triple(one.cosine(), (slice(None), 0)) for name, one in straight.items()}
    return plots.level_curves(
        [
            plots.LevelPanel("to the Gaussian denoiser", "RMSE (pixel units)", sigmas, {name: triple(one) for name, one in rmse.items()}, marks={"0.04": 0.04}),
            plots.LevelPanel("to the Gaussian denoiser", "NMSE (by the Gaussian's norm)", sigmas, nmse),
            plots.LevelPanel("to the network of all levels", "RMSE (pixel units)", sigmas, to_network),
            plots.LevelPanel("linearity, equal weights", "|cosine|", sigmas, cosine),
        ],
        columns=2,
    )  # fmt: skip


def _jacobian_curves(sigmas: np.ndarray, leading: Mapping[str, np.ndarray], triplets: Mapping[str, Any]) -> Any:
    def over(measured: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return measured.mean(axis=1), measured.min(axis=1), measured.max(axis=1)

    return plots.level_curves(
        [
            plots.LevelPanel("first three vectors", "|cosine| with the component of its rank", sigmas, {name: over(part.mean(axis=2)) for name, part in leading.items()}, marks={"0.95": 0.95}),
            plots.LevelPanel("largest singular value", "singular value of the Jacobian", sigmas, {name: over(part["values"][:, :, 0]) for name, part in triplets.items()}, log=True),
        ],
        columns=2,
    )  # fmt: skip


def _correlations(correlation: Mapping[str, np.ndarray], titles: Mapping[str, list[str]]) -> Any:
    levels = len(next(iter(titles.values())))
    return plots.correlation_matrices(
        np.concatenate([correlation[name].mean(axis=1) for name in titles]), [title for each in titles.values() for title in each],
        rows_are="left singular vector", columns_are="component", columns=levels,
    )  # fmt: skip


def _vectors(config: Config, triplets: Mapping[str, Any], titles: Mapping[str, list[str]]) -> Any:
    """Those of the first noisy image."""
    vectors = np.concatenate([triplets[name]["left"][:, 0] for name in titles])
    scaled = vectors / np.maximum(np.abs(vectors).max(axis=(2, 3, 4), keepdims=True), 1e-12)
    return plots.image_grid(
        scaled, [title for each in titles.values() for title in each], [f"singular vectors 1 to {config.vectors}"]
    )


def _table(
    sigmas: np.ndarray, curves: Mapping[str, np.ndarray], found: analysis.ScoreDistances, rmse: Mapping[str, Any],
    straight: Mapping[str, Any], leading: Mapping[str, np.ndarray],
) -> Table:  # fmt: skip
    """A row for each autoencoder and level; the ratio of the last losses says whether training has come to rest."""
    rows = []
    for name, curve in curves.items():
        tenth = max(1, curve.shape[1] // 10)
        nmse, to_network, cosine = found.nmse(GAUSSIAN, name), found.rmse(name, EDM), straight[name].cosine()
        for k, sigma in enumerate(sigmas):
            last, before = curve[k, -tenth:].mean(), curve[k, -2 * tenth :][:tenth].mean()
            measured = (rmse[name].estimate, nmse.estimate, to_network.estimate, cosine.estimate[:, 0])  # type: ignore[index]
            numbers = [float(one[k]) for one in measured]  # type: ignore[index]
            rows.append((name, float(sigma), curve.shape[1], float(last), float(last / before), *numbers, float(leading[name][k].mean())))  # fmt: skip
    head = ("autoencoder", "sigma", "steps", "loss, last tenth", "over that of the tenth before", "RMSE to Gaussian", "NMSE to Gaussian",
            "RMSE to the network", "cosine of linearity", "|cosine|, first 3 vectors")  # fmt: skip
    return Table("autoencoders, level by level", head, rows)


def costs(config: Config, plan: Plan) -> list[Cost]:
    """What the part would cost: the trainings, three times a forward pass an image and step; and the measurements."""
    levels = plan.config.levels if config.sigmas is None else len(config.sigmas)
    found = []
    image = jax.ShapeDtypeStruct(plan.network.shape, jnp.float32)
    for name, network in build(config, plan.network.shape).items():
        if isinstance(network, EDMNetwork):  # It knows its shapes without a trace of thousands of draws.
            params = network.abstract_params
        else:
            params = jax.eval_shape(network.init, seeded(0))
        forward = matmul_flop(network.apply, params, image, jax.ShapeDtypeStruct((), jnp.float32))
        weights = 4 * sum(leaf.size for leaf in jax.tree.leaves(params))
        seen = optimisation(config, name, 0).steps * config.batch_size * levels
        # Parameters, gradients and two moments.
        memory, stages = 4.0 * weights * (levels if trains_together(network) else 1), 3.0 * weights * levels
        found.append(Cost(f"training {SHOWN[name]}", seen, 3 * forward * seen, memory, stages))
    rounds = config.points * config.max_rounds * 2 * (config.vectors + 1)
    measured = plan.cost("autoencoders", levels * (4 * config.images + rounds), 64)
    return [*found, measured]


PRESETS = {
    "smoke": replace(
        Config(), networks=("skip",), sigmas=(20.0, 1.5), steps=4, linear_steps=4, batch_size=8, save_every=2, skip_channels=(8,), images=8, points=2, vectors=3, components=6, max_rounds=2,
    ),
    "default": Config(),
    "paper": Config(
        sigmas=None, steps=50_000, ncsn_steps=50_000, linear_steps=50_000, batch_size=256, ncsn_channels=128, ncsn_mult=(1, 2, 2, 2), ncsn_blocks=4,
        skip_channels=(64, 128, 256, 512), dit_patch=4, dit_width=384, dit_depth=12, dit_heads=6, images=1000, points=16, vectors=20,
        components=100,
    ),
}  # fmt: skip
