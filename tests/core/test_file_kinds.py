"""Formats told by their first bytes, and the lines in which every reader names the format that it found."""

import gzip
import io
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dgu.analysis import read_features, read_statistics
from dgu.core.errors import InputError
from dgu.core.file_kinds import HEAD, _masked_crc32c, kind_of, mismatch
from dgu.data import load
from dgu.models import load_checkpoint
from experiments.audit import sets as audit_sets
from experiments.model_card import _read_samples

SAFETENSORS = (60).to_bytes(8, "little") + b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}      ' + bytes(4)
#: The record "abc" as TensorFlow writes it: length, its masked CRC-32C, content and its checksum.
TFRECORD = b"\3" + bytes(7) + struct.pack("<I", _masked_crc32c(b"\3" + bytes(7))) + b"abc" + bytes(4)


def packed(*names):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"content")
    return buffer.getvalue()


def saved(write):
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def image(form, mode="RGB"):
    return saved(lambda file: Image.new(mode, (3, 3)).save(file, form))


CONTENTS = {
    "safetensors": SAFETENSORS,
    "pytorch": packed("archive/data.pkl"),
    "pytorch, legacy": b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.",
    "pickle": pickle.dumps({"a": 1}, protocol=4),
    "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(40),
    "matlab": b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + bytes(100),
    "tfrecord": TFRECORD,
    "parquet": b"PAR1" + bytes(10),
    "npy": saved(lambda file: np.save(file, np.ones(3))),
    "npz": saved(lambda file: np.savez(file, a=np.ones(3))),
    "zip": packed("a.txt"),
    "gzip": gzip.compress(b"content"),
    "png": image("PNG"),
    "jpeg": image("JPEG"),
    "gif": image("GIF"),
    "tiff": image("TIFF"),
    "webp": image("WEBP"),
    "bmp": image("BMP"),
    "ppm": image("PPM"),
    "idx": bytes([0, 0, 8, 3]) + bytes(12),
    "html": b"<!DOCTYPE html><html><title>404 Not Found</title></html>",
    "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
    "json": b'{"error": "access denied"}',
    "text": "Zugriff verweigert für Gäste\n".encode() * 30,
    "empty": b"",
}


@pytest.mark.parametrize("case", CONTENTS)
def test_formats_are_told_by_their_first_bytes(case):
    content = CONTENTS[case]
    assert kind_of(content[:HEAD], len(content)).key == case.split(",")[0]


def test_the_checksum_of_tfrecords():
    """Against the published check value of CRC-32C, the mask of TFRecord's specification undone."""
    turned = (_masked_crc32c(b"123456789") - 0xA282EAD8) % 2**32
    assert (turned >> 17 | turned << 15) % 2**32 == 0xE3069283


ZIPS = {
    "a PyTorch file": [
        ("archive/byteorder", "archive/data.pkl", "archive/version"),
        ("m/constants.pkl", "m/data.pkl"),
        ("m/code/__torch__.py", "m/data/0", "m/constants.pkl"),
        ("config.json", "m/data.pkl"),
    ],
    "a Keras file": [("metadata.json", "config.json", "model.weights.h5"), ("model.weights.h5", "config.json")],
    "an empty zip archive": [()],
}
CASES = [(name, members) for name, cases in ZIPS.items() for members in cases]


@pytest.mark.parametrize(("name", "members"), CASES)
def test_zips_are_told_by_all_their_members(tmp_path, name, members):
    for ending, readers in {
        ".npz": (load, load_checkpoint, read_features, read_statistics),
        ".zip": (load,),
        ".pt": (load, load_checkpoint),
        ".keras": (load, read_features),
    }.items():
        path = tmp_path / f"x{ending}"
        path.write_bytes(packed(*members))
        for read in readers:
            # Where a file of PyTorch may be a network, it is told what is missing in this one.
            as_network = read is load_checkpoint and ending == ".pt" and name == "a PyTorch file"
            said = r"must be what torch\.save\(.* writes of a network" if as_network else f"it is {name}: "
            with pytest.raises(InputError, match=said) as caught:
                read(path)
            assert "unpack" not in str(caught.value)


def test_zips_of_arrays_and_of_other_files(tmp_path):
    (tmp_path / "x").write_bytes(packed("a.npy", "b.npy"))
    assert mismatch(tmp_path / "x", ("npz",)) == ""
    (tmp_path / "x").write_bytes(packed("a.png", "dataset.json", "b.npy"))
    assert mismatch(tmp_path / "x", ("zip",)) == ""
    (tmp_path / "x").write_bytes(packed("a.npy", "b.npy")[:-10])  # Cut: its first member tells.
    assert mismatch(tmp_path / "x", ("npz",)) == ""


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("value", [{"a": 1}, [1, 2], np.arange(3), {}, [], Path("a")])
def test_pickles_of_every_protocol(tmp_path, protocol, value):
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    with pytest.raises(InputError, match=r"it is a pickle: write its arrays with numpy\.savez") as caught:
        load(path)
    assert "cifar" not in str(caught.value)


@pytest.mark.parametrize("value", [(1, 2), 7, "text", 1.5, 10**20])
def test_pickles_of_protocol_0_of_single_values(value):
    content = pickle.dumps(value, protocol=0)
    assert kind_of(content, len(content)).key == "pickle"


@pytest.mark.parametrize("text", ["cat\ndog\nbird\n", "(I am a text)\nhello", "I1 is a name\n", "Vowels\nare\n", "}q"])
def test_texts_are_no_pickles(text):
    assert kind_of(text.encode(), len(text)).key == "text"


def test_pickles_of_cifar_are_told_what_to_bring(tmp_path):
    for name in ("cifar-10-python.tar.gz", "cifar10.pkl"):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(InputError, match="cifar-10-batches-bin"):
            load(tmp_path / name)


def test_lines_hold_no_addresses_and_no_endless_lists(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/a.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    with pytest.raises(
        InputError, match=r"a\.png: cannot be read \(cannot identify image file\); must be a whole image"
    ):
        load(tmp_path / "set")
    (tmp_path / "x.npz").write_bytes(packed(*(f"{number}.npy" for number in range(500))))
    for read in (load, read_features, read_statistics):
        with pytest.raises(InputError) as caught:
            read(tmp_path / "x.npz")
        assert len(str(caught.value)) < 350 + len(str(tmp_path))


def test_unknown_bytes_have_no_format():
    assert kind_of(bytes(range(1, 60)), 59) is None
    assert kind_of(b"\xff" * HEAD, 10**6) is None


FOREIGN = ("safetensors", "pytorch", "pytorch, legacy", "hdf5", "tfrecord", "gzip", "html", "lfs", "empty", "text")
NAMES = {"safetensors": "safetensors", "pytorch": "PyTorch", "hdf5": "HDF5", "tfrecord": "TFRecord", "gzip": "gzip",
         "html": "web page", "lfs": "Git LFS pointer", "empty": "empty file", "text": "a text"}  # fmt: skip


@pytest.mark.parametrize("case", FOREIGN)
@pytest.mark.parametrize(
    ("read", "ending"),
    [(load_checkpoint, ".npz"), (load_checkpoint, ".pt"), (load_checkpoint, ".pkl"), (load_checkpoint, ".safetensors"),
     (read_features, ".npy"), (read_features, ".safetensors"), (read_statistics, ".npz"), (load, ".npz"),
     (load, ".safetensors"), (load, ".pt"), (load, ".zip"), (load, "-images-idx3-ubyte")],
)  # fmt: skip
def test_each_reader_names_the_format_that_it_finds(tmp_path, case, read, ending):
    """One line with the file, the format and what to do; nothing about unpickling, loading or magic strings."""
    if read is load and ending.endswith("ubyte"):
        (tmp_path / "x-labels-idx1-ubyte").write_bytes(b"")
        if case == "gzip":  # Unpacked and found to hold something else.
            return
    path = tmp_path / f"x{ending}"
    path.write_bytes(CONTENTS[case])
    with pytest.raises(InputError) as caught:
        read(path)
    line = str(caught.value)
    assert str(path) in line and NAMES[case.split(",")[0]] in line and "\n" not in line, line
    assert "allow_pickle" not in line and "magic" not in line, line


def test_folders_are_named_too(tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "_CHECKPOINT_METADATA").write_text("{}")
    for read in (load, load_checkpoint, read_features):
        with pytest.raises(InputError, match="an Orbax checkpoint"):
            read(tmp_path / "c")


@pytest.mark.parametrize("name", ["x.npz", "x.npy", "x.pkl", "x.zip", "x-images-idx3-ubyte", "x.safetensors"])
def test_named_pipes_and_devices_are_refused_at_once(tmp_path, name):
    """Opening a pipe that nobody writes to would wait for ever."""
    os.mkfifo(tmp_path / name)
    (tmp_path / "x-labels-idx1-ubyte").write_bytes(b"")
    for read in (load, load_checkpoint, read_features, read_statistics):
        with pytest.raises(InputError, match=r"is a named pipe; must be an ordinary file"):
            read(tmp_path / name)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    for read in (load, load_checkpoint, read_features, read_statistics):
        with pytest.raises(InputError, match=r"is a device; must be an ordinary file"):
            read(tmp_path / name)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "~nobody-of-this-name/x.npz", "x" * 5000 + ".npz"])
def test_names_that_no_file_can_have(name):
    readers = (load, load_checkpoint, read_features, read_statistics)
    readers += (lambda name: audit_sets.read("samples", name, "train", None), lambda name: _read_samples(Path(name)))
    for read in readers:
        with pytest.raises(InputError) as caught:
            read(name)
        assert "\n" not in str(caught.value) and len(str(caught.value)) <= 2000
