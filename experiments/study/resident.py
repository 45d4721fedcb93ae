"""The memory that a process holds while it does something, as the operating system counts it."""

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

_RESET, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def resident_growth(work: Callable[[], object]) -> int | None:
    """Bytes by which the resident memory of this process rises at most during a call; None where the system does not
    say.

    What the process gave back before the call is returned to the system first: the call has to ask for it again.
    """
    if not (_RESET.exists() and _STATUS.exists()):
        return None
    gc.collect()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    _RESET.write_text("5")  # The peak begins anew.
    before = _resident("VmRSS")
    work()
    return max(0, _resident("VmHWM") - before)


def _resident(name: str) -> int:
    """A line of the process's status, in bytes."""
    return 1024 * int(_STATUS.read_text().split(f"{name}:")[1].split()[0])
