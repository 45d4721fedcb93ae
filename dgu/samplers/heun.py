"""The Heun sampler of EDM (Algorithms 1 and 2), one example at a time.

Everything here can be traced, mapped and differentiated: ``jax.jit``, ``jax.vmap`` and ``jax.grad`` compose through it
with respect to the denoiser's leaves, the initial state, the noise levels and vector labels.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from dgu.core import keys
from dgu.core.denoisers import denoise
from dgu.core.errors import InputError, require
from dgu.core.typing import Denoiser, Event, Key, PyTree, Scalar
from dgu.samplers.schedules import Churn, check_churn, check_sigmas, is_concrete


class StepState(NamedTuple):
    """What an observer sees of one step, for one example: scalars ``step`` (0 for the first), ``sigma``, ``sigma_hat``,
    ``sigma_next``, and of the example's shape ``x`` (at ``sigma``), ``x_hat`` (at ``sigma_hat``, noise added),
    ``denoised`` (= denoiser(x_hat, sigma_hat)), ``x_next`` (at ``sigma_next``)."""

    step: Array
    sigma: Array
    sigma_hat: Array
    sigma_next: Array
    x: Array
    x_hat: Array
    denoised: Array
    x_next: Array


def _raise_noise(x: Event, sigma: Scalar, eps: Event, gamma: Scalar, s_noise: Scalar) -> Event:
    """``x + sqrt(sigma_hat^2 - sigma^2) s_noise eps`` for ``sigma_hat = (1 + gamma) sigma``."""
    # sigma sqrt(gamma (2 + gamma)) loses no digits to cancellation; the inner where keeps the gradient finite at 0.
    churned = jnp.asarray(gamma) > 0
    root = jnp.sqrt(jnp.where(churned, gamma * (2 + gamma), jnp.ones_like(gamma)))
    return x + sigma * jnp.where(churned, root, jnp.zeros_like(root)) * s_noise * eps


def step_from(
    denoiser: Denoiser,
    x: Event,
    step: ArrayLike,
    sigma: Scalar,
    sigma_next: Scalar,
    eps: Event | None,
    gamma: Scalar,
    s_noise: Scalar,
    second_order: bool,
) -> StepState:
    """One step with everything that it saw; see ``heun_step``."""
    sigma, sigma_next, gamma, s_noise = (jnp.asarray(v, x.dtype) for v in (sigma, sigma_next, gamma, s_noise))
    sigma_hat = sigma * (1 + gamma)
    x_hat = x if eps is None else _raise_noise(x, sigma, eps, gamma, s_noise)
    denoised = denoise(denoiser, x_hat, sigma_hat)
    slope = (x_hat - denoised) / sigma_hat
    x_next = x_hat + (sigma_next - sigma_hat) * slope
    if second_order:
        slope_next = (x_next - denoise(denoiser, x_next, sigma_next)) / sigma_next
        x_next = x_hat + (sigma_next - sigma_hat) * (slope + slope_next) / 2
    return StepState(jnp.asarray(step, jnp.int32), sigma, sigma_hat, sigma_next, x, x_hat, denoised, x_next)


def as_state(name: str, value: ArrayLike) -> Event:
    """``value`` as the state of a sampler: an array of floating dtype."""
    array = jnp.asarray(value)
    require(jnp.issubdtype(array.dtype, jnp.floating), f"{name}.dtype", str(array.dtype), "a floating dtype")
    return array


def heun_step(
    denoiser: Denoiser,
    x: Float[ArrayLike, "*event"],
    sigma: Scalar,
    sigma_next: Scalar,
    *,
    eps: Float[ArrayLike, "..."] | None = None,
    gamma: Scalar = 0.0,
    s_noise: Scalar = 1.0,
    second_order: bool = True,
) -> Event:
    """One step of the sampler from ``sigma`` to ``sigma_next``, the map R, on one example.

    With ``sigma_hat = (1 + gamma) sigma`` and ``slope(x, s) = (x - denoiser(x, s)) / s``:

        x_hat = x + sqrt(sigma_hat^2 - sigma^2) s_noise eps
        euler = x_hat + (sigma_next - sigma_hat) slope(x_hat, sigma_hat)
        heun  = x_hat + (sigma_next - sigma_hat) (slope(x_hat, sigma_hat) + slope(euler, sigma_next)) / 2

    Args:
        denoiser: ``denoiser(x, sigma) -> E[x0 | x]`` for one example.
        x: the state at noise level ``sigma``; its dtype is that of the computation.
        sigma: noise level, positive.
        sigma_next: noise level after the step; 0 is allowed with ``second_order=False`` only.
        eps: the standard normal draw of the step, of the shape of ``x``; ``None`` stands for no noise.
        gamma: relative increase of the noise level before the step, 0 to sqrt(2) - 1.
        s_noise: scale of the added noise.
        second_order: static. False is the Euler step, which the last step (to noise 0) has to be.

    Returns:
        The state at ``sigma_next``.

    Raises:
        InputError: ``gamma`` is a constant above 0 and ``eps`` is missing; ``eps`` or the denoised example is of
            another shape; a second-order step to a constant 0.

    EDM, Algorithm 2.
    """
    x = as_state("x", x)
    if eps is None:
        noiseless = not is_concrete(gamma) or bool(gamma == 0)
        require(noiseless, "gamma", gamma, "0 where eps is not given")
    else:
        eps = jnp.asarray(eps, x.dtype)
        require(eps.shape == x.shape, "eps.shape", eps.shape, f"that of x, {x.shape}")
    if second_order and is_concrete(sigma_next):
        require(bool(np.asarray(sigma_next) > 0), "sigma_next", sigma_next, "positive unless second_order=False")
    return step_from(denoiser, x, 0, sigma, sigma_next, eps, gamma, s_noise, second_order).x_next


def heun(
    denoiser: Denoiser,
    x_init: Float[ArrayLike, "*event"],
    sigmas: Float[ArrayLike, "..."],
    *,
    key: Key | None = None,
    churn: Churn = Churn(),  # noqa: B008 - frozen
    eps: Float[ArrayLike, "..."] | None = None,
    observe: Callable[[StepState], PyTree] | None = None,
) -> PyTree:
    """One example from noise to clean: ``heun_step`` over the grid, by ``lax.scan``; the last step, to 0, is Euler's.

    Not compiled by itself: call it under ``jax.jit`` with the denoiser as an argument. ``dgu.samplers.sample`` makes
    many addressed samples this way.

    Args:
        denoiser: ``denoiser(x, sigma) -> E[x0 | x]`` for one example.
        x_init: state at ``sigmas[0]``, already scaled by it; its dtype is that of the computation.
        sigmas: ``(num_steps + 1,)`` noise levels, strictly falling, the last 0.
        key: the example's key; the noise of step ``i`` is ``dgu.keys.draw_step(key, i, shape, dtype)``.
        churn: how much noise is added, ``gamma = churn.gamma(sigma, num_steps)``; without ``key`` or ``eps`` none is.
        eps: ``(num_steps, *event)`` standard normal draws to use in place of ``key``'s, the last step's included.
        observe: called on each step's ``StepState``; its results are stacked over all ``num_steps`` steps.

    Returns:
        ``x0`` of the shape of ``x_init``; with ``observe`` the pair ``(x0, observed)``.

    Raises:
        InputError: a churn rate that is not the constant 0 with neither ``key`` nor ``eps``, or both of these given; a
            grid that does not fall to 0, a churn value or a shape out of range. Traced values are not looked at.

    EDM, Algorithm 2.
    """
    key = None if key is None else keys.threefry(key)
    check_sigmas(sigmas, denoiser)
    x_init = as_state("x_init", x_init)
    num_steps = np.shape(sigmas)[0] - 1
    eps = check_noise(x_init, num_steps, key, churn, eps)
    sigmas = jnp.asarray(sigmas, x_init.dtype)
    gammas = churn.gamma(sigmas[:-1], num_steps)

    def advance(x: Event, at: tuple[Any, ...], last: bool) -> tuple[Event, StepState]:
        step, sigma, sigma_next, gamma, noise = at
        if key is not None:
            noise = draw_step_noise(key, step, x)
        state = step_from(denoiser, x, step, sigma, sigma_next, noise, gamma, churn.s_noise, not last)
        return state.x_next, state

    grid = (jnp.arange(num_steps, dtype=jnp.int32), sigmas[:-1], sigmas[1:], gammas, eps)
    return scan_steps(advance, x_init, grid, observe)


def check_noise(
    x_init: Event, num_steps: int, key: Key | None, churn: Churn, eps: Any
) -> Float[Array, " steps *event"] | None:
    """The replayed draws ``eps`` in the state's dtype, or None; ``InputError`` where churn and draws do not fit."""
    if key is not None:
        keys.threefry(key)
    check_churn(churn)
    if key is not None and eps is not None:
        raise InputError("key and eps: must not both be given, eps replaces the draws of key")
    if key is None and eps is None:
        # A traced rate counts as churn: dropping the noise in silence would return samples of another law.
        noiseless = is_concrete(churn.rate) and bool(churn.rate == 0)
        require(noiseless, "churn.rate", churn.rate, "the constant 0 where neither key nor eps is given")
    if eps is None:
        return None
    eps = jnp.asarray(eps, x_init.dtype)
    require(eps.shape == (num_steps, *x_init.shape), "eps.shape", eps.shape, f"{(num_steps, *x_init.shape)}")
    return eps


def draw_step_noise(key: Key, step: ArrayLike, x: Event) -> Event:
    """The addressed draw of one step, in the shape and dtype of ``x``."""
    key = keys.threefry(key)
    # The barrier keeps the compiler from fusing the draw into the step, which would alter its last bits.
    return jax.lax.optimization_barrier(keys.draw_step(key, step, x.shape, x.dtype))


def scan_steps(
    advance: Callable[[PyTree, PyTree, bool], tuple[PyTree, StepState]],
    carry: PyTree,
    grid: PyTree,
    observe: Callable[[StepState], PyTree] | None,
) -> PyTree:
    """``carry, state = advance(carry, row of grid, is it the last)`` over all rows by ``lax.scan``, the last peeled
    off.

    Choosing between Euler and Heun by a ``where`` inside the scan gives NaN gradients. Returns the last ``x_next``,
    with ``observe`` the pair of it and the stacked observations.
    """

    def row(carry: PyTree, at: PyTree) -> tuple[PyTree, PyTree]:
        carry, state = advance(carry, at, False)
        return carry, None if observe is None else observe(state)

    head, tail = jax.tree.map(lambda a: a[:-1], grid), jax.tree.map(lambda a: a[-1], grid)
    carry, observed = jax.lax.scan(row, carry, head)
    _, state = advance(carry, tail, True)
    if observe is None:
        return state.x_next
    return state.x_next, jax.tree.map(
        lambda many, one: jnp.concatenate([many, jnp.asarray(one)[None]]), observed, observe(state)
    )
