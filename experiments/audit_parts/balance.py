"""Does the set hold its classes in the proportions of the reference, and does it show what it was asked for?"""

from typing import Any

import numpy as np

from dgu.core.keys import seeded, stream
from experiments.audit_parts.common import plain, text, triples
from experiments.audit_parts.images import Sets
from experiments.study.judged import JudgedClaim
from experiments.study.report import FigureEntry, Section, Table
from experiments.study.run_directory import RunDirectory

CLAIM_IDS = ("audit-class-balance",)
FIGURE_FILES = ("figures/class_balance.png",)
#: Shares of the classes may differ by so much.
MARGIN = 0.03
#: Least images that train the judge.
_JUDGE_LEAST = 200


def obstacle(sets: Sets) -> str:
    """Why there is no class balance; empty where there is."""
    if not sets.class_names or sets.reference.labels is None:
        return "the reference has no labels of two or more classes"
    if min(sets.reference.pixels.shape[1:3]) < 4 or len(sets.rest) < _JUDGE_LEAST:
        return f"the judge needs {_JUDGE_LEAST} reference images of 4 x 4 pixels or more"
    return ""


def section(config: Any, sets: Sets, directory: RunDirectory) -> Section:
    """Shares of the classes that a judge sees in samples and in held-out images: its errors are the same for both."""
    from dgu import plots
    from dgu.analysis import class_balance, proportion

    found = directory.stage("judge", lambda: _judge(config, sets))
    seen, held = found["samples"], found["held"]
    classes = len(sets.class_names)
    measured = class_balance(seen, held, classes)
    differences = triples(measured.differences)
    parts = []
    for place, name in enumerate(sets.class_names):
        value, low, high = differences[place].tolist()
        parts.append(
            JudgedClaim.equivalent(id=f"class-{place}", paper="own", figure="", unit="", estimate=value, interval=(low, high),
                             margin=MARGIN, statement=f"share of {name} in samples less that in held-out images")
        )  # fmt: skip
    claim = JudgedClaim.all_of(parts, id=CLAIM_IDS[0], paper="own", figure="",
                         statement=f"Every class has the share in the samples that it has in held-out images, within {MARGIN:g} "
                         "(as a classifier trained on the reference sees them).")  # fmt: skip
    dots = {
        column: triples(shares)
        for column, shares in (("samples", measured.shares), ("held out", measured.reference_shares))
    }
    figure = plots.interval_dots(sets.class_names, dots, quantity="share of the images (simultaneous 95 % intervals)")
    directory.save_figure(FIGURE_FILES[0], figure)
    worst = int(np.argmax(np.abs(differences[:, 0])))
    points = [f"{value:+.1f} [{low:+.1f}, {high:+.1f}]" for value, low, high in (100 * differences).tolist()]
    accuracy = {}
    for name, images, predicted in (("samples", sets.samples, seen), ("held", sets.held, held)):
        if images.labels is not None:
            accuracy[name] = proportion(predicted == images.labels)
    asked = (
        f" It reads {text(accuracy['samples'])} of the samples as the class asked for" if "samples" in accuracy else ""
    )
    asked += f" (held-out images: {text(accuracy['held'])})." if asked and "held" in accuracy else "." if asked else ""
    answer = (
        f"Class shares differ from those of held-out images by at most {100 * abs(differences[worst, 0]):.1f} percentage points "
        f"({sets.class_names[worst]}: {points[worst]}); chi-square {measured.chi2:.1f} with {measured.degrees_of_freedom} degrees "
        f"of freedom, p = {measured.p_value:.2g}." + asked
    )
    shares = [
        [f"{count} ({100 * count / counts.sum():.1f} %)" for count in counts.tolist()]
        for counts in (measured.counts, measured.reference_counts)
    ]
    rows = list(zip(sets.class_names, *shares, points))
    table = Table(
        "Class balance, as the judge sees the images", ("class", "samples", "held out", "difference (points)"), rows
    )
    metrics = {
        "differences": plain(measured.differences),
        "chi2": measured.chi2,
        "p_value": measured.p_value,
        "accuracy": {name: plain(each) for name, each in accuracy.items()},
    }
    caption = "Share of each class in the samples and in held-out images, as the judge sees them."
    return Section("Class balance", answer, [claim], [FigureEntry(FIGURE_FILES[0], caption)], [table], metrics)


def _judge(config: Any, sets: Sets) -> dict[str, np.ndarray]:
    """Classes that a small network trained on the reference sees in samples and held-out images."""
    from dgu.analysis import train_convnet

    rng = np.random.default_rng([config.seed, 31])
    rest = sets.rest
    rows = np.sort(rest[rng.permutation(len(rest))[: config.judge.images]])
    judge = train_convnet(
        sets.reference.pixels[rows],
        sets.reference.labels[rows],  # type: ignore[index]
        stream(seeded(config.seed), "audit", "judge"),
        epochs=config.judge.epochs,
        batch_size=min(128, len(rows)),
        classes=len(sets.class_names),
    )
    return {"samples": judge.predict(sets.samples.pixels), "held": judge.predict(sets.held.pixels)}
