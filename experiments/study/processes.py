"""Which of several processes this is, at no cost where JAX has not been imported: then it is alone."""

import sys

import numpy as np

from dgu.core.errors import MAX_MESSAGE


def is_lead() -> bool:
    """Whether this is process 0, which alone prints and writes."""
    if "jax" not in sys.modules:
        return True
    from dgu.core import parallel

    return parallel.is_lead()


def from_lead(text: str) -> str:
    """The line ``text`` of process 0, on every process; all wait for it."""
    jax = sys.modules.get("jax")
    if jax is None or jax.process_count() == 1:
        return text
    from jax.experimental import multihost_utils

    line = np.frombuffer(text.encode().ljust(4 * MAX_MESSAGE), np.uint8)
    return bytes(multihost_utils.broadcast_one_to_all(line)).decode().rstrip()
