"""Sampling a linear diffusion process backwards in time from a score: the reverse SDE, predictor-corrector, and the
flow.

    dx = (f x - g^2 score(x, t)) dt + g dW        reverse SDE (Anderson 1982), t falling
    dx = (f x - g^2 score(x, t) / 2) dt           probability-flow ODE (Song et al. 2021, equation 13)

Functions take ONE example; ``jax.vmap`` them over examples and keys. Draws are addressed as in ``dgu.keys``: with
``key = fold_in(run key, index)``, step ``i`` of sample ``index`` sees the same noise whatever else is sampled.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Int

from dgu.core import keys
from dgu.core.arrays import as_jax_floats
from dgu.core.denoisers import as_pytree
from dgu.core.errors import require
from dgu.core.typing import Event, Key, Scalar
from dgu.samplers.schedules import is_concrete
from dgu.samplers.sde import LinearSDE, Score

#: Steps of the flow, refused ones included, after which an example is given up.
_MAX_STEPS = 4096


def reverse_sde(
    score: Score,
    sde: LinearSDE,
    x_init: Event,
    times: Float[ArrayLike, " levels"],
    key: Key,
    *,
    corrector_steps: int = 0,
    snr: float = 0.16,
) -> Event:
    """One example from ``x_init`` at ``times[0]`` to ``times[-1]`` by Euler-Maruyama, with a corrector where asked for.

        x <- x - (f x - g^2 score(x, t)) h + g sqrt(h) eps,       h = t - t_next

    and, ``corrector_steps`` times after each step but the last, Langevin's step for ``p_t`` at the new time

        x <- x + a score(x, t) + sqrt(2 a) eps,     a = 2 (snr s(t))^2.

    ``a`` is that of Song et al. (2021, algorithm 4) with the norm of the score, there of the example or the batch at
    hand, at its typical value ``sqrt(d) / s(t)``: a step that depends on the state biases the corrector, in one
    dimension without bound. The last step leaves its noise out, as there.

    Args:
        score: ``score(x, t)``.
        sde: the process.
        x_init: the state at ``times[0]``, commonly ``sde.std(times[0])`` times a standard normal draw. What is returned
            has its dtype; half precision is computed in float32, where steps and tolerances are too small for it.
        times: falling, within (0, T], at least two.
        key: of this example.
        corrector_steps: Langevin steps a time, 0 for none.
        snr: their size.

    Raises:
        InputError: times that do not fall within (0, T], a negative number of steps, a ``snr`` that is not positive.
    """
    key = keys.threefry(key)
    _check_times(sde, times)
    require(corrector_steps == int(corrector_steps) >= 0, "corrector_steps", corrector_steps, "0 or more")
    require(not is_concrete(snr) or 0 < snr < float("inf"), "snr", snr, "positive and finite")
    state = as_jax_floats("x_init", x_init)
    times = jnp.asarray(times, state.dtype)

    def predict(x: Array, t: Array, t_next: Array) -> Array:
        step = t - t_next
        return x - step * (sde.drift(t) * x - jnp.square(sde.diffusion(t)) * score(x, t))

    def correct(x: Array, t: Array, address: Array) -> Array:
        size = 2 * jnp.square(snr * sde.std(t))
        eps = keys.draw_step(key, address, x.shape, x.dtype)
        return x + size * score(x, t) + jnp.sqrt(2 * size) * eps

    def advance(x: Array, item: tuple[Int[Array, ""], Array, Array]) -> tuple[Array, None]:
        number, t, t_next = item
        first = number * (1 + corrector_steps)
        eps = keys.draw_step(key, first, x.shape, x.dtype)
        x = predict(x, t, t_next) + sde.diffusion(t) * jnp.sqrt(t - t_next) * eps
        for correction in range(corrector_steps):
            x = correct(x, t_next, first + 1 + correction)
        return x, None

    count = times.shape[0] - 1
    x, _ = jax.lax.scan(advance, state, (jnp.arange(count - 1), times[:-2], times[1:-1]))
    return predict(x, times[-2], times[-1]).astype(x_init.dtype)


def probability_flow(
    score: Score,
    sde: LinearSDE,
    x_init: Event,
    t_start: Scalar,
    t_end: Scalar,
    *,
    rtol: Scalar = 1e-5,
    atol: Scalar = 1e-5,
) -> Event:
    """One example carried by the probability-flow ODE from ``t_start`` to ``t_end``, either way, by adaptive Dopri5.

    Forwards it encodes, backwards it samples. NaN where a value was not finite or 4096 steps did not do.
    In the dtype of ``x_init``, half precision computed in float32.

    Raises:
        InputError: times outside (0, T].
    """
    for name, t in (("t_start", t_start), ("t_end", t_end)):
        inside = not is_concrete(t) or 0 < float(np.asarray(t)) <= sde.t_max
        require(inside, name, t, f"above 0 and at most T = {sde.t_max:g}")
    state = as_jax_floats("x_init", x_init)
    given = (jnp.asarray(value, state.dtype) for value in (t_start, t_end, rtol, atol))
    return _flow(as_pytree(score, "score"), state, *given, sde=sde).astype(x_init.dtype)


@functools.partial(jax.jit, static_argnames="sde")
def _flow(score: Score, x: Event, start: Array, end: Array, rtol: Array, atol: Array, *, sde: LinearSDE) -> Event:
    def slope(t: Any, x: Any, score: Any) -> Array:
        return sde.drift(t) * x - jnp.square(sde.diffusion(t)) / 2 * score(x, t)

    import diffrax  # It takes a second to load, which everything that imports this module would wait for.

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(slope),
        diffrax.Dopri5(),
        start,
        end,
        None,
        x,
        args=score,
        stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
        max_steps=_MAX_STEPS,
        throw=False,
    )
    x = solution.ys[0]
    done = (solution.result == diffrax.RESULTS.successful) & jnp.isfinite(x).all()
    return jnp.where(done, x, jnp.full_like(x, jnp.nan))


def _check_times(sde: LinearSDE, times: Any) -> None:
    require(np.ndim(times) == 1 and np.shape(times)[0] >= 2, "times.shape", np.shape(times), "(levels,), 2 or more")
    if is_concrete(times):
        values = np.asarray(times)
        falls = bool((np.diff(values) < 0).all()) and values[-1] > 0 and values[0] <= sde.t_max
        require(falls, "times", f"{values[0]:g} to {values[-1]:g}", f"falling, above 0 and at most T = {sde.t_max:g}")
