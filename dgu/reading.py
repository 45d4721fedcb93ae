"""Reading files that nobody vouches for: nothing is executed, sizes are judged first, and what fails is one line.

Every reader of the package goes through ``guarded``, so that whatever a damaged file makes a parser raise becomes an
``InputError`` with the name of the file; and through ``regular_file``, since a named pipe would be waited for for ever.
"""

import contextlib
import json
import math
import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from dgu.errors import InputError, one_line

#: Largest JSON file that is read by default (bytes), and the deepest nesting in it.
MAX_JSON = 2**26
#: Longest header of an npy file (bytes): NumPy's own limit.
MAX_HEADER = 10_000


@contextlib.contextmanager
def guarded(
    source: str | os.PathLike, allowed: str, *, advice: str = "", error: type[InputError] = InputError
) -> Iterator[None]:
    """Turn every exception that reading ``source`` raises into one ``InputError`` line.

    Parsers raise whatever their inner workings stumble on (``OverflowError``, ``MemoryError``, ``RecursionError``, the
    tokenizer's own errors ...), so that no list of types is complete: all of ``Exception`` counts. An ``InputError`` passes
    as it is.

    Args:
        source: the file, as the line names it.
        allowed: what the file must be, such as ``"a whole npz file"``.
        advice: what to do about it, appended in brackets.
        error: the type raised.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as problem:
        reason = (problem.strerror or one_line(problem)) if isinstance(problem, OSError) else one_line(problem)
        hint = f" ({advice})" if advice else ""
        raise error(f"{os.fspath(source)}: cannot be read ({reason}); must be {allowed}{hint}") from problem


def regular_file(path: str | os.PathLike, error: type[InputError] = InputError) -> Path:
    """``path`` itself, if it is an ordinary file or a link to one.

    Raises:
        InputError: there is none, or it is a folder, a named pipe, a socket or a device.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as problem:  # ValueError: a null character in the name.
        reason = (problem.strerror if isinstance(problem, OSError) else None) or one_line(problem)
        raise error(f"{os.fspath(path)}: cannot be read ({reason}); must be a file") from None
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
        raise error(f"{os.fspath(path)}: is {kinds.get(stat.S_IFMT(mode), 'a device')}; must be an ordinary file")
    return Path(path)


def read_bytes(path: str | os.PathLike, limit: int, allowed: str) -> bytes:
    """The whole of an ordinary file of at most ``limit`` bytes.

    Raises:
        InputError: the file is missing, larger, or no ordinary file.
    """
    with guarded(path, allowed), open(regular_file(path), "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise InputError(f"{os.fspath(path)}: holds more than {limit:,} bytes; must be {allowed}")
    return data


def read_json(path: str | os.PathLike, allowed: str, *, limit: int = MAX_JSON, advice: str = "") -> Any:
    """The value in a JSON file (UTF-8) of at most ``limit`` bytes.

    Raises:
        InputError: the file is missing, too large, not UTF-8, or not JSON.
    """
    data = read_bytes(path, limit, allowed)
    with guarded(path, allowed, advice=advice):
        return json.loads(data.decode("utf-8"))


def read_array(file: IO[bytes] | zipfile.ZipExtFile, size: int, source: str, limit: int) -> np.ndarray:
    """The array of an open npy file of ``size`` bytes; memory is taken only after its header was found to fit them.

    Call it inside ``guarded``. Nothing is unpickled.

    Raises:
        InputError: Python objects, more than ``limit`` bytes, or a header that promises another number of bytes than
            there are.
    """
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise InputError(f"{source}: is npy version {version}; must be 1.0 or 2.0")
    shape, fortran, dtype = readers[version](file, max_header_size=MAX_HEADER)
    if dtype.hasobject:
        raise InputError(f"{source}: is a pickled object array, which could run code; must be a plain array")
    if any(length < 0 for length in shape):
        raise InputError(f"{source}: has shape {shape}; must have no negative lengths")
    promised = math.prod(shape) * dtype.itemsize
    if promised > limit:
        raise InputError(f"{source}: holds {promised:,} bytes (shape {shape}, {dtype}); must be at most {limit:,}")
    if promised != size - file.tell():
        raise InputError(
            f"{source}: holds {size - file.tell():,} bytes of data; must be {promised:,} for shape {shape}"
        )
    array = np.frombuffer(_exactly(file, promised, source), dtype) if promised else np.zeros(math.prod(shape), dtype)
    return array.reshape(shape, order="F" if fortran else "C")


def read_member(archive: zipfile.ZipFile, name: str, source: str | os.PathLike, limit: int) -> np.ndarray:
    """The array ``name`` of an open npz file: see ``read_array``. Call it inside ``guarded``."""
    entry = archive.getinfo(f"{name}.npy")
    with archive.open(entry) as file:
        return read_array(file, entry.file_size, f"{os.fspath(source)}: {name}", limit)


def _exactly(file: IO[bytes] | zipfile.ZipExtFile, count: int, source: str) -> bytearray:
    data = bytearray(count)
    view, at = memoryview(data), 0
    while at < count:
        part = file.read(min(count - at, 2**24))
        if not part:
            raise InputError(f"{source}: ends after {at:,} bytes of data; must be {count:,}")
        view[at : at + len(part)] = part
        at += len(part)
    return data
