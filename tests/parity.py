"""The recorded arrays of the reference implementation, in our layout."""

import json
import os
from functools import lru_cache
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

FIXTURES = Path(__file__).parent / "fixtures"


@lru_cache
def load(name: str) -> dict[str, np.ndarray]:
    """All arrays of a fixture file."""
    with np.load(FIXTURES / name) as file:
        return {key: file[key] for key in file.files}


def complete(name: str) -> dict[str, np.ndarray]:
    """A complete recording, where the environment variable ``DGU_PARITY`` names the folder that holds them; else the
    test is skipped.

    They are too large to keep here; what they show is shown by smaller means elsewhere in the tests.
    """
    folder = os.environ.get("DGU_PARITY")
    if folder is None or not (Path(folder) / name).is_file():
        pytest.skip(f"{name} is not here (see DGU_PARITY)")
    with np.load(Path(folder) / name) as file:
        return {key: file[key] for key in file.files}


def config(arrays: dict) -> dict:
    """The JSON configuration of a fixture."""
    return json.loads(str(arrays["config"]))


def params(arrays: dict) -> dict[str, np.ndarray]:
    """Weights under the reference's names."""
    return {key.removeprefix("param:"): value for key, value in arrays.items() if key.startswith("param:")}


def nhwc(x: np.ndarray) -> np.ndarray:
    """NCHW -> NHWC, any leading axes."""
    return np.moveaxis(x, -3, -1)


def nchw(x) -> np.ndarray:
    """NHWC -> NCHW."""
    return np.moveaxis(np.asarray(x), -1, -3)


def relative(got, expected) -> float:
    """Largest difference, relative to the largest magnitude expected."""
    return float(np.abs(np.asarray(got) - expected).max() / np.abs(expected).max())


def double(tree):
    """Every floating leaf as float64."""
    import jax

    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), tree)
