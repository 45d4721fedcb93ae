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
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from dgu.errors import InputError
from dgu.files import write_arrays, write_atomic
from dgu.reading import MAX_HEADER, RAISE_LIMIT, array_names, byte_limit, expect, guarded, read_header, read_member
from dgu.typing import PyTree

#: Bytes that the metadata of a network file may take, as text of four bytes a character.
MAX_METADATA = 2**24
#: Given a file's metadata and the names of its arrays: the arrays to read, each with the number of entries expected.
Choose = Callable[[dict[str, Any], Collection[str]], Mapping[str, int]]
#: Bytes that an array may take beyond the entries expected, so that a line about its shape can be written.
_ROOM = 2**16


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


def load_arrays(path: str | os.PathLike, choose: Choose | None = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and metadata as ``save_arrays`` wrote them; nothing in the file is executed.

    Arrays stored without compression are read-only views of the file, mapped into memory (their checksums are compared).

    Args:
        path: the file.
        choose: ``choose(metadata, names)``, called before any array is read, says which are, and how many entries each of
            them should have; a compressed one with more is refused before it is unpacked. By default all are read, up
            to ``byte_limit()`` together.

    Raises:
        InputError: no such file, not an npz, or without readable metadata; arrays that are too large; what ``choose``
            raises.
    """
    wrong = f"checkpoint {os.fspath(path)}: not a network file written by dgu"
    allowed = "an npz file that dgu.models.save_network wrote"
    with guarded(wrong, allowed):
        expect(path, ("npz", "zip"), allowed, source=wrong)
        with open(path, "rb") as stream, zipfile.ZipFile(stream) as archive:
            names = set(array_names(archive))
            metadata = json.loads(read_member(archive, "metadata", wrong, MAX_METADATA).item())
            if not isinstance(metadata, dict):
                raise InputError(f"{wrong} (metadata)")
            mapped = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
            chosen = None if choose is None else choose(metadata, names - {"metadata"})
            left = byte_limit()
            arrays = {}
            for name in sorted(names - {"metadata"} if chosen is None else chosen):
                entry = archive.getinfo(f"{name}.npy")
                if entry.compress_type == zipfile.ZIP_STORED:
                    arrays[name] = _stored_array(mapped, entry, wrong)
                    continue
                most, advice = (left, RAISE_LIMIT) if chosen is None else (8 * chosen[name] + _ROOM, "")
                arrays[name] = read_member(archive, name, wrong, most, advice)
                left -= arrays[name].nbytes
    return arrays, metadata


def _stored_array(mapped: memoryview, entry: zipfile.ZipInfo, source: str) -> np.ndarray:
    """A member of an npz that is not compressed, as a view of the file's bytes."""
    # The directory at the end of the archive says where a member's own header is; that says how long its two texts are.
    at = entry.header_offset
    name_length, extra_length = struct.unpack("<HH", mapped[at + 26 : at + 30])
    start = at + 30 + name_length + extra_length
    data = mapped[start : start + entry.file_size]
    if len(data) != entry.file_size or zlib.crc32(data) != entry.CRC:
        raise InputError(f"{source} ({entry.filename} is damaged)")
    # The header decides where the numbers begin; they stay where they are.
    head = io.BytesIO(data[: MAX_HEADER + 12])
    shape, fortran, dtype = read_header(head, len(data), f"{source}: {entry.filename}", len(data))
    if not math.prod(shape):
        return np.zeros(shape, dtype)
    return np.frombuffer(data, dtype, offset=head.tell()).reshape(shape, order="F" if fortran else "C")
