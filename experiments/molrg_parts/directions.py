"""Do the leading singular vectors of the network's Jacobian carry what an image can change into? Edits along them."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from dgu import analysis, plots
from dgu.analysis.subspaces.edits import edit, random_directions, split_by_subspace
from dgu.core.errors import require
from dgu.core.keys import seeded, stream
from dgu.core.noisy import noisy_input
from dgu.samplers import invert, karras_sigmas
from experiments.molrg_parts.subject import PAPER, Subject
from experiments.study.costs import Cost
from experiments.study.flop import matmul_flop
from experiments.study.judged import JudgedClaim
from experiments.study.options import check_options
from experiments.study.progress import Progress
from experiments.study.report import FigureEntry, Section, Table
from experiments.study.run_directory import RunDirectory

TITLE = "Semantic directions"
CLAIM_IDS = ("directions-larger", "directions-inside", "directions-linear")
FIGURE_FILES = ("figures/edits.png", "figures/edit_levels.png", "figures/edit_changes.png")
_KINDS = ("leading", "random")


@dataclass(frozen=True)
class Config:
    """Edits ``x + alpha v`` (22) of noisy images, v leading right singular vectors or random directions."""

    sigmas: tuple[float, ...] = (11.8, 3.0, 1.0)
    """Noise levels of the edits, falling; the first is t = 0.7 T of the usual variance-preserving schedule."""
    strengths: tuple[float, ...] = (5.0, 10.0, 20.0, 40.0)
    """Strengths alpha at the first level, in units of the state, rising; at the others in proportion to sigma. Each is taken with both signs."""
    images: int = 8
    """Images edited, 3 or more; of classes in turn."""
    vectors: int = 5
    """Leading singular vectors found, that span the subspace, 2 or more."""
    start: Literal["invert", "noise"] = "invert"
    """How an image becomes a noisy state: by the sampler's ODE run upwards, or by adding noise."""
    steps: int = 18
    """Heun steps from each level down to the image (and up to it)."""
    tolerance: float = 1e-3
    """Of the singular vectors."""
    max_rounds: int = 20
    """Rounds of the iteration at most."""
    shown: int = 3
    """Vectors shown in the pictures."""

    def __post_init__(self) -> None:
        check_options(
            self, "directions", sigmas="(0, inf)", strengths="(0, inf)", images=3, vectors=2, steps=2, tolerance="(0, 1)", max_rounds=1,
            shown=1,
        )  # fmt: skip
        falling = all(a > b for a, b in zip(self.sigmas, self.sigmas[1:]))
        require(bool(self.sigmas) and falling, "directions.sigmas", self.sigmas, "positive, falling")
        rising = all(a < b for a, b in zip(self.strengths, self.strengths[1:]))
        sound = bool(self.strengths) and rising
        require(sound, "directions.strengths", self.strengths, "positive, rising")
        shown = self.shown
        require(1 <= shown <= self.vectors, "directions.shown", shown, f"from 1 to directions.vectors = {self.vectors}")


PRESETS = {
    "smoke": Config(sigmas=(11.8, 1.0), strengths=(10.0,), images=3, vectors=2, steps=3, max_rounds=2, shown=1),
    "default": Config(),
    "paper": Config(images=32, vectors=5, sigmas=(11.8, 5.0, 2.0, 1.0)),
}


def check(config: Config, subject: Subject) -> None:
    """Before any work: whether the network takes the levels, and every class has an image."""
    low, high = subject.sigma_range
    inside = low < config.sigmas[-1] and config.sigmas[0] <= high
    require(inside, "directions.sigmas", config.sigmas, f"above {low:g}, at most {high:g}, the network's levels")
    most = int(np.prod(subject.shape))
    require(config.vectors <= most, "directions.vectors", config.vectors, f"at most the {most} numbers of an image")
    fewest = min(np.bincount(subject.labels, minlength=len(subject.class_names)))
    require(fewest >= 1, f"data = {subject.name!r}: images in the smallest class", int(fewest), "1 or more")


def run(config: Config, subject: Subject, directory: RunDirectory, seed: int) -> Section:
    """Singular vectors, edits along them and along random directions, and what they change."""
    key = stream(seeded(seed), "directions")
    found = [
        directory.stage(f"directions/{place}", partial(_edited, config, subject, place, key))
        for place in range(len(config.sigmas))
    ]
    measured = {
        name: np.stack([each[name] for each in found])
        for name in ("size", "share", "curvature", "values", "image_size")
    }
    # (levels, images, kinds, directions, signed strengths) -> over directions and signs, at each strength.
    signed = _signed(config)
    of_strength = [np.flatnonzero(np.abs(signed) == alpha) for alpha in config.strengths]

    def over(name: str) -> np.ndarray:
        """(levels, images, kinds, strengths)"""
        each = measured[name].mean(axis=3)
        return np.stack([each[..., places].mean(axis=-1) for places in of_strength], axis=-1)

    size, share, curvature, image_size = over("size"), over("share"), over("curvature"), over("image_size")
    claims = _claims(config, size[0], share[0], curvature[0])
    _draw(config, subject, directory, found, size, share, curvature)
    ratio = size[0, :, 0].mean(axis=0) / size[0, :, 1].mean(axis=0)
    answer = (
        f"At sigma = {config.sigmas[0]:g} an edit of strength {config.strengths[0]:g} along a leading singular vector changes the denoised image {ratio[0]:.1f} times as "
        f"much as one along a random direction, and {100 * share[0, :, 0, 0].mean():.0f} % of its squared change lies in the span of the {config.vectors} left vectors "
        f"(random: {100 * share[0, :, 1, 0].mean():.0f} %); at strength {config.strengths[-1]:g} the change misses its linear prediction by {100 * curvature[0, :, 0, -1].mean():.0f} %."
    )
    rows = [
        (level, kind, alpha * level / config.sigmas[0], *(float(part[place, :, number, at].mean()) for part in (size, image_size, share, curvature)))
        for place, level in enumerate(config.sigmas)
        for number, kind in enumerate(_KINDS)
        for at, alpha in enumerate(config.strengths)
    ]  # fmt: skip
    head = ("sigma", "directions", "strength", "change of D", "change of the image", "share inside", "misses linear by")
    how = "by inverting the sampler's ODE" if config.start == "invert" else "by adding noise"
    strengths = ", ".join(f"{alpha:g}" for alpha in signed)
    return Section(
        TITLE,
        answer,
        claims,
        [
            FigureEntry(FIGURE_FILES[0], f"Images made noisy {how} to sigma = {config.sigmas[0]:g}, moved along leading right singular vectors of the network's Jacobian, or along a random direction, by {strengths}, then sampled (Fig 5)."),
            FigureEntry(FIGURE_FILES[1], "One image edited along its leading vector at several noise levels; strengths in proportion to sigma (Fig 8)."),
            FigureEntry(FIGURE_FILES[2], f"Change of the denoised image, share of its square inside the span of {config.vectors} left singular vectors, and how far it misses the linear prediction; means over {config.images} images, bands: their range."),
        ],
        [Table("Edits: means over images, directions and signs", head, rows)],
        {"sigmas": list(config.sigmas), "strengths": list(config.strengths), "change": size.mean(axis=1), "share_inside": share.mean(axis=1),
         "nonlinearity": curvature.mean(axis=1), "image_change": image_size.mean(axis=1), "values": measured["values"].mean(axis=1)},
    )  # fmt: skip


def _signed(config: Config) -> np.ndarray:
    return np.array([-alpha for alpha in reversed(config.strengths)] + list(config.strengths))


def _states(config: Config, subject: Subject, place: int, key: Any) -> tuple[np.ndarray, np.ndarray, list[Any]]:
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


def _edited(config: Config, subject: Subject, place: int, key: Any) -> dict[str, np.ndarray]:
    """Edits of every image at one level: sizes ``(images, kinds, directions, strengths)``, and pictures of the first ones."""
    states, grid, denoisers = _states(config, subject, place, key)
    strengths = _signed(config) * config.sigmas[place] / config.sigmas[0]
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ("size", "share", "curvature", "image_size", "values", "images", "original", "right")}  # fmt: skip
    with Progress(f"edits at sigma = {config.sigmas[place]:g}", total=config.images, unit="images") as bar:
        for number, (state, denoiser) in enumerate(zip(states, denoisers)):
            of_image = jax.random.fold_in(key, number)
            triplets = analysis.singular_triplets(
                denoiser, state[None], np.float32(grid[0]), config.vectors, of_image,
                tolerance=config.tolerance, max_rounds=config.max_rounds, batch_size=1,
            )  # fmt: skip
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


def _claims(config: Config, size: np.ndarray, share: np.ndarray, curvature: np.ndarray) -> list[JudgedClaim]:
    """On the first level, ``(images, kinds, strengths)`` each."""
    first = f"sigma = {config.sigmas[0]:g}, {config.images} images"
    gain = analysis.t_interval(np.log(size[:, 0, 0]) - np.log(size[:, 1, 0]))
    inside = analysis.t_interval(share[:, 0, 0], bounds=(0, 1))
    misses = analysis.t_interval(curvature[:, 0, -1])

    def ends(found: Any, through: Any = float) -> dict[str, Any]:
        return {"value": through(found.estimate), "interval": (through(found.low), through(found.high))}

    return [
        JudgedClaim.at_least(
            id="directions-larger", paper=PAPER, figure="Fig 5", unit="times", threshold=2.0, note=first,
            statement=f"At strength {config.strengths[0]:g} leading singular vectors change the denoised image at least twice as much as random directions (ratio of geometric means, paired by image).",
            **ends(gain, lambda value: float(np.exp(value)))),
        JudgedClaim.at_least(
            id="directions-inside", paper=PAPER, figure="Fig 5", unit="of the squared change", threshold=0.9, note=first,
            statement=f"At strength {config.strengths[0]:g} the change along leading right vectors lies in the span of the {config.vectors} left vectors.", **ends(inside)),
        JudgedClaim.at_most(
            id="directions-linear", paper=PAPER, figure="Fig 8", unit="relative", threshold=0.2, note=first,
            statement=f"Up to strength {config.strengths[-1]:g} the change along leading vectors is its linear prediction alpha s p.", **ends(misses)),
    ]  # fmt: skip


def _draw(config: Config, subject: Subject, directory: RunDirectory, found: list, size: np.ndarray, share: np.ndarray, curvature: np.ndarray) -> None:  # fmt: skip
    signed, half = _signed(config), len(config.strengths)
    shown = min(3, config.images)
    names = [f"v {number + 1}" for number in range(config.shown)] + ["random"]

    def with_original(images: np.ndarray, original: np.ndarray) -> np.ndarray:
        """(directions, strengths, *event) with the unedited image in the middle."""
        middle = np.broadcast_to(original, (len(images), 1, *original.shape))
        return np.concatenate([images[:, :half], middle, images[:, half:]], axis=1)

    heads = [f"{alpha:+g}" for alpha in signed[:half]] + ["0"] + [f"{alpha:+g}" for alpha in signed[half:]]
    grids = [with_original(found[0]["images"][number], found[0]["original"][number]) for number in range(shown)]
    short = [name.split("/")[0][:11] for name in subject.class_names]
    # Each image's name stands at its first row: the grid has little room for labels.
    labels = [
        f"{short[number % len(short)]}: {name}" if place == 0 and subject.conditional else name
        for number in range(shown)
        for place, name in enumerate(names)
    ]  # fmt: skip
    figure = plots.image_grid(
        np.concatenate(grids), labels, heads, title=f"strength alpha at sigma = {config.sigmas[0]:g}"
    )
    directory.save_figure(FIGURE_FILES[0], figure)
    levels = [
        with_original(each["images"][number][:1], each["original"][number]) for number in range(shown) for each in found
    ]
    labels = [f"image {number + 1}, $\\sigma$ = {level:g}" for number in range(shown) for level in config.sigmas]
    figure = plots.image_grid(np.concatenate(levels), labels, heads, title="along the leading vector")  # fmt: skip
    directory.save_figure(FIGURE_FILES[1], figure)
    sigmas = np.asarray(config.sigmas)

    def curves(values: np.ndarray, at: int) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        each = {}
        for number, kind in enumerate(_KINDS):
            of_kind = values[:, :, number, at]
            each[f"{kind} directions"] = (of_kind.mean(axis=1), of_kind.min(axis=1), of_kind.max(axis=1))
        return each

    relative = size * (config.sigmas[0] / sigmas)[:, None, None, None] / np.asarray(config.strengths)
    panels = [
        plots.LevelPanel(f"first strength, {config.strengths[0]:g}", "change of D over strength", sigmas, curves(relative, 0), log=True),
        plots.LevelPanel(f"first strength, {config.strengths[0]:g}", "share of the squared change inside", sigmas, curves(share, 0)),
        plots.LevelPanel(f"last strength, {config.strengths[-1]:g}", "miss of the linear prediction", sigmas, curves(curvature, -1)),
    ]  # fmt: skip
    directory.save_figure(FIGURE_FILES[2], plots.level_curves(panels))


def costs(config: Config, network: Any) -> list[Cost]:
    """Singular vectors, and samples from every edited state."""
    edits = 2 * config.vectors * (2 * len(config.strengths) + 1)
    each = 2 * config.vectors * config.max_rounds + edits * 2 * config.steps + 4 * config.steps
    evaluations = len(config.sigmas) * config.images * each
    image, level = jax.ShapeDtypeStruct(network.shape, np.float32), jax.ShapeDtypeStruct((), np.float32)
    label = jax.ShapeDtypeStruct((), np.int32) if network.unet.label_dim else None
    flop = matmul_flop(network.apply, network.abstract_params, image, level, label)
    size = int(np.prod(network.shape))
    return [Cost("directions", evaluations, evaluations * flop, 8 * size * edits, len(config.sigmas) * config.images * edits * size * 4)]  # fmt: skip
