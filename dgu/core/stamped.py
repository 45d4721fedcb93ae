"""Arrays in an npz file that says what it holds and what it was computed from: a stamp, which is looked at before use.

The stamp is JSON in the archive's comment, with the dtype and shape of each array, so that no array that was lost,
changed or added goes unnoticed; zip's checksums guard their values.
"""

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from dgu.core.errors import InputError, require
from dgu.core.files import write_arrays
from dgu.core.reading import array_names, guarded, read_member, regular_file

#: Longest comment of a zip archive, in bytes.
_LONGEST = 2**16 - 1


def write_stamped(file: IO[bytes], arrays: Mapping[str, np.ndarray], stamp: Mapping[str, Any]) -> None:
    """Write arrays and a ``stamp`` of JSON's types, without an entry ``"arrays"``; the bytes depend on these alone.

    Raises:
        InputError: stamp, names and shapes, some thousand arrays, take more than the 65,535 bytes of a zip comment.
    """
    comment = json.dumps({**stamp, "arrays": _kinds(arrays)}, sort_keys=True).encode()
    require(len(comment) <= _LONGEST, "length of the stamp", len(comment), f"at most {_LONGEST} bytes (fewer arrays)")
    write_arrays(file, arrays, comment=comment)


def read_stamped(path: Path, allowed: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the stamp that ``write_stamped`` wrote; ``allowed`` says in an error what the file must be.

    Raises:
        InputError: the file is missing or damaged, has no stamp, or holds other arrays than its stamp says.
    """
    with guarded(path, allowed), open(regular_file(path), "rb") as stream, zipfile.ZipFile(stream) as archive:
        # The arrays are not compressed: nothing in the file is larger than the file.
        size = os.fstat(stream.fileno()).st_size
        arrays = {key: read_member(archive, key, path, size) for key in array_names(archive)}
        stamp = _stamp(archive.comment)
        if stamp is None:
            raise InputError(f"{path}: does not say what it was computed from; must be {allowed}")
        there, here = stamp.pop("arrays"), _kinds(arrays)
        others = sorted(key for key in there.keys() | here.keys() if there.get(key) != here.get(key))
        if others or len(archive.namelist()) > len(arrays):
            found = ", ".join(others) or "files that are no arrays"
            raise InputError(f"{path}: lacks, changes or adds {found}; must be as it was written")
        return arrays, stamp


def _stamp(comment: bytes) -> dict[str, Any] | None:
    """The stamp that an archive's comment is, or None where it is another program's."""
    try:
        stamp = json.loads(comment)
    except ValueError:
        return None
    return stamp if isinstance(stamp, dict) and isinstance(stamp.get("arrays"), dict) else None


def _kinds(arrays: Mapping[str, np.ndarray]) -> dict[str, list[Any]]:
    """Dtype and shape of each array, by its name."""
    return {name: [array.dtype.str, list(array.shape)] for name, array in sorted(arrays.items())}
