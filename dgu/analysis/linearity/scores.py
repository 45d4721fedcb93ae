"""How linear is a denoiser? Its output for a combination of noisy images against the combination of its outputs.

A linear map gives ``D(a x1 + b x2) = a D(x1) + b D(x2)``. With ``a^2 + b^2 = 1`` the combination has noise of the same
level, so that the denoiser is given only inputs of the kind that it was made for. An affine map with a bias is not
linear in this sense: the scores are not centred.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Num

from dgu.analysis.stats.estimates import Estimate
from dgu.analysis.stats.resampling import t_interval
from dgu.core.arrays import as_doubles
from dgu.core.brief import short_repr
from dgu.core.denoisers import as_pytree, denoise
from dgu.core.errors import InputError, require, require_whole
from dgu.core.keys import threefry
from dgu.core.noisy import checked_images, checked_levels, in_blocks, noisy_input, over_levels, require_finite
from dgu.core.typing import Denoiser, Key, Scalar


def mixing_weights(squares: Sequence[float | int] | ArrayLike = (0.5,)) -> Float[np.ndarray, "mixes 2"]:
    """``(alpha, beta)`` with ``alpha^2`` as given and ``alpha^2 + beta^2 = 1``: equal weights by default.

    The paper's five are ``numpy.linspace(0.99, 0.5, 5)``.

    Raises:
        InputError: a square outside [0, 1].
    """
    chosen = as_doubles("squares", squares)
    require(bool(((chosen >= 0) & (chosen <= 1)).all()), "squares", chosen.tolist(), "in [0, 1]")
    return np.sqrt(np.stack([chosen, 1 - chosen], axis=1))


@short_repr
@dataclass(frozen=True, eq=False)
class LinearityScores:
    """``D(a x1 + b x2)`` (given) against ``a D(x1) + b D(x2)`` (target): L levels, C pairs of weights, P pairs of
    images.

    Attributes:
        sigmas: ``(L,)``.
        coefficients: a and b, ``(C, 2)``.
        products: inner products of given and target, ``(L, C, P)``.
        differences: norms of their difference, ``(L, C, P)``.
        given, target: their norms, ``(L, C, P)``.
    """

    sigmas: np.ndarray
    coefficients: np.ndarray
    products: np.ndarray
    differences: np.ndarray
    given: np.ndarray
    target: np.ndarray

    def cosine(self, form: str = "paper") -> Estimate:
        """Mean cosine of given and target, ``(L, C)`` with 95 % intervals over pairs: its modulus in the paper's (11),
        with its sign in the paper's code."""
        return t_interval(self.each_cosine(form), bounds=(0, 1) if _is_paper(form) else (-1, 1))

    def nmse(self, form: str = "paper") -> Estimate:
        """Mean ratio of the difference's norm to that of given in the paper's (12), to that of target in its code."""
        return t_interval(self.each_nmse(form), bounds=(0, np.inf))

    def each_cosine(self, form: str = "paper") -> Float[np.ndarray, "levels mixes pairs"]:
        """The cosine of each pair of images, of which ``cosine`` is the mean."""
        values = self.products / (self.given * self.target)
        return np.abs(values) if _is_paper(form) else values

    def each_nmse(self, form: str = "paper") -> Float[np.ndarray, "levels mixes pairs"]:
        """The ratio of norms of each pair of images, of which ``nmse`` is the mean."""
        return self.differences / (self.given if _is_paper(form) else self.target)

    @property
    def measured(self) -> dict[str, np.ndarray]:
        """What was measured, by the names of the fields: all but the levels and the coefficients."""
        return {name: getattr(self, name) for name in ("products", "differences", "given", "target")}


def linearity(
    denoiser: Denoiser,
    images: Num[ArrayLike, " n *event"],
    sigmas: Num[ArrayLike, " levels"],
    key: Key,
    *,
    weights: Num[ArrayLike, "mixes 2"] | None = None,
    pairs: int = 100,
    batch_size: int = 64,
) -> LinearityScores:
    """Linearity over noise levels and mixing weights: images 2 j and 2 j + 1, noise added to each, make pair j.

    Args:
        denoiser: any pytree that is called as ``denoiser(x, sigma)``.
        images: clean images, at least ``2 * pairs``.
        sigmas: noise levels, 0 or more.
        key: of the noise, addressed by level and image.
        weights: alpha and beta of each mix, ``mixing_weights()`` (equal) by default.
        pairs: pairs of images, 2 or more.
        batch_size: pairs at a time.

    Raises:
        InputError: ``alpha^2 + beta^2`` off 1 by more than 1e-6, fewer images than the pairs need, a level out of
            range, an output of another shape than the input, or one that is not finite (level and example are named).

    Li et al., arXiv 2410.24060, (11) and (12), whose ``x_1`` in place of the second ``x_2`` is a misprint.
    """
    key = threefry(key)
    mixes = mixing_weights() if weights is None else as_doubles("weights", weights)
    lengths = (mixes**2).sum(axis=1)
    unit = np.abs(lengths - 1) <= 1e-6
    if not unit.all():
        place = int(np.argmin(unit))
        raise InputError(
            f"weights[{place}] = {tuple(mixes[place].tolist())}: must have alpha^2 + beta^2 = 1, not "
            f"{lengths[place]:.6g}"
        )
    return combination_scores(denoiser, images, sigmas, key, mixes, pairs=pairs, batch_size=batch_size)


def homogeneity(
    denoiser: Denoiser,
    images: Num[ArrayLike, " n *event"],
    sigmas: Num[ArrayLike, " levels"],
    key: Key,
    *,
    factors: Sequence[float | int] = (0.5, 2.0),
    pairs: int = 100,
    batch_size: int = 64,
) -> LinearityScores:
    """``D(c x)`` against ``c D(x)`` for each factor c: one half of linearity. Arguments as of ``linearity``.

    The factor scales the noise with the image, so that the noise level given to the denoiser is not that of its input.
    """
    key = threefry(key)
    coefficients = np.stack([as_doubles("factors", factors), np.zeros(len(factors))], axis=1)
    return combination_scores(denoiser, images, sigmas, key, coefficients, pairs=pairs, batch_size=batch_size)


def additivity(
    denoiser: Denoiser,
    images: Num[ArrayLike, " n *event"],
    sigmas: Num[ArrayLike, " levels"],
    key: Key,
    *,
    pairs: int = 100,
    batch_size: int = 64,
) -> LinearityScores:
    """``D(x1 + x2)`` against ``D(x1) + D(x2)``: the other half of linearity. Arguments as of ``linearity``.

    The noise of the sum is ``sqrt(2)`` times the level given to the denoiser.
    """
    key = threefry(key)
    return combination_scores(denoiser, images, sigmas, key, np.ones((1, 2)), pairs=pairs, batch_size=batch_size)


def combination_scores(
    denoiser: Denoiser,
    images: Num[ArrayLike, " n *event"],
    sigmas: Num[ArrayLike, " levels"],
    key: Key,
    coefficients: Num[ArrayLike, "mixes 2"],
    *,
    pairs: int = 100,
    batch_size: int = 64,
) -> LinearityScores:
    """``D(a x1 + b x2)`` against ``a D(x1) + b D(x2)`` for any a and b; all levels and pairs as one compiled program.

    Arguments and errors as of ``linearity``, but for the condition on a and b.
    """
    key = threefry(key)
    require_whole("pairs", pairs, 2)
    rows = checked_images(images, 2 * pairs)[: 2 * pairs]
    mixes = as_doubles("coefficients", coefficients)
    require(
        len(mixes) >= 1 and bool(np.isfinite(mixes).all()), "coefficients", mixes.tolist(), "finite, one pair or more"
    )
    levels = checked_levels(sigmas, {"denoiser": denoiser})
    blocks, numbers = in_blocks(rows.reshape(pairs, 2, *rows.shape[1:]), batch_size)
    model = as_pytree(denoiser)
    found = _scores(model, blocks, numbers, levels.astype(rows.dtype), mixes.astype(rows.dtype), key)
    # (levels and blocks, size, mixes) -> (levels, mixes, pairs)
    products, differences, given, target = (
        np.moveaxis(np.asarray(part, np.float64).reshape(len(levels), -1, len(mixes))[:, :pairs], 1, 2)
        for part in found
    )
    for part in (given, target, differences, products):
        require_finite(part, levels, type(denoiser).__name__)
    zero = np.argwhere((given == 0) | (target == 0))
    if len(zero):
        where = f"at sigma = {levels[zero[0][0]]:.6g}, pair {zero[0][2]}"
        raise InputError(f"denoiser {type(denoiser).__name__!r}: output 0 {where}: must have a direction")
    return LinearityScores(levels, mixes, products, differences, given, target)


@jax.jit
def _scores(
    denoiser: Denoiser,
    blocks: Float[Array, "blocks size 2 *event"],
    numbers: Int[Array, "blocks size"],
    sigmas: Float[Array, " levels"],
    coefficients: Float[Array, "mixes 2"],
    key: Key,
) -> tuple[Float[Array, "places size mixes"], ...]:
    """Inner products, norms of the differences, norms of given and of target."""

    def one(pair: Array, number: Array, sigma: Scalar, level: Array) -> tuple[Array, ...]:
        first, second = (noisy_input(key, pair[k], 2 * number + k, sigma, level) for k in range(2))
        # One batched evaluation for all inputs: each trace of a network is costly to compile.
        mixed = jax.vmap(lambda c: c[0] * first + c[1] * second)(coefficients)
        outputs = jax.vmap(lambda x: denoise(denoiser, x, sigma))(jnp.concatenate([jnp.stack([first, second]), mixed]))
        flat = outputs.reshape(len(outputs), -1)
        given, target = flat[2:], jnp.matmul(coefficients, flat[:2], precision=jax.lax.Precision.HIGHEST)
        norms = (jnp.linalg.norm(part, axis=1) for part in (given - target, given, target))
        return jnp.sum(given * target, axis=1), *norms

    return over_levels(one, blocks, numbers, sigmas)


def _is_paper(form: str) -> bool:
    require(form in ("paper", "code"), "form", form, "'paper' or 'code'")
    return form == "paper"
