"""How far are generated images from a reference? Frechet distance and KID on features from files.

    python -m experiments.metrics --features generated.npy --reference reference.npz
    python -m experiments.metrics --features pool3.npy --reference fid-refs/cifar10-32x32.npz --inception --count 50000

A file holds one row for each image: features of any network, or the images themselves, whose features are their pixels.
The reference is another such file, or holds the moments of one: an npz with mu and sigma, as EDM publishes for
Inception features. KID needs the reference's rows. A Frechet distance is called FID only where --inception says that
the features are the 2048 pool features of the FID's own Inception network: no file shows that by itself.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dgu.analysis import (
    FeatureMoments,
    PCAFeatures,
    choose_rows,
    extract_features,
    frechet_distance,
    kernel_distance,
    read_features,
    read_statistics,
    write_statistics,
)
from dgu.analysis.quality.frechet import INCEPTION_WIDTH, holds_statistics
from dgu.core.errors import require
from dgu.core.files import write_atomic
from dgu.core.keys import seeded, stream
from experiments.study.command_line import run_command
from experiments.study.guide import Guide
from experiments.study.options import Options, option
from experiments.study.outputs import check_files


@dataclass(frozen=True)
class Config(Options):
    """Measure features of generated images against a reference; prints one line a metric."""

    features: Path
    """npy or npz file of the generated images' features, one row an image; images themselves are taken as pixels."""
    reference: Path
    """Such a file of the reference images, or an npz file with their moments mu and sigma."""
    count: int | None = option(None, ge=1)
    """Number of generated images to use: a random subset of those in the file; None uses all."""
    pca: int | None = option(None, ge=1)
    """Number of principal components of the reference's rows to use in place of the features; None for the features."""
    inception: bool = False
    """The features are the 2048 pool features of the FID's Inception network: the Frechet distance is then an FID."""
    block_size: int = option(500, ge=2)
    """Rows of each set in a block of KID, which is left out where a set has fewer than two blocks."""
    seed: int = option(0, ge=0)
    """Seed of the random subset and of KID's blocks."""
    out: Path | None = None
    """JSON file that the results are written to."""
    save_reference: Path | None = None
    """npz file that the moments of the reference are written to, for later use as --reference."""


def run(config: Config, show: Callable[[dict[str, Any]], object] = lambda results: None) -> dict[str, Any]:
    """The results by name. They are given to ``show`` first and then written to ``config.out``, so that a file that
    cannot be written loses none of them.
    """
    check_files(
        {name: getattr(config, name) for name in ("out", "save_reference")},
        {name: getattr(config, name) for name in ("features", "reference")},
    )
    key = seeded(config.seed)
    rows = read_features(config.features)
    if holds_statistics(config.reference):
        require(config.pca is None, "pca", config.pca, "left out: the reference holds moments, not rows")
        reference_rows, reference = None, read_statistics(config.reference)
    else:
        reference_rows = read_features(config.reference)
        alike = reference_rows.shape[1:] == rows.shape[1:]
        require(alike, "features.shape", rows.shape, f"(n, *{reference_rows.shape[1:]})")
    rows = choose_rows(rows, config.count, stream(key, "subset"))
    name = "features"
    if reference_rows is not None:
        basis = None if config.pca is None else PCAFeatures.fit(reference_rows, config.pca)
        name = name if basis is None else f"{config.pca} principal components"
        rows, reference_rows = (extract_features(each, basis) for each in (rows, reference_rows))
        reference = FeatureMoments.from_features(reference_rows)
    moments = FeatureMoments.from_features(rows)
    if config.inception:
        width, whole = moments.mean.size, config.pca is None
        require(whole and width == INCEPTION_WIDTH, "inception", f"{name} {width} wide", f"{INCEPTION_WIDTH} wide")
    distance = "FID" if config.inception else "frechet_distance"
    with np.errstate(over="ignore", invalid="ignore"):  # ``_finite`` says so, in one line.
        results: dict[str, Any] = {
            "features": "Inception" if config.inception else name,
            "images": len(rows),
            "width": moments.mean.size,
            distance: _finite(distance, frechet_distance(moments, reference)),
        }
        if reference_rows is not None and min(len(rows), len(reference_rows)) >= 2 * config.block_size:
            ours, theirs = (_finite("KID", each.astype(np.float32)) for each in (rows, reference_rows))
            kid = kernel_distance(ours, theirs, stream(key, "kid"), block_size=config.block_size)
            values = (kid.value, kid.standard_error, kid.low, kid.high)
            results["KID"] = dict(zip(("value", "se", "low", "high"), (_finite("KID", float(each)) for each in values)))
    show(results)
    if config.save_reference is not None:
        write_statistics(config.save_reference, reference)
    if config.out is not None:
        text = json.dumps(results, indent=1) + "\n"
        write_atomic(config.out, lambda file: file.write(text.encode()))
    return results


def _finite(what: str, value: Any) -> Any:
    """``value``, for the metric ``what``; ``FloatingPointError`` where it, or an entry of it, is not finite."""
    if not np.isfinite(value).all():
        raise FloatingPointError(
            f"{what} is not finite: the features are too large for it; divide both sets by a number"
        )
    return value


GUIDE = Guide(
    examples={
        "--features generated.npy --reference reference.npz": "Frechet distance and KID of features in two files.",
        "--features pool3.npy --reference fid-refs/cifar10-32x32.npz --inception --count 50000": "The FID, of features "
        "of the Inception network.",
    }
)


def _show(results: dict[str, Any]) -> None:
    for name, value in results.items():
        if isinstance(value, dict):
            value = f"{value['value']:.6g} [{value['low']:.6g}, {value['high']:.6g}]"
        print(f"{name}: {value:.8g}" if isinstance(value, float) else f"{name}: {value}", flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; ``argv`` is that of the process by default."""
    run_command(Config, lambda config: run(config, _show), name="metrics", guide=GUIDE, argv=argv)


if __name__ == "__main__":
    main()
