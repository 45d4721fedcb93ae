"""What the study says of its autoencoders: distances at intermediate noise, linearity, singular vectors."""

from collections.abc import Mapping

import numpy as np

from dgu import analysis
from experiments.hidden_gaussian import by_level, singular_vectors
from experiments.hidden_gaussian.autoencoder_networks import SHOWN
from experiments.hidden_gaussian.subject import GAUSSIAN, NETWORK, POINTS
from experiments.study import Claim, Measured, Noted, at_least, at_most, each, equivalent

_UNIT = "(RMSE, pixel units)"
_MIDDLE = "At intermediate noise (sigma from 1.5 to 10, or the level nearest to 4)"
#: Noise level below the highest at which Jacobians are compared.
_LOWER = 1.5

CLAIMS = (
    Claim(
        "autoencoders-linear",
        "The linear autoencoder equals the Gaussian denoiser at every noise level (value: the largest distance).",
        at_most(0.04),
        source="Fig 24",
        unit=_UNIT,
    ),
    Claim(
        "autoencoders-peak",
        f"{_MIDDLE} every autoencoder is further from the Gaussian denoiser than at the other levels (value: the "
        "excess).",
        each(at_least(0.0)),
        source="Fig 24",
        unit=_UNIT,
    ),
    Claim(
        "autoencoders-like-network",
        f"{_MIDDLE} every autoencoder is as far from the Gaussian denoiser as the diffusion network is (value: the "
        "difference of the distances).",
        each(equivalent(0.05)),
        source="Fig 24",
        unit=_UNIT,
    ),
    Claim(
        "autoencoders-not-memorising",
        f"{_MIDDLE} every autoencoder is nearer to the Gaussian denoiser than to the multi-delta denoiser (value: the "
        "difference of the distances).",
        each(at_least(0.0)),
        source="Fig 24",
        unit=_UNIT,
    ),
    Claim(
        "autoencoders-agree",
        f"{_MIDDLE} every autoencoder is nearer to the diffusion network than the Gaussian denoiser is (value: the "
        "difference of the distances).",
        each(at_least(0.0)),
        source="Fig 24",
        unit=_UNIT,
        paper="own",
    ),
    Claim(
        "autoencoders-linearity",
        "The cosine score of linearity of every autoencoder stays high (value: the least over noise levels).",
        each(at_least(0.96)),
    ),
    Claim(
        "autoencoders-jacobian-high-noise",
        "At the highest noise level the three leading singular vectors of every autoencoder's Jacobian are the first "
        "three principal components of the training images (value: the weakest correlation).",
        each(at_least(0.95)),
        source="Fig 29",
        unit="|cosine|",
    ),
    Claim(
        "autoencoders-jacobian-adaptive",
        f"At the noise level nearest to {_LOWER:g} the singular vectors of every autoencoder's Jacobian are adapted "
        ""
        "to the image: they correlate less with the principal components than at the highest noise level (value: the "
        "fall).",
        each(at_least(0.0)),
        source="Fig 29",
        unit="|cosine|",
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
    where = f"at sigma = {by_level.listed(sigmas[middle])}"
    between = f"from sigma = {sigmas[0]:.3g} to {sigmas[low]:.3g}"

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
        "autoencoders-linear": by_level.largest(found.rmse(SHOWN["linear"], GAUSSIAN), sigmas, "largest at {}"),
        **{
            claim: {net: Noted(analysis.t_interval(difference), where) for net, difference in of_nets.items()}
            for claim, of_nets in differences.items()
        },
        "autoencoders-linearity": {
            net: by_level.least(straight[net].cosine()[:, 0], sigmas, "least at {}") for net in nets
        },
        "autoencoders-jacobian-high-noise": {net: singular_vectors.weakest(leading[net][0], "{}") for net in nets},
        "autoencoders-jacobian-adaptive": {
            net: Noted(singular_vectors.fall(leading[net][0], leading[net][low]), between) for net in nets
        },
    }
