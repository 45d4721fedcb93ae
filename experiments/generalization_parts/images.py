"""Real images (Figs 6 and 7): networks trained on the nearest and on the farthest pair of k-means clusters of a data set.

Left out unless asked for (``--parts images``). Clusters are those of standardised pixels, as in the authors' notebook, and the networks
see standardised pixels. What the notebook does not do: each network is judged on held-out images of its own pair (there, both by
those of the farthest), the other pair's are labelled as such; losses are compared at equal noise levels and against the best linear
denoiser for the pair's own covariance, for the pairs' variances differ; and bits per dimension are those of 8-bit pixels.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dgu import plots
from dgu.analysis import (
    PCAFeatures,
    cluster_pairs,
    corrected_t_interval,
    extract_features,
    kmeans,
    level_losses,
    linear_level_loss,
)
from dgu.core import keys
from dgu.core.errors import require
from dgu.data.scaling import PixelScale
from dgu.data.splits import class_splits, digests
from dgu.models import EDMNetwork, VESDEPreconditioning, save_network
from dgu.models.weights import params_from_arrays, params_to_arrays
from dgu.samplers import VESDE, bits_per_dim, dequantize, karras_sigmas, log_likelihood, sample
from dgu.training import TrainingConfig
from experiments.generalization_parts.common import untrained
from experiments.generalization_parts.config import Config
from experiments.generalization_parts.images_config import ImagesConfig
from experiments.generalization_parts.images_training import train_side_by_side
from experiments.study.costs import Cost
from experiments.study.flop import matmul_flop
from experiments.study.judged import JudgedClaim
from experiments.study.pool import load_images
from experiments.study.processes import is_lead
from experiments.study.progress import Progress
from experiments.study.report import FigureEntry, Section, Table
from experiments.study.run_directory import RunDirectory

TITLE = "Real images"
CLAIM_IDS = (
    "images-training-loss",
    "images-held-out-loss",
    "images-every-level",
    "images-beyond-variance",
    "images-gap",
    "images-bits",
    "images-confounded",
    "images-mode-weights",
)
FIGURE_FILES = (
    "figures/images_training.png",
    "figures/images_levels.png",
    "figures/images_bits.png",
    "figures/images_samples.png",
)
PAIRS = ("nearest", "farthest")
SDE = VESDE()
#: The earliest time that is sampled and integrated to, as in Song's tutorial: training seldom sees earlier ones.
T_MIN = 1e-3
#: Network evaluations of a likelihood for each of its steps, and such steps, about; those of a product J v in evaluations.
_STAGES, _ODE_STEPS, _PRODUCT = 13, 25, 1.5
#: Operations a second that two cores reached with these networks, measured, for the estimate of the time.
_RATE = 9e10


def load(options: ImagesConfig) -> Any:
    """The images, a float32 (n, H, W, C) array in [-1, 1] of 8-bit levels without copies; ``InputError`` if unfit."""
    images = load_images("images.data", options.data, options.split, options.size).images
    _, height, width, channels = images.shape
    require(height == width, "images.data", options.data, f"square images, not {height} x {width}")
    options.unet(height, channels)
    levels = np.round((images + 1) * np.float32(127.5)) / np.float32(127.5) - 1
    _, first = np.unique(digests(levels), return_index=True)
    pool = levels[np.sort(first)]
    require(options.components <= min(len(pool) - 1, pool[0].size), "images.components", options.components, f"at most {min(len(pool) - 1, pool[0].size)} for these images")  # fmt: skip
    require(options.clusters <= len(pool), "images.clusters", options.clusters, f"at most {len(pool)}, the number of images")  # fmt: skip
    return pool


def network_for(options: ImagesConfig, shape: tuple[int, ...]) -> EDMNetwork:
    """The score network: Song's tutorial's."""
    return EDMNetwork(options.unet(shape[0], shape[-1]), VESDEPreconditioning())


def optimisation_for(options: ImagesConfig, seed: int) -> TrainingConfig:
    """The paper's: Adam at a constant rate, loss (5) with lambda = std^2; the average of the parameters is the library's."""
    seen = 2 * options.train * options.epochs
    return TrainingConfig(
        duration_kimg=seen / 1000, batch_size=options.batch_size, learning_rate=options.rate, rampup_kimg=0.0, loss="vesde",
        ema_halflife_kimg=seen / 1000, seed=seed,
    )  # fmt: skip


def level_grid(options: ImagesConfig) -> np.ndarray:
    """Noise levels whose times are the middles of equal parts of (0, T): the mean over them is that over training's times."""
    times = (np.arange(options.levels) + 0.5) / options.levels
    return np.asarray(SDE.std(times), np.float64)


def run(config: Config, directory: RunDirectory) -> Section:
    """Clusters, then for each seed a network for each pair and what it does."""
    options, pool = config.images, load(config.images)
    print(estimate(config), flush=True)
    scale = PixelScale.fit(pool)
    clusters = directory.stage("images/clusters", partial(_clusters, config, pool, scale))
    network = network_for(options, pool.shape[1:])
    linear = np.stack([_linear(options, pool, scale, clusters, pair) for pair in range(2)])
    stored, shown = [], []
    optimisation = optimisation_for(options, 0)
    with Progress("training pairs of networks", options.seeds * optimisation.total_steps, "steps") as bar:
        for seed in range(options.seeds):
            sets = [_split(config, pool, scale, clusters, pair, seed) for pair in range(2)]
            stage = f"images/networks-{seed}"
            trained = directory.stage(stage, partial(_train, config, network, sets, seed, directory, bar.update))
            bar.update((seed + 1) * optimisation.total_steps - bar.done)
            stored.append({"losses": trained["losses"]})
            shown.append(sets)
            networks = [_stored_params(network, trained, name) for name in PAIRS]
            judged = directory.stage(
                f"images/judged-{seed}", partial(_judge, config, network, networks, sets, scale, seed)
            )
            stored[-1] |= judged
    every = {name: np.stack([one[name] for one in stored]) for name in stored[0]}
    return _section(config, directory, clusters, scale, every, linear, shown)


def _clusters(config: Config, pool: np.ndarray, scale: PixelScale) -> dict[str, np.ndarray]:
    options, scaled = config.images, scale.apply(pool)
    with Progress("clusters", 1, "data sets") as bar:
        features = extract_features(scaled, PCAFeatures.fit(scaled, options.components))
        key = keys.stream(keys.seeded(config.seed), "images", "clusters")
        found = kmeans(features, options.clusters, key, restarts=options.restarts)
        bar.update()
    pairs = cluster_pairs(found.centres, found.labels, options.train + options.held_out, smallest=options.smallest)
    return {
        "labels": found.labels.astype(np.int32),
        "sizes": found.sizes,
        "pairs": np.array([pair.clusters for pair in pairs]),
        "distances": np.array([pair.distance for pair in pairs]),
        "inertia": np.asarray(found.inertia),
        "converged": np.asarray(found.converged),
        "reseeded": np.asarray(found.reseeded),
    }


def _split(
    config: Config, pool: np.ndarray, scale: PixelScale, clusters: dict[str, np.ndarray], pair: int, seed: int
) -> dict[str, np.ndarray]:
    """Images of a pair as its network sees them: ``train`` (with ``shifts`` copies), ``first`` (one copy), ``held_out``."""
    options = config.images
    sizes = {"train": options.train, "held_out": options.held_out}
    rows: dict[str, list[np.ndarray]] = {name: [] for name in sizes}
    for cluster in clusters["pairs"][pair]:
        members = np.flatnonzero(clusters["labels"] == cluster)
        # By the cluster's number: a cluster in both pairs has the same held-out images in both.
        parts = class_splits(len(members), sizes, config.seed, seed, int(cluster))
        for name in sizes:
            rows[name].append(members[parts[name]])
    key = keys.stream(keys.seeded(config.seed), "images", "shifts", seed)

    def shifted(name: str, copy: int) -> np.ndarray:
        images = pool[np.concatenate(rows[name])]
        own = keys.stream(key, name, pair, copy)
        return scale.apply(np.asarray(dequantize(jnp.asarray(images), own)))

    copies = [shifted("train", copy) for copy in range(options.shifts)]
    return {"train": np.concatenate(copies), "first": copies[0], "held_out": shifted("held_out", 0)}


def _linear(
    options: ImagesConfig, pool: np.ndarray, scale: PixelScale, clusters: dict[str, np.ndarray], pair: int
) -> np.ndarray:
    """The loss of the best linear denoiser for the pair: two clusters of equal weight, all of their images, dequantised."""
    parts = [scale.apply(pool[clusters["labels"] == cluster]) for cluster in clusters["pairs"][pair]]
    flat = [part.reshape(len(part), -1).astype(np.float64) for part in parts]
    apart = flat[0].mean(axis=0) - flat[1].mean(axis=0)
    within = sum(np.cov(part.T, ddof=0) for part in flat) / 2
    cell = np.square(2 / 255 / scale.std.astype(np.float64).ravel()) / 12
    return linear_level_loss(within + np.outer(apart, apart) / 4 + np.diag(cell), level_grid(options))


def _train(
    config: Config, network: EDMNetwork, sets: list[dict[str, np.ndarray]], seed: int, directory: RunDirectory, progress: Any
) -> dict[str, np.ndarray]:  # fmt: skip
    options = config.images
    optimisation = optimisation_for(options, config.seed + seed)
    images = [one["train"] for one in sets]
    folder = directory.path / "checkpoints" / f"images-{seed}"
    params, losses = train_side_by_side(network, images, optimisation, options.bins, folder, progress)
    found: dict[str, np.ndarray] = {"losses": losses * images[0][0].size}
    for name, own in zip(PAIRS, params):
        if is_lead():
            save_network(directory.path / "networks" / f"{name}-{seed}.npz", network, own, {"pair": name, "seed": seed})
        found |= {f"{name}.{leaf}": array for leaf, array in params_to_arrays(own).items()}
    return found


def _stored_params(network: EDMNetwork, arrays: dict[str, np.ndarray], name: str) -> Any:
    own = {leaf.removeprefix(f"{name}."): array for leaf, array in arrays.items() if leaf.startswith(f"{name}.")}
    return params_from_arrays(network, own)


@jax.jit
def _nats(denoiser: Any, images: Any, noise_keys: Any, limits: Any, tolerance: Any, probes: Any) -> Any:
    """Log densities of images and their standard errors over probes."""
    low, high = limits

    def one(image: Any, key: Any) -> Any:
        return log_likelihood(
            denoiser, image, sigma_min=low, sigma_max=high, key=key, probes=probes.shape[0], rtol=tolerance, atol=tolerance
        )  # fmt: skip

    return jax.vmap(one)(images, noise_keys)


def _judge(
    config: Config, network: EDMNetwork, networks: list[Any], sets: list[dict[str, np.ndarray]], scale: PixelScale, seed: int
) -> dict[str, np.ndarray]:  # fmt: skip
    """Losses at each level, bits per dimension and samples: ``[i, j]`` is network i on the images of pair j."""
    options, levels = config.images, level_grid(config.images)
    root = keys.stream(keys.seeded(config.seed), "images", "judge", seed)
    denoisers = [network.denoiser(params) for params in networks]
    low, high = float(SDE.std(T_MIN)), float(SDE.std(SDE.t_max))
    devices = jax.local_devices()
    nats, held, errors = [], [], []
    chosen = np.linspace(0, 2 * options.held_out - 1, options.likelihoods).round().astype(int)
    with Progress(f"judging networks of seed {seed}", 4 * len(PAIRS), "evaluations") as bar:
        for i, denoiser in enumerate(denoisers):
            for j, images in enumerate(sets):
                device = devices[(2 * i + j) % len(devices)]
                probe_keys = jax.vmap(partial(jax.random.fold_in, keys.stream(root, "probes", j)))(
                    jnp.arange(len(chosen))
                )
                given = jax.device_put(
                    (denoiser, images["held_out"][chosen], probe_keys, (low, high), options.tolerance, np.zeros(options.probes)),
                    device,
                )  # fmt: skip
                nats.append(_nats(*given))
        for denoiser in denoisers:
            for j, images in enumerate(sets):
                # The same noise for both networks.
                key = keys.stream(root, "noise", j)
                each = level_losses(denoiser, images["held_out"], key, sigmas=levels, draws=options.draws)
                held.append(each.mean(axis=0))
                errors.append(each.mean(axis=1).std(ddof=1) / np.sqrt(len(each)))
                bar.update()
        own = [
            level_losses(denoiser, images["first"], keys.stream(root, "train", j), sigmas=levels, draws=options.draws).mean(axis=0)
            for j, (denoiser, images) in enumerate(zip(denoisers, sets))
        ]  # fmt: skip
        sigmas = karras_sigmas(options.steps, low, high)
        drawn = [
            sample(denoiser, keys.stream(root, "samples"), np.arange(options.samples), sigmas, shape=network.shape, batch_size=50)
            for denoiser in denoisers
        ]  # fmt: skip
        bits, spread = [], []
        for log_density, error in nats:
            pixels = np.asarray(log_density, np.float64) - scale.log_volume
            require(
                bool(np.isfinite(pixels).all()), "images.tolerance", options.tolerance, "large enough to be reached"
            )
            bits.append(bits_per_dim(pixels, network.shape))
            spread.append(np.asarray(error, np.float64))
            bar.update()
    shares = [_share_of_first(images, one, options) for images, one in zip(sets, drawn)]
    return {
        "held_out": np.stack(held).reshape(2, 2, -1),
        "held_out_error": np.array(errors).reshape(2, 2),
        "train": np.stack(own),
        "bits": np.stack(bits).reshape(2, 2, -1),
        "probe_error": np.stack(spread).reshape(2, 2, -1),
        "shares": np.array(shares),
        "pictures": np.stack([scale.invert(one[:8]) for one in drawn]),
    }


def pixel_bits(nats: Any, scale: PixelScale) -> Any:
    """Bits per dimension of 8-bit pixels, from nats of their standardised selves."""
    return bits_per_dim(nats - scale.log_volume, scale.mean.shape)


def _share_of_first(images: dict[str, np.ndarray], drawn: np.ndarray, options: ImagesConfig) -> float:
    """Share of the samples that are nearer to the mean of the first cluster's training images."""
    n = options.train
    middles = [images["first"][:n].mean(axis=0), images["first"][n:].mean(axis=0)]
    squared = [np.square(drawn - middle).sum(axis=(1, 2, 3)) for middle in middles]
    return float(np.mean(squared[0] < squared[1]))


def _section(
    config: Config,
    directory: RunDirectory,
    clusters: dict[str, np.ndarray],
    scale: PixelScale,
    every: dict[str, np.ndarray],
    linear: np.ndarray,
    shown: list[list[dict[str, np.ndarray]]],
) -> Section:
    """Arrays of ``every`` have a leading axis of seeds, then the pair's network, then (where judged) the pair's images."""
    options, levels = config.images, level_grid(config.images)
    own = np.stack([every["held_out"][:, pair, pair] for pair in range(2)], axis=1)
    cross = np.stack([every["held_out"][:, pair, 1 - pair] for pair in range(2)], axis=1)
    bits = every["bits"].mean(axis=-1)
    epochs = options.epochs * (np.arange(options.bins) + 1) / options.bins

    def between(
        values: np.ndarray, bounds: tuple[float, float] = (-np.inf, np.inf)
    ) -> tuple[float, tuple[float, float]]:
        """Mean and 95 % interval over seeds: new networks on new splits of the same images."""
        found = corrected_t_interval(values, options.train, options.held_out, bounds=bounds)
        return float(found.estimate), (float(found.low), float(found.high))

    def ratio(of: np.ndarray) -> tuple[float, tuple[float, float]]:
        """The farthest pair's over the nearest's, (seeds, 2) in."""
        value, (low, high) = between(np.log(of[:, 1] / of[:, 0]))
        return float(np.exp(value)), (float(np.exp(low)), float(np.exp(high)))

    def claim(
        id: str, measured: tuple[float, tuple[float, float]], statement: str, threshold: float, **about: Any
    ) -> JudgedClaim:
        about = {"paper": "generalization", "figure": "Fig 6", "unit": ""} | about
        return JudgedClaim.at_least(
            id=id, value=measured[0], interval=measured[1], statement=statement, threshold=threshold, **about
        )

    losses = every["losses"]
    late = [number for number in range(options.bins) if epochs[number] > options.epochs / 20] or [options.bins - 1]
    every_bin = [
        claim(f"images-training-loss-{epochs[number]:g}", ratio(losses[:, :, number]), f"The same up to epoch {epochs[number]:g}.", 1.0)
        for number in late
    ]  # fmt: skip
    every_level = [
        claim(f"images-level-{levels[number]:.2g}", ratio(own[:, :, number]), f"The same at noise level {levels[number]:.2g}.", 1.0)
        for number in range(len(levels))
    ]  # fmt: skip
    mean, trained = own.mean(axis=2), every["train"].mean(axis=2)
    beyond = mean / linear.mean(axis=1)[None]
    gap = mean - trained
    off = np.abs(every["shares"] - 0.5)
    seeds = f"{options.seeds} seeds"
    claims = [
        JudgedClaim.all_of(every_bin, id=CLAIM_IDS[0], paper="generalization", figure="Fig 6", statement="The training loss on the farthest pair of clusters is above that on the nearest throughout training: ratio in each part of it after the first twentieth."),
        claim(CLAIM_IDS[1], ratio(mean), "The loss on held-out images, each network on its own pair's, is larger for the farthest pair: ratio, mean over training's noise levels.", 1.0, note=seeds),
        JudgedClaim.all_of(every_level, id=CLAIM_IDS[2], paper="generalization", figure="Fig 6", statement="The held-out loss on the farthest pair is above that on the nearest at every single noise level."),
        claim(CLAIM_IDS[3], ratio(beyond), "Far clusters are harder than their variance makes them: ratio of held-out losses, each over that of the best linear denoiser for its pair's covariance.", 1.0, paper="own", figure="", note="1 where only the covariances matter"),
        claim(CLAIM_IDS[4], between(gap[:, 1] - gap[:, 0]), "Far clusters generalise worse: held-out loss minus the loss on the training images, farthest minus nearest.", 0.0, paper="own", figure="", unit="summed over pixels"),
        claim(CLAIM_IDS[5], between(bits[:, 1, 1] - bits[:, 0, 0]), "The farthest pair's held-out images have the lower likelihood: bits per dimension, farthest minus nearest, each under its own network.", 0.0, figure="section 4.2", unit="bits per dimension", note="of 8-bit pixels; the notebook's own figures, 13.5 and 10.2, are not on this scale"),
        claim(CLAIM_IDS[6], between(bits[:, 0, 1] - bits[:, 1, 1]), "A cross evaluation, no measure of generalisation: the nearest pair's network does worse on the farthest pair's images than that pair's own network.", 0.0, paper="own", figure="", unit="bits per dimension", note="what judging both networks by one test set amounts to"),
        claim(CLAIM_IDS[7], between(off[:, 1] - off[:, 0], (-0.5, 0.5)), "The weights of far clusters are learned worse: how far the share of samples nearer to one cluster is from a half, farthest minus nearest.", 0.0, paper="own", figure="", unit="share of samples"),
    ]  # fmt: skip
    claims = [one.unless(untrained(options.epochs)) for one in claims]
    figures = _figures(config, directory, scale, every, own, cross, linear, shown)
    sizes = [tuple(int(clusters["sizes"][cluster]) for cluster in pair) for pair in clusters["pairs"]]
    rows = [
        (name, f"{clusters['pairs'][k][0]} and {clusters['pairs'][k][1]}", f"{sizes[k][0]} and {sizes[k][1]}", float(clusters["distances"][k]), float(losses[:, k, -1].mean()), float(mean[:, k].mean()), float(cross[:, k].mean()), float(linear[k].mean()), float(bits[:, k, k].mean()), float(bits[:, k, 1 - k].mean()), " ".join(f"{share:.2f}" for share in every["shares"][:, k]))
        for k, name in enumerate(PAIRS)
    ]  # fmt: skip
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
    answer = (
        f"On {options.data}, clusters {float(clusters['distances'][1] / clusters['distances'][0]):.1f} times as far apart have a held-out loss "
        f"of {float(mean[:, 1].mean()):.3g} against {float(mean[:, 0].mean()):.3g} ({float(linear[1].mean()):.3g} and {float(linear[0].mean()):.3g} "
        f"for the best linear denoisers), and {float(bits[:, 1, 1].mean()):.2f} against {float(bits[:, 0, 0].mean()):.2f} bits per dimension."
    )  # fmt: skip
    metrics = {
        "pairs": {name: {"clusters": clusters["pairs"][k], "distance": float(clusters["distances"][k])} for k, name in enumerate(PAIRS)},
        "training_loss": {name: losses[:, k].mean(axis=0) for k, name in enumerate(PAIRS)},
        "held_out_loss": {name: own[:, k].mean(axis=0) for k, name in enumerate(PAIRS)},
        "cross_loss": {name: cross[:, k].mean(axis=0) for k, name in enumerate(PAIRS)},
        "linear_loss": {name: linear[k] for k, name in enumerate(PAIRS)},
        "noise_levels": levels,
        "bits_per_dimension": {name: bits[:, k, k] for k, name in enumerate(PAIRS)},
        "largest_probe_error": float(every["probe_error"].max() / scale.std.size / np.log(2)),
        "k_means": {name: clusters[name] for name in ("inertia", "converged", "reseeded", "sizes")},
    }  # fmt: skip
    return Section(
        TITLE, answer, claims, figures, [Table("Pairs of clusters, means over seeds", header, rows)], metrics
    )


def _figures(
    config: Config,
    directory: RunDirectory,
    scale: PixelScale,
    every: dict[str, np.ndarray],
    own: np.ndarray,
    cross: np.ndarray,
    linear: np.ndarray,
    shown: list[list[dict[str, np.ndarray]]],
) -> list[FigureEntry]:
    options, levels = config.images, level_grid(config.images)
    epochs = options.epochs * (np.arange(options.bins) + 0.5) / options.bins
    arms = [f"{name} pair" for name in PAIRS]

    def curves(values: np.ndarray) -> dict[str, np.ndarray]:
        return {arm: values[:, place] for place, arm in enumerate(arms)}

    loss = "loss, summed over pixels"
    training = plots.ArmPanel("Training", "epochs", loss, epochs, curves(every["losses"]))
    directory.save_figure(FIGURE_FILES[0], plots.arm_curves([training], title=f"{options.data}, {options.seeds} seeds"))
    level, bounds = "noise level, standardised pixels", dict(zip(arms, linear))
    panels = [
        plots.ArmPanel("Own held-out images", level, loss, levels, curves(own), bounds, "best linear denoiser", log_x=True),
        plots.ArmPanel("Held out over best linear", level, "ratio", levels, curves(own / linear[None]), log_x=True, level=1.0),
        plots.ArmPanel("Cross evaluation: the other pair's", level, loss, levels, curves(cross), log_x=True),
    ]  # fmt: skip
    directory.save_figure(FIGURE_FILES[1], plots.arm_curves(panels, title=f"{options.data}, {options.seeds} seeds"))
    bits = every["bits"].mean(axis=-1)
    series = {}
    for name, other in (("own held-out images", False), ("cross: the other pair's images", True)):
        values = np.full((2, 3), np.nan)
        for k in range(2):
            found = corrected_t_interval(bits[:, k, 1 - k if other else k], options.train, options.held_out)
            values[k] = found.estimate, found.low, found.high
        series[name] = values
    rows = [f"network of the {arm}" for arm in arms]
    directory.save_figure(
        FIGURE_FILES[2],
        plots.interval_dots(rows, series, quantity="bits per dimension, 8-bit pixels, 95 % interval over seeds"),
    )
    grid, names = [], []
    for k, arm in enumerate(PAIRS):
        for seed in range(min(options.seeds, 3)):
            n = options.train
            real = scale.invert(shown[seed][k]["first"][np.r_[0:8, n : n + 8] % (2 * n)])
            grid.append(np.concatenate([real, every["pictures"][seed, k]]))
            names.append(f"{arm}, seed {seed}")
    pictures = np.stack(grid)
    pictures = pictures if pictures.shape[-1] in (1, 3) else pictures[..., :1]
    blocks = ["training images, one cluster", "the other", "samples"]
    directory.save_figure(FIGURE_FILES[3], plots.image_grid(pictures.astype(np.float32), names, blocks))
    return [
        FigureEntry(FIGURE_FILES[0], "Training loss on the nearest and the farthest pair of clusters (Fig 6): mean, and the range over seeds."),
        FigureEntry(FIGURE_FILES[1], "Loss at each noise level on each network's own held-out images, the same over what the best linear denoiser leaves, and (a cross evaluation) on the other pair's images."),
        FigureEntry(FIGURE_FILES[2], "Bits per dimension of held-out images, under the network of their own pair and, as a cross evaluation, of the other."),
        FigureEntry(FIGURE_FILES[3], "Training images of both clusters, and samples (Fig 7)."),
    ]  # fmt: skip


def costs(config: Config) -> list[Cost]:
    """Clusters, training, and judging. The images are read and checked, nothing is computed."""
    options = config.images
    pool = load(options)
    network = network_for(options, pool.shape[1:])
    params = network.abstract_params
    image, level = jax.ShapeDtypeStruct(network.shape, jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)
    forward = matmul_flop(network.apply, params, image, level)
    pixels, weights = pool[0].size, 4 * network.parameter_count
    visits = 2 * options.seeds * optimisation_for(options, 0).total_steps * options.batch_size
    images = 4 * options.held_out + 4 * options.train
    judged = 2 * options.seeds * (
        images * options.levels * options.draws
        + 2 * options.likelihoods * _STAGES * _ODE_STEPS * (1 + _PRODUCT * options.probes)
        + options.samples * (2 * options.steps - 1)
    )  # fmt: skip
    iterations = 60 * options.restarts
    cluster_flop = 4.0 * len(pool) * options.components * options.clusters * iterations
    held = 8.0 * len(pool) * (pixels + options.restarts * options.clusters)
    # A gradient costs about two more evaluations; parameters, average, two moments and gradient of two networks.
    return [
        Cost("image clusters", 0, cluster_flop, held, 4.0 * len(pool)),
        Cost("image networks", visits, 3 * visits * forward, 4 * pool.nbytes + 10 * weights, 2 * options.seeds * 10 * weights),
        Cost("images judged", judged, judged * forward, 4 * pool.nbytes, 8.0 * options.seeds * images),
    ]  # fmt: skip


def estimate(config: Config) -> str:
    """A line with the minutes that the part takes."""
    minutes = sum(cost.flop for cost in costs(config)) / _RATE / 60
    shown = f"{minutes:.0f}" if minutes >= 1 else f"{minutes:.1g}"
    return f"{TITLE}: about {shown} minutes on two cores at {_RATE:.2g} operations a second"
