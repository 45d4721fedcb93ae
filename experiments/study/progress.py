"""Progress of the Python loops over batches: a bar on a terminal, a line now and then elsewhere and in the log; nothing
inside jit.
"""

import contextlib
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TextIO, TypeVar

from tqdm import tqdm

from experiments.study.least_time import in_words
from experiments.study.messages import is_quiet, note
from experiments.study.processes import is_lead

T = TypeVar("T")


def _shows_bars(stream: TextIO) -> bool:
    """Whether what is written after a carriage return overwrites the line: on a terminal, and in a notebook, whose
    stream says that it is none.
    """
    return stream.isatty() or type(stream).__module__.partition(".")[0] == "ipykernel"


class Progress:
    """Shows how much of ``total`` items of work is done: a tqdm bar on a terminal or in a notebook, else (or with the
    variable ``CI`` in the environment) a line every ``every`` seconds, with the rate and the time that is left. The log
    of the run has these lines in any case; a quiet run has no others.

    Of several processes the lead alone shows it. Where it cannot be shown (the disk of a log is full, nobody reads the
    pipe any more) the work goes on all the same.

    ``with Progress("sampling", total=17_000, unit="images") as bar: ... bar.update(len(batch))``
    """

    def __init__(
        self,
        description: str,
        total: int | None = None,
        unit: str = "it",
        stream: TextIO | None = None,
        every: float = 15.0,
    ):
        self.stream = sys.stderr if stream is None else stream
        self.description, self.total, self.unit, self.every = description, total, unit, every
        self.done, self.started = 0, time.monotonic()
        self.last_line, self.said = self.started, 0
        self.silent = not is_lead()
        shown = not self.silent and not is_quiet()
        interactive = shown and _shows_bars(self.stream) and not os.environ.get("CI")
        self.printed = shown and not interactive
        self.bar: tqdm | None = None
        with self._if_possible():
            if interactive:
                self.bar = tqdm(total=total, desc=description, unit=f" {unit}", file=self.stream, dynamic_ncols=True)

    def update(self, count: int = 1) -> None:
        """``count`` more items are done."""
        self.done += count
        with self._if_possible():
            if self.bar is not None:
                self.bar.update(count)
            if not self.silent and time.monotonic() - self.last_line >= self.every:
                self._line()

    def close(self) -> None:
        """End the bar. Work that never reached its first line stays silent, and no line is said twice."""
        with self._if_possible():
            if self.bar is not None:
                self.bar.close()
            if not self.silent and self.last_line > self.started and self.done > self.said:
                self._line()

    @contextlib.contextmanager
    def _if_possible(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            self.printed, self.bar = False, None

    def _line(self) -> None:
        self.last_line, self.said = time.monotonic(), self.done
        elapsed = self.last_line - self.started
        of = f"/{self.total}" if self.total else ""
        text = f"{self.description}: {self.done}{of} {self.unit}, {in_words(elapsed)}"
        if self.done and elapsed > 0:
            text += f", {self.done / elapsed:.3g} {self.unit}/s"
        if self.total and 0 < self.done < self.total:
            text += f", about {in_words(elapsed / self.done * (self.total - self.done))} left"
        note(text)
        if self.printed:
            print(text, file=self.stream, flush=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def progress(items: Iterable[T], description: str, total: int | None = None, unit: str = "batches") -> Iterator[T]:
    """Iterate over ``items`` and show how far it is; ``total`` is their number where they do not know it themselves."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(description, total, unit) as bar:
        for item in items:
            yield item
            bar.update()
