"""Which of several processes this is, at no cost where JAX has not been imported: then it is alone."""

import sys


def is_lead() -> bool:
    """Whether this is process 0, which alone prints and writes."""
    if "jax" not in sys.modules:
        return True
    from dgu import parallel

    return parallel.is_lead()


def barrier(name: str) -> None:
    """Wait for the other processes, if there are any."""
    if "jax" in sys.modules:
        from dgu import parallel

        parallel.barrier(name)
