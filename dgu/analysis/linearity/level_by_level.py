"""Denoisers that have a network of their own for each noise level, measured level by level.

A ``LevelDenoisers`` gathers the parameters of a level for every example where it is mapped over levels. Here each level
is measured by itself, with its parameters alone; any other denoiser is measured the same way, on the same noisy images.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from dgu.analysis.linearity.jacobians import SingularTriplets, singular_triplets
from dgu.core.denoisers import map_batch
from dgu.core.keys import stream, threefry
from dgu.core.noisy import checked_images, checked_levels, noisy_batch, require_finite
from dgu.core.typing import Denoiser, Key
from dgu.models.levels import LevelDenoisers


def level_triplets(
    denoiser: Denoiser,
    images: Num[ArrayLike, "n *event"],
    sigmas: Num[ArrayLike, "levels"],
    count: int,
    key: Key,
    *,
    tolerance: float = 1e-4,
    max_rounds: int = 40,
    progress: Callable[[int, int], object] | None = None,
) -> SingularTriplets:
    """The ``count`` leading singular triplets of the Jacobian at noisy versions of the images, for every level.

    Args:
        denoiser: any pytree that is called as ``denoiser(x, sigma)``.
        images: clean images.
        sigmas: noise levels within the denoiser's range, positive.
        count: triplets at each noisy image.
        key: of the noise, addressed by level and image, and of the start of the iteration.
        tolerance, max_rounds: as of ``singular_triplets``.
        progress: called as ``progress(levels done, levels)``.

    Returns:
        Triplets with a leading axis of levels, ``(levels, n, count, ...)``; ``products`` is the most of any level.

    Raises:
        InputError: as ``singular_triplets``.

    Li et al., arXiv 2410.24060, Fig 29.
    """
    key = threefry(key)
    rows, levels = checked_images(images, 1), checked_levels(sigmas, {"denoiser": denoiser})
    found = []
    for level, sigma in enumerate(levels):
        found.append(
            singular_triplets(
                _at(denoiser, level),
                noisy_batch(stream(key, "points"), rows, sigma, level),
                np.asarray(sigma, rows.dtype),
                count,
                stream(key, "vectors"),
                tolerance=tolerance,
                max_rounds=max_rounds,
            )
        )
        if progress is not None:
            progress(level + 1, len(levels))
    return SingularTriplets(
        values=np.stack([one.values for one in found]),
        left=np.stack([one.left for one in found]),
        right=np.stack([one.right for one in found]),
        residuals=np.stack([one.residuals for one in found]),
        products=max(one.products for one in found),
    )


def level_outputs(
    denoisers: Mapping[str, Denoiser], images: Num[ArrayLike, "n *event"], sigmas: Num[ArrayLike, "levels"], key: Key
) -> tuple[Float[np.ndarray, "levels n *event"], dict[str, Float[np.ndarray, "levels n *event"]]]:
    """Noisy versions of a few images at each level, and what each denoiser makes of them.

    Args:
        denoisers: any pytrees that are called as ``denoiser(x, sigma)``, by name.
        images: clean images.
        sigmas: noise levels within every denoiser's range.
        key: of the noise, addressed by level and image.

    Raises:
        InputError: a level out of range, or an output that is not finite (it names the denoiser, level and image).
    """
    key = threefry(key)
    rows, levels = checked_images(images, 1), checked_levels(sigmas, denoisers)
    noisy = np.stack([np.asarray(noisy_batch(key, rows, sigma, level)) for level, sigma in enumerate(levels)])
    outputs = {}
    for name, denoiser in denoisers.items():
        outputs[name] = np.stack(
            [
                np.asarray(map_batch(_at(denoiser, level), x, np.full(len(x), sigma, x.dtype)))
                for level, (sigma, x) in enumerate(zip(levels, noisy))
            ]
        )
        require_finite(np.moveaxis(outputs[name].reshape(*noisy.shape[:2], -1), 2, 1), levels, name)
    return noisy, outputs


def _at(denoiser: Any, level: int) -> Any:
    """The denoiser of one level, if each level has its own."""
    return denoiser.at(level) if isinstance(denoiser, LevelDenoisers) else denoiser
