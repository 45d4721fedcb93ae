"""safetensors files, mapped into memory: the package checks the header and its bounds, duplicates are refused here."""

import json
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dgu.core.errors import InputError
from dgu.core.files import write_atomic
from dgu.core.reading import expect, guarded

#: Longest header that is read (bytes): that of a network of 100,000 tensors is half as long.
MAX_HEADER = 2**24
#: Element types by their names in the header; bfloat16 is the upper half of a float32.
_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "?",
}


def read_safetensors(
    path: str | os.PathLike[str], *, error: type[InputError] = InputError
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays by name, as read-only views of the mapped file (bfloat16 as float32), and the metadata of the header.

    Raises:
        InputError: no such file, no safetensors file, or one whose header is damaged: offsets that overlap, leave gaps
            or reach outside the file, a name that is there twice, or an element type that NumPy does not have.
    """
    allowed = "a whole safetensors file"
    with guarded(path, allowed, error=error):
        from safetensors import safe_open

        expect(path, ("safetensors",), allowed, error=error)
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > MAX_HEADER:
                raise error(f"{os.fspath(path)}: has a header of {length:,} bytes; must be at most {MAX_HEADER:,}")
            with safe_open(path, framework="numpy"):  # It holds all bounds against each other and the file.
                pass
            header = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_once)
            mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        metadata = header.pop("__metadata__", {})
        arrays = {name: _view(name, entry, mapped[8 + length :]) for name, entry in header.items()}
    return arrays, metadata


def write_safetensors(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Write arrays and a text by name in the header, under a temporary name first.

    Raises:
        InputError: the folder cannot be written to.
    """
    from safetensors.numpy import save

    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    data = save(whole, dict(metadata))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_atomic(Path(path), lambda file: file.write(data))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is there twice")
    return found


def _view(name: str, entry: Mapping[str, Any], data: memoryview) -> np.ndarray:
    kind = entry["dtype"]
    if kind not in _DTYPES:
        raise ValueError(f"{name[:60]} has the element type {str(kind)[:20]}, none of {', '.join(_DTYPES)}")
    begin, end = entry["data_offsets"]
    flat = np.frombuffer(data[begin:end], _DTYPES[kind]) if end > begin else np.zeros(0, _DTYPES[kind])
    if kind == "BF16":
        flat = (flat.astype(np.uint32) << 16).view(np.float32)
    return flat.reshape(entry["shape"])
