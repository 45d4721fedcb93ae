"""Clocks of images and of a network, as several studies read them: the weight of a training image in its own output
about the level of collapse, and what comes back from U-turns."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from dgu import analysis, plots
from dgu.core.keys import stream
from dgu.core.typing import Key
from experiments.sampling import noise_range

#: Noise levels at which weights of the source are taken, as multiples of the level of collapse, and the place of that
#: level among them.
MULTIPLES, AT_COLLAPSE = np.array([0.25, 0.5, 0.7, 1.0, 1.5, 2.0, 4.0]), 3
#: Range of the mean weight of the source at the level of collapse: about one half.
WEIGHT = (0.25, 0.75)
#: Draws of the noise of each weight, and images drawn of those at most and at least risk.
_DRAWS, _SHOWN = 4, 12


def in_turn(labels: Int[np.ndarray, " n"], count: int) -> Int[np.ndarray, " k"]:
    """Rows of the first ``count`` images (or of all), where classes come in turn."""
    turn = np.zeros(len(labels), int)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        turn[own] = np.arange(len(own))
    return np.argsort(turn, kind="stable")[:count]


def source_weights(
    images: np.ndarray, collapse: float, key: Key, of: Int[np.ndarray, " k"]
) -> Float[np.ndarray, "levels k"]:
    """``analysis.source_weights`` at ``MULTIPLES`` of the level of collapse."""
    return analysis.source_weights(images, MULTIPLES * collapse, key, of=of, draws=_DRAWS)


def riskiest(images: np.ndarray, weights: Float[np.ndarray, "levels k"]) -> Float[np.ndarray, "2 shown *event"]:
    """Of the images whose weights these are, those of the largest at the level of collapse and those of the least."""
    ranked, count = np.argsort(-weights[AT_COLLAPSE]), min(_SHOWN, weights.shape[1])
    return images[np.stack([ranked[:count], ranked[::-1][:count]])]


def turns(
    denoiser: Any,
    images: np.ndarray,
    labels: Int[np.ndarray, " n"] | None,
    sigmas: np.ndarray,
    key: Key,
    *,
    steps: int,
    classes: int = 1,
    shift: int = 0,
) -> Float[np.ndarray, "levels n *event"]:
    """U-turns of images, class by class where the network is conditional.

    Args:
        denoiser: the network.
        images: n clean ones.
        labels: their classes; None for an unconditional network.
        sigmas: levels at which to turn, within the network's range.
        key: of the noise.
        steps: Heun steps of the way back.
        classes: how many the network has.
        shift: the network is asked for the class that follows the image's own by so many. With another class than its
            own, what is kept of an image's own class comes from the noisy image alone.
    """
    found = np.empty((len(sigmas), *images.shape), np.float32)
    lowest, _ = noise_range(denoiser)
    for label in [None] if labels is None else np.unique(labels).tolist():
        own = np.arange(len(images)) if label is None else np.flatnonzero(labels == label)
        asked = denoiser if label is None else denoiser.given((label + shift) % classes)
        found[:, own] = analysis.u_turns(
            asked, images[own], sigmas, stream(key, "turns", label or 0), num_steps=steps, sigma_min=lowest,
            batch_size=len(own),
        )  # fmt: skip
    return found


def half_kept(sigmas: np.ndarray, kept: Bool[np.ndarray, "levels n"]) -> float:
    """The level at which half of the images keep their class; NaN if none does."""
    return analysis.crossing_level(sigmas, kept.mean(axis=1), 0.5)


def weights_panel(collapse: float, weights: Float[np.ndarray, "levels k"]) -> "plots.SweepPanel":
    """The mean weight of the source against the noise level."""
    mean = analysis.t_interval(weights, bounds=(0, 1)).stacked(axis=0)
    curves = {"exact denoiser": (MULTIPLES * collapse, *mean)}
    marks = {"half": 0.5}
    return plots.SweepPanel("training images", "noise level", "weight of the source", curves, marks, falling=True)


def kept_panel(sigmas: np.ndarray, kept: Bool[np.ndarray, "levels n"]) -> "plots.SweepPanel":
    """The share of images that keep their class against the level of the U-turn."""
    shares = [analysis.proportion(level) for level in kept]
    curves = {"network": (sigmas, *np.array([(one.value, one.low, one.high) for one in shares]).T)}
    title, quantity = "U-turns of the network", "share that keep their class"
    return plots.SweepPanel(title, "noise level", quantity, curves, {"half": 0.5}, falling=True)


def odds_panel(separation: "analysis.ClassSeparation") -> "plots.SweepPanel":
    """Log odds of an image's own class over their fluctuation, against the noise level."""
    ratio = separation.mean / np.maximum(separation.spread, np.finfo(float).tiny)
    curves, marks = {"exact denoiser": (separation.sigmas, ratio, ratio, ratio)}, {"as large": 1.0}
    return plots.SweepPanel("held-out images", "noise level", "log odds over their spread", curves, marks, falling=True)
