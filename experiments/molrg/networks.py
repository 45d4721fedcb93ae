"""From how many examples on do networks generalise? Scores against N and against N over the intrinsic dimension."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dgu import analysis, plots
from dgu.analysis.stats.estimates import Estimate, wilson
from dgu.models import EDMNetwork
from dgu.training import TrainingConfig
from experiments import study
from experiments.molrg.networks_arms import bracket, dense_curve, unet_curve
from experiments.molrg.networks_config import COMPONENTS, PRESETS, SHAPE, Config
from experiments.molrg.score_fits import Fits, collapse, crossed, ends, panels
from experiments.molrg.subject import PAPER, Plan, Subject
from experiments.study import Claim, Cost, Figure, Findings, Measured, Noted, at_least, at_most, within
from experiments.study.flop import network_flop
from experiments.subjects import training_cost

#: Room around the score of the true distribution, and training examples for each dimension at which networks reach it.
_ROOM, _TENS = 0.01, (30.0, 120.0)

FIGURES = (
    Figure(
        "generalisation",
        "Generalisation score: share of samples at least as far from the training set as the threshold, calibrated by "
        "fresh draws, against the number of training examples N and against N over the intrinsic dimension (Fig 4 of "
        "the paper). Dense networks are trained together, a point for each seed; U-Nets one by one by the library's "
        "loop.",
        "fig-4",
    ),
)


def claims(config: Config) -> tuple[Claim, ...]:
    """What is tested."""
    nearest = f"the nearest {100 * (1 - config.level):g} % of fresh draws"
    score = f"share of them that lie farther from the training set than {nearest} do"
    true = (
        f"A control: of draws of the true distribution, the generalisation score ({score}) is {config.level:g}, within "
        f"{_ROOM:g} (value: the mean over training sets, of several dimensions and numbers of examples)."
    )
    few = 0.01 if config.samples >= 400 else 0.1
    copies = (
        "A control: the samples of the multi-delta denoiser, which minimises the training loss, repeat the training "
        f"set: their generalisation score ({score}) is at most {few:g}."
    )
    collapse = (
        "Generalisation scores of {}, trained on N examples of intrinsic dimension ID, are a function of N / ID rather "
        "than of N: curves of different ID lie closer together over N / ID (value: the power of ID to which the "
        "midpoints of the curves are proportional, 1 for a function of N / ID and 0 for one of N; above 1/2, midpoints "
        "differ less in log2 (N / ID) than in log2 N)."
    )
    changed = (
        "the value was the standard deviation of the midpoints in log2 N less that in "
        "log2 (N / ID), held to 0; it is positive exactly where the power is above 1/2, but for curves that agree it "
        "is as large as it can be, so that its interval had no width."
    )
    crossing = (
        "{} reach the generalisation score {:g}, that of the true distribution, with {:g} to {:g} training examples "
        "for each intrinsic dimension of the data (value: the number of examples over the intrinsic dimension, N / ID, "
        "at which a sigmoid fitted to the scores is there; the paper finds 50 to 60 with U-Nets)."
    )
    dense, unet = (crossing.format(who, config.level, *_TENS) for who in ("Dense networks", "U-Nets"))
    tens = within(*_TENS)
    return (
        Claim("networks-true-law", true, within(config.level - _ROOM, config.level + _ROOM), "(46)", check=True),
        Claim("networks-multi-delta", copies, at_most(few), "(21)", check=True),
        Claim("networks-collapse", collapse.format("dense networks"), at_least(0.5), "Fig 4", changed=changed),
        Claim("networks-collapse-unet", collapse.format("U-Nets"), at_least(0.5), "Fig 4", changed=changed),
        Claim("networks-crossing", dense, tens, "Fig 4", "N / ID"),
        Claim("networks-unet", unet, tens, "Fig 4", "N / ID"),
    )


def measured(config: Config, bracket: dict[str, np.ndarray], dense: Fits, unet: Fits) -> dict[str, Measured]:
    """What was measured for ``claims``, from the scores that bracket those of networks, and from these."""
    dense_training = f"{config.optimisation.steps:,} updates of {config.width} x {config.depth} units"
    unet_training = f"{config.unet.steps:,} updates of {config.unet.batch_size} examples"
    true, copies = analysis.t_interval(bracket["true_law"], bounds=(0, 1)), float(bracket["copies"])
    low, high = wilson(copies, config.samples)
    copied = Estimate(copies, float(low), float(high), method="Wilson", n=config.samples)
    return {
        "networks-true-law": Noted(true, f"{bracket['true_law'].size} training sets, {config.fresh:,} draws each."),
        "networks-multi-delta": Noted(copied, f"{config.samples:,} samples."),
        "networks-collapse": collapse(dense, len(config.ranks)),
        "networks-collapse-unet": collapse(unet, len(config.unet.ranks)),
        "networks-crossing": crossed(dense, len(config.ranks), dense_training),
        "networks-unet": crossed(unet, len(config.unet.ranks), unet_training),
    }


@dataclass(frozen=True)
class Found:
    """What the part measures.

    Attributes:
        bracket: scores of the true distribution and of copies of the training set.
        dense, unets: scores and what belongs to them for each rank: arrays (ratios, seeds) and (ratios,).
    """

    bracket: dict[str, np.ndarray]
    dense: list[dict[str, np.ndarray]]
    unets: list[dict[str, np.ndarray]]


def measure(config: Config, subject: Subject, run: study.Run) -> Found:
    """Dense networks, U-Nets, and the two distributions that bracket them; the subject takes no part."""
    return Found(
        run.stage("bracket", bracket, config, run.key),
        [run.stage(f"mlp-{rank}", dense_curve, config, rank, run.key) for rank in config.ranks],
        [unet_curve(config, rank, run) for rank in config.unet.ranks],
    )


def report(config: Config, subject: Subject, found: Found) -> Findings:
    """Sigmoids through the scores, and where they cross the level."""
    unet = config.unet
    scores = np.stack([curve["gl"] for curve in found.dense])  # (ranks, ratios, seeds)
    unet_scores = np.stack([curve["gl"] for curve in found.unets])[:, :, None]
    arms = {
        "dense networks": (*_sizes(config.ranks, config.ratios), scores),
        "U-Nets": (*_sizes(unet.ranks, unet.ratios), unet_scores),
    }
    fits, unet_fits = (Fits.of(*arm, config.level) for arm in arms.values())
    rows = _rows("dense", config.ranks, config.ratios, found.dense)
    rows += _rows("U-Net", unet.ranks, unet.ratios, found.unets)
    header = ("network", "ID", "N", "N / ID", "score", "threshold", "off the subspaces", "loss")
    tables = [study.Table("Networks on the mixture (dense: means over seeds)", header, rows)]
    drawn = [
        panel
        for (title, (sizes, counts, values)), fit in zip(arms.items(), (fits, unet_fits))
        for panel in panels(title, [f"ID {size}" for size in sizes], sizes, counts, values, fit)
    ]
    metrics: dict[str, Any] = {
        "dense": {str(2 * rank): curve["gl"].mean(axis=1) for rank, curve in zip(config.ranks, found.dense)},
        "unet": {str(2 * rank): curve["gl"] for rank, curve in zip(unet.ranks, found.unets)},
        "exponent": ends(fits.exponent),
        "unet_exponent": ends(unet_fits.exponent),
        "crossing_log2": ends(fits.crossing),
        "unet_crossing_log2": ends(unet_fits.crossing),
    }
    off, unet_off = (float(np.median([curve["off"] for curve in kind])) for kind in (found.dense, found.unets))
    answer = answered(config, fits, unet_fits, off, unet_off)
    note = f"Of fresh draws {config.level:.0%} are as far as the threshold."
    if fits.pooled is not None or unet_fits.pooled is not None:
        note += " Dashed: fitted sigmoids (47)."
    return Findings(
        answer,
        claims=measured(config, found.bracket, fits, unet_fits),
        figures={"generalisation": (plots.score_curves(drawn, level=config.level), note)},
        tables=tables,
        metrics=metrics,
    )


def _sizes(ranks: Sequence[int], ratios: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """The intrinsic dimensions, and the numbers of examples (ranks, ratios)."""
    dimensions = COMPONENTS * np.asarray(ranks)
    return dimensions, dimensions[:, None] * np.asarray(ratios)


def _rows(
    kind: str, ranks: Sequence[int], ratios: Sequence[float], curves: Sequence[dict[str, np.ndarray]]
) -> list[tuple[Any, ...]]:
    """A row for each dimension and ratio, means over runs."""
    return [
        (kind, 2 * rank, round(ratio * 2 * rank), ratio)
        + tuple(float(np.mean(curve[name][at])) for name in ("gl", "threshold", "off", "loss"))
        for rank, curve in zip(ranks, curves)
        for at, ratio in enumerate(ratios)
    ]


def answered(config: Config, dense: Fits, unet: Fits, off: float, unet_off: float) -> str:
    """The answer on networks that were trained on the mixture; ``off`` is how far their samples are off the
    subspaces."""
    shown, unet_shown = (
        "no N / ID of this run, as their scores do not cross 1/2"
        if fits.crossing is None
        else f"N / ID = {2**fits.crossing.value:.0f} [{2**fits.crossing.low:.0f}, {2**fits.crossing.high:.0f}]"
        for fits in (dense, unet)
    )
    sentences = [
        f"Dense networks reach the score of the true distribution, {config.level:g}, at {shown}; U-Nets at "
        f"{unet_shown} (the paper: about 50 for U-Nets)."
    ]
    for kind, fits in (("dense networks", dense), ("U-Nets", unet)):
        if fits.spread is not None:
            over_n, over_ratio = fits.spread
            sentences.append(
                f"The midpoints of the curves of {kind} spread by {over_n:.2f} octaves over N and {over_ratio:.2f} "
                "over N / ID."
            )
    sentences.append(
        f"Samples are off the subspaces by {off:.2f} of their squared length (median; U-Nets {unet_off:.2f}), which "
        "shows how far the training went."
    )
    if dense.pooled is not None:
        slope, midpoint = dense.pooled.slope, 2 ** dense.pooled.midpoints[0]
        sentences.append(
            f"The sigmoid of dense networks has slope {slope:.2f} over log2 N / ID and its midpoint at N / ID = "
            f"{midpoint:.0f}; the paper's (a, b) are not known."
        )
    return " ".join(sentences)


def costs(config: Config, plan: Plan) -> list[Cost]:
    """Training and sampling: a gradient costs about two more evaluations."""
    unet, size = config.unet, int(np.prod(SHAPE))
    dense = 2.0 * (2 * size * config.width + config.depth * config.width * (config.width + 16))
    nets = len(config.ranks) * len(config.ratios) * config.seeds
    examples = nets * config.optimisation.steps * config.optimisation.batch_size
    evaluations = nets * config.samples * (2 * config.sampler_steps - 1)
    memory = len(config.ratios) * config.seeds * (4.0 * dense * 2 + 8 * config.most * size)
    curves = len(unet.ranks) * len(unet.ratios)
    trained, sampled = unet.steps * unet.batch_size, config.samples * (2 * config.sampler_steps - 1)
    return [
        Cost("dense networks", examples + evaluations, dense * (3 * examples + evaluations), memory, 0),
        networks_cost("U-Nets", unet.network, curves, trained, sampled, unet.batch_size),
    ]


def networks_cost(
    name: str, network: EDMNetwork, count: int, examples: int, evaluations: int, at_once: int, beside: int = 1
) -> Cost:
    """``count`` networks, each trained on so many ``examples``, ``at_once`` in a gradient, and then evaluated so often;
    ``beside`` of them share a device."""
    optimisation = TrainingConfig(duration_kimg=examples / 1000, batch_size=at_once)
    trained = training_cost(network, name, optimisation, runs=count, devices=1)
    assert trained.probe is not None
    # An example of a training costs three evaluations: sampling is counted in such.
    probe = replace(trained.probe, examples=trained.probe.examples + count * evaluations / 3)
    return replace(
        trained,
        network_evaluations=trained.network_evaluations + count * evaluations,
        flop=trained.flop + network_flop(network) * count * evaluations,
        memory=beside * trained.memory,
        disk=8 * network.parameter_count,
        probe=probe,
    )


PART = study.Part(
    "networks", "Generalisation of trained networks", "From how many training examples on do networks generalise?",
    PAPER, claims, FIGURES, measure, report, PRESETS, costs,
)  # fmt: skip
