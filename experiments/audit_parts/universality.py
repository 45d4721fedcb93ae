"""Do linear classifiers see the samples as a Gaussian mixture with their class means and covariances?"""

from functools import partial
from typing import Any

import numpy as np

from dgu.analysis.stats.estimates import Estimate
from dgu.analysis.stats.resampling import corrected_t_interval, equivalence
from dgu.core.keys import seeded, stream
from experiments.audit_parts.common import text
from experiments.audit_parts.images import Sets
from experiments.study.judged import JudgedClaim
from experiments.study.progress import progress
from experiments.study.report import FigureEntry, Section, Table
from experiments.study.run_directory import RunDirectory

CLAIM_IDS = ("audit-universality",)
FIGURE_FILES = ("figures/universality.png",)
#: Least images of each class that the arms are made of.
_LEAST_PER_CLASS = 12
#: Parts of the images of a class: fit of the mixture, training, validation, test.
_PARTS = {"fit": 0.4, "train": 0.35, "validation": 0.05, "test": 0.2}
#: Test images of the mixture and its null, as a multiple of those of the samples.
GAUSSIAN_TEST = 5
ARMS = ("samples", "mixture", "null", "reference")


def obstacle(sets: Sets) -> str:
    """Why the classifiers cannot be trained; empty where they can."""
    if sets.samples.labels is None or sets.reference.labels is None:
        return "samples or reference have no labels"
    if len(sets.class_names) < 2:
        return "samples and reference have no classes in common"
    count = _per_class(sets)
    if count < _LEAST_PER_CLASS:
        return f"it needs {_LEAST_PER_CLASS} images of each class in both sets, and the smallest has {count}"
    return ""


def _per_class(sets: Sets) -> int:
    """Images of the smallest class of samples and reference."""
    labels = (sets.samples.labels, sets.reference.labels)
    return min(int(np.bincount(each, minlength=len(sets.class_names)).min()) for each in labels)  # type: ignore[arg-type]


def section(config: Any, sets: Sets, directory: RunDirectory) -> Section:
    """Linear classifiers of all classes, trained on samples, a Gaussian mixture fitted to samples, its null, and the reference."""
    from dgu import plots

    options = config.universality
    replicates = [
        directory.stage(f"universality/{number:03d}", partial(_replicate, config, sets, number))
        for number in progress(range(options.replicates), "universality", unit="splits")
    ]
    accuracy = 100 * np.stack([each["accuracy"] for each in replicates]).astype(float)
    sizes = _sizes(sets, options.most_per_class)
    trained, tested = sum(sizes[part] for part in ("fit", "train", "validation")), sizes["test"]
    gaps = accuracy[:, 0, 0] - accuracy[:, 1, 1] - (accuracy[:, 1, 1] - accuracy[:, 2, 2])
    compared = equivalence(gaps, options.margin, n_train=trained, n_test=tested, bounds=(-100, 100))
    interval = compared.interval
    claim = JudgedClaim.equivalent(
        id=CLAIM_IDS[0],
        paper="concentration",
        figure="Fig 5",
        unit="points",
        estimate=compared.estimate,
        interval=(float(interval.low), float(interval.high)),
        margin=options.margin,
        standard_error=compared.standard_error,
        max_standard_error=compared.max_standard_error,
        statement="Linear classifiers do as well on the samples as on a Gaussian mixture with their class means and covariances: "
        "difference of accuracy, less what the finite fit alone does (the mixture's less the null's).",
    )
    found = corrected_t_interval(np.moveaxis(accuracy, 0, -1), trained, tested, bounds=(0, 100))
    value, low, high = (np.asarray(part) for part in (found.estimate, found.low, found.high))
    half = (high - low) / 2
    directory.save_figure(FIGURE_FILES[0], plots.cross_matrix(value, half, ARMS, ARMS))
    cells = [[Estimate(value[i, j], 0.0, low[i, j], high[i, j]) for j in range(4)] for i in range(4)]
    word = {
        "supported": "the same",
        "not supported": "different",
        "undecided": "not decided to be the same or different",
    }
    answer = (
        f"Linear classifiers of {len(sets.class_names)} classes reach {text(cells[0][0])} % on samples and {text(cells[1][1])} % on a "
        f"Gaussian mixture with the samples' class means and covariances; corrected for the finite fit the difference is "
        f"{compared.estimate:+.2g} [{interval.low:+.2g}, {interval.high:+.2g}] points: {word[claim.verdict]} within {options.margin:g}. "
        f"Trained on samples and tested on the reference they reach {text(cells[0][3])} %, trained on the reference {text(cells[3][3])} %."
    )
    rows = [(arm, *(text(cell, 4) for cell in row)) for arm, row in zip(ARMS, cells)]
    table = Table(f"Test accuracy (%) by training arm (rows) and test arm; {sizes['train']} training images a class",
                  ("trained on", *ARMS), rows)  # fmt: skip
    metrics = {
        "arms": ARMS,
        "accuracy": value,
        "half_width": half,
        "gap": compared.estimate,
        "interval": [interval.low, interval.high],
        "images_per_class": sizes,
    }
    caption = "Test accuracy of linear classifiers, trained on the arm of the row and tested on that of the column."
    return Section("Universality", answer, [claim], [FigureEntry(FIGURE_FILES[0], caption)], [table], metrics)


def _sizes(sets: Sets, most: int) -> dict[str, int]:
    count = min(_per_class(sets), most)
    return {part: max(2, int(share * count)) for part, share in _PARTS.items()}


def _replicate(config: Any, sets: Sets, number: int) -> dict[str, np.ndarray]:
    """One split of each class: the mixture and its null fitted, classifiers trained on every arm and tested on all."""
    from dgu.analysis.universality.arms import PARTS, Task, assemble, gaussian_arms, train_and_test
    from dgu.data.splits import class_splits

    sizes, k = _sizes(sets, config.universality.most_per_class), len(sets.class_names)

    def cut(images: Any, seed: int) -> dict[str, np.ndarray]:
        parts: dict[str, list[np.ndarray]] = {part: [] for part in sizes}
        for label in range(k):
            members = np.flatnonzero(images.labels == label)
            for part, rows in class_splits(len(members), sizes, seed, number, label).items():
                parts[part].append(images.flat[members[rows]])
        return {part: np.stack(blocks) for part, blocks in parts.items()}

    samples, reference = cut(sets.samples, config.seed), cut(sets.reference, config.seed + 1)
    key = stream(seeded(config.seed), "audit", "universality", number)
    # Test images of a Gaussian arm cost no sampling: more of them steady the difference.
    more = sizes | {"test": GAUSSIAN_TEST * sizes["test"]}
    ends_at = np.cumsum([more[part] for part in PARTS])
    drawn = gaussian_arms(samples["fit"], key, int(ends_at[-1]))
    arms = {"samples": {part: samples[part] for part in PARTS}}
    for arm, images in drawn.items():
        arms[arm] = {part: np.asarray(images[:, end - more[part] : end]) for part, end in zip(PARTS, ends_at)}
    arms["reference"] = {part: reference[part] for part in PARTS}
    task = Task("all classes", np.arange(k)[None], (sizes["train"],), "softmax_mse")
    result = train_and_test(assemble(arms), task, config.universality.recipe, config.seed + number)
    return {"accuracy": result["accuracy"][:, :, 0, 0]}
