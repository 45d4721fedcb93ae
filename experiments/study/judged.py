"""Judged claims: what a study says in the end, with a verdict that is computed from the interval, never written by
hand.

An interval without width decides nothing, unless the value is marked as exact: replicates that all agree may be too few
or too much alike to show their spread. A statement that the run could not test, because its configuration trains too
little, has too few levels or no such images, is not applicable.
"""

import html
import math
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any

from dgu.core.errors import InputError
from dgu.core.reading import guarded, read_bytes

if TYPE_CHECKING:
    from experiments.study.run_directory import RunDirectory

SUPPORTED, NOT_SUPPORTED, UNDECIDED, NOT_APPLICABLE = "supported", "not supported", "undecided", "not applicable"
#: Every verdict, in the order in which they are counted.
VERDICTS = (SUPPORTED, NOT_SUPPORTED, UNDECIDED, NOT_APPLICABLE)
#: The verdict of several parts together is the first of these that occurs: one that fails refutes the whole, and one
#: that is not tested leaves it untested.
_WORST = (NOT_SUPPORTED, NOT_APPLICABLE, UNDECIDED, SUPPORTED)
_KINDS = ("equivalent", "within", "at least", "at most", "different", "all of", "not applicable")
#: Width of an interval, relative to its ends and bounds, up to which it may be due to rounding alone.
_ROUNDING = 1e-12


def without_width(interval: tuple[float, float], bounds: Sequence[float]) -> bool:
    """Whether the ends of the interval differ by rounding alone, relative to their size and that of the bounds."""
    low, high = interval
    return high - low <= _ROUNDING * max(map(abs, (low, high, *bounds)))


#: What the fields of a stored claim hold, in words and as a test; those that are not here hold text.
_TEXT: tuple[str, Callable[[Any], bool]] = ("text", lambda value: isinstance(value, str))
_NUMBER = ("a number or null", lambda value: value is None or _are_numbers([value]))
_TYPES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(("value", "standard_error", "max_standard_error"), _NUMBER),
    "interval": ("two numbers or null", lambda value: value is None or (_are_numbers(value) and len(value) == 2)),
    "bounds": ("a list of at most two numbers", lambda value: _are_numbers(value) and len(value) <= 2),
    **dict.fromkeys(("exact", "check", "one_network"), ("true or false", lambda value: isinstance(value, bool))),
    "p_value": ("0 to 1 or null", lambda value: value is None or (_are_numbers([value]) and 0 <= value <= 1)),
    "holm": ("true, false or null", lambda value: value is None or isinstance(value, bool)),
}
#: Largest report that is looked at (bytes).
_MOST = 2**28


@dataclass(frozen=True)
class JudgedClaim:
    """One statement, what was measured for it, and the bound it is held to. Made by ``experiments.study.claims.judge``.

    A claim is *supported* if the whole 95 % interval satisfies the statement, *not supported* if the whole interval
    violates it, and *undecided* otherwise, whenever ``standard_error`` passes ``max_standard_error``, and whenever the
    interval has no width although the value is not ``exact``. It is *not applicable* if the run could not test it.

    Attributes:
        id: short name, unique in the study.
        paper: short name of the paper that the statement comes from, such as ``"concentration"``, or ``"own"``.
        figure: figure or theorem, such as ``"Fig 5"``.
        statement: the claim in one sentence.
        value: point estimate, in ``unit``; None where the claim is not applicable.
        interval: its 95 % interval (low, high), in ``unit``; None where the claim is not applicable.
        unit: unit of the value, ``""`` for a pure number.
        kind: which statement about the value is tested; it fixes the meaning of ``bounds``.
        bounds: the bounds of that statement, in ``unit``.
        standard_error: standard error of the value, where a claim also bounds it.
        max_standard_error: the largest standard error at which a verdict is given.
        note: anything a reader must know beside the numbers.
        parts: the claims that an "all of" claim joins.
        exact: the value has no sampling error, as a closed form, a count, or the one result of a deterministic
            computation: its interval may have no width. Never for a mean or median of replicates that happen to agree.
        check: a statement that can be false only if the program is wrong, such as a formula against itself: it is
            listed apart, and not counted among the claims.
        one_network: the interval is over images or noises of one network, and says nothing of another training.
        changed: what of the declaration changed after the claim's first run, when, and why; ``""`` if nothing did.
        method: how the interval was made, as ``Estimate.method`` has it; of an "all of" claim that of its parts.
        p_value: of the test of the statement (``multiplicity.p_value``); of an "all of" claim the largest of its parts.
            None where the value is exact or was not tested.
        holm: the claim is supported and survives Holm's correction over the claims of the study; None where it is no
            part of the correction.
    """

    id: str
    paper: str
    figure: str
    statement: str
    value: float | None
    interval: tuple[float, float] | None
    unit: str
    kind: str
    bounds: tuple[float, ...]
    standard_error: float | None = None
    max_standard_error: float | None = None
    note: str = ""
    parts: tuple["JudgedClaim", ...] = ()
    exact: bool = False
    check: bool = False
    one_network: bool = False
    changed: str = ""
    method: str = ""
    p_value: float | None = None
    holm: bool | None = None

    def __post_init__(self) -> None:
        for name in ("value", "standard_error", "max_standard_error"):
            number = getattr(self, name)
            object.__setattr__(self, name, None if number is None else float(number))
        for name in ("interval", "bounds"):
            given = getattr(self, name)
            object.__setattr__(self, name, None if given is None else tuple(float(number) for number in given))
        object.__setattr__(self, "exact", bool(self.exact))
        self._check()

    def _check(self) -> None:
        """``ValueError`` for numbers that no claim of this kind can have."""

        def must(holds: bool, line: str) -> None:
            if not holds:
                raise ValueError(f"claim {self.id!r}: {line}")

        kind, interval, bounds = self.kind, self.interval, self.bounds
        must(kind in _KINDS, f"kind = {kind!r}: must be one of {', '.join(_KINDS)}")
        given = [self.value, self.standard_error, self.max_standard_error, *(interval or ()), *bounds]
        finite = all(math.isfinite(number) for number in given if number is not None)
        must(finite, f"value, interval, bounds and standard errors must be finite: {given}")
        none, both = self.value is None and interval is None, self.value is not None and interval is not None
        optional = kind in ("all of", "not applicable")
        must(both or (none and optional), "value and interval must be given, unless it is not applicable")
        rising = interval is None or (len(interval) == 2 and interval[0] <= interval[1])
        must(rising, f"interval = {interval}: must be (low, high) with low <= high")
        said = kind != "not applicable" or (none and not bounds and bool(self.note))
        must(said, "not applicable: must have a note that says why, and no numbers")
        must(kind not in ("equivalent", "different") or bounds[0] >= 0, f"margin = {bounds}: must be 0 or more")
        ordered = kind != "within" or bounds[0] <= bounds[1]
        must(ordered, f"bounds = {bounds}: must be (low, high) with low <= high")
        together = (self.standard_error is None) == (self.max_standard_error is None)
        must(together, "standard_error and max_standard_error must be given together")
        must((kind == "all of") == bool(self.parts), "parts must be given for an 'all of' claim, and for no other")

    @classmethod
    def not_applicable(cls, *, why: str, **about: Any) -> "JudgedClaim":
        """The run cannot test the statement, for the reason ``why``: there is neither value nor interval."""
        return cls(value=None, interval=None, kind="not applicable", bounds=(), note=why, **{"unit": ""} | about)

    @classmethod
    def all_of(cls, parts: Sequence["JudgedClaim"], **about: Any) -> "JudgedClaim":
        """Every one of ``parts`` holds: not supported if one is not, else not applicable or undecided if one is, else
        supported.

        As an intersection-union test it needs no correction for the number of parts. Value and interval are those of
        the part that decides, the first with the worst verdict, which the note names.
        """
        if not parts:
            raise ValueError("an 'all of' claim must have at least one part")
        worst = min(parts, key=lambda part: _WORST.index(part.verdict))
        which = f"one of {len(parts)}" if len(parts) > 1 else "the only one"
        decided = f"Verdict and value are those of the part {worst.id}, {which}."
        if worst.verdict == NOT_APPLICABLE:
            decided = f"The verdict is that of the part {worst.id}, {which}: {worst.note}"
        about["note"] = " ".join(filter(None, (about.get("note"), decided)))
        return cls(
            value=worst.value,
            interval=worst.interval,
            unit=worst.unit,
            kind="all of",
            bounds=(),
            parts=tuple(parts),
            exact=worst.exact,
            method="; ".join(dict.fromkeys(part.method for part in parts if part.method)),
            p_value=_largest(parts),
            **about,
        )

    @property
    def verdict(self) -> str:
        """``"supported"``, ``"not supported"``, ``"undecided"`` or ``"not applicable"``, by the rule of the class."""
        if self.kind == "all of":
            verdicts = {part.verdict for part in self.parts}
            return next(word for word in _WORST if word in verdicts)
        if self.interval is None:
            return NOT_APPLICABLE
        if self.standard_error is not None and self.standard_error > (self.max_standard_error or 0.0):
            return UNDECIDED
        (low, high), bound = self.interval, self.bounds[0]
        if not self.exact and without_width(self.interval, self.bounds):
            return UNDECIDED
        holds, fails = {
            "equivalent": (-bound < low and high < bound, low >= bound or high <= -bound),
            "different": (low > bound or high < -bound, -bound <= low and high <= bound),
            "within": (bound <= low and high <= self.bounds[-1], high < bound or low > self.bounds[-1]),
            "at least": (low >= bound, high < bound),
            "at most": (high <= bound, low > bound),
        }[self.kind]
        return SUPPORTED if holds else NOT_SUPPORTED if fails else UNDECIDED

    @property
    def threshold(self) -> str:
        """The bound in words."""
        if self.kind == "all of":
            bounds = dict.fromkeys(part.threshold for part in self.parts if part.verdict != NOT_APPLICABLE)
            every = "; ".join(bounds) or "not tested"
            return f"all {len(self.parts)} of: {every}" if len(self.parts) > 1 else every
        if self.kind == "not applicable":
            return "not tested"
        shown = [f"{bound:.4g}" for bound in self.bounds]
        text = {
            "equivalent": f"inside (-{shown[0]}, {shown[0]})",
            "different": f"outside [-{shown[0]}, {shown[0]}]" if self.bounds[0] else "not 0",
            "within": f"in [{shown[0]}, {shown[-1]}]",
            "at least": f"at least {shown[0]}",
            "at most": f"at most {shown[0]}",
        }[self.kind]
        if self.standard_error is not None:
            text += f", standard error at most {self.max_standard_error:.4g}"
        return text

    @property
    def measured(self) -> str:
        """The value with its interval, unit and standard error, as text."""
        if self.interval is None:
            return "-"
        low, high = self.interval
        alike = "(not an estimate: no interval)" if self.exact else "(all alike: no interval)"
        spread = alike if low == high else f"[{low:.4g}, {high:.4g}]"
        text = f"{self.value:.4g} {spread}" + (f" {self.unit}" if self.unit else "")
        return text if self.standard_error is None else f"{text} (standard error {self.standard_error:.4g})"

    @property
    def significance(self) -> str:
        """The p value as text, with an H if the claim survives Holm's correction."""
        if self.p_value is None:
            return "-"
        shown = f"{self.p_value:.2g}" if self.p_value >= 1e-4 else "< 0.0001"
        return shown + " H" * bool(self.holm)

    @property
    def remarks(self) -> str:
        """What a reader must know beside the numbers: what changed after the first run, and the note."""
        changed = f"Changed after its first run: {self.changed}" if self.changed else ""
        return " ".join(filter(None, (changed, self.note)))

    @property
    def is_control(self) -> bool:
        """Whether the answer was known beforehand: the claim shows that the measurement finds it."""
        return self.figure == "control"

    @property
    def origin(self) -> str:
        """Where the statement comes from: the paper, with figure or theorem, or ``"own"``."""
        return ", ".join(filter(None, (self.paper, self.figure)))

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary with the fields, the threshold in words and the verdict."""
        data = {field.name: getattr(self, field.name) for field in fields(self)}
        data["interval"] = None if self.interval is None else list(self.interval)
        data["bounds"] = list(self.bounds)
        data["parts"] = [part.to_json() for part in self.parts]
        return data | {"threshold": self.threshold, "verdict": self.verdict}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "JudgedClaim":
        """The claim that ``to_json`` wrote, by this version or by an older one, which knew no exact values.

        ``ValueError`` where a field that has no default is missing or is of another type, or a stored verdict is not
        what the numbers give.
        """
        if not isinstance(data, dict) or not isinstance(data.get("parts", []), list):
            raise ValueError("a claim, or its parts, of another type than claims have")
        known = {field.name: data[field.name] for field in fields(cls) if field.name in data}
        known["parts"] = tuple(cls.from_json(part) for part in data.get("parts", ()))
        missing = sorted({field.name for field in fields(cls) if field.default is MISSING} - set(known))
        if missing or "verdict" not in data:
            raise ValueError(f"claim {data.get('id')!r}: {', '.join(missing or ['verdict'])} missing")
        for field in known.keys() - {"parts"}:
            allowed, fits = _TYPES.get(field, _TEXT)
            if not fits(known[field]):
                raise ValueError(f"claim {data['id']!r}: {field} = {known[field]!r}: must be {allowed}")
        claim = cls(**known)
        if data["verdict"] != claim.verdict:
            raise ValueError(
                f"claim {claim.id!r}: stored verdict {data['verdict']!r}, but its numbers say {claim.verdict!r}"
            )
        return claim


def claims_table(claims: Sequence[JudgedClaim], width: int = 100) -> str:
    """The claims as text for a terminal: id, verdict and measurement on a line, the statement below, ``width`` wide;
    checks of the program after all others.
    """
    column = max((len(claim.id) for claim in claims), default=0)

    def shown(claim: JudgedClaim) -> list[str]:
        mark = " (one network)" if claim.one_network else ""
        p = "" if claim.p_value is None else f"  p {claim.significance}"
        lines = [f"{claim.id:<{column}}  {claim.verdict.upper():<14}  {claim.measured}{mark}{p}"]
        tested = "Not tested." if claim.kind == "not applicable" else f"Threshold: {claim.threshold}."
        for text in (f"{claim.statement} ({claim.origin}) {tested}", claim.remarks):
            lines += textwrap.wrap(text, width, initial_indent="    ", subsequent_indent="    ")
        return lines

    checks = [line for claim in claims if claim.check for line in shown(claim)]
    lines = [line for claim in claims if not claim.check for line in shown(claim)]
    return "\n".join([*lines, *(["", "Checks of the program:", *checks, ""] if checks else []), counted(claims)])


def counted(claims: Sequence[JudgedClaim]) -> str:
    """How many claims have each verdict, in words; checks of the program are counted apart."""

    def count(one: str, several: str, of: Sequence[JudgedClaim]) -> str:
        counts = (f"{sum(claim.verdict == word for claim in of)} {word}" for word in VERDICTS)
        return f"{len(of)} {one if len(of) == 1 else several}: {', '.join(counts)}"

    checks = [claim for claim in claims if claim.check]
    text = count("claim", "claims", [claim for claim in claims if not claim.check])
    return f"{text}; {count('check of the program', 'checks of the program', checks)}" if checks else text


def _largest(parts: Sequence[JudgedClaim]) -> float | None:
    """The p value of an intersection-union test: the largest of its parts, 1 where an exact part fails, None where a
    part was not tested or all are exact. Parts that check the program have none.
    """
    parts = [part for part in parts if not part.check]
    found = [part.p_value for part in parts if part.p_value is not None]
    if not found or any(part.verdict == NOT_APPLICABLE for part in parts):
        return None
    return 1.0 if any(part.exact and part.verdict != SUPPORTED for part in parts) else max(found)


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(x, int | float) and not isinstance(x, bool) for x in value)


def write_claims(directory: "RunDirectory", claims: Sequence[JudgedClaim]) -> None:
    """Write ``claims.json``. ``ValueError`` if two claims share an id."""
    ids = [claim.id for claim in claims]
    if len(set(ids)) < len(ids):
        raise ValueError(f"claim ids must be unique: {ids}")
    directory.write_json("claims.json", [claim.to_json() for claim in claims])


def read_claims(directory: "RunDirectory") -> tuple[JudgedClaim, ...] | None:
    """The claims of a finished run, or None where there are none yet.

    Raises:
        InputError: they cannot be read, lack one that the report has, or have other verdicts than their numbers give.
    """
    stored = directory.read_json("claims.json")
    if stored is None:
        return None
    advice = "remove it, and the same command makes the report again from what is stored"
    with guarded(directory.path / "claims.json", "the claims of a run", advice=advice):
        if not isinstance(stored, list):
            raise ValueError("no list of claims")
        claims = tuple(JudgedClaim.from_json(entry) for entry in stored)
    missing = _reported(directory) - {claim.id for claim in claims}
    if missing:
        raise InputError(f"{directory.path / 'claims.json'}: lacks {min(missing)!r}, which the report has ({advice})")
    return claims


def _reported(directory: "RunDirectory") -> set[str]:
    """Ids of the claims in ``report.html``."""
    report = directory.path / "report.html"
    if not report.exists():
        return set()
    page = read_bytes(report, _MOST, "the report of a run").decode(errors="replace")
    return {html.unescape(name) for name in re.findall(r"<tr><td><code>([^<]*)</code><br>", page)}
