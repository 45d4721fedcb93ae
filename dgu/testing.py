"""Property checks to run on any denoiser: one's own network, a closed form, somebody's checkpoint.

``check_denoiser`` measures whether a callable keeps the denoiser contract: one example in, one example out,
deterministic, finite, traced once, blind to the rest of its batch. ``check_posterior_mean`` measures, besides, what
only a true posterior mean ``D(x, sigma) = E[x0 | x0 + sigma * eps = x]`` has. Both return what they measured and raise
``DenoiserCheckError``, which carries the same report, when a bound is passed.

    report = check_denoiser(denoiser, (32, 32, 3), jax.random.key(0))
    check_posterior_mean(denoiser, (32, 32, 3), jax.random.key(0), sample_prior=draw, asymmetry=0.2)
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Float

from dgu.core.denoisers import as_pytree, map_batch, random_draws
from dgu.core.errors import require
from dgu.core.keys import threefry
from dgu.core.typing import Denoiser, Key
from dgu.models.posterior_identities import jacobian_defects, orthogonality_score, rms, tweedie_error

#: ``sampler(denoiser, key, indices) -> samples``, one row per index.
Sampler: TypeAlias = Callable[[Denoiser, Key, np.ndarray], ArrayLike]

_ROUNDING = {"bfloat16": 5e-2, "float16": 1e-2, "float32": 1e-4, "float64": 1e-10}
_DERIVATIVES = {"bfloat16": 2e-1, "float16": 5e-2, "float32": 1e-3, "float64": 1e-8}
_BATCH, _STEPS = 4, 8
_serial = itertools.count()


class DenoiserCheckError(AssertionError):
    """A measured defect passed its bound. ``report`` holds all measurements, ``report.defects`` one line per defect."""

    def __init__(self, report: "DenoiserReport | PosteriorMeanReport"):
        self.report = report
        super().__init__("the denoiser fails:\n" + "\n".join(f"- {line}" for line in report.defects))


@dataclass(frozen=True)
class DenoiserReport:
    """What ``check_denoiser`` measured; None where an earlier defect made it unmeasurable.

    A difference is the largest absolute difference over the largest magnitude of any output.
    """

    #: One line per defect past its bound, beginning with the name of the field; empty for a sound denoiser.
    defects: tuple[str, ...] = ()
    #: Shape and dtype of the output.
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    #: Noise levels at which an output is not finite.
    non_finite: tuple[float, ...] = ()
    #: Difference between two eager calls with the same input, other calls in between.
    repeat: float | None = None
    #: Difference between the eager and the jitted call.
    eager_jit: float | None = None
    #: Traces taken by calls with other values, and with the denoiser rebuilt from its leaves.
    traces: int | None = None
    #: Names of the primitives in the denoiser that draw random numbers.
    random_draws: tuple[str, ...] = ()
    #: Difference between ``vmap`` (one sigma per example) and a loop.
    vmap_loop: float | None = None
    #: Change of one example's output when the other examples of the batch change.
    batch_coupling: float | None = None
    #: Difference between samples drawn together and the same samples drawn alone, reversed and in other company.
    sample_coupling: float | None = None
    #: Fraction of pairs of samples that are equal.
    equal_samples: float | None = None


@dataclass(frozen=True)
class PosteriorMeanReport:
    """What ``check_posterior_mean`` measured; a field is None where what it needs was not given."""

    #: One line per defect past its bound, those of ``denoiser`` included.
    defects: tuple[str, ...]
    denoiser: DenoiserReport
    #: ``|J - J^T| / |J|`` in the Frobenius norm over the probed directions; largest over noise levels and points. Where
    #: ``J`` is below what rounding makes of ``|x0|^2 / sigma^2``, that stands in the denominator, as in ``negativity``.
    asymmetry: float | None = None
    #: ``max(0, -smallest) / largest`` eigenvalue of the symmetric part of the Jacobian.
    negativity: float | None = None
    #: ``rms(D(x0, sigma) - x0) / sigma`` at the smallest sigma, largest over the points of the support.
    identity: float | None = None
    #: ``rms(D(x) - D(x')) / rms(x - x')`` for two noises at the largest sigma: 0 when the input is forgotten.
    spread: float | None = None
    #: rms of ``(D(mean + sigma eps) + D(mean - sigma eps)) / 2 - mean`` at the largest sigma over the data's magnitude.
    mean_bias: float | None = None
    #: Largest ``|D - (x + sigma^2 grad log p)|`` over the data's magnitude.
    tweedie: float | None = None
    #: ``E[(x0 - D) . D]`` in standard errors; the largest absolute value over noise levels.
    wiener: float | None = None


def check_denoiser(
    denoiser: Denoiser,
    shape: Sequence[int],
    key: Key,
    *,
    dtype: DTypeLike = jnp.float32,
    sigmas: Sequence[float] = (0.002, 0.02, 0.2, 1.0, 8.0, 80.0),
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
        sigmas: noise levels, positive.
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
    shape = _check_arguments(shape, dtype, sigmas=sigmas)
    require(max_traces >= 1, "max_traces", max_traces, "at least 1")
    tolerance = _ROUNDING[jnp.dtype(dtype).name] if tolerance is None else tolerance
    if label is not None:
        require(hasattr(denoiser, "given"), "label", label, "None for a denoiser without a method given(label)")
    labels = () if label is None else (np.int64(label), jnp.int32(label))
    spellings = [denoiser.given(each) for each in labels]  # type: ignore[attr-defined]
    report = _measure_denoiser(
        as_pytree(denoiser if label is None else denoiser.given(label)),  # type: ignore[attr-defined]
        [as_pytree(spelling) for spelling in spellings],
        shape,
        key,
        jnp.dtype(dtype),
        sigmas,
        sampler or _default_sampler(shape, jnp.dtype(dtype)),
        axis_name,
        (tolerance, repeatability, max_traces, max_equal_samples),
    )
    if report.defects:
        raise DenoiserCheckError(report)
    return report


def check_posterior_mean(
    denoiser: Denoiser,
    shape: Sequence[int],
    key: Key,
    *,
    dtype: DTypeLike = jnp.float32,
    sigmas: Sequence[float] = (0.05, 0.5, 2.0, 10.0),
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    log_density: Callable[[Array, ArrayLike], Array] | None = None,
    mean: Float[ArrayLike, "*event"] | None = None,
    support: Float[ArrayLike, "n *event"] | None = None,
    sample_prior: Callable[[Key], Array] | None = None,
    num_prior: int = 1024,
    exact_size: int = 64,
    asymmetry: float | None = None,
    negativity: float | None = None,
    identity: float = 1.0,
    spread: float = 0.05,
    mean_bias: float = 0.005,
    tweedie: float | None = None,
    wiener: float = 5.0,
) -> PosteriorMeanReport:
    """Measure what only a true posterior mean has, after everything that ``check_denoiser`` measures.

    - ``asymmetry``, ``negativity``: the Jacobian is ``Cov[x0 | x] / sigma^2``, symmetric and positive semi-definite. Up
      to ``exact_size`` dimensions the whole Jacobian is formed, beyond it a Krylov space of random directions through
      products with ``J`` and ``J^T``; Ritz values lie within the spectrum, so a negative one is proof.
    - ``identity``: ``D(x0, sigma) = x0 + O(sigma)`` on the support as sigma -> 0, measured at ``sigma_min``.
    - ``spread``, ``mean_bias``: ``D(x, sigma) -> mean`` as sigma -> infinity, measured at ``sigma_max``. The noises
      ``+eps`` and ``-eps`` are averaged in ``mean_bias``: the leading deviation ``Cov eps / sigma`` is odd, drops out.
    - ``tweedie``: ``D = x + sigma^2 grad_x log p(x; sigma)`` (Robbins 1956; Miyasawa 1961).
    - ``wiener``: the error of a conditional mean is orthogonal to it, ``E[(x0 - D(x)) . D(x)] = 0``.

    A denoiser with the wrong scale, ``c D`` with c != 1, fails ``identity``, ``tweedie`` and ``wiener``. A trained
    network passes none of these exactly: bounds are there to be widened, reports to be compared between networks.

    Args:
        denoiser, shape, key, dtype: as in ``check_denoiser``.
        sigmas: noise levels for the Jacobian, Tweedie's identity and Wiener orthogonality.
        sigma_min, sigma_max: noise levels that stand for 0 and infinity.
        log_density: ``(x, sigma) -> log p(x; sigma)`` of the noisy data, differentiable, up to a constant.
        mean: mean of the clean data.
        support: clean samples; ``x`` is drawn around them. By default draws of ``sample_prior``, and without it eight
            samples that the denoiser itself makes, on which ``identity`` then measures self-consistency.
        sample_prior: ``key -> x0``, one clean sample, traceable by ``vmap``. Without it, ``support`` serves as the
            clean samples of ``wiener`` if it has 64 rows or more, which must then be independent draws of the prior.
        num_prior: number of draws of ``sample_prior``.
        exact_size: largest number of dimensions for which the whole Jacobian is formed.
        asymmetry, negativity, tweedie: bounds, by default 1e-3 in float32, 1e-8 in float64, 5e-2 in float16, 0.2 in
            bfloat16.
        identity: bound, in units of sigma per coordinate. No thin or curved support exceeds about 1.
        spread: bound; a true posterior mean shows about the variance per coordinate over ``sigma_max^2``.
        mean_bias: bound, relative to the largest magnitude of the data.
        wiener: bound, in standard errors.

    Raises:
        DenoiserCheckError: a bound is passed, here or in ``check_denoiser``.
        InputError: an argument that cannot be used.
    """
    key = threefry(key)
    shape = _check_arguments(shape, dtype, sigmas=sigmas, sigma_min=[sigma_min], sigma_max=[sigma_max])
    if mean is not None:
        require(jnp.shape(mean) == shape, "mean", jnp.shape(mean), f"of shape {shape}")
    if support is not None:
        size = jnp.shape(support)
        require(size[1:] == shape and size[0] >= 2, "support", size, f"two or more samples of shape {shape}")
    derivatives = _DERIVATIVES[jnp.dtype(dtype).name]
    denoiser = as_pytree(denoiser)
    try:
        basic = check_denoiser(denoiser, shape, key, dtype=dtype)
    except DenoiserCheckError as error:
        assert isinstance(error.report, DenoiserReport)
        basic = error.report
        if basic.sample_coupling is None:  # it cannot even be evaluated: there is nothing to measure
            raise
    log_density = None if log_density is None else as_pytree(log_density)
    report = PosteriorMeanReport(basic.defects, basic)
    draws = None
    if sample_prior is not None:
        draws = jax.vmap(sample_prior)(jax.random.split(jax.random.fold_in(key, 2000), num_prior)).astype(dtype)
    elif support is not None and jnp.shape(support)[0] >= 64:
        draws = jnp.asarray(support, dtype)
    if support is not None:
        clean = jnp.asarray(support, dtype)
    elif draws is not None:
        clean = draws[:8]
    else:
        try:
            clean = jnp.asarray(_default_sampler(shape, jnp.dtype(dtype))(denoiser, key, np.arange(8)), dtype)
        except FloatingPointError as error:
            report = replace(report, defects=(*basic.defects, _raised("non_finite", error)))
            raise DenoiserCheckError(report) from error
    scale = float(jnp.abs(clean).max()) or 1.0

    jacobian: list[tuple[float, float]] = []
    errors = [0.0]
    for number, sigma in enumerate(sigmas):
        at, level = jnp.asarray(sigma, dtype), jax.random.fold_in(key, number)
        # A covariance is computed from squares of the data: what rounding leaves of it, seen through the bound.
        floor = float(jnp.finfo(dtype).eps) / derivatives * float(jnp.sum(clean[0] ** 2)) / sigma**2
        for x in clean[:2] + at * jax.random.normal(level, (2, *shape), dtype):
            jacobian.append(jacobian_defects(denoiser, x, at, level, floor=floor, exact_size=exact_size))
            if log_density is not None:
                errors.append(float(tweedie_error(denoiser, log_density, x, at)) / scale)

    fixed = rms(map_batch(denoiser, clean, jnp.full(len(clean), sigma_min, dtype)) - clean) / sigma_min
    noise = sigma_max * jax.random.normal(key, (8, *shape), dtype)
    levels = jnp.full(len(noise), sigma_max, dtype)
    centre = jnp.zeros(shape, dtype) if mean is None else jnp.asarray(mean, dtype)
    up, down = map_batch(denoiser, centre[None] + noise, levels), map_batch(denoiser, centre[None] - noise, levels)
    report = replace(
        report,
        asymmetry=float(np.max(jacobian, axis=0)[0]),
        negativity=float(np.max(jacobian, axis=0)[1]),
        identity=float(np.max(fixed)),
        spread=float(np.max(rms(up - down) / rms(2 * noise))),
        mean_bias=None if mean is None else float(np.max(rms((up + down) / 2 - centre[None]))) / scale,
        tweedie=None if log_density is None else float(np.max(errors)),
        wiener=None if draws is None else orthogonality_score(denoiser, draws, sigmas, key),
    )
    bounds = {
        "asymmetry": derivatives if asymmetry is None else asymmetry,
        "negativity": derivatives if negativity is None else negativity,
        "identity": identity,
        "spread": spread,
        "mean_bias": mean_bias,
        "tweedie": derivatives if tweedie is None else tweedie,
        "wiener": wiener,
    }
    report = replace(report, defects=(*basic.defects, *_past_bounds(report, bounds, _POSTERIOR_MEANING)))
    if report.defects:
        raise DenoiserCheckError(report)
    return report


_MEANING = {
    "repeat": "two calls with the same input differ (state, or a key that advances)",
    "eager_jit": "the jitted output differs from the eager one",
    "vmap_loop": "vmap differs from a loop over the examples",
    "batch_coupling": "an output changes with the other examples of its batch",
    "sample_coupling": "samples depend on batch size, order, or the other samples and their keys",
    "equal_samples": "samples of different indices are equal (key reused, or the input ignored)",
}
_POSTERIOR_MEANING = {
    "asymmetry": "the Jacobian is not symmetric, |J - J^T| / |J|",
    "negativity": "the Jacobian has a negative eigenvalue, over the largest",
    "identity": "not the identity on the support as sigma -> 0, rms(D(x0) - x0) / sigma",
    "spread": "the input is not forgotten as sigma -> infinity",
    "mean_bias": "not the mean as sigma -> infinity",
    "tweedie": "D differs from x + sigma^2 grad log p",
    "wiener": "x0 - D is not orthogonal to D, in standard errors",
}


def _check_arguments(shape: Sequence[int], dtype: DTypeLike, **levels: Sequence[float]) -> tuple[int, ...]:
    require(len(shape) >= 1 and all(size >= 1 for size in shape), "shape", tuple(shape), "one or more positive sizes")
    name = jnp.dtype(dtype).name
    require(name in _ROUNDING, "dtype", name, "one of " + ", ".join(sorted(_ROUNDING)))
    usable = bool(jax.dtypes.canonicalize_dtype(dtype) == dtype)
    require(usable, "dtype", name, "float32 unless jax_enable_x64 is set")
    for argument, values in levels.items():
        valid = len(values) > 0 and all(bool(np.isfinite(value)) and value > 0 for value in values)
        require(valid, argument, tuple(values), "positive and finite")
    return tuple(int(size) for size in shape)


def _default_sampler(shape: tuple[int, ...], dtype: np.dtype) -> Sampler:
    def sampler(denoiser: Denoiser, key: Key, indices: np.ndarray) -> ArrayLike:
        from dgu.samplers import karras_sigmas, sample  # late: dgu.samplers stands on this level's modules

        # A sample drawn alone takes another batch size, so another program, than one drawn in company.
        size = 1 if len(indices) == 1 else _BATCH
        one = jax.local_devices()[:1]
        return sample(
            denoiser, key, indices, karras_sigmas(_STEPS), shape=shape, batch_size=size, dtype=dtype, devices=one
        )

    return sampler


def _measure_denoiser(
    denoiser: Denoiser,
    spellings: list[Denoiser],
    shape: tuple[int, ...],
    key: Key,
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
            return DenoiserReport((_raised("call", error),))
        return DenoiserReport((_raised("batch_coupling", error),))
    except Exception as error:
        return DenoiserReport((_raised("call", error),))
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
            return replace(report, defects=(_raised("eager_jit", error),))
        lines.append(f"traces: traced {traces} times, at most {max_traces} allowed: its static parts change")
        return replace(
            report, traces=traces, defects=(*_past_bounds(report, {"repeat": repeatability}, _MEANING), *lines)
        )
    except Exception as error:
        return replace(report, defects=(_raised("eager_jit", error),))
    report = replace(report, traces=traces, random_draws=drawn)
    report = replace(report, eager_jit=max(map(difference, compiled, eager)))
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
        lines.append(_raised("vmap_loop", error))

    # Samples: together, alone, reversed, and beside others.
    try:
        full = np.asarray(sampler(denoiser, key, np.arange(_BATCH)), np.float64)
        alone = np.asarray(sampler(denoiser, key, np.arange(1, 2)), np.float64)
        backwards = np.asarray(sampler(denoiser, key, np.arange(_BATCH)[::-1].copy()), np.float64)
        beside = np.asarray(sampler(denoiser, key, np.asarray([0, 11, 12, 13])), np.float64)
    except Exception as error:
        lines.append(_raised("sample_coupling", error))
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
        "vmap_loop": tolerance,
        "batch_coupling": repeatability,
        "sample_coupling": tolerance,
        "equal_samples": max_equal,
    }
    return replace(report, defects=(*_past_bounds(report, bounds, _MEANING), *lines))


def _past_bounds(report: Any, bounds: dict[str, float], meaning: dict[str, str]) -> list[str]:
    """One line for each measured field that is not within its bound; NaN is not within any."""
    measured = {name: getattr(report, name) for name in bounds}
    return [
        f"{name}: {meaning[name]}: {measured[name]:.3g}, bound {bound:.3g}"
        for name, bound in bounds.items()
        if measured[name] is not None and not measured[name] <= bound
    ]


def _raised(name: str, error: Exception) -> str:
    return f"{name}: raised {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _difference(a: ArrayLike, b: ArrayLike, scale: float) -> float:
    """Largest absolute difference over ``scale``; NaN where one is NaN."""
    return float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max()) / scale
