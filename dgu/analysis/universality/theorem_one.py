"""Theorem 1 of Ghane et al. (arXiv 2501.07741), simulated: does a min-norm classifier err as often on X as on Gaussian
G?

Two classes of equal weight, ``x = +-m + Sigma^{1/2} z`` with independent standardised z_j that are not Gaussian; G has
the same means and covariances with Gaussian z. One-hot targets and the argmax rule come down to the one vector ``w =
X^+ y``, y = +-1, and the sign of ``w^T x``. The theorem says err_X - err_G -> 0 at fixed n / d; it assumes that
quadratic forms concentrate, Var(x^T C x) -> 0, which a random radius, ``z = rho g`` with one rho an example, violates
at every d.

Errors are exact given w: no test examples. ``w^T x`` on class +-1 is ``+-w^T m + v^T z``, v = Sigma^{1/2} w, whose
distribution function is recovered from its characteristic function, the product of those of the v_j z_j (Gil-Pelaez,
Biometrika 38, 1951).

X and G are coupled on purpose: z_j is the increasing function of the g_j of the Gaussian arm that gives it its
distribution. The expected difference is the same as for independent arms, and its noise is smaller. Only where X is
Gaussian itself, the null, are the draws of the two arms independent: they would be the same. The expected difference of
these pairs of identical distributions is 0, as the two arms may be exchanged.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from dgu.analysis.universality.theorem_design import TheoremDesign
from dgu.core import linalg
from dgu.core.errors import require
from dgu.core.keys import stream, threefry
from dgu.core.typing import Key

#: rho^2 of the random radius: a fair coin between these, so that E rho^2 = 1.
RADII_SQUARED = (0.1, 1.9)
#: Points of the inversion integral, and its step in units of 1 / std: exact to about 1e-6 for sums of many terms.
_POINTS, _STEP = 128, float(np.pi / 12)
_dot = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


def universality_gap(
    key: Key, d: int, replicates: int, design: TheoremDesign = TheoremDesign(), *, batch_size: int | None = None
) -> dict[str, Float[np.ndarray, " replicates"]]:
    """err_X and err_G of ``replicates`` pairs of training sets in dimension d, exact given each trained classifier.

    Replicate r depends on ``(key, design.law, d, r)`` alone, draws a direction of m of its own (``Sigma^{1/2} u`` times
    the separation, u uniform on the sphere), and n = round(ratio d) examples, half of each class.

    Args:
        key: of all draws.
        d: dimension, at least 4.
        replicates: pairs of training sets.
        design: the problem.
        batch_size: replicates solved together (``vmap``); by default as many as fit into 64 MB.

    Returns:
        ``"x"`` and ``"gaussian"``: errors in [0, 1].

    Raises:
        InputError: d below 4, no replicate, or ``batch_size`` below 1.
    """
    key = threefry(key)
    require(d >= 4, "d", d, "at least 4")
    require(replicates >= 1, "replicates", replicates, "at least 1")
    require(batch_size is None or batch_size >= 1, "batch_size", batch_size, "at least 1")
    n = 2 * max(1, round(design.ratio * d / 2))
    together = min(replicates, batch_size or max(1, 2**23 // (n * d)))
    here = stream(key, "theorem 1", design.law, d)
    root = np.asarray(np.sqrt(design.eigenvalues(d)), jnp.result_type(float))
    padded = np.arange(-(-replicates // together) * together).reshape(-1, together)
    solve = partial(_errors, n=n, law=design.law, cosines=design.basis == "cosines")
    found = [np.asarray(solve(here, part, root, np.asarray(design.separation, root.dtype))) for part in padded]
    x, gaussian = np.concatenate(found)[:replicates].T
    return {"x": x, "gaussian": gaussian}


@partial(jax.jit, static_argnames=("n", "law", "cosines"))
def _errors(key: Key, numbers: Array, root: Array, separation: Array, *, n: int, law: str, cosines: bool) -> Array:
    """(err_X, err_G) of each pair of training sets, (replicates, 2)."""

    def draw(number: Array) -> tuple[Array, Array]:
        return _pair(jax.random.fold_in(key, number), root, separation, n, law, cosines)

    mean, x = jax.vmap(draw)(numbers)
    w = jax.vmap(jax.vmap(interpolator, in_axes=(0, None)), in_axes=(0, None))(x, _labels(n, root.dtype))
    margin = jnp.sum(mean[:, None] * w, axis=-1)
    v = root[None, None] * w
    v = jax.scipy.fft.idct(v, norm="ortho") if cosines else v
    each = [
        jax.vmap(partial(sign_error, law=name))(v[:, arm], margin[:, arm]) for arm, name in enumerate((law, "gaussian"))
    ]
    return jnp.stack(each, axis=1)


def _labels(n: int, dtype: Any) -> Array:
    return jnp.where(jnp.arange(n) % 2 == 0, 1.0, -1.0).astype(dtype)


def _pair(key: Key, root: Array, separation: Array, n: int, law: str, cosines: bool) -> tuple[Array, Array]:
    """m (d,), and the rows of X and of G (2, n, d), in the eigenbasis: a rotation of x changes no error, so only z is
    turned.
    """
    d, dtype = root.shape[0], root.dtype
    u = jax.random.normal(stream(key, "direction"), (d,), dtype)
    mean = separation * root * u / jnp.linalg.norm(u)
    g = jax.random.normal(stream(key, "noise"), (n, d), dtype)
    if law == "gaussian":
        z = jax.random.normal(stream(key, "other noise"), (n, d), dtype)
    elif law == "radius":
        radii = jnp.asarray(RADII_SQUARED, dtype) ** 0.5
        z = g * radii[jax.random.bernoulli(stream(key, "radius"), 0.5, (n, 1)).astype(int)]
    else:
        z = transformed(g, law)
    z = jnp.stack([z, g])
    z = jax.scipy.fft.dct(z, norm="ortho") if cosines else z
    return mean, (_labels(n, dtype)[:, None] * mean[None, :])[None] + z * root[None, None, :]


def interpolator(x: Float[Array, "n d"], y: Float[Array, " n"]) -> Float[Array, " d"]:
    """The min-norm w with ``x w = y``, for n < d and rows of full rank: ``x^T (x x^T)^{-1} y`` by the R factor of x^T.

    The Gram matrix itself is not formed, which would square the condition number: too much in float32 for a spectrum
    k^-2. One step of refinement makes up for the missing Q (corrected semi-normal equations; Björck, Linear Algebra
    Appl. 88, 1987).
    """
    r = linalg.triangle(x.T)

    def solve(right: Array) -> Array:
        half = linalg.solve_triangular(r, right, transposed=True)
        return _dot(x.T, linalg.solve_triangular(r, half))

    w = solve(y)
    return w + solve(y - _dot(x, w))


def transformed(g: Float[Array, "*shape"], law: str) -> Float[Array, "*shape"]:
    """Standardised values of a distribution (mean 0, variance 1) as the increasing function of standard normal ones."""
    if law == "rademacher":
        return jnp.where(g < 0, -1.0, 1.0).astype(g.dtype)
    if law == "uniform":
        return 3**0.5 * (2 * jax.scipy.special.ndtr(g) - 1)
    return -jax.scipy.special.log_ndtr(-g) - 1


def sign_error(v: Float[Array, " d"], margin: Float[Array, ""], law: str) -> Float[Array, ""]:
    """``P(margin + v^T z < 0) / 2 + P(-margin + v^T z > 0) / 2`` for independent standardised z_j of a distribution.

    For Gaussian z, also of random radius, in closed form. Otherwise by the midpoint rule for ``P(s <= x) = 1/2 -
    integral of Im(exp(-itx) phi(t)) / (pi t) dt``, phi(t) the product of the characteristic functions of the z_j at v_j
    t.
    """
    spread = jnp.linalg.norm(v)
    if law in ("gaussian", "radius"):
        radii = jnp.asarray(RADII_SQUARED if law == "radius" else (1.0,), v.dtype) ** 0.5
        return jnp.mean(jax.scipy.special.ndtr(-margin / (spread * radii)))
    middle = jnp.arange(_POINTS, dtype=v.dtype) + 0.5
    size, angle = _log_characteristic(middle[:, None] * (_STEP * v / spread)[None, :], law)
    turn = middle * _STEP * margin / spread
    # Class +1 errs below -margin, class -1 above +margin: the sum of the two sines is that of one angle, times a
    # cosine.
    wave = jnp.exp(size) * jnp.sin(turn) * jnp.cos(angle)
    return 0.5 - jnp.sum(wave / middle) / jnp.pi


def _log_characteristic(t: Array, law: str) -> tuple[Array, Array]:
    """log |phi| and arg phi of the sum of z_j at t (points, d)."""
    if law == "exponential":
        return -0.5 * jnp.sum(jnp.log1p(t * t), axis=1), jnp.sum(jnp.arctan(t) - t, axis=1)
    real = jnp.cos(t) if law == "rademacher" else jnp.sinc(t * (3**0.5 / np.pi))
    tiny = jnp.finfo(t.dtype).tiny
    return jnp.sum(jnp.log(jnp.maximum(jnp.abs(real), tiny)), axis=1), jnp.pi * jnp.sum(real < 0, axis=1).astype(
        t.dtype
    )
