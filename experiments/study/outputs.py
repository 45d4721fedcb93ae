"""Where a command writes: obstacles are reported before any work, and no file that it reads is written over."""

import os
from collections.abc import Mapping
from pathlib import Path

from dgu.core.errors import MAX_VALUE, InputError, require, shortened
from dgu.core.files import folder_obstacle, obstacle


def unusable(path: Path, error: OSError) -> InputError:
    """The line about a directory ``--out`` that cannot be made or written to."""
    reason = folder_obstacle(path) or error.strerror or type(error).__name__
    shown = shortened(repr(str(path)), MAX_VALUE)
    return InputError(f"--out = {shown}: must be a directory that can be written to ({shortened(reason, MAX_VALUE)})")


def refuse_in_the_way(folder: Path) -> None:
    """``InputError`` where something stands in the way of a folder inside a run's directory."""
    if found := folder_obstacle(folder):
        raise InputError(f"{found}, where the run keeps a folder; must be a folder (remove it)")


def check_files(outputs: Mapping[str, Path | None], inputs: Mapping[str, Path | None]) -> None:
    """``InputError`` unless each of the ``outputs``, by option, is a file that can be written, in a folder that exists:
    new, or an ordinary one, which is then replaced, but none of the ``inputs`` and no other output."""
    others = {name: path for name, path in inputs.items() if path is not None}
    for name, path in outputs.items():
        if path is None:
            continue
        found = obstacle(path)
        require(not found, name, str(path), f"a new name, or an ordinary file to be replaced ({found})")
        require(os.path.isdir(path.parent), name, str(path), "a file in a folder that exists")
        for other, its in others.items():
            same = os.path.realpath(path) == os.path.realpath(its)
            if not same and os.path.exists(path) and os.path.exists(its):
                same = os.path.samefile(path, its)
            require(not same, name, str(path), f"another file than that of {other}")
        others[name] = path
