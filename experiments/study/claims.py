"""Claims: what a study sets out to test, declared with its threshold before anything is measured.

A part of a study lists its claims; what it measures for each (an ``Estimate``, or ``NotTested``) is filled in
afterwards, and the verdict is computed from the interval (see ``judged``).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from experiments.study.judged import JudgedClaim
from experiments.study.multiplicity import p_value

if TYPE_CHECKING:  # Which would take JAX along, and keep the command line's help waiting.
    from dgu.analysis.stats.estimates import Estimate

#: A threshold: a number, or a function of the estimate where the tolerance is a multiple of its standard error.
Bound: TypeAlias = float | Callable[["Estimate"], float]


@dataclass(frozen=True)
class Test:
    """The statement that is made about an estimate. Made by ``at_least``, ``at_most``, ``within``, ``equivalent``,
    ``different``.

    Attributes:
        kind: the statement, as ``JudgedClaim.kind`` has it.
        bounds: its thresholds, in the unit of the claim.
        max_standard_error: the largest standard error at which a verdict is given; None for any.
    """

    __test__ = False  # Not a test of pytest's.

    kind: str
    bounds: tuple[Bound, ...]
    max_standard_error: float | None = None


def at_least(bound: Bound, *, max_standard_error: float | None = None) -> Test:
    """The value is ``bound`` or more."""
    return Test("at least", (bound,), max_standard_error)


def at_most(bound: Bound, *, max_standard_error: float | None = None) -> Test:
    """The value is ``bound`` or less."""
    return Test("at most", (bound,), max_standard_error)


def within(low: Bound, high: Bound, *, max_standard_error: float | None = None) -> Test:
    """The value lies in [low, high]."""
    return Test("within", (low, high), max_standard_error)


def equivalent(margin: Bound, *, max_standard_error: float | None = None) -> Test:
    """A difference is smaller than ``margin`` in magnitude."""
    return Test("equivalent", (margin,), max_standard_error)


def different(margin: Bound = 0.0, *, max_standard_error: float | None = None) -> Test:
    """A difference is larger than ``margin`` in magnitude."""
    return Test("different", (margin,), max_standard_error)


@dataclass(frozen=True)
class Each:
    """The same test of each of several estimates, such as one a class; measured as a mapping from name to estimate."""

    test: Test


def each(test: Test) -> Each:
    """Every one of the measured estimates passes ``test``."""
    return Each(test)


@dataclass(frozen=True)
class AllOf:
    """Several claims that must all hold; measured as a mapping from the id of each to what was measured for it."""

    claims: tuple["Claim", ...]


def all_of(*claims: "Claim") -> AllOf:
    """Every one of ``claims`` holds."""
    return AllOf(claims)


@dataclass(frozen=True)
class Claim:
    """One statement and the test that it must pass.

    Attributes:
        id: short name, unique in the study.
        statement: the claim in one whole sentence that can be read alone.
        test: what the estimate must satisfy; a joint claim (``each``, ``all_of``) is an intersection-union test, and
            needs no correction for the number of its parts.
        source: figure or theorem of the paper, such as ``"Fig 9"``; ``""`` for a claim of our own; ``"control"``, with
            the paper ``"own"``, for one about data or denoisers for which the answer is known beforehand.
        unit: unit of the value; ``""`` for a pure number.
        paper: where the claim comes from, if neither ours (no ``source``) nor from the paper of its part.
        note: what a reader must know about the declaration itself.
        check: the statement can be false only if the program is wrong, such as a formula against itself or an identity:
            it is listed apart, and not counted among the claims. Of a part of a joint claim: it has no share in the p
            value.
        one_network: the interval is over images or noises of one network, and says nothing of another training.
        changed: what of estimator, interval or threshold changed after the claim's first run, when, and why; it is
            shown for as long as there is the claim, and ``declarations.toml`` demands it.
    """

    id: str
    statement: str
    test: Test | Each | AllOf
    source: str = ""
    unit: str = ""
    paper: str = ""
    note: str = ""
    check: bool = False
    one_network: bool = False
    changed: str = ""

    def origin(self, paper: str) -> str:
        """The paper that it comes from, or ``"own"``; ``paper`` is that of its part."""
        return self.paper or (paper if self.source else "own")


@dataclass(frozen=True)
class Noted:
    """What was measured for a claim, with a note for its reader; ``statement`` and ``unit`` replace those of a part of
    a joint claim.
    """

    measured: "Measured"
    note: str = ""
    statement: str = ""


@dataclass(frozen=True)
class NotTested:
    """The run could not test the claim, for this ``reason``: its verdict is *not applicable*."""

    reason: str


#: What may be measured for a claim: an estimate, either with a note, no test, or a mapping of these for joint claims.
Measured: TypeAlias = Union["Estimate", Noted, NotTested, Mapping[str, Any]]


def judge(claim: Claim, measured: Measured, paper: str) -> JudgedClaim:
    """The claim with what was measured for it, and its verdict. ``paper`` is that of the part."""
    note, statement = claim.note, claim.statement
    if isinstance(measured, Noted):
        note = " ".join(filter(None, (note, measured.note)))
        statement, measured = measured.statement or statement, measured.measured
    about: dict[str, Any] = {
        "id": claim.id,
        "paper": claim.origin(paper),
        "figure": claim.source,
        "statement": statement,
        "check": claim.check,
        "one_network": claim.one_network,
        "changed": claim.changed,
    }
    if isinstance(measured, NotTested):
        return JudgedClaim.not_applicable(why=measured.reason, **about, unit=claim.unit)
    joint = not isinstance(claim.test, Test)
    if joint != isinstance(measured, Mapping):
        wanted = "a mapping, as the claim is a joint one" if joint else "an Estimate"
        raise TypeError(f"claim {claim.id!r}: measured = {type(measured).__name__}: must be {wanted}")
    if isinstance(measured, Mapping):
        parts = [judge(part, measured[name], paper) for name, part in _parts(claim, measured).items()]
        return JudgedClaim.all_of(parts, **about, note=note)
    assert isinstance(claim.test, Test) and not isinstance(measured, Noted)
    limit = claim.test.max_standard_error
    bounds = tuple(float(bound(measured) if callable(bound) else bound) for bound in claim.test.bounds)
    return JudgedClaim(
        value=float(measured.value),
        interval=(float(measured.low), float(measured.high)),
        unit=claim.unit,
        kind=claim.test.kind,
        bounds=bounds,
        standard_error=None if limit is None else measured.standard_error,  # type: ignore[arg-type]
        max_standard_error=limit,
        note=note,
        exact=measured.exact,
        method=measured.method,
        p_value=p_value(claim.test.kind, bounds, measured),
        **about,
    )


def _parts(claim: Claim, measured: Mapping[str, Any]) -> dict[str, Claim]:
    """The claims that a joint claim consists of, by the name that each has among what was measured."""
    if isinstance(claim.test, AllOf):
        parts = {
            part.id: replace(part, check=part.check or claim.check, one_network=part.one_network or claim.one_network)
            for part in claim.test.claims
        }
        if parts.keys() != measured.keys():
            raise ValueError(f"claim {claim.id!r}: measured {sorted(measured)}: must be {sorted(parts)}")
        return parts
    assert isinstance(claim.test, Each)
    common = replace(claim, test=claim.test.test, note="", changed="")
    return {
        name: replace(common, id=f"{claim.id}-{name}", statement=f"{claim.statement} (Part: {name}.)")
        for name in measured
    }
