"""Does gradient descent itself find the Gaussian, as Theorem 1 says?

Affine maps are trained from 0 on the denoising loss of the training images, by gradient descent alone: no Adam, no
network. The expectation over noise is exact (``dgu.training.linear_gradient_descent``), and each of several disjoint
parts of the training images has its own descent and its own Gaussian. As a control, steps above the theorem's bound
lead away.
"""

from typing import Any

import numpy as np

from dgu import plots, training
from dgu.analysis.stats.estimates import exactly
from dgu.data.pixels import area_mean
from dgu.models import GaussianDenoiser, LinearDenoiser
from experiments.hidden_gaussian.linear_maps import Arrays, Config
from experiments.hidden_gaussian.subject import Subject
from experiments.study import Claim, Figure, Noted, at_most

#: Largest distance of maps that are the same.
_SAME = 0.01
#: Sizes of the steps, as the largest eigenvalue of ``2 eta A``: within the theorem's bound, and beyond 2.
_RATE, _TOO_LARGE = 0.9, 2.2
#: Doublings of the number of steps, from one step, for both sizes.
_DOUBLINGS, _FEW = 32, 8
#: Largest side of the images: a step is a product of matrices of their pixels.
_SIDE = 16

CLAIM = Claim(
    "distillation-gradient-descent",
    "Gradient descent itself, with no Adam, on the denoising loss of an affine map finds the Gaussian denoiser's map "
    f"at every noise level: from 0, with steps within Theorem 1's bound ({_RATE:g} for the largest eigenvalue of twice "
    f"the step times the second moments), the squared distance of the matrices after 2^{_DOUBLINGS} steps is at most "
    f"{_SAME:g} of the Gaussian's squared norm (value: the largest over noise levels and over disjoint "
    "parts of the training images, each with its own Gaussian).",
    at_most(_SAME),
    source="Theorem 1",
    unit="NMSE",
    check=True,
)
FIGURE = Figure(
    "gradient_descent",
    "Gradient descent on the denoising loss of an affine map, from 0: distance of its matrix to the Gaussian's after "
    "1, 2, 4 ... steps, at each noise level, mean over disjoint parts of the training images. Left: steps within the "
    f"bound of Theorem 1 ({_RATE:g}); right: control with steps beyond it ({_TOO_LARGE:g}).",
    "theorem-1",
)


def measured(config: Config, subject: Subject) -> Arrays:
    """Distances to the Gaussian's maps, ``converging`` and ``diverging``: ``(levels, numbers of steps, parts)``."""
    images, side = subject.train, subject.shape[0]
    if subject.shape[0] == subject.shape[1]:
        images = area_mean(images, max(size for size in range(1, min(side, _SIDE) + 1) if side % size == 0))
    parts = min(config.groups, len(images) // 2)
    found: dict[str, list[np.ndarray]] = {"converging": [], "diverging": []}
    for part in range(parts):
        own = images[part::parts].reshape(len(images[part::parts]), -1).astype(np.float64)
        mean, centred = own.mean(axis=0), own - own.mean(axis=0)
        covariance = centred.T @ centred / len(own)
        reference = LinearDenoiser.of_gaussian(GaussianDenoiser.fit(own), subject.sigmas)
        for name, rate, doublings in (("converging", _RATE, _DOUBLINGS), ("diverging", _TOO_LARGE, _FEW)):
            each = [
                training.linear_gradient_descent(mean, covariance, float(sigma), rate=rate, doublings=doublings)[0]
                for sigma in subject.sigmas
            ]
            goal = np.asarray(reference.weights, np.float64)[:, None]
            off = np.square(np.stack(each) - goal).sum(axis=(2, 3)) / np.square(goal).sum(axis=(2, 3))
            found[name].append(off)
    return {name: np.stack(each, axis=-1) for name, each in found.items()}


def tested(sigmas: np.ndarray, found: Arrays) -> Noted:
    """The largest distance after the last step, which is no estimate: no noise is drawn."""
    last, diverged = found["converging"][:, -1], found["diverging"][:, -1].min()
    level = int(last.max(axis=1).argmax())
    note = f"At sigma = {sigmas[level]:.3g}, of {last.shape[1]} parts; with too large steps it is at least"
    return Noted(exactly(float(last.max())), f"{note} {diverged:.2g}.")


def drawn(sigmas: np.ndarray, found: Arrays) -> Any:
    """Both courses."""
    panels = [
        plots.EpochPanel(
            title,
            "NMSE of weights",
            2.0 ** np.arange(found[name].shape[1]),
            found[name].mean(axis=-1),
            time="steps",
            log_time=True,
        )
        for name, title in (("converging", "within the bound"), ("diverging", "beyond it"))
    ]
    return plots.distillation_epochs(panels, sigmas)
