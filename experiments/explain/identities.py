"""Identities that a posterior mean obeys: are the network's errors as large and as skewed as its derivatives say, and
what likelihood do its losses stand for? Beside a closed form that obeys them and one that is spoilt."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Float

from dgu import analysis, plots
from dgu.analysis.stats.estimates import Estimate
from dgu.core.keys import stream
from dgu.models import GaussianDenoiser, MoLRGDenoiser
from experiments.explain import scores
from experiments.explain.subject import Plan, Subject
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
    within,
)
from experiments.study.progress import Progress
from experiments.subjects import evaluation_cost

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

#: Largest gap of second moments as a share of the squared error, of third moments as a share of its power 3/2, and of
#: information in nats for each number of an image.
SECOND, THIRD, NATS = 0.05, 0.2, 0.02
#: What is tested, and the factor that spoils a closed form.
NETWORK, EXACT, SPOILT, FACTOR = "network", "mixture on its own draws", "0.9 times the mixture", 0.9
#: Range of the levels of the moments, and of the losses that information is integrated from.
_LEVELS, _INTEGRATED = (0.05, 20.0), (0.05, 80.0)
#: Largest rank of a component of the mixture.
_RANK = 16

_MOMENTS = (
    "second moments, E |e|^2 = sigma^2 E tr J of the errors e and the Jacobian J (as a share of the mean squared "
    "error), and third ones along the noisy image x, E (x . e / |x|) |e|^2 = sigma^4 E (x / |x|) . grad tr J (as a "
    "share of the power 3/2 of the mean squared error)"
)
FIGURES = (
    Figure(
        "identities_gaps",
        f"By how much errors and derivatives disagree, 0 for a posterior mean: {_MOMENTS}, of the network on held-out "
        "images, and of a mixture of two Gaussians on its own draws, whole and with its output times 0.9. Mean over "
        "images with 95 % intervals; the lines are the margins of the claims.",
    ),
    Figure(
        "identities_information",
        "Information in nats, for each number of an image, that a held-out image noised to a level keeps of the clean "
        "one, by the losses at all higher levels: an upper bound, the lower the better the denoiser. Mean over images "
        "with 95 % intervals.",
    ),
)

_SECOND = "mean of |e|^2 - sigma^2 tr J over images as a share of the mean squared error, mean over the noise levels"
_THIRD = (
    "mean of (x . e / |x|) |e|^2 - sigma^4 (x / |x|) . grad tr J over images as a share of the power 3/2 of the mean "
    "squared error, mean over the noise levels"
)
CLAIMS = (
    Claim(
        "identities-second",
        "The network's squared errors on held-out images are on average what its Jacobian says, as those of a "
        "posterior mean are, within a twentieth; at high, intermediate and low noise levels, one part each (value: "
        f"{_SECOND}).",
        each(within(-SECOND, SECOND)),
        one_network=True,
    ),
    Claim(
        "identities-third",
        "The network's errors on held-out images are as skewed along the noisy image as its second derivatives say, as "
        "those of a posterior mean are; at high, intermediate and low noise levels, one part each (value: "
        f"{_THIRD}).",
        each(within(-THIRD, THIRD)),
        note="At high noise levels a posterior mean and a spoilt one hardly differ in third moments: the gap of "
        f"{FACTOR:g} times a mixture is about as large as the margin there, so that the claim says little.",
        one_network=True,
    ),
    Claim(
        "identities-likelihood",
        "The network's losses stand for a higher likelihood of held-out images, noised to the lowest level, than those "
        "of the Gaussian of its training images do (value: nats for each number of an image, of the network less those "
        "of the Gaussian, mean over images).",
        at_least(0.0),
        one_network=True,
    ),
    Claim(
        "identities-exact",
        "A control: the posterior mean of a mixture of two Gaussians obeys the identities of second and of third "
        "moments on its own draws, one part each.",
        all_of(
            Claim("identities-exact-second", f"Second moments (value: {_SECOND}).", within(-SECOND, SECOND)),
            Claim("identities-exact-third", f"Third moments (value: {_THIRD}).", within(-THIRD, THIRD)),
        ),
    ),
    Claim(
        "identities-spoilt",
        f"A control: {FACTOR:g} times this posterior mean does not obey the identity of second moments on the same "
        f"draws: its errors are larger than its Jacobian says by more than the margin (value: {_SECOND}).",
        at_least(SECOND),
    ),
    Claim(
        "identities-information",
        "A control: the losses of the Gaussian of the training images on its own draws give the information of its "
        "eigenvalues at the lowest level (value: nats for each number of an image less the exact ones, mean over "
        "draws).",
        within(-NATS, NATS),
    ),
)


@dataclass(frozen=True)
class Config(Options, prefix="identities"):
    """Second and third moments, and information."""

    held_out: int = option(200, ge=4)
    """Held-out images that are noised and denoised."""
    levels: int = option(6, ge=2)
    """Noise levels of the moments, in equal ratios."""
    draws: int = option(2000, ge=20)
    """Draws of the closed forms."""
    integrated: int = option(16, ge=4)
    """Noise levels of the losses that information is integrated from, in equal ratios."""


PRESETS = {
    "smoke": Config(held_out=20, levels=3, draws=100, integrated=8),
    "default": Config(),
    "paper": Config(held_out=2000, levels=12, draws=20_000, integrated=32),
}


def check(config: Config, subject: Subject) -> None:
    """There are enough held-out images."""
    subject.check()
    subject.inputs(config.name("held_out"), config.held_out)
    subject.in_turn(config.name("held_out"), config.held_out)


@dataclass(frozen=True)
class Found:
    """What the part measures.

    Attributes:
        gaps: of the network, the closed form and the spoilt one.
        sigmas: levels of the losses, rising.
        information: nats for each number of an image, of the network and of the Gaussian on held-out images, (n,
            levels) each; "drawn" of the Gaussian on its own draws.
        exact: the information of the Gaussian at the lowest level.
    """

    gaps: "Mapping[str, analysis.MomentGaps]"
    sigmas: np.ndarray
    information: Mapping[str, np.ndarray]
    exact: float


def measure(config: Config, subject: Subject, run: Run) -> Found:
    """Moments and losses, a stage for each denoiser."""
    images, groups = subject.inputs(config.name("held_out"), config.held_out), subject.groups(config.held_out)
    network, law, gaussian = subject.pretrained.denoiser, two_gaussians(subject.sets[0].images), subject.gaussian
    levels = np.geomspace(*noise_range(network, *_LEVELS), config.levels)
    sigmas = np.geomspace(*noise_range(network, *_INTEGRATED), config.integrated)
    own = _draws(law, config.draws, stream(run.key, "draws"))
    tests: dict[str, list[tuple[Any, np.ndarray]]] = {
        NETWORK: [(subject.of(network, group), group.held) for group in groups],
        EXACT: [(law, np.arange(config.draws))],
        SPOILT: [(Scaled(law, FACTOR), np.arange(config.draws))],
    }
    gaps, information = {}, {}
    with Progress("identities", total=len(tests) + 3, unit="tests") as bar:
        for name, parts in tests.items():
            rows = images if name == NETWORK else own
            stored = run.stage(f"moments-{_slug(name)}", _moments, parts, rows, levels, stream(run.key, "moments"))
            gaps[name] = analysis.MomentGaps(levels, stored["errors"], stored["seconds"], stored["thirds"])
            bar.update(1)
        drawn = _draws(MoLRGDenoiser.from_gaussians([gaussian], gaussian.mean.size), config.draws, run.key)
        fitted = [(GaussianDenoiser.fit(group.train), group.held) for group in groups]
        of = {NETWORK: (tests[NETWORK], images), "Gaussian": (fitted, images)}
        of["drawn"] = ([(gaussian, np.arange(config.draws))], drawn)
        for name, (parts, rows) in of.items():
            stored = run.stage(f"information-{_slug(name)}", _information, parts, rows, sigmas, run.key)
            information[name] = stored["nats"]
            bar.update(1)
    lam = np.asarray(gaussian.variances, np.float64)
    exact = float(np.log1p(lam / sigmas[0] ** 2).sum() / 2 / images[0].size)
    return Found(gaps, sigmas, information, exact)


def _slug(name: str) -> str:
    return name.lower().replace(" ", "-").replace(".", "")


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Scaled:
    """A denoiser times a factor, which is no posterior mean."""

    law: Any
    factor: Any

    def __call__(self, x: Any, sigma: Any) -> Any:
        """``factor D(x, sigma)``."""
        return self.factor * self.law(x, sigma)


def two_gaussians(images: np.ndarray) -> MoLRGDenoiser:
    """A skewed law about the images: equal shares of the Gaussians of those on either side of the mean along their
    first principal component."""
    law = GaussianDenoiser.fit(images)
    rows = images.reshape(len(images), -1)
    side = (rows - np.asarray(law.mean).ravel()) @ np.asarray(law.basis)[:, 0] > 0
    return MoLRGDenoiser.from_gaussians([GaussianDenoiser.fit(images[side == which]) for which in (0, 1)], _RANK)


def _draws(law: MoLRGDenoiser, count: int, key: Any) -> np.ndarray:
    return np.asarray(jax.jit(jax.vmap(law.draw))(jax.random.split(key, count)))


def _moments(
    parts: list[tuple[Any, np.ndarray]], rows: np.ndarray, levels: np.ndarray, key: Any
) -> dict[str, np.ndarray]:
    """Gaps of each image, (levels, n), by denoiser and the numbers of its images."""
    found = {name: np.empty((len(levels), len(rows))) for name in ("errors", "seconds", "thirds")}
    for place, (denoiser, own) in enumerate(parts):
        gaps = analysis.moment_gaps(denoiser, rows[own], levels, stream(key, place), batch_size=32)
        for name, values in found.items():
            values[:, own] = getattr(gaps, name)
    return found


def _information(
    parts: list[tuple[Any, np.ndarray]], rows: np.ndarray, sigmas: np.ndarray, key: Any
) -> dict[str, np.ndarray]:
    """Information at each level by the losses of each image, (n, levels), in nats for each number."""
    found = np.empty((len(rows), len(sigmas)))
    for place, (denoiser, own) in enumerate(parts):
        losses = analysis.level_losses(denoiser, rows[own], stream(key, place), sigmas=sigmas, draws=1)
        found[own] = [analysis.mutual_information(sigmas, one) for one in losses]
    return {"nats": found / rows[0].size}


def share(
    values: Float[np.ndarray, "levels n"], errors: Float[np.ndarray, "levels n"], power: float
) -> Float[np.ndarray, "levels n"]:
    """Numbers whose mean over images is ``mean(values) / mean(errors)^power``, and whose spread is that of this ratio
    (to first order)."""
    scale = errors.mean(axis=1, keepdims=True)
    ratio = values / scale**power
    return ratio - power * ratio.mean(axis=1, keepdims=True) * (errors / scale - 1)


def shares(gaps: "analysis.MomentGaps") -> tuple[np.ndarray, np.ndarray]:
    """Gaps of second and of third moments as shares of the squared error, (levels, n) each."""
    return share(gaps.seconds, gaps.errors, 1.0), share(gaps.thirds, gaps.errors, 1.5)


def claims_of(found: Found) -> dict[str, Any]:
    """What was measured for each claim."""
    inside = scores.bands(found.gaps[NETWORK].sigmas)
    second, third = shares(found.gaps[NETWORK])
    every = np.ones(len(second), bool)
    exact_second, exact_third = shares(found.gaps[EXACT])
    bound = {name: nats[:, 0] for name, nats in found.information.items()}
    return {
        "identities-second": {band: scores.over_band(second, own) for band, own in inside.items()},
        "identities-third": {band: scores.over_band(third, own) for band, own in inside.items()},
        # Both are of the same noisy images: the entropy of the noise drops out of the difference.
        "identities-likelihood": analysis.t_interval(bound["Gaussian"] - bound[NETWORK]),
        "identities-exact": {
            "identities-exact-second": scores.over_band(exact_second, every),
            "identities-exact-third": scores.over_band(exact_third, every),
        },
        "identities-spoilt": scores.over_band(shares(found.gaps[SPOILT])[0], every),
        "identities-information": analysis.t_interval(bound["drawn"] - found.exact),
    }


def report(config: Config, subject: Subject, found: Found) -> Findings:
    """Gaps over levels, and information."""
    sigmas, claims = found.gaps[NETWORK].sigmas, claims_of(found)
    rows = [
        (f"{sigma:.3g}", name, *(_text(part[level]) for part in shares(gaps)))
        for name, gaps in found.gaps.items()
        for level, sigma in enumerate(sigmas)
    ]
    gap: Estimate = claims["identities-likelihood"]
    largest = max(claims["identities-second"].values(), key=lambda one: abs(float(one.value)))
    return Findings(
        "The squared errors of the network on held-out images differ from what its Jacobian says by at most "
        f"{largest.text('.3g')} of their size, mean over a band of noise levels ({_text(shares(found.gaps[EXACT])[0])} "
        f"of a posterior mean on its own draws, {_text(shares(found.gaps[SPOILT])[0])} of {FACTOR:g} times it). "
        f"Its losses stand for {gap.text('.3g')} nats more of log likelihood, for each number of an image noised to "
        f"{found.sigmas[0]:.3g}, than those of the Gaussian.",
        claims=claims,
        figures={"identities_gaps": _gaps(found), "identities_information": _informed(found)},
        tables=[Table("Gaps of the identities", ("sigma", "denoiser", "second moments", "third moments"), rows)],
        metrics={name: gaps.squared_error for name, gaps in found.gaps.items()},
    )


def _text(values: np.ndarray) -> str:
    """The mean over the last axis (and the levels), with its interval."""
    return analysis.t_interval(values.reshape(-1, values.shape[-1]).mean(axis=0)).text(".3g")


def _gaps(found: Found) -> "Drawing":
    panels = []
    kinds = (("second moments", SECOND, "gap / squared error"), ("third moments", THIRD, "gap / squared error^(3/2)"))
    for place, (title, margin, quantity) in enumerate(kinds):
        curves = {name: analysis.t_interval(shares(gaps)[place]) for name, gaps in found.gaps.items()}
        marks = {"margins": margin, "": -margin}
        panels.append(plots.LevelPanel(title, quantity, found.gaps[NETWORK].sigmas, curves, marks=marks))
    return plots.level_curves(panels, columns=2)


def _informed(found: Found) -> "Drawing":
    curves = {name: analysis.t_interval(found.information[name].T) for name in (NETWORK, "Gaussian")}
    panel = plots.LevelPanel("held-out images", "information kept (nats for each number)", found.sigmas, curves)
    return plots.level_curves([panel], columns=1)


def costs(config: Config, plan: Plan) -> list[Cost]:
    """Evaluations of the network: two derivatives cost about as much as five of them."""
    count = config.held_out * (5 * config.levels + config.integrated)
    return [evaluation_cost(plan.network, "identities", count, 1)]


PART = Part(
    "identities", "Identities of a posterior mean",
    "Are the network's errors as large and as skewed as its derivatives say, and what likelihood do its losses mean?",
    "own", CLAIMS, FIGURES, measure, report, PRESETS, costs, check,
)  # fmt: skip
