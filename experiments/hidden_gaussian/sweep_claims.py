"""Claims on the sweeps: ranks over training-set sizes, the course of training on little data, linear maps."""

from collections.abc import Callable

import numpy as np

from dgu import analysis
from experiments.hidden_gaussian.sweep_results import Sweep
from experiments.hidden_gaussian.trainer import Measured, intermediate
from experiments.study import Claim, Noted, NotTested, all_of, at_least, at_most
from experiments.study import Measured as Outcome

#: Training-set sizes from which on a rank correlation says something.
_RANKED = 4
#: Checkpoints from which on a network can come near and leave again: a first, a nearest and a last one.
_KEPT = 3
_UNIT = "(RMSE, pixel units)"


def declared(little: int, narrow: int) -> tuple[Claim, ...]:
    """What is tested, of networks on ``little`` training images, the narrow one with ``narrow`` channels."""
    few = f"{little} training images"
    peak = "distance to the Gaussian denoiser (the peak among intermediate noise levels)"
    return (
        Claim(
            "sweeps-linearity-rises",
            "The least linearity over noise levels rises with the size of the training set (Spearman's correlation).",
            at_least(0.8),
            source="Fig 1",
        ),
        Claim(
            "sweeps-distance-falls",
            "On held-out images the distance of a network to the Gaussian denoiser of its training images falls with "
            "the size of the training set (Spearman's correlation; mean over intermediate noise levels).",
            at_most(-0.8),
            source="Fig 6",
        ),
        Claim(
            "sweeps-wide-memorises",
            f"On {few} the wide network comes near to the Gaussian denoiser and leaves it again while its samples "
            "become training images.",
            all_of(
                Claim(
                    "min-over-final",
                    f"The least {peak} during training is at most 0.8 of the last one.",
                    at_most(0.8),
                    source="Fig 8",
                ),
                Claim(
                    "min-over-first",
                    f"The least {peak} during training is at most 0.8 of the first one measured.",
                    at_most(0.8),
                    source="Fig 8",
                ),
                Claim(
                    "gl-final",
                    "At the end of training the generalisation score (14) of the samples is at most 0.3.",
                    at_most(0.3),
                    source="Fig 8",
                ),
                Claim(
                    "gl-final-relative",
                    "At the end of training the generalisation score of the samples is at most half of that of "
                    "held-out images.",
                    at_most(0.5),
                    source="Fig 8",
                ),
            ),
            source="Fig 8",
        ),
        Claim(
            "sweeps-narrow-stays",
            f"On {few} the narrow network ({narrow} channels) does not leave the Gaussian denoiser: its last {peak} "
            "is at most 1.1 of the least one during training.",
            at_most(1.1),
            source="Fig 7",
        ),
        Claim(
            "sweeps-generalisation-rises",
            "The generalisation score, relative to that of held-out images, rises with the size of the training set "
            "(Spearman's correlation).",
            at_least(0.8),
            source="Fig 13",
        ),
        Claim(
            "sweeps-linear-nearer",
            "On the largest training set the network's best linear map is nearer to the Gaussian denoiser than the "
            "network is (the difference of the distances is shown).",
            at_most(0.0),
            source="Fig 5",
            unit=_UNIT,
        ),
        Claim(
            "sweeps-linear-memorising",
            f"The best linear map is farther from the Gaussian denoiser if the network memorises ({few}) than if it "
            "generalises (the largest training set; the difference of the distances is shown).",
            at_least(0.0),
            source="Fig 5",
            unit=_UNIT,
        ),
    )


def tested(sweep: Sweep) -> dict[str, Outcome]:
    """What was measured for each claim."""
    common, sizes = sweep.trainer.config, sweep.sizes
    over = f"{common.seeds} seeds; {len(sizes)} sizes from {sizes[0]} to {sizes[-1]}"
    found: dict[str, Outcome] = {
        "sweeps-linearity-rises": Noted(sweep.rank(sweep.by_seed(lambda one, size: one.least_cosine)), over),
        "sweeps-distance-falls": Noted(sweep.rank(sweep.by_seed(lambda one, size: one.middle())), over),
        "sweeps-generalisation-rises": Noted(sweep.rank(sweep.by_seed(sweep.relative_score)), over),
    }
    if len(sizes) < _RANKED:
        few = NotTested(f"a rank correlation over {len(sizes)} sizes says little: {_RANKED} or more are needed")
        found = {name: few for name in found}
    kept = len(common.marks)
    once = NotTested(f"networks were kept {kept} times in training: {_KEPT} or more are needed")
    found["sweeps-wide-memorises"] = _memorises(sweep) if kept >= _KEPT else once
    found["sweeps-narrow-stays"] = _stays(sweep) if kept >= _KEPT else once
    middle, linear = intermediate(sweep.sigmas), sweep.linear
    memorising, generalising = (
        np.array([float(one["linear_gaussian"][middle].mean()) for one in linear[kind]])
        for kind in ("memorising", "generalising")
    )
    nearer = [
        float((one["linear_gaussian"] - one["network_gaussian"])[middle].mean()) for one in linear["generalising"]
    ]
    seeds, largest = f"{common.seeds} seeds", f"the largest training set has {sizes[-1]:,} images"
    found["sweeps-linear-nearer"] = Noted(analysis.t_interval(nearer), f"{seeds}; {largest}")
    further = analysis.t_interval(memorising - generalising)
    found["sweeps-linear-memorising"] = Noted(further, f"{seeds}; {largest}")
    return found


def _course(sweep: Sweep, width: int, quantity: Callable[[Measured], float]) -> np.ndarray:
    """A quantity of the networks on little data over training, ``(seeds, checkpoints)``."""
    return np.array([[quantity(one) for one in measured] for measured in sweep.widths_found[width]])


def _memorises(sweep: Sweep) -> dict[str, Outcome]:
    peak = _course(sweep, sweep.wide, lambda one: one.peak)
    mean = _course(sweep, sweep.wide, lambda one: one.middle())
    lasts = [measured[-1] for measured in sweep.widths_found[sweep.wide]]
    scores = np.array([float(one.score.value) for one in lasts])
    relative = [sweep.relative_score(one, sweep.little) for one in lasts]
    of_means = f"of the mean over these levels {(mean.min(axis=1) / mean[:, -1]).mean():.3f}"
    fresh = f"held-out images score {float(np.mean(sweep.fresh[sweep.little])):.3f}"
    return {
        "min-over-final": Noted(analysis.t_interval(peak.min(axis=1) / peak[:, -1]), of_means),
        "min-over-first": analysis.t_interval(peak.min(axis=1) / peak[:, 0]),
        "gl-final": analysis.t_interval(scores),
        "gl-final-relative": Noted(analysis.t_interval(relative), fresh),
    }


def _stays(sweep: Sweep) -> Noted:
    peak = _course(sweep, sweep.narrow, lambda one: one.peak)
    mean = _course(sweep, sweep.narrow, lambda one: one.middle())
    of_means = f"of the mean over these levels {(mean[:, -1] / mean.min(axis=1)).mean():.3f}"
    seeds = f"{sweep.trainer.config.seeds} seeds"
    return Noted(analysis.t_interval(peak[:, -1] / peak.min(axis=1)), f"{seeds}; {of_means}")
