"""From how many real images on do networks generalise? Several data sets over N and over N / ID, with ID measured."""

import jax
import numpy as np

from dgu import plots
from dgu.analysis.stats.estimates import Estimate
from experiments import study
from experiments.molrg.networks import networks_cost
from experiments.molrg.path_ranks import least_rank
from experiments.molrg.real_arms import RealImages, real_sets, trained_on
from experiments.molrg.real_config import AUTO, PRESETS, Config
from experiments.molrg.score_fits import Fits, collapse, crossed, ends, panels
from experiments.molrg.subject import PAPER, Plan, Subject
from experiments.study import Claim, Cost, Figure, Findings, at_least, within

#: Training images for each intrinsic dimension from which on the paper's networks generalise, and the factor around it
#: within which ours count as the same.
CONSTANT, FACTOR = 630.0, 2.0

FIGURES = (
    Figure(
        "real_generalisation",
        "Generalisation score of networks trained on N real images, several data sets: share of samples at least as "
        "far from the training images as the threshold, calibrated by held-out images, against N and against N over "
        "the intrinsic dimension ID (Fig 4, right, of the paper). Dashed: the one sigmoid that fits all points of a "
        "panel best.",
        "fig-4",
    ),
    Figure(
        "real_ranks",
        "Numerical rank of the Jacobian over the size of an image, along sampling trajectories of the network of the "
        "most images of each data set: mean, and range over trajectories as a band (Fig 7 and Table 2 of the paper). "
        "The least mean rank is the intrinsic dimension.",
        "fig-7 table-2",
    ),
)


def claims(config: Config) -> tuple[Claim, ...]:
    """What is tested."""
    power = (
        "Generalisation scores of networks that were trained on N real images of several data sets are a function of "
        "N / ID rather than of N, with ID the intrinsic dimension of each data set, measured by the numerical rank of "
        "the Jacobian (value: the power of ID to which the midpoints of the data sets' curves are proportional, 1 for "
        "a function of N / ID and 0 for one of N; ID is taken as it was measured)."
    )
    low, high = CONSTANT / FACTOR, CONSTANT * FACTOR
    constant = (
        f"Networks reach the generalisation score {config.level:g}, that of held-out images, with about {CONSTANT:g} "
        f"real training images for each intrinsic dimension ID of the data set, from {low:g} to {high:g} (value: the "
        "number of images over ID at which the sigmoid fitted to the scores of all data sets is there)."
    )
    return (
        Claim("real-collapse", power, at_least(0.5), "Fig 4"),
        Claim("real-constant", constant, within(low, high), "Fig 4, equation 20", "N / ID"),
    )


def check(config: Config, subject: Subject) -> None:
    """Whether the images can be loaded and described."""
    real_sets(config)


def skips(config: Config, subject: Subject) -> str:
    """Why nothing can be trained; empty where it can."""
    return "" if real_sets(config) else f"none of the data sets {', '.join(AUTO)} is on this machine (--real.sets)"


def measure(config: Config, subject: Subject, run: study.Run) -> list[tuple[RealImages, dict[str, np.ndarray]]]:
    """Every data set, a stage each; the subject takes no part."""
    return [
        (real, run.stage(f"{place}", trained_on, config, real, run, place))
        for place, real in enumerate(real_sets(config))
    ]


def report(config: Config, subject: Subject, found: list[tuple[RealImages, dict[str, np.ndarray]]]) -> Findings:
    """Sigmoids through the scores of all data sets, and the ranks that give their dimensions."""
    names = [real.name for real, _ in found]
    widths = [real.training[0].size for real, _ in found]
    least = [least_rank(own["ranks"], width) for (_, own), width in zip(found, widths)]
    dimensions = np.array([max(1.0, float(dimension.value)) for _, dimension in least])
    scores = np.stack([own["gl"] for _, own in found])[:, :, None]
    counts = np.broadcast_to(np.asarray(config.counts), scores.shape[:2])
    fits = Fits.of(dimensions, counts, scores, config.level)
    trained = f"{config.steps:,} updates of {config.batch_size} images, {config.precondition.upper()} preconditioning"
    rows = [
        (name, count, float(count / dimension), *(float(own[of][at]) for of in ("gl", "threshold", "loss")))
        for (name, dimension, (_, own)) in zip(names, dimensions, found)
        for at, count in enumerate(config.counts)
    ]
    header = ("data", "N", "N / ID", "score", "threshold", "loss")
    compared = {"identity": "pixels", "pca": f"{config.components} principal components", "sscd": "SSCD's features"}
    about = f"Images are compared by {compared[config.descriptor]}. {trained}."
    return Findings(
        _answer(config, names, least, widths, fits),
        claims={
            "real-collapse": collapse(fits, len(found)),
            "real-constant": crossed(fits, len(found), trained),
        },
        figures={
            "real_generalisation": (
                plots.score_curves(
                    panels("real images", names, dimensions, counts, scores, fits), level=config.level
                ),
                about,
            ),
            "real_ranks": (
                plots.level_curves(_rank_panels(found, names, widths), columns=1),
                f"{config.trajectories} trajectories of {config.sampler_steps} Heun steps, N = {config.counts[-1]:,}.",
            ),
        },
        tables=[
            study.Table("Networks on real images", header, rows),
            study.Table(
                "Intrinsic dimension: the least rank (Table 2)",
                ("data", "dimension", "low", "high", "of", "at sigma", "lower bound"),
                [
                    (name, *map(float, (dimension.value, dimension.low, dimension.high)), width,
                     float(own["sigmas"][lowest]), "yes" if own["is_bound"][lowest].any() else "no")
                    for name, (lowest, dimension), width, (_, own) in zip(names, least, widths, found)
                ],
            ),
        ],
        metrics={
            "counts": list(config.counts),
            "gl": {name: own["gl"] for name, (_, own) in zip(names, found)},
            "dimension": dict(zip(names, dimensions.tolist())),
            "exponent": ends(fits.exponent),
            "crossing_log2": ends(fits.crossing),
        },
    )  # fmt: skip


def _rank_panels(
    found: list[tuple[RealImages, dict[str, np.ndarray]]], names: list[str], widths: list[int]
) -> "list[plots.LevelPanel]":
    """Ranks over the size of an image, all data sets in one panel: they share their noise levels."""
    shares = [own["ranks"] / width for (_, own), width in zip(found, widths)]
    curves = {name: plots.mean_and_range(share, axis=-1) for name, share in zip(names, shares)}
    bounds = {name: np.asarray(own["is_bound"].any(axis=1)) for name, (_, own) in zip(names, found)}
    return [plots.LevelPanel("", "numerical rank / size", found[0][1]["sigmas"], curves, bounds=bounds)]


def _answer(config: Config, names: list[str], least: list[tuple[int, Estimate]], widths: list[int], fits: Fits) -> str:
    of = ", ".join(
        f"{dimension.value:.1f} of {width} ({name})" for name, (_, dimension), width in zip(names, least, widths)
    )
    sentences = [f"The intrinsic dimensions of the data sets are {of}."]
    if fits.crossing is None:
        sentences.append("The scores of networks trained on N of their images do not cross 1/2.")
        return " ".join(sentences)
    value, low, high = (2**end for end in (fits.crossing.value, fits.crossing.low, fits.crossing.high))
    sentences.append(
        f"Networks reach the score of held-out images, {config.level:g}, at N / ID = {value:.0f} [{low:.0f}, "
        f"{high:.0f}] (the paper, with larger networks and images: about {CONSTANT:g})."
    )
    if fits.spread is not None:
        over_n, over_ratio = fits.spread
        sentences.append(
            f"The midpoints of the curves spread by {over_n:.2f} octaves over N and {over_ratio:.2f} over N / ID."
        )
    return " ".join(sentences)


def costs(config: Config, plan: Plan) -> list[Cost]:
    """Training, samples, and the Jacobians of one network for each data set, as if each were in colour."""
    sets = len(AUTO) if config.sets == ("auto",) else len(config.sets)
    side = config.size or 32
    network = config.network((side, side, 3))
    size, step = int(np.prod(network.shape)), 2 * config.sampler_steps - 1
    products = size if size <= config.dense else 32 * 12 + 32
    ranks = config.trajectories * (step + config.sampler_steps * (products + 1)) // len(config.counts)
    evaluations = config.samples * step + ranks
    count, at_once = sets * len(config.counts), config.micro_batch or config.batch_size
    beside = -(-len(config.counts) // jax.local_device_count())
    trained = config.steps * config.batch_size
    return [networks_cost("real images", network, count, trained, evaluations, at_once, beside)]


PART = study.Part(
    "real", "Generalisation on real images", "From how many real images on do networks generalise?",
    PAPER, claims, FIGURES, measure, report, PRESETS, costs, check, skips,
)  # fmt: skip
