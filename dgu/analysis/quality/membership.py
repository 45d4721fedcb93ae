"""Membership inference: can the denoiser's loss tell images it was trained on from others?

The simplest attack there is: noise an image, denoise it, and call it a member where the loss is low. That it fails
proves no privacy (stronger attacks exist); that it succeeds proves that the network has fitted its training images.
Members and non-members must come from one source: where they differ otherwise, the attack measures that difference.
"""

from collections.abc import Callable, Sequence
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
from dgu.analysis.stats.ranking import auc
from dgu.core.arrays import as_examples, as_floats
from dgu.core.brief import short_repr
from dgu.core.denoisers import as_pytree, denoise
from dgu.core.errors import require
from dgu.core.keys import example_key, stream, threefry
from dgu.core.labels import checked_labels
from dgu.core.typing import Denoiser, Key
from dgu.distributions.bases import draw_initial

#: Noise levels at which the loss is taken: from fine texture to the shape of the whole.
SIGMAS = (0.1, 0.3, 1.0)


@short_repr
@dataclass(frozen=True)
class Attack:
    """The result of the loss-threshold attack.

    Attributes:
        sigmas: noise levels.
        member_loss, other_loss: (n, levels) and (m, levels), mean squared errors over pixels and draws.
        at_level: AUC at each level by itself, each with DeLong's interval.
        together: AUC of the mean of log loss over the levels.
    """

    sigmas: tuple[float, ...]
    member_loss: np.ndarray
    other_loss: np.ndarray
    at_level: tuple[Estimate, ...]
    together: Estimate


def denoising_loss(
    denoiser: Denoiser,
    images: Num[ArrayLike, " n *event"],
    key: Key,
    *,
    labels: ArrayLike | Sequence[Any] | None = None,
    sigmas: Sequence[float | int] = SIGMAS,
    draws: int = 2,
    batch_size: int = 256,
    progress: Callable[[int, int], object] | None = None,
) -> Float[np.ndarray, "n levels"]:
    """``mean_pixels (D(x + sigma eps; sigma) - x)^2`` of each image at each level, averaged over draws of eps.

    The noise of image i at a level and draw is ``initial_noise(stream(key, "loss", draw), i)``, the same at every
    level, whatever the batch size.

    Args:
        denoiser: ``denoiser(x, sigma)`` on one image; with ``labels`` it has ``given(label)``.
        images: ``(n, *event)``.
        key: key of the noise; give members and others different keys.
        labels: (n,) classes for a conditional denoiser, or vectors as ``sample`` takes them.
        sigmas: noise levels, positive.
        draws: draws of the noise for each image and level.
        batch_size: images denoised at a time.
        progress: called as ``progress(done, n)``.

    Raises:
        InputError: no images, labels that are not classes of the denoiser, levels that are not positive, or losses that
            are not finite.
    """
    key = threefry(key)
    images = as_examples("images", images)
    marks = checked_labels(denoiser, labels, len(images))
    require(len(images) >= 1 and batch_size >= 1, "(images, batch_size)", (len(images), batch_size), "1 or more")
    require(len(sigmas) >= 1 and min(sigmas) > 0, "sigmas", tuple(sigmas), "one or more positive levels")
    require(draws >= 1, "draws", draws, "1 or more")
    keys = jnp.stack([stream(key, "loss", draw) for draw in range(draws)])
    levels = np.asarray(sigmas, images.dtype)
    size = min(batch_size, len(images))
    model, found = as_pytree(denoiser), []
    for start in range(0, len(images), size):
        rows = np.minimum(np.arange(start, start + size), len(images) - 1)
        given = None if marks is None else marks[rows]
        block = _losses(model, images[rows], rows.astype(np.int32), given, levels, keys)
        found.append(np.asarray(block)[: len(images) - start])
        if progress is not None:
            progress(min(start + size, len(images)), len(images))
    losses = np.concatenate(found)
    require(bool(np.isfinite(losses).all()), "denoising loss", "non-finite", "finite")
    return losses


def loss_attack(
    member_loss: Num[np.ndarray, "n levels"], other_loss: Num[np.ndarray, "m levels"], sigmas: Sequence[float | int]
) -> Attack:
    """The loss-threshold attack from the losses of ``denoising_loss``: members should have the lower ones.

    Raises:
        InputError: fewer than two images of either kind, or columns that are not one for each level.
    """
    member_loss, other_loss = as_floats("member_loss", member_loss), as_floats("other_loss", other_loss)
    widths = (member_loss.shape[1], other_loss.shape[1], len(sigmas))
    require(len(set(widths)) == 1, "number of levels", widths, "the same")
    scores = [-np.log(np.maximum(loss, np.finfo(loss.dtype).tiny)) for loss in (member_loss, other_loss)]
    at_level = tuple(auc(scores[0][:, level], scores[1][:, level]) for level in range(len(sigmas)))
    together = auc(scores[0].mean(axis=1), scores[1].mean(axis=1))
    return Attack(tuple(float(sigma) for sigma in sigmas), member_loss, other_loss, at_level, together)


@jax.jit
def _losses(
    denoiser: Any,
    images: Float[Array, " b *event"],
    rows: Int[Array, " b"],
    labels: Int[Array, " b"] | None,
    sigmas: Float[Array, " levels"],
    keys: Any,
) -> Float[Array, "b levels"]:
    def one(image: Array, row: Array, label: Array | None) -> Array:
        conditioned = denoiser if label is None else denoiser.given(label)

        def error(sigma: Array, key: Key) -> Array:
            noise = draw_initial(example_key(key, row), image.shape, image.dtype)
            return jnp.mean(jnp.square(denoise(conditioned, image + sigma * noise, sigma) - image))

        return jax.lax.map(lambda sigma: jax.lax.map(partial(error, sigma), keys).mean(), sigmas)

    return jax.vmap(one)(images, rows, labels)
