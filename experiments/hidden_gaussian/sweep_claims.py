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
#: Share of a distance that is much less, and ratio up to which one has not risen; scores of samples that are copies, by
#: themselves and relative to held-out images.
_NEARS, _STAYS, _COPIES, _LESS = 0.8, 1.1, 0.3, 0.5
#: What changed of the claims on the course of training.
_LARGEST = (
    "as first written, on 22 November 2026, the distance to the Gaussian denoiser was the mean over intermediate noise "
    "levels; it was made the largest among them while the default sweep was set up."
)
_OWN_LEAST = (
    "Until 30 November 2026 each network's least distance was its own, which cannot lie above the last or the first "
    "one."
)
_SCORES = (
    "The samples' distance to the nearest training image was held to 0.3 of that of held-out images; since then it is "
    "held to 0.3 by itself, relative to the samples' norms, and to 0.5 of that of held-out images."
)
#: What changed of the samples.
_SAMPLES = "Until 1 December 2026 samples were made by 10 Heun steps; since then by the paper's 10 Euler steps."
#: What changed of the rank correlations.
_CHANGED = (
    "the rank correlation was held to {:g}, with a t interval over seeds, which has no "
    "width where all seeds agree and otherwise covers too rarely; it now has the interval of Page's exact test of "
    "trend, and is held to 0: three seeds and four sizes can show whether there is a trend, not its strength."
)


def declared(little: int, narrow: int) -> tuple[Claim, ...]:
    """What is tested, of networks on ``little`` training images, the narrow one with ``narrow`` channels."""
    few = f"{little} training images"
    peak = "distance to the Gaussian denoiser (the largest among intermediate noise levels)"
    when = "the time of the least distance is, for each seed, that of the median distance of all other seeds"
    rank = "Spearman's rank correlation of the number of training images with"
    score = "the samples' mean distance to the nearest training image, relative to their norm,"
    return (
        Claim(
            "sweeps-linearity-rises",
            "Networks are the more linear the more images they are trained on (value: "
            f"{rank} the least cosine of linearity over noise levels, mean over seeds, which is at least 0).",
            at_least(0.0),
            source="Fig 1",
            changed=_CHANGED.format(0.8),
        ),
        Claim(
            "sweeps-distance-falls",
            "Networks are the nearer to the Gaussian denoiser of their training images the more of these there are, on "
            f"noisy held-out images at intermediate noise (value: {rank} the distance, mean over seeds, which is at "
            "most 0).",
            at_most(0.0),
            source="Fig 6",
            changed=_CHANGED.format(-0.8),
        ),
        Claim(
            "sweeps-wide-memorises",
            f"On {few} the wide network first comes near to the Gaussian denoiser of these images and leaves it again "
            f"while its samples become training images. (Four parts: its {peak} at the time of the least one is at "
            f"most {_NEARS:g} of the last one, and at most {_NEARS:g} of the first; at the end, {score} is at most "
            f"{_COPIES:g}, and at most {_LESS:g} of that of held-out images; {when}.)",
            all_of(
                *(
                    Claim(name, statement, at_most(bound), source="Fig 8")
                    for name, statement, bound in (
                        (
                            "min-over-final",
                            f"The {peak} at the time of the least one is at most {_NEARS:g} of the last one ({when}).",
                            _NEARS,
                        ),
                        (
                            "min-over-first",
                            f"The {peak} at the time of the least one is at most {_NEARS:g} of the first one measured "
                            f"({when}).",
                            _NEARS,
                        ),
                        ("gl-final", f"At the end of training {score} is at most {_COPIES:g}.", _COPIES),
                        (
                            "gl-final-relative",
                            f"At the end of training {score} is at most {_LESS:g} of that of held-out images.",
                            _LESS,
                        ),
                    )
                )
            ),
            source="Fig 8",
            changed=f"{_LARGEST} {_SCORES} {_OWN_LEAST} {_SAMPLES}",
        ),
        Claim(
            "sweeps-narrow-stays",
            f"On {few} the narrow network ({narrow} channels) does not leave the Gaussian denoiser of these images: "
            f"its {peak} is at the end at most {_STAYS:g} times that at the time of the least one (value: the ratio, "
            f"mean over seeds; {when}).",
            at_most(_STAYS),
            source="Fig 7",
            changed=f"{_LARGEST} {_OWN_LEAST}",
        ),
        Claim(
            "sweeps-generalisation-rises",
            "Networks repeat their training images the less the more of these there are (value: "
            f"{rank} {score} over that of held-out images, mean over seeds, which is at least 0).",
            at_least(0.0),
            source="Fig 13",
            changed=f"{_CHANGED.format(0.8)} {_SAMPLES}",
        ),
        Claim(
            "sweeps-linear-nearer",
            "On the largest training set the network's best linear map (least squares) is nearer to the Gaussian "
            "denoiser of the training images than the network is, at intermediate noise (value: the map's distance "
            "minus the network's, mean over levels and seeds).",
            at_most(0.0),
            source="Fig 5",
            unit=_UNIT,
        ),
        Claim(
            "sweeps-linear-memorising",
            "The best linear map (least squares) of a network is farther from the Gaussian denoiser of its training "
            f"images if the network memorises ({few}) than if it generalises (the largest training set), at "
            "intermediate noise (value: the first distance minus the second, mean over levels and seeds).",
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
    few = NotTested(f"a rank correlation over {len(sizes)} sizes says little: {_RANKED} or more are needed")
    found: dict[str, Measured] = {
        name: few if len(sizes) < _RANKED else Noted(analysis.rank_trend(sizes, values), f"{seeds}; {over} images.")
        for name, values in ranked.items()
    }
    kept = len(common.marks)
    once = NotTested(f"networks were kept {kept} times in training: {_KEPT} or more are needed")
    found["sweeps-wide-memorises"] = _memorises(sweep) if kept >= _KEPT else once
    found["sweeps-narrow-stays"] = _stays(sweep) if kept >= _KEPT else once
    middle, linear = intermediate(sweep.sigmas), sweep.linear
    to_gaussian = {
        size: np.array([one["linear_gaussian"][middle].mean() for one in linear[size]])
        for size in (sweep.little, sizes[-1])
    }
    nearer = [(one["linear_gaussian"] - one["network_gaussian"])[middle].mean() for one in linear[sizes[-1]]]
    note = f"{seeds}; the largest training set has {sizes[-1]:,} images."
    found["sweeps-linear-nearer"] = Noted(analysis.t_interval(nearer), note)
    further = analysis.t_interval(to_gaussian[sweep.little] - to_gaussian[sizes[-1]])
    found["sweeps-linear-memorising"] = Noted(further, note)
    return found


def _memorises(sweep: Sweep) -> dict[str, Measured]:
    wide = sweep.widths_found[sweep.widest]
    peak, mean, score = (summaries(wide, quantity) for quantity in ("peak", "own", "score"))
    fresh = sweep.fresh_mean(sweep.little)
    of_means = f"For the mean over these levels the ratio is {(nearest(mean) / mean[:, -1]).mean():.3f}."
    return {
        "min-over-final": Noted(analysis.t_interval(nearest(peak) / peak[:, -1]), of_means),
        "min-over-first": analysis.t_interval(nearest(peak) / peak[:, 0]),
        "gl-final": analysis.t_interval(score[:, -1], bounds=(0, np.inf)),
        "gl-final-relative": Noted(
            analysis.t_interval(score[:, -1] / fresh, bounds=(0, np.inf)), f"That of held-out images is {fresh:.3f}."
        ),
    }


def _stays(sweep: Sweep) -> Noted:
    peak, mean = (summaries(sweep.widths_found[sweep.narrow], quantity) for quantity in ("peak", "own"))
    of_means = f"for the mean over these levels the ratio is {(mean[:, -1] / nearest(mean)).mean():.3f}."
    seeds = f"{sweep.design.config.seeds} seeds"
    return Noted(analysis.t_interval(peak[:, -1] / nearest(peak)), f"{seeds}; {of_means}")


def nearest(course: np.ndarray) -> np.ndarray:
    """Each seed's value, of (seeds, checkpoints), at the checkpoint at which the median of the others is least."""
    return course[np.arange(len(course)), analysis.least_of_others(course)]
