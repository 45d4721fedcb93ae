"""From how many examples on do networks generalise? Scores against N and against N over the intrinsic dimension."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure as Drawing

from dgu import plots
from dgu.models import EDMNetwork
from experiments.molrg.networks_arms import bracket, dense_curve, mixture_unet, unet_curve
from experiments.molrg.networks_claims import Fits, claims, measured
from experiments.molrg.networks_config import PRESETS, Config
from experiments.molrg.networks_real import RealCurve, real_curve, real_images, real_unet
from experiments.molrg.subject import PAPER, Plan, Subject
from experiments.molrg.training import COMPONENTS, SHAPE
from experiments.study import Cost, Figure, Findings, Part, Run, Table
from experiments.study.flop import matmul_flop

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
    real: RealCurve | None


def check(config: Config, subject: Subject) -> None:
    """Whether the real images can be loaded and described."""
    real_images(config)


def measure(config: Config, subject: Subject, run: Run) -> Found:
    """Dense networks, U-Nets, and the two distributions that bracket them; the subject takes no part."""
    real = real_images(config)
    return Found(
        run.stage("bracket", bracket, config, run.key),
        [run.stage(f"mlp-{rank}", dense_curve, config, rank, run.key) for rank in config.ranks],
        [unet_curve(config, rank, run) for rank in config.unet.ranks],
        None if real is None else real_curve(config, real, run),
    )


def report(config: Config, subject: Subject, found: Found) -> Findings:
    """Sigmoids through the scores, and where they cross the level."""
    unet = config.unet
    scores = np.stack([curve["gl"] for curve in found.dense])  # (ranks, ratios, seeds)
    unet_scores = np.stack([curve["gl"] for curve in found.unets])[:, :, None]
    fits = Fits.of(config.ranks, config.ratios, scores, config.level)
    unet_fits = Fits.of(unet.ranks, unet.ratios, unet_scores, config.level)
    header = ("network", "ID", "N", "N / ID", "score", "threshold", "off the subspaces", "loss")
    rows = _rows("dense", config.ranks, config.ratios, found.dense) + _rows(
        "U-Net", unet.ranks, unet.ratios, found.unets
    )
    tables = [Table("Networks on the mixture (dense: means over seeds)", header, rows)]
    metrics: dict[str, Any] = {
        "dense": {str(2 * rank): curve["gl"].mean(axis=1) for rank, curve in zip(config.ranks, found.dense)},
        "unet": {str(2 * rank): curve["gl"] for rank, curve in zip(unet.ranks, found.unets)},
    }
    for name, bounded in (
        ("spread_gain", fits.gain),
        ("unet_spread_gain", unet_fits.gain),
        ("crossing_log2", fits.crossing),
        ("unet_crossing_log2", unet_fits.crossing),
    ):
        metrics[name] = None if bounded is None else [bounded.value, bounded.low, bounded.high]
    off, unet_off = (float(np.median([curve["off"] for curve in kind])) for kind in (found.dense, found.unets))
    answer, real = answered(config, fits, unet_fits, off, unet_off), found.real
    if real is None:
        answer += " No network was trained on real images here (--networks.unet.real)."
    else:
        tables.append(_real_table(config, real))
        metrics["real"] = {"counts": list(real.counts), "gl": real.gl, "dimension": real.dimension}
        answer += (
            f" On {unet.real} scores go from {real.gl[0]:.2f} to {real.gl[-1]:.2f}, "
            f"at an intrinsic dimension of {real.dimension:.1f}."
        )
    note = f"Of fresh draws {config.level:.0%} are as far as the threshold."
    if fits.pooled is not None or unet_fits.pooled is not None:
        note += " Dashed: fitted sigmoids (47)."
    drawing = _figure(config, (scores, fits), (unet_scores, unet_fits), real)
    return Findings(
        answer,
        claims=measured(config, found.bracket, fits, unet_fits),
        figures={"generalisation": (drawing, note)},
        tables=tables,
        metrics=metrics,
    )


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


def _real_table(config: Config, real: RealCurve) -> Table:
    rows = [
        tuple(map(float, (count, count / real.dimension, real.gl[at], real.threshold[at], real.loss[at])))
        for at, count in enumerate(real.counts)
    ]
    title = f"U-Nets on {config.unet.real}, compared by {config.unet.descriptor}"
    return Table(title, ("N", "N / ID", "score", "threshold", "loss"), rows)


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


def _figure(
    config: Config, dense: tuple[np.ndarray, Fits], unet: tuple[np.ndarray, Fits], real: RealCurve | None
) -> Drawing:
    panels = [
        *_panels("dense networks", config.ranks, config.ratios, *dense),
        *_panels("U-Nets", config.unet.ranks, config.unet.ratios, *unet),
    ]
    if real is not None:
        name = str(config.unet.real)
        points = np.asarray(real.counts) / real.dimension, real.gl[:, None]
        panels.append(plots.ScorePanel(f"U-Nets, {name}", "N / ID", {name: points}))
    return plots.score_curves(panels, level=config.level)


def _panels(
    title: str, ranks: Sequence[int], ratios: Sequence[float], scores: np.ndarray, fits: Fits
) -> list[plots.ScorePanel]:
    """The same scores over N and over N / ID."""
    sizes, ratio = COMPONENTS * np.asarray(ranks), np.asarray(ratios)
    fine = np.geomspace(ratio[0], ratio[-1], 80)
    over_n = {f"ID {size}": (ratio * size, found) for size, found in zip(sizes, scores)}
    over_ratio = {f"ID {size}": (ratio, found) for size, found in zip(sizes, scores)}
    sigmoid = {} if fits.pooled is None else {"sigmoid": (fine, fits.pooled(np.log2(fine)))}
    return [plots.ScorePanel(title, "N", over_n), plots.ScorePanel(title, "N / ID", over_ratio, sigmoid)]


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
        _unet_cost("U-Nets", mixture_unet(unet), curves, unet.steps, config),
    ]
    if unet.real is not None:
        side = unet.real_size or 32
        of_real = real_unet(unet, (side, side, 3))
        costs.append(_unet_cost("U-Nets, real images", of_real, len(unet.real_counts), unet.real_steps, config))
    return costs


def _unet_cost(name: str, network: EDMNetwork, count: int, steps: int, config: Config) -> Cost:
    image, level = jax.ShapeDtypeStruct(network.shape, np.float32), jax.ShapeDtypeStruct((), np.float32)
    flop = matmul_flop(network.apply, network.abstract_params, image, level)
    examples = count * steps * config.unet.batch_size
    evaluations = count * config.samples * (2 * config.sampler_steps - 1)
    memory = 5 * 4 * network.parameter_count + config.unet.batch_size * int(np.prod(network.shape)) * 4 * 20
    return Cost(name, examples + evaluations, flop * (3 * examples + evaluations), memory, 8 * network.parameter_count)


PART = Part(
    name="networks",
    title="Generalisation of trained networks",
    question="From how many training examples on do networks generalise?",
    paper=PAPER,
    presets=PRESETS,
    claims=claims,
    figures=FIGURES,
    measure=measure,
    report=report,
    costs=costs,
    check=check,
)
