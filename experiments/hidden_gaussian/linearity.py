"""How linear the network, its Gaussian and the multi-delta denoiser are (Figs 1 and 10 of the paper)."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dgu import analysis, plots
from dgu.core.errors import require
from dgu.core.typing import Key
from dgu.samplers import karras_sigmas
from experiments.hidden_gaussian.estimates import triple
from experiments.hidden_gaussian.subject import GAUSSIAN, NETWORK, PAPER, POINTS, Plan, Subject
from experiments.study import (
    Claim,
    Cost,
    Figure,
    Findings,
    Noted,
    NotTested,
    Options,
    Part,
    Run,
    Table,
    at_least,
    at_most,
    option,
)

#: Noise level up to which the multi-delta denoiser should be far from linear.
LOW_NOISE = 0.12

FIGURES = (
    Figure(
        "linearity",
        "Linearity scores of each denoiser against the noise level, in the paper's form and in that of its code; "
        "bands: 95 % intervals over pairs of images (Fig 1).",
        "fig-1",
    ),
    Figure("linearity_mixing", "The network's linearity scores for several mixing weights (Fig 10).", "fig-10"),
    Figure(
        "homogeneity_additivity",
        "The two halves of linearity: D(c x) against c D(x), and D(x1 + x2) against D(x1) + D(x2), where the "
        "denoiser is given another noise level than its input has.",
    ),
)


@dataclass(frozen=True)
class Config(Options, prefix="linearity"):
    """Linearity scores."""

    pairs: int = option(100, ge=2)
    """Pairs of images; each takes two."""
    levels: int = option(20, ge=2)
    """Noise levels; the paper's figure has 40."""
    squares: tuple[float, ...] = option((0.99, 0.8675, 0.745, 0.6225, 0.5), ge=0.0, le=1.0)
    """alpha^2 of the mixing weights, with alpha^2 + beta^2 = 1; 0.5 must be among them."""
    factors: tuple[float, ...] = (0.5, 2.0)
    """Factors of the homogeneity score."""
    least: float = option(0.96, ge=-1.0, le=1.0)
    """The paper's threshold for networks that generalise: the cosine score stays above it."""

    def check(self) -> None:
        """Equal weights are among the mixing weights, and no factor is 0."""
        require(0.5 in self.squares, "linearity.squares", self.squares, "in [0, 1], with 0.5 among them")
        usable = len(self.factors) >= 1 and all(self.factors)
        require(usable, "linearity.factors", self.factors, "one or more, none of them 0")


PRESETS = {
    "smoke": Config(pairs=8, levels=4, squares=(0.9, 0.5), factors=(0.5,)),
    "default": Config(),
    "paper": Config(levels=40),
}


def claims(config: Config) -> tuple[Claim, ...]:
    """What is tested."""
    return (
        Claim(
            "linearity-network",
            "At equal mixing weights the network's cosine score of linearity stays above the paper's threshold at "
            "every noise level (the least score is shown).",
            at_least(config.least),
            source="Fig 1",
        ),
        Claim(
            "linearity-multi-delta",
            "The multi-delta denoiser, which memorises, is far from linear at low noise (the largest cosine score at "
            f"sigma <= {LOW_NOISE:g} is shown).",
            at_most(0.9),
            source="Fig 1",
        ),
        Claim(
            "linearity-equal-weights",
            "The network's cosine score of linearity is least at equal mixing weights (shown: its excess over the "
            "least score of all weights, mean over noise levels).",
            at_most(0.01),
            source="Fig 10",
        ),
    )


def measure(config: Config, subject: Subject, run: Run) -> dict[str, analysis.LinearityScores]:
    """Scores of the three denoisers on the same noisy pairs."""
    sigmas, coefficients = _sigmas(config, subject), _coefficients(config)
    stored = {name: run.stage(name, _scores, config, subject, name, run.key) for name in (NETWORK, GAUSSIAN, POINTS)}
    return {name: analysis.LinearityScores(sigmas, coefficients, **scores) for name, scores in stored.items()}


def report(config: Config, subject: Subject, scores: dict[str, analysis.LinearityScores]) -> Findings:
    """Linearity at equal weights, over mixing weights, and in its two halves."""
    sigmas, network, mixes = _sigmas(config, subject), scores[NETWORK], len(config.squares)
    equal, pairs = config.squares.index(0.5), network.given.shape[-1]
    cosine, memorising = network.cosine(), scores[POINTS].cosine()
    worst = int(np.argmin(np.asarray(cosine.value)[:, equal]))
    low = np.flatnonzero(sigmas <= LOW_NOISE)
    # Over the levels: how far the cosine at equal weights lies above the least over all weights, image pair by image
    # pair.
    moduli = np.abs(network.products / (network.given * network.target))[:, :mixes]
    lowest = moduli.mean(axis=2).argmin(axis=1)
    gap = moduli[:, equal] - np.take_along_axis(moduli, lowest[:, None, None], axis=1)[:, 0]
    above = analysis.t_interval(gap.mean(axis=0), bounds=(-1, 1))
    found: dict[str, Any] = {
        "linearity-network": Noted(cosine[worst, equal], f"least at sigma = {sigmas[worst]:.3g}"),
        "linearity-multi-delta": NotTested(f"the lowest noise level is {sigmas[-1]:.3g}"),
        "linearity-equal-weights": NotTested("equal weights are the only ones"),
    }
    if len(low):
        highest = int(low[np.argmax(np.asarray(memorising.value)[low, equal])])
        found["linearity-multi-delta"] = Noted(
            memorising[highest, equal],
            f"at sigma = {sigmas[highest]:.3g}; exact for {len(subject.train)} images; the scores are not centred: "
            "images that share most of their mean score high whatever the denoiser",
        )
    if len(set(config.squares)) > 1:
        found["linearity-equal-weights"] = above
    at_equal = {
        name: {"cosine": np.asarray(one.cosine().value)[:, equal], "nmse": np.asarray(one.nmse().value)[:, equal]}
        for name, one in scores.items()
    }
    columns = [at_equal[name][score] for score in ("cosine", "nmse") for name in scores]
    header = ("sigma", *(f"cosine, {name}" for name in scores), *(f"NMSE, {name}" for name in scores))
    rows = [tuple(map(float, row)) for row in zip(sigmas, *columns)]
    return Findings(
        f"On {pairs} pairs of {subject.inputs} images the network's cosine score of linearity is at least "
        f"{np.asarray(cosine.value)[worst, equal]:.3f} (at sigma = {sigmas[worst]:.2g}); that of the multi-delta "
        "denoiser is as "
        f"low as {np.asarray(memorising.value)[:, equal].min():.3f}.",
        claims=found,
        figures={
            "linearity": plots.level_curves(
                [panel for form in ("paper", "code") for panel in _panels(scores, equal, form)], columns=2
            ),
            "linearity_mixing": plots.level_curves(_mixing(config, network), columns=2),
            "homogeneity_additivity": plots.level_curves(_halves(config, scores), columns=2),
        },
        tables=[Table("Linearity at equal weights", header, rows)],
        metrics={**at_equal, "sigmas": sigmas, "paper": PAPER},
    )


def _sigmas(config: Config, subject: Subject) -> np.ndarray:
    return karras_sigmas(config.levels, subject.sigmas[-1], subject.sigmas[0])[:-1]


def _coefficients(config: Config) -> np.ndarray:
    """Those of the mixing weights, then of the factors, then of the sum: (n, 2)."""
    scaled = np.stack([np.asarray(config.factors), np.zeros(len(config.factors))], axis=1)
    return np.concatenate([analysis.mixing_weights(config.squares), scaled, np.ones((1, 2))])


def _scores(config: Config, subject: Subject, name: str, key: Key) -> dict[str, np.ndarray]:
    images, sigmas = subject.some("linearity.pairs", config.pairs, each=2), _sigmas(config, subject)
    found = analysis.combination_scores(
        subject.model(name), images, sigmas, key, _coefficients(config), pairs=len(images) // 2
    )
    return {part: getattr(found, part) for part in ("products", "differences", "given", "target")}


def _panels(scores: dict[str, analysis.LinearityScores], equal: int, form: str) -> list[plots.LevelPanel]:
    """Both scores at equal weights, in the form of the ``"paper"`` or of its ``"code"``."""
    sigmas = scores[NETWORK].sigmas
    cosine = {name: triple(found.cosine(form), (slice(None), equal)) for name, found in scores.items()}
    nmse = {name: triple(found.nmse(form), (slice(None), equal)) for name, found in scores.items()}
    signed = "|cosine|" if form == "paper" else "cosine"
    over = "by the mix" if form == "paper" else "by the outputs' sum"
    return [
        plots.LevelPanel(f"{signed}, {form}'s form", signed, sigmas, cosine),
        plots.LevelPanel(f"NMSE, {form}'s form", f"NMSE ({over})", sigmas, nmse),
    ]


def _mixing(config: Config, network: analysis.LinearityScores) -> list[plots.LevelPanel]:
    """A curve for each mixing weight."""
    labels = [f"$\\alpha^2$ = {square:g}" for square in config.squares]
    cosine = {label: triple(network.cosine(), (slice(None), k)) for k, label in enumerate(labels)}
    nmse = {label: triple(network.nmse(), (slice(None), k)) for k, label in enumerate(labels)}
    return [
        plots.LevelPanel("cosine", "|cosine|", network.sigmas, cosine),
        plots.LevelPanel("NMSE", "NMSE (by the mix)", network.sigmas, nmse),
    ]


def _halves(config: Config, scores: dict[str, analysis.LinearityScores]) -> list[plots.LevelPanel]:
    """A panel for each factor of the homogeneity score, and one for additivity."""
    first, sigmas = len(config.squares), scores[NETWORK].sigmas
    titles = [f"homogeneity, c = {factor:g}" for factor in config.factors] + ["additivity"]
    panels = []
    for k, title in enumerate(titles):
        curves = {name: triple(found.nmse(), (slice(None), first + k)) for name, found in scores.items()}
        panels.append(plots.LevelPanel(title, "NMSE (by the output)", sigmas, curves))
    return panels


def check(config: Config, subject: Subject) -> None:
    """Refuse what cannot be used before any work."""
    subject.some("linearity.pairs", config.pairs, each=2)


def costs(config: Config, plan: Plan) -> list[Cost]:
    """Evaluations of the network."""
    evaluations = config.pairs * config.levels * (2 + len(config.squares) + len(config.factors) + 1)
    return [plan.cost("linearity", evaluations, 64)]


PART = Part(
    name="linearity",
    title="Linearity",
    question="How linear are the network, its Gaussian and the multi-delta denoiser over noise levels?",
    paper=PAPER,
    presets=PRESETS,
    claims=claims,
    figures=FIGURES,
    measure=measure,
    report=report,
    costs=costs,
    check=check,
)
