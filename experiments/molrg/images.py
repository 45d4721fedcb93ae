"""Does a network make the images of a mixture of low-rank Gaussians from the same noise? Compared with one Gaussian."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from dgu import analysis, plots
from dgu.analysis.stats.estimates import Estimate
from dgu.core.errors import require
from dgu.core.keys import seeded
from dgu.models import GaussianDenoiser, MoLRG
from dgu.samplers import karras_sigmas, sample
from experiments.decoding import pictures
from experiments.molrg.subject import PAPER, Plan, Subject
from experiments.study import Claim, Cost, Figure, Findings, Noted, Options, Part, Run, Table, at_least, each, option
from experiments.study.messages import say
from experiments.study.progress import Progress
from experiments.subjects import sampling_cost

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

NETWORK, MIXTURE, GIVEN, GAUSSIAN, OTHER = (
    "U-Net", "MoLRG", "MoLRG, class given", "one Gaussian", "U-Net, other noise",
)  # fmt: skip
#: Samples of a stage: what a killed run loses at most.
_BLOCK = 500

FIGURES = (
    Figure(
        "molrg_images",
        "Images of the network, of the mixture of low-rank Gaussians fitted to its training set and of one Gaussian, "
        "from the same noise; classes in turn where the network is class-conditional (Fig 1 of the paper).",
        "fig-1",
    ),
    Figure(
        "molrg_distances",
        "Mean distance to the network's image from the same noise, with 95 % intervals (Table 1 of the paper). For "
        "scale: the distance between the network's own images of the same class from two noises.",
        "table-1",
    ),
    Figure(
        "molrg_gain",
        "How much closer the mixture's images are to the network's than those of one Gaussian, in per cent of the "
        "Gaussian's distance, with 95 % intervals, against the rank of the mixture's components. Below 0 the Gaussian, "
        "whose covariance has full rank, is closer.",
        "table-1",
    ),
)

_CLOSER = "are closer to the network's images from the same noise than those of one Gaussian are"
_ON_EVERY = (
    "On every data set (one part each), images of a mixture of low-rank Gaussians fitted to the network's training "
    f"images {_CLOSER}"
)
_VALUE = "(value: the Gaussian's distance minus the mixture's, mean over draws of noise)."
_GIVEN = f"{_ON_EVERY}; where the network is given a class, the mixture is, too {_VALUE}"
_BLIND = f"{_ON_EVERY}, even where the network is given a class that the mixture must infer {_VALUE}"
CLAIMS = (
    Claim("images-order", _GIVEN, each(at_least(0.0)), "Table 1", "Euclidean distance", one_network=True),
    Claim("images-order-blind", _BLIND, each(at_least(0.0)), "Table 1", "Euclidean distance", one_network=True),
)


@dataclass(frozen=True)
class Config(Options, prefix="images"):
    """Images of the network, of the mixture fitted to its training set and of one Gaussian, from the same noise."""

    noises: int = option(2500, ge=8)
    """Draws of initial noise, shared by all denoisers (the paper: 10,000)."""
    steps: int = option(35, ge=2)
    """Heun steps."""
    rank: int = option(50, ge=1)
    """Rank of each component (the paper's, for 28 x 28 pixels, as far as is known)."""
    ranks: tuple[int, ...] = option((5, 10, 20, 50, 100, 196), ge=1)
    """Ranks, rising, at which the mixture is compared with one Gaussian as well, as far as data with classes allow."""
    rank_noises: int = option(500, ge=8, le="noises")
    """Draws of noise for these."""
    components: int = option(10, ge=1)
    """Components of the mixture for images without classes, which EM finds."""
    restarts: int = option(2, ge=1)
    """Starts of EM, from k-means and from K-subspaces in turn."""
    shown: int = option(12, ge=2, le="noises")
    """Draws of noise whose images are shown."""
    batch_size: int = option(125, ge=1)
    """Samples at a time."""

    def check(self) -> None:
        """Ranks rise."""
        rising = bool(self.ranks) and list(self.ranks) == sorted(set(self.ranks))
        require(rising, "images.ranks", self.ranks, "one or more, rising")


PRESETS = {
    "smoke": Config(noises=8, steps=3, rank=3, ranks=(2,), rank_noises=8, components=2, shown=4, batch_size=8),
    "default": Config(),
    # The sheet's rank for CIFAR-10, the data of this preset; others have theirs by --others.
    "paper": Config(noises=10_000, rank=200, ranks=(5, 10, 20, 50, 100, 200, 400, 800), rank_noises=2500),
}


@dataclass(frozen=True)
class Compared:
    """One network with its data, and what was measured for it.

    Attributes:
        name: of the data, with its place among the networks where several have data of this name.
        subject: the network and its data.
        images: images of the network and of each closed form, from the same noise.
        counts: numbers that each denoiser stores.
        by_rank: distance of each image of the mixture to the network's from the same noise, by the arm and the rank.
    """

    name: str
    subject: Subject
    images: dict[str, np.ndarray]
    counts: dict[str, int]
    by_rank: dict[str, dict[int, np.ndarray]]

    @property
    def distances(self) -> dict[str, np.ndarray]:
        """Distance of each image to the network's from the same noise, and between the network's from two noises."""
        flat = {arm: found.reshape(len(found), -1).astype(np.float64) for arm, found in self.images.items()}
        # A sample of the same class from another noise: classes come in turn, so it is a whole turn further on.
        classes, noises = len(self.subject.class_names), len(flat[NETWORK])
        turn = classes if self.subject.conditional and noises > classes else 1
        flat[OTHER] = np.roll(flat[NETWORK], turn, axis=0)
        return {arm: np.linalg.norm(rows - flat[NETWORK], axis=1) for arm, rows in flat.items() if arm != NETWORK}


def check(config: Config, subject: Subject) -> None:
    """Whether the data allow the ranks."""
    for own, one in _all(config, subject):
        one.check()
        most = _most(one)
        allowed = f"at most {most}: the pixels, and n - 1 of the smallest class of {one.name}"
        require(own.rank <= most, "images.rank", own.rank, allowed)


def _most(subject: Subject) -> int:
    """The largest rank that the smallest class and the pixels allow."""
    counts = np.bincount(subject.labels, minlength=len(subject.class_names))
    return min(int(counts.min()) - 1, subject.images[0].size)


def _all(config: Config, subject: Subject) -> list[tuple[Config, Subject]]:
    """Every network with its data, and the options with its rank."""
    return [(config if one.rank is None else replace(config, rank=one.rank), one) for one in subject.every]


def measure(config: Config, subject: Subject, run: Run) -> list[Compared]:
    """Every network with its data, one after the other."""
    every = _all(config, subject)
    return [compared(own, one, run, place, subject.names[place]) for place, (own, one) in enumerate(every)]


def compared(config: Config, subject: Subject, run: Run, place: int, name: str) -> Compared:
    """Images of the network and of each closed form, in stages of blocks, and the numbers that each denoiser stores."""
    stored = run.stage(f"{place}/mixture", fitted, config, subject)
    mixture = MoLRG(**stored).denoiser
    gaussian = cache(lambda: GaussianDenoiser.fit(subject.images))  # Only fitted where images are missing.
    arms: dict[str, Callable[[], Any]] = {MIXTURE: lambda: mixture, GAUSSIAN: gaussian}
    if subject.conditional:
        arms = {MIXTURE: arms[MIXTURE], GIVEN: lambda: mixture, GAUSSIAN: gaussian}
    images = {NETWORK: _samples(config, subject, run, f"{place}/network", lambda: subject.denoiser, labelled=True)}
    for number, (arm, denoiser) in enumerate(arms.items()):
        images[arm] = _samples(config, subject, run, f"{place}/arm-{number}", denoiser, labelled=arm == GIVEN)
    numbers, size = sum(values.size for leaf, values in stored.items() if leaf != "noise_std"), subject.images[0].size
    counts = {NETWORK: subject.pretrained.network.parameter_count, GAUSSIAN: size + size * (size + 1) // 2}
    by_rank = _by_rank(config, subject, run, place, images)
    return Compared(name, subject, images, counts | {MIXTURE: numbers, GIVEN: numbers}, by_rank)


def _by_rank(
    config: Config, subject: Subject, run: Run, place: int, images: dict[str, np.ndarray]
) -> dict[str, dict[int, np.ndarray]]:
    """Distances of the mixture's images of every rank, by the arm; of data without classes, where EM would have to fit
    each, of its own rank."""
    network, arms = images[NETWORK][: config.rank_noises], [arm for arm in images if arm in (MIXTURE, GIVEN)]
    ranks = [rank for rank in config.ranks if rank <= _most(subject)]
    if len(subject.class_names) == 1 or not ranks:
        return {arm: {config.rank: _norms(images[arm][: len(network)] - network)} for arm in arms}
    # The leading eigenpairs of a smaller rank are the first ones of a larger.
    whole = cache(lambda: analysis.fit_classes(subject.images, subject.labels, ranks[-1]))
    few = replace(config, noises=config.rank_noises)

    def cut(rank: int) -> Any:
        law = whole()
        return replace(law, bases=law.bases[..., :rank], variances=law.variances[:, :rank]).denoiser

    def distances(arm: str, rank: int) -> np.ndarray:
        name = f"{place}/rank-{rank}-{'given' if arm == GIVEN else 'blind'}"
        made = _samples(few, subject, run, name, lambda: cut(rank), labelled=arm == GIVEN)
        return _norms(made - network)

    return {arm: {rank: distances(arm, rank) for rank in ranks} for arm in arms}


def _norms(differences: np.ndarray) -> np.ndarray:
    return np.linalg.norm(differences.reshape(len(differences), -1).astype(np.float64), axis=1)


def fitted(config: Config, subject: Subject) -> dict[str, Any]:
    """The mixture of the data: by its classes, or by EM where it has none."""
    images = subject.images
    if len(subject.class_names) > 1:
        return vars(analysis.fit_classes(images, subject.labels, config.rank))
    say(f"fitting {config.components} components to {len(images):,} images of {subject.name} by EM ...")
    found = analysis.fit_mixture(images, config.components, config.rank, seeded(0), restarts=config.restarts)
    return vars(found.law)


def _samples(
    config: Config, subject: Subject, run: Run, name: str, denoiser: Callable[[], Any], *, labelled: bool
) -> np.ndarray:
    """Samples of a denoiser from the shared noise, a stage for each block."""
    sigmas = karras_sigmas(config.steps, *subject.sigma_range)

    def block(numbers: np.ndarray) -> dict[str, np.ndarray]:
        labels = subject.label_of(numbers) if labelled else None
        shape, size = subject.shape, config.batch_size
        return {"images": sample(denoiser(), run.key, numbers, sigmas, shape=shape, labels=labels, batch_size=size)}

    parts = []
    with Progress(f"samples of {run.part}/{name}", total=config.noises, unit="images") as bar:
        for first in range(0, config.noises, _BLOCK):
            numbers = np.arange(first, min(first + _BLOCK, config.noises))
            parts.append(run.stage(f"{name}-{first}", block, numbers)["images"])
            bar.update(len(numbers))
    return np.concatenate(parts)


def report(config: Config, subject: Subject, found: list[Compared]) -> Findings:
    """Distances of the closed forms' images to the network's."""
    order: dict[str, Noted] = {}
    blind: dict[str, Noted] = {}
    bars: dict[str, dict[str, Estimate]] = {}
    rows: list[tuple[Any, ...]] = []
    for one in found:
        distances = one.distances
        order[one.name] = _order(one, distances, GIVEN if one.subject.conditional else MIXTURE)
        blind[one.name] = _order(one, distances, MIXTURE)
        bars[one.name] = own = {
            arm: analysis.t_interval(values, bounds=(0, np.inf)) for arm, values in distances.items()
        }
        rows.append((one.name, NETWORK, f"{one.counts[NETWORK]:,}", "", "", ""))
        rows += [
            (one.name, arm, f"{one.counts.get(arm, one.counts[NETWORK]):,}", *_ends(own[arm])) for arm in distances
        ]
    gains = {name: gain for one in found for name, gain in _gains(one, alone=len(found) == 1).items()}
    curve = [(name, rank, *_ends(gain)) for name, gain_at in gains.items() for rank, gain in gain_at.items()]
    header = ("data", "denoiser", "numbers", "distance", "low", "high")
    return Findings(
        _answer(found[0], bars[found[0].name]),
        claims={"images-order": order, "images-order-blind": blind},
        figures={
            "molrg_images": (_pictures(config, found), f"{config.shown} draws of noise, {config.steps} Heun steps."),
            "molrg_distances": (_distances(bars), f"{config.noises:,} draws of noise."),
            "molrg_gain": (_gain(gains), f"{config.rank_noises:,} draws of noise."),
        },
        tables=[
            Table("Distance to the network's images (8), and numbers that each denoiser stores", header, rows),
            Table("Gain over one Gaussian in per cent, by rank", ("mixture", "rank", "gain", "low", "high"), curve),
        ],
        metrics={
            name: {arm: {"distance": _ends(own[arm])[0], "interval": _ends(own[arm])[1:]} for arm in own}
            for name, own in bars.items()
        },
    )


def _ends(estimate: Estimate) -> tuple[float, float, float]:
    return float(estimate.value), float(estimate.low), float(estimate.high)


def _order(one: Compared, distances: dict[str, np.ndarray], arm: str) -> Noted:
    """The Gaussian's distances less those of ``arm``, paired by noise."""
    gain = analysis.t_interval(distances[GAUSSIAN] - distances[arm])
    share = 100 * float(gain.value) / distances[GAUSSIAN].mean()
    given = ", which is given the class," if arm == GIVEN else ""
    if arm == MIXTURE and one.subject.conditional:
        given = ", which unlike the network is not given the class,"
    return Noted(
        gain,
        f"This is {share:.1f} % of the Gaussian's distance, over {len(distances[arm]):,} draws of noise.",
        f"On {one.name}, images of the fitted mixture of low-rank Gaussians{given} {_CLOSER} {_VALUE}",
    )


def _pictures(config: Config, found: list[Compared]) -> "Drawing":
    """Images from the same noise, a row each; of further networks those of the first one's shape."""
    rows, labels = [], []
    alike = [one for one in found if one.images[NETWORK].shape[1:] == found[0].images[NETWORK].shape[1:]]
    for one in alike:
        rows += [images[: config.shown] for images in one.images.values()]
        labels += [f"{one.name}: {arm}" if len(alike) > 1 else arm for arm in one.images]
    head = "from the same noises" if len(alike) > 1 else f"{found[0].name}, from the same noises"
    return plots.image_grid(pictures(np.stack(rows), found[0].subject.decoder), labels, [head])


def _distances(bars: dict[str, dict[str, Estimate]]) -> "Drawing":
    every = list(dict.fromkeys(arm for own in bars.values() for arm in own))
    absent = (np.nan, np.nan, np.nan)
    series = {arm: np.array([_ends(own[arm]) if arm in own else absent for own in bars.values()]) for arm in every}
    return plots.interval_dots(
        list(bars), series, quantity="Euclidean distance to the network's image from the same noise"
    )


def _gains(one: Compared, *, alone: bool) -> dict[str, dict[int, Estimate]]:
    """What the mixture gains over one Gaussian, in per cent of its mean distance, by the curve's name and the rank."""
    found: dict[str, dict[int, Estimate]] = {}
    for arm, by_rank in one.by_rank.items():
        count = len(next(iter(by_rank.values())))
        gaussian = _norms(one.images[GAUSSIAN][:count] - one.images[NETWORK][:count])
        found[arm if alone else f"{one.name}: {arm}"] = {
            rank: analysis.t_interval(100 * (gaussian - own) / gaussian.mean()) for rank, own in by_rank.items()
        }
    return found


def _gain(gains: dict[str, dict[int, Estimate]]) -> "Drawing":
    """Curves over the rank."""
    curves = {
        name: (np.array(list(gain)), *np.array([_ends(at) for at in gain.values()]).T) for name, gain in gains.items()
    }
    panel = plots.SweepPanel(
        "", "rank of each component", "gain over one Gaussian, %", curves, {"as close as one Gaussian": 0.0}
    )
    return plots.sweep_curves([panel], columns=1)


def _answer(first: Compared, bars: dict[str, Estimate]) -> str:
    distance = {arm: f"{float(estimate.value):.2f}" for arm, estimate in bars.items()}
    given = f" ({distance[GIVEN]} where it is given the class)" if GIVEN in distance else ""
    answer = (
        f"On {first.name} ({first.subject.about}) the images of the mixture are {distance[MIXTURE]} from the "
        f"network's{given}, those of one Gaussian {distance[GAUSSIAN]}, and further samples of the network "
        f"{distance[OTHER]} (Euclidean distance, pixels in [-1, 1])."
    )
    if first.subject.conditional:
        answer += (
            " The network is class-conditional and was given the classes in turn; the paper's networks are "
            "unconditional. So the mixture is measured twice: without a class, like the Gaussian, and with the "
            "component of the class."
        )
    return answer


def costs(config: Config, plan: Plan) -> list[Cost]:
    """The network's samples; those of the closed forms are next to nothing."""
    return [
        replace(sampling_cost(network, config.noises, 2 * config.steps - 1, config.batch_size), stage="images")
        for network in plan.networks
    ]


PART = Part(
    "images", "Images of the network, the mixture and one Gaussian",
    "Does a network make the images of a mixture of low-rank Gaussians from the same noise?",
    PAPER, CLAIMS, FIGURES, measure, report, PRESETS, costs, check,
)  # fmt: skip
