"""How linear is what a network adds to its skip connection, and is it of any use?

A preconditioned network is ``D(x; sigma) = c_skip x + c_out F``, and the first term alone passes for linear. At one
noise level ``G = D - c_skip x`` is F, up to a factor. G of an exactly linear posterior mean is affine, not linear: it
has a bias, which makes up most of it at high noise. So three noisy images are mixed with weights that sum to 1, and
whose squares do so too:

    G(a x1 + b x2 + c x3)  against  a G(x1) + b G(x2) + c G(x3),   (a, b, c) = (2, 2, -1) / 3

Both agree for every affine map, biases included; and the mix has the mean, the covariance and the noise level of one
noisy image, so that G is given only what it was made for. Both are centred, so that a constant scores nothing.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Float64, Int, Num

from dgu.analysis.stats.estimates import Estimate
from dgu.analysis.stats.resampling import jackknife_interval
from dgu.core.arrays import as_doubles
from dgu.core.brief import short_repr
from dgu.core.denoisers import as_pytree, denoise
from dgu.core.errors import InputError, require, require_whole
from dgu.core.keys import threefry
from dgu.core.noisy import checked_images, checked_levels, in_blocks, noisy_input, require_finite
from dgu.core.typing import Denoiser, Key, Scalar

#: The weights of the three images: their sum is 1, and the sum of their squares.
AFFINE_WEIGHTS = (2 / 3, 2 / 3, -1 / 3)
#: A contribution of fewer spacings of its dtype, relative to the denoiser's output and its skip, is rounding.
_ROUNDING = 64


@short_repr
@dataclass(frozen=True, eq=False)
class ContributionScores:
    """``G(a x1 + b x2 + c x3)`` (given) against ``a G(x1) + b G(x2) + c G(x3)`` (target), and G against what the skip
    leaves to it: L levels, T triples of images. float64.

    Attributes:
        sigmas: ``(L,)``.
        products: inner products of given and target, both less the mean of G, ``(L, T)``.
        given, target: their squared norms, ``(L, T)``.
        left: squared norm of ``x0 - c_skip x`` less its mean, which G should be, summed over a triple's images,
            ``(L, T)``.
        missed: that of its difference to G, ``(L, T)``.
    """

    sigmas: np.ndarray
    products: np.ndarray
    given: np.ndarray
    target: np.ndarray
    left: np.ndarray
    missed: np.ndarray

    def linearity(self) -> Estimate:
        """Correlation of given and target over pixels and triples at each level, ``(L,)``: 1 for affine maps alone.

        Of Gaussian inputs a map whose variance is made up of shares ``w_k`` of degree k (in Hermite polynomials) scores
        ``sum_k w_k (a^(k + 1) + b^(k + 1) + c^(k + 1))``: 1 for linear maps, 5/9 for quadratic, 11/27 for cubic ones,
        less for all others. 95 % intervals by leaving out triples.
        """
        return jackknife_interval(*self.linearity_parts(), bounds=(-1, 1))

    def remaining(self) -> Estimate:
        """Variance of ``x0 - c_skip x - G`` over that of ``x0 - c_skip x`` at each level, ``(L,)``.

        It is 0 for perfect denoising, 1 for the skip alone (and any constant beside it), and above 1 where G does harm.
        95 % intervals by leaving out triples.
        """
        return jackknife_interval(*self.remaining_parts(), bounds=(0, np.inf))

    def linearity_parts(self) -> tuple[Float64[np.ndarray, " levels"], Float64[np.ndarray, "levels triples"]]:
        """``linearity``, and what it is without each triple: for intervals of what is computed from it."""
        (products, given, target), without = _sums(self.products, self.given, self.target)
        return products / np.sqrt(given * target), without[0] / np.sqrt(without[1] * without[2])

    def remaining_parts(self) -> tuple[Float64[np.ndarray, " levels"], Float64[np.ndarray, "levels triples"]]:
        """``remaining``, and what it is without each triple."""
        (missed, left), without = _sums(self.missed, self.left)
        return missed / left, without[0] / without[1]

    @property
    def measured(self) -> dict[str, np.ndarray]:
        """What was measured, by the names of the fields: all but the levels."""
        return {name: getattr(self, name) for name in ("products", "given", "target", "left", "missed")}


def contribution_scores(
    denoiser: Denoiser,
    images: Num[ArrayLike, " n *event"],
    sigmas: Num[ArrayLike, " levels"],
    key: Key,
    *,
    skip: Num[ArrayLike, " skips"],
    triples: int = 100,
    batch_size: int = 64,
) -> ContributionScores:
    """Scores of ``G = D - c_skip x`` over noise levels: images 3 j to 3 j + 2, noise added to each, make triple j.

    Args:
        denoiser: any pytree that is called as ``denoiser(x, sigma)``.
        images: clean images, at least ``3 * triples``.
        sigmas: noise levels, 0 or more.
        key: of the noise, addressed by level and image.
        skip: ``c_skip`` at each level; zeros for a denoiser without a skip.
        triples: triples of images, 2 or more.
        batch_size: triples at a time.

    Raises:
        InputError: fewer images than the triples need, a level out of range, another number of skips than levels, an
            output of another shape than the input or not finite, or a G that varies by no more than rounding (level and
            denoiser are named).
    """
    key = threefry(key)
    require_whole("triples", triples, 2)
    rows = checked_images(images, 3 * triples)[: 3 * triples]
    levels, skips = checked_levels(sigmas, {"denoiser": denoiser}), as_doubles("skip", skip)
    require(skips.shape == levels.shape, "skip.shape", skips.shape, f"{levels.shape}, one for each level")
    blocks, numbers = in_blocks(rows.reshape(triples, 3, *rows.shape[1:]), batch_size)
    clean = rows.reshape(triples, 3, -1).astype(np.float64)
    model, name, found = as_pytree(denoiser), type(denoiser).__name__, []
    for level, sigma in enumerate(levels):
        parts = _evaluated(model, blocks, numbers, np.asarray(sigma, rows.dtype), np.int32(level), key)
        # (blocks, size, 4, ...) -> (triples, 4, d)
        noisy, output = (np.asarray(part, np.float64).reshape(-1, 4, clean.shape[-1])[:triples] for part in parts)
        require_finite(output.sum(axis=(1, 2))[None], levels[level : level + 1], name)
        added = output - skips[level] * noisy
        mean = added[:, :3].mean(axis=(0, 1))
        given = added[:, 3] - mean
        target = np.einsum("tkd,k->td", added[:, :3], AFFINE_WEIGHTS) - mean
        size = float(np.sqrt(np.mean(output**2)) + abs(skips[level]) * np.sqrt(np.mean(noisy**2)))
        least = min(float(np.sqrt(np.mean(part**2))) for part in (given, target))
        if least <= _ROUNDING * np.finfo(rows.dtype).eps * size:
            raise InputError(
                f"denoiser {name!r}: what it adds to skip * x is constant at sigma = {sigma:.6g}: must vary"
            )
        left = clean - skips[level] * noisy[:, :3]
        left = left - left.mean(axis=(0, 1))
        missed = left - (added[:, :3] - mean)
        found.append(
            [
                (given * target).sum(axis=1),
                *((part**2).sum(axis=1) for part in (given, target)),
                *((part**2).sum(axis=(1, 2)) for part in (left, missed)),
            ]
        )
    return ContributionScores(levels, *np.moveaxis(np.array(found), 1, 0))


@jax.jit
def _evaluated(
    denoiser: Denoiser,
    blocks: Float[Array, "blocks size 3 *event"],
    numbers: Int[Array, "blocks size"],
    sigma: Scalar,
    level: Int[ArrayLike, ""],
    key: Key,
) -> tuple[Float[Array, "blocks size 4 *event"], Float[Array, "blocks size 4 *event"]]:
    """The noisy images of each triple and, last, their mix; and what the denoiser makes of them."""

    def one(triple: Array, number: Array) -> tuple[Array, Array]:
        singles = jnp.stack([noisy_input(key, triple[k], 3 * number + k, sigma, level) for k in range(3)])
        mixed = jnp.tensordot(
            jnp.asarray(AFFINE_WEIGHTS, singles.dtype), singles, 1, precision=jax.lax.Precision.HIGHEST
        )
        inputs = jnp.concatenate([singles, mixed[None]])
        return inputs, jax.vmap(lambda x: denoise(denoiser, x, sigma))(inputs)

    return jax.lax.map(lambda block: jax.vmap(one)(*block), (blocks, numbers))


def _sums(*parts: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Sums over the last axis, and the same without each of its entries."""
    sums = [part.sum(axis=-1) for part in parts]
    return sums, [total[..., None] - part for total, part in zip(sums, parts)]
