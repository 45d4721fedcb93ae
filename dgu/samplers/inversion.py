"""From an image to the noise that the deterministic sampler makes it from: the same ODE, run upwards."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float

from dgu.core.denoisers import denoise
from dgu.core.errors import require_whole
from dgu.core.typing import Denoiser, Event, PyTree
from dgu.samplers.heun import StepState, as_state, step_from
from dgu.samplers.schedules import check_sigmas


def invert(
    denoiser: Denoiser,
    x: Float[ArrayLike, "*event"],
    sigmas: Float[ArrayLike, "..."],
    *,
    refine: int = 1,
    observe: Callable[[StepState], PyTree] | None = None,
) -> PyTree:
    """The state at ``sigmas[0]`` from which ``heun`` without churn returns to ``x``: Heun's steps over the grid
    reversed.

    The first step undoes the sampler's last one, ``x = denoiser(x_min; sigma_min)``, to first order:

        x_min = x + (x - denoiser(x; sigma_min)),    sigma_min = sigmas[-2]

    that is Euler's step from noise 0 with the slope at ``sigma_min`` (at 0 the slope is 0/0). From there on Heun's
    rule runs from each level to the next higher one. Its step up is not the inverse of the sampler's step R down, so
    each is corrected ``refine`` times by what the step down misses: ``x_up <- x_up + (x - R(x_up))``. On a grid of N
    steps this takes ``2 N - 1 + 2 refine (N - 1)`` evaluations. The latent differs from that of the exact ODE by an
    error of order 2 in the step; the round trip ``heun(denoiser, invert(...), sigmas)`` misses ``x`` by order 3 without
    correction (the leading errors up and down cancel), and by another order with each one. What can't come back is what
    the denoiser removes at ``sigma_min`` already: detail off the data's support.

    Args:
        denoiser: ``denoiser(x, sigma) -> E[x0 | x]`` for one example.
        x: a clean example; its dtype is that of the computation.
        sigmas: the sampler's grid, ``(num_steps + 1,)`` falling to 0.
        refine: corrections of each step, 0 or more.
        observe: called on each step's ``StepState``, whose ``sigma_next`` is above ``sigma``; in the first, ``sigma``
            and ``sigma_hat`` are 0 and ``denoised`` is taken at ``sigma_min``. Results are stacked over all steps.

    Returns:
        The latent, of the shape of ``x``; divide by ``sigmas[0]`` for unit noise. With ``observe`` the pair
        ``(latent, observed)``.

    Raises:
        InputError: a grid that does not fall to 0 or leaves the denoiser's range, a negative ``refine``. Traced values
            are not looked at.

    EDM (Karras et al. 2022), equation 1; Song et al. 2021 (DDIM, score SDE) for the encoding.
    """
    check_sigmas(sigmas, denoiser)
    require_whole("refine", refine, 0)
    x = as_state("x", x)
    levels = jnp.asarray(sigmas, x.dtype)[::-1]
    num_steps = np.shape(sigmas)[0] - 1

    def seen(state: StepState) -> tuple[Event, PyTree]:
        return state.x_next, None if observe is None else observe(state)

    denoised = denoise(denoiser, x, levels[1])
    zero = levels[0]
    latent, first = seen(StepState(jnp.int32(0), zero, zero, levels[1], x, x, denoised, x + (x - denoised)))

    def climb(x: Event, at: tuple[Any, ...]) -> tuple[Event, PyTree]:
        step, sigma, sigma_next = at
        state = step_from(denoiser, x, step, sigma, sigma_next, None, 0.0, 1.0, True)
        for _ in range(int(refine)):
            back = step_from(denoiser, state.x_next, step, sigma_next, sigma, None, 0.0, 1.0, True)
            state = state._replace(x_next=state.x_next + (x - back.x_next))
        return seen(state)

    grid = (jnp.arange(1, num_steps, dtype=jnp.int32), levels[1:-1], levels[2:])
    latent, rest = jax.lax.scan(climb, latent, grid)
    if observe is None:
        return latent
    return latent, jax.tree.map(lambda one, many: jnp.concatenate([jnp.asarray(one)[None], many]), first, rest)
