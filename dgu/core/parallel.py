"""One code path from one core to many hosts: a mesh over all devices with the single axis ``"data"``, for arrays that
are split; and lists of independent jobs, of which each device runs its share."""

import io
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from dgu.core.errors import MAX_MESSAGE, InputError, require
from dgu.core.typing import PyTree

#: Number of processes of a job step under SLURM and Open MPI.
_TASKS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
#: Most bytes of results that processes exchange at a time.
_PIECE = 2**26
#: Errors that say what is wrong with what was given: raised again, on every process, with the job's number in front.
_KINDS: tuple[type[Exception], ...] = (InputError, FloatingPointError, RuntimeError)
#: Has ``device`` within a job, whose own jobs run one after the other there.
_within = threading.local()


def start(*, every_core: bool = True) -> None:
    """What every program does first: ``initialize``, and if ``every_core`` is true ``use_every_core``; several
    processes then wait for each other. Must come before any JAX computation.
    """
    initialize()
    if every_core:
        use_every_core()
    if jax.distributed.is_initialized():
        # Processes on CPUs connect at their first common computation, and wait for half a minute only: it is now, when
        # all have just begun, and not after each has worked alone for minutes.
        barrier("started")


def initialize() -> None:
    """Join the cluster when this process is one of several, else do nothing.

    Several they are under ``srun``, ``mpirun``, on the hosts of a TPU pod, or where ``JAX_COORDINATOR_ADDRESS``
    (host:port of process 0), ``JAX_NUM_PROCESSES`` and ``JAX_PROCESS_ID`` say so. Must be called before any JAX
    computation.

    Raises:
        InputError: a coordinator without a port, a number of processes or that of this process, or a number out of
            range.
    """
    if jax.distributed.is_initialized():
        return
    given = os.environ
    if "JAX_COORDINATOR_ADDRESS" in given:
        address = given["JAX_COORDINATOR_ADDRESS"]
        require(re.fullmatch(r"\S+:\d{1,5}", address) is not None, "JAX_COORDINATOR_ADDRESS", address, "host:port")
        beside = "a whole number, beside JAX_COORDINATOR_ADDRESS"
        count, own = (_number(name, given.get(name, ""), beside) for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID"))
        require(own < count, "JAX_PROCESS_ID", own, f"below JAX_NUM_PROCESSES = {count}")
        jax.distributed.initialize(address, count, own)
    elif any(_number(name, given.get(name, "1"), "a whole number") > 1 for name in _TASKS) or "," in given.get(
        "TPU_WORKER_HOSTNAMES", ""
    ):
        jax.distributed.initialize()


def _number(name: str, value: str, allowed: str) -> int:
    """A number of processes, or of one of them."""
    require(re.fullmatch(r"[0-9]{1,9}", value) is not None, name, value, allowed)
    return int(value)


def is_lead() -> bool:
    """Whether this is process 0, which alone prints and writes reports."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Wait until every process has come to the barrier ``name``; a single process goes on at once."""
    multihost_utils.sync_global_devices(name)


def use_every_core() -> None:
    """Make each CPU core a device of its own, unless ``JAX_NUM_CPU_DEVICES`` or ``XLA_FLAGS`` already say how many.

    Small networks leave most of a device's threads idle; independent work (chunks of samples, classifiers) spread over
    as many devices as cores does not. Must be called before any JAX computation; accelerators are not affected.
    """
    chosen = "JAX_NUM_CPU_DEVICES" in os.environ or "device_count" in os.environ.get("XLA_FLAGS", "")
    if not chosen:
        jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)


def data_mesh(devices: list[Any] | None = None) -> Mesh:
    """A mesh of ``devices`` (all by default) with one axis ``"data"`` of type Auto; one CPU is a mesh of size one.

    Auto, not Explicit: covariances ``X.T @ X`` and gathers of sharded arrays are ambiguous under explicit sharding.
    """
    devices = jax.devices() if devices is None else devices
    return Mesh(np.asarray(devices), ("data",), axis_types=(AxisType.Auto,))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Leading axis split over the mesh."""
    return NamedSharding(mesh, PartitionSpec("data"))


def replicated(mesh: Mesh) -> NamedSharding:
    """A full copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def put(tree: PyTree, sharding: NamedSharding) -> PyTree:
    """Arrays on the devices of ``sharding``, on every host of a mesh: each process passes the same whole arrays.

    Arrays that are there already are returned as they are.
    """

    def one(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
            return leaf
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda part: host[part])

    return jax.tree.map(one, tree)


def on_one_device(value: Any) -> Any:
    """A JAX array that is spread over several devices, on the first of this process; anything else as it is.

    For functions that decompose matrices: split rows make their products ambiguous (axes of type Explicit are refused
    by JAX), and every device would decompose the same matrices. An array spread over several hosts is brought to each
    of them, which all must ask. Traced arrays pass.
    """
    if not isinstance(value, jax.Array) or isinstance(value, jax.core.Tracer) or len(value.sharding.device_set) == 1:
        return value
    whole = value if value.is_fully_addressable else multihost_utils.process_allgather(value, tiled=True)
    return jax.device_put(np.asarray(whole), jax.local_devices()[0])


def own_devices() -> list[Any]:
    """The devices to compute on: all of this process, or within a job of ``run_jobs`` the job's alone."""
    return [_within.device] if _within_a_job() else jax.local_devices()


def _within_a_job() -> bool:
    return hasattr(_within, "device")


def shares(count: int) -> list[np.ndarray]:
    """The numbers 0 to ``count - 1`` in consecutive groups of nearly one size, as many as there are devices on all
    hosts (or numbers, if these are fewer): the jobs of ``run_jobs`` where one program takes several numbers at once.

    With one device, and within a job, a single group.
    """
    devices = 1 if _within_a_job() else jax.device_count()
    return np.array_split(np.arange(count, dtype=np.int32), max(1, min(count, devices)))


def run_jobs(
    job: Callable[[Any, int], Mapping[str, Any]],
    count: int,
    shared: PyTree = None,
    *,
    first: int = 0,
    what: str = "job",
    progress: Callable[[int, int], object] | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """The results of ``job(shared, i)`` for ``i = first, ..., count - 1``, in this order, over all devices and hosts.

    The jobs are dealt in turn to the processes, and there to the local devices. Each runs in a thread in which its
    device is JAX's default: whatever the job computes, by programs of a single device and by Python between them, is
    computed there, and so to the same bits on whichever device of one kind it is. Its results come to every process.
    With one device, for one job alone, and within a job, the jobs run one after the other where the call stands.

    Where several processes run together all of them make the same calls, with the same arguments; they exchange the
    results each time that every device has had a job, so that what stores them can do so then.

    Args:
        job: what to do, a function of what all jobs share and of the job's number. Of others it must not depend. It
            returns arrays by name.
        count: number of jobs, 0 or more.
        shared: a pytree whose arrays are copied to each device once, such as a denoiser; each job gets its device's.
        first: the job to begin with.
        what: what a job is, in errors: "level".
        progress: called as ``progress(jobs done, count)``.

    Yields:
        What each job returned, as NumPy arrays.

    Raises:
        InputError, FloatingPointError: what the first job that failed raised, with its number in front. Other errors
            are raised as they are, and by the processes that did not see them as ``RuntimeError``. Of a single job
            the error is its own.
    """
    lone = jax.process_count() == 1
    devices = jax.local_devices()
    if count - first <= 1 or _within_a_job() or (lone and len(devices) == 1):
        for number in range(first, count):
            yield _result(job, shared, number, what if count > 1 else "")
            if progress is not None:
                progress(number + 1, count)
        return
    resident: dict[int, PyTree] = {}
    width = count if lone else jax.device_count()
    for start in range(first, count, width):
        every = range(start, min(start + width, count))
        found = _on_devices(job, every[jax.process_index() :: jax.process_count()], shared, resident, devices, what)
        for number, result in zip(every, found if lone else _exchanged(found, len(every))):
            yield result
            if progress is not None:
                progress(number + 1, count)


def run_stored_jobs(
    job: Callable[[Any, int], Mapping[str, Any]],
    names: Sequence[str],
    shared: PyTree = None,
    *,
    stored: Callable[[str, Callable[[], Mapping[str, Any]]], Mapping[str, Any]],
    what: str = "job",
) -> Iterator[Mapping[str, Any]]:
    """``run_jobs`` for jobs whose results are stored one by one, each as soon as it and all before it are done.

    Jobs are run from the first on that is not stored; those behind it are not stored either, unless somebody removed
    it.

    Args:
        names: of the results, one for each job.
        stored: ``stored(name, compute)`` returns what ``compute()`` does or, without calling it, what it returned under
            this name in an earlier run.
        job, shared, what: as of ``run_jobs``.

    Yields:
        What ``stored`` returns for each job.
    """
    under_way: Iterator[dict[str, np.ndarray]] | None = None
    taken = 0

    def compute(place: int) -> Mapping[str, Any]:
        nonlocal under_way, taken
        if under_way is None:
            under_way, taken = run_jobs(job, len(names), shared, first=place, what=what), place
        found: Mapping[str, Any] = {}
        while taken <= place:
            found, taken = next(under_way), taken + 1
        return found

    for place, name in enumerate(names):
        yield stored(name, partial(compute, place))


def _result(
    job: Callable[[Any, int], Mapping[str, Any]], shared: PyTree, number: int, what: str
) -> dict[str, np.ndarray]:
    """What one job returns, on the host; its errors name it."""
    try:
        # Array by array: as a pytree the dictionary would come back in another order.
        return {name: np.asarray(array) for name, array in job(shared, number).items()}
    except Exception as error:
        if what and type(error) in _KINDS[:2]:
            raise type(error)(f"{what} {number}: {error}") from error
        if what:
            error.add_note(f"({what} {number})")
        raise


def _on_devices(
    job: Callable[[Any, int], Mapping[str, Any]],
    numbers: Sequence[int],
    shared: PyTree,
    resident: dict[int, PyTree],
    devices: Sequence[jax.Device],
    what: str,
) -> Iterator[dict[str, np.ndarray]]:
    """The results of this process's jobs in their order, dealt to its devices in turn; a thread for each device.

    After an error no later job is begun, and those before it are done: the error raised is always that of the first.
    """
    found: list[Future[dict[str, np.ndarray]]] = [Future() for _ in numbers]
    failed = [len(numbers)]  # The first job that failed.
    wide = jax.dtypes.canonicalize_dtype(np.float64) == np.float64  # Which holds for one thread.

    def work(place: int) -> None:
        _within.device = devices[place]
        with jax.default_device(devices[place]), jax.enable_x64(wide):
            for slot in range(place, len(numbers), len(devices)):
                if slot > failed[0]:
                    break
                try:
                    if place not in resident:
                        resident[place] = _copied(shared)
                    found[slot].set_result(_result(job, resident[place], numbers[slot], what))
                except BaseException as error:
                    failed[0] = min(failed[0], slot)
                    found[slot].set_exception(error)

    threads = [
        threading.Thread(target=work, args=(place,), daemon=True) for place in range(min(len(devices), len(found)))
    ]
    for thread in threads:
        thread.start()
    try:
        for future in found:
            yield future.result()
        for thread in threads:
            thread.join()
    finally:
        failed[0] = -1  # Where the caller wants no more, nor waits for what is under way.


def _copied(shared: PyTree) -> PyTree:
    """The arrays of a pytree on JAX's default device, other leaves as they are.

    By way of the host, so that they are as free to be moved as the arrays that jobs make: a program that is given both
    kinds is compiled once for each mixture of them.
    """

    def one(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(
                jnp.asarray(np.asarray(jax.random.key_data(leaf))), impl=jax.random.key_impl(leaf)
            )
        return jax.device_put(np.asarray(leaf)) if isinstance(leaf, jax.Array | np.ndarray) else leaf

    return jax.tree.map(one, shared)


def _exchanged(found: Iterator[dict[str, np.ndarray]], count: int) -> Iterator[dict[str, np.ndarray]]:
    """The results of all processes in the order of the jobs, of which each process has every P-th.

    A process that failed sends the line of its error instead, which all raise.
    """
    problem: Exception | None = None
    arrays: dict[str, np.ndarray] = {}
    try:
        for place, result in enumerate(found):
            arrays |= {f"{place}/{name}": np.asarray(value) for name, value in result.items()}
    except Exception as error:
        problem = error
    kind = next((place for place, kind in enumerate(_KINDS) if isinstance(problem, kind)), len(_KINDS) - 1)
    line = str(problem).encode()[: 4 * MAX_MESSAGE].ljust(4 * MAX_MESSAGE) if problem else b" " * 4 * MAX_MESSAGE
    said = multihost_utils.process_allgather(np.frombuffer(bytes([kind + 1 if problem else 0]) + line, np.uint8))
    if problem is not None:
        raise problem
    for text in said:
        if text[0]:
            raise _KINDS[text[0] - 1](bytes(text[1:]).decode(errors="replace").rstrip())
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **arrays)
    own: list[dict[int, dict[str, np.ndarray]]] = []
    for part in _gathered(stream.getbuffer()):
        results: dict[int, dict[str, np.ndarray]] = {}
        with np.load(io.BytesIO(part), allow_pickle=False) as stored:
            for key in stored.files:
                place, name = key.split("/", 1)
                results.setdefault(int(place), {})[name] = stored[key]
        own.append(results)
    for number in range(count):
        yield own[number % len(own)].get(number // len(own), {})


def _gathered(payload: memoryview) -> list[bytes]:
    """The bytes of every process, on every process; piece by piece, as they pass through the devices' memory."""
    sizes = multihost_utils.process_allgather(np.array(divmod(len(payload), _PIECE), np.int32))
    lengths = [int(pieces) * _PIECE + int(rest) for pieces, rest in sizes]
    most = max(lengths)
    piece = min(_PIECE, 1 << (most - 1).bit_length())
    parts: list[list[bytes]] = [[] for _ in lengths]
    for start in range(0, most, piece):
        block = np.zeros(piece, np.uint8)
        own = np.frombuffer(payload[start : start + piece], np.uint8)
        block[: len(own)] = own
        for kept, row in zip(parts, np.asarray(multihost_utils.process_allgather(block))):
            kept.append(row.tobytes())
    return [b"".join(kept)[:length] for kept, length in zip(parts, lengths)]
