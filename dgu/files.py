"""Files that appear whole or not at all, and npz archives whose bytes depend on their contents alone."""

import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from dgu.errors import InputError

#: Ending of files that are being written; whatever carries it after a crash is rubbish.
TEMPORARY = ".tmp"


def write_atomic(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, force it to disk, and rename it to ``path``.

    A reader, or a run after a crash, sees the old file or the new one, never a part.

    Raises:
        InputError: the folder is missing or cannot be written to.
    """
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
        raise InputError(
            f"{path}: cannot be written ({error.strerror or error}); must be in a writable folder"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporary(folder: Path) -> None:
    """Remove what killed processes were writing in ``folder`` and below. Nobody else may be writing there."""
    for rubbish in folder.rglob(f".*{TEMPORARY}"):
        rubbish.unlink(missing_ok=True)


def write_arrays(
    file: IO[bytes], arrays: Mapping[str, np.ndarray], *, compress: bool = False, comment: bytes = b""
) -> None:
    """An npz archive whose bytes depend on the arrays and the archive's ``comment`` alone: sorted names, a fixed date, no
    pickles.

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
