"""Stored stages: those of another run, damaged ones and rewritten ones are refused, with the file's name."""

import io
import warnings
import zipfile

import numpy as np
import pytest

from dgu.core.errors import InputError
from experiments.study.run_directory import RunDirectory
from experiments.subjects import load_images
from tests.experiments.fake_runs import Config, image_npz


def test_a_stage_of_another_run_is_refused(tmp_path):
    """Copied from a run with other options, or from one that was given another file of the same name."""
    path = tmp_path / "set.npz"
    for name, shift, seed in (("old", 0, 0), ("seeded", 1, 1), ("own", 1, 0)):
        image_npz(path, shift)
        with RunDirectory.hold(tmp_path / name, Config(seed=seed)) as directory:
            load_images("samples", str(path), "train")
            directory.stage("draw", lambda shift=shift, seed=seed: {"x": 10 * shift + seed})
    own = tmp_path / "own/stages/draw.npz"
    for name, words in (("seeded", "was computed with other options"), ("old", "was computed from another samples = ")):
        own.write_bytes((tmp_path / name / "stages/draw.npz").read_bytes())
        with (
            RunDirectory.hold(tmp_path / "own", Config()) as directory,
            pytest.raises(InputError, match=words) as error,
        ):
            load_images("samples", str(path), "train")
            directory.stage("draw", dict)
        assert str(error.value).startswith(str(own)) and "remove it" in str(error.value)
    own.unlink()
    with RunDirectory.hold(tmp_path / "own", Config()) as directory:
        load_images("samples", str(path), "train")
        assert int(directory.stage("draw", lambda: {"x": 10})["x"]) == 10


@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_no_flipped_bit_of_a_stage_goes_unnoticed(tmp_path, step):
    """Each byte (or each third) in turn: one line that names the file, or (dates and the like) the very same arrays."""
    directory = RunDirectory.open(tmp_path, Config())
    compute = lambda: {"x": np.arange(6.0), "name": "coat"}  # noqa: E731
    whole = directory.stage("draw", compute)
    file = tmp_path / "stages/draw.npz"
    good, same = file.read_bytes(), 0
    for place in range(0, len(good), step):
        damaged = bytearray(good)
        damaged[place] ^= 1 << (place % 8)
        file.write_bytes(damaged)
        try:
            found = directory.stage("draw", compute)
        except InputError as error:
            assert str(error).startswith(f"{file}: ") and "remove it to compute again" in str(error), place
        else:
            same += 1
            assert found.keys() == whole.keys() and all(np.array_equal(found[name], whole[name]) for name in whole), (
                place
            )
    assert same < 0.3 * len(good) / step  # dates, versions and the like in the headers of the archive


@pytest.mark.parametrize("damage", ["empty", "an array fewer", "rewritten by NumPy", "a single array", "a folder"])
def test_a_stage_that_is_not_whole_is_one_line(tmp_path, damage):
    directory = RunDirectory.open(tmp_path, Config())
    directory.stage("draw", lambda: {"x": 1, "y": 2})
    file = tmp_path / "stages/draw.npz"
    with zipfile.ZipFile(file) as archive:
        comment, members = archive.comment, {name: archive.read(name) for name in archive.namelist()}
    if damage == "empty":
        file.write_bytes(b"")
    elif damage == "an array fewer":
        with zipfile.ZipFile(file, "w") as archive:
            archive.comment = comment
            archive.writestr("x.npy", members["x.npy"])
    elif damage == "rewritten by NumPy":
        np.savez(file, x=1, y=2)
    elif damage == "a single array":
        with file.open("wb") as stream:
            np.save(stream, np.arange(3))
    else:
        file.unlink()
        file.mkdir()
    with pytest.raises(InputError, match=r"^[^\n]*draw\.npz: [^\n]*remove it to compute again[^\n]*$"):
        directory.stage("draw", dict)


def rewritten(file, change):
    """The archive again, with ``change(members) -> pairs`` of names and bytes, and its comment."""
    with zipfile.ZipFile(file) as archive:
        comment, members = archive.comment, {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of the name that is there twice.
        archive.comment = comment
        for name, content in change(members):
            archive.writestr(name, content)


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda members: [("x.npy", npy(np.arange(6.0)[None]))], "changes or adds x;"),
        (lambda members: [("x.npy", npy(np.arange(6)))], "changes or adds x;"),
        (lambda members: [*members.items(), ("x.npy", npy(np.ones(6)))], "holds x.npy more than once"),
        (lambda members: [*members.items(), ("note.txt", b"mine")], "files that are no arrays"),
    ],
)
def test_a_stage_keeps_the_shapes_and_dtypes_that_were_written_each_array_once(tmp_path, change, words):
    directory = RunDirectory.open(tmp_path, Config())
    directory.stage("draw", lambda: {"x": np.arange(6.0)})
    rewritten(tmp_path / "stages/draw.npz", change)
    with pytest.raises(InputError, match=words) as error:
        directory.stage("draw", dict)
    assert "draw.npz: " in str(error.value) and "remove it to compute again" in str(error.value)


def test_another_stage_of_the_same_run_is_refused(tmp_path):
    directory = RunDirectory.open(tmp_path, Config())
    for name in ("boxes/1", "boxes/2"):
        directory.stage(name, lambda name=name: {"x": int(name[-1])})
    one = tmp_path / "stages/boxes/1.npz"
    one.write_bytes((tmp_path / "stages/boxes/2.npz").read_bytes())
    with pytest.raises(InputError, match=r"1\.npz: is the stage 'boxes/2'; must be 'boxes/1'.*remove it"):
        directory.stage("boxes/1", dict)
    one.unlink()
    assert int(directory.stage("boxes/1", lambda: {"x": 1})["x"]) == 1
