"""Files that appear whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from dgu.errors import InputError

#: Ending of files that are being written; whatever carries it after a crash is rubbish.
TEMPORARY = ".tmp"


def write_atomic(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, force it to disk, and rename it to ``path``.

    A reader, or a run after a crash, sees the old file or the new one, never a part.

    Raises:
        InputError: the folder cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror or error}); must be in a writable folder"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Force the folder's list of names to disk, so that a rename survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
