"""Leading singular triplets of a denoiser's Jacobian, by products alone: its adaptive basis at a noisy image.

``J = dD(x, sigma) / dx`` is never formed: ``J v`` comes from a linearisation, ``J^T u`` from its transpose, each for a
block of vectors at once, and memory is linear in d times the number of triplets. The iteration is a Python loop over
these compiled products: a gradient of convolutions inside ``lax.scan`` or ``while_loop`` is many times slower on CPU.
For an exact posterior mean J is symmetric, ``Cov(x0 | x) / sigma^2``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from dgu.analysis.linearity.golub_kahan import Product, leading_triplets
from dgu.core.arrays import as_floats, as_jax_floats, to_device
from dgu.core.brief import short_repr
from dgu.core.denoisers import as_pytree, check_range, denoise
from dgu.core.errors import InputError, require, require_whole
from dgu.core.keys import threefry
from dgu.core.noisy import checked_images
from dgu.core.parallel import run_jobs
from dgu.core.typing import Denoiser, Event, Key, Scalar
from dgu.samplers.schedules import check_sigmas
from dgu.samplers.trajectories import step_function


@short_repr
@dataclass(frozen=True, eq=False)
class SingularTriplets:
    """The k leading singular triplets at b points: ``J right_i = values_i left_i``.

    Attributes:
        values: ``(b, k)``, falling.
        left, right: unit vectors of the event's shape, ``(b, k, *event)``; signs are fixed by the largest entry of
            right, which is positive.
        residuals: ``|J^T left_i - values_i right_i|``, ``(b, k)``: a singular value lies within it of ``values_i``.
        products: products with J (and as many with its transpose) taken at each point.
    """

    values: np.ndarray
    left: np.ndarray
    right: np.ndarray
    residuals: np.ndarray
    products: int


def singular_triplets(
    denoiser: Denoiser,
    x: Num[ArrayLike, " b *event"],
    sigma: Num[ArrayLike, " b"] | Num[ArrayLike, ""],
    count: int,
    key: Key,
    *,
    tolerance: float = 1e-4,
    max_rounds: int = 40,
    batch_size: int = 8,
    progress: Callable[[int, int], object] | None = None,
) -> SingularTriplets:
    """The ``count`` leading singular triplets of the denoiser's Jacobian at each noisy image.

    By the block iteration of ``dgu.analysis.linearity.golub_kahan``, in float64 on the host but for the products. The
    batches are spread over all devices and hosts (``dgu.parallel.run_jobs``).

    Args:
        denoiser: any pytree that is called as ``denoiser(x, sigma)``.
        x: noisy images.
        sigma: the noise level of each, or of all.
        count: k, at most d.
        key: key of the random vectors that the iteration starts from, addressed by the number of the image.
        tolerance: stops when every residual is at most this times the largest singular value; the error of the values
            is about its square, that of the vectors the residual over the gap to the neighbouring values.
        max_rounds: rounds at most, each of ``count`` products with J and with its transpose; the residuals returned say
            what was reached.
        batch_size: images at a time.
        progress: called as ``progress(images done, images)``.

    Raises:
        InputError: a value out of range, an output of another shape than the input, or a product that is not finite.

    Golub and Van Loan, Matrix Computations, chapter 10; Li et al., arXiv 2410.24060, Appendix H.
    """
    key = threefry(key)
    points = checked_images(x, 1, "x")
    number, size = len(points), points[0].size
    levels = np.broadcast_to(as_floats("sigma", sigma).astype(points.dtype), (number,))
    check_range(denoiser, "sigma", levels)
    require(count == int(count) and 1 <= count <= size, "count", count, f"from 1 to d = {size}")
    require(0 <= tolerance < 1, "tolerance", tolerance, "from 0 to below 1")
    require_whole("max_rounds", max_rounds)
    require_whole("batch_size", batch_size)
    batch_size = min(batch_size, number)
    draw = jax.vmap(lambda row: jax.random.normal(jax.random.fold_in(key, row), (size, count)))

    def batch(model: Denoiser, place: int) -> dict[str, np.ndarray]:
        # One batch shape, one program: the last batch is filled up with the last image.
        start = place * batch_size
        rows = np.minimum(np.arange(start, start + batch_size), number - 1)
        at = model, to_device(points[rows]), to_device(levels[rows])
        begin = np.asarray(draw(rows.astype(np.int32)), np.float64)
        found = leading_triplets(
            _columns(_push, at, rows), _columns(transposed_products, at, rows), begin, tolerance, max_rounds
        )
        real = min(batch_size, number - start)
        whole = {"values": found.values, "left": found.left, "right": found.right, "residuals": found.residuals}
        return {name: part[:real] for name, part in whole.items()} | {"rounds": np.asarray(found.rounds)}

    parts: list[dict[str, np.ndarray]] = []
    for part in run_jobs(batch, -(-number // batch_size), as_pytree(denoiser), what="batch of images"):
        parts.append(part)
        if progress is not None:
            progress(min(len(parts) * batch_size, number), number)
    products = max(int(part["rounds"]) for part in parts) * count
    values, left, right, residuals = (
        np.concatenate([part[name] for part in parts]) for name in ("values", "left", "right", "residuals")
    )
    shape = (number, count, *points.shape[1:])
    left, right = (np.swapaxes(vectors, 1, 2) for vectors in (left, right))
    top = np.take_along_axis(right, np.abs(right).argmax(axis=2)[:, :, None], axis=2)
    signs = np.where(top < 0, -1.0, 1.0)
    return SingularTriplets(values, (left * signs).reshape(shape), (right * signs).reshape(shape), residuals, products)


def _columns(program: Callable[..., Any], at: tuple[Any, ...], numbers: np.ndarray) -> Product:
    """Products with the Jacobians at a batch of points, for blocks of columns ``(b, d, k)`` of NumPy float64."""
    shape, dtype = at[1].shape, at[1].dtype

    def apply(columns: np.ndarray) -> np.ndarray:
        vectors = np.swapaxes(columns, 1, 2).astype(dtype).reshape(shape[0], columns.shape[2], *shape[1:])
        out = np.asarray(program(*at, vectors), np.float64).reshape(shape[0], columns.shape[2], -1)
        bad = np.argwhere(~np.isfinite(out))
        if len(bad):
            where = f"at sigma = {float(at[2][bad[0][0]]):.6g}, example {numbers[bad[0][0]]}"
            raise InputError(f"denoiser: non-finite product with its Jacobian {where}: must be finite")
        return np.swapaxes(out, 1, 2)

    return apply


@jax.jit
def _push(
    denoiser: Denoiser, x: Float[Array, " b *event"], sigma: Float[Array, " b"], vectors: Float[Array, "b k *event"]
) -> Float[Array, "b k *event"]:
    """``J v`` for every vector, about one evaluation of the denoiser."""

    def one(x: Event, sigma: Scalar, vectors: Array) -> Array:
        return jax.vmap(jax.linearize(lambda y: denoise(denoiser, y, sigma), x)[1])(vectors)

    return jax.vmap(one)(x, sigma, vectors)


@jax.jit
def transposed_products(
    denoiser: Denoiser, x: Float[Array, " b *event"], sigma: Float[Array, " b"], vectors: Float[Array, "b k *event"]
) -> Float[Array, "b k *event"]:
    """``J^T u`` for every vector."""

    def one(x: Event, sigma: Scalar, vectors: Array) -> Array:
        pull = jax.vjp(lambda y: denoise(denoiser, y, sigma), x)[1]
        return jax.vmap(lambda vector: pull(vector)[0])(vectors)

    return jax.vmap(one)(x, sigma, vectors)


def perturbed_images(
    denoiser: Denoiser,
    x: Num[ArrayLike, "*event"],
    directions: Num[ArrayLike, "..."],
    scales: Sequence[float] | Num[ArrayLike, " m"],
    sigmas: Num[ArrayLike, " levels"],
) -> Float[Array, "k m *event"]:
    """The images that deterministic Heun steps make from the states ``x + scale sigma_0 direction``.

    Args:
        denoiser: any pytree that is called as ``denoiser(x, sigma)``.
        x: a state at the level ``sigmas[0]``.
        directions: unit vectors ``(k, *event)``, such as singular vectors.
        scales: lengths of the perturbation in units of ``sigmas[0]``, of either sign; 0 gives the image of ``x``
            itself.
        sigmas: noise levels from that of ``x`` down to 0.

    Raises:
        InputError: directions of another shape than ``x``, or a grid that does not fall to 0.

    Li et al., arXiv 2410.24060, (54) to (57) and Fig 30. The paper does not state the lengths; 2, 5 and 10 sigma show
    the effect.
    """
    x = as_jax_floats("x", x)
    require(np.shape(directions)[1:] == x.shape, "directions.shape", np.shape(directions), f"(k, *{x.shape})")
    check_sigmas(sigmas, denoiser)
    levels = as_floats("sigmas", sigmas).astype(x.dtype)
    moves = as_jax_floats("directions", directions).astype(x.dtype)
    lengths = as_jax_floats("scales", scales).astype(x.dtype).reshape(1, -1, *(1,) * x.ndim) * levels[0]
    starts = x[None, None] + lengths * moves[:, None]
    ends, model = starts.reshape(-1, *x.shape), as_pytree(denoiser)
    # One program for all steps, and so for grids of any length.
    for step, (now, following) in enumerate(pairwise(levels)):
        ends = _step(model, ends, now, following, np.asarray(step < len(levels) - 2, x.dtype))
    return ends.reshape(starts.shape)


@jax.jit
def _step(
    denoiser: Any,
    x: Float[Array, " n *event"],
    sigma: Float[Array, ""],
    sigma_next: Float[Array, ""],
    second_order: Float[Array, ""],
) -> Float[Array, " n *event"]:
    return jax.vmap(step_function(denoiser, None, sigma, sigma_next, second_order))(x)
