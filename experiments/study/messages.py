"""What a run says while it goes on: on standard output, unless it is to be quiet, and in a log with the time of each
line.

The log is the logger ``"experiments"`` of Python's ``logging``, to which programs that run a study may add a handler
of their own.
"""

import contextlib
import logging
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from dgu.core.errors import InputError, one_line
from dgu.core.files import obstacle
from experiments.study.processes import is_lead

LOGGER = logging.getLogger("experiments")
#: Whether nothing is said but in the log.
_quiet: ContextVar[bool] = ContextVar("quiet", default=False)


def is_quiet() -> bool:
    """Whether progress is not to be shown."""
    return _quiet.get()


def say(text: str) -> None:
    """Print what may have several lines, unless the run is quiet, and write it to the log."""
    note(text)
    if not is_quiet():
        print(text, flush=True)


def note(text: str) -> None:
    """Write to the log alone."""
    for line in text.splitlines():
        LOGGER.info("%s", line)


@contextlib.contextmanager
def speaking(*, quiet: bool = False, log: Path | None = None) -> Iterator[None]:
    """Inside, nothing is printed where the run is ``quiet``, and every line goes to the end of the file ``log``, with
    date and time, as it comes; what ends the run, too.

    Of several processes the lead alone writes. A disk that is full stops no work.

    Raises:
        InputError: the file cannot be written to.
    """
    token, handler = _quiet.set(quiet), _opened(log) if log is not None and is_lead() else None
    before = LOGGER.level
    try:
        if handler is not None:
            LOGGER.addHandler(handler)
            LOGGER.setLevel(logging.INFO)
        yield
        note("done")
    except BaseException as error:
        note(f"ended: {one_line(error) or type(error).__name__}")
        raise
    finally:
        _quiet.reset(token)
        LOGGER.setLevel(before)
        if handler is not None:
            LOGGER.removeHandler(handler)
            with contextlib.suppress(OSError):
                handler.close()


class _File(logging.FileHandler):
    """A file whose disk may be full: what cannot be written is left out."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


def _opened(log: Path) -> logging.Handler:
    if found := obstacle(log):
        raise InputError(f"--log = {str(log)!r}: must be a file, new or to be continued ({found})")
    try:
        handler = _File(log, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        allowed = f"a file in a folder that exists and can be written to ({error.strerror})"
        raise InputError(f"--log = {str(log)!r}: must be {allowed}") from None
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%Y-%m-%d %H:%M:%S"))
    return handler
