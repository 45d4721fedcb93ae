"""Are the samples, to linear classifiers, a Gaussian mixture with their class means and covariances?

What is measured is a difference of accuracies between arms that are all made from one pool of samples: the mixture is
fitted to all of them, classifiers are trained on some and tested on those that they were neither trained nor validated
on. Replicates split this pool anew; other samples of the same network would give another difference. That variation
between pools comes from ridge least squares on pools that are drawn anew from samples and reference.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from dgu import plots
from dgu.analysis.stats.estimates import Estimate
from dgu.analysis.universality.arms import PARTS, Task, assemble
from dgu.analysis.universality.designs import averaged, corrected_gap, held_apart, numbered, split_arms
from dgu.analysis.universality.recipe import Recipe
from dgu.analysis.universality.resampled import MOST_DIMENSIONS, on_new_pool
from dgu.analysis.universality.ridge import classifier_accuracy
from dgu.core.errors import require
from dgu.core.keys import seed_of
from dgu.data.splits import class_splits
from experiments.audit.common import OWN, key_of, text
from experiments.audit.sets import Images
from experiments.audit.subject import Subject
from experiments.pools import CORRECTED_POINTS, POINTS, VARIANCE_CHANGED, Resampling, interval, on_resampled_pools
from experiments.study import Claim, Cost, Figure, Findings, Part, Run, Table, different, equivalent, option
from experiments.study.claims import judge
from experiments.study.progress import progress

FIGURES = (
    Figure(
        "universality",
        "Test accuracy of linear classifiers, trained on the arm of the row and tested on that of the column, with "
        "half-widths of the 95 % intervals. Mixture and null are fitted to samples that no classifier is trained or "
        "tested on.",
    ),
)
#: Least images of each class that the arms are made of.
_LEAST_PER_CLASS = 12
#: Parts of the images of a class. No classifier is trained or validated on the part fit: to it the mixtures of the
#: figure are fitted; where the mixture is fitted to all samples, classifiers are tested on it, too.
_SHARES = {"fit": 0.4, "train": 0.35, "validation": 0.05, "test": 0.2}
#: Test images of the mixture and its null, as a multiple of those of the samples: they cost no sampling.
GAUSSIAN_TEST = 5
#: Sources of images, in the order of results: the samples, the mixture fitted to them, the mixture fitted again to
#: samples of that, and the reference.
ARMS = ("samples", "mixture", "null", "reference")
#: The arms of the figure, no two of which share images, in the same order.
_CROSSED = ("diffusion", "disjoint mixture", "disjoint null", "reference")
_CHANGED = (
    "the mixture was fitted to a part of the samples, 40 %; "
    "the interval was the corrected resampled t, about 2.2 times too wide; and no verdict was given where the standard "
    f"error exceeded 0.32 margins. {VARIANCE_CHANGED}"
)


@dataclass(frozen=True)
class Config(Resampling, prefix="universality"):
    """Linear classifiers on samples and on a Gaussian mixture with their class moments."""

    replicates: int = option(12, ge=0)
    """Random splits of the samples; 0 skips the comparison."""
    draws: int = option(2, ge=1)
    """Draws of mixture and null for each split."""
    most_per_class: int = option(1000, ge=_LEAST_PER_CLASS)
    """Images of each class and set that are used, at most."""
    margin: float = option(2.5, gt=0.0)
    """Differences of accuracy below this count as none, in percentage points."""
    recipe: Recipe = field(default_factory=lambda: Recipe(epochs=40, learning_rates=(0.1, 0.3, 1.0)))

    def check(self) -> None:
        """One split has no spread."""
        require(self.replicates != 1, self.name("replicates"), self.replicates, "0, or 2 or more")


PRESETS = {
    "smoke": Config(
        replicates=2,
        resampled_pools=2,
        draws=1,
        most_per_class=24,
        recipe=Recipe(epochs=4, learning_rates=(1.0,), eval_interval=2),
    ),
    "default": Config(),
    "paper": Config(),
}


def claims(config: Config) -> tuple[Claim, ...]:
    """What is tested: the null-corrected gap is smaller than the margin, and is not zero."""
    paper: dict[str, Any] = {"source": "Fig 5", "unit": "points", "paper": "concentration", "one_network": True}
    return (
        Claim(
            "audit-universality",
            f"Linear classifiers reach the same accuracy, within {config.margin:g} percentage points, when trained and "
            "tested on samples as when trained and tested on draws from the Gaussian mixture with their class means "
            "and covariances, beyond what the finite fit of the mixture explains (value: the null-corrected gap, "
            "accuracy on samples minus accuracy on mixture, less accuracy on mixture minus accuracy on the null, a "
            "mixture fitted again to draws of the mixture).",
            equivalent(config.margin),
            changed=_CHANGED,
            **paper,
        ),
        Claim(
            "audit-universality-gap",
            "For linear classifiers, samples and the Gaussian mixture with their class means and covariances differ in "
            "accuracy, beyond what the finite fit of the mixture explains (value: the null-corrected gap, which is not "
            "zero).",
            different(),
            changed=VARIANCE_CHANGED,
            **paper,
        ),
    )


def skips(config: Config, subject: Subject) -> str:
    """Why the classifiers cannot be trained; empty where they can."""
    if config.replicates == 0:
        return "no replicates were asked for (--universality.replicates)"
    if subject.samples.labels is None or subject.reference.labels is None:
        return "samples or reference have no labels"
    if len(subject.class_names) < 2:
        return "samples and reference have no classes in common"
    count = _per_class(subject)
    if count < _LEAST_PER_CLASS:
        return f"it needs {_LEAST_PER_CLASS} images of each class in both sets, and the smallest has {count}"
    return ""


def _smallest(images: Images, classes: int) -> int:
    """Images of the smallest class."""
    assert images.labels is not None
    return int(np.bincount(images.labels, minlength=classes).min())


def _per_class(subject: Subject) -> int:
    """Images of the smallest class of samples and reference."""
    return min(_smallest(each, len(subject.class_names)) for each in (subject.samples, subject.reference))


def _sizes(config: Config, subject: Subject) -> dict[str, int]:
    count = min(_per_class(subject), config.most_per_class)
    return {part: max(2, int(share * count)) for part, share in _SHARES.items()}


def _pools(config: Config, subject: Subject, seed: int) -> list[np.ndarray]:
    """The pool of samples, as many of each class as a split takes, and that of the reference, (K, n, d): chosen at
    random once.
    """
    classes = len(subject.class_names)
    counts = sum(_sizes(config, subject).values()), min(_smallest(subject.reference, classes), config.most_per_class)
    pools = []
    for number, (images, count) in enumerate(zip((subject.samples, subject.reference), counts)):
        members = [np.flatnonzero(images.labels == label) for label in range(classes)]
        own = seed_of(key_of(seed, "universality", "pools"), number)
        chosen = [class_splits(len(one), {"pool": count}, own, 0, k)["pool"] for k, one in enumerate(members)]
        pools.append(np.stack([images.flat[one[places]] for one, places in zip(members, chosen)]))
    return pools


def measure(config: Config, subject: Subject, run: Run) -> dict[str, dict[str, np.ndarray]]:
    """Accuracies of each random split by SGD, and on pools drawn anew by ridge least squares."""
    pools, sizes = _pools(config, subject, run.seed), _sizes(config, subject)
    numbers = progress(range(config.replicates), "universality", unit="splits")
    found = [
        run.stage(f"{number:03d}", accuracies, config, config.recipe, sizes, run.seed, pools, number)
        for number in numbers
    ]
    again = partial(resampled, config, sizes, run.seed, pools)
    return {
        "replicates": {name: np.stack([one[name] for one in found]) for name in found[0]},
        "resampled": on_resampled_pools(config, run, again),
    }


def resampled(
    config: Config, sizes: Mapping[str, int], seed: int, pools: Sequence[np.ndarray], number: int
) -> dict[str, np.ndarray]:
    """What ``accuracies`` finds with ridge least squares on the splits of pool ``number`` of those drawn anew."""
    rng = np.random.default_rng(seed_of(key_of(seed, "universality", "resampled"), number))
    return on_new_pool(pools, rng, config.resampled_splits, partial(accuracies, config, None, sizes, seed))


def accuracies(
    config: Config,
    recipe: Recipe | None,
    sizes: Mapping[str, int],
    seed: int,
    pools: Sequence[np.ndarray],
    number: int,
) -> dict[str, np.ndarray]:
    """One split of the pools of samples and reference: ``own``, the accuracy on test images of each arm's own, with the
    mixture fitted to all samples; and ``cross`` (train arm, test arm), with mixtures fitted to the part fit. By ridge
    least squares where there is no recipe.
    """
    samples, reference = pools
    classes, counts = len(samples), [each.shape[1] for each in pools]

    def places(source: int, parts: Mapping[str, int]) -> dict[str, np.ndarray]:
        own = seed_of(key_of(seed, "universality", "splits"), source)
        split = [class_splits(counts[source], parts, own, number, label) for label in range(classes)]
        return {part: np.stack([one[part] for one in split]) for part in parts}

    gaussian = {part: sizes[part] * (GAUSSIAN_TEST if part == "test" else 1) for part in PARTS}
    key = key_of(seed, "universality", number)
    sgd = seed_of(key, "sgd")
    arms = split_arms(samples, places(0, sizes), key, gaussian, draws=config.draws)
    cut = places(1, {part: sizes[part] for part in PARTS})
    arms["reference"] = {part: np.take_along_axis(reference, rows[:, :, None], axis=1) for part, rows in cut.items()}
    task, pool = Task("all classes", np.arange(classes)[None], (sizes["train"],), "softmax_mse"), assemble(arms)
    compared = pool.only([*numbered(config.draws), "reference"])
    own = classifier_accuracy(compared, task, recipe, sgd, cross=False)[:, 0, 0]
    crossed = held_apart(pool.only(_CROSSED), sizes["test"])
    by_arm = averaged(dict(zip(compared.arms, own)))
    cross = classifier_accuracy(crossed, task, recipe, sgd)[:, :, 0, 0]
    return {"own": np.stack(list(by_arm.values())), "cross": cross}


def report(config: Config, subject: Subject, found: Mapping[str, Mapping[str, np.ndarray]]) -> Findings:
    """Accuracies of classifiers trained and tested on each arm, and the null-corrected gap of samples and mixture."""

    def estimate(read: Callable[[Mapping[str, np.ndarray]], np.ndarray], bounds: tuple[float, float]) -> Estimate:
        return interval(lambda one: 100 * read(one).astype(float), found["replicates"], found["resampled"], bounds)

    own = estimate(lambda one: one["own"], (0.0, 100.0))
    crossed = estimate(lambda one: one["cross"], (0.0, 100.0))
    gap = estimate(lambda one: corrected_gap(*np.moveaxis(one["own"][..., :3], -1, 0)), CORRECTED_POINTS)
    raw = estimate(lambda one: one["own"][..., 0] - one["own"][..., 1], POINTS)
    inside, zero = (judge(claim, gap, OWN).verdict for claim in claims(config))
    word = {"supported": "smaller", "not supported": "larger", "undecided": "not decided to be smaller or larger"}
    is_zero = "not zero" if zero == "supported" else "perhaps zero"
    value, low, high = np.moveaxis(crossed.stacked(), -1, 0)
    half = (high - low) / 2
    rows = [(arm, text(own[i], 4), *(text(crossed[i, j], 4) for j in range(len(ARMS)))) for i, arm in enumerate(ARMS)]
    sizes = _sizes(config, subject)
    title = f"Test accuracy (%) by training arm (rows) and test arm; {sizes['train']} training images a class"
    return Findings(
        f"Linear classifiers of {len(subject.class_names)} classes reach {text(own[0])} % on samples and "
        f"{text(own[1])} % on a Gaussian mixture with the samples' class means and covariances; corrected for the "
        f"finite fit the difference is {gap.value:+.2g} [{gap.low:+.2g}, {gap.high:+.2g}] points: {is_zero}, and "
        f"{word[inside]} than {config.margin:g}. Trained on samples and tested on the reference they reach "
        f"{text(crossed[0, 3])} %, trained on the reference {text(crossed[3, 3])} %.",
        claims={claim.id: gap for claim in claims(config)},
        figures={"universality": plots.cross_matrix(value, half, ARMS, ARMS)},
        tables=[Table(title, ("trained on", "own test images, mixture of all samples", *ARMS), rows)],
        metrics={
            "arms": ARMS,
            "own": own.value,
            "accuracy": value,
            "half_width": half,
            "raw_gap": [raw.value, raw.low, raw.high],
            "gap": gap.value,
            "interval": [gap.low, gap.high],
            "images_per_class": sizes,
        },
    )


def costs(config: Config, subject: Subject) -> list[Cost]:
    """Passes of the classifiers over the training images of the arms, and least squares on pools drawn anew."""
    if skips(config, subject):
        return []
    classes, d = len(subject.class_names), subject.reference.flat.shape[1]
    images = classes * min(config.most_per_class, len(subject.samples) // classes)
    arms = 2 * config.draws + 2 + len(_CROSSED)
    visits = 0.35 * images * config.recipe.epochs * len(config.recipe.learning_rates) * arms
    flop = config.replicates * visits * 4 * d * classes
    few = min(d, MOST_DIMENSIONS)
    again = config.resampled_pools * config.resampled_splits * arms * (8 * images * few**2 + few**3)
    return [Cost("universality", 0, flop + again, subject.memory + (8 + 4 * config.draws) * 4 * d * images)]


PART = Part(
    name="universality",
    title="Universality",
    question="Do linear classifiers see the samples as a Gaussian mixture with their class means and covariances?",
    paper=OWN,
    presets=PRESETS,
    claims=claims,
    figures=FIGURES,
    measure=measure,
    report=report,
    costs=costs,
    skips=skips,
)
