"""How far are samples from the reference on features, and which part of each set do the other's images reach?"""

from typing import Any

import numpy as np

from dgu.core.keys import seeded, stream
from experiments.audit_parts.common import own, packed, plain, ratio, text, triples, two_columns, unpacked
from experiments.audit_parts.images import Sets
from experiments.study.report import FigureEntry, Section
from experiments.study.run_directory import RunDirectory

CLAIM_IDS = ("audit-frechet", "audit-precision", "audit-coverage")
FIGURE_FILES = ("figures/fidelity.png",)
MEASURES = ("precision", "recall", "density", "coverage")
#: Neighbours of precision and recall, and of density and coverage: their authors' choices.
NEAREST, NEAREST_BALLS = 3, 5


def section(config: Any, sets: Sets, directory: RunDirectory) -> Section:
    """Frechet distance, KID, precision, recall, density and coverage, for samples and for held-out images."""
    from dgu import plots
    from dgu.analysis import expected_coverage

    found = directory.stage("features", lambda: _measure(config, sets))
    what = str(found["features"])
    values = {
        name: {column: unpacked(found[f"{column}.{name}"]) for column in ("samples", "held")}
        for name in ("frechet", "kid", *MEASURES)
    }
    size, scale = int(found["size"]), float(found["variance"])
    excess = _less(values["frechet"]["samples"], values["frechet"]["held"], scale)
    ratios = {name: ratio(values[name]["samples"], values[name]["held"]) for name in ("precision", "coverage")}
    claims = [
        own("at_most", excess, CLAIM_IDS[0], "The Frechet distance of samples less that of as many held-out images, relative to the "
            "total variance of the features, is small.", threshold=0.05),
        own("at_least", ratios["precision"], CLAIM_IDS[1], "Samples lie on the manifold of the reference nearly as often as "
            "held-out images do (ratio of precisions).", threshold=0.9),
        own("at_least", ratios["coverage"], CLAIM_IDS[2], "Samples reach nearly as much of the reference as as many held-out images "
            "do (ratio of coverages).", threshold=0.9),
    ]  # fmt: skip
    dots = {
        column: np.stack([triples(values[name][key]) for name in MEASURES])
        for column, key in (("samples", "samples"), ("held out", "held"))
    }
    figure = plots.interval_dots(MEASURES, dots, quantity=f"share (density: ratio), {size:,} images of each set")
    directory.save_figure(FIGURE_FILES[0], figure)
    verdict = "nearly as much as" if claims[2].verdict == "supported" else "less than, or not shown to be as much as,"
    answer = (
        f"On {what}, the Frechet distance to the reference is {text(values['frechet']['samples'])} (held-out images: "
        f"{text(values['frechet']['held'])}) and KID {text(values['kid']['samples'])} (held-out: {text(values['kid']['held'])}). "
        f"{text(values['precision']['samples'])} of the samples lie among the reference images (held-out: "
        f"{text(values['precision']['held'])}), and samples reach {text(values['coverage']['samples'])} of the reference: "
        f"{verdict} held-out images do ({text(values['coverage']['held'])})."
    )
    rows = {name: (values[name]["samples"], values[name]["held"]) for name in values}
    rows = {{"frechet": "Frechet distance", "kid": "KID"}.get(name, name): row for name, row in rows.items()}
    tables = [two_columns(f"On {what}; {size:,} images of each set", rows)]
    metrics = {
        "features": what,
        "images": size,
        "expected_coverage": expected_coverage(size, size, min(NEAREST_BALLS, size - 1)),
        **{name: {key: plain(each) for key, each in both.items()} for name, both in values.items()},
    }
    caption = "Precision, recall, density and coverage; a perfect model shows what the held-out images show."
    return Section("Fidelity and coverage", answer, claims, [FigureEntry(FIGURE_FILES[0], caption)], tables, metrics)


def _less(a: Any, b: Any, scale: float) -> Any:
    """``(a - b) / scale`` of independent estimates."""
    from dgu.analysis import Estimate

    error = float(np.hypot(a.standard_error, b.standard_error)) / scale
    value = float(a.value - b.value) / scale
    return Estimate(value, error, value - 1.959963984540054 * error, value + 1.959963984540054 * error)


def rows_of(config: Any, sets: Sets) -> tuple[dict[str, np.ndarray], str]:
    """Feature rows of each set, and what they are: the files', or principal components of the reference's pixels."""
    from dgu.analysis import PCAFeatures, extract_features

    rest = sets.reference.rows(sets.rest)
    together = {"samples": sets.samples, "reference": rest, "held": sets.held}
    if sets.samples.features is not None:
        return {name: images.features for name, images in together.items()}, "the features given"  # type: ignore[misc]
    count = min(config.pca, rest.flat.shape[1], len(rest) - 1)
    # From part of a large reference: its leading components need no more.
    basis = PCAFeatures.fit(rest.pixels[: max(20_000, 4 * count)], count)
    rows = {name: extract_features(images.pixels, basis) for name, images in together.items()}
    return rows, f"the first {count} principal components of the reference's pixels"


def _measure(config: Any, sets: Sets) -> dict[str, np.ndarray]:
    from dgu.analysis import density_coverage, frechet_interval, kernel_distance, precision_recall

    rows, what = rows_of(config, sets)
    key = stream(seeded(config.seed), "audit", "features")
    size = min(config.most_features, *map(len, rows.values()))
    rng = np.random.default_rng([config.seed, 23])
    chosen = {name: each[np.sort(rng.permutation(len(each))[:size])] for name, each in rows.items()}
    real = chosen["reference"]
    variance = float(np.var(real.astype(np.float64), axis=0, ddof=1).sum())
    found: dict[str, Any] = {"features": what, "size": size, "variance": variance}
    for name in ("samples", "held"):
        found[f"{name}.frechet"] = packed(frechet_interval(chosen[name], real, stream(key, "frechet")))
        block = min(500, size // 2)
        found[f"{name}.kid"] = packed(kernel_distance(chosen[name], real, stream(key, "kid"), block_size=block))
        pair = precision_recall(chosen[name], real, k=min(NEAREST, size - 1))
        balls = density_coverage(chosen[name], real, k=min(NEAREST_BALLS, size - 1))
        found |= {f"{name}.{measure}": packed(each) for measure, each in zip(MEASURES, (*pair, *balls))}
    return found
