"""Norms along the sampler: observers that keep numbers and never images, and statistics of the norms.

Ghane et al. (arXiv 2501.07741) observe that ``|x_{i+1}| < |x_i|`` along the whole reverse process (Empirical
Observation 1, Figs 4 and 9). A falling norm doesn't make a step a contraction: see
``dgu.analysis.concentration.contraction``.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Num

from dgu import samplers
from dgu.analysis.stats.estimates import Estimate, proportion
from dgu.analysis.stats.resampling import t_interval
from dgu.core.arrays import as_doubles, as_floats, as_number
from dgu.core.errors import require
from dgu.core.keys import threefry
from dgu.core.typing import Denoiser, Key
from dgu.models.closed_form import GaussianDenoiser
from dgu.samplers.gaussian_path import gaussian_path
from dgu.samplers.heun import StepState
from dgu.samplers.schedules import Churn


def observe_norms(state: StepState) -> dict[str, Float[Array, ""]]:
    """Norms of one step, for ``sample(observe=observe_norms)``: each stacks to ``(n, num_steps)``.

    - ``x``: ``|x_i|``, at noise level ``sigma_i``;
    - ``x_next``: ``|x_{i+1}|``; of the last step, that of the sample;
    - ``denoised``: ``|D(x_hat; sigma_hat)|``;
    - ``slope``: ``|d_i|``, ``d_i = (x_hat - D) / sigma_hat``, the direction of the Euler step;
    - ``change``: ``|x_{i+1}| - |x_i|``, as ``(x_{i+1} - x_i) . (x_{i+1} + x_i) / (|x_{i+1}| + |x_i|)``: at small noise
      the difference of the norms themselves has no digits left in float32.
    """
    norms = {name: jnp.linalg.norm(getattr(state, name).ravel()) for name in ("x", "x_next", "denoised")}
    total = norms["x"] + norms["x_next"]
    product = jnp.sum((state.x_next - state.x) * (state.x_next + state.x))
    return norms | {
        "slope": jnp.linalg.norm((state.x_hat - state.denoised).ravel()) / state.sigma_hat,
        "change": product / jnp.where(total > 0, total, jnp.ones_like(total)),
    }


def observe_states(state: StepState) -> dict[str, Float[Array, "*event"]]:
    """The images of one step, ``x_i``, ``denoised`` and ``slope``: for a few trajectories only, since whole images are
    kept.
    """
    return {"x": state.x, "denoised": state.denoised, "slope": (state.x_hat - state.denoised) / state.sigma_hat}


def panel_steps(num_steps: int, panels: int = 9) -> tuple[int, ...]:
    """Steps to show: every ``num_steps / (panels - 1)``-th and the last (0, 32, ..., 224, 255 of 256 in nine).

    Raises:
        InputError: fewer than two panels, or more than steps.
    """
    num_steps, panels = map(as_number, (num_steps, panels))
    require(2 <= panels <= num_steps, "panels", panels, f"2 to the number of steps, {num_steps}")
    return tuple(min(place * num_steps // (panels - 1), num_steps - 1) for place in range(panels))


def snapshots(
    denoiser: Denoiser,
    key: Key,
    indices: Sequence[int],
    sigmas: Num[np.ndarray, " levels"],
    steps: Sequence[int],
    **options: Any,
) -> dict[str, Float[np.ndarray, "n k *event"]]:
    """``x_i``, ``denoised`` and ``slope`` at chosen steps of a few trajectories, as ``sample`` would make them.

    Args:
        denoiser, key, indices, sigmas: as of ``dgu.samplers.sample``; each trajectory is held whole while it runs.
        steps: numbers of steps, 0 for the first.
        options: further arguments of ``sample``: ``shape``, ``labels``, ``churn``, ``base``, ...

    Raises:
        InputError: a step that does not exist, or bad arguments of ``sample``.
    """
    key = threefry(key)
    num_steps = len(sigmas) - 1
    wanted = np.asarray(steps)
    inside = wanted.ndim == 1 and len(wanted) > 0 and wanted.min() >= 0 and wanted.max() < num_steps
    require(inside, "steps", list(steps), f"numbers of steps, from 0 to {num_steps - 1}")
    _, states = samplers.sample(denoiser, key, indices, sigmas, observe=observe_states, **options)
    return {name: value[:, wanted] for name, value in states.items()}


def falling_share(change: Num[np.ndarray, "n steps"]) -> tuple[Estimate, list[Estimate]]:
    """The share of steps that decrease the norm: over all steps, and at each step.

    Steps of one trajectory depend on each other and trajectories don't: the first has a t interval over trajectories'
    own shares (without width where all agree, which does not mean certainty), the second Wilson's interval of a
    proportion at each step.

    Args:
        change: ``|x_{i+1}| - |x_i|`` of each trajectory and step.

    Raises:
        InputError: fewer than 2 trajectories, or values that are not finite.
    """
    change = as_floats("change", change)
    require(len(change) >= 2, "trajectories", len(change), "2 or more")
    require(bool(np.isfinite(change).all()), "change", "an array with values that are not finite", "finite")
    falls = change < 0
    return t_interval(falls.mean(axis=1), bounds=(0, 1)), [proportion(column) for column in falls.T]


def norm_z_scores(
    norms: Num[np.ndarray, "n steps"],
    expected: tuple[Num[np.ndarray, " steps"], Num[np.ndarray, " steps"]],
) -> Float[np.ndarray, " steps"]:
    """Mean squared norm of n samples less its exact expectation, in standard errors, at each step.

    Args:
        norms: ``|x_i|`` of each sample.
        expected: expectation and standard deviation of ``|x_i|^2``, as ``GaussianPath.squared_norm`` gives them.

    Raises:
        InputError: shapes that do not fit, or a standard deviation that is not positive.
    """
    norms, (mean, deviation) = as_doubles("norms", norms), (as_doubles("expected", part) for part in expected)
    fits = norms.ndim == 2 and len(norms) > 0 and mean.shape == deviation.shape == norms.shape[1:]
    require(fits, "shapes of norms and expected", (norms.shape, mean.shape, deviation.shape), "(n, k), (k,) and (k,)")
    wrong = np.flatnonzero(~((deviation > 0) & np.isfinite(deviation)))
    where = f"expected standard deviation of step {wrong[:1].tolist()}"
    allowed = "positive: a distribution without spread has no standard errors"
    require(not wrong.size, where, deviation[wrong[:1]].tolist(), allowed)
    return (np.square(norms).mean(axis=0) - mean) / (deviation / np.sqrt(len(norms)))


def gaussian_norm_scores(
    gaussian: GaussianDenoiser,
    key: Key,
    sigmas: Num[np.ndarray, " levels"],
    churn: Churn,
    *,
    count: int,
    batch_size: int = 200,
) -> Float[np.ndarray, "quantities steps"]:
    """``norm_z_scores`` of ``x``, ``denoised`` and ``slope`` if the Gaussian itself is the denoiser: they should look
    standard normal.

    Args:
        gaussian: the denoiser, whose path through the sampler is known exactly.
        key: of the samples.
        sigmas: noise levels falling to 0.
        churn: of the sampler.
        count: samples.
        batch_size: samples drawn together.

    Raises:
        InputError: bad arguments of ``sample``.
    """
    key = threefry(key)
    shape = np.shape(gaussian.mean)
    options: dict[str, Any] = {"shape": shape, "churn": churn, "batch_size": batch_size}
    _, seen = samplers.sample(gaussian, key, range(count), sigmas, observe=observe_norms, **options)
    path, num_steps = gaussian_path(gaussian, sigmas, churn), len(sigmas) - 1
    scores = []
    for name in ("x", "denoised", "slope"):
        mean, deviation = path.squared_norm(name)
        scores.append(norm_z_scores(seen[name], (mean[:num_steps], deviation[:num_steps])))
    return np.stack(scores)
