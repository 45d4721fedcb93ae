"""Writes pickles in the form of EDM snapshots, opcode by opcode: neither PyTorch nor the reference's classes are
needed.
"""

import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np

#: Configuration of the smallest snapshot: one level of 4 x 4 pixels, 4 channels, two classes.
TINY = {
    "precond": "EDMPrecond",
    "kwargs": {
        "img_resolution": 4, "img_channels": 1, "model_channels": 4, "channel_mult": [1], "num_blocks": 1, "label_dim": 2,
        "attn_resolutions": [], "model_type": "SongUNet", "channel_mult_emb": 1, "embedding_type": "fourier",
    },
}  # fmt: skip


@dataclass
class Global:
    module: str
    name: str


@dataclass
class Call:
    """A call of a global."""

    function: Global
    arguments: tuple
    new: bool = False  # NEWOBJ in the place of REDUCE


@dataclass
class Built:
    """An object and the state that BUILD hands to it."""

    target: Any
    state: Any


@dataclass
class Persistent:
    identifier: tuple


@dataclass
class Raw:
    """Opcodes as they are."""

    opcodes: bytes


def dumps(value, protocol=4, *, stop=b"."):
    """The pickle of ``value``; no frames, no memo."""
    return b"\x80" + bytes([protocol]) + _opcodes(value, protocol) + stop


def _opcodes(value, protocol):
    def go(item):
        return _opcodes(item, protocol)

    match value:
        case Raw():
            return value.opcodes
        case Global():
            if protocol < 4:
                return f"c{value.module}\n{value.name}\n".encode()
            return go(value.module) + go(value.name) + b"\x93"
        case Call():
            return go(value.function) + go(value.arguments) + (b"\x81" if value.new else b"R")
        case Built():
            return go(value.target) + go(value.state) + b"b"
        case Persistent():
            return go(value.identifier) + b"Q"
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int() if -(2**31) <= value < 2**31:
            return b"J" + struct.pack("<i", value)
        case int():
            size = value.bit_length() // 8 + 1
            return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            text = value.encode("utf-8", "surrogatepass")
            return b"X" + struct.pack("<I", len(text)) + text
        case bytes():
            return b"B" + struct.pack("<I", len(value)) + value
        case tuple():
            return b"(" + b"".join(map(go, value)) + b"t"
        case list():
            return b"](" + b"".join(map(go, value)) + b"e"
        case dict():
            return b"}(" + b"".join(go(k) + go(v) for k, v in value.items()) + b"u"
    raise TypeError(type(value))


STORAGES = {"f4": "Float", "f2": "Half", "f8": "Double", "i8": "Long", "u2": "BFloat16"}


def storage_blob(
    array, *, magic=0x1950A86A20F9469CFC6C, version=1001, little=True, device="cpu", numel=None, count=None, key="0"
):
    """PyTorch's legacy form of a storage; ``numel`` and ``count`` may lie."""
    kind = Global("torch", STORAGES[array.dtype.str[1:]] + "Storage")
    numel = array.size if numel is None else numel
    system = {"protocol_version": 1001, "little_endian": little, "type_sizes": {"int": 4}}
    parts = (magic, version, system, Persistent(("storage", kind, key, device, numel, None)), [key])
    head = b"".join(dumps(part, 2) for part in parts)
    return head + struct.pack("<q", array.size if count is None else count) + array.tobytes()


def storage(array, **lies):
    return Call(Global("torch.storage", "_load_from_bytes"), (storage_blob(array, **lies),))


def tensor(array, *, offset=0, size=None, stride=None, of=None):
    """A tensor of its own storage, or of the given one."""
    array = np.asarray(array, order="C")
    size = array.shape if size is None else size
    stride = tuple(s // array.itemsize for s in array.strides) if stride is None else stride
    rebuild = Global("torch._utils", "_rebuild_tensor_v2")
    empty = Call(Global("collections", "OrderedDict"), ())
    return Call(rebuild, (storage(array) if of is None else of, offset, size, stride, False, empty))


def parameter(value):
    empty = Call(Global("collections", "OrderedDict"), ())
    return Call(Global("torch._utils", "_rebuild_parameter"), (value, False, empty))


def module(class_name, state, *, source="raise SystemExit", kind="class"):
    meta = {"type": kind, "version": 6, "module_src": source, "class_name": class_name, "state": state}
    return Call(Global("torch_utils.persistence", "_reconstruct_persistent_obj"), (meta,))


@dataclass
class Tree:
    """A module in the making: its tensors, and the modules in it."""

    tensors: dict = field(default_factory=dict)
    modules: dict = field(default_factory=dict)
    extra: dict = field(default_factory=dict)

    def state(self, make=lambda name, array: parameter(tensor(array)), prefix=""):
        buffers = ("resample_filter", "freqs", "u")
        return {
            "training": False,
            "_parameters": {n: make(prefix + n, a) for n, a in self.tensors.items() if n not in buffers}
            | {"none": None},
            "_buffers": {n: tensor(a) for n, a in self.tensors.items() if n in buffers},
            "_modules": {n: child.write(n, make, f"{prefix}{n}.") for n, child in self.modules.items()},
            "map_nothing": None,
            **self.extra,
        }

    def write(self, name, make, prefix):
        if name in ("enc", "dec"):
            container = Call(Global("torch.nn.modules.container", "ModuleDict"), (), new=True)
            return Built(container, self.state(make, prefix))
        class_name = self.extra.get(
            "class_name", "Conv2d" if "conv" in name else "UNetBlock" if "x" in name else "Linear"
        )
        return module(class_name, self.state(make, prefix))


def root(config, arrays):
    """The tree of a network."""
    top = Tree()
    for name, array in arrays.items():
        *path, leaf = name.split(".")
        node = top
        for part in path:
            node = node.modules.setdefault(part, Tree())
        node.tensors[leaf] = array
    kwargs = dict(config["kwargs"])
    usual = {"VPPrecond": "SongUNet", "VEPrecond": "SongUNet", "Precond": "UNet"}.get(config["precond"], "DhariwalUNet")
    top.extra = {"_init_args": (), "_init_kwargs": kwargs, "skip_scale": numpy_scalar(0.5)}
    inner = {name: value for name, value in kwargs.items() if name in ("img_resolution", "label_dim", "model_channels")}
    top.modules["unet" if usual == "UNet" else "model"].extra = {
        "class_name": kwargs.get("model_type", usual), "_init_args": (), "_init_kwargs": inner,
    }  # fmt: skip
    return top


def numpy_scalar(value):
    kind = Built(Call(Global("numpy", "dtype"), ("f8", False, True)), (3, "<", None, None, None, -1, -1, 0))
    return Call(Global("numpy.core.multiarray", "scalar"), (kind, struct.pack("<d", value)))


def snapshot(config, arrays, *, make=None, change=None, **dump):
    """The file: ``change`` may alter the tree, ``make(name, array)`` writes a parameter in another way."""
    top = root(config, arrays)
    if change is not None:
        change(top)
    state = top.state() if make is None else top.state(make)
    return dumps(
        {"ema": module(config["precond"], state), "loss_fn": None, "dataset_kwargs": {"path": "x.zip"}}, **dump
    )
