"""State dictionaries that ``torch.save`` wrote as a zip archive (``.bin``, ``.pt``), read as data: no PyTorch, nothing
in them is run.
"""

import mmap
import os
import zipfile
from typing import Any

import numpy as np

from dgu.core.errors import CheckpointError, InputError
from dgu.core.reading import expect, guarded, stored_bytes
from dgu.models.inert_pickle import Budget, Constructors, Machine, Malformed, Symbol
from dgu.models.torch_storage import DTYPES, Storage, TensorView, is_whole, rebuild_tensor

_ALLOWED = "a state dictionary of tensors that torch.save wrote as a zip archive"


def read_torch_zip(path: str | os.PathLike[str], *, error: type[InputError] = CheckpointError) -> dict[str, np.ndarray]:
    """The tensors of a state dictionary by name, as read-only views of the mapped file (bfloat16 as float32).

    Raises:
        InputError: no such file, another format (PyTorch's legacy one, too), or an archive that is damaged or asks for
            anything else than tensors.
    """
    with guarded(path, _ALLOWED, error=error):
        expect(path, ("pytorch",), _ALLOWED, error=error)
        with open(path, "rb") as file:
            if file.read(2) != b"PK":
                raise error(f"{os.fspath(path)}: is a PyTorch file of the legacy format; must be {_ALLOWED}")
            with zipfile.ZipFile(file) as archive:
                mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
                return _tensors(archive, mapped, os.fspath(path))


def _tensors(archive: zipfile.ZipFile, mapped: memoryview, source: str) -> dict[str, np.ndarray]:
    entries = {entry.filename: entry for entry in archive.infolist()}
    if len(entries) < len(archive.infolist()):
        raise Malformed("a member is there twice")
    pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise Malformed("there is no data.pkl in it, or more than one")
    root = pickles[0].removesuffix("data.pkl")

    def content(name: str) -> memoryview:
        entry = entries.get(root + name)
        if entry is None or entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise Malformed(f"{name[:60]} is missing, compressed or encrypted")
        return stored_bytes(mapped, entry, source)

    if f"{root}byteorder" in entries and bytes(content("byteorder")) != b"little":
        raise Malformed("its byte order is not little-endian")
    storages: dict[str, Storage] = {}

    def storage(identifier: Any) -> Storage:
        usable = type(identifier) is tuple and len(identifier) == 5 and identifier[0] == "storage"
        if not usable or type(identifier[1]) is not Symbol or identifier[1].key not in DTYPES:
            raise Malformed("a storage with an unusable description")
        _, symbol, key, _, numel = identifier  # Where it was, on a CPU or not, does not matter.
        if type(key) is not str or not is_whole(numel):
            raise Malformed("a storage with an unusable description")
        dtype = DTYPES[symbol.key]
        if key not in storages:
            data = content(f"data/{key}")
            if len(data) != numel * dtype.itemsize:
                raise Malformed(f"storage {key[:20]} has {len(data)} bytes, not {numel} entries of {dtype}")
            storages[key] = Storage(symbol.name, dtype, numel, data)
        if (storages[key].kind, storages[key].numel) != (symbol.name, numel):
            raise Malformed(f"storage {key[:20]} is described in two ways")
        return storages[key]

    calls: Constructors = {
        ("collections", "OrderedDict"): _empty,
        ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
        ("torch._utils", "_rebuild_parameter"): lambda tensor, requires_grad, hooks: tensor,
    }
    machine = Machine(
        content("data.pkl"), calls, names=frozenset(DTYPES), build=_state, persistent=storage, budget=Budget()
    )
    found, _ = machine.load()
    if type(found) is not dict or not all(type(value) is TensorView for value in found.values()):
        raise Malformed("it holds something else than tensors by name")
    if sum(tensor.numel for tensor in found.values()) > sum(each.numel for each in storages.values()):
        raise Malformed("tensors share their elements")
    return {str(name): tensor.array() for name, tensor in found.items()}


def _empty() -> dict[str, Any]:
    return {}


def _state(target: Any, state: Any) -> None:
    """The versions of modules, which a state dictionary carries as an attribute, are left aside."""
    if type(target) is not dict or type(state) is not dict or set(state) - {"_metadata"}:
        raise Malformed("state is handed to what takes none")
