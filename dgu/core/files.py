"""Files that appear whole or not at all, and npz archives whose bytes depend on their contents alone."""

import contextlib
import errno
import os
import stat
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from dgu.core.errors import InputError

#: Ending of files that are being written; whatever carries it after a crash is rubbish.
TEMPORARY = ".tmp"

_ADVICE = {
    errno.ENOSPC: "free space and run the same command again",
    errno.EDQUOT: "free space and run the same command again",
    errno.EROFS: "must be on a disk that is not read-only",
    errno.EACCES: "must be in a folder that you may write to",
    errno.EPERM: "must be in a folder that you may write to",
    errno.ENOENT: "must be in a folder that exists, and stays while it is used",
    errno.EIO: "the disk failed; use another one",
}


def write_atomic(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, force it to disk, and rename it to ``path``.

    A reader, or a run after a crash, sees the old file or the new one, never a part.

    Raises:
        InputError: ``path`` has an ``obstacle``, or it cannot be written: what the system says of it (no space left, a
            read-only disk, a folder that is missing or was removed), and what to do.
    """
    if found := obstacle(path):
        raise InputError(f"{path}: cannot be written ({found}); must be a new name, or an ordinary file to be replaced")
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        if os.name == "posix":  # The rename itself must survive a power cut.
            _sync_folder(path.parent)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); {advice(error)}") from error
    finally:
        with contextlib.suppress(OSError):  # Where nothing can be written nothing is left, either.
            temporary.unlink()


def obstacle(path: Path) -> str:
    """Why no file can be put at ``path``, whatever the disk: no name, a folder, a device or a pipe there; else
    empty.
    """
    if path.name in ("", ".."):
        return "it names no file"
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "it is a link to nothing" if os.path.islink(path) else ""
    except (NotADirectoryError, PermissionError):  # What the disk says of these comes with the writing.
        return ""
    except (OSError, ValueError) as error:  # ValueError: a null character in the name.
        return getattr(error, "strerror", None) or str(error)
    if stat.S_ISREG(mode):
        return ""
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    return f"it is {kinds.get(stat.S_IFMT(mode), 'a device')}"


def folder_obstacle(path: Path) -> str:
    """Why ``path`` can be no folder: a file, or a link to nothing, at its place or above it; empty if none of these."""
    for place in reversed((path, *path.parents)):
        try:
            mode = os.stat(place).st_mode
        except FileNotFoundError:
            if os.path.islink(place):
                return f"{place} is a link to nothing"
        except (OSError, ValueError) as error:  # ValueError: a null character in the name.
            circle = isinstance(error, OSError) and error.errno == errno.ELOOP
            return f"{place} is a link in a circle" if circle else getattr(error, "strerror", None) or str(error)
        else:
            if not stat.S_ISDIR(mode):
                return f"{place} is a file" if stat.S_ISREG(mode) else f"{place} is no folder"
    return ""


def advice(error: OSError) -> str:
    """What to do about an error of writing a file."""
    return _ADVICE.get(error.errno or 0, "must be in a writable folder")


def remove_temporary(folder: Path) -> None:
    """Remove what killed processes were writing in ``folder`` and below. Nobody else may be writing there."""
    for rubbish in folder.rglob(f".*{TEMPORARY}"):
        with contextlib.suppress(OSError):  # On a read-only disk it stays, and does no harm.
            rubbish.unlink()


def write_arrays(
    file: IO[bytes], arrays: Mapping[str, np.ndarray], *, compress: bool = False, comment: bytes = b""
) -> None:
    """An npz archive whose bytes depend on the arrays and the archive's ``comment`` alone: sorted names, a fixed date,
    no pickles.

    Raises:
        ValueError: an array of Python objects.
    """
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as archive:
        archive.comment = comment
        for name in sorted(arrays):
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = archive.compression
            with archive.open(entry, "w", force_zip64=True) as part:
                np.lib.format.write_array(part, np.asarray(arrays[name], order="C"), allow_pickle=False)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
