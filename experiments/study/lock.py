"""One process at a time in a run directory: a lock that the kernel lifts when its process ends, however it ends."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dgu.core.errors import InputError
from experiments.study.configuration import Different, check_same, config_to_json, options, read_config
from experiments.study.outputs import unusable

#: What ``flock`` raises where the file system has no such locks (NFS: a lock needs a file that is open for writing).
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF}


@contextlib.contextmanager
def locked(path: Path, config: Any) -> Iterator[bool]:
    """The directory ``path``, made where there is none, held against other processes; gives whether it was made.

    On platforms and file systems without such locks nothing is held.

    Raises:
        InputError: another process holds it (its options are compared with ``config``), or it cannot be made.
    """
    try:
        import fcntl
    except ImportError:
        fcntl = None  # type: ignore[assignment]
    while True:
        new = not os.path.exists(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unusable(path, error) from None
        if fcntl is None:
            yield new
            return
        try:
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue  # A process that was refused has just removed it.
        except OSError as error:
            raise unusable(path, error) from None
        try:
            held = _hold(fcntl, handle)
            if not held:
                whose = _whose(path, config)
                raise InputError(
                    f"--out = {str(path)!r}: is in use by another process{whose}; must be free (give --out another "
                    "directory)"
                )
            try:
                same = os.path.samestat(os.stat(path), os.fstat(handle))
            except FileNotFoundError:
                same = False
            if same:  # Else what is locked was removed meanwhile, as above.
                yield new
                return
        finally:
            os.close(handle)


def _hold(fcntl: Any, handle: int) -> bool:
    """Whether the lock of an open directory is this process's now, or there are none on its file system."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _NO_LOCKS
    return True


def _whose(path: Path, config: Any) -> str:
    """How the options of the run in another process differ from ``config``, as far as it has written them down."""
    try:
        stored, given = options(read_config(path / "config.json")), options(config_to_json(config))
        check_same({name: stored[name] for name in given if name in stored}, given, path)
    except Different as error:
        return f" with {error.option} = {error.there!r}, not {error.here!r}"
    except InputError:
        return ""
    return " with the same options"
