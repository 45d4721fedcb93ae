"""One process at a time in a directory: a lock that the kernel lifts when its process ends, however it ends."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

#: What ``flock`` raises where the file system has no such locks (NFS: a lock needs a file that is open for writing).
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF}


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """The directory ``path``, made where there is none, held against other processes; gives whether it was made.

    On platforms and file systems without such locks nothing is held.

    Raises:
        BlockingIOError: another process holds it.
        OSError: it cannot be made or opened.
    """
    while True:
        new = not os.path.exists(path)
        path.mkdir(parents=True, exist_ok=True)
        if os.name != "posix":
            yield new
            return
        try:
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue  # A process that gave it up has just removed it.
        try:
            _hold(handle)
            if _is_there(path, handle):  # Else what is locked was removed meanwhile, as above.
                yield new
                return
        finally:
            os.close(handle)


def _hold(handle: int) -> None:
    """Lock an open directory; ``BlockingIOError`` where another process has."""
    import fcntl  # Of POSIX alone.

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def _is_there(path: Path, handle: int) -> bool:
    """Whether ``path`` is still the directory that is open."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False
