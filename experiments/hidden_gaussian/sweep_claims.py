"""Claims on the sweeps: ranks over training-set sizes, the course of training on little data, linear maps."""

import numpy as np

from dgu import analysis
from experiments.hidden_gaussian.sweep_results import Sweep
from experiments.hidden_gaussian.trainer import intermediate, summaries
from experiments.study import Claim, Measured, Noted, NotTested, all_of, at_least, at_most

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
                *(
                    Claim(name, statement, at_most(bound), source="Fig 8")
                    for name, statement, bound in (
                        ("min-over-final", f"The least {peak} during training is at most 0.8 of the last one.", 0.8),
                        (
                            "min-over-first",
                            f"The least {peak} during training is at most 0.8 of the first one measured.",
                            0.8,
                        ),
                        (
                            "gl-final",
                            "At the end of training the generalisation score (14) of the samples is at most 0.3.",
                            0.3,
                        ),
                        (
                            "gl-final-relative",
                            "At the end of training the generalisation score of the samples is at most half of that "
                            "of held-out images.",
                            0.5,
                        ),
                    )
                )
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
            "network is (value: the difference of the distances).",
            at_most(0.0),
            source="Fig 5",
            unit=_UNIT,
        ),
        Claim(
            "sweeps-linear-memorising",
            f"The best linear map is farther from the Gaussian denoiser if the network memorises ({few}) than if it "
            "generalises (the largest training set; value: the difference of the distances).",
            at_least(0.0),
            source="Fig 5",
            unit=_UNIT,
        ),
    )


def tested(sweep: Sweep) -> dict[str, Measured]:
    """What was measured for each claim."""
    common, sizes = sweep.design.config, sweep.sizes
    seeds, over = f"{common.seeds} seeds", f"{len(sizes)} sizes from {sizes[0]} to {sizes[-1]}"
    relative = sweep.over_sizes("score") / [sweep.fresh_mean(size) for size in sizes]
    ranked = {
        "sweeps-linearity-rises": sweep.over_sizes("least_cosine"),
        "sweeps-distance-falls": sweep.over_sizes("own"),
        "sweeps-generalisation-rises": relative,
    }
    found: dict[str, Measured] = {
        name: Noted(analysis.t_interval(analysis.rank_correlation(sizes, values), bounds=(-1, 1)), f"{seeds}; {over}")
        for name, values in ranked.items()
    }
    if len(sizes) < _RANKED:
        few = NotTested(f"a rank correlation over {len(sizes)} sizes says little: {_RANKED} or more are needed")
        found = dict.fromkeys(ranked, few)
    kept = len(common.marks)
    once = NotTested(f"networks were kept {kept} times in training: {_KEPT} or more are needed")
    found["sweeps-wide-memorises"] = _memorises(sweep) if kept >= _KEPT else once
    found["sweeps-narrow-stays"] = _stays(sweep) if kept >= _KEPT else once
    middle, linear = intermediate(sweep.sigmas), sweep.linear
    to_gaussian = {
        kind: np.array([one["linear_gaussian"][middle].mean() for one in each]) for kind, each in linear.items()
    }
    nearer = [(one["linear_gaussian"] - one["network_gaussian"])[middle].mean() for one in linear["generalising"]]
    note = f"{seeds}; the largest training set has {sizes[-1]:,} images"
    found["sweeps-linear-nearer"] = Noted(analysis.t_interval(nearer), note)
    further = analysis.t_interval(to_gaussian["memorising"] - to_gaussian["generalising"])
    found["sweeps-linear-memorising"] = Noted(further, note)
    return found


def _memorises(sweep: Sweep) -> dict[str, Measured]:
    wide = sweep.widths_found[sweep.wide]
    peak, mean, score = (summaries(wide, quantity) for quantity in ("peak", "own", "score"))
    fresh = sweep.fresh_mean(sweep.little)
    of_means = f"of the mean over these levels {(mean.min(axis=1) / mean[:, -1]).mean():.3f}"
    return {
        "min-over-final": Noted(analysis.t_interval(peak.min(axis=1) / peak[:, -1]), of_means),
        "min-over-first": analysis.t_interval(peak.min(axis=1) / peak[:, 0]),
        "gl-final": analysis.t_interval(score[:, -1]),
        "gl-final-relative": Noted(analysis.t_interval(score[:, -1] / fresh), f"held-out images score {fresh:.3f}"),
    }


def _stays(sweep: Sweep) -> Noted:
    peak, mean = (summaries(sweep.widths_found[sweep.narrow], quantity) for quantity in ("peak", "own"))
    of_means = f"of the mean over these levels {(mean[:, -1] / mean.min(axis=1)).mean():.3f}"
    seeds = f"{sweep.design.config.seeds} seeds"
    return Noted(analysis.t_interval(peak[:, -1] / peak.min(axis=1)), f"{seeds}; {of_means}")
