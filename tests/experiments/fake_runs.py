"""What the tests of run directories share: a small configuration, what a folder holds, and refused runs."""

import dataclasses

import numpy as np
import pytest

from dgu.core.errors import InputError
from experiments.study.run_directory import RunDirectory


@dataclasses.dataclass(frozen=True)
class Config:
    samples: str = "samples.npz"
    seed: int = 0


def contents(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def refused(out, config, *words):
    """The one line with which a run is refused, nothing in its directory touched."""
    before = contents(out)
    with pytest.raises(InputError) as error, RunDirectory.hold(out, config):
        pass
    line = str(error.value)
    assert "\n" not in line and all(word in line for word in words), line
    assert contents(out) == before
    return line


def image_npz(path, shift=0):
    images = (np.arange(6 * 16).reshape(6, 4, 4, 1) + shift).astype(np.uint8)
    np.savez(path, images=images, labels=np.arange(6) % 2)
