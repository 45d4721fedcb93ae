"""The log of a training as scalars for TensorBoard, while it goes on.

TensorBoardX writes them: it is small, and needs neither TensorFlow, PyTorch nor TensorBoard, which only shows them:
``tensorboard --logdir RUN/tensorboard``.
"""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dgu.core.errors import InputError
from experiments.study.processes import is_lead

#: The folder of a run that holds them.
FOLDER = "tensorboard"
#: Scalars by what the lines of the log call them.
_NAMES = {"loss": "training/loss", "images_seen": "training/images_seen", "nonfinite": "training/nonfinite_gradients"}


def writer(asked: bool) -> Callable[[Path], Any] | None:
    """What makes a writer for a folder, or None where none is asked for.

    Raises:
        InputError: the library is missing.
    """
    if not asked:
        return None
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        needs = "needs tensorboardX; bring it with: pip install 'dgu[tensorboard]'"
        raise InputError(f"tensorboard = True: {needs}") from None
    return lambda folder: SummaryWriter(str(folder))


@contextlib.contextmanager
def following(out: Path, write: Callable[[Path], Any] | None) -> Iterator[Callable[[], None]]:
    """Inside, each call of what is given writes the lines that ``out/stats.jsonl`` has got since the last one.

    A training that goes on after a kill begins the folder anew with all lines, so that none is there twice. Of several
    processes the lead alone writes.
    """
    if write is None or not is_lead():
        yield lambda: None
        return
    from dgu.training.resumable import read_log

    log, size, count = out / "stats.jsonl", 0, 0
    board: Any = None

    def follow() -> None:
        nonlocal board, size, count
        now = log.stat().st_size
        if now == size:
            return
        if board is None:  # Not before the training has taken the directory.
            shutil.rmtree(out / FOLDER, ignore_errors=True)
            board = write(out / FOLDER)
        lines = read_log(log)
        for line in lines[count:]:
            for name, title in _NAMES.items():
                board.add_scalar(title, line[name], line["step"])
        board.flush()
        size, count = now, len(lines)

    try:
        yield follow
    finally:
        if board is not None:
            board.close()
