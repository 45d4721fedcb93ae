"""How good is a generative model of labelled images? Measure its samples and write the numbers as a model card.

    python -m experiments.model_card --samples samples.npz --out card
    python -m experiments.model_card --checkpoint fashion-mnist-14 --count 10000 --out card

An evaluation classifier (the judge of the card), which is a small convolutional network trained on the real training
images, says which samples look like their class, and supplies the features of KID, precision and recall. Every number
stands beside the same number for real training images in place of the samples: that column is what a perfect model
would show.
"""

import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from operator import methodcaller
from pathlib import Path
from typing import Any

import numpy as np

from dgu import plots
from dgu.core.errors import InputError, printable, require
from dgu.core.files import folder_obstacle, write_atomic
from dgu.core.keys import seeded, stream
from dgu.core.reading import RAISE_LIMIT, array_names, byte_limit, opened_npz, read_member
from dgu.core.typing import Key
from dgu.data import ImageSet, SampleStore, load
from experiments.study.command_line import run_command
from experiments.study.guide import Guide
from experiments.study.options import Options, option
from experiments.study.outputs import check_files
from experiments.study.progress import Progress


@dataclass(frozen=True)
class Config(Options):
    """Measure generated images against real ones; writes card.json, card.md and grid.png."""

    samples: Path | None = None
    """npz file with arrays samples (n, h, w, c), float in [-1, 1], and labels (n,); or a study's folder of samples."""
    checkpoint: str | None = None
    """Network to sample from instead: a bundled name, a network file, or the directory of a training run."""
    out: Path = Path("card")
    """Directory that the card is written to; made where there is none."""
    data: str = "fashion-mnist"
    """Real images, by name or path: split train for the classifier and the nearest neighbours, split test held out.
    fashion-mnist is Debian's package dataset-fashion-mnist; the bundled images have no split train."""
    count: int = option(10000, ge=1)
    """Samples drawn from the checkpoint, as many of each class."""
    steps: int = option(18, ge=2)
    """Heun steps of each sample drawn from the checkpoint."""
    epochs: int = option(12, ge=1)
    """Epochs of training of the evaluation classifier."""
    seed: int = option(0, ge=0)
    """Seed of every random draw."""


def _bracketed(entry: dict[str, Any]) -> str:
    return f"{entry['value']:.4g} [{entry['low']:.4g}, {entry['high']:.4g}]"


def card_markdown(card: dict[str, Any]) -> str:
    """The section "How good it is" of a model card."""

    def row(text: str, *path: str) -> str:
        entries = [card["samples"], card["reference"]]
        for step in path:
            entries = [entry[step] for entry in entries]
        return f"| {text} | {_bracketed(entries[0])} | {_bracketed(entries[1])} |"

    lines = [
        "## How good it is",
        "",
        f"{card['count']} samples against {card['data']['images']} held-out real images, 95 % intervals in brackets.",
        "The column *real* puts training images in the place of the samples (held-out ones for the accuracy).",
        "Features are those of the judge, a small convolutional network trained on the real training images.",
        "",
        "| measure | samples | real |",
        "|---|---|---|",
        f"| judge's accuracy | {_bracketed(card['samples']['accuracy'])} | {_bracketed(card['heldout_accuracy'])} |",
        row("KID, judge's features", "kid_features"),
        row("KID, pixels", "kid_pixels"),
        row("precision (k = 3)", "precision"),
        row("recall (k = 3)", "recall"),
        row("nearest training image: median distance over held-out images'", "neighbours", "median_ratio"),
        row("nearest training image: first percentile over held-out images'", "neighbours", "tail_ratio"),
        row("fraction closer than the held-out first percentile", "neighbours", "closer"),
        "",
        "| class | total variance of samples / held-out | of real / held-out |",
        "|---|---|---|",
    ]
    for place, name in enumerate(card["class_names"]):
        cells = []
        for column in ("samples", "reference"):
            ratio = card[column]["variance_ratio"]
            cells.append(f"{ratio['value'][place]:.3f} [{ratio['low'][place]:.3f}, {ratio['high'][place]:.3f}]")
        lines.append(f"| {name} | {cells[0]} | {cells[1]} |")
    lines += ["", "| requirement | value | allowed | holds |", "|---|---|---|---|"]
    for check in card["checks"]:
        allowed = f"{check['low']:g} or more" if check["high"] is None else f"{check['low']:g} to {check['high']:g}"
        holds = "yes" if check["holds"] else "**no**"
        lines.append(f"| {check['check']} | {check['value']:.4g} | {allowed} | {holds} |")
    return "\n".join(lines) + "\n"


def _read_samples(path: Path) -> tuple[np.ndarray, np.ndarray]:
    if os.path.isdir(path):
        return SampleStore.existing(path).read_equally()
    try:
        with opened_npz(path, "an npz file with arrays samples and labels, or a folder of samples") as file:
            names = sorted(array_names(file))
            require({"samples", "labels"} <= set(names), "arrays", names, "samples and labels")
            samples = read_member(file, "samples", path, byte_limit(), RAISE_LIMIT)
            labels = read_member(file, "labels", path, byte_limit(), RAISE_LIMIT)
    except InputError as error:
        raise InputError(f"samples = {str(path)!r}: {error}") from error
    floating = samples.ndim == 4 and samples.dtype.kind == "f" and len(samples) > 0
    require(floating, "samples", f"{samples.dtype} {samples.shape}", "a float array (n, h, w, c)")
    require(labels.dtype.kind in "iu" and labels.ndim == 1, "labels", f"{labels.dtype} {labels.shape}", "integers (n,)")
    finite = bool(np.isfinite(samples).all())
    largest = float(np.abs(samples).max()) if finite else np.nan
    require(finite and largest <= 4, "samples", f"largest magnitude {largest:.3g}", "finite, in about [-1, 1]")
    return samples.astype(np.float32), labels.astype(np.int32)


def _draw(config: Config, key: Key) -> tuple[np.ndarray, np.ndarray]:
    from dgu.models import load_checkpoint
    from dgu.samplers import karras_sigmas, sample

    model = load_checkpoint(str(config.checkpoint))
    classes = len(model.class_names)
    require(classes > 0, "checkpoint", config.checkpoint, "a class-conditional network")
    require(config.count >= classes, "count", config.count, f"at least one sample for each of {classes} classes")
    labels = np.arange(config.count) % classes
    with Progress("sampling", config.count, "images") as bar:
        images = sample(
            model.denoiser,
            key,
            np.arange(config.count),
            karras_sigmas(config.steps),
            shape=model.network.shape,
            labels=labels,
            progress=lambda done, _: bar.update(done - bar.done),
        )
    return images, labels.astype(np.int32)


def run(config: Config) -> None:
    """Measure, print the requirements on a bundled model with whether they hold, and write ``card.json``, ``card.md``
    and ``grid.png`` to ``config.out``.
    """
    from dgu.analysis.quality.card import quality_card

    given = [name for name in ("samples", "checkpoint") if getattr(config, name) is not None]
    require(len(given) == 1, "samples, checkpoint", given, "exactly one of them")
    found = folder_obstacle(config.out)
    require(not found, "out", str(config.out), f"a folder that can be written to ({found})")
    there = next(folder for folder in (config.out, *config.out.parents) if folder.exists())
    require(os.access(there, os.W_OK | os.X_OK), "out", str(config.out), "a folder that can be written to")
    if there == config.out:
        for name in ("card.json", "card.md", "grid.png"):
            check_files({"out": config.out / name}, {"samples": config.samples})
    key = seeded(config.seed)
    if config.samples is not None:
        samples, labels = _read_samples(config.samples)
    else:
        samples, labels = _draw(config, stream(key, "samples"))
    size = samples.shape[1]
    train, heldout = (load(config.data, split, size=size) for split in ("train", "test"))
    card = quality_card(samples, labels, train, heldout, stream(key, "card"), epochs=config.epochs, say=print)
    source = config.checkpoint if config.samples is None else config.samples.name
    card = {"source": source, "settings": {"data": config.data, "seed": config.seed, "epochs": config.epochs}, **card}
    for check in card["checks"]:
        print(f"{'holds' if check['holds'] else 'FAILS'}: {check['check']}: {check['value']:.4g}", flush=True)
    config.out.mkdir(parents=True, exist_ok=True)
    picture = io.BytesIO()
    grid(samples, labels, heldout).savefig(picture, format="png", dpi=150)
    for name, content in (
        ("card.json", (json.dumps(card, indent=1) + "\n").encode()),
        ("card.md", card_markdown(card).encode(errors="backslashreplace")),
        ("grid.png", picture.getvalue()),
    ):
        write_atomic(config.out / name, methodcaller("write", content))
    print(f"card: {printable(str((config.out / 'card.md').resolve()))}")


def grid(samples: np.ndarray, labels: np.ndarray, heldout: ImageSet, columns: int = 10) -> Any:
    """A row a class: the first held-out images, then the first samples."""
    classes = [place for place in range(len(heldout.class_names)) if np.any(labels == place)]
    rows = []
    for place in classes:
        sides = [heldout.images[heldout.labels == place], samples[labels == place]]
        # A class with fewer images than columns repeats them: the figure is a rectangle.
        rows.append(np.concatenate([np.resize(side, (columns, *side.shape[1:])) for side in sides]))
    names = [heldout.class_names[place] for place in classes]
    return plots.image_grid(np.stack(rows), names, ["held-out", "samples"])


GUIDE = Guide(
    examples={
        "--samples samples.npz --out card": "The card of images in a file.",
        "--checkpoint fashion-mnist-14 --count 10000 --out card": "The card of a network, which is sampled first.",
    }
)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; ``argv`` is that of the process by default."""
    run_command(Config, run, name="model_card", guide=GUIDE, argv=argv)


if __name__ == "__main__":
    main()
