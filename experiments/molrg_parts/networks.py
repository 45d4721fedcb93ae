"""From how many examples on do networks generalise? Scores against N and N over the intrinsic dimension."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from dgu import plots
from dgu.core.keys import seeded, stream
from dgu.models import EDMNetwork
from experiments.molrg_parts.networks_arms import bracket, dense_curve, mixture_unet, unet_curve
from experiments.molrg_parts.networks_claims import Fits, network_claims
from experiments.molrg_parts.networks_config import PRESETS as PRESETS
from experiments.molrg_parts.networks_config import Config as Config
from experiments.molrg_parts.networks_real import real_curve, real_images, real_unet
from experiments.molrg_parts.subject import Subject
from experiments.molrg_parts.training import COMPONENTS, SHAPE
from experiments.study.costs import Cost
from experiments.study.flop import matmul_flop
from experiments.study.report import FigureEntry, Section, Table
from experiments.study.run_directory import RunDirectory

TITLE = "Generalisation of trained networks"
CLAIM_IDS = (
    "networks-true-law",
    "networks-multi-delta",
    "networks-collapse",
    "networks-collapse-unet",
    "networks-crossing",
    "networks-unet",
)
FIGURE_FILES = ("figures/generalisation.png",)


def check(config: Config, subject: Subject | None) -> None:
    """Before any work: whether the real images asked for are there and can be described."""
    real_images(config)


def run(config: Config, subject: Subject | None, directory: RunDirectory, seed: int) -> Section:
    """Dense networks, U-Nets, and the two laws that bracket them; the subject takes no part."""
    key = stream(seeded(seed), "networks")
    real = real_images(config)
    laws = directory.stage("networks/bracket", partial(bracket, config, key))
    dense = [directory.stage(f"networks/mlp-{rank}", partial(dense_curve, config, rank, key)) for rank in config.ranks]
    unets = [unet_curve(config, rank, directory, key) for rank in config.unet.ranks]
    pictures = None if real is None else real_curve(config, real, directory, key)

    scores = np.stack([found["gl"] for found in dense])  # (ranks, ratios, seeds)
    unet_scores = np.stack([found["gl"] for found in unets])[:, :, None]
    fits = Fits.of(config.ranks, config.ratios, scores, config.level)
    unet_fits = Fits.of(config.unet.ranks, config.unet.ratios, unet_scores, config.level)
    directory.save_figure(FIGURE_FILES[0], _figure(config, (scores, fits), (unet_scores, unet_fits), pictures))
    tables = [
        Table(
            "Networks on the mixture (dense: means over seeds)",
            ("network", "ID", "N", "N / ID", "score", "threshold", "off the subspaces", "loss"),
            _rows("dense", config.ranks, config.ratios, dense)
            + _rows("U-Net", config.unet.ranks, config.unet.ratios, unets),
        )
    ]
    metrics: dict[str, Any] = {
        "dense": {str(2 * rank): found["gl"].mean(axis=1) for rank, found in zip(config.ranks, dense)},
        "unet": {str(2 * rank): found["gl"] for rank, found in zip(config.unet.ranks, unets)},
    }
    for name, bounded in (
        ("spread_gain", fits.gain),
        ("unet_spread_gain", unet_fits.gain),
        ("crossing_log2", fits.crossing),
        ("unet_crossing_log2", unet_fits.crossing),
    ):
        metrics[name] = None if bounded is None else [bounded.estimate, bounded.low, bounded.high]
    off, unet_off = (float(np.median([found["off"] for found in kind])) for kind in (dense, unets))
    answer = _answer(config, fits, unet_fits, off, unet_off)
    if pictures is None:
        answer += " No network was trained on real images here (--networks.unet.real)."
    else:
        title = f"U-Nets on {config.unet.real}, compared by {config.unet.descriptor}"
        rows = [tuple(float(value) for value in row) for row in pictures["rows"]]
        tables.append(Table(title, ("N", "N / ID", "score", "threshold", "loss"), rows))
        gl, dimension = pictures["gl"], pictures["dimension"]
        metrics["real"] = {"counts": list(config.unet.real_counts), "gl": gl, "dimension": dimension}
        answer += (
            f" On {config.unet.real} scores go from {gl[0]:.2f} to {gl[-1]:.2f}, "
            f"at an intrinsic dimension of {dimension:.1f}."
        )
    caption = (
        f"Share of samples at least as far from the training data as {config.level:.0%} of fresh draws are (Fig 4). "
        "Dense networks (MLPs) trained together, a point a seed; U-Nets trained one by one by the library's loop"
        + ("." if fits.pooled is None and unet_fits.pooled is None else "; dashed: fitted sigmoids (47).")
    )
    claims = network_claims(config, laws, fits, unet_fits)
    return Section(TITLE, answer, claims, [FigureEntry(FIGURE_FILES[0], caption)], tables, metrics)


def _rows(kind: str, ranks: Sequence[int], ratios: Sequence[float], curves: Sequence[dict[str, np.ndarray]]) -> list:
    """A row for each dimension and ratio, means over runs."""
    return [
        (kind, 2 * rank, round(ratio * 2 * rank), ratio)
        + tuple(float(np.mean(found[name][at])) for name in ("gl", "threshold", "off", "loss"))
        for rank, found in zip(ranks, curves)
        for at, ratio in enumerate(ratios)
    ]


def _answer(config: Config, dense: Fits, unet: Fits, off: float, unet_off: float) -> str:
    shown, unet_shown = (
        "no N / ID of this run, as their scores do not cross 1/2"
        if fits.crossing is None
        else f"N / ID = {2**fits.crossing.estimate:.0f} [{2**fits.crossing.low:.0f}, {2**fits.crossing.high:.0f}]"
        for fits in (dense, unet)
    )
    sentences = [
        f"Dense networks reach the true law's score of {config.level:g} at {shown}; U-Nets at {unet_shown} "
        "(the paper: about 50 for U-Nets)."
    ]
    for kind, fits in (("dense networks", dense), ("U-Nets", unet)):
        if fits.spread is not None:
            over_n, over_ratio = fits.spread
            sentences.append(
                f"The midpoints of the curves of {kind} spread by {over_n:.2f} octaves over N and {over_ratio:.2f} over N / ID."
            )
    sentences.append(
        f"Samples lie off the subspaces by {off:.2f} of their squared length (median; U-Nets {unet_off:.2f}): "
        "how far the training went."
    )
    if dense.pooled is not None:
        slope, midpoint = dense.pooled.slope, 2 ** dense.pooled.midpoints[0]
        sentences.append(
            f"The sigmoid has slope {slope:.2f} over log2 N / ID and its midpoint at N / ID = {midpoint:.0f}; the paper's (a, b) are not known."
        )
    return " ".join(sentences)


def _figure(
    config: Config, dense: tuple[np.ndarray, Fits], unet: tuple[np.ndarray, Fits], pictures: dict[str, Any] | None
) -> Figure:
    panels = [
        *_panels("dense networks", config.ranks, config.ratios, *dense),
        *_panels("U-Nets", config.unet.ranks, config.unet.ratios, *unet),
    ]
    if pictures is not None:
        name = str(config.unet.real)
        points = np.asarray(config.unet.real_counts) / pictures["dimension"], pictures["gl"][:, None]
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


def costs(config: Config, network: Any) -> list[Cost]:
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
