"""From how many examples on do networks generalise? Scores against N and against N over the intrinsic dimension."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from dgu import analysis, plots
from dgu.analysis.stats.estimates import Estimate, wilson
from dgu.analysis.stats.sigmoids import SigmoidFit, fit_sigmoids
from dgu.models import EDMNetwork
from dgu.training import TrainingConfig
from experiments import study
from experiments.molrg.networks_arms import bracket, dense_curve, real_curve, real_images, unet_curve
from experiments.molrg.networks_config import COMPONENTS, PRESETS, SHAPE, Config
from experiments.molrg.subject import PAPER, Plan, Subject
from experiments.study import Claim, Cost, Figure, Findings, Measured, Noted, NotTested, at_least, at_most, within
from experiments.study.flop import network_flop
from experiments.subjects import training_cost

#: Why no sigmoid is fitted.
NO_CROSSING = "the scores of this run do not cross 1/2"
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


@dataclass(frozen=True, eq=False)
class Fits:
    """Sigmoids through the scores of networks of one kind. Make it with ``of``.

    Attributes:
        pooled: one sigmoid over log2 (N / ID) for all dimensions; None for scores that never cross 1/2.
        crossing: log2 (N / ID) at which the level is reached; None without ``pooled``.
        exponent: power of the intrinsic dimension to which the midpoints of a sigmoid for each dimension are
            proportional; None for one dimension, or scores that never cross 1/2, as is ``spread``.
        spread: standard deviation of the midpoints over log2 N, and over log2 (N / ID), in octaves.
    """

    pooled: SigmoidFit | None = None
    crossing: Estimate | None = None
    exponent: Estimate | None = None
    spread: tuple[float, float] | None = None

    @classmethod
    def of(cls, ranks: Sequence[int], ratios: Sequence[float], scores: np.ndarray, level: float) -> "Fits":
        """From scores (ranks, ratios, runs)."""
        if not scores.min() < 0.5 < scores.max():
            return cls()  # Nothing says where the scores would cross 1/2.
        shift = np.log2(COMPONENTS * np.asarray(ranks))
        log_ratio = np.broadcast_to(np.log2(ratios)[None, :, None], scores.shape)
        number = np.broadcast_to(np.arange(len(ranks))[:, None, None], scores.shape)
        pooled = fit_sigmoids(log_ratio.ravel(), scores.ravel(), None)
        if len(ranks) == 1:
            return cls(pooled, pooled.crossing(level))
        curves = fit_sigmoids((log_ratio + shift[:, None, None]).ravel(), scores.ravel(), number.ravel())
        spread = float(curves.spread().value), float(curves.spread(shift).value)
        return cls(pooled, pooled.crossing(level), curves.exponent(shift), spread)


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
        "networks-collapse": _collapse(dense, config.ranks),
        "networks-collapse-unet": _collapse(unet, config.unet.ranks),
        "networks-crossing": _crossing(dense, config.ranks, dense_training),
        "networks-unet": _crossing(unet, config.unet.ranks, unet_training),
    }


def _collapse(fits: Fits, ranks: Sequence[int]) -> Measured:
    if fits.exponent is None or fits.spread is None:
        return NotTested("only one curve, of one intrinsic dimension" if len(ranks) < 2 else NO_CROSSING)
    over_n, over_ratio = fits.spread
    note = f"The standard deviation of the midpoints is {over_n:.2f} in log2 N and {over_ratio:.2f} in log2 (N / ID)."
    return Noted(fits.exponent, note)


def _crossing(fits: Fits, ranks: Sequence[int], trained: str) -> Measured:
    if fits.crossing is None:
        return NotTested(f"{NO_CROSSING}; {trained}")
    curves = "all curves together" if len(ranks) > 1 else "one curve"
    at = fits.crossing.map(lambda power: 2**power)
    return Noted(at, f"The sigmoid is one in log2 (N / ID), fitted to {curves}; {trained}.")


@dataclass(frozen=True)
class Found:
    """What the part measures.

    Attributes:
        bracket: scores of the true distribution and of copies of the training set.
        dense, unets: scores and what belongs to them for each rank: arrays (ratios, seeds) and (ratios,).
        real: the curve on real images, or None.
    """

    bracket: dict[str, np.ndarray]
    dense: list[dict[str, np.ndarray]]
    unets: list[dict[str, np.ndarray]]
    real: dict[str, np.ndarray] | None


def check(config: Config, subject: Subject) -> None:
    """Whether the real images can be loaded and described."""
    real_images(config.unet)


def measure(config: Config, subject: Subject, run: study.Run) -> Found:
    """Dense networks, U-Nets, and the two distributions that bracket them; the subject takes no part."""
    real = real_images(config.unet)
    return Found(
        run.stage("bracket", bracket, config, run.key),
        [run.stage(f"mlp-{rank}", dense_curve, config, rank, run.key) for rank in config.ranks],
        [unet_curve(config, rank, run) for rank in config.unet.ranks],
        None if real is None else real_curve(config, real, run),
    )


def report(config: Config, subject: Subject, found: Found) -> Findings:
    """Sigmoids through the scores, and where they cross the level."""
    unet, real = config.unet, found.real
    scores = np.stack([curve["gl"] for curve in found.dense])  # (ranks, ratios, seeds)
    unet_scores = np.stack([curve["gl"] for curve in found.unets])[:, :, None]
    fits = Fits.of(config.ranks, config.ratios, scores, config.level)
    unet_fits = Fits.of(unet.ranks, unet.ratios, unet_scores, config.level)
    rows = _rows("dense", config.ranks, config.ratios, found.dense)
    rows += _rows("U-Net", unet.ranks, unet.ratios, found.unets)
    header = ("network", "ID", "N", "N / ID", "score", "threshold", "off the subspaces", "loss")
    tables = [study.Table("Networks on the mixture (dense: means over seeds)", header, rows)]
    panels = [
        *_panels("dense networks", config.ranks, config.ratios, scores, fits),
        *_panels("U-Nets", unet.ranks, unet.ratios, unet_scores, unet_fits),
    ]
    metrics: dict[str, Any] = {
        "dense": {str(2 * rank): curve["gl"].mean(axis=1) for rank, curve in zip(config.ranks, found.dense)},
        "unet": {str(2 * rank): curve["gl"] for rank, curve in zip(unet.ranks, found.unets)},
        "exponent": _ends(fits.exponent),
        "unet_exponent": _ends(unet_fits.exponent),
        "crossing_log2": _ends(fits.crossing),
        "unet_crossing_log2": _ends(unet_fits.crossing),
    }
    off, unet_off = (float(np.median([curve["off"] for curve in kind])) for kind in (found.dense, found.unets))
    answer = answered(config, fits, unet_fits, off, unet_off)
    if real is None:
        answer += " No network was trained on real images here (--networks.unet.real)."
    else:
        counts, gl, dimension = np.asarray(unet.real_counts), real["gl"], float(real["dimension"])
        columns = np.stack([counts, counts / dimension, gl, real["threshold"], real["loss"]], axis=1)
        title = f"U-Nets on {unet.real}, compared by {unet.descriptor}"
        tables.append(
            study.Table(title, ("N", "N / ID", "score", "threshold", "loss"), [tuple(row) for row in columns.tolist()])
        )
        panels.append(
            plots.ScorePanel(f"U-Nets, {unet.real}", "N / ID", {str(unet.real): (counts / dimension, gl[:, None])})
        )
        metrics["real"] = {"counts": list(unet.real_counts), "gl": gl, "dimension": dimension}
        answer += (
            f" On {unet.real} scores go from {gl[0]:.2f} to {gl[-1]:.2f}, at an intrinsic dimension of {dimension:.1f}."
        )
    note = f"Of fresh draws {config.level:.0%} are as far as the threshold."
    if fits.pooled is not None or unet_fits.pooled is not None:
        note += " Dashed: fitted sigmoids (47)."
    return Findings(
        answer,
        claims=measured(config, found.bracket, fits, unet_fits),
        figures={"generalisation": (plots.score_curves(panels, level=config.level), note)},
        tables=tables,
        metrics=metrics,
    )


def _ends(estimate: Estimate | None) -> list[Any] | None:
    return None if estimate is None else [estimate.value, estimate.low, estimate.high]


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


def _panels(
    title: str, ranks: Sequence[int], ratios: Sequence[float], scores: np.ndarray, fits: Fits
) -> "list[plots.ScorePanel]":
    """The same scores over N and over N / ID."""
    sizes, ratio = COMPONENTS * np.asarray(ranks), np.asarray(ratios)
    fine = np.geomspace(ratio[0], ratio[-1], 80)
    over_n = {f"ID {size}": (ratio * size, found) for size, found in zip(sizes, scores)}
    over_ratio = {f"ID {size}": (ratio, found) for size, found in zip(sizes, scores)}
    sigmoid = {} if fits.pooled is None else {"sigmoid": (fine, fits.pooled(np.log2(fine)))}
    return [plots.ScorePanel(title, "N", over_n), plots.ScorePanel(title, "N / ID", over_ratio, sigmoid)]


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
    costs = [
        Cost("dense networks", examples + evaluations, dense * (3 * examples + evaluations), memory, 0),
        _unet_cost("U-Nets", unet.network, curves, unet.steps, config),
    ]
    if unet.real is not None:
        side = unet.real_size or 32
        of_real = unet.real_network((side, side, 3))
        costs.append(_unet_cost("U-Nets, real images", of_real, len(unet.real_counts), unet.real_steps, config))
    return costs


def _unet_cost(name: str, network: EDMNetwork, count: int, steps: int, config: Config) -> Cost:
    optimisation = TrainingConfig(
        duration_kimg=steps * config.unet.batch_size / 1000, batch_size=config.unet.batch_size
    )
    trained = training_cost(network, name, optimisation, runs=count, devices=jax.device_count())
    evaluations = count * config.samples * (2 * config.sampler_steps - 1)
    flop = network_flop(network) * evaluations + trained.flop
    assert trained.probe is not None
    # An example of a training costs three evaluations: sampling is counted in such.
    probe = replace(trained.probe, examples=trained.probe.examples + evaluations / 3)
    seen = trained.network_evaluations + evaluations
    return replace(trained, network_evaluations=seen, flop=flop, disk=8 * network.parameter_count, probe=probe)


PART = study.Part(
    "networks", "Generalisation of trained networks", "From how many training examples on do networks generalise?",
    PAPER, claims, FIGURES, measure, report, PRESETS, costs, check,
)  # fmt: skip
