"""Which share of a Jacobian's energy its leading singular values must hold, in two conventions."""

from typing import Literal, get_args

from dgu.core.errors import require

#: What the share of the energy is held against: ``eta^2`` (the released code), or ``eta`` (as quoted from the paper).
Rule = Literal["code", "text"]


def share_wanted(eta: float, rule: str = "code") -> float:
    """The share of the energy ``sum_i s_i^2`` that the leading values must pass: ``eta^2`` in the authors' code,
    ``eta`` in the text of the paper.
    """
    require(0 < eta < 1, "eta", eta, "strictly between 0 and 1")
    require(rule in get_args(Rule), "rule", rule, f"one of {', '.join(get_args(Rule))}")
    return eta**2 if rule == "code" else eta
