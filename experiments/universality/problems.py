"""The classification problems of a replicate: their classes, training sizes and losses."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dgu.analysis.universality.arms import Task
from dgu.core.errors import require
from dgu.core.keys import seed_of, seeded
from experiments.subjects import ClassImages
from experiments.universality.options import Options

#: Pairs of classes that have panels of their own where none are named.
_PAIRS = 3
#: What is appended to the name of a problem for losses other than the first.
_SUFFIX = {"softmax_mse": "-squared", "logit_mse": "-logits", "cross_entropy": "-ce"}
_SHOWN = {"softmax_mse": "squared error", "logit_mse": "squared error of logits", "cross_entropy": "cross entropy"}


@dataclass(frozen=True)
class Panel:
    """A problem of linear classifiers as figures and tables show it.

    Attributes:
        name: of the problem, as in results.
        title: for readers.
        loss: of the classifiers.
        k: classes to tell apart.
    """

    name: str
    title: str
    loss: str
    k: int


def class_sets(options: Options, known: ClassImages) -> tuple[tuple[int, ...], ...]:
    """Places, among the classes studied, of the classes of each of ``--class-sets``; ``InputError`` if one is unknown
    or not studied.
    """
    if options.class_sets is None:
        count = min(_PAIRS, len(known.labels) // 2)
        return tuple((2 * pair, 2 * pair + 1) for pair in range(count))
    places = {str(label): place for place, label in enumerate(known.labels)}
    places |= {name: place for place, name in enumerate(known.class_names)}
    for chosen in options.class_sets:
        unknown = [name for name in chosen.split(":") if name not in places]
        wanted = f"of the classes studied: {', '.join(map(str, known.labels))} or {', '.join(known.class_names)}"
        require(not unknown, "class_sets", chosen, wanted)
    sets = tuple(tuple(sorted({places[name] for name in chosen.split(":")})) for chosen in options.class_sets)
    distinct = len(set(sets)) == len(sets) and all(len(one) >= 2 for one in sets)
    require(distinct, "class_sets", options.class_sets, "sets of two or more classes, each set once")
    return sets


def panels(options: Options, sets: Sequence[Sequence[int]], class_names: Sequence[str]) -> tuple[Panel, ...]:
    """The problems of linear classifiers in the order of figures: sets, random subsets, all classes, random pairs."""
    few = {f"{k}-classes": (f"{k} random classes", k) for k in options.subset_sizes}
    named = {_set_name(one): (_set_title([class_names[place] for place in one]), len(one)) for one in sets}
    known = named | few | {"all-classes": (f"all {len(class_names)} classes", len(class_names))}
    out = []
    for name, (title, k) in known.items():
        if _is_pair(name, k):
            out.append(Panel(name, title, "sigmoid_mse", k))
            continue
        for loss in options.losses:
            out.append(Panel(_with_loss(options, name, loss), f"{title}, {_SHOWN[loss]}", loss, k))
    return (*out, Panel("pairs", "random pairs of classes", "sigmoid_mse", 2))


def tasks(options: Options, sets: Sequence[Sequence[int]], k_all: int, number: int) -> dict[str, Task]:
    """The classification problems of replicate ``number``, with its own random subsets and pairs: those of ``panels``,
    then ``cross``, whose classifiers are tested on every arm, and ``two-layer``.
    """
    rng = np.random.default_rng(seed_of(seeded(options.seed), "subsets", number))

    def random_classes(k: int, count: int) -> np.ndarray:
        return np.sort(np.stack([rng.choice(k_all, k, replace=False) for _ in range(count)]), axis=1)

    classes = {f"{k}-classes": random_classes(k, options.subsets) for k in options.subset_sizes}
    classes |= {_set_name(one): np.asarray(one)[None] for one in sets}
    classes |= {"all-classes": np.arange(k_all)[None], "pairs": random_classes(2, options.pairs)}
    found = {}
    for name, chosen in classes.items():
        losses = ("sigmoid_mse",) if _is_pair(name, chosen.shape[1]) else options.losses
        for loss in losses:
            full = _with_loss(options, name, loss)
            found[full] = Task(full, chosen, options.sizes, loss)
    few = found[f"{options.subset_sizes[0]}-classes"]
    found["cross"] = replace(few, name="cross", classes=few.classes[:1], per_class=options.sizes[-1:])
    size = (options.size_of_networks,)
    found["two-layer"] = replace(few, name="two-layer", classes=few.classes[:1], per_class=size, two_layer=True)
    # Beside it, for the paired difference: the linear classifiers of the same classes and size.
    found["beside-two-layer"] = replace(found["two-layer"], name="beside-two-layer", two_layer=False)
    return found


def by_cross_entropy(options: Options) -> str | None:
    """Name of the problem of all classes with cross entropy; None where that is not among the losses, or is the first,
    which all other claims are about.
    """
    return _with_loss(options, "all-classes", "cross_entropy") if "cross_entropy" in options.losses[1:] else None


def gram_classes(options: Options, sets: Sequence[Sequence[int]], k_all: int) -> dict[str, tuple[list[int], int]]:
    """Classes and images of each class of every Gram matrix; ``InputError`` if there are fewer classes."""
    found = {}
    for panel in options.gram_panels or (f"{min(4, k_all)}x{options.splits.train}", f"allx{options.splits.test}"):
        left, count = panel.split("x")
        k = k_all if left == "all" else int(left)
        require(k <= k_all, "gram_panels", panel, f"at most the number of classes, {k_all}")
        found[panel] = (next((list(one) for one in sets if len(one) == k), list(range(k))), int(count))
    return found


def _is_pair(name: str, k: int) -> bool:
    """Whether a problem has one sigmoid output: random pairs, and named sets of two classes."""
    return name == "pairs" or (name.startswith("set-") and k == 2)


def _with_loss(options: Options, name: str, loss: str) -> str:
    return name if loss in (options.losses[0], "sigmoid_mse") else name + _SUFFIX[loss]


def _set_name(places: Sequence[int]) -> str:
    return "set-" + "-".join(map(str, places))


def _set_title(names: Sequence[str]) -> str:
    if len(names) <= 4:
        return ", ".join(names[:-1]) + f" and {names[-1]}"
    return f"{len(names)} classes ({names[0]} to {names[-1]})"
