"""Which closed form is the network, noise level by noise level and pixel by pixel? On common noisy images."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from dgu import analysis
from dgu.core.denoisers import as_pytree
from dgu.core.errors import require
from dgu.core.keys import stream
from dgu.core.noisy import noisy_batch
from dgu.models.windows import check_window
from experiments.explain import family, scores
from experiments.explain.family import (
    GAUSSIAN,
    LOCAL_GAUSSIAN,
    LOCAL_POINTS,
    POINTS,
    Design,
    Form,
)
from experiments.explain.subject import Plan, Subject
from experiments.sampling import noise_range
from experiments.study import (
    Claim,
    Cost,
    Figure,
    Measured,
    NotTested,
    Options,
    Run,
    all_of,
    at_least,
    each,
    option,
)
from experiments.study.progress import Progress
from experiments.subjects import evaluation_cost

#: The network, and the controls beside the closed forms.
NETWORK, SKIP, STATIONARY, RANDOM, SECOND = (
    "network", "bare skip", "stationary Wiener filter", "untrained network", "second network",
)  # fmt: skip
CONTROLS = (SKIP, STATIONARY, RANDOM, SECOND)
#: Least share of what the network adds to its skip that must be explained; least correlation of window and noise.
EXPLAINED, TREND = 0.5, 0.5

#: Operations for a pixel of a training image in the posterior mean of one pixel's window, about.
_OPERATIONS = 20

FIGURES = (
    Figure(
        "explain_levels",
        "How much of the network each closed form misses and explains, against the noise level. Above: the share "
        "missed of what the network adds to its skip c_skip x (NMSE), mean over held-out images; below: 1 - r^2 of "
        "whole denoised images, median. What lies below 0.001 is drawn there. Columns: forms that see the whole image; "
        "those that see a window around each pixel; equivariant ones and the others. Windows are chosen at each level "
        "on the other half of the images (NMSE), or on all (r^2). Bands: 95 % intervals over images.",
    ),
    Figure(
        "explain_windows",
        "The share missed of what the network adds to its skip (NMSE), against the noise level, for each side of the "
        "window; mean over held-out images with 95 % intervals.",
    ),
    Figure(
        "explain_pixels",
        "r^2 of each pixel over held-out images: black is 0 or less, and each third of the way to white is a nine "
        "(0.9, 0.99, 0.999 and above); a row for each form, with the window that misses least at each level, a column "
        "for each noise level. A pixel that hardly changes is held to a hundredth of the mean variance.",
    ),
)

_SHARE = "the share of what the network adds to its skip that is missed (NMSE, mean over the levels and over images)"
_CHOSEN = "windows are chosen at each level on other images than those that they are judged on"
_HIGH, _MIDDLE = f"noise levels of {scores.HIGH:g} and above", f"noise levels from {scores.LOW:g} to {scores.HIGH:g}"
CLAIMS = (
    Claim(
        "forms-explained",
        f"At high ({scores.HIGH:g} and above), intermediate and low (below {scores.LOW:g}) noise levels, one part "
        "each, the closed forms explain half or more of what the network adds to its skip (value: one minus the share "
        "that is missed by the form that misses least at each level on the other half of the images, mean over levels "
        "and images).",
        each(at_least(EXPLAINED)),
        one_network=True,
    ),
    Claim(
        "forms-gaussian-high",
        f"At {_HIGH} the network is nearer to the Gaussian of its training images than to the training points (value: "
        f"{_SHARE} by the points less that by the Gaussian, both of whole images).",
        at_least(0.0),
        one_network=True,
    ),
    Claim(
        "forms-local",
        f"At {_MIDDLE} training points seen through windows are nearer to the network than the Gaussian and the "
        "training points of whole images, one part each.",
        all_of(
            *(
                Claim(
                    f"forms-local-{name.lower()}",
                    f"At {_MIDDLE} training points seen through windows are nearer to the network than the {what} of "
                    f"whole images (value: {_SHARE} by the latter less that by the former; {_CHOSEN}).",
                    at_least(0.0),
                )
                for name, what in ((GAUSSIAN, "Gaussian"), (POINTS, "training points"))
            )
        ),
        one_network=True,
    ),
    Claim(
        "forms-beyond-gaussian",
        f"At {_MIDDLE} training points seen through windows are nearer to the network than Gaussians seen through "
        f"windows: locality is not all (value: {_SHARE} by the Gaussians less that by the points; {_CHOSEN}).",
        at_least(0.0),
        one_network=True,
    ),
    Claim(
        "forms-window",
        "The window through which training points are nearest to the network grows with the noise level (value: "
        "Spearman's correlation of level and best window at an image, mean over images).",
        at_least(TREND),
        one_network=True,
    ),
    Claim(
        "forms-second",
        f"At {_MIDDLE} another network, trained in the run on the same images, is nearer to the network than every "
        f"closed form (value: {_SHARE} by the form that misses least at each level on the other half of the images, "
        "less that by the other network).",
        at_least(0.0),
        one_network=True,
    ),
    Claim(
        "forms-untrained",
        "A control: closed forms are nearer to the network than the same network with random parameters is, at high, "
        "intermediate and low noise levels, one part each (value: the share missed by the untrained network less that "
        "by the form that misses least at each level on the other half of the images, mean over levels and images).",
        each(at_least(0.0)),
        one_network=True,
    ),
)


@dataclass(frozen=True)
class Config(Options, prefix="forms"):
    """Closed forms and controls beside the network on common noisy images."""

    held_out: int = option(40, ge=4)
    """Held-out images that are noised and denoised."""
    levels: int = option(10, ge=2)
    """Noise levels, in equal ratios."""
    sigma_min: float = option(0.02, gt=0.0)
    """Lowest noise level, raised to the network's."""
    sigma_max: float = option(40.0, gt=0.0)
    """Highest noise level, lowered to the network's."""
    windows: tuple[int, ...] = option((3, 5, 7, 9), ge=1)
    """Sides of the windows of local forms, odd and rising."""
    equivariant_windows: tuple[int, ...] = option((3, 5, 7), ge=1)
    """Those of equivariant training points, among --forms.windows, which cost most."""
    equivariant_images: int = option(30, ge=1)
    """Training images of each class of the equivariant training points, whose windows are at all places."""
    patches: tuple[int, ...] = option((3, 7, 11), ge=1)
    """Sides of the patches of the composites, rising."""
    clusters: int = option(3, ge=2)
    """Components of the mixture of images of one class; of images of several it has one for each class."""

    def check(self) -> None:
        """Windows and levels rise."""
        for name in ("windows", "equivariant_windows", "patches"):
            values = getattr(self, name)
            rising = bool(values) and list(values) == sorted(set(values))
            require(rising, self.name(name), values, "one or more, rising")
        among = set(self.equivariant_windows) <= set(self.windows)
        require(among, self.name("equivariant_windows"), self.equivariant_windows, "among --forms.windows")
        low, high = self.sigma_min, self.sigma_max
        require(low < high, self.name("sigma_min"), low, f"below forms.sigma_max = {high:g}")

    def design(self, key: Any) -> Design:
        """The members of the family."""
        return Design(self.windows, self.equivariant_windows, self.equivariant_images, self.patches, self.clusters, key)


PRESETS = {
    "smoke": Config(
        held_out=20, levels=3, windows=(3,), equivariant_windows=(3,), equivariant_images=4, patches=(5,), clusters=2
    ),
    "default": Config(),
    "paper": Config(
        held_out=1000, levels=18, windows=(3, 5, 7, 9, 11, 13), equivariant_windows=(3, 5, 7, 9, 11),
        equivariant_images=6000, patches=(3, 5, 7, 9, 11, 13),
    ),
}  # fmt: skip


def check(config: Config, subject: Subject) -> None:
    """The windows fit the images, of which there are enough."""
    subject.check()
    network = subject.pretrained.denoiser
    low, high = noise_range(network, config.sigma_min, config.sigma_max)
    wanted = f"such that levels up to forms.sigma_max = {config.sigma_max:g} meet those of the network, "
    wanted += f"{network.sigma_min:g} to {network.sigma_max:g}"
    require(low < high, config.name("sigma_min"), config.sigma_min, wanted)
    side = min(subject.shape[:2])
    for name in ("windows", "equivariant_windows"):
        for window in getattr(config, name):
            require(window % 2 == 1 and window <= side, config.name(name), window, f"odd and at most {side}")
            check_window(window, "zero", subject.shape)
    for patch in config.patches:
        require(patch <= side, config.name("patches"), patch, f"at most {side}, the smaller side of the images")
    allowed = f"at most images = {subject.count}"
    require(
        config.equivariant_images <= subject.count,
        config.name("equivariant_images"),
        config.equivariant_images,
        allowed,
    )
    least = 2 * config.clusters
    require(subject.count >= least, "images", subject.count, f"at least {least}, two for each of forms.clusters")
    subject.inputs(config.name("held_out"), config.held_out)
    subject.in_turn(config.name("held_out"), config.held_out)


@dataclass(frozen=True)
class Found:
    """What the part measures.

    Attributes:
        sigmas: noise levels, falling.
        noisy: inputs, (levels, n, h, w, c).
        outputs: of the network, the controls and every form, of the same shape, by name.
        forms: the closed forms.
        second: which half of the images each is in.
        elsewhere: NMSE of the form that misses least at each level on other data: the same images with their pixels
            shuffled, (levels, n); None before it is measured.
    """

    sigmas: np.ndarray
    noisy: np.ndarray
    outputs: Mapping[str, np.ndarray]
    forms: tuple[Form, ...]
    second: np.ndarray
    elsewhere: np.ndarray | None = None

    def missed(self, name: str) -> np.ndarray:
        """NMSE of a form or control, (levels, n)."""
        return scores.nmse(self.outputs[name], self.outputs[NETWORK], self.outputs[SKIP])

    def members(self, family_name: str) -> list[Form]:
        """The forms of a family, a window each."""
        return [form for form in self.forms if form.family == family_name]

    def candidates(self, family_name: str | None = None) -> np.ndarray:
        """NMSE of the forms of a family, or of all, (k, levels, n)."""
        found = self.forms if family_name is None else self.members(family_name)
        return np.stack([self.missed(form.name) for form in found])

    def judged(self, family_name: str | None = None) -> np.ndarray:
        """NMSE with the form chosen at each level on the other half of the images, (levels, n)."""
        return scores.chosen(self.candidates(family_name), self.second)

    def nearest(self, family_name: str | None = None) -> list[Form]:
        """The form of a family, or of all, that misses least at each level."""
        found = self.forms if family_name is None else self.members(family_name)
        return [found[place] for place in scores.least(self.candidates(family_name))]

    def at_best(self, family_name: str) -> np.ndarray:
        """Outputs of a family at the window that misses least at each level."""
        return np.stack([self.outputs[form.name][level] for level, form in enumerate(self.nearest(family_name))])


def measure(config: Config, subject: Subject, run: Run) -> Found:
    """All denoisers on common inputs, a stage each."""
    sigmas = subject.levels(config.levels, config.sigma_min, config.sigma_max)
    images, groups = subject.inputs(config.name("held_out"), config.held_out), subject.groups(config.held_out)
    noisy, other = (
        np.stack([np.asarray(noisy_batch(run.key, of, np.float32(s), level)) for level, s in enumerate(sigmas)])
        for of in (images, shuffled(images, run.seed))
    )
    forms = tuple(config.design(stream(run.key, "clusters")).forms())
    network, random = subject.pretrained.denoiser, subject.random

    def of(build: Callable[[Any], Any], inputs: np.ndarray, levels: np.ndarray) -> dict[str, np.ndarray]:
        found = np.zeros_like(inputs)  # Also where a level is not asked for.
        for group in groups:
            at = np.ix_(levels, group.held)
            found[at] = denoised(build(group), inputs[at], sigmas[levels])
        return {"images": found}

    controls: dict[str, Callable[[Any], Any]] = {
        NETWORK: lambda group: subject.of(network, group),
        SKIP: lambda group: subject.skip,
        STATIONARY: family.stationary,
        RANDOM: lambda group: subject.of(random, group),
        SECOND: lambda group: subject.of(subject.trained(run.directory)[-1][1], group),
    }
    outputs, every = {}, np.arange(len(sigmas))
    with Progress("closed forms", total=len(forms) + len(controls), unit="denoisers") as bar:
        for name, build in (*controls.items(), *((form.name, form.build) for form in forms)):
            slug = name.lower().replace(" ", "-")
            outputs[name] = run.stage(slug, of, build, noisy, every)["images"]
            bar.update(1)
    found = Found(sigmas, noisy, outputs, forms, scores.halves(len(groups), config.held_out))
    nearest = found.nearest()
    builds = {NETWORK: controls[NETWORK], SKIP: controls[SKIP]} | {form.name: form.build for form in nearest}
    there = {}
    with Progress("other data", total=len(builds), unit="denoisers") as bar:
        for name, build in builds.items():
            slug = f"elsewhere-{name.lower().replace(' ', '-')}"
            needed = every if name in controls else np.flatnonzero([form.name == name for form in nearest])
            there[name] = run.stage(slug, of, build, other, needed)["images"]
            bar.update(1)
    chosen = np.stack([there[form.name][level] for level, form in enumerate(nearest)])
    return replace(found, elsewhere=scores.nmse(chosen, there[NETWORK], there[SKIP]))


def shuffled(images: np.ndarray, seed: int) -> np.ndarray:
    """The images with their pixels in another order, the same one for all: other data, of the same pixel values."""
    order = np.random.default_rng([seed, 41]).permutation(images.shape[1] * images.shape[2])
    return images.reshape(len(images), len(order), -1)[:, order].reshape(images.shape)


def denoised(denoiser: Any, noisy: np.ndarray, sigmas: np.ndarray) -> np.ndarray:
    """``D(x, sigma)`` of inputs (levels, n, *event)."""
    levels, count = noisy.shape[:2]
    rows = noisy.reshape(-1, *noisy.shape[2:])
    found = _one_by_one(as_pytree(denoiser), rows, np.repeat(sigmas.astype(rows.dtype), count))
    return np.asarray(found).reshape(levels, count, *noisy.shape[2:])


@jax.jit
def _one_by_one(denoiser: Any, rows: Any, sigmas: Any) -> Any:
    return jax.lax.map(lambda one: denoiser(*one), (rows, sigmas))


def claims_of(config: Config, found: Found) -> dict[str, Measured]:
    """What was measured for each claim."""
    inside, best = scores.bands(found.sigmas), found.judged()
    none = "no noise level of this band was studied"

    def gap(band: str, far: np.ndarray, near: np.ndarray) -> Measured:
        return scores.over_band(far - near, inside[band]) if band in inside else NotTested(none)

    points, gaussians = found.judged(LOCAL_POINTS), found.judged(LOCAL_GAUSSIAN)
    middle = "intermediate"
    local: Measured = (
        {f"forms-local-{name.lower()}": gap(middle, found.missed(name), points) for name in (GAUSSIAN, POINTS)}
        if middle in inside
        else NotTested(none)
    )
    windows = np.array([form.window for form in found.members(LOCAL_POINTS)])[
        found.candidates(LOCAL_POINTS).argmin(axis=0)
    ]
    trends = analysis.rank_correlation(found.sigmas, windows.T)
    return {
        "forms-explained": {band: scores.over_band(1 - best, own) for band, own in inside.items()},
        "forms-gaussian-high": gap("high", found.missed(POINTS), found.missed(GAUSSIAN)),
        "forms-local": local,
        "forms-beyond-gaussian": gap(middle, gaussians, points),
        "forms-window": analysis.t_interval(trends, bounds=(-1, 1)),
        "forms-second": gap(middle, best, found.missed(SECOND)),
        "forms-untrained": {band: gap(band, found.missed(RANDOM), best) for band in inside},
    }


def costs(config: Config, plan: Plan) -> list[Cost]:
    """The network and its controls, and the training points of all windows, places and patches."""
    evaluations, (h, w, c) = config.levels * config.held_out, plan.network.shape
    shifted = sum((h + window // 2) * (w + window // 2) for window in config.equivariant_windows)
    compared = config.equivariant_images * shifted + plan.config.images * (len(config.windows) + h * w)
    points = Cost(
        "forms: training points",
        evaluations * (len(config.windows) + len(config.equivariant_windows) + len(config.patches) + 2),
        _OPERATIONS * evaluations * compared * h * w * c,
        about=f"About {_OPERATIONS} operations for each pixel of each training image and each place of a window.",
    )
    return [evaluation_cost(plan.network, "forms: networks", 4 * evaluations, 1), points]
