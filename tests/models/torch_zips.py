"""Writes state dictionaries in the form of ``torch.save``'s zip archives; PyTorch is not needed."""

import io
import zipfile

import numpy as np

from tests.models.snapshots import STORAGES, Built, Call, Global, Persistent, dumps

ORDERED = Global("collections", "OrderedDict")


def tensor(key, array, *, location="cpu", numel=None, size=None, offset=0):
    """A tensor that is a view of the storage ``key``; what is said of it may lie."""
    kind = Global("torch", STORAGES[array.dtype.str[1:]] + "Storage")
    storage = Persistent(("storage", kind, str(key), location, array.size if numel is None else numel))
    strides = tuple(int(np.prod(array.shape[axis + 1 :])) for axis in range(array.ndim))
    arguments = (storage, offset, array.shape if size is None else size, strides, False, Call(ORDERED, ()))
    return Call(Global("torch._utils", "_rebuild_tensor_v2"), arguments)


def torch_zip(arrays, *, data=None, config=None, byteorder=b"little", kind=zipfile.ZIP_STORED, **lies):
    """The archive of a state dictionary, with a configuration where one is given, or of the pickle ``data``."""
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    entries = {name: tensor(key, array, **lies) for key, (name, array) in enumerate(arrays.items())}
    state = Built(entries, {"_metadata": {"": {"version": 1}}})
    whole = state if config is None else {"config": config, "state_dict": state}
    pickled = dumps(whole, 2) if data is None else data
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", byteorder)
        for key, array in enumerate(arrays.values()):
            archive.writestr(f"archive/data/{key}", array.tobytes())
        archive.writestr("archive/version", b"3\n")
    return buffer.getvalue()
