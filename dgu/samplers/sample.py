"""Many addressed samples over all local devices.

Sample number ``i`` depends on ``(key, i)`` alone, bit for bit at one ``batch_size``. Three things make it so. Its draws
are addressed (``dgu.keys``). Every device runs the same single-device program on chunks of one fixed size: a program
sharded over devices is compiled anew for each topology and its results drift. And sample ``i`` always sits in row
``i % batch_size`` of its chunk, since kernels may treat rows at the edge of a tile otherwise than those inside; what
the other rows hold has no influence, as denoisers are written for one example.
"""

import functools
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Bool, Float, Int

from dgu.core import keys
from dgu.core.arrays import as_indices
from dgu.core.chunks import check_chunk
from dgu.core.denoisers import as_pytree
from dgu.core.errors import InputError, require, require_whole
from dgu.core.labels import checked_labels
from dgu.core.parallel import own_devices
from dgu.core.typing import Denoiser, Key, PyTree
from dgu.distributions.bases import Base, draw_initial, named_base
from dgu.samplers.heun import StepState, heun
from dgu.samplers.schedules import Churn, check_churn, check_sigmas

Observe = Callable[[StepState], PyTree]
#: Called as ``heun`` is; a function or a frozen dataclass, compared by value or identity.
Solver = Callable[..., PyTree]

#: Chunks dispatched to a device before its first result is waited for: enough to keep it busy, and a bound on memory.
_IN_FLIGHT = 2


@functools.partial(jax.jit, static_argnames=("shape", "dtype", "base", "observe", "stochastic", "solver"))
def sample_chunk(
    denoiser: Denoiser,
    key: Key,
    indices: Int[Array, " b"],
    labels: PyTree,
    sigmas: Float[Array, " levels"],
    churn: Churn,
    *,
    shape: tuple[int, ...],
    dtype: DTypeLike,
    base: Base,
    observe: Observe | None,
    stochastic: bool,
    solver: Solver = heun,
) -> tuple[Float[Array, " b *event"], Bool[Array, "b steps"], PyTree]:
    """The compiled program of ``sample``: samples number ``indices`` on one device.

    Returns:
        The samples, whether each was finite after each step, and the observations (``None`` without ``observe``).
    """
    key = keys.threefry(key)

    def one(index: Int[Array, ""], label: PyTree) -> tuple[Any, ...]:
        example = keys.example_key(key, index)
        conditioned: Any = denoiser if label is None else denoiser.given(label)  # type: ignore[attr-defined]
        x_init = sigmas[0] * jax.lax.optimization_barrier(draw_initial(example, shape, dtype, base))

        def record(state: StepState) -> tuple[Any, ...]:
            return jnp.isfinite(state.x_next).all(), None if observe is None else observe(state)

        noise: dict[str, Any] = {"key": example, "churn": churn} if stochastic else {}
        x0, (finite, observed) = solver(conditioned, x_init, sigmas, observe=record, **noise)
        return x0, finite, observed

    return jax.vmap(one)(indices, labels)


def sample(
    denoiser: Denoiser,
    key: Key,
    indices: ArrayLike | Sequence[int],
    sigmas: Float[ArrayLike, "..."],
    *,
    shape: Sequence[int],
    labels: ArrayLike | Sequence[Any] | None = None,
    churn: Churn = Churn(),  # noqa: B008 - frozen
    base: Base = "gaussian",
    batch_size: int = 64,
    observe: Observe | None = None,
    solver: Solver = heun,
    dtype: DTypeLike = jnp.float32,
    progress: Callable[[int, int], object] | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> PyTree:
    """Samples number ``indices`` of the (stochastic) Heun sampler, or of another one, over all local devices.

    Sample ``i`` starts from ``sigmas[0] * dgu.keys.initial_noise(key, i, shape)`` and adds
    ``dgu.keys.step_noise(key, i, step, shape)``. At one ``batch_size`` its bits depend on ``key``, ``i`` and its label
    only, not on which other indices are asked for, their order, or the number of devices (of one kind); across batch
    sizes it agrees to rounding. (On CPU, XLA's kernels round by the size of its thread pool, which is the larger of the
    numbers of cores and devices: more devices than cores change bits unless ``PJRT_NPROC`` fixes the pool everywhere.)
    Index ``i`` occupies row ``i % batch_size`` of a chunk: a range of indices fills its chunks, while ``k`` indices
    that are equal modulo ``batch_size`` take ``k`` chunks.

    One trace serves all calls with the same structure and shapes, and one compilation per device used; ``base``,
    ``observe`` and a function as ``solver`` are compared by identity, so pass functions defined once rather than fresh
    lambdas. Solvers that are frozen dataclasses are compared by value.

    Args:
        denoiser: callable on one example ``(x, sigma)``; with ``labels`` it has ``given(label)``. Arrays in it that are
            leaves of a pytree are arguments of the program, others constants.
        key: the stream of samples; see ``dgu.keys.stream`` for one per class or arm.
        indices: ``(n,)`` integers from 0 to 2^31 - 1, in any order.
        sigmas: ``(num_steps + 1,)`` noise levels falling to 0, such as ``karras_sigmas``.
        shape: shape of one example.
        labels: ``(n,)`` integers or ``(n, label_dim)`` vectors, one for each of ``indices``; cast to int32, ``dtype``.
            A
            network trained with a class for every image takes no vector of zeros here: it is asked for by
                ``given(None)``.
        churn: how much noise is added at each step; none by default.
        base: distribution of the unit initial noise: ``"gaussian"``, ``"student_t"``, ``"multivariate_student_t"``, or
            a callable ``(key, shape) -> noise``, such as ``StudentT(dof=5, scale_matched=True)``.
        batch_size: examples in a chunk, and so on a device at a time; a chunk has at most 2^33 bytes.
        observe: ``observe(StepState) -> pytree``, run on every step of every example.
        solver: what is run on each example: ``heun``, ``Ablation(...)``, ``DPMSolver(...)``, or any hashable callable
            ``solver(denoiser, x_init, sigmas, *, observe)`` that also takes ``key`` and ``churn`` where noise is
            added; one whose attribute ``stochastic`` is False never adds any.
        dtype: floating dtype of the state; float64 needs ``jax_enable_x64``.
        progress: called as ``progress(done, n)`` when a chunk has come back.
        devices: devices to use, all local ones by default.

    Returns:
        A NumPy array ``(n, *shape)``; with ``observe`` the pair of it and the observations, a pytree of NumPy arrays
        with leading axes ``(n, num_steps)``.

    Raises:
        InputError: an argument out of range, before any work.
        FloatingPointError: a sample that is not finite, naming its index and the step.
    """
    key = keys.threefry(key)
    wanted = as_indices("indices", indices)
    given = checked_labels(denoiser, labels, len(wanted))
    check_sigmas(sigmas, None if hasattr(solver, "network_range") else denoiser)
    check_churn(churn)
    require(np.ndim(shape) == 1, "shape", shape, "a list of sizes, the shape of one sample")
    for size in shape:
        require_whole("a size of shape", size)
    shape, dtype = tuple(int(size) for size in shape), np.dtype(dtype)
    named_base(base)
    require(jnp.issubdtype(dtype, jnp.floating), "dtype", str(dtype), "a floating dtype")
    require(jax.dtypes.canonicalize_dtype(dtype) == dtype, "dtype", str(dtype), "float32 unless jax_enable_x64 is set")
    check_chunk("batch_size", batch_size, shape, dtype)
    model = as_pytree(denoiser)
    _check_solver(solver, churn)
    if given is not None and given.ndim == 2:
        given = given.astype(dtype)

    chunks = _pack(wanted, int(batch_size))
    devices = list(own_devices() if devices is None else devices)[: len(chunks)]
    require(len(devices) > 0, "devices", devices, "at least one device")
    grid = _rounded(sigmas, dtype)
    amount = jax.tree.map(lambda value: np.asarray(value, dtype), churn)
    run = functools.partial(
        sample_chunk,
        shape=shape,
        dtype=dtype,
        base=base,
        observe=observe,
        stochastic=bool(churn.rate > 0),
        solver=solver,
    )
    resident = [jax.device_put((model, key, grid, amount), device) for device in devices]

    def dispatch(slots: np.ndarray, place: int) -> PyTree:
        # A row nobody asked for is computed too, under an index of its own row and the first label.
        rows = np.where(slots >= 0, wanted[slots], np.arange(batch_size, dtype=np.int32))
        row_labels = None if given is None else given[np.maximum(slots, 0)]
        rows, row_labels = jax.device_put((rows, row_labels), devices[place])
        model, stream, levels, added = resident[place]
        return run(model, stream, rows, row_labels, levels, added)

    out: PyTree = None
    done = 0
    for slots, result in _ahead(chunks, dispatch, len(devices)):
        rows = np.flatnonzero(slots >= 0)
        x0, finite, observed = jax.device_get(result)
        _check_finite(wanted[slots[rows]], finite[rows], grid)
        if out is None:
            out = jax.tree.map(lambda a: np.empty((len(wanted), *a.shape[1:]), a.dtype), (x0, observed))
        for whole, part in zip(jax.tree.leaves(out), jax.tree.leaves((x0, observed))):
            whole[slots[rows]] = part[rows]
        done += len(rows)
        if progress is not None:
            progress(done, len(wanted))
    return out[0] if observe is None else out


def _rounded(sigmas: Any, dtype: np.dtype) -> np.ndarray:
    """The noise levels in the dtype of the state, in which those above 0 must still be finite and above 0."""
    with np.errstate(over="ignore"):
        grid = np.asarray(sigmas, dtype)
    values = grid.astype(np.float64)
    wrong = np.asarray(sigmas)[:-1][~(np.isfinite(values) & (values > 0))[:-1]]
    require(not wrong.size, "sigmas", wrong[:1].tolist(), f"levels that {dtype} holds: finite and above 0")
    return grid


def _pack(indices: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Chunks as rows of positions in ``indices``, each in row ``index % batch_size``, or -1 where a row is free."""
    row = indices % batch_size
    order = np.argsort(row, kind="stable")
    counts = np.bincount(row, minlength=batch_size)
    chunk = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    slots = np.full((counts.max(), batch_size), -1)
    slots[chunk, row[order]] = order
    return list(slots)


def _ahead(
    chunks: list[np.ndarray], dispatch: Callable[..., Any], num_devices: int
) -> Iterator[tuple[np.ndarray, PyTree]]:
    """The results of all chunks in order, dealt to the devices in turn and dispatched a bounded number ahead."""
    pending: deque[Any] = deque()
    for slots, place in zip(chunks, itertools.cycle(range(num_devices))):
        pending.append((slots, dispatch(slots, place)))
        if len(pending) >= _IN_FLIGHT * num_devices:
            yield pending.popleft()
    yield from pending


def _check_solver(solver: Any, churn: Churn) -> None:
    require(callable(solver), "solver", solver, "heun, Ablation(...), DPMSolver(...) or another callable")
    try:
        hash(solver)
    except TypeError:
        raise InputError(f"solver = {type(solver).__name__}: must be hashable, such as a frozen dataclass") from None
    noiseless = getattr(solver, "stochastic", True) or churn.rate == 0
    require(noiseless, "churn.rate", churn.rate, f"0: {type(solver).__name__} adds no noise")


def _check_finite(indices: np.ndarray, finite: np.ndarray, sigmas: np.ndarray) -> None:
    if not finite.all():
        row, step = np.argwhere(~finite)[0]
        raise FloatingPointError(
            f"sample {indices[row]} is not finite after step {step} of {finite.shape[1]} (sigma {sigmas[step]:.6g} to "
            f"{sigmas[step + 1]:.6g}); samples of its chunk that are not finite: {int((~finite.all(1)).sum())}"
        )
