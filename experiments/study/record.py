"""The record of declarations: what each claim of a study tested, and how its interval was made, when it was first run.

``experiments/STUDY/declarations.toml`` holds an entry for every claim with the options of the default preset, which is
never changed: a claim whose test is another now must say so in its ``changed``, and one whose interval is made in
another way now is told of by the report itself. ``python -m experiments.study.declarations`` adds new claims.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dgu.core.errors import InputError
from experiments.study.claims import AllOf, Bound, Claim, Each, Test
from experiments.study.judged import JudgedClaim

if TYPE_CHECKING:
    from dgu.analysis.stats.estimates import Estimate

#: The folder of the studies.
HOME = Path(__file__).parents[1]


@dataclass(frozen=True)
class Declaration:
    """The first declaration of a claim.

    Attributes:
        test: its test with thresholds, in words.
        interval: how its interval was made, ``Estimate.method`` of each part; empty while no run has told.
    """

    test: str
    interval: tuple[str, ...] = ()


def record_of(study: str, home: Path = HOME) -> dict[str, Declaration]:
    """The record of a study by claim; empty where it has none.

    Raises:
        InputError: an entry has other fields than ``Declaration``.
    """
    file = home / study / "declarations.toml"
    if not file.exists():
        return {}
    try:
        return {
            name: Declaration(entry.pop("test"), tuple(entry.pop("interval", ())), **entry)
            for name, entry in tomllib.loads(file.read_text()).items()
        }
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{file}: {error}: each entry must have a test and may have an interval") from error


def in_words(test: Test | Each | AllOf) -> str:
    """A test with its thresholds, such as ``"each at least 0.9"``; those that are functions of the estimate at one
    fixed estimate.
    """
    if isinstance(test, AllOf):
        return f"all of: {'; '.join(f'{part.id} {in_words(part.test)}' for part in test.claims)}"
    if isinstance(test, Each):
        return f"each {in_words(test.test)}"
    limit = test.max_standard_error
    undecided = "" if limit is None else f", standard error at most {limit:.6g}"
    return f"{test.kind} {', '.join(map(_bound, test.bounds))}{undecided}"


def _bound(bound: Bound) -> str:
    if not callable(bound):
        return f"{bound:.6g}"
    return f"a function of the estimate that is {float(bound(_probe())):.6g} at 1 +- 0.25 of 10"


def _probe() -> "Estimate":
    from dgu.analysis.stats.estimates import Estimate

    return Estimate(1.0, 0.5, 1.5, n=10, standard_error=0.25)


def intervals(claim: JudgedClaim) -> tuple[str, ...]:
    """How the intervals of a claim, or of its parts, were made, as far as it is named."""
    if claim.parts:
        return tuple(sorted({name for part in claim.parts for name in intervals(part)}))
    return (claim.method,) if claim.method else ()


def compared(claims: Sequence[JudgedClaim], record: dict[str, Declaration]) -> list[JudgedClaim]:
    """The claims of a run; one whose interval is not made as its record says, without having said so, says it now."""
    return [_compared(claim, record.get(claim.id)) for claim in claims]


def _compared(claim: JudgedClaim, first: Declaration | None) -> JudgedClaim:
    if first is None or not first.interval or claim.changed:
        return claim
    other = [name for name in intervals(claim) if name not in first.interval]
    if not other:
        return claim
    now, before = "; ".join(other), "; ".join(first.interval)
    return replace(claim, changed=f"its interval was declared as made by “{before}”, and is made by “{now}” here.")


def complaints(study: str, claims: Sequence[Claim], record: dict[str, Declaration]) -> list[str]:
    """What keeps the declared claims of a study from being those of its record, in a line each."""
    found = []
    for claim in claims:
        words, first = in_words(claim.test), record.get(claim.id)
        if first is None:
            found.append(
                f"{study}/{claim.id}: must be in declarations.toml (python -m experiments.study.declarations adds it)"
            )
        elif words != first.test and not claim.changed:
            found.append(
                f"{study}/{claim.id}: test = {words!r}: must be {first.test!r}, as declared before the first run, or "
                "the claim must say in `changed` what changed, when and why"
            )
    return found


def added(
    claims: Sequence[Claim], judged: Sequence[JudgedClaim], record: dict[str, Declaration]
) -> dict[str, Declaration]:
    """The record with the claims that it lacks, and with the intervals that no run had told before; what it has stays.

    Args:
        claims: those declared.
        judged: those of a run, which tell how their intervals were made; there may be none.
        record: the record so far.
    """
    told = {claim.id: intervals(claim) for claim in judged}
    new = dict(record)
    for claim in claims:
        first = record.get(claim.id, Declaration(in_words(claim.test)))
        new[claim.id] = first if first.interval else replace(first, interval=told.get(claim.id, ()))
    return new
