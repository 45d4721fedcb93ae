"""What the benchmarks share: timing programs in alternation, and the fastest matrix product of a device."""

import os
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

#: A program to time; it waits until its result is there.
Work = Callable[[], object]
Times = dict[str, list[tuple[float, float]]]


def use_cores(threads: int) -> None:
    """Make that many CPU devices of JAX and, where there is no GPU, keep the process on that many cores. Before JAX
    starts.
    """
    jax.config.update("jax_num_cpu_devices", threads)
    # PyTorch needs memory of the GPU too.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    # Asked without starting JAX, which would make its threads.
    on_cpu = jax.config.jax_platforms == "cpu" or not os.path.exists("/dev/nvidia0")
    if on_cpu and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def seconds(work: Work) -> tuple[float, float]:
    """Wall time and processor time of one call."""
    start, busy = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - busy


def alternate(works: dict[str, Work], rounds: int) -> Times:
    """Wall and processor times of each program, once a round, all in turn; one call of each goes before and is not
    timed.
    """
    for work in works.values():
        work()
    times: Times = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(seconds(work))
    return times


def spread(values: list[float]) -> dict[str, float]:
    """Median, quartiles and minimum."""
    low, middle, high = (float(q) for q in np.quantile(values, (0.25, 0.5, 0.75)))
    return {"median": middle, "quartile_low": low, "quartile_high": high, "minimum": min(values)}


def relative_throughput(times: Times, pairs: dict[str, tuple[str, str]], clock: int = 0) -> dict[str, dict[str, float]]:
    """How much faster the first of each pair is than the second, round by round; ``clock`` 1 is processor time."""
    return {
        name: spread([other[clock] / us[clock] for us, other in zip(times[mine], times[theirs])])
        for name, (mine, theirs) in pairs.items()
    }


def matmul_ceiling(dtype: str, side: int, count: int = 4) -> tuple[Work, float]:
    """A chain of ``count`` products of matrices of ``side`` rows, on the first device, and its FLOP."""
    rng = np.random.default_rng(0)
    a, b = (jax.device_put(jnp.asarray(rng.normal(0, side**-0.5, (side, side)), dtype), jax.devices()[0]) for _ in "ab")

    @jax.jit
    def products(a: jax.Array, b: jax.Array) -> jax.Array:
        for _ in range(count):
            a = a @ b
        return a

    return lambda: products(a, b).block_until_ready(), 2.0 * count * side**3
