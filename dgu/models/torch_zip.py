"""State dictionaries that ``torch.save`` wrote as a zip archive (``.bin``, ``.pt``), alone or with the configuration of
their network, read as data: no PyTorch, nothing in them is run.
"""

import mmap
import os
import zipfile
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from dgu.core.errors import CheckpointError, InputError
from dgu.core.reading import expect, guarded, stored_bytes
from dgu.models.inert_pickle import Budget, Constructors, Machine, Malformed, Symbol
from dgu.models.torch_storage import DTYPES, Storage, TensorView, is_whole, rebuild_tensor

_ALLOWED = "a state dictionary of tensors that torch.save wrote as a zip archive"
#: What a file of a network holds, and what to do with other modules.
NETWORK = (
    "what torch.save({'config': ..., 'state_dict': network.state_dict()}, FILE) writes of a network of EDM, EDM2 or "
    "diffusers (dgu.denoiser(module, ...) wraps any other PyTorch module, in code)"
)
#: Members that only archives of programs have: of TorchScript, and of torch.export.
_PROGRAMS = ("/constants.pkl", "/archive_format", "serialized_exported_program.json")
#: The most values in a configuration, and how deep they may lie.
_MOST_VALUES, _DEEPEST = 20_000, 4


class _Content(NamedTuple):
    """What an archive's pickle holds, and how many elements all of its storages have."""

    found: Any
    elements: int


def read_torch_zip(path: str | os.PathLike[str], *, error: type[InputError] = CheckpointError) -> dict[str, np.ndarray]:
    """The tensors of a state dictionary by name, as read-only views of the mapped file (bfloat16 as float32).

    Raises:
        InputError: no such file, another format (PyTorch's legacy one, too), or an archive that is damaged or asks for
            anything else than tensors.
    """
    with guarded(path, _ALLOWED, error=error):
        content = _read(path, _ALLOWED, error)
        return _arrays(content.found, content.elements)


def read_torch_network(
    path: str | os.PathLike[str], *, error: type[InputError] = CheckpointError
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The configuration and the tensors of ``torch.save({"config": ..., "state_dict": ...}, path)``.

    The configuration holds numbers, texts, truth values, None, and lists, tuples and dictionaries of these.

    Raises:
        InputError: as of ``read_torch_zip``; a state dictionary without a configuration; a whole module or a program.
    """
    with guarded(path, NETWORK, error=error):
        content = _read(path, NETWORK, error)
        found = content.found
        if type(found) is not dict or found.keys() != {"config", "state_dict"}:
            bare = type(found) is dict and all(type(value) is TensorView for value in found.values())
            what = "a state dictionary without its configuration" if bare else "something else"
            raise Malformed(f"it holds {what}")
        values = sum(1 for _ in islice(_plain(found["config"]), _MOST_VALUES))
        if type(found["config"]) is not dict or values == _MOST_VALUES:
            raise Malformed("its config is no dictionary of a few plain values")
        return found["config"], _arrays(found["state_dict"], content.elements)


def _plain(value: Any, depth: int = 0) -> Iterator[None]:
    """One item for each value inside a configuration, which may hold the same one many times."""
    if isinstance(value, dict | list | tuple):
        if depth > _DEEPEST:
            raise Malformed("its config is nested too deeply")
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _plain(inner, depth + 1)
    elif not (value is None or isinstance(value, bool | int | float | str)):
        raise Malformed("its config holds something else than numbers, texts, lists and dictionaries of them")
    yield None


def _read(path: str | os.PathLike[str], allowed: str, error: type[InputError]) -> _Content:
    expect(path, ("pytorch",), allowed, error=error)
    with open(path, "rb") as file:
        if file.read(2) != b"PK":
            raise error(f"{os.fspath(path)}: is a PyTorch file of the legacy format; must be {allowed}")
        with zipfile.ZipFile(file) as archive:
            if any(name.endswith(_PROGRAMS) for name in archive.namelist()):
                raise error(f"{os.fspath(path)}: is a program of PyTorch, and none is run here; must be {allowed}")
            mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            return _content(archive, mapped, os.fspath(path))


def _content(archive: zipfile.ZipFile, mapped: memoryview, source: str) -> _Content:
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
    return _Content(found, sum(each.numel for each in storages.values()))


def _arrays(found: Any, elements: int) -> dict[str, np.ndarray]:
    """The arrays of a state dictionary, which together have no more than so many elements."""
    if type(found) is not dict or not all(type(value) is TensorView for value in found.values()):
        raise Malformed("it holds something else than tensors by name")
    if sum(tensor.numel for tensor in found.values()) > elements:
        raise Malformed("tensors share their elements")
    return {str(name): tensor.array() for name, tensor in found.items()}


def _empty() -> dict[str, Any]:
    return {}


def _state(target: Any, state: Any) -> None:
    """The versions of modules, which a state dictionary carries as an attribute, are left aside."""
    if type(target) is not dict or type(state) is not dict or set(state) - {"_metadata"}:
        raise Malformed("state is handed to what takes none")
