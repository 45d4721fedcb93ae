"""Clocks: the noise levels of collapse onto training images and of speciation into classes, from the data alone, and
when the network's samples forget the class that they had."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dgu import analysis, plots
from dgu.core.errors import require
from dgu.core.keys import stream
from experiments.clocks import (
    AT_COLLAPSE,
    WEIGHT,
    half_kept,
    in_turn,
    kept_panel,
    odds_panel,
    riskiest,
    source_weights,
    turns,
    weights_panel,
)
from experiments.explain.subject import Plan, Subject
from experiments.study import (
    Claim,
    Cost,
    Figure,
    Findings,
    Measured,
    NotTested,
    Options,
    Part,
    Run,
    Table,
    at_least,
    option,
    within,
)
from experiments.subjects import sampling_cost

#: Octaves between forgetting and speciation; share that keep their class at the lowest level.
OCTAVES, KEPT = 1.0, 0.9
#: Groups of images of the jackknife.
_GROUPS = 10

FIGURES = (
    Figure(
        "clocks_levels",
        "Left: mean weight of a training image in the exact denoiser's output at noisy versions of it, 1 where it can "
        "only be copied. Middle: the share of held-out images that keep their class, as a classifier reads it, when "
        "they are noised to a level and sampled back by the network; a class-conditional one is asked for the next "
        "class. Right: by how much the log odds of an image's own class stand out from their fluctuation (1: "
        "speciation). Bands: 95 % intervals over images.",
    ),
    Figure(
        "clocks_risk",
        "Training images that the exact denoiser would copy at the highest noise (above) and at the lowest (below), by "
        "the weight of each in its own output at the level of collapse, of those looked at.",
    ),
    Figure(
        "clocks_map",
        "The noise level at which the window around each pixel of the training images is told from all others, from 0 "
        "(black) to the largest (white): where local denoisers copy first.",
    ),
)

_ASKED = (
    "A class-conditional network is asked for another class, the next one, so that what it keeps of an image's own "
    "class comes from the noisy image alone."
)
_READ = (
    "a class was kept where the classifier read the image's label, and is now where it reads what it reads in the "
    "clean image: its own errors had counted as changes (0.73 of the images, 0.9 being asked for)."
)
CLAIMS = (
    Claim(
        "clocks-collapse",
        "At the noise level of collapse, which the covariance of the training images and their number give, about half "
        "of the exact denoiser's output at a noisy training image is that image, from a quarter to three quarters "
        "(value: its weight, mean over training images and noise).",
        within(*WEIGHT),
    ),
    Claim(
        "clocks-speciation",
        "The network's samples forget their class at about the noise level that the variance between the classes of "
        "the training images tells (value: the base-2 logarithm of the level at which half of the held-out images keep "
        "their class when they are noised and sampled back, over the square root of the largest variance between "
        "classes).",
        within(-OCTAVES, OCTAVES),
        note=_ASKED,
        one_network=True,
        changed="in the first default run, on 1 December 2026, the level was that at which the mean log odds of an "
        "image's own class are as large as their fluctuation, which those of ten classes of images are at no level, so "
        "that the claim could not be tested; and " + _READ,
    ),
    Claim(
        "clocks-kept",
        "A control: at the lowest level held-out images keep their class when they are noised and sampled back (value: "
        "the share in which a classifier reads the class that it reads in the clean image).",
        at_least(KEPT),
        note=_ASKED,
        one_network=True,
        changed="in the first default run, on 1 December 2026, " + _READ,
    ),
)


@dataclass(frozen=True)
class Config(Options, prefix="clocks"):
    """Noise levels of collapse and speciation, and U-turns."""

    images: int = option(4000, ge=20)
    """Training images of the clocks, at most, of all classes."""
    risks: int = option(200, ge=4)
    """Of these the images whose weight in their own output is looked at."""
    held_out: int = option(100, ge=10)
    """Held-out images that are noised and sampled back."""
    sigmas: tuple[float, ...] = option((0.1, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0), gt=0.0)
    """Levels at which they turn back, rising."""
    steps: int = option(10, ge=2)
    """Heun steps of the way back."""
    window: int = option(5, ge=1)
    """Side of the window of the map."""
    map_images: int = option(500, ge=2)
    """Training images of the map, at most."""
    classifier_images: int = option(6000, ge=8)
    """Training images of the classifier, at most."""
    epochs: int = option(5, ge=1)
    """Its passes over them."""

    def check(self) -> None:
        """Levels rise."""
        rising = len(self.sigmas) >= 2 and list(self.sigmas) == sorted(set(self.sigmas))
        require(rising, self.name("sigmas"), self.sigmas, "two or more, rising")


PRESETS = {
    "smoke": Config(
        images=200, risks=8, held_out=20, sigmas=(0.1, 2.0, 16.0), steps=2, window=3, map_images=40,
        classifier_images=200, epochs=1,
    ),
    "default": Config(),
    "paper": Config(images=60_000, risks=1000, held_out=2000, steps=18, map_images=6000, classifier_images=60_000),
}  # fmt: skip


def skips(config: Config, subject: Subject) -> str:
    """Why there are no clocks of classes."""
    train, held = (np.unique(images.labels) for images in subject.sets)
    if len(train) < 2:
        return "the images have no labels of two or more classes"
    if not np.isin(held, train).all():
        return "the held-out images have classes that the training images have not"
    return "" if min(subject.shape[:2]) >= 4 else "the classifier needs images of 4 x 4 pixels or more"


def check(config: Config, subject: Subject) -> None:
    """The window fits, there are enough held-out images, and an image of each class."""
    subject.check()
    there = len(np.unique(subject.sets[0].labels))
    least = f"at least {there}, the number of classes of the training images"
    require(config.images >= there, config.name("images"), config.images, least)
    side = min(subject.shape[:2])
    sound = config.window % 2 == 1 and config.window <= side
    require(sound, config.name("window"), config.window, f"odd and at most {side}, the smaller side of the images")
    enough, most = config.held_out <= len(subject.sets[1]), len(subject.sets[1])
    require(enough, config.name("held_out"), config.held_out, f"at most {most}, the number of held-out images")
    low, high = (float(getattr(subject.pretrained.denoiser, name)) for name in ("sigma_min", "sigma_max"))
    inside = max(low, 0.002) < config.sigmas[0] and config.sigmas[-1] <= high
    require(inside, config.name("sigmas"), config.sigmas, f"above {max(low, 0.002):g} and at most {high:g}")


@dataclass(frozen=True)
class Found:
    """What the part measures.

    Attributes:
        collapse, speciation: levels from the data.
        weights: weight of the source at multiples of the level of collapse, (levels, images).
        separation: mean and spread of the log odds at ``sigmas``, (2, levels).
        kept: in which held-out images a classifier reads the class that it reads in the clean one, (levels, n).
        riskiest: training images by falling and by rising weight, (2, shown, h, w, c).
        map: level of collapse of each window, (h, w).
        accuracy: of the classifier on the held-out images as they are.
    """

    collapse: float
    speciation: float
    weights: np.ndarray
    separation: "analysis.ClassSeparation"
    kept: np.ndarray
    riskiest: np.ndarray
    map: np.ndarray
    accuracy: float


def measure(config: Config, subject: Subject, run: Run) -> Found:
    """The clocks of the training images, and the U-turns of the network."""
    train, held = subject.sets
    order = in_turn(train.labels, config.images)
    images, labels = train.images[order], train.labels[order]
    risks = np.arange(min(config.risks, len(images)))
    collapse = analysis.collapse_level(np.asarray(subject.gaussian.variances, np.float64), len(images))
    weights = run.stage("weights", lambda: {"weights": source_weights(images, collapse, run.key, risks)})["weights"]
    chosen = in_turn(held.labels, config.held_out)
    sigmas, some, marks = np.asarray(config.sigmas), held.images[chosen], held.labels[chosen]

    def separated() -> dict[str, np.ndarray]:
        found = analysis.class_separation(images, labels, some, marks, sigmas, stream(run.key, "separation"))
        return {"mean": found.mean, "spread": found.spread}

    apart = run.stage("separation", separated)
    read = run.stage("classes", classes, config, subject, some, marks, run)
    levels = run.stage("map", lambda: {"levels": analysis.collapse_map(images[: config.map_images], config.window)})[
        "levels"
    ]
    return Found(
        collapse,
        analysis.speciation_level(images, labels),
        weights,
        analysis.ClassSeparation(sigmas, apart["mean"], apart["spread"]),
        read["turned"] == read["clean"],
        riskiest(images, weights),
        levels,
        float(np.mean(read["clean"] == marks)),
    )


def classes(config: Config, subject: Subject, images: np.ndarray, marks: np.ndarray, run: Run) -> dict[str, Any]:
    """Classes that a classifier reads in held-out images, clean and after a U-turn at each level.

    A class-conditional network is asked for another class than the image's, the next one: what it keeps of the image's
    own then comes from the noisy image alone.
    """
    train, names = subject.sets[0], len(subject.sets[0].class_names)
    order = in_turn(train.labels, config.classifier_images)
    classifier = analysis.train_convnet(
        train.images[order], train.labels[order], stream(run.key, "classifier"), epochs=config.epochs,
        batch_size=min(64, len(order)), classes=names,
    )  # fmt: skip
    found = turns(
        subject.pretrained.denoiser, images, marks if subject.conditional else None, np.asarray(config.sigmas),
        run.key, steps=config.steps, classes=names, shift=1,
    )  # fmt: skip
    return {
        "clean": classifier.predict(images),
        "turned": np.stack([classifier.predict(level) for level in found]),
    }


def speciation(found: Found) -> Measured:
    """Octaves from the level that the variance between classes tells to that at which half are kept."""
    sigmas, whole = found.separation.sigmas, half_kept(found.separation.sigmas, found.kept)
    groups = np.arange(found.kept.shape[1]) * _GROUPS // found.kept.shape[1]
    without = np.array([half_kept(sigmas, found.kept[:, groups != group]) for group in range(_GROUPS)])
    if not np.isfinite([whole, *without]).all():
        return NotTested("half are kept at none of the levels studied (--clocks.sigmas)")
    return analysis.jackknife_interval(np.log2(whole / found.speciation), np.log2(without / found.speciation))


def report(config: Config, subject: Subject, found: Found) -> Findings:
    """The levels, and who is at risk."""
    half = half_kept(found.separation.sigmas, found.kept)
    asked = " asked for another class" if subject.conditional else ""
    levels = {
        "collapse onto training images": found.collapse,
        "speciation: root of the largest variance between classes": found.speciation,
        "speciation: log odds as large as their fluctuation": found.separation.level,
        f"half of the network's U-turns{asked} keep the class": half,
    }
    rows = [(name, level if np.isfinite(level) else "none of those studied") for name, level in levels.items()]
    kept = f"in half of the cases at {half:.3g}" if np.isfinite(half) else "in half of the cases at no level studied"
    top = max(float(found.map.max()), np.finfo(float).tiny)
    return Findings(
        "From the training images alone: samples would collapse onto them below a noise level of "
        f"{found.collapse:.3g}, and the variance between classes is that of noise of {found.speciation:.3g}. Held-out "
        f"images that are noised and sampled back by the network{asked} keep their class {kept} (the classifier "
        f"reads {100 * found.accuracy:.0f} % of the clean images right).",
        claims={
            "clocks-collapse": analysis.t_interval(found.weights[AT_COLLAPSE], bounds=(0, 1)),
            "clocks-speciation": speciation(found),
            "clocks-kept": analysis.proportion(found.kept[0]),
        },
        figures={
            "clocks_levels": (
                plots.sweep_curves([weights_panel(found.collapse, found.weights),
                                    kept_panel(found.separation.sigmas, found.kept), odds_panel(found.separation)]),
                f"The level of collapse is {found.collapse:.3g}.",
            ),
            "clocks_risk": plots.image_grid(found.riskiest, ["copied first", "copied last"], [""]),
            "clocks_map": (
                plots.image_grid(found.map[None, None, :, :, None], [f"window {config.window}"], [""],
                                 pixel_range=(0.0, top)),
                f"The largest is {top:.3g}.",
            ),
        },
        tables=[Table("Noise levels", ("clock", "sigma"), rows)],
        metrics={name: level for name, level in levels.items() if np.isfinite(level)},
    )  # fmt: skip


def costs(config: Config, plan: Plan) -> list[Cost]:
    """The U-turns."""
    count = config.held_out * len(config.sigmas)
    return [replace(sampling_cost(plan.network, count, 2 * config.steps - 1, 10), stage="clocks: U-turns")]


PART = Part(
    "clocks", "Clocks of the data",
    "At which noise levels do samples commit to a class and to a training image, and does the network?",
    "own", CLAIMS, FIGURES, measure, report, PRESETS, costs, check, skips,
)  # fmt: skip
