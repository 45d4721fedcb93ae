"""How the programs of a run are compiled: quickly for the smoke presets; and where they are kept for later runs."""

import contextlib
import hashlib
import os
import platform
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Most bytes that are kept from earlier runs; the programs that were used least lately make room.
MOST = 2**30


@dataclass
class Compiled:
    """What was compiled: ``programs``, the ``seconds`` that it took, and how many of them were ``taken`` from the
    folder in which programs are kept.
    """

    programs: int = 0
    seconds: float = 0.0
    taken: int = 0

    def __str__(self) -> str:
        kept = f", {self.taken} of them kept from an earlier run" if self.taken else ""
        return f"compilation: {self.programs} programs in {self.seconds:.0f} s{kept}"


@contextlib.contextmanager
def compilation(*, quick: bool, kept: bool) -> Iterator[Compiled]:
    """Compile as the run wants it, and count what is compiled.

    Args:
        quick: XLA optimises little: the smoke presets compute for a second and would compile for half a minute.
        kept: compiled programs are stored in ``folder()`` and taken from there, unless JAX has been told of a folder of
            its own (``JAX_COMPILATION_CACHE_DIR``), which then serves. A folder that others may write to is not used,
            since what it holds is run.
    """
    import jax
    from jax import monitoring

    unset = jax.config.jax_compilation_cache_dir is None  # type: ignore[attr-defined]
    if kept and unset and _is_private(folder()):
        make_room(folder())
        # The smallest, too: one takes 4 kB, and a third of the processor time that its compilation would.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_compilation_cache_dir", str(folder()))
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", quick or before)
    found = Compiled()

    def timed(event: str, duration_secs: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            found.programs += 1
            found.seconds += duration_secs

    def counted(event: str, **_: Any) -> None:
        found.taken += event == "/jax/compilation_cache/cache_hits"

    monitoring.register_event_duration_secs_listener(timed)
    monitoring.register_event_listener(counted)
    try:
        with warnings.catch_warnings():
            # A program that a killed run left half written is compiled again; nobody need hear of it.
            warnings.filterwarnings("ignore", "Error reading persistent compilation cache entry")
            yield found
    finally:
        monitoring.unregister_event_duration_listener(timed)
        monitoring.unregister_event_listener(counted)
        jax.config.update("jax_disable_most_optimizations", before)


def folder() -> Path:
    """Where programs are kept: ``dgu/programs`` in the user's cache, a folder for each kind of processor."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # Its specification: a relative path is ignored.
        base = os.path.expanduser(os.path.join("~", ".cache"))
    return Path(base) / "dgu" / "programs" / _processor()


def make_room(path: Path, most: int = MOST) -> None:
    """Remove the files of a folder that were used least lately, until the others have at most ``most`` bytes.

    Once a run: JAX would read a file for each program that is kept whenever it stores another.
    """
    try:
        found = [(entry.stat(), entry.path) for entry in os.scandir(path) if entry.is_file(follow_symlinks=False)]
    except OSError:  # Another run is making room.
        return
    left = sum(about.st_size for about, _ in found)
    for about, file in sorted(found, key=lambda one: max(one[0].st_atime, one[0].st_mtime)):
        if left <= most:
            return
        with contextlib.suppress(OSError):
            os.unlink(file)
        left -= about.st_size


def _processor() -> str:
    """A name for the instruction set of this machine: programs for another one may not run on it."""
    try:
        with open("/proc/cpuinfo") as file:
            known = next((line for line in file if line.startswith(("flags", "Features"))), "")
    except OSError:
        known = platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(known.encode()).hexdigest()[:16]}"


def _is_private(path: Path) -> bool:
    """Whether the folder and the two around it, made where there are none, belong to this user and can be written by
    nobody else.
    """
    return all(_is_own(each) for each in (path.parent.parent, path.parent, path))


def _is_own(path: Path) -> bool:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        found = os.stat(path)
    except OSError:  # No home, or a disk that is full or read-only: nothing is kept.
        return False
    own = not hasattr(os, "getuid") or found.st_uid == os.getuid()
    return own and not found.st_mode & 0o022 and os.access(path, os.W_OK)
