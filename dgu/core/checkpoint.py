"""Checkpoints of a training run (Orbax), and networks as single safe files (npz)."""

import contextlib
import errno
import io
import json
import logging
import math
import mmap
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dgu.core.errors import InputError, one_line
from dgu.core.files import write_arrays, write_atomic
from dgu.core.reading import (
    MAX_HEADER,
    RAISE_LIMIT,
    array_names,
    byte_limit,
    expect,
    guarded,
    read_header,
    read_json,
    read_member,
    stored_bytes,
)
from dgu.core.typing import PyTree

#: Name of the file with the checksums of a step's files.
_CHECKSUMS = "checksums.json"
#: Room that a step takes beside its arrays (bytes).
_SLACK = 2**17
_WHOLE, _ADVICE = "a whole checkpoint", "remove this folder to go on from the step before it, or else from the start"
#: Bytes that the metadata of a network file may take, as text of four bytes a character.
MAX_METADATA = 2**24
#: Given a file's metadata and the names of its arrays: the arrays to read, each with the number of entries expected.
Choose = Callable[[dict[str, Any], Collection[str]], Mapping[str, int]]
#: Bytes that an array may take beyond the entries expected, so that a line about its shape can be written.
_ROOM = 2**16


class TrainingCheckpoints:
    """The newest states of a run under ``directory``: numbered steps, each written under a temporary name and renamed.

    With every step checksums of its files are stored, compared when the directory is opened, and ``about``, compared
    when the step is loaded (steps that early versions wrote have neither).

    Args:
        directory: where the steps live; made when absent.
        keep: how many of the newest steps to keep.
        about: what the states are computed from, of JSON's types; None compares nothing.

    Raises:
        InputError: the directory cannot be made or read, or the newest step in it is damaged.
    """

    def __init__(self, directory: str | os.PathLike[str], keep: int = 2, about: Mapping[str, Any] | None = None):
        # It takes long to load, for nothing where only the file of a network is read.
        from orbax.checkpoint import v1 as ocp

        # Orbax logs every phase of every save at level INFO, some at WARNING, and tracebacks of what it raises anyway.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        self._directory = Path(directory).resolve()
        self._about = None if about is None else json.loads(json.dumps(about, allow_nan=False))
        if os.path.lexists(directory) and not os.path.isdir(directory):
            raise InputError(f"{directory}: is no folder; must be a directory of checkpoints, or new (remove it)")
        # Before Orbax looks at it: what it cannot read leaves its threads complaining on their own.
        _check_newest(self._directory)
        with guarded(self._directory, "a directory of checkpoints that can be written to"):
            self._checkpointer = ocp.training.Checkpointer(
                self._directory,
                preservation_policy=ocp.training.preservation_policies.LatestN(keep),
                cleanup_tmp_directories=True,
            )

    def latest_step(self) -> int | None:
        """The newest complete step, or None."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def save(self, step: int, state: PyTree) -> None:
        """Write ``state`` as number ``step``; all processes of a multi-host run call this.

        Raises:
            InputError: it cannot be written, for the disk is full or the directory was removed.
        """
        if step == self.latest_step():
            return
        try:
            if not self._directory.is_dir():  # Orbax would make it anew, without what else belongs to the run.
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            # Asked beforehand, for a disk that fills up meanwhile leaves Orbax's threads complaining on their own.
            if shutil.disk_usage(self._directory).free < sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + _SLACK:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._checkpointer.save(step, state, force=True, custom_metadata={"about": self._about})
            folder = self._directory / str(step)
            if jax.process_index() == 0:
                sums = json.dumps(_checksums(folder), sort_keys=True, indent=1).encode()
                write_atomic(folder / _CHECKSUMS, lambda file: file.write(sums))
        except Exception as error:  # Of the file system as well as of what writes to it.
            reason = (isinstance(error, OSError) and error.strerror) or one_line(error)
            raise InputError(f"checkpoint {self._directory / str(step)}: cannot be written ({reason})") from error

    def load(self, like: PyTree) -> PyTree:
        """The newest state, with the structure, shapes and dtypes of ``like``.

        Raises:
            InputError: there is none, it belongs to another network or training, or cannot be read.
        """
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
        if self.latest_step() is None:
            raise InputError(f"checkpoint {self._checkpointer.directory}: must hold a step, but there is none")
        path = self._directory / str(self.latest_step())
        with guarded(f"checkpoint {path}", _WHOLE, advice=_ADVICE):
            metadata = self._checkpointer.metadata()
            stored, wanted = _described(metadata.metadata), _described(abstract)
            about = (metadata.custom_metadata or {}).get("about")
        for name in sorted(stored.keys() | wanted.keys()):
            there, here = stored.get(name, "absent"), wanted.get(name, "absent")
            if there != here:
                found = f"{name} is {there} there and {here} here"
                raise InputError(f"checkpoint {self._checkpointer.directory}: not of this network ({found})")
        if self._about is not None and about is not None:
            _refuse_difference(path, about, self._about)
        with guarded(f"checkpoint {path}", _WHOLE, advice=_ADVICE):
            return self._checkpointer.load(abstract_state=abstract)

    def close(self) -> None:
        """Wait for what is being written."""
        self._checkpointer.close()

    def __enter__(self) -> "TrainingCheckpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # What could not be written is raised once.
        with contextlib.nullcontext() if kind is None else contextlib.suppress(Exception):
            self.close()


def _described(tree: PyTree) -> dict[str, str]:
    """Dtype and shape of each leaf, by its path."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda node: hasattr(node, "shape"))
    return {
        ".".join(str(getattr(key, "key", getattr(key, "name", key))) for key in path): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in leaves
    }


def _checksums(folder: Path) -> dict[str, list[int]]:
    """Size and CRC-32 of each file of a step, by its name in the folder."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != _CHECKSUMS]
    return {str(file.relative_to(folder)): _checksum(file) for file in files}


def _checksum(file: Path) -> list[int]:
    size = checksum = 0
    with open(file, "rb") as stream:
        while part := stream.read(1 << 24):
            size, checksum = size + len(part), zlib.crc32(part, checksum)
    return [size, checksum]


def _check_newest(directory: Path) -> None:
    """Raise an ``InputError`` unless the files of the newest step are as they were written. (A kill may have come while
    an older one was being deleted.)"""
    steps = [entry for entry in directory.glob("*") if entry.name.isdecimal()]
    folder = max(steps, key=lambda entry: int(entry.name), default=directory)
    if not (folder / _CHECKSUMS).exists():
        return
    with guarded(f"checkpoint {folder}", _WHOLE, advice=_ADVICE):
        stored = read_json(folder / _CHECKSUMS, "checksums", advice=_ADVICE)
        bad = [
            name for name, sums in stored.items() if not (folder / name).is_file() or _checksum(folder / name) != sums
        ]
        if bad:
            raise InputError(f"checkpoint {folder}: {bad[0]} is damaged; must be {_WHOLE} ({_ADVICE})")


def _refuse_difference(path: Path, stored: Any, given: Any, name: str = "") -> None:
    """Raise an ``InputError`` that names the first entry in which two JSON values differ."""
    if isinstance(stored, dict) and isinstance(given, dict):
        for key in sorted(stored.keys() | given.keys()):
            _refuse_difference(path, stored.get(key), given.get(key), f"{name}.{key}" if name else key)
    elif stored != given:
        raise InputError(f"checkpoint {path}: of another training ({name} is {stored!r} there and {given!r} here)")


def save_arrays(
    path: str | os.PathLike[str],
    arrays: Mapping[str, np.ndarray],
    metadata: Mapping[str, Any],
    *,
    compress: bool = True,
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


def load_arrays(
    path: str | os.PathLike[str], choose: Choose | None = None
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and metadata as ``save_arrays`` wrote them; nothing in the file is executed.

    Arrays stored without compression are read-only views of the file, mapped into memory (their checksums are
    compared).

    Args:
        path: the file.
        choose: ``choose(metadata, names)``, called before any array is read, says which are, and how many entries each
            of them should have; a compressed one with more is refused before it is unpacked. By default all are read,
            up to ``byte_limit()`` together.

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
    data = stored_bytes(mapped, entry, source)
    # The header decides where the numbers begin; they stay where they are.
    head = io.BytesIO(data[: MAX_HEADER + 12])
    shape, fortran, dtype = read_header(head, len(data), f"{source}: {entry.filename}", len(data))
    if not math.prod(shape):
        return np.zeros(shape, dtype)
    return np.frombuffer(data, dtype, offset=head.tell()).reshape(shape, order="F" if fortran else "C")
