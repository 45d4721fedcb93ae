"""The studies, each a command: ``python -m experiments.NAME``."""

import sys
from types import TracebackType


def _quiet_interrupt(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted before anything was done", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


# A command is starting: Ctrl-C while its modules are read, which takes seconds, is one line, too.
if sys.argv[:1] == ["-m"]:
    sys.excepthook = _quiet_interrupt
