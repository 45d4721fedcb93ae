"""Controls of measured Lipschitz constants: a Gaussian, which has known ones, and two points, whose steps expand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dgu import analysis, samplers
from dgu.core.keys import stream
from dgu.core.typing import Key
from dgu.models import EmpiricalDenoiser
from experiments.concentration.subject import Subject


def gaussian_errors(subject: Subject, key: Key) -> dict[str, np.ndarray]:
    """Largest relative errors of measured gains if the denoiser is that of a Gaussian, in float64; and the largest
    gain."""
    with jax.enable_x64(True):
        gaussian, sigmas, churn = subject.gaussian(0, np.float64), subject.sigmas, subject.arms["churn on"]
        path = analysis.trace_trajectories(
            gaussian, key, range(2), sigmas, shape=subject.shape, churn=churn, batch_size=2, dtype=jnp.float64
        )
        options: dict[str, Any] = {"key": key, "tolerance": 1e-6, "max_products": 300}
        exact = analysis.gaussian_path(gaussian, sigmas, churn)
        steps = analysis.step_expansion(gaussian, path, **options, batch_size=2 * (len(sigmas) - 1)).values
        whole = analysis.path_expansion(gaussian, path, **options, batch_size=2).values
        generator = analysis.generator_expansion(gaussian, path, **options, batch_size=2).values
    return {
        "steps": np.abs(steps / exact.step_expansion - 1).max(),
        "whole": np.abs(whole / exact.path_expansion - 1).max(),
        "generator": np.abs(generator / exact.generator_expansion - 1).max(),
        "largest": steps.max(),
    }


def two_points(key: Key, count: int, size: int, distance: float, num_steps: int) -> dict[str, np.ndarray]:
    """Gains of the steps, and changes of the norm in the same steps, if the data are two points.

    Args:
        key: of the trajectories.
        count: number of trajectories.
        size: dimension of the points.
        distance: a, of points at +a and -a on the first axis.
        num_steps: steps of the sampler.
    """
    points = np.zeros((2, size), np.float32)
    points[:, 0] = distance, -distance
    pair, own = EmpiricalDenoiser(jnp.asarray(points)), stream(key, "two points")
    sigmas = samplers.karras_sigmas(num_steps)
    path = analysis.trace_trajectories(pair, own, range(count), sigmas, shape=(size,), batch_size=count)
    found = analysis.step_expansion(pair, path, key=key, tolerance=1e-3, max_products=20, batch_size=4 * count)
    _, seen = samplers.sample(
        pair, own, range(count), sigmas, observe=analysis.observe_norms, shape=(size,), batch_size=count
    )
    return {"gains": found.values, "errors": found.errors, "changes": seen["change"]}


def halfway_gains(sigmas: np.ndarray, distance: float) -> np.ndarray:
    """Exact gains of the steps halfway between two points at +-``distance``: there ``dD/dx = distance^2 / sigma^2``."""
    now, after = sigmas[:-1], sigmas[1:]

    def slope(sigma: np.ndarray) -> np.ndarray:
        return (1 - distance**2 / sigma**2) / sigma

    euler = 1 + (after - now) * slope(now)
    inner = after[:-1]
    heun = 1 + (inner - now[:-1]) * (slope(now[:-1]) + slope(inner) * euler[:-1]) / 2
    return np.append(heun, euler[-1])
