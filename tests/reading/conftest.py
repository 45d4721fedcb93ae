"""A limit low enough for the tests to pass it, and a network's file."""

import jax
import numpy as np
import pytest

from dgu.models import load_checkpoint
from dgu.models.pretrained import save_network
from tests.reading.archives import BOMB, NETWORK


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    path = tmp_path_factory.mktemp("net") / "network.npz"
    params = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, np.float32), NETWORK.abstract_params)
    save_network(path, NETWORK, params, {"class_names": ["a", "b"]})
    load_checkpoint(path)  # What is compiled on the way.
    return path.read_bytes()


@pytest.fixture(autouse=True)
def low_limit(monkeypatch):
    monkeypatch.setenv("DGU_MAX_GIB", str(BOMB / 2 / 2**30))
