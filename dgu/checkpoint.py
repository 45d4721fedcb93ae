"""Checkpoints of a training run (Orbax), and networks as single safe files (npz)."""

import io
import json
import logging
import math
import mmap
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from dgu.errors import InputError
from dgu.files import write_arrays, write_atomic
from dgu.typing import PyTree

#: More than NumPy allows the header of an array to take.
_MAX_HEADER = 1 << 14


class TrainingCheckpoints:
    """The newest states of a run under ``directory``: numbered steps, each written under a temporary name and renamed.

    Args:
        directory: where the steps live; made when absent.
        keep: how many of the newest steps to keep.
    """

    def __init__(self, directory: str | os.PathLike, keep: int = 2):
        # Orbax logs every phase of every save at level INFO and some at WARNING.
        logging.getLogger("absl").setLevel(logging.ERROR)
        self._checkpointer = ocp.training.Checkpointer(
            Path(directory).resolve(),
            preservation_policy=ocp.training.preservation_policies.LatestN(keep),
            cleanup_tmp_directories=True,
        )

    def latest_step(self) -> int | None:
        """The newest complete step, or None."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def save(self, step: int, state: PyTree) -> None:
        """Write ``state`` as number ``step``; all processes of a multi-host run call this."""
        if step != self.latest_step():
            self._checkpointer.save(step, state, force=True)

    def load(self, like: PyTree) -> PyTree:
        """The newest state, with the structure, shapes and dtypes of ``like``.

        Raises:
            InputError: there is none, or it belongs to another network.
        """
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
        if self.latest_step() is None:
            raise InputError(f"checkpoint {self._checkpointer.directory}: must hold a step, but there is none")
        # Compared here, for a load that fails leaves Orbax's threads complaining on their own.
        stored, wanted = _described(self._checkpointer.metadata().metadata), _described(abstract)
        for name in sorted(stored.keys() | wanted.keys()):
            there, here = stored.get(name, "absent"), wanted.get(name, "absent")
            if there != here:
                found = f"{name} is {there} there and {here} here"
                raise InputError(f"checkpoint {self._checkpointer.directory}: not of this network ({found})")
        return self._checkpointer.load(abstract_state=abstract)

    def close(self) -> None:
        """Wait for what is being written."""
        self._checkpointer.close()

    def __enter__(self) -> "TrainingCheckpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _described(tree: PyTree) -> dict[str, str]:
    """Dtype and shape of each leaf, by its path."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda node: hasattr(node, "shape"))
    return {
        ".".join(str(getattr(key, "key", getattr(key, "name", key))) for key in path): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in leaves
    }


def save_arrays(
    path: str | os.PathLike, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any], *, compress: bool = True
) -> None:
    """Write arrays and JSON metadata as one ``.npz``, whole or not at all; folders are made.

    The bytes depend on the contents alone (entries carry no time stamp). Without ``compress`` the file is larger and
    ``load_arrays`` maps it into memory instead of reading it.

    Raises:
        InputError: the folder cannot be written to.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(metadata, sort_keys=True, allow_nan=False)
    write_atomic(path, lambda file: write_arrays(file, {**arrays, "metadata": np.asarray(text)}, compress=compress))


def load_arrays(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and metadata as ``save_arrays`` wrote them; nothing in the file is executed.

    Arrays stored without compression are read-only views of the file, mapped into memory (their checksums are compared).

    Raises:
        InputError: no such file, not an npz, or without readable metadata.
    """
    try:
        # Opened here, for np.load leaves a file that is no archive open.
        with open(path, "rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("a single array")
            mapped = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
            arrays = {}
            for entry in file.zip.infolist():  # type: ignore[union-attr]
                name, stored = entry.filename.removesuffix(".npy"), entry.compress_type == zipfile.ZIP_STORED
                arrays[name] = _stored_array(mapped, entry) if stored else file[name]
        metadata = json.loads(arrays.pop("metadata").item())
    except (OSError, ValueError, KeyError, EOFError, TypeError, struct.error, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"checkpoint {os.fspath(path)}: not a network file written by dgu ({reason})") from error
    if not isinstance(metadata, dict):
        raise InputError(f"checkpoint {os.fspath(path)}: not a network file written by dgu (metadata)")
    return arrays, metadata


def _stored_array(mapped: memoryview, entry: zipfile.ZipInfo) -> np.ndarray:
    """A member of an npz that is not compressed, as a view of the file's bytes."""
    # The directory at the end of the archive says where a member's own header is; that says how long its two texts are.
    at = entry.header_offset
    name_length, extra_length = struct.unpack("<HH", mapped[at + 26 : at + 30])
    start = at + 30 + name_length + extra_length
    data = mapped[start : start + entry.file_size]
    if len(data) != entry.file_size or zlib.crc32(data) != entry.CRC:
        raise ValueError(f"{entry.filename} is damaged")
    head = io.BytesIO(data[:_MAX_HEADER])
    version = np.lib.format.read_magic(head)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
    shape, fortran, dtype = read(head)
    if dtype.hasobject or dtype.itemsize * math.prod(shape) != len(data) - head.tell():
        raise ValueError(f"{entry.filename} is not an array of plain numbers")
    if not math.prod(shape):
        return np.zeros(shape, dtype)
    return np.frombuffer(data, dtype, offset=head.tell()).reshape(shape, order="F" if fortran else "C")
