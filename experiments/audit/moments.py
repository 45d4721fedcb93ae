"""Do samples and reference have the same mean, the same second moments and the same spectra?"""

from typing import Any

import numpy as np

from dgu import analysis, plots
from dgu.analysis.moments.spectra import covariance_spectrum
from dgu.analysis.stats.estimates import Estimate
from dgu.core.keys import stream
from dgu.core.typing import Key
from experiments.audit.common import (
    MOST_COLUMNS,
    OWN,
    coordinates,
    key_of,
    part_by_part,
    plain,
    text,
    two_columns,
)
from experiments.audit.subject import Options, Subject
from experiments.decoding import pictures
from experiments.study import Claim, Cost, Figure, Findings, Part, Table, at_most, each, within
from experiments.study.claims import judge

FIGURES = (
    Figure(
        "moments",
        "Mean image and standard deviation of each pixel, of samples and of the reference, and four times their "
        "difference (grey: no difference).",
    ),
    Figure(
        "spectra",
        "Covariance eigenvalues of equally many images of each set, and their ratio to those of the reference; also "
        "class by class if there are labels.",
    ),
)
#: Names of the sets in figures, and in what is stored.
ARMS = {"samples": "samples", "reference": "reference", "held out": "held"}
#: Sets that are compared with the reference.
SIDES = ("samples", "held")
#: Quantiles of the rank at which eigenvalues are compared, and the ratios that count as equal.
QUANTILES, BOUNDS = (0.0, 0.25, 0.5, 0.75, 0.9), (0.8, 1.25)
#: Bound on the squared distances, relative to the reference's own size: 10 % of it in the norm.
RELATIVE = 0.01
#: Images of each class and set that the class-wise spectra and variances use, fewest of a class, classes drawn, and
#: draws of the bootstrap.
_PER_CLASS, _FEWEST, _PANELS, _REPLICATES = 1000, 20, 10, 200
#: Blocks that the jackknife of the spectra leaves out.
_BLOCKS = 10

MEAN = Claim(
    "audit-mean",
    "The mean image of the samples differs from that of the reference images by at most a tenth of a standard "
    f"deviation: their squared distance, relative to the reference's total variance, is at most {RELATIVE:g}.",
    at_most(RELATIVE),
    one_network=True,
)
SECOND = Claim(
    "audit-second-moments",
    "The second moments of the samples, about the reference's mean, differ from those of the reference images by at "
    "most a tenth of the Frobenius norm of their covariance: the squared distance, relative to the squared norm, is at "
    f"most {RELATIVE:g}.",
    at_most(RELATIVE),
    one_network=True,
)
SPECTRUM = Claim(
    "audit-spectrum",
    f"The covariance eigenvalues of the samples are {BOUNDS[0]:g} to {BOUNDS[1]:g} times those of equally many "
    "reference images, at ranks from the first to nine tenths down the spectrum, one part each (value: the ratio, "
    "samples over reference).",
    each(within(*BOUNDS)),
    one_network=True,
)


def report(config: Options, subject: Subject, found: dict[str, np.ndarray]) -> Findings:
    """Distances of the first two moments, spectra, and how the held-out images compare."""
    columns = str(found["columns"])
    mean, second, variance = (
        {side: Estimate.unpacked(found[f"{side}.{name}"]) for side in SIDES} for name in ("mean", "second", "variance")
    )
    spectrum = {
        side: Estimate.unpacked(found[f"{side}.ratios"], method="jackknife", freedom=_BLOCKS - 1) for side in SIDES
    }
    ratios = np.asarray(spectrum["samples"].value)
    by_rank = {
        f"rank-{rank + 1}": f"Eigenvalue number {rank + 1} of the samples' covariance over that of the reference's."
        for rank in found["samples.ranks"].tolist()
    }
    verdicts = [judge(claim, one["samples"], OWN).verdict for claim, one in ((MEAN, mean), (SECOND, second))]
    same = all(verdict == "supported" for verdict in verdicts)
    rows = {
        "squared distance of means / total variance": (mean["samples"], mean["held"]),
        "squared distance of second moments / squared norm of the covariance": (second["samples"], second["held"]),
        "total variance / reference's": (variance["samples"], variance["held"]),
    }
    return Findings(
        f"The first two moments are {'those of the reference' if same else 'not shown to be those of the reference'}: "
        f"the mean images differ by {_root(mean['samples'])} % of a standard deviation in the root mean square "
        f"(held-out images: {_root(mean['held'])} %), the second moments by {_root(second['samples'])} % of the "
        f"covariance's norm (held-out images: {_root(second['held'])} %); the total variance is "
        f"{text(variance['samples'])} times the reference's. Eigenvalues are {ratios.min():.2f} to {ratios.max():.2f} "
        "times the reference's.",
        claims={
            MEAN.id: mean["samples"],
            SECOND.id: second["samples"],
            SPECTRUM.id: part_by_part(spectrum["samples"], by_rank),
        },
        figures={"moments": _images(subject), "spectra": (_spectra(found), f"The covariances are those of {columns}.")},
        tables=[two_columns(f"First two moments against the reference ({columns})", rows), *_by_class(found)],
        metrics={
            "columns": columns,
            "mean": plain(mean),
            "second": plain(second),
            "variance": plain(variance),
            "spectrum": plain(spectrum),
            "ranks": found["samples.ranks"],
        },
    )


def _by_class(found: dict[str, np.ndarray]) -> list[Table]:
    """The variance of each class, if there are labels."""
    if "class_variance" not in found:
        return []
    samples, held = (Estimate.unpacked(stored) for stored in found["class_variance"])
    rows = dict(zip(map(str, found["classes"]), zip(samples, held)))
    return [two_columns("Total variance of each class / reference's", rows)]


def _root(squared: Estimate) -> str:
    """A squared relative distance as a percentage of its root: ``value [low, high]``."""
    value, low, high = 100 * np.sqrt(np.maximum(squared.stacked(), 0.0))
    return f"{value:.2g} [{low:.2g}, {high:.2g}]"


def moments(subject: Subject, seed: int) -> dict[str, np.ndarray]:
    """Distances of the moments of samples and held-out images to the reference's, and spectra of all three."""
    rows, columns = coordinates(subject)
    key = key_of(seed, "moments")
    size = min(map(len, rows.values()))
    found: dict[str, Any] = {"columns": columns}
    for side in SIDES:
        distances = analysis.moment_distances(rows[side], rows["reference"], stream(key, side))
        for name in ("mean", "second"):
            found[f"{side}.{name}"] = getattr(distances, name).packed()
        found[f"{side}.variance"] = distances.variance_ratio.packed()
        # Equally many rows of every set: sample eigenvalues are spread by their number.
        spectra = analysis.compare_spectra(
            rows[side][:size], rows["reference"], stream(key, side), quantiles=QUANTILES, blocks=_BLOCKS
        )
        found |= {
            f"{side}.ratios": spectra.ratios.packed(),
            f"{side}.ranks": spectra.ranks,
            f"{side}.eigenvalues": spectra.eigenvalues,
            f"{side}.reference": spectra.reference_eigenvalues,
        }
    return found | _class_moments(subject, rows, key)


def _class_moments(subject: Subject, rows: dict[str, np.ndarray], key: Key) -> dict[str, Any]:
    """Variances and spectra class by class; nothing without labels, or with fewer than two classes of enough images."""
    labels = {name: images.labels for name, images in subject.compared.items() if images.labels is not None}
    if not subject.class_names or len(labels) < len(rows):
        return {}
    classes = range(len(subject.class_names))
    kept = [k for k in classes if min(int((of == k).sum()) for of in labels.values()) >= _FEWEST]
    if len(kept) < 2:
        return {}
    first = {name: _of_classes(of, kept) for name, of in labels.items()}
    reference = rows["reference"][first["reference"]], labels["reference"][first["reference"]]
    ratios = [
        analysis.variance_ratio(
            rows[side][first[side]],
            labels[side][first[side]],
            *reference,
            stream(key, "class", side),
            replicates=_REPLICATES,
        )
        for side in SIDES
    ]
    found: dict[str, Any] = {
        "class_variance": np.stack([one.packed() for one in ratios]),
        "classes": np.asarray([subject.class_names[k] for k in kept]),
    }
    for place, k in enumerate(kept[:_PANELS]):
        members = {name: np.flatnonzero(of == k) for name, of in labels.items()}
        count = min(_PER_CLASS, min(map(len, members.values())))
        for name, chosen in members.items():
            spectrum = covariance_spectrum(rows[name][chosen[:count]], method="eigh", dtype="float64")
            found[f"class.{place}.{name}"] = spectrum
    return found


def _of_classes(labels: np.ndarray, kept: list[int]) -> np.ndarray:
    """The first rows of each class."""
    return np.sort(np.concatenate([np.flatnonzero(labels == k)[:_PER_CLASS] for k in kept]))


def _images(subject: Subject) -> Any:
    """Means and standard deviations of the pixels as images."""
    rest = subject.reference.pixels[subject.rest]
    rows = []
    for statistic in (np.mean, np.std):
        a, b = (statistic(x, axis=0, dtype=np.float64) for x in (subject.samples.pixels, rest))
        level = 0.0 if statistic is np.mean else -1.0  # A deviation of 0 is black.
        rows.append([a + level, b + level, 4 * (a - b)])
    grid = pictures(np.asarray(rows, np.float32))
    return plots.image_grid(grid, ["mean", "std"], ["samples", "reference", "4 x diff."])


def _spectra(found: dict[str, np.ndarray]) -> Any:
    """Spectra of all images, and of each class."""
    together = {
        "samples": found["samples.eigenvalues"],
        "reference": found["samples.reference"],
        "held out": found["held.eigenvalues"],
    }
    panels = [plots.SpectrumPanel("all images", together)]
    for place, title in enumerate(found.get("classes", ())[:_PANELS]):
        of_class = {arm: found[f"class.{place}.{name}"] for arm, name in ARMS.items()}
        panels.append(plots.SpectrumPanel(str(title), of_class))
    same = all(len({len(values) for values in panel.eigenvalues.values()}) == 1 for panel in panels)
    ratios = (("samples", "reference"), ("held out", "reference")) if same else ()
    return plots.spectra(panels, ratios=ratios, columns=4)


def costs(config: Options, subject: Subject) -> list[Cost]:
    """Covariances of each set and their eigenvalues."""
    rows = len(subject.samples) + 2 * len(subject.reference) + len(subject.held)
    columns = min(subject.reference.flat.shape[1], MOST_COLUMNS)
    flop = 2.0 * columns**2 * rows + 400.0 * columns**3
    return [Cost("moments and spectra", 0, flop, subject.memory + 160 * columns**2)]


PART = Part(
    name="moments",
    title="Moments and spectra",
    question="Do samples and reference have the same mean, the same second moments and the same spectra?",
    paper=OWN,
    claims=(MEAN, SECOND, SPECTRUM),
    figures=FIGURES,
    measure=lambda config, subject, run: run.stage("moments", moments, subject, run.seed),
    report=report,
    costs=costs,
)
