"""Do the leading singular vectors of a network's Jacobian span what an image can change into? Edits of images along
them."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure as Drawing

from dgu import analysis, plots
from dgu.analysis.subspaces.edits import edit, random_directions, split_by_subspace
from dgu.core.errors import require
from dgu.core.keys import stream
from dgu.core.noisy import noisy_input
from dgu.core.typing import Key
from dgu.samplers import invert, karras_sigmas
from experiments.molrg.subject import PAPER, Plan, Subject
from experiments.study import (
    Claim,
    Cost,
    Figure,
    Findings,
    Noted,
    Options,
    Part,
    Run,
    Table,
    at_least,
    at_most,
    option,
)
from experiments.study.claims import Measured
from experiments.study.flop import matmul_flop
from experiments.study.progress import Progress

_KINDS = ("leading", "random")

FIGURES = (
    Figure(
        "edits",
        "Images made noisy, moved along leading right singular vectors v of the network's Jacobian or along a random "
        "direction by the strengths alpha above the columns, and sampled from there (Fig 5 of the paper).",
        "fig-5",
    ),
    Figure(
        "edit_levels",
        "Images edited along their leading right singular vector at several noise levels; strengths are proportional "
        "to sigma (Fig 8 of the paper).",
        "fig-8",
    ),
    Figure(
        "edit_changes",
        "Change of the denoised image, share of its square inside the span of the left singular vectors, and its "
        "relative deviation from the linear prediction, by noise level; means over images, bands: their range.",
    ),
)


@dataclass(frozen=True)
class Config(Options, prefix="directions"):
    """Edits ``x + alpha v`` (22) of noisy images, v leading right singular vectors or random directions."""

    sigmas: tuple[float, ...] = option((11.8, 3.0, 1.0), gt=0.0)
    """Noise levels of the edits, falling; the first is t = 0.7 T of the usual variance-preserving schedule."""
    strengths: tuple[float, ...] = option((5.0, 10.0, 20.0, 40.0), gt=0.0)
    """Strengths alpha at the first level, in units of the state, rising; at the others in proportion to sigma. Each is
    taken with both signs."""
    images: int = option(8, ge=3)
    """Images edited, of classes in turn."""
    vectors: int = option(5, ge=2)
    """Leading singular vectors, which span the subspace."""
    start: Literal["invert", "noise"] = "invert"
    """How an image becomes a noisy state: by running the sampler's ODE upwards, or by adding noise."""
    steps: int = option(18, ge=2)
    """Heun steps from each level down to the image (and up to it)."""
    tolerance: float = option(1e-3, gt=0.0, lt=1.0)
    """Tolerance of the singular vectors."""
    max_rounds: int = option(20, ge=1)
    """Largest number of rounds of the iteration for singular vectors."""
    shown: int = option(3, ge=1, le="vectors")
    """Vectors shown in the pictures."""

    def check(self) -> None:
        """Levels fall, and strengths rise."""
        falling = bool(self.sigmas) and all(a > b for a, b in pairwise(self.sigmas))
        require(falling, "directions.sigmas", self.sigmas, "positive, falling")
        rising = bool(self.strengths) and all(a < b for a, b in pairwise(self.strengths))
        require(rising, "directions.strengths", self.strengths, "positive, rising")

    @property
    def signed(self) -> np.ndarray:
        """The strengths with both signs, rising."""
        return np.array([-alpha for alpha in reversed(self.strengths)] + list(self.strengths))


PRESETS = {
    "smoke": Config(sigmas=(11.8, 1.0), strengths=(10.0,), images=3, vectors=2, steps=3, max_rounds=2, shown=1),
    "default": Config(),
    "paper": Config(images=32, vectors=5, sigmas=(11.8, 5.0, 2.0, 1.0)),
}


def claims(config: Config) -> tuple[Claim, ...]:
    """What is tested, at the first noise level."""
    weakest, strongest = config.strengths[0], config.strengths[-1]
    vectors = "leading right singular vectors of the network's Jacobian"
    return (
        Claim(
            "directions-larger",
            f"Edits of strength {weakest:g} along {vectors} change the denoised image at least twice as much as edits "
            "along random directions (shown: the ratio of geometric means, paired by image).",
            at_least(2.0),
            source="Fig 5",
            unit="times",
        ),
        Claim(
            "directions-inside",
            f"The change of the denoised image by edits of strength {weakest:g} along {vectors} lies in the span of "
            f"the {config.vectors} leading left singular vectors.",
            at_least(0.9),
            source="Fig 5",
            unit="of the squared change",
        ),
        Claim(
            "directions-linear",
            f"Up to strength {strongest:g}, the change of the denoised image by edits along {vectors} equals its "
            "linear prediction alpha s p (shown: the relative deviation at this strength).",
            at_most(0.2),
            source="Fig 8",
            unit="relative",
        ),
    )


def check(config: Config, subject: Subject) -> None:
    """Whether the network takes the levels, and every class has an image."""
    subject.check()
    low, high = subject.sigma_range
    inside = low < config.sigmas[-1] and config.sigmas[0] <= high
    require(inside, "directions.sigmas", config.sigmas, f"above {low:g}, at most {high:g}, the network's levels")
    most = int(np.prod(subject.shape))
    require(config.vectors <= most, "directions.vectors", config.vectors, f"at most the {most} numbers of an image")
    fewest = min(np.bincount(subject.labels, minlength=len(subject.class_names)))
    require(fewest >= 1, f"data = {subject.name!r}: images in the smallest class", int(fewest), "1 or more")


def measure(config: Config, subject: Subject, run: Run) -> list[dict[str, np.ndarray]]:
    """Singular vectors, edits along them and along random directions, and what these change; for each noise level."""
    return [run.stage(f"{place}", edited, config, subject, place, run.key) for place in range(len(config.sigmas))]


def report(config: Config, subject: Subject, found: list[dict[str, np.ndarray]]) -> Findings:
    """Changes by noise level, kind of direction and strength."""
    strengths = [np.flatnonzero(np.abs(config.signed) == alpha) for alpha in config.strengths]

    def over(name: str) -> np.ndarray:
        """(levels, images, kinds, strengths): means over directions and signs."""
        # (levels, images, kinds, directions, signed strengths)
        each = np.stack([level[name] for level in found]).mean(axis=3)
        return np.stack([each[..., places].mean(axis=-1) for places in strengths], axis=-1)

    size, share, curvature, image_size = over("size"), over("share"), over("curvature"), over("image_size")
    ratio = size[0, :, 0].mean(axis=0) / size[0, :, 1].mean(axis=0)
    inside, outside = (100 * share[0, :, kind, 0].mean() for kind in (0, 1))
    answer = (
        f"At sigma = {config.sigmas[0]:g} an edit of strength {config.strengths[0]:g} along a leading singular vector "
        f"changes the denoised image {ratio[0]:.1f} times as much as one along a random direction, and {inside:.0f} % "
        f"of its squared change lies in the span of the {config.vectors} left vectors (random: {outside:.0f} %); at "
        f"strength {config.strengths[-1]:g} the change deviates from its linear prediction by "
        f"{100 * curvature[0, :, 0, -1].mean():.0f} %."
    )
    rows = [
        (
            level,
            kind,
            alpha * level / config.sigmas[0],
            *(float(part[place, :, number, at].mean()) for part in (size, image_size, share, curvature)),
        )
        for place, level in enumerate(config.sigmas)
        for number, kind in enumerate(_KINDS)
        for at, alpha in enumerate(config.strengths)
    ]
    head = (
        *("sigma", "directions", "strength", "change of D", "change of the image", "share inside"),
        "deviation from linear",
    )
    how = "By inverting the sampler's ODE" if config.start == "invert" else "By adding noise"
    averaged = f"Here {config.vectors} left singular vectors and {config.images} images."
    return Findings(
        answer,
        claims=_measured(config, size[0], share[0], curvature[0]),
        figures={
            "edits": (_edits(config, subject, found[0]), f"{how}, to sigma = {config.sigmas[0]:g}."),
            "edit_levels": _levels(config, found),
            "edit_changes": (_changes(config, size, share, curvature), averaged),
        },
        tables=[Table("Edits: means over images, directions and signs", head, rows)],
        metrics={
            "sigmas": list(config.sigmas),
            "strengths": list(config.strengths),
            "change": size.mean(axis=1),
            "share_inside": share.mean(axis=1),
            "nonlinearity": curvature.mean(axis=1),
            "image_change": image_size.mean(axis=1),
            "values": np.stack([level["values"] for level in found]).mean(axis=1),
        },
    )


def _states(config: Config, subject: Subject, place: int, key: Key) -> tuple[np.ndarray, np.ndarray, list[Any]]:
    """The images' states at a level, the grid from there down, and the denoiser of each image's class."""
    grid = karras_sigmas(config.steps, subject.sigma_range[0], config.sigmas[place])
    labels = np.arange(config.images) % len(subject.class_names)
    turns = np.arange(config.images) // len(subject.class_names)
    rows = [np.flatnonzero(subject.labels == label) for label in labels]
    images = [subject.images[row[turn % len(row)]] for row, turn in zip(rows, turns)]
    denoisers = [subject.of_class(int(label)) for label in labels]
    if config.start == "noise":
        states = [
            noisy_input(key, jnp.asarray(image), number, np.float32(grid[0]), place)
            for number, image in enumerate(images)
        ]
    else:
        levels = jnp.asarray(grid, images[0].dtype)
        states = [_climb(denoiser, jnp.asarray(image), levels) for denoiser, image in zip(denoisers, images)]
    return np.stack([np.asarray(state) for state in states]), grid, denoisers


@jax.jit
def _climb(denoiser: Any, image: Any, grid: Any) -> Any:
    return invert(denoiser, image, grid)


def edited(config: Config, subject: Subject, place: int, key: Key) -> dict[str, np.ndarray]:
    """Edits of every image at one level: sizes ``(images, kinds, directions, strengths)``, and pictures of the first
    ones."""
    states, grid, denoisers = _states(config, subject, place, key)
    strengths = config.signed * config.sigmas[place] / config.sigmas[0]
    names = ("size", "share", "curvature", "image_size", "values", "images", "original", "right")
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    with Progress(f"edits at sigma = {config.sigmas[place]:g}", total=config.images, unit="images") as bar:
        for number, (state, denoiser) in enumerate(zip(states, denoisers)):
            of_image = jax.random.fold_in(key, number)
            triplets = analysis.singular_triplets(
                denoiser,
                state[None],
                np.float32(grid[0]),
                config.vectors,
                of_image,
                tolerance=config.tolerance,
                max_rounds=config.max_rounds,
                batch_size=1,
            )
            null = np.asarray(random_directions(stream(of_image, "random"), config.vectors, state.shape))
            both = np.concatenate([triplets.right[0], null]).astype(state.dtype)
            found = edit(denoiser, state, both, strengths, grid)
            split = split_by_subspace(found.change, triplets.left[0])
            by_kind = (2, config.vectors, len(strengths))
            parts["size"].append(np.hypot(split.inside, split.outside).reshape(by_kind))
            parts["share"].append(split.share.reshape(by_kind))
            parts["curvature"].append(found.nonlinearity.reshape(by_kind))
            change = found.image_change.reshape(len(both), len(strengths), -1)
            parts["image_size"].append(np.linalg.norm(change, axis=-1).reshape(by_kind))
            parts["values"].append(triplets.values[0])
            kept = [*range(config.shown), config.vectors]
            parts["images"].append(found.images[kept])
            parts["original"].append(found.original)
            parts["right"].append(triplets.right[0][: config.shown])
            bar.update()
    return {name: np.stack(each) for name, each in parts.items()}


def _measured(config: Config, size: np.ndarray, share: np.ndarray, curvature: np.ndarray) -> dict[str, Measured]:
    """On the first level, ``(images, kinds, strengths)`` each."""
    ratio = analysis.t_interval(np.log(size[:, 0, 0]) - np.log(size[:, 1, 0])).map(lambda end: float(np.exp(end)))
    inside = analysis.t_interval(share[:, 0, 0], bounds=(0, 1))
    deviation = analysis.t_interval(curvature[:, 0, -1])
    note = f"sigma = {config.sigmas[0]:g}, {config.images} images"
    return {
        "directions-larger": Noted(ratio, note),
        "directions-inside": Noted(inside, note),
        "directions-linear": Noted(deviation, note),
    }


def _with_original(config: Config, images: np.ndarray, original: np.ndarray) -> np.ndarray:
    """(directions, strengths, *event) with the unedited image in the middle."""
    half = len(config.strengths)
    middle = np.broadcast_to(original, (len(images), 1, *original.shape))
    return np.concatenate([images[:, :half], middle, images[:, half:]], axis=1)


def _heads(config: Config) -> list[str]:
    """Strengths above the columns of a grid of pictures."""
    signed, half = [f"{alpha:+g}" for alpha in config.signed], len(config.strengths)
    return [*signed[:half], "0", *signed[half:]]


def _edits(config: Config, subject: Subject, first: dict[str, np.ndarray]) -> Drawing:
    """Edits of the first images at the first level."""
    shown = range(min(3, config.images))
    names = [f"v {number + 1}" for number in range(config.shown)] + ["random"]
    grids = [_with_original(config, first["images"][number], first["original"][number]) for number in shown]
    short = [name.split("/")[0][:11] for name in subject.class_names]
    # Each image's name stands at its first row: the grid has little room for labels.
    labels = [
        f"{short[number % len(short)]}: {name}" if place == 0 and subject.conditional else name
        for number in shown
        for place, name in enumerate(names)
    ]
    title = f"strength alpha at sigma = {config.sigmas[0]:g}"
    return plots.image_grid(np.concatenate(grids), labels, _heads(config), title=title)


def _levels(config: Config, found: list[dict[str, np.ndarray]]) -> Drawing:
    """Edits of the first images along the leading vector at every level."""
    shown = range(min(3, config.images))
    grids = [
        _with_original(config, level["images"][number][:1], level["original"][number])
        for number in shown
        for level in found
    ]
    labels = [f"image {number + 1}, $\\sigma$ = {level:g}" for number in shown for level in config.sigmas]
    return plots.image_grid(np.concatenate(grids), labels, _heads(config), title="along the leading vector")


def _changes(config: Config, size: np.ndarray, share: np.ndarray, curvature: np.ndarray) -> Drawing:
    """Sizes, shares and deviations, (levels, images, kinds, strengths), over the noise levels."""
    sigmas = np.asarray(config.sigmas)

    def curves(values: np.ndarray, at: int) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        each = {}
        for number, kind in enumerate(_KINDS):
            of_kind = values[:, :, number, at]
            each[f"{kind} directions"] = (of_kind.mean(axis=1), of_kind.min(axis=1), of_kind.max(axis=1))
        return each

    relative = size * (config.sigmas[0] / sigmas)[:, None, None, None] / np.asarray(config.strengths)
    first, last = f"first strength, {config.strengths[0]:g}", f"last strength, {config.strengths[-1]:g}"
    panels = [
        plots.LevelPanel(first, "change of D over strength", sigmas, curves(relative, 0), log=True),
        plots.LevelPanel(first, "share of the squared change inside", sigmas, curves(share, 0)),
        plots.LevelPanel(last, "miss of the linear prediction", sigmas, curves(curvature, -1)),
    ]
    return plots.level_curves(panels)


def costs(config: Config, plan: Plan) -> list[Cost]:
    """Singular vectors, and samples from every edited state."""
    network = plan.network
    edits = 2 * config.vectors * (2 * len(config.strengths) + 1)
    each = 2 * config.vectors * config.max_rounds + edits * 2 * config.steps + 4 * config.steps
    states = len(config.sigmas) * config.images
    evaluations = states * each
    image, level = jax.ShapeDtypeStruct(network.shape, np.float32), jax.ShapeDtypeStruct((), np.float32)
    label = jax.ShapeDtypeStruct((), np.int32) if network.unet.label_dim else None
    flop = matmul_flop(network.apply, network.abstract_params, image, level, label)
    size = int(np.prod(network.shape))
    return [Cost("directions", evaluations, evaluations * flop, 8 * size * edits, states * edits * size * 4)]


PART = Part(
    name="directions",
    title="Semantic directions",
    question="Do the leading singular vectors of a network's Jacobian span what an image can change into?",
    paper=PAPER,
    presets=PRESETS,
    claims=claims,
    figures=FIGURES,
    measure=measure,
    report=report,
    costs=costs,
    check=check,
)
