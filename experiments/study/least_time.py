"""The least time that a run takes: what ``--dry-run`` can say of time, since how long a run takes depends on the
machine.
"""

import textwrap
import timeit
from collections.abc import Callable, Sequence
from typing import Any

from experiments.study.costs import Cost, scaled

#: Units of time, each with the most seconds that are told in it.
_UNITS = (("seconds", 1, 90), ("minutes", 60, 5400), ("hours", 3600, 172_800), ("days", 86_400, 63_115_200))
_YEAR = 31_557_600


def least_time(costs: Sequence[Cost], rate: float, devices: int = 1) -> str:
    """A lower bound on the time of a run, in words: the sum of its FLOP over ``rate``, FLOP per second of each device.

    It bounds the time as ``rate`` bounds what a device reaches. Of networks in EDM's layout, whose doubled images are
    convolved faster than published, ``costs`` count the published FLOP: there it is a bound up to that.
    """
    flop, of_all = sum(cost.flop for cost in costs), rate * devices
    counted = f"{devices} device{'s' * (devices > 1)}"
    return textwrap.fill(
        f"time: at least about {in_words(flop / of_all)} on this machine. This is a lower bound, not a prediction: all "
        f"FLOP of the table at the {scaled(of_all, 'FLOP/s')} that large matrix products reach here (measured just "
        f"now on {counted}; other work on the machine lowers it). The run takes longer: small layers, memory, "
        "compilation and files are slower.",
        100,
    )


def in_words(seconds: float) -> str:
    """A time to two digits, in a unit that suits it: ``in_words(462)`` is ``"7.7 minutes"``."""
    name, length = next(((name, length) for name, length, most in _UNITS if seconds < most), ("years", _YEAR))
    number = float(f"{seconds / length:.2g}")
    return f"{number:,.0f} {name}" if number >= 10 else f"{number:g} {name}"


def matmul_rate(shortest: float = 0.05) -> float:
    """FLOP per second of one device in products of large square matrices, the fastest of several.

    The matrices grow until a product takes ``shortest`` seconds; an accelerator tries bfloat16, too.
    """
    import jax
    import jax.numpy as jnp

    product, best = jax.jit(lambda matrix: matrix @ matrix), 0.0
    for kind in (jnp.float32,) if jax.default_backend() == "cpu" else (jnp.float32, jnp.bfloat16):
        for size in (1024, 2048, 4096, 8192):
            matrix = jnp.ones((size, size), kind)
            taken = _seconds(product, matrix)
            best = max(best, 2 * size**3 / taken)
            if taken >= shortest:
                break
    return best


def _seconds(function: Callable[[Any], Any], argument: Any) -> float:
    """The shortest time of a call of a compiled function, of five."""
    function(argument).block_until_ready()
    return min(timeit.repeat(lambda: function(argument).block_until_ready(), number=1, repeat=5))
