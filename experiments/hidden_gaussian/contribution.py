"""What the network adds to its skip: is that linear, and not what any network with this preconditioning would add?

The cosine of linearity of a whole denoiser is 1 for the skip ``c_skip x`` alone, and high for whatever adds little to
it or the same to every image. The statistic that decides was therefore chosen, before any of its values was known, so
that it sees neither: of the contribution ``G = D - c_skip x``, the correlation of G at a mix of three noisy images with
that mix of G, both centred (``dgu.analysis.contribution_scores``). It is 1 for every affine map, which the paper's
cosine is not, and needs no fitted map, whose error would pass for nonlinearity. A smooth random network may have a high
score, too: so what the network adds must also be of use, which a random network's is not; and nearer to affine than
what the multi-delta denoiser adds, which should fail.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dgu import analysis, plots
from experiments.hidden_gaussian import by_level
from experiments.hidden_gaussian.distances import MIDDLE
from experiments.hidden_gaussian.subject import GAUSSIAN, NETWORK, POINTS, RANDOM, SKIP
from experiments.study import Claim, Figure, Measured, NotTested, Table, all_of, at_least, at_most, each

#: Denoisers whose contribution is measured; the bare skip has none.
NAMES = (NETWORK, GAUSSIAN, POINTS, RANDOM)
#: Least score of what is nearly affine. Where it is reached at least 77 % of the variance is linear if all the rest is
#: quadratic, and 90 % if the rest is of high degree.
_AFFINE = 0.9

_AT = f"at intermediate noise (sigma from {MIDDLE[0]:g} to {MIDDLE[1]:g})"
_SCORE = (
    "correlation between its value at a mix of three noisy images and that mix of its values, which is 1 for affine "
    "maps alone"
)
CLAIM = Claim(
    "linearity-contribution",
    "The network is nearly linear beyond what its preconditioning alone gives: what it adds to the skip c_skip x, the "
    f"noisy image as its preconditioning scales it, is {_AT} nearly affine, more so than what the multi-delta denoiser "
    f"adds, and of use. (Three parts: the {_SCORE}, "
    f"is at least {_AFFINE:g} at every such level; its mean over these levels is above that of what the multi-delta "
    "denoiser adds; and the variance of the error is, relative to that of the skip alone, at most 1, mean over these "
    "levels.)",
    all_of(
        Claim(
            "contribution-affine",
            f"What the network adds to the skip is nearly affine {_AT}: the {_SCORE}, is at least {_AFFINE:g} at every "
            "such noise level.",
            each(at_least(_AFFINE)),
        ),
        Claim(
            "contribution-over-multi-delta",
            f"What the network adds to the skip is nearer to affine {_AT} than what the multi-delta denoiser adds to "
            f"it (value: the {_SCORE}, of the network minus that of the multi-delta denoiser, mean over levels).",
            at_least(0.0),
        ),
        Claim(
            "contribution-of-use",
            f"What the network adds to the skip is of use {_AT}: it lowers the variance of the error (value: the "
            "variance of the denoised image less the clean one, over that of the skip less the clean image, mean over "
            "levels).",
            at_most(1.0),
        ),
    ),
    note="Declared when the cosine of linearity of the whole denoiser was known for the network and for its controls, "
    "and before any value of these statistics.",
)
FIGURE = Figure(
    "linearity_contribution",
    "What each denoiser adds to the skip c_skip x: how nearly it is affine (correlation between its value at a mix of "
    "three noisy images and that mix of its values; 1 for affine maps), and the variance of the error over that of the "
    "skip alone. Bands: 95 % intervals over triples of images. The bare skip adds nothing, and so does an untrained "
    "network whose last layer starts at zero: of the untrained network here that layer is random.",
)


def tested(found: Mapping[str, analysis.ContributionScores]) -> Measured:
    """What was measured for the claim."""
    sigmas = found[NETWORK].sigmas
    middle = np.flatnonzero(_middle(sigmas))
    if not len(middle):
        return NotTested(f"of the noise levels {by_level.listed(sigmas)} none is intermediate")
    affine = found[NETWORK].linearity()
    (ours, our_parts), (theirs, their_parts) = (found[name].linearity_parts() for name in (NETWORK, POINTS))
    remaining, remaining_parts = found[NETWORK].remaining_parts()
    return {
        "contribution-affine": {f"sigma = {sigmas[level]:.3g}": affine[level] for level in middle},
        "contribution-over-multi-delta": _mean((ours - theirs)[middle], (our_parts - their_parts)[middle], (-2, 2)),
        "contribution-of-use": _mean(remaining[middle], remaining_parts[middle], (0, np.inf)),
    }


def _middle(sigmas: np.ndarray) -> np.ndarray:
    return (sigmas >= MIDDLE[0]) & (sigmas <= MIDDLE[1])


def _mean(whole: np.ndarray, without: np.ndarray, bounds: tuple[float, float]) -> analysis.Estimate:
    """The mean over levels, with its interval by leaving out triples."""
    return analysis.jackknife_interval(whole.mean(), without.mean(axis=0), bounds=bounds)


def in_words(found: Mapping[str, analysis.ContributionScores]) -> str:
    """What the network and its controls score, in two sentences; nothing if no level is intermediate."""
    sigmas = found[NETWORK].sigmas
    middle = _middle(sigmas)
    if not middle.any():
        return ""
    affine = {name: scores.linearity_parts()[0] for name, scores in found.items()}
    least = ", ".join(f"{name} {values[middle].min():.3f}" for name, values in affine.items())
    use = ", ".join(f"{name} {scores.remaining_parts()[0][middle].mean():.3f}" for name, scores in found.items())
    ours = affine[NETWORK]
    return (
        f"The correlation of what a denoiser adds to the skip, which is 1 for affine maps alone, is {_AT} at least: "
        f"{least}; that of the network is over all noise levels at least {ours.min():.3f} (at sigma = "
        f"{sigmas[ours.argmin()]:.2g}). The variance of the error "
        f"over that of the skip alone, mean over the intermediate levels, is: {use}. The bare skip adds nothing."
    )


def figure(found: Mapping[str, analysis.ContributionScores]) -> Any:
    """Both scores over noise levels."""
    sigmas = found[NETWORK].sigmas
    affine = {name: scores.linearity() for name, scores in found.items()}
    remaining = {name: scores.remaining() for name, scores in found.items()}
    return plots.level_curves(
        [
            plots.LevelPanel("what is added to the skip", "correlation (1: affine)", sigmas, affine),
            plots.LevelPanel(
                "its use", "variance of the error / that of the skip", sigmas, remaining, log=True, marks={SKIP: 1.0}
            ),
        ],
        columns=2,
    )


def metrics(found: Mapping[str, analysis.ContributionScores]) -> dict[str, dict[str, np.ndarray]]:
    """Both scores at each level, by name."""
    return {
        name: {"correlation": scores.linearity_parts()[0], "remaining": scores.remaining_parts()[0]}
        for name, scores in found.items()
    }


def table(found: Mapping[str, analysis.ContributionScores]) -> Table:
    """Both scores at each level."""
    measured = metrics(found)
    columns = {"sigma": found[NETWORK].sigmas}
    columns |= {f"correlation, {name}": scores["correlation"] for name, scores in measured.items()}
    columns |= {f"error variance over the skip's, {name}": scores["remaining"] for name, scores in measured.items()}
    return by_level.table("What is added to the skip", columns)
