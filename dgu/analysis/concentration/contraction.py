"""Is the sampler a contraction? Singular values of its steps' Jacobians, of the whole map, and what they bound.

Theorem 2 of Ghane et al. (arXiv 2501.07741) concludes from 1-Lipschitz steps R_i that samples satisfy concentration of
measure with the scale of the initial noise; its evidence is that norms fall (Empirical Observation 1), which is a
weaker property: a map may shorten every state that it is applied to and yet drive neighbours apart. Here the Lipschitz
constants themselves are measured, as top singular values of Jacobians at the states that samples pass through, by
products alone: ``J v`` (JVP) and ``J^T u`` (VJP). With the noise of the steps fixed, step i is the map ``x_hat ->
heun_step(x_hat; sigma_hat -> sigma_next)``. A measured value is a lower bound on a Lipschitz constant, which is the
supremum over all states.

For the Gaussian denoiser all of them are known: ``dgu.analysis.gaussian_path``.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Float64, Num

from dgu.analysis.concentration.lanczos import TopEigenvalues, top_eigenvalues
from dgu.core.arrays import as_doubles
from dgu.core.brief import short_repr
from dgu.core.denoisers import as_pytree
from dgu.core.keys import threefry
from dgu.core.parallel import run_jobs
from dgu.core.typing import Denoiser, Event, Key, PyTree
from dgu.models.closed_form import GaussianDenoiser
from dgu.samplers.gaussian_path import gaussian_path
from dgu.samplers.schedules import Churn
from dgu.samplers.trajectories import Trajectories, batches, step_function, trace_trajectories


@short_repr
@dataclass(frozen=True, eq=False)
class Expansion:
    """Top singular values of Jacobians.

    Attributes:
        values: the singular value of each sample and step ``(n, steps)``, or of each sample ``(n,)``.
        errors: error bounds: some singular value lies within this distance of ``values``; the true error is far smaller
            (see ``dgu.analysis.concentration.lanczos``). Same shape.
        directions: the unit vectors most expanded, in event form, ``(*values.shape, *event)``; of
            ``generator_expansion`` those of the *output* that vary most.
    """

    values: np.ndarray
    errors: np.ndarray
    directions: np.ndarray


@jax.jit
def _push(
    denoiser: Denoiser,
    x: Float[Array, " b *event"],
    levels: tuple[Any, ...],
    labels: PyTree,
    vectors: Float[Array, " b *event"],
) -> Float[Array, " b *event"]:
    """``J v`` of the step at each row."""

    def one(x: Event, levels: tuple[Any, ...], label: PyTree, vector: Event) -> Event:
        return jax.jvp(step_function(denoiser, label, *levels), (x,), (vector,))[1]

    return jax.vmap(one)(x, levels, labels, vectors)


@jax.jit
def _pull(
    denoiser: Denoiser,
    x: Float[Array, " b *event"],
    levels: tuple[Any, ...],
    labels: PyTree,
    vectors: Float[Array, " b *event"],
) -> Float[Array, " b *event"]:
    """``J^T u`` of the step at each row."""

    def one(x: Event, levels: tuple[Any, ...], label: PyTree, vector: Event) -> Event:
        return jax.vjp(step_function(denoiser, label, *levels), x)[1](vector)[0]

    return jax.vmap(one)(x, levels, labels, vectors)


def step_expansion(
    denoiser: Denoiser,
    path: Trajectories,
    *,
    key: Key,
    tolerance: float = 1e-2,
    max_products: int = 30,
    batch_size: int = 64,
    progress: Callable[[int, int], object] | None = None,
) -> Expansion:
    """The top singular value of the Jacobian of every step, at every state of the trajectories: ``(n, steps)``.

    A step whose value is above 1 drives some neighbours of that state apart: it is not 1-Lipschitz.

    Args:
        denoiser: the denoiser that made the trajectories.
        path: the trajectories, from ``trace_trajectories``.
        key: key of the random vectors that the iteration starts from.
        tolerance: largest residual of the eigenvalues of ``J^T J``, relative; the error of the values is about its
            square.
        max_products: products with ``J^T J`` at most; ``errors`` says what they achieved.
        batch_size: states in one compiled call.
        progress: called as ``progress(done, states)``.

    Raises:
        InputError: a tolerance, a number of products or a batch size out of range.
    """
    key = threefry(key)
    n, num_steps = path.x_hat.shape[:2]
    sample, step = (place.ravel() for place in np.meshgrid(np.arange(n), np.arange(num_steps), indexing="ij"))

    def one(denoiser: Denoiser, rows: np.ndarray) -> TopEigenvalues:
        program = _Program(denoiser, path, sample[rows])
        product = functools.partial(program.gram, steps=step[rows])
        return top_eigenvalues(product, program.start(key, rows), tolerance=tolerance, max_products=max_products)

    return _expansion(one, denoiser, path, (n, num_steps), batch_size, progress)


def path_expansion(denoiser: Denoiser, path: Trajectories, **options: Any) -> Expansion:
    """The top singular value of the Jacobian of the whole map ``x_0 -> x_N``, the noise of the steps fixed: ``(n,)``.

    The Jacobian is the product of the steps' at the states of the trajectory. Options as of ``step_expansion``.
    """
    return _chain(denoiser, path, 1.0, np.zeros(len(path.added)), **options)


def generator_expansion(denoiser: Denoiser, path: Trajectories, **options: Any) -> Expansion:
    """The top singular value of the Jacobian of ``x_N`` with respect to *all* its unit noise, the initial noise and
    that of every step: ``(n,)``.

    A sample is ``x_N = G(z, eps_0, ..., eps_{N-1})`` of one long standard normal vector. If G is L-Lipschitz, samples
    satisfy concentration of measure with ``2 exp(-t^2 / (2 L^2))``, churn included, and without the slack of a product
    of the steps' constants. With A the Jacobian of G at the trajectory and J_{i:} that of steps i to the end,

        A A^T = sigma_0^2 J_{0:} J_{0:}^T + sum_i c_i^2 J_{i:} J_{i:}^T

    and the value is the root of its top eigenvalue. For a Gaussian denoiser it is ``sqrt(||Cov x_N||_op)`` exactly.
    Options as of ``step_expansion``.
    """
    return _chain(denoiser, path, path.sigma_start, path.added, **options)


def _chain(
    denoiser: Denoiser,
    path: Trajectories,
    start: float,
    added: np.ndarray,
    *,
    key: Key,
    tolerance: float = 1e-2,
    max_products: int = 30,
    batch_size: int = 64,
    progress: Callable[[int, int], object] | None = None,
) -> Expansion:
    """Top singular value of ``[start J_{0:}, added_0 J_{0:}, added_1 J_{1:}, ...]`` at each trajectory."""
    n, num_steps = path.x_hat.shape[:2]

    def one(denoiser: Denoiser, rows: np.ndarray) -> TopEigenvalues:
        program = _Program(denoiser, path, rows)

        def product(vectors: np.ndarray) -> np.ndarray:
            pulled = []
            for step in reversed(range(num_steps)):
                vectors = program.apply(_pull, vectors, np.full(len(vectors), step))
                pulled.append(vectors)
            pushed = np.zeros_like(pulled[0])
            for step, noise in enumerate(added):
                weight = noise**2 + (start**2 if step == 0 else 0.0)
                pushed = program.apply(_push, pushed + weight * pulled[-1 - step], np.full(len(vectors), step))
            return pushed

        return top_eigenvalues(product, program.start(key, rows), tolerance=tolerance, max_products=max_products)

    return _expansion(one, denoiser, path, (n,), batch_size, progress)


def _expansion(
    one: Callable[[Denoiser, np.ndarray], TopEigenvalues],
    denoiser: Denoiser,
    path: Trajectories,
    shape: tuple[int, ...],
    batch_size: int,
    progress: Callable[[int, int], object] | None,
) -> Expansion:
    """What ``one(denoiser, numbers)`` finds for all numbers of an array of ``shape``, a batch on each device."""
    event, total = path.x_hat.shape[2:], math.prod(shape)
    parts = list(batches(np.arange(total), batch_size, event))

    def job(denoiser: Denoiser, number: int) -> dict[str, np.ndarray]:
        rows, count = parts[number]
        top = one(denoiser, rows)
        values, errors = _root(top.values[:count], top.residuals[:count])
        return {"values": values, "errors": errors, "directions": top.vectors[:count].astype(path.x_hat.dtype)}

    found, done = [], 0
    for result in run_jobs(job, len(parts), as_pytree(denoiser), what="batch of states"):
        found.append(result)
        done += len(result["values"])
        if progress is not None:
            progress(done, total)
    values, errors, directions = (
        np.concatenate([part[name] for part in found]) for name in ("values", "errors", "directions")
    )
    return Expansion(values.reshape(shape), errors.reshape(shape), directions.reshape(*shape, *event))


def gaussian_expansion_errors(
    images: Num[ArrayLike, " n *event"],
    sigmas: Num[np.ndarray, " levels"],
    churn: Churn,
    key: Key,
) -> dict[str, float]:
    """How far measured expansions are from their closed forms, if the denoiser is that of the images' Gaussian.

    Two trajectories in float64, with the iteration driven to a tolerance of 1e-6.

    Args:
        images: that the Gaussian is fitted to, (n, ...), n at least 2.
        sigmas: noise levels falling to 0.
        churn: of the sampler.
        key: of the trajectories and of the iteration.

    Returns:
        The largest relative errors of ``"steps"``, ``"whole"`` (``path_expansion``) and ``"generator"``; and
        ``"largest"``, the largest measured gain of a step.

    Raises:
        InputError: bad images, a grid or a churn value out of range.
    """
    key = threefry(key)
    with jax.enable_x64(True):
        gaussian = GaussianDenoiser.fit(as_doubles("images", images))
        exact = gaussian_path(gaussian, sigmas, churn)
        path = trace_trajectories(
            gaussian, key, range(2), sigmas, shape=gaussian.mean.shape, churn=churn, batch_size=2, dtype=jnp.float64
        )
        options: dict[str, Any] = {"key": key, "tolerance": 1e-6, "max_products": 300}
        steps = step_expansion(gaussian, path, **options, batch_size=2 * len(path.added)).values
        whole = path_expansion(gaussian, path, **options, batch_size=2).values
        generator = generator_expansion(gaussian, path, **options, batch_size=2).values
    return {
        "steps": float(np.abs(steps / exact.step_expansion - 1).max()),
        "whole": float(np.abs(whole / exact.path_expansion - 1).max()),
        "generator": float(np.abs(generator / exact.generator_expansion - 1).max()),
        "largest": float(steps.max()),
    }


class _Program:
    """Products with the Jacobians of steps at a fixed batch of trajectories, from and to flat NumPy vectors."""

    def __init__(self, denoiser: Denoiser, path: Trajectories, rows: np.ndarray):
        self.path, self.rows, self.dtype = path, rows, path.x_hat.dtype
        labels = None if path.labels is None else path.labels[rows]
        self.denoiser, self.labels = jax.device_put((denoiser, labels))

    def start(self, key: Key, addresses: np.ndarray) -> np.ndarray:
        size = math.prod(self.path.x_hat.shape[2:])
        draw = jax.vmap(lambda address: jax.random.normal(jax.random.fold_in(key, address), (size,)))
        return np.asarray(draw(jnp.asarray(addresses)))

    def apply(self, program: Callable[..., Any], vectors: np.ndarray, steps: np.ndarray) -> np.ndarray:
        x = self.path.x_hat[self.rows, steps]
        second_order = steps < len(self.path.sigma_hat) - 1
        levels = (self.path.sigma_hat[steps], self.path.sigma_next[steps], second_order)
        tangents = np.asarray(vectors, self.dtype).reshape(x.shape)
        out = program(self.denoiser, x, tuple(np.asarray(level, self.dtype) for level in levels), self.labels, tangents)
        return np.asarray(out, np.float64).reshape(len(vectors), -1)

    def gram(self, vectors: np.ndarray, steps: np.ndarray) -> np.ndarray:
        return self.apply(_pull, self.apply(_push, vectors, steps), steps)


def _root(values: np.ndarray, residuals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Singular values, and bounds on their distance to one, from eigenvalues of ``J^T J``."""
    roots = np.sqrt(values)
    return roots, np.where(roots > 0, residuals / np.where(roots > 0, roots, 1.0), np.sqrt(residuals))


def scale_recursion(
    gains: Num[np.ndarray, " steps"], added: Num[np.ndarray, " steps"], start: float | int
) -> Float64[np.ndarray, " levels"]:
    """Scales of concentration along the path, ``s_{i+1}^2 = L_i^2 (s_i^2 + c_i^2)`` with ``s_0 = start``.

    If step i is L_i-Lipschitz and adds the noise ``c_i eps``, ``P(|f(x_i) - E f(x_i)| > t) <= 2 exp(-t^2 / (2 s_i^2))``
    for 1-Lipschitz f. Theorem 2's own constant has ``L_i = 1`` and no noise, ``s_N = sigma_0``: with churn and
    ``L_i = 1`` the recursion ends above it (153 in place of 80 at the settings of ImageNet-64).

    Args:
        gains: L_i of each step.
        added: c_i, as ``churn_levels`` gives them.
        start: scale of the initial noise, ``sigmas[0]``.
    """
    scales = [float(start)]
    for gain, noise in zip(as_doubles("gains", gains), as_doubles("added", added), strict=True):
        scales.append(float(gain * np.hypot(scales[-1], noise)))
    return np.array(scales)
