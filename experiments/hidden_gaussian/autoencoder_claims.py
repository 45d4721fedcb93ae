"""What the study says of its autoencoders: distances at intermediate noise, linearity, singular vectors."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from dgu import analysis
from dgu.analysis.stats.estimates import Estimate
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
        "The linear autoencoder equals the Gaussian denoiser at every noise level (the largest distance is shown).",
        at_most(0.04),
        source="Fig 24",
        unit=_UNIT,
    ),
    Claim(
        "autoencoders-peak",
        f"{_MIDDLE} every autoencoder is further from the Gaussian denoiser than at the other levels (the excess is "
        "shown).",
        each(at_least(0.0)),
        source="Fig 24",
        unit=_UNIT,
    ),
    Claim(
        "autoencoders-like-network",
        f"{_MIDDLE} every autoencoder is as far from the Gaussian denoiser as the diffusion network is (the "
        "difference of the distances is shown).",
        each(equivalent(0.05)),
        source="Fig 24",
        unit=_UNIT,
    ),
    Claim(
        "autoencoders-not-memorising",
        f"{_MIDDLE} every autoencoder is nearer to the Gaussian denoiser than to the multi-delta denoiser (the "
        "difference of the distances is shown).",
        each(at_least(0.0)),
        source="Fig 24",
        unit=_UNIT,
    ),
    Claim(
        "autoencoders-agree",
        f"{_MIDDLE} every autoencoder is nearer to the diffusion network than the Gaussian denoiser is (the "
        "difference of the distances is shown).",
        each(at_least(0.0)),
        source="Fig 24",
        unit=_UNIT,
        paper="own",
    ),
    Claim(
        "autoencoders-linearity",
        "The cosine score of linearity of every autoencoder stays high (the least over noise levels is shown).",
        each(at_least(0.96)),
    ),
    Claim(
        "autoencoders-jacobian-high-noise",
        "At the highest noise level the three leading singular vectors of every autoencoder's Jacobian are the first "
        "three principal components of the training images (the weakest correlation is shown).",
        each(at_least(0.95)),
        source="Fig 29",
        unit="|cosine|",
    ),
    Claim(
        "autoencoders-jacobian-adaptive",
        f"At the noise level nearest to {_LOWER:g} the singular vectors of every autoencoder's Jacobian are adapted "
        "to the image: they correlate less with the principal components than at the highest noise level (the fall "
        "is shown).",
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
    where = f"at sigma = {', '.join(f'{sigma:.3g}' for sigma in sigmas[middle])}"
    linear = found.rmse(SHOWN["linear"], GAUSSIAN)
    worst = int(np.argmax(np.asarray(linear.value)))
    apart = partial(_mean_distance, found)

    def each_net(difference: Callable[[str], np.ndarray]) -> dict[str, Noted]:
        """The mean over images of a difference of distances, for each autoencoder."""
        return {name: Noted(analysis.t_interval(difference(name)), where) for name in nets}

    return {
        "autoencoders-linear": Noted(linear[worst], f"largest at sigma = {sigmas[worst]:.3g}"),
        "autoencoders-peak": each_net(lambda net: apart(net, GAUSSIAN, middle) - apart(net, GAUSSIAN, others)),
        "autoencoders-like-network": each_net(
            lambda net: apart(net, GAUSSIAN, middle) - apart(NETWORK, GAUSSIAN, middle)
        ),
        "autoencoders-not-memorising": each_net(lambda net: apart(net, POINTS, middle) - apart(net, GAUSSIAN, middle)),
        "autoencoders-agree": each_net(lambda net: apart(GAUSSIAN, NETWORK, middle) - apart(net, NETWORK, middle)),
        "autoencoders-linearity": {name: _least_cosine(straight[name]) for name in nets},
        "autoencoders-jacobian-high-noise": {name: _weakest(leading[name]) for name in nets},
        "autoencoders-jacobian-adaptive": {name: _fall(leading[name], sigmas) for name in nets},
    }


def _mean_distance(found: analysis.ScoreDistances, a: str, b: str, levels: np.ndarray) -> np.ndarray:
    """The RMSE between two denoisers on every image, mean over levels."""
    pair = found.differences[:, found.names.index(a), found.names.index(b)]
    return pair[levels].mean(axis=0) / np.sqrt(found.dimension)


def _least_cosine(scores: analysis.LinearityScores) -> Noted:
    cosine = scores.cosine()
    worst = int(np.argmin(np.asarray(cosine.value)[:, 0]))
    return Noted(cosine[worst, 0], f"least at sigma = {scores.sigmas[worst]:.3g}")


def _weakest(leading: np.ndarray) -> Noted:
    """Of the leading vectors at the highest level."""
    weakest = analysis.t_interval(leading[0].T, bounds=(0, 1))
    place = int(np.argmin(np.asarray(weakest.value)))
    return Noted(weakest[place], f"vector {place + 1}")


def _fall(leading: np.ndarray, sigmas: np.ndarray) -> Noted:
    """From the highest level to that nearest to ``_LOWER``, or to the lowest if these are the same."""
    low = int(np.argmin(np.abs(np.log(sigmas / _LOWER)))) or len(sigmas) - 1
    fall: Estimate = analysis.t_interval(leading[0].mean(axis=1) - leading[low].mean(axis=1), bounds=(-1, 1))
    return Noted(fall, f"from sigma = {sigmas[0]:.3g} to {sigmas[low]:.3g}")
