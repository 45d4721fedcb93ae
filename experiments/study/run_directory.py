"""The run directory: a killed run resumes from it, a finished one is read, and no other configuration mixes in."""

import contextlib
import dataclasses
import functools
import hashlib
import io
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from dgu.core.errors import InputError
from dgu.core.files import TEMPORARY, advice, remove_temporary, write_atomic
from dgu.core.locks import locked
from dgu.core.plain_json import json_bytes, plain
from dgu.core.reading import guarded, read_json
from dgu.core.stamped import read_stamped, write_stamped
from experiments.study.configuration import (
    GENERATOR,
    check_generator,
    check_same,
    config_to_json,
    options,
    other_options,
    read_config,
    stored_options,
)
from experiments.study.inputs import RECORD, Inputs, recording
from experiments.study.messages import note
from experiments.study.outputs import refuse_in_the_way, unusable
from experiments.study.processes import from_lead, is_lead

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Words that no key of ``metrics.json`` may hold, since a resumed run must give the same bytes.
_NOT_METRICS = {"seconds", "elapsed", "duration", "timestamp", "host"}
#: Dots an inch of figures as PNG.
DPI = 300
#: Files of a run, and of its store of samples, that hold nothing computed. A run that left no others stored nothing.
_PREPARED = {"config.json", RECORD, "store.json", ".lock"}
#: Bytes at the end of a report that hold its closing tag.
_END_OF_REPORT = 64
#: What the file of a stage must be.
_STAGE = "a whole stage of this run"
#: Folders that the studies make in a run's directory.
_FOLDERS = ("stages", "figures", "images", "samples", "checkpoints", "networks")


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """A directory that holds one run of one configuration. Make it with ``RunDirectory.hold``, or ``open`` where no
    other process can meet it.

    Where several processes run the experiment together they share the directory, and all but the lead write nothing.

    Every file is written under a temporary name (``*.tmp``), synchronised and renamed, so that what lies under its own
    name is whole; the bytes depend on the contents alone.

    Attributes:
        path: the directory.
        only_reports: nothing is measured: a stage that is not stored is refused.
    """

    path: Path
    only_reports: bool = False

    @classmethod
    @contextlib.contextmanager
    def hold(cls, out: str | os.PathLike[str], config: Any, *, only_reports: bool = False) -> Iterator["RunDirectory"]:
        """The directory ``out`` for ``config``, which belongs to this process inside (POSIX; released when the process
        ends, however it ends). What the run is given is noted inside, too (``experiments.study.inputs``).

        It is locked before anything in it is looked at, so that of two processes that start together with different
        options one has it and the other is refused. On file systems without locks there is no such protection. Of
        several processes that run together the lead holds it, and the others go on when it does.

        Raises:
            InputError: another process holds it, ``open`` refuses it, or a file that the run was given holds something
                else now. Nothing in it is touched then. Every process of a run raises what the lead does.
        """
        with contextlib.ExitStack() as stack:
            problem = ""
            try:
                if is_lead():
                    directory = cls._locked(stack, Path(out), config)
            except InputError as error:
                problem = str(error)
            problem = from_lead(problem)
            if problem:
                raise InputError(problem)
            if not is_lead():
                directory = cls.open(out, config)
            directory = dataclasses.replace(directory, only_reports=only_reports)
            with recording(directory.inputs):
                yield directory

    @classmethod
    def _locked(cls, stack: contextlib.ExitStack, out: Path, config: Any) -> "RunDirectory":
        """The directory, locked until the ``stack`` ends, without what a killed run was writing. One that was made here
        is removed again where it is refused.
        """
        try:
            new = stack.enter_context(locked(out))
        except BlockingIOError:
            used = f"is in use by another process{other_options(out / 'config.json', config)}"
            raise InputError(f"--out = {str(out)!r}: {used}; must be free (give --out another directory)") from None
        except OSError as error:
            raise unusable(out, error) from None
        try:
            directory = cls.open(out, config)
            directory.inputs.check()
        except InputError:
            if new:
                with contextlib.suppress(OSError):
                    os.rmdir(out)
            raise
        if os.access(out, os.W_OK):
            remove_temporary(out)
        return directory

    @classmethod
    def open(cls, out: str | os.PathLike[str], config: Any) -> "RunDirectory":
        """The directory ``out`` for ``config``, a dataclass; made (parents too) where there is none.

        Raises:
            InputError: ``out`` holds a run of another configuration (the first option that differs is named) that
                stored something, or of another random generator, holds other files, is no directory, or cannot be
                written to though the run is not finished. Nothing in it is touched then.
        """
        path, wanted = Path(out), config_to_json(config)
        stored = path / "config.json"
        directory = cls(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            if stored.exists():
                found = read_config(stored)
                check_generator(found, stored)
                there, given = stored_options(found, config), options(wanted)
                # A run that was killed before it stored anything refuses no other options.
                fresh = there.keys() == given.keys() and there != given and _nothing_stored(path)
                if not fresh:
                    check_same(there, given, stored)
            elif any(not entry.name.endswith(TEMPORARY) for entry in path.iterdir()):
                raise InputError(
                    f"--out = {str(out)!r}: must be new, empty, or a run's own directory (no config.json here)"
                )
            else:
                fresh = True
            # A finished run is only read, on a read-only disk, too.
            if not directory.finished and not os.access(path, os.W_OK | os.X_OK):
                raise PermissionError(13, "permission denied")
            if fresh and is_lead():
                directory.discard(remove=False)
                write_atomic(stored, lambda stream: stream.write(json_bytes(wanted | {"prng": GENERATOR})))
            if not directory.finished:
                for name in _FOLDERS:
                    refuse_in_the_way(path / name)
        except OSError as error:
            raise unusable(path, error) from None
        return directory

    @property
    def finished(self) -> bool:
        """Whether the run is done: its report is written after everything else but the claims.

        A report that does not end as one (emptied, cut off) counts as none, and is made again from what is stored.
        """
        try:
            with open(self.path / "report.html", "rb") as page:
                page.seek(max(0, page.seek(0, os.SEEK_END) - _END_OF_REPORT))
                return b"</html>" in page.read()
        except OSError:
            return False

    def discard(self, remove: bool) -> None:
        """Forget a run that stored nothing but its configuration; ``remove`` the directory, too."""
        if not is_lead() or not (self.path / "config.json").exists() or not _nothing_stored(self.path):
            return
        for folder, folders, files in os.walk(self.path, topdown=False):
            # Last the configuration: what a kill in between leaves is still a run's own directory.
            for name in sorted(files, key="config.json".__eq__):
                Path(folder, name).unlink()
            for name in folders:
                Path(folder, name).rmdir()
        if remove:
            self.path.rmdir()

    @functools.cached_property
    def inputs(self) -> Inputs:
        """What the run is given."""
        return Inputs(self.path / RECORD, lambda record: self.write_json(RECORD, record))

    def stage(
        self, name: str, compute: Callable[[], Mapping[str, Any]], *, allow_nonfinite: bool = False
    ) -> dict[str, np.ndarray]:
        """The arrays of the stage ``name``: read from ``stages/NAME.npz`` if they are there, else computed and stored.

        The file says which configuration and inputs it was computed from.

        Args:
            name: name of the stage, of letters, digits, ``.``, ``_`` and ``-``; ``/`` makes folders.
            compute: makes the arrays (or scalars), by name. Called only when the stage is not stored yet.
            allow_nonfinite: store NaN and infinities; an error that names the array otherwise.

        Returns:
            The stored arrays, the same on the run that computed them as on any later one; a scalar is a 0-d array.

        Raises:
            InputError: what is stored is damaged, or was computed from something else.
        """
        file = self._file(f"stages/{name}.npz")
        if not file.exists():
            if self.only_reports:
                raise InputError(
                    f"{file}: is missing; must be there for --report-only (without it the stage is made again)"
                )
            refuse_in_the_way(file.parent)  # Before the work, not after it.
            started = time.perf_counter()
            arrays = {key: _plain_array(name, key, value, allow_nonfinite) for key, value in compute().items()}
            if not is_lead():
                return arrays
            stamp = {"stage": name, "config": self._config_sha256, "inputs": self.inputs.used}
            self._write(file, lambda stream: write_stamped(stream, arrays, stamp))
            taken = time.perf_counter() - started
            note(f"stored the stage {name}, {taken:.1f} s")
            self.write_json("timings.json", self.timings() | {name: round(taken, 3)})
        try:
            with guarded(file, _STAGE):
                return self._read_stage(name, file)
        except InputError as error:
            raise InputError(f"{error} (remove it to compute again)") from error

    def stored(self, name: str) -> dict[str, np.ndarray]:
        """The arrays of the stage ``name``; none where it is not stored."""
        file = self._file(f"stages/{name}.npz")
        return self._read_stage(name, file) if file.exists() else {}

    def _read_stage(self, name: str, file: Path) -> dict[str, np.ndarray]:
        arrays, stamp = read_stamped(file, _STAGE)
        if stamp["stage"] != name:
            raise InputError(f"{file}: is the stage {stamp['stage']!r}; must be {name!r} of this run")
        if stamp["config"] != self._config_sha256:
            raise InputError(f"{file}: was computed with other options; must be a stage of this run")
        for shown, content in stamp["inputs"].items():
            if self.inputs.differs(shown, content):
                raise InputError(f"{file}: was computed from another {shown}; must be a stage of this run")
            self.inputs.used[shown] = content
        return arrays

    @functools.cached_property
    def _config_sha256(self) -> str:
        self.check_there()
        return hashlib.sha256((self.path / "config.json").read_bytes()).hexdigest()

    def write_json(self, name: str, data: Any) -> None:
        """Write ``data`` as JSON: sorted keys, floats in full (their ``repr``), NumPy values as plain ones.

        ``metrics.json`` may hold neither times nor paths. ``ValueError`` for those and for NaN or infinities.
        """
        value = plain(data, name)
        if name == "metrics.json":
            _check_metrics(value, name)
        self._write(self._file(name), lambda stream: stream.write(json_bytes(value)))

    def read_json(self, name: str) -> Any:
        """The contents of a JSON file of this directory, or None where it is missing.

        Raises:
            InputError: it cannot be read.
        """
        file = self._file(name)
        if not file.exists():
            return None
        return read_json(file, "whole, as the run wrote it", advice="remove it to make it again")

    def write_text(self, name: str, text: str) -> None:
        """Write a text file (UTF-8; what a file name may have that is no UTF-8 is escaped, as JSON does it)."""
        self._write(self._file(name), lambda stream: stream.write(text.encode(errors="backslashreplace")))

    def save_figure(self, name: str, figure: "Figure") -> None:
        """Write a figure as PNG under ``name``, such as ``"figures/samples.png"``, in the resolution that journals ask
        for, and as PDF beside it, for papers.
        """
        figure.set_dpi(DPI)  # For the layout: in another resolution texts are a little wider or narrower.
        if (layout := figure.get_layout_engine()) is not None:
            # Laid out here, since otherwise it would be drawn a first time for its layout alone.
            layout.execute(figure)
            figure.set_layout_engine(None)
        # Without what would differ from run to run.
        for ending, metadata in ((".png", {"Software": None}), (".pdf", {"CreationDate": None, "Producer": None})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=ending[1:], metadata=metadata, dpi=DPI)
            file = self._file(name).with_suffix(ending)
            self._write(file, functools.partial(_copy, buffer))

    def timings(self) -> dict[str, float]:
        """Seconds that each stage took when it was computed, from ``timings.json``; of a damaged file nothing."""
        try:
            found = self.read_json("timings.json")
        except InputError:
            found = None
        times = found.items() if isinstance(found, dict) else ()
        return {name: time for name, time in times if isinstance(time, int | float) and 0 <= time < math.inf}

    def _write(self, file: Path, write: Callable[[IO[bytes]], Any]) -> None:
        if not is_lead():
            return
        self.check_there()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            refuse_in_the_way(file.parent)
            raise InputError(f"{file.parent}: cannot be made ({error.strerror}); {advice(error)}") from error
        write_atomic(file, write)

    def check_there(self) -> None:
        """``InputError`` where the directory was removed: folders made anew would hold a part of a run, which no
        command takes.
        """
        if not (self.path / "config.json").exists():
            raise InputError(
                f"--out = {str(self.path)!r}: was removed while the run went on; must stay (start the run again)"
            )

    def _file(self, name: str) -> Path:
        if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)*", name):
            raise ValueError(f"name = {name!r}: must be a relative file name of letters, digits, '.', '_', '-' and '/'")
        return self.path / name


def _copy(buffer: io.BytesIO, stream: IO[bytes]) -> None:
    stream.write(buffer.getvalue())


def _nothing_stored(path: Path) -> bool:
    """Whether a directory holds nothing that took any work: its configuration, empty folders, rubbish of a kill."""
    files = [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
    return all(
        file.name in _PREPARED
        or file.name.endswith(TEMPORARY)
        or (file.name == "stats.jsonl" and not file.stat().st_size)
        for file in files
    )


def _plain_array(stage: str, key: str, value: Any, allow_nonfinite: bool) -> np.ndarray:
    array = np.asarray(value)
    if not re.fullmatch(r"\w[\w.-]*", key):
        raise ValueError(f"stage {stage!r}: array name {key!r} must be of letters, digits, '.', '_' and '-'")
    if array.dtype.kind not in "biufcU":
        raise ValueError(f"stage {stage!r}: {key} has dtype {array.dtype}: must be bool, int, float, complex or text")
    if array.dtype.kind in "fc" and not allow_nonfinite and not np.isfinite(array).all():
        first = np.argwhere(~np.isfinite(array))[0].tolist()
        raise ValueError(f"stage {stage!r}: {key}{first} is {array[tuple(first)]}: must be finite")
    return array


def _check_metrics(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for key, entry in value.items():
            if _NOT_METRICS & set(re.split(r"[^a-z]+", key.lower())):
                raise ValueError(
                    f"{where}: key {key!r} must not be in metrics.json: times and paths differ between runs"
                )
            _check_metrics(entry, f"{where}: {key}")
    elif isinstance(value, list):
        for entry in value:
            _check_metrics(entry, where)
    elif isinstance(value, str) and os.path.isabs(value):
        raise ValueError(f"{where}: {value!r} must not be in metrics.json: paths differ between machines")
