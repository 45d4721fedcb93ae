"""The claims on scores of trained networks: sigmoids through their curves, how far these collapse, and where they
cross."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dgu import analysis
from dgu.analysis.stats.estimates import Estimate, wilson
from dgu.analysis.stats.sigmoids import SigmoidFit, fit_sigmoids
from experiments.molrg.networks_config import Config
from experiments.molrg.training import COMPONENTS
from experiments.study import Claim, Noted, NotTested, at_least, at_most, within
from experiments.study.claims import Measured

#: Why no sigmoid is fitted.
NO_CROSSING = "the scores of this run do not cross 1/2"


@dataclass(frozen=True, eq=False)
class Fits:
    """Sigmoids through the scores of networks of one kind. Make it with ``of``.

    Attributes:
        curves: sigmoids over log2 N, one for each dimension; None for one dimension, or scores that never cross 1/2.
        pooled: one sigmoid over log2 (N / ID) for all dimensions, or None.
        gain: spread of the curves' midpoints over log2 N less that over log2 (N / ID), in octaves; None without
            ``curves``.
        spread: the two, or None.
        crossing: log2 (N / ID) at which the level is reached; None without ``pooled``.
        exponent: power of the intrinsic dimension to which the midpoints are proportional; None without ``curves``.
    """

    curves: SigmoidFit | None
    pooled: SigmoidFit | None
    gain: Estimate | None
    spread: tuple[float, float] | None
    crossing: Estimate | None
    exponent: float | None

    @classmethod
    def of(cls, ranks: Sequence[int], ratios: Sequence[float], scores: np.ndarray, level: float) -> "Fits":
        """From scores (ranks, ratios, runs)."""
        shift = np.log2(COMPONENTS * np.asarray(ranks))
        log_ratio = np.broadcast_to(np.log2(ratios)[None, :, None], scores.shape)
        log_count = log_ratio + shift[:, None, None]
        number = np.broadcast_to(np.arange(len(ranks))[:, None, None], scores.shape)
        curves = _fitted(log_count, scores, number) if len(ranks) > 1 else None
        pooled = _fitted(log_ratio, scores)
        crossing = None if pooled is None else pooled.crossing(level)
        if curves is None:
            return cls(None, pooled, None, None, crossing, None)
        spread = float(curves.spread().value), float(curves.spread(shift).value)
        return cls(curves, pooled, curves.spread_gain(shift), spread, crossing, float(curves.exponent(shift).value))


def _fitted(x: np.ndarray, y: np.ndarray, curve: np.ndarray | None = None) -> SigmoidFit | None:
    """The sigmoids, or None where the scores never cross 1/2: then nothing says where they would."""
    if not y.min() < 0.5 < y.max():
        return None
    return fit_sigmoids(x.ravel(), y.ravel(), None if curve is None else curve.ravel())


def claims(config: Config) -> tuple[Claim, ...]:
    """What is tested."""
    return (
        Claim(
            "networks-true-law",
            f"Draws of the true distribution have the generalisation score {config.level:g} against every training set "
            "(shown: the mean over dimensions and numbers of examples N).",
            within(config.level - 0.01, config.level + 0.01),
            source="(46)",
        ),
        Claim(
            "networks-multi-delta",
            "The multi-delta denoiser, which minimises the training loss, has the generalisation score 0.",
            at_most(0.01 if config.samples >= 400 else 0.1),
            source="(21)",
        ),
        *(
            Claim(
                name,
                f"Generalisation scores of {who} agree better across intrinsic dimensions (ID) over N / ID than over "
                "the number of training examples N (shown: by how much the spread of the curves' midpoints falls).",
                at_least(0.0),
                source="Fig 4",
                unit="octaves",
            )
            for name, who in (("networks-collapse", "dense networks"), ("networks-collapse-unet", "U-Nets"))
        ),
        *(
            Claim(
                name,
                f"{who} reach the generalisation score {config.level:g} at some tens of training examples for each of "
                "the data's intrinsic dimensions (the paper: 50 to 60, U-Nets).",
                within(30.0, 120.0),
                source="Fig 4",
                unit="N / ID",
            )
            for name, who in (("networks-crossing", "Dense networks"), ("networks-unet", "U-Nets"))
        ),
    )


def measured(config: Config, bracket: dict[str, np.ndarray], dense: Fits, unet: Fits) -> dict[str, Measured]:
    """What was measured for ``claims``, from the scores that bracket those of networks, and from these."""
    dense_training = f"{config.optimisation.steps:,} updates of {config.width} x {config.depth} units"
    unet_training = f"{config.unet.steps:,} updates of {config.unet.batch_size} examples"
    true, copies = analysis.t_interval(bracket["true_law"], bounds=(0, 1)), float(bracket["copies"])
    low, high = wilson(copies, config.samples)
    copied = Estimate(copies, float(low), float(high), method="Wilson", n=config.samples)
    return {
        "networks-true-law": Noted(true, f"{bracket['true_law'].size} training sets, {config.fresh:,} draws each"),
        "networks-multi-delta": Noted(copied, f"{config.samples:,} samples"),
        "networks-collapse": _collapse(dense, config.ranks),
        "networks-collapse-unet": _collapse(unet, config.unet.ranks),
        "networks-crossing": _crossing(dense, config.ranks, dense_training),
        "networks-unet": _crossing(unet, config.unet.ranks, unet_training),
    }


def _collapse(fits: Fits, ranks: Sequence[int]) -> Measured:
    if fits.gain is None or fits.spread is None:
        return NotTested("only one curve, of one intrinsic dimension" if len(ranks) < 2 else NO_CROSSING)
    over_n, over_ratio = fits.spread
    return Noted(
        fits.gain,
        f"spread {over_n:.2f} over log2 N (or N / n, as n is fixed), {over_ratio:.2f} over log2 N / ID; "
        f"midpoints are proportional to ID to the power {fits.exponent:.2f}",
    )


def _crossing(fits: Fits, ranks: Sequence[int], trained: str) -> Measured:
    if fits.crossing is None:
        return NotTested(f"{NO_CROSSING}; {trained}")
    curves = "all curves together" if len(ranks) > 1 else "one curve"
    at = fits.crossing.map(lambda power: 2**power)
    return Noted(at, f"sigmoid in log2 N / ID, {curves}; {trained}")
