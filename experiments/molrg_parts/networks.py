"""From how many examples on do networks generalise? Scores against N and N over the intrinsic dimension."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from dgu import analysis, plots
from dgu.analysis.descriptors import SSCD
from dgu.analysis.sigmoids import Bounded, SigmoidFit, fit_sigmoids
from dgu.errors import InputError, require
from dgu.keys import stream
from dgu.models import EDMNetwork, EmpiricalDenoiser, SongUNetConfig, save_network
from dgu.samplers import karras_sigmas, sample
from dgu.training import TogetherConfig, TrainingConfig
from experiments.harness.claims import Claim
from experiments.harness.costs import Cost
from experiments.harness.flop import matmul_flop
from experiments.harness.pool import load_images
from experiments.harness.progress import Progress
from experiments.harness.report import FigureEntry, Section, Table
from experiments.harness.rundir import RunDirectory
from experiments.molrg_parts.subject import PAPER, Subject
from experiments.molrg_parts.training import (
    COMPONENTS,
    SHAPE,
    draws,
    off_subspaces,
    planted,
    sampled,
    score,
    train_mlps,
    train_unet,
)

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
#: Where a U-Net's parameters are kept for the part ``dimension``.
LARGEST = "networks/largest.npz"


@dataclass(frozen=True)
class UNetConfig:
    """A small DDPM++ with EDM's preconditioning, trained by the library's loop."""

    ranks: tuple[int, ...] = (3, 6)
    """Dimensions of the subspaces of its curves (ID is twice that)."""
    ratios: tuple[float, ...] = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
    """N / ID of a curve, rising."""
    channels: int = 16
    """Channels of the first level (the released code: 128)."""
    channel_mult: tuple[int, ...] = (2, 2)
    """Multiple of these at each level (the released code: 2 2 2)."""
    blocks: int = 1
    """Blocks a level (the released code: 4)."""
    steps: int = 500
    """Parameter updates (the released code: 11,700)."""
    batch_size: int = 128
    """Examples an update (the released code: 512)."""
    learning_rate: float = 3e-3
    """Adam's step size."""
    real: str | None = None
    """Real images to train on as well (a data set or a path); None leaves them out."""
    real_size: int | None = 14
    """Reduce these to this size by area means; None keeps them."""
    real_counts: tuple[int, ...] = (64, 256, 1024, 4096)
    """Numbers of training images N, rising."""
    real_heldout: int = 2000
    """Further images, not trained on, for the threshold."""
    real_steps: int = 4000
    """Parameter updates on real images."""
    real_channels: int = 32
    """Channels of the first level for real images; (1, 2) times them on two levels."""
    descriptor: Literal["identity", "pca", "sscd"] = "identity"
    """What real images are compared by: pixels, principal components, or SSCD's embedding (colour photographs only)."""
    components: int = 64
    """Principal components, of the held-out images."""
    sscd: str | None = None
    """ONNX file of SSCD."""


@dataclass(frozen=True)
class Config:
    """Networks trained on N draws of a mixture, for several N and dimensions."""

    ranks: tuple[int, ...] = (3, 4, 6, 8)
    """Dimensions d of the two subspaces, two or more, rising; the intrinsic dimension ID is 2 d."""
    ratios: tuple[float, ...] = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
    """N / ID of the dense networks, rising."""
    seeds: int = 2
    """Laws, data and starts for each of these."""
    width: int = 128
    """Width of the dense networks."""
    depth: int = 3
    """Hidden layers."""
    optimisation: TogetherConfig = field(default_factory=lambda: TogetherConfig(steps=8000, learning_rate=4e-3))
    """Training of the dense networks."""
    unet: UNetConfig = field(default_factory=UNetConfig)
    samples: int = 1000
    """Samples of each network."""
    fresh: int = 5000
    """Fresh draws that calibrate the threshold, and that the true law's score is measured on."""
    sampler_steps: int = 18
    """Heun steps."""
    level: float = 0.95
    """Score of the true law, from which on a network generalises."""

    def __post_init__(self) -> None:
        for name, values, lowest in (
            ("ranks", self.ranks, 1), ("ratios", self.ratios, 0), ("unet.ranks", self.unet.ranks, 1),
            ("unet.ratios", self.unet.ratios, 0), ("unet.real_counts", self.unet.real_counts, 2),
        ):  # fmt: skip
            rising = all(a < b for a, b in pairwise(values))
            sound = len(values) >= (1 if name == "unet.ranks" else 2) and rising and values[0] >= lowest
            require(sound, f"networks.{name}", values, f"two or more, rising, each at least {lowest}")
        for name, ranks in (("ranks", self.ranks), ("unet.ranks", self.unet.ranks)):
            require(
                2 * ranks[-1] <= 48, f"networks.{name}", ranks, "at most 24, for two orthogonal subspaces of 48 numbers"
            )
        for name, least in (("ratios", self.ranks[0]), ("unet.ratios", self.unet.ranks[0])):
            values = self.ratios if name == "ratios" else self.unet.ratios
            smallest = values[0] * 2 * least
            require(smallest >= 2, f"networks.{name}", values, "such that N is 2 or more")
        require(self.seeds >= 1, "networks.seeds", self.seeds, "1 or more")
        require(self.samples >= 20, "networks.samples", self.samples, "20 or more")
        require(0.5 < self.level < 1, "networks.level", self.level, "above 0.5 and below 1")
        least = int(np.ceil(2 / (1 - self.level) - 1e-9))
        require(self.fresh >= least, "networks.fresh", self.fresh, f"{least} or more for this level")
        require(self.sampler_steps >= 2, "networks.sampler_steps", self.sampler_steps, "2 or more")
        given = self.unet.sscd is not None
        wanted = self.unet.descriptor == "sscd"
        require(given or not wanted, "networks.unet.sscd", self.unet.sscd, "an ONNX file, for the descriptor sscd")

    @property
    def most(self) -> int:
        """The largest N of the dense networks."""
        return round(self.ratios[-1] * COMPONENTS * self.ranks[-1])


_TINY = UNetConfig(ranks=(2,), ratios=(2.0, 8.0), channels=8, channel_mult=(1,), steps=4, batch_size=8, real_counts=(8, 16), real_heldout=40, real_steps=4, real_channels=8, components=4)  # fmt: skip
PRESETS = {
    "smoke": Config(
        ranks=(2, 3), ratios=(2.0, 8.0), seeds=2, width=16, depth=1, optimisation=TogetherConfig(steps=20, batch_size=16, chunk=20),
        unet=_TINY, samples=40, fresh=100, sampler_steps=4,
    ),
    "default": Config(),
    "paper": Config(
        ranks=(3, 4, 5, 6), ratios=(5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 75.0, 90.0, 150.0), seeds=10, width=512, optimisation=TogetherConfig(steps=20_000, batch_size=256),
        unet=UNetConfig(
            ranks=(3, 4, 5, 6), ratios=(5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 75.0, 90.0, 150.0), channels=128, channel_mult=(2, 2, 2), blocks=4,
            steps=11_700, batch_size=512, learning_rate=1e-3, real="cifar10", real_size=None,
            real_counts=(64, 256, 1024, 4096, 8192, 16_384), real_heldout=10_000, real_steps=100_000, real_channels=128,
        ),
        samples=5000, fresh=10_000,
    ),
}  # fmt: skip


def check(config: Config, subject: Subject | None) -> None:
    """Before any work: whether the real images asked for are there and can be described."""
    _real_images(config)


def run(config: Config, subject: Subject | None, directory: RunDirectory, seed: int) -> Section:
    """Dense networks, U-Nets, and the two laws that bracket them; the subject takes no part."""
    key = stream(jax.random.key(seed), "networks")
    real = _real_images(config)
    bracket = directory.stage("networks/bracket", lambda: _bracket(config, key))
    dense = [directory.stage(f"networks/mlp-{rank}", partial(_mlps, config, rank, key)) for rank in config.ranks]
    convolutional = [_unet_curve(config, rank, directory, key) for rank in config.unet.ranks]
    pictures = None if real is None else _real_curve(config, real, directory, key)

    ids = COMPONENTS * np.asarray(config.ranks)
    log_ratio = np.log2(config.ratios)
    scores = np.stack([found["gl"] for found in dense])  # (ranks, ratios, seeds)
    x = np.broadcast_to(log_ratio[None, :, None] + np.log2(ids)[:, None, None], scores.shape)
    curve = np.broadcast_to(np.arange(len(ids))[:, None, None], scores.shape)
    by_curve = _fitted(x.ravel(), scores.ravel(), curve.ravel())
    pooled = _fitted((x - np.log2(ids)[:, None, None]).ravel(), scores.ravel())
    unet_scores = np.stack([found["gl"] for found in convolutional])  # (ranks, ratios)
    unet_x = np.broadcast_to(np.log2(config.unet.ratios), unet_scores.shape)
    unet_fit = _fitted(unet_x.ravel(), unet_scores.ravel())

    gain, spread = _collapse(by_curve, ids, x)
    unet_ids = COMPONENTS * np.asarray(config.unet.ranks)
    each = unet_x + np.log2(unet_ids)[:, None]
    of_curve = np.broadcast_to(np.arange(len(unet_ids))[:, None], each.shape)
    unet_curves = _fitted(each.ravel(), unet_scores.ravel(), of_curve.ravel()) if len(unet_ids) > 1 else None
    unet_gain, unet_spread = _collapse(unet_curves, unet_ids, each)
    crossing, unet_crossing = (_crossing(fit, config.level, values) for fit, values in ((pooled, log_ratio), (unet_fit, unet_x)))  # fmt: skip
    claims = _claims(
        config, bracket, (gain, unet_gain), (spread, unet_spread), (crossing, unet_crossing), (by_curve, unet_curves)
    )
    directory.save_figure(FIGURE_FILES[0], _figure(config, ids, scores, unet_scores, pooled, unet_fit, pictures))
    rows: list[tuple] = []
    for rank, found in zip(config.ranks, dense):
        for at, ratio in enumerate(config.ratios):
            rows.append(("dense", 2 * rank, round(ratio * 2 * rank), ratio, *(float(found[name][at].mean()) for name in ("gl", "threshold", "off", "loss"))))  # fmt: skip
    for rank, found in zip(config.unet.ranks, convolutional):
        for at, ratio in enumerate(config.unet.ratios):
            rows.append(("U-Net", 2 * rank, round(ratio * 2 * rank), ratio, *(float(found[name][at]) for name in ("gl", "threshold", "off", "loss"))))  # fmt: skip
    tables = [Table("Networks on the mixture (dense: means over seeds)", ("network", "ID", "N", "N / ID", "score", "threshold", "off the subspaces", "loss"), rows)]  # fmt: skip
    metrics: dict[str, Any] = {
        "dense": {str(2 * rank): found["gl"].mean(axis=1) for rank, found in zip(config.ranks, dense)},
        "unet": {str(2 * rank): found["gl"] for rank, found in zip(config.unet.ranks, convolutional)},
        "spread_gain": [gain.estimate, gain.low, gain.high],
        "unet_spread_gain": [unet_gain.estimate, unet_gain.low, unet_gain.high],
        "crossing_log2": [crossing.estimate, crossing.low, crossing.high],
        "unet_crossing_log2": [unet_crossing.estimate, unet_crossing.low, unet_crossing.high],
    }
    fitted = "" if pooled is None else f" The sigmoid has slope {pooled.slope:.2f} and midpoint {2 ** pooled.midpoints[0]:.0f} (log2 N/ID); the paper's (a, b) are not known."  # fmt: skip
    answer = (
        f"Dense networks reach the true law's score of {config.level:g} at N / ID = {_shown(crossing)}, the U-Net at {_shown(unet_crossing)} "
        f"(the paper: about 50 for U-Nets). The midpoints of the curves spread by {spread[0]:.2f} octaves over N and {spread[1]:.2f} over N / ID "
        f"(U-Nets: {unet_spread[0]:.2f} and {unet_spread[1]:.2f}). Samples lie off the subspaces by {np.median([found['off'] for found in dense]):.2f} of their squared length "
        f"(median; U-Nets {np.median([found['off'] for found in convolutional]):.2f}): how far the training went.{fitted}"
    )
    if pictures is not None:
        tables.append(Table(f"U-Nets on {config.unet.real}, compared by {config.unet.descriptor}", ("N", "N / ID", "score", "threshold", "loss"), [tuple(float(v) for v in row) for row in pictures["rows"]]))  # fmt: skip
        metrics["real"] = {
            "counts": list(config.unet.real_counts),
            "gl": pictures["gl"],
            "dimension": pictures["dimension"],
        }
        answer += f" On {config.unet.real} scores rise from {pictures['gl'][0]:.2f} to {pictures['gl'][-1]:.2f}, at an intrinsic dimension of {pictures['dimension']:.1f}."
    else:
        answer += " No network was trained on real images here (--networks.unet.real)."
    return Section(
        TITLE,
        answer,
        claims,
        [FigureEntry(FIGURE_FILES[0], "Share of samples at least as far from the training data as 95 % of fresh draws are (Fig 4). Dense networks (MLPs) trained together, a point a seed; U-Nets trained one by one by the library's loop; dashed: fitted sigmoids (47).")],
        tables,
        metrics,
    )  # fmt: skip


def _shown(crossing: Bounded) -> str:
    return f"{2**crossing.estimate:.0f} [{2**crossing.low:.0f}, {2**crossing.high:.0f}]"


def _bracket(config: Config, key: Any) -> dict[str, np.ndarray]:
    """The score of the true law for every rank and ratio, and that of the multi-delta denoiser."""
    true_law = []
    for rank in config.ranks:
        law = planted(stream(key, "bracket"), rank)
        fresh, other = (draws(law, stream(key, "bracket", rank), name, config.fresh) for name in ("fresh", "samples"))
        for ratio in config.ratios:
            own = stream(key, "bracket", rank, round(8 * ratio))
            training = draws(law, own, "training", round(ratio * COMPONENTS * rank))
            padded = np.resize(training, (config.most, *SHAPE))
            true_law.append(score(other, padded, fresh, config.level)["gl"])
    rank, ratio = config.ranks[0], config.ratios[len(config.ratios) // 2]
    law = planted(stream(key, "bracket"), rank)
    training = draws(law, stream(key, "delta"), "training", round(ratio * COMPONENTS * rank))
    # Sampled like any denoiser: it ends on the training data.
    copies = sample(EmpiricalDenoiser(training), stream(key, "delta"), np.arange(config.samples), karras_sigmas(config.sampler_steps), shape=SHAPE, batch_size=min(500, config.samples))  # fmt: skip
    fresh = draws(law, stream(key, "delta"), "fresh", config.fresh)
    return {"true_law": np.asarray(true_law), "copies": np.asarray(score(copies, training, fresh, config.level)["gl"])}


def _mlps(config: Config, rank: int, key: Any) -> dict[str, np.ndarray]:
    with Progress(f"dense networks, ID {2 * rank}", total=config.optimisation.steps, unit="updates of each") as bar:
        return train_mlps(
            key, rank, config.ratios, config.seeds, config.most, width=config.width, depth=config.depth,
            optimisation=config.optimisation, samples=config.samples, fresh=config.fresh, steps=config.sampler_steps,
            level=config.level, progress=lambda done, _: bar.update(done - bar.done),
        )  # fmt: skip


def _training(config: UNetConfig, steps: int) -> TrainingConfig:
    kimg = steps * config.batch_size / 1000
    return TrainingConfig(
        duration_kimg=kimg, batch_size=config.batch_size, learning_rate=config.learning_rate, rampup_kimg=0.05 * kimg,
        ema_halflife_kimg=0.04 * kimg,
    )  # fmt: skip


def _network(config: UNetConfig) -> EDMNetwork:
    side, _, channels = SHAPE
    return EDMNetwork(SongUNetConfig(
        side, channels, channels, model_channels=config.channels, channel_mult=config.channel_mult, num_blocks=config.blocks,
        attn_resolutions=(), dropout=0.0,
    ))  # fmt: skip


def _unet_curve(config: Config, rank: int, directory: RunDirectory, key: Any) -> dict[str, np.ndarray]:
    """A U-Net for each ratio, one after the other, a stage each."""
    unet, law = config.unet, planted(key, rank)
    network, optimisation = _network(config.unet), _training(config.unet, config.unet.steps)

    def one(ratio: float) -> dict[str, Any]:
        own = stream(key, "unet", rank, round(8 * ratio))
        training = draws(law, own, "training", round(ratio * COMPONENTS * rank))
        with Progress(f"U-Net, ID {2 * rank}, N {len(training)}", total=unet.steps, unit="updates") as bar:
            params, loss = train_unet(network, training, optimisation, bar.update)
        if ratio == unet.ratios[-1] and rank == unet.ranks[-1]:
            path = Path(directory.path) / LARGEST
            path.parent.mkdir(parents=True, exist_ok=True)
            save_network(path, network, params, {"rank": rank, "training_examples": len(training)})
        images = sampled(network.denoiser(params), own, config.samples, config.sampler_steps, min(250, config.samples))
        padded = np.resize(
            training, (round(unet.ratios[-1] * COMPONENTS * rank), *SHAPE)
        )  # one shape, the same neighbours
        found = score(images, padded, draws(law, own, "fresh", config.fresh), config.level)
        return found | {"off": off_subspaces(images, law), "loss": loss}

    found = [directory.stage(f"networks/unet-{rank}-{ratio:g}", partial(one, ratio)) for ratio in unet.ratios]
    return {name: np.array([float(each[name]) for each in found]) for name in found[0]}


def _real_images(config: Config) -> tuple[np.ndarray, np.ndarray, Callable | None] | None:
    """Training images, held-out ones and the descriptor, or None; whatever can be refused is refused here."""
    unet = config.unet
    if unet.real is None:
        return None
    try:
        found = load_images("networks.unet.real", unet.real, "train", unet.real_size)
    except InputError as error:
        if "split = 'train'" not in str(error):
            raise
        found = load_images("networks.unet.real", unet.real, "test", unet.real_size)
    most, there = unet.real_counts[-1] + unet.real_heldout, len(found.images)
    require(there >= most, f"networks.unet.real = {unet.real!r}: images", there, f"{most}: the largest of real_counts and real_heldout")  # fmt: skip
    order = np.random.default_rng(0).permutation(there)
    training, held = found.images[order[: unet.real_counts[-1]]], found.images[order[-unet.real_heldout :]]
    side, levels = training.shape[1], 2
    require(
        side == training.shape[2] and side % levels == 0, "networks.unet.real_size", side, "square images of even size"
    )
    features: Callable | None = None
    if unet.descriptor == "pca":
        features = analysis.PCAFeatures.fit(held, unet.components)
    if unet.descriptor == "sscd":
        require(
            training.shape[3] == 3,
            "networks.unet.descriptor",
            "sscd",
            "identity or pca for images that are not in colour",
        )
        features = SSCD(str(unet.sscd))
    return training, held, features


def _real_curve(config: Config, real: tuple, directory: RunDirectory, key: Any) -> dict[str, Any]:
    """A U-Net for each number of real images; the intrinsic dimension is the least numerical rank of the last one's Jacobian."""
    unet, (training, held, features) = config.unet, real
    _, side, _, channels = training.shape
    network = EDMNetwork(SongUNetConfig(side, channels, channels, model_channels=unet.real_channels, channel_mult=(1, 2), num_blocks=1, attn_resolutions=(), dropout=0.0))  # fmt: skip
    optimisation = _training(unet, unet.real_steps)

    def one(count: int) -> dict[str, Any]:
        own = stream(key, "real", count)
        with Progress(f"U-Net, {count} images", total=unet.real_steps, unit="updates") as bar:
            params, loss = train_unet(network, training[:count], optimisation, bar.update)
        denoiser = network.denoiser(params)
        images = sampled(denoiser, own, config.samples, config.sampler_steps, min(100, config.samples))
        found = score(images, np.resize(training[:count], training.shape), held, config.level, features) | {
            "loss": loss
        }
        if count == unet.real_counts[-1]:
            found["dimension"] = _dimension(denoiser, held, own)
        return found

    found = [directory.stage(f"networks/real-{count}", partial(one, count)) for count in unet.real_counts]
    dimension = float(found[-1]["dimension"])
    gl = np.array([float(each["gl"]) for each in found])
    rows = [(count, count / dimension, each["gl"], each["threshold"], each["loss"]) for count, each in zip(unet.real_counts, found)]  # fmt: skip
    return {"gl": gl, "dimension": dimension, "rows": rows}


def _dimension(denoiser: Any, held: np.ndarray, key: Any) -> float:
    """Least mean numerical rank over noise levels, at noisy held-out images."""
    clean = held[:4]
    levels = karras_sigmas(10)[:-2]
    ranks = []
    for place, level in enumerate(levels):
        noise = np.asarray(jax.random.normal(stream(key, "noise", place), clean.shape), np.float32)
        points = clean + np.float32(level) * noise
        method = "dense" if clean[0].size <= 1024 else "products"
        found = analysis.jacobian_ranks(denoiser, points, np.float32(level), method=method, key=key, batch_size=4)
        ranks.append(float(found.rank.mean()))
    return min(ranks)


def _fitted(x: np.ndarray, y: np.ndarray, curve: np.ndarray | None = None) -> SigmoidFit | None:
    """The sigmoids, or None where the scores never cross 1/2: then nothing says where they would."""
    if not y.min() < 0.5 < y.max():
        return None
    return fit_sigmoids(x, y, curve)


def _crossing(fit: SigmoidFit | None, level: float, x: np.ndarray) -> Bounded:
    """Where the level is reached; without a fit, anywhere within and around what was measured."""
    if fit is not None:
        return fit.crossing(level)
    low, high = float(x.min()), float(x.max())
    return Bounded((low + high) / 2, 2 * low - high, 2 * high - low)


def _collapse(fit: SigmoidFit | None, ids: np.ndarray, x: np.ndarray) -> tuple[Bounded, tuple[float, float]]:
    """Spread of the midpoints over log2 N less that over log2 (N / ID), in octaves, and the two."""
    if fit is None:
        width = float(x.max() - x.min())
        return Bounded(0.0, -width, width), (0.0, 0.0)
    shift = np.log2(ids)
    return fit.spread_gain(shift), (fit.spread().estimate, fit.spread(shift).estimate)


def _claims(config: Config, bracket: dict, gains: tuple, spreads: tuple, crossings: tuple, fits: tuple) -> list[Claim]:
    """``gains``, ``spreads``, ``crossings`` and ``fits`` of the dense networks and of the U-Nets."""
    law = analysis.t_interval(bracket["true_law"])
    cases = config.samples
    low, high = _wilson(float(bracket["copies"]), cases)
    trained = (
        f"{config.optimisation.steps:,} updates of {config.width} x {config.depth} units",
        f"{config.unet.steps:,} updates of {config.unet.batch_size} examples",
    )
    claims = [
        Claim.within(
            id="networks-true-law", paper=PAPER, figure="(46)", unit="", low=config.level - 0.01, high=config.level + 0.01,
            statement=f"Draws of the true law score {config.level:g} against every training set (mean over dimensions and N).",
            value=float(law.estimate), interval=(float(law.low), float(law.high)), note=f"{bracket['true_law'].size} training sets, {config.fresh:,} draws each"),
        Claim.at_most(
            id="networks-multi-delta", paper=PAPER, figure="(21)", unit="", threshold=0.01 if cases >= 400 else 0.1,
            statement="The multi-delta denoiser, the optimum of the training loss, scores 0.",
            value=float(bracket["copies"]), interval=(low, high), note=f"{cases:,} samples"),
    ]  # fmt: skip
    for place, (name, ranks) in enumerate((("", config.ranks), ("-unet", config.unet.ranks))):
        who, fit, gain, spread = "U-Nets" if name else "dense networks", fits[place], gains[place], spreads[place]
        ids = np.log2(COMPONENTS * np.asarray(ranks))
        how = f"midpoints go as ID to the power {fit.exponent(ids).estimate:.2f}" if fit else "one curve, or scores that do not cross 1/2: nothing can be said"  # fmt: skip
        claims.append(Claim.at_least(
            id=f"networks-collapse{name}", paper=PAPER, figure="Fig 4", unit="octaves", threshold=0.0,
            statement=f"Scores of {who} agree better over N / ID than over N: the spread of the curves' midpoints falls.",
            value=gain.estimate, interval=(gain.low, gain.high), note=f"spread {spread[0]:.2f} over log2 N (or N / n, as n is fixed), {spread[1]:.2f} over log2 N / ID; {how}"))  # fmt: skip
    for place, (identifier, who) in enumerate((("networks-crossing", "Dense networks"), ("networks-unet", "U-Nets"))):
        crossing = crossings[place]
        claims.append(Claim.within(
            id=identifier, paper=PAPER, figure="Fig 4", unit="N / ID", low=30, high=120,
            statement=f"{who} reach {config.level:g} at some tens of examples a dimension (the paper: 50 to 60, U-Nets).",
            value=2**crossing.estimate, interval=(2**crossing.low, 2**crossing.high), note=f"sigmoid in log2 N / ID, all curves together; {trained[place]}"))  # fmt: skip
    return claims


def _wilson(share: float, cases: int) -> tuple[float, float]:
    found = analysis.proportion(np.arange(cases) < round(share * cases))
    return float(found.low), float(found.high)


def _figure(config: Config, ids: np.ndarray, scores: np.ndarray, unet: np.ndarray, pooled: Any, unet_fit: Any, pictures: Any) -> Any:  # fmt: skip
    ratios, unet_ratios = np.asarray(config.ratios), np.asarray(config.unet.ratios)
    fine = np.geomspace(ratios[0], ratios[-1], 80)
    over_n = {f"ID {size}": (ratios * size, scores[place]) for place, size in enumerate(ids)}
    over_ratio = {f"ID {size}": (ratios, scores[place]) for place, size in enumerate(ids)}
    fits = {} if pooled is None else {"sigmoid": (fine, pooled(np.log2(fine)))}
    unet_points = {
        f"ID {2 * rank}": (unet_ratios, unet[place][:, None]) for place, rank in enumerate(config.unet.ranks)
    }
    unet_fine = np.geomspace(unet_ratios[0], unet_ratios[-1], 80)
    panels = [
        plots.ScorePanel("dense networks", "N", over_n),
        plots.ScorePanel("dense networks", "N / ID", over_ratio, fits),
        plots.ScorePanel("U-Nets", "N", {f"ID {2 * rank}": (unet_ratios * 2 * rank, unet[place][:, None]) for place, rank in enumerate(config.unet.ranks)}),
        plots.ScorePanel("U-Nets", "N / ID", unet_points, {} if unet_fit is None else {"sigmoid": (unet_fine, unet_fit(np.log2(unet_fine)))}),
    ]  # fmt: skip
    if pictures is not None:
        counts = np.asarray(config.unet.real_counts)
        panels.append(plots.ScorePanel(f"U-Nets, {config.unet.real}", "N / ID", {str(config.unet.real): (counts / pictures["dimension"], pictures["gl"][:, None])}))  # fmt: skip
    return plots.score_curves(panels, level=config.level)


def costs(config: Config, network: Any) -> list[Cost]:
    """Training and sampling: a gradient costs about two more evaluations."""
    size = int(np.prod(SHAPE))
    dense = 2.0 * (2 * size * config.width + config.depth * config.width * (config.width + 16))
    nets = len(config.ranks) * len(config.ratios) * config.seeds
    examples = nets * config.optimisation.steps * config.optimisation.batch_size
    evaluations = nets * config.samples * (2 * config.sampler_steps - 1)
    memory = len(config.ratios) * config.seeds * (4.0 * dense * 2 + 8 * config.most * size)
    costs = [Cost("dense networks", examples + evaluations, dense * (3 * examples + evaluations), memory, 0)]
    unet = _network(config.unet)
    costs.append(
        _unet_cost("U-Nets", unet, len(config.unet.ranks) * len(config.unet.ratios), config.unet.steps, config)
    )
    if config.unet.real is not None:
        side, channels = (config.unet.real_size or 32), 3
        of_real = EDMNetwork(SongUNetConfig(side, channels, channels, model_channels=config.unet.real_channels, channel_mult=(1, 2), num_blocks=1, attn_resolutions=(), dropout=0.0))  # fmt: skip
        costs.append(
            _unet_cost("U-Nets, real images", of_real, len(config.unet.real_counts), config.unet.real_steps, config)
        )
    return costs


def _unet_cost(name: str, network: EDMNetwork, count: int, steps: int, config: Config) -> Cost:
    image, level = jax.ShapeDtypeStruct(network.shape, np.float32), jax.ShapeDtypeStruct((), np.float32)
    flop = matmul_flop(network.apply, network.abstract_params, image, level)
    examples, evaluations = (
        count * steps * config.unet.batch_size,
        count * config.samples * (2 * config.sampler_steps - 1),
    )
    memory = 5 * 4 * network.parameter_count + config.unet.batch_size * int(np.prod(network.shape)) * 4 * 20
    return Cost(name, examples + evaluations, flop * (3 * examples + evaluations), memory, 8 * network.parameter_count)
