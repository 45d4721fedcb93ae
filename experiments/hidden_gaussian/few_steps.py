"""How images are made for comparison: as in the paper by a few Euler steps from the same noise, or by Heun's method.

All figures of samples and of paths from noise take their images from here.
"""

from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

if TYPE_CHECKING:  # These take JAX along: not for the help of the command line.
    from collections.abc import Sequence

    from dgu.core.typing import Denoiser, Key
    from dgu.samplers import StepState

#: The paper's first-order steps, or EDM's second-order ones.
Method: TypeAlias = Literal["euler", "heun"]


def evaluations(method: Method, steps: int) -> int:
    """Evaluations of a denoiser for a sample."""
    return steps if method == "euler" else 2 * steps - 1


def denoised_states(state: "StepState") -> "np.ndarray":
    """What is kept of a step: the denoised state, ``D(x_t; sigma_t)``."""
    return state.denoised  # type: ignore[return-value]


def sampled(
    denoiser: "Denoiser",
    key: "Key",
    count: int,
    sigmas: np.ndarray,
    method: Method,
    *,
    shape: "Sequence[int]",
    batch_size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The first ``count`` samples of a denoiser without added noise, and the denoised states on the way to them.

    Of the noise levels ``sigmas``, which fall to 0, each begins a step,

        x_{i+1} = x_i + (sigma_{i+1} - sigma_i) (x_i - D(x_i; sigma_i)) / sigma_i

    by Euler's method; the last step ends at ``D(x; sigma)`` of the lowest level. Li et al., arXiv 2410.24060, (4).

    Returns:
        ``(count, *shape)`` and ``(count, steps, *shape)``.
    """
    from dgu.samplers import Ablation, heun, sample

    return sample(
        denoiser,
        key,
        np.arange(count),
        sigmas,
        shape=shape,
        batch_size=batch_size,
        observe=denoised_states,
        solver=Ablation(solver="euler") if method == "euler" else heun,
    )
