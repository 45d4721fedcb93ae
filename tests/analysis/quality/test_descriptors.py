"""SSCD as a descriptor: what the session is given, what comes back, and what is refused (the network itself is not in
the tests).
"""

import sys
import types
from pathlib import Path

import numpy as np
import pytest

from dgu.analysis import SSCD, extract_features
from dgu.core.errors import InputError


class Session:
    """Mean colours of the bytes given, as an embedding."""

    def __init__(self, path, providers):
        if b"broken" in Path(path).read_bytes():
            raise RuntimeError("Protobuf parsing failed.\nmore")

    def get_inputs(self):
        return [types.SimpleNamespace(name="image")]

    def run(self, _, given):
        (images,) = given.values()
        assert list(given) == ["image"] and images.dtype == np.uint8 and images.shape[1:] == (32, 32, 3)
        return [images.astype(np.float64).mean(axis=(1, 2))]


@pytest.fixture
def onnx(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", types.SimpleNamespace(InferenceSession=Session))
    path = tmp_path / "sscd.onnx"
    path.write_bytes(b"network")
    return path


def test_embeddings_are_of_enlarged_bytes_and_of_unit_length(onnx):
    images = np.stack([np.full((8, 8, 3), (-1.0, 0.0, 1.0)), np.full((8, 8, 3), (1.0, 1.0, 1.0))])
    found = extract_features(images, SSCD(onnx, size=32), block_size=2)
    wanted = np.array([[0, 128, 255], [255, 255, 255.0]])
    np.testing.assert_allclose(found, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), rtol=1e-6)


def test_pixels_are_repeated_not_blended(onnx):
    checks = np.indices((16, 16)).sum(axis=0)[None, :, :, None] % 2 * 2.0 - 1
    seen = []
    descriptor = SSCD(onnx, size=32)
    descriptor._session.run = lambda _, given: [seen.append(given["image"]) or np.ones((1, 3))]
    descriptor(np.repeat(checks, 3, axis=3))
    np.testing.assert_array_equal(np.unique(seen[0]), [0, 255])
    np.testing.assert_array_equal(seen[0][0, ::2, ::2, 0], (checks[0, :, :, 0] > 0) * 255)


def test_what_it_cannot_do_is_one_line(onnx, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="channels = 1: must be 3"):
        SSCD(onnx, size=32)(np.zeros((2, 8, 8, 1)))
    with pytest.raises(InputError, match="must be an ONNX file of SSCD"):
        SSCD(tmp_path / "nothing.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"broken")
    with pytest.raises(InputError, match=r"must be a readable ONNX file \(Protobuf parsing failed. more\)"):
        SSCD(broken)
    with pytest.raises(InputError, match="size = 8"):
        SSCD(onnx, size=8)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"needs onnxruntime; bring it with: pip install 'dgu\[sscd\]'"):
        SSCD(onnx)
