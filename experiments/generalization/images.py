"""Real images (Figs 6 and 7): networks trained on the nearest and on the farthest pair of clusters of a data set.

It runs only where ``--parts`` asks for it. Clusters are those of standardised pixels, as in the authors' notebook, and
the networks see standardised pixels. Unlike the notebook, which evaluates both on the farthest pair, each network is
evaluated on held-out images of its own pair, and the other pair's are labelled as such; losses are compared at equal
noise levels and with the best linear denoiser for the pair's own covariance; bits per dimension are of 8-bit pixels.

Claims are about the clusters at hand: means over all splits, initialisations and noise. Each seed draws a simple random
sample of each cluster and trains new networks, so that S^2 / J over J seeds is the whole variance.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from dgu import plots
from dgu.analysis.stats.estimates import Estimate
from dgu.analysis.stats.resampling import geometric_mean, t_interval
from experiments import study
from experiments.generalization import images_networks as networks
from experiments.generalization.images_networks import PAIRS, PRESETS, Config
from experiments.generalization.statistics import unless, untrained
from experiments.generalization.subject import PAPER, Options, Subject
from experiments.study import Claim, Cost, Figure, Findings, Measured, Noted, Run, Table, all_of, at_least
from experiments.study.messages import say
from experiments.study.progress import Progress
from experiments.subjects import evaluation_cost, training_cost

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

#: Seeds whose samples are shown.
SHOWN = 3
#: About: evaluations of the network in each step of a likelihood; such steps; evaluations that a product J v costs.
_STAGES, _ODE_STEPS, _PRODUCT = 13, 25, 1.5
#: Operations a second that two cores reached with these networks, measured, for the estimate of the time.
_RATE = 9e10
_CHANGED = (
    "Interval changed after results were seen: it was the corrected resampled t, for splits that use up one pool."
)
#: The networks in legends.
ARMS = tuple(f"{name} pair" for name in PAIRS)


def claims(config: Config) -> tuple[Claim, ...]:
    """What is tested."""
    exceeds, fig_6 = at_least(1.0), partial(Claim, source="Fig 6")
    pairs = "for the network of the farthest pair of image clusters as for that of the nearest"
    over = "the ratio of the losses, farthest over nearest pair"
    own = f"the loss on held-out images of a network's own pair is at least as large {pairs}"
    in_training = [
        fig_6(
            f"images-training-loss-{epoch:g}",
            f"The training loss is at least as large {pairs}, in the part of training that ends at epoch {epoch:g} "
            f"(value: {over}).",
            exceeds,
        )
        for epoch in config.late_bins
    ]
    at_levels = [
        fig_6(f"images-level-{level}", f"At noise level {level}, {own} (value: {over}).", exceeds)
        for level in config.level_names
    ]
    declared = (
        fig_6(
            "images-training-loss",
            f"Far clusters are harder to learn throughout training: the training loss is at least as large {pairs}, in "
            f"each part of training after the first twentieth (one part of the claim each; value: {over}).",
            all_of(*in_training),
        ),
        fig_6(
            "images-held-out-loss",
            f"Far clusters are harder to learn: averaged over the noise levels of training, {own} (value: {over}).",
            exceeds,
        ),
        fig_6(
            "images-every-level",
            f"Far clusters are harder to learn at every noise level (one part each): {own} (value: {over}).",
            all_of(*at_levels),
        ),
        Claim(
            "images-beyond-variance",
            "Far clusters are harder to learn than their variance alone makes them: the loss on held-out images of a "
            "network's own pair, relative to that of the best linear denoiser for the covariance of this pair, is at "
            f"least as large {pairs} (value: the ratio, farthest over nearest pair).",
            exceeds,
            note="The ratio is 1 where only the covariances matter.",
        ),
        Claim(
            "images-gap",
            "Networks generalise worse on far clusters: the loss on held-out images minus that on training images, of "
            f"a network's own pair, is at least as large {pairs} (value: farthest minus nearest pair).",
            at_least(0.0),
            unit="summed over pixels",
        ),
        Claim(
            "images-bits",
            "Held-out images of far clusters are less likely: under the network of their own pair, they take at least "
            "as many bits per dimension for the farthest pair of image clusters as for the nearest (value: farthest "
            "minus nearest pair).",
            at_least(0.0),
            source="section 4.2",
            unit="bits per dimension",
            note="The bits are those of 8-bit pixels; the numbers of the authors' notebook, 13.5 and 10.2, are not on "
            "this scale.",
        ),
        Claim(
            "images-confounded",
            "Evaluated on one test set, the held-out images of the farthest pair of image clusters, the network of the "
            "nearest pair does no better than that of the farthest, whatever generalises better (value: bits per "
            "dimension of the nearest pair's network minus those of the farthest pair's).",
            at_least(0.0),
            unit="bits per dimension",
        ),
        Claim(
            "images-mode-weights",
            "The weights of far clusters are learned worse: the share of a network's samples that lie nearer to one "
            f"cluster of its pair than to the other is at least as far from a half {pairs} (value: the distance from a "
            "half for the farthest pair minus that for the nearest).",
            at_least(0.0),
            unit="share of samples",
        ),
    )
    return tuple(replace(claim, note=f"{_CHANGED} {claim.note}".strip()) for claim in declared)


FIGURES = (
    Figure(
        "images_training",
        "Training loss on the nearest and on the farthest pair of clusters: mean, and range over seeds (Fig 6 of the "
        "paper).",
        "fig-6",
    ),
    Figure(
        "images_levels",
        "Loss at each noise level on the held-out images of each network's own pair, its ratio to that of the best "
        "linear denoiser, and, as a cross evaluation, the loss on the other pair's images.",
        "fig-6",
    ),
    Figure(
        "images_bits",
        "Bits per dimension of held-out images under the network of their own pair and, as a cross evaluation, of the "
        "other.",
        "fig-6",
    ),
    Figure(
        "images_samples", "Training images of both clusters of each pair, and samples (Fig 7 of the paper).", "fig-7"
    ),
)


@dataclass(frozen=True)
class Found:
    """What was measured of the networks of all seeds.

    Attributes:
        clusters: ``sizes``, the two ``pairs``, their ``distances``, and how k-means ended.
        every: arrays of ``images_networks.train`` and ``evaluate`` with a leading axis of seeds.
        linear: (pairs, levels) loss of the best linear denoiser.
        real: (seeds, pairs, 16, H, W, C) training images of the first seeds, 8 of each cluster.
    """

    clusters: Mapping[str, np.ndarray]
    every: Mapping[str, np.ndarray]
    linear: np.ndarray
    real: np.ndarray

    @property
    def own(self) -> np.ndarray:
        """(seeds, pairs, levels) loss on the held-out images of the network's own pair."""
        return np.stack([self.every["held_out"][:, pair, pair] for pair in range(2)], axis=1)

    @property
    def cross(self) -> np.ndarray:
        """(seeds, pairs, levels) loss of each network on the held-out images of the other pair."""
        return np.stack([self.every["held_out"][:, pair, 1 - pair] for pair in range(2)], axis=1)

    @property
    def bits(self) -> np.ndarray:
        """(seeds, networks, pairs) mean bits per dimension."""
        return self.every["bits"].mean(axis=-1)


def measure(config: Config, subject: Subject, run: Run) -> Found:
    """Clusters; then, for each seed, a network for each pair and what it does."""
    pool = networks.load(config)
    minutes = _minutes(_costs(config, pool.images))
    say(f"images: about {minutes} on two cores at {_RATE:.2g} operations a second")
    clusters = run.stage("clusters", networks.find_clusters, config, pool, run.key)
    linear = run.stage("linear", networks.linear_losses, config, pool, clusters)["loss"]
    stored: list[dict[str, np.ndarray]] = []
    real = []
    steps = config.optimisation(0).total_steps
    with Progress("training pairs of networks", config.seeds * steps, "steps") as bar:
        for seed in range(config.seeds):
            sets = [networks.split_pair(config, pool, clusters, run=run, pair=pair, seed=seed) for pair in range(2)]
            train = partial(networks.train, seed=seed, progress=bar.update)
            trained = run.stage(f"networks-{seed}", train, config, run, sets)
            bar.update((seed + 1) * steps - bar.done)
            evaluate = partial(networks.evaluate, seed=seed, scale=pool.scale)
            evaluated = run.stage(f"evaluated-{seed}", evaluate, config, run, trained, sets)
            stored.append({"losses": trained["losses"]} | evaluated)
            if seed < SHOWN:
                n = config.train
                first = np.r_[0:8, n : n + 8] % (2 * n)
                real.append(np.stack([pool.scale.invert(one.first[first]) for one in sets]))
    every = {name: np.stack([one[name] for one in stored]) for name in stored[0]}
    return Found(clusters, every, linear, np.stack(real))


def report(config: Config, subject: Subject, found: Found) -> Findings:
    """The farthest pair beside the nearest."""
    clusters, every, linear, bits, own = found.clusters, found.every, found.linear, found.bits, found.own
    mean, pixels = own.mean(axis=2), int(np.prod(every["pictures"].shape[-3:]))
    distances = [float(one) for one in clusters["distances"]]
    short = untrained(config.epochs)
    answer = (
        f"On {config.data}, clusters {distances[1] / distances[0]:.1f} times as far apart have a held-out loss of "
        f"{float(mean[:, 1].mean()):.3g} against {float(mean[:, 0].mean()):.3g} ({float(linear[1].mean()):.3g} and "
        f"{float(linear[0].mean()):.3g} for the best linear denoisers), and {float(bits[:, 1, 1].mean()):.2f} against "
        f"{float(bits[:, 0, 0].mean()):.2f} bits per dimension."
    )

    training, levels = _curves(config, found)

    def means(values: np.ndarray) -> dict[str, np.ndarray]:
        """Over seeds, by pair."""
        return {name: values[:, k].mean(axis=0) for k, name in enumerate(PAIRS)}

    return Findings(
        answer,
        claims={name: unless(short, measured) for name, measured in _measured(config, found).items()},
        figures={
            "images_training": training,
            "images_levels": levels,
            "images_bits": _bits(config, found),
            "images_samples": _samples(found),
        },
        tables=[_table(found)],
        metrics={
            "pairs": {
                name: {"clusters": clusters["pairs"][k], "distance": distances[k]} for k, name in enumerate(PAIRS)
            },
            "training_loss": means(every["losses"]),
            "held_out_loss": means(own),
            "cross_loss": means(found.cross),
            "linear_loss": dict(zip(PAIRS, linear)),
            "noise_levels": config.level_grid,
            "bits_per_dimension": {name: bits[:, k, k] for k, name in enumerate(PAIRS)},
            "largest_probe_error": float(every["probe_error"].max() / pixels / np.log(2)),
            "k_means": {name: clusters[name] for name in ("inertia", "converged", "reseeded", "sizes")},
        },
    )


def _measured(config: Config, found: Found) -> dict[str, Measured]:
    """What was measured for the claims."""

    def ratio(of: np.ndarray) -> Estimate:  # Of the farthest pair to the nearest.
        return geometric_mean(of[:, 1] / of[:, 0])

    own, bits, losses = found.own, found.bits, found.every["losses"]
    mean = own.mean(axis=2)
    gap = mean - found.every["train"].mean(axis=2)
    off = np.abs(found.every["shares"] - 0.5)
    late = config.late_bins
    return {
        "images-training-loss": {
            f"images-training-loss-{epoch:g}": ratio(losses[:, :, config.bins - len(late) + number])
            for number, epoch in enumerate(late)
        },
        "images-held-out-loss": Noted(ratio(mean), f"{config.seeds} seeds"),
        "images-every-level": {
            f"images-level-{level}": ratio(own[:, :, number]) for number, level in enumerate(config.level_names)
        },
        "images-beyond-variance": ratio(mean / found.linear.mean(axis=1)[None]),
        "images-gap": t_interval(gap[:, 1] - gap[:, 0]),
        "images-bits": t_interval(bits[:, 1, 1] - bits[:, 0, 0]),
        "images-confounded": t_interval(bits[:, 0, 1] - bits[:, 1, 1]),
        "images-mode-weights": t_interval(off[:, 1] - off[:, 0], bounds=(-0.5, 0.5)),
    }


def _table(found: Found) -> Table:
    clusters, every, bits = found.clusters, found.every, found.bits
    rows = []
    for k, name in enumerate(PAIRS):
        first, second = clusters["pairs"][k]
        sizes = f"{int(clusters['sizes'][first])} and {int(clusters['sizes'][second])}"
        losses = every["losses"][:, k, -1], found.own[:, k], found.cross[:, k], found.linear[k]
        means = [float(values.mean()) for values in (*losses, bits[:, k, k], bits[:, k, 1 - k])]
        shares = " ".join(f"{share:.2f}" for share in every["shares"][:, k])
        rows.append((name, f"{first} and {second}", sizes, float(clusters["distances"][k]), *means, shares))
    other = "on the other pair's images"
    losses_header = ("training loss, end", "held-out loss", other, "best linear", "bits/dim", other)
    header = ("pair", "clusters", "images", "distance", *losses_header, "shares of the first cluster")
    return Table("Pairs of clusters, means over seeds", header, rows)


def _arms(values: np.ndarray) -> dict[str, np.ndarray]:
    """The (seeds, pairs, ...) curves of each pair."""
    return {arm: values[:, place] for place, arm in enumerate(ARMS)}


def _curves(config: Config, found: Found) -> "tuple[Drawing, Drawing]":
    """Training losses; and held-out losses at each noise level, also relative to the best linear denoiser, with the
    cross evaluation.
    """
    title, loss = f"{config.data}, {config.seeds} seeds", "loss, summed over pixels"
    epochs = config.epochs * (np.arange(config.bins) + 0.5) / config.bins
    training = plots.ArmPanel("Training", "epochs", loss, epochs, _arms(found.every["losses"]))
    level, x, bounds = "noise level, standardised pixels", config.level_grid, dict(zip(ARMS, found.linear))
    own, ratio, cross = (_arms(values) for values in (found.own, found.own / found.linear[None], found.cross))
    panels = [
        plots.ArmPanel("Own held-out images", level, loss, x, own, bounds, "best linear denoiser", log_x=True),
        plots.ArmPanel("Held out over best linear", level, "ratio", x, ratio, log_x=True, level=1.0),
        plots.ArmPanel("Cross evaluation: the other pair's", level, loss, x, cross, log_x=True),
    ]
    return plots.arm_curves([training], title=title), plots.arm_curves(panels, title=title)


def _bits(config: Config, found: Found) -> "Drawing":
    """Bits per dimension, with intervals over seeds."""
    series = {}
    for name, other in (("own held-out images", False), ("cross: the other pair's images", True)):
        estimates = [t_interval(found.bits[:, k, 1 - k if other else k]) for k in range(2)]
        series[name] = np.array([(each.value, each.low, each.high) for each in estimates])
    quantity = "bits per dimension, 8-bit pixels, 95 % interval over seeds"
    return plots.interval_dots([f"network of the {arm}" for arm in ARMS], series, quantity=quantity)


def _samples(found: Found) -> "Drawing":
    """Training images of both clusters, and samples of the networks of the first seeds."""
    rows = {
        f"{arm}, seed {seed}": np.concatenate([real[k], found.every["pictures"][seed, k]])
        for k, arm in enumerate(PAIRS)
        for seed, real in enumerate(found.real)
    }
    pictures = np.stack(list(rows.values()))
    pictures = pictures if pictures.shape[-1] in (1, 3) else pictures[..., :1]
    blocks = ["training images, one cluster", "the other", "samples"]
    return plots.image_grid(pictures.astype(np.float32), list(rows), blocks)


def check(config: Config, subject: Subject) -> None:
    """The images can be used."""
    networks.load(config)


def costs(config: Config, plan: Options) -> list[Cost]:
    """Clusters, training, and evaluation. The images are read and checked where they are here; nothing is computed."""
    found = _costs(config, networks.planned(config))
    return [*found[:2], replace(found[2], stage=f"images evaluated (in all about {_minutes(found)} on two cores)")]


def _costs(config: Config, images: np.ndarray) -> list[Cost]:
    network, count, kept = config.network(images.shape[1:]), len(images), 4 * images.nbytes
    pixels, weights = images[0].size, 4 * network.parameter_count
    looked = 4 * config.held_out + 4 * config.train
    likelihoods = 2 * config.likelihoods * _STAGES * _ODE_STEPS * (1 + _PRODUCT * config.probes)
    samples = config.samples * (2 * config.steps - 1)
    evaluations = 2 * config.seeds * (looked * config.levels * config.draws + likelihoods + samples)
    cluster_flop = 4.0 * count * config.components * config.clusters * 60 * config.restarts
    held, stored = 8.0 * count * (pixels + config.restarts * config.clusters), 8.0 * config.seeds * looked
    # Both networks of a pair train side by side, where there are two devices each on its own.
    trained = training_cost(network, "image networks", config.optimisation(0), runs=2 * config.seeds, devices=1)
    evaluated = evaluation_cost(network, "images evaluated", int(evaluations), 64)
    return [
        Cost("image clusters", 0, cluster_flop, held, 4.0 * count),
        replace(trained, disk=2 * config.seeds * 10 * weights, host=kept),
        replace(evaluated, disk=stored, host=kept),
    ]


def _minutes(costs: Sequence[Cost]) -> str:
    """How long the part takes on two cores, as text."""
    minutes = sum(cost.flop for cost in costs) / _RATE / 60
    return f"{minutes:.0f} minutes" if minutes >= 1 else f"{minutes:.1g} minutes"


PART = study.Part(
    name="images",
    title="Real images",
    question="Are far clusters of real images learned worse than near ones?",
    paper=PAPER,
    claims=claims,
    figures=FIGURES,
    measure=measure,
    report=report,
    presets=PRESETS,
    costs=costs,
    check=check,
)
