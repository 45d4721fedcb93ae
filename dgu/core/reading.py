"""Reading files that nobody vouches for: nothing is executed, sizes are judged first, and what fails is one line.

Every reader of the package goes through ``guarded``, so that whatever a damaged file makes a parser raise becomes an
``InputError`` with the name of the file; and through ``regular_file``, since a named pipe would be waited for for ever.
"""

import contextlib
import io
import json
import math
import os
import stat
import struct
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from dgu.core.errors import InputError, one_line, require
from dgu.core.file_kinds import folder_kind, mismatch

#: Largest JSON file that is read by default (bytes), and the deepest nesting in it.
MAX_JSON = 2**26
#: Longest header of an npy file (bytes): NumPy's own limit.
MAX_HEADER = 10_000
#: Environment variable: how much memory what a file of images or features holds may take (GiB), and its default.
LIMIT_VARIABLE, DEFAULT_GIB = "DGU_MAX_GIB", 2.0
#: Bytes that a number takes at least, once it is read: images and features are computed with in float32.
SINGLE = 4
#: What a line says that refuses more.
RAISE_LIMIT = f"{LIMIT_VARIABLE} in the environment allows more, in GiB"


@runtime_checkable
class Readable(Protocol):
    """A file that is open for reading bytes, or a member of an archive that is."""

    def read(self, size: int, /) -> bytes: ...
    def tell(self) -> int: ...


def byte_limit(stated: int | None = None) -> int:
    """How many bytes the numbers of a file of images or features may take: ``stated``, else ``$DGU_MAX_GIB``, else 2
    GiB.

    They count as they are in memory afterwards: in float32, 4 bytes each whatever the file has (8 where it has 8).

    Raises:
        InputError: a limit that is no positive number.
    """
    if stated is not None:
        require(stated >= 1, "max_bytes", stated, "1 or more, or None")
        return stated
    text = os.environ.get(LIMIT_VARIABLE) or str(DEFAULT_GIB)
    try:
        limit = float(text) * 2**30
    except ValueError:
        limit = math.nan
    require(1 <= limit < 2**62, f"${LIMIT_VARIABLE}", text, "a positive number of GiB, such as 8")
    return int(limit)


@contextlib.contextmanager
def guarded(
    source: str | os.PathLike[str], allowed: str, *, advice: str = "", error: type[InputError] = InputError
) -> Iterator[None]:
    """Turn every exception that reading ``source`` raises into one ``InputError`` line.

    Parsers raise whatever their inner workings stumble on (``OverflowError``, ``MemoryError``, ``RecursionError``, the
    tokenizer's own errors ...), so that no list of types is complete: all of ``Exception`` counts. An ``InputError``
    passes as it is. Warnings of parsers are dropped: what matters is whether the reading succeeds.

    Args:
        source: the file, as the line names it.
        allowed: what the file must be, such as ``"a whole npz file"``.
        advice: what to do about it, appended in brackets.
        error: the type raised.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except Exception as problem:
        reason = (problem.strerror or one_line(problem)) if isinstance(problem, OSError) else one_line(problem)
        hint = f" ({advice})" if advice else ""
        raise error(f"{os.fspath(source)}: cannot be read ({reason}); must be {allowed}{hint}") from problem


def regular_file(path: str | os.PathLike[str], error: type[InputError] = InputError) -> Path:
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
        kinds = {stat.S_IFDIR: folder_kind(path), stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
        raise error(f"{os.fspath(path)}: is {kinds.get(stat.S_IFMT(mode), 'a device')}; must be an ordinary file")
    return Path(path)


def expect(
    path: str | os.PathLike[str],
    kinds: tuple[str, ...],
    allowed: str,
    *,
    source: str | None = None,
    error: type[InputError] = InputError,
) -> Path:
    """``path`` itself, if it is an ordinary file that begins like one of the formats ``kinds`` (see ``file_kinds``).

    Args:
        path: the file.
        kinds: keys of formats.
        allowed: what the file must be, in an error.
        source: how an error calls the file, where not by ``path``.
        error: the type raised.

    Raises:
        InputError: no such file, or another format, which the line names, with what to do about it.
    """
    source = os.fspath(path) if source is None else source
    regular_file(path, error)
    with guarded(source, allowed, error=error):
        found = mismatch(path, kinds)
    if found:
        raise error(f"{source}: cannot be read (it {found}); must be {allowed}")
    return Path(path)


def read_bytes(path: str | os.PathLike[str], limit: int, allowed: str) -> bytes:
    """The whole of an ordinary file of at most ``limit`` bytes.

    Raises:
        InputError: the file is missing, larger, or no ordinary file.
    """
    with guarded(path, allowed), open(regular_file(path), "rb") as file:
        data = bytes(read_up_to(file, limit + 1))
    if len(data) > limit:
        raise InputError(f"{os.fspath(path)}: holds more than {limit:,} bytes; must be {allowed}")
    return data


def read_json(path: str | os.PathLike[str], allowed: str, *, limit: int = MAX_JSON, advice: str = "") -> Any:
    """The value in a JSON file (UTF-8) of at most ``limit`` bytes.

    Raises:
        InputError: the file is missing, too large, not UTF-8, or not JSON.
    """
    data = read_bytes(path, limit, allowed)
    with guarded(path, allowed, advice=advice):
        return json.loads(data.decode("utf-8"))


def read_header(
    file: Readable, size: int, source: str, limit: int, advice: str = "", least: int = 1
) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order (whether Fortran's) and dtype from an open npy file of ``size`` bytes; what follows are its entries.

    Call it inside ``guarded``. ``advice`` says how to raise ``limit``, if that is possible.

    Raises:
        InputError: Python objects, more than ``limit`` bytes with at least ``least`` for each entry, or a header that
            promises another number of bytes than there are.
    """
    start = file.read(8)
    if start[:6] != b"\x93NUMPY" or start[6:] not in (b"\1\0", b"\2\0"):
        raise InputError(f"{source}: begins with bytes {start.hex()!r}; must be an npy file of version 1.0 or 2.0")
    # NumPy would read as long a header as the file claims.
    length = file.read(2 if start[6] == 1 else 4)
    size_of_header = int.from_bytes(length, "little")
    if size_of_header > MAX_HEADER:
        raise InputError(f"{source}: has a header of {size_of_header:,} bytes; must be at most {MAX_HEADER:,}")
    header = io.BytesIO(length + file.read(size_of_header))
    read = np.lib.format.read_array_header_1_0 if start[6] == 1 else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(header, max_header_size=MAX_HEADER)
    if dtype.hasobject:
        raise InputError(
            f"{source}: cannot be read (a pickled object array, which could run code); must be a plain array"
        )
    if any(length < 0 for length in shape) or not dtype.itemsize:
        raise InputError(f"{source}: has shape {shape}, dtype {dtype}; must have no negative lengths or empty entries")
    promised = math.prod(shape) * dtype.itemsize
    taken = math.prod(shape) * max(dtype.itemsize, least)
    if taken > limit:
        hint = f" ({advice})" if advice else ""
        held = f"holds {promised:,} bytes" if taken == promised else f"takes {taken:,} bytes as float32"
        raise InputError(f"{source}: {held} (shape {shape}, {dtype}); must be at most {limit:,}{hint}")
    if promised != size - file.tell():
        raise InputError(
            f"{source}: holds {size - file.tell():,} bytes of data; must be {promised:,} for shape {shape}"
        )
    return shape, fortran, dtype


def read_array(file: Readable, size: int, source: str, limit: int, advice: str = "", least: int = 1) -> np.ndarray:
    """The array of an open npy file of ``size`` bytes: its header is judged as ``read_header`` says, then it is read.

    Call it inside ``guarded``. Nothing is unpickled. Memory grows with the bytes that really come, since the size that
    an archive states for a compressed member may be false.

    Raises:
        InputError: what ``read_header`` refuses, or a file that ends early.
    """
    shape, fortran, dtype = read_header(file, size, source, limit, advice, least)
    promised = math.prod(shape) * dtype.itemsize
    data = read_up_to(file, promised)
    if len(data) < promised:
        raise InputError(f"{source}: ends after {len(data):,} bytes of data; must be {promised:,}")
    array = np.frombuffer(data, dtype) if promised else np.zeros(0, dtype)
    return array.reshape(shape, order="F" if fortran else "C")


@contextlib.contextmanager
def opened_npz(path: str | os.PathLike[str], allowed: str) -> Iterator[zipfile.ZipFile]:
    """An npz file, opened; whatever goes wrong with it inside the block is one line. Arrays are read by
    ``read_member``.
    """
    with guarded(path, allowed), zipfile.ZipFile(expect(path, ("npz", "zip"), allowed)) as archive:
        yield archive


def opened_member(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, source: str | os.PathLike[str]
) -> zipfile.ZipExtFile:
    """A member of a zip, opened, if it is stored or deflated: other methods unpack at once whatever they are given.

    Raises:
        InputError: another method, or an encrypted member.
    """
    name = f"{os.fspath(source)}: {entry.filename}"
    if entry.flag_bits & 1:
        raise InputError(f"{name} is encrypted; must not be")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        method = {zipfile.ZIP_BZIP2: "bzip2", zipfile.ZIP_LZMA: "LZMA"}.get(
            entry.compress_type, str(entry.compress_type)
        )
        raise InputError(f"{name} is compressed by the method {method}; must be stored or deflated")
    return archive.open(entry)  # type: ignore[return-value]


def stored_bytes(mapped: memoryview, entry: zipfile.ZipInfo, source: str) -> memoryview:
    """A member of a zip that is not compressed, as a view of the mapped file; its checksum is compared.

    Raises:
        InputError: the member is cut or damaged.
    """
    # The directory at the end of the archive says where a member's own header is; that says how long its two texts are.
    at = entry.header_offset
    name_length, extra_length = struct.unpack("<HH", mapped[at + 26 : at + 30])
    start = at + 30 + name_length + extra_length
    data = mapped[start : start + entry.file_size]
    if len(data) != entry.file_size or zlib.crc32(data) != entry.CRC:
        raise InputError(f"{source} ({entry.filename} is damaged)")
    return data


def array_names(archive: zipfile.ZipFile) -> list[str]:
    """Names of the arrays in an open npz file, in its order.

    Raises:
        InputError: a member that is there twice: of two programs one would read the first and one the last.
    """
    names = archive.namelist()
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise InputError(f"{archive.filename}: holds {twice} more than once; must hold each array once")
    return [name.removesuffix(".npy") for name in names if name.endswith(".npy")]


def read_member(
    archive: zipfile.ZipFile, name: str, source: str | os.PathLike[str], limit: int, advice: str = "", least: int = 1
) -> np.ndarray:
    """The array ``name`` of an open npz file, and no other: see ``read_array``. Call it inside ``guarded``."""
    entry = archive.getinfo(f"{name}.npy")
    with opened_member(archive, entry, source) as file:
        return read_array(file, entry.file_size, f"{os.fspath(source)}: {name}", limit, advice, least)


def read_up_to(file: Readable, count: int) -> bytearray:
    """The next ``count`` bytes of an open file, or all that there are; memory grows with what comes."""
    data = bytearray()
    while len(data) < count:
        part = file.read(min(count - len(data), 2**20))
        if not part:
            break
        data += part
    return data
