"""Files made to exhaust memory: refused before memory is taken, in one line with their name."""

import gzip
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from PIL import Image

from dgu.analysis import read_features, read_statistics
from dgu.core.checkpoint import load_arrays
from dgu.core.errors import InputError
from dgu.core.reading import byte_limit
from dgu.data import load, write_edm_zip, write_npz
from dgu.models import load_checkpoint
from tests.reading.archives import BOMB, FIRST, IMAGES, MOST, bomb, header, line_of


@pytest.mark.parametrize("kind", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
@pytest.mark.parametrize("name", ["extra.npy", f"{FIRST}.npy", "metadata.npy"])
def test_bombs_in_network_files(tmp_path, network, name, kind, monkeypatch):
    """In a member that nobody needs, that the network needs, and in the metadata: whatever the general limit is."""
    monkeypatch.setenv("DGU_MAX_GIB", "100")
    path = tmp_path / "network.npz"
    path.write_bytes(network)
    bomb(path, name, kind=kind)
    said = {"extra.npy": "does not belong", "metadata.npy": "at most 16,777,216"}.get(name, "at most 65,824")
    assert ("method bzip2" if kind == zipfile.ZIP_BZIP2 else said) in line_of(load_checkpoint, path)


def test_bombs_in_network_files_read_as_arrays(tmp_path, network):
    path = tmp_path / "network.npz"
    path.write_bytes(network)
    bomb(path, "extra.npy")
    assert "DGU_MAX_GIB" in line_of(load_arrays, path)


def test_unneeded_members_are_not_read(tmp_path):
    write_npz(tmp_path / "x.npz", IMAGES, np.zeros(4, np.int32))
    bomb(tmp_path / "x.npz", "extra.npy")
    np.savez(tmp_path / "f.npz", features=np.ones((3, 2)))
    bomb(tmp_path / "f.npz", "extra.npy")
    np.savez(tmp_path / "m.npz", mu=np.ones(2), sigma=np.eye(2))
    bomb(tmp_path / "m.npz", "extra.npy")
    tracemalloc.start()
    assert len(load(tmp_path / "x.npz")) == 4 and read_features(tmp_path / "f.npz").shape == (3, 2)
    assert read_statistics(tmp_path / "m.npz").mean.tolist() == [1, 1]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MOST


@pytest.mark.parametrize("name", ["images", "labels", "class_names"])
def test_bombs_in_image_files(tmp_path, name):
    path = tmp_path / "x.npz"
    write_npz(path, IMAGES, np.zeros(4, np.int32), ["a"])
    head = {
        "images": header((BOMB // 64, 8, 8, 1)),
        "labels": header((BOMB // 8,), "<i8"),
        "class_names": header((BOMB // 16,), "<U4"),
    }
    bomb(path, f"{name}.npy", head[name])
    assert name in line_of(load, path)


def test_bombs_in_features(tmp_path):
    bomb(tmp_path / "f.npz", "features.npy", header((BOMB // 8, 8)))
    assert "DGU_MAX_GIB" in line_of(read_features, tmp_path / "f.npz")
    with open(tmp_path / "f.npy", "wb") as file:
        file.write(header((BOMB // 8, 8)))
        file.truncate(file.tell() + BOMB)
    assert "DGU_MAX_GIB" in line_of(read_features, tmp_path / "f.npy")
    np.savez(tmp_path / "m.npz", mu=np.ones(2))
    bomb(tmp_path / "m.npz", "sigma.npy", header((BOMB // 8,), "<f8"))
    assert "sigma" in line_of(read_statistics, tmp_path / "m.npz")


def test_bombs_in_idx(tmp_path):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    labels = tmp_path / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(bytes([0, 0, 8, 1]) + struct.pack(">I", 4) + bytes(4)))
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 3]) + struct.pack(">3I", BOMB // 64, 8, 8) + bytes(BOMB)))
    assert "DGU_MAX_GIB" in line_of(load, path)
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 3]) + struct.pack(">3I", 4, 8, 8) + bytes(BOMB)))
    assert "more than 256" in line_of(load, path)
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 3]) + struct.pack(">3I", 4, 8, 8) + bytes(256)))
    labels.write_bytes(gzip.compress(bytes([0, 0, 8, 1]) + struct.pack(">I", BOMB // 2) + bytes(BOMB)))
    with pytest.raises(InputError, match=r"train-labels.*at most"):
        load(path)


def test_bombs_in_edm_zips(tmp_path):
    """A dataset.json far larger than so many images need, a member larger than any image, and many images."""
    path = tmp_path / "x.zip"
    write_edm_zip(path, IMAGES)
    bomb(path, "dataset.json", b'{"labels": null}' + b" " * 100)
    assert "dataset.json of" in line_of(load, path)
    write_edm_zip(path, IMAGES)
    bomb(path, "00000/img00000001.png", bytes(1000))
    assert "at most 4194448 bytes" in line_of(load, path)
    (tmp_path / "set").mkdir()
    with zipfile.ZipFile(path) as archive:
        (tmp_path / "set" / "0.png").write_bytes(archive.read("00000/img00000000.png"))
    (tmp_path / "set" / "dataset.json").write_bytes(b'{"labels": [' + b" " * 2**21 + b"]}")
    assert "more than 1,0" in line_of(load, tmp_path / "set")


def test_an_archive_that_lies_about_a_member_takes_no_memory(tmp_path):
    """A member of a few bytes that is said to be 64 MB: nothing is set aside for what does not come."""
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", header((BOMB // 256, 4, 8, 4)) + bytes(100))
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<I", len(header((BOMB // 256, 4, 8, 4))) + BOMB // 2)
    path.write_bytes(content)
    assert "x.npz" in line_of(load, path)


def test_the_limit_is_stated_and_can_be_raised(tmp_path, monkeypatch):
    monkeypatch.delenv("DGU_MAX_GIB")
    assert byte_limit() == 2**31 and byte_limit(5) == 5
    monkeypatch.setenv("DGU_MAX_GIB", "0.5")
    assert byte_limit() == 2**29
    for text in ("many", "-1", "0", "nan", "inf"):
        monkeypatch.setenv("DGU_MAX_GIB", text)
        with pytest.raises(InputError, match=r"\$DGU_MAX_GIB = .*: must be a positive number of GiB"):
            byte_limit()
    monkeypatch.setenv("DGU_MAX_GIB", "1e-6")
    np.savez(tmp_path / "x.npz", images=np.full((40, 8, 8, 3), 7, np.uint8))
    with pytest.raises(InputError, match=r"at most 1,073 .DGU_MAX_GIB in the environment allows more"):
        load(tmp_path / "x.npz")
    assert len(load(tmp_path / "x.npz", max_bytes=10**6)) == 40
    with pytest.raises(InputError, match="max_bytes = 0"):
        load(tmp_path / "x.npz", max_bytes=0)


def write_set(folder, kind, count):
    """Images of 8x8 bytes in a format, and the path to load."""
    images, labels = np.zeros((count, 8, 8, 1), np.uint8), np.zeros(count, np.int64)
    if kind == "npz":
        write_npz(folder / "x.npz", images, labels)
    elif kind == "zip":
        write_edm_zip(folder / "x.zip", images, labels)
    elif kind == "folder":
        (folder / "x.folder").mkdir()
        for number in range(count):
            Image.new("L", (8, 8)).save(folder / f"x.folder/{number}.png")
    else:
        (folder / "x-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, count, 8, 8) + images.tobytes())
        (folder / "x-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + bytes(count))
        return folder / "x-images-idx3-ubyte"
    return folder / f"x.{kind}"


@pytest.mark.parametrize("kind", ["npz", "zip", "folder", "idx"])
def test_the_limit_counts_the_float32_that_bytes_become(tmp_path, kind):
    path = write_set(tmp_path, kind, 10)
    taken = 4 * 10 * 64
    assert load(path, max_bytes=taken).images.nbytes == taken
    with pytest.raises(InputError, match=r"2,560 bytes.*at most 2,559.*float32|2,560 bytes as float32.*at most 2,559"):
        load(path, max_bytes=taken - 1)


@pytest.mark.parametrize(("dtype", "each"), [(np.uint8, 4), (np.float16, 4), (np.float32, 4), (np.float64, 8)])
def test_the_limit_counts_what_numbers_take_in_memory(tmp_path, monkeypatch, dtype, each):
    np.save(tmp_path / "x.npy", np.zeros((32, 32), dtype))
    np.savez(tmp_path / "x.npz", np.zeros((32, 32), dtype))
    for name in ("x.npy", "x.npz"):
        monkeypatch.setenv("DGU_MAX_GIB", str(1024 * each / 2**30))
        read_features(tmp_path / name)
        monkeypatch.setenv("DGU_MAX_GIB", str((1024 * each - 1) / 2**30))
        with pytest.raises(InputError, match=rf"{1024 * each:,} bytes.*at most {1024 * each - 1:,}"):
            read_features(tmp_path / name)


def test_a_set_takes_its_own_memory_and_that_of_its_file(tmp_path):
    """Bytes are converted in blocks: beside the stored bytes and the set no third array of all images is made."""
    path = write_set(tmp_path, "npz", 2**15)
    load(path)
    tracemalloc.start()
    found = load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < found.images.nbytes * 1.25 + 2**21
