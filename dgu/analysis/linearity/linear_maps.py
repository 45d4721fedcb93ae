"""Properties of the linear maps of denoisers: distances, singular vectors, symmetry, spectra, orthogonality."""

from dataclasses import dataclass

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float64, Num

from dgu.analysis.linearity.golub_kahan import leading_triplets
from dgu.core.arrays import as_doubles
from dgu.core.brief import short_repr
from dgu.core.errors import require
from dgu.core.keys import threefry
from dgu.core.noisy import checked_images, checked_levels
from dgu.core.parallel import run_jobs
from dgu.core.typing import Denoiser, Key
from dgu.models.linear import LinearDenoiser
from dgu.training.second_moments import level_moments

#: Maps of up to so many pixels are decomposed as a whole.
_WHOLE = 1024
#: Largest residual of the leading triplets of larger ones, relative to the largest value, and rounds at most.
_RESIDUAL, _MOST_ROUNDS = 1e-6, 300


@short_repr
@dataclass(frozen=True, eq=False)
class MapSpectra:
    """Singular value decompositions ``W = left diag(values) right^T`` of L maps, largest values first. float64.

    Attributes:
        values: ``(L, k)``.
        errors: a singular value lies within this of each of ``values``, ``(L, k)``; 0, but for rounding, where the maps
            were decomposed as a whole.
        left, right: singular vectors as columns, ``(L, d, k)``.
        alignment: ``|left_i . right_i|``, ``(L, k)``: 1 throughout where W is symmetric and positive semi-definite.
        asymmetry: ``|W - W^T|_F / (2 |W|_F)``, ``(L,)``: from 0 (symmetric) to 1 (antisymmetric).
    """

    values: np.ndarray
    errors: np.ndarray
    left: np.ndarray
    right: np.ndarray
    alignment: np.ndarray
    asymmetry: np.ndarray


def weight_nmse(maps: LinearDenoiser, reference: LinearDenoiser) -> Float64[np.ndarray, " levels"]:
    """``|W - W_ref|_F^2 / |W_ref|_F^2`` at each level: 1 for a map that is 0. Li et al. (arXiv 2410.24060), Fig 4.

    Raises:
        InputError: maps of other levels or sizes.
    """
    ours, theirs = (np.asarray(one.sigmas, np.float64) for one in (maps, reference))
    same = ours.shape == theirs.shape and bool(np.allclose(ours, theirs, rtol=1e-6))
    require(same, "reference.sigmas", theirs.tolist(), f"those of the maps, {ours.tolist()}")
    w, v = (np.asarray(one.weights, np.float64) for one in (maps, reference))
    require(w.shape == v.shape, "reference.weights.shape", v.shape, f"that of the maps, {w.shape}")
    return ((w - v) ** 2).sum(axis=(1, 2)) / (v**2).sum(axis=(1, 2))


def map_spectra(maps: LinearDenoiser, count: int = 100) -> MapSpectra:
    """The leading singular triplets of each map and how symmetric it is. Li et al., Figs 4 and 14.

    Maps of more than 1,024 pixels of which a few triplets are wanted are never decomposed as a whole, which would take
    cubes of d: their triplets come from products with a few vectors, by the block iteration of
    ``dgu.analysis.linearity.golub_kahan``, until every residual is at most 1e-6 of the largest value. The maps are
    spread over all devices and hosts.

    Raises:
        InputError: ``count`` not from 1 to d.
    """
    size = np.shape(maps.weights)[-1]
    require(1 <= count <= size, "count", count, f"from 1 to d = {size}")
    decompose = _leading if size > _WHOLE and 8 * count <= size else _decomposed

    def one(_: None, level: int) -> dict[str, np.ndarray]:
        weight = np.asarray(maps.weights[level], np.float64)
        length = float(np.linalg.norm(weight))
        asymmetry = float(np.linalg.norm(weight - weight.T)) / (2 * length if length > 0 else 1.0)
        return decompose(weight, count) | {"asymmetry": np.asarray(asymmetry)}

    found = list(run_jobs(one, len(maps.weights), what="map"))
    values, errors, left, right, asymmetry = (
        np.stack([map_[name] for map_ in found]) for name in ("values", "errors", "left", "right", "asymmetry")
    )
    return MapSpectra(values, errors, left, right, np.abs((left * right).sum(axis=1)), asymmetry)


def _decomposed(weight: Float64[np.ndarray, "d d"], count: int) -> dict[str, np.ndarray]:
    left, values, right = np.linalg.svd(weight)
    found = {"values": values[:count], "left": left[:, :count], "right": right.T[:, :count]}
    return found | {"errors": np.zeros(count)}


def _leading(weight: Float64[np.ndarray, "d d"], count: int) -> dict[str, np.ndarray]:
    start = np.random.default_rng(0).standard_normal((1, len(weight), count))
    found = leading_triplets(lambda v: weight @ v, lambda u: weight.T @ u, start, _RESIDUAL, _MOST_ROUNDS)
    whole = {"values": found.values, "errors": found.residuals, "left": found.left, "right": found.right}
    return {name: part[0] for name, part in whole.items()}


def vector_correlation(
    vectors: Num[ArrayLike, "*batch d k"], basis: Num[ArrayLike, "e m"]
) -> Float64[np.ndarray, "*batch k m"]:
    """``|vectors^T basis|``, the modulus of the cosine of each pair of unit columns. Li et al., Figs 4 and 28.

    Raises:
        InputError: vectors of another length than the basis'.
    """
    found, other = as_doubles("vectors", vectors), as_doubles("basis", basis)
    require(found.shape[-2] == len(other), "basis.shape", other.shape, f"({found.shape[-2]}, m)")
    return np.abs(np.swapaxes(found, -1, -2) @ other)


def subspace_overlap(
    vectors: Num[ArrayLike, "*batch d k"], basis: Num[ArrayLike, "e m"]
) -> Float64[np.ndarray, "*batch"]:
    """Mean squared length of the vectors' projections onto the basis: 1 where the span holds them, ``m / d`` by chance.

    Unlike the correlations of single vectors it does not depend on the order of the vectors, or on rotations among
    those of nearly equal singular values.
    """
    return np.asarray((vector_correlation(vectors, basis) ** 2).sum(axis=-1).mean(axis=-1))


def orthogonality_residual(
    denoiser: Denoiser,
    images: Num[ArrayLike, " n *event"],
    sigmas: Num[ArrayLike, " levels"],
    key: Key,
    *,
    draws: int = 1,
    batch_size: int = 512,
) -> Float64[np.ndarray, " levels"]:
    """``|E (D(y) - x)(y - E y)^T|_F / |Cov x|_F`` over ``y = x + sigma eps`` at each level. Li et al., (51).

    It is 0 for the best affine map of the distribution of the images, and for their exact posterior mean, up to the
    sampling error of the noise: compare it with the Gaussian denoiser's own on the same images and key.

    Raises:
        InputError: fewer than two images, equal images, or a level out of range.
    """
    key = threefry(key)
    rows = checked_images(images, 2)
    levels = checked_levels(sigmas, {"denoiser": denoiser})
    flat = rows.reshape(len(rows), -1).astype(np.float64)
    centred = flat - flat.mean(axis=0)
    # The smaller of the two products has the same norm.
    short = centred if len(centred) <= centred.shape[1] else centred.T
    scale = float(np.linalg.norm(short @ short.T)) / len(rows)
    require(scale > 0, "images", "all equal", "images that differ")
    stream = level_moments(denoiser, rows, levels, key, draws=draws, residual=True, batch_size=batch_size)
    return np.array([float(np.linalg.norm(found.cross)) / found.count / scale for found in stream])


def asymmetry(maps: LinearDenoiser) -> Float64[np.ndarray, " levels"]:
    """``|W - W^T|_F / (2 |W|_F)`` of each map, from 0 (symmetric, or 0) to 1 (antisymmetric). Li et al., Fig 14."""
    found = np.empty(len(maps.weights))
    # Map by map: in float64 they may be large.
    for level, single in enumerate(maps.weights):
        weight = np.asarray(single, np.float64)
        size = float(np.linalg.norm(weight))
        found[level] = float(np.linalg.norm(weight - weight.T)) / (2 * size if size > 0 else 1.0)
    return found
