"""What the tests of the store of samples share: samples that tell their address, and what a folder holds."""

from pathlib import Path

import numpy as np

CONFIG = {"model": "toy", "seed": 3, "grid": {"steps": 18, "sigma_max": 80.0}, "classes": (0, 1)}
SHAPE = (2, 3, 1)


def make(labels, indices):
    """Sample ``index`` of class ``label``: a value that no other address has."""
    values = np.asarray(labels)[:, None] * 1000.0 + np.asarray(indices)[:, None] + np.arange(6) / 10
    return values.reshape(-1, *SHAPE).astype(np.float32)


def expected(label, indices):
    return make(np.full(len(indices), label), indices)


class Recorder:
    """``make`` that remembers every address it was asked for, and each call's length."""

    def __init__(self):
        self.addresses, self.calls = [], []

    def __call__(self, labels, indices):
        self.addresses += list(zip(labels.tolist(), indices.tolist()))
        self.calls.append(len(labels))
        return make(labels, indices)


def content(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.name != ".lock"}


ROOT = str(Path(__file__).resolve().parents[2])
