"""Linear distillation of the network, exactly and by Adam, beside the Gaussian's maps (Figs 4, 14 and 22)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from dgu import analysis, plots, training
from dgu.analysis.stats.estimates import Estimate
from dgu.core.keys import seeded, stream
from dgu.core.typing import Key
from dgu.models import EmpiricalDenoiser, GaussianDenoiser, LinearDenoiser
from experiments import study
from experiments.hidden_gaussian import by_level, descent, singular_vectors
from experiments.hidden_gaussian.linear_maps import Arrays, Config, compared, linear_denoiser, maps, most_vectors
from experiments.hidden_gaussian.subject import PAPER, Plan, Subject
from experiments.study import Claim, Figure, Findings, Measured, Noted, NotTested, Run, at_least, at_most
from experiments.study.costs import scaled

#: The share of the noise levels that the paper's "most" stands for, and the distance that counts as close there.
_MOST, _CLOSE = 0.7, 0.2
#: Least overlap and largest asymmetry of the maps; largest distance between maps that are the same.
_OVERLAP, _ASYMMETRY, _SAME = 0.8, 0.1, 0.01
#: Noisy images for each pixel, from which on a distilled map is known to a hundredth of its squared length.
_ROWS = 100
#: Lowest noise level at which singular vectors and symmetry are looked at.
_FROM = 0.1
#: The noise level whose singular vectors are drawn as images, as in the paper, and how many of them.
_SHOWN_AT, _SHOWN = 4.0, 8

FIGURES = (
    Figure(
        "weights",
        "Distance of the distilled weights to the Gaussian's, exactly and after training by Adam; the multi-delta "
        "denoiser distilled on its own data; asymmetry; overlap of the leading singular vectors with the principal "
        "components (Figs 4 and 22). Bands: 95 % intervals by leaving out groups of images.",
        "fig-4",
    ),
    Figure(
        "map_spectra",
        "Singular values of the distilled maps and of the Gaussian's; below, whether left and right singular vectors "
        "agree, as those of a symmetric map do (Fig 14).",
        "fig-14",
    ),
    Figure(
        "map_images",
        f"Leading left singular vectors of the distilled map (sigma near {_SHOWN_AT:g}) and of the Gaussian's, which "
        "are principal components of the training images, as images, each stretched to its own range (Fig 14).",
        "fig-14",
    ),
    Figure(
        "map_vectors",
        "Correlation of the distilled maps' left singular vectors with the principal components of the training "
        "images (Figs 4 and 14).",
        "fig-4 fig-14",
    ),
    Figure(
        "distillation_epochs",
        "Training by Adam: distance of the weights to the Gaussian's, their asymmetry |W - W'| / 2 |W|, and the loss "
        "(mean over pixels), at each noise level (Figs 4, 14 and 22).",
        "fig-4 fig-14 fig-22",
    ),
    descent.FIGURE,
)


PRESETS = {
    "smoke": Config(
        images=32,
        draws=10,
        groups=3,
        adam_epochs=2,
        adam_batch=8,
        identity_points=20,
        identity_draws=21,
        batch_size=32,
    ),
    "default": Config(),
    "paper": Config(
        images=30_000,
        draws=1,
        groups=4,
        adam_epochs=100,
        adam_batch=256,
        identity_points=2000,
        identity_draws=12_000,
        batch_size=64,
    ),
}

CLAIMS = (
    Claim(
        "distillation-gaussian-weights",
        "The network's best linear map (least squares) is close to that of the Gaussian denoiser at most noise levels: "
        f"the squared distance of their matrices, relative to the Gaussian's squared norm, is at most {_CLOSE:g} at "
        f"{_MOST:.0%} of the levels (value: the distance that so many levels do not exceed).",
        at_most(_CLOSE),
        source="Fig 4",
        unit="NMSE",
        one_network=True,
    ),
    Claim(
        "distillation-singular-vectors",
        "The leading left singular vectors of the network's best linear map (least squares) span nearly the same space "
        f"as equally many principal components of the training images: at every noise level sigma >= {_FROM:g}, the "
        f"share of the vectors' squared length inside the components' span is at least {_OVERLAP:g} (value: the least "
        "over these levels).",
        at_least(_OVERLAP),
        source="Fig 4",
        one_network=True,
    ),
    Claim(
        "distillation-symmetric",
        "The network's best linear map W (least squares) is nearly symmetric: its asymmetry |W - W^T| / (2 |W|) is at "
        f"most {_ASYMMETRY:g} at every noise level sigma >= {_FROM:g} (value: the largest over these levels).",
        at_most(_ASYMMETRY),
        source="Fig 14",
        one_network=True,
    ),
    Claim(
        "distillation-adam",
        "Where training by Adam has converged, the linear map that it finds for the network is the least-squares one: "
        f"their squared distance, relative to the latter's squared norm, is at most {_SAME:g} (value: the largest over "
        "noise levels).",
        at_most(_SAME),
        unit="NMSE",
        one_network=True,
    ),
    Claim(
        "distillation-identity",
        "On noisy versions of its own training images, the multi-delta denoiser has the Gaussian denoiser's best "
        "linear map at every noise level, whatever the images: there, agreement says nothing of a network (value: the "
        "largest squared distance of the matrices, relative to the Gaussian's squared norm).",
        at_most(_SAME),
        unit="NMSE",
        check=True,
    ),
    descent.CLAIM,
)


@dataclass(frozen=True)
class Distilled:
    """What was measured of the maps.

    Attributes:
        exact, adam: the maps found exactly and by Adam, with their measures (``maps``).
        own: the multi-delta denoiser distilled on its own data.
        orthogonality: residual of each denoiser's orthogonality principle, by name.
        spectra: leading singular triplets of the exact maps.
        components: principal components of the training images.
        descent: distances along gradient descent on the denoising loss, ``descent.measured``.
    """

    exact: Arrays
    adam: Arrays
    own: Arrays
    orthogonality: Arrays
    spectra: Arrays
    components: Arrays
    descent: Arrays


def measure(config: Config, subject: Subject, run: Run) -> Distilled:
    """Both distillations, and the identity on a denoiser's own data."""
    found, key = maps(config, subject, run), seeded(run.seed)
    own = run.stage("identity", _identity, config, subject, stream(key, "identity"))
    residuals = run.stage("orthogonality", _orthogonality, config, subject, found, stream(key, "orthogonality"))
    components = run.stage("components", subject.components, most_vectors(config, subject))
    spectra = run.stage("spectra", _spectra, linear_denoiser(found["exact"], subject), components["basis"].shape[1])
    descended = run.stage("descent", descent.measured, config, subject)
    return Distilled(found["exact"], found["adam"], own, residuals, spectra, components, descended)


def report(config: Config, subject: Subject, found: Distilled) -> Findings:
    """Both distillations beside the Gaussian."""
    sigmas, exact, adam, basis = subject.sigmas, found.exact, found.adam, found.components["basis"]
    kept = compared(basis.shape[1])
    columns = {
        "sigma": sigmas,
        "NMSE to Gaussian": exact["nmse"],
        "Adam's": adam["nmse"],
        "Adam to exact": exact["to_adam"],
        "Adam moved": adam["moved"],
        "asymmetry": exact["asymmetry"],
        "Adam's asymmetry": adam["asymmetry"],
        f"overlap, first {kept}": exact["overlap"],
        "Adam's overlap": adam["overlap"],
        "ridge": exact["ridges"],
        "orthogonality (51)": found.orthogonality["exact"],
        "that of Adam's": found.orthogonality["adam"],
        "that of the Gaussian": found.orthogonality["gaussian"],
        "identity": found.own["nmse"],
    }
    close, used = int((exact["nmse"] < 0.2).sum()), len(subject.some("distillation.images", config.images))
    correlation = analysis.vector_correlation(found.spectra["left"], basis)
    return Findings(
        f"The best linear map of the network on {used} {subject.inputs} images is within 0.2 (NMSE of weights) of the "
        f"Gaussian's at {close} of {len(sigmas)} noise levels.",
        claims=tested(sigmas, exact, adam, found.own, kept, few_draws(config, len(subject.train), basis.shape[0]))
        | {descent.CLAIM.id: descent.tested(sigmas, found.descent)},
        figures={
            "weights": _curves(sigmas, found, kept),
            "map_spectra": plots.map_spectra_figure(_spectra_panels(sigmas, found)),
            "map_vectors": plots.correlation_matrices(
                correlation,
                by_level.titles(sigmas),
                rows_are="distilled map",
                columns_are="principal component",
            ),
            "gradient_descent": descent.drawn(sigmas, found.descent),
            "map_images": _vectors(subject, sigmas, found),
            "distillation_epochs": plots.distillation_epochs(_courses(adam), sigmas),
        },
        tables=[by_level.table(f"Distilled maps ({subject.inputs} images)", columns)],
        metrics={name.replace(" ", "-"): measured for name, measured in columns.items()},
    )


def tested(sigmas: np.ndarray, exact: Arrays, adam: Arrays, own: Arrays, kept: int, few: str) -> dict[str, Measured]:
    """What was measured for each claim; ``few`` says why the identity cannot be tested, or is empty."""
    # The distance that most levels stay within: an order statistic over levels, with each group left out.
    most = int(np.ceil(_MOST * len(sigmas))) - 1
    within = analysis.jackknife_interval(
        np.sort(exact["nmse"])[most], np.sort(exact["nmse_without"], axis=0)[most], bounds=(0, np.inf)
    )
    absent = NotTested(f"of the noise levels {by_level.listed(sigmas)} none is from {_FROM:g} up")
    found: dict[str, Measured] = {
        "distillation-gaussian-weights": Noted(
            within, f"{most + 1} of {len(sigmas)} levels stay within this distance."
        ),
        "distillation-singular-vectors": absent,
        "distillation-symmetric": absent,
        "distillation-adam": NotTested(f"in {adam['epochs'][-1]} epochs Adam has converged at no noise level"),
        "distillation-identity": NotTested(few),
    }
    inner = (sigmas >= _FROM) & (sigmas <= 80.0)
    if inner.any():
        found["distillation-singular-vectors"] = by_level.least(
            _interval(exact, "overlap"), sigmas, f"Of the first {kept} vectors, at {{}}.", among=inner
        )
        found["distillation-symmetric"] = by_level.largest(_interval(exact, "asymmetry"), sigmas, "At {}.", among=inner)
    # Converged, by the run itself: since half its epochs the weights moved by less than a hundredth of their squared
    # length, which of a steady approach leaves far less.
    settled = adam["moved"] < 1e-2
    if settled.any():
        note = f"At {{}}; Adam has converged at {settled.sum()} of {len(sigmas)} noise levels."
        found["distillation-adam"] = by_level.largest(_interval(exact, "to_adam"), sigmas, note, among=settled)
    if not few:
        found["distillation-identity"] = by_level.largest(_interval(own, "nmse"), sigmas, "At {}.")
    return found


def few_draws(config: Config, points: int, size: int) -> str:
    """Why the map of the multi-delta denoiser (of at most ``points`` points) is a noisy one, or ``""``."""
    rows = min(config.identity_points, points) * config.identity_draws
    few = f"a map of {size} pixels from {rows:,} noisy images is uncertain: {_ROWS} or more a pixel are needed"
    return few if rows < _ROWS * size else ""


def _identity(config: Config, subject: Subject, key: Key) -> Arrays:
    """The multi-delta denoiser of a few points distilled on these very points, beside the Gaussian's maps."""
    points = subject.train[: config.identity_points]
    expected = LinearDenoiser.of_gaussian(GaussianDenoiser.fit(points), subject.sigmas)

    def without(level: int, weight: np.ndarray) -> Arrays:
        off = weight - np.asarray(expected.weights[level], np.float64)
        return {"nmse": (off**2).sum() / np.square(expected.weights[level], dtype=np.float64).sum()}

    found = training.distill_exactly(
        EmpiricalDenoiser(points),
        points,
        subject.sigmas,
        key,
        draws=config.identity_draws,
        groups=config.groups,
        groups_of="draws",
        observe=without,
    )
    left_out = np.array([[float(one["nmse"]) for one in level] for level in found.observed])
    return {"nmse": analysis.weight_nmse(found.denoiser, expected), "nmse_without": left_out}


def _orthogonality(config: Config, subject: Subject, stored: dict[str, Arrays], key: Key) -> Arrays:
    images = subject.some("distillation.images", config.images)
    models: dict[str, Any] = {name: linear_denoiser(found, subject) for name, found in stored.items()}
    models["gaussian"] = subject.gaussian
    return {name: analysis.orthogonality_residual(model, images, subject.sigmas, key) for name, model in models.items()}


def _spectra(found: LinearDenoiser, count: int) -> Arrays:
    spectra = analysis.map_spectra(found, count)
    return {"values": spectra.values, "left": spectra.left, "alignment": spectra.alignment}


def _interval(found: Arrays, name: str) -> Estimate:
    """The interval of a measure at every level, by leaving out groups; none of these measures is negative."""
    bounds = (0.0, 1.0 if name == "overlap" else np.inf)
    return analysis.jackknife_interval(found[name], found[f"{name}_without"], bounds=bounds)


def _curves(sigmas: np.ndarray, found: Distilled, kept: int) -> Any:
    by_adam = f"Adam, {found.adam['epochs'][-1]} epochs"

    def panel(title: str, quantity: str, name: str, others: Mapping[str, Any], **options: Any) -> "plots.LevelPanel":
        curves = {"exactly": _interval(found.exact, name), by_adam: found.adam[name], **others}
        return plots.LevelPanel(title, quantity, sigmas, curves, **options)

    own = {"identity: own data": _interval(found.own, "nmse")}
    return plots.level_curves(
        [
            panel("weights against the Gaussian's", "NMSE of weights", "nmse", own, log=True, marks={"0.2": 0.2}),
            panel("symmetry", "|W - W'| / 2 |W|", "asymmetry", {}),
            panel("singular vectors", f"overlap with the first {kept} components", "overlap", {}),
        ]
    )


def _courses(adam: Arrays) -> "list[plots.EpochPanel]":
    """The course of training by Adam; before it the weights are 0, and have no asymmetry."""
    epochs, losses = adam["epochs"], adam["losses"]
    return [
        plots.EpochPanel("weights against the Gaussian's", "NMSE of weights", epochs, adam["course"].T),
        plots.EpochPanel("symmetry", "asymmetry", epochs[1:], adam["asymmetry_course"][1:].T, log=False),
        plots.EpochPanel("loss", "mean square per pixel", np.arange(1, losses.shape[1] + 1), losses),
    ]


def _vectors(subject: Subject, sigmas: np.ndarray, found: Distilled) -> Any:
    """Singular vectors as images; the signs of the components, which mean nothing, are turned to those of the map's."""
    left = found.spectra["left"][int(np.argmin(np.abs(np.log(sigmas / _SHOWN_AT))))]
    shown = min(_SHOWN, left.shape[1])
    rows = [each[:, :shown].T.reshape(shown, *subject.shape) for each in (left, found.components["basis"])]
    return singular_vectors.paired(rows, ("distilled map", "Gaussian"))


def _spectra_panels(sigmas: np.ndarray, found: Distilled) -> "list[plots.MapPanel]":
    """At most eight levels."""
    shown = np.unique(np.linspace(0, len(sigmas) - 1, min(len(sigmas), 8)).round().astype(int))
    spectra, theirs, titles = found.spectra, found.components["variances"], by_level.titles(sigmas)
    return [
        plots.MapPanel(
            titles[k],
            {"distilled": spectra["values"][k], "Gaussian": theirs / (theirs + sigmas[k] ** 2)},
            spectra["alignment"][k],
        )
        for k in shown
    ]


def check(config: Config, subject: Subject) -> None:
    """Refuse what cannot be used before any work."""
    subject.some("distillation.images", config.images)


def costs(config: Config, plan: Plan) -> list[study.Cost]:
    """Evaluations of the network, and products of matrices."""
    levels, size, matrix = plan.config.levels, plan.size, 8 * plan.size**2
    drawn, passes = levels * config.images * config.draws, levels * config.images * config.adam_epochs
    exactly = plan.cost("distillation, exactly", drawn, config.batch_size)
    by_adam = plan.cost("distillation by Adam", passes, config.adam_batch)
    products = 4.0 * size**2 * (drawn + levels * config.identity_points * config.identity_draws)
    solutions = levels * 25.0 * size**3 * 2 * (config.groups + 1)
    # A level at a time on each device. Its host keeps both moments of each group and of all; of the map without a group
    # that is solved for, both moments and five matrices on the way; and the map.
    host = min(jax.local_device_count(), levels) * (2 * config.groups + 10) * matrix
    solved = replace(exactly, flop=exactly.flop + products + solutions, host=host)
    if jax.default_backend() == "cpu":
        solved = replace(solved, about=f"On an accelerator a decomposition holds {scaled(8 * matrix, 'B')} more there.")
    else:
        solved = replace(solved, memory=exactly.memory + 8 * matrix)
    # In float32: the maps of a device's share of the levels with two moments and a gradient; on the host, which reads
    # them off, the maps of all levels twice.
    maps = 2 * math.ceil(levels / jax.device_count()) * matrix
    flop = by_adam.flop + 4.0 * size**2 * passes
    trained = replace(by_adam, flop=flop, memory=by_adam.memory + maps, host=levels * matrix)
    return [replace(one, disk=levels * matrix // 2) for one in (solved, trained)]


PART = study.Part(
    name="distillation",
    title="Linear distillation",
    question="Are the network's best linear maps those of the Gaussian?",
    paper=PAPER,
    presets=PRESETS,
    claims=CLAIMS,
    figures=FIGURES,
    measure=measure,
    report=report,
    costs=costs,
    check=check,
)
