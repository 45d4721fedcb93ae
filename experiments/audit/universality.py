"""Are the samples, to linear classifiers, a Gaussian mixture with their class means and covariances?"""

from dataclasses import dataclass, field

import numpy as np

from dgu import plots
from dgu.analysis.stats.estimates import Estimate
from dgu.analysis.stats.resampling import STANDARD_ERROR_PER_MARGIN, corrected_t_interval, equivalence
from dgu.analysis.universality.arms import Task, assemble, cut_parts, gaussian_arms, train_and_test
from dgu.analysis.universality.recipe import Recipe
from dgu.core.errors import require
from dgu.data.splits import class_splits
from experiments.audit.common import OWN, key_of, text
from experiments.audit.sets import Images
from experiments.audit.subject import Subject
from experiments.study import Claim, Cost, Figure, Findings, Options, Part, Run, Table, equivalent, option
from experiments.study.claims import judge
from experiments.study.progress import progress

FIGURES = (
    Figure(
        "universality",
        "Test accuracy of linear classifiers, trained on the arm of the row and tested on that of the column.",
    ),
)
#: Least images of each class that the arms are made of.
_LEAST_PER_CLASS = 12
#: Parts of the images of a class: fit of the mixture, training, validation, test.
_SHARES = {"fit": 0.4, "train": 0.35, "validation": 0.05, "test": 0.2}
#: Test images of the mixture and its null, as a multiple of those of the samples.
GAUSSIAN_TEST = 5
#: Sources of images: the samples, the mixture fitted to some of them, the mixture fitted again to samples of that, and
#: the reference.
ARMS = ("samples", "mixture", "null", "reference")


@dataclass(frozen=True)
class Config(Options, prefix="universality"):
    """Linear classifiers on samples and on a Gaussian mixture with their class moments."""

    replicates: int = option(20, ge=0)
    """Random splits of the samples; 0 skips the comparison."""
    most_per_class: int = option(1000, ge=_LEAST_PER_CLASS)
    """Images of each class and set that are used, at most."""
    margin: float = option(2.5, gt=0.0)
    """Differences of accuracy below this count as none, in percentage points."""
    recipe: Recipe = field(default_factory=lambda: Recipe(epochs=40, learning_rates=(0.1, 0.3, 1.0)))

    def check(self) -> None:
        """One split has no spread."""
        require(self.replicates != 1, self.name("replicates"), self.replicates, "0, or 2 or more")


PRESETS = {
    "smoke": Config(replicates=2, most_per_class=24, recipe=Recipe(epochs=4, learning_rates=(1.0,), eval_interval=2)),
    "default": Config(),
    "paper": Config(),
}


def claims(config: Config) -> tuple[Claim, ...]:
    """What is tested."""
    margin = equivalent(config.margin, max_standard_error=STANDARD_ERROR_PER_MARGIN * config.margin)
    return (
        Claim(
            "audit-universality",
            "Linear classifiers reach the same accuracy when trained and tested on samples as on draws from the "
            "Gaussian mixture fitted to other samples, one Gaussian to a class, up to the effect of the finite fit: "
            f"the difference equals, within {config.margin:g} percentage points, that between the mixture and the "
            "null, a mixture fitted again to draws of it (value: samples minus mixture, less mixture minus null).",
            margin,
            source="Fig 5",
            unit="points",
            paper="concentration",
            one_network=True,
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


def _per_class(subject: Subject) -> int:
    """Images of the smallest class of samples and reference."""
    classes = len(subject.class_names)
    return min(
        int(np.bincount(_labels(each), minlength=classes).min()) for each in (subject.samples, subject.reference)
    )


def _labels(images: Images) -> np.ndarray:
    assert images.labels is not None
    return images.labels


def _sizes(config: Config, subject: Subject) -> dict[str, int]:
    count = min(_per_class(subject), config.most_per_class)
    return {part: max(2, int(share * count)) for part, share in _SHARES.items()}


def measure(config: Config, subject: Subject, run: Run) -> list[dict[str, np.ndarray]]:
    """Accuracies of each random split."""
    numbers = progress(range(config.replicates), "universality", unit="splits")
    return [run.stage(f"{number:03d}", replicate, config, subject, run.seed, number) for number in numbers]


def report(config: Config, subject: Subject, replicates: list[dict[str, np.ndarray]]) -> Findings:
    """Accuracies of classifiers trained and tested on each arm, and the corrected difference of samples and mixture."""
    accuracy = 100 * np.stack([each["accuracy"] for each in replicates]).astype(float)
    sizes = _sizes(config, subject)
    trained, tested = sum(sizes[part] for part in ("fit", "train", "validation")), sizes["test"]
    gaps = accuracy[:, 0, 0] - accuracy[:, 1, 1] - (accuracy[:, 1, 1] - accuracy[:, 2, 2])
    compared = equivalence(gaps, config.margin, n_train=trained, n_test=tested, bounds=(-100, 100))
    gap = compared.interval
    (claim,) = claims(config)
    verdict = judge(claim, gap, OWN).verdict
    word = {
        "supported": "the same",
        "not supported": "different",
        "undecided": "not decided to be the same or different",
    }
    found = corrected_t_interval(np.moveaxis(accuracy, 0, -1), trained, tested, bounds=(0, 100))
    value, low, high = (np.asarray(part) for part in (found.value, found.low, found.high))
    half = (high - low) / 2
    cells = [[Estimate(value[i, j], low[i, j], high[i, j]) for j in range(len(ARMS))] for i in range(len(ARMS))]
    rows = [(arm, *(text(cell, 4) for cell in row)) for arm, row in zip(ARMS, cells)]
    title = f"Test accuracy (%) by training arm (rows) and test arm; {sizes['train']} training images a class"
    return Findings(
        f"Linear classifiers of {len(subject.class_names)} classes reach {text(cells[0][0])} % on samples and "
        f"{text(cells[1][1])} % on a Gaussian mixture with the samples' class means and covariances; corrected for "
        f"the finite fit the difference is {gap.value:+.2g} [{gap.low:+.2g}, {gap.high:+.2g}] points: {word[verdict]} "
        f"within {config.margin:g}. Trained on samples and tested on the reference they reach {text(cells[0][3])} %, "
        f"trained on the reference {text(cells[3][3])} %.",
        claims={claim.id: gap},
        figures={"universality": plots.cross_matrix(value, half, ARMS, ARMS)},
        tables=[Table(title, ("trained on", *ARMS), rows)],
        metrics={
            "arms": ARMS,
            "accuracy": value,
            "half_width": half,
            "gap": gap.value,
            "interval": [gap.low, gap.high],
            "images_per_class": sizes,
        },
    )


def replicate(config: Config, subject: Subject, seed: int, number: int) -> dict[str, np.ndarray]:
    """One split of each class: the mixture and its null fitted, classifiers trained on every arm and tested on all."""
    sizes, classes = _sizes(config, subject), len(subject.class_names)

    def split_by_class(images: Images, split: int) -> dict[str, np.ndarray]:
        parts: dict[str, list[np.ndarray]] = {part: [] for part in sizes}
        for label in range(classes):
            members = np.flatnonzero(images.labels == label)
            for part, rows in class_splits(len(members), sizes, split, number, label).items():
                parts[part].append(images.flat[members[rows]])
        return {part: np.stack(blocks) for part, blocks in parts.items()}

    samples, reference = split_by_class(subject.samples, seed), split_by_class(subject.reference, seed + 1)
    gaussian = {part: size for part, size in sizes.items() if part != "fit"}
    gaussian["test"] *= GAUSSIAN_TEST  # They cost no sampling: more of them steady the difference.
    drawn = gaussian_arms(samples["fit"], key_of(seed, "universality", number), sum(gaussian.values()))
    cut_arms = {arm: cut_parts(np.asarray(images), gaussian) for arm, images in drawn.items()}
    arms = {"samples": samples, **cut_arms, "reference": reference}
    task = Task("all classes", np.arange(classes)[None], (sizes["train"],), "softmax_mse")
    result = train_and_test(assemble(arms), task, config.recipe, seed + number)
    return {"accuracy": result["accuracy"][:, :, 0, 0]}


def costs(config: Config, subject: Subject) -> list[Cost]:
    """Passes of the classifiers over the training images of the four arms."""
    if skips(config, subject):
        return []
    classes, d = len(subject.class_names), subject.reference.flat.shape[1]
    images = classes * min(config.most_per_class, len(subject.samples) // classes)
    visits = 0.35 * images * config.recipe.epochs * len(config.recipe.learning_rates) * len(ARMS)
    flop = config.replicates * visits * 4 * d * classes
    return [Cost("universality", 0, flop, subject.memory + 16 * 4 * d * images)]


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
