"""Do the samples' tails match the reference's? Lipschitz functions of both, and a test for heavy tails."""

from typing import Any

import numpy as np

from dgu import analysis, plots
from dgu.analysis.concentration.tails import one_sized
from dgu.analysis.stats.estimates import Estimate, independent_ratio
from dgu.core.keys import stream
from experiments.audit.common import OWN, coordinates, key_of, part_by_part, text
from experiments.audit.subject import Options, Subject
from experiments.study import Claim, Cost, Figure, Findings, Part, Table, each, within
from experiments.study.claims import judge

FIGURES = (
    Figure(
        "tails",
        "Sub-Gaussian norm of each Lipschitz function on samples and on held-out images, over that on the reference.",
    ),
)
#: Ratios of sub-Gaussian norms that count as equal, images of each set used, and random projections and coordinates.
BOUNDS, MOST, PROJECTIONS, COORDINATES = (0.8, 1.25), 4000, 6, 3
#: Null sets of the test for tails heavier than Gaussian.
DRAWS = 99
#: Names of the sets in what is stored.
SETS = ("samples", "reference", "held")
#: Estimates of each function.
_ESTIMATES = ("psi2", "kurtosis", "hill")
#: Hill indices from here on belong to values that crowd at a bound: their largest deviations are equal, and there is no
#: tail.
_BOUNDED = 1000
CLAIM = Claim(
    "audit-tails",
    "The samples have the tails of the reference images: every 1-Lipschitz function tested (norm, projections, pixels "
    f"and distance; one part each) has {BOUNDS[0]:g} to {BOUNDS[1]:g} times the sub-Gaussian norm on the samples that "
    "it has on the reference (value: the ratio).",
    each(within(*BOUNDS)),
    one_network=True,
)


def report(config: Options, subject: Subject, found: dict[str, np.ndarray]) -> Findings:
    """Sub-Gaussian norms of the functions on samples, and on held-out images, over those on the reference."""
    names = [str(name) for name in found["names"]]
    norms = {side: Estimate.unpacked(found[f"{side}.psi2"]) for side in SETS}
    ratios = {side: independent_ratio(norms[side], norms["reference"]) for side in ("samples", "held")}
    statements = {
        f"function-{place}": f"Sub-Gaussian norm of {name} on the samples over that on the reference."
        for place, name in enumerate(names)
    }
    measured = part_by_part(ratios["samples"], statements)
    verdict = judge(CLAIM, measured, OWN).verdict
    figure = plots.interval_dots(
        names,
        {"samples": ratios["samples"].stacked(), "held out": ratios["held"].stacked()},
        quantity="sub-Gaussian norm over the reference's",
        marks={"the reference": 1.0},
    )
    p = {name: float(found[f"{name}.p_value"]) for name in ("samples", "reference")}
    low, high = np.min(ratios["samples"].value), np.max(ratios["samples"].value)
    word = {"supported": "are", "not supported": "are not all", "undecided": "are not shown to be all"}[verdict]
    return Findings(
        f"The tails of the samples {word} those of the reference: over {len(names)} functions (norm, projections, "
        f"pixels, ...) the sub-Gaussian norm is {low:.2f} to {high:.2f} times the reference's. Tails heavier than "
        f"those of a Gaussian with the same moments: p = {p['samples']:.2g} for the samples, {p['reference']:.2g} for "
        f"the reference (the least that {DRAWS} null sets can give is {1 / (DRAWS + 1):.2g}).",
        claims={CLAIM.id: measured},
        figures={"tails": figure},
        tables=[_table(names, found)],
        metrics={
            "functions": names,
            "ratios": {side: each_ratio.stacked() for side, each_ratio in ratios.items()},
            "p_values": p,
            **{f"{side}.{what}": found[f"{side}.{what}"] for side in SETS for what in _ESTIMATES},
        },
    )


def _table(names: list[str], found: dict[str, np.ndarray]) -> Table:
    titles = {"psi2": "psi_2", "kurtosis": "excess kurtosis", "hill": "Hill index"}
    columns = []
    for what in _ESTIMATES:
        for side in ("samples", "reference"):
            every = Estimate.unpacked(found[f"{side}.{what}"])
            columns.append([text(one) if what != "hill" or one.value < _BOUNDED else "bounded" for one in every])
    header = [heading for what in _ESTIMATES for heading in (f"{titles[what]}, samples", "reference")]
    return Table("Tails of Lipschitz functions", ("function", *header), list(zip(names, *columns)))


def estimates(subject: Subject, seed: int) -> dict[str, np.ndarray]:
    """Tail estimates of random projections, coordinates, norm and distance on each set, and the test of two of them."""
    key = key_of(seed, "tails")
    rng = np.random.default_rng([seed, 37])
    together, columns = coordinates(subject)
    size = min(MOST, *map(len, together.values()))
    rows = {name: part[np.sort(rng.permutation(len(part))[:size])] for name, part in together.items()}
    # Pixels that hardly vary, such as the corners of drawings, say nothing; pixels at their bounds crowd there.
    spread = np.min([part.std(axis=0) for part in rows.values()], axis=0)
    lively = np.flatnonzero(spread >= 0.5 * np.median(spread))
    # A pixel that is a fair coin in some set has no tail to describe.
    lively = lively[~np.any([one_sized(part[:, lively]) for part in rows.values()], axis=0)]
    positions = np.sort(rng.permutation(lively)[:COORDINATES])
    family = analysis.lipschitz_family(
        stream(key, "family"),
        rows["reference"].shape[1],
        projections=PROJECTIONS,
        coordinates=positions.tolist(),
        maximum=False,
        anchors=together["reference"].mean(axis=0, keepdims=True),
    )
    found: dict[str, Any] = {"names": np.asarray(family.names), "size": size, "columns": columns}
    for name, part in rows.items():
        values = np.asarray(analysis.lipschitz_values(family, part))
        tail = analysis.tail_estimates(values, stream(key, "bootstrap", name))
        found |= {f"{name}.{what}": getattr(tail, what).packed() for what in _ESTIMATES}
        if name != "held":
            found[f"{name}.p_value"] = analysis.tail_test(part, family, stream(key, "test", name), draws=DRAWS).p_value
    return found


def costs(config: Options, subject: Subject) -> list[Cost]:
    """The null sets of the test."""
    rows, d = min(len(subject.samples), MOST), subject.reference.flat.shape[1]
    return [Cost("tails", 0, 2.0 * DRAWS * rows * d**2, subject.memory)]


PART = Part(
    name="tails",
    title="Tails",
    question="Do the samples' tails match the reference's?",
    paper=OWN,
    claims=(CLAIM,),
    figures=FIGURES,
    measure=lambda config, subject, run: run.stage("estimates", estimates, subject, run.seed),
    report=report,
    costs=costs,
)
