"""Files of runs: JSON whose bytes depend on the values alone, arrays with a stamp, directories held by one process."""

import json
import zipfile

import numpy as np
import pytest

from dgu.core.errors import InputError
from dgu.core.files import write_arrays
from dgu.core.locks import locked
from dgu.core.plain_json import json_bytes, plain
from dgu.core.stamped import read_stamped, write_stamped


def test_plain_values_are_those_of_json_in_full():
    value = {
        "b": np.arange(2),
        "a": {"z": np.float64(0.1) + np.float64(0.2), "y": (np.float32(0.1), None, "é")},
        3: True,
    }
    found = plain(value, "metrics")
    assert found == {"b": [0, 1], "a": {"z": 0.1 + 0.2, "y": [float(np.float32(0.1)), None, "é"]}, "3": True}
    text = json_bytes(found)
    assert text == json_bytes(dict(reversed(found.items()))) and repr(0.1 + 0.2).encode() in text
    assert plain(10**400, "count") == 10**400
    assert json.loads(text) == found and json_bytes("\udcff") == b'"\\udcff"\n'


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ({"a": [1.0, np.nan]}, r"m: a\[1\] is nan: must be finite"),
        (np.inf, "m is inf: must be finite"),
        ({"a": object()}, "m: a: object of object must be numbers, text or None"),
        (np.array([1j]), "m: ndarray of complex128 must be"),
    ],
)
def test_what_json_cannot_hold_is_named(value, line):
    with pytest.raises(ValueError, match=line):
        plain(value, "m")


ARRAYS = {"x": np.arange(6.0), "name": np.asarray("coat")}


def stamped(file, arrays, stamp):
    with open(file, "wb") as stream:
        write_stamped(stream, arrays, stamp)
    return file


def test_arrays_and_stamp_come_back_and_the_bytes_depend_on_them_alone(tmp_path):
    file = stamped(tmp_path / "a.npz", ARRAYS, {"b": 1, "a": ["é"]})
    other = stamped(tmp_path / "b.npz", dict(reversed(ARRAYS.items())), {"a": ["é"], "b": 1})
    assert file.read_bytes() == other.read_bytes()
    arrays, stamp = read_stamped(file, "a stage")
    assert stamp == {"a": ["é"], "b": 1} and arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda members: {"x.npy": members["x.npy"]}, "lacks, changes or adds name;"),
        (lambda members: {**members, "y.npy": members["x.npy"]}, "lacks, changes or adds y;"),
        (lambda members: {**members, "note.txt": b""}, "adds files that are no arrays;"),
        (lambda members: {**members, "x.npy": members["name.npy"]}, "lacks, changes or adds x;"),
    ],
)
def test_arrays_that_are_not_those_of_the_stamp_are_named(tmp_path, change, line):
    file = stamped(tmp_path / "a.npz", ARRAYS, {})
    with zipfile.ZipFile(file) as archive:
        comment, members = archive.comment, {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        archive.comment = comment
        for name, content in change(members).items():
            archive.writestr(name, content)
    with pytest.raises(InputError, match=line):
        read_stamped(file, "a stage")


def test_arrays_without_a_stamp_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", **ARRAYS)
    with pytest.raises(InputError, match=r"a\.npz: does not say what it was computed from; must be a stage"):
        read_stamped(tmp_path / "a.npz", "a stage")


@pytest.mark.parametrize("comment", [b"made by another program", b"[1]", b'{"arrays": 3}', b"\xff\xfe"])
def test_a_stamp_of_another_program_is_none(tmp_path, comment):
    with open(tmp_path / "a.npz", "wb") as file:
        write_arrays(file, ARRAYS, comment=comment)
    with pytest.raises(InputError, match=r"a\.npz: does not say what it was computed from; must be a stage"):
        read_stamped(tmp_path / "a.npz", "a stage")


def test_a_stamp_too_long_for_a_zip_archive_is_refused(tmp_path):
    many = {f"array {number}": np.zeros(1) for number in range(3000)}
    with pytest.raises(InputError, match=r"^length of the stamp = \d+: must be at most 65535 bytes \(fewer arrays\)$"):
        stamped(tmp_path / "a.npz", many, {})
    fewer = dict(list(many.items())[:1500])
    assert len(read_stamped(stamped(tmp_path / "b.npz", fewer, {}), "a stage")[0]) == 1500


def test_a_directory_is_held_by_one_at_a_time(tmp_path):
    path = tmp_path / "new" / "run"
    with locked(path) as new:
        assert new and path.is_dir()
        with pytest.raises(BlockingIOError), locked(path):
            pytest.fail("it was held")
    with locked(path) as new:
        assert not new
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="File exists"), locked(tmp_path / "file"):
        pytest.fail("it is no directory")
