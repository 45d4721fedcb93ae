"""How often do the studies' 95 % intervals cover the truth, and how wide are they?

    python -m benchmarks.coverage [--quick] [--only WORD ...] [--json PATH] [--page PATH]

Every method of ``benchmarks/coverage_cases.py`` makes the intervals of many samples of a distribution whose truth is
known, at the sizes that the default presets of the studies use it at.

- *Coverage* is the share of intervals that hold the truth, with its standard error over repeats.
- *Width* is the mean width over that of an honest interval, ``2 z SD``, z the 97.5 % quantile of the normal distribution
  and SD the standard deviation of the estimates over the repeats: above 1, the interval is wider than it need be if the
  spread were known.

``--page`` writes the table into a page between its two marks; without options that is ``docs/statistics.md``.
"""

import dataclasses
import math
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks import provenance
from benchmarks.coverage_cases import CASES, Case, Draws
from benchmarks.page_tables import put, table

PAGE = Path(__file__).parents[1] / "docs" / "statistics.md"
#: What the table stands between.
MARKS = ("<!-- coverage: written by python -m benchmarks.coverage -->", "<!-- end of coverage -->")
_Z = 1.959963984540054


@dataclasses.dataclass(frozen=True)
class Config:
    """What is simulated."""

    repeats: int = 4000
    """Samples of the cheapest cases; those that take long get fewer."""
    only: tuple[str, ...] = ()
    """Words of the methods to simulate; none: all of them."""
    seed: int = 0
    """Seed of the random draws."""
    quick: bool = False
    """400 repeats of the cheapest cases: does it work, no more; the page stays as it is."""
    json: str | None = None
    """File to write the figures to."""
    page: str | None = None
    """Page to write the table into; by default docs/statistics.md, unless --quick or --only is given."""


def summary(draws: Draws) -> dict[str, float]:
    """Coverage, its standard error (of the share with one success and one failure more), and the relative width."""
    covered = (draws.low <= draws.truth) & (draws.truth <= draws.high)
    count, share = len(covered), float(covered.mean())
    smooth = (covered.sum() + 1) / (count + 2)
    honest = 2 * _Z * float(np.std(draws.value - draws.truth, ddof=1))
    return {
        "coverage": share,
        "error": math.sqrt(smooth * (1 - smooth) / count),
        "width": float((draws.high - draws.low).mean()) / honest,
        "repeats": count,
    }


def simulated(case: Case, repeats: int, seed: int = 0) -> dict[str, float]:
    """The summary of a case; its stream of random numbers depends on the seed, its method and its data alone."""
    rng = np.random.default_rng([seed, zlib.crc32(f"{case.method}, {case.data}".encode())])
    return summary(case.simulate(rng, max(repeats // case.cost, 4)))


def rows(results: list[dict[str, Any]]) -> list[str]:
    """The table in Markdown."""
    header = ("method", "data", "used in", "coverage", "width", "repeats")
    found = [
        (
            one["method"], one["data"], one["used"], f"{one['coverage']:.3f} ± {one['error']:.3f}", f"{one['width']:.2f}",
            f"{one['repeats']:,}",
        )
        for one in results
    ]  # fmt: skip
    return table(header, found)


def main(config: Config) -> None:
    """Simulate, print, write the files."""
    chosen = [case for case in CASES if not config.only or any(word in case.method for word in config.only)]
    if not chosen:
        raise SystemExit(
            f"only = {' '.join(config.only)}: must be words of {', '.join({case.method for case in CASES})}"
        )
    results = []
    for case in chosen:
        start = time.perf_counter()
        about = {"method": case.method, "data": case.data, "used": case.used}
        found = simulated(case, 400 if config.quick else config.repeats, config.seed)
        results.append({**about, **found})
        print(
            f"{case.method:38}{case.data:42}{found['coverage']:7.3f} +- {found['error']:.3f}{found['width']:7.2f}"
            f"{found['repeats']:>7}{time.perf_counter() - start:8.1f} s",
            flush=True,
        )
    if config.json:
        provenance.write(config.json, {"config": dataclasses.asdict(config), "results": results})
    page = Path(config.page) if config.page else None if config.quick or config.only else PAGE
    if page is not None:
        origin = provenance.origin()
        made = f"Written by `{origin['command']}`, {origin['day']}; numpy {origin['versions']['numpy']}, scipy {origin['versions']['scipy']}."
        page.write_text(put(page.read_text(), MARKS, [made, "", *rows(results)]))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
