"""Denoisers that have a network of their own for each noise level, measured level by level.

A ``LevelDenoisers`` gathers the parameters of a level for every example where it is mapped over levels. Here each level
is measured by itself, with its parameters alone; any other denoiser is measured the same way, on the same noisy images.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from dgu.analysis.linearity.jacobians import SingularTriplets, singular_triplets
from dgu.core.arrays import as_floats
from dgu.core.denoisers import as_pytree, map_batch
from dgu.core.errors import require
from dgu.core.keys import stream, threefry
from dgu.core.noisy import checked_images, checked_levels, noisy_batch, require_finite
from dgu.core.parallel import run_jobs
from dgu.core.typing import Denoiser, Key
from dgu.models.levels import LevelDenoisers
from dgu.samplers.schedules import check_sigmas


def level_triplets(
    denoiser: Denoiser,
    images: Num[ArrayLike, " n *event"],
    sigmas: Num[ArrayLike, " levels"],
    count: int,
    key: Key,
    *,
    tolerance: float = 1e-4,
    max_rounds: int = 40,
    progress: Callable[[int, int], object] | None = None,
) -> SingularTriplets:
    """The ``count`` leading singular triplets of the Jacobian at noisy versions of the images, for every level.

    Args:
        images: clean images.
        key: of the noise, addressed by level and image, and of the start of the iteration.
        denoiser, sigmas, count, tolerance, max_rounds, progress: as of ``state_triplets``.

    Returns:
        Triplets with a leading axis of levels, ``(levels, n, count, ...)``; ``products`` is the most of any level.

    Raises:
        InputError: as ``singular_triplets``.

    Li et al., arXiv 2410.24060, Fig 29.
    """
    key = threefry(key)
    rows, levels = checked_images(images, 1), checked_levels(sigmas, {"denoiser": denoiser})
    points = stream(key, "points")
    states = np.stack([np.asarray(noisy_batch(points, rows, sigma, level)) for level, sigma in enumerate(levels)])
    return state_triplets(
        denoiser, states, levels, count, key, tolerance=tolerance, max_rounds=max_rounds, progress=progress
    )


def state_triplets(
    denoiser: Denoiser,
    states: Num[ArrayLike, "..."],
    sigmas: Num[ArrayLike, " levels"],
    count: int,
    key: Key,
    *,
    tolerance: float = 1e-4,
    max_rounds: int = 40,
    progress: Callable[[int, int], object] | None = None,
) -> SingularTriplets:
    """The ``count`` leading singular triplets of the Jacobian at n states of each level, such as those of
    ``level_paths``. Levels are spread over all devices and hosts (``dgu.parallel.run_jobs``).

    Args:
        denoiser: any pytree that is called as ``denoiser(x, sigma)``.
        states: noisy images at each level, ``(levels, n, *event)``.
        sigmas: noise levels within the denoiser's range, positive.
        count: triplets at each state.
        key: of the start of the iteration.
        tolerance, max_rounds: as of ``singular_triplets``.
        progress: called as ``progress(levels done, levels)``.

    Returns:
        Triplets with a leading axis of levels, ``(levels, n, count, ...)``; ``products`` is the most of any level.

    Raises:
        InputError: as ``singular_triplets``, or states of another number of levels.
    """
    key = threefry(key)
    levels, points = checked_levels(sigmas, {"denoiser": denoiser}), as_floats("states", states)
    fits = points.ndim >= 3 and len(points) == len(levels)
    require(fits, "states.shape", points.shape, f"({len(levels)}, n, *event), one entry for each of the sigmas")

    def one(denoiser: Denoiser, level: int) -> dict[str, Any]:
        found = singular_triplets(
            _at(denoiser, level),
            points[level],
            np.asarray(levels[level], points.dtype),
            count,
            stream(key, "vectors"),
            tolerance=tolerance,
            max_rounds=max_rounds,
        )
        return vars(found)

    found = list(run_jobs(one, len(levels), as_pytree(denoiser), what="level", progress=progress))
    values, left, right, residuals = (
        np.stack([level[name] for level in found]) for name in ("values", "left", "right", "residuals")
    )
    return SingularTriplets(values, left, right, residuals, max(int(level["products"]) for level in found))


def level_paths(
    denoisers: Mapping[str, Denoiser], starts: Num[ArrayLike, " n *event"], sigmas: Num[ArrayLike, " levels"]
) -> dict[str, tuple[Float[np.ndarray, "levels n *event"], Float[np.ndarray, "levels n *event"]]]:
    """Sampling along the levels themselves, for denoisers that know no others: from ``x_0``, noise of level sigma_0,

        x_{i+1} = x_i + (sigma_{i+1} - sigma_i) (x_i - D(x_i; sigma_i)) / sigma_i,    sigma_L = 0:

    Euler's steps, the last of which gives ``D(x_{L-1}; sigma_{L-1})``. Li et al., arXiv 2410.24060, (4) and Fig 24.

    Args:
        denoisers: any pytrees that are called as ``denoiser(x, sigma)``, by name; a ``LevelDenoisers`` is asked for the
            denoiser of each level in turn.
        starts: ``x_0`` of each sample, which all denoisers start from.
        sigmas: noise levels, falling and positive, within every denoiser's range.

    Returns:
        For each denoiser the states ``x_i`` and what it makes of them, of which the last are the samples.

    Raises:
        InputError: levels that do not fall, or lie out of range; or an output that is not finite (it names the
            denoiser, level and sample).
    """
    x, levels = checked_images(starts, 1, "starts"), checked_levels(sigmas, denoisers)
    check_sigmas(np.append(levels, 0.0))
    return {name: _path(name, denoiser, jnp.asarray(x), levels) for name, denoiser in denoisers.items()}


def _path(name: str, denoiser: Denoiser, x: Any, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """States and outputs along the levels, from the states of the first."""
    states, outputs = [], []
    for level, (sigma, following) in enumerate(pairwise(np.append(levels, 0.0))):
        out = _evaluated(denoiser, level, x, sigma)
        states.append(np.asarray(x))
        outputs.append(np.asarray(out))
        x = x + jnp.asarray(following / sigma - 1, x.dtype) * (x - out)
    made = np.stack(outputs)
    require_finite(np.moveaxis(made.reshape(*made.shape[:2], -1), 2, 1), levels, name)
    return np.stack(states), made


def level_outputs(
    denoisers: Mapping[str, Denoiser], images: Num[ArrayLike, " n *event"], sigmas: Num[ArrayLike, " levels"], key: Key
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
            [np.asarray(_evaluated(denoiser, level, x, sigma)) for level, (sigma, x) in enumerate(zip(levels, noisy))]
        )
        require_finite(np.moveaxis(outputs[name].reshape(*noisy.shape[:2], -1), 2, 1), levels, name)
    return noisy, outputs


def _evaluated(denoiser: Denoiser, level: int, x: Any, sigma: float) -> Any:
    """The denoiser of one level on some examples."""
    return map_batch(_at(denoiser, level), x, jnp.full(len(x), sigma, x.dtype))


def _at(denoiser: Any, level: int) -> Any:
    """The denoiser of one level, if each level has its own."""
    return denoiser.at(level) if isinstance(denoiser, LevelDenoisers) else denoiser
