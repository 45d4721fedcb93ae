"""The claims on the numerical rank of Jacobians, and the estimates that are measured for them."""

import numpy as np
from scipy import stats

from dgu import analysis
from dgu.analysis.stats.estimates import Estimate
from experiments.molrg.training import COMPONENTS, SHAPE
from experiments.study import Claim, Noted, NotTested, all_of, at_least, within
from experiments.study.claims import Measured

#: The mixture of the paper's figure: two orthogonal subspaces of this dimension in 48 dimensions.
RANK = 6
BOTH, AMBIENT = COMPONENTS * RANK, int(np.prod(SHAPE))
#: Room around a rank of the closed form, and the number of draws from which on Wilson's interval is narrower than that
#: even if they all agree.
ROOM = 0.1
LEAST_DRAWS = 458
#: Noise levels that the paper's figure fixes for the closed form, and the range of its mean rank at each.
FIXED = {
    0.3: (float(RANK), RANK + ROOM),
    1.1: (RANK + 3.0, BOTH - 1.0),
    3.3: (BOTH - ROOM, float(BOTH)),
}

CLAIMS = (
    Claim(
        "dimension-closed-form",
        f"The Jacobian of the exact posterior mean of two orthogonal subspaces of dimension {RANK} has numerical rank "
        f"{RANK} at low noise and {BOTH} at high noise (means to within {ROOM:g}), and a mean rank in between at "
        "medium noise.",
        all_of(
            *(
                Claim(
                    f"dimension-closed-form-{level:g}",
                    "The mean numerical rank of the Jacobian of the exact posterior mean of two orthogonal subspaces "
                    f"of dimension {RANK} is from {low:g} to {high:g} at sigma = {level:g}.",
                    within(low, high),
                    source="Fig 7",
                )
                for level, (low, high) in FIXED.items()
            )
        ),
        source="Fig 7",
    ),
    Claim(
        "dimension-u-curve",
        "The numerical rank of the network's Jacobian is lowest at medium noise levels and rises towards both ends (a "
        "U-shaped curve).",
        all_of(
            *(
                Claim(
                    f"dimension-u-curve-{end}",
                    f"The numerical rank of the network's Jacobian is larger by one or more at the {end}est noise "
                    "level than at the level where its mean is least.",
                    at_least(1.0),
                    source="Fig 7",
                )
                for end in ("high", "low")
            )
        ),
        source="Fig 7",
    ),
    Claim(
        "dimension-products",
        "The 95 % interval of the numerical rank that leading singular values and the energy of the rest give contains "
        "the rank of the whole Jacobian.",
        at_least(0.3),
        unit="of points",
    ),
)


def closed_form_ranks(fixed: np.ndarray) -> Measured:
    """Mean ranks at the fixed levels, ``fixed`` (levels, draws); not tested with few draws."""
    draws = fixed.shape[1]
    if draws < LEAST_DRAWS:
        return NotTested(
            f"{draws} draws a level leave a mean uncertain by more than {ROOM:g}: {LEAST_DRAWS} or more are needed"
        )
    return {f"dimension-closed-form-{level:g}": mean_rank(ranks) for level, ranks in zip(FIXED, fixed)}


def mean_rank(ranks: np.ndarray) -> Estimate:
    """The mean rank of the closed form, which is at most that of both subspaces together, with its 95 % interval.

    By percentiles of the bootstrap: a t interval of a mean next to the end of its range reaches beyond the possible
    ranks. Where all draws have one rank, the share of those with another is at most Wilson's limit for none found, and
    these may have any.
    """
    if np.ptp(ranks) > 0:
        found = stats.bootstrap((ranks,), np.mean, method="percentile", rng=0).confidence_interval
        ends = float(found.low), float(found.high)
        return Estimate(float(ranks.mean()), *ends, method="percentile bootstrap", n=len(ranks))
    value = float(ranks[0])
    other = float(analysis.proportion(np.zeros(len(ranks), bool)).high)
    ends = value - other * value, value + other * (BOTH - value)
    return Estimate(value, *ends, method="Wilson", n=len(ranks))


def rises(ranks: np.ndarray, levels: np.ndarray, lowest: int, uncertain: np.ndarray) -> Measured:
    """How much the rank rises from its least value towards both ends of the noise levels."""
    return {
        # Where the level of least rank is the end itself, the difference is 0 without spread, which decides nothing.
        f"dimension-u-curve-{name}": Noted(
            analysis.t_interval(ranks[end] - ranks[lowest]),
            f"sigma = {levels[end]:.3g} against {levels[lowest]:.3g}; ranks are known to within {uncertain.max():.0f}",
        )
        for name, end in (("high", 0), ("low", -1))
    }


def contained(both: dict[str, np.ndarray]) -> Measured:
    """Whether the interval that products give holds the exact rank."""
    held = (both["low"] <= both["exact"]) & (both["exact"] <= both["high"])
    exact, rough, low, high = (both[name].tolist() for name in ("exact", "products", "low", "high"))
    note = f"{len(held)} points; exact {exact}, by products {rough}, low {low}, high {high}"
    return Noted(analysis.proportion(held), note)
