"""Do the leading singular vectors of a network's Jacobian span what an image can change into? Edits of images along
them."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from dgu import analysis, plots
from dgu.core.errors import require
from dgu.core.keys import stream
from dgu.core.noisy import noisy_input
from dgu.core.typing import Key
from dgu.samplers import invert, karras_sigmas
from experiments import study
from experiments.decoding import pictures
from experiments.molrg.subject import PAPER, Plan, Subject
from experiments.study import Claim, Cost, Figure, Findings, Measured, Noted, Options, at_least, at_most, option
from experiments.study.progress import Progress
from experiments.subjects import evaluation_cost

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

_KINDS = ("leading", "random")
#: How much more edits along singular vectors change; share of the change in their span; deviation that counts as none.
_TIMES, _INSIDE, _BENT = 2.0, 0.9, 0.2

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
    """Edits ``x + alpha v`` of noisy images x, with v a leading right singular vector or a random direction."""

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
        falling = bool(self.sigmas) and list(self.sigmas) == sorted(set(self.sigmas), reverse=True)
        require(falling, "directions.sigmas", self.sigmas, "positive, falling")
        rising = bool(self.strengths) and list(self.strengths) == sorted(set(self.strengths))
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
    edits = f"Edits x + alpha v of noisy images x along {vectors}, of strength alpha"
    larger = (
        f"{edits} = {weakest:g}, change the denoised image at least {_TIMES:g} times as much as edits along random "
        "directions do (value: the ratio of the changes, geometric mean over images)."
    )
    inside = (
        f"{edits} = {weakest:g}, change the denoised image within the span of the {config.vectors} leading left "
        f"singular vectors: at least {_INSIDE:g} of the squared change lies there (value: the share, mean over images)."
    )
    linear = (
        f"{edits} = {strongest:g}, change the denoised image as linearly as small ones: by alpha times singular value "
        f"times left singular vector, to a relative deviation of at most {_BENT:g} (value: the deviation, mean over "
        "images)."
    )
    return (
        Claim("directions-larger", larger, at_least(_TIMES), "Fig 5", "times", one_network=True),
        Claim("directions-inside", inside, at_least(_INSIDE), "Fig 5", "of the squared change", one_network=True),
        Claim("directions-linear", linear, at_most(_BENT), "Fig 8", one_network=True),
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


def measure(config: Config, subject: Subject, run: study.Run) -> list[dict[str, np.ndarray]]:
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
    parts = {"change of D": size, "change of the image": image_size, "share inside": share}
    parts["deviation from linear"] = curvature
    rows = [
        (level, kind, alpha * level / config.sigmas[0])
        + tuple(float(part[place, :, number, at].mean()) for part in parts.values())
        for place, level in enumerate(config.sigmas)
        for number, kind in enumerate(_KINDS)
        for at, alpha in enumerate(config.strengths)
    ]
    how = "By inverting the sampler's ODE" if config.start == "invert" else "By adding noise"
    averaged = f"Here {config.vectors} left singular vectors and {config.images} images."
    return Findings(
        answer,
        claims=_measured(config, size[0], share[0], curvature[0]),
        figures={
            "edits": (_edits(config, subject, found[0]), f"{how}, to sigma = {config.sigmas[0]:g}."),
            "edit_levels": _levels(config, subject, found),
            "edit_changes": (_changes(config, size, share, curvature), averaged),
        },
        tables=[
            study.Table(
                "Edits: means over images, directions and signs", ("sigma", "directions", "strength", *parts), rows
            )
        ],
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
    strengths, found = config.signed * config.sigmas[place] / config.sigmas[0], []
    with Progress(f"edits at sigma = {config.sigmas[place]:g}", total=config.images, unit="images") as bar:
        for number, (state, denoiser) in enumerate(zip(states, denoisers)):
            found.append(_edits_of(config, denoiser, state, grid, strengths, key=jax.random.fold_in(key, number)))
            bar.update()
    return {name: np.stack([one[name] for one in found]) for name in found[0]}


def _edits_of(
    config: Config, denoiser: Any, state: np.ndarray, grid: np.ndarray, strengths: np.ndarray, *, key: Key
) -> dict[str, np.ndarray]:
    """Edits of one noisy image along its singular vectors and along as many random directions."""
    triplets = analysis.singular_triplets(
        denoiser, state[None], np.float32(grid[0]), config.vectors, key, tolerance=config.tolerance,
        max_rounds=config.max_rounds, batch_size=1,
    )  # fmt: skip
    null = np.asarray(analysis.random_directions(stream(key, "random"), config.vectors, state.shape))
    both = np.concatenate([triplets.right[0], null]).astype(state.dtype)
    found = analysis.edit(denoiser, state, both, strengths, grid)
    split = analysis.split_by_subspace(found.change, triplets.left[0])
    image_change = found.image_change.reshape(len(both), len(strengths), -1)
    by_kind = (2, config.vectors, len(strengths))
    return {
        "size": np.hypot(split.inside, split.outside).reshape(by_kind),
        "share": split.share.reshape(by_kind),
        "curvature": found.nonlinearity.reshape(by_kind),
        "image_size": np.linalg.norm(image_change, axis=-1).reshape(by_kind),
        "values": triplets.values[0],
        "images": found.images[[*range(config.shown), config.vectors]],
        "original": found.original,
        "right": triplets.right[0][: config.shown],
    }


def _measured(config: Config, size: np.ndarray, share: np.ndarray, curvature: np.ndarray) -> dict[str, Measured]:
    """On the first level, ``(images, kinds, strengths)`` each."""
    ratio = analysis.t_interval(np.log(size[:, 0, 0]) - np.log(size[:, 1, 0])).map(lambda end: float(np.exp(end)))
    note = f"At sigma = {config.sigmas[0]:g}, over {config.images} images."
    return {
        "directions-larger": Noted(ratio, note),
        "directions-inside": Noted(analysis.t_interval(share[:, 0, 0], bounds=(0, 1)), note),
        "directions-linear": Noted(analysis.t_interval(curvature[:, 0, -1], bounds=(0, np.inf)), note),
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


def _edits(config: Config, subject: Subject, first: dict[str, np.ndarray]) -> "Drawing":
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
    return plots.image_grid(pictures(np.concatenate(grids), subject.decoder), labels, _heads(config), title=title)


def _levels(config: Config, subject: Subject, found: list[dict[str, np.ndarray]]) -> "Drawing":
    """Edits of the first images along the leading vector at every level."""
    shown = range(min(3, config.images))
    grids = [
        _with_original(config, level["images"][number][:1], level["original"][number])
        for number in shown
        for level in found
    ]
    labels = [f"image {number + 1}, $\\sigma$ = {level:g}" for number in shown for level in config.sigmas]
    return plots.image_grid(
        pictures(np.concatenate(grids), subject.decoder), labels, _heads(config), title="along the leading vector"
    )


def _changes(config: Config, size: np.ndarray, share: np.ndarray, curvature: np.ndarray) -> "Drawing":
    """Sizes, shares and deviations, (levels, images, kinds, strengths), over the noise levels."""
    sigmas = np.asarray(config.sigmas)

    def curves(values: np.ndarray, at: int) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        return {
            f"{kind} directions": plots.mean_and_range(values[:, :, k, at], axis=-1) for k, kind in enumerate(_KINDS)
        }

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
    size, states = int(np.prod(plan.network.shape)), len(config.sigmas) * config.images
    edits = 2 * config.vectors * (2 * len(config.strengths) + 1)
    evaluations = states * (2 * config.vectors * config.max_rounds + edits * 2 * config.steps + 4 * config.steps)
    cost = evaluation_cost(plan.network, "directions", evaluations, edits)
    return [replace(cost, disk=states * edits * size * 4)]


PART = study.Part(
    "directions", "Semantic directions",
    "Do the leading singular vectors of a network's Jacobian span what an image can change into?",
    PAPER, claims, FIGURES, measure, report, PRESETS, costs, check,
)  # fmt: skip
