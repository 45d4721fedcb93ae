"""Files made to exhaust memory or to stumble over: refused before memory is taken, in one line with their name."""

import gzip
import io
import json
import struct
import tracemalloc
import warnings
import zipfile

import jax
import numpy as np
import pytest
from PIL import Image

from dgu.analysis import read_features, read_statistics
from dgu.core.checkpoint import load_arrays
from dgu.core.errors import InputError
from dgu.core.reading import byte_limit, guarded, opened_npz, read_member
from dgu.data import SampleStore, load, write_edm_zip, write_npz
from dgu.models import ADMConfig, EDMNetwork, load_checkpoint
from dgu.models.pretrained import save_network
from dgu.models.snapshot import read_snapshot
from tests.models import snapshots

#: Zeros that a bomb unpacks to (bytes), and what a reader may take on the way to its refusal.
BOMB, MOST = 2**25, 2**23
NETWORK = EDMNetwork(ADMConfig(4, 1, 1, 2, model_channels=4, channel_mult=(1,), num_blocks=1, attn_resolutions=()))
IMAGES = np.zeros((4, 6, 6, 1), np.uint8)
FIRST = "model.out_conv.weight"
CONFIG = {
    "precond": "EDMPrecond",
    "kwargs": {"img_resolution": 4, "img_channels": 1, "model_channels": 4, "channel_mult": [1], "num_blocks": 1,
               "label_dim": 2, "attn_resolutions": [], "model_type": "SongUNet", "channel_mult_emb": 1,
               "embedding_type": "fourier"},
}  # fmt: skip
ARRAYS = {"model.enc.4x4_conv.weight": np.ones((4, 1, 3, 3), np.float32)}


def header(shape, dtype="|u1"):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def bomb(path, name, head=None, kind=zipfile.ZIP_DEFLATED):
    """Add a member of ``BOMB`` zeros, or put it in the place of one."""
    others = {}
    if path.exists():
        with zipfile.ZipFile(path) as archive:
            others = {entry: archive.read(entry) for entry in archive.namelist() if entry != name}
    with zipfile.ZipFile(path, "w", kind, compresslevel=9 if kind != zipfile.ZIP_LZMA else None) as archive:
        for entry, content in others.items():
            archive.writestr(entry, content)
        archive.writestr(name, (header((BOMB,)) if head is None else head) + bytes(BOMB))


def line_of(read, *arguments):
    """The refusal's line; reading took little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as caught:
            read(*arguments)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    line = str(caught.value)
    assert "\n" not in line and str(arguments[0]) in line and peak < MOST, (line, peak)
    return line


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
    line_of(load, path)


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


# --- what parsers stumble over
# ------------------------------------------------------------------------------------------


def npy(text, version=1, data=b""):
    head = text.encode("latin1")
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H", len(head)) + head + data


HEADERS = {
    "unfinished": "{'descr': '<f4', 'shape': (3,",
    "deep": "(" * 900 + ")" * 900,
    "negative": "{'descr': '<f4', 'fortran_order': False, 'shape': (-3, 4), }\n",
    "huge": "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4), }\n",
    "16 GiB": "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 1), }\n",
    "long number": f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({'9' * 5000}, 1), }}\n",
    "empty and huge": "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 4611686018427387904, 4611686018427387904), }\n",
    "no width": "{'descr': '<U0', 'fortran_order': False, 'shape': (4611686018427387904, 2), }\n",
    "text shape": "{'descr': '<f4', 'fortran_order': False, 'shape': 'abc', }\n",
    "odd dtype": "{'descr': ('<f4', (100000, 100000, 100000)), 'fortran_order': False, 'shape': (1, 1), }\n",
    "no dtype": "{'descr': 7, 'fortran_order': False, 'shape': (1, 1), }\n",
    "escape": r"{'descr': '\d', 'fortran_order': False, 'shape': (1, 1), }" + "\n",
    "bytes": "\xff\xfe\0\1",
}


@pytest.mark.parametrize("case", HEADERS)
@pytest.mark.parametrize("version", [1, 2, 9])
def test_damaged_array_headers(tmp_path, case, version, network):
    content = npy(HEADERS[case], version, bytes(64))
    (tmp_path / "x.npy").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        for name in ("images", "features", "mu", "sigma", "metadata"):
            archive.writestr(f"{name}.npy", content)
    line_of(read_features, tmp_path / "x.npy")
    for read in (read_features, read_statistics, load, load_checkpoint):
        line_of(read, tmp_path / "x.npz")
    path = tmp_path / "network.npz"
    for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(io.BytesIO(network)) as archive, zipfile.ZipFile(path, "w", kind) as packed:
            for entry in archive.namelist():
                packed.writestr(entry, content if entry == f"{FIRST}.npy" else archive.read(entry))
        line_of(load_checkpoint, path)


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("damage", ["content", "encrypted", "method"])
def test_damaged_compressed_members(tmp_path, kind, damage):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        for name in ("images", "features", "mu", "sigma", "metadata"):
            archive.writestr(f"{name}.npy", npy(HEADERS["16 GiB"]) + bytes(range(256)) * 20)
    content = bytearray(buffer.getvalue())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(signature)
        while at >= 0:
            if damage == "encrypted":
                content[at + flags] |= 1
            elif damage == "method":
                content[at + flags + 2 : at + flags + 4] = struct.pack("<H", 97)
            elif signature == b"PK\x03\x04":
                content[at + 50 : at + 58] = b"\xff" * 8
            at = content.find(signature, at + 4)
    (tmp_path / "x.npz").write_bytes(content)
    for read in (read_features, read_statistics, load, load_checkpoint, load_arrays):
        line_of(read, tmp_path / "x.npz")


def test_deep_json(tmp_path, network):
    deep = "[" * 200_000
    write_edm_zip(tmp_path / "x.zip", IMAGES)
    with zipfile.ZipFile(tmp_path / "x.zip", "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("dataset.json", deep)
    line_of(load, tmp_path / "x.zip")
    with zipfile.ZipFile(io.BytesIO(network)) as archive, zipfile.ZipFile(tmp_path / "network.npz", "w") as packed:
        for entry in archive.namelist():
            content = io.BytesIO(archive.read(entry))
            if entry == "metadata.npy":
                content = io.BytesIO()
                np.save(content, np.asarray(deep))
            packed.writestr(entry, content.getvalue())
    with pytest.raises(InputError, match=r"network\.npz"):
        load_checkpoint(tmp_path / "network.npz")


def test_absurd_configurations_of_networks(tmp_path, network):
    """Numbers from the metadata decide about shapes: none of them costs memory or time."""
    with zipfile.ZipFile(io.BytesIO(network)) as archive:
        metadata = json.loads(np.load(io.BytesIO(archive.read("metadata.npy"))).item())
    for name, value in {"img_resolution": 2**62, "model_channels": 2**61, "num_blocks": 2**61, "img_channels": 2**60,
                        "label_dim": 2**61, "channel_mult": [2**40], "sigma_data": "1e999"}.items():  # fmt: skip
        described = {
            **metadata,
            "config": {**metadata["config"], "kwargs": {**metadata["config"]["kwargs"], name: value}},
        }
        with zipfile.ZipFile(io.BytesIO(network)) as archive, zipfile.ZipFile(tmp_path / "n.npz", "w") as packed:
            for entry in archive.namelist():
                content = io.BytesIO(archive.read(entry))
                if entry == "metadata.npy":
                    content = io.BytesIO()
                    np.save(content, np.asarray(json.dumps(described)))
                packed.writestr(entry, content.getvalue())
        with pytest.raises(InputError, match=r"n\.npz"):
            load_checkpoint(tmp_path / "n.npz")


@pytest.mark.parametrize(
    "of",
    [
        {"size": (2**62, 0), "stride": (0, 1)},
        {"size": (1, 1), "stride": (2**62, 2**62)},
        {"size": (2**63, 0, 2**63), "stride": (1, 1, 1)},
    ],
)
def test_tensors_of_absurd_sizes(tmp_path, of):
    def make(name, array):
        return snapshots.parameter(snapshots.tensor(array, **(of if name == "model.enc.4x4_conv.weight" else {})))

    (tmp_path / "n.pkl").write_bytes(snapshots.snapshot(CONFIG, ARRAYS, make=make))
    line_of(read_snapshot, tmp_path / "n.pkl")


def test_damaged_manifests_of_stores(tmp_path):
    SampleStore.open(tmp_path / "s", {"model": "m"}, (2, 2, 1))
    for text in ("", "{", "[]", "null", "{}", '{"config": {}}', '{"config": {}, "shape": [0]}', '{"config": {}, "shape": ["a"]}',
                 '{"config": {}, "shape": [1e400]}', '{"config": 3, "shape": [2]}', "[" * 100_000, "\xff"):  # fmt: skip
        (tmp_path / "s" / "store.json").write_bytes(text.encode("latin1"))
        line_of(lambda path: SampleStore.existing(path.parent), tmp_path / "s" / "store.json")


@pytest.mark.parametrize(
    "error", [MemoryError(), RecursionError("deep"), OverflowError("large"), KeyError("x"), OSError(5, "disk")]
)
def test_the_guard_takes_whatever_parsers_raise(error):
    with pytest.raises(InputError, match=r"^a\.bin: cannot be read \(.+\); must be a whole file$"):
        with guarded("a.bin", "a whole file"):
            raise error
    with pytest.raises(KeyboardInterrupt):
        with guarded("a.bin", "a whole file"):
            raise KeyboardInterrupt


def test_arrays_come_out_as_numpy_reads_them(tmp_path):
    arrays = {"c": np.arange(6.0).reshape(2, 3), "f": np.asfortranarray(np.arange(6).reshape(2, 3)), "e": np.ones((0, 3)),
              "s": np.asarray("text"), "b": np.asarray([True, False]), "h": np.asarray([1.5], np.float16)}  # fmt: skip
    np.savez_compressed(tmp_path / "x.npz", **arrays)
    with opened_npz(tmp_path / "x.npz", "an npz file") as archive:
        for name, array in arrays.items():
            found = read_member(archive, name, "x.npz", 1000)
            assert found.dtype == array.dtype and found.shape == array.shape and (found == array).all()


def test_an_array_that_is_there_twice_is_refused(tmp_path):
    """NumPy takes the last one, other programs the first."""
    from dgu.analysis import read_features

    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for value in (0, 1):
            stream = io.BytesIO()
            np.save(stream, np.full((4, 4, 4, 1), value, np.uint8))
            archive.writestr("images.npy", stream.getvalue())
    for read in (load, read_features):
        assert "x.npz: holds images.npy more than once" in line_of(read, path)
