"""With which probability does a sample keep its class, when it is noised and drawn anew: exactly, of a known law."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from dgu.analysis.stats.estimates import Estimate
from dgu.analysis.stats.resampling import t_interval
from dgu.core.arrays import as_doubles
from dgu.core.errors import require, require_whole
from dgu.core.keys import example_key, stream, threefry
from dgu.core.noisy import checked_levels, noisy_input
from dgu.core.typing import Key


def class_kept(law: Any, sigmas: Num[ArrayLike, " levels"], key: Key, *, draws: int = 256) -> Estimate:
    """P(class of x0' = class of x0), where x0' is drawn from the posterior given ``x0 + sigma eps``, at each level.

    This is the mean posterior probability of the true class, so that no second draw is needed. It falls from 1 to
    ``sum_c pi_c^2``: gradually for a mixture of Gaussians, and for ``dgu.models.RandomHierarchy`` at a threshold that
    grows sharper with its depth.

    Args:
        law: has ``draw(key)``, ``draw_label(key)`` and ``responsibilities(x, sigma)``, as ``RandomHierarchy`` and
            ``MoLRGDenoiser`` have.
        sigmas: noise levels, positive.
        key: of the draws; number i depends on ``(key, i)`` alone, and each level has noise of its own.
        draws: 2 or more.

    Returns:
        One value for each level, with the 95 % t interval over draws.

    Raises:
        InputError: values out of range.

    Sclocchi et al., arXiv 2402.16991.
    """
    key = threefry(key)
    levels = checked_levels(sigmas, {})
    require(bool((levels > 0).all()), "sigmas", levels.tolist(), "positive")
    require_whole("draws", draws, 2)
    return t_interval(
        np.asarray(_kept(law, levels, key, stream(key, "noise"), draws=int(draws)), np.float64), bounds=(0, 1)
    )


@partial(jax.jit, static_argnames="draws")
def _kept(law: Any, sigmas: Array, key: Key, noise: Key, *, draws: int) -> Float[Array, "levels draws"]:
    def one(number: Array) -> Array:
        own = example_key(key, number)
        x0, label = law.draw(own), law.draw_label(own)
        levels = jnp.asarray(sigmas, x0.dtype)
        at = lambda sigma, level: law.responsibilities(  # noqa: E731
            noisy_input(noise, x0, number, sigma, level), sigma
        )[label]
        return jax.vmap(at)(levels, jnp.arange(levels.shape[0]))

    return jax.lax.map(one, jnp.arange(draws), batch_size=64).T


def crossing_level(sigmas: Num[ArrayLike, " levels"], values: Num[ArrayLike, " levels"], height: float | int) -> float:
    """The highest noise level at which a falling curve is at ``height``, linear in ``log sigma`` between levels.

    Args:
        sigmas: rising and positive.
        values: the curve.
        height: what is looked for.

    Returns:
        The level; NaN where the curve does not cross from above to below.

    Raises:
        InputError: levels that do not rise, or as many values as there are no levels.
    """
    levels, curve = as_doubles("sigmas", sigmas), as_doubles("values", values)
    rising = levels.ndim == 1 and len(levels) >= 2 and bool((levels > 0).all() and (np.diff(levels) > 0).all())
    require(rising, "sigmas", levels.tolist(), "two or more, positive and rising")
    require(curve.shape == levels.shape, "values.shape", curve.shape, f"{levels.shape}")
    falls = np.flatnonzero((curve[:-1] >= height) & (curve[1:] < height))
    if not falls.size:
        return float("nan")
    at = int(falls[-1])
    share = (curve[at] - height) / (curve[at] - curve[at + 1])
    return float(np.exp((1 - share) * np.log(levels[at]) + share * np.log(levels[at + 1])))
