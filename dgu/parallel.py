"""One code path from one core to many hosts: a mesh over all devices with the single axis ``"data"``."""

import os

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

#: Set by the launchers that ``jax.distributed.initialize`` understands by itself.
_CLUSTER_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "SLURM_JOB_ID", "OMPI_MCA_orte_hnp_uri", "TPU_WORKER_HOSTNAMES")


def initialize() -> None:
    """Join the cluster when one is configured (SLURM, Open MPI, a TPU pod, ``JAX_COORDINATOR_ADDRESS``), else do nothing.

    Must be called before any JAX computation.
    """
    several = os.environ.get("SLURM_NTASKS", "2") != "1" and "," in os.environ.get("TPU_WORKER_HOSTNAMES", ",")
    if several and any(name in os.environ for name in _CLUSTER_VARIABLES) and not jax.distributed.is_initialized():
        jax.distributed.initialize()


def use_every_core() -> None:
    """Make each CPU core a device of its own, unless ``JAX_NUM_CPU_DEVICES`` or ``XLA_FLAGS`` already say how many.

    Small networks leave most of a device's threads idle; independent work (chunks of samples, classifiers) spread over
    as many devices as cores does not. Must be called before any JAX computation; accelerators are not affected.
    """
    chosen = "JAX_NUM_CPU_DEVICES" in os.environ or "device_count" in os.environ.get("XLA_FLAGS", "")
    if not chosen:
        jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)


def data_mesh(devices: list | None = None) -> Mesh:
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
