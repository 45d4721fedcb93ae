"""Many claims in one study: the p value of each, Holm's correction, and how many claims chance alone would support.

A verdict comes from the 95 % interval of its own claim alone. Of many such claims some come out as supported by chance,
so a report says how many that may be, and which claims survive a correction for all of them.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from experiments.study.judged import SUPPORTED, JudgedClaim, without_width

if TYPE_CHECKING:  # Which would take JAX along, and keep the command line's help waiting.
    from dgu.analysis.stats.estimates import Estimate

#: Level of Holm's correction: the probability that any claim which survives it is false.
LEVEL = 0.05
#: What the column p of a report and of a page holds.
EXPLAINED = (
    "p is the p value of the claim's test: one-sided against the threshold, of a range or a margin the larger of the "
    "two one-sided ones, of a difference (“not 0”, “outside”) two-sided, and of a joint claim the largest of its parts "
    "(an intersection-union test). It is computed back from the interval, by Student's t where the interval is one of "
    "t, and otherwise by the normal distribution from the interval's width on the side of the threshold: of intervals "
    "by the bootstrap, by order statistics, of shares, of ratios and of geometric means it is an approximation, and "
    "rough where it is small."
)


def p_value(kind: str, bounds: Sequence[float], estimate: "Estimate") -> float | None:
    """The p value of the statement ``kind`` with ``bounds`` about a single value, None where the value is exact.

    With h the width of the interval between the value v and its end on the side of a bound b, and q the quantile (1 +
    level) / 2 of the distribution, the one-sided test of "more than b" has ``p = P(T > q (v - b) / h)``. T is Student's
    t with ``estimate.freedom`` degrees of freedom, or normal where these are None. So p is (1 - level) / 2 where the
    end of the interval lies on the bound, whatever made the interval; elsewhere it is exact for symmetric intervals of
    t and normal ones, and an approximation for all others, geometric means among them. Where the interval has no width
    on that side, as of a share of 0, h is the width on the other; where it has none at all, p is 1.

    Args:
        kind: a statement about one value, as ``JudgedClaim.kind`` has it.
        bounds: its bounds.
        estimate: of one value.
    """
    if estimate.exact:
        return None
    first, last = bounds[0], bounds[-1]
    if without_width((float(estimate.low), float(estimate.high)), bounds):
        return 1.0
    if kind == "at least":
        return _more(estimate, first)
    if kind == "at most":
        return _less(estimate, first)
    if kind == "different":
        return min(1.0, 2 * min(_more(estimate, first), _less(estimate, -first)))
    return max(_more(estimate, -first if kind == "equivalent" else first), _less(estimate, last))


def _more(estimate: "Estimate", bound: float) -> float:
    """One-sided p of "more than ``bound``"."""
    import scipy.stats

    law = scipy.stats.norm if estimate.freedom is None else scipy.stats.t(estimate.freedom)
    gap = float(estimate.value) - bound
    lower, upper = float(estimate.value - estimate.low), float(estimate.high - estimate.value)
    half = (lower or upper) if gap >= 0 else (upper or lower)
    return float(law.sf(gap / half * law.ppf((1 + estimate.level) / 2)))


def _less(estimate: "Estimate", bound: float) -> float:
    """One-sided p of "less than ``bound``"."""
    mirrored = replace(estimate, value=-estimate.value, low=-estimate.high, high=-estimate.low)
    return _more(mirrored, -bound)


def corrected(claims: Sequence[JudgedClaim]) -> list[JudgedClaim]:
    """The claims with ``holm`` set: True for those that are supported and survive Holm's correction over all of them.

    The m claims that have a p value and are no checks of the program are tested together. In rising order of p the
    k-th, counted from 0, survives while ``p <= LEVEL / (m - k)`` for it and all before it. This holds whatever the
    dependence of the claims.

    Holm, Scandinavian Journal of Statistics 6, 1979.
    """
    family = sorted((p, place) for place, claim in enumerate(claims) if (p := _tested(claim)) is not None)
    survive = {place: False for _, place in family}
    for rank, (p, place) in enumerate(family):
        if p > LEVEL / (len(family) - rank):
            break
        survive[place] = claims[place].verdict == SUPPORTED
    return [replace(claim, holm=survive.get(place)) for place, claim in enumerate(claims)]


def by_chance(claims: Sequence[JudgedClaim]) -> str:
    """What the number of claims means for their verdicts, in words; empty where none has a p value."""
    family = [claim for claim in claims if _tested(claim) is not None]
    if not family:
        return ""
    counted = sum(not claim.check for claim in claims)
    supported = sum(claim.verdict == SUPPORTED for claim in family)
    survivors = sum(bool(claim.holm) for claim in family)
    return (
        f"{len(family)} of {counted} claims test a value that has a random error. If none of their statements were "
        f"true, chance alone would make at most {sum(map(_rate, family)):.2g} of them come out as supported, on "
        "average: 2.5 % of each, and 5 % of each that a difference is not 0. "
        f"{survivors} of the {supported} that are supported survive Holm's correction over all {len(family)} at level "
        f"{LEVEL:g} (marked H)."
    )


def _tested(claim: JudgedClaim) -> float | None:
    """The p value of a claim that counts, if any."""
    return None if claim.check else claim.p_value


def _rate(claim: JudgedClaim) -> float:
    """The largest probability with which a claim comes out as supported although it is false."""
    if claim.parts:
        return max(map(_rate, claim.parts))
    return 0.05 if claim.kind == "different" else 0.025
