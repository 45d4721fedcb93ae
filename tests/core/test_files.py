"""Atomic writing and archives without a date."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from dgu.core.errors import InputError
from dgu.core.files import remove_temporary, write_arrays, write_atomic


@pytest.mark.parametrize("compress", [False, True])
def test_npz_bytes_depend_on_the_arrays_alone(tmp_path, monkeypatch, compress):
    arrays = {"b": np.arange(300), "a": np.eye(20)[:, ::2]}
    one, two = tmp_path / "one", tmp_path / "two"
    write_atomic(one, lambda file: write_arrays(file, arrays, compress=compress))
    monkeypatch.setattr(time, "time", lambda: 2e9)
    write_atomic(two, lambda file: write_arrays(file, dict(reversed(arrays.items())), compress=compress))
    assert one.read_bytes() == two.read_bytes()
    assert (one.stat().st_size < 1500) == compress
    with np.load(one, allow_pickle=False) as file:
        assert all(np.array_equal(file[name], arrays[name]) for name in arrays)
    with pytest.raises(ValueError, match="Object arrays"):
        write_atomic(two, lambda file: write_arrays(file, {"a": np.array([object()])}))
    assert one.read_bytes() == two.read_bytes()


def test_a_file_is_old_or_new_never_a_part(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, lambda file: file.write(b"old"))

    def fail(file):
        file.write(b"half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_atomic(path, fail)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]
    write_atomic(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["file"]
    with pytest.raises(InputError, match=r"cannot be written \(No such file"):
        write_atomic(tmp_path / "absent" / "file", fail)


def test_temporary_files_of_killed_processes_are_removed(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / ".file.123.tmp").write_bytes(b"half")
    (tmp_path / "below" / "mine.tmp").write_bytes(b"no work of ours")
    remove_temporary(tmp_path)
    assert os.listdir(tmp_path / "below") == ["mine.tmp"]


def test_what_is_no_ordinary_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "device").symlink_to("/dev/zero")
    before = sorted(os.listdir(tmp_path))
    for path, words in (
        (tmp_path / "pipe", "it is a named pipe"),
        (tmp_path / "folder", "it is a folder"),
        (tmp_path / "device", "it is a device"),
        (Path("."), "it names no file"),
        (tmp_path / "..", "it names no file"),
        (tmp_path / ("a" * 5000), "File name too long"),
    ):
        with pytest.raises(InputError, match=words):
            write_atomic(path, lambda file: file.write(b"x"))
    assert sorted(os.listdir(tmp_path)) == before and (tmp_path / "pipe").is_fifo()
