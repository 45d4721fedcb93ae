"""Tensors in PyTorch's legacy storage format, as views of the bytes that hold them: no PyTorch, no copies, every bound
checked.
"""

import math
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dgu.models.inert_pickle import Budget, Machine, Malformed, Symbol

_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001
#: Element types by the storage class that names them; bfloat16 is read as the upper half of a float32.
DTYPES = {
    ("torch", f"{name}Storage"): np.dtype(code)
    for name, code in {
        "Float": "<f4",
        "Half": "<f2",
        "BFloat16": "<u2",
        "Double": "<f8",
        "Long": "<i8",
        "Int": "<i4",
        "Short": "<i2",
        "Char": "i1",
        "Byte": "u1",
        "Bool": "?",
    }.items()
}


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """``numel`` elements of one type in a row."""

    kind: str
    dtype: np.dtype
    numel: int
    data: memoryview = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class TensorView:
    """A strided view of a storage, inside its bounds and not larger than it; offset and strides count elements."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def numel(self) -> int:
        """The number of elements."""
        return math.prod(self.size)

    def array(self) -> np.ndarray:
        """The elements; a read-only view of the storage except for bfloat16, which becomes float32."""
        if not self.numel:
            return np.zeros(self.size, np.float32)
        step = self.storage.dtype.itemsize
        flat = np.frombuffer(self.storage.data, self.storage.dtype, self.storage.numel)
        strides = tuple(n * step for n in self.stride)
        view = np.lib.stride_tricks.as_strided(flat[self.offset :], self.size, strides, writeable=False)
        if self.storage.kind == "BFloat16Storage":
            return (view.astype(np.uint32) << 16).view(np.float32)
        return view


def is_whole(value: Any) -> bool:
    """Whether a value from a file is a whole number from 0 up."""
    return type(value) is int and value >= 0


def rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> TensorView:
    """``torch._utils._rebuild_tensor_v2``: offset, size and strides are held to the bounds of the storage.

    Raises:
        Malformed: they are not whole numbers, or reach outside the storage, or describe more elements than it has.
    """
    if type(storage) is not Storage or not 2 <= len(rest) <= 3:
        raise Malformed("a tensor without a storage")
    if not (type(size) is tuple and type(stride) is tuple and len(size) == len(stride) <= 8):
        raise Malformed("a tensor whose size and strides do not match")
    if not (is_whole(offset) and all(map(is_whole, size)) and all(map(is_whole, stride))):
        raise Malformed("a tensor with an offset, size or stride that is not a whole number from 0 up")
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride))
    if count > storage.numel or offset > storage.numel or (count and last >= storage.numel):
        raise Malformed(f"a tensor reaches outside its storage of {storage.numel} elements")
    return TensorView(storage, offset, size, stride)


def _described(identifier: Any) -> Storage:
    """The storage, still without its bytes, that a persistent identifier describes."""
    usable = type(identifier) is tuple and len(identifier) in (5, 6) and identifier[0] == "storage"
    if not usable or type(identifier[1]) is not Symbol or not is_whole(identifier[4]):
        raise Malformed("a storage with an unusable description")
    if identifier[3] != "cpu" or identifier[5:] not in ((), (None,)):
        raise Malformed("a storage that is on a device or a view")
    symbol, numel = identifier[1], identifier[4]
    return Storage(symbol.name, DTYPES[symbol.key], numel, memoryview(b""))


def load_storage(blob: Any, budget: Budget) -> Storage:
    """``torch.storage._load_from_bytes``: five small pickles, a count and the elements.

    Raises:
        Malformed: the bytes are anything else, or not as long as they say.
    """
    if type(blob) is not memoryview:
        raise Malformed("a storage that is not bytes")
    machine = Machine(blob, {}, names=frozenset(DTYPES), persistent=_described, budget=budget)
    magic, at = machine.load()
    version, at = machine.load(at)
    system, at = machine.load(at)
    described, at = machine.load(at)
    keys, at = machine.load(at)
    if type(magic) is not int or magic != _MAGIC or type(version) is not int or version != _VERSION:
        raise Malformed("a storage that PyTorch's legacy format did not write")
    if type(system) is not dict or system.get("little_endian") is not True:
        raise Malformed("a storage that is not little-endian")
    if type(described) is not Storage or type(keys) is not list or len(keys) != 1 or len(blob) - at < 8:
        raise Malformed("a storage without its elements")
    count = struct.unpack("<q", blob[at : at + 8])[0]
    data = blob[at + 8 :]
    if count != described.numel or count * described.dtype.itemsize != len(data):
        found = f"{described.numel} elements described, {count} counted, {len(data)} bytes there"
        raise Malformed(f"a storage of the wrong size ({found})")
    return Storage(described.kind, described.dtype, count, data)
