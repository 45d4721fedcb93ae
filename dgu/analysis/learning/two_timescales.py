"""When does a random-feature network generalise, and when does it memorise? Without training it."""

from dataclasses import dataclass

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Num

from dgu.core.arrays import as_doubles
from dgu.core.brief import short_repr
from dgu.core.errors import require
from dgu.training.gradient_flow import QuadraticLoss, flow_curves


@short_repr
@dataclass(frozen=True, eq=False)
class Timescales:
    """Two times of gradient flow on the loss of a training set, and the losses along it.

    Attributes:
        generalisation: tau_gen, when the population loss has first covered 90 % of the way to its least value.
        memorisation: tau_mem, when the population loss has risen again, from its least value, by 10 % of its fall;
            infinite where it does not within the times given.
        taus, empirical, population: training times and the two losses, ``(k,)``.
    """

    generalisation: float
    memorisation: float
    taus: np.ndarray
    empirical: np.ndarray
    population: np.ndarray


def two_timescales(empirical: QuadraticLoss, population: QuadraticLoss, taus: Num[ArrayLike, " k"]) -> Timescales:
    """tau_gen and tau_mem of the flow from 0 on the empirical loss, solved eigenvalue by eigenvalue.

    The Gram matrix of p random features over n training points and all noise has a bulk of eigenvalues that the
    distribution gives it, and a bulk of order ``p / n`` below that the training points do: the first is learned in a
    time that does not depend on n, the second in one that grows as n. Between the two the network generalises.

    Args:
        empirical: loss on the training points (``dgu.training.empirical_loss``).
        population: loss on the distribution, up to a constant (``dgu.training.population_loss``, or ``empirical_loss``
            on many other points).
        taus: training times, positive and rising, close enough for linear interpolation in their logarithm; the last
            one far beyond memorisation.

    Raises:
        InputError: times that do not rise.

    Bonnaire, Urfin, Biroli and Mezard, arXiv 2505.17638. The thresholds are ours, and that of tau_mem is exploratory:
    of several definitions it was chosen after one draw had shown which of them grow with n (half of the final gap
    between the losses does not), and it has not been held to the numbers of that paper.
    """
    times = as_doubles("taus", taus)
    rising = times.ndim == 1 and len(times) >= 2 and bool((times > 0).all() and (np.diff(times) > 0).all())
    require(rising, "taus", times.tolist(), "two or more, positive and rising")
    curves, _ = flow_curves(empirical, population, times)
    first, lowest = float(population.constant), int(np.argmin(curves.population))
    left = (curves.population - curves.population[lowest]) / (first - curves.population[lowest])
    generalisation = _first_at(times, 1 - left, 0.9)
    risen = bool((left[lowest:] >= 0.1).any())
    memorisation = _first_at(times[lowest:], left[lowest:], 0.1) if risen else float("inf")
    return Timescales(generalisation, memorisation, times, curves.empirical, curves.population)


def _first_at(times: np.ndarray, values: np.ndarray, height: float) -> float:
    """The first time at which a curve is at ``height``, linear in log time between times."""
    at = int(np.argmax(values >= height))
    if at == 0:
        return float(times[0])
    share = (height - values[at - 1]) / (values[at] - values[at - 1])
    return float(np.exp(np.log(times[at - 1]) + share * np.log(times[at] / times[at - 1])))
