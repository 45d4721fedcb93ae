"""How good is a generative model of labelled images? Measure its samples and write the numbers as a model card.

    python -m experiments.model_card --samples samples.npz --out card
    python -m experiments.model_card --checkpoint fashion-mnist-14 --count 10000 --out card

A small convolutional network, trained on the real training images, judges the samples and supplies the features of KID,
precision and recall. Every number stands beside the same number for real training images in place of the samples: that
column is what a perfect model would show.
"""

import io
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import jax
import numpy as np

from dgu.analysis.quality.distances import (
    extract_features,
    kernel_distance,
    nearest_neighbours,
    precision_recall,
    variance_ratio,
)
from dgu.analysis.stats.estimates import Estimate, proportion
from dgu.core.errors import InputError, printable, require
from dgu.core.files import write_atomic
from dgu.core.keys import seeded, stream
from dgu.core.reading import RAISE_LIMIT, array_names, byte_limit, opened_npz, read_member
from dgu.core.typing import Key
from dgu.data import ImageSet, SampleStore, load
from dgu.plots import image_grid
from dgu.training.classifiers.convnet import ConvNet, train_convnet
from experiments.study.arguments import parse_alone
from experiments.study.ends import exit_code
from experiments.study.options import check_options
from experiments.study.outputs import check_files, folder_obstacle


@dataclass(frozen=True)
class Config:
    """Measure generated images against real ones; writes card.json, card.md and grid.png."""

    samples: Path | None = None
    """npz file with arrays samples (n, h, w, c), float in [-1, 1], and labels (n,); or a study's folder of samples."""
    checkpoint: str | None = None
    """Network to sample from instead: a bundled name, a network file, or the directory of a training run."""
    out: Path = Path("card")
    """Directory that the card is written to."""
    data: str = "fashion-mnist"
    """Real images: split train for the judge and the nearest neighbours, split test held out."""
    count: int = 10000
    """Samples drawn from the checkpoint, the same number of each class."""
    steps: int = 18
    """Heun steps of each sample drawn."""
    epochs: int = 12
    """Epochs of the judging network."""
    seed: int = 0
    """Seed of every draw."""

    def __post_init__(self) -> None:
        check_options(self, count=1, steps=2, epochs=1, seed=0)


def measure(
    samples: np.ndarray,
    labels: np.ndarray,
    train: ImageSet,
    heldout: ImageSet,
    key: Key,
    *,
    epochs: int = 12,
    block_size: int = 500,
    say: Callable[[str], object] = lambda text: None,
) -> dict[str, Any]:
    """Every number of the card, as plain JSON values.

    Args:
        samples: (n, h, w, c) generated images, in the range of the real ones.
        labels: (n,) the class that each was asked for.
        train: the training images of the model, which also train the judge.
        heldout: images that neither has seen.
        key: of the judge, the blocks, the bootstraps and the choice of real images for the reference column.
        epochs: of the judge.
        block_size: rows of a KID block; smaller where there are fewer than four blocks.
        say: told what is going on.

    Returns:
        ``samples`` and ``reference`` (real training images, as many of each class): the columns of the card;
        ``checks``: each requirement with its value and whether it holds; ``class_names`` and counts.

    Raises:
        InputError: shapes or labels that do not fit, or non-finite samples.
    """
    classes = len(heldout.class_names)
    require(samples.shape[1:] == heldout.images.shape[1:], "samples.shape", samples.shape, str(heldout.images.shape))
    require(labels.shape == (len(samples),), "labels.shape", labels.shape, f"one label for each of {len(samples)}")
    require(labels.min() >= 0 and labels.max() < classes, "labels", (labels.min(), labels.max()), f"0 to {classes - 1}")
    require(bool(np.isfinite(samples).all()), "samples", "non-finite", "finite")
    samples = samples.astype(np.float32)

    say(f"training the judge on {len(train)} images")
    judge = train_convnet(train.images, train.labels, stream(key, "judge"), epochs=epochs, classes=classes)
    chosen = _same_classes(train, labels, stream(key, "reference"))
    # The judge has been fitted to the reference images, so its accuracy on them says nothing: the held-out one counts.
    heldout_accuracy = _plain(proportion(judge.predict(heldout.images) == heldout.labels))
    columns = {}
    for name, images, image_labels, rest in (
        ("samples", samples, labels, train.images),
        ("reference", train.images[chosen], train.labels[chosen], np.delete(train.images, chosen, axis=0)),
    ):
        say(f"measuring {len(images)} images: {name}")
        # The reference images are looked up among the other training images, or each would be its own neighbour.
        columns[name] = _column(images, image_labels, rest, heldout, judge, stream(key, name), block_size)
    return {
        "count": len(samples),
        "class_names": list(heldout.class_names),
        "data": {"train": train.sha256, "heldout": heldout.sha256, "train_images": len(train), "images": len(heldout)},
        "heldout_accuracy": heldout_accuracy,
        **columns,
        "checks": _checks(columns["samples"], heldout_accuracy),
    }


def _same_classes(train: ImageSet, labels: np.ndarray, key: Key) -> np.ndarray:
    """Training rows, of each class as many as the samples have, but at most half of those there are."""
    chosen = []
    for label, count in zip(*np.unique(labels, return_counts=True)):
        rows = np.flatnonzero(train.labels == label)
        require(len(rows) >= 4, "training images of a class", len(rows), f"4 or more of class {label}")
        order = np.asarray(jax.random.permutation(stream(key, int(label)), len(rows)))
        chosen.append(rows[order[: min(count, len(rows) // 2)]])
    return np.sort(np.concatenate(chosen))


def _column(
    images: np.ndarray,
    labels: np.ndarray,
    train_images: np.ndarray,
    heldout: ImageSet,
    judge: ConvNet,
    key: Key,
    block_size: int,
) -> dict[str, Any]:
    pixels, real_pixels = extract_features(images), extract_features(heldout.images)
    features, real = extract_features(images, judge.features), extract_features(heldout.images, judge.features)
    block_size = min(block_size, min(len(features), len(real)) // 4)
    size = min(len(features), len(real))  # both manifolds of the same number of rows
    orders = [
        np.asarray(jax.random.permutation(stream(key, "rows", i), len(rows)))[:size]
        for i, rows in enumerate((features, real))
    ]
    precision, recall = precision_recall(features[orders[0]], real[orders[1]])
    neighbours = nearest_neighbours(pixels, extract_features(train_images), real_pixels, stream(key, "neighbours"))
    ratio = variance_ratio(pixels, labels, real_pixels, heldout.labels, stream(key, "variance"))
    return {
        "accuracy": _plain(proportion(judge.predict(images) == labels)),
        "kid_features": _plain(kernel_distance(features, real, stream(key, "kid"), block_size=block_size)),
        "kid_pixels": _plain(kernel_distance(pixels, real_pixels, stream(key, "kid"), block_size=block_size)),
        "precision": _plain(precision),
        "recall": _plain(recall),
        "variance_ratio": _plain(ratio),
        "neighbours": {
            "median": float(np.median(neighbours.sample_distance)),
            "heldout_median": float(np.median(neighbours.heldout_distance)),
            "smallest": float(neighbours.sample_distance.min()),
            "heldout_smallest": float(neighbours.heldout_distance.min()),
            "median_ratio": _plain(neighbours.median_ratio),
            "tail_ratio": _plain(neighbours.tail_ratio),
            "closer": _plain(neighbours.closer),
        },
    }


def _checks(column: dict[str, Any], heldout: dict[str, Any]) -> list[dict[str, Any]]:
    """What is asked of a bundled model. Distances fail where their whole interval is below held-out images'."""
    ratios, neighbours = column["variance_ratio"]["value"], column["neighbours"]
    found = [
        (
            "judge's accuracy on samples minus on held-out images",
            column["accuracy"]["value"] - heldout["value"],
            -0.05,
            0.05,
        ),
        ("smallest variance ratio of a class", min(ratios), 0.8, 1.2),
        ("largest variance ratio of a class", max(ratios), 0.8, 1.2),
        ("upper end of the ratio of median nearest-neighbour distances", neighbours["median_ratio"]["high"], 1.0, None),
        ("upper end of the ratio of first percentiles of distances", neighbours["tail_ratio"]["high"], 1.0, None),
    ]
    return [
        {
            "check": text,
            "value": value,
            "low": low,
            "high": high,
            "holds": bool(value >= low and (high is None or value <= high)),
        }
        for text, value, low, high in found
    ]


def _plain(estimate: Estimate) -> dict[str, Any]:
    numbers = {"value": estimate.value, "se": estimate.standard_error, "low": estimate.low, "high": estimate.high}
    return {name: np.asarray(number, float).tolist() for name, number in numbers.items()}


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
        lines.append(
            f"| {check['check']} | {check['value']:.4g} | {allowed} | {'yes' if check['holds'] else '**no**'} |"
        )
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
    images = sample(
        model.denoiser,
        key,
        np.arange(config.count),
        karras_sigmas(config.steps),
        shape=model.network.shape,
        labels=labels,
        progress=lambda done, total: print(f"\rsamples {done} of {total}", end="", file=sys.stderr, flush=True),
    )
    print(file=sys.stderr)
    return images, labels.astype(np.int32)


def run(config: Config) -> dict[str, Any]:
    """Measure, print what is asked of a bundled model, and write ``card.json``, ``card.md`` and ``grid.png`` in
    ``config.out``.
    """
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
    card = measure(samples, labels, train, heldout, stream(key, "card"), epochs=config.epochs, say=print)
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
        write_atomic(config.out / name, partial(_put, content))
    return card


def _put(content: bytes, file: IO[bytes]) -> None:
    file.write(content)


def grid(samples: np.ndarray, labels: np.ndarray, heldout: ImageSet, columns: int = 10) -> Any:
    """A row a class: the first held-out images, then the first samples."""
    classes = [place for place in range(len(heldout.class_names)) if np.any(labels == place)]
    rows = []
    for place in classes:
        sides = [heldout.images[heldout.labels == place], samples[labels == place]]
        # A class with fewer images than columns repeats them: the figure is a rectangle.
        rows.append(np.concatenate([np.resize(side, (columns, *side.shape[1:])) for side in sides]))
    names = [heldout.class_names[place] for place in classes]
    return image_grid(np.stack(rows), names, ["held-out", "samples"])


def main(argv: list[str] | None = None) -> int:
    """The command line; whatever stops it is one line on standard error, see ``experiments.study.ends``."""

    def command() -> None:
        config = parse_alone(Config, argv, name="model_card")
        run(config)
        print(f"card: {printable(str((config.out / 'card.md').resolve()))}")

    return exit_code(command, "model_card", again="the same command again starts over")


if __name__ == "__main__":
    sys.exit(main())
