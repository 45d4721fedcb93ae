"""The files that a run reads: a hash of each is stored beside its configuration, so that none is replaced unnoticed.

A killed run may be resumed, and a finished one read back, by the same command weeks later, when a file of the same name
holds something else. ``inputs.json`` in the run directory says what each option's file held. Every loader of the
studies reads inside ``reading``, which compares a file with that record, or adds it.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from dgu.core.errors import InputError
from dgu.core.reading import read_json
from dgu.data.contents import content_of, files_of, signature_of
from experiments.study.processes import is_lead

#: Name of the record in a run directory.
RECORD = "inputs.json"
_ADVICE = "put it back, or give --out another directory"
#: The inputs of the run that is going on in this process, if any.
_current: ContextVar["Inputs | None"] = ContextVar("inputs", default=None)


class Inputs:
    """What a run was given, by option and value, as in ``"samples = 'a.npz'"``.

    Args:
        record: the file that keeps it.
        write: stores a new record, ``{"option = 'value'": {"file": path or "", "content": SHA-256 or name}}``.

    Attributes:
        used: the content of all that this process has read so far, itself or through a stored stage.
    """

    def __init__(self, record: Path, write: Callable[[dict[str, Any]], None]):
        self._record, self._write = record, write
        self._hashed: dict[str, tuple[list[tuple[int, ...]], str]] = {}
        self.used: dict[str, str] = {}

    def stored(self) -> dict[str, dict[str, str]]:
        """The record, empty where there is none.

        Raises:
            InputError: it cannot be read.
        """
        if not self._record.exists():
            return {}
        allowed = "the record of what a run was given"
        found = read_json(self._record, allowed, advice=_ADVICE)
        entries = found.values() if isinstance(found, dict) else [None]
        for entry in entries:
            fields = entry if isinstance(entry, dict) else {}
            if fields.keys() != {"file", "content"} or not all(isinstance(text, str) for text in fields.values()):
                raise InputError(f"{self._record}: must be {allowed} ({_ADVICE})")
        return found

    def check(self) -> None:
        """``InputError`` where a file on record that is still there holds something else."""
        for shown, entry in self.stored().items():
            if entry["file"] and files_of(entry["file"]):
                self.compare(shown, self.content(entry["file"]))

    def differs(self, shown: str, content: str) -> str:
        """The other content that is on record, or in a stored stage, for an option and value; else ``""``."""
        known = self.used.get(shown) or self.stored().get(shown, {}).get("content", "")
        return "" if known == content else known

    def compare(self, shown: str, content: str) -> None:
        """``InputError`` where it ``differs``."""
        if known := self.differs(shown, content):
            raise InputError(
                f"{shown}: must be what the run in {str(self._record.parent)!r} was given, {known}, not {content};"
                f" {_ADVICE}"
            )

    def note(self, shown: str, file: str, content: str) -> None:
        """Compare, and put on record what is new."""
        self.compare(shown, content)
        self.used[shown] = content
        stored = self.stored()
        if shown not in stored:
            self._write(stored | {shown: {"file": file, "content": content}})

    def content(self, file: str) -> str:
        """``content_of`` the file, which is read once as long as it does not change."""
        signature = signature_of(file)
        if file not in self._hashed or self._hashed[file][0] != signature:
            self._hashed[file] = signature, content_of(file)
        return self._hashed[file][1]


@contextlib.contextmanager
def recording(inputs: Inputs) -> Iterator[None]:
    """The run whose ``inputs`` these are goes on inside."""
    token = _current.set(inputs)
    try:
        yield
    finally:
        _current.reset(token)


@contextlib.contextmanager
def reading(option: str, value: Any, file: str | os.PathLike[str] | None) -> Iterator[None]:
    """Inside, ``file`` is read, which ``option`` named by ``value``; nothing to do where no run goes on or there is no
    file.

    It is put on record once it was read without an error.

    Raises:
        InputError: the run was given something else before, or the file changed while it was read.
    """
    inputs = _current.get()
    if inputs is None or file is None or not is_lead() or not files_of(file):
        yield
        return
    name, shown = os.fspath(file), f"{option} = {value!r}"
    content, before = inputs.content(name), signature_of(name)
    inputs.compare(shown, content)
    yield
    # Only now is it known that what was hashed is what was read.
    if signature_of(name) != before:
        raise InputError(f"{shown}: {name} was written to while it was read; must stay as it is until it is loaded")
    inputs.note(shown, name, content)


def once_a_run(load: Callable[..., Any]) -> Callable[..., Any]:
    """A loader that keeps its last result for as long as the same run goes on: another run reads again, and notes what
    it read.
    """
    kept = functools.lru_cache(maxsize=1)(lambda _, *given: load(*given))
    return functools.wraps(load)(lambda *given: kept(_current.get(), *given))


def note_choice(option: str, value: Any, name: str) -> None:
    """Put on record what an option that leaves the choice to the study (``"auto"``) stood for, which may depend on the
    files that this machine has.

    Raises:
        InputError: it stood for something else when the run began.
    """
    inputs = _current.get()
    if inputs is not None and is_lead():
        inputs.note(f"{option} = {value!r}", "", name)
