"""Linearity of the network, of its Gaussian and of the multi-delta denoiser (Figs 1 and 10)."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from dgu import analysis, plots
from dgu.core.errors import require
from dgu.core.keys import seeded, stream
from dgu.samplers import karras_sigmas
from experiments.hidden_gaussian_parts.subject import PAPER, Plan, Subject, bounded, triple
from experiments.study.costs import Cost
from experiments.study.options import check_options
from experiments.study.report import FigureEntry, Section, Table
from experiments.study.run_directory import RunDirectory

CLAIM_IDS = ("linearity-network", "linearity-multi-delta", "linearity-equal-weights")
#: Noise up to which the multi-delta denoiser should be far from linear.
LOW_NOISE = 0.12
FIGURE_FILES = ("figures/linearity.png", "figures/linearity_mixing.png", "figures/homogeneity_additivity.png")


@dataclass(frozen=True)
class Config:
    """Linearity scores."""

    pairs: int = 100
    """Pairs of images; each takes two."""
    levels: int = 20
    """Noise levels; the paper's figure has 40."""
    squares: tuple[float, ...] = (0.99, 0.8675, 0.745, 0.6225, 0.5)
    """alpha^2 of the mixing weights, alpha^2 + beta^2 = 1; 0.5 must be among them."""
    factors: tuple[float, ...] = (0.5, 2.0)
    """Factors of the homogeneity score."""
    least: float = 0.96
    """The paper's bound for networks that generalise: the cosine stays above it."""

    def __post_init__(self) -> None:
        check_options(self, "linearity", pairs=2, levels=2, squares="[0, 1]", least="[-1, 1]")
        require(0.5 in self.squares, "linearity.squares", self.squares, "in [0, 1], with 0.5 among them")
        require(
            len(self.factors) >= 1 and all(self.factors),
            "linearity.factors",
            self.factors,
            "one or more, none of them 0",
        )


def run(config: Config, subject: Subject, directory: RunDirectory, seed: int) -> Section:
    """Scores of the three denoisers on the same noisy pairs."""
    images = subject.some("linearity.pairs", config.pairs, each=2)
    sigmas = karras_sigmas(config.levels, subject.sigmas[-1], subject.sigmas[0])[:-1]
    mixes = analysis.mixing_weights(config.squares)
    scaled = np.stack([np.asarray(config.factors), np.zeros(len(config.factors))], axis=1)
    coefficients = np.concatenate([mixes, scaled, np.ones((1, 2))])
    key = stream(seeded(seed), "linearity")
    models = {"network": subject.denoiser, "Gaussian": subject.gaussian, "multi-delta": subject.points}

    def compute(model: Any) -> dict[str, np.ndarray]:
        found = analysis.combination_scores(model, images, sigmas, key, coefficients, pairs=len(images) // 2)
        return {name: getattr(found, name) for name in ("products", "differences", "given", "target")}

    scores = {}
    for name, model in models.items():
        stored = directory.stage(f"linearity/{name}", partial(compute, model))
        scores[name] = analysis.LinearityScores(sigmas, coefficients, **stored)
    equal = config.squares.index(0.5)
    mixed = slice(0, len(mixes))

    def panels(form: str) -> list[plots.LevelPanel]:
        cosine = {name: triple(found.cosine(form), (slice(None), equal)) for name, found in scores.items()}
        nmse = {name: triple(found.nmse(form), (slice(None), equal)) for name, found in scores.items()}
        signed = "|cosine|" if form == "paper" else "cosine"
        over = "by the mix" if form == "paper" else "by the outputs' sum"
        return [
            plots.LevelPanel(f"{signed}, {form}'s form", signed, sigmas, cosine),
            plots.LevelPanel(f"NMSE, {form}'s form", f"NMSE ({over})", sigmas, nmse),
        ]

    directory.save_figure(FIGURE_FILES[0], plots.level_curves([*panels("paper"), *panels("code")], columns=2))
    network = scores["network"]
    by_mix = {
        f"$\\alpha^2$ = {square:g}": (
            triple(network.cosine(), (slice(None), k)),
            triple(network.nmse(), (slice(None), k)),
        )
        for k, square in enumerate(config.squares)
    }
    mixing = [
        plots.LevelPanel("cosine", "|cosine|", sigmas, {name: both[0] for name, both in by_mix.items()}),
        plots.LevelPanel("NMSE", "NMSE (by the mix)", sigmas, {name: both[1] for name, both in by_mix.items()}),
    ]  # fmt: skip
    directory.save_figure(FIGURE_FILES[1], plots.level_curves(mixing, columns=2))
    directory.save_figure(FIGURE_FILES[2], plots.level_curves(_halves(config, scores, sigmas, len(mixes)), columns=2))

    cosine = network.cosine()
    worst = int(np.argmin(cosine.estimate[:, equal]))  # type: ignore[index]
    low = sigmas <= LOW_NOISE
    memorising = scores["multi-delta"].cosine()
    highest = int(np.flatnonzero(low)[np.argmax(memorising.estimate[low, equal])]) if low.any() else len(sigmas) - 1  # type: ignore[index]
    values = np.abs(network.products / (network.given * network.target))[:, mixed]
    # Over the levels: how far the cosine at equal weights lies above the least over all weights, image pair by image pair.
    lowest = values.mean(axis=2).argmin(axis=1)
    gap = values[:, equal] - np.take_along_axis(values, lowest[:, None, None], axis=1)[:, 0]
    above = analysis.t_interval(gap.mean(axis=0), bounds=(-1, 1))
    claims = [
        bounded("at_least", cosine, (worst, equal), config.least, id="linearity-network", figure="Fig 1",
                statement="At equal mixing weights the network's cosine score stays high at every noise level (the least is shown).",
                unit="", note=f"least at sigma = {sigmas[worst]:.3g}"),
        bounded("at_most", memorising, (highest, equal), 0.9, id="linearity-multi-delta", figure="Fig 1",
                statement=f"The multi-delta denoiser, which memorises, is far from linear at low noise (the largest score at sigma <= {LOW_NOISE:g} is shown).",
                unit="", note=f"at sigma = {sigmas[highest]:.3g}; exact for {len(subject.train)} images; the scores are not centred: images that share most of their mean score high whatever the denoiser").unless("" if low.any() else f"the lowest noise level is {sigmas[-1]:.3g}"),
        bounded("at_most", above, (), 0.01, id="linearity-equal-weights", figure="Fig 10",
                statement="The network's cosine score is least at equal mixing weights: the excess over the least of all weights, mean over levels.",
                unit="").unless("" if len(set(config.squares)) > 1 else "equal weights are the only ones"),
    ]  # fmt: skip
    rows = [
        (float(sigma), *(float(scores[name].cosine().estimate[k, equal]) for name in scores),  # type: ignore[index]
         *(float(scores[name].nmse().estimate[k, equal]) for name in scores))  # type: ignore[index]
        for k, sigma in enumerate(sigmas)
    ]  # fmt: skip
    answer = (
        f"On {len(images) // 2} pairs of {subject.inputs} images the network's cosine score is at least {cosine.estimate[worst, equal]:.3f} "  # type: ignore[index]
        f"(at sigma = {sigmas[worst]:.2g}); that of the multi-delta denoiser is {memorising.estimate[:, equal].min():.3f}. "  # type: ignore[index]
    )
    return Section(
        "Linearity",
        answer,
        claims,
        [
            FigureEntry(FIGURE_FILES[0], "Linearity scores against the noise level, in the paper's form and in that of its code; bands: 95 % intervals over pairs (Fig 1)."),
            FigureEntry(FIGURE_FILES[1], "The network's scores for several mixing weights (Fig 10)."),
            FigureEntry(FIGURE_FILES[2], "The two halves of linearity: D(c x) against c D(x), and D(x1 + x2) against D(x1) + D(x2), where the level told is not that of the input."),
        ],
        [Table("Linearity at equal weights", ("sigma", *(f"cosine, {n}" for n in scores), *(f"NMSE, {n}" for n in scores)), rows)],
        {name: {"cosine": found.cosine().estimate[:, equal], "nmse": found.nmse().estimate[:, equal]}  # type: ignore[index]
         for name, found in scores.items()} | {"sigmas": sigmas, "paper": PAPER},
    )  # fmt: skip


def _halves(config: Config, scores: dict, sigmas: np.ndarray, first: int) -> list[plots.LevelPanel]:
    """A panel for each factor of the homogeneity score, and one for additivity."""
    names = [f"homogeneity, c = {factor:g}" for factor in config.factors] + ["additivity"]
    return [
        plots.LevelPanel(title, "NMSE (by the output)", sigmas,
                         {name: triple(found.nmse(), (slice(None), first + k)) for name, found in scores.items()})
        for k, title in enumerate(names)
    ]  # fmt: skip


def check(config: Config, subject: Subject) -> None:
    """Refuses what cannot be used before any work."""
    subject.some("linearity.pairs", config.pairs, each=2)


def costs(config: Config, plan: Plan) -> list[Cost]:
    """What the part would cost."""
    evaluations = config.pairs * config.levels * (2 + len(config.squares) + len(config.factors) + 1)
    return [plan.cost("linearity", evaluations, 64)]


PRESETS = {
    "smoke": replace(Config(), pairs=8, levels=4, squares=(0.9, 0.5), factors=(0.5,)),
    "default": Config(),
    "paper": Config(levels=40),
}
