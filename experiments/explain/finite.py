"""Theory of finitely many images against what fitted Gaussian denoisers do: gains, test loss, distance of images from
the same noise, divergence."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dgu import analysis, plots
from dgu.core.errors import require
from dgu.core.keys import seed_of
from experiments.explain.subject import Subject
from experiments.study import (
    Claim,
    Figure,
    Findings,
    Measured,
    Options,
    Part,
    Run,
    Table,
    at_most,
    each,
    option,
    within,
)
from experiments.study.progress import Progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

    from dgu.analysis.stats.estimates import Estimate

#: Level that images are sampled from.
_TOP = 80.0
#: Images a dimension of the divergence, the last one that of its claim.
RATIOS = (4, 16, 64)
#: Largest error of predicted gains; largest share of the error without the correction that is left; widest ratios of
#: measured to predicted distances, losses and divergences.
GAINS, LEFT, DISTANCE, LOSS, DIVERGENCE = 0.02, 0.5, (0.9, 1.1), (0.95, 1.05), (0.95, 1.05)

FIGURES = (
    Figure(
        "finite_gains",
        "Gains of the principal components by Gaussian denoisers that are fitted to few training images: u^T W u, mean "
        "over disjoint sets of images with its 95 % interval (measured), as the theory of finite samples predicts them "
        "from the spectrum of all (predicted), and those of all images. A panel for each noise level.",
    ),
    Figure(
        "finite_sizes",
        "Against the number of training images: the distance of the images that two Gaussians fitted to disjoint sets "
        "make from the same noise, over that from different noise; the loss of the fitted denoiser on held-out images "
        "over the least possible, mean over noise levels; measured with 95 % intervals over sets, and predicted.",
    ),
)

CLAIMS = (
    Claim(
        "finite-gains",
        "The gains of the principal components by a Gaussian denoiser that is fitted to few training images are those "
        "that the effective noise level kappa predicts from the spectrum of all images (value: the root mean squared "
        "difference of predicted gains and of their mean over disjoint sets, over components and noise levels; one "
        "part for each number of images).",
        each(at_most(GAINS)),
    ),
    Claim(
        "finite-correction",
        "Predicting these gains with the effective noise level leaves half or less of the error of predicting them "
        "with the noise level itself, as if the covariance were known (value: the ratio of root mean squared errors, "
        "with the fewest images).",
        at_most(LEFT),
    ),
    Claim(
        "finite-distance",
        "The distance of the images that Gaussian denoisers fitted to disjoint sets of training images make from the "
        "same noise is the predicted one (value: the ratio of measured to predicted distances relative to different "
        "noise, mean over pairs of sets; one part for each number of images).",
        each(within(*DISTANCE)),
    ),
    Claim(
        "finite-loss",
        "The loss of Gaussian denoisers fitted to few training images on held-out images is the predicted one (value: "
        "the ratio of measured to predicted losses, mean over noise levels and disjoint sets; one part for each number "
        "of images).",
        each(within(*LOSS)),
        note="The interval is over sets of training images; the held-out images are the same for all.",
    ),
    Claim(
        "finite-divergence",
        f"With {RATIOS[-1]} draws a dimension the divergence of a fitted Gaussian from the true one is d / (4 N) nats "
        "a dimension, N draws in d dimensions (value: the ratio of measured to predicted divergences, mean over sets "
        "of draws).",
        within(*DIVERGENCE),
        note="The exact ratio, of finite d and N, is 1.02.",
    ),
)


@dataclass(frozen=True)
class Config(Options, prefix="finite"):
    """Gaussian denoisers fitted to disjoint sets of training images."""

    sizes: tuple[int, ...] = option((100, 400, 1600), ge=4)
    """Numbers of images of a set, rising."""
    sets: int = option(12, ge=4)
    """Disjoint sets of each size, an even number: they are compared in pairs."""
    sigmas: tuple[float, ...] = option((0.1, 0.3, 1.0), gt=0.0)
    """Noise levels of gains and losses, rising."""
    held_out: int = option(2000, ge=8)
    """Held-out images of the loss, at most."""
    dimension: int = option(200, ge=2)
    """Dimensions of the Gaussians of the divergence."""
    draws: int = option(12, ge=3)
    """Sets of draws of the divergence."""

    def check(self) -> None:
        """Lists rise; sets come in pairs."""
        for name in ("sizes", "sigmas"):
            values = getattr(self, name)
            require(
                bool(values) and list(values) == sorted(set(values)), self.name(name), values, "one or more, rising"
            )
        require(len(self.sizes) <= 3, self.name("sizes"), self.sizes, "at most three")
        require(self.sets % 2 == 0, self.name("sets"), self.sets, "even")


PRESETS = {
    "smoke": Config(sizes=(30, 60), sets=4, sigmas=(0.3,), held_out=100, dimension=6, draws=3),
    "default": Config(),
    "paper": Config(sizes=(300, 1000, 3000), sets=20),
}


def check(config: Config, subject: Subject) -> None:
    """There are images for all sets of two or more sizes."""
    subject.check()
    usable = _sizes(config, subject)
    most = len(subject.sets[0]) // config.sets
    require(
        len(usable) >= 1, config.name("sizes"), config.sizes, f"at most {most}: one set in {config.sets} of all images"
    )


def _sizes(config: Config, subject: Subject) -> list[int]:
    """The sizes of which there are disjoint sets enough."""
    return [size for size in config.sizes if size * config.sets <= len(subject.sets[0])]


@dataclass(frozen=True)
class Found:
    """What the part measures.

    Attributes:
        sizes: numbers of images.
        measured: by size ``gains`` (sets, levels, components), ``loss`` (sets, levels), ``distance`` (pairs,).
        predicted: by size ``gains``, ``naive`` (levels, components), ``loss`` (levels,), ``distance`` scalar.
        least: the loss of the Gaussian of all training images, (levels,).
        divergences: over d / (4 N), by draws a dimension, (draws,).
    """

    sizes: list[int]
    measured: Mapping[int, Mapping[str, np.ndarray]]
    predicted: Mapping[int, Mapping[str, np.ndarray]]
    least: np.ndarray
    divergences: Mapping[int, np.ndarray]


def measure(config: Config, subject: Subject, run: Run) -> Found:
    """Fits to disjoint sets, a stage for each size; predictions from the spectrum of all training images."""
    train, held = (one.images.reshape(len(one), -1).astype(np.float64) for one in subject.sets)
    held, order = held[: config.held_out], np.random.default_rng(seed_of(run.key, "sets")).permutation(len(train))
    lam, basis = (np.asarray(part, np.float64) for part in (subject.gaussian.variances, subject.gaussian.basis))
    sigmas, sizes = np.asarray(config.sigmas), _sizes(config, subject)
    measured, predicted = {}, {}
    with Progress("fitted Gaussians", total=len(sizes), unit="sizes") as bar:
        for size in sizes:
            rows = [train[order[k * size : (k + 1) * size]] for k in range(config.sets)]
            measured[size] = run.stage(f"images-{size}", fits, rows, basis, held, sigmas)
            theory = analysis.fitted_gains(lam, sigmas, size)
            predicted[size] = {
                "gains": theory.mean,
                "naive": lam / (lam + sigmas[:, None] ** 2),
                "loss": analysis.fitted_loss(lam, sigmas, size),
                "distance": np.asarray(analysis.fitted_sampling(lam, size, sigma_max=_TOP).ratio),
            }
            bar.update(1)
    centred = held - train.mean(axis=0)
    least = np.array([_loss(centred, *_filter(lam, basis, sigma), sigma) for sigma in sigmas])
    seed = seed_of(run.key, "divergence")
    stored = run.stage("divergence", divergences, config.dimension, config.draws, seed)
    return Found(sizes, measured, predicted, least, {ratio: stored[f"n{ratio}"] for ratio in RATIOS})


def fits(rows: list[np.ndarray], basis: np.ndarray, held: np.ndarray, sigmas: np.ndarray) -> dict[str, np.ndarray]:
    """Gains, losses and distances of the Gaussians of these sets of images."""
    gains, losses, maps, means = [], [], [], []
    for own in rows:
        mean = own.mean(axis=0)
        _, singular, right = np.linalg.svd((own - mean) / np.sqrt(len(own)), full_matrices=False)
        lam, vectors = singular**2, right.T
        filters = [_filter(lam, vectors, sigma) for sigma in sigmas]
        shared = basis.T @ vectors
        gains.append([np.square(shared) @ gain for _, gain in filters])
        losses.append([_loss(held - mean, *one, sigma) for one, sigma in zip(filters, sigmas)])
        factor = _TOP * np.sqrt(lam / (lam + _TOP**2))
        maps.append((vectors * factor) @ vectors.T)
        means.append(mean - maps[-1] @ mean / _TOP)
    distance = []
    for one, other in zip(range(0, len(rows), 2), range(1, len(rows), 2)):
        shift = np.square(means[one] - means[other]).sum()
        paired = np.square(maps[one] - maps[other]).sum() + shift
        null = np.square(maps[one]).sum() + np.square(maps[other]).sum() + shift
        distance.append(np.sqrt(paired / null))
    return {"gains": np.array(gains), "loss": np.array(losses), "distance": np.array(distance)}


def _filter(lam: np.ndarray, vectors: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvectors and gains of a Gaussian denoiser at a level."""
    return vectors, lam / (lam + sigma**2)


def _loss(centred: np.ndarray, vectors: np.ndarray, gain: np.ndarray, sigma: float) -> float:
    """``mean |W (x0 + sigma eps) - x0|^2`` of centred images, over the noise exactly."""
    modes = centred @ vectors
    missed = np.square(centred).sum(axis=1) + (np.square(modes) * (gain**2 - 2 * gain)).sum(axis=1)
    return float(missed.mean() + sigma**2 * np.square(gain).sum())


def divergences(dimension: int, draws: int, seed: int) -> dict[str, np.ndarray]:
    """``KL(fit || truth)`` over d^2 / (4 N), by draws a dimension."""
    rng, found = np.random.default_rng(seed), {}
    for ratio in RATIOS:
        count, own = ratio * dimension, []
        for _ in range(draws):
            rows = rng.normal(size=(count, dimension))
            covariance = np.cov(rows, rowvar=False, ddof=0).reshape(dimension, dimension)
            log_determinant = np.linalg.slogdet(covariance)[1]
            excess = np.trace(covariance) - dimension + np.square(rows.mean(axis=0)).sum() - log_determinant
            own.append(excess / 2 / (dimension**2 / (4 * count)))
        found[f"n{ratio}"] = np.array(own)
    return found


def _errors(found: Found, size: int, name: str) -> "Estimate":
    """The root mean squared error of predicted gains, with the jackknife over sets."""
    gains, theory = found.measured[size]["gains"], found.predicted[size][name]

    def error(some: np.ndarray) -> float:
        return float(np.sqrt(np.square(some.mean(axis=0) - theory).mean()))

    without = [error(np.delete(gains, place, axis=0)) for place in range(len(gains))]
    return analysis.jackknife_interval(error(gains), without, bounds=(0, np.inf))


def claims_of(found: Found) -> dict[str, Measured]:
    """What was measured for each claim."""
    names = {size: f"{size}-images" for size in found.sizes}
    first = found.sizes[0]
    gains = found.measured[first]["gains"]

    def left(some: np.ndarray) -> float:
        squares = [np.square(some.mean(axis=0) - found.predicted[first][name]).mean() for name in ("gains", "naive")]
        return float(np.sqrt(squares[0] / squares[1]))

    without = [left(np.delete(gains, place, axis=0)) for place in range(len(gains))]
    distance = {
        name: analysis.t_interval(found.measured[size]["distance"] / found.predicted[size]["distance"])
        for size, name in names.items()
    }
    loss = {
        name: analysis.t_interval((found.measured[size]["loss"] / found.predicted[size]["loss"]).mean(axis=1))
        for size, name in names.items()
    }
    return {
        "finite-gains": {name: _errors(found, size, "gains") for size, name in names.items()},
        "finite-correction": analysis.jackknife_interval(left(gains), without, bounds=(0, np.inf)),
        "finite-distance": distance,
        "finite-loss": loss,
        "finite-divergence": analysis.t_interval(found.divergences[RATIOS[-1]]),
    }


def report(config: Config, subject: Subject, found: Found) -> Findings:
    """Predicted against measured."""
    first, last = found.sizes[0], found.sizes[-1]
    distance = {size: found.measured[size]["distance"].mean() for size in found.sizes}
    rows = [
        (size, float(_errors(found, size, "gains").value), float(_errors(found, size, "naive").value),
         float(distance[size]), float(found.predicted[size]["distance"]))
        for size in found.sizes
    ]  # fmt: skip
    header = ("images", "error of predicted gains (rms)", "without the correction", "distance", "predicted distance")
    kl = [(ratio, float(found.divergences[ratio].mean())) for ratio in RATIOS]
    return Findings(
        f"Of Gaussian denoisers fitted to {first:,} training images the gains are predicted within {rows[0][1]:.3g} "
        f"(rms; {rows[0][2]:.3g} without the correction for finitely many images), and two of them make images from "
        f"the same noise at {distance[first]:.3g} of the distance of different noise (predicted: {rows[0][4]:.3g}); "
        f"with {last:,} images at {distance[last]:.3g} ({rows[-1][4]:.3g}).",
        claims=claims_of(found),
        figures={
            "finite_gains": (_gains(config, found), f"{config.sets} sets of each size."),
            "finite_sizes": (_sizes_drawn(found), f"{config.sets} sets of each size."),
        },
        tables=[
            Table("Predicted and measured, by training images", header, rows),
            Table("Divergence of a fitted Gaussian, over d^2 / (4 N)", ("draws a dimension", "ratio"), kl),
        ],
        metrics={"distance": {str(size): float(value) for size, value in distance.items()}},
    )


def _gains(config: Config, found: Found) -> "Drawing":
    panels = []
    for level, sigma in enumerate(config.sigmas):
        whole = found.predicted[found.sizes[0]]["naive"][level]
        # Some components, in equal ratios: so many marks are told apart.
        number = np.unique(np.round(np.geomspace(1, len(whole), 16)).astype(int))
        curves = {}
        for size in found.sizes:
            own = analysis.t_interval(found.measured[size]["gains"][:, level, number - 1].T)
            curves[f"{size:,} images, measured"] = (number, *own.stacked(axis=0))
            curves[f"{size:,} images, predicted"] = (number, *[found.predicted[size]["gains"][level][number - 1]] * 3)
        curves["all images"] = (number, *[whole[number - 1]] * 3)
        panels.append(plots.SweepPanel(f"noise level {sigma:g}", "principal component", "gain", curves))
    return plots.sweep_curves(panels)


def _sizes_drawn(found: Found) -> "Drawing":
    sizes = np.array(found.sizes)
    panels = []
    for title, quantity, values in (
        ("images from the same noise", "distance, over different noise", lambda one: one["distance"]),
        ("held-out images", "loss over the least", lambda one: (one["loss"] / found.least).mean(axis=-1)),
    ):
        own = [analysis.t_interval(values(found.measured[size])) for size in found.sizes]
        theory = np.array([float(values(found.predicted[size])) for size in found.sizes])
        ends = np.array([(one.value, one.low, one.high) for one in own]).T
        curves = {"measured": (sizes, *ends), "predicted": (sizes, theory, theory, theory)}
        panels.append(plots.SweepPanel(title, "training images of a set", quantity, curves))
    return plots.sweep_curves(panels, columns=2)


PART = Part(
    "finite", "Finitely many images",
    "Does theory predict what a Gaussian denoiser fitted to few images does?",
    "own", CLAIMS, FIGURES, measure, report, PRESETS, check=check,
)  # fmt: skip
