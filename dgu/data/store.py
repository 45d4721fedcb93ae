"""The store of generated samples: by class and index, in shards, resumable after any interruption."""

import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Integer, Num

from dgu.core.arrays import as_floats
from dgu.core.errors import InputError, one_line, require
from dgu.core.files import TEMPORARY, remove_temporary, write_atomic
from dgu.core.reading import read_json
from dgu.data.shards import check_shard_size, open_shard, parse_shard_name, shard_name, write_shard

MANIFEST = "store.json"
#: What ``flock`` raises where the file system has no such locks (NFS: of a folder).
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF}

#: ``make(labels, indices) -> images``, all with one leading axis: sample number ``indices[j]`` of class ``labels[j]``.
Make = Callable[[np.ndarray, np.ndarray], Any]


@dataclass(frozen=True)
class SampleStore:
    """Samples ``0, 1, 2, ...`` of classes ``0, 1, 2, ...``, float32, in a folder of ``.npy`` shards.

    A shard holds the samples ``start <= index < stop`` of one class and is called
    ``class-LLLL_START-STOP.npy``. It is written under a temporary name, forced to disk and renamed, so the names
    present say exactly which samples exist: a run that was killed goes on with what is missing, and asking for more
    samples later adds shards and rewrites none. ``store.json`` holds the config that the samples were made with.

    A shard ends with a checksum, which is compared when a process first reads from it (one written by an early version
    has none); damaged shards and values that are not finite are refused.

    Open a store by ``SampleStore.open``.

    Attributes:
        path: the folder.
        shape: shape of one sample.
        shard_size: samples in a new shard at most; shards begin at its multiples. It may differ from run to run.
    """

    path: Path
    shape: tuple[int, ...]
    shard_size: int = 250

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], config: Mapping[str, Any], shape: tuple[int, ...], shard_size: int = 250
    ) -> "SampleStore":
        """The store at ``path``, made there if the folder is empty or absent.

        Args:
            path: folder of the store.
            config: whatever decides the samples (model, seed, grid, chunk size ...), of JSON's types; tuples count as
                lists. A store only opens with the config that it was made with.
            shape: shape of one sample.
            shard_size: samples per shard, for what is written from now on.

        Raises:
            InputError: the store was made with another config or shape (the first differing entry is named), the
                folder holds something else, cannot be written to, or holds a shard of the wrong size; ``config`` is
                not JSON; ``shard_size`` or a length in ``shape`` is below 1. Nothing stored is touched then.
        """
        folder = Path(path)
        require(shard_size >= 1, "shard_size", shard_size, "1 or more")
        require(all(length >= 1 for length in shape), "shape", shape, "lengths of 1 or more")
        try:
            wanted = json.loads(json.dumps({"config": dict(config), "shape": list(shape)}, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise InputError(
                f"config: {one_line(error)}; must hold only what JSON can hold (finite numbers)"
            ) from error
        store = cls(folder, tuple(shape), shard_size)
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder}: is a file; must be a folder")
        if (folder / MANIFEST).is_file():
            _refuse_difference(folder, _read_manifest(folder), wanted)
            store.shards()
            return store
        others = os.listdir(folder) if folder.is_dir() else []
        if MANIFEST in others:  # Another process has just made it.
            return cls.open(path, config, shape, shard_size)
        if any(not name.endswith(TEMPORARY) for name in others):
            raise InputError(f"{folder}: holds files but no {MANIFEST}; must be an empty or new folder, or a store")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: cannot be made ({error.strerror}); must be in a writable folder") from error
        text = json.dumps(wanted, sort_keys=True, indent=1) + "\n"
        with _alone(folder):  # Of two processes with different configs one makes it, and the other is refused.
            if not (folder / MANIFEST).is_file():
                write_atomic(folder / MANIFEST, lambda file: file.write(text.encode()))
                return store
        return cls.open(path, config, shape, shard_size)

    @classmethod
    def existing(cls, path: str | os.PathLike[str]) -> "SampleStore":
        """The store at ``path`` as it was made, whatever its config: for reading.

        Raises:
            InputError: there is no store.
        """
        manifest = _read_manifest(Path(path))
        return cls.open(path, manifest["config"], tuple(manifest["shape"]))

    def shards(self) -> dict[int, list[tuple[int, int]]]:
        """Class -> sorted ranges ``(start, stop)`` of the shards present.

        Raises:
            InputError: a shard has not the size that its name says, or two shards overlap.
        """
        present: dict[int, list[tuple[int, int]]] = {}
        for name in os.listdir(self.path):
            place = parse_shard_name(name)
            if place is None:
                continue
            label, start, stop = place
            check_shard_size(self.path / name, (stop - start, *self.shape))
            present.setdefault(label, []).append((start, stop))
        for label, ranges in present.items():
            ranges.sort()
            for (_, before), (start, stop) in pairwise(ranges):
                if start < before:
                    path = self._shard(label, start, stop)
                    raise InputError(f"{path}: overlaps the shard before it; must not (delete one of them)")
        return present

    def missing(self, label: int, count: int) -> list[tuple[int, int]]:
        """Ranges ``(start, stop)`` that the first ``count`` samples of a class still lack, cut at the shard grid."""
        return self._gaps(self.shards().get(label, []), label, count)

    def _gaps(self, present: list[tuple[int, int]], label: int, count: int) -> list[tuple[int, int]]:
        require(label >= 0, "label", label, "0 or more")
        require(count >= 0, "count", count, "0 or more")
        gaps, at = [], 0
        for start, stop in [*present, (count, count)]:
            end = min(start, count)
            while at < end:
                cut = min(end, (at // self.shard_size + 1) * self.shard_size)
                gaps.append((at, cut))
                at = cut
            at = stop
        return gaps

    def write(self, label: int, start: int, images: Num[np.ndarray, " n *event"]) -> None:
        """Store samples ``start, start + 1, ...`` of a class as one shard.

        Raises:
            InputError: a shape other than the store's, non-finite values (class and index are named), samples that
                are stored already, or a folder that cannot be written to.
        """
        require(label >= 0, "label", label, "0 or more")
        require(start >= 0, "start", start, "0 or more")
        images = as_floats("images", images)
        stop = start + len(images)
        for other_start, other_stop in self.shards().get(label, []):
            if start < other_stop and other_start < stop:
                overlap = f"samples {max(start, other_start)} to {min(stop, other_stop) - 1} of class {label}"
                raise InputError(f"start = {start}: {overlap} are in {self.path} already; must be new ones")
        self._write_shard(label, start, images)

    def _write_shard(self, label: int, start: int, images: np.ndarray) -> None:
        shape = images.shape[1:]
        require(shape == self.shape, "shape of a sample", shape, f"{self.shape}, as in {self.path}")
        require(len(images) >= 1, "number of samples", len(images), "1 or more")
        images = np.ascontiguousarray(images, np.float32)
        finite = np.isfinite(images.reshape(len(images), -1)).all(axis=1)
        if not finite.all():
            index = start + int(np.argmin(finite))
            raise InputError(f"sample {index} of class {label} holds NaN or infinite values; all must be finite")
        write_shard(self._shard(label, start, start + len(images)), images)

    def read(self, label: int, which: int | Integer[np.ndarray, " n"]) -> Float[np.ndarray, " n *event"]:
        """Samples of a class, float32: the first ``which``, or those with the indices ``which``, in that order.

        The first time a process reads from a shard all of it is checked; later only the pages that hold the samples are
        read from disk.

        Raises:
            InputError: samples that are not stored (class and first such index are named), a shard that cannot be read,
                is damaged or holds NaN or infinite values.
        """
        indices = np.arange(which) if isinstance(which, int) else np.asarray(which)
        require(isinstance(which, np.ndarray) or which >= 0, "which", which, "a count of 0 or more, or indices")
        ranges = self.shards().get(label, [])
        starts, stops = (np.asarray([pair[end] for pair in ranges], np.int64) for end in (0, 1))
        shard = np.searchsorted(starts, indices, side="right") - 1
        absent = (shard < 0) | (indices >= stops[shard]) if ranges else np.ones(len(indices), bool)
        if absent.any():
            index = int(indices[np.argmax(absent)])
            raise InputError(f"sample {index} of class {label} is not in {self.path}; must be made first")
        images = np.empty((len(indices), *self.shape), np.float32)
        for number in np.unique(shard):
            rows = shard == number
            start, stop = ranges[number]
            shard_images = open_shard(self._shard(label, start, stop), (stop - start, *self.shape))
            images[rows] = shard_images[indices[rows] - start]
        return images

    def read_equally(self) -> tuple[Float[np.ndarray, " n *event"], Int[np.ndarray, " n"]]:
        """Equally many samples of every class present, and their labels: class by class, from sample 0 on.

        As many of each as the class has that lacks a sample first.

        Raises:
            InputError: there are no samples, or a class lacks its sample 0; or what ``read`` refuses.
        """
        present = self.shards()
        require(len(present) > 0, f"{self.path}: samples", 0, "1 or more")
        labels = sorted(present)
        count = min(_without_gap(present[label]) for label in labels)
        require(count > 0, f"{self.path}: samples number 0 on of every class", count, "1 or more")
        images = np.concatenate([self.read(label, count) for label in labels])
        return images, np.repeat(np.asarray(labels, np.int32), count)

    def fill(
        self,
        make: Make,
        labels: Sequence[int],
        count: int,
        *,
        batch_size: int = 1,
        process: tuple[int, int] = (0, 1),
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Make whatever the first ``count`` samples of the classes ``labels`` lack, and store it shard by shard.

        Args:
            make: ``make(labels, indices) -> images``: int arrays (m,) to samples (m, *shape), NumPy or JAX; sample j is
                number ``indices[j]`` of class ``labels[j]`` and must depend on these two alone.
            labels: the classes.
            count: samples wanted of each.
            batch_size: whole shards are put together, across classes, until they are at least so many samples, and
                made by one call; by default each shard is one call. Give devices x chunk to keep many devices busy.
            process: ``(index, count)`` where ``count`` processes (on hosts that share the folder) fill the store
                together: this one makes the shards whose number on the shard grid leaves ``index`` over ``count``.
            progress: called as ``progress(done, total)``, in samples of this process stored, at the beginning and after
                each call.

        Returns:
            The number of samples made: 0 if all were there.

        Raises:
            InputError: another process is filling the store, or what ``write`` refuses. Shards stored before stay.
        """
        require(batch_size >= 1, "batch_size", batch_size, "1 or more")
        require(len(set(labels)) == len(labels), "labels", labels, "different classes")
        index, processes = process
        require(0 <= index < processes, "process", process, "(index, count) with 0 <= index < count")

        def mine(work: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
            per_class = -(-count // self.shard_size)
            return [
                (label, start, stop)
                for label, start, stop in work
                if (list(labels).index(label) * per_class + start // self.shard_size) % processes == index
            ]

        if not mine(self._work(labels, count)):
            return 0
        with self._lock("" if processes == 1 else f"-{index}-of-{processes}"):
            if processes == 1:  # Else it may be what another process is writing.
                remove_temporary(self.path)
            work = mine(self._work(labels, count))
            whole = [(k, s, min(s + self.shard_size, count)) for k in labels for s in range(0, count, self.shard_size)]
            total, made = sum(stop - start for _, start, stop in mine(whole)), 0
            done = total - sum(stop - start for _, start, stop in work)
            if progress is not None:
                progress(done, total)
            for batch in _batches(work, batch_size):
                sizes = [stop - start for _, start, stop in batch]
                which = np.repeat([label for label, _, _ in batch], sizes)
                images = np.asarray(make(which, np.concatenate([np.arange(start, stop) for _, start, stop in batch])))
                require(len(images) == sum(sizes), "number of samples made", len(images), f"{sum(sizes)}, as asked for")
                for (label, start, _), part in zip(batch, np.split(images, np.cumsum(sizes)[:-1])):
                    self._write_shard(label, start, part)
                made += sum(sizes)
                if progress is not None:
                    progress(done + made, total)
        return made

    def _work(self, labels: Sequence[int], count: int) -> list[tuple[int, int, int]]:
        """``(label, start, stop)`` of all shards to be made."""
        present = self.shards()
        return [(label, *gap) for label in labels for gap in self._gaps(present.get(label, []), label, count)]

    def _shard(self, label: int, start: int, stop: int) -> Path:
        return self.path / shard_name(label, start, stop)

    @contextmanager
    def _lock(self, part: str) -> Iterator[None]:
        """One filler of a part at a time. The kernel lifts the lock when a process ends, however it ends."""
        path = self.path / f".lock{part}"
        try:
            file = open(path, "ab")
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror}); must be in a writable folder") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(f"{self.path}: is being filled by another process; must be one at a time") from error
            except OSError as error:
                # Some network file systems have no locks: samples are right without, only two fillers are not refused.
                if error.errno not in _NO_LOCKS:
                    raise
            yield


def _without_gap(ranges: list[tuple[int, int]]) -> int:
    """How many samples from number 0 on the sorted ``ranges`` hold before the first that is missing."""
    count = 0
    for start, stop in ranges:
        if start > count:
            break
        count = stop
    return count


def _batches(work: list[tuple[int, int, int]], batch_size: int) -> Iterator[list[tuple[int, int, int]]]:
    """Whole shards ``(label, start, stop)`` together until they reach ``batch_size`` samples."""
    batch: list[tuple[int, int, int]] = []
    for shard in work:
        batch.append(shard)
        if sum(stop - start for _, start, stop in batch) >= batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait for the lock of a folder, where its file system has locks."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield
    finally:
        os.close(handle)


def _read_manifest(folder: Path) -> dict[str, Any]:
    path, allowed = folder / MANIFEST, "the manifest of a store"
    manifest = read_json(path, allowed)
    shape = manifest.get("shape") if isinstance(manifest, dict) else None
    lengths = isinstance(shape, list) and all(type(length) is int and 1 <= length < 2**31 for length in shape)
    if not lengths or not isinstance(manifest.get("config"), dict):
        raise InputError(f"{path}: holds no config and shape; must be {allowed}")
    return manifest


def _refuse_difference(folder: Path, stored: Any, wanted: Any, name: str = "") -> None:
    """Raise an ``InputError`` that names the first entry in which two JSON values differ."""
    if isinstance(stored, dict) and isinstance(wanted, dict):
        for key in sorted(stored.keys() | wanted.keys()):
            _refuse_difference(folder, stored.get(key), wanted.get(key), f"{name}.{key}" if name else key)
    elif stored != wanted or type(stored) is not type(wanted):
        short = [text if len(text) <= 80 else text[:77] + "..." for text in (repr(wanted), repr(stored))]
        raise InputError(
            f"{name} = {short[0]}: must be {short[1]}, with which {folder} was made, or use another folder"
        )
