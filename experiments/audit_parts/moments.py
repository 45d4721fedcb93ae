"""Do samples and reference have the same mean, the same second moments and the same spectra?"""

from typing import Any

import numpy as np

from dgu.core.keys import seeded, stream
from experiments.audit_parts.common import coordinates, own, packed, plain, text, triples, two_columns, unpacked
from experiments.audit_parts.images import Sets
from experiments.study.judged import JudgedClaim
from experiments.study.report import FigureEntry, Section
from experiments.study.run_directory import RunDirectory

CLAIM_IDS = ("audit-mean", "audit-second-moments", "audit-spectrum")
FIGURE_FILES = ("figures/moments.png", "figures/spectra.png")
#: Names of the sets in figures, and in what is stored.
ARMS = {"samples": "samples", "reference": "reference", "held out": "held"}
#: Quantiles of the rank at which eigenvalues are compared, and the ratios that count as equal.
QUANTILES, BOUNDS = (0.0, 0.25, 0.5, 0.75, 0.9), (0.8, 1.25)
#: Bound on the squared distances, relative to the reference's own size: 10 % of it in the norm.
RELATIVE = 0.01
#: Images of each class and set that the class-wise spectra and variances use, and classes drawn.
_PER_CLASS, _PANELS = 1000, 10


def section(config: Any, sets: Sets, directory: RunDirectory) -> Section:
    """Distances of the first two moments, spectra, and how the held-out images compare."""
    found = directory.stage("moments", lambda: _measure(config, sets))
    what = str(found["columns"])
    mean, second, variance = ({k: unpacked(found[f"{k}.{name}"]) for k in ("samples", "held")}
                              for name in ("mean", "second", "variance"))  # fmt: skip
    spectrum = {k: unpacked(found[f"{k}.ratios"]) for k in ("samples", "held")}
    ranks = found["samples.ranks"]
    bound = f"at most {RELATIVE:g}: a tenth of it in the norm"
    parts = []
    ratios = triples(spectrum["samples"])
    for rank, (value, low, high) in zip(ranks, ratios.tolist()):
        parts.append(
            JudgedClaim.within(id=f"rank-{rank + 1}", paper="own", figure="", unit="", value=value, interval=(low, high),
                         low=BOUNDS[0], high=BOUNDS[1], statement=f"eigenvalue number {rank + 1} over the reference's")
        )  # fmt: skip
    claims = [
        own("at_most", mean["samples"], CLAIM_IDS[0], f"The squared distance of the mean images, relative to the reference's "
            f"total variance, is {bound}.", threshold=RELATIVE),
        own("at_most", second["samples"], CLAIM_IDS[1], "The squared distance of the second moments, relative to the squared "
            f"norm of the reference's covariance, is {bound}.", threshold=RELATIVE),
        JudgedClaim.all_of(parts, id=CLAIM_IDS[2], paper="own", figure="",
                     statement="Covariance eigenvalues of equally many samples and reference images agree at all ranks looked at."),
    ]  # fmt: skip
    _figures(sets, found, directory)
    same = all(claim.verdict == "supported" for claim in claims[:2])
    answer = (
        f"The first two moments are {'those of the reference' if same else 'not shown to be those of the reference'}: the "
        f"mean images differ by {_root(mean['samples'])} % of a standard deviation in the root mean square (held-out images: "
        f"{_root(mean['held'])} %), the second moments by {_root(second['samples'])} % of the covariance's norm (held-out images: "
        f"{_root(second['held'])} %); the total variance is {text(variance['samples'])} times the reference's. Eigenvalues "
        f"are {ratios[:, 0].min():.2f} to {ratios[:, 0].max():.2f} times the reference's."
    )
    rows = {
        "squared distance of means / total variance": (mean["samples"], mean["held"]),
        "squared distance of second moments / squared norm of the covariance": (second["samples"], second["held"]),
        "total variance / reference's": (variance["samples"], variance["held"]),
    }
    tables = [two_columns(f"First two moments against the reference ({what})", rows)]
    if "class_variance" in found:
        each = found["class_variance"]
        by_class = {
            str(name): tuple(unpacked(each[side][:, place]) for side in range(2))
            for place, name in enumerate(found["classes"])
        }
        tables.append(two_columns("Total variance of each class / reference's", by_class))
    metrics = {
        "columns": what,
        "mean": {k: plain(v) for k, v in mean.items()},
        "second": {k: plain(v) for k, v in second.items()},
        "variance": {k: plain(v) for k, v in variance.items()},
        "spectrum": {k: plain(v) for k, v in spectrum.items()},
        "ranks": ranks,
    }
    figures = [
        FigureEntry(FIGURE_FILES[0], "Mean image and standard deviation of each pixel of samples and reference, and four times "
                    "their difference (grey: none)."),
        FigureEntry(FIGURE_FILES[1], f"Covariance eigenvalues ({what}) of equally many images of each set, and their ratio to the "
                    "reference's; class by class where there are labels."),
    ]  # fmt: skip
    return Section("Moments and spectra", answer, claims, figures, tables, metrics)


def _root(squared: Any) -> str:
    """A squared relative distance as a percentage of its root: ``value [low, high]``."""
    value, low, high = (100 * float(np.sqrt(max(float(x), 0.0))) for x in (squared.value, squared.low, squared.high))
    return f"{value:.2g} [{low:.2g}, {high:.2g}]"


def _measure(config: Any, sets: Sets) -> dict[str, np.ndarray]:
    from dgu.analysis import compare_spectra, moment_distances, variance_ratio
    from dgu.analysis.moments.spectra import covariance_spectrum

    rows, what = coordinates(sets)
    key = stream(seeded(config.seed), "audit", "moments")
    size = min(map(len, rows.values()))
    found: dict[str, Any] = {"columns": what}
    for name in ("samples", "held"):
        distances = moment_distances(rows[name], rows["reference"], stream(key, name))
        for field in ("mean", "second"):
            found[f"{name}.{field}"] = packed(getattr(distances, field))
        found[f"{name}.variance"] = packed(distances.variance_ratio)
        # Of every set as many rows: sample eigenvalues are spread by their number.
        spectra = compare_spectra(rows[name][:size], rows["reference"], stream(key, name), quantiles=QUANTILES)
        found |= {
            f"{name}.ratios": packed(spectra.ratios),
            f"{name}.ranks": spectra.ranks,
            f"{name}.eigenvalues": spectra.eigenvalues,
            f"{name}.reference": spectra.reference_eigenvalues,
        }
    labelled = {"samples": sets.samples, "reference": sets.reference.rows(sets.rest), "held": sets.held}
    if not sets.class_names or any(images.labels is None for images in labelled.values()):
        return found
    kept = [k for k in range(len(sets.class_names))
            if min(int((images.labels == k).sum()) for images in labelled.values()) >= 20]  # fmt: skip
    if len(kept) < 2:
        return found
    chosen = {name: _of_classes(images.labels, kept) for name, images in labelled.items()}
    reference = rows["reference"][chosen["reference"]], labelled["reference"].labels[chosen["reference"]]
    ratios = [
        variance_ratio(
            rows[name][chosen[name]],
            labelled[name].labels[chosen[name]],
            *reference,
            stream(key, "class", name),
            replicates=200,
        )
        for name in ("samples", "held")
    ]
    found["class_variance"] = np.stack([packed(each) for each in ratios])
    found["classes"] = np.asarray([sets.class_names[k] for k in kept])
    for place, k in enumerate(kept[:_PANELS]):
        members = {name: np.flatnonzero(images.labels == k) for name, images in labelled.items()}
        count = min(_PER_CLASS, min(map(len, members.values())))
        for name, of in members.items():
            found[f"class.{place}.{name}"] = covariance_spectrum(rows[name][of[:count]], method="eigh", dtype="float64")
    return found


def _of_classes(labels: Any, kept: list[int]) -> np.ndarray:
    """The first rows of each class."""
    return np.sort(np.concatenate([np.flatnonzero(labels == k)[:_PER_CLASS] for k in kept]))


def _figures(sets: Sets, found: dict[str, np.ndarray], directory: RunDirectory) -> None:
    from dgu import plots

    rest = sets.reference.pixels[sets.rest]
    rows = []
    for statistic in (np.mean, np.std):
        a, b = (statistic(x, axis=0, dtype=np.float64) for x in (sets.samples.pixels, rest))
        level = 0.0 if statistic is np.mean else -1.0  # a deviation of 0 is black
        rows.append([a + level, b + level, 4 * (a - b)])
    grid = np.asarray(rows, np.float32)
    if grid.shape[-1] not in (1, 3):
        grid = grid[..., :1]
    columns = ["samples", "reference", "4 x diff."]
    directory.save_figure("figures/moments.png", plots.image_grid(grid, ["mean", "std"], columns))
    panels = [
        plots.SpectrumPanel(
            "all images",
            {
                "samples": found["samples.eigenvalues"],
                "reference": found["samples.reference"],
                "held out": found["held.eigenvalues"],
            },
        )
    ]
    for place, title in enumerate(found.get("classes", ())[:_PANELS]):
        panels.append(
            plots.SpectrumPanel(
                str(title),
                {arm: found[f"class.{place}.{name}"] for arm, name in ARMS.items()},
            )
        )
    same = all(len({len(values) for values in panel.eigenvalues.values()}) == 1 for panel in panels)
    directory.save_figure(
        "figures/spectra.png",
        plots.spectra(
            panels,
            ratios=(("samples", "reference"), ("held out", "reference")) if same else (),
            columns=4,
        ),
    )
