"""How far a trained network is from a posterior mean: four measures that are 0 of an exact one, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Num

from dgu.analysis.stats.estimates import Estimate
from dgu.analysis.stats.resampling import t_interval
from dgu.core.arrays import as_doubles
from dgu.core.denoisers import as_pytree, denoise
from dgu.core.errors import require, require_whole
from dgu.core.keys import example_key, stream, threefry
from dgu.core.labels import checked_labels
from dgu.core.noisy import checked_images, checked_levels, in_blocks, noisy_input, require_finite
from dgu.core.typing import Denoiser, Key

#: What each measure is that a check judges.
MEASURES = {
    "asymmetry": "the Jacobian is not symmetric, |J - J^T| / |J|",
    "divergence": "the squared error is not sigma^2 tr J, 1 - sigma^2 E tr J / E|x0 - D|^2",
    "orthogonality": "x0 - D is not orthogonal to D, E<x0 - D, D> / E|D|^2",
    "bias": "the mean of x0 - D is not 0, |E[x0 - D]|^2 / E|x0 - D|^2, of each image's class where there are labels",
}
#: Fewest images: intervals of a mean over fewer say nothing.
_LEAST = 8


@dataclass(frozen=True, eq=False)
class NetworkMeasures:
    """What ``network_measures`` found; every ``Estimate`` has an entry for each noise level.

    Attributes:
        sigmas: the noise levels.
        images: how many images they are means over.
        probes: random directions for each image and level.
        error: ``E|x0 - D|^2`` per coordinate: how good the denoiser is, which no check here judges.
        asymmetry: ``|J - J^T| / |J|`` in the Frobenius norm, each square averaged over the images.
        divergence: ``1 - sigma^2 E tr J / E|x0 - D|^2``, at most 1 where the mean trace is not negative.
        orthogonality: ``E<x0 - D, D> / E|D|^2``: the factor by which D would best be multiplied, less 1.
        bias: ``E|E[x0 - D | class]|^2 / E|x0 - D|^2``, both means over images, so that a class counts as often as it
            has images: the share of the error that is one constant for each class. Without labels all images are one
            class. The numerator is estimated without bias, so that it may be below 0.
    """

    sigmas: tuple[float, ...]
    images: int
    probes: int
    error: Estimate
    asymmetry: Estimate
    divergence: Estimate
    orthogonality: Estimate
    bias: Estimate

    def to_json(self) -> dict[str, Any]:
        """Numbers for a JSON file: of each estimate a row ``[value, low, high]`` for each level."""
        estimates = {name: getattr(self, name).stacked().tolist() for name in ("error", *MEASURES)}
        return {"sigmas": list(self.sigmas), "images": self.images, "probes": self.probes, **estimates}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "NetworkMeasures":
        """The measures that ``to_json`` wrote."""
        rows = {name: np.asarray(found[name], np.float64) for name in ("error", *MEASURES)}
        estimates = {name: Estimate(row[:, 0], row[:, 1], row[:, 2], method="t") for name, row in rows.items()}
        return cls(tuple(found["sigmas"]), found["images"], found["probes"], **estimates)


def network_measures(
    denoiser: Denoiser,
    images: Num[ArrayLike, " n *event"],
    key: Key,
    *,
    labels: ArrayLike | Sequence[Any] | None = None,
    sigmas: Sequence[float] | Num[np.ndarray, " levels"] = (0.1, 0.3, 1.0, 3.0),
    probes: int = 2,
    batch_size: int = 32,
) -> NetworkMeasures:
    """How far a denoiser is from the posterior mean of held-out images, at each noise level.

    The exact posterior mean ``D(x) = E[x0 | x]`` at ``x = x0 + sigma eps`` has ``E<x0 - D(x), f(x)> = 0`` for every
    function f. Four consequences are measured; ``J = dD / dx``:

    - ``asymmetry``: ``J = Cov[x0 | x] / sigma^2`` is symmetric. From random signs v, ``E|(J - J^T) v|^2`` is the
      squared Frobenius norm of ``J - J^T``, and ``(|J v|^2 + |J^T v|^2) / 2`` has the mean ``|J|^2``: no matrix is
      formed.
    - ``divergence``: ``E|x0 - D|^2 = sigma^2 E tr J``, Tweedie's identity of second order. By f = D and f = x the left
      side is ``E<x0 - D, x0> = E<x0 - D, x0 - x> = -sigma E<x0, eps> + sigma E<D, eps>``; eps has mean 0 given x0, and
      by parts (Stein) ``E<D(x0 + sigma eps), eps> = sigma E tr J``. The trace is ``v^T J v`` over the same signs
      (Hutchinson). For any D at all, ``E|x0 - D|^2 - sigma^2 E tr J = E<x0 - D, x - D>``. Data enter by x0 alone, so
      that a denoiser that has memorised other images is found out: its error is theirs, its trace that of few points.
    - ``orthogonality``: f = D. ``c D`` has ``1 / c - 1`` where D has 0.
    - ``bias``: f constant within a class, which a class-conditional denoiser is to know. A denoiser that is blind to
      the class may well be the exact posterior mean of all images, with a symmetric Jacobian and the other two
      identities: this measure alone tells. It is the mean over images of
      ``<x0 - D, x0' - D'>``, averaged over the others of the class.

    ``error`` and the trace of an image share its noise, so that their differences are paired. Intervals are t intervals
    over images, by the delta method for ratios; that of ``bias`` uses the mean product of each image with the others of
    its class, and is conservative where the bias is 0. They cover the images, not the choice of the network.

    Whether the images were in training cannot be known here: of those that were, the error is too small.

    Args:
        denoiser: any pytree that is called as ``denoiser(x, sigma)``; with ``labels`` it has ``given(label)``.
        images: ``(n, *event)``, 8 or more, which the denoiser was not trained on, in its range of values.
        key: fixes the noise, addressed by the number of the image and of the level, and the signs.
        labels: ``(n,)`` true classes, for a class-conditional denoiser, two images or more of each.
        sigmas: noise levels, positive.
        probes: random signs v for each image and level.
        batch_size: images at a time.

    Raises:
        InputError: fewer than 8 images, a level that is not positive or outside the denoiser's range, labels that are
            no classes of the denoiser or that only one image has, an output of another shape than the images', or
            results that are not finite.

    Efron, JASA 106 (2011), for Tweedie's formulas; Hutchinson (1990); Stein (1981).
    """
    key = threefry(key)
    rows = checked_images(images, _LEAST)
    levels = checked_levels(as_doubles("sigmas", sigmas), {"denoiser": denoiser})
    require(bool((levels > 0).all()), "sigmas", levels.tolist(), "above 0: without noise there is nothing to denoise")
    require_whole("probes", probes)
    marks = checked_labels(denoiser, labels, len(rows))
    if marks is not None:
        plain = marks.ndim == 1 and not jax.tree_util.all_leaves([denoiser])
        require(plain, "labels", f"of shape {marks.shape}", f"({len(rows)},) classes, and the denoiser a pytree")
        alone = [label for label, count in zip(*np.unique(marks, return_counts=True)) if count < 2]
        require(not alone, "labels", f"one image of class {alone[:1]}", "two images or more of each class")
    blocks, numbers = in_blocks(rows, batch_size)
    signs = stream(key, "signs")
    parts = [
        [
            _terms(
                as_pytree(denoiser), jnp.asarray(block), places, None if marks is None else jnp.asarray(marks[places]),
                jnp.asarray(sigma.astype(rows.dtype)), jnp.int32(level), key, signs, probes=int(probes),
            )
            for block, places in zip(blocks, numbers)
        ]
        for level, sigma in enumerate(levels)
    ]  # fmt: skip
    terms = {
        name: np.stack([np.concatenate([np.asarray(part[name], np.float64) for part in level]) for level in parts])
        for name in parts[0][0]
    }
    terms = {name: values[:, : len(rows)] for name, values in terms.items()}
    for values in terms.values():
        require_finite(values.reshape(*values.shape[:2], -1).sum(axis=2), levels, "denoiser")
    return _summary(terms, levels, np.zeros(len(rows), int) if marks is None else marks, int(probes))


@partial(jax.jit, static_argnames="probes")
def _terms(
    denoiser: Any,
    images: Float[Array, " b *event"],
    numbers: Int[Array, " b"],
    labels: Int[Array, " b"] | None,
    sigma: Float[Array, ""],
    level: Int[Array, ""],
    key: Key,
    signs_key: Key,
    *,
    probes: int,
) -> dict[str, Float[Array, "b ..."]]:
    """The residual ``x0 - D`` of each image, flat, and the terms of each measure."""

    def one(image: Array, number: Array, label: Array | None) -> dict[str, Array]:
        own = denoiser if label is None else denoiser.given(label)
        x = noisy_input(key, image, number, sigma, level)
        denoised, push = jax.linearize(lambda y: denoise(own, y, sigma), x)
        pull = jax.linear_transpose(push, x)
        signs = jax.random.rademacher(
            example_key(jax.random.fold_in(signs_key, level), number), (probes, *x.shape), x.dtype
        )
        forward, (backward,) = jax.vmap(push)(signs), jax.vmap(pull)(signs)
        residual = image - denoised
        return {
            "residual": residual.ravel(),
            "aligned": jnp.sum(residual * denoised),
            "output": jnp.sum(jnp.square(denoised)),
            "divergence": jnp.square(sigma) * jnp.sum(signs * forward) / probes,
            "skew": jnp.sum(jnp.square(forward - backward)),
            "jacobian": jnp.sum(jnp.square(forward) + jnp.square(backward)) / 2,
        }

    return jax.vmap(one)(images, numbers, labels)


def _summary(
    terms: dict[str, np.ndarray], sigmas: np.ndarray, groups: Int[np.ndarray, " n"], probes: int
) -> NetworkMeasures:
    """The measures from the terms ``(levels, n, ...)`` of each image."""
    residual = terms["residual"]
    error = np.square(residual).sum(axis=2)
    squared = _ratio(terms["skew"], terms["jacobian"], (0.0, np.inf))
    return NetworkMeasures(
        sigmas=tuple(float(sigma) for sigma in sigmas),
        images=len(groups),
        probes=probes,
        error=t_interval(error / residual.shape[2], bounds=(0.0, np.inf)),
        asymmetry=squared.map(np.sqrt),
        divergence=_ratio(error - terms["divergence"], error),
        orthogonality=_ratio(terms["aligned"], terms["output"]),
        bias=_bias(residual, error, groups),
    )


def _ratio(
    top: Float[np.ndarray, "levels n"], bottom: Float[np.ndarray, "levels n"], bounds: tuple[float, float] | None = None
) -> Estimate:
    """The ratio of two means over images, with the t interval of its linearisation."""
    scale = bottom.mean(axis=1, keepdims=True)
    scale = np.where(scale > 0, scale, 1.0)  # An output or a Jacobian of 0 has all of these measures 0.
    value = top.mean(axis=1, keepdims=True) / scale
    return t_interval(value + (top - value * bottom) / scale, bounds=bounds or (-np.inf, np.inf))


def _bias(
    residual: Float[np.ndarray, "levels n d"], error: Float[np.ndarray, "levels n"], groups: Int[np.ndarray, " n"]
) -> Estimate:
    """Mean product of the residuals of two images of a group, over the mean squared residual.

    It is a mean over images of each image's mean product with the others; every pair counts twice in it, and so does
    each image's deviation in the linearisation.
    """
    products = np.empty_like(error)
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        own = residual[:, rows]
        with_all = np.einsum("lnd,ld->ln", own, own.sum(axis=1))
        products[:, rows] = (with_all - error[:, rows]) / (len(rows) - 1)
    scale = error.mean(axis=1, keepdims=True)
    scale = np.where(scale > 0, scale, 1.0)
    mean = products.mean(axis=1, keepdims=True)
    value = mean / scale
    return t_interval(value + (2 * (products - mean) - value * (error - scale)) / scale)
