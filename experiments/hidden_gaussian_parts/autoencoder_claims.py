"""What the study says of its autoencoders: distances at intermediate noise, linearity, singular vectors."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dgu import analysis
from experiments.hidden_gaussian_parts.autoencoder_networks import SHOWN
from experiments.hidden_gaussian_parts.subject import PAPER, bounded
from experiments.study.judged import JudgedClaim

#: Names of the denoisers that are not autoencoders.
EDM, GAUSSIAN, POINTS = "network", "Gaussian", "multi-delta"


def middle_levels(sigmas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of the levels from 1.5 to 10, or of that next to 4 where there is none, and of the others."""
    inside = (sigmas >= 1.5 * (1 - 1e-6)) & (sigmas <= 10.0)
    if not inside.any() or inside.all():
        inside = np.arange(len(sigmas)) == np.argmin(np.abs(np.log(sigmas / 4.0)))
    return np.flatnonzero(inside), np.flatnonzero(~inside)


def _all_of(nets: list[str], one: Any, **about: Any) -> JudgedClaim:
    """A claim on every network: ``one(name, **about)`` makes that of each."""
    parts = [one(name, **about | {"id": f"{about['id']}-{name}", "statement": f"{name}."}) for name in nets]
    return JudgedClaim.all_of(parts, **{name: about[name] for name in ("id", "paper", "figure", "statement")})  # fmt: skip


def distance_claims(
    nets: list[str], sigmas: np.ndarray, found: analysis.ScoreDistances, rmse: Mapping[str, Any], straight: Mapping[str, Any]
) -> list[JudgedClaim]:  # fmt: skip
    middle, others = middle_levels(sigmas)
    where = f"sigma = {', '.join(f'{sigma:.3g}' for sigma in sigmas[middle])}"

    def each(a: str, b: str, places: np.ndarray) -> np.ndarray:
        """The RMSE of every image, mean over levels."""
        pair = found.differences[:, found.names.index(a), found.names.index(b)]
        return pair[places].mean(axis=0) / np.sqrt(found.dimension)

    def mean(kind: str, values: np.ndarray, bound: float, **about: Any) -> JudgedClaim:
        interval = analysis.t_interval(values)
        limits = (float(interval.low), float(interval.high))
        if kind == "equivalent":
            return JudgedClaim.equivalent(estimate=float(interval.estimate), interval=limits, margin=bound, **about)
        return JudgedClaim.at_least(value=float(interval.estimate), interval=limits, threshold=bound, **about)

    def peak(name: str, **about: Any) -> JudgedClaim:
        return mean("at_least", each(name, GAUSSIAN, middle) - each(name, GAUSSIAN, others), 0.0, **about)

    def like(name: str, **about: Any) -> JudgedClaim:
        return mean("equivalent", each(name, GAUSSIAN, middle) - each(EDM, GAUSSIAN, middle), 0.05, **about)

    def new(name: str, **about: Any) -> JudgedClaim:
        return mean("at_least", each(name, POINTS, middle) - each(name, GAUSSIAN, middle), 0.0, **about)

    def agree(name: str, **about: Any) -> JudgedClaim:
        return mean("at_least", each(GAUSSIAN, EDM, middle) - each(name, EDM, middle), 0.0, **about)

    def linear(name: str, **about: Any) -> JudgedClaim:
        cosine = straight[name].cosine()
        worst = int(np.argmin(cosine.estimate[:, 0]))
        low, high = float(cosine.low[worst, 0]), float(cosine.high[worst, 0])
        note = f"least at sigma = {sigmas[worst]:.3g}"
        return JudgedClaim.at_least(value=float(cosine.estimate[worst, 0]), interval=(low, high), threshold=0.96, note=note, **about)  # fmt: skip

    pixels = {"unit": "(RMSE, pixel units)", "figure": "Fig 24"}
    name = SHOWN["linear"]
    worst = int(np.argmax(rmse[name].estimate))
    return [
        bounded("at_most", rmse[name], worst, 0.04, id="autoencoders-linear", **pixels, note=f"largest at sigma = {sigmas[worst]:.3g}",
                statement="The linear autoencoder is the Gaussian denoiser at every noise level (the largest distance is shown)."),
        _all_of(nets, peak, id="autoencoders-peak", paper=PAPER, **pixels,
                statement=f"Autoencoders are furthest from the Gaussian denoiser at intermediate noise ({where}): the excess over the other levels."),
        _all_of(nets, like, id="autoencoders-like-network", paper=PAPER, **pixels,
                statement=f"There ({where}) they are as far from the Gaussian denoiser as the diffusion network: the difference of the distances."),
        _all_of(nets, new, id="autoencoders-not-memorising", paper=PAPER, **pixels,
                statement=f"There ({where}) they are nearer to the Gaussian than to the multi-delta denoiser: the difference of the distances."),
        _all_of(nets, agree, id="autoencoders-agree", paper="own", **pixels,
                statement=f"There ({where}) they are nearer to the diffusion network than the Gaussian denoiser is: the difference of the distances."),
        _all_of(nets, linear, id="autoencoders-linearity", paper="own", figure="", unit="",
                statement="The cosine score of linearity of every autoencoder stays high (the least over levels is shown)."),
    ]  # fmt: skip


def jacobian_claims(nets: list[str], sigmas: np.ndarray, leading: Mapping[str, np.ndarray]) -> list[JudgedClaim]:
    high, low = 0, int(np.argmin(np.abs(np.log(sigmas / 1.5))))
    low = low if low != high else len(sigmas) - 1

    def aligned(name: str, **about: Any) -> JudgedClaim:
        weakest = analysis.t_interval(leading[name][high].T, bounds=(0, 1))
        place = int(np.argmin(weakest.estimate))
        limits = (float(weakest.low[place]), float(weakest.high[place]))  # type: ignore[index]
        value = float(weakest.estimate[place])  # type: ignore[index]
        return JudgedClaim.at_least(value=value, interval=limits, threshold=0.95, note=f"vector {place + 1}", **about)

    def falls(name: str, **about: Any) -> JudgedClaim:
        fall = analysis.t_interval(leading[name][high].mean(axis=1) - leading[name][low].mean(axis=1), bounds=(-1, 1))
        limits = (float(fall.low), float(fall.high))
        return JudgedClaim.at_least(value=float(fall.estimate), interval=limits, threshold=0.0, **about)

    about = {"paper": PAPER, "figure": "Fig 29", "unit": "|cosine|"}
    return [
        _all_of(nets, aligned, id="autoencoders-jacobian-high-noise", **about,
                statement=f"At the highest noise (sigma = {sigmas[high]:.3g}) the three leading singular vectors of an autoencoder's Jacobian are the first three principal components (the weakest is shown)."),
        _all_of(nets, falls, id="autoencoders-jacobian-adaptive", **about,
                statement=f"At sigma = {sigmas[low]:.3g} they are adapted to the image: their correlation is lower (the fall is shown)."),
    ]  # fmt: skip
