"""Real images (Figs 6 and 7): networks trained on the nearest and on the farthest pair of clusters of a data set.

It runs only where ``--parts`` asks for it. Clusters are those of standardised pixels, as in the authors' notebook, and
the networks see standardised pixels. Unlike the notebook, which evaluates both networks on the farthest pair, each
network is evaluated on held-out images of its own pair, and the other pair's are labelled as such; losses are compared
at equal noise levels and with the best linear denoiser for the pair's own covariance, since the pairs' variances
differ; and bits per dimension are those of 8-bit pixels.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from dgu.analysis.stats.estimates import Estimate
from experiments.generalization import images_figures as figures
from experiments.generalization.images_data import Pool, find_clusters, linear_losses, load, split_pair
from experiments.generalization.images_figures import Found, over_seeds
from experiments.generalization.images_networks import PAIRS, evaluate, train
from experiments.generalization.images_options import PRESETS, Config
from experiments.generalization.statistics import unless, untrained
from experiments.generalization.subject import PAPER, Options, Subject
from experiments.study import (
    Claim,
    Cost,
    Figure,
    Findings,
    Measured,
    Noted,
    Part,
    Run,
    Table,
    all_of,
    at_least,
)
from experiments.study.flop import matmul_flop
from experiments.study.progress import Progress

#: Seeds whose samples are shown.
SHOWN = 3
#: Network evaluations of a likelihood for each of its steps, and such steps, about; those of a product J v in
#: evaluations.
_STAGES, _ODE_STEPS, _PRODUCT = 13, 25, 1.5
#: Operations a second that two cores reached with these networks, measured, for the estimate of the time.
_RATE = 9e10

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


def _late_bins(config: Config) -> list[float]:
    """Epochs at which the parts of the training end, without its first twentieth."""
    epochs = config.epochs * (np.arange(config.bins) + 1) / config.bins
    return [float(one) for one in epochs if one > config.epochs / 20] or [float(epochs[-1])]


def _level_names(config: Config) -> list[str]:
    """The noise levels in as few digits, two or more, as tell them apart."""
    for digits in range(2, 17):
        names = [f"{level:.{digits}g}" for level in config.level_grid]
        if len(set(names)) == len(names):
            break
    return names


def claims(config: Config) -> tuple[Claim, ...]:
    """What is tested."""
    return (
        Claim(
            "images-training-loss",
            "The training loss on the farthest pair of clusters exceeds that on the nearest throughout training (ratio "
            "in each part of it after the first twentieth).",
            all_of(
                *(
                    Claim(
                        f"images-training-loss-{epoch:g}",
                        "The training loss on the farthest pair of clusters exceeds that on the nearest in the part "
                        f"of training that ends at epoch {epoch:g} (ratio).",
                        at_least(1.0),
                        source="Fig 6",
                    )
                    for epoch in _late_bins(config)
                )
            ),
            source="Fig 6",
        ),
        Claim(
            "images-held-out-loss",
            "The loss on held-out images, each network on its own pair's, is larger for the farthest pair of clusters "
            "than for the nearest (ratio, mean over the noise levels of training).",
            at_least(1.0),
            source="Fig 6",
        ),
        Claim(
            "images-every-level",
            "The held-out loss on the farthest pair of clusters exceeds that on the nearest at every single noise "
            "level.",
            all_of(
                *(
                    Claim(
                        f"images-level-{level}",
                        "The held-out loss on the farthest pair of clusters exceeds that on the nearest at noise level "
                        f"{level} (ratio).",
                        at_least(1.0),
                        source="Fig 6",
                    )
                    for level in _level_names(config)
                )
            ),
            source="Fig 6",
        ),
        Claim(
            "images-beyond-variance",
            "Far clusters are harder than their variance makes them (farthest over nearest pair: the ratio of held-out "
            "losses, each relative to that of the best linear denoiser for its pair's covariance).",
            at_least(1.0),
            note="The ratio is 1 where only the covariances matter.",
        ),
        Claim(
            "images-gap",
            "Far clusters generalise worse: the held-out loss minus the loss on the training images is larger for the "
            "farthest pair of clusters than for the nearest (difference).",
            at_least(0.0),
            unit="summed over pixels",
        ),
        Claim(
            "images-bits",
            "The held-out images of the farthest pair of clusters have a lower likelihood than those of the nearest, "
            "each under its own network (difference of bits per dimension, farthest minus nearest).",
            at_least(0.0),
            source="section 4.2",
            unit="bits per dimension",
            note="Of 8-bit pixels; the notebook's own numbers, 13.5 and 10.2, are not on this scale.",
        ),
        Claim(
            "images-confounded",
            "In a cross evaluation, which does not measure generalisation, the network of the nearest pair does worse "
            "on the images of the farthest pair than that pair's own network (difference of bits per dimension).",
            at_least(0.0),
            unit="bits per dimension",
            note="This is what evaluating both networks on one test set amounts to.",
        ),
        Claim(
            "images-mode-weights",
            "The weights of far clusters are learned worse: the share of samples nearer to one cluster is farther from "
            "a half for the farthest pair than for the nearest (difference of the distances).",
            at_least(0.0),
            unit="share of samples",
        ),
    )


def measure(config: Config, subject: Subject, run: Run) -> Found:
    """Clusters; then, for each seed, a network for each pair and what it does."""
    pool = load(config)
    minutes = _minutes(_costs(config, pool))
    print(f"images: about {minutes} on two cores at {_RATE:.2g} operations a second", flush=True)
    clusters = run.stage("clusters", find_clusters, config, pool, run.key)
    linear = run.stage("linear", linear_losses, config, pool, clusters)["loss"]
    stored: list[dict[str, np.ndarray]] = []
    real = []
    steps = config.optimisation(0).total_steps
    with Progress("training pairs of networks", config.seeds * steps, "steps") as bar:
        for seed in range(config.seeds):
            sets = [split_pair(config, pool, clusters, run=run, pair=pair, seed=seed) for pair in range(2)]
            own = partial(train, seed=seed, progress=bar.update)
            trained = run.stage(f"networks-{seed}", own, config, run, sets)
            bar.update((seed + 1) * steps - bar.done)
            evaluating = partial(evaluate, seed=seed, scale=pool.scale)
            stored.append(
                {"losses": trained["losses"]} | run.stage(f"evaluated-{seed}", evaluating, config, run, trained, sets)
            )
            if seed < SHOWN:
                n = config.train
                first = np.r_[0:8, n : n + 8] % (2 * n)
                real.append(np.stack([pool.scale.invert(one.first[first]) for one in sets]))
    every = {name: np.stack([one[name] for one in stored]) for name in stored[0]}
    return Found(clusters, every, linear, np.stack(real))


def report(config: Config, subject: Subject, found: Found) -> Findings:
    """The farthest pair beside the nearest."""
    clusters, every, linear, bits = found.clusters, found.every, found.linear, found.bits
    losses, mean, cross = every["losses"], found.own.mean(axis=2), found.cross
    pixels = int(np.prod(every["pictures"].shape[-3:]))
    distances = [float(one) for one in clusters["distances"]]
    short = untrained(config.epochs)
    answer = (
        f"On {config.data}, clusters {distances[1] / distances[0]:.1f} times as far apart have a held-out loss of "
        f"{float(mean[:, 1].mean()):.3g} against {float(mean[:, 0].mean()):.3g} ({float(linear[1].mean()):.3g} and "
        f"{float(linear[0].mean()):.3g} for the best linear denoisers), and {float(bits[:, 1, 1].mean()):.2f} against "
        f"{float(bits[:, 0, 0].mean()):.2f} bits per dimension."
    )
    by_pair = tuple(enumerate(PAIRS))
    return Findings(
        answer,
        claims={name: unless(short, measured) for name, measured in _measured(config, found).items()},
        figures={
            "images_training": figures.training(config, found),
            "images_levels": figures.levels(config, found),
            "images_bits": figures.bits(config, found),
            "images_samples": figures.samples(found),
        },
        tables=[_table(found)],
        metrics={
            "pairs": {name: {"clusters": clusters["pairs"][k], "distance": distances[k]} for k, name in by_pair},
            "training_loss": {name: losses[:, k].mean(axis=0) for k, name in by_pair},
            "held_out_loss": {name: found.own[:, k].mean(axis=0) for k, name in by_pair},
            "cross_loss": {name: cross[:, k].mean(axis=0) for k, name in by_pair},
            "linear_loss": {name: linear[k] for k, name in by_pair},
            "noise_levels": config.level_grid,
            "bits_per_dimension": {name: bits[:, k, k] for k, name in by_pair},
            "largest_probe_error": float(every["probe_error"].max() / pixels / np.log(2)),
            "k_means": {name: clusters[name] for name in ("inertia", "converged", "reseeded", "sizes")},
        },
    )


def _measured(config: Config, found: Found) -> dict[str, Measured]:
    """What was measured for the claims."""

    def ratio(of: np.ndarray) -> Estimate:
        """The farthest pair's over the nearest's, (seeds, 2) in."""
        log = over_seeds(config, np.log(of[:, 1] / of[:, 0]))
        return Estimate(float(np.exp(log.value)), float(np.exp(log.low)), float(np.exp(log.high)), method="log ratio")

    own, bits, losses = found.own, found.bits, found.every["losses"]
    mean = own.mean(axis=2)
    gap = mean - found.every["train"].mean(axis=2)
    off = np.abs(found.every["shares"] - 0.5)
    late = _late_bins(config)
    return {
        "images-training-loss": {
            f"images-training-loss-{epoch:g}": ratio(losses[:, :, config.bins - len(late) + number])
            for number, epoch in enumerate(late)
        },
        "images-held-out-loss": Noted(ratio(mean), f"{config.seeds} seeds"),
        "images-every-level": {
            f"images-level-{level}": ratio(own[:, :, number]) for number, level in enumerate(_level_names(config))
        },
        "images-beyond-variance": ratio(mean / found.linear.mean(axis=1)[None]),
        "images-gap": over_seeds(config, gap[:, 1] - gap[:, 0]),
        "images-bits": over_seeds(config, bits[:, 1, 1] - bits[:, 0, 0]),
        "images-confounded": over_seeds(config, bits[:, 0, 1] - bits[:, 1, 1]),
        "images-mode-weights": over_seeds(config, off[:, 1] - off[:, 0], (-0.5, 0.5)),
    }


def _table(found: Found) -> Table:
    clusters, every, bits = found.clusters, found.every, found.bits
    rows = []
    for k, name in enumerate(PAIRS):
        pair = clusters["pairs"][k]
        sizes = [int(clusters["sizes"][cluster]) for cluster in pair]
        means = (
            every["losses"][:, k, -1],
            found.own[:, k],
            found.cross[:, k],
            found.linear[k],
            bits[:, k, k],
            bits[:, k, 1 - k],
        )
        shares = " ".join(f"{share:.2f}" for share in every["shares"][:, k])
        apart = float(clusters["distances"][k])
        clusters_of = f"{pair[0]} and {pair[1]}"
        rows.append((name, clusters_of, f"{sizes[0]} and {sizes[1]}", apart, *(float(m.mean()) for m in means), shares))
    header = (
        "pair",
        "clusters",
        "images",
        "distance",
        "training loss, end",
        "held-out loss",
        "on the other pair's images",
        "best linear",
        "bits/dim",
        "on the other pair's images",
        "shares of the first cluster",
    )
    return Table("Pairs of clusters, means over seeds", header, rows)


def check(config: Config, subject: Subject) -> None:
    """The images can be used."""
    load(config)


def costs(config: Config, plan: Options) -> list[Cost]:
    """Clusters, training, and evaluation. The images are read and checked, nothing is computed."""
    clusters, networks, evaluated = found = _costs(config, load(config))
    return [
        clusters,
        networks,
        replace(evaluated, stage=f"images evaluated (in all about {_minutes(found)} on two cores)"),
    ]


def _costs(config: Config, pool: Pool) -> list[Cost]:
    network, count = config.network(pool.shape), len(pool.images)
    params = network.abstract_params
    image, level = jax.ShapeDtypeStruct(network.shape, jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)
    forward = matmul_flop(network.apply, params, image, level)
    pixels, weights = pool.images[0].size, 4 * network.parameter_count
    visits = 2 * config.seeds * config.optimisation(0).total_steps * config.batch_size
    images = 4 * config.held_out + 4 * config.train
    likelihoods = 2 * config.likelihoods * _STAGES * _ODE_STEPS * (1 + _PRODUCT * config.probes)
    samples = config.samples * (2 * config.steps - 1)
    evaluations = 2 * config.seeds * (images * config.levels * config.draws + likelihoods + samples)
    iterations = 60 * config.restarts
    cluster_flop = 4.0 * count * config.components * config.clusters * iterations
    held = 8.0 * count * (pixels + config.restarts * config.clusters)
    # A gradient costs about two more evaluations; parameters, average, two moments and gradient of two networks.
    memory, disk = 4 * pool.images.nbytes + 10 * weights, 2 * config.seeds * 10 * weights
    return [
        Cost("image clusters", 0, cluster_flop, held, 4.0 * count),
        Cost("image networks", visits, 3 * visits * forward, memory, disk),
        Cost(
            "images evaluated", evaluations, evaluations * forward, 4 * pool.images.nbytes, 8.0 * config.seeds * images
        ),
    ]


def _minutes(costs: Sequence[Cost]) -> str:
    """How long the part takes on two cores, as text."""
    minutes = sum(cost.flop for cost in costs) / _RATE / 60
    return f"{minutes:.0f} minutes" if minutes >= 1 else f"{minutes:.1g} minutes"


PART = Part(
    name="images",
    title="Real images",
    question="Are far clusters of real images learned worse than near ones? Runs only where --parts asks for it.",
    paper=PAPER,
    presets=PRESETS,
    claims=claims,
    figures=FIGURES,
    measure=measure,
    report=report,
    costs=costs,
    check=check,
)
