"""How linear the network, its Gaussian and the multi-delta denoiser are (Figs 1 and 10 of the paper), beside controls.

The controls have learned nothing: an untrained network, and the skip ``c_skip x`` alone. What the network adds to the
skip is looked at in ``contribution``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from dgu import analysis, plots
from dgu.core.errors import require
from dgu.core.keys import stream
from dgu.core.typing import Key
from dgu.samplers import karras_sigmas
from experiments import study
from experiments.hidden_gaussian import by_level, contribution
from experiments.hidden_gaussian.subject import GAUSSIAN, NETWORK, PAPER, POINTS, RANDOM, SKIP, Plan, Subject
from experiments.study import Claim, Figure, Findings, NotTested, Run, at_least, at_most, option

#: Noise level up to which the multi-delta denoiser should be far from linear, and its largest score there.
LOW_NOISE, FAR = 0.12, 0.9
#: Largest excess of the score at equal mixing weights over the least of all weights.
EXCESS = 0.01
#: Denoisers that are scored, the controls last.
NAMES = (NETWORK, GAUSSIAN, POINTS, RANDOM, SKIP)
#: What the score is, in statements of claims.
SCORE = "cosine of linearity (between the output at a combination of two noisy images and that combination of outputs)"

FIGURES = (
    Figure(
        "linearity",
        "Linearity scores of each denoiser against the noise level, in the paper's form and in that of its code, "
        "beside controls that have learned nothing: an untrained network, all of whose layers are random, and the skip "
        "c_skip x alone, whose cosine is 1 by definition, as is that of an untrained network whose last layer starts "
        "at zero; bands: 95 % intervals over pairs of images (Fig 1).",
        "fig-1",
    ),
    contribution.FIGURE,
    Figure("linearity_mixing", "The network's linearity scores for several mixing weights (Fig 10).", "fig-10"),
    Figure(
        "homogeneity_additivity",
        "The two halves of linearity: D(c x) against c D(x), and D(x1 + x2) against D(x1) + D(x2), where the "
        "denoiser is given another noise level than its input has.",
    ),
)


@dataclass(frozen=True)
class Config(study.Options, prefix="linearity"):
    """Linearity scores."""

    pairs: int = option(100, ge=2)
    """Pairs of images; each takes two."""
    triples: int = option(100, ge=2)
    """Triples of images for what the network adds to its skip; each takes three."""
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
    "smoke": Config(pairs=8, triples=6, levels=4, squares=(0.9, 0.5), factors=(0.5,)),
    "default": Config(),
    "paper": Config(levels=40),
}


def claims(config: Config) -> tuple[Claim, ...]:
    """What is tested."""
    return (
        Claim(
            "linearity-network",
            f"The network is nearly linear: its {SCORE}, with both images mixed in equally, is at least "
            f"{config.least:g}, the paper's threshold, at every noise level (value: the least over noise levels). By "
            "itself this says little, as the skip c_skip x alone scores 1: linearity-contribution decides.",
            at_least(config.least),
            source="Fig 1",
            one_network=True,
        ),
        contribution.CLAIM,
        Claim(
            "linearity-multi-delta",
            "The multi-delta denoiser, which knows the training images by heart, is far from linear at low noise: its "
            f"{SCORE}, with both images mixed in equally, is at most {FAR:g} at every noise level sigma <= "
            f"{LOW_NOISE:g} (value: the largest of these levels).",
            at_most(FAR),
            source="Fig 1",
        ),
        Claim(
            "linearity-equal-weights",
            f"The network is least linear where both images are mixed in equally: its {SCORE} exceeds the least over "
            f"all mixing weights by at most {EXCESS:g} there (value: the excess, mean over noise levels).",
            at_most(EXCESS),
            source="Fig 10",
            one_network=True,
        ),
    )


@dataclass(frozen=True)
class Measured:
    """What was measured, by name: of whole denoisers on the same noisy pairs, and of what they add to the skip."""

    scores: dict[str, analysis.LinearityScores]
    contributions: dict[str, analysis.ContributionScores]


def measure(config: Config, subject: Subject, run: Run) -> Measured:
    """Scores of the denoisers and of the controls."""
    sigmas, coefficients = _sigmas(config, subject), _coefficients(config)
    whole = {name: run.stage(name, _scores, config, subject, name, run.key) for name in NAMES}
    added = {
        name: run.stage(f"added-{name}", _contribution, config, subject, name, stream(run.key, "contribution"))
        for name in contribution.NAMES
    }
    return Measured(
        {name: analysis.LinearityScores(sigmas, coefficients, **stored) for name, stored in whole.items()},
        {name: analysis.ContributionScores(sigmas, **stored) for name, stored in added.items()},
    )


def report(config: Config, subject: Subject, measured: Measured) -> Findings:
    """Linearity at equal weights, over mixing weights, in its two halves, and of what is added to the skip."""
    scores, added = measured.scores, measured.contributions
    sigmas, network, equal = _sigmas(config, subject), scores[NETWORK], config.squares.index(0.5)
    cosine = {name: one.cosine()[:, equal] for name, one in scores.items()}
    at_equal = {
        name: {"cosine": np.asarray(cosine[name].value), "nmse": np.asarray(one.nmse()[:, equal].value)}
        for name, one in scores.items()
    }
    low = sigmas <= LOW_NOISE
    found: dict[str, Any] = {
        "linearity-network": by_level.least(
            cosine[NETWORK],
            sigmas,
            f"Least at {{}}. On the same measure the bare skip, and an untrained network whose last layer starts at "
            f"zero, score {at_equal[SKIP]['cosine'].min():.4f}, one with random layers at least "
            f"{at_equal[RANDOM]['cosine'].min():.4f}.",
        ),
        "linearity-contribution": contribution.tested(added),
        "linearity-multi-delta": NotTested(f"the lowest noise level is {sigmas[-1]:.3g}"),
        "linearity-equal-weights": NotTested("equal weights are the only ones"),
    }
    if low.any():
        found["linearity-multi-delta"] = by_level.largest(
            cosine[POINTS],
            sigmas,
            f"At {{}}; the denoiser is exact for {len(subject.train)} images. The cosines are not centred: of images "
            "that share most of their mean they are high whatever the denoiser.",
            among=low,
        )
    if len(set(config.squares)) > 1:
        found["linearity-equal-weights"] = _excess(network.each_cosine()[:, : len(config.squares)], equal)
    columns = {"cosine": "cosine", "NMSE": "nmse"}
    worst = int(at_equal[NETWORK]["cosine"].argmin())
    panels = [
        panel
        for form in ("paper", "code")
        for panel in _panels(
            {name: (one, equal) for name, one in scores.items()},
            form,
            (f"{'|cosine|' if form == 'paper' else 'cosine'}, {form}'s form", f"NMSE, {form}'s form"),
        )
    ]
    mixes = {f"$\\alpha^2$ = {square:g}": (network, place) for place, square in enumerate(config.squares)}
    return Findings(
        f"On {network.given.shape[-1]} pairs of {subject.inputs} images the network's cosine score of linearity is at "
        f"least {at_equal[NETWORK]['cosine'][worst]:.3f} (at sigma = {sigmas[worst]:.2g}); that of the multi-delta "
        f"denoiser is as low as {at_equal[POINTS]['cosine'].min():.3f}, that of an untrained network at least "
        f"{at_equal[RANDOM]['cosine'].min():.4f}, and that of the bare skip {at_equal[SKIP]['cosine'].min():.4f}. "
        f"{contribution.in_words(added)}".rstrip(),
        claims=found,
        figures={
            "linearity": plots.level_curves(panels, columns=2),
            "linearity_contribution": contribution.figure(added),
            "linearity_mixing": plots.level_curves(_panels(mixes, "paper", ("cosine", "NMSE")), columns=2),
            "homogeneity_additivity": plots.level_curves(_halves(config, scores), columns=2),
        },
        tables=[
            by_level.table(
                "Linearity at equal weights",
                {"sigma": sigmas}
                | {f"{head}, {name}": at_equal[name][score] for head, score in columns.items() for name in scores},
            ),
            contribution.table(added),
        ],
        metrics={**at_equal, "added": contribution.metrics(added), "sigmas": sigmas, "paper": PAPER},
    )


def _excess(cosine: np.ndarray, equal: int) -> analysis.Estimate:
    """How far the cosine at equal weights lies above the least over all weights, mean over levels, pair by pair.

    Args:
        cosine: of each image pair, ``(levels, weights, pairs)``.
        equal: the place of equal weights.
    """
    lowest = cosine.mean(axis=2).argmin(axis=1)
    gap = cosine[:, equal] - np.take_along_axis(cosine, lowest[:, None, None], axis=1)[:, 0]
    return analysis.t_interval(gap.mean(axis=0), bounds=(-1, 1))


def _sigmas(config: Config, subject: Subject) -> np.ndarray:
    return karras_sigmas(config.levels, subject.sigmas[-1], subject.sigmas[0])[:-1]


def _coefficients(config: Config) -> np.ndarray:
    """Those of the mixing weights, then of the factors, then of the sum: (n, 2)."""
    scaled = np.stack([np.asarray(config.factors), np.zeros(len(config.factors))], axis=1)
    return np.concatenate([analysis.mixing_weights(config.squares), scaled, np.ones((1, 2))])


def _scores(config: Config, subject: Subject, name: str, key: Key) -> dict[str, np.ndarray]:
    images, sigmas = subject.some("linearity.pairs", config.pairs, each=2), _sigmas(config, subject)
    return analysis.combination_scores(
        subject.model(name), images, sigmas, key, _coefficients(config), pairs=len(images) // 2
    ).measured


def _contribution(config: Config, subject: Subject, name: str, key: Key) -> dict[str, np.ndarray]:
    images, sigmas = subject.some("linearity.triples", config.triples, each=3), _sigmas(config, subject)
    skip = subject.skip.factor(jnp.asarray(sigmas))
    return analysis.contribution_scores(
        subject.model(name), images, sigmas, key, skip=skip, triples=len(images) // 3
    ).measured


def _panels(
    found: Mapping[str, tuple[analysis.LinearityScores, int]], form: str, titles: tuple[str, str]
) -> "list[plots.LevelPanel]":
    """Cosines and NMSE in the form of the ``"paper"`` or of its ``"code"``: a curve for each entry, scores and the
    place of one of their coefficients."""
    sigmas = next(iter(found.values()))[0].sigmas
    cosine = {name: scores.cosine(form)[:, place] for name, (scores, place) in found.items()}
    nmse = {name: scores.nmse(form)[:, place] for name, (scores, place) in found.items()}
    signed, over = ("|cosine|", "by the mix") if form == "paper" else ("cosine", "by the outputs' sum")
    return [
        plots.LevelPanel(titles[0], signed, sigmas, cosine),
        plots.LevelPanel(titles[1], f"NMSE ({over})", sigmas, nmse),
    ]


def _halves(config: Config, scores: dict[str, analysis.LinearityScores]) -> "list[plots.LevelPanel]":
    """A panel for each factor of the homogeneity score, and one for additivity."""
    panels = []
    for place, title in enumerate([*(f"homogeneity, c = {factor:g}" for factor in config.factors), "additivity"]):
        curves = {name: found.nmse()[:, len(config.squares) + place] for name, found in scores.items()}
        panels.append(plots.LevelPanel(title, "NMSE (by the output)", scores[NETWORK].sigmas, curves))
    return panels


def check(config: Config, subject: Subject) -> None:
    """Refuse what cannot be used before any work."""
    subject.some("linearity.pairs", config.pairs, each=2)
    subject.some("linearity.triples", config.triples, each=3)


def costs(config: Config, plan: Plan) -> list[study.Cost]:
    """Evaluations of the network and, as many again, of an untrained one."""
    of_pairs = config.pairs * (2 + len(config.squares) + len(config.factors) + 1)
    return [plan.cost("linearity", 2 * config.levels * (of_pairs + 4 * config.triples), 64)]


PART = study.Part(
    name="linearity",
    title="Linearity",
    question="How linear are the network, its Gaussian, the multi-delta denoiser and controls over noise levels?",
    paper=PAPER,
    presets=PRESETS,
    claims=claims,
    figures=FIGURES,
    measure=measure,
    report=report,
    costs=costs,
    check=check,
)
