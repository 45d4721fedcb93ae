"""Falling norms do not make a sampler a contraction: a counter-example whose data are two points.

Ghane et al. (arXiv 2501.07741) take norms that fall at every step as a sign that the steps contract. With data at +a
and -a on the first axis norms fall as well, yet below the noise level a the steps drive states on either side of the
middle apart. Halfway between the points the denoiser's derivative along the first axis is ``a^2 / sigma^2``.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64, Num

from dgu.analysis.concentration.contraction import step_expansion
from dgu.analysis.concentration.norms import observe_norms
from dgu.core.arrays import as_doubles
from dgu.core.errors import require
from dgu.core.keys import stream, threefry
from dgu.core.typing import Key
from dgu.models.mixtures import EmpiricalDenoiser
from dgu.samplers.gaussian_path import linear_gains
from dgu.samplers.sample import sample
from dgu.samplers.schedules import check_sigmas, karras_sigmas
from dgu.samplers.trajectories import trace_trajectories


def two_point_steps(
    key: Key, count: int, size: int, distance: float | int, num_steps: int
) -> dict[str, Num[np.ndarray, "count steps"]]:
    """Gains of the sampler's steps, and changes of the norm in the same steps, if the data are two points.

    Args:
        key: of the trajectories.
        count: number of trajectories.
        size: dimension of the points, 1 or more.
        distance: a, of points at +a and -a on the first axis, above 0.
        num_steps: steps of the sampler, on ``karras_sigmas(num_steps)``, without churn.

    Returns:
        ``"gains"``, the top singular value of each step's Jacobian, ``"errors"``, bounds on their distance to the
        truth, and ``"changes"`` of the norm, negative where it falls.

    Raises:
        InputError: sizes below 1, or a distance that is not positive and finite.
    """
    key = threefry(key)
    require(count >= 1 and size >= 1, "(count, size)", (count, size), "each 1 or more")
    require(0 < distance < np.inf, "distance", distance, "positive and finite")
    points = np.zeros((2, size), np.float32)
    points[:, 0] = distance, -distance
    pair, own, sigmas = EmpiricalDenoiser(jnp.asarray(points)), stream(key, "two points"), karras_sigmas(num_steps)
    path = trace_trajectories(pair, own, range(count), sigmas, shape=(size,), batch_size=count)
    found = step_expansion(pair, path, key=key, tolerance=1e-3, max_products=20, batch_size=4 * count)
    _, seen = sample(pair, own, range(count), sigmas, observe=observe_norms, shape=(size,), batch_size=count)
    return {"gains": found.values, "errors": found.errors, "changes": seen["change"]}


def two_point_gains(sigmas: Num[np.ndarray, " levels"], distance: float | int) -> Float64[np.ndarray, " steps"]:
    """Exact gains of the steps along the first axis, halfway between two points at +-``distance``.

    There ``D(x; sigma) = (distance^2 / sigma^2) x`` to first order, so that ``linear_gains`` has the slope
    ``(1 - distance^2 / sigma^2) / sigma``.

    Args:
        sigmas: noise levels falling to 0, without churn.
        distance: a, above 0.

    Raises:
        InputError: a grid that does not fall to 0, or a distance that is not positive and finite.
    """
    check_sigmas(sigmas)
    require(0 < distance < np.inf, "distance", distance, "positive and finite")
    levels = as_doubles("sigmas", sigmas)
    return linear_gains(lambda sigma: (1 - distance**2 / sigma**2) / sigma, levels[:-1], levels[1:])
