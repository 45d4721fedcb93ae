"""What the files hold that a data set is read from: the files it consists of, and a hash of their content."""

import contextlib
import hashlib
import os
from pathlib import Path

from dgu.core.errors import InputError, require
from dgu.data.formats import labels_beside


def files_of(path: str | os.PathLike[str]) -> list[Path]:
    """The ordinary files that a data set at ``path`` consists of, sorted: itself, all that a folder holds (hidden files
    apart, links followed), or IDX images with their labels; none where there is nothing.
    """
    path = Path(path)
    if os.path.isdir(path):
        found, seen = [], set()
        for folder, folders, names in os.walk(path, followlinks=True):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            if (real := os.path.realpath(folder)) in seen:  # A link to a folder above it.
                folders.clear()
                continue
            seen.add(real)
            found += [Path(folder, name) for name in names if not name.startswith(".")]
        return sorted(file for file in found if os.path.isfile(file))
    if not os.path.isfile(path):
        return []
    if path.name.removesuffix(".gz").endswith("-ubyte"):
        with contextlib.suppress(InputError):
            return [path, labels_beside(path)]
    return [path]


def content_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 (hex) of a data set: of the bytes of a single file, else of the names and hashes of all of its files.

    Raises:
        InputError: there is no file at ``path`` or in it, or a file cannot be read.
    """
    files = files_of(path)
    require(bool(files), "path", os.fspath(path), "an ordinary file that exists, or a folder that holds one")
    if files == [Path(path)]:
        return _sha256(files[0])
    names = (os.path.relpath(file, path) for file in files)
    lines = [f"{_sha256(file)}  {name}\n" for file, name in zip(files, names)]
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _sha256(file: Path) -> str:
    try:
        with open(file, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); must be a readable file") from error


def signature_of(path: str | os.PathLike[str]) -> list[tuple[int, ...]]:
    """Of each file of a data set device, number, size and time of writing: they change when it is written to or
    replaced.

    Raises:
        InputError: a file cannot be read.
    """
    try:
        states = [os.stat(file) for file in files_of(path)]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); must not change while it is read") from error
    return [(state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns) for state in states]
