"""How a command ends: whatever stops it is one line on standard error and an exit code, never a traceback."""

import contextlib
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from absl import logging

from dgu.core.errors import InputError, one_line
from dgu.core.files import advice
from experiments.study.processes import is_lead

#: What is said when a command was interrupted whose stored results are used again.
GOES_ON = "the same command again goes on from what is stored"


class Terminated(KeyboardInterrupt):
    """SIGTERM, which unwinds as Ctrl-C does."""


class Interrupted(SystemExit, KeyboardInterrupt):
    """The exit after either; to those who run a study from Python the ``KeyboardInterrupt`` that it was."""


@contextlib.contextmanager
def in_one_line(name: str, *, again: str = GOES_ON, explain: Callable[[str], str] = str) -> Iterator[None]:
    """Run what is inside as the command ``name``: whatever stops it is printed as one line and ends the process.

    Exit codes: 2 for bad input and files that cannot be written; 1 for numbers that are not finite, other errors of the
    system, and too little memory; 130 after Ctrl-C and 143 after SIGTERM, where ``again`` says how to go on; 141,
    without a word, where nobody reads standard output any more. Text that the terminal cannot show is printed escaped.
    ``explain`` puts the line of an ``InputError`` into the words of the command line.
    """
    with _open(), _escaping(), _terminable(), _orbax_silent():
        try:
            yield
            sys.stdout.flush()
        except InputError as error:
            _end(name, explain(str(error)) if is_lead() else "", 2)
        except FloatingPointError as error:  # Of a network or a training; what is stored so far stays.
            _end(name, one_line(error) if is_lead() else "", 1)
        except KeyboardInterrupt as error:
            ended = isinstance(error, Terminated)
            word = "terminated" if ended else "interrupted"
            _end(name, f"{word}; {again}" if is_lead() else "", 143 if ended else 130, Interrupted)
        except BrokenPipeError:
            _end(name, "", 141)
        except (OSError, MemoryError, RuntimeError, ValueError) as error:
            line = _of_the_system(error)
            if not line:
                raise
            _end(name, line, 1)


def _of_the_system(error: Exception) -> str:
    """The line about an error of files or memory, whichever library raised it; empty for any other."""
    text = str(error)
    code = re.search(r"os_error_code='(\d+)'", text)  # TensorStore's errors, of Orbax's checkpoints.
    if code is not None:
        file = re.search(r'"(/[^"]+)"', text)
        error = OSError(int(code[1]), os.strerror(int(code[1])), file[1] if file else None)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        return str(InputError(f"{where}{error.strerror or one_line(error)}; {advice(error)}"))
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:  # JAX's word, of the memory of a device.
        return f"not enough memory ({one_line(error)}); smaller sizes or batches need less"
    return ""


def _end(name: str, line: str, code: int, how: type[SystemExit] = SystemExit) -> None:
    with contextlib.suppress(OSError):
        if line:
            print(f"{name}: {line}", file=sys.stderr, flush=True)
    try:
        sys.stdout.flush()
    except OSError:  # What is left in the buffer would be tried again, and complained of, when Python ends.
        with contextlib.suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
    raise how(code) from None


@contextlib.contextmanager
def _open() -> Iterator[None]:
    """Where a standard stream is closed (``>&-``) Python has None in its place; what is printed there goes nowhere."""
    with open(os.devnull, "w") as nowhere, contextlib.ExitStack() as stack:
        if sys.stdout is None:
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        if sys.stderr is None:
            stack.enter_context(contextlib.redirect_stderr(nowhere))
        yield


@contextlib.contextmanager
def _escaping() -> Iterator[None]:
    """Print what the terminal's encoding lacks (names of files, mostly) escaped, not an error after all work is
    done.
    """
    streams = [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, io.TextIOWrapper)]
    before = [stream.errors for stream in streams]
    for stream in streams:
        stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for stream, errors in zip(streams, before):
            with contextlib.suppress(OSError, ValueError):
                stream.reconfigure(errors=errors)


@contextlib.contextmanager
def _orbax_silent() -> Iterator[None]:
    """Nothing is logged by Orbax, each of whose threads would show the traceback of an error of writing, a thousand
    lines, though the error is raised in the main thread as well.
    """
    logger = logging.get_absl_logger()
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM raises ``Terminated``, unless somebody else handles it already."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def begin(name: str, start: Callable[[], object]) -> None:
    """Call ``start``, which joins the other processes, if any, before the command line of ``name`` is read."""
    with in_one_line(name):
        start()
