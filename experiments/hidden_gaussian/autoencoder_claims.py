"""What the study says of its autoencoders: distances at intermediate noise, linearity, singular vectors."""

from collections.abc import Mapping

import numpy as np

from dgu import analysis
from experiments.hidden_gaussian import by_level, singular_vectors
from experiments.hidden_gaussian.autoencoder_networks import SHOWN
from experiments.hidden_gaussian.linearity import SCORE
from experiments.hidden_gaussian.subject import GAUSSIAN, NETWORK, POINTS
from experiments.study import Claim, Measured, Noted, at_least, at_most, each, equivalent

_UNIT = "(RMSE, pixel units)"
_MIDDLE = (
    "At intermediate noise (sigma from 1.5 to 10, or else the level nearest to 4), every autoencoder (one part each)"
)
#: Distances up to which denoisers are the same, and equally far from another; least score of linearity.
_SAME, _AS_FAR, _LINEAR = 0.04, 0.05, 0.96
#: Noise level below the highest at which Jacobians are compared.
_LOWER = 1.5

CLAIMS = (
    Claim(
        "autoencoders-linear",
        "A linear map trained as an autoencoder at one noise level equals the Gaussian denoiser, to a distance of at "
        f"most {_SAME:g}, whatever the level (value: the largest over noise levels).",
        at_most(_SAME),
        source="Fig 24",
        unit=_UNIT,
        one_network=True,
    ),
    Claim(
        "autoencoders-peak",
        f"{_MIDDLE} is farther from the Gaussian denoiser than at the other levels (value: mean distance at these "
        "levels minus mean distance at the others).",
        each(at_least(0.0)),
        source="Fig 24",
        unit=_UNIT,
        one_network=True,
    ),
    Claim(
        "autoencoders-like-network",
        f"{_MIDDLE} is as far from the Gaussian denoiser as the diffusion network is, within {_AS_FAR:g} (value: the "
        "autoencoder's distance minus the network's, mean over levels).",
        each(equivalent(_AS_FAR)),
        source="Fig 24",
        unit=_UNIT,
        one_network=True,
    ),
    Claim(
        "autoencoders-not-memorising",
        f"{_MIDDLE} is nearer to the Gaussian denoiser than to the multi-delta denoiser (value: distance to the "
        "multi-delta denoiser minus distance to the Gaussian denoiser, mean over levels).",
        each(at_least(0.0)),
        source="Fig 24",
        unit=_UNIT,
        one_network=True,
    ),
    Claim(
        "autoencoders-agree",
        f"{_MIDDLE} is nearer to the diffusion network than the Gaussian denoiser is (value: the Gaussian denoiser's "
        "distance to the network minus the autoencoder's, mean over levels).",
        each(at_least(0.0)),
        source="Fig 24",
        unit=_UNIT,
        paper="own",
        one_network=True,
    ),
    Claim(
        "autoencoders-linearity",
        f"Every autoencoder (one part each) is nearly linear: its {SCORE} is at least {_LINEAR:g} at every noise level "
        "(value: the least over noise levels).",
        each(at_least(_LINEAR)),
        one_network=True,
    ),
    Claim(
        "autoencoders-jacobian-high-noise",
        "At the highest noise level the three leading left singular vectors of every autoencoder's Jacobian (one part "
        "each) are the first three principal components of the training images: each vector's |cosine| with the "
        f"component of its rank is at least {singular_vectors.ALIKE:g} (value: the least of the three, mean over noisy "
        "images).",
        each(at_least(singular_vectors.ALIKE)),
        source="Fig 29",
        unit="|cosine|",
        one_network=True,
    ),
    Claim(
        "autoencoders-jacobian-adaptive",
        f"At the noise level nearest to {_LOWER:g} the three leading left singular vectors of every autoencoder's "
        "Jacobian (one part each) are adapted to the image: their |cosine| with the principal components of their rank "
        "is lower than at the highest noise level (value: the fall, mean over vectors and noisy images).",
        each(at_least(0.0)),
        source="Fig 29",
        unit="|cosine|",
        one_network=True,
    ),
)


def middle_levels(sigmas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the levels from 1.5 to 10 (of the level nearest to 4, if these are none or all); and of the others."""
    inside = (sigmas >= 1.5 * (1 - 1e-6)) & (sigmas <= 10.0)
    if not inside.any() or inside.all():
        inside = np.arange(len(sigmas)) == np.argmin(np.abs(np.log(sigmas / 4.0)))
    return np.flatnonzero(inside), np.flatnonzero(~inside)


def tested(
    nets: list[str],
    found: analysis.ScoreDistances,
    straight: Mapping[str, analysis.LinearityScores],
    leading: Mapping[str, np.ndarray],
) -> dict[str, Measured]:
    """What was measured for each claim: of the autoencoders ``nets``, the distances between all denoisers, linearity
    scores and the correlation of the leading singular vectors with principal components, ``(levels, points,
    vectors)``."""
    sigmas = found.sigmas
    middle, others = middle_levels(sigmas)
    # The level nearest to the lower one, or the lowest if that is the highest.
    low = int(np.argmin(np.abs(np.log(sigmas / _LOWER)))) or len(sigmas) - 1
    where = f"At sigma = {by_level.listed(sigmas[middle])}."
    between = f"From sigma = {sigmas[0]:.3g} to {sigmas[low]:.3g}."

    def apart(a: str, b: str, levels: np.ndarray = middle) -> np.ndarray:
        """The RMSE between two denoisers on every image, mean over levels."""
        pair = found.differences[:, found.names.index(a), found.names.index(b)]
        return pair[levels].mean(axis=0) / np.sqrt(found.dimension)

    differences = {
        "autoencoders-peak": {net: apart(net, GAUSSIAN) - apart(net, GAUSSIAN, others) for net in nets},
        "autoencoders-like-network": {net: apart(net, GAUSSIAN) - apart(NETWORK, GAUSSIAN) for net in nets},
        "autoencoders-not-memorising": {net: apart(net, POINTS) - apart(net, GAUSSIAN) for net in nets},
        "autoencoders-agree": {net: apart(GAUSSIAN, NETWORK) - apart(net, NETWORK) for net in nets},
    }
    return {
        "autoencoders-linear": by_level.largest(found.rmse(SHOWN["linear"], GAUSSIAN), sigmas, "Largest at {}."),
        **{
            claim: {net: Noted(analysis.t_interval(difference), where) for net, difference in of_nets.items()}
            for claim, of_nets in differences.items()
        },
        "autoencoders-linearity": {
            net: by_level.least(straight[net].cosine()[:, 0], sigmas, "Least at {}.") for net in nets
        },
        "autoencoders-jacobian-high-noise": {
            net: singular_vectors.weakest(leading[net][0], "This is {}.") for net in nets
        },
        "autoencoders-jacobian-adaptive": {
            net: Noted(singular_vectors.fall(leading[net][0], leading[net][low]), between) for net in nets
        },
    }
