"""The check of a trained network: its distance from a posterior mean beside that of networks known to be good."""

from collections.abc import Sequence
from typing import Any

from jax.typing import ArrayLike
from jaxtyping import Num

from dgu.core.errors import require
from dgu.core.keys import threefry
from dgu.core.typing import Denoiser, Key
from dgu.testing.network_measures import network_measures
from dgu.testing.network_report import NetworkReport
from dgu.testing.network_scale import NetworkScale
from dgu.testing.reports import DenoiserCheckError


def check_network(
    denoiser: Denoiser,
    images: Num[ArrayLike, " n *event"],
    key: Key,
    *,
    labels: ArrayLike | Sequence[Any] | None = None,
    sigmas: Sequence[float] | None = None,
    scale: NetworkScale | None = None,
    probes: int = 2,
    batch_size: int = 32,
    strict: bool = True,
) -> NetworkReport:
    """Measure how far a trained network is from a posterior mean, and raise where it is farther than good ones are.

    ``check_posterior_mean`` holds a denoiser to what is exact, and no trained network passes it. Here four defects,
    asymmetry, divergence, orthogonality and bias (see ``network_measures``), may be as large as three times those of
    networks known to be good, at each noise level (see ``NetworkScale``). A defect counts as outside where its whole 95
    % interval is: with few images little is decided, and ``verdicts`` says what.

    What spoilt denoisers are outside in, by noise level, is in ``scale.spoilt``. With the bundled scale, of 400 images:

    - ``0.9 D`` in ``orthogonality`` (``1 / c - 1`` of ``c D``) at all levels, in ``bias`` at 0.1, 0.3 and 1, and in
      ``divergence`` at 0.1 and 0.3;
    - a network that is given a wrong class, or is blind to it, in ``bias`` at all levels, and in ``divergence`` at 1
      and 3, where the noise hides the class;
    - one that has memorised other images in ``divergence`` and ``orthogonality`` at 0.1, 0.3 and 1, in nothing at 3.

    No measure alone tells all of these, and ``asymmetry`` none: the bound is that of one network, whose Jacobian is far
    from symmetric.

    It proves nothing good: an exact posterior mean of other data, of nearly the same images, passes.

    Args:
        denoiser, images, labels, key, probes, batch_size: as in ``network_measures``: held-out images with their
            classes.
        sigmas: noise levels, among those of the scale; by default all of them.
        scale: by default ``NetworkScale.bundled()``: of images in [-1, 1] with 14 x 14 pixels.
        strict: raise where a defect is outside; else the report alone says so.

    Raises:
        DenoiserCheckError: a defect is outside; ``error.report`` is the report.
        InputError: as ``network_measures``; a noise level that the scale does not have.
    """
    key = threefry(key)
    scale = NetworkScale.bundled() if scale is None else scale
    levels = scale.sigmas if sigmas is None else tuple(float(sigma) for sigma in sigmas)
    require(set(levels) <= set(scale.sigmas), "sigmas", levels, f"among those of the scale, {scale.sigmas}")
    measures = network_measures(
        denoiser, images, key, labels=labels, sigmas=levels, probes=probes, batch_size=batch_size
    )
    report = NetworkReport(measures, scale)
    if strict and report.defects:
        raise DenoiserCheckError(report)
    return report
