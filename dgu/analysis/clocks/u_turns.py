"""U-turns: images with noise added up to a level, and sampled back from there."""

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from dgu.core.denoisers import check_range
from dgu.core.errors import require
from dgu.core.keys import stream, threefry
from dgu.core.noisy import checked_images, checked_levels, noisy_batch
from dgu.core.typing import Denoiser, Key
from dgu.samplers.from_noise import sample_from
from dgu.samplers.schedules import Churn, karras_sigmas


def u_turns(
    denoiser: Denoiser,
    images: Num[ArrayLike, " n *event"],
    sigmas: Num[ArrayLike, " levels"],
    key: Key,
    *,
    num_steps: int = 18,
    sigma_min: float | int = 0.002,
    churn: Churn = Churn(),  # noqa: B008 - frozen
    batch_size: int = 64,
) -> Float[np.ndarray, "levels n *event"]:
    """What ``x_i + sigma eps`` becomes when it is sampled back from each level: near ``x_i`` at low noise, a fresh
    sample at high noise, and in between an image of the same class or not, which a classifier reads.

    Args:
        denoiser: of one example; unconditional, or ``denoiser.given(label)``.
        images: clean, n of them.
        sigmas: the levels at which to turn, above ``sigma_min``.
        key: of the noise, addressed by the number of the image and of the level.
        num_steps: steps of Heun's sampler from each level, on the grid of ``karras_sigmas``.
        sigma_min: last level of the grid before 0.
        churn: noise of the sampler; none by default, and then the way back is that of the probability-flow ODE.
        batch_size: images at a time.

    Raises:
        InputError: values out of range, levels outside the network's range.

    Sclocchi et al., arXiv 2402.16991; Biroli et al., arXiv 2402.18491.
    """
    key = threefry(key)
    rows = checked_images(images, 1)
    levels = checked_levels(sigmas, {})
    require(float(levels.min()) > sigma_min, "sigmas", levels.tolist(), f"above sigma_min = {sigma_min:g}")
    check_range(denoiser, "sigmas", levels)
    grids = [karras_sigmas(num_steps, float(sigma_min), float(level)) for level in levels]
    return np.stack(
        [
            sample_from(
                denoiser,
                stream(key, "back", number),
                np.asarray(noisy_batch(key, rows, np.asarray(grid[0], rows.dtype), number)),
                grid,
                churn=churn,
                batch_size=batch_size,
            )
            for number, grid in enumerate(grids)
        ]
    )
