"""The contract of a denoiser: one example in, one example out, deterministic, finite, traced once."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeAlias

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from dgu.core.denoisers import as_pytree, map_batch, random_draws
from dgu.core.errors import require
from dgu.core.keys import threefry
from dgu.core.typing import Denoiser, Key
from dgu.testing.arguments import DERIVATIVES, ROUNDING, checked_shape
from dgu.testing.reports import DenoiserCheckError, DenoiserReport, past_bounds, raised

#: ``sampler(denoiser, key, indices) -> samples``, one row per index.
Sampler: TypeAlias = Callable[[Denoiser, Key, np.ndarray], ArrayLike]
_BATCH, _STEPS = 4, 8
_serial = itertools.count()


def check_denoiser(
    denoiser: Denoiser,
    shape: Sequence[int],
    key: Key,
    *,
    dtype: DTypeLike = jnp.float32,
    sigmas: Sequence[float] | None = None,
    label: int | None = None,
    sampler: Sampler | None = None,
    axis_name: str = "batch",
    tolerance: float | None = None,
    repeatability: float = 0.0,
    max_traces: int = 1,
    max_equal_samples: float = 0.99,
) -> DenoiserReport:
    """Measure whether ``denoiser(x, sigma)`` keeps the contract of a denoiser, and raise where it does not.

    What each defect catches:

    - ``call``, ``shape``, ``dtype``, ``non_finite``: another signature, output shape or dtype; NaN or infinity at any
      of ``sigmas``, on inputs ``x = u / 2 + sigma * eps`` with standard normal ``u`` and ``eps``.
    - ``repeat``: state between calls, such as a key that advances.
    - ``eager_jit``, ``traces``: Python control flow on values, state captured at trace time, static fields that differ
      from call to call (``chex.assert_max_traces``), spellings of one label that do not share a trace.
    - ``random_draws``: any draw of random numbers inside the denoiser, found in its jaxpr. Noise from a key kept
      constant makes a deterministic function, whose samples all share that noise; no comparison of outputs tells it
      from an honest bias, so the draw itself is the defect. Noise made beforehand and kept as an array is such a bias:
      only ``check_posterior_mean`` can see it.
    - ``transpose``: derivatives forwards and backwards that are not each other's transposes, as of a wrong rule of
      ``custom_jvp`` or ``custom_vjp``. Whether they can be taken is reported as ``forward`` and ``backward``.
    - ``vmap_loop``, ``batch_coupling``: outputs that depend on the rest of the batch (a mean over a named axis, a
      ``custom_vmap`` rule or a callback that mixes examples), or a collective that one example cannot evaluate.
    - ``sample_coupling``: samples that depend on batch size, on order, or on which other samples are drawn.
    - ``equal_samples``: samples of different indices that are equal, as when a sampler uses one key for all of them.
      An empirical denoiser of few images rightly makes some samples equal, hence the default bound.

    Args:
        denoiser: callable pytree, or any callable, of one example and a scalar sigma.
        shape: shape of one example.
        key: fixes every draw of the check.
        dtype: floating dtype of the inputs; float64 needs ``jax_enable_x64``.
        sigmas: noise levels, positive; by default 0.002, 0.02, 0.2, 1, 8 and 80, those outside the denoiser's range
            moved to its ends.
        label: check ``denoiser.given(label)``; an int, a NumPy integer and an int32 array must share its trace.
        sampler: ``(denoiser, key, indices) -> samples`` under check, by default eight Heun steps of
            ``dgu.samplers.sample``.
        axis_name: name under which the batch axis is bound while batch coupling is measured.
        tolerance: bound of ``eager_jit``, ``vmap_loop`` and ``sample_coupling``; by default 1e-4 in float32, 1e-10 in
            float64, 1e-2 in float16 and 5e-2 in bfloat16.
        repeatability: bound of ``repeat`` and ``batch_coupling``, which compare runs of one program: 0 unless the
            device itself is not deterministic.
        max_traces: bound of ``traces``.
        max_equal_samples: bound of ``equal_samples``, a fraction of pairs; 1 or more accepts a point mass.

    Raises:
        DenoiserCheckError: a bound is passed; the message names each defect with its value and bound.
        InputError: an argument that cannot be used.
    """
    key = threefry(key)
    low, high = level_range(denoiser)
    if sigmas is None:
        sigmas = sorted({min(max(sigma, low), high) for sigma in (0.002, 0.02, 0.2, 1.0, 8.0, 80.0)})
    shape = checked_shape(shape, dtype, sigmas=sigmas)
    require(max_traces >= 1, "max_traces", max_traces, "at least 1")
    tolerance = ROUNDING[jnp.dtype(dtype).name] if tolerance is None else tolerance
    if label is not None:
        require(hasattr(denoiser, "given"), "label", label, "None for a denoiser without a method given(label)")
    labels = () if label is None else (np.int64(label), jnp.int32(label))
    spellings = [denoiser.given(each) for each in labels]  # type: ignore[attr-defined]
    report = _measure_denoiser(
        as_pytree(denoiser if label is None else denoiser.given(label)),  # type: ignore[attr-defined]
        [as_pytree(spelling) for spelling in spellings],
        shape,
        key,
        dtype=jnp.dtype(dtype),
        sigmas=sigmas,
        sampler=sampler or default_sampler(shape, jnp.dtype(dtype), low, high),
        axis_name=axis_name,
        limits=(tolerance, repeatability, max_traces, max_equal_samples),
    )
    if report.defects:
        raise DenoiserCheckError(report)
    return report


_MEANING = {
    "repeat": "two calls with the same input differ (state, or a key that advances)",
    "eager_jit": "the jitted output differs from the eager one",
    "transpose": "the derivatives forwards and backwards are not each other's transposes",
    "vmap_loop": "vmap differs from a loop over the examples",
    "batch_coupling": "an output changes with the other examples of its batch",
    "sample_coupling": "samples depend on batch size, order, or the other samples and their keys",
    "equal_samples": "samples of different indices are equal (key reused, or the input ignored)",
}


def level_range(denoiser: Denoiser) -> tuple[float, float]:
    """EDM's noise levels, 0.002 to 80, within those that the denoiser knows."""
    low, high = (float(getattr(denoiser, name, end)) for name, end in (("sigma_min", 0.0), ("sigma_max", np.inf)))
    return max(0.002, low), min(80.0, high)


def default_sampler(shape: tuple[int, ...], dtype: np.dtype, low: float = 0.002, high: float = 80.0) -> Sampler:
    """The sampler of a check that is given none: eight Heun steps of ``dgu.samplers.sample`` from ``high`` to ``low``,
    on one device.
    """

    def sampler(denoiser: Denoiser, key: Key, indices: np.ndarray) -> ArrayLike:
        from dgu.samplers import karras_sigmas, sample  # late: dgu.samplers stands on this level's modules

        # A sample drawn alone takes another batch size, so another program, than one drawn in company.
        size = 1 if len(indices) == 1 else _BATCH
        one = jax.local_devices()[:1]
        return sample(
            denoiser,
            key,
            indices,
            karras_sigmas(_STEPS, low, high),
            shape=shape,
            batch_size=size,
            dtype=dtype,
            devices=one,
        )

    return sampler


def _measure_denoiser(
    denoiser: Denoiser,
    spellings: list[Denoiser],
    shape: tuple[int, ...],
    key: Key,
    *,
    dtype: np.dtype,
    sigmas: Sequence[float],
    sampler: Sampler,
    axis_name: str,
    limits: tuple[float, float, int, float],
) -> DenoiserReport:
    tolerance, repeatability, max_traces, max_equal = limits
    levels = [jnp.asarray(sigma, dtype) for sigma in sigmas]
    draws = jax.random.normal(key, (2, len(levels), *shape), dtype)
    xs = [draws[0, i] / 2 + level * draws[1, i] for i, level in enumerate(levels)]

    # Eager calls. A defect here leaves nothing that the later measurements could stand on.
    try:
        eager = [denoiser(x, level) for x, level in zip(xs, levels)]
        again = denoiser(xs[0], levels[0])
        with_float = denoiser(xs[0], float(sigmas[0]))
    except NameError as error:
        if "axis name" not in str(error):
            return DenoiserReport((raised("call", error),))
        return DenoiserReport((raised("batch_coupling", error),))
    except Exception as error:
        return DenoiserReport((raised("call", error),))
    for output in (*eager, with_float):
        found = (jnp.shape(output), jnp.result_type(output).name) if isinstance(output, Array | np.ndarray) else None
        if found is None:
            return DenoiserReport((f"call: returns {type(output).__name__}, must return one array",))
        report = DenoiserReport(shape=found[0], dtype=found[1])
        if found[0] != shape:
            return replace(report, defects=(f"shape: the output has shape {found[0]}, the example {shape}",))
        if found[1] != dtype.name:
            return replace(report, defects=(f"dtype: the output is {found[1]}, the example {dtype.name}",))
    bad = tuple(float(sigma) for sigma, output in zip(sigmas, eager) if not np.isfinite(np.asarray(output)).all())
    if bad:
        text = f"non_finite: NaN or infinity at sigma = {', '.join(f'{sigma:g}' for sigma in bad)}"
        return replace(report, non_finite=bad, defects=(text,))
    scale = max(float(np.abs(np.asarray(output, np.float64)).max()) for output in eager) or 1.0
    difference = partial(_difference, scale=scale)
    report = replace(report, repeat=difference(again, eager[0]))

    # Jitted calls: the same program for other values, and for the denoiser rebuilt from its leaves.
    traces = 0

    def evaluate(denoiser: Denoiser, x: Array, sigma: Array) -> Array:
        return denoiser(x, sigma)

    evaluate.__name__ = f"denoiser_{next(_serial)}"  # chex counts by name and place, over the life of the process
    guarded = chex.assert_max_traces(evaluate, n=max_traces)

    @jax.jit
    def jitted(denoiser: Denoiser, x: Array, sigma: Array) -> Array:
        nonlocal traces
        traces += 1
        return guarded(denoiser, x, sigma)

    lines: list[str] = []
    try:
        compiled = [jitted(denoiser, x, level) for x, level in zip(xs, levels)]
        drawn = random_draws(denoiser, xs[0], levels[0])
        for other in (jax.tree.map(lambda leaf: leaf, denoiser), *spellings):
            jitted(other, xs[0], levels[0])
    except AssertionError as error:
        if traces <= max_traces:
            return replace(report, defects=(raised("eager_jit", error),))
        lines.append(f"traces: traced {traces} times, at most {max_traces} allowed: its static parts change")
        return replace(
            report, traces=traces, defects=(*past_bounds(report, {"repeat": repeatability}, _MEANING), *lines)
        )
    except Exception as error:
        return replace(report, defects=(raised("eager_jit", error),))
    report = replace(report, traces=traces, random_draws=drawn)
    report = replace(report, eager_jit=max(map(difference, compiled, eager)))
    report = _derivatives(report, denoiser, xs[-1], levels[-1], jax.random.fold_in(key, 1))
    if drawn:
        text = f"random_draws: it draws random numbers ({', '.join(drawn)})"
        lines.append(text + "; from a key it keeps, all samples share them")

    # Batches, with one sigma per example.
    batch, level = jnp.stack(xs), jnp.stack(levels)
    others = jnp.stack([2 - 3 * x for x in xs])
    try:
        rows = map_batch(denoiser, batch, level, axis_name)
        first = map_batch(denoiser, others.at[0].set(batch[0]), level, axis_name)
        last = map_batch(denoiser, others.at[-1].set(batch[-1]), level, axis_name)
        report = replace(
            report,
            vmap_loop=difference(rows, jnp.stack(compiled)),
            batch_coupling=max(difference(first[0], rows[0]), difference(last[-1], rows[-1])),
        )
    except Exception as error:
        lines.append(raised("vmap_loop", error))

    # Samples: together, alone, reversed, and beside others.
    try:
        full = np.asarray(sampler(denoiser, key, np.arange(_BATCH)), np.float64)
        alone = np.asarray(sampler(denoiser, key, np.arange(1, 2)), np.float64)
        backwards = np.asarray(sampler(denoiser, key, np.arange(_BATCH)[::-1].copy()), np.float64)
        beside = np.asarray(sampler(denoiser, key, np.asarray([0, 11, 12, 13])), np.float64)
    except Exception as error:
        lines.append(raised("sample_coupling", error))
    else:
        largest = float(np.abs(full).max()) or 1.0
        pairs = [_difference(full[i], full[j], largest) for i in range(_BATCH) for j in range(i)]
        coupling = (_difference(alone[0], full[1], largest), _difference(backwards[::-1], full, largest))
        report = replace(
            report,
            sample_coupling=max(*coupling, _difference(beside[0], full[0], largest)),
            equal_samples=float(np.mean([pair <= tolerance for pair in pairs])),
        )
    bounds = {
        "repeat": repeatability,
        "eager_jit": tolerance,
        "transpose": DERIVATIVES[dtype.name],
        "vmap_loop": tolerance,
        "batch_coupling": repeatability,
        "sample_coupling": tolerance,
        "equal_samples": max_equal,
    }
    return replace(report, defects=(*past_bounds(report, bounds, _MEANING), *lines))


def _derivatives(report: DenoiserReport, denoiser: Denoiser, x: Array, sigma: Array, key: Key) -> DenoiserReport:
    """The report with ``forward``, ``backward`` and ``transpose`` at one point."""
    u, v = jax.random.normal(key, (2, *x.shape), x.dtype)

    def forwards(model: Denoiser) -> Array:
        return jax.jvp(lambda y: model(y, sigma), (x,), (v,))[1]

    def backwards(model: Denoiser) -> Array:
        return jax.vjp(lambda y: model(y, sigma), x)[1](u)[0]

    found: list[np.ndarray | None] = []
    for derivative in (forwards, backwards):
        try:
            found.append(np.asarray(jax.jit(derivative)(denoiser), np.float64))
        except Exception:  # Whatever it is that has no rule.
            found.append(None)
    pushed, pulled = found
    report = replace(report, forward=pushed is not None, backward=pulled is not None)
    if pushed is None or pulled is None:
        return report
    outwards, inwards = (
        float(np.sum(np.asarray(u, np.float64) * pushed)),
        float(np.sum(np.asarray(v, np.float64) * pulled)),
    )
    size = float(np.sqrt(np.sum(pushed**2) * np.sum(np.square(np.asarray(u, np.float64)))))
    return replace(report, transpose=abs(outwards - inwards) / (size or 1.0))


def _difference(a: ArrayLike, b: ArrayLike, scale: float) -> float:
    """Largest absolute difference over ``scale``; NaN where one is NaN."""
    return float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max()) / scale
