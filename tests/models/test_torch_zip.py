"""Zip archives of ``torch.save``: tensors are read, everything else is refused in one line."""

import zipfile

import numpy as np
import pytest

from dgu.core.errors import InputError
from dgu.models.torch_zip import read_torch_zip
from tests.models.snapshots import Call, Global, dumps
from tests.models.torch_zips import torch_zip

ARRAYS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.asarray([1, 2], np.int64)}


def read(tmp_path, content):
    (tmp_path / "x.bin").write_bytes(content)
    return read_torch_zip(tmp_path / "x.bin")


def test_tensors_by_name(tmp_path):
    found = read(tmp_path, torch_zip(ARRAYS | {"half": np.asarray([0.5, 2.0], np.float16)}, location="cuda:1"))
    assert found.keys() == {"a.weight", "b", "half"} and not found["a.weight"].flags.writeable
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)


def twice(content):
    return content.replace(b"archive/data/1", b"archive/data/0")


HOSTILE = {
    "a call": (torch_zip(ARRAYS, data=dumps(Call(Global("os", "system"), ("true",)), 2)), "global 'os' 'system' is not allowed"),
    "something else": (torch_zip(ARRAYS, data=dumps([1, 2], 2)), "something else than tensors"),
    "a view outside": (torch_zip(ARRAYS, offset=2), "outside its storage"),
    "a size outside": (torch_zip(ARRAYS, size=(2**40, 3)), "cannot be read"),
    "another length": (torch_zip(ARRAYS, numel=5), "has 24 bytes, not 5 entries"),
    "big-endian": (torch_zip(ARRAYS, byteorder=b"big"), "not little-endian"),
    "compressed": (torch_zip(ARRAYS, kind=zipfile.ZIP_DEFLATED), "compressed"),
    "a member twice": (twice(torch_zip(ARRAYS)), "twice"),
    "cut": (torch_zip(ARRAYS)[:-40], "cannot be read"),
    "damaged": (torch_zip(ARRAYS).replace(ARRAYS["b"].tobytes(), bytes(16)), "damaged"),
    "legacy": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + bytes(40), "legacy format"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archives(tmp_path, case):
    content, expected = HOSTILE[case]
    with pytest.raises(InputError) as caught:
        read(tmp_path, content)
    assert expected in str(caught.value) and "x.bin" in str(caught.value) and "\n" not in str(caught.value)
