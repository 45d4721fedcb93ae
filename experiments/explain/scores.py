"""How near a denoiser is to the network on the same inputs: by image, by level, by pixel; and what is chosen on other
images than it is judged on."""

import numpy as np
from jaxtyping import Float

from dgu import analysis
from dgu.analysis.stats.estimates import Estimate

#: Noise levels are high from the first number on, and low below the second.
HIGH, LOW = 2.0, 0.1
#: The variance that a pixel is at least held to, as a share of the mean variance of pixels.
_LEAST = 1e-2


def nmse(found: np.ndarray, network: np.ndarray, skip: np.ndarray) -> Float[np.ndarray, "levels n"]:
    """``|D - D_net|^2 / |D_net - c_skip x|^2``: the share of what the network adds to its skip that ``found`` misses.

    All of shape (levels, n, *event). 0 for the network itself, 1 for its bare skip.
    """
    missed, added = (np.square(network - other, dtype=np.float64) for other in (found, skip))
    return _total(missed) / np.maximum(_total(added), np.finfo(np.float64).tiny)


def r_squared(found: np.ndarray, network: np.ndarray) -> Float[np.ndarray, "..."]:
    """``1 - |D - D_net|^2 / |D_net - mean over its pixels|^2`` of each image (..., h, w, c)."""
    network = network.astype(np.float64)
    centred = network - network.mean(axis=(-3, -2, -1), keepdims=True)
    return 1 - np.square(found - network).sum(axis=(-3, -2, -1)) / np.square(centred).sum(axis=(-3, -2, -1))


def pixel_map(found: np.ndarray, network: np.ndarray) -> Float[np.ndarray, "levels h w"]:
    """``1 - sum_i (D - D_net)^2 / sum_i (D_net - mean_i D_net)^2`` at each pixel, over images and channels."""
    network = network.astype(np.float64)
    missed = np.square(found - network).sum(axis=(1, -1))
    spread = np.square(network - network.mean(axis=1, keepdims=True)).sum(axis=(1, -1))
    floor = _LEAST * spread.mean(axis=(1, 2), keepdims=True)
    return 1 - missed / np.maximum(spread, floor)


def _total(squares: np.ndarray) -> np.ndarray:
    return squares.reshape(*squares.shape[:2], -1).sum(axis=-1)


def bands(sigmas: np.ndarray) -> dict[str, np.ndarray]:
    """Which levels are high, intermediate and low; bands without any are left out."""
    found = {"high": sigmas >= HIGH, "intermediate": (sigmas < HIGH) & (sigmas >= LOW), "low": sigmas < LOW}
    return {name: inside for name, inside in found.items() if inside.any()}


def halves(groups: int, count: int) -> np.ndarray:
    """The half of each image, False or True: of every group the first images, and the others."""
    turn = np.arange(count) // groups
    return turn >= (turn.max() + 1) / 2


def chosen(candidates: Float[np.ndarray, "k levels n"], second: np.ndarray) -> Float[np.ndarray, "levels n"]:
    """At each level the candidate of the least mean over one half of the images, on the other half; and conversely."""
    if second.all() or not second.any():
        raise ValueError("images of one half only")
    found = np.empty(candidates.shape[1:])
    for here in (second, ~second):
        best = candidates[:, :, ~here].mean(axis=2).argmin(axis=0)
        found[:, here] = candidates[best, np.arange(len(best))][:, here]
    return found


def least(candidates: Float[np.ndarray, "k levels n"]) -> np.ndarray:
    """At each level the candidate of the least mean over all images, (levels,)."""
    return np.asarray(candidates.mean(axis=2).argmin(axis=0))


def over_band(values: Float[np.ndarray, "levels n"], inside: np.ndarray) -> Estimate:
    """The mean over the levels of a band and over images, with the t interval over images."""
    return analysis.t_interval(values[inside].mean(axis=0))


def by_level(values: Float[np.ndarray, "levels n"]) -> Estimate:
    """The mean over images at each level, with the t interval over images."""
    return analysis.t_interval(values)
