"""Does a network make the images of a mixture of low-rank Gaussians, from the same noise? Beside one Gaussian."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np

from dgu import analysis, plots
from dgu.core.errors import InputError, require
from dgu.core.keys import seeded, stream
from dgu.models import GaussianDenoiser, MoLRG, MoLRGDenoiser
from dgu.samplers import karras_sigmas, sample
from experiments.molrg_parts.subject import PAPER, Subject, gather, planned
from experiments.study.checkpoints import sampling_cost
from experiments.study.costs import Cost
from experiments.study.judged import JudgedClaim
from experiments.study.options import check_options
from experiments.study.progress import Progress
from experiments.study.report import FigureEntry, Section, Table
from experiments.study.run_directory import RunDirectory

TITLE = "Images against the mixture and the Gaussian"
CLAIM_IDS = ("images-order", "images-order-blind")
FIGURE_FILES = ("figures/molrg_images.png", "figures/molrg_distances.png")
NETWORK, MIXTURE, GIVEN, GAUSSIAN, OTHER = (
    "U-Net", "MoLRG", "MoLRG, class given", "one Gaussian", "U-Net, other noise",
)  # fmt: skip
#: Samples of a stage: what a killed run loses at most.
_BLOCK = 500


@dataclass(frozen=True)
class Config:
    """The network, the mixture fitted to its data and one Gaussian, from the same noises."""

    noises: int = 2500
    """Noises that all start from (the paper: 10,000), 8 or more."""
    steps: int = 35
    """Heun steps."""
    rank: int = 50
    """Rank of each component (the paper's, for 28 x 28 pixels, as far as is known)."""
    components: int = 10
    """Components of the mixture of images without classes, found by EM."""
    restarts: int = 2
    """Starts of EM, from k-means and from K-subspaces in turn."""
    shown: int = 12
    """Noises shown as pictures."""
    batch_size: int = 125
    """Samples at a time."""
    others: tuple[str, ...] = ()
    """Further networks with their training data, each CHECKPOINT=DATA or, for another rank, CHECKPOINT=DATA=RANK, such as
    runs/mnist=mnist or runs/cifar=cifar10=200."""

    def __post_init__(self) -> None:
        check_options(self, "images", noises=8, steps=2, rank=1, components=1, restarts=1, shown=2, batch_size=1)
        shown = self.shown
        require(2 <= shown <= self.noises, "images.shown", shown, f"from 2 to images.noises = {self.noises}")
        for pair in self.others:
            _other(pair)


PRESETS = {
    "smoke": Config(noises=8, steps=3, rank=3, components=2, shown=4, batch_size=8),
    "default": Config(),
    "paper": Config(noises=10_000),
}


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class _ByClass:
    """The components of a mixture as a class-conditional denoiser."""

    mixture: MoLRGDenoiser

    def __call__(self, x: Any, sigma: Any) -> Any:
        return self.mixture(x, sigma)

    def given(self, label: Any) -> MoLRGDenoiser:
        mixture = self.mixture
        weights, means, bases, variances = (
            leaf[label][None] for leaf in (mixture.weights, mixture.means, mixture.bases, mixture.variances)
        )
        return MoLRGDenoiser(weights, means, bases, variances, mixture.noise_std)


def check(config: Config, subject: Subject) -> None:
    """Before any work: whether the data allow the ranks."""
    for own, one in _all(config, subject):
        counts = np.bincount(one.labels, minlength=len(one.class_names))
        most = min(int(counts.min()) - 1, one.images[0].size)
        allowed = f"at most {most}: the pixels, and n - 1 of the smallest class of {one.name}"
        require(own.rank <= most, "images.rank", own.rank, allowed)


def _other(pair: str) -> tuple[str, str, int | None]:
    """Checkpoint, data and rank (None: that of the first network) of one of ``others``."""
    parts = pair.split("=")
    sound = len(parts) in (2, 3) and all(parts) and (len(parts) == 2 or (parts[2].isdecimal() and int(parts[2]) >= 1))
    require(sound, "images.others", pair, "CHECKPOINT=DATA or CHECKPOINT=DATA=RANK")
    return parts[0], parts[1], int(parts[2]) if len(parts) == 3 else None


def _all(config: Config, subject: Subject) -> list[tuple[Config, Subject]]:
    """Every network with its data, and the options with its rank."""
    found = [(config, subject)]
    for pair in config.others:
        checkpoint, data, rank = _other(pair)
        try:
            size = planned(checkpoint).shape[0]
        except InputError as error:
            raise InputError(f"images.others = {pair!r}: {error}") from error
        other = gather(checkpoint, data, "train", size, "images.others")
        found.append((config if rank is None else replace(config, rank=rank), other))
    return found


def run(config: Config, subject: Subject, directory: RunDirectory, seed: int) -> Section:
    """Every network with its data, one after the other."""
    every_one = _all(config, subject)
    subjects = [one for _, one in every_one]
    names = [_label(one, subjects) for one in subjects]
    measured = [_measure(own, one, directory, f"images/{place}", seed) for place, (own, one) in enumerate(every_one)]
    parts, blinds, bars, pictures, picture_names = [], [], [], [], []
    rows: list[tuple] = []
    for one, name, found in zip(subjects, names, measured):
        distances, counts = found["distances"], found["counts"]
        # As the network was used: told the class if it has any.
        like, blind = (GIVEN if one.conditional else MIXTURE), MIXTURE
        parts.append(_order(f"images-order-{name}", name, distances, like, one, config.noises))
        blinds.append(_order(f"images-order-blind-{name}", name, distances, blind, one, config.noises))
        bars.append({arm: _triple(values) for arm, values in distances.items()})
        rows.append((name, NETWORK, f"{counts[NETWORK]:,}", "", "", ""))
        rows += [(name, arm, f"{counts.get(arm, counts[NETWORK]):,}", *bars[-1][arm]) for arm in distances]
        arms = [NETWORK, *(arm for arm in distances if arm != OTHER)]
        pictures.append(np.stack([found["images"][arm][: config.shown] for arm in arms]))
        picture_names.append(arms)
    alike = [place for place, each in enumerate(pictures) if each.shape[2:] == pictures[0].shape[2:]]
    labels = [f"{names[place]}: {arm}" if len(alike) > 1 else arm for place in alike for arm in picture_names[place]]
    together = np.concatenate([pictures[place] for place in alike])
    head = "from the same noises" if len(alike) > 1 else f"{names[0]}, from the same noises"
    directory.save_figure(FIGURE_FILES[0], plots.image_grid(together, labels, [head]))
    every = list(dict.fromkeys(arm for entry in bars for arm in entry))
    absent = (np.nan, np.nan, np.nan)
    series = {arm: np.array([entry.get(arm, absent) for entry in bars]) for arm in every}
    quantity = "Euclidean distance to the network's image from the same noise"
    directory.save_figure(FIGURE_FILES[1], plots.interval_dots(names, series, quantity=quantity))
    claims = [
        JudgedClaim.all_of(
            parts, id="images-order", paper=PAPER, figure="Table 1",
            statement="The mixture of low-rank Gaussians is nearer to the network than one Gaussian, on every data set (told the class where the network is)."),
        JudgedClaim.all_of(
            blinds, id="images-order-blind", paper=PAPER, figure="Table 1",
            statement="So it is where only the network is told a class, and the mixture must find one by itself (without classes: the same comparison)."),
    ]  # fmt: skip
    first = bars[0]
    told = f", {first[GIVEN][0]:.2f} where it is told the class" if GIVEN in first else ""
    answer = (
        f"On {names[0]} ({subject.about}) the images of the mixture lie {first[MIXTURE][0]:.2f} from the network's{told}, those of one "
        f"Gaussian {first[GAUSSIAN][0]:.2f}, and another sample of the network {first[OTHER][0]:.2f} (Euclidean distance, pixels in [-1, 1])."
    )
    if subject.conditional:
        answer += (
            " The network is conditional on a class and was given the classes in turn; the paper's know of none. So the mixture is"
            " measured twice: told nothing, as the Gaussian is, and with the component of the class."
        )
    return Section(
        TITLE,
        answer,
        claims,
        [
            FigureEntry(FIGURE_FILES[0], f"Images from the same {config.shown} noises, {config.steps} Heun steps; classes in turn where the network has classes (Fig 1)."),
            FigureEntry(FIGURE_FILES[1], f"Mean distance to the network's image over {config.noises:,} noises, with 95 % intervals (Table 1). As a yardstick, the network's own images of the same class from another noise."),
        ],
        [Table("Distance to the network's images (8), and numbers that each denoiser stores", ("data", "denoiser", "numbers", "distance", "low", "high"), rows)],
        {name: {arm: {"distance": entry[arm][0], "interval": entry[arm][1:]} for arm in entry} for name, entry in zip(names, bars)},
    )  # fmt: skip


def _order(place: str, name: str, distances: dict, arm: str, subject: Subject, noises: int) -> JudgedClaim:
    """The paired difference of the Gaussian's and the mixture's distances is positive."""
    gain = analysis.t_interval(distances[GAUSSIAN] - distances[arm])
    share = 100 * float(gain.estimate) / distances[GAUSSIAN].mean()
    told = (
        " (told the class)" if arm == GIVEN else " (told no class, unlike the network)" if subject.conditional else ""
    )
    return JudgedClaim.at_least(
        id=place, paper=PAPER, figure="Table 1", unit="Euclidean distance", threshold=0.0,
        statement=f"On {name} images of the mixture{told} are nearer to the network's than those of one Gaussian, from the same noise (paired difference).",
        value=float(gain.estimate), interval=(float(gain.low), float(gain.high)), note=f"{share:.1f} % of the Gaussian's distance, {noises:,} noises",
    )  # fmt: skip


def _label(one: Subject, subjects: list[Subject]) -> str:
    return one.name if sum(other.name == one.name for other in subjects) == 1 else f"{one.name} ({subjects.index(one)})"


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    found = analysis.t_interval(values)
    return float(found.estimate), float(found.low), float(found.high)


def fit(config: Config, subject: Subject) -> MoLRG:
    """The mixture of the data: by its classes, or where it has none by EM."""
    if len(subject.class_names) > 1:
        return analysis.fit_classes(subject.images, subject.labels, config.rank)
    print(
        f"fitting {config.components} components to {len(subject.images):,} images of {subject.name} by EM ...",
        flush=True,
    )
    fitted = analysis.fit_mixture(subject.images, config.components, config.rank, seeded(0), restarts=config.restarts)
    return fitted.law


def _measure(config: Config, subject: Subject, directory: RunDirectory, name: str, seed: int) -> dict[str, Any]:
    """Images and distances of every arm, and the numbers that each stores."""
    mixture = fit(config, subject)
    gaussian = GaussianDenoiser.fit(subject.images)
    arms: dict[str, tuple[Any, bool]] = {MIXTURE: (mixture.denoiser, False), GAUSSIAN: (gaussian, False)}
    if subject.conditional:
        arms = {MIXTURE: arms[MIXTURE], GIVEN: (_ByClass(mixture.denoiser), True), GAUSSIAN: arms[GAUSSIAN]}
    key = stream(seeded(seed), "images")
    images = {}
    images[NETWORK] = _samples(config, subject, directory, f"{name}/network", subject.denoiser, True, key)
    for place, (arm, (denoiser, told)) in enumerate(arms.items()):
        images[arm] = _samples(config, subject, directory, f"{name}/arm-{place}", denoiser, told, key)
    flat = {arm: found.reshape(config.noises, -1).astype(np.float64) for arm, found in images.items()}
    # A sample of the same class from another noise: classes come in turn, so it is a whole turn further on.
    turn = len(subject.class_names) if subject.conditional and config.noises > len(subject.class_names) else 1
    flat[OTHER] = np.roll(flat[NETWORK], turn, axis=0)
    distances = {arm: np.linalg.norm(rows - flat[NETWORK], axis=1) for arm, rows in flat.items() if arm != NETWORK}
    stored = mixture.means.size + mixture.bases.size + mixture.variances.size + mixture.weights.size
    size = subject.images[0].size
    counts = {NETWORK: subject.pretrained.network.parameter_count, GAUSSIAN: size + size * (size + 1) // 2}
    return {"images": images, "distances": distances, "counts": counts | {MIXTURE: stored, GIVEN: stored}}


def _samples(
    config: Config, subject: Subject, directory: RunDirectory, name: str, denoiser: Any, told: bool, key: Any
) -> np.ndarray:
    """Samples of a denoiser from the addressed noises, in stages."""
    sigmas = karras_sigmas(config.steps, *subject.sigma_range)

    def block(numbers: np.ndarray) -> dict[str, np.ndarray]:
        labels = subject.label_of(numbers) if told else None
        return {
            "images": sample(
                denoiser, key, numbers, sigmas, shape=subject.shape, labels=labels, batch_size=config.batch_size
            )
        }

    parts = []
    with Progress(f"samples of {name}", total=config.noises, unit="images") as bar:
        for first in range(0, config.noises, _BLOCK):
            numbers = np.arange(first, min(first + _BLOCK, config.noises))
            parts.append(directory.stage(f"{name}-{first}", partial(block, numbers))["images"])
            bar.update(len(numbers))
    return np.concatenate(parts)


def costs(config: Config, network: Any) -> list[Cost]:
    """The network's samples; those of the closed forms are next to nothing."""
    drawn = config.noises * (1 + len(config.others))
    return [replace(sampling_cost(network, drawn, 2 * config.steps - 1, config.batch_size), stage="images")]
