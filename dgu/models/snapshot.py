"""NVIDIA's EDM and EDM2 snapshots (``network-snapshot-*.pkl``, ``edm-*.pkl``, ``edm2-*.pkl``) read as data, without
PyTorch and running nothing in them.
"""

import hashlib
import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dgu.core.errors import CheckpointError, InputError
from dgu.core.file_kinds import mismatch
from dgu.core.reading import guarded, regular_file
from dgu.models.edm import EDMDenoiser
from dgu.models.inert_pickle import Budget, Constructors, Machine, Malformed, Symbol
from dgu.models.preconditioning import PRECONDITIONINGS
from dgu.models.torch_storage import TensorView, load_storage, rebuild_tensor
from dgu.models.weights import network_from_arrays

_MAX_BYTES = 8 << 30
_NETWORKS = ("SongUNet", "DhariwalUNet")
_LAYERS = ("Linear", "Conv2d", "GroupNorm", "UNetBlock", "PositionalEmbedding", "FourierEmbedding")
_OTHERS = ("VPLoss", "VELoss", "EDMLoss", "AugmentPipe")
#: Of EDM2: the preconditioner, its network (the child of this name), and what else occurs.
_EDM2, _EDM2_NETWORK = "Precond", "UNet"
_EDM2_OTHERS = ("Block", "MPConv", "MPFourier", "EDM2Loss", "StandardRGBEncoder", "StabilityVAEEncoder")
#: Classes of the references that occur in a snapshot.
CLASSES = frozenset((*PRECONDITIONINGS, *_NETWORKS, *_LAYERS, *_OTHERS, _EDM2, _EDM2_NETWORK, *_EDM2_OTHERS))


@dataclass(frozen=True)
class Snapshot:
    """What a snapshot says of its averaged network: ``config`` as ``edm_from_arrays`` takes it, tensors by name."""

    config: dict[str, Any]
    arrays: dict[str, np.ndarray]
    source_sha256: str
    """Of the Python source that the file carries, which nothing here runs."""


@dataclass(slots=True, eq=False)
class _Node:
    """An object of the reference: its class by name and its attributes. Made afresh by each load."""

    class_name: str
    state: dict[str, Any] | None
    source: str = ""


@dataclass(slots=True, eq=False)
class _NumpyArray:
    """A NumPy array, of which nothing is needed: those of the encoders of images are not the network's."""

    state: Any = None


@dataclass(slots=True, eq=False)
class _NumpyType:
    """A NumPy element type by its code, with the byte order still to come."""

    code: str
    order: str = "="


def load_edm_pickle(path: str | os.PathLike[str]) -> EDMDenoiser:
    """The averaged network of one of NVIDIA's EDM or EDM2 snapshots as a denoiser.

    The file is a pickle whose official loader imports PyTorch and executes Python source that it carries. Here it is
    taken for data: known class names become inert records, tensors become views of the file, all else is refused.

    Weights are float32 and computed with in float32, also where the network was trained with ``use_fp16``;
    ``dataclasses.replace(denoiser.network, compute_dtype="bfloat16")`` is how to ask for less.
    A class-conditional network needs a class (``denoiser.given(label)``) unless its arguments say that it was trained
    with label dropout; the reference trains without where they do not say.

    Args:
        path: the ``.pkl`` file.

    Raises:
        CheckpointError: no such file, not such a snapshot, or one that is damaged or asks for anything else than data.
    """
    snapshot = read_snapshot(path)
    try:
        with guarded(path, "a usable EDM snapshot", error=CheckpointError):
            return network_from_arrays(snapshot.config, snapshot.arrays)
    except CheckpointError:
        raise
    except InputError as error:
        raise _error(path, str(error)) from error


def read_snapshot(path: str | os.PathLike[str]) -> Snapshot:
    """Configuration and tensors of the snapshot's averaged network (``ema``); the arrays are views of the mapped file.

    Raises:
        CheckpointError: no such file, not such a snapshot, or one that is damaged or asks for anything else than data.
    """
    with guarded(path, "a usable EDM snapshot", error=CheckpointError):
        name = Path(path)
        if not name.exists() or name.is_dir():
            raise _error(path, "no such file")
        size = regular_file(name, CheckpointError).stat().st_size
        if not 0 < size <= _MAX_BYTES:
            raise _error(path, f"{size} bytes{'' if size else ' (an empty file)'}, must be 1 to {_MAX_BYTES}")
        with open(name, "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            return _snapshot(memoryview(mapped))
        except Malformed as error:
            found = mismatch(name, ("pickle",))
            raise _error(path, f"{error} (it {found})" if found else str(error)) from error


def _error(path: str | os.PathLike[str], what: str) -> CheckpointError:
    line = " ".join(what.split())
    return CheckpointError(
        f"{os.fspath(path)}: not a usable EDM snapshot: {line if len(line) < 300 else line[:297] + '...'}"
    )


def _snapshot(data: memoryview) -> Snapshot:
    root, end = _machine(data).load()
    if end != len(data):
        raise Malformed(f"{len(data) - end} bytes follow its end")
    if type(root) is not dict or type(root.get("ema")) is not _Node:
        raise Malformed("there is no network 'ema' in it")
    node = root["ema"]
    tensors: dict[str, TensorView] = {}
    _collect(node, "", tensors, set())
    stored = {id(tensor.storage): tensor.storage.numel for tensor in tensors.values()}
    if sum(tensor.numel for tensor in tensors.values()) > sum(stored.values()):
        raise Malformed("tensors share their elements")
    digest = hashlib.sha256(node.source.encode()).hexdigest()
    return Snapshot(_config(node), {name: tensor.array() for name, tensor in tensors.items()}, digest)


# What the file may construct
# ---------------------------------------------------------------------------------------------


def _machine(data: memoryview) -> Machine:
    budget = Budget()
    calls: Constructors = {
        ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent_object,
        ("torch.nn.modules.container", "ModuleDict"): lambda: _Node("ModuleDict", None),
        ("collections", "OrderedDict"): _empty,
        ("dnnlib", "EasyDict"): _empty,
        ("dnnlib.util", "EasyDict"): _empty,
        ("torch._utils", "_rebuild_parameter"): lambda tensor, requires_grad, hooks: tensor,
        ("torch._utils", "_rebuild_parameter_with_state"): lambda tensor, requires_grad, hooks, state: tensor,
        ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
        ("torch.storage", "_load_from_bytes"): lambda blob: load_storage(blob, budget),
        ("numpy", "dtype"): _numpy_type,
        ("numpy.core.multiarray", "scalar"): _numpy_scalar,
        ("numpy._core.multiarray", "scalar"): _numpy_scalar,
        ("numpy.core.multiarray", "_reconstruct"): _numpy_array,
        ("numpy._core.multiarray", "_reconstruct"): _numpy_array,
    }
    return Machine(data, calls, names=frozenset({_NDARRAY}), build=_set_state, budget=budget)


_NDARRAY = ("numpy", "ndarray")


def _numpy_array(kind: Any, shape: Any, code: Any) -> _NumpyArray:
    if type(kind) is not Symbol or kind.key != _NDARRAY:
        raise Malformed("a NumPy array of another class")
    return _NumpyArray()


def _empty() -> dict[str, Any]:
    return {}


def _persistent_object(meta: Any) -> _Node:
    if type(meta) is not dict or meta.get("type") != "class" or type(meta.get("state")) is not dict:
        raise Malformed("an object without a class and state")
    name, source = meta.get("class_name"), meta.get("module_src")
    if type(name) is not str or name not in CLASSES or type(source) is not str:
        raise Malformed(f"class {_shown(name)} is not known")
    return _Node(name, meta["state"], source)


def _set_state(target: Any, state: Any) -> None:
    if type(target) is _Node and target.state is None and type(state) is dict:
        target.state = state
    elif type(target) is _NumpyArray and target.state is None and type(state) is tuple:
        target.state = state
    elif type(target) is _NumpyType and type(state) is tuple and len(state) >= 2 and state[1] in ("<", "=", "|"):
        target.order = state[1]
    else:
        raise Malformed("state is handed to what takes none")


def _numpy_type(code: Any, align: Any = False, copy: Any = False) -> _NumpyType:
    if type(code) is not str or code not in ("f2", "f4", "f8", "i4", "i8", "b1"):
        raise Malformed(f"NumPy type {_shown(code)} is not known")
    return _NumpyType(code)


def _numpy_scalar(kind: Any, data: Any) -> float | int | bool:
    if type(kind) is not _NumpyType or type(data) is not memoryview or len(data) != int(kind.code[1]):
        raise Malformed("a NumPy scalar of the wrong size")
    return struct.unpack({"f2": "<e", "f4": "<f", "f8": "<d", "i4": "<i", "i8": "<q", "b1": "<?"}[kind.code], data)[0]


# What is taken from it
# ---------------------------------------------------------------------------------------------------


def _collect(node: _Node, prefix: str, tensors: dict[str, TensorView], seen: set[int], depth: int = 0) -> None:
    """Parameters and buffers of a module and the modules in it, under their dotted names."""
    if id(node) in seen or depth > 16:
        raise Malformed(f"module {prefix or 'ema'} holds itself or appears twice")
    seen.add(id(node))
    state = node.state if node.state is not None else {}
    for group in ("_parameters", "_buffers"):
        for name, tensor in _group(state, group, prefix).items():
            if tensor is None:
                continue
            if type(tensor) is not TensorView or f"{prefix}{name}" in tensors:
                raise Malformed(f"{prefix}{name} is not one tensor")
            tensors[f"{prefix}{name}"] = tensor
    for name, child in _group(state, "_modules", prefix).items():
        if child is None:
            continue
        if type(child) is not _Node:
            raise Malformed(f"{prefix}{name} is not a module")
        _collect(child, f"{prefix}{name}.", tensors, seen, depth + 1)


def _group(state: dict[str, Any], group: str, prefix: str) -> dict[str, Any]:
    entries = state.get(group)
    if type(entries) is not dict or not all(type(name) is str and len(name) <= 200 for name in entries):
        raise Malformed(f"module {prefix or 'ema'} has no usable {group}")
    return entries


def _config(node: _Node) -> dict[str, Any]:
    """The constructor arguments of the network, held to those of the U-Net within."""
    modules = (node.state or {})["_modules"]
    if node.class_name == _EDM2:
        model = modules.get("unet")
        if type(model) is not _Node or model.class_name != _EDM2_NETWORK:
            raise Malformed(f"there is no {_EDM2_NETWORK} 'unet' in it")
        return {"precond": node.class_name, "kwargs": _arguments(node)}
    if node.class_name not in PRECONDITIONINGS:
        raise Malformed(f"'ema' is a {node.class_name}, must be one of {', '.join((*PRECONDITIONINGS, _EDM2))}")
    model = modules.get("model")
    if type(model) is not _Node or model.class_name not in _NETWORKS:
        raise Malformed(f"there is no {' or '.join(_NETWORKS)} 'model' in it")
    kwargs = _arguments(node)
    inner = _arguments(model)
    if kwargs.setdefault("model_type", model.class_name) != model.class_name:
        raise Malformed(f"its model_type is {_shown(kwargs['model_type'])}, its network a {model.class_name}")
    for name, value in kwargs.items():
        if name in inner and inner[name] != value:
            raise Malformed(f"{_shown(name)} is {_shown(value)} outside and {_shown(inner[name])} in the network")
    return {"precond": node.class_name, "kwargs": kwargs}


def _arguments(node: _Node) -> dict[str, Any]:
    state = node.state or {}
    given = state.get("_init_kwargs")
    positional = state.get("_init_args", ())
    if type(given) is not dict or type(positional) not in (tuple, list) or positional:
        raise Malformed(f"the {node.class_name} has no usable constructor arguments (_init_kwargs)")
    return {name: _plain(name, value) for name, value in given.items()}


def _plain(name: Any, value: Any) -> Any:
    """A number, a text, or a list of such."""
    if type(name) is not str:
        raise Malformed(f"an option is called {_shown(name)}")
    if type(value) in (list, tuple) and len(value) <= 1024:
        return [_scalar(name, entry) for entry in value]
    return _scalar(name, value)


def _scalar(name: str, value: Any) -> Any:
    if type(value) not in (bool, int, float, str, type(None)):
        raise Malformed(f"option {_shown(name)} is a {type(value).__name__}")
    return value


def _shown(value: Any) -> str:
    """A value from the file in few characters; containers by their type, for they may hold themselves."""
    if type(value) in (bool, int, float, str, type(None)):
        return repr(value)[:80]
    return type(value).__name__
