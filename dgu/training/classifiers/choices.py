"""What can be chosen for the training of a classifier: loss, initial weights, and the learning rate over the epochs."""

import math

from dgu.core.errors import require

#: Losses; the table of ``dgu.training.classifiers.losses`` has their formulas.
LOSSES = ("softmax_mse", "logit_mse", "cross_entropy", "sigmoid_mse")
INITS = ("zeros", "torch")
SCHEDULES = ("constant", "cosine", "cosine_restarts")


def check_schedule(name: str, period: int | None, eta_min: float) -> None:
    """``InputError`` unless there is a ``Schedule`` of this name with these numbers."""
    require(name in SCHEDULES, "schedule", name, f"one of {', '.join(SCHEDULES)}")
    require(period is None or 1 <= period < 2**31, "schedule.period", period, "at least 1, below 2**31")
    require(name != "cosine_restarts" or period is not None, "schedule.period", None, "given for restarts")
    plain = name != "constant" or (period is None and eta_min == 0.0)
    require(plain, "schedule", name, "left without period and eta_min when it is constant")
    require(0.0 <= eta_min < math.inf, "schedule.eta_min", eta_min, "0 or more, and finite")
