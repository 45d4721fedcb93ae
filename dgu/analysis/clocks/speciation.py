"""The noise level at which a sample's class is decided, from the data alone."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Integer, Num

from dgu.analysis.clocks.class_kept import crossing_level
from dgu.core.arrays import as_doubles, as_labels
from dgu.core.brief import short_repr
from dgu.core.errors import require
from dgu.core.keys import threefry
from dgu.core.noisy import checked_images, checked_levels, in_blocks, noisy_input, over_levels
from dgu.core.typing import Key
from dgu.models.mixtures import EmpiricalDenoiser


def speciation_level(images: Num[ArrayLike, " n *event"], labels: Integer[ArrayLike, " n"]) -> float:
    """s_S, the square root of the largest eigenvalue of the covariance between classes, ``sum_c p_c (m_c - m)(m_c -
    m)^T``.

    For two Gaussians at ``+-m`` it is ``|m|``: noise of that level hides on which side an image began.

    Args:
        images: n of them.
        labels: the class of each; two classes or more.

    Raises:
        InputError: one class alone, or numbers of images and labels that differ.

    Biroli et al., arXiv 2402.18491, for the leading order in the number of pixels.
    """
    rows = checked_images(images, 2).reshape(np.shape(images)[0], -1).astype(np.float64)
    marks, counts = _classes(labels, len(rows))
    apart = np.stack([rows[marks == mark].mean(0) for mark in range(len(counts))]) - rows.mean(0)
    return float(np.linalg.norm(apart * np.sqrt(counts / len(rows))[:, None], ord=2))


@short_repr
@dataclass(frozen=True, eq=False)
class ClassSeparation:
    """Free energy of an image's own class less that of all others, in nats, at each noise level.

    Attributes:
        sigmas: noise levels, ``(levels,)``.
        mean, spread: mean and standard deviation over images and noise, ``(levels,)``.
    """

    sigmas: np.ndarray
    mean: np.ndarray
    spread: np.ndarray

    @property
    def level(self) -> float:
        """The highest noise level at which the mean is still as large as its fluctuation; NaN if none on the grid
        is.
        """
        return crossing_level(self.sigmas, self.mean / np.where(self.spread > 0, self.spread, 1.0), 1.0)


def class_separation(
    data: Num[ArrayLike, " n *event"],
    labels: Integer[ArrayLike, " n"],
    images: Num[ArrayLike, " k *event"],
    image_labels: Integer[ArrayLike, " k"],
    sigmas: Num[ArrayLike, " levels"],
    key: Key,
    *,
    batch_size: int = 16,
) -> ClassSeparation:
    """The difference of class free energies ``F_own - F_rest`` at noisy images, by blocks of the data.

        F_c(x, s) = log sum_{i in c} exp(-|x - x_i|^2 / (2 s^2)),    F_rest = log sum_{c not own} e^{F_c}

    is the log odds that the multi-delta denoiser gives the true class. Classes are decided where its mean stands out
    from its fluctuation; for two Gaussians ``N(+-m, 1)`` and n large both are equal at ``s^2 = |m|^2 - 1``.

    Args:
        data, labels: the images that make up the classes, two classes or more.
        images, image_labels: other images, to which noise is added; classes among those of ``data``.
        sigmas: noise levels, rising, positive.
        key: of the noise, addressed by the number of the image and of the level.
        batch_size: images at a time.

    Raises:
        InputError: values out of range, or images of other shapes.

    arXiv 2602.04404 (general classes).
    """
    key = threefry(key)
    rows, points = checked_images(data, 2, "data"), checked_images(images, 1)
    require(rows.shape[1:] == points.shape[1:], "images.shape[1:]", points.shape[1:], f"{rows.shape[1:]}")
    marks, counts = _classes(labels, len(rows))
    own = as_labels("image_labels", image_labels, len(points))
    names = np.unique(as_labels("labels", labels))
    known = bool(np.isin(own, names).all())
    require(known, "image_labels", sorted(set(own.tolist()))[:8], "classes of the data")
    levels = checked_levels(sigmas, {})
    rising = bool((levels > 0).all() and (np.diff(levels) > 0).all())
    require(rising, "sigmas", levels.tolist(), "positive and rising")
    blocks, numbers = in_blocks(points.astype(rows.dtype), batch_size)
    energies = np.stack(
        [
            np.log(counts[mark])
            + np.asarray(
                _log_densities(EmpiricalDenoiser(rows[marks == mark]), key, blocks, numbers, levels.astype(rows.dtype)),
                np.float64,
            ).reshape(len(levels), -1)[:, : len(points)]
            for mark in range(len(counts))
        ]
    )
    mine = np.searchsorted(names, own)
    of_own = energies[mine, :, np.arange(len(points))].T
    energies[mine, :, np.arange(len(points))] = -np.inf
    gap = of_own - np.logaddexp.reduce(energies, axis=0)
    return ClassSeparation(levels, gap.mean(axis=1), gap.std(axis=1))


@jax.jit
def _log_densities(
    points: EmpiricalDenoiser, key: Key, blocks: Array, numbers: Array, sigmas: Array
) -> Float[Array, "..."]:
    def one(row: Array, number: Array, sigma: Array, level: Array) -> Array:
        return points.log_density(noisy_input(key, row, number, sigma, level), sigma)

    return over_levels(one, jnp.asarray(blocks), jnp.asarray(numbers), jnp.asarray(sigmas))


def _classes(labels: Integer[ArrayLike, " n"], images: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of the labels among the classes, and the size of each class."""
    names, marks, counts = np.unique(as_labels("labels", labels, images), return_inverse=True, return_counts=True)
    require(len(names) >= 2, "labels", f"{len(names)} class", "2 classes or more")
    return marks, as_doubles("counts", counts)
