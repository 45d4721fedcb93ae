"""The run directory: a killed run resumes from it, a finished one is read, and no other configuration mixes in."""

import contextlib
import dataclasses
import enum
import io
import json
import math
import os
import re
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from dgu.errors import InputError
from dgu.files import TEMPORARY, advice, remove_temporary, write_arrays, write_atomic
from experiments.harness.options import as_typed
from experiments.harness.processes import is_lead

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Words that have no place in the keys of ``metrics.json``: a resumed run must give the same bytes.
_NOT_METRICS = {"seconds", "elapsed", "duration", "timestamp", "host"}
#: The generator of all keys, ``dgu.prng.GENERATOR`` (which would take JAX along), stored in ``config.json`` beside the options.
_PRNG = "threefry2x32"


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """A directory that holds one run of one configuration. Make it with ``RunDirectory.open``.

    Where several processes run the experiment together they share the directory, and all but the lead write nothing.

    Every file is written under a temporary name (``*.tmp``), synchronised and renamed, so that what lies under its own
    name is whole; the bytes depend on the contents alone.
    """

    path: Path

    @classmethod
    def open(cls, out: str | os.PathLike, config: Any) -> "RunDirectory":
        """The directory ``out`` for ``config``, a dataclass; made (parents too) where there is none.

        Raises:
            InputError: ``out`` holds a run of another configuration (the first option that differs is named) or of
                another random generator, holds other files, is no directory, or cannot be written to. Nothing in it is touched then.
        """
        path, wanted = Path(out), config_to_json(config)
        stored = path / "config.json"
        try:
            path.mkdir(parents=True, exist_ok=True)
            if stored.exists():
                there = json.loads(stored.read_text())
                _check_generator(there, stored)
                _check_same(_options(there), _options(wanted), stored)
            elif any(not entry.name.endswith(TEMPORARY) for entry in path.iterdir()):
                raise InputError(
                    f"--out = {str(out)!r}: must be new, empty, or a run's own directory (no config.json here)"
                )
            directory = cls(path)
            # A finished run is only read, on a read-only disk, too.
            if not directory.finished and not os.access(path, os.W_OK | os.X_OK):
                raise PermissionError(13, "permission denied")
            if not stored.exists():
                directory.write_json("config.json", wanted | {"prng": _PRNG})
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise InputError(f"--out = {str(out)!r}: must be a directory that can be written to ({reason})") from None
        except json.JSONDecodeError:
            raise InputError(f"--out = {str(out)!r}: must hold a readable config.json") from None
        return directory

    @property
    def finished(self) -> bool:
        """Whether the run is done: its report is written after everything else but the claims."""
        return (self.path / "report.html").exists()

    def discard(self, remove: bool) -> None:
        """Forget a run that stored nothing but its configuration; ``remove`` the directory, too."""
        if is_lead() and [entry.name for entry in self.path.iterdir()] == ["config.json"]:
            (self.path / "config.json").unlink()
            if remove:
                self.path.rmdir()

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the directory against a second run (POSIX; released when the process ends, however it ends)."""
        if not is_lead():
            yield
            return
        try:
            import fcntl
        except ImportError:  # No such lock on this platform.
            yield
            return
        handle = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            raise InputError(f"--out = {str(self.path)!r}: must not be in use by another process") from None
        try:
            remove_temporary(self.path)
            yield
        finally:
            os.close(handle)

    def stage(
        self, name: str, compute: Callable[[], Mapping[str, Any]], *, allow_nonfinite: bool = False
    ) -> dict[str, np.ndarray]:
        """The arrays of the stage ``name``: read from ``stages/NAME.npz`` if they are there, else computed and stored.

        Args:
            name: name of the stage, of letters, digits, ``.``, ``_`` and ``-``; ``/`` makes folders.
            compute: makes the arrays (or scalars), by name. Called only when the stage is not stored yet.
            allow_nonfinite: store NaN and infinities; an error that names the array otherwise.

        Returns:
            The stored arrays, the same on the run that computed them as on any later one; a scalar is a 0-d array.
        """
        file = self._file(f"stages/{name}.npz")
        if not file.exists():
            started = time.perf_counter()
            arrays = {key: _plain_array(name, key, value, allow_nonfinite) for key, value in compute().items()}
            if not is_lead():
                return arrays
            self._write(file, lambda stream: write_arrays(stream, arrays))
            self._record_time(name, time.perf_counter() - started)
        try:
            with open(file, "rb") as stream, np.load(stream, allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files}
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise InputError(f"stage {name!r} = {str(file)!r}: must be readable; remove it to compute again") from error

    def write_json(self, name: str, data: Any) -> None:
        """Write ``data`` as JSON: sorted keys, floats in full (their ``repr``), NumPy values as plain ones.

        ``metrics.json`` may hold neither times nor paths. ``ValueError`` for those and for NaN or infinities.
        """
        plain = _plain_json(data, name)
        if name == "metrics.json":
            _check_metrics(plain, name)
        self.write_text(name, json.dumps(plain, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n")

    def read_json(self, name: str) -> Any:
        """The contents of a JSON file of this directory, or None where it is missing."""
        file = self._file(name)
        return json.loads(file.read_text()) if file.exists() else None

    def write_text(self, name: str, text: str) -> None:
        """Write a text file (UTF-8; what a file name may have that is no UTF-8 is escaped, as JSON does it)."""
        self._write(self._file(name), lambda stream: stream.write(text.encode(errors="backslashreplace")))

    def save_figure(self, name: str, figure: "Figure") -> None:
        """Write a figure as PNG under ``name``, such as ``"figures/samples.png"``."""
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
        self._write(self._file(name), lambda stream: stream.write(buffer.getvalue()))

    def timings(self) -> dict[str, float]:
        """Seconds that each stage took when it was computed, from ``timings.json``."""
        return self.read_json("timings.json") or {}

    def _record_time(self, name: str, seconds: float) -> None:
        self.write_json("timings.json", self.timings() | {name: round(seconds, 3)})

    def _write(self, file: Path, write: Callable[[IO[bytes]], Any]) -> None:
        if not is_lead():
            return
        if not self.path.is_dir():  # Made again it would lack what it had.
            raise InputError(f"{self.path}: was removed while the run went on; the same command again starts over")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{file.parent}: cannot be made ({error.strerror}); {advice(error)}") from error
        write_atomic(file, write)

    def _file(self, name: str) -> Path:
        if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)*", name):
            raise ValueError(f"name = {name!r}: must be a relative file name of letters, digits, '.', '_', '-' and '/'")
        return self.path / name


def config_to_json(config: Any) -> dict[str, Any]:
    """A (nested) dataclass as plain JSON: tuples as lists, paths and enums as text, infinities as ``"inf"``."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        if isinstance(value, Mapping):
            return {str(key): plain(entry) for key, entry in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [plain(entry) for entry in value]
        if isinstance(value, enum.Enum):
            return value.name
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if isinstance(value, float) and math.isinf(value):
            return "inf" if value > 0 else "-inf"
        return value

    return plain(config)


def _options(tree: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(tree, dict):
        return {key: leaf for name, entry in tree.items() for key, leaf in _options(entry, f"{prefix}.{name}").items()}
    return {as_typed(prefix.removeprefix(".")): tree}


def _check_generator(stored: dict[str, Any], file: Path) -> None:
    """Take the generator's name out of what ``config.json`` holds; runs from before it was stored used this one, too."""
    found = stored.pop("prng", _PRNG)
    if found != _PRNG:
        raise InputError(
            f"{str(file)!r}: is of a run with the random generator {found!r}, not {_PRNG}; --out another directory"
        )


def _check_same(stored: dict[str, Any], given: dict[str, Any], file: Path) -> None:
    absent = "(no such option)"
    for option in [*given, *(name for name in stored if name not in given)]:
        there, here = stored.get(option, absent), given.get(option, absent)
        if there != here or isinstance(there, bool) != isinstance(here, bool):
            raise InputError(
                f"{option} = {here!r}: must be {there!r} as stored in {str(file)!r}, or --out another directory"
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


def _plain_json(value: Any, where: str) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain_json(entry, f"{where}: {key}") for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_json(entry, f"{where}[{number}]") for number, entry in enumerate(value)]
    if value is None or isinstance(value, str | bool):
        return value
    if not isinstance(value, int | float):
        value = np.asarray(value)
        if value.dtype.kind not in "biufU":
            raise ValueError(f"{where}: {type(value).__name__} of {value.dtype} must be numbers, text or None")
        return _plain_json(value.tolist(), where)
    if not math.isfinite(value):
        raise ValueError(f"{where} is {value}: must be finite")
    return value


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
