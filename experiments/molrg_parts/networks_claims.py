"""What scores of trained networks say: sigmoids through their curves, how far these collapse, where they cross, and the claims."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dgu import analysis
from dgu.analysis.stats.estimates import wilson
from dgu.analysis.stats.sigmoids import Bounded, SigmoidFit, fit_sigmoids
from experiments.molrg_parts.networks_config import Config
from experiments.molrg_parts.subject import PAPER
from experiments.molrg_parts.training import COMPONENTS
from experiments.study.judged import JudgedClaim

#: Why no sigmoid is fitted.
NO_CROSSING = "the scores of this run do not cross 1/2"


@dataclass(frozen=True, eq=False)
class Fits:
    """What the scores of networks of one kind say. Make it with ``of``.

    Attributes:
        curves: sigmoids over log2 N, one for each dimension; None for one dimension, or scores that never cross 1/2.
        pooled: one sigmoid over log2 (N / ID) for all dimensions, or None.
        gain: spread of the curves' midpoints over log2 N less that over log2 (N / ID), in octaves; None without ``curves``.
        spread: the two, or None.
        crossing: log2 (N / ID) at which the level is reached; None without ``pooled``.
        exponent: of the intrinsic dimension, as which the midpoints go; None without ``curves``.
    """

    curves: SigmoidFit | None
    pooled: SigmoidFit | None
    gain: Bounded | None
    spread: tuple[float, float] | None
    crossing: Bounded | None
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
        spread = curves.spread().estimate, curves.spread(shift).estimate
        return cls(curves, pooled, curves.spread_gain(shift), spread, crossing, curves.exponent(shift).estimate)


def _fitted(x: np.ndarray, y: np.ndarray, curve: np.ndarray | None = None) -> SigmoidFit | None:
    """The sigmoids, or None where the scores never cross 1/2: then nothing says where they would."""
    if not y.min() < 0.5 < y.max():
        return None
    return fit_sigmoids(x.ravel(), y.ravel(), None if curve is None else curve.ravel())


def network_claims(config: Config, bracket: dict[str, np.ndarray], dense: Fits, unet: Fits) -> list[JudgedClaim]:
    """The laws that bracket the scores; whether curves collapse, and where they cross."""
    dense_training = f"{config.optimisation.steps:,} updates of {config.width} x {config.depth} units"
    unet_training = f"{config.unet.steps:,} updates of {config.unet.batch_size} examples"
    return [
        *_bracket_claims(config, bracket),
        _collapse_claim("networks-collapse", "dense networks", dense, config.ranks),
        _collapse_claim("networks-collapse-unet", "U-Nets", unet, config.unet.ranks),
        _crossing_claim("networks-crossing", "Dense networks", dense, config.ranks, config.level, dense_training),
        _crossing_claim("networks-unet", "U-Nets", unet, config.unet.ranks, config.level, unet_training),
    ]


def _bracket_claims(config: Config, bracket: dict[str, np.ndarray]) -> list[JudgedClaim]:
    law, copies = analysis.t_interval(bracket["true_law"], bounds=(0, 1)), float(bracket["copies"])
    low, high = wilson(copies, config.samples)
    return [
        JudgedClaim.within(
            id="networks-true-law",
            paper=PAPER,
            figure="(46)",
            statement=f"Draws of the true law score {config.level:g} against every training set (mean over dimensions and N).",
            value=float(law.estimate),
            interval=(float(law.low), float(law.high)),
            low=config.level - 0.01,
            high=config.level + 0.01,
            unit="",
            note=f"{bracket['true_law'].size} training sets, {config.fresh:,} draws each",
        ),
        JudgedClaim.at_most(
            id="networks-multi-delta",
            paper=PAPER,
            figure="(21)",
            statement="The multi-delta denoiser, the optimum of the training loss, scores 0.",
            value=copies,
            interval=(float(low), float(high)),
            threshold=0.01 if config.samples >= 400 else 0.1,
            unit="",
            note=f"{config.samples:,} samples",
        ),
    ]


def _collapse_claim(name: str, who: str, fits: Fits, ranks: Sequence[int]) -> JudgedClaim:
    about = {
        "id": name,
        "paper": PAPER,
        "figure": "Fig 4",
        "unit": "octaves",
        "statement": f"Scores of {who} agree better over N / ID than over N: the spread of the curves' midpoints falls.",
    }
    if fits.gain is None or fits.spread is None:
        one = "there is one curve alone, of one intrinsic dimension"
        return JudgedClaim.not_applicable(why=one if len(ranks) < 2 else NO_CROSSING, **about)
    over_n, over_ratio = fits.spread
    return JudgedClaim.at_least(
        value=fits.gain.estimate,
        interval=(fits.gain.low, fits.gain.high),
        threshold=0.0,
        note=f"spread {over_n:.2f} over log2 N (or N / n, as n is fixed), {over_ratio:.2f} over log2 N / ID; "
        f"midpoints go as ID to the power {fits.exponent:.2f}",
        **about,
    )


def _crossing_claim(name: str, who: str, fits: Fits, ranks: Sequence[int], level: float, trained: str) -> JudgedClaim:
    about = {
        "id": name,
        "paper": PAPER,
        "figure": "Fig 4",
        "unit": "N / ID",
        "statement": f"{who} reach {level:g} at some tens of examples a dimension (the paper: 50 to 60, U-Nets).",
    }
    crossing = fits.crossing
    if crossing is None:
        return JudgedClaim.not_applicable(why=f"{NO_CROSSING}; {trained}", **about)
    curves = "all curves together" if len(ranks) > 1 else "one curve"
    return JudgedClaim.within(
        value=2**crossing.estimate,
        interval=(2**crossing.low, 2**crossing.high),
        low=30,
        high=120,
        note=f"sigmoid in log2 N / ID, {curves}; {trained}",
        **about,
    )
