"""One code path from one core to many hosts: a mesh over all devices with the single axis ``"data"``."""

import os
import re
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from dgu.core.errors import require
from dgu.core.typing import PyTree

#: Number of processes of a job step under SLURM and Open MPI.
_TASKS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")


def start() -> None:
    """What every program does first: ``initialize`` and ``use_every_core``. Must come before any JAX computation."""
    initialize()
    use_every_core()


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
