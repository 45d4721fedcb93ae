"""The family side by side: images that the network and each closed form make from the same initial noises."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dgu import analysis, plots
from dgu.core.keys import stream
from dgu.samplers import karras_sigmas, sample
from experiments.explain import forms, scores
from experiments.explain.family import (
    FAMILIES,
    GAUSSIAN,
    LOCAL_POINTS,
    POINTS,
    SHIFTED_POINTS,
    WIENER,
    ByLevel,
)
from experiments.explain.forms import NETWORK, RANDOM, SECOND
from experiments.explain.subject import Group, Plan, Subject
from experiments.sampling import noise_range
from experiments.study import (
    Claim,
    Cost,
    Figure,
    Findings,
    Options,
    Part,
    Run,
    Table,
    all_of,
    at_least,
    each,
    option,
)
from experiments.study.progress import Progress
from experiments.subjects import sampling_cost

#: Samples of the network from other noise, of the same class.
OTHER = "network, other noise"
#: The median r^2 that Kamb and Ganguli report for Fashion-MNIST.
PUBLISHED = 0.94

FIGURES = (
    Figure(
        "family_samples",
        "Images from the same initial noises: a column for each noise, a row for the network, each family of closed "
        "forms and the controls. Local forms have at each noise level the window that misses least of the network's "
        "output on held-out images.",
    ),
    Figure(
        "family_r2",
        "r^2 of the images of each closed form and control with the network's from the same noise: median over noises, "
        "with its 95 % interval; values below -1 are drawn at -1.",
    ),
)

_R2 = "r^2 with the network's image from the same noise"
CLAIMS = (
    Claim(
        "samples-equivariant-level",
        "The images of equivariant training points are as near to the network's as Kamb and Ganguli (arXiv 2412.20292) "
        f"report for Fashion-MNIST and their convolutional networks: the median {_R2} is {PUBLISHED:g} or more.",
        at_least(PUBLISHED),
        note="Their networks have no attention and no classes; their windows grow to the whole image as the noise "
        "does, those of this run are no wider than --forms.equivariant-windows, and know fewer training images.",
        one_network=True,
    ),
    Claim(
        "samples-order",
        "Windows at all places explain the network's images better than windows at their own place, and windows from "
        "the data's Wiener filter better still, as Kamb and Ganguli and Lukoianov et al. (arXiv 2509.09672) report; "
        "one part each.",
        all_of(
            Claim(
                "samples-order-equivariant",
                "Equivariant training points make images nearer to the network's than local training points do (value: "
                f"{_R2} of the former less that of the latter, mean over noises).",
                at_least(0.0),
            ),
            Claim(
                "samples-order-wiener",
                "Training points with windows from the data's Wiener filter make images nearer to the network's than "
                f"equivariant ones do (value: {_R2} of the former less that of the latter, mean over noises).",
                at_least(0.0),
            ),
        ),
        note="The equivariant points are fewer (--forms.equivariant-images of each class) and their windows are no "
        "wider than --forms.equivariant-windows: windows at all places cost hundreds of times as much.",
        one_network=True,
    ),
    Claim(
        "samples-gaussian",
        "The Gaussian of the training images makes images nearer to the network's than the training points do (value: "
        f"{_R2} of the Gaussian less that of the points, mean over noises).",
        at_least(0.0),
        one_network=True,
    ),
    Claim(
        "samples-second",
        "Another network, trained in the run on the same images, makes images nearer to the network's than every "
        f"closed form does (value: {_R2} of the other network less that of the closed form with the largest mean, mean "
        "over noises).",
        at_least(0.0),
        note="The closed form is chosen on the same noises, which favours it.",
        one_network=True,
    ),
    Claim(
        "samples-null",
        "A control: the images of every closed form, one part each, are nearer to the network's from the same noise "
        f"than the network's own from other noise, of the same class, are (value: {_R2} of the closed form less that "
        "of the network's image from other noise, mean over noises).",
        each(at_least(0.0)),
        one_network=True,
    ),
)


@dataclass(frozen=True)
class Config(Options, prefix="samples"):
    """Images of the network and of every closed form from the same initial noises."""

    noises: int = option(20, ge=2)
    """Initial noises, of all classes in turn."""
    steps: int = option(12, ge=2)
    """Heun steps."""
    shown: int = option(10, ge=1, le="noises")
    """Noises whose images are shown."""


PRESETS = {
    "smoke": Config(noises=20, steps=2, shown=4),
    "default": Config(),
    "paper": Config(noises=1000, steps=18, shown=16),
}


def check(config: Config, subject: Subject) -> None:
    """As for the part forms, whose windows it takes; noises for two images of each class."""
    forms.check(subject.config.forms, subject)  # type: ignore[attr-defined]
    subject.in_turn(config.name("noises"), config.noises)


@dataclass(frozen=True)
class Found:
    """Images by the name of what made them, (n, h, w, c), and the number of groups, which come in turn."""

    images: Mapping[str, np.ndarray]
    groups: int

    @property
    def r2(self) -> dict[str, np.ndarray]:
        """r^2 of each image with the network's from the same noise, (n,)."""
        network = self.images[NETWORK]
        # The next noise of the same class.
        others = dict(self.images) | {OTHER: np.roll(network, self.groups, axis=0)}
        return {name: scores.r_squared(own, network) for name, own in others.items() if name != NETWORK}


def measure(config: Config, subject: Subject, run: Run) -> Found:
    """Samples of every family, a stage each."""
    own = subject.config.forms  # type: ignore[attr-defined]
    inputs = forms.measure(own, subject, replace(run, part="forms"))
    groups, network, random = subject.groups(config.noises), subject.pretrained.denoiser, subject.random
    sigmas = karras_sigmas(config.steps, *noise_range(network))
    makers: dict[str, Callable[[Group], Any]] = {
        NETWORK: lambda group: subject.of(network, group),
        SECOND: lambda group: subject.of(subject.trained(run.directory)[-1][1], group),
        RANDOM: lambda group: subject.of(random, group),
    }
    makers |= {name: scheduled(inputs, name) for name in FAMILIES}
    shape = subject.shape

    def samples(make: Callable[[Group], Any]) -> dict[str, np.ndarray]:
        found = np.empty((config.noises, *shape), np.float32)
        key = stream(run.key, "noise")
        for group in groups:
            size = len(group.held)
            found[group.held] = sample(make(group), key, group.held, sigmas, shape=shape, batch_size=size)
        return {"images": found}

    images = {}
    with Progress("samples of the family", total=len(makers), unit="denoisers") as bar:
        for name, make in makers.items():
            images[name] = run.stage(name.lower().replace(" ", "-"), samples, make)["images"]
            bar.update(1)
    return Found(images, len(groups))


def scheduled(inputs: forms.Found, family_name: str) -> Callable[[Group], Any]:
    """Makes a family's denoiser of a group of images: at each noise level the window that misses least."""
    nearest = inputs.nearest(family_name)
    used = list(dict.fromkeys(nearest))
    places = np.array([used.index(form) for form in nearest], np.int32)

    def make(group: Group) -> Any:
        if len(used) == 1:
            return used[0].build(group)
        return ByLevel(inputs.sigmas.astype(np.float32), places, tuple(form.build(group) for form in used))

    return make


def report(config: Config, subject: Subject, found: Found) -> Findings:
    """Medians of r^2, and the images."""
    r2 = found.r2
    medians = {name: analysis.median_interval(own, bounds=(-np.inf, 1.0)) for name, own in r2.items()}
    best = max(FAMILIES, key=lambda name: float(r2[name].mean()))
    near = max(FAMILIES, key=lambda name: float(medians[name].value))
    rows = np.stack([own[: config.shown] for own in found.images.values()])
    drawn = {name: one.map(lambda part: max(part, -1.0)) for name, one in medians.items()}
    return Findings(
        f"From the same noises the closed form nearest to the network's images is {near}: the median r^2 is "
        f"{medians[near].text('.3f')}, beside {medians[SECOND].text('.3f')} of a second network that is trained in the "
        f"run, {medians[GAUSSIAN].text('.3f')} of the Gaussian, {medians[POINTS].text('.3f')} of the training points "
        f"and {medians[OTHER].text('.3f')} of the network's own images from other noise.",
        claims={
            "samples-equivariant-level": medians[SHIFTED_POINTS],
            "samples-order": {
                "samples-order-equivariant": analysis.t_interval(r2[SHIFTED_POINTS] - r2[LOCAL_POINTS]),
                "samples-order-wiener": analysis.t_interval(r2[WIENER] - r2[SHIFTED_POINTS]),
            },
            "samples-gaussian": analysis.t_interval(r2[GAUSSIAN] - r2[POINTS]),
            "samples-second": analysis.t_interval(r2[SECOND] - r2[best]),
            "samples-null": {name: analysis.t_interval(r2[name] - r2[OTHER]) for name in FAMILIES},
        },
        figures={
            "family_samples": (
                plots.image_grid(rows, list(found.images), ["from the same initial noises"]),
                f"{config.steps} Heun steps.",
            ),
            "family_r2": (
                plots.interval_dots(list(drawn), {"median": list(drawn.values())}, quantity="r² (median)"),
                f"{config.noises} noises.",
            ),
        },
        tables=[
            Table(
                "r^2 of images from the same noises (median over noises)",
                ("made by", "r^2", "low", "high"),
                [(name, float(one.value), float(one.low), float(one.high)) for name, one in medians.items()],
            )
        ],
        metrics={"r2": {name: float(one.value) for name, one in medians.items()}},
    )


def costs(config: Config, plan: Plan) -> list[Cost]:
    """The network's samples, and those of the controls; those of closed forms cost about as much each."""
    return [
        replace(sampling_cost(plan.network, 3 * config.noises, 2 * config.steps - 1, config.noises), stage="samples")
    ]


PART = Part(
    "samples", "Images from the same noises",
    "Which closed form makes the network's images from the same noises?",
    "own", CLAIMS, FIGURES, measure, report, PRESETS, costs, check,
)  # fmt: skip
