"""Edits of an image along directions of its noisy state: what changes, how linearly, and inside which subspace."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from dgu.analysis.linearity.jacobians import perturbed_images
from dgu.core.arrays import as_doubles, as_jax_floats
from dgu.core.brief import short_repr
from dgu.core.denoisers import as_pytree, denoise
from dgu.core.errors import require
from dgu.core.keys import threefry
from dgu.core.typing import Denoiser, Event, Key, Scalar
from dgu.samplers.schedules import check_sigmas


@short_repr
@dataclass(frozen=True, eq=False)
class Edits:
    """The effects of the edits ``x + alpha v`` for k directions and m strengths.

    Attributes:
        change: ``D(x + alpha v) - D(x)``, ``(k, m, *event)``.
        predicted: ``alpha J v``, the same to first order, ``(k, m, *event)``.
        images: images that the deterministic sampler makes from the edited states, ``(k, m, *event)``.
        original: the image that it makes from ``x`` itself, ``(*event)``.
    """

    change: np.ndarray
    predicted: np.ndarray
    images: np.ndarray
    original: np.ndarray

    @property
    def image_change(self) -> np.ndarray:
        """Images less the original, ``(k, m, *event)``."""
        return self.images - self.original

    @property
    def nonlinearity(self) -> np.ndarray:
        """``|change - predicted| / |predicted|``, ``(k, m)``: 0 for a linear denoiser."""
        scale = _norms(self.predicted)
        return _norms(self.change - self.predicted) / np.where(scale > 0, scale, 1.0)


def edit(
    denoiser: Denoiser,
    x: Num[ArrayLike, "*event"],
    directions: Num[ArrayLike, "..."],
    strengths: Sequence[float | int] | Num[ArrayLike, " m"],
    sigmas: Num[ArrayLike, " levels"],
) -> Edits:
    """Edits of the state ``x`` at the noise level ``sigmas[0]``: ``D(x + alpha v) ~ D(x) + alpha J v``.

    For a right singular vector v of J with singular value s and left singular vector p, the change is ``alpha s p`` to
    first order.

    Args:
        denoiser: any pytree that is called as ``denoiser(x, sigma)``.
        x: a state at the level ``sigmas[0]``.
        directions: v, unit vectors ``(k, *event)``: right singular vectors, or ``random_directions``.
        strengths: alpha, in the units of ``x``, of either sign.
        sigmas: levels from that of ``x`` down to 0, for the images.

    Raises:
        InputError: directions of another shape than ``x``, no strength, or a grid that does not fall to 0.

    arXiv 2409.02426, equation 22.
    """
    shape = np.shape(directions)
    state = as_jax_floats("x", x)
    require(shape[1:] == state.shape and len(shape) > 0, "directions.shape", shape, f"(k, *{tuple(state.shape)})")
    alphas = as_doubles("strengths", strengths)
    usable = alphas.ndim == 1 and alphas.size > 0 and bool(np.isfinite(alphas).all())
    require(usable, "strengths", alphas.tolist(), "one or more finite numbers")
    check_sigmas(sigmas, denoiser)
    moves = as_jax_floats("directions", directions).astype(state.dtype)
    steps = jnp.asarray(alphas, state.dtype)
    level = jnp.asarray(np.asarray(sigmas)[0], state.dtype)
    change, predicted = _changes(as_pytree(denoiser), state, moves, steps, level)
    # The unedited image is edit number 0 of the first direction, so that one program makes them all.
    scales = np.concatenate([[0.0], alphas]) / float(np.asarray(sigmas)[0])
    images = np.asarray(perturbed_images(denoiser, state, moves, scales, sigmas))
    return Edits(np.asarray(change), np.asarray(predicted), images[:, 1:], images[0, 0])


@jax.jit
def _changes(
    denoiser: Denoiser, x: Event, directions: Float[Array, " k *event"], strengths: Float[Array, " m"], sigma: Scalar
) -> tuple[Array, Array]:
    at_x, push = jax.linearize(lambda y: denoise(denoiser, y, sigma), x)

    def one(direction: Array, strength: Array) -> tuple[Array, Array]:
        return denoise(denoiser, x + strength * direction, sigma) - at_x, strength * push(direction)

    return jax.vmap(lambda v: jax.vmap(lambda alpha: one(v, alpha))(strengths))(directions)


def random_directions(key: Key, count: int, shape: Sequence[int]) -> Float[Array, " k *event"]:
    """Uniform unit vectors of the shape of an event: the null for directions that were chosen.

    Raises:
        InputError: ``count`` below 1.
    """
    key = threefry(key)
    require(count >= 1, "count", count, "1 or more")
    draws = jax.random.normal(key, (count, *shape))
    norms = jnp.sqrt(jnp.sum(jnp.square(draws), axis=tuple(range(1, draws.ndim)), keepdims=True))
    return draws / norms


@short_repr
@dataclass(frozen=True, eq=False)
class SubspaceSplit:
    """Lengths of changes inside and outside a subspace, with their leading axes; ``share`` is that of the squared
    length inside, in [0, 1] (0 for no change at all)."""

    inside: np.ndarray
    outside: np.ndarray
    share: np.ndarray


def split_by_subspace(changes: Num[ArrayLike, "..."], basis: Num[ArrayLike, "..."]) -> SubspaceSplit:
    """How much of each change lies in the span of ``basis``.

    Args:
        changes: ``(*batch, *event)``.
        basis: orthonormal vectors ``(k, *event)``, such as left singular vectors.

    Raises:
        InputError: shapes that do not fit, or a basis that is not orthonormal (the error states by how much).
    """
    vectors, rows = as_doubles("basis", basis), as_doubles("changes", changes)
    event = vectors.shape[1:]
    fits = vectors.ndim >= 2 and rows.shape[rows.ndim - len(event) :] == event
    require(fits, "changes.shape", rows.shape, f"(..., *{event}), that of the basis")
    vectors = vectors.reshape(len(vectors), -1)
    defect = float(np.abs(vectors @ vectors.T - np.eye(len(vectors))).max())
    require(defect < 1e-3, "basis", f"off by {defect:.3g} from orthonormal", "orthonormal vectors")
    flat = rows.reshape(*rows.shape[: rows.ndim - len(event)], -1)
    inside = flat @ vectors.T @ vectors
    within, beyond = (np.asarray(np.linalg.norm(part, axis=-1)) for part in (inside, flat - inside))
    total = np.square(within) + np.square(beyond)
    return SubspaceSplit(within, beyond, np.asarray(np.square(within) / np.where(total > 0, total, 1.0)))


def _norms(changes: np.ndarray) -> np.ndarray:
    """Euclidean lengths, ``(k, m)``."""
    return np.linalg.norm(changes.reshape(*changes.shape[:2], -1).astype(np.float64), axis=-1)
