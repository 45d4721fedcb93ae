"""Identities of every posterior mean, as measured defects: Jacobian, Tweedie's identity, Wiener orthogonality."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from dgu.core.denoisers import as_pytree, denoise
from dgu.core.keys import threefry
from dgu.core.typing import Denoiser, Event, Key, Scalar


def rms(x: Float[Array, " n *event"]) -> Float[Array, " n"]:
    return jnp.sqrt(jnp.mean(x.reshape(len(x), -1) ** 2, axis=1))


@jax.jit
def _jacobian_products(
    denoiser: Denoiser, x: Event, sigma: Scalar, vectors: Float[Array, "k d"]
) -> tuple[Float[Array, "k d"], Float[Array, "k d"]]:
    """``J v`` and ``J^T v`` for each row of ``vectors``, flattened."""
    tangents = vectors.reshape(len(vectors), *x.shape)
    at = lambda point: denoise(denoiser, point, sigma)  # noqa: E731
    forward = jax.vmap(lambda v: jax.jvp(at, (x,), (v,))[1])(tangents)
    _, pullback = jax.vjp(at, x)
    (backward,) = jax.vmap(pullback)(tangents)
    return forward.reshape(vectors.shape), backward.reshape(vectors.shape)


def jacobian_defects(
    denoiser: Denoiser,
    x: Array,
    sigma: Array,
    key: Key,
    *,
    floor: float = 0.0,
    exact_size: int = 64,
    width: int = 8,
    rounds: int = 4,
) -> tuple[float, float]:
    """Asymmetry and negativity of the Jacobian at one point, from all directions or from a block Krylov space.

    Asymmetry is ``|J Q - J^T Q| / (|J Q| + floor)`` in the Frobenius norm over the directions Q, negativity
    ``max(0, -smallest) / (largest + floor)`` over the Ritz values of the symmetric part. ``floor`` is the magnitude
    below which the Jacobian is rounding: where the posterior is a single point, it vanishes.

    A Python loop of one jitted product: the gradient of a convolution inside ``lax.scan`` is many times slower on CPU.
    """
    key = threefry(key)
    model, size = as_pytree(denoiser), x.size
    if size <= exact_size:
        block, rounds = np.eye(size), 1
    else:
        start = jax.random.normal(key, (size, width), x.dtype)
        block = np.linalg.qr(np.asarray(start, np.float64))[0]
    basis, forward, backward = np.zeros((size, 0)), np.zeros((size, 0)), np.zeros((size, 0))
    for _ in range(rounds):
        products = _jacobian_products(model, x, sigma, jnp.asarray(block.T, x.dtype))
        jv, jtv = (np.asarray(product, np.float64).T for product in products)
        basis, forward, backward = np.hstack([basis, block]), np.hstack([forward, jv]), np.hstack([backward, jtv])
        block = (jv + jtv) / 2
        for _ in range(2):  # orthogonalised twice, for the digits lost by the first pass
            block = np.linalg.qr(block - basis @ (basis.T @ block))[0]
    magnitude = np.sqrt((np.sum(forward**2) + np.sum(backward**2)) / 2)
    if not np.isfinite(magnitude):
        return np.nan, np.nan
    ritz = basis.T @ (forward + backward) / 2
    eigenvalues = np.linalg.eigvalsh((ritz + ritz.T) / 2)
    floor = max(floor, float(np.finfo(np.float64).tiny))
    asymmetry = np.linalg.norm(forward - backward) / (magnitude + floor)
    return float(asymmetry), float(max(0.0, -eigenvalues[0]) / (np.abs(eigenvalues).max() + floor))


@jax.jit
def tweedie_error(denoiser: Denoiser, log_density: Callable[..., Any], x: Event, sigma: Scalar) -> Float[Array, ""]:
    return jnp.abs(denoise(denoiser, x, sigma) - (x + sigma**2 * jax.grad(log_density)(x, sigma))).max()


@jax.jit
def _orthogonality(
    denoiser: Denoiser, clean: Float[Array, " n *event"], sigma: Scalar, key: Key, numbers: Int[Array, " n"]
) -> Float[Array, " n"]:
    """``(x0 - D(x)) . D(x)`` for one noisy version of each clean sample."""

    def one(item: tuple[Array, Array]) -> Array:
        x0, number = item
        eps = jax.random.normal(jax.random.fold_in(key, number), x0.shape, x0.dtype)
        denoised = denoise(denoiser, x0 + sigma * eps, sigma)
        return jnp.sum((x0 - denoised) * denoised)

    return jax.lax.map(one, (clean, numbers), batch_size=64)


def orthogonality_score(denoiser: Denoiser, clean: Array, sigmas: Sequence[float], key: Key) -> float:
    key = threefry(key)
    model, scores = as_pytree(denoiser), []
    for number, sigma in enumerate(sigmas):
        level = jax.random.fold_in(key, 1000 + number)
        products = _orthogonality(model, clean, jnp.asarray(sigma, clean.dtype), level, jnp.arange(len(clean)))
        values = np.asarray(products, np.float64)
        error = values.std(ddof=1) / np.sqrt(len(values))
        scores.append(0.0 if error == 0 and values.mean() == 0 else abs(values.mean()) / max(error, 1e-300))
    return float(np.max(scores))
