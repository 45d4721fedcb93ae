"""Have samples the tails of the reference? Lipschitz functions of both, and the test of Gaussian tails."""

from typing import Any

import numpy as np

from dgu.core.keys import seeded, stream
from experiments.audit_parts.common import coordinates, packed, text, unpacked
from experiments.audit_parts.images import Sets
from experiments.study.judged import JudgedClaim
from experiments.study.report import FigureEntry, Section, Table
from experiments.study.run_directory import RunDirectory

CLAIM_IDS = ("audit-tails",)
FIGURE_FILES = ("figures/tails.png",)
#: Ratios of sub-Gaussian norms that count as equal, images of each set looked at, and random projections and coordinates.
BOUNDS, MOST, PROJECTIONS, COORDINATES = (0.8, 1.25), 4000, 6, 3
#: Null sets of the test for tails heavier than Gaussian.
DRAWS = 99


def section(config: Any, sets: Sets, directory: RunDirectory) -> Section:
    """Sub-Gaussian norms of the functions on samples over those on the reference, and held-out images' beside."""
    from dgu import plots

    found = directory.stage("tails", lambda: _measure(config, sets))
    names = [str(name) for name in found["names"]]
    parts, ratios = [], {}
    for column in ("samples", "held"):
        ratios[column] = _ratios(found[f"{column}.psi2"], found["reference.psi2"])
    for place, (name, (value, low, high)) in enumerate(zip(names, ratios["samples"].tolist())):
        parts.append(
            JudgedClaim.within(id=f"function-{place}", paper="own", figure="", unit="", value=value, interval=(low, high),
                         low=BOUNDS[0], high=BOUNDS[1], statement=f"sub-Gaussian norm of {name}, over the reference's")
        )  # fmt: skip
    claim = JudgedClaim.all_of(parts, id=CLAIM_IDS[0], paper="own", figure="",
                         statement="Lipschitz functions of the samples have the sub-Gaussian norms that they have on the reference.")  # fmt: skip
    figure = plots.interval_dots(
        names,
        {"samples": ratios["samples"], "held out": ratios["held"]},
        quantity="sub-Gaussian norm over the reference's",
        marks={"the reference": 1.0},
    )
    directory.save_figure(FIGURE_FILES[0], figure)
    p = {name: float(found[f"{name}.p_value"]) for name in ("samples", "reference")}
    low, high = ratios["samples"][:, 0].min(), ratios["samples"][:, 0].max()
    word = {"supported": "are", "not supported": "are not all", "undecided": "are not shown to be all"}[claim.verdict]
    answer = (
        f"The tails of the samples {word} those of the reference: over {len(names)} functions (norm, projections, pixels, ...) the "
        f"sub-Gaussian norm is {low:.2f} to {high:.2f} times the reference's. Tails heavier than those of a Gaussian with the same "
        f"moments: p = {p['samples']:.2g} for the samples, {p['reference']:.2g} for the reference (the least that {DRAWS} null sets "
        f"can give is {1 / (DRAWS + 1):.2g})."
    )
    rows = []
    for place, name in enumerate(names):
        cells = [
            text(unpacked(found[f"{column}.{what}"][:, place]))
            for what in ("psi2", "kurtosis")
            for column in ("samples", "reference")
        ]
        # Of values that crowd at a bound the largest deviations are equal, and there is no tail to have an index.
        hill = [unpacked(found[f"{column}.hill"][:, place]) for column in ("samples", "reference")]
        cells += [text(each) if each.value < 1000 else "bounded" for each in hill]
        rows.append((name, *cells))
    header = (
        "function",
        "psi_2, samples",
        "reference",
        "excess kurtosis, samples",
        "reference",
        "Hill index, samples",
        "reference",
    )
    metrics = {
        "functions": names,
        "ratios": ratios,
        "p_values": p,
        **{
            f"{column}.{what}": found[f"{column}.{what}"]
            for column in ("samples", "reference", "held")
            for what in ("psi2", "kurtosis", "hill")
        },
    }
    caption = (
        "Sub-Gaussian norm of each Lipschitz function on samples and on held-out images, over that on the reference."
    )
    return Section(
        "Tails",
        answer,
        [claim],
        [FigureEntry(FIGURE_FILES[0], caption)],
        [Table("Tails of Lipschitz functions", header, rows)],
        metrics,
    )


def _ratios(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(functions, 3): ratio of the values of two packed estimates, with the interval of the log ratio of independent ones."""
    ratio = a[0] / b[0]
    half = 1.959963984540054 * np.hypot(a[1] / a[0], b[1] / b[0])
    return np.stack([ratio, ratio * np.exp(-half), ratio * np.exp(half)], axis=1)


def _measure(config: Any, sets: Sets) -> dict[str, np.ndarray]:
    from dgu.analysis import lipschitz_family, lipschitz_values, tail_estimates, tail_test
    from dgu.analysis.concentration.tails import one_sized

    key = stream(seeded(config.seed), "audit", "tails")
    rng = np.random.default_rng([config.seed, 37])
    together, columns = coordinates(sets)
    size = min(MOST, *map(len, together.values()))
    rows = {name: part[np.sort(rng.permutation(len(part))[:size])] for name, part in together.items()}
    # Pixels that hardly vary, such as the corners of drawings, say nothing; pixels at their bounds crowd there.
    spread = np.min([part.std(axis=0) for part in rows.values()], axis=0)
    lively = np.flatnonzero(spread >= 0.5 * np.median(spread))
    # A pixel that is a fair coin in some set has no tail to describe.
    lively = lively[~np.any([one_sized(part[:, lively]) for part in rows.values()], axis=0)]
    positions = np.sort(rng.permutation(lively)[:COORDINATES])
    family = lipschitz_family(
        stream(key, "family"), rows["reference"].shape[1], projections=PROJECTIONS, coordinates=positions.tolist(), maximum=False,
        anchors=together["reference"].mean(axis=0, keepdims=True),
    )  # fmt: skip
    found: dict[str, Any] = {"names": np.asarray(family.names), "size": size, "columns": columns}
    for name, part in rows.items():
        values = np.asarray(lipschitz_values(family, part))
        estimates = tail_estimates(values, stream(key, "bootstrap", name))
        found |= {f"{name}.{what}": packed(getattr(estimates, what)) for what in ("psi2", "kurtosis", "hill")}
        if name != "held":
            found[f"{name}.p_value"] = tail_test(part, family, stream(key, "test", name), draws=DRAWS).p_value
    return found
