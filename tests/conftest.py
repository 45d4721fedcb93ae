"""Strict settings for every test: two CPU devices, no rank promotion, warnings as errors, float64 on request."""

import os
import tempfile
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "agg")
# Matrices of tests are small: several threads of BLAS only wait for each other, and on a busy machine for very long.
# This is for the programs that tests start; here NumPy is loaded already.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Programs are compiled for a few calls: without XLA's expensive optimisations the arithmetic is the same. With 0 in the
# environment they are compiled as users' are, by the programs that tests start, too.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import jax
import pytest
import scipy.linalg  # noqa: F401  Its BLAS is the one that JAX calls on CPU, loaded now so that it is limited, too.
from threadpoolctl import threadpool_limits

threadpool_limits(1, user_api="blas")

# Two devices show what several do; every program over more of them takes longer to compile.
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_rank_promotion", "raise")
# Compilation is most of a test's time: share it between workers and runs.
CACHE = Path(tempfile.gettempdir(), f"dgu-test-xla-{os.getuid()}")
# What a killed process was writing has no time of access, without which JAX fails on every later entry.
for entry in CACHE.glob("*-cache"):
    if not entry.with_name(f"{entry.name.removesuffix('-cache')}-atime").exists():
        entry.unlink(missing_ok=True)
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
# Only a cache of bounded size is locked: without a lock one worker may read what another has half written, and crash.
jax.config.update("jax_compilation_cache_max_size", 2**31)


@pytest.fixture(scope="module", autouse=True)
def release_programs():
    """Compiled programs of a module end with it: each holds memory mappings, and a process that runs out of them
    (65,530 on Linux) crashes inside the compiler."""
    yield
    jax.clear_caches()


@pytest.fixture
def x64():
    """Double precision for the length of one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def strict_dtypes():
    """No implicit dtype promotion: for our own numerics (optax and flax raise under it)."""
    with jax.numpy_dtype_promotion("strict"):
        yield
